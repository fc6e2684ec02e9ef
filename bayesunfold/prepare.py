"""Events as the loop uses them: standardised features, weights, and who passes what."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import OverlapWarning
from bayesunfold.events import Data, Simulation
from bayesunfold.standardize import Standardizer

__all__ = ["Prepared", "prepare", "warn_without_overlap"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


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
    )


def _rows(scale: Standardizer, values: Array, passing: NDArray[np.bool_]) -> Array:
    out = np.zeros(values.shape, dtype=np.float32)
    out[passing] = scale(values[passing])
    return out


def warn_without_overlap(simulation: Simulation, data: Data) -> None:
    """Warn, naming the feature, where data lie outside the simulation's detector-level range.

    One data event in a thousand outside is expected from fluctuations; more than 5 % outside, or no
    common range at all, is reported.
    """
    data = data.matched_to(simulation)
    reco = simulation.reco[simulation.pass_reco]
    low, high = reco.min(axis=0), reco.max(axis=0)
    outside = np.mean((data.features < low) | (data.features > high), axis=0)
    for j in np.flatnonzero(outside > 0.05):
        msg = (
            f"{100 * outside[j]:.1f} % of the data lie outside the simulation's detector-level range of "
            f"{simulation.reco_names[j]} [{low[j]:.4g}, {high[j]:.4g}]; nothing can be learned there. "
            "Use a simulation that covers the data, or cut both to the common range."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)
