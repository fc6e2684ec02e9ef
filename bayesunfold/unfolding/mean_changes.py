"""What a systematic changes of generator weights, split into its mean at the unfolded features and the rest: (19).

The networks answer to a change of the weights by the logarithm of its mean at the features that they see. So that
logarithm is varied linearly, which the answer cancels to all orders, and what is left of each event's change by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from bayesunfold._support.threads import map_here
from bayesunfold.classifier.arithmetic import blocks
from bayesunfold.unfolding.perturbations import Variation
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["MeanChanges"]

Array = NDArray[np.floating]

FARTHEST = 3.0
"""Standard deviations beyond which a feature counts as there."""

ORDER, SLOPE_ORDER = 3, 5
"""Highest power of a feature: of changes at one standard deviation, whose mean must not run away where there are few
events, since its logarithm counts; and of slopes of profiled parameters, of which smooth ones should leave no rest."""

PAIRS = 16
"""Features of which products of two are used as well."""

LARGEST = 3.0
"""Largest mean factor, its inverse the least: powers of more would make few events count for many at two and three
standard deviations."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class MeanChanges:
    """Means of changes of the weights at the unfolded features: particle level, and detector level of fakes.

    They are least-squares fits of polynomials. An error of the mean counts by its square alone: mean and rest together
    are the whole change, to first order in the parameter and at one standard deviation.
    """

    events: StandardizedEvents

    def variation(self, alpha: Array, up: Array, down: Array | None = None, draws: Array | None = None) -> Variation:
        """From relative changes of the weights at one and minus one; the latter is the opposite of the former if None.

        Parameters
        ----------
        alpha : array, shape (n_members,)
        up, down : array, shape (n,)
        draws : array, shape (n, M), float32, optional
            Of the logarithm of ``1 + up``, less it.
        """
        if down is None:
            log, rest = self.split(up)
            return Variation(alpha, log, -log, draws=draws, rest=(rest, -rest))
        (log_up, log_down), (rest_up, rest_down) = (both.T for both in self.split(np.column_stack([up, down])))
        return Variation(alpha, log_up, log_down, draws=draws, rest=(rest_up, rest_down))

    def along(self, alpha: Array, slope: Array, parts: Mapping[str, Array]) -> Variation:
        """Of a profiled parameter, from the derivative of the logarithm of the weights at the fit, shape (n,).

        Its mean at the features is the derivative of the logarithm of the mean.

        Parameters
        ----------
        alpha : array, shape (n_members,)
        slope : array, shape (n,)
        parts : dict of source to array, shape (n_members,)
            What each source moves of ``alpha``.
        """
        mean = _mean(self._levels_of_slopes, slope)
        rest = slope - mean
        return Variation(alpha, mean, -mean, parts, rest=(rest, -rest))

    def split(self, change: Array) -> tuple[Array, Array]:
        """Logarithm of the mean factor at the features of each event, and the relative change beside it.

        Of one change, shape (n,), or of several, shape (n, k).
        """
        log = np.log(np.clip(1.0 + _mean(self._levels, change), 1.0 / LARGEST, LARGEST))
        return log, (1.0 + change) * np.exp(-log) - 1.0

    @cached_property
    def _levels(self) -> list[_Polynomial]:
        return self._of_order(ORDER)

    @cached_property
    def _levels_of_slopes(self) -> list[_Polynomial]:
        return self._of_order(SLOPE_ORDER)

    def _of_order(self, order: int) -> list[_Polynomial]:
        e = self.events
        every = [(np.flatnonzero(e.passes.gen), e.gen), (np.flatnonzero(e.passes.fakes), e.reco)]
        return [_Polynomial(rows, x, np.abs(e.weight), order) for rows, x in every if len(rows)]


def _mean(levels: list[_Polynomial], change: Array) -> Array:
    """The fit to changes, shape (n,) or (n, k); zero for events at neither level."""
    out = np.zeros(change.shape)
    for level in levels:
        out[level.rows] = level.mean(change[level.rows])
    return out


@dataclass(frozen=True)
class _Polynomial:
    """Least squares over some events, of powers of their features and of products of two."""

    rows: NDArray[np.integer]
    x: Array
    weight: Array
    order: int

    def mean(self, change: Array) -> Array:
        """The fit to changes, shape (rows,) or (rows, k)."""
        parts = map_here(lambda b: (self._design(b).T * self._weight(b)) @ change[b], blocks(len(self.rows)))
        coefficients = cho_solve(self._factor, np.sum(list(parts), axis=0))
        return np.concatenate(list(map_here(lambda b: self._design(b) @ coefficients, blocks(len(self.rows)))))

    @cached_property
    def _factor(self) -> tuple[Array, bool]:
        def one(block: slice) -> Array:
            design = self._design(block)
            return np.asarray(design.T @ (design * self._weight(block)[:, None]))

        gram = np.sum(list(map_here(one, blocks(len(self.rows)))), axis=0)
        factor: tuple[Array, bool] = cho_factor(gram + np.eye(len(gram)))  # directions without events stay at zero
        return factor

    @cached_property
    def _unit(self) -> float:
        return float(self.weight[self.rows].mean()) or 1.0

    def _weight(self, block: slice) -> Array:
        return np.asarray(self.weight[self.rows[block]] / self._unit)

    def _design(self, block: slice) -> Array:
        z = np.clip(self.x[self.rows[block]].astype(np.float64), -FARTHEST, FARTHEST)
        first, second = np.triu_indices(z.shape[1] if z.shape[1] <= PAIRS else 0, 1)
        powers = [z**k for k in range(1, self.order + 1)]
        return np.column_stack([np.ones(len(z)), *powers, z[:, first] * z[:, second]])
