"""Columns of many files as memory maps: read once into a folder, block by block, and mapped from then on.

A folder holds one raw array per table (``gen``, ``reco``, ``weight``, ...) and ``manifest.json``, which says what was
asked for, what was read of each file, and how many rows are complete. A build that was interrupted goes on with the
file that it was reading; a file that has changed since is read again, with all that come after it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.files import atomic_write
from bayesunfold._support.progress import Progress
from bayesunfold.errors import InputError
from bayesunfold.io.columns import read_chunks
from bayesunfold.io.formats import open_file
from bayesunfold.io.sources import FileSource, is_address

__all__ = ["Table", "cached_tables", "clear_cache", "default_cache"]

MANIFEST, LOCK, SUFFIX = "manifest.json", "lock", ".bin"
FORMAT = "bayesunfold event cache 1"
EXACT = 2**24
"""Whole numbers up to this are exact in single precision."""

DOUBLE = 2**53
"""Larger numbers in double precision are whole without being counts."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Table:
    """Columns that are kept together.

    Attributes
    ----------
    columns : tuple of str
        Expressions.
    kind : str
        ``"f4"``, ``"f8"`` or ``"?"``.
    """

    columns: tuple[str, ...]
    kind: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return np.dtype(self.kind if self.kind == "?" else f"<{self.kind}")

    @property
    def row(self) -> int:
        """Bytes per event."""
        return self.dtype.itemsize * len(self.columns)


