"""The workers of a Dask cluster and the tasks that they run. The only file that imports Dask."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import numba

from gpuclust import __version__
from gpuclust.config import WorkersConfig
from gpuclust.errors import BackendError, ConfigurationError, GpuclustError

CONNECT_SECONDS = 10.0
WORKER_SECONDS = 30.0
"""How long gpuclust waits for a worker when a cluster has none."""
MAX_LOCAL = 4
"""The largest number of workers that are started on this machine if `workers.count` is not given."""
LOOK_SECONDS = 2.0
"""The time between two checks of the list of workers."""
RETRIES = 3

T = TypeVar("T")
Say = Callable[[str], None]


def no_display(_: str, __: float = 0.0) -> None:
    """The display of a caller that has none."""


@dataclass(frozen=True)
class Worker:
    """One worker: its address, its machine and the machine's cores, its memory limit in bytes (None: no limit), and its package
    versions."""

    address: str
    host: str
    cores: int
    memory: int | None
    versions: Mapping[str, str]


class Workers:
    """A connection to the scheduler of a cluster. Its methods raise BackendError, with a message of one line, if the cluster cannot be
    used."""

    def __init__(self, client: Any, cluster: Any = None) -> None:
        self.client, self._cluster = client, cluster
        self.scheduler = str(client.scheduler.address)
        self._alone_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection is still open."""
        return self.client.status == "running"

    def close(self) -> None:
        """End the connection, and the processes that were started on this machine."""
        with suppress(Exception):  # the scheduler may have ended first
            self.client.close(timeout=2)
        if self._cluster is not None:
            with suppress(Exception):
                self._cluster.close(timeout=5)

    def addresses(self) -> list[str]:
        """The addresses of the workers, in a fixed order."""
        with self.one_line_errors():
            return sorted(self.client.scheduler_info(n_workers=-1)["workers"])

    def wait_for_worker(self) -> list[str]:
        """Wait until the cluster has a worker; return the addresses of all. Raises BackendError after `WORKER_SECONDS`."""
        while not (found := self.addresses()):
            self.require_workers()
            time.sleep(LOOK_SECONDS)
        self._alone_since = None
        return found

    def everywhere(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Call a function on each worker, of which there is at least one: address -> its result, or its exception."""
        self.wait_for_worker()
        with self.one_line_errors():
            found = dict(self.client.run(function, *args, on_error="return"))
        if not found:  # the last worker has ended since
            raise BackendError(self._no_worker)
        return found

    def survey(self) -> list[Worker]:
        """All workers. Raises BackendError if one has another version of gpuclust or of Python, or does not answer."""
        own = ".".join(platform.python_version_tuple()[:2])
        for address, found in self.everywhere(platform.python_version).items():
            if not str(found).startswith(f"{own}."):
                runs = f"does not answer ({found})" if isinstance(found, Exception) else f"runs Python {found}"
                raise BackendError(f"the Dask worker {address} {runs}; this process runs Python {own}: use one version")
        for address, found in self.everywhere(metadata.version, "gpuclust").items():
            if found != __version__:
                runs = "has no gpuclust" if isinstance(found, Exception) else f"runs gpuclust {found}"
                raise BackendError(
                    f"the Dask worker {address} {runs}; install the version of this process there: "
                    f"pip install 'gpuclust[dask]=={__version__}'"
                )
        workers = self.everywhere(_about)
        for address, about in workers.items():
            if isinstance(about, Exception):
                raise BackendError(f"the Dask worker {address} cannot run gpuclust: {about}")
        return [replace(workers[address], address=address) for address in sorted(workers)]

    def submit(self, function: Callable[..., Any], *args: Any, name: str, address: str, retries: int = 0) -> Any:
        """Start a task on a worker, or on another one if that worker has ended; return its future. ``name`` is shown in Dask's
        dashboard."""
        key = f"gpuclust-{name}-{uuid.uuid4().hex}"
        with self.one_line_errors():
            return self.client.submit(
                function, *args, key=key, workers=[address], allow_other_workers=True, retries=retries
            )

    def map(self, function: Callable[..., Any], *iterables: Sequence[Any], name: str) -> list[Any]:
        """Start tasks ``function(*arguments)``, each on the worker that holds its arguments; return their futures."""
        with self.one_line_errors():
            return list(self.client.map(function, *iterables, key=f"gpuclust-{name}", pure=False, retries=RETRIES))

    def holders(self, futures: Sequence[Any]) -> list[str | None]:
        """The worker that holds the result of each task; None if no worker holds it at this moment."""
        with self.one_line_errors():
            found = self.client.who_has(futures)
        return [next(iter(found.get(future.key, ())), None) for future in futures]

    def wait(self, futures: Sequence[Any], *, for_one: bool = False) -> bool:
        """Wait for up to `LOOK_SECONDS` until all tasks (or one of them) have ended; return whether they have. Raises BackendError if the
        cluster has had no worker for `WORKER_SECONDS`."""
        import distributed

        until = "FIRST_COMPLETED" if for_one else "ALL_COMPLETED"
        with self.one_line_errors():
            try:
                with self.client.as_current():
                    distributed.wait(futures, timeout=LOOK_SECONDS, return_when=until)
                self._alone_since = None
                return True
            except TimeoutError:
                self.require_workers()
                self.unpin(futures)
                return False

    def unpin(self, futures: Sequence[Any]) -> None:
        """Allow tasks to run again on any worker. Otherwise, when all workers have ended, Dask would wait for the worker that a task was
        assigned to."""
        with self.one_line_errors(), suppress(KeyError):  # a task that Dask has forgotten
            self.client.sync(self.client.scheduler.set_restrictions, worker={future.key: None for future in futures})

    def results(self, futures: Sequence[Any]) -> list[Any]:
        """The results of tasks, in their order, when all have ended. Raises the exception of one that failed."""
        while not self.wait(futures):
            pass
        with self.one_line_errors():
            return list(self.client.gather(futures))

    def finish(self, future: Any) -> None:
        """Wait until a task has ended, and leave its result on the worker. Raises its exception where it failed."""
        while not self.wait([future]):
            pass
        with self.one_line_errors():
            if future.status != "finished":
                future.result()

    def require_workers(self) -> None:
        """Raise BackendError if the cluster has had no worker for `WORKER_SECONDS`."""
        now = time.monotonic()
        if self.addresses():
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        if now - self._alone_since > WORKER_SECONDS:
            raise BackendError(self._no_worker)

    @property
    def _no_worker(self) -> str:
        return f"no worker is left at {self.scheduler}; start workers with `dask worker {self.scheduler}` and run the same command again"

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Dask's exceptions as a BackendError."""
        from asyncio import CancelledError
        from concurrent.futures import CancelledError as Cancelled

        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        lost = (CancelledError, Cancelled, CommClosedError, ConnectionError, TimeoutError)
        try:
            yield
        except GpuclustError:
            raise
        except KilledWorker as error:
            raise BackendError(
                f"{error.allowed_failures + 1} Dask workers ended with the same task, probably for lack of memory; "
                "use workers with more memory, or more of them"
            ) from error
        except lost as error:
            raise BackendError(
                f"the connection to the Dask scheduler at {self.scheduler} is lost; start it again and run the same command again"
            ) from error


class Tasks(Generic[T]):
    """Calls of a function on the workers of a cluster, at most one at a time on each. If a worker ends, its call is repeated on another
    worker."""

    def __init__(self, workers: Workers, function: Callable[[T], Any]) -> None:
        self._workers, self._function = workers, function
        self._running: dict[Any, tuple[T, str]] = {}

    def __len__(self) -> int:
        """The number of calls that have not ended."""
        return len(self._running)

    @property
    def free(self) -> list[str]:
        """The workers that are idle."""
        busy = {address for _, address in self._running.values()}
        return [address for address in self._workers.addresses() if address not in busy]

    def start(self, item: T) -> None:
        """Call the function with an item on a free worker; if none is free, on another. Waits for a worker if there is none, and raises
        BackendError as `Workers.wait_for_worker` does."""
        address = (self.free or self._workers.wait_for_worker())[0]
        future = self._workers.submit(self._function, item, name="jobs", address=address)
        self._running[future] = (item, address)

    def ended(self) -> list[tuple[T, Any]]:
        """Wait for up to `LOOK_SECONDS` until a call ends; return the items of all calls that ended, each with its result or its
        exception. If no call runs, wait for a worker."""
        if not self._running:
            self._workers.wait_for_worker()
            return []
        self._workers.wait(list(self._running), for_one=True)
        return [(self._running.pop(f)[0], self._outcome(f)) for f in list(self._running) if f.done()]

    def cancel(self) -> None:
        """Cancel all calls that have not ended."""
        if self._running:
            with suppress(Exception):  # the cluster may have ended first
                self._workers.client.cancel(list(self._running), force=True)
        self._running.clear()

    def _outcome(self, future: Any) -> Any:
        try:
            with self._workers.one_line_errors():
                return future.result()
        except Exception as error:  # the caller decides what it means for its item
            return error


def _about(dask_worker: Any) -> Worker:
    """On a worker, which Dask passes as the argument: its description."""
    import dask.system

    limit = dask_worker.memory_manager.memory_limit
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "scikit-learn")}
    return Worker("", socket.gethostname(), int(dask.system.CPU_COUNT), None if not limit else int(limit), versions)


