"""Gaussian toys whose truth is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from bayesunfold._support.checks import as_numbers, check_bins, check_count, check_positive
from bayesunfold.errors import InputError
from bayesunfold.events import Data, Simulation

__all__ = ["GaussianToy", "gaussian_toy"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class GaussianToy:
    """A simulation, the data to unfold, and the truth behind them.

    Attributes
    ----------
    gen, reco : array, shape (n_sim, d)
    data : array, shape (N, d)
        Detector-level measurement.
    truth : array, shape (N, d)
        Particle level of the data, which a real measurement does not have.
    n_expected : float
        Expected number of data events.
    truth_mean, truth_std : array, shape (d,)
        Parameters of the truth.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(1000, 2000, random_seed=1)
    >>> toy.simulation, toy.measurement.features.shape
    (Simulation(...), (1000, 1))
    """

    gen: Array
    reco: Array
    data: Array
    truth: Array
    n_expected: float
    truth_mean: Array
    truth_std: Array

    @property
    def simulation(self) -> Simulation:
        """The simulated events."""
        return Simulation(self.gen, self.reco)

    @property
    def measurement(self) -> Data:
        """The data."""
        return Data(self.data)

    def bins(self, n: int = 15) -> Array:
        """Equal bins between the 0.5 and 99.5 percentiles of the first gen feature."""
        low, high = np.percentile(self.gen[:, 0], [0.5, 99.5])
        return np.linspace(low, high, n + 1)

    def expected(self, bins: ArrayLike, feature: int = 0) -> Array:
        """Exact expected number of truth events per bin, without statistical fluctuation."""
        edges = check_bins(bins)
        cdf = norm.cdf(edges, self.truth_mean[feature], self.truth_std[feature])
        return self.n_expected * np.diff(cdf)


def gaussian_toy(
    n_data: int = 1000,
    n_simulation: int = 1000,
    *,
    smear: float | ArrayLike = 0.2,
    shift: float = -2.5,
    gen: tuple[float, float] = (0.3, 2.5),
    truth: tuple[float, float] = (1.2, 3.0),
    dimension: int = 1,
    correlation: float = 0.0,
    poisson: bool = False,
    random_seed: int | None = None,
) -> GaussianToy:
    """Gaussian generator and truth, seen through a Gaussian detector.

    With the default arguments ``gen ~ N(0.3, 2.5)``, ``truth ~ N(1.2, 3.0)``, and the detector adds
    ``N(-2.5, 0.2)`` (mean, standard deviation).

    Parameters
    ----------
    n_data, n_simulation : int
        Number of events.
    smear : float or array, shape (dimension,)
        Standard deviation of the detector's smearing, zero for a perfect detector.
    shift : float
        Mean of the smearing.
    gen, truth : pair of float
        Mean and standard deviation of every feature.
    dimension : int
        Number of features.
    correlation : float
        Correlation of neighbouring features, ``correlation ** |i - j|`` in general.
    poisson : bool
        Let the number of data events fluctuate about ``n_data``.
    random_seed : int, optional

    Returns
    -------
    GaussianToy

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(1000, 1000, random_seed=1)
    >>> toy.gen.shape, float(toy.expected([-100, 100])[0])
    ((1000, 1), 1000.0)
    """
    check_count(n_data, "n_data")
    check_count(n_simulation, "n_simulation")
    d = check_count(dimension, "dimension")
    for name, pair in (("gen", gen), ("truth", truth)):
        if np.shape(pair) != (2,):
            msg = f"{name} is {pair!r}; give a pair of mean and standard deviation."
            raise InputError(msg)
        check_positive(pair[1], f"the standard deviation of {name}")
    sigma = np.broadcast_to(as_numbers(smear, "smear"), (d,))
    if np.any(sigma < 0):
        msg = f"smear is {smear!r}; it must not be negative."
        raise InputError(msg)
    if not -1 < correlation < 1:
        msg = f"correlation is {correlation!r}; it must lie between -1 and 1."
        raise InputError(msg)
    rng = np.random.default_rng(random_seed)
    order = np.arange(d)
    chol = np.linalg.cholesky(correlation ** np.abs(order[:, None] - order[None, :]) if d > 1 else np.ones((1, 1)))
    n_events = int(rng.poisson(n_data)) if poisson else n_data
    gen_events = gen[0] + gen[1] * rng.standard_normal((n_simulation, d)) @ chol.T
    true_events = truth[0] + truth[1] * rng.standard_normal((n_events, d)) @ chol.T
    reco = gen_events + shift + sigma * rng.standard_normal(gen_events.shape)
    data = true_events + shift + sigma * rng.standard_normal(true_events.shape)
    return GaussianToy(gen_events, reco, data, true_events, float(n_data), np.full(d, truth[0]), np.full(d, truth[1]))
