"""``reduce=umap`` and ``reduce=pacmap``: positions that keep the neighbours of rows, in a few dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuclust.config import Range, ReduceConfig
from gpuclust.data.table import sample_rows
from gpuclust.errors import ConfigurationError
from gpuclust.model.landmarks import LABELS, LandmarkReduction
from gpuclust.model.preparation import PacmapReduction, Scaling, UmapReduction
from gpuclust.reducers.landmarks import EmbeddingSettings, fit_landmarks, taken
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import RowBlocks

REDUCTIONS: Mapping[str, type[LandmarkReduction]] = {r.name: r for r in (UmapReduction, PacmapReduction)}
OPTIONS = {
    "n_neighbors": (None, Range(2, 1000)),
    "min_dist": (0.0, Range(0, 1)),
    "sample_rows": (50_000, Range(100)),
    "seed": (0, Range(0, 2**32 - 1)),
}


def fit_reduction(
    raw: Array | RowBlocks, scaling: Scaling, reduce: ReduceConfig, backend: Backend
) -> LandmarkReduction:
    """Fit the method on a sample of the scaled rows. Raises ConfigurationError for an option that is unknown or out of its range, or a number of
    dimensions that is not whole or not below that of the features, and as `fit_landmarks`."""
    key, wanted, n_features = f"reduce={reduce.method}", reduce.n_components, int(raw.shape[1])
    if not isinstance(wanted, int) or wanted < 2 or wanted >= max(n_features, 3):
        raise ConfigurationError(
            f"reduce.n_components={wanted}: {key} takes a whole number of dimensions from 2 to {n_features - 1}, below the {n_features} features"
        )
    if reduce.whiten or reduce.rescale:
        raise ConfigurationError(f"{key} has no reduce.whiten and no reduce.rescale; leave them out")
    options = _options(reduce)
    sample = taken(raw, sample_rows(int(raw.shape[0]), options["sample_rows"], options["seed"]), backend)
    settings = EmbeddingSettings(wanted, options["n_neighbors"], options["min_dist"], options["seed"])
    found = fit_landmarks(scaling.transform(sample), reduce.method, settings, backend, key)
    return REDUCTIONS[reduce.method](found)


def _options(reduce: ReduceConfig) -> dict[str, Any]:
    known = {name: of for name, of in OPTIONS.items() if name != "min_dist" or reduce.method == "umap"}
    found = {name: default for name, (default, _) in OPTIONS.items()}
    for name, value in reduce.options.items():
        if name not in known:
            raise ConfigurationError(
                f"reduce.options.{name} is not an option of reduce={reduce.method}; use {', '.join(known)}"
            )
        if value is not None and (complaint := known[name][1].complaint(value)):
            raise ConfigurationError(f"reduce.options.{name}={value} {complaint}")
        found[name] = value
    return found


def distance_warnings(reduce: ReduceConfig) -> tuple[str, ...]:
    """What to know of scores in a space whose distances are not those of the data; nothing for other reductions."""
    if reduce.method not in REDUCTIONS:
        return ()
    label = LABELS[reduce.method]
    return (
        f"distances after reduce={reduce.method} are not those of the data: the silhouette, the other scores and the verdict describe the "
        f"positions that {label} gave, where groups can be farther apart than in the data; compare with reduce=none",
    )
