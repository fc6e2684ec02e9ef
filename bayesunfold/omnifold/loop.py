"""The unfolding loop as a generator of values: the state after each iteration, for as long as someone asks for more.

``fit``, checkpoints, the bias estimate, refits and studies drive the same generator.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import stream, training_stream
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.inference import inference_method
from bayesunfold.classifier.linearized import linearize, linearize_some, posterior_axes
from bayesunfold.classifier.sampling import Draws
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.errors import OverlapWarning
from bayesunfold.events import Simulation
from bayesunfold.omnifold.answers import Answers, generator_displacement, propagate
from bayesunfold.omnifold.iteration import Iteration, Learn, Networks, fit_near, iterate, train
from bayesunfold.omnifold.problems import acceptance_of
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.background_changes import prepare_background_changes
from bayesunfold.unfolding.conditioning import Conditioning, condition_on
from bayesunfold.unfolding.event_groups import GroupedFluctuations, in_groups
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.perturbations import (
    Fluctuations,
    Perturbations,
    event_fluctuations,
    interpolate,
    list_sources,
)
from bayesunfold.unfolding.propagation import Displacement
from bayesunfold.unfolding.standardized import StandardizedEvents
from bayesunfold.unfolding.systematics import Systematic, draw_alphas, prepare_systematics

__all__ = [
    "FirstStep",
    "State",
    "iterations",
    "own_draws",
    "point_estimates",
    "start_perturbations",
    "yield_changes",
]

Array = NDArray[np.floating]
Learners = Callable[[int], Learn]
"""Of the number of an iteration: how its classifiers come about."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class FirstStep:
    """Step 1 of the first iteration as a measurement.

    Attributes
    ----------
    classifier : Classifier
    draws : Draws
        Of its posterior; for a Gaussian method (``"laplace"``) they are the members' own displacements.
    conditioning : Conditioning or None
        What moved the fluctuations onto the draws; None for a Gaussian method.
    displacement : Displacement
    """

    classifier: Classifier
    draws: Draws
    conditioning: Conditioning | None
    displacement: Displacement


@dataclass(frozen=True)
class State:
    """The unfolding after an iteration.

    Attributes
    ----------
    iteration : Iteration
    before : Iteration or None
    answers : Answers
    first : FirstStep
    perturbations : Perturbations
        Moved onto posterior draws.
    networks : tuple of Networks
        Of all iterations so far.
    seconds : dict of str to float
        Time that this iteration took in training, posterior and members.
    """

    iteration: Iteration
    before: Iteration | None
    answers: Answers
    first: FirstStep
    perturbations: Perturbations
    networks: tuple[Networks, ...]
    seconds: dict[str, float]

    def members(self, events: StandardizedEvents) -> Members:
        """The ensemble after this iteration."""
        push, p = self.iteration.push, self.perturbations
        accepted = {n: acceptance_of(events, push, self.iteration.fakes, shift) for n, shift in p.shifts.items()}
        conditioning = self.first.conditioning
        return Members(
            events,
            push,
            replace(p, effects=dict(p.effects) | accepted, prior=p.prior[:0], backgrounds={}),
            self.answers.step2,
            self.answers.fakes,
            None if conditioning is None else conditioning.multiplier,
        )


class LoopSettings(Protocol):
    """What the perturbations ask of the settings."""

    @property
    def draws(self) -> int:
        """Number of members."""

    @property
    def generator_prior(self) -> float:
        """Relative uncertainty of the generator."""

    @property
    def event_groups(self) -> int | None:
        """Most groups of events that fluctuate together."""

    def layouts(self, events: StandardizedEvents) -> tuple[Layout, Layout]:
        """The network at detector level and at particle level."""


