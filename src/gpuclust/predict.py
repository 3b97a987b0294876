"""Score new rows with an exported model: a file in, the same rows with their clusters out, and how they differ from
the rows that the model was fitted on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpuclust.config import DataConfig
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.errors import ConfigurationError, DataError, ExportError, ModelError
from gpuclust.export import with_prediction, write_csv
from gpuclust.model.bundle import Bundle
from gpuclust.model.manifest import MODEL
from gpuclust.model.novelty import MAX_OUTSIDE, FeatureShift, Novelty, compare
from gpuclust.model.schema import Details


@dataclass(frozen=True)
class Scored:
    """What was written, and how the rows differ from the training rows. ``exceeding`` are the features of which more
    than ``max_outside`` of the rows is outside the training range (see `Novelty.exceeding`)."""

    path: Path
    novelty: Novelty
    exceeding: tuple[FeatureShift, ...]

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
    force: bool = False,
) -> Scored:
    """Place the rows of a file in the clusters of an export (or a bundle) folder.

    ``rows`` is any file that `data.path` takes and has the model's features by name; the output, Parquet or CSV by its
    ending, has its columns and ``cluster``, ``confidence``, ``distance``, ``x``, ``y``, ``z``. Rows that cannot be placed
    keep these empty. ``report`` is a JSON file to write the comparison with the training rows to. Raises
    ConfigurationError, ExportError, DataError or ModelError in one line.
    """
    if not 0 <= max_outside <= 1:
        raise ConfigurationError(f"--max-outside {max_outside:g} is outside 0 to 1; give a share of the rows")
    for path, option in ((out, "--out"), (report, "--report")):
        if path is not None and path.exists() and not force:
            raise ExportError(f"{path} exists; name another {option}, or replace it with --force")
    if out.suffix not in (".parquet", ".csv"):
        raise ExportError(f"{out} must end in .parquet or .csv")
    if report is not None and report.absolute() == out.absolute():
        raise ExportError(f"--report and --out are both {out}; name two files")
    bundle = Bundle.load(folder / MODEL if (folder / MODEL).is_dir() else folder)
    columns, raw = _rows(rows, bundle.features)
    prediction = bundle.predict(raw)
    scored = with_prediction(columns, prediction)
    details = Details.model_validate(bundle.details)
    novelty = compare(
        details, bundle.features, raw, prediction.cluster, prediction.confidence, prediction.distance, prediction.placed
    )
    exceeding = novelty.exceeding(max_outside)
    with _whole_file(out, "--out") as temporary:
        if out.suffix == ".csv":
            write_csv(scored, temporary)
        else:
            pq.write_table(scored, temporary, compression="zstd")
    if report is not None:
        content = {"model": str(folder), "rows_of": str(rows), "out": str(out), "max_outside": max_outside}
        content |= {"exceeding": [f.feature for f in exceeding]} | novelty.to_dict()
        with _whole_file(report, "--report") as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Scored(out, novelty, exceeding)


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


def _rows(path: str | Path, features: tuple[str, ...]) -> tuple[pa.Table, np.ndarray]:
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
