"""Nuisance parameters that data constrain: the inputs at their values, and what changes there per unit of each.

A profiled systematic is a parameter of the fit. The simulation is moved to a value ``alpha`` of all of them: event
weights, scale factors and backgrounds' yields change log-linearly, detector-level features and the share of events that
pass linearly.
Between minus one and one the two sides of a variation are joined by a parabola.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import as_features, as_flag, as_reco_factor, as_weight
from bayesunfold._support.streams import stream
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.unfolding.background_changes import Sides, VariedBackground
from bayesunfold.unfolding.correlations import given_correlations, prior_correlation
from bayesunfold.unfolding.perturbations import Variation
from bayesunfold.unfolding.profiled import (
    BackgroundYield,
    DetectorLevel,
    EventWeights,
    Nuisance,
    ScaleFactors,
    as_weights,
    bend,
    read_nuisances,
    slope,
    varied_backgrounds,
)
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents, standardize
from bayesunfold.unfolding.systematics import Systematic, scale_factors
from bayesunfold.unfolding.two_point import statistics_name

__all__ = ["Moved", "Nuisances", "SignedEvents"]

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]


def __dir__() -> list[str]:
    return __all__


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
    varied : mapping of str to VariedBackground
        By background: what profiled systematics change of it.
    correlation : array, shape (K, K)
        Of the parameters before the data.
    """

    each: tuple[Nuisance, ...]
    simulation: Simulation
    backgrounds: tuple[Background, ...]
    systematics: tuple[Systematic, ...]
    reco: Array
    chance: Array
    varied: Mapping[str, VariedBackground]
    correlation: Array

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
            As for :func:`bayesunfold.unfolding.profiled.read_nuisances`.
        """
        every, reco = read_nuisances(systematics, backgrounds, simulation, scales, seed)
        others = tuple(as_weights(s, simulation, seed) for s in systematics if not s.profile)
        chance = stream(seed, "migration").random(len(simulation))
        varied = varied_backgrounds(systematics, backgrounds, simulation)
        correlation = prior_correlation(given_correlations(systematics), [nuisance.name for nuisance in every])
        return cls(every, simulation, tuple(backgrounds), others, reco, chance, varied, correlation)

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
        moves = {b.name: b for b in backgrounds}
        systematics = tuple(
            _on_top(s, sim, simulation, factor, change, self._sides_on_top(s, moves, alpha)) for s in self.systematics
        )
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
        varied = self.varied.get(b.name)
        factor = self._normalisation(b, alpha)
        if varied is None:
            return b if factor == 1.0 else _background(b, b.weight * factor)
        shape, total = self._varied(varied, alpha)
        return _background(b, shape * (total * factor), varied.features, self._reco_names())

    def _reco_names(self) -> tuple[str, ...] | None:
        """Names of features in the order of the simulation, if it has any."""
        return self.simulation.reco_names if self.simulation.reco_named else None

    def _varied(self, varied: VariedBackground, alpha: Array) -> tuple[Array, float]:
        """Weights of a background at its nominal total, linear in the parameters, and a log-linear factor on it."""
        shape, logarithm = varied.weight.copy(), 0.0
        for name, change in varied.shapes.items():
            value = float(alpha[self.names.index(name)])
            shape += bend(change.up, change.down, value)
            high, low = varied.totals[name]
            logarithm += float(bend(np.array(high), np.array(low), value))
        return shape, float(np.exp(logarithm))

    def _sides_on_top(self, systematic: Systematic, moved: Mapping[str, Background], alpha: Array) -> dict[str, Sides]:
        """Backgrounds in a variation that is not profiled: what it changes, it changes of the moved ones too."""
        nominal = {b.name: b for b in self.backgrounds}
        out: dict[str, Sides] = {}
        for name, (up, down) in systematic.backgrounds.items():
            b, factor = nominal[name], self._normalisation(nominal[name], alpha)
            if name in self.varied:
                factor *= self._varied(self.varied[name], alpha)[1]

            on_top = partial(self._side_on_top, moved[name], b, factor)
            out[name] = (up, down) if moved[name] is b else (on_top(up), None if down is None else on_top(down))
        return out

    def _side_on_top(self, now: Background, nominal: Background, factor: float, side: Background) -> Background:
        """A moved background with a factor times what a variation changes of the nominal one."""
        parts = [(now, 1.0), (side, factor), (nominal, -factor)]
        features = np.concatenate([part.columns_for(self.simulation) for part, _ in parts])
        weight = np.concatenate([part.weight * scale for part, scale in parts])
        return _background(nominal, weight, features, self._reco_names())

    def _normalisation(self, b: Background, alpha: Array) -> float:
        """Factor on the yield of a background."""
        if not b.profile:
            return 1.0
        return float((1.0 + b.relative_uncertainty) ** alpha[self.names.index(b.name)])

    def _background_slopes(self, k: int, alpha: Array, now: Moved) -> list[tuple[Array, Array]]:
        """Standardised events of backgrounds, and derivatives of their weights by a systematic's parameter."""
        name = self.each[k].name
        out: list[tuple[Array, Array]] = []
        for b, events in zip(self.backgrounds, now.events.backgrounds, strict=True):
            varied = self.varied.get(b.name)
            if varied is not None and name in varied.shapes:
                change, value = varied.shapes[name], float(alpha[k])
                shape, total = self._varied(varied, alpha)
                high, low = varied.totals[name]
                moved = slope(change.up, change.down, value) + shape * slope(np.array(high), np.array(low), value)
                out.append((events.x, moved * (total * self._normalisation(b, alpha))))
        return out

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
        w = _refolded(events, push, rows)
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
            for x, change in self._background_slopes(k, alpha, now):  # the signal is what they leave of the data
                out[-1] += [[(x, change)], [(events.reco, w * (-change.sum() / total))]]
        return out

    def ratio_noise(self, k: int, now: Moved, push: Array, rows: NDArray[np.integer]) -> tuple[Array, Array] | None:
        """Events and weights, shape (n, M), that a draw of a learned ratio adds to a parameter's derivative.

        None if it has no such draws. Arguments are those of :meth:`derivatives`.
        """
        nuisance = self.each[k]
        if not isinstance(nuisance, EventWeights) or nuisance.draws is None:
            return None
        w = _refolded(now.events, push, rows)
        return now.events.reco, w[:, None] * (nuisance.draws - (w @ nuisance.draws) / w.sum())

    def ratio_statistics(self, size: Array, n_members: int) -> dict[str, Variation]:
        """What is unknown of learned ratios, at a size of the parameters, as variations of the weights.

        By their names, of :func:`statistics_name`. The size is the root mean square of the posterior: a parameter at
        zero that is not known lets the noise of a ratio in as well.
        """
        none = np.zeros(len(self.simulation))
        return {
            statistics_name(k.name): Variation(np.ones(n_members), none, none, draws=(a * k.draws).astype(np.float32))
            for k, a in zip(self.each, size, strict=True)
            if isinstance(k, EventWeights) and k.draws is not None
        }

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

    def yield_slopes(self, alpha: Array, now: Moved) -> dict[str, float]:
        """Change of the signal's yield, relative, per unit of each parameter that changes backgrounds."""
        out = {}
        for k, nuisance in enumerate(self.each):
            changes = [float(change.sum()) for _, change in self._background_slopes(k, alpha, now)]
            if isinstance(nuisance, BackgroundYield):
                size = next(float(b.weight.sum()) for b in now.backgrounds if b.name == nuisance.name)
                changes.append(self._per_unit(nuisance.name) * size)
            if changes:
                out[nuisance.name] = -sum(changes) / now.events.signal_yield
        return out


