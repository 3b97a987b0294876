"""The command line: the one place that reads sys.argv. Every heavy import waits for the command that needs it."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gpuclust import __version__
from gpuclust.commands import BESIDE_RUN, command_parser, desk_for
from gpuclust.errors import GpuclustError
from gpuclust.sanitize import mask, remember
from gpuclust.tracking.place import INTERRUPTS, keep_logs_off_the_terminal

if TYPE_CHECKING:
    from gpuclust.config import Config
    from gpuclust.desk import Desk
    from gpuclust.sweep import SweepResult

USAGE = """\
gpuclust: cluster tables of millions of rows on a GPU or a CPU, tracked in MLflow

  gpuclust [run] KEY=VALUE ...           one job, as in: gpuclust data=table data.path=tracks.csv cluster.n_clusters=6
  gpuclust [run] -m KEY=A,B ...          a sweep, as in: gpuclust -m cluster=kmeans,gmm 'cluster.n_clusters=range(2,11)'
  gpuclust experiments=NAME ...          a ready study (its own sweep, if it declares one)
  gpuclust describe FILE                 the columns of a file, and which would be clustered
  gpuclust ui                            compare runs in the MLflow UI
  gpuclust export best|RUN_ID --out DIR  the assignments and the model of a run
  gpuclust compare RUN RUN [RUN...]      how far clusterings agree, and which cluster is which
  gpuclust predict DIR FILE --out FILE   place new rows
  gpuclust serve DIR                     a JSON API over an export
  gpuclust explore DIR                   look around in an export, in a browser
  gpuclust playlist DIR --cluster N      a playlist of an export (or --like TITLE, --taste energy=0.8)
  gpuclust doctor                        which device, and why

options of run:
  -m, --multirun       run a job for each combination of the values given
  --cfg                print the configuration that the command line composes to, and run nothing
  --config-dir DIR     a folder of your own files, laid out as conf/
  -sc install=bash     tab completion: eval "$(gpuclust -sc install=bash)" (also zsh through bashcompinit, and fish)

groups: data=table|tracks|catalogue  clean=default|tracks  scale=standard|minmax|robust|none  reduce=none|pca
        cluster=kmeans|gmm|hdbscan  score=default|quick|stability|none
        analysis=default|full  backend=auto|cpu|gpu  tracking=mlflow|none
        sweep=default  report=default|none  experiments=...
`gpuclust COMMAND --help` tells the rest; errors show their traceback with GPUCLUST_DEBUG=1
"""


COMPILING = "compiling kernels once for this machine, 5 to 10 s ..."


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends a sweep as Ctrl-C does."""

    def __init__(self, signum: int) -> None:
        self.exit_status = 128 + signum


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status: 0 success, 1 some job failed, 2 wrong input, 129, 130 or 143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _interrupt)
    if os.environ.get("GPUCLUST_DEBUG") != "1":
        keep_logs_off_the_terminal()
    try:
        return _dispatch(arguments)
    except GpuclustError as error:
        return _complain(str(error), error.exit_status)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  the reader has gone, as with `| head`
        return 0
    except KeyboardInterrupt as error:
        with suppress(OSError):  # the terminal has gone
            print("interrupted: what finished is kept; the same command goes on from there", file=sys.stderr)
        return error.exit_status if isinstance(error, Terminated) else 130
    except MemoryError:
        return _complain("out of memory; use data.n_rows for a sample, dtype=float32, or a machine with more", 1)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}; check that it exists, is writable, and has space", 2)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    INTERRUPTS.interrupt(KeyboardInterrupt() if signum == signal.SIGINT else Terminated(signum))


