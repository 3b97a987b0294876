"""The command `gpuclust jobs`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpuclust.commands import access_options, command_parser, store_options
from gpuclust.errors import ConfigurationError

if TYPE_CHECKING:
    from gpuclust.compose import Plan

MAX_PARALLEL = 64


def _jobs(arguments: list[str]) -> int:
    parser = command_parser(
        "jobs",
        "Run a service that takes jobs over HTTP, runs them one after another, and keeps their states. A token is always required.",
    )
    parser.add_argument(
        "--data", type=Path, default=Path(), metavar="DIR", help="jobs may read files below this folder (default: .)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("gpuclust-jobs"),
        metavar="DIR",
        help="the folder of the states and the outputs (default: gpuclust-jobs)",
    )
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="jobs that run at once (default: 1)")
    parser.add_argument(
        "--allow-remote",
        nargs="*",
        metavar="ADDRESS",
        help="jobs may also read addresses that begin with one of these, as in s3://bucket/tables (without a value: any)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8001, help="0: any free port (default: 8001)")
    access_options(parser)
    store_options(parser)
    options = parser.parse_args(arguments)

    if not 1 <= options.parallel <= MAX_PARALLEL:
        raise ConfigurationError(f"--parallel {options.parallel} is outside 1 to {MAX_PARALLEL}")
    if not 0 <= options.port <= 65535:
        raise ConfigurationError(f"--port {options.port} is outside 0 to 65535")
    if not options.data.is_dir():
        raise ConfigurationError(f"--data {options.data} is not a folder")
    from gpuclust.folders import locked
    from gpuclust.submissions import Limits, checked
    from gpuclust.tracking.store_location import resolve_uri

    try:
        from gpuclust.serve.jobs.runner import Place
        from gpuclust.serve.jobs.service import serve_jobs
    except ImportError as error:
        raise ConfigurationError(f"gpuclust jobs needs {error.name}; install gpuclust[serve]") from error
    folder, data = options.folder.absolute(), options.data.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if locked(folder) is None:
        raise ConfigurationError(f"another service uses {options.folder}; name another --folder")
    remote = () if options.allow_remote is None else tuple(options.allow_remote) or ("",)
    limits = Limits(data, remote)
    store = {"MLFLOW_TRACKING_URI": resolve_uri(options.uri)[0], "MLFLOW_EXPERIMENT_NAME": options.experiment}
    environment = {name: value for name, value in os.environ.items() if name != "GPUCLUST_TOKEN"} | store
    os.environ.update(store)
    os.chdir(data)  # relative paths of a job are in the data folder

    def check(overrides: Sequence[str], multirun: bool) -> Plan:
        return checked(overrides, multirun=multirun, limits=limits)

    return serve_jobs(
        Place(folder, data, environment),
        check=check,
        parallel=options.parallel,
        host=options.host,
        port=options.port,
        allowed_hosts=options.allowed_hosts,
        token=options.token,
    )


JOB_COMMANDS: dict[str, Callable[[list[str]], int]] = {"jobs": _jobs}
