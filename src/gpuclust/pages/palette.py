"""The colour of each cluster: every figure, page and user interface draws a cluster in the same colour.

Eight clusters can be distinguished with any of the common forms of colour blindness: six colours of Okabe and Ito
("Color Universal Design", 2008), then an indigo and a brown that differ from them in lightness. Twelve more are
distinct in ordinary vision; figures with more than eight clusters also carry direct labels. Beyond twenty the
colours repeat.
"""

from __future__ import annotations

CLUSTER_COLORS: tuple[str, ...] = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#332288",
    "#7A4419",
    "#AA3377",
    "#B5BD61",
    "#EE6677",
    "#117733",
    "#8F7EE5",
    "#661100",
    "#44AA99",
    "#8C564B",
    "#D8B4F8",
    "#5D3A9B",
    "#0B4D3B",
    "#FFB070",
)
NOISE_COLOR = "#B8B8B8"

SERIES_COLORS: tuple[str, ...] = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#332288",
    "#E69F00",
    "#56B4E9",
    "#7A4419",
)
"""For lines that are not clusters (a covariance type, a seed): the same colours in an order suited to thin lines."""

INK = "#1F2328"
PAPER = "#FFFFFF"


def cluster_color(cluster: int) -> str:
    """The ``#RRGGBB`` colour of a cluster; noise (-1) is grey."""
    if cluster < 0:
        return NOISE_COLOR
    return CLUSTER_COLORS[int(cluster) % len(CLUSTER_COLORS)]


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue of a ``#RRGGBB`` colour, 0..255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two ``#RRGGBB`` colours, 1..21 (WCAG 2.2, "contrast ratio")."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def ink_on(color: str) -> str:
    """The text colour (dark ink or white) that reads better on ``color``."""
    return PAPER if contrast(PAPER, color) >= contrast(INK, color) else INK


def _luminance(color: str) -> float:
    """Relative luminance, 0..1 (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb(color))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
