"""Log the comparison of new rows with the training rows of a model as a run of kind ``drift``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from gpuclust import __version__
from gpuclust.config import DataConfig
from gpuclust.data.source import fingerprint
from gpuclust.model.novelty import Novelty
from gpuclust.model.records import NOISE
from gpuclust.pipeline.context import data_name
from gpuclust.predict import Scored
from gpuclust.runtime.cache import key
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FINISHED, DatasetInput, Recorder, RunStart

DRIFT_FILE = "drift.json"


def log_drift(scored: Scored, rows: str, *, recorder: Recorder) -> str:
    """Record a run of kind ``drift`` with the indices and shares as metrics, and the report of `gpuclust.predict.predict` as ``drift.json``; its id.

    ``rows`` are those that were given to `predict`: a path or a query. Runs of one experiment are points in time: MLflow charts their metrics.
    """
    document, model = scored.document, str(scored.document["model"])
    data = DataConfig().at(rows)
    content = fingerprint(data)
    limits = {name: document[name] for name in ("max_outside", "max_psi") if document[name] is not None}
    start = RunStart(
        name=f"drift {data_name(data)}",
        tags={
            tags.KIND: "drift",
            tags.KEY: key("drift", model, content, time.time_ns()),
            tags.FINGERPRINT: content,
            tags.VERSION: __version__,
        },
        params={"model": model, "rows": document["rows_of"], **limits},
    )
    run_id = recorder.start_job(start, None)
    recorder.log_points(run_id, {0: metrics_of(scored.novelty)})
    features = tuple(scored.novelty.drift.features)
    recorder.log(
        run_id, dataset=DatasetInput(data_name(data), content, str(document["rows_of"]), scored.n_rows, features)
    )
    with TemporaryDirectory() as folder:
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (Path(folder) / DRIFT_FILE).write_text(f"{text}\n", encoding="utf-8")
        recorder.log_files(run_id, Path(folder))
    recorder.end(run_id, FINISHED)
    return run_id


def metrics_of(novelty: Novelty) -> dict[str, float]:
    """The comparison as metrics: ``psi/FEATURE``, ``psi_clusters``, ``outside/FEATURE``, ``share/CLUSTER`` and others."""
    found = {"n_rows": float(novelty.n_rows), "n_unplaced": float(novelty.n_unplaced), **novelty.drift.metrics()}
    if novelty.rows_outside is not None:
        found["rows_outside"] = novelty.rows_outside
    found |= {f"outside/{f.feature}": f.outside for f in novelty.features}
    found |= {f"share/{'noise' if c.cluster == NOISE else c.cluster}": c.share for c in novelty.clusters}
    for name in ("distance", "confidence"):
        if (quantiles := getattr(novelty, name)) is not None:
            found[f"median_{name}"] = quantiles.q50
    return found
