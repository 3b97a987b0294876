"""Profile a file before clustering: its columns, which of them a job would use, and why not the others."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gpuclust.compose import compose
from gpuclust.config import SOURCE, CleanConfig, DataConfig, is_query
from gpuclust.data.clean import clean
from gpuclust.data.feature_checks import check_features
from gpuclust.data.files import expand_user
from gpuclust.data.frames import PandasFrames
from gpuclust.data.infer_types import is_text, to_numbers
from gpuclust.data.lists import join_items
from gpuclust.data.load import load_columns
from gpuclust.data.read import read
from gpuclust.data.remote import is_remote
from gpuclust.data.schema import FileSchema, read_schema
from gpuclust.data.summary import dropped_rows_warnings, summary
from gpuclust.data.table import Frame, Table, sample_rows
from gpuclust.data.vectors import GOOD, VectorColumn, hash_vectors, read_vectors
from gpuclust.errors import CleaningError, ConfigurationError, DataError
from gpuclust.sanitize import mask
from gpuclust.tracks.presets import TRACKS, normalise_name

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = 3
LENGTH_ROWS = 10_000  # vectors whose lengths are computed
STRONG, REDUNDANT = 0.5, 0.95  # minimum |correlation| of listed pairs, and of redundant pairs
MIN_AUDIO_FEATURES = 5  # with as many audio features the preset for tracks is recommended
MAX_SPREAD_RATIO = 100.0  # with a larger ratio, one feature dominates the distances between unscaled rows
MAX_CORRELATED = 1000  # correlations are computed for at most this many features
MAX_CATEGORIES = 20  # a column with as many values is suggested as a categorical one
MAX_PAIRS = 5  # listed redundant pairs, and skewed features
MIN_GROUP = 12  # at least this many adjacent columns whose names differ only in a number share a line


@dataclass(frozen=True)
class ColumnProfile:
    """The profile of a column.

    ``use`` is ``feature`` or the reason why a job does not use the column; ``what`` is the reason why a numeric column is
    probably not a measurement (see `gpuclust.data.feature_checks`). The four numbers are None for text; ``n_text`` cells of a
    numeric column are neither numbers nor spellings of a missing value.
    """

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
    what: str = ""


@dataclass(frozen=True)
class Description:
    """The profile of a file, and what a job would cluster.

    ``correlation`` (n_features, n_features) is Pearson's, over the rows with both features, and empty for more than
    `MAX_CORRELATED` features; ``n_duplicate_rows`` repeat an earlier row in every column except an index; ``n_incomplete_rows``
    lack a feature; ``given`` are the keys of ``data`` that name the source; ``n_repeated_ids`` repeat an earlier id, None without an id column; ``summary`` and ``warnings`` are those
    of a job.
    """

    path: str
    given: dict[str, str]
    n_rows: int
    source: dict[str, Any]
    columns: tuple[ColumnProfile, ...]
    features: tuple[str, ...]
    roles: dict[str, str]
    correlation: tuple[tuple[float, ...], ...]
    n_duplicate_rows: int
    n_repeated_ids: int | None
    n_incomplete_rows: int
    notes: tuple[str, ...]
    summary: str = ""
    warnings: tuple[str, ...] = ()
    vectors: dict[str, int] = field(default_factory=dict)
    """The columns of vectors that a job uses, and their lengths."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON; NaN (the correlation of a constant) becomes null."""
        matrix = [[None if np.isnan(r) else r for r in row] for row in self.correlation]
        return asdict(self) | {"correlation": matrix}

    def as_overrides(self) -> str:
        """The source as it is written on the command line of a job."""
        return " ".join(f"data.{key}={shlex.quote(value)}" for key, value in self.given.items())

    def pairs(self, least: float) -> list[tuple[str, str, float]]:
        """The pairs of features with an absolute correlation of at least ``least``, the strongest first."""
        if not self.correlation:
            return []
        r = np.array(self.correlation).reshape(len(self.features), -1)
        i, j = np.nonzero(np.triu(np.abs(np.nan_to_num(r)) >= least, k=1))
        found = [(self.features[a], self.features[b], float(r[a, b])) for a, b in zip(i, j, strict=True)]
        return sorted(found, key=lambda pair: -abs(pair[2]))