def _complain(text: str, status: int) -> int:
    if os.environ.get("GPUCLUST_DEBUG") == "1":
        print(mask(traceback.format_exc()), end="", file=sys.stderr)
    line = " ".join(mask(text).split())
    # A name from a file may hold control characters, which a terminal would obey.
    print(f"gpuclust: {''.join(c if c.isprintable() else '?' for c in line)}", file=sys.stderr)
    return status


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name in COMMANDS:
        return COMMANDS[name](arguments[1:])
    if name and not name.startswith("-") and "=" not in name and not name.startswith(("+", "~")):
        from gpuclust.config import did_you_mean

        return _complain(f"there is no command '{name}'{did_you_mean(name, COMMANDS)} (gpuclust --help lists them)", 2)
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    if arguments[:1] and arguments[0] in ("-sc", "--shell-completion"):
        return _completion(arguments)
    parser = command_parser("run", "Run one job, or a sweep with -m; `gpuclust --help` lists the groups.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("-m", "--multirun", action="store_true", help="a job for each combination of values")
    parser.add_argument("-c", "--cfg", action="store_true", help="print the configuration and run nothing")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder laid out as conf/")
    options = parser.parse_intermixed_args(arguments)

    from gpuclust.compose import plan, to_yaml

    planned = plan(options.overrides, multirun=options.multirun, config_dir=options.config_dir)
    if options.cfg:
        print(to_yaml(planned.jobs[0].config), end="")
        return 0
    for job in planned.jobs:
        if job.config.data.path:
            job.config.data.path = str(Path(job.config.data.path).expanduser().absolute())
    return _work(planned, _command(arguments, planned.jobs[0].config))


def _command(arguments: list[str], config: Config) -> str:
    """The command line as it is recorded: without the passwords of what was typed."""
    remember(config.tracking.uri)
    return f"gpuclust {shlex.join(mask(arguments))}".strip()


def _work(planned: Any, command: str) -> int:
    """Run a plan and say what came of it. Files are looked at before a store is made, so a wrong path leaves nothing."""
    from gpuclust.compute.kernels.compiled import told_when_compiling
    from gpuclust.data.read import fingerprint
    from gpuclust.report.terminal import Live
    from gpuclust.sweep import jobs_of, run

    config = planned.jobs[0].config
    for job in planned.jobs:
        fingerprint(job.config.data)
    with Live(len(planned.jobs)) as live:
        desk = desk_for(config, live, command)
        live.say(f"{desk.backend.device}: {desk.choice.reason}")
        gc.freeze()  # what was imported stays: looking through it at each collection would cost 20 ms a job
        with told_when_compiling(lambda: live.say(COMPILING)):
            result = run(planned, jobs_of(planned, desk.backend), desk)
    _conclude(result, config, desk)
    return 1 if result.failed else 0


def _conclude(result: SweepResult, config: Config, desk: Desk) -> None:
    """The leaderboard, the choice with its reason, and what to type next."""
    from rich.console import Console

    from gpuclust.report.terminal import leaderboard as table
    from gpuclust.sweep import leaderboard

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    if result.parent is not None and result.conclusion is not None:
        console.print(table(leaderboard(result), result.metric))
        console.print(f"{'chosen: ' if result.selection else ''}{result.conclusion.reason}", markup=False)
    if result.conclusion is not None:
        console.print(f"verdict: {result.conclusion.verdict.text}", markup=False, style="bold")
        for line in result.conclusion.verdict.because:
            console.print(f"  {line}", markup=False, style="dim")
    if result.failed:
        console.print(f"{len(result.failed)} of {len(result.outcomes)} jobs failed; the others are kept", markup=False)
    if config.tracking.store != "mlflow" or result.chosen is None:
        return
    console.print(f"run {result.chosen.run_id} in {result.seconds:.1f} s; next:", markup=False)
    if link := desk.recorder.link(result.parent or result.chosen.run_id):
        console.print(f"  {link}", markup=False)
    if (shown := mask(config.tracking.uri)) != config.tracking.uri:
        console.print(
            f"  export MLFLOW_TRACKING_URI='{shown}'   # with the password or token in place of ***", markup=False
        )
    where = _where(config)
    console.print(f"  gpuclust ui{where}", markup=False)
    run = "best" if result.parent is not None else result.chosen.run_id
    console.print(f"  gpuclust export {run}{where} --out out/ && gpuclust explore out/", markup=False)


def _where(config: Config) -> str:
    """The options that find this store again, where it is not the default."""
    given = config.tracking.uri
    # An address with a password is not repeated: it is to be set in MLFLOW_TRACKING_URI.
    uri = f" --uri {shlex.quote(given)}" if given and mask(given) == given else ""
    experiment = config.tracking.experiment
    return uri + (f" --experiment {shlex.quote(experiment)}" if experiment != "gpuclust" else "")


def _completion(arguments: list[str]) -> int:
    """Hydra's own completion; `gpuclust run x` completes as `gpuclust x`, and sub-commands come first."""
    import contextlib
    import io

    import hydra

    from gpuclust.compose import conf_dir, register_schema

    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if len(words) > 1 and words[1] == "run":
        os.environ["COMP_LINE"] = line.replace(" run", "", 1)
    register_schema()
    sys.argv = ["gpuclust", *arguments]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(lambda _: None)()
    text = out.getvalue()
    if "query" in arguments[-1]:
        word = "" if line.endswith(" ") or len(words) < 2 else words[-1]
        first = len(words) == 1 or (len(words) == 2 and word)
        commands = [name for name in COMMANDS if name.startswith(word)] if first else []
        hidden = ("schema", "hydra", "experiments/")
        text = " ".join([*commands, *(w for w in text.split() if not w.startswith(hidden))])
    print(text)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {"run": _run, **BESIDE_RUN}
