"""The sub-commands other than `run` and `demo`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gpuclust.errors import ConfigurationError, ExportError
from gpuclust.sanitize import mask, printable

if TYPE_CHECKING:
    from gpuclust.config import Config


class CommandParser(argparse.ArgumentParser):
    """A parser that raises its errors as ConfigurationError, with one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message} ({self.prog} --help shows the options)")


class Options(Exception):
    """Raised by the hidden option ``--complete`` with the parser of a command, for tab completion."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


class _Complete(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise Options(parser)


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of a sub-command."""
    parser = CommandParser(prog=f"gpuclust {name}", description=description)
    parser.add_argument("--complete", nargs=0, action=_Complete, help=argparse.SUPPRESS)
    return parser


def store_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a tracking store and an experiment."""
    from gpuclust.config import default_experiment

    parser.add_argument("--uri", help="the tracking store (tracking.uri)")
    parser.add_argument(
        "--experiment",
        default=default_experiment(),
        help="the MLflow experiment (default: MLFLOW_EXPERIMENT_NAME, else gpuclust)",
    )


def reload_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that reads the tables of runs again and writes a folder."""
    parser.add_argument("--data", metavar="FILE", help="the clustered file, if it has moved")
    parser.add_argument("--backend", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    store_options(parser)


def reload_config(options: argparse.Namespace, *, store: str = "mlflow") -> Config:
    """The configuration of a command that reads runs of a store again."""
    from gpuclust.config import BackendConfig, Config, TrackingConfig

    tracking = TrackingConfig(store=store, uri=options.uri, experiment=options.experiment)
    return Config(backend=BackendConfig(name=options.backend), tracking=tracking)


def _place(text: str) -> Path | str:
    """A folder as a path, or an address as text."""
    return text if "://" in text else Path(text)


def export_folder(text: str) -> Path:
    """An export folder; if it is in an object store, a local copy."""
    if "://" not in text:
        return Path(text)
    from gpuclust.data.remote_folders import local_export

    return local_export(text)


def refuse_existing(force: bool, **paths: Path | str | None) -> None:
    """Raise ExportError if the file or folder of an option exists and may not be replaced: before heavy modules are imported."""
    for option, path in paths.items():
        if isinstance(path, str):
            from gpuclust.data.remote_folders import refuse_existing as refuse_existing_address

            refuse_existing_address(path, force)
        elif path is not None and path.exists() and not force:
            raise ExportError(f"{path} exists; name another --{option}, or replace it with --force")


def _export(arguments: list[str]) -> int:
    parser = command_parser(
        "export", "Write the assignments, the clusters and the model of a finished job into a folder."
    )
    parser.add_argument(
        "run", metavar="best|RUN_ID", help="best: the choice of the latest sweep; or a job, or a sweep (its chosen job)"
    )
    parser.add_argument(
        "--out", type=_place, metavar="DIR", help="the folder to write, or an address such as s3://bucket/folder"
    )
    parser.add_argument(
        "--html",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE",
        help="also write one HTML file to send (default: report.html in the folder); without --out only this file",
    )
    parser.add_argument("--metric", help="best: by this metric, among the runs of the same table and preparation")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="best: only runs with n_clusters=6, or with 'noise_fraction<0.3' (repeatable)",
    )
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet", help="csv: also write CSV files")
    parser.add_argument("--data", metavar="FILE", help="the clustered file, if it has moved")
    parser.add_argument("--backend", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument(
        "--keep",
        default="all",
        metavar="all|none|A,B",
        help="columns of the source that are neither features nor roles: all (default), none, or those named",
    )
    membership_option(parser)
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    store_options(parser)
    options = parser.parse_args(arguments)

    page = options.html
    if options.out is None and (page is None or page == Path()):
        raise ConfigurationError("name the folder to write with --out DIR, or a file with --html FILE")
    refuse_existing(options.force, out=options.out, html=None if page == Path() else page)
    from gpuclust.config import require_choosing

    if options.metric is not None:
        require_choosing(options.metric, "--metric ")
    from tempfile import TemporaryDirectory

    from gpuclust.choice import conditions, find
    from gpuclust.export import export
    from gpuclust.pipeline.start import context_for
    from gpuclust.report.terminal import Live
    from gpuclust.tracking.mlflow import MlflowRecorder

    where = conditions(options.where)
    recorder = MlflowRecorder(options.uri, options.experiment, create=False)
    found = find(recorder, options.run, options.metric, where)
    for note in found.notes:
        print(note)
    run = found.run
    config = reload_config(options)
    with TemporaryDirectory() as temporary, Live(1) as live:
        done = export(
            run,
            options.out if isinstance(options.out, Path) else Path(temporary) / "export",
            recorder=recorder,
            context=context_for(config, live),
            form=options.format,
            data_path=options.data,
            force=options.force,
            sweep=found.sweep,
            memberships=options.memberships,
            keep={"all": None, "none": []}.get(options.keep, [name for name in options.keep.split(",") if name]),
        )
        if page is not None:
            from gpuclust.serve.share import write_share_page

            live.stage("writing the page to send")
            page = write_share_page(done.folder, done.folder / "report.html" if page == Path() else page, force=True)
        if isinstance(options.out, str):
            from gpuclust.data.remote_folders import upload

            live.stage("uploading")
            upload(done.folder, options.out)
            page = page if options.html != Path() else f"{options.out}/report.html"
    for warning in done.warnings:
        print(f"warning: {warning}")
    for note in done.notes:
        print(printable(note))
    written = ", ".join(str(path) for path in (options.out, page) if path is not None)
    print(f"{written}: {done.n_rows:,} rows in {done.n_clusters} clusters, from run {run.run_id} ({run.name})")
    return 0


def membership_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that gives rows their memberships."""
    parser.add_argument(
        "--memberships",
        type=_number_of_memberships,
        default=0,
        metavar="N",
        help="add the N likeliest clusters of each row, their probabilities, and an outlier score",
    )


def _number_of_memberships(text: str) -> int:
    from gpuclust.model.manifest import MAX_MEMBERSHIPS

    if not text.isdecimal() or not 1 <= int(text) <= MAX_MEMBERSHIPS:
        raise ConfigurationError(f"--memberships {text} is not a number of clusters from 1 to {MAX_MEMBERSHIPS}")
    return int(text)


def _compare(arguments: list[str]) -> int:
    parser = command_parser("compare", "Compare runs on the same table: how far they agree, and which clusters match.")
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|DIR",
        help="two or more: a job, a sweep (its chosen job), best, or an export folder",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write tables and heat maps into this folder")
    reload_options(parser)
    options = parser.parse_args(arguments)

    refuse_existing(options.force, out=options.out)
    from rich.console import Console

    from gpuclust.compare import compare_runs, is_export, write
    from gpuclust.pipeline.start import context_for
    from gpuclust.report.terminal import Live, agreements, matching
    from gpuclust.tracking.mlflow import MlflowRecorder

    exports = all(is_export(name) for name in options.runs)
    recorder = None if exports else MlflowRecorder(options.uri, options.experiment, create=False)
    config = reload_config(options, store="none" if exports else "mlflow")
    with Live(len(options.runs)) as live:
        compared = compare_runs(
            options.runs, recorder=recorder, context=context_for(config, live), data_path=options.data
        )
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    console.print(agreements(compared.comparisons))
    for line in compared.notes:
        console.print(line, markup=False)
    for comparison in compared.comparisons:
        console.print(matching(comparison))
    if options.out is not None:
        print(f"{write(compared, options.out, force=options.force)}: {len(compared.comparisons)} pairs")
    return 0


def _serve(arguments: list[str]) -> int:
    parser = command_parser(
        "serve", "Serve an export as a JSON API: search, clusters, playlists, assignment of new rows."
    )
    parser.add_argument("folder", type=export_folder, metavar="DIR", help="an export folder, or its address in S3")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free port (default: 8000)")
    parser.add_argument("--cors", nargs="+", default=[], metavar="ORIGIN", help="allowed CORS origins")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    access_options(parser)
    options = parser.parse_args(arguments)

    from gpuclust.serve.server import serve

    return serve(
        options.folder,
        host=options.host,
        port=options.port,
        cors=options.cors,
        workers=options.workers,
        allowed_hosts=options.allowed_hosts,
        token=options.token,
    )


def access_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for host names and the token."""
    parser.add_argument(
        "--allowed-hosts",
        nargs="+",
        default=[],
        metavar="NAME",
        help="additional host names to accept (default: on a local address only the names of this machine, else any)",
    )
    parser.add_argument(
        "--token",
        nargs="?",
        const="",
        help="require a token in every request; without a value a token is generated and printed. "
        "GPUCLUST_TOKEN does the same and keeps the token out of the process list",
    )


def _explore(arguments: list[str]) -> int:
    parser = command_parser("explore", "Explore an export in the browser: map, clusters, search, playlists.")
    parser.add_argument("folder", type=export_folder, metavar="DIR", help="an export folder, or its address in S3")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8501, help="default: 8501")
    parser.add_argument("--compare", type=export_folder, metavar="DIR", help="another export, to compare its clusters")
    parser.add_argument(
        "--previews",
        metavar="URL",
        help="URL template for audio previews, e.g. 'https://example.org/search?term={query}' (default: off)",
    )
    parser.add_argument(
        "--url-template",
        metavar="URL",
        help="URL template of the page of an item, e.g. 'https://example.org/{id}' (default: addresses in the export, or those of Spotify's ids)",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address and do not open a browser")
    access_options(parser)
    options = parser.parse_args(arguments)

    from gpuclust.serve.explorer.launch import explore

    return explore(
        options.folder,
        host=options.host,
        port=options.port,
        compare=options.compare,
        previews=options.previews,
        url_template=options.url_template,
        browser=not options.no_browser,
        allowed_hosts=options.allowed_hosts,
        token=options.token,
        rename=_rename_clusters,
    )


def _rename_clusters(folder: Path, names: Mapping[int, str]) -> None:
    from gpuclust.edits import name_clusters

    name_clusters(folder, names, how="explorer")


def _atlas(arguments: list[str]) -> int:
    parser = command_parser("atlas", "Open an export in Embedding Atlas, with its clusters, names and colours.")
    parser.add_argument("folder", type=export_folder, metavar="DIR", help="an export folder, or its address in S3")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=5055, help="default: 5055")
    parser.add_argument(
        "--neighbours",
        type=int,
        metavar="N",
        help="nearest rows to find for each row (default: 10 up to 50,000 rows, else 0)",
    )
    options = parser.parse_args(arguments)

    from gpuclust.serve.atlas import open_atlas

    return open_atlas(options.folder, host=options.host, port=options.port, neighbours=options.neighbours)


