"""The MLflow recorder against a real store: what is written, resumed, closed, and how trouble is told."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from gpuclust.errors import TrackingError
from gpuclust.tracking.claims import HOST, PROCESS
from gpuclust.tracking.mlflow import PARENT_RUN, MlflowRecorder
from gpuclust.tracking.recorder import FINISHED, KEY, KILLED, KIND, DatasetInput, RunStart
from gpuclust.tracking.store_location import (
    SHARED_VIEWS,
    VIEW_DIGESTS,
    DeferredInterrupts,
    pages,
    resolve_uri,
    view_digest,
)


@pytest.fixture
def recorder(uri: str) -> MlflowRecorder:
    return MlflowRecorder(uri, "e")


def new_sweep(recorder: MlflowRecorder, key: str = "s") -> str:
    run_id = recorder.claim_sweep(start("sweep", key), 0).run_id
    assert run_id is not None
    return run_id


def start(kind: str, key: str, **params: object) -> RunStart:
    return RunStart(f"{kind} {key}", {KIND: kind, KEY: key}, params)


def test_a_job_is_a_child_with_params_metrics_tags_files_and_its_table(
    recorder: MlflowRecorder, tmp_path: Path
) -> None:
    parent = new_sweep(recorder)
    run_id = recorder.start_job(start("job", "j", **{f"group.key_{i}": i for i in range(150)}), parent)
    dataset = DatasetInput("tracks.csv", "0" * 64, "/data/tracks.csv", 10, ("a", "b"))
    recorder.log(run_id, metrics={"silhouette": 0.25, "odd=name[1]": 1.0}, tags={"t": "v"}, dataset=dataset)
    recorder.log_points(parent, {5: {"curve/silhouette": 0.25}})
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"png")
    recorder.log_files(run_id, tmp_path / "figures")
    recorder.end(run_id, FINISHED)
    run = recorder.client.get_run(run_id)
    assert run.data.tags[PARENT_RUN] == parent
    assert len(run.data.params) == 150
    assert run.data.metrics == {"silhouette": 0.25, "odd_name_1_": 1.0}
    assert run.info.run_name == "job j"
    assert run.inputs.dataset_inputs[0].dataset.name == "tracks.csv"
    assert [f.path for f in recorder.client.list_artifacts(run_id)] == ["a.png"]
    (point,) = recorder.client.get_metric_history(parent, "curve/silhouette")
    assert (point.step, point.value) == (5, 0.25)
    assert recorder.finished_jobs()["j"].metrics["silhouette"] == 0.25


def test_lines_of_curves_may_be_addresses_and_long(recorder: MlflowRecorder) -> None:
    parent = new_sweep(recorder)
    lines = ["path=https://example.org//a.csv", "path=../b.csv", *(f"where={'x' * 300}{end}" for end in "ab")]
    recorder.log_points(parent, {2: {f"curve/silhouette/{line}": float(i) for i, line in enumerate(lines)}})
    sweep = recorder.job(parent)
    assert sweep is not None
    assert sorted(points["2"] for points in recorder.curves_of(sweep).values()) == [0.0, 1.0, 2.0, 3.0]


def test_the_latest_job_of_a_key_is_found(recorder: MlflowRecorder) -> None:
    """One that was run again with sweep.resume=false takes the place of the earlier one."""
    for _ in range(3):
        latest = recorder.start_job(start("job", "a"), None)
        recorder.end(latest, FINISHED)
        time.sleep(0.01)  # MLflow orders runs by milliseconds
    assert recorder.finished_jobs()["a"].run_id == latest


def test_only_finished_jobs_are_found_by_key(recorder: MlflowRecorder) -> None:
    for key, status in (("a", FINISHED), ("b", KILLED), ("c", None)):
        run_id = recorder.start_job(start("job", key), None)
        if status:
            recorder.end(run_id, status)
    assert recorder.finished_jobs().keys() == {"a"}


def test_runs_of_a_process_that_is_gone_are_closed_and_others_are_not(recorder: MlflowRecorder) -> None:
    mine = recorder.start_job(start("job", "mine"), None)
    gone = recorder.start_job(start("job", "gone"), None)
    elsewhere = recorder.start_job(start("job", "elsewhere"), None)
    recorder.log(gone, tags={PROCESS: "999999999@1.00"})
    recorder.log(elsewhere, tags={PROCESS: "999999999@1.00", HOST: "another-machine"})
    assert recorder.close_stale() == 1
    states = {name: recorder.client.get_run(run).info.status for name, run in
              {"mine": mine, "gone": gone, "elsewhere": elsewhere}.items()}  # fmt: skip
    assert states == {"mine": "RUNNING", "gone": "KILLED", "elsewhere": "RUNNING"}


def test_an_unfinished_sweep_is_opened_again_and_a_finished_one_is_not(recorder: MlflowRecorder) -> None:
    first = new_sweep(recorder)
    recorder.end(first, KILLED)
    assert new_sweep(recorder) == first
    assert recorder.client.get_run(first).info.status == "RUNNING"
    recorder.end(first, FINISHED)
    claim = recorder.claim_sweep(start("sweep", "s"), 0)
    assert claim.run_id is None
    assert claim.run is not None
    assert claim.run.run_id == first
    assert recorder.claim_sweep(start("sweep", "s"), 0, again=True).run_id == first
    assert new_sweep(recorder, "other") != first


def test_the_use_of_the_machine_is_on_the_parent(recorder: MlflowRecorder) -> None:
    parent = new_sweep(recorder)
    with recorder.watch(parent):
        time.sleep(2.5)
    metrics = recorder.client.get_run(parent).data.metrics
    assert "system/cpu_utilization_percentage" in metrics
    assert "system/system_memory_usage_megabytes" in metrics


def test_the_local_default_does_not_move_with_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(None) == (f"sqlite:///{tmp_path}/gpuclust-runs/mlflow.db", f"{tmp_path}/gpuclust-runs/artifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert resolve_uri(None) == ("http://localhost:5000", None)
    assert resolve_uri("sqlite:///a/b.db")[0] == f"sqlite:///{tmp_path}/a/b.db"


def test_several_processes_may_create_one_store(tmp_path: Path) -> None:
    code = f"from gpuclust.tracking.mlflow import MlflowRecorder as R; R('sqlite:///{tmp_path}/m.db', 'e')"
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()


def test_trouble_is_one_line(tmp_path: Path, recorder: MlflowRecorder) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cases = {
        f"http://127.0.0.1:{port}": "cannot be used",
        f"sqlite:///{tmp_path}/none/mlflow.db": "no tracking store",
    }
    for uri, said in cases.items():
        with pytest.raises(TrackingError, match=said) as error:
            MlflowRecorder(uri, "e", create=False)
        assert "\n" not in str(error.value)
    (tmp_path / "junk.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(TrackingError, match="cannot be used"):
        MlflowRecorder(f"sqlite:///{tmp_path}/junk.db", "e")
    with pytest.raises(TrackingError, match="no experiment nothing"):
        MlflowRecorder(recorder.uri, "nothing", create=False)
    recorder.client.delete_experiment(recorder.experiment_id)
    with pytest.raises(TrackingError, match="was deleted; restore it"):
        MlflowRecorder(recorder.uri, "e")


def test_the_model_loads_and_predicts_through_mlflow(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuclust.cli import main

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["data.n_rows=500", "cluster.n_clusters=3", f"tracking.uri={uri}", "report=none"]) == 0
    assert main(["export", "best", "--uri", uri, "--out", str(tmp_path / "out")]) == 0
    recorder = MlflowRecorder(uri)
    (job,) = recorder.jobs()
    assert main(["data.n_rows=500", "cluster.n_clusters=3", f"tracking.uri={uri}", "report=none"]) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # gpuclust leaves MLflow's state of the program as it was
    (model_id,) = [m.model_id for m in recorder.client.get_run(job.run_id).outputs.model_outputs]
    model = mlflow.pyfunc.load_model(f"models:/{model_id}")
    kept = recorder.client.get_logged_model(model_id)
    assert kept.experiment_id == recorder.experiment_id
    assert kept.artifact_location.startswith(recorder.artifacts), "beside the files of the runs"
    assert not list((tmp_path / "here").iterdir()), "and nothing in the folder that the command ran in"
    assert kept.name == job.name == "kmeans k=3"
    assert recorder.client.get_run(job.run_id).data.tags["gpuclust.model"] == f"models:/{model_id}"
    assert mlflow.pyfunc.load_model(f"runs:/{job.run_id}/{kept.name}").metadata.model_id == model_id
    assert mlflow.pyfunc.load_model(f"runs:/{job.run_id}/model").metadata.model_id == model_id
    rows = pd.read_parquet(tmp_path / "out" / "assignments.parquet")
    features = model.metadata.metadata["features"]
    found = model.predict(rows[features])
    assert found["cluster"].tolist() == rows["cluster"].tolist()
    with recorder.download_model(job.run_id) as folder:
        assert folder is not None
        assert not [p for p in folder.parents[1].rglob("*") if p.suffix in (".pkl", ".pickle")]


def test_a_run_in_the_environment_is_left_alone(
    recorder: MlflowRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = recorder.start_job(start("job", "of another program"), None)
    before = recorder.client.get_run(inherited).to_dictionary()
    monkeypatch.setenv("MLFLOW_RUN_ID", inherited)
    again = MlflowRecorder(recorder.uri, "e")
    parent = again.claim_sweep(start("sweep", "s"), 0).run_id
    assert parent is not None
    run_id = again.start_job(start("job", "j"), parent)
    again.log(run_id, metrics={"silhouette": 0.5})
    old = Path(__file__).parent / "data" / "models_0_1_0" / "kmeans"
    bundle = Path(shutil.copytree(old, tmp_path / "bundle"))
    inferring = "inferring the requirements takes MLflow 3 s and more"
    monkeypatch.setattr(mlflow.models, "infer_pip_requirements", lambda *_, **__: pytest.fail(inferring))
    again.log_model(run_id, bundle, ("danceability", "energy", "tempo"))
    with again.watch(parent):
        pass
    again.end(run_id, FINISHED)
    assert os.environ["MLFLOW_RUN_ID"] == inherited
    assert inherited not in (parent, run_id)
    assert again.has_model(run_id)
    assert recorder.client.get_run(inherited).to_dictionary() == before


def test_models_are_kept_and_read_in_the_store_of_the_recorder(recorder: MlflowRecorder, tmp_path: Path) -> None:
    run_id = recorder.start_job(start("job", "j"), None)
    of_program = mlflow.get_tracking_uri()
    MlflowRecorder(f"sqlite:///{tmp_path / 'other.db'}", "e")
    old = Path(__file__).parent / "data" / "models_0_1_0" / "kmeans"
    bundle = Path(shutil.copytree(old, tmp_path / "bundle"))
    recorder.log_model(run_id, bundle, ("danceability", "energy", "tempo"))
    assert recorder.has_model(run_id)
    with recorder.download_model(run_id) as folder:
        assert folder is not None
        assert (folder / "model.json").is_file()
    assert mlflow.get_tracking_uri() == of_program


@pytest.mark.parametrize("given", ["", "mlflow.set_tracking_uri(own); mlflow.set_experiment('mine')"])
def test_the_store_and_the_experiment_of_the_calling_program_stay_active(
    given: str, tmp_path: Path, store_template: Path
) -> None:
    for name in ("mlflow.db", "own.db"):
        shutil.copy(store_template, tmp_path / name)
    code = f"""
