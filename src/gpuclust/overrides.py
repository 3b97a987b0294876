"""Check the overrides of a command line: which are accepted, why others are rejected, and which have no effect."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpuclust.algorithms.registry import known_keys
from gpuclust.config import (
    NAMED_BY_TABLE,
    Config,
    DataConfig,
    MapConfig,
    ReduceConfig,
    SweepConfig,
    WorkersConfig,
    did_you_mean,
)
from gpuclust.errors import ConfigurationError

# Groups that affect where a job runs and how it is shown, but never its result.
WITHOUT_EFFECT = ("tracking", "sweep", "report", "backend", "memory", "workers", "experiments")
# Computed once for a sweep, from all of its jobs.
OF_THE_SWEEP = ("analysis.gap", "analysis.compare")

STUDIES = "experiments"
TEXT_KEYS = ("data.query", "data.database", "data.folder", "data.sheet")
PATH_KEYS = ("data.path", "data.join.path", "workers.scheduler_file", "memory.folder", "cluster.init_from")
# Names that other libraries use for a key.
SYNONYMS = {
    "cluster.n_components": "cluster.n_clusters",
    "cluster.k": "cluster.n_clusters",
    "cluster.random_state": "seed",
    "random_state": "seed",
    "cluster.seed": "seed",
    "cluster.eps": "cluster.cluster_selection_epsilon",
    "metric": "sweep.metric",
}

_OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]*)(?P<rest>=.*)?", re.DOTALL)

# Settings of Hydra, by the prefix of the key, and the reason why they have no effect; the first match is used.
_HYDRA = {
    "hydra/launcher hydra.launcher": "gpuclust runs the jobs itself, in one process that shares tables and matrices",
    "hydra.sweeper.params": "write the values on the command line, as in -m cluster.n_clusters=2,3",
    "hydra/sweeper hydra.sweeper": "gpuclust runs every combination of the values given",
    "hydra.mode": "-m runs a sweep",
    "hydra.searchpath": "--config-dir DIR adds a folder of configuration files",
    "hydra.run hydra.sweep hydra.output_subdir hydra.job.chdir hydra.job": (
        "gpuclust makes no run folders; results go to the tracking store (tracking.uri)"
    ),
    "hydra.verbose hydra/job_logging hydra.job_logging hydra/hydra_logging hydra.hydra_logging": (
        "gpuclust does not use Hydra's logging; GPUCLUST_DEBUG=1 shows tracebacks"
    ),
    "hydra": "gpuclust composes its configuration with Hydra but runs the jobs itself",
}


def checked_override(text: str) -> str:
    """Check an override and convert it to the form passed to Hydra.

    The keys of `NAMED_BY_TABLE`, such as ``clean.bounds.FEATURE``, are added with ``++``, because their names are not in
    the schema; ``experiment=`` is short for ``experiments=``.

    Raises ConfigurationError, with the reason, for a setting of Hydra, a deletion, a package, or an unknown key.
    """
    if text.partition("=")[0].strip() == "data.query" and "--" not in text:
        text = re.sub(r"('[^']*')|[\r\n]+", lambda found: found[1] or " ", text)
    if len(f"{text}.".splitlines()) > 1:
        raise ConfigurationError(f"'{' '.join(text.split())}' holds a line break; write key=value in one line")
    found = _OVERRIDE.fullmatch(text)
    assert found is not None  # every part is optional
    sign, key, rest = found["sign"] or "", found["key"].strip(), found["rest"] or ""
    if re.match(r"hydra(?=[./@]|$)", key):
        raise ConfigurationError(refusal_of_hydra(text, key))
    if sign == "~":
        raise ConfigurationError(_deletion(text, key))
    if any(key.startswith(f"{mapping}.") for mapping in NAMED_BY_TABLE) or (key in NAMED_BY_TABLE and rest):
        return f"++{key}{rest}"
    if key == "experiment":
        key = STUDIES
    if "@" in key:
        raise ConfigurationError(f"{text} names a package (KEY@PACKAGE), which gpuclust does not use; write key=value")
    if key in PATH_KEYS:
        rest = _quoted_paths(rest)
    if key == "sweep.require":
        rest = _quoted_comparisons(rest)
    if key in TEXT_KEYS:
        rest = _quoted(rest)
    if not sign:
        return f"{key}{rest}" if rest else text
    if not is_known(key):
        raise ConfigurationError(unknown(key))
    if sign == "+" and key != STUDIES:
        raise ConfigurationError(f"{text} adds a key that exists; write {key}{rest}")
    return f"{key}{rest}"


def _quoted(rest: str) -> str:
    """Quote ``=text`` for Hydra's grammar, unless it is quoted already, null, or an interpolation."""
    text = rest[1:].strip()
    if text in ("", "null") or text.startswith("${") or re.fullmatch(r"(['\"]).*\1", text):
        return rest
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)  # a backslash before a quote is written twice
    return f"='{escaped}'"


