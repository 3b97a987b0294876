"""Drift: how far the distribution of new rows is from that of the training rows, by the population stability index.

PSI = sum over bins of (a - e) ln(a / e), with the shares e of the training rows and a of the new rows (Siddiqi, "Credit Risk Scorecards", 2006);
it is the symmetric Kullback-Leibler divergence of Jeffreys (1946). The bins of a number are the deciles of its training values, so that a value that
occurs often has a bin of its own. A bin without rows counts as half a row, because its logarithm would be infinite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.model.schema import Bins

DECILES = tuple(i / 10 for i in range(1, 10))
MAX_BINS = len(DECILES) + 1
# Usual limits of the PSI: below the first the distributions are alike, above the second they differ much.
SMALL, LARGE = 0.1, 0.25
# A PSI that rows of the training distribution exceed in one of a thousand comparisons.
BY_CHANCE = 0.001
# The terminal shows at most so many features.
SHOWN = 8


@dataclass(frozen=True)
class Psi:
    """The population stability index of one number, or of the shares of the clusters. ``chance``: the value that as many rows drawn from the training
    distribution exceed once in a thousand times (Yurdakul, "Statistical properties of population stability index", 2018)."""

    value: float
    chance: float

    def exceeds(self, limit: float) -> bool:
        """Whether it is above the limit, and chance does not explain it."""
        return self.value > limit and self.value > self.chance


def psi(training: np.ndarray, new: np.ndarray) -> Psi | None:
    """The index of counts (n_bins,) of the training rows and of new rows; None where one of them has no rows."""
    rows = float(training.sum()), float(new.sum())
    if not all(rows):
        return None
    expected, actual = (np.maximum(counts, 0.5) for counts in (training, new))
    e, a = expected / expected.sum(), actual / actual.sum()
    value = float(((a - e) * np.log(a / e)).sum())
    if len(training) < 2:
        return Psi(value, 0.0)
    from scipy.special import chdtri

    return Psi(value, float(chdtri(len(training) - 1, BY_CHANCE)) * (1 / rows[0] + 1 / rows[1]))


def bin_edges(values: np.ndarray, largest: float) -> np.ndarray:
    """The upper ends of the bins but the last, (n_edges,) ascending, from the deciles of values: without those that are equal, and without ``largest``,
    above which nothing would be."""
    edges: np.ndarray = np.unique(values)
    return edges[edges < largest]


def bin_counts(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many of the finite values (n,) are in each bin, (n_edges + 1,) int64; a bin holds its upper end."""
    below = [np.count_nonzero(values <= edge) for edge in edges]
    return np.diff([0, *below, len(values)])


def bins_of(values: np.ndarray) -> Bins | None:
    """The bins of the finite values of an array (n,) and how many are in each; None where there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    edges = bin_edges(np.quantile(finite, DECILES, method="lower"), finite.max())
    return as_bins(edges, bin_counts(finite, edges))


def as_bins(edges: np.ndarray, counts: np.ndarray) -> Bins:
    """Bins as a model keeps them."""
    return Bins(edges=[float(edge) for edge in edges], counts=[int(count) for count in counts])


def psi_of_values(training: Bins | None, values: np.ndarray) -> Psi | None:
    """The index of the finite values of an array (n,) against the training rows."""
    if training is None:
        return None
    finite = values[np.isfinite(values)]
    return psi(np.array(training.counts), bin_counts(finite, np.array(training.edges)))


@dataclass(frozen=True)
class Drift:
    """The indices of new rows: of each feature, of the shares of the ``clusters`` (noise is one), of the ``distance`` to the own centre and of the
    ``confidence``. ``far`` is the share of the rows that are farther from their centre than 99 % of the training rows. None is what the model does
    not know. Features that are vectors have no index of their own: the distance tells whether vectors have moved."""

    n_rows: int
    features: Mapping[str, Psi]
    clusters: Psi | None
    distance: Psi | None
    confidence: Psi | None
    far: float | None

    @property
    def known(self) -> bool:
        """Whether the model has the bins of its training rows."""
        return bool(self.features) or self.distance is not None or self.confidence is not None

    def named(self) -> Iterator[tuple[str, Psi]]:
        """Every index with what it is of: a feature, or ``the shares of the clusters`` and so on."""
        yield from self.features.items()
        of_rows = {
            "the shares of the clusters": self.clusters,
            "the distance to the own centre": self.distance,
            "the confidence": self.confidence,
        }
        yield from ((name, found) for name, found in of_rows.items() if found is not None)

    def exceeding(self, max_psi: float) -> tuple[tuple[str, Psi], ...]:
        """The indices above a limit that chance does not explain, the largest first."""
        return tuple(sorted(((n, p) for n, p in self.named() if p.exceeds(max_psi)), key=lambda pair: -pair[1].value))

    def in_words(self) -> list[str]:
        """The indices as lines of text."""
        if not self.known:
            return []
        lines = []
        if self.features:
            first = sorted(self.features.items(), key=lambda item: -item[1].value)
            more = f" and {len(first) - SHOWN} more" if len(first) > SHOWN else ""
            lines.append(f"PSI of features: {', '.join(f'{n} {p.value:.3f}' for n, p in first[:SHOWN])}{more}")
        others = [f"{name} {found.value:.3f}" for name, found in self.named() if name not in self.features]
        lines.append(f"PSI of {', '.join(others)}")
        largest = max((found for _, found in self.named()), key=lambda found: found.chance)
        lines[-1] += f" (below {SMALL:g}: alike; above {LARGE:g}: a large change)"
        if largest.chance > SMALL:
            lines.append(f"with {self.n_rows:,} rows a PSI up to {largest.chance:.2f} can be chance")
        if self.far is not None:
            lines.append(f"farther from the own centre than 99% of the training rows: {self.far:.1%}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return {
            "features": {name: vars(found) for name, found in self.features.items()},
            **{
                name: None if (p := getattr(self, name)) is None else vars(p)
                for name in ("clusters", "distance", "confidence")
            },
            "far": self.far,
        }

    def metrics(self) -> dict[str, float]:
        """The indices as metrics of a run: ``psi/FEATURE``, ``psi_clusters``, ``psi_distance``, ``psi_confidence`` and ``far``."""
        found = {f"psi/{name}": value.value for name, value in self.features.items()}
        for name in ("clusters", "distance", "confidence"):
            if (value := getattr(self, name)) is not None:
                found[f"psi_{name}"] = value.value
        return found | ({} if self.far is None else {"far": self.far})
