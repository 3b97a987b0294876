"""Detection of a text's encoding: UTF-8, UTF-16, GBK, Windows-1252 or Latin-1.

charset-normalizer is not used: it takes Western tables with few accents for Windows-1250, 1256 or 1257 and Chinese ones with
few characters for Big5, it gives no encoding for UTF-8 with a broken byte, and it is about ten times as slow.
"""

from __future__ import annotations

import codecs


def detect_encoding(sample: bytes) -> tuple[str, bool]:
    """Detect the encoding of a text: the name of a Python codec, and whether some bytes are invalid in it.

    UTF-8 is recognised by its own rules, even if up to a tenth of its non-ASCII characters are broken. GBK has two
    bytes for a character, and its common characters are those of GB 2312; in Western text most bytes above 127
    stand alone, which GBK can decode only as rare characters or not at all. The GB 18030 codec is used for GBK, as
    in the WHATWG Encoding Standard. Any other text is Windows-1252, or Latin-1 if it has bytes that
    Windows-1252 does not define.
    """
    if sample.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", False
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", False
    if sample.isascii() or _decodes(sample, "utf-8"):
        return "utf-8", False
    if _broken_share(sample) < 0.1:
        return "utf-8", True
    if _looks_like_gbk(sample):
        return "gb18030", False
    return ("cp1252" if _decodes(sample, "cp1252") else "latin-1"), False


def _decodes(sample: bytes, codec: str) -> bool:
    """Whether the bytes are valid in the codec; the last character may be incomplete."""
    try:
        codecs.getincrementaldecoder(codec)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _broken_share(sample: bytes) -> float:
    """The fraction of invalid characters among the non-ASCII characters, when decoded as UTF-8."""
    non_ascii = [c for c in sample.decode("utf-8", "replace") if c > "\x7f"]
    return non_ascii.count("\ufffd") / len(non_ascii)


def _looks_like_gbk(sample: bytes) -> bool:
    text = codecs.getincrementaldecoder("gb18030")("replace").decode(sample)
    non_ascii = [c for c in text if c > "\x7f"]
    common = sum(len(c.encode("gb2312", "ignore")) == 2 for c in non_ascii)
    return common > 0.8 * len(non_ascii) if non_ascii else False
