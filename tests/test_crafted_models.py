"""Models made to break what reads them: each is refused in one line, without hanging and without reading what it should not."""

import io
import json
import os
import random
import shutil
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.cli import main
from gpuclust.errors import ModelError
from gpuclust.model import files
from gpuclust.model.bundle import Bundle
from gpuclust.model.files import ARRAYS, MODEL, read_model

WHOLE = Path(__file__).parent / "data" / "models_0_1_0"
ALGORITHMS = ("kmeans", "gmm", "hdbscan")
Change = Callable[[Path], None]


def json_with(**values: Any) -> Change:
    """Fields of model.json replaced; a value may be a function of the old one."""

    def change(folder: Path) -> None:
        model = json.loads((folder / MODEL).read_text())
        for name, value in values.items():
            model[name] = value(model[name]) if callable(value) else value
        (folder / MODEL).write_text(json.dumps(model))

    return change


def json_without(name: str) -> Change:
    def change(folder: Path) -> None:
        model = json.loads((folder / MODEL).read_text())
        del model[name]
        (folder / MODEL).write_text(json.dumps(model))

    return change


def json_text(text: str | bytes) -> Change:
    return lambda folder: (folder / MODEL).write_bytes(text.encode() if isinstance(text, str) else text) and None


def arrays_with(listed: bool = True, **changes: Callable[[np.ndarray], Any] | None) -> Change:
    """Arrays replaced by a function of the old ones, dropped by None; ``listed``: model.json names the new shapes too.
    Names have ``_`` for ``/`` once."""

    def change(folder: Path) -> None:
        with np.load(folder / ARRAYS) as kept:
            arrays = dict(kept)
        for name, value in changes.items():
            full = name.replace("_", "/", 1)
            if value is None:
                del arrays[full]
            else:
                arrays[full] = np.asarray(value(arrays.get(full)))  # type: ignore[arg-type]
        np.savez_compressed(folder / ARRAYS, **arrays)
        if listed:
            json_with(arrays={k: list(v.shape) for k, v in arrays.items()})(folder)

    return change


