"""The README is run: each command of its ``sh`` blocks, in order, in a fresh folder, on a generated file."""

import re
import shlex
from pathlib import Path

import pytest

from gpuclust.algorithms.registry import known_keys
from gpuclust.cli import COMMANDS, main
from gpuclust.config import flatten

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
# These serve until they are stopped; their own tests start and stop them.
SERVERS = {"ui", "serve", "explore"}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("gpuclust ")]


def test_every_command_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpuclust.tracks.catalogue import catalogue

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "gpuclust-runs").mkdir()
    (tmp_path / "gpuclust-runs" / "mlflow.db").write_bytes(store_template.read_bytes())
    catalogue(2000, seed=1).to_csv("tracks.csv", index=False)
    found = commands()
    assert len(found) >= 7
    for line in found:
        arguments = shlex.split(line)[1:]
        if arguments[0] not in SERVERS:
            assert main(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert (tmp_path / "scored.parquet").is_file()


def test_every_sub_command_is_in_the_readme() -> None:
    assert [name for name in COMMANDS if f"gpuclust {name}" not in README] == []


def test_every_configuration_key_is_in_the_readme() -> None:
    leaves = {key.rpartition(".")[2] for key in known_keys() if not key.endswith((".name", ".method", ".store"))}
    internal = {"source", "preset", "experiments"}
    assert sorted(leaf for leaf in leaves - internal if not re.search(rf"\b{re.escape(leaf)}\b", README)) == []
    assert flatten({"a": {"b": 1}}) == {"a.b": 1}


def test_links_of_the_readme_exist() -> None:
    root = Path(__file__).resolve().parents[1]
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [link for link in links if not (root / link.split("#")[0]).exists()] == []
