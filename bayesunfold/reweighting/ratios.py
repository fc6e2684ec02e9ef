"""Three ways to a density ratio target / source: known densities, histograms, classifiers.

Each returns log ratios that are not normalised yet; :class:`bayesunfold.Reweighter` does that, draw by draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from bayesunfold._support.checks import as_numbers, check_bins, effective_size
from bayesunfold.binning import bin_index
from bayesunfold.classifier.estimator import BayesianClassifier
from bayesunfold.classifier.network import Network
from bayesunfold.errors import InputError, InputTypeError, OverlapWarning
from bayesunfold.reweighting._samples import event_hash

__all__ = ["AnalyticRatio", "BinnedRatio", "ClassifierRatio", "default_classifier"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


class AnalyticRatio:
    """Ratio of two known densities.

    Parameters
    ----------
    source, target : callable, scipy or PyMC distribution
        Density of events (n, d): a callable that returns densities, a frozen ``scipy.stats`` distribution, or
        a PyMC distribution from ``.dist(...)``.
    draws : int
        Identical "draws": a known density has no posterior.
    """

    def __init__(self, source: Any, target: Any, draws: int) -> None:
        self.source, self.target, self.draws = _log_density(source), _log_density(target), draws

    def log_ratio(self, x: Array) -> Array:
        """Difference of log densities."""
        top, bottom = self.target(x), self.source(x)
        if np.any(np.isneginf(bottom)):
            bad = int(np.isneginf(bottom).sum())
            msg = f"the source density is zero in {bad} events (first at row {int(np.argmax(np.isneginf(bottom)))})."
            raise InputError(msg)
        return top - bottom

    def log_ratio_draws(self, x: Array) -> Array:
        """The same row ``draws`` times."""
        return np.broadcast_to(self.log_ratio(x), (self.draws, len(x)))


def _log_density(density: Any) -> Callable[[Array], Array]:
    """Log density of events as a function."""

    def squeeze(x: Array) -> Array:
        return x[:, 0] if x.shape[1] == 1 else x

    if hasattr(density, "logpdf"):
        return lambda x: np.asarray(density.logpdf(squeeze(x)), dtype=np.float64).reshape(len(x))
    if hasattr(density, "owner"):

        def from_pymc(x: Array) -> Array:
            import pymc as pm

            values = np.asarray(pm.logp(density, squeeze(x)).eval(), dtype=np.float64)
            return values.reshape(len(x)) if values.size == len(x) else values.sum(axis=-1)

        return from_pymc
    if not callable(density):
        msg = f"a density has type {type(density).__name__}; pass a callable, a scipy.stats or a PyMC distribution."
        raise InputTypeError(msg)

    def from_callable(x: Array) -> Array:
        values = as_numbers(density(squeeze(x)), "what the density returned")
        if values.shape != (len(x),):
            msg = f"the density returned shape {values.shape} for {len(x)} events; it must return one value each."
            raise InputError(msg)
        if np.any(np.isnan(values)) or np.any(values < 0):
            bad = int((np.isnan(values) | (values < 0)).sum())
            msg = f"the density is negative or NaN in {bad} events; it must be zero or positive."
            raise InputError(msg)
        with np.errstate(divide="ignore"):
            return np.log(values)

    return from_callable


class BinnedRatio:
    """Ratio of two histograms with a Gamma posterior per bin.

    A bin's content is Gamma distributed with shape ``n_eff + 1/2`` (Jeffreys), ``n_eff`` the bin's Kish effective
    count, scaled to its weight sum. Neighbouring bins, in order, are merged until both samples have ``least`` effective
    events; events outside the bins belong to the nearest ones. ``merged`` and ``outside`` report both.
    """

    def __init__(
        self,
        source: Array,
        target: Array,
        source_weight: Array,
        target_weight: Array,
        bins: Any,
        draws: int,
        rng: np.random.Generator,
        least: float = 5.0,
    ) -> None:
        self.edges = _bin_edges(source, source_weight, bins)
        self.shape = tuple(len(e) - 1 for e in self.edges)
        n = int(np.prod(self.shape))
        sums: list[tuple[Array, Array]] = []
        for x, w in ((source, source_weight), (target, target_weight)):
            index = self._index(x)
            sums.append((np.bincount(index, w, n), np.bincount(index, w**2, n)))
        self.outside = [float(np.mean(self._outside(x))) for x in (source, target)]
        _check_outside(self.outside)
        self.group = _merge(sums, least)
        self.merged = n - int(self.group.max()) - 1
        totals = [(np.bincount(self.group, s), np.bincount(self.group, q)) for s, q in sums]
        drawn = []
        for weight, square in totals:
            size = np.maximum(weight, 0.0) ** 2 / np.maximum(square, 1e-300)
            scale = np.where(size > 0, weight / np.maximum(size, 1e-300), square.sum() / weight.sum())
            drawn.append((size + 0.5, scale))
        (a0, s0), (a1, s1) = drawn
        self._best = np.log(a1 * s1) - np.log(a0 * s0)
        shape = (draws, len(a0))
        ones, zeros = np.log(rng.gamma(a1, size=shape) * s1), np.log(rng.gamma(a0, size=shape) * s0)
        self._draws = ones - zeros
        self._source_draws = zeros - np.log(a0 * s0)

    def _index(self, x: Array) -> NDArray[np.integer]:
        inside = [np.clip(x[:, j], e[0], np.nextafter(e[-1], -np.inf)) for j, e in enumerate(self.edges)]
        return bin_index(inside, self.edges, np.ones(len(x), dtype=bool))

    def _outside(self, x: Array) -> NDArray[np.bool_]:
        return np.any([(x[:, j] < e[0]) | (x[:, j] >= e[-1]) for j, e in enumerate(self.edges)], axis=0)

    def log_ratio(self, x: Array) -> Array:
        """Log of the ratio of posterior means."""
        return self._best[self.group[self._index(x)]]

    def log_ratio_draws(self, x: Array) -> Array:
        """Draws of both Gammas."""
        return self._draws[:, self.group[self._index(x)]]

    def log_source_draws(self, x: Array) -> Array:
        """Log factors that turn the source's contents into those of each draw."""
        return self._source_draws[:, self.group[self._index(x)]]


