"""Table -> Matrix: scale, reduce, and the three coordinates that maps are drawn in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpuclust.compute.backend import Array, Backend, Projection, Scaling
from gpuclust.compute.distinct import Distinct, distinct_rows, pays, pays_for_fits
from gpuclust.config import ReduceConfig, ScaleConfig
from gpuclust.data.table import Table
from gpuclust.errors import ConfigurationError

# Rows are transformed in blocks of this size, counted from the first: the same rows then go through the same
# matrix products wherever they are transformed, so that a served model repeats the job's matrix bit for bit.
BLOCK_ROWS = 65_536

MAP_DIMENSIONS = 3

# A feature whose mean is this many standard deviations from 0 is centred in float64 before anything is computed or rounded.
FAR = 32.0
# Standard deviations outside of which a feature is brought near 1 before a scaler is fitted: scikit-learn's and cuML's take
# a spread below 2e-15 for that of a constant.
SMALL, LARGE = 1e-9, 1e9
# Scaled values beyond which squares, or distances in float32, overflow, by the type of the matrix. Where all are below the
# inverse, squares vanish.
REACH = {"float32": 1e15, "float64": 1e30}


@dataclass(frozen=True)
class Preparation:
    """How raw features become a matrix: everything fitted, float64 on the host.

    ``projection`` is None when nothing was reduced; ``map_projection`` always holds the first three principal
    components of the scaled features, for drawing.
    """

    features: tuple[str, ...]
    scaling: Scaling
    projection: Projection | None
    map_projection: Projection
    dtype: str

    @property
    def n_columns(self) -> int:
        """Number of columns of the matrix."""
        return len(self.features) if self.projection is None else len(self.projection.components)

    @property
    def explained_variance(self) -> float:
        """Share of the scaled variance that the matrix keeps; 1.0 where nothing was reduced."""
        return 1.0 if self.projection is None else float(self.projection.explained_variance_ratio.sum())

    def within_reach(self, raw: np.ndarray) -> np.ndarray:
        """Which rows (n_rows, n_features) float64 have scaled values whose squares ``dtype`` can hold: (n_rows,) bool."""
        farthest = REACH[self.dtype]
        within = np.abs(raw / farthest - self.scaling.offset / farthest) <= self.scaling.scale
        return np.asarray(within.all(axis=1))

    def transform(self, raw: Array, xp: Any = np) -> tuple[Array, Array]:
        """Raw features to the matrix and the map coordinates.

        Parameters: ``raw`` (n_rows, n_features) float64; ``xp`` numpy or cupy, whichever holds it. Returns the
        matrix (n_rows, n_columns) in ``dtype`` and the coordinates (n_rows, 3) float32; columns that a table of
        fewer than three features lacks are 0.
        """
        matrix = xp.empty((len(raw), self.n_columns), dtype=self.dtype)
        coordinates = xp.zeros((len(raw), MAP_DIMENSIONS), dtype=xp.float32)
        offset, scale = xp.asarray(self.scaling.offset), xp.asarray(self.scaling.scale)
        for block in blocks(len(raw)):
            scaled = (raw[block] - offset) / scale
            matrix[block] = scaled if self.projection is None else _project(scaled, self.projection, xp)
            projected = _project(scaled, self.map_projection, xp)
            coordinates[block, : projected.shape[1]] = projected
        return matrix, coordinates


@dataclass(frozen=True)
class Matrix:
    """The prepared rows: ``X`` (n_samples, n_columns) on the backend's device, in the configured dtype.

    ``coordinates`` (n_samples, 3) float32 on the host are the first three principal components of the scaled
    features. ``key`` names what made it; ``seconds`` is what that cost. ``n_distinct`` is how many different rows of
    features the table has, None where nobody counted.
    """

    X: Array
    coordinates: np.ndarray
    preparation: Preparation
    key: str
    seconds: float
    n_distinct: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    @cached_property
    def distinct(self) -> Distinct | None:
        """The distinct rows, found at the first use, where scoring them alone pays; only on the host."""
        if not isinstance(self.X, np.ndarray) or not pays(self.n_distinct, self.n_rows):
            return None
        found = distinct_rows(self.X)
        return found if pays(len(found.X), self.n_rows) else None

    @property
    def distinct_to_fit(self) -> Distinct | None:
        """The distinct rows where fitting them alone pays too."""
        return self.distinct if pays_for_fits(self.n_distinct, self.n_rows) else None


def blocks(n_rows: int) -> Iterator[slice]:
    """The fixed row blocks that every transform uses."""
    return (slice(start, min(start + BLOCK_ROWS, n_rows)) for start in range(0, n_rows, BLOCK_ROWS))


def prepare(
    table: Table, scale: ScaleConfig, reduce: ReduceConfig, *, dtype: str, key: str, backend: Backend
) -> Matrix:
    """Fit scaling and projection on the table in float64, and make the matrix in ``dtype``.

    The matrix is float64 whatever ``dtype`` says where the scaled values have squares that float32 cannot hold.

    Raises:
        ConfigurationError: the scaled values are too large or too small for any type, or fewer components are possible
            than ``reduce`` asks for.
    """
    started = time.perf_counter()
    raw = backend.frames.to_matrix(table.frame, table.features)
    scaling = fit_scaling(raw, scale.method, backend)
    xp = backend.xp
    scaled = (raw - xp.asarray(scaling.offset)) / xp.asarray(scaling.scale)
    largest = max(float(scaled.max()), -float(scaled.min()))
    if not 1 / REACH["float64"] < largest < REACH["float64"]:
        j = int(abs(scaled).max(axis=0).argmax())
        raise ConfigurationError(
            f"scale={scale.method} leaves {table.features[j]!r} with values up to {largest:.2g}, whose distances cannot be "
            f"computed; use scale=standard or leave the column out (data.exclude=[{table.features[j]}])"
        )
    components = backend.fit_projection(scaled)
    del scaled
    notes: tuple[str, ...] = ()
    if dtype == "float32" and not 1 / REACH[dtype] < largest < REACH[dtype]:
        dtype = "float64"
        notes = (f"computed in float64: scaled values reach {largest:.2g}, and float32 cannot hold their squares",)
    preparation = Preparation(
        features=table.features,
        scaling=scaling,
        projection=reduced(components, reduce) if reduce.method == "pca" else None,
        map_projection=first(components, MAP_DIMENSIONS),
        dtype=dtype,
    )
    matrix, coordinates = preparation.transform(raw, xp)
    seconds = time.perf_counter() - started
    n_distinct = table.audit.distinct_feature_rows
    return Matrix(matrix, backend.to_host(coordinates), preparation, key, seconds, n_distinct, notes)


def fit_scaling(raw: Array, method: str, backend: Backend) -> Scaling:
    """The scaling of raw features (n_rows, n_features) float64, exact however far they are from 0 and however small.

    Method ``none`` keeps the units and subtracts only what would cost precision: a round number near the mean of a feature
    that is `FAR` from 0. Distances, and what follows from them, do not change.
    """
    origin, spread = _origin(raw, backend.xp)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(spread))
    rounded = np.where(spread > 0, np.exp2(exponent), 1.0)
    far = (spread > 0) & (np.abs(origin) > FAR * spread)
    shift = np.where(far, np.round(origin / rounded) * rounded, 0.0)
    odd = (spread > 0) & ((spread < SMALL) | (spread > LARGE)) & (method != "none")
    unit = np.where(odd, rounded, 1.0)
    if not (far | odd).any():
        return backend.fit_scaling(raw, method)
    moved = raw.copy()
    for j in np.flatnonzero(far | odd).tolist():
        moved[:, j] = (moved[:, j] - shift[j]) / unit[j]
    fitted = backend.fit_scaling(moved, method)
    return Scaling(method, shift + fitted.offset * unit, fitted.scale * unit)


def _origin(raw: Array, xp: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature: (n_features,) float64 on the host, exact at any distance from 0."""
    first = raw[0]
    total = xp.zeros(raw.shape[1])
    for block in blocks(len(raw)):
        total += (raw[block] - first).sum(axis=0)
    mean = first + total / len(raw)
    total, squares = xp.zeros(raw.shape[1]), xp.zeros(raw.shape[1])
    for block in blocks(len(raw)):
        centred = raw[block] - mean
        total += centred.sum(axis=0)
        squares += (centred**2).sum(axis=0)
    off = total / len(raw)
    deviation = xp.sqrt(xp.maximum(squares / len(raw) - off**2, 0.0))
    return _host(mean + off), _host(deviation)


