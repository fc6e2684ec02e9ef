"""What systematic variations change of the backgrounds: events at detector level whose weights move with a parameter.

A variation gives a background as other events, or as other weights of the same events. Either way its change is a
weighted sum over the nominal events and those of the variation, which share one nuisance parameter with what the
variation changes of the simulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.events import Background, Simulation
from bayesunfold.unfolding.overlap import check_distance
from bayesunfold.unfolding.standardized import StandardizedBackground

__all__ = [
    "BackgroundChange",
    "Sides",
    "VariedBackground",
    "WeightChange",
    "as_background_sides",
    "check_background_names",
    "combined",
    "prepare_background_changes",
]

Array = NDArray[np.floating]
FACTOR = 3.0
"""A background whose total changes by more than this factor in a variation is taken for a mistake of its weights."""

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
            same = features.shape == x.shape and np.array_equal(features, x, equal_nan=True)
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


def prepare_background_changes(
    varied: Mapping[str, Mapping[str, Sides]],
    backgrounds: Sequence[StandardizedBackground],
    simulation: Simulation,
    scale: Standardizer,
) -> dict[str, tuple[BackgroundChange, ...]]:
    """Changes of the backgrounds by systematic, standardised.

    Raises
    ------
    InputError
        Backgrounds that are not there or have other features, a variation that changes nothing.
    """
    names = [b.name for b in backgrounds]
    out = {}
    for systematic, sides in varied.items():
        check_background_names(systematic, sides, names)
        out[systematic] = tuple(
            _change(systematic, backgrounds[names.index(name)], pair, simulation, scale) for name, pair in sides.items()
        )
    return out


def _change(
    systematic: str, nominal: StandardizedBackground, pair: Sides, simulation: Simulation, scale: Standardizer
) -> BackgroundChange:
    what = f"background {nominal.name!r} in {systematic!r}"

    def standardised(side: Background) -> tuple[Array, Array]:
        features = side.columns_for(simulation)
        check_distance(scale.each(features), simulation.reco_names, what)
        _check_total(float(side.weight.sum()), float(nominal.weight.sum()), what)
        return scale(features), side.weight

    up, down = standardised(pair[0]), None if pair[1] is None else standardised(pair[1])
    x, _, (change,) = combined((nominal.x, nominal.weight), [(up, down)])
    if not np.any(change.up):
        msg = (
            f"the systematic {systematic!r} leaves the background {nominal.name!r} as it is; leave it out of its "
            "backgrounds."
        )
        raise InputError(msg)
    return BackgroundChange(nominal.name, x, change)


def _check_total(varied: float, nominal: float, what: str) -> None:
    """A variation changes the expected yield by a factor that can be meant."""
    if not 1 / FACTOR < varied / nominal < FACTOR:
        msg = (
            f"{what} has {varied:.4g} expected events and {nominal:.4g} nominally; weights of backgrounds are in units "
            "of data events, in variations too. Check them."
        )
        raise InputError(msg)
