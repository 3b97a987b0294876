"""What ``model.json`` and ``arrays.npz`` must hold. A model is checked against this before its arrays are used.

`Description` is the schema of ``model.json``; `check_headers` compares the types and shapes of all arrays before their
values are read, `check_values` the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from gpuclust.errors import ModelError

FORMAT = 1
NOISE = -1

Finite = Annotated[float, Field(allow_inf_nan=False)]
Algorithm = Literal["kmeans", "gmm", "hdbscan"]
CovarianceType = Literal["full", "tied", "diag", "spherical"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, protected_namespaces=())


class FeatureRange(_Strict):
    """A feature in the training rows, in original units; ``low`` and ``high`` are its 1 % and 99 % quantiles."""

    min: Finite
    low: Finite
    high: Finite
    max: Finite


class Quantiles(_Strict):
    """Quantiles of a value over the rows that were placed."""

    q01: Finite
    q50: Finite
    q99: Finite


class Training(_Strict):
    """What the rows that a model was fitted on looked like. ``distance`` is None where the algorithm has no centres."""

    n_rows: PositiveInt
    features: dict[str, FeatureRange]
    distance: Quantiles | None = None
    confidence: Quantiles | None = None


class ClusterNote(_Strict):
    """A cluster's name, and how many of the training rows are in it."""

    model_config = ConfigDict(extra="allow")

    name: str
    size: NonNegativeInt


class Details(_Strict):
    """What describes the model to people; ``training`` is None in models of version 0.1.0."""

    model_config = ConfigDict(extra="allow")

    clusters: dict[Annotated[str, Field(pattern=r"^-?\d{1,9}$")], ClusterNote] = {}
    training: Training | None = None


class Description(_Strict):
    """``model.json``. Fields that a later version adds are ignored."""

    format: Literal[1]
    gpuclust: str = ""
    algorithm: Algorithm
    covariance_type: CovarianceType | None = None
    features: Annotated[list[str], Field(min_length=1)]
    dtype: Literal["float32", "float64"]
    scale: str
    fills: dict[str, Finite]
    bounds: dict[str, tuple[Finite | None, Finite | None]]
    details: Details = Details()
    arrays: dict[str, list[NonNegativeInt]]

    @model_validator(mode="after")
    def _consistent(self) -> Description:
        if len(set(self.features)) < len(self.features):
            raise ValueError("a feature is named twice")
        named = {*self.fills, *self.bounds, *(self.details.training.features if self.details.training else ())}
        if unknown := sorted(named - set(self.features)):
            raise ValueError(f"{unknown[0][:80]!r} is not one of its features")
        if (self.algorithm == "gmm") != (self.covariance_type is not None):
            raise ValueError(f"covariance_type={self.covariance_type} does not fit the algorithm {self.algorithm}")
        return self


class _Head(BaseModel):
    format: int
    algorithm: Any = None


def parse(text: bytes) -> Description:
    """The content of a ``model.json``. Raises ModelError, in one line, when it does not follow the schema."""
    try:
        head = _Head.model_validate_json(text)
        if head.format > FORMAT:
            raise ModelError(
                f"the model has format {head.format}, this gpuclust reads up to {FORMAT}; upgrade gpuclust"
            )
        if isinstance(head.algorithm, str) and head.algorithm not in PARAMETERS:
            raise ModelError(f"the model's algorithm {head.algorithm[:80]!r} is not known here; upgrade gpuclust")
        return Description.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(one_line(error)) from error


