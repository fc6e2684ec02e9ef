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
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from bayesunfold._validate import as_numbers, check_count, check_instance, check_positive
from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.errors import ConvergenceWarning, InputError
from bayesunfold.inference.draws import quiet_nutpie
from bayesunfold.spectrum import Spectrum

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["FBU", "BinnedBackground", "FBUFit"]

Array = NDArray[np.floating]
Prior = Literal["flat", "lognormal", "entropy", "curvature"]

PRIORS = ("flat", "lognormal", "entropy", "curvature")
MAX_R_HAT = 1.02
LARGEST_RATIO = 10.0
TARGET_ACCEPT = 0.95  # backgrounds and shifts of the response bend the posterior; at 0.8 some steps diverged


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class BinnedBackground:
    """A background in detector-level bins.

    Parameters
    ----------
    counts : array, shape (reco,)
        Expected contents.
    relative_uncertainty : float
        Of the normalisation; a log-normal nuisance parameter. Zero keeps it fixed.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> top = bu.BinnedBackground([10.0, 20.0], relative_uncertainty=0.1)
    >>> model = bu.FBU(backgrounds={"top": top}).model(R, [100, 150])
    >>> [variable.name for variable in model.free_RVs]
    ['truth_ratio', 'background_level']
    """

    counts: ArrayLike
    relative_uncertainty: float = 0.0


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
        Of the particle-level contents: flat between zero and a limit, ten times the simulated spectrum or all events in
        one bin, whichever is more; log-normal around the simulated spectrum, scaled to
        the data, of relative width ``strength``; flat times ``exp(strength x entropy)`` of the spectrum's ratio to the
        simulated one; flat times a Normal of width ``1/strength`` on that ratio's second differences.
    strength : float
        See ``prior``.
    response_statistics : bool
        Let the response fluctuate within its simulation statistics: every column is Dirichlet with the simulated
        counts (the Bayesian bootstrap), so empty elements stay empty.
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
        self.response_statistics = bool(response_statistics)
        self.backgrounds = dict(backgrounds or {})
        self.systematics = {k: as_numbers(v, f"systematic {k!r}") for k, v in (systematics or {}).items()}
        self.draws, self.tune = check_count(draws, "draws", 2), check_count(tune, "tune")
        self.chains = check_count(chains, "chains")
        self.random_seed = check_count(random_seed, "random_seed", 0)
        self.progressbar = progressbar

    def model(self, response: ResponseMatrix, data: Any) -> pm.Model:
        """The PyMC model on these data, to be looked at or extended.

        Free variables: ``truth_ratio`` (particle-level contents over the simulated spectrum scaled to the data),
        ``response_cells`` (Gamma variables that make the columns), one N(0, 1) a background and a systematic.
        Deterministics: ``truth``, ``expected``.
        """
        return _build(self._inputs(response, data))

    def fit(self, response: ResponseMatrix, data: Any) -> Spectrum:
        """Posterior of the particle-level spectrum.

        Parameters
        ----------
        response : ResponseMatrix
        data : array, shape (reco,), or histogram
            Poisson counts: whole numbers of events.

        Returns
        -------
        Spectrum

        Raises
        ------
        InputError
            Counts that are negative, not whole, or do not match; backgrounds above the data everywhere.

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
            compiled = _compiled(inputs.shape()).with_data(**inputs.swapped())
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
        values = (ratio * inputs.scaled).reshape(-1, response.n_gen)
        spectrum = Spectrum(
            edges=response.gen_edges,
            values=values,
            nominal=values.mean(axis=0),
            names=response.gen_names,
            method="FBU",
            seconds=time.perf_counter() - start,
        )
        groups = xr.DataTree.from_dict(
            {
                "posterior": xr.Dataset(
                    {"truth": (("chain", "draw", "bin"), ratio * inputs.scaled)} | self._named(tree["posterior"])
                ),
                "sample_stats": tree["sample_stats"].to_dataset(),
                "observed_data": xr.Dataset({"counts": ("reco_bin", inputs.counts)}),
            }
        )
        model = _build(inputs)
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

    def _inputs(self, response: ResponseMatrix, data: Any) -> _Inputs:
        check_instance(response, ResponseMatrix, "response")
        values, _ = response.counts(data)
        fraction = np.flatnonzero(values != np.round(values))
        if len(fraction):
            msg = f"data counts in bins {fraction.tolist()} are not whole numbers; FBU's likelihood is Poisson."
            raise InputError(msg)
        background, widths = _backgrounds(self.backgrounds, response)
        if len(background) and np.all(background.sum(axis=0) > values):
            msg = "the backgrounds exceed the data in every bin; check their normalisation."
            raise InputError(msg)
        effects = _systematics(self.systematics, response)
        floating = self.response_statistics and response.has_statistics and response.truth is not None
        cells = _cells(response, floating=floating)
        prior = np.where(response.prior > 0, response.prior, 1.0)
        signal = max(float(values.sum() - background.sum()), 1.0) * (
            1 - np.average(response.fakes, weights=values + 1e-9)
        )
        scaled = prior * signal / response.fold(prior).sum()
        return _Inputs(
            self.prior,
            self.strength,
            values,
            response.probabilities,
            response.fakes,
            scaled,
            background,
            widths,
            effects,
            *cells,
        )


@dataclass(frozen=True)
class _Inputs:
    """Arrays of the model. Only their shapes matter to the compiler."""

    prior: str
    strength: float
    counts: Array
    response: Array
    fakes: Array
    scaled: Array
    background: Array
    background_width: Array
    effects: Array
    row: NDArray[np.integer]
    column: NDArray[np.integer]
    cell: Array
    used: Array

    @property
    def limit(self) -> Array:
        """Largest ratio to the scaled simulated spectrum that a flat prior allows.

        Without a limit the posterior would be improper: a column of few simulated events may have any efficiency.
        """
        return np.maximum(LARGEST_RATIO, self.scaled.sum() / self.scaled)

    def shape(self) -> tuple[Any, ...]:
        n_reco, n_gen = self.response.shape
        return self.prior, n_reco, n_gen, len(self.background), len(self.effects), len(self.cell)

    def swapped(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "data": self.counts.astype(np.int64),
            "fakes": self.fakes,
            "scaled_simulation": self.scaled,
        }
        if self.prior != "lognormal":
            values["limit"] = self.limit
        if self.prior != "flat":
            values["strength"] = np.float64(self.strength)
        if len(self.background):
            values |= {"background": self.background, "background_width": self.background_width}
        if len(self.effects):
            values["effects"] = self.effects
        if len(self.cell):
            values |= {"row": self.row, "column": self.column, "cell_counts": self.cell, "cell_used": self.used}
        else:
            values["response"] = self.response
        return values


def _cells(
    response: ResponseMatrix, *, floating: bool
) -> tuple[NDArray[np.integer], NDArray[np.integer], Array, Array]:
    """Filled elements of the response as effective counts; row ``n_reco`` holds what is not seen.

    Padded to a multiple of 32 with unused cells, so that toys of one problem share a compiled model.
    """
    if not floating:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros(0), np.zeros(0)
    counts, missed = response.effective_counts()
    table = np.vstack([counts, missed])
    row, column = np.nonzero(table > 0)
    extra = -len(row) % 32
    return (
        np.pad(row, (0, extra)),
        np.pad(column, (0, extra)),
        np.pad(table[row, column], (0, extra), constant_values=1.0),
        np.pad(np.ones(len(row)), (0, extra)),
    )


def _backgrounds(backgrounds: Mapping[str, BinnedBackground], response: ResponseMatrix) -> tuple[Array, Array]:
    counts = np.zeros((len(backgrounds), response.n_reco))
    widths = np.zeros(len(backgrounds))
    for k, (name, background) in enumerate(backgrounds.items()):
        check_instance(background, BinnedBackground, f"background {name!r}")
        counts[k], _ = response.counts(background.counts, f"background {name!r}")
        if not 0 <= background.relative_uncertainty < np.inf:
            msg = f"background {name!r} has relative uncertainty {background.relative_uncertainty!r}; it must be >= 0."
            raise InputError(msg)
        widths[k] = np.log1p(background.relative_uncertainty)
    return counts, widths


def _systematics(systematics: Mapping[str, Array], response: ResponseMatrix) -> Array:
    effects = np.zeros((len(systematics), response.n_reco, response.n_gen))
    for k, (name, effect) in enumerate(systematics.items()):
        full = effect[:, None] if effect.ndim == 1 else effect
        if full.shape not in ((response.n_reco, 1), response.probabilities.shape):
            msg = f"systematic {name!r} has shape {effect.shape}; it must be (reco,) or (reco, gen)."
            raise InputError(msg)
        if not np.all(np.isfinite(full)) or np.any(full <= -1):
            msg = f"systematic {name!r} must be finite and above -1 (a relative change); its lowest is {full.min():g}."
            raise InputError(msg)
        if not np.any(full):
            msg = f"systematic {name!r} is identical to nominal; leave it out."
            raise InputError(msg)
        effects[k] = full
    return effects


@lru_cache(maxsize=16)
def _compiled(shape: tuple[Any, ...]) -> Any:
    """A compiled model of this shape; data are swapped."""
    import nutpie

    prior, n_reco, n_gen, n_background, n_effects, n_cells = shape
    rows = np.arange(n_cells) % (n_reco + 1)
    dummy = _Inputs(
        prior,
        1.0,
        np.ones(n_reco),
        np.full((n_reco, n_gen), 1.0 / n_reco),
        np.zeros(n_reco),
        np.ones(n_gen),
        np.ones((n_background, n_reco)),
        np.ones(n_background),
        np.zeros((n_effects, n_reco, n_gen)),
        rows,
        np.arange(n_cells) % n_gen,
        np.ones(n_cells),
        np.ones(n_cells),
    )
    return nutpie.compile_pymc_model(_build(dummy), freeze_model=False)


def _build(inputs: _Inputs) -> pm.Model:
    """The model, equation (B14); one place for everything that is assumed."""
    import pymc as pm
    import pytensor.tensor as pt

    n_reco, n_gen = inputs.response.shape
    with pm.Model(coords={"bin": range(n_gen), "reco_bin": range(n_reco)}) as model:
        observed = pm.Data("data", inputs.counts.astype(np.int64), dims="reco_bin")
        fakes = pm.Data("fakes", inputs.fakes, dims="reco_bin")
        scaled = pm.Data("scaled_simulation", inputs.scaled, dims="bin")
        ratio = _truth_prior(inputs)
        truth = pm.Deterministic("truth", ratio * scaled, dims="bin")
        response = _response(inputs)
        if len(inputs.effects):
            effects = pm.Data("effects", inputs.effects)
            pull = pm.Normal("systematic", 0.0, 1.0, shape=len(inputs.effects))  # named in the result
            response = response * pt.exp(pt.tensordot(pull, pt.log1p(effects), axes=1))
        expected = pt.dot(response, truth) / (1 - fakes)
        if len(inputs.background):
            shapes = pm.Data("background", inputs.background)
            widths = pm.Data("background_width", inputs.background_width)
            level = pm.Normal("background_level", 0.0, 1.0, shape=len(inputs.background))
            expected = expected + pt.dot(pt.exp(level * widths), shapes)
        expected = pm.Deterministic("expected", expected, dims="reco_bin")
        pm.Poisson("counts", expected, observed=observed, dims="reco_bin")
    return model


def _truth_prior(inputs: _Inputs) -> Any:
    """Prior of the ratio to the scaled simulated spectrum, equation (B16)."""
    import pymc as pm
    import pytensor.tensor as pt

    prior = inputs.prior
    strength: Any = None if prior == "flat" else pm.Data("strength", np.float64(inputs.strength))
    if prior == "lognormal":
        return pm.LogNormal("truth_ratio", 0.0, pt.log1p(strength), dims="bin")
    limit = pm.Data("limit", inputs.limit, dims="bin")
    ratio = pm.Uniform("truth_ratio", 0.0, limit, dims="bin", initval=np.ones(len(inputs.scaled)))
    if prior == "entropy":
        share = ratio / ratio.sum()
        pm.Potential("entropy", -strength * (share * pt.log(share)).sum() * ratio.shape[0])
    if prior == "curvature":
        bend = ratio[2:] - 2 * ratio[1:-1] + ratio[:-2]
        pm.Potential("curvature", -0.5 * (strength * bend / ratio.mean()).norm(2) ** 2)
    return ratio


def _response(inputs: _Inputs) -> Any:
    """The response, fixed or with columns that fluctuate (B15): Dirichlet as normalised Gamma variables."""
    import pymc as pm
    import pytensor.tensor as pt

    n_reco, n_gen = inputs.response.shape
    if not len(inputs.cell):
        return pm.Data("response", inputs.response)
    row = pm.Data("row", inputs.row.astype(np.int64))
    column = pm.Data("column", inputs.column.astype(np.int64))
    counts = pm.Data("cell_counts", inputs.cell)
    used = pm.Data("cell_used", inputs.used)
    cells = pm.Gamma("response_cells", counts, 1.0, shape=len(inputs.cell))
    table = pt.inc_subtensor(pt.zeros((n_reco + 1, n_gen))[row, column], cells * used)
    return table[:-1] / table.sum(axis=0)


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
