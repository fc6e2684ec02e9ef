"""The direct posterior of one unfolding, from the first OmniFold iteration to the ensemble."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import stream
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.direct.criticism import Criticism, criticise, second_classifier
from bayesunfold.direct.draws import draw_parameters, moment_changes, projected, visible_directions
from bayesunfold.direct.mode import Mode, Problem, find_mode, mode_at
from bayesunfold.direct.moments import Moments
from bayesunfold.direct.precision import Evidence
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.omnifold.problems import acceptance_of, bounded_ratio, varied_step1
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.perturbations import Perturbations
from bayesunfold.unfolding.propagation import Displacement, linear_refit
from bayesunfold.unfolding.standardized import StandardizedEvents, to_yield

__all__ = ["DirectPosterior", "find_posterior", "members_of", "push_weights"]

Array = NDArray[np.floating]

ROUNDS = 4
"""Most times that the precisions and the mode follow each other."""

DIFFERENCE = 0.01
"""p-value of the second classifier below which its tangent features join the moments."""

SETTLED = 0.2
"""Change of the logarithm of a precision that calls for no other round."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class DirectPosterior:
    """The most probable network, the evidence of its prior precisions, and tests of both.

    Attributes
    ----------
    problem : Problem
    mode : Mode
    evidence : Evidence
        Near the mode.
    log_tau : array, shape (groups,)
        Logarithms of the most probable precisions.
    push : array, shape (n,)
        Push weights at the mode.
    criticism : Criticism
    """

    problem: Problem
    mode: Mode
    evidence: Evidence
    log_tau: Array
    push: Array
    criticism: Criticism


def find_posterior(
    events: StandardizedEvents, settings: DirectSettings, first: Iteration, seed: int
) -> DirectPosterior:
    """Mode and precisions, with moments of second classifiers while these find a difference."""
    reco, layout = settings.layouts(events)
    centre = prior_centre(layout, first.step2.theta, seed)
    theta = centre if layout.sizes[0] == 1 else first.step2.theta
    rng = stream(seed, "criticism") if settings.rounds else None
    log_tau: Array | None = None
    more: tuple[Classifier, ...] = ()
    while True:
        problem = Problem.of(events, layout, Moments.of(events, first, more), centre)
        mode, evidence, log_tau = find_mode_and_precisions(problem, theta, log_tau, settings.prior)
        push = push_weights(events, first, particle_level(problem, mode, first))
        criticism = criticise(events, reco, problem, mode, push, evidence, rng)
        if rng is None or len(more) == settings.rounds or not criticism.p_value < DIFFERENCE:
            break
        more = (*more, second_classifier(events, reco, push, rng))
        theta = mode.theta
    return DirectPosterior(problem, mode, evidence, log_tau, push, replace(criticism, rounds=len(more)))


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
    theta = start
    for _ in range(ROUNDS):
        mode = find_mode(problem, theta, np.exp(log_tau))
        evidence, theta = Evidence.of(problem, mode, width), mode.theta
        old, log_tau = log_tau, evidence.mode(log_tau)
        if np.all(np.abs(log_tau - old) < SETTLED):
            break
    return mode, evidence, log_tau


def particle_level(problem: Problem, mode: Mode, first: Iteration) -> Classifier:
    """The network at the mode as a classifier, of the classes of the first step 2."""
    return Classifier("the particle-level network", problem.layout, mode.theta, first.step2.classes)


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
    passes, v = events.passes, events.weight
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


def members_of(
    events: StandardizedEvents,
    first: Iteration,
    found: DirectPosterior,
    perturbations: Perturbations,
    log_tau: Array,
    seed: int,
) -> tuple[Members, Displacement]:
    """The ensemble, and the displacement of step 1, which weighs fakes.

    Parameters
    ----------
    perturbations : Perturbations
        With the yields' changes.
    log_tau : array, shape (n_members, groups)
        Logarithms of every member's precisions.
    """
    problem, mode = found.problem, found.mode
    network = particle_level(problem, mode, first)
    push, gen = found.push, events.passes.gen
    weight = events.weight * push
    weight = weight[gen] * to_yield(weight, events.passes.reco, events.signal_yield)
    network, project = visible_directions(network, problem.precisions(mode.tau), events.gen[gen], weight)
    alone = np.ones(len(events))
    varied = {n: varied_step1(events, first.step1, alone, None, shift) for n, shift in perturbations.shifts.items()}
    one = linear_refit(first.step1, [], perturbations, prior=perturbations.prior, varied=varied)
    fakes = one if events.passes.fakes.any() else None
    changes = moment_changes(events, problem.moments, push, fakes, perturbations)
    noise = stream(seed, "direct").standard_normal((problem.layout.n_parameters, perturbations.n_members))
    by_source = draw_parameters(problem, mode, log_tau, changes, noise)
    accepted = {n: acceptance_of(events, push, first.step1, shift) for n, shift in perturbations.shifts.items()}
    kept = replace(perturbations, effects=dict(perturbations.effects) | accepted, prior=perturbations.prior[:0])
    return Members(events, push, kept, projected(network, project, by_source), fakes), one
