"""The direct posterior of one unfolding, from the first OmniFold iteration to the ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import stream
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.direct.criticism import Criticism, criticise, second_classifier
from bayesunfold.direct.draws import centred, draw_parameters, moment_changes, projected, visible_directions
from bayesunfold.direct.fit import Fit, Setup, prior_centre
from bayesunfold.direct.mode import Mode, Problem
from bayesunfold.direct.moments import Moments, moment_network
from bayesunfold.direct.precision import Evidence
from bayesunfold.direct.profile import Profile, follow
from bayesunfold.direct.scores import ScoreFunctions
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.omnifold.problems import acceptance_of, push_outside, varied_backgrounds, varied_step1
from bayesunfold.unfolding.correlations import partners_of
from bayesunfold.unfolding.mean_changes import MeanChanges
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.perturbations import Acceptance, Effect, Perturbations, Shifted, list_sources
from bayesunfold.unfolding.propagation import Displacement, linear_refit
from bayesunfold.unfolding.standardized import StandardizedEvents, to_yield

__all__ = ["DirectPosterior", "at_precisions", "find_nuisances", "find_posterior", "members_of"]

Array = NDArray[np.floating]

MOST_TRAININGS, MOVED = 3, 0.25
"""Most trainings of the first iteration, and the change of a nuisance parameter, in prior standard deviations, that
asks for one more; at least its posterior standard deviation."""

DIFFERENCE = 0.01
"""p-value of the second classifier below which its tangent features join the moments."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class DirectPosterior:
    """The most probable network, the evidence of its prior precisions, and tests of both.

    Attributes
    ----------
    fit : Fit
    events : StandardizedEvents
        Where the profiled nuisance parameters moved them.
    push : array, shape (n,)
        Push weights at the mode.
    criticism : Criticism
    profile : Profile, optional
        The nuisance parameters, if some are profiled.
    """

    fit: Fit
    events: StandardizedEvents
    push: Array
    criticism: Criticism
    profile: Profile | None = None

    @property
    def problem(self) -> Problem:
        """What the network was fitted to."""
        return self.fit.problem

    @property
    def mode(self) -> Mode:
        """The most probable network."""
        return self.fit.mode

    @property
    def evidence(self) -> Evidence:
        """Of the precisions, near the mode."""
        return self.fit.evidence


def find_posterior(
    events: StandardizedEvents,
    settings: DirectSettings,
    first: Iteration,
    seed: int,
    found: tuple[Profile, Fit] | None = None,
) -> DirectPosterior:
    """Mode and precisions, with moments of second classifiers while these find a difference.

    Parameters
    ----------
    events : StandardizedEvents
        Those of the first iteration.
    settings : DirectSettings
    first : Iteration
    seed : int
    found : (Profile, Fit), optional
        From :func:`find_nuisances`, if nuisance parameters are profiled.
    """
    reco, layout = settings.layouts(events)
    rng = stream(seed, "criticism") if settings.rounds else None
    more: tuple[Classifier, ...] = ()
    profile: Profile | None = None
    if found is None:
        fit = Fit.of(_setup(events, settings, first, seed), events, _start(layout, first, seed), None)
    else:
        profile, fit = found
    while True:
        now = events if profile is None else profile.events
        push = fit.setup.push(now, fit.mode)
        criticism = criticise(now, reco, fit, push, rng)
        if rng is None or len(more) == settings.rounds or not criticism.p_value < DIFFERENCE:
            criticism = replace(criticism, rounds=len(more))
            return DirectPosterior(fit, now, push, criticism, profile)
        more = (*more, second_classifier(now, reco, push, rng))
        setup = _setup(events, settings, first, seed, more)
        if profile is None:
            fit = Fit.of(setup, now, fit.mode.theta, fit.log_tau)
        else:
            profile, fit = follow(profile, setup, fit.mode.theta, fit.log_tau)


def at_precisions(found: DirectPosterior, settings: DirectSettings, seed: int, log_tau: Array) -> DirectPosterior:
    """The most probable network at precisions that stay, and its tests; the moments are the same.

    Parameters
    ----------
    found : DirectPosterior
        From :func:`find_posterior`.
    settings : DirectSettings
    seed : int
    log_tau : array, shape (groups,)
        Logarithms of the precisions.
    """
    profile, fit = found.profile, found.fit
    if profile is None:
        fit = fit.at_precisions(log_tau)
    else:
        profile, fit = follow(profile, fit.setup, fit.mode.theta, log_tau, fixed=True)
    events = found.events if profile is None else profile.events
    push = fit.setup.push(events, fit.mode)
    rng = stream(seed, "criticism") if settings.rounds else None
    criticism = criticise(events, settings.layouts(events)[0], fit, push, rng)
    return DirectPosterior(fit, events, push, replace(criticism, rounds=found.criticism.rounds), profile)


def find_nuisances(
    events: StandardizedEvents,
    settings: DirectSettings,
    first: Iteration,
    seed: int,
    profile: Profile,
    retrain: Callable[[int, StandardizedEvents], Iteration],
) -> tuple[StandardizedEvents, Iteration, tuple[Profile, Fit]]:
    """Where the data pull the nuisance parameters, with a first iteration of the moved simulation.

    The first iteration is trained again where the parameters moved the simulation far. It weighs fakes, and gives the
    moments of few features; until then these are less sharp, not wrong.

    Parameters
    ----------
    retrain : callable
        Of a number and the moved events: their first iteration.

    Returns
    -------
    events, first
        The last first iteration and its events.
    found : (Profile, Fit)
    """
    fit: Fit | None = None
    for k in range(1, MOST_TRAININGS + 1):
        setup = _setup(events, settings, first, seed)
        before = profile.alpha
        start = _start(setup.layout, first, seed) if fit is None else fit.mode.theta
        profile, fit = follow(profile, setup, start, None if fit is None else fit.log_tau)
        if k == MOST_TRAININGS or np.all(np.abs(profile.alpha - before) < np.maximum(MOVED, profile.std)):
            return events, first, (profile, fit)
        events = profile.events
        first = retrain(k, events)
    msg = "the last training returns"
    raise AssertionError(msg)