def described_data(path: str | Path, overrides: Sequence[str] = (), *, preset: str = "none") -> DataConfig:
    """The configuration with which a job would read the file or the query: ``data=table`` (``data=tracks`` for the preset) and overrides.

    Raises ConfigurationError for keys outside ``data.*``, and for ``data.path``, which is the file.
    """
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        if not name.startswith("data.") or name in ("data.path", "data.query", "data.source", "data.preset"):
            raise ConfigurationError(
                f"describe takes data.* other than the path, the source and the preset, not '{override}'"
            )
    group = "tracks" if preset == "tracks" else "table"
    given = str(path) if is_query(str(path)) or is_remote(str(path)) else str(expand_user(str(path)))
    data = compose([f"data={group}", "data.query=given" if is_query(given) else "data.path=given", *overrides]).data
    data = data.at(given)
    if not any(override.startswith("data.bad_rows=") for override in overrides):
        data.bad_rows = "skip"  # describe also files that a job would reject
    return data


def describe(data: DataConfig) -> tuple[Description, Table]:
    """Profile every column of a file, and the table that a job would read from it.

    Raises:
        ConfigurationError: a named column does not exist.
        DataError: the file is missing, empty, damaged, not a table, or has no column to cluster.
    """
    assert data.location is not None
    frames = PandasFrames()
    schema = read_schema(data.location)
    table = _cleaned_like_a_job(read(data, frames), frames)
    vectors = {name: _vector(schema, name) for name, kind in schema.kinds.items() if kind == "vector"}
    loaded = load_columns(schema, frames, [name for name in schema.kinds if name not in vectors])
    frame = loaded.frame
    used = (*table.column_features, *(column.name for column in table.vectors))
    why = {out.column: out.reason for out in table.audit.left_out} | dict.fromkeys(used, "feature")
    decimal = next((layout.decimal for layout in loaded.layouts), ".")
    columns = _columns(frame, schema.kinds, why, decimal, vectors)
    features = table.frame[list(table.column_features)].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    own_id = None if table.audit.source.get("id_made") else table.roles.id
    return Description(
        path=mask(data.shown),
        given={key: mask(value) for key in SOURCE if (value := getattr(data, key))},
        n_rows=len(frame),
        source=table.audit.source,
        columns=columns,
        features=table.column_features,
        vectors={column.name: column.size for column in table.vectors},
        roles=table.roles.named() if own_id else {k: v for k, v in table.roles.named().items() if k != "id"},
        correlation=_correlation(features),
        n_duplicate_rows=_duplicates(frame, [name for name, kind in schema.kinds.items() if kind != "index"], vectors),
        n_repeated_ids=int(frame[own_id].dropna().duplicated().sum()) if own_id in frame else None,
        n_incomplete_rows=int(features.isna().any(axis=1).sum()),
        notes=table.audit.notes,
        summary=summary(table.audit),
        warnings=table.audit.warnings,
    ), table


def _cleaned_like_a_job(table: Table, frames: PandasFrames) -> Table:
    """The table as read, with the features and the audit after cleaning with the default options of a job."""
    try:
        cleaned = clean(table, CleanConfig(), frames)
    except CleaningError as error:
        return replace(table, audit=replace(table.audit, warnings=(*table.audit.warnings, str(error))))
    return replace(table, features=cleaned.features, audit=cleaned.audit)


def _correlation(features: pd.DataFrame) -> tuple[tuple[float, ...], ...]:
    if not 0 < features.shape[1] <= MAX_CORRELATED:
        return ()
    if features.isna().to_numpy().any() or len(features) < 2:
        matrix = features.corr().to_numpy()
    else:
        with np.errstate(invalid="ignore", divide="ignore"):  # a constant has no correlation
            matrix = np.corrcoef(features.to_numpy(), rowvar=False).reshape(features.shape[1], -1)
    return tuple(map(tuple, matrix.tolist()))


def _vector(schema: FileSchema, name: str) -> VectorColumn | None:
    """A column of vectors; None where it has none."""
    try:
        return read_vectors(schema, [name])[0]
    except DataError:
        return None


