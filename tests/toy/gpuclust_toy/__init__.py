"""DBSCAN (Ester, Kriegel, Sander and Xu 1996) by scikit-learn, as an installed package would add it to gpuclust."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from gpuclust.algorithms.registry import Algorithm, FitInput, FitResult
from gpuclust.config import ClusterConfig, number, one_of
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule


@dataclass
class ToyConfig(ClusterConfig):
    name: str = one_of("toy", "toy")
    eps: float = number(0.5, low=0, open_low=True)
    min_samples: int = number(10, low=1, spare_rows=0)


def place(parameters: Parameters, options: Options) -> Place:
    tree, core_labels, eps = KDTree(parameters["core_points"]), parameters["core_labels"], options["eps"]

    def run(points: np.ndarray) -> Placed:
        distance, core = tree.query(points)
        return np.where(distance <= eps, core_labels[core], -1), np.clip(1 - distance / eps, 0, 1), np.nan

    return run


def fit(data: FitInput, configs: list[ToyConfig]) -> list[FitResult]:
    from sklearn.cluster import DBSCAN

    results = []
    for config in configs:
        found = DBSCAN(eps=config.eps, min_samples=config.min_samples).fit(data.X)
        core = found.core_sample_indices_
        parameters = {"core_points": np.asarray(data.X)[core], "core_labels": found.labels_[core].astype(np.int32)}
        options = {"eps": config.eps}
        labels, confidence, _ = place(parameters, options)(data.X)
        results.append(
            FitResult(labels.astype(np.int32), confidence.astype(np.float32), None, parameters, {}, options=options)
        )
    return results


ARRAYS = {"core_points": ArraySpec("f", ("cores", "columns")), "core_labels": ArraySpec("i", ("cores",))}
ALGORITHM = Algorithm(
    name="toy",
    config=ToyConfig,
    fit={"cpu": fit},
    rule=PredictionRule("toy", ARRAYS, place, options={"eps": ()}),
    has_noise=True,
    less_noise="raise cluster.eps",
    seeded=False,
    size_key="eps",
    counts_clusters=False,
    canonical=lambda parameters, renumber, *_: {**parameters, "core_labels": renumber[parameters["core_labels"]]},
)