def _setup(
    events: StandardizedEvents,
    settings: DirectSettings,
    first: Iteration,
    seed: int,
    more: tuple[Classifier, ...] = (),
) -> Setup:
    """Moments of the first iteration and of second classifiers, and the prior's centre."""
    _, layout = settings.layouts(events)
    centre = prior_centre(layout, first.step2.theta, seed)
    scores = (ScoreFunctions.of(events, seed),) if settings.linear else ()
    classifiers = (moment_network(first.step1, seed), *scores, *more)
    return Setup(layout, first, Moments.of(events, first, classifiers), centre, settings.prior)


def _start(layout: Layout, first: Iteration, seed: int) -> Array:
    """Parameters of the network to start from: a single feature needs no others than the prior's."""
    return prior_centre(layout, first.step2.theta, seed) if layout.sizes[0] == 1 else first.step2.theta


def members_of(
    found: DirectPosterior, perturbations: Perturbations, log_tau: Array, seed: int, *, free_misses: bool = True
) -> tuple[Members, Displacement, dict[str, Array]]:
    """The ensemble, the displacement of step 1, which weighs fakes, and of the profiled nuisance parameters.

    Parameters
    ----------
    found : DirectPosterior
    perturbations : Perturbations
        With the yields' changes.
    log_tau : array, shape (n_members, groups)
        Logarithms of every member's precisions.
    free_misses : bool
        Whether misses weigh what the network says.

    Returns
    -------
    members : Members
    step1 : Displacement
    nuisances : dict of source to array, shape (K, n_members)
    """
    problem, mode, events, first = found.problem, found.mode, found.events, found.fit.setup.first
    push, gen = found.push, events.passes.gen
    weight = events.weight * push
    weight = weight[gen] * to_yield(events.at_reco(weight), events.passes.reco, events.signal_yield)
    network, project = visible_directions(
        found.fit.setup.network(mode), problem.precisions(mode.tau), events.gen[gen], weight
    )
    alone = np.ones(len(events))
    varied = {n: varied_step1(events, first.step1, alone, None, shift) for n, shift in perturbations.shifts.items()}
    changed = varied_backgrounds(events, first.step1, perturbations.backgrounds)
    one = linear_refit(first.step1, [], perturbations, prior=perturbations.prior, varied=varied, changed=changed)
    fakes = None
    if events.passes.fakes.any():  # they keep their share of the simulation
        theirs = events.passes.fakes
        fakes = centred(one, events.reco[theirs], events.at_reco(events.weight * push)[theirs])
    changes = moment_changes(events, problem.moments, push, first.step1, fakes, perturbations)
    names = () if found.profile is None else found.profile.nuisances.names
    size = problem.layout.n_parameters
    noise = stream(seed, "direct").standard_normal((size + 2 * len(names), perturbations.n_members))
    drawn = draw_parameters(problem, mode, log_tau, changes, noise, names)
    by_source = {name: d[:size] for name, d in drawn.items()}
    alphas = {name: d[size:] for name, d in drawn.items()} if names else {}
    accepted = {n: acceptance_of(events, push, first.step1, shift) for n, shift in perturbations.shifts.items()}
    kept = replace(
        perturbations, effects=dict(perturbations.effects) | accepted, prior=perturbations.prior[:0], backgrounds={}
    )
    if found.profile is not None:
        kept = _with_nuisances(kept, found.profile, push, first.step1, alphas)
        kept = replace(kept, correlated=frozenset(partners_of(names, mode.correlation)))
    displacement = projected(network, project, by_source)
    return Members(events, push, kept, displacement, fakes, free_misses=free_misses), one, alphas


def _with_nuisances(
    perturbations: Perturbations, profile: Profile, push: Array, step1: Classifier, alphas: Mapping[str, Array]
) -> Perturbations:
    """What the profiled parameters change beside the network: event weights, who passes, and the signal's yield."""
    nuisances = profile.nuisances
    effects: dict[str, Effect] = dict(perturbations.effects)
    row = {name: k for k, name in enumerate(nuisances.names)}

    def parts(name: str) -> dict[str, Array]:
        return {source: values[row[name]] for source, values in alphas.items()}

    events = profile.events
    means = MeanChanges(events)
    for name, change in nuisances.weight_slopes(profile.alpha).items():
        own = parts(name)
        effects[name] = means.along(np.sum(list(own.values()), axis=0), change, own)
    for name, share in nuisances.share_slopes(profile.alpha, profile.now).items():
        own = parts(name)
        total = np.sum(list(own.values()), axis=0)
        if share is None:
            effects[name] = Acceptance(total, parts=own)
            continue
        outside = ~events.passes.gen & ~events.passes.reco & (share != 0)
        there = Shifted(nuisances.features(profile.alpha, outside, profile.scales), outside)
        come = float((events.weight * push_outside(events, push, step1, there))[outside] @ share[outside])
        effects[name] = Acceptance(total, share, -share, (come, -come), own)
    signal = dict(perturbations.signal)
    for name, per_unit in nuisances.yield_slopes(profile.alpha, profile.now).items():
        for source, values in parts(name).items():
            signal[source] = signal.get(source, np.zeros(perturbations.n_members)) + per_unit * values
    backgrounds = [b.name for b in events.backgrounds]
    return replace(
        perturbations, sources=list_sources(backgrounds, effects, generator=False), effects=effects, signal=signal
    )
