"""Search: select candidates from the index, the cheapest kind of match first, then score all candidates.

SQLite returns candidates by popularity: exact titles and creators, items that have all words, items with words that start
with a typed word, items with words one edit away and, only if there are none, items that lack one word, two words and so on.
Only the best match of each recording (same title and creator) is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pyarrow as pa

from gpuclust.serve.index.open import Index
from gpuclust.serve.spelling import edit_distances
from gpuclust.serve.text import fold_one

CANDIDATES = 200  # from one kind of match, or four per result if that is more
MIN_MATCHES = 10  # with fewer matches, words with typing errors are looked up too
MAX_COUNTED = 1_000  # matches are counted up to this number
MAX_TITLES = 5  # for the name of a creator: items with that title listed before the items of the creator
MAX_WORDS, MAX_RELAXED = 16, 5  # words that are used; words from which subsets are formed
MIN_SELECTIVE, FREQUENT = 3, 0.01  # words always looked up; share of items above which other words are not
MAX_CREATORS, SAME_TITLE = 20, 500  # creators listed for one title; items that are checked for them
FIELDS = ("title", "creator")
EXACT_CREATOR, SPLIT, RESEMBLES, POOR = 0.995, 0.9, 0.5, 0.7


@dataclass(frozen=True)
class Word:
    """A word of a query, its ``field`` (empty for both) and its weight (larger for rare words).

    ``match_weights`` maps the words of the vocabulary that it may mean to a weight: 1 for the word as typed, less for a
    prefix or a typing error. ``split`` are two words of which it may be the concatenation.
    """

    text: str
    field: str
    weight: float
    match_weights: dict[str, float]
    split: tuple[str, ...] = ()


# Returns the terms of the full-text index that a word of a query may match.
Matching = Callable[[Word], list[str]]


@dataclass(frozen=True)
class Query:
    """A folded query for title and creator together, or for each."""

    any: str = ""
    title: str = ""
    creator: str = ""


@dataclass(frozen=True)
class Ranked:
    """Ranks (n,) and scores (n,) in [0, 1], best first, one per recording.

    ``complete``: the best result has every word as typed. ``total`` is the number of recordings that match all words, None
    if the results lack words; ``is_minimum``: counting stopped at this number.
    """

    ranks: list[int]
    scores: list[float]
    complete: bool
    total: int | None = None
    is_minimum: bool = False


def folded(any: str = "", title: str = "", creator: str = "") -> Query:
    """Fold a query in the same way as titles and creators."""
    return Query(fold_one(any), fold_one(title), fold_one(creator))


def search(index: Index, query: Query, limit: int) -> Ranked:
    """The best matching items. An empty query has no results."""
    words, most = _words(index, query), max(CANDIDATES, 4 * limit)
    found = dict.fromkeys(_exact(index, query))
    for matching in (_exact_match, _prefix_match):
        found |= dict.fromkeys(_all_of(index, words, matching, most))
    if _n_recordings(index, found) < MIN_MATCHES:
        # Known words are first assumed to be correct: a typing error rarely makes another word, and fewer words are faster.
        words = [word if 1 in word.match_weights.values() else _with_typos(index, word) for word in words]
        found |= dict.fromkeys(_all_words_any_match(index, words))
        matching = _any_match
    if not found:
        all_typos = [_with_typos(index, word) for word in words]
        if found := dict.fromkeys(_all_words_any_match(index, all_typos)):
            words = all_typos
    ranked = _rank(index, query, words, sorted(found), limit)
    if ranked.scores[:1] >= [POOR]:
        return _counted(index, words, matching, found, most, ranked)
    lacking = dict.fromkeys(_relaxed(index, words, limit))
    if found and not lacking:
        return _counted(index, words, matching, found, most, ranked)
    return _rank(index, query, words, sorted(found | lacking), limit)


def is_creator(index: Index, name: str) -> bool:
    """Whether a folded text is the name of a creator."""
    return bool(index.database.column("select 1 from creators where key = ? limit 1", (name,)))


def _n_recordings(index: Index, ranks: Iterable[int]) -> int:
    return len(np.unique(index.recording[np.fromiter(ranks, dtype=np.int64)]))


def _counted(
    index: Index, words: Sequence[Word], matching: Matching, found: dict[int, None], most: int, ranked: Ranked
) -> Ranked:
    """Add the number of matching recordings; more rows are looked up only if the candidates were limited."""
    if len(found) < most:
        return replace(ranked, total=_n_recordings(index, found))
    ranks = _all_of(index, words, matching, MAX_COUNTED)
    total = _n_recordings(index, found | dict.fromkeys(ranks))
    return replace(ranked, total=total, is_minimum=len(ranks) == MAX_COUNTED)


def of_title(index: Index, rank: int) -> tuple[int, tuple[str, ...]]:
    """The number of items with the same title as an item, and their creators, most popular first, at most 20."""
    same = "from items where title = (select title from items where rank = ?) and title <> ''"
    rows = index.database.rows(f"select rank, creator {same} order by rank limit {SAME_TITLE}", (rank,))
    count = len(rows) if len(rows) < SAME_TITLE else int(index.database.column(f"select count(*) {same}", (rank,))[0])
    first = {creator: other for other, creator in reversed(rows)}
    own = next((creator for other, creator in rows if other == rank), None)
    ranks = sorted(rank if creator == own else other for creator, other in first.items())[:MAX_CREATORS]
    creators = index.rows["creator"].take(pa.array(ranks, pa.int64())).to_pylist()
    return max(count, 1), tuple(c for c in creators if c)


def _words(index: Index, query: Query) -> list[Word]:
    typed = [(text, field) for field in ("", *FIELDS) for text in getattr(query, field or "any").split()]
    typed = list(dict.fromkeys(typed[:MAX_WORDS]))
    return [_word(index, *word, last=word == typed[-1]) for word in typed]


def _word(index: Index, text: str, field: str, last: bool) -> Word:
    """A word with its match weights. A known word of one or two letters is a prefix only as the last word of the query."""
    count = index.words.count(text)
    prefixed = () if count and len(text) < 3 and not last else index.words.beginning(text)
    match_weights = {text: 1.0} if count else {}
    match_weights |= {longer: 0.6 + 0.35 * len(text) / len(longer) for longer in prefixed}
    split = () if count else index.words.split(text) or ()
    return Word(text, field, math.log1p(index.rows.num_rows / (1 + count)), match_weights, split)


def _with_typos(index: Index, word: Word) -> Word:
    near = index.words.near(word.text)
    if not near:
        return word
    distances = edit_distances(word.text, near)
    typos = {w: 0.85 * (1 - d / max(len(w), len(word.text))) for w, d in zip(near, distances.tolist(), strict=True)}
    return replace(word, match_weights=typos | word.match_weights)


def _exact(index: Index, query: Query) -> Iterator[int]:
    """Items whose title or creator equals the query. The condition ``<> ''`` makes SQLite use its partial indexes."""
    for field, text in (("title", query.any or query.title), ("creator", query.any or query.creator)):
        if text:
            yield from index.database.column(
                f"select rank from items where {field} = ? and {field} <> '' order by rank limit {CANDIDATES}", (text,)
            )


def _exact_match(word: Word) -> list[str]:
    return [_quoted(text) for text, weight in word.match_weights.items() if weight == 1] + _split_match(word)


def _prefix_match(word: Word) -> list[str]:
    return [_quoted(text) for text in word.match_weights if text.startswith(word.text)] + _split_match(word)


def _any_match(word: Word) -> list[str]:
    return [_quoted(text) for text in word.match_weights] + _split_match(word)


def _likely(word: Word) -> list[str]:
    """The word as typed if it is known, else any match."""
    return _exact_match(word) or _any_match(word)


def _split_match(word: Word) -> list[str]:
    return [f"({' AND '.join(_quoted(part) for part in word.split)})"] if word.split else []


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _all_of(index: Index, words: Sequence[Word], matching: Matching, most: int = CANDIDATES) -> list[int]:
    """The most popular items with all words in their fields, by one kind of match."""
    terms = [(word.field, matching(word)) for word in words]
    if not terms or not all(known for _, known in terms):
        return []
    wanted = [(f"{field} : " if field else "") + f"({' OR '.join(known)})" for field, known in terms]
    ranks = "select rowid from words where words match ? order by rowid limit ?"
    return index.database.column(ranks, (" AND ".join(wanted), most))


def _all_words_any_match(index: Index, words: Sequence[Word]) -> list[int]:
    """Items with any match of all words. Frequent words such as ``of`` and ``the`` are looked up only if the rarer words have
    too many matches; otherwise they only count in the score."""
    selective = _selective_words(words)
    found = _all_of(index, selective, _any_match)
    return _all_of(index, words, _any_match) if len(selective) < len(words) and len(found) == CANDIDATES else found


def _selective_words(words: Sequence[Word]) -> list[Word]:
    """The words without the frequent ones, but at least the rarest three."""
    by_weight = sorted(words, key=lambda word: -word.weight)
    least = math.log1p(1 / FREQUENT)
    return [word for i, word in enumerate(by_weight) if i < MIN_SELECTIVE or word.weight >= least]


def _relaxed(index: Index, words: Sequence[Word], limit: int) -> list[int]:
    """Items that lack some words: as few as possible, and the most frequent ones."""
    known = _selective_words([word for word in words if word.match_weights or word.split])[:MAX_RELAXED]
    for size in range(min(len(known), len(words) - 1), 0, -1):
        subsets = sorted(combinations(known, size), key=lambda chosen: -sum(word.weight for word in chosen))
        found: dict[int, None] = {}
        for chosen in subsets:
            found |= dict.fromkeys(_all_of(index, chosen, _likely, max(limit, CANDIDATES // 4)))
        if found:
            return list(found)
    return []


def _rank(index: Index, query: Query, words: Sequence[Word], ranks: list[int], limit: int) -> Ranked:
    """Sort candidates by score in hundredths, ties by popularity, and keep the first of each recording."""
    marks = ",".join("?" * len(ranks))
    rows = index.database.rows(f"select rank, title, creator from items where rank in ({marks})", ranks)
    match_weights = _match_weights(words, {text for _, *texts in rows for part in texts for text in part.split()})
    scored = sorted((-round(_score(query, words, match_weights, t, c), 3), rank) for rank, t, c in rows)
    scored = sorted(
        ((-math.floor(-score * 100) / 100 if score > -EXACT_CREATOR else score), rank) for score, rank in scored
    )
    places = np.array([rank for _, rank in scored], dtype=np.int64)
    scored = [scored[i] for i in np.sort(np.unique(index.recording[places], return_index=True)[1])]
    if query.any and len(scored) > MAX_TITLES and is_creator(index, query.any):
        scored = scored[:MAX_TITLES] + sorted((max(score, -EXACT_CREATOR), rank) for score, rank in scored[MAX_TITLES:])
    best = [(rank, -score) for score, rank in scored[:limit] if score < 0]
    texts = {rank: {*title.split(), *creator.split()} for rank, title, creator in rows}
    complete = bool(best) and all(word.text in texts[best[0][0]] for word in words)
    return Ranked([rank for rank, _ in best], [score for _, score in best], complete)


def _match_weights(words: Sequence[Word], texts: set[str]) -> list[dict[str, float]]:
    """For each word of the query, the weight of each word of the candidates; similar words have a small weight."""
    listed = sorted(texts)
    match_weights = []
    for word in words:
        longest = np.maximum(np.fromiter(map(len, listed), np.int64, len(listed)), len(word.text))
        alike = 1 - edit_distances(word.text, listed) / longest if listed else np.empty(0)
        resembling = {listed[i]: RESEMBLES * float(alike[i]) for i in np.flatnonzero(alike >= 0.5)}
        match_weights.append(resembling | {text: c for text, c in word.match_weights.items() if text in texts})
    return match_weights


def _score(
    query: Query, words: Sequence[Word], match_weights: list[dict[str, float]], title: str, creator: str
) -> float:
    """Score one item: three quarters for the weighted share of the query that it has, and one quarter for the share of its
    title and creator (each only if it has a match) that is in the query."""
    if query.any and query.any in (title, f"{title} {creator}", f"{creator} {title}"):
        return 1.0
    if not query.any and query.title in ("", title) and query.creator in ("", creator):
        return 1.0
    own = {"title": title.split(), "creator": creator.split()}
    got, matched = 0.0, {"title": set[str](), "creator": set[str]()}
    for word, known in zip(words, match_weights, strict=True):
        best = 0.0
        for field in (word.field,) if word.field else FIELDS:
            for text in own[field]:
                weight = known.get(text, 0.0)
                if weight >= RESEMBLES:
                    matched[field].add(text)
                best = max(best, weight)
            if word.split and set(word.split) <= set(own[field]):
                matched[field].update(word.split)
                best = max(best, SPLIT)
        got += word.weight * best
    total = sum(word.weight for word in words)
    covered = got / total if total else 0.0
    fields = [field for field in FIELDS if matched[field]]
    typed = sum(sum(text in matched[field] for text in own[field]) for field in fields)
    share = typed / sum(len(own[field]) for field in fields) if fields else 0.0
    score = min(0.75 * covered + 0.25 * share, 0.99)
    return max(score, EXACT_CREATOR) if query.any and query.any == creator else score
