"""Output in a terminal: no number and no header is cut at any width, long steps print lines in a log, and each job is a line."""

import io
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from gpuclust.algorithms.registry import algorithms
from gpuclust.config import Config
from gpuclust.report.terminal import Live, duration, format_metric, leaderboard, outcome_line
from gpuclust.usage import usage

WIDTHS = (40, 60, 80, 100, 140, 200)


def row(job: str, chosen: bool = False, **metrics: float) -> dict[str, Any]:
    return {"job": job, "chosen": chosen, **metrics}


MIXTURES = [
    row(f"gmm k={k} {covariance} scale=standard", k == 12 and covariance == "full", n_clusters=k, silhouette=0.31 - 0.011 * k,
        bic=-123_456_789_012.25 + 7_654_321.5 * k, noise_fraction=0.0, calinski_harabasz=15_234.56 / k, davies_bouldin=1.5 + 0.01 * k,
        fit_seconds=0.37 * k)
    for k in range(2, 14) for covariance in ("full", "spherical")
]  # fmt: skip
DENSITY = [
    row(f"hdbscan min_cluster_size={s}", s == 50, n_clusters=9_000 // s, silhouette_with_noise=-0.4956, silhouette=0.5079,
        noise_fraction=0.8951 - s / 1000, relative_validity=0.0001 * s, fit_seconds=31.7)
    for s in (25, 50, 100)
]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("rows", "metric"), [(MIXTURES, "bic"), (MIXTURES, "silhouette"), (DENSITY, "silhouette_with_noise")]
)
def test_a_leaderboard_cuts_no_number_and_no_header(rows: list[dict[str, Any]], metric: str, width: int) -> None:
    text = leaderboard(rows, metric, width).plain
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "…" not in text
    head = " ".join(lines[:3]).split()
    for word in ("job", "k", *metric.replace("bic", "BIC").split("_")):
        assert word in head
    shown = [r for i, r in enumerate(rows) if i < 15 or r["chosen"]]
    for r in shown:
        assert re.search(rf"(?<![\d.,]){re.escape(format_metric(r[metric]))}(?![\d.,])", text), r
        assert str(r["n_clusters"]) in text
    (arrow,) = [line for line in lines if line.startswith("→")]
    assert format_metric(next(r for r in rows if r["chosen"])[metric]) in arrow


def test_a_wider_terminal_shows_more_metrics_and_a_pipe_shows_all() -> None:
    heads = [len(leaderboard(MIXTURES, "bic", width).plain.splitlines()[1].split()) for width in (40, 80, 200)]
    assert heads == sorted(heads)
    assert heads[0] < heads[-1]
    piped = leaderboard(MIXTURES, "bic", None).plain
    for word in ("silhouette", "harabasz", "bouldin", "fit"):
        assert word in piped


def test_a_column_that_is_equal_in_all_jobs_is_left_out() -> None:
    assert "noise" not in leaderboard(MIXTURES, "bic", 200).plain
    assert "noise" in leaderboard(DENSITY, "silhouette", 80).plain


def test_a_long_name_goes_on_in_the_next_line_and_is_whole() -> None:
    name = "gmm k=12 full scale=standard reduce.n_components=5 data.path=/a/very/long/path/of/some/table.csv"
    text = leaderboard(
        [row(name, True, n_clusters=12, bic=-1.5e12), row("gmm k=2", n_clusters=2, bic=3.0)], "bic", 60
    ).plain
    assert max(map(cell_len, text.splitlines())) <= 60
    first = [line[2:40] for line in text.splitlines()]
    joined = re.sub(r"\s", "", "".join(line.split("  ")[0] for line in first))
    assert re.sub(r"\s", "", name) in joined
    assert format_metric(-1.5e12) in text


@given(
    st.lists(st.tuples(st.text("abc =漢", min_size=1, max_size=60), st.floats(-1e300, 1e300)), min_size=1, max_size=20),
    st.sampled_from(WIDTHS),
)
def test_any_names_and_any_numbers_fit(jobs: list[tuple[str, float]], width: int) -> None:
    rows = [row(name, i == 0, n_clusters=i + 1, bic=value) for i, (name, value) in enumerate(jobs)]
    lines = leaderboard(rows, "bic", width).plain.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(any(format_metric(r["bic"]) in line for line in lines) for r in rows[:15])


def outcome(name: str = "kmeans k=5", **more: Any) -> Any:
    metrics = {
        "n_clusters": 5.0,
        "silhouette": 0.1554,
        "inertia": 1_234_567.8,
        "bic": -9_876_543_210.0,
        "fit_seconds": 3.0,
    }
    defaults = {"error": None, "resumed": False, "metrics": metrics}
    config = Config(cluster=algorithms()[name.partition(" ")[0]].config())
    job = SimpleNamespace(name=name, config=config, share=more.pop("share", 1.0))
    return SimpleNamespace(**{"job": job, **defaults, **more})


@pytest.mark.parametrize("width", WIDTHS)
def test_the_line_of_a_job_leaves_figures_out_and_never_cuts_one(width: int) -> None:
    line = outcome_line(outcome(), " 12/18", width).plain
    assert cell_len(line) <= width
    whole = outcome_line(outcome(), " 12/18", None).plain
    assert whole.endswith("silhouette 0.1554 · inertia 1,234,568 · BIC -9,876,543,210 · 3.00 s")
    assert whole.startswith(line.rstrip())
    assert line == whole or whole[len(line) :].startswith((" · ", "  "))


