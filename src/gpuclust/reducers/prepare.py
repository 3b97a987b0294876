"""Table -> Matrix: scale, reduce, and the three coordinates that maps are drawn in."""

from __future__ import annotations

import time
from typing import Any

from gpuclust.config import ReduceConfig, ScaleConfig
from gpuclust.data.table import Table
from gpuclust.errors import ConfigurationError
from gpuclust.model.preparation import MAP_DIMENSIONS, REACH, Preparation, reducer_of
from gpuclust.reducers.pca import PrincipalComponents, first, fit_components
from gpuclust.reducers.scalers import fit_scaling
from gpuclust.runtime.backend import Backend
from gpuclust.runtime.matrix import Matrix


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
    scaled = scaling.transform(raw, xp)
    largest = max(float(scaled.max()), -float(scaled.min()))
    if not 1 / REACH["float64"] < largest < REACH["float64"]:
        j = int(abs(scaled).max(axis=0).argmax())
        raise ConfigurationError(
            f"scale={scale.method} leaves {table.features[j]!r} with values up to {largest:.2g}, whose distances cannot be "
            f"computed; use scale=standard or leave the column out (data.exclude=[{table.features[j]}])"
        )
    components = fit_components(scaled, backend)
    projection = None
    if reduce.method != "none":
        projection = reducer(reduce.method).fit(scaled, reduce, backend=backend, components=components)
    del scaled
    notes: tuple[str, ...] = ()
    if dtype == "float32" and not 1 / REACH[dtype] < largest < REACH[dtype]:
        dtype = "float64"
        notes = (f"computed in float64: scaled values reach {largest:.2g}, and float32 cannot hold their squares",)
    preparation = Preparation(
        features=table.features,
        scaling=scaling,
        projection=projection,
        map_projection=first(components, MAP_DIMENSIONS),
        dtype=dtype,
    )
    matrix, coordinates = preparation.transform(raw, xp)
    seconds = time.perf_counter() - started
    n_distinct = table.audit.distinct_feature_rows
    return Matrix(matrix, backend.to_host(coordinates), preparation, key, seconds, n_distinct, notes)


def reducer(method: str) -> Any:
    """The class that fits a reduction, by the name of ``reduce.method``: its
    ``fit(X, ReduceConfig, backend=Backend, components=Projection) -> Reducer`` gets the scaled rows (n_samples, n_features) float64 on the
    device, and all their principal components."""
    return PrincipalComponents if method == PrincipalComponents.name else reducer_of(method)
