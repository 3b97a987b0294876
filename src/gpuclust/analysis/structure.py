"""Estimate the number of groups in the data, independent of any clustering: dense regions separated by valleys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpuclust.analysis.dip import dip
from gpuclust.analysis.modes import MIN_SHARE, find_modes, n_neighbors
from gpuclust.data.table import sample_rows

# Larger tables are sampled; a mode of one row in a hundred then still has more rows than a neighbourhood.
# A sample of a wide table has at most MAX_VALUES values, but at least MIN_SAMPLE rows.
MAX_ROWS, MAX_VALUES, MIN_SAMPLE = 4000, 2_000_000, 1000
MIN_ROWS = 40
# Distances are informative in up to about this many columns; of wider tables the leading components are used.
MAX_COLUMNS = 10
# A column with fewer distinct values than a fifth of the distinct rows is spread over the steps of its scale.
ROWS_PER_VALUE = 5
# Independent copies of the columns that a principal component is compared with; Gaussian tables for a fourth moment.
N_REFERENCES, N_GAUSSIAN = 5, 19
# With fewer rows per column, fourth moments are too noisy.
ROWS_PER_COLUMN = 20
# Numbers of touching groups to try if there is one mode; for a part of the rows only two.
SPLITS = (2, 3, 4, 5)
# Dip x sqrt(n) of two groups: beyond the 0.995 quantile of uniform rows, the unimodal distribution with the largest dips ...
SPLIT_DIP = 0.65
FOLDS = 4
RIDGE = 0.1
# ... and least difference of log density between the rows between two groups and those around their centres.
MIN_VALLEY = 1.0
MIN_SPLIT_ROWS = 60
# Number of neighbouring groups that a piece of a group may be joined to.
NEAREST_GROUPS = 3


@dataclass(frozen=True)
class Structure:
    """Groups of a sample of rows.

    ``n_groups`` is the number of groups, 1 if the density has no valley; ``rows`` (n_sampled,) int64 are the row numbers of the
    sample; ``labels`` (n_sampled,) int64 their groups; ``space`` names the coordinates in which the groups are separated.
    """

    n_groups: int
    rows: np.ndarray
    labels: np.ndarray
    space: str


def find_structure(
    raw: np.ndarray, *, seed: int, transform: Callable[[np.ndarray], np.ndarray] = lambda raw: raw
) -> Structure | None:
    """Find the groups of ``raw`` (n_rows, n_features) float64 after ``transform``; None for too few distinct rows.

    The values of discrete columns are spread evenly over the steps between them, because the steps of a scale are not groups,
    and equal rows count once. Modes of the density are searched in these coordinates, if applicable:

    - the prepared columns, up to ten;
    - the leading principal components, those with more variance than independent columns have (Horn 1965);
    - the directions in which fourth moments are lower than a Gaussian's, invariant coordinates (Tyler, Critchley, Duembgen and
      Oja 2009), which show groups of any scale, also among uninformative columns.

    The coordinates with the most modes are used, and each mode is divided again. If there is one mode, K-Means searches for
    touching groups, which are kept if a dip separates each pair (`apart`).
    """
    rng = np.random.default_rng(seed)
    rows = sampled_rows(len(raw), raw.shape[1], seed)
    values, kept = spread_steps(np.asarray(raw[rows], dtype=np.float64), rng)
    rows = rows[kept]
    if len(rows) < MIN_ROWS:
        return None
    X = np.asarray(transform(values), dtype=np.float64)
    if not np.isfinite(X).all():
        return None
    finder = _Finder(X, rng)
    groups, space = finder.groups(np.arange(len(X)))
    labels = np.zeros(len(X), dtype=np.int64)
    for i, members in enumerate(groups):
        labels[members] = i
    return Structure(len(groups), rows, labels, space)


def sampled_rows(n_rows: int, n_columns: int, seed: int) -> np.ndarray:
    """The numbers of the rows to use, ascending: all, or a seeded sample."""
    return sample_rows(n_rows, min(MAX_ROWS, max(MIN_SAMPLE, MAX_VALUES // n_columns)), seed)


class _Finder:
    """Divides the rows of X recursively until no part can be divided."""

    def __init__(self, X: np.ndarray, rng: np.random.Generator) -> None:
        self._X, self._rng = X, rng
        self._smallest = max(n_neighbors(len(X)), round(MIN_SHARE * len(X)))
        # Only for all rows: in a part, the direction of the lowest moment is bimodal by chance.
        self._directions = np.empty((len(X), 0))
        if X.shape[1] > 3 and len(X) >= ROWS_PER_COLUMN * X.shape[1]:
            self._directions = invariant_coordinates(X, rng)

    def groups(self, members: np.ndarray) -> tuple[list[np.ndarray], str]:
        """The groups of some rows, and the coordinates of the first division.

        A group may be split between parts: neighbouring groups of different parts are joined if their union cannot be
        divided.
        """
        parts, space = self._divide(members)
        if len(parts) < 2:
            return [members], space
        found: list[tuple[int, np.ndarray]] = []
        for origin, part in enumerate(parts):
            found += [(origin, group) for group in self.groups(part)[0]]
        if len(found) > len(parts):
            self._join(found)
        return [group for _, group in found], space

    def _join(self, found: list[tuple[int, np.ndarray]]) -> None:
        """Join the pieces of groups that are split between parts, smallest first; modifies the list."""
        split = {origin for origin, _ in found if sum(o == origin for o, _ in found) > 1}
        tried: set[frozenset[int]] = set()
        while len(found) > 2:
            pair = self._piece(found, split, tried)
            if pair is None:
                return
            i, j = pair
            together = np.concatenate([found[i][1], found[j][1]])
            if len(self._divide(together)[0]) > 1:
                tried.add(frozenset((id(found[i][1]), id(found[j][1]))))
                continue
            origin = found[j][0] if len(found[j][1]) >= len(found[i][1]) else found[i][0]
            found[j] = (origin, together)
            del found[i]

    def _piece(
        self, found: list[tuple[int, np.ndarray]], split: set[int], tried: set[frozenset[int]]
    ) -> tuple[int, int] | None:
        """The next pair of neighbouring groups to look at: one of a part that was divided again, the other of another part."""
        centres = np.array([self._X[group].mean(axis=0) for _, group in found])
        for i in sorted(range(len(found)), key=lambda i: len(found[i][1])):
            if found[i][0] not in split:
                continue
            others = [j for j in range(len(found)) if found[j][0] != found[i][0]]
            others.sort(key=lambda j: float(((centres[j] - centres[i]) ** 2).sum()))
            for j in others[:NEAREST_GROUPS]:
                if frozenset((id(found[i][1]), id(found[j][1]))) not in tried:
                    return i, j
        return None

    def _divide(self, members: np.ndarray) -> tuple[list[np.ndarray], str]:
        """The parts of some rows (one part if they have one mode), and the coordinates in which they are separated."""
        X = self._X[members]
        best: tuple[int, float, list[np.ndarray], str] = (1, 0.0, [members], "")
        if len(X) < MIN_SPLIT_ROWS:
            return best[2:]
        seen = []
        for space, coordinates in self._spaces(members):
            modes = find_modes(coordinates, smallest=self._smallest)
            seen.append((space, coordinates, modes))
            least = float(modes.prominence.min(initial=np.inf))
            if modes.n_modes > 1 and (modes.n_modes, least) > best[:2]:
                parts = [members[modes.labels == m] for m in range(modes.n_modes)]
                best = (modes.n_modes, least, parts, space)
        if best[0] > 1:
            return best[2:]
        counts = SPLITS if len(members) == len(self._X) else SPLITS[:1]
        for space, coordinates, modes in seen:
            density = -modes.dimension * np.log(np.maximum(modes.radius, np.finfo(np.float64).tiny))
            own = split(coordinates, density, counts, self._rng)
            if own is not None:
                return [members[own == c] for c in range(own.max() + 1)], space
        return best[2:]

    def _spaces(self, members: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name and the coordinates (n_members, m) of each space in which modes are searched."""
        X = self._X[members]
        d = X.shape[1]
        if d <= MAX_COLUMNS:
            yield ("the features" if d > 1 else "the feature"), X
        if d <= 3:
            return
        components = leading_components(X, self._rng)
        found = components.shape[1]
        if 0 < found < d:
            kept = min(found, MAX_COLUMNS)
            yield f"the first {kept} principal component{'s' * (kept > 1)}", components[:, :kept]
        if len(members) < len(self._X):
            return
        directions = self._directions[:, :MAX_COLUMNS]
        n_directions = directions.shape[1]
        if 0 < n_directions < d:
            yield f"{n_directions} invariant coordinate{'s' * (n_directions > 1)}", directions
        if found and n_directions and found + n_directions < min(d, MAX_COLUMNS + 1):
            both = np.column_stack([components / components.std(axis=0), directions])
            yield f"{found} principal components and {n_directions} invariant coordinates", both


