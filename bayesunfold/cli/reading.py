"""Columns of the files that a section of the configuration names: in memory, or as memory maps in a cache folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.cli.sections import Source
from bayesunfold.cli.simulated import NOT_READ
from bayesunfold.io.columns import FileRead, read_files
from bayesunfold.io.event_cache import Table, cached_tables
from bayesunfold.io.formats import Columns
from bayesunfold.io.sources import named_sources

__all__ = ["FileEntry", "Reader", "Tables", "each_column"]

Tables = dict[tuple[str, ...], NDArray[Any]]
"""Arrays of shape (n, columns), by the expressions of their columns."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class FileEntry:
    """What was read of a file.

    Attributes
    ----------
    sample : str
        "simulation", "data", a background, or a side of a systematic; of a simulation in two tables, with its level.
    file, tree : str
    factor : float
        On the weights of its events.
    events, kept : int
        In the file, and after the selection.
    weight : float, optional
        Sum of the weights of the latter, the factor included; None where weights were not read. From a cache, of those
        that pass a level.
    """

    sample: str
    file: str
    tree: str
    factor: float
    events: int
    kept: int
    weight: float | None


@dataclass(frozen=True)
class Reader:
    """Reads columns and keeps a manifest of the files.

    Attributes
    ----------
    folder : Path
        What paths are relative to.
    aliases : mapping of str to str
        Expressions by the names under which others use them.
    progressbar : bool
    manifest : list of FileEntry
        Of the samples that have a name.
    """

    folder: Path
    aliases: Mapping[str, str]
    progressbar: bool = False
    manifest: list[FileEntry] = field(default_factory=list)

    def columns(
        self,
        source: Source,
        expressions: Sequence[str],
        sample: str = "",
        weight: str | None = None,
        keys: Sequence[str] = (),
    ) -> Columns:
        """Expressions of a source's events, each in memory.

        Parameters
        ----------
        source : Source
        expressions : sequence of str
        sample : str
            Name in the manifest; none there if empty.
        weight : str, optional
            Which of the expressions is the nominal weight; one per event if None.
        keys : sequence of str
            Those of the expressions that identify events.
        """
        files = named_sources(source.file, source.tree, self.folder)
        columns, log = read_files(
            files,
            expressions,
            selection=source.selection,
            aliases=self.aliases,
            keys=keys,
            progressbar=self.progressbar,
        )
        self._note(log, sample, weight, columns)
        return columns

    def tables(
        self,
        source: Source,
        tables: Iterable[Sequence[str]],
        flags: Sequence[str],
        sample: str,
        weight: str | None = None,
        *,
        used: str | None = None,
    ) -> tuple[Tables, int]:
        """Expressions of the events of a source with a cache, as memory maps, and how many events have no row.

        Numbers are in double precision. Expressions that stand alone, and flags, share an array each.

        Parameters
        ----------
        source : Source
            With a cache.
        tables : iterable of sequence of str
            Expressions that are numbers; those of one sequence are the columns of one array.
        flags : sequence of str
            Expressions that are true or false.
        sample, weight
            As of :meth:`columns`.
        used : str, optional
            Expression; selected events where it is false have no row.
        """
        kinds = {tuple(expressions): "f8" for expressions in tables if expressions}
        kinds |= {tuple(flags): "?"} if flags else {}
        files = named_sources(source.file, source.tree, self.folder)
        found, log = cached_tables(
            files,
            {f"table_{k}": Table(expressions, kind) for k, (expressions, kind) in enumerate(kinds.items())},
            source.selection,
            self.folder / str(source.cache),
            aliases=self.aliases,
            used=used,
            progressbar=self.progressbar,
        )
        out = dict(zip(kinds, found.values(), strict=True))
        self._note(log, sample, weight, each_column(out))
        return out, sum(read.kept - read.used for read in log if read.used is not None)

    def _note(self, log: Sequence[FileRead], sample: str, weight: str | None, columns: Columns) -> None:
        """Put what was read into the manifest."""
        start = 0
        for read in log if sample else ():
            n = read.kept if read.used is None else read.used
            rows = slice(start, start + n)
            total = None if weight == NOT_READ else float(n)
            if weight:
                total = float(np.sum(columns[weight][rows], dtype=np.float64))
            tree = "" if read.source.tree is None else read.source.tree
            self.manifest.append(
                FileEntry(sample, str(read.source.path), tree, read.source.factor, read.events, read.kept, total)
            )
            start += n


def each_column(tables: Tables) -> Columns:
    """Columns of tables by their expressions.

    Examples
    --------
    >>> each_column({("a", "b"): np.array([[1.0, 2.0], [3.0, 4.0]])})["b"]
    array([2., 4.])
    """
    return {expression: array[:, k] for group, array in tables.items() for k, expression in enumerate(group)}
