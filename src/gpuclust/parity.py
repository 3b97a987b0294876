"""`gpuclust doctor --parity`: small jobs of each algorithm on each backend of this machine, and how far the results agree.

The results can be saved, and compared with those of another machine. Rows in five clear groups leave K-Means and mixtures one optimum, so
that backends with other starts must find the same clusters.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpuclust import __version__
from gpuclust.algorithms.registry import algorithms
from gpuclust.config import ClusterConfig, Config, DataConfig, ReduceConfig
from gpuclust.errors import DataError, DeviceLost, GpuclustError, message_of
from gpuclust.export import versions
from gpuclust.metrics.agreement import agreement, contingency
from gpuclust.pipeline.context import Outcome, Result, RunContext, make_job
from gpuclust.pipeline.job import compute
from gpuclust.runtime.backend import Backend, BackendChoice, create_backend, probe_gpu
from gpuclust.runtime.cache import ResultCache
from gpuclust.tracking.recorder import MemoryRecorder

N_ROWS, N_FEATURES, N_GROUPS = 6000, 10, 5
FORMAT = 1
MAX_FILE_BYTES = 10 * 2**20
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "kmeans": {"n_clusters": N_GROUPS},
    "gmm": {"n_clusters": N_GROUPS, "tol": 1e-6, "max_iter": 500},
    "hdbscan": {"min_cluster_size": 150, "exact": False},
    "agglomerative": {"n_clusters": N_GROUPS, "n_leaves": 300},
    "bayesian_gmm": {"max_components": N_GROUPS},
    "bisecting": {"n_clusters": N_GROUPS},
}
"""Algorithm -> its settings; ``exact``: cuML's tree on a GPU, which is the part that can differ."""


@dataclass(frozen=True)
class Tolerance:
    """How far two values may differ, absolutely or relative to their size, or the smallest agreement of labels; and the reason."""

    limit: float
    kind: str
    reason: str

    def allows(self, ours: float, theirs: float) -> bool:
        """Whether two values of a figure agree. Of labels, ``ours`` is their adjusted Rand index."""
        if self.kind == LABELS:
            return ours >= self.limit
        scale = max(abs(ours), abs(theirs)) if self.kind == RELATIVE else 1.0
        return abs(ours - theirs) <= self.limit * scale

    def __str__(self) -> str:
        return {LABELS: "ARI at least", ABSOLUTE: "within", RELATIVE: "within a share of"}[
            self.kind
        ] + f" {self.limit:g}"


LABELS, ABSOLUTE, RELATIVE = "labels", "absolute", "relative"
_STOP = "a fit stops when its centres or its likelihood hardly change, so fits from different starts differ slightly"
_FOLLOWS = "it depends on the labels, and a few labels on borders may differ"
_TREE = "cuML builds its tree from the graph of nearest neighbours, so rows at the border of the noise may differ"
TOLERANCES: Mapping[str, Tolerance] = {
    "labels": Tolerance(
        0.999,
        LABELS,
        "the groups are clear; rows on a border may differ, because fits from different starts differ slightly",
    ),
    "n_clusters": Tolerance(0.0, ABSOLUTE, "the groups are clear"),
    "inertia": Tolerance(1e-4, RELATIVE, _STOP),
    "log_likelihood": Tolerance(1e-4, RELATIVE, _STOP),
    "bic": Tolerance(1e-4, RELATIVE, _STOP),
    "silhouette": Tolerance(1e-3, ABSOLUTE, _FOLLOWS),
    "calinski_harabasz": Tolerance(1e-3, RELATIVE, _FOLLOWS),
    "davies_bouldin": Tolerance(1e-3, RELATIVE, _FOLLOWS),
    "explained_variance": Tolerance(1e-6, ABSOLUTE, "a sum of eigenvalues in float64, computed by two libraries"),
}
HDBSCAN_TOLERANCES: Mapping[str, Tolerance] = {
    "labels": Tolerance(0.95, LABELS, _TREE),
    "silhouette": Tolerance(0.02, ABSOLUTE, _TREE),
    "calinski_harabasz": Tolerance(0.05, RELATIVE, _TREE),
    "davies_bouldin": Tolerance(0.05, RELATIVE, _TREE),
    "relative_validity": Tolerance(0.05, ABSOLUTE, _TREE),
}


