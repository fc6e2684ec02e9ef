"""What stays while a fit moves, and the fit of network and precisions at fixed inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import stream
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.direct.mode import TOLERANCE, Mode, Problem, find_mode, mode_at
from bayesunfold.direct.moments import Moments, detector_weights
from bayesunfold.direct.precision import Evidence
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.omnifold.problems import bounded_ratio
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Fit", "Setup", "find_mode_and_precisions", "prior_centre", "push_weights"]

Array = NDArray[np.floating]

ROUNDS, ROUGH = 6, 0.5
"""Most times that the precisions and the mode follow each other, and how near to the mode, in posterior standard
deviations, is near enough while the precisions move."""

SETTLED = 0.2
"""Change of the logarithm of a precision that calls for no other round."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Setup:
    """What stays while network, precisions and nuisance parameters move.

    Attributes
    ----------
    layout : Layout
        Of the particle-level network.
    first : Iteration
        Whose classifier gives the fakes' weights, and the covariance of the moments.
    moments : Moments
    centre : array, shape (P,)
        Mean of the network's prior.
    width : float
        Of the hyperprior.
    """

    layout: Layout
    first: Iteration
    moments: Moments
    centre: Array
    width: float

    def problem(self, events: StandardizedEvents) -> Problem:
        """What the network is fitted to, with some inputs."""
        moments = self.moments.at(events, detector_weights(events, self.first))
        return Problem.of(events, self.layout, moments, self.centre)

    def push(self, events: StandardizedEvents, mode: Mode) -> Array:
        """Push weights at a mode, shape (n,)."""
        return push_weights(events, self.first, self.network(mode))

    def network(self, mode: Mode) -> Classifier:
        """The network at the mode as a classifier, of the classes of the first step 2."""
        return Classifier("the particle-level network", self.layout, mode.theta, self.first.step2.classes)


@dataclass(frozen=True)
class Fit:
    """Network and precisions at some inputs.

    Attributes
    ----------
    setup : Setup
    problem : Problem
    mode : Mode
    evidence : Evidence
        Near the mode.
    log_tau : array, shape (groups,)
        Logarithms of the most probable precisions; with a user's hyperprior, of their mean.
    """

    setup: Setup
    problem: Problem
    mode: Mode
    evidence: Evidence
    log_tau: Array

    @classmethod
    def of(cls, setup: Setup, events: StandardizedEvents, start: Array, log_tau: Array | None) -> Fit:
        """The fit at inputs that stay."""
        problem = setup.problem(events)
        return cls(setup, problem, *find_mode_and_precisions(problem, start, log_tau, setup.width))

    def at_precisions(self, log_tau: Array) -> Fit:
        """The fit of the network at other precisions, which stay."""
        mode = find_mode(self.problem, self.mode.theta, np.exp(log_tau))
        return replace(self, mode=mode, evidence=Evidence.of(self.problem, mode, self.setup.width), log_tau=log_tau)


def find_mode_and_precisions(
    problem: Problem, start: Array, log_tau: Array | None, width: float
) -> tuple[Mode, Evidence, Array]:
    """The mode, the evidence near it and the most probable precisions, each given the other, until they stay.

    Parameters
    ----------
    problem : Problem
    start : array, shape (P,)
    log_tau : array, shape (groups,), optional
        Logarithms of the precisions to start with; by default the most probable ones near the start.
    width : float
        Of the hyperprior.
    """
    if log_tau is None:
        unit = np.zeros(len(problem.groups))
        log_tau = Evidence.of(problem, mode_at(problem, start, np.exp(unit)), width).mode(unit)
    theta, settled = start, False
    for left in reversed(range(ROUNDS)):
        tolerance = TOLERANCE if settled or not left else ROUGH
        mode = find_mode(problem, theta, np.exp(log_tau), tolerance=tolerance)
        evidence, theta = Evidence.of(problem, mode, width), mode.theta
        old, log_tau = log_tau, evidence.mode(log_tau)
        stays = bool(np.all(np.abs(log_tau - old) < SETTLED))
        if stays and settled:
            break
        settled = settled or stays
    return mode, evidence, log_tau


def prior_centre(layout: Layout, learned: Array, seed: int) -> Array:
    """Mean of the parameters' prior: hidden layers that span functions, no output.

    For one feature the hidden layers are drawn from their prior. For several they are those of the first iteration's
    step 2, since few random units span little of many dimensions.

    Parameters
    ----------
    layout : Layout
    learned : array, shape (P,)
        Of step 2 of the first iteration.
    seed : int
    """
    centre = stream(seed, "centre").standard_normal(layout.n_parameters) if layout.sizes[0] == 1 else learned.copy()
    centre[layout.n_hidden_parameters :] = 0.0
    return centre


def push_weights(events: StandardizedEvents, first: Iteration, particle_level: Classifier) -> Array:
    """``nu(t)`` of events that pass gen, and the fakes' ratio at their simulated share, shape (n,)."""
    passes, v = events.passes, events.reco_weight
    push = np.zeros(len(events))
    log_ratio = particle_level.log_ratio(events.gen[passes.gen])
    both = passes.both[passes.gen]
    log_ratio -= np.log(np.average(np.exp(log_ratio - log_ratio.max())[both], weights=v[passes.both])) + log_ratio.max()
    push[passes.gen] = bounded_ratio(log_ratio, "the particle-level network")
    fakes = passes.fakes
    if fakes.any():
        ratio = bounded_ratio(first.step1.log_ratio(events.reco[fakes]), "step 1")
        push[fakes] = ratio / np.average(ratio, weights=v[fakes])
    return push
