"""Events as an unfolding uses them: standardised features, weights, and who passes what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.network import Network
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Passes, Simulation

__all__ = ["MeasuredEvents", "Scales", "StandardizedBackground", "StandardizedEvents", "standardize", "to_yield"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class MeasuredEvents:
    """Data events.

    Attributes
    ----------
    x : array, shape (N, d_reco), float32
    weight : array, shape (N,)
    size : float
        Effective number of events, the information that they bring.
    """

    x: Array
    weight: Array
    size: float


@dataclass(frozen=True)
class StandardizedBackground:
    """Events of a background.

    Attributes
    ----------
    name : str
    x : array, shape (b, d_reco), float32
    weight : array, shape (b,)
        In units of expected data events.
    relative_uncertainty : float
        Zero if it is a parameter of the fit.
    """

    name: str
    x: Array
    weight: Array
    relative_uncertainty: float


@dataclass(frozen=True)
class Scales:
    """Standardisation of both levels, chosen from the simulation alone."""

    gen: Standardizer
    reco: Standardizer

    @classmethod
    def fit(cls, simulation: Simulation, intervals: tuple[int, int] = (0, 0)) -> Scales:
        """From the events that pass each level; ``intervals`` of the networks' additive part, at reco and at gen."""
        gen, reco = simulation.pass_gen, simulation.pass_reco
        return cls(
            Standardizer.fit(simulation.gen[gen], simulation.weight[gen], intervals[1]),
            Standardizer.fit(simulation.reco[reco], simulation.reco_weight[reco], intervals[0]),
        )


@dataclass(frozen=True)
class StandardizedEvents:
    """All events of an unfolding.

    Attributes
    ----------
    gen, reco : array, shape (n, d), float32
        Standardised features of the simulation; zero in rows that fail the level.
    weight : array, shape (n,)
        Generator weights, scaled to mean one over the events that pass both levels.
    reco_factor : array, shape (n,), or None
        What multiplies them at detector level; None for one.
    passes : Passes
        Who passes which level.
    data : MeasuredEvents
    backgrounds : tuple of StandardizedBackground
    scales : Scales
    sizing : array, shape (n,), optional
        Weights that define the effective sample size. A refit passes the unfluctuated ones. Default: ``weight``.
    """

    gen: Array
    reco: Array
    weight: Array
    passes: Passes
    data: MeasuredEvents
    backgrounds: tuple[StandardizedBackground, ...]
    scales: Scales
    sizing: Array | None = None
    reco_factor: Array | None = None

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def reco_weight(self) -> Array:
        """Weights at detector level, shape (n,)."""
        return self.at_reco(self.weight)

    def at_reco(self, weight: Array) -> Array:
        """Generator weights, or others, as they count at detector level, shape (n,)."""
        return weight if self.reco_factor is None else weight * self.reco_factor

    @cached_property
    def signal_yield(self) -> float:
        """Data yield minus the backgrounds'."""
        return float(self.data.weight.sum() - sum(b.weight.sum() for b in self.backgrounds))

    def layouts(self, detector_level: Network, particle_level: Network) -> tuple[Layout, Layout]:
        """The networks at detector level and at particle level."""
        reco, gen = self.scales.reco, self.scales.gen
        return detector_level.layout(self.reco.shape[1], reco), particle_level.layout(self.gen.shape[1], gen)

    def closed_with(self, weight: Array) -> StandardizedEvents:
        """The same simulation and backgrounds against pseudo-data of the same information.

        Pseudo-data are the backgrounds, and the simulated events that pass detector level with weights of shape (n,).
        """
        rows = self.passes.reco
        x = np.concatenate([self.reco[rows], *(b.x for b in self.backgrounds)])
        w = np.concatenate([weight[rows], *(b.weight for b in self.backgrounds)])
        return replace(self, data=MeasuredEvents(x, w, self.data.size))


def to_yield(weight: Array, rows: NDArray[np.bool_] | slice, total: float) -> float:
    """Factor that brings the sum of the weights of ``rows`` to ``total``."""
    return float(total / weight[rows].sum())


def standardize(
    simulation: Simulation,
    data: Data,
    backgrounds: Sequence[Background] = (),
    scales: Scales | None = None,
    intervals: tuple[int, int] = (0, 0),
) -> StandardizedEvents:
    """Standardise both levels with maps chosen from the simulation alone, or with those of a saved result.

    Parameters
    ----------
    simulation : Simulation
    data : Data
        With the columns of the simulation, in their order (``Data.matched_to``).
    backgrounds : sequence of Background
    scales : Scales, optional
    intervals : (int, int)
        Of the additive part of the networks at detector and particle level, for scales that are chosen here.
    """
    both = simulation.both
    scales = scales or Scales.fit(simulation, intervals)
    prepared = tuple(
        StandardizedBackground(
            b.name, scales.reco(b.columns_for(simulation)), b.weight, 0.0 if b.profile else b.relative_uncertainty
        )
        for b in backgrounds
    )
    _check_backgrounds(prepared, float(data.weight.sum()))
    return StandardizedEvents(
        gen=scales.gen.where(simulation.pass_gen, simulation.gen),
        reco=scales.reco.where(simulation.pass_reco, simulation.reco),
        weight=simulation.weight * both.sum() / simulation.weight[both].sum(),
        passes=simulation.passes,
        data=MeasuredEvents(scales.reco(data.features), data.weight, effective_size(data.weight)),
        backgrounds=prepared,
        scales=scales,
        reco_factor=simulation.reco_factor,
    )


def _check_backgrounds(backgrounds: Sequence[StandardizedBackground], data_yield: float) -> None:
    names = [b.name for b in backgrounds]
    if len(set(names)) != len(names):
        msg = f"backgrounds are named {names}; give each its own name."
        raise InputError(msg)
    total = sum(float(b.weight.sum()) for b in backgrounds)
    if total >= data_yield:
        msg = (
            f"the backgrounds sum to {total:.6g} expected events and the data to {data_yield:.6g}; nothing is left for "
            "the signal. Weights of backgrounds are in units of data events: check their normalisation."
        )
        raise InputError(msg)
