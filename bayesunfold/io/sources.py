"""Which files a path names: single ones, lists, patterns, ``file.root:tree``, and a factor for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bayesunfold._support.checks import check_positive
from bayesunfold.errors import InputError, InputTypeError

__all__ = ["FileSource", "Named", "is_address", "named_sources", "without_trees"]

Named = str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]]
"""What names files: a path, a table with ``file`` and other :data:`KEYS`, or a list of these."""

WITH_TREE = re.compile(r"^(?P<file>.+\.(?:root|h5|hdf5)):(?P<tree>[^:\\]+)$")
PATTERN = re.compile(r"[*?\[]")
WILDCARD = re.compile(r"((?<![^/])\*\*/|\*+|\?|\[!?\]?[^\]]*\])")
KEYS = ("file", "tree", "factor", "friends", "friend_key")


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
    friends : tuple of FileSource
        Files with further columns of the same events.
    friend_key : tuple of str
        Columns that identify an event in all of them; row by row if empty.
    matched : tuple of str
        What the wildcards of its pattern matched; empty if it was named without any.
    """

    path: str | Path
    tree: str | None = None
    factor: float = 1.0
    friends: tuple[FileSource, ...] = ()
    friend_key: tuple[str, ...] = ()
    matched: tuple[str, ...] = field(default=(), compare=False)


def is_address(path: str | Path) -> bool:
    """Whether a path is an address of another machine, ``root://...`` or ``https://...``."""
    return isinstance(path, str) and "://" in path


def named_sources(named: Named, tree: str | None = None, folder: Path | None = None) -> list[FileSource]:
    """Files in the order in which they are read; those of a pattern by name.

    Parameters
    ----------
    named : path, table, or sequence of these
        A path may be a pattern (``sim_*.parquet``) and, of ROOT and HDF5 files, end with ``:tree``. A table has
        ``file``, and ``tree``, ``factor``, ``friends`` and ``friend_key`` if needed. Friends are a path, or a list;
        each is as many files as ``file``. Files of two patterns belong together where the wildcards match the same.
    tree : str, optional
        Where none is given.
    folder : Path, optional
        Relative paths start here.

    Raises
    ------
    FileNotFoundError
        If a pattern matches nothing.
    InputError, InputTypeError
        An empty list, a file that is named twice, unknown keys of a table, factors that are not positive, another
        number of friends than of files, and friends whose wildcards match something else than those of the files.
    """
    every: Sequence[Any] = [named] if isinstance(named, str | Path | Mapping) else list(named)
    if not every:
        msg = "the list of files is empty; name at least one."
        raise InputError(msg)
    found = [source for entry in every for source in _sources(entry, tree, folder)]
    seen: dict[tuple[str, str | None], str] = {}
    for source in found:
        path = str(source.path)
        key = path if is_address(source.path) else str(Path(path).resolve()), source.tree
        if key in seen:
            other = "" if seen[key] == path else f", also as {seen[key]}"
            msg = f"{path} is named twice{other}; its events would count twice. Name every file once."
            raise InputError(msg)
        seen[key] = path
    return found


def without_trees(named: Named, drop: Sequence[str] = ("tree",)) -> Named:
    """The same files, whatever trees were named with them; keys of tables that ``drop`` names are left out.

    Friends that are joined row by row belong to the tree that was named, and are left out too.
    """
    if isinstance(named, Mapping):
        kept = {key: value for key, value in named.items() if key not in drop}
        if not kept.get("friend_key"):
            kept.pop("friends", None)
        return {key: without_trees(value) if key == "file" else value for key, value in kept.items()}
    if isinstance(named, str | Path):
        match = WITH_TREE.match(str(named))
        return match["file"] if match else named
    return [without_trees(entry, drop) for entry in named]  # type: ignore[misc]  # entries are no lists


