"""A profile as an Arrow table: what ``clusters.parquet`` of an export holds."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from gpuclust.analysis.profile import Profile

_SHARES = pa.list_(
    pa.struct({"value": pa.string(), "count": pa.int64(), "lift": pa.float64(), "fraction": pa.float64()})
)
_ROWS = pa.list_(
    pa.struct({"id": pa.string(), "title": pa.string(), "creator": pa.string(), "popularity": pa.float64()})
)
# The columns of clusters.parquet; mean_F, median_F, std_F, z_F and z_se_F of each feature F follow.
CLUSTER_TYPES = {
    "cluster": pa.int32(),
    "name": pa.string(),
    "size": pa.int64(),
    "fraction": pa.float64(),
    "description": pa.string(),
    "nearest": pa.int32(),
    **dict.fromkeys(("top_groups", "top_groups_by_lift", "top_creators", "top_creators_by_lift"), _SHARES),
    **dict.fromkeys(("representatives", "popular"), _ROWS),
    "rule": pa.string(),
    **dict.fromkeys(("rule_fidelity", "rule_precision", "rule_recall"), pa.float64()),
}


def cluster_table(described: Profile) -> pa.Table:
    """A row for each cluster, noise (-1) last: name, size, description, the rows and values that stand for it, its rule
    (all rows judged), and per feature its mean, median, std and z-score."""
    rows = []
    for c in described.clusters:
        row = {name: getattr(c, name) for name in CLUSTER_TYPES if hasattr(c, name)}
        row |= {name: [asdict(item) for item in row[name]] for name in row if isinstance(row[name], tuple)}
        row["rule"] = None if c.rule is None else c.rule.text
        row |= {f"rule_{name}": getattr(c.rule, name, None) for name in ("fidelity", "precision", "recall")}
        row |= {f"{kind}_{f}": value for f, p in c.features.items() for kind, value in asdict(p).items()}
        rows.append(row)
    per_feature = {name: pa.float64() for name in (rows[0] if rows else ()) if name not in CLUSTER_TYPES}
    return pa.Table.from_pylist(rows, schema=pa.schema(CLUSTER_TYPES | per_feature))
