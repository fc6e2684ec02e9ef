"""The most probable weights of a network (MAP), found by damped Gauss-Newton steps.

What to use when
----------------
There is nothing to choose: :func:`fit_map` starts wide networks and large samples with
minibatch Adam, and finishes everything with Gauss-Newton steps on *all* events, because the
propagation of uncertainties (``propagation.py``) assumes a stationary point. A fit stops when
the Newton decrement, the length of the remaining step in units of the posterior's own width, is
below ``tolerance``.

Cost: a Gauss-Newton step is ``2 min(n, 4000 or 4 P) P^2`` operations, 10 ms for 2000 events and 321
weights. For more weights than rows the same step is solved in the space of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from bayesunfold._support.progress import tick
from bayesunfold._support.threads import accelerator
from bayesunfold.classifier.arithmetic import Layout, curvature, tangent
from bayesunfold.classifier.two_class import WIDE, Joined
from bayesunfold.errors import ConvergenceError

__all__ = ["MapFit", "fit_map", "initial_weights"]

Array = NDArray[np.floating]

CURVATURE_ROWS = 4_000
"""Rows that the curvature of a small network is estimated from, or four a weight if that is more; the
gradient always uses all of them."""

START_ROWS = 10_000
"""Rows that random starts are compared on."""

CURVATURE_ROWS_PER_WEIGHT = 4
KEEP_CURVATURE = 4
"""Steps for which wide networks keep a curvature."""

ADAM_BATCH = 4_096
ADAM_EPOCHS, ADAM_RATE = 60.0, 0.05
ADAM_STEPS = 7_500
"""Most steps: large samples are not passed as often."""

ADAM_TICK = 100
"""Steps between two looks at the clock, and per call of an accelerator."""

ADAM_SHARE = 0.2
"""Of the time of a fit, about."""

WARM_EPOCHS, WARM_RATE = 10.0, 0.01
"""Wide networks start with Adam; a warm start takes fewer passes and smaller steps."""

STEPS = 60
"""Most Gauss-Newton steps of networks that are not wide."""

COLD_STEPS, WARM_STEPS, FEWEST_STEPS = 250, 40, 20
"""Most Gauss-Newton steps of wide networks, from random and from earlier weights, and of the widest ones."""
AFFORDABLE = 3_000
"""Weights at which ``FEWEST_STEPS`` take as long as seems right; a curvature costs the cube of their number."""
WIDE_TOLERANCE = 0.5
"""Remaining step of wide networks, which spreads over a hundred directions or more."""


def __dir__() -> list[str]:
    return __all__


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
        Whether ``decrement`` is below three times the tolerance asked for.
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


def _objective(layout: Layout, theta: Array, classes: Joined, centre: Array) -> tuple[float, Array]:
    loss, gradient = classes.loss_and_gradient(layout, theta)
    shift = theta - centre
    return loss + 0.5 * float(shift @ shift), gradient + shift


class _Curvature:
    """Gauss-Newton curvature ``J' W J + I`` at one point, ready to solve with damping."""

    def __init__(self, layout: Layout, theta: Array, classes: Joined) -> None:
        weights = classes.curvature_weights(layout, theta)
        self.age = 0
        self._factor: tuple[float, tuple[Array, bool]] | None = None
        self.dual = len(classes.x) < layout.n_parameters and bool(np.all(weights >= 0))
        if self.dual:
            jacobian = tangent(layout, theta, classes.x)
            self.rows = jacobian * np.sqrt(weights)[:, None].astype(jacobian.dtype)
            self.matrix: Array = (self.rows @ self.rows.T).astype(np.float64)
        else:
            self.matrix = curvature(layout, theta, classes.x, weights)

    def solve(self, gradient: Array, damping: float) -> Array:
        """``(J' W J + (1 + damping) I)^-1 gradient``; raises ``LinAlgError`` if indefinite."""
        shift = 1.0 + damping
        if self._factor is None or self._factor[0] != damping:
            damped = self.matrix.copy()
            damped.flat[:: len(damped) + 1] += shift
            self._factor = damping, cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
        factor = self._factor[1]
        if not self.dual:
            return cho_solve(factor, gradient)
        return (gradient - self.rows.T @ cho_solve(factor, self.rows @ gradient)) / shift


