"""Colours that everybody can tell apart, and text from the data that is safe to show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.pages import palette, text
from gpuclust.report import figures as fg
from gpuclust.report import text_collection as letters

SIMULATED = {  # Machado, Oliveira and Fernandes (2009), severity 1.
    "ordinary": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def seen(colors: tuple[str, ...], vision: str) -> np.ndarray:
    """Colours (m, 3) in OKLab (Ottosson, 2020) as somebody with this vision sees them."""
    srgb = np.array([palette.rgb(c) for c in colors]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ SIMULATED[vision].T, 0, 1)
    cone = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
           [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(linear @ np.array(cone).T) @ np.array(lab).T


def nearest(colors: tuple[str, ...], vision: str) -> float:
    """The smallest distance between two of the colours."""
    lab = seen(colors, vision)
    gaps = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    return float(gaps[np.triu_indices(len(colors), 1)].min())


@pytest.mark.parametrize("vision", SIMULATED)
def test_eight_clusters_are_told_apart_with_any_colour_vision(vision: str) -> None:
    # 0.02 in OKLab is a just noticeable difference; Okabe and Ito's own six are 0.076 apart at the closest.
    assert nearest(palette.CLUSTER_COLORS[:8], vision) > 0.07


def test_twenty_clusters_and_the_noise_are_told_apart_in_ordinary_vision() -> None:
    assert len(set(palette.CLUSTER_COLORS)) == 20
    # Two just noticeable differences.
    assert nearest((*palette.CLUSTER_COLORS, palette.NOISE_COLOR), "ordinary") > 0.04


def test_a_cluster_has_one_colour_and_noise_is_grey() -> None:
    assert palette.cluster_color(-1) == palette.NOISE_COLOR
    assert len(set(palette.rgb(palette.NOISE_COLOR))) == 1
    assert palette.cluster_color(3) == palette.CLUSTER_COLORS[3] == palette.cluster_color(np.int32(23))


def test_numbers_on_the_colours_can_be_read() -> None:
    for color in (*palette.CLUSTER_COLORS, palette.NOISE_COLOR):
        # WCAG 2.2 asks for 3 for graphics and large text.
        assert palette.contrast(color, palette.ink_on(color)) >= 3


def test_outlines_have_the_width_of_matplotlibs_own_text() -> None:
    figure = fg.elbow([2, 3], [2.0, 1.0])
    figure.axes[0].set_title("High energy and High tempo", fontsize=40)
    own = figure.axes[0].title.get_window_extent().width / figure.dpi
    # Theirs is hinted to whole pixels and kerned, and is the ink without the side bearings.
    assert letters.width("High energy and High tempo", 40) == pytest.approx(own, rel=0.02)


@given(line=st.text(max_size=60), inches=st.floats(0.1, 3))
@settings(deadline=None, max_examples=100)
def test_fitted_text_fits(line: str, inches: float) -> None:
    fitted = letters.fit(line, 8, inches)
    assert letters.width(fitted, 8) <= inches or len(fitted) <= 1


def test_a_name_is_broken_between_its_parts_and_never_cut_in_one() -> None:
    name = "Low danceability · high acousticness · low energy · higher valence"
    for inches in np.linspace(1.3, 4.5, 30):
        first, second = letters.fit_two(name, 8, float(inches))
        shown = [part for line in (first, second) if line for part in line.split(" · ")]
        assert shown == name.split(" · ")[: len(shown)]
        assert max(letters.width(first, 8), letters.width(second, 8)) <= inches
    assert letters.fit_two(name, 8, 9.0) == (name, "")


@given(line=st.text(alphabet=st.characters(exclude_categories=[]), max_size=80), limit=st.integers(1, 40))
def test_one_line_is_one_encodable_line_within_its_limit(line: str, limit: int) -> None:
    safe = text.one_line(line, limit)
    assert len(safe) <= limit
    safe.encode("utf-8")
    assert not any(c in safe for c in "\n\r\t\x00\x7f\x85\u2028\u202e\u2066")


def test_numbers_as_people_read_them() -> None:
    assert [text.number(v) for v in (89741, 0.14562, 462345.81, np.float32(2.5), float("nan"), "x")] == [
        "89,741", "0.1456", "462,345.8", "2.5", "–", "x",
    ]  # fmt: skip
    assert [text.percent(v) for v in (0, 0.0001, 0.2314, 1)] == ["0 %", "<0.1 %", "23.1 %", "100.0 %"]
