"""A model of a mixed table in use: what people read of its clusters, `predict` and the JSON API with text and unknown categories, exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.config import Config, DataConfig
from gpuclust.describe import advice, describe, described_data
from gpuclust.edits import merge_clusters
from gpuclust.errors import ConfigurationError
from gpuclust.pages.cards import cards
from gpuclust.pipeline import start
from gpuclust.runtime.backend import BackendChoice
from gpuclust.serve.api import create_app
from gpuclust.serve.explorer.charts import contributions
from gpuclust.serve.explorer.views.clusters import _leading
from gpuclust.serve.library import Library
from gpuclust.tracking.pyfunc import _load_pyfunc
from tests.test_crafted import Client

N = 300
GENRES = ("rock", "folk", "jazz")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Three groups: a cluster is mostly of one genre, with an hour around which it is played; ``live`` is a flag."""
    rng = np.random.default_rng(0)
    group = np.arange(N) % 3
    genre = np.array(GENRES, dtype=object)[np.where(rng.random(N) < 0.9, group, (group + 1) % 3)]
    hour = (np.array([23.5, 8.0, 15.0])[group] + rng.normal(0, 1, N)) % 24
    return pd.DataFrame(
        {
            "tempo": (100 + 20 * group + rng.normal(0, 5, N)).round(3),
            "genre": genre,
            "live": rng.random(N) < 0.3,
            "hour": hour.round(3),
        }
    )


