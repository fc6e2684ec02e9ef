"""What profiled systematics change of the simulation and of backgrounds, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import as_features
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Simulation
from bayesunfold.unfolding.background_changes import VariedBackground
from bayesunfold.unfolding.standardized import Scales
from bayesunfold.unfolding.systematics import (
    Systematic,
    relative_change,
    scale_factors,
    shifted_detector_level,
)
from bayesunfold.unfolding.two_point import two_point_change

__all__ = [
    "BackgroundYield",
    "DetectorLevel",
    "EventWeights",
    "Nuisance",
    "ScaleFactors",
    "as_weights",
    "bend",
    "read_nuisances",
    "slope",
    "varied_backgrounds",
]

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]


def __dir__() -> list[str]:
    return __all__


def bend(up: Array, down: Array, alpha: float) -> Array:
    """A change that is ``up`` at one and ``down`` at minus one: a parabola between, straight beyond.

    Examples
    --------
    >>> [float(bend(np.array(2.0), np.array(-1.0), a)) for a in (-1.0, 0.0, 1.0, 2.0)]
    [-1.0, 0.0, 2.0, 4.5]
    """
    a = float(np.clip(alpha, -1.0, 1.0))
    return 0.5 * (up - down) * a + 0.5 * (up + down) * a**2 + slope(up, down, a) * (alpha - a)


def slope(up: Array, down: Array, alpha: float) -> Array:
    """Derivative of :func:`bend`."""
    return 0.5 * (up - down) + (up + down) * float(np.clip(alpha, -1.0, 1.0))


@dataclass(frozen=True)
class EventWeights:
    """Logarithms of the factors on the events' weights at one and minus one, shape (n,).

    ``draws``, shape (n, M), are posterior draws of a ratio that was learned, less their mean.
    """

    name: str
    up: Array
    down: Array
    draws: Array | None = None


@dataclass(frozen=True)
class ScaleFactors:
    """Logarithms of the factors on the events' scale factors at one and minus one, shape (n,)."""

    name: str
    up: Array
    down: Array


@dataclass(frozen=True)
class DetectorLevel:
    """Changes of the detector level at one and minus one.

    Attributes
    ----------
    name : str
    up, down : array, shape (n, d)
        Of the features.
    up_passes, down_passes : int8 array, shape (n,), or None
        1 for events that pass only in the variation, -1 for those that pass only without; None if all pass as they did.
    """

    name: str
    up: Array
    down: Array
    up_passes: NDArray[np.int8] | None
    down_passes: NDArray[np.int8] | None


@dataclass(frozen=True)
class BackgroundYield:
    """The normalisation of a background: log-normal, larger by its relative uncertainty at one."""

    name: str


Nuisance = EventWeights | ScaleFactors | DetectorLevel | BackgroundYield


def read_nuisances(
    systematics: Sequence[Systematic],
    backgrounds: Sequence[Background],
    simulation: Simulation,
    scales: Scales,
    seed: int,
) -> tuple[tuple[Nuisance, ...], Array]:
    """The profiled parameters, and detector-level features with those of events that pass only in a variation.

    Raises
    ------
    InputError
        As for the systematics themselves; for weights that change their sign or vanish in a variation, for pass flags
        in one direction only.
    """
    every: list[Nuisance] = []
    reco, filled = simulation.reco, simulation.pass_reco
    for s in (s for s in systematics if s.profile):
        if not s.changes_simulation:
            every.append(EventWeights(s.name, *np.zeros((2, len(simulation)))))
        elif s.weight_up is not None or s.alternative is not None:
            every.append(_event_weights(s, simulation, seed))
        elif s.reco_factor_up is not None:
            every.append(_scale_factors(s, simulation, scales))
        else:
            found, reco, filled = _detector_level(s, simulation, scales, reco, filled)
            every.append(found)
    every += [BackgroundYield(b.name) for b in backgrounds if b.profile]
    return tuple(every), reco


def _event_weights(systematic: Systematic, simulation: Simulation, seed: int) -> EventWeights:
    """Logarithms of the weights' factors, checked."""
    if systematic.alternative is not None:
        log_up, draws = two_point_change(systematic, simulation, seed)
        return EventWeights(systematic.name, log_up, -log_up, draws)
    sides = []
    for direction, weight in (("up", systematic.weight_up), ("down", systematic.weight_down)):
        if weight is None:
            continue
        factor = 1.0 + relative_change(systematic, weight, simulation, direction)
        bad = (factor <= 0) & simulation.used
        if bad.any():
            row = int(np.argmax(bad))
            msg = (
                f"weight_{direction} of {systematic.name} is {factor[row]:.3g} times the nominal weight at row {row}, "
                f"and of another sign or zero in {int(bad.sum())} events; a profiled variation multiplies weights by "
                "positive factors. Take profile=False, or give such events a small positive factor."
            )
            raise InputError(msg)
        sides.append(np.log(np.where(factor > 0, factor, 1.0)))
    return EventWeights(systematic.name, sides[0], sides[1] if len(sides) == 2 else -sides[0])


