"""The direct posterior as PyMC models, and draws of its prior precisions by ADVI and NUTS.

Two models say the same. :func:`network_model` has Normal priors on every layer's weights, a hyperprior on their
precisions, and the moments as the observed variable: what a user looks at. In :func:`precision_model` the weights,
which are Normal given the precisions, are integrated out, so that a sampler sees one variable per layer; members then
draw the weights exactly, equation (D7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import truncnorm

from bayesunfold._support.streams import stream
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.inference import CHAINS
from bayesunfold.classifier.sampling import quiet_nutpie, quiet_pymc, run_nuts
from bayesunfold.direct.mode import parameter_groups
from bayesunfold.direct.precision import LEAST, Evidence, covariance, distinct, grams_of
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.unfolding.record import LinearMoments

if TYPE_CHECKING:
    import pymc as pm

__all__ = [
    "PrecisionDraws",
    "PrecisionModel",
    "PredictedMoments",
    "check_hyperprior",
    "layer_names",
    "network_model",
    "precision_model",
    "reserved_names",
    "sample_precisions",
]

Array = NDArray[np.floating]
PrecisionModel = Callable[[tuple[str, ...]], Any]
"""Of the layers' names: the logarithms of their precisions, called in the context of the model."""

ADVI_STEPS, ADVI_RATE = 4000, 0.02

INFORMATIVE = 0.01
"""Combinations of moments whose variance the network changes by less than this say nothing about precisions."""

VARIABLES = ("moments", "derivative", "columns", "free", "alpha", "mimic", "grams", "base")
DIMENSIONS = ("layer", "feature", "moment", "systematic")
"""What :func:`network_model` and :func:`precision_model` have for any network."""


def __dir__() -> list[str]:
    return __all__


def layer_names(layout: Layout, features: Sequence[str]) -> tuple[str, ...]:
    """Names of the parameters that share a precision: ``layer_1, ...``, and ``additive_<feature>``."""
    names = [f"layer_{k + 1}" for k in range(len(layout.sizes) - 1)]
    if layout.additive is not None:
        names += [f"additive_{features[j]}" for j in sorted(set(layout.additive.feature))]
    return tuple(names)


def network_model(layout: Layout, moments: LinearMoments, names: Sequence[str]) -> pm.Model:
    """The linearised particle-level network, with priors on every layer's weights.

    Parameters
    ----------
    layout : Layout
        Of the particle-level network.
    moments : LinearMoments
    names : sequence of str
        From :func:`layer_names`.

    Returns
    -------
    pymc.Model
        Free variables ``log_precision`` (layer), ``weight_1, bias_1, ...`` and ``additive_<feature>``, in the units of
        the network, and if nuisance parameters are profiled ``alpha`` and ``mimic`` (systematic), the size of a change
        of the network that looks like them; observed ``moments``.
    """
    import pymc as pm
    import pytensor.tensor as pt

    coords: dict[str, Sequence[object]] = {"layer": names, "feature": list(range(layout.sizes[0]))}
    coords |= {f"unit_{k}": list(range(units)) for k, units in enumerate(layout.sizes[1:-1], start=1)}
    coords["moment"] = list(range(len(moments.observed)))
    if moments.systematics:
        coords["systematic"] = list(moments.systematics)
    with pm.Model(coords=coords) as model:
        log_precision = hyperprior(model, names, moments.width, moments.custom)
        shrink = pt.exp(-0.5 * log_precision)
        shifts = []
        for k, (w, b, fan_in, fan_out, w_scale, b_scale) in enumerate(layout.pieces()):
            last = k == len(layout.sizes) - 2
            inner, outer = "feature" if k == 0 else f"unit_{k}", f"unit_{k + 1}"
            shape = (fan_in,) if last else (fan_in, fan_out)
            for part, scale, name, dims, size in (
                (w, w_scale, f"weight_{k + 1}", (inner,) if last else (inner, outer), shape),
                (b, b_scale, f"bias_{k + 1}", () if last else (outer,), shape[1:]),
            ):
                centre = scale * moments.centre[part].reshape(size)
                value = pm.Normal(name, centre, scale * shrink[k], dims=dims)
                shifts.append(pt.flatten(value - centre) / scale)
        if layout.additive is not None:
            feature = np.array(layout.additive.feature)
            for k, j in enumerate(sorted(set(layout.additive.feature)), start=len(layout.sizes) - 1):
                rows = np.flatnonzero(feature == j)
                dim = f"interval_{names[k].removeprefix('additive_')}"
                model.add_coord(dim, [f"{layout.additive.low[i]:.3g} to {layout.additive.high[i]:.3g}" for i in rows])
                value = pm.Normal(names[k], 0.0, layout.additive.scale * shrink[k], dims=dim)
                shifts.append(value / layout.additive.scale)
        derivative = pm.Data("derivative", np.asarray(moments.derivative, dtype=np.float64))
        change = derivative @ pt.concatenate(shifts)
        if moments.columns is not None and moments.free is not None:
            change += pm.Data("columns", moments.columns) @ _nuisance_parameters(moments)
            mimic = pm.Normal("mimic", 0.0, 1.0, dims="systematic")
            change += (derivative @ pm.Data("free", moments.free)) @ mimic
        pm.Normal("moments", change, 1.0, observed=moments.observed, dims="moment")
    return model


