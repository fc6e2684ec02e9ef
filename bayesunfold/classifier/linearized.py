"""From a fitted classifier to the posterior of its linearised network in whitened axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import forward, tangent
from bayesunfold.classifier.sampling import LinearizedPosterior
from bayesunfold.unfolding.perturbations import Fluctuations, Sample, Samples
from bayesunfold.unfolding.propagation import Stage, posterior_axes
from bayesunfold.unfolding.standardized import Prepared

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
        From :func:`bayesunfold.unfolding.propagation.posterior_axes`.
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
    axes, precision = posterior_axes(stage, silent_samples(events))
    x, label, weight = step1_events(events, stage)
    return linearize(stage, x, label, weight, axes, precision), axes


def silent_samples(events: Prepared) -> Samples:
    """All events with no members."""

    def sample(name: str, x: Array) -> Sample:
        return Sample(name, {"reco": x}, Fluctuations(len(x), 0, 0))

    backgrounds = tuple(sample(b.name, b.features) for b in events.backgrounds)
    return Samples(sample("data", events.data), sample("simulation", events.reco), backgrounds)


def step1_events(events: Prepared, stage: Stage) -> tuple[Array, NDArray[np.integer], Array]:
    """Features, labels and weights of the events that step 1 tells apart: data, simulation, backgrounds."""
    used = np.flatnonzero(stage.zeros != 0)
    n = len(events.data)
    backgrounds = events.backgrounds
    x = np.concatenate([events.data, events.reco[used], *(b.features for b in backgrounds)])
    label = np.zeros(len(x), dtype=np.int64)
    label[:n] = 1
    ones = np.zeros(n) if stage.data_ones is None else stage.data_ones
    return x, label, np.concatenate([ones, stage.zeros[used], *(stage.background_zeros[b.name] for b in backgrounds)])
