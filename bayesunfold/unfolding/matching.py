"""Systematic variations that come as events of their own, in another order: matched by event identifiers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import (
    as_features,
    as_flag,
    as_reco_factor,
    as_weight,
    check_exact,
    check_mapping,
)
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.events import Simulation, matching_columns

__all__ = ["Absent", "RowIndex", "match_rows", "matched_variation"]

Array = NDArray[np.floating]
Absent = Literal["error", "fails"]

COLUMNS = ("key", "weight", "reco", "pass_reco", "reco_factor")


def __dir__() -> list[str]:
    return __all__


def match_rows(key: ArrayLike, other: ArrayLike, what: str, mine: str = "the simulation") -> NDArray[np.integer]:
    """Row of ``other`` with the same identifier, -1 where there is none, shape (n,).

    Parameters
    ----------
    key, other : array, shape (n,) and (m,), or (n, k) and (m, k), or tuple of k arrays
        Identifiers: numbers or texts, of one or several columns (run, event). A tuple keeps each column's type.
    what, mine : str
        Whose ``other`` and ``key`` are, for errors.

    Raises
    ------
    InputError
        Different numbers of columns, identifiers that are NaN or not unique.

    Examples
    --------
    >>> match_rows([7, 8, 9], [9, 7], "up")
    array([ 1, -1,  0])
    """
    _check_unique(_index(_identifiers(key, f"key of {mine}")), mine)
    return RowIndex(other, what).rows(key, mine)


class RowIndex:
    """Rows by their identifiers, for several look-ups; arguments and errors as of :func:`match_rows`.

    Examples
    --------
    >>> RowIndex([9, 7], "events").rows([7, 7, 8], "jets")
    array([ 1,  1, -1])
    """

    def __init__(self, other: ArrayLike | tuple[ArrayLike, ...], what: str) -> None:
        self._what, self._columns = what, _identifiers(other, f"key of {what}")
        self._index = _index(self._columns)

    def rows(self, key: ArrayLike | tuple[ArrayLike, ...], mine: str) -> NDArray[np.integer]:
        """As :func:`match_rows`, where several events may have the same row."""
        own = _identifiers(key, f"key of {mine}")
        if len(own) != len(self._columns):
            msg = f"key of {self._what} has {len(self._columns)} columns and key of {mine} {len(own)}; give the same."
            raise InputError(msg)
        for a, b in zip(own, self._columns, strict=True):
            _check_comparable(a, b, mine, self._what)
        _check_unique(self._index, self._what)
        return np.asarray(self._index.get_indexer(_index(own)))


def _check_comparable(a: NDArray[Any], b: NDArray[Any], mine: str, what: str) -> None:
    """Whole numbers are compared with numbers of a float only where these can tell them apart."""
    kinds = {a.dtype.kind, b.dtype.kind}
    if kinds <= {"i", "u"} or (len(kinds) == 1 and "f" not in kinds):
        return
    for values, name in ((a, f"key of {mine}"), (b, f"key of {what}")):
        check_exact(values, name)
        digits = np.finfo(values.dtype).nmant + 1 if values.dtype.kind == "f" else 0
        if digits and np.abs(values).max(initial=0.0) > 2.0**digits:
            msg = (
                f"{name}, of type {values.dtype}, holds {np.abs(values).max():.0f} as a float, which above 2^{digits} "
                "cannot tell neighbours apart; write identifiers as whole numbers."
            )
            raise InputError(msg)


def _index(columns: list[NDArray[Any]]) -> Any:
    import pandas as pd

    return pd.MultiIndex.from_arrays(columns) if len(columns) > 1 else pd.Index(columns[0])


def _check_unique(index: Any, what: str) -> None:
    if not index.is_unique:
        again = index[index.duplicated()]
        msg = (
            f"key of {what} has {len(again)} events whose identifier stands there before (first {again[0]!r}); "
            "identifiers must be unique. Add a column, the run or the sample's number."
        )
        raise InputError(msg)


def _identifiers(values: ArrayLike | tuple[ArrayLike, ...], name: str) -> list[NDArray[Any]]:
    """Columns of identifiers, one by one: a matrix would turn long whole numbers into inexact ones."""
    masked = sum(
        int(np.ma.getmaskarray(c).sum())
        for c in (values if isinstance(values, tuple) else (values,))
        if np.ma.is_masked(c)
    )
    if masked:
        msg = f"{name} has {masked} identifiers that are masked; every event needs one. Leave such events out."
        raise InputError(msg)
    if isinstance(values, tuple) and len(values) > 0 and np.ndim(values[0]) > 0:
        columns = [np.asarray(column) for column in values]
    else:
        array = np.asarray(values)
        columns = list(array.T) if array.ndim == 2 else [array]
    if any(c.ndim != 1 or len(c) != len(columns[0]) or len(c) == 0 for c in columns):
        msg = f"{name} has columns of shapes {[c.shape for c in columns]}; give one identifier per event."
        raise InputError(msg)
    bad = sum(int((~np.isfinite(c)).sum()) for c in columns if c.dtype.kind == "f")
    if bad:
        msg = f"{name} has {bad} identifiers that are NaN or infinite."
        raise InputError(msg)
    return [_unsigned(column.astype(column.dtype.newbyteorder("="), copy=False)) for column in columns]


def _unsigned(column: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers without a sign, where none is negative: then those of two files are compared exactly."""
    return column.astype(np.uint64) if column.dtype.kind == "i" and column.min() >= 0 else column


