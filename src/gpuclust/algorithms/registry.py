"""The registry of clustering algorithms: a description of each algorithm, and the only list of all algorithms.

An algorithm is a package below `gpuclust.algorithms` whose ``__init__`` defines ``ALGORITHM``, or an entry point of the
group ``gpuclust.algorithms`` in an installed distribution. Everything that depends on the algorithm (fitting, prediction,
selection, curves, stability) reads its `Algorithm` and never compares names.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from gpuclust.config import NAMED_BY_TABLE, ClusterConfig, Config, flatten, plugins
from gpuclust.errors import ConfigurationError, DeviceLost, GpuclustError

if TYPE_CHECKING:
    import numpy as np

    from gpuclust.model.prediction import PredictionRule
    from gpuclust.runtime.backend import Array, Backend, Progress
    from gpuclust.runtime.blocks import RowBlocks
    from gpuclust.runtime.cache import ResultCache
    from gpuclust.runtime.deduplicate import Distinct

IN_BLOCKS = "blocks"
"""The key of ``Algorithm.fit`` for a matrix in blocks of rows, instead of a backend's name."""


@dataclass(frozen=True)
class Start:
    """The clusters of another run, from which a fit starts and whose numbers it keeps: ``labels`` (n_samples,) int32, -1 for rows of none, and
    ``centers`` (n_clusters, n_columns) float64, the means of their rows in the matrix."""

    labels: np.ndarray
    centers: np.ndarray


@dataclass(frozen=True)
class FitInput:
    """What an algorithm fits: ``X`` (n_samples, n_columns), float32 or float64, on the backend's device, or in blocks of rows.

    Expensive intermediate results are kept in ``cache`` under keys that include ``key``, the key of the matrix. ``distinct``,
    where it is given, holds the rows of X without repetitions and their counts: an algorithm may fit these instead. ``memory`` is
    how many bytes a fit of blocks may take beside them; None: half of the machine's memory. ``starts``: run id -> its clusters, for configurations
    with that ``init_from``.
    ``progress`` receives the fraction done, in [0, 1].
    """

    X: Array | RowBlocks
    seed: int
    backend: Backend
    cache: ResultCache
    key: str
    distinct: Distinct | None = None
    progress: Progress = lambda _: None
    memory: int | None = None
    weight: np.ndarray | None = None
    """The weights of the rows (n_samples,) float64 on the host, their mean 1; None: each row counts once."""
    starts: Mapping[str, Start] = field(default_factory=dict)

    def start_of(self, config: ClusterConfig) -> Start | None:
        """The clusters that a configuration starts from; None: those that the algorithm finds."""
        return self.starts.get(getattr(config, "init_from", None) or "")


@dataclass(frozen=True)
class SizeSearch:
    """How an automatic size was chosen: ``sizes`` (m,) ascending, the ``scores`` (m,) of each, and the size ``chosen``. ``key`` is the
    configuration key of the size."""

    sizes: np.ndarray
    scores: np.ndarray
    chosen: float
    key: str = "min_cluster_size"


@dataclass(frozen=True)
class FitResult:
    """What an algorithm found, before its clusters are put in canonical order. Arrays are NumPy arrays on the host.

    ``labels`` (n_samples,) int32, noise -1; ``confidence`` (n_samples,) float32 in [0, 1]; ``distance`` (n_samples,)
    float32 to the own centre, in the prepared space, or None where there are no centres. ``parameters`` are the fitted
    arrays that a prediction needs; those named in ``per_cluster`` have one entry per cluster in their first axis.
    ``options`` are the plain values that a prediction needs beside them. ``metrics`` are the algorithm's own scores.
    A cut of a tree of merges has it in ``parameters``, and it is drawn: ``merges`` (m-1, 4) in SciPy's layout of a linkage matrix, ``leaf_sizes`` (m,)
    the number of rows of each leaf, and ``leaf_labels`` (m,) its cluster.
    """

    labels: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray | None
    parameters: Mapping[str, np.ndarray]
    metrics: Mapping[str, float]
    per_cluster: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    converged: bool = True
    engine: str = "library"
    notes: tuple[str, ...] = ()
    size_search: SizeSearch | None = None


Fitter = Callable[[FitInput, Sequence[Any]], list[FitResult]]


