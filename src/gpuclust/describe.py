"""An early look at a file: what its columns are, which would be clustered and why, before anything is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gpuclust.compose import compose
from gpuclust.config import DataConfig
from gpuclust.data.columns import AUDIO_FEATURES, spelling
from gpuclust.data.frames import PandasFrames
from gpuclust.data.lists import join_items
from gpuclust.data.load import load, look
from gpuclust.data.read import read
from gpuclust.data.settle import is_text, to_numbers
from gpuclust.data.table import Frame, Table
from gpuclust.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = 3
STRONG, REDUNDANT = 0.5, 0.95  # |correlation| from which a pair is told, and from which one of the two says little
LIKE_TRACKS = 5  # audio features by their usual names from which a table is taken for one of tracks
UNEVEN = 100.0  # ratio of spreads from which clustering unscaled features means clustering one of them


@dataclass(frozen=True)
class ColumnFacts:
    """A column of the file. ``use``: ``feature``, or why it is none. The four numbers are None for a column of texts;
    ``n_text`` cells of a column of numbers are neither numbers nor spellings of a missing value."""

    name: str
    kind: str
    use: str
    n_missing: int
    n_distinct: int
    n_text: int = 0
    low: float | None = None
    median: float | None = None
    mean: float | None = None
    high: float | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """What a file holds and what would be clustered.

    ``correlation`` (n_features, n_features) is Pearson's, over the rows where both features are known;
    ``n_duplicate_rows`` repeat an earlier row in every column but the one that numbers the rows; ``n_incomplete_rows``
    miss a feature; ``n_repeated_ids`` repeat an earlier id, None where the file has none.
    """

    path: str
    n_rows: int
    source: dict[str, Any]
    columns: tuple[ColumnFacts, ...]
    features: tuple[str, ...]
    roles: dict[str, str]
    correlation: tuple[tuple[float, ...], ...]
    n_duplicate_rows: int
    n_repeated_ids: int | None
    n_incomplete_rows: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; what is not a number (the correlation of a constant) is null."""
        matrix = [[None if np.isnan(r) else r for r in row] for row in self.correlation]
        return asdict(self) | {"correlation": matrix}

    def pairs(self, least: float) -> list[tuple[str, str, float]]:
        """The pairs of features whose correlation is at least ``least`` either way, the strongest first."""
        r = np.array(self.correlation).reshape(len(self.features), -1)
        i, j = np.nonzero(np.triu(np.abs(np.nan_to_num(r)) >= least, k=1))
        found = [(self.features[a], self.features[b], float(r[a, b])) for a, b in zip(i, j, strict=True)]
        return sorted(found, key=lambda pair: -abs(pair[2]))


def described_data(path: Path, overrides: Sequence[str] = (), *, preset: str = "none") -> DataConfig:
    """How a job would read the file: ``data=table`` (``data=tracks`` for the preset) with overrides of ``data.*``.

    Raises ConfigurationError for any other key, and for ``data.path``, which is the file.
    """
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        if not name.startswith("data.") or name in ("data.path", "data.source", "data.preset"):
            raise ConfigurationError(
                f"describe takes data.* other than the path, the source and the preset, not '{override}'"
            )
    group = "tracks" if preset == "tracks" else "table"
    data = compose([f"data={group}", "data.path=given", *overrides]).data
    data.path = str(path.expanduser())
    return data


def describe(data: DataConfig) -> tuple[Description, Table]:
    """Look at every column of the file, and at the table that a job would read from it.

    Raises:
        ConfigurationError: a named column is not there.
        DataError: the file is missing, empty, damaged, not a table, or has no column to cluster.
    """
    assert data.path is not None
    frames = PandasFrames()
    seen = look(data.path)
    table = read(data, frames)
    loaded = load(seen, frames, list(seen.kinds))
    frame = loaded.frame
    why = {out.column: out.why for out in table.audit.left_out} | dict.fromkeys(table.features, "feature")
    decimal = next((layout.decimal for layout in loaded.layouts), ".")
    columns = tuple(
        _column(frame[name], name, kind, why.get(name, "not used"), decimal) for name, kind in seen.kinds.items()
    )
    features = table.frame[list(table.features)].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    own_id = None if table.audit.source.get("id_made") else table.roles.id
    return Description(
        path=data.path,
        n_rows=len(frame),
        source=table.audit.source,
        columns=columns,
        features=table.features,
        roles=table.roles.named() if own_id else {k: v for k, v in table.roles.named().items() if k != "id"},
        correlation=tuple(tuple(row) for row in features.corr().to_numpy().tolist()),
        n_duplicate_rows=_duplicates(frame, [name for name, kind in seen.kinds.items() if kind != "index"]),
        n_repeated_ids=int(frame[own_id].dropna().duplicated().sum()) if own_id in frame else None,
        n_incomplete_rows=int(features.isna().any(axis=1).sum()),
        notes=table.audit.notes,
    ), table


def _column(column: Any, name: str, kind: str, use: str, decimal: str) -> ColumnFacts:
    n_missing, n_text = int(column.isna().sum()), 0
    if kind == "list":
        column = pd.Series(join_items(pa.array(column), ", ").to_pandas())
    if kind in ("number", "index", "empty") and is_text(column):
        column, n_text = to_numbers(column, PandasFrames(), decimal)
        n_missing = int(column.isna().sum()) - n_text
    if column.dtype.kind in "iuf":
        spread = [float(getattr(column, which)()) for which in ("min", "median", "mean", "max")]
        known = spread if column.notna().any() else [None] * 4
        return ColumnFacts(name, kind, use, n_missing, int(column.nunique()), n_text, *known)
    if is_text(column):
        column = column.where(column != "")  # an empty text is a missing one
        n_missing = int(column.isna().sum())
    counts = column.value_counts()
    return ColumnFacts(name, kind, use, n_missing, len(counts), examples=tuple(map(str, counts.index[:EXAMPLES])))


