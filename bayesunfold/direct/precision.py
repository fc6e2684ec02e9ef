"""Prior precisions of the network and of its additive part: a hyperprior, and its posterior given the data.

The moments are linear in the network's parameters near the mode, ``y = A theta + noise``, so the parameters can be
integrated out: ``y ~ N(0, C)`` with ``C = 1 + sum_g A_g A_g' / tau_g``, equation (D5).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from bayesunfold.direct.mode import Mode, Problem

__all__ = ["PrecisionPosterior", "precision_posterior"]

Array = NDArray[np.floating]

GRID = np.linspace(-2.0, 4.0, 25)
"""Logarithms of the precisions that are looked at, in widths of the hyperprior.

Precisions more than two widths below one would let weights overflow where the detector sees nothing.
"""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class PrecisionPosterior:
    """Posterior of the logarithms of the prior precisions on a grid.

    Attributes
    ----------
    log_tau : array, shape (points, groups)
    probability : array, shape (points,)
    """

    log_tau: Array
    probability: Array

    def mean(self) -> Array:
        """Mean of the logarithms, shape (groups,)."""
        return self.probability @ self.log_tau

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Grid points of ``n`` draws, shape (n,)."""
        return rng.choice(len(self.probability), size=n, p=self.probability)


def precision_posterior(problem: Problem, mode: Mode, width: float) -> PrecisionPosterior:
    """Posterior of the precisions near a mode.

    Parameters
    ----------
    problem : Problem
    mode : Mode
    width : float
        Of the Normal hyperprior of each ``log tau``, whose mean is zero.
    """
    y = pseudo_observation(problem, mode)
    grams = [mode.derivative[:, group] @ mode.derivative[:, group].T for group in problem.groups]
    points = np.array(list(itertools.product(width * GRID, repeat=len(grams))))
    log_p = np.empty(len(points))
    for k, log_tau in enumerate(points):
        factor = cho_factor(covariance(grams, np.exp(log_tau)), lower=True)
        log_p[k] = -np.log(np.diag(factor[0])).sum() - 0.5 * y @ cho_solve(factor, y)
        log_p[k] -= 0.5 * ((log_tau / width) ** 2).sum()
    probability = np.exp(log_p - log_p.max())
    return PrecisionPosterior(points, probability / probability.sum())


def pseudo_observation(problem: Problem, mode: Mode) -> Array:
    """``y``: what the moments would be at the prior's centre, to first order about the mode, shape (p,)."""
    return mode.residual + mode.derivative @ (mode.theta - problem.centre)


def covariance(grams: Sequence[Array], tau: Array) -> Array:
    """``C``, shape (p, p)."""
    out = np.eye(len(grams[0]))
    for gram, value in zip(grams, tau, strict=True):
        out += gram / value
    return out
