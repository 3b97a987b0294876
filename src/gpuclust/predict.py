"""Score new rows with an exported model: a file in, the same rows with their clusters out, and how they differ from
the rows that the model was fitted on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gpuclust.assignments import BATCH_ROWS, assign, frame_batches, tables_of, with_assignments, write_tables
from gpuclust.config import Config, DataConfig, MemoryConfig
from gpuclust.data.batches import regroup
from gpuclust.data.encode import GivenEncodings
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.stream import open_stream
from gpuclust.data.vectors import VectorColumn
from gpuclust.errors import ConfigurationError, DataError, ExportError, ModelError
from gpuclust.model.bundle import Bundle
from gpuclust.model.drift import Psi
from gpuclust.model.encodings import CIRCULAR, encoded_columns
from gpuclust.model.manifest import MODEL
from gpuclust.model.novelty import (
    MAX_OUTSIDE,
    CategoryShift,
    FeatureShift,
    Novelty,
    RangeCounts,
    category_shifts,
    compare,
    count_categories,
    count_outside,
)
from gpuclust.model.schema import Details
from gpuclust.model.vectors import listed, vector_columns, without_vectors
from gpuclust.runtime.blocks import MemoryBlocks, RowBlocks, Run
from gpuclust.runtime.forecast import RESIDENT, forecast
from gpuclust.runtime.memory import scratch_folder
from gpuclust.runtime.scratch import Scratch
from gpuclust.runtime.vector_blocks import VectorBlocks
from gpuclust.sanitize import mask


@dataclass(frozen=True)
class Scored:
    """What was written, and how the rows differ from the training rows. ``exceeding`` are the features of which more
    than ``max_outside`` of the rows is outside the training range (see `Novelty.exceeding`), ``unknown`` the columns of which more are of
    categories that the model does not know (see `Novelty.unknown`), ``drifted`` what has a population stability index above ``max_psi``. ``document``
    is the comparison as plain values, as ``report`` holds it."""

    path: Path
    novelty: Novelty
    exceeding: tuple[FeatureShift, ...]
    unknown: tuple[CategoryShift, ...]
    drifted: tuple[tuple[str, Psi], ...]
    document: Mapping[str, Any]

    @property
    def n_rows(self) -> int:
        """How many rows were read."""
        return self.novelty.n_rows

    @property
    def n_unplaced(self) -> int:
        """How many could not be placed, because a feature was missing or out of bounds."""
        return self.novelty.n_unplaced


def predict(
    folder: Path,
    rows: str | Path,
    out: Path,
    *,
    report: Path | None = None,
    max_outside: float = MAX_OUTSIDE,
    memberships: int = 0,
    max_psi: float | None = None,
    force: bool = False,
    memory: MemoryConfig | None = None,
    model: str | None = None,
) -> Scored:
    """Place the rows of a file in the clusters of an export (or a bundle) folder.

    ``rows`` is any file that `data.path` takes, a query, or a `DataConfig.location`, and has the model's features by name; the output, Parquet or CSV by its
    ending, has its columns and ``cluster``, ``confidence``, ``distance``, ``x``, ``y``, ``z``. Rows that cannot be placed
    keep these empty. ``memberships``: in how many clusters each row also gets its membership, and its outlier score. ``max_psi`` is the limit of
    `Scored.drifted`; None: no limit. ``report`` is a JSON file to write the comparison with the training rows to. Rows that do not fit in memory
    (``memory``) are read, placed and written in batches. ``model`` is the name of the model in the report, by default the folder. Raises
    ConfigurationError, ExportError, DataError or ModelError in one line.
    """
    if not 0 <= max_outside <= 1:
        raise ConfigurationError(f"--max-outside {max_outside:g} is outside 0 to 1; give a share of the rows")
    if max_psi is not None and not max_psi >= 0:
        raise ConfigurationError(f"--max-psi {max_psi:g} is below 0; give a limit such as 0.25")
    for path, option in ((out, "--out"), (report, "--report")):
        if path is not None and path.exists() and not force:
            raise ExportError(f"{path} exists; name another {option}, or replace it with --force")
    if out.suffix not in (".parquet", ".csv"):
        raise ExportError(f"{out} must end in .parquet or .csv")
    if report is not None and report.absolute() == out.absolute():
        raise ExportError(f"--report and --out are both {out}; name two files")
    bundle = Bundle.load(folder / MODEL if (folder / MODEL).is_dir() else folder)
    source = DataConfig(preset="tracks").at(str(rows))
    with opened(source, bundle, memory or MemoryConfig()) as given:
        assigned = assign(bundle, given.raw)
        details, placed = Details.model_validate(bundle.details), assigned.placed
        counts: list[RangeCounts] = given.raw.collect(_count_outside, details, bundle.features)
        found = (values[placed] for values in (assigned.cluster, assigned.confidence, assigned.distance))
        parts: list[list[np.ndarray]] = given.raw.collect(_count_categories, bundle)
        categories = category_shifts(
            bundle.encodings, bundle.features, [reduce(add, column) for column in zip(*parts, strict=True)]
        )
        novelty = compare(details, reduce(add, counts), *found, categories=categories)
        exceeding, unknown = novelty.exceeding(max_outside), novelty.unknown(max_outside)
        drifted = () if max_psi is None else novelty.drift.exceeding(max_psi)
        with _whole_file(out, "--out") as temporary:
            tables = with_assignments(given.columns, bundle, given.raw, assigned, memberships=memberships)
            write_tables(tables, **{out.suffix[1:]: temporary})
    content: dict[str, Any] = {"model": mask(model or str(folder)), "rows_of": mask(source.shown), "out": str(out)}
    content |= {
        "max_outside": max_outside,
        "exceeding": [*(c.column for c in unknown), *(f.feature for f in exceeding)],
    }
    content |= {"max_psi": max_psi, "drifted": [name for name, _ in drifted]} | novelty.to_dict()
    if report is not None:
        with _whole_file(report, "--report") as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Scored(out, novelty, exceeding, unknown, drifted, content)


@contextmanager
def _whole_file(path: Path, option: str) -> Iterator[Path]:
    """A file that appears under its name only when it is complete."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror or error}); name another {option}") from error
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class OpenedRows:
    """The rows of a file: their roles and features as ``columns`` in batches, and ``raw`` (n_rows, n_features) float64 with NaN."""

    columns: Iterable[pa.Table]
    raw: RowBlocks


