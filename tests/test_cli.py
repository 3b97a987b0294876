"""The command line as a user meets it: each kind of wrong input is one line and exit status 2, and nothing is left."""

import gzip
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpuclust.cli import COMMANDS, main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_template: Path) -> Path:
    """An empty folder to work in, with a store beside it."""
    monkeypatch.delenv("GPUCLUST_DEBUG", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "mlflow.db").write_bytes(store_template.read_bytes())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def table(path: Path, n: int = 60) -> Path:
    rng = np.random.default_rng(0)
    pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "t": "text"}).to_csv(path, index=False)
    return path


def test_a_job_from_a_file_ends_in_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "t.csv")
    assert main(["data=table", "data.path=t.csv", "cluster.n_clusters=3"]) == 0
    out = capsys.readouterr().out
    assert "gpuclust export" in out
    assert "gpuclust ui" in out


WRONG = {
    "missing file": (["data=table", "data.path=none.csv"], "does not exist"),
    "a near name": (["data=table", "data.path=tabel.csv"], "table.csv"),
    "empty file": (["data=table", "data.path=empty.csv"], "empty"),
    "binary junk": (["data=table", "data.path=junk.csv"], "junk.csv"),
    "corrupt Parquet": (["data=table", "data.path=bad.parquet"], "bad.parquet"),
    "corrupt gzip": (["data=table", "data.path=bad.csv.gz"], "bad.csv.gz"),
    "no numeric column": (["data=table", "data.path=text.csv"], "no numeric"),
    "unknown column": (["data=table", "data.path=table.csv", "data.features=[aa,b]"], "aa"),
    "all rows cleaned away": (["data=table", "data.path=table.csv", "clean.bounds.a=[100,null]"], "cleaning left none"),
    "a mistyped key": (["cluster.n_cluster=3"], "did you mean cluster.n_clusters"),
    "a mistyped choice": (["cluster=kmean"], "did you mean kmeans"),
    "a mistyped command": (["exprt", "best"], "did you mean export"),
    "a path that is ignored": (["data=catalogue", "data.path=table.csv"], "has no effect with data=catalogue"),
    "a home of nobody": (["data.path=~nosuchuser/x.csv"], "write the folder's path"),
    "a launcher": (["-m", "hydra/launcher=joblib", "seed=0,1"], "hydra/launcher=joblib would have no effect"),
    "a run folder": (["hydra.run.dir=x"], "gpuclust makes no run folders"),
    "a deletion": (["~score"], "choose score=none"),
    "a sweep over tracking": (["-m", "tracking.experiment=x,y"], "changes no result"),
    "an option of Hydra": (["--resolve", "seed=1"], "--cfg prints it"),
    "Hydra's own configuration": (["--cfg", "all"], "--cfg job prints the configuration"),
    "an option that is not": (["--multi", "--colour", "seed=1"], "gpuclust run --help shows the options"),
    "an export without a folder": (["export", "best"], "--out"),
    "nothing to sweep": (["-m"], "-m needs values to sweep"),
    "a range": (["cluster.n_clusters=1"], "outside [2, inf)"),
    "no path": (["data=table"], "data.path is missing"),
    "a GPU that is not there": (["backend=gpu"], "backend=gpu cannot run here"),
    "an unreachable server": (["data.n_rows=100", "tracking.uri=http://127.0.0.1:9"], "cannot be used"),
    "a folder": (["data=table", "data.path=folder"], "folder"),
    "too many components": (["data.n_rows=100", "reduce=pca", "reduce.n_components=11"], "reduce.n_components=11"),
    "no store": (["export", "best", "--out", "o", "--uri", "sqlite:///none.db"], "no tracking store"),
    "no run": (["export", "best", "--out", "o"], "no experiment gpuclust"),
    "no metric": (["export", "best", "--out", "o", "--metric", "silhouete"], "did you mean silhouette"),
    "no model": (["predict", "folder", "table.csv", "--out", "o.parquet"], "holds no model"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "table.csv")
    (here / "folder").mkdir()
    (here / "empty.csv").touch()
    (here / "junk.csv").write_bytes(np.random.default_rng(0).bytes(5000))
    (here / "bad.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (here / "bad.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:25])
    (here / "text.csv").write_text("x,y\nred,blue\ngreen,white\n")
    before = sorted(p.name for p in here.iterdir())
    arguments, said = WRONG[case]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    (line,) = [text for text in err.splitlines() if text.startswith("gpuclust: ")]
    assert said in line
    assert "Traceback" not in err
    assert sorted(p.name for p in here.iterdir()) == before