def _nuisance_parameters(moments: LinearMoments) -> Any:
    """The variable ``alpha`` (systematic) of the model in whose context it is called."""
    import pymc as pm

    k = len(moments.systematics)
    if np.array_equal(moments.correlation, np.eye(k)):
        return pm.Normal("alpha", 0.0, 1.0, dims="systematic")
    return pm.MvNormal("alpha", np.zeros(k), cov=moments.correlation, dims="systematic")


def precision_model(evidence: Evidence, names: Sequence[str], custom: PrecisionModel | None = None) -> pm.Model:
    """The model of the precisions with the network's weights integrated out, equation (D5).

    Parameters
    ----------
    evidence : Evidence
    names : sequence of str
    custom : callable, optional
        Of the layers' names: their ``log_precision``, shape (layers,), a variable or an expression of variables that it
        defines. It is called in the context of the model, to which it may add more. Independent Normal variables by
        default.

    Returns
    -------
    pymc.Model
        With ``log_precision`` (layer); observed ``moments``.
    """
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model(coords={"layer": list(names)}) as model:
        log_precision = hyperprior(model, names, evidence.width, custom)
        grams = pm.Data("grams", np.stack(evidence.grams))
        p = len(evidence.y)
        cov = pm.Data("base", evidence.base) + pt.tensordot(pt.exp(-log_precision), grams, axes=1)
        pm.MvNormal("moments", np.zeros(p), cov=cov, observed=evidence.y)
    return model


def hyperprior(model: pm.Model, names: Sequence[str], width: float, custom: PrecisionModel | None) -> Any:
    """The variable ``log_precision`` (layer): Normal, not below two widths, or what the user's function returns.

    Raises
    ------
    InputTypeError, InputError
        If the function returns no tensor with one value per layer.
    """
    import pymc as pm
    import pytensor.tensor as pt

    if custom is None:
        return pm.TruncatedNormal("log_precision", 0.0, width, lower=LEAST * width, dims="layer")
    given = custom(tuple(names))
    if not isinstance(given, pt.TensorVariable):
        msg = (
            f"model returned a {type(given).__name__}; it must return the layers' log precisions, a PyTensor variable."
        )
        raise InputTypeError(msg)
    if given.ndim != 1:
        msg = f"model returned log precisions of {given.ndim} dimensions; they have one, of the {len(names)} layers."
        raise InputError(msg)
    found = len(np.asarray(pm.draw(given, random_seed=0)))
    if found != len(names):
        msg = f"model returned {found} log precisions; the network has {len(names)} layers: {', '.join(names)}."
        raise InputError(msg)
    if model.named_vars.get("log_precision") is given:
        return given
    if "log_precision" in model.named_vars:
        msg = "model defines log_precision and returns something else; return it, or give it another name."
        raise InputError(msg)
    return pm.Deterministic("log_precision", given, dims="layer")


