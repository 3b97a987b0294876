"""Rows that repeat: working on the distinct ones with weights gives what working on all of them gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuclust.algorithms.cluster import cluster
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.registry import FitInput, FitResult, algorithm_of
from gpuclust.compose import plan
from gpuclust.config import ScoreConfig
from gpuclust.metrics.silhouette import silhouettes
from gpuclust.metrics.silhouette.score import silhouette
from gpuclust.metrics.validity import score
from gpuclust.model.preparation import Preparation, Projection, Scaling
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline import sweep
from gpuclust.runtime import deduplicate as module
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.deduplicate import Distinct, distinct_rows, worth_deduplicating, worth_deduplicating_fits
from gpuclust.runtime.matrix import Matrix
from tests.fitting import fit_one

# Sums over the same rows in another order: n * eps of float64, with room for the iterations that carry it on.
ROUNDING = 1e-9


def repeated(
    n_rows: int, n_distinct: int, n_features: int, seed: int, dtype: Any = np.float64, *, skew: float = 1.0
) -> np.ndarray:
    """Rows of four clusters, each of them as often as Zipf's law says (alike with ``skew`` 0), in a random order."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, n_features)) * 4
    rows = centres[rng.integers(0, 4, n_distinct)] + rng.normal(size=(n_distinct, n_features))
    chances = np.arange(1, n_distinct + 1) ** -skew
    more = rng.choice(n_distinct, n_rows - n_distinct, p=chances / chances.sum())
    return np.ascontiguousarray(rows[rng.permutation(np.concatenate([np.arange(n_distinct), more]))], dtype)


