"""Which known words someone may have meant: the same word, a word that begins so, or one a slip or two away."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

PREFIXES, SLIPS = 64, 24  # at most so many words that begin like, that look like, the word typed


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
        return self._frequent(np.arange(start, stop), PREFIXES)

    def slips(self, word: str) -> tuple[str, ...]:
        """Words within `allowed` slips of a word (not itself), fewest slips first, then by frequency."""
        most = allowed(word)
        if most == 0:
            return ()
        # An insertion or deletion changes one letter of the set at most, a substitution two.
        near = np.bitwise_count(self.letters ^ letters_of([word])[0]) <= 2 * most
        near &= np.abs(self.lengths - len(word)) <= most
        candidates = np.flatnonzero(near)
        distances = slips_between(word, self.words.take(pa.array(candidates)).to_pylist())
        kept = (distances <= most) & (distances > 0)
        candidates, distances = candidates[kept], distances[kept]
        best = np.lexsort((candidates, -self.counts[candidates], distances))[:SLIPS]
        return tuple(self.words.take(pa.array(candidates[best])).to_pylist())

    def halves(self, word: str) -> tuple[str, str] | None:
        """Two known words that a word runs together, as in ``acdc``: the pair whose rarer word is the most frequent."""
        pairs = ((word[:i], word[i:]) for i in range(1, len(word)))
        best = max(((min(self.count(a), self.count(b)), a, b) for a, b in pairs), default=(0, "", ""))
        return (best[1], best[2]) if best[0] > 0 else None

    def _frequent(self, candidates: np.ndarray, most: int) -> tuple[str, ...]:
        best = candidates[np.lexsort((candidates, -self.counts[candidates]))[:most]]
        return tuple(self.words.take(pa.array(best)).to_pylist())

    def _at(self, word: str) -> int:
        return bisect_left(range(len(self.counts)), word, key=lambda i: self.words[i].as_py())


def allowed(word: str) -> int:
    """How many slips a word of this length may have: none up to 3 characters, one up to 7, else two."""
    return 0 if len(word) < 4 or word.isdigit() else 1 if len(word) < 8 else 2


def letters_of(words: Sequence[str]) -> np.ndarray:
    """(n,) uint64: the set of characters of each word, one bit for each character code modulo 64."""
    codes = _codes(words)
    bits = np.where(codes > 0, np.uint64(1) << (codes % 64).astype(np.uint64), np.uint64(0))
    return np.bitwise_or.reduce(bits, axis=1) if codes.size else np.zeros(len(words), np.uint64)


def slips_between(word: str, others: Sequence[str]) -> np.ndarray:
    """(n,) int64: insertions, deletions, substitutions and swaps of neighbours from a word to each of the others.

    The optimal string alignment distance (Boytsov, "Indexing methods for approximate dictionary searching", ACM JEA
    2011), all others at once.
    """
    codes = _codes(others)
    typed = np.frombuffer(word.encode("utf-32-le"), dtype=np.uint32)
    n, width = codes.shape
    places = np.arange(width + 1)
    previous = np.tile(places, (n, 1))
    before = previous
    for i, character in enumerate(typed):
        same = codes == character
        row = np.empty_like(previous)
        row[:, 0] = i + 1
        np.minimum(previous[:, :-1] + ~same, previous[:, 1:] + 1, out=row[:, 1:])
        if i:
            swapped = same[:, :-1] & (codes[:, 1:] == typed[i - 1])
            np.minimum(row[:, 2:], before[:, :-2] + 1, out=row[:, 2:], where=swapped)
        # An insertion costs one more than what stands before it: the least so far, less its place.
        row = np.minimum.accumulate(row - places, axis=1) + places
        before, previous = previous, row
    lengths = np.fromiter(map(len, others), dtype=np.int64, count=n)
    return previous[np.arange(n), lengths]


def _codes(words: Sequence[str]) -> np.ndarray:
    """(n, longest) uint32 code points, 0 after the end."""
    if not len(words):
        return np.zeros((0, 0), dtype=np.uint32)
    longest = max(max(map(len, words)), 1)
    return np.array(words, dtype=f"U{longest}").view(np.uint32).reshape(len(words), longest)
