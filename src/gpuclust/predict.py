"""Score new rows with an exported model: a file in, the same rows with their clusters out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpuclust.config import DataConfig
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.errors import DataError, ExportError, ModelError
from gpuclust.export import MODEL, with_prediction, write_csv
from gpuclust.tracking.bundle import Bundle, Prediction

BATCH_ROWS = 250_000


@dataclass(frozen=True)
class Scored:
    """What was written, and how many rows could not be placed because a feature was missing or out of bounds."""

    path: Path
    n_rows: int
    n_unplaced: int


def predict(folder: Path, rows: Path, out: Path, *, force: bool = False) -> Scored:
    """Place the rows of a file in the clusters of an export (or a bundle) folder.

    ``rows`` is any file that `data.path` takes and has the model's features by name; the output, Parquet or CSV by its
    ending, has its columns and ``cluster``, ``confidence``, ``distance``, ``x``, ``y``, ``z``. Rows that cannot be placed
    keep these empty. Raises ExportError, DataError or ModelError in one line.
    """
    if out.exists() and not force:
        raise ExportError(f"{out} exists; name another --out, or replace it with --force")
    if out.suffix not in (".parquet", ".csv"):
        raise ExportError(f"{out} must end in .parquet or .csv")
    bundle = Bundle.load(folder / MODEL if (folder / MODEL).is_dir() else folder)
    columns, raw = _rows(rows, bundle.features)
    prediction = _in_batches(bundle, raw)
    scored = with_prediction(columns, prediction)
    temporary = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            write_csv(scored, temporary)
        else:
            pq.write_table(scored, temporary, compression="zstd")
        temporary.rename(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written ({error.strerror or error}); name another --out") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Scored(out, len(raw), int((~prediction.placed).sum()))


def _rows(path: Path, features: tuple[str, ...]) -> tuple[pa.Table, np.ndarray]:
    """The file's roles and features as columns, and the raw features (n_rows, n_features) float64 with NaN."""
    frames = PandasFrames()
    try:
        table = read(DataConfig(path=str(path), preset="tracks", features=list(features)), frames)
    except DataError as error:
        raise DataError(f"{error} (the model needs: {', '.join(features)})") from error
    if missing := set(features) - set(table.frame.columns):
        raise ModelError(f"{path} lacks {', '.join(sorted(missing))}, which the model needs")
    raw = np.column_stack([frames.to_numeric(table.frame[f]).to_numpy(dtype=np.float64) for f in features])
    columns = pa.Table.from_pandas(table.frame, preserve_index=False).replace_schema_metadata(None)
    return columns, raw


def _in_batches(bundle: Bundle, raw: np.ndarray) -> Prediction:
    parts = [bundle.predict(raw[at : at + BATCH_ROWS]) for at in range(0, max(len(raw), 1), BATCH_ROWS)]
    return Prediction(
        cluster=np.concatenate([p.cluster for p in parts]),
        confidence=np.concatenate([p.confidence for p in parts]),
        distance=np.concatenate([p.distance for p in parts]),
        coordinates=np.concatenate([p.coordinates for p in parts]),
    )
