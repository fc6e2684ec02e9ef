"""Columns of events from ROOT, parquet, HDF5 and npz files: only those needed, in chunks, with a selection."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.progress import Progress
from bayesunfold.errors import FileFormatError, InputError, InputTypeError
from bayesunfold.io.expressions import INDEXED, columns_of, evaluate
from bayesunfold.io.sources import FileSource, Named, is_address, named_sources

__all__ = ["FileRead", "list_columns", "list_trees", "read_columns", "read_files"]

Columns = dict[str, NDArray[Any]]

CHUNK = 200_000
"""Events read at a time."""

FACTOR, NUMBER = "file_factor", "file_number"
"""Columns that every file has in expressions: its factor, and its number in the order of reading, from zero."""


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
    """

    source: FileSource
    events: int
    kept: int


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
        "factor": 0.3}`` gives the events of its files a factor. Files are read in the order given, those of a pattern
        by name.
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
    progressbar: bool = False,
) -> tuple[Columns, list[FileRead]]:
    """Columns of several files one after the other, and what was read of each; arguments as of :func:`read_columns`."""
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        msg = f"columns is {columns!r}; give a list of columns or expressions, for instance ['pt']."
        raise InputTypeError(msg)
    every, log = [], []
    for number, source in enumerate(sources):
        found, read = _read_file(source, number, columns, selection, progressbar=progressbar)
        every.append(found)
        log.append(read)
    names = [str(source.path) for source in sources]
    out = {}
    for name in columns:
        kinds = {str(path): found[name].dtype.kind == "b" for path, found in zip(names, every, strict=True)}
        if len(set(kinds.values())) > 1:
            flag, number_in = (next(path for path, is_flag in kinds.items() if is_flag == k) for k in (True, False))
            msg = f"{name!r} is a flag in {flag} and a number in {number_in}; make it the same in all files."
            raise InputError(msg)
        out[name] = np.concatenate([found[name] for found in every])
    if out and len(next(iter(out.values()))) == 0:
        few = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
        have = "has" if len(names) == 1 else "have"
        msg = f"{few} {have} no events" + (f" that pass {selection!r}." if selection else ".")
        raise InputError(msg)
    return out, log


def _read_file(
    source: FileSource, number: int, columns: Sequence[str], selection: str | None, *, progressbar: bool
) -> tuple[Columns, FileRead]:
    """Columns of one file."""
    path = source.path
    wanted = list(columns) + ([] if selection is None else [selection])
    every = list(dict.fromkeys(name for expression in wanted for name in columns_of(expression)))
    with _open(path, source.tree) as file:
        own = {name: v for name, v in ((FACTOR, source.factor), (NUMBER, number)) if name not in file.names}
        needed = [name for name in every if name not in own]
        _check_names(file, needed, path)
        progress = Progress(max(len(file), 1), f"reading {Path(path).name}", show=progressbar)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in columns}
        done = 0
        for chunk in _readable(file.chunks(needed), path):
            n = _length(chunk, path) if chunk else len(file)
            given = chunk | {name: np.full(n, float(value)) for name, value in own.items() if name in every}
            keep = slice(None) if selection is None else np.broadcast_to(_selected(selection, given), (n,))
            for expression in columns:
                value = np.asarray(evaluate(expression, given))
                parts[expression].append(np.broadcast_to(value, (n,))[keep])
            done += n
            progress.update(done)
        progress.close(f"{done} events")
    out = {name: np.concatenate(found) if found else np.zeros(0) for name, found in parts.items()}
    kept = len(next(iter(out.values()))) if out else done
    return out, FileRead(source, done, kept)


def _readable(chunks: Iterator[Columns], path: str | Path) -> Iterator[Columns]:
    """Chunks of a file whose damaged pages are an error of this library."""
    while True:
        try:
            chunk = next(chunks, None)
        except (InputError, ImportError):
            raise
        except Exception as err:
            msg = f"{path} cannot be read to its end ({type(err).__name__}: {_line(err)}); it is damaged."
            raise FileFormatError(msg) from err
        if chunk is None:
            return
        yield chunk


def _line(err: Exception) -> str:
    return (str(err).strip().splitlines() or ["no reason given"])[0][:200]


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
        with _open(source.path, source.tree) as file:
            names = list(file.names) if names is None else [name for name in names if name in set(file.names)]
    return names or []


def list_trees(path: str | Path) -> list[str]:
    """Trees and ntuples of a ROOT file, groups of an HDF5 file; none of others.

    Raises
    ------
    FileNotFoundError, FileFormatError
        As for :func:`read_columns`.
    """
    suffix = Path(path).suffix
    if not is_address(path) and not Path(path).exists():
        msg = f"{path} does not exist."
        raise FileNotFoundError(msg)
    try:
        if suffix == ".root":
            import uproot

            with uproot.open(path) as file:
                return _trees(file)
        if suffix in (".h5", ".hdf5"):
            import h5py

            with h5py.File(path, "r") as file:
                return [name for name in file if isinstance(file.get(name), h5py.Group)]
    except ImportError:
        raise
    except Exception as err:
        msg = f"{path} cannot be read ({type(err).__name__}: {_line(err)}); it is damaged or something else."
        raise FileFormatError(msg) from err
    return []


