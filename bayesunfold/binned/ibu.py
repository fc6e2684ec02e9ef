"""Iterative Bayesian unfolding (D'Agostini), with uncertainties propagated through all iterations.

``docs/binned.md`` derives the equations, (B1) to (B7).

References
----------
G. D'Agostini, Nucl. Instrum. Meth. A 362 (1995) 487, doi:10.1016/0168-9002(95)00274-X;
G. D'Agostini, arXiv:1010.0632; T. Adye, arXiv:1105.1160, section 5.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_count, check_flag, check_instance, check_positive, check_seed
from bayesunfold.binned._counts import check_contents, filled_variances
from bayesunfold.binned._gaussian import gaussian_spectrum, statistics_covariance
from bayesunfold.binned.measured import among_all_bins, restricted
from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Spectrum

__all__ = ["IBU", "IBUStep"]

Array = NDArray[np.floating]

MAX_ITERATIONS = 100

ALMOST_EMPTY = 1e-12
"""Content of an empty bin in errors, where derivatives are taken."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class IBUStep:
    """One iteration.

    Attributes
    ----------
    unfolded : array, shape (gen,)
    mixing : array, shape (gen, reco)
        ``P(cause | effect) / efficiency``, which multiplied with the data gives ``unfolded``.
    data_derivative : array, shape (gen, reco)
        Derivative of ``unfolded`` with respect to the data, through all iterations so far.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> first, second = bu.IBU(2).steps(R, [100, 150])
    >>> bool((first.mixing == first.data_derivative).all())
    True
    """

    unfolded: Array
    mixing: Array
    data_derivative: Array


