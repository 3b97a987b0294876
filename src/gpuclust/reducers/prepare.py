"""Table -> Matrix: transform, scale, reduce, and the three coordinates that maps are drawn in."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gpuclust.config import UNIT, ReduceConfig, ScaleConfig
from gpuclust.data.table import Table
from gpuclust.errors import ConfigurationError
from gpuclust.model.preparation import (
    MAP_DIMENSIONS,
    REACH,
    Factors,
    Preparation,
    Projection,
    Reducer,
    Scaling,
    reducer_of,
)
from gpuclust.reducers.fa import factors
from gpuclust.reducers.neighbours import REDUCTIONS, fit_reduction
from gpuclust.reducers.pca import first, fit_components, reduced
from gpuclust.reducers.scalers import FeatureStatistics, feature_statistics, fit_scaling
from gpuclust.reducers.transforms import as_transformed, fit_transforms, weighted, with_groups
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import BLOCK_ROWS, DiskBlocks, LocalBlocks, RowBlocks
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.scratch import Scratch
from gpuclust.runtime.vector_blocks import VectorBlocks, host_columns


def prepare(
    table: Table,
    scale: ScaleConfig,
    reduce: ReduceConfig,
    *,
    dtype: str,
    key: str,
    backend: Backend,
    scratch: Scratch | None = None,
    unit: bool = False,
) -> Matrix:
    """Fit scaling and projection on the table in float64, and make the matrix in ``dtype``.

    With ``unit``, the rows of the matrix are divided by their length. The matrix is float64 whatever ``dtype`` says where the scaled values have squares that float32 cannot hold. The
    matrix of a table on disk (`gpuclust.data.disk_frame.DiskFrame`), and its coordinates, are written to ``scratch``.

    Raises:
        ConfigurationError: the scaled values are too large or too small for any type, fewer components are possible
            than ``reduce`` asks for, a plug-in would need all rows of a table on disk in memory, or a transform or a weight names no
            feature, or does not fit its values.
        BackendError: ``scratch`` cannot hold the matrix.
    """
    started = time.perf_counter()
    raw = raw_features(table, backend)
    transforms = fit_transforms(raw, table.features, scale.transform, backend)
    shaped = as_transformed(raw, transforms, backend)
    statistics = feature_statistics(shaped, plain=scale.method == "standard")
    scaling = fit_scaling(shaped, scale.method, backend, statistics)
    if table.encodings:
        scaling = with_groups(scaling, table, statistics.deviation)
    scaling = weighted(scaling, table, scale.weights)
    largest = _largest(table, scaling, statistics)
    components = fit_components(shaped, backend, scaling)
    notes: tuple[str, ...] = ()
    if dtype == "float32" and not 1 / REACH[dtype] < largest < REACH[dtype]:
        dtype = "float64"
        notes = (f"computed in float64: scaled values reach {largest:.2g}, and float32 cannot hold their squares",)
    preparation = Preparation(
        features=table.features,
        scaling=scaling,
        projection=_projection(shaped, scaling, components, reduce, backend),
        map_projection=first(components, MAP_DIMENSIONS),
        dtype=dtype,
        unit=unit,
        transforms=transforms,
    )
    X: Array | RowBlocks
    coordinates: np.ndarray | RowBlocks
    if isinstance(raw, RowBlocks) and scratch is not None:
        X, coordinates = _to_disk(raw, preparation, scratch)
    elif isinstance(raw, LocalBlocks):
        on_host, coordinates = _in_memory(raw, preparation)
        X = backend.to_device(on_host)
    else:
        X, on_device = preparation.transform(raw, backend.xp)
        coordinates = backend.to_host(on_device)
    seconds = time.perf_counter() - started
    weight = _weight(table, backend)
    return Matrix(X, coordinates, preparation, key, seconds, table.audit.distinct_feature_rows, notes, weight)


def _weight(table: Table, backend: Backend) -> np.ndarray | None:
    """The weights of the rows (n_rows,) float64 on the host, divided by their mean; None without ``data.weight``."""
    name = table.roles.weight
    if name is None:
        return None
    weight = backend.frames.to_pandas(table.frame[[name]])[name].to_numpy(np.float64)
    if not weight.any():
        raise ConfigurationError(f"data.weight: every {name} is 0 in the rows kept; name another column")
    return np.asarray(weight / weight.mean())


def raw_features(table: Table, backend: Backend) -> Array | RowBlocks:
    """The features of a table (n_rows, n_features) float64: on the backend's device, or in blocks if the table is on disk or has vectors."""
    names = table.column_features
    if hasattr(table.frame, "values_of"):
        columns = table.frame.values_of(names)
    elif table.vectors:
        return VectorBlocks(host_columns(table, backend.frames), table.vectors)
    else:
        return backend.frames.to_matrix(table.frame, names)
    return VectorBlocks(columns, table.vectors) if table.vectors else columns