def same_clustering(a: np.ndarray, b: np.ndarray) -> float:
    """The share of the rows in the same cluster; which of two equally good starts numbers them is up to rounding."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    assert len(set(table.argmax(axis=1))) == len(table), "each cluster has its own counterpart"
    return float(table.max(axis=1).sum() / len(a))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "n_distinct", "d"), [(1, 1, 1), (50, 1, 3), (500, 40, 2), (9_000, 3_000, 7), (64, 64, 40)]
)
def test_distinct_rows_are_those_of_numpy(n: int, n_distinct: int, d: int, dtype: Any, seed: int) -> None:
    X = repeated(n, n_distinct, d, seed, dtype)
    found = distinct_rows(X)
    rows, counts = np.unique(X, axis=0, return_counts=True)
    order = np.lexsort(found.X.T[::-1])
    assert np.array_equal(found.X[order], rows)
    assert np.array_equal(found.counts[order], counts)
    assert np.array_equal(found.X[found.inverse], X)
    assert np.array_equal(X[found.first], found.X)
    assert (np.diff(found.first) > 0).all(), "in the order of their first occurrences"


def test_two_rows_with_one_hash_are_still_two(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    X = repeated(2_000, 300, 3, seed)
    expected = distinct_rows(X)
    monkeypatch.setattr(module, "hash_rows", lambda columns, n_rows, zeros: np.arange(n_rows, dtype=np.uint64) % 7)
    found = distinct_rows(X)
    assert np.array_equal(found.X, expected.X)
    assert np.array_equal(found.inverse, expected.inverse)
    assert np.array_equal(found.counts, expected.counts)


def test_zero_and_minus_zero_are_one_row() -> None:
    X = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, -1.0]])
    assert distinct_rows(X).counts.tolist() == [2.0, 1.0]


def test_it_pays_from_a_tenth_of_repeats_on_in_tables_that_take_time() -> None:
    assert worth_deduplicating(9_000, 10_000)
    assert not worth_deduplicating(9_001, 10_000)
    assert not worth_deduplicating(100, 1_000)
    assert not worth_deduplicating(None, 10_000)


def test_fits_want_more_repeats_in_larger_tables() -> None:
    assert worth_deduplicating_fits(100_000, 200_000)
    assert not worth_deduplicating_fits(100_001, 200_000)
    assert not worth_deduplicating_fits(10_000, 199_999)
    assert not worth_deduplicating_fits(None, 10**6)


def test_a_job_fits_the_distinct_rows_of_a_large_table_with_many_repeats(seed: int) -> None:
    X = np.repeat(repeated(20_000, 20_000, 3, seed, np.float32), 10, axis=0)
    matrix = replace(prepared(X[:10]), X=X, n_distinct=20_000)
    (found,) = cluster(
        matrix, [KMeansConfig(n_clusters=4, n_init=1)], seed=seed, backend=CpuBackend(), cache=ResultCache()
    )
    assert not isinstance(found, Exception)
    assert any("fitted on 20,000 distinct rows of 200,000" in note for note in found.notes)
    assert found.sizes.sum() == len(X), "sizes count rows, not distinct rows"


def prepared(X: np.ndarray) -> Matrix:
    """A matrix whose table was found to repeat its rows as X does."""
    n = X.shape[1]
    projection = Projection(np.zeros(n), np.eye(n), np.ones(n), np.full(n, 1 / n), np.ones(n))
    scaling = Scaling("none", np.zeros(n), np.ones(n))
    preparation = Preparation(tuple(f"f{j}" for j in range(n)), scaling, None, projection, str(X.dtype))
    return Matrix(X, np.zeros((len(X), 3), np.float32), preparation, "matrix-test", 0.0, len(np.unique(X, axis=0)))


def both_ways(X: np.ndarray, request: Any, seed: int) -> tuple[FitResult, FitResult]:
    """A fit of the distinct rows, and one of all."""
    backend, rows = CpuBackend(), distinct_rows(X)

    def fit(distinct: Distinct | None) -> FitResult:
        data = FitInput(X, seed, backend, ResultCache(0), "test", distinct)
        return algorithm_of(request).fitter("cpu")(data, [request])[0]

    once, all_rows = fit(rows), fit(None)
    assert any(f"fitted on {len(rows.X):,} distinct rows of {len(X):,}" in note for note in once.notes)
    assert all_rows.notes == once.notes[:-1]
    return once, all_rows


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, ROUNDING), (np.float32, 1e-6)])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_kmeans_is_that_of_all_rows(k: int, dtype: Any, tolerance: float, seed: int) -> None:
    X = repeated(30_000, 2_500, 6, seed, dtype)
    once, all_rows = both_ways(X, KMeansConfig(n_clusters=k, n_init=3, engine="fused"), seed)
    # The same starts, the same iterations: their sums are rounded differently, in float32 tiles more than in float64.
    assert once.metrics["inertia"] == pytest.approx(all_rows.metrics["inertia"], rel=tolerance)
    np.testing.assert_allclose(once.parameters["centers"], all_rows.parameters["centers"], rtol=0, atol=1e3 * tolerance)
    assert same_clustering(once.labels, all_rows.labels) > 0.9999
    assert once.distance is not None
    assert once.labels.shape == once.confidence.shape == once.distance.shape == (len(X),)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, ROUNDING), (np.float32, 1e-4)])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixtures_are_those_of_all_rows(kind: str, dtype: Any, tolerance: float, seed: int) -> None:
    X = repeated(
        20_000, 2_500, 4, seed, dtype, skew=0.0
    )  # a component on one row that fills a tenth is ill-conditioned
    # As many iterations on both sides: where a start stops by tol is up to rounding.
    once, all_rows = both_ways(X, GmmConfig(n_clusters=4, covariance_type=kind, n_init=2, tol=0.0, max_iter=20), seed)
    for name in ("log_likelihood", "bic", "aic", "icl"):
        # In float32 the passes round each row's terms in blocks of other rows, so the iterations end a little apart.
        assert once.metrics[name] == pytest.approx(all_rows.metrics[name], rel=tolerance), name
    free = {"full": 3 + 16 + 4 * 10, "tied": 3 + 16 + 10, "diag": 3 + 16 + 16, "spherical": 3 + 16 + 4}[kind]
    bic = -2 * once.metrics["log_likelihood"] + free * np.log(len(X))
    assert once.metrics["bic"] == pytest.approx(bic, rel=1e-12), "n in BIC is the number of rows"
    assert same_clustering(once.labels, all_rows.labels) > 0.999


@pytest.mark.parametrize("start", ["random", "k-means++", "random_from_data"])
def test_mixtures_that_draw_a_number_for_each_row_start_from_all_rows(start: str, seed: int) -> None:
    X = repeated(6_000, 600, 3, seed)
    request = GmmConfig(n_clusters=2, init_params=start, max_iter=5)
    once, all_rows = (fit_one(X, request, seed=seed, distinct=d) for d in (distinct_rows(X), None))
    assert once.metrics == all_rows.metrics
    assert not any("distinct rows" in note for note in once.notes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silhouettes_are_those_of_all_rows(dtype: Any, seed: int) -> None:
    X = repeated(12_000, 1_500, 5, seed, dtype)
    rows = distinct_rows(X)
    rng = np.random.default_rng(seed)
    labelings = [rng.integers(-1, k, len(rows.X))[rows.inverse].astype(np.int32) for k in (2, 3, 9)]
    once = silhouettes(X, labelings, backend=CpuBackend(), rows=None, distinct=rows)
    for found, expected in zip(once, silhouette(X, labelings), strict=True):
        # Distances are the same numbers; in float32 they are added up RUN at a time before float64 takes over.
        assert found.score == pytest.approx(expected.score, abs=1e-9 if dtype == np.float64 else 1e-6)
        assert found.standard_error == 0.0


def test_labels_that_part_equal_rows_are_scored_on_all_rows(seed: int) -> None:
    X = repeated(6_000, 900, 4, seed)
    matrix = prepared(X)
    (whole,) = cluster(
        matrix, [KMeansConfig(n_clusters=3, n_init=1)], seed=seed, backend=CpuBackend(), cache=ResultCache()
    )
    assert not isinstance(whole, Exception)
    labels = np.random.default_rng(seed).integers(0, 3, len(X)).astype(np.int32)
    parted = replace(whole, labels=labels)
    assert matrix.distinct is not None
    assert not matrix.distinct.repeats(labels)
    for clustering, noted in ((whole, True), (parted, False)):
        (scores,) = score(matrix, [clustering], ScoreConfig(), seed=seed, backend=CpuBackend())
        assert any("silhouette on 900 distinct rows of 6,000" in note for note in scores.notes) is noted
        (expected,) = silhouette(X, [clustering.labels])
        assert scores.metrics["silhouette"] == pytest.approx(expected.score, abs=1e-9)


def test_sampled_silhouettes_stay_on_the_rows(seed: int) -> None:
    X = repeated(3_000, 500, 4, seed)
    rows = distinct_rows(X)
    labels = (rows.X[:, 0] > 0).astype(np.int32)[rows.inverse]
    sample = np.arange(0, len(X), 7)
    assert silhouettes(X, [labels], backend=CpuBackend(), rows=sample, distinct=rows) == silhouette(
        X, [labels], rows=sample
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each matrix whose distinct rows were looked for."""
    from gpuclust.runtime import matrix

    calls: list[int] = []
    monkeypatch.setattr(matrix, "distinct_rows", lambda X: calls.append(len(X)) or distinct_rows(X))
    return calls


