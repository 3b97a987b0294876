"""A process that is killed while it logs the chosen model: the same command, and an export, work afterwards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelStatus

from gpuclust.cli import main
from gpuclust.model.manifest import read_manifest, verify_all
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.mlflow import MlflowRecorder

# Runs the command line in a process that ends, without any cleaning up, at one moment of logging a model.
KILLED = """
import os, shutil, sys
from mlflow.tracking import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from gpuclust.cli import main

moment, name = sys.argv[1].split(":")
if name == "half_of_the_files":
    def log_artifacts(self, local_dir, artifact_path=None):
        if os.path.isfile(os.path.join(local_dir, "MLmodel")):
            shutil.copytree(local_dir, self.artifact_dir, ignore=shutil.ignore_patterns("arrays.npz"), dirs_exist_ok=True)
            os._exit(9)
        return original(self, local_dir, artifact_path)
    original = LocalArtifactRepository.log_artifacts
    LocalArtifactRepository.log_artifacts = log_artifacts
else:
    method = getattr(MlflowClient, name)
    def dying(*args, **kwargs):
        if moment == "before":
            os._exit(9)
        method(*args, **kwargs)
        os._exit(9)
    setattr(MlflowClient, name, dying)
main(sys.argv[2:])
"""
MOMENTS = [
    "before:_create_logged_model",
    "after:_create_logged_model",
    "before:log_outputs",
    "after:log_outputs",
    "before:log_model_artifacts",
    "during:half_of_the_files",
    "after:log_model_artifacts",
    "before:finalize_logged_model",
    "after:finalize_logged_model",
]
SWEEP = ["-m", "data=catalogue", "data.n_rows=300", "cluster.n_clusters=2,3", "cluster.n_init=1", "report=none"]


def killed(moment: str, uri: str, *arguments: str) -> None:
    command = [sys.executable, "-c", KILLED, moment, *arguments, f"tracking.uri={uri}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 9, done.stderr


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sweep_killed_while_it_logs_its_model_is_finished_by_the_same_command(
    moment: str, uri: str, tmp_path: Path
) -> None:
    killed(moment, uri, *SWEEP)
    at_once = tmp_path / "at-once"
    (run_id,) = [
        run.info.run_id for run in MlflowRecorder(uri).search("") if run.data.tags.get("mlflow.runName") == "kmeans k=3"
    ]
    assert main(["export", run_id, "--uri", uri, "--out", str(at_once)]) == 0
    assert main([*SWEEP, f"tracking.uri={uri}"]) == 0
    recorder = MlflowRecorder(uri)
    (parent,) = recorder.sweeps()
    assert parent.status == "FINISHED"
    chosen = parent.tags[tags.SELECTED_RUN]
    assert recorder.has_model(chosen)
    outputs = recorder.client.get_run(chosen).outputs.model_outputs
    models = recorder.client.search_logged_models([recorder.experiment_id])
    assert [m.status for m in models] == [LoggedModelStatus.READY]
    assert models[0].model_id in {output.model_id for output in outputs}
    assert main(["export", "best", "--uri", uri, "--out", str(tmp_path / "out")]) == 0
    manifest = read_manifest(tmp_path / "out")
    verify_all(manifest)
    assert manifest.text["run_id"] == chosen
    assert json.loads((tmp_path / "out" / "model" / "model.json").read_text())


def test_a_single_job_killed_while_it_logs_its_model_gets_it_from_the_same_command(uri: str, tmp_path: Path) -> None:
    job = ["data=catalogue", "data.n_rows=300", "cluster.n_clusters=3", "report=none"]
    killed("after:log_outputs", uri, *job)
    assert main([*job, f"tracking.uri={uri}"]) == 0
    recorder = MlflowRecorder(uri)
    (run,) = recorder.jobs()
    assert recorder.has_model(run.run_id)


def test_a_model_whose_files_were_lost_is_computed_again(uri: str, tmp_path: Path) -> None:
    assert main([*SWEEP, f"tracking.uri={uri}"]) == 0
    recorder = MlflowRecorder(uri)
    (model,) = recorder.client.search_logged_models([recorder.experiment_id])
    (Path(model.artifact_location.removeprefix("file://")) / "data" / "bundle" / "model.json").unlink()
    assert main(["export", "best", "--uri", uri, "--out", str(tmp_path / "out")]) == 0
    assert main([*SWEEP, f"tracking.uri={uri}"]) == 0
    (kept,) = recorder.client.search_logged_models([recorder.experiment_id])
    assert kept.model_id != model.model_id
    assert recorder.has_model(str(kept.source_run_id))
