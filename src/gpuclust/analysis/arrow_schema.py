"""A profile as an Arrow table: the content of ``clusters.parquet`` in an export."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa

from gpuclust.analysis.profile import Profile
from gpuclust.model.records import Cluster, Rule

_PLAIN = {int: pa.int64(), float: pa.float64(), str: pa.string()}


def _arrow_type(hint: Any) -> pa.DataType:
    """The Arrow type of a field of a record."""
    if is_dataclass(hint):
        return pa.struct({name: _arrow_type(of) for name, of in get_type_hints(hint).items()})
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    return _PLAIN[hint] if hint in _PLAIN else _arrow_type(next(of for of in get_args(hint) if of is not NoneType))


_SIMPLE = {name: hint for name, hint in get_type_hints(Cluster).items() if name not in ("features", "rule")}
# The columns of clusters.parquet; mean_F, median_F, std_F, z_F and z_se_F of each feature F follow.
CLUSTER_TYPES = {
    **{name: _arrow_type(hint) for name, hint in _SIMPLE.items()},
    **dict.fromkeys(("cluster", "nearest"), pa.int32()),
    "rule": pa.string(),
    **{f"rule_{name}": _arrow_type(hint) for name, hint in get_type_hints(Rule).items() if name != "text"},
}


def cluster_table(described: Profile) -> pa.Table:
    """A row for each cluster, noise (-1) last: name, size, description, the rows and values that stand for it, its rule
    (all rows judged), and per feature its mean, median, std and z-score."""
    rows = []
    for c in described.clusters:
        row = c.to_dict()
        del row["features"]
        row["rule"] = row["rule"] or None
        row |= {f"{kind}_{f}": value for f, stats in c.features.items() for kind, value in asdict(stats).items()}
        rows.append(row)
    per_feature = {name: pa.float64() for name in (rows[0] if rows else ()) if name not in CLUSTER_TYPES}
    return pa.Table.from_pylist(rows, schema=pa.schema(CLUSTER_TYPES | per_feature))
