"""Figures of rows, groups and trees draw the numbers that they are given; `report=full`, `gpuclust figures` and Python give the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.errors import ConfigurationError
from gpuclust.pages.palette import cluster_color, rgb
from gpuclust.report import figures as fg
from gpuclust.report.text_collection import TextCollection
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.test_figures import HOSTILE, decoded


def written(figure: Figure) -> str:
    """Every text that was drawn."""
    return "\n".join(t for found in figure.findobj(TextCollection) for t in found.texts)


def test_arrows_of_a_biplot_keep_their_directions_and_proportions() -> None:
    rng = np.random.default_rng(0)
    loadings = np.array([[3.0, 0.0], [0.0, -1.5], [-1.0, 1.0]])
    figure = fg.biplot(rng.normal(size=(50, 2)), np.arange(50) % 2, loadings, ["a", "b", "c"], explained=[0.6, 0.2])
    arrows = [text for text in figure.axes[0].texts if text.get_gid() == "arrow"]
    ends = np.array([text.xy for text in arrows])
    order = [0, 1, 2]  # the longest first
    np.testing.assert_allclose(ends / ends[0, 0] * 3.0, loadings[order], atol=1e-12)
    assert "first principal component (60.0 %)" in written(figure)
    assert decoded(figure).std() > 0


def test_a_pair_plot_has_every_pair_and_the_rows_of_each_cluster() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(60, 3)), np.repeat([0, 1, -1], 20)
    figure = fg.pair_plot(values, labels, ["x", HOSTILE, "z"], names={0: HOSTILE}, n_rows=1000)
    assert len(figure.axes) == 9
    dots = [
        c for axes in figure.axes for c in axes.collections if isinstance(c, PathCollection) and c.get_gid() == "rows"
    ]
    assert len(dots) == 6
    np.testing.assert_allclose(np.sort(dots[0].get_offsets()[:, 0]), np.sort(values[:, 1]))
    drawn = (np.array(dots[0].get_facecolors())[:, :3] * 255).round().astype(int).tolist()
    assert sorted(map(tuple, drawn)) == sorted(20 * [rgb(cluster_color(c)) for c in (0, 1, -1)])
    assert "60 of 1,000 rows" in written(figure)
    decoded(figure)


def test_silhouettes_are_sorted_within_their_clusters() -> None:
    values, labels = np.array([0.1, 0.5, -0.2, 0.3, 0.4]), np.array([0, 0, 0, 1, 1])
    figure = fg.silhouette_plot(values, labels, mean=float(values.mean()))
    bands = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    tops = [float(c.get_paths()[0].vertices[:, 0].max()) for c in bands]
    lows = [float(c.get_paths()[0].vertices[:, 0].min()) for c in bands]
    assert (tops, lows) == ([0.5, 0.4], [-0.2, 0.0])
    assert "20 % are nearer to another cluster (below 0) · dashed: mean 0.220" in written(figure)


def test_lines_of_parallel_coordinates_are_the_means() -> None:
    z = np.array([[1.0, -1.0, 0.0], [0.5, 2.0, -0.5]])
    figure = fg.parallel_coordinates(z, ["a", "b", "c"], [30, 10], low=z - 0.5, high=z + 0.5, clusters=[0, 3])
    lines = [line for line in figure.axes[0].lines if line.get_gid() == "cluster"]
    assert [line.get_ydata().tolist() for line in lines] == z.tolist()
    assert [line.get_color() for line in lines] == [cluster_color(0), cluster_color(3)]
    assert "band: the middle half of the rows" in written(figure)


def test_bubbles_and_bars_of_groups() -> None:
    figure = fg.group_bubbles(
        [0.1, 0.9, 0.5], [1.0, 2.0, 3.0], [100, 25, 4], ["rock", HOSTILE, "jazz"], [0, 1, -1],
        axis_names=("energy", "valence"), noun="genre", n_groups=114,
    )  # fmt: skip
    (dots,) = [c for c in figure.axes[0].collections if isinstance(c, PathCollection) and len(c.get_sizes()) == 3]
    assert (dots.get_sizes() / dots.get_sizes()[0]).tolist() == [1.0, 0.25, 0.04]
    assert "the 3 largest of 114" in written(figure)
    decoded(figure)
    bars = fg.group_counts([[30, 12], [5, 0]], ["rock", "jazz"], [0, 1], noun="genre")
    widths = [patch.get_width() for patch in bars.axes[0].patches]
    assert widths == [30, 5, 12, 0]
    assert "42" in written(bars)
    sizes = fg.cluster_sizes([7, 2], clusters=[0, -1])
    assert sum(patch.get_width() for patch in sizes.axes[0].patches) == 9


def test_a_condensed_tree_is_as_wide_as_its_rows() -> None:
    # Ten rows: two leave the root, then it divides into 5 and 3 rows; the chosen cluster 1 has the 5.
    parents = [10, 10, 10, 10, *[11] * 5, *[12] * 3]
    children = [8, 9, 11, 12, 0, 1, 2, 3, 4, 5, 6, 7]
    lambdas = [0.5, 0.5, 1.0, 1.0, *[2.0] * 5, *[1.5, 1.5, np.inf]]
    sizes = [1, 1, 5, 3, *[1] * 8]
    figure = fg.condensed_tree(parents, children, lambdas, sizes, labels={11: 1, 12: 0})
    (nodes,) = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    spans = [np.ptp(path.vertices[:, 0]) for path in nodes.get_paths()]
    assert sorted(np.round(spans, 9)) == [0.3, 0.5, 1.0]
    colors = {
        round(float(span), 1): tuple((np.array(color[:3]) * 255).round().astype(int))
        for span, color in zip(spans, nodes.get_facecolors(), strict=True)
    }
    assert colors[0.5] == rgb(cluster_color(1))
    assert colors[0.3] == rgb(cluster_color(0))
    decoded(figure)


def test_lines_of_a_clustergram_are_shared_rows() -> None:
    positions = np.array([-2.0, -1.0, 1.0, 3.0])
    labels = [np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0]), np.array([1, 2, 0, 0])]
    figure = fg.clustergram([2, 1, 3], labels, positions)
    (flows,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection) and c.get_gid() == "flows"]
    segments = {
        tuple(map(tuple, s.tolist())): w for s, w in zip(flows.get_segments(), flows.get_linewidths(), strict=True)
    }
    assert segments == {
        ((1.0, 0.25), (2.0, -1.5)): 6.0, ((1.0, 0.25), (2.0, 2.0)): 6.0,
        ((2.0, -1.5), (3.0, -2.0)): 3.0, ((2.0, -1.5), (3.0, -1.0)): 3.0, ((2.0, 2.0), (3.0, 2.0)): 6.0,
    }  # fmt: skip


FULL = {"cluster_sizes", "biplot", "pair_plot", "component_pairs", "parallel_coordinates", "silhouette_rows", "groups", "creators", "group_bubbles"}  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A store with a sweep that drew everything: three mixtures and an HDBSCAN of four groups."""
    import shutil

    folder = tmp_path_factory.mktemp("full")
    shutil.copy(store_template, folder / "mlflow.db")
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=6, size=(4, 5))
    group = np.arange(400) % 4
    table = pd.DataFrame(centres[group] + rng.normal(size=(400, 5)), columns=["a", "b", "c", "d", "e"])
    table["track_name"], table["artist"] = [f"t{i}" for i in range(400)], [f"artist {i % 9}" for i in range(400)]
    table["genre"] = np.array(["rock", "jazz", "folk", "soul"])[group]
    table.to_csv(folder / "t.csv", index=False)
    command = ["-m", f"data.path={folder / 't.csv'}", "data=table", "data.roles.group=genre", "data.roles.creator=artist",
               "cluster=gmm,hdbscan", "cluster.n_clusters=2,3,4", "score=none", "cluster.min_cluster_size=30", "cluster.n_init=1",
               "report=full", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]  # fmt: skip
    assert main(command) == 0
    return folder


