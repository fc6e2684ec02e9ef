"""Parametrised likelihood ratios: one network for all parameter points, and inference with it.

A classifier tells events at their own parameters from events at parameters drawn from the same training points but
of other events; its log ratio is ``log p(x | theta) - log p(x)``, whose difference between two parameter points
is the log likelihood ratio (Cranmer, Pavez, Louppe, arXiv:1506.02169; Hermans, Begy, Louppe, arXiv:1903.04057, eq. 4;
equations (R9) to (R11) of ``docs/ratios.md``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from bayesunfold._support.checks import (
    as_features,
    as_numbers,
    as_weight,
    check_count,
    check_finite,
    check_level,
    check_seed,
)
from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.estimator import BayesianClassifier
from bayesunfold.classifier.network import Network
from bayesunfold.errors import InputError, InputTypeError, OverlapWarning
from bayesunfold.reweighting._samples import read_events
from bayesunfold.reweighting.parameter_sets import ConfidenceSet, ExpectedCoverage, Scan

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

__all__ = ["LikelihoodRatio"]

Array = NDArray[np.floating]
Simulate = Callable[[Array, int, np.random.Generator], ArrayLike]


def __dir__() -> list[str]:
    return __all__


class LikelihoodRatio:
    """Likelihood ratio of events as a function of parameters, with its posterior.

    Parameters
    ----------
    parameters : sequence of str
        Names.
    classifier : BayesianClassifier, optional
        Sees features and parameters; two smooth hidden layers with learned prior scales if omitted.
    draws : int
    random_state : int

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> theta = rng.uniform(-1, 1, 1000)
    >>> ratio = bu.LikelihoodRatio(["mu"], draws=50).fit(rng.normal(theta, 1), theta)
    >>> data = rng.normal(0.5, 1, 200)
    >>> bool(ratio.log_lambda(data, [0.5], [-0.5]) > 0)
    True
    """

    def __init__(
        self,
        parameters: Sequence[str],
        *,
        classifier: BayesianClassifier | None = None,
        draws: int = 200,
        random_state: int = 0,
    ) -> None:
        given: object = parameters
        if (
            not isinstance(given, Sequence)
            or isinstance(given, str)
            or len(parameters) == 0
            or len(set(parameters)) != len(parameters)
        ):
            msg = f"parameters is {parameters!r}; give a list of different names."
            raise InputError(msg)
        self.parameters = tuple(parameters)
        if classifier is not None and not all(hasattr(classifier, m) for m in ("fit", "log_ratio", "log_ratio_draws")):
            msg = f"classifier is {classifier!r}; pass a bayesunfold.BayesianClassifier."
            raise InputTypeError(msg)
        self.classifier = classifier
        self.draws = check_count(draws, "draws", 2)
        self.random_state = check_seed(random_state, "random_state")

    def fit(self, x: ArrayLike, theta: ArrayLike, weight: ArrayLike | None = None) -> LikelihoodRatio:
        """Train on simulated events at many parameter points.

        Parameters
        ----------
        x : array, shape (n,) or (n, d)
            Features.
        theta : array, shape (n,) or (n, parameters)
            The parameters at which each event was simulated. Few distinct points interpolate badly: use many.
        weight : array, shape (n,), optional
            They may depend on the parameters, as cross sections do: the ratio is that of normalised densities.

        Raises
        ------
        InputError
            Lengths or numbers of parameters that disagree, NaN, a parameter that never varies.
        """
        features, self._names = as_features(x, "x")
        points = self._points(theta)
        if len(points) != len(features):
            msg = f"x has {len(features)} events and theta {len(points)} points; each event needs its own."
            raise InputError(msg)
        check_finite(features, None, "x", tuple(map(str, range(features.shape[1]))), "repair or remove them.")
        self.low, self.high = points.min(axis=0), points.max(axis=0)
        same = np.flatnonzero(self.low == self.high)
        if len(same):
            msg = f"{[self.parameters[j] for j in same]} never vary; simulate at several values."
            raise InputError(msg)
        w = as_weight(weight, len(features), "weight")
        rng = np.random.default_rng(self.random_state)
        order = rng.permutation(len(points))
        joint = np.concatenate([np.column_stack([features, points[order]]), np.column_stack([features, points])])
        # (R9): x and theta apart have the product of their own densities, each with its weights
        apart = w * w[order]
        apart *= w.sum() / apart.sum()
        label = np.repeat([0, 1], len(features))
        classifier = self.classifier or BayesianClassifier(
            Network(hidden=(24, 24), activation="softplus", prior_scale="evidence"),
            "laplace",
            draws=self.draws,
            random_state=self.random_state,
        )
        with block_threads():
            self.classifier_ = clone(classifier).fit(joint, label, sample_weight=np.concatenate([apart, w]))
        self.n_features_ = features.shape[1]
        return self

    def _points(self, theta: ArrayLike) -> Array:
        points = as_numbers(theta, "theta")
        points = points[:, None] if points.ndim == 1 and len(self.parameters) == 1 else np.atleast_2d(points)
        if points.size == 0:
            msg = f"theta is empty; give at least one point of {', '.join(self.parameters)}."
            raise InputError(msg)
        if points.ndim != 2 or points.shape[1] != len(self.parameters) or not np.all(np.isfinite(points)):
            msg = f"theta has shape {points.shape}; it must hold finite values of {', '.join(self.parameters)}."
            raise InputError(msg)
        return points

    def _one_point(self, theta: ArrayLike) -> Array:
        points = self._points(theta)
        if len(points) != 1:
            msg = f"theta holds {len(points)} points of {len(self.parameters)} parameters; give one point."
            raise InputError(msg)
        return points

    def _check_fitted(self) -> None:
        if not hasattr(self, "classifier_"):
            msg = "this LikelihoodRatio is not fitted; call fit(x, theta) first."
            raise InputError(msg)

    def _check_range(self, points: Array, extrapolate: str) -> None:
        self._check_fitted()
        if extrapolate not in ("warn", "error"):
            msg = f"extrapolate is {extrapolate!r}; it must be 'warn' or 'error'."
            raise InputError(msg)
        outside = np.flatnonzero(((points < self.low) | (points > self.high)).any(axis=0))
        if len(outside) == 0:
            return
        ranges = ", ".join(f"{self.parameters[j]} in [{self.low[j]:.4g}, {self.high[j]:.4g}]" for j in outside)
        msg = f"theta lies outside the range of the training: {ranges}. The network extrapolates there."
        if extrapolate == "error":
            raise InputError(msg)
        warnings.warn(msg, OverlapWarning, stacklevel=4)

    def _events(self, data: ArrayLike) -> Array:
        self._check_fitted()
        return read_events(data, "data", self._names, self.n_features_)

    def log_ratio(self, x: ArrayLike, theta: ArrayLike, *, extrapolate: str = "warn") -> Array:
        """``log p(x | theta) - log p(x)`` of every event at one parameter point, shape (n,)."""
        points = self._one_point(theta)
        self._check_range(points, extrapolate)
        features = self._events(x)
        return self.classifier_.log_ratio(
            np.column_stack([features, np.broadcast_to(points[0], (len(features), points.shape[1]))])
        )

    def log_lambda(self, data: ArrayLike, theta0: ArrayLike, theta1: ArrayLike, *, extrapolate: str = "warn") -> float:
        """``sum log p(x | theta0) / p(x | theta1)`` over the data (R10), point estimate."""
        return float(
            np.sum(self.log_ratio(data, theta0, extrapolate=extrapolate))
            - np.sum(self.log_ratio(data, theta1, extrapolate=extrapolate))
        )

    def log_lambda_draws(self, data: ArrayLike, theta0: ArrayLike, theta1: ArrayLike) -> Array:
        """Posterior draws of :meth:`log_lambda`, shape (draws,)."""
        totals = []
        for theta in (theta0, theta1):
            points = self._one_point(theta)
            self._check_range(points, "warn")
            totals.append(self._total_draws(self._events(data), points[0]))
        return totals[0] - totals[1]

    def _total_draws(self, features: Array, point: Array) -> Array:
        x = np.column_stack([features, np.broadcast_to(point, (len(features), len(point)))])
        total: Array = np.zeros(1)
        for start in range(0, len(x), 8192):
            total = total + self.classifier_.log_ratio_draws(x[start : start + 8192]).sum(axis=1)
        return total

    def scan(
        self,
        data: ArrayLike,
        theta: ArrayLike,
        *,
        expected: Callable[[Array], float] | None = None,
        extrapolate: str = "warn",
    ) -> Scan:
        """Log likelihood over a list of parameter points.

        Parameters
        ----------
        data : array, shape (n,) or (n, d)
        theta : array, shape (points,) or (points, parameters)
        expected : callable, optional
            Expected number of events at a point: the extended likelihood then includes the Poisson term.
        """
        points = self._points(theta)
        self._check_range(points, extrapolate)
        features = self._events(data)
        n = len(features)
        with block_threads():
            best = np.array([np.sum(self.log_ratio(features, p[None])) for p in points])
            draws = np.stack([self._total_draws(features, p) for p in points], axis=1)
        if expected is not None:
            poisson = _poisson(n, _counts(points, expected))
            best, draws = best + poisson, draws + poisson
        return Scan(points, best - best.max(), draws - draws.max(axis=1, keepdims=True), points[int(np.argmax(best))])

    def confidence_set(
        self,
        data: ArrayLike,
        theta: ArrayLike,
        level: float = 0.68,
        *,
        simulate: Simulate | None = None,
        expected: Callable[[Array], float] | None = None,
        toys: int = 200,
        random_state: int = 0,
    ) -> ConfidenceSet:
        """Points whose ``-2 log lambda`` against the best point is below its quantile.

        Parameters
        ----------
        theta : array, shape (points, parameters)
        level : float
        simulate : callable, optional
            ``simulate(theta, n, rng)`` returns n events: the quantile is then taken from toys at every point (Neyman
            construction), which covers whatever the network learned. Without it from the chi-square (Wilks).
        expected : callable, optional
            Expected number of events at a point: the extended likelihood, whose toys have Poisson counts.
        toys : int
        """
        check_level(level)
        check_count(toys, "toys", 2)
        points = self._points(theta)
        self._check_range(points, "warn")
        features = self._events(data)
        counts = None if expected is None else _counts(points, expected)
        statistic = self._statistic(features, points, counts)
        if simulate is None:
            threshold = np.full(len(points), stats.chi2.ppf(level, len(self.parameters)))
        else:
            rng = np.random.default_rng(random_state)
            threshold = np.empty(len(points))
            for k in range(len(points)):
                found = self._toys(k, points, counts, len(features), simulate, toys, rng)
                threshold[k] = np.quantile(found, level)
        return ConfidenceSet(points, statistic <= threshold, statistic, threshold, level)

    def expected_coverage(
        self,
        simulate: Simulate,
        truths: ArrayLike,
        theta: ArrayLike,
        n: int | None = None,
        level: float = 0.68,
        *,
        expected: Callable[[Array], float] | None = None,
        toys: int = 200,
        random_state: int = 0,
    ) -> ExpectedCoverage:
        """How often the confidence set of Wilks holds the true parameters, from toys.

        Parameters
        ----------
        simulate : callable
            ``simulate(theta, n, rng)`` returns n events.
        truths : array, shape (truths, parameters)
            Points at which toys are made.
        theta : array, shape (points, parameters)
            Points among which the best is searched, as in :meth:`confidence_set`.
        n : int, optional
            Events in each toy; not needed with ``expected``.
        expected : callable, optional
            Expected number of events at a point: the extended likelihood, whose toys have Poisson counts.

        Returns
        -------
        ExpectedCoverage
        """
        from bayesunfold._support.statistics import clopper_pearson

        check_level(level)
        check_count(toys, "toys", 2)
        if (n is None) == (expected is None):
            msg = "give either n, the events of each toy, or expected=, from which it is drawn."
            raise InputError(msg)
        targets, grid = self._points(truths), self._points(theta)
        self._check_range(np.concatenate([targets, grid]), "warn")
        rng = np.random.default_rng(random_state)
        limit = stats.chi2.ppf(level, len(self.parameters))
        covered = []
        for target in targets:
            points = np.concatenate([target[None], grid])
            counts = None if expected is None else _counts(points, expected)
            found = self._toys(0, points, counts, n or 0, simulate, toys, rng)
            covered.append(int(np.sum(found <= limit)))
        lower, upper = clopper_pearson(covered, toys)
        return ExpectedCoverage(targets, np.array(covered) / toys, lower, upper, level)

    def _toys(
        self,
        k: int,
        points: Array,
        counts: Array | None,
        n: int,
        simulate: Simulate,
        toys: int,
        rng: np.random.Generator,
    ) -> Array:
        """The statistic of point ``k`` in toys made there."""
        found = np.empty(toys)
        for t in range(toys):
            size = n if counts is None else int(rng.poisson(counts[k]))
            events = self._events(simulate(points[k], size, rng)) if size else np.zeros((0, self.n_features_))
            found[t] = self._statistic(events, points, counts)[k]
        return found

    def _statistic(self, features: Array, points: Array, counts: Array | None = None) -> Array:
        """``-2 log lambda`` of every point against the best of them, left-hand side of (R11)."""
        n, k = len(features), len(points)
        x = np.column_stack([np.tile(features, (k, 1)), np.repeat(points, n, axis=0)])
        totals = self.classifier_.log_ratio(x).reshape(k, n).sum(axis=1) if n else np.zeros(k)
        if counts is not None:
            totals = totals + _poisson(n, counts)
        return 2.0 * (totals.max() - totals)

    def model(
        self,
        data: ArrayLike,
        log_prior: Callable[[Any], Any] | None = None,
        expected: Callable[[Any], Any] | None = None,
    ) -> pm.Model:
        """The PyMC model of the parameters, to look at or to extend.

        Parameters
        ----------
        data : array, shape (n,) or (n, d)
        log_prior : callable, optional
            Log density of the vector of parameters, up to a constant; uniform over the training's range if omitted. It
            gets a PyTensor vector, on which arithmetic and NumPy functions work.
        expected : callable, optional
            Expected number of events, likewise: the extended likelihood.
        """
        from bayesunfold.reweighting.parameter_model import parameter_model

        return parameter_model(
            self.classifier_, self._events(data), self.parameters, self.low, self.high, log_prior, expected
        )

    def posterior(
        self,
        data: ArrayLike,
        log_prior: Callable[[Any], Any] | None = None,
        *,
        expected: Callable[[Any], Any] | None = None,
        draws: int = 1000,
        chains: int = 4,
        random_seed: int = 0,
    ) -> xr.DataTree:
        """Posterior of the parameters by NUTS, uniform over the training's range unless a prior is given.

        Parameters
        ----------
        data, log_prior, expected
            As for :meth:`model`.
        draws, chains : int

        Returns
        -------
        xarray.DataTree
            What ``nutpie.sample`` returns; group ``posterior`` holds one variable a parameter.

        Notes
        -----
        The point estimate of the ratio is the likelihood; the band of :meth:`scan` shows the network's own uncertainty.
        """
        import nutpie

        from bayesunfold.classifier.sampling import quiet_nutpie

        check_count(draws, "draws", 2)
        check_count(chains, "chains")
        check_seed(random_seed)
        model = self.model(data, log_prior, expected)
        with threadpool_limits(limits=1, user_api="blas"), quiet_nutpie():
            return nutpie.sample(
                nutpie.compile_pymc_model(model),
                draws=draws,
                chains=chains,
                cores=2,
                seed=random_seed,
                progress_bar=False,
            )


def _counts(points: Array, expected: Callable[[Array], float]) -> Array:
    """Expected number of events at every point."""
    if not callable(expected):
        msg = f"expected is {expected!r}; give a function of a point that returns the expected number of events."
        raise InputTypeError(msg)
    counts = np.array([float(expected(p)) for p in points])
    if np.any(~(counts > 0)):
        msg = f"expected counts fall to {counts.min():g}; they must be positive at every point."
        raise InputError(msg)
    return counts


def _poisson(n: int, counts: Array) -> Array:
    """Log probability of the number of events, up to a constant."""
    return n * np.log(counts) - counts
