"""Which words of the vocabulary a typed word can mean: itself, a longer word that begins with it, or one a typing error or two away."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rapidfuzz import process
from rapidfuzz.distance import OSA

MAX_PREFIXED, MAX_MISSPELT = 64, 24  # words that begin with the typed word, and words that it may misspell


@dataclass(frozen=True)
class Vocabulary:
    """All words of titles and creators, in the order of their code points. ``words`` is an Arrow array of text,
    ``counts`` (n,) int64 how many items have each, ``lengths`` (n,) int64 in characters, ``letters`` (n,) uint64 a bit for
    each letter that a word has (other characters share bits)."""

    words: Any
    counts: np.ndarray
    lengths: np.ndarray
    letters: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """The vocabulary in an Arrow file, mapped and not read."""
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        columns = {name: table[name].combine_chunks() if table.num_rows else pa.array([], table.schema.field(name).type)
                   for name in table.column_names}  # fmt: skip
        return cls(columns["word"], *(columns[name].to_numpy() for name in ("count", "length", "letters")))

    def count(self, word: str) -> int:
        """How many items have a word, 0 when it is not known."""
        at = self._at(word)
        return int(self.counts[at]) if at < len(self.counts) and self.words[at].as_py() == word else 0

    def beginning(self, prefix: str) -> tuple[str, ...]:
        """The most frequent words that begin with a prefix and are longer."""
        start, stop = self._at(prefix), self._at(prefix + "\U0010ffff")
        if start < len(self.counts) and self.words[start].as_py() == prefix:
            start += 1
        return self._frequent(np.arange(start, stop), MAX_PREFIXED)

    def near(self, word: str) -> tuple[str, ...]:
        """Words within `max_edits` of a word (not itself), fewest edits first, then by frequency."""
        limit = max_edits(word)
        if limit == 0:
            return ()
        # An insertion or deletion changes one letter of the set at most, a substitution two.
        possible = np.bitwise_count(self.letters ^ letters_of([word])[0]) <= 2 * limit
        possible &= np.abs(self.lengths - len(word)) <= limit
        candidates = np.flatnonzero(possible)
        distances = edit_distances(word, self.words.take(pa.array(candidates)).to_pylist())
        kept = (distances <= limit) & (distances > 0)
        candidates, distances = candidates[kept], distances[kept]
        best = np.lexsort((candidates, -self.counts[candidates], distances))[:MAX_MISSPELT]
        return tuple(self.words.take(pa.array(candidates[best])).to_pylist())

    def split(self, word: str) -> tuple[str, str] | None:
        """The two known words that a word joins, as in ``acdc``, or None: the pair whose rarer word is the most frequent."""
        pairs = ((word[:i], word[i:]) for i in range(1, len(word)))
        best = max(((min(self.count(a), self.count(b)), a, b) for a, b in pairs), default=(0, "", ""))
        return (best[1], best[2]) if best[0] > 0 else None

    def _frequent(self, candidates: np.ndarray, most: int) -> tuple[str, ...]:
        best = candidates[np.lexsort((candidates, -self.counts[candidates]))[:most]]
        return tuple(self.words.take(pa.array(best)).to_pylist())

    def _at(self, word: str) -> int:
        return bisect_left(range(len(self.counts)), word, key=lambda i: self.words[i].as_py())


def max_edits(word: str) -> int:
    """How many edits a word of this length may have: none up to 3 characters or for a number, one up to 7, else two."""
    return 0 if len(word) < 4 or word.isdigit() else 1 if len(word) < 8 else 2


def letters_of(words: Sequence[str]) -> np.ndarray:
    """(n,) uint64: the set of characters of each word, one bit for each character code modulo 64."""
    longest = max(map(len, words), default=0)
    if not longest:
        return np.zeros(len(words), np.uint64)
    codes = np.array(words, dtype=f"U{longest}").view(np.uint32).reshape(len(words), longest)  # 0 after a word's end
    bits = np.where(codes > 0, np.uint64(1) << (codes % 64).astype(np.uint64), np.uint64(0))
    letters: np.ndarray = np.bitwise_or.reduce(bits, axis=1)
    return letters


def edit_distances(word: str, others: Sequence[str]) -> np.ndarray:
    """(n,) int64: insertions, deletions, substitutions and swaps of neighbours from a word to each of the others.

    The optimal string alignment distance (Boytsov, "Indexing methods for approximate dictionary searching", ACM JEA 2011).
    """
    distances: np.ndarray = process.cdist([word], others, scorer=OSA.distance, dtype=np.int64)[0]
    return distances