def artifacts(recorder: MlflowRecorder, run: str) -> set[str]:
    with recorder.download(run, "figures") as folder:
        return {path.stem for path in folder.iterdir()}


def test_a_job_and_a_sweep_record_every_figure_that_applies(swept: Path) -> None:
    recorder = MlflowRecorder(f"sqlite:///{swept / 'mlflow.db'}", "gpuclust")
    jobs = {job.name: job for job in recorder.jobs()}
    mixture = artifacts(recorder, jobs["gmm k=4"].run_id)
    assert mixture >= FULL | {"map", "profile"}
    assert "condensed_tree" not in mixture
    dense = next(job for name, job in jobs.items() if name.startswith("hdbscan"))
    assert artifacts(recorder, dense.run_id) >= FULL | {"condensed_tree"}
    (sweep,) = recorder.sweeps()
    assert {"clustergram_gmm", "bic"} <= artifacts(recorder, sweep.run_id)
    with recorder.download(jobs["gmm k=4"].run_id, "report.html") as page:
        assert "Silhouette of each row" in page.read_text()


def test_the_command_draws_them_from_a_recorded_run(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, out = f"sqlite:///{swept / 'mlflow.db'}", tmp_path / "figures"
    recorder = MlflowRecorder(uri, "gpuclust")
    run = next(job.run_id for job in recorder.jobs() if job.name == "gmm k=3")
    assert main(["figures", run, "--out", str(out), "--uri", uri, "--clustergram"]) == 0
    assert {path.stem for path in out.iterdir()} == FULL | {"clustergram"}
    assert main(["figures", run, "--out", str(out), "--uri", uri]) == 2
    assert "--force" in capsys.readouterr().err
    dense = next(job.run_id for job in recorder.jobs() if job.name.startswith("hdbscan"))
    assert main(["figures", dense, "--out", str(tmp_path / "dense"), "--uri", uri, "--clustergram"]) == 0
    assert "a clustergram needs 3 numbers of clusters" in capsys.readouterr().err
    assert (tmp_path / "dense" / "condensed_tree.png").is_file()


def test_python_gives_them_too() -> None:
    X = np.vstack([np.random.default_rng(0).normal(centre, 0.3, size=(40, 3)) for centre in (0, 2, 5)])
    sweep: Any = gc.sweep(X, gc.KMeans(n_clusters=range(2, 5)), tracking=None, progress=False)
    drawn = sweep.best.figures()
    assert {"biplot", "pair_plot", "parallel_coordinates", "silhouette_rows"} <= set(drawn)
    assert all(isinstance(figure, Figure) for figure in drawn.values())
    (flows,) = [c for c in sweep.clustergram().axes[0].collections if c.get_gid() == "flows"]
    assert len(flows.get_segments()) >= 5
    single: Any = gc.sweep(X, gc.KMeans(n_clusters=[2, 3]), tracking=None, progress=False)
    with pytest.raises(ConfigurationError, match="a clustergram needs 3 numbers of clusters; this sweep has 2"):
        single.clustergram()