def one_line(error: ValidationError) -> str:
    """Where the first error of a validation is, and what it is, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:80]
    return f"{where}: {first['msg']}"[:200] if where else str(first["msg"])[:200]


# The kind of a value (f: floating point, i: integer) and the name of each axis. Axes of one name have one length.
Axes = tuple[str, ...]
DTYPES = {"f": ("<f4", "<f8"), "i": ("<i4", "<i8")}
PROJECTION: Mapping[str, tuple[str, Axes]] = {
    "mean": ("f", ("features",)),
    "components": ("f", ("{}", "features")),
    "explained_variance": ("f", ("{}",)),
    "explained_variance_ratio": ("f", ("{}",)),
    "scale": ("f", ("{}",)),
}
PARAMETERS: Mapping[str, Mapping[str, tuple[str, Axes]]] = {
    "kmeans": {"centers": ("f", ("clusters", "columns"))},
    "gmm": {"weights": ("f", ("clusters",)), "means": ("f", ("clusters", "columns"))},
    "hdbscan": {
        "points": ("f", ("rows", "columns")),
        "core_distances": ("f", ("rows",)),
        "min_samples": ("i", ()),
        "row_node": ("i", ("rows",)),
        "row_density": ("f", ("rows",)),
        "node_parent": ("i", ("nodes",)),
        "node_birth": ("f", ("nodes",)),
        "node_density": ("f", ("nodes",)),
        "cluster_node": ("i", ("clusters",)),
        "cluster_density": ("f", ("clusters",)),
        "root_density": ("f", ()),
        "canonical": ("i", ("clusters",)),
        "training_labels": ("i", ("rows",)),
        "training_confidence": ("f", ("rows",)),
    },
}
COVARIANCES: Mapping[str, Axes] = {
    "full": ("clusters", "columns", "columns"),
    "tied": ("columns", "columns"),
    "diag": ("clusters", "columns"),
    "spherical": ("clusters",),
}
MAP_DIMENSIONS = 3


def expected_arrays(description: Description) -> dict[str, tuple[str, Axes]]:
    """Name of each array that the model must have -> its kind and its axes."""
    axes: dict[str, tuple[str, Axes]] = {"scaling/offset": ("f", ("features",)), "scaling/scale": ("f", ("features",))}
    axes |= {f"map/{name}": (kind, _named("map", a)) for name, (kind, a) in PROJECTION.items()}
    if any(name.startswith("projection/") for name in description.arrays):
        axes |= {f"projection/{name}": (kind, _named("columns", a)) for name, (kind, a) in PROJECTION.items()}
    parameters = dict(PARAMETERS[description.algorithm])
    if description.covariance_type is not None:
        shape = COVARIANCES[description.covariance_type]
        parameters |= {"covariances": ("f", shape), "precisions_cholesky": ("f", shape)}
    return axes | {f"parameters/{name}": spec for name, spec in parameters.items()}


def _named(components: str, axes: Axes) -> Axes:
    return tuple(axis.format(components) for axis in axes)


def check_headers(description: Description, headers: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare the type and the shape of each array in the file (name -> both) with ``model.json`` and the algorithm.

    Raises ModelError: an array is missing, is not listed, or has the wrong type or shape.
    """
    expected = expected_arrays(description)
    for there, wanted in ((headers, expected), (expected, headers), (description.arrays, headers)):
        if different := sorted(set(wanted) - set(there)):
            what = "is missing" if wanted is expected else "is in the file but not in the model's description"
            raise ModelError(f"the array {different[0][:80]!r} {what}")
    sizes = {"features": len(description.features)}
    if "projection/mean" not in expected:
        sizes["columns"] = sizes["features"]
    for name, (kind, axes) in sorted(expected.items(), key=lambda item: item[0].startswith("parameters/")):
        dtype, shape = headers[name]
        if dtype not in DTYPES[kind]:
            raise ModelError(f"the array {name} has the type {dtype[:20]!r}, not one of {', '.join(DTYPES[kind])}")
        lengths = tuple(sizes.setdefault(axis, n) for axis, n in zip(axes, shape, strict=False))
        if len(shape) != len(axes) or shape != lengths or list(shape) != description.arrays[name]:
            raise ModelError(f"the array {name} has the shape {shape}, which does not fit the other arrays")
    least = {"map": 1, "columns": 1, "rows": 1, "nodes": 1, "clusters": 0 if description.algorithm == "hdbscan" else 1}
    if empty := [axis for axis, n in sizes.items() if n < least.get(axis, 1)]:
        raise ModelError(f"the model has no {empty[0]}")
    if sizes["map"] > MAP_DIMENSIONS:
        raise ModelError(f"the model's map has {sizes['map']} dimensions, not up to {MAP_DIMENSIONS}")


def check_values(description: Description, arrays: Mapping[str, np.ndarray]) -> None:
    """Check the values of the arrays that were read. Raises ModelError naming the first array with an impossible value."""
    for name, values in arrays.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ModelError(f"the array {name} has values that are not numbers")
        if name in FINITE and not np.isfinite(values).all():
            raise ModelError(f"the array {name} has infinite values")
        if name in DIVISORS and not (values > 0).all():
            raise ModelError(f"the array {name} has values that are not positive")
    if "parameters/weights" in arrays:
        full = description.covariance_type in ("full", "tied")
        _check_mixture(arrays["parameters/weights"], arrays["parameters/precisions_cholesky"], full)
    if "parameters/points" in arrays:
        _check_tree({name.removeprefix("parameters/"): values for name, values in arrays.items()})


DIVISORS = ("scaling/scale", "projection/scale", "map/scale")
FINITE = (*DIVISORS, "scaling/offset", "projection/mean", "projection/components", "map/mean", "map/components",
          "parameters/centers", "parameters/weights", "parameters/means", "parameters/precisions_cholesky",
          "parameters/points", "parameters/core_distances")  # fmt: skip


def _check_mixture(weights: np.ndarray, cholesky: np.ndarray, full: bool) -> None:
    """The weights are shares, and every Cholesky factor of a precision (its diagonal alone, unless ``full``) has a
    positive diagonal."""
    if (weights < 0).any() or abs(weights.sum() - 1.0) > 1e-3:
        raise ModelError("the array parameters/weights has negative values or does not add up to 1")
    diagonals = np.diagonal(cholesky, axis1=-2, axis2=-1) if full else cholesky
    if not (diagonals > 0).all():
        raise ModelError("the array parameters/precisions_cholesky has values on its diagonal that are not positive")


def _check_tree(arrays: Mapping[str, np.ndarray]) -> None:
    """The numbers in an HDBSCAN model's arrays point into its other arrays, and each node's parent comes before it."""
    n_rows, n_nodes, n_clusters = (len(arrays[name]) for name in ("points", "node_parent", "cluster_node"))
    parents = arrays["node_parent"]
    limits = {
        "row_node": (0, n_nodes - 1),
        "cluster_node": (0, n_nodes - 1),
        "canonical": (0, n_clusters - 1),
        "training_labels": (NOISE, n_clusters - 1),
        "min_samples": (1, max(n_rows - 1, 1)),
    }
    for name, (low, high) in limits.items():
        if arrays[name].size and not (low <= arrays[name].min() and arrays[name].max() <= high):
            raise ModelError(f"the array parameters/{name} has values outside {low} to {high}")
    if parents[0] != -1 or (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, n_nodes)).any():
        raise ModelError("the array parameters/node_parent is not a tree")
