"""The point estimate: one OmniFold iteration after another, with MAP networks.

Step 1 tells data from the simulation weighted by ``v nu`` at detector level; step 2 tells the
generator weighted by ``v`` from the generator weighted by ``v omega`` at particle level (Andreassen et al.,
arXiv:1911.09107). With fakes a third classifier learns ``E[nu | reco]``, the push weight of an
event that has no particle level. Each iteration starts from the networks of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold.classifier.arithmetic import Layout, forward, tangent
from bayesunfold.classifier.stage import Stage, leading_directions
from bayesunfold.classifier.training import WIDE, MapFit, Problem, fit_map
from bayesunfold.errors import ConvergenceError, InputError
from bayesunfold.unfolding.members import Weights
from bayesunfold.unfolding.perturbations import Acceptance, Shift, Shifted
from bayesunfold.unfolding.propagation import Level, Moved, Sides
from bayesunfold.unfolding.standardized import Prepared

__all__ = [
    "Iteration",
    "Stages",
    "acceptance_of",
    "apply_weights",
    "build_stages",
    "moved_step1",
    "moved_step2",
    "train_iteration",
]

Array = NDArray[np.floating]
Efficiency = Literal["learned", "prior"]

MAX_LOG_RATIO = 50.0
"""A weight ratio of 5e21 is no weight: larger log ratios are an error."""

BASIS_ROWS = 4_000
"""Events that the leading directions are found from."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Iteration:
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


@dataclass(frozen=True)
class Stages:
    """The classifiers of one iteration, ready for the propagation.

    ``level`` is what members keep of the pull weights' normalisation, for ``efficiency="prior"``.
    """

    step1: Stage
    step2: Stage
    fakes: Stage | None
    level: Level | None = None


@dataclass(frozen=True)
class _Classes:
    """Class weights of the simulated events in one fit."""

    ones: Array
    zeros: Array
    offset: float
    data_ones: Array | None = None
    background_zeros: Mapping[str, Array] = field(default_factory=dict)


def _step1_classes(events: Prepared, push: Array) -> _Classes:
    """Each class at its effective size, so that the likelihood sees information, not yield.

    Class 0 is the signal, scaled to what the data hold beyond the backgrounds, and the backgrounds at their yields.
    """
    w0 = np.where(events.pass_reco, events.weight * push, 0.0)
    u = events.data_weight
    total = w0.sum()
    if total <= 0:
        msg = f"the reweighted simulation has total weight {total:g}; negative weights have taken over."
        raise InputError(msg)
    w0 = w0 * (events.signal_yield / total)
    backgrounds = [b.weight for b in events.backgrounds]
    everything = np.concatenate([w0, *backgrounds])
    sized = everything
    if events.sizing is not None:
        sized = np.where(events.pass_reco, events.sizing * push, 0.0)
        sized = np.concatenate([sized * (events.signal_yield / sized.sum()), *backgrounds])
    scale = effective_size(sized) / everything.sum()
    u = u * events.data_size / u.sum()
    return _Classes(
        np.zeros_like(w0),
        w0 * scale,
        float(np.log(u.sum() / (everything.sum() * scale))),
        u,
        {b.name: b.weight * scale for b in events.backgrounds},
    )


def _ratio_classes(events: Prepared, ratio: Array, rows: NDArray[np.bool_]) -> _Classes:
    """The same events twice: weighted by ``v`` (class 0) and by ``v ratio`` (class 1), equal sums."""
    zeros = np.where(rows, events.weight, 0.0)
    sized = zeros if events.sizing is None else np.where(rows, events.sizing, 0.0)
    zeros = zeros * effective_size(sized) / zeros.sum()
    ones = zeros * np.where(rows, ratio, 0.0)
    if ones.sum() <= 0:
        msg = f"the target weights of step 2 sum to {ones.sum():g}; negative weights have taken over."
        raise InputError(msg)
    return _Classes(ones * zeros.sum() / ones.sum(), zeros, 0.0)


