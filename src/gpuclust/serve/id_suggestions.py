"""Suggest existing ids or names for one that does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from gpuclust.serve.index.open import Index
from gpuclust.serve.search import folded, search
from gpuclust.serve.spelling import edit_distances, max_edits

MIN_LENGTH, MAX_SUGGESTIONS, MAX_LENGTH, MAX_COMPARED = 4, 3, 64, 2_000


def near_ids(index: Index, id: str) -> tuple[str, ...]:
    """At most three ids similar to a missing one; without similar ids, the ids of items with that title.

    One edit leaves one half of an id unchanged (pigeonhole principle), so only ids that share a half are compared.
    """
    text = id.strip()[:MAX_LENGTH]
    if len(text) >= MIN_LENGTH:
        ids, middle = index.rows["id"], len(text) // 2
        halves = pc.or_(pc.starts_with(ids, text[:middle]), pc.ends_with(ids, text[middle:]))
        near = _nearest(text, ids.filter(halves)) or _nearest(text, ids.filter(_of_any_case(ids, text)))
        if near:
            return near
    return tuple(index.rows["id"][rank].as_py() for rank in search(index, folded(text), MAX_SUGGESTIONS).ranks)


def near_names(typed: str, names: Sequence[str]) -> tuple[str, ...]:
    """At most three names similar to a typed one: prefixes in either direction, and names one or two edits away."""
    text = typed.strip().lower()[:MAX_LENGTH].encode("utf-8", "replace").decode()
    lower = [name.lower() for name in names]
    if not text:
        return ()
    distances = edit_distances(text, lower).tolist()
    begun = [
        len(text) >= MIN_LENGTH and bool(name) and (name.startswith(text) or text.startswith(name)) for name in lower
    ]
    near = [
        (0 if b else d, name)
        for d, b, name in zip(distances, begun, names, strict=True)
        if b or d <= max(1, max_edits(text))
    ]
    return tuple(name for _, name in sorted(near)[:MAX_SUGGESTIONS])


def _of_any_case(ids: Any, text: str) -> Any:
    return pc.match_substring(ids, text, ignore_case=True)


def _nearest(text: str, candidates: Any) -> tuple[str, ...]:
    """The three candidates with the fewest edits, ignoring case, and at most a quarter of the text."""
    listed = sorted({c for c in candidates.slice(0, MAX_COMPARED).to_pylist() if len(c) <= 2 * MAX_LENGTH})
    distances = edit_distances(text.lower(), [c.lower() for c in listed]).tolist()
    near = sorted((d, c) for d, c in zip(distances, listed, strict=True) if d <= max(2, len(text) // 4))
    return tuple(c for _, c in near[:MAX_SUGGESTIONS])
