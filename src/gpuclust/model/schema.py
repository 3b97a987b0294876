"""What ``model.json`` and ``arrays.npz`` must hold. A model is checked against this before its arrays are used.

`Description` is the schema of ``model.json``; `check_headers` compares the types and shapes of all arrays before their
values are read, `check_values` the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from gpuclust.errors import ModelError
from gpuclust.model.encodings import Encoding
from gpuclust.model.landmarks import landmark_arrays
from gpuclust.model.prediction import ArraySpec, rule_of
from gpuclust.model.preparation import Projection, reducer_of
from gpuclust.model.transforms import QUANTILE

FIRST_FORMAT, FORMAT = (
    1,
    2,
)  # the second has transforms and encodings of features, which a reader of the first would leave out

Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


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


class Bins(_Strict):
    """Ranges of a value, and how many of the training rows are in each: ``edges`` (n,) are the upper ends of all but the last, ``counts`` (n + 1,)."""

    edges: Annotated[list[Finite], Field(max_length=99)]
    counts: list[NonNegativeInt]

    @model_validator(mode="after")
    def _consistent(self) -> Bins:
        if len(self.counts) != len(self.edges) + 1 or any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError("the edges of bins must ascend, and there must be one more count")
        return self


class Training(_Strict):
    """What the rows that a model was fitted on looked like. ``distance`` is None where the algorithm has no centres. ``bins`` are those of the features,
    ``distance_bins`` and ``confidence_bins`` of what was found; models of version 0.1.0 have none."""

    n_rows: PositiveInt
    features: dict[str, FeatureRange]
    distance: Quantiles | None = None
    confidence: Quantiles | None = None
    bins: dict[str, Bins] = {}
    distance_bins: Bins | None = None
    confidence_bins: Bins | None = None


class ClusterNote(_Strict):
    """A cluster's name, and how many of the training rows are in it."""

    model_config = ConfigDict(extra="allow")

    name: str
    size: NonNegativeInt


class TransformNote(_Strict):
    """The transform of a feature; see `gpuclust.model.transforms.FeatureTransform`."""

    method: Literal["log", "yeo-johnson", "quantile"]
    parameter: Finite = 0.0


class EncodingNote(_Strict):
    """How a column is encoded; see `gpuclust.model.encodings.Encoding`."""

    column: Annotated[str, Field(min_length=1)]
    kind: Literal["onehot", "frequency", "circular"]
    categories: list[str] = []
    shares: list[Annotated[Finite, Field(ge=0, le=1)]] = []
    rest: Annotated[Finite, Field(ge=0, le=1)] = 0.0
    period: Annotated[Finite, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> EncodingNote:
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("a category is named twice")
        if len(self.shares) != len(self.categories):
            raise ValueError("categories and shares do not fit")
        return self


class Details(_Strict):
    """What describes the model to people; ``training`` is None in models of version 0.1.0."""

    model_config = ConfigDict(extra="allow")

    clusters: dict[Annotated[str, Field(pattern=r"^-?\d{1,9}$")], ClusterNote] = {}
    training: Training | None = None


class Description(_Strict):
    """``model.json``. Fields that a later version adds are ignored. ``covariance_type`` is an option of mixtures, which version
    0.1.0 wrote beside the others. ``merged``: fitted cluster -> the cluster of an edited export that it belongs to."""

    format: Literal[1, 2]
    gpuclust: str = ""
    algorithm: Name
    options: dict[Name, bool | int | Finite | str | None] = {}
    covariance_type: str | None = None
    features: Annotated[list[str], Field(min_length=1)]
    dtype: Literal["float32", "float64"]
    scale: str
    unit: bool = False
    transforms: dict[str, TransformNote] = {}
    encodings: list[EncodingNote] = []
    reduce: Name = "pca"
    map: Name = "pca"
    fills: dict[str, Finite]
    bounds: dict[str, tuple[Finite | None, Finite | None]]
    details: Details = Details()
    merged: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], NonNegativeInt] = {}
    arrays: dict[str, list[NonNegativeInt]]

    @model_validator(mode="after")
    def _consistent(self) -> Description:
        if len(set(self.features)) < len(self.features):
            raise ValueError("a feature is named twice")
        training = self.details.training
        known = () if training is None else (*training.features, *training.bins)
        named = {*self.fills, *self.bounds, *self.transforms, *known}
        if len({e.column for e in self.encodings}) < len(self.encodings):
            raise ValueError("a column is encoded twice")
        if unknown := sorted(named - set(self.features)):
            raise ValueError(f"{unknown[0][:80]!r} is not one of its features")
        return self

    @property
    def known_encodings(self) -> tuple[Encoding, ...]:
        """The encodings of columns."""
        return tuple(
            Encoding(e.column, e.kind, tuple(e.categories), tuple(e.shares), e.rest, e.period) for e in self.encodings
        )

    @property
    def all_options(self) -> dict[str, Any]:
        """The algorithm's options."""
        covariance_type = {} if self.covariance_type is None else {"covariance_type": self.covariance_type}
        return {**self.options, **covariance_type}


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
        if isinstance(head.algorithm, str):
            rule_of(head.algorithm)
        description = Description.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(one_line(error)) from error
    rule_of(description.algorithm).check_options(description.all_options)
    return description


