"""Maps: every row is in them, at any number of rows, in its cluster's colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from gpuclust.pages import palette, raster
from gpuclust.report import figures as fg
from gpuclust.report.text_collection import TextCollection
from gpuclust.runtime.blocks import BLOCK_ROWS, DiskWriter


def written(figure: Figure) -> list[str]:
    """Every text that was drawn as outlines."""
    return [t for found in figure.findobj(TextCollection) for t in found.texts]


def rows_by_cluster(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Gaussian groups, ``labels`` -1 .. k-1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, k, n)
    return rng.normal(size=(n, 2)) + labels[:, None] * (0.8, -0.3), labels


def test_every_one_of_a_million_rows_is_in_the_map(seed: int) -> None:
    xy, labels = rows_by_cluster(1_000_000, 6, seed)
    xy[0] = (4e3, -4e3)  # An outlier beyond the frame is in it all the same.
    figure = fg.cluster_map(xy, labels)
    (image,) = figure.axes[0].images
    picture = np.asarray(image.get_array())
    height, width = picture.shape[:2]
    frame = raster.frame_of(xy)
    counted = raster.rasterize(xy, labels, frame, width, height)
    assert counted.counts.sum() == 1_000_000
    assert frame.beyond(xy) >= 1
    np.testing.assert_array_equal((picture != 255).any(axis=2), counted.counts > 0)
    np.testing.assert_array_equal(picture, raster.paint(counted))


@pytest.mark.parametrize("n", [3_000, 2 * BLOCK_ROWS + 5])
def test_rows_on_disk_make_the_map_of_the_same_rows_in_memory(n: int, tmp_path: Path) -> None:
    xy, labels = rows_by_cluster(n, 6, 0)
    coordinates = np.column_stack([xy, np.zeros(n)]).astype(np.float32)
    coordinates[0] = (4e3, -4e3, 0)
    writer = DiskWriter(tmp_path / "coordinates", 3, np.float32)
    writer.append(coordinates)
    pictures = [fg.to_png(fg.cluster_map(held, labels)) for held in (coordinates, writer.close())]
    assert pictures[0] == pictures[1]


@given(n=st.integers(0, 300), k=st.integers(1, 9), side=st.integers(1, 12), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_the_raster_equals_counting_cell_by_cell(n: int, k: int, side: int, seed: int) -> None:
    xy, labels = rows_by_cluster(n, k, seed)
    frame = raster.frame_of(xy)
    found = raster.rasterize(xy, labels, frame, side, side + 1)
    expected = np.zeros((k + 1, side + 1, side), int)
    for (x, y), label in zip(xy, labels, strict=True):
        column = min(int((x - frame.x0) * (side / (frame.x1 - frame.x0))), side - 1)
        row = min(int((y - frame.y0) * ((side + 1) / (frame.y1 - frame.y0))), side)
        expected[label if label >= 0 else k, row, column] += 1
    np.testing.assert_array_equal(found.counts, expected.sum(axis=0))
    winner = expected.argmax(axis=0)  # The first of equals, the noise last: the same rule.
    winner = np.where(expected.sum(axis=0) == 0, -2, np.where(winner == k, -1, winner))
    np.testing.assert_array_equal(found.dominant, winner)


def test_below_the_limit_there_is_a_mark_for_each_row_in_its_colour() -> None:
    xy, labels = rows_by_cluster(3_000, 4, 1)
    axes = fg.cluster_map(xy, labels).axes[0]
    drawn = [line for line in axes.lines if line.get_gid() == "rows"]
    points = np.concatenate([np.column_stack((line.get_xdata(), line.get_ydata())) for line in drawn])
    np.testing.assert_array_equal(points[np.lexsort(points.T)], xy[np.lexsort(xy.T)])
    for cluster in range(-1, 4):
        mine = [len(line.get_xdata()) for line in drawn if line.get_color() == palette.cluster_color(cluster)]
        assert sum(mine) == (labels == cluster).sum()


def test_the_number_of_a_cluster_is_placed_at_its_own_row() -> None:
    turn = np.linspace(0, np.pi, 500)
    moon = np.column_stack((np.cos(turn), np.sin(turn)))
    clusters, at = raster.central_rows(np.vstack((moon, moon + np.array([5, 0]))), np.repeat([0, 1], 500))
    assert clusters.tolist() == [0, 1]
    assert any((moon == at[0]).all(axis=1))


def test_the_key_has_names_and_shares() -> None:
    labels = np.repeat([0, 1, -1], [60, 30, 10])
    figure = fg.cluster_map(
        np.random.default_rng(0).normal(size=(100, 2)), labels, names={0: "High energy"}, explained=(0.4, 0.2)
    )
    assert {"High energy", "cluster 1", "noise", "60.0 %", "30.0 %", "10.0 %"} <= set(written(figure))
    assert "first principal component (40.0 %)" in written(figure)


@pytest.mark.real
def test_real_tracks_are_all_in_the_map(real_data: Path) -> None:
    frame = pd.read_csv(real_data / "tracks_114k.csv", usecols=["energy", "valence", "track_genre"])
    xy, labels = frame[["energy", "valence"]].to_numpy(), pd.factorize(frame["track_genre"])[0]
    counted = raster.rasterize(xy, labels, raster.frame_of(xy), 280, 200)
    assert counted.counts.sum() == len(frame) == 114_000
    assert fg.to_png(fg.cluster_map(xy, labels)).startswith(b"\x89PNG")
