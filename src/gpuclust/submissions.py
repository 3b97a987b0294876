"""Which command lines the job service takes: `checked` validates the overrides as `gpuclust run` does, and refuses those that leave its limits.

A job of the service may read only files below one folder, and addresses that were allowed; it may not choose where runs are recorded, where
temporary files are written, and on which machines it runs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from glob import glob, has_magic
from pathlib import Path
from urllib.parse import unquote

from gpuclust.compose import Plan, plan
from gpuclust.config import Config, DataConfig, is_query
from gpuclust.data.files import absolute_path, expand_user, split_paths
from gpuclust.data.remote import is_remote
from gpuclust.data.schema import read_schema
from gpuclust.data.source import detect_preset
from gpuclust.errors import ConfigurationError, DataError, why
from gpuclust.sanitize import mask, printable

# What a job may set. A key of another group is refused, also in a file of an experiment.
GROUPS = ("data", "clean", "scale", "reduce", "map", "cluster", "score", "analysis", "backend", "memory", "sweep", "report", "seed", "dtype",
          "experiments")  # fmt: skip
OF_TRACKING = ("tracking.models", "tracking.register", "tracking.retry_seconds")
REFUSED = {
    "tracking": "the service records all runs in its own store",
    "workers": "the service runs all jobs on its own machine",
    "memory.folder": "the service chooses where temporary files are written",
    "data.query": "a query could read any file; give a file with data.path",
    "data.database": "the service reads no databases; give a file with data.path",
    "data.folder": "it belongs to a query; give a file with data.path",
}
# A choice of a group is a name, not the path of a file.
_CHOICE = re.compile(r"[\w\s,*()'\"\[\]-]*")
_OVERRIDE = re.compile(r"\s*(?:\+\+|\+|~)?(?P<key>[A-Za-z_][^=\s]*)\s*(?:=(?P<value>.*))?", re.DOTALL)
# A run of the store, or a registered model; an export folder could be anywhere.
_RUN = re.compile(r"\w+|models:/[\w. -]+[@/][\w-]+")
# Hydra composes through one global object.
_lock = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """The ``data`` folder (resolved) with the files that a job may read, and the beginnings of ``remote`` addresses that it may read; an
    empty text allows any address."""

    data: Path
    remote: tuple[str, ...] = ()

    def check(self, key: str, path: str) -> None:
        """Raise ConfigurationError if a path, a pattern, or one of a list, is outside."""
        if path.lstrip().startswith("{") or is_query(path):
            raise ConfigurationError(f"{key}={path}: {REFUSED['data.query']}")
        for part in split_paths(path):
            if is_remote(part):
                self._check_address(key, part)
                continue
            place = self.data / expand_user(part.removeprefix("file://"))
            matches = map(Path, glob(str(place), recursive=True)) if has_magic(part) else ()  # noqa: PTH207
            if not all(self._is_inside(one) for one in (place, *matches)):
                raise ConfigurationError(
                    f"{key}={part} is outside the data folder of this service; give a path below it, as in {key}=tracks.csv"
                )

    def _is_inside(self, place: Path) -> bool:
        try:
            return place.resolve().is_relative_to(self.data)
        except (OSError, ValueError, RuntimeError):  # a loop of links, a null character
            return False

    def _check_address(self, key: str, address: str) -> None:
        begins = any(
            start == "" or address == start or address.startswith(start.rstrip("/") + "/") for start in self.remote
        )
        web = address.lower().startswith(("http://", "https://"))
        if not begins or ".." in unquote(address) or ("?" in address and not web):
            allowed = ", ".join(start or "any" for start in self.remote) or "none"
            raise ConfigurationError(
                f"{key}={mask(address)} is an address that this service may not read (--allow-remote: {allowed}); give a file with {key}"
            )


def checked(overrides: Sequence[str], *, multirun: bool, limits: Limits) -> Plan:
    """The plan of a job of the service. The current folder must be that of the limits.

    Raises ConfigurationError, or another InputError with the line that the command prints, if the overrides are invalid or outside the limits.
    """
    if not overrides:
        raise ConfigurationError("a job needs overrides, as in data.path=tracks.csv cluster.n_clusters=6")
    for text in overrides:
        _check_text(text)

    def sniff(path: str) -> str:
        limits.check("data.path", path)
        return {"none": "table", "tracks": "tracks"}[detect_preset(path)]

    with _lock:
        planned = plan(overrides, multirun=multirun, sniff=sniff)
    for path, sheet in dict.fromkeys((job.config.data.path, job.config.data.sheet) for job in planned.jobs):
        if path:
            limits.check("data.path", path)
            if not any(map(is_remote, split_paths(path))):
                _read_header(path, sheet)
    for path in dict.fromkeys(job.config.data.join.path for job in planned.jobs):
        if path:
            limits.check("data.join.path", path)
    for job in planned.jobs:
        _check_configuration(job.config)
    return planned


def _read_header(path: str, sheet: str | None) -> None:
    """Raise DataError for a local file that is missing or no table."""
    try:
        read_schema(DataConfig(path=absolute_path(path), sheet=sheet).location or "")
    except OSError as error:
        raise DataError(why(error)) from error


def _check_text(text: str) -> None:
    """Raise ConfigurationError for an option, a secret, an interpolation, a path as a choice, or a key that a job may not set."""
    found = _OVERRIDE.fullmatch(text)
    if found is None or not text.isprintable():
        raise ConfigurationError(
            f"'{printable(text)}' is not an override; write KEY=VALUE in one line, without control characters"
        )
    if mask(text) != text:
        raise ConfigurationError(
            f"{mask(text)} contains a password or a token; set it in the environment of the service, and leave it out of the job"
        )
    if "${" in text:
        raise ConfigurationError(f"{text} is an interpolation, which the service does not take; write the value")
    key, value = found["key"], found["value"] or ""
    if key in OF_TRACKING:
        return
    for refused, reason in REFUSED.items():
        if key == refused or key.startswith((f"{refused}.", f"{refused}/", f"{refused}@")):
            raise ConfigurationError(f"{text}: {reason}")
    if "." not in key and not _CHOICE.fullmatch(value):
        raise ConfigurationError(f"{text} is not a choice of {key}; give a name, as gpuclust --help lists them")


def _check_configuration(config: Config) -> None:
    """Raise ConfigurationError where a file of an experiment sets what a job may not set."""
    plain = Config()
    refused = {
        **{name: getattr(config, name) != getattr(plain, name) for name in (f.name for f in fields(Config)) if name not in (*GROUPS, "tracking")},
        "tracking": (config.tracking.store, config.tracking.uri, config.tracking.experiment)
        != (plain.tracking.store, plain.tracking.uri, plain.tracking.experiment),
        "memory.folder": config.memory.folder is not None,
        "data.query": config.data.query is not None,
        "data.database": config.data.database is not None,
        "data.folder": config.data.folder is not None,
    }  # fmt: skip
    for key, is_set in refused.items():
        if is_set:
            raise ConfigurationError(f"{key} is set: {REFUSED.get(key, 'a job of the service may not set it')}")
    within, init = config.data.within, getattr(config.cluster, "init_from", None)
    for key, run in (("data.within", within and within.rpartition(":")[0]), ("cluster.init_from", init)):
        if run is not None and not _RUN.fullmatch(run):
            raise ConfigurationError(f"{key}={run} is not a run of this service; give the id of a run, or best")
