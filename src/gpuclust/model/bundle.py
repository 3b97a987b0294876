"""The portable model, and its predictions: ``arrays.npz`` and ``model.json``, data and no code, so that a model of any device
serves on any. The exports, `gpuclust predict`, the JSON API and a logged MLflow model all predict with `Bundle.predict`.

``model.json`` names the format, the algorithm, the features, what cleaning does to a new row, and every array with its
shape. `gpuclust.model.schema` has what both files must hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.encodings import Encoding, encoded_columns
from gpuclust.model.explanation import Explanation, Memberships, explain, memberships
from gpuclust.model.files import ARRAYS, MODEL, ModelFiles, read_model
from gpuclust.model.prediction import Place, Soft, in_threads, place_rows, row_blocks, rule_of
from gpuclust.model.preparation import MAP_DIMENSIONS, UNIT, Preparation, arrays_in, preparation_in
from gpuclust.model.schema import FIRST_FORMAT, FORMAT
from gpuclust.model.transforms import transform_arrays
from gpuclust.model.vectors import listed, vector_columns

# What a row that cannot be placed gets; `Prediction.placed` tells it from noise.
UNPLACED = -2


@dataclass(frozen=True)
class Assignment:
    """The clusters of rows: ``cluster`` (n,) int32, noise -1, and -2 if a feature was missing or out of bounds; ``confidence`` (n,)
    float32 in [0, 1], NaN for rows that were not assigned; ``distance`` (n,) float32 to the own centre, NaN if there is none.
    """

    cluster: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray

    @property
    def placed(self) -> np.ndarray:
        """Which rows were placed, (n,) bool."""
        return np.asarray(self.cluster != UNPLACED)


@dataclass(frozen=True)
class Prediction(Assignment):
    """Where rows belong: their clusters, and their ``coordinates`` (n, 3) float32, the map's principal components, or positions among its landmarks."""

    coordinates: np.ndarray


