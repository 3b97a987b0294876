"""Transforms of single features, and weights: fitted here, applied by `gpuclust.model.transforms` and `gpuclust.model.preparation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpuclust.config import did_you_mean
from gpuclust.data.feature_checks import FEW_VALUES
from gpuclust.data.table import Table, sample_rows
from gpuclust.errors import ConfigurationError
from gpuclust.model.encodings import CIRCULAR, FREQUENCY, Encoding, groups_of
from gpuclust.model.preparation import Scaling
from gpuclust.model.transforms import LOG, QUANTILE, YEO_JOHNSON, FeatureTransform, transformed
from gpuclust.model.vectors import listed, vector_columns
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import LocalBlocks, RowBlocks, Run
from gpuclust.runtime.passes import as_blocks, each_block, on_host, xp_of

SAMPLE_ROWS, SAMPLE_VALUES = 100_000, 20_000_000
"""Powers and quantiles are those of at most this many rows, and values of all features, drawn by a fixed seed."""
N_QUANTILES = 1000
OUTERMOST = 1e-7
"""The quantile whose normal score the smallest value gets, as in scikit-learn."""
POWERS = (-10.0, 10.0)
MIN_SPREAD = 1e-9
"""A feature whose standard deviation is a smaller share of its largest value, once transformed, has lost its digits."""
NORMAL_RANGE = 1.3489795003921634
"""The interquartile range of a normal distribution in standard deviations."""
SKEWED, SYMMETRIC = 1.0, 0.5
"""Absolute skewness from which a transform is suggested, and up to which a transformed feature is symmetric."""


def places_of(
    names: Mapping[str, object], features: Sequence[str], key: str, encodings: Sequence[Encoding] = ()
) -> dict[str, list[int]]:
    """The places of the features that a configuration names; the name of a column of vectors stands for all of its values, and that of an
    encoded column for all of its features.

    Raises ConfigurationError, with the ``key`` of the configuration, for a name that is no feature.
    """
    groups = vector_columns(features)
    places = {name: [j] for j, name in enumerate(features)}
    places |= {name: list(range(place.start, place.stop)) for name, place in groups.items() if name not in places}
    places |= {column: group for column, (_, group) in groups_of(encodings, features).items()}
    for name in names:
        if name not in places:
            hint = did_you_mean(name, places) or f"; they are {', '.join(listed(features)[:12])}"
            raise ConfigurationError(f"{key}.{name}: no feature has this name{hint}")
    return {name: places[name] for name in names}


def fit_transforms(
    raw: Array | RowBlocks, features: Sequence[str], wanted: Mapping[str, str], backend: Backend
) -> dict[int, FeatureTransform]:
    """The transforms that ``scale.transform`` asks for, by the places of the features in ``raw`` (n_rows, n_features) float64, which is on
    the backend's device or in blocks.

    Raises ConfigurationError for an unknown feature, a logarithm of negative values, and a power that loses all digits.
    """
    if not wanted:
        return {}
    named = places_of(wanted, features, "scale.transform")
    rows = sample_rows(len(raw), min(SAMPLE_ROWS, SAMPLE_VALUES // len(features)), 0)
    sample = raw.take(rows) if isinstance(raw, RowBlocks) else on_host(raw[backend.to_device(rows)])
    lowest = on_host(as_blocks(raw).reduce(_lowest, add=_least))
    found = {}
    for name, places in named.items():
        for j in places:
            try:
                found[j] = fit_transform(sample[:, j], wanted[name], lowest=float(lowest[j]))
            except ValueError as error:
                raise ConfigurationError(f"scale.transform.{name}={wanted[name]}: {error}") from None
    return found


def _lowest(run: Run) -> list[Array]:
    return each_block(run, lambda start, stop: run.X[start:stop].min(axis=0))


def _least(a: Array, b: Array) -> Array:
    return xp_of(a).minimum(a, b)


def fit_transform(values: np.ndarray, method: str, *, lowest: float) -> FeatureTransform:
    """A transform fitted to values (n,) float64, finite; ``lowest`` is the smallest of all rows.

    Raises ValueError, with the reason, where it cannot be applied to the values.
    """
    if method == LOG:
        if lowest < 0:
            raise ValueError(f"the logarithm needs values of at least 0, and the lowest is {lowest:g}; use yeo-johnson")
        positive = values[values > 0]
        if lowest == 0 and not len(positive):
            raise ValueError("no value is above 0; leave the feature out")
        # Zeros keep a distance from the other values that does not depend on the unit of the feature.
        return FeatureTransform(LOG, 0.0 if lowest > 0 else float(np.median(positive)))
    if method == QUANTILE:
        from scipy.special import ndtri

        at = np.linspace(0.0, 1.0, min(N_QUANTILES, len(values)))
        # Values that occur: interpolation would round equal values to different ones.
        quantiles = np.sort(values)[np.rint(at * (len(values) - 1)).astype(np.int64)]
        return FeatureTransform(QUANTILE, 0.0, quantiles, ndtri(np.clip(at, OUTERMOST, 1 - OUTERMOST)))
    found = FeatureTransform(YEO_JOHNSON, _most_normal_power(values))
    after = found.forward(values)
    if not np.std(after) > MIN_SPREAD * np.abs(after).max():
        raise ValueError(f"the power {found.parameter:.3g} makes the values equal within their precision; use quantile")
    return found


def _most_normal_power(values: np.ndarray) -> float:
    """The power of Yeo and Johnson with the largest likelihood of a normal distribution, as in scikit-learn's PowerTransformer."""
    from scipy.optimize import minimize_scalar

    weight = float((np.sign(values) * np.log1p(np.abs(values))).sum())

    def loss(power: float) -> float:
        variance = float(np.var(FeatureTransform(YEO_JOHNSON, power).forward(values)))
        if not 0 < variance < np.inf:
            return float(np.inf)
        return float(0.5 * len(values) * np.log(variance) - (power - 1) * weight)

    with np.errstate(over="ignore", invalid="ignore"):
        return float(minimize_scalar(loss, bounds=POWERS, method="bounded", options={"xatol": 1e-8}).x)