def _curvature_of(layout: Layout, theta: Array, classes: Joined, rng: np.random.Generator) -> _Curvature:
    """Curvature from all events, or from a random part of many."""
    rows = max(CURVATURE_ROWS, CURVATURE_ROWS_PER_WEIGHT * layout.n_parameters)
    if len(classes.x) > rows:
        classes = classes.subset(np.sort(rng.choice(len(classes.x), rows, replace=False)))
    return _Curvature(layout, theta, classes)


def _gauss_newton(
    layout: Layout,
    theta: Array,
    classes: Joined,
    centre: Array,
    rng: np.random.Generator,
    max_steps: int,
    tolerance: float,
) -> MapFit:
    """Levenberg-Marquardt steps until the Newton decrement is below ``tolerance``.

    Wide networks, whose curvature costs much more than a gradient, keep it for several steps.
    """
    value, gradient = _objective(layout, theta, classes, centre)
    trace = [value]
    damping, growth, decrement, steps, quiet = 0.0, 2.0, np.inf, 0, 0
    keep = KEEP_CURVATURE if layout.n_parameters > WIDE else 1
    curvature: _Curvature | None = None
    while steps < max_steps:
        tick(steps / max_steps)
        steps += 1
        if curvature is None:
            curvature = _curvature_of(layout, theta, classes, rng)
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
        decrement = float(np.sqrt(max(-float(gradient @ step), 0.0)))
        new_value, new_gradient = _objective(layout, theta + step, classes, centre)
        predicted = -0.5 * float(gradient @ step) + 0.5 * damping * float(step @ step)
        gain = (value - new_value) / max(predicted, 1e-300)
        if new_value <= value or (predicted < 1e-9 * (1.0 + abs(value)) and np.isfinite(new_value)):
            theta, value, gradient = theta + step, new_value, new_gradient
            trace.append(value)
            # a change of the objective by 0.5 is one posterior standard deviation
            quiet = quiet + 1 if trace[-2] - value < 0.5 * tolerance**2 else 0
            if quiet >= 2 or (decrement < tolerance and damping < 1.0):
                break
            curvature.age += 1
            if curvature.age >= keep or gain < 0.25:
                damping = 0.0 if damping < 1e-2 else damping * max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
                curvature = None
            growth = 2.0
        else:
            if decrement < tolerance and damping < 1.0:
                break
            if curvature.age:  # out of date: try a fresh one before damping more
                curvature = None
                continue
            damping = max(damping * growth, 0.1)
            growth *= 2.0
            if damping > 1e10:
                break
    remaining = _remaining_step(layout, theta, classes, gradient, rng)
    return MapFit(theta, value, remaining, steps, remaining < 3 * tolerance, tuple(trace))


def _remaining_step(layout: Layout, theta: Array, classes: Joined, gradient: Array, rng: np.random.Generator) -> float:
    """Length of the undamped Newton step in posterior standard deviations; infinite if there is none.

    The decrement of a damped step would be small for the damping's sake.
    """
    try:
        step = _curvature_of(layout, theta, classes, rng).solve(gradient, 0.0)
    except np.linalg.LinAlgError:
        return np.inf
    return float(np.sqrt(max(float(gradient @ step), 0.0)))


def _adam(
    layout: Layout,
    theta: Array,
    classes: Joined,
    centre: Array,
    rng: np.random.Generator,
    epochs: float,
    rate: float,
) -> Array:
    """Minibatch Adam with a cosine decay; the prior is spread evenly over the batches."""
    n = len(classes.x)
    batch = min(n, ADAM_BATCH)
    n_steps = min(max(100, int(epochs * n / batch)), ADAM_STEPS)
    rates = rate * (0.5 * (1.0 + np.cos(np.pi * np.arange(1, n_steps + 1) / n_steps)) + 1e-3)
    batches = _minibatches(n, batch, rng)
    state = theta, np.zeros_like(theta), np.zeros_like(theta)
    device = accelerator.get()
    for done in range(0, n_steps, ADAM_TICK):
        now = rates[done : done + ADAM_TICK]
        if device is None:
            for step, (each, rows) in enumerate(zip(now, batches, strict=False), done + 1):
                state = _adam_step(layout, state, classes.subset(rows), centre, each, step)
        else:
            rows = np.stack(list(islice(batches, len(now))))
            rest = (0, min(ADAM_TICK, n_steps) - len(now))  # calls of one length, with steps that lead nowhere
            rows, rates_now = np.pad(rows, (rest, (0, 0))), np.pad(now, rest)
            state = device.minibatch_steps(layout, state, classes, centre, rows, rates_now, done)
        tick(ADAM_SHARE * (done + len(now)) / n_steps)
    return state[0]


