"""Exports for the tests of serve/: real ones, made by a job, MLflow and `export` from a table given as a frame."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpuclust.compose import plan
from gpuclust.export import export, find_run
from gpuclust.pipeline import sweep
from gpuclust.pipeline.context import RunContext
from gpuclust.runtime.backend import BackendChoice
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.serve.library import Library
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.conftest import Quiet

FEATURES = ["danceability", "energy", "valence", "tempo", "duration_ms"]
TITLES = [
    "Crazy In Love", "Fly Me to the Moon", "Fly Me to the Moon - 2008 Remaster", "Hello", "Hello?", "HELLO", "¡Háblame!", "???",
    "Don't Stop Me Now", "Dont Stop Me Now", "夜に駆ける", "Straße nach Łódź", "=HYPERLINK(\"http://x\",\"y\")", "+1", "@SUM(A1)", "-2",
    "<script>alert(1)</script>", "Robert'); DROP TABLE items;--", "\x1b[31mred", "two\nlines", "\u202eright to left", "🎵🎵",
    "a\u0301 combining", "NULL", "\" OR 1=1 \"", "title:x AND NEAR(", "*", "Blue & Green", "Ünïcödé", "Love", "Lovely", "The The",
    "Bohemian Rhapsody", "Paranoid Android", "Smells Like Teen Spirit", "Wonderwall", "Yesterday", "Imagine", "Thunderstruck",
]  # fmt: skip
CREATORS = [
    "Beyoncé;JAY-Z", "Frank Sinatra", "Adele", "Lionel Richie", "AC/DC", "Queen", "Sigur Rós", "YOASOBI", "Motörhead", "The The",
    "=cmd()", "<b>Bold</b>", "Bobby '; DROP", "Radiohead", "Oasis", "Nirvana",
]  # fmt: skip
GROUPS = ["rock", "pop", "jazz", "folk"]


def tracks(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """A table of tracks in three loose clouds; its titles and creators are what people type, and what they attack with."""
    rng = np.random.default_rng(seed)
    cloud = rng.integers(0, 3, n)
    centres = rng.uniform(0.2, 0.8, size=(3, len(FEATURES)))
    values = np.clip(centres[cloud] + rng.normal(scale=0.08, size=(n, len(FEATURES))), 0, 1)
    frame = pd.DataFrame(values, columns=FEATURES)
    frame["tempo"], frame["duration_ms"] = 60 + 140 * frame["tempo"], (60_000 + 300_000 * frame["duration_ms"]).round()
    frame.insert(0, "id", [f"track{i:05d}" for i in range(n)])
    frame["title"] = [
        TITLES[i % len(TITLES)] if i < 2 * len(TITLES) else f"Song {i} of {GROUPS[i % 4]}" for i in range(n)
    ]
    frame["artist"] = rng.choice(CREATORS, n)
    frame["genre"] = rng.choice(GROUPS, n)
    frame["popularity"] = rng.integers(0, 40, n)
    frame["year"] = rng.integers(1960, 2024, n)
    return frame


def made_export(
    frame: pd.DataFrame, folder: Path, store: Path, *overrides: str, features: list[str] = FEATURES
) -> Path:
    """The export folder of one job over a table. ``store`` is an MLflow store to copy."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "tracks.parquet")
    shutil.copy(store, folder / "mlflow.db")
    recorder = MlflowRecorder(f"sqlite:///{folder / 'mlflow.db'}", "e")
    context: Any = RunContext(
        CpuBackend(), BackendChoice("cpu", "a test"), ResultCache(), recorder, Quiet(), "gpuclust test"
    )
    size = [] if any(o.startswith("cluster") for o in overrides) else ["cluster.n_clusters=3"]
    wanted = [
        "data=tracks",
        f"data.path={folder / 'tracks.parquet'}",
        f"data.features=[{','.join(features)}]",
        "report=none",
    ]
    planned = plan([*wanted, *size, *overrides], multirun=False)
    sweep.run(planned, sweep.jobs_of(planned, context.backend), context)
    return export(find_run(recorder, "best"), folder / "out", recorder=recorder, context=context).folder


def sealed(folder: Path) -> Path:
    """The folder with the digests that its files have now, as if they had been exported so; files that are gone keep theirs."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["sha256"]:
        if (folder / name).is_file():
            manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    return folder


def table_of(library: Library) -> pd.DataFrame:
    """The assignments that a library was opened on."""
    return pd.read_parquet(library.folder / "assignments.parquet")
