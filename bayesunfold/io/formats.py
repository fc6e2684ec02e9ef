"""Files of events: ROOT, parquet, HDF5 and npz behind one door, which gives chunks of columns."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import FileFormatError, InputError, InputTypeError
from bayesunfold.io.expressions import Piece, piece_of
from bayesunfold.io.sources import is_address

__all__ = ["Columns", "EventFile", "first_reason", "list_trees", "open_file"]

Columns = dict[str, NDArray[Any]]

CHUNK = 200_000
"""Events read at a time."""


def __dir__() -> list[str]:
    return __all__


def first_reason(err: Exception) -> str:
    """First line of what an error says."""
    return (str(err).strip().splitlines() or ["no reason given"])[0][:200]


class EventFile:
    """What every format gives: names, length, and chunks of columns."""

    names: Sequence[str]
    left_out: Mapping[str, str] = {}
    """What looks like a column and is none, with the reason."""

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""

    def __len__(self) -> int:
        raise NotImplementedError

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        """Columns of one block of events after another; names as of :func:`bayesunfold.io.expressions.piece_of`."""
        raise NotImplementedError


def open_file(path: str | Path, tree: str | None) -> EventFile:
    """A file or address, opened by its ending; errors as of :func:`bayesunfold.io.read_columns`."""
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
        reason = first_reason(err)
        msg = f"{path} is an address; reading it needs another package ({reason}). Install it, or copy the file."
        raise ImportError(msg) from err
    except Exception as err:
        reason = f"{type(err).__name__}: {first_reason(err)}"
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


def _of_rows(entries: NDArray[Any], name: str) -> NDArray[Any]:
    """One number for every row of a two-dimensional array, where NaN fills short rows."""
    piece = piece_of(name)
    if piece.plain:
        return entries
    if entries.ndim != 2:
        msg = f"{name!r} needs a column with several entries per event; this one has shape {entries.shape}."
        raise InputError(msg)
    if piece.index is not None and piece.index >= 0:
        return entries[:, piece.index] if piece.index < entries.shape[1] else np.full(len(entries), np.nan)
    there = ~np.isnan(entries) if entries.dtype.kind == "f" else np.ones(entries.shape, dtype=bool)
    rows, columns = np.nonzero(there)
    return _reduced(piece, entries[rows, columns].astype(np.float64), there.sum(axis=1))


def _reduced(piece: Piece, flat: NDArray[np.floating], lengths: NDArray[np.integer]) -> NDArray[np.floating]:
    """One number for every event of its entries, which stand one after the other; NaN where there is none."""
    start, n = np.cumsum(lengths) - lengths, len(lengths)
    if piece.index is not None:
        place = lengths - 1 if piece.index == -1 else np.full(n, piece.index)
        out, there = np.full(n, np.nan), (place >= 0) & (place < lengths)
        out[there] = flat[(start + place)[there]]
        return out
    if piece.function == "len":
        return lengths.astype(np.float64)
    filled = lengths > 0
    out = np.full(n, 0.0 if piece.function == "sum" else np.nan)
    if filled.any():
        ufunc = {"sum": np.add, "min": np.minimum, "max": np.maximum}[str(piece.function)]
        out[filled] = ufunc.reduceat(flat, start[filled])
    return out


def _several(name: str) -> str:
    return (
        f"the column {name!r} has several entries an event; pick one of them, {name}[0] for instance, or take "
        f"len({name}), sum({name}), min({name}) or max({name})."
    )


def _flat(name: str, plain: str) -> str:
    return f"the column {plain!r} has one number per event; write {plain} instead of {name}."


class _Parquet(EventFile):
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
                piece = piece_of(name)
                column = batch.column(piece.column)
                if not piece.plain and "list" not in str(column.type):
                    raise InputError(_flat(name, piece.column))
                if not piece.plain:
                    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
                    flat = pc.list_flatten(column).to_numpy(zero_copy_only=False).astype(np.float64)
                    chunk[name] = _reduced(piece, flat, lengths)
                elif "list" in str(column.type):
                    raise InputError(_several(name))
                else:
                    chunk[name] = column.to_numpy(zero_copy_only=False)
            yield chunk


def _plain(name: str) -> str:
    return piece_of(name).column


class _Npz(EventFile):
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
            chunk[name] = _of_rows(self._file[_plain(name)], name)
        yield chunk


class _HDF5(EventFile):
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
                plain = _plain(name)
                values = np.asarray(self._group[rows][plain] if self._table else self._group[plain][rows])
                chunk[name] = _of_rows(values, name)
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


class _Root(EventFile):
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
                piece = piece_of(name)
                column = arrays[piece.column]
                if not piece.plain and column.ndim == 1:
                    raise InputError(_flat(name, piece.column))
                if not piece.plain:
                    flat = ak.to_numpy(ak.values_astype(ak.flatten(column, axis=1), np.float64))
                    chunk[name] = _reduced(piece, flat, ak.to_numpy(ak.num(column, axis=1)))
                elif column.ndim != 1:
                    raise InputError(_several(name))
                else:
                    chunk[name] = ak.to_numpy(column)
            yield chunk


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
        msg = f"{path} cannot be read ({type(err).__name__}: {first_reason(err)}); it is damaged or something else."
        raise FileFormatError(msg) from err
    return []


def _trees(file: Any) -> list[str]:
    """Names of what holds events in an open ROOT file."""
    kinds = file.classnames(cycle=False)
    return [k for k, v in kinds.items() if v == "TTree" or "RNTuple" in v]