def _minibatches(n: int, batch: int, rng: np.random.Generator) -> Iterator[NDArray[np.integer]]:
    """Rows of batches without end: each pass over the events is in an order of its own."""
    while True:
        order = rng.permutation(n)
        for end in range(batch, n + 1, batch):
            yield order[end - batch : end]


def _adam_step(
    layout: Layout, state: tuple[Array, Array, Array], part: Joined, centre: Array, rate: float, step: int
) -> tuple[Array, Array, Array]:
    """Weights and moments of the gradient after a step."""
    theta, first, second = state
    gradient = _objective(layout, theta, part, centre)[1]
    first = first + 0.1 * (gradient - first)
    second = second + 0.01 * (gradient**2 - second)
    moved = theta - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return moved, first, second


def fit_map(
    layout: Layout,
    classes: Joined,
    rng: np.random.Generator,
    *,
    start: Array | None = None,
    centre: Array | None = None,
    restarts: int = 1,
    near: bool = False,
    max_steps: int | None = None,
    tolerance: float = 0.1,
) -> MapFit:
    """Find the most probable weights.

    Parameters
    ----------
    layout : Layout
        The network.
    classes : Joined
        Events and their weights in both classes.
    rng : numpy.random.Generator
        Initial weights, minibatches and curvature rows.
    start : array, shape (P,), optional
        Warm start, from the previous iteration. Random initial weights otherwise.
    centre : array, shape (P,), optional
        Mean of the weights' Normal(centre, 1) prior; zero if omitted.
    restarts : int
        Random starts tried on a part of the events; the lowest objective is kept.
    near : bool
        Whether ``start`` is close to the result, so that minibatch steps would only lead away.
    max_steps : int, optional
        Most Gauss-Newton steps on all events; 60 if omitted, for wide networks what ``_wide_steps`` allows.
    tolerance : float
        Remaining Newton step, in posterior standard deviations, at which to stop.

    Returns
    -------
    MapFit

    Raises
    ------
    ConvergenceError
        If negative weights make the curvature indefinite whatever the damping.
    """
    centre = np.zeros(layout.n_parameters) if centre is None else centre
    wide = layout.n_parameters > WIDE
    affordable = _wide_steps(layout.n_parameters, COLD_STEPS if start is None else WARM_STEPS) if wide else STEPS
    max_steps = affordable if max_steps is None else min(max_steps, affordable)
    if start is None:
        start = _best_start(layout, classes, centre, rng, restarts, wide)
    elif wide and affordable < WARM_STEPS and not near:
        start = _adam(layout, start, classes, centre, rng, WARM_EPOCHS, WARM_RATE)
    if wide:
        tolerance = max(tolerance, WIDE_TOLERANCE)
    return _gauss_newton(layout, start, classes, centre, rng, max_steps, tolerance)


def _wide_steps(parameters: int, most: int) -> int:
    """Gauss-Newton steps that a wide network may take: fewer, the more each of them costs."""
    return int(np.clip(FEWEST_STEPS * (AFFORDABLE / parameters) ** 2, FEWEST_STEPS, most))


def _best_start(
    layout: Layout, classes: Joined, centre: Array, rng: np.random.Generator, restarts: int, wide: bool
) -> Array:
    """The random start that leads to the lowest objective, on a part of many events for small networks."""
    starts = [initial_weights(layout, rng) for _ in range(restarts)]
    if wide:
        thetas = [_adam(layout, theta, classes, centre, rng, ADAM_EPOCHS, ADAM_RATE) for theta in starts]
        objectives = [_objective(layout, theta, classes, centre)[0] for theta in thetas]
    else:
        part = classes
        if len(classes.x) > START_ROWS:
            part = classes.subset(np.sort(rng.choice(len(classes.x), START_ROWS, replace=False)))
        fits = [_gauss_newton(layout, theta, part, centre, rng, 40, 0.3) for theta in starts]
        thetas, objectives = [fit.theta for fit in fits], [fit.objective for fit in fits]
    return thetas[int(np.argmin(objectives))]
