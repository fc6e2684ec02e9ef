"""The most probable weights of a network (MAP), found by damped Gauss-Newton steps.

What to use when
----------------
There is nothing to choose: :func:`fit_map` starts wide networks and large samples with
minibatch Adam, and finishes everything with Gauss-Newton steps on *all* events, because the
propagation of uncertainties (``propagation.py``) assumes a stationary point. A fit stops when
the Newton decrement, the length of the remaining step in units of the posterior's own width, is
below ``tolerance``.

Cost: a Gauss-Newton step is ``2 min(n, 4000 or 8 P) P^2`` operations, 10 ms for 2000 events and 321
weights. For more weights than rows the same step is solved in the space of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from bayesunfold.errors import ConvergenceError
from bayesunfold.mlp import Layout, blocks, forward, loss_and_gradient, tangent

__all__ = ["Problem", "MapFit", "fit_map", "initial_weights"]

Array = NDArray[np.floating]

CURVATURE_ROWS = 4_000
"""Rows that the curvature of a small network is estimated from, or eight a weight if that is more; the
gradient always uses all of them."""

START_ROWS = 10_000
"""Rows that random starts are compared on."""

ADAM_ABOVE = 1_000
"""Networks with more weights than this start with minibatch Adam."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Problem:
    """Two weighted classes on one list of events.

    Attributes
    ----------
    x : array, shape (n, d)
        Standardised features.
    ones, zeros : array, shape (n,)
        Weight of each event in class 1 and class 0.
    offset : float
        Log ratio of the classes' total weights, the fixed part of the logit.
    """

    x: Array
    ones: Array
    zeros: Array
    offset: float

    def subset(self, rows: NDArray[np.integer]) -> Problem:
        """The same problem estimated from some of the rows, weights scaled up to the total."""
        factor = len(self.x) / len(rows)
        return Problem(self.x[rows], self.ones[rows] * factor, self.zeros[rows] * factor, self.offset)

    def curvature_weights(self, layout: Layout, theta: Array) -> Array:
        """Second derivative of each event's loss with respect to the network's output."""
        q = expit(forward(layout, theta, self.x) + self.offset)
        return (self.ones + self.zeros) * q * (1.0 - q)


@dataclass(frozen=True)
class MapFit:
    """A fitted network.

    Attributes
    ----------
    theta : array, shape (P,)
        Standardised weights.
    objective : float
        Loss plus prior at ``theta``.
    decrement : float
        Length of the remaining Newton step in posterior standard deviations.
    steps : int
        Gauss-Newton steps on all events.
    converged : bool
        Whether ``decrement`` is below the tolerance asked for.
    trace : tuple of float
        Objective after each accepted step.
    """

    theta: Array
    objective: float
    decrement: float
    steps: int
    converged: bool
    trace: tuple[float, ...] = field(default=(), repr=False)


def initial_weights(layout: Layout, rng: np.random.Generator) -> Array:
    """Random start: hidden layers from their prior, a small output layer (all zero is a saddle)."""
    theta = rng.standard_normal(layout.n_parameters)
    theta[layout.n_hidden_parameters :] *= 0.1
    return theta


def _objective(layout: Layout, theta: Array, problem: Problem, centre: Array) -> tuple[float, Array]:
    loss, gradient = loss_and_gradient(layout, theta, problem.x, problem.ones, problem.zeros, problem.offset)
    shift = theta - centre
    return loss + 0.5 * float(shift @ shift), gradient + shift


class _Curvature:
    """Gauss-Newton curvature ``J' W J + I`` at one point, ready to solve with damping."""

    def __init__(self, layout: Layout, theta: Array, problem: Problem) -> None:
        weights = problem.curvature_weights(layout, theta)
        jacobian = tangent(layout, theta, problem.x)
        self.dual = len(jacobian) < jacobian.shape[1] and bool(np.all(weights >= 0))
        if self.dual:
            self.rows = jacobian * np.sqrt(weights)[:, None].astype(jacobian.dtype)
            self.matrix = (self.rows @ self.rows.T).astype(np.float64)
        else:
            self.matrix = (jacobian.T @ (jacobian * weights[:, None].astype(jacobian.dtype))).astype(np.float64)

    def solve(self, gradient: Array, damping: float) -> Array:
        """``(J' W J + (1 + damping) I)^-1 gradient``; raises ``LinAlgError`` if indefinite."""
        shift = 1.0 + damping
        damped = self.matrix + shift * np.eye(len(self.matrix))
        if not self.dual:
            return cho_solve(cho_factor(damped, lower=True), gradient)
        inner = cho_solve(cho_factor(damped, lower=True), self.rows @ gradient)
        return (gradient - self.rows.T @ inner) / shift


