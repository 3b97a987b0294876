"""The inner loops of the CPU's EM pass, which numba compiles for AVX-512, AVX2 or whatever vectors the machine has.

Every loop over r runs along one block of ROWS rows, feature by feature, so LLVM vectorises it. Only `_reassociated` functions
may sum in another order; the others keep IEEE semantics, except for fused multiply-add. Arrays are of the matrix's dtype
(float32 or float64) unless said otherwise: x and diff are (d, ROWS), joint is (k, ROWS), and y, top, total and w are (ROWS,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpuclust.algorithms.mixture.vector_math import exp, log
from gpuclust.runtime.jit import compiled

ROWS = 512  # long enough to hide what surrounds a loop; with 5 features and 5 components a block stays in L2

TINY = np.float32(np.finfo(np.float32).tiny)

Array = Any


class RowRange(NamedTuple):
    """Rows start to stop of a matrix (n, d) in C or Fortran order."""

    flat: Array  # (n * d,), the matrix as one line
    row_stride: int  # in elements
    column_stride: int
    start: int
    stop: int
    weight: Array  # (n,) float64, or empty where every row counts once
    base: float  # added to each log p(x)


class KernelArrays(NamedTuple):
    """The parameters of a mixture as the kernels read them; see `gpuclust.algorithms.mixture.em.KernelParameters`."""

    centres: Array  # (k, d)
    factors: Array  # (k, d, d) lower triangular, or (k, 1, d) for a diagonal
    offsets: Array  # (k, d)
    constants: Array  # (k,)


class Moments(NamedTuple):
    """Statistics about the centres, which a pass adds to; all float64."""

    counts: Array  # (k,)
    sums: Array  # (k, d)
    scatter: Array  # of the shape of the factors


class RowScores(NamedTuple):
    """Results by row; without rows where statistics are wanted instead."""

    labels: Array  # (n,) int32
    confidence: Array  # (n,) float32
    log_prob: Array  # (n,) float64
    responsibilities: Array  # (n, k), or (0, k)


# Without reference counting: the callers hold every array, and atomic counters would cost a third of the pass.
_options: dict[str, Any] = {"inner": True, "error_model": "numpy", "_nrt": False}
_contracted: Callable[..., Any] = compiled(fastmath={"contract"}, **_options)
# What sums in another order is inlined into `em_chunk`. Otherwise, in the process that compiles, em_chunk would call the function's
# own machine code, and in a process that reads the cache a copy within em_chunk, which LLVM has optimised a second time: the
# last bits of the sums would differ between the two.
_inlined: Callable[..., Any] = compiled(fastmath={"contract"}, forceinline=True, **_options)
_reassociated: Callable[..., Any] = compiled(fastmath={"contract", "reassoc"}, forceinline=True, **_options)
_chunk: Callable[..., Any] = compiled(error_model="numpy", fastmath={"contract"})


@_contracted
def _load(flat: Array, row_stride: int, column_stride: int, start: int, stop: int, x: Array) -> None:
    """Transpose rows start to stop into x; columns past the end repeat the last row and get weight 0."""
    n = stop - start
    step = np.uintp(row_stride)  # unsigned: numba checks each signed index for a negative value
    for i in range(x.shape[0]):
        at = np.uintp(start * row_stride + i * column_stride)
        for r in range(n):
            x[i, r] = flat[at]
            at += step
        for r in range(n, ROWS):
            x[i, r] = x[i, n - 1]


@_contracted
def load_weights(weight: Array, start: int, stop: int, w: Array) -> None:
    """Copy the weights of rows start to stop into w, 0 past the end."""
    n = stop - start
    for r in range(n):
        w[r] = weight[start + r] if weight.size else 1
    for r in range(n, ROWS):
        w[r] = 0


@_contracted
def _subtract(x: Array, centre: Array, diff: Array) -> None:
    """diff = x - centre (d,)."""
    for i in range(x.shape[0]):
        c = centre[i]
        for r in range(ROWS):
            diff[i, r] = x[i, r] - c


@_contracted
def _product4(f: Array, i: int, start: Any, diff: Array, y: Array) -> None:
    """y = f[i : i + 4] diff[i : i + 4], added to start for the first four and to y for the others."""
    f0, f1, f2, f3 = f[i], f[i + 1], f[i + 2], f[i + 3]
    d0, d1, d2, d3 = diff[i], diff[i + 1], diff[i + 2], diff[i + 3]
    if i == 0:
        for r in range(ROWS):
            y[r] = (f0 * d0[r] + start) + f1 * d1[r] + (f2 * d2[r] + f3 * d3[r])
    else:
        for r in range(ROWS):
            y[r] = (f0 * d0[r] + y[r]) + f1 * d1[r] + (f2 * d2[r] + f3 * d3[r])


@_contracted
def _subtract_square(f: Array, i: int, n: int, diff: Array, y: Array, out: Array) -> None:
    """out -= (y + f[i : i + n] diff[i : i + n])^2 for n of 0 to 3."""
    if n == 0:
        for r in range(ROWS):
            out[r] -= y[r] * y[r]
    elif n == 1:
        f0, d0 = f[i], diff[i]
        for r in range(ROWS):
            z = f0 * d0[r] + y[r]
            out[r] -= z * z
    elif n == 2:
        f0, d0, f1, d1 = f[i], diff[i], f[i + 1], diff[i + 1]
        for r in range(ROWS):
            z = f0 * d0[r] + y[r] + f1 * d1[r]
            out[r] -= z * z
    else:
        f0, d0, f1, d1, f2, d2 = f[i], diff[i], f[i + 1], diff[i + 1], f[i + 2], diff[i + 2]
        for r in range(ROWS):
            z = (f0 * d0[r] + y[r]) + (f1 * d1[r] + f2 * d2[r])
            out[r] -= z * z


@_contracted
def _log_joint(x: Array, parameters: Any, c: int, diff: Array, y: Array, joint: Array) -> None:
    """joint[c] = constants[c] - |offsets[c] + factors[c] (x - centres[c])|^2, four terms of the product at a time."""
    centres, factors, offsets, constants = parameters
    _subtract(x, centres[c], diff)
    out = joint[c]
    for r in range(ROWS):
        out[r] = constants[c]
    diagonal = factors.shape[1] == 1
    for j in range(x.shape[0]):
        f = factors[c, 0 if diagonal else j]
        first = j if diagonal else 0
        fours = (j + 1 - first) // 4
        if fours == 0:
            start = offsets[c, j]
            for r in range(ROWS):
                y[r] = start
        for m in range(fours):
            _product4(f, 4 * m, offsets[c, j], diff, y)
        _subtract_square(f, first + 4 * fours, (j + 1 - first) % 4, diff, y, out)


@_contracted
def largest(joint: Array, top: Array) -> None:
    """top = the maximum of joint over the components."""
    for r in range(ROWS):
        top[r] = joint[0, r]
    for c in range(1, joint.shape[0]):
        for r in range(ROWS):
            top[r] = max(top[r], joint[c, r])


@_contracted
def exponentiate(joint: Array, top: Array, total: Array) -> None:
    """joint becomes exp(joint - top), total its sum over the components."""
    for r in range(ROWS):
        total[r] = 0
    for c in range(joint.shape[0]):
        for r in range(ROWS):
            e = exp(joint[c, r] - top[r])
            joint[c, r] = e
            total[r] += e


@_contracted
def add_log(total: Array, top: Array, out: Array) -> None:
    """out = top + log(total)."""
    for r in range(ROWS):
        out[r] = top[r] + log(total[r])


@_reassociated
def dot(a: Array, b: Array) -> float:
    """The sum of a b, in float64."""
    s = np.float64(0)
    for r in range(ROWS):
        s += np.float64(a[r]) * np.float64(b[r])
    return s


@_reassociated
def _scale_and_sum(a: Array, b: Array, out: Array) -> Any:
    """out = a b and its sum."""
    s = a.dtype.type(0)
    for r in range(ROWS):
        p = a[r] * b[r]
        out[r] = p
        s += p
    return s


@_reassociated
def product(a: Array, b: Array) -> Any:
    """The sum of a b, in their dtype."""
    s = a.dtype.type(0)
    for r in range(ROWS):
        s += a[r] * b[r]
    return s


@_reassociated
def _products(a: Array, b0: Array, b1: Array, b2: Array, b3: Array) -> Any:
    """The sums of a b0 to a b3, in their dtype."""
    s0 = s1 = s2 = s3 = a.dtype.type(0)
    for r in range(ROWS):
        s0 += a[r] * b0[r]
        s1 += a[r] * b1[r]
        s2 += a[r] * b2[r]
        s3 += a[r] * b3[r]
    return s0, s1, s2, s3


@_inlined
def _accumulate(x: Array, centres: Array, joint: Array, w: Array, c: int, diff: Array, y: Array, moments: Any) -> None:
    """Add a block's moments of component c; of a matrix the lower triangle, four entries at a time."""
    counts, sums, scatter = moments
    share = joint[c]
    counts[c] += product(share, w)
    for r in range(ROWS):
        share[r] *= w[r]
    _subtract(x, centres[c], diff)
    diagonal = scatter.shape[1] == 1
    for i in range(diff.shape[0]):
        sums[c, i] += _scale_and_sum(share, diff[i], y)
        row = scatter[c, 0 if diagonal else i]
        j = i if diagonal else 0
        while j + 4 <= i + 1:
            s0, s1, s2, s3 = _products(y, diff[j], diff[j + 1], diff[j + 2], diff[j + 3])
            row[j] += s0
            row[j + 1] += s1
            row[j + 2] += s2
            row[j + 3] += s3
            j += 4
        while j < i + 1:
            row[j] += product(y, diff[j])
            j += 1


