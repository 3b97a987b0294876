"""Tables whose number of groups is known, or that have none: what the verdict is calibrated and scored on.

A table is a recipe with a truth and the range that a sweep would try. Its draws differ by their seed. Part of the parameters
of every family is held out: those tables, and all draws from seed 100 on, are scored but never looked at while rules change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

DEVELOPMENT_SEEDS = (0, 1)
HELD_OUT_SEEDS = (100, 101)
SIZES = tuple(range(2, 13))


@dataclass(frozen=True)
class Table:
    """One recipe.

    ``truth``: the numbers of groups that are right; empty where the rows have none. ``ambiguous``: experts would argue, so
    an answer of several numbers that holds a right one, or no answer, is right too. ``sizes``: numbers of clusters that a
    K-Means or mixture sweep tries. ``draw``: seed -> raw rows (n_rows, n_features).
    """

    name: str
    family: str
    truth: tuple[int, ...]
    draw: Callable[[int], np.ndarray]
    ambiguous: bool = False
    sizes: tuple[int, ...] = SIZES
    held_out: bool = False
    unit: bool = False
    """Whether the rows are vectors, which are prepared by ``scale=unit`` and clustered with ``cluster.metric=cosine``."""

    def matrix(self, seed: int) -> np.ndarray:
        """The rows as ``scale=standard`` or ``scale=unit`` prepares them, float32."""
        X = np.asarray(self.draw(seed), dtype=np.float64)
        if self.unit:
            return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
        spread = X.std(axis=0)
        return ((X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def tables() -> list[Table]:
    """All of them, in a fixed order; every third recipe of a family is held out."""
    found: list[Table] = []
    for family in (
        _clouds,
        _discrete,
        _curved_none,
        _groups,
        _edges,
        _wide,
        _vectors,
        _noise,
        _shapes,
        _overlap,
        _real,
    ):
        for i, table in enumerate(family()):
            held = i % 3 == 2 and table.family != "real"
            found.append(Table(**{**table.__dict__, "held_out": held}))
    return found


def centres(k: int, d: int, apart: float, rng: np.random.Generator) -> np.ndarray:
    """k points in d dimensions, each at least ``apart`` from the others, as close together as chance allows."""
    found: list[np.ndarray] = []
    side = apart * 0.6
    while len(found) < k:
        candidate = rng.uniform(-side / 2, side / 2, d)
        if all(np.linalg.norm(candidate - c) >= apart for c in found):
            found.append(candidate)
        side *= 1.01
    return np.array(found)


def members(n: int, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Group of each of n rows, with exactly these shares up to rounding."""
    edges = np.round(np.cumsum(shares / shares.sum()) * n).astype(int)
    return np.searchsorted(edges, rng.permutation(n), side="right")


def groups(
    k: int,
    d: int,
    apart: float,
    *,
    n: int = 1200,
    smallest: float = 1.0,
    spread: tuple[float, ...] | None = None,
    noise: float = 0.0,
    nuisance: int = 0,
    tail: float | None = None,
    stretch: float = 1.0,
    skewed: bool = False,
) -> Callable[[int], np.ndarray]:
    """Groups in d dimensions: ``apart`` standard deviations between the nearest, the smallest ``smallest`` of the largest,
    ``noise`` of the rows uniform around them, ``nuisance`` further columns that say nothing, Student t with ``tail`` degrees."""

    def draw(seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, k, d])
        shares = np.geomspace(1.0, smallest, k)
        own = members(n - round(noise * n), shares, rng)
        within = rng.standard_t(tail, (len(own), d)) if tail else rng.normal(size=(len(own), d))
        if skewed:
            within = (np.exp(0.5 * within) - np.exp(0.125)) / 0.6
        within *= np.array(spread or [1.0] * k)[own][:, None]
        if stretch > 1:
            within[:, 0] *= stretch
        X = centres(k, d, apart, rng)[own] + within
        if stretch > 1:
            X = X @ np.linalg.qr(rng.normal(size=(d, d)))[0]
        if noise:
            low, high = X.min(axis=0) - 1, X.max(axis=0) + 1
            X = np.concatenate([X, rng.uniform(low, high, (round(noise * n), d))])
        return np.column_stack([X, rng.normal(size=(len(X), nuisance))])

    return draw


def _seeded(make: Callable[[np.random.Generator], np.ndarray]) -> Callable[[int], np.ndarray]:
    return lambda seed: make(np.random.default_rng([seed, 7]))


