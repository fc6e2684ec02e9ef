"""Prior scales learned from the events: each layer's by the evidence of the linearised network.

The Gaussian approximation of the marginal likelihood is stationary where a layer's weights, in units of their prior,
have as much squared length as the events determine degrees of freedom in it (MacKay, Neural Computation 4 (1992) 448,
doi:10.1162/neco.1992.4.3.448, eqs. 21-22); equation (R3) of ``docs/ratios.md``.

A network whose weights are all zero reproduces itself too, with scales that fall without end. Where no feature alone
tells the classes apart, it is a minimum that random starts end in though features together have much to tell. Other
starts are then tried.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import Layout, curvature, forward, tangent, weighted_gram
from bayesunfold.classifier.training import MapFit, fit_map, initial_weights
from bayesunfold.classifier.two_class import Joined
from bayesunfold.errors import ConvergenceWarning

__all__ = ["learn_scales"]

Array = NDArray[np.floating]

ROUNDS = 4
ROWS = 20_000
"""Events on which scales are learned; the fit itself then uses all of them."""
START = (1.0, 4.0)
"""First guess of hidden and output scales."""
SMALLEST, LARGEST = 1e-2, 30.0
MOST_CHANGE = 20.0
OTHER_STARTS = 6
"""Most starts beside one that ended in nothing."""
LEARNABLE = 9.0
"""Log evidence of a network that is fitted in its last layer only, against nothing, from which on there is something to
learn: samples that are alike reach it less than once in ``exp(9)`` starts."""


def __dir__() -> list[str]:
    return __all__


def learn_scales(
    layout: Layout,
    classes: Joined,
    rng: np.random.Generator,
    restarts: int = 1,
    others: np.random.Generator | None = None,
) -> tuple[Layout, Array]:
    """Prior scales of every layer, and network weights near the most probable ones.

    Parameters
    ----------
    layout : Layout
        Its scales are not used.
    classes : Joined
    rng : numpy.random.Generator
    restarts : int
        Random starts of the first fit.
    others : numpy.random.Generator, optional
        Weights of other starts, which are tried if the fit says nothing of the events; none are if omitted.

    Returns
    -------
    layout : Layout
    theta : array, shape (P,)

    Warns
    -----
    ConvergenceWarning
        If the network says nothing of the events from any start, though they have something to learn.
    """
    layout = replace(layout, scales=(START[0],) * (len(layout.scales) - 1) + (START[1],))
    # the additive part begins at the scale that it was given
    part = classes
    if len(classes.x) > ROWS:
        rows = np.sort(rng.choice(len(classes.x), ROWS, replace=False))
        # a part of the events at their own weights: as if there were fewer
        part = Joined(classes.x[rows], classes.ones[rows], classes.zeros[rows], classes.offset)
    fit = _first_fit(layout, part, rng, restarts=restarts)
    found = _rounds(layout, part, rng, fit.theta)
    if others is None or not _says_nothing(*found, part):
        return found
    return _other_start(layout, part, others, fit.objective) or found


def _first_fit(
    layout: Layout, part: Joined, rng: np.random.Generator, start: Array | None = None, restarts: int = 1
) -> MapFit:
    near = start is not None
    return fit_map(layout, part, rng, start=start, restarts=restarts, near=near, max_steps=40, tolerance=0.3)


def _rounds(layout: Layout, part: Joined, rng: np.random.Generator, theta: Array) -> tuple[Layout, Array]:
    """Scales in turn with fits, the first of which is given."""
    layout, theta = _rescale(layout, theta, part)
    for _ in range(ROUNDS - 1):
        fit = fit_map(layout, part, rng, start=theta, near=True, max_steps=8, tolerance=0.3)
        layout, theta = _rescale(layout, fit.theta, part)
    return layout, theta


def _says_nothing(layout: Layout, theta: Array, part: Joined) -> bool:
    """Whether the layers' output varies by less than one standard deviation of what the events determine."""
    output = forward(replace(layout, additive=None), theta[: layout.n_network], part.x)
    weight = np.maximum(part.curvature_weights(layout, theta), 0.0)
    return bool(weight @ (output - np.average(output, weights=weight)) ** 2 < 1.0)