def _refolded(events: StandardizedEvents, push: Array, rows: NDArray[np.integer]) -> Array:
    """Weights of the refolded signal, of some of the events alone, shape (n,)."""
    used = np.zeros(len(events), dtype=bool)
    used[rows] = True
    w = np.where(events.passes.reco & used, events.reco_weight * push, 0.0)
    return np.asarray(w * (events.signal_yield / w.sum()))


def _passes_slope(nuisance: DetectorLevel, alpha: float) -> Array | None:
    up, down = nuisance.up_passes, nuisance.down_passes
    if up is None or down is None:
        return None
    return slope(up.astype(np.float64), down.astype(np.float64), alpha)


def _background(
    b: Background, weight: Array, features: Array | None = None, names: tuple[str, ...] | None = None
) -> Background:
    """A background with other weights, or with other events."""
    if features is None:
        features, names = b.features, b.names if b.named else None
    return Background(features, weight, b.name, b.relative_uncertainty, b.undefined, names, profile=b.profile)


def _on_top(
    systematic: Systematic,
    nominal: Simulation,
    moved: Simulation,
    factor: Array,
    change: Array,
    backgrounds: Mapping[str, Sides],
) -> Systematic:
    """A variation that is not profiled, of the moved simulation, and of backgrounds that are moved already."""
    passes, new = moved.pass_reco, moved.pass_reco & ~nominal.pass_reco
    sides: dict[str, Any] = {}
    before = scale_factors(nominal)
    seen = np.divide(scale_factors(moved), before, out=np.ones(len(before)), where=before != 0)
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
    return systematic.changed(**sides, backgrounds=backgrounds or None)