@dataclass(frozen=True)
class CaseResult:
    """What a job found: ``labels`` (n_rows,) int32 and its metrics; ``repeats``: a second run gave the same labels. ``error`` says why it
    failed, instead."""

    labels: np.ndarray
    metrics: Mapping[str, float]
    repeats: bool = True
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        packed = base64.b64encode(zlib.compress(self.labels.astype("<i2").tobytes())).decode()
        return {"labels": packed, "metrics": dict(self.metrics), "repeats": self.repeats, "error": self.error}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> CaseResult:
        """The result that `to_dict` described. Raises ValueError, KeyError or TypeError for anything else."""
        raw = zlib.decompressobj().decompress(base64.b64decode(found["labels"]), 2 * N_ROWS)
        metrics = {str(name): float(value) for name, value in found["metrics"].items()}
        return cls(np.frombuffer(raw, "<i2").astype(np.int32), metrics, bool(found["repeats"]), str(found["error"]))


@dataclass(frozen=True)
class BackendResult:
    """The results of one backend of one machine, by the name of the case."""

    backend: str
    device: str
    host: str
    cases: Mapping[str, CaseResult]

    @property
    def name(self) -> str:
        """The backend and its device: ``gpu (NVIDIA H100 ...)``."""
        return f"{self.backend} ({self.device})"


