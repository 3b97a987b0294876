"""Positions of a sample of rows by a method that keeps neighbours, as landmarks among which all rows are placed.

A method is a function ``embed(points, settings, backend) -> positions``, found by its name here or as an entry point of the group
``gpuclust.maps``; each imports its library when it is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from gpuclust.config import plugins
from gpuclust.errors import ConfigurationError, FitError, message_of
from gpuclust.model.landmarks import MAX_SEARCHED, Landmarks, project
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import RowBlocks

METHODS = {name: f"gpuclust.reducers.{name}" for name in ("umap", "pacmap", "tsne")}
MIN_LANDMARKS = 10
"""The smallest number of different rows that a method is fitted on."""
CELL_ITERATIONS = 5


@dataclass(frozen=True)
class EmbeddingSettings:
    """What a method gets: ``n_neighbors`` None is its default."""

    n_components: int
    n_neighbors: int | None
    min_dist: float
    seed: int


Embed = Callable[[np.ndarray, EmbeddingSettings, Backend], np.ndarray]


def taken(rows: Array | RowBlocks, numbers: np.ndarray, backend: Backend) -> np.ndarray:
    """Rows (n, n_columns) by their numbers, from an array on the device or the host, or from blocks, on the host."""
    if isinstance(rows, RowBlocks):
        return np.asarray(rows.take(numbers))
    if isinstance(rows, np.ndarray):
        return rows[numbers]
    return backend.to_host(rows[backend.to_device(numbers)])


def fit_landmarks(rows: np.ndarray, method: str, settings: EmbeddingSettings, backend: Backend, key: str) -> Landmarks:
    """Fit a method on rows (n, n_columns), of which equal ones count once. ``key`` is what chose the method, as in ``map=umap``.

    Raises ConfigurationError for fewer than 10 different rows or without the package of the method, and FitError where the method fails.
    """
    embed = _method(method, key)
    mean, directions = _search_space(rows)
    points = project(rows, mean, directions)
    points = points[np.sort(np.unique(points, axis=0, return_index=True)[1])]
    if len(points) < MIN_LANDMARKS:
        raise ConfigurationError(
            f"{key} needs at least {MIN_LANDMARKS} different rows, and there are {len(points)}; use {key.partition('=')[0]}=pca"
        )
    try:
        positions = np.asarray(embed(points, settings, backend), dtype=np.float32)
    except ModuleNotFoundError as error:
        raise ConfigurationError(_missing(key, error.name or method)) from error
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise FitError(f"{key} failed: {message_of(error)}") from error
    if not np.isfinite(positions).all():
        raise FitError(f"{key} gave positions that are not finite; use another method or other neighbours")
    return Landmarks(method, mean, directions, _cells(points, settings.seed), points, positions)


def _method(method: str, key: str) -> Embed:
    entry = plugins("maps").get(method)
    if entry is not None:
        found: Embed = entry.load()
        return found
    if method not in METHODS:
        raise ConfigurationError(f"{key} is not known; use one of {', '.join(METHODS)}")
    embed: Embed = import_module(METHODS[method]).embed
    return embed


def _missing(key: str, package: str) -> str:
    return f"{key} needs a package that is not installed (no module {package}): pip install 'gpuclust[maps]'"


def _search_space(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (n_columns,) and directions (m, n_columns) of the space in which rows are compared: that of the rows, or their leading
    `MAX_SEARCHED` principal components."""
    n_columns = rows.shape[1]
    if n_columns <= MAX_SEARCHED:
        return np.zeros(n_columns), np.eye(n_columns)
    values = rows.astype(np.float64)
    mean = values.mean(axis=0)
    values -= mean
    _, vectors = np.linalg.eigh(values.T @ values)
    return mean, np.ascontiguousarray(vectors[:, : -MAX_SEARCHED - 1 : -1].T)


def _cells(points: np.ndarray, seed: int) -> np.ndarray:
    """About as many centres of the points (n, m) as the square root of their number, by a few iterations of K-Means."""
    from sklearn.cluster import KMeans

    n_cells = max(int(len(points) ** 0.5), 1)
    fitted: Any = KMeans(n_cells, n_init=1, init="random", max_iter=CELL_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in so few iterations
        return np.asarray(fitted.fit(points).cluster_centers_, dtype=np.float32)