def test_what_became_of_a_job_is_said() -> None:
    assert "reused (already finished)  kmeans k=5" in outcome_line(outcome(resumed=True), "1/2", None).plain
    assert "failed  kmeans k=5: too few rows" in outcome_line(outcome(error="too few rows"), "1/2", None).plain


def test_the_number_of_clusters_is_shown_where_the_algorithm_finds_it() -> None:
    assert "  5 clusters · silhouette" in outcome_line(outcome("hdbscan min_cluster_size=30"), "1/2", None).plain
    assert "5 clusters" not in outcome_line(outcome("gmm k=5"), "1/2", None).plain


def live(terminal: bool, total: int, heartbeat: float = 100.0) -> tuple[Live, io.StringIO]:
    out = io.StringIO()
    return Live(total, Console(file=out, force_terminal=terminal, width=100), heartbeat=heartbeat), out


def test_a_log_gets_a_line_while_a_long_step_goes_on() -> None:
    display, out = live(False, 3, heartbeat=0.1)
    with display:
        display.stage("fitting kmeans k=2", 0.25)
        time.sleep(0.5)
    printed = out.getvalue().splitlines()
    assert printed
    assert printed[0].startswith("  ... fitting kmeans k=2  25%: ")
    assert printed[0].endswith("so far")
    assert len(printed) <= 5


def test_a_terminal_gets_no_such_lines() -> None:
    display, out = live(True, 3, heartbeat=0.1)
    with display:
        display.stage("fitting", 0.25)
        time.sleep(0.3)
    assert "so far" not in out.getvalue()


def test_the_bar_moves_while_jobs_are_fitted_together_and_estimates_the_time_left() -> None:
    display, _ = live(True, 9)
    with display:
        assert display.seconds_left() is None
        for _ in range(2):
            display.finished(outcome(resumed=True))
        assert display.seconds_left() is None, "jobs that were finished before say nothing of the speed"
        bar = display._progress.tasks[0]
        seen = []
        for share in (0.2, 0.6, 1.0):
            display.work(7 * share / 2)
            seen.append(bar.completed)
        assert seen == pytest.approx([2.7, 4.1, 5.5])
        left = display.seconds_left()
        assert left is not None
        assert left == pytest.approx((time.monotonic() - display._began), rel=0.5)
        display.finished(outcome())
        assert bar.completed == 5.5, "the bar does not go back"
        for _ in range(6):
            display.finished(outcome())
        assert bar.completed == 9
        assert bar.fields["finished"] == 9
        display.finished(outcome(share=1 / 4))
        assert bar.fields["finished"] == 9, "a fit on a share of the rows is no job of the sweep"


def test_durations_and_numbers() -> None:
    assert [duration(s) for s in (0.2, 42.3, 130, 7300, 12_000)] == ["1 s", "42 s", "2 min", "2 h 2 min", "3 h 20 min"]
    assert [format_metric(v) for v in (3.0, 0.12345, 1234.56, 1_234_567.8, 2e300)] == [
        "3",
        "0.1235",
        "1,234.6",
        "1,234,568",
        "2.0000e+300",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_help_wraps_at_spaces(width: int) -> None:
    lines = usage(width).splitlines()
    assert max(map(len, lines)) <= max(width, 62), "one word alone may be longer"
    words = set(usage(200).split())
    assert {word for line in lines for word in line.split()} == words


def test_the_work_on_a_batch_is_reported_while_it_runs(context: Any) -> None:
    """Jobs that are fitted together move the bar before the first of them ends, and each step is named when it begins."""
    from dataclasses import replace

    from gpuclust.compose import plan
    from gpuclust.pipeline import sweep
    from gpuclust.pipeline.job import run
    from gpuclust.pipeline.run_log import start

    printed: list[str] = []
    units: list[float] = []
    context = replace(context, work=units.append, say=printed.append)
    planned = plan(["data=catalogue", "data.n_rows=600", "report=none", "cluster.n_clusters=2,3,4"], multirun=True)
    jobs = list(sweep.jobs_of(planned, context.backend))
    run(jobs, [context.recorder.start_job(start(job, context), "sweep") for job in jobs], context, parent="sweep")
    assert any(0 < unit < 1.5 for unit in units), "fitting is the first half"
    assert max(units) == pytest.approx(3)
    stages = context.display.stages
    assert stages.index("fitting kmeans k=2 … kmeans k=4") < stages.index("scoring kmeans k=2 … kmeans k=4")
    assert printed[0].startswith("600 rows × 10 features: ")


def test_the_tree_of_hdbscan_is_named_and_moves_the_bar(context: Any) -> None:
    from dataclasses import replace

    from gpuclust.compose import plan
    from gpuclust.pipeline import sweep
    from gpuclust.pipeline.job import run
    from gpuclust.pipeline.run_log import start

    units: list[float] = []
    context = replace(context, work=units.append)
    planned = plan(["data=catalogue", "data.n_rows=600", "report=none", "score=none", "cluster=hdbscan"])
    jobs = list(sweep.jobs_of(planned, context.backend))
    run(jobs, [context.recorder.start_job(start(job, context), "sweep") for job in jobs], context, parent="sweep")
    assert any("building the HDBSCAN tree" in text for text in context.display.stages)
    assert any(0 < unit < 0.5 for unit in units), "the bar moves while the tree grows"
