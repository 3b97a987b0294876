"""A campaign of faults: kills, full disks and faulty servers. A sample runs always; the whole of it with ``-m campaign``.

After each fault the same command is repeated. Nothing may end in a traceback, no job that was recorded may be lost, none may be
recorded twice, and nothing may be left RUNNING or wait for ever.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gpuclust.tracking.opening import inspect
from tests.faults import Commands, Ended, Proxy, resize, small_disk, tracking_server

DATA = [
    "data=catalogue",
    "data.n_rows=200",
    "data.features=[energy,valence]",
    "report=none",
    "cluster.n_init=1",
    "score=quick",
]
SWEEP = ["-m", *DATA, "cluster.n_clusters=2,3,4", "tracking.retry_seconds=4"]
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "15", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
MAX_SECONDS = 400


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as server:
        yield server


@pytest.fixture(scope="module")
def warm(commands: Commands, tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with a finished sweep and its export, made after the kernels were compiled."""
    folder = tmp_path_factory.mktemp("warm")
    store(folder, store_template)
    assert commands.run(folder, SWEEP).status == 0
    assert commands.run(folder, ["export", "best", "--out", "out"]).status == 0
    assert commands.run(folder, ["playlist", "out", "--cluster", "0", "--size", "3"]).status == 0
    return folder


def store(folder: Path, template: Path) -> None:
    (folder / "gpuclust-runs").mkdir(parents=True, exist_ok=True)
    shutil.copy(template, folder / "gpuclust-runs" / "mlflow.db")


def runs(database: Path) -> list[tuple[str, str, str, str]]:
    """Kind, key, status and id of every run that is not deleted."""
    query = (
        "SELECT k.value, j.value, r.status, r.run_uuid FROM runs r JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = "
        "'gpuclust.kind' JOIN tags j ON j.run_uuid = r.run_uuid AND j.key = 'gpuclust.key' WHERE r.lifecycle_stage = 'active'"
    )
    if not database.exists():
        return []
    with closing(sqlite3.connect(database, timeout=60)) as db:
        return db.execute(query).fetchall()


def finished(database: Path) -> set[str]:
    return {run_id for kind, _, status, run_id in runs(database) if kind == "job" and status == "FINISHED"}


def check_end(ended: Ended, database: Path, before: set[str], n_jobs: int = 3) -> None:
    """What must hold after the same command was repeated: all jobs once, one parent, nothing lost, nothing open."""
    assert ended.status == 0, ended.err
    assert "Traceback" not in ended.err
    assert ended.seconds < MAX_SECONDS
    found = runs(database)
    counted = Counter(key for kind, key, status, _ in found if kind == "job" and status == "FINISHED")
    assert len(counted) == n_jobs
    assert set(counted.values()) == {1}, "a job was recorded twice"
    assert before <= finished(database), "a job was lost"
    assert [status for kind, _, status, _ in found if kind == "sweep"] == ["FINISHED"]
    assert "RUNNING" not in {status for _, _, status, _ in found}


def check_fault(ended: Ended, database: Path | None = None) -> None:
    """What must hold when a command ended by a fault: one line, a status that tells the truth, and an end."""
    assert "Traceback" not in ended.err + ended.out, ended.err
    assert len(ended.complaints) == 1, ended.err
    assert ended.status in (1, 2), ended.err
    assert ended.seconds < MAX_SECONDS
    if ended.status == 2 and database is not None:
        assert not finished(database), "exit status 2 says that nothing was run"


def kill_in_creation(commands: Commands, folder: Path, moment: int) -> None:
    killed = commands.run(folder, SWEEP, moment=moment)
    database = folder / "gpuclust-runs" / "mlflow.db"
    assert killed.status == -9
    assert not database.exists() or inspect(database).ready
    check_end(commands.run(folder, SWEEP), database, finished(database))


def kill_in_sweep(commands: Commands, folder: Path, template: Path, moment: int) -> None:
    store(folder, template)
    database = folder / "gpuclust-runs" / "mlflow.db"
    assert commands.run(folder, SWEEP, moment=moment).status == -9
    check_end(commands.run(folder, SWEEP), database, finished(database))
    exported = commands.run(folder, ["export", "best", "--out", "out"])
    assert exported.status == 0, exported.err