@_contracted
def emit(joint: Array, total: Array, log_p: Array, w: Array, low: int, high: int, base: float, out: Any) -> float:
    """Write the scores of rows low to high and return the sum of w times the entropy of the responsibilities.

    ``joint`` is exp(joint - top) and becomes the responsibilities; ``log_p`` is top + log(total).
    """
    labels, confidence, log_prob, responsibilities = out
    n = high - low
    for r in range(n):
        confidence[low + r] = 1 / total[r]
        log_prob[low + r] = base + np.float64(log_p[r])
    for c in range(joint.shape[0] - 1, -1, -1):  # the first of equal ones is kept, as in argmax
        for r in range(n):
            if joint[c, r] == 1:
                labels[low + r] = c
    entropy = 0.0
    for c in range(joint.shape[0]):
        for r in range(ROWS):
            share = joint[c, r] / total[r]
            joint[c, r] = share
            entropy -= w[r] * share * log(max(share, TINY))  # a share of 0 counts 0
        if responsibilities.size:
            for r in range(n):
                responsibilities[low + r, c] = joint[c, r]
    return entropy


@_chunk
def em_chunk(rows: Any, labels: Array, parameters: Any, moments: Any, out: Any) -> tuple[float, float]:
    """Add the moments of a `RowRange` about the centres to `Moments`; or, where the `RowScores` ``out`` have rows, fill these.

    Returns the log-likelihood without ``rows.base``, and in the second case the entropy. With ``labels`` (n,) int32 the
    responsibilities are 0 or 1 and the log-likelihood is 0; otherwise they are empty. ``parameters`` are `KernelArrays`.
    """
    flat, row_stride, column_stride, start, stop, weight, base = rows
    centres = parameters.centres
    k, d = centres.shape
    x = np.empty((d, ROWS), flat.dtype)
    diff = np.empty((d, ROWS), flat.dtype)
    joint = np.empty((k, ROWS), flat.dtype)
    top = np.empty(ROWS, flat.dtype)
    total = np.empty(ROWS, flat.dtype)
    w = np.empty(ROWS, flat.dtype)
    y = np.empty(ROWS, flat.dtype)
    log_likelihood = 0.0
    entropy = 0.0
    for low in range(start, stop, ROWS):
        high = min(low + ROWS, stop)
        _load(flat, row_stride, column_stride, low, high, x)
        load_weights(weight, low, high, w)
        if labels.size:
            joint[:] = 0
            for r in range(high - low):
                if 0 <= labels[low + r] < k:
                    joint[labels[low + r], r] = 1
        else:
            for c in range(k):
                _log_joint(x, parameters, c, diff, y, joint)
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
            _accumulate(x, centres, joint, w, c, diff, y, moments)
    return log_likelihood, entropy
