"""Tab completion: what is offered after every part of a line, by the query and by the shells themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpuclust.cli import COMMANDS, main
from gpuclust.completion import candidates


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two exports, two tables (one with a space in its name) and a folder of configuration."""
    for folder in ("out/model", "other", "conf mine/experiments", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("tracks.csv", "my table.csv", "out/assignments.parquet", "conf mine/experiments/seven.yaml"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


LINES = [
    ("gpuclust exp", {"experiments=", "export", "explore"}, {"cluster="}),
    ("gpuclust ", {"export", "demo", "cluster=", "seed="}, {"hydra=", "schema="}),
    ("gpuclust run cluster=", {"cluster=gmm", "cluster=hdbscan", "cluster=kmeans"}, set()),
    ("gpuclust cluster=gmm cluster.cov", {"cluster.covariance_type="}, set()),
    ("gpuclust cluster=gmm cluster.", {"cluster.n_clusters="}, {"cluster.min_samples=", "cluster.name="}),
    (
        "gpuclust cluster=kmeans,hdbscan cluster.",
        {"cluster.n_clusters=", "cluster.min_samples="},
        {"cluster.reg_covar="},
    ),
    ("gpuclust scale=m", {"scale=minmax"}, {"scale=none"}),
    ("gpuclust -m cluster=kmeans,g", {"cluster=kmeans,gmm"}, set()),
    ("gpuclust cluster.init=", {"cluster.init=k-means++", "cluster.init=random"}, set()),
    ("gpuclust sweep.resume=", {"sweep.resume=true", "sweep.resume=false"}, set()),
    ("gpuclust data.path=tr", {"data.path=tracks.csv"}, set()),
    ("gpuclust data.path=out/", {"data.path=out/model/", "data.path=out/assignments.parquet"}, set()),
    ("gpuclust experiments=audio", {"experiments=audio_space"}, set()),
    ("gpuclust --config-dir 'conf mine' experiments=s", {"experiments=seven"}, set()),
    ("gpuclust --config-dir o", {"out/", "other/"}, {"tracks.csv"}),
    ("gpuclust --", {"--multirun", "--cfg", "--config-dir"}, {"--out"}),
    ("gpuclust export ", {"best", "--out", "--format", "--metric"}, {"seed=", "export"}),
    ("gpuclust export --", {"--out", "--format", "--uri"}, {"best", "--complete"}),
    ("gpuclust export best --out out --", {"--format"}, {"--out"}),
    ("gpuclust export best --out o", {"out/", "other/"}, set()),
    ("gpuclust export best --out=o", {"--out=out/", "--out=other/"}, set()),
    ("gpuclust export best --format ", {"csv", "parquet"}, {"--out", "tracks.csv"}),
    ("gpuclust compare a b ", {"best", "--out"}, set()),
    ("gpuclust explore ou", {"out/"}, {"other/"}),
    ("gpuclust explore out/ --compare ", {"out/", "other/"}, {"tracks.csv", ".hidden/"}),
    ("gpuclust serve .", {".hidden/"}, set()),
    ("gpuclust predict out/ t", {"tracks.csv"}, set()),
    ("gpuclust predict out/ m", {"my table.csv"}, set()),
    ("gpuclust describe tracks.csv data.roles.i", {"data.roles.id="}, set()),
    ("gpuclust doctor ", {"--help", "--parity"}, {"tracks.csv"}),
    ("gpuclust nosuch", set(), {"--out"}),
    ("gpuclust 'unclosed", set(), set()),
]


@pytest.mark.parametrize(("line", "offered", "others"), LINES, ids=[line for line, _, _ in LINES])
def test_what_is_offered(line: str, offered: set[str], others: set[str], here: Path) -> None:
    found = candidates(line, COMMANDS)
    assert offered <= set(found)
    assert not others & set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_offers_its_options(command: str, here: Path) -> None:
    assert "--help" in candidates(f"gpuclust {command} --", COMMANDS)


def test_a_query_prints_words_and_never_an_error(here: Path) -> None:
    for line in (
        "gpuclust export ",
        "gpuclust cluster==",
        "gpuclust -",
        "gpuclust ~nobody/",
        "gpuclust data.path=~nobody/x",
    ):
        environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        command = [sys.executable, "-m", "gpuclust", "-sc", "query=bash"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        assert done.stderr == ""
        assert "rror" not in done.stdout


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import sys, os; os.environ['COMP_LINE'] = 'gpuclust cluster=gmm cluster.'; from gpuclust.cli import main; "
        "main(['-sc', 'query=bash']); "
        "heavy = {'numpy', 'pandas', 'mlflow', 'hydra', 'rich'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)


def test_a_shell_that_is_not_known_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-sc", "install=powershell"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# What bash itself would show for a line, with or without `=` among the characters that part words.
IN_BASH = r"""
eval "$(gpuclust -sc install=bash)"
[ "$2" = joined ] && COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
COMP_LINE="$1" COMP_POINT=${#1} COMPREPLY=()
_gpuclust_complete gpuclust
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def shell_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `gpuclust` is this code."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gpuclust").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpuclust "$@"\n')
    (programs / "gpuclust").chmod(0o755)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("line", "words", "offered"),
    [
        ("gpuclust explore ou", "parted", ["out/"]),
        ("gpuclust predict out/ m", "parted", ["my table.csv"]),
        ("gpuclust export best --forma", "parted", ["--format "]),
        ("gpuclust scale=m", "parted", ["minmax "]),
        ("gpuclust scale=m", "joined", ["scale=minmax "]),
        ("gpuclust data.path=tr", "parted", ["tracks.csv"]),
        ("gpuclust cluster=gmm cluster.cov", "parted", ["cluster.covariance_type="]),
        ("gpuclust nosuch", "parted", [""]),
    ],
)
def test_bash_shows_it(line: str, words: str, offered: list[str], here: Path, shell_path: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", IN_BASH, "bash", line, words],
        env=shell_path,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=here,
    )
    assert done.stdout.splitlines() == offered, done.stderr
    assert "compopt" in done.stderr or done.stderr == "", "compopt alone cannot work outside of a real completion"


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_shows_it(here: Path, shell_path: dict[str, str]) -> None:
    code = "gpuclust -sc install=fish | source; complete -C 'gpuclust explore ou'; complete -C 'gpuclust scale=m'; complete -C 'gpuclust export --form'"
    done = subprocess.run(["fish", "-c", code], env=shell_path, capture_output=True, text=True, timeout=120, cwd=here)
    assert done.stdout.split() == ["out/", "scale=minmax", "--format"], done.stderr
