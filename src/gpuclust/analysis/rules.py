"""Rules of at most three conditions that describe clusters, and their accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.analysis.members import CHUNK_ROWS, Members
from gpuclust.analysis.table_stats import TableStats
from gpuclust.data.table import sample_rows
from gpuclust.model.records import NOISE, Rule
from gpuclust.runtime.blocks import Run
from gpuclust.runtime.passes import PerRow

MAX_DEPTH = 3
MAX_RULES = 40  # only the largest clusters have a rule
MAX_SAMPLE = 5_000  # rows per class for fitting a tree; the accuracy is computed on all rows


@dataclass(frozen=True)
class _Condition:
    feature: int
    low: float = -np.inf  # exclusive
    high: float = np.inf  # inclusive

    def text(self, name: str) -> str:
        low, high = _number(self.low), _number(self.high)
        if self.low == -np.inf:
            return f"{name} <= {high}"
        return f"{name} > {low}" if self.high == np.inf else f"{low} < {name} <= {high}"


def _number(value: float) -> str:
    """Format with ten digits, or with all digits if ten are not exact."""
    short = f"{value:.10g}"
    return short if float(short) == value else repr(value)


def rules(stats: TableStats, features: Sequence[str], labels: np.ndarray, *, seed: int = 0) -> dict[int, Rule]:
    """The rule of each cluster, by its number; noise and clusters beyond `MAX_RULES` have none.

    For each cluster a decision tree (CART, Breiman et al. 1984) of depth three is fitted against all other rows, with balanced
    class weights. The rule is the path to the node with the highest F1 score (van Rijsbergen 1979). Thresholds are rounded
    to about 1/50 of a standard deviation before the accuracy is computed.
    """
    sizes = {c: n for c, n in Members(labels).sizes.items() if c != NOISE and n < len(labels)}
    paths = {}
    for cluster in sorted(sizes, key=lambda c: -sizes[c])[:MAX_RULES]:
        if path := _best_path(stats, labels, cluster, sizes[cluster], seed):
            paths[cluster] = path
    found = np.sum(stats.raw.collect(_counts, paths, PerRow(labels)), axis=0) if paths else []
    return {
        cluster: _evaluated(path, features, counts, sizes[cluster], len(labels))
        for (cluster, path), counts in zip(paths.items(), found, strict=True)
    }


def _best_path(stats: TableStats, labels: np.ndarray, cluster: int, n_inside: int, seed: int) -> list[_Condition]:
    from sklearn.tree import DecisionTreeClassifier

    inside, outside = (_sampled(labels, cluster, side, n_inside, seed) for side in (True, False))
    rows = np.concatenate([outside, inside])
    y = np.repeat([0, 1], [len(outside), len(inside)])
    least = max(1, min(len(inside), len(outside)) // 100)
    grown = DecisionTreeClassifier(
        max_depth=MAX_DEPTH, class_weight="balanced", min_samples_leaf=least, random_state=seed
    )
    # scikit-learn's trees use float32, which is sufficient for standardised features.
    tree = grown.fit((stats.raw.take(rows) - stats.mean) / stats.scale, y).tree_
    counts = tree.value[:, 0] * tree.weighted_n_node_samples[:, None]
    # Convert the balanced weights of each node to numbers of rows.
    counts *= np.array([len(labels) - n_inside, n_inside]) / counts[0]
    f1 = 2 * counts[:, 1] / (counts.sum(axis=1) + n_inside)
    f1[0] = -1.0  # the root has no condition
    return list(_path(tree, int(f1.argmax()), stats)) if tree.node_count > 1 else []


def _sampled(labels: np.ndarray, cluster: int, inside: bool, n_inside: int, seed: int) -> np.ndarray:
    """A seeded sample of the rows in a cluster, or of those outside; ascending."""
    wanted = sample_rows(n_inside if inside else len(labels) - n_inside, MAX_SAMPLE, seed)
    found, before = [], 0
    for start in range(0, len(labels), CHUNK_ROWS):
        rows = np.flatnonzero((labels[start : start + CHUNK_ROWS] == cluster) == inside)
        first, last = np.searchsorted(wanted, (before, before + len(rows)))
        found.append(start + rows[wanted[first:last] - before])
        before += len(rows)
    return np.concatenate(found)


def _path(tree: Any, node: int, stats: TableStats) -> Iterator[_Condition]:
    """The conditions on the path from the root to a node, one per feature, in order of first occurrence."""
    steps: list[tuple[int, float, bool]] = []
    while node:
        is_left = node in tree.children_left
        parent = int(np.flatnonzero((tree.children_left if is_left else tree.children_right) == node)[0])
        feature = int(tree.feature[parent])
        threshold = float(tree.threshold[parent] * stats.scale[feature] + stats.mean[feature])
        steps.append((feature, threshold, is_left))
        node = parent
    merged: dict[int, _Condition] = {}
    for feature, threshold, is_left in reversed(steps):
        was = merged.get(feature, _Condition(feature))
        rounded = round(threshold, int(np.ceil(np.log10(50 / stats.scale[feature]))))
        merged[feature] = _Condition(feature, was.low, rounded) if is_left else _Condition(feature, rounded, was.high)
    return iter(merged.values())


def _counts(run: Run, paths: Mapping[int, Sequence[_Condition]], labels: PerRow) -> np.ndarray:
    """The number of rows of a run that satisfy each path, and the number of these in its cluster: (n_paths, 2) int64."""
    own = labels.of(run)
    columns = {j: np.ascontiguousarray(run.X[:, j]) for path in paths.values() for j in {c.feature for c in path}}
    counts = []
    for cluster, path in paths.items():
        met = np.ones(len(own), dtype=bool)
        for condition in path:
            column = columns[condition.feature]
            met &= (column > condition.low) & (column <= condition.high)
        counts.append((np.count_nonzero(met), np.count_nonzero(met & (own == cluster))))
    return np.array(counts, dtype=np.int64)


def _evaluated(
    path: Sequence[_Condition], features: Sequence[str], counts: np.ndarray, n_inside: int, n_rows: int
) -> Rule:
    met, both = counts.tolist()
    return Rule(
        text=" and ".join(c.text(features[c.feature]) for c in path),
        fidelity=(n_rows - met - n_inside + 2 * both) / n_rows,
        precision=both / max(met, 1),
        recall=both / n_inside,
    )
