"""The logged MLflow model: every form of rows that people give, a real scoring server, and no gpuclust at hand."""

import ast
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from gpuclust.errors import ModelError
from gpuclust.model.rows import to_matrix
from gpuclust.tracking import carried
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.pyfunc import ClusteringModel, _load_pyfunc
from tests.exporting import made_export

FEATURES = ["energy", "duration_ms", "explicit", "loudness", "plays"]
OLD = Path(__file__).parent / "data" / "models_0_1_0"


def table(n: int = 500, seed: int = 0) -> pd.DataFrame:
    """Tracks with features of every type that a file may give: float, int64, 0/1, negative, large."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    return pd.DataFrame(
        {
            "track_id": [f"t{i:04d}" for i in range(n)],
            "energy": (0.2 + 0.3 * group + rng.normal(scale=0.04, size=n)).round(3),
            "duration_ms": (180_000 + 40_000 * group + rng.normal(scale=5_000, size=n)).round().astype(np.int64),
            "explicit": (group == 1).astype(np.int64),
            "loudness": -20 + 5.0 * group + rng.normal(size=n).round(2),
            "plays": rng.integers(0, 2**40, n),
            "artist": [f"artist {i % 9}" for i in range(n)],
        }
    )


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """An export whose run keeps its model in the store beside it."""
    return made_export(table(), tmp_path_factory.mktemp("model"), store_template, features=FEATURES)


@pytest.fixture(scope="module")
def model_folder(export: Path) -> Path:
    """The logged model's folder."""
    recorder = MlflowRecorder(f"sqlite:///{export.parent / 'mlflow.db'}", "e")
    (job,) = recorder.jobs()
    (output,) = recorder.client.get_run(job.run_id).outputs.model_outputs
    return Path(recorder.client.get_logged_model(output.model_id).artifact_location)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    return mlflow.pyfunc.load_model(str(model_folder))


@pytest.fixture(scope="module")
def labels(export: Path) -> list[int]:
    """What the job found, in the order of the table."""
    rows = pd.read_parquet(export / "assignments.parquet").set_index("track_id")
    return rows.loc[table()["track_id"], "cluster"].tolist()