@pytest.fixture
def table(tmp_path: Path, seed: int) -> Path:
    """A CSV whose rows come four times each."""
    X = repeated(8_000, 2_000, 3, seed)
    path = tmp_path / "rows.csv"
    lines = [f"{i},{a:.4f},{b:.4f},{c:.4f}" for i, (a, b, c) in enumerate(X)]
    path.write_text("\n".join(["id,a,b,c", *lines]) + "\n")
    return path


def test_a_sweep_finds_them_once_and_says_so(context: Any, table: Path, counted: list[int]) -> None:
    p = plan(["data=table", f"data.path={table}", "report=none", "cluster=kmeans,gmm", "cluster.n_clusters=2,3,4"],
             multirun=True)  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert counted == [8_000]
    for outcome in result.outcomes:
        run = context.recorder.runs[outcome.run_id]
        assert run.metrics["n_rows"] == 8_000
        assert "silhouette on 2,000 distinct rows of 8,000" in run.tags["gpuclust.notes"]


def test_a_table_without_repeats_is_not_searched(context: Any, counted: list[int]) -> None:
    p = plan(["data.n_rows=6000", "report=none", "cluster.n_init=1", "cluster.n_clusters=2,3"], multirun=True)
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert not result.failed
    assert counted == []


def test_a_projection_that_tells_equal_rows_apart_changes_nothing(context: Any, table: Path) -> None:
    overrides = [
        "data=table",
        f"data.path={table}",
        "report=none",
        "cluster=kmeans",
        "reduce=pca",
        "reduce.n_components=2",
    ]
    (outcome,) = sweep.run(p := plan(overrides), sweep.jobs_of(p, context.backend), context).outcomes
    job = outcome.job
    matrix = jobs.get_matrix(job, context)
    (plain,) = cluster(replace(matrix, n_distinct=None), [job.config.cluster], seed=job.config.seed,
                       backend=context.backend, cache=ResultCache())  # fmt: skip
    assert outcome.metrics["inertia"] == pytest.approx(plain.metrics["inertia"], rel=ROUNDING)


