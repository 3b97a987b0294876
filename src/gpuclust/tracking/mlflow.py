"""`MlflowRecorder`: records runs in MLflow. Only this file and `pyfunc.py` use MLflow's client."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import mlflow
import psutil
from mlflow.entities import (
    Dataset,
    Experiment,
    InputTag,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.entities import DatasetInput as MlflowDatasetInput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

from gpuclust.errors import StoreUnavailable, TrackingError
from gpuclust.model.files import ARRAYS, MODEL
from gpuclust.model.vectors import listed
from gpuclust.sanitize import mask, without_credentials
from gpuclust.tracking.carried import requirements, write_code
from gpuclust.tracking.claims import LEASE, TICKET, Leases, is_abandoned, is_live, is_mine, owner
from gpuclust.tracking.current import current_store
from gpuclust.tracking.opening import complete_store, has_store_lock, store_lock
from gpuclust.tracking.recorder import (
    FAILED,
    FINISHED,
    KEY,
    KILLED,
    KIND,
    MODEL_ADDRESS,
    REGISTERED,
    RUNNING,
    Claim,
    DatasetInput,
    RecordedJob,
    Recorder,
    RunStart,
)
from gpuclust.tracking.registry import Registry
from gpuclust.tracking.store_location import (
    SHARED_VIEWS,
    VIEW_DIGESTS,
    configure_client,
    location,
    one_line_errors,
    pages,
    resolve_uri,
    shown,
    silence_logger,
    store_file,
    view_digest,
    view_tags,
)

logger = logging.getLogger(__name__)

PARENT_RUN = "mlflow.parentRunId"
MAX_PARAM_LENGTH, MAX_NAME_LENGTH = 6_000, 250
PAGE = 1_000
MAX_BATCH = 1_000  # metrics in a request, MLflow's limit
# The folder of the bundle in a logged model: now, and in version 0.1.0.
BUNDLES = ("data/bundle", "artifacts/bundle")
# There is no lock over HTTP: a claim waits this long for simultaneous claims to take a ticket.
QUEUE_SECONDS = 15.0

T = TypeVar("T")


def _print_message(text: str) -> None:
    print(text, file=sys.stderr)


class MlflowRecorder(Recorder):
    """Records runs in one MLflow experiment.

    The store and the experiment are created once, under a lock, because MLflow's migration fails if several processes run
    it. Raises TrackingError if the store cannot be reached, read or written.
    """

    def __init__(
        self,
        uri: str | None = None,
        experiment: str = "gpuclust",
        *,
        create: bool = True,
        report: Callable[[str], None] = _print_message,
        retry_seconds: float = 120.0,
    ) -> None:
        configure_client()
        self.uri, self.artifacts = resolve_uri(uri)
        self.experiment = experiment
        self._report, self._retry_seconds = report, retry_seconds
        self._leases = Leases(lambda run_id, until: self.client.set_tag(run_id, LEASE, until))
        with one_line_errors(self.uri), complete_store(self.uri, self.artifacts, create, report):
            self.client = MlflowClient(self.uri)
            self.experiment_id = self._experiment_id(create)

    def _experiment_id(self, create: bool) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None and create:
            try:
                artifacts = self._local_artifacts()
                return str(self.client.create_experiment(self.experiment, artifacts, tags=view_tags()))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                    raise
                found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            raise TrackingError(f"there is no experiment {self.experiment} in {shown(self.uri)}; run a job first")
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"the experiment {self.experiment} was deleted; restore it or name another tracking.experiment"
            )
        if create:
            self._share_view(found)
        return str(found.experiment_id)

    def share_view(self) -> None:
        """Keep the views of the runs and of the charts with the experiment, if the store can be written."""
        with suppress(TrackingError), one_line_errors(self.uri):
            self._share_view(self.client.get_experiment(self.experiment_id))

    def _share_view(self, experiment: Experiment) -> None:
        """Write the views that are missing or unchanged since an earlier version wrote them; a view that a person changed is kept."""
        written = experiment.tags.get(VIEW_DIGESTS, "").split()
        found = {tag: experiment.tags.get(tag) for tag in SHARED_VIEWS}
        ours = {tag for tag, view in found.items() if view is None or view_digest(view) in written}
        due = {tag: view for tag, view in SHARED_VIEWS.items() if tag in ours and found[tag] != view}
        if due:  # the digests first, and the old ones too: a process that is killed in between leaves only views that are known
            digests = dict.fromkeys([*written, *map(view_digest, SHARED_VIEWS.values())])
            due = {VIEW_DIGESTS: " ".join(digests), **due}
        for tag, view in due.items():
            self.client.set_experiment_tag(experiment.experiment_id, tag, view)

    def _local_artifacts(self) -> str | None:
        """The artifact folder of the experiment in a local store; None for other stores."""
        path = store_file(self.uri)
        return location(path.parent / "artifacts" / self.experiment) if path is not None else None

    def _current(self) -> AbstractContextManager[None]:
        """MLflow's functions use this store and this experiment."""
        return current_store(self.uri, self.experiment_id)

    def _do(self, work: Callable[[], T]) -> T:
        """Run an operation on the store, with retries while the store does not respond. The operation must be repeatable."""
        deadline, pause = time.monotonic() + self._retry_seconds, 1.0
        while True:
            try:
                with one_line_errors(self.uri):
                    return work()
            except StoreUnavailable as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                if pause == 1.0:
                    self._report(f"{str(error).partition(';')[0]}; trying again for {left:.0f} s")
                time.sleep(min(pause, left))
                pause = min(2 * pause, 15.0)

    def finished_jobs(self) -> dict[str, RecordedJob]:
        found: dict[str, RecordedJob] = {}
        for job in self.jobs():
            if KEY in job.tags:
                found.setdefault(job.tags[KEY], job)
        return found

    def jobs(self) -> Iterator[RecordedJob]:
        """The finished jobs of the experiment, the latest first."""
        query = f"tags.`{KIND}` = 'job' AND attributes.status = 'FINISHED'"
        return (to_recorded_job(run) for run in self.search(query, ["attributes.start_time DESC"]))

    def children(self, parent: str) -> list[RecordedJob]:
        return [to_recorded_job(run) for run in self.search(f"tags.`{PARENT_RUN}` = '{parent}'")]

    def sweeps(self) -> Iterator[RecordedJob]:
        """The sweeps of the experiment with any status, the one that ended last first."""
        return (to_recorded_job(run) for run in self.search(f"tags.`{KIND}` = 'sweep'", ["attributes.end_time DESC"]))

    def job(self, run_id: str) -> RecordedJob | None:
        """The run with an id, of any kind and status; None if it does not exist."""
        with one_line_errors(self.uri):
            try:
                return to_recorded_job(self.client.get_run(run_id))
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return None

    @contextmanager
    def download(self, run_id: str, path: str) -> Iterator[Path]:
        """Download an artifact of a run to a temporary file, which exists within the context."""
        with TemporaryDirectory() as folder:
            with one_line_errors(self.uri):
                found = Path(self.client.download_artifacts(run_id, path, folder))
            yield found

    @contextmanager
    def download_model(self, run_id: str) -> Iterator[Path | None]:
        """Download the bundle of a run's model to a temporary folder; None if the run has no complete model."""
        complete = self._models(run_id, complete=True)
        if not complete:
            yield None
            return
        with TemporaryDirectory() as folder:
            with one_line_errors(self.uri), silence_logger("mlflow"), self._current():
                found = mlflow.artifacts.download_artifacts(f"models:/{complete[-1]}", dst_path=folder)
            yield next(f for f in (Path(found) / folder for folder in BUNDLES) if f.is_dir())

    def curves_of(self, sweep: RecordedJob) -> dict[str, dict[str, float]]:
        with one_line_errors(self.uri):
            return {
                name.removeprefix("curve/"): {
                    str(m.step): m.value for m in self.client.get_metric_history(sweep.run_id, name)
                }
                for name in sweep.metrics
                if name.startswith("curve/")
            }

    def search(self, query: str, order_by: list[str] | None = None) -> Iterator[Run]:
        """All runs of the experiment that match an MLflow search."""
        token: str | None = None
        while True:
            found = self._do(partial(self._page, query, order_by, token))
            yield from found
            token = found.token
            if not token:
                return

    def _page(self, query: str, order_by: list[str] | None, token: str | None) -> Any:
        ids = [self.experiment_id]
        return self.client.search_runs(ids, query, ViewType.ACTIVE_ONLY, PAGE, order_by, page_token=token)

    def close_stale(self) -> int:
        stale = [run for run in self.search("attributes.status = 'RUNNING'") if is_abandoned(run.data.tags)]
        for run in stale:
            self.end(run.info.run_id, KILLED)
        return len(stale)

    def claim_sweep(self, start: RunStart, since: int, *, again: bool = False) -> Claim:
        """Over HTTP, two processes may reopen a sweep at the same moment."""
        with self._locked():
            for run in self._same(start, "sweep"):
                status, tags = run.info.status, run.data.tags
                if status == FINISHED and not again:
                    return Claim(run=to_recorded_job(run))
                if status == RUNNING and is_live(tags) and run.info.run_id not in self._leases:
                    return Claim(run=to_recorded_job(run))
                if status == FAILED and _ended_after(run, since) and not is_mine(tags):
                    return Claim(run=to_recorded_job(run))
                self._do(partial(self.client.update_run, run.info.run_id, status=RUNNING))
                self.log(run.info.run_id, tags={**start.tags, **owner()})
                self._leases.add(run.info.run_id)
                return Claim(run.info.run_id)
            return self._queued(self.start_job(start, None), start)

    def claim(self, start: RunStart, parent: str | None, since: int) -> Claim:
        with self._locked():
            taken = self.taken(start, since)
            return Claim(run=taken) if taken else self._queued(self.start_job(start, parent), start)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            self._do(lambda: stack.enter_context(store_lock(self.uri)))
            yield

    def _same(self, start: RunStart, kind: str) -> list[Run]:
        query = f"tags.`{KEY}` = '{start.tags[KEY]}' AND tags.`{KIND}` = '{kind}'"
        return list(self.search(query, ["attributes.start_time DESC"]))

    def taken(self, start: RunStart, since: int) -> RecordedJob | None:
        runs = self._same(start, "job")
        finished = [run for run in runs if run.info.status == FINISHED]
        live = [run for run in runs if run.info.status == RUNNING and is_live(run.data.tags)]
        failed = [
            run for run in runs if run.info.status == FAILED and _ended_after(run, since) and not is_mine(run.data.tags)
        ]
        return next((to_recorded_job(run) for run in (*finished, *live, *failed)), None)

    def _queued(self, run_id: str, start: RunStart) -> Claim:
        """Claim a run that was just started; one of several simultaneous runs wins.

        Over HTTP there is no lock. Lamport's bakery algorithm (1974) is used: each run takes a ticket larger than all tickets
        that it sees, waits until all other runs have one, and the smallest ticket wins.
        """
        if has_store_lock(self.uri):
            return Claim(run_id)
        kind, ended = start.tags[KIND], False
        ticket = 1 + max((_ticket(run) for run in self._rivals(run_id, start, kind)), default=0)
        self.log(run_id, tags={TICKET: str(ticket)})
        deadline = time.monotonic() + QUEUE_SECONDS
        while True:
            rivals = self._rivals(run_id, start, kind)
            ended = any(run.info.status == FINISHED for run in rivals)
            if ended or all(_ticket(run) for run in rivals) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        places = [(_ticket(run), run.info.run_id) for run in rivals if _ticket(run)]
        if not ended and all((ticket, run_id) < place for place in places):
            return Claim(run_id)
        self.end(run_id, KILLED)
        self._do(partial(self.client.delete_run, run_id))
        return Claim()

    def _rivals(self, run_id: str, start: RunStart, kind: str) -> list[Run]:
        def counts(run: Run) -> bool:
            return run.info.status == FINISHED or (run.info.status == RUNNING and is_live(run.data.tags))

        return [run for run in self._same(start, kind) if run.info.run_id != run_id and counts(run)]

    def start_job(self, start: RunStart, parent: str | None) -> str:
        tags = {
            **mask(start.tags),
            **owner(),
            "mlflow.source.name": "gpuclust",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
        }
        if parent is not None:
            tags[PARENT_RUN] = parent
        params = _params(start.params)
        tried = False

        def create() -> str:
            nonlocal tried
            if tried:  # the response may have been lost, not the request
                for run in self._same(start, start.tags[KIND]):
                    known = run.info.run_id in self._leases
                    if run.info.status == RUNNING and is_mine(run.data.tags) and not known:
                        return self._leases.add(str(run.info.run_id))
            tried = True
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=mask(start.name))
            return self._leases.add(str(run.info.run_id))

        run_id = self._do(create)
        for at in range(0, len(params), 100):
            self._do(partial(self.client.log_batch, run_id, params=params[at : at + 100]))
        return run_id

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        dataset: DatasetInput | None = None,
    ) -> None:
        now = int(time.time() * 1000)
        points = [Metric(_name(k), float(v), now, 0) for k, v in (metrics or {}).items()]
        texts = [RunTag(k, str(v)) for k, v in mask(tags or {}).items()]
        listed = _params(params or {})
        self._do(lambda: self.client.log_batch(run_id, metrics=points, params=listed, tags=texts))
        if dataset is not None:
            inputs = [_dataset(dataset)]
            self._do(lambda: self.client.log_inputs(run_id, inputs))

    def log_points(self, run_id: str, points: Mapping[int, Mapping[str, float]]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(_name(m), float(v), now, step) for step, values in points.items() for m, v in values.items()]
        for at in range(0, len(metrics), MAX_BATCH):
            self._do(partial(self.client.log_batch, run_id, metrics=metrics[at : at + MAX_BATCH]))

    def missing_points(self, run_id: str, points: Mapping[int, Mapping[str, float]]) -> dict[int, dict[str, float]]:
        run = self.job(run_id)
        known = {_name(name) for values in points.values() for name in values} & (run.metrics.keys() if run else set())
        steps = {
            name: {point.step for point in self._do(partial(self.client.get_metric_history, run_id, name))}
            for name in known
        }
        return {
            step: {name: value for name, value in values.items() if step not in steps.get(_name(name), ())}
            for step, values in points.items()
        }

    def log_files(self, run_id: str, folder: Path) -> None:
        self._do(lambda: self.client.log_artifacts(run_id, str(folder)))

    def log_model(self, run_id: str, bundle: Path, features: tuple[str, ...], name: str = "model") -> None:
        """MLflow allows no ``/ : . % " '`` in the name, which become ``_``.

        The model carries its code, and its requirements are given: MLflow takes 3 s to infer them.

        It has no input schema: MLflow would refuse integers for a column of doubles, arrays for named columns, and CSV
        for columns of any type, before the model could convert them. The names are in the model's metadata.
        """
        outputs = Schema([ColSpec("long", "cluster"), ColSpec("double", "confidence"), ColSpec("double", "distance")])
        self._delete_models(run_id)
        with (
            one_line_errors(self.uri),
            silence_logger("mlflow"),
            self._current(),
            warnings.catch_warnings(),
            TemporaryDirectory() as code,
        ):
            warnings.simplefilter("ignore", UserWarning)  # it advises an input example
            package = write_code(Path(code))
            logged = Model.log(
                artifact_path=None,
                name=re.sub(r"[/:.%\"']", "_", name),
                flavor=mlflow.pyfunc,
                run_id=run_id,
                loader_module=f"{package}.pyfunc",
                code_paths=[str(Path(code) / package)],
                data_path=str(bundle),
                signature=ModelSignature(outputs=outputs, params=ParamSchema([ParamSpec("memberships", "long", 0)])),
                metadata={"features": list(features)},
                pip_requirements=requirements(bundle),
            )
        address = f"models:/{logged.model_id}"
        with TemporaryDirectory() as folder, silence_logger("mlflow"), self._current():
            # MLflow finds runs:/RUN_ID/model by the model's name, which is the run's: this copy keeps that address.
            copy = self._do(lambda: mlflow.artifacts.download_artifacts(address, dst_path=folder))
            self._do(lambda: self.client.log_artifacts(run_id, copy, "model"))
        self.log(run_id, tags={MODEL_ADDRESS: address})

    def has_model(self, run_id: str) -> bool:
        run = self.job(run_id)
        model_id = run.tags.get(MODEL_ADDRESS, "").removeprefix("models:/") if run is not None else ""
        return bool(model_id) and model_id in self._models(run_id, complete=True)

    def register(self, run_id: str, name: str) -> str:
        run = self.job(run_id)
        source = run.tags.get(MODEL_ADDRESS) if run is not None else None
        if source is None:
            raise TrackingError(f"run {run_id} keeps no model to register; run it again with tracking.models=chosen")
        version = self._do(lambda: Registry(self.client, self.uri).register(name, run_id, source))
        self.log(run_id, tags={REGISTERED: version.address})
        return version.address

    def _models(self, run_id: str, *, complete: bool) -> list[str]:
        """The ids of the complete (or incomplete) models of a run, the latest last.

        A process that is killed while logging a model leaves a model that is not READY or lacks files.
        """

        def find() -> list[str]:
            experiment = self.client.get_run(run_id).info.experiment_id  # a registered model may be of another one
            found = self.client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
            models = sorted(found, key=lambda model: int(model.creation_timestamp))
            return [str(model.model_id) for model in models if self._is_complete(model) is complete]

        return self._do(find)

    def _is_complete(self, model: LoggedModel) -> bool:
        if model.status != LoggedModelStatus.READY:
            return False
        listed = (self.client.list_logged_model_artifacts(model.model_id, folder) for folder in BUNDLES)
        return any({MODEL, ARRAYS} <= {PurePosixPath(file.path).name for file in files} for files in listed)

    def _delete_models(self, run_id: str) -> None:
        for model_id in (*self._models(run_id, complete=False), *self._models(run_id, complete=True)):
            self._do(partial(self.client.delete_logged_model, model_id))

    def end(self, run_id: str, status: str) -> None:
        self._do(lambda: self.client.set_terminated(run_id, status))
        self._leases.drop(run_id)

    def abandon(self, status: str) -> None:
        retry_seconds, self._retry_seconds = self._retry_seconds, 0.0
        try:
            for run_id in self._leases:
                self.end(run_id, status)
        except TrackingError:  # the next process on this host closes them
            return
        finally:
            self._retry_seconds = retry_seconds

    @contextmanager
    def watch(self, run_id: str) -> Iterator[None]:
        """Samples every second; a failure of the monitor does not affect the run."""
        with silence_logger("mlflow"):
            monitor = SystemMetricsMonitor(run_id, sampling_interval=1, tracking_uri=self.uri, resume_logging=True)
            monitor.start()
        try:
            yield
        finally:
            with silence_logger("mlflow"), suppress(Exception):
                monitor.finish()

    def links(self, run_id: str | None = None, *, sweeps: bool = True) -> dict[str, str]:
        """On a tracking server, without credentials; none for a local store, which `gpuclust ui` opens."""
        if not self.uri.startswith("http"):
            return {}
        return pages(without_credentials(self.uri), self.experiment_id, run_id, sweeps=sweeps)


