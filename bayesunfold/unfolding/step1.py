"""Step 1 of the first iteration as a measurement: the events it tells apart, and its linearised posterior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.linearized import linearize
from bayesunfold.classifier.sampling import LinearizedPosterior
from bayesunfold.classifier.stage import Stage
from bayesunfold.unfolding.perturbations import Fluctuations, Sample, Samples
from bayesunfold.unfolding.propagation import posterior_axes
from bayesunfold.unfolding.standardized import Prepared

__all__ = ["linearize_step1", "step1_events"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


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
