"""Particle level and detector level from tables of their own: matched by event identifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_features, check_exact
from bayesunfold.errors import InputError
from bayesunfold.unfolding.matching import match_rows

__all__ = ["Levels", "match_levels"]

Array = NDArray[Any]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Levels:
    """Which rows of two tables, one of the particle level and one of the detector level, are the same event.

    Events are those of the particle level in their order, then those that only the detector level has.

    Attributes
    ----------
    gen_row, reco_row : array, shape (n,)
        Row of an event in each table, -1 where it has none.
    """

    gen_row: NDArray[np.integer]
    reco_row: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.gen_row)

    def __repr__(self) -> str:
        alone = f"{self.only_gen} at particle level only, {self.only_reco} at detector level only"
        return f"Levels({self.matched} in both, {alone})"

    @property
    def matched(self) -> int:
        """Events that are in both tables."""
        return int(((self.gen_row >= 0) & (self.reco_row >= 0)).sum())

    @property
    def only_gen(self) -> int:
        """Events that only the particle level has: misses."""
        return int((self.reco_row < 0).sum())

    @property
    def only_reco(self) -> int:
        """Events that only the detector level has: fakes."""
        return int((self.gen_row < 0).sum())

    def gen(self, values: ArrayLike) -> Array:
        """A column, or columns, of the particle level event by event, shape (n,) or (n, d).

        Events without a row are NaN, as are masked values; for flags, False.

        Parameters
        ----------
        values : array, or frame, of as many rows as the key of the particle level
            Numbers or flags.

        Raises
        ------
        InputError
            If it has another number of rows, is no number or flag, holds whole numbers beyond 2^53, or masked flags.

        Examples
        --------
        >>> match_levels([1, 2], [2, 9]).gen([10.0, 20.0])
        array([10., 20., nan])
        """
        return _taken(values, self.gen_row, "particle level")

    def reco(self, values: ArrayLike) -> Array:
        """A column, or columns, of the detector level event by event; as :meth:`gen`.

        Examples
        --------
        >>> match_levels([1, 2], [2, 9]).reco([True, True])
        array([False,  True,  True])
        """
        return _taken(values, self.reco_row, "detector level")

    def either(self, gen: ArrayLike, reco: ArrayLike) -> Array:
        """What both levels have, a weight: the particle level's, and the detector level's where only that exists.

        Examples
        --------
        >>> match_levels([1, 2], [2, 9]).either([0.5, 0.7], [0.8, 0.9])
        array([0.5, 0.7, 0.9])
        """
        return np.where(self.gen_row >= 0, self.gen(gen), self.reco(reco))


def match_levels(gen_key: ArrayLike, reco_key: ArrayLike) -> Levels:
    """Match events of the particle level with those of the detector level.

    For files where the particle level is a tree of its own, which also holds the events that were not reconstructed.

    Parameters
    ----------
    gen_key, reco_key : array, shape (n,) and (m,), or (n, k) and (m, k), or tuple of k arrays
        Identifiers: numbers or texts, of one or several columns (run, event). A tuple keeps each column's type.

    Returns
    -------
    Levels

    Raises
    ------
    InputError
        Different numbers of columns, identifiers that are NaN or not unique, tables that share no event.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> truth = {"event": np.array([1, 2, 3]), "pt": np.array([31.0, 52.0, 44.0])}
    >>> measured = {"event": np.array([3, 1, 8]), "pt": np.array([40.0, 33.0, 30.5])}
    >>> levels = bu.match_levels(truth["event"], measured["event"])
    >>> levels
    Levels(2 in both, 1 at particle level only, 1 at detector level only)
    >>> bu.Simulation(
    ...     levels.gen(truth["pt"]), levels.reco(measured["pt"]),
    ...     pass_gen=levels.gen(truth["pt"] > 30), pass_reco=levels.reco(measured["pt"] > 30),
    ... )
    Simulation(4 events, gen: gen, reco: reco, misses: 1, fakes: 1, effective size: 4.0)
    """
    reco_row = match_rows(gen_key, reco_key, "the detector level", "the particle level")
    n_reco = _rows(reco_key)
    used = np.zeros(n_reco, dtype=bool)
    used[reco_row[reco_row >= 0]] = True
    if not used.any():
        msg = (
            f"none of {len(reco_row)} events of the particle level is among the {n_reco} of the detector level; check "
            "that both keys are the same identifier."
        )
        raise InputError(msg)
    alone = np.flatnonzero(~used)
    gen_row = np.concatenate([np.arange(len(reco_row)), np.full(len(alone), -1)])
    return Levels(gen_row, np.concatenate([reco_row, alone]))


def _rows(key: ArrayLike) -> int:
    return len(key[0]) if isinstance(key, tuple) and np.ndim(key[0]) > 0 else len(np.asarray(key))


def _taken(values: ArrayLike, rows: NDArray[np.integer], what: str) -> Array:
    """Rows of an array, what does not exist as NaN or False."""
    if np.ma.is_masked(values):
        masked = np.ma.asarray(values)
        if masked.dtype == bool:
            msg = (
                f"flags of the {what} are masked in {int(np.ma.getmaskarray(masked).sum())} events; say whether they "
                "pass, for instance with .filled(False)."
            )
            raise InputError(msg)
        values = as_features(masked, f"an array of the {what}")[0].reshape(masked.shape)
    array = np.asarray(values)
    if array.dtype == object or array.dtype.names is not None or isinstance(values, dict):
        array = as_features(values, f"an array of the {what}")[0]
    if array.dtype.kind not in "biuf":
        msg = f"an array of the {what} holds {array.dtype} values; only numbers and flags can be taken."
        raise InputError(msg)
    check_exact(array, f"an array of the {what}")
    there = rows >= 0  # each row of a table is one event
    if array.ndim not in (1, 2) or len(array) != there.sum():
        msg = f"an array of the {what} has shape {array.shape}; its key has {there.sum()} events."
        raise InputError(msg)
    if array.dtype == bool:
        out = np.zeros((len(rows), *array.shape[1:]), dtype=bool)
    else:
        out = np.full((len(rows), *array.shape[1:]), np.nan, dtype=np.result_type(array.dtype, np.float32))
    out[there] = array[rows[there]]
    return out
