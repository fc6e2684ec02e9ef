"""Threads over blocks of events.

Network arithmetic on blocks of some thousand events is too small for the threads of a BLAS library, which then cost
more than they give. So BLAS gets one thread, and blocks are shared among as
many threads as BLAS would have had: what limits BLAS (``OMP_NUM_THREADS``, threadpoolctl, a Dask worker of a coverage
study) limits these too.

Results are combined in the order of the blocks, so the number of threads changes no digit.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = [
    "accelerator",
    "block_threads",
    "map_blocks",
    "map_here",
    "one_blas_thread",
    "one_thread",
    "remote",
    "row_blocks",
    "thread_count",
    "trees_on_one_thread",
]

_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("bayesunfold_block_threads", default=None)
_alone: ContextVar[bool] = ContextVar("bayesunfold_one_block_thread", default=False)
"""Whether the limit on BLAS stands and there is no other thread to share blocks with."""

remote: ContextVar[Callable[..., Iterator[Any]] | None] = ContextVar("bayesunfold_remote", default=None)
"""Maps a function over blocks on other machines, inside :func:`bayesunfold._support.cluster.cluster`."""

accelerator: ContextVar[Any] = ContextVar("bayesunfold_accelerator", default=None)
"""What computes sums over events instead of NumPy, inside :func:`bayesunfold.classifier.backend.on_backend`."""


class _OneBlasThread:
    """The limit on BLAS, shared by all threads that are inside it: the first sets it, the last lifts it.

    Some BLAS libraries have one number of threads for the process, others one for each calling thread; the latter are
    limited in every thread that comes in. threadpoolctl lets only one thread of the process change the former, so the
    limit is taken over from whichever thread had set one.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._shared: list[tuple[Any, int]] = []
        self._count = 1

    @contextmanager
    def __call__(self) -> Iterator[int]:
        """Limit BLAS; gives the number of threads that it had."""
        controller = _controller()
        libraries = controller.select(user_api="blas").lib_controllers
        own = [(library, _threads_of(library)) for library in libraries if _for_each_thread(library)]
        with self._lock:
            if self._inside == 0:
                self._count = _allowed(controller.info())
                self._shared = [(lib, _threads_of(lib)) for lib in libraries if not _for_each_thread(lib)]
                _set_threads([(library, 1) for library, _ in self._shared])
            self._inside += 1
        _set_threads([(library, 1) for library, _ in own])
        try:
            yield self._count
        finally:
            _set_threads(own)
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    _set_threads(self._shared)


def _controller() -> ThreadpoolController:
    """Of the libraries that set threads; all of the process are looked through again only after more imports."""
    return _looked_for(len(sys.modules))


@lru_cache(maxsize=1)
def _looked_for(n_modules: int) -> ThreadpoolController:  # noqa: ARG001
    return ThreadpoolController()


def _threads_of(library: Any) -> int:
    return int(library.num_threads or 1)


def _for_each_thread(library: Any) -> bool:
    """Whether the library's number of threads belongs to the thread that calls it."""
    return getattr(library, "threading_layer", None) == "openmp"


def _set_threads(limits: list[tuple[Any, int]]) -> None:
    for library, count in limits:
        release = getattr(library, "clear_controlling_thread", None)
        if release is not None:
            release(force=True)
        library.set_num_threads(count)
        if release is not None:
            release(force=True)


one_blas_thread = _OneBlasThread()


def _start_thread() -> None:
    """Work inside a block stays in its own thread, and some BLAS libraries count threads for each caller."""
    _pool.set(None)
    libraries = _controller().select(user_api="blas").lib_controllers
    _set_threads([(library, 1) for library in libraries if _for_each_thread(library)])


def __dir__() -> list[str]:
    return __all__


def trees_on_one_thread() -> AbstractContextManager[Any]:
    """One OpenMP thread inside, for boosted trees.

    Their threads wait for one another thousands of times per tree: one core that is busy with something else makes a
    fit of a second take minutes.
    """
    return _controller().limit(limits=1, user_api="openmp")


def one_thread() -> AbstractContextManager[Any]:
    """One thread of every kind inside, for work that runs beside more of its kind."""
    return _controller().limit(limits=1)


def thread_count() -> int:
    """Threads that BLAS may use now, at most one a core that this process may use."""
    return _allowed(_controller().info())


def _allowed(libraries: list[dict[str, Any]]) -> int:
    blas = [int(library["num_threads"]) for library in libraries if library["user_api"] == "blas"]
    return max(1, min([*blas, _cores()])) if blas else _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def block_threads() -> Iterator[None]:
    """Give BLAS one thread, and :func:`map_blocks` the others; an outer ``block_threads`` is kept."""
    if _pool.get() is not None or _alone.get():
        yield
        return
    with one_blas_thread() as count:
        if count == 1:
            mark = _alone.set(True)
            try:
                yield
            finally:
                _alone.reset(mark)
            return
        pool = ThreadPoolExecutor(count, thread_name_prefix="bayesunfold", initializer=_start_thread)
        token = _pool.set(pool)
        try:
            yield
        finally:
            _pool.reset(token)
            pool.shutdown(wait=True, cancel_futures=True)


def row_blocks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover ``range(n)`` in order, ``size`` rows at a time."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def map_blocks[Block, Out](function: Callable[[Block], Out], blocks: Iterable[Block]) -> Iterator[Out]:
    """``map(function, blocks)``, in parallel inside :func:`block_threads`; results come in the order of the blocks.

    Inside :func:`bayesunfold._support.cluster.cluster` on its workers. The function must give what it finds, not write
    it anywhere, and its results be smaller than what it reads; :func:`map_here` is for others.
    """
    elsewhere = remote.get()
    if elsewhere is None:
        return map_here(function, blocks)
    every = list(blocks)
    return elsewhere(function, every) if len(every) > 1 else map_here(function, every)


def _with_accelerator[Block, Out](device: Any, function: Callable[[Block], Out], block: Block) -> Out:
    """A block in a thread of the pool, which computes where its caller does."""
    accelerator.set(device)
    return function(block)


def map_here[Block, Out](function: Callable[[Block], Out], blocks: Iterable[Block]) -> Iterator[Out]:
    """As :func:`map_blocks`, on this machine.

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
    function = partial(_with_accelerator, accelerator.get(), function)
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
