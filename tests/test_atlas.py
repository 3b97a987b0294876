"""An export as Embedding Atlas gets it. Embedding Atlas itself is 7 GB with what it needs: without it the command says so."""

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from gpuclust.cli import main
from gpuclust.serve.atlas import labels_of, props_of, table_of
from gpuclust.serve.library import Library
from tests.browser import free_port
from tests.exporting import made_export


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3)) + rng.integers(0, 3, (300, 1)) * 6
    frame = pd.DataFrame(values, columns=["a_b", "x", "c"])
    return made_export(frame, tmp_path_factory.mktemp("atlas"), store_template, features=["a_b", "x", "c"])


def test_it_gets_the_rows_names_colours_labels_and_neighbours(export: Path) -> None:
    with Library.open(export) as library:
        table, labels, props = table_of(library, 5), labels_of(library).to_pylist(), props_of(library)
        names = {c.cluster: f"{c.cluster} · {c.name}" for c in library.clusters}
        assert [names[c] for c in library.column("cluster")] == table["cluster name"].to_pylist()
        assert {"a b", "c", "x (feature)"} <= set(table.column_names)
        np.testing.assert_array_equal(table["x"].to_numpy(), library.column("x"))
        sizes = {c.cluster: c.size for c in library.clusters}
        assert {label["text"]: label["priority"] for label in labels} == {names[c]: sizes[c] for c in sizes}
        first = max(sizes, key=lambda c: sizes[c])
        assert props["chartTheme"]["categoryColors"][0] == library.facts.manifest["colors"][str(first)]
        points = library.points(np.arange(len(library)))
        apart = cdist(points, points)
        np.fill_diagonal(apart, np.inf)
        nearest = table["__nearest"].to_pylist()
        for row in range(len(points)):
            assert row not in nearest[row]["ids"]
            np.testing.assert_allclose(nearest[row]["distances"], np.sort(apart[row])[:5], rtol=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("embedding_atlas") is not None, reason="embedding-atlas is installed")
def test_without_it_one_line_says_what_to_install(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["atlas", str(export)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'gpuclust[atlas]'" in line


@pytest.mark.skipif(importlib.util.find_spec("embedding_atlas") is None, reason="embedding-atlas is not installed")
def test_it_opens(export: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "gpuclust", "atlas", str(export), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            try:
                page = urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                time.sleep(0.2)
        assert b"<html" in page.lower()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
