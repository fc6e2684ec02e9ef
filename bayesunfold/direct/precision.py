"""Prior precisions of the network's layers and of its additive part: a hyperprior, and its posterior given the data.

The moments are linear in the network's parameters near the mode, ``y = A theta + noise``, so the parameters can be
integrated out: ``y ~ N(0, C)`` with ``C = 1 + sum_g A_g A_g' / tau_g``, equation (D5). Profiled nuisance parameters,
of prior covariance ``R``, are more columns, and so are changes of the network that mimic them: ``C`` gains
``B R B' + M M'``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from bayesunfold.direct.mode import Mode, Problem

__all__ = [
    "Evidence",
    "PrecisionPosterior",
    "base_covariance",
    "covariance",
    "distinct",
    "grams_of",
    "precision_posterior",
]

Array = NDArray[np.floating]

LEAST, MOST = -2.0, 6.0
"""Logarithms of the precisions that are allowed, in widths of the hyperprior.

Precisions more than two widths below one would let weights overflow where the detector sees nothing.
"""

POINTS, FREEDOM = 500, 8.0
"""Points at which the posterior is evaluated, drawn from a Student t distribution of so many degrees of freedom."""

ADAPTATIONS, ENOUGH, SMALLEST_SPREAD = 4, 60.0, 1e-3
"""Most times that a sample is taken, the effective size that is enough, and what is added to a sample's variance."""