def _check_outside(outside: list[float]) -> None:
    """Events outside the bins belong to the nearest ones, which must be few."""
    for share, what in zip(outside, ("source", "target"), strict=True):
        if share == 1.0:
            msg = f"no event of the {what} lies in the bins; give bins that hold the events."
            raise InputError(msg)
        if share > 0.05:
            msg = (
                f"{100 * share:.1f} % of the {what} lie outside the bins and count in the nearest ones; widen the "
                "first or last bin."
            )
            warnings.warn(msg, OverlapWarning, stacklevel=6)


def _bin_edges(source: Array, weight: Array, bins: Any) -> tuple[Array, ...]:
    """Edges per feature: given, or quantiles of the source for a number of bins."""
    d = source.shape[1]
    if isinstance(bins, int | np.integer):
        quantiles = []
        for j in range(d):
            order = np.argsort(source[:, j])
            share = np.cumsum(np.abs(weight[order]))
            cuts = np.searchsorted(share, np.linspace(0, 1, int(bins) + 1)[1:-1] * share[-1])
            low, high = source[order[0], j], np.nextafter(source[order[-1], j], np.inf)
            quantiles.append(np.unique(np.r_[low, source[order[np.minimum(cuts, len(order) - 1)], j], high]))
        return tuple(quantiles)
    if d == 1 and all(np.isscalar(e) for e in bins):
        return (check_bins(bins),)
    if len(bins) != d:
        msg = f"{d} features but {len(bins)} sets of bin edges; give one set per feature."
        raise InputError(msg)
    return tuple(check_bins(e, f"bins of feature {j}") for j, e in enumerate(bins))


