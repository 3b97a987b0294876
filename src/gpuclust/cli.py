"""The command line. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import resource
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gpuclust import __version__
from gpuclust.commands import SUBCOMMANDS, command_parser
from gpuclust.edit_commands import EDIT_COMMANDS
from gpuclust.errors import ConfigurationError, GpuclustError, why
from gpuclust.job_command import JOB_COMMANDS
from gpuclust.model_commands import MODEL_COMMANDS
from gpuclust.sanitize import mask, remember
from gpuclust.tracking.store_location import INTERRUPTS, keep_logs_off_the_terminal
from gpuclust.usage import usage, without_hydra

if TYPE_CHECKING:
    from gpuclust.compose import Plan
    from gpuclust.config import Config
    from gpuclust.pipeline.context import Outcome, RunContext
    from gpuclust.pipeline.sweep_result import SweepResult

# Export commands shown if no job was chosen, one for the best job of each space.
MAX_EXPORTS = 5
# The parameter of glibc's mallopt, from malloc.h.
M_ARENA_MAX = -8


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends a sweep as Ctrl-C does."""

    def __init__(self, signum: int) -> None:
        self.exit_status = 128 + signum


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (`STATUSES`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _interrupt)
    if os.environ.get("GPUCLUST_DEBUG") != "1":
        keep_logs_off_the_terminal()
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        _save_address_space()
    try:
        return _dispatch(arguments)
    except GpuclustError as error:
        return _print_error(str(error), error.exit_status)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  the reader has gone, as with `| head`
        return 0
    except KeyboardInterrupt as error:
        with suppress(OSError):  # the terminal is closed
            print("interrupted: finished jobs are kept; run the same command again to resume", file=sys.stderr)
        return error.exit_status if isinstance(error, Terminated) else 130
    except MemoryError:
        return _print_error("out of memory; use data.n_rows for a sample, dtype=float32, or a machine with more", 1)
    except OSError as error:
        return _print_error(why(error), 2)


