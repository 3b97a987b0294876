"""From the files of conf/ and a command line's overrides to plain dataclasses: the border that Hydra does not cross.

Hydra composes and its sweep grammar is used as it is; the jobs themselves are run by `gpuclust.sweep`, because
Hydra's own launcher recomposes 60 ms a job, keeps going past `on_multirun_end` when a job fails, and leaves a
folder a run behind. A sweep is composed once per distinct choice of files; its values are then set one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from gpuclust.config import ALGORITHMS, Config, did_you_mean, known_keys, validate
from gpuclust.errors import ConfigurationError
from gpuclust.sanitize import mask


@dataclass(frozen=True)
class PlannedJob:
    """One job of a command: its configuration, and what varies in it (key or group -> value)."""

    config: Config
    swept: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """All jobs of a command, composed and validated. ``swept`` are the keys that vary, in the order given."""

    jobs: tuple[PlannedJob, ...]
    swept: tuple[str, ...]
    overrides: tuple[str, ...]

    @property
    def is_sweep(self) -> bool:
        """Whether the jobs belong under one parent run."""
        return bool(self.swept)


def conf_dir() -> Path:
    """conf/: inside the package in a wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def register_schema() -> None:
    """Put the dataclasses where conf/*.yaml find them."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config(cluster=MISSING))
    for name, schema in ALGORITHMS.items():
        store.store(group="schema/cluster", name=name, node=schema)


def plan(overrides: Sequence[str], *, multirun: bool = False, config_dir: Path | None = None) -> Plan:
    """Compose and validate every job that the overrides ask for; nothing is run.

    ``multirun`` allows values such as ``a,b`` and ``range(2,11)`` in the overrides; an experiment file may declare
    its own under ``hydra.sweeper.params``, which the overrides can replace key by key; with ``cluster=gmm`` given,
    what the file sweeps of other algorithms is left out.

    Raises ConfigurationError naming the key or the choice that is wrong and the nearest right ones.
    """
    with _hydra(config_dir), _one_line_errors():
        given = _parse([_bounds_may_be_added(text) for text in overrides])
        sweeps = {o.get_key_element(): o for o in given if o.is_sweep_override()}
        if sweeps and not multirun:
            first = next(iter(sweeps.values()))
            raise ConfigurationError(
                f"{first.input_line} is a sweep: add -m to run one job for each value, or write a list as [a,b]"
            )
        fixed = {o.get_key_element(): o for o in given if not o.is_sweep_override()}
        common = [o.input_line for o in fixed.values() if not ("cluster" in sweeps and _owners(o))]
        algorithm = fixed["cluster"].value() if "cluster" in fixed else None
        for key, override in _declared_sweep(common).items():
            foreign = algorithm is not None and _owners(override) and algorithm not in _owners(override)
            if key not in fixed and key not in sweeps and not foreign:
                sweeps[key] = override
        jobs = tuple(_jobs(list(fixed.values()), list(sweeps.values())))
    return Plan(jobs=jobs, swept=tuple(key.lstrip("+") for key in sweeps), overrides=tuple(overrides))


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> Config:
    """The configuration of one job."""
    return plan(overrides, config_dir=config_dir).jobs[0].config


def to_yaml(config: Config) -> str:
    """The configuration as YAML, as it is recorded beside a job: secrets are masked."""
    return OmegaConf.to_yaml(OmegaConf.create(mask(asdict(config))))  # checked already: a schema would cost 5 ms a job


def from_yaml(text: str) -> Config:
    """The configuration that `to_yaml` wrote, by any version whose keys are still known."""
    with _one_line_errors():
        raw = OmegaConf.create(text)
        name = OmegaConf.select(raw, "cluster.name")
        if name not in ALGORITHMS:
            raise ConfigurationError(f"cluster.name={name} of a recorded configuration is not known here")
        schema = OmegaConf.structured(Config(cluster=ALGORITHMS[name]()))
        OmegaConf.set_struct(schema.clean.bounds, False)
        return _to_config(OmegaConf.merge(schema, raw))


@contextmanager
def _hydra(config_dir: Path | None) -> Iterator[None]:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="gpuclust"):
        _EXTRA.clear()
        if config_dir is not None:
            if not config_dir.is_dir():
                raise ConfigurationError(f"--config-dir {config_dir} is not a folder")
            _EXTRA.append(f"hydra.searchpath=[file://{config_dir.resolve()}]")
        yield


# Overrides that every composition within `_hydra` gets.
_EXTRA: list[str] = []


def _compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    return hydra_compose("config", [*_EXTRA, *overrides], return_hydra_config=with_hydra)


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _bounds_may_be_added(text: str) -> str:
    """``clean.bounds.FEATURE=[low,high]`` names a feature that no schema knows."""
    return f"++{text}" if text.startswith("clean.bounds.") else text


def _declared_sweep(overrides: Sequence[str]) -> dict[str, Override]:
    """The sweep of an experiment file: ``hydra.sweeper.params``."""
    params = OmegaConf.select(_compose(overrides, with_hydra=True), "hydra.sweeper.params") or {}
    parsed = _parse([f"{key}={value}" for key, value in params.items()])
    return {o.get_key_element(): o for o in parsed if o.is_sweep_override()}


def _jobs(fixed: list[Override], sweeps: list[Override]) -> Iterator[PlannedJob]:
    groups = set(GlobalHydra.instance().config_loader().list_groups(""))
    algorithms = {v for o in sweeps if o.key_or_group == "cluster" for v in o.sweep_string_iterator()}
    if algorithms:  # then a key of one algorithm must not stop the others
        sweeps = sweeps + [o for o in fixed if _owners(o)]
        fixed = [o for o in fixed if not _owners(o)]
    varying = {o.key_or_group for o in sweeps if o.is_sweep_override()}
    composed: dict[tuple[str, ...], DictConfig] = {}
    seen: set[str] = set()
    for texts in product(*(_values(o) for o in sweeps)):
        chosen = _parse(texts)
        algorithm = next((o.value() for o in chosen if o.key_or_group == "cluster"), None)
        chosen = [o for o in chosen if algorithm is None or not _owners(o) or algorithm in _owners(o)]
        choices = tuple(o.input_line for o in chosen if o.key_or_group in groups)
        if choices not in composed:
            composed[choices] = _compose([*(o.input_line for o in fixed), *choices])
        config = deepcopy(composed[choices])
        for override in chosen:
            if override.key_or_group not in groups:
                _set(config, override)
        if (text := OmegaConf.to_yaml(config)) not in seen:
            seen.add(text)
            swept = {o.key_or_group: o.value() for o in chosen if o.key_or_group in varying}
            yield PlannedJob(config=_to_config(config), swept=swept)


def _owners(override: Override) -> tuple[str, ...]:
    """The algorithms that a key of the cluster group belongs to, where not to all."""
    return known_keys().get(override.key_or_group, ())


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


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
    assert isinstance(result, Config)
    return validate(result)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (HydraException, ValueError) as error:
        raise ConfigurationError(_translate(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(str(error).splitlines()[0]) from error


def _translate(error: Exception) -> str:
    text = str(error)
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, word = match.groups()
        options = re.findall(r"^\t(\S+)$", text.partition("Available options")[2], re.MULTILINE)
        known = f"one of {', '.join(options)}" if options else "there: the group has no files"
        return f"{group}={word} is not {known}{did_you_mean(word, options)}"
    if match := re.search(r"Error merging override (.+)", text):
        return _complaint(match[1], error.__cause__ or error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _complaint(match[1], error)
    if match := re.search(r"Error parsing override '(.*)'", text):
        return f"cannot read '{match[1]}': write key=value, and quote values that hold spaces, commas or brackets"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _complaint(setting: str, error: BaseException) -> str:
    """Why a key cannot be set: it is not known, belongs to another algorithm, or takes another type."""
    key = setting.partition("=")[0].lstrip("+~")
    keys = known_keys()
    absent = isinstance(error, ConfigKeyError | ConfigAttributeError | ConfigCompositionException)
    if absent and (owners := keys.get(key)):
        return f"{key} belongs to cluster={' or '.join(owners)}, not to the algorithm chosen"
    if key not in keys and not any(k.startswith(f"{key}.") for k in keys):
        groups = {k.partition(".")[0] for k in keys}
        return f"there is no key '{key}'{did_you_mean(key, [*keys, *groups])} (gpuclust --cfg shows all keys)"
    return f"{setting}: {str(error).splitlines()[0]}"