@dataclass(frozen=True)
class Algorithm:
    """One clustering algorithm.

    What it is:

    - ``config`` is its configuration; its ``name`` is the name of the Hydra option and of ``cluster.name``. ``label`` is its
      name in a sentence. ``fit`` maps the name of a backend to a function, or to the ``module:function`` that is imported when it is
      first needed; under ``blocks`` is the function for rows that are not in memory (`gpuclust.runtime.blocks.RowBlocks`), where the
      algorithm has one. ``rule`` is how a plug-in's models predict; those of our own are in `gpuclust.model`.
    - ``has_noise``: it can leave rows in no cluster; ``less_noise``: what to change where it leaves all. ``seeded``: another seed can give another result.

    What a sweep does with it:

    - ``default_metric`` selects among its jobs.
    - ``size_key`` is the configuration key, of any numeric type, that is the axis of a sweep's curves, or None.
      ``counts_clusters``: that size is the number of clusters asked for; otherwise the fit finds the number, and the verdict looks
      for a number that many neighbouring sizes give. ``variant_key``: a key whose values are models of different shapes, each
      with a curve of its own.
    - ``baseline(config)``: the configuration of a fit without clusters (one component), which is added to a curve of BIC that
      starts at a larger size.

    How it is fitted:

    - ``fits_together``: several configurations are fitted in one call, because they share passes over the matrix.
      ``shared_step``: what fits of one matrix share and what takes most of the time of the first.
    - ``for_subset(config, share)``: the configuration for a subset of the rows; one that has it is resampled without
      repetitions. None: the configuration itself.
    - ``canonical(parameters, renumber, labels, confidence)``: further parameters once the clusters are renumbered.
    - ``warnings(metrics)``: sentences on how exact a fit with these metrics is, which its run, its page and a sweep's verdict show.
    - ``after_fit``: the ``module:function`` that runs, on a few rows (n, n_columns), what follows a fit, to compile it.
    - ``density_validity``: the ``module:function`` that gives the relative validity of labelings by their density:
      ``f(FitInput, config, labelings) -> list[float]``.
    - ``soft_membership``: the ``module:function`` that gives fitted rows of noise their likeliest cluster and the membership:
      ``f(parameters, rows=indices) -> (labels, membership)``, in the numbering of the fit.
    - ``steps``: steps of its fit that other algorithms may call by name (see `step`), each a ``module:function``.
    """

    name: str
    config: type[ClusterConfig]
    fit: Mapping[str, str | Fitter]
    label: str = ""
    rule: PredictionRule | None = None
    has_noise: bool = False
    less_noise: str = ""
    seeded: bool = True
    default_metric: str = "silhouette"
    size_key: str | None = "n_clusters"
    counts_clusters: bool = True
    variant_key: str | None = None
    baseline: Callable[[Any], ClusterConfig] | None = None
    fits_together: bool = False
    shared_step: str = ""
    for_subset: Callable[[Any, float], ClusterConfig | None] = lambda config, share: None
    canonical: Callable[..., Mapping[str, np.ndarray]] | None = None
    warnings: Callable[[Mapping[str, float]], tuple[str, ...]] = lambda metrics: ()
    after_fit: str | None = None
    density_validity: str | None = None
    soft_membership: str | None = None
    steps: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_axis(self) -> str | None:
        """``cluster.n_clusters`` and so on: the size as a dotted key."""
        return None if self.size_key is None else f"cluster.{self.size_key}"

    @property
    def variants(self) -> tuple[str, ...]:
        """The values of ``variant_key``."""
        found = next((f for f in fields(self.config) if f.name == self.variant_key), None)
        return () if found is None else found.metadata["constraint"].words

    def fitter(self, backend: str) -> Fitter:
        """The fit function of a backend, or of `IN_BLOCKS`. Raises ConfigurationError where the algorithm has none."""
        if backend == IN_BLOCKS and backend not in self.fit:
            raise ConfigurationError(f"cluster={self.name} needs all rows in memory; use memory.mode=resident")
        if backend not in self.fit:
            known = [name for name in self.fit if name != IN_BLOCKS]
            raise ConfigurationError(
                f"cluster={self.name} does not run on the {backend} backend; use backend={' or '.join(known)}"
            )
        found = self.fit[backend]
        return resolve(found) if isinstance(found, str) else found


def resolve(path: str) -> Any:
    """The object at ``module:name``."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


_registered: dict[str, Algorithm] = {}


def register(algorithm: Algorithm) -> None:
    """Add an algorithm, or replace the one of that name."""
    _registered[algorithm.name] = algorithm
    if algorithm.rule is not None:
        from gpuclust.model.prediction import register_rule

        register_rule(algorithm.rule)


@cache
def _discover() -> None:
    package = import_module("gpuclust.algorithms")
    for found in pkgutil.iter_modules(package.__path__):
        if found.ispkg:
            algorithm = import_module(f"gpuclust.algorithms.{found.name}").ALGORITHM
            _registered.setdefault(algorithm.name, algorithm)
    for name, entry in plugins("algorithms").items():
        _registered.setdefault(name, entry.load())


def algorithms() -> Mapping[str, Algorithm]:
    """All algorithms by name: our own, those of installed plug-ins, and those that were registered."""
    _discover()
    return _registered


def step(name: str) -> Callable[..., Any]:
    """A step that one algorithm offers to all others, such as HDBSCAN's ``spanning_tree``. Raises KeyError for an unknown name."""
    offered = {name: path for algorithm in algorithms().values() for name, path in algorithm.steps.items()}
    return cast("Callable[..., Any]", resolve(offered[name]))


def algorithm_of(config: ClusterConfig) -> Algorithm:
    """The algorithm that a configuration belongs to. Raises ConfigurationError for an unknown name."""
    return get_algorithm(config.name)


def get_algorithm(name: str) -> Algorithm:
    """The algorithm of that name. Raises ConfigurationError for an unknown name."""
    known = algorithms()
    if name not in known:
        raise ConfigurationError(f"there is no algorithm {name!r}; the known ones are {', '.join(known)}")
    return known[name]


def fit(request: FitInput, configs: Sequence[ClusterConfig]) -> list[FitResult | GpuclustError]:
    """Fit configurations of one algorithm; one that fails gives its error in its place. Raises DeviceLost."""
    from gpuclust.runtime.blocks import RowBlocks

    where = IN_BLOCKS if isinstance(request.X, RowBlocks) else request.backend.name
    try:
        return list(algorithm_of(configs[0]).fitter(where)(request, configs))
    except DeviceLost:
        raise  # the other configurations would fail too
    except GpuclustError as error:
        if len(configs) == 1:
            return [error]
        return [result for config in configs for result in fit(request, [config])]


@cache
def known_keys() -> dict[str, tuple[str, ...]]:
    """Every key that a configuration can have: dotted key -> the algorithms it belongs to (none: all)."""
    keys: dict[str, tuple[str, ...]] = {}
    for name, algorithm in algorithms().items():
        for key in flatten(Config(cluster=algorithm.config())):
            belongs = key.startswith("cluster.") and key != "cluster.name"
            keys[key] = (*keys.get(key, ()), name) if belongs else ()
    return keys | dict.fromkeys((*NAMED_BY_TABLE, "experiments"), ())