def start_perturbations(
    events: StandardizedEvents,
    simulation: Simulation,
    systematics: Sequence[Systematic],
    settings: LoopSettings,
    seed: int,
) -> Perturbations:
    """Everything that fluctuates, drawn once, before the first iteration."""
    n_members = settings.draws
    alphas = draw_alphas(systematics, n_members, seed)
    effects = prepare_systematics(list(systematics), simulation, events, alphas, seed)
    layout, _ = settings.layouts(events)
    return Perturbations(
        list_sources([b.name for b in events.backgrounds], effects, generator=settings.generator_prior > 0),
        sample_fluctuations(events, n_members, seed, settings.event_groups),
        stream(seed, "prior").standard_normal((layout.n_parameters, n_members)),
        effects,
        backgrounds=prepare_background_changes(
            {s.name: s.backgrounds for s in systematics if s.backgrounds},
            events.backgrounds,
            simulation,
            events.scales.reco,
        ),
    )


def sample_fluctuations(
    events: StandardizedEvents, n_members: int, seed: int, groups: int | None = None
) -> dict[str, Fluctuations]:
    """Event fluctuations of data, simulation and backgrounds.

    Data and simulation fluctuate in groups where they have more events than these. Backgrounds do so one by one: their
    totals and shapes count together, which groups of unequal weights would mix.
    """
    sizes = {"data": len(events.data.x), "simulation": len(events)} | {b.name: len(b.x) for b in events.backgrounds}
    each = event_fluctuations(sizes, n_members, seed)
    each["data"] = in_groups(each["data"], events.data.weight, groups)
    each["simulation"] = in_groups(each["simulation"], events.weight, groups)
    return each


def iterations(
    events: StandardizedEvents,
    settings: Settings,
    perturbations: Perturbations,
    seed: int,
    learners: Learners,
    trained: Callable[[tuple[Networks, ...]], None] = lambda _networks: None,
) -> Iterator[State]:
    """The state after each iteration, for as long as someone asks for more.

    Parameters
    ----------
    events : StandardizedEvents
    settings : Settings
    perturbations : Perturbations
        From :func:`start_perturbations`.
    seed : int
    learners : callable
        Of the number of an iteration: :func:`bayesunfold.omnifold.iteration.train`, ``fit_near`` or ``recall``.
    trained : callable, optional
        Told the networks of all iterations as soon as an iteration is trained, before its members are propagated, so
        that a checkpoint loses no training.
    """
    state: State | None = None
    done: tuple[Networks, ...] = ()
    while True:
        clock = _Clock()
        before = None if state is None else state.iteration
        iteration = iterate(events, settings, before, done[0] if done else None, learners(len(done)))
        done = (*done, iteration.networks())
        trained(done)
        clock.lap("training")
        if state is None:
            generator = generator_displacement(events, settings, iteration.step2, seed)
            clock.lap("members")
            axes, draws, conditioning = _posterior_draws(iteration.step1, settings, perturbations, seed)
            perturbations = _with_yields(events, perturbations, conditioning, seed)
            clock.lap("posterior")
            new = propagate(events, settings, iteration, None, generator, None, None, perturbations)
            first = FirstStep(
                iteration.step1, draws or own_draws(new.step1, axes, perturbations), conditioning, new.step1
            )
        else:
            first, old = state.first, state.answers
            new = propagate(
                events, settings, iteration, before, old.step2, old.fakes, first.displacement, perturbations
            )
        clock.lap("members")
        state = State(iteration, before, new, first, perturbations, done, clock.seconds)
        yield state


class _Clock:
    """Seconds since the last lap, by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"training": 0.0, "posterior": 0.0, "members": 0.0}
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the time since the last lap to a phase."""
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now


