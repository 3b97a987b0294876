"""The explorer's reasons for a row, and what a person can do to a cluster there; without a browser."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import gpuclust as gc
from gpuclust import edits
from gpuclust.serve.explorer import charts, launch
from gpuclust.serve.explorer.cluster_edits import split_commands
from gpuclust.serve.explorer.session import OpenExport, colors_of
from gpuclust.serve.explorer.settings import Settings, configure, settings
from gpuclust.serve.library import Library
from gpuclust.serve.schemas import Why
from tests.exporting import made_export, tracks


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Mapping[str, Path]:
    """Exports of tracks: 3 clusters of K-Means, and clusters of HDBSCAN."""
    place = tmp_path_factory.mktemp("reasons")
    density = ("cluster=hdbscan", "cluster.min_cluster_size=25")
    return {
        "kmeans": made_export(tracks(), place / "kmeans", store_template),
        "hdbscan": made_export(tracks(), place / "hdbscan", store_template, *density),
    }


@pytest.fixture
def out(made: Mapping[str, Path], tmp_path: Path) -> Path:
    """A copy of the export of K-Means, which a test may edit."""
    return Path(shutil.copytree(made["kmeans"], tmp_path / "out"))


def opened(folder: Path) -> OpenExport:
    library = Library.open(folder)
    clusters = {c.cluster: c for c in library.clusters}
    return OpenExport(folder, "v", library, clusters, colors_of(library.facts.manifest.get("colors"), clusters))


def names_of(folder: Path) -> dict[int, str]:
    return {row["cluster"]: row["name"] for row in edits.open_edits(folder).clusters}


def card(id: str) -> None:
    from gpuclust.serve.explorer.items import item_card
    from gpuclust.serve.explorer.session import open_export

    shown = open_export()
    item_card(shown, shown.library.item(id), "found")


def cluster_page() -> None:
    from gpuclust.serve.explorer.views.clusters import clusters

    clusters()


def test_a_row_has_its_reasons_memberships_and_outlier_score(out: Path) -> None:
    configure(Settings(out))
    shown = AppTest.from_function(card, args=("track00007",), default_timeout=120).run()
    assert not shown.get("plotly_chart"), "nothing is computed before the switch is on"
    (switch,) = [t for t in shown.toggle if t.label == "Why this cluster?"]
    switch.set_value(True).run()
    assert not shown.exception
    assert len(shown.get("plotly_chart")) == 1
    library = Library.open(out)
    row = pd.DataFrame([dict(library.item("track00007").features)])
    said, soft = gc.load_model(out).explain(row).iloc[0], gc.load_model(out).memberships(row, top=3).iloc[0]
    names = {c.cluster: f"{c.cluster} · {c.name}" for c in library.clusters}
    likely = shown.dataframe[0].value
    assert likely["cluster"].tolist() == [names[soft[f"cluster_{i}"]] for i in (1, 2, 3)]
    assert likely["probability"].tolist() == [f"{soft[f'probability_{i}']:.1%}" for i in (1, 2, 3)]
    assert any(names[said["cluster"]] in t.value and names[said["next"]] in t.value for t in shown.text)
    outlier = charts.figure(float(soft["outlier"])).replace(".", "\\.")
    assert any(f"Outlier score {outlier} \\(distance to the centre\\)" in c.value for c in shown.caption)


def test_a_row_of_noise_has_memberships_and_says_why_it_has_no_contributions(made: Mapping[str, Path]) -> None:
    configure(Settings(made["hdbscan"]))
    library = Library.open(made["hdbscan"])
    noise = library.cluster_items(-1, limit=1).items[0]
    shown = AppTest.from_function(card, args=(noise.id,), default_timeout=120).run()
    shown.toggle[-1].set_value(True).run()
    assert not shown.exception
    assert any("hdbscan has no centres" in c.value for c in shown.caption)
    assert any("of this row of noise" in c.value for c in shown.caption)
    assert any("GLOSH" in c.value for c in shown.caption)
    assert len(shown.dataframe[0].value) == sum(c.cluster >= 0 for c in library.clusters)


def test_the_bars_add_up_to_the_difference_and_stand_on_the_side_that_they_speak_for(out: Path) -> None:
    shown = opened(out)
    features = dict.fromkeys(shown.library.features, 0.5)
    values = dict(zip(features, (-0.5, 0.25, -0.125, 0.0, 0.0), strict=True))
    own, other = charts.contributions(shown, Why("i", 0, "", 1, "", -0.375, values, 0.0), features).data
    assert (own.name, other.name) == (f"for {shown.name(0)}", f"for {shown.name(1)}")
    assert (own.marker.color, other.marker.color) == (shown.colors[0], shown.colors[1])
    assert list(own.x)[:2] == [0.5, 0.125]
    assert list(other.x) == [-0.25]
    many = {f"f{i}": -1.0 / (i + 1) for i in range(14)}
    own, other = charts.contributions(shown, Why("i", 9, "", 8, "", 0.0, many, 0.5), {}).data
    assert list(own.y)[-1] == "4 other features"
    assert sum(own.x) + sum(other.x) == pytest.approx(-sum(many.values()) - 0.5)
    assert list(other.y) == ["sizes and spreads"]


def test_a_cluster_is_renamed_on_its_page(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(Settings(out, rename=edits.name_clusters))
    shown = AppTest.from_function(cluster_page, default_timeout=120)
    shown.query_params["cluster"] = "1"
    shown.run()
    assert shown.text_input[0].value == names_of(out)[1]
    shown.text_input[0].set_value("Late-Night Chill")
    shown.button("FormSubmitter:rename-Save").click().run()
    assert not shown.exception
    assert "Late\\-Night Chill" in shown.title[0].value
    assert names_of(out)[1] == "Late-Night Chill"
    shown.text_input[0].set_value(names_of(out)[0])
    shown.button("FormSubmitter:rename-Save").click().run()
    assert "is called" in shown.error[0].value, "one line, and no change"
    assert names_of(out)[1] == "Late-Night Chill"
    # a server that others reach changes nothing, and shows the command
    for host, allowed in (("127.0.0.1", True), ("0.0.0.0", False)):
        monkeypatch.setattr(launch, "_serve", lambda rules, listening: None)
        monkeypatch.setattr(launch, "_announce", lambda *_: None)
        assert launch.explore(out, host=host, port=0, token="x" * 20, rename=edits.name_clusters) == 0
        assert (settings().rename is not None) == allowed
    shown.run()
    assert not shown.text_input
    assert shown.code[0].value == 'gpuclust name out 1="NAME"'


def test_the_command_that_divides_a_cluster_names_its_run(out: Path) -> None:
    run_id = Library.open(out).facts.manifest["run_id"]
    assert split_commands(opened(out), 2) == (
        f"gpuclust split {run_id}:2", "gpuclust export best --out out-2", "gpuclust explore out-2",
    )  # fmt: skip
    edits.merge_clusters(out, [0, 2])  # the run has the clusters before the merge
    assert split_commands(opened(out), 0)[0] == f"gpuclust split {run_id}:0+2"
