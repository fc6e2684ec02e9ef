"""The direct posterior of one unfolding, from the first OmniFold iteration to the ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import stream
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.direct.criticism import Criticism, criticise, second_classifier
from bayesunfold.direct.draws import draw_parameters, moment_changes, projected, visible_directions
from bayesunfold.direct.fit import Setup, find_mode_and_precisions, prior_centre
from bayesunfold.direct.mode import Mode, Problem
from bayesunfold.direct.moments import Moments
from bayesunfold.direct.precision import Evidence
from bayesunfold.direct.profile import Profile, follow
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.omnifold.problems import acceptance_of, varied_step1
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.perturbations import Acceptance, Effect, Perturbations, Variation, list_sources
from bayesunfold.unfolding.propagation import Displacement, linear_refit
from bayesunfold.unfolding.standardized import StandardizedEvents, to_yield

__all__ = ["DirectPosterior", "find_nuisances", "find_posterior", "members_of"]

Array = NDArray[np.floating]

MOST_TRAININGS, MOVED = 3, 0.25
"""Most trainings of the first iteration, and the change of a nuisance parameter, in prior standard deviations, that
asks for one more."""

DIFFERENCE = 0.01
"""p-value of the second classifier below which its tangent features join the moments."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class DirectPosterior:
    """The most probable network, the evidence of its prior precisions, and tests of both.

    Attributes
    ----------
    setup : Setup
    events : StandardizedEvents
        Where the profiled nuisance parameters moved them.
    problem : Problem
    mode : Mode
    evidence : Evidence
        Near the mode.
    log_tau : array, shape (groups,)
        Logarithms of the most probable precisions.
    push : array, shape (n,)
        Push weights at the mode.
    criticism : Criticism
    profile : Profile, optional
        The nuisance parameters, if some are profiled.
    """

    setup: Setup
    events: StandardizedEvents
    problem: Problem
    mode: Mode
    evidence: Evidence
    log_tau: Array
    push: Array
    criticism: Criticism
    profile: Profile | None = None


def find_posterior(
    events: StandardizedEvents,
    settings: DirectSettings,
    first: Iteration,
    seed: int,
    profile: Profile | None = None,
    start: tuple[Array, Array] | None = None,
) -> DirectPosterior:
    """Mode and precisions, with moments of second classifiers while these find a difference.

    Parameters
    ----------
    events : StandardizedEvents
        Those of the first iteration.
    settings : DirectSettings
    first : Iteration
    seed : int
    profile : Profile, optional
        Of the nuisance parameters.
    start : (theta, log_tau), optional
        Of the same fit.
    """
    reco, layout = settings.layouts(events)
    centre = prior_centre(layout, first.step2.theta, seed)
    theta, log_tau = (_start(centre, first), None) if start is None else start
    near = start is not None
    rng = stream(seed, "criticism") if settings.rounds else None
    more: tuple[Classifier, ...] = ()
    now = events if profile is None else profile.events
    while True:
        setup = Setup(layout, first, Moments.of(events, first, more), centre, settings.prior)
        if profile is None:
            problem = setup.problem(now)
            mode, evidence, log_tau = find_mode_and_precisions(problem, theta, log_tau, settings.prior)
        else:
            profile, problem, mode, evidence, log_tau = follow(profile, setup, theta, log_tau, near=near)
            now = profile.events
        push = setup.push(now, mode)
        criticism = criticise(now, reco, problem, mode, push, evidence, rng)
        if rng is None or len(more) == settings.rounds or not criticism.p_value < DIFFERENCE:
            break
        near = False
        more = (*more, second_classifier(now, reco, push, rng))
        theta = mode.theta
    criticism = replace(criticism, rounds=len(more))
    return DirectPosterior(setup, now, problem, mode, evidence, log_tau, push, criticism, profile)


def find_nuisances(
    events: StandardizedEvents,
    settings: DirectSettings,
    first: Iteration,
    seed: int,
    profile: Profile,
    retrain: Callable[[int, StandardizedEvents], Iteration],
) -> tuple[StandardizedEvents, Iteration, Profile, tuple[Array, Array]]:
    """Where the data pull the nuisance parameters, with moments of classifiers of the moved simulation.

    A classifier is trained again where the parameters moved the simulation far; until then its moments are less sharp,
    not wrong.

    Parameters
    ----------
    retrain : callable
        Of a number and the moved events: their first iteration.

    Returns
    -------
    events, first
        The last first iteration and its events.
    profile
    start : (theta, log_tau)
        Network and logarithms of its precisions.
    """
    _, layout = settings.layouts(events)
    k, theta, log_tau = 1, None, None
    while True:
        centre = prior_centre(layout, first.step2.theta, seed)
        setup = Setup(layout, first, Moments.of(events, first), centre, settings.prior)
        before = profile.alpha
        profile, _, mode, _, log_tau = follow(
            profile, setup, _start(centre, first) if theta is None else theta, log_tau
        )
        theta = mode.theta
        if k == MOST_TRAININGS or np.all(np.abs(profile.alpha - before) < MOVED):
            return events, first, profile, (theta, log_tau)
        events = profile.events
        first = retrain(k, events)
        k += 1


