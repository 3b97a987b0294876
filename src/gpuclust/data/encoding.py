"""Which encoding some bytes are in: UTF-8, UTF-16, GBK, Windows-1252 or Latin-1."""

from __future__ import annotations

import codecs


def detect_encoding(evidence: bytes) -> tuple[str, bool]:
    """Judge bytes of a text: a Python codec name, and whether some of the bytes do not fit it.

    UTF-8 is recognised by its own rules, also when up to a tenth of its characters are broken. GBK puts two
    bytes to a character and its everyday characters are those of GB 2312; in Western text most bytes above 127
    stand alone, which GBK can only read as rare characters, or not at all. The GB 18030 codec is used for GBK, as
    the WHATWG Encoding Standard does. What is left is Windows-1252, or Latin-1 when it has bytes that
    Windows-1252 leaves undefined.
    """
    if evidence.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", False
    if evidence.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", False
    if evidence.isascii() or _decodes(evidence, "utf-8"):
        return "utf-8", False
    if _broken_share(evidence) < 0.1:
        return "utf-8", True
    if _looks_like_gbk(evidence):
        return "gb18030", False
    return ("cp1252" if _decodes(evidence, "cp1252") else "latin-1"), False


def _decodes(evidence: bytes, codec: str) -> bool:
    """Whether the bytes fit, apart from a character cut at the end."""
    try:
        codecs.getincrementaldecoder(codec)().decode(evidence)
    except UnicodeDecodeError:
        return False
    return True


def _broken_share(evidence: bytes) -> float:
    """The share of broken places among the characters beyond ASCII, read as UTF-8."""
    beyond = [c for c in evidence.decode("utf-8", "replace") if c > "\x7f"]
    return beyond.count("\ufffd") / len(beyond)


def _looks_like_gbk(evidence: bytes) -> bool:
    text = codecs.getincrementaldecoder("gb18030")("replace").decode(evidence)
    beyond = [c for c in text if c > "\x7f"]
    everyday = sum(len(c.encode("gb2312", "ignore")) == 2 for c in beyond)
    return everyday > 0.8 * len(beyond) if beyond else False
