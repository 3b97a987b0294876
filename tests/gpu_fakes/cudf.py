"""cuDF: frames and columns with the real methods and parameters that compute as pandas' nullable types do.

A missing value is a null, which comparisons carry on; text, numbers and masks have their null each. Nothing goes to the host unless it
is asked for: no iteration, no truth value, no NumPy array of a frame.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.gpu_fakes.arrays import inner, ndarray, wrap
from tests.gpu_fakes.device import launch, to_device, to_host
from tests.gpu_fakes.signatures import StandIn, bind, callable_name, known

NULLABLE = {"f": "Float64", "i": "Int64", "u": "UInt64", "b": "boolean"}
TEXT = "string[pyarrow]"


def nullable(column: pd.Series) -> pd.Series:
    """A column of pandas with a type that has nulls."""
    dtype = column.dtype
    if isinstance(dtype, pd.ArrowDtype) or (
        isinstance(dtype, pd.api.extensions.ExtensionDtype) and str(dtype) in NULLABLE.values()
    ):
        return column
    if isinstance(dtype, pd.CategoricalDtype):
        return column
    if isinstance(dtype, np.dtype) and dtype.kind in NULLABLE:
        if dtype.itemsize < 8 and dtype.kind != "b":
            return column.astype(str(dtype).capitalize().replace("Uint", "UInt"))
        return column.astype(NULLABLE[dtype.kind])
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return column
    return column.astype(TEXT)


def host_dtype(dtype: Any) -> Any:
    """The type as cuDF shows it."""
    if isinstance(dtype, pd.StringDtype):
        return pd.StringDtype(na_value=np.nan)
    return getattr(dtype, "numpy_dtype", dtype)


def plain(column: pd.Series) -> pd.Series:
    """The column as `to_pandas` gives it: NaN where a number is null."""
    dtype = column.dtype
    if isinstance(dtype, pd.StringDtype):
        return column.astype("str") if pd.__version__ >= "3" else column.astype(object)
    if isinstance(dtype, (pd.ArrowDtype, pd.CategoricalDtype, np.dtype)):
        return column
    if column.isna().any():
        return column.astype(object).where(column.notna(), None) if dtype.kind == "b" else column.astype("float64")
    return column.astype(dtype.numpy_dtype)


class _Frame:
    """What a frame and a column have in common."""

    _kind = ""
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, inside: Any) -> None:
        self._inside = inside

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a host NumPy array via __array__ is not allowed")

    def __arrow_array__(self, *args: Any) -> Any:
        raise TypeError("Implicit conversion to a host PyArrow object via __arrow_array__ is not allowed")

    def __bool__(self) -> bool:
        raise ValueError(
            f"The truth value of a {self._kind} is ambiguous. Use a.empty, a.bool(), a.item(), a.any() or a.all()."
        )

    def __len__(self) -> int:
        return len(self._inside)

    def __iter__(self) -> Any:
        raise TypeError(
            f"{self._kind} object is not iterable. Consider using `.to_arrow()`, `.to_pandas()` or `.to_numpy()`"
        )

    def __getattr__(self, name: str) -> Any:
        full = f"cudf.{self._kind}.{name}"
        if name.startswith("_") or not known(full):
            raise AttributeError(f"{self._kind!r} object has no attribute {name!r}")
        if not callable_name(full):
            return wrapped(getattr(self._inside, name), name)

        def method(*args: Any, **kwargs: Any) -> Any:
            return call(full, getattr(self._inside, name), args, kwargs)

        return method

    @property
    def iloc(self) -> Any:
        """Rows by number."""
        return _Rows(self._inside)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return int(np.sum(self._inside.memory_usage(index=False)))


def call(full: str, function: Any, args: Any, kwargs: Any) -> Any:
    """Call a method of pandas with the parameters of cuDF's."""
    bind(full, args, kwargs)
    for value in (*args, *kwargs.values()):
        if isinstance(value, (pd.Series, pd.DataFrame)):
            raise TypeError(f"{full} of a column on the host")
        if isinstance(value, (list, tuple, np.ndarray)) and full.endswith(("isin", "take", "map")):
            to_device(8 * len(value), full)
    launch(full)
    given = {k: unwrapped(v) for k, v in kwargs.items()}
    return wrapped(function(*map(unwrapped, args), **given), full)