def kill_in_export(commands: Commands, folder: Path, warm: Path, moment: int, *, force: bool) -> None:
    shutil.copytree(warm / "gpuclust-runs", folder / "gpuclust-runs")
    if force:
        shutil.copytree(warm / "out", folder / "out")
    store_options = ["--uri", f"sqlite:///{warm / 'gpuclust-runs' / 'mlflow.db'}"]
    command = ["export", "best", "--out", "out", *store_options, *(["--force"] if force else [])]
    assert commands.run(folder, command, moment=moment).status == -9
    if force or (folder / "out").exists():
        assert (folder / "out" / "manifest.json").is_file()
    repeated = commands.run(folder, [*command, "--force"] if not force else command)
    assert repeated.status == 0, repeated.err
    assert sorted(p.name for p in folder.iterdir()) == ["gpuclust-runs", "out"], "a hidden copy stays"


def kill_in_index(commands: Commands, folder: Path, warm: Path, moment: int) -> None:
    shutil.copytree(warm / "out", folder / "out")
    for index in folder.rglob("*index*"):
        shutil.rmtree(index) if index.is_dir() else index.unlink()
    command = ["playlist", "out", "--cluster", "0", "--size", "3"]
    killed = commands.run(folder, command, moment=moment)
    assert killed.status in (-9, 0)
    repeated = commands.run(folder, command)
    assert repeated.status == 0, repeated.err


def writes(commands: Commands, folder: Path, arguments: list[str]) -> int:
    """How often a command writes when nothing goes wrong."""
    ended = commands.run(folder, arguments)
    assert ended.status == 0, ended.err
    assert ended.n_writes
    return ended.n_writes


def moments(n: int, last: int, seed: int) -> list[int]:
    """So many moments of a command that writes ``last`` times: one in each of ``n`` equal parts."""
    rng = random.Random(seed)
    return [max(1, int((i + rng.random()) * last / n)) for i in range(n)]


def test_a_sweep_that_is_killed_is_resumed_without_loss(
    commands: Commands, tmp_path: Path, store_template: Path
) -> None:
    store(tmp_path / "whole", store_template)
    n = writes(commands, tmp_path / "whole", SWEEP)
    (tmp_path / "killed").mkdir()
    kill_in_sweep(commands, tmp_path / "killed", store_template, int(0.9 * n))


def test_an_export_that_is_killed_can_be_repeated(commands: Commands, tmp_path: Path, warm: Path) -> None:
    for i, (moment, force) in enumerate([(8, False), (8, True)]):
        folder = tmp_path / str(i)
        folder.mkdir()
        kill_in_export(commands, folder, warm, moment, force=force)


