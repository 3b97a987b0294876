"""Scores the verdict on the calibration tables beside the usual rules, and writes the figures of docs/verdict.md.

    python -m experiments.calibration.score                 # development draws: what rules may be changed by
    python -m experiments.calibration.score --held-out      # held-out draws: what is published

Run it from the root of a checkout. Fits are kept in GPUCLUST_CALIBRATION_CACHE (default: a folder for temporary files).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # one thread for each process of the pool; the tests, which import this file, keep theirs
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

from gpuclust.analysis import dip, modes, structure
from gpuclust.analysis.selection import knee, optimum
from gpuclust.analysis.structure import Structure, find_structure
from gpuclust.analysis.verdict import CLEAR, NONE, OPEN, Verdict, verdict

from .evidence import CACHE, Evidence, Lines, evidence
from .tables import DEVELOPMENT_SEEDS, HELD_OUT_SEEDS, Table, tables

RESULTS = Path(__file__).resolve().parent / "results"
SWEEPS = ("kmeans", "gmm", "hdbscan", "all")
BASELINES = ("highest silhouette", "knee of the inertia", "lowest BIC", "gap rule")
RIGHT, PARTIAL, MISSED, FALSE_SEVERAL, FALSE_CLEAR = (
    "right",
    "partly right",
    "no answer",
    "several, wrong",
    "clear, wrong",
)


@dataclass(frozen=True)
class Answer:
    """What a rule says: ``kind`` and numbers of clusters, as in a verdict."""

    kind: str
    sizes: tuple[int, ...] = ()


def grade(table: Table, answer: Answer, *, counts_by_range: bool) -> str:
    """How good an answer is.

    No groups: no number must be named. Groups: the number must be clear; where it is at an end of the range or outside of it, an
    open answer is right too if the rule depends on the range. Ambiguous tables: a clear right number, several that hold one, or
    no answer.
    """
    named = set(answer.sizes)
    silent = answer.kind in (NONE, OPEN)
    if not table.truth:
        return RIGHT if silent else FALSE_CLEAR if answer.kind == CLEAR else FALSE_SEVERAL
    if answer.kind == CLEAR and named <= set(table.truth):
        return RIGHT
    inside = any(min(table.sizes) < k < max(table.sizes) or k == 2 == min(table.sizes) for k in table.truth)
    if counts_by_range and not inside:
        return RIGHT if answer.kind == OPEN else MISSED if answer.kind == NONE else FALSE_CLEAR if answer.kind == CLEAR else FALSE_SEVERAL  # fmt: skip
    if table.ambiguous and (silent or named & set(table.truth)):
        return RIGHT
    if silent:
        return MISSED
    if answer.kind == CLEAR:
        return FALSE_CLEAR
    return PARTIAL if named & set(table.truth) else FALSE_SEVERAL


def verdicts(found: Evidence, shape: Structure | None) -> dict[str, Verdict]:
    """The verdict of each sweep, and of all three together."""
    answers = {name: verdict(with_baseline(found, [name]), structure=shape) for name in SWEEPS[:3]}
    answers["all"] = verdict(with_baseline(found, SWEEPS[:3]), structure=shape)
    return answers


def with_baseline(found: Evidence, algorithms: Iterable[str]) -> Lines:
    """The curves of some algorithms together, one Gaussian among those of the mixture, as a sweep adds it."""
    curves: Lines = {}
    for name in algorithms:
        for metric, lines in found.curves[name].items():
            for line, points in lines.items():
                first = [(1, found.one, 0.0)] if name == "gmm" and metric in ("bic", "icl") else []
                curves.setdefault(metric, {})[line] = [*first, *points]
    return curves


def baselines(found: Evidence) -> dict[str, Answer]:
    """The usual rules. Each but the gap rule and BIC always names a number."""
    kmeans = found.curves["kmeans"]
    silhouette = optimum("silhouette", kmeans["silhouette"]["kmeans"])
    bends = knee(kmeans["inertia"]["kmeans"])
    mixture = with_baseline(found, ["gmm"])
    bic = optimum("bic", next(iter(mixture["bic"].values())))
    assert silhouette is not None
    assert bic is not None
    numbers = (int(silhouette.size), bends, int(bic.size), found.gap.chosen)
    return {
        name: Answer(CLEAR, (k,)) if k and k > 1 else Answer(NONE) for name, k in zip(BASELINES, numbers, strict=True)
    }


def shape_of(table: Table, seed: int) -> Structure | None:
    """The structure of a draw, kept on disk while the code that finds it is the same."""
    source = "".join(Path(m.__file__ or "").read_text(encoding="utf-8") for m in (dip, modes, structure))
    name = hashlib.blake2b(f"{table.name} {seed} {source}".encode(), digest_size=12).hexdigest()
    path = CACHE / f"{name}.structure"
    if path.exists():
        return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]
    found = find_structure(table.matrix(seed), seed=0)
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(found))
    partial.replace(path)
    return found


def score(table: Table, seed: int) -> dict[str, Any]:
    """One draw: the grade of every rule, and what it said."""
    found, shape = evidence(table, seed), shape_of(table, seed)
    answers: dict[str, Answer] = {n: Answer(v.kind, v.sizes) for n, v in verdicts(found, shape).items()}
    answers |= baselines(found)
    grades = {n: grade(table, a, counts_by_range=n != "hdbscan") for n, a in answers.items()}
    return {
        "table": table.name,
        "family": table.family,
        "seed": seed,
        "truth": list(table.truth),
        "grades": grades,
        "answers": {n: [a.kind, list(a.sizes)] for n, a in answers.items()},
        "structure": shape.n_groups if shape else None,
    }


def _score(job: tuple[int, int]) -> dict[str, Any]:
    return score(tables()[job[0]], job[1])


def draws(*, held_out: bool) -> Iterator[tuple[int, int]]:
    """Number of the table and seed of each draw. Held out: every table at held-out seeds."""
    for i, table in enumerate(tables()):
        if held_out or not table.held_out:
            for seed in HELD_OUT_SEEDS if held_out else DEVELOPMENT_SEEDS:
                yield i, seed


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For every rule: counts of each grade, the share that is right, and the share of unstructured draws called clear."""
    found = {}
    for name in (*SWEEPS, *BASELINES):
        grades = Counter(row["grades"][name] for row in rows)
        none = [row for row in rows if not row["truth"]]
        false = sum(row["answers"][name][0] == CLEAR for row in none)
        families: dict[str, list[bool]] = defaultdict(list)
        for row in rows:
            families[row["family"]].append(row["grades"][name] == RIGHT)
        found[name] = {
            "right": grades[RIGHT] / len(rows),
            "clear_on_unstructured": false / len(none),
            "grades": dict(grades),
            "families": {f: sum(v) / len(v) for f, v in families.items()},
        }
    return found


