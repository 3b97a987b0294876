"""The inner loops of the CPU's EM pass for diagonal and spherical components of many features; otherwise as `kernels_cpu`.

There a tile of rows is transposed, and from some dozens of features on it no longer fits the caches. Here rows lie one after the other, the
loops run along the features, and eight sums for four rows and two components stay in registers. In many dimensions most responsibilities
are negligible, and the sums of the M-step leave their rows out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpuclust.algorithms.mixture.kernels_cpu import (
    ROWS,
    Array,
    add_log,
    dot,
    emit,
    exponentiate,
    largest,
    load_weights,
    product,
)
from gpuclust.runtime.jit import compiled

MIN_FEATURES = 24  # measured by experiments/bench/dimensions.py
# Responsibilities relative to the row's largest, in float64 and in float32: the sums of the M-step leave out rows of smaller ones, whose part
# in the sums of a component is below their rounding error.
NEGLIGIBLE, NEGLIGIBLE_32 = 1e-20, 1e-12
BLOCK_BYTES = 2**18  # of the rows whose moments are added for one component after the other

_options: dict[str, Any] = {"inner": True, "error_model": "numpy", "_nrt": False}
_contracted: Callable[..., Any] = compiled(fastmath={"contract"}, **_options)
_reassociated: Callable[..., Any] = compiled(fastmath={"contract", "reassoc"}, forceinline=True, **_options)
_chunk: Callable[..., Any] = compiled(error_model="numpy", fastmath={"contract"})


def use_wide(factors: Array) -> bool:
    """Whether the factors (k, d, d) or (k, 1, d) of `KernelParameters` are those of a pass of this file."""
    return bool(factors.shape[1] == 1 and factors.shape[2] >= MIN_FEATURES)


@_contracted
def _copy_rows(flat: Array, row_stride: int, column_stride: int, start: int, stop: int, x: Array) -> None:
    """Copy rows start to stop, of a matrix in Fortran order, one after the other into x (ROWS * d,)."""
    d = x.size // ROWS
    for i in range(d):
        at = start * row_stride + i * column_stride
        for r in range(stop - start):
            x[r * d + i] = flat[at + r * row_stride]


@_reassociated
def _distances(a: Array, b: Array, c: Array, e: Array, centre: Any, factor: Any, offset: Any, other: Any) -> Any:
    """|offset + factor (x - centre)|^2 of four rows for one component and for an ``other`` one (centre, factor, offset)."""
    centre2, factor2, offset2 = other
    zero = a.dtype.type(0)
    a1 = b1 = c1 = e1 = a2 = b2 = c2 = e2 = zero
    for f in range(centre.size):
        z = (a[f] - centre[f]) * factor[f] + offset[f]
        a1 += z * z
        z = (b[f] - centre[f]) * factor[f] + offset[f]
        b1 += z * z
        z = (c[f] - centre[f]) * factor[f] + offset[f]
        c1 += z * z
        z = (e[f] - centre[f]) * factor[f] + offset[f]
        e1 += z * z
        z = (a[f] - centre2[f]) * factor2[f] + offset2[f]
        a2 += z * z
        z = (b[f] - centre2[f]) * factor2[f] + offset2[f]
        b2 += z * z
        z = (c[f] - centre2[f]) * factor2[f] + offset2[f]
        c2 += z * z
        z = (e[f] - centre2[f]) * factor2[f] + offset2[f]
        e2 += z * z
    return a1, b1, c1, e1, a2, b2, c2, e2


@_contracted
def _log_joint(x: Array, first: int, n: int, parameters: Any, joint: Array) -> None:
    """joint[c, r] = constants[c] - |offsets[c] + factors[c] (x - centres[c])|^2 of n rows of d values from x[first] on.

    Columns past n repeat the last row.
    """
    centres, factors, offsets, constants = parameters
    k, d = centres.shape
    for r in range(0, n, 4):
        at0 = first + r * d
        at1, at2, at3 = first + min(r + 1, n - 1) * d, first + min(r + 2, n - 1) * d, first + min(r + 3, n - 1) * d
        a, b, c, e = x[at0 : at0 + d], x[at1 : at1 + d], x[at2 : at2 + d], x[at3 : at3 + d]
        for i in range(0, k, 2):
            j = min(i + 1, k - 1)
            other = (centres[j], factors[j, 0], offsets[j])
            found = _distances(a, b, c, e, centres[i], factors[i, 0], offsets[i], other)
            one, two = joint[i], joint[j]
            p, q = constants[i], constants[j]
            two[r], two[r + 1], two[r + 2], two[r + 3] = q - found[4], q - found[5], q - found[6], q - found[7]
            one[r], one[r + 1], one[r + 2], one[r + 3] = p - found[0], p - found[1], p - found[2], p - found[3]
    for i in range(k):
        for r in range(n, ROWS):
            joint[i, r] = joint[i, n - 1]


@_contracted
def _add_eight(x: Array, begins: Array, shares: Array, i: int, centre: Array, sums: Array, scatter: Array) -> None:
    """Add the moments of eight rows, which begin at x[begins[i]], x[begins[i + 1]] and so on, with their shares."""
    d = centre.size
    x0, x1 = x[begins[i] : begins[i] + d], x[begins[i + 1] : begins[i + 1] + d]
    x2, x3 = x[begins[i + 2] : begins[i + 2] + d], x[begins[i + 3] : begins[i + 3] + d]
    x4, x5 = x[begins[i + 4] : begins[i + 4] + d], x[begins[i + 5] : begins[i + 5] + d]
    x6, x7 = x[begins[i + 6] : begins[i + 6] + d], x[begins[i + 7] : begins[i + 7] + d]
    s0, s1, s2, s3 = shares[i], shares[i + 1], shares[i + 2], shares[i + 3]
    s4, s5, s6, s7 = shares[i + 4], shares[i + 5], shares[i + 6], shares[i + 7]
    for f in range(d):
        m = centre[f]
        y0, y1, y2, y3 = x0[f] - m, x1[f] - m, x2[f] - m, x3[f] - m
        y4, y5, y6, y7 = x4[f] - m, x5[f] - m, x6[f] - m, x7[f] - m
        p0, p1, p2, p3 = s0 * y0, s1 * y1, s2 * y2, s3 * y3
        p4, p5, p6, p7 = s4 * y4, s5 * y5, s6 * y6, s7 * y7
        sums[f] += ((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7))
        scatter[f] += ((p0 * y0 + p1 * y1) + (p2 * y2 + p3 * y3)) + ((p4 * y4 + p5 * y5) + (p6 * y6 + p7 * y7))


@_contracted
def _accumulate(
    x: Array, first: int, low: int, high: int, centres: Array, joint: Array, w: Array, scratch: Any, moments: Any
) -> None:
    """Add the moments of rows low to high of a tile that begins at x[first]; rows with a negligible share are left out."""
    begins, shares, own_sums, own_scatter = scratch
    negligible = joint.dtype.type(NEGLIGIBLE if joint.itemsize == 8 else NEGLIGIBLE_32)
    _, sums, scatter = moments
    k, d = centres.shape
    for c in range(k):
        share, found = joint[c], 0
        for r in range(low, high):
            begins[found], shares[found] = first + r * d, share[r] * w[r]
            found += share[r] > negligible
        for i in range(found, -(-found // 8) * 8):
            begins[i], shares[i] = begins[found - 1], 0
        if found == 0:
            continue
        for f in range(d):
            own_sums[f], own_scatter[f] = 0, 0
        for i in range(0, found, 8):
            _add_eight(x, begins, shares, i, centres[c], own_sums, own_scatter)
        for f in range(d):
            sums[c, f] += own_sums[f]
            scatter[c, 0, f] += own_scatter[f]


@_chunk
def em_chunk_wide(rows: Any, labels: Array, parameters: Any, moments: Any, out: Any) -> tuple[float, float]:
    """As `kernels_cpu.em_chunk`, for factors (k, 1, d)."""
    flat, row_stride, column_stride, start, stop, weight, base = rows
    k, d = parameters.centres.shape
    by_rows = column_stride == 1
    own = np.empty(0 if by_rows else ROWS * d, flat.dtype)
    joint = np.empty((k, ROWS), flat.dtype)
    top = np.empty(ROWS, flat.dtype)
    total = np.empty(ROWS, flat.dtype)
    w = np.empty(ROWS, flat.dtype)
    y = np.empty(ROWS, flat.dtype)
    begins, shares = np.empty(ROWS + 8, np.int64), np.empty(ROWS + 8, flat.dtype)
    own_sums, own_scatter = np.empty(d, flat.dtype), np.empty(d, flat.dtype)
    part = min(ROWS, max(8, BLOCK_BYTES // (d * flat.itemsize) // 8 * 8))
    log_likelihood = 0.0
    entropy = 0.0
    for low in range(start, stop, ROWS):
        high = min(low + ROWS, stop)
        x, first = flat, low * d
        if not by_rows:
            _copy_rows(flat, row_stride, column_stride, low, high, own)
            x, first = own, 0
        load_weights(weight, low, high, w)
        if labels.size:
            joint[:] = 0
            for r in range(high - low):
                if 0 <= labels[low + r] < k:
                    joint[labels[low + r], r] = 1
        else:
            _log_joint(x, first, high - low, parameters, joint)
            largest(joint, top)
            exponentiate(joint, top, total)
            add_log(total, top, y)
            log_likelihood += dot(w, y)
            if out[0].size:
                entropy += emit(joint, total, y, w, low, high, base, out)
                continue
            for r in range(ROWS):
                w[r] /= total[r]
        for c in range(k):
            moments[0][c] += product(joint[c], w)
        for r in range(0, high - low, part):
            end = min(r + part, high - low)
            _accumulate(
                x, first, r, end, parameters.centres, joint, w, (begins, shares, own_sums, own_scatter), moments
            )
    return log_likelihood, entropy
