"""The documentation is run: the commands and the Python code of the README and of the how-to pages, in order, on a generated file.

Every command, configuration key and link is checked, and the site is built and loads nothing from other hosts.
"""

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpuclust.algorithms.registry import known_keys
from gpuclust.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
RUN = [name for name in PAGES if name in ("README.md", "docs/index.md") or name.startswith("docs/howto/")]
# These serve until they are stopped; their own tests start and stop them.
SERVERS = {"ui", "serve", "explore"}


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of each block of a page that is run, in order."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A working folder with a file of tracks, which all pages share: a sweep that an earlier page ran is resumed."""
    from gpuclust.tracks.catalogue import catalogue

    folder = tmp_path_factory.mktemp("pages")
    (folder / "gpuclust-runs").mkdir()
    (folder / "gpuclust-runs" / "mlflow.db").write_bytes(store_template.read_bytes())
    catalogue(2000, seed=1).to_csv(folder / "tracks.csv", index=False)
    return folder


@pytest.mark.parametrize("page", RUN)
def test_the_commands_and_the_code_of_a_page_run(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = blocks(page)
    names: dict[str, object] = {}
    for language, text in found:
        if language == "python":
            exec(compile(text, page, "exec"), names)
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "gpuclust", f"{page} has a command that this test cannot run: {line}"
            if arguments[0] not in SERVERS:
                assert main(arguments) == 0, f"{page}: {line}\n{capsys.readouterr().err}"


def test_every_sub_command_is_documented() -> None:
    page = PAGES["docs/reference/commands.md"]
    assert [name for name in COMMANDS if f"gpuclust {name}" not in page] == []


def test_links_lead_to_files() -> None:
    generated = {ROOT / "docs" / "reference" / "configuration.md", ROOT / "docs" / "tutorial.md"}
    broken = [
        f"{page}: {link}"
        for page, text in PAGES.items()
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in link
        and not (target := (ROOT / page).parent / link).exists()
        and Path(os.path.normpath(target)) not in generated
    ]
    assert broken == []


class Loaded(HTMLParser):
    """The addresses that a browser fetches when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}.get(tag)
        self.found += [value for name, value in attrs if name == wanted and value]


def test_the_site_is_built_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="MkDocs builds the site; install gpuclust[docs]")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 20
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [address for address in loaded.found if re.match(r"(https?:)?//", address)] == [], page
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8"), sheet
    text = (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    internal = {"cluster.name", "experiments"}
    missing = sorted(key for key in known_keys() if key not in internal and f"<code>{key}</code>" not in text)
    assert missing == [], "the configuration reference lacks keys"
    assert "<td></td>" not in text, "a key of the configuration reference has no meaning or no range"