_open: dict[tuple[Any, ...], Workers] = {}


def connect(config: WorkersConfig, say: Say = no_display) -> Workers:
    """The workers of a configuration, connected once per process: those of a scheduler, or workers that are started on this machine.
    ``say`` receives a line that describes them.

    Raises BackendError if Dask is not installed, no scheduler or no worker answers, or versions differ, and ConfigurationError if both an
    address and a scheduler file are given.
    """
    key = (config.address, config.scheduler_file, config.count)
    if key in _open and _open[key].is_open:
        return _open[key]
    workers = _connected(config)
    try:
        found = workers.survey()
    except BaseException:
        workers.close()
        raise
    if not _open:
        atexit.register(close)
    _open[key] = workers
    for line in _in_words(workers, found):
        say(line)
    return workers


def close() -> None:
    """Close all connections that `connect` opened."""
    while _open:
        _open.popitem()[1].close()


def _in_words(workers: Workers, found: Sequence[Worker]) -> Iterator[str]:
    cores = sum({worker.host: worker.cores for worker in found}.values())
    machines = len({worker.host for worker in found})
    many = "1 worker" if len(found) == 1 else f"{len(found)} workers"
    where = "1 machine" if machines == 1 else f"{machines} machines"
    link = workers.client.dashboard_link
    yield f"Dask: {many} on {where} ({cores} cores) at {workers.scheduler}{f'; dashboard {link}' if link else ''}"
    own = {name: metadata.version(name) for name in found[0].versions} if found else {}
    for name, version in own.items():
        other = next((w for w in found if w.versions[name] != version), None)
        if other is not None:
            yield (
                f"warning: the Dask worker {other.address} has {name} {other.versions[name]}, this process {version}; "
                "results may differ in the last digits"
            )


