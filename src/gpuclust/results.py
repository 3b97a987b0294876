"""What the Python API returns: `Run`, `Sweep` and `Model`. In a notebook they show as tables and pictures."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuclust.errors import ConfigurationError, JobError, ModelError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from gpuclust.analysis.verdict import Verdict
    from gpuclust.compose import Plan
    from gpuclust.model.bundle import Bundle
    from gpuclust.pipeline.context import Outcome, Result, RunContext
    from gpuclust.pipeline.sweep_result import SweepResult

NOT_CLUSTERED = -2
"""The label of a row that cleaning dropped."""
KINDS = ("clusters", "distance", "confidence")
"""What else than features a drift is of, in the order of `gpuclust.model.drift.Drift.named`."""
SHOWN_METRICS = ("n_clusters", "silhouette", "bic", "noise_fraction")
SHOWN_SCORES = ("silhouette", "bic", "relative_validity", "noise_fraction", "fit_seconds")


class Run:
    """One clustering of a table, as `fit` and `Sweep.best` return it.

    Attributes
    ----------
    name : str
        The job's name, such as ``"kmeans k=6"``.
    run_id : str
        The id of its run in the tracking store.
    metrics : dict of str to float
        The metrics of the run: silhouette, inertia, n_clusters and the others.
    messages : tuple of str
        What a terminal would show: the backend, how many rows were kept, which columns were not used, and why.
    """

    def __init__(self, outcome: Outcome, context: RunContext, messages: tuple[str, ...] = ()) -> None:
        self._outcome, self._context = outcome, context
        self.name, self.run_id = outcome.job.name, outcome.run_id
        self.metrics = {name: float(value) for name, value in outcome.metrics.items()}
        self.messages = messages

    @cached_property
    def _result(self) -> Result:
        """Everything that the job found; computed again where it was resumed, or its arrays were released."""
        from gpuclust.pipeline import job as jobs
        from gpuclust.pipeline.context import Result
        from gpuclust.pipeline.summary import rebuild

        done, context = self._outcome, self._context
        if done.clustering is None or done.profile is None:
            return rebuild(done.job, context, expect=done.labels)
        table = jobs.get_table(done.job, context)
        matrix = jobs.get_matrix(done.job, context)
        nothing: Any = None
        return Result(table, matrix, done.clustering, nothing, done.profile, nothing, done.metrics)

    @cached_property
    def labels_(self) -> NDArray[np.int32]:
        """The cluster of each row of the data given, in its order.

        ndarray of shape (n_samples,), int32. Cluster 0 is the largest, then by size; noise is -1, and -2 is a row that
        cleaning dropped, because a value is missing or it repeats another row, or that ``data.n_rows`` did not sample.
        """
        return self._spread(self._result.clustering.labels, NOT_CLUSTERED)

    @cached_property
    def confidence_(self) -> NDArray[np.float32]:
        """How certain the label of each row is, in [0, 1].

        ndarray of shape (n_samples,), float32; NaN for rows that were dropped. For K-Means it is
        1 - distance to the own centre / distance to the next one; for a mixture the probability of the component; for HDBSCAN
        the strength of membership.
        """
        return self._spread(self._result.clustering.confidence, np.nan)

    def _spread(self, values: NDArray[Any], absent: float) -> NDArray[Any]:
        """Values of the rows that were clustered, at their places among the rows of the source."""
        table = self._result.table
        if table.rows is None:
            return values.copy()
        n_rows = int(table.audit.source.get("rows", table.audit.rows_read))
        spread = np.full(n_rows, absent, dtype=values.dtype)
        spread[table.rows] = values
        return spread

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that were clustered."""
        return tuple(self._result.table.features)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before using the clustering: much noise, many dropped rows, columns of doubtful use."""
        return (*self._outcome.warnings, *self._result.table.audit.warnings)

    @property
    def clusters(self) -> pd.DataFrame:
        """The clusters, one row each, noise last as -1.

        The columns are ``name``, ``size`` (rows), ``fraction`` of all rows, ``description`` and the mean of each feature in
        its original unit (``mean_size`` for a feature called ``size``, and so on).
        """
        import pandas as pd

        rows = []
        for c in self._result.profile.clusters:
            row: dict[str, Any] = {"cluster": c.cluster, "name": c.name, "size": c.size, "fraction": c.fraction}
            row["description"] = c.description
            means = {f"mean_{f}" if f in row else f: stats.mean for f, stats in c.features.items()}
            rows.append(row | means)
        return pd.DataFrame(rows).set_index("cluster")

    @property
    def model(self) -> Model:
        """The fitted clustering as a model that predicts, without an export."""
        from gpuclust.pipeline.run_log import bundle_of

        found = self._result
        return Model(bundle_of(self._outcome.job.config, found.table, found.matrix, found.clustering, found.profile))

    def predict(self, rows: Any) -> pd.DataFrame:
        """Assign new rows to the clusters; see `Model.predict`."""
        return self.model.predict(rows)

    def plot(self) -> Figure:
        """Draw the rows on the map (by default their first two principal components), coloured by cluster.

        Returns
        -------
        matplotlib.figure.Figure
            ``run.plot().savefig("map.png")`` writes it to a file.
        """
        from gpuclust.report.figures import map_of
        from gpuclust.report.notebook import shown_as_png

        found = self._result
        names = {c.cluster: c.name for c in found.profile.clusters}
        matrix, labels = found.matrix, found.clustering.labels
        return shown_as_png(map_of(matrix.preparation, matrix.coordinates, labels, self.metrics, names))

    def plot_dendrogram(self) -> Figure:
        """Draw the last merges of the tree that the clustering is a cut of, with the rows of each branch.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ConfigurationError
            Where the algorithm has no tree of merges.
        """
        from gpuclust.pipeline.run_files import dendrogram_figure
        from gpuclust.report.notebook import shown_as_png

        figure = dendrogram_figure(self._result)
        if figure is None:
            raise ConfigurationError(f"{self.name} has no dendrogram; use cluster=agglomerative")
        return shown_as_png(figure)

    def figures(self) -> dict[str, Figure]:
        """Draw every figure of the clustering that applies to it.

        Returns
        -------
        dict of str to matplotlib.figure.Figure
            ``cluster_sizes``, ``biplot``, ``pair_plot``, ``component_pairs``, ``parallel_coordinates``, ``silhouette_rows``, ``groups``,
            ``creators``, ``group_bubbles`` and ``condensed_tree``. Figures of single rows show a sample of at most 10,000.
        """
        from gpuclust.pipeline.full_figures import figure_input, full_figures
        from gpuclust.pipeline.job import table_stats
        from gpuclust.report.notebook import shown_as_png

        found, job = self._result, self._outcome.job
        stats = table_stats(job, found.table, self._context)
        source = figure_input(found, stats, self._context.backend.frames, job.config.seed)
        return {name: shown_as_png(figure) for name, figure in full_figures(source).items()}

    def export(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the clustering into a folder: assignments, clusters, model and manifest.

        Parameters
        ----------
        folder : str or Path
        force : bool, default=False
            Whether a folder that exists is replaced.

        Returns
        -------
        Path
            The folder, for `load_model` and `open_export`.

        Raises
        ------
        ExportError
            Where the folder exists or cannot be written, or the data has changed since it was clustered.
        JobError
            Where the tracking store does not have the run any more.
        """
        from gpuclust.export import export

        recorder = self._context.recorder
        run = recorder.job(self.run_id)
        if run is None:
            raise JobError(f"the run {self.run_id} is not in the tracking store any more; fit again")
        return export(run, Path(folder), recorder=recorder, context=self._context, force=force).folder

    def __repr__(self) -> str:
        shown = (f"{name} {self.metrics[name]:,.4g}" for name in SHOWN_METRICS if name in self.metrics)
        return f"<Run {self.name}: {', '.join(shown)}>"

    def _repr_html_(self) -> str:
        from gpuclust.report import notebook

        clusters = self.clusters.reset_index()[["cluster", "name", "size", "fraction", "description"]]
        return (
            f"<p><b>{escape(repr(self)[1:-1])}</b></p>{notebook.items(self.warnings)}{notebook.table(clusters)}"
            f"{notebook.picture(self.plot(), 'map of the clusters')}"
        )


