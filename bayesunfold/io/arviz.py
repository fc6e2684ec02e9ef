"""A result as an ArviZ DataTree.

Raw network weights are not identified (symmetric modes), so the posterior group holds functions: the
unfolded spectrum of every particle-level feature and log weights at probe events. R-hat and effective sample
sizes mean something on those.

Groups
------
posterior
    ``unfolded_<feature>`` (chain, draw, bin), ``log_weight`` (chain, draw, probe) of the final weight
    function at probe events, ``log_ratio`` (chain, draw, probe) of the first step 1 at probe data events. A loaded
    result of functions that a file does not keep has no ``log_weight``.
sample_stats
    ``effective_size`` and ``total_yield`` of each member, and the sampler's own statistics for NUTS.
log_likelihood
    Weighted log-likelihood of the first step 1, at most ``MAX_EVENTS`` events (evenly spaced). Event weights
    multiply it, so LOO scores of it are weighted ones.
observed_data, constant_data
    Those events with their label, weight and features; probe events; bin edges.
prior, prior_predictive, posterior_predictive
    Of a direct posterior: draws of ``log_precision`` (chain, draw, layer) from its Normal hyperprior, and of the
    ``moments`` (chain, draw, moment) from prior and posterior; ``posterior`` then holds ``log_precision`` too, and
    ``observed_data`` the ``moments``. With a hyperprior of the user's there is no prior.
fit
    Losses and changes per iteration; ``elbo``, the negative bound of each ADVI step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_bins
from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.activations import log1pexp
from bayesunfold.errors import InputError
from bayesunfold.unfolding.functions import lost_functions
from bayesunfold.unfolding.weight_function import learned_factors

if TYPE_CHECKING:
    from bayesunfold.unfolding.record import LinearMoments, NuisanceDraws
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["default_bins", "to_datatree"]

Array = NDArray[np.floating]
MAX_EVENTS = 2_000
PROBES = 20
DEFAULT_BINS = 15


def __dir__() -> list[str]:
    return __all__


def default_bins(values: Array, n: int = DEFAULT_BINS) -> Array:
    """Equal bins between the 0.5 and 99.5 percentiles; fewer for a feature of few values."""
    low, high = np.nanpercentile(values, [0.5, 99.5])
    if not high > low:
        low, high = np.nanmin(values) - 0.5, np.nanmax(values) + 0.5
    return np.linspace(low, high, n + 1)


def to_datatree(result: UnfoldingResult, bins: Mapping[str, ArrayLike] | None = None) -> xr.DataTree:
    """ArviZ groups of a result.

    Parameters
    ----------
    result : UnfoldingResult
    bins : mapping of feature name to edges, optional
        Binning of ``unfolded_<feature>``; 15 equal bins between the 0.5 and 99.5 percentiles of the generator for
        features not named.

    Returns
    -------
    xarray.DataTree
    """
    sim = result.simulation
    unknown = sorted(set(bins or {}) - set(sim.gen_names))
    if unknown:
        msg = f"bins are given for {unknown}; the particle-level features are {', '.join(sim.gen_names)}."
        raise InputError(msg)
    edges = {
        name: check_bins(bins[name]) if bins and name in bins else default_bins(sim.gen_column(name)[sim.pass_gen])
        for name in sim.gen_names
    }
    chains = result.draws.chains
    posterior, constant = _spectra(result, edges, chains)
    if not lost_functions(result.members.events.scales.gen):
        probes, log_weight = _probe_weights(result, chains)
        posterior["log_weight"] = log_weight
        constant["probe_gen"] = probes
    likelihood, observed, log_ratio = _likelihood(result, chains)
    posterior["log_ratio"] = log_ratio
    # numbered, so that ArviZ can select some of them
    numbered = [dim for dim in ("probe", "probe_data") if dim in posterior.sizes]
    posterior = posterior.assign_coords({dim: np.arange(posterior.sizes[dim]) for dim in numbered})
    tree = {
        "posterior": posterior,
        "sample_stats": _sample_stats(result, chains),
        "log_likelihood": likelihood,
        "observed_data": observed,
        "constant_data": constant,
        "fit": _fit(result),
    }
    if result.measurement.moments is not None:
        _add_moments(tree, result, result.measurement.moments, chains)
    if result.measurement.nuisances is not None:
        tree["posterior"] = _with_nuisances(tree["posterior"], result.measurement.nuisances, chains)
    out = xr.DataTree.from_dict(tree)
    for group in out.children.values():
        group.attrs["inference_library"] = "bayesunfold"
    return out


def _with_nuisances(posterior: xr.Dataset, nuisances: NuisanceDraws, chains: int) -> xr.Dataset:
    """Profiled nuisance parameters as ``alpha`` (systematic), and their correlation with every bin of the spectra."""
    drawn = nuisances.draws().T
    alpha = xr.DataArray(
        _chained(drawn, chains), dims=("chain", "draw", "systematic"), coords={"systematic": list(nuisances.names)}
    )
    out = posterior.assign(alpha=alpha)
    for name in [str(v) for v in posterior.data_vars if str(v).startswith("unfolded_")]:
        out[f"correlation_{name.removeprefix('unfolded_')}"] = xr.corr(out["alpha"], out[name], dim=("chain", "draw"))
    return out


def _chained(values: Array, chains: int) -> Array:
    return values.reshape(chains, -1, *values.shape[1:])


def _spectra(result: UnfoldingResult, edges: Mapping[str, Array], chains: int) -> tuple[xr.Dataset, xr.Dataset]:
    posterior, constant = xr.Dataset(), xr.Dataset()
    for name, edge in edges.items():
        spectrum = result.spectrum(name, edge)
        dim = f"bin_{name}"
        digits = max(0, 4 - int(np.floor(np.log10(np.diff(edge).min()))))
        centres = np.round(0.5 * (edge[1:] + edge[:-1]), digits)  # readable labels, a ten-thousandth of a bin apart
        posterior[f"unfolded_{name}"] = xr.DataArray(
            _chained(spectrum.draw_matrix, chains), dims=("chain", "draw", dim), coords={dim: centres}
        )
        constant[f"edges_{name}"] = xr.DataArray(edge, dims=f"edge_{name}")
        constant[f"nominal_{name}"] = xr.DataArray(spectrum.nominal, dims=dim, coords={dim: centres})
    posterior = posterior.assign_coords(chain=np.arange(chains), draw=np.arange(result.members.n_members // chains))
    return posterior, constant


def _probe_weights(result: UnfoldingResult, chains: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Log of the learned weight at gen events spread evenly over the first feature."""
    sim = result.simulation
    rows = np.flatnonzero(sim.pass_gen)
    rows = rows[np.argsort(sim.gen[rows, 0], kind="stable")]
    rows = np.unique(rows[np.linspace(0, len(rows) - 1, PROBES).astype(int)])
    probes = sim.gen[rows]
    weights = np.log(np.maximum(learned_factors(sim, result.members, probes).values, np.finfo(np.float64).tiny))
    return (
        xr.DataArray(probes, dims=("probe", "gen_feature"), coords={"gen_feature": list(sim.gen_names)}),
        xr.DataArray(_chained(weights, chains), dims=("chain", "draw", "probe")),
    )