def _vector_profile(column: VectorColumn | None, name: str, use: str, n_rows: int) -> ColumnProfile:
    """The profile of a column of vectors: how many numbers they have, and from what to what their lengths are."""
    if column is None:
        return ColumnProfile(name, "vector", use, n_rows, 0, examples=("no vector in the first rows",))
    good = np.flatnonzero(column.states == GOOD)
    rows = good[sample_rows(len(good), LENGTH_ROWS, 0)]
    lengths = np.linalg.norm(column.take(rows).astype(np.float64), axis=1)
    n_missing = int(column.bad(unit=False).sum())
    said = f"lengths {lengths.min():.3g} to {lengths.max():.3g}" if len(lengths) else "no vector"
    return ColumnProfile(name, "vector", use, n_missing, n_rows - n_missing, examples=(f"{column.size} numbers", said))


def _columns(
    frame: Frame,
    kinds: Mapping[str, str],
    why: Mapping[str, str],
    decimal: str,
    vectors: Mapping[str, VectorColumn | None],
) -> tuple[ColumnProfile, ...]:
    facts = [
        _vector_profile(vectors[name], name, why.get(name, "not used"), len(frame))
        if name in vectors
        else _column(frame[name], name, kind, why.get(name, "not used"), decimal)
        for name, kind in kinds.items()
    ]
    frames = PandasFrames()
    numbers = {}
    for c in facts:
        if c.low is not None and c.kind != "index":
            column = frame[c.name]
            numbers[c.name] = to_numbers(column, frames, decimal)[0] if is_text(column) else column
    issues = check_features(pd.DataFrame(numbers), list(numbers), frames)
    return tuple(replace(c, what=t.text) if (t := issues.get(c.name)) else c for c in facts)


def _column(column: Any, name: str, kind: str, use: str, decimal: str) -> ColumnProfile:
    n_missing, n_text = int(column.isna().sum()), 0
    if kind == "list":
        column = pd.Series(join_items(pa.array(column), ", ").to_pandas())
    if kind in ("number", "index", "empty") and is_text(column):
        column, n_text = to_numbers(column, PandasFrames(), decimal)
        n_missing = int(column.isna().sum()) - n_text
    if column.dtype.kind in "iuf":
        spread = [float(getattr(column, which)()) for which in ("min", "median", "mean", "max")]
        known = spread if column.notna().any() else [None] * 4
        return ColumnProfile(name, kind, use, n_missing, int(column.nunique()), n_text, *known)
    if is_text(column):
        column = column.where(column != "")  # empty text is missing
        n_missing = int(column.isna().sum())
    counts = column.value_counts()
    return ColumnProfile(name, kind, use, n_missing, len(counts), examples=tuple(map(str, counts.index[:EXAMPLES])))


def _duplicates(frame: Frame, columns: Sequence[str], vectors: Mapping[str, VectorColumn | None]) -> int:
    plain = [name for name in columns if name not in vectors]
    lists = {n: join_items(pa.array(frame[n]), "\x1f").to_pandas() for n in plain if "list" in str(frame[n].dtype)}
    hashes = {name: hash_vectors(column) for name, column in vectors.items() if column is not None}
    return int(frame[plain].assign(**lists, **hashes).duplicated().sum())


def advice(found: Description, table: Table) -> list[str]:
    """Advice before clustering, one line per problem with the setting that solves it; the warnings of a job come first."""
    lines = list(found.warnings)
    if found.n_incomplete_rows and not dropped_rows_warnings(table.audit):
        lines.append(
            f"{found.n_incomplete_rows:,} rows lack a feature and are dropped, unless clean.nulls=median or mean"
        )
    if found.n_repeated_ids:
        lines.append(
            f"{found.n_repeated_ids:,} rows repeat an earlier {found.roles['id']}: clean.duplicates=id keeps one"
        )
    elif found.n_duplicate_rows:
        lines.append(f"{found.n_duplicate_rows:,} rows repeat an earlier row: clean.duplicates=row keeps one")
    redundant = found.pairs(REDUNDANT)
    lines += [
        f"{one} and {other} are nearly redundant (r = {r:+.2f}): data.exclude=[{other}]"
        for one, other, r in redundant[:MAX_PAIRS]
    ]
    if len(redundant) > MAX_PAIRS:
        lines.append(
            f"{len(redundant) - MAX_PAIRS:,} more pairs of features are nearly redundant: reduce=pca merges them"
        )
    if (
        not found.roles
        and len({normalise_name(c.name) for c in found.columns} & set(TRACKS.features)) >= MIN_AUDIO_FEATURES
    ):
        lines.append("these look like music tracks: data=tracks (--preset tracks) takes their audio features and roles")
    for column in table.vectors:
        lines.append(
            f"{column.name} holds vectors of {column.size} numbers: scale=unit compares their directions, and cluster.metric=cosine "
            "is K-Means by cosine; without them each number is standardised and compared by itself"
        )
    spreads = {name: float(table.frame[name].std()) for name in table.column_features}
    by_spread = sorted((name for name in spreads if spreads[name] > 0), key=spreads.__getitem__)
    if len(by_spread) > 1 and spreads[by_spread[-1]] >= MAX_SPREAD_RATIO * spreads[by_spread[0]]:
        least, most = by_spread[0], by_spread[-1]
        lines.append(
            f"{most} has a far larger scale than {least} ({spreads[most] / spreads[least]:,.0f} times its standard "
            "deviation): keep scale=standard, otherwise it dominates the distance"
        )
    return lines + _categories(found) + _skewed(table)