def _host(array: Array) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()


def reduced(components: Projection, reduce: ReduceConfig) -> Projection:
    """The components that are kept: a number of them, or the fewest that explain a share of the variance.

    ``whiten`` divides each component by its standard deviation with n - 1 (as PCA does), ``rescale`` by that with n
    (as a standard scaler would). Raises ConfigurationError when more components are asked for than there are.
    """
    wanted = reduce.n_components
    available = len(components.components)
    if isinstance(wanted, int):
        if wanted > available:
            raise ConfigurationError(
                f"reduce.n_components={wanted} is more than the {available} that {components.components.shape[1]} "
                "features allow; lower it or name more data.features"
            )
        kept = wanted
    else:
        share = np.cumsum(components.explained_variance_ratio)
        # A share of 1.0 keeps all, whatever the last bit of the sum says.
        kept = min(int(np.searchsorted(share, wanted - 1e-12)) + 1, available)
    projection = first(components, kept)
    if not (reduce.whiten or reduce.rescale):
        return projection
    deviation = np.sqrt(projection.explained_variance)
    if reduce.rescale:
        deviation = deviation * projection.population_factor
    return replace(projection, scale=np.where(deviation > 0, deviation, 1.0))


def first(components: Projection, count: int) -> Projection:
    """The first ``count`` components."""
    return replace(
        components,
        components=components.components[:count],
        explained_variance=components.explained_variance[:count],
        explained_variance_ratio=components.explained_variance_ratio[:count],
        scale=components.scale[:count],
    )


def _project(scaled: Array, projection: Projection, xp: Any) -> Array:
    centred = scaled - xp.asarray(projection.mean)
    return centred @ xp.asarray(projection.components).T / xp.asarray(projection.scale)
