"""What each figure of a sweep says about the number of clusters: the rules that `gpuclust.analysis.verdict` weighs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median

from gpuclust.analysis.gap import Gap
from gpuclust.analysis.selection import MOST_IN_ONE, MOST_NOISE, Curves, Optimum, Points, knee, optimum

# Kaufman and Rousseeuw (1990), table 4: below 0.25 no substantial structure, from 0.51 on a reasonable one.
NO_STRUCTURE, REASONABLE = 0.25, 0.5
# Uniform clouds reach 0.01 nats a row, Gaussian ones stay below 0.
LEAST_GAIN = 0.05
# Nats a row that separated groups gain and skewed single clouds hardly do.
LARGE_GAIN = 0.5
# Where one of k groups is cut in two, or two are merged, about 1/k of the rows lose at least 0.2 of silhouette.
SHARP = 0.2
FLAT = 0.05
FEWEST_SIZES = 3
PLATEAU = 3
# Tibshirani and Walther (2005): the largest size with a prediction strength above 0.8 to 0.9.
LEAST_STRENGTH = 0.8
STRENGTH = "prediction strength"


@dataclass(frozen=True)
class Witness:
    """What one figure says: the sizes it names, whether strongly, in a sentence; ``why_not`` where it names none.

    ``heard`` is False where the figure was not measured, or over too few sizes.
    """

    name: str
    says: str = ""
    sizes: tuple[int, ...] = ()
    strong: bool = False
    why_not: str = ""

    @property
    def heard(self) -> bool:
        """Whether there is anything to weigh."""
        return bool(self.says)


def partitions(curves: Curves) -> list[Witness]:
    """One witness for each K-Means line, and one for the mixture line of the lowest BIC, which BIC must agree with."""
    best = best_mixture(curves)
    skipped = {*curves.get("bic", {}), *curves.get("relative_validity", {})} - ({best} if best else set())
    found = {line: partition(curves, line) for line in curves.get("silhouette", {}) if line not in skipped}
    if best in found and found[best].sizes != mixture(curves).sizes:
        found[best] = replace(found[best], strong=False)
    return list(found.values())


def partition(curves: Curves, line: str) -> Witness:
    """Silhouette and split gain of one line."""
    points = curves["silhouette"][line]
    name = f"silhouette ({line})"
    silhouette = optimum("silhouette", points)
    if silhouette is None or len(points) < FEWEST_SIZES:
        return Witness(name)
    values = [p[1] for p in points]
    flat = silhouette.value - median(values) < FLAT
    says = (
        f"silhouette of {line}: highest {silhouette.value:.3f} at {silhouette.size:.0f}, "
        f"median {median(values):.3f} over {len(points)} sizes"
    )
    low = "low and flat" if flat else "low"
    gain = optimum("split_gain", curves.get("split_gain", {}).get(line, ()))
    if gain is None:
        return _by_silhouette_alone(curves, line, name, says, silhouette)
    says += f"; split gain highest {gain.value:.2f} nats a row at {gain.size:.0f}"
    if gain.value < LEAST_GAIN:
        return Witness(name, says, why_not="one cloud describes the rows as well as clusters do")
    if silhouette.value < NO_STRUCTURE:
        return Witness(name, says, why_not=f"the silhouette is {low} ({silhouette.value:.2f} at most)")
    inside = [int(o.size) for o in (silhouette, gain) if not at_end(o, points)]
    if len(inside) == 2 and silhouette.size == gain.size:
        signs = (
            silhouette.value >= REASONABLE,
            gain.value >= LARGE_GAIN,
            _drop(points, silhouette.size) >= SHARP / silhouette.size,
        )
        return Witness(name, says, (inside[0],), strong=sum(signs) >= 2)
    if silhouette.value >= REASONABLE and inside:
        return Witness(name, says, tuple(dict.fromkeys(inside)))
    ends = "" if len(inside) == 2 else "; one of them is at the end of the sizes tried"
    why_not = f"silhouette and split gain point to different sizes ({silhouette.size:.0f} and {gain.size:.0f}{ends})"
    return Witness(name, says, why_not=why_not)


def _by_silhouette_alone(curves: Curves, line: str, name: str, says: str, silhouette: Optimum) -> Witness:
    """Without a split gain: named weakly where Calinski-Harabasz and Davies-Bouldin have their best size there too."""
    if silhouette.value < NO_STRUCTURE:
        return Witness(name, says, why_not=f"the silhouette is low ({silhouette.value:.2f} at most)")
    others = [optimum(m, curves.get(m, {}).get(line, ())) for m in ("calinski_harabasz", "davies_bouldin")]
    agree = all(o is not None and o.size == silhouette.size for o in others)
    inside = not at_end(silhouette, curves["silhouette"][line])
    if agree and inside and silhouette.value >= REASONABLE:
        return Witness(name, says, (int(silhouette.size),))
    return Witness(name, says, why_not="the indices point to different sizes")


def mixture(curves: Curves) -> Witness:
    """BIC and ICL of the mixture line of the lowest BIC."""
    name = "BIC"
    line = best_mixture(curves)
    if line is None or len(curves["bic"][line]) < FEWEST_SIZES:
        return Witness(name)
    points = curves["bic"][line]
    bic, icl = optimum("bic", points), optimum("icl", curves.get("icl", {}).get(line, ()))
    assert bic is not None
    says = "lowest BIC: " + ", ".join(
        f"{other} {best.value:,.0f} at {best.size:.0f}{' (still falling)' if best.at_edge else ''}"
        for other, p in curves["bic"].items()
        if (best := optimum("bic", p)) is not None
    )
    if icl is not None:
        says += f"; lowest ICL of {line} at {icl.size:.0f}"
    if bic.size == 1:
        return Witness(name, says, why_not="one component has the lowest BIC")
    if bic.at_edge:
        return Witness(name, says, why_not=f"BIC is still falling at the largest size ({bic.size:.0f} components)")
    if at_end(bic, points):
        return Witness(name, says, why_not=f"BIC is lowest at the smallest size tried ({bic.size:.0f} components)")
    if icl is None or icl.size != bic.size:
        return Witness(name, says, why_not="the components that BIC asks for overlap: ICL does not ask for them")
    size = int(bic.size)
    silhouettes, gains = (curves.get(m, {}).get(line, ()) for m in ("silhouette", "split_gain"))
    if not silhouettes:
        return Witness(name, says, (size,))
    apart, pays = ({p[0]: p[1] for p in curve}.get(bic.size, -1.0) for curve in (silhouettes, gains))
    if apart < NO_STRUCTURE:
        return Witness(name, says, why_not=f"the components of the lowest BIC are not apart (silhouette {apart:.2f})")
    peaks = [o.size for o in (optimum("silhouette", silhouettes), optimum("split_gain", gains)) if o is not None]
    return Witness(name, says, (size,), strong=pays >= LEAST_GAIN and size in peaks)


def best_mixture(curves: Curves) -> str | None:
    """The line (covariance type) that has the lowest BIC."""
    lowest = {line: min(p[1] for p in points) for line, points in curves.get("bic", {}).items() if points}
    return min(lowest, key=lambda line: lowest[line]) if lowest else None


def density(curves: Curves) -> Witness:
    """The number of clusters that HDBSCAN gives over the longest run of neighbouring sizes, with little noise."""
    name = "HDBSCAN"
    runs: list[tuple[int, int, float, str]] = []
    tried = 0
    for line in curves.get("relative_validity", {}):
        found = sorted(curves.get("n_clusters", {}).get(line, ()))
        noise, largest = (
            {p[0]: p[1] for p in curves.get(m, {}).get(line, ())} for m in ("noise_fraction", "largest_fraction")
        )
        tried = max(tried, len(found))
        usable = [
            (int(k), noise.get(size, 0.0), noise.get(size, 0.0) <= MOST_NOISE and largest.get(size, 0.0) <= MOST_IN_ONE)
            for size, k, _ in found
        ]
        for (k, stands), group in groupby(usable, key=lambda u: (u[0], u[2])):
            run = list(group)
            if k >= 2 and stands:
                runs.append((len(run), k, max(u[1] for u in run), line))
    if tried < FEWEST_SIZES:
        return Witness(name)
    if not runs or max(runs)[0] < PLATEAU:
        why_not = "HDBSCAN finds no number of clusters over several sizes without calling much of the rows noise"
        return Witness(name, f"HDBSCAN: no number of clusters lasts over {PLATEAU} sizes with {MOST_NOISE:.0%} noise or less",
                       why_not=why_not)  # fmt: skip
    length, k, noise_share, _ = max(runs)
    says = f"HDBSCAN finds {k} clusters at {length} neighbouring sizes, with at most {noise_share:.0%} noise"
    return Witness(name, says, (k,), strong=True)


def gap_says(gap: Gap | None) -> Witness:
    """The gap statistic's own rule, and whether its maximum agrees."""
    name = "gap statistic"
    if gap is None or len(gap.sizes) < FEWEST_SIZES:
        return Witness(name)
    rule = "no size" if gap.chosen is None else f"{gap.chosen}"
    says = (
        f"gap statistic ({gap.n_references} reference sets, {gap.n_rows:,} rows): its rule takes {rule}; "
        f"the largest gap, {max(gap.gap):.3f}, is at {gap.maximum}"
    )
    if gap.chosen is None or gap.maximum == gap.sizes[-1] != gap.chosen:
        return Witness(name, says, why_not="the gap has no maximum within the sizes tried")
    if gap.chosen == 1:
        return Witness(name, says, why_not="the gap statistic takes one cluster")
    return Witness(name, says, (gap.chosen,), strong=gap.chosen == gap.maximum)


