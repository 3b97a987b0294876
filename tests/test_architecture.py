"""The two rules of the house, read off the imports: who may import whom, and who may import what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpuclust

PACKAGE = Path(gpuclust.__file__).parent
# A file imports only from its left. `compute/backend.py` is the seam that both sides of compute know.
ORDER = ("sanitize", "errors", "folders", "model", "config", "overrides", "compose", "data", "compute", "prepare", "cluster", "analysis", "report", "tracking",
         "artifacts", "desk", "record", "job", "conclude", "curves", "sweep", "choice", "export", "compare", "predict", "describe", "commands", "completion", "usage", "cli", "__main__")  # fmt: skip
HEAVY = {
    "mlflow": ("tracking/",),
    "hydra": ("compose.py", "cli.py"),
    "omegaconf": ("compose.py",),
    "cuml": ("compute/gpu",),
    "cudf": ("compute/gpu",),
    "cupy": ("compute/gpu",),
    "rmm": ("compute/gpu",),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The absolute names that a file imports, wherever in it; not what is only for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(name: str) -> str:
    """The part of the house that a dotted gpuclust name is in."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_left(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    ours = {place(name) for name in imported(path) if name.startswith("gpuclust.") and place(name) != "__version__"}
    if here == "__init__":
        assert not ours
    elif here == "serve":
        assert ours <= {"sanitize", "errors", "model", "serve"}, "serve/ is a wing of its own"
    else:
        right = {name for name in ours if name == "serve" or ORDER.index(name) > ORDER.index(here)}
        allowed = {"serve"} if here == "commands" else set()
        assert right <= allowed, f"{here} is left of {right}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_one_place_knows_each_large_library(path: Path) -> None:
    here = str(path.relative_to(PACKAGE))
    for name in imported(path):
        homes = HEAVY.get(name.split(".")[0])
        assert homes is None or here.startswith(homes), f"{here} imports {name}, which belongs in {homes}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gpuclust.cli import main; main(['--help']); "
        "heavy = {'numpy', 'pandas', 'mlflow', 'hydra', 'sklearn', 'numba', 'matplotlib', 'rich', 'gpuclust.config'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
