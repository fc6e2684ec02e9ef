"""Nuisance parameters that data constrain: the inputs at their values, and what changes there per unit of each.

A profiled systematic is a parameter of the fit. The simulation is moved to a value ``alpha`` of all of them: event
weights, scale factors and backgrounds' yields change log-linearly, detector-level features and the share of events that
pass linearly.
Between minus one and one the two sides of a variation are joined by a parabola.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import as_features, as_flag, as_reco_factor, as_weight
from bayesunfold._support.streams import stream
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents, standardize
from bayesunfold.unfolding.systematics import Systematic, relative_change, shifted_detector_level, two_point_change

__all__ = ["BackgroundYield", "DetectorLevel", "EventWeights", "Moved", "Nuisances", "SignedEvents", "bend", "slope"]

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
    """Logarithms of the factors on the events' weights at one and minus one, shape (n,)."""

    name: str
    up: Array
    down: Array


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
SignedEvents = list[list[tuple[Array, Array]]]
"""Events at detector level and weights, of which the weighted sum of any feature is a derivative.

The samples of an inner list are the same events, row by row.
"""


@dataclass(frozen=True)
class Moved:
    """The inputs of an unfolding at some value of the profiled nuisance parameters."""

    simulation: Simulation
    backgrounds: tuple[Background, ...]
    systematics: tuple[Systematic, ...]
    events: StandardizedEvents


