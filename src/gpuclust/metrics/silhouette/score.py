"""Silhouettes of several labelings of one matrix, in one pass over its distances.

The silhouette of a row is (b - a) / max(a, b), where a is its mean distance to the other rows of its cluster and b its
mean distance to the rows of the nearest other cluster (Rousseeuw 1987, J. Comput. Appl. Math. 20: 53-65).

No distance is stored. A *cell* is a set of rows that have the same label in every labeling. The rows are sorted by cell, distances
are summed for each cell, and each labeling adds the sums of the cells of a cluster. So a further labeling costs one addition
for each pair of a row and a cell, not one for each pair of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.errors import FitError
from gpuclust.metrics.silhouette.joint_labels import Array, Cells, sort_into_cells


@dataclass(frozen=True)
class SilhouetteResult:
    """The silhouette of one labeling.

    `score` is the (weighted) mean over the rows that were scored, `standard_error` its standard error (0.0 when every clustered
    row was scored), `n_scored` the number of rows that were scored, and `samples` their values, float64 (n_scored,), or None
    when they were not requested.
    """

    score: float
    standard_error: float
    n_scored: int
    samples: Array | None


def silhouette(
    X: Array,
    labelings: Sequence[Array],
    *,
    rows: Array | None = None,
    return_samples: bool = False,
    sample_weight: Array | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[SilhouetteResult]:
    """Mean silhouette of each labeling, with Euclidean distances, in one pass over the distances.

    `X` is (n_samples, n_features), float32 or float64 (other types are converted to float64). Distances are computed from
    differences in the precision of `X` and summed in float64. `labelings` are (n_samples,) integer arrays; negative labels are
    noise, which is neither scored nor a neighbour. `rows`, sorted and distinct, are the rows to score (all by default); their
    distances to every clustered row are computed. `sample_weight` (n_samples,) are the multiplicities of distinct rows: the
    results are those of the table in which row i is repeated sample_weight[i] times. `progress` is called with the fraction
    done, in [0, 1].

    A row alone in its cluster scores 0, as in scikit-learn. Raises FitError for a labeling with fewer than 2 clusters or with as
    many clusters as rows, and for arrays whose shapes do not match.
    """
    from gpuclust.metrics.silhouette import cpu as silhouette_cpu  # numba takes half a second to import

    X = _matrix(X)
    weight = check_weights(sample_weight, len(X), X.dtype)
    cells = sort_into_cells(labelings, len(X), weight)
    targets = choose_targets(rows, cells, len(X))
    if rows is None and silhouette_cpu.prefer_pair_blocks(cells, X.shape[1]):
        values = silhouette_cpu.pair_blocks(X, weight, cells, targets, progress)
    else:
        values = silhouette_cpu.score_targets(X, weight, cells, targets, progress)
    return summarise(
        values, cells.sums_of[:, targets], weight[targets], cells.n_clustered, return_samples=return_samples
    )


def _matrix(X: Array) -> Array:
    X = np.asarray(X)
    if X.ndim != 2 or 0 in X.shape:
        raise FitError(f"silhouette: X has shape {X.shape}; give (n_samples, n_features), neither of them 0")
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float64)
    exponent = scale_exponent(max(abs(float(X.min())), abs(float(X.max()))), X.dtype)
    return np.ldexp(X, -exponent) if exponent else X


def scale_exponent(largest: float, dtype: Any) -> int:
    """The exponent of the power of two by which to divide X where the square of the `largest` value is out of range, else 0.

    Silhouettes are ratios, so they do not change, and the division is exact. Raises FitError for NaN and infinity.
    """
    if not np.isfinite(largest):
        raise FitError("silhouette: X holds NaN or infinity; drop or fill those rows first (clean.nulls)")
    exponent = int(np.frexp(largest)[1])
    return exponent if abs(exponent) > np.finfo(dtype).maxexp // 4 else 0


def check_weights(sample_weight: Array | None, n_samples: int, dtype: Any) -> Array:
    """Weights (n_samples,) of `dtype`, ones by default. Raises FitError unless they are finite and above 0."""
    if sample_weight is None:
        return np.ones(n_samples, dtype)
    weight = np.asarray(sample_weight, dtype)
    if weight.shape != (n_samples,):
        raise FitError(
            f"silhouette: sample_weight has shape {weight.shape}; give one weight for each of {n_samples:,} rows"
        )
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise FitError("silhouette: sample_weight must be finite and above 0; leave rows of weight 0 out")
    return weight


def choose_targets(rows: Array | None, cells: Cells, n_samples: int, xp: Any = np) -> Any:
    """The rows to score, int64, where the cells are: the given ones, by default all that are in a cluster of some labeling."""
    if rows is None:
        return xp.flatnonzero(cells.sums_of.max(axis=0) >= 0)
    rows = np.asarray(rows, np.int64)
    if rows.ndim != 1 or not len(rows) or rows[0] < 0 or rows[-1] >= n_samples or (np.diff(rows) <= 0).any():
        raise FitError(f"silhouette: rows must be distinct, ascending row numbers below {n_samples:,}")
    return xp.asarray(rows)


def summarise(
    values: Array, own: Array, weight: Array, n_clustered: Sequence[int], *, return_samples: bool
) -> list[SilhouetteResult]:
    """Results from the `values` of the scored rows, their clusters' rows of sums `own`, -1 for noise, (n_labelings, n_targets) each,
    their `weight` (n_targets,), and the number of clustered rows of each labeling. The values of noise rows are not used."""
    results = []
    for number, row_values in enumerate(values):
        scored = own[number] >= 0
        samples = row_values[scored]
        error = _standard_error(samples, weight[scored], n_clustered[number], number)
        score = float(np.average(samples, weights=weight[scored]))
        results.append(SilhouetteResult(score, error, len(samples), samples if return_samples else None))
    return results


def _standard_error(samples: Array, weight: Array, n_clustered: int, number: int) -> float:
    """Standard error of the weighted mean of rows drawn without replacement (Cochran 1977, Sampling Techniques, 6)."""
    n_scored = len(samples)
    if n_scored == n_clustered:
        return 0.0
    if n_scored < 2:
        raise FitError(
            f"silhouette: {n_scored} of the sampled rows is clustered in labeling {number}; "
            "sample more rows (score.sample_size)"
        )
    weight = weight.astype(np.float64)
    deviations = weight * (samples - np.average(samples, weights=weight)) / weight.mean()
    variance = deviations @ deviations / (n_scored - 1)
    return float(np.sqrt(variance / n_scored * (1 - n_scored / n_clustered)))
