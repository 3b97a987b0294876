"""Run the job service: open its folder, bind the port, print the address and the token, and stop gracefully."""

from __future__ import annotations

from collections.abc import Sequence

from gpuclust.serve.access import access
from gpuclust.serve.jobs.api import Check, create_app
from gpuclust.serve.jobs.runner import Place, Runner
from gpuclust.serve.jobs.store import JobStore
from gpuclust.serve.server import bind, settings

STORE = "jobs.db"


def serve_jobs(
    place: Place,
    *,
    check: Check,
    parallel: int,
    host: str,
    port: int,
    allowed_hosts: Sequence[str],
    token: str | None,
) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status. A token is always required: without one it is generated and printed.

    Raises ConfigurationError, before the server starts, if the address is not available or a value is invalid.
    """
    import uvicorn

    rules = access(host, allowed_hosts, token)
    if not rules.token:
        rules = access(host, allowed_hosts, "")
    listening = bind(host, port)
    try:
        runner = Runner(JobStore(place.folder / STORE), place, parallel=parallel)
        app = create_app(runner, check=check, access=rules)
        address = f"[{host}]" if ":" in host else host
        where = f"http://{address}:{listening.getsockname()[1]}"
        print(
            f"jobs over {place.data} on {where}/api/v1/jobs (documentation: {where}/docs); their state is in {place.folder}; Ctrl-C stops",
            flush=True,
        )
        if rules.generated:
            print(f"token: {rules.token}   (send it as Authorization: Bearer TOKEN)", flush=True)
        uvicorn.Server(uvicorn.Config(app, **settings())).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises the signal again after shutdown
        pass
    finally:
        listening.close()
    print("stopped; jobs that were running are queued", flush=True)
    return 0