class IBU:
    """Iterative Bayesian unfolding.

    Parameters
    ----------
    iterations : int or "auto"
        Number of iterations; ``"auto"`` stops where the last one moved the spectrum by less than ``stop``, at most 100.
    prior : array, shape (gen,), or "flat", optional
        First guess; the simulated spectrum if omitted.
    stop : float
        Root mean square change of a bin in units of its statistical error, at which ``"auto"`` stops.
    errors : bool
        False skips covariances: bands are then NaN.
    draws : int
        Gaussian draws of the spectrum.
    random_seed : int
        Of the draws.

    Notes
    -----
    Iterations start from the prior and move towards the maximum-likelihood spectrum; few iterations keep the
    prior where the detector resolves little, and the bands do not contain that bias. The covariance holds the data's
    statistics and the simulation's, each with derivatives through all iterations; the simulation's is that of the
    response, of the shares of fakes, and of the first guess unless ``prior`` is given. Memory is that
    of about five (gen, reco) matrices an iteration: 400 MB for 1000 bins and 10 iterations; of one with
    ``errors=False``. Fakes are subtracted as a share of each detector-level bin.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> bu.IBU(iterations=200).fit(R, [100, 150]).nominal.round(3)
    array([ 83.333, 166.667])
    """

    def __init__(
        self,
        iterations: int | Literal["auto"] = 4,
        prior: ArrayLike | Literal["flat"] | None = None,
        *,
        stop: float = 0.1,
        errors: bool = True,
        draws: int = 2000,
        random_seed: int = 0,
    ) -> None:
        self.iterations = iterations if iterations == "auto" else check_count(iterations, "iterations")
        self.prior = prior
        self.stop = check_positive(stop, "stop")
        self.errors = check_flag(errors, "errors")
        self.draws = check_count(draws, "draws", 2)
        self.random_seed = check_seed(random_seed)

    def fit(self, response: ResponseMatrix, data: Any) -> Spectrum:
        """Unfold counts.

        Parameters
        ----------
        response : ResponseMatrix
        data : array, shape (reco,), or histogram
            Poisson counts, or a histogram with its own variances.

        Returns
        -------
        Spectrum

        Raises
        ------
        InputError
            Negative or NaN counts, numbers of bins that disagree, a prior that is not positive.
        """
        start = time.perf_counter()
        check_instance(response, ResponseMatrix, "response")
        if response.measured is not response:
            method, counts = restricted(self, response, ("prior",)), response.measured_counts(data)
            return among_all_bins(response, method.fit(response.measured, counts))
        values, variances = response.counts(data)
        variances = filled_variances(values, variances)
        if not self.errors and self.iterations != "auto":
            unfolded = self.unfold_many(response, values[None])[0]
            seconds = time.perf_counter() - start
            spectrum = gaussian_spectrum(response, unfolded, {}, "IBU", 2, (self.random_seed, values), seconds)
            spectrum.settings["iterations"] = self.iterations
            return spectrum
        steps = self.steps(response, values, variances)
        covariances: dict[str, Array] = {}
        if self.errors:
            derivative = steps[-1].data_derivative * (1 - response.fakes)
            covariances["data"] = (derivative * variances) @ derivative.T
            if response.has_statistics:
                fakes = -steps[-1].data_derivative * values
                covariances["simulation"] = self._simulation_covariance(response, response.signal(values), steps, fakes)
        spectrum = gaussian_spectrum(
            response,
            steps[-1].unfolded,
            covariances,
            "IBU",
            self.draws if self.errors else 2,
            (self.random_seed, values),
            time.perf_counter() - start,
        )
        spectrum.settings["iterations"] = len(steps)
        return spectrum

    def steps(self, response: ResponseMatrix, data: ArrayLike, variances: ArrayLike | None = None) -> list[IBUStep]:
        """Every iteration with its derivatives, equations (B3) and (B5); arguments as for :meth:`fit`."""
        if response.measured is not response:
            return self._steps_of_measured(response, data, variances)
        values, poisson = response.counts(data)
        signal = response.signal(values)
        sigma2 = filled_variances(values, poisson if variances is None else np.asarray(variances, dtype=np.float64))
        sigma2 = sigma2 * (1 - response.fakes) ** 2
        # of an empty bin the derivatives are limits: at zero itself they would be zero over zero
        signal = np.where(signal > 0, signal, ALMOST_EMPTY * np.sqrt(sigma2))
        previous = self._first(response)
        steps: list[IBUStep] = []
        limit = MAX_ITERATIONS if self.iterations == "auto" else int(self.iterations)
        for _ in range(limit):
            mixing = _mixing(response, previous)
            unfolded = mixing @ signal
            derivative = mixing
            if steps:
                # d n / d D = M + T d n_previous / d D, with T of _transfer
                derivative = (
                    mixing + _transfer(response, mixing, signal, unfolded, previous) @ steps[-1].data_derivative
                )
            steps.append(IBUStep(unfolded, mixing, derivative))
            if self.iterations == "auto" and _settled(unfolded, previous, derivative, sigma2, self.stop):
                break
            previous = unfolded
        return steps

    def _steps_of_measured(
        self, response: ResponseMatrix, data: ArrayLike, variances: ArrayLike | None
    ) -> list[IBUStep]:
        """Steps among all bins: NaN in particle-level bins that are not seen, no change with bins not reached."""
        gen, reco = response.seen, response.reached
        counts = response.measured_counts(data)
        own = counts.variances if variances is None else np.asarray(variances, dtype=np.float64)[reco]
        method = restricted(self, response, ("prior",))

        def among_all(matrix: Array) -> Array:
            out = np.zeros((response.n_gen, response.n_reco))
            out[~gen] = np.nan
            out[np.ix_(gen, reco)] = matrix
            return out

        found = []
        for step in method.steps(response.measured, counts.values, own):
            unfolded = np.full(response.n_gen, np.nan)
            unfolded[gen] = step.unfolded
            found.append(IBUStep(unfolded, among_all(step.mixing), among_all(step.data_derivative)))
        return found

    def unfold_many(self, response: ResponseMatrix, data: ArrayLike) -> Array:
        """Point estimates of many data sets at once, for toys.

        Parameters
        ----------
        data : array, shape (toys, reco)

        Returns
        -------
        array, shape (toys, gen)
            NaN in bins that are not seen; counts in bins that are not reached are left out.
        """
        counts = np.asarray(data, dtype=np.float64)
        if counts.ndim != 2 or counts.shape[1] != response.n_reco:
            msg = f"data has shape {counts.shape}; it must be (toys, {response.n_reco})."
            raise InputError(msg)
        check_contents(counts.ravel(), "data (flat index toy x bin)")
        if self.iterations == "auto":
            msg = "unfold_many needs a fixed number of iterations, so that all toys are treated alike."
            raise InputError(msg)
        if response.measured is not response:
            method, out = restricted(self, response, ("prior",)), np.full((len(counts), response.n_gen), np.nan)
            out[:, response.seen] = method.unfold_many(response.measured, counts[:, response.reached])
            return out
        signal = response.signal(counts)
        spectra = np.broadcast_to(self._first(response), (len(counts), response.n_gen))
        for _ in range(int(self.iterations)):
            folded = spectra @ response.probabilities.T
            ratio = np.divide(signal, folded, out=np.zeros_like(signal), where=folded > 0)
            spectra = spectra * (ratio @ response.probabilities) / response.efficiency
        return spectra

    def _first(self, response: ResponseMatrix) -> Array:
        if self.prior is None:
            return response.prior
        if isinstance(self.prior, str):
            if self.prior != "flat":
                msg = f"prior is {self.prior!r}; pass bin contents, 'flat', or nothing for the simulated spectrum."
                raise InputError(msg)
            return np.ones(response.n_gen)
        prior = np.asarray(self.prior, dtype=np.float64)
        if prior.shape != (response.n_gen,) or not np.all(np.isfinite(prior)) or np.any(prior < 0) or prior.sum() <= 0:
            msg = f"the prior has shape {prior.shape}; it needs {response.n_gen} contents, none negative, not all zero."
            raise InputError(msg)
        return prior

    def _simulation_covariance(
        self, response: ResponseMatrix, signal: Array, steps: list[IBUStep], fakes: Array
    ) -> Array:
        """Of the response, the prior where it is the simulated spectrum, and the shares of fakes.

        ``sum_k T_K ... T_{k+1} E_k``, where ``E_k`` is iteration k's own derivative to the response (B6, B7).

        ``E[i, j, c] = delta_ic (n_prev_i r_j - n_i) / eff_i - M_ij r_j n_prev_c`` with ``r = data / folded`` (Adye,
        arXiv:1105.1160, eqs. 16-18). The derivative to the prior is ``T_K ... T_1``.
        """
        terms = []
        carried = np.eye(response.n_gen)
        for k in range(len(steps) - 1, -1, -1):
            step = steps[k]
            previous = steps[k - 1].unfolded if k else self._first(response)
            folded = response.probabilities @ previous
            ratio = np.divide(signal, folded, out=np.zeros_like(signal), where=folded > 0)
            terms.append((carried, carried @ (step.mixing * ratio), previous, ratio, step.unfolded))
            carried = carried @ _transfer(response, step.mixing, signal, step.unfolded, previous)

        def derivative(c: int) -> Array:
            out = np.zeros((response.n_gen, response.n_reco))
            for matrix, mixed, previous, ratio, unfolded in terms:
                own = (previous[c] * ratio - unfolded[c]) / response.efficiency[c]
                out += np.outer(matrix[:, c], own) - mixed * previous[c]
            return out

        return statistics_covariance(response, derivative, carried if self.prior is None else None, fakes)


