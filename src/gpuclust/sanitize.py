"""Text that leaves the program: `mask` hides secrets, `safe_cell` and `safe_table` prevent formulas in CSV, `printable`
removes control characters.

It imports no other module of gpuclust.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus, unquote, unquote_plus

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

HIDDEN = "***"
# Environment variables with secrets, and those with an address that may contain a secret.
SECRET_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "PGPASSWORD", "MYSQL_PWD", "GPUCLUST_TOKEN",
)  # fmt: skip
ADDRESS_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_URI")
# In a database URI the part before the colon is an account name; in other URIs it may be a token.
DATABASE = re.compile(r"(postgres|postgresql|mysql|mariadb|mssql|oracle|cockroachdb)(\+\w+)?:", re.IGNORECASE)

# scheme://user:password@, the user part as in RFC 3986; also with one slash, as in a path. models:/NAME@ALIAS of MLflow has none.
_USER_PART = re.compile(r"\b(?!models:/[^/])([a-z][a-z0-9+.-]+:/{1,2})([^\s/?#\"'<>]*)@", re.IGNORECASE)
# The same with a password that contains an unquoted slash, question mark or hash. A port is not a password.
_LOOSE_USER_PART = re.compile(
    r"\b([a-z][a-z0-9+.-]+://)([^\s/?#\"'<>:@\[]*:(?!\d{1,5}[/?#])[^\s\"'<>]*)@", re.IGNORECASE
)
_PARAMETER = re.compile(
    r"([?&;](?:[\w.%-]*(?:passw|passphrase|pwd|secret|token|credential|signature|api_?key|access_?key|authorization)[\w.%-]*"
    r"|pass|pw|sig|key|auth|odbc_connect)=)([^&\s#\"'<>]+)",
    re.IGNORECASE,
)
# password=... in the connection string of a database, as in a query that names one.
_KEYWORD = re.compile(r"(\b(?:password|passwd|pwd)=)([^\s'\"&;,)]+)", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"\b((?:Bearer|Basic) +)[\w.~+/=-]{6,}")
MIN_SECRET_LENGTH = 6  # characters; shorter secrets are hidden in addresses only
MIN_WORD_SECRET_LENGTH = 12  # minimum length of a secret of only letters or only digits outside addresses

# Format characters that change the writing direction.
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# A spreadsheet runs a cell that begins with one of these as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

_remembered: set[str] = set()


def mask(value: T) -> T:
    """Replace the secrets in a text, or in all texts of a mapping or a list, by ``***``.

    Secrets are passwords and tokens in the user part of addresses, in query parameters and in authorization headers, and
    those of the environment or of `remember`, wherever they appear, percent-encoded or not.
    """
    found: T = _masked(value, sorted(_known(), key=len, reverse=True))
    return found


def remember(address: str | None) -> None:
    """Hide the secrets of an address from now on, also outside the address."""
    _remembered.update(_secrets_of(address or ""))


def without_credentials(address: str) -> str:
    """Remove the user part of an address."""
    return mask(_USER_PART.sub(r"\1", _LOOSE_USER_PART.sub(r"\1", address)))


def _masked(value: Any, known: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _masked_text(value, known)
    if isinstance(value, Mapping):
        return {_masked(k, known): _masked(v, known) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_masked(v, known) for v in value])
    return value


def _masked_text(text: str, known: Sequence[str]) -> str:
    if "@" in text:
        text = _LOOSE_USER_PART.sub(_hide_user_part, text)
        text = _USER_PART.sub(_hide_user_part, text)
    if "=" in text:
        text = _KEYWORD.sub(rf"\1{HIDDEN}", _PARAMETER.sub(rf"\1{HIDDEN}", text))
    text = _AUTHORIZATION.sub(rf"\1{HIDDEN}", text)
    for secret in known:
        text = text.replace(secret, HIDDEN)
    return text


def _hide_user_part(found: re.Match[str]) -> str:
    scheme, user_part = found.groups()
    user, colon, _ = user_part.partition(":")
    if DATABASE.match(scheme):
        return f"{scheme}{user}{colon}{HIDDEN if colon else ''}@"
    return f"{scheme}{HIDDEN}@"


def _known() -> set[str]:
    """All known secrets."""
    named = (os.environ.get(name, "") for name in SECRET_VARIABLES)
    held = {text for secret in named if secret for text in _spellings(secret)}
    for name in ADDRESS_VARIABLES:
        held.update(_secrets_of(os.environ.get(name, "")))
    return held | _remembered


def _secrets_of(address: str) -> Iterator[str]:
    found = _LOOSE_USER_PART.search(address) or _USER_PART.search(address)
    if found is not None:
        user, _, password = found[2].partition(":")
        if password or not DATABASE.match(found[1]):
            yield from _spellings(password or user)
    for parameter in _PARAMETER.finditer(address):
        yield from _spellings(parameter[2])


def _spellings(secret: str) -> Iterator[str]:
    """A secret as written, decoded and encoded, and the parts into which a parser of addresses may split it."""
    plain = unquote(secret)
    forms = {secret, plain, unquote_plus(secret), quote(plain, safe=""), quote_plus(plain)}
    forms.update(part for form in tuple(forms) for part in re.split(r"[@/:?#]", form))
    for form in forms:
        is_word = form.isalpha() or form.isdigit()
        if len(form) >= (MIN_WORD_SECRET_LENGTH if is_word else MIN_SECRET_LENGTH):
            yield form


def printable(text: str) -> str:
    """Make a text safe for a terminal, a playlist file or a log line.

    Control characters become spaces, and characters that change the writing direction are removed.
    """
    shown = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text if c not in DIRECTION_MARKS)
    return " ".join("".join(shown).split())


def safe_cell(value: T) -> T | str:
    """Make a CSV cell safe: text that a spreadsheet would run as a formula gets a leading apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def safe_row(values: Iterable[Any]) -> list[Any]:
    """Apply `safe_cell` to each cell of a row."""
    return [safe_cell(value) for value in values]


def safe_table(table: pa.Table) -> pa.Table:
    """Make the texts and column names of a table safe for CSV; lists become text."""
    import pyarrow as pa

    names = [safe_cell(name) for name in table.column_names]
    return pa.Table.from_arrays([_safe_column(column) for column in table.columns], names=names)


def _safe_column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) and not pa.types.is_nested(
        column.type.value_type
    ):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), "; ")
    elif pa.types.is_nested(column.type):  # CSV has no nested values
        texts = (None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in column.to_pylist())
        column = pa.chunked_array([pa.array(texts, pa.string())])
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = pa.chunked_array([pa.array((v and v.hex() for v in column.to_pylist()), pa.string())])
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    risky = pc.is_in(pc.utf8_slice_codeunits(column, 0, 1), pa.array(FORMULA, column.type))
    quote_, nothing = pa.scalar("'", column.type), pa.scalar("", column.type)
    return pc.if_else(risky, pc.binary_join_element_wise(quote_, column, nothing), column)
