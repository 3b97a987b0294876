"""`cluster.init_from`: a fit on other rows that starts from the clusters of a run and keeps their numbers."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.errors import ConfigurationError
from gpuclust.tracking.mlflow import MlflowRecorder

N, K = 600, 5
CENTRES = np.array([[0, 0], [6, 0], [0, 6], [6, 6], [3, 12]], float)


def week(seed: int, shares: list[float], shift: float = 0.0) -> pd.DataFrame:
    """Rows of five groups with these shares, in random order; the groups move by ``shift`` along the first feature. ``group`` is the truth."""
    rng = np.random.default_rng(seed)
    group = rng.choice(K, N, p=shares)
    values = CENTRES[group] + rng.normal(scale=0.7, size=(N, 2)) + [shift, 0]
    return pd.DataFrame({"a": values[:, 0], "b": 100 * values[:, 1] + 5000, "group": [f"g{g}" for g in group]})


FIRST = week(0, [0.35, 0.25, 0.2, 0.12, 0.08])
# The order of the sizes is reversed, the groups have moved, and the rows are others in another order.
LATER = week(1, [0.08, 0.12, 0.2, 0.25, 0.35], shift=0.8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with both weeks and a store, in which K-Means and a mixture of the first week are recorded."""
    folder = tmp_path_factory.mktemp("refit")
    shutil.copy(store_template, folder / "mlflow.db")
    FIRST.to_csv(folder / "first.csv", index=False)
    LATER.to_csv(folder / "later.csv", index=False)
    assert main([*arguments(folder, "first"), f"cluster.n_clusters={K}", "tracking.register=weeks"]) == 0
    return folder