def _merge(sums: list[tuple[Array, Array]], least: float) -> NDArray[np.integer]:
    """Group of each bin, merging in order until both samples have enough effective events."""
    n = len(sums[0][0])
    group, current = np.zeros(n, dtype=np.int64), 0
    running = np.zeros((2, 2))
    for b in range(n):
        group[b] = current
        running += np.array([[s[b], q[b]] for s, q in sums])
        size = np.where(running[:, 0] > 0, running[:, 0] ** 2 / np.maximum(running[:, 1], 1e-300), 0.0)
        if np.all(size >= least) and b < n - 1:
            current, running = current + 1, np.zeros((2, 2))
    size = np.where(running[:, 0] > 0, running[:, 0] ** 2 / np.maximum(running[:, 1], 1e-300), 0.0)
    if current and not np.all(size >= least):
        group[group == current] = current - 1
    return group


def default_classifier(draws: int, seed: int) -> BayesianClassifier:
    """One hidden layer of smooth units with prior scales from the evidence."""
    network = Network(hidden=(32,), activation="softplus", prior_scale="evidence")
    return BayesianClassifier(network, "laplace", draws=draws, random_state=seed)


class ClassifierRatio:
    """Ratio from classifiers trained on folds of the events (CARL).

    Events that were trained on get the classifier that has not seen them, all others the average over folds, as do
    events whose features occur in several folds. Folds follow the event: a hash of its features, or numbers that the
    user gives.

    References
    ----------
    K. Cranmer, J. Pavez, G. Louppe, arXiv:1506.02169, eq. 3.8; (R1) of ``docs/ratios.md``.
    """

    def __init__(
        self,
        classifier: Any,
        x: Array,
        y: NDArray[np.integer],
        weight: Array,
        fold: NDArray[np.integer],
        draws: int,
        rng: np.random.Generator,
        bootstraps: int,
    ) -> None:
        n_folds = int(fold.max()) + 1
        bayesian = isinstance(classifier, BayesianClassifier)
        # the Bayesian bootstrap: Exp(1) weights (Rubin 1981, doi:10.1214/aos/1176345338), of an event the same in all
        # trainings that it is in, made again for each of them
        seeds = rng.integers(2**63, size=0 if bayesian else bootstraps)
        keys = event_hash(x)
        order = np.argsort(keys, kind="stable")
        self._keys, places = np.unique(keys[order], return_index=True)
        ordered = fold[order]
        lowest, highest = np.minimum.reduceat(ordered, places), np.maximum.reduceat(ordered, places)
        # features that occur in several folds: every classifier has seen them
        self._fold = np.where(lowest == highest, highest, -1)
        self.models: list[Any] = []
        self.draws = draws
        self._replicas: list[list[Any]] = []
        for k in range(n_folds):
            rows = fold != k if n_folds > 1 else np.ones(len(x), dtype=bool)
            for c in (0, 1):
                total = weight[rows & (y == c)].sum()
                if total <= 0:
                    msg = f"fold {k} leaves class {c} with total weight {total:g}; use fewer folds or more events."
                    raise InputError(msg)
            model = _seeded(clone(classifier), rng)
            _check_classifier(model)
            self.models.append(_fit(model, x[rows], y[rows], weight[rows]))
            replicas = []
            for seed in seeds:
                g = np.random.default_rng(seed).standard_exponential(len(x))[rows]
                replica = _seeded(clone(classifier), rng)
                replicas.append(_fit(replica, x[rows], y[rows], weight[rows] * g))
            self._replicas.append(replicas)
        self.common: Any = None
        if n_folds > 2 and bayesian:
            self.common = _fit(_seeded(clone(classifier), rng), x, y, weight)

    def _fold_of(self, x: Array) -> NDArray[np.integer]:
        """Fold of events that were trained on, -1 for others."""
        keys = event_hash(x)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._fold[place], -1)

    def trained_share(self, x: Array) -> float:
        """Share of events that the only classifier was trained on; zero with several folds."""
        if len(self.models) > 1:
            return 0.0
        return float(np.mean(np.isin(event_hash(x), self._keys)))

    def log_ratio(self, x: Array) -> Array:
        """Out of fold for training events, averaged over folds for others."""
        return self._combined(x, lambda k, part: self.models[k].log_ratio(part)[None])[0]

    def log_ratio_draws(self, x: Array) -> Array:
        """Draws of every fold, averaged draw by draw for events that no fold saw.

        Trainings of more than two folds share events, so their fluctuations are nearly the same ones and must not
        average out: all folds then have the deviations of one classifier that is trained on all events.
        """
        if self.common is None:
            return self._combined(x, self._draws_of)
        deviation = self.common.log_ratio_draws(x) - self.common.log_ratio(x)
        return self.log_ratio(x) + np.where(self._fold_of(x) < 0, 1.0, self.fewer_events) * deviation

    @property
    def fewer_events(self) -> float:
        """How much wider the deviations of one fold's training are than those of a training on all events."""
        folds = len(self.models)
        return float(np.sqrt(folds / (folds - 1)))

    def _draws_of(self, k: int, x: Array) -> Array:
        model = self.models[k]
        if isinstance(model, BayesianClassifier):
            return model.log_ratio_draws(x)
        found = np.stack([m.log_ratio(x) for m in self._replicas[k]])
        # fewer replicas than draws: each stands for several
        return found[np.arange(self.draws) % len(found)]

    def _combined(self, x: Array, evaluate: Callable[[int, Array], Array]) -> Array:
        fold = self._fold_of(x)
        out: Array | None = None
        new = fold < 0
        for k in range(len(self.models)):
            rows = new | (fold == k)
            if not rows.any():
                continue
            values = evaluate(k, x[rows])
            if out is None:
                out = np.zeros((len(values), len(x)))
            out[:, rows] += np.where(new[rows], values / len(self.models), values)
        return np.zeros((1, 0)) if out is None else out


