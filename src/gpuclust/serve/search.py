"""From a query to ranks: candidates from the index, the cheapest way of matching first, then one score for all of them.

Candidates come most popular first from SQLite: exact titles and creators, then items that have all words, then words that
start with the typed word, then words one typo away, and only where that finds nothing, items that lack one word, two words,
and so on. Of several rows of one recording (the same title and creator) the best match is kept.
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

CANDIDATES = 200  # at most so many from one way of matching, or four for each result
FEW = 10  # where fewer items have all words, typos are looked up too
MAX_COUNTED = 1_000  # matches are counted up to here
TITLED = 5  # of a query that is a creator's name, items with that title that come before the creator's
MAX_WORDS, MAX_RELAXED = 16, 5  # words that are looked at; of these, where some must be left out
TELLING, FREQUENT = 3, 0.01  # so many words are always looked up; others not where so many items have them
NAMED, SAME_TITLE = 20, 500  # creators listed for a title that several have; items that are looked at for them
FIELDS = ("title", "creator")
EXACT_CREATOR, RUN_TOGETHER, RESEMBLES, POOR = 0.995, 0.9, 0.5, 0.7


@dataclass(frozen=True)
class Word:
    """A word typed: the field it must be in (both when empty), and what it weighs (rare words weigh more). ``credits``:
    the known words it may stand for, 1 as typed, less for a beginning or a slip; ``halves``: two words that it may have
    run together."""

    text: str
    field: str
    weight: float
    credits: dict[str, float]
    halves: tuple[str, ...] = ()


# The known words that a typed word may match, as terms of the full-text index.
Matching = Callable[[Word], list[str]]


@dataclass(frozen=True)
class Query:
    """What was typed, folded, for title and creator together or for each."""

    any: str = ""
    title: str = ""
    creator: str = ""


@dataclass(frozen=True)
class Ranked:
    """Ranks (n,) and scores (n,) in [0, 1], best first, one of each recording; ``complete``: the best has every word as
    typed. ``total`` recordings match all words, None where the results lack words; ``is_minimum``: counting stopped there.
    """

    ranks: list[int]
    scores: list[float]
    complete: bool
    total: int | None = None
    is_minimum: bool = False


def folded(any: str = "", title: str = "", creator: str = "") -> Query:
    """A query as typed, folded as titles and creators are."""
    return Query(fold_one(any), fold_one(title), fold_one(creator))


def search(index: Index, query: Query, limit: int) -> Ranked:
    """The items that match best. An empty query finds nothing."""
    words, most = _words(index, query), max(CANDIDATES, 4 * limit)
    found = dict.fromkeys(_exact(index, query))
    for matching in (_as_typed, _begun):
        found |= dict.fromkeys(_all_of(index, words, matching, most))
    if _n_recordings(index, found) < FEW:
        # Words that are known are first taken as right: a slip rarely makes another word, and fewer words are quicker.
        words = [word if 1 in word.credits.values() else _with_slips(index, word) for word in words]
        found |= dict.fromkeys(_all_meant(index, words))
        matching = _meant
    if not found:
        all_slips = [_with_slips(index, word) for word in words]
        if found := dict.fromkeys(_all_meant(index, all_slips)):
            words = all_slips
    ranked = _rank(index, query, words, sorted(found), limit)
    if ranked.scores[:1] >= [POOR]:
        return _counted(index, words, matching, found, most, ranked)
    lacking = dict.fromkeys(_some_of(index, words, limit))
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
    """Results with how many recordings match; more are looked up only where the candidates were cut."""
    if len(found) < most:
        return replace(ranked, total=_n_recordings(index, found))
    ranks = _all_of(index, words, matching, MAX_COUNTED)
    total = _n_recordings(index, found | dict.fromkeys(ranks))
    return replace(ranked, total=total, is_minimum=len(ranks) == MAX_COUNTED)


def of_title(index: Index, rank: int) -> tuple[int, tuple[str, ...]]:
    """How many items have the title of an item, and who made them, most popular first, at most 20; the item's own
    creator as the item writes it."""
    same = "from items where title = (select title from items where rank = ?) and title <> ''"
    rows = index.database.rows(f"select rank, creator {same} order by rank limit {SAME_TITLE}", (rank,))
    count = len(rows) if len(rows) < SAME_TITLE else int(index.database.column(f"select count(*) {same}", (rank,))[0])
    first = {creator: other for other, creator in reversed(rows)}
    own = next((creator for other, creator in rows if other == rank), None)
    ranks = sorted(rank if creator == own else other for creator, other in first.items())[:NAMED]
    creators = index.rows["creator"].take(pa.array(ranks, pa.int64())).to_pylist()
    return max(count, 1), tuple(c for c in creators if c)


def _words(index: Index, query: Query) -> list[Word]:
    typed = [(text, field) for field in ("", *FIELDS) for text in getattr(query, field or "any").split()]
    typed = list(dict.fromkeys(typed[:MAX_WORDS]))
    return [_word(index, *word, last=word == typed[-1]) for word in typed]


def _word(index: Index, text: str, field: str, last: bool) -> Word:
    """A word and what it stands for. A known word of a letter or two is begun only where someone may still be typing."""
    count = index.words.count(text)
    begun = () if count and len(text) < 3 and not last else index.words.beginning(text)
    credits = {text: 1.0} if count else {}
    credits |= {longer: 0.6 + 0.35 * len(text) / len(longer) for longer in begun}
    halves = () if count else index.words.split(text) or ()
    return Word(text, field, math.log1p(index.rows.num_rows / (1 + count)), credits, halves)


def _with_slips(index: Index, word: Word) -> Word:
    near = index.words.near(word.text)
    if not near:
        return word
    distances = edit_distances(word.text, near)
    slips = {w: 0.85 * (1 - d / max(len(w), len(word.text))) for w, d in zip(near, distances.tolist(), strict=True)}
    return replace(word, credits=slips | word.credits)


def _exact(index: Index, query: Query) -> Iterator[int]:
    """Items whose title, or whose creator, is all that was typed. The indexes hold no empty text, and SQLite uses them only
    where it is told that none is wanted."""
    for field, text in (("title", query.any or query.title), ("creator", query.any or query.creator)):
        if text:
            yield from index.database.column(
                f"select rank from items where {field} = ? and {field} <> '' order by rank limit {CANDIDATES}", (text,)
            )


def _as_typed(word: Word) -> list[str]:
    return [_quoted(text) for text, credit in word.credits.items() if credit == 1] + _run_together(word)


def _begun(word: Word) -> list[str]:
    return [_quoted(text) for text in word.credits if text.startswith(word.text)] + _run_together(word)


def _meant(word: Word) -> list[str]:
    return [_quoted(text) for text in word.credits] + _run_together(word)


def _likely(word: Word) -> list[str]:
    """As typed where that is known, else all that may be meant."""
    return _as_typed(word) or _meant(word)


def _run_together(word: Word) -> list[str]:
    return [f"({' AND '.join(_quoted(half) for half in word.halves)})"] if word.halves else []


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _all_of(index: Index, words: Sequence[Word], matching: Matching, most: int = CANDIDATES) -> list[int]:
    """The most popular items that have each of the words in its field, by one way of matching."""
    terms = [(word.field, matching(word)) for word in words]
    if not terms or not all(known for _, known in terms):
        return []
    wanted = [(f"{field} : " if field else "") + f"({' OR '.join(known)})" for field, known in terms]
    ranks = "select rowid from words where words match ? order by rowid limit ?"
    return index.database.column(ranks, (" AND ".join(wanted), most))


def _all_meant(index: Index, words: Sequence[Word]) -> list[int]:
    """Items that have all words that may be meant. Words like ``of`` and ``the`` find too much to be worth looking up beside
    rarer ones, and count in the score alone, unless the rarer ones find too many."""
    telling = _telling(words)
    found = _all_of(index, telling, _meant)
    return _all_of(index, words, _meant) if len(telling) < len(words) and len(found) == CANDIDATES else found


def _telling(words: Sequence[Word]) -> list[Word]:
    """The words without those that many items have, but at least the rarest few."""
    by_weight = sorted(words, key=lambda word: -word.weight)
    least = math.log1p(1 / FREQUENT)
    return [word for i, word in enumerate(by_weight) if i < TELLING or word.weight >= least]


def _some_of(index: Index, words: Sequence[Word], limit: int) -> list[int]:
    """Items that lack words: as few as possible of the rarest ones typed."""
    known = _telling([word for word in words if word.credits or word.halves])[:MAX_RELAXED]
    for size in range(min(len(known), len(words) - 1), 0, -1):
        subsets = sorted(combinations(known, size), key=lambda chosen: -sum(word.weight for word in chosen))
        found: dict[int, None] = {}
        for chosen in subsets:
            found |= dict.fromkeys(_all_of(index, chosen, _likely, max(limit, CANDIDATES // 4)))
        if found:
            return list(found)
    return []


def _rank(index: Index, query: Query, words: Sequence[Word], ranks: list[int], limit: int) -> Ranked:
    """Order candidates by score in hundredths, equal ones by popularity, and keep the first of each recording."""
    marks = ",".join("?" * len(ranks))
    rows = index.database.rows(f"select rank, title, creator from items where rank in ({marks})", ranks)
    credits = _credits(words, {text for _, *texts in rows for part in texts for text in part.split()})
    scored = sorted((-round(_score(query, words, credits, t, c), 3), rank) for rank, t, c in rows)
    scored = sorted(
        ((-math.floor(-score * 100) / 100 if score > -EXACT_CREATOR else score), rank) for score, rank in scored
    )
    places = np.array([rank for _, rank in scored], dtype=np.int64)
    scored = [scored[i] for i in np.sort(np.unique(index.recording[places], return_index=True)[1])]
    if query.any and len(scored) > TITLED and is_creator(index, query.any):
        scored = scored[:TITLED] + sorted((max(score, -EXACT_CREATOR), rank) for score, rank in scored[TITLED:])
    best = [(rank, -score) for score, rank in scored[:limit] if score < 0]
    texts = {rank: {*title.split(), *creator.split()} for rank, title, creator in rows}
    complete = bool(best) and all(word.text in texts[best[0][0]] for word in words)
    return Ranked([rank for rank, _ in best], [score for _, score in best], complete)


def _credits(words: Sequence[Word], texts: set[str]) -> list[dict[str, float]]:
    """For each word typed, the credit of each word of the candidates; those that merely resemble it have a little."""
    listed = sorted(texts)
    credits = []
    for word in words:
        longest = np.maximum(np.fromiter(map(len, listed), np.int64, len(listed)), len(word.text))
        alike = 1 - edit_distances(word.text, listed) / longest if listed else np.empty(0)
        resembling = {listed[i]: RESEMBLES * float(alike[i]) for i in np.flatnonzero(alike >= 0.5)}
        credits.append(resembling | {text: c for text, c in word.credits.items() if text in texts})
    return credits


def _score(query: Query, words: Sequence[Word], credits: list[dict[str, float]], title: str, creator: str) -> float:
    """How well one item matches: three quarters how much of what was typed it has, by weight, and one quarter how much of
    its title and of its creator (each only if it matches at all) was typed."""
    if query.any and query.any in (title, f"{title} {creator}", f"{creator} {title}"):
        return 1.0
    if not query.any and query.title in ("", title) and query.creator in ("", creator):
        return 1.0
    own = {"title": title.split(), "creator": creator.split()}
    got, matched = 0.0, {"title": set[str](), "creator": set[str]()}
    for word, known in zip(words, credits, strict=True):
        best = 0.0
        for field in (word.field,) if word.field else FIELDS:
            for text in own[field]:
                credit = known.get(text, 0.0)
                if credit >= RESEMBLES:
                    matched[field].add(text)
                best = max(best, credit)
            if word.halves and set(word.halves) <= set(own[field]):
                matched[field].update(word.halves)
                best = max(best, RUN_TOGETHER)
        got += word.weight * best
    total = sum(word.weight for word in words)
    covered = got / total if total else 0.0
    fields = [field for field in FIELDS if matched[field]]
    typed = sum(sum(text in matched[field] for text in own[field]) for field in fields)
    share = typed / sum(len(own[field]) for field in fields) if fields else 0.0
    score = min(0.75 * covered + 0.25 * share, 0.99)
    return max(score, EXACT_CREATOR) if query.any and query.any == creator else score
