"""What a job is asked beyond its scores: DBCV by brute force, requests in the configuration, files and metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn.datasets import make_blobs

from gpuclust.compose import compose, plan
from gpuclust.errors import ConfigurationError
from gpuclust.metrics.dbcv import core_distances, dbcv
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline import summary, sweep
from gpuclust.pipeline.context import make_job
from tests.known_answers import groups, moons

QUICK = ["data.n_rows=400", "report=none", "cluster.n_clusters=3", "cluster.n_init=1"]


def dbcv_by_hand(X: np.ndarray, labels: np.ndarray) -> float:
    """Moulavi et al. (2014), definitions 1 to 9, with whole matrices and SciPy's spanning tree."""
    X = X.astype(np.float64)
    d = X.shape[1]
    clusters = [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
    cores, inner, sparseness = [], [], []
    for rows in clusters:
        distance = cdist(X[rows], X[rows])
        with np.errstate(divide="ignore"):
            powers = np.where(np.eye(len(rows), dtype=bool), 0.0, (1 / distance) ** d)
        core = (powers.sum(axis=1) / (len(rows) - 1)) ** (-1 / d)
        reach = np.maximum(distance, np.maximum(core[:, None], core[None]))
        np.fill_diagonal(reach, 0)
        # Ranked by reachability, then by distance: one tree is minimal.
        ranks = np.empty(reach.size)
        ranks[np.lexsort((distance.ravel(), reach.ravel()))] = np.arange(1, reach.size + 1)
        ranks = np.triu(ranks.reshape(reach.shape), 1)
        a, b = np.nonzero(minimum_spanning_tree(ranks).toarray())
        degree = np.bincount(np.concatenate([a, b]), minlength=len(rows))
        internal = degree > 1
        sparseness.append(reach[a, b][internal[a] & internal[b]].max())
        cores.append(core)
        inner.append(np.flatnonzero(internal))
    total = 0.0
    for i, rows in enumerate(clusters):
        separation = np.inf
        for j, others in enumerate(clusters):
            if i != j:
                mine, theirs = inner[i], inner[j]
                reach = np.maximum(
                    cdist(X[rows[mine]], X[others[theirs]]), np.maximum(cores[i][mine][:, None], cores[j][theirs][None])
                )
                separation = min(separation, reach.min())
        total += len(rows) / len(labels) * (separation - sparseness[i]) / max(separation, sparseness[i])
    return total


@pytest.mark.parametrize(("seed", "n_columns"), [(0, 2), (1, 3), (2, 8)])
def test_dbcv_is_its_definition(seed: int, n_columns: int) -> None:
    X = groups(3, n_columns=n_columns, n_rows=200, seed=seed)
    rng = np.random.default_rng(seed)
    for labels in (
        rng.integers(-1, 3, 200),
        (X[:, 0] > 0).astype(int),
        np.where(X[:, 1] > 1, -1, (X[:, 0] > 0).astype(int)),
    ):
        # The same float64 distances; sums of powers in another order.
        assert dbcv(X, labels) == pytest.approx(dbcv_by_hand(X, labels), abs=1e-9)


def test_dbcv_prefers_the_moons_to_their_halves() -> None:
    X = moons(0)[:1200]
    from sklearn.datasets import make_moons

    _, truth = make_moons(1200, noise=0.06, random_state=0)
    halves = (X[:, 0] > 0).astype(int)
    assert dbcv(X, truth) > dbcv(X, halves) + 0.3


def test_dbcv_of_repeated_rows_and_without_two_clusters() -> None:
    X = np.repeat([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]], 5, axis=0)
    labels = np.repeat([0, 1], 10)
    assert dbcv(X, labels) > 0.9
    assert np.isnan(dbcv(X, np.zeros(20, int)))
    assert core_distances(np.zeros((4, 2))).tolist() == [0.0] * 4
    # 200 dimensions: distance^-200 is out of range unless the sum is kept in logarithms.
    far = np.random.default_rng(0).normal(size=(50, 200))
    assert np.isfinite(core_distances(1e-3 * far)).all()


def ran(context: Any, *overrides: str) -> Any:
    p = plan([*QUICK, *overrides], multirun=True)
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    return context.recorder.runs[result.outcomes[0].run_id]


def test_stability_dbcv_and_an_outside_label_are_metrics_and_files(context: Any, quiet: Any) -> None:
    run = ran(context, "score.stability=3", "analysis.dbcv=true", "analysis.reference=genre", "report=default")
    wanted = {"stability_jaccard_min", "stability_jaccard_mean", "stability_ari_mean", "prediction_strength", "dbcv", "dbcv_rows",
              "reference_ami", "split_gain"}  # fmt: skip
    assert wanted <= run.metrics.keys()
    assert run.metrics["dbcv_rows"] == 400
    assert {"stability.json", "reference.json", "figures/stability.png"} <= run.files.keys()
    assert len(json.loads(run.files["stability.json"])["jaccard"]) == 3
    reference = json.loads(run.files["reference.json"])
    assert reference["least_coherent"] in (0, 1, 2)
    assert sum(g["size"] for g in reference["groups"]) == reference["n_values"]
    assert any("stability: 13 refits, about" in text for text in quiet.stages)


