"""Prior scales learned from the events: each layer's by the evidence of the linearised network.

The Gaussian approximation of the marginal likelihood is stationary where a layer's weights, in units of their prior,
have as much squared length as the events determine degrees of freedom in it (MacKay, Neural Computation 4 (1992) 448,
doi:10.1162/neco.1992.4.3.448, eqs. 21-22); equation (R3) of ``docs/ratios.md``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import Layout, curvature
from bayesunfold.classifier.training import fit_map
from bayesunfold.classifier.two_class import Joined

__all__ = ["learn_scales"]

Array = NDArray[np.floating]

ROUNDS = 4
ROWS = 20_000
"""Events on which scales are learned; the fit itself then uses all of them."""
START = (1.0, 4.0)
"""First guess of hidden and output scales."""
SMALLEST, LARGEST = 1e-2, 30.0
MOST_CHANGE = 20.0


def __dir__() -> list[str]:
    return __all__


def learn_scales(layout: Layout, classes: Joined, rng: np.random.Generator, restarts: int = 1) -> tuple[Layout, Array]:
    """Prior scales of every layer, and network weights near the most probable ones.

    Parameters
    ----------
    layout : Layout
        Its scales are not used.
    classes : Joined
    rng : numpy.random.Generator
    restarts : int
        Random starts of the first fit.

    Returns
    -------
    layout : Layout
    theta : array, shape (P,)
    """
    layout = replace(layout, scales=(START[0],) * (len(layout.scales) - 1) + (START[1],))
    # the additive part begins at the scale that it was given
    part = classes
    if len(classes.x) > ROWS:
        rows = np.sort(rng.choice(len(classes.x), ROWS, replace=False))
        # a part of the events at their own weights: as if there were fewer
        part = Joined(classes.x[rows], classes.ones[rows], classes.zeros[rows], classes.offset)
    theta: Array | None = None
    for _ in range(ROUNDS):
        first = theta is None
        fit = fit_map(
            layout,
            part,
            rng,
            start=theta,
            restarts=restarts,
            near=not first,
            max_steps=40 if first else 8,
            tolerance=0.3,
        )
        layout, theta = _rescale(layout, fit.theta, part)
    if theta is None:  # pragma: no cover - ROUNDS is positive
        msg = "no rounds"
        raise ValueError(msg)
    return layout, theta


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
