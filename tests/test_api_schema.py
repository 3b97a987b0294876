"""Schemathesis against the running server: whatever its OpenAPI allows or forbids, the server does as it says."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.exporting import made_export, tracks
from tests.serving import serving

LONG = "🎵" * 400  # four bytes each, twelve characters when percent-encoded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    frame = tracks(120)
    frame.loc[3, "id"] = "a/b c%2F?#"
    frame.loc[4, "id"] = LONG
    frame.loc[5, "tempo"] = None
    return made_export(frame, tmp_path_factory.mktemp("schema"), store_template, "clean.nulls=median")


def test_schemathesis_finds_nothing(folder: Path, tmp_path: Path, seed: int) -> None:
    """All checks and phases, examples seeded: an error of 5xx, an undocumented status, type or body, wrong data that is
    accepted, right data that is refused, a method that is not refused."""
    with serving(folder) as address:
        done = subprocess.run(
            [Path(sys.executable).with_name("schemathesis"), "run", f"{address}/openapi.json", "--checks", "all",
             "--seed", str(seed), "--max-examples", "15", "--generation-database", "none", "--no-color"],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    generated = re.search(r"([\d,]+) generated", done.stdout)
    assert generated is not None
    # The run must have been one: each of 15 operations has some dozen cases.
    assert int(generated[1].replace(",", "")) > 300, done.stdout


def test_the_document_describes_and_shows_everything(folder: Path) -> None:
    with serving(folder) as address:
        document = httpx.get(f"{address}/openapi.json").json()
        assert document["openapi"].startswith("3.1")
        operations = [(path, verb, o) for path, verbs in document["paths"].items() for verb, o in verbs.items()]
        assert len(operations) >= 14
        for path, verb, operation in operations:
            assert operation["description"], path
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    assert "example" in parameter or "enum" in parameter["schema"], (path, parameter["name"])
            # The examples are of this export: a path made of them answers.
            if verb == "get" and "{by}" not in path:
                for parameter in operation.get("parameters", ()):
                    path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter.get("example", "")), safe=""))
                assert httpx.get(f"{address.removesuffix('/api/v1')}{path}").status_code == 200, path
        rows = document["components"]["schemas"]["Rows"]
        answer = httpx.post(f"{address}/predict", json=rows["example"]).json()["predictions"]
        assert len(answer) == len(rows["example"]["rows"])
        assert all(placed["cluster"] is not None for placed in answer)


def test_ids_are_as_long_in_any_script(folder: Path) -> None:
    with serving(folder) as address:
        assert httpx.get(f"{address}/items/{quote(LONG, safe='')}").json()["item"]["id"] == LONG
        assert httpx.get(f"{address}/items/{quote('🎵' * 1_500, safe='')}").status_code == 404
        for longer in ("🎵" * 1_501, "a" * 1_501):
            assert httpx.get(f"{address}/items/{quote(longer, safe='')}").status_code == 422
        assert httpx.get(f"{address}/creators/{quote('夜' * 600, safe='')}").status_code == 404
