"""Friend trees: columns of other files that join those of a file, row by row or by an identifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import InputError
from bayesunfold.io.expressions import piece_of
from bayesunfold.io.formats import Columns, EventFile, open_file
from bayesunfold.io.sources import FileSource
from bayesunfold.unfolding.matching import RowIndex

__all__ = ["open_source"]


def __dir__() -> list[str]:
    return __all__


def open_source(source: FileSource) -> EventFile:
    """A file with its friends; errors as of :func:`bayesunfold.io.read_columns`."""
    return _WithFriends(source) if source.friends else open_file(source.path, source.tree)


class _WithFriends(EventFile):
    """Columns of a file and of its friends; a name that several have is the file's own, else the first friend's."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        with ExitStack() as stack:
            self._file = stack.enter_context(open_file(source.path, source.tree))
            self._friends = [stack.enter_context(open_file(f.path, f.tree)) for f in source.friends]
            self._check()
            self._open = stack.pop_all()
        every = [name for file in (self._file, *self._friends) for name in file.names]
        self.names = list(dict.fromkeys(every))
        self.left_out = {k: v for file in (*self._friends[::-1], self._file) for k, v in file.left_out.items()}

    def close(self) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._file)

    def _check(self) -> None:
        """Rows that can be joined."""
        for friend, named in zip(self._friends, self._source.friends, strict=True):
            if not self._source.friend_key and not friend.lengths & self._file.lengths:
                raise InputError(_unequal(self._source, len(self._file), named, len(friend)))
            for column in self._source.friend_key:
                for file, place in ((self._file, self._source), (friend, named)):
                    if column not in file.names:
                        msg = f"{_name(place)} has no column {column!r}, which friend_key names."
                        raise InputError(msg)

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        owners = {name: self._owner(piece_of(name).column) for name in needed}
        own, *theirs = ([n for n, owner in owners.items() if owner is file] for file in (self._file, *self._friends))
        keys = list(self._source.friend_key) if any(theirs) else []
        wanted = list(dict.fromkeys([*own, *keys]))
        events = self._file.rows(wanted)
        tables = [
            _Table(friend, named, columns, self._source, events)
            for friend, named, columns in zip(self._friends, self._source.friends, theirs, strict=True)
            if columns
        ]
        start = 0
        for chunk in self._file.chunks(wanted) if wanted else [{}]:
            n = len(next(iter(chunk.values()))) if chunk else events
            joined = {name: chunk[name] for name in own}
            for table in tables:
                joined |= table.rows(slice(start, start + n), tuple(chunk[k] for k in keys), _name(self._source))
            start += n
            yield {name: joined[name] for name in needed}

    def _owner(self, column: str) -> EventFile:
        return next(file for file in (self._file, *self._friends) if column in file.names)


class _Table:
    """Columns of a friend, all rows; ``events`` are those of the file."""

    def __init__(
        self, friend: EventFile, named: FileSource, columns: Sequence[str], source: FileSource, events: int
    ) -> None:
        self.columns, self._named, self._key = list(columns), named, list(source.friend_key)
        needed = list(dict.fromkeys([*columns, *self._key]))
        rows = friend.rows(needed)
        if not self._key and rows != events and len(friend) != events:
            raise InputError(_unequal(source, events, named, rows))
        parts = list(friend.chunks(needed))
        self._values = {n: np.concatenate([part[n] for part in parts]) if parts else np.zeros(0) for n in needed}
        shapes = {name: np.shape(values) for name, values in self._values.items()}
        if set(shapes.values()) != {(rows if self._key else events,)}:
            msg = f"{_name(named)}: the columns have shapes {shapes}; each must hold one number per event."
            raise InputError(msg)
        self._index = RowIndex(tuple(self._values[k] for k in self._key), _name(named)) if self._key and rows else None

    def rows(self, rows: slice, key: tuple[NDArray[Any], ...], what: str) -> Columns:
        """Rows that belong to those of the file."""
        if not self._key or rows.stop == rows.start:
            return {name: self._values[name][rows] for name in self.columns}
        friend = _name(self._named)
        found = self._index.rows(key, what) if self._index else np.full(len(key[0]), -1)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            first = ", ".join(str(column[missing[0]]) for column in key)
            msg = (
                f"{len(missing)} of {len(found)} events of {what} are not in its friend {friend} (first: {first}); a "
                "friend needs a row for each."
            )
            raise InputError(msg)
        return {name: self._values[name][found] for name in self.columns}


def _unequal(source: FileSource, events: int, friend: FileSource, rows: int) -> str:
    return (
        f"{_name(source)} has {events} events and its friend {_name(friend)} has {rows}; friends without friend_key "
        'are joined row by row. Name the columns that identify an event, friend_key = ["run", "event"] for instance.'
    )


def _name(source: FileSource) -> str:
    return Path(str(source.path)).name + ("" if source.tree is None else f":{source.tree}")