def _step2_ratio(events: Prepared, pull: Array, efficiency: Efficiency) -> tuple[Array, NDArray[np.bool_]]:
    """What step 2 learns, and from which events.

    ``"learned"``: only events that pass both levels; misses then get ``E[omega | t]``.
    ``"prior"``: misses take part and keep their generator weight.
    """
    if efficiency == "learned":
        return np.where(events.both, pull, 0.0), events.both
    return np.where(events.both, pull, 1.0), events.pass_gen


def _problem(x: Array, classes: _Classes, rows: NDArray[np.bool_], events: Prepared | None = None) -> Problem:
    """The fit of a classifier to simulated events, and for step 1 (``events`` given) to data and backgrounds."""
    if events is None or classes.data_ones is None:
        return Problem(x[rows], classes.ones[rows], classes.zeros[rows], classes.offset)
    n = len(events.data)
    backgrounds = [classes.background_zeros[b.name] for b in events.backgrounds]
    zeros = np.concatenate([classes.zeros[rows], *backgrounds])
    return Problem(
        np.concatenate([events.data, x[rows], *(b.features for b in events.backgrounds)]),
        np.concatenate([classes.data_ones, np.zeros(len(zeros))]),
        np.concatenate([np.zeros(n), zeros]),
        classes.offset,
    )


def _ratio(log_ratio: Array, what: str) -> Array:
    """``exp`` of a learned log ratio; a ratio that overflows is an error, not an infinite weight."""
    if len(log_ratio) and not log_ratio.max() < MAX_LOG_RATIO:
        msg = (
            f"{what} learned a log ratio of {log_ratio.max():.3g}; the samples do not overlap there, or negative "
            "generator weights outweigh the others. Cut to the common range, or merge events of opposite sign."
        )
        raise ConvergenceError(msg)
    return np.exp(log_ratio)


def _pull(events: Prepared, layout: Layout, theta: Array, push: Array) -> Array:
    """``omega = nu exp f1``, at mean one (generator-weighted) over events that pass both levels."""
    pull = np.full(len(push), np.nan)
    rows = events.both
    pull[rows] = push[rows] * _ratio(forward(layout, theta, events.reco[rows]), "step 1")
    v = events.weight[rows]
    return pull * (v.sum() / (v @ pull[rows]))


def hidden_centre(layout: Layout, first: Array) -> Array:
    """Prior mean of the networks after the first iteration: its hidden layers, no output.

    In late iterations step 1 learns a ratio near one. With hidden weights pulled to zero its
    tangent space would collapse, and members could no longer answer to their fluctuations.
    """
    centre = first.copy()
    centre[layout.n_hidden_parameters :] = 0.0
    return centre


def train_iteration(
    events: Prepared,
    layouts: tuple[Layout, Layout],
    before: Weights,
    previous: Iteration | None,
    first: Iteration | None,
    efficiency: Efficiency,
    rng: np.random.Generator,
    restarts: int,
    report: Callable[[str, float], None] = lambda _step, _loss: None,
    start_from: Iteration | None = None,
) -> Iteration:
    """Fit the classifiers of one iteration.

    Parameters
    ----------
    layouts : pair of Layout
        Detector-level and particle-level networks.
    before : Weights
        Weights after the previous iteration.
    previous, first : Iteration or None
        Warm start, and the iteration whose hidden layers centre the priors.
    report : callable
        Told the name and objective of every fit as it finishes.
    start_from : Iteration, optional
        Networks close to the answer, from which every fit starts.
    """
    reco, gen = layouts
    restarts = restarts if previous is None else 1
    classes = _step1_classes(events, before.push)
    problem = _problem(events.reco, classes, events.pass_reco, events)
    centre = None if first is None else hidden_centre(reco, first.step1)
    # the second iteration's ratio is near one, not near the first's: it starts at the centre of its prior
    start = centre if previous is first else None if previous is None else previous.step1
    near = start_from is not None
    if start_from is not None:
        start, previous = start_from.step1, start_from
    one = fit_map(reco, problem, rng, start=start, centre=centre, restarts=restarts, near=near)
    report("step 1", one.objective)
    pull = _pull(events, reco, one.theta, before.push)
    ratio, rows = _step2_ratio(events, pull, efficiency)
    classes = _ratio_classes(events, ratio, rows)
    two = fit_map(
        gen,
        _problem(events.gen, classes, rows),
        rng,
        start=None if previous is None else previous.step2,
        restarts=restarts,
        near=near,
    )
    report("step 2", two.objective)
    fits: dict[str, MapFit] = {"step1": one, "step2": two}
    if events.fakes.any():
        push = _ratio(forward(gen, two.theta, events.gen), "step 2")
        classes = _ratio_classes(events, push, events.both)
        start = None if previous is None else previous.fakes
        problem = _problem(events.reco, classes, events.both)
        fits["fakes"] = fit_map(reco, problem, rng, start=start, restarts=restarts, near=near)
    return Iteration(
        one.theta,
        two.theta,
        fits["fakes"].theta if "fakes" in fits else None,
        losses={name: fit.objective for name, fit in fits.items()},
        decrements={name: fit.decrement for name, fit in fits.items()},
    )