def matched_variation(
    name: str,
    simulation: Simulation,
    key: ArrayLike,
    given: Mapping[str, ArrayLike],
    side: str,
    absent: Absent,
    most_lost: float,
) -> dict[str, Array | NDArray[np.bool_]]:
    """Arguments of :class:`bayesunfold.Systematic` for one side, in the order of the simulation.

    Raises
    ------
    InputError
        As for :meth:`bayesunfold.Systematic.from_events`.
    """
    what = f"{side} of {name}"
    given = check_mapping(given, what)
    unknown = sorted(set(given) - set(COLUMNS))
    if unknown or "key" not in given or len(given) < 2:
        msg = f"{what} has {sorted(given)}; give key and one or more of {', '.join(COLUMNS[1:])}."
        raise InputError(msg)
    n = len(_identifiers(given["key"], f"key of {what}")[0])
    rows = match_rows(key, given["key"], what)
    if len(rows) != len(simulation):
        msg = f"key has {len(rows)} identifiers; the simulation has {len(simulation)} events, and each needs one."
        raise InputError(msg)
    found = rows >= 0
    _check_lost(n - int(found.sum()), n, what, most_lost)
    missing = ~found & simulation.used
    if missing.any() and absent == "error":
        msg = (
            f"{int(missing.sum())} of {int(simulation.used.sum())} simulated events are not in {what} (first at row "
            f'{int(np.argmax(missing))}); pass absent="fails" if events that fail the selection were not written.'
        )
        raise InputError(msg)
    out: dict[str, Array | NDArray[np.bool_]] = {}
    if "weight" in given:
        if missing.any():
            msg = (
                f"{int(missing.sum())} of {int(simulation.used.sum())} simulated events are not in {what}, which has "
                "weights: what the others weigh there at particle level is not known. Write all events, or vary the "
                "detector level alone (reco_factor)."
            )
            raise InputError(msg)
        weight = as_weight(given["weight"], n, f"weight of {what}")
        out[f"weight_{side}"] = np.where(found, weight[rows], 0.0)
    passes = as_flag(given.get("pass_reco"), n, f"pass_reco of {what}")
    passes = found & passes[rows]
    if "reco" in given:
        reco = _features(given["reco"], n, simulation, what)
        out[f"reco_{side}"] = np.where(found[:, None], reco[rows], simulation.reco)
    if "reco_factor" in given:
        factor = as_reco_factor(
            given["reco_factor"], as_flag(given.get("pass_reco"), n, "pass_reco"), f"reco_factor of {what}"
        )
        out[f"reco_factor_{side}"] = np.where(found, factor[rows], 1.0)
    written = absent == "fails" and "weight" not in given  # who is there passes
    if "pass_reco" in given or (written and not np.array_equal(passes, simulation.pass_reco)):
        out[f"pass_reco_{side}"] = passes
    return out


def _features(values: ArrayLike, n: int, simulation: Simulation, what: str) -> Array:
    """Features of a variation's events, in the order of the simulation's columns."""
    reco, names = as_features(values, f"reco of {what}")
    if len(reco) != n:
        msg = f"reco of {what} has {len(reco)} events and its key {n}; they must be the same events."
        raise InputError(msg)
    return reco[:, matching_columns(reco, names or (), names is not None, simulation, f"reco of {what}")]


def _check_lost(lost: int, n: int, what: str, most: float) -> None:
    """Events of a variation that the simulation has no row for."""
    if lost == 0:
        return
    msg = (
        f"{lost} of {n} events in {what} are not in the simulation ({100 * lost / n:.2g} %, limit {100 * most:.2g} %); "
        "events that pass only in the variation need rows there, with pass_reco False."
    )
    if lost > most * n:
        raise InputError(msg)
    warnings.warn(msg, OverlapWarning, stacklevel=5)
