"""Which run `best`, a metric, a condition or a sweep's id means, through a real MLflow store of several tables and spaces."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.choice import Condition, conditions, find
from gpuclust.cli import main
from gpuclust.compose import plan
from gpuclust.config import choosing_metrics
from gpuclust.errors import ConfigurationError, ExportError
from gpuclust.pipeline import sweep
from gpuclust.pipeline.sweep_result import leaderboard
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.conftest import Quiet


def blobs(path: Path, k: int, seed: int, n: int = 240) -> Path:
    """A table of k groups in three features, one of them in a unit a million times as large."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(size=(k, 3))
    frame = pd.DataFrame(centres[np.arange(n) % k] + rng.normal(size=(n, 3)), columns=["a", "b", "c"])
    frame["c"] *= 1e6
    frame["kind"] = np.where(np.arange(n) % k < k // 2, "x", "y")
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def store(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with, in this order: a sweep and a better scoring one of two tables, and single jobs prepared otherwise."""
    folder = tmp_path_factory.mktemp("choice")
    (folder / "mlflow.db").write_bytes(store_template.read_bytes())
    easy, hard = blobs(folder / "easy.csv", 3, seed=1), blobs(folder / "hard.csv", 6, seed=2)
    run(folder, easy, "cluster.n_clusters=2,3,4", multirun=True)
    run(folder, hard, "cluster=kmeans,gmm", "cluster.n_clusters=2,3,4,5", multirun=True)
    run(folder, hard, "cluster.n_clusters=7")
    run(folder, hard, "cluster.n_clusters=2", "scale=none")
    run(folder, hard, "cluster.n_clusters=2", "data.features=[a,b]")
    run(folder, hard, "cluster=hdbscan", "cluster.min_cluster_size=10")
    return folder


def run(folder: Path, path: Path, *overrides: str, multirun: bool = False) -> sweep.SweepResult:
    from gpuclust.pipeline.context import RunContext
    from gpuclust.runtime.backend import BackendChoice
    from gpuclust.runtime.cache import ResultCache
    from gpuclust.runtime.cpu import CpuBackend

    context: Any = RunContext(
        CpuBackend(), BackendChoice("cpu", "a test"), ResultCache(), opened(folder), Quiet(), "gpuclust test"
    )
    features = [] if any("features" in o for o in overrides) else ["data.features=[a,b,c]"]
    p = plan(
        ["data=table", f"data.path={path}", "data.roles.group=kind", "report=none", "tracking.models=none", *features,
         *overrides], multirun=multirun,
    )  # fmt: skip
    return sweep.run(p, sweep.jobs_of(p, context.backend), context)


def opened(folder: Path) -> MlflowRecorder:
    return MlflowRecorder(f"sqlite:///{folder / 'mlflow.db'}", "e")


def where(*texts: str) -> tuple[Condition, ...]:
    return conditions(texts)


def test_best_is_the_choice_of_the_latest_sweep_and_says_that_a_later_job_is_not_part_of_it(store: Path) -> None:
    found = find(opened(store), "best")
    assert found.sweep is not None
    latest = opened(store).job(found.sweep)
    assert latest is not None
    assert found.run.run_id == latest.tags[tags.SELECTED_RUN]
    assert "choice of the sweep" in found.notes[0]
    assert "ran after that sweep" in found.notes[1]


def test_a_metric_compares_only_runs_of_the_same_table_and_preparation(store: Path) -> None:
    """The easy table, raw scale and two features all score better than what the latest sweep clustered."""
    recorder = opened(store)
    chosen = find(recorder, "best").run
    found = find(recorder, "best", "silhouette")
    everything = {job.run_id: job.metrics["silhouette_with_noise"] for job in recorder.jobs()}
    alike = [job for job in recorder.jobs() if job.tags[tags.MATRIX_KEY] == chosen.tags[tags.MATRIX_KEY]]
    assert len(alike) == 10
    assert everything[found.run.run_id] == max(job.metrics["silhouette_with_noise"] for job in alike)
    assert max(everything.values()) > everything[found.run.run_id]
    said = " ".join(found.notes)
    assert "of 10 runs" in said
    assert "3 of another table" in said
    assert "2 prepared otherwise" in said
    by_bic = find(recorder, "best", "bic")
    assert by_bic.run.params["cluster.name"] == "gmm"
    assert "6 without bic" in " ".join(by_bic.notes)


def test_runs_of_an_older_version_are_compared_by_their_configuration(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = opened(store)
    expected = find(recorder, "best", "silhouette")
    jobs, job = MlflowRecorder.jobs, MlflowRecorder.job

    def untagged(found: Any) -> Any:
        kept = {k: v for k, v in found.tags.items() if k not in (tags.MATRIX_KEY, tags.SELECTION_METRIC)}
        return dataclasses.replace(found, tags=kept)

    monkeypatch.setattr(MlflowRecorder, "jobs", lambda self: (untagged(found) for found in jobs(self)))
    monkeypatch.setattr(MlflowRecorder, "job", lambda self, run_id: untagged(job(self, run_id)))
    found = find(recorder, "best", "silhouette")
    assert (found.run.run_id, found.notes) == (expected.run.run_id, expected.notes)


def test_a_run_is_picked_by_hand(store: Path) -> None:
    recorder = opened(store)
    assert find(recorder, "best", where=where("n_clusters=4", "cluster=kmeans")).run.name == "kmeans k=4"
    assert find(recorder, "best", where=where("n_clusters=4,cluster=gmm")).run.name == "gmm k=4"
    assert find(recorder, "best", where=where("cluster.n_clusters=7")).run.name == "kmeans k=7"
    dense = find(recorder, "best", where=where("cluster=hdbscan"))
    n_found = int(dense.run.metrics["n_clusters"])
    assert (
        find(recorder, "best", where=where(f"n_clusters={n_found}", "cluster=hdbscan")).run.run_id == dense.run.run_id
    )
    several = find(recorder, "best", where=where("n_clusters=3"))
    both = [find(recorder, "best", where=where("n_clusters=3", f"cluster={a}")).run for a in ("kmeans", "gmm")]
    assert several.run.metrics["silhouette"] == max(job.metrics["silhouette"] for job in both)
    assert several.sweep == find(recorder, "best").sweep
    assert find(recorder, "best", "davies_bouldin", where("cluster=gmm")).run.params["cluster.name"] == "gmm"
    few = find(recorder, "best", where=where("cluster=kmeans,n_clusters>=4,n_clusters<6"))
    assert few.run.name in ("kmeans k=4", "kmeans k=5")
    assert few.notes[0].endswith("of 2 runs with cluster=kmeans, n_clusters>=4, n_clusters<6")
    in_sweep = find(recorder, str(several.sweep), where=where("n_clusters=2", "cluster=gmm"))
    assert in_sweep.run.name == "gmm k=2"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["n_clusters=12"], r"--where n_clusters=12 matches none of 10 runs; n_clusters is 2, 3, 4, 5, .*7"),
        (["cluster=kmean"], r"cluster is gmm, hdbscan, kmeans"),
        (["n_cluster=3"], r"no run has a parameter or a metric n_cluster; did you mean n_clusters"),
        (["scale=none"], r"scale is standard \(not compared: 3 of another table; 2 prepared otherwise"),
    ],
)
def test_what_matches_nothing_lists_what_there_is(store: Path, texts: list[str], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        find(opened(store), "best", where=where(*texts))


def test_conditions_are_read(store: Path) -> None:
    assert where("a=1,b=2", "data.features=[x,y]") == (
        Condition("a", "1"),
        Condition("b", "2"),
        Condition("data.features", "[x,y]"),
    )
    for wrong in ("a", "=1", "a="):
        with pytest.raises(ConfigurationError, match="is not KEY=VALUE"):
            where(wrong)
    with pytest.raises(ConfigurationError, match="< needs a number, as in --where 'noise_fraction<"):
        where("noise_fraction<little")
    with pytest.raises(ConfigurationError, match="give them with best"):
        find(opened(store), find(opened(store), "best").run.run_id, "silhouette")


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("inertia", "it falls with every further cluster, so it always takes the most clusters"),
        ("log_likelihood", "it always takes the largest mixture"),
        ("n_rows", "cannot choose a job"),
    ],
)
def test_a_metric_without_a_best_is_refused_before_anything_runs(
    metric: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["export", "best", "--metric", metric, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert ", ".join(choosing_metrics()) in said
    if metric != "n_rows":
        assert main(["-m", "data=catalogue", "cluster.n_clusters=2,3", f"sweep.metric={metric}"]) == 2
        assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweep_over_scales_names_the_best_of_each_and_chooses_none(store_template: Path, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(store_template.read_bytes())
    path = blobs(tmp_path / "t.csv", 4, seed=3)
    result = run(tmp_path, path, "scale=none,standard", "cluster.n_clusters=3,4", multirun=True)
    assert result.selection is None
    assert result.chosen is None
    recorder = opened(tmp_path)
    assert result.parent is not None
    assert not [job for job in recorder.children(result.parent) if job.tags.get(tags.SELECTED) == "true"]
    parent = recorder.job(result.parent)
    assert parent is not None
    reason = parent.tags[tags.SELECTION_REASON]
    assert "scale=none" in reason
    assert "scale=standard" in reason
    assert "cannot be compared" in reason
    rows = leaderboard(result)
    assert [row["space"] for row in rows] == ["scale=none"] * 2 + ["scale=standard"] * 2
    assert [row["rank"] for row in rows] == [1, 2, 1, 2]
    with pytest.raises(ExportError, match="cannot be compared") as error:
        find(recorder, "best")
    assert "--where scale=" in str(error.value)
    with pytest.raises(ExportError, match="cannot be compared"):
        find(recorder, "best", "silhouette")
    with pytest.raises(ExportError, match="cannot be compared"):
        find(recorder, "best", where=where("n_clusters=4"))
    picked = find(recorder, "best", where=where("scale=standard"))
    best = max(
        (o for o in result.outcomes if o.job.swept["scale"] == "standard"), key=lambda o: o.metrics["silhouette"]
    )
    assert picked.run.run_id == best.run_id
    assert picked.sweep == result.parent


@pytest.mark.parametrize("swept", [["reduce=pca", "reduce.n_components=1,2"], ["data.features=[a],[a,b]"],
                                   ["dtype=float32,float64"], ["clean.nulls=drop,median"], ["data.n_rows=100,200"]])  # fmt: skip
def test_other_spaces_are_not_ranked_either(context: Any, tmp_path: Path, swept: list[str]) -> None:
    path = blobs(tmp_path / "t.csv", 4, seed=3)
    p = plan(["data=table", f"data.path={path}", "report=none", "cluster.n_clusters=3", *swept], multirun=True)
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert len(result.outcomes) == 2
    assert result.chosen is None
    assert result.conclusion is not None
    assert result.conclusion.unranked is not None
    assert len(result.conclusion.unranked.best) == 2


def test_seeds_share_a_space(context: Any, tmp_path: Path) -> None:
    path = blobs(tmp_path / "t.csv", 4, seed=3)
    p = plan(["data=table", f"data.path={path}", "report=none", "cluster.n_clusters=3", "cluster.init=random",
              "cluster.n_init=1", "seed=0,1,2"], multirun=True)  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert result.chosen is not None
    assert result.chosen.metrics["silhouette"] == max(o.metrics["silhouette"] for o in result.outcomes)


@pytest.mark.parametrize(
    ("measure", "metric"),
    [("analysis.reference=kind", "reference_ami"), ("score=stability", "prediction_strength")],
)
def test_spaces_are_ranked_by_what_can_be_compared(context: Any, tmp_path: Path, measure: str, metric: str) -> None:
    path = blobs(tmp_path / "t.csv", 4, seed=3)
    p = plan(["data=table", f"data.path={path}", "report=none", "data.features=[a,b,c]", "data.roles.group=kind",
              measure, *(["score.stability=5"] if "stability" in measure else []),
              "scale=none,standard", "cluster.n_clusters=2,3,4"], multirun=True)  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert result.selection is not None
    assert result.selection.metric == metric
    assert result.chosen is not None
    by_space: dict[str, Any] = {}
    for o in result.outcomes:
        best = by_space.setdefault(o.job.space, o)
        if o.metrics["silhouette"] > best.metrics["silhouette"]:
            by_space[o.job.space] = o
    expected = max(by_space.values(), key=lambda o: o.metrics[metric])
    assert result.chosen.job == expected.job
    assert "cannot be compared" in result.selection.reason
    assert leaderboard(result)[0]["chosen"]
