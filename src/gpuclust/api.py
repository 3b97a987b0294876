"""The Python API: `fit` one clustering, `sweep` several, and open what was exported.

The command line is a thin layer over the same jobs, so both give the same labels and the same keys.
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields, is_dataclass
from html import escape
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuclust.compose import Plan, PlannedJob, compose
from gpuclust.config import Config, did_you_mean, validate
from gpuclust.errors import ConfigurationError, DataError, JobError
from gpuclust.estimators import HDBSCAN, GaussianMixture, KMeans

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from gpuclust.analysis.verdict import Verdict
    from gpuclust.pipeline.context import Outcome, RunContext
    from gpuclust.pipeline.sweep import SweepResult
    from gpuclust.serve.library import Library
    from gpuclust.tracking.bundle import Bundle

Estimator = KMeans | GaussianMixture | HDBSCAN
DEFAULT_STORE = "default"
NOT_CLUSTERED = -2
"""The label of a row that cleaning left out."""

# Estimator -> the Hydra option, and what its parameters are called in the configuration.
OPTIONS: dict[type, str] = {KMeans: "kmeans", GaussianMixture: "gmm", HDBSCAN: "hdbscan"}
RENAMED = {"n_components": "n_clusters"}


class Run:
    """One clustering of a table.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        The cluster of each row of the data given, in its order: 0 is the largest, noise is -1, and -2 marks rows that
        cleaning left out (missing values, duplicates).
    confidence_ : ndarray of shape (n_samples,), float32 in [0, 1]; NaN for rows that cleaning left out
    metrics : dict of str to float
        The metrics of the public contract.
    clusters : DataFrame, one row per cluster
        Its name, size, share, description, and the mean of each feature in original units.
    name, run_id : str
    """

    def __init__(self, outcome: Outcome, context: RunContext) -> None:
        self._context, self._job = context, outcome.job
        self.name, self.run_id = outcome.job.name, outcome.run_id
        self.metrics: dict[str, float] = dict(outcome.metrics)
        if outcome.clustering is None or outcome.profile is None:
            from gpuclust.pipeline.summary import rebuild

            result = rebuild(outcome.job, context, expect=outcome.labels)
            self._clustering, self._profile = result.clustering, result.profile
        else:
            self._clustering, self._profile = outcome.clustering, outcome.profile

    @property
    def labels_(self) -> np.ndarray:
        """See the class."""
        return self._spread(self._clustering.labels, NOT_CLUSTERED)

    @property
    def confidence_(self) -> np.ndarray:
        """See the class."""
        return self._spread(self._clustering.confidence, np.nan)

    def _spread(self, values: np.ndarray, absent: float) -> np.ndarray:
        """Values of the rows that were clustered, at their places among the rows of the source."""
        from gpuclust.pipeline.job import get_table

        table = get_table(self._job, self._context)
        if table.rows is None:
            return values
        spread = np.full(int(table.audit.source.get("rows", table.audit.rows_read)), absent, dtype=values.dtype)
        spread[table.rows] = values
        return spread

    @property
    def clusters(self) -> pd.DataFrame:
        """See the class."""
        import pandas as pd

        rows = [
            {"cluster": c.cluster, "name": c.name, "size": c.size, "fraction": c.fraction, "description": c.description}
            | {feature: stats.mean for feature, stats in c.features.items()}
            for c in self._profile.clusters
        ]
        return pd.DataFrame(rows).set_index("cluster")

    def plot(self) -> Figure:
        """The rows on their first two principal components, coloured by cluster."""
        from gpuclust.pipeline.job import get_matrix
        from gpuclust.report.figures import cluster_map

        matrix = get_matrix(self._job, self._context)
        ratios = matrix.preparation.map_projection.explained_variance_ratio
        return cluster_map(
            matrix.coordinates[:, :2],
            self._clustering.labels,
            explained=(float(ratios[0]), float(ratios[1]) if len(ratios) > 1 else 0.0),
            names={c.cluster: c.name for c in self._profile.clusters},
        )

    def export(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the export folder: assignments, clusters, model and manifest. Returns the folder.

        Raises ExportError when the folder exists (unless ``force``) or cannot be written.
        """
        from gpuclust.export import export

        recorder = self._context.recorder
        run = recorder.job(self.run_id)
        if run is None:
            raise JobError(f"the run {self.run_id} is not in the tracking store any more; fit again")
        return export(run, Path(folder), recorder=recorder, context=self._context, force=force).folder

    def __repr__(self) -> str:
        shown = {
            k: f"{self.metrics[k]:,.4g}"
            for k in ("n_clusters", "silhouette", "bic", "noise_fraction")
            if k in self.metrics
        }
        return f"<Run {self.name}: {', '.join(f'{k} {v}' for k, v in shown.items())}>"

    def _repr_html_(self) -> str:
        table = self.clusters.reset_index()[["cluster", "name", "size", "fraction", "description"]]
        return f"<p><b>{escape(repr(self)[1:-1])}</b></p>{table.to_html(index=False)}{_picture(self.plot())}"