@pytest.mark.real
def test_real_tracks_give_the_same_either_way(tracks_114k: np.ndarray, seed: int) -> None:
    rows = distinct_rows(tracks_114k)
    assert len(rows.X) < 0.8 * len(tracks_114k)
    once, all_rows = both_ways(tracks_114k, KMeansConfig(n_clusters=6, n_init=2), seed)
    assert once.metrics["inertia"] == pytest.approx(all_rows.metrics["inertia"], rel=ROUNDING)
    assert same_clustering(once.labels, all_rows.labels) > 0.9999
    mixture, of_all = both_ways(tracks_114k, GmmConfig(n_clusters=3, covariance_type="full"), seed)
    for name in ("log_likelihood", "bic"):
        # Some hundred iterations carry the rounding on before the mean log-likelihood moves less than tol = 1e-3.
        assert mixture.metrics[name] == pytest.approx(of_all.metrics[name], rel=1e-8), name
    (found,) = silhouettes(tracks_114k, [once.labels], backend=CpuBackend(), rows=None, distinct=rows)
    (expected,) = silhouette(tracks_114k, [once.labels])
    assert found.score == pytest.approx(expected.score, abs=1e-9)


@pytest.mark.real
def test_hdbscan_of_real_tracks_is_scored_the_same(tracks_114k: np.ndarray, seed: int) -> None:
    X = tracks_114k[:20_000]
    matrix = prepared(X)
    (found,) = cluster(
        matrix, [HdbscanConfig(min_cluster_size=200)], seed=seed, backend=CpuBackend(), cache=ResultCache()
    )
    assert not isinstance(found, Exception)
    labels = np.where(found.labels < 0, found.n_clusters, found.labels).astype(np.int32)
    (once,) = silhouettes(X, [labels], backend=CpuBackend(), rows=None, distinct=matrix.distinct)
    (expected,) = silhouette(X, [labels])
    assert once.score == pytest.approx(expected.score, abs=1e-9)


@pytest.fixture(scope="session")
def tracks_114k(real_data: Path) -> np.ndarray:
    """Standardised features of all 114,000 rows, of which 89,741 tracks are different: (114000, 11) float64."""
    import pandas as pd

    from tests.conftest import ELEVEN

    raw = pd.read_csv(real_data / "tracks_114k.csv", usecols=list(ELEVEN))[list(ELEVEN)].to_numpy(np.float64)
    return (raw - raw.mean(axis=0)) / raw.std(axis=0)
