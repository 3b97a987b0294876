"""Open an index: arrays are mapped into memory, and a pool of database connections is shared by threads."""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpuclust.errors import ExportError
from gpuclust.serve.averages import BY
from gpuclust.serve.index.locate import read_index_info
from gpuclust.serve.neighbours import Tree
from gpuclust.serve.spelling import Vocabulary

CLOSED = "this library was closed; open the export again with Library.open"


class Database:
    """A pool of read-only connections to ``search.sqlite``.

    All connections are opened at once, so they continue to work after the file is removed.
    """

    def __init__(self, path: Path) -> None:
        self._free: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()  # None after closing
        self._ending, self._closed = threading.Lock(), False
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        for _ in range(min(os.cpu_count() or 1, 8)):
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            connection.execute("pragma mmap_size = 4000000000")
            connection.execute("select count(*) from creators where key = ''").fetchone()
            self._free.put(connection)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = self._free.get()
        if connection is None:
            self._free.put(None)  # wake the next waiting thread
            raise ExportError(CLOSED)
        try:
            yield connection
        finally:
            with self._ending:
                if self._closed:
                    connection.close()
                else:
                    self._free.put(connection)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; values are bound as parameters."""
        with self._connection() as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise ExportError(f"the index is damaged ({error}); remove the folder .index of the export") from error

    def column(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The first column of all rows of a query."""
        return [row[0] for row in self.rows(query, values)]

    def close(self) -> None:
        """Close the connections; a connection in use is closed after its query. Later queries raise ExportError."""
        with self._ending:
            if self._closed:
                return
            self._closed = True
            while not self._free.empty():
                if (connection := self._free.get()) is not None:
                    connection.close()
            self._free.put(None)


@dataclass(frozen=True)
class Index:
    """The contents of an index folder.

    ``rows`` has one row per rank; ``popular`` and ``central`` (n_rows,) int32 are ranks sorted by cluster, ``runs`` the
    slice of each cluster in them. ``recording`` (n_rows,) int32 is the rank
    of the most popular row of the same title and creator, ``repeat`` (n_rows,) bool whether the row's cluster has a more
    popular one. ``info`` is the content of ``index.json``.
    """

    folder: Path
    rows: pa.Table
    tree: Tree
    words: Vocabulary
    database: Database
    popular: np.ndarray
    central: np.ndarray
    runs: dict[int, slice]
    averages: dict[str, pa.Table]
    recording: np.ndarray
    repeat: np.ndarray
    info: dict[str, Any]


def open_index(folder: Path) -> Index:
    """Open an index. Raises OSError, ValueError, sqlite3.Error or pa.ArrowException if its files are damaged."""
    info = read_index_info(folder)
    if info is None:
        raise ValueError(f"{folder} has no {folder / 'index.json'}")
    rows = _mapped(folder / "rows.arrow")
    popular, central = (np.load(folder / f"{name}.npy", "r", allow_pickle=False) for name in ("popular", "central"))
    runs = {int(cluster): slice(*run) for cluster, run in info["runs"].items()}
    if (
        not rows.num_rows
        == info["n_rows"]
        == len(popular)
        == len(central)
        == max((r.stop for r in runs.values()), default=0)
    ):
        raise ValueError(f"the files of {folder} have different numbers of rows")
    return Index(
        folder=folder,
        rows=rows,
        tree=Tree.load(folder),
        words=Vocabulary.load(folder / "words.arrow"),
        database=Database(folder / "search.sqlite"),
        popular=popular,
        central=central,
        runs=runs,
        averages={by: _mapped(folder / f"averages-{by}.arrow") for by in BY},
        recording=_array(rows["recording"], np.int32),
        repeat=_array(rows["repeat"], np.bool_),
        info=info,
    )


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _array(column: pa.ChunkedArray, dtype: Any) -> np.ndarray:
    parts = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])
