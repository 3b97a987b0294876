"""Prediction with DBSCAN: the cluster of the nearest core row, if it is within ``eps``.

The arrays of a model:

    core_points   (n, d) float    the core rows of the fit
    core_labels   (n,) int32      their clusters
    radius        () float64      how far a row may be from the nearest core row: ``eps``, or 0 if only core rows are in clusters
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from gpuclust.errors import ModelError
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule, register_rule
from gpuclust.model.records import NOISE

ARRAYS = {
    "core_points": ArraySpec("f", ("cores", "columns")),
    "core_labels": ArraySpec("i", ("cores",)),
    "radius": ArraySpec("f", ()),
}

BELOW_ONE = 1.0 - 2.0**-24
"""The greatest number below 1 in float32: the confidence 1 is that of core rows."""


def check(parameters: Parameters, options: Options) -> None:
    """Every cluster has a core row, and the radius is not negative."""
    labels = parameters["core_labels"]
    if len(labels) and not np.array_equal(np.unique(labels), np.arange(int(labels.max()) + 1)):
        raise ModelError("the array parameters/core_labels does not number clusters from 0")
    if parameters["radius"] < 0:
        raise ModelError("the array parameters/radius is negative")


def place(parameters: Parameters, options: Options) -> Place:
    """The cluster of the nearest core row within the radius, else noise; confidence 1 - distance / radius.

    A core row of the fit has distance 0, so it gets its own cluster and confidence 1. Of core rows at the same distance one is taken.
    """
    cores, labels, radius = parameters["core_points"], parameters["core_labels"], float(parameters["radius"])
    tree = KDTree(cores) if len(cores) else None
    limit = np.nextafter(radius, np.inf)  # SciPy's bound is exclusive

    def run(points: np.ndarray) -> Placed:
        if tree is None:
            return np.full(len(points), NOISE), np.zeros(len(points)), np.nan
        distance, nearest = tree.query(points, distance_upper_bound=limit)
        inside = np.isfinite(distance)
        found = np.where(inside, labels[np.where(inside, nearest, 0)], NOISE)
        share = np.divide(distance, radius, out=np.zeros(len(points)), where=inside & (distance > 0))
        confidence = np.where(distance > 0, np.clip(1.0 - share, 0.0, BELOW_ONE), 1.0)
        return found, np.where(inside, confidence, 0.0), np.nan

    return run


register_rule(PredictionRule("dbscan", ARRAYS, place, check=check, may_be_empty=("cores",)))
