"""Summarise an audit: one line, and the warnings shown in the terminal, the report and by `describe`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gpuclust.data.feature_checks import FeatureIssue
from gpuclust.data.table import Audit
from gpuclust.model.vectors import listed

MAX_NAMES = 6
MAX_FEATURES = 20
MAX_DROPPED = 0.05
"""A larger share of rows dropped for a missing value is a warning."""


def summary(audit: Audit) -> str:
    """One line: the rows kept of the rows read, why the others were dropped, the features, and a detected id."""
    rows = f"{audit.rows_kept:,} rows"
    if audit.rows_kept < audit.rows_read:
        rows = f"{audit.rows_kept:,} of {audit.rows_read:,} rows ({'; '.join(_reasons(audit))})"
    n = len(audit.features)
    names = listed(audit.features)
    shown = names if len(names) <= MAX_FEATURES else names[:MAX_NAMES]
    more = f" and {len(names) - len(shown):,} more" if len(shown) < len(names) else ""
    found = audit.source.get("id_column")
    identified = f"; id: {found}" if found else ""
    return f"{rows} × {n:,} feature{'s' if n != 1 else ''}: {', '.join(shown)}{more}{identified}"


def _reasons(audit: Audit) -> Iterable[str]:
    """The reason of each rule that dropped rows."""
    for step in audit.steps:
        if not step.rows_removed:
            continue
        if step.rule == "nulls":
            verb = "lack" if step.rows_removed != 1 else "lacks"
            yield f"{step.rows_removed:,} {verb} {join_names(step.columns, last='or')}"
        else:
            yield f"{step.rows_removed:,} with {step.detail}"


def join_names(names: Iterable[str], *, last: str = "and", most: int = MAX_NAMES) -> str:
    """Join names for a sentence: ``a, b and c``, or ``a, b, c and 40 more``."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} {last} {len(names) - most + 1:,} more"
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)


def dropped_rows_warnings(audit: Audit) -> list[str]:
    """A warning if more than `MAX_DROPPED` of the rows were dropped because a feature is missing."""
    for step in audit.steps:
        if step.rule == "nulls" and step.rows_removed > MAX_DROPPED * audit.rows_read:
            by_cells = sorted(step.columns, key=step.columns.__getitem__, reverse=True)
            return [
                f"{step.rows_removed:,} of {audit.rows_read:,} rows ({step.rows_removed / audit.rows_read:.0%}) were dropped, "
                f"as they lack {join_names((f'{n} ({step.columns[n]:,})' for n in by_cells), last='or')}; "
                f"data.exclude=[{','.join(by_cells[:MAX_NAMES])}] or clean.nulls=median keeps them"
            ]
    return []


def column_warnings(
    booleans: Sequence[str], unsuitable: Mapping[str, FeatureIssue], doubtful: Mapping[str, FeatureIssue]
) -> list[str]:
    """Warnings about columns of numbers that are not used as features, and about features that may not be measurements."""
    lines = []
    out = dict.fromkeys(booleans, "a boolean") | {n: t.text for n, t in unsuitable.items()}
    if out:
        words = join_names(f"{name} ({text})" for name, text in out.items())
        lines.append(f"not used as features: {words}; data.features=[...] names the columns to use")
    few = [name for name, t in doubtful.items() if t.kind in ("flag", "few", "coarse", "label")]
    if few:
        words = join_names(f"{name} ({doubtful[name].text})" for name in few)
        names = ",".join(few[:MAX_NAMES]) + (",..." if len(few) > MAX_NAMES else "")
        lines.append(
            f"features with few values: {words}; clusters may repeat one of them; data.exclude=[{names}] leaves them out"
        )
    numbering = [name for name, t in doubtful.items() if t.kind in ("id", "counter")]
    if numbering:
        words = join_names(f"{name} ({doubtful[name].text})" for name in numbering)
        lines.append(f"features that number the rows: {words}; leave them out of data.features")
    return lines
