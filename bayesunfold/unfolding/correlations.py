"""Nuisance parameters that are correlated before the data, as parts of one calibration in several periods are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from bayesunfold.unfolding.systematics import Systematic

__all__ = ["as_correlation", "check_correlations", "given_correlations", "partners_of", "prior_correlation"]

Array = NDArray[np.floating]
LEAST = 1e-6
"""Smallest eigenvalue of a correlation matrix that leaves each parameter something of its own."""


def __dir__() -> list[str]:
    return __all__


def as_correlation(given: object, name: str) -> dict[str, float]:
    """The argument ``correlation`` of a systematic, checked."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        msg = (
            f"correlation of {name!r} is a {type(given).__name__}; pass a dict of other systematics' names, each with "
            "the correlation of its parameter with this one, for instance {'scale_2016': 0.5}."
        )
        raise InputTypeError(msg)
    out = {}
    for other, value in given.items():
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not number or not -1 < value < 1:
            cure = "One that is shared whole is one systematic." if number and abs(value) == 1 else ""
            msg = f"correlation of {name!r} with {other!r} is {value!r}; it must be a number between -1 and 1. {cure}"
            raise InputError(msg.strip())
        if other == name:
            msg = f"correlation of {name!r} names {name!r} itself; name other systematics."
            raise InputError(msg)
        out[str(other)] = float(value)
    return out


def check_correlations(systematics: Sequence[Systematic]) -> None:
    """Whether correlations belong to systematics that are there, agree, and can all be.

    Raises
    ------
    InputError
    """
    known = {s.name: s for s in systematics}
    for s in systematics:
        for other, value in s.correlation.items():
            if other not in known:
                there = ", ".join(repr(name) for name in known)
                msg = f"correlation of {s.name!r} names {other!r}; the systematics are: {there}."
                raise InputError(msg)
            back = known[other].correlation.get(s.name, value)
            if back != value:
                msg = (
                    f"the correlation of {s.name!r} with {other!r} is {value:g}, and that of {other!r} with {s.name!r} "
                    f"is {back:g}; give it once, or the same twice."
                )
                raise InputError(msg)
            if s.profile != known[other].profile:
                one, not_one = (s.name, other) if s.profile else (other, s.name)
                msg = f"{one!r} is profiled and {not_one!r} is not; correlated ones are profiled together, or neither."
                raise InputError(msg)
    matrix = prior_correlation(given_correlations(systematics), list(known))
    lowest = float(np.linalg.eigvalsh(matrix)[0]) if len(matrix) else 1.0
    if lowest < LEAST:
        told = ", ".join(repr(s.name) for s in systematics if _is_told(s, systematics))
        msg = (
            f"the correlations of {told} cannot all be: the lowest eigenvalue of their matrix is {lowest:.2g} and must "
            f"be at least {LEAST:g}. Two that are each correlated with a third are correlated with one another; give "
            "that too. Two that are all but the same are one systematic."
        )
        raise InputError(msg)


def given_correlations(systematics: Sequence[Systematic]) -> dict[str, dict[str, float]]:
    """By systematic: correlations that were given with it."""
    return {s.name: s.correlation for s in systematics if s.correlation}


def prior_correlation(given: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> Array:
    """Correlation matrix of nuisance parameters, shape (K, K); those that are not given are independent.

    Parameters
    ----------
    given : mapping of str to mapping of str to float
        From :func:`given_correlations`; it may name others too.
    names : sequence of str
        The parameters.

    Examples
    --------
    >>> prior_correlation({"a": {"b": 0.5}}, ["a", "b"])
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    matrix = np.eye(len(names))
    row = {name: k for k, name in enumerate(names)}
    for name, others in given.items():
        for other, value in others.items():
            if name in row and other in row:
                matrix[row[name], row[other]] = matrix[row[other], row[name]] = value
    return matrix


def partners_of(names: Sequence[str], correlation: Array) -> dict[str, dict[str, float]]:
    """By parameter: the others that it is correlated with.

    Examples
    --------
    >>> partners_of(["a", "b", "c"], np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]))
    {'a': {'b': 0.5}, 'b': {'a': 0.5}}
    """
    out = {}
    for k, name in enumerate(names):
        others = {other: float(r) for other, r in zip(names, correlation[k], strict=True) if r != 0 and other != name}
        if others:
            out[name] = others
    return out


def _is_told(systematic: Systematic, systematics: Sequence[Systematic]) -> bool:
    """Whether a correlation of it is given somewhere."""
    return bool(systematic.correlation) or any(systematic.name in s.correlation for s in systematics)
