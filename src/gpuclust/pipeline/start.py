"""How the command line and the Python API run a plan: check its files, choose the backend and the store, run its jobs."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import psutil

from gpuclust.algorithms.registry import IN_BLOCKS, get_algorithm
from gpuclust.compose import Plan
from gpuclust.config import AUTO, Config
from gpuclust.data.source import fingerprint
from gpuclust.errors import ConfigurationError
from gpuclust.pipeline.context import RunContext
from gpuclust.pipeline.sweep import jobs_of, run
from gpuclust.pipeline.sweep_result import SweepResult
from gpuclust.runtime.backend import BackendChoice, create_backend, select_backend
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.forecast import RESIDENT, MemoryPlan, plan_memory, sample_of_tree
from gpuclust.runtime.jit import notify_on_compile
from gpuclust.tracking.recorder import MemoryRecorder, Recorder

COMPILING = "first run on this machine only: compiling, which takes up to a minute ..."


def context_for(config: Config, display: Any, command: str = "") -> RunContext:
    """Backend, store and recorder for a configuration."""
    display.stage("starting")
    choice = _with_weights(select_backend(config.backend.name), config)
    recorder: Recorder
    if config.tracking.store == "mlflow":
        from gpuclust.tracking.mlflow import MlflowRecorder

        c = config.tracking
        recorder = MlflowRecorder(c.uri, c.experiment, report=display.say, retry_seconds=c.retry_seconds)
    else:
        recorder = MemoryRecorder()
    backend = create_backend(choice.name, config.backend.pool_fraction)
    return RunContext(backend, choice, ResultCache(), recorder, display, command, say=display.say, work=display.work)


def _with_weights(choice: BackendChoice, config: Config) -> BackendChoice:
    """The backend for a job with weights of rows: a CPU, because the kernels of the GPU have no weights. Raises ConfigurationError if the
    configuration asks for a GPU."""
    if choice.name == "cpu" or config.data.weight is None:
        return choice
    if config.backend.name == choice.name:
        raise ConfigurationError("data.weight is computed on a CPU; use backend=cpu, or leave data.weight out")
    return BackendChoice("cpu", "data.weight is computed on a CPU")


def start(plan: Plan, display: Any, command: str) -> RunContext:
    """Check the files of a plan, and prepare what its jobs run with. A wrong path raises DataError before a store is created, and a search
    without Optuna raises ConfigurationError."""
    if plan.is_search and find_spec("optuna") is None:
        raise ConfigurationError("sweep.search=optuna needs Optuna; pip install 'gpuclust[optuna]'")
    for job in plan.jobs:
        fingerprint(job.config.data)
    for note in plan.notes:
        display.say(note)
    context = context_for(plan.jobs[0].config, display, command)
    device = context.backend.device.replace(" (", ", ").removesuffix(")")  # AMD EPYC (2 cores)
    display.say(f"Using {context.choice.name.upper()} ({device}): {context.choice.reason}")
    memory = plan_memory([job.config for job in plan.jobs], backend=context.choice.name)
    if memory.forecast.noteworthy:
        display.say(memory.reason)
    _require_memory(plan, memory)
    for job in plan.jobs if memory.mode != RESIDENT else ():
        cluster = job.config.cluster
        if getattr(cluster, "sample_rows", None) == AUTO and (rows := sample_of_tree(job.config, memory.limit)):
            cluster.sample_rows = rows  # type: ignore[attr-defined]  # it changes the result, so it is a part of the job's key
    free = memory.limit - psutil.Process().memory_info().rss
    return replace(context, memory=memory, cache=ResultCache(max(free, 0) // 2))


def _require_memory(plan: Plan, memory: MemoryPlan) -> None:
    """Raises ConfigurationError, before anything is read, where no job of the plan can be fitted to rows that are not in memory."""
    names = dict.fromkeys(job.config.cluster.name for job in plan.jobs)
    if memory.mode != RESIDENT and not any(IN_BLOCKS in get_algorithm(name).fit for name in names):
        raise ConfigurationError(
            f"cluster={','.join(names)} needs all rows in memory, but the forecast is: {memory.reason}; use data.n_rows for a sample, or "
            "memory.mode=resident"
        )


def run_plan(plan: Plan, context: RunContext) -> SweepResult:
    """Run the jobs of a plan, or find them in the store."""
    with notify_on_compile(lambda: context.say(COMPILING)):
        return run(plan, jobs_of(plan, context.backend), context)
