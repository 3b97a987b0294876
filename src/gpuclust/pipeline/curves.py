"""What varies in a sweep: the names of its jobs, and the curves that they are points of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuclust.algorithms.registry import Algorithm, algorithm_of, algorithms
from gpuclust.compose import Plan
from gpuclust.config import Config
from gpuclust.pipeline.context import Job, Outcome, data_name
from gpuclust.tracking.recorder import FINISHED

CURVES = ("silhouette", "silhouette_with_noise", "inertia", "bic", "aic", "icl", "calinski_harabasz", "davies_bouldin",
          "relative_validity", "split_gain", "dbcv", "prediction_strength", "stability_jaccard_min", "n_clusters", "noise_fraction",
          "largest_fraction")  # fmt: skip

# Metric -> line -> (size, value, standard error) by size.
Lines = dict[str, dict[str, list[tuple[float, float, float]]]]


@dataclass(frozen=True)
class Point:
    """Where a job is in the curves of its sweep: the key that is the axis, the size on it, and the line (empty when nothing
    else varies)."""

    axis: str
    size: float
    line: str


def job_name(config: Config, swept: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The job's name, from what varies: ``kmeans k=5``, ``gmm k=4 full``, ``hdbscan min_cluster_size=50 scale=minmax``."""
    words = [config.cluster.name]
    algorithm = algorithm_of(config.cluster)
    if algorithm.size_key is not None:
        words.append(f"{_size_name(algorithm)}={_size_of(config, algorithm)}")
    return " ".join([*words, *_variation(swept, keys, without=(str(algorithm.size_axis), "cluster"))])


def _size_name(algorithm: Algorithm) -> str:
    """``k`` where the size is the number of clusters, else its key: ``min_cluster_size``."""
    return "k" if algorithm.counts_clusters else str(algorithm.size_key)


def _size_of(config: Config, algorithm: Algorithm) -> Any:
    size = getattr(config.cluster, str(algorithm.size_key))
    return "default" if size is None else size


def _variation(swept: Mapping[str, Any], keys: Sequence[str], without: Sequence[str]) -> list[str]:
    """The other swept values: a text as it is, a number with its key."""
    words = []
    for name in keys:
        if name in swept and name not in without:
            value = swept[name]
            plain = isinstance(value, str) and name.startswith("cluster.")
            words.append(str(value) if plain else f"{name.rpartition('.')[2]}={value}")
    return words


def sweep_name(jobs: Sequence[Job]) -> str:
    """``sweep.name``, or the data and what is swept: ``tracks.csv · K-Means, GMM k=2..6 · scale=standard, robust``."""
    if jobs[0].config.sweep.name:
        return jobs[0].config.sweep.name
    words = [", ".join(dict.fromkeys(data_name(job.config.data) for job in jobs)), sizes_in_words(jobs)]
    keys = dict.fromkeys(key for job in jobs for key in job.swept)
    for key in [key for key in keys if key not in ("cluster", "data", "data.path")]:
        values = [job.swept[key] for job in jobs if key in job.swept and key != size_axis_of(job)]
        if not values:  # the sizes are named already
            continue
        words.append(f"{key.rpartition('.')[2]}={_listed(values)}")
    return " · ".join(words)


def size_axis_of(job: Job) -> str | None:
    """The key that is the size of the job's algorithm. Another algorithm may have it for something else: ``cluster.min_samples``."""
    return algorithm_of(job.config.cluster).size_axis


def sizes_in_words(jobs: Sequence[Job]) -> str:
    """The algorithms of some jobs and their sizes: ``K-Means, GMM k=2..6``."""
    by_sizes: dict[str, list[str]] = {}
    for name in dict.fromkeys(job.config.cluster.name for job in jobs):
        own = [job.config for job in jobs if job.config.cluster.name == name]
        algorithm = algorithm_of(own[0].cluster)
        title = algorithm.label if algorithm.label[:1].isupper() else name.upper()
        sizes = [_size_of(config, algorithm) for config in own] if algorithm.size_key else []
        by_sizes.setdefault(f" {_size_name(algorithm)}={_listed(sizes)}" if sizes else "", []).append(title)
    return ", ".join(f"{', '.join(titles)}{sizes}" for sizes, titles in by_sizes.items())


def _listed(values: Sequence[Any]) -> str:
    """Different values in order: ``2..10`` for successive whole numbers, ``50, 100, auto``, ``10, 20, 30, ... 200``."""
    different = list(dict.fromkeys(values if all(isinstance(v, int) for v in values) else map(str, values)))
    first, last = different[0], different[-1]
    if len(different) > 2 and isinstance(first, int) and different == list(range(first, first + len(different))):
        return f"{first}..{last}"
    shown = [*different[:3], f"... {last}"] if len(different) > 8 else different
    return ", ".join(map(str, shown))