def _posterior_draws(
    step1: Classifier, settings: Settings, perturbations: Perturbations, seed: int
) -> tuple[Array, Draws | None, Conditioning | None]:
    """Axes of the posterior of the first step 1, its draws, and the fluctuations that reproduce them.

    The draws of the Gaussian posterior are the members' own displacements, which are not known yet.
    """
    axes, precision = posterior_axes(step1)
    method = inference_method(settings.inference)
    if method.is_gaussian:
        return axes, None, None
    rng = stream(seed, "posterior")
    if settings.linearize or method.sample_full is None:
        posterior = (
            linearize_some(step1, axes, precision, rng)
            if _in_groups(perturbations)
            else linearize(step1, axes, precision)
        )
        draws = method.sample(posterior, settings.draws, rng)
    else:
        posterior = linearize(step1, axes, precision)
        x = step1.classes.joined().x
        draws = method.sample_full(step1.layout, step1.theta, x, posterior, settings.draws, rng)
    return axes, draws, condition_on(step1, perturbations, axes, draws.z)


def _in_groups(perturbations: Perturbations) -> bool:
    """Whether a sample is so large that its events fluctuate in groups."""
    return any(isinstance(f, GroupedFluctuations) for f in perturbations.events.values())


def own_draws(displacement: Displacement, axes: Array, perturbations: Perturbations) -> Draws:
    """Whitened displacements from the sources that the posterior of step 1 knows: events and prior."""
    known = perturbations.named("data", "simulation", "prior", "background")
    own = [d for name, d in displacement.by_source.items() if name in known]
    return Draws((axes.T @ np.sum(own, axis=0)).T)


def _with_yields(
    events: StandardizedEvents, perturbations: Perturbations, conditioning: Conditioning | None, seed: int
) -> Perturbations:
    """Perturbations moved onto posterior draws, with the yields that follow."""
    if conditioning is not None:
        perturbations = conditioning.apply(perturbations)
    signal, scales = yield_changes(events, perturbations, seed)
    return replace(perturbations, signal=signal, scales=scales)


def yield_changes(
    events: StandardizedEvents, perturbations: Perturbations, seed: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Relative change of the signal yield by source, and of each background's normalisation.

    The data yield is Gamma(N + 1/2) distributed, a background's is Normal with its relative uncertainty plus the
    fluctuation of its own simulated events, and changes with the systematics that vary it; the signal is what remains.
    """
    rng = stream(seed, "yields")
    count, total, signal = events.data.size, float(events.data.weight.sum()), events.signal_yield
    n_members = perturbations.n_members
    factor = rng.gamma(count + 0.5, size=n_members) / count
    changes: dict[str, Array] = {"data": (factor - 1.0) * (total / signal)}
    scales: dict[str, Array] = {}
    for background in events.backgrounds:
        size = float(background.weight.sum())
        scales[background.name] = background.relative_uncertainty * rng.standard_normal(n_members)
        own = perturbations.events[background.name].weighted(background.weight / size)
        changes[background.name] = -(scales[background.name] + own) * (size / signal)
    for name, each in perturbations.backgrounds.items():
        up, down = (sum(float(getattr(c.weight, side).sum()) for c in each) for side in ("up", "down"))
        alpha = perturbations.effects[name].alpha
        changes[name] = -interpolate(np.array(up), np.array(down), alpha) / signal
    _warn_without_signal(1.0 + np.sum(list(changes.values()), axis=0))
    return changes, scales


def _warn_without_signal(factor: Array) -> None:
    """Warn of members whose backgrounds are all of their data."""
    none = int((factor <= 0).sum())
    if none:
        msg = (
            f"in {none} of {len(factor)} members the backgrounds, varied by their uncertainties, exceed the data, and "
            "the signal is negative; cut harder, or check the uncertainties of the backgrounds."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=4)


def point_estimates(
    events: StandardizedEvents, settings: Settings, seed: int, near: Sequence[Networks] | None = None
) -> Iterator[Iteration]:
    """Iterations without members.

    Parameters
    ----------
    near : sequence of Networks, optional
        Networks of a similar unfolding, from which those of each iteration start.
    """
    before = first = None
    k = 0
    while True:
        rng = training_stream(seed, k)
        learn = train(rng) if near is None else fit_near(rng, near[k])
        before = iterate(events, settings, before, first, learn)
        first = first or before.networks()
        k += 1
        yield before
