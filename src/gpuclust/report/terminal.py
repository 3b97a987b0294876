"""Output in a terminal: live progress, a line for each job, the leaderboard, and tables of agreement."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gpuclust.algorithms.registry import algorithm_of

# Columns of the leaderboard after the job, its number of clusters and the metric that chose it, in order of priority.
OTHER_METRICS = ("noise_fraction", "silhouette", "bic", "inertia", "relative_validity", "calinski_harabasz",
                 "davies_bouldin", "prediction_strength", "fit_seconds")  # fmt: skip
HEADERS = {
    "n_clusters": "k",
    "noise_fraction": "noise",
    "bic": "BIC",
    "aic": "AIC",
    "icl": "ICL",
    "fit_seconds": "fit s",
}
MAX_ROWS = 15
MAX_PAIRS = 40
GAP = 2
# Seconds without output after which a log gets a line that says which step is running.
HEARTBEAT = 12.0


class Live:
    """Live progress of ``total`` jobs on standard error: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, console: Console | None = None, *, heartbeat: float = HEARTBEAT) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._total, self._done, self._reused = total, 0, 0
        self._began = self._last_line = time.monotonic()
        self._stage, self._units = "", 0.0
        self._said: set[str] = set()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn(f"{{task.fields[finished]}}/{total}"),
            TimeElapsedColumn(),
            _TimeLeft(self),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._jobs = self._progress.add_task("jobs", total=total, finished=0)
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True)

    def __enter__(self) -> Live:
        self._progress.start()
        if not self.console.is_terminal:
            self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._progress.stop()

    def stage(self, text: str, done: float = 0.0) -> None:
        """Show the current step; ``done`` is the fraction of it that is finished."""
        percent = f" {done:4.0%}" if 0 < done < 1 else ""
        self._stage = f"{text}{percent}"
        self._progress.update(self._jobs, description=escape(self._stage))

    def work(self, units: float) -> None:
        """Update the work done on the jobs that run together, counted in jobs: 1.5 when three of them are half done."""
        self._units = max(self._units, min(self._done + units, self._total))
        self._progress.update(self._jobs, completed=self._units)

    def finished(self, outcome: Any) -> None:
        """Print a line for a finished job; one on a share of the rows is not counted."""
        width = self.console.width if self.console.is_terminal else None
        if outcome.job.share < 1:
            self._print(outcome_line(outcome, " " * len(f"{0:>3}/{self._total}"), width))
            return
        self._done += 1
        self._reused += bool(outcome.resumed)
        self._units = max(self._units, self._done)
        self._progress.update(self._jobs, completed=self._units, finished=self._done)
        self._print(outcome_line(outcome, f"{self._done:>3}/{self._total}", width))

    def say(self, text: str) -> None:
        """Print a line above the progress bar; a repeated line is printed once only."""
        if text not in self._said:
            self._said.add(text)
            self._print(Text(text, "yellow" if "warning: " in text else ""))

    def seconds_left(self) -> float | None:
        """The estimated time left in seconds; None until 2 % of the work is done."""
        done = self._units - self._reused
        if done < 0.02 * self._total:
            return None
        return (time.monotonic() - self._began) * (self._total - self._units) / done

    def _print(self, text: Text) -> None:
        self._last_line = time.monotonic()
        self.console.print(text, soft_wrap=not self.console.is_terminal)

    def _beat(self, seconds: float) -> None:
        while not self._stop.wait(seconds / 10):
            now = time.monotonic()
            if self._stage and now - self._last_line >= seconds:
                left = self.seconds_left()
                more = f", about {duration(left)} left" if left else ""
                self._print(Text(f"  ... {self._stage}: {duration(now - self._began)} so far{more}"))


