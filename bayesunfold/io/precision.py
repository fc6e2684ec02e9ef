"""Which columns single precision can hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import InputError

__all__ = ["Ranges", "check_whole_numbers"]

EXACT = 2**24
"""Whole numbers up to this are exact in single precision."""

DOUBLE = 2**53
"""Larger numbers in double precision are whole without being counts."""

COARSE = 1e-4
"""Range of a column over its size below which single precision, exact to 6e-8 of the size, is too coarse."""

NOISE = 1e-12
"""Range of a column over its size up to which it is one number, with the rounding of its arithmetic."""


def __dir__() -> list[str]:
    return __all__


def check_whole_numbers(values: NDArray[Any], column: str, path: str | Path) -> None:
    """Whole numbers that single precision tells apart."""
    finite = values[np.isfinite(values)]
    largest = np.abs(finite).max(initial=0.0)
    if EXACT < largest < DOUBLE and np.array_equal(finite, np.round(finite)):
        msg = (
            f"{column!r} of {path} holds whole numbers up to {largest:.0f}; above {EXACT} neighbouring ones are "
            'no longer distinct in single precision. Subtract an offset, or pass dtype="float64".'
        )
        raise InputError(msg)


class Ranges:
    """How far columns reach in all events.

    Parameters
    ----------
    found : mapping of str to list
        Number of finite values of each column, the smallest and the largest.
    """

    def __init__(self, found: Mapping[str, list[float]]) -> None:
        self.found = dict(found)

    def add(self, chunk: Mapping[str, NDArray[Any]]) -> None:
        """Columns of further events; flags have no range."""
        for column, values in chunk.items():
            finite = values[np.isfinite(values)]
            if finite.size and values.dtype.kind != "b":
                n, low, high = self.found.get(column, (0, np.inf, -np.inf))
                self.found[column] = [n + finite.size, min(low, float(finite.min())), max(high, float(finite.max()))]

    def check(self) -> None:
        """Columns of several values whose variation single precision rounds away."""
        for column, (n, low, high) in self.found.items():
            spread, largest = high - low, max(abs(low), abs(high))
            if n > 1 and NOISE * largest < spread < COARSE * largest:
                msg = (
                    f"{column!r} varies by {spread:.3g} about {(low + high) / 2:.8g} in {n} events, which single "
                    'precision rounds away; subtract an offset, or pass dtype="float64".'
                )
                raise InputError(msg)