def _none(name: str, make: Callable[[np.random.Generator], np.ndarray], family: str = "one cloud") -> Table:
    return Table(name, family, (), _seeded(make))


def _clouds() -> Iterator[Table]:
    for d, n in ((2, 1000), (3, 2500), (5, 1000), (1, 1500), (10, 1000), (20, 1500), (40, 1500), (80, 1500), (160, 1500), (384, 1500)):  # fmt: skip
        yield _none(f"Gaussian, {d} columns", lambda rng, d=d, n=n: rng.normal(size=(n, d)))
    for d, n in ((2, 1000), (1, 1000), (3, 1000), (8, 1500), (30, 1500)):
        yield _none(f"uniform cube, {d} columns", lambda rng, d=d, n=n: rng.uniform(size=(n, d)))
    for d, df in ((3, 3), (4, 2), (2, 1.5), (8, 3), (2, 3), (20, 2.5)):
        yield _none(f"Student t{df}, {d} columns", lambda rng, d=d, df=df: rng.standard_t(df, (1200, d)))
    for d, s in ((3, 1.0), (2, 0.7), (6, 0.8), (1, 1.0), (12, 0.7)):
        yield _none(f"lognormal {s}, {d} columns", lambda rng, d=d, s=s: np.exp(s * rng.normal(size=(1200, d))))
    for d, r in ((2, 0.95), (5, 0.7), (3, 0.9), (12, 0.5)):
        yield _none(
            f"correlated {r}, {d} columns",
            lambda rng, d=d, r=r: rng.multivariate_normal(np.zeros(d), (1 - r) * np.eye(d) + r, 1200),
        )
    for d, long in ((2, 10), (3, 30), (6, 10)):
        yield _none(
            f"elongated {long}:1, {d} columns",
            lambda rng, d=d, long=long: (
                (rng.normal(size=(1200, d)) * np.r_[long, np.ones(d - 1)]) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
            ),
        )
    yield _none("exponential, 3 columns", lambda rng: rng.exponential(size=(1200, 3)))
    yield _none("uniform disc", lambda rng: _ball(rng, 1200, 2))
    yield _none("uniform ball, 4 columns", lambda rng: _ball(rng, 1200, 4))
    yield _none("factor model, 30 columns", lambda rng: rng.normal(size=(1200, 3)) @ rng.normal(size=(3, 30)) + rng.normal(size=(1200, 30)))  # fmt: skip
    yield _none("Gaussian with 10 % uniform noise", lambda rng: np.concatenate([rng.normal(size=(1080, 3)), rng.uniform(-6, 6, (120, 3))]))  # fmt: skip
    yield _none("two scales, one centre", lambda rng: np.concatenate([rng.normal(size=(700, 3)), 4 * rng.normal(size=(500, 3))]))  # fmt: skip


