"""Posterior draws of the linearised step-1 network, by Laplace, ADVI or NUTS.

What to use when
----------------
All three look at the same log-concave posterior, whitened to about N(0, 1), and agree on the width of a density
ratio (``tests/classifier/test_estimator.py``) where events have about equal weights. Where a few weigh much more than
others, members of the loop are wider with ``"laplace"``.

``"laplace"`` is the Gaussian itself and costs nothing; ``"advi"`` fits its means and widths; ``"nuts"`` makes no
approximation beyond the linearisation, gives R-hat and effective sample sizes, and pays tens of seconds for
compilation once a process.

The compiled functions are kept for the life of the process and the data swapped (``pm.Data``), so only the first
fit compiles.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bayesunfold._support.progress import aside
from bayesunfold.classifier.arithmetic import blocks, weighted_gram
from bayesunfold.classifier.inference import CHAINS
from bayesunfold.errors import ConvergenceWarning

__all__ = [
    "Draws",
    "LinearizedPosterior",
    "chosen_by_leverage",
    "run_nuts",
    "sample_advi",
    "sample_gaussian",
    "sample_nuts",
    "sampler_stats",
]

Array = NDArray[np.floating]

ADVI_STEPS = 200
ADVI_PARTICLES = 10
ADVI_RATE = 0.05
MAX_ROWS, ROWS_PER_DIRECTION = 2_000, 12
"""ADVI and NUTS look at the larger of these many events; see ``LinearizedPosterior.thinned``."""
TUNE = 400

COMPILING = "compiling the PyMC model: once per process, tens of seconds the first time on a machine"


def __dir__() -> list[str]:
    return __all__


class Correction(NamedTuple):
    """What the log-likelihood of a part of the events lacks to second order at the point estimate.

    Attributes
    ----------
    gradient : array, shape (p,)
    curvature : array, shape (p, p)
    """

    gradient: Array
    curvature: Array


@dataclass(frozen=True)
class LinearizedPosterior:
    """Everything that defines the posterior of step 1 in whitened coordinates.

    Attributes
    ----------
    tangent : array, shape (n, p)
        Tangent features along the posterior axes, in units of the posterior's width.
    log_ratio : array, shape (n,)
        Point estimate at the events.
    label, weight : array, shape (n,)
    offset : float
    mean, width : array, shape (p,)
        The weights' Normal prior in these coordinates.
    correction : Correction, optional
        Of thinned events.
    """

    tangent: Array
    log_ratio: Array
    label: NDArray[Any]
    weight: Array
    offset: float
    mean: Array
    width: Array
    correction: Correction | None = None

    def thinned(self, rows: int, rng: np.random.Generator) -> LinearizedPosterior:
        """The posterior estimated from about ``rows`` of the events, exact to second order.

        Events are kept with probabilities that follow their leverage, half of it spread evenly, and weighted up by the
        inverse; a linear and a quadratic term restore the gradient and curvature that all events have at the
        point estimate, so only the third and higher derivatives, small for many events, are estimated (control
        variates: Bardenet, Doucet, Holmes, arXiv:1505.02827, section 7). A plain random part fails for many
        directions: few events of large leverage, weighted up, dominate some direction, and the quadratic
        term then outweighs a likelihood that saturates (measured: means off by 2.6 widths with 400 directions and
        5000 of 24 000 events; 0.2 with leverages).
        """
        n, p = self.tangent.shape
        if self.correction is not None or n <= max(rows, ROWS_PER_DIRECTION * p):
            return self
        q = expit(self.log_ratio + self.offset)
        leverage = np.abs(self.weight) * q * (1 - q) * np.einsum("ij,ij->i", self.tangent, self.tangent)
        chosen, keep = chosen_by_leverage(leverage, p, rng, rows)
        part = replace(
            self,
            tangent=self.tangent[chosen],
            log_ratio=self.log_ratio[chosen],
            label=self.label[chosen],
            weight=self.weight[chosen] / keep,
        )
        (gradient, curvature), (part_gradient, part_curvature) = self._derivatives(), part._derivatives()
        return replace(part, correction=Correction(gradient - part_gradient, curvature - part_curvature))

    def restored(self, gradient: Array) -> LinearizedPosterior:
        """The posterior on a part of the events, with the derivatives that all of them have at the point estimate.

        In coordinates in which the posterior of all events is about N(0, 1), their curvature is what the prior lacks.
        """
        own, curvature = self._derivatives()
        whole = np.diag(1.0 - 1.0 / self.width**2)
        return replace(self, correction=Correction(gradient - own, whole - curvature))

    def _derivatives(self) -> tuple[Array, Array]:
        """Gradient and negative Hessian of the log-likelihood at the point estimate."""
        q = expit(self.log_ratio + self.offset)
        residual = self.weight * (self.label - q)
        gradient = np.sum([residual[rows] @ self.tangent[rows] for rows in blocks(len(residual))], axis=0)
        return gradient, weighted_gram(self.tangent, self.weight * q * (1 - q))

    def mode(self, steps: int = 20) -> Array:
        """Most probable ``z``, by Newton steps on all events, shape (p,); zero at a stationary point estimate."""
        z = np.zeros(self.tangent.shape[1])
        value, gradient, hessian = self._density(z)
        for _ in range(steps):
            step = np.linalg.solve(hessian, gradient)
            if gradient @ step < 1e-8:
                break
            size = 1.0
            while size > 1e-3:
                new = self._density(z + size * step)
                if new[0] >= value:
                    break
                size *= 0.5
            else:
                break
            z = z + size * step
            value, gradient, hessian = new
        return z

    def _density(self, z: Array) -> tuple[float, Array, Array]:
        """Log posterior, its gradient and negative Hessian at ``z``."""
        phi = self.tangent
        logit = self.log_ratio + self.offset + (phi @ z.astype(phi.dtype)).astype(np.float64)
        q = expit(logit)
        deviation = (z - self.mean) / self.width
        value = float(self.weight @ (self.label * logit - np.logaddexp(0.0, logit)) - 0.5 * deviation @ deviation)
        gradient = phi.T @ (self.weight * (self.label - q)).astype(phi.dtype) - deviation / self.width
        hessian = weighted_gram(phi, self.weight * q * (1 - q)) + np.diag(1 / self.width**2)
        return value, gradient.astype(np.float64), hessian

    def padded(self) -> LinearizedPosterior:
        """The same posterior with directions added that the data do not see, up to a multiple of 16.

        Compiled functions have a fixed number of directions; one that was added is N(0, 1) whatever the data.
        """
        p = self.tangent.shape[1]
        extra = -p % 16
        if not extra:
            return self
        given = self.correction
        return replace(
            self,
            tangent=np.pad(self.tangent, ((0, 0), (0, extra))),
            mean=np.pad(self.mean, (0, extra)),
            width=np.pad(self.width, (0, extra), constant_values=1.0),
            correction=None if given is None else Correction(*(np.pad(a, (0, extra)) for a in given)),
        )

    def swapped(self) -> dict[str, Array]:
        """Values of the model's ``pm.Data`` containers."""
        values: dict[str, Array] = {
            "tangent": np.asarray(self.tangent, dtype=np.float64),
            "point_estimate": np.asarray(self.log_ratio, dtype=np.float64),
            "event_weight": np.asarray(self.weight, dtype=np.float64),
            "class": np.asarray(self.label, dtype=np.int64),
            "offset": np.asarray(self.offset, dtype=np.float64),
            "prior_mean": np.asarray(self.mean, dtype=np.float64),
            "prior_width": np.asarray(self.width, dtype=np.float64),
        }
        if self.correction is not None:
            values |= self.correction._asdict()
        return values

    def model(self) -> Any:
        """The PyMC model of this posterior."""
        from bayesunfold.classifier.network import linearized_model

        return linearized_model(
            self.tangent,
            self.log_ratio,
            self.label,
            self.weight,
            self.offset,
            self.mean,
            self.width,
            *(self.correction or (None, None)),
        )


