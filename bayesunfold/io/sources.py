"""Which files a path names: single ones, lists, patterns, ``file.root:tree``, and a factor for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesunfold._support.checks import check_positive
from bayesunfold.errors import InputError, InputTypeError

__all__ = ["FileSource", "Named", "is_address", "named_sources", "without_trees"]

Named = str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]]
"""What names files: a path, a table with ``file``, ``tree`` and ``factor``, or a list of these."""

WITH_TREE = re.compile(r"^(?P<file>.+\.(?:root|h5|hdf5)):(?P<tree>[^:\\]+)$")
PATTERN = re.compile(r"[*?\[]")
KEYS = ("file", "tree", "factor")


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class FileSource:
    """One file.

    Attributes
    ----------
    path : str or Path
    tree : str, optional
    factor : float
        On the weights of its events.
    """

    path: str | Path
    tree: str | None = None
    factor: float = 1.0


def is_address(path: str | Path) -> bool:
    """Whether a path is an address of another machine, ``root://...`` or ``https://...``."""
    return isinstance(path, str) and "://" in path


def named_sources(named: Named, tree: str | None = None, folder: Path | None = None) -> list[FileSource]:
    """Files in the order in which they are read; those of a pattern by name.

    Parameters
    ----------
    named : path, table, or sequence of these
        A path may be a pattern (``sim_*.parquet``) and, of ROOT and HDF5 files, end with ``:tree``. A table has
        ``file``, and ``tree`` and ``factor`` if needed.
    tree : str, optional
        Where none is given.
    folder : Path, optional
        Relative paths start here.

    Raises
    ------
    FileNotFoundError
        If a pattern matches nothing.
    InputError, InputTypeError
        An empty list, a file that is named twice, unknown keys of a table, and factors that are not positive.
    """
    every: Sequence[Any] = [named] if isinstance(named, str | Path | Mapping) else list(named)
    if not every:
        msg = "the list of files is empty; name at least one."
        raise InputError(msg)
    found = [source for entry in every for source in _sources(entry, tree, folder)]
    seen: set[tuple[str, str | None]] = set()
    for source in found:
        key = str(source.path), source.tree
        if key in seen:
            msg = f"{source.path} is named twice; its events would count twice. Name every file once."
            raise InputError(msg)
        seen.add(key)
    return found


def without_trees(named: Named) -> Named:
    """The same files, whatever trees were named with them."""
    if isinstance(named, Mapping):
        return {key: without_trees(value) if key == "file" else value for key, value in named.items() if key != "tree"}
    if isinstance(named, str | Path):
        match = WITH_TREE.match(str(named))
        return match["file"] if match else named
    return [without_trees(entry) for entry in named]  # type: ignore[misc]  # entries are no lists


def _sources(entry: Any, tree: str | None, folder: Path | None) -> list[FileSource]:
    """Files of one entry."""
    factor = 1.0
    if isinstance(entry, Mapping):
        unknown = [key for key in entry if key not in KEYS]
        if unknown or "file" not in entry:
            msg = f"a file is given as {dict(entry)!r}; its keys are file (required), tree and factor."
            raise InputError(msg)
        factor = check_positive(entry.get("factor", 1.0), "the factor of a file")
        tree = entry.get("tree", tree)
        entry = entry["file"]
    if not isinstance(entry, str | Path):
        msg = f"a file is given as {entry!r}; give a path, a pattern, or a table with file, tree and factor."
        raise InputTypeError(msg)
    match = WITH_TREE.match(str(entry))
    if match:
        if tree is not None and tree != match["tree"]:
            msg = f"{entry!r} names a tree, and so does tree={tree!r}; give one of them."
            raise InputError(msg)
        entry, tree = match["file"], match["tree"]
    if is_address(entry):
        return [FileSource(entry, tree, factor)]
    place = Path(entry) if folder is None else folder / entry
    if not PATTERN.search(str(entry)) or place.exists():
        return [FileSource(place, tree, factor)]
    start = Path(place.anchor) if place.is_absolute() else Path()
    paths = sorted(start.glob(str(place.relative_to(place.anchor)) if place.is_absolute() else str(place)))
    if not paths:
        msg = f"no file matches {str(place)!r}; check the pattern and the folder."
        raise FileNotFoundError(msg)
    return [FileSource(path, tree, factor) for path in paths]
