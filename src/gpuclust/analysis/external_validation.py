"""Compare a clustering with an external label, such as the genre: agreement, spread of labels, coherence of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpuclust.metrics.agreement import agreement, entropy
from gpuclust.model.records import NOISE

# Labels with fewer rows are never reported as unrelated, because their shares are random.
MIN_ROWS = 20
PART = 1 << 20  # labels that are counted at once


@dataclass(frozen=True)
class GroupSpread:
    """The distribution of one external label over the clusters.

    ``entropy`` in nats of its shares over the clusters, and ``evenness``, that over log(n_clusters), in [0, 1].
    ``spread``: mean squared distance between the clusters of two of its rows, over that of any two rows (Rao's quadratic
    entropy, 1982): 0 all in one cluster, 1 as far apart as random rows, above 1 in unrelated clusters.
    ``main_cluster``: the cluster with most of its rows, and ``main_share``, their share.
    """

    value: str
    size: int
    entropy: float
    evenness: float
    spread: float
    main_cluster: int
    main_share: float


@dataclass(frozen=True)
class ClusterCoherence:
    """How concentrated one cluster is on few external labels.

    ``coherence`` is 1 minus the entropy of its labels over that of all rows; 0 or less if the cluster is not informative.
    """

    cluster: int
    size: int
    entropy: float
    coherence: float
    top: str
    top_share: float


@dataclass(frozen=True)
class ReferenceReport:
    """Comparison of a clustering with an external label.

    The measures are over ``n_values`` (row, label) pairs, with noise as a cluster and without it; labels are sorted by spread
    (descending), clusters by coherence (ascending).
    """

    column: str
    n_values: int
    ami: float
    ami_without_noise: float
    homogeneity: float
    completeness: float
    groups: tuple[GroupSpread, ...]
    clusters: tuple[ClusterCoherence, ...]

    @property
    def unrelated(self) -> tuple[str, ...]:
        """Labels whose rows are in clusters as far apart as those of random rows, the most spread first."""
        return tuple(g.value for g in self.groups if g.spread >= 1.0 and g.size >= MIN_ROWS)

    @property
    def least_coherent(self) -> int | None:
        """The cluster whose labels are most similar to those of all rows."""
        return self.clusters[0].cluster if self.clusters else None

    def metrics(self) -> dict[str, float]:
        """The metrics that are logged for the job."""
        return {
            "reference_ami": self.ami,
            "reference_homogeneity": self.homogeneity,
            "reference_completeness": self.completeness,
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        return asdict(self) | {"unrelated": list(self.unrelated), "least_coherent": self.least_coherent}


def compare_to_reference(
    labels: np.ndarray,
    centers: np.ndarray,
    *,
    codes: np.ndarray,
    rows: np.ndarray,
    values: Sequence[str],
    column: str,
) -> ReferenceReport:
    """Compare labels (n_rows,) int32, noise -1, with an external label.

    ``codes`` (n_values,) index ``values`` and belong to ``rows`` (n_values,): a row with several labels counts once for each,
    a row without labels is ignored. ``centers`` (n_clusters, n_columns) are the centres of the clusters, for the spread.
    """
    n_clusters = len(centers)
    counts = np.zeros(len(values) * (n_clusters + 1), np.int64)
    for start in range(0, len(codes), PART):
        own = labels[rows[start : start + PART]].astype(np.int64)
        pairs = codes[start : start + PART].astype(np.int64) * (n_clusters + 1) + np.where(
            own == NOISE, n_clusters, own
        )
        counts += np.bincount(pairs, minlength=len(counts))
    table = counts.reshape(len(values), n_clusters + 1)
    clustered = table[:, :n_clusters]
    every, inside = agreement(table), agreement(clustered)
    groups = _spreads(clustered, centers, values)
    clusters = [_coherence(c, clustered[:, c], entropy(clustered.sum(axis=1)), values) for c in range(n_clusters)]
    return ReferenceReport(
        column=column,
        n_values=len(codes),
        ami=every.ami,
        ami_without_noise=inside.ami,
        homogeneity=every.homogeneity,
        completeness=every.completeness,
        groups=tuple(sorted(groups, key=lambda g: (-g.spread, g.value))),
        clusters=tuple(sorted((c for c in clusters if c.size), key=lambda c: (c.coherence, c.cluster))),
    )


def _spreads(table: np.ndarray, centers: np.ndarray, values: Sequence[str]) -> list[GroupSpread]:
    """The spread of each label with rows in clusters."""
    squares = ((centers[:, None, :] - centers[None, :, :]) ** 2).sum(axis=2)
    overall = table.sum(axis=0) / max(table.sum(), 1)
    at_large = float(overall @ squares @ overall)
    most = np.log(np.count_nonzero(table.sum(axis=0)))
    found = []
    for value, counts in zip(values, table, strict=True):
        size = int(counts.sum())
        if size == 0:
            continue
        shares, spread_out = counts / size, entropy(counts)
        found.append(
            GroupSpread(
                value=str(value),
                size=size,
                entropy=spread_out,
                evenness=spread_out / most if most > 0 else 0.0,
                spread=float(shares @ squares @ shares) / at_large if at_large > 0 else 0.0,
                main_cluster=int(shares.argmax()),
                main_share=float(shares.max()),
            )
        )
    return found


def _coherence(cluster: int, counts: np.ndarray, overall: float, values: Sequence[str]) -> ClusterCoherence:
    size = int(counts.sum())
    own, top = entropy(counts), int(counts.argmax())
    return ClusterCoherence(
        cluster=cluster,
        size=size,
        entropy=own,
        coherence=1.0 - own / overall if overall > 0 else 0.0,
        top=str(values[top]) if size else "",
        top_share=float(counts[top] / size) if size else 0.0,
    )
