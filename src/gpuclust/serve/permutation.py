"""Seeded permutation of any size without memory: compute single positions, equal in every process."""

from __future__ import annotations

_MASK = 2**64 - 1
_ROUNDS = 4


def permuted(i: int, n: int, seed: int) -> int:
    """The position of ``i`` in a seeded permutation of ``range(n)``.

    A Feistel network over the next even power of two, repeated until the value is below n (Black and Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002), with SplitMix64 as its round function.
    """
    half = max((n - 1).bit_length() + 1, 2) // 2
    low = (1 << half) - 1
    while True:
        left, right = i >> half, i & low
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mix(seed * _ROUNDS + turn, right) & low)
        i = left << half | right
        if i < n:
            return i


def _mix(key: int, value: int) -> int:
    """SplitMix64 of a value under a key (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""
    state = (_once(key & _MASK) + value * 0x9E3779B97F4A7C15) & _MASK
    return _once(state)


def _once(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
    return state ^ state >> 31
