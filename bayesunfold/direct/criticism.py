"""Does the refolded answer look like the data? Two tests at detector level, with their null distributions.

The chi-square of the moments tests the moments that the fit saw. A second classifier of data and refolded simulation,
cross-fitted in halves, tests what they may have missed; where it finds a difference its tangent features join the
moments.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq
from scipy.stats import norm

from bayesunfold._support.checks import effective_size
from bayesunfold._support.threads import map_blocks, map_here, remote
from bayesunfold.classifier.arithmetic import Layout, blocks, forward, products
from bayesunfold.classifier.sums import MOST_KEPT, gradient_sum
from bayesunfold.classifier.training import fit_map
from bayesunfold.classifier.two_class import Classifier, Joined, TwoClass
from bayesunfold.direct.fakes import noise_covariance
from bayesunfold.direct.fit import Fit
from bayesunfold.direct.mode import Mode, Problem
from bayesunfold.direct.moments import LEAST_EVENTS, Moments
from bayesunfold.direct.precision import Evidence
from bayesunfold.direct.prior import ParameterPrior
from bayesunfold.omnifold.problems import step1_classes
from bayesunfold.reweighting.closure import auc_error, weighted_auc
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Criticism", "chi2_p_value", "chi2_tail", "criticise", "second_classifier"]

Array = NDArray[np.floating]


MOST_TRAINED = 20_000
"""Events of a half that its classifier is trained on."""

TEST_STEPS = 20
"""Most Gauss-Newton steps of these classifiers. The test holds whatever they have learned, and what later steps learn
is noise for the most part."""

SMALLEST = 1e-12
"""Variances of combinations of moments below this, relative to the largest, are rounding errors."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Criticism:
    """What tests at detector level say of an answer.

    Attributes
    ----------
    chi2 : float
        Of the moments at the answer.
    moments : int
    chi2_p_value : float
    auc, auc_std : float
        Of the second classifier on events that it was not trained on, and its standard deviation for equal samples. The
        refolded answer follows the fluctuations of the data, so values somewhat below one half are usual.
    p_value : float
        One-sided, of the part of the second classifier's score that the moments do not span.
    rounds : int
        How often tangent features of a second classifier joined the moments.
    """

    chi2: float
    moments: int
    chi2_p_value: float
    auc: float
    auc_std: float
    p_value: float
    rounds: int = 0

    def state(self) -> dict[str, float]:
        """All numbers, JSON-ready."""
        return {name: float(value) for name, value in asdict(self).items()}


def chi2_p_value(evidence: Evidence, mode: Mode, noise: Array) -> float:
    """p-value of the moments' chi-square at the mode.

    With the network's parameters integrated out the residual is ``C^-1 y``. Its square is a sum of chi-squares of one
    degree of freedom, each times an eigenvalue of ``C^-1 C' C^-1`` with the covariance ``C'`` of ``y``, equation (D9).

    Parameters
    ----------
    evidence : Evidence
    mode : Mode
    noise : array, shape (p, p)
        Covariance of the moments at a given network, from :func:`bayesunfold.direct.fakes.noise_covariance`; the fit
        takes it for one.
    """
    assumed = evidence.covariance(mode.tau)
    inverse = np.linalg.inv(assumed)
    scale = np.linalg.eigvalsh(inverse @ (assumed - np.eye(len(assumed)) + noise) @ inverse)
    return chi2_tail(mode.chi2, scale[scale > SMALLEST * scale[-1]])


def chi2_tail(value: float, scale: Array) -> float:
    """Probability that ``sum scale z^2`` exceeds a value, by the saddlepoint method.

    Parameters
    ----------
    value : float
    scale : array
        Positive.

    References
    ----------
    D. Kuonen, Biometrika 86 (1999) 929, doi:10.1093/biomet/86.4.929, equation 2.

    Examples
    --------
    >>> round(chi2_tail(3.84, np.ones(1)), 2), round(chi2_tail(18.3, np.ones(10)), 3)
    (0.05, 0.05)
    """
    mean = scale.sum()
    if value <= 0:
        return 1.0

    def slope(t: float) -> float:
        return float((scale / (1 - 2 * t * scale)).sum()) - value

    if abs(value - mean) < 1e-3 * np.sqrt(2 * (scale**2).sum()):
        third = 8 * (scale**3).sum() / (2 * (scale**2).sum()) ** 1.5  # the limit of the formula below
        return float(0.5 - third / (6 * np.sqrt(2 * np.pi)))
    t = brentq(slope, -0.5 * len(scale) / value, 0.5 / scale.max() * (1 - 1e-12))
    cumulant = -0.5 * np.log1p(-2 * t * scale).sum()
    w = np.sign(t) * np.sqrt(max(2 * (t * value - cumulant), 0.0))
    v = t * np.sqrt(2 * (scale**2 / (1 - 2 * t * scale) ** 2).sum())
    return float(norm.sf(w + np.log(v / w) / w))


