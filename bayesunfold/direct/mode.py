"""The most probable particle-level network: equations (D3), (D4).

The moments' chi-square plus the network's prior; gradients are exact, curvatures, which only precondition the steps,
come from a part of many events.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from bayesunfold._support.threads import map_blocks, map_here
from bayesunfold.classifier.arithmetic import Layout, blocks, tangent
from bayesunfold.classifier.sums import ForwardPass
from bayesunfold.direct.moments import Moments
from bayesunfold.direct.prior import ParameterPrior
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Mode", "Problem", "find_mode", "mode_at", "parameter_groups", "thinned_rows"]

Array = NDArray[np.floating]

CURVATURE_EVENTS = 20_000
"""Events that a curvature is estimated from while the fit moves."""

FINAL_EVENTS = 100_000
"""Events that the derivative of the moments is estimated from at the end."""

STEPS, MOST_ROUNDS, TOLERANCE = 20, 60, 0.03
"""Steps with one preconditioner, most preconditioners, and the remaining Newton step, in posterior standard deviations,
at which to stop."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Problem:
    """What the particle-level network is fitted to.

    Attributes
    ----------
    layout : Layout
    moments : Moments
    gen : array, shape (n, d)
        Standardised events that pass both levels.
    weight : array, shape (n,)
        Their generator weights.
    groups : tuple of slice
        Parameters that share a prior precision, from :func:`parameter_groups`.
    centre : array, shape (P,)
        Mean of the parameters' prior: hidden layers that span functions, no output. Hidden layers that a prior about
        zero pulls to zero would leave no tangent space, and a band without the prior's freedom.
    features : array, shape (n, p)
        Whitened detector-level features.
    free : array, shape (P, K)
        Changes of the parameters that mimic profiled nuisance parameters.
    """

    layout: Layout
    moments: Moments
    gen: Array
    weight: Array
    groups: tuple[slice, ...]
    centre: Array
    features: Array = field(repr=False)
    free: Array = field(repr=False)

    @classmethod
    def of(cls, events: StandardizedEvents, layout: Layout, moments: Moments, centre: Array) -> Problem:
        """The events that pass both levels."""
        both = events.passes.both
        reco = events.reco[both]
        features = np.empty((len(reco), len(moments)), dtype=np.float32)
        for rows, part in map_blocks(lambda rows: (rows, moments.features(reco[rows])), blocks(len(reco))):
            features[rows] = part
        free = np.zeros((layout.n_parameters, 0))
        return cls(
            layout,
            moments,
            events.gen[both],
            events.reco_weight[both],
            parameter_groups(layout),
            centre,
            features,
            free,
        )

    def prior(self, tau: Array) -> ParameterPrior:
        """Of the parameters, about their centre."""
        return ParameterPrior(self.precisions(tau), self.free)

    def precisions(self, tau: Array) -> Array:
        """Prior precision of every parameter, shape (P,)."""
        out = np.empty(self.layout.n_parameters)
        for group, value in zip(self.groups, tau, strict=True):
            out[group] = value
        return out

    def at(self, theta: Array) -> ForwardPass:
        """The network at the events."""
        return ForwardPass.of(self.layout, theta, self.gen)

    def weights(self, network: ForwardPass) -> Array:
        """Weights of the events at a network, in expected data events, shape (n,)."""
        raw = self.weight * np.exp(network.output - network.output.max())
        return raw * (self.moments.signal / raw.sum())

    def residual(self, weights: Array) -> Array:
        """Whitened moments (D1), data minus refolded, shape (p,)."""
        w = weights.astype(self.features.dtype)
        refolded = np.zeros(self.features.shape[1])
        for part in map_here(lambda rows: self.features[rows].T @ w[rows], blocks(len(w))):
            refolded += part
        return self.moments.data - refolded

    def pull(self, residual: Array) -> Array:
        """``residual . features`` of each event, shape (n,)."""
        r = residual.astype(self.features.dtype)
        return np.concatenate(list(map_here(lambda rows: self.features[rows] @ r, blocks(len(self.features)))))

    def gradient(self, network: ForwardPass, weights: Array, pull: Array) -> Array:
        """``sum w (J - mean J) a`` with ``a`` each event's factor, shape (P,)."""
        coefficients = weights * pull
        coefficients -= weights * (coefficients.sum() / weights.sum())
        return network.gradient_sum(coefficients)

    def derivative(self, theta: Array, weights: Array, rows: NDArray[np.integer]) -> Array:
        """``A`` of (D4), whitened, estimated from some of the events, shape (p, P)."""
        w = weights[rows] * (weights.sum() / weights[rows].sum())
        total = np.zeros((self.features.shape[1], self.layout.n_parameters))
        mean = np.zeros(self.layout.n_parameters)
        phi_w = np.zeros(self.features.shape[1])

        def one(block: slice) -> tuple[Array, Array, Array]:
            part = rows[block]
            j = tangent(self.layout, theta, self.gen[part])
            weighted = self.features[part] * w[block, None].astype(np.float32)
            return weighted.T @ j, w[block].astype(np.float32) @ j, weighted.sum(axis=0)

        for product, sum_j, sum_phi in map_blocks(one, blocks(len(rows))):
            total += product
            mean += sum_j
            phi_w += sum_phi
        return total - np.outer(phi_w, mean / w.sum())


def parameter_groups(layout: Layout) -> tuple[slice, ...]:
    """Parameters that share a prior precision: each layer's, and each feature's in the additive part."""
    groups = [slice(weights.start, biases.stop) for weights, biases, *_ in layout.pieces()]
    if layout.additive is not None:
        feature = np.array(layout.additive.feature)
        ends = layout.n_network + np.flatnonzero(np.diff(feature, prepend=-1, append=-1))
        groups += [slice(int(low), int(high)) for low, high in itertools.pairwise(ends)]
    return tuple(groups)


