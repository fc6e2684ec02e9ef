"""What systematic variations change of the backgrounds: events at detector level whose weights move with a parameter.

A variation gives a background as other events, or as other weights of the same events. Either way its change is a
weighted sum over the nominal events and those of the variation, which share one nuisance parameter with what the
variation changes of the simulation.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.errors import InputError, InputTypeError, OverlapWarning
from bayesunfold.events import Background, Simulation
from bayesunfold.unfolding.overlap import check_distance, hard_edge
from bayesunfold.unfolding.standardized import StandardizedBackground

__all__ = [
    "BackgroundChange",
    "Sides",
    "VariedBackground",
    "WeightChange",
    "as_background_sides",
    "check_background_changes",
    "check_background_names",
    "combined",
    "prepare_background_changes",
    "same_events",
]

Array = NDArray[np.floating]
FACTOR = 3.0
"""A background whose total changes by more than this factor in a variation is taken for a mistake of its weights."""

CROSSING = 10
"""Events beyond an edge, or missing at it, that no fluctuation makes: less than one in 20 000 times."""

Sides = tuple[Background, Background | None]
"""A background at plus and at minus one standard deviation; None mirrors the first."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class WeightChange:
    """Changes of events' weights at plus and at minus one standard deviation, shape (m,)."""

    up: Array
    down: Array


@dataclass(frozen=True)
class BackgroundChange:
    """Change of a background by a systematic variation.

    Attributes
    ----------
    name : str
        Of the background.
    x : array, shape (m, d), float32
        Standardised features: of the background's own events, then of those of the variation.
    weight : WeightChange
        In units of expected data events.
    """

    name: str
    x: Array
    weight: WeightChange


@dataclass(frozen=True)
class VariedBackground:
    """A background and all that systematic variations change of it.

    Attributes
    ----------
    features : array, shape (m, d)
        In the order of the simulation's detector level: of its own events, then of those of variations.
    weight : array, shape (m,)
        Without any variation.
    shapes : dict of str to WeightChange
        By systematic: changes at the same total.
    totals : dict of str to (float, float)
        By systematic: logarithms of the totals over the nominal one, up and down.
    """

    features: Array
    weight: Array
    shapes: Mapping[str, WeightChange]
    totals: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, nominal: Background, varied: Mapping[str, Sides], simulation: Simulation) -> VariedBackground:
        """From the background as it is in each variation."""
        total = float(nominal.weight.sum())

        def read(side: Background) -> tuple[Array, Array]:
            return side.columns_for(simulation), side.weight * (total / side.weight.sum())

        pairs = [(read(up), None if down is None else read(down)) for up, down in varied.values()]
        features, weight, shapes = combined(read(nominal), pairs)
        totals = {}
        for name, (up, down) in varied.items():
            high = float(np.log(up.weight.sum() / total))
            totals[name] = high, -high if down is None else float(np.log(down.weight.sum() / total))
        return cls(features, weight, dict(zip(varied, shapes, strict=True)), totals)