def prediction_strength(curves: Curves) -> Witness:
    """The largest size whose clusters a model of the other half of the rows predicts."""
    name = STRENGTH
    lines = {line: p for line, p in curves.get("prediction_strength", {}).items() if len(p) >= FEWEST_SIZES}
    if not lines:
        return Witness(name)
    largest = {
        line: max((int(p[0]) for p in points if p[0] > 1 and p[1] >= LEAST_STRENGTH), default=0)
        for line, points in lines.items()
    }
    says = f"largest size with a prediction strength of {LEAST_STRENGTH}: " + ", ".join(
        f"{line} {size or 'none'}" for line, size in largest.items()
    )
    sizes = tuple(dict.fromkeys(size for size in largest.values() if size))
    return Witness(name, says, sizes, why_not="" if sizes else "no size gives clusters that half of the rows predict")


def indices(curves: Curves) -> list[str]:
    """The knee, Calinski-Harabasz and Davies-Bouldin, for the record."""
    said = []
    for line, points in curves.get("inertia", {}).items():
        if len(points) >= FEWEST_SIZES:
            at = knee(points)
            said.append(f"knee of the inertia of {line}: {'none' if at is None else at}")
    for metric, word, label in (("calinski_harabasz", "highest", "Calinski-Harabasz"), ("davies_bouldin", "lowest", "Davies-Bouldin")):  # fmt: skip
        best = {
            line: o
            for line, p in curves.get(metric, {}).items()
            if line not in curves.get("relative_validity", {}) and len(p) >= FEWEST_SIZES and (o := optimum(metric, p))
        }
        if best:
            said.append(
                f"{word} {label}: " + ", ".join(f"{line} {o.value:,.4g} at {o.size:.0f}" for line, o in best.items())
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
