"""Hartigan's dip test for multimodality of one variable."""

from __future__ import annotations

import numpy as np


def dip(values: np.ndarray) -> float:
    """The dip of values (n,): the smallest maximum distance of their distribution function to a unimodal one.

    Hartigan and Hartigan (1985); the algorithm of Hartigan (1985), AS 217. Between 1 / 2n and 1 / 4.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    if n < 4 or x[0] == x[-1]:
        return 1 / (2 * max(n, 1))
    rank = np.arange(n, dtype=np.float64)
    low, high, found = 0, n - 1, 1.0
    while True:
        minorant = low + _hull(x[low : high + 1], rank[low : high + 1], convex=True)
        majorant = low + _hull(x[low : high + 1], rank[low : high + 1], convex=False)
        below = np.interp(x, x[minorant], rank[minorant])
        above = np.interp(x, x[majorant], rank[majorant])
        at_minorant = above[minorant] + 1 - minorant
        at_majorant = majorant + 1 - below[majorant]
        i, j = int(at_minorant.argmax()), int(at_majorant.argmax())
        widest = max(at_minorant[i], at_majorant[j])
        if widest <= found:
            break
        if at_minorant[i] >= at_majorant[j]:
            left = int(minorant[i])
            right = int(majorant[np.searchsorted(majorant, left)])
        else:
            right = int(majorant[j])
            left = int(minorant[np.searchsorted(minorant, right, side="right") - 1])
        inside = np.arange(low, left + 1)
        from_minorant = (inside + 1 - below[inside]).max(initial=0.0)
        inside = np.arange(right, high + 1)
        from_majorant = (above[inside] + 1 - inside).max(initial=0.0)
        found = max(found, float(from_minorant), float(from_majorant))
        if left <= low and right >= high:
            break
        low, high = max(left, low), min(right, high)
        if high <= low:
            break
    return found / (2 * n)


def _hull(x: np.ndarray, y: np.ndarray, *, convex: bool) -> np.ndarray:
    """Indices of the greatest convex minorant (least concave majorant) of the points, x ascending."""
    sign = 1.0 if convex else -1.0
    kept: list[int] = []
    xs, ys = x.tolist(), (sign * y).tolist()
    for i in range(len(xs)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (ys[b] - ys[a]) * (xs[i] - xs[a]) >= (ys[i] - ys[a]) * (xs[b] - xs[a]):
                kept.pop()
            else:
                break
        kept.append(i)
    return np.array(kept)