def one_line(error: ValidationError) -> str:
    """Where the first error of a validation is, and what it is, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:80]
    return f"{where}: {first['msg']}"[:200] if where else str(first["msg"])[:200]


DTYPES = {"f": ("<f4", "<f8"), "i": ("<i4", "<i8")}
RISING = ("quantiles", "scores")
DIVISORS = ("scaling/scale", "projection/scale", "map/scale")
MAP_DIMENSIONS = 3


def expected_arrays(description: Description) -> dict[str, ArraySpec]:
    """Name of each array that the model must have -> what it is."""
    specs = {"scaling/offset": ArraySpec("f", ("features",)), "scaling/scale": ArraySpec("f", ("features",))}
    if description.map == Projection.name:
        on_map = {name: spec._replace(axes=_on_map(spec.axes)) for name, spec in Projection.ARRAYS.items()}
    else:
        on_map = landmark_arrays("map", "columns", "map")
    specs |= {f"map/{name}": spec for name, spec in on_map.items()}
    if any(note.method == QUANTILE for note in description.transforms.values()):
        specs |= {f"transforms/{name}": ArraySpec("f", ("transforms", "quantiles")) for name in RISING}
    if any(name.startswith("projection/") for name in description.arrays):
        specs |= {f"projection/{name}": spec for name, spec in reducer_of(description.reduce).ARRAYS.items()}
    parameters = rule_of(description.algorithm).arrays_of(description.all_options)
    return specs | {f"parameters/{name}": spec for name, spec in parameters.items()}


def _on_map(axes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("map" if axis == "columns" else axis for axis in axes)


def check_headers(description: Description, headers: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare the type and the shape of each array in the file (name -> both) with ``model.json`` and the algorithm.

    Raises ModelError: an array is missing, is not listed, or has the wrong type or shape.
    """
    expected = expected_arrays(description)
    for there, wanted in ((headers, expected), (expected, headers), (description.arrays, headers)):
        if different := sorted(set(wanted) - set(there)):
            what = "is missing" if wanted is expected else "is in the file but not in the model's description"
            raise ModelError(f"the array {different[0][:80]!r} {what}")
    n_quantile = sum(note.method == QUANTILE for note in description.transforms.values())
    sizes = {"features": len(description.features), **({"transforms": n_quantile} if n_quantile else {})}
    if not any(name.startswith("projection/") for name in expected):
        sizes["columns"] = sizes["features"]
    for name, (kind, axes, _) in sorted(expected.items(), key=lambda item: item[0].startswith("parameters/")):
        dtype, shape = headers[name]
        if dtype not in DTYPES[kind]:
            raise ModelError(f"the array {name} has the type {dtype[:20]!r}, not one of {', '.join(DTYPES[kind])}")
        lengths = tuple(sizes.setdefault(axis, n) for axis, n in zip(axes, shape, strict=False))
        if len(shape) != len(axes) or shape != lengths or list(shape) != description.arrays[name]:
            raise ModelError(f"the array {name} has the shape {shape}, which does not fit the other arrays")
    may_be_empty = rule_of(description.algorithm).may_be_empty
    if empty := [axis for axis, n in sizes.items() if n == 0 and axis not in may_be_empty]:
        raise ModelError(f"the model has no {empty[0]}")
    if sizes["map"] > MAP_DIMENSIONS:
        raise ModelError(f"the model's map has {sizes['map']} dimensions, not up to {MAP_DIMENSIONS}")


def check_values(description: Description, arrays: Mapping[str, np.ndarray]) -> None:
    """Check the values of the arrays that were read. Raises ModelError naming the first array with an impossible value."""
    expected = expected_arrays(description)
    for name, values in arrays.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ModelError(f"the array {name} has values that are not numbers")
        if expected[name].finite and not np.isfinite(values).all():
            raise ModelError(f"the array {name} has infinite values")
        if name in DIVISORS and not (values > 0).all():
            raise ModelError(f"the array {name} has values that are not positive")
        if name.startswith("transforms/") and (np.diff(values, axis=1) < 0).any():
            raise ModelError(f"the array {name} has values that decrease")
    parameters = {k.removeprefix("parameters/"): v for k, v in arrays.items() if k.startswith("parameters/")}
    if parameters:
        rule_of(description.algorithm).check(parameters, description.all_options)