def curve_point(outcome: Outcome, plan: Plan) -> Point | None:
    """Where a finished job is in the curves; None where nothing that can be an axis varies.

    The axis is the swept size of the algorithm, independent of the other swept keys and of their order; if its size
    does not vary, it is the first other number of the algorithm that varies. ``auto`` is the size that it took.
    """
    swept = outcome.job.swept
    own = size_axis_of(outcome.job)
    others = sorted(key for key in swept if key.startswith("cluster.") and key != own)
    for axis in (*([own] if own else []), *others):
        size = _size(outcome, axis)
        if size is not None:
            algorithm = [str(swept["cluster"])] if "cluster" in swept else []
            variation = _variation(swept, plan.swept, without=(axis, str(own), "cluster"))
            return Point(axis, size, "/".join(algorithm + variation))
    return None


def _size(outcome: Outcome, axis: str) -> float | None:
    """A job's place on an axis: the swept number, or the number that it took in place of a word such as ``auto``."""
    if axis not in outcome.job.swept:
        return None
    value = outcome.job.swept[axis]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        value = outcome.metrics.get(axis.removeprefix("cluster."))
    return None if value is None else value


def axis_name(axis: str) -> str:
    """An axis as the prefix of a metric: ``k`` for the number of clusters, else its key: ``min_cluster_size``."""
    sized = next((a for a in algorithms().values() if a.size_axis == axis), None)
    return _size_name(sized) if sized else short(axis)


def curves_by_key(outcome: Outcome) -> list[str]:
    """The metrics of a job that have a curve by its swept key: not those that its size or its algorithm fixes."""
    algorithm = algorithm_of(outcome.job.config.cluster)
    fixed = {"n_clusters"} if algorithm.counts_clusters else set()
    fixed |= set() if algorithm.has_noise else {"noise_fraction", "silhouette_with_noise"}
    return [m for m in CURVES if m in outcome.metrics and m not in fixed]


def line_by_axis(point: Point, name: str, plan: Plan) -> str:
    """The line of a job of the algorithm ``name`` among those of its axis: without the name where no other algorithm has the axis."""
    line = point.line
    if any(point.axis in job.swept and job.config.cluster.name != name for job in plan.jobs):
        return line
    return line.removeprefix(name).removeprefix("/") if line.split("/")[0] == name else line


def short(axis: str) -> str:
    """An axis in a file name: ``min_cluster_size``."""
    return axis.rpartition(".")[2]


def curves(outcomes: Sequence[Outcome], plan: Plan) -> Lines:
    """The curves over the sizes of all algorithms together, for the verdict. Each line begins with the algorithm's name;
    ``n_clusters`` has only the lines along which the number of clusters is found, not asked for."""
    found: Lines = {}
    for name in dict.fromkeys(o.job.config.cluster.name for o in outcomes):
        own = [o for o in outcomes if o.job.config.cluster.name == name]
        algorithm = algorithm_of(own[0].job.config.cluster)
        for metric, lines in curves_by_axis(own, plan).get(str(algorithm.size_axis), {}).items():
            if metric != "n_clusters" or not algorithm.counts_clusters:
                named = {line if line.split("/")[0] == name else f"{name}/{line}": p for line, p in lines.items()}
                found.setdefault(metric, {}).update(named)
    return found


def curves_by_axis(outcomes: Sequence[Outcome], plan: Plan) -> dict[str, Lines]:
    """Axis -> its curves; the line is the algorithm where nothing else varies. Each size is in a line once."""
    found: dict[str, Lines] = {}
    for outcome in (o for o in outcomes if o.status == FINISHED):
        point = curve_point(outcome, plan)
        if point is None:
            continue
        for metric in CURVES:
            if metric in outcome.metrics:
                error = outcome.metrics.get("silhouette_se", 0.0) if metric == "silhouette" else 0.0
                lines = found.setdefault(point.axis, {}).setdefault(metric, {})
                points = lines.setdefault(point.line or outcome.job.config.cluster.name, [])
                if all(size != point.size for size, _, _ in points):
                    points.append((point.size, outcome.metrics[metric], error))
    return {
        axis: {m: {line: sorted(points) for line, points in lines.items()} for m, lines in by_metric.items()}
        for axis, by_metric in found.items()
    }