def _trees(file: Any) -> list[str]:
    """Names of what holds events in an open ROOT file."""
    kinds = file.classnames(cycle=False)
    return [k for k, v in kinds.items() if v == "TTree" or "RNTuple" in v]


def _selected(selection: str, chunk: Columns) -> NDArray[np.bool_]:
    keep = evaluate(selection, chunk)
    if keep.dtype != bool:
        msg = f"selection {selection!r} gives {keep.dtype} values; it must be a comparison, for instance 'pt > 20'."
        raise InputError(msg)
    return keep


def _check_names(file: _File, needed: Sequence[str], path: str | Path) -> None:
    for name in needed:
        match = INDEXED.match(name)
        plain = match["name"] if match else name
        if plain not in file.names:
            if plain in file.left_out:
                msg = f"{path}: {plain!r} is {file.left_out[plain]}."
                raise InputError(msg)
            near = difflib.get_close_matches(plain, file.names, n=3, cutoff=0.4) or list(file.names)[:10]
            msg = f"{path} has no column {plain!r}; near names: {', '.join(near)}."
            raise InputError(msg)


class _File:
    """What every format gives: names, length, and chunks of columns."""

    names: Sequence[str]
    left_out: Mapping[str, str] = {}
    """What looks like a column and is none, with the reason."""

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""

    def __len__(self) -> int:
        raise NotImplementedError

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        """Columns of one block of events after another; ``name[k]`` is the k-th entry of a jagged one."""
        raise NotImplementedError


def _open(path: str | Path, tree: str | None) -> _File:
    place = Path(path)
    kinds: dict[str, Any] = {".root": _Root, ".parquet": _Parquet, ".h5": _HDF5, ".hdf5": _HDF5, ".npz": _Npz}
    if not is_address(path) and not place.exists():
        msg = f"{path} does not exist."
        raise FileNotFoundError(msg)
    if place.suffix not in kinds:
        msg = f"{place.name} ends with {place.suffix!r}; readable are {', '.join(kinds)}."
        raise InputError(msg)
    if tree is not None and not isinstance(tree, str):
        msg = f"tree is {tree!r}; give the name of a tree or group."
        raise InputTypeError(msg)
    try:
        if not is_address(path):
            return kinds[place.suffix](place, tree)
        return kinds[place.suffix](path if place.suffix == ".root" else _remote(str(path)), tree)
    except InputError:
        raise
    except ImportError as err:
        if not is_address(path):
            raise
        msg = f"{path} is an address; reading it needs another package ({_line(err)}). Install it, or copy the file."
        raise ImportError(msg) from err
    except Exception as err:
        reason = f"{type(err).__name__}: {_line(err)}"
        if is_address(path):
            msg = f"{path} cannot be opened ({reason}); check the address, or copy the file."
            raise FileFormatError(msg) from err
        msg = f"{path} cannot be read ({reason}); it is damaged or something else."
        raise FileFormatError(msg) from err


def _remote(address: str) -> Any:
    """A file of another machine, through fsspec."""
    try:
        import fsspec
    except ImportError:
        msg = "fsspec, with the package for its protocol"
        raise ImportError(msg) from None
    return fsspec.open(address, "rb").open()


def _pick(entries: NDArray[Any], index: int) -> NDArray[Any]:
    """Entry ``index`` of every row of a two-dimensional array."""
    if entries.ndim != 2:
        msg = f"an index [{index}] needs a column with several entries an event; this one has shape {entries.shape}."
        raise InputError(msg)
    return entries[:, index] if index < entries.shape[1] else np.full(len(entries), np.nan)


def _jagged(name: str) -> str:
    return f"the column {name!r} has several entries an event; pick one of them, {name}[0] for instance."


def _flat(name: str, index: str) -> str:
    return f"the column {name!r} has one number per event; write {name} instead of {name}[{index}]."


class _Parquet(_File):
    def __init__(self, path: Any, _tree: str | None) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, page_checksum_verification=True)
        self.names = self._file.schema_arrow.names

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        import pyarrow.compute as pc

        plain = list(dict.fromkeys(_plain(name) for name in needed))
        for batch in self._file.iter_batches(CHUNK, columns=plain):
            chunk: Columns = {}
            for name in needed:
                column = batch.column(_plain(name))
                match = INDEXED.match(name)
                if match and "list" not in str(column.type):
                    raise InputError(_flat(_plain(name), match["index"]))
                if match:
                    index = int(match["index"])
                    long = pc.greater(pc.fill_null(pc.list_value_length(column), 0), index)
                    values = np.full(len(column), np.nan)
                    rows = long.to_numpy(zero_copy_only=False)
                    values[rows] = pc.list_element(column.filter(long), index).to_numpy(zero_copy_only=False)
                    chunk[name] = values
                elif "list" in str(column.type):
                    raise InputError(_jagged(name))
                else:
                    chunk[name] = column.to_numpy(zero_copy_only=False)
            yield chunk


