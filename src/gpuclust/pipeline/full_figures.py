"""The figures of `report=full` and `gpuclust figures`: those of a job's rows and groups, and the clustergram of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuclust.algorithms.registry import algorithm_of
from gpuclust.analysis.profile import Profile
from gpuclust.analysis.table_stats import Categories, TableStats, feature_blocks
from gpuclust.data.table import Frames, Table
from gpuclust.model.preparation import Preparation, Projection
from gpuclust.model.records import NOISE
from gpuclust.pages.facts import telling_features
from gpuclust.pipeline.context import Outcome, Result
from gpuclust.runtime.matrix import Matrix
from gpuclust.tracking.recorder import FINISHED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_ROWS = 10_000
"""Rows that are drawn one by one, a seeded sample of more."""
SILHOUETTE_ROWS = 5_000
GROUP_ROWS = 200_000
"""Rows whose means are the places of groups."""
MIN_SIZES = 3
"""Numbers of clusters from which a clustergram is drawn."""


@dataclass(frozen=True)
class FigureInput:
    """A labelled table, and what its figures are drawn from. ``parameters`` are the arrays of the model; ``silhouette`` is that of the run."""

    table: Table
    stats: TableStats
    labels: np.ndarray
    preparation: Preparation
    parameters: Mapping[str, np.ndarray]
    profile: Profile
    blocks: Any
    seed: int = 0
    silhouette: float | None = None

    @property
    def names(self) -> dict[int, str]:
        """The names of the clusters."""
        return {c.cluster: c.name for c in self.profile.clusters}


def figure_input(result: Result, stats: TableStats, frames: Frames, seed: int) -> FigureInput:
    """The input of a job's figures from its result."""
    return FigureInput(
        table=result.table,
        stats=stats,
        labels=result.clustering.labels,
        preparation=result.matrix.preparation,
        parameters=result.clustering.parameters,
        profile=result.profile,
        blocks=feature_blocks(result.table, frames),
        seed=seed,
        silhouette=result.metrics.get("silhouette"),
    )


def sampled(n_rows: int, seed: int, most: int = SAMPLE_ROWS) -> np.ndarray:
    """The numbers of at most ``most`` rows, ascending: all, or a seeded sample."""
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, most, replace=False))


def points_at(coordinates: Any, rows: np.ndarray) -> np.ndarray:
    """The map coordinates of rows by their numbers, of an array or of blocks."""
    found: np.ndarray = coordinates[rows] if isinstance(coordinates, np.ndarray) else coordinates.take(rows)
    return found