def _playlist(arguments: list[str]) -> int:
    parser = command_parser(
        "playlist", "Make a playlist from an export: from a cluster, from liked items, or from target values."
    )
    parser.add_argument("folder", type=export_folder, metavar="DIR", help="an export folder, or its address in S3")
    parser.add_argument(
        "--cluster", type=int, metavar="N", help="from this cluster, the items nearest to its centre first"
    )
    parser.add_argument(
        "--like", action="append", default=[], metavar="TITLE|ID", help="near a liked item (repeatable)"
    )
    parser.add_argument("--taste", metavar="F=X,...", help="near these target values of features, in the table's units")
    parser.add_argument(
        "--within-cluster", action="store_true", help="with --like: only from the liked items' clusters"
    )
    parser.add_argument("--popular", action="store_true", help="with --cluster: the most popular items first")
    parser.add_argument("--size", type=int, default=30, help="number of items (default: 30)")
    parser.add_argument(
        "--per-creator", type=int, default=2, metavar="N", help="at most N items per creator (default: 2; 0: no limit)"
    )
    parser.add_argument("--diversity", type=float, help="0 for the nearest, up to 1 for the most varied")
    parser.add_argument("--format", help="table, csv, json, m3u8 or uris (default: by the suffix of --out, else table)")
    parser.add_argument(
        "--url-template",
        metavar="URL",
        help="URL template of an item in m3u8 and uris (default: addresses in the export, or those of Spotify's ids)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a file instead of printing")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    options = parser.parse_args(arguments)

    refuse_existing(options.force, out=options.out)
    from gpuclust.serve.library import Library
    from gpuclust.serve.server import show_progress
    from gpuclust.tracks.playlist import DIVERSITY, PlaylistOptions
    from gpuclust.tracks.playlist_command import PlaylistRequest, make_playlist, output_playlist

    diversity = DIVERSITY if options.diversity is None else options.diversity
    request = PlaylistRequest(
        cluster=options.cluster,
        like=options.like,
        taste=options.taste,
        within_cluster=options.within_cluster,
        options=PlaylistOptions(options.size, options.per_creator or None, diversity),
        form=options.format,
        out=options.out,
        force=options.force,
        url_template=options.url_template,
        popular=options.popular,
    )
    with Library.open(options.folder, show_progress) as library:
        playlist = make_playlist(library, request)
    output_playlist(playlist, request)
    return 0


