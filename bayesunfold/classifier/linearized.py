"""From a fitted classifier to the posterior of its linearised network in whitened axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import forward, tangent
from bayesunfold.classifier.sampling import LinearizedPosterior
from bayesunfold.classifier.stage import Stage

__all__ = ["linearize", "whitened_directions"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def whitened_directions(stage: Stage, axes: Array, precision: Array) -> Array:
    """Directions of weight space in which the posterior is about N(0, 1), shape (P, p).

    With ``A = V L V'`` and ``axes = V sqrt(L)``, the displacement is ``basis V L^-1/2 z``.
    """
    return stage.basis @ (axes / precision)


def linearize(
    stage: Stage, x: Array, label: NDArray[Any], weight: Array, axes: Array, precision: Array
) -> LinearizedPosterior:
    """The linearised posterior of a classifier on labelled events.

    Parameters
    ----------
    stage : Stage
        The classifier at its most probable weights, whose prior is N(0, 1).
    x : array, shape (n, d)
    label, weight : array, shape (n,)
    axes, precision : arrays
        From :func:`bayesunfold.classifier.stage.whitened_axes`.
    """
    directions = whitened_directions(stage, axes, precision)
    return LinearizedPosterior(
        tangent=tangent(stage.layout, stage.theta, x, directions),
        log_ratio=forward(stage.layout, stage.theta, x),
        label=label,
        weight=weight,
        offset=stage.offset,
        # the weights' prior N(0, 1), rotated and scaled, is N(mean, width) along each axis
        mean=-(axes.T @ (stage.basis.T @ stage.theta)),
        width=np.sqrt(precision),
    )