def apply_weights(events: Prepared, layouts: tuple[Layout, Layout], before: Weights, it: Iteration) -> Weights:
    """Weights of every simulated event after an iteration."""
    reco, gen = layouts
    pull = _pull(events, reco, it.step1, before.push)
    push = np.zeros(len(pull))
    push[events.pass_gen] = _ratio(forward(gen, it.step2, events.gen[events.pass_gen]), "step 2")
    if it.fakes is not None:
        both = events.both
        mean = np.average(push[both], weights=events.weight[both])
        ratio = _ratio(forward(reco, it.fakes, events.reco), "the classifier of fakes")
        norm = np.average(ratio[both], weights=events.weight[both])
        push[events.fakes] = mean / norm * ratio[events.fakes]
    return Weights(push, pull)


def build_stages(
    events: Prepared,
    layouts: tuple[Layout, Layout],
    before: Weights,
    after: Weights,
    it: Iteration,
    efficiency: Efficiency,
) -> Stages:
    """The iteration's classifiers as the propagation wants them."""
    reco, gen = layouts
    classes = _step1_classes(events, before.push)
    step1 = _stage(reco, it.step1, "reco", events.reco, classes, events.pass_reco, events)
    ratio, rows = _step2_ratio(events, after.pull, efficiency)
    step2 = _stage(gen, it.step2, "gen", events.gen, _ratio_classes(events, ratio, rows), rows)
    fakes = None
    if it.fakes is not None:
        classes = _ratio_classes(events, np.where(events.pass_gen, after.push, 0.0), events.both)
        fakes = _stage(reco, it.fakes, "reco", events.reco, classes, events.both)
    level = None
    if efficiency == "prior":
        generated = np.where(events.both, events.weight, 0.0)
        pulled = np.where(events.both, events.weight * after.pull, 0.0)
        level = Level(pulled / pulled.sum(), generated / generated.sum())
    return Stages(step1, step2, fakes, level)


def _stage(
    layout: Layout,
    theta: Array,
    level: Literal["gen", "reco"],
    x: Array,
    classes: _Classes,
    rows: NDArray[np.bool_],
    events: Prepared | None = None,
) -> Stage:
    problem = _problem(x, classes, rows, events)
    chosen = np.arange(len(problem.x))
    if len(chosen) > BASIS_ROWS:
        chosen = np.linspace(0, len(chosen) - 1, BASIS_ROWS).astype(int)
    part = problem.subset(chosen)
    share = 0.999 if layout.n_parameters <= WIDE else 0.99
    basis = leading_directions(tangent(layout, theta, part.x), part.curvature_weights(layout, theta), share)
    return Stage(
        layout,
        theta,
        basis,
        level,
        classes.ones,
        classes.zeros,
        classes.offset,
        classes.data_ones,
        classes.background_zeros,
    )