class Sweep:
    """Several clusterings of a table.

    Attributes
    ----------
    leaderboard : DataFrame, one row per job, the best first
    verdict : Verdict
        How many clusters the sweep found: ``text``, ``kind`` (clear, several, none or open) and ``because``.
    best : Run or None
        The chosen job, None where no job finished or where the jobs cannot be ranked.
    selection_reason : str
    """

    def __init__(self, result: SweepResult, plan: Plan, context: RunContext) -> None:
        assert result.conclusion is not None
        self._result, self._plan, self._context = result, plan, context
        self.verdict: Verdict = result.conclusion.verdict
        self.selection_reason = result.conclusion.reason

    @property
    def leaderboard(self) -> pd.DataFrame:
        """See the class."""
        import pandas as pd

        from gpuclust.pipeline.sweep import leaderboard

        return pd.DataFrame(leaderboard(self._result))

    @property
    def best(self) -> Run | None:
        """See the class."""
        chosen = self._result.chosen
        return None if chosen is None else Run(chosen, self._context)

    @property
    def runs(self) -> list[Run]:
        """Every finished job, in the order of the leaderboard's parameters; each is computed again when it is first used."""
        return [Run(outcome, self._context) for outcome in self._result.outcomes if outcome.status == "FINISHED"]

    def plot(self, metric: str = "silhouette") -> Figure:
        """A metric against the size that was swept, one line per algorithm and variant."""
        from gpuclust.pipeline.curves import curves
        from gpuclust.report import figures

        lines = curves(self._result.outcomes, self._plan).get(metric)
        if not lines:
            raise ConfigurationError(f"no job of this sweep has the metric {metric!r} by size")
        drawn = {line: figures.Curve(*zip(*points, strict=True)) for line, points in lines.items()}
        return figures.score_curve(
            drawn,
            label=metric.replace("_", " "),
            higher_is_better=metric not in ("bic", "aic", "icl", "davies_bouldin", "inertia"),
        )

    def __repr__(self) -> str:
        return f"<Sweep of {len(self._result.outcomes)}: {self.verdict.text}>"

    def _repr_html_(self) -> str:
        wanted = ["chosen", "job", "n_clusters", "silhouette", "bic", "noise_fraction", "fit_seconds"]
        board = self.leaderboard
        table = board[[c for c in wanted if c in board]].to_html(index=False, float_format="{:,.4g}".format)
        reasons = "".join(f"<li>{escape(line)}</li>" for line in self.verdict.because)
        return (
            f"<p><b>{escape(self.verdict.text)}</b></p><ul>{reasons}</ul><p>{escape(self.selection_reason)}</p>{table}"
        )