def spread_steps(raw: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Spread the values of discrete columns uniformly over the steps of their scale; also return the row numbers.

    The mean and standard deviation of a column are preserved. Equal rows count once, unless all columns are discrete: then
    they may be different rows rounded to the same steps.
    """
    _, first = np.unique(raw, axis=0, return_index=True)
    scales = {j: v for j in range(raw.shape[1]) if len(v := np.unique(raw[:, j])) <= len(first) / ROWS_PER_VALUE}
    kept = np.arange(len(raw)) if len(scales) == raw.shape[1] else np.sort(first)
    spread = raw[kept].copy()
    for j, values in scales.items():
        if len(values) < 2:
            continue
        column = spread[:, j]
        step = np.diff(values)
        below, above = np.append(step[0], step), np.append(step, step[-1])
        at = np.searchsorted(values, column)
        move = rng.uniform(-0.5, 0.5, len(kept))
        moved = column + np.where(move < 0, below[at], above[at]) * move
        spread[:, j] = column.mean() + (moved - moved.mean()) * (column.std() / moved.std())
    return spread, kept


def discrete_columns(raw: np.ndarray) -> list[int]:
    """The columns with few values, which `spread_steps` spreads."""
    n_distinct = len(np.unique(raw, axis=0))
    return [j for j in range(raw.shape[1]) if 1 < len(np.unique(raw[:, j])) <= n_distinct / ROWS_PER_VALUE]


def leading_components(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The principal components of X that have more variance than those of independent columns (Horn's parallel analysis)."""
    centred = X - X.mean(axis=0)
    variance = _variances(centred)
    null = np.max([_variances(rng.permuted(centred, axis=0)) for _ in range(N_REFERENCES)], axis=0)
    above = variance > null
    found = len(above) if above.all() else int(np.argmin(above))
    if not found:
        return np.empty((len(X), 0))
    from scipy.linalg import svd

    if len(X) > X.shape[1]:
        axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
        return centred @ axes[:, :found]
    left, singular, _ = svd(centred, full_matrices=False)
    return left[:, :found] * singular[:found]


def _variances(centred: np.ndarray) -> np.ndarray:
    """Sums of squares along the principal axes, descending, from the smaller of the two products."""
    product = centred.T @ centred if len(centred) > centred.shape[1] else centred @ centred.T
    return np.linalg.eigvalsh(product)[::-1]


def invariant_coordinates(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The invariant coordinates of X whose fourth moment is below that of any direction of Gaussian tables of this shape."""
    moments, coordinates = _fourth_moments(X)
    shape = (len(X), coordinates.shape[1])
    lowest = min(float(_fourth_moments(rng.normal(size=shape))[0][0]) for _ in range(N_GAUSSIAN))
    return coordinates[:, moments < lowest]


def _fourth_moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, of the scatter of fourth moments relative to the covariance, and the coordinates."""
    centred = X - X.mean(axis=0)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(X))
    used = variance > 1e-9 * max(float(variance[-1]), np.finfo(np.float64).tiny)
    Z = centred @ (axes[:, used] / np.sqrt(variance[used]))
    scatter = (Z * (Z**2).sum(axis=1)[:, None]).T @ Z / (len(X) * (Z.shape[1] + 2))
    moments, turned = np.linalg.eigh(scatter)
    return moments, Z @ turned


def split(X: np.ndarray, density: np.ndarray, counts: Sequence[int], rng: np.random.Generator) -> np.ndarray | None:
    """Labels (n,) of the largest number of K-Means clusters of X (n, m) that are pairwise separated, or None.

    This finds touching groups, whose valley is too shallow for `find_modes` with few rows. ``density`` (n,) is the log density
    at each row.
    """
    from sklearn.cluster import KMeans

    found = None
    for k in counts:
        own = KMeans(k, n_init=5, random_state=int(rng.integers(1 << 30))).fit_predict(X)
        pairs = [(own == i) | (own == j) for i in range(k) for j in range(i)]
        if min(np.bincount(own, minlength=k)) < MIN_SPLIT_ROWS / 6:
            break
        if all(apart(X[pair], own[pair] == own[pair].max(), density[pair], rng) for pair in pairs):
            found = own
    return found


def apart(X: np.ndarray, second: np.ndarray, density: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether two clusters of rows X (n, m) are separate groups: a dip between them, and a border less dense than both.

    Positions along Fisher's discriminant are cross-fitted by folds, so that a direction fitted to noise has no dip. The border
    must be less dense than both centres, which is not the case if a ring is cut in two.
    """
    position = _discriminant(X, second, rng)
    if dip(position) * np.sqrt(len(position)) <= SPLIT_DIP:
        return False
    low, high, border = (density[np.abs(position - at) < 0.3] for at in (-1, 1, 0))
    if min(len(low), len(high)) == 0:
        return False
    return len(border) == 0 or min(np.median(low), np.median(high)) - np.median(border) > MIN_VALLEY


def _discriminant(X: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions (n,) along Fisher's discriminant, fitted to the rows of other folds; the centres are at -1 and 1."""
    position = np.empty(len(X))
    fold = rng.permutation(len(X)) % FOLDS
    for i in range(FOLDS):
        train, held = fold != i, fold == i
        fitted, own = X[train], second[train].astype(int)
        centre = np.array([fitted[own == c].mean(axis=0) for c in (0, 1)])
        residual = fitted - centre[own]
        within = residual.T @ residual / len(fitted)
        within = (1 - RIDGE) * within + RIDGE * np.trace(within) / len(within) * np.eye(len(within))
        axis = np.linalg.solve(within, centre[1] - centre[0])
        position[held] = (X[held] - centre.mean(axis=0)) @ axis / (float((centre[1] - centre[0]) @ axis) / 2)
    return position