def criticise(
    events: StandardizedEvents,
    layout: Layout,
    fit: Fit,
    push: Array,
    rng: np.random.Generator | None,
) -> Criticism:
    """Both tests; without the second classifier if there is no generator of its starts, or fewer than two data events.

    Parameters
    ----------
    events : StandardizedEvents
    layout : Layout
        Of the network at detector level.
    fit : Fit
    push : array, shape (n,)
        Push weights at the mode.
    rng : numpy.random.Generator, optional
        Halves of the events, and the second classifiers' starts.
    """
    problem, mode = fit.problem, fit.mode
    noise = noise_covariance(events, problem.moments, fit.setup.first)
    of_moments = mode.chi2, len(problem.moments), chi2_p_value(fit.evidence, mode, noise)
    if rng is None or len(events.data.x) < 2:  # a classifier needs data in both halves
        return Criticism(*of_moments, np.nan, np.nan, np.nan)
    halves = [_halves(len(events.data.x), rng), _halves(len(events), rng)]
    halves += [_halves(len(b.x), rng) for b in events.backgrounds]
    scores, labels, weights, deviations = [], [], [], []
    everything = step1_classes(events, push)
    for side in (False, True):
        trained = fit_map(layout, _thinned(_part(everything, halves, side)), rng, max_steps=TEST_STEPS)
        tested = _Sample.of(events, push, halves, not side)
        score = np.concatenate([forward(layout, trained.theta, x) for x in tested.x])
        deviations.append(_deviation(tested, score, problem, mode))
        scores.append(score)
        labels.append(tested.label)
        weights.append(tested.weight)
    score, label, weight = np.concatenate(scores), np.concatenate(labels), np.concatenate(weights)
    auc = weighted_auc(score, label, weight)
    error = auc_error(effective_size(weight[label == 0]), effective_size(weight[label == 1]))
    p_value = float(norm.sf(sum(deviations) / np.sqrt(2.0)))
    return Criticism(*of_moments, auc, error, p_value)


def second_classifier(events: StandardizedEvents, layout: Layout, push: Array, rng: np.random.Generator) -> Classifier:
    """A classifier of all data and the refolded simulation."""
    classes = step1_classes(events, push)
    fit = fit_map(layout, classes.joined(), rng)
    return Classifier("the second classifier", layout, fit.theta, classes, fit.objective, fit.decrement)


@dataclass(frozen=True)
class _Sample:
    """One half of the events at detector level: data, signal, backgrounds, with the simulated events' rows.

    Attributes
    ----------
    x : list of array
    weight : array, shape (m,)
        In data events, all together.
    label : int array, shape (m,)
        1 for data.
    signal : slice
        Where the signal is.
    gen : array
        Standardised particle level of the signal's events that pass gen.
    in_gen : boolean array
        Which of the signal's events pass gen.
    """

    x: list[Array]
    weight: Array
    label: NDArray[np.integer]
    signal: slice
    gen: Array
    in_gen: NDArray[np.bool_]

    @classmethod
    def of(cls, events: StandardizedEvents, push: Array, halves: list[NDArray[np.bool_]], side: bool) -> _Sample:
        """The half on one side of the split; simulation and backgrounds scaled to half of their yields."""
        data = halves[0] == side
        rows = (halves[1] == side) & events.passes.reco
        w = (events.reco_weight * push)[rows]
        share = events.data.weight[data].sum() / events.data.weight.sum()
        parts = [events.data.weight[data], w * (share * events.signal_yield / w.sum())]
        x = [events.data.x[data], events.reco[rows]]
        for b, half in zip(events.backgrounds, halves[2:], strict=True):
            chosen = half == side
            x.append(b.x[chosen])
            parts.append(b.weight[chosen] * (share * b.weight.sum() / b.weight[chosen].sum()))
        sizes = [len(part) for part in parts]
        label = np.repeat([1, *[0] * (len(parts) - 1)], sizes)
        in_gen = events.passes.gen[rows]
        signal = slice(sizes[0], sizes[0] + sizes[1])
        return cls(x, np.concatenate(parts), label, signal, events.gen[rows][in_gen], in_gen)