FORMS: dict[str, Any] = {
    "as the file gives it": lambda frame: frame,
    "int32": lambda frame: frame.astype({"duration_ms": "int32", "explicit": "int8"}),
    "nullable integers": lambda frame: frame.convert_dtypes(),
    "bool": lambda frame: frame.astype({"explicit": bool}),
    "decimals": lambda frame: frame.assign(energy=[Decimal(repr(v)) for v in frame["energy"].tolist()]),
    "objects": lambda frame: frame.astype(object),
    "text": lambda frame: frame.astype(str),
    "text that says true": lambda frame: frame.assign(explicit=frame["explicit"].map({0: "False", 1: "True"})),
    "categories": lambda frame: frame.astype({"explicit": "category", "energy": "category"}),
    "arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "other columns and order": lambda frame: frame[frame.columns[::-1]].assign(cluster=7, more="x"),
    "features alone": lambda frame: frame[FEATURES],
    "an index of its own": lambda frame: frame.set_index("track_id"),
    "records": lambda frame: frame.to_dict("records"),
    "columns": lambda frame: frame.to_dict("list"),
    "columns of arrays": lambda frame: {name: frame[name].to_numpy() for name in FEATURES},
    "array": lambda frame: frame[FEATURES].to_numpy(),
    "lists": lambda frame: frame[FEATURES].to_numpy().tolist(),
    "structured array": lambda frame: frame[FEATURES].to_records(index=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_training_rows_get_the_labels_of_the_job_in_every_form(form: str, model: Any, labels: list[int]) -> None:
    assert model.predict(FORMS[form](table()))["cluster"].tolist() == labels


def test_the_training_file_itself(model: Any, labels: list[int], tmp_path: Path) -> None:
    table().to_csv(tmp_path / "tracks.csv", index=False)
    found = model.predict(pd.read_csv(tmp_path / "tracks.csv"))
    assert found["cluster"].tolist() == labels
    assert found["confidence"].between(0, 1).all()
    assert (found["distance"] >= 0).all()
    assert model.metadata.metadata == {"features": FEATURES}


def test_float32_is_placed_as_its_own_values(model: Any) -> None:
    rounded = table()[FEATURES].astype(np.float32)
    np.testing.assert_array_equal(
        model.predict(rounded)["cluster"], model.predict(rounded.astype(np.float64))["cluster"]
    )


def test_one_row_in_every_form(model: Any, labels: list[int]) -> None:
    frame = table()
    for i in (0, 7):
        row = frame.iloc[i]
        for form in (frame.iloc[[i]], row, row.to_dict(), [row.to_dict()], row[FEATURES].tolist(),
                     row[FEATURES].to_numpy(dtype=float), row[FEATURES].to_numpy(dtype=float)[None]):  # fmt: skip
            assert model.predict(form)["cluster"].tolist() == [labels[i]]


def test_rows_keep_their_index_and_a_missing_value_is_not_placed(model: Any, labels: list[int]) -> None:
    frame = table().set_index("track_id")
    frame.loc["t0003", "energy"] = np.nan
    frame = frame.astype({"loudness": object})
    frame.loc["t0004", "loudness"] = None
    frame.loc["t0005", "loudness"] = "unknown"  # text among numbers is missing, as for a job
    found = model.predict(frame)
    assert found.index.equals(frame.index)
    assert found["cluster"].isna().tolist() == [3 <= i <= 5 for i in range(len(frame))]
    assert found.isna().all(axis=1).sum() == 3
    kept = found["cluster"].notna()
    assert found["cluster"][kept].tolist() == np.array(labels)[kept].tolist()
    assert len(model.predict(frame.iloc[:0])) == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda f: f.drop(columns=["energy", "plays"]), "the rows lack energy, plays; the model needs the columns energy,"),
        (lambda f: f.assign(energy="loud"), "the column 'energy' holds 'loud', which is not a number"),
        (lambda f: f.assign(energy=pd.Timestamp("2020-01-01")), "the column 'energy' is of type datetime64"),
        (lambda f: f.assign(energy=[[1, 2]] * len(f)), r"the column 'energy' holds \[1, 2\], which is not a number"),
        (lambda f: pd.concat([f, f[["energy"]]], axis=1), "several columns named 'energy'"),
        (lambda f: np.zeros((3, 4)), r"rows of shape \(3, 4\) do not fit the model, which takes 5 values a row"),
        (lambda f: np.zeros((2, 3, 5)), r"rows of shape \(2, 3, 5\)"),
        (lambda f: [[1, 2, 3, 4, 5], [1, 2]], "different numbers of values"),
        (lambda f: [{"energy": 1}, 3], "some rows are dictionaries and some are not"),
        (lambda f: {"energy": [1, 2], "plays": [1, 2, 3]}, "different lengths"),
        (lambda f: [["a", "b", "c", "d", "e"]], "the column 'energy' holds 'a'"),
        (lambda f: None, "rows of type NoneType cannot be placed"),
        (lambda f: "energy", "rows of type str cannot be placed"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused_in_one_line(rows: Any, said: str, model: Any) -> None:
    with pytest.raises(MlflowException, match=said) as error:
        model.predict(rows(table()))
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match=said):
        to_matrix(rows(table()), FEATURES)


def test_a_single_feature_takes_a_list_of_numbers() -> None:
    raw, _ = to_matrix([1, 2, 3], ["energy"])
    assert raw.tolist() == [[1.0], [2.0], [3.0]]
    raw, _ = to_matrix({"energy": 1.5}, ["energy"])
    assert raw.tolist() == [[1.5]]


def test_requirements_are_what_the_carried_code_imports(model_folder: Path) -> None:
    named = [line.partition("==")[0] for line in (model_folder / "requirements.txt").read_text().split()]
    assert sorted(named) == sorted(carried.REQUIREMENTS)
    imported = set()
    for path in (model_folder / "code").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            imported |= set(names) | ({node.module or ""} if isinstance(node, ast.ImportFrom) else set())
    tops = {name.split(".")[0] for name in imported}
    (package,) = [p.name for p in (model_folder / "code").iterdir()]
    # pyarrow is for writing CSV, which placing rows does not do; the module that masks passwords in errors has both.
    assert tops - set(sys.stdlib_module_names) - {"pyarrow"} == {*carried.REQUIREMENTS, package}


WITHOUT = """
import sys, json
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gpuclust", "numba", "sklearn", "hydra", "matplotlib"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocked())
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pd.read_csv(sys.argv[2]))
assert not [m for m in sys.modules if m == "gpuclust" or m.startswith("gpuclust.")]
print(json.dumps(found["cluster"].tolist()))
"""


@pytest.mark.parametrize("algorithm", ["kmeans", "gmm", "hdbscan"])
def test_it_loads_in_a_python_without_gpuclust(
    algorithm: str, model_folder: Path, labels: list[int], tmp_path: Path, store_template: Path
) -> None:
    expected = labels
    if algorithm != "kmeans":
        size = "cluster.n_clusters=3" if algorithm == "gmm" else "cluster.min_cluster_size=30"
        out = made_export(
            table(), tmp_path / "run", store_template, f"cluster={algorithm}", size, "reduce=pca", features=FEATURES
        )
        model_folder = next((tmp_path / "run" / "artifacts").rglob("MLmodel")).parent
        expected = pd.read_parquet(out / "assignments.parquet")["cluster"].tolist()
    table().to_csv(tmp_path / "tracks.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT, str(model_folder), str(tmp_path / "tracks.csv")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    if algorithm == "hdbscan":  # what approximate_predict promises: rows of a cluster stay in it, bar those at its edge
        clustered = np.array(expected) >= 0
        assert (found[clustered] == np.array(expected)[clustered]).mean() > 0.95
    else:
        assert found.tolist() == expected


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real `mlflow models serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model_folder), "--env-manager", "local",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    log = tmp_path_factory.mktemp("served") / "log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        until = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=10).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def posted(address: str, body: Any, content_type: str = "application/json") -> Any:
    """The answer to rows; NaN, which is not JSON, is an error."""
    text = body if isinstance(body, str) else json.dumps(body)
    request = urllib.request.Request(address, text.encode(), {"content-type": content_type})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["predictions"]


def test_a_scoring_server_takes_every_format(served: str, labels: list[int]) -> None:
    frame = table().head(60)
    bodies = {
        "dataframe_split": json.loads(frame.to_json(orient="split")),
        "dataframe_records": frame.to_dict("records"),
        "instances": frame.to_dict("records"),
        "inputs": frame.to_dict("list"),
    }
    for name, body in bodies.items():
        assert [row["cluster"] for row in posted(served, {name: body})] == labels[:60], name
    rows = frame[FEATURES].to_numpy().tolist()
    for name in ("instances", "inputs"):
        assert [row["cluster"] for row in posted(served, {name: rows})] == labels[:60], name
    text = frame.to_csv(index=False)
    assert [row["cluster"] for row in posted(served, text, "text/csv")] == labels[:60]


def test_a_scoring_server_writes_null_and_says_what_does_not_fit(served: str) -> None:
    records = table().head(2).to_dict("records")
    records[1]["energy"] = None
    for name in ("dataframe_records", "instances", "inputs"):
        first, second = posted(served, {name: records})
        assert first["cluster"] is not None
        assert second == {"cluster": None, "confidence": None, "distance": None}
    with pytest.raises(urllib.error.HTTPError) as error:
        posted(served, {"dataframe_records": [{"energy": 1}]})
    assert error.value.code == 400
    assert "the rows lack duration_ms, explicit, loudness, plays" in json.load(error.value)["message"]


# What `gpuclust.tracking.pyfunc` was in version 0.1.0: MLflow kept a copy of it in each model.
PYFUNC_0_1_0 = """
from pathlib import Path
import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from gpuclust.model.bundle import Bundle

class ClusteringModel(PythonModel):
    def load_context(self, context):
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context, model_input, params=None):
        frame = pd.DataFrame(model_input)
        raw = frame.reindex(columns=list(self.bundle.features)).to_numpy(dtype=np.float64, na_value=np.nan)
        found = self.bundle.predict(raw)
        return pd.DataFrame({"cluster": np.where(found.placed, found.cluster, 0)}, index=frame.index)

set_model(ClusteringModel())
"""


@pytest.mark.parametrize("algorithm", ["kmeans", "gmm", "hdbscan"])
def test_models_of_version_0_1_0_load(algorithm: str) -> None:
    expected = json.loads((OLD / algorithm / "expected.json").read_text())
    served = _load_pyfunc(str(OLD / algorithm))
    assert isinstance(served, ClusteringModel)
    found = served.predict(expected["rows"])
    assert found["cluster"].tolist() == expected["cluster"]
    np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=2e-6)  # kept to six decimals


@pytest.mark.filterwarnings("ignore::UserWarning")  # MLflow's advice on input examples and type hints
def test_an_mlflow_model_of_version_0_1_0_loads(tmp_path: Path) -> None:
    (tmp_path / "pyfunc.py").write_text(PYFUNC_0_1_0)
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"), python_model=str(tmp_path / "pyfunc.py"), pip_requirements=["mlflow"],
        artifacts={"bundle": str(OLD / "kmeans")},
    )  # fmt: skip
    expected = json.loads((OLD / "kmeans" / "expected.json").read_text())
    frame = pd.DataFrame(expected["rows"], columns=["danceability", "energy", "tempo"])
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(frame)["cluster"].tolist() == expected["cluster"]
