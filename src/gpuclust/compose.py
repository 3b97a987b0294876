"""From the files of conf/ and a command line's overrides to plain dataclasses: the border that Hydra does not cross.

Hydra composes and its sweep grammar is used as it is; the jobs themselves are run by `gpuclust.pipeline.sweep`, because
Hydra's own launcher recomposes 60 ms a job, keeps going past `on_multirun_end` when a job fails, and leaves a
folder a run behind. A sweep is composed once per distinct choice of files; its values are then set one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import ConfigCompositionException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from gpuclust.algorithms.registry import algorithms, known_keys
from gpuclust.config import NAMED_BY_TABLE, SOURCE, Config, DataConfig, conf_dir, conf_dirs, did_you_mean, validate
from gpuclust.data.files import join_paths
from gpuclust.errors import ConfigurationError, GpuclustError
from gpuclust.overrides import (
    STUDIES,
    checked_override,
    is_known,
    normalised,
    refusal_of_hydra,
    refuse_sweep,
    unknown,
    without_effect,
)
from gpuclust.sanitize import mask

MAX_JOBS = 10_000
# The number of evenly spaced values of an interval that a search can try.
INTERVAL_VALUES = 101

# Path -> the choice of the group ``data`` that its columns ask for: ``table`` or ``tracks``.
Sniff = Callable[[str], str]


@dataclass(frozen=True)
class PlannedJob:
    """One job of a command: its configuration, and what varies in it (key or group -> value)."""

    config: Config
    swept: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """All jobs of a command, composed and validated. ``swept`` are the keys that vary, in the order given; ``notes`` say
    what was decided for the user, a line each."""

    jobs: tuple[PlannedJob, ...]
    swept: tuple[str, ...]
    overrides: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_sweep(self) -> bool:
        """Whether the jobs belong under one parent run."""
        return bool(self.swept)

    @property
    def is_search(self) -> bool:
        """Whether a sampler chooses some of the jobs, and only these are run."""
        return self.is_sweep and self.jobs[0].config.sweep.search != "grid"

    @property
    def n_jobs(self) -> int:
        """The largest number of jobs that the command runs on all rows."""
        return min(len(self.jobs), self.jobs[0].config.sweep.n_trials) if self.is_search else len(self.jobs)


def register_schema() -> None:
    """Put the dataclasses where conf/*.yaml find them."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config(cluster=MISSING))
    for name, algorithm in algorithms().items():
        store.store(group="schema/cluster", name=name, node=algorithm.config)


def plan(
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    config_dir: Path | None = None,
    sniff: Sniff = lambda _: "table",
) -> Plan:
    """Compose and validate every job that the overrides ask for; nothing is run.

    ``multirun`` allows values such as ``a,b`` and ``range(2,11)`` in the overrides; an experiment file may declare
    its own under ``hydra.sweeper.params``, which the overrides can replace key by key; with ``cluster=gmm`` given,
    what the file sweeps of other algorithms is left out. Where no ``data`` was chosen, ``data.path`` chooses
    ``sniff(path)``, and no path the generated catalogue.

    Raises ConfigurationError naming the key or the choice that is wrong and the nearest right ones.
    """
    with _hydra(config_dir), _one_line_errors(config_dir):
        given = _parse([checked_override(text) for text in overrides])
        sweeps = {o.get_key_element(): o for o in given if o.is_sweep_override()}
        if sweeps and not multirun:
            first = next(iter(sweeps.values()))
            raise ConfigurationError(
                f"{first.input_line} is a sweep: add -m to run one job for each value, or write a list as [a,b]"
            )
        fixed = {o.get_key_element(): o for o in given if not o.is_sweep_override()}
        for override in fixed.values():
            _refuse_list_of_choices(override)
        common = [o.input_line for o in fixed.values() if not ("cluster" in sweeps and _owners(o))]
        bases = _Bases(common, sniff)
        algorithm = fixed["cluster"].value() if "cluster" in fixed else None
        for key, override in bases.declared_sweep(sweeps.get(STUDIES)).items():
            foreign = algorithm is not None and _owners(override) and algorithm not in _owners(override)
            if key not in fixed and key not in sweeps and not foreign:
                sweeps[key] = override
        for override in sweeps.values():
            refuse_sweep(override.key_or_group, override.input_line)
        jobs = tuple(_jobs(list(fixed.values()), list(sweeps.values()), bases))
    notes = [*bases.notes, *_settings_without_effect(fixed, sweeps, jobs)]
    if any(text.lstrip("+").startswith("experiment=") for text in overrides):
        notes.append("experiment=NAME is read as experiments=NAME")
    return Plan(tuple(jobs), tuple(key.lstrip("+") for key in sweeps), tuple(overrides), tuple(notes))


def _settings_without_effect(
    fixed: Mapping[str, Override], sweeps: Mapping[str, Override], jobs: Sequence[PlannedJob]
) -> Iterator[str]:
    """A note for each key that was given and has no effect in any job.

    Raises ConfigurationError when it was swept.
    """
    idle = [without_effect(job.config) for job in jobs]
    for key in set.intersection(*(set(keys) for keys in idle)) & {*fixed, *sweeps}:
        text = f"{key} has no effect {idle[0][key]}"
        if key in sweeps:
            raise ConfigurationError(f"{text}, so it cannot be swept")
        yield text


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> Config:
    """The configuration of one job."""
    return plan(overrides, config_dir=config_dir).jobs[0].config


def to_yaml(config: Config) -> str:
    """The configuration as YAML, as it is recorded beside a job: secrets are masked."""
    return yaml.dump(mask(asdict(config)), Dumper=_Dumper, allow_unicode=True, sort_keys=False)


# OmegaConf's text, in a ninth of its time, because a sweep writes it for each job.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes tuples as lists, and puts texts between quotes that OmegaConf would read as numbers, such as 1e3."""


def _text(dumper: Any, text: str) -> Any:
    try:
        float(text)
    except ValueError:
        return dumper.represent_str(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, _Dumper.represent_list)


def from_yaml(text: str) -> Config:
    """The configuration that `to_yaml` wrote, by any version whose keys are still known."""
    with _one_line_errors(None):
        raw = OmegaConf.create(text)
        name = OmegaConf.select(raw, "cluster.name")
        if name not in algorithms():
            raise ConfigurationError(f"cluster.name={name} of a recorded configuration is not known here")
        schema = OmegaConf.structured(Config(cluster=algorithms()[name].config()))
        for key in NAMED_BY_TABLE:
            OmegaConf.set_struct(OmegaConf.select(schema, key), False)
        return _to_config(OmegaConf.merge(schema, raw))


@contextmanager
def _hydra(config_dir: Path | None) -> Iterator[None]:
    register_schema()
    of_program = GlobalHydra.instance().hydra  # of a program with Hydra that calls gpuclust.fit
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="gpuclust"):
            _EXTRA.clear()
            if config_dir is not None and not config_dir.is_dir():
                raise ConfigurationError(f"--config-dir {config_dir} is not a folder")
            if further := [*([config_dir.resolve()] if config_dir else []), *conf_dirs()[1:]]:
                _EXTRA.append(f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in further)}]")
            yield
    finally:
        GlobalHydra.instance().hydra = of_program


# Overrides that every composition within `_hydra` gets.
_EXTRA: list[str] = []


def _compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    return hydra_compose("config", [*_EXTRA, *overrides], return_hydra_config=with_hydra)


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())  # glob(*) needs the loader
    parsed = []
    for text in overrides:
        try:
            parsed += parser.parse_overrides([text])
        except Exception as error:  # the grammar ends in any exception on unforeseen input
            raise ConfigurationError(
                f"cannot read '{text}': write key=value, and quote values that hold spaces, commas or brackets"
            ) from error
    return parsed


class _Bases:
    """What the overrides that are no sweep compose to, for each study where several are swept."""

    def __init__(self, overrides: Sequence[str], sniff: Sniff) -> None:
        self.notes: list[str] = []
        self._overrides = list(overrides)
        self._sniff = sniff
        self._composed: dict[str | None, DictConfig] = {}
        self._sniffed: dict[str, str] = {}

    def base(self, study: str | None = None) -> DictConfig:
        """The configuration with Hydra's own part. Raises ConfigurationError for a plugin that it chooses."""
        if study not in self._composed:
            base = _compose([*self._overrides, *([study] if study else [])], with_hydra=True)
            for part in ("launcher", "sweeper"):
                if (name := base.hydra.runtime.choices.get(f"hydra/{part}")) != "basic":
                    raise ConfigurationError(refusal_of_hydra(f"hydra/{part}={name}", f"hydra/{part}"))
            if base.experiments:
                raise ConfigurationError(
                    f"experiments/{base.hydra.runtime.choices.experiments}.yaml sets nothing: begin it with the line "
                    "'# @package _global_' and write key: value below"
                )
            self._composed[study] = base
        return self._composed[study]

    def declared_sweep(self, studies: Override | None) -> dict[str, Override]:
        """The sweep of an experiment file: ``hydra.sweeper.params``."""
        if studies is not None:
            for study in _values(studies):
                if OmegaConf.select(self.base(study), "hydra.sweeper.params"):
                    raise ConfigurationError(f"{study} declares a sweep of its own; run the studies one after another")
            return {}
        params = OmegaConf.select(self.base(), "hydra.sweeper.params") or {}
        parsed = _parse([f"{key}={value}" for key, value in params.items()])
        return {o.get_key_element(): o for o in parsed if o.is_sweep_override()}

    def data_choice(self, chosen: Sequence[Override]) -> list[str]:
        """The choice of the group ``data`` as an override, where neither the command line nor a study makes one."""
        study = next((o.input_line for o in chosen if o.key_or_group == STUDIES), None)
        base = self.base(study)
        if base.hydra.runtime.choices.get("data") or any(o.key_or_group == "data" for o in chosen):
            return []
        given = {key: o.value() for key in SOURCE for o in chosen if o.key_or_group == f"data.{key}"}
        source = DataConfig(**{key: base.data[key] for key in SOURCE} | given)
        source.path = join_paths(source.path)
        path = source.location
        if path is None:
            return ["data=catalogue"]
        if path not in self._sniffed:
            self._sniffed[path] = self._sniff(path)
            if self._sniffed[path] == "tracks":
                self.notes.append(
                    f"{source.shown} has the columns of a table of tracks, so data=tracks (data=table uses every numeric column)"
                )
        return [f"data={self._sniffed[path]}"]

    def is_search(self, studies: Override | None) -> bool:
        """Whether a sampler chooses the jobs; it can try the values of an interval."""
        study = _values(studies)[0] if studies is not None else None
        return bool(self.base(study).sweep.search != "grid")


def _jobs(fixed: list[Override], sweeps: list[Override], bases: _Bases) -> Iterator[PlannedJob]:
    groups = set(GlobalHydra.instance().config_loader().list_groups(""))
    algorithms = {value.partition("=")[2] for o in sweeps if o.key_or_group == "cluster" for value in _values(o)}
    if algorithms:  # then a key of one algorithm must not stop the others
        sweeps = sweeps + [o for o in fixed if _owners(o)]
        fixed = [o for o in fixed if not _owners(o)]
    varying = {o.key_or_group for o in sweeps if o.is_sweep_override()}
    composed: dict[tuple[str, ...], DictConfig] = {}
    seen: set[str] = set()
    intervals = any(o.is_sweep_override() and isinstance(o.value(), IntervalSweep) for o in sweeps) and bases.is_search(
        next((o for o in sweeps if o.key_or_group == STUDIES), None)
    )
    values = [_values(o, intervals=intervals) for o in sweeps]
    if (n_jobs := prod(len(v) for v in values)) > MAX_JOBS:
        raise ConfigurationError(f"the sweep has {n_jobs:,} jobs; a command runs at most {MAX_JOBS:,}")
    for texts in product(*values):
        chosen = _parse(texts)
        algorithm = next((o.value() for o in chosen if o.key_or_group == "cluster"), None)
        chosen = [o for o in chosen if algorithm is None or not _owners(o) or algorithm in _owners(o)]
        choices = (*(o.input_line for o in chosen if o.key_or_group in groups), *bases.data_choice(chosen))
        if choices not in composed:
            composed[choices] = _compose([*(o.input_line for o in fixed), *choices])
        raw = deepcopy(composed[choices])
        for override in chosen:
            if override.key_or_group not in groups:
                _set(raw, override)
        config = _to_config(raw)
        if config.data.source == "catalogue" and (config.data.path or config.data.query):
            raise ConfigurationError(
                f"data.{'path' if config.data.path else 'query'}={mask(config.data.shown)} has no effect with data=catalogue, which generates its rows; "
                "leave data=catalogue out to cluster the file"
            )
        if (text := repr(config)) not in seen:
            seen.add(text)
            study = next((o.value() for o in (*fixed, *chosen) if o.key_or_group == STUDIES), None)
            config.experiments = None if study is None else str(study)  # its name, recorded with the run
            idle = without_effect(config)
            swept = {
                o.key_or_group: o.value() for o in chosen if o.key_or_group in varying and o.key_or_group not in idle
            }
            yield PlannedJob(config=config, swept=swept)


def _refuse_list_of_choices(override: Override) -> None:
    """A group takes one of its files; ``cluster=[kmeans,gmm]`` would merge two, and ``cluster=null`` leave none."""
    group, value = override.key_or_group, override.value()
    if group in GlobalHydra.instance().config_loader().list_groups("") and (value is None or isinstance(value, list)):
        sweep = f"; to sweep: -m {group}={','.join(map(str, value))}" if value else ""
        raise ConfigurationError(f"{override.input_line} is not one choice of {group}{sweep}")


def _owners(override: Override) -> tuple[str, ...]:
    """The algorithms that a key of the cluster group belongs to, where not to all."""
    return known_keys().get(override.key_or_group, ())


def _values(override: Override, *, intervals: bool = False) -> list[str]:
    """The overrides that an override stands for: itself, or one for each value of its sweep. An interval has values only where
    ``intervals`` are allowed."""
    if not override.is_sweep_override():
        return [override.input_line]
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        if not intervals:
            raise ConfigurationError(
                f"{override.input_line}: an interval has no list of values to run; write the values, or range(start,stop,step), or "
                "search it with sweep.search=optuna"
            )
        low, high = float(sweep.start or 0.0), float(sweep.end or 0.0)
        steps = (low + (high - low) * i / (INTERVAL_VALUES - 1) for i in range(INTERVAL_VALUES))
        return [f"{override.get_key_element()}={value:.6g}" for value in steps]
    size = abs(((sweep.stop or 0) - (sweep.start or 0)) / (sweep.step or 1)) if isinstance(sweep, RangeSweep) else 0
    values = [] if size > MAX_JOBS else list(islice(override.sweep_string_iterator(), MAX_JOBS + 1))
    if size > MAX_JOBS or len(values) > MAX_JOBS:
        raise ConfigurationError(f"{override.input_line} has more than {MAX_JOBS:,} values; a command runs fewer jobs")
    if not values:
        raise ConfigurationError(f"{override.input_line} has no value; write values that exist, as in a,b")
    return [f"{override.get_key_element()}={value}" for value in values]


def _set(config: DictConfig, override: Override) -> None:
    try:
        OmegaConf.update(
            config,
            override.key_or_group,
            override.value(),
            force_add=override.is_add() or override.is_force_add(),
        )
    except OmegaConfBaseException as error:
        raise ConfigurationError(_complaint(f"{override.key_or_group}={override.value()}", error)) from error


def _to_config(config: Any) -> Config:
    result = OmegaConf.to_object(config)
    if not isinstance(result, Config) or not isinstance(result.cluster, tuple(a.config for a in algorithms().values())):
        raise ConfigurationError(f"cluster is not one of {', '.join(algorithms())}; choose one, as in cluster=kmeans")
    result.data.path = join_paths(result.data.path)
    return normalised(validate(result))


@contextmanager
def _one_line_errors(config_dir: Path | None) -> Iterator[None]:
    """Whatever Hydra, OmegaConf, ANTLR and YAML raise for what a user wrote, as a ConfigurationError of one line.

    Their grammar and their composition end in any exception (TypeError, AttributeError, RecursionError ...) on unforeseen
    input; GPUCLUST_DEBUG=1 shows the original one.
    """
    try:
        yield
    except GpuclustError:
        raise
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError(_damaged(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"a file of {config_dir or conf_dir()} is not UTF-8 text: {error}") from error
    except Exception as error:
        raise ConfigurationError(" ".join(_translate(error).split())) from error


def _damaged(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}, line {mark.line + 1}" if mark else "a configuration file"
    return f"{where}: {error.problem or error.context}; correct the YAML"


def _translate(error: Exception) -> str:
    text = str(error)
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, word = match.groups()
        if group.startswith("hydra/"):
            return refusal_of_hydra(f"{group}={word}", group)
        options = re.findall(r"^\t(\S+)$", text.partition("Available options")[2], re.MULTILINE)
        known = f"one of {', '.join(options)}" if options else "there: the group has no files"
        return f"{group}={word} is not {known}{did_you_mean(word, options)}"
    if match := re.search(r"Error merging override (.+)", text):
        return _complaint(match[1], error.__cause__ or error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _complaint(match[1], error)
    if match := re.search(r"In '([^']+)': \w+ raised while composing config:\n(.+)", text):
        key = re.match(r"Key '([^']+)' not in", match[2])
        return f"{match[1]}.yaml: {unknown(key[1]) if key else match[2]}"
    said = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return said or f"the configuration cannot be composed ({type(error).__name__})"


def _complaint(setting: str, error: BaseException) -> str:
    """Why a key cannot be set: it is not known, belongs to another algorithm, or takes another type."""
    setting = setting.lstrip("+")
    key, _, value = setting.partition("=")
    keys = known_keys()
    absent = isinstance(error, ConfigKeyError | ConfigAttributeError | ConfigCompositionException)
    if absent and (owners := keys.get(key)):
        return f"{key} belongs to cluster={' or '.join(owners)}, not to the algorithm chosen"
    if key.startswith("clean.bounds."):
        return f"{setting} is not [low, high]; null leaves an end open, as in [1, null]"
    if key == "clean.bounds":
        return f"{setting}: write one feature at a time, as in clean.bounds.tempo=[1,null]"
    if key in (examples := {"scale.transform": "tempo=log", "scale.weights": "tempo=2", "data.circular": "hour=24"}):
        return f"{setting}: write one column at a time, as in {key}.{examples[key]}"
    if key.startswith(("scale.weights.", "data.circular.")):
        return f"{setting} is not a number above 0"
    if not is_known(key):
        return unknown(key)
    reason = str(error).splitlines()[0]
    if match := re.search(r"'list' (?:could not be converted )?to (\w+)", reason):
        kind = {"Integer": "one integer", "Float": "one number", "string": "one text"}.get(match[1], "one value")
        return f"{setting} expects {kind}; to sweep: -m {key}={value.strip('[] ').replace(' ', '')}"
    if "is not a ListConfig" in reason:
        return f"{setting} expects a list; write {key}=[{value}]"
    return f"{setting}: {reason}"
