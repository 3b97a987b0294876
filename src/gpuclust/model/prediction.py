"""Prediction by algorithm: what a model of each one holds, and how it gives new rows their clusters.

The rule of an algorithm of our own is registered by the module of this package that has the algorithm's name. The rule of a
plug-in is the field ``rule`` of its `Algorithm`, an entry point of the group ``gpuclust.algorithms``; a rule without an algorithm is
added by `register_rule`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from gpuclust.errors import ModelError

ENTRY_POINTS = "gpuclust.algorithms"
BLOCK_ROWS = 4_096

Parameters = Mapping[str, np.ndarray]
Options = Mapping[str, Any]
# Labels (n,) int, confidences (n,) in [0, 1], and distances (n,) to the own centre, or NaN.
Placed = tuple[np.ndarray, np.ndarray, np.ndarray | float]
# From points (n, n_columns) in the prepared space.
Place = Callable[[np.ndarray], Placed]

# From points (n, n_columns): the membership (n, n_clusters) float64 in each cluster, in [0, 1], and the outlier score (n,) float64.
Soft = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Centres(NamedTuple):
    """Centres of clusters and the distance to each that decides: ``means`` (n_clusters, n_columns). Without ``factors`` the distance is Euclidean. With
    them it is the negative logarithm of weight x density: half the squared length of (x - mean) @ factor, (n_clusters, n_columns, n_columns) or the
    diagonals (n_clusters, n_columns), less a ``constant`` (n_clusters,). All are float64."""

    means: np.ndarray
    factors: np.ndarray | None = None
    constant: np.ndarray | None = None


class ArraySpec(NamedTuple):
    """An array of a model: its ``kind`` ("f" floating point, "i" integer), and the name of each axis. Axes of one name have
    one length; ``features`` are those of a row, ``columns`` those of the prepared space."""

    kind: str
    axes: tuple[str, ...]
    finite: bool = True


def no_check(parameters: Parameters, options: Options) -> None:
    """Nothing more than the types, shapes and finite values."""


@dataclass(frozen=True)
class PredictionRule:
    """How models of one algorithm predict.

    ``arrays`` are the fitted parameters of a model by name, or a function of its options that gives them. ``options`` are
    the plain values that a model also has, each with the values allowed (none: any; one of them None: it may be absent). ``place(parameters, options)`` gives the function
    from points (n, n_columns) to their labels, confidences and distances. ``check(parameters, options)`` raises ModelError
    where values are impossible. Axes in ``may_be_empty`` may have the length 0. ``soft(parameters, options)`` gives the function from points to
    memberships and outlier scores, which are ``outlier`` in words, and ``centres(parameters, options)`` what explains a label; None where the algorithm has none.
    """

    name: str
    arrays: Mapping[str, ArraySpec] | Callable[[Options], Mapping[str, ArraySpec]]
    place: Callable[[Parameters, Options], Place]
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    check: Callable[[Parameters, Options], None] = no_check
    may_be_empty: tuple[str, ...] = ()
    soft: Callable[[Parameters, Options], Soft] | None = None
    centres: Callable[[Parameters, Options], Centres] | None = None
    outlier: str = ""

    def arrays_of(self, options: Options) -> Mapping[str, ArraySpec]:
        """The arrays of a model with these options."""
        return self.arrays(options) if callable(self.arrays) else self.arrays

    def check_options(self, options: Options) -> None:
        """Raises ModelError unless the options are those of the algorithm, with allowed values."""
        for name in sorted({*self.options, *options}):
            allowed = self.options.get(name)
            absent = name not in options and (not allowed or None not in allowed)
            if allowed is None or absent or (allowed and options.get(name) not in allowed):
                value = str(options.get(name))[:80]
                raise ModelError(f"{name[:80]}={value} does not fit the algorithm {self.name}")


_rules: dict[str, PredictionRule] = {}


def register_rule(rule: PredictionRule) -> None:
    """Add the rule of an algorithm, or replace the one of that name."""
    _rules[rule.name] = rule


def rule_of(name: str) -> PredictionRule:
    """The rule of an algorithm. Raises ModelError when no installed package has it."""
    if name not in _rules and name.isidentifier() and find_spec(module := f"{__package__}.{name}"):
        import_module(module)
    if name not in _rules:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            if (rule := getattr(entry.load(), "rule", None)) is not None:
                register_rule(rule)
    if name not in _rules and __name__ != "gpuclust.model.prediction":  # the copy that a logged MLflow model carries
        with suppress(ImportError):
            register_rule(import_module("gpuclust.model.prediction").rule_of(name))
    if name not in _rules:
        raise ModelError(
            f"the model's algorithm {name[:80]!r} is not known here; install the package that provides it, or upgrade gpuclust"
        )
    return _rules[name]


def assign(algorithm: str, parameters: Parameters, options: Options, X: np.ndarray) -> np.ndarray:
    """Labels (n,) int32 of prepared rows X (n, n_columns) under fitted parameters, in the numbering of the fit."""
    return place_rows(rule_of(algorithm).place(parameters, options), X)[0]


def place_rows(place: Place, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,) int32, confidences (n,) float32 and distances (n,) float32 of points (n, n_columns), in threads."""
    labels = np.empty(len(points), dtype=np.int32)
    confidence = np.empty(len(points), dtype=np.float32)
    distance = np.empty(len(points), dtype=np.float32)

    def run(block: slice) -> None:
        labels[block], confidence[block], distance[block] = place(points[block])

    in_threads(run, row_blocks(len(points)))
    return labels, confidence, distance


def row_blocks(n_rows: int) -> list[slice]:
    """Blocks of so few rows that what is computed of them stays in a processor's cache."""
    return [slice(start, min(start + BLOCK_ROWS, n_rows)) for start in range(0, n_rows, BLOCK_ROWS)]


def in_threads(run: Callable[[slice], None], blocks: Sequence[slice]) -> None:
    """Call a function for each block, in as many threads as there are processors; NumPy and SciPy release the lock."""
    if len(blocks) <= 1:
        for block in blocks:
            run(block)
        return
    with ThreadPoolExecutor(min(len(blocks), os.cpu_count() or 1)) as pool:
        list(pool.map(run, blocks))