def _check_classifier(model: Any) -> None:
    name = type(model).__name__
    if not hasattr(model, "predict_proba"):
        msg = f"{name} has no predict_proba, so its output is no ratio; wrap it in CalibratedClassifierCV."
        raise InputTypeError(msg)
    if not has_fit_parameter(model, "sample_weight"):
        msg = f"{name} takes no sample_weight, which event weights need; use a classifier that does."
        raise InputTypeError(msg)


def _seeded(classifier: Any, rng: np.random.Generator) -> Any:
    if "random_state" in classifier.get_params():
        classifier.set_params(random_state=int(rng.integers(2**31 - 1)))
    return classifier


@dataclass(frozen=True)
class _LogOdds:
    """A classifier of another package as a ratio: its log odds less those of the classes' sizes in training."""

    classifier: Any
    size: float

    def log_ratio(self, x: Array) -> Array:
        p = np.asarray(self.classifier.predict_proba(x), dtype=np.float64)[:, 1]
        with np.errstate(divide="ignore"):
            return np.log(p) - np.log1p(-p) - self.size


def _fit(classifier: Any, x: Array, y: NDArray[np.integer], weight: Array) -> Any:
    """Fit with each class at its effective size; the result has ``log_ratio``."""
    sizes = np.array([effective_size(weight[y == c]) for c in (0, 1)])
    totals = np.array([weight[y == c].sum() for c in (0, 1)])
    fitted = classifier.fit(x, y, sample_weight=weight * (sizes / totals)[y])
    if isinstance(fitted, BayesianClassifier):
        return fitted
    return _LogOdds(fitted, float(np.log(sizes[1] / sizes[0])))