def _duplicates(frame: Frame, columns: Sequence[str]) -> int:
    lists = {n: join_items(pa.array(frame[n]), "\x1f").to_pandas() for n in columns if "list" in str(frame[n].dtype)}
    return int(frame[list(columns)].assign(**lists).duplicated().sum())


def advice(found: Description, table: Table) -> list[str]:
    """What to know before clustering, in words; each says which setting meets it."""
    said = []
    if found.n_incomplete_rows:
        said.append(f"{found.n_incomplete_rows:,} rows miss a feature: dropped, unless clean.nulls=median or mean")
    if found.n_repeated_ids:
        said.append(
            f"{found.n_repeated_ids:,} rows repeat an earlier {found.roles['id']}: clean.duplicates=id keeps one"
        )
    elif found.n_duplicate_rows:
        said.append(f"{found.n_duplicate_rows:,} rows repeat an earlier row: clean.duplicates=row keeps one")
    said += [
        f"{one} and {other} say nearly the same (correlation {r:+.2f}): data.exclude=[{other}]"
        for one, other, r in found.pairs(REDUNDANT)
    ]
    said += [f"{c.name} has one value: left out" for c in found.columns if c.use == "feature" and c.n_distinct == 1]
    if not found.roles and len({spelling(c.name) for c in found.columns} & set(AUDIO_FEATURES)) >= LIKE_TRACKS:
        said.append("these look like music tracks: data=tracks (--preset tracks) takes their audio features and roles")
    spreads = {name: float(table.frame[name].std()) for name in table.features}
    by_spread = sorted((name for name in spreads if spreads[name] > 0), key=spreads.__getitem__)
    if len(by_spread) > 1 and spreads[by_spread[-1]] >= UNEVEN * spreads[by_spread[0]]:
        least, most = by_spread[0], by_spread[-1]
        said.append(
            f"{most} spreads {spreads[most] / spreads[least]:,.0f} times as far as {least}: keep scale=standard, "
            "or it decides alone"
        )
    return said


def write(found: Description, table: Table, folder: Path, *, force: bool = False) -> Path:
    """Write ``description.json``, ``correlation.png`` and ``distributions.png`` into a folder; the same folder back.

    Raises DataError when the folder holds a description already (unless ``force``) or cannot be written.
    """
    from gpuclust.report import figures

    if (folder / "description.json").exists() and not force:
        raise DataError(f"{folder} holds a description already; name another --out, or replace it with --force")
    whole = table.frame[list(table.features)].replace([np.inf, -np.inf], np.nan).dropna()
    drawn = {
        "correlation": figures.correlation_matrix(np.array(found.correlation), table.features),
        "distributions": figures.feature_distributions(whole.to_numpy(np.float64), table.features),
    }
    text = json.dumps(found.to_dict() | {"advice": advice(found, table)}, indent=2, ensure_ascii=False, default=str)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            (folder / f"{name}.png").write_bytes(figures.to_png(figure))
        (folder / "description.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}); name another --out") from error
    return folder


def show(found: Description, table: Table, console: Console, *, preset: str = "none") -> None:
    """Print a description: the file, a line for each column, what to know, and what to type next."""
    from rich.markup import escape
    from rich.table import Table as Lines

    from gpuclust.report.text import number, one_line, percent

    about = found.source
    words = [f"{found.n_rows:,} rows", f"{len(found.columns)} columns", str(about.get("format", ""))]
    words += [f"{k.replace('_', ' ')} {about[k]!r}" for k in ("separator", "encoding", "index_column") if about.get(k)]
    console.print(escape(f"{found.path}: {', '.join(filter(None, words))}"))
    lines = Lines(box=None, header_style="bold", pad_edge=False)
    for head in ("column", "type", "use", "missing", "distinct", "lowest", "median", "highest", "examples"):
        right = head in ("missing", "distinct", "lowest", "median", "highest")
        folds = head in ("column", "use")
        lines.add_column(head, justify="right" if right else "left", overflow="fold", no_wrap=not folds)
    for c in found.columns:
        figures = ["" if v is None else number(v) for v in (c.low, c.median, c.high)]
        missing = f"{c.n_missing:,} ({percent(c.n_missing / found.n_rows)})" if c.n_missing else "0"
        texts = [f"{c.n_text:,} cells are text"] if c.n_text else [one_line(e, 18) for e in c.examples]
        cells = [one_line(c.name, 40), c.kind, c.use, missing, f"{c.n_distinct:,}", *figures, " | ".join(texts)]
        lines.add_row(*map(escape, cells), style="" if c.use == "feature" else "dim")
    console.print(lines)
    console.print(escape(f"features: {', '.join(found.features)}"))
    console.print(escape(f"roles: {', '.join(f'{k} = {v}' for k, v in found.roles.items()) or 'none'}"))
    pairs = found.pairs(STRONG)[:6]
    console.print(escape(f"correlations: {', '.join(f'{a}/{b} {r:+.2f}' for a, b, r in pairs) or f'none of {STRONG}'}"))
    n = found.n_duplicate_rows
    console.print(f"duplicates: {n:,} whole rows" + _of_ids(found.n_repeated_ids))
    for line in (*found.notes, *advice(found, table)):
        console.print(escape(f"· {line}"))
    group = "tracks" if preset == "tracks" else "table"
    console.print(
        escape(f"next: gpuclust -m data={group} data.path={shlex.quote(found.path)} 'cluster.n_clusters=range(2,11)'")
    )


def _of_ids(n: int | None) -> str:
    return "; the file has no id column" if n is None else f", {n:,} ids"