@dataclass(frozen=True)
class PredictedMoments:
    """Moments that the prior and the posterior predict, one draw per member.

    Attributes
    ----------
    log_precision : array, shape (n_members, layers)
        From the Normal hyperprior.
    prior, posterior : array, shape (n_members, moments)
    """

    log_precision: Array
    prior: Array
    posterior: Array

    @classmethod
    def of(cls, layout: Layout, moments: LinearMoments, seed: int) -> PredictedMoments:
        """Draws from a seed."""
        rng = stream(seed, "predictive")
        groups = parameter_groups(layout)
        n, p = len(moments.log_precision), len(moments.observed)
        draws = truncnorm.rvs(LEAST, np.inf, size=(n, len(groups)), random_state=rng) * moments.width
        noise, more = rng.standard_normal((2, n, p))
        return cls(
            draws,
            _network_draws(moments, groups, draws, rng) + noise,
            _network_draws(moments, groups, moments.log_precision, rng, moments.observed) + more,
        )


def _network_draws(
    moments: LinearMoments,
    groups: Sequence[slice],
    log_precision: Array,
    rng: np.random.Generator,
    observed: Array | None = None,
) -> Array:
    """Moments of draws of network and nuisances, without noise, from the prior or given observed ones, shape (n, p)."""
    a, base = moments.derivative, np.eye(len(moments.observed))
    if moments.columns is not None and moments.free is not None:
        more = np.hstack([a @ moments.free, moments.columns @ np.linalg.cholesky(moments.correlation)])
        a = np.hstack([a, more])
        base += more @ more.T
    drawn = rng.standard_normal((len(log_precision), a.shape[1]))
    for k, group in enumerate(groups):
        drawn[:, group] *= np.exp(-0.5 * log_precision[:, k, None])
    values = drawn @ a.T
    if observed is None:
        return values
    grams = grams_of(a, groups)
    residual = observed - values - rng.standard_normal(values.shape)
    for tau, rows in distinct(log_precision):
        inverse = np.linalg.inv(covariance(base, grams, tau))
        values[rows] += residual[rows] @ (np.eye(len(inverse)) - inverse)  # C - 1 is the parameters' covariance
    return values


@dataclass(frozen=True)
class PrecisionDraws:
    """Draws of the logarithms of the precisions.

    Attributes
    ----------
    log_tau : array, shape (draws, layers)
        Chain after chain.
    chains : int
    elbo : array, shape (steps,)
        Negative evidence lower bound of each ADVI step.
    sample_stats : dict of str to array, shape (chains, draws)
        What NUTS reports.
    """

    log_tau: Array
    chains: int = 1
    elbo: Array = field(default_factory=lambda: np.zeros(0))
    sample_stats: dict[str, Array] = field(default_factory=dict)


def sample_precisions(
    method: str,
    evidence: Evidence,
    mode: Array,
    names: Sequence[str],
    draws: int,
    rng: np.random.Generator,
    custom: PrecisionModel | None = None,
) -> PrecisionDraws:
    """Draws of the precisions by ``"advi"`` or ``"nuts"``.

    Parameters
    ----------
    method : str
    evidence : Evidence
    mode : array, shape (layers,)
        Most probable logarithms.
    names : sequence of str
    draws : int
    rng : numpy.random.Generator
    custom : callable, optional
        As for :func:`precision_model`.
    """
    model = precision_model(informative(evidence, mode), names, custom)
    return (_advi if method == "advi" else _nuts)(model, draws, rng)