def as_background_sides(given: object, name: str) -> dict[str, Sides]:
    """The argument ``backgrounds`` of a systematic, checked."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        msg = (
            f"backgrounds of {name!r} is a {type(given).__name__}; pass a dict of the backgrounds' names, each with a "
            "bayesunfold.Background, or two: up and down."
        )
        raise InputTypeError(msg)
    out: dict[str, Sides] = {}
    for background, value in given.items():
        sides = tuple(value) if isinstance(value, tuple | list) else (value,)
        sides = sides[:1] if len(sides) == 2 and sides[1] is None else sides
        if len(sides) not in (1, 2) or not all(isinstance(side, Background) for side in sides):
            msg = (
                f"backgrounds of {name!r} has {value!r} for {background!r}; pass a bayesunfold.Background, the "
                "background as it is in the variation, or two: up and down."
            )
            raise InputTypeError(msg)
        out[str(background)] = (sides[0], sides[1] if len(sides) == 2 else None)
    return out


def check_background_names(name: str, varied: Iterable[str], backgrounds: Sequence[str]) -> None:
    """Whether the backgrounds that a systematic varies are there.

    Raises
    ------
    InputError
    """
    for background in varied:
        if background not in backgrounds:
            there = ", ".join(repr(b) for b in backgrounds) or "none"
            msg = f"the systematic {name!r} varies the background {background!r}; there are: {there}."
            raise InputError(msg)


def same_events(features: Array, nominal: Array) -> bool:
    """Whether a variation has the nominal events, so that only their weights change."""
    return features.shape == nominal.shape and np.array_equal(features, nominal, equal_nan=True)


def combined(
    nominal: tuple[Array, Array], pairs: Sequence[tuple[tuple[Array, Array], tuple[Array, Array] | None]]
) -> tuple[Array, Array, list[WeightChange]]:
    """Nominal events with those of variations behind them, the weights without any, and what each changes.

    A variation of which all features are the nominal ones changes the weights of the same events.

    Parameters
    ----------
    nominal : (array, array)
        Features and weights.
    pairs : sequence of (up, down)
        Features and weights of each variation; down is None for a mirrored one.

    Examples
    --------
    >>> x, w, (change,) = combined(
    ...     (np.array([[1.0], [2.0]]), np.ones(2)), [((np.array([[1.1]]), np.array([3.0])), None)]
    ... )
    >>> w, change.up, change.down
    (array([1., 1., 0.]), array([-1., -1.,  3.]), array([ 1.,  1., -3.]))
    """
    x, weight = nominal
    parts, size = [x], len(x)
    sides: list[list[tuple[int, Array, bool]]] = []
    for pair in pairs:
        sides.append([])
        for features, w in (side for side in pair if side is not None):
            same = same_events(features, x)
            sides[-1].append((0 if same else size, w - weight if same else w, same))
            if not same:
                parts.append(features)
                size += len(features)

    def change(start: int, values: Array, same: bool) -> Array:
        out = np.zeros(size)
        if not same:
            out[: len(weight)] = -weight
        out[start : start + len(values)] += values
        return out

    changes = []
    for each in sides:
        up = change(*each[0])
        changes.append(WeightChange(up, change(*each[1]) if len(each) == 2 else -up))
    return np.concatenate(parts), np.concatenate([weight, np.zeros(size - len(weight))]), changes


def check_background_changes(
    varied: Mapping[str, Mapping[str, Sides]],
    backgrounds: Sequence[Background],
    simulation: Simulation,
    scale: Standardizer,
) -> None:
    """Whether the backgrounds of variations can be meant, before anything is moved.

    Raises
    ------
    InputError
        Backgrounds that are not there, have other features, lie far from the simulation, have another total by more
        than a factor; a variation that changes nothing.

    Warns
    -----
    OverlapWarning
        If a variation crosses a hard edge of the background, which a cut leaves.
    """
    known = {b.name: b for b in backgrounds}
    for systematic, each in varied.items():
        check_background_names(systematic, each, list(known))
        for name, sides in each.items():
            what, nominal = f"background {name!r} in {systematic!r}", known[name]
            x = nominal.columns_for(simulation)
            changes = [
                _check_side(side, (x, nominal.weight), simulation, scale, what) for side in sides if side is not None
            ]
            if not any(changes):
                msg = f"the systematic {systematic!r} leaves the background {name!r} as it is; leave it out of it."
                raise InputError(msg)


def _check_side(
    side: Background, nominal: tuple[Array, Array], simulation: Simulation, scale: Standardizer, what: str
) -> bool:
    """Whether a side differs from the nominal background, checked."""
    features, (x, weight) = side.columns_for(simulation), nominal
    check_distance(scale.each(features), simulation.reco_names, what)
    _check_total(float(side.weight.sum()), float(weight.sum()), what)
    if same_events(features, x):
        return not np.array_equal(side.weight, weight)
    for name, before, after in zip(simulation.reco_names, x.T, features.T, strict=True):
        _warn_of_edge(before[np.isfinite(before)], after[np.isfinite(after)], f"{what}: {name}")
    return True


def _warn_of_edge(nominal: Array, varied: Array, what: str) -> None:
    """Warn if a variation crosses an edge that a selection has cut, or leaves a gap at it.

    By a number of events that fluctuations do not make: those beyond the edge, or those expected in the gap.
    """
    for sign in (1.0, -1.0):
        found = hard_edge(sign * nominal)
        if found is None or len(varied) == 0:
            continue
        edge, _ = found
        end = float((sign * varied).min())
        beyond = int((sign * varied < edge).sum())
        missing = int((sign * nominal < end).sum()) * len(varied) / len(nominal)
        if max(beyond, missing) > CROSSING:
            msg = (
                f"{what} ends at {sign * end:.6g} and nominally at {sign * edge:.6g}, where a selection seems to cut; "
                "give the events that pass the selection in the variation, not those that pass nominally."
            )
            warnings.warn(msg, OverlapWarning, stacklevel=6)
            return


def prepare_background_changes(
    varied: Mapping[str, Mapping[str, Sides]],
    backgrounds: Sequence[StandardizedBackground],
    simulation: Simulation,
    scale: Standardizer,
) -> dict[str, tuple[BackgroundChange, ...]]:
    """Changes of the backgrounds by systematic, standardised; they were checked where they were read."""
    known = {b.name: b for b in backgrounds}

    def standardised(side: Background) -> tuple[Array, Array]:
        return scale(side.columns_for(simulation)), side.weight

    def change(name: str, up: Background, down: Background | None) -> BackgroundChange:
        b = known[name]
        pair = standardised(up), None if down is None else standardised(down)
        x, _, (found,) = combined((b.x, b.weight), [pair])
        return BackgroundChange(name, x, found)

    return {
        systematic: tuple(change(name, *sides) for name, sides in each.items()) for systematic, each in varied.items()
    }


def _check_total(varied: float, nominal: float, what: str) -> None:
    """A variation changes the expected yield by a factor that can be meant."""
    if not 1 / FACTOR < varied / nominal < FACTOR:
        msg = (
            f"{what} has {varied:.4g} expected events and {nominal:.4g} nominally; weights of backgrounds are in units "
            "of data events, in variations too. Check them."
        )
        raise InputError(msg)