@pytest.mark.campaign
@pytest.mark.timeout(14_400)
def test_campaign_of_50_kills(commands: Commands, tmp_path: Path, warm: Path, store_template: Path, seed: int) -> None:
    def fresh(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    creation = writes(commands, fresh("whole creation"), SWEEP)
    whole = fresh("whole")
    store(whole, store_template)
    sweep = writes(commands, whole, SWEEP)
    export = writes(commands, whole, ["export", "best", "--out", "out"])
    for path in whole.glob("**/*index*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    index = writes(commands, whole, ["playlist", "out", "--cluster", "0", "--size", "3"])
    print(f"writes: first command {creation}, sweep {sweep}, export {export}, index {index}")
    for i, moment in enumerate(moments(12, creation - sweep, seed)):
        kill_in_creation(commands, fresh(f"creation {i}"), moment)
    for i, moment in enumerate(moments(14, sweep, seed + 1)):
        kill_in_sweep(commands, fresh(f"sweep {i}"), store_template, moment)
    for i, moment in enumerate(moments(8, sweep // 8, seed + 2)):  # the chosen model and what follows come last
        kill_in_sweep(commands, fresh(f"model {i}"), store_template, sweep - moment)
    for i, moment in enumerate(moments(10, export, seed + 3)):
        kill_in_export(commands, fresh(f"export {i}"), warm, moment, force=i % 2 == 1)
    for i, moment in enumerate(moments(6, index, seed + 4)):
        kill_in_index(commands, fresh(f"index {i}"), warm, moment)


def full_disk(commands: Commands, folder: Path, template: Path, size: int) -> None:
    """A sweep on a disk that is too small, repeated when there is space."""
    disk = folder / "disk"
    with small_disk(disk, size):
        if size > 1_700_000:
            store(disk, template)
        database = disk / "gpuclust-runs" / "mlflow.db"
        ended = commands.run(disk, SWEEP, environment={"TMPDIR": str(disk)})
        if ended.status:
            check_fault(ended, database)
        before = finished(database)
        resize(disk, 64 << 20)
        check_end(commands.run(disk, SWEEP), database, before)


def test_a_full_disk_is_one_line_and_what_finished_is_kept(
    commands: Commands, tmp_path: Path, store_template: Path
) -> None:
    try:
        full_disk(commands, tmp_path, store_template, 1_800_000)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")


def test_a_file_that_may_not_grow_is_a_full_disk(commands: Commands, tmp_path: Path, store_template: Path) -> None:
    store(tmp_path, store_template)
    database = tmp_path / "gpuclust-runs" / "mlflow.db"
    ended = commands.run(tmp_path, SWEEP, largest_file=database.stat().st_size + 20_000)
    check_fault(ended, database)
    check_end(commands.run(tmp_path, SWEEP), database, finished(database))


@pytest.mark.campaign
@pytest.mark.timeout(14_400)
def test_campaign_of_10_full_disks(commands: Commands, tmp_path: Path, store_template: Path) -> None:
    sizes = [65_536, 400_000, 1_000_000, 1_500_000, 1_750_000, 1_800_000, 1_900_000, 2_000_000, 2_200_000, 2_500_000]
    for i, size in enumerate(sizes):
        try:
            full_disk(commands, tmp_path / str(i), store_template, size)
        except OSError as error:
            pytest.skip(f"no file system can be mounted here: {error}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[tuple[int, Path]]:
    """The port of a real tracking server, and its database."""
    import socket

    folder = tmp_path_factory.mktemp("server")
    shutil.copy(store_template, folder / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tracking_server(folder, f"sqlite:///{folder / 'mlflow.db'}", port):
        yield port, folder / "mlflow.db"


# Fault -> from which request on, and the status that the command ends with.
SERVERS = {
    "401": (0, 2), "500": (0, 2), "html": (0, 2), "flaky": (0, 0), "drop": (0, 0), "slow": (0, 0), "hang": (45, 1),
    "dies": (45, 1),
}  # fmt: skip


def faulty_server(commands: Commands, folder: Path, server: tuple[int, Path], fault: str) -> None:
    """A sweep against a server with a fault, repeated when the fault is gone."""
    port, database = server
    after, status = SERVERS[fault]
    kept = {run_id for *_, run_id in runs(database)}
    proxy = Proxy(port, fault, after)
    command = [
        *SWEEP,
        f"tracking.experiment={folder.name}-{fault}",
        f"tracking.uri=http://127.0.0.1:{proxy.port}",
        f"seed={len(fault)}",
    ]
    try:
        ended = commands.run(folder, command, environment=PATIENT)
        assert ended.status == status, ended.err
        if status:
            check_fault(ended)
        before = finished(database) - kept
        assert status != 2 or not before
        proxy.healed.set()
        again = commands.run(folder, command, environment=PATIENT)
        assert again.status == 0, again.err
        found = [run for run in runs(database) if run[3] not in kept]
        counted = Counter(key for kind, key, state, _ in found if kind == "job" and state == "FINISHED")
        assert sorted(counted.values()) == [1, 1, 1]
        assert before <= finished(database)
        assert [state for kind, _, state, _ in found if kind == "sweep"] == ["FINISHED"]
        assert "RUNNING" not in {state for _, _, state, _ in found}
    finally:
        proxy.close()


def test_a_server_that_dies_is_one_line_and_the_sweep_goes_on_when_it_is_back(
    commands: Commands, tmp_path: Path, server: tuple[int, Path]
) -> None:
    faulty_server(commands, tmp_path, server, "dies")


@pytest.mark.campaign
@pytest.mark.timeout(14_400)
def test_campaign_of_8_faulty_servers(commands: Commands, tmp_path: Path, server: tuple[int, Path]) -> None:
    for fault in SERVERS:
        faulty_server(commands, tmp_path, server, fault)
