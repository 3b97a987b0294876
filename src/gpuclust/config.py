"""The schema of conf/: one dataclass per group, its defaults, and its constraints beside each field.

Hydra composes a configuration and `to_config` turns it into these plain dataclasses; behind this border nobody
sees a DictConfig. `validate` checks every constraint before anything runs.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from gpuclust.errors import ConfigurationError

AUTO = "auto"


@dataclass(frozen=True)
class Range:
    """A constraint: an interval of numbers, and texts allowed beside it."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    or_text: tuple[str, ...] = ()

    def complaint(self, value: Any) -> str | None:
        """Why the value breaks the constraint, or None."""
        if value in self.or_text:
            return None
        if isinstance(value, str):
            return f"is not {self}"
        above = value > self.low if self.open_low else value >= self.low
        return None if above and value <= self.high else f"is outside {self}"

    def __str__(self) -> str:
        texts = "".join(f" or {t}" for t in self.or_text)
        low = "(-inf" if self.low == -math.inf else f"{'(' if self.open_low else '['}{self.low:.10g}"
        return f"{low}, {'inf)' if self.high == math.inf else f'{self.high:.10g}]'}{texts}"


@dataclass(frozen=True)
class Choices:
    """A constraint: one of some words."""

    words: tuple[str, ...]

    def complaint(self, value: Any) -> str | None:
        """Why the value breaks the constraint, or None."""
        if value in self.words:
            return None
        return f"is not one of {', '.join(self.words)}{did_you_mean(str(value), self.words)}"


def number(default: Any, *, low: float = -math.inf, high: float = math.inf, **rest: Any) -> Any:
    """A field that holds a number within a range."""
    return field(default=default, metadata={"constraint": Range(low, high, **rest)})


def one_of(default: str, *words: str) -> Any:
    """A field that holds one of some words."""
    return field(default=default, metadata={"constraint": Choices(words)})


@dataclass
class RolesConfig:
    """Which column means what; null lets a preset or nothing decide."""

    id: str | None = None
    title: str | None = None
    creator: str | None = None
    group: str | None = None
    popularity: str | None = None
    year: str | None = None
    preview: str | None = None


@dataclass
class JoinConfig:
    """A second table whose columns are added to the first, matched by a key that may be a list."""

    path: str | None = None
    left: str | None = None
    right: str | None = None
    columns: list[str] = field(default_factory=list)


@dataclass
class DataConfig:
    """Where rows come from and which columns are used; ``where`` says where to get such a file.

    ``bad_rows`` is for records that cannot be read: ``few`` skips them up to one in a hundred and refuses the file above,
    ``skip`` skips any number, ``error`` refuses the file.
    """

    source: str = one_of("file", "file", "catalogue")
    preset: str = one_of("none", "none", "tracks")
    path: str | None = None
    where: str | None = None
    features: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    roles: RolesConfig = field(default_factory=RolesConfig)
    n_rows: int | None = number(None, low=1)
    seed: int = number(0, low=0, high=2**32 - 1)
    bad_rows: str = one_of("few", "few", "skip", "error")
    join: JoinConfig = field(default_factory=JoinConfig)


@dataclass
class CleanConfig:
    """Which rows are kept."""

    nulls: str = one_of("drop", "drop", "median", "mean")
    duplicates: str = one_of("none", "none", "id", "row")
    bounds: dict[str, list[float | None]] = field(default_factory=dict)
    require_group: bool = False


@dataclass
class ScaleConfig:
    """How each feature is centred and scaled."""

    method: str = one_of("standard", "standard", "minmax", "robust", "none")


@dataclass
class ReduceConfig:
    """How the scaled features are reduced to fewer dimensions."""

    method: str = one_of("none", "none", "pca")
    n_components: int | float = number(0.95, low=0, open_low=True)
    whiten: bool = False
    rescale: bool = False


@dataclass
class ClusterConfig:
    """What every algorithm has; each has its own subclass beside its code (see `gpuclust.algorithms.registry`)."""

    name: str = ""


@dataclass
class ScoreConfig:
    """How a clustering is judged."""

    silhouette: bool = True
    exact_limit: float = number(2e10, low=0)
    sample_size: int = number(10_000, low=2)
    stability: int = number(0, low=0, high=1000)


@dataclass
class AnalysisConfig:
    """Analyses beyond the scores, each of which costs time."""

    reference: str | None = None
    dbcv: bool = False
    gap: int = number(0, low=0, high=1000)
    compare: bool = True


@dataclass
class BackendConfig:
    """Which device computes."""

    name: str = one_of("auto", "auto", "cpu", "gpu")
    pool_fraction: float = number(0.8, low=0, high=0.95)