def chosen_by_leverage(
    leverage: Array, directions: int, rng: np.random.Generator, rows: int = MAX_ROWS
) -> tuple[NDArray[np.integer], Array]:
    """Events of a thinned posterior and the probability of each to be one; see ``LinearizedPosterior.thinned``."""
    rows = max(rows, ROWS_PER_DIRECTION * directions)
    keep = np.minimum(1.0, rows * (0.5 / len(leverage) + 0.5 * leverage / leverage.sum()))
    steps = np.cumsum(keep) + rng.uniform()
    chosen = np.flatnonzero(np.diff(np.floor(steps), prepend=np.floor(steps[0] - keep[0])) > 0)
    return chosen, keep[chosen]


@dataclass(frozen=True)
class Draws:
    """Posterior draws in whitened coordinates.

    Attributes
    ----------
    z : array, shape (draws, p)
    chains : int
        Number of chains, over which ``z`` is split in order.
    elbo : array, shape (steps,)
        Negative evidence lower bound of each ADVI step; empty for other methods.
    sample_stats : dict of str to array, shape (chains, draws)
        What NUTS reports; empty for other methods.
    """

    z: Array
    chains: int = 1
    elbo: Array = field(default_factory=lambda: np.zeros(0))
    sample_stats: dict[str, Array] = field(default_factory=dict)


