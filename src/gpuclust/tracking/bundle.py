"""The portable model: ``arrays.npz`` and ``model.json``, data and no code, so a model of any device serves on any.

``model.json`` names the format, the algorithm, the features, what cleaning does to a new row, and every array with its
shape. `gpuclust.model.schema` has what both files must hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpuclust import __version__
from gpuclust.errors import ModelError
from gpuclust.model.files import ARRAYS, MODEL, ModelFiles, read_model
from gpuclust.model.prediction import Placed, rule_of
from gpuclust.model.preparation import Preparation, Projection, Scaling, arrays_in, projection_in
from gpuclust.model.records import NOISE
from gpuclust.model.schema import FORMAT

# What a row that cannot be placed gets; `Prediction.placed` tells it from noise.
UNPLACED = -2


@dataclass(frozen=True)
class Prediction:
    """Where rows belong: ``cluster`` (n,) int32, noise -1, and -2 where a feature was missing or out of bounds;
    ``confidence`` (n,) float32 in [0, 1], NaN where not placed; ``distance`` (n,) float32 to the own centre, NaN where
    there is none; ``coordinates`` (n, 3) float32, the map's principal components.
    """

    cluster: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    coordinates: np.ndarray

    @property
    def placed(self) -> np.ndarray:
        """Which rows were placed, (n,) bool."""
        return self.cluster != UNPLACED


@dataclass(frozen=True)
class Bundle:
    """A fitted clustering that can place new rows.

    ``fills`` replace missing values (what imputation learned), ``bounds`` reject rows as cleaning did, ``details`` is
    whatever describes the model to people: names, sizes, profile.
    """

    algorithm: str
    preparation: Preparation
    parameters: Mapping[str, np.ndarray]
    options: Mapping[str, Any] = field(default_factory=dict)
    fills: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that a row must have, in order."""
        return self.preparation.features

    def predict(self, raw: np.ndarray) -> Prediction:
        """Place rows of raw features (n_rows, n_features) float64, in the order of `features`; missing is NaN.

        On the training rows K-Means and mixtures give the job's labels; HDBSCAN gives what
        `gpuclust.algorithms.hdbscan.predict.approximate_predict` promises. Raises ModelError when the width is wrong.
        """
        raw = np.array(raw, dtype=np.float64, ndmin=2)
        if raw.ndim != 2 or raw.shape[1] != len(self.features):
            raise ModelError(
                f"rows have {raw.shape[-1]} values, the model takes {len(self.features)}: {', '.join(self.features)}"
            )
        usable = self._clean(raw)
        cluster = np.full(len(raw), UNPLACED, dtype=np.int32)
        confidence = np.full(len(raw), np.nan, dtype=np.float32)
        distance = np.full(len(raw), np.nan, dtype=np.float32)
        coordinates = np.full((len(raw), 3), np.nan, dtype=np.float32)
        if usable.any():
            X, coordinates[usable] = self.preparation.transform(raw[usable])
            cluster[usable], confidence[usable], distance[usable] = self._place(X)
        return Prediction(cluster, confidence, distance, coordinates)

    def training(self, raw: np.ndarray) -> Prediction:
        """The job's own assignment of its training rows, given again as raw features in the order they were fitted.

        For K-Means and mixtures that is `predict`; an HDBSCAN bundle keeps its labels, as what was noise in the tree may
        be placed by `predict`. Raises ModelError when these are not as many rows as were fitted.
        """
        kept = self.parameters.get("training_labels")
        if kept is None:
            return self.predict(raw)
        if len(kept) != len(raw):
            raise ModelError(f"the model was fitted on {len(kept):,} rows, not on these {len(raw):,}")
        _, coordinates = self.preparation.transform(np.asarray(raw, dtype=np.float64))
        no_centre = np.full(len(raw), np.nan, dtype=np.float32)
        return Prediction(kept, self.parameters["training_confidence"], no_centre, coordinates)

    def _place(self, X: np.ndarray) -> Placed:
        if self.algorithm in PREDICTORS:
            return PREDICTORS[self.algorithm](self, X)
        return rule_of(self.algorithm).place(self.parameters, self.options)(X)

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
        return usable & ~np.isnan(raw).any(axis=1) & self.preparation.within_reach(raw)

    def save(self, folder: Path) -> Path:
        """Write ``model.json`` and ``arrays.npz`` into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"parameters/{name}": np.asarray(value) for name, value in self.parameters.items()}
        projection = self.preparation.projection
        made = self.preparation
        parts: dict[str, Any] = {"scaling": made.scaling, "map": made.map_projection, "projection": projection}
        for prefix, part in parts.items():
            arrays |= {f"{prefix}/{name}": array for name, array in (part.to_arrays() if part else {}).items()}
        np.savez_compressed(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
        description = {
            "format": FORMAT,
            "gpuclust": __version__,
            "algorithm": self.algorithm,
            "options": {k: v for k, v in self.options.items() if k != "covariance_type"},
            "covariance_type": self.options.get("covariance_type"),
            "features": list(self.features),
            "dtype": self.preparation.dtype,
            "scale": self.preparation.scaling.method,
            **({"reduce": projection.name} if projection is not None else {}),
            "fills": dict(self.fills),
            "bounds": {k: list(v) for k, v in self.bounds.items()},
            "details": dict(self.details),
            "arrays": {name: [*value.shape] for name, value in arrays.items()},
        }
        (folder / MODEL).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read what `save` wrote. Raises ModelError, in one line, when it is missing, damaged, changed or not a model."""
        return cls.of(read_model(folder))

    @classmethod
    def of(cls, model: ModelFiles) -> Bundle:
        """The bundle of a model that was read."""
        described, arrays = model.description, model.arrays
        preparation = Preparation(
            features=tuple(described.features),
            scaling=Scaling.from_arrays(described.scale, arrays_in("scaling", arrays)),
            projection=projection_in(arrays, described.reduce),
            map_projection=Projection.from_arrays(arrays_in("map", arrays)),
            dtype=described.dtype,
        )
        return cls(
            algorithm=described.algorithm,
            preparation=preparation,
            parameters={k.removeprefix("parameters/"): v for k, v in arrays.items() if k.startswith("parameters/")},
            options=described.all_options,
            fills=described.fills,
            bounds=described.bounds,
            details=described.details.model_dump(exclude_none=True),
        )


def _kmeans(bundle: Bundle, X: np.ndarray) -> Placed:
    from gpuclust.algorithms.kmeans.cpu import centroid_confidence as margin
    from gpuclust.algorithms.kmeans.fit import assign

    labels, nearest, second = assign(X, bundle.parameters["centers"])
    return labels, margin(nearest, second), nearest.astype(np.float32)


def _gmm(bundle: Bundle, X: np.ndarray) -> Placed:
    from gpuclust.algorithms.mixture.cpu import score_rows as mixture_assign

    scores, distance = mixture_assign(X, bundle.parameters, bundle.options["covariance_type"])
    return scores.labels, scores.confidence, distance


def _hdbscan(bundle: Bundle, X: np.ndarray) -> Placed:
    from gpuclust.algorithms.hdbscan.predict import approximate_predict

    labels, probabilities = approximate_predict(bundle.parameters, X)
    renumber = np.append(bundle.parameters["canonical"], NOISE).astype(np.int32)
    return renumber[labels], probabilities, np.nan


PREDICTORS = {"kmeans": _kmeans, "gmm": _gmm, "hdbscan": _hdbscan}
