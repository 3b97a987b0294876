"""Exact order statistics, medians and quantiles of each column by radix selection: a few reads of the rows, whatever their number.

A float64 becomes a 64-bit key in the same order. Each read counts the next bits of the keys whose earlier bits equal those of the wanted
value. The counts are integers, so the result depends neither on the order of the blocks nor on the number of bits per read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpuclust.model.records import sizes_of
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.passes import PerRow
from gpuclust.runtime.threads import in_threads

KEY_BITS = 64
MAX_BITS, MIN_BITS = 11, 4  # a read; counters of 11 bits and one column fit the first-level cache
COUNTERS_BYTES = 32 << 20  # of one run; for many groups and columns a read takes fewer bits
TILE = 1024  # rows that are counted column by column while they are in the cache
SIGN = np.uint64(1 << 63)


@compiled(fastmath=False)
def _count(bits, labels, prefixes, done, shift, first, last, counts):  # type: ignore[no-untyped-def]
    """Add the rows `bits` (n, n_columns) uint64 to counts (n_groups, n_columns, n_prefixes, 2 ** n_bits), columns first to last.

    labels (n,) int32, negative for no group, or (0,): one group. prefixes (n_groups, n_columns, n_prefixes) are the first
    `done` bits of the keys that are counted by the bits after `shift`.
    """
    n = bits.shape[0]
    mask = np.uint64(counts.shape[3] - 1)
    head = np.uint64(KEY_BITS - done)
    shift = np.uint64(shift)
    grouped = len(labels) > 0
    for begin in range(0, n, TILE):
        end = min(begin + TILE, n)
        for j in range(first, last):
            for i in range(begin, end):
                group = labels[i] if grouped else 0
                if group < 0:
                    continue
                u = bits[i, j]
                if u == SIGN:  # -0.0 is 0.0
                    u = np.uint64(0)
                key = ~u if u >= SIGN else u | SIGN
                digit = (key >> shift) & mask
                if done == 0:
                    counts[group, j, 0, digit] += 1
                    continue
                start = key >> head
                for p in range(prefixes.shape[2]):
                    if prefixes[group, j, p] == start:
                        counts[group, j, p, digit] += 1
                        break


def _counts(run: Run, labels: PerRow | None, prefixes: np.ndarray, done: int, n_bits: int) -> list[np.ndarray | None]:
    """The counts of a run, in the place of its first block: integers add up in any order."""
    bits = np.ascontiguousarray(run.X, dtype=np.float64).view(np.uint64)
    own = np.empty(0, np.int32) if labels is None else np.ascontiguousarray(labels.of(run), dtype=np.int32)
    counts = np.zeros((*prefixes.shape, 1 << n_bits), np.int64)

    def count(first: int, last: int) -> None:
        _count(bits, own, prefixes, done, KEY_BITS - done - n_bits, first, last, counts)

    in_threads(run.X.shape[1], count)
    return [counts, *[None] * (len(run.edges) - 1)]


def _add(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return second if first is None else first if second is None else first + second


def order_statistics(blocks: RowBlocks, ranks: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Values of each column by their rank, 0 for the smallest, exact; -0.0 counts as 0.0. The columns are finite.

    ``ranks`` (n_ranks,) int64 of all rows: the result is (n_ranks, n_columns) float64. With ``labels`` (n_rows,) int32, -1
    for rows that are left out, ``ranks`` is (n_groups, n_ranks) among the rows of each group, and the result
    (n_groups, n_ranks, n_columns). A rank below 0 gives NaN.
    """
    ranks = np.asarray(ranks, np.int64)
    groups = ranks if labels is not None else ranks[None]
    wanted = np.repeat(groups[:, None, :], blocks.shape[1], axis=1)  # (n_groups, n_columns, n_ranks)
    left = np.maximum(wanted, 0)
    prefix = np.zeros(wanted.shape, np.uint64)
    per_row = None if labels is None else PerRow(labels)
    done = 0
    while done < KEY_BITS:
        prefixes, slot = _distinct(prefix)
        n_bits = min(_bits(prefixes.size), KEY_BITS - done)
        counts = blocks.reduce(_counts, per_row, prefixes, done, n_bits, add=_add)
        below = np.take_along_axis(counts.cumsum(axis=-1), slot[..., None], axis=2)  # (..., n_ranks, 2 ** n_bits)
        digit = np.minimum((below <= left[..., None]).sum(axis=-1), (1 << n_bits) - 1)
        before = np.take_along_axis(below, np.maximum(digit - 1, 0)[..., None], axis=-1)[..., 0]
        left -= np.where(digit > 0, before, 0)
        prefix = (prefix << np.uint64(n_bits)) | digit.astype(np.uint64)
        done += n_bits
    bits = np.where(prefix >= SIGN, prefix & ~SIGN, ~prefix)
    found = np.where(wanted >= 0, bits.view(np.float64), np.nan).transpose(0, 2, 1)
    return np.ascontiguousarray(found if labels is not None else found[0])


