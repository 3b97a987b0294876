"""Means of the features by year, group and creator: computed with the index, read in pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.serve.records import Average, Averages, By
from gpuclust.serve.text import CREATOR_SEPARATOR

BY = get_args(By)
MIN_COUNT = 30
ALL = -(2**31)  # stands for all clusters


def write_averages(rows: pa.Table, folder: Path) -> Any:
    """Write ``averages-{year,group,creator}.arrow``, for years and groups also by cluster; return the creators in file order.

    A repeated value in the list of an item counts once. Years are ascending; groups and creators are sorted by count
    (descending), then by name.
    """
    features = [name for name in rows.column_names if name.startswith("f/")]
    raw = np.column_stack([rows[f].to_numpy() for f in features]) if features else np.empty((rows.num_rows, 0))
    clusters = rows["cluster"].to_numpy()
    written: dict[str, pa.Table] = {}
    for by, (values, owners) in _values(rows).items():
        codes, known = _coded(values, owners)
        parts = [(ALL, np.ones(len(codes), dtype=bool))]
        if by != "creator":
            parts += [(int(c), clusters[codes[:, 0]] == c) for c in np.unique(clusters)]
        tables = [_means(c, codes[chosen], known, raw, features, ascending=by == "year") for c, chosen in parts]
        written[by] = pa.concat_tables(tables).combine_chunks()
        with pa.ipc.new_file(str(folder / f"averages-{by}.arrow"), written[by].schema) as writer:
            writer.write_table(written[by], max_chunksize=max(written[by].num_rows, 1))
    return _chunk(written["creator"]["value"])


def _chunk(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _values(rows: pa.Table) -> dict[str, tuple[Any, Any]]:
    """For each kind the values of all items, flattened, and the rank of the item of each value."""
    years = rows["year"].combine_chunks()
    names = pc.split_pattern(pc.cast(rows["creator"].combine_chunks(), pa.string()), CREATOR_SEPARATOR)
    groups = rows["groups"].combine_chunks()
    creators, creator_owners = pc.utf8_trim_whitespace(pc.list_flatten(names)), pc.list_parent_indices(names)
    named = pc.not_equal(creators, "")
    return {
        "year": (years.drop_null(), pa.array(np.flatnonzero(pc.is_valid(years).to_numpy(zero_copy_only=False)))),
        "group": (pc.list_flatten(groups), pc.list_parent_indices(groups)),
        "creator": (creators.filter(named), creator_owners.filter(named)),
    }


def _coded(values: Any, owners: Any) -> tuple[np.ndarray, Any]:
    """(n, 2) int64 distinct pairs of item and value code, and the values of the codes."""
    valid = pc.is_valid(values)
    encoded = values.filter(valid).dictionary_encode()
    pairs = np.column_stack(
        [owners.filter(valid).to_numpy().astype(np.int64), encoded.indices.to_numpy().astype(np.int64)]
    )
    again = np.flatnonzero(np.diff(pairs[:, 0]) == 0)
    if len(again):  # an item may have a value twice
        keys = pairs[:, 0] * max(len(encoded.dictionary), 1) + pairs[:, 1]
        pairs = pairs[np.sort(np.unique(keys, return_index=True)[1])]
    return pairs, encoded.dictionary


def _means(
    cluster: int, codes: np.ndarray, known: Any, raw: np.ndarray, features: list[str], *, ascending: bool
) -> pa.Table:
    counts = np.bincount(codes[:, 1], minlength=len(known))
    present = np.flatnonzero(counts)
    values = known.take(pa.array(present))
    keys = [("value", "ascending")] if ascending else [("count", "descending"), ("value", "ascending")]
    columns: dict[str, Any] = {"value": values, "cluster": np.full(len(present), cluster), "count": counts[present]}
    for j, feature in enumerate(features):
        column = raw[codes[:, 0], j]
        finite = np.isfinite(column)
        own = np.bincount(codes[finite, 1], minlength=len(known))[present]
        sums = np.bincount(codes[finite, 1], weights=column[finite], minlength=len(known))[present]
        columns[feature] = np.divide(sums, own, out=np.full(len(present), np.nan), where=own > 0)
    return pa.table(columns).sort_by(keys)


def min_count_of(n_rows: int) -> int:
    """The minimum number of rows for the mean of a year or a group: 1 % of the rows, at least one and at most 30."""
    return min(max(n_rows // 100, 1), MIN_COUNT)


def page(table: pa.Table, by: By, *, cluster: int | None, min_count: int, offset: int, limit: int) -> Averages:
    """A page of the averages in a file of `write_averages`, over all items or the items of one cluster, without values of
    fewer than ``min_count`` items."""
    wanted = ALL if cluster is None else cluster
    own = table["cluster"].to_numpy() == wanted
    start, stop = int(own.argmax()) if own.any() else 0, int(own.sum())
    counts = table["count"].to_numpy()[start : start + stop]
    kept = start + np.flatnonzero(counts >= min_count)
    rows = table.take(pa.array(kept[offset : offset + limit])).to_pylist()
    few = counts[counts < min_count]
    return Averages(
        by=by,
        values=tuple(average(row) for row in rows),
        total=len(kept),
        offset=offset,
        cluster=cluster,
        min_count=min_count,
        left_out=len(few),
        left_out_rows=int(few.sum()),
    )


def average(row: dict[str, Any]) -> Average:
    """Convert a row of the file to a record."""
    return Average(row["value"], row["count"], {k[2:]: v for k, v in row.items() if k.startswith("f/")})
