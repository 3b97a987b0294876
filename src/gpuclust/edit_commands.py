"""The sub-commands that edit an export (name, merge, undo) or follow its clusters (lineage). Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gpuclust.commands import command_parser, refuse_existing, reload_config, reload_options
from gpuclust.errors import ConfigurationError

if TYPE_CHECKING:
    from gpuclust.edits import EditedExport

PAGE = "report.html"  # what `gpuclust export --html` writes into the folder


def _local_folder(text: str) -> Path:
    """A local export folder: an edit replaces it in one step, which a store cannot."""
    if "://" in text:
        raise ConfigurationError(f"{text} is not a local folder; copy the export here, edit it, and copy it back")
    return Path(text)


def _name(arguments: list[str]) -> int:
    parser = command_parser(
        "name",
        "Name the clusters of an export. Its files, the explorer, the API and playlists show the names. "
        "Without names, list the clusters and the edits. gpuclust undo undoes the last edit.",
    )
    parser.add_argument("folder", type=_local_folder, metavar="DIR", help="an export folder")
    parser.add_argument(
        "names", nargs="*", metavar="N=NAME", help='0="Late-Night Chill"; an empty name restores the generated one'
    )
    parser.add_argument(
        "--rules", type=Path, metavar="FILE",
        help="a file with one rule per line for the means of a cluster: energy > 0.7 and loudness > -6: Workout",
    )  # fmt: skip
    parser.add_argument(
        "--from",
        type=_local_folder,
        dest="earlier",
        metavar="DIR",
        help="take the names from an earlier export, by matching centres",
    )
    parser.add_argument(
        "--llm", nargs=2, metavar=("URL", "MODEL"),
        help="let a language model propose names; URL is its server, such as http://localhost:11434 (Ollama, or the API of OpenAI). Proposals are "
        "shown beside the other names",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    ways = [bool(options.names), options.rules is not None, options.earlier is not None, options.llm is not None]
    if sum(ways) > 1:
        raise ConfigurationError("give N=NAME, or one of --rules, --from and --llm")

    from gpuclust import edits

    if options.rules is not None:
        done = edits.name_by_rules(options.folder, options.rules)
    elif options.earlier is not None:
        done = edits.name_from(options.folder, options.earlier)
    elif options.llm is not None:
        from gpuclust.proposals import propose

        done = propose(options.folder, *options.llm)
    elif options.names:
        done = edits.name_clusters(options.folder, dict(map(_numbered, options.names)))
    else:
        return _show(edits.open_edits(options.folder), edited=False)
    return _show(done)


def _numbered(text: str) -> tuple[int, str]:
    number, equals, name = text.partition("=")
    if not equals or not re.fullmatch(r"\d{1,9}", number.strip()):
        raise ConfigurationError(
            f'cannot read {text!r}; write the number of a cluster and its name: 0="Late-Night Chill"'
        )
    return int(number), name


def _merge(arguments: list[str]) -> int:
    parser = command_parser(
        "merge",
        "Merge clusters of an export into one. The other clusters keep their numbers; new rows are assigned to the merged cluster. "
        "gpuclust undo undoes the last edit.",
    )
    parser.add_argument("folder", type=_local_folder, metavar="DIR", help="an export folder")
    parser.add_argument(
        "clusters",
        nargs="+",
        type=int,
        metavar="N",
        help="two or more clusters; the merged cluster gets the smallest number",
    )
    parser.add_argument(
        "--name",
        default="",
        help="the name of the merged cluster (default: a name that one of them was given, else a generated name)",
    )
    options = parser.parse_args(arguments)

    from gpuclust.edits import merge_clusters

    return _show(merge_clusters(options.folder, options.clusters, name=options.name))


def _undo(arguments: list[str]) -> int:
    parser = command_parser("undo", "Undo the last edit of an export: a name, a merge, or proposed names.")
    parser.add_argument("folder", type=_local_folder, metavar="DIR", help="an export folder")
    options = parser.parse_args(arguments)

    from gpuclust.edits import undo

    return _show(undo(options.folder))


def _lineage(arguments: list[str]) -> int:
    parser = command_parser(
        "lineage",
        "Follow clusters through runs or exports, in the order given: which continue, split, join or are new.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|DIR",
        help="two or more: a job, a sweep (its chosen job), best, or an export folder",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="also write a table, JSON and a Sankey diagram into this folder"
    )
    reload_options(parser)
    options = parser.parse_args(arguments)

    refuse_existing(options.force, out=options.out)
    from gpuclust.compare import is_export
    from gpuclust.lineage import lineage, write
    from gpuclust.pipeline.start import context_for
    from gpuclust.report.terminal import Live
    from gpuclust.sanitize import printable
    from gpuclust.tracking.mlflow import MlflowRecorder

    exports = all(is_export(name) for name in options.runs)
    recorder = None if exports else MlflowRecorder(options.uri, options.experiment, create=False)
    config = reload_config(options, store="none" if exports else "mlflow")
    with Live(len(options.runs)) as live:
        found = lineage(options.runs, recorder=recorder, context=context_for(config, live), data_path=options.data)
    for line in (f"{' -> '.join(found.runs)}: {found.n_rows:,} rows", *found.notes, *found.changes):
        print(printable(line))
    if options.out is not None:
        print(f"{write(found, options.out, force=options.force)}: lineage.csv, lineage.json and lineage.png")
    return 0


def _show(done: EditedExport, *, edited: bool = True) -> int:
    """Print the clusters with their names, and the edits. After an edit the page to send is written again where the folder has one."""
    from gpuclust.edits import in_words
    from gpuclust.sanitize import printable

    for note in done.notes:
        print(printable(note))
    for row in done.clusters:
        facts = [f"{row['size']:,} rows"]
        facts += [f"{kind}: {row[f'{kind}_name']}" for kind in ("generated", "proposed") if row[f"{kind}_name"]]
        print(f"{row['cluster']:>4}  {printable(row['name'])}  ({printable('; '.join(facts))})")
    for number, edit in enumerate(done.edits, 1):
        print(printable(f"edit {number}: {in_words(edit)}"))
    if edited and (done.folder / PAGE).is_file():
        from gpuclust.serve.share import write_share_page

        write_share_page(done.folder, done.folder / PAGE, force=True)
    return 0


EDIT_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "name": _name,
    "merge": _merge,
    "undo": _undo,
    "lineage": _lineage,
}