def test_more_clusters_than_rows_is_a_failed_job(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "t.csv")
    assert main(["-m", "data=table", "data.path=t.csv", "cluster.n_clusters=2,61,3"]) == 1
    captured = capsys.readouterr()
    assert "61 is more than the 60" in captured.err
    assert "1 of 3 jobs failed; the others are kept" in captured.out


def test_one_job_that_fails_is_said_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "t.csv")
    assert main(["data.path=t.csv", "cluster.n_clusters=61"]) == 1
    assert "The job failed.\n" in capsys.readouterr().out


def test_debug_shows_the_traceback(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUCLUST_DEBUG", "1")
    assert main(["data=table", "data.path=none.csv"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuclust.pipeline import run_files as artifacts

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "leaderboard.csv")

    monkeypatch.setattr(artifacts, "leaderboard_csv", full)
    assert main(["-m", "data.n_rows=300", "cluster.n_clusters=2,3", "report=none"]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("gpuclust: ")]
    assert "No space left on device: leaderboard.csv; check that it is writable and has space" in line
    assert "2 of 2 jobs are recorded and kept; the same command continues from there" in line


def test_a_path_is_clustered_and_no_catalogue(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "t.csv", n=70)
    assert main(["data.path=t.csv", "cluster.n_clusters=3"]) == 0
    assert inputs(here) == {("t.csv", 70)}
    for path in ("../work/t.csv", str(here / "t.csv")):
        assert main(["data.path=" + path, "cluster.n_clusters=3"]) == 0
    assert capsys.readouterr().err.count("reused (already finished)") == 2


def test_the_columns_of_tracks_choose_the_preset_and_that_is_said(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuclust.tracks.catalogue import catalogue

    frame = catalogue(200, seed=1).assign(key=np.arange(200) % 12)
    frame.to_csv(here / "tracks.csv", index=False)
    monkeypatch.setenv("HOME", str(here))
    assert main(["--cfg", "data.path=~/tracks.csv"]) == 0
    said = capsys.readouterr().out
    assert "preset: tracks" in said
    assert "so data=tracks (data=table uses every numeric column)" in said
    frame.drop(columns=["title"]).to_csv(here / "no_titles.csv", index=False)
    assert main(["--cfg", "data.path=no_titles.csv"]) == 0
    assert "preset: none" in capsys.readouterr().out
    assert main(["data.path=~/tracks.csv", "cluster.n_clusters=3", "report=none", "score=none"]) == 0
    assert inputs(here) == {("tracks.csv", 200)}


def inputs(here: Path) -> set[tuple[str, int]]:
    """The name and the number of rows of each table that a run was given."""
    with sqlite3.connect(here.parent / "mlflow.db") as store:
        return {
            (name, json.loads(profile)["num_rows"])
            for name, profile in store.execute("select name, dataset_profile from datasets")
        }


def test_rows_and_features_are_always_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a job, in the same job found again, also by a run that does not hold the line, and for each file of a sweep."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=["a", "b", "c"])
    frame.loc[:99, "c"] = np.nan
    frame.to_csv(here / "t.csv", index=False)
    frame.iloc[150:].to_csv(here / "u.csv", index=False)
    rows = "200 of 300 rows (100 lack c) × 3 features: a, b, c"
    warning = "warning: 100 of 300 rows (33%) were dropped"

    def said(*arguments: str) -> list[str]:
        assert main([*arguments, "report=none", "score=none"]) == 0
        return capsys.readouterr().err.splitlines()

    for again in (False, True, True):
        lines = said("data.path=t.csv", "cluster.n_clusters=3")
        assert lines.count(rows) == 1
        assert sum(line.startswith(warning) for line in lines) == 1
        assert any("reused" in line for line in lines) == again
        if again:
            with sqlite3.connect(here.parent / "mlflow.db") as store:
                store.execute("delete from tags where key = 'gpuclust.table'")
    for _ in range(2):
        lines = said("-m", "data.path=t.csv,u.csv", "cluster.n_clusters=2,3")
        assert lines.count(f"data.path=t.csv: {rows}") == 1
        assert lines.count("data.path=u.csv: 150 rows × 3 features: a, b, c") == 1
        assert sum(warning in line for line in lines) == 1


def test_describe_reads_a_table_of_tracks_as_a_job_does(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpuclust.tracks.catalogue import catalogue

    catalogue(200, seed=1).assign(other=np.linspace(0, 1, 200)).to_csv(here / "tracks.csv", index=False)
    assert main(["describe", "tracks.csv"]) == 0
    assert "next: gpuclust -m data=tracks " in capsys.readouterr().out
    assert main(["describe", "tracks.csv", "--preset", "none"]) == 0
    assert "next: gpuclust -m data=table " in capsys.readouterr().out


def test_a_sweep_over_files_clusters_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "one.csv", n=60)
    table(here / "two.csv", n=80)
    assert main(["-m", "data.path=one.csv,two.csv", "cluster.n_clusters=2", "report=none"]) == 0
    assert {name for name, _ in inputs(here)} == {"one.csv", "two.csv"}


@pytest.mark.parametrize("arguments", [[], ["run"], ["--help"]])
def test_nothing_to_do_is_help(arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "gpuclust demo" in out
    assert "exit status" in out
    assert not list(here.iterdir())


def test_a_demo_is_the_catalogue(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--cfg"]) == 0
    assert "n_rows: 20000" in capsys.readouterr().out
    assert main(["demo", "data.n_rows=300", "cluster.n_clusters=2", "report=none", "score=none"]) == 0
    assert {n for _, n in inputs(here)} == {300}


def test_the_experiment_of_the_environment_is_used_where_none_is_given(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ["data=catalogue", "data.n_rows=300", "cluster.n_clusters=2", "report=none", "score=none"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    assert main(quick) == 0
    assert main([*quick, "tracking.experiment=given"]) == 0
    assert main(["export", "best", "--out", "out"]) == 0
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    assert main(["--cfg", "seed=1"]) == 0
    assert "experiment: gpuclust" in capsys.readouterr().out
    with sqlite3.connect(here.parent / "mlflow.db") as store:
        names = {
            name
            for (name,) in store.execute("select experiments.name from experiments join runs using (experiment_id)")
        }
    assert names == {"of the environment", "given"}


def test_a_repeated_sweep_says_that_nothing_was_run_and_the_last_line_sums_up(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(here / "t.csv")
    (here / "kmeans-k3").mkdir()
    command = ["-m", "data.path=t.csv", "cluster.n_clusters=2,3", "report=none"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "nothing to do" not in out
    last = out.splitlines()[-1]
    assert re.match(r"Chosen: kmeans k=[23] \(silhouette 0\.\d{4}\)\. The verdict ", last)
    other = 5 - int(last[len("Chosen: kmeans k=")])
    folder = {2: "kmeans-k2", 3: "kmeans-k3-2"}[other]
    assert last.endswith(f"gpuclust export best --where n_clusters={other} --out {folder}")
    assert main(command) == 0
    assert "nothing to do: " in capsys.readouterr().out


def test_cfg_of_a_sweep_lists_its_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    from gpuclust.compose import from_yaml

    assert main(["-m", "--cfg", "job", "cluster=kmeans,hdbscan", "cluster.n_clusters=2,3", "data=catalogue"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("#   ")] == [
        "#   kmeans k=2: cluster=kmeans cluster.n_clusters=2",
        "#   kmeans k=3: cluster=kmeans cluster.n_clusters=3",
        "#   hdbscan min_cluster_size=default: cluster=hdbscan",
    ]
    assert from_yaml(out).cluster.n_clusters == 2  # type: ignore[attr-defined]


def test_a_folder_of_configuration_by_its_short_option(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine" / "experiments").mkdir(parents=True)
    (here / "mine" / "experiments" / "seven.yaml").write_text("# @package _global_\nseed: 7\n")
    assert main(["-cd", "mine", "experiments=seven", "-c", "job"]) == 0
    assert "seed: 7" in capsys.readouterr().out


def test_cfg_prints_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    from gpuclust.compose import compose, from_yaml

    assert main(["--cfg", "cluster=gmm", "seed=4"]) == 0
    assert from_yaml(capsys.readouterr().out) == compose(["cluster=gmm", "seed=4"])


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([command, "--help"])
    assert leave.value.code == 0
    assert f"gpuclust {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.campaign),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.campaign),  # test_campaign.py kills a sweep in each run
    ],
)
def test_an_interrupted_sweep_goes_on_where_it_was(here: Path, sent: int, status: int) -> None:
    command = [sys.executable, "-m", "gpuclust", "-m", "data.n_rows=10000", "cluster.n_clusters=range(2,9)",
               "cluster.engine=library", "score=none", "report=none"]  # fmt: skip
    store = sqlite3.connect(here.parent / "mlflow.db")

    def states() -> dict[str, int]:
        query = "select status, count(*) from runs where name like 'kmeans k%' group by status"
        return dict(store.execute(query).fetchall())

    def hang_up_is_not_ignored() -> None:  # as it is below nohup, where gpuclust goes on
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hang_up_is_not_ignored
    ) as process:
        deadline = time.monotonic() + 300
        while states().get("FINISHED", 0) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(sent)
        process.communicate(timeout=300)
    assert process.returncode == status
    finished = states()["FINISHED"]
    assert finished < 7
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("reused (already finished)") == finished
    assert again.stderr.count("done") == 7 - finished
    assert dict(store.execute("select status, count(*) from runs group by status").fetchall()).keys() <= {
        "FINISHED",
        "KILLED",
    }
    (parents,) = store.execute("select count(*) from tags where key = 'gpuclust.kind' and value = 'sweep'").fetchone()
    assert parents == 1
    store.close()


def test_much_noise_is_a_warning_on_the_terminal_and_the_export_says_it_too(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    dense = [rng.normal(c, 0.02, size=(60, 3)) for c in range(2)]
    frame = pd.DataFrame(np.concatenate([*dense, rng.uniform(-3, 4, size=(480, 3))]), columns=["a", "b", "c"])
    frame.to_csv(here / "noisy.csv", index=False)
    assert main(["data.path=noisy.csv", "cluster=hdbscan", "cluster.min_cluster_size=30", "report=none"]) == 0
    said = capsys.readouterr()
    (warning,) = [line for line in said.out.splitlines() if line.startswith("warning: ")]
    assert re.search(r"\d+ of 600 rows are in a cluster; the other \d+% are noise", warning)
    assert "with noise -0." in said.err or "with noise 0." in said.err
    assert main(["export", "best", "--out", "out"]) == 0
    assert warning in capsys.readouterr().out


def test_runs_carry_the_study_and_no_parameter_that_is_not_set(here: Path, tmp_path: Path) -> None:
    from gpuclust.tracking.mlflow import MlflowRecorder

    (tmp_path / "conf" / "experiments").mkdir(parents=True)
    study = "# @package _global_\ncluster:\n  n_clusters: 3\nhydra:\n  sweeper:\n    params:\n      seed: 1,2\n"
    (tmp_path / "conf" / "experiments" / "mine.yaml").write_text(study)
    table(here / "t.csv")
    assert main(["--config-dir", str(tmp_path / "conf"), "experiments=mine", "data.path=t.csv", "report=none"]) == 0
    recorder = MlflowRecorder()
    runs = list(recorder.search(""))
    assert len(runs) == 3
    for run in runs:
        assert run.data.params["experiments"] == "mine"
        assert not {k for k, v in run.data.params.items() if v in ("None", "[]", "")}
    (child, _) = recorder.jobs()
    (parent,) = recorder.sweeps()
    for run in (child, parent):
        assert (run.params["features"], run.params["n_features"]) == ("a, b", "2")
    assert parent.metrics["silhouette"] == max(job.metrics["silhouette"] for job in recorder.jobs())
    assert recorder.client.get_run(parent.run_id).inputs.dataset_inputs[0].dataset.name == "t.csv"


def test_auto_shows_its_size_in_the_name_of_the_run(here: Path) -> None:
    from gpuclust.tracking.mlflow import MlflowRecorder

    table(here / "t.csv", n=200)
    assert main(["data.path=t.csv", "cluster=hdbscan", "cluster.min_cluster_size=auto", "report=none"]) == 0
    (job,) = MlflowRecorder().jobs()
    assert job.name == f"hdbscan min_cluster_size=auto ({job.metrics['min_cluster_size']:.0f})"


@pytest.mark.parametrize(
    ("kind", "sizes", "own", "said"),
    [
        ("clear", (6,), 6, "The verdict advises 6 clusters, as chosen."),
        ("clear", (6,), 2, "The verdict advises 6 clusters."),
        ("clear", (1,), 2, "The verdict advises 1 cluster."),
        ("several", (5, 6), 5, "The verdict advises 5 or 6 clusters."),
        ("none", (), 2, "The verdict finds no natural number of clusters: pick the one that suits your use."),
        ("open", (7,), 7, "The verdict is open: sweep more sizes."),
    ],
)
def test_the_advice_of_every_verdict(kind: str, sizes: tuple[int, ...], own: int, said: str) -> None:
    from gpuclust.cli import _advice

    assert _advice(kind, sizes, own) == said


def test_a_sweep_over_scales_offers_the_best_of_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "t.csv")
    sweep = ["-m", "data.path=t.csv", "cluster.n_clusters=2", "scale=none,standard", "report=none"]
    assert main(sweep) == 0
    out = capsys.readouterr().out
    assert "no job is chosen, because silhouette cannot be compared" in out
    offered = [line.split() for line in out.splitlines() if line.startswith("  gpuclust export ")]
    assert [words[-1] for words in offered] == ["scale=none", "scale=standard"]
    for words in offered:
        assert main(words[1:5]) == 0
    assert main(["export", "best", "--out", "o"]) == 2
    assert "--where scale=VALUE" in capsys.readouterr().err