def _gauss_newton(
    layout: Layout,
    theta: Array,
    problem: Problem,
    centre: Array,
    rng: np.random.Generator,
    max_steps: int,
    tolerance: float,
) -> MapFit:
    """Levenberg-Marquardt steps until the Newton decrement is below ``tolerance``."""
    value, gradient = _objective(layout, theta, problem, centre)
    trace = [value]
    damping, growth, decrement, steps, quiet = 0.0, 2.0, np.inf, 0, 0
    curvature: _Curvature | None = None
    most_rows = max(CURVATURE_ROWS, 8 * layout.n_parameters)
    for steps in range(1, max_steps + 1):
        if curvature is None:
            rows = problem
            if len(problem.x) > most_rows:
                chosen = rng.choice(len(problem.x), most_rows, replace=False)
                rows = problem.subset(np.sort(chosen))
            curvature = _Curvature(layout, theta, rows)
        try:
            step = -curvature.solve(gradient, damping)
        except np.linalg.LinAlgError:
            damping, growth = max(10.0 * damping, 1.0), 2.0
            if damping > 1e8:
                msg = (
                    "the curvature of the classifier is not positive definite; this happens when "
                    "negative event weights dominate a region. Merge or drop such events."
                )
                raise ConvergenceError(msg) from None
            continue
        # g' A^-1 g: with no damping, the squared length of the step in posterior widths
        decrement = float(np.sqrt(max(-(gradient @ step), 0.0)))
        new_value, new_gradient = _objective(layout, theta + step, problem, centre)
        predicted = -0.5 * float(gradient @ step) + 0.5 * damping * float(step @ step)
        gain = (value - new_value) / max(predicted, 1e-300)
        if new_value <= value or (predicted < 1e-9 * (1.0 + abs(value)) and np.isfinite(new_value)):
            theta, value, gradient = theta + step, new_value, new_gradient
            trace.append(value)
            # a change of the objective by 0.5 is one posterior standard deviation
            quiet = quiet + 1 if trace[-2] - value < 0.5 * tolerance**2 else 0
            done = quiet >= 2 or (decrement < tolerance and damping < 1.0)
            damping = 0.0 if damping < 1e-2 else damping * max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
            growth = 2.0
            curvature = None
            if done:
                return MapFit(theta, value, decrement, steps, converged=True, trace=tuple(trace))
        else:
            if decrement < tolerance and damping < 1.0:
                return MapFit(theta, value, decrement, steps, converged=True, trace=tuple(trace))
            damping = max(damping * growth, 0.1)
            growth *= 2.0
            if damping > 1e10:
                break
    return MapFit(theta, value, decrement, steps, decrement < tolerance, tuple(trace))


def _adam(
    layout: Layout, theta: Array, problem: Problem, centre: Array, rng: np.random.Generator, epochs: float
) -> Array:
    """Minibatch Adam with a cosine decay; the prior is spread evenly over the batches."""
    n = len(problem.x)
    batch = int(min(n, max(512, n // 200)))
    n_steps = max(200, int(epochs * n / batch))
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    order = rng.permutation(n)
    position = 0
    for step in range(1, n_steps + 1):
        if position + batch > n:
            order, position = rng.permutation(n), 0
        rows = order[position : position + batch]
        position += batch
        part = problem.subset(rows)
        _, gradient = _objective(layout, theta, part, centre)
        first += 0.1 * (gradient - first)
        second += 0.01 * (gradient**2 - second)
        rate = 0.05 * 0.5 * (1.0 + np.cos(np.pi * step / n_steps)) + 1e-4
        theta = theta - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return theta


def fit_map(
    layout: Layout,
    problem: Problem,
    rng: np.random.Generator,
    *,
    start: Array | None = None,
    centre: Array | None = None,
    restarts: int = 1,
    max_steps: int = 60,
    tolerance: float = 0.1,
    epochs: float = 8.0,
) -> MapFit:
    """Find the most probable weights.

    Parameters
    ----------
    layout : Layout
        The network.
    problem : Problem
        Events and their weights in both classes.
    rng : numpy.random.Generator
        Initial weights, minibatches and curvature rows.
    start : array, shape (P,), optional
        Warm start, from the previous iteration. Random initial weights otherwise.
    centre : array, shape (P,), optional
        Mean of the weights' Normal(centre, 1) prior; zero if omitted.
    restarts : int
        Random starts tried on a part of the events; the lowest objective is kept.
    max_steps : int
        Gauss-Newton steps on all events.
    tolerance : float
        Remaining Newton step, in posterior standard deviations, at which to stop.
    epochs : float
        Passes over the events by Adam, where it is used at all.

    Returns
    -------
    MapFit

    Raises
    ------
    ConvergenceError
        If negative weights make the curvature indefinite whatever the damping.
    """
    centre = np.zeros(layout.n_parameters) if centre is None else centre
    wide = layout.n_parameters > ADAM_ABOVE
    if start is None:
        starts = [initial_weights(layout, rng) for _ in range(restarts)]
        n_part = min(len(problem.x), START_ROWS)
        part = problem
        if n_part < len(problem.x):
            part = problem.subset(np.sort(rng.choice(len(problem.x), n_part, replace=False)))
        fits = []
        for theta in starts:
            if wide:
                theta = _adam(layout, theta, part if restarts > 1 else problem, centre, rng, epochs)
                fits.append((_objective(layout, theta, part, centre)[0], theta))
            else:
                fit = _gauss_newton(layout, theta, part, centre, rng, 40, 0.3)
                fits.append((fit.objective, fit.theta))
        start = min(fits, key=lambda pair: pair[0])[1]
    elif wide:
        start = _adam(layout, start, problem, centre, rng, epochs / 4)
    return _gauss_newton(layout, start, problem, centre, rng, max_steps, tolerance)


def total_loss(layout: Layout, theta: Array, problem: Problem) -> float:
    """Weighted Bernoulli loss at ``theta``, without the prior."""
    loss = 0.0
    for block in blocks(len(problem.x), 65536):
        part = Problem(problem.x[block], problem.ones[block], problem.zeros[block], problem.offset)
        loss += loss_and_gradient(layout, theta, part.x, part.ones, part.zeros, part.offset)[0]
    return loss