import os, mlflow, numpy as np, gpuclust as gc
from mlflow.tracking import fluent
own = "sqlite:///{tmp_path / "own.db"}"
{given}
def state():
    names = [name for name in os.environ if name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")]
    return mlflow.get_tracking_uri(), fluent._active_experiment_id, {{name: os.environ[name] for name in names}}
before = state()
run = gc.fit(np.random.default_rng(0).normal(size=(60, 2)), gc.KMeans(3), tracking={str(tmp_path)!r}, progress=False)
assert run.model is not None
assert state() == before, (before, state())
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_") or "TELEMETRY" in k}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_a_shared_view_that_a_person_changed_is_kept(uri: str) -> None:
    recorder = MlflowRecorder(uri, "e")
    runs, charts = SHARED_VIEWS

    def views() -> dict[str, str]:
        found = recorder.client.get_experiment(recorder.experiment_id).tags
        return {tag: found[tag] for tag in SHARED_VIEWS}

    def change(tag: str, text: str) -> None:
        recorder.client.set_experiment_tag(recorder.experiment_id, tag, text)

    assert views() == SHARED_VIEWS
    change(runs, '{"mine": 1}')
    MlflowRecorder(uri, "e")
    assert views() == {runs: '{"mine": 1}', charts: SHARED_VIEWS[charts]}
    change(VIEW_DIGESTS, view_digest("of an earlier version"))
    change(charts, "of an earlier version")
    MlflowRecorder(uri, "e")
    assert views() == {runs: '{"mine": 1}', charts: SHARED_VIEWS[charts]}
    change(charts, "mine too")
    MlflowRecorder(uri, "e")
    assert views() == {runs: '{"mine": 1}', charts: "mine too"}


def test_the_ui_starts_and_names_the_chart_view(recorder: MlflowRecorder) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gpuclust", "ui", "--uri", recorder.uri, "--experiment", "e", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert link == pages(f"http://127.0.0.1:{port}", recorder.experiment_id, sweeps=False)["charts"]
        assert process.stdout.readline().startswith("table of runs: http://")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
            assert answer.read() == b"OK"
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--port", "99999"], "outside 1 to 65535"), (["--host", "no.such.invalid"], "not an address")],
)
def test_the_ui_refuses_a_port_or_host_that_cannot_be(
    options: list[str], said: str, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpuclust.cli import main

    assert main(["ui", "--uri", uri, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_read_only_store_is_said(locked: Path) -> None:
    with pytest.raises(TrackingError, match="read-only"):
        MlflowRecorder(f"sqlite:///{locked}/m.db", "e")
    with pytest.raises(TrackingError, match="cannot be used"):
        MlflowRecorder(f"sqlite:///{locked}/deeper/m.db", "e")


def test_an_interrupt_waits_for_what_is_being_written() -> None:
    interrupts = DeferredInterrupts()
    written = []

    def write() -> None:
        with interrupts.deferred():
            with interrupts.deferred():
                interrupts.interrupt(KeyboardInterrupt())
                written.append("inner")
            written.append("outer")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert written == ["inner", "outer"]
    with pytest.raises(KeyboardInterrupt):
        interrupts.interrupt(KeyboardInterrupt())
    with interrupts.deferred():
        written.append("later")
