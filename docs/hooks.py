"""MkDocs hooks: the configuration reference from the dataclasses, the tutorial from its notebook, the studies' pages.

Links of a page that leave docs/ lead to the copied page or picture where the site has one; other files are shown by their path, or
by their content.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from html import escape
from pathlib import Path
from typing import Any, get_type_hints

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("experiments/*.md", "experiments/bench/results/*.png")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
INTRODUCTION = """# Configuration

Every key that a job reads, by Hydra group. Choose a file with `group=choice`, change a value with `key=value`, and print what a
command line composes to with `gpuclust --cfg`. Values outside the allowed range are refused before anything runs. This page is
generated from the dataclasses in `gpuclust.config` and `gpuclust.algorithms`.

"""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, the studies and the pictures of the benches."""
    files.append(File.generated(config, "reference/configuration.md", content=INTRODUCTION + "\n".join(sections())))
    for path in (ROOT / "docs").glob("*.ipynb"):
        files.append(File.generated(config, f"{path.stem}.md", content=notebook_page(path)))
    for path in sorted(path for pattern in COPIED for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Rewrite the links that leave docs/."""
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(match: re.Match[str]) -> str:
        mark, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if "://" in target or files.get_file_from_path(posixpath.normpath(posixpath.join(here, target))):
            return match[0]
        # A link of docs/ to the repository leads one folder higher than in the site; one within experiments/ stays there.
        wanted = posixpath.normpath(
            posixpath.join("docs", here, target) if ".." in target else posixpath.join(here, target)
        )
        if files.get_file_from_path(wanted):
            return f"{mark}[{text}]({posixpath.relpath(wanted, here or '.')}{anchor})"
        if not (ROOT / wanted).exists():
            return match[0]  # the strict build reports it
        alone = f"\n{markdown}\n"[match.start()] == f"\n{markdown}\n"[match.end() + 1] == "\n"
        if alone and wanted.endswith((".py", ".yaml")):  # a paragraph of its own is the content of the file
            language = wanted.rpartition(".")[2]
            return f'```{{ .{language} title="{wanted}" }}\n{(ROOT / wanted).read_text(encoding="utf-8")}```'
        return f"`{wanted}`" if text in (wanted, posixpath.basename(wanted)) else f"{text} (`{wanted}`)"

    return LINK.sub(rewrite, markdown)


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text, its code and, where GPUCLUST_DOCS_EXECUTE=1 (`make docs`), the outputs of running it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if os.environ.get("GPUCLUST_DOCS_EXECUTE") == "1":
        notebook = executed(path)
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [shown for output in cell.get("outputs", ()) if (shown := shown_output(output))]
    return "\n\n".join(parts) + "\n"


def executed(path: Path) -> Any:
    """The notebook, run in a folder of its own."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return notebook


def shown_output(output: dict[str, Any]) -> str:
    """One output of a cell: a picture, HTML or text; progress bars are left out."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if isinstance(value, (str, list))}
    if any("widget" in kind for kind in output.get("data", {})):
        return ""
    if "image/png" in data:
        picture = data["image/png"].strip().replace("\n", "")
        return f'<img alt="Output of the cell above" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        lines = (line.strip() for line in data["text/html"].splitlines())
        return f'<div class="notebook-output">{" ".join(lines)}</div>'
    text = data.get("text/plain", "".join(output.get("text", "")) if output.get("name") == "stdout" else "")
    return f'<pre class="notebook-output"><code>{escape(text)}</code></pre>' if text.strip() else ""


def sections() -> Iterator[str]:
    """A section for each group of the configuration, and for each algorithm."""
    from gpuclust.algorithms.registry import algorithms
    from gpuclust.config import Config

    hints = get_type_hints(Config)
    for field in fields(Config):
        kind = hints[field.name]
        if field.name == "cluster":
            for name, algorithm in algorithms().items():
                yield section(f"cluster={name}", algorithm.config, "cluster.")
        elif is_dataclass(kind):
            yield section(field.name, kind, f"{field.name}.", choices(field.name))
    yield section("top level", Config, "", own=True)


def choices(group: str) -> str:
    """The files of a Hydra group, as a line."""
    names = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    return f"Choices: {', '.join(f'`{group}={name}`' for name in names)}.\n\n"


def section(title: str, kind: Any, prefix: str, before: str = "", *, own: bool = False) -> str:
    """A heading, the docstring of the dataclass, and a table of its keys; ``own``: without those of nested dataclasses."""
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|", *keys(kind, prefix, own=own)]
    return f"## {title}\n\n{inspect.getdoc(kind)}\n\n{before}" + "\n".join(rows) + "\n"


def keys(kind: Any, prefix: str, *, own: bool = False) -> Iterator[str]:
    """A row for each key."""
    meanings, hints = meanings_of(kind), get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            yield from () if own else keys(hints[field.name], f"{prefix}{field.name}.")
            continue
        if field.name == "name" and prefix == "cluster.":
            continue
        default: Any = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
        allowed = field.metadata.get("constraint")
        words = getattr(allowed, "words", None)
        shown = ", ".join(f"`{word}`" for word in words) if words else str(allowed or type_name(hints[field.name]))
        value = default if isinstance(default, str) else json.dumps(default)
        cells = [f"`{prefix}{field.name}`", f"`{value}`", shown, meanings.get(field.name, "")]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def type_name(kind: Any) -> str:
    """A type in words."""
    words = {
        "str": "text",
        "bool": "true, false",
        "int": "whole number",
        "float": "number",
        "Any": "text",
        "list[str]": "list of texts",
    }
    words["dict[str, list[float | None]]"] = "feature: [low, high]"
    name = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    return words.get(name) or " or ".join(words.get(part, part) for part in name.split(" | ") if part != "None")


def meanings_of(kind: type) -> dict[str, str]:
    """Field -> the text below it in the class body, in one line."""
    found = {}
    for parent in reversed(kind.__mro__[:-1]):
        tree = ast.parse(inspect.getsource(parent)).body[0]
        assert isinstance(tree, ast.ClassDef)
        for node, following in zip(tree.body, tree.body[1:], strict=False):
            text = following.value if isinstance(following, ast.Expr) else None
            if isinstance(node, ast.AnnAssign) and isinstance(text, ast.Constant) and isinstance(node.target, ast.Name):
                found[node.target.id] = re.sub("``(.+?)``", r"`\1`", " ".join(str(text.value).split()))
    return found