def _save_address_space() -> None:
    """Reserve less address space than by default, before threads start. Arrow's mimalloc reserves 1 GiB at its first allocation, and glibc 64 MiB
    for each thread, for up to 8 threads per core."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    INTERRUPTS.interrupt(KeyboardInterrupt() if signum == signal.SIGINT else Terminated(signum))


def _print_error(text: str, status: int) -> int:
    if os.environ.get("GPUCLUST_DEBUG") == "1":
        print(mask(traceback.format_exc()), end="", file=sys.stderr)
    line = " ".join(mask(text).split())
    # A name from a file may contain control characters, which a terminal would interpret.
    print(f"gpuclust: {''.join(c if c.isprintable() else '?' for c in line)}", file=sys.stderr)
    return status


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(usage(shutil.get_terminal_size().columns), end="")
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name in COMMANDS:
        return COMMANDS[name](arguments[1:])
    if name and not name.startswith("-") and "=" not in name and not name.startswith(("+", "~")):
        from gpuclust.config import did_you_mean

        return _print_error(
            f"there is no command '{name}'{did_you_mean(name, COMMANDS)} (gpuclust --help lists them)", 2
        )
    return _run(arguments)


def _demo(arguments: list[str]) -> int:
    return _run(["data=catalogue", *arguments], name="demo")


def _run(arguments: list[str], name: str = "run") -> int:
    if arguments[:1] and arguments[0] in ("-sc", "--shell-completion"):
        return _completion(arguments[1:])
    parser = command_parser(
        name,
        "Run one job, or a sweep with -m. `gpuclust --help` lists the groups, `gpuclust --cfg` every key."
        if name == "run"
        else "Run a job, or a sweep with -m, on generated tracks: 20,000 of them, or data.n_rows.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a choice of a group, or the value of a key")
    parser.add_argument("-m", "--multirun", action="store_true", help="run one job for each combination of the values")
    parser.add_argument("-c", "--cfg", action="store_true", help="print the configuration, and run nothing")
    parser.add_argument(
        "--cost", action="store_true", help="print the memory and the time that the jobs will take, and run nothing"
    )
    parser.add_argument(
        "-cd", "--config-dir", type=Path, metavar="DIR", help="add a folder of configuration files, laid out like conf/"
    )
    parser.add_argument(
        "--result",
        type=Path,
        metavar="FILE",
        help="also write the run, the choice and the verdict into this file, as JSON",
    )
    options = parser.parse_intermixed_args(without_hydra(arguments))
    if not options.overrides and not options.cfg and not options.cost:
        if options.multirun:
            raise ConfigurationError(
                "-m needs values to sweep, as in gpuclust -m data.path=tracks.csv cluster.n_clusters=2,3"
            )
        return _dispatch([])

    from gpuclust.compose import plan

    planned = plan(options.overrides, multirun=options.multirun, config_dir=options.config_dir, sniff=_data_choice)
    if options.cfg:
        _show_configuration(planned)
    if options.cost:
        _show_cost(planned, comment=options.cfg)
    if options.cfg or options.cost:
        return 0
    for job in planned.jobs:
        if job.config.data.query:
            job.config.data.folder = _absolute("data.folder", job.config.data.folder or ".")
        job.config.data.path = _absolute("data.path", job.config.data.path)
        job.config.data.join.path = _absolute("data.join.path", job.config.data.join.path)
        _resolve_within(job.config)
    return _run_plan(planned, _command(arguments, planned.jobs[0].config), options.result)


def _resolve_within(config: Config) -> None:
    if config.data.within is not None:
        from gpuclust.choice import resolve_within

        resolve_within(config)


def _split(arguments: list[str]) -> int:
    parser = command_parser(
        "split",
        "Cluster the rows of a cluster again: with the data, the cleaning, the scaling and the features of its run. By default a sweep of "
        "K-Means over 2 to 6 clusters.",
    )
    parser.add_argument(
        "cluster",
        metavar="RUN:N",
        help="a cluster of a job, of a sweep (its chosen job), of best, or of an export folder: best:3",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the algorithm and its keys, as for a job")
    parser.add_argument("-m", "--multirun", action="store_true", help="run one job for each combination of the values")
    options = parser.parse_intermixed_args(arguments)

    from copy import deepcopy

    from gpuclust.choice import config_of, resolve_within
    from gpuclust.compose import plan

    kept = ("data", "clean", *(g for g in ("scale", "reduce", "dtype") if not _sets(options.overrides, g)))
    if refused := [text for text in options.overrides if text.lstrip("+").startswith(("data", "clean"))]:
        raise ConfigurationError(
            f"{refused[0]}: split takes data and clean from the run; gpuclust {refused[0]} data.within={options.cluster} sets them"
        )
    by_default = [] if _sets(options.overrides, "cluster") else ["cluster.n_clusters=2,3,4,5,6"]
    given = [*options.overrides, *by_default]
    sweeps = options.multirun or bool(by_default)
    planned = plan(["data=table", "data.path=.", *given], multirun=sweeps)
    first = planned.jobs[0].config
    first.data.within = options.cluster
    resolve_within(first)
    within, parent = first.data.within, config_of(first)
    for job in planned.jobs:
        for group in kept:
            setattr(job.config, group, deepcopy(getattr(parent, group)))
        job.config.data.within = within
    return _run_plan(planned, _command(["split", *arguments], first))


def _sets(overrides: Sequence[str], group: str) -> bool:
    """Whether an override sets a group or one of its keys."""
    return any(text.lstrip("+").partition("=")[0].partition(".")[0] == group for text in overrides)


def _command(arguments: list[str], config: Config) -> str:
    """The command line to record, without passwords."""
    remember(config.tracking.uri)
    remember(config.data.database)
    return f"gpuclust {shlex.join(mask(arguments))}".strip()


def _data_choice(path: str) -> str:
    """The choice of the group ``data`` for a file, by its columns."""
    from gpuclust.data.source import detect_preset

    return {"none": "table", "tracks": "tracks"}[detect_preset(path)]


def _absolute(key: str, path: str | None) -> str | None:
    if not path:
        return path
    from gpuclust.data.files import absolute_path

    try:
        return absolute_path(path)
    except RuntimeError as error:  # the user of ~name does not exist
        raise ConfigurationError(f"{key}={path}: {error}; write the folder's path") from error


def _show_cost(planned: Plan, *, comment: bool) -> None:
    """Print what the jobs of a plan will take; as comments after the YAML of ``--cfg``."""
    from gpuclust.runtime.backend import select_backend
    from gpuclust.runtime.forecast import forecast

    configs = [job.config for job in planned.jobs]
    found = forecast(configs, backend=select_backend(configs[0].backend.name).name)
    jobs = f"{planned.n_jobs} jobs, " if planned.n_jobs > 1 else ""
    for line in (f"{jobs}{found.summary}", *found.details):
        print(f"# {line}" if comment else line)


def _show_configuration(planned: Plan) -> None:
    """Print the configuration as YAML; for a sweep that of the first job, after comments with the list of all jobs."""
    from gpuclust.compose import to_yaml
    from gpuclust.pipeline.curves import job_name

    for note in planned.notes:
        print(f"# {note}")
    if planned.is_search:
        print(
            f"# a search of {planned.n_jobs} of {len(planned.jobs)} jobs; the configuration below is that of the first"
        )
    elif len(planned.jobs) > 1:
        print(f"# {len(planned.jobs)} jobs; the configuration below is that of the first")
        for job in planned.jobs:
            swept = " ".join(f"{key}={value}" for key, value in job.swept.items())
            print(f"#   {job_name(job.config, job.swept, planned.swept)}: {swept}")
    print(to_yaml(planned.jobs[0].config), end="")


def _run_plan(planned: Plan, command: str, result_file: Path | None = None) -> int:
    """Run a plan, print its result, and write it to a file."""
    if any(getattr(job.config.cluster, "init_from", None) for job in planned.jobs):
        from gpuclust.choice import resolve_init

        resolve_init(job.config for job in planned.jobs)
    from gpuclust.pipeline.start import run_plan, start
    from gpuclust.report.terminal import Live

    with Live(planned.n_jobs) as live:
        context = start(planned, live, command)
        gc.freeze()  # imported objects are permanent; scanning them in each collection costs 20 ms per job
        result = run_plan(planned, context)
    if result_file is not None:
        from gpuclust.result_file import write_result

        write_result(result, result_file)
    _show_result(result, planned.jobs[0].config, context)
    return 1 if result.failed else 0


def _show_result(result: SweepResult, config: Config, context: RunContext) -> None:
    """Print the leaderboard, the choice and its reason, the verdict, the next commands, and a summary line."""
    from rich.console import Console

    from gpuclust.pipeline.sweep_result import leaderboard
    from gpuclust.report.terminal import leaderboard as table

    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False)

    def show(text: Any, style: str = "") -> None:
        console.print(text, markup=False, style=style, soft_wrap=not is_terminal)

    if result.parent is not None and result.conclusion is not None:
        show(table(leaderboard(result), result.metric, console.width if is_terminal else None))
        show(f"{'chosen: ' if result.selection else ''}{result.conclusion.reason}")
    for warning in result.warnings:
        show(f"warning: {warning}", "bold yellow")
    if result.conclusion is not None:
        show(f"verdict: {result.conclusion.verdict.text}", "bold")
        for line in result.conclusion.verdict.because:
            show(f"  {line}", "dim")
    if result.failed:
        show(_failures(len(result.failed), len(result.outcomes)))
    if result.repeated:
        jobs = f"all {len(result.outcomes)} jobs were" if result.parent is not None else "the job was"
        show(f"nothing to do: {jobs} done before (sweep.resume=false repeats {'them' if result.parent else 'it'})")
    if config.tracking.store != "mlflow" or not result.best:
        return
    run_id = result.parent or result.best[0].run_id
    show(f"run {run_id} in {result.seconds:.1f} s; next:")
    for what, address in context.recorder.links(run_id, sweeps=result.parent is not None).items():
        show(f"  {address}   # {what}")
    if (shown := mask(config.tracking.uri)) != config.tracking.uri:
        show(f"  export MLFLOW_TRACKING_URI='{shown}'   # with the password or token in place of ***")
    where = _where(config)
    show(f"  gpuclust ui{where}")
    folders: list[str] = []
    for outcome in result.best[:MAX_EXPORTS]:
        folders.append(folder := export_folder(outcome, folders))
        run = "best" if result.parent is not None and result.chosen is not None else outcome.run_id
        which = f"   # {outcome.job.name}" if len(result.best) > 1 else ""
        show(f"  gpuclust export {run}{where} --out {folder} && gpuclust explore {folder}{which}")
    if result.parent is not None and result.chosen is not None:
        show(summary(result, where), "bold")


def _failures(n_failed: int, n_jobs: int) -> str:
    if n_jobs == 1:
        return "The job failed."
    return (
        f"All {n_jobs} jobs failed."
        if n_failed == n_jobs
        else f"{n_failed} of {n_jobs} jobs failed; the others are kept"
    )


def export_folder(outcome: Outcome, others: Sequence[str] = ()) -> str:
    """A new folder name for a job that is not in ``others``: ``kmeans-k8``, ``hdbscan-50``."""
    name = outcome.short_name
    names = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
    return next(n for n in names if n not in others and not Path(n).exists())


def summary(result: SweepResult, where: str = "") -> str:
    """One line: the chosen clustering, the advice of the verdict, and the command for another clustering."""
    chosen, selection = result.chosen, result.selection
    assert chosen is not None
    assert selection is not None
    from gpuclust.report.terminal import HEADERS, format_metric

    metric = selection.metric
    value = (
        f" ({HEADERS.get(metric, metric.replace('_', ' '))} {format_metric(chosen.metrics[metric])})"
        if metric in chosen.metrics
        else ""
    )
    own = int(chosen.metrics.get("n_clusters", 0))
    sizes = result.conclusion.verdict.sizes if result.conclusion else ()
    kind = result.conclusion.verdict.kind if result.conclusion else ""
    advice = _advice(kind, sizes, own)
    tried = [o for o in result.outcomes if "n_clusters" in o.metrics and int(o.metrics["n_clusters"]) != own]
    wanted = next((o for k in sizes for o in tried if int(o.metrics["n_clusters"]) == k), tried[0] if tried else None)
    another = ""
    if wanted is not None:
        k = int(wanted.metrics["n_clusters"])
        another = f" For another: gpuclust export best --where n_clusters={k}{where} --out {export_folder(wanted)}"
    return f"Chosen: {chosen.job.name}{value}. {advice}{another}"


def _advice(kind: str, sizes: Sequence[int], own: int) -> str:
    if kind == "none":
        return "The verdict finds no natural number of clusters: pick the one that suits your use."
    if kind == "open" or not sizes:
        return "The verdict is open: sweep more sizes."
    named = " or ".join(map(str, sizes))
    agrees = ", as chosen" if tuple(sizes) == (own,) else ""
    return f"The verdict advises {named} cluster{'s' if named != '1' else ''}{agrees}."


def _where(config: Config) -> str:
    """The options for this store and experiment, if they are not the defaults."""
    from gpuclust.config import default_experiment

    given = config.tracking.uri
    # An address with a password is not printed; the user sets it in MLFLOW_TRACKING_URI.
    uri = f" --uri {shlex.quote(given)}" if given and mask(given) == given else ""
    experiment = config.tracking.experiment
    return uri + (f" --experiment {shlex.quote(experiment)}" if experiment != default_experiment() else "")


def _completion(arguments: list[str]) -> int:
    """``install=SHELL`` prints the script for a shell; ``query=SHELL`` prints the completions of its command line."""
    from gpuclust.completion import candidates, script

    what, _, shell = (arguments[0] if arguments else "").partition("=")
    if what == "query":
        print("\n".join(candidates(os.environ.get("COMP_LINE", ""), COMMANDS)))
        return 0
    print(script(what, shell))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "demo": _demo,
    "split": _split,
    **SUBCOMMANDS,
    **EDIT_COMMANDS,
    **MODEL_COMMANDS,
    **JOB_COMMANDS,
}
