"""Fully Bayesian unfolding: the particle-level spectrum as parameters of a Poisson model.

``docs/binned.md`` states the model, equations (B14) to (B16).

References
----------
G. Choudalakis, "Fully Bayesian Unfolding", arXiv:1201.4612.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from bayesunfold._support.checks import (
    as_numbers,
    check_count,
    check_flag,
    check_instance,
    check_mapping,
    check_positive,
    check_seed,
)
from bayesunfold.binned._axes import check_one_axis
from bayesunfold.binned.fbu_model import (
    BinnedBackground,
    Inputs,
    background_counts,
    build,
    cells,
    compiled_model,
    fake_cells,
    poisson_counts,
    relative_effects,
)
from bayesunfold.binned.measured import among_all_bins
from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.classifier.sampling import quiet_nutpie
from bayesunfold.errors import ConvergenceWarning, InputError
from bayesunfold.spectrum import Spectrum

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["FBU", "BinnedBackground", "FBUFit"]

Array = NDArray[np.floating]
Prior = Literal["flat", "lognormal", "entropy", "curvature"]

PRIORS = ("flat", "lognormal", "entropy", "curvature")
MAX_R_HAT = 1.02
NEAR_LIMIT, MOST_NEAR_LIMIT = 0.9, 0.05
"""What counts as near the limit of a flat prior, and the share of draws there that is too many."""
TARGET_ACCEPT = 0.95  # backgrounds and shifts of the response bend the posterior; at 0.8 some steps diverged


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class FBUFit:
    """What sampling left behind.

    Attributes
    ----------
    spectrum : Spectrum
        Posterior draws of the particle-level spectrum.
    tree : xarray.DataTree
        ArviZ groups: posterior, sample_stats, posterior_predictive, observed_data.
    model : pymc.Model
        The model itself, on these data.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> fit = bu.FBU().sample(R, [100, 150])
    >>> sorted(fit.tree.children)
    ['observed_data', 'posterior', 'posterior_predictive', 'sample_stats']
    """

    spectrum: Spectrum
    tree: xr.DataTree
    model: pm.Model


class FBU:
    """Fully Bayesian unfolding with NUTS.

    Parameters
    ----------
    prior : {"flat", "lognormal", "entropy", "curvature"}
        Of the particle-level contents: flat between zero and a limit, ten times the simulated spectrum or what all
        data in one bin would mean, whichever is more; log-normal around the simulated spectrum, scaled to
        the data, of relative width ``strength``; flat times ``exp(strength x entropy)`` of the spectrum's ratio to the
        simulated one; flat times a Normal of width ``1/strength`` on that ratio's second differences.
    strength : float
        See ``prior``.
    response_statistics : bool
        Let the response fluctuate within its simulation statistics: every column is Dirichlet with the simulated
        counts (the Bayesian bootstrap), so empty elements stay empty. The same events move the shares of fakes, and the
        simulated spectrum that a prior other than the flat one compares with.
    backgrounds : mapping of str to BinnedBackground, optional
    systematics : mapping of str to array, shape (reco, gen) or (reco,), optional
        Relative change of the response (or of all detector-level bins) at one standard deviation, each with a N(0, 1)
        nuisance parameter.
    draws, tune, chains : int
        Of NUTS; ``draws`` per chain.
    random_seed : int
    progressbar : bool

    Notes
    -----
    About 3 s for 20 bins after the first call, which compiles for half a minute. Fakes of the response are added
    to the expectation in proportion to the folded spectrum.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> bu.FBU(draws=200).model(R, [100, 150]).named_vars_to_dims["truth"]
    ('bin',)
    """

    def __init__(
        self,
        prior: Prior = "flat",
        strength: float = 1.0,
        *,
        response_statistics: bool = True,
        backgrounds: Mapping[str, BinnedBackground] | None = None,
        systematics: Mapping[str, ArrayLike] | None = None,
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        random_seed: int = 0,
        progressbar: bool = False,
    ) -> None:
        if prior not in PRIORS:
            msg = f"prior is {prior!r}; it must be one of {', '.join(map(repr, PRIORS))}."
            raise InputError(msg)
        self.prior: Prior = prior
        self.strength = check_positive(strength, "strength")
        self.response_statistics = check_flag(response_statistics, "response_statistics")
        self.backgrounds = dict(check_mapping(backgrounds or {}, "backgrounds"))
        varied = check_mapping(systematics or {}, "systematics")
        self.systematics = {k: as_numbers(v, f"systematic {k!r}") for k, v in varied.items()}
        self.draws, self.tune = check_count(draws, "draws", 2), check_count(tune, "tune")
        self.chains = check_count(chains, "chains")
        self.random_seed = check_seed(random_seed)
        self.progressbar = progressbar

    def model(self, response: ResponseMatrix, data: Any) -> pm.Model:
        """The PyMC model on these data, to be looked at or extended.

        Free variables: ``truth_ratio`` (particle-level contents over the simulated spectrum scaled to the data),
        ``response_cells`` (Gamma variables that make the columns) and ``fake_cells`` (those of the fakes), one N(0, 1)
        a background and a systematic.
        Deterministics: ``truth``, ``expected``.
        """
        return build(self._inputs(response, data))

    def fit(self, response: ResponseMatrix, data: Any) -> Spectrum:
        """Posterior of the particle-level spectrum.

        Parameters
        ----------
        response : ResponseMatrix
        data : array, shape (reco,), or histogram
            Poisson counts: whole numbers of events, which are their own variances.

        Returns
        -------
        Spectrum

        Raises
        ------
        InputError
            Counts that are negative, not whole, weighted, or do not match; backgrounds above the data everywhere.

        Warns
        -----
        ConvergenceWarning
            Divergences, or R-hat above 1.02.
        """
        return self.sample(response, data, predictive=False).spectrum

    def sample(self, response: ResponseMatrix, data: Any, *, predictive: bool = True) -> FBUFit:
        """As :meth:`fit`, with everything that ArviZ reads, posterior predictive counts included."""
        import nutpie

        start = time.perf_counter()
        inputs = self._inputs(response, data)
        with threadpool_limits(limits=1, user_api="blas"), quiet_nutpie():
            compiled = compiled_model(inputs.shape()).with_data(**inputs.swapped())
            tree = nutpie.sample(
                compiled,
                draws=self.draws,
                tune=self.tune,
                chains=self.chains,
                cores=2,
                target_accept=TARGET_ACCEPT,
                seed=self.random_seed,
                progress_bar=self.progressbar,
            )
        ratio = np.asarray(tree["posterior"]["truth_ratio"].values)
        _warn_if_unconverged(ratio, np.asarray(tree["sample_stats"]["diverging"].values))
        if self.prior != "lognormal":
            _warn_if_limited(ratio / inputs.limit)
        values = (ratio * inputs.scaled).reshape(-1, len(inputs.scaled))
        measured = response.measured
        spectrum = Spectrum(
            edges=measured.gen_edges,
            draw_matrix=values,
            nominal=values.mean(axis=0),
            names=measured.gen_names,
            method="FBU",
            seconds=time.perf_counter() - start,
        )
        if measured is not response:
            spectrum = among_all_bins(response, spectrum)
        groups = xr.DataTree.from_dict(
            {
                "posterior": xr.Dataset(
                    {"truth": (("chain", "draw", "bin"), ratio * inputs.scaled)} | self._named(tree["posterior"])
                ),
                "sample_stats": tree["sample_stats"].to_dataset(),
                "observed_data": xr.Dataset({"counts": ("reco_bin", inputs.counts)}),
            }
        )
        model = build(inputs)
        if predictive:
            groups["posterior_predictive"] = xr.DataTree(self._predictive(tree))
        return FBUFit(spectrum, groups, model)

    def _named(self, posterior: Any) -> dict[str, Any]:
        """Draws of everything but spectra, nuisance parameters with their names."""
        names = {"systematic": list(self.systematics), "background_level": list(self.backgrounds)}
        out: dict[str, Any] = {}
        for key, values in posterior.data_vars.items():
            name = str(key)
            if name in names:
                axis = f"{name}_name"
                out[name] = (("chain", "draw", axis), np.asarray(values))
                out[axis] = (axis, names[name])
            elif name not in ("truth", "expected"):
                out[name] = values
        return out

    def _predictive(self, tree: xr.DataTree) -> xr.Dataset:
        """Poisson counts drawn around each draw's expectation."""
        expected = np.asarray(tree["posterior"]["expected"].values)
        rng = np.random.default_rng((self.random_seed, 1))
        return xr.Dataset({"counts": (("chain", "draw", "reco_bin"), rng.poisson(expected))})

    def _inputs(self, response: ResponseMatrix, data: Any) -> Inputs:
        """Arrays of the bins that are measured; what was given is checked in all bins."""
        check_instance(response, ResponseMatrix, "response")
        response.check_efficiency("FBU")
        if self.prior == "curvature":
            check_one_axis(response.gen_edges, 'FBU(prior="curvature")')
        values = poisson_counts(response, data, "FBU")
        background, widths = background_counts(self.backgrounds, response, values)
        effects = relative_effects(self.systematics, response)
        values = response.measured_counts(values).values  # warns of data in bins that are not reached
        background, effects = background[:, response.reached], effects[:, response.reached][:, :, response.seen]
        response = response.measured
        if len(background) and np.all(background.sum(axis=0) > values):
            msg = "the backgrounds exceed the data in every bin; check their normalisation."
            raise InputError(msg)
        floating = self.response_statistics and response.has_statistics and response.truth is not None
        prior = np.where(response.prior > 0, response.prior, 1.0)
        signal = max(float(values.sum() - background.sum()), 1.0) * (
            1 - np.average(response.fakes, weights=values + 1e-9)
        )
        scaled = prior * signal / response.fold(prior).sum()
        return Inputs(
            self.prior,
            self.strength,
            values,
            response.probabilities,
            response.fakes,
            scaled,
            background,
            widths,
            effects,
            *cells(response, floating=floating),
            *fake_cells(response, floating=floating),
        )


def _warn_if_limited(share: Array) -> None:
    """Warn of bins whose draws, as shares of the prior's limit, are cut off by it."""
    near = (share > NEAR_LIMIT).mean(axis=(0, 1))
    bins = np.flatnonzero(near > MOST_NEAR_LIMIT)
    if len(bins):
        msg = (
            f"{100 * near.max():.0f} % of the draws are at the upper limit of the prior in bins {bins.tolist()}, so "
            "data do not bound them: merge these bins, simulate more of their events, or take prior='lognormal'."
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=4)


def _warn_if_unconverged(ratio: Array, diverging: Array) -> None:
    import arviz as az

    if ratio.shape[0] > 1:
        r_hat = float(az.rhat(xr.Dataset({"x": (("chain", "draw", "bin"), ratio)}))["x"].max())
        if r_hat > MAX_R_HAT:
            msg = f"R-hat reaches {r_hat:.3f} (limit {MAX_R_HAT}); take more tune and draws, or a stronger prior."
            warnings.warn(msg, ConvergenceWarning, stacklevel=4)
    if diverging.sum():
        msg = f"{int(diverging.sum())} of {diverging.size} transitions diverged; trust the tails less."
        warnings.warn(msg, ConvergenceWarning, stacklevel=4)
