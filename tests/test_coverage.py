"""The page of what users ask for: every command has options and keys that exist, and every test that it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gpuclust.cli import COMMANDS
from gpuclust.commands import Options
from gpuclust.config import NAMED_BY_TABLE
from gpuclust.overrides import checked_override, is_known

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"`([^`]+)`", PAGE)
NAMED = sorted({text for text in QUOTED if re.fullmatch(r"test_\w+::[\w*]+", text)})
TYPED = sorted({text for text in QUOTED if text.startswith("gpuclust ") and "…" not in text})


def exists(override: str) -> bool:
    """Whether the key of an override exists; the rest of some keys is the name of a column."""
    checked_override(override)
    key = override.partition("=")[0]
    return is_known(key) or key == "experiments" or any(key.startswith(f"{name}.") for name in NAMED_BY_TABLE)


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_is_named_exists(named: str) -> None:
    file, _, function = named.partition("::")
    text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
    assert function == "*" or f"def test_{function}(" in text


@pytest.mark.parametrize("typed", TYPED)
def test_a_command_has_options_and_keys_that_exist(typed: str) -> None:
    _, *words = shlex.split(typed)
    if words[0] not in COMMANDS:
        for word in words:
            if word not in ("-m", "--cost"):
                assert "=" in word
                assert exists(word), word
        return
    with pytest.raises(Options) as asked:  # the parser of the command
        COMMANDS[words[0]](["--complete"])
    known = {option for action in asked.value.parser._actions for option in action.option_strings}
    assert {word for word in words if word.startswith("-")} <= known


def test_every_row_has_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| item", "| rank"))]
    assert len(rows) == 67 + 25
    assert all("test_" in row for row in rows), [row for row in rows if "test_" not in row]


def test_a_key_that_does_not_exist_is_found() -> None:
    assert exists("scale.transform.duration_ms=log")
    assert not exists("cluster.n_cluster=3")
