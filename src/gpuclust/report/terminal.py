"""What a person at a terminal sees: live progress, the leaderboard, the choice, and what to type next."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

SHOWN_METRICS = ("n_clusters", "silhouette", "calinski_harabasz", "davies_bouldin", "inertia", "bic",
                 "relative_validity", "noise_fraction", "fit_seconds")  # fmt: skip
MOST_ROWS = 15


class Live:
    """Live progress of ``total`` jobs on standard error; plain lines where that is no terminal."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._total, self._done, self._began = total, 0, time.perf_counter()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._jobs = self._progress.add_task("jobs", total=total)

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, text: str, done: float = 0.0) -> None:
        """What is being done now, and the share of it that is done."""
        percent = f" {done:4.0%}" if 0 < done < 1 else ""
        self._progress.update(self._jobs, description=escape(f"{text}{percent}"))

    def finished(self, outcome: Any) -> None:
        """One line for a job that ended."""
        self._done += 1
        self._progress.update(self._jobs, completed=self._done)
        self.console.print(f"  [dim]{self._done:>3}/{self._total}[/dim]  {_line(outcome)}", soft_wrap=True)

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        self.console.print(escape(text), soft_wrap=True)


def _line(outcome: Any) -> str:
    name = escape(outcome.job.name)
    if outcome.error:
        return f"[red]failed[/red]  {name}: {escape(outcome.error)}"
    metrics = outcome.metrics
    words = []
    if "silhouette" in metrics:
        words.append(f"silhouette {metrics['silhouette']:.4f}")
    words += [f"{metric} {metrics[metric]:,.0f}" for metric in ("inertia", "bic") if metric in metrics]
    if metrics.get("noise_fraction"):
        words.append(f"noise {metrics['noise_fraction']:.0%}")
    if "min_cluster_size" in metrics:
        words.insert(0, f"{metrics['n_clusters']:.0f} clusters")
    state = "[cyan]kept[/cyan]    " if outcome.resumed else "[green]done[/green]    "
    seconds = metrics.get("fit_seconds", 0.0) + metrics.get("score_seconds", 0.0)
    time_taken = "finished before" if outcome.resumed else f"{seconds:.2f} s"
    return f"{state}{name:<24} {' · '.join(words)}  [dim]{time_taken}[/dim]"


def leaderboard(rows: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """The best jobs, the chosen one marked; only metrics that some job has."""
    columns = [m for m in SHOWN_METRICS if any(m in row for row in rows)]
    if metric not in columns and any(metric in row for row in rows):
        columns.insert(0, metric)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column("job", no_wrap=True)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right", style="bold" if column == metric else "")
    for row in rows[:MOST_ROWS]:
        cells = [number(row[c]) if c in row else "" for c in columns]
        table.add_row("→" if row["chosen"] else "", escape(str(row["job"])), *cells)
    return table


def agreements(comparisons: Sequence[Any]) -> Table:
    """How far each pair of clusterings agrees: with noise as a cluster, and over the rows that both cluster."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("first", "second", "rows counted"):
        table.add_column(column, no_wrap=True)
    for column in ("rows", "AMI", "ARI", "homogeneity", "completeness"):
        table.add_column(column, justify="right")
    for c in comparisons:
        kinds = [("all", c.with_noise)] + ([("in clusters", c.without_noise)] if c.has_noise else [])
        for kind, a in kinds:
            cells = [f"{v:.4f}" for v in (a.ami, a.ari, a.homogeneity, a.completeness)]
            table.add_row(escape(c.first), escape(c.second), kind, f"{a.n_rows:,}", *cells)
    return table


def number(value: float) -> str:
    """A figure as people write it: whole when whole, thousands with commas, four decimals when small."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 100_000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4f}"
