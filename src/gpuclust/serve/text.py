"""Text as search sees it: one folding for what is indexed and for what is typed."""

from __future__ import annotations

import unicodedata
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MAX_TEXT = 300  # characters of a text that are looked at
CREATOR_SEPARATOR = ";"

# Letters that Unicode does not decompose, as people type them.
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
# Scripts that write no spaces between words: each character is a word of its own.
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
# What says that a title is another issue of the same recording: "- 2012 Remaster", "(Remastered Version)".
_REMASTER = (
    r"(?i)\s*(?:-|\(|\[)\s*(?:\d{4}\s+)?(?:digital(?:ly)?\s+)?remaster(?:ed)?(?:\s+version)?(?:\s+\d{4})?\s*[)\]]?\s*$"
)
# Format characters that turn the direction of what follows.
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def fold(texts: Any) -> Any:
    """Texts without case, accents and punctuation: words of letters and digits, a space between (Arrow array to Arrow array).

    Compatibility decomposition (Unicode Standard Annex 15) drops the marks; letters that do not decompose (ß, ø, ł)
    become what people type for them; apostrophes vanish, ``&`` is ``and``, other signs separate words; scripts written
    without spaces are cut into characters. A text without letters and digits keeps its signs, so that ``???`` is found.
    Nulls become empty.
    """
    raw = pc.utf8_slice_codeunits(pc.fill_null(texts.cast(pa.string()), ""), 0, MAX_TEXT)
    plain = pc.string_is_ascii(raw)
    # The character classes of ASCII are told on their own: those of Unicode take milliseconds to compile.
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
    """Texts whose letters have lost their marks, or became what people type for them."""
    # An acute accent that stands alone would decompose into a space.
    texts = pc.replace_substring(texts, "´", "'")
    texts = pc.utf8_lower(pc.replace_substring_regex(pc.utf8_normalize(texts, form="NFKD"), r"\p{M}+", ""))
    for letter, typed in _LETTERS.items():
        texts = pc.replace_substring(texts, letter, typed)
    return pc.replace_substring_regex(texts, _UNSPACED, r" \1 ")


def fold_one(text: str) -> str:
    """`fold` of one text; what cannot be UTF-8 (lone surrogates) is a sign."""
    if not text:
        return ""
    clean = text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    return str(fold(pa.array([clean], pa.string()))[0].as_py())


def without_remaster(titles: Any) -> Any:
    """Titles less what says that they are remasters (Arrow array to Arrow array); nulls become empty."""
    return pc.replace_substring_regex(pc.fill_null(titles.cast(pa.string()), ""), _REMASTER, "")


def names_in(value: object) -> tuple[str, ...]:
    """The names in a cell: the items of a list, or a text cut at semicolons; empty ones left out."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(str(item) for item in value if item is not None and str(item).strip())
    return tuple(part.strip() for part in str(value).split(CREATOR_SEPARATOR) if part.strip())


def printable(text: str) -> str:
    """A text for a terminal, a playlist file or a log line: control characters become spaces, and characters that turn
    the writing direction are left out."""
    shown = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text if c not in _TURNS)
    return " ".join("".join(shown).split())