def with_groups(scaling: Scaling, table: Table, deviation: np.ndarray) -> Scaling:
    """The scaling with that of the features of each encoded column as a group, so that the column counts as one feature.

    ``deviation`` (n_features,) are the standard deviations. With ``minmax`` the largest distance within the group becomes 1, with
    ``robust`` its total variance that of a normal feature of interquartile range 1, with ``none`` it keeps its units, and with any other
    method its total variance becomes 1.
    """
    offset, scale = scaling.offset.copy(), scaling.scale.copy()
    for encoding, places in groups_of(table.encodings, table.features).values():
        if encoding.kind == FREQUENCY or scaling.method == "none":
            continue
        if scaling.method == "minmax":
            offset[places], scale[places] = (-1.0, 2.0) if encoding.kind == CIRCULAR else (0.0, np.sqrt(2.0))
        else:
            total = float(np.sqrt((deviation[places] ** 2).sum()))
            scale[places] = total * (NORMAL_RANGE if scaling.method == "robust" else 1.0)
    return replace(scaling, offset=offset, scale=scale)


def weighted(scaling: Scaling, table: Table, weights: Mapping[str, float]) -> Scaling:
    """The scaling with the weights of ``scale.weights`` as factors of scaled features. Raises ConfigurationError for an unknown name."""
    if not weights:
        return scaling
    factors = np.ones(len(table.features))
    for name, places in places_of(weights, table.features, "scale.weights", table.encodings).items():
        factors[places] *= weights[name]
    return replace(scaling, scale=scaling.scale / factors)


def as_transformed(
    raw: Array | RowBlocks, transforms: Mapping[int, FeatureTransform], backend: Backend
) -> Array | RowBlocks:
    """Raw features with some of them transformed: an array, or blocks that are transformed as they are read."""
    if not transforms or not isinstance(raw, RowBlocks):
        return transformed(raw, transforms, backend.xp)
    assert isinstance(raw, LocalBlocks)
    return TransformedBlocks(raw, transforms)


class TransformedBlocks(LocalBlocks):
    """Blocks of raw features, transformed as they are read."""

    def __init__(self, raw: LocalBlocks, transforms: Mapping[int, FeatureTransform]) -> None:
        super().__init__(raw.shape, raw.dtype)
        self._raw, self._transforms = raw, transforms

    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order."""
        return ((first, transformed(X, self._transforms)) for first, X in self._raw.runs())

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers."""
        return np.asarray(transformed(self._raw.take(rows), self._transforms))


@dataclass(frozen=True)
class Suggestion:
    """A transform that makes a skewed feature more symmetric: its skewness ``before`` and ``after``."""

    method: str
    before: float
    after: float


def suggest_transform(values: np.ndarray) -> Suggestion | None:
    """The simplest transform that makes values (n,) float64 symmetric; if none does, the one that comes nearest and at least halves the
    skewness. None for values that are not skewed, or too few."""
    values = values[np.isfinite(values)]
    values = values[sample_rows(len(values), SAMPLE_ROWS, 0)]
    before = skewness(values)
    if not abs(before) > SKEWED or len(np.unique(values)) <= FEW_VALUES:
        return None
    lowest, best = float(values.min()), None
    for method in (LOG, YEO_JOHNSON, QUANTILE):
        try:
            after = skewness(fit_transform(values, method, lowest=lowest).forward(values))
        except ValueError:
            continue
        if best is None or abs(after) < abs(best.after):
            best = Suggestion(method, before, after)
        if abs(best.after) <= SYMMETRIC:
            break
    return best if best is not None and abs(best.after) <= abs(before) / 2 else None


def skewness(values: np.ndarray) -> float:
    """The third standardised moment of values (n,); 0 where they are all equal."""
    if not len(values):
        return 0.0
    away = values - values.mean()
    largest = np.abs(away).max()
    if not 0 < largest < np.inf:
        return 0.0
    away = away / largest
    return float((away**3).mean() / (away**2).mean() ** 1.5)
