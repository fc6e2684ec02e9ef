"""Events as the loop uses them: standardised features, weights, and who passes what."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold._validate import effective_size, uncovered_share
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.standardize import Standardizer

__all__ = ["Prepared", "outside_range", "prepare", "warn_without_overlap"]

Array = NDArray[np.floating]

FEW, FAR = 100, 3.0
"""Least events to judge tails from; standard deviation over the range of 90 % of the events from which they are far."""


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
    _warn_of_tails(scale_gen, simulation.gen, simulation.pass_gen, simulation.gen_names)
    _warn_of_tails(scale_reco, simulation.reco, simulation.pass_reco, simulation.reco_names)
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


def _warn_of_tails(scale: Standardizer, values: Array, passing: NDArray[np.bool_], names: Sequence[str]) -> None:
    """A few far events that set the scale of a feature: the networks then see all others as one value."""
    each = scale.each(values[passing])
    for j, name in enumerate(names):
        z = each[np.isfinite(each[:, j]), j]
        if len(z) < FEW:
            continue
        low, high = np.quantile(z, [0.05, 0.95])
        if high > low and z.std() > FAR * (high - low):
            share = (high - low) / z.std()
            msg = (
                f"90 % of the simulated events lie within {share:.2g} standard deviations of {name}: a few far events "
                "set its scale, and the networks resolve the others badly. Cut them, or pass a transformed feature "
                "(arcsinh)."
            )
            warnings.warn(msg, OverlapWarning, stacklevel=5)


def _rows(scale: Standardizer, values: Array, passing: NDArray[np.bool_]) -> Array:
    out = np.zeros((len(values), scale.n_outputs), dtype=np.float32)
    out[passing] = scale(values[passing])
    return out


def outside_range(simulation: Simulation, data: Data) -> tuple[Array, Array, Array]:
    """Share of the data where the simulation has no events, and its detector-level range, per feature.

    See :func:`bayesunfold._validate.uncovered_share`.
    """
    reco = simulation.reco[simulation.pass_reco]
    low, high = np.nanmin(reco, axis=0), np.nanmax(reco, axis=0)
    shares = [uncovered_share(data.features[:, j], reco[:, j]) for j in range(reco.shape[1])]
    return np.array(shares), low, high


def warn_without_overlap(simulation: Simulation, data: Data) -> None:
    """Warn, naming the feature, where data lie where the simulation has no events.

    A few data events in a hundred are expected there from fluctuations; more than 5 % are reported.

    Raises
    ------
    InputError
        If a feature has one and the same value in all simulated events and others in the data.
    """
    data = data.matched_to(simulation)
    outside, low, high = outside_range(simulation, data)
    for j in np.flatnonzero(low == high):
        other = int(np.sum(data.features[:, j] != low[j]))
        if other and np.isfinite(simulation.reco[simulation.pass_reco, j]).all():
            msg = (
                f"{simulation.reco_names[j]} is {low[j]:.6g} in every simulated event and something else in {other} "
                "data events; no weights can describe them. Leave the feature out."
            )
            raise InputError(msg)
    for j in np.flatnonzero(outside > 0.05):
        msg = (
            f"{100 * outside[j]:.1f} % of the data lie outside the simulation's detector-level distribution of "
            f"{simulation.reco_names[j]} (range [{low[j]:.4g}, {high[j]:.4g}]); nothing can be learned there. "
            "Use a simulation that covers the data, or cut both to the common range."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)
