"""Reading by cuDF on the stand-ins: the same rows, types and bits as on the CPU, and which reader the audit names. Run by `tests.test_gpu_fakes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

import gpuclust as gc
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.config import CleanConfig, DataConfig
from gpuclust.data.clean import clean
from gpuclust.data.read import read
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout
from gpuclust.runtime import forecast
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.cudf_frames import CudfFrames
from gpuclust.runtime.pinned import PinnedWriter
from tests.gpu_fakes.check_jobs import blobs
from tests.gpu_fakes.device import DEVICE

CPU, GPU = CpuBackend().frames, CudfFrames()
LAYOUT = CsvLayout(columns=("id", "name", "x"))


def both(path: Path, layout: CsvLayout = LAYOUT) -> str:
    """Read a file by both backends; the rows must be equal, to the bit. Who read it for the GPU."""
    wanted = CPU.read_csv(path, layout, numbers=["x"], text=["name", "id"])
    found = GPU.read_csv(path, layout, numbers=["x"], text=["name", "id"])
    assert found.n_more == wanted.n_more
    pd.testing.assert_frame_equal(GPU.to_pandas(found.frame), wanted.frame, check_exact=True)
    return found.reader


NUMBERS = ["1", "-2.5e-3", " 7 ", "0.1", "1.01e-06", "-0", "123456789012345", *NULL_SPELLINGS]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [True, False])
def test_a_plain_file_is_read_by_cudf(tmp_path: Path, end: str, header: bool) -> None:
    lines = ["id,name,x"] if header else []
    lines += [f'{i},"say ""hi"", {i}",{cell}' for i, cell in enumerate(NUMBERS)]
    lines += ["n,NA,1", "m,,2", 'l,"",3', "k,Ωραία 🎵,4", 'j,"a",5']
    path = tmp_path / "a.csv"
    path.write_text(end.join([*lines, ""]), encoding="utf-8", newline="")
    with DEVICE.measure() as counts:
        assert both(path, CsvLayout(columns=LAYOUT.columns, header=header)) == "cuDF"
    assert any(event.name == "cudf.read_csv" for event in counts.events)


@pytest.mark.parametrize(
    ("record", "reader"),
    [
        ('1,7" Mix,2', "the Arrow reader (a quote inside an unquoted field)"),
        ('1,"7"" Mix",2', "cuDF"),
        ("1,a", "the Arrow reader (a line that is not a complete record)"),
        ("1,a,2,3", "the Arrow reader (a line that is not a complete record)"),
        ('1,"a\nb",2', "the Arrow reader (a line break inside quotes)"),
        ("1,a,abc", "the Arrow reader ('x' has cells that are not numbers)"),
        ("1,a,0.1234567890123456789", "the Arrow reader ('x' has numbers of more than 15 digits)"),
        ("1,a,+5", "the Arrow reader ('x' has cells that are not numbers)"),
    ],
)
def test_a_record_that_cudf_reads_in_another_way_is_for_the_arrow_reader(
    tmp_path: Path, record: str, reader: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["id,name,x", "0,a,1", record, '2,"b",3', "3,c,4", ""]))
    assert both(path) == reader


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_binary_files_have_the_same_types_and_missing_values(tmp_path: Path, kind: str) -> None:
    table = pa.table(
        {
            "id": ["a", "b", None],
            "n": [1, 2, 3],
            "x": [0.5, float("nan"), None],
            "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
            "genres": [["jazz", "funk"], [], None],
        }
    )
    path = tmp_path / f"a.{kind}"
    write = pyarrow.parquet.write_table if kind == "parquet" else pyarrow.feather.write_feather
    write(table, path)
    columns = ["genres", "x", "kind", "n", "id"]
    found, wanted = (getattr(frames, f"read_{kind}")(path, columns) for frames in (GPU, CPU))
    assert found["x"].isna().to_pandas().tolist() == [False, True, True]
    assert int(found["x"].count()) == 1  # NaN and null are both null on a GPU
    pd.testing.assert_frame_equal(GPU.to_pandas(found), wanted, check_dtype=kind == "feather")


@pytest.mark.parametrize(
    ("name", "reader"), [("7 inch Mix", "cuDF"), ('7" Mix', "the Arrow reader (a quote inside an unquoted field)")]
)
def test_the_audit_names_the_reader(tmp_path: Path, name: str, reader: str) -> None:
    rng = np.random.default_rng(0)
    lines = [f"t{i},{name if i == 70 else 'a'},{a:.4f},{b:.4f}" for i, (a, b) in enumerate(rng.normal(size=(200, 2)))]
    path = tmp_path / "tracks.csv"
    path.write_text("\n".join(["id,title,energy,valence", *lines, ""]))
    tables = [clean(read(DataConfig(path=str(path)), frames), CleanConfig(), frames) for frames in (CPU, GPU)]
    audits: list[dict[str, Any]] = [table.audit.to_dict() for table in tables]
    assert audits[1]["source"].pop("reader") == reader
    assert audits[1] == audits[0]
    np.testing.assert_array_equal(
        GPU.to_matrix(tables[1].frame, tables[1].features).get(), CPU.to_matrix(tables[0].frame, tables[0].features)
    )


@pytest.mark.parametrize("where", ["disk", "pinned"])
def test_a_table_that_does_not_fit_the_device_goes_through_a_whole_sweep(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are on the host, in pandas and in blocks, with the backend of the GPU: from reading to the choice."""
    closed: list[PinnedWriter] = []
    close = PinnedWriter.close
    monkeypatch.setattr(PinnedWriter, "close", lambda self: closed.append(self) or close(self))
    if where == "pinned":
        monkeypatch.setattr(forecast, "_device_limit", lambda: 1)
    config = {"memory.mode": "disk"} if where == "disk" else {}
    found = gc.sweep(
        blobs(), KMeansConfig(n_clusters=3, n_init=1), config=config, backend="gpu", tracking=None, progress=False
    )
    assert list(found.leaderboard["failure"]) == [""]
    assert bool(closed) == (where == "pinned")
    assert np.bincount(found.runs[0].labels_).tolist() == [50, 50, 50]
