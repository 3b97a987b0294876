"""Statistics of a table that all its profiles share: raw features, their spread, categories, and the columns that show a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.data.table import Frames, Table
from gpuclust.model.records import Example

SHOWN_ROLES = ("id", "title", "creator")


@dataclass(frozen=True)
class Categories:
    """A flattened categorical column: ``codes`` (n_values,) int64 into ``values`` (texts, sorted) and the ``rows``
    (n_values,) int64 of the codes. A row may have several values (a list) or none. ``totals`` (n_categories,) int64
    counts each category in the whole table."""

    codes: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    totals: np.ndarray


@dataclass(frozen=True)
class TableStats:
    """Statistics of a table on the host, computed once for any number of profiles.

    ``raw`` (n_rows, n_features) float64 in original units, column-major; ``mean`` and ``std`` (n_features,) of all
    rows; ``popularity`` (n_rows,) float64, NaN where missing; ``shown`` the columns with the
    roles id, title and creator, if they exist.
    """

    raw: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    groups: Categories | None
    creators: Categories | None
    popularity: np.ndarray | None
    shown: pd.DataFrame

    @property
    def scale(self) -> np.ndarray:
        """(n_features,) float64: standard deviations, 1 for a constant feature."""
        return np.where(self.std > 0, self.std, 1.0)

    def rows(self, numbers: np.ndarray) -> tuple[Example, ...]:
        """Rows by their numbers (n,) int64 in the table."""
        taken = self.shown.iloc[numbers]
        columns = [map(_text, taken[role]) if role in taken else [""] * len(taken) for role in SHOWN_ROLES]
        if self.popularity is None:
            return tuple(Example(*texts) for texts in zip(*columns, strict=True))
        popularity = (None if np.isnan(p) else float(p) for p in self.popularity[numbers])
        return tuple(Example(*texts) for texts in zip(*columns, popularity, strict=True))


def compute_table_stats(table: Table, frames: Frames) -> TableStats:
    """Compute the statistics that every profile of a table needs."""
    raw = np.asfortranarray(frames.to_pandas(table.frame[list(table.features)]).to_numpy(dtype=np.float64))
    roles = table.roles.named()
    wanted = [roles[role] for role in (*SHOWN_ROLES, "group", "popularity") if role in roles]
    host = frames.to_pandas(table.frame[list(dict.fromkeys(wanted))])
    by_role = {role: host[column] for role, column in roles.items() if column in host}
    return TableStats(
        raw=raw,
        mean=raw.mean(axis=0),
        std=raw.std(axis=0),
        groups=categories(by_role["group"]) if "group" in by_role else None,
        creators=categories(by_role["creator"]) if "creator" in by_role else None,
        popularity=_numbers(by_role.get("popularity")),
        shown=pd.DataFrame({role: by_role[role] for role in SHOWN_ROLES if role in by_role}),
    )


def _numbers(column: Any) -> np.ndarray | None:
    return None if column is None else pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def categories(column: pd.Series) -> Categories:
    """The categories of a column of texts, of numbers, or of lists of texts; each item of a list counts."""
    values = pa.array(column, from_pandas=True)
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        rows, items = pc.list_parent_indices(values).to_numpy(), pc.list_flatten(values)
    else:
        rows, items = np.arange(len(values)), values
    encoded = items.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    present = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    codes = place[encoded.indices.drop_null().to_numpy()]
    texts = np.array([_text(v) for v in encoded.dictionary.take(pa.array(order)).to_pylist()], dtype=object)
    return Categories(codes, rows[present].astype(np.int64), texts, np.bincount(codes, minlength=len(texts)))


def _text(value: Any) -> str:
    """Convert a cell to text: the items of a list joined by commas, empty text for a missing value."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(str(item) for item in value if item is not None)
    return "" if value is None or value is pd.NA or value != value else str(value)