class Model:
    """A fitted clustering that was exported or logged; see `load_model`."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.algorithm = bundle.algorithm
        self.features = bundle.features

    def predict(self, rows: Any) -> pd.DataFrame:
        """Assign rows to clusters.

        ``rows`` is a DataFrame (or anything that has columns) with the features of the model, in any order, or an array
        (n_rows, n_features) in their order. Returns ``cluster`` (missing where a feature is missing or out of bounds; noise
        is -1), ``confidence`` and ``distance``, with the index of the rows. Raises ModelError for missing columns.
        """
        import pandas as pd

        from gpuclust.errors import ModelError

        index = None
        if hasattr(rows, "columns"):
            frame = rows if isinstance(rows, pd.DataFrame) else _arrow(rows).to_pandas()
            if missing := [name for name in self.features if name not in frame.columns]:
                raise ModelError(f"the rows lack the columns {', '.join(missing)}, which the model needs")
            index = frame.index
            rows = frame[list(self.features)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        found = self._bundle.predict(np.asarray(rows, dtype=np.float64))
        cluster = pd.array(found.cluster, dtype="Int32")
        cluster[~found.placed] = pd.NA
        return pd.DataFrame(
            {"cluster": cluster, "confidence": found.confidence, "distance": found.distance}, index=index
        )


def fit(data: Any, algorithm: Estimator | None = None, **options: Any) -> Run:
    """Cluster a table.

    Parameters
    ----------
    data : DataFrame, Arrow table, NumPy or CuPy array of shape (n_samples, n_features), or path of a file
    algorithm : KMeans, GaussianMixture or HDBSCAN, default=KMeans()
        An unfitted estimator; it is not changed.
    tracking : "default", None or str
        Where the run is recorded: the default MLflow store, nowhere, or the MLflow tracking URI given.
    experiment : str, default="gpuclust"
    features : sequence of str, optional
        The columns to cluster; by default every column of numbers that is not an id, a label or a flag.
    config : mapping of str to object, optional
        Further configuration, as on the command line: ``{"scale": "minmax", "clean.nulls": "median"}``.
    seed : int, optional
        By default the estimator's ``random_state`` where it is an int, else 0.
    backend : {"auto", "cpu", "gpu"}, default="auto"
    progress : bool, optional
        Whether a progress bar is shown; by default in notebooks and terminals.

    Raises
    ------
    GpuclustError
        A `ConfigurationError`, `DataError` or `FitError` that says what is wrong, where, and what to do.
    """
    from gpuclust.pipeline.sweep import jobs_of
    from gpuclust.pipeline.sweep import run as run_plan

    algorithm = algorithm or KMeans()
    plan, context = _prepare(data, [algorithm], options)
    if len(plan.jobs) > 1:
        raise ConfigurationError("a parameter of fit() has several values; use sweep() to fit them all")
    with context.display:  # type: ignore[attr-defined]
        result = run_plan(plan, jobs_of(plan, context.backend), context)
    (outcome,) = result.outcomes
    if outcome.status != "FINISHED":
        raise JobError(f"{outcome.job.name} failed: {outcome.error}")
    return Run(outcome, context)


def sweep(data: Any, *algorithms: Estimator, metric: str = "auto", **options: Any) -> Sweep:
    """Cluster a table in several ways, and compare them.

    Every parameter of an estimator that has several values (a list, tuple, range or array) is swept:
    ``KMeans(n_clusters=range(2, 11))`` is nine jobs. The table is read and prepared once. ``metric`` selects the best job
    ("auto": silhouette, BIC or relative validity by algorithm). The other options are those of `fit`.
    """
    from gpuclust.pipeline.sweep import jobs_of
    from gpuclust.pipeline.sweep import run as run_plan

    options["config"] = {**options.get("config", {}), "sweep.metric": metric}
    plan, context = _prepare(data, list(algorithms) or [KMeans(n_clusters=range(2, 11))], options)
    if not plan.swept:
        plan = Plan(plan.jobs, ("cluster.n_clusters",), plan.overrides)
    with context.display:  # type: ignore[attr-defined]
        result = run_plan(plan, jobs_of(plan, context.backend), context)
    return Sweep(result, plan, context)


def load_model(folder: str | Path) -> Model:
    """The model in an export folder or in its ``model/``. Raises ModelError where it is missing or damaged."""
    from gpuclust.tracking.bundle import Bundle

    folder = Path(folder)
    return Model(Bundle.load(folder / "model" if (folder / "model").is_dir() else folder))


def open_export(folder: str | Path) -> Library:
    """An export folder, to search and browse: ``open_export("out/").search("fly me to the moon")``."""
    from gpuclust.serve.library import Library

    return Library.open(Path(folder))


def _prepare(data: Any, algorithms: Sequence[Estimator], options: dict[str, Any]) -> tuple[Plan, RunContext]:
    """The jobs of some estimators, and what they run with."""
    known = {"tracking", "experiment", "features", "config", "seed", "backend", "progress"}
    if unknown := set(options) - known:
        name = min(unknown)
        raise ConfigurationError(f"there is no option {name!r}{did_you_mean(name, known)}")
    tracking = options.get("tracking", DEFAULT_STORE)
    settings: dict[str, Any] = {
        "data.path": _path_of(data, tracked=tracking is not None),
        "backend.name": options.get("backend", "auto"),
        "tracking.store": "none" if tracking is None else "mlflow",
        "tracking.uri": None if tracking in (None, DEFAULT_STORE) else tracking,
        "tracking.experiment": options.get("experiment", "gpuclust"),
    }
    if options.get("features") is not None:
        settings["data.features"] = [str(name) for name in options["features"]]
    settings |= options.get("config", {})
    jobs = [
        PlannedJob(config, swept)
        for algorithm in algorithms
        for config, swept in _configs(algorithm, settings, options.get("seed"), named=len(algorithms) > 1)
    ]
    swept = tuple(dict.fromkeys(key for job in jobs for key in job.swept))
    from gpuclust.pipeline.start import context_for

    display = Progress(len(jobs), options.get("progress"))
    return Plan(tuple(jobs), swept, ()), context_for(
        jobs[0].config, display, "gpuclust.sweep" if swept else "gpuclust.fit"
    )


def _configs(
    algorithm: Estimator, settings: Mapping[str, Any], seed: int | None, *, named: bool
) -> Iterator[tuple[Config, dict[str, Any]]]:
    """A configuration for each combination of an estimator's parameters, and what varies in it."""
    groups = {key: value for key, value in settings.items() if "." not in key and key not in ("seed", "dtype")}
    option = OPTIONS.get(type(algorithm))
    if option is None:
        raise ConfigurationError(
            f"{type(algorithm).__name__} is no algorithm of gpuclust; use KMeans, GaussianMixture or HDBSCAN"
        )
    choices = {"data": "table", "cluster": option, "report": "none"} | groups
    base = compose([*(f"{group}={choice}" for group, choice in choices.items()), "data.path=-"])
    for key, value in settings.items():
        if key not in groups:
            _set(base, key, value)
    values = {name: _values(value) for name, value in algorithm.get_params(deep=False).items()}
    state = values.pop("random_state", [None])
    for combination in itertools.product(*values.values()):
        config = deepcopy(base)
        chosen = dict(zip(values, combination, strict=True))
        varies = {name: chosen[name] for name in values if len(values[name]) > 1}
        for key, value in type(algorithm)(**chosen)._settings().items():
            _set(config, f"cluster.{key}", value)
        own = state[0] if isinstance(state[0], Integral) else None
        config.seed = int(seed if seed is not None else own if own is not None else config.seed)
        swept = {f"cluster.{RENAMED.get(name, name)}": value for name, value in varies.items()}
        yield validate(config), ({"cluster": option} if named else {}) | swept


