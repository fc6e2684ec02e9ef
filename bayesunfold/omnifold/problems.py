"""The classes that each classifier of an iteration tells apart, nominal and in systematics of the detector level.

Step 1 tells data from the simulation weighted by ``v nu`` at detector level; step 2 tells the
generator weighted by ``v`` from the generator weighted by ``v omega`` at particle level (Andreassen et al.,
arXiv:1911.09107). With fakes a third classifier learns ``E[nu | reco]``, the push weight of an
event that has no particle level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold.classifier.two_class import Classifier, ClassWeights, TwoClass
from bayesunfold.errors import ConvergenceError, InputError
from bayesunfold.unfolding.background_changes import BackgroundChange
from bayesunfold.unfolding.perturbations import Acceptance, Shift, Shifted
from bayesunfold.unfolding.propagation import Varied
from bayesunfold.unfolding.standardized import StandardizedEvents, to_yield

__all__ = [
    "Efficiency",
    "acceptance_of",
    "bounded_ratio",
    "carried_share",
    "fakes_classes",
    "push_outside",
    "step1_classes",
    "step2_classes",
    "varied_backgrounds",
    "varied_step1",
    "varied_step2",
    "weight_there",
]

Array = NDArray[np.floating]
Efficiency = Literal["learned", "prior"]

MAX_LOG_RATIO = 50.0
"""A weight ratio of 5e21 is no weight: larger log ratios are an error."""


def __dir__() -> list[str]:
    return __all__


def bounded_ratio(log_ratio: Array, what: str) -> Array:
    """``exp`` of a learned log ratio; a ratio that overflows is an error, not an infinite weight."""
    if len(log_ratio) and not log_ratio.max() < MAX_LOG_RATIO:
        msg = (
            f"{what} learned a log ratio of {log_ratio.max():.3g}; the samples do not overlap there, or negative "
            "generator weights outweigh the others. Cut to the common range, or merge events of opposite sign."
        )
        raise ConvergenceError(msg)
    return np.exp(log_ratio)


def step1_classes(events: StandardizedEvents, push: Array) -> TwoClass:
    """Data (class 1) against the reweighted simulation and the backgrounds (class 0) at detector level.

    Each class enters at its effective size, so that the likelihood sees information, not yield. The signal in class 0
    is scaled to what the data hold beyond the backgrounds, and the backgrounds stand at their yields.
    """
    passing = events.passes.reco
    w0 = np.where(passing, events.reco_weight * push, 0.0)
    total = w0.sum()
    if total <= 0:
        msg = f"the reweighted simulation has total weight {total:g}; negative weights have taken over."
        raise InputError(msg)
    w0 = w0 * to_yield(w0, slice(None), events.signal_yield)
    backgrounds = [b.weight for b in events.backgrounds]
    everything = np.concatenate([w0, *backgrounds])
    sized = everything
    if events.sizing is not None:
        sized = np.where(passing, events.at_reco(events.sizing) * push, 0.0)
        sized = np.concatenate([sized * to_yield(sized, slice(None), events.signal_yield), *backgrounds])
    scale = effective_size(sized) / everything.sum()
    u = events.data.weight
    u = u * events.data.size / u.sum()
    zeros = w0 * scale
    samples = [
        ClassWeights.of("data", events.data.x, ones=u),
        ClassWeights("simulation", events.reco, np.zeros_like(w0), zeros, passing & (zeros != 0)),
        *(ClassWeights.of(b.name, b.x, zeros=b.weight * scale) for b in events.backgrounds),
    ]
    return TwoClass(tuple(samples), float(np.log(u.sum() / (everything.sum() * scale))))


def _ratio_classes(x: Array, weight: Array, sizing: Array | None, ratio: Array, rows: NDArray[np.bool_]) -> TwoClass:
    """The same events twice: with their weight (class 0) and with weight times ratio (class 1), equal sums."""
    zeros = np.where(rows, weight, 0.0)
    sized = zeros if sizing is None else np.where(rows, sizing, 0.0)
    zeros = zeros * effective_size(sized) / zeros.sum()
    ones = zeros * np.where(rows, ratio, 0.0)
    if ones.sum() <= 0:
        msg = f"the target weights of step 2 sum to {ones.sum():g}; negative weights have taken over."
        raise InputError(msg)
    return TwoClass((ClassWeights("simulation", x, ones * zeros.sum() / ones.sum(), zeros, rows),), 0.0)


def _step2_weights(
    events: StandardizedEvents, both: NDArray[np.bool_], there: Array, pull: Array, efficiency: Efficiency
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Weights of step 2, the ratio that it learns, and from which events.

    ``"learned"``: only events that pass both levels, as they count at detector level; misses get ``E[omega | t]``.
    ``"prior"``: misses take part and keep their generator weight. So does the part of an event that its scale factor
    says is missed.

    Parameters
    ----------
    events : StandardizedEvents
    both : boolean array, shape (n,)
        Events that pass both levels.
    there : array, shape (n,)
        Weights at detector level.
    pull : array, shape (n,)
    efficiency : {"learned", "prior"}
    """
    if efficiency == "learned":
        return there, np.where(both, pull, 0.0), both
    v = events.weight
    seen = np.divide(there, v, out=np.zeros(len(v)), where=both & (v != 0))
    return v, np.where(both, seen * pull + (1.0 - seen), 1.0), events.passes.gen


