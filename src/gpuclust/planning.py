"""From estimators and options of the Python API to the plan of jobs that the command line makes of its overrides."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import gpuclust
from gpuclust.algorithms.registry import algorithms, get_algorithm
from gpuclust.compose import Plan, PlannedJob, compose
from gpuclust.config import ClusterConfig, Config, DataConfig, flatten, is_query, validate
from gpuclust.data.files import absolute_path
from gpuclust.data.source import detect_preset
from gpuclust.errors import ConfigurationError
from gpuclust.overrides import normalised

STORE = "default"
"""The value of ``tracking`` for the store that the command line uses."""


@dataclass(frozen=True)
class Settings:
    """What the options of `gpuclust.fit` say beside the algorithm. ``values`` are configuration keys or groups -> value."""

    path: str
    values: Mapping[str, Any]
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the configuration whose values have names of columns, which may hold any character: key -> value."""
    id: str | None = None
    tracking: str | None = STORE
    experiment: str | None = None
    given: str | None = None
    """The path, where it is that of a file that data in memory was written to."""


def settings_of(*, config: Mapping[str, Any] | None, **groups: Any) -> dict[str, Any]:
    """Configuration keys and groups -> their values, from ``config`` and from options that are named like groups.

    A mapping sets keys of its group: ``clean={"nulls": "median"}`` is ``{"clean.nulls": "median"}``. A number for ``reduce``
    is the number of principal components, or the share of the variance that they keep.
    """
    values: dict[str, Any] = {}
    for group, value in groups.items():
        if value is not None:
            values |= _flat(group, value)
    for key, value in (config or {}).items():
        values |= _flat(str(key), value)
    reduce = _values("reduce", values.get("reduce"))
    if reduce and all(isinstance(v, (int, float)) for v in reduce):
        values |= {"reduce": "pca", "reduce.n_components": reduce if len(reduce) > 1 else reduce[0]}
    if "experiments" in values:
        raise ConfigurationError("studies run from the command line: gpuclust experiments=NAME")
    return values


def _flat(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for name, inner in value.items() for k, v in _flat(f"{key}.{name}", inner).items()}
    return {key: value}


def plan_of(clusterers: Sequence[Any], settings: Settings) -> Plan:
    """The jobs of some estimators or algorithm configurations, one for each combination of values.

    Raises ConfigurationError for a value or a key that is not allowed, and for an object that is no algorithm.
    """
    described = [_Described.of(clusterer) for clusterer in clusterers]
    data, notes = _data_choice(settings)
    jobs: dict[str, PlannedJob] = {}
    named = len({d.name for d in described}) > 1
    alternatives = {key: _values(key, value) for key, value in settings.values.items()}
    for one in described:
        alike = [d for d in described if d.name == one.name]
        varying = {name for name in one.parameters if len(_all_values(alike, name)) > 1}
        for chosen in _product(alternatives):
            base = _base(one, {**data, **chosen}, settings)
            for parameters in _product(one.parameters):
                config = deepcopy(base)
                cluster = _typed(config.cluster, one.settings(parameters))
                config.cluster = replace(config.cluster, **cluster)
                swept: dict[str, Any] = {"cluster": one.name} if named else {}
                for name in (n for n in one.parameters if n in varying):
                    key = one.keys.get(name, name)
                    swept |= {"seed": parameters[name]} if name == "random_state" else {f"cluster.{key}": cluster[key]}
                swept |= {key: value for key, value in chosen.items() if len(alternatives[key]) > 1}
                if "seed" not in settings.values:
                    config.seed = _seed(parameters.get("random_state"), config.seed)
                with in_words_of(one.keys):
                    config = normalised(validate(config))
                jobs.setdefault(repr(config), PlannedJob(config, swept))
    keys = tuple(dict.fromkeys(key for job in jobs.values() for key in job.swept))
    return Plan(tuple(jobs.values()), keys, (), tuple(notes))


def as_sweep(plan: Plan) -> Plan:
    """The plan as a sweep, also where it has one job: then the size of its algorithm is what is swept."""
    if plan.swept:
        return plan
    (job,) = plan.jobs
    algorithm = get_algorithm(job.config.cluster.name)
    key = algorithm.size_axis or "cluster"
    size = getattr(job.config.cluster, algorithm.size_key) if algorithm.size_key else algorithm.name
    return Plan((PlannedJob(job.config, {key: size}),), (key,), (), plan.notes)


