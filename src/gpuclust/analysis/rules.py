"""Rules of at most three conditions that describe clusters, and their accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.analysis.table_stats import TableStats
from gpuclust.data.table import sample_rows
from gpuclust.model.records import NOISE, Rule

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
    sizes = np.bincount(labels[labels != NOISE]) if len(labels) else np.empty(0, int)
    found: dict[int, Rule] = {}
    for cluster in np.argsort(-sizes, kind="stable")[:MAX_RULES]:
        member = labels == cluster
        if 0 < sizes[cluster] < len(labels):
            path = _best_path(stats, member, seed)
            if path:
                found[int(cluster)] = _evaluated(path, stats.raw, features, member)
    return found


def _best_path(stats: TableStats, member: np.ndarray, seed: int) -> list[_Condition]:
    from sklearn.tree import DecisionTreeClassifier

    inside, outside = (_sampled(np.flatnonzero(side), seed) for side in (member, ~member))
    rows = np.concatenate([outside, inside])
    y = np.repeat([0, 1], [len(outside), len(inside)])
    least = max(1, min(len(inside), len(outside)) // 100)
    grown = DecisionTreeClassifier(
        max_depth=MAX_DEPTH, class_weight="balanced", min_samples_leaf=least, random_state=seed
    )
    # scikit-learn's trees use float32, which is sufficient for standardised features.
    tree = grown.fit((stats.raw[rows] - stats.mean) / stats.scale, y).tree_
    counts = tree.value[:, 0] * tree.weighted_n_node_samples[:, None]
    n_member = int(member.sum())
    # Convert the balanced weights of each node to numbers of rows.
    counts *= np.array([len(member) - n_member, n_member]) / counts[0]
    f1 = 2 * counts[:, 1] / (counts.sum(axis=1) + n_member)
    f1[0] = -1.0  # the root has no condition
    return list(_path(tree, int(f1.argmax()), stats)) if tree.node_count > 1 else []


def _sampled(rows: np.ndarray, seed: int) -> np.ndarray:
    return rows[sample_rows(len(rows), MAX_SAMPLE, seed)]


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


def _evaluated(path: Sequence[_Condition], raw: np.ndarray, features: Sequence[str], member: np.ndarray) -> Rule:
    met = np.ones(len(raw), dtype=bool)
    for condition in path:
        column = raw[:, condition.feature]
        met &= (column > condition.low) & (column <= condition.high)
    both = int((met & member).sum())
    return Rule(
        text=" and ".join(c.text(features[c.feature]) for c in path),
        fidelity=float((met == member).mean()),
        precision=both / max(int(met.sum()), 1),
        recall=both / int(member.sum()),
    )