@dataclass(frozen=True)
class Mode:
    """The most probable network and what is linear about it.

    Attributes
    ----------
    theta : array, shape (P,)
    tau : array, shape (groups,)
        Prior precisions.
    residual : array, shape (p,)
        Whitened moments at the mode.
    derivative : array, shape (p, P)
        Whitened ``A``.
    decrement : float
        Remaining Newton step in posterior standard deviations.
    alpha : array, shape (K,)
        Profiled nuisance parameters, where the simulation is.
    columns : array, shape (p, K)
        Derivative of the refolded moments by them, whitened: ``B`` of (N1) to (N3).
    correlation : array, shape (K, K)
        Of the nuisance parameters before the data: their prior covariance, ``R``.
    free : array, shape (P, K)
        Changes of the parameters that mimic them, equation (N4).
    """

    theta: Array
    tau: Array
    residual: Array
    derivative: Array
    decrement: float
    alpha: Array = field(default_factory=lambda: np.zeros(0))
    columns: Array = field(default_factory=lambda: np.zeros((1, 0)))
    correlation: Array = field(default_factory=lambda: np.zeros((0, 0)))
    free: Array = field(default_factory=lambda: np.zeros((1, 0)))

    @property
    def mimics(self) -> Array:
        """Derivative of the moments by the changes that mimic nuisance parameters, shape (p, K)."""
        return self.derivative @ self.free if self.free.shape[1] else self.columns

    @property
    def chi2(self) -> float:
        """Of the moments."""
        return float(self.residual @ self.residual)


def find_mode(
    problem: Problem, start: Array, tau: Array, most: int = MOST_ROUNDS, tolerance: float = TOLERANCE
) -> Mode:
    """Most probable parameters for given prior precisions.

    Quasi-Newton steps (L-BFGS, Nocedal, Math. Comp. 35 (1980) 773) in coordinates whitened by the Gauss-Newton
    curvature. It is taken again after every few steps, and lacks the second derivatives of the weights, which steps
    learn.

    Parameters
    ----------
    problem : Problem
    start : array, shape (P,)
    tau : array, shape (groups,)
    most : int
        Preconditioners.
    tolerance : float
        Remaining Newton step, in posterior standard deviations, at which to stop.
    """
    prior = problem.prior(tau)
    theta, value, quiet = start, np.inf, 0
    for _ in range(most):
        theta, new, gradient = _descend(problem, theta, prior, tolerance)
        quiet = quiet + 1 if value - new < 0.5 * tolerance**2 else 0
        value = new
        if gradient < tolerance or quiet > 1:
            break
    return mode_at(problem, theta, tau)


def mode_at(problem: Problem, theta: Array, tau: Array) -> Mode:
    """Moments and their derivative at given parameters, and how far the mode is from them."""
    prior, network = problem.prior(tau), problem.at(theta)
    weights = problem.weights(network)
    residual = problem.residual(weights)
    derivative = problem.derivative(theta, weights, thinned_rows(len(weights), FINAL_EVENTS))
    slope = _slope(problem, network, prior, weights, residual)
    remaining = float(np.sqrt(max(float(slope @ _solve(derivative, prior, slope)), 0.0)))
    return Mode(theta, tau, residual, derivative, remaining)


def _descend(problem: Problem, start: Array, prior: ParameterPrior, tolerance: float) -> tuple[Array, float, float]:
    """Some steps with one preconditioner: parameters, objective, and the length of the whitened gradient."""
    a = problem.derivative(start, problem.weights(problem.at(start)), thinned_rows(len(problem.gen), CURVATURE_EVENTS))
    curvature = a.T @ a
    prior.add_to(curvature)
    factor = cholesky(curvature, lower=True, overwrite_a=True)

    def parameters(z: Array) -> Array:
        return start + solve_triangular(factor, z, lower=True, trans=1)

    def objective(z: Array) -> tuple[float, Array]:
        network = problem.at(parameters(z))
        weights = problem.weights(network)
        residual = problem.residual(weights)
        slope = _slope(problem, network, prior, weights, residual)
        value = _objective(residual, prior, network.theta - problem.centre)
        return value, solve_triangular(factor, slope, lower=True)

    options = {"maxiter": STEPS, "maxcor": STEPS, "gtol": 0.1 * tolerance, "ftol": 0.0}
    found = minimize(objective, np.zeros(len(start)), jac=True, method="L-BFGS-B", options=options)
    return parameters(found.x), float(found.fun), float(np.linalg.norm(found.jac))


def _slope(problem: Problem, network: ForwardPass, prior: ParameterPrior, weights: Array, residual: Array) -> Array:
    """Gradient of the objective, shape (P,)."""
    slope = problem.gradient(network, weights, problem.pull(residual))
    return prior.stiffness(network.theta - problem.centre) - slope


def _objective(residual: Array, prior: ParameterPrior, shift: Array) -> float:
    return 0.5 * float(residual @ residual) + 0.5 * float(shift @ prior.stiffness(shift))


def thinned_rows(n: int, most: int) -> NDArray[np.integer]:
    """All events, or evenly spaced ones."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(int)


def _solve(a: Array, prior: ParameterPrior, right: Array) -> Array:
    """``(A' A + inverse covariance)^-1 right``, in the smaller space."""
    if len(a) < a.shape[1]:
        scaled = prior.spread(a.T)
        inner = a @ scaled
        inner.flat[:: len(inner) + 1] += 1.0
        first = prior.spread(right)
        return first - scaled @ cho_solve(cho_factor(inner, lower=True), a @ first)
    inner = a.T @ a
    prior.add_to(inner)
    return cho_solve(cho_factor(inner, lower=True), right)
