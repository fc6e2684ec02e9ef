"""A random part of a sample's events that stands for all of them where a rough sum is enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Part"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Part:
    """Some events of a sample, and what each of them counts.

    Attributes
    ----------
    rows : int array, shape (m,)
        Rows of the sample, in order.
    factor : array, shape (m,)
        Inverse of the probability to be chosen: the sum over the part of factor times anything estimates the sum over
        the sample.
    """

    rows: NDArray[np.integer]
    factor: Array

    @classmethod
    def choose(cls, weight: Array, size: int, rng: np.random.Generator, leverage: Array | None = None) -> Part:
        """About ``size`` events, half of the probability spread evenly and half in proportion to the weights.

        Parameters
        ----------
        weight : array, shape (n,)
            By absolute value; events of weight zero are not chosen. The factors keep the sum of the absolute weights.
        size : int
            Where there are no more events, all of them are taken.
        rng : numpy.random.Generator
        leverage : array, shape (n,), optional
            As many events more, in proportion to the weights times this.
        """
        sizes = np.abs(weight)
        used = np.flatnonzero(sizes)
        if size >= len(used):
            return cls(used, np.ones(len(used)))
        order = rng.permutation(used)
        share = sizes[order] / sizes.sum()
        expected = size * (0.5 / len(used) + 0.5 * share)
        if leverage is not None:
            more = share * leverage[order]
            expected += size * more / (more.sum() or 1.0)
        ends = np.floor(np.cumsum(expected) + rng.uniform())
        times = np.diff(ends, prepend=0.0)
        chosen = times > 0
        rows, factor = order[chosen], times[chosen] / expected[chosen]
        factor *= sizes.sum() / (factor @ sizes[rows])
        place = np.argsort(rows)
        return cls(rows[place], factor[place])