def _likelihood(result: UnfoldingResult, chains: int) -> tuple[xr.Dataset, xr.Dataset, xr.DataArray]:
    posterior = result.linearized_posterior()
    chosen = np.arange(len(posterior.label))
    if len(chosen) > MAX_EVENTS:
        chosen = np.linspace(0, len(chosen) - 1, MAX_EVENTS).astype(int)
    change = result.draws.z @ posterior.tangent[chosen].T
    logit = posterior.log_ratio[chosen] + change + posterior.offset
    sign = np.where(posterior.label[chosen] == 1, -1.0, 1.0)
    logp = -posterior.weight[chosen] * log1pexp(sign * logit)
    likelihood = xr.Dataset({"label": (("chain", "draw", "event"), _chained(logp, chains))})
    observed = xr.Dataset(
        {
            "label": ("event", posterior.label[chosen]),
            "event_weight": ("event", posterior.weight[chosen]),
        }
    )
    n_data = len(result.data)
    probes = np.unique(np.linspace(0, n_data - 1, min(PROBES, n_data)).astype(int))
    drawn = posterior.log_ratio[probes] + result.draws.z @ posterior.tangent[probes].T
    return likelihood, observed, xr.DataArray(_chained(drawn, chains), dims=("chain", "draw", "probe_data"))


def _add_moments(tree: dict[str, xr.Dataset], result: UnfoldingResult, moments: LinearMoments, chains: int) -> None:
    """What only a direct posterior has: precisions, moments, and draws of both from the prior."""
    from bayesunfold.direct.model import PredictedMoments, layer_names

    layout = result.members.step2.classifier.layout
    layers = list(layer_names(layout, result.simulation.gen_names))
    predicted = PredictedMoments.of(layout, moments, result.record.seed)
    chained = ("chain", "draw")

    def dataset(name: str, dim: str, values: Array, labels: list[str] | None = None) -> xr.Dataset:
        coords = {dim: np.arange(values.shape[1]) if labels is None else labels}
        shape = _chained(values, chains)
        coords |= {"chain": np.arange(chains), "draw": np.arange(shape.shape[1])}
        return xr.Dataset({name: ((*chained, dim), shape)}, coords=coords)

    tree["posterior"] = tree["posterior"].merge(dataset("log_precision", "layer", moments.log_precision, layers))
    if not moments.hyperprior:
        tree["prior"] = dataset("log_precision", "layer", predicted.log_precision, layers)
        tree["prior_predictive"] = dataset("moments", "moment", predicted.prior)
    tree["posterior_predictive"] = dataset("moments", "moment", predicted.posterior)
    observed = xr.DataArray(moments.observed, dims="moment", coords={"moment": np.arange(len(moments.observed))})
    tree["observed_data"] = tree["observed_data"].assign(moments=observed)


def _sample_stats(result: UnfoldingResult, chains: int) -> xr.Dataset:
    members = result.members
    total, squares = np.zeros(members.n_members), np.zeros(members.n_members)
    with block_threads():
        for _, block in members.blocks():
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.square(block, dtype=np.float64).sum(axis=0)
    stats = xr.Dataset(
        {
            "effective_size": (("chain", "draw"), _chained(total**2 / squares, chains)),
            "total_yield": (("chain", "draw"), _chained(total, chains)),
        }
    )
    for name, values in result.draws.sample_stats.items():
        if values.shape == (chains, members.n_members // chains) and values.dtype.kind in "fiub":
            stats[name] = (("chain", "draw"), values)
    return stats


def _fit(result: UnfoldingResult) -> xr.Dataset:
    history = result.history
    steps = list(history[0]["losses"])
    fit = xr.Dataset(
        {
            "loss": (("iteration", "step"), [[entry["losses"][s] for s in steps] for entry in history]),
            "remaining_step": (("iteration", "step"), [[entry["decrements"][s] for s in steps] for entry in history]),
            "change": ("iteration", [entry["change"] for entry in history]),
            "effective_size": ("iteration", [entry["effective_size"] for entry in history]),
        },
        coords={"iteration": np.arange(1, len(history) + 1), "step": steps},
    )
    if len(result.draws.elbo):
        fit["elbo"] = ("advi_step", result.draws.elbo)
    return fit