def arguments(folder: Path, rows: str) -> list[str]:
    return [f"data.path={folder / f'{rows}.csv'}", "data.features=[a,b]", "data.roles.group=group", "report=none",
            f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", "tracking.experiment=e"]  # fmt: skip


def refit(folder: Path, *overrides: str) -> dict[int, str]:
    """Cluster -> the group that most of its rows are of, after a fit of the later week."""
    assert main([*arguments(folder, "later"), *overrides]) == 0
    recorder = MlflowRecorder(f"sqlite:///{folder / 'mlflow.db'}", "e")
    job = next(iter(recorder.jobs()))
    with recorder.download_model(job.run_id) as model:
        assert model is not None
        found = gc.load_model(model).predict(LATER)["cluster"]
    return LATER.groupby(found.to_numpy(int))["group"].agg(lambda group: group.mode()[0]).to_dict()


def groups_of(folder: Path, run: str = "models:/weeks/1") -> dict[int, str]:
    """Cluster -> group, of the first week."""
    found = gc.load_model(run, tracking=f"sqlite:///{folder / 'mlflow.db'}").predict(FIRST)["cluster"]
    return FIRST.groupby(found.to_numpy(int))["group"].agg(lambda group: group.mode()[0]).to_dict()


def test_cluster_i_is_still_cluster_i(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = groups_of(store)
    assert sorted(before.values()) == [f"g{i}" for i in range(K)], "each cluster is a group"
    cold = refit(store, f"cluster.n_clusters={K}")
    assert cold != before, "a fit from its own starts numbers the clusters by their new sizes"
    warm = refit(
        store, f"cluster.n_clusters={K}", "cluster.init_from=models:/weeks@challenger", "cluster.engine=library"
    )
    assert warm == before
    recorder = MlflowRecorder(f"sqlite:///{store / 'mlflow.db'}", "e")
    job = next(iter(recorder.jobs()))
    first = recorder.client.get_model_version("weeks", "1").run_id
    assert job.params["cluster.init_from"] == first, "the id of the run is recorded, not the alias"
    assert job.metrics["kept_fraction"] > 0.95
    assert f"are in the cluster that run {first} assigns them to" in job.tags["gpuclust.notes"]
    capsys.readouterr()
    again = [f"cluster.n_clusters={K}", f"cluster.init_from={first}", "cluster.engine=library"]
    assert main([*arguments(store, "later"), *again]) == 0
    assert "nothing to do" in capsys.readouterr().out, "the same run by its id is the same job"


SPACES = [
    ("cluster=gmm",),
    ("cluster.metric=cosine", "scale=robust"),
    pytest.param(("reduce=pca", "reduce.n_components=2"), marks=pytest.mark.campaign),
    pytest.param(("memory.mode=disk",), marks=pytest.mark.campaign),
    pytest.param(("cluster.engine=fused",), marks=pytest.mark.campaign),
]


@pytest.mark.parametrize("overrides", SPACES)
def test_other_spaces_and_algorithms_keep_the_numbers(overrides: tuple[str, ...], store: Path) -> None:
    """The model assigns the rows in its own space, so that the fit may scale or reduce them otherwise, or be a mixture."""
    found = refit(store, f"cluster.n_clusters={K}", "cluster.init_from=models:/weeks/1", *overrides)
    before = groups_of(store)
    if "cluster.metric=cosine" in overrides:  # directions separate these groups less well
        assert sum(found.get(c) == group for c, group in before.items()) >= 3
    else:
        assert found == before


def test_rows_of_the_same_groups_in_another_order_are_unchanged(store: Path, tmp_path: Path) -> None:
    shuffled = FIRST.sample(frac=1, random_state=3)
    shuffled.to_csv(tmp_path / "later.csv", index=False)
    shutil.copy(store / "mlflow.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = gc.fit(tmp_path / "later.csv", gc.KMeans(n_clusters=K), features=["a", "b"], tracking=uri, experiment="e",
                 config={"cluster.init_from": "models:/weeks/1"}, progress=False)  # fmt: skip
    model = gc.load_model("models:/weeks/1", tracking=uri)
    np.testing.assert_array_equal(run.labels_, model.predict(shuffled)["cluster"].to_numpy(int))
    assert run.metrics["kept_fraction"] == 1.0
    nothing = gc.fit(shuffled[["a", "b"]], gc.KMeans(n_clusters=K), tracking=None, progress=False)
    assert "kept_fraction" not in nothing.metrics


def test_what_cannot_keep_its_numbers_is_refused_in_one_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*overrides: Any, rows: str = "later", status: int = 2) -> str:
        assert main([*arguments(store, rows), *map(str, overrides)]) == status
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return captured.out + captured.err

    start = "cluster.init_from=models:/weeks/1"
    said = told("cluster.n_clusters=4", start)
    assert (
        "cluster.init_from=models:/weeks/1 has 5 clusters, and cluster.n_clusters=4; give cluster.n_clusters=5" in said
    )
    assert "cluster.init_from belongs to cluster=kmeans or gmm" in told("cluster=hdbscan", start)
    assert "there is no run nowhere" in told(f"cluster.n_clusters={K}", "cluster.init_from=nowhere")
    other = told(f"cluster.n_clusters={K}", start, "data.features=[b]", status=1)
    assert "has the features a, b, and this job has b; give the same data.features" in other
    LATER[LATER["group"] != "g0"].to_csv(store / "without.csv", index=False)
    gone = told(f"cluster.n_clusters={K}", start, rows="without", status=1)
    assert "has none of these rows, so its number cannot be kept" in gone
    with pytest.raises(ConfigurationError, match="has 5 clusters"):
        gc.fit(LATER, gc.KMeans(n_clusters=3), features=["a", "b"], tracking=f"sqlite:///{store / 'mlflow.db'}",
               experiment="e", config={"cluster.init_from": "models:/weeks/1"}, progress=False)  # fmt: skip
    said = told(f"cluster.n_clusters={K}", start, "cluster=gmm", "cluster.engine=library", status=1)
    assert "cluster.engine=library cannot start from the clusters of a run" in said