def unwrapped(value: Any) -> Any:
    """What pandas takes."""
    if isinstance(value, _Frame):
        return value._inside
    return inner(value) if isinstance(value, ndarray) else value


def wrapped(found: Any, name: str = "") -> Any:
    """A result of pandas as one of cuDF; a single value comes to the host."""
    if isinstance(found, pd.DataFrame):
        return DataFrame(found.apply(nullable) if len(found.columns) else found)
    if isinstance(found, pd.Series):
        return Series(nullable(found))
    if isinstance(found, (pd.api.extensions.ExtensionArray, np.ndarray)):
        return Series(nullable(pd.Series(found)))
    if isinstance(found, (bool, int, float, str, np.generic)) or found is pd.NA:
        to_host(8, name)
        return np.nan if found is pd.NA else found
    return found


class _Rows:
    def __init__(self, inside: Any) -> None:
        self._inside = inside

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, (list, np.ndarray)):
            to_device(np.asarray(rows).nbytes, "iloc")
        launch("cudf.iloc")
        return wrapped(self._inside.iloc[unwrapped(rows)], "iloc")


class Series(_Frame):
    """A column on the device."""

    _kind = "Series"

    def __init__(self, data: Any = None, index: Any = None, dtype: Any = None, name: Any = None, **kwargs: Any) -> None:
        bind("cudf.Series", (data, index, dtype, name), kwargs)
        if isinstance(data, pd.Series) and index is None and dtype is None:
            super().__init__(nullable(data))
        else:
            host = pd.Series(unwrapped(data), index=index, dtype=dtype, name=name)
            to_device(host.memory_usage(index=False), "Series")
            super().__init__(nullable(host))

    dtype = property(lambda self: host_dtype(self._inside.dtype))
    name = property(lambda self: self._inside.name)
    shape = property(lambda self: self._inside.shape)
    size = property(lambda self: self._inside.size)

    @property
    def str(self) -> Any:
        """Methods of text."""
        return _Accessor(self._inside.str, "cudf.Series.str")

    @property
    def dt(self) -> Any:
        """Methods of dates."""
        return _Accessor(self._inside.dt, "cudf.Series.dt")

    @property
    def values(self) -> Any:
        """On the device."""
        return self.to_cupy()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, Series):
            return Series(self._inside[key._inside.fillna(False)])
        return wrapped(self._inside[unwrapped(key)], "Series[i]")

    def astype(self, dtype: Any, copy: Any = None, errors: str = "raise") -> Any:
        launch("cudf.Series.astype")
        wanted = np.dtype(dtype) if dtype not in ("str", str, "category") else dtype
        if isinstance(wanted, np.dtype) and wanted.kind in NULLABLE:
            column = self._inside
            if isinstance(column.dtype, pd.StringDtype):
                column = pd.to_numeric(column)
            kind = "boolean" if wanted.kind == "b" else wanted.name.capitalize().replace("Uint", "UInt")
            return Series(column.astype(kind))
        return Series(self._inside.astype(TEXT if dtype in ("str", str) else dtype))

    def to_frame(self, name: Any = None) -> Any:
        return DataFrame(self._inside.to_frame(self.name if name is None else name))

    def to_pandas(self, *, index: bool = True, nullable: bool = False, arrow_type: bool = False) -> Any:
        to_host(self.nbytes, "to_pandas")
        return self._inside if nullable else plain(self._inside)

    def to_numpy(self, dtype: Any = None, copy: bool = True, na_value: Any = None) -> np.ndarray:
        return self.to_cupy(dtype, copy, na_value).get()

    def to_cupy(self, dtype: Any = None, copy: bool = False, na_value: Any = None) -> Any:
        column = self._inside
        if column.isna().any():
            if na_value is None:
                raise ValueError("Column must have no nulls. Use na_value")
            column = column.fillna(na_value) if not _is_nan(na_value) else column
        return wrap(
            column.to_numpy(dtype or host_dtype(column.dtype), na_value=np.nan if column.isna().any() else _NOTHING)
        )

    def to_arrow(self) -> Any:
        to_host(self.nbytes, "to_arrow")
        return pa.array(self._inside, from_pandas=True)

    def to_list(self) -> Any:
        raise TypeError(
            "cuDF does not support conversion to host memory via the `tolist()` method. Consider using `.to_arrow().to_pylist()`"
        )

    tolist = to_list