@dataclass(frozen=True)
class _Described:
    """An estimator or a configuration of an algorithm: each parameter with its values, and where it is in the configuration."""

    name: str
    parameters: Mapping[str, list[Any]]
    kind: type
    keys: Mapping[str, str]

    @classmethod
    def of(cls, clusterer: Any) -> _Described:
        kind = type(clusterer)
        name = clusterer.name if isinstance(clusterer, ClusterConfig) else getattr(kind, "_algorithm", None)
        if isinstance(clusterer, type):
            raise ConfigurationError(f"{clusterer.__name__} is a class; give an instance, {clusterer.__name__}(...)")
        if name is None:
            hint = f"; use gpuclust.{kind.__name__}" if kind.__name__ in gpuclust.__all__ else ""
            raise ConfigurationError(
                f"{kind.__name__} of {kind.__module__.partition('.')[0]} is not an estimator of gpuclust, nor the "
                f"configuration of one of its algorithms ({', '.join(algorithms())}){hint}"
            )
        get_algorithm(name)
        if isinstance(clusterer, ClusterConfig):
            given = {f.name: getattr(clusterer, f.name) for f in fields(clusterer) if f.name != "name"}
        else:
            found = clusterer.get_params(deep=False)
            given = {n: found[n] for n in inspect.signature(kind).parameters if n in found}
        return cls(name, {n: _values(n, v) for n, v in given.items()}, kind, getattr(kind, "_keys", {}))

    def settings(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration's keys for one value of each parameter."""
        if issubclass(self.kind, ClusterConfig):
            return dict(parameters)
        try:
            clusterer: Any = self.kind(**parameters)
            found: dict[str, Any] = clusterer._settings()
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        return found


def _base(one: _Described, values: Mapping[str, Any], settings: Settings) -> Config:
    """The configuration with everything but the parameters of the algorithm."""
    overrides = [f"cluster={one.name}", "data.query='select 1'" if is_query(settings.path) else "data.path=-"]
    overrides += [f"{key}={_text(value, quoted='.' in key)}" for key, value in values.items()]
    with in_words_of(one.keys):
        config = compose(overrides)
    config.data = config.data.at(settings.path)
    if config.data.query and config.data.folder is None:
        config.data.folder = str(Path.cwd())
    for key, value in settings.columns.items():
        group, _, name = key.partition(".")
        setattr(getattr(config, group), name, value)
    if settings.id is not None and config.data.roles.id is None:
        config.data.roles.id = settings.id
    if config.data.join.path:
        config.data.join.path = absolute_path(config.data.join.path)
    if settings.experiment is not None:
        config.tracking.experiment = settings.experiment
    config.tracking.store = "none" if settings.tracking is None else "mlflow"
    config.tracking.uri = None if settings.tracking in (None, STORE) else settings.tracking
    return config


def _data_choice(settings: Settings) -> tuple[dict[str, str], list[str]]:
    """The choice of the group ``data``, where none is made: by the columns of the file, as on the command line."""
    if "data" in settings.values:
        return {}, []
    given: dict[str, Any] = {key: settings.values.get(f"data.{key}") for key in ("database", "folder", "sheet")}
    source = DataConfig(**given)
    if detect_preset(source.at(settings.path).location or "") != "tracks":
        return {"data": "table"}, []
    note = 'the data has the columns of a table of tracks, so data="tracks" (config={"data": "table"} uses every numeric column)'
    return {"data": "tracks"}, [note]


def _typed(config: ClusterConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with whole numbers as floats where the configuration has a float, as Hydra gives them: they are in the key."""
    floats = {f.name for f in fields(config) if f.type in ("float", float)}
    return {name: float(v) if name in floats and isinstance(v, int) else v for name, v in values.items()}


def _seed(random_state: Any, default: int) -> int:
    if random_state is None:
        return default
    from gpuclust.estimators.base import seed_of

    return seed_of(deepcopy(random_state))


def in_words_of(keys: Mapping[str, str], data: str | None = None) -> Any:
    """A context in which an error names parameters of Python in place of configuration keys, and "the data" in place of the
    file that ``data`` in memory was written to."""
    from gpuclust.estimators.base import python_errors

    return python_errors(keys, data)


_LISTS = frozenset(key for key, value in flatten(Config()).items() if isinstance(value, list))


def _values(name: str, value: Any) -> list[Any]:
    """The values of a parameter: several for a list, a tuple, a range or an array of one dimension, else one.

    They are plain Python values. Raises ConfigurationError where there are none.
    """
    if name in _LISTS or name.startswith("clean.bounds"):
        return [list(value) if isinstance(value, (tuple, set)) else value]
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) and np.ndim(value) <= 1  # type: ignore[arg-type]
    found = list(value) if several and not (isinstance(value, np.ndarray) and value.ndim == 0) else [value]
    if not found:
        raise ConfigurationError(f"{name} has no values; give one at least")
    return [v.item() if isinstance(v, np.generic) else v for v in found]


def _all_values(alike: Sequence[_Described], name: str) -> list[Any]:
    """The different values of a parameter in some descriptions."""
    found: list[Any] = []
    for value in (v for one in alike for v in one.parameters[name]):
        if not any(value is other or value == other for other in found):
            found.append(value)
    return found


def _product(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _text(value: Any, *, quoted: bool = True) -> str:
    """A value as Hydra's grammar writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, (str, Path)):
        text = re.sub(r"(\\*)'", r"\1\1\\'", str(value))
        text = re.sub(r"(\\+)$", r"\1\1", text)  # a backslash before a quote is written twice
        return f"'{text}'" if quoted else str(value)
    return repr(value.item() if isinstance(value, np.generic) else value)