def _halves(n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which half each event is in."""
    side = np.arange(n) % 2 == 0
    return rng.permutation(side)


def _part(classes: TwoClass, halves: list[NDArray[np.bool_]], side: bool) -> Joined:
    """The classes of one half of the events."""
    names = ["data", "simulation", *(s.name for s in classes.samples if s.name not in ("data", "simulation"))]
    chosen = dict(zip(names, halves, strict=True))
    samples = []
    for sample in classes.samples:
        rows = chosen[sample.name] == side
        used = None if sample.used is None else sample.used[rows]
        samples.append(replace(sample, x=sample.x[rows], ones=sample.ones[rows], zeros=sample.zeros[rows], used=used))
    return replace(classes, samples=tuple(samples)).joined()


def _thinned(classes: Joined) -> Joined:
    """Evenly spaced events, which keep their weights; a classifier of fewer events sees less, and its test holds."""
    if len(classes.x) <= MOST_TRAINED:
        return classes
    rows = np.linspace(0, len(classes.x) - 1, MOST_TRAINED).astype(int)
    return Joined(classes.x[rows], classes.ones[rows], classes.zeros[rows], classes.offset)


def _deviation(tested: _Sample, score: Array, problem: Problem, mode: Mode) -> float:
    """Difference of a score between data and refolded simulation, in standard deviations, equation (D10).

    The part that the moments span is taken out first. What remains has the statistics of both samples, and the
    posterior of the network: that of the moments with one more in the linear model.
    """
    refolded = tested.label == 0
    w = np.where(refolded, tested.weight, 0.0)
    rest = _beyond_moments(problem.moments, np.concatenate(tested.x), np.abs(w), score)
    limit = np.sqrt((tested.weight**2) @ rest**2 / LEAST_EVENTS)
    rest = np.clip(rest, -limit, limit)  # as the moments' features
    sign = np.where(refolded, -1.0, 1.0)
    difference = float((sign * tested.weight) @ rest)
    noise = float((tested.weight**2) @ rest**2)
    signal, weight = rest[tested.signal][tested.in_gen], tested.weight[tested.signal][tested.in_gen]
    pair = np.column_stack([weight * signal, weight])
    change, mean = gradient_sum(problem.layout, mode.theta, tested.gen, pair, 2)
    change -= mean * (weight @ signal) / weight.sum()
    variance = noise + _posterior_variance(change, problem, mode)
    return difference / np.sqrt(variance) if variance > 0 else 0.0


def _beyond_moments(moments: Moments, x: Array, weight: Array, score: Array) -> Array:
    """What a constant and the moments' features do not span of a score, by weighted least squares, shape (n,)."""
    kept: Array | None = None
    if remote.get() is None and len(x) * len(moments) * x.dtype.itemsize <= MOST_KEPT:
        kept = np.concatenate(list(map_here(lambda rows: moments.features(x[rows]), blocks(len(x)))))

    def features(rows: slice) -> Array:
        phi = moments.features(x[rows]) if kept is None else kept[rows]
        return np.column_stack([phi, np.ones(len(phi))])  # in double precision

    def sums(rows: slice) -> tuple[Array, Array]:
        phi, w = features(rows), weight[rows]
        return products(phi, w), phi.T @ (w * score[rows])

    gram, right = np.zeros((len(moments) + 1,) * 2), np.zeros(len(moments) + 1)
    for part, product in map_blocks(sums, (rows for rows in blocks(len(x)) if weight[rows].any())):
        gram += part
        right += product
    gram.flat[:: len(gram) + 1] += 1e-9 * np.trace(gram) / len(gram)
    found = np.linalg.solve(gram, right)
    return score - np.concatenate(list(map_blocks(lambda rows: features(rows) @ found, blocks(len(x)))))


def _posterior_variance(change: Array, problem: Problem, mode: Mode) -> float:
    """``b' H^-1 b`` of a linear function of the network's parameters."""
    prior, a = ParameterPrior(problem.precisions(mode.tau), mode.free), mode.derivative
    scaled = prior.spread(change)
    inner = a @ prior.spread(a.T) + np.eye(len(a)) + mode.columns @ mode.correlation @ mode.columns.T
    seen = a @ scaled
    return float(change @ scaled - seen @ cho_solve(cho_factor(inner, lower=True), seen))
