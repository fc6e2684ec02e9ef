"""Columns of many files as memory maps: read once into a folder, block by block, and mapped from then on.

A folder holds one raw array per table (``gen``, ``reco``, ``weight``, ...) and ``manifest.json``, which says what was
asked for, what was read of each file, and how many rows are complete. A build that was interrupted goes on with the
file that it was reading. If a file has changed since, it and all that come after it are read again, into new arrays:
maps of the old ones stay what they were until they are closed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.files import atomic_write
from bayesunfold._support.progress import Progress
from bayesunfold.errors import InputError
from bayesunfold.io.columns import FileRead, mixed_kinds, needed_columns, read_chunks
from bayesunfold.io.friends import open_source
from bayesunfold.io.precision import Ranges, check_whole_numbers
from bayesunfold.io.sources import FileSource, is_address

__all__ = ["Table", "cached_tables", "clear_cache", "default_cache"]

MANIFEST, LOCK, SUFFIX = "manifest.json", "lock", ".bin"
FORMAT = "bayesunfold event cache 1"


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
    aliases: Mapping[str, str] | None = None,
    used: str | None = None,
    progressbar: bool,
) -> tuple[dict[str, NDArray[Any]], list[FileRead]]:
    """Read-only memory maps of tables, shape (n, columns) each, and what they hold of each file; made if need be.

    Parameters
    ----------
    sources : sequence of FileSource
    tables : mapping of name to Table
    selection : str, optional
    cache : Path
    aliases : mapping of str to str, optional
        As of :func:`bayesunfold.io.columns.read_files`.
    used : str, optional
        Expression; only selected events where it is true have rows, and the others are counted as kept.
    progressbar : bool

    Raises
    ------
    InputError
        A folder that is too small, numbers that the type cannot hold, no event; and as :func:`read_columns`.
    OSError
        A disk that is full in the middle. What is complete stays, and the next call goes on with it.
    """
    request: dict[str, Any] = {
        "format": FORMAT,
        "files": [_request(s) for s in sources],
        "tables": {name: [list(t.columns), t.kind] for name, t in tables.items()},
        "selection": selection,
    }
    wanted = [*_expressions(tables), *(e for e in (selection, used) if e is not None)]
    aliases = {name: (aliases or {})[name] for name in needed_columns(wanted, aliases or {})[1]}
    request |= {"aliases": aliases} if aliases else {}
    request |= {"used": used} if used is not None else {}
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache / key
    found = _Contents.of(folder, request, sources, tables)
    if not found.complete(sources):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, progressbar=progressbar):
            found = _Contents.of(folder, request, sources, tables)  # another process may have finished meanwhile
            if not found.complete(sources):
                found = found.renewed(tables)
                if selection is None and used is None:  # else nobody knows how many events are left
                    _check_space(found, sources, tables, cache)
                found = _build(found, sources, tables, selection, aliases, used, progressbar=progressbar)
    if found.rows == 0:
        msg = f"{_few(sources)} no events" + (f" that pass {selection!r}." if selection else ".")
        raise InputError(msg)
    maps: dict[str, NDArray[Any]] = {
        name: np.memmap(found.path(name), t.dtype, mode="r", shape=(found.rows, len(t.columns)))
        for name, t in tables.items()
    }
    read = [
        FileRead(s, int(e["events"]), int(e.get("selected", e["kept"])), int(e["kept"]))
        for s, e in zip(sources, found.files, strict=True)
    ]
    return maps, read


@dataclass(frozen=True)
class _Contents:
    """What a folder holds.

    Attributes
    ----------
    folder : Path
    request : dict
    generation : str
        Part of the names of the arrays.
    files : tuple of dict
        What was read of each file, those that are complete and have not changed.
    stale : bool
        Whether the arrays hold rows of files that have changed, or fewer rows than they should.
    """

    folder: Path
    request: dict[str, Any]
    generation: str
    files: tuple[dict[str, Any], ...] = ()
    stale: bool = True

    @classmethod
    def of(
        cls, folder: Path, request: dict[str, Any], sources: Sequence[FileSource], tables: Mapping[str, Table]
    ) -> _Contents:
        """Of a folder that may not exist."""
        try:
            kept = json.loads((folder / MANIFEST).read_text())
            entries, generation = kept["files"], str(kept["generation"])
            if kept["request"] != request:
                entries = []
        except (OSError, ValueError, KeyError, TypeError):
            return cls(folder, request, "")
        found = cls(folder, request, generation, stale=False)
        for source, entry in zip(sources, entries, strict=False):
            longer = replace(found, files=(*found.files, entry))
            held = all(longer.bytes_of(name) >= longer.rows * table.row for name, table in tables.items())
            if entry["state"] != _state(source) or not held:
                return replace(found, stale=True)
            found = longer
        return found

    @property
    def rows(self) -> int:
        """Events of the complete files."""
        return sum(int(entry["kept"]) for entry in self.files)

    def complete(self, sources: Sequence[FileSource]) -> bool:
        """Whether nothing is left to read."""
        return not self.stale and len(self.files) == len(sources)

    def path(self, table: str) -> Path:
        """The array of a table."""
        return self.folder / f"{table}.{self.generation}{SUFFIX}"

    def bytes_of(self, table: str) -> int:
        """Size of an array, zero if there is none."""
        return self.path(table).stat().st_size if self.path(table).exists() else 0

    def renewed(self, tables: Mapping[str, Table]) -> _Contents:
        """Arrays that can be appended to: these ones, or new ones with the rows that still hold.

        The manifest says so before anything is written, so that no later call takes half of the old for new.
        """
        if not self.stale:
            return self
        new = replace(self, generation=uuid.uuid4().hex[:8], files=(), stale=False)
        new.write()
        for name, table in tables.items():
            new.path(name).touch()
            if self.rows:
                _copy_start(self.path(name), new.path(name), self.rows * table.row)
        if self.rows:
            new = replace(new, files=self.files)
            new.write()
        for old in self.folder.glob(f"*{SUFFIX}"):
            table_name, _, rest = old.name.partition(".")
            if table_name in tables and rest != f"{new.generation}{SUFFIX}":
                with suppress(OSError):  # a system that does not remove what is mapped; clear_cache() will
                    old.unlink()
        return new

    def write(self) -> None:
        """Put it into the manifest."""
        content = {"request": self.request, "generation": self.generation, "files": list(self.files)}
        atomic_write(self.folder / MANIFEST, partial(Path.write_text, data=json.dumps(content, indent=1)))


def _copy_start(old: Path, new: Path, size: int) -> None:
    """The first bytes of a file."""
    with old.open("rb") as source, new.open("wb") as target:
        while size > 0:
            part = source.read(min(size, 2**24))
            target.write(part)
            size -= len(part)


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
            tables = tuple(request["tables"])
        except (ValueError, KeyError, TypeError):
            continue
        if request.get("format") != FORMAT:
            continue
        with _locked(manifest.parent, progressbar=False, wait=False) as free:
            if not free:
                continue
            arrays = [p for p in manifest.parent.glob(f"*{SUFFIX}") if p.name.partition(".")[0] in tables]
            for path in (*arrays, manifest):
                freed += path.stat().st_size
                path.unlink()
        (manifest.parent / LOCK).unlink(missing_ok=True)
        if not any(manifest.parent.iterdir()):
            manifest.parent.rmdir()
    return freed


def _name(source: FileSource) -> str:
    return str(source.path) if is_address(source.path) else str(Path(source.path).resolve())


def _request(source: FileSource) -> list[Any]:
    """What was asked for of a file; with its friends, if it has any."""
    own: list[Any] = [_name(source), source.tree, source.factor]
    friends = [[_name(friend), friend.tree] for friend in source.friends]
    return [*own, friends, list(source.friend_key)] if friends else own


def _few(sources: Sequence[FileSource]) -> str:
    names = [Path(str(s.path)).name for s in sources]
    return ", ".join(names[:3]) + (" and others have" if len(names) > 3 else " has" if len(names) == 1 else " have")


@contextmanager
def _locked(folder: Path, *, progressbar: bool, wait: bool = True) -> Iterator[bool]:
    """One process writes a cache at a time; whether this one does. The system lifts the lock of one that dies.

    Where there are no such locks, of the system or of the file system, everybody does.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            if progressbar:
                Progress(1, "events", show=True).close(f"waiting for another process that fills {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield True


def _state(source: FileSource) -> list[Any] | None:
    """Size and times of change of a file and its friends; None for an address, whose contents are taken to stay.

    Copies may keep the time of change of the contents; that of the file's own record is always the system's.
    """
    friends = [_state(friend) for friend in source.friends]
    if is_address(source.path):
        return friends or None
    found = Path(source.path).stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, *friends]