def test_nothing_of_it_is_done_unasked(context: Any) -> None:
    run = ran(context)
    assert not {"stability_jaccard_min", "dbcv", "reference_ami"} & run.metrics.keys()
    assert not {"stability.json", "reference.json", "noise.json"} & run.files.keys()


def test_the_noise_of_hdbscan_is_described(context: Any) -> None:
    p = plan(
        ["data.n_rows=400", "report=none", "cluster=hdbscan", "cluster.min_cluster_size=8", "cluster.min_samples=3"]
    )
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    run = context.recorder.runs[result.outcomes[0].run_id]
    described = json.loads(run.files["noise.json"])
    assert described["fraction"] == pytest.approx(run.metrics["noise_fraction"])
    assert sum(d["rows"] for d in described["destinations"].values()) == described["size"]


def test_an_outside_label_that_is_not_there_fails_before_anything_runs(context: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"analysis\.reference=mood: the table has no such column; it has "):
        ran(context, "analysis.reference=mood")
    assert not context.recorder.runs


def test_an_outside_label_needs_no_role_and_follows_the_rows_that_are_kept(context: Any, tmp_path: Path) -> None:
    X, kind = make_blobs(300, centers=3, random_state=1, cluster_std=0.3)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(topic=[f"topic {k}" for k in kind], note="same")
    frame.loc[::7, "a"] = np.nan  # dropped: the labels must not move
    frame.to_csv(tmp_path / "t.csv", index=False)
    p = plan(
        [
            f"data.path={tmp_path / 't.csv'}",
            "data=table",
            "cluster.n_clusters=3",
            "analysis.reference=topic",
            "report=none",
        ]
    )
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert result.outcomes[0].metrics["n_rows"] == 257
    assert result.outcomes[0].metrics["reference_ami"] == pytest.approx(1)


@pytest.mark.parametrize("other", ["score.stability=5", "analysis.dbcv=true", "analysis.reference=genre"])
def test_what_a_job_is_asked_changes_its_key(other: str) -> None:
    one, two = compose(QUICK), compose([*QUICK, other])
    assert make_job(one, "", {}, "cpu").key != make_job(two, "", {}, "cpu").key


@pytest.mark.parametrize("other", ["analysis.gap=5", "analysis.compare=false"])
def test_what_the_sweep_does_with_its_jobs_does_not(other: str) -> None:
    one, two = compose(QUICK), compose([*QUICK, other])
    assert make_job(one, "", {}, "cpu").key == make_job(two, "", {}, "cpu").key


def test_a_sweep_can_be_decided_by_stability(context: Any) -> None:
    p = plan(["data.n_rows=300", "report=none", "cluster.n_init=1", "score.stability=2", "sweep.metric=prediction_strength",
              "cluster.n_clusters=2,3,4"], multirun=True)  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert result.selection is not None
    assert result.selection.metric == "prediction_strength"
    assert result.chosen is not None
    assert result.chosen.metrics["prediction_strength"] == max(
        o.metrics["prediction_strength"] for o in result.outcomes
    )
    assert context.recorder.runs[result.parent].curves["curve/prediction_strength"].keys() == {2, 3, 4}


def test_finalists_that_were_resumed_are_computed_again_to_compare(context: Any) -> None:
    overrides = ["data.n_rows=400", "report=none", "cluster=kmeans,gmm", "cluster.n_clusters=2,3"]
    p = plan(overrides, multirun=True)
    first = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    p = plan(
        [*overrides, "sweep.name=again"], multirun=True
    )  # another sweep of the same jobs: the same one adds nothing
    again = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert all(o.resumed for o in again.outcomes)
    assert first.conclusion is not None
    assert again.conclusion is not None
    assert [c.to_dict() for c in again.conclusion.comparisons] == [c.to_dict() for c in first.conclusion.comparisons]
    assert len(again.conclusion.comparisons) == 1
    p = plan([*overrides, "analysis.compare=false", "sweep.name=without"], multirun=True)
    without = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert without.conclusion is not None
    assert without.conclusion.comparisons == ()


def test_a_sample_of_a_table_in_memory_is_taken_without_a_copy_of_all_its_features(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(compose(["data=catalogue", *QUICK]), "job", {}, "cpu")
    table = jobs.get_table(job, context)
    monkeypatch.setattr(summary, "feature_blocks", None)
    rows, raw = summary._sample(job, context)
    np.testing.assert_array_equal(raw, table.frame[list(table.features)].to_numpy()[rows])
