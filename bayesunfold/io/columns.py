"""Columns of events from ROOT, parquet, HDF5 and npz files: only those needed, in chunks, with a selection."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_exact
from bayesunfold._support.progress import Progress
from bayesunfold.errors import FileFormatError, InputError, InputTypeError
from bayesunfold.io.expressions import columns_of, evaluate, piece_of, single_column
from bayesunfold.io.formats import Columns, EventFile, first_reason
from bayesunfold.io.friends import open_source
from bayesunfold.io.sources import FileSource, Named, named_sources

__all__ = [
    "FileRead",
    "joined",
    "list_columns",
    "mixed_kinds",
    "needed_columns",
    "read_chunks",
    "read_columns",
    "read_files",
]

FACTOR, NUMBER = "file_factor", "file_number"
"""Columns that every file has in expressions: its factor, and its number in the order of reading, from zero."""

AS_KEY = (
    "Expressions are of real numbers. As an identifier the column is exact where it stands alone: as key or friend_key "
    "of a configuration, or, read by other means, in bayesunfold.match_levels."
)


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class FileRead:
    """What was read of a file.

    Attributes
    ----------
    source : FileSource
    events, kept : int
        In the file, and after the selection.
    used : int, optional
        Of the latter, those that have rows; all if None.
    """

    source: FileSource
    events: int
    kept: int
    used: int | None = None


def read_columns(
    path: Named,
    columns: Sequence[str],
    *,
    selection: str | None = None,
    tree: str | None = None,
    progressbar: bool = False,
) -> Columns:
    """Read expressions of columns.

    Parameters
    ----------
    path : path, address, pattern, table, or sequence of these
        ``.root`` (TTree or RNTuple; needs the extra ``root``), ``.parquet``, ``.h5``/``.hdf5`` or ``.npz``. Addresses
        (``root://``, ``https://``) are opened by uproot and fsspec, where the packages that they need are installed.
        Patterns are ``"sim_*.root"``; ``"sim.root:tree"`` names a tree; a table ``{"file": ..., "tree": ...,
        "factor": 0.3}`` gives the events of its files a factor. ``"friends": ["weights_*.root:tree"]`` in a table adds
        the columns of other files, one for each (in patterns, where the wildcards match the same), row by row or by the
        columns of ``"friend_key"``; a column that both have is the file's own. Files are read in the order given, those
        of a pattern by name.
    columns : sequence of str
        Columns, or expressions of them: ``"log(pt)"``, ``"jet_pt[0]"`` (first entry of a jagged column, NaN where
        there is none). ``file_factor`` and ``file_number`` are the factor of an event's file and its number, from
        zero: ``"w * file_factor"``.
    selection : str, optional
        Expression; only events where it is true are kept.
    tree : str, optional
        TTree, RNTuple or HDF5 group; the only one if omitted.
    progressbar : bool

    Returns
    -------
    dict of str to array, shape (n,)

    Raises
    ------
    FileNotFoundError
    FileFormatError
        If the file cannot be read.
    InputError
        For a missing column, with near names, columns of different lengths, a column that is a flag in one file and a
        number in another, a file that is named twice, and for a selection that is not boolean or keeps nothing.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "events.npz"
    >>> np.savez(path, pt=np.array([10.0, 30.0, 50.0]))
    >>> read_columns(path, ["pt / 10"], selection="pt > 20")
    {'pt / 10': array([3., 5.])}
    """
    return read_files(named_sources(path, tree), columns, selection=selection, progressbar=progressbar)[0]


def read_files(
    sources: Sequence[FileSource],
    columns: Sequence[str],
    *,
    selection: str | None = None,
    aliases: Mapping[str, str] | None = None,
    keys: Collection[str] = (),
    progressbar: bool = False,
) -> tuple[Columns, list[FileRead]]:
    """Columns of several files one after the other, and what was read of each; arguments as of :func:`read_columns`.

    ``aliases`` are expressions by the names under which others use them. ``keys`` are those of ``columns`` that
    identify events: one that is a column of whole numbers stays one, whatever its size.
    """
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        msg = f"columns is {columns!r}; give a list of columns or expressions, for instance ['pt']."
        raise InputTypeError(msg)
    every, log = [], []
    for number, source in enumerate(sources):
        found, read = _read_file(source, number, columns, selection, aliases or {}, keys, progressbar=progressbar)
        every.append(found)
        log.append(read)
    names = [str(source.path) for source in sources]
    out = {}
    for name in columns:
        parts = [found[name] for found in every]
        some = [(path, part) for path, part in zip(names, parts, strict=True) if len(part)]
        kinds = {str(path): part.dtype.kind == "b" for path, part in some}
        if len(set(kinds.values())) > 1:
            raise mixed_kinds(name, *(next(p for p, is_flag in kinds.items() if is_flag == k) for k in (True, False)))
        out[name] = joined([part for _, part in some], f"the column {name!r}") if some else parts[0]
    if out and len(next(iter(out.values()))) == 0:
        few = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
        have = "has" if len(names) == 1 else "have"
        msg = f"{few} {have} no events" + (f" that pass {selection!r}." if selection else ".")
        raise InputError(msg)
    return out, log


def joined(parts: Sequence[NDArray[Any]], what: str) -> NDArray[Any]:
    """Parts of a column, one after the other. Whole numbers with and without a sign stay exact.

    Raises
    ------
    InputError
        If they need another type that cannot hold them.

    Examples
    --------
    >>> joined([np.array([2**60], np.int64), np.array([2**60 + 1], np.uint64)], "event") - np.uint64(2**60)
    array([0, 1], dtype=uint64)
    """
    if {part.dtype.kind for part in parts} == {"i", "u"} and all(part.min(initial=0) >= 0 for part in parts):
        parts = [part.astype(np.uint64) for part in parts]
    out = np.concatenate(parts)
    if out.dtype.kind == "f":
        for part in parts:
            check_exact(part, what, "Write it with the same type in all files.")
    return out


def mixed_kinds(name: str, flag: str | Path, number: str | Path) -> InputError:
    """Of a column that is a flag in one file and a number in another."""
    return InputError(f"{name!r} is a flag in {flag} and a number in {number}; make it the same in all files.")


def _read_file(
    source: FileSource,
    number: int,
    columns: Sequence[str],
    selection: str | None,
    aliases: Mapping[str, str],
    keys: Collection[str],
    *,
    progressbar: bool,
) -> tuple[Columns, FileRead]:
    """Columns of one file."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in columns}
    events = kept = 0
    chunks = read_chunks(source, number, columns, selection, aliases, keys, progressbar=progressbar)
    for chunk, read, passed in chunks:
        for name, values in chunk.items():
            parts[name].append(values)
        events, kept = events + read, kept + passed
    out = {name: np.concatenate(found) if found else np.zeros(0) for name, found in parts.items()}
    return out, FileRead(source, events, kept)


def read_chunks(
    source: FileSource,
    number: int,
    columns: Sequence[str],
    selection: str | None,
    aliases: Mapping[str, str] | None = None,
    keys: Collection[str] = (),
    *,
    progressbar: bool = False,
) -> Iterator[tuple[Columns, int, int]]:
    """One chunk of a file after another: expressions of selected events, events read and events selected.

    Parameters
    ----------
    source : FileSource
    number : int
        Of the file, in the order of reading.
    columns : sequence of str
        As of :func:`read_columns`.
    selection : str, optional
    aliases : mapping of str to str, optional
        As of :func:`read_files`.
    keys : collection of str
        As of :func:`read_files`.
    progressbar : bool
    """
    path = source.path
    wanted = list(columns) + ([] if selection is None else [selection])
    aliases = aliases or {}
    every, used = needed_columns(wanted, aliases)
    whole = {key: column for key in keys if (column := _whole_column(key, aliases)) is not None}
    real, evaluated = needed_columns([expression for expression in wanted if expression not in whole], aliases)
    with open_source(source) as file:
        own = {name: v for name, v in ((FACTOR, source.factor), (NUMBER, number)) if name not in file.names}
        needed = [name for name in every if name not in own]
        _check_names(file, needed, path)
        both = [name for name in used if name in file.names]
        if both:
            msg = f"{both[0]!r} is an alias, and {path} has a column of that name; give the alias another name."
            raise InputError(msg)
        progress = Progress(max(len(file), 1), f"reading {Path(path).name}", show=progressbar)
        done = 0
        for chunk in _readable(file.chunks(needed) if needed else iter([{}]), path):
            n = _length(chunk, path) if chunk else len(file)
            if not n:  # an empty array says nothing about its column's type
                continue
            given = chunk | {name: np.full(n, float(value)) for name, value in own.items() if name in every}
            for name in real:
                check_exact(given[name], f"the column {name!r} of {path}", AS_KEY)
            for name in evaluated:
                given[name] = np.broadcast_to(evaluate(aliases[name], given), (n,))
            keep = slice(None) if selection is None else np.broadcast_to(_selected(selection, given), (n,))
            found = {}
            for expression in columns:
                if expression in whole and given[whole[expression]].dtype.kind in "iu":
                    value = given[whole[expression]]
                else:
                    value = np.asarray(evaluate(expression, given))
                found[expression] = np.broadcast_to(value, (n,))[keep]
            done += n
            progress.update(done)
            yield found, n, n if isinstance(keep, slice) else int(keep.sum())
        progress.close(f"{done} events")


def _whole_column(key: str, aliases: Mapping[str, str]) -> str | None:
    """The column that a key stands for, by aliases too; None if it is an expression of several or of more than it."""
    name = single_column(key)
    while name is not None and name in aliases:
        name = single_column(aliases[name])
    return name


def needed_columns(expressions: Sequence[str], aliases: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Columns that expressions need, and the aliases that they use, each after those that it uses itself.

    Raises
    ------
    InputError
        For an alias that uses itself.

    Examples
    --------
    >>> needed_columns(["pt > 20"], {"pt": "hypot(px, py)", "px": "jet_px / 1000"})
    (['jet_px', 'py'], ['px', 'pt'])
    """
    columns: list[str] = []
    used: list[str] = []

    def visit(expression: str, above: tuple[str, ...]) -> None:
        for name in columns_of(expression):
            if name in above:
                msg = f"the alias {name!r} uses itself: {' -> '.join([*above, name])}."
                raise InputError(msg)
            if name not in aliases:
                columns.append(name)
            elif name not in used:
                visit(aliases[name], (*above, name))
                used.append(name)

    for expression in expressions:
        visit(expression, ())
    return list(dict.fromkeys(columns)), used


def _readable(chunks: Iterator[Columns], path: str | Path) -> Iterator[Columns]:
    """Chunks of a file whose damaged pages are an error of this library."""
    while True:
        try:
            chunk = next(chunks, None)
        except (InputError, ImportError):
            raise
        except Exception as err:
            msg = f"{path} cannot be read to its end ({type(err).__name__}: {first_reason(err)}); it is damaged."
            raise FileFormatError(msg) from err
        if chunk is None:
            return
        yield chunk


def _length(chunk: Columns, path: str | Path) -> int:
    """Number of events in a chunk, the same for all columns."""
    shapes = {name: np.shape(values) for name, values in chunk.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        msg = f"{path}: the columns have shapes {shapes}; each must hold one number per event."
        raise InputError(msg)
    return int(next(iter(shapes.values()))[0])


def list_columns(path: Named, tree: str | None = None) -> list[str]:
    """Names of the columns of a file, or of those that all of several files have; paths as of :func:`read_columns`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp()) / "events.npz"
    >>> np.savez(path, pt=np.ones(3), m=np.zeros(3))
    >>> list_columns(path)
    ['pt', 'm']
    """
    names: list[str] | None = None
    for source in named_sources(path, tree):
        with open_source(source) as file:
            names = list(file.names) if names is None else [name for name in names if name in set(file.names)]
    return names or []


def _selected(selection: str, chunk: Columns) -> NDArray[np.bool_]:
    keep = evaluate(selection, chunk)
    if keep.dtype != bool:
        msg = f"selection {selection!r} gives {keep.dtype} values; it must be a comparison, for instance 'pt > 20'."
        raise InputError(msg)
    return keep


def _check_names(file: EventFile, needed: Sequence[str], path: str | Path) -> None:
    for name in needed:
        plain = piece_of(name).column
        if plain not in file.names:
            if plain in file.left_out:
                msg = f"{path}: {plain!r} is {file.left_out[plain]}."
                raise InputError(msg)
            near = difflib.get_close_matches(plain, file.names, n=3, cutoff=0.4) or list(file.names)[:10]
            msg = f"{path} has no column {plain!r}; near names: {', '.join(near)}."
            raise InputError(msg)