@dataclass(frozen=True)
class Nuisances:
    """The profiled nuisance parameters of an unfolding, each N(0, 1) before the data.

    Attributes
    ----------
    each : tuple of EventWeights, ScaleFactors, DetectorLevel or BackgroundYield
    simulation : Simulation
        Nominal.
    backgrounds : tuple of Background
    systematics : tuple of Systematic
        Those that are not profiled.
    reco : array, shape (n, d)
        Nominal features; of events that pass only in a variation, theirs.
    chance : array, shape (n,)
        Uniform numbers that decide which events pass where a share of them does.
    """

    each: tuple[Nuisance, ...]
    simulation: Simulation
    backgrounds: tuple[Background, ...]
    systematics: tuple[Systematic, ...]
    reco: Array
    chance: Array

    @classmethod
    def of(
        cls,
        simulation: Simulation,
        backgrounds: Sequence[Background],
        systematics: Sequence[Systematic],
        scales: Scales,
        seed: int,
    ) -> Nuisances:
        """Read and check what is profiled.

        Raises
        ------
        InputError
            As for the systematics themselves; for weights that change their sign or vanish in a variation, for pass
            flags in one direction only.
        """
        every: list[Nuisance] = []
        reco, filled = simulation.reco, simulation.pass_reco
        for s in systematics:
            if s.profile and (s.weight_up is not None or s.alternative is not None):
                every.append(_event_weights(s, simulation, seed))
            elif s.profile and s.reco_factor_up is not None:
                every.append(_scale_factors(s, simulation, scales))
            elif s.profile:
                found, reco, filled = _detector_level(s, simulation, scales, reco, filled)
                every.append(found)
        every += [BackgroundYield(b.name) for b in backgrounds if b.profile]
        others = tuple(_as_weights(s, simulation, seed) for s in systematics if not s.profile)
        chance = stream(seed, "migration").random(len(simulation))
        return cls(tuple(every), simulation, tuple(backgrounds), others, reco, chance)

    def __len__(self) -> int:
        return len(self.each)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the systematics and backgrounds."""
        return tuple(nuisance.name for nuisance in self.each)

    def moved(self, alpha: Array, data: Data, scales: Scales) -> Moved:
        """All inputs at a value of the parameters, shape (K,)."""
        sim = self.simulation
        change, passes = self._features(alpha), self._share(alpha) > self.chance
        factor = np.exp(self._logarithm(EventWeights, alpha))
        reco = self.reco + change
        simulation = Simulation(
            sim.gen,
            reco,
            sim.weight * factor,
            sim.pass_gen,
            passes,
            sim.undefined,
            sim.gen_names if sim.gen_named else None,
            sim.reco_names if sim.reco_named else None,
            self._reco_factor(alpha),
        )
        backgrounds = tuple(self._background(b, alpha) for b in self.backgrounds)
        systematics = tuple(_on_top(s, sim, simulation, factor, change) for s in self.systematics)
        return Moved(simulation, backgrounds, systematics, standardize(simulation, data, backgrounds, scales))

    def _logarithm(self, kind: type[EventWeights | ScaleFactors], alpha: Array) -> Array:
        """Sum of the changes of one kind, shape (n,)."""
        parts = [bend(k.up, k.down, a) for k, a in zip(self.each, alpha, strict=True) if isinstance(k, kind)]
        return np.sum(parts, axis=0) if parts else np.zeros(len(self.simulation))

    def _reco_factor(self, alpha: Array) -> Array | None:
        """Scale factors of the events."""
        nominal = self.simulation.reco_factor
        if not any(isinstance(k, ScaleFactors) for k in self.each):
            return nominal
        moved = np.exp(self._logarithm(ScaleFactors, alpha))
        return moved if nominal is None else nominal * moved

    def _features(self, alpha: Array) -> Array:
        parts = [bend(k.up, k.down, a) for k, a in zip(self.each, alpha, strict=True) if isinstance(k, DetectorLevel)]
        return np.sum(parts, axis=0) if parts else np.zeros((1, 1))

    def _share(self, alpha: Array) -> Array:
        """Share of each event that passes detector level, below zero and above one where it is extrapolated."""
        out = self.simulation.pass_reco.astype(np.float64)
        for k, a in zip(self.each, alpha, strict=True):
            if isinstance(k, DetectorLevel) and k.up_passes is not None and k.down_passes is not None:
                out += bend(k.up_passes.astype(np.float64), k.down_passes.astype(np.float64), a)
        return out

    def _background(self, b: Background, alpha: Array) -> Background:
        if not b.profile:
            return b
        value = float(alpha[self.names.index(b.name)])
        return _background(b, (1.0 + b.relative_uncertainty) ** value)

    def derivatives(
        self,
        alpha: Array,
        step: Array,
        now: Moved,
        push: Array,
        outside: Callable[[Array, Flags], Array],
        rows: NDArray[np.integer],
    ) -> list[SignedEvents]:
        """For each parameter, events whose weighted sums are derivatives of the refolded simulation, (N1) to (N3).

        Parameters
        ----------
        alpha : array, shape (K,)
            Where the inputs are.
        step : array, shape (K,)
            On either side, of differences of features.
        now : Moved
            The inputs there.
        push : array, shape (n,)
            Push weights, fakes included.
        outside : callable
            Of standardised features and pass flags: push weights with those of events that come into detector level
            from outside of both levels.
        rows : int array
            Simulated events that the derivatives are estimated from.
        """
        events = now.events
        total = events.signal_yield
        used = np.zeros(len(events), dtype=bool)
        used[rows] = True
        w = np.where(events.passes.reco & used, events.reco_weight * push, 0.0)
        w *= total / w.sum()
        out: list[SignedEvents] = []
        for k, nuisance in enumerate(self.each):
            if isinstance(nuisance, EventWeights | ScaleFactors):  # at detector level they are the same
                change = slope(nuisance.up, nuisance.down, alpha[k])
                out.append([[(events.reco, w * (change - (w @ change) / total))]])
            elif isinstance(nuisance, DetectorLevel):
                sides = []
                for sign in (1.0, -1.0):
                    x, moved = self._shifted(k, alpha, sign * step[k], now, used, outside)
                    sides.append((x, moved * (sign * total / (2.0 * step[k] * moved.sum()))))
                out.append([sides])
            else:
                b = next(b for b in now.backgrounds if b.name == nuisance.name)
                x = next(e.x for e in events.backgrounds if e.name == nuisance.name)
                per_unit = self._per_unit(nuisance.name)
                out.append([[(x, b.weight * per_unit)], [(events.reco, w * (-b.weight.sum() * per_unit / total))]])
        return out

    def _per_unit(self, name: str) -> float:
        """Change of the logarithm of a background's yield per unit of its parameter."""
        return float(np.log1p(next(b.relative_uncertainty for b in self.backgrounds if b.name == name)))

    def _shifted(
        self,
        k: int,
        alpha: Array,
        step: float,
        now: Moved,
        used: Flags,
        outside: Callable[[Array, Flags], Array],
    ) -> tuple[Array, Array]:
        """Standardised features a step away, and the weights there of some of the events, not normalised."""
        there = alpha.copy()
        there[k] += step
        share = np.where(used, self._share(there), 0.0)
        nuisance = self.each[k]
        if isinstance(nuisance, DetectorLevel) and nuisance.up_passes is None:
            share = np.where(used & now.events.passes.reco, 1.0, 0.0)
        passes = share != 0
        x = self.features(there, passes, now.events.scales)
        return x, now.events.reco_weight * outside(x, passes) * share

    def features(self, alpha: Array, rows: Flags, scales: Scales) -> Array:
        """Standardised features of some events at a value, zero for the others, shape (n, d)."""
        x = np.zeros((len(rows), scales.reco.n_outputs), dtype=np.float32)
        x[rows] = scales.reco((self.reco + self._features(alpha))[rows])
        return x

    def weight_slopes(self, alpha: Array) -> dict[str, Array]:
        """Derivative of the logarithm of the events' weights by the parameters that change them, shape (n,)."""
        pairs = zip(self.each, alpha, strict=True)
        return {k.name: slope(k.up, k.down, a) for k, a in pairs if isinstance(k, EventWeights)}

    def share_slopes(self, alpha: Array, now: Moved) -> dict[str, Array | None]:
        """Derivative of what events count at detector level, of their weight, shape (n,); None where it stays."""
        factor = now.simulation.reco_factor
        out: dict[str, Array | None] = {}
        for k, a in zip(self.each, alpha, strict=True):
            if isinstance(k, ScaleFactors):
                out[k.name] = now.simulation.pass_reco * slope(k.up, k.down, a)
            elif isinstance(k, DetectorLevel):
                out[k.name] = _passes_slope(k, a)
            else:
                continue
            found = out[k.name]
            out[k.name] = found if found is None or factor is None else found * factor
        return out

    def yield_slopes(self, now: Moved) -> dict[str, float]:
        """Change of the signal's yield, relative, per unit of each background's parameter."""
        out = {}
        for k in self.each:
            if isinstance(k, BackgroundYield):
                size = next(float(b.weight.sum()) for b in now.backgrounds if b.name == k.name)
                out[k.name] = -self._per_unit(k.name) * size / now.events.signal_yield
        return out


