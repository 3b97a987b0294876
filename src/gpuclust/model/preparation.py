"""How raw features become a matrix: transforms, scaling and reduction, fitted elsewhere and applied here, with NumPy or CuPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.landmarks import LandmarkReduction, Landmarks
from gpuclust.model.prediction import ArraySpec, in_threads
from gpuclust.model.transforms import FeatureTransform, transformed, transforms_from

if TYPE_CHECKING:
    from gpuclust.model.schema import Description

# A NumPy or a CuPy array.
Array = Any

# Rows are transformed in blocks of this size, counted from the first: the same rows then go through the same
# matrix products wherever they are transformed, so that a served model repeats the job's matrix bit for bit.
BLOCK_ROWS = 65_536

MAP_DIMENSIONS = 3
UNIT = "unit"

# Scaled values beyond which squares, or distances in float32, overflow, by the type of the matrix. Where all are below the
# inverse, squares vanish.
REACH = {"float32": 1e15, "float64": 1e30}


class Reducer(Protocol):
    """A fitted reduction of the scaled features: a class with these methods, and ``fit`` (see `gpuclust.reducers`).

    ``name`` is that of ``reduce.method``; ``ARRAYS`` are what `to_arrays` gives, with the axes ``features`` and ``columns``. A
    plug-in's class is an entry point of the group ``gpuclust.reducers``.
    """

    name: ClassVar[str]
    ARRAYS: ClassVar[Mapping[str, ArraySpec]]

    @property
    def n_columns(self) -> int:
        """Number of columns that `transform` gives."""

    @property
    def explained_share(self) -> float:
        """Share of the variance of the scaled features that is kept, in [0, 1]."""

    def transform(self, scaled: Array, xp: Any = np) -> Array:
        """Scaled rows (n_rows, n_features) float64 to (n_rows, n_columns) float64, by ``xp``, NumPy or CuPy."""

    def to_arrays(self) -> Mapping[str, np.ndarray]:
        """What `from_arrays` reads."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The reduction that `to_arrays` gave."""


def reducer_of(name: str) -> type[Reducer]:
    """The class of a fitted reduction by the name of its method. Raises ModelError when no installed package has it."""
    if name in REDUCERS:
        return REDUCERS[name]
    for entry in entry_points(group="gpuclust.reducers", name=name):
        found: type[Reducer] = entry.load()
        return found
    raise ModelError(f"the reduction {name[:80]!r} is not known here; install the package that provides it")


def unit_rows(X: Array, xp: Any = np) -> Array:
    """Rows (n_rows, n_columns) float64 divided by their Euclidean length; a row of zeros is kept."""
    # Values are brought near 1 first, so that their squares neither overflow nor vanish.
    largest = xp.abs(X).max(axis=1, keepdims=True)
    X = X / xp.where(largest > 0, largest, 1.0)
    length = xp.sqrt((X * X).sum(axis=1, keepdims=True))
    return X / xp.where(length > 0, length, 1.0)


@dataclass(frozen=True)
class Scaling:
    """``(x - offset) / scale`` per feature; both (n_features,) float64. The method ``unit`` divides each row by its length instead."""

    method: str
    offset: np.ndarray
    scale: np.ndarray

    def transform(self, raw: Array, xp: Any = np) -> Array:
        """Raw rows (n_rows, n_features) float64, scaled."""
        if self.method == UNIT:
            return unit_rows(raw, xp)
        return (raw - xp.asarray(self.offset)) / xp.asarray(self.scale)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` reads beside the method."""
        return {"offset": self.offset, "scale": self.scale}

    @classmethod
    def from_arrays(cls, method: str, arrays: Mapping[str, np.ndarray]) -> Scaling:
        """The scaling that `to_arrays` gave."""
        return cls(method, arrays["offset"], arrays["scale"])


@dataclass(frozen=True)
class Projection:
    """``(x - mean) @ components.T / scale``: principal components, largest loading of each positive.

    ``mean`` (n_features,), ``components`` (n_components, n_features), ``explained_variance`` and
    ``explained_variance_ratio`` (n_components,), all float64; ``scale`` (n_components,) is one unless the
    components were whitened or standardised again. ``population_factor`` is sqrt((n - 1) / n), which turns a
    standard deviation with n - 1 into one with n.
    """

    name: ClassVar[str] = "pca"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {
        "mean": ArraySpec("f", ("features",)),
        "components": ArraySpec("f", ("columns", "features")),
        "explained_variance": ArraySpec("f", ("columns",), finite=False),
        "explained_variance_ratio": ArraySpec("f", ("columns",), finite=False),
        "scale": ArraySpec("f", ("columns",)),
    }

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    explained_variance_ratio: np.ndarray
    scale: np.ndarray
    population_factor: float = 1.0

    @property
    def n_columns(self) -> int:
        """Number of columns that `transform` gives."""
        return len(self.components)

    @property
    def explained_share(self) -> float:
        """Share of the variance that the components explain."""
        return float(self.explained_variance_ratio.sum())

    def transform(self, scaled: Array, xp: Any = np) -> Array:
        """Scaled rows (n_rows, n_features) float64 to their components (n_rows, n_components) float64."""
        centred = scaled - xp.asarray(self.mean)
        return centred @ xp.asarray(self.components).T / xp.asarray(self.scale)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` reads."""
        return {name: getattr(self, name) for name in self.ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The projection that `to_arrays` gave."""
        mean, components, variance, ratio, scale = (arrays[name] for name in cls.ARRAYS)
        return cls(mean, components, variance, ratio, scale)