def _connected(config: WorkersConfig) -> Workers:
    try:
        import dask
        from distributed import Client
    except ModuleNotFoundError as error:
        raise BackendError(f"workers=dask needs Dask (no module {error.name}): pip install 'gpuclust[dask]'") from error
    if config.address and config.scheduler_file:
        raise ConfigurationError("workers.address and workers.scheduler_file are both given; give one of them")
    try:
        file = str(Path(config.scheduler_file).expanduser()) if config.scheduler_file else None
    except RuntimeError as error:
        raise BackendError(
            f"workers.scheduler_file={config.scheduler_file}: there is no user of that name; give the path in full"
        ) from error
    if file and not Path(file).is_file():
        raise BackendError(
            f"workers.scheduler_file={config.scheduler_file} does not exist; `dask scheduler --scheduler-file FILE` writes it"
        )
    if os.environ.get("GPUCLUST_DEBUG") != "1":  # Dask would log each lost worker, in addition to our own line
        for name in ("distributed", "bokeh", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"})  # rows are sent on purpose
    address = config.address or (None if config.scheduler_file else dask.config.get("scheduler-address", None))
    if address is None and config.scheduler_file is None:
        return _on_this_machine(config.count)
    where = address or file
    try:
        client = Client(address, scheduler_file=file, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # OSError and whatever another server's answer, or a wrong address, leads to
        raise BackendError(
            f"no Dask scheduler answers at {where} within {CONNECT_SECONDS:.0f} seconds; start one with `dask scheduler`, "
            "or correct workers.address"
        ) from error
    workers = Workers(client)
    count = config.count or 1
    try:
        client.wait_for_workers(count, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        found = len(workers.addresses())
        workers.close()
        wanted = f"{found} of {count} workers are" if found else "no worker is"
        raise BackendError(
            f"{wanted} at the Dask scheduler {where} after {WORKER_SECONDS:.0f} seconds; start one on each machine with "
            f"`dask worker {workers.scheduler}`{', or lower workers.count' if found else ''}"
        ) from error
    return workers


def _on_this_machine(count: int | None) -> Workers:
    """A cluster of processes on this machine; a process that ends is started again."""
    import dask.system
    from distributed import Client, LocalCluster

    n_workers = count or min(MAX_LOCAL, dask.system.CPU_COUNT)
    # By default Dask gives up a worker that stays lost for a while, even if it was restarted and has just ended once more.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day", "distributed.scheduler.allowed-failures": 20})
    try:
        cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except Exception as error:
        raise BackendError(
            f"{n_workers} Dask workers cannot be started on this machine: {error}; in a Python script, call gpuclust "
            'below `if __name__ == "__main__":`, or start them with `dask worker` and give workers.address'
        ) from error
    client = Client(cluster, set_as_default=False)
    client.register_plugin(_ignoring_interrupts())
    return Workers(client, cluster)


def _ignoring_interrupts() -> Any:
    """A plug-in that makes workers ignore Ctrl-C in the terminal, so that this process ends first and then closes its workers."""
    from distributed import WorkerPlugin

    class IgnoringInterrupts(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return IgnoringInterrupts()


def use_cores(sharing: Mapping[str, int]) -> int:
    """On a worker: let kernels use this machine's cores, divided among its workers (``sharing``: host -> number of workers, where
    several). Returns the number of threads, which is set for the calling thread.
    """
    import dask.system

    n_threads = max(1, dask.system.CPU_COUNT // sharing.get(socket.gethostname(), 1))
    n_threads = min(n_threads, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(n_threads)
    return n_threads


def shared_hosts(found: Iterable[Worker]) -> dict[str, int]:
    """The machines with several workers: host -> number of workers."""
    return {host: n for host, n in Counter(worker.host for worker in found).items() if n > 1}


def memory_limit() -> float:
    """On a worker: the bytes of memory that it may use."""
    from distributed import get_worker

    limit = get_worker().memory_manager.memory_limit
    return float(limit) if limit else float("inf")


def packed(content: Any) -> bytes:
    """Any object, including a function, as bytes."""
    from distributed.protocol.pickle import dumps

    return bytes(dumps(content))


def unpacked(content: bytes) -> Any:
    """The object that `packed` was given."""
    from distributed.protocol.pickle import loads

    return loads(content)
