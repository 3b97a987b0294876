"""Sweeps that do not run every job: a search, early stopping, and a budget; resumed, repeated, and shared by two processes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuclust.cli import main
from gpuclust.compose import Plan, plan
from gpuclust.config import seconds_of
from gpuclust.errors import ConfigurationError
from gpuclust.pipeline import start as start_module
from gpuclust.pipeline import sweep
from gpuclust.pipeline.context import Job, Outcome
from gpuclust.pipeline.schedule import Grid, Schedule, is_worse
from gpuclust.pipeline.sweep_result import leaderboard
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.forecast import forecast
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FINISHED

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'gpuclust[optuna]'")
from gpuclust.pipeline import search as search_module
from gpuclust.pipeline.search import Search

QUICK = ["data=catalogue", "data.n_rows=600", "report=none", "cluster.n_init=1", "cluster.max_iter=20"]
SEARCH = ["cluster.n_clusters=range(2,40)", "sweep.search=optuna", "sweep.n_trials=14"]


def planned(*overrides: str) -> Plan:
    return plan([*QUICK, *overrides], multirun=True)


def jobs_of(*overrides: str) -> tuple[Job, ...]:
    return sweep.jobs_of(planned(*overrides), CpuBackend())


def run(context: Any, *overrides: str) -> sweep.SweepResult:
    p = planned(*overrides)
    return sweep.run(p, sweep.jobs_of(p, context.backend), context)


def ended(job: Job, score: float) -> Outcome:
    return Outcome(job, job.key, FINISHED, {"silhouette": score})


def follow(
    schedule: Schedule, score: Callable[[int], float], take: Callable[[Sequence[Job]], Sequence[Job]]
) -> list[int]:
    """Give the jobs that ``take`` takes of those that can run their outcomes, until none is left; the sizes of what ended."""
    done: dict[str, Outcome] = {}
    while ready := schedule.next(done):
        for job in take(ready):
            done[job.key] = ended(job, score(job.config.cluster.n_clusters))  # type: ignore[attr-defined]
    return [o.job.config.cluster.n_clusters for o in schedule.ended(done)]  # type: ignore[attr-defined]


def names(context: Any) -> list[str]:
    """The jobs that were run, in their order."""
    return [run.start.name for run in context.recorder.runs.values() if run.tags[tags.KIND] == "job"]


def test_a_search_tries_other_jobs_each_time_and_depends_on_neither_order_nor_number() -> None:
    jobs = jobs_of("cluster.n_clusters=range(2,200)")

    def one() -> Search:
        return Search(jobs, n_trials=40, metric="auto", seed=3)

    def score(k: int) -> float:
        return -abs(k - 37) / 100

    sizes = follow(one(), score, lambda ready: ready)
    assert len(set(sizes)) == len(sizes) == 40
    assert follow(one(), score, lambda ready: ready[:1]) == sizes
    assert follow(one(), score, lambda ready: ready[::-1][:3]) == sizes
    # Of 30 random sizes 5 would be among the 31 nearest to the best one; the sampler looks around good ones.
    assert sum(abs(k - 37) <= 15 for k in sizes[10:]) > 10
    assert abs(max(sizes, key=score) - 37) <= 4
    assert follow(Search(jobs, n_trials=40, metric="auto", seed=4), score, lambda ready: ready) != sizes


def test_a_search_over_algorithms_words_and_numbers() -> None:
    jobs = jobs_of("cluster=kmeans,gmm", "cluster.n_clusters=range(2,30)", "cluster.covariance_type=full,diag",
                   "cluster.tol=1e-3,1e-4")  # fmt: skip
    assert len(jobs) == 28 * 2 + 28 * 2 * 2

    def score(k: int) -> float:
        return float(-k)

    first, second = (
        follow(Search(jobs, n_trials=60, metric="silhouette", seed=0), score, lambda ready: ready) for _ in range(2)
    )
    assert first == second
    assert len(first) == 60
    assert sum(k < 8 for k in first[20:]) > 20


def test_every_job_of_a_small_grid_can_be_tried() -> None:
    jobs = jobs_of("cluster.n_clusters=range(2,14)")
    sizes = follow(Search(jobs, n_trials=50, metric="auto", seed=0), lambda k: k / 100, lambda ready: ready)
    assert sorted(sizes) == list(range(2, 14))


def test_files_of_equal_content_are_searched_once(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y\n" + "".join(f"{i % 7}.5,{i % 11}.25\n" for i in range(100)))
    jobs = jobs_of("data=table", f"data.path={tmp_path}/a.csv,{tmp_path}/b.csv", "cluster.n_clusters=range(2,8)")
    assert len(jobs) == 12
    sizes = follow(Search(jobs, n_trials=12, metric="auto", seed=0), lambda k: k / 100, lambda ready: ready)
    assert sorted(sizes) == list(range(2, 8))


def test_trials_that_are_worse_on_a_share_of_the_rows_are_stopped() -> None:
    jobs = jobs_of("cluster.n_clusters=range(2,100)")

    def on_share(job: Job, share: float) -> Job:
        return replace(job, key=f"{job.key} {share}", share=share)

    schedule = Search(jobs, n_trials=30, metric="auto", seed=0, shares=(1 / 16, 1 / 4), on_share=on_share)
    done: dict[str, Outcome] = {}
    n_fits: Counter[float] = Counter()
    while ready := schedule.next(done):
        n_fits.update(job.share for job in ready)
        done |= {job.key: ended(job, -abs(job.config.cluster.n_clusters - 20) / 100) for job in ready}  # type: ignore[attr-defined]
    assert n_fits[1 / 16] == 30
    assert 30 > n_fits[1 / 4] > n_fits[1.0] >= 5
    whole = [o.job.config.cluster.n_clusters for o in schedule.ended(done)]  # type: ignore[attr-defined]
    assert len(whole) == n_fits[1.0]
    best = min((o.job.config.cluster.n_clusters for o in done.values()), key=lambda k: abs(k - 20))  # type: ignore[attr-defined]
    assert best in whole, "the best of all trials is never stopped"
    assert f"searched by 30 trials, {len(whole)} of them on all rows" in schedule.coverage(done)


def test_a_search_ends_when_it_gets_no_better() -> None:
    jobs = jobs_of("cluster.n_clusters=range(2,200)")
    schedule = Search(jobs, n_trials=100, metric="auto", seed=0, patience=12)
    sizes = follow(schedule, lambda k: 0.5, lambda ready: ready)
    assert 13 <= len(sizes) <= 13 + search_module.ROUND
    done = {job.key: ended(job, 0.5) for job in jobs if job.config.cluster.n_clusters in sizes}  # type: ignore[attr-defined]
    assert "until 12 trials in a row were no better (sweep.patience=12)" in schedule.coverage(done)


def test_patience_stops_each_line_after_its_best_size() -> None:
    jobs = jobs_of("cluster=gmm", "cluster.covariance_type=full,diag", "cluster.n_clusters=range(2,40)")
    schedule = Grid(jobs, metric="silhouette", patience=3)
    peaks = {"full": 6, "diag": 17}
    done: dict[str, Outcome] = {}
    while ready := schedule.next(done):
        job = ready[len(ready) // 2]
        c: Any = job.config.cluster
        done[job.key] = ended(job, -abs(c.n_clusters - peaks[c.covariance_type]))
    tried: dict[str, list[int]] = {"full": [], "diag": []}
    for o in schedule.ended(done):
        c = o.job.config.cluster
        tried[c.covariance_type].append(c.n_clusters)
    for kind, sizes in tried.items():  # at least 3 sizes after the best, and less than 3 more
        assert sizes == list(range(2, sizes[-1] + 1))
        assert 3 <= sizes[-1] - peaks[kind] < 6
    assert "because 3 sizes in a row were no better than a smaller one (sweep.patience=3)" in schedule.coverage(done)
    assert not Grid(jobs[:5], patience=0).coverage({job.key: ended(job, 0.0) for job in jobs})


def test_when_scores_get_worse() -> None:
    assert not is_worse([0.1, 0.2, 0.3], "silhouette", 1)
    assert is_worse([0.1, 0.3, 0.2], "silhouette", 1)
    assert not is_worse([0.1, 0.3, 0.2], "silhouette", 2)
    assert is_worse([3.0, 1.0, 1.0, None], "bic", 2), "an equal score and a job that failed are no improvement"
    assert not is_worse([None, None, None], "silhouette", 2), "nothing to compare with"


def test_a_sweep_with_patience_says_what_it_left_out(context: Any) -> None:
    result = run(context, "cluster.n_clusters=range(2,60)", "sweep.patience=2")
    assert 4 <= len(result.outcomes) < 58
    assert result.conclusion is not None
    text = result.conclusion.verdict.text
    assert f"{58 - len(result.outcomes)} of 58 jobs were left out" in text
    assert "sweep.patience=2" in text
    parent = context.recorder.runs[result.parent]
    assert parent.tags[tags.VERDICT] == text
    assert json.loads(parent.files["verdict.json"])["text"] == text
    again = run(context, "cluster.n_clusters=range(2,60)", "sweep.patience=2")
    assert again.repeated
    assert (again.parent, [o.job for o in again.outcomes]) == (result.parent, [o.job for o in result.outcomes])


def test_a_budget_starts_no_further_job_and_the_same_command_goes_on(context: Any) -> None:
    sizes = "cluster.n_clusters=range(2,8)"
    result = run(context, sizes, "sweep.budget=0.001s")
    assert [o.job.name for o in result.outcomes] == ["kmeans k=2"], "one job runs in any case"
    assert result.conclusion is not None
    assert "5 of 6 jobs were left out (K-Means k=3..7)" in result.conclusion.verdict.text
    assert "The budget of 0.001s ended; the same command continues from here." in result.conclusion.verdict.text
    steps: list[int] = []
    log_points = context.recorder.log_points
    context.recorder.log_points = lambda run_id, points: (steps.extend(points), log_points(run_id, points))
    whole = run(context, sizes)
    assert whole.parent == result.parent, "the sweep is opened again"
    assert names(context) == [f"kmeans k={k}" for k in range(2, 8)]
    assert whole.conclusion is not None
    assert "left out" not in whole.conclusion.verdict.text
    assert sorted(steps) == [2, 3, 4, 5, 6, 7], "points of earlier jobs are not logged again"
    assert context.recorder.runs[whole.parent].curves["curve/silhouette"].keys() == {2, 3, 4, 5, 6, 7}


def test_the_points_of_earlier_jobs_are_logged_once(uri: str) -> None:
    from gpuclust.tracking.mlflow import MlflowRecorder
    from gpuclust.tracking.recorder import KEY, KIND, RunStart

    recorder = MlflowRecorder(uri, "e")
    run_id = recorder.start_job(RunStart("sweep", {KIND: "sweep", KEY: "s"}), None)
    points = {k: {"curve/silhouette": 0.1 * k, "k/bic/a=[1, 2]": 1.0 * k} for k in (2, 3)}
    assert recorder.missing_points(run_id, points) == points
    recorder.log_points(run_id, {2: points[2]})
    assert recorder.missing_points(run_id, points) == {2: {}, 3: points[3]}
    recorder.end(run_id, FINISHED)


def test_an_interrupted_search_goes_on_with_the_same_trials(context: Any, quiet: Any) -> None:
    other = replace(context, recorder=type(context.recorder)())
    expected = run(other, *SEARCH)
    assert len(expected.outcomes) == 14
    tell = quiet.finished

    def interrupt(outcome: Outcome) -> None:
        tell(outcome)
        if len(names(context)) == 12:  # in the second round
            raise KeyboardInterrupt

    quiet.finished = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(context, *SEARCH)
    quiet.finished = tell
    result = run(context, *SEARCH)
    assert [o.job.key for o in result.outcomes] == [o.job.key for o in expected.outcomes]
    assert Counter(names(context)) == Counter(names(other)), "a job that had finished was not run again"
    assert result.conclusion is not None
    assert (
        "K-Means k=2..39 searched by 14 trials; a job that was not tried may be better."
        in result.conclusion.verdict.text
    )
    again = run(context, *SEARCH)
    assert again.repeated
    assert again.parent == result.parent
    assert len(names(context)) == 14


def test_fits_on_a_share_of_the_rows_are_recorded_apart(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "MIN_SAMPLE_ROWS", 100)
    given = [*SEARCH, "data.n_rows=3200", "score.exact_limit=1e12"]
    result = run(context, *given)
    runs = [run for run in context.recorder.runs.values() if run.tags[tags.KIND] == "job"]
    shares = Counter("(" in run.start.name and run.start.name.partition("(")[2] for run in runs)
    assert shares["1/16 of the rows)"] == 14
    assert 14 > shares["1/4 of the rows)"] >= shares[False] >= 1
    assert {run.metrics["n_rows"] for run in runs} == {200.0, 800.0, 3200.0}
    assert len(result.outcomes) == len(leaderboard(result)) == shares[False]
    curve = context.recorder.runs[result.parent].curves["curve/silhouette"]
    assert set(curve) == {o.job.config.cluster.n_clusters for o in result.outcomes}
    again = run(context, *given)
    assert again.repeated
    assert [o.job.key for o in again.outcomes] == [o.job.key for o in result.outcomes]
    assert len(context.recorder.runs) == len(runs) + 1


def test_two_processes_share_a_search(tmp_path: Path, store_template: Path) -> None:
    (tmp_path / "gpuclust-runs").mkdir()
    database = tmp_path / "gpuclust-runs" / "mlflow.db"
    database.write_bytes(store_template.read_bytes())
    command = [sys.executable, "-m", "gpuclust", "-m", *QUICK, *SEARCH]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    query = "SELECT t.value, r.status FROM runs r JOIN tags t USING (run_uuid) WHERE t.key = 'gpuclust.kind'"
    with closing(sqlite3.connect(database)) as db:
        assert sorted(db.execute(query)) == [("job", FINISHED)] * 14 + [("sweep", FINISHED)]
    chosen = [[line for line in out.splitlines() if line.startswith("chosen: ")] for out, _ in ends]
    assert chosen[0] == chosen[1] != []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sweep.budget=soon"], "sweep.budget=soon is not a time above 0, as in 90s, 10min or 2h"),
        (["sweep.budget=0min"], "is not a time above 0"),
        (["sweep.patience=-1"], "sweep.patience=-1 is outside [0, inf)"),
        (["sweep.search=random"], "sweep.search=random is not one of grid, optuna"),
        (["reduce=pca", "reduce.n_components=interval(0.5,0.9)"], "or search it with sweep.search=optuna"),
        (["sweep.n_trials=3,4"], "cannot be swept"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        planned("cluster.n_clusters=2,3", *overrides)
    assert words in str(error.value)


def test_scores_of_several_spaces_cannot_be_searched(context: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot rank jobs of several spaces") as error:
        run(context, "scale=standard,minmax", *SEARCH)
    assert "\n" not in str(error.value)
    assert not context.recorder.runs


def test_a_search_without_optuna_is_refused_before_a_store_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start_module, "find_spec", lambda name: None)
    assert main(["-m", *QUICK, *SEARCH]) == 2
    assert "gpuclust: sweep.search=optuna needs Optuna; pip install 'gpuclust[optuna]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_interval_has_values_in_a_search() -> None:
    p = planned("reduce=pca", "reduce.n_components=interval(0.5,0.9)", "sweep.search=optuna", "sweep.n_trials=5")
    shares = [job.config.reduce.n_components for job in p.jobs]
    assert len(shares) == 101
    assert (shares[0], shares[50], shares[-1]) == (0.5, 0.7, 0.9)
    assert (p.is_search, p.n_jobs) == (True, 5)


def test_the_time_of_a_search_is_that_of_its_trials() -> None:
    def seconds(*overrides: str) -> float:
        return forecast([job.config for job in planned(*overrides).jobs]).seconds

    assert 0.3 < seconds(*SEARCH) / seconds(SEARCH[0]) < 0.45, "14 of 38 jobs"


def test_what_has_no_effect_is_said() -> None:
    assert (
        "sweep.n_trials has no effect with sweep.search=grid"
        in planned("cluster.n_clusters=2,3", "sweep.n_trials=3").notes
    )


def test_a_search_that_may_try_everything_is_a_grid(context: Any) -> None:
    result = run(context, "cluster.n_clusters=5,4,3", "sweep.search=optuna")
    assert [o.job.config.cluster.n_clusters for o in result.outcomes] == [5, 4, 3]  # type: ignore[attr-defined]
    assert result.conclusion is not None
    assert "searched" not in result.conclusion.verdict.text


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5 min", 90), ("10min", 600), ("2h", 7200)])
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


def test_a_sweep_chooses_among_the_jobs_that_satisfy_its_requirements(context: Any) -> None:
    free = run(context, "cluster.n_clusters=2,3,4")
    assert free.chosen is not None
    size = int(free.chosen.metrics["n_clusters"])
    bound = run(
        context,
        "cluster.n_clusters=2,3,4",
        f"sweep.require=[n_clusters>{size}]" if size < 4 else "sweep.require=[n_clusters<4]",
    )
    assert bound.chosen is not None
    assert bound.chosen.metrics["n_clusters"] != size
    assert "not satisfy n_clusters" in bound.conclusion.reason
    none = run(context, "cluster.n_clusters=2,3,4", "sweep.require=[n_clusters>9]")
    assert none.chosen is None
    assert not none.failed
    assert "none satisfies n_clusters>9 (n clusters is 2 to 4)" in none.conclusion.reason


@pytest.mark.parametrize(
    "text", ["noise_fraction<0.3", "[noise_fraction<0.3]", "['noise_fraction<0.3']", '["noise_fraction<0.3"]']
)
def test_a_requirement_needs_no_quotes_of_hydra(text: str) -> None:
    assert planned("cluster.n_clusters=2,3,4", f"sweep.require={text}").jobs[0].config.sweep.require == [
        "noise_fraction<0.3"
    ]
    assert planned("cluster.n_clusters=2,3,4", "sweep.require=[]").jobs[0].config.sweep.require == []
    with pytest.raises(ConfigurationError, match="does not compare metrics with numbers"):
        planned("cluster.n_clusters=2,3,4", "sweep.require=[noise_fraction]")
