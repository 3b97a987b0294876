"""The Python API: `fit` one clustering, `sweep` several, and open what was exported.

The command line runs the same plans by the same functions, so both give the same labels and the same keys.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuclust.errors import ConfigurationError, JobError
from gpuclust.results import Model, Run, Sweep

if TYPE_CHECKING:
    from gpuclust.compose import Plan
    from gpuclust.config import ClusterConfig
    from gpuclust.estimators.base import Estimator
    from gpuclust.pipeline.context import Outcome, RunContext
    from gpuclust.planning import Settings
    from gpuclust.promotion import Promotion
    from gpuclust.serve.library import Library

__all__ = ["Model", "Run", "Sweep", "fit", "load_model", "open_export", "promote", "sweep"]

DATA_FOLDER = Path("gpuclust-runs", "data")


def fit(
    data: Any,
    algorithm: Estimator | ClusterConfig | None = None,
    *,
    tracking: str | Path | None = "default",
    experiment: str | None = None,
    features: Sequence[str] | None = None,
    categorical: Sequence[str] | None = None,
    circular: Mapping[str, float] | None = None,
    scale: str | None = None,
    transform: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    reduce: str | float | None = None,
    clean: str | Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    backend: str = "auto",
    progress: bool | None = None,
) -> Run:
    """Cluster a table.

    Parameters
    ----------
    data : DataFrame, Arrow table, array of shape (n_samples, n_features), path or query
        A pandas, Polars or cuDF frame, a NumPy or CuPy array of numbers, the path of a file that the command line reads, or a query ("select ...").
        The index of a pandas frame that has a name is the id of its rows.
    algorithm : estimator or configuration, default=KMeans()
        An estimator of gpuclust such as `KMeans`, which is not changed, or the configuration dataclass of any registered algorithm.
    tracking : "default", None, str or Path
        Where the run is recorded in MLflow: in the store that the command line uses, nowhere (None), or in the store of a
        tracking URI or a folder. Data that is given in memory is then kept beside the store, so that the run can be exported
        later.
    experiment : str, optional
        The MLflow experiment; by default the environment variable MLFLOW_EXPERIMENT_NAME, else "gpuclust".
    features : sequence of str, optional
        The columns to cluster: numbers, or lists of numbers (vectors); by default every column of numbers that is not an id, a flag or a
        label.
    categorical : sequence of str, optional
        Columns of categories that are clustered too: one-hot, together as one feature; as frequencies with
        ``config={"data.encoding": "frequency"}``.
    circular : mapping, optional
        Column -> the period after which its values repeat, such as ``{"hour": 24}``.
    scale : {"standard", "minmax", "robust", "unit", "none"}, default="standard"
        "unit" divides each row by its length.
    transform : mapping, optional
        Column -> "log", "yeo-johnson" or "quantile", by which it is made more symmetric before it is scaled.
    weights : mapping, optional
        Column -> a number above 0, by which the scaled feature is multiplied.
    reduce : int, float, "pca", "fa", "umap", "pacmap" or "none", default="none"
        The name of a reduction; or the number of principal components, or the share of the variance in (0, 1) that they keep.
    clean : mapping or str, optional
        How rows are cleaned, such as ``{"nulls": "median", "duplicates": "row", "bounds": {"tempo": (1, None)}}``; by default
        rows with a missing value are dropped.
    config : mapping, optional
        Further keys of the configuration, as on the command line: ``{"dtype": "float64", "score.stability": 20}``.
    seed : int, optional
        By default the estimator's ``random_state``, else 0.
    backend : {"auto", "cpu", "gpu"}, default="auto"
    progress : bool, optional
        Whether a progress bar is shown; by default in notebooks and terminals.

    Returns
    -------
    Run
        With ``labels_``, ``metrics``, ``clusters``, ``plot()`` and ``export()``.

    Raises
    ------
    ConfigurationError
        For a parameter or a key that is unknown or out of its range, or that has several values.
    DataError, CleaningError
        Where the data is not a table, or nothing is left of it.
    BackendError, TrackingError
        Where the backend or the store cannot be used.
    JobError
        Where the fit fails. All of these are `gpuclust.errors.GpuclustError`.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.vstack([np.random.default_rng(0).normal(centre, 0.1, size=(40, 2)) for centre in (0, 1, 5)])
    >>> run = gc.fit(X, gc.KMeans(n_clusters=3), tracking=None, progress=False)
    >>> np.bincount(run.labels_)
    array([40, 40, 40])
    >>> run.metrics["n_clusters"]
    3.0
    """
    algorithms = [_default()] if algorithm is None else [algorithm]
    groups = {"scale": scale, "reduce": reduce, "clean": clean, "backend": backend}
    columns = {
        "data.features": features,
        "data.categorical": categorical,
        "data.circular": circular,
        "scale.transform": transform,
        "scale.weights": weights,
    }
    settings = _settings(data, groups, config, tracking=tracking, experiment=experiment, columns=columns, seed=seed)
    from gpuclust.pipeline.start import run_plan
    from gpuclust.planning import in_words_of, plan_of

    plan = plan_of(algorithms, settings)
    with in_words_of(getattr(algorithms[0], "_keys", {}), settings.given), _Progress(1, progress) as shown:
        if len(plan.jobs) > 1:
            raise ConfigurationError(
                f"{', '.join(plan.swept)}: several values are for gpuclust.sweep, which fits them all"
            )
        context = _start(plan, shown, f"gpuclust.fit(data, {algorithms[0]!r})")
        result = run_plan(plan, context)
        (outcome,) = result.outcomes
        if outcome.status != "FINISHED":
            raise JobError(f"{outcome.job.name} failed: {outcome.error}")
    return Run(outcome, context, shown.messages)


def sweep(
    data: Any,
    *algorithms: Estimator | ClusterConfig,
    metric: str = "auto",
    name: str | None = None,
    tracking: str | Path | None = "default",
    experiment: str | None = None,
    features: Sequence[str] | None = None,
    categorical: Sequence[str] | None = None,
    circular: Mapping[str, float] | None = None,
    scale: str | Sequence[str] | None = None,
    transform: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    reduce: str | float | Sequence[float] | None = None,
    clean: str | Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int | Sequence[int] | None = None,
    backend: str = "auto",
    progress: bool | None = None,
) -> Sweep:
    """Cluster a table in several ways, and compare them.

    Every parameter that has several values (a list, a tuple, a range or an array) is swept:
    ``KMeans(n_clusters=range(2, 11))`` is nine jobs. So is an option or a key of ``config``, such as
    ``scale=["standard", "robust"]``. The table is read and prepared once for all jobs.

    Parameters
    ----------
    data : DataFrame, Arrow table, array of shape (n_samples, n_features), or path
        See `fit`.
    *algorithms : estimators or configurations
        By default ``KMeans(n_clusters=range(2, 11))``.
    metric : str, default="auto"
        What selects the best job: "silhouette", "bic" and so on; "auto" is BIC for mixtures, the relative validity
        for HDBSCAN and DBSCAN, and the silhouette for any other algorithm and for several algorithms.
    name : str, optional
        The name of the sweep in the tracking store.
    tracking, experiment, features, categorical, circular, scale, transform, weights, reduce, clean, config, seed, backend, progress
        See `fit`.

    Returns
    -------
    Sweep
        With ``leaderboard``, ``verdict``, ``best`` and ``plot()``. A job that fails is in the leaderboard with its reason.

    Raises
    ------
    GpuclustError
        See `fit`; but a job that fails raises nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.vstack([np.random.default_rng(0).normal(centre, 0.1, size=(40, 2)) for centre in (0, 1, 5)])
    >>> sweep = gc.sweep(X, gc.KMeans(n_clusters=range(2, 5)), tracking=None, progress=False)
    >>> len(sweep.leaderboard)
    3
    """
    from gpuclust.pipeline.start import run_plan
    from gpuclust.planning import as_sweep, in_words_of, plan_of

    chosen = list(algorithms) or [_default(n_clusters=range(2, 11))]
    groups = {"scale": scale, "reduce": reduce, "clean": clean, "backend": backend}
    further: dict[str, Any] = {
        "sweep.metric": metric,
        **({} if name is None else {"sweep.name": name}),
        **(config or {}),
    }
    columns = {
        "data.features": features,
        "data.categorical": categorical,
        "data.circular": circular,
        "scale.transform": transform,
        "scale.weights": weights,
    }
    settings = _settings(data, groups, further, tracking=tracking, experiment=experiment, columns=columns, seed=seed)
    plan = as_sweep(plan_of(chosen, settings))
    keys = getattr(chosen[0], "_keys", {}) if len(chosen) == 1 else {}
    with in_words_of(keys, settings.given), _Progress(plan.n_jobs, progress) as shown:
        context = _start(plan, shown, f"gpuclust.sweep(data, {', '.join(map(repr, chosen))})")
        result = run_plan(plan, context)
    return Sweep(result, plan, context, shown.messages)


def load_model(folder: str | Path, *, tracking: str | Path = "default") -> Model:
    """Load the model of an export folder, or a registered model.

    Parameters
    ----------
    folder : str or Path
        The folder that `Run.export` or ``gpuclust export`` wrote, or its address in an object store; or its sub-folder ``model``; or
        ``"models:/NAME@champion"``, a model of MLflow's Model Registry.
    tracking : "default", str or Path
        The store of a registered model; see `fit`.

    Returns
    -------
    Model
        With ``predict(rows)``.

    Raises
    ------
    ModelError
        Where the folder has no model, or a damaged one.
    TrackingError
        Where the store has no such registered model.
    """
    from gpuclust.data.remote_folders import local_export
    from gpuclust.model.bundle import Bundle

    if str(folder).startswith("models:"):
        from gpuclust.tracking.registry import registered_model

        with registered_model(str(folder), _uri(tracking)) as bundle:
            return Model(Bundle.load(bundle))
    folder = local_export(folder)
    return Model(Bundle.load(folder / "model" if (folder / "model").is_dir() else folder))


def promote(
    name: str,
    *,
    version: int | None = None,
    data: str | Path | None = None,
    min_ami: float | None = None,
    max_noise: float | None = None,
    dry_run: bool = False,
    tracking: str | Path = "default",
) -> Promotion:
    """Compare the challenger of a registered model with its champion on the same rows, and make it the champion.

    Parameters
    ----------
    name : str
        The name that ``tracking.register`` gave: ``gc.fit(data, config={"tracking.register": "tracks"})``.
    version : int, optional
        The version to promote; by default that with the alias ``challenger``.
    data : str or Path, optional
        The file of the rows to compare on; by default the file that the version was fitted on.
    min_ami, max_noise : float, optional
        The version is not promoted if the AMI with the champion is lower, or the share of noise higher. In [0, 1].
    dry_run : bool, default=False
        Whether to compare and promote nothing.
    tracking : "default", str or Path
        The store; see `fit`.

    Returns
    -------
    Promotion
        With ``promoted``, ``refused`` (why not) and ``comparison``: ``ami``, ``champion_noise``, ``challenger_noise``, ``shares``; None
        where there was no champion.

    Raises
    ------
    GpuclustError
        Where there is no such model or version, or the rows cannot be read.
    """
    from gpuclust.promotion import promote as promote_version
    from gpuclust.tracking.registry import Registry

    return promote_version(
        name,
        registry=Registry.open(_uri(tracking)),
        version=version,
        data_path=None if data is None else os.fspath(data),
        min_ami=min_ami,
        max_noise=max_noise,
        dry_run=dry_run,
    )


def _uri(tracking: str | Path) -> str | None:
    """The tracking URI; None for the store that the command line uses."""
    found = _store(tracking)
    return None if found == "default" else found


def open_export(folder: str | Path) -> Library:
    """Open an export folder, to search and browse it.

    Parameters
    ----------
    folder : str or Path
        The folder that `Run.export` or ``gpuclust export`` wrote, or its address in an object store, of which a copy is made.

    Returns
    -------
    Library
        With ``search("fly me to the moon")``, ``similar(id)``, ``cluster_items(2)`` and others. An index is built the first
        time.

    Raises
    ------
    ExportError, ModelError
        Where the folder is not an export, or a damaged one.
    """
    from gpuclust.data.remote_folders import local_export
    from gpuclust.serve.library import Library

    return Library.open(local_export(folder))


def _default(**parameters: Any) -> Estimator:
    from gpuclust.estimators import KMeans

    return KMeans(**parameters)


def _settings(
    data: Any,
    groups: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    *,
    tracking: str | Path | None,
    experiment: str | None,
    columns: Mapping[str, Any],
    seed: Any,
) -> Settings:
    from gpuclust.data.query import forget_results
    from gpuclust.planning import Settings, settings_of

    forget_results()
    values = settings_of(config=config, **groups)
    if tracking is None:
        values.setdefault("report", "none")
    if seed is not None:
        values["seed"] = seed if isinstance(seed, (Sequence, range)) else int(seed)
    where = _store(tracking)
    in_memory, path, id_column = _path_of(data, where)
    return Settings(path, values, _columns(columns), id_column, where, experiment, given=path if in_memory else None)


def _columns(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that name columns, as lists and dictionaries of plain values, without those that are not given."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        option = key.rpartition(".")[2]
        if isinstance(value, str):
            raise ConfigurationError(f"{option}={value!r} is one text; give a list of column names")
        if key not in ("data.features", "data.categorical"):
            if not isinstance(value, Mapping):
                raise ConfigurationError(f"{option}={value!r} is not a mapping; give {{column: value}}")
            found[key] = {str(name): float(v) if isinstance(v, (int, float)) else v for name, v in value.items()}
        else:
            found[key] = [str(name) for name in value]
    return found


def _store(tracking: str | Path | None) -> str | None:
    """The value of ``tracking`` as "default", None, or a tracking URI."""
    if tracking is None or tracking == "default":
        return None if tracking is None else str(tracking)
    if not isinstance(tracking, (str, Path)):
        raise ConfigurationError(
            f"tracking={tracking!r} is not allowed; give None for no tracking, a tracking URI, a folder, or leave it out"
        )
    if isinstance(tracking, str) and (":" in tracking or tracking in ("databricks", "uc")):
        return tracking
    path = Path(tracking).expanduser().absolute()
    file = path if path.suffix == ".db" else path / "mlflow.db"
    file.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{file}"


def _path_of(data: Any, tracking: str | None) -> tuple[bool, str, str | None]:
    """Whether the data is in memory; its path, or that of the file it is written to; the column that is its id.

    The file of a tracked run is kept beside the store; any other is removed when the process ends.
    """
    from gpuclust.data.files import absolute_path, join_paths

    several = isinstance(data, (list, tuple)) and data and all(isinstance(item, (str, os.PathLike)) for item in data)
    if isinstance(data, (str, os.PathLike)) or several:
        return False, absolute_path(join_paths(data if several else os.fspath(data)) or ""), None
    from gpuclust.data.in_memory import to_arrow, write_once

    found = to_arrow(data)
    return True, str(write_once(found.table, _data_folder(tracking))), found.id


_temporary: Path | None = None


def _data_folder(tracking: str | None) -> Path:
    global _temporary
    if tracking is not None:
        is_file = tracking.startswith("sqlite:///")
        return (Path(tracking.removeprefix("sqlite:///")).parent / "data" if is_file else DATA_FOLDER).absolute()
    if _temporary is None:
        _temporary = Path(tempfile.mkdtemp(prefix="gpuclust-"))
        atexit.register(shutil.rmtree, _temporary, ignore_errors=True)
    return _temporary


def _start(plan: Plan, shown: _Progress, command: str) -> RunContext:
    from gpuclust.choice import resolve_init, resolve_within
    from gpuclust.pipeline.start import start

    for job in plan.jobs:
        resolve_within(job.config)
    resolve_init(job.config for job in plan.jobs)
    return start(plan, shown, " ".join(command.split())[:500])


class _Progress:
    """A progress bar over jobs, and what a terminal would show as messages."""

    def __init__(self, total: int, shown: bool | None = None) -> None:
        from tqdm import TqdmWarning

        disable = (None if not _in_notebook() else False) if shown is None else not shown
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmWarning)  # without ipywidgets the bar is of text
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, disable=disable, leave=False, unit="job")
        self._done = 0
        self._messages: list[str] = []

    @property
    def messages(self) -> tuple[str, ...]:
        """What was said so far."""
        return tuple(self._messages)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def stage(self, text: str, done: float = 0.0) -> None:
        """What is being done now, and the fraction of it that is done."""
        self._bar.set_description_str(f"{text} {done:.0%}" if 0 < done < 1 else text)

    def finished(self, outcome: Outcome) -> None:
        """A job ended; one on a share of the rows is not counted."""
        self._done += outcome.job.share == 1
        self.work(0.0)

    def work(self, units: float) -> None:
        """Work done on the jobs that run together, in jobs."""
        if not self._bar.disable:
            done = min(self._done + units, self._bar.total)
            self._bar.n = int(done) if done == int(done) else done
            self._bar.refresh()

    def say(self, text: str) -> None:
        """A message that does not concern a job."""
        self._messages.append(text)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    shell = shell.get_ipython() if shell is not None else None
    return shell is not None and hasattr(shell, "kernel")