class Factors(Projection):
    """Factor scores: the posterior mean of each factor, which is linear in the row. ``explained_variance`` are the sums of squared loadings."""

    name: ClassVar[str] = "fa"


class UmapReduction(LandmarkReduction):
    """Positions in a space that UMAP fitted."""

    name: ClassVar[str] = "umap"


class PacmapReduction(LandmarkReduction):
    """Positions in a space that PaCMAP fitted."""

    name: ClassVar[str] = "pacmap"


REDUCERS: Mapping[str, type[Reducer]] = {r.name: r for r in (Projection, Factors, UmapReduction, PacmapReduction)}


def arrays_in(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of one part of a model: those named ``prefix/...``."""
    return {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"{prefix}/")}


def projection_in(arrays: Mapping[str, np.ndarray], method: str) -> Reducer | None:
    """The reduction of a model, by the name of its method; None where its features were not reduced."""
    found = arrays_in("projection", arrays)
    return reducer_of(method).from_arrays(found) if found else None


def map_in(arrays: Mapping[str, np.ndarray], method: str) -> Projection | Landmarks:
    """The map of a model, by the name of its method."""
    return Projection.from_arrays(arrays) if method == Projection.name else Landmarks.from_arrays(arrays, method)


def projection_of(mean: np.ndarray, components: np.ndarray, variance: np.ndarray, n_rows: int) -> Projection:
    """A Projection whose components' largest loadings are positive; ratios are 0 where there is no variance.

    ``variance`` is the explained variance with n - 1, as scikit-learn and cuML give it.
    """
    components = np.asarray(components, dtype=np.float64)
    largest = np.abs(components).argmax(axis=1)
    signs = np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)
    variance = np.maximum(np.asarray(variance, dtype=np.float64), 0.0)
    total = variance.sum()
    return Projection(
        mean=np.asarray(mean, dtype=np.float64),
        components=components * signs[:, None],
        explained_variance=variance,
        explained_variance_ratio=variance / total if total > 0 else np.zeros_like(variance),
        scale=np.ones(len(components)),
        population_factor=float(np.sqrt((n_rows - 1) / n_rows)),
    )


@dataclass(frozen=True)
class Preparation:
    """How raw features become a matrix: everything fitted, float64 on the host.

    ``projection`` is None when nothing was reduced; ``map_projection`` gives the coordinates for drawing: the first three principal
    components of the scaled features, or positions among landmarks of the matrix. With ``unit``, the rows of the matrix are divided by their length in the end.
    ``transforms`` of features, by their places, come before the scaling.
    """

    features: tuple[str, ...]
    scaling: Scaling
    projection: Reducer | None
    map_projection: Projection | Landmarks
    dtype: str
    unit: bool = False
    transforms: Mapping[int, FeatureTransform] = field(default_factory=dict)

    @property
    def n_columns(self) -> int:
        """Number of columns of the matrix."""
        return len(self.features) if self.projection is None else self.projection.n_columns

    @property
    def explained_variance(self) -> float:
        """Share of the scaled variance that the matrix keeps; 1.0 where nothing was reduced."""
        return 1.0 if self.projection is None else self.projection.explained_share

    def within_reach(self, raw: np.ndarray) -> np.ndarray:
        """Which values of rows (..., n_features) float64 have, once scaled, squares that ``dtype`` can hold: bool."""
        if self.scaling.method == UNIT:  # a row of zeros has no direction
            return np.broadcast_to(raw.any(axis=-1, keepdims=True), raw.shape)
        farthest = REACH[self.dtype]
        raw = transformed(raw, self.transforms)
        return np.asarray(np.abs(raw / farthest - self.scaling.offset / farthest) <= self.scaling.scale)

    def middle(self, j: int) -> float:
        """The value of a feature, in its own units, that is scaled to 0."""
        offset = float(self.scaling.offset[j])
        return self.transforms[j].inverse(offset) if j in self.transforms else offset

    def scaled(self, raw: Array, xp: Any = np) -> Array:
        """Raw rows (n_rows, n_features) float64, transformed and scaled."""
        return self.scaling.transform(transformed(raw, self.transforms, xp), xp)

    def transform(self, raw: Array, xp: Any = np) -> tuple[Array, Array]:
        """Raw features to the matrix and the map coordinates.

        Parameters: ``raw`` (n_rows, n_features) float64; ``xp`` numpy or cupy, whichever holds it. Returns the
        matrix (n_rows, n_columns) in ``dtype`` and the coordinates (n_rows, 3) float32; columns that a table of
        fewer than three features lacks are 0.
        """
        matrix = xp.empty((len(raw), self.n_columns), dtype=self.dtype)
        coordinates = xp.zeros((len(raw), MAP_DIMENSIONS), dtype=xp.float32)

        def run(block: slice) -> None:
            scaled = self.scaled(raw[block], xp)
            matrix[block] = self._reduced(scaled, xp)
            projected = self._on_map(scaled, matrix[block], xp)
            coordinates[block, : projected.shape[1]] = projected

        run_blocks(run, len(raw), xp)
        return matrix, coordinates

    def _on_map(self, scaled: Array, matrix: Array, xp: Any = np) -> Array:
        """The coordinates of rows, of which both forms are given: principal components are of the scaled features, other maps of the matrix."""
        return self.map_projection.transform(scaled if isinstance(self.map_projection, Projection) else matrix, xp)

    def _reduced(self, scaled: Array, xp: Any = np) -> Array:
        """Scaled rows as rows of the matrix, float64."""
        found = scaled if self.projection is None else self.projection.transform(scaled, xp)
        return unit_rows(found, xp) if self.unit else found

    def points(self, raw: np.ndarray) -> np.ndarray:
        """The matrix of `transform` alone, with NumPy."""
        matrix = np.empty((len(raw), self.n_columns), dtype=self.dtype)

        def run(block: slice) -> None:
            scaled = self.scaled(raw[block])
            matrix[block] = self._reduced(scaled)

        run_blocks(run, len(raw))
        return matrix

    def map_points(self, raw: np.ndarray) -> np.ndarray:
        """The map coordinates of `transform` alone, with NumPy."""
        coordinates = np.zeros((len(raw), MAP_DIMENSIONS), dtype=np.float32)

        def run(block: slice) -> None:
            scaled = self.scaled(raw[block])
            needs_matrix = not isinstance(self.map_projection, Projection)
            projected = self._on_map(scaled, self._reduced(scaled).astype(self.dtype) if needs_matrix else scaled)
            coordinates[block, : projected.shape[1]] = projected

        run_blocks(run, len(raw))
        return coordinates


def preparation_in(described: Description, arrays: Mapping[str, np.ndarray]) -> Preparation:
    """The preparation of a model that was read."""
    scaling = {name: array.astype(np.float64) for name, array in arrays_in("scaling", arrays).items()}
    methods = {
        described.features.index(name): (note.method, note.parameter) for name, note in described.transforms.items()
    }
    return Preparation(
        features=tuple(described.features),
        scaling=Scaling.from_arrays(described.scale, scaling),
        projection=projection_in(arrays, described.reduce),
        map_projection=map_in(arrays_in("map", arrays), described.map),
        dtype=described.dtype,
        unit=described.unit,
        transforms=transforms_from(methods, arrays_in("transforms", arrays)),
    )


def blocks(n_rows: int) -> list[slice]:
    """The fixed row blocks that every transform uses."""
    return [slice(start, min(start + BLOCK_ROWS, n_rows)) for start in range(0, n_rows, BLOCK_ROWS)]


def run_blocks(run: Callable[[slice], None], n_rows: int, xp: Any = np) -> None:
    """Call a function for the fixed row blocks, with NumPy in threads."""
    if xp is np:
        in_threads(run, blocks(n_rows))
    else:
        for block in blocks(n_rows):
            run(block)