def step2_classes(events: StandardizedEvents, pull: Array, efficiency: Efficiency) -> TwoClass:
    """The generator with pull weights (class 1) against the generator (class 0) at particle level."""
    weight, ratio, rows = _step2_weights(events, events.passes.both, events.reco_weight, pull, efficiency)
    sizing = events.sizing
    if sizing is not None and efficiency == "learned":
        sizing = events.at_reco(sizing)
    return _ratio_classes(events.gen, weight, sizing, ratio, rows)


def fakes_classes(events: StandardizedEvents, push: Array) -> TwoClass:
    """The simulation with push weights (class 1) against the simulation (class 0), both levels passed, at reco."""
    both = events.passes.both
    sizing = None if events.sizing is None else events.at_reco(events.sizing)
    return _ratio_classes(events.reco, events.reco_weight, sizing, np.where(both, push, 0.0), both)


def carried_share(events: StandardizedEvents, pull: Array, efficiency: Efficiency) -> Array:
    """Share of an event's weight in class 1 of step 2 that moves with its pull weight, shape (n,)."""
    both = events.passes.both
    if efficiency == "learned" or events.reco_factor is None:
        return both.astype(np.float64)
    s = events.reco_factor
    return np.where(both, s * pull / np.where(both, s * pull + (1.0 - s), 1.0), 0.0)


def weight_there(events: StandardizedEvents, shifted: Shifted) -> Array:
    """Weights of the simulated events at detector level in a variation, without push weights, shape (n,)."""
    factor = events.reco_factor if shifted.factor is None else shifted.factor
    return np.where(shifted.passes, events.weight if factor is None else events.weight * factor, 0.0)


def push_outside(events: StandardizedEvents, push: Array, fakes: Classifier | None, shifted: Shifted) -> Array:
    """Push weights, with those of events that pass neither level and pass detector level in a variation.

    They are fakes there, so the classifier of fakes gives their weight; without one it is the mean of the others.
    """
    passes = events.passes
    rows = shifted.passes & ~passes.gen & ~passes.reco
    if not rows.any():
        return push
    out = push.copy()
    both = passes.both
    out[rows] = np.average(push[both], weights=events.reco_weight[both])
    known = np.flatnonzero(passes.fakes)
    if fakes is not None and len(known):
        unit = push[known[0]] / np.exp(fakes.log_ratio(events.reco[known[:1]])[0])
        out[rows] = unit * bounded_ratio(fakes.log_ratio(shifted.features[rows]), "the classifier of fakes")
    return out


def _sides(shift: Shift, make: Callable[[Shifted], ClassWeights]) -> Varied:
    return make(shift.up), None if shift.down is None else make(shift.down)


def varied_step1(
    events: StandardizedEvents, step1: Classifier, push: Array, fakes: Classifier | None, shift: Shift
) -> Varied:
    """Simulated events of step 1 when a systematic shifts the detector level; the signal keeps its total.

    Parameters
    ----------
    events : StandardizedEvents
    step1 : Classifier
    push : array, shape (n,)
        Push weights before the iteration.
    fakes : Classifier, optional
        The classifier that gave fakes their push weights.
    shift : Shift
    """
    nominal = step1.classes.sample("simulation")

    def make(shifted: Shifted) -> ClassWeights:
        if shifted.passes is events.passes.reco and shifted.factor is None:
            return replace(nominal, x=shifted.features)
        zeros = weight_there(events, shifted) * push_outside(events, push, fakes, shifted)
        total = zeros.sum()
        if total <= 0:
            msg = f"the reweighted simulation has total weight {total:g} in a variation; negative weights dominate it."
            raise InputError(msg)
        return replace(nominal, x=shifted.features, zeros=zeros * (nominal.zeros.sum() / total))

    return _sides(shift, make)