def _passes_slope(nuisance: DetectorLevel, alpha: float) -> Array | None:
    up, down = nuisance.up_passes, nuisance.down_passes
    if up is None or down is None:
        return None
    return slope(up.astype(np.float64), down.astype(np.float64), alpha)


def _event_weights(systematic: Systematic, simulation: Simulation, seed: int) -> EventWeights:
    """Logarithms of the weights' factors, checked."""
    if systematic.alternative is not None:
        log_up = np.log1p(two_point_change(systematic, simulation, seed))
        return EventWeights(systematic.name, log_up, -log_up)
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
    nominal = np.ones(len(passes)) if simulation.reco_factor is None else simulation.reco_factor
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
        used = passes & (nominal > 0)
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


def _background(b: Background, factor: float) -> Background:
    names = b.names if b.named else None
    return Background(
        b.features, b.weight * factor, b.name, b.relative_uncertainty, b.undefined, names, profile=b.profile
    )


def _as_weights(systematic: Systematic, simulation: Simulation, seed: int) -> Systematic:
    """A two-point uncertainty as weights of the simulated events; others as they are."""
    if systematic.alternative is None:
        return systematic
    change = two_point_change(systematic, simulation, seed)
    v = simulation.weight
    return Systematic(systematic.name, weight_up=v * (1.0 + change), weight_down=v * (1.0 - change))


def _on_top(systematic: Systematic, nominal: Simulation, moved: Simulation, factor: Array, change: Array) -> Systematic:
    """A variation that is not profiled, of the moved simulation."""
    passes, new = moved.pass_reco, moved.pass_reco & ~nominal.pass_reco
    sides: dict[str, Any] = {}
    seen = _relative_factor(nominal, moved)
    for side in ("up", "down"):
        weight, reco, flag = (getattr(systematic, f"{kind}_{side}") for kind in ("weight", "reco", "pass_reco"))
        if weight is not None:
            weight = as_weight(weight, len(nominal), f"weight_{side}") * factor
        if reco is not None:
            reco = np.where(new[:, None], moved.reco, as_features(reco, f"reco_{side}")[0] + change)
        if flag is not None:
            flag = as_flag(flag, len(nominal), f"pass_reco_{side}")
            flag = np.where(flag == nominal.pass_reco, passes, flag)  # what it changes, it changes here too
        scale = getattr(systematic, f"reco_factor_{side}")
        if scale is not None:
            scale = as_reco_factor(scale, nominal.pass_reco, f"reco_factor_{side}") * seen
        sides |= {f"weight_{side}": weight, f"reco_{side}": reco, f"pass_reco_{side}": flag}
        sides[f"reco_factor_{side}"] = scale
    return Systematic(systematic.name, **sides)


def _relative_factor(nominal: Simulation, moved: Simulation) -> Array:
    """Scale factors of the moved simulation over the nominal ones, shape (n,)."""
    if moved.reco_factor is None:
        return np.ones(len(nominal))
    if nominal.reco_factor is None:
        return moved.reco_factor
    zero = nominal.reco_factor == 0
    return np.divide(moved.reco_factor, nominal.reco_factor, out=np.ones(len(nominal)), where=~zero)
