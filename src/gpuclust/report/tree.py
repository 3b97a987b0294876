"""Where the branches of a condensed tree stand: the layout behind its figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEPS = 256
_THIN = 0.01
_GAP = 0.12


@dataclass(frozen=True)
class Branch:
    """One cluster of the tree: it has ``widths[0]`` from its ``birth`` on, and ``widths[i + 1]`` from ``steps[i]`` on.

    ``rows`` it was born with; ``centre`` is where it stands, in units of width.
    """

    birth: float
    steps: np.ndarray
    widths: np.ndarray
    rows: int
    centre: float

    def shape(self, cut: float) -> np.ndarray:
        """Its outline (m, 2): x and density, steps as corners, ended at the density ``cut``."""
        y = np.minimum(np.repeat(np.r_[self.birth, self.steps], 2)[1:], cut)
        half = np.repeat(self.widths, 2)[: len(y)] / 2
        left, right = self.centre - half, self.centre + half
        return np.column_stack((np.r_[left, right[::-1]], np.r_[y, y[::-1]]))


@dataclass(frozen=True)
class Tree:
    """All branches by node number, ``up`` each one's parent, and the densities drawn: ``start`` .. ``cut``."""

    branches: dict[int, Branch]
    up: dict[int, int]
    start: float
    cut: float
    square_root: bool

    @staticmethod
    def of(parent: np.ndarray, child: np.ndarray, density: np.ndarray, size: np.ndarray) -> Tree:
        """Lay out a condensed tree given as four arrays, one entry for each row or cluster that leaves its parent."""
        finite = density[np.isfinite(density)]
        density = np.where(np.isfinite(density), density, finite.max(initial=1.0))
        splits = np.flatnonzero(size > 1)
        up = {int(child[i]): int(parent[i]) for i in splits}
        birth = {int(child[i]): float(density[i]) for i in splits}
        order = np.lexsort((density, parent))
        nodes, starts = np.unique(parent[order], return_index=True)
        rows = dict(zip(nodes.tolist(), np.split(order, starts[1:]), strict=True))
        held = {node: float(size[mine].sum()) for node, mine in rows.items()}
        square_root = min(held.values()) < _THIN * max(held.values())
        wide = {node: np.sqrt(n) if square_root else n for node, n in held.items()}
        centre = _centres(wide, up)
        branches = {}
        for node, mine in rows.items():
            left = held[node] - np.cumsum(size[mine])
            pick = np.unique(np.linspace(0, len(mine) - 1, min(len(mine), _STEPS)).astype(int))
            widths = np.maximum(np.r_[held[node], left[pick]], 0.0)
            widths = np.sqrt(widths) if square_root else widths
            born = birth.get(node, 0.0)
            branches[node] = Branch(born, density[mine][pick], widths, int(held[node]), centre[node])
        return Tree(branches, up, *_span(np.array(list(birth.values())), density), square_root)

    def links(self) -> list[list[tuple[float, float]]]:
        """A line from each parent to each of its children, at the density of the split."""
        born = [(self.branches[p], self.branches[c]) for c, p in self.up.items() if c in self.branches]
        return [[(p.centre, c.birth), (c.centre, c.birth)] for p, c in born]


def _span(births: np.ndarray, density: np.ndarray) -> tuple[float, float]:
    """From a little before the first split to a little beyond the last one, and to where most rows have left."""
    most = float(np.quantile(density, 0.95)) if len(density) else 1.0
    last = max(1.2 * float(births.max(initial=0.0)), most, 1e-12)
    return (max(float(births.min()) - 0.15 * (last - float(births.min())), 0.0) if len(births) else 0.0), last


def _centres(wide: dict[int, float], up: dict[int, int]) -> dict[int, float]:
    """Where each branch stands: every subtree has a slot as wide as its widest level, so that none overlap."""
    below: dict[int, list[int]] = {node: [] for node in wide}
    for node in wide:
        if node in up:
            below[up[node]].append(node)
    roots = [node for node in wide if node not in up]
    downward = list(roots)
    for node in downward:
        downward += below[node]
    slot: dict[int, float] = {}
    for node in reversed(downward):
        slot[node] = max(wide[node], sum(slot[c] for c in below[node])) + _GAP * wide[node]
    left = dict(zip(roots, np.cumsum([0.0, *(slot[r] for r in roots)])[:-1].tolist(), strict=True))
    for node in downward:
        children = sorted(below[node], key=lambda c: (-wide[c], c))
        at = left[node] + (slot[node] - sum(slot[c] for c in children)) / 2
        for c in children:
            left[c] = at
            at += slot[c]
    return {node: left[node] + slot[node] / 2 for node in wide}
