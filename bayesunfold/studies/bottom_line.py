"""Bottom-line test: unfolded bands must not separate two models better than the data do at detector level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from bayesunfold._support.checks import as_numbers
from bayesunfold._support.threads import block_threads, map_blocks, trees_on_one_thread
from bayesunfold.classifier.arithmetic import blocks
from bayesunfold.errors import InputError
from bayesunfold.events import with_factors_of_fakes
from bayesunfold.source_groups import grouped_draws
from bayesunfold.spectrum import Spectrum
from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["BottomLine", "bottom_line"]

Array = NDArray[np.floating]
Model = ArrayLike | Callable[[Array], ArrayLike]

TOLERANCE = 1.1
"""Ratio of separations that draws of finite number and moments that are not all of the data may reach."""

STATISTICAL = ("data", "simulation", "prior", "ratio", "generator")
"""Kinds of sources in the unfolded covariance: the detector level has no systematics and no backgrounds."""

ROUNDING = 1e-8
"""Differences of weights, in units of their mean, that are none."""

SMALLEST = 1e-8
"""Relative variance below which a combination of moments is not measured."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class BottomLine:
    """How well two models are separated, as the expected difference of their chi-squares.

    Attributes
    ----------
    unfolded : dict of str to float
        By particle-level feature: with the covariance of the unfolded spectrum, of its statistical sources and of
        priors. Systematics and backgrounds are in neither level: in one alone they would hide what the prior adds.
    detector : float
        Of the data at detector level.

    Examples
    --------
    >>> BottomLine({"pt": 12.0}, 14.0).passed, BottomLine({"pt": 20.0}, 14.0).passed
    (True, False)
    """

    unfolded: dict[str, float]
    detector: float

    @property
    def passed(self) -> bool:
        """Whether no spectrum separates them better than the data do."""
        return max(self.unfolded.values()) <= TOLERANCE * self.detector

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value:.1f}" for name, value in self.unfolded.items())
        verdict = "passed" if self.passed else "not passed: the bands hold more than the data, from the prior"
        return f"chi-square between the models: unfolded {parts}; at detector level {self.detector:.1f}; {verdict}"


def bottom_line(result: UnfoldingResult, model_a: Model, model_b: Model, bins: Mapping[str, ArrayLike]) -> BottomLine:
    """See :meth:`bayesunfold.UnfoldingResult.bottom_line`."""
    models = [_weights(result, model, name) for model, name in ((model_a, "model_a"), (model_b, "model_b"))]
    if np.allclose(models[0], models[1], atol=ROUNDING * np.abs(models[0]).mean()):
        msg = "model_a and model_b weigh all events alike; give two models that differ."
        raise InputError(msg)
    unfolded = {}
    for name, edges in bins.items():
        spectrum = _statistics_alone(result, result.spectrum(name, edges))
        rows = result.simulation.pass_gen
        column = result.simulation.gen_column(name)[rows]
        a, b = (np.histogram(column, spectrum.edges[0], weights=w[rows])[0] for w in models)
        unfolded[name] = replace(spectrum, nominal=a, sources={}).chi2(b).value
    if not unfolded:
        msg = "bins is empty; name a particle-level feature and its edges."
        raise InputError(msg)
    with block_threads():
        return BottomLine(unfolded, _detector_separation(result, *models))


def _statistics_alone(result: UnfoldingResult, spectrum: Spectrum) -> Spectrum:
    """The spectrum with members in which only the sources fluctuate that the detector level has too, and the priors."""
    kept = [source.name for source in result.members.perturbations.sources if source.kind in STATISTICAL]
    if len(kept) == len(spectrum.sources):
        return spectrum
    return replace(spectrum, draw_matrix=grouped_draws([spectrum.sources[name] for name in kept], spectrum.nominal))


def _weights(result: UnfoldingResult, model: Model, name: str) -> Array:
    """Expected events of a model, with the yield of the data's signal at detector level, shape (n,)."""
    sim = result.simulation
    factor: Array = np.full(len(sim), np.nan)
    if callable(model):
        factor[sim.pass_gen] = as_numbers(model(sim.gen[sim.pass_gen]), name).squeeze()
    else:
        factor = as_numbers(model, name).ravel()
    if factor.shape == (len(sim),):
        factor = with_factors_of_fakes(factor, sim)
    if factor.shape != (len(sim),) or not np.all(np.isfinite(factor[sim.used])) or np.any(factor[sim.used] < 0):
        msg = (
            f"{name} gives {factor.size} factors for {len(sim)} simulated events; it must give one per event, finite "
            "and not negative, on the generator weights."
        )
        raise InputError(msg)
    weight = np.where(sim.used, sim.weight * np.where(sim.used, factor, 0.0), 0.0)
    events = result.members.events
    return weight * (events.signal_yield / events.at_reco(weight)[sim.pass_reco].sum())


def _detector_separation(result: UnfoldingResult, a: Array, b: Array) -> float:
    """Chi-square between the refolded models, with the covariance that the data have at the answer.

    Of the tangent features of step 1, and of the models' own difference as a regression on the detector level has it.
    """
    events, step1 = result.members.events, result.measurement.step1
    rows = np.flatnonzero(events.passes.reco)
    w, x = result.nominal_reco[rows], events.reco[rows]
    u = events.data.weight
    variance = float((u**2).sum() / u.sum()) * np.abs(w) + w**2
    change = events.at_reco(a - b)[rows]
    learned = _regressed(x, change, variance)

    def one(part: slice) -> tuple[Array, Array, Array]:
        phi = np.column_stack([step1.tangent(x[part]).astype(np.float64), learned[part]])
        return phi.T @ (phi * variance[part, None]), phi.T @ variance[part], phi.T @ change[part]

    size = step1.basis.shape[1] + 1
    gram, mean, difference = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    for product, first, moved in map_blocks(one, blocks(len(rows))):
        gram, mean, difference = gram + product, mean + first, difference + moved
    covariance = gram - np.outer(mean, mean) / variance.sum()
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = values > SMALLEST
    return float(((vectors[:, kept].T @ (difference / scale)) ** 2 / values[kept]).sum())


def _regressed(x: Array, change: Array, variance: Array) -> Array:
    """Expected ratio of change to variance given the detector level, each half predicted from the other, shape (n,)."""
    used = variance > 0
    ratio = np.divide(change, variance, out=np.zeros(len(change)), where=used)
    out = np.zeros(len(x))
    for half in (0, 1):
        train = (np.arange(len(x)) % 2 == half) & used
        model = HistGradientBoostingRegressor(max_iter=60, random_state=0)
        with trees_on_one_thread():
            model.fit(x[train], ratio[train], sample_weight=variance[train])
            out[np.arange(len(x)) % 2 != half] = model.predict(x[np.arange(len(x)) % 2 != half])
    return out
