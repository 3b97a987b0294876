"""Configuration: what composes, what is refused and how it is said, and how a sweep expands."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuclust.compose import compose, conf_dir, from_yaml, plan, to_yaml
from gpuclust.config import Config, GmmConfig, HdbscanConfig, KMeansConfig, flatten, known_keys
from gpuclust.errors import ConfigurationError


def test_defaults_of_the_files_are_those_of_the_dataclasses() -> None:
    composed = flatten(compose())
    declared = flatten(Config())
    chosen_by_files = {"data.source", "data.preset", "data.n_rows"}
    assert {k: v for k, v in composed.items() if declared[k] != v}.keys() <= chosen_by_files


@pytest.mark.parametrize("path", sorted(conf_dir().glob("[!e]*/*.yaml")), ids=lambda p: f"{p.parent.name}={p.stem}")
def test_every_choice_of_every_group_composes(path: Path) -> None:
    needs = ["data.path=x.csv"] if path.parent.name == "data" and path.stem != "catalogue" else []
    config = compose([f"{path.parent.name}={path.stem}", *needs])
    assert from_yaml(to_yaml(config)) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cluster.n_cluster=3", "did you mean cluster.n_clusters"),
        ("cluster=kmean", "did you mean kmeans"),
        ("clean.bound.tempo=[1,2]", "clean.bounds"),
        ("scale=standart", "did you mean standard"),
        ("cluster.n_clusters=1", "cluster.n_clusters=1 is outside [2, inf)"),
        ("cluster.n_clusters=two", "could not be converted to Integer"),
        ("cluster.n_clusters=2,3", "add -m"),
        ("cluster.n_clusters", "write key=value"),
        ("cluster.min_samples=5", "belongs to cluster=hdbscan"),
        ("seed=-1", "outside [0, 4294967295]"),
        ("dtype=float16", "is not one of float32, float64"),
        ("reduce.n_components=0.0", "outside (0, inf)"),
        ("reduce.n_components=1.5", "share of the variance in (0, 1]"),
        ("data=table", "data.path is missing"),
        ("clean.bounds.tempo=[3,1]", "low end above its high end"),
        ("clean.bounds.tempo=[3]", "[low, high]"),
        ("sweep.metric=silhouete", "did you mean silhouette"),
        ("score.sample_size=1", "outside [2, inf)"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(override: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        compose([override])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["cluster=hdbscan", "cluster.min_samples=1024"],
        ["cluster=hdbscan", "cluster.min_cluster_size=1"],
        ["cluster=hdbscan", "cluster.min_cluster_size=automatic"],
        ["cluster=hdbscan", "cluster.min_cluster_size=50", "cluster.max_cluster_size=10"],
        ["cluster=gmm", "cluster.n_clusters=0"],
        ["cluster=gmm", "cluster.covariance_type=round"],
    ],
)
def test_ranges_of_the_algorithms(overrides: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        compose(overrides)


def test_what_the_ranges_allow() -> None:
    assert compose(["cluster=gmm", "cluster.n_clusters=1"]).cluster == GmmConfig(n_clusters=1)
    assert compose(["cluster=hdbscan", "cluster.min_cluster_size=auto"]).cluster == HdbscanConfig(
        min_cluster_size="auto"
    )
    assert compose(["reduce=pca", "reduce.n_components=1.0"]).reduce.n_components == 1.0
    assert compose(["reduce=pca", "reduce.n_components=3"]).reduce.n_components == 3
    assert compose(["clean.bounds.tempo=[1,null]"]).clean.bounds == {"tempo": [1.0, None]}


def test_a_sweep_is_the_product_in_the_order_given() -> None:
    planned = plan(["cluster=kmeans,gmm", "cluster.n_clusters=range(2,5)"], multirun=True)
    assert [(j.config.cluster.name, j.config.cluster.n_clusters) for j in planned.jobs] == [  # type: ignore[attr-defined]
        (name, k) for name in ("kmeans", "gmm") for k in (2, 3, 4)
    ]
    assert planned.swept == ("cluster", "cluster.n_clusters")
    assert planned.jobs[-1].swept == {"cluster": "gmm", "cluster.n_clusters": 4}


def test_a_sweep_over_algorithms_leaves_out_keys_that_are_not_theirs() -> None:
    planned = plan(["cluster=kmeans,hdbscan", "cluster.n_clusters=2,3", "cluster.min_samples=5"], multirun=True)
    assert [j.config.cluster for j in planned.jobs] == [
        KMeansConfig(n_clusters=2),
        KMeansConfig(n_clusters=3),
        HdbscanConfig(min_samples=5),
    ]


def test_every_job_of_a_sweep_is_validated_before_any_runs() -> None:
    with pytest.raises(ConfigurationError, match=r"cluster\.n_clusters=1 is outside"):
        plan(["cluster.n_clusters=3,2,1"], multirun=True)


def test_an_experiment_file_declares_its_sweep_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /scale: minmax\nseed: 7\n"
        "hydra:\n  sweeper:\n    params:\n      cluster.n_clusters: range(2,5)\n      dtype: float32,float64\n"
    )
    planned = plan(["experiments=mine"], config_dir=tmp_path)
    assert len(planned.jobs) == 6
    assert planned.is_sweep
    assert {(j.config.scale.method, j.config.seed) for j in planned.jobs} == {("minmax", 7)}
    fixed = plan(["experiments=mine", "dtype=float64"], config_dir=tmp_path)
    assert [j.config.dtype for j in fixed.jobs] == ["float64"] * 3
    narrowed = plan(["experiments=mine", "cluster.n_clusters=9,10"], multirun=True, config_dir=tmp_path)
    assert {j.config.cluster.n_clusters for j in narrowed.jobs} == {9, 10}  # type: ignore[attr-defined]


def test_a_missing_config_dir_is_said() -> None:
    with pytest.raises(ConfigurationError, match="is not a folder"):
        compose([], config_dir=Path("/nowhere/at/all"))


@given(st.sampled_from(sorted(known_keys())), st.integers(0, 30))
def test_a_key_with_a_letter_dropped_is_found_again(key: str, at: int) -> None:
    from gpuclust.config import did_you_mean

    at %= len(key)
    wrong = key[:at] + key[at + 1 :]
    assert (
        wrong in known_keys()
        or len(key) < 6
        or key in did_you_mean(wrong, known_keys())
        or "did you" in did_you_mean(wrong, known_keys())
    )


def test_a_recorded_configuration_of_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is not known here"):
        from_yaml("cluster: {name: dbscan}")
