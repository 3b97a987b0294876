"""One schema for Arrow tables whose columns differ in type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa


def common_schema(schemas: Sequence[Any]) -> Any:
    """One schema for the columns of several tables: for each column a type that can hold the values of all, else text."""
    names = dict.fromkeys(name for schema in schemas for name in schema.names)
    return pa.schema([_common_field([s.field(name) for s in schemas if name in s.names]) for name in names])


def _common_field(fields: Sequence[Any]) -> Any:
    try:
        return pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive").field(0)
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.field(fields[0].name, pa.string())


def with_schema(table: Any, schema: Any) -> Any:
    """A table with the columns and types of a `common_schema`; a column that it lacks is missing in every row.

    Lists and other values of several parts become JSON where they become text.
    """
    if table.schema.equals(schema):
        return table
    columns = [
        _cast(table[field.name], field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: Any, kind: Any) -> Any:
    try:
        return column.cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        if not pa.types.is_string(kind):
            return column.cast(kind, safe=False)
        return pa.array([as_json(value) for value in column.to_pylist()], kind)


def as_json(value: Any) -> str | None:
    """A value as text: numbers, lists and mappings in JSON, other values (a UUID) in their own form, and None for a missing one."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, default=str) if isinstance(value, (bool, int, float, list, dict)) else str(value)