def _scale_factors(systematic: Systematic, simulation: Simulation, scales: Scales) -> ScaleFactors:
    """Logarithms of the factors on the scale factors, checked."""
    if systematic.reco_up is not None or systematic.pass_reco_up is not None:
        msg = (
            f"{systematic.name!r} changes scale factors together with features or pass flags; a profiled parameter "
            "changes one of them. Take profile=False."
        )
        raise InputError(msg)
    passes = simulation.pass_reco
    nominal = scale_factors(simulation)
    sides = []
    for direction in ("up", "down"):
        found = shifted_detector_level(systematic, simulation, scales.reco, direction)
        if found is None:
            continue
        factor = nominal if found.factor is None else found.factor
        bad = passes & ((factor > 0) != (nominal > 0))
        if bad.any():
            row = int(np.argmax(bad))
            msg = (
                f"reco_factor_{direction} of {systematic.name} is {factor[row]:.3g} and the nominal one "
                f"{nominal[row]:.3g} at row {row}; a profiled variation multiplies scale factors, which can neither "
                "reach zero nor leave it. Take profile=False, or a small positive factor."
            )
            raise InputError(msg)
        used = (factor > 0) & (nominal > 0)  # also events that fail nominally and pass in another variation
        sides.append(np.log(np.divide(factor, nominal, out=np.ones(len(passes)), where=used)))
    return ScaleFactors(systematic.name, sides[0], sides[1] if len(sides) == 2 else -sides[0])


def _detector_level(
    systematic: Systematic, simulation: Simulation, scales: Scales, reco: Array, filled: Flags
) -> tuple[DetectorLevel, Array, Flags]:
    """Changes of the features, checked, and the features with those of events that pass only in the variation.

    ``filled`` are the events whose features are known.
    """
    flags = systematic.pass_reco_up, systematic.pass_reco_down
    if (flags[0] is None) != (flags[1] is None):
        msg = (
            f"{systematic.name!r} has pass flags in one direction; a profiled parameter goes both ways. "
            "Give pass_reco_up and pass_reco_down, or take profile=False."
        )
        raise InputError(msg)
    nominal = simulation.pass_reco
    sides: list[tuple[Array, NDArray[np.int8] | None]] = []
    for direction, flag in zip(("up", "down"), flags, strict=True):
        found = shifted_detector_level(systematic, simulation, scales.reco, direction)
        if found is None:
            continue
        given = getattr(systematic, f"reco_{direction}")
        values = simulation.reco if given is None else as_features(given, f"reco_{direction}")[0]
        new = found.passes & ~filled
        reco = np.where(new[:, None], values, reco)  # what a failing row holds does not matter
        filled = filled | new
        change = np.where((found.passes & nominal)[:, None], values - simulation.reco, 0.0)
        passes = None if flag is None else found.passes.astype(np.int8) - nominal.astype(np.int8)
        sides.append((np.nan_to_num(change), passes))
    if len(sides) == 1:
        sides.append((-sides[0][0], None))
    return DetectorLevel(systematic.name, sides[0][0], sides[1][0], sides[0][1], sides[1][1]), reco, filled


def varied_backgrounds(
    systematics: Sequence[Systematic], backgrounds: Sequence[Background], simulation: Simulation
) -> dict[str, VariedBackground]:
    """By background: what profiled systematics change of it."""
    out = {}
    for b in backgrounds:
        sides = {s.name: s.backgrounds[b.name] for s in systematics if s.profile and b.name in s.backgrounds}
        if sides:
            out[b.name] = VariedBackground.of(b, sides, simulation)
    return out


def as_weights(systematic: Systematic, simulation: Simulation, seed: int) -> Systematic:
    """A two-point uncertainty as weights of the simulated events; others as they are."""
    if systematic.alternative is None:
        return systematic
    log_ratio, draws = two_point_change(systematic, simulation, seed)
    out = Systematic(
        systematic.name,
        weight_up=simulation.weight * np.exp(log_ratio),
        correlation=systematic.correlation,
        backgrounds=systematic.backgrounds or None,
    )
    out.ratio_draws = draws
    return out