def _features(arguments: list[str]) -> int:
    parser = command_parser(
        "features", "Compute audio features of the sound files in a folder, as a table that can be clustered."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of sound files (with its sub-folders)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the Parquet file to write")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how much of the middle of each file is used (default: 60)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--force", action="store_true", help="replace the file")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or (options.workers or 1) < 1:
        raise ConfigurationError("--seconds and --workers are numbers above 0")
    refuse_existing(options.force, out=options.out)

    from gpuclust.tracks import audio

    return audio.run(options.folder, options.out, seconds=options.seconds, workers=options.workers)


def _describe(arguments: list[str]) -> int:
    parser = command_parser("describe", "Profile a file: its columns, which would be clustered and why, and warnings.")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="any file, folder, pattern or address that data.path takes, or a query ('select ...')",
    )
    parser.add_argument("overrides", nargs="*", metavar="data.KEY=VALUE", help="how to read the file, as for a job")
    parser.add_argument(
        "--preset",
        choices=("auto", "none", "tracks"),
        default="auto",
        help="read the file as data=tracks or as data=table (none); default: by its columns, as a job does",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="also write the profile into this folder: JSON and figures"
    )
    parser.add_argument("--force", action="store_true", help="replace the files of an earlier profile")
    options = parser.parse_intermixed_args(arguments)

    from rich.console import Console

    from gpuclust.data.source import detect_preset
    from gpuclust.describe import describe, described_data, show, write

    preset = options.preset
    if preset == "auto":
        preset = detect_preset(described_data(options.file, options.overrides).location or "")
    found, table = describe(described_data(options.file, options.overrides, preset=preset))
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)
    show(found, table, console, preset=preset)
    if options.out is not None:
        print(f"{write(found, table, options.out, force=options.force)}: description.json and two figures")
    return 0


