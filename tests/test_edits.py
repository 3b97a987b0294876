"""Names, merges and their history in an export folder: against the rows of the export, pandas and the model."""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from gpuclust import edits
from gpuclust.cli import main
from gpuclust.errors import ExportError, InputError
from gpuclust.model.bundle import Bundle
from gpuclust.model.expressions import parse_condition, read_rules
from gpuclust.model.manifest import read_manifest, verify_all
from gpuclust.predict import predict
from gpuclust.proposals import clean_name
from gpuclust.results import Model
from gpuclust.serve.library import Library
from gpuclust.tracks.playlist import PlaylistOptions, from_cluster
from tests.exporting import FEATURES, made_export, tracks


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """An export of 4 clusters, whose index is built."""
    folder = made_export(tracks(), tmp_path_factory.mktemp("edits"), store_template, "cluster.n_clusters=4")
    Library.open(folder).close()
    return folder


@pytest.fixture
def out(original: Path, tmp_path: Path) -> Path:
    """A copy of the export."""
    return Path(shutil.copytree(original, tmp_path / "out"))


def contents(folder: Path) -> dict[str, bytes]:
    """The files of an export without its index: name -> bytes; a Parquet file as its rows."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".index" not in path.parts:
            rows = pd.read_parquet(path).to_json().encode() if path.suffix == ".parquet" else path.read_bytes()
            found[str(path.relative_to(folder))] = rows
    return found


def without_edits(folder: Path) -> dict[str, bytes]:
    """`contents`, without what an export that was edited and restored may differ in: digests of files that were written again."""
    found = contents(folder)
    manifest = json.loads(found["manifest.json"])
    for key in ("sha256", "index_of", "edits"):
        manifest.pop(key, None)
    return found | {"manifest.json": json.dumps(manifest).encode()}


def names(folder: Path) -> dict[int, str]:
    frame = pd.read_parquet(folder / "clusters.parquet")
    return dict(zip(frame["cluster"], frame["name"], strict=True))


def test_a_name_is_shown_everywhere_and_can_be_undone(out: Path, capsys: Any) -> None:
    generated = names(out)[0]
    index = {path.name for path in (out / ".index").iterdir()}
    assert main(["name", str(out), "0=Late-Night Chill", "2= Workout  now "]) == 0
    shown = capsys.readouterr().out
    assert (
        f"0  Late-Night Chill  ({pd.read_parquet(out / 'clusters.parquet')['size'][0]} rows; generated: {generated})"
        in shown
    )
    assert "edit 1: name 0='Late-Night Chill' 2='Workout now' (" in shown
    verify_all(read_manifest(out))
    with Library.open(out) as library:
        assert (library.cluster(0).name, library.cluster(0).generated_name) == ("Late-Night Chill", generated)
        assert library.cluster_items(0, limit=1).items[0].cluster_name == "Late-Night Chill"
        assert from_cluster(library, 0, PlaylistOptions(5)).name == "Late-Night Chill"
    assert {path.name for path in (out / ".index").iterdir()} == index  # not built again
    assert Model(Bundle.load(out / "model")).clusters["name"].tolist()[:3:2] == ["Late-Night Chill", "Workout now"]
    edit = json.loads((out / "manifest.json").read_text())["edits"][0]
    assert edit["names"] == {"0": "Late-Night Chill", "2": "Workout now"}
    assert edit["when"].endswith("+00:00")
    assert main(["name", str(out), "0="]) == 0  # the generated name again
    assert names(out)[0] == generated
    assert names(out)[2] == "Workout now"


def test_undo_restores_every_file(out: Path, original: Path) -> None:
    edits.name_clusters(out, {1: "One"})
    edits.merge_clusters(out, [0, 3])
    edits.name_clusters(out, {0: "Both"})
    for _ in range(3):
        edits.undo(out)
    assert without_edits(out) == without_edits(original)
    with pytest.raises(ExportError, match="nothing can be undone"):
        edits.undo(out)


def test_merged_clusters_are_described_from_their_rows(out: Path, original: Path) -> None:
    edits.name_clusters(out, {2: "Kept"})
    done = edits.merge_clusters(out, [2, 1])
    verify_all(read_manifest(out))
    before, after = pd.read_parquet(original / "assignments.parquet"), pd.read_parquet(out / "assignments.parquet")
    assert after["cluster"].tolist() == before["cluster"].replace({2: 1}).tolist()
    pd.testing.assert_frame_equal(after.drop(columns="cluster"), before.drop(columns="cluster"))
    clusters = {row["cluster"]: row for row in done.clusters}
    assert sorted(clusters) == [0, 1, 3]
    rows = after[after["cluster"] == 1]
    assert clusters[1]["size"] == len(rows)
    for feature in FEATURES:
        # float64 sums of some hundred values, added in another order
        assert clusters[1][f"mean_{feature}"] == pytest.approx(rows[feature].mean(), rel=1e-12)
        assert clusters[1][f"median_{feature}"] == pytest.approx(rows[feature].median(), rel=1e-12)
    assert clusters[1]["name"] == "Kept"
    assert set(clusters[1]["top_groups"][0]) == {"value", "count", "lift", "fraction"}
    old = pd.read_parquet(original / "clusters.parquet").set_index("cluster")
    assert clusters[0]["name"] == old["name"][0]
    assert {row["nearest"] for row in done.clusters} <= {0, 1, 3}
    with Library.open(out) as library:
        assert library.cluster_items(1, limit=0).total == len(rows)
        assert any("merged after the fit (1 and 2)" in text for text in library.facts.warnings)


def test_new_rows_are_assigned_to_the_merged_cluster(out: Path, original: Path, tmp_path: Path) -> None:
    edits.merge_clusters(out, [1, 3], name="Joined")
    source = original / "assignments.parquet"
    predict(out, source, tmp_path / "new.parquet")
    found, known = pd.read_parquet(tmp_path / "new.parquet"), pd.read_parquet(source)
    assert found["cluster"].tolist() == known["cluster"].replace({3: 1}).tolist()
    merged = edits.merge_clusters(out, [0, 1])  # a merge of a merged cluster
    assert [row["cluster"] for row in merged.clusters] == [0, 2]
    assert merged.clusters[0]["name"] == "Joined"
    assert set(Bundle.load(out / "model").predict(known[FEATURES].to_numpy()).cluster) == {0, 2}


def test_an_edit_that_cannot_be_is_refused(out: Path, original: Path) -> None:
    for call, said in (
        (lambda: edits.name_clusters(out, {9: "x"}), "has no cluster 9 to name; there are 0, 1, 2, 3"),
        (lambda: edits.merge_clusters(out, [1, 7]), "has no cluster 7 to merge"),
        (lambda: edits.merge_clusters(out, [1, 1]), "two clusters or more"),
        (lambda: edits.name_clusters(out, {0: names(out)[1]}), "join them: gpuclust merge"),
        (lambda: edits.name_clusters(out, {0: "x" * 201}), "more than 200"),
    ):
        with pytest.raises(InputError, match=said):
            call()
    assert contents(out) == contents(original)
    rows = pd.read_parquet(out / "assignments.parquet")
    rows.assign(cluster=0).to_parquet(out / "assignments.parquet", index=False)
    edits.name_clusters(
        out, {0: "Named"}
    )  # what an edit does not read keeps its digest, so that a changed file is found out
    with pytest.raises(ExportError, match="was changed since its export"):
        edits.merge_clusters(out, [0, 1])
    with pytest.raises(ExportError, match="was changed since its export"):
        verify_all(read_manifest(out))
    assert main(["name", str(out), "zero=x"]) == 2
    assert main(["name", "s3://bucket/out", "0=x"]) == 2


def test_a_rules_file_names_by_means(out: Path, tmp_path: Path, capsys: Any) -> None:
    frame = pd.read_parquet(out / "clusters.parquet").set_index("cluster")
    middle = frame["mean_energy"].sort_values().iloc[1:3].mean()
    rules = tmp_path / "rules.txt"
    rules.write_text(
        f"# by energy\n\nenergy > {middle} and not (`tempo` < 0): 'Workout'\nenergy <= {middle}: Calm: evening\ntempo < 0: Never\n"
    )
    assert main(["name", str(out), "--rules", str(rules)]) == 0
    high = [c for c in frame.index if frame["mean_energy"][c] > middle]
    expected = {high[0]: "Workout", high[1]: "Workout (2)"}
    low = [c for c in frame.index if c not in high]
    assert names(out) == expected | {low[0]: "Calm: evening", low[1]: "Calm: evening (2)"}
    assert "no cluster meets the rule of 'Never'" in capsys.readouterr().out
    rules.write_text("energy > 0.5: A\n__import__('os').system('x') > 1: B\n")
    assert main(["name", str(out), "--rules", str(rules)]) == 2
    assert "line 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "energy >",
        "energy > 1 and",
        "(energy > 1",
        "1 > energy",
        "energy > x",
        "not",
        "a > 1 b > 2",
        "a ** 2 > 1",
        "(" * 200 + "a > 1",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="condition"):
        parse_condition(text)


def test_conditions_are_those_of_pandas() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(size=200), "b c": rng.integers(0, 3, 200), "g": rng.choice(["rock", "jazz"], 200)}
    )
    frame.loc[::7, "a"] = np.nan
    values = {name: frame[name].to_numpy() for name in frame}
    for text in (
        "a > 0.1 or `b c` == 1 and not g == 'rock'",
        'not (a <= 1e-1 or g != "jazz")',
        "`b c` >= 2 and (a < -.5 or a > .5)",
    ):
        found = parse_condition(text).matches(values)
        assert found.tolist() == frame.eval(text.replace("'", '"')).tolist()
    assert not parse_condition("a != 5").matches(values)[::7].any()  # missing values meet no comparison
    with pytest.raises(InputError, match="the column g has texts"):
        parse_condition("g > 1").matches(values)
    assert [name for _, name in read_rules("a > 1: x: y\n# c\nb<2:'z'")] == ["x: y", "z"]


def test_names_are_carried_by_matching_centres(out: Path, tmp_path: Path, store_template: Path, capsys: Any) -> None:
    edits.name_clusters(out, {0: "Zero", 1: "One", 2: "Two", 3: "Three"})
    # a sample of the rows, on another scale: the clusters may have other numbers
    later = made_export(
        tracks().sample(frac=0.9, random_state=1),
        tmp_path / "later",
        store_template,
        "cluster.n_clusters=4",
        "scale=minmax",
    )
    before = pd.read_parquet(later / "clusters.parquet").set_index("cluster")
    assert main(["name", str(later), "--from", str(out)]) == 0
    shown = capsys.readouterr().out
    first = pd.read_parquet(out / "clusters.parquet")
    carried = names(later)
    std = pd.read_parquet(out / "assignments.parquet")[FEATURES].std()
    centres = first[[f"mean_{f}" for f in FEATURES]].to_numpy() / std.to_numpy()
    n_carried = 0
    for c, name in carried.items():
        distances = np.linalg.norm(
            centres - before.loc[c, [f"mean_{f}" for f in FEATURES]].to_numpy(float) / std.to_numpy(), axis=1
        )
        if name in ("Zero", "One", "Two", "Three"):
            assert name == first["name"][distances.argmin()]
            n_carried += 1
        else:
            assert "no cluster has the centre of" in shown
    assert n_carried >= 2
    assert json.loads((later / "manifest.json").read_text())["edits"][0]["how"].startswith("carried from kmeans")


def test_an_export_that_replaces_an_edited_one_keeps_its_edits(
    tmp_path: Path, store_template: Path, capsys: Any
) -> None:
    out = made_export(tracks(), tmp_path / "first", store_template)
    edits.merge_clusters(out, [1, 2], name="Joined")
    store = f"sqlite:///{tmp_path / 'first' / 'mlflow.db'}"
    again = ["export", "best", "--uri", store, "--experiment", "e", "--out", str(out), "--force"]
    assert main(again) == 0
    assert "kept the edits of the folder that it replaces (1)" in capsys.readouterr().out
    assert names(out)[1] == "Joined"
    assert set(pd.read_parquet(out / "assignments.parquet")["cluster"]) == {0, 1}
    verify_all(read_manifest(out))
    edits.undo(out)
    assert set(pd.read_parquet(out / "assignments.parquet")["cluster"]) == {0, 1, 2}


class _Model(BaseHTTPRequestHandler):
    """A server of a language model that answers with a name from the prompt, by one of two APIs."""

    api = "/v1/chat/completions"
    prompts: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != self.api or asked["model"] != "tiny":
            said = {"error": f"model {asked['model']!r} not found"} if self.path == self.api else {}
            return self._send(404, said)
        prompt = asked["messages"][1]["content"]
        self.prompts.append(prompt)
        message = {"role": "assistant", "content": f'<think>what is it?\n</think>\n**"Set {len(self.prompts)}"**\n'}
        return self._send(200, {"choices": [{"message": message}]} if "v1" in self.path else {"message": message})

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=["/v1/chat/completions", "/api/chat"])
def model_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(_Model, "api", request.param)
    monkeypatch.setattr(_Model, "prompts", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_language_model_proposes_names_beside_the_generated_ones(out: Path, model_server: str, capsys: Any) -> None:
    edits.name_clusters(out, {1: "Mine"})
    before = names(out)
    assert main(["name", str(out), "--llm", model_server, "tiny"]) == 0
    assert f"propose 0='Set 1' 1='Set 2' 2='Set 3' 3='Set 4' (tiny at {model_server}" in capsys.readouterr().out
    assert names(out) == before
    frame = pd.read_parquet(out / "clusters.parquet").set_index("cluster")
    assert frame["proposed_name"].to_dict() == {0: "Set 1", 1: "Set 2", 2: "Set 3", 3: "Set 4"}
    with Library.open(out) as library:
        assert (library.cluster(1).name, library.cluster(1).proposed_name) == ("Mine", "Set 2")
    rows = pd.read_parquet(out / "assignments.parquet")
    first = rows[rows["cluster"] == 0].sort_values("popularity", ascending=False, kind="stable")
    prompt = _Model.prompts[0]
    assert f"{first['title'].iloc[0]} by {first['artist'].iloc[0]}" in prompt
    assert frame["top_groups"][0][0]["value"] in prompt
    telling = max(FEATURES, key=lambda f: abs(frame[f"z_{f}"][0]))
    assert f"{telling} {frame[f'z_{telling}'][0]:+.1f}" in prompt
    assert "Set 1" in _Model.prompts[1]  # names that are taken
    assert main(["name", str(out), "--llm", model_server, "huge"]) == 2
    assert "model 'huge' not found" in capsys.readouterr().err
    assert main(["name", str(out), "--llm", "ftp://x", "tiny"]) == 2


def test_a_name_is_read_from_what_models_answer() -> None:
    for answer in (
        "Late Night Chill",
        ' "Late Night Chill." ',
        "Sure!\n\nName: Late Night Chill",
        "<think>x: y</think>Late Night Chill",
    ):
        assert clean_name(answer) == "Late Night Chill"
    with pytest.raises(InputError, match="without a name"):
        clean_name("<think>hm</think> \n")
