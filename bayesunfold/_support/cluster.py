"""Blocks of events on the workers of a Dask cluster, where threads would share them otherwise.

Everything that is expensive is a sum over blocks of events of a function of a few small arrays
(:func:`bayesunfold._support.threads.map_blocks`). Inside :func:`cluster` the function goes to the workers and the
results of the blocks come back, in their order: the same numbers are added in the same order as on one machine, so the
number of workers changes no digit.

Arrays of events lie as files in a folder that all machines see. Each is written once, and a worker maps the rows of its
own blocks. So a worker that dies loses nothing: its blocks run elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import pickle
import shutil
import sys
import tempfile
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from bayesunfold._support.threads import map_here, one_blas_thread, remote
from bayesunfold.errors import ClusterError, InputError, InputTypeError

__all__ = ["check_client", "cluster", "on_client"]

LARGE = 65_536
"""Bytes from which on an array is a file."""

WORTHWHILE = 0.05
"""Seconds that each thread of the workers would need, below which blocks stay here: sending them takes as long."""

LONG, CHUNKS = 0.5, 4
"""Seconds from which on each thread gets its blocks in several parts, and how many: for workers of unequal speed."""

LOOK = 5.0
"""Seconds after which a worker that has not answered is looked after."""

PATIENCE = 120.0
"""Seconds without a worker after which a run gives up."""

FOREIGN = ("distributed", "dask", "concurrent", "asyncio", "tornado")
"""Packages whose errors are those of the cluster, not of what it computes."""

MALLOC = {-1: ("MALLOC_TRIM_THRESHOLD_", 2**17), -3: ("MALLOC_MMAP_THRESHOLD_", 2**17)}
"""glibc's numbers of the settings that say when memory goes back to the system, their variables and defaults."""

FUNCTIONS = 16
"""Most functions that a worker keeps."""


def __dir__() -> list[str]:
    return __all__