STEP = 1e-3
"""Of the finite differences of gradients."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class PrecisionPosterior:
    """Posterior of the logarithms of the prior precisions, as weighted points.

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

    @property
    def effective_size(self) -> float:
        """Number of equally probable points that say as much."""
        return float(1.0 / (self.probability**2).sum())

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Points of ``n`` draws, shape (n,)."""
        return rng.choice(len(self.probability), size=n, p=self.probability)


@dataclass(frozen=True)
class Evidence:
    """Probability of the moments for given precisions, the network's parameters integrated out.

    Attributes
    ----------
    y : array, shape (p,)
        What the moments would be at the prior's centre, to first order about the mode.
    grams : tuple of array, shape (p, p)
        ``A_g A_g'`` of each group.
    width : float
        Of the Normal hyperprior of each ``log tau``, whose mean is zero.
    base : array, shape (p, p)
        Covariance of the moments at a given network: their noise, one, and what profiled nuisance parameters and the
        changes that mimic them add.
    """

    y: Array
    grams: tuple[Array, ...]
    width: float
    base: Array

    @classmethod
    def of(cls, problem: Problem, mode: Mode, width: float) -> Evidence:
        """The evidence near a mode."""
        grams = grams_of(mode.derivative, problem.groups)
        return cls(pseudo_observation(problem, mode), grams, width, base_covariance(mode))

    def covariance(self, tau: Array) -> Array:
        """``C``, shape (p, p)."""
        return covariance(self.base, self.grams, tau)

    def log_density(self, log_tau: Array) -> float:
        """Log posterior of the precisions, but for a constant; minus infinity where they are not allowed."""
        scaled = log_tau / self.width
        if scaled.min() < LEAST or scaled.max() > MOST:
            return -np.inf
        factor = cho_factor(self.covariance(np.exp(log_tau)), lower=True, overwrite_a=True, check_finite=False)
        fit = 0.5 * self.y @ cho_solve(factor, self.y, check_finite=False)
        return float(-np.log(np.diag(factor[0])).sum() - fit - 0.5 * scaled @ scaled)

    def gradient(self, log_tau: Array) -> Array:
        """Derivative of :meth:`log_density`, shape (groups,)."""
        tau = np.exp(log_tau)
        inverse = np.linalg.inv(self.covariance(tau))
        r = inverse @ self.y
        change = [float((inverse * gram).sum() - r @ gram @ r) / t for gram, t in zip(self.grams, tau, strict=True)]
        return 0.5 * np.array(change) - log_tau / self.width**2

    def mode(self, start: Array) -> Array:
        """Most probable logarithms, shape (groups,)."""
        bounds = [(LEAST * self.width, MOST * self.width)] * len(start)
        found = minimize(
            lambda t: (-self.log_density(t), -self.gradient(t)), start, jac=True, method="L-BFGS-B", bounds=bounds
        )
        return np.asarray(found.x)

    def spread(self, mode: Array) -> Array:
        """Covariance of the Gaussian about the mode, not wider than the hyperprior, shape (groups, groups)."""
        shifts = STEP * np.eye(len(mode))
        curvature = np.array([self.gradient(mode - s) - self.gradient(mode + s) for s in shifts]) / (2 * STEP)
        values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
        return (vectors / np.maximum(values, 1.0 / self.width**2)) @ vectors.T


def precision_posterior(evidence: Evidence, start: Array, rng: np.random.Generator) -> PrecisionPosterior:
    """Posterior of the precisions near a mode, by importance sampling, from a better proposal where the first is poor.

    Parameters
    ----------
    evidence : Evidence
    start : array, shape (groups,)
    rng : numpy.random.Generator

    References
    ----------
    O. Cappe et al., J. Comput. Graph. Stat. 13 (2004) 907, doi:10.1198/106186004X12803.
    """
    centre = evidence.mode(start)
    spread = evidence.spread(centre)
    for _ in range(ADAPTATIONS):
        found = _importance_sample(evidence, centre, spread, rng)
        if found.effective_size > ENOUGH:
            break
        # where the posterior is not like the Gaussian about its mode, the sample says where it is
        centre = found.mean()
        shift = found.log_tau - centre
        spread = (shift * found.probability[:, None]).T @ shift
        spread = spread + SMALLEST_SPREAD * np.eye(len(centre))
    return found


def _importance_sample(
    evidence: Evidence, centre: Array, spread: Array, rng: np.random.Generator
) -> PrecisionPosterior:
    """Points from a Student t distribution, weighted by the posterior."""
    root = np.linalg.cholesky(spread)
    normal = rng.standard_normal((POINTS, len(centre)))
    z = normal / np.sqrt(rng.chisquare(FREEDOM, POINTS) / FREEDOM)[:, None]
    points = centre + z @ root.T
    proposal = -0.5 * (FREEDOM + len(centre)) * np.log1p((z**2).sum(axis=1) / FREEDOM)
    log_p = np.array([evidence.log_density(point) for point in points]) - proposal
    probability = np.exp(log_p - log_p.max())
    return PrecisionPosterior(points, probability / probability.sum())


def pseudo_observation(problem: Problem, mode: Mode) -> Array:
    """``y``: what the moments would be at the prior's centre, to first order about the mode, shape (p,)."""
    return mode.residual + mode.derivative @ (mode.theta - problem.centre) + mode.columns @ mode.alpha


def base_covariance(mode: Mode) -> Array:
    """Of the moments at a given network, but for what mimics nuisance parameters, shape (p, p)."""
    return np.eye(len(mode.residual)) + mode.mimics @ mode.mimics.T + mode.columns @ mode.correlation @ mode.columns.T


def grams_of(derivative: Array, groups: Sequence[slice]) -> tuple[Array, ...]:
    """``A_g A_g'`` of each group, shape (p, p)."""
    return tuple(derivative[:, group] @ derivative[:, group].T for group in groups)


def distinct(log_tau: Array) -> Iterator[tuple[Array, NDArray[np.integer]]]:
    """Every different row of precisions, shape (groups,), and the members that have it."""
    points, place = np.unique(log_tau, axis=0, return_inverse=True)
    for k, point in enumerate(points):
        yield np.exp(point), np.flatnonzero(place.ravel() == k)


def covariance(base: Array, grams: Sequence[Array], tau: Array) -> Array:
    """``C``, shape (p, p)."""
    out = base.copy()
    for gram, value in zip(grams, tau, strict=True):
        out += gram / value
    return out