@contextmanager
def opened(source: DataConfig, bundle: Bundle, memory: MemoryConfig) -> Iterator[OpenedRows]:
    """The rows of a source with the features of a model, as they were read, in memory; or, if the forecast is above the memory limit, in batches
    that are read a second time for the output."""
    features, encodings = bundle.features, bundle.encodings
    columns, made = without_vectors(features), encoded_columns(encodings, features)
    vectors = {name: place.stop - place.start for name, place in vector_columns(features).items()}
    data = replace(
        source,
        features=[*(name for name in columns if name not in made), *vectors],
        categorical=[e.column for e in encodings if e.kind != CIRCULAR],
        circular={e.column: e.period for e in encodings if e.kind == CIRCULAR},
        weight=None,
    )
    path = mask(data.shown)
    frames, encoder = PandasFrames(), GivenEncodings(encodings)
    unwanted = {name for encoding in encodings for name in encoding.features}
    try:
        if forecast(Config(data=data, memory=memory)).rung == RESIDENT:
            table = read(data, frames, encoder=encoder)
            raw = _raw(table.frame, columns, frames, path)
            _check_sizes(table.vectors, vectors, path)
            blocks = VectorBlocks(raw, table.vectors) if vectors else MemoryBlocks(raw)
            yield OpenedRows(frame_batches(_without(table.frame, unwanted), frames), blocks)
            return
        with Scratch(scratch_folder(memory)) as scratch, open_stream(data, frames, scratch, encoder=encoder) as stream:
            writer = scratch.writer("features", len(features), np.float64)
            for frame in stream.batches():
                writer.append(_raw(frame, features, frames, path))
            own = (_without(frame, unwanted) for frame in stream.batches())
            parts = regroup(tables_of(own), BATCH_ROWS)
            yield OpenedRows(parts, writer.close())
    except DataError as error:
        raise DataError(f"{error} (the model needs: {', '.join(listed(features))})") from error


def _without(frame: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    """The frame without some columns."""
    return frame[[name for name in frame.columns if name not in names]] if names else frame


def _check_sizes(vectors: Sequence[VectorColumn], sizes: Mapping[str, int], path: str) -> None:
    """Raise ModelError for a column of vectors of another length than the model's."""
    for name, size in sizes.items():
        found = next((column.size for column in vectors if column.name == name), None)
        if found != size:
            has = "is not a list of numbers" if found is None else f"has vectors of {found:,} numbers"
            raise ModelError(f"{path}: the column {name!r} {has}, and the model takes vectors of {size:,}")


def _raw(frame: pd.DataFrame, features: Sequence[str], frames: PandasFrames, path: str) -> np.ndarray:
    if missing := set(features) - set(frame.columns):
        raise ModelError(f"{path} lacks {', '.join(sorted(missing))}, which the model needs")
    if not features:
        return np.empty((len(frame), 0))
    values = (frame[f] if frame[f].dtype.kind in "iuf" else frames.to_numeric(frame[f]) for f in features)
    return np.column_stack([column.to_numpy(dtype=np.float64) for column in values])


def _count_categories(run: Run, bundle: Bundle) -> list[np.ndarray]:
    return count_categories(bundle.encodings, bundle.features, run.X)


def _count_outside(run: Run, details: Details, features: Sequence[str]) -> RangeCounts:
    return count_outside(details, features, run.X)