def check_hyperprior(custom: PrecisionModel, names: Sequence[str]) -> None:
    """Whether a user's function gives the precisions of a network's layers, in a model that can be sampled.

    Raises
    ------
    InputTypeError, InputError
        As for :func:`hyperprior`; for variables with names of :func:`reserved_names`, for discrete variables, and if
        there is no free one.
    """
    import pymc as pm

    reserved = reserved_names(names)
    with pm.Model(coords={"layer": list(names)}) as model:
        hyperprior(model, names, 1.0, custom)
    taken = [name for name in model.named_vars if name in reserved]
    if taken:
        msg = (
            f"model defines {', '.join(map(repr, taken))}; the library's own models use {', '.join(reserved)}. Give it "
            "another name."
        )
        raise InputError(msg)
    if not model.free_RVs:
        msg = (
            "model defines no free variable, and a sampler needs one. For precisions that stay, return a narrow one: "
            'pm.Normal("log_precision", value, 0.01, dims="layer").'
        )
        raise InputError(msg)
    discrete = [variable.name for variable in model.free_RVs if np.dtype(variable.dtype).kind in "iub"]
    if discrete:
        msg = (
            f"model defines discrete variables, {', '.join(map(repr, discrete))}; the samplers take continuous ones. "
            "Sum over their values, for instance with pm.NormalMixture."
        )
        raise InputError(msg)


def reserved_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of variables and dimensions of both models, but for ``log_precision``, which a user's function may define.

    Parameters
    ----------
    names : sequence of str
        From :func:`layer_names`.
    """
    layers = [name.removeprefix("layer_") for name in names if name.startswith("layer_")]
    numbered = [f"{kind}_{k}" for k in layers for kind in ("weight", "bias")] + [f"unit_{k}" for k in layers[:-1]]
    additive = [name for name in names if name.startswith("additive_")]
    intervals = [name.replace("additive_", "interval_", 1) for name in additive]
    return (*VARIABLES, *DIMENSIONS, *numbered, *additive, *intervals)


def informative(evidence: Evidence, log_tau: Array) -> Evidence:
    """The evidence of the combinations of moments that say something about precisions."""
    total = sum(gram * np.exp(-t) for gram, t in zip(evidence.grams, log_tau, strict=True))
    values, vectors = np.linalg.eigh(np.asarray(total))
    kept = vectors[:, values > INFORMATIVE] if values[-1] > INFORMATIVE else vectors[:, -1:]
    grams = tuple(kept.T @ gram @ kept for gram in evidence.grams)
    return replace(evidence, y=kept.T @ evidence.y, grams=grams, base=kept.T @ evidence.base @ kept)


def _advi(model: pm.Model, draws: int, rng: np.random.Generator) -> PrecisionDraws:
    """A Gaussian with all correlations (Kucukelbir et al., arXiv:1603.00788, section 2.4)."""
    import pymc as pm

    with model, quiet_pymc():
        fit = pm.fit(
            ADVI_STEPS,
            method="fullrank_advi",
            random_seed=int(rng.integers(2**31)),
            progressbar=False,
            obj_optimizer=pm.adam(learning_rate=ADVI_RATE),
        )
        sample = fit.sample(draws, random_seed=int(rng.integers(2**31)))
    found = np.asarray(sample["posterior"]["log_precision"].values)
    return PrecisionDraws(found.reshape(draws, -1), elbo=np.asarray(fit.hist, dtype=np.float64))


def _nuts(model: pm.Model, draws: int, rng: np.random.Generator) -> PrecisionDraws:
    """NUTS by nutpie, four chains that share the draws (Hoffman, Gelman, JMLR 15 (2014) 1593)."""
    import nutpie

    with quiet_nutpie():
        compiled = nutpie.compile_pymc_model(model)
    found, stats = run_nuts(compiled, "log_precision", draws // CHAINS, rng)
    return PrecisionDraws(found.reshape(draws, -1), CHAINS, sample_stats=stats)