def _distinct(prefix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct prefixes of each group and column, ascending and then repeated, and which of them each (..., n_ranks) is."""
    order = np.argsort(prefix, axis=-1, kind="stable")
    ascending = np.take_along_axis(prefix, order, axis=-1)
    rank = np.zeros(prefix.shape, np.int64)
    rank[..., 1:] = np.cumsum(ascending[..., 1:] != ascending[..., :-1], axis=-1)
    distinct = np.repeat(ascending[..., -1:], int(rank.max(initial=0)) + 1, axis=-1)
    np.put_along_axis(distinct, rank, ascending, axis=-1)
    slot = np.empty_like(rank)
    np.put_along_axis(slot, order, rank, axis=-1)
    return distinct, slot


def _bits(n_prefixes: int) -> int:
    """The number of bits per read, from the number of counters, which each bit doubles."""
    fitting = int(np.log2(max(COUNTERS_BYTES // (8 * n_prefixes), 1)))
    return min(max(fitting, MIN_BITS), MAX_BITS)


def medians(blocks: RowBlocks, labels: np.ndarray | None = None, n_groups: int | None = None) -> np.ndarray:
    """Medians of the columns: (n_columns,), or of the groups of ``labels`` (n_groups, n_columns), NaN for an empty group.

    They are those of `numpy.median`.
    """
    sizes = _sizes(blocks, labels, n_groups)
    ranks = median_ranks(sizes)
    return middle(order_statistics(blocks, ranks if labels is not None else ranks[0], labels))


def median_ranks(sizes: np.ndarray) -> np.ndarray:
    """The ranks of the two middle values of groups of these sizes (n_groups,): (n_groups, 2) int64, -1 for an empty group."""
    return np.stack([np.where(sizes > 0, (sizes - 1) // 2, -1), np.where(sizes > 0, sizes // 2, -1)], axis=-1)


def middle(values: np.ndarray) -> np.ndarray:
    """The median (..., n_columns) from the two middle values (..., 2, n_columns)."""
    found: np.ndarray = values.sum(axis=-2) / 2
    return found


def quantiles(
    blocks: RowBlocks, shares: Sequence[float], labels: np.ndarray | None = None, n_groups: int | None = None
) -> np.ndarray:
    """Quantiles of the columns, interpolated as `numpy.quantile` does by default: (n_shares, n_columns), or for the groups of
    ``labels`` (n_groups, n_shares, n_columns), NaN for an empty group."""
    places = QuantilePlaces.of(_sizes(blocks, labels, n_groups), shares)
    grouped = labels is not None
    found = order_statistics(blocks, places.ranks if grouped else places.ranks[0], labels)
    values = places.interpolate(found if grouped else found[None])
    return values if grouped else values[0]


@dataclass(frozen=True)
class QuantilePlaces:
    """Where quantiles lie among sorted values: ``ranks`` (n_groups, 2 n_shares) int64, the values before and then those after,
    -1 for an empty group; ``shares`` (n_groups, n_shares) of the way between them."""

    ranks: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, sizes: np.ndarray, shares: Sequence[float]) -> QuantilePlaces:
        """The places for groups of these sizes (n_groups,)."""
        last = (sizes - 1)[:, None]
        places = np.asarray(shares)[None, :] * last
        low = np.floor(places).astype(np.int64)
        ranks = np.concatenate([low, np.minimum(low + 1, last)], axis=1)
        return cls(np.where(sizes[:, None] > 0, ranks, -1), places - low)

    def interpolate(self, values: np.ndarray) -> np.ndarray:
        """The quantiles (n_groups, n_shares, n_columns) from the values of the ranks (n_groups, 2 n_shares, n_columns).

        From the nearer value, as NumPy does, so that both ends are exact.
        """
        low, high = np.split(values, 2, axis=1)
        gap, share = high - low, self.shares[..., None]
        found: np.ndarray = np.where(share < 0.5, low + gap * share, high - gap * (1 - share))
        return found


def _sizes(blocks: RowBlocks, labels: np.ndarray | None, n_groups: int | None) -> np.ndarray:
    """Number of rows of each group, (n_groups,) int64."""
    return np.array([len(blocks)]) if labels is None else sizes_of(labels, n_groups)
