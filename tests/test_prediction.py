"""Prediction by algorithm: the rules that models are checked and used with, our own and those of plug-ins."""

import json
from pathlib import Path

import numpy as np
import pytest

from gpuclust.errors import ModelError
from gpuclust.model import prediction
from gpuclust.model.bundle import MODEL, Bundle
from gpuclust.model.prediction import ArraySpec, Placed, PredictionRule, register_rule, rule_of
from gpuclust.model.preparation import Preparation, Scaling, projection_of

PLUG_IN = """
import numpy as np
from gpuclust.model.prediction import ArraySpec, PredictionRule, register_rule

def place(parameters, options):
    cut = parameters["cut"]
    return lambda points: ((points[:, 0] > cut).astype(int), np.ones(len(points)), np.nan)

register_rule(PredictionRule("halves", {"cut": ArraySpec("f", ())}, place))
ALGORITHM = "what the registry of algorithms would get"
"""


OURS = ("kmeans", "gmm", "hdbscan")


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(prediction, "_rules", {name: rule_of(name) for name in OURS})


def bundle(algorithm: str, **options: object) -> Bundle:
    map_projection = projection_of(np.zeros(2), np.eye(2), np.ones(2), 10)
    preparation = Preparation(("a", "b"), Scaling("none", np.zeros(2), np.ones(2)), None, map_projection, "float64")
    return Bundle(algorithm, preparation, {"cut": np.asarray(0.5)}, options)


def by_sign(parameters: prediction.Parameters, options: prediction.Options) -> prediction.Place:
    def run(points: np.ndarray) -> Placed:
        return (points[:, 0] > parameters["cut"]).astype(int) * options["step"], np.ones(len(points)), np.nan

    return run


RULE = PredictionRule("halves", {"cut": ArraySpec("f", ())}, by_sign, options={"step": (1, 2)})


def test_a_registered_algorithm_is_saved_read_and_used(tmp_path: Path) -> None:
    register_rule(RULE)
    made = bundle("halves", step=2)
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [np.nan, 0.0]])
    again = Bundle.load(made.save(tmp_path))
    assert made.predict(rows).cluster.tolist() == again.predict(rows).cluster.tolist() == [0, 2, -2]
    assert dict(Bundle.load(tmp_path).options) == {"step": 2}


def test_its_options_and_arrays_are_checked(tmp_path: Path) -> None:
    register_rule(RULE)
    bundle("halves", step=3).save(tmp_path)
    with pytest.raises(ModelError, match="step=3 does not fit the algorithm halves"):
        Bundle.load(tmp_path)
    bundle("halves").save(tmp_path)
    with pytest.raises(ModelError, match="step=None does not fit"):
        Bundle.load(tmp_path)
    bundle("halves", step=1, other=1).save(tmp_path)
    with pytest.raises(ModelError, match="other=1 does not fit"):
        Bundle.load(tmp_path)
    register_rule(PredictionRule("halves", {"cut": ArraySpec("f", ("columns",))}, by_sign, options={"step": ()}))
    bundle("halves", step=1).save(tmp_path)
    with pytest.raises(ModelError, match="parameters/cut has the shape"):
        Bundle.load(tmp_path)


def test_an_entry_point_is_loaded_when_its_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halves_plug_in.py").write_text(PLUG_IN)
    facts = tmp_path / "halves-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: halves\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[gpuclust.algorithms]\nhalves = halves_plug_in:ALGORITHM\n")
    model = bundle("halves").save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"'halves' is not known here; install the package that provides it"):
        Bundle.load(model)
    monkeypatch.syspath_prepend(tmp_path)
    assert Bundle.load(model).predict(np.array([[1.0, 0.0]])).cluster.tolist() == [1]


@pytest.mark.parametrize(
    "name", ["os", "prediction", "bundle", "__pycache__", "gpuclust.cli", "../kmeans", "", "k" * 1000]
)
def test_a_name_loads_no_other_module(name: str, tmp_path: Path) -> None:
    folder = bundle("kmeans").save(tmp_path)
    described = json.loads((folder / MODEL).read_text())
    (folder / MODEL).write_text(json.dumps({**described, "algorithm": name}))
    with pytest.raises(ModelError, match="is not known here"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", OURS)
def test_our_own_have_rules(name: str) -> None:
    assert rule_of(name).name == name