def _other_start(
    layout: Layout, part: Joined, rng: np.random.Generator, objective: float
) -> tuple[Layout, Array] | None:
    """What is learned from the first start that says something and has a lower objective; None if none has."""
    most = -np.inf
    for _ in range(OTHER_STARTS):
        start, gain = _last_layer_fitted(layout, initial_weights(layout, rng), part)
        most = max(most, gain)
        if gain < 0.0:  # these features tell nothing
            continue
        fit = _first_fit(layout, part, rng, start)
        if fit.objective < objective and not _says_nothing(layout, fit.theta, part):
            found = _rounds(layout, part, rng, fit.theta)
            if not _says_nothing(*found, part):
                return found
    if most > LEARNABLE:
        msg = (
            "the network learned nothing from any random start, though a fit of its last layer alone tells the classes "
            f"apart with a log evidence of {most:.3g} (limit {LEARNABLE:g}); ratios and their bands are unreliable. "
            "Raise restarts=, give the network fixed scales instead of prior_scale='evidence', or use more events."
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=5)
    return None


def _last_layer_fitted(layout: Layout, theta: Array, part: Joined) -> tuple[Array, float]:
    """These hidden layers with the last one, and the additive part, after one Newton step from zero.

    Returns
    -------
    theta : array, shape (P,)
    gain : float
        Log evidence of that step for the last layer, whose model is linear, against the additive part alone.
    """
    first = layout.n_hidden_parameters
    theta = np.r_[theta[:first], np.zeros(layout.n_parameters - first)]
    features = tangent(layout, theta, part.x, np.eye(layout.n_parameters)[:, first:])
    matrix = np.eye(features.shape[1]) + weighted_gram(features, np.maximum(part.curvature_weights(layout, theta), 0.0))
    slope = -part.loss_and_gradient(layout, theta)[1][first:]
    theta[first:] = np.linalg.solve(matrix, slope)
    added = slice(layout.n_network - first, None)
    return theta, _step_evidence(matrix, slope) - _step_evidence(matrix[added, added], slope[added])


def _step_evidence(matrix: Array, slope: Array) -> float:
    """Log evidence of a linear model with Normal(0, 1) coefficients against none, from slope and curvature at zero."""
    return 0.5 * float(slope @ np.linalg.solve(matrix, slope) - np.linalg.slogdet(matrix)[1])


def _rescale(layout: Layout, theta: Array, classes: Joined) -> tuple[Layout, Array]:
    """New scales (R3), and the same network in their units."""
    values, vectors = np.linalg.eigh(curvature(layout, theta, classes.x, classes.curvature_weights(layout, theta)))
    determined = 1.0 - (vectors**2) @ (1.0 / (1.0 + np.maximum(values, 0.0)))
    scales, theta = [], theta.copy()
    groups = [slice(weights.start, biases.stop) for weights, biases, *_ in layout.pieces()]
    old = [*layout.scales]
    if layout.additive is not None:
        groups.append(slice(layout.n_network, layout.n_parameters))
        old.append(layout.additive.scale)
    for scale, rows in zip(old, groups, strict=True):
        freedom = max(float(determined[rows].sum()), 1e-3)
        change = np.clip(float(theta[rows] @ theta[rows]) / freedom, 1 / MOST_CHANGE, MOST_CHANGE)
        new = float(np.clip(scale * np.sqrt(change), SMALLEST, LARGEST))
        theta[rows] *= scale / new
        scales.append(new)
    if layout.additive is None:
        return replace(layout, scales=tuple(scales)), theta
    additive = replace(layout.additive, scale=scales.pop())
    return replace(layout, scales=tuple(scales), additive=additive), theta
