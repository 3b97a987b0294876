"""The Sankey diagram of clusters through several runs: a column for each run, a band for the rows of a cluster that go to another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from gpuclust.pages.palette import INK, cluster_color
from gpuclust.pages.text import count, label_name
from gpuclust.report.style import LABEL_SIZE, NAME_SIZE, add_bare_axes, heading, new_figure, with_known_glyphs

BAR, GAP = 0.03, 0.02  # the width of a bar in columns, and the space between bars as a share of the height
MIN_LABEL = 0.02  # share of the height from which a bar has a label
MAX_NAME = 26  # characters of a name


def sankey(
    runs: Sequence[str], flows: Sequence[tuple[int, int, int, int]], names: Mapping[tuple[int, int], str] | None = None
) -> Figure:
    """Draw how the rows of clusters go from each run to the next.

    ``flows`` are (i, cluster, next cluster, rows): rows of a cluster of run i that are in a cluster of run i + 1. ``names``: (i, cluster) -> the name
    of a cluster. Bars are ordered by size, noise at the bottom; a band has the colour of the cluster that it comes from.
    """
    sizes: dict[tuple[int, int], int] = defaultdict(int)
    for i, first, second, rows in flows:
        sizes[i, first] += rows
        if i + 1 == len(runs) - 1:
            sizes[i + 1, second] += rows
    figure = new_figure(max(6.0, 3.2 * len(runs)), 6.0)
    axes = add_bare_axes(figure, 0.3, 0.3, 1.9, 1.1)
    axes.set(xlim=(0, len(runs) - 1 + BAR), ylim=(0, 1))
    total = max(sum(rows for (i, _), rows in sizes.items() if i == 0), 1)
    most = max(sum(1 for i, _ in sizes if i == run) for run in range(len(runs)))
    gap = min(GAP, 0.3 / max(most - 1, 1))
    scale = (1 - gap * (most - 1)) / total
    tops: dict[tuple[int, int], float] = {}
    for run, title in enumerate(runs):
        top = 1.0
        for cluster in sorted((c for i, c in sizes if i == run), key=lambda c: (c < 0, -sizes[run, c], c)):
            tops[run, cluster] = top
            height = sizes[run, cluster] * scale
            axes.add_patch(Rectangle((run, top - height), BAR, height, color=cluster_color(cluster), linewidth=0))
            if height >= MIN_LABEL:
                _label(axes, run + BAR * 1.3, top - height / 2, cluster, (names or {}).get((run, cluster), ""))
            top -= height + gap
        axes.text(run, 1.03, with_known_glyphs(title[:40]), fontsize=LABEL_SIZE, color=INK, va="bottom")
    leaves, enters = dict(tops), dict(tops)
    order = lambda flow: (flow[0], -tops[flow[0], flow[1]], -tops[flow[0] + 1, flow[2]])  # noqa: E731
    for i, first, second, rows in sorted(flows, key=order):
        height = rows * scale
        _band(axes, i + BAR, leaves[i, first], i + 1, enters[i + 1, second], height, cluster_color(first))
        leaves[i, first] -= height
        enters[i + 1, second] -= height
    heading(figure, "Lineage of the clusters", f"{count(total)} rows · the height of a band is its number of rows")
    return figure


def _label(axes: Axes, x: float, y: float, cluster: int, name: str) -> None:
    text = label_name(cluster) if cluster < 0 or not name else f"{cluster} · {name}"
    short = text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"
    axes.text(x, y, with_known_glyphs(short), fontsize=NAME_SIZE, color=INK, va="center", zorder=4)


def _band(axes: Axes, x0: float, y0: float, x1: float, y1: float, height: float, color: str) -> None:
    """A band from the top left to the top right corner, with edges that leave and enter horizontally."""
    middle = (x0 + x1) / 2
    points = [
        (x0, y0), (middle, y0), (middle, y1), (x1, y1),
        (x1, y1 - height), (middle, y1 - height), (middle, y0 - height), (x0, y0 - height), (x0, y0),
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    axes.add_patch(PathPatch(Path(points, codes), facecolor=color, alpha=0.35, linewidth=0, zorder=1))
