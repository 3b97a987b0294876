"""Sheets of Excel workbooks, read by python-calamine."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from gpuclust.config import did_you_mean
from gpuclust.data.remote import RemoteFile
from gpuclust.errors import DataError, message_of

ERRORS = ("#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")
"""The values of cells whose formula has failed; they are missing."""


def read_sheet(file: Path | RemoteFile, sheet: str | None) -> pa.Table:
    """The rows of a sheet below its first row, which has the names of the columns.

    ``sheet`` is a name, or a number from 1; None is the first sheet. A column whose cells have several types is text. Raises DataError.
    """
    try:
        import python_calamine  # noqa: F401  pandas needs it
    except ImportError as error:
        raise DataError(
            f"{file} needs the package python-calamine to be read: pip install 'gpuclust[excel]'"
        ) from error
    try:
        with file.open("rb") as stream:
            content = io.BytesIO(stream.read())
        book = pd.ExcelFile(content, engine="calamine")
        name = _found(file, [str(name) for name in book.sheet_names], sheet)
        frame = book.parse(name, keep_default_na=False, na_values=["", *ERRORS])
    except DataError:
        raise
    except Exception as error:  # calamine has its own exception classes, and also raises OSError and ValueError
        raise DataError(f"{file} is not a complete Excel workbook: {message_of(error)}") from error
    if frame.empty:
        raise DataError(
            f"{file}: the sheet {name!r} has no rows below the names of the columns; choose another with data.sheet"
        )
    return pa.table({str(column): _column(frame[column]) for column in frame.columns})


def _found(file: Path | RemoteFile, names: list[str], sheet: str | None) -> str:
    """The name of the sheet."""
    if sheet is None:
        return names[0]
    if sheet in names:
        return sheet
    if sheet.isdecimal() and 1 <= int(sheet) <= len(names):
        return names[int(sheet) - 1]
    hint = did_you_mean(sheet, names) or f"; it has {', '.join(names[:12])}"
    raise DataError(f"data.sheet: {file} has no sheet {sheet!r}{hint}")


def _column(column: pd.Series[Any]) -> pa.Array:
    try:
        return pa.Array.from_pandas(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        texts = [None if pd.isna(value) else _text(value) for value in column]
        return pa.array(texts, pa.string())


def _text(value: Any) -> str:
    """A cell as text, a whole number without a decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