@dataclass(frozen=True)
class Figure:
    """A figure of a case on two backends, or of two runs on one, and whether it agrees."""

    case: str
    figure: str
    ours: float
    theirs: float
    tolerance: Tolerance

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.tolerance.allows(self.ours, self.theirs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        limit = {"tolerance": str(self.tolerance), "reason": self.tolerance.reason, "agrees": self.agrees}
        values = {"ari": self.ours} if self.tolerance.kind == LABELS else {"first": self.ours, "second": self.theirs}
        return {"case": self.case, "figure": self.figure, **values, **limit}


def cases() -> dict[str, Config]:
    """Name -> a job: each algorithm that has a fit for both kinds of backend, with each of its engines, all but the last without a
    reduction."""
    found: dict[str, Config] = {}
    for name, algorithm in algorithms().items():
        if not {"cpu", "gpu"} <= algorithm.fit.keys():
            continue
        plain: ClusterConfig = algorithm.config(**SETTINGS.get(name, {}))
        engine = next((f for f in fields(plain) if f.name == "engine"), None)
        engines = engine.metadata["constraint"].words if engine else ("",)
        for word in engines:
            request = replace(plain, engine=word) if word else plain  # type: ignore[call-arg]
            found[f"{name} engine={word}" if word else name] = Config(cluster=request)
    found["kmeans after PCA"] = Config(
        cluster=algorithms()["kmeans"].config(**SETTINGS["kmeans"]), reduce=ReduceConfig(method="pca", n_components=4)
    )
    return found


def table() -> str:
    """The rows that all machines cluster, as CSV text: five groups of different spreads, with four decimals, from NumPy's legacy generator."""
    draw = np.random.RandomState(0)  # its numbers are the same in every version
    centers = draw.uniform(-8, 8, size=(N_GROUPS, N_FEATURES))
    spread = np.linspace(1.2, 2.2, N_GROUPS)[:, None]
    group = np.arange(N_ROWS) % N_GROUPS
    X = centers[group] + spread[group] * draw.normal(size=(N_ROWS, N_FEATURES))
    lines = (",".join(f"{value:.4f}" for value in row) for row in X.tolist())
    header = ",".join(f"x{j}" for j in range(N_FEATURES))
    return "\n".join([f"id,{header}", *(f"{i},{line}" for i, line in enumerate(lines)), ""])


class _Quiet:
    """A display that shows nothing."""

    def stage(self, text: str, done: float = 0.0) -> None:
        """Nothing."""

    def finished(self, outcome: Outcome) -> None:
        """Nothing."""


def run_backend(backend: Backend, report: Callable[[str], None] = lambda text: None) -> BackendResult:
    """Run every case twice on a backend. A case that fails has its error; raises DeviceLost where no further one can run."""
    results: dict[str, CaseResult] = {}
    with TemporaryDirectory(prefix="gpuclust-parity-") as folder:
        path = Path(folder) / "parity.csv"
        path.write_text(table(), encoding="utf-8")
        data = DataConfig(path=str(path), features=[f"x{j}" for j in range(N_FEATURES)])
        for name, config in cases().items():
            report(f"{backend.name}: {name}")
            results[name] = _run_case(name, replace(config, data=data), backend)
    return BackendResult(backend.name, backend.device, platform.node(), results)


def _run_case(name: str, config: Config, backend: Backend) -> CaseResult:
    found = []
    for _ in range(2):
        context = RunContext(
            backend, BackendChoice(backend.name, "gpuclust doctor"), ResultCache(), MemoryRecorder(), _Quiet()
        )
        try:
            (result,) = compute([make_job(config, name, {}, backend.name)], context)
        except DeviceLost:
            raise
        except GpuclustError as error:
            result = error
        if not isinstance(result, Result):
            return CaseResult(np.empty(0, np.int32), {}, error=str(result))
        found.append(result)
    metrics = found[0].metrics
    wanted = {*TOLERANCES, *HDBSCAN_TOLERANCES} & metrics.keys()
    if config.reduce.method == "none":
        wanted.discard("explained_variance")
    labels = found[0].clustering.labels
    repeats = bool(np.array_equal(labels, found[1].clustering.labels))
    return CaseResult(labels, {metric: float(metrics[metric]) for metric in sorted(wanted)}, repeats)


def compare(ours: BackendResult, theirs: BackendResult) -> Iterator[Figure]:
    """The figures of the cases that both backends finished."""
    for name in (name for name in ours.cases if name in theirs.cases):
        a, b = ours.cases[name], theirs.cases[name]
        if a.error or b.error:
            continue
        limits = {**TOLERANCES, **HDBSCAN_TOLERANCES} if name.startswith("hdbscan") else TOLERANCES
        ari = float(agreement(contingency(a.labels, b.labels).table).ari)
        yield Figure(name, "labels", ari, 1.0, limits["labels"])
        for metric in (metric for metric in limits if metric in a.metrics and metric in b.metrics):
            yield Figure(name, metric, a.metrics[metric], b.metrics[metric], limits[metric])


@dataclass(frozen=True)
class ParityCard:
    """The results of the backends here, then those of a file; all are compared with the first. ``missing`` says why there is no GPU."""

    here: Sequence[BackendResult]
    others: Sequence[BackendResult] = ()
    missing: str | None = None

    @property
    def pairs(self) -> list[tuple[BackendResult, BackendResult, list[Figure]]]:
        """Each comparison: both backends, and the figures."""
        first, *rest = [*self.here, *self.others]
        return [(first, other, list(compare(first, other))) for other in rest]

    @property
    def failures(self) -> list[str]:
        """What is wrong, a line each: cases that failed or did not repeat here, and figures out of tolerance."""
        lines = []
        for one in self.here:
            for name, case in one.cases.items():
                if case.error:
                    lines.append(f"{name} failed on the {one.backend}: {case.error}")
                elif not case.repeats:
                    lines.append(f"{name} gave different labels in a second run on the {one.backend}")
        for first, other, figures in self.pairs:
            lines += [
                f"{f.case}: {f.figure} of {first.backend} and {other.backend} is out of its tolerance"
                for f in figures
                if not f.agrees
            ]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The comparisons as plain values, ready for JSON."""
        return {
            "no_gpu": self.missing,
            "compared": [
                {
                    "first": first.name,
                    "second": other.name,
                    "host": other.host,
                    "figures": [f.to_dict() for f in figures],
                }
                for first, other, figures in self.pairs
            ],
            "failures": self.failures,
        }

    def lines(self) -> Iterator[str]:
        """The card as text."""
        for one in self.here:
            yield f"{one.backend:<4} {one.device}"
        if self.missing is not None:
            yield f"gpu  not used: {self.missing}"
        for one in self.here:
            yield f"\n{one.backend}: each job twice"
            for name, case in one.cases.items():
                found = case.error or ("the same labels" if case.repeats else "OTHER LABELS")
                values = "" if self.pairs else " ".join(f"{m}={v:.6g}" for m, v in case.metrics.items())
                yield f"  {name:<22} {found}  {values}".rstrip()
        for first, other, figures in self.pairs:
            yield f"\n{first.name} and {other.name} on {other.host}"
            for f in figures:
                values = f"ARI {f.ours:.6f}" if f.tolerance.kind == LABELS else f"{f.ours:.8g} {f.theirs:.8g}"
                yield f"  {'ok ' if f.agrees else 'OUT'} {f.case:<22} {f.figure:<19} {values:<28} {f.tolerance}"
        if self.pairs:
            yield "\nwhy these tolerances:"
            reasons: dict[str, dict[str, None]] = {}
            for f in (f for _, _, figures in self.pairs for f in figures):
                of_hdbscan = f.tolerance in HDBSCAN_TOLERANCES.values()
                reasons.setdefault(f.tolerance.reason, {})[f"{f.figure} of hdbscan" if of_hdbscan else f.figure] = None
            for reason, names in reasons.items():
                yield f"  {', '.join(names)}: {reason}"
        if not self.pairs:
            yield (
                "\nnothing to compare with: `gpuclust doctor --parity --save FILE` here and `--parity --with FILE` on a machine with a GPU "
                "compare the two"
            )
        yield from (f"\n{line}" for line in self.failures)
        if self.pairs and not self.failures:
            yield "\nevery value is within its tolerance"


def parity(others: Path | None = None, report: Callable[[str], None] = lambda text: None) -> ParityCard:
    """Run the cases on the backends of this machine; compare them with one another, and with a file that `save` wrote.

    Raises DataError for a file that `save` did not write, or that has results of other rows.
    """
    saved = load(others) if others is not None else []
    missing = probe_gpu()
    backends = ["cpu"] if missing is not None else ["cpu", "gpu"]
    return ParityCard([run_backend(create_backend(name), report) for name in backends], saved, missing)


def _digest() -> str:
    return hashlib.sha256(table().encode()).hexdigest()[:16]


def save(card: ParityCard, path: Path) -> None:
    """Write the results of the backends of this machine as JSON."""
    backends = [
        {
            "backend": one.backend,
            "device": one.device,
            "host": one.host,
            "cases": {name: case.to_dict() for name, case in one.cases.items()},
        }
        for one in card.here
    ]
    content = {
        "format": FORMAT,
        "gpuclust": __version__,
        "table": _digest(),
        "versions": versions(),
        "backends": backends,
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def load(path: Path) -> list[BackendResult]:
    """The results in a file that `save` wrote. Raises DataError where it is damaged, or is of other rows."""
    again = "write it again with gpuclust doctor --parity --save"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ValueError("it is too large")
        found = json.loads(raw)
        if found["format"] != FORMAT or found["table"] != _digest():
            raise DataError(f"{path} has results of other rows than this version of gpuclust clusters; {again}")
        results = [
            BackendResult(
                str(one["backend"]),
                str(one["device"]),
                str(one["host"]),
                {str(name): CaseResult.from_dict(case) for name, case in one["cases"].items()},
            )
            for one in found["backends"]
        ]
        if any(len(case.labels) != (0 if case.error else N_ROWS) for one in results for case in one.cases.values()):
            raise ValueError("labels of another number of rows")
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise DataError(
            f"{path} holds no results of gpuclust doctor --parity ({message_of(error)}); {again}"
        ) from error
    return results
