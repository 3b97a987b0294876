"""What varies in a sweep: the names of its jobs, and the curves that they are points of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpuclust.compose import Plan
from gpuclust.config import Config
from gpuclust.desk import Job, Outcome
from gpuclust.tracking.recorder import FINISHED

SIZES = ("cluster.n_clusters", "cluster.min_cluster_size")
CURVES = ("silhouette", "inertia", "bic", "aic", "icl", "calinski_harabasz", "davies_bouldin", "relative_validity",
          "split_gain", "dbcv", "prediction_strength", "stability_jaccard_min", "n_clusters", "noise_fraction", "largest_fraction")  # fmt: skip


def job_name(config: Config, swept: Mapping[str, Any], keys: Sequence[str]) -> str:
    """By what varies: ``kmeans k=5``, ``gmm k=4 full``, ``hdbscan min_cluster_size=50 scale=minmax``."""
    words = [config.cluster.name]
    if hasattr(config.cluster, "n_clusters"):
        words.append(f"k={config.cluster.n_clusters}")
    elif hasattr(config.cluster, "min_cluster_size"):
        words.append(f"min_cluster_size={config.cluster.min_cluster_size}")
    return " ".join([*words, *_variation(swept, keys, without=(*SIZES, "cluster"))])


def _variation(swept: Mapping[str, Any], keys: Sequence[str], without: Sequence[str]) -> list[str]:
    """The other swept values, in words: a text speaks for itself, a number needs its name."""
    words = []
    for name in keys:
        if name in swept and name not in without:
            value = swept[name]
            plain = isinstance(value, str) and name.startswith("cluster.")
            words.append(str(value) if plain else f"{name.rpartition('.')[2]}={value}")
    return words


def sweep_name(jobs: Sequence[Job]) -> str:
    """``sweep.name``, or what it sweeps: ``kmeans, gmm sweep of 18``."""
    algorithms = ", ".join(dict.fromkeys(job.config.cluster.name for job in jobs))
    return jobs[0].config.sweep.name or f"{algorithms} sweep of {len(jobs)}"


def curve_point(outcome: Outcome, plan: Plan) -> tuple[float, str] | None:
    """The size and the line (empty when nothing else varies) of a job in the sweep's curves; None without a size."""
    size = next((outcome.job.swept[k] for k in SIZES if isinstance(outcome.job.swept.get(k), int)), None)
    if size is None:
        return None
    swept = outcome.job.swept
    algorithm = [str(swept["cluster"])] if "cluster" in swept else []
    return size, "/".join(algorithm + _variation(swept, plan.swept, without=(*SIZES, "cluster")))


def curves(outcomes: Sequence[Outcome], plan: Plan) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Metric -> line -> (size, value, standard error) by size; the line is the algorithm where nothing else varies."""
    found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for outcome in (o for o in outcomes if o.status == FINISHED):
        point = curve_point(outcome, plan)
        if point is None:
            continue
        size, line = point
        for metric in CURVES:
            if metric in outcome.metrics:
                error = outcome.metrics.get("silhouette_se", 0.0) if metric == "silhouette" else 0.0
                lines = found.setdefault(metric, {})
                lines.setdefault(line or outcome.job.config.cluster.name, []).append(
                    (size, outcome.metrics[metric], error)
                )
    return {m: {line: sorted(points) for line, points in lines.items()} for m, lines in found.items()}
