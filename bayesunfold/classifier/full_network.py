"""Posterior draws of the full network, without linearising it: for comparison, not for publication.

Gaussian variational draws of a full network were measured two to five times too wide and biased in the tails. NUTS of
the full network is right for small networks, and slow. Raw weights have symmetric modes, so a draw enters the
unfolding through the function it describes: its log ratio at the events, projected on the tangent features of the
point estimate.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import Layout, forward
from bayesunfold.classifier.inference import CHAINS
from bayesunfold.classifier.sampling import (
    TUNE,
    Draws,
    LinearizedPosterior,
    quiet_nutpie,
    quiet_pymc,
    sampler_stats,
)
from bayesunfold.errors import UnreliableDrawsWarning

__all__ = ["sample_full_network"]

Array = NDArray[np.floating]
ADVI_STEPS = 10_000
ADVI_RATE = 0.02
"""One Monte-Carlo sample a step, Adam with a rate that decays to nothing.

Measured on 2000 events and 321 weights: negative ELBO 1436 after these 10 000 steps from the most probable weights, in
14 s. 5000 steps of ten samples from a random start reached 1442 in 105 s; at a constant rate one sample a step
stayed above 1575.
"""


def __dir__() -> list[str]:
    return __all__


def sample_full_network(
    method: str,
    layout: Layout,
    theta: Array,
    x: Array,
    posterior: LinearizedPosterior,
    draws: int,
    rng: np.random.Generator,
) -> Draws:
    """Draws of all weights of the network, expressed in the linearised posterior's axes.

    Parameters
    ----------
    method : {"advi", "nuts"}
    layout : Layout
    theta : array, shape (P,)
        The most probable weights, where ADVI starts.
    x : array, shape (n, d)
        The events of ``posterior``.
    posterior : LinearizedPosterior
        Labels, weights and tangent features of the events.
    draws : int

    Warns
    -----
    UnreliableDrawsWarning
        Always.
    """
    msg = (
        f"linearize=False: {method} draws of the full network were measured unreliable (ADVI two to five times too "
        "wide); use them for comparison only."
    )
    warnings.warn(msg, UnreliableDrawsWarning, stacklevel=4)
    from bayesunfold.classifier.network import full_model

    model = full_model(layout, x, posterior.label, posterior.weight, posterior.offset)
    seed = int(rng.integers(2**31))
    if method == "advi":
        tree, elbo, chains, stats = _advi(model, _named(layout, theta), draws, seed)
    else:
        tree, elbo, chains, stats = _nuts(model, draws, seed)
    thetas = _standardised(layout, tree, draws)
    change = np.stack([forward(layout, theta, x) for theta in thetas]) - posterior.log_ratio
    return Draws(_project(posterior, change), chains, elbo, stats)


def _project(posterior: LinearizedPosterior, change: Array) -> Array:
    """The displacement whose linearised log ratio is nearest to each draw's, in the curvature's metric."""
    logit = posterior.log_ratio + posterior.offset
    q = 1.0 / (1.0 + np.exp(-logit))
    metric = np.maximum(posterior.weight * q * (1.0 - q), 0.0)
    phi = posterior.tangent.astype(np.float64)
    gram = phi.T @ (phi * metric[:, None])
    # directions without information would be divided by zero: a millionth of the prior's precision regularises
    gram.flat[:: len(gram) + 1] += 1e-6
    return np.linalg.solve(gram, phi.T @ (change * metric).T).T


def _advi(model: Any, start: dict[str, Array], draws: int, seed: int) -> tuple[Any, Array, int, dict[str, Array]]:
    import pymc as pm
    import pytensor

    rate = pytensor.shared(np.float64(ADVI_RATE), name="learning_rate")

    def decay(_approx: object, _losses: object, step: int) -> None:
        rate.set_value(ADVI_RATE * 0.5 * (1 + np.cos(np.pi * step / ADVI_STEPS)) + 1e-5)

    with model, quiet_pymc():
        approx = pm.fit(
            ADVI_STEPS,
            method="advi",
            random_seed=seed,
            progressbar=False,
            obj_optimizer=pm.adam(learning_rate=rate),
            callbacks=[decay],
            start=start,
            # PyMC starts all posterior widths at 0.7 in the weights' own units, far from any fit. It wants them flat
            start_sigma={v.name: np.full(int(np.prod(v.shape.eval())), 0.05) for v in model.free_RVs},
        )
        tree = approx.sample(draws, random_seed=seed)
    return tree, np.asarray(approx.hist), 1, {}


def _nuts(model: Any, draws: int, seed: int) -> tuple[Any, Array, int, dict[str, Array]]:
    import nutpie

    with quiet_nutpie():
        compiled = nutpie.compile_pymc_model(model, freeze_model=False)
        tree = nutpie.sample(
            compiled, draws=-(-draws // CHAINS), tune=TUNE, chains=CHAINS, cores=1, seed=seed, progress_bar=False
        )
    return tree, np.zeros(0), CHAINS if draws % CHAINS == 0 else 1, sampler_stats(tree)


def _named(layout: Layout, theta: Array) -> dict[str, Array]:
    """The model's weights by name, in their own units, from a weight vector ``theta``."""
    values: dict[str, Array] = {}
    for layer, (weight, bias) in enumerate(layout.layers(theta), start=1):
        last = layer == len(layout.sizes) - 1
        values[f"weight_{layer}"] = weight[:, 0] if last else weight
        values[f"bias_{layer}"] = bias[0] if last else bias
    if layout.additive is not None:
        coefficients = theta[layout.n_network :] * layout.additive.scale
        feature = np.array(layout.additive.feature)
        values |= {f"additive_{j + 1}": coefficients[feature == j] for j in sorted(set(layout.additive.feature))}
    return values


def _standardised(layout: Layout, tree: Any, draws: int) -> Array:
    """Weight vectors ``theta``, shape (draws, P), from the model's weights in their own units."""
    posterior = tree["posterior"]
    columns = []
    for layer, (_, _, _, _, w_scale, b_scale) in enumerate(layout.pieces(), start=1):
        for name, scale in ((f"weight_{layer}", w_scale), (f"bias_{layer}", b_scale)):
            values = np.asarray(posterior[name].values)
            flat = values.reshape(values.shape[0] * values.shape[1], -1)
            columns.append(flat / scale)
    if layout.additive is not None:  # intervals stand feature after feature
        for j in sorted(set(layout.additive.feature)):
            values = np.asarray(posterior[f"additive_{j + 1}"].values)
            columns.append(values.reshape(values.shape[0] * values.shape[1], -1) / layout.additive.scale)
    return np.concatenate(columns, axis=1)[:draws]