_NOTHING: Any = pd.api.extensions.no_default


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


class _Accessor:
    def __init__(self, inside: Any, name: str) -> None:
        self._inside, self._name = inside, name

    def __getattr__(self, name: str) -> Any:
        full = f"{self._name}.{name}"
        if not known(full):
            raise AttributeError(f"{self._name} has no attribute {name!r}")
        if not callable_name(full):
            return wrapped(getattr(self._inside, name))
        return lambda *args, **kwargs: call(full, getattr(self._inside, name), args, kwargs)


class DataFrame(_Frame):
    """A frame on the device."""

    _kind = "DataFrame"

    def __init__(
        self, data: Any = None, index: Any = None, columns: Any = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        bind("cudf.DataFrame", (data, index, columns, dtype), kwargs)
        if isinstance(data, pd.DataFrame):
            host = data
        else:
            given = {k: unwrapped(v) for k, v in data.items()} if isinstance(data, dict) else unwrapped(data)
            host = pd.DataFrame(given, index=index, columns=columns, dtype=dtype)
        super().__init__(host.apply(nullable) if len(host.columns) else host)

    columns = property(lambda self: self._inside.columns)
    shape = property(lambda self: self._inside.shape)
    dtypes = property(
        lambda self: pd.Series({name: host_dtype(kind) for name, kind in self._inside.dtypes.items()}, dtype=object)
    )

    @classmethod
    def from_arrow(cls, table: Any) -> Any:
        """A table of Arrow on the device."""
        if not isinstance(table, pa.Table):
            raise TypeError(f"from_arrow of {type(table)}")
        to_device(table.nbytes, "from_arrow")
        return cls(pd.DataFrame({name: _of_arrow(table[name]) for name in table.column_names}))

    def to_arrow(self, preserve_index: bool | None = None) -> Any:
        to_host(self.nbytes, "to_arrow")
        return pa.Table.from_pandas(self._inside, preserve_index=preserve_index).replace_schema_metadata()

    def to_pandas(self, *, nullable: bool = False, arrow_type: bool = False) -> Any:
        to_host(self.nbytes, "to_pandas")
        return self._inside if nullable else self._inside.apply(plain)

    def to_cupy(self, dtype: Any = None, copy: bool = False, na_value: Any = None) -> Any:
        columns = [Series(self._inside[name]).to_cupy(dtype, copy, na_value)._memory for name in self._inside.columns]
        launch("cudf.to_cupy")
        return wrap(np.asfortranarray(np.column_stack(columns)) if columns else np.empty((len(self), 0)))

    def to_numpy(self, dtype: Any = None, copy: bool = True, na_value: Any = None) -> np.ndarray:
        return self.to_cupy(dtype, copy, na_value).get()

    def nans_to_nulls(self) -> Any:
        launch("cudf.DataFrame.nans_to_nulls")
        return DataFrame(self._inside.copy())  # columns of pandas that have nulls hold no NaN

    def copy(self, deep: bool = True) -> Any:
        return DataFrame(self._inside.copy(deep=deep))

    def reset_index(
        self, level: Any = None, drop: bool = False, inplace: bool = False, col_level: Any = 0, col_fill: Any = ""
    ) -> Any:
        return DataFrame(self._inside.reset_index(drop=drop))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, Series):
            launch("cudf.mask")
            to_host(8, "mask")
            return DataFrame(self._inside[key._inside.astype("boolean").fillna(False)])
        if isinstance(key, (pd.Series, np.ndarray)):
            raise TypeError(f"a mask on the host ({type(key)})")
        found = self._inside[key]
        return Series(found) if isinstance(found, pd.Series) else DataFrame(found)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, pd.Series):
            raise TypeError("a column on the host")
        if isinstance(value, np.ndarray):
            to_device(value.nbytes, "DataFrame[name] =")
            value = pd.Series(value, index=self._inside.index)
        if isinstance(value, ndarray):
            value = pd.Series(value._memory, index=self._inside.index)
        if isinstance(value, _Frame):
            value = value._inside
        self._inside[key] = nullable(value) if isinstance(value, pd.Series) else value
        self._inside[key] = nullable(self._inside[key])

    def __contains__(self, name: Any) -> bool:
        return name in self._inside.columns


