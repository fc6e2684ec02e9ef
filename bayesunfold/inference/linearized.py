"""From a fitted classifier to the posterior of its linearised network in whitened axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.inference.draws import LinearizedPosterior
from bayesunfold.mlp import forward, tangent
from bayesunfold.prepare import Prepared
from bayesunfold.propagation import Fluctuations, Sample, Stage, posterior_axes

__all__ = ["linearize", "linearize_step1", "whitened_directions"]

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
        From :func:`bayesunfold.propagation.posterior_axes`.
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


def linearize_step1(events: Prepared, stage: Stage) -> tuple[LinearizedPosterior, Array]:
    """Step 1 of the first iteration, and its posterior axes.

    Data are class 1, the simulated events that pass detector level are class 0.
    """
    if stage.data_ones is None:
        msg = "only step 1 has data events"
        raise ValueError(msg)
    data = Sample({"reco": events.data}, Fluctuations(len(events.data), 0, 0))
    simulation = Sample({"reco": events.reco}, Fluctuations(len(events.reco), 0, 0))
    axes, precision = posterior_axes(stage, data, simulation)
    x, label, weight = step1_events(events, stage)
    return linearize(stage, x, label, weight, axes, precision), axes


def step1_events(events: Prepared, stage: Stage) -> tuple[Array, Array, Array]:
    """Features, labels and weights of the events that step 1 tells apart."""
    used = np.flatnonzero(stage.zeros != 0)
    n = len(events.data)
    x = np.concatenate([events.data, events.reco[used]])
    label = np.concatenate([np.ones(n, dtype=np.int64), np.zeros(len(used), dtype=np.int64)])
    ones = np.zeros(n) if stage.data_ones is None else stage.data_ones
    return x, label, np.concatenate([ones, stage.zeros[used]])
