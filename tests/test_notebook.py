"""The tutorial is a notebook that runs from start to end, in a kernel of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook's test needs gpuclust[dev]")
nbclient = pytest.importorskip("nbclient", reason="the notebook's test needs gpuclust[dev]")

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


@pytest.mark.filterwarnings("default")  # of Jupyter's own libraries
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{kind}_DIR", str(tmp_path / kind.lower()))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    (tmp_path / "work").mkdir()
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "work")}}
    )
    client.execute()

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    errors = [o for o in outputs if o.output_type == "error" or (o.output_type == "stream" and "Warning" in o.text)]
    assert not errors
    html = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
    assert any("<Run" not in page and "Run kmeans k=6" in page and "data:image/png" in page for page in html)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2  # the two plots
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert re.search(r"\d+ clusters|No natural number of clusters", printed)
    bars = "".join(o.text for o in outputs if o.output_type == "stream") + "".join(
        o.data.get("text/plain", "") for o in outputs if o.output_type == "display_data"
    )
    assert "job" in bars
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == ["out"]


def test_the_tutorial_is_kept_without_outputs() -> None:
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