def markdown(found: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The tables of docs/verdict.md."""
    titles = {"kmeans": "verdict, K-Means sweep", "gmm": "verdict, mixture sweep", "hdbscan": "verdict, HDBSCAN sweep", "all": "verdict, all three together"}  # fmt: skip
    lines = ["| rule | right | clear, wrong | several, wrong | partly right | no answer | clear on unstructured |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, figures in found.items():
        grades = [figures["grades"].get(g, 0) for g in (FALSE_CLEAR, FALSE_SEVERAL, PARTIAL, MISSED)]
        cells = [f"**{figures['right']:.1%}**", *map(str, grades), f"{figures['clear_on_unstructured']:.1%}"]
        lines.append(f"| {titles.get(name, name)} | {' | '.join(cells)} |")
    counts = Counter(row["family"] for row in rows)
    lines += [
        "",
        "Right by family:",
        "",
        f"| family | draws | {' | '.join([*SWEEPS, *BASELINES])} |",
        "|---|---|" + "---|" * 8,
    ]
    for family, count in counts.items():
        shares = [f"{found[name]['families'][family]:.0%}" for name in (*SWEEPS, *BASELINES)]
        lines.append(f"| {family} | {count} | {' | '.join(shares)} |")
    lines += ["", "Not right:", ""]
    for row in rows:
        wrong = {n: row["answers"][n] for n in SWEEPS if row["grades"][n] != RIGHT}
        if wrong:
            said = sorted(
                {f"{kind}{' ' if sizes else ''}{' or '.join(map(str, sizes))}" for kind, sizes in wrong.values()}
            )
            lines.append(
                f"- {row['table']} (truth {' or '.join(map(str, row['truth'])) or 'none'}), {', '.join(wrong)}: {'; '.join(said)}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cached", action="store_true", help="score only draws whose fits are on disk")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/verdict.md")
    options = parser.parse_args()
    jobs = list(draws(held_out=options.held_out))
    if options.cached:
        from .evidence import path_of

        jobs = [j for j in jobs if path_of(tables()[j[0]], j[1]).exists()]
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers) as pool:
            rows = list(pool.map(_score, jobs))
    else:
        rows = [_score(job) for job in jobs]
    found = summary(rows)
    if options.markdown:
        print(markdown(found, rows))
    else:
        for name, figures in found.items():
            print(f"{name:<22} right {figures['right']:.1%}  clear on unstructured {figures['clear_on_unstructured']:.1%}  {figures['grades']}")  # fmt: skip
        for row in rows:
            wrong = {n: row["answers"][n] for n in SWEEPS if row["grades"][n] != RIGHT}
            if wrong:
                print(
                    f"{row['table']}, seed {row['seed']}: truth {row['truth'] or 'none'}, modes {row['structure']}: {wrong}"
                )
    print(f"{len(rows)} draws of {len({row['table'] for row in rows})} tables")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"summary": found, "draws": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
