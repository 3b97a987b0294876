"""A rule of at most three conditions for each cluster, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.analysis.table_stats import TableStats
from gpuclust.data.table import sample_rows
from gpuclust.model.records import NOISE, Rule

DEPTH = 3
MAX_RULES = 40  # clusters, the largest first, that get a rule
SAMPLED = 5_000  # rows of each side that a tree is grown on; the figures are of all rows


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
    """Ten digits, or all of them where ten are not enough, as far from zero."""
    short = f"{value:.10g}"
    return short if float(short) == value else repr(value)


def rules(stats: TableStats, features: Sequence[str], labels: np.ndarray, *, seed: int = 0) -> dict[int, Rule]:
    """The rule of each cluster, by its number; noise and clusters beyond `MAX_RULES` have none.

    A tree (CART, Breiman et al. 1984) of depth three is grown for each cluster against all other rows, with both sides
    weighing the same. The rule is the path to the node, at any depth, that best agrees with the cluster (F1, van
    Rijsbergen 1979). Thresholds are rounded to about a fiftieth of a standard deviation before the rule is judged.
    """
    sizes = np.bincount(labels[labels != NOISE]) if len(labels) else np.empty(0, int)
    found: dict[int, Rule] = {}
    for cluster in np.argsort(-sizes, kind="stable")[:MAX_RULES]:
        member = labels == cluster
        if 0 < sizes[cluster] < len(labels):
            path = _best_path(stats, member, seed)
            if path:
                found[int(cluster)] = _judged(path, stats.raw, features, member)
    return found


def _best_path(stats: TableStats, member: np.ndarray, seed: int) -> list[_Condition]:
    from sklearn.tree import DecisionTreeClassifier

    inside, outside = (_sampled(np.flatnonzero(side), seed) for side in (member, ~member))
    rows = np.concatenate([outside, inside])
    y = np.repeat([0, 1], [len(outside), len(inside)])
    least = max(1, min(len(inside), len(outside)) // 100)
    grown = DecisionTreeClassifier(max_depth=DEPTH, class_weight="balanced", min_samples_leaf=least, random_state=seed)
    # scikit-learn's trees round to float32, which is harmless once a feature is standardised.
    tree = grown.fit((stats.raw[rows] - stats.mean) / stats.scale, y).tree_
    counts = tree.value[:, 0] * tree.weighted_n_node_samples[:, None]
    n_member = int(member.sum())
    # What each node holds, back from balanced weights to rows of the table.
    counts *= np.array([len(member) - n_member, n_member]) / counts[0]
    f1 = 2 * counts[:, 1] / (counts.sum(axis=1) + n_member)
    f1[0] = -1.0  # the root has no condition
    return list(_path(tree, int(f1.argmax()), stats)) if tree.node_count > 1 else []


def _sampled(rows: np.ndarray, seed: int) -> np.ndarray:
    return rows[sample_rows(len(rows), SAMPLED, seed)]


def _path(tree: Any, node: int, stats: TableStats) -> Iterator[_Condition]:
    """The conditions from the root to a node, one a feature, in the order in which they first come."""
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


def _judged(path: Sequence[_Condition], raw: np.ndarray, features: Sequence[str], member: np.ndarray) -> Rule:
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