class _TimeLeft(ProgressColumn):
    """The estimated time left."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live

    def render(self, task: Task) -> Text:
        left = self._live.seconds_left()
        return Text(f"about {duration(left)} left" if left else "", style="dim")


def duration(seconds: float) -> str:
    """``8 s``, ``2 min``, ``3 h 10 min``."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def outcome_line(outcome: Any, count: str, width: int | None) -> Text:
    """A finished job as a line of at most ``width`` cells (no limit when None); the last figures are dropped first.

    A long name or reason can take more than a line.
    """
    start = Text.assemble("  ", (count, "dim"), "  ")
    if outcome.error:
        return Text.assemble(start, ("failed", "red"), f"  {outcome.job.name}: {outcome.error}")
    if outcome.resumed:
        start.append("reused (already finished)", "cyan")
    else:
        start.append("done", "green")
    start.append(f"  {outcome.job.name}")
    metrics = outcome.metrics
    words = []
    if "n_clusters" in metrics and not algorithm_of(outcome.job.config.cluster).counts_clusters:
        words.append(f"{metrics['n_clusters']:.0f} clusters")
    if "silhouette" in metrics:
        with_noise = metrics.get("silhouette_with_noise") if metrics.get("noise_fraction") else None
        words.append(f"silhouette {metrics['silhouette']:.4f}")
        words += [] if with_noise is None else [f"with noise {with_noise:.4f}"]
    if metrics.get("noise_fraction"):
        words.append(f"noise {metrics['noise_fraction']:.0%}")
    words += [f"{HEADERS.get(m, m)} {metrics[m]:,.0f}" for m in ("inertia", "bic") if m in metrics]
    if not outcome.resumed:
        seconds = metrics.get("fit_seconds", 0.0) + metrics.get("score_seconds", 0.0)
        words.append(f"{seconds:.2f} s")
    while words and width is not None and start.cell_len + 2 + cell_len(" · ".join(words)) > width:
        words.pop()
    return Text.assemble(start, "  " if words else "", " · ".join(words))


