"""Columns of simulated events: of one table, or of one table per level whose events are matched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_exact
from bayesunfold.cli.sections import Source
from bayesunfold.errors import InputError
from bayesunfold.io.columns import FACTOR, joined
from bayesunfold.io.formats import Columns
from bayesunfold.unfolding.levels import Levels, match_levels

__all__ = ["NOT_READ", "SimulatedColumns", "Wanted", "match_tables", "table"]

Read = Callable[[Source, list[str], str, str | None, list[str]], Columns]
"""Reads expressions of a source, for the sample of that name, with the expressions of its weight and of its key."""


NOT_READ = ""
"""In place of the expression of a weight, where a table's weights are not read."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Wanted:
    """Expressions by the level whose columns they are of.

    Attributes
    ----------
    gen, reco : list of str
    either : list of str
        Weights, which events of both levels have.
    weight : str, optional
        The nominal one of these.
    """

    gen: list[str]
    reco: list[str]
    either: list[str]
    weight: str | None


@dataclass(frozen=True)
class SimulatedColumns:
    """Values of expressions, event by event.

    Attributes
    ----------
    of_gen, of_reco : dict of str to array
        By expression; rows of each table.
    key : tuple of array
        Identifiers of the events; empty if none was asked for.
    levels : Levels, optional
        If the particle level has a table of its own.
    rows : array of int, optional
        Which events are kept; all if None.
    maps : dict of tuple of str to array
        Memory maps of several columns, by their expressions.
    """

    of_gen: Columns
    of_reco: Columns
    key: tuple[NDArray[Any], ...]
    levels: Levels | None = None
    rows: NDArray[np.integer] | None = None
    maps: Mapping[tuple[str, ...], NDArray[Any]] = MappingProxyType({})

    def gen_table(self, expressions: Sequence[str]) -> NDArray[np.floating]:
        """Features of the particle level, shape (n, d)."""
        return self._table(self.gen, expressions)

    def reco_table(self, expressions: Sequence[str]) -> NDArray[np.floating]:
        """Features of the detector level, shape (n, d)."""
        return self._table(self.reco, expressions)

    def _table(self, of: Callable[[str], NDArray[Any]], expressions: Sequence[str]) -> NDArray[np.floating]:
        mapped = self.maps.get(tuple(expressions))
        return table(of, expressions) if mapped is None else self._kept(mapped)

    def gen(self, expression: str) -> NDArray[Any]:
        """Of the particle level; NaN, or False, where an event has none."""
        values = self.of_gen[expression]
        return self._kept(values if self.levels is None else self.levels.gen(values))

    def reco(self, expression: str) -> NDArray[Any]:
        """Of the detector level; NaN, or False, where an event has none."""
        values = self.of_reco[expression]
        return self._kept(values if self.levels is None else self.levels.reco(values))

    def either(self, expression: str) -> NDArray[Any]:
        """Of the particle level, and of the detector level for events that have only that."""
        if self.levels is None or not self.levels.only_reco:
            return self.gen(expression)
        return self._kept(self.levels.either(self.of_gen[expression], self.of_reco[expression]))

    def passes(self, gen: str | None, reco: str | None) -> dict[str, NDArray[Any]]:
        """Arguments ``pass_gen`` and ``pass_reco`` of a simulation; without an expression, all rows of the table."""
        flags = {}
        for name, expression, of in (("pass_gen", gen, self.gen), ("pass_reco", reco, self.reco)):
            if expression is not None:
                flags[name] = of(expression)
            elif self.levels is not None:
                flags[name] = self._kept((self.levels.gen_row if name == "pass_gen" else self.levels.reco_row) >= 0)
        return flags

    def keys(self) -> tuple[NDArray[Any], ...]:
        """Identifiers of the events that are kept."""
        return tuple(self._kept(column) for column in self.key)

    def kept(self, used: NDArray[np.bool_]) -> SimulatedColumns:
        """Some of the events."""
        return replace(self, rows=np.flatnonzero(used))

    def _kept(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self.rows is None else values[self.rows]


def table(of: Callable[[str], NDArray[Any]], expressions: Sequence[str]) -> NDArray[np.floating]:
    """Features, shape (n, d)."""
    columns = []
    for expression in expressions:
        values = of(expression)
        check_exact(values, f"the feature {expression!r}")  # a key is read as whole numbers
        columns.append(np.asarray(values, dtype=np.float64))
    return np.column_stack(columns)


def match_tables(
    read: Read, gen: tuple[Source, list[str]], reco: tuple[Source, list[str]], wanted: Wanted
) -> SimulatedColumns:
    """Read a table per level and match their events.

    Parameters
    ----------
    read : callable
    gen, reco : pair of Source and list of str
        Where the table is, and the expressions that identify its events.
    wanted : Wanted
        Weights are read of the particle level's table; if the detector level's has events that the former lacks
        (fakes), of both.

    Raises
    ------
    InputError
        Identifiers that are not unique, tables that share no event; as of :func:`bayesunfold.io.read_columns`.
    """
    (gen_source, gen_key), (reco_source, reco_key) = gen, reco
    names = "simulation, particle level", "simulation, detector level"
    of_gen = read(gen_source, _distinct(gen_key, wanted.gen, wanted.either, [FACTOR]), names[0], wanted.weight, gen_key)
    of_reco = read(reco_source, _distinct(reco_key, wanted.reco, [FACTOR]), names[1], NOT_READ, reco_key)
    keys = [tuple(columns[name] for name in key) for columns, key in ((of_gen, gen_key), (of_reco, reco_key))]
    levels = match_levels(*keys)
    _check_factors(levels, of_gen[FACTOR], of_reco[FACTOR])
    if wanted.either and levels.only_reco:
        try:
            of_reco |= read(reco_source, _distinct(wanted.either), "", None, [])
        except InputError as err:
            msg = (
                f"{levels.only_reco} events of the detector level have no particle level (fakes) and need a weight of "
                f"their own: {err} If they are no events of the signal, leave them out with selection."
            )
            raise InputError(msg) from err
    alone = levels.reco_row[levels.gen_row < 0]
    key = tuple(joined([g, r[alone]], "the key of both levels") for g, r in zip(*keys, strict=True))
    return SimulatedColumns(of_gen, of_reco, key, levels)


def _check_factors(levels: Levels, gen: NDArray[Any], reco: NDArray[Any]) -> None:
    """The same factor for both levels of an event."""
    both = (levels.gen_row >= 0) & (levels.reco_row >= 0)
    a, b = gen[levels.gen_row[both]], reco[levels.reco_row[both]]
    if np.any(a != b):
        k = int(np.argmax(a != b))
        msg = (
            f"{int((a != b).sum())} simulated events have one factor in their file of the particle level and another "
            f"in that of the detector level (first {a[k]:g} and {b[k]:g}); give each campaign the same in both."
        )
        raise InputError(msg)


def _distinct(*lists: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))
