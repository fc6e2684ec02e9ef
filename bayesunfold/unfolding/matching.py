"""Systematic variations that come as events of their own, in another order: matched by event identifiers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_features, as_flag, as_weight, check_mapping
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.events import Simulation

__all__ = ["Absent", "match_rows", "matched_variation"]

Array = NDArray[np.floating]
Absent = Literal["error", "fails"]

COLUMNS = ("key", "weight", "reco", "pass_reco")


def __dir__() -> list[str]:
    return __all__


def match_rows(key: ArrayLike, other: ArrayLike, what: str) -> NDArray[np.integer]:
    """Row of ``other`` with the same identifier, -1 where there is none, shape (n,).

    Parameters
    ----------
    key, other : array, shape (n,) and (m,), or (n, k) and (m, k)
        Identifiers: numbers or texts, of one or several columns (run, event).
    what : str
        Whose ``other`` is, for errors.

    Raises
    ------
    InputError
        Different numbers of columns, identifiers that are NaN or not unique.

    Examples
    --------
    >>> match_rows([7, 8, 9], [9, 7], "up")
    array([ 1, -1,  0])
    """
    import pandas as pd

    mine, theirs = (_identifiers(values, name) for values, name in ((key, "key"), (other, f"key of {what}")))
    if mine.shape[1] != theirs.shape[1]:
        msg = f"key of {what} has {theirs.shape[1]} columns and key of the simulation {mine.shape[1]}; give the same."
        raise InputError(msg)
    indices = []
    for values, name in ((mine, "key"), (theirs, f"key of {what}")):
        index = pd.MultiIndex.from_arrays(list(values.T)) if values.shape[1] > 1 else pd.Index(values[:, 0])
        if not index.is_unique:
            again = index[index.duplicated()]
            msg = (
                f"{name} has {len(again)} events whose identifier stands there before (first {again[0]!r}); "
                "identifiers must be unique. Add a column, the run or the sample's number."
            )
            raise InputError(msg)
        indices.append(index)
    return np.asarray(indices[1].get_indexer(indices[0]))


def _identifiers(values: ArrayLike, name: str) -> NDArray[Any]:
    out = np.asarray(values)
    out = out[:, None] if out.ndim == 1 else out
    if out.ndim != 2 or out.shape[0] == 0:
        msg = f"{name} has shape {np.shape(values)}; give one identifier per event, or a row of them."
        raise InputError(msg)
    if out.dtype.kind == "f" and not np.isfinite(out).all():
        msg = f"{name} has {int((~np.isfinite(out)).any(axis=1).sum())} identifiers that are NaN or infinite."
        raise InputError(msg)
    return out


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
    n = len(np.asarray(given["key"]))
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
        weight = as_weight(given["weight"], n, f"weight of {what}")
        out[f"weight_{side}"] = np.where(found, weight[rows], 0.0)
    passes = as_flag(given.get("pass_reco"), n, f"pass_reco of {what}")
    passes = found & passes[rows]
    if "reco" in given:
        reco = as_features(given["reco"], f"reco of {what}")[0]
        if len(reco) != n:
            msg = f"reco of {what} has {len(reco)} events and its key {n}; they must be the same events."
            raise InputError(msg)
        out[f"reco_{side}"] = np.where(found[:, None], reco[rows], simulation.reco)
    moves = "pass_reco" in given or ("weight" not in given and not np.array_equal(passes, simulation.pass_reco))
    if moves:
        out[f"pass_reco_{side}"] = passes
    return out


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