def zip_with(write: Callable[[zipfile.ZipFile], None], name: str = "") -> Change:
    """arrays.npz with its members kept, but for ``name``, and more written."""

    def change(folder: Path) -> None:
        with zipfile.ZipFile(folder / ARRAYS) as kept:
            members = {n: kept.read(n) for n in kept.namelist() if n != name}
        with zipfile.ZipFile(folder / ARRAYS, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
            write(archive)

    return change


def npy(header: str, body: bytes = b"") -> bytes:
    """A .npy file with a header of one's own."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def header(shape: Any, dtype: str = "'<f8'", order: str = "False") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"


def zeros(archive: zipfile.ZipFile, name: str, n: int) -> None:
    """A member that unpacks to n zeros of eight bytes."""
    with archive.open(name, "w", force_zip64=True) as member:
        member.write(npy(header(f"({n},)")))
        block = bytes(8 << 20)
        for at in range(0, 8 * n, len(block)):
            member.write(block[: 8 * n - at])


def bomb(listed: bool, n: int = 20_000_000) -> Change:
    def change(folder: Path) -> None:
        name = "parameters/weights" if listed else "more"
        zip_with(lambda archive: zeros(archive, f"{name}.npy", n), f"{name}.npy")(folder)
        if listed:
            json_with(arrays=lambda old: old | {name: [n]})(folder)

    return change


def replaced(name: str, by: Callable[[Path], None]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        by(folder / name)

    return change


def linked(path: Path) -> None:
    outside = path.parent.parent / "outside"
    shutil.copytree(WHOLE / "kmeans", outside, dirs_exist_ok=True)
    path.symlink_to(outside / path.name)


class Payload:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/gpuclust-was-here",)


def pickled(archive: zipfile.ZipFile) -> None:
    out = io.BytesIO()
    np.save(out, np.array([Payload()], dtype=object), allow_pickle=True)
    archive.writestr("scaling/offset.npy", out.getvalue())


def overlapping(folder: Path) -> None:
    """Two entries of the directory that share one member's bytes."""
    content = (folder / ARRAYS).read_bytes()
    end = content.rindex(b"PK\x05\x06")
    at = struct.unpack("<I", content[end + 16 : end + 20])[0]
    first = content[at : content.index(b"PK\x01\x02", at + 4)]
    (folder / ARRAYS).write_bytes(content[:at] + first + content[at:])


DEEP = '{"format":1,"details":' + "[" * 100_000 + "]" * 100_000 + "}"
# What is changed in which algorithm's model, and a part of what is said.
CRAFTED: dict[str, tuple[str, Change, str]] = {
    # model.json is no object, no JSON, or too deep
    "empty json": ("kmeans", json_text(""), "model"),
    "json cut": ("kmeans", lambda f: (f / MODEL).write_bytes((f / MODEL).read_bytes()[:200]) and None, "model"),
    "json list": ("kmeans", json_text("[]"), "object"),
    "json null": ("kmeans", json_text("null"), "object"),
    "json deep": ("kmeans", json_text(DEEP), "recursion"),
    "json deep objects": ("kmeans", json_text('{"a":' * 50_000 + "1" + "}" * 50_000), "recursion"),
    "json not utf-8": ("kmeans", json_text(b'{"format": 1, "gpuclust": "\xff\xfe"}'), "model"),
    "json large": ("kmeans", json_text(" " * (files.MAX_JSON_BYTES + 1)), "larger than 64 MiB"),
    # its fields
    **{f"without {n}": ("kmeans", json_without(n), n) for n in ("format", "algorithm", "features", "dtype", "fills", "bounds", "arrays")},
    "format text": ("kmeans", json_with(format="one"), "format"),
    "format 0": ("kmeans", json_with(format=0), "format"),
    "format -1": ("kmeans", json_with(format=-1), "format"),
    "format newer": ("kmeans", json_with(format=3), "upgrade"),
    "format huge": ("kmeans", json_with(format=10**40), "upgrade"),
    "algorithm unknown": ("kmeans", json_with(algorithm="os.system"), "'os.system' is not known"),
    "algorithm null": ("kmeans", json_with(algorithm=None), "algorithm"),
    "algorithm list": ("kmeans", json_with(algorithm=["kmeans"]), "algorithm"),
    "algorithm of other arrays": ("kmeans", json_with(algorithm="gmm", covariance_type="full"), "missing"),
    "mixture without covariance": ("gmm", json_with(covariance_type=None), "covariance_type"),
    "mixture of another covariance": ("gmm", json_with(covariance_type="diag"), "shape"),
    "covariance unknown": ("gmm", json_with(covariance_type="banana"), "covariance_type"),
    "features empty": ("kmeans", json_with(features=[]), "features"),
    "features text": ("kmeans", json_with(features="abc"), "features"),
    "features numbers": ("kmeans", json_with(features=[1, 2, 3]), "features"),
    "features nested": ("kmeans", json_with(features=[["a"], "b", "c"]), "features"),
    "features twice": ("kmeans", json_with(features=["tempo", "tempo", "energy"]), "twice"),
    "features fewer": ("kmeans", json_with(features=lambda f: f[:2], fills={}, bounds={}), "shape"),
    "features more": ("kmeans", json_with(features=lambda f: [*f, "more"]), "shape"),
    "dtype code": ("kmeans", json_with(dtype="os.system"), "dtype"),
    "dtype object": ("kmeans", json_with(dtype="O"), "dtype"),
    "dtype integer": ("kmeans", json_with(dtype="int64"), "dtype"),
    "scale list": ("kmeans", json_with(scale=[]), "scale"),
    "fills list": ("kmeans", json_with(fills=[1, 2, 3]), "fills"),
    "fills text": ("kmeans", json_with(fills={"tempo": "high"}), "fills"),
    "fills null": ("kmeans", json_with(fills={"tempo": None}), "fills"),
    "fills infinite": ("kmeans", json_with(fills={"tempo": float("inf")}), "fills"),
    "fills of another feature": ("kmeans", json_with(fills={"loudness": 1.0}), "'loudness' is not one of its features"),
    "bounds list": ("kmeans", json_with(bounds=[[0, 1]]), "bounds"),
    "bounds one end": ("kmeans", json_with(bounds={"tempo": [0]}), "bounds"),
    "bounds three ends": ("kmeans", json_with(bounds={"tempo": [0, 1, 2]}), "bounds"),
    "bounds text": ("kmeans", json_with(bounds={"tempo": ["0", "1"]}), "bounds"),
    "details list": ("kmeans", json_with(details=[]), "details"),
    "details clusters list": ("kmeans", json_with(details={"clusters": []}), "clusters"),
    "details cluster name": ("kmeans", json_with(details={"clusters": {"0": {"name": 1, "size": 1}}}), "name"),
    "details cluster size": ("kmeans", json_with(details={"clusters": {"0": {"name": "a", "size": -1}}}), "size"),
    "details cluster number": ("kmeans", json_with(details={"clusters": {"zero": {"name": "a", "size": 1}}}), "clusters"),
    "details training": ("kmeans", json_with(details={"training": {"n_rows": 1, "features": {"tempo": {"min": 0}}}}), "training"),
    "arrays list": ("kmeans", json_with(arrays=[]), "arrays"),
    "arrays negative": ("kmeans", json_with(arrays=lambda a: a | {"map/mean": [-3]}), "arrays"),
    "arrays text": ("kmeans", json_with(arrays=lambda a: a | {"map/mean": "3"}), "arrays"),
    "arrays other shape": ("kmeans", json_with(arrays=lambda a: a | {"map/mean": [4]}), "shape"),
    # arrays.npz is no archive, or not only arrays
    "npz empty": ("kmeans", lambda f: (f / ARRAYS).write_bytes(b"") and None, "damaged"),
    "npz text": ("kmeans", lambda f: (f / ARRAYS).write_bytes(b"no arrays") and None, "damaged"),
    "npz cut": ("kmeans", lambda f: (f / ARRAYS).write_bytes((f / ARRAYS).read_bytes()[:-40]) and None, "damaged"),
    "npz npy": ("kmeans", lambda f: (f / ARRAYS).write_bytes(npy(header("(3,)"), bytes(24))) and None, "damaged"),
    "npz pickle": ("kmeans", zip_with(pickled, "scaling/offset.npy"), "plain numbers"),
    "npz member twice": ("kmeans", overlapping, ""),
    "npz not an array": ("kmeans", zip_with(lambda z: z.writestr("read.me", b"x")), "not an array"),
    "npz unlisted": ("kmeans", arrays_with(listed=False, more=lambda _: np.zeros(3)), "not in the model's description"),
    "npz unused": ("kmeans", arrays_with(parameters_more=lambda _: np.zeros(3)), "not in the model's description"),
    "npz many": ("kmeans", zip_with(lambda z: [z.writestr(f"{i}.npy", npy(header("()"), bytes(8))) for i in range(99)] and None), "more than the 64"),
    "npz bomb unlisted": ("gmm", bomb(listed=False), "unpacks to"),
    "npz bomb listed": ("gmm", bomb(listed=True), "unpacks to"),
    "npz header lies": ("kmeans", zip_with(lambda z: z.writestr("scaling/scale.npy", npy(header("(1000000000,)"), bytes(24))), "scaling/scale.npy"), "another size"),
    "npz header huge": ("kmeans", zip_with(lambda z: z.writestr("scaling/scale.npy", npy(header("(" + "1," * 5000 + ")"), bytes(8))), "scaling/scale.npy"), ""),
    "npz header code": ("kmeans", zip_with(lambda z: z.writestr("scaling/scale.npy", npy("__import__('os').mkdir('/tmp/gpuclust-was-here')")), "scaling/scale.npy"), "damaged"),
    "npz header negative": ("kmeans", zip_with(lambda z: z.writestr("scaling/scale.npy", npy(header("(-3,)"))), "scaling/scale.npy"), ""),
    "npz header records": ("kmeans", zip_with(lambda z: z.writestr("scaling/scale.npy", npy(header("(3,)", "[('a', '<f8')]"), bytes(24))), "scaling/scale.npy"), "plain numbers"),
    "npz header subarray": ("kmeans", zip_with(lambda z: z.writestr("scaling/scale.npy", npy(header("(3,)", "('<f8', (1,))"), bytes(24))), "scaling/scale.npy"), ""),
    "npz version 9": ("kmeans", zip_with(lambda z: z.writestr("scaling/scale.npy", npy(header("(3,)"), bytes(24)).replace(b"\x01\x00", b"\x09\x09", 1)), "scaling/scale.npy"), ""),
    # arrays that do not fit
    "no centres": ("kmeans", arrays_with(parameters_centers=None), "'parameters/centers' is missing"),
    "no scale": ("kmeans", arrays_with(scaling_scale=None), "'scaling/scale' is missing"),
    "half a projection": ("gmm", arrays_with(projection_scale=None), "'projection/scale' is missing"),
    "no training labels": ("hdbscan", arrays_with(parameters_training_labels=None), "is missing"),
    "centres flat": ("kmeans", arrays_with(parameters_centers=np.ravel), "shape"),
    "centres wide": ("kmeans", arrays_with(parameters_centers=lambda c: np.hstack([c, c])), "shape"),
    "centres none": ("kmeans", arrays_with(parameters_centers=lambda c: c[:0]), "no clusters"),
    "centres integers": ("kmeans", arrays_with(parameters_centers=lambda c: c.astype(np.int64)), "type"),
    "centres complex": ("kmeans", arrays_with(parameters_centers=lambda c: c.astype(complex)), "type"),
    "centres text": ("kmeans", arrays_with(parameters_centers=lambda c: c.astype(str)), "type"),
    "centres big-endian": ("kmeans", arrays_with(parameters_centers=lambda c: c.astype(">f8")), "type"),
    "centres nan": ("kmeans", arrays_with(parameters_centers=lambda c: c * np.nan), "not numbers"),
    "centres infinite": ("kmeans", arrays_with(parameters_centers=lambda c: c + np.inf), "infinite"),
    "scale zero": ("kmeans", arrays_with(scaling_scale=np.zeros_like), "not positive"),
    "scale negative": ("kmeans", arrays_with(scaling_scale=np.negative), "not positive"),
    "map four axes": ("kmeans", arrays_with(map_components=lambda c: np.vstack([c, c[:1]]), **{f"map_{n}": lambda v: np.append(v, 1.0) for n in ("explained_variance", "explained_variance_ratio", "scale")}), "dimensions"),
    "map uneven": ("kmeans", arrays_with(map_scale=lambda v: v[:1]), "shape"),
    "means of other clusters": ("gmm", arrays_with(parameters_means=lambda m: m[:2]), "shape"),
    "weights negative": ("gmm", arrays_with(parameters_weights=np.negative), "negative"),
    "weights of a half": ("gmm", arrays_with(parameters_weights=lambda w: w / 2), "add up to 1"),
    "precisions zero": ("gmm", arrays_with(parameters_precisions_cholesky=np.zeros_like), "diagonal"),
    "precisions infinite": ("gmm", arrays_with(parameters_precisions_cholesky=lambda p: np.full_like(p, np.inf)), "infinite"),
    "rows of other lengths": ("hdbscan", arrays_with(parameters_row_node=lambda r: r[:-1]), "shape"),
    "row beyond the nodes": ("hdbscan", arrays_with(parameters_row_node=lambda r: r + 10**6), "row_node"),
    "row before the nodes": ("hdbscan", arrays_with(parameters_row_node=lambda r: r - 10**6), "row_node"),
    "tree with a circle": ("hdbscan", arrays_with(parameters_node_parent=lambda p: np.append(p[:1], np.arange(1, len(p), dtype=p.dtype))), "not a tree"),
    "tree without a root": ("hdbscan", arrays_with(parameters_node_parent=lambda p: np.append(np.zeros(1, p.dtype), p[1:])), "not a tree"),
    "no nodes": ("hdbscan", arrays_with(**{f"parameters_{n}": lambda v: v[:0] for n in ("node_parent", "node_birth", "node_density")}), "no nodes"),
    "no points": ("hdbscan", arrays_with(**{f"parameters_{n}": lambda v: v[:0] for n in ("points", "core_distances", "row_node", "row_density", "training_labels", "training_confidence")}), "no rows"),
    "cluster beyond the nodes": ("hdbscan", arrays_with(parameters_cluster_node=lambda c: c + 10**6), "cluster_node"),
    "canonical beyond the clusters": ("hdbscan", arrays_with(parameters_canonical=lambda c: c + 1), "canonical"),
    "labels beyond the clusters": ("hdbscan", arrays_with(parameters_training_labels=lambda c: c + 50), "training_labels"),
    "min_samples 0": ("hdbscan", arrays_with(parameters_min_samples=lambda _: np.int64(0)), "min_samples"),
    "min_samples huge": ("hdbscan", arrays_with(parameters_min_samples=lambda _: np.int64(2**62)), "min_samples"),
    "min_samples a list": ("hdbscan", arrays_with(parameters_min_samples=lambda _: np.array([3])), "shape"),
    "points nan": ("hdbscan", arrays_with(parameters_points=lambda p: p * np.nan), "not numbers"),
    # files that are no files
    "no json": ("kmeans", lambda f: (f / MODEL).unlink(), "holds no model: model.json is missing"),
    "no npz": ("kmeans", lambda f: (f / ARRAYS).unlink(), "arrays.npz is missing"),
    "json folder": ("kmeans", replaced(MODEL, Path.mkdir), "regular file"),
    "json fifo": ("kmeans", replaced(MODEL, os.mkfifo), "regular file"),
    "npz fifo": ("kmeans", replaced(ARRAYS, os.mkfifo), "regular file"),
    "npz device": ("kmeans", replaced(ARRAYS, lambda p: p.symlink_to("/dev/zero")), "link out of"),
    "json link out": ("kmeans", replaced(MODEL, linked), "link out of"),
    "npz link out": ("kmeans", replaced(ARRAYS, linked), "link out of"),
    "json link to itself": ("kmeans", replaced(MODEL, lambda p: p.symlink_to(p.name)), ""),
    "npz link to nothing": ("kmeans", replaced(ARRAYS, lambda p: p.symlink_to("nowhere")), "holds no model"),
}  # fmt: skip


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model, by algorithm."""
    return lambda algorithm: Path(shutil.copytree(WHOLE / algorithm, tmp_path / "model"))


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_model_is_refused_in_one_line(name: str, copied: Any, tmp_path: Path) -> None:
    algorithm, change, said = CRAFTED[name]
    folder = copied(algorithm)
    change(folder)
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as error:
            Bundle.load(folder)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    text = str(error.value)
    assert said in text, text
    assert "\n" not in text
    assert len(text) < 700
    assert peak < 150 << 20, "nothing large is read"
    assert time.monotonic() - began < 20
    with suppress(ModelError):  # of the arrays it reads the scaling and the projection alone
        Bundle.load_preparation(folder)
    assert not Path("/tmp/gpuclust-was-here").exists()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_whole_model_is_read(algorithm: str, copied: Any) -> None:
    model = read_model(copied(algorithm))
    assert model.description.algorithm == algorithm
    assert set(model.arrays) == set(model.description.arrays)
    assert all(array.flags.writeable for array in model.arrays.values())


@pytest.mark.parametrize(
    "name", ["json deep", "dtype code", "npz bomb unlisted", "json fifo", "no centres", "fills list"]
)
def test_the_command_ends_in_one_line(
    name: str, copied: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    algorithm, change, _ = CRAFTED[name]
    change(copied(algorithm))
    pd.DataFrame({"danceability": [0.5], "energy": [0.5], "tempo": [100.0]}).to_csv(tmp_path / "rows.csv", index=False)
    for folder in (tmp_path, tmp_path / "model"):
        assert main(["predict", str(folder), str(tmp_path / "rows.csv"), "--out", str(tmp_path / "s.parquet")]) == 2
        err = capsys.readouterr().err
        assert err.startswith("gpuclust: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", '{"gpuclust": "1", "sha256": []}', '{"gpuclust": "1", "sha256": {}}', '{"gpuclust": "1"}'],
)
def test_a_crafted_manifest_is_refused(manifest: str, copied: Any, tmp_path: Path) -> None:
    folder = copied("kmeans")
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ModelError) as error:
        Bundle.load(folder)
    assert "export the run again" in str(error.value)
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    assert Bundle.load(folder).algorithm == "kmeans"


VALUES: tuple[Any, ...] = (None, -1, 0, 1, 10**30, 1e308, float("nan"), float("inf"), True, "", "x", "\u0000", [], [[]], {}, {"a": 1}, ["x"] * 50)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(p for key, part in inner for p in places(part, (*at, key)))]


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    part = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return document


def refused_or_usable(folder: Path) -> None:
    """The model is refused with a ModelError, or what is read can place rows."""
    rows = np.array([[0.5, 0.5, 120.0], [0.1, 0.9, 80.0], [np.nan, 0.2, 300.0]])
    try:
        model = Bundle.load(folder)
    except ModelError as error:
        if "\n" in str(error):
            raise
        return
    if len(model.features) == 3:
        with np.errstate(all="ignore"):
            found = model.predict(rows)
        assert len(found.cluster) == 3


def mutated(folder: Path, rng: random.Random) -> None:
    """One structured change: a value of the JSON, an array's shape, type or values, or some bytes of a file."""
    model = json.loads((folder / MODEL).read_text())
    kind = rng.choice(("json", "json", "array", "bytes"))
    if kind == "json":
        (folder / MODEL).write_text(json.dumps(with_value(model, rng.choice(places(model)), rng.choice(VALUES))))
    elif kind == "array":
        with np.load(folder / ARRAYS) as kept:
            arrays = dict(kept)
        name = rng.choice(sorted(arrays))
        old = arrays[name]
        arrays[name] = rng.choice(
            (
                lambda: old[..., :-1] if old.ndim else old[None],
                lambda: np.concatenate([old, old]) if old.ndim else old,
                lambda: old.T.copy(),
                lambda: old.astype(rng.choice(("<f4", "<f8", "<i4", "<i8", "?", "<c8"))),
                lambda: np.full_like(old, rng.choice((-5, 0, 3, 2**31 - 1))),
                lambda: np.zeros_like(old),
                lambda: old[::-1].copy() if old.ndim else old,
            )
        )()
        np.savez_compressed(folder / ARRAYS, **arrays)
        if rng.random() < 0.7:
            model["arrays"] = {k: list(v.shape) for k, v in arrays.items()}
            (folder / MODEL).write_text(json.dumps(model))
    else:
        path = folder / rng.choice((MODEL, ARRAYS))
        content = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice((len(content), rng.randrange(len(content))))])


def fuzz(tmp_path: Path, seed: int, n: int) -> None:
    rng = random.Random(seed)
    for i in range(n):
        folder = Path(shutil.copytree(WHOLE / rng.choice(ALGORITHMS), tmp_path / f"m{i}"))
        mutated(folder, rng)
        try:
            refused_or_usable(folder)
        except Exception as error:
            raise AssertionError(f"change {i} of seed {seed} raises {type(error).__name__}: {error}") from error
        shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_changes_at_random_are_refused_or_harmless(tmp_path: Path, seed: int) -> None:
    fuzz(tmp_path, seed, 150)


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("part", range(10))
def test_many_changes_at_random_are_refused_or_harmless(part: int, tmp_path: Path) -> None:
    fuzz(tmp_path, 1_000 + part, 1_000)
