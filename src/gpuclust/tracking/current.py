"""The store and the experiment that MLflow's functions of a process use, for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service


@contextmanager
def current_store(uri: str, experiment_id: str | None = None) -> Iterator[None]:
    """MLflow's functions for models use the store and the experiment of the process; afterwards those of the calling program are
    restored.

    Without an active experiment MLflow keeps a model in "Default", even if its run is in another experiment. MLflow also sets
    environment variables, which the program and its children would see.
    """
    environment = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")}
    before, experiment = tracking_service._tracking_uri, fluent._active_experiment_id
    mlflow.set_tracking_uri(uri)
    if experiment_id is not None:
        fluent._active_experiment_id = experiment_id  # type: ignore[assignment]
    try:
        yield
    finally:
        fluent._active_experiment_id = experiment
        if tracking_service._tracking_uri != before:
            tracking_service.set_tracking_uri(before)
        for name, value in environment.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
