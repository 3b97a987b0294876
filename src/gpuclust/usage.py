"""The help page: commands, options, groups and exit statuses, wrapped at the width of the terminal."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress

from gpuclust.errors import ConfigurationError

# Command lines and their descriptions.
COMMAND_LINES = (
    ("gpuclust [run] KEY=VALUE ...", "run one job: gpuclust data.path=tracks.csv cluster.n_clusters=6"),
    ("gpuclust [run] -m KEY=A,B ...", "run a sweep: gpuclust -m data.path=tracks.csv 'cluster.n_clusters=range(2,11)'"),
    ("gpuclust experiments=NAME ...", "run a ready study, with the sweep that it declares"),
    ("gpuclust demo", "run a job on 20,000 generated tracks (data=catalogue)"),
    ("gpuclust describe FILE", "profile a file: its columns, which would be clustered, and warnings"),
    ("gpuclust features DIR --out FILE", "compute audio features of sound files (extra gpuclust[audio])"),
    ("gpuclust ui", "compare runs in the MLflow UI"),
    ("gpuclust export best|RUN_ID --out DIR", "export the assignments and the model of a run"),
    (
        "gpuclust name DIR 0=NAME ...",
        "name the clusters of an export (or --rules FILE, --from DIR, --llm URL MODEL)",
    ),
    ("gpuclust merge DIR 2 5", "merge clusters of an export into one"),
    ("gpuclust split RUN:3 [KEY=VALUE...]", "cluster the rows of one cluster again (labels 3.0, 3.1, ...)"),
    ("gpuclust undo DIR", "undo the last edit of an export (a name or a merge)"),
    ("gpuclust figures best|RUN_ID --out DIR", "draw all figures of a run"),
    ("gpuclust compare RUN RUN [RUN...]", "compare clusterings and match their clusters"),
    ("gpuclust lineage RUN RUN [RUN...]", "follow clusters through runs: which continue, split, join or are new"),
    ("gpuclust predict DIR FILE --out FILE", "assign new rows to clusters (or predict models:/NAME@champion FILE)"),
    ("gpuclust promote NAME", "compare a registered model with its champion, and make it the champion"),
    ("gpuclust serve DIR", "serve an export as a JSON API"),
    ("gpuclust jobs", "run a service that takes jobs over HTTP"),
    ("gpuclust explore DIR", "explore an export in the browser"),
    ("gpuclust atlas DIR", "open an export in Embedding Atlas (extra gpuclust[atlas])"),
    ("gpuclust playlist DIR --cluster N", "make a playlist from an export (or --like TITLE, --taste energy=0.8)"),
    ("gpuclust doctor", "show the selected device and why"),
)
RUN_OPTIONS = (
    ("-m, --multirun", "run one job for each combination of the values given"),
    ("-c, --cfg [job]", "print the configuration that would run (with -m the list of jobs too), and run nothing"),
    (
        "--cost",
        "print the memory and the time that the jobs will take (with --cfg after the configuration), and run nothing",
    ),
    ("-cd, --config-dir DIR", "add a folder of your own configuration files, laid out like conf/"),
    ("--result FILE", "also write the run, the choice and the verdict into a file, as JSON"),
    (
        "-sc install=SHELL",
        'tab completion for bash, zsh (through bashcompinit) or fish: eval "$(gpuclust -sc install=bash)"',
    ),
)
GROUPS = """data=table|tracks|catalogue clean=default|tracks scale=standard|minmax|robust|none{scalers} reduce=none|pca|fa|umap|pacmap{reducers} map=pca|umap|pacmap|tsne{maps}
cluster=kmeans|gmm|hdbscan|dbscan|plscan|leiden| spectral|agglomerative|bayesian_gmm|bisecting{algorithms} score=default|quick|stability|none analysis=default|full backend=auto|cpu|gpu memory=auto|resident|disk
workers=here|dask tracking=mlflow|none sweep=default report=default|full|none experiments=NAME"""
# Options of Hydra's applications that gpuclust does not have, and what to use instead.
_NOT_OPTIONS = {
    "--resolve": "the configuration is always resolved; --cfg prints it",
    "-p --package": "--cfg prints the whole configuration",
    "-i --info": "gpuclust doctor shows the device and the versions, --cfg the configuration",
    "--hydra-help": "gpuclust --help shows the options and the groups",
    "-cn --config-name": "write experiments/NAME.yaml in a folder, and give --config-dir DIR experiments=NAME",
    "-cp --config-path": "--config-dir DIR adds a folder of configuration files",
    "--experimental-rerun": "the same command resumes; sweep.resume=false runs it again",
    "-r --run": "a job is run without an option; -m runs a sweep",
}
STATUSES = (
    ("0", "all jobs finished"),
    ("1", "some job failed; the others are kept"),
    ("2", "the input is wrong; nothing was run"),
    ("3", "predict: the new rows differ from the training rows; promote: not promoted"),
    ("129, 130, 143", "interrupted (SIGHUP, Ctrl-C, SIGTERM); finished jobs are kept"),
)


def usage(width: int) -> str:
    """The help page, wrapped at ``width`` columns."""
    width = max(width, 40)
    groups = GROUPS.format_map(_plugins())
    return f"""\
{_paragraph("gpuclust: cluster tables of millions of rows on a GPU or a CPU, with every run logged to MLflow", width)}

