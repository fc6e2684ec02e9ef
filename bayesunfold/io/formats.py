"""Files of events: ROOT, parquet, HDF5 and npz behind one door, which gives chunks of columns."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_exact
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

    @property
    def lengths(self) -> set[int]:
        """Rows of its columns; one number, but of files of separate arrays."""
        return {len(self)}

    def rows(self, _needed: Sequence[str]) -> int:
        """Events in the columns asked for."""
        return len(self)

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
    return _reduced(piece, entries[rows, columns], there.sum(axis=1))


def _numbers(values: NDArray[Any], column: str) -> NDArray[np.floating]:
    """Double precision, which must hold whole numbers exactly; NaN where a masked array has none."""
    check_exact(values.compressed() if isinstance(values, np.ma.MaskedArray) else values, f"the column {column!r}")
    return np.ma.filled(values.astype(np.float64), np.nan)


def _filled(values: NDArray[Any], column: str) -> NDArray[Any]:
    """One value for every event, where numbers may be missing, flags and texts not."""
    missing = int(np.ma.count_masked(values))
    if not missing:
        return np.ma.getdata(values)
    if values.dtype.kind not in "iuf":
        what = "a flag" if values.dtype.kind == "b" else f"of type {values.dtype}"
        msg = (
            f"the column {column!r} is {what} and has no value in {missing} events; only numbers can be missing. Write "
            "it as a number, or give these events a value."
        )
        raise InputError(msg)
    return _numbers(values, column)


def _reduced(piece: Piece, flat: NDArray[Any], lengths: NDArray[np.integer]) -> NDArray[np.floating]:
    """One number for every event of its entries, which stand one after the other; NaN where there is none."""
    if piece.function == "len":
        return lengths.astype(np.float64)
    flat, start, n = _numbers(flat, piece.column), np.cumsum(lengths) - lengths, len(lengths)
    if piece.index is not None:
        place = lengths - 1 if piece.index == -1 else np.full(n, piece.index)
        out, there = np.full(n, np.nan), (place >= 0) & (place < lengths)
        out[there] = flat[(start + place)[there]]
        return out
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


def _no_numbers(column: str, kind: Any) -> str:
    return f"the entries of the column {column!r} have type {kind}; an event's entries must be numbers in one list."


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
                    chunk[name] = _reduced(piece, _of_arrow(_entries(column, piece.column)), lengths)
                elif "list" in str(column.type):
                    raise InputError(_several(name))
                else:
                    chunk[name] = _filled(_of_arrow(column), name)
            yield chunk


def _entries(column: Any, name: str) -> Any:
    """Entries of all events, which must be numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, known = column.type.value_type, pa.types
    numbers = known.is_integer, known.is_floating, known.is_boolean, known.is_decimal, known.is_null
    if not any(is_number(kind) for is_number in numbers):
        raise InputError(_no_numbers(name, kind))
    return pc.list_flatten(column)


def _of_arrow(column: Any) -> NDArray[Any]:
    """An array, masked where there are nulls."""
    if not column.null_count:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    known = column.drop_null().to_numpy(zero_copy_only=False)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    out = np.ma.masked_all(len(column), known.dtype)
    out[there] = known
    return out


def _plain(name: str) -> str:
    return piece_of(name).column


class _Arrays(EventFile):
    """Separate arrays, which may be of different lengths: what is no event's stands beside the events."""

    sizes: Mapping[str, int]

    def __len__(self) -> int:
        """Of most of them."""
        return Counter(self.sizes.values()).most_common(1)[0][0] if self.sizes else 0

    @property
    def lengths(self) -> set[int]:
        return set(self.sizes.values())

    def rows(self, needed: Sequence[str]) -> int:
        lengths = {name: self.sizes.get(_plain(name), 1) for name in needed}
        if len(set(lengths.values())) > 1:
            msg = f"the columns have different lengths: {lengths}."
            raise InputError(msg)
        return next(iter(lengths.values()), len(self))


class _Npz(_Arrays):
    def __init__(self, path: Any, _tree: str | None) -> None:
        if not zipfile.is_zipfile(path):
            msg = "no zip archive"
            raise ValueError(msg)
        self._file = np.load(path, allow_pickle=False)
        self.names = list(self._file.files)
        shapes = {name: _shape(self._file, name) for name in self.names}
        self.sizes = {name: shape[0] for name, shape in shapes.items() if shape}

    def close(self) -> None:
        self._file.close()

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        chunk: Columns = {}
        for name in needed:
            chunk[name] = _of_rows(self._file[_plain(name)], name)
        yield chunk


def _shape(archive: Any, name: str) -> tuple[int, ...]:
    """Of an array, by its header."""
    if f"{name}.npy" in archive.zip.namelist():
        with archive.zip.open(f"{name}.npy") as member:
            major, _ = np.lib.format.read_magic(member)
            headers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            if major in headers:
                return headers[major](member)[0]
    return np.shape(archive[name])


class _HDF5(_Arrays):
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
            self.sizes = dict.fromkeys(group.dtype.names, len(group))
        else:
            self.sizes, self.left_out = _datasets(group)
        self.names = list(self.sizes)

    def close(self) -> None:
        self._file.close()

    def chunks(self, needed: Sequence[str]) -> Iterator[Columns]:
        for start in range(0, self.rows(needed), CHUNK):
            rows = slice(start, start + CHUNK)
            chunk: Columns = {}
            for name in needed:
                plain = _plain(name)
                values = np.asarray(self._group[rows][plain] if self._table else self._group[plain][rows])
                if values.dtype.kind == "O" and len(values) and isinstance(values[0], np.ndarray):
                    msg = (
                        f"the entries of the column {plain!r} are of variable length, which HDF5 files are not read "
                        "with; write rows of equal length, with NaN where an event has fewer entries."
                    )
                    raise InputError(msg)
                chunk[name] = _of_rows(values, name)
            yield chunk


def _datasets(group: Any) -> tuple[dict[str, int], dict[str, str]]:
    """Lengths of the columns of an HDF5 group, and what is none: dangling or external links, single numbers."""
    import h5py

    sizes, left_out = {}, {}
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
                sizes[name] = int(found.shape[0])
            else:
                left_out[name] = "a single number"
    return sizes, left_out


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
                    entries = ak.flatten(column, axis=1)
                    flat = ak.to_numpy(entries) if entries.ndim == 1 else np.zeros(0, object)
                    if flat.dtype.kind not in "biuf":
                        raise InputError(_no_numbers(piece.column, ak.type(entries).content))
                    chunk[name] = _reduced(piece, flat, ak.to_numpy(ak.fill_none(ak.num(column, axis=1), 0)))
                elif column.ndim != 1:
                    raise InputError(_several(name))
                else:
                    chunk[name] = _filled(ak.to_numpy(column), name)
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
