"""Optional analyses of one clustering beyond its scores: stability, DBCV, an external label, its noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gpuclust.algorithms.cluster import Clustering
from gpuclust.algorithms.registry import get_algorithm, resolve
from gpuclust.analysis.external_validation import ReferenceReport, compare_to_reference
from gpuclust.analysis.noise import NoiseProfile, assign_noise, noise_profile
from gpuclust.analysis.table_stats import categories
from gpuclust.config import Config, did_you_mean
from gpuclust.data.table import Table, sample_rows
from gpuclust.errors import ConfigurationError
from gpuclust.metrics.dbcv import dbcv
from gpuclust.metrics.stability import MAX_ROWS, Stability, refits, stability
from gpuclust.runtime.backend import Backend, Progress
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.passes import take_rows

Report = Callable[[str, float], None]
# A genre by any other name: what people call the group role.
GROUP_WORDS = ("genre", "genres")


@dataclass(frozen=True)
class Diagnostics:
    """What was found; None for what was not asked for, or does not apply. ``dbcv_rows``: how many rows DBCV was taken on."""

    stability: Stability | None = None
    reference: ReferenceReport | None = None
    noise: NoiseProfile | None = None
    dbcv: float | None = None
    dbcv_rows: int = 0

    def metrics(self) -> dict[str, float]:
        """What is logged on the job."""
        found: dict[str, float] = {}
        if self.dbcv is not None and np.isfinite(self.dbcv):
            found |= {"dbcv": self.dbcv, "dbcv_rows": self.dbcv_rows}
        for part in (self.stability, self.reference):
            if part is not None:
                found |= part.metrics()
        return found

    def documents(self) -> dict[str, dict[str, Any]]:
        """Name of a JSON file -> its content."""
        parts = {"stability": self.stability, "reference": self.reference, "noise": self.noise}
        return {name: part.to_dict() for name, part in parts.items() if part is not None}


def run_diagnostics(
    table: Table,
    matrix: Matrix,
    clustering: Clustering,
    config: Config,
    *,
    raw: np.ndarray | RowBlocks,
    backend: Backend,
    reference: pd.Series | None = None,
    report: Report = lambda text, done: None,
) -> Diagnostics:
    """Compute what ``config.score.stability`` and ``config.analysis`` ask for of a clustering of the table.

    ``raw`` (n_rows, n_features) float64 are the original features that are columns; ``reference`` (n_rows,) is the column of ``config.analysis.reference``. ``report`` receives what is being done, with its cost before it starts, and the
    fraction done.
    """
    labels = clustering.labels
    found = clustering.n_clusters
    stable, validity, rows = None, None, 0
    if config.score.stability and found >= 1:
        stable = stability(
            matrix.X,
            labels,
            config.cluster,
            n_resamples=config.score.stability,
            seed=config.seed,
            backend=backend,
            weight=matrix.weight,
            progress=_timed(refits(config.cluster, config.score.stability), clustering, report),
        )
    if config.analysis.dbcv and found >= 2:
        chosen = sample_rows(matrix.n_rows, config.score.sample_size, config.seed)
        rows = len(chosen)
        text = f"DBCV of {rows:,} rows"
        host = backend.to_host(take_rows(matrix.X, chosen, backend))
        validity = dbcv(host, labels[chosen], progress=lambda done: report(text, done))
    return Diagnostics(
        stability=stable,
        reference=_reference(clustering, reference),
        noise=_noise(clustering, raw, table.column_features),
        dbcv=validity,
        dbcv_rows=rows,
    )


def _timed(count: int, clustering: Clustering, report: Report) -> Progress:
    """Reports the cost of ``count`` refits before the first, from what the fit took, then from what the refits took so far.

    A fit that shared a step with others, as cuts of one HDBSCAN tree do, says nothing of refits that each need their own.
    """
    began = time.perf_counter()
    shared = get_algorithm(clustering.algorithm).shared_step
    share = min(1.0, MAX_ROWS / len(clustering.labels))
    cost = f", each with a {shared}" if shared else f", about {count * share * clustering.seconds:.0f} s"
    report(f"stability: {count} refits{cost}", 0.0)

    def progress(done: float) -> None:
        report(f"stability: {count} refits, about {(time.perf_counter() - began) / done:.0f} s", done)

    return progress


def _noise(clustering: Clustering, raw: np.ndarray | RowBlocks, features: tuple[str, ...]) -> NoiseProfile | None:
    membership = get_algorithm(clustering.algorithm).soft_membership
    if clustering.noise_fraction == 0 or membership is None:
        return None
    assigned = assign_noise(clustering.labels, clustering.confidence, clustering.parameters, resolve(membership))
    return noise_profile(clustering.labels, assigned, raw=raw, features=features)


def reference_column(table: Table, name: str) -> str:
    """The column that an outside label names: a role, a column, or ``genre`` for whatever has the group role.

    Raises ConfigurationError naming what there is.
    """
    roles = table.roles.named()
    if name in roles:
        return roles[name]
    if name in table.frame.columns or name in table.other_columns:
        return name
    if name in GROUP_WORDS and "group" in roles:
        return roles["group"]
    known = list(dict.fromkeys([*table.frame.columns, *table.other_columns]))
    near = did_you_mean(name, known) or f"; it has {', '.join(known[:12])}"
    raise ConfigurationError(f"analysis.reference={name}: the table has no such column{near}")


def _reference(clustering: Clustering, values: pd.Series | None) -> ReferenceReport | None:
    if values is None or clustering.n_clusters == 0:
        return None
    found = categories(values)
    return compare_to_reference(
        clustering.labels,
        clustering.centers,
        codes=found.codes,
        rows=found.rows,
        values=found.values.tolist(),
        column=str(values.name),
    )
