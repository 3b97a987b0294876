"""Make a version of a registered model the champion, after both have assigned the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpuclust.analysis.comparison import Comparison, compare
from gpuclust.assignments import assign
from gpuclust.compose import from_yaml
from gpuclust.config import DataConfig, MemoryConfig
from gpuclust.errors import ConfigurationError, TrackingError
from gpuclust.model.bundle import UNPLACED, Bundle
from gpuclust.model.records import NOISE
from gpuclust.predict import opened
from gpuclust.sanitize import mask
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.registry import CHALLENGER, CHAMPION, ModelVersion, Registry

PROMOTION_FILE = "promotion.json"
# Clusters shown in the terminal.
SHOWN = 12


@dataclass(frozen=True)
class SharePair:
    """A cluster of the champion and the cluster of the challenger that matches it (None: no partner), with their shares of the rows and the number
    of shared rows over that in either (Jaccard)."""

    champion: int | None
    challenger: int | None
    champion_share: float
    challenger_share: float
    jaccard: float


@dataclass(frozen=True)
class ModelComparison:
    """How the champion and the challenger assign the same rows. ``n_rows`` were read and ``n_compared`` placed by both; ``noise`` is the share of
    these that is noise."""

    rows_of: str
    n_rows: int
    n_compared: int
    agreement: Comparison
    shares: tuple[SharePair, ...]
    champion_noise: float
    challenger_noise: float

    @property
    def ami(self) -> float:
        """The adjusted mutual information of the two, with noise as a cluster."""
        return self.agreement.with_noise.ami

    def in_words(self) -> list[str]:
        """The comparison as lines of text."""
        left_out = self.n_rows - self.n_compared
        lines = [
            f"{self.n_compared:,} rows of {self.rows_of}"
            + (f" ({left_out:,} more that one of them cannot place)" if left_out else ""),
            f"agreement: AMI {self.ami:.4f}, ARI {self.agreement.with_noise.ari:.4f}",
            f"noise: {self.challenger_noise:.1%} (champion {self.champion_noise:.1%})",
        ]
        lines += map(_in_words, self.shares[:SHOWN])
        if len(self.shares) > SHOWN:
            lines.append(f"{len(self.shares) - SHOWN} more clusters")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        found = {k: v for k, v in vars(self).items() if k not in ("agreement", "shares")}
        return found | {"shares": [asdict(s) for s in self.shares], **self.agreement.to_dict()}


def _in_words(pair: SharePair) -> str:
    if pair.challenger is None:
        return f"cluster {pair.champion} of the champion ({pair.champion_share:.1%} of the rows) matches no cluster of the challenger"
    if pair.champion is None:
        return f"cluster {pair.challenger} ({pair.challenger_share:.1%} of the rows) is new"
    return (
        f"cluster {pair.challenger}: {pair.challenger_share:.1%} of the rows; champion's cluster {pair.champion}: "
        f"{pair.champion_share:.1%} (Jaccard {pair.jaccard:.2f})"
    )


@dataclass(frozen=True)
class Promotion:
    """What `promote` found and did. ``comparison`` is None if there was no champion. ``refused`` says why the version was not promoted, or is empty."""

    challenger: ModelVersion
    champion: ModelVersion | None
    comparison: ModelComparison | None
    promoted: bool
    refused: str = ""


def promote(
    name: str,
    *,
    registry: Registry,
    version: int | None = None,
    data_path: str | None = None,
    min_ami: float | None = None,
    max_noise: float | None = None,
    dry_run: bool = False,
    memory: MemoryConfig | None = None,
) -> Promotion:
    """Compare a version of a registered model (by default the one with the alias ``challenger``) with the champion, and make it the champion.

    Both assign the rows of the file that the version was fitted on, or of ``data_path``. The version is not promoted if their AMI is below
    ``min_ami`` or its share of noise above ``max_noise``, or with ``dry_run``. The first champion has nothing to be compared with. Raises
    TrackingError if there is no such version, DataError or ModelError if the rows cannot be read or lack a feature of one of the models.
    """
    for option, value in (("--min-ami", min_ami), ("--max-noise", max_noise)):
        if value is not None and not 0 <= value <= 1:
            raise ConfigurationError(f"{option} {value:g} is outside 0 to 1")
    challenger = registry.version(name, version) if version is not None else registry.alias(name, CHALLENGER)
    champion = registry.alias(name, CHAMPION)
    if challenger is None:
        at = f"; its champion is version {champion.number}" if champion is not None else ""
        raise TrackingError(
            f"the registered model {name} has no version with the alias {CHALLENGER}{at}; register one with "
            f"tracking.register={name}, or name a version with --version"
        )
    comparison = None
    if champion is not None and champion.number != challenger.number:
        comparison = compare_versions(
            registry, champion, challenger, data_path=data_path, memory=memory or MemoryConfig()
        )
    refused = "" if comparison is None else _refusal(comparison, min_ami, max_noise)
    promoted = not (refused or dry_run or (champion is not None and champion.number == challenger.number))
    if promoted:
        registry.promote(challenger)
        if comparison is not None and challenger.run_id:
            registry.log_json(challenger, PROMOTION_FILE, _document(champion, challenger, comparison))
    return Promotion(challenger, champion, comparison, promoted, refused)


def _refusal(found: ModelComparison, min_ami: float | None, max_noise: float | None) -> str:
    if min_ami is not None and found.ami < min_ami:
        return f"its AMI with the champion, {found.ami:.4f}, is below --min-ami {min_ami:g}"
    if max_noise is not None and found.challenger_noise > max_noise:
        return f"its noise, {found.challenger_noise:.1%} of the rows, is above --max-noise {max_noise:g}"
    return ""


def _document(champion: ModelVersion | None, challenger: ModelVersion, found: ModelComparison) -> Mapping[str, Any]:
    replaced = None if champion is None else champion.address
    return mask({"champion": challenger.address, "replaced": replaced, **found.to_dict()})


def compare_versions(
    registry: Registry,
    champion: ModelVersion,
    challenger: ModelVersion,
    *,
    data_path: str | None = None,
    memory: MemoryConfig | None = None,
) -> ModelComparison:
    """Both versions on the same rows: of ``data_path``, else those of the run that made the challenger, as they are read (not cleaned)."""
    source = _source(registry, challenger, data_path)
    labels = []
    for version in (champion, challenger):
        with registry.download(version) as folder:
            bundle = Bundle.load(folder)
        with opened(source, bundle, memory or MemoryConfig()) as given:
            labels.append(assign(bundle, given.raw).cluster)
    names = [
        f"version {v.number} ({registry.run_name(v)})" if v.run_id else f"version {v.number}"
        for v in (champion, challenger)
    ]
    return compared(labels[0], labels[1], names=names, rows_of=mask(source.shown))


def _source(registry: Registry, challenger: ModelVersion, data_path: str | None) -> DataConfig:
    if data_path is not None:
        return DataConfig(preset="tracks").at(data_path)
    if not challenger.run_id:
        raise ConfigurationError(f"{challenger.address} names no run; give the rows to compare with --data FILE")
    with registry.run_file(challenger, tags.CONFIG_FILE) as path:
        return from_yaml(path.read_text(encoding="utf-8")).data


def compared(champion: np.ndarray, challenger: np.ndarray, *, names: list[str], rows_of: str) -> ModelComparison:
    """The comparison of two labelings (n_rows,) int32 of the same rows; -2 is a row that could not be placed."""
    both = (champion != UNPLACED) & (challenger != UNPLACED)
    if not both.any():
        raise ConfigurationError(f"no row of {rows_of} can be placed by both models; give other rows with --data FILE")
    first, second = champion[both], challenger[both]
    found = compare(names[0], first, names[1], second)
    n = len(first)
    sizes = [dict(zip(*np.unique(side, return_counts=True), strict=True)) for side in (first, second)]
    shares = tuple(
        SharePair(
            m.first,
            m.second,
            float(sizes[0].get(m.first, 0) / n),
            float(sizes[1].get(m.second, 0) / n),
            m.jaccard,
        )
        for m in found.matches
    )
    noise = [float((side == NOISE).mean()) for side in (first, second)]
    return ModelComparison(rows_of, len(champion), n, found, shares, *noise)
