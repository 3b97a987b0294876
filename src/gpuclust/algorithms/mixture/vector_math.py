"""exp and log that LLVM can vectorise.

The C library's functions are called one number at a time, which would take most of a pass. These follow fdlibm
(Sun Microsystems, 1993): Cody and Waite's reduction, then a polynomial; within 1 ulp in float64 and in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from gpuclust.runtime.jit import compiled

_strict = compiled(error_model="numpy", fastmath={"contract"})
_f = np.float32
_i = np.int32


@_strict
def _exp64(x: float) -> float:
    # t is x / log 2 rounded, in its lowest bits: 1.5 * 2^52 leaves no room for a fraction.
    t = x * 1.4426950408889634 + 6755399441055744.0
    n = t - 6755399441055744.0
    r = x - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10
    p = 1.6059043836821613e-10  # 1/13!
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 0.0001984126984126984
    p = p * r + 0.001388888888888889
    p = p * r + 0.008333333333333333
    p = p * r + 0.041666666666666664
    p = p * r + 0.16666666666666666
    p = p * r + 0.5
    p = p * r * r + r + 1.0
    scaled = np.int64(np.float64(p).view(np.int64) + (np.float64(t).view(np.int64) << 52)).view(np.float64)
    return 0.0 if x <= -600.0 else scaled


@_strict
def _exp32(x: Any) -> Any:
    t = x * _f(1.4426950408889634) + _f(12582912.0)
    n = t - _f(12582912.0)
    r = x - n * _f(0.693145751953125) - n * _f(1.42860682030941723212e-6)
    p = _f(1.9841270114e-4)  # 1/7!
    p = p * r + _f(1.3888889225e-3)
    p = p * r + _f(8.3333337680e-3)
    p = p * r + _f(4.1666667908e-2)
    p = p * r + _f(1.6666667163e-1)
    p = p * r + _f(0.5)
    p = p * r * r + r + _f(1.0)
    bits = _i(np.float32(p).view(np.int32) + _i(np.float32(t).view(np.int32) << _i(23)))
    return _f(0.0) if x <= _f(-60.0) else bits.view(np.float32)


@_strict
def _log64(x: float) -> float:
    bits = np.float64(x).view(np.int64)
    e = (bits - np.int64(0x3FE6A09E667F3BCD)) >> 52  # the power of two that leaves m in [sqrt(1/2), sqrt(2))
    m = np.int64(bits - (e << 52)).view(np.float64)
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    p = 1.479819860511658591e-01
    p = p * z + 1.531383769920937332e-01
    p = p * z + 1.818357216161805012e-01
    p = p * z + 2.222219843214978396e-01
    p = p * z + 2.857142874366239149e-01
    p = p * z + 3.999999999940941908e-01
    p = p * z + 6.666666666666735130e-01
    h = 0.5 * f * f
    n = np.float64(e)
    return n * 6.93147180369123816490e-01 - ((h - (s * (h + p * z) + n * 1.90821492927058770002e-10)) - f)


@_strict
def _log32(x: Any) -> Any:
    bits = np.float32(x).view(np.int32)
    e = _i(_i(bits - _i(0x3F3504F3)) >> _i(23))
    m = _i(bits - _i(e << _i(23))).view(np.float32)
    f = m - _f(1.0)
    s = f / (m + _f(1.0))
    z = s * s
    p = _f(0.24279078841)
    p = p * z + _f(0.28498786688)
    p = p * z + _f(0.40000972152)
    p = p * z + _f(0.66666662693)
    h = _f(0.5) * f * f
    n = _f(e)
    return n * _f(6.9313812256e-01) - ((h - (s * (h + p * z) + n * _f(9.0580006145e-06))) - f)


def exp(x: float) -> float:
    """e^x for x <= 0, exactly 0 below -600 (float32: -60): smaller numbers times a variance would be subnormal, slow."""
    raise NotImplementedError("for compiled code")


def log(x: float) -> float:
    """The natural logarithm of a normal positive number."""
    raise NotImplementedError("for compiled code")


@overload(exp, strict=False)
def _exp(x: Any) -> Callable[[float], float]:
    return (lambda x: _exp64(x)) if x == types.float64 else (lambda x: _exp32(x))


@overload(log, strict=False)
def _log(x: Any) -> Callable[[float], float]:
    return (lambda x: _log64(x)) if x == types.float64 else (lambda x: _log32(x))
