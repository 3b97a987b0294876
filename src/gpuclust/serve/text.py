"""Normalise text for search: the same folding for indexed texts and for queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.tracks.presets import ISSUE

MAX_TEXT = 300  # characters of a text that are used
CREATOR_SEPARATOR = ";"

# Letters that Unicode does not decompose, and their usual replacements.
_LETTERS = {
    "ß": "ss",
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "æ": "ae",
    "œ": "oe",
    "ı": "i",
    "ħ": "h",
    "ς": "σ",
}
# Scripts without spaces between words: each character is a word.
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"


def fold(texts: Any) -> Any:
    """Remove case, accents and punctuation (Arrow array to Arrow array): words of letters and digits, separated by spaces.

    Compatibility decomposition (Unicode Standard Annex 15) removes marks; letters that do not decompose (ß, ø, ł) are
    replaced by the letters usually typed for them; apostrophes are removed, ``&`` becomes ``and``, other signs separate
    words; scripts without spaces are split into characters. A text without letters and digits keeps its signs, so that
    ``???`` can be found. Nulls become empty.
    """
    raw = pc.utf8_slice_codeunits(pc.fill_null(texts.cast(pa.string()), ""), 0, MAX_TEXT)
    plain = pc.string_is_ascii(raw)
    # ASCII has its own pattern, because patterns with Unicode classes take milliseconds to compile.
    words = _words(raw, "'", "[^a-z0-9]+")
    if not pc.all(plain, min_count=0).as_py():
        beyond = pc.invert(plain)
        words = pc.replace_with_mask(
            words, beyond, _words(_letters(raw.filter(beyond)), "['’‘ʼ＇`´]", r"[^\p{L}\p{N}]+")
        )
    signs = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(raw), r"\s+", " "))
    wordless = pc.or_(pc.equal(words, ""), pc.and_(pc.equal(words, "and"), pc.match_substring(raw, "&")))
    return pc.if_else(wordless, signs, words)


def _words(texts: Any, apostrophes: str, others: str) -> Any:
    texts = pc.replace_substring_regex(pc.utf8_lower(texts), apostrophes, "")
    texts = pc.replace_substring(texts, "&", " and ")
    return pc.utf8_trim(pc.replace_substring_regex(texts, others, " "), " ")


def _letters(texts: Any) -> Any:
    """Remove the marks of letters, or replace letters by those usually typed for them."""
    # A separate acute accent would decompose into a space.
    texts = pc.replace_substring(texts, "´", "'")
    texts = pc.utf8_lower(pc.replace_substring_regex(pc.utf8_normalize(texts, form="NFKD"), r"\p{M}+", ""))
    for letter, typed in _LETTERS.items():
        texts = pc.replace_substring(texts, letter, typed)
    return pc.replace_substring_regex(texts, _UNSPACED, r" \1 ")


def fold_one(text: str) -> str:
    """`fold` of one text; a lone surrogate, which is not valid UTF-8, is a sign."""
    if not text:
        return ""
    clean = text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    return str(fold(pa.array([clean], pa.string()))[0].as_py())


def without_issue(titles: Any) -> Any:
    """Remove suffixes of remasters and soundtracks from titles (Arrow array to Arrow array); nulls become empty."""
    return pc.replace_substring_regex(pc.fill_null(titles.cast(pa.string()), ""), ISSUE, "")


def recordings(titles: Any, creators: Any, folded_titles: Any, folded_creators: Any) -> np.ndarray:
    """(n,) int32: for each row the first row with the same title and the same creators, in any order.

    Case, accents, punctuation and suffixes of remasters and soundtracks are ignored. A row without a title or a creator
    refers to itself, because a title alone does not identify a recording. The folded texts are `fold` of the texts.
    """
    n = len(titles)
    issues = pc.match_substring_regex(folded_titles, r"\b(remaster|from )")
    named = pc.replace_with_mask(folded_titles, issues, fold(without_issue(titles.filter(issues))))
    named = pc.if_else(pc.equal(named, ""), folded_titles, named)
    several = pc.fill_null(pc.match_substring(creators.cast(pa.string()), CREATOR_SEPARATOR), False)
    by = pc.replace_with_mask(folded_creators, several, _sorted_names(creators.filter(several)))
    whole = pc.and_(pc.not_equal(named, ""), pc.not_equal(by, ""))
    keys = pc.binary_join_element_wise(named.filter(whole), by.filter(whole), "\n").dictionary_encode()
    found, places = np.arange(n, dtype=np.int32), np.flatnonzero(whole.to_numpy(zero_copy_only=False))
    codes = keys.indices.to_numpy()
    first = np.empty(len(keys.dictionary), dtype=np.int32)
    first[codes[::-1]] = places[::-1]  # the first of several rows is written last
    found[places] = first[codes]
    return found


def _sorted_names(creators: Any) -> Any:
    """Fold and sort the names in each cell (Arrow array to Arrow array of text)."""
    cells = creators.cast(pa.string()).dictionary_encode()
    names = [names_in(cell) for cell in cells.dictionary.to_pylist()]
    folded = iter(fold(pa.array([name for own in names for name in own], pa.string())).to_pylist())
    ordered = [" ".join(sorted(next(folded) for _ in own)) for own in names]
    return pa.array(ordered, pa.string()).take(cells.indices)


def names_in(value: object) -> tuple[str, ...]:
    """The names in a cell: the items of a list, or a text split at semicolons, without empty names."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(str(item) for item in value if item is not None and str(item).strip())
    return tuple(part.strip() for part in str(value).split(CREATOR_SEPARATOR) if part.strip())