@pytest.fixture(scope="module")
def run(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("use") / "mixed.csv"
    frame.to_csv(path, index=False)
    return gc.fit(
        path,
        gc.KMeans(n_clusters=3, random_state=0),
        categorical=["genre", "live"],
        circular={"hour": 24},
        tracking=None,
        progress=False,
    )


@pytest.fixture(scope="module")
def folder(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(run.export(tmp_path_factory.mktemp("export") / "out"))


def test_a_merged_cluster_is_described_by_its_categories(
    run: Any, folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(folder, tmp_path / "out"))
    (merged,) = [row for row in merge_clusters(out, [0, 1]).clusters if row["cluster"] == 0]
    own = frame[run.labels_ <= 1]
    assert merged["size"] == len(own)
    for genre in GENRES:
        assert merged[f"mean_genre={genre}"] == pytest.approx((own["genre"] == genre).mean())
    assert "=" not in merged["name"] + merged["description"], "the words of the columns, not the names of the features"


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with Client(create_app(folder)) as opened:
        yield opened


def test_a_profile_has_the_columns_of_the_source(run: Any, folder: Path, frame: pd.DataFrame) -> None:
    clusters = run._result.profile.clusters
    for cluster in clusters:
        own = frame[run.labels_ == cluster.cluster]
        genre, live = cluster.categories
        assert (genre.column, live.column) == ("genre", "live")
        shares = own["genre"].value_counts(normalize=True)
        assert {s.value: pytest.approx(s.fraction) for s in genre.values} == shares.to_dict()
        assert [s.count for s in genre.values] == own["genre"].value_counts().tolist()
        top = genre.values[0]
        assert top.lift == pytest.approx(shares[top.value] / (frame["genre"] == top.value).mean())
        assert f"genre: {top.value} ({100 * top.fraction:.0f} %)" in cluster.name.lower()
        assert f"genre: {top.value} in {100 * top.fraction:.1f} %" in cluster.description
        assert not any(sign in cluster.name + cluster.description for sign in ("genre=", "sin("))
        assert list(cluster.numbers) == ["tempo"]
        assert f"genre: {top.value} ({top.fraction:.0%})" in _leading(cluster)
        assert "hour: around" in _leading(cluster)
    page = str(cards(clusters, {}, {}))
    assert ">genre</bdi></h4>" in page
    assert '<td title="tempo">' in page
    assert '<td title="sin(hour)">' not in page
    stored = pq.read_table(folder / "clusters.parquet").to_pylist()
    assert [c["categories"][0]["values"][0]["value"] for c in stored] == [
        c.categories[0].values[0].value for c in clusters
    ]


def _page_of_a_cluster() -> None:
    import streamlit as st

    from gpuclust.serve.explorer.views.clusters import _encoded

    _encoded(st.session_state["cluster"])


def test_the_explorer_shows_categories_and_the_mean_hour(run: Any, main_module: None) -> None:
    page = AppTest.from_function(_page_of_a_cluster, default_timeout=60)
    page.session_state["cluster"] = cluster = run._result.profile.clusters[0]
    shares, means = page.run().dataframe
    top = cluster.categories[0].values[0]
    assert shares.value.iloc[0].tolist() == ["genre", top.value, f"{top.fraction:.1%}", round(top.lift, 2)]
    assert means.value["column"].tolist() == ["hour"]


def test_a_logged_model_takes_the_columns_as_they_were(run: Any, folder: Path, frame: pd.DataFrame) -> None:
    found = _load_pyfunc(str(folder / "model")).predict(frame)
    assert found["cluster"].tolist() == run.labels_.tolist()


def test_reasons_and_memberships_are_of_the_columns(
    run: Any, client: Client, folder: Path, frame: pd.DataFrame
) -> None:
    found = run.model.explain(frame)
    columns = ["tempo", "genre", "live", "hour"]
    assert list(found) == ["cluster", "next", "difference", *columns, "constant"]
    assert found["cluster"].tolist() == run.labels_.tolist()
    np.testing.assert_allclose(found[[*columns, "constant"]].sum(axis=1), found["difference"], atol=1e-6)
    why = client.get("/api/v1/items/0/why").json()
    with Library.open(folder) as library:
        item = library.at([0])[0]
        shown = SimpleNamespace(clusters={c.cluster: c for c in library.clusters}, name=str, colors={})
        said = contributions(shown, SimpleNamespace(**why), item.features).to_dict()["data"]
    hover = [text for bar in said for text in bar["hovertext"]]
    start = f"genre: {frame['genre'][0]}<br>{why['cluster']}: "
    assert sum(text.startswith(start) for text in hover) == 1
    assert sum(text.startswith("hour<br>") and "around" in text for text in hover) == 1
    assert why["contributions"] == pytest.approx(found.loc[0, columns].to_dict(), abs=1e-5)


def test_a_merged_cluster_has_the_categories_of_its_rows(
    run: Any, folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    merge_clusters(copy, [0, 1])
    merged = pq.read_table(copy / "clusters.parquet").to_pylist()[0]
    shares = frame["genre"][run.labels_ < 2].value_counts(normalize=True)
    genre = merged["categories"][0]
    assert genre["column"] == "genre"
    assert [s["fraction"] for s in genre["values"]] == pytest.approx(shares.tolist())
    assert "genre=" not in merged["name"] + merged["description"]


def test_describe_suggests_the_columns_of_categories(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.assign(note=[f"n{i}" for i in range(N)]).to_csv(tmp_path / "d.csv", index=False)
    (line,) = (line for line in advice(*describe(described_data(tmp_path / "d.csv"))) if "categorical" in line)
    assert line.endswith("data.categorical=[genre, live]")


def test_the_api_places_rows_of_text(client: Client, run: Any, frame: pd.DataFrame) -> None:
    rows = json.loads(frame[:20].to_json(orient="records"))
    rows[19] |= {"genre": "polka"}
    rows[18] |= {"genre": None}
    answer = client.post("/api/v1/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    assert [p["cluster"] for p in found[:18]] == run.labels_[:18].tolist()
    assert {tuple(p["unknown"]) for p in found[:19]} == {()}
    assert (found[18]["cluster"], found[18]["problem"]) == (None, "genre is missing")
    assert found[19]["unknown"] == ["genre"]
    assert found[19]["cluster"] in (0, 1, 2)
    document = client.get("/api/v1/openapi.json").json()["components"]["schemas"]
    kinds = document["Rows"]["properties"]["rows"]["items"]["properties"]["genre"]["anyOf"]
    assert {kind["type"] for kind in kinds} == {"number", "string", "boolean", "null"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tempo": "fast"}, "rows.0.tempo: the model takes a number"),
        ({"tempo": True}, "rows.0.tempo: the model takes a number"),
        ({"hour": "noon"}, "rows.0.hour: the model takes a number"),
        ({"genre": [1.0]}, "rows.0.genre: the model takes a number, a text or a boolean"),
        ({"gene": "rock"}, "gene"),
    ],
)
def test_the_api_refuses_values_of_another_kind(row: dict[str, Any], message: str, client: Client) -> None:
    answer = client.post("/api/v1/predict", json={"rows": [row]})
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def command(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def test_predict_takes_text_and_exits_with_3_for_unknown_categories(
    run: Any, folder: Path, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.to_parquet(tmp_path / "same.parquet", index=False)
    out = tmp_path / "out.csv"
    status, said, _ = command(capsys, "predict", folder, tmp_path / "same.parquet", "--out", out)
    assert (status, "unknown" in said) == (0, False)
    placed = pd.read_csv(out)
    assert placed["cluster"].tolist() == run.labels_.tolist()
    assert placed["genre"].tolist() == frame["genre"].tolist()
    changed = frame.assign(genre=np.where(np.arange(N) % 2, "polka", frame["genre"]))
    changed.to_csv(tmp_path / "new.csv", index=False)
    status, said, err = command(capsys, "predict", folder, tmp_path / "new.csv", "--out", out, "--force")
    assert status == 3
    assert "genre: 50.0% of the values are categories that the model does not know or distinguish" in said
    (line,) = err.splitlines()
    assert "check the column's categories, or fit a new model" in line
    assert pd.read_csv(out)["cluster"].notna().all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.categorical=[gene]"], "has no column 'gene'; did you mean genre"),
        (["data.weight=tempo", "memory.mode=disk"], "data.weight needs all rows in memory"),
    ],
)
def test_a_wrong_column_is_bad_input(
    overrides: list[str], message: str, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.to_csv(tmp_path / "m.csv", index=False)
    settings = [f"data.path={tmp_path}/m.csv", "cluster.n_clusters=2", "tracking=none", "backend=cpu", *overrides]
    status, _, err = command(capsys, *settings)
    assert status == 2
    (line,) = (line for line in err.splitlines() if line.startswith("gpuclust: "))
    assert message in line


def test_weights_are_computed_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU, ``backend=auto`` takes the CPU and says why, and ``backend=gpu`` is refused before anything is read."""
    gpu = BackendChoice("gpu", "CUDA GPU and RAPIDS found")
    config = Config(data=DataConfig(weight="popularity"))
    found = start._with_weights(gpu, config)
    assert (found.name, found.reason) == ("cpu", "data.weight is computed on a CPU")
    assert start._with_weights(gpu, Config()) == gpu
    monkeypatch.setattr(start, "select_backend", lambda _: gpu)
    config.backend.name = "gpu"
    with pytest.raises(ConfigurationError, match=r"data\.weight is computed on a CPU; use backend=cpu"):
        start.context_for(config, type("Quiet", (), {"stage": lambda *_: None})())