def _largest(table: Table, scaling: Scaling, statistics: FeatureStatistics) -> float:
    """The largest absolute scaled value. Scaling keeps the order, so the extremes are those of the raw values. Raises ConfigurationError
    if distances between such values cannot be computed in float64.
    """
    if scaling.method == UNIT:
        return 1.0
    extremes = np.abs(scaling.transform(np.stack([statistics.lowest, statistics.highest]))).max(axis=0)
    largest = float(extremes.max())
    if not 1 / REACH["float64"] < largest < REACH["float64"]:
        name = table.features[int(extremes.argmax())]
        raise ConfigurationError(
            f"scale={scaling.method} leaves {name!r} with values up to {largest:.2g}, whose distances cannot be "
            f"computed; use scale=standard or leave the column out (data.exclude=[{name}])"
        )
    return largest


def _projection(
    raw: Array | RowBlocks, scaling: Scaling, components: Projection, reduce: ReduceConfig, backend: Backend
) -> Reducer | None:
    """The reduction that a configuration asks for, fitted; None for ``reduce=none``.

    A plug-in's class has ``fit(X, ReduceConfig, backend=Backend, components=Projection) -> Reducer``; it gets the scaled rows
    (n_samples, n_features) float64 on the device, and all their principal components.
    """
    if reduce.method == "none":
        return None
    if reduce.method == Projection.name:
        return reduced(components, reduce)
    if reduce.method == Factors.name:
        return factors(components, reduce)
    if reduce.method in REDUCTIONS:
        return fit_reduction(raw, scaling, reduce, backend)
    if isinstance(raw, RowBlocks):
        raise ConfigurationError(f"reduce={reduce.method} needs all rows in memory; use memory.mode=resident")
    fitter: Any = reducer_of(reduce.method)
    fitted: Reducer = fitter.fit(scaling.transform(raw, backend.xp), reduce, backend=backend, components=components)
    return fitted


def _in_memory(raw: LocalBlocks, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """The matrix and the coordinates of blocks of raw features as arrays on the host, in one read of these."""
    X = np.empty((len(raw), preparation.n_columns), preparation.dtype)
    coordinates = np.empty((len(raw), MAP_DIMENSIONS), np.float32)
    for block, rows in raw.runs():
        own = slice(block * BLOCK_ROWS, block * BLOCK_ROWS + len(rows))
        X[own], coordinates[own] = preparation.transform(rows)
    return X, coordinates


def _to_disk(raw: Any, preparation: Preparation, scratch: Scratch) -> tuple[RowBlocks, DiskBlocks]:
    """Write the matrix, where ``scratch`` keeps matrices, and the coordinates of blocks of raw features, in one read of these."""
    X = scratch.matrix_writer(preparation.n_columns, preparation.dtype)
    coordinates = scratch.writer("coordinates", MAP_DIMENSIONS, np.float32)
    try:
        for _, rows in raw.runs():
            transformed = preparation.transform(rows)
            X.append(transformed[0])
            coordinates.append(transformed[1])
    finally:
        blocks = X.close(), coordinates.close()
    return blocks