def to_recorded_job(run: Run) -> RecordedJob:
    """Convert an MLflow run to a RecordedJob."""
    return RecordedJob(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        parent=run.data.tags.get(PARENT_RUN),
        started=int(run.info.start_time or 0),
    )


def _dataset(dataset: DatasetInput) -> MlflowDatasetInput:
    columns = [{"type": "double", "name": name, "required": True} for name in listed(dataset.features)]
    entity = Dataset(
        name=dataset.name,
        digest=dataset.fingerprint[:36],
        source_type="local" if "://" not in dataset.source else "external",
        source=json.dumps({"uri": dataset.source}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": dataset.n_rows, "fingerprint": dataset.fingerprint}),
    )
    return MlflowDatasetInput(entity, [InputTag("mlflow.data.context", "clustering")])


def _ended_after(run: Run, since: int) -> bool:
    return int(run.info.end_time or 0) >= since


def _ticket(run: Run) -> int:
    """The ticket of a run; 0 if it has none yet."""
    text = run.data.tags.get(TICKET, "0")
    return int(text) if text.isdigit() else 0


def _user() -> str:
    try:
        return psutil.Process().username()
    except (psutil.Error, KeyError):
        return "unknown"


def _params(params: Mapping[str, Any]) -> list[Param]:
    return [Param(_name(k), str(v)[:MAX_PARAM_LENGTH]) for k, v in mask(params).items()]


def _name(text: str) -> str:
    """A text as MLflow allows it as a name: without characters such as ``=``, ``[`` and ``@``, as a path without empty parts (a line
    of a curve may have an address), and with a digest where it is too long."""
    plain = "".join(c if c.isalnum() or c in "_-. /" else "_" for c in text)
    name = "/".join(part for part in plain.split("/") if part.strip("."))
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_LENGTH - len(digest) - 1]}_{digest}"


__all__ = ["MlflowRecorder", "pages", "resolve_uri", "to_recorded_job"]
