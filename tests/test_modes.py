"""Modes of density and the dip: none by chance on one cloud, all of them on separated groups; against independent definitions."""

from collections.abc import Callable

import numpy as np
import pytest

from gpuclust.analysis.dip import dip
from gpuclust.analysis.modes import find_modes
from gpuclust.analysis.structure import (
    discrete_columns,
    find_structure,
    invariant_coordinates,
    leading_components,
    sampled_rows,
    spread_steps,
)
from tests.known_answers import groups, moons

Draw = Callable[[np.random.Generator, int], np.ndarray]


def ring(rng: np.random.Generator, n: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.08 * rng.normal(size=(n, 2))


CLOUDS: dict[str, Draw] = {
    "uniform, 1 column": lambda rng, n: rng.uniform(size=(n, 1)),
    "normal, 1 column": lambda rng, n: rng.normal(size=(n, 1)),
    "uniform, 2 columns": lambda rng, n: rng.uniform(size=(n, 2)),
    "uniform, 5 columns": lambda rng, n: rng.uniform(size=(n, 5)),
    "normal, 3 columns": lambda rng, n: rng.normal(size=(n, 3)),
    "Student t2, 2 columns": lambda rng, n: rng.standard_t(2, size=(n, 2)),
    "lognormal, 2 columns": lambda rng, n: np.exp(rng.normal(size=(n, 2))),
    "ring": ring,
}


@pytest.mark.parametrize("n", [200, 1200, 4000])
@pytest.mark.parametrize("name", CLOUDS)
def test_one_cloud_has_one_mode(name: str, n: int) -> None:
    for seed in range(3):
        found = find_modes(CLOUDS[name](np.random.default_rng(seed), n))
        assert found.n_modes == 1, (name, n, seed, found.prominence)
        assert np.isinf(found.prominence).all()


@pytest.mark.parametrize("k", [2, 5, 9])
def test_separated_groups_are_modes(k: int) -> None:
    X = groups(k, n_columns=3, n_rows=150 * k, seed=k, apart=7.0).astype(np.float64)
    found = find_modes(X)
    assert found.n_modes == k
    assert (found.labels >= 0).mean() > 0.99


def test_modes_follow_curves() -> None:
    found = find_modes(moons(0).astype(np.float64))
    assert found.n_modes == 2


def test_few_rows_in_the_flank_of_a_cloud_are_no_mode_unless_they_stand_apart() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(3000, 2))
    bump = 0.25 * rng.normal(size=(60, 2)) + [2.6, 0]
    away = bump + np.array([5, 0])
    assert find_modes(np.concatenate([cloud, bump])).n_modes == 1
    assert find_modes(np.concatenate([cloud, away])).n_modes == 2