@dataclass(frozen=True)
class Bundle:
    """A fitted clustering that can place new rows.

    ``fills`` replace missing values (what imputation learned), ``bounds`` reject rows as cleaning did, ``details``
    describe the model to people: names, sizes, profile. ``merged``: fitted cluster -> the cluster that it was merged into; confidence
    and distance of a row stay those of the fitted cluster. ``encodings`` are of the columns that
    rows have before they are encoded.
    """

    algorithm: str
    preparation: Preparation
    parameters: Mapping[str, np.ndarray]
    options: Mapping[str, Any] = field(default_factory=dict)
    fills: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    merged: Mapping[int, int] = field(default_factory=dict)
    encodings: Sequence[Encoding] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that a row must have, in order."""
        return self.preparation.features

    @cached_property
    def place(self) -> Place:
        """The algorithm's prediction, from prepared points to labels, confidences and distances."""
        return rule_of(self.algorithm).place(self.parameters, self.options)

    @cached_property
    def soft(self) -> Soft:
        """From prepared points to memberships and outlier scores. Raises ModelError where the algorithm has none."""
        rule = rule_of(self.algorithm)
        if rule.soft is None:
            raise ModelError(
                f"{self.algorithm} has no memberships in several clusters; leave them out, or use another algorithm, such as hdbscan"
            )
        return rule.soft(self.parameters, self.options)

    def points(self, raw: np.ndarray) -> np.ndarray:
        """Rows of raw features (n_rows, n_features), missing NaN, to points (n_rows, n_columns) of the prepared space, in the type of the
        matrix. A missing value is what imputation learned, else the middle of the scale."""
        middle = [self.fills.get(f, self.preparation.middle(j)) for j, f in enumerate(self.features)]
        raw = np.array(raw, dtype=np.float64, ndmin=2)
        return self.preparation.points(np.where(np.isfinite(raw), raw, middle))

    def predict(self, raw: np.ndarray) -> Prediction:
        """Place rows of raw features (n_rows, n_features) float64, in the order of `features`; missing is NaN.

        On the training rows K-Means and mixtures give the job's labels; HDBSCAN gives what `gpuclust.model.hdbscan.place`
        promises. Raises ModelError when the width is wrong.
        """
        raw, usable = self._usable(raw)
        coordinates, X = np.full((len(raw), MAP_DIMENSIONS), np.nan, dtype=np.float32), None
        if usable.any():
            X, coordinates[usable] = self.preparation.transform(raw if usable.all() else raw[usable])
        found = self._placed(X, usable)
        return Prediction(found.cluster, found.confidence, found.distance, coordinates)

    def assign(self, raw: np.ndarray) -> Assignment:
        """`predict` without the coordinates."""
        raw, usable = self._usable(raw)
        X = self.preparation.points(raw if usable.all() else raw[usable]) if usable.any() else None
        return self._placed(X, usable)

    def memberships(self, raw: np.ndarray, top: int) -> Memberships:
        """The ``top`` likeliest clusters of rows of raw features (n_rows, n_features), and their outlier scores.

        Raises ModelError where the algorithm has no memberships, or the width is wrong.
        """
        soft = self.soft
        raw, usable = self._usable(raw)
        found = memberships(soft, self.preparation.points(raw[usable]), self.merged, top)
        whole = Memberships(
            cluster=np.full((len(raw), found.cluster.shape[1]), UNPLACED, dtype=np.int32),
            probability=np.full((len(raw), found.cluster.shape[1]), np.nan, dtype=np.float32),
            outlier=np.full(len(raw), np.nan, dtype=np.float32),
        )
        for name, values in vars(whole).items():
            values[usable] = getattr(found, name)
        return whole

    def explain(self, raw: np.ndarray) -> Explanation:
        """Why rows of raw features (n_rows, n_features) are in their clusters: `gpuclust.model.explanation.explain`.

        Raises ModelError where the algorithm has no centres, the reduction is not linear, or the width is wrong.
        """
        rule = rule_of(self.algorithm)
        if rule.centres is None:
            raise ModelError(
                f"{self.algorithm} has no centres, so features have no contributions to d(own) - d(next); use kmeans, gmm or bayesian_gmm"
            )
        raw, usable = self._usable(raw)
        found = explain(rule.centres(self.parameters, self.options), self.preparation, raw[usable], self.merged)
        whole = Explanation(
            cluster=np.full(len(raw), UNPLACED, dtype=np.int32),
            next=np.full(len(raw), UNPLACED, dtype=np.int32),
            difference=np.full(len(raw), np.nan),
            contributions=np.full(raw.shape, np.nan),
            constant=np.full(len(raw), np.nan),
        )
        for name, values in vars(whole).items():
            values[usable] = getattr(found, name)
        return whole

    def coordinates(self, raw: np.ndarray) -> np.ndarray:
        """The coordinates of `predict` alone: (n_rows, 3) float32, NaN where a row cannot be placed."""
        raw, usable = self._usable(raw)
        coordinates = np.full((len(raw), MAP_DIMENSIONS), np.nan, dtype=np.float32)
        if usable.any():
            coordinates[usable] = self.preparation.map_points(raw if usable.all() else raw[usable])
        return coordinates

    def _placed(self, X: np.ndarray | None, usable: np.ndarray) -> Assignment:
        """The clusters of rows, of which those that are ``usable`` (n,) have the points X."""
        found = Assignment(
            cluster=np.full(len(usable), UNPLACED, dtype=np.int32),
            confidence=np.full(len(usable), np.nan, dtype=np.float32),
            distance=np.full(len(usable), np.nan, dtype=np.float32),
        )
        if X is not None:
            found.cluster[usable], found.confidence[usable], found.distance[usable] = place_rows(self.place, X)
        return replace(found, cluster=merge_labels(found.cluster, self.merged)) if self.merged else found

    def training(self, n_rows: int, assign: Callable[[], Assignment]) -> Assignment:
        """The job's own assignment of its training rows. ``assign`` returns the predictions of the model for them, in the order in which
        they were fitted. For K-Means and mixtures these are the assignment. An HDBSCAN bundle stores its labels, because `predict` may
        assign a row to a cluster that is noise in the tree, and so does a K-Means with limited sizes. Raises ModelError if the number of rows differs from that of the fit.
        """
        of = (
            "table" if "table_labels" in self.parameters else "training"
        )  # the tree of a sample has fewer rows than the table
        labels, confidence = self.parameters.get(f"{of}_labels"), self.parameters.get(f"{of}_confidence")
        if labels is None or confidence is None:
            return assign()
        if len(labels) != n_rows:
            raise ModelError(f"the model was fitted on {len(labels):,} rows, not on these {n_rows:,}")
        distance = self.parameters.get("training_distance", np.full(n_rows, np.nan, dtype=np.float32))
        return Assignment(labels, confidence, distance)

    def _usable(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A copy of the rows with missing values filled as in training, and a mask (n,) of the usable rows."""
        raw = np.array(raw, dtype=np.float64, ndmin=2)
        if raw.ndim != 2 or raw.shape[1] != len(self.features):
            raise ModelError(
                f"rows have {raw.shape[-1]} values, the model takes {len(self.features)}: {', '.join(listed(self.features))}"
            )
        usable = np.empty(len(raw), dtype=bool)

        def clean(block: slice) -> None:
            usable[block] = self._clean(raw[block])

        in_threads(clean, row_blocks(len(raw)))
        return raw, usable

    def _clean(self, raw: np.ndarray) -> np.ndarray:
        """Fill what imputation learned, in place; which rows are then usable, (n,) bool."""
        raw[~np.isfinite(raw)] = np.nan
        usable = np.ones(len(raw), dtype=bool)
        for j, feature in enumerate(self.features):
            low, high = self.bounds.get(feature, (None, None))
            if low is not None:
                usable &= ~(raw[:, j] < low)
            if high is not None:
                usable &= ~(raw[:, j] > high)
            if feature in self.fills:
                raw[np.isnan(raw[:, j]), j] = self.fills[feature]
        return np.asarray(usable & ~np.isnan(raw).any(axis=1) & self.preparation.within_reach(raw).all(axis=1))

    def obstacle(self, row: np.ndarray) -> str | None:
        """Why a row of raw features (n_features,) cannot be placed; None when it can."""
        for column, place in vector_columns(self.features).items():
            if not np.isfinite(row[place]).all():
                return f"{column} is missing, or one of its values is"
        within_reach = self.preparation.within_reach(row)
        if self.preparation.scaling.method == UNIT and not row.any():
            return "the row is zero in every feature, so that it has no direction"
        for j, (feature, value) in enumerate(zip(self.features, row.tolist(), strict=True)):
            low, high = self.bounds.get(feature, (None, None))
            if not np.isfinite(value):
                if feature not in self.fills:
                    return f"{encoded_columns(self.encodings, self.features).get(feature, feature)} is missing"
            elif (low is not None and value < low) or (high is not None and value > high):
                return (
                    f"{feature}={value:g} is outside {_number(low)} to {_number(high)}, which the model was fitted on"
                )
            elif not within_reach[j]:
                return f"{feature}={value:g} is too far out to be placed"
        return None

    def save(self, folder: Path) -> Path:
        """Write ``model.json`` and ``arrays.npz`` into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"parameters/{name}": np.asarray(value) for name, value in self.parameters.items()}
        projection, drawn = self.preparation.projection, self.preparation.map_projection
        parts = {
            "scaling": self.preparation.scaling.to_arrays(),
            "map": drawn.to_arrays(),
            "projection": {} if projection is None else projection.to_arrays(),
            "transforms": transform_arrays(self.preparation.transforms),
        }
        arrays |= {f"{prefix}/{name}": array for prefix, part in parts.items() for name, array in part.items()}
        np.savez_compressed(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
        description = {
            "format": FORMAT if self.preparation.transforms or self.encodings else FIRST_FORMAT,
            "gpuclust": version("gpuclust"),
            "algorithm": self.algorithm,
            "options": {k: v for k, v in self.options.items() if k != "covariance_type"},
            "covariance_type": self.options.get("covariance_type"),
            "features": list(self.features),
            "dtype": self.preparation.dtype,
            "scale": self.preparation.scaling.method,
            **({"unit": True} if self.preparation.unit else {}),
            **self._transforms(),
            **({"encodings": [encoding.to_dict() for encoding in self.encodings]} if self.encodings else {}),
            **({"reduce": projection.name} if projection is not None else {}),
            **({"map": drawn.name} if drawn.name != "pca" else {}),
            "fills": dict(self.fills),
            "bounds": {k: list(v) for k, v in self.bounds.items()},
            "details": dict(self.details),
            **({"merged": {str(c): into for c, into in self.merged.items()}} if self.merged else {}),
            "arrays": {name: [*value.shape] for name, value in arrays.items()},
        }
        (folder / MODEL).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    def _transforms(self) -> dict[str, Any]:
        """What ``model.json`` says of the transforms of features, if there are any."""
        found = {
            self.features[j]: {"method": transform.method, "parameter": transform.parameter}
            for j, transform in self.preparation.transforms.items()
        }
        return {"transforms": found} if found else {}

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read what `save` wrote. Raises ModelError, in one line, when it is missing, damaged, changed or not a model."""
        return cls._of(read_model(folder))

    @classmethod
    def load_preparation(cls, folder: Path) -> Bundle:
        """Read what `points` needs: all but the parameters, which can be as large as the training rows. Raises ModelError as `load`."""
        return cls._of(read_model(folder, only=("scaling/", "projection/", "map/", "transforms/")))

    @classmethod
    def _of(cls, model: ModelFiles) -> Bundle:
        described, arrays = model.description, model.arrays
        return cls(
            algorithm=described.algorithm,
            preparation=preparation_in(described, arrays),
            parameters=arrays_in("parameters", arrays),
            options=described.all_options,
            fills=described.fills,
            bounds=described.bounds,
            details=described.details.model_dump(exclude_none=True),
            merged={int(c): into for c, into in described.merged.items()},
            encodings=described.known_encodings,
        )


def merge_labels(labels: np.ndarray, merged: Mapping[int, int]) -> np.ndarray:
    """Labels (n,) int32 after merging: a cluster that is a key becomes its value."""
    found = labels.copy()
    for cluster, into in merged.items():
        found[labels == cluster] = into
    return found


def _number(limit: float | None) -> str:
    return "any" if limit is None else f"{limit:g}"