class Sweep:
    """Several clusterings of a table, compared, as `sweep` returns them.

    Attributes
    ----------
    verdict : Verdict
        How many clusters the data has: ``text``, ``kind`` ("clear", "several", "none" or "open"), the ``sizes`` that it names
        and the reasons, ``because``.
    selection_reason : str
        Why ``best`` was chosen, or why no run was.
    messages : tuple of str
        What a terminal would show.
    """

    def __init__(self, result: SweepResult, plan: Plan, context: RunContext, messages: tuple[str, ...] = ()) -> None:
        assert result.conclusion is not None  # a sweep has one
        self._result, self._plan, self._context = result, plan, context
        self.verdict: Verdict = result.conclusion.verdict
        self.selection_reason = result.conclusion.reason
        self.messages = messages

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """The jobs, the best first: name, status, swept parameters, metrics, and the reason where one failed."""
        import pandas as pd

        from gpuclust.pipeline.sweep_result import leaderboard

        return pd.DataFrame(leaderboard(self._result))

    @cached_property
    def best(self) -> Run | None:
        """The chosen run; None where no job finished, or where the jobs cannot be ranked."""
        chosen = self._result.chosen
        return None if chosen is None else Run(chosen, self._context, self.messages)

    @cached_property
    def runs(self) -> list[Run]:
        """Every job that finished, in the order planned. Labels that were not kept are computed again when they are used."""
        return [Run(o, self._context, self.messages) for o in self._result.outcomes if o.status == "FINISHED"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before using the chosen run."""
        return () if self.best is None else self.best.warnings

    def plot(self, metric: str | None = None) -> Figure:
        """Draw a metric against the size that was swept, with one line for each algorithm and variant.

        Parameters
        ----------
        metric : str, optional
            By default the metric that chose, else the first that the jobs have.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ConfigurationError
            Where no job has the metric, or no number varies.
        """
        from gpuclust.algorithms.registry import algorithms
        from gpuclust.metrics.validity import HIGHER_IS_BETTER
        from gpuclust.pipeline.curves import curves_by_axis
        from gpuclust.report import figures
        from gpuclust.report.notebook import shown_as_png

        by_axis = curves_by_axis(self._result.outcomes, self._plan)
        known = list(dict.fromkeys(m for metrics in by_axis.values() for m in metrics))
        if metric is None and known:
            metric = self._result.metric if self._result.metric in known else known[0]
        axes = {axis: metrics[metric] for axis, metrics in by_axis.items() if metric in metrics}
        if metric is None or not axes:
            has = f"; it has {', '.join(known)}" if known else ""
            raise ConfigurationError(f"this sweep has no curve of {metric or 'any metric'}{has}")
        axis, lines = max(axes.items(), key=lambda found: sum(map(len, found[1].values())))
        drawn = {line: figures.Curve(*zip(*points, strict=True)) for line, points in lines.items()}
        counts_clusters = any(a.size_axis == axis and a.counts_clusters for a in algorithms().values())
        return shown_as_png(
            figures.score_curve(
                drawn,
                label=metric.replace("_", " "),
                higher_is_better=HIGHER_IS_BETTER.get(metric),
                x_label="number of clusters" if counts_clusters else axis.rpartition(".")[2],
            )
        )

    def clustergram(self) -> Figure:
        """Draw how the clusters divide as their number grows, for the algorithm of the best run.

        Returns
        -------
        matplotlib.figure.Figure
            A dot for each cluster at the mean of its rows on the first principal component; a line's width is the number of rows that two
            clusters share. Runs whose labels were not kept are computed again.

        Raises
        ------
        ConfigurationError
            Where fewer than three numbers of clusters were swept.
        """
        from gpuclust.algorithms.registry import algorithm_of
        from gpuclust.pipeline.full_figures import MIN_SIZES, clustergram_of, labels_of_sample, points_at, sampled
        from gpuclust.report.notebook import shown_as_png

        best = self._result.chosen or next(iter(self._result.best), None)
        wanted = None if best is None else best.job.config.cluster.name
        lines: dict[int, Run] = {}
        for run in self.runs:
            config = run._outcome.job.config.cluster
            algorithm = algorithm_of(config)
            same = best is not None and run._outcome.job.key_of_matrix == best.job.key_of_matrix
            if config.name == wanted and same and algorithm.counts_clusters:
                lines.setdefault(int(getattr(config, str(algorithm.size_key))), run)
        if len(lines) < MIN_SIZES or best is None:
            raise ConfigurationError(
                f"a clustergram needs {MIN_SIZES} numbers of clusters; this sweep has {len(lines)}"
            )
        seed = best.job.config.seed
        labels = {k: labels_of_sample(lines[k]._result.clustering.labels, seed) for k in sorted(lines)}
        matrix = lines[min(lines)]._result.matrix
        points = points_at(matrix.coordinates, sampled(matrix.n_rows, seed))
        return shown_as_png(clustergram_of(labels, points, matrix.preparation))

    def __repr__(self) -> str:
        return f"<Sweep of {len(self._result.outcomes)}: {self.verdict.text}>"

    def _repr_html_(self) -> str:
        from gpuclust.report import notebook

        board = self.leaderboard
        shown = dict.fromkeys(("chosen", "job", "n_clusters", self._result.metric, *SHOWN_SCORES))
        try:
            picture = notebook.picture(self.plot(), "the metric by size")
        except ConfigurationError:  # no number varies
            picture = ""
        return (
            f"<p><b>{escape(self.verdict.text)}</b></p>{notebook.items(self.verdict.because)}"
            f"<p>{escape(self.selection_reason)}</p>{notebook.items(self.warnings)}"
            f"{notebook.table(board[[c for c in shown if c in board]])}{picture}"
        )


class Model:
    """A fitted clustering that predicts, as `load_model` and `Run.model` return it.

    Attributes
    ----------
    algorithm : str
        "kmeans", "gmm", "hdbscan" or the name of a plug-in.
    features : tuple of str
        The columns that a row must have.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.algorithm = bundle.algorithm
        self.features: tuple[str, ...] = tuple(bundle.features)

    @property
    def clusters(self) -> pd.DataFrame:
        """The clusters, one row each: ``name`` and ``size``, the number of rows that were fitted."""
        import pandas as pd

        known = self._bundle.details.get("clusters", {})
        index = pd.Index([int(number) for number in known], name="cluster")
        return pd.DataFrame([dict(c) for c in known.values()], index=index, columns=["name", "size"]).sort_index()

    def predict(self, rows: Any) -> pd.DataFrame:
        """Assign rows to the clusters.

        Parameters
        ----------
        rows : DataFrame, Arrow table or array-like of shape (n_rows, n_features)
            A frame needs the columns of the model, in any order, in the units of the data that was fitted. An array has the
            features in the model's order.

        Returns
        -------
        DataFrame
            One row for each row given, with its index: ``cluster`` (Int32; noise is -1, missing where a feature is missing or
            out of the model's bounds), ``confidence`` in [0, 1] and ``distance`` to the own centre in the scaled space
            (missing for HDBSCAN).

        Raises
        ------
        ModelError
            Where columns are missing, or an array has another number of features.
        """
        import pandas as pd

        index, values = self._values(rows)
        found = self._bundle.predict(values)
        cluster = pd.array(found.cluster, dtype="Int32")
        cluster[~found.placed] = pd.NA
        columns = {"cluster": cluster, "confidence": found.confidence, "distance": found.distance}
        return pd.DataFrame(columns, index=index)

    def memberships(self, rows: Any, top: int = 3) -> pd.DataFrame:
        """The likeliest clusters of rows, and how well each fits its own.

        Parameters
        ----------
        rows : DataFrame, Arrow table or array-like of shape (n_rows, n_features)
            As for `predict`.
        top : int, default=3
            The number of clusters, at most that of the model.

        Returns
        -------
        DataFrame
            One row for each row given: ``cluster_1`` (Int32), ``probability_1`` in [0, 1], ``cluster_2`` and so on, the likeliest first, and
            ``outlier``, larger for rows that fit less. Probabilities are the responsibilities of a mixture, hdbscan's membership vectors, and for
            K-Means the memberships of fuzzy c-means (m = 2). ``outlier`` is the distance to the centre (K-Means), the Mahalanobis distance to the
            component (mixtures), or GLOSH in [0, 1] (HDBSCAN). Missing where a row cannot be placed.

        Raises
        ------
        ModelError
            Where the algorithm has none of these, or the rows do not fit the model.
        """
        import pandas as pd

        index, values = self._values(rows)
        found = self._bundle.memberships(values, top)
        columns: dict[str, Any] = {}
        for i in range(found.cluster.shape[1]):
            cluster = pd.array(found.cluster[:, i], dtype="Int32")
            cluster[np.isnan(found.outlier)] = pd.NA
            columns |= {f"cluster_{i + 1}": cluster, f"probability_{i + 1}": found.probability[:, i]}
        return pd.DataFrame({**columns, "outlier": found.outlier}, index=index)

    def explain(self, rows: Any) -> pd.DataFrame:
        """Why rows are in their clusters: what each feature contributes to d(own) - d(next).

        Parameters
        ----------
        rows : DataFrame, Arrow table or array-like of shape (n_rows, n_features)
            As for `predict`.

        Returns
        -------
        DataFrame
            One row for each row given: ``cluster``, ``next`` (the second nearest), ``difference`` = d(own) - d(next), a column for each feature (one for
            all features of an encoded column), and ``constant``; the features and the constant add up to the difference, and a negative value speaks for the own cluster. d is the
            distance in the scaled space (K-Means), or -log(weight x density) in nats (mixtures).

        Raises
        ------
        ModelError
            Where the algorithm has no centres, the reduction is not linear, or the rows do not fit the model.
        """
        import pandas as pd

        from gpuclust.model.encodings import sums_by_column

        index, values = self._values(rows)
        found = self._bundle.explain(values)
        columns: dict[str, Any] = {}
        for name in ("cluster", "next"):
            columns[name] = pd.array(getattr(found, name), dtype="Int32")
            columns[name][np.isnan(found.difference)] = pd.NA
        table = pd.DataFrame({**columns, "difference": found.difference}, index=index)
        features = pd.DataFrame(sums_by_column(found.contributions, self._bundle.encodings, self.features), index=index)
        return pd.concat([table, features, pd.DataFrame({"constant": found.constant}, index=index)], axis=1)

    def drift(self, rows: Any) -> pd.DataFrame:
        """How far the distribution of rows is from that of the training rows.

        Parameters
        ----------
        rows : DataFrame, Arrow table or array-like of shape (n_rows, n_features)
            As for `predict`.

        Returns
        -------
        DataFrame
            One row for each feature that is a number, then for the shares of the clusters, the distance to the own centre and the confidence.
            ``kind`` is "feature", "clusters", "distance" or "confidence"; ``psi`` the population stability index (below 0.1: alike, above 0.25: a
            large change); ``chance`` what as many rows of the training distribution exceed once in a thousand times. Empty for a model that
            gpuclust 0.1.0 made.

        Raises
        ------
        ModelError
            Where columns are missing, or an array has another number of features.
        """
        import pandas as pd

        from gpuclust.model.novelty import compare, count_outside
        from gpuclust.model.schema import Details

        _, values = self._values(rows)
        assigned, details = self._bundle.assign(values), Details.model_validate(self._bundle.details)
        found = (part[assigned.placed] for part in (assigned.cluster, assigned.confidence, assigned.distance))
        drift = compare(details, count_outside(details, self.features, values), *found).drift
        kinds = [*("feature" for _ in drift.features), *(k for k in KINDS if getattr(drift, k) is not None)]
        named = list(drift.named()) if drift.known else []
        columns = {
            "kind": kinds[: len(named)],
            "psi": [p.value for _, p in named],
            "chance": [p.chance for _, p in named],
        }
        return pd.DataFrame(columns, index=pd.Index([name for name, _ in named], name="of"))

    def _values(self, rows: Any) -> tuple[Any, NDArray[np.float64]]:
        """The index of the rows, if they have one, and their features (n_rows, n_features)."""
        import pandas as pd

        from gpuclust.data.in_memory import to_arrow
        from gpuclust.model.rows import to_matrix
        from gpuclust.model.vectors import listed, vector_columns

        if not hasattr(rows, "columns"):
            rows = rows.get() if hasattr(rows, "__cuda_array_interface__") else rows
            try:
                return None, np.asarray(rows, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ModelError(
                    f"the rows are not numbers of shape (n_rows, {len(self.features)}): {error}"
                ) from error
        frame = rows if isinstance(rows, pd.DataFrame) else to_arrow(rows).table.to_pandas()
        encodings = self._bundle.encodings
        if encodings or any(name in frame.columns for name in vector_columns(self.features)):
            raw, index = to_matrix(frame, self.features, encodings)
            return index, raw
        if missing := [name for name in self.features if name not in frame.columns]:
            raise ModelError(f"the rows have no column {', '.join(listed(missing))}, which the model needs")
        columns = [pd.to_numeric(frame[name].astype(object), errors="coerce") for name in self.features]
        values = np.column_stack([column.to_numpy(np.float64, na_value=np.nan) for column in columns])
        return frame.index, values

    def __repr__(self) -> str:
        return f"<Model {self.algorithm}: {len(self.clusters)} clusters of {len(self.features)} features>"

    def _repr_html_(self) -> str:
        from gpuclust.report import notebook

        return f"<p><b>{escape(repr(self)[1:-1])}</b></p>{notebook.table(self.clusters.reset_index())}"
