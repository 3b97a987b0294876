"""Sweeps: pay once, resume, go on past a failure, choose with a reason, and end cleanly when interrupted."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.algorithms.hdbscan import cpu as hdbscan_cpu
from gpuclust.algorithms.hdbscan import default_min_cluster_size
from gpuclust.compose import Plan, plan
from gpuclust.errors import CleaningError, DataError, StoreUnavailable
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline import sweep
from gpuclust.pipeline.context import Outcome, about, git_commit, make_job
from gpuclust.pipeline.curves import Point, curve_point, curves_by_axis, job_name, sweep_name
from gpuclust.pipeline.sweep_result import leaderboard
from gpuclust.reducers import prepare as prepare_module
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FAILED, FINISHED, KILLED, MemoryRecorder

QUICK = ["data=catalogue", "data.n_rows=600", "report=none", "cluster.n_init=1"]


def planned(*overrides: str) -> Plan:
    return plan([*QUICK, *overrides], multirun=True)


def run(context: Any, *overrides: str) -> sweep.SweepResult:
    p = planned(*overrides)
    return sweep.run(p, sweep.jobs_of(p, context.backend), context)


def count_calls(monkeypatch: pytest.MonkeyPatch, **functions: tuple[Any, str]) -> dict[str, int]:
    """Count the calls of some functions, given as name=(module, attribute)."""
    calls: dict[str, int] = {}
    for name, (module, attribute) in functions.items():
        original = getattr(module, attribute)

        def counted(*args: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return original(*args, **options)

        monkeypatch.setattr(module, attribute, counted)
    return calls


def test_two_hundred_jobs_read_scale_reduce_and_grow_a_tree_once(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    read = jobs.read
    monkeypatch.setattr(jobs, "read", lambda *a: reads.append(a) or read(*a))
    calls = count_calls(
        monkeypatch,
        scale=(prepare_module, "fit_scaling"),
        pca=(prepare_module, "fit_components"),
        tree=(hdbscan_cpu, "spanning_tree"),
    )
    p = plan(["data.n_rows=600", "report=none", "cluster=hdbscan", "reduce=pca", "score=none",
              "cluster.min_cluster_size=range(10,60)", "cluster.cluster_selection_method=eom,leaf",
              "cluster.cluster_selection_epsilon=0.0,0.1", "cluster.min_samples=5"], multirun=True)  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert len(result.outcomes) == 200
    assert all(o.status == FINISHED for o in result.outcomes)
    assert len(reads) == 1
    assert calls == {"scale": 1, "pca": 1, "tree": 1}
    assert {k: context.cache.n_created[k] for k in ("table", "matrix", "tree")} == {"table": 1, "matrix": 1, "tree": 1}


def test_a_sweep_is_one_parent_with_named_children_and_curves(context: Any) -> None:
    result = run(context, "cluster=kmeans,gmm", "cluster.n_clusters=2,3,4")
    recorder: MemoryRecorder = context.recorder
    parents = [r for r in recorder.runs.values() if r.tags[tags.KIND] == "sweep"]
    children = [r for r in recorder.runs.values() if r.tags[tags.KIND] == "job"]
    assert len(parents) == 1
    assert {c.parent for c in children} == {result.parent}
    assert [c.start.name for c in children] == [
        "kmeans k=2",
        "kmeans k=3",
        "kmeans k=4",
        "gmm k=2",
        "gmm k=3",
        "gmm k=4",
    ]
    curves = parents[0].curves
    assert curves["curve/silhouette/kmeans"].keys() == {2, 3, 4}
    assert curves["curve/bic/gmm"].keys() == {2, 3, 4}
    assert curves["k/bic/gmm"] == curves["curve/bic/gmm"]
    by_name = {c.start.name: c for c in children}
    assert curves["curve/inertia/kmeans"][3] == by_name["kmeans k=3"].metrics["inertia"]
    assert parents[0].status == FINISHED


def test_a_sweep_taken_over_from_a_process_that_ended_has_the_points_of_all_jobs(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder: MemoryRecorder = context.recorder
    claim = recorder.claim_sweep
    asked: list[str | None] = []

    def first_of_another(start: tags.RunStart, since: int, *, again: bool = False) -> tags.Claim:
        found = claim(start, since, again=again)
        asked.append(found.run_id)
        return tags.Claim(run=recorder.job(str(found.run_id))) if len(asked) == 1 else found

    monkeypatch.setattr(recorder, "claim_sweep", first_of_another)
    result = run(context, "cluster.n_clusters=2,3")
    assert len(asked) == 2
    assert set(recorder.runs[str(result.parent)].curves["curve/silhouette"]) == {2, 3}


def test_a_store_that_does_not_respond_is_waited_for_once(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(context.recorder, "log_points", lambda *given: logged.append(given))
    for error, expected in ((StoreUnavailable("gone"), 0), (KeyboardInterrupt(), 1)):
        log = sweep.CurveLog(planned("cluster.n_clusters=2,3"), "run", context)
        log._points = {2: {"curve/silhouette": 0.5}}
        with pytest.raises(type(error)), log:
            raise error
        assert len(logged) == expected


def test_one_curve_for_each_other_swept_value(context: Any) -> None:
    run(context, "cluster=gmm", "cluster.n_clusters=1,2", "cluster.covariance_type=full,diag")
    (parent,) = [r for r in context.recorder.runs.values() if r.tags[tags.KIND] == "sweep"]
    assert {name for name in parent.curves if name.startswith("curve/bic")} == {"curve/bic/full", "curve/bic/diag"}
    names = {r.start.name for r in context.recorder.runs.values()}
    assert {"gmm k=1 full", "gmm k=2 diag"} <= names


def test_the_choice_its_reason_and_its_model(context: Any) -> None:
    result = run(context, "cluster.n_clusters=2,3,4")
    assert result.selection is not None
    assert result.chosen is not None
    best = max(result.outcomes, key=lambda o: o.metrics["silhouette"])
    assert result.chosen.job == best.job
    runs = context.recorder.runs
    assert [i for i, r in runs.items() if r.tags.get(tags.SELECTED) == "true"] == [best.run_id]
    assert best.job.name in runs[result.parent].tags[tags.SELECTION_REASON]
    assert [i for i, r in runs.items() if r.model] == [best.run_id]


@pytest.mark.parametrize(("models", "kept"), [("all", 3), ("none", 0)])
def test_which_models_are_kept(context: Any, models: str, kept: int) -> None:
    run(context, "cluster.n_clusters=2,3,4", f"tracking.models={models}")
    assert sum(r.model is not None for r in context.recorder.runs.values()) == kept


def test_finished_jobs_are_kept_and_only_the_others_run(context: Any, quiet: Any) -> None:
    first = run(context, "cluster.n_clusters=2,3")
    again = run(context, "cluster.n_clusters=2,3,4")
    assert [o.resumed for o in again.outcomes] == [True, True, False]
    assert [o.run_id for o in again.outcomes[:2]] == [o.run_id for o in first.outcomes]
    parent = context.recorder.runs[again.parent]
    assert parent.curves["curve/silhouette"].keys() == {2, 3, 4}
    assert sum(r.model is not None for r in context.recorder.runs.values()) >= 1


def test_a_choice_among_finished_jobs_gets_its_model_by_computing_it_again(context: Any) -> None:
    first = run(context, "cluster.n_clusters=2,3", "tracking.models=none")
    assert not any(r.model for r in context.recorder.runs.values())
    again = run(context, "cluster.n_clusters=2,3")
    assert all(o.resumed for o in again.outcomes)
    assert first.chosen is not None
    model = context.recorder.runs[first.chosen.run_id].model
    assert model is not None
    run(context, "cluster.n_clusters=2,3")
    assert context.recorder.runs[first.chosen.run_id].model is model, "a model that is there is not kept again"


def selected(context: Any, parent: str | None) -> list[str]:
    return [
        r.start.name
        for r in context.recorder.runs.values()
        if r.parent == parent and r.tags.get(tags.SELECTED) == "true"
    ]


def test_a_choice_of_an_earlier_start_is_taken_back(context: Any) -> None:
    """A sweep that failed is started again under its parent and chooses another job: only that one is marked."""
    recorder: MemoryRecorder = context.recorder
    first = run(context, "cluster.n_clusters=2,3,601")
    assert first.chosen is not None
    assert recorder.runs[first.parent].status == FAILED
    assert selected(context, first.parent) == [first.chosen.job.name]
    recorder.runs[first.chosen.run_id].metrics["silhouette"] = -1.0
    again = run(context, "cluster.n_clusters=2,3,601")
    assert again.parent == first.parent
    assert again.chosen is not None
    assert again.chosen.run_id != first.chosen.run_id
    assert selected(context, first.parent) == [again.chosen.job.name]
    assert recorder.runs[first.chosen.run_id].tags[tags.SELECTED] == "false"


def test_a_choice_among_jobs_of_an_earlier_sweep_leaves_one_marked_in_it(context: Any) -> None:
    first = run(context, "cluster.n_clusters=2,3,4")
    other = run(context, "cluster.n_clusters=2,3,4", "sweep.metric=davies_bouldin")
    assert first.chosen is not None
    assert other.chosen is not None
    assert other.chosen.run_id != first.chosen.run_id, "else this shows nothing"
    assert selected(context, first.parent) == [other.chosen.job.name]


def test_a_sweep_that_was_run_anew_is_reported_with_its_choice(context: Any) -> None:
    run(context, "cluster.n_clusters=2,3")
    anew = run(context, "cluster.n_clusters=2,3", "sweep.resume=false")
    again = run(context, "cluster.n_clusters=2,3")
    assert again.repeated
    assert again.parent == anew.parent
    assert again.chosen is not None
    assert anew.chosen is not None
    assert again.chosen.run_id == anew.chosen.run_id


def test_resume_can_be_turned_off(context: Any) -> None:
    run(context, "cluster.n_clusters=2,3")
    again = run(context, "cluster.n_clusters=2,3", "sweep.resume=false")
    assert not any(o.resumed for o in again.outcomes)


@pytest.mark.parametrize(
    "other", ["seed=1", "scale=minmax", "data.seed=5", "cluster.n_init=2", "dtype=float64", "score=none"]
)
def test_what_changes_a_result_changes_the_key(other: str) -> None:
    one, two = planned("cluster.n_clusters=3").jobs[0], planned("cluster.n_clusters=3", other).jobs[0]
    assert make_job(one.config, "", {}, "cpu").key != make_job(two.config, "", {}, "cpu").key


@pytest.mark.parametrize("other", ["tracking.models=all", "report=default", "sweep.name=x", "sweep.metric=bic"])
def test_what_changes_no_result_keeps_the_key(other: str) -> None:
    one, two = planned("cluster.n_clusters=3").jobs[0], planned("cluster.n_clusters=3", other).jobs[0]
    assert make_job(one.config, "", {}, "cpu").key == make_job(two.config, "", {}, "cpu").key


def test_a_failing_job_is_failed_with_its_reason_and_the_rest_go_on(context: Any) -> None:
    result = run(context, "cluster.n_clusters=2,601,3")
    assert [o.status for o in result.outcomes] == [FINISHED, FAILED, FINISHED]
    failed = context.recorder.runs[result.failed[0].run_id]
    assert failed.status == FAILED
    assert "601 is more than the 600" in failed.tags[tags.FAILURE]
    assert context.recorder.runs[result.parent].status == FAILED
    assert result.chosen is not None


def test_a_failed_job_runs_again(context: Any) -> None:
    run(context, "cluster.n_clusters=2,601")
    again = run(context, "cluster.n_clusters=2,601")
    assert [o.resumed for o in again.outcomes] == [True, False]


def test_an_interrupt_ends_the_parent_as_killed_and_keeps_what_finished(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = jobs.compute
    calls: list[int] = []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*args)

    monkeypatch.setattr(jobs, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(context, "cluster.n_clusters=2,3,4,5")
    states = [r.status for r in context.recorder.runs.values()]
    assert states[0] == KILLED
    assert states.count(FINISHED) == 2
    assert tags.RUNNING not in states
    monkeypatch.setattr(jobs, "compute", compute)
    again = run(context, "cluster.n_clusters=2,3,4,5")
    assert [o.resumed for o in again.outcomes] == [True, True, False, False]


def test_wrong_input_leaves_no_run_behind(context: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(context, "data=table", f"data.path={tmp_path / 'none.csv'}", "cluster.n_clusters=2,3")
    with pytest.raises(CleaningError):
        run(context, "clean.bounds.tempo=[9999,null]", "cluster.n_clusters=2,3")
    assert not context.recorder.runs


def test_a_single_job_has_no_parent_and_keeps_its_model(context: Any) -> None:
    p = plan([*QUICK, "cluster.n_clusters=3"])
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert result.parent is None
    (only,) = context.recorder.runs.values()
    assert only.parent is None
    assert only.model
    assert only.status == FINISHED
    assert only.metrics["n_rows"] == 600


def test_metrics_params_and_files_of_a_job(context: Any) -> None:
    p = plan(["data.n_rows=600", "cluster.n_clusters=3"])
    sweep.run(p, sweep.jobs_of(p, context.backend), context)
    (only,) = context.recorder.runs.values()
    contract = {"n_clusters", "n_rows", "n_features", "noise_fraction", "silhouette", "silhouette_se", "calinski_harabasz",
                "davies_bouldin", "inertia", "largest_fraction", "smallest_fraction", "explained_variance", "load_seconds",
                "prepare_seconds", "fit_seconds", "score_seconds"}  # fmt: skip
    assert contract <= only.metrics.keys()
    assert all(np.isfinite(v) for v in only.metrics.values())
    assert only.start.params["cluster.n_clusters"] == 3
    files = {
        "config.yaml",
        "audit.json",
        "profile.json",
        "profile.csv",
        "report.html",
        "figures/map.png",
        "figures/profile.png",
    }
    assert files <= only.files.keys()
    assert only.files["figures/map.png"].startswith(b"\x89PNG")
    assert only.dataset is not None
    assert only.dataset.n_rows == 600


def test_files_of_a_sweep(context: Any) -> None:
    p = plan(["data.n_rows=600", "cluster=kmeans,gmm", "cluster.n_clusters=2,3"], multirun=True)
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    files = context.recorder.runs[result.parent].files
    assert {
        "leaderboard.csv",
        "figures/elbow.png",
        "figures/silhouette.png",
        "figures/bic.png",
        "report.html",
    } <= files.keys()
    lines = files["leaderboard.csv"].decode().splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("1,True,")


def test_the_page_of_a_sweep_shows_its_choice_also_if_that_was_resumed(context: Any) -> None:
    for sizes in ("2,3", "3,2"):
        p = plan(["data.n_rows=600", f"cluster.n_clusters={sizes}"], multirun=True)
        result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
        assert result.chosen is not None
        assert result.chosen.resumed is (sizes == "3,2")
        source = context.recorder.runs[result.parent].files["report.html"].decode()
        assert 'alt="Map of the clusters"' in source
        assert source.count("<article") == result.chosen.metrics["n_clusters"]


def figures_of(context: Any, result: sweep.SweepResult) -> set[str]:
    files = context.recorder.runs[result.parent].files
    return {name.removeprefix("figures/").removesuffix(".png") for name in files if name.startswith("figures/")}


def test_figures_do_not_depend_on_the_order_of_the_swept_keys(context: Any) -> None:
    swept = ["cluster.min_cluster_size=30,60", "cluster=gmm,hdbscan", "cluster.n_clusters=2,3,4"]
    drawn = []
    for keys in (swept, swept[::-1], [swept[1], swept[0], swept[2]]):
        p = plan(["data=catalogue", "data.n_rows=600", *keys], multirun=True)
        drawn.append(figures_of(context, sweep.run(p, sweep.jobs_of(p, context.backend), context)))
    assert drawn[0] == drawn[1] == drawn[2]
    assert {"silhouette", "bic", "relative_validity_by_min_cluster_size", "n_clusters_by_min_cluster_size"} <= drawn[0]


def test_each_size_axis_has_its_points_and_auto_is_the_size_it_took(context: Any) -> None:
    p = planned("cluster=kmeans,hdbscan", "cluster.min_cluster_size=30,60,auto", "cluster.n_clusters=2,3")
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    by_axis = curves_by_axis(result.outcomes, p)
    assert by_axis.keys() == {"cluster.n_clusters", "cluster.min_cluster_size"}
    (auto,) = [o for o in result.outcomes if o.job.swept.get("cluster.min_cluster_size") == "auto"]
    took = auto.metrics["min_cluster_size"]
    (dense,) = by_axis["cluster.min_cluster_size"]["n_clusters"].values()
    assert [size for size, _, _ in dense] == sorted({30.0, 60.0, took})
    (sizes,) = by_axis["cluster.n_clusters"]["inertia"].values()
    assert [size for size, _, _ in sizes] == [2, 3]
    found = context.recorder.runs[result.parent].curves
    assert int(took) in found["curve/n_clusters/hdbscan"]
    assert found["min_cluster_size/n_clusters"].keys() == {30, 60, int(took)}
    assert found["k/silhouette"].keys() == {2, 3}
    assert not {"k/n_clusters", "k/noise_fraction", "k/silhouette_with_noise"} & found.keys()
    assert not {name for name in found if name.startswith(("k/", "min_cluster_size/")) and name.count("/") > 1}
    assert not {n for r in context.recorder.runs.values() if r.parent for n in r.curves if n.startswith("curve/")}


def test_a_number_that_is_no_size_is_an_axis_of_its_own(context: Any) -> None:
    p = plan(["data=catalogue", "data.n_rows=600", "cluster=hdbscan", "cluster.min_cluster_size=20",
              "cluster.cluster_selection_epsilon=0.5,0.75,1.0"], multirun=True)  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    by_axis = curves_by_axis(result.outcomes, p)
    ((axis, lines),) = by_axis.items()
    assert axis == "cluster.cluster_selection_epsilon"
    assert [size for size, _, _ in lines["n_clusters"]["hdbscan"]] == [0.5, 0.75, 1.0]
    assert not sweep.curves(result.outcomes, p), "the verdict asks about sizes"
    assert "relative_validity_by_cluster_selection_epsilon" in figures_of(context, result)
    steps = context.recorder.runs[result.parent].curves["curve/cluster_selection_epsilon/n_clusters"]
    assert steps.keys() == {0, 1, 2}


@pytest.mark.parametrize(
    ("swept", "name"),
    [
        (["cluster.n_clusters=range(2,11)"], "catalogue · K-Means k=2..10"),
        (["cluster=kmeans,gmm", "cluster.n_clusters=2,3,4"], "catalogue · K-Means, GMM k=2..4"),
        (["cluster=kmeans,hdbscan", "cluster.n_clusters=8,12", "cluster.min_cluster_size=50,auto"],
         "catalogue · K-Means k=8, 12, HDBSCAN min_cluster_size=50, auto"),
        (["cluster=gmm", "cluster.n_clusters=4", "cluster.covariance_type=full,diag", "scale=standard,robust"],
         "catalogue · GMM k=4 · covariance_type=full, diag · scale=standard, robust"),
        (["cluster.n_clusters=10,20,30,40,50,60,70,80,90"], "catalogue · K-Means k=10, 20, 30, ... 90"),
        (["cluster.n_clusters=2,3", "sweep.name=mine"], "mine"),
    ],
)  # fmt: skip
def test_a_sweep_is_named_after_its_data_and_what_varies(swept: list[str], name: str) -> None:
    p = plan(["data=catalogue", "data.n_rows=600", *swept], multirun=True)
    assert sweep_name([make_job(j.config, "", j.swept, "cpu") for j in p.jobs]) == name


def test_dear_silhouettes_share_a_batch_and_cheap_ones_do_not() -> None:
    jobs_ = [make_job(j.config, "", j.swept, "cpu") for j in planned("cluster.n_clusters=range(2,22)").jobs]
    assert [len(b) for b in sweep.batches(jobs_, 1_000)] == [1] * 20
    assert [len(b) for b in sweep.batches(jobs_, 100_000)] == [16, 4]
    mixed = [
        make_job(j.config, "", j.swept, "cpu") for j in planned("cluster.n_clusters=2,3", "scale=standard,minmax").jobs
    ]
    assert [len(b) for b in sweep.batches(mixed, 100_000)] == [2, 2]
    assert [{j.config.scale.method for j in b} for b in sweep.batches(mixed, 100_000)] == [{"standard"}, {"minmax"}]


def test_a_sweep_over_two_things_draws_a_line_for_each(context: Any) -> None:
    p = plan(["data.n_rows=600", "cluster.n_clusters=2,3", "scale=standard,minmax", "cluster.n_init=1"], multirun=True)
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    lines = sweep.curves(result.outcomes, p)
    assert lines["inertia"].keys() == {"kmeans/scale=standard", "kmeans/scale=minmax"}
    assert [size for size, _, _ in lines["inertia"]["kmeans/scale=minmax"]] == [2, 3]
    assert context.recorder.runs[result.parent].files["figures/elbow.png"].startswith(b"\x89PNG")
    names = {o.job.name for o in result.outcomes}
    assert names == {f"kmeans k={k} scale={s}" for k in (2, 3) for s in ("standard", "minmax")}


def test_a_job_without_a_size_takes_one_by_the_rows_and_shows_it(context: Any) -> None:
    p = plan(["data=catalogue", "data.n_rows=178", "cluster=hdbscan", "report=none"])
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    (outcome,) = result.outcomes
    assert outcome.metrics["min_cluster_size"] == 13
    assert outcome.job.name == "hdbscan min_cluster_size=default (13)"
    assert context.recorder.runs[outcome.run_id].tags["mlflow.runName"] == outcome.job.name
    assert context.recorder.job(outcome.run_id).name == outcome.job.name, "as in MLflow"
    again = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert again.outcomes[0].resumed
    assert again.outcomes[0].job.name == outcome.job.name
    assert [default_min_cluster_size(n) for n in (4, 178, 10_000, 1_000_000)] == [5, 13, 100, 1000]


def test_a_size_that_finds_nothing_is_said_aloud(context: Any) -> None:
    p = plan(["data=catalogue", "data.n_rows=178", "cluster=hdbscan", "cluster.min_cluster_size=100"])
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    (warning,) = result.warnings
    assert "0 of 178 rows are in a cluster: every row is noise; lower cluster.min_cluster_size" in warning
    recorded = context.recorder.runs[result.outcomes[0].run_id]
    assert warning in recorded.tags["gpuclust.notes"]
    assert "0 of 178 rows are in a cluster" in recorded.files["report.html"].decode()


def test_hdbscan_with_much_noise_warns_and_is_ranked_with_its_noise(context: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = [rng.normal(c, 0.02, size=(60, 3)) for c in range(4)]
    frame = pd.DataFrame(np.concatenate([*dense, rng.uniform(-3, 6, size=(700, 3))]), columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "noisy.csv", index=False)
    p = plan(["data=table", f"data.path={tmp_path / 'noisy.csv'}", "cluster=hdbscan",
              "cluster.min_cluster_size=30,50,auto"], multirun=True)  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, context.backend), context)
    assert result.chosen is not None
    assert result.chosen.metrics["noise_fraction"] > 0.3
    assert result.metric == "silhouette_with_noise"
    scores = [o.metrics["silhouette_with_noise"] for o in result.outcomes if "silhouette_with_noise" in o.metrics]
    assert result.chosen.metrics["silhouette_with_noise"] == max(scores)
    rows = leaderboard(result)
    assert all("silhouette_with_noise" in row for row in rows if "silhouette" in row)
    (auto,) = [row["job"] for row in rows if row["cluster.min_cluster_size"] == "auto"]
    assert re.fullmatch(r"hdbscan min_cluster_size=auto \(\d+\)", auto)
    assert sum("min_cluster_size/persistence" in run.curves for run in context.recorder.runs.values()) == 1
    n_in = 940 - round(result.chosen.metrics["noise_fraction"] * 940)
    parent = context.recorder.runs[result.parent]
    for text in (result.warnings[0], parent.files["report.html"].decode(), parent.tags["mlflow.note.content"]):
        assert f"{n_in} of 940 rows are in a cluster" in text


def test_params_are_what_is_set_with_the_features_that_were_used(context: Any) -> None:
    result = run(context, "cluster.n_clusters=2,3", "data.exclude=[tempo]")
    runs = context.recorder.runs
    parent, child = runs[result.parent], runs[result.outcomes[0].run_id]
    for one in (parent, child):
        assert not [k for k, v in one.params.items() if v is None or str(v) in ("None", "[]")]
    features = child.params["features"].split(", ")
    assert "energy" in features
    assert "tempo" not in features
    assert child.params["n_features"] == len(features) == child.metrics["n_features"]
    assert child.params["swept.cluster.n_clusters"] == 2
    assert result.chosen is not None
    for metric in ("silhouette", "n_clusters", "inertia"):
        assert parent.metrics[metric] == result.chosen.metrics[metric]
    assert parent.dataset is not None
    assert parent.dataset.n_rows == 600


def test_runs_carry_the_commit_of_the_working_folder(
    context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.chdir(tmp_path)
    assert tags.GIT_COMMIT not in about(context)
    git_commit.cache_clear()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert about(context)[tags.GIT_COMMIT] == git("rev-parse", "HEAD").strip()
    git_commit.cache_clear()


def test_a_key_that_is_another_algorithms_size_names_jobs_and_lines() -> None:
    """``cluster.min_samples`` is the size of PLSCAN, and an ordinary key of HDBSCAN and DBSCAN."""
    sizes = ("cluster.min_cluster_size=5,10", "cluster.min_samples=3,4")
    p = plan(["data=catalogue", "cluster=hdbscan", *sizes], multirun=True)
    made = [make_job(j.config, job_name(j.config, j.swept, p.swept), j.swept, "cpu") for j in p.jobs]
    assert made[1].name == "hdbscan min_cluster_size=5 min_samples=4"
    assert sweep_name(made).endswith("HDBSCAN min_cluster_size=5, 10 · min_samples=3, 4")
    points = [curve_point(Outcome(job, "", FINISHED, {}), p) for job in made]
    assert {point.line for point in points if point} == {"min_samples=3", "min_samples=4"}
    p = plan(["data=catalogue", "cluster=dbscan", "cluster.min_samples=3,4,5"], multirun=True)
    job = make_job(p.jobs[0].config, "dbscan", p.jobs[0].swept, "cpu")
    assert curve_point(Outcome(job, "", FINISHED, {}), p) == Point("cluster.min_samples", 3, "")