def _check_space(
    found: _Contents,
    sources: Sequence[FileSource],
    tables: Mapping[str, Table],
    cache: Path,
) -> None:
    """Room for all events."""
    events = 0
    for source in sources[len(found.files) :]:
        with open_source(source) as file:
            events += len(file)
    over = sum(found.bytes_of(name) - found.rows * table.row for name, table in tables.items())  # of a broken build
    needed, free = events * sum(t.row for t in tables.values()), shutil.disk_usage(found.folder).free + max(over, 0)
    if needed > free:
        msg = (
            f"the cache needs {needed / 1e9:.3g} GB and {found.folder} has {free / 1e9:.3g} GB left; name another "
            f"folder with cache=, select events, or remove old caches with bayesunfold.io.clear_cache({str(cache)!r})."
        )
        raise InputError(msg)


def _build(
    found: _Contents,
    sources: Sequence[FileSource],
    tables: Mapping[str, Table],
    selection: str | None,
    aliases: Mapping[str, str],
    used: str | None,
    *,
    progressbar: bool,
) -> _Contents:
    """Append what is missing, file after file."""
    found.write()
    single = sorted({column for table in tables.values() if table.kind == "f4" for column in table.columns})
    ranges = Ranges(found.files[-1].get("ranges", {}) if found.files else {})
    for number in range(len(found.files), len(sources)):
        source = sources[number]
        state = _state(source)  # before reading: a file that changes meanwhile is read again next time
        events = selected = kept = 0
        expressions, flags = _expressions(tables), set[str]()
        given = expressions if used is None or used in expressions else [*expressions, used]
        try:
            with _appending(found, tables) as files:
                for chunk, read, passed in read_chunks(
                    source, number, given, selection, aliases, progressbar=progressbar
                ):
                    part, n = chunk, passed
                    if used is not None:
                        part, n = {c: v[chunk[used]] for c, v in chunk.items()}, int(np.count_nonzero(chunk[used]))
                    for name, table in tables.items():
                        files[name].write(_rows(part, table, source, n).tobytes())
                    flags |= {column for column in expressions if part[column].dtype.kind == "b"}
                    ranges.add({column: part[column] for column in single})
                    events, selected, kept = events + read, selected + passed, kept + n
        except OSError as err:
            if err.errno != errno.ENOSPC:
                raise
            msg = (
                f"no space left in {found.folder}; {found.rows} events of {number} files are kept there. Make room, or "
                "name another folder with cache=, and call again."
            )
            raise OSError(errno.ENOSPC, msg) from err
        if events:
            _check_flags(found, sources, source, flags)
        if number == len(sources) - 1:
            ranges.check()
        entry: dict[str, Any] = {"state": state, "events": events, "selected": selected, "kept": kept}
        entry |= {"flags": sorted(flags), "ranges": dict(ranges.found)}  # ranges of this file and all before it
        found = replace(found, files=(*found.files, entry))
        found.write()
    return found


def _check_flags(found: _Contents, sources: Sequence[FileSource], source: FileSource, flags: set[str]) -> None:
    """A column is a flag in all files with events, or in none: those before are like the last of them."""
    known = [(s, entry) for s, entry in zip(sources, found.files, strict=False) if entry["events"]]
    if not known:
        return
    earlier, entry = known[-1]
    different = flags ^ set(entry.get("flags", flags))
    if different:
        name = min(different)
        pair = (source, earlier) if name in flags else (earlier, source)
        raise mixed_kinds(name, *(file.path for file in pair))


def _expressions(tables: Mapping[str, Table]) -> list[str]:
    return list(dict.fromkeys(column for table in tables.values() for column in table.columns))


@contextmanager
def _appending(found: _Contents, tables: Mapping[str, Table]) -> Iterator[dict[str, BinaryIO]]:
    """Files of the tables, cut to complete rows and open at their ends."""
    files: dict[str, BinaryIO] = {}
    try:
        for name, table in tables.items():
            found.path(name).touch()
            files[name] = found.path(name).open("r+b")
            files[name].truncate(found.rows * table.row)
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
    if table.kind == "f4" and values.dtype.kind != "b":
        check_whole_numbers(values, column, source.path)
