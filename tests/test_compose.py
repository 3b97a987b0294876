"""Configuration: what composes, what is refused and how it is said, and how a sweep expands."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.registry import known_keys
from gpuclust.compose import compose, conf_dir, from_yaml, plan, to_yaml
from gpuclust.config import Config, flatten
from gpuclust.errors import ConfigurationError


def test_defaults_of_the_files_are_those_of_the_dataclasses() -> None:
    composed = flatten(compose())
    declared = flatten(Config(cluster=KMeansConfig()))
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
        ("cluster.n_clusters=[2,3]", "expects one integer; to sweep: -m cluster.n_clusters=2,3"),
        ("cluster.n_components=5", "use cluster.n_clusters"),
        ("cluster=[kmeans,gmm]", "to sweep: -m cluster=kmeans,gmm"),
        ("cluster=null", "is not one choice of cluster"),
        ("data.features=a", "write data.features=[a]"),
        ("clean.bounds.a=[x,y]", "is not [low, high]"),
        ("hydra.run.dir=x", "makes no run folders"),
        ("hydra.sweep.dir=x", "makes no run folders"),
        ("hydra.job.chdir=true", "makes no run folders"),
        ("hydra/launcher=joblib", "runs the jobs itself"),
        ("hydra/sweeper=optuna", "runs every combination"),
        ("hydra.sweeper.n_trials=3", "runs every combination"),
        ('hydra.sweeper.params={cluster.n_clusters:"2,3"}', "-m cluster.n_clusters=2,3"),
        ("hydra.verbose=true", "GPUCLUST_DEBUG=1"),
        ("hydra/job_logging=none", "GPUCLUST_DEBUG=1"),
        ("hydra.mode=MULTIRUN", "-m runs a sweep"),
        ("++hydra.foo=1", "would have no effect"),
        ("hydra=x", "would have no effect"),
        ("+foo=1", "unknown key 'foo'"),
        ("+cluster.foo=1", "unknown key 'cluster.foo'"),
        ("++unknown=1", "unknown key 'unknown'"),
        ("+seed=1", "write seed=1"),
        ("~score", "choose score=none"),
        ("~cluster.n_init", "leave the key out"),
        ("scale@foo=minmax", "names a package"),
        ("experiments=audio_spac", "did you mean audio_space"),
        ("cluster.allow_single_cluster=true", "belongs to cluster=hdbscan"),
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


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tracking.experiment=x,y"], "tracking changes no result"),
        (["tracking=mlflow,none"], "tracking changes no result"),
        (["sweep.resume=true,false"], "sweep changes no result"),
        (["report=default,none"], "report changes no result"),
        (["backend=cpu,gpu"], "backend changes no result"),
        (["analysis.gap=0,5"], "computed once for a whole sweep"),
        (["reduce.n_components=2,5"], "reduce.n_components has no effect with reduce=none"),
        (["data.path=x.csv", "data.seed=1,2"], "data.seed has no effect without data.n_rows"),
        (["cluster.tol=interval(0,1)"], "range(start,stop,step)"),
        (["scale=glob(q*)"], "has no value"),
        (["cluster.n_clusters=range(2,1000000000)"], "more than 10,000 values"),
        (["cluster.n_clusters=range(2,1000)", "seed=range(0,1000)"], "998,000 jobs"),
        (["experiments=audio_space,playlists_10k", "data.path=x.csv"], "run the studies one after another"),
    ],
)
def test_a_sweep_that_would_find_nothing_else_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        plan(overrides, multirun=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_jobs_that_do_not_differ_run_once() -> None:
    planned = plan(["reduce=none,pca", "reduce.n_components=2,5"], multirun=True)
    assert [(j.config.reduce.method, dict(j.swept)) for j in planned.jobs] == [
        ("none", {"reduce": "none"}),
        ("pca", {"reduce": "pca", "reduce.n_components": 2}),
        ("pca", {"reduce": "pca", "reduce.n_components": 5}),
    ]
    one, two = (plan(["reduce=none", *more]).jobs[0].config for more in ([], ["reduce.n_components=5"]))
    assert one == two
    assert plan(["reduce.n_components=5"]).notes == ("reduce.n_components has no effect with reduce=none",)
    assert plan(["reduce=pca", "reduce.n_components=5"]).notes == ()


def test_a_glob_takes_every_choice_that_fits() -> None:
    assert [j.config.scale.method for j in plan(["scale=glob(*)"], multirun=True).jobs] == [
        "minmax",
        "none",
        "robust",
        "standard",
        "unit",
    ]
    kept = plan(["scale=glob([*m*,r*],exclude=minmax)"], multirun=True).jobs
    assert [j.config.scale.method for j in kept] == ["robust"]


def test_a_path_chooses_the_data_where_nothing_else_does(tmp_path: Path) -> None:
    def sniff(path: str) -> str:
        return "tracks" if "tracks" in path else "table"

    def data(*overrides: str, multirun: bool = False) -> list[tuple[str, str, str | None]]:
        planned = plan(overrides, multirun=multirun, config_dir=tmp_path, sniff=sniff)
        return [(j.config.data.source, j.config.data.preset, j.config.data.path) for j in planned.jobs]

    (tmp_path / "experiments").mkdir()
    head = "# @package _global_\n"
    (tmp_path / "experiments" / "path.yaml").write_text(f"{head}data:\n  path: of_study.csv\n")
    (tmp_path / "experiments" / "made.yaml").write_text(f"{head}defaults:\n  - override /data: catalogue\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("source: file\npath: mine.csv\n")
    assert data() == [("catalogue", "tracks", None)]
    assert data("data.path=x.csv") == [("file", "none", "x.csv")]
    assert data("data.path=tracks.csv") == [("file", "tracks", "tracks.csv")]
    assert data("data=table", "data.path=tracks.csv") == [("file", "none", "tracks.csv")]
    assert data("data=tracks", "data.path=x.csv") == [("file", "tracks", "x.csv")]
    assert data("data.path=x.csv,tracks.csv", multirun=True) == [
        ("file", "none", "x.csv"),
        ("file", "tracks", "tracks.csv"),
    ]
    assert data("experiments=path") == [("file", "none", "of_study.csv")]
    assert data("experiments=path", "data.path=tracks.csv") == [("file", "tracks", "tracks.csv")]
    assert data("experiments=path,made", multirun=True) == [
        ("file", "none", "of_study.csv"),
        ("catalogue", "tracks", None),
    ]
    assert data("data=mine") == [("file", "none", "mine.csv")]
    assert data("data=table,tracks", "data.path=x.csv", multirun=True) == [
        ("file", "none", "x.csv"),
        ("file", "tracks", "x.csv"),
    ]
    assert data("experiments=audio_space", "data.path=x.csv")[0] == ("file", "tracks", "x.csv")
    for wrong in (
        ["data=catalogue", "data.path=x.csv"],
        ["experiments=made", "data.path=x.csv"],
        ["experiments=path", "data=catalogue"],
    ):
        with pytest.raises(ConfigurationError, match=r"data\.path=\w+\.csv has no effect with data=catalogue"):
            data(*wrong)


def test_a_path_needs_no_quotes_of_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("tracks (1).csv", "a,b.csv", "x=y.csv", "[z].csv", "ü.csv"):
        (tmp_path / name).touch()
        assert compose([f"data.path={tmp_path / name}"]).data.path == str(tmp_path / name)
        assert compose([f"data.path=~/{name}"]).data.path == f"~/{name}"
    assert compose(["memory.folder=~/scratch"]).memory.folder == "~/scratch"
    assert [j.config.data.path for j in plan(["data.path=~/p.csv,~/q.csv"], multirun=True).jobs] == [
        "~/p.csv",
        "~/q.csv",
    ]
    assert compose(["data.path='a b.csv'"]).data.path == "a b.csv"


def test_experiment_is_read_as_experiments_and_that_is_said() -> None:
    for override in ("experiment=audio_space", "+experiment=audio_space"):
        planned = plan([override, "data.path=x.csv"])
        assert len(planned.jobs) == 9
        assert planned.notes == ("experiment=NAME is read as experiments=NAME",)


DAMAGED = {
    "broken": ("# @package _global_\ndata: [1\n  x: :\n", "broken.yaml, line 3: "),
    "tag": ("# @package _global_\nseed: !include x\n", "tag.yaml, line 2: could not determine a constructor for the tag '!include'"),
    "python": ('# @package _global_\nseed: !!python/object/apply:os.system ["true"]\n', "python.yaml, line 2: "),
    "twice": ("# @package _global_\nseed: 1\nseed: 2\n", "twice.yaml, line 3: found duplicate key seed"),
    "key": ("# @package _global_\ncluter:\n  n: 1\n", "experiments/key.yaml: unknown key 'cluter'; did you mean cluster"),
    "type": ("# @package _global_\nseed: {a: 1}\n", "experiments/type.yaml: "),
    "headless": ("seed: 3\n", "headless.yaml sets nothing"),
    "launcher": ("# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\n", "hydra/launcher=joblib would have no effect"),
    "tracking": ("# @package _global_\nhydra:\n  sweeper:\n    params:\n      tracking.uri: a,b\n", "cannot be swept"),
    "params": ("# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: range(2\n", "cannot read 'seed=range(2'"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_study_is_one_line_that_names_the_file(name: str, tmp_path: Path) -> None:
    text, said = DAMAGED[name]
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as error:
        plan([f"experiments={name}"], config_dir=tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


VALID = [
    "cluster=gmm", "cluster.n_clusters=range(2,5)", "seed=choice(1,2)", "data.features=[a,b]", "clean.bounds.tempo=[1,null]",
    "scale=glob(*)", "cluster.tol=interval(0,1)", "sweep.name='a b'", "data.path=x.csv", "seed=shuffle(1,2)", "dtype=float32,float64",
    "cluster=tag(a,choice(kmeans,gmm))", "reduce={method: pca}", "seed=${oc.env:HOME}", "data.join={path: y}", "+experiment=audio_space",
    "~score", "hydra.run.dir=x", "data.seed=sort(3,1)", "cluster@x:y=kmeans", "data.n_rows=1e3",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid override with some characters taken out, doubled or replaced."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        inserted = draw(st.text("()[]{}=,:.~+@${}'\"\\ -0azé", max_size=2))
        text = text[:at] + inserted + text[at + draw(st.integers(0, 2)) :]
    return text


@settings(max_examples=int(os.environ.get("GPUCLUST_FUZZ_EXAMPLES", "60")))
@given(st.lists(mutated() | st.text(max_size=12) | st.sampled_from(VALID), min_size=1, max_size=2), st.booleans())
def test_no_override_whatever_ends_in_another_error(overrides: list[str], multirun: bool) -> None:
    try:
        planned = plan(overrides, multirun=multirun)
    except ConfigurationError as error:
        said = str(error)
    else:
        said = f"{len(planned.jobs)} jobs"
        assert planned.jobs
    assert len(said.splitlines()) == 1


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
        from_yaml("cluster: {name: absent}")
