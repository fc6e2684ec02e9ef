"""One OmniFold iteration: step 1, step 2, and the classifier of fakes, with the event weights they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.training import fit_map
from bayesunfold.classifier.two_class import Classifier, TwoClass
from bayesunfold.omnifold.problems import Efficiency, bounded_ratio, fakes_classes, step1_classes, step2_classes
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Iteration", "Learn", "Networks", "Start", "fit_near", "iterate", "push_of_fakes", "recall", "told", "train"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Networks:
    """Fitted networks of one iteration; enough to rebuild everything else.

    Attributes
    ----------
    step1, step2 : array, shape (P,)
        Standardised network weights.
    fakes : array or None
        The classifier that gives fakes their push weight.
    losses : dict of str to float
        Objective of each fit.
    decrements : dict of str to float
        Remaining Newton step of each fit, in posterior standard deviations.
    """

    step1: Array
    step2: Array
    fakes: Array | None
    losses: dict[str, float] = field(default_factory=dict)
    decrements: dict[str, float] = field(default_factory=dict)

    def theta(self, name: str) -> Array:
        """Weights of the network of one fit."""
        found = {"step1": self.step1, "step2": self.step2, "fakes": self.fakes}[name]
        if found is None:
            msg = "these networks have no classifier of fakes"
            raise ValueError(msg)
        return found


@dataclass(frozen=True)
class Iteration:
    """Fitted classifiers of one iteration, and weights of the simulated events, generator weight not included.

    Attributes
    ----------
    step1, step2 : Classifier
    fakes : Classifier or None
    pull : array, shape (n,)
        ``omega`` for events that pass both levels, NaN elsewhere.
    push : array, shape (n,)
        ``nu(t)`` for events that pass gen, ``E[nu | r]`` for fakes if there is their classifier.
    """

    step1: Classifier
    step2: Classifier
    fakes: Classifier | None
    pull: Array
    push: Array

    def classifiers(self) -> dict[str, Classifier]:
        """The classifiers by the names of their fits."""
        found = {"step1": self.step1, "step2": self.step2, "fakes": self.fakes}
        return {name: classifier for name, classifier in found.items() if classifier is not None}

    def networks(self) -> Networks:
        """What a checkpoint and a file keep of the iteration."""
        found = self.classifiers()
        return Networks(
            self.step1.theta,
            self.step2.theta,
            None if self.fakes is None else self.fakes.theta,
            {name: classifier.loss for name, classifier in found.items()},
            {name: classifier.decrement for name, classifier in found.items()},
        )


@dataclass(frozen=True)
class Start:
    """Where a fit begins.

    Attributes
    ----------
    theta : array, shape (P,), optional
        Warm start; random weights if omitted.
    centre : array, shape (P,), optional
        Mean of the weights' prior; zero if omitted.
    restarts : int
        Random starts, where there is no warm one.
    """

    theta: Array | None = None
    centre: Array | None = None
    restarts: int = 1


class Learn(Protocol):
    """How a classifier of an iteration comes about: by training, or from stored networks."""

    def __call__(self, name: str, layout: Layout, classes: TwoClass, start: Start) -> Classifier:
        """The classifier of the fit ``name`` ("step1", "step2", "fakes")."""


class IterationSettings(Protocol):
    """What an iteration asks of the settings."""

    @property
    def restarts(self) -> int:
        """Random starts of the first iteration."""

    @property
    def efficiency(self) -> Efficiency:
        """What misses weigh."""

    def layouts(self, events: StandardizedEvents) -> tuple[Layout, Layout]:
        """The network at detector level and at particle level."""


LABELS = {"step1": "step 1", "step2": "step 2", "fakes": "the classifier of fakes"}


def train(rng: np.random.Generator, most_steps: Mapping[str, int] | None = None) -> Learn:
    """Train every classifier from its start, in at most so many Gauss-Newton steps by the name of the fit."""
    most = most_steps or {}

    def learn(name: str, layout: Layout, classes: TwoClass, start: Start) -> Classifier:
        fit = fit_map(
            layout,
            classes.joined(),
            rng,
            start=start.theta,
            centre=start.centre,
            restarts=start.restarts,
            max_steps=most.get(name),
        )
        return Classifier(LABELS[name], layout, fit.theta, classes, fit.objective, fit.decrement)

    return learn


def fit_near(rng: np.random.Generator, networks: Networks) -> Learn:
    """Train every classifier from the networks of a similar unfolding."""

    def learn(name: str, layout: Layout, classes: TwoClass, start: Start) -> Classifier:
        theta = networks.theta(name)
        fit = fit_map(layout, classes.joined(), rng, start=theta, centre=start.centre, near=True)
        return Classifier(LABELS[name], layout, fit.theta, classes, fit.objective, fit.decrement)

    return learn


def told(learn: Learn, begin: Callable[[str], None]) -> Learn:
    """The same, but ``begin`` is told the name of every fit before it starts."""

    def learned(name: str, layout: Layout, classes: TwoClass, start: Start) -> Classifier:
        begin(name)
        return learn(name, layout, classes, start)

    return learned


def recall(networks: Networks, directions: dict[str, Array] | None = None) -> Learn:
    """Take the networks of a checkpoint or a file, with its directions where it holds them.

    Eigenvectors may differ between machines, so displacements go with the directions they were made in.
    """
    known = directions or {}

    def learn(name: str, layout: Layout, classes: TwoClass, start: Start) -> Classifier:  # noqa: ARG001
        loss, decrement = (kept.get(name, np.nan) for kept in (networks.losses, networks.decrements))
        return Classifier(LABELS[name], layout, networks.theta(name), classes, loss, decrement, known.get(name))

    return learn


def hidden_centre(layout: Layout, first: Array) -> Array:
    """Prior mean of the networks after the first iteration: its hidden layers, no output.

    In late iterations step 1 learns a ratio near one. With hidden weights pulled to zero its
    tangent space would collapse, and members could no longer follow their fluctuations.
    """
    centre = first.copy()
    centre[layout.n_hidden_parameters :] = 0.0
    return centre


def iterate(
    events: StandardizedEvents,
    settings: IterationSettings,
    before: Iteration | None,
    first: Networks | None,
    learn: Learn,
    *,
    weigh_fakes: bool = True,
) -> Iteration:
    """One iteration.

    Parameters
    ----------
    events : StandardizedEvents
    settings : IterationSettings
    before : Iteration, optional
        The iteration before, from whose networks this one starts; None for the first one.
    first : Networks, optional
        Networks of the first iteration, whose hidden layers centre the priors.
    learn : callable
        :func:`train`, :func:`fit_near` or :func:`recall`.
    weigh_fakes : bool
        Whether a classifier gives fakes their push weight, which is zero otherwise: the direct posterior takes that of
        step 1.
    """
    reco, gen = settings.layouts(events)
    restarts = settings.restarts if before is None else 1
    push = np.ones(len(events)) if before is None else before.push
    centre = None if first is None else hidden_centre(reco, first.step1)
    start = None
    if before is not None:
        # the second iteration's ratio is near one, not near the first's: it starts at the centre of its prior
        start = centre if first is not None and before.step1.theta is first.step1 else before.step1.theta
    one = learn("step1", reco, step1_classes(events, push), Start(start, centre, restarts))
    pull = _pull(events, one, push)
    start = None if before is None else before.step2.theta
    two = learn("step2", gen, step2_classes(events, pull, settings.efficiency), Start(start, restarts=restarts))
    passing = events.passes.gen
    push = np.zeros(len(events))
    push[passing] = bounded_ratio(two.log_ratio(events.gen[passing]), "step 2")
    fakes = None
    if weigh_fakes and events.passes.fakes.any():
        start = None if before is None or before.fakes is None else before.fakes.theta
        fakes = learn("fakes", reco, fakes_classes(events, push), Start(start, restarts=restarts))
        push[events.passes.fakes] = push_of_fakes(events, fakes, push)
    return Iteration(one, two, fakes, pull, push)


def _pull(events: StandardizedEvents, step1: Classifier, push: Array) -> Array:
    """``omega = nu exp f1``, at mean one over events that pass both levels, with their weights at detector level."""
    pull = np.full(len(push), np.nan)
    rows = events.passes.both
    pull[rows] = push[rows] * bounded_ratio(step1.log_ratio(events.reco[rows]), "step 1")
    v = events.reco_weight[rows]
    return pull * (v.sum() / (v @ pull[rows]))


def push_of_fakes(events: StandardizedEvents, fakes: Classifier, push: Array) -> Array:
    """``E[nu | r]`` of the fakes, at the scale of the events that pass both levels."""
    both, v = events.passes.both, events.reco_weight
    mean = np.average(push[both], weights=v[both])
    ratio = bounded_ratio(fakes.log_ratio(events.reco), "the classifier of fakes")
    return mean / np.average(ratio[both], weights=v[both]) * ratio[events.passes.fakes]
