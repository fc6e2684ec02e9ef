"""Pseudo-experiments from the user's own events, resampled, which test the method on the problem at hand.

The simulated events are taken as the population. Each toy draws its data from it, with the weights of the truth,
and its simulation, with replacement, so both fluctuate as they would, and the expected truth is known without
fluctuation: it is the population's own spectrum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_weight, check_bins, check_positive
from bayesunfold._support.deprecation import RenamedAttribute
from bayesunfold.binning import bin_index, project
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Simulation, with_factors_of_fakes

__all__ = ["ResampledToys", "Toy", "select", "signal_left", "unfold_toy"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Toy:
    """One pseudo-experiment.

    Attributes
    ----------
    simulation : Simulation
    measurement : Data
    backgrounds : list of Background
    """

    simulation: Simulation
    measurement: Data
    backgrounds: list[Background]


class ResampledToys:
    """Makes pseudo-experiments from a seed, for :func:`bayesunfold.coverage_study`.

    Parameters
    ----------
    simulation : Simulation
        Population, response included. Weights must not be negative: they are probabilities here.
    n_data : float
        Expected number of data events, backgrounds included; each toy's number is Poisson distributed.
    factor : array, shape (n,), optional
        The truth's weight in units of the generator's, event by event. One everywhere if omitted. NaN in events
        that fail particle level (fakes), where a function of the features does not exist, takes the mean of the others.
    backgrounds : sequence of Background, optional
        Weights in units of expected data events; each toy's data have them with another normalisation, drawn from its
        relative uncertainty.

    Raises
    ------
    InputError
        Negative weights, a factor of the wrong length, backgrounds that leave nothing for the signal.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(100, 2000, random_seed=1)
    >>> tilt = np.exp(0.1 * toy.simulation.gen[:, 0])
    >>> make = bu.studies.ResampledToys(toy.simulation, 100, tilt)
    >>> make(0).measurement
    Data(100 events, features: reco, effective size: 100.0)
    >>> float(make.expected({"gen": [-100.0, 100.0]})["gen"].sum().round(6))
    100.0
    """

    nature = RenamedAttribute("truth", removed_in="0.4")

    def __init__(
        self,
        simulation: Simulation,
        n_data: float,
        factor: ArrayLike | None = None,
        backgrounds: Sequence[Background] = (),
    ) -> None:
        self.simulation, self.backgrounds = simulation, list(backgrounds)
        truth = simulation.weight * _factor(factor, simulation)
        for what, weight in (("simulated", truth), *((b.name, b.weight) for b in backgrounds)):
            negative = int((weight < 0).sum())
            if negative:
                msg = f"{negative} {what} events have negative weights; toys cannot be drawn from them. Merge them."
                raise InputError(msg)
        check_positive(n_data, "n_data")
        signal = signal_left(n_data, backgrounds)
        #: expected events of the truth, fakes included
        self.truth = truth * (signal / self._at_reco(truth)[simulation.pass_reco].sum())

    def _at_reco(self, truth: Array) -> Array:
        factor = self.simulation.reco_factor
        return truth if factor is None else truth * factor

    def expected(self, bins: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Expected truth in bins of particle-level features."""
        rows = self.simulation.pass_gen
        out = {}
        for name, given in bins.items():
            edges = check_bins(given, f"bins of {name}")
            index = bin_index([self.simulation.gen_column(name)], [edges], rows)  # half open, as spectra are
            out[name] = project(index, self.truth, len(edges) - 1)
        return out

    def __call__(self, seed: int) -> Toy:
        """The pseudo-experiment of a seed."""
        sim, rng = self.simulation, np.random.default_rng(seed)
        passing = np.flatnonzero(sim.pass_reco)
        rows = passing[_poisson_rows(self._at_reco(self.truth)[passing], rng)]
        parts = [sim.reco[rows]]
        for b in self.backgrounds:
            size = max(1.0 + b.relative_uncertainty * rng.standard_normal(), 0.0)
            parts.append(b.columns_for(sim)[_poisson_rows(size * b.weight, rng)])
        measurement = Data(rng.permutation(np.concatenate(parts)), undefined=sim.undefined)
        rows = rng.integers(0, len(sim), len(sim))
        backgrounds = [_resampled(b, sim, rng) for b in self.backgrounds]
        return Toy(select(sim, rows), measurement, backgrounds)


def signal_left(n_data: float, backgrounds: Sequence[Background]) -> float:
    """Expected data events that are no background.

    Raises
    ------
    InputError
        If there are none.
    """
    signal = float(n_data) - sum(float(b.weight.sum()) for b in backgrounds)
    if signal <= 0:
        size = f"{n_data - signal:.6g} of {n_data:.6g} data events"
        msg = f"the backgrounds sum to {size}; nothing is left for the signal."
        raise InputError(msg)
    return signal


def _factor(factor: ArrayLike | None, simulation: Simulation) -> Array:
    """The factor of every event; fakes without one get the weighted mean of the others."""
    if factor is None:
        return np.ones(len(simulation))
    values: Array = np.array(factor, dtype=np.float64)
    if values.shape == (len(simulation),):
        values = with_factors_of_fakes(values, simulation)
    return as_weight(values, len(simulation), "factor")


def select(simulation: Simulation, rows: NDArray[np.integer] | slice, factor: Array | float = 1.0) -> Simulation:
    """Some of the events, in any order, with repetition; with a factor on each weight."""
    return Simulation(
        simulation.gen[rows],
        simulation.reco[rows],
        simulation.weight[rows] * factor,
        simulation.pass_gen[rows],
        simulation.pass_reco[rows],
        simulation.undefined,
        names=simulation.gen_names if simulation.gen_named else None,
        reco_names=simulation.reco_names if simulation.reco_named else None,
        reco_factor=None if simulation.reco_factor is None else simulation.reco_factor[rows],
    )


def _poisson_rows(weight: Array, rng: np.random.Generator) -> NDArray[np.integer]:
    """Rows of a Poisson number of events, drawn in proportion to their weights."""
    return np.repeat(np.arange(len(weight)), rng.poisson(weight))


def _resampled(b: Background, simulation: Simulation, rng: np.random.Generator) -> Background:
    rows = rng.integers(0, len(b.weight), len(b.weight))
    x = b.columns_for(simulation)[rows]
    return Background(x, b.weight[rows], b.name, b.relative_uncertainty, b.undefined, profile=b.profile)


def unfold_toy(toy: Toy, random_seed: int, settings: Mapping[str, Any]) -> Any:
    """Unfold a toy; ``settings`` are the ``method`` ("omnifold" if omitted) and arguments of its class."""
    from bayesunfold.direct.unfold import estimator

    given = {name: value for name, value in settings.items() if name != "method"}
    unfolder = estimator(settings.get("method", "omnifold"))(**given, random_seed=random_seed, progressbar=False)
    return unfolder.fit(toy.simulation, toy.measurement, toy.backgrounds)
