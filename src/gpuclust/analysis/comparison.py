"""Compare several clusterings of the same rows in pairs: agreement, contingency table and matching clusters."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from gpuclust.errors import DataError
from gpuclust.metrics.agreement import Agreement, Contingency, Match, agreement, contingency, match, without_noise
from gpuclust.pages.text import label_name
from gpuclust.sanitize import safe_row


@dataclass(frozen=True)
class Comparison:
    """Two clusterings: how far they agree with noise as a cluster of its own and over the rows that both cluster, the rows
    that each pair of clusters shares, and which cluster is which."""

    first: str
    second: str
    with_noise: Agreement
    without_noise: Agreement
    contingency: Contingency
    matches: tuple[Match, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "with_noise": self.with_noise.to_dict(),
            "without_noise": self.without_noise.to_dict(),
            "contingency": self.contingency.to_dict(),
            "matches": [asdict(m) for m in self.matches],
        }

    def to_csv(self) -> str:
        """The contingency table as CSV: one line per cluster of the first, one column per cluster of the second, and totals."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        counts = self.contingency
        writer.writerow(safe_row([f"{self.first} \\ {self.second}", *(label_name(c) for c in counts.second), "total"]))
        for c, row in zip(counts.first, counts.table.tolist(), strict=True):
            writer.writerow(safe_row([label_name(c), *row, sum(row)]))
        writer.writerow(["total", *counts.table.sum(axis=0).tolist(), int(counts.table.sum())])
        return out.getvalue()

    @property
    def has_noise(self) -> bool:
        """Whether either clustering has noise."""
        return self.without_noise.n_rows < self.with_noise.n_rows

    @property
    def slug(self) -> str:
        """A file name for the pair: ``kmeans_k=5_by_gmm_k=4_full``."""
        return "_by_".join(re.sub(r"[^\w=.-]+", "_", name).strip("_.") or "run" for name in (self.first, self.second))

    def in_words(self) -> list[str]:
        """``hdbscan 0 is gmm 3 (81 % of the rows in either)`` for every pair that shares most of its rows."""
        return [
            f"{self.first} {m.first} is {self.second} {m.second} ({m.jaccard:.0%} of the rows in either)"
            for m in self.matches
            if m.first is not None and m.second is not None and m.jaccard >= 0.5
        ]


def compare(first: str, first_labels: np.ndarray, second: str, second_labels: np.ndarray) -> Comparison:
    """Compare two labelings (n_rows,) int32 of the same rows, noise -1; the first is the reference of homogeneity.

    Raises DataError when they are not of the same rows.
    """
    if len(first_labels) != len(second_labels):
        raise DataError(
            f"{first} has {len(first_labels):,} rows and {second} {len(second_labels):,}; compare runs of the same table"
        )
    counts = contingency(first_labels, second_labels)
    return Comparison(
        first=first,
        second=second,
        with_noise=agreement(counts.table),
        without_noise=agreement(without_noise(counts).table),
        contingency=counts,
        matches=tuple(match(counts)),
    )


def compare_all(labelings: Mapping[str, np.ndarray]) -> list[Comparison]:
    """Compare every pair of the named labelings, in order."""
    return [compare(a, labelings[a], b, labelings[b]) for a, b in combinations(labelings, 2)]