def _sources(entry: Any, tree: str | None, folder: Path | None) -> list[FileSource]:
    """Files of one entry."""
    if isinstance(entry, Mapping):
        return _sources_of_table(entry, tree, folder)
    if not isinstance(entry, str | Path):
        msg = f"a file is given as {entry!r}; give a path, a pattern, or a table with {', '.join(KEYS)}."
        raise InputTypeError(msg)
    match = WITH_TREE.match(str(entry))
    if match:
        if tree is not None and tree != match["tree"]:
            msg = f"{entry!r} names a tree, and so does tree={tree!r}; give one of them."
            raise InputError(msg)
        entry, tree = match["file"], match["tree"]
    if is_address(entry):
        return [FileSource(entry, tree)]
    place = Path(entry) if folder is None else folder / entry
    if not PATTERN.search(str(entry)) or place.exists():
        return [FileSource(place, tree)]
    start = Path(place.anchor) if place.is_absolute() else Path()
    paths = sorted(start.glob(str(place.relative_to(place.anchor)) if place.is_absolute() else str(place)))
    if not paths:
        msg = f"no file matches {str(place)!r}; check the pattern and the folder."
        raise FileNotFoundError(msg)
    wildcards = _wildcards(place)
    return [FileSource(path, tree, matched=_matched(wildcards, path)) for path in paths]


def _wildcards(pattern: Path) -> re.Pattern[str]:
    """A pattern of paths as a regular expression, with a group for each wildcard."""
    pieces = WILDCARD.split(pattern.as_posix())  # texts and wildcards in turn
    expression = "".join(_group(piece) if k % 2 else re.escape(piece) for k, piece in enumerate(pieces))
    return re.compile(expression, re.IGNORECASE)  # some file systems ignore it; the files are found already


def _group(wildcard: str) -> str:
    """A wildcard as a group of a regular expression."""
    if wildcard[0] != "[":
        return {"**/": "((?:[^/]+/)*)", "?": "([^/])"}.get(wildcard, "([^/]*)")
    inner = wildcard[1:-1].removeprefix("!")
    escaped = re.sub(r"([\\^\[\]])", r"\\\1", inner)
    return f"([{'^' if wildcard[1] == '!' else ''}{escaped}])"


def _matched(wildcards: re.Pattern[str], path: Path) -> tuple[str, ...]:
    """What each wildcard matched."""
    found = wildcards.fullmatch(path.as_posix())
    return found.groups() if found else (path.as_posix(),)


def _sources_of_table(table: Mapping[str, Any], tree: str | None, folder: Path | None) -> list[FileSource]:
    """Files of a table, with their factor and friends."""
    unknown = [key for key in table if key not in KEYS]
    if unknown or "file" not in table:
        msg = f"a file is given as {dict(table)!r}; its keys are file (required), {', '.join(KEYS[1:])}."
        raise InputError(msg)
    factor = check_positive(table.get("factor", 1.0), "the factor of a file")
    found = _sources(table["file"], table.get("tree", tree), folder)
    given, key = (_texts(table, name) for name in ("friends", "friend_key"))
    if key and not given:
        msg = f"{table['file']} has friend_key and no friends; name them, or leave friend_key out."
        raise InputError(msg)
    friends = [_paired(table["file"], found, friend, _sources(friend, None, folder)) for friend in given]
    return [
        replace(source, factor=factor, friends=tuple(files[k] for files in friends), friend_key=tuple(key))
        for k, source in enumerate(found)
    ]


def _paired(name: Any, found: Sequence[FileSource], friend: str, files: list[FileSource]) -> list[FileSource]:
    """Friends in the order of the files, those of patterns by what the wildcards matched."""
    if len(files) != len(found):
        msg = (
            f"{name} is {len(found)} file{'s' if len(found) > 1 else ''} and its friend {friend} is {len(files)}; each "
            "file needs one."
        )
        raise InputError(msg)
    if not (found[0].matched and files[0].matched):
        return files
    by_match = {file.matched: file for file in files}
    alone = [source for source in found if source.matched not in by_match]
    if alone:
        theirs = {source.matched for source in found}
        left = next(file for file in files if file.matched not in theirs)
        msg = (
            f"{alone[0].path} has no friend and {left.path} no file: the wildcards of {name} and {friend} match "
            f"{', '.join(alone[0].matched)!r} and {', '.join(left.matched)!r}. Write patterns whose wildcards match "
            "the same in both, or give every file a table of its own."
        )
        raise InputError(msg)
    return [by_match[source.matched] for source in found]


def _texts(table: Mapping[str, Any], name: str) -> list[str]:
    """A text, or a list of texts."""
    value = table.get(name, [])
    texts = [value] if isinstance(value, str | Path) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str | Path) for t in texts):
        msg = f"{name} of {table['file']} is {value!r}; give a text, or a list of texts."
        raise InputTypeError(msg)
    return [str(text) for text in texts]