def _of_arrow(column: Any) -> pd.Series:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pd.Series(column.combine_chunks().to_pandas(types_mapper=pd.ArrowDtype))
    if pa.types.is_dictionary(kind):
        return column.to_pandas()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.Series(column.to_pandas(types_mapper=lambda _: pd.StringDtype("pyarrow")))
    if pa.types.is_decimal(kind):
        return pd.Series(column.to_pandas(types_mapper=pd.ArrowDtype))
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        names = {"double": "Float64", "float": "Float32", "bool": "boolean"}
        name = names.get(str(kind), str(kind).capitalize().replace("Uint", "UInt"))
        return pd.Series(pd.array(column.to_pylist(), dtype=name))
    return pd.Series(column.to_pandas())


OPERATORS = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow, operator.lt, operator.le,
    operator.gt, operator.ge, operator.eq, operator.ne, operator.and_, operator.or_, operator.xor,
)  # fmt: skip


def _binary(function: Any) -> tuple[Any, Any]:
    def forward(self: Any, other: Any) -> Any:
        if isinstance(other, (pd.Series, pd.DataFrame)):
            raise TypeError(f"a column on the host in {function.__name__}")
        launch(f"cudf.{function.__name__}")
        return wrapped(function(self._inside, unwrapped(other)))

    def backward(self: Any, other: Any) -> Any:
        launch(f"cudf.{function.__name__}")
        return wrapped(function(other, self._inside))

    return forward, backward


def _unary(function: Any) -> Any:
    def apply(self: Any) -> Any:
        launch(f"cudf.{function.__name__}")
        return wrapped(function(self._inside))

    return apply


for _function in OPERATORS:
    _name, (_forward, _backward) = _function.__name__.strip("_"), _binary(_function)
    setattr(_Frame, f"__{_name}__", _forward)
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(_Frame, f"__r{_name}__", _backward)
for _function in (operator.neg, operator.invert, operator.abs):
    setattr(_Frame, f"__{_function.__name__}__", _unary(_function))


def concat(objs: Sequence[Any], axis: int = 0, join: str = "outer", ignore_index: bool = False, **kwargs: Any) -> Any:
    """As `cudf.concat`."""
    bind("cudf.concat", (objs, axis, join, ignore_index), kwargs)
    launch("cudf.concat")
    return wrapped(pd.concat([unwrapped(o) for o in objs], axis=axis, ignore_index=ignore_index))


def to_numeric(arg: Any, errors: str = "raise", downcast: Any = None, dtype_backend: Any = None) -> Any:
    """As `cudf.to_numeric`."""
    launch("cudf.to_numeric")
    return Series(pd.to_numeric(arg._inside.astype(object), errors=errors).astype("Float64"))  # type: ignore[call-overload]


def read_parquet(filepath_or_buffer: Any, *args: Any, **kwargs: Any) -> Any:
    """As `cudf.read_parquet`; the file is decoded on the device."""
    import pyarrow.parquet

    bound = bind("cudf.read_parquet", (filepath_or_buffer, *args), kwargs).arguments
    try:
        table = pyarrow.parquet.ParquetFile(filepath_or_buffer).read(columns=bound.get("columns"))
    except pa.ArrowException as error:
        raise RuntimeError(f"cuDF failure: {error}") from error
    launch("cudf.read_parquet")
    return DataFrame.from_arrow(table)


