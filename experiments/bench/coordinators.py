"""Two coordinators on one store, killed at random: the same sweep is started twice at once, and processes are killed with SIGKILL.

    python experiments/bench/coordinators.py --kills 50             # on a PostgreSQL of its own, about ten minutes on two cores
    python experiments/bench/coordinators.py --kills 50 --uri URI   # on another store

Rounds of one sweep follow one another until there were so many kills. In a round two coordinators run the same command; after a random time
one of them is killed and started again, at most `KILLS_A_ROUND` times, and then both may end. At the end of a round each job of the sweep
must be finished (a job that is not is lost) once (a job that is finished twice is doubled), under one finished parent, and
the command repeated must find nothing to do. The sweep is small on purpose, because the store is tested and not the fits.

PostgreSQL is Debian's (apt-get install postgresql), in a temporary folder, on the loopback address.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from common import heading, write

from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.recorder import FINISHED, KEY, KIND, RUNNING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # tests/postgres.py starts the server
SIZES = range(2, 12)
KILLS_A_ROUND = 5
SEED = 0
TARGET = {"lost": 0, "doubled": 1}


@dataclass
class Found:
    """What a round left in the store, in runs."""

    lost: int = 0
    doubled: int = 0
    parents: int = 0
    running: int = 0
    kills: int = 0
    seconds: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Run rounds until there were enough kills, and write results/coordinators.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--uri", help="a tracking store that exists; by default a PostgreSQL of its own")
    options = parser.parse_args()
    facts = heading("Two coordinators, one store, kill -9", f"{options.kills} kills, {len(SIZES)} jobs a sweep")
    rng, rounds = random.Random(SEED), []
    with store(options.uri) as uri:
        while sum(found.kills for found in rounds) < options.kills:
            left = options.kills - sum(found.kills for found in rounds)
            rounds.append(one_round(uri, f"round-{len(rounds)}", min(left, KILLS_A_ROUND), rng))
            found = rounds[-1]
            print(
                f"round {len(rounds)}: {found.kills} kills, {found.lost} lost, {found.doubled} doubled, "
                f"{found.parents} parents, {found.running} left running, {found.seconds:.0f} s",
                flush=True,
            )
    total = {name: sum(getattr(found, name) for found in rounds) for name in ("kills", "lost", "doubled", "running")}
    total["parents too many"] = sum(found.parents - 1 for found in rounds)
    stages = sum((found.stages for found in rounds), Counter())
    print(f"{total}; killed {dict(stages)}")
    print(f"target: {TARGET['lost']} lost, at most {TARGET['doubled']} doubled")
    write(
        "coordinators", {"environment": facts, "target": TARGET, "rounds": len(rounds), **total, "killed": dict(stages)}
    )


@contextmanager
def store(uri: str | None) -> Iterator[str]:
    """The store at an address, or a new PostgreSQL database."""
    if uri is not None:
        yield uri
        return
    from tests.postgres import running

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with running(port) as server:
        yield server.database()


def one_round(uri: str, experiment: str, n_kills: int, rng: random.Random) -> Found:
    """Two coordinators of one sweep in a new experiment, of which one is killed so many times."""
    began, found = time.perf_counter(), Found()
    with TemporaryDirectory() as folder:
        both = [Coordinator(uri, experiment, Path(folder)) for _ in range(2)]
        while found.kills < n_kills and any(one.is_alive for one in both):
            victim = rng.choice([one for one in both if one.is_alive])
            if victim.killed_after(rng.uniform(0.0, 4.0)):
                found.kills += 1
                found.stages[victim.stage] += 1
                both[both.index(victim)] = Coordinator(uri, experiment, Path(folder))
        for one in both:
            one.ended()
        last = Coordinator(uri, experiment, Path(folder))
        last.ended()
        assert "nothing to do" in last.output, last.output
    runs = [
        (run.data.tags[KIND], run.data.tags[KEY], run.info.status) for run in MlflowRecorder(uri, experiment).search("")
    ]
    finished = Counter(key for kind, key, status in runs if kind == "job" and status == FINISHED)
    found.lost = len(SIZES) - len(finished)
    found.doubled = sum(n - 1 for n in finished.values())
    found.parents = sum(kind == "sweep" for kind, _, _ in runs)
    found.running = sum(status == RUNNING for _, _, status in runs)
    found.seconds = time.perf_counter() - began
    return found


class Coordinator:
    """A process of the command line that runs the sweep."""

    def __init__(self, uri: str, experiment: str, folder: Path) -> None:
        command = [sys.executable, "-m", "gpuclust", "-m", "data=catalogue", "data.n_rows=5000", "cluster.n_init=2"]
        command += [f"cluster.n_clusters=range({SIZES.start},{SIZES.stop})", "tracking.models=none"]
        environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": experiment}
        self._log = folder / f"{time.monotonic_ns()}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._log.read_text()

    @property
    def stage(self) -> str:
        """How far it came, in words."""
        n_done = self.output.count(" done ")
        return (
            "before the first job" if n_done == 0 else "between jobs" if n_done < len(SIZES) else "after its last job"
        )

    def killed_after(self, seconds: float) -> bool:
        """Kill it so many seconds after it opened the store; whether it was alive then."""
        while self.is_alive and "Using CPU" not in self.output:
            time.sleep(0.02)
        deadline = time.monotonic() + seconds
        while self.is_alive and time.monotonic() < deadline:
            time.sleep(0.005)
        if not self.is_alive:
            return False
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return True

    def ended(self) -> None:
        """Wait until it ends by itself, with status 0."""
        assert self._process.wait(600) == 0, self.output


if __name__ == "__main__":
    main()
