"""The criteria for the number of clusters of a sweep, which `gpuclust.analysis.verdict` weighs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from statistics import median

from gpuclust.algorithms.registry import algorithms
from gpuclust.analysis.selection import MAX_NOISE, MAX_SHARE_IN_ONE_CLUSTER, Curves, Optimum, Points, knee, optimum
from gpuclust.metrics.gap import Gap
from gpuclust.pages.text import number

# Kaufman and Rousseeuw (1990), table 4: below 0.25 no substantial structure, from 0.51 on a reasonable one.
NO_STRUCTURE, REASONABLE = 0.25, 0.5
# Uniform clouds reach 0.01 nats a row, Gaussian ones stay below 0.
MIN_GAIN = 0.05
# Nats a row that separated groups gain and skewed single clouds hardly do.
LARGE_GAIN = 0.5
# Where one of k groups is cut in two, or two are merged, about 1/k of the rows lose at least 0.2 of silhouette.
SHARP = 0.2
FLAT = 0.05
MIN_SIZES = 3
MIN_PLATEAU = 3
# Tibshirani and Walther (2005): the largest size with a prediction strength above 0.8 to 0.9.
MIN_STRENGTH = 0.8
# Metrics that have a best size on a curve over numbers of clusters.
OF_PARTITIONS = ("silhouette", "inertia", "bic", "split_gain", "calinski_harabasz")
# Kinds of criteria.
SILHOUETTE, BIC, PLATEAU, GAP, STRENGTH = "silhouette", "bic", "plateau", "gap", "strength"


@dataclass(frozen=True)
class Criterion:
    """The result of one criterion: a sentence in ``summary``, the sizes it names, whether strongly, and ``reason_against`` where it names none.

    ``kind`` is what it looks at, ``name`` the same in words; ``with_bic``: the line that it judges has a BIC too.
    ``beyond``: ``more`` or ``fewer`` where its optimum is at the largest or the smallest size tried, so that sizes beyond may be
    better. ``measured`` is False where there is no such curve, or one of too few sizes.
    """

    kind: str
    name: str
    summary: str = ""
    sizes: tuple[int, ...] = ()
    strong: bool = False
    reason_against: str = ""
    beyond: str = ""
    with_bic: bool = False

    @property
    def measured(self) -> bool:
        """Whether there is anything to weigh."""
        return bool(self.summary)


def label_of(line: str) -> str:
    """The algorithm of a line of a curve, in words; the first word of the line where no algorithm has its name or variant."""
    words = line.split("/")
    known = algorithms()
    found = known.get(words[0]) or next((a for a in known.values() if {*words} & {*a.variants}), None)
    return words[0] if found is None else found.label or found.name


def describe_line(line: str) -> str:
    """A line of a curve in words: ``K-Means``, ``the mixture (full)``, ``K-Means, minmax``."""
    words = line.split("/")
    for name, algorithm in algorithms().items():
        variant = next((w for w in words if w in algorithm.variants), None)
        if variant is not None or words[0] == name:
            label = algorithm.label or name
            rest = [w for w in words if w not in (name, variant)]
            return ", ".join([f"{label} ({variant})" if variant else label, *rest])
    return ", ".join(words)


def plateau_lines(curves: Curves) -> Mapping[str, Points]:
    """The number of clusters over another size, such as ``min_cluster_size``: the fit finds the number, it is not asked for."""
    return curves.get("n_clusters", {})


def sizes_tried(curves: Curves) -> list[int]:
    """Numbers of clusters that jobs were asked for, from two on, ascending."""
    others = plateau_lines(curves)
    lines = [points for m in OF_PARTITIONS for line, points in curves.get(m, {}).items() if line not in others]
    return sorted({int(p[0]) for points in lines for p in points if p[0] > 1})


def partition_criteria(curves: Curves) -> list[Criterion]:
    """One criterion for each line over numbers of clusters without a BIC, such as K-Means, and one for the line of the lowest BIC,
    which BIC must agree with."""
    best = best_mixture(curves)
    skipped = {*curves.get("bic", {}), *plateau_lines(curves)} - ({best} if best else set())
    found = {line: partition(curves, line) for line in curves.get("silhouette", {}) if line not in skipped}
    if best in found:
        by_bic = mixture(curves)
        if not by_bic.sizes and not by_bic.beyond:  # BIC names no number: then the silhouette of a mixture names none
            reason_against = found[best].reason_against or by_bic.reason_against
            found[best] = replace(found[best], sizes=(), strong=False, beyond="", reason_against=reason_against)
        elif found[best].sizes != by_bic.sizes:
            found[best] = replace(found[best], strong=False)
    return list(found.values())


def partition(curves: Curves, line: str) -> Criterion:
    """Silhouette and split gain of one line."""
    points = curves["silhouette"][line]
    where = describe_line(line)
    name = f"the silhouette of {where}"
    criterion = partial(Criterion, SILHOUETTE, name, with_bic=line in curves.get("bic", {}))
    silhouette = optimum("silhouette", points)
    if silhouette is None or len(points) < MIN_SIZES:
        return criterion()
    values = [p[1] for p in points]
    flat = silhouette.value - median(values) < FLAT
    summary = (
        f"{where}: silhouette peaks at k={silhouette.size:.0f} ({silhouette.value:.3f}; "
        f"median {median(values):.3f} over {len(points)} sizes)"
    )
    low = "low, flat" if flat else "low"
    gain = optimum("split_gain", curves.get("split_gain", {}).get(line, ()))
    if gain is None:
        return _by_silhouette_alone(curves, line, partial(criterion, summary), silhouette)
    summary += f", split gain peaks at k={gain.size:.0f} ({gain.value:.2f} per row)"
    if gain.value < MIN_GAIN:
        reason_against = f"for {where}, one Gaussian describes the rows as well as clusters do"
        return criterion(summary, reason_against=reason_against)
    if silhouette.value < NO_STRUCTURE:
        reason_against = f"{where}: {low} silhouette (max {silhouette.value:.2f})"
        return criterion(summary, reason_against=reason_against)
    inside = [int(o.size) for o in (silhouette, gain) if not at_end(o, points)]
    if silhouette.size == gain.size and not inside:
        beyond = "more" if silhouette.at_edge else "fewer"
        end = "largest" if silhouette.at_edge else "smallest"
        reason_against = f"for {where}, silhouette and split gain peak at the {end} size tried, k={silhouette.size:.0f}"
        return criterion(summary, reason_against=reason_against, beyond=beyond)
    if len(inside) == 2 and silhouette.size == gain.size:
        signs = (
            silhouette.value >= REASONABLE,
            gain.value >= LARGE_GAIN,
            _drop(points, silhouette.size) >= SHARP / silhouette.size,
        )
        return criterion(summary, (inside[0],), strong=sum(signs) >= 2)
    if silhouette.value >= REASONABLE and inside:
        return criterion(summary, tuple(dict.fromkeys(inside)))
    end = "" if len(inside) == 2 else ", an end of the range: widen it"
    reason_against = f"for {where}, silhouette favours k={silhouette.size:.0f}, split gain k={gain.size:.0f}{end}"
    return criterion(summary, reason_against=reason_against)


def _by_silhouette_alone(
    curves: Curves, line: str, criterion: Callable[..., Criterion], silhouette: Optimum
) -> Criterion:
    """Without a split gain: named weakly where Calinski-Harabasz and Davies-Bouldin have their best size there too."""
    where = describe_line(line)
    if silhouette.value < NO_STRUCTURE:
        return criterion(reason_against=f"{where}: low silhouette (max {silhouette.value:.2f})")
    others = [optimum(m, curves.get(m, {}).get(line, ())) for m in ("calinski_harabasz", "davies_bouldin")]
    agree = all(o is not None and o.size == silhouette.size for o in others)
    inside = not at_end(silhouette, curves["silhouette"][line])
    if agree and inside and silhouette.value >= REASONABLE:
        return criterion((int(silhouette.size),))
    return criterion(reason_against=f"for {where}, the indices favour different sizes")


def mixture(curves: Curves) -> Criterion:
    """BIC and ICL of the mixture line of the lowest BIC."""
    line = best_mixture(curves)
    if line is None or len(curves["bic"][line]) < MIN_SIZES:
        return Criterion(BIC, "BIC")
    points = curves["bic"][line]
    bic, icl = optimum("bic", points), optimum("icl", curves.get("icl", {}).get(line, ()))
    assert bic is not None
    summary = "lowest BIC: " + ", ".join(
        f"{describe_line(other)} at k={best.size:.0f} ({best.value:,.0f}{', still falling' if best.at_edge else ''})"
        for other, p in curves["bic"].items()
        if (best := optimum("bic", p)) is not None
    )
    if icl is not None:
        summary += f"; lowest ICL of {describe_line(line)} at k={icl.size:.0f}"
    criterion = partial(Criterion, BIC, "BIC", summary)
    if bic.size == 1:
        return criterion(reason_against="for the mixture, one component has the lowest BIC")
    silhouettes, gains = (curves.get(m, {}).get(line, ()) for m in ("silhouette", "split_gain"))
    separation, gain = ({p[0]: p[1] for p in curve}.get(bic.size, -1.0) for curve in (silhouettes, gains))
    separated = not silhouettes or separation >= NO_STRUCTURE
    agree = icl is not None and icl.size == bic.size
    if at_end(bic, points):
        beyond = ("more" if bic.at_edge else "fewer") if separated and agree else ""
        if bic.at_edge:
            reason_against = f"for the mixture, BIC is still falling at the largest size ({bic.size:.0f} components)"
        else:
            reason_against = f"for the mixture, BIC is lowest at the smallest size tried ({bic.size:.0f} components)"
        return criterion(reason_against=reason_against, beyond=beyond)
    if not agree:
        return criterion(reason_against="for the mixture, the components that BIC favours overlap: ICL differs")
    size = int(bic.size)
    if not silhouettes:
        return criterion((size,))
    if not separated:
        reason = f"for the mixture, the components of the lowest BIC are not separated (silhouette {separation:.2f})"
        return criterion(reason_against=reason)
    peaks = [o.size for o in (optimum("silhouette", silhouettes), optimum("split_gain", gains)) if o is not None]
    return criterion((size,), strong=gain >= MIN_GAIN and size in peaks)


def best_mixture(curves: Curves) -> str | None:
    """The line (covariance type) that has the lowest BIC."""
    lowest = {line: min(p[1] for p in points) for line, points in curves.get("bic", {}).items() if points}
    return min(lowest, key=lambda line: lowest[line]) if lowest else None


def plateau_criteria(curves: Curves) -> list[Criterion]:
    """One criterion for each algorithm that finds its number of clusters, such as HDBSCAN."""
    labels = dict.fromkeys(label_of(line) for line in plateau_lines(curves))
    return [plateau(curves, label) for label in labels]


def plateau(curves: Curves, label: str) -> Criterion:
    """The number of clusters that an algorithm finds over the longest run of neighbouring sizes, with little noise."""
    runs: list[tuple[int, int, float, str]] = []
    tried = 0
    for line, points in plateau_lines(curves).items():
        if label_of(line) != label:
            continue
        noise, largest = (
            {p[0]: p[1] for p in curves.get(m, {}).get(line, ())} for m in ("noise_fraction", "largest_fraction")
        )
        tried = max(tried, len(points))
        usable = [
            (
                int(k),
                noise.get(size, 0.0),
                noise.get(size, 0.0) <= MAX_NOISE and largest.get(size, 0.0) <= MAX_SHARE_IN_ONE_CLUSTER,
            )
            for size, k, _ in sorted(points)
        ]
        for (k, stands), group in groupby(usable, key=lambda u: (u[0], u[2])):
            run = list(group)
            if k >= 2 and stands:
                runs.append((len(run), k, max(u[1] for u in run), line))
    if tried < MIN_SIZES:
        return Criterion(PLATEAU, label)
    if not runs or max(runs)[0] < MIN_PLATEAU:
        summary = (
            f"{label}: no number of clusters at {MIN_PLATEAU} neighbouring sizes with {MAX_NOISE:.0%} noise or less"
        )
        reason_against = f"for {label}, no number of clusters lasts over {MIN_PLATEAU} sizes"
        return Criterion(PLATEAU, label, summary, reason_against=reason_against)
    length, k, noise_share, _ = max(runs)
    summary = f"{label}: {k} clusters at {length} neighbouring sizes, with at most {noise_share:.0%} noise"
    return Criterion(PLATEAU, label, summary, (k,), strong=True)


def gap_criterion(gap: Gap | None) -> Criterion:
    """The gap statistic's own rule, and whether its maximum agrees."""
    criterion = partial(Criterion, GAP, "the gap statistic")
    if gap is None or len(gap.sizes) < MIN_SIZES:
        return criterion()
    rule = "no size" if gap.chosen is None else f"k={gap.chosen}"
    summary = (
        f"gap statistic ({gap.n_references} reference sets, {gap.n_rows:,} rows): its rule gives {rule}; "
        f"the largest gap, {max(gap.gap):.3f}, is at k={gap.maximum}"
    )
    if gap.chosen is None or gap.maximum == gap.sizes[-1]:
        beyond = "more" if gap.chosen in (None, gap.sizes[-1]) else ""
        return criterion(summary, reason_against="the gap has no maximum within the sizes tried", beyond=beyond)
    if gap.chosen == 1:
        return criterion(summary, reason_against="the gap statistic favours one cluster")
    return criterion(summary, (gap.chosen,), strong=gap.chosen == gap.maximum)


