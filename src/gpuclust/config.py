"""The schema of conf/: one dataclass per group, its defaults, and its constraints beside each field.

Hydra composes a configuration and `to_config` turns it into these plain dataclasses; the rest of the
package never sees a DictConfig. `validate` checks every constraint before anything runs.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from gpuclust import errors
from gpuclust.errors import ConfigurationError

AUTO = "auto"
NAMED_BY_TABLE = ("clean.bounds", "data.circular", "reduce.options", "scale.weights", "scale.transform")
"""Mappings whose keys are names of the table, or of a plug-in, and therefore not in the schema."""
UNIT, COSINE = "unit", "cosine"


@dataclass(frozen=True)
class Range:
    """A constraint: an interval of numbers, and texts allowed beside it. ``spare_rows``: the number is at most that of the rows
    that are clustered, less this many; None where the rows do not limit it."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    or_text: tuple[str, ...] = ()
    spare_rows: int | None = None

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


@cache
def plugins(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of installed packages in the group ``gpuclust.algorithms``, ``gpuclust.reducers``, ``gpuclust.scalers`` or ``gpuclust.maps``."""
    return {entry.name: entry for entry in entry_points(group=f"gpuclust.{group}")}


@dataclass(frozen=True)
class Choices:
    """A constraint: one of some words, or the name of a plug-in in a group."""

    words: tuple[str, ...]
    plugins: str | None = None

    def complaint(self, value: Any) -> str | None:
        """Why the value breaks the constraint, or None."""
        if value in self.words:
            return None
        known = (*self.words, *(plugins(self.plugins) if self.plugins else ()))
        return None if value in known else f"is not one of {', '.join(known)}{did_you_mean(str(value), known)}"


_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def bytes_of(size: float | str) -> int:
    """A number of bytes from a number or a text such as ``4GB`` (10^9) or ``4GiB`` (2^30). Raises ValueError for anything else."""
    if isinstance(size, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:[eE]\d+)?)\s*([a-zA-Z]*)\s*", size)
        if found is None or found[2].upper() not in _UNITS:
            raise ValueError(size)
        return int(float(found[1]) * _UNITS[found[2].upper()])
    return int(size)


@dataclass(frozen=True)
class Size:
    """A constraint: ``auto``, or an amount of memory of at least ``low`` bytes (see `bytes_of`)."""

    low: int

    def complaint(self, value: Any) -> str | None:
        """Why the value breaks the constraint, or None."""
        try:
            return None if value == AUTO or bytes_of(value) >= self.low else f"is not {self}"
        except (ValueError, OverflowError):
            return f"is not {self}"

    def __str__(self) -> str:
        return f"auto, or at least {self.low // 10**6}MB, as in 4GB, 4GiB or 4000000000"


DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>|s|sec|seconds?|min|minutes?|h|hours?)", re.ASCII)
COMPARISON = re.compile(
    r"\s*(?P<metric>\w+)\s*(?P<sign><=|>=|<|>|=)\s*(?P<number>[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)\s*"
)


@dataclass(frozen=True)
class Duration:
    """A constraint: a time such as ``90``, ``90s``, ``10min`` or ``1.5h``."""

    def complaint(self, value: Any) -> str | None:
        """Why the value breaks the constraint, or None."""
        found = DURATION.fullmatch(str(value))
        return None if found and float(found["number"]) > 0 else "is not a time above 0, as in 90s, 10min or 2h"


@dataclass(frozen=True)
class Comparisons:
    """A constraint: comparisons of metrics with numbers, such as ``noise_fraction<0.3``."""

    def complaint(self, value: Any) -> str | None:
        """Why the value breaks the constraint, or None."""
        if all(COMPARISON.fullmatch(str(text)) for text in value):
            return None
        return "does not compare metrics with numbers, as in 'sweep.require=[noise_fraction<0.3,n_clusters>=4]'"


def seconds_of(duration: str) -> float:
    """The seconds of a text that `Duration` allows."""
    found = DURATION.fullmatch(duration)
    assert found is not None
    return float(found["number"]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found["unit"][:1]]


@dataclass(frozen=True)
class ModelName:
    """A constraint: a name that MLflow's Model Registry takes, and that can be written in ``models:/NAME@champion``."""

    def complaint(self, value: Any) -> str | None:
        """Why the value breaks the constraint, or None."""
        return None if re.fullmatch(r"[\w][\w. -]*", str(value)) else f"is not {self}"

    def __str__(self) -> str:
        return "a name of letters, digits, spaces, dots, hyphens and underscores"


def number(default: Any, *, low: float = -math.inf, high: float = math.inf, **rest: Any) -> Any:
    """A field that holds a number within a range."""
    return field(default=default, metadata={"constraint": Range(low, high, **rest)})


def one_of(default: str, *words: str, plugins: str | None = None) -> Any:
    """A field that holds one of some words, or the name of a plug-in."""
    return field(default=default, metadata={"constraint": Choices(words, plugins)})


@dataclass
class RolesConfig:
    """Which column means what; null lets a preset or nothing decide."""

    id: str | None = None
    """The column that identifies a row."""
    title: str | None = None
    """The name of a row, shown in lists and searched."""
    creator: str | None = None
    """Who made it: searched, and counted in the profile of a cluster."""
    group: str | None = None
    """A known label, such as a genre: profiled, and never a feature unless it is named."""
    popularity: str | None = None
    """Orders the rows of a list."""
    year: str | None = None
    """Averaged by the API and the explorer."""
    preview: str | None = None
    """A web address of a sound sample."""


@dataclass
class JoinConfig:
    """A second table whose columns are added to the first, matched by a key that may be a list."""

    path: str | None = None
    """The file of the second table; also an address or a pattern, as in ``data.path``."""
    left: str | None = None
    """The key column of the first table."""
    right: str | None = None
    """The key column of the second table."""
    columns: list[str] = field(default_factory=list)
    """The columns to add; empty: all."""


@dataclass
class DataConfig:
    """Where rows come from and which columns are used; ``where`` says where to get such a file.

    ``bad_rows`` is for records that cannot be read: ``few`` skips them up to one in a hundred and refuses the file above,
    ``skip`` skips any number, ``error`` refuses the file.
    """

    source: str = one_of("file", "file", "catalogue")
    """A file, or generated tracks."""
    preset: str = one_of("none", "none", "tracks")
    """``tracks``: the usual names of audio features and roles are known."""
    path: Any = None
    """A CSV, TSV, JSON lines, Parquet, Feather or Excel file (gzip too), a folder of them, a Delta or Iceberg table, a pattern such as ``tracks-*.parquet``, or a list of these (stored
    as one text). ``s3://``, ``gs://``, ``abfs://`` and ``https://`` addresses are read directly."""
    query: str | None = None
    """A query whose result is the table, in place of ``path``: ``select * from 'tracks/*.parquet' where year > 2000``. It is run by DuckDB
    over files, or in ``database``."""
    database: str | None = None
    """The database of the query: ``postgresql://USER@HOST/NAME`` or another address of SQLAlchemy, or an SQLite or DuckDB file."""
    folder: str | None = None
    """The folder in which the relative names of files in ``query`` and ``database`` begin; null: the current folder."""
    sheet: str | None = None
    """The sheet of an Excel workbook: its name, or its number from 1; null: the first."""
    where: str | None = None
    """Where to download the file; shown when it is missing."""
    features: list[str] = field(default_factory=list)
    """The columns to cluster; empty: every column of numbers that is not an id, a label, a flag or a constant."""
    exclude: list[str] = field(default_factory=list)
    """Columns that are never features."""
    categorical: list[str] = field(default_factory=list)
    """Columns of categories (text, flags, codes) that are clustered too."""
    encoding: str = one_of("onehot", "onehot", "frequency")
    """``onehot``: a feature of 0 and 1 for each category, which together count as one feature; ``frequency``: the share of the rows that have
    the category."""
    max_categories: int = number(50, low=2, high=1000)
    """The largest number of one-hot features of a column; if it has more categories, the rarest share one feature."""
    circular: dict[str, float] = field(default_factory=dict)
    """``data.circular.COLUMN=PERIOD``: a column whose values repeat after a period, such as hours (24) or musical keys (12); its sine and
    cosine together count as one feature."""
    roles: RolesConfig = field(default_factory=RolesConfig)
    weight: str | None = None
    """A column of numbers of at least 0, or the role ``popularity``: a row of weight 2 counts twice in a fit of K-Means or of a mixture. Scores
    and profiles count rows."""
    n_rows: int | None = number(None, low=1)
    """The number of rows to read or to generate; null: all of a file, 20,000 of the catalogue."""
    seed: int = number(0, low=0, high=2**32 - 1)
    """The seed of the generated tracks."""
    bad_rows: str = one_of("few", "few", "skip", "error")
    """What to do with records that cannot be read."""
    within: str | None = None
    """``RUN:3``: only the rows in cluster 3 of a run of the same table are clustered (``RUN:2+5``: in cluster 2 or 5)."""
    join: JoinConfig = field(default_factory=JoinConfig)

    @property
    def location(self) -> str | None:
        """The source as one text, which `gpuclust.data.files.find_files` takes: the path; or a JSON object with the query and its
        database, or with the path and the sheet."""
        if self.query:
            return _as_json(query=self.query, database=self.database, folder=self.folder)
        return _as_json(path=self.path, sheet=self.sheet) if self.sheet else self.path

    @property
    def shown(self) -> str:
        """The source as it is recorded: the query, the path, or the name of what is generated."""
        return self.query or self.path or self.source

    def at(self, given: str) -> DataConfig:
        """The same configuration for another source: a path, a query, or a `location`."""
        found: dict[str, Any] = {"query" if is_query(given) and not os.path.exists(given) else "path": given}  # noqa: PTH110
        if given.startswith('{"'):
            with suppress(ValueError):  # a file whose name begins with a brace
                found = json.loads(given)
        of_query = {"database": self.database, "folder": self.folder} if "query" in found else {"sheet": self.sheet}
        nothing: dict[str, Any] = dict.fromkeys(SOURCE)
        return replace(self, **(nothing | of_query | found))


SOURCE = ("path", "query", "database", "folder", "sheet")
"""The keys of ``data`` that say where a table is; what is there is known by its fingerprint."""


def is_query(text: str) -> bool:
    """Whether a text is a query rather than a path."""
    return re.match(r"\s*(select|with|from)\s", text, re.IGNORECASE) is not None


def _as_json(**values: str | None) -> str:
    return json.dumps({name: value for name, value in values.items() if value is not None}, ensure_ascii=False)


@dataclass
class CleanConfig:
    """Which rows are kept."""

    nulls: str = one_of("drop", "drop", "median", "mean")
    """Rows with a missing value are dropped, or the value is filled in."""
    duplicates: str = one_of("none", "none", "id", "row")
    """Of rows with an equal id, or equal in every column, only the first is kept."""
    bounds: dict[str, list[float | None]] = field(default_factory=dict)
    """``clean.bounds.FEATURE=[low,high]``: rows outside are dropped; null leaves an end open."""
    require_group: bool = False
    """Rows without a group are dropped."""
    where: str | None = None
    """A condition on features and columns with a role; only rows that meet it are kept, such as ``"year >= 2000 and genre != 'live'"``."""


TRANSFORMS = ("log", "yeo-johnson", "quantile")


@dataclass
class ScaleConfig:
    """How each feature is centred and scaled."""

    method: str = one_of("standard", "standard", "minmax", "robust", "unit", "none", plugins="scalers")
    """``standard``: mean 0, standard deviation 1; ``minmax``: 0 to 1; ``robust``: median 0, interquartile range 1; ``unit``: each row is
    divided by its length."""
    transform: dict[str, str] = field(default_factory=dict)
    """``scale.transform.FEATURE=log|yeo-johnson|quantile``: the feature is transformed before it is scaled. ``log``: the logarithm, of
    values of at least 0; ``yeo-johnson``: the power of Yeo and Johnson that makes it most normal; ``quantile``: normal scores of its ranks."""
    weights: dict[str, float] = field(default_factory=dict)
    """``scale.weights.FEATURE=WEIGHT``: the scaled feature, or each value of a vector, is multiplied by this number above 0."""


@dataclass
class ReduceConfig:
    """How the scaled features are reduced to fewer dimensions."""

    method: str = one_of("none", "none", "pca", "fa", "umap", "pacmap", plugins="reducers")
    """``pca``: principal components; ``fa``: factor analysis; ``umap`` and ``pacmap``: positions that keep neighbours, whose distances are not
    those of the data."""
    n_components: int | float = number(0.95, low=0, open_low=True)
    """A number of components, or the share of the variance to keep."""
    whiten: bool = False
    """Divide each component by its standard deviation (with n - 1)."""
    rescale: bool = False
    """Divide each component by its standard deviation (with n)."""
    options: dict[str, Any] = field(default_factory=dict)
    """``reduce.options.NAME``: a parameter of a plug-in's method."""


@dataclass
class MapConfig:
    """The map of the rows: the coordinates x, y, z of figures, exports and the explorer. It changes no cluster."""

    method: str = one_of("pca", "pca", "umap", "pacmap", "tsne", plugins="maps")
    """``pca``: the first three principal components of the scaled features. The others keep rows near their neighbours in the matrix that is
    clustered."""
    n_components: int = number(2, low=2, high=3)
    """The number of axes; ``pca`` always has 3."""
    n_neighbors: int | None = number(None, low=2, high=1000)
    """The number of neighbours that stay near; null is the default of the method: 15 for UMAP, 10 for PaCMAP, and a perplexity of 30 for t-SNE."""
    min_dist: float = number(0.1, low=0, high=1)
    """UMAP: the smallest distance between neighbours on the map."""
    sample_rows: int = number(50_000, low=100)
    """The number of rows that the map is fitted on; the others are placed among these."""


@dataclass
class ClusterConfig:
    """What every algorithm has; each has its own subclass beside its code (see `gpuclust.algorithms.registry`).

    ``forecast`` is the name of the constants in ``runtime/forecast.json`` for the memory and the time of a fit; empty: those of ``name``.
    """

    forecast: ClassVar[str] = ""

    takes_weight: ClassVar[bool] = False
    """Whether its fits use the weights of ``data.weight``."""
    name: str = ""
    """The algorithm."""

    def complaint(self) -> str | None:
        """Why its values do not fit one another, in a line that says what to do, or None."""
        return None

    def fit_bytes(self, n_rows: int, n_columns: int) -> int:
        """The memory of a fit beyond what ``forecast`` counts, in bytes."""
        return 0

    def fit_clusters(self, n_rows: int) -> int:
        """The number of clusters or components that each row is compared with in a fit."""
        n_clusters = getattr(self, "n_clusters", None)
        return n_clusters if isinstance(n_clusters, int) else 8


@dataclass
class ScoreConfig:
    """How a clustering is judged."""

    silhouette: bool = True
    """Whether the silhouette is computed."""
    exact_limit: float = number(2e10, low=0)
    """The number of pairs of rows up to which the silhouette is exact; on a GPU 100 times as many."""
    sample_size: int = number(10_000, low=2)
    """The rows of a sampled silhouette; each is compared with all rows."""
    stability: int = number(0, low=0, high=1000)
    """The number of bootstrap refits, 0 for none."""


@dataclass
class AnalysisConfig:
    """Analyses beyond the scores, each of which costs time."""

    reference: str | None = None
    """A known label to compare the clusters with: a role such as ``group``, or a column."""
    dbcv: bool = False
    """The full density-based validity index (DBCV) of each job."""
    gap: int = number(0, low=0, high=1000)
    """The number of reference sets of a sweep's gap statistic; 0: five, and only if no other criterion gives a number."""
    compare: bool = True
    """Compare the best clusterings of a sweep's algorithms."""


@dataclass
class BackendConfig:
    """Which device computes."""

    name: str = one_of("auto", "auto", "cpu", "gpu")
    """``gpu`` never falls back to the CPU; ``auto`` does, and records why."""
    pool_fraction: float = number(0.8, low=0, high=0.95)
    """The largest share of the GPU's free memory that the memory pool takes; 0: no pool."""


@dataclass
class MemoryConfig:
    """The memory that a job may take, and what happens to a table that needs more. It changes no result, except that HDBSCAN may build its
    tree from a sample of the rows (``cluster.sample_rows``)."""

    limit: int | float | str = field(default=AUTO, metadata={"constraint": Size(100 * 10**6)})
    """The memory that the process may take, as in ``4GB``; ``auto``: what the machine, its cgroup and RLIMIT_AS leave free."""
    mode: str = one_of(AUTO, AUTO, "resident", "disk")
    """``resident``: all rows are held in memory; ``disk``: blocks of rows are read from temporary files; ``auto``: ``disk`` if the
    forecast is above the limit."""
    folder: str | None = None
    """The folder of the temporary files; null: the system's (TMPDIR), or /var/tmp if TMPDIR is in memory."""


@dataclass
class WorkersConfig:
    """The processes that compute: this process, or the workers of a Dask cluster."""

    name: str = one_of("here", "here", "dask")
    """``here``: this process; ``dask``: the workers of a Dask cluster."""
    address: str | None = None
    """The address of the Dask scheduler, as in tcp://HOST:8786; null: DASK_SCHEDULER_ADDRESS, else workers that are started on this
    machine."""
    scheduler_file: str | None = None
    """The file that ``dask scheduler --scheduler-file`` wrote; instead of an address."""
    count: int | None = number(None, low=1)
    """The number of processes to start on this machine (null: one for each core, up to 4), or the number of workers of a cluster to wait
    for (null: 1)."""
    use: str = one_of("auto", "auto", "jobs", "rows")
    """``jobs``: each worker runs whole jobs of the sweep; ``rows``: each worker holds a part of the rows of every job; ``auto``: jobs if
    the table fits in the memory of a worker and there are enough jobs, else rows if a pass takes much longer than its overhead on workers,
    else neither."""


def unit_rows(config: Config) -> bool:
    """Whether prepared rows are divided by their length, because the algorithm compares them by their cosine. Rows that ``scale=unit``
    has scaled to length 1 are not divided again."""
    cosine = getattr(config.cluster, "metric", None) == COSINE
    return cosine and not (config.scale.method == UNIT and config.reduce.method == "none")


def needs_length(config: Config) -> bool:
    """Whether rows of zeros cannot be clustered: they have no direction."""
    return config.scale.method == UNIT or (unit_rows(config) and config.scale.method == "none")


def default_experiment() -> str:
    """The MLflow experiment where ``tracking.experiment`` is not given: MLFLOW_EXPERIMENT_NAME, else ``gpuclust``."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gpuclust"


@dataclass
class TrackingConfig:
    """Where runs are recorded, and which models are kept."""

    store: str = one_of("mlflow", "mlflow", "none")
    """``none`` records nothing."""
    uri: str | None = None
    """The MLflow store; null: MLFLOW_TRACKING_URI, else ``gpuclust-runs/mlflow.db`` in the current folder."""
    experiment: str = field(default_factory=default_experiment)
    """The MLflow experiment; its default is MLFLOW_EXPERIMENT_NAME, else ``gpuclust``."""
    models: str = one_of("chosen", "chosen", "all", "none")
    """The models that are kept in the store."""
    register: str | None = field(default=None, metadata={"constraint": ModelName()})
    """The name in MLflow's Model Registry under which the kept model (in a sweep: of the chosen job) becomes a new version, with the alias
    ``challenger``; null: it is not registered."""
    retry_seconds: float = number(120.0, low=0.0)
    """The number of seconds during which a store that does not answer is tried again; then the command ends with an error."""


@dataclass
class SweepConfig:
    """How a sweep is named, resumed and decided."""

    metric: str = one_of(
        AUTO, AUTO, "silhouette", "silhouette_with_noise", "calinski_harabasz", "davies_bouldin", "bic", "aic", "icl",
        "relative_validity", "split_gain", "dbcv", "prediction_strength", "stability_jaccard_min", "reference_ami",
    )  # fmt: skip
    """The metric that chooses; ``auto``: silhouette, BIC or relative validity by algorithm."""
    require: list[str] = field(default_factory=list, metadata={"constraint": Comparisons()})
    """Only jobs that satisfy all of these can be chosen, as in ``[noise_fraction<0.3,n_clusters>=4]``."""
    resume: bool = True
    """Whether the finished jobs of an earlier start are kept."""
    name: str | None = None
    """The name of the parent run; null: made from what varies."""
    search: str = one_of("grid", "grid", "optuna")
    """``grid`` runs every combination of the values; ``optuna`` runs ``sweep.n_trials`` of them, which a sampler chooses."""
    n_trials: int = number(25, low=1)
    """The number of combinations that a search tries."""
    prune: bool = True
    """Whether a search first fits each trial on 1/16 and on 1/4 of the rows, and stops the trials that are worse than the median."""
    patience: int = number(0, low=0)
    """Stop after this many sizes (in a search: trials) in a row without improvement of the metric; 0: never."""
    budget: str | None = field(default=None, metadata={"constraint": Duration()})
    """No new job starts after this time, such as 90s, 10min or 2h; null: no limit."""


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
    why = NO_CHOICE.get(metric, "it is not a metric whose highest or lowest value is best")
    raise ConfigurationError(
        f"{key}{metric} cannot choose a job: {why}; use one of {', '.join(usable)}{did_you_mean(metric, usable)}"
    )


@dataclass
class ReportConfig:
    """What is drawn."""

    figures: bool = True
    """Whether figures are drawn."""
    full: bool = False
    """Whether a job also draws its biplot, pair plots, silhouettes of rows, parallel coordinates, groups, creators and condensed tree, and a
    sweep its clustergram."""


@dataclass
class Config:
    """Everything that a job needs to know."""

    data: DataConfig = field(default_factory=DataConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    reduce: ReduceConfig = field(default_factory=ReduceConfig)
    map: MapConfig = field(default_factory=MapConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    seed: int = number(0, low=0, high=2**32 - 1)
    """Every random choice of a job: starting points, and rows that are sampled for a score."""
    dtype: str = one_of("float32", "float32", "float64")
    """The number type that is fitted; float64 is used automatically if float32 cannot hold the squares."""
    experiments: Any = None
    """A ready study."""


def conf_dir() -> Path:
    """conf/: inside the package in a wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def conf_dirs() -> list[Path]:
    """conf/, and the folder ``conf`` of each package that has a plug-in, laid out likewise."""
    folders = [conf_dir()]
    for group in ("algorithms", "reducers", "scalers", "maps"):
        for entry in plugins(group).values():
            spec = find_spec(entry.module.partition(".")[0])
            folders += [Path(path) / "conf" for path in (spec.submodule_search_locations if spec else None) or ()]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def did_you_mean(word: str, known: Any) -> str:
    """``; did you mean X or Y?`` with the nearest known words, or nothing."""
    return errors.did_you_mean(difflib.get_close_matches(word, list(known), n=2, cutoff=0.6))


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

    Raises ConfigurationError for the first value outside its constraint, in one line with the key, the value and what is allowed.
    """
    if config.sweep.metric in NO_CHOICE:
        require_choosing(config.sweep.metric, "sweep.metric=")
    for key, value, constraint in constrained(config):
        complaint = None if value is None else constraint.complaint(value)
        if complaint:
            raise ConfigurationError(f"{key}={value} {complaint}")
    _validate_bounds(config.clean)
    _validate_scale(config.scale)
    _validate_encodings(config)
    if config.data.weight is not None and config.cluster.name and not config.cluster.takes_weight:
        raise ConfigurationError(
            f"cluster={config.cluster.name} does not support weights of rows (data.weight={config.data.weight}); leave data.weight out, or use "
            "cluster=kmeans or gmm"
        )
    components = config.reduce.n_components
    if isinstance(components, float) and components > 1:
        raise ConfigurationError(
            f"reduce.n_components={components} is neither a whole number of components "
            "nor a share of the variance in (0, 1]"
        )
    _validate_paths(config.data)
    if config.data.within is not None:
        clusters_within(config.data.within)
    tracking = config.tracking
    if tracking.register is not None and (tracking.store == "none" or tracking.models == "none"):
        off = "tracking=none" if tracking.store == "none" else "tracking.models=none"
        raise ConfigurationError(
            f"tracking.register={tracking.register} has no model to register with {off}; leave one of them out"
        )
    if complaint := config.cluster.complaint():
        raise ConfigurationError(complaint)
    return config


def constrained(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted key, the value and the constraint of every field that has one."""
    for f in fields(node):
        value = getattr(node, f.name)
        if is_dataclass(value):
            yield from constrained(value, f"{prefix}{f.name}.")
        elif "constraint" in f.metadata:
            yield f"{prefix}{f.name}", value, f.metadata["constraint"]


def clusters_within(text: str) -> tuple[str, tuple[int, ...]]:
    """The run and the clusters of ``data.within``. Raises ConfigurationError where it names none."""
    run, _, clusters = text.rpartition(":")
    if not run or not re.fullmatch(r"\d{1,9}(\+\d{1,9})*", clusters):
        raise ConfigurationError(
            f"data.within={text} is not RUN:CLUSTER, such as best:3, or RUN_ID:2+5 for the rows of two clusters"
        )
    return run, tuple(sorted(map(int, clusters.split("+"))))


def _validate_paths(data: DataConfig) -> None:
    """``data.where`` says, in a study, where to get its files."""
    where = f"; {data.where}" if data.where else ""
    if data.path and data.query:
        raise ConfigurationError("data.path and data.query are two sources; leave one of them out")
    if data.database and not data.query:
        raise ConfigurationError("data.database needs data.query, as in data.query='select * from tracks'")
    if data.sheet and data.query:
        raise ConfigurationError("data.sheet is for a workbook in data.path; a query has no sheets")
    if data.source == "file" and not (data.path or data.query):
        raise ConfigurationError(f"data.path is missing: name the file to cluster, as in data.path=tracks.csv{where}")
    join = data.join
    if data.source == "file" and join.path is None and (join.left or join.right or join.columns):
        raise ConfigurationError(f"data.join.path is missing: name the second table of the join{where}")


def _validate_scale(scale: ScaleConfig) -> None:
    for feature, method in scale.transform.items():
        if method not in TRANSFORMS:
            hint = did_you_mean(str(method), TRANSFORMS)
            raise ConfigurationError(f"scale.transform.{feature}={method} is not one of {', '.join(TRANSFORMS)}{hint}")
    for feature, weight in scale.weights.items():
        if not 0 < weight < math.inf:
            raise ConfigurationError(
                f"scale.weights.{feature}={weight:g} is not a number above 0; data.exclude=[{feature}] leaves it out"
            )
    if scale.method == UNIT and (names := [*scale.transform, *scale.weights]):
        raise ConfigurationError(
            f"scale=unit compares only the directions of rows, so scale.transform and scale.weights cannot be used "
            f"({', '.join(names[:3])}); use another scale"
        )


def _validate_encodings(config: Config) -> None:
    data = config.data
    for name, period in data.circular.items():
        if not 0 < period < math.inf:
            raise ConfigurationError(f"data.circular.{name}={period:g} is not a period above 0, such as 24 for hours")
        if name in data.categorical:
            raise ConfigurationError(f"{name!r} is in data.categorical and in data.circular; name it in one of them")
    if config.scale.method == UNIT and (names := [*data.categorical, *data.circular]):
        raise ConfigurationError(
            f"scale=unit compares only the directions of rows, so data.categorical and data.circular cannot be used "
            f"({', '.join(names[:3])}); use another scale"
        )


def _validate_bounds(clean: CleanConfig) -> None:
    for feature, bounds in clean.bounds.items():
        key = f"clean.bounds.{feature}={bounds}"
        if len(bounds) != 2:
            raise ConfigurationError(f"{key} is not [low, high]; null leaves an end open, as in [1, null]")
        low, high = bounds
        if low is not None and high is not None and low > high:
            raise ConfigurationError(f"{key} has its low end above its high end")
