"""A plug-in with an algorithm (`tests/toy`) goes through everything that our own do, without another change."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN
from sklearn.datasets import make_blobs
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from gpuclust.algorithms import registry
from gpuclust.cli import COMMANDS, main
from gpuclust.completion import candidates
from gpuclust.config import conf_dirs, plugins
from gpuclust.model import prediction
from gpuclust.model.bundle import Bundle
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.serving import serving

TOY = Path(__file__).parent / "toy"
SIZES = (0.2, 0.3, 0.4, 0.5)


def forget() -> None:
    """Let go of what was found out about installed packages."""
    for cached in (plugins, registry._discover, registry.known_keys):
        cached.cache_clear()
    registry._registered.pop("toy", None)
    prediction._rules.pop("toy", None)


@pytest.fixture(scope="module")
def installed() -> Iterator[pytest.MonkeyPatch]:
    """The plug-in on the path of this process and of those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOY)
        path = os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH")])])
        patch.setenv("PYTHONPATH", path)
        forget()
        yield patch
    forget()


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    X, _ = make_blobs([250, 200, 150], n_features=3, centers=[[0, 0, 0], [9, 0, 3], [0, 9, 6]], random_state=0)
    return np.concatenate([X, np.random.default_rng(0).uniform(-6, 15, size=(30, 3))])


