"""`gpuclust promote`. Heavy modules are imported when the command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable

from gpuclust.commands import command_parser


def _promote(arguments: list[str]) -> int:
    parser = command_parser(
        "promote",
        "Compare the challenger of a registered model with its champion on the same rows, and make it the champion. "
        "Exit status 3: it was compared and not promoted (see --min-ami, --max-noise).",
    )
    parser.add_argument("name", metavar="NAME", help="the registered model (tracking.register=NAME)")
    parser.add_argument(
        "--version", type=int, metavar="N", help="promote this version instead of the challenger, also an older one"
    )
    parser.add_argument(
        "--data", metavar="FILE", help="the rows to compare on (default: the file that the version was fitted on)"
    )
    parser.add_argument(
        "--min-ami", type=float, metavar="X", help="do not promote if the AMI with the champion is lower (default: any)"
    )
    parser.add_argument(
        "--max-noise", type=float, metavar="SHARE", help="do not promote if more of the rows are noise (default: any)"
    )
    parser.add_argument("--dry-run", action="store_true", help="compare, and promote nothing")
    parser.add_argument("--uri", help="the tracking store (tracking.uri)")
    options = parser.parse_args(arguments)

    from gpuclust.promotion import promote
    from gpuclust.tracking.registry import Registry

    done = promote(
        options.name,
        registry=Registry.open(options.uri),
        version=options.version,
        data_path=options.data,
        min_ami=options.min_ami,
        max_noise=options.max_noise,
        dry_run=options.dry_run,
    )
    challenger, champion = done.challenger, done.champion
    if done.comparison is not None and champion is not None:
        print(f"{options.name}: version {challenger.number} compared with the champion, version {champion.number}")
        for line in done.comparison.in_words():
            print(f"  {line}")
    if done.refused:
        print(
            f"gpuclust: version {challenger.number} of {options.name} was not promoted: {done.refused}", file=sys.stderr
        )
        return 3
    if champion is not None and champion.number == challenger.number:
        print(f"version {challenger.number} of {options.name} is the champion already")
    elif done.promoted:
        before = f"; version {champion.number} has the alias previous" if champion else "; it is the first"
        print(f"version {challenger.number} of {options.name} is the champion{before}")
    elif champion is None:
        print(f"{options.name} has no champion to compare version {challenger.number} with; not promoted (--dry-run)")
    else:
        print("not promoted (--dry-run)")
    return 0


REGISTRY_COMMANDS: dict[str, Callable[[list[str]], int]] = {"promote": _promote}
