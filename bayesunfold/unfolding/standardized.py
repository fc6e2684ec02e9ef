"""Events as the loop uses them: standardised features, weights, and who passes what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Simulation

__all__ = ["Prepared", "prepare"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class PreparedBackground:
    """A background as the loop uses it.

    Attributes
    ----------
    name : str
    features : array, shape (b, d_reco), float32
    weight : array, shape (b,)
        In units of expected data events.
    relative_uncertainty : float
    """

    name: str
    features: Array
    weight: Array
    relative_uncertainty: float


@dataclass(frozen=True)
class Prepared:
    """Arrays of the unfolding loop.

    Attributes
    ----------
    gen, reco : array, shape (n, d), float32
        Standardised features of the simulation; zero in rows that fail the level.
    data : array, shape (N, d_reco), float32
    weight : array, shape (n,)
        Generator weights, scaled to mean one over the events that pass both levels.
    data_weight : array, shape (N,)
    pass_gen, pass_reco : boolean array, shape (n,)
    scale_gen, scale_reco : Standardizer
    backgrounds : tuple of PreparedBackground
    data_size : float
        Effective number of data events, the information that they bring.
    sizing : array, shape (n,), optional
        Generator weights whose effective size is the information of the simulation, where those of the events are one
        fluctuation of it; those of the events if omitted.
    """

    gen: Array
    reco: Array
    data: Array
    weight: Array
    data_weight: Array
    pass_gen: NDArray[np.bool_]
    pass_reco: NDArray[np.bool_]
    scale_gen: Standardizer
    scale_reco: Standardizer
    backgrounds: tuple[PreparedBackground, ...] = ()
    data_size: float = 0.0
    sizing: Array | None = None

    @property
    def signal_yield(self) -> float:
        """Data yield minus the backgrounds'."""
        return float(self.data_weight.sum() - sum(b.weight.sum() for b in self.backgrounds))

    def with_data(self, data: Array, weight: Array) -> Prepared:
        """The same simulation against other (standardised) data of the same information, without backgrounds."""
        return replace(self, data=data, data_weight=weight, backgrounds=())

    @property
    def both(self) -> NDArray[np.bool_]:
        """Events that pass both levels."""
        return self.pass_gen & self.pass_reco

    @property
    def fakes(self) -> NDArray[np.bool_]:
        """Events that pass only detector level."""
        return self.pass_reco & ~self.pass_gen

    @property
    def misses(self) -> NDArray[np.bool_]:
        """Events that pass only particle level."""
        return self.pass_gen & ~self.pass_reco


def prepare(
    simulation: Simulation,
    data: Data,
    backgrounds: Sequence[Background] = (),
    scale_gen: Standardizer | None = None,
    scale_reco: Standardizer | None = None,
) -> Prepared:
    """Standardise both levels with maps chosen from the simulation alone, or with those of a saved result."""
    data = data.matched_to(simulation)
    both = simulation.both
    weight = simulation.weight * both.sum() / simulation.weight[both].sum()
    scale_gen = scale_gen or Standardizer.fit(
        simulation.gen[simulation.pass_gen], simulation.weight[simulation.pass_gen]
    )
    scale_reco = scale_reco or Standardizer.fit(
        simulation.reco[simulation.pass_reco], simulation.weight[simulation.pass_reco]
    )
    prepared = tuple(
        PreparedBackground(b.name, scale_reco(b.columns_for(simulation)), b.weight, b.relative_uncertainty)
        for b in backgrounds
    )
    _check_backgrounds(prepared, float(data.weight.sum()))
    return Prepared(
        gen=_rows(scale_gen, simulation.gen, simulation.pass_gen),
        reco=_rows(scale_reco, simulation.reco, simulation.pass_reco),
        data=scale_reco(data.features),
        weight=weight,
        data_weight=data.weight,
        pass_gen=simulation.pass_gen,
        pass_reco=simulation.pass_reco,
        scale_gen=scale_gen,
        scale_reco=scale_reco,
        backgrounds=prepared,
        data_size=effective_size(data.weight),
    )


def _check_backgrounds(backgrounds: Sequence[PreparedBackground], data_yield: float) -> None:
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


def _rows(scale: Standardizer, values: Array, passing: NDArray[np.bool_]) -> Array:
    out = np.zeros((len(values), scale.n_outputs), dtype=np.float32)
    out[passing] = scale(values[passing])
    return out