@pytest.fixture(scope="module")
def folder(
    installed: pytest.MonkeyPatch,
    rows: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
    store_template: Path,
) -> Path:
    """A sweep over the plug-in's size, of numbers that are not whole, and the export of its choice."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "mlflow.db").write_bytes(store_template.read_bytes())
    pd.DataFrame(rows, columns=["a", "b", "c"]).to_csv(folder / "rows.csv", index=False)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    sizes = ",".join(map(str, SIZES))
    command = ["-m", f"data.path={folder / 'rows.csv'}", "cluster=toy", f"cluster.eps={sizes}", f"tracking.uri={store}"]
    assert main([*command, "backend=cpu", "seed=1"]) == 0
    assert main(["export", "best", "--uri", store, "--out", str(folder / "out")]) == 0
    return folder


def store_of(folder: Path) -> MlflowRecorder:
    return MlflowRecorder(f"sqlite:///{folder / 'mlflow.db'}", "gpuclust")


def test_the_plug_in_is_small() -> None:
    code = [line for line in (TOY / "gpuclust_toy" / "__init__.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 45, "imports, configuration, prediction, fit and registration"


def test_labels_are_those_of_the_library(folder: Path, rows: np.ndarray) -> None:
    job = next(job for job in store_of(folder).jobs() if job.name == "toy eps=0.3")
    reference = DBSCAN(eps=0.3, min_samples=10).fit(StandardScaler().fit_transform(rows).astype(np.float32))
    assert job.metrics["n_clusters"] == reference.labels_.max() + 1
    assert job.metrics["noise_fraction"] == pytest.approx((reference.labels_ == -1).mean(), abs=0.01)


def test_the_sweep_has_curves_and_a_verdict(folder: Path) -> None:
    (sweep,) = store_of(folder).sweeps()
    assert sweep.metrics["curve/silhouette"]
    assert sweep.tags["gpuclust.verdict_kind"] == "clear"
    because = store_of(folder).document(sweep.run_id, "verdict.json")["because"]
    assert any(line.startswith("toy: 3 clusters at ") for line in because), because
    assert len(list(store_of(folder).jobs())) == len(SIZES)


def test_the_export_has_the_curves_at_their_sizes(folder: Path) -> None:
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["size_keys"]["toy"] == "eps"
    assert manifest["sweep"]["curves"]["silhouette"].keys() == {f"{size:g}" for size in SIZES}
    assert manifest["config"]["cluster"]["eps"] in SIZES


def test_the_logged_model_predicts(folder: Path, rows: np.ndarray) -> None:
    recorder = store_of(folder)
    run_id = json.loads((folder / "out" / "manifest.json").read_text())["run_id"]
    (output,) = recorder.client.get_run(run_id).outputs.model_outputs
    model = mlflow.pyfunc.load_model(recorder.client.get_logged_model(output.model_id).artifact_location)
    found = model.predict(pd.DataFrame(rows, columns=["a", "b", "c"]))
    exported = pd.read_parquet(folder / "out" / "assignments.parquet")
    np.testing.assert_array_equal(found["cluster"], exported["cluster"])


def requirements(recorder: MlflowRecorder) -> list[str]:
    """The requirements of the only logged model."""
    (run_id,) = (job.run_id for job in recorder.jobs() if recorder.has_model(job.run_id))
    (output,) = recorder.client.get_run(run_id).outputs.model_outputs
    logged = recorder.client.get_logged_model(output.model_id).artifact_location
    return Path(mlflow.pyfunc.get_model_dependencies(logged, format="pip")).read_text().split()


def test_a_logged_model_requires_the_plug_in(folder: Path) -> None:
    assert "gpuclust-toy==0.1" in requirements(store_of(folder))


def test_gpuclust_predict_gives_the_labels_again(folder: Path) -> None:
    out = folder / "new.parquet"
    assert main(["predict", str(folder / "out"), str(folder / "rows.csv"), "--out", str(out)]) == 0
    exported = pd.read_parquet(folder / "out" / "assignments.parquet")
    pd.testing.assert_series_equal(pd.read_parquet(out)["cluster"], exported["cluster"])


def test_the_api_predicts(folder: Path) -> None:
    exported = pd.read_parquet(folder / "out" / "assignments.parquet")
    rows = exported[["a", "b", "c"]].head(50).to_dict("records")
    with serving(folder / "out") as address:
        answer = httpx.post(f"{address}/predict", json={"rows": rows}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert [p["cluster"] for p in answer.json()["predictions"]] == exported["cluster"].head(50).tolist()


def test_the_explorer_shows_its_curves(folder: Path, main_module: None) -> None:
    from streamlit.testing.v1 import AppTest

    from gpuclust.serve.explorer.settings import Settings, configure

    def page() -> None:
        from gpuclust.serve.explorer.views.overview import overview

        overview()

    configure(Settings(folder / "out"))
    shown = AppTest.from_function(page, default_timeout=120).run()
    assert not shown.exception
    assert {metric.label for metric in shown.metric} >= {"Clusters", "Silhouette", "Noise"}
    charts = [json.loads(chart.proto.spec) for chart in shown.get("plotly_chart")]
    assert any(chart["layout"]["xaxis"]["title"].get("text") == "eps" for chart in charts)


def test_its_keys_are_known(installed: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cluster=toy" in candidates("gpuclust cluster=t", COMMANDS)
    assert "cluster.eps=" in candidates("gpuclust cluster=toy cluster.e", COMMANDS)
    assert main(["data=catalogue", "cluster=kmeans", "cluster.eps=0.5"]) == 2
    assert "cluster.eps belongs to cluster=dbscan or toy" in capsys.readouterr().err
    assert main(["data=catalogue", "cluster=toy", "cluster.epps=0.5"]) == 2
    assert "did you mean cluster.eps or" in capsys.readouterr().err
    assert main(["data=catalogue", "cluster=toy", "cluster.eps=0"]) == 2
    assert "is outside (0, inf)" in capsys.readouterr().err
    shown = subprocess.run([sys.executable, "-m", "gpuclust", "--help"], capture_output=True, text=True, check=True)
    assert (
        "cluster=kmeans|gmm|hdbscan|dbscan|plscan|leiden| spectral|agglomerative|bayesian_gmm|bisecting|toy"
        in " ".join(shown.stdout.split())
    )
    assert TOY / "gpuclust_toy" / "conf" in conf_dirs()


def test_a_reducer_and_a_scaler_of_a_plug_in(folder: Path, rows: np.ndarray) -> None:
    store = f"sqlite:///{folder / 'mlflow.db'}"
    options = ["scale=maxabs", "reduce=random", "reduce.options.seed=3", "cluster.n_clusters=3", "report=none"]
    command = [
        f"data.path={folder / 'rows.csv'}",
        f"tracking.uri={store}",
        "tracking.experiment=reduced",
        "backend=cpu",
    ]
    assert main([*command, *options]) == 0
    out = folder / "reduced"
    assert main(["export", "best", "--uri", store, "--experiment", "reduced", "--out", str(out)]) == 0
    preparation = Bundle.load(out / "model").preparation
    directions = np.random.default_rng(3).normal(scale=2**-0.5, size=(3, 2))
    wanted = MaxAbsScaler().fit_transform(rows) @ directions
    np.testing.assert_allclose(preparation.points(rows), wanted, rtol=1e-5, atol=1e-5)  # the matrix is float32
    assert main(["predict", str(out), str(folder / "rows.csv"), "--out", str(folder / "again.csv")]) == 0
    exported = pd.read_parquet(out / "assignments.parquet")
    np.testing.assert_array_equal(pd.read_csv(folder / "again.csv")["cluster"], exported["cluster"])
    assert "gpuclust-toy==0.1" in requirements(MlflowRecorder(store, "reduced")), "for its reducer"