def _quoted_paths(rest: str) -> str:
    """Quote ``=path`` if Hydra's grammar needs it: a path without Hydra syntax, an existing path, or ``~/...``."""
    path = rest[1:]
    if re.fullmatch(r"[\w./-]*", path, re.ASCII):
        return rest
    is_plain = not set(path) & set(",'" if "://" in path else ",()[]{}'\"\\$=")
    if is_plain or ("'" not in path and Path(os.path.expanduser(path)).exists()):  # noqa: PTH111  an unknown ~user fails later
        return f"='{path}'"
    return re.sub(r"(?<=[=,\[(\s])~[^,\])\s]*", lambda found: f"'{found[0]}'", rest)


def _quoted_comparisons(rest: str) -> str:
    """``=['a<1','b>=2']`` of ``=[a<1,b>=2]`` or ``=a<1``, as Hydra's grammar needs it; what is quoted already stays."""
    text = rest[1:].strip()
    if not text or set(text) & set("'\"$"):
        return rest
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return "=[" + ",".join(f"'{part.strip()}'" for part in inner.split(",") if part.strip()) + "]"


def refusal_of_hydra(text: str, key: str) -> str:
    """The reason why a setting of Hydra is rejected."""
    reasons = (
        reason
        for starts, reason in _HYDRA.items()
        if any(key == start or key.startswith((f"{start}.", f"{start}@")) for start in starts.split())
    )
    return f"{text} would have no effect: {next(reasons, _HYDRA['hydra'])}"


def _deletion(text: str, key: str) -> str:
    group = key.partition(".")[0]
    can_be_none = ("scale", "reduce", "score", "tracking", "report")
    instead = f"; choose {group}=none" if key in can_be_none else "; leave the key out to use its default"
    return f"{text}: nothing can be deleted from the configuration{instead}"


def is_known(key: str) -> bool:
    """Whether the key is a leaf or a group in the configuration of any algorithm."""
    return key in known_keys() or any(known.startswith(f"{key}.") for known in known_keys())


def unknown(key: str) -> str:
    """The message for an unknown key, with similar keys."""
    if synonym := SYNONYMS.get(key):
        return f"unknown key '{key}'; use {synonym}"
    groups = {k.partition(".")[0] for k in known_keys()}
    return f"unknown key '{key}'{did_you_mean(key, [*known_keys(), *groups])} (gpuclust --cfg shows all keys)"


def refuse_sweep(key: str, text: str) -> None:
    """Raise ConfigurationError for a sweep over a key that does not change the result."""
    group = key.partition(".")[0]
    if group in WITHOUT_EFFECT and group != STUDIES:
        raise ConfigurationError(
            f"{text} cannot be swept: {group} changes no result, so the jobs would be equal; give one value"
        )
    if key in OF_THE_SWEEP:
        raise ConfigurationError(f"{text} cannot be swept: it is computed once for a whole sweep; give one value")
    if key == "data.where":
        raise ConfigurationError(f"{text} cannot be swept: it is a text for the reader; give one value")


def without_effect(config: Config) -> Mapping[str, str]:
    """Keys that do not change the result of this configuration -> the reason, as in "with reduce=none"."""
    keys: dict[str, str] = {}
    if config.reduce.method == "none":
        keys |= {f"reduce.{name}": "with reduce=none" for name in ("n_components", "whiten", "rescale", "options")}
    if config.map.method == "pca":
        keys |= {f"map.{f.name}": "with map=pca" for f in fields(MapConfig) if f.name != "method"}
    if config.data.source == "file" and config.data.n_rows is None:
        keys["data.seed"] = "without data.n_rows, as all rows of the file are used"
    if not config.data.categorical:
        keys |= {f"data.{name}": "without data.categorical" for name in ("encoding", "max_categories")}
    elif config.data.encoding == "frequency":
        keys["data.max_categories"] = "with data.encoding=frequency"
    if config.workers.name == "here":
        keys |= {f"workers.{name}": "with workers=here" for name in ("address", "scheduler_file", "count", "use")}
    if config.sweep.search == "grid":
        keys |= {f"sweep.{name}": "with sweep.search=grid" for name in ("n_trials", "prune")}
    return keys


def normalised(config: Config) -> Config:
    """Set keys without effect to their defaults, so that equal jobs have equal configurations."""
    for key in without_effect(config):
        group, _, name = key.partition(".")
        setattr(getattr(config, group), name, getattr(_DEFAULTS[group], name))
    return config


_DEFAULTS: Mapping[str, Any] = {
    "reduce": ReduceConfig(),
    "map": MapConfig(),
    "data": DataConfig(),
    "sweep": SweepConfig(),
    "workers": WorkersConfig(),
}
