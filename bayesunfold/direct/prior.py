"""Gaussian prior of the particle-level network: a precision each, and combinations that are as good as free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["ParameterPrior"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class ParameterPrior:
    """Covariance ``diag(1 / precision) + free free'``.

    Attributes
    ----------
    precision : array, shape (P,)
    free : array, shape (P, K)
        Changes that mimic nuisance parameters, equation (N4).
    """

    precision: Array
    free: Array

    def spread(self, v: Array) -> Array:
        """Covariance times a vector or matrix, shape (P,) or (P, n)."""
        out = (v.T / self.precision).T
        return out + self.free @ (self.free.T @ v) if self.free.shape[1] else out

    def stiffness(self, v: Array) -> Array:
        """Inverse covariance times a vector, shape (P,)."""
        out = self.precision * v
        return out - self._shared @ (self._shared.T @ v) if self.free.shape[1] else out

    def add_to(self, curvature: Array) -> None:
        """Add the inverse covariance to a matrix, shape (P, P)."""
        curvature.flat[:: len(curvature) + 1] += self.precision
        if self.free.shape[1]:
            curvature -= self._shared @ self._shared.T

    @cached_property
    def _shared(self) -> Array:
        """``L`` of the inverse covariance ``D - L L'``, by the Woodbury identity."""
        du = self.precision[:, None] * self.free
        inner = np.eye(self.free.shape[1]) + self.free.T @ du
        return np.asarray(np.linalg.solve(np.linalg.cholesky(inner), du.T)).T