def _plain(name: str) -> str:
    match = INDEXED.match(name)
    return match["name"] if match else name


class _Npz(_File):
    def __init__(self, path: Any, _tree: str | None) -> None:
        if not zipfile.is_zipfile(path):
            msg = "no zip archive"
            raise ValueError(msg)
        self._file = np.load(path, allow_pickle=False)
        self.names = list(self._file.files)
        self._length = 0
        if self.names:
            first = self._file[self.names[0]]
            self._length = len(first) if first.ndim else 1

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        chunk: Columns = {}
        for name in needed:
            match = INDEXED.match(name)
            chunk[name] = _pick(self._file[match["name"]], int(match["index"])) if match else self._file[name]
        yield chunk


class _HDF5(_File):
    def __init__(self, path: Any, tree: str | None) -> None:
        import h5py

        self._file = h5py.File(path, "r")
        group = self._file if tree is None else self._file.get(tree)
        if group is None:
            msg = f"{path} has no group {tree!r}; there are {', '.join(self._file) or 'none'}."
            raise InputError(msg)
        self._group: Any = group
        self._table = isinstance(group, h5py.Dataset)
        if self._table:
            if group.dtype.names is None:
                msg = f"{tree!r} of {path} is an array without named columns; name a group, or a table."
                raise InputError(msg)
            self.names = list(group.dtype.names)
        else:
            self.names, self.left_out = _datasets(group)

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        if self._table:
            return len(self._group)
        return len(self._group[self.names[0]]) if self.names else 0

    def _rows(self, needed: Sequence[str]) -> int:
        """Events in the columns asked for, which must be as many in each."""
        if self._table or not needed:
            return len(self)
        lengths = {name: len(self._group[_plain(name)]) for name in needed}
        if len(set(lengths.values())) > 1:
            msg = f"the columns have different lengths: {lengths}."
            raise InputError(msg)
        return next(iter(lengths.values()))

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        for start in range(0, self._rows(needed), CHUNK):
            rows = slice(start, start + CHUNK)
            chunk: Columns = {}
            for name in needed:
                match = INDEXED.match(name)
                plain = _plain(name)
                values = np.asarray(self._group[rows][plain] if self._table else self._group[plain][rows])
                chunk[name] = _pick(values, int(match["index"])) if match else values
            yield chunk


def _datasets(group: Any) -> tuple[list[str], dict[str, str]]:
    """Columns of an HDF5 group, and what is none: dangling links, links to other files, single numbers."""
    import h5py

    names, left_out = [], {}
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            left_out[name] = f"a link to another file, which is not followed; name {link.filename} instead"
            continue
        found = group.get(name)
        if found is None:
            left_out[name] = "a link to nothing"
        elif isinstance(found, h5py.Dataset):
            if found.shape:
                names.append(name)
            else:
                left_out[name] = "a single number"
    return names, left_out


class _Root(_File):
    def __init__(self, path: Any, tree: str | None) -> None:
        try:
            import uproot
        except ImportError:
            msg = "reading ROOT files needs uproot; install bayesunfold[root]."
            raise ImportError(msg) from None
        self._file = uproot.open(path)
        trees = _trees(self._file)
        if not trees:
            msg = f"{path} holds no tree; name a file with events."
            raise InputError(msg)
        if tree is None and len(trees) != 1:
            msg = f"{path} holds the trees {trees}; say which with tree=."
            raise InputError(msg)
        name = trees[0] if tree is None else tree
        if name not in trees:
            msg = f"{path} has no tree {name!r}; there are {', '.join(trees)}."
            raise InputError(msg)
        self._tree = self._file[name]
        self.names = list(self._tree.keys())

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._tree.num_entries)

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        import awkward as ak

        plain = list(dict.fromkeys(_plain(name) for name in needed))
        for start in range(0, len(self), CHUNK):
            arrays = self._tree.arrays(plain, entry_start=start, entry_stop=start + CHUNK)
            chunk: Columns = {}
            for name in needed:
                match = INDEXED.match(name)
                column = arrays[_plain(name)]
                if match and column.ndim == 1:
                    raise InputError(_flat(_plain(name), match["index"]))
                if match:
                    index = int(match["index"])
                    padded = ak.pad_none(column, index + 1, axis=1)[:, index]
                    chunk[name] = ak.to_numpy(ak.fill_none(ak.values_astype(padded, np.float64), np.nan))
                elif column.ndim != 1:
                    raise InputError(_jagged(name))
                else:
                    chunk[name] = ak.to_numpy(column)
            yield chunk