def default_experiment() -> str:
    """The MLflow experiment where ``tracking.experiment`` is not given: MLFLOW_EXPERIMENT_NAME, else ``gpuclust``."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gpuclust"


@dataclass
class TrackingConfig:
    """Where runs are recorded, and which models are kept."""

    store: str = one_of("mlflow", "mlflow", "none")
    uri: str | None = None
    experiment: str = field(default_factory=default_experiment)
    models: str = one_of("chosen", "chosen", "all", "none")
    retry_seconds: float = number(120.0, low=0.0)
    """How long a store that does not answer is tried again before the command gives up."""


@dataclass
class SweepConfig:
    """How a sweep is named, resumed and decided."""

    metric: str = one_of(
        AUTO, AUTO, "silhouette", "silhouette_with_noise", "calinski_harabasz", "davies_bouldin", "bic", "aic", "icl",
        "relative_validity", "split_gain", "dbcv", "prediction_strength", "stability_jaccard_min", "reference_ami",
    )  # fmt: skip
    resume: bool = True
    name: str | None = None


# Metrics that cannot choose a job, and why.
NO_CHOICE = {
    "inertia": "it falls with every further cluster, so it always takes the most clusters",
    "log_likelihood": "it rises with every further component, so it always takes the largest mixture",
}


def choosing_metrics() -> tuple[str, ...]:
    """The metrics that can choose a job: the values of ``sweep.metric``, without ``auto``."""
    (metric,) = (f for f in fields(SweepConfig) if f.name == "metric")
    return tuple(word for word in metric.metadata["constraint"].words if word != AUTO)


def require_choosing(metric: str, key: str) -> None:
    """Raise ConfigurationError when a metric cannot choose a job: it has no best direction, or always favours more clusters."""
    usable = choosing_metrics()
    if metric in usable:
        return
    why = NO_CHOICE.get(metric, "it is no metric that is best at its highest or lowest")
    raise ConfigurationError(
        f"{key}{metric} cannot choose a job: {why}; use one of {', '.join(usable)}{did_you_mean(metric, usable)}"
    )


@dataclass
class ReportConfig:
    """What is drawn."""

    figures: bool = True


@dataclass
class Config:
    """Everything that a job needs to know."""

    data: DataConfig = field(default_factory=DataConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    reduce: ReduceConfig = field(default_factory=ReduceConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    seed: int = number(0, low=0, high=2**32 - 1)
    dtype: str = one_of("float32", "float32", "float64")
    experiments: Any = None


def conf_dir() -> Path:
    """conf/: inside the package in a wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def did_you_mean(word: str, known: Any) -> str:
    """``; did you mean X or Y?`` for the nearest known words, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def flatten(config: Any) -> dict[str, Any]:
    """Dotted key -> value for every leaf of a configuration (lists are leaves, dicts are not)."""
    return dict(_leaves(asdict(config) if is_dataclass(config) and not isinstance(config, type) else config))


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif not isinstance(value, Mapping):
            yield f"{prefix}{key}", value


def validate(config: Config) -> Config:
    """The configuration itself, when every value is within its constraint.

    Raises ConfigurationError with one line a broken constraint names the key, the value and what is allowed.
    """
    if config.sweep.metric in NO_CHOICE:
        require_choosing(config.sweep.metric, "sweep.metric=")
    for key, value, constraint in _constrained(config):
        complaint = None if value is None else constraint.complaint(value)
        if complaint:
            raise ConfigurationError(f"{key}={value} {complaint}")
    _validate_bounds(config.clean)
    components = config.reduce.n_components
    if isinstance(components, float) and components > 1:
        raise ConfigurationError(
            f"reduce.n_components={components} is neither a whole number of components "
            "nor a share of the variance in (0, 1]"
        )
    _validate_paths(config.data)
    largest = getattr(config.cluster, "max_cluster_size", None)
    smallest = getattr(config.cluster, "min_cluster_size", None)
    if largest is not None and isinstance(smallest, int) and largest < smallest:
        raise ConfigurationError(
            f"cluster.max_cluster_size={largest} is below cluster.min_cluster_size={smallest}; raise it or set null"
        )
    return config


def _constrained(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for f in fields(node):
        value = getattr(node, f.name)
        if is_dataclass(value):
            yield from _constrained(value, f"{prefix}{f.name}.")
        elif "constraint" in f.metadata:
            yield f"{prefix}{f.name}", value, f.metadata["constraint"]


def _validate_paths(data: DataConfig) -> None:
    """``data.where`` says, in a study, where to get its files."""
    where = f"; {data.where}" if data.where else ""
    if data.source == "file" and not data.path:
        raise ConfigurationError(f"data.path is missing: name the file to cluster, as in data.path=tracks.csv{where}")
    join = data.join
    if data.source == "file" and join.path is None and (join.left or join.right or join.columns):
        raise ConfigurationError(f"data.join.path is missing: name the second table of the join{where}")


def _validate_bounds(clean: CleanConfig) -> None:
    for feature, bounds in clean.bounds.items():
        key = f"clean.bounds.{feature}={bounds}"
        if len(bounds) != 2:
            raise ConfigurationError(f"{key} is not [low, high]; null leaves an end open, as in [1, null]")
        low, high = bounds
        if low is not None and high is not None and low > high:
            raise ConfigurationError(f"{key} has its low end above its high end")
