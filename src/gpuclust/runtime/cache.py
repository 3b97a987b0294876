"""The expensive intermediate results of a sweep (tables, matrices, HDBSCAN trees), cached by chained keys up to a size in bytes.

Keys hash configuration and the file's fingerprint, never arrays:
table = H(fingerprint, columns, cleaning), matrix = H(table, scale, reduce, dtype),
tree = H(matrix, min_samples), map = H(matrix, map, seed).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

import psutil

from gpuclust.config import Config, needs_length, unit_rows

T = TypeVar("T")


def key(kind: str, *parts: Any) -> str:
    """A short stable digest of plain values and dataclasses: ``kind-`` and 24 hexadecimal digits."""
    text = json.dumps([kind, *parts], sort_keys=True, default=_plain)
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a key")


def table_key(config: Config, fingerprint: str) -> str:
    """The key of a cleaned table: the same content under another path has the same key."""
    data = asdict(config.data) | {"path": None, "where": None}
    clean = asdict(config.clean)
    for part, name in (
        (data, "within"),
        (clean, "where"),
    ):  # a key that is not used does not change the key of older runs
        if part[name] is None:
            del part[name]
    return key("table", fingerprint, data, clean, *(["unit"] if needs_length(config) else []))


def matrix_key(config: Config, table: str) -> str:
    """The key of a prepared matrix."""
    return key("matrix", table, config.scale, config.reduce, config.dtype, *(["unit"] if unit_rows(config) else []))


def map_key(config: Config, matrix: str) -> str:
    """The key of a map of a prepared matrix."""
    return key("map", matrix, config.map, config.seed)


def nbytes(thing: Any) -> int:
    """Bytes held by the arrays and frames of an object."""
    if hasattr(thing, "memory_usage"):
        return int(thing.memory_usage(index=True, deep=False).sum())
    if hasattr(thing, "nbytes"):
        return int(thing.nbytes)
    if isinstance(thing, tuple):
        return sum(map(nbytes, thing))
    if is_dataclass(thing) and not isinstance(thing, type):
        return sum(nbytes(getattr(thing, f.name)) for f in fields(thing))
    return 0


class ResultCache:
    """Least-recently-used results up to ``limit`` bytes (default: half of the memory now free).

    ``n_created`` counts how often each kind was created, so that a test can show that a sweep creates each once.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = psutil.virtual_memory().available // 2 if limit is None else limit
        self.n_created: Counter[str] = Counter()
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._seconds: dict[str, float] = {}

    def get_or_create(self, name: str, make: Callable[[], T]) -> T:
        """The cached result of that name, or the result of ``make``, which is then cached; the newest is never evicted."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name][0]
        began = time.perf_counter()
        thing = make()
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began
        self.n_created[name.partition("-")[0]] += 1
        self._kept[name] = (thing, nbytes(thing))
        self._evict(name)
        return thing

    def _evict(self, newest: str) -> None:
        """Drop the least recently used results that take memory until the others fit; what is on disk takes none."""
        for old in [kept for kept, (_, size) in self._kept.items() if size and kept != newest]:
            if sum(size for _, size in self._kept.values()) <= self.limit:
                return
            del self._kept[old]

    def pop_seconds(self, name: str) -> float:
        """Return and reset the seconds spent creating this entry, so that the cost is logged on one job only."""
        return self._seconds.pop(name, 0.0)
