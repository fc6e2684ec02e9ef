"""Saving a result with its full configuration, and reading it back.

A file holds the ArviZ groups of ``result.to_datatree()`` and a group ``unfolding`` with what makes event weights again,
which :mod:`bayesunfold.io.groups` describes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesunfold._support.files import atomic_write, check_writable, recover, swap, temporary_folder
from bayesunfold._support.threads import block_threads
from bayesunfold.errors import ConvergenceError, FileFormatError, InputError
from bayesunfold.io.format1 import upgrade
from bayesunfold.io.groups import from_groups, to_groups
from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["FORMAT_VERSION", "load", "save"]

FORMAT = "bayesunfold-result"
FORMAT_VERSION = 2


def __dir__() -> list[str]:
    return __all__


def save(result: UnfoldingResult, path: Path) -> Path:
    """Write a result to ``.nc`` or ``.zarr``; a killed write leaves the old one, if there was one.

    Raises
    ------
    InputError
        For any other suffix, and for a folder of that name that is not a result.
    """
    check_target(path)
    tree = result.to_datatree()
    tree["unfolding"] = groups = to_groups(result)
    tree.attrs |= {"format": FORMAT, "format_version": FORMAT_VERSION, "text_checksum": _text_checksum(groups)}
    if path.suffix == ".nc":
        image = io.BytesIO()  # HDF5 must not meet a full disk: it may end the interpreter
        with _no_cluster():
            tree.to_netcdf(image, engine="h5netcdf", encoding=_checksums(tree, {"fletcher32": True}))
        atomic_write(path, lambda temporary: temporary.write_bytes(image.getbuffer()))
        return path
    with temporary_folder(path) as new:
        with _no_cluster():
            tree.to_zarr(new, mode="w", consolidated=False, encoding=_checksums(tree, {"compressors": _zarr_codec()}))
        check_target(path)
        swap(new, path)
    return path


def _no_cluster() -> contextlib.AbstractContextManager[Any]:
    """Read and write without locks of a Dask cluster, which xarray would ask for where the user has a client."""
    try:
        import dask
    except ImportError:
        return contextlib.nullcontext()
    return dask.config.set(scheduler="threads")


def check_target(path: Path) -> None:
    """Whether a result can be saved under this name.

    Raises
    ------
    InputError
        For a suffix other than ``.nc`` and ``.zarr``, for a place that cannot be written, and where something else
        stands that would be lost.
    """
    if path.suffix not in (".nc", ".zarr"):
        msg = f"{path.name} ends with {path.suffix!r}; name the file .nc (netCDF) or .zarr (Zarr)."
        raise InputError(msg)
    check_writable(path, folder=path.suffix == ".zarr")
    if path.suffix == ".zarr" and path.exists():
        other = _not_of_a_result(path)
        if other:
            msg = f"{path} exists and {other}; saving would remove it. Move it away, or name another folder."
            raise InputError(msg)


def _not_of_a_result(folder: Path) -> str:
    """What a Zarr folder holds that is not part of a result of this library; empty if there is nothing."""
    entries = [p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()]
    if not entries:
        return ""
    try:
        attributes = json.loads((folder / "zarr.json").read_text()).get("attributes", {})
    except (OSError, ValueError, AttributeError):
        attributes = {}
    if attributes.get("format") != FORMAT:
        return "is not a result of bayesunfold"
    strange = [p for p in entries if p.name != "zarr.json" and "c" not in p.relative_to(folder).parts]
    return f"holds {strange[0].relative_to(folder)}, which is not part of a result" if strange else ""


def _checksums(tree: xr.DataTree, encoding: dict[str, object]) -> dict[str, dict[str, dict[str, object]]]:
    """The encoding for every array of numbers, by group: a flipped byte is then an error when it is read."""
    out = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        numbers = [n for n, v in dataset.variables.items() if v.ndim and v.size and v.dtype.kind in "fiub"]
        out[node.path] = {str(name): dict(encoding) for name in numbers}
    return out


def _zarr_codec() -> tuple[object]:
    from zarr.codecs import ZstdCodec

    return (ZstdCodec(level=0, checksum=True),)


def load(path: str | Path) -> UnfoldingResult:
    """Read a result that :meth:`UnfoldingResult.save` wrote.

    Parameters
    ----------
    path : path
        A ``.nc`` file or ``.zarr`` folder.

    Returns
    -------
    UnfoldingResult
        Gives the same bands as the one saved.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileFormatError
        If it is not a result of this library, is damaged, or comes from a newer version.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=1, inference="laplace", draws=20,
    ...                    random_seed=1, progressbar=False)
    >>> path = result.save(Path(tempfile.mkdtemp()) / "unfolded.nc")
    >>> bu.load(path).nominal.sum().round()
    np.float64(300.0)
    """
    path = Path(path)
    recover(path)
    if not path.exists():
        msg = f"{path} does not exist."
        raise FileNotFoundError(msg)
    try:
        with _no_cluster():
            attributes, groups = _read(path)
    except Exception as err:
        msg = f"{path} cannot be read as netCDF or Zarr ({type(err).__name__}: {err}); it is damaged or something else."
        raise FileFormatError(msg) from err
    if groups is None:
        msg = f"{path} is not a result of bayesunfold (its attribute 'format' is {attributes.get('format')!r})."
        raise FileFormatError(msg)
    try:
        version = int(attributes["format_version"])
    except (KeyError, ValueError, TypeError) as err:
        msg = f"{path} has no readable format version ({err}); it is damaged."
        raise FileFormatError(msg) from err
    if version < 1:
        msg = f"{path} has format version {version}; versions begin with 1. It is damaged."
        raise FileFormatError(msg)
    if version > FORMAT_VERSION:
        msg = f"{path} has format version {version}; this bayesunfold reads up to {FORMAT_VERSION}. Update bayesunfold."
        raise FileFormatError(msg)
    try:
        if version == 1:
            groups = upgrade(groups.to_dataset())
        elif attributes["text_checksum"] != _text_checksum(groups):
            msg = f"the settings or names in {path} have changed since it was written; it is damaged."
            raise FileFormatError(msg)
        with block_threads():  # sums round as they did in the fit
            return from_groups(groups)
    except KeyError as err:
        msg = f"{path} misses {err}; it is damaged."
        raise FileFormatError(msg) from err
    except (ValueError, TypeError, IndexError, AttributeError, ConvergenceError, ArithmeticError) as err:
        if isinstance(err, FileFormatError):
            raise
        msg = f"what {path} holds does not fit together ({type(err).__name__}: {err}); it is damaged."
        raise FileFormatError(msg) from err


def _read(path: Path) -> tuple[dict[str, Any], xr.DataTree | None]:
    """Attributes of a file, and the group that makes the result, None if the file is not one of this library.

    The ArviZ groups beside it are made from the result; they are larger, and left unread.
    """
    how: dict[str, Any] = {"engine": "zarr", "consolidated": False} if path.is_dir() else {"engine": "h5netcdf"}
    with xr.open_dataset(path, **how) as top:
        attributes = dict(top.attrs)
    if attributes.get("format") != FORMAT:
        return attributes, None
    with xr.open_datatree(path, group="unfolding", **how) as tree:
        return attributes, tree.load()


def _text_checksum(groups: xr.DataTree) -> str:
    """Of all attributes, names and labels, which the checksums of the arrays leave out."""
    parts = {}
    for node in groups.subtree:
        dataset = node.to_dataset(inherit=False)
        attributes = {str(k): v.item() if isinstance(v, np.generic) else v for k, v in dataset.attrs.items()}
        names = {str(name): list(map(str, v.dims)) for name, v in dataset.variables.items()}
        labels = {str(name): list(map(str, v.values)) for name, v in dataset.variables.items() if v.dtype.kind in "OUT"}
        parts[node.path.removeprefix(groups.path).strip("/")] = [attributes, names, labels]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