{_entries(COMMAND_LINES, width)}

options of run:
{_entries(RUN_OPTIONS, width)}

groups:
{_paragraph(groups, width, indent=2)}
  `gpuclust --cfg` shows every key.

exit status:
{_entries(STATUSES, width)}

{_paragraph("`gpuclust COMMAND --help` shows the options of a command. GPUCLUST_DEBUG=1 shows the traceback of an error.", width)}
"""


def _plugins() -> dict[str, str]:
    """``|name|name`` of the plug-ins of each group, read from the metadata of installed packages, 50 times faster than by importlib.metadata."""
    found: dict[str, dict[str, None]] = {group: {} for group in ("scalers", "reducers", "maps", "algorithms")}
    for folder in filter(os.path.isdir, sys.path):
        for package in os.scandir(folder):
            if not package.name.endswith(".dist-info"):
                continue
            with suppress(OSError), open(f"{package.path}/entry_points.txt", encoding="utf-8") as file:  # noqa: PTH123
                text = file.read()
                for group, names in found.items():
                    section = text.partition(f"[gpuclust.{group}]")[2].partition("[")[0]
                    names |= {
                        f"|{line.partition('=')[0].strip()}": None for line in section.splitlines() if "=" in line
                    }
    return {group: "".join(names) for group, names in found.items()}


def _paragraph(text: str, width: int, indent: int = 0) -> str:
    pad = " " * indent
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=pad,
        subsequent_indent=pad,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _entries(entries: Sequence[tuple[str, str]], width: int) -> str:
    """Two columns; in a narrow terminal the second is below the first."""
    first = max(len(name) for name, _ in entries) + 4
    two_columns = width - first >= 30
    lines = []
    for name, text in entries:
        if two_columns:
            filled = _paragraph(text, width, indent=first)
            lines.append(f"  {name}".ljust(first) + filled.lstrip())
        else:
            lines += [_paragraph(name, width, indent=2), _paragraph(text, width, indent=6)]
    return "\n".join(lines)


def without_hydra(arguments: Sequence[str]) -> list[str]:
    """Remove the ``job`` of ``--cfg job``.

    Raises ConfigurationError for an option that only Hydra applications have.
    """
    kept: list[str] = []
    for word in arguments:
        option = word.partition("=")[0]
        for names, instead in _NOT_OPTIONS.items():
            if option in names.split():
                raise ConfigurationError(f"{option} is an option of Hydra that gpuclust does not have; {instead}")
        if option in ("-c", "--cfg") and word != option:
            kept.append(option)
            word = word.partition("=")[2]
        if kept[-1:] in (["-c"], ["--cfg"]) and word in ("job", "hydra", "all"):
            if word != "job":
                raise ConfigurationError(
                    f"--cfg {word} would print settings of Hydra, which have no effect here; --cfg job prints the configuration"
                )
            continue
        kept.append(word)
    return kept