def varied_backgrounds(
    events: StandardizedEvents, step1: Classifier, changes: Mapping[str, Sequence[BackgroundChange]]
) -> dict[str, list[tuple[ClassWeights, ClassWeights]]]:
    """What systematics change of the backgrounds, up and down, as weights of step 1's class 0."""
    scale = {b.name: step1.classes.sample(b.name).zeros.sum() / b.weight.sum() for b in events.backgrounds}
    return {
        systematic: [
            (
                ClassWeights.of(c.name, c.x, zeros=c.weight.up * scale[c.name]),
                ClassWeights.of(c.name, c.x, zeros=c.weight.down * scale[c.name]),
            )
            for c in each
        ]
        for systematic, each in changes.items()
    }


def varied_step2(
    events: StandardizedEvents,
    step1: Classifier,
    step2: Classifier,
    push: Array,
    pull: Array,
    efficiency: Efficiency,
    shift: Shift,
) -> Varied:
    """Simulated events of step 2 when a systematic shifts the detector level.

    Events carry the pull weight of their shifted features; those that stop passing are left out, and those that begin
    to pass take part.

    Parameters
    ----------
    events : StandardizedEvents
    step1, step2 : Classifier
    push, pull : array, shape (n,)
        Push weights before the iteration, pull weights of the iteration.
    efficiency : {"learned", "prior"}
    shift : Shift
    """
    passes = events.passes
    nominal = step2.classes.sample("simulation")
    i = np.flatnonzero(passes.both)[:1]
    unit = pull[i] / (push[i] * np.exp(step1.log_ratio(events.reco[i])))
    weight, ratio, rows = _step2_weights(events, passes.both, events.reco_weight, pull, efficiency)
    one = nominal.ones.sum() / (weight * ratio)[rows].sum()
    zero = nominal.zeros.sum() / weight[rows].sum()

    def make(shifted: Shifted) -> ClassWeights:
        there, both = weight_there(events, shifted), passes.gen & shifted.passes
        moved = np.full(len(there), np.nan)
        log_ratio = step1.log_ratio(shifted.features[both])
        moved[both] = unit * push[both] * bounded_ratio(log_ratio, "step 1, shifted,")
        if efficiency == "prior":
            moved *= there[both].sum() / (there[both] @ moved[both])
        weight, ratio, rows = _step2_weights(events, both, there, moved, efficiency)
        zeros = np.where(rows, weight, 0.0)
        return replace(nominal, ones=one * zeros * ratio, zeros=zero * zeros)

    return _sides(shift, make)


def acceptance_of(events: StandardizedEvents, push: Array, fakes: Classifier | None, shift: Shift) -> Acceptance:
    """How a shift changes which events count at detector level, with the push weights of the last iteration."""
    passes = events.passes

    def change(shifted: Shifted) -> tuple[Array | NDArray[np.int8] | None, float]:
        if shifted.passes is passes.reco and shifted.factor is None:
            return None, 0.0
        outside = shifted.passes & ~passes.gen & ~passes.reco
        total = (weight_there(events, shifted) * push_outside(events, push, fakes, shifted))[outside].sum()
        factor = events.reco_factor if shifted.factor is None else shifted.factor
        return _share(shifted.passes, factor) - _share(passes.reco, events.reco_factor), float(total)

    up, high = change(shift.up)
    if shift.down is None:
        return Acceptance(shift.alpha, up, None if up is None else -up, (high, -high))
    down, low = change(shift.down)
    # a side on which all count as they did changes nothing there; the other one still does
    if up is None and down is not None:
        up = np.zeros_like(down)
    if down is None and up is not None:
        down = np.zeros_like(up)
    return Acceptance(shift.alpha, up, down, (high, low))


def _share(passes: NDArray[np.bool_], factor: Array | None) -> Array | NDArray[np.int8]:
    """What each event counts at detector level, of its generator weight."""
    return passes.astype(np.int8) if factor is None else passes * factor