def default_cache() -> Path:
    """Where caches are made if no folder is given: ``$XDG_CACHE_HOME/bayesunfold``, or ``~/.cache/bayesunfold``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bayesunfold"


def cached_tables(
    sources: Sequence[FileSource],
    tables: Mapping[str, Table],
    selection: str | None,
    cache: Path,
    *,
    progressbar: bool,
) -> dict[str, NDArray[Any]]:
    """Read-only memory maps of tables, shape (n, columns) each; made if they are not in the cache.

    Parameters
    ----------
    sources : sequence of FileSource
    tables : mapping of name to Table
    selection : str, optional
    cache : Path
    progressbar : bool

    Raises
    ------
    InputError
        A folder that is too small, numbers that the type cannot hold, no event; and as :func:`read_columns`.
    OSError
        A disk that is full in the middle. What is complete stays, and the next call goes on with it.
    """
    request = {
        "format": FORMAT,
        "files": [[_name(s), s.tree, s.factor] for s in sources],
        "tables": {name: [list(t.columns), t.kind] for name, t in tables.items()},
        "selection": selection,
    }
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache / key
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, progressbar=progressbar):
        done = _done(folder, request, sources, tables)
        if len(done) < len(sources):
            _check_space(folder, sources[len(done) :], tables, selection)
            done = _build(folder, request, sources, tables, selection, done, progressbar=progressbar)
    rows = sum(int(entry["kept"]) for entry in done)
    if rows == 0:
        msg = f"{_few(sources)} no events" + (f" that pass {selection!r}." if selection else ".")
        raise InputError(msg)
    return {
        name: np.memmap(folder / (name + SUFFIX), t.dtype, mode="r", shape=(rows, len(t.columns)))
        for name, t in tables.items()
    }


def clear_cache(cache: str | Path | None = None) -> int:
    """Remove what :func:`bayesunfold.io.open_events` keeps in a folder, and nothing else; bytes that are free again.

    Parameters
    ----------
    cache : path, optional
        The folder that was given there; the default one if omitted.

    Examples
    --------
    >>> import tempfile
    >>> clear_cache(tempfile.mkdtemp())
    0
    """
    place, freed = default_cache() if cache is None else Path(cache), 0
    for manifest in sorted(place.glob(f"*/{MANIFEST}")):
        try:
            request = json.loads(manifest.read_text())["request"]
            own = [manifest.parent / (name + SUFFIX) for name in request["tables"]]
        except (ValueError, KeyError, TypeError):
            continue
        if request.get("format") != FORMAT:
            continue
        for path in (*own, manifest.parent / LOCK, manifest):
            if path.is_file():
                freed += path.stat().st_size
                path.unlink()
        if not any(manifest.parent.iterdir()):
            manifest.parent.rmdir()
    return freed


def _name(source: FileSource) -> str:
    return str(source.path) if is_address(source.path) else str(Path(source.path).resolve())


def _few(sources: Sequence[FileSource]) -> str:
    names = [Path(str(s.path)).name for s in sources]
    return ", ".join(names[:3]) + (" and others have" if len(names) > 3 else " has" if len(names) == 1 else " have")


@contextmanager
def _locked(folder: Path, *, progressbar: bool) -> Iterator[None]:
    """One process builds a cache at a time; the system lifts the lock of one that dies."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if progressbar:
                Progress(1, "events", show=True).close(f"waiting for another process that fills {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _state(source: FileSource) -> list[int] | None:
    """Size and time of change of a file; None for an address, whose contents are taken to stay."""
    if is_address(source.path):
        return None
    found = Path(source.path).stat()
    return [found.st_size, found.st_mtime_ns]


def _done(
    folder: Path, request: dict[str, Any], sources: Sequence[FileSource], tables: Mapping[str, Table]
) -> list[dict[str, Any]]:
    """Entries of the files that are complete and have not changed, from the first on."""
    try:
        found = json.loads((folder / MANIFEST).read_text())
        entries = found["files"] if found["request"] == request else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    done: list[dict[str, Any]] = []
    rows = 0
    for source, entry in zip(sources, entries, strict=False):
        rows += int(entry["kept"])
        sizes = [(folder / (name + SUFFIX), rows * table.row) for name, table in tables.items()]
        if entry["state"] != _state(source) or not all(p.exists() and p.stat().st_size >= size for p, size in sizes):
            break
        done.append(entry)
    return done


def _check_space(
    folder: Path, sources: Sequence[FileSource], tables: Mapping[str, Table], selection: str | None
) -> None:
    """Room for all events, where no selection leaves some out."""
    if selection is not None:
        return
    events = 0
    for source in sources:
        with open_file(source.path, source.tree) as file:
            events += len(file)
    needed, free = events * sum(t.row for t in tables.values()), shutil.disk_usage(folder).free
    if needed > free:
        msg = (
            f"the cache needs {needed / 1e9:.3g} GB and {folder} has {free / 1e9:.3g} GB left; name another folder "
            "with cache=, select events, or remove what is no longer needed with bayesunfold.io.clear_cache()."
        )
        raise InputError(msg)


def _build(
    folder: Path,
    request: dict[str, Any],
    sources: Sequence[FileSource],
    tables: Mapping[str, Table],
    selection: str | None,
    done: list[dict[str, Any]],
    *,
    progressbar: bool,
) -> list[dict[str, Any]]:
    """Append what is missing, file after file."""
    rows = sum(int(entry["kept"]) for entry in done)
    for number in range(len(done), len(sources)):
        source = sources[number]
        state = _state(source)  # before reading: a file that changes meanwhile is read again next time
        events = kept = 0
        try:
            with _appending(folder, tables, rows) as files:
                for chunk, read, passed in read_chunks(
                    source, number, _expressions(tables), selection, progressbar=progressbar
                ):
                    for name, table in tables.items():
                        files[name].write(_rows(chunk, table, source, passed).tobytes())
                    events, kept = events + read, kept + passed
        except OSError as err:
            if err.errno != errno.ENOSPC:
                raise
            msg = (
                f"no space left in {folder}; {rows} events of {number} files are kept there. Make room, or name "
                "another folder with cache=, and call again."
            )
            raise OSError(errno.ENOSPC, msg) from err
        rows += kept
        done = [*done, {"state": state, "events": events, "kept": kept}]
        text = json.dumps({"request": request, "files": done}, indent=1)
        atomic_write(folder / MANIFEST, partial(Path.write_text, data=text))
    return done


def _expressions(tables: Mapping[str, Table]) -> list[str]:
    return list(dict.fromkeys(column for table in tables.values() for column in table.columns))


@contextmanager
def _appending(folder: Path, tables: Mapping[str, Table], rows: int) -> Iterator[dict[str, BinaryIO]]:
    """Files of the tables, cut to complete rows and open at their ends."""
    files: dict[str, BinaryIO] = {}
    try:
        for name, table in tables.items():
            path = folder / (name + SUFFIX)
            path.touch()
            files[name] = path.open("r+b")
            files[name].truncate(rows * table.row)
            files[name].seek(0, os.SEEK_END)
        yield files
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    finally:
        for file in files.values():
            file.close()


def _rows(chunk: Mapping[str, NDArray[Any]], table: Table, source: FileSource, n: int) -> NDArray[Any]:
    """Events of a chunk as rows of a table."""
    out = np.empty((n, len(table.columns)), table.dtype)
    for k, column in enumerate(table.columns):
        values = chunk[column]
        _check_values(values, column, table, source)
        with np.errstate(over="ignore"):
            out[:, k] = values
        if table.kind == "f4" and not np.array_equal(np.isinf(out[:, k]), np.isinf(values)):
            msg = (
                f"{column!r} of {source.path} reaches {np.abs(values[np.isfinite(values)]).max():.3g}, which single "
                'precision cannot hold; change its unit, or pass dtype="float64".'
            )
            raise InputError(msg)
    return out


def _check_values(values: NDArray[Any], column: str, table: Table, source: FileSource) -> None:
    """Numbers, or flags, that the table's type can hold."""
    wanted = "b" if table.kind == "?" else "fiub"
    if values.dtype.kind not in wanted:
        what = "a flag, for instance 'pt > 20'" if table.kind == "?" else "a number per event"
        msg = f"{column!r} of {source.path} has type {values.dtype}; it must be {what}."
        raise InputError(msg)
    if table.kind != "f4":
        return
    finite = values[np.isfinite(values)]
    largest = np.abs(finite).max(initial=0.0)
    if EXACT < largest < DOUBLE and np.array_equal(finite, np.round(finite)):
        msg = (
            f"{column!r} of {source.path} holds whole numbers up to {largest:.0f}; above {EXACT} neighbouring ones are "
            'no longer distinct in single precision. Subtract an offset, or pass dtype="float64".'
        )
        raise InputError(msg)
