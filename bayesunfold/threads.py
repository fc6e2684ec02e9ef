"""Threads over blocks of events.

Network arithmetic on blocks of some thousand events is too small for the threads of a BLAS library, which then cost
more than they give (measured: twice the time on two cores). So BLAS gets one thread, and blocks are shared among as
many threads as BLAS would have had: what limits BLAS (``OMP_NUM_THREADS``, threadpoolctl, a Dask worker of a coverage
study) limits these too.

Results are combined in the order of the blocks, so the number of threads changes no digit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

from threadpoolctl import threadpool_info, threadpool_limits

__all__ = ["block_threads", "map_blocks", "thread_count"]

_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("bayesunfold_block_threads", default=None)


class _OneBlasThread:
    """The limit on BLAS, shared by all threads that are inside it: the first sets it, the last lifts it."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._limit: threadpool_limits | None = None
        self._count = 1

    def __enter__(self) -> int:
        """Threads that BLAS had before."""
        with self._lock:
            if self._inside == 0:
                self._count = thread_count()
                self._limit = threadpool_limits(limits=1, user_api="blas")
            self._inside += 1
            return self._count

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._limit is not None:
                self._limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


def _start_thread() -> None:
    """Work inside a block stays in its own thread, and some BLAS libraries count threads for each caller."""
    _pool.set(None)
    threadpool_limits(limits=1, user_api="blas")


def __dir__() -> list[str]:
    return __all__


def thread_count() -> int:
    """Threads that BLAS may use now, at most one a core that this process may use."""
    blas = [int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas"]
    return max(1, min([*blas, _cores()])) if blas else _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def block_threads() -> Iterator[None]:
    """Give BLAS one thread, and :func:`map_blocks` the others; an outer ``block_threads`` is kept."""
    if _pool.get() is not None:
        yield
        return
    with _one_blas_thread as count:
        if count == 1:
            yield
            return
        pool = ThreadPoolExecutor(count, thread_name_prefix="bayesunfold", initializer=_start_thread)
        token = _pool.set(pool)
        try:
            yield
        finally:
            _pool.reset(token)
            pool.shutdown(wait=True, cancel_futures=True)


def map_blocks[Block, Out](function: Callable[[Block], Out], blocks: Iterable[Block]) -> Iterator[Out]:
    """``map(function, blocks)``, in parallel inside :func:`block_threads`; results come in the order of the blocks.

    Only a few blocks are under way at a time, so results do not pile up in memory.
    """
    pool = _pool.get()
    todo = iter(blocks)
    first = next(todo, None)
    if first is None:
        return
    second = next(todo, None)
    if pool is None or second is None:
        for block in (first, second):
            if block is not None:
                yield function(block)
        yield from map(function, todo)
        return
    ahead = 2 * int(pool._max_workers)
    running: deque[Future[Out]] = deque()
    try:
        for block in (first, second):
            running.append(pool.submit(function, block))
        for block in todo:
            if len(running) >= ahead:
                yield running.popleft().result()
            running.append(pool.submit(function, block))
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