def _ball(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    X = rng.normal(size=(n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True) * rng.uniform(size=(n, 1)) ** (1 / d)


def _discrete() -> Iterator[Table]:
    def flagged(rng: np.random.Generator, d: int, values: int, n: int = 1500) -> np.ndarray:
        return np.column_stack([rng.normal(size=(n, d)), rng.integers(0, values, n)])

    for d, values in ((5, 2), (3, 2), (4, 3), (2, 2), (8, 2), (3, 4)):
        yield _none(f"{d} Gaussian columns and one of {values} values", lambda rng, d=d, v=values: flagged(rng, d, v), "discrete")  # fmt: skip
    for d, levels in ((3, 6), (2, 5), (5, 7), (4, 5), (2, 10), (8, 5)):
        yield _none(f"ordinal 1..{levels}, {d} columns", lambda rng, d=d, m=levels: rng.integers(1, m + 1, (1200, d)), "discrete")  # fmt: skip
    yield _none("rounded Gaussian, 3 columns", lambda rng: np.round(rng.normal(size=(1200, 3)) * 1.5), "discrete")
    yield _none("counts, 3 columns", lambda rng: rng.poisson(3, (1200, 3)), "discrete")
    yield _none("uniform and a rare flag", lambda rng: np.column_stack([rng.uniform(size=(1500, 3)), rng.uniform(size=1500) < 0.1]), "discrete")  # fmt: skip

    def with_flag(seed: int) -> np.ndarray:
        X = groups(4, 4, 8, n=1500)(seed)
        return np.column_stack([X, np.random.default_rng([seed, 5]).integers(0, 2, len(X))])

    yield Table("4 groups in 4 columns and a random 0/1 column", "discrete", (4,), with_flag)


def _arc(rng: np.random.Generator, n: int, turn: float, width: float, start: float = 0.0) -> np.ndarray:
    angle = start + rng.uniform(0, turn, n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + width * rng.normal(size=(n, 2))


def _curved_none() -> Iterator[Table]:
    def banana(rng: np.random.Generator, bend: float, d: int = 2) -> np.ndarray:
        x = rng.normal(size=(1200, d))
        x[:, 1] = 0.4 * x[:, 1] + bend * x[:, 0] ** 2
        return x

    yield _none("banana", lambda rng: banana(rng, 0.6), "curved cloud")
    yield _none("ring", lambda rng: _arc(rng, 1200, 2 * np.pi, 0.08), "curved cloud")
    yield _none("strong banana, 3 columns", lambda rng: banana(rng, 1.2, 3), "curved cloud")
    yield _none("half ring", lambda rng: _arc(rng, 1000, np.pi, 0.06), "curved cloud")
    yield _none("S curve", _s_curve, "curved cloud")
    yield _none("thick ring", lambda rng: _arc(rng, 1500, 2 * np.pi, 0.15), "curved cloud")
    yield _none("spiral", lambda rng: _spiral(rng, 1200, 0.0), "curved cloud")
    yield _none("sphere shell, 3 columns", lambda rng: (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True) * rng.normal(1, 0.05, (len(x), 1)))(rng.normal(size=(1500, 3))), "curved cloud")  # fmt: skip


def _s_curve(rng: np.random.Generator) -> np.ndarray:
    t = 3 * np.pi * (rng.uniform(size=1200) - 0.5)
    X = np.column_stack([np.sin(t), np.sign(t) * (np.cos(t) - 1)])
    return X + 0.08 * rng.normal(size=X.shape)


def _spiral(rng: np.random.Generator, n: int, turn: float) -> np.ndarray:
    t = np.sqrt(rng.uniform(0.06, 1, n)) * 2.2 * np.pi
    return np.column_stack([t * np.cos(t + turn), t * np.sin(t + turn)]) + 0.15 * rng.normal(size=(n, 2))


def _k(k: int, d: int, apart: float, label: str = "", family: str = "groups", **rest: object) -> Table:
    return Table(f"{k} groups, {d} columns, {apart:g} sd apart{label}", family, (k,), groups(k, d, apart, **rest))  # type: ignore[arg-type]


def _groups() -> Iterator[Table]:
    yield _k(2, 2, 6)
    yield _k(3, 2, 8)
    yield _k(4, 2, 7)
    yield _k(5, 3, 6, ", unequal", smallest=0.2)
    yield _k(2, 3, 8, ", 95 to 5", smallest=0.053)
    yield _k(6, 4, 6)
    yield _k(7, 4, 5)
    yield _k(3, 5, 5)
    yield _k(8, 5, 7)
    yield _k(10, 8, 7, ", unequal", smallest=0.25, n=2000)
    yield _k(9, 3, 7, n=1800)
    yield _k(4, 8, 5)
    yield _k(5, 10, 4.5)
    yield _k(6, 30, 8)
    yield _k(2, 10, 5)
    yield _k(10, 4, 8, n=2000)
    yield _k(3, 1, 7)
    yield _k(5, 1, 8)
    yield _k(3, 2, 10, ", spreads 1, 2, 0.3", spread=(1.0, 2.0, 0.3))
    yield _k(4, 3, 9, ", spreads 0.5 to 2", spread=(0.5, 1.0, 1.5, 2.0))
    yield _k(4, 6, 8, ", spreads 0.5 to 1.5", spread=(0.5, 1.0, 1.0, 1.5))
    yield _k(3, 3, 12, ", Student t3 groups", tail=3)
    yield _k(4, 5, 12, ", Student t3 groups", tail=3)
    yield _k(5, 2, 14, ", Student t4 groups", tail=4)
    yield _k(3, 3, 8, ", skewed groups", skewed=True)
    yield _k(4, 2, 8, ", skewed groups", skewed=True)
    yield _k(5, 4, 7, ", skewed groups", skewed=True)
    yield _k(3, 2, 14, ", stretched 3:1", stretch=3)
    yield _k(4, 3, 16, ", stretched 4:1", stretch=4)
    yield _k(3, 5, 14, ", stretched 4:1", stretch=4)
    yield _k(5, 3, 8, ", 10 nuisance columns", nuisance=10)
    yield _k(3, 4, 8, ", 4 nuisance columns", nuisance=4)
    yield _k(4, 3, 8, ", 6 nuisance columns", nuisance=6)
    yield _k(6, 6, 8, ", 6 nuisance columns", nuisance=6, n=1800)
    yield _k(2, 2, 8, ", 8 nuisance columns", nuisance=8)
    yield _k(3, 2, 8, ", 300 rows", n=300)
    yield _k(4, 3, 7, ", 250 rows", n=250)
    yield _k(3, 4, 7, ", 3000 rows", n=3000)
    repeated = groups(5, 3, 8, n=250)
    yield Table("5 groups, every row ten times", "groups", (5,), lambda seed: np.repeat(repeated(seed), 10, axis=0))


def _edges() -> Iterator[Table]:
    """The true number at the first or the last size of the range, and outside of it."""
    cases = (
        (8, 4, 9, (2, 3, 4, 5, 6)), (12, 5, 7, SIZES), (4, 3, 8, tuple(range(4, 11))), (10, 5, 8, (2, 3, 4, 5, 6, 7)),
        (3, 3, 8, (5, 6, 7, 8, 9)), (5, 3, 8, (2, 3, 4, 5)), (8, 4, 9, (2, 4, 6, 8, 10)), (6, 3, 7, (2, 3, 4)),
        (2, 3, 7, (4, 5, 6, 7, 8)), (12, 8, 8, (2, 4, 6, 8, 10)), (4, 2, 8, (2, 3, 4)), (7, 3, 8, (7, 8, 9, 10, 11)),
        (9, 6, 8, (3, 4, 5, 6)),
    )  # fmt: skip
    for k, d, apart, sizes in cases:
        table = _k(k, d, apart, f", swept {sizes[0]} to {sizes[-1]}", "range", n=1800)
        yield Table(**{**table.__dict__, "sizes": sizes})


def _wide() -> Iterator[Table]:
    cases = ((6, 10, 12), (6, 40, 12), (6, 80, 12), (6, 160, 12), (6, 384, 12), (12, 100, 12), (4, 64, 10), (8, 200, 14), (3, 30, 8), (6, 20, 12), (10, 384, 16), (2, 100, 10))  # fmt: skip
    for k, d, apart in cases:
        yield _k(k, d, apart, "", "wide", n=1500)

    def sphere(seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, 12])
        mean = rng.normal(size=(8, 256))
        X = mean[members(1500, np.ones(8), rng)] + 0.8 * rng.normal(size=(1500, 256))
        return X / np.linalg.norm(X, axis=1, keepdims=True)

    yield Table("8 groups on the sphere, 256 columns", "wide", (8,), sphere)


def _vectors() -> Iterator[Table]:
    """Vectors of several lengths around directions, and vectors without groups."""

    def directions(k: int, d: int, noise: float, uneven: bool, n: int = 1500) -> Callable[[int], np.ndarray]:
        def draw(seed: int) -> np.ndarray:
            rng = np.random.default_rng([seed, k, d])
            mean = rng.normal(size=(k, d))
            mean /= np.linalg.norm(mean, axis=1, keepdims=True)
            shares = np.linspace(1, 6, k) if uneven else np.ones(k)
            X = mean[members(n, shares, rng)] + noise * rng.normal(size=(n, d))
            return X * rng.lognormal(sigma=0.5, size=(n, 1))

        return draw

    cases = ((3, 64, 0.09, False), (7, 256, 0.035, False), (5, 768, 0.03, True), (10, 384, 0.04, False), (4, 128, 0.1, True), (8, 64, 0.06, True))  # fmt: skip
    for k, d, noise, uneven in cases:
        name = f"{k} directions, {d} dimensions{', uneven' if uneven else ''}"
        yield Table(name, "vectors", (k,), directions(k, d, noise, uneven), unit=True)
    for d in (64, 384, 768):
        name = f"vectors without a direction, {d} dimensions"
        yield Table(name, "vectors", (), _seeded(lambda rng, d=d: rng.normal(size=(1500, d))), unit=True)
    for d in (128, 384):
        name = f"vectors around one direction, {d} dimensions"
        yield Table(name, "vectors", (), directions(1, d, 0.05, False), unit=True)


def _noise() -> Iterator[Table]:
    for k, d, apart, share in ((4, 3, 10, 0.1), (4, 3, 10, 0.3), (3, 2, 9, 0.2), (3, 3, 12, 0.5), (5, 2, 10, 0.1), (6, 4, 10, 0.2), (2, 2, 8, 0.1), (5, 5, 9, 0.3), (3, 4, 8, 0.05)):  # fmt: skip
        yield _k(k, d, apart, f", {share:.0%} noise", "noise", noise=share, n=1600)


def _shapes() -> Iterator[Table]:
    from sklearn.datasets import make_moons

    def shape(name: str, k: int, make: Callable[[np.random.Generator], np.ndarray]) -> Table:
        return Table(name, "shapes", (k,), _seeded(make))

    def circle(rng: np.random.Generator, n: int, radius: float, width: float = 0.06) -> np.ndarray:
        return radius * _arc(rng, n, 2 * np.pi, 0.0) + width * rng.normal(size=(n, 2))

    def moons(rng: np.random.Generator, noise: float) -> np.ndarray:
        return np.asarray(make_moons(1200, noise=noise, random_state=int(rng.integers(1 << 30)))[0])

    def lines(rng: np.random.Generator, k: int) -> np.ndarray:
        own = rng.integers(0, k, 1200)
        return np.column_stack([rng.uniform(0, 10, 1200), 2.0 * own + 0.2 * rng.normal(size=1200)])

    yield shape("two moons", 2, lambda rng: moons(rng, 0.06))
    yield shape("two circles", 2, lambda rng: np.concatenate([circle(rng, 500, 1.0), circle(rng, 900, 2.0)]))
    yield shape("two moons, more noise", 2, lambda rng: moons(rng, 0.09))
    yield shape("blob in a ring", 2, lambda rng: np.concatenate([circle(rng, 900, 4.0, 0.25), 0.5 * rng.normal(size=(500, 2))]))  # fmt: skip
    yield shape("three spirals", 3, lambda rng: np.concatenate([_spiral(rng, 600, 2 * np.pi * i / 3) for i in range(3)]))  # fmt: skip
    yield shape("two parallel lines", 2, lambda rng: lines(rng, 2))
    yield shape("three parallel lines", 3, lambda rng: lines(rng, 3))
    yield shape("moons and a blob", 3, lambda rng: np.concatenate([moons(rng, 0.06), [3.2, 0.2] + 0.15 * rng.normal(size=(400, 2))]))  # fmt: skip
    yield shape("three circles", 3, lambda rng: np.concatenate([circle(rng, 400 * i, float(i), 0.07) for i in (1, 2, 3)]))  # fmt: skip


def _overlap() -> Iterator[Table]:
    """Groups that touch, and groups of groups: several answers can be right."""
    for k, d, apart in ((2, 2, 3), (3, 2, 3.5), (4, 3, 3.5), (3, 6, 3), (2, 5, 3.5)):
        table = _k(k, d, apart, "", "ambiguous")
        yield Table(**{**table.__dict__, "ambiguous": True})

    def nested(outer: int, inner: int, d: int, far: float, near: float) -> Callable[[int], np.ndarray]:
        def draw(seed: int) -> np.ndarray:
            rng = np.random.default_rng([seed, outer, inner])
            middles = centres(outer, d, far, rng)
            points = np.concatenate([m + centres(inner, d, near, rng) for m in middles])
            return points[members(1500, np.ones(len(points)), rng)] + rng.normal(size=(1500, d))

        return draw

    yield Table("2 groups of 3", "ambiguous", (2, 6), nested(2, 3, 3, 40, 6), ambiguous=True)
    yield Table("3 groups of 2", "ambiguous", (3, 6), nested(3, 2, 4, 30, 6), ambiguous=True)
    yield Table("2 groups of 2, little apart", "ambiguous", (2, 4), nested(2, 2, 3, 16, 4), ambiguous=True)


def _real() -> Iterator[Table]:
    """scikit-learn's own tables; one draw each, a seed picks nine rows in ten."""
    from sklearn import datasets

    for name, truth, ambiguous in (("iris", (2, 3), True), ("wine", (3,), False), ("breast_cancer", (2,), True), ("digits", (10,), True)):  # fmt: skip

        def draw(seed: int, name: str = name) -> np.ndarray:
            X = getattr(datasets, f"load_{name}")().data
            return X[np.random.default_rng([seed, 3]).permutation(len(X))[: round(0.9 * len(X))]]

        yield Table(name.replace("_", " "), "real", truth, draw, ambiguous=ambiguous)