def _ui(arguments: list[str]) -> int:
    parser = command_parser("ui", "Open the MLflow UI on the experiment's chart view.")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--host", default="127.0.0.1")
    store_options(parser)
    options = parser.parse_args(arguments)

    from gpuclust.tracking.ui import serve_ui

    return serve_ui(options.uri, options.experiment, options.host, options.port)


def _doctor(arguments: list[str]) -> int:
    parser = command_parser(
        "doctor", "Show the selected device and why it was selected, the tracking store and the versions."
    )
    parser.add_argument(
        "--parity",
        action="store_true",
        help="run small jobs of each algorithm on each backend, and compare the results",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="with --parity: write the results, for another machine"
    )
    parser.add_argument(
        "--with",
        type=Path,
        metavar="FILE",
        dest="others",
        help="with --parity: compare with the results of another machine",
    )
    parser.add_argument("--json", action="store_true", help="with --parity: print the comparison as JSON")
    options = parser.parse_args(arguments)
    if options.parity:
        return _parity(options)
    if options.save or options.others or options.json:
        raise ConfigurationError("--save, --with and --json belong to gpuclust doctor --parity")

    from gpuclust.export import versions
    from gpuclust.runtime.backend import create_backend, select_backend
    from gpuclust.tracking.store_location import resolve_uri

    choice = select_backend("auto")
    print(f"backend   {choice.name} ({choice.reason})")
    print(f"device    {create_backend(choice.name).device}")
    print(f"tracking  {mask(resolve_uri(None)[0])}")
    for package, found in versions().items():
        print(f"{package:<14}{found}")
    return 0


def _parity(options: argparse.Namespace) -> int:
    """Print how far the results of the backends agree; exit status 1 where they do not."""
    import json

    from gpuclust.parity import parity, save

    card = parity(options.others, report=lambda text: print(f"{text} ...", file=sys.stderr))
    if options.save is not None:
        save(card, options.save)
    print(json.dumps(card.to_dict(), indent=1) if options.json else "\n".join(card.lines()))
    return 1 if card.failures else 0


def _figures(arguments: list[str]) -> int:
    parser = command_parser("figures", "Draw all figures of a run: those that report=full records.")
    parser.add_argument(
        "run", metavar="best|RUN_ID", help="a job, a sweep (its chosen job), or best (of the latest sweep)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--clustergram",
        action="store_true",
        help="also draw the clustergram of the run's sweep; jobs without a model are computed again",
    )
    reload_options(parser)
    options = parser.parse_args(arguments)

    refuse_existing(options.force, out=options.out)
    from gpuclust.choice import find
    from gpuclust.drawing import clustergram_of_run, figures_of_run, write_figures
    from gpuclust.pipeline.start import context_for
    from gpuclust.report.terminal import Live
    from gpuclust.tracking.mlflow import MlflowRecorder

    recorder = MlflowRecorder(options.uri, options.experiment, create=False)
    found = find(recorder, options.run)
    config = reload_config(options)
    with Live(1) as live:
        context = context_for(config, live)
        drawn = figures_of_run(found.run, recorder=recorder, context=context, data_path=options.data)
        note = ""
        if options.clustergram:
            try:
                drawn["clustergram"] = clustergram_of_run(
                    found.run, list(recorder.jobs()), recorder=recorder, context=context, data_path=options.data
                )
            except ExportError as error:  # the other figures are written
                note = f"warning: {error}"
        write_figures(drawn, options.out, force=options.force)
    if note:
        print(note, file=sys.stderr)
    print(f"{options.out}: {', '.join(f'{name}.png' for name in drawn)}")
    return 0


SUBCOMMANDS: dict[str, Callable[[list[str]], int]] = {
    "describe": _describe,
    "features": _features,
    "figures": _figures,
    "export": _export,
    "compare": _compare,
    "atlas": _atlas,
    "explore": _explore,
    "playlist": _playlist,
    "serve": _serve,
    "ui": _ui,
    "doctor": _doctor,
}