@contextmanager
def cluster(client: Any, scratch: str | Path | None = None) -> Iterator[None]:
    """Let the workers of a Dask cluster share the sums over events of all that is called inside.

    Fits, spectra and the bias go over the workers; the loop itself, its checkpoints and the arrays stay here. Results
    are those of one machine, digit by digit on equal processors. Short sums stay here. A worker that dies is made up
    for by the others, or by one that joins.

    Parameters
    ----------
    client : dask.distributed.Client
        Its workers need the same versions of Python, NumPy and this library, one core per thread.
    scratch : path, optional
        A folder that all machines see under the same name, for about as many bytes as the events have in memory. What
        is written there goes away at the end. This machine's folder for temporary files if omitted, which suits a
        cluster on one machine.

    Raises
    ------
    InputError, InputTypeError
        No worker, other versions there, a folder that they do not see, something that is no client.
    ClusterError
        Later: a scheduler that went away, or no worker for two minutes. Checkpoints are kept.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> from dask.distributed import Client, LocalCluster  # doctest: +SKIP
    >>> client = Client(LocalCluster(n_workers=4, threads_per_worker=1))  # doctest: +SKIP
    >>> with bu.cluster(client, scratch="/shared/scratch"):  # doctest: +SKIP
    ...     result = bu.OmniFold(5, random_seed=1).fit(simulation, data, checkpoint="run.npz")
    ...     spectrum = result.spectrum("pt", bins)
    """
    check_client(client)
    place = Path(tempfile.gettempdir() if scratch is None else scratch)
    if not place.is_dir():
        msg = f"scratch is {str(place)!r}, which is no folder; name one that all machines see."
        raise InputError(msg)
    folder = place.resolve() / f"bayesunfold-{uuid.uuid4().hex}"
    folder.mkdir()
    spool = _Spool(folder)
    try:
        _check_workers(client, folder)
        token = remote.set(_Remote(client, spool))
        try:
            yield
        finally:
            remote.reset(token)
    finally:
        spool.close()
        if getattr(client, "status", None) == "running":
            with contextlib.suppress(Exception):  # it may go away now
                client.run(_forget, str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def on_client(client: Any) -> contextlib.AbstractContextManager[None]:
    """:func:`cluster` of a client, or nothing for None."""
    return nullcontext() if client is None else cluster(client)


def check_client(client: Any) -> None:
    """Raise :class:`~bayesunfold.errors.InputTypeError` for what is no Dask client."""
    if not all(hasattr(client, name) for name in ("scatter", "submit", "cancel")):
        msg = f"client is {client!r}; pass a dask.distributed.Client, for instance Client('tcp://10.0.0.1:8786')."
        raise InputTypeError(msg)


@cache
def _versions() -> dict[str, str]:
    python = ".".join(map(str, sys.version_info[:2]))
    return {"Python": python} | {name: version(name) for name in ("bayesunfold", "numpy")}


def _forget(folder: str) -> None:
    """On a worker: let go of what a folder holds."""
    _loaded.forget(Path(folder))


def _state_of_worker(folder: str) -> tuple[dict[str, str], bool]:
    return _versions(), Path(folder).is_dir()


def _check_workers(client: Any, folder: Path) -> None:
    """Workers of the same versions that see the folder."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE / 4)
        found = client.run(_state_of_worker, str(folder))
    except TimeoutError:
        msg = f"the cluster of {client!r} has no worker; start one, or wait for the batch system."
        raise InputError(msg) from None
    except Exception as err:
        msg = (
            f"the workers of {client!r} cannot answer ({type(err).__name__}: {err}); they need this version of "
            "bayesunfold."
        )
        raise InputError(msg) from err
    own = _versions()
    for worker, (versions, seen) in found.items():
        for name, value in own.items():
            if versions[name] != value:
                msg = f"the worker {worker} has {name} {versions[name]} and this process {value}; install the same."
                raise InputError(msg)
        if not seen:
            msg = (
                f"the worker {worker} does not see {folder.parent}; name a folder that all machines share: "
                "bayesunfold.cluster(client, scratch=...)."
            )
            raise InputError(msg)


class _Spool:
    """Files of what workers need: arrays and objects that are written once, and functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tokens: dict[int, tuple[Any, ...]] = {}
        self._frozen: list[weakref.ref[np.ndarray]] = []
        self._finalizers: list[Any] = []

    def dump(self, function: Callable[..., Any]) -> str:
        """Write a function; its name."""
        name = uuid.uuid4().hex
        self._write(name, self._pickled(function))
        return name

    def drop(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)

    def token(self, thing: Any) -> tuple[Any, ...]:
        """What stands for an array or object; its file is written when it is first asked for."""
        if id(thing) not in self._tokens:
            name = uuid.uuid4().hex
            if isinstance(thing, np.ndarray):
                token = self._array(name, thing)
            else:
                self._write(name, self._pickled(thing, top=thing))
                token = ("object", name)
            self._tokens[id(thing)] = token
            self._finalizers.append(weakref.finalize(thing, self._forget, id(thing), name))
        return self._tokens[id(thing)]

    def close(self) -> None:
        """Arrays may be written to again."""
        for finalizer in self._finalizers:
            finalizer.detach()
        arrays = [array for array in (ref() for ref in self._frozen) if array is not None]
        for array in sorted(arrays, key=_depth):  # a view only after what it is a view of
            with contextlib.suppress(ValueError):  # the caller has made what it is a view of read-only
                array.flags.writeable = True

    def _array(self, name: str, array: np.ndarray) -> tuple[Any, ...]:
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        with self._new(name) as path:
            np.ascontiguousarray(array.T if fortran else array).tofile(path)
        if array.flags.writeable:  # workers would not see a change
            array.flags.writeable = False
            self._frozen.append(weakref.ref(array))
        return "array", name, array.dtype.str, array.shape, fortran

    def _pickled(self, thing: Any, top: Any = None) -> bytes:
        file = io.BytesIO()
        _pickler(file, self, top).dump(thing)
        return file.getvalue()

    def _write(self, name: str, content: bytes) -> None:
        with self._new(name) as path:
            path.write_bytes(content)

    @contextmanager
    def _new(self, name: str) -> Iterator[Path]:
        """A file that appears when it is complete."""
        temporary = self.folder / f"{name}.new"
        try:
            yield temporary
            temporary.replace(self.folder / name)
        except OSError as err:
            msg = f"{self.folder} cannot be written ({err}); name another folder with scratch=."
            raise ClusterError(msg) from err

    def _forget(self, key: int, name: str) -> None:
        self._tokens.pop(key, None)
        self.drop(name)


def _depth(array: np.ndarray) -> int:
    """How many arrays an array is a view of."""
    return 0 if not isinstance(array.base, np.ndarray) else 1 + _depth(array.base)


def _pickler(file: io.BytesIO, spool: _Spool, top: Any) -> Any:
    """A pickler of closures that leaves large arrays, and objects that workers keep, to the spool."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def persistent_id(self, thing: Any) -> tuple[Any, ...] | None:
            if type(thing) in (np.ndarray, np.memmap) and thing.nbytes >= LARGE and thing.dtype.kind in "biufcSU":
                return spool.token(thing)
            if thing is not top and getattr(type(thing), "workers_keep", False):
                return spool.token(thing)
            return None

    return Pickler(file)


@dataclass
class _Sent:
    """Blocks of which a function was sent, and to whom."""

    name: str
    blocks: list[Any]
    worker: str
    future: Any = None

    def cancel(self) -> None:
        """Unless it is done."""
        if self.future is not None and not self.future.done():
            with contextlib.suppress(Exception):
                self.future.cancel()


class _Remote:
    """Runs functions of blocks on the workers."""

    def __init__(self, client: Any, spool: _Spool) -> None:
        self.client, self.spool = client, spool
        self._seen, self._workers = 0.0, dict[str, int]()

    def __call__[Block, Out](self, function: Callable[[Block], Out], blocks: Sequence[Block]) -> Iterator[Out]:
        """Results in the order of the blocks."""
        start = time.perf_counter()
        first = function(blocks[0])
        left = (time.perf_counter() - start) * (len(blocks) - 1)
        yield first
        workers = self._threads()
        each = left / max(1, sum(workers.values()))
        if not workers or each < WORTHWHILE:
            yield from map_here(function, blocks[1:])
        else:
            yield from self._sent(function, blocks[1:], workers, CHUNKS if each > LONG else 1)

    def _sent[Block, Out](
        self, function: Callable[[Block], Out], blocks: Sequence[Block], workers: dict[str, int], chunks: int
    ) -> Iterator[Out]:
        places = [name for name, threads in sorted(workers.items()) for _ in range(threads)]
        count = min(len(blocks), chunks * len(places))
        ends = np.linspace(0, len(blocks), count + 1).astype(int)
        name = self.spool.dump(function)
        parts = []
        try:
            for k, (begin, end) in enumerate(itertools.pairwise(ends)):
                here = places[k * len(places) // count]  # the same rows go to the same worker in every sum
                parts.append(_Sent(name, list(blocks[begin:end]), here))
                parts[-1].future = self._submit(parts[-1])
            for part in parts:
                results = self._result(part)
                part.future = None  # the worker need not keep them
                yield from results
        finally:
            for part in parts:
                part.cancel()
            self.spool.drop(name)

    def _submit(self, part: _Sent) -> Any:
        try:
            return self.client.submit(
                run_blocks,
                str(self.spool.folder),
                part.name,
                part.blocks,
                _versions(),
                workers=[part.worker],
                allow_other_workers=True,
                pure=False,
            )
        except Exception as err:
            raise _lost(err) from err

    def _result(self, part: _Sent) -> list[Any]:
        """Of one part; waits for workers as long as there is hope."""
        alone = time.monotonic()
        while True:
            try:
                return part.future.result(timeout=LOOK)
            except TimeoutError as err:
                if part.future.status == "error":  # of the worker's own, a slow file system for instance
                    raise
                if self.client.status != "running":
                    raise _lost(err) from None
                workers = self._threads()
                if workers:
                    alone = time.monotonic()
                elif time.monotonic() - alone > PATIENCE:
                    msg = f"no worker is left for {PATIENCE:.0f} s; start some, and call again: checkpoints are kept."
                    raise ClusterError(msg) from None
                if workers and part.worker not in workers:  # Dask forgets such parts if no worker was there for a time
                    part.cancel()
                    part.worker = min(workers)
                    part.future = self._submit(part)
            except Exception as err:
                if type(err).__module__.partition(".")[0] in FOREIGN:
                    raise _lost(err) from err
                raise

    def _threads(self) -> dict[str, int]:
        """Threads of each worker, as of the last seconds."""
        if time.monotonic() - self._seen > 2.0:
            try:
                self._workers = dict(self.client.nthreads())
            except Exception as err:
                raise _lost(err) from err
            self._seen = time.monotonic()
        return self._workers


def _lost(err: Exception) -> ClusterError:
    msg = (
        f"the cluster is lost ({type(err).__name__}: {err}); start it again and call again: a run with checkpoint= "
        "goes on from its last iteration."
    )
    return ClusterError(msg)


class _Loaded:
    """What a worker keeps of the spool: arrays and objects whose files are there, and the last functions."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[Path, Any] = {}
        self._functions: OrderedDict[Path, Any] = OrderedDict()

    def get(self, folder: Path, token: tuple[Any, ...]) -> Any:
        """An array or object."""
        kind, name = token[:2]
        with self._lock:
            if folder / name in self._kept:
                return self._kept[folder / name]
        found = _mapped(folder / name, *token[2:]) if kind == "array" else self.load(folder, name)
        with self._lock:
            return self._kept.setdefault(folder / name, found)

    def function(self, folder: Path, name: str) -> Any:
        """A function; arrays whose files are gone, since the caller has dropped them, are let go first."""
        with self._lock:
            if folder / name in self._functions:
                return self._functions[folder / name]
            there = set(folder.iterdir())  # one look at a shared folder
            self._kept = {p: v for p, v in self._kept.items() if p.parent != folder or p in there}
        found = self.load(folder, name)
        with self._lock:
            self._functions[folder / name] = found
            while len(self._functions) > FUNCTIONS:
                self._functions.popitem(last=False)
            return found

    def forget(self, folder: Path) -> None:
        """Let go of all that a folder holds."""
        with self._lock:
            self._kept = {p: v for p, v in self._kept.items() if p.parent != folder}
            self._functions = OrderedDict((p, v) for p, v in self._functions.items() if p.parent != folder)

    def load(self, folder: Path, name: str) -> Any:
        """A function or object from its file."""
        return _Unpickler(io.BytesIO(_waited(folder / name).read_bytes()), folder, self).load()


class _Unpickler(pickle.Unpickler):
    """Of what :func:`_pickler` wrote."""

    def __init__(self, file: io.BytesIO, folder: Path, loaded: _Loaded) -> None:
        super().__init__(file)
        self._folder, self._loaded = folder, loaded

    def persistent_load(self, token: tuple[Any, ...]) -> Any:
        return self._loaded.get(self._folder, token)


_loaded = _Loaded()


def _waited(path: Path) -> Path:
    """A file that a slow file system may show late."""
    end = time.monotonic() + 60.0
    while not path.exists():
        if time.monotonic() > end:
            msg = f"{path} is not there; do all machines share that folder?"
            raise ClusterError(msg)
        time.sleep(0.05)
    return path


def _mapped(path: Path, dtype: str, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
    mapped = np.memmap(_waited(path), dtype, "r", shape=shape[::-1] if fortran else shape)
    array = mapped.view(np.ndarray)
    return array.T if fortran else array


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Let the C library keep what blocks allocate and free.

    Dask makes its workers give every array back to the system at once, and the pages of the next one are new: blocks
    then take four times as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    for option in MALLOC:
        mallopt(option, 2**25)
    try:
        yield
    finally:
        for option, (name, default) in MALLOC.items():
            mallopt(option, int(os.environ.get(name, default)))


def run_blocks(folder: str, name: str, blocks: Sequence[Any], versions: dict[str, str]) -> list[Any]:
    """On a worker: a function of each of some blocks."""
    own = _versions()
    if own != versions:
        msg = f"a worker has {own}, and the client {versions}; install the same."
        raise ClusterError(msg)
    function = _loaded.function(Path(folder), name)
    with one_blas_thread(), _memory_kept():
        return [function(block) for block in blocks]
