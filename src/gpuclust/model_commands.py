"""The commands that use models: `gpuclust predict` and `gpuclust promote`. Heavy modules are imported when a command runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gpuclust.commands import command_parser, export_folder, membership_option, refuse_existing, store_options

if TYPE_CHECKING:
    from gpuclust.predict import Scored


@contextmanager
def _opened_model(text: str, uri: str | None) -> Iterator[tuple[Path, str]]:
    """The folder of an export, or that of a registered model, for as long as the context lasts; and its name."""
    if not text.startswith("models:"):
        yield export_folder(text), text
        return
    from gpuclust.tracking.registry import Registry

    registry = Registry.open(uri)
    version = registry.find(text)
    with registry.download(version) as folder:
        yield folder, version.address


def _predict(arguments: list[str]) -> int:
    parser = command_parser(
        "predict",
        "Assign the rows of a file to the clusters of an exported model, and compare them with its training rows. "
        "Exit status 3: the rows are unlike the training rows (see --max-outside, --max-psi); the file is written.",
    )
    parser.add_argument(
        "model",
        metavar="DIR|models:/NAME@ALIAS",
        help="an export folder, its address in S3, or a registered model: models:/NAME@champion, models:/NAME/3",
    )
    parser.add_argument(
        "rows", metavar="FILE", help="the rows: any file or address supported by data.path, or a query ('select ...')"
    )
    parser.add_argument("--database", metavar="ADDRESS", help="the database of the query, as in data.database")
    parser.add_argument("--sheet", metavar="NAME", help="the sheet of an Excel workbook: its name or its number from 1")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".parquet or .csv")
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the comparison as JSON")
    membership_option(parser)
    parser.add_argument(
        "--max-outside",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="exit with status 3 when more than this share of a feature's values is outside its training range, or "
        "(from 50 rows on) more than this share plus 2%% outside its 1%% to 99%% quantiles, or more than this share of a column's values are "
        "categories that the model does not know (default: 0.2; 1: never)",
    )
    parser.add_argument(
        "--max-psi",
        type=float,
        metavar="X",
        help="exit with status 3 when the population stability index of a feature, of the shares of the clusters, of the distance or of the "
        "confidence is above this and chance does not explain it; 0.25 is a usual limit (default: any)",
    )
    parser.add_argument("--log", action="store_true", help="record the comparison as a run of kind drift")
    store_options(parser)
    parser.add_argument("--force", action="store_true", help="replace the files if they exist")
    options = parser.parse_args(arguments)

    refuse_existing(options.force, out=options.out, report=options.report)
    from gpuclust.config import DataConfig
    from gpuclust.predict import predict

    source = DataConfig(database=options.database, sheet=options.sheet).at(options.rows)
    with _opened_model(options.model, options.uri) as (folder, model):
        scored = predict(
            folder,
            source.location or "",
            options.out,
            report=options.report,
            max_outside=options.max_outside,
            memberships=options.memberships,
            max_psi=options.max_psi,
            force=options.force,
            model=model,
        )
    found = scored.novelty
    unplaced = f"; {found.n_unplaced:,} could not be placed (a feature is missing or out of bounds)"
    print(f"{scored.path}: {found.n_rows:,} rows{unplaced if found.n_unplaced else ''}")
    for line in found.in_words():
        print(f"  {line}")
    if options.log:
        from gpuclust.drift_log import log_drift
        from gpuclust.tracking.mlflow import MlflowRecorder

        recorder = MlflowRecorder(options.uri, options.experiment)
        run_id = log_drift(scored, source.location or "", recorder=recorder)
        print(f"run {run_id} of kind drift in the experiment {options.experiment}")
    return _unlike(scored, options)


def _unlike(scored: Scored, options: argparse.Namespace) -> int:
    """The exit status of predict; 3, and why, if the new rows are unlike the training rows."""
    unlike = [*(c.in_words() for c in scored.unknown), *(f.in_words() for f in scored.exceeding)]
    if not unlike and not scored.drifted:
        return 0
    if not unlike:
        (name, index), *rest = scored.drifted
        more = f" (and {len(rest)} more)" if rest else ""
        print(
            f"gpuclust: the rows have drifted from the training rows: the PSI of {name} is {index.value:.3f}{more}; more than --max-psi "
            f"{options.max_psi:g}: fit a new model. {scored.path} was written",
            file=sys.stderr,
        )
        return 3
    more = f" (and {len(unlike) - 1} more features)" if len(unlike) > 1 else ""
    what = "categories" if scored.unknown else "unit"
    print(
        f"gpuclust: the rows are unlike the training rows: {unlike[0]}{more}; more than --max-outside "
        f"{options.max_outside:g}: check the column's {what}, or fit a new model. {scored.path} was written",
        file=sys.stderr,
    )
    return 3


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


MODEL_COMMANDS: dict[str, Callable[[list[str]], int]] = {"predict": _predict, "promote": _promote}
