"""The code that a logged MLflow model carries, so that it loads where gpuclust is not installed."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

from gpuclust.config import plugins
from gpuclust.model.files import MODEL

PACKAGE = Path(__file__).resolve().parents[1]
# What placing rows needs of gpuclust, and what that imports.
FILES = {"errors.py": "errors.py", "sanitize.py": "sanitize.py", "tracking/pyfunc.py": "pyfunc.py"} | {
    f"model/{path.name}": f"model/{path.name}" for path in sorted((PACKAGE / "model").glob("*.py"))
}
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pydantic", "scipy")
OURS = re.compile(r"^(\s*(?:from|import) )gpuclust\.(?=errors|model|sanitize)", re.MULTILINE)


def write_code(folder: Path) -> str:
    """Copy the code into a package below ``folder``; its name.

    The name has a digest of the code, so that models of several versions load into one process, beside gpuclust itself.
    """
    texts = {target: (PACKAGE / source).read_text(encoding="utf-8") for source, target in FILES.items()}
    name = f"gpuclust_model_{hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:12]}"
    texts["__init__.py"] = f'"""Places rows in a clustering; copied from gpuclust {version("gpuclust")}."""\n'
    for target, text in texts.items():
        path = folder / name / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(OURS.sub(rf"\1{name}.", text), encoding="utf-8")
    return name


def requirements(bundle: Path) -> list[str]:
    """The packages that the carried code imports and those of the plug-ins that the model in a bundle folder needs, in the
    versions that are installed here."""
    described = json.loads((bundle / MODEL).read_text(encoding="utf-8"))
    used = {"algorithms": described["algorithm"], "reducers": described.get("reduce")}
    found = [plugins(group).get(name) for group, name in used.items()]
    packages = [entry.dist.name for entry in found if entry is not None and entry.dist is not None]
    return [f"{package}=={version(package)}" for package in dict.fromkeys((*REQUIREMENTS, *packages))]