def _mixing(response: ResponseMatrix, previous: Array) -> Array:
    """``P(cause | effect) / efficiency``, shape (gen, reco): equation (B3), D'Agostini 1995, eqs. 5 and 7."""
    folded = response.probabilities @ previous
    with np.errstate(divide="ignore"):
        inverse = np.where(folded > 0, 1.0 / folded, 0.0)
    return (response.probabilities * inverse[:, None]).T * (previous / response.efficiency)[:, None]


def _transfer(response: ResponseMatrix, mixing: Array, signal: Array, unfolded: Array, previous: Array) -> Array:
    """Derivative of an iteration's spectrum with respect to the one before, shape (gen, gen): equation (B4)."""
    safe = np.where(previous > 0, previous, 1.0)
    growth = np.where(previous > 0, unfolded / safe, 0.0)
    folded = response.probabilities @ previous
    ratio = np.divide(signal, folded, out=np.zeros_like(signal), where=folded > 0)
    return np.diag(growth) - (mixing * ratio) @ response.probabilities


def _settled(now: Array, before: Array, derivative: Array, variances: Array, stop: float) -> bool:
    """Whether the spectrum, at the same total, moved by less than ``stop`` statistical errors, root mean square."""
    before = before * (now.sum() / before.sum())
    sigma2 = (derivative**2) @ variances
    used = sigma2 > 0
    return not used.any() or bool(np.mean((now - before)[used] ** 2 / sigma2[used]) < stop**2)