def _categories(found: Description) -> list[str]:
    """The columns of text or of flags that could be clustered too."""
    taken = {*found.roles.values(), *found.features}
    names = [
        c.name
        for c in found.columns
        if c.kind in ("text", "boolean") and c.name not in taken and 2 <= c.n_distinct <= MAX_CATEGORIES
    ]
    if not names:
        return []
    these = ", ".join(names[:MAX_PAIRS])
    return [f"text and flags are not clustered unless they are named: data.categorical=[{these}]"]


def _skewed(table: Table) -> list[str]:
    """For each skewed feature, the most skewed first, the transform that makes it more symmetric."""
    from gpuclust.reducers.transforms import suggest_transform

    found = {name: suggest_transform(table.frame[name].to_numpy(np.float64)) for name in table.column_features}
    skewed = {name: s for name, s in found.items() if s is not None}
    ordered = sorted(skewed, key=lambda name: -abs(skewed[name].before))
    lines = [
        f"{name} is skewed (skewness {skewed[name].before:+.1f}, {skewed[name].after:+.1f} with {skewed[name].method}), so few rows with "
        f"{'large' if skewed[name].before > 0 else 'small'} values have most of its variance: scale.transform.{name}={skewed[name].method}"
        for name in ordered[:MAX_PAIRS]
    ]
    if len(ordered) > MAX_PAIRS:
        more = ", ".join(f"{name}: {skewed[name].method}" for name in ordered[MAX_PAIRS : 4 * MAX_PAIRS])
        lines.append(f"{len(ordered) - MAX_PAIRS:,} more features are skewed: 'scale.transform={{{more}}}'")
    return lines


def write(found: Description, table: Table, folder: Path, *, force: bool = False) -> Path:
    """Write ``description.json``, ``correlation.png`` and ``distributions.png`` to a folder; return the folder.

    Raises DataError if the folder has a description (unless ``force``) or cannot be written.
    """
    from gpuclust.report import figures

    if (folder / "description.json").exists() and not force:
        raise DataError(f"{folder} holds a description already; name another --out, or replace it with --force")
    names = table.column_features
    drawn = {}
    if names:
        whole = table.frame[list(names)].replace([np.inf, -np.inf], np.nan).dropna()
        drawn["distributions"] = figures.feature_distributions(whole.to_numpy(np.float64), names)
    if found.correlation:
        drawn["correlation"] = figures.correlation_matrix(np.array(found.correlation), names)
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
    """Print a description: the file, one line per column, advice, and the next command."""
    from rich.markup import escape

    about = found.source
    words = [f"{found.n_rows:,} rows", f"{len(found.columns)} columns", str(about.get("format", ""))]
    words += [f"{k.replace('_', ' ')} {about[k]!r}" for k in ("separator", "encoding", "index_column") if about.get(k)]
    console.print(escape(f"{found.path}: {', '.join(filter(None, words))}"))
    console.print(_lines(found, console.width))
    console.print(escape(f"a job uses {found.summary}"))
    console.print(escape(f"roles: {', '.join(f'{k} = {v}' for k, v in found.roles.items()) or 'none'}"))
    pairs = found.pairs(STRONG)[:6]
    pairs_text = ", ".join(f"{a}/{b} {r:+.2f}" for a, b, r in pairs) or f"none of {STRONG} or more"
    if not found.features:
        pairs_text = "not computed for vectors"
    elif not found.correlation:
        pairs_text = f"not computed for more than {MAX_CORRELATED:,} features"
    console.print(escape(f"correlations: {pairs_text}"))
    repeated = found.n_repeated_ids
    ids = "; the file has no id column" if repeated is None else f", {repeated:,} ids"
    console.print(f"duplicates: {found.n_duplicate_rows:,} identical rows{ids}")
    notes = [note for note in found.notes if not (repeated and "clean.duplicates=id" in note)]  # `advice` has the line
    for line in (*notes, *advice(found, table)):
        console.print(escape(f"· {line}"))
    group = "tracks" if preset == "tracks" else "table"
    names = [*found.vectors, *found.features] if found.vectors else []
    of_vectors = f" 'data.features=[{','.join(names)}]' scale=unit cluster.metric=cosine" if names else ""
    console.print(
        escape(f"next: gpuclust -m data={group} {found.as_overrides()}{of_vectors} 'cluster.n_clusters=range(2,11)'")
    )