def prediction_strength(curves: Curves) -> Criterion:
    """The largest size whose clusters a model of the other half of the rows predicts."""
    criterion = partial(Criterion, STRENGTH, "prediction strength")
    lines = {line: p for line, p in curves.get("prediction_strength", {}).items() if len(p) >= MIN_SIZES}
    if not lines:
        return criterion()
    largest = {
        line: max((int(p[0]) for p in points if p[0] > 1 and p[1] >= MIN_STRENGTH), default=0)
        for line, points in lines.items()
    }
    summary = f"largest k with a prediction strength of {MIN_STRENGTH}: " + ", ".join(
        f"{describe_line(line)} {size or 'none'}" for line, size in largest.items()
    )
    sizes = tuple(dict.fromkeys(size for size in largest.values() if size))
    against = "" if sizes else "no size has clusters that half of the rows predict"
    return criterion(summary, sizes, reason_against=against)


def index_notes(curves: Curves) -> list[str]:
    """The elbow, Calinski-Harabasz and Davies-Bouldin, for the record."""
    said = []
    for line, points in curves.get("inertia", {}).items():
        if len(points) >= MIN_SIZES:
            at = knee(points)
            said.append(f"{describe_line(line)} elbow: {'none found' if at is None else f'k={at}'}")
    for metric, word, label in (("calinski_harabasz", "highest", "Calinski-Harabasz"), ("davies_bouldin", "lowest", "Davies-Bouldin")):  # fmt: skip
        best = {
            line: o
            for line, p in curves.get(metric, {}).items()
            if line not in plateau_lines(curves) and len(p) >= MIN_SIZES and (o := optimum(metric, p))
        }
        if best:
            said.append(
                f"{word} {label}: "
                + ", ".join(f"{describe_line(line)} {number(o.value)} at k={o.size:.0f}" for line, o in best.items())
            )
    return said


def at_end(best: Optimum, points: Points) -> bool:
    """Whether sizes beyond the best one were left untried: it is the largest, or the smallest and above 2."""
    return best.at_edge or (best.size == min(p[0] for p in points) and best.size > 2)


def _drop(points: Points, size: float) -> float:
    """How far the curve falls from its point at ``size`` to the higher of the neighbours."""
    ordered = sorted(points)
    at = next(i for i, p in enumerate(ordered) if p[0] == size)
    beside = [ordered[i][1] for i in (at - 1, at + 1) if 0 <= i < len(ordered)]
    return ordered[at][1] - max(beside)