@contextmanager
def quiet_pymc() -> Iterator[None]:
    """Silence PyMC's loggers while we fit, and put their levels back."""
    loggers = [logging.getLogger(name) for name in ("pymc", "pymc.variational.inference", "nutpie")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_nutpie() -> Iterator[None]:
    """As :func:`quiet_pymc`, without the warning that numba cannot cache nutpie's wrappers (pymc-devs/nutpie#334)."""
    with quiet_pymc(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot cache compiled function")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


class _CompiledADVI:
    """A mean-field ADVI step compiled once; data and starting point are swapped."""

    def __init__(self, posterior: LinearizedPosterior) -> None:
        import pymc as pm
        import pytensor

        self.model = posterior.model()
        self.rate = pytensor.shared(np.float64(ADVI_RATE), name="learning_rate")
        with self.model, quiet_pymc():
            self.inference = pm.ADVI(random_seed=0)
            self.step = self.inference.objective.step_function(
                obj_n_mc=ADVI_PARTICLES, obj_optimizer=pm.adam(learning_rate=self.rate), score=True
            )
        approx = self.inference.approx
        self.mu, self.rho = (approx.params_dict[name] for name in ("mu", "rho"))
        kept = {id(v) for v in (self.mu, self.rho, self.rate, *self.model.named_vars.values())}
        shared = [v for v in self.step.get_shared() if id(v) not in kept]
        self.generators = [v for v in shared if isinstance(v.get_value(borrow=True), np.random.Generator)]
        self.optimizer = [v for v in shared if not isinstance(v.get_value(borrow=True), np.random.Generator)]
        self.initial = [np.zeros_like(v.get_value()) for v in self.optimizer]

    def fit(self, posterior: LinearizedPosterior, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Mean, standard deviation and ELBO trace."""
        import pymc as pm

        with self.model:
            pm.set_data(posterior.swapped())
        p = posterior.tangent.shape[1]
        # from the Gaussian approximation, slightly off so that a fit that does nothing is visible
        self.mu.set_value(0.1 * rng.standard_normal(p))
        self.rho.set_value(np.full(p, np.log(np.expm1(1.1))))
        for variable, value in zip(self.optimizer, self.initial, strict=True):
            variable.set_value(value.copy())
        for variable in self.generators:
            variable.set_value(np.random.Generator(np.random.PCG64(rng.integers(2**63))))
        trace = np.empty(ADVI_STEPS)
        for step in range(ADVI_STEPS):
            self.rate.set_value(ADVI_RATE * 0.5 * (1 + np.cos(np.pi * step / ADVI_STEPS)) + 1e-4)
            trace[step] = float(self.step())
        return self.mu.get_value(), np.logaddexp(0.0, self.rho.get_value()), trace


@lru_cache(maxsize=8)
def _compiled_advi(n_directions: int, corrected: bool) -> _CompiledADVI:
    with aside(COMPILING):
        return _CompiledADVI(_dummy(n_directions, corrected))


@lru_cache(maxsize=8)
def _compiled_nuts(n_directions: int, corrected: bool) -> Any:
    import nutpie

    with aside(COMPILING), quiet_nutpie():
        return nutpie.compile_pymc_model(_dummy(n_directions, corrected).model(), freeze_model=False)


def _dummy(p: int, corrected: bool) -> LinearizedPosterior:
    """Two events in ``p`` directions: only shapes and types matter to the compiler."""
    return LinearizedPosterior(
        np.zeros((2, p)),
        np.zeros(2),
        np.array([0, 1]),
        np.ones(2),
        0.0,
        np.zeros(p),
        np.ones(p),
        Correction(np.zeros(p), np.zeros((p, p))) if corrected else None,
    )


def sample_advi(posterior: LinearizedPosterior, draws: int, rng: np.random.Generator) -> Draws:
    """Mean-field ADVI in whitened coordinates (Kucukelbir et al., arXiv:1603.00788).

    Adam with a decaying rate and 10 Monte-Carlo samples a step: PyMC's default optimiser with one sample
    widens posterior standard deviations by a tenth.
    """
    p = posterior.tangent.shape[1]
    padded = posterior.thinned(MAX_ROWS, rng).padded()
    mean, width, elbo = _compiled_advi(padded.tangent.shape[1], padded.correction is not None).fit(padded, rng)
    z = mean[:p] + width[:p] * rng.standard_normal((draws, p))
    return Draws(z, elbo=elbo)


def sample_nuts(posterior: LinearizedPosterior, draws: int, rng: np.random.Generator) -> Draws:
    """NUTS by nutpie, four chains that share the draws."""
    p = posterior.tangent.shape[1]
    padded = posterior.thinned(MAX_ROWS, rng).padded()
    compiled = _compiled_nuts(padded.tangent.shape[1], padded.correction is not None).with_data(**padded.swapped())
    found, stats = run_nuts(compiled, "z", -(-draws // CHAINS), rng)
    z = found[:, :, :p]
    return Draws(z.reshape(-1, p)[:draws], chains=CHAINS if draws % CHAINS == 0 else 1, sample_stats=stats)


def run_nuts(compiled: Any, name: str, per_chain: int, rng: np.random.Generator) -> tuple[Array, dict[str, Array]]:
    """Draws of one variable of a model that nutpie compiled, chain by chain, and what the sampler reports."""
    import nutpie

    with quiet_pymc():
        tree = nutpie.sample(
            compiled,
            draws=per_chain,
            tune=TUNE,
            chains=CHAINS,
            cores=1,
            seed=int(rng.integers(2**31)),
            progress_bar=False,
        )
    return np.asarray(tree["posterior"][name].values), sampler_stats(tree)


def sampler_stats(tree: Any) -> dict[str, Array]:
    """What NUTS reports of every draw, shape (chains, draws) each, with a warning of divergent transitions."""
    stats = {str(k): np.asarray(v.values) for k, v in tree["sample_stats"].data_vars.items() if v.ndim == 2}
    diverging = stats.get("diverging", np.zeros(0))
    if diverging.any():
        msg = f"NUTS reports {int(diverging.sum())} divergent transitions of {diverging.size}; trust the draws less."
        warnings.warn(msg, ConvergenceWarning, stacklevel=5)
    return stats


def sample_gaussian(posterior: LinearizedPosterior, draws: int, rng: np.random.Generator) -> Draws:
    """Draws of the Gaussian about the most probable weights, which is N(0, 1) in whitened coordinates."""
    return Draws(rng.standard_normal((draws, posterior.tangent.shape[1])))