def labels_of_sample(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels of the rows of `sampled`, a copy."""
    found: np.ndarray = labels[sampled(len(labels), seed)].copy()
    return found


def full_figures(source: FigureInput) -> dict[str, Figure]:
    """The figures of a job by name; what does not apply to its table, its algorithm or its clusters is left out."""
    from gpuclust.report import figures

    clusters = source.profile.clusters
    drawn = {
        "cluster_sizes": figures.cluster_sizes(
            [c.size for c in clusters], names=source.names, clusters=[c.cluster for c in clusters]
        )
    }
    rows = sampled(len(source.labels), source.seed)
    raw, labels = source.blocks.take(rows), source.labels[rows]
    z = source.profile.z()
    if source.profile.features and len(z):
        drawn |= _of_features(source, raw, labels, z)
    drawn |= _silhouettes(source, raw, labels)
    for noun, found in (("group", source.stats.groups), ("creator", source.stats.creators)):
        if found is not None and len(found.values):
            drawn |= _of_groups(source, noun, found)
    if "node_parent" in source.parameters and "row_node" in source.parameters:
        drawn["condensed_tree"] = _condensed_tree(source)
    return drawn


def _of_features(source: FigureInput, raw: np.ndarray, labels: np.ndarray, z: np.ndarray) -> dict[str, Figure]:
    """Biplot, pair plots and parallel coordinates."""
    from gpuclust.report import figures

    drawn: dict[str, Figure] = {}
    fractions = np.array([c.fraction for c in source.profile.proper])
    n_rows, names = len(source.labels), source.names
    telling = sorted(telling_features(z, fractions, figures.MAX_PAIRS))
    places = [source.table.features.index(source.profile.features[f]) for f in telling]
    drawn["pair_plot"] = figures.pair_plot(
        raw[:, places], labels, [source.profile.features[f] for f in telling], names=names, n_rows=n_rows
    )
    low, high = _quartiles(source, raw, labels)
    drawn["parallel_coordinates"] = figures.parallel_coordinates(
        z, source.profile.features, fractions, low=low, high=high, names=names,
        clusters=[c.cluster for c in source.profile.proper],
    )  # fmt: skip
    if not source.table.vectors and raw.shape[1] > 1:
        points, components, ratios = _principal_components(source, raw)
        loadings = components[:2].T * points[:, :2].std(axis=0)
        drawn["biplot"] = figures.biplot(
            points[:, :2], labels, loadings, source.table.features, explained=ratios[:2].tolist(), names=names
        )
        if len(ratios) > 2:
            titles = [f"PC{i + 1} ({100 * share:.0f} %)" for i, share in enumerate(ratios[:3])]
            drawn["component_pairs"] = figures.pair_plot(
                points[:, :3], labels, titles, names=names, title="Pairs of principal components", n_rows=n_rows
            )
    return drawn


def _principal_components(source: FigureInput, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores (n, 2 or 3) of sampled rows, the components (2 or 3, d), and the shares of the variance: those of the map if it is of
    principal components, else those of the sample."""
    scaled = source.preparation.scaled(raw)
    projection = source.preparation.map_projection
    if not isinstance(projection, Projection):
        from sklearn.decomposition import PCA

        found = PCA(min(3, *scaled.shape)).fit(scaled)
        return found.transform(scaled), found.components_, found.explained_variance_ratio_
    ratios = np.asarray(projection.explained_variance_ratio)[: projection.n_columns]
    return np.asarray(projection.transform(scaled)), np.asarray(projection.components), ratios


def _quartiles(source: FigureInput, raw: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The quartiles of each cluster of a sample, in standard deviations from the mean of all rows: twice (k, d). NaN without rows."""
    n = len(source.profile.features)
    z = (raw[:, :n] - source.stats.mean) / source.stats.scale
    own = [z[labels == c.cluster] for c in source.profile.proper]
    found = [np.percentile(rows, (25, 75), axis=0) if len(rows) else np.full((2, n), np.nan) for rows in own]
    both = np.stack(found)
    return both[:, 0], both[:, 1]


def _silhouettes(source: FigureInput, raw: np.ndarray, labels: np.ndarray) -> dict[str, Figure]:
    """The silhouettes of a sample of the rows in clusters, each compared with the sample."""
    from sklearn.metrics import silhouette_samples

    from gpuclust.report import figures

    placed = np.flatnonzero(labels != NOISE)
    placed = placed[sampled(len(placed), source.seed, SILHOUETTE_ROWS)]
    own = labels[placed]
    if not 2 <= len(np.unique(own)) < len(own):
        return {}
    values = silhouette_samples(source.preparation.points(raw[placed]), own)
    return {
        "silhouette_rows": figures.silhouette_plot(
            values, own, names=source.names, mean=source.silhouette, n_rows=len(source.labels)
        )
    }


def _of_groups(source: FigureInput, noun: str, found: Categories) -> dict[str, Figure]:
    """The most frequent groups (or creators) by cluster, and where groups lie in the two features that differ most."""
    from gpuclust.report import figures

    clusters = [c.cluster for c in source.profile.clusters]
    k = len(clusters)
    place = {cluster: i for i, cluster in enumerate(clusters)}
    slot = np.array([place[c] for c in range(-1, max(clusters) + 1) if c in place])
    of_label = np.zeros(max(clusters) + 2, dtype=np.int64)
    of_label[[c + 1 for c in sorted(place)]] = slot
    known = found.codes >= 0
    codes, rows = found.codes[known].astype(np.int64), found.rows[known]
    table = np.bincount(codes * k + of_label[source.labels[rows] + 1], minlength=len(found.values) * k)
    table = table.reshape(len(found.values), k)
    order = np.argsort(-table.sum(axis=1), kind="stable")[: figures.MAX_BUBBLES]
    shown = [str(found.values[int(i)]) for i in order]
    title = (source.table.roles.named().get(noun) or noun).replace("_", " ")
    drawn = {
        f"{noun}s": figures.group_counts(
            table[order], shown, clusters, noun=title, names=source.names, n_groups=len(found.values)
        )
    }
    telling = telling_features(source.profile.z(), np.array([c.fraction for c in source.profile.proper]), 2)[:2]
    if noun == "group" and len(telling) == 2 and len(shown) > 1:
        means = _group_means(source, codes, rows, order, telling)
        present = np.isfinite(means).all(axis=1)
        drawn["group_bubbles"] = figures.group_bubbles(
            means[present, 0], means[present, 1], table[order].sum(axis=1)[present],
            [name for name, there in zip(shown, present, strict=True) if there],
            np.array(clusters)[table[order].argmax(axis=1)][present],
            axis_names=(source.profile.features[telling[0]], source.profile.features[telling[1]]),
            noun=title, names=source.names, n_groups=len(found.values),
        )  # fmt: skip
    return drawn


def _group_means(
    source: FigureInput, codes: np.ndarray, rows: np.ndarray, order: np.ndarray, telling: Sequence[int]
) -> np.ndarray:
    """The means (m, 2) of two features over the rows of each group of ``order``, of a sample of the rows; NaN without rows."""
    chosen = sampled(len(source.labels), source.seed, GROUP_ROWS)
    at = np.full(len(source.labels), -1)
    at[chosen] = np.arange(len(chosen))
    inside = at[rows] >= 0
    raw = source.stats.raw.take(chosen)[:, telling]
    counts = np.bincount(codes[inside], minlength=int(order.max(initial=0)) + 1)
    sums = [np.bincount(codes[inside], weights=raw[at[rows[inside]], j], minlength=len(counts)) for j in (0, 1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (np.stack(sums, axis=1) / counts[:, None])[order]
    return found


def _condensed_tree(source: FigureInput) -> Figure:
    """The condensed tree of a model whose clusters are nodes of one."""
    from gpuclust.report import figures

    found = source.parameters
    parent, birth = found["node_parent"].astype(np.int64), found["node_birth"]
    n, m = len(found["row_node"]), len(parent)
    own = found.get("canonical", np.arange(len(found["cluster_node"])))
    sizes = np.bincount(found["row_node"], minlength=m)
    for node in range(m - 1, 0, -1):  # a node comes after its parent
        sizes[parent[node]] += sizes[node]
    return figures.condensed_tree(
        np.concatenate([found["row_node"] + n, parent[1:] + n]),
        np.concatenate([np.arange(n), np.arange(1, m) + n]),
        np.concatenate([found["row_density"], birth[1:]]),
        np.concatenate([np.ones(n, dtype=np.int64), sizes[1:]]),
        labels={int(node) + n: int(label) for node, label in zip(found["cluster_node"], own, strict=True)},
        fractions={c.cluster: c.fraction for c in source.profile.proper},
        names=source.names,
    )


def clustergrams(outcomes: Sequence[Outcome], matrix_of: Callable[[Outcome], Matrix]) -> dict[str, Figure]:
    """A clustergram for each algorithm of a sweep with at least `MIN_SIZES` numbers of clusters, of jobs that differ in nothing else.

    ``matrix_of`` gives the matrix of a job. Jobs whose labels of the sample were not kept, because they were done before, are
    left out.
    """
    lines: dict[tuple[Any, ...], dict[int, Outcome]] = {}
    for outcome in outcomes:
        config = outcome.job.config.cluster
        algorithm = algorithm_of(config)
        if outcome.status != FINISHED or outcome.sampled_labels is None or not algorithm.counts_clusters:
            continue
        others = tuple(sorted((k, str(v)) for k, v in outcome.job.swept.items() if k != algorithm.size_axis))
        line = lines.setdefault((config.name, outcome.job.key_of_matrix, others), {})
        line.setdefault(int(getattr(config, str(algorithm.size_key))), outcome)
    drawn: dict[str, Figure] = {}
    for (name, *_), line in lines.items():
        if len(line) >= MIN_SIZES and f"clustergram_{name}" not in drawn:
            first = next(iter(line.values()))
            labels = {k: o.sampled_labels for k, o in line.items()}
            matrix = matrix_of(first)
            points = points_at(matrix.coordinates, sampled(matrix.n_rows, first.job.config.seed))
            drawn[f"clustergram_{name}"] = clustergram_of(labels, points, matrix.preparation)
    return drawn


def clustergram_of(labels: Mapping[int, Any], points: np.ndarray, preparation: Preparation) -> Figure:
    """The clustergram of the labels of sampled rows by number of clusters; ``points`` are their map coordinates."""
    from gpuclust.report import figures

    of_components = isinstance(preparation.map_projection, Projection)
    label = "first principal component" if of_components else "first axis of the map"
    return figures.clustergram(list(labels), list(labels.values()), points[:, 0], label=label)
