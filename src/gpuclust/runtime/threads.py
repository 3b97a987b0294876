"""Spread kernels that release the interpreter's lock over threads: far quicker to compile than numba's parallel loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache

from numba import get_num_threads, set_num_threads

PARTS_PER_THREAD = 4
FEW_ROWS = 10_000


@contextmanager
def one_thread_for_few(n_rows: int) -> Iterator[None]:
    """A context in which libraries that were imported before compute in one thread where they have fewer than `FEW_ROWS` rows: an iteration of
    so few takes less time than to wake other threads, much less where other processes use the cores."""
    if n_rows >= FEW_ROWS:
        yield
        return
    from threadpoolctl import threadpool_limits

    before = get_num_threads()
    set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        set_num_threads(before)


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="gpuclust")


def in_threads(
    n_items: int,
    run: Callable[[int, int], None],
    *,
    n_parts: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Call ``run(first, last)`` on parts of range(n_items), on as many threads as numba may use (`numba.set_num_threads`).

    There are ``n_parts`` contiguous parts, by default a few for each thread; a thread takes the next one when it is free,
    and the calling thread works too. ``progress`` is called in the calling thread with the number of items done. After an
    exception no further part starts, and the exception is raised once the running parts have ended.
    """
    n_threads = min(get_num_threads(), n_items)
    if n_threads <= 1 and progress is None:
        run(0, n_items)
        return
    n_parts = min(n_items, n_parts or PARTS_PER_THREAD * n_threads)
    parts = iter([(part * n_items // n_parts, (part + 1) * n_items // n_parts) for part in range(n_parts)])
    done: list[int] = []

    def work(report: Callable[[int], None] | None = None) -> None:
        for first, last in parts:
            run(first, last)
            done.append(last - first)
            if report is not None:
                report(sum(done))

    others = [_pool(n_threads).submit(work) for _ in range(1, n_threads)]
    try:
        work(progress)
    except BaseException:
        list(parts)  # nothing is left to take
        wait([other for other in others if not other.cancel()])
        raise
    for other in others:
        if not other.cancel():  # a thread that has not begun finds no part left
            other.result()
    if progress is not None:
        progress(n_items)