def _start(centre: Array, first: Iteration) -> Array:
    """Parameters of the network to start from: a single feature needs no others than the prior's."""
    return centre if first.step2.layout.sizes[0] == 1 else first.step2.theta


def members_of(
    found: DirectPosterior, perturbations: Perturbations, log_tau: Array, seed: int
) -> tuple[Members, Displacement, dict[str, Array]]:
    """The ensemble, the displacement of step 1, which weighs fakes, and of the profiled nuisance parameters.

    Parameters
    ----------
    found : DirectPosterior
    perturbations : Perturbations
        With the yields' changes.
    log_tau : array, shape (n_members, groups)
        Logarithms of every member's precisions.

    Returns
    -------
    members : Members
    step1 : Displacement
    nuisances : dict of source to array, shape (K, n_members)
    """
    problem, mode, events, first = found.problem, found.mode, found.events, found.setup.first
    push, gen = found.push, events.passes.gen
    weight = events.weight * push
    weight = weight[gen] * to_yield(weight, events.passes.reco, events.signal_yield)
    network, project = visible_directions(
        found.setup.network(mode), problem.precisions(mode.tau), events.gen[gen], weight
    )
    alone = np.ones(len(events))
    varied = {n: varied_step1(events, first.step1, alone, None, shift) for n, shift in perturbations.shifts.items()}
    one = linear_refit(first.step1, [], perturbations, prior=perturbations.prior, varied=varied)
    fakes = one if events.passes.fakes.any() else None
    changes = moment_changes(events, problem.moments, push, fakes, perturbations)
    names = () if found.profile is None else found.profile.nuisances.names
    size = problem.layout.n_parameters
    noise = stream(seed, "direct").standard_normal((size + 2 * len(names), perturbations.n_members))
    drawn = draw_parameters(problem, mode, log_tau, changes, noise, names)
    by_source = {name: d[:size] for name, d in drawn.items()}
    alphas = {name: d[size:] for name, d in drawn.items()} if names else {}
    accepted = {n: acceptance_of(events, push, first.step1, shift) for n, shift in perturbations.shifts.items()}
    kept = replace(perturbations, effects=dict(perturbations.effects) | accepted, prior=perturbations.prior[:0])
    if found.profile is not None:
        kept = _with_nuisances(kept, found.profile, push, alphas)
    return Members(events, push, kept, projected(network, project, by_source), fakes), one, alphas


def _with_nuisances(
    perturbations: Perturbations, profile: Profile, push: Array, alphas: Mapping[str, Array]
) -> Perturbations:
    """What the profiled parameters change beside the network: event weights, who passes, and the signal's yield."""
    nuisances, effects = profile.nuisances, dict(perturbations.effects)
    row = {name: k for k, name in enumerate(nuisances.names)}

    def parts(name: str) -> dict[str, Array]:
        return {source: values[row[name]] for source, values in alphas.items()}

    new: dict[str, Effect] = {}
    for name, change in nuisances.weight_slopes(profile.alpha).items():
        own = parts(name)
        new[name] = Variation(np.sum(list(own.values()), axis=0), change, -change, own)
    events = profile.events
    for name, share in nuisances.share_slopes(profile.alpha).items():
        own = parts(name)
        total = np.sum(list(own.values()), axis=0)
        if share is None:
            new[name] = Acceptance(total, parts=own)
            continue
        outside = ~events.passes.gen & ~events.passes.reco
        come = float((events.weight * push)[outside] @ share[outside])
        new[name] = Acceptance(total, share, -share, (come, -come), own)
    signal = dict(perturbations.signal)
    for name, per_unit in nuisances.yield_slopes(profile.alpha, profile.now).items():
        for source, values in parts(name).items():
            signal[source] = signal.get(source, np.zeros(perturbations.n_members)) + per_unit * values
    effects |= new
    backgrounds = [b.name for b in events.backgrounds]
    return replace(
        perturbations, sources=list_sources(backgrounds, effects, generator=False), effects=effects, signal=signal
    )