def dip_by_linear_programs(x: np.ndarray) -> float:
    """The definition: for each place of the mode, the nearest distribution that is convex before it and concave after it."""
    from scipy.optimize import linprog

    x = np.sort(x)
    n = len(x)
    best = np.inf
    for mode in range(n):
        # Variables: F(x_0) .. F(x_n-1), the left limit at the mode, and the distance t.
        rows: list[np.ndarray] = []
        bounds: list[float] = []

        def add(terms: list[tuple[int, float]], bound: float, rows: list[np.ndarray] = rows, bounds: list[float] = bounds) -> None:  # fmt: skip
            row = np.zeros(n + 2)
            for column, factor in terms:
                row[column] += factor
            rows.append(row)
            bounds.append(bound)

        def left(i: int, mode: int = mode) -> int:
            return n if i == mode else i

        for i in range(n):
            for column, value in ((i, (i + 1) / n), (left(i), i / n)):
                add([(column, 1.0), (n + 1, -1.0)], value)
                add([(column, -1.0), (n + 1, -1.0)], -value)
        for i in range(1, n):  # the distribution function never falls
            add([(i - 1, 1.0), (left(i), -1.0)], 0.0)
        add([(n, 1.0), (mode, -1.0)], 0.0)
        for i in range(1, n - 1):
            before, after = x[i] - x[i - 1], x[i + 1] - x[i]
            if i < mode:
                add([(i, 1 / before + 1 / after), (i - 1, -1 / before), (left(i + 1), -1 / after)], 0.0)
            if i > mode:
                add([(i, -1 / before - 1 / after), (i - 1, 1 / before), (i + 1, 1 / after)], 0.0)
        cost = np.zeros(n + 2)
        cost[-1] = 1.0
        solved = linprog(cost, A_ub=np.array(rows), b_ub=np.array(bounds), bounds=[(0, 1)] * (n + 1) + [(0, None)])
        best = min(best, float(solved.fun))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_dip_is_the_distance_to_the_nearest_unimodal_distribution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 16))
    x = np.concatenate([rng.normal(size=n // 2), rng.normal(3 * (seed % 3), 1, n - n // 2)])
    assert dip(x) == pytest.approx(dip_by_linear_programs(x), abs=1e-7)


def test_the_dip_does_not_depend_on_sign_and_scale() -> None:
    x = np.random.default_rng(1).uniform(size=200) ** 2
    assert dip(-3 * x + 7) == pytest.approx(dip(x), abs=1e-12)


def test_dips_of_uniform_one_moded_and_two_moded_samples() -> None:
    # 0.6 is the 0.99 quantile of dip x sqrt(n) over uniform samples; 2,000 draws place it within about 0.015.
    rng = np.random.default_rng(0)
    drawn = [dip(rng.uniform(size=150)) * np.sqrt(150) for _ in range(2000)]
    assert float(np.quantile(drawn, 0.99)) == pytest.approx(0.6, abs=0.03)
    assert dip(rng.normal(size=500)) * np.sqrt(500) < 0.6
    assert dip(np.concatenate([rng.normal(size=250), rng.normal(5, 1, 250)])) * np.sqrt(500) > 0.6


def test_steps_of_a_scale_are_spread_and_its_moments_stay() -> None:
    rng = np.random.default_rng(0)
    raw = np.column_stack([rng.normal(size=1000), rng.integers(1, 6, 1000)])
    spread, kept = spread_steps(raw, np.random.default_rng(1))
    assert discrete_columns(raw) == [1]
    assert len(kept) == 1000
    np.testing.assert_array_equal(spread[:, 0], raw[:, 0])
    assert len(np.unique(spread[:, 1])) == 1000
    assert spread[:, 1].mean() == pytest.approx(raw[:, 1].mean())
    assert spread[:, 1].std() == pytest.approx(raw[:, 1].std())


def test_equal_rows_count_once() -> None:
    X = np.repeat(groups(3, n_columns=2, n_rows=200, seed=0).astype(np.float64), 5, axis=0)
    found = find_structure(X, seed=0)
    assert found is not None
    assert len(found.rows) == 200
    assert found.n_groups == 3


@pytest.mark.parametrize("n_columns", [10, 40, 80, 160, 384])
def test_wide_groups_show_in_their_leading_components(n_columns: int) -> None:
    X = groups(6, n_columns=n_columns, n_rows=1500, seed=0, apart=12.0).astype(np.float64)
    found = find_structure(X, seed=0)
    assert found is not None
    assert found.n_groups == 6
    assert find_structure(np.random.default_rng(0).normal(size=(1500, n_columns)), seed=0).n_groups == 1  # type: ignore[union-attr]


def test_components_and_directions_are_those_of_the_groups() -> None:
    rng = np.random.default_rng(0)
    X = groups(4, n_columns=3, n_rows=1500, seed=0).astype(np.float64)
    wide = np.column_stack([X, rng.normal(size=(1500, 9))])
    assert 1 <= invariant_coordinates(wide, rng).shape[1] <= 4
    assert leading_components(rng.normal(size=(2000, 20)), rng).shape[1] <= 1
    nuisance = find_structure(wide, seed=0)
    assert nuisance is not None
    assert nuisance.n_groups == 4


def test_a_discrete_column_in_noise_is_no_structure() -> None:
    rng = np.random.default_rng(0)
    for values in (2, 3, 5):
        X = np.column_stack([rng.normal(size=(2000, 4)), rng.integers(0, values, 2000)])
        found = find_structure(X, seed=0)
        assert found is not None
        assert found.n_groups == 1


def test_large_tables_are_sampled_and_few_rows_are_not_judged() -> None:
    assert len(sampled_rows(1_000_000, 10, 0)) == 4000
    assert len(sampled_rows(100_000, 5000, 0)) == 1000
    X = np.random.default_rng(0).normal(size=(30, 2))
    assert find_structure(X, seed=0) is None
    big = np.tile(groups(3, n_columns=2, n_rows=3000, seed=0).astype(np.float64), (5, 1))
    big += 0.01 * np.random.default_rng(1).normal(size=big.shape)
    found = find_structure(big, seed=0)
    assert found is not None
    assert (found.n_groups, len(found.rows)) == (3, 4000)
    assert found.rows.max() < len(big)
