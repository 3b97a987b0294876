"""The silhouette of a sample of the rows of a matrix in blocks: the distances to all rows in one read for several labelings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gpuclust.metrics.silhouette.joint_labels import Array, check_clusters, group_rows
from gpuclust.metrics.silhouette.score import SilhouetteResult, scale_exponent, summarise
from gpuclust.model.records import sizes_of
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.passes import OneByOne, PerRow, each_block

SUMS_BYTES = 32 << 20  # of the sums of one block; more labelings take several reads


def silhouette_blocks(
    X: RowBlocks, labelings: Sequence[Array], rows: Array, *, progress: Callable[[float], None] | None = None
) -> list[SilhouetteResult]:
    """As `silhouette` for some ``rows`` of X (n_samples, n_features) in blocks, whose results it gives within 1e-9.

    Distances are summed in float64 for each block, from partial sums of a few distances in the precision of X; the partial sums group
    other rows than `silhouette` does.
    """
    exponent = scale_exponent(float(X.reduce(_largest, add=np.maximum)), X.dtype)
    targets = np.ldexp(X.take(rows), -exponent)
    numberings = [_number(labels, i) for i, labels in enumerate(labelings)]
    results: list[SilhouetteResult] = []
    for part in _parts([len(n.weights) for n in numberings], len(rows)):
        some = [labelings[i] for i in part]
        results += _score(X, some, [numberings[i] for i in part], rows, targets, exponent)
        if progress is not None:
            progress(len(results) / len(labelings))
    return results


class Numbering:
    """The clusters of a labeling that have rows: ``codes`` (n_labels + 1,) int32 of each label, -1 for noise (the last entry) and for
    labels without rows; ``weights`` (n_clusters,) float64, their sizes."""

    def __init__(self, sizes: Array) -> None:
        present = sizes > 0
        self.codes = np.append(np.where(present, np.cumsum(present) - 1, -1), -1).astype(np.int32)
        self.weights = sizes[present].astype(np.float64)


def _number(labels: Array, number: int) -> Numbering:
    found = Numbering(sizes_of(labels))
    check_clusters(found.weights, number)
    return found


def _parts(n_clusters: Sequence[int], n_targets: int) -> Iterator[range]:
    """Neighbouring labelings whose sums are computed in one read."""
    first, n_sums = 0, 0
    for i, count in enumerate(n_clusters):
        if i > first and 8 * (n_sums + count) * n_targets > SUMS_BYTES:
            yield range(first, i)
            first, n_sums = i, 0
        n_sums += count
    yield range(first, len(n_clusters))


def _score(
    X: RowBlocks,
    labelings: Sequence[Array],
    numberings: Sequence[Numbering],
    rows: Array,
    targets: Array,
    exponent: int,
) -> list[SilhouetteResult]:
    from gpuclust.metrics.silhouette.kernels_cpu import coefficients  # numba takes half a second to import

    weights = np.concatenate([n.weights for n in numberings])
    first = np.cumsum([0, *(len(n.weights) for n in numberings)])
    codes = tuple(np.where(n.codes >= 0, n.codes + f, -1) for n, f in zip(numberings, first, strict=False))
    own = np.stack([code[labels[rows]] for code, labels in zip(codes, labelings, strict=True)]).astype(np.int32)
    sums = X.reduce(_distance_sums, targets, codes, first, exponent, *map(PerRow, labelings))
    values = np.empty(own.shape)
    coefficients(sums, own, np.arange(len(rows)), first, weights, values)
    n_clustered = [int(n.weights.sum()) for n in numberings]
    return summarise(values, own, np.ones(len(rows), X.dtype), n_clustered, return_samples=False)


def _largest(run: Run) -> list[np.floating]:
    return each_block(run, lambda a, b: np.maximum(np.abs(run.X[a:b].min()), np.abs(run.X[a:b].max())))


def _distance_sums(
    run: Run, targets: Array, codes: tuple[Array, ...], first: Array, exponent: int, *labelings: PerRow
) -> OneByOne[Array]:
    """For each block, the sums of the distances from the targets to its rows of each cluster: (n_sums, n_targets) float64."""
    from gpuclust.metrics.silhouette.cpu import distance_sums

    def of(start: int, stop: int) -> Array:
        sums_of = np.stack([code[labels.of(run)[start:stop]] for code, labels in zip(codes, labelings, strict=True)])
        order, starts, sums = group_rows(sums_of.astype(np.int32), first)
        X = np.ldexp(run.X[start:stop][order], -exponent)
        return distance_sums(X, starts, sums, targets, int(first[-1]))

    return OneByOne(run, of)