def _values(value: Any) -> list[Any]:
    """The values of a parameter: several for a list, tuple, range or array, else one. Plain Python values."""
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    found = list(value) if several else [value]
    return [v.item() if isinstance(v, np.generic) else v for v in found]


def _set(config: Config, key: str, value: Any) -> None:
    """Set a dotted key. Raises ConfigurationError for one that does not exist."""
    *parents, name = key.split(".")
    node: Any = config
    for parent in parents:
        node = node[parent] if isinstance(node, dict) else getattr(node, parent, None)
    if isinstance(node, dict):
        node[name] = value
        return
    names = [f.name for f in fields(node)] if is_dataclass(node) else []
    if name not in names:
        raise ConfigurationError(f"there is no key {key!r}{did_you_mean(name, names)}")
    setattr(node, name, value)


_folder: Path | None = None


def _path_of(data: Any, *, tracked: bool) -> str:
    """The path of the data: its own, or that of an Arrow file that holds it under the digest of its content.

    The file of a tracked run is kept beside the default store, so that the run can be exported later; any other is
    removed when the process ends.
    """
    global _folder
    if isinstance(data, (str, Path)):
        return str(Path(data).expanduser().absolute())
    import pyarrow.feather

    table = _arrow(data)
    digest = hashlib.blake2b(digest_size=12)
    digest.update(str(table.schema).encode())
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                digest.update(b"-" if buffer is None else buffer)
    if tracked:
        folder = Path("gpuclust-runs").absolute() / "data"
    elif _folder is None:
        folder = _folder = Path(tempfile.mkdtemp(prefix="gpuclust-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    else:
        folder = _folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest.hexdigest()}.arrow"
    if not path.exists():
        partial = path.with_suffix(".partial")
        pyarrow.feather.write_feather(table, partial, compression="uncompressed")
        partial.rename(path)
    return str(path)


def _arrow(data: Any) -> Any:
    """An Arrow table of a frame or an array. Raises DataError for anything else."""
    import pyarrow as pa

    if isinstance(data, pa.Table):
        return data.combine_chunks()
    if hasattr(data, "to_arrow"):  # cuDF, Polars
        return data.to_arrow().combine_chunks()
    if hasattr(data, "dtypes") and hasattr(data, "columns"):
        renamed = data.rename(columns=str) if any(not isinstance(c, str) for c in data.columns) else data
        return pa.Table.from_pandas(renamed, preserve_index=False).replace_schema_metadata(None)
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data).combine_chunks()
    if hasattr(data, "__cuda_array_interface__"):
        data = data.get()
    array = np.asarray(data)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise DataError(
            f"{type(data).__name__} of shape {array.shape} and type {array.dtype} is no table; give a DataFrame, an Arrow "
            "table, a path, or an array of numbers (n_samples, n_features)"
        )
    return pa.table({f"x{j}": np.ascontiguousarray(array[:, j]) for j in range(array.shape[1])})


class Progress:
    """A progress bar over jobs, by tqdm; nothing where ``shown`` is False, or where there is no terminal or notebook."""

    def __init__(self, total: int, shown: bool | None = None) -> None:
        from tqdm.auto import tqdm

        self._done = 0
        self._bar = tqdm(total=total, disable=None if shown is None else not shown, leave=False, unit="job")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def stage(self, text: str, done: float = 0.0) -> None:
        """What is being done now, and the fraction of it that is done."""
        self._bar.set_description_str(f"{text} {done:.0%}" if 0 < done < 1 else text)

    def finished(self, outcome: Outcome) -> None:
        """A job ended."""
        self._done += 1
        self.work(0.0)

    def work(self, units: float) -> None:
        """Work done on the jobs that run together, in jobs."""
        self._bar.n = min(self._done + units, self._bar.total)
        self._bar.refresh()

    def say(self, text: str) -> None:
        """A message that does not concern a job."""
        self._bar.set_postfix_str(text)


def _picture(figure: Figure) -> str:
    """A figure as an HTML image that needs no other file."""
    import base64

    from gpuclust.report.figures import to_png

    return f'<img alt="map of the clusters" src="data:image/png;base64,{base64.b64encode(to_png(figure)).decode()}">'