def _lines(found: Description, width: int) -> Any:
    """A table of the columns that fits the terminal: always names and uses, other details if there is space."""
    from rich.markup import escape
    from rich.table import Table as Lines

    rows = [_row(group, found.n_rows) for group in _grouped(found.columns)]
    shown, left = ["column", "use"], width
    needs = {head: max(len(head), *(len(row[head]) for row in rows)) + 2 for head in rows[0]}
    left -= min(needs["column"], width // 2) + min(needs["use"], max(width // 4, 16))
    for head in ("missing", "type", "distinct", "median", "lowest", "highest", "examples"):
        if needs[head] > left:
            break
        shown.append(head)
        left -= needs[head]
    lines = Lines(box=None, header_style="bold", pad_edge=False)
    for head in (head for head in rows[0] if head in shown):
        right = head in ("missing", "distinct", "lowest", "median", "highest")
        folds = head in ("column", "use")
        lines.add_column(head, justify="right" if right else "left", overflow="fold", no_wrap=not folds)
    for row in rows:
        style = "" if row["use"].startswith("feature") else "dim"
        lines.add_row(*(escape(row[head]) for head in row if head in shown), style=style)
    return lines


def _grouped(columns: Sequence[ColumnProfile]) -> list[tuple[ColumnProfile, ...]]:
    """Group adjacent columns of the same type and use whose names differ only in a number, if there are `MIN_GROUP`."""
    found: list[tuple[ColumnProfile, ...]] = []
    for _, group in groupby(columns, lambda c: (re.sub(r"\d+", "#", c.name), c.kind, c.use == "feature")):
        members = tuple(group)
        found += [members] if len(members) >= MIN_GROUP else [(c,) for c in members]
    return found


def _row(group: tuple[ColumnProfile, ...], n_rows: int) -> dict[str, str]:
    """The cells of a line for one column or a group of columns."""
    from gpuclust.pages.text import number, one_line, percent

    first, last = group[0], group[-1]
    alone, alike = len(group) == 1, "numbers" if first.kind == "number" else "columns"
    n_missing, n_text = sum(c.n_missing for c in group), sum(c.n_text for c in group)
    lows, highs = ([v for c in group if (v := getattr(c, end)) is not None] for end in ("low", "high"))
    texts = [f"{n_text:,} cells are text"] if n_text else [one_line(e, 18) for e in first.examples if alone]
    distinct = sorted({c.n_distinct for c in group})
    return {
        "column": one_line(first.name if alone else f"{first.name}…{last.name} ({len(group)} {alike})"),
        "type": first.kind,
        "use": "; ".join(dict.fromkeys(filter(None, (first.use, first.what if alone else "")))),
        "missing": f"{n_missing:,} ({percent(n_missing / n_rows / len(group))})" if n_missing else "0",
        "distinct": f"{distinct[0]:,}" + (f"-{distinct[-1]:,}" if len(distinct) > 1 else ""),
        "lowest": number(min(lows)) if lows else "",
        "median": number(first.median) if alone and first.median is not None else "",
        "highest": number(max(highs)) if highs else "",
        "examples": " | ".join(texts),
    }