def _push_outside(events: Prepared, push: Array, fakes: Stage | None, shifted: Shifted) -> Array:
    """Push weights, with those of events that pass neither level and pass detector level in a variation.

    They are fakes there, so the classifier of fakes gives their weight; without one it is the mean of the others.
    """
    rows = shifted.passes & ~events.pass_gen & ~events.pass_reco
    if not rows.any():
        return push
    out = push.copy()
    both = events.both
    out[rows] = np.average(push[both], weights=events.weight[both])
    known = np.flatnonzero(events.fakes)
    if fakes is not None and len(known):
        unit = push[known[0]] / np.exp(fakes.forward(events.reco[known[:1]])[0])
        out[rows] = unit * _ratio(fakes.forward(shifted.features[rows]), "the classifier of fakes")
    return out


def _sides(shift: Shift, make: Callable[[Shifted], Moved]) -> Sides:
    return make(shift.up), None if shift.down is None else make(shift.down)


def moved_step1(events: Prepared, step1: Stage, push: Array, fakes: Stage | None, shift: Shift) -> Sides:
    """Class weights of step 1 when a systematic shifts the detector level; the signal keeps its total.

    Parameters
    ----------
    step1 : Stage
    push : array, shape (n,)
        Push weights before the iteration.
    fakes : Stage, optional
        The classifier that gave fakes their push weights.
    shift : Shift
    """

    def make(shifted: Shifted) -> Moved:
        if shifted.passes is events.pass_reco:
            return Moved(step1.ones, step1.zeros)
        zeros = np.where(shifted.passes, events.weight * _push_outside(events, push, fakes, shifted), 0.0)
        total = zeros.sum()
        if total <= 0:
            msg = f"the reweighted simulation has total weight {total:g} in a variation; negative weights dominate it."
            raise InputError(msg)
        return Moved(step1.ones, zeros * (step1.zeros.sum() / total))

    return _sides(shift, make)


def moved_step2(
    events: Prepared, stages: Stages, before: Weights, after: Weights, efficiency: Efficiency, shift: Shift
) -> Sides:
    """Class weights of step 2 when a systematic shifts the detector level.

    Events carry the pull weight of their shifted features; those that stop passing are left out, and those that begin
    to pass take part.
    """
    step1, step2, v = stages.step1, stages.step2, events.weight
    i = np.flatnonzero(events.both)[:1]
    unit = after.pull[i] / (before.push[i] * np.exp(step1.forward(events.reco[i])))
    ratio, rows = _step2_ratio(events, after.pull, efficiency)
    one = step2.ones.sum() / (v * ratio)[rows].sum()
    zero = step2.zeros.sum() / v[rows].sum()

    def make(shifted: Shifted) -> Moved:
        both = events.pass_gen & shifted.passes
        pull = np.full(len(v), np.nan)
        pull[both] = unit * before.push[both] * _ratio(step1.forward(shifted.features[both]), "step 1, shifted,")
        if efficiency == "prior":
            pull *= v[both].sum() / (v[both] @ pull[both])
            rows, ratio = events.pass_gen, np.where(both, pull, 1.0)
        else:
            rows, ratio = both, np.where(both, pull, 0.0)
        zeros = np.where(rows, v, 0.0)
        return Moved(one * zeros * ratio, zero * zeros)

    return _sides(shift, make)


def acceptance_of(events: Prepared, push: Array, fakes: Stage | None, shift: Shift) -> Acceptance:
    """How a shift changes which events count at detector level, with the push weights of the last iteration."""

    def change(shifted: Shifted) -> tuple[NDArray[np.int8] | None, float]:
        if shifted.passes is events.pass_reco:
            return None, 0.0
        outside = shifted.passes & ~events.pass_gen & ~events.pass_reco
        total = (events.weight * _push_outside(events, push, fakes, shifted))[outside].sum()
        return shifted.passes.astype(np.int8) - events.pass_reco.astype(np.int8), float(total)

    up, high = change(shift.up)
    if shift.down is None:
        return Acceptance(shift.alpha, up, None if up is None else -up, (high, -high))
    down, low = change(shift.down)
    return Acceptance(shift.alpha, up, down, (high, low))