def leaderboard(rows: Sequence[Mapping[str, Any]], metric: str, width: int | None = None) -> Text:
    """The best jobs, the chosen one marked, in lines of at most ``width`` cells (no limit when None).

    The job, its number of clusters and ``metric`` come first; other metrics follow as long as they fit and differ
    between jobs. Numbers and headers are never cut; long names of jobs are wrapped.
    """
    shown = [row for i, row in enumerate(rows) if i < MAX_ROWS or row["chosen"]]
    names = [str(row["job"]) for row in shown]
    longest = max([len("job"), *map(cell_len, names)])
    columns = [_column(name, shown) for name in ("n_clusters", metric)]
    room = None if width is None else width - 2 - min(longest, max(width // 2, 12))
    noisy = any(row.get("noise_fraction") for row in rows)
    for name in (*(("noise_fraction", "silhouette_with_noise") if noisy else ()), *OTHER_METRICS):
        if name in (metric, *(c.name for c in columns)) or not _differs(name, rows):
            continue
        column = _column(name, shown)
        if room is not None and sum(c.width + GAP for c in (*columns, column)) > room:
            break
        columns.append(column)
    taken = sum(c.width + GAP for c in columns)
    job = longest if width is None else max(8, min(longest, width - 2 - taken))
    lines = _header_lines(columns, job)
    for i, row in enumerate(shown):
        cells = "".join(" " * GAP + " " * (c.width - cell_len(c.cells[i])) + c.cells[i] for c in columns)
        first, *rest = _wrapped(names[i], job)
        style = "bold" if row["chosen"] else ""
        lines.append(Text(f"{'→' if row['chosen'] else ' '} {set_cell_size(first, job)}{cells}", style))
        lines += [Text(f"  {more}", style) for more in rest]
    if hidden := len(rows) - len(shown):
        lines.append(Text(f"  and {hidden} more in leaderboard.csv", "dim"))
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


class _Column:
    """The cells and the header of a metric; as wide as its widest cell and its header's longest word."""

    def __init__(self, name: str, cells: list[str]) -> None:
        header = HEADERS.get(name, name.replace("_", " "))
        self.name, self.cells = name, cells
        self.width = max(cell_len(text) for text in (*cells, *header.split()))
        self.header = _wrapped(header, self.width)


def _column(metric: str, rows: Sequence[Mapping[str, Any]]) -> _Column:
    values = [row.get(metric) for row in rows]
    return _Column(metric, [_cell(metric, value) for value in values])


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if metric.endswith("_fraction") else format_metric(value)


def _differs(metric: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    cells = {_cell(metric, row.get(metric)) for row in rows}
    return len(cells) > 1 or (len(rows) == 1 and cells != {""})


def _header_lines(columns: Sequence[_Column], job: int) -> list[Text]:
    height = max(len(c.header) for c in columns)
    lines = []
    for i in range(height):
        at = i - height  # headers stand on the last line
        words = [c.header[at] if len(c.header) >= -at else "" for c in columns]
        cells = "".join(" " * (GAP + c.width - cell_len(word)) + word for c, word in zip(columns, words, strict=True))
        lines.append(Text(f"  {set_cell_size('job' if at == -1 else '', job)}{cells}", "bold"))
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most ``width`` cells, at spaces where there are any."""
    return [line.plain.rstrip() for line in Text(text).wrap(_PLAIN, width)] or [""]


_PLAIN = Console(width=80)


def agreements(comparisons: Sequence[Any]) -> Table:
    """A table of agreement of each pair of clusterings: with noise as a cluster, and over the rows that both cluster."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("first", "second", "rows counted"):
        table.add_column(column, overflow="fold")
    for column in ("rows", "AMI", "ARI", "homogeneity", "completeness"):
        table.add_column(column, justify="right", no_wrap=True)
    for c in comparisons:
        kinds = [("all", c.with_noise)] + ([("in clusters", c.without_noise)] if c.has_noise else [])
        for kind, a in kinds:
            cells = [f"{v:.4f}" for v in (a.ami, a.ari, a.homogeneity, a.completeness)]
            table.add_row(escape(c.first), escape(c.second), kind, f"{a.n_rows:,}", *cells)
    return table


def matching(comparison: Any) -> Table:
    """A table of matched clusters: each cluster's partner, and the rows they share as a count and as shares of either and of both."""
    counts = comparison.contingency
    sizes = [
        dict(zip(names, totals.tolist(), strict=True))
        for names, totals in ((counts.first, counts.table.sum(axis=1)), (counts.second, counts.table.sum(axis=0)))
    ]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in (comparison.first, comparison.second, "shared rows", "of the first", "of the second", "Jaccard"):
        table.add_column(escape(column), justify="right")
    pairs = [(m.first, m.second, m.shared) for m in comparison.matches]
    if comparison.has_noise:
        first, second = (-1 if -1 in side else None for side in sizes)
        both = first is not None and second is not None
        shared = int(counts.table[list(counts.first).index(-1), list(counts.second).index(-1)]) if both else 0
        pairs.append((first, second, shared))
    for first, second, shared in pairs[:MAX_PAIRS]:
        own, other = sizes[0].get(first, 0), sizes[1].get(second, 0)
        cells = ["-" if c is None else "noise" if c < 0 else f"{c}" for c in (first, second)]
        shares = [f"{shared / n:.1%}" if n else "" for n in (own, other, own + other - shared)]
        matched = first is not None and second is not None
        table.add_row(*cells, *([f"{shared:,}", *shares] if matched else ["", "", "", ""]))
    if len(pairs) > MAX_PAIRS:
        table.add_row("...", f"{len(pairs) - MAX_PAIRS} more: --out")
    return table


def format_metric(value: float) -> str:
    """A metric as text: whole numbers without decimals, thousands separators, four decimals below 1,000."""
    if abs(value) >= 1e15:
        return f"{value:.4e}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 100_000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4f}"