def read_csv(filepath_or_buffer: Any, *args: Any, **kwargs: Any) -> Any:
    """As `cudf.read_csv`: a quote begins or ends a quoted part wherever it stands, and extra fields of a record are cut off."""
    bound = bind("cudf.read_csv", (filepath_or_buffer, *args), kwargs)
    bound.apply_defaults()
    given = bound.arguments
    raw = filepath_or_buffer.read() if hasattr(filepath_or_buffer, "read") else Path(filepath_or_buffer).read_bytes()
    text = raw.decode() if isinstance(raw, bytes) else raw
    records = split_records(text, (given["delimiter"] or given["sep"]), given["quotechar"], given["lineterminator"])
    records = [r for r in records if not given["skip_blank_lines"] or r != [""]][int(given["skiprows"] or 0) :]
    names = given["names"]
    header = given["header"]
    if header in ("infer", 0) and (names is None or header == 0):
        head, records = records[0], records[1:]
        names = list(names) if names is not None else head
    names = list(names)
    rows = [(r + [None] * len(names))[: len(names)] for r in records]
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    wanted = given["usecols"] or names
    missing = {"", *(given["na_values"] or ()), *(DEFAULT_NA if given["keep_default_na"] else ())}
    missing = missing if given["na_filter"] else set()
    columns = {}
    for name in frame.columns:
        if name in wanted:
            kind = (
                (given["dtype"] or {}).get(name, "str") if isinstance(given["dtype"], dict) else given["dtype"] or "str"
            )
            cells = frame[name].where(~frame[name].isin(missing))
            if str(kind) in ("str", "object"):
                columns[name] = cells.astype(TEXT)
            else:
                text = cells.astype(object).map(
                    lambda c: c.strip().replace(given["decimal"], ".") if isinstance(c, str) else c
                )
                columns[name] = pd.to_numeric(text, errors="coerce").astype("Float64")
    launch("cudf.read_csv")
    to_device(len(text), "read_csv")
    return DataFrame(pd.DataFrame({name: columns[name] for name in wanted}))


DEFAULT_NA = (
    "NA",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "-nan",
    "-NaN",
    "null",
    "NULL",
    "None",
    "<NA>",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "1.#IND",
    "1.#QNAN",
    "-1.#IND",
    "-1.#QNAN",
)


def split_records(text: str, separator: str, quote: str, end: str) -> list[list[str]]:
    """Records and fields as cuDF's parser finds them (NVIDIA/cudf #11948): each quote toggles."""
    records: list[list[str]] = []
    fields: list[str] = []
    field, quoted = io.StringIO(), False

    def close() -> None:
        cell = field.getvalue()
        field.seek(0)
        field.truncate()
        if len(cell) > 1 and cell[0] == cell[-1] == quote:
            cell = cell[1:-1].replace(quote * 2, quote)
        fields.append(cell)

    for character in text.replace("\r\n", "\n"):
        quoted ^= character == quote
        if character == end and not quoted:
            close()
            records.append(fields)
            fields = []
        elif character == separator and not quoted:
            close()
        else:
            field.write(character)
    if field.tell() or fields:
        close()
        records.append(fields)
    return records


class ListDtype:
    """As `cudf.ListDtype`."""


class Decimal32Dtype:
    """As `cudf.Decimal32Dtype`."""


class Decimal64Dtype:
    """As `cudf.Decimal64Dtype`."""


class Decimal128Dtype:
    """As `cudf.Decimal128Dtype`."""


def make() -> StandIn:
    """The module."""
    cudf = StandIn("cudf")
    for thing in (
        DataFrame, Series, concat, to_numeric, read_parquet, read_csv, ListDtype, Decimal32Dtype, Decimal64Dtype, Decimal128Dtype,
    ):  # fmt: skip
        setattr(cudf, thing.__name__, thing)
    cudf.CategoricalDtype, cudf.__version__ = pd.CategoricalDtype, "26.10.02"
    return cudf
