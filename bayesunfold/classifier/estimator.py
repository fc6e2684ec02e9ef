"""A Bayesian classifier as a scikit-learn estimator of a log density ratio."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from bayesunfold._support.checks import check_count, check_flag, effective_size
from bayesunfold._support.statistics import log_mean_weight
from bayesunfold._support.streams import stream
from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.arithmetic import forward, tangent, weighted_gram
from bayesunfold.classifier.evidence import learn_scales
from bayesunfold.classifier.inference import InferenceMethod, check_inference
from bayesunfold.classifier.linearized import linearize, posterior_axes, whitened_directions
from bayesunfold.classifier.network import Network
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.classifier.training import fit_map
from bayesunfold.classifier.two_class import BASIS_ROWS, Classifier, ClassWeights, TwoClass, leading_directions
from bayesunfold.errors import ConvergenceWarning, InputError, InputTypeError, OverlapWarning

__all__ = ["BayesianClassifier"]

Array = NDArray[np.floating]

LARGE_STEP = 10.0
"""Remaining step of the fit, in posterior standard deviations of all directions together, that is warned of. The
linearised network goes it, so a small one does no harm."""


def __dir__() -> list[str]:
    return __all__


class BayesianClassifier(ClassifierMixin, BaseEstimator):
    """Bayesian neural network that tells two weighted samples apart.

    Parameters
    ----------
    network : Network, optional
        Shape and priors.
    inference : {"advi", "nuts", "laplace"}
        Posterior of the linearised network.
    draws : int
        Posterior draws.
    linearize : bool
        False draws all weights of the full network (ADVI and NUTS only), which was measured unreliable.
    restarts : int
        Random starts of the training; the best objective is kept.
    random_state : int, RandomState or None
        The same seed gives the same fit.

    Attributes
    ----------
    classes_ : array, shape (2,)
        Labels; the second is the numerator of the ratio.
    n_features_in_ : int
    prior_log_odds_ : float
        Log ratio of the classes' total weights in training, part of ``predict_proba`` only.
    converged_ : bool
    n_iter_ : int
        Gauss-Newton steps of the fit.

    Notes
    -----
    Each class enters the likelihood at its Kish effective size, whatever its total weight. Negative weights
    are allowed while each class sums to something positive.

    Where the weights of a class differ, a likelihood takes few heavy events for many. The draws are then stretched
    about the mode, so that their covariance is that of the weighted fit (U. K. Müller, Econometrica 81 (2013) 1805,
    doi:10.3982/ECTA9097).

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> X = np.r_[rng.normal(0, 1, 400), rng.normal(0.5, 1, 400)][:, None]
    >>> y = np.r_[np.zeros(400), np.ones(400)]
    >>> clf = bu.BayesianClassifier(inference="laplace", draws=100, random_state=1).fit(X, y)
    >>> clf.log_ratio_draws(X[:5]).shape
    (100, 5)
    """

    def __init__(
        self,
        network: Network | None = None,
        inference: str = "advi",
        draws: int = 500,
        linearize: bool = True,
        restarts: int = 1,
        random_state: Any = None,
    ) -> None:
        self.network = network
        self.inference = inference
        self.draws = draws
        self.linearize = linearize
        self.restarts = restarts
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Binary labels only."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> BayesianClassifier:
        """Fit to labelled events.

        Parameters
        ----------
        X : array, shape (n, d)
            Finite features; they are standardised inside, both classes counting the same.
        y : array, shape (n,)
            Two different labels.
        sample_weight : array, shape (n,), optional
            Event weights, negative ones included.

        Returns
        -------
        BayesianClassifier

        Raises
        ------
        ValueError
            One class only, more than two, NaN, or a class whose weights do not sum to something positive.
        ConvergenceError
            If negative weights leave no positive mean ratio over the first class.

        Warns
        -----
        ConvergenceWarning
            If the training stopped ten posterior standard deviations or more short of the most probable weights, or if
            a network with learned prior scales learned nothing from any start, though the classes differ.
        """
        linearize = check_flag(self.linearize, "linearize")
        method = check_inference(self.inference, linearize=linearize)
        check_count(self.draws, "draws", 2)
        check_count(self.restarts, "restarts")
        if self.network is not None and not isinstance(self.network, Network):
            msg = f"network has type {type(self.network).__name__}; pass a bayesunfold.Network."
            raise InputTypeError(msg)
        X, y = cast("tuple[Array, Array]", validate_data(self, X, y, dtype=np.float64))
        check_classification_targets(y)
        if type_of_target(y) != "binary" or len(np.unique(y)) != 2:
            found = len(np.unique(y))
            if found == 1:
                msg = f"y holds one class only ({np.unique(y)[0]!r}); a classifier needs two."
            else:
                msg = f"Only binary classification is supported. The type of the target is {type_of_target(y)}."
            raise InputError(msg)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        self.classes_, code = np.unique(y, return_inverse=True)
        totals = np.array([weight[code == c].sum() for c in (0, 1)])
        if np.any(totals <= 0):
            msg = f"the classes' weights sum to {totals.tolist()}; both sums must be positive."
            raise InputError(msg)
        _warn_if_separable(X, code)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        with block_threads():
            self._fit(X, code, weight, totals, int(seed), method)
        return self

    def _fit(
        self,
        X: Array,
        code: NDArray[np.integer],
        weight: Array,
        totals: Array,
        seed: int,
        method: InferenceMethod,
    ) -> None:
        rng = np.random.Generator(np.random.Philox(key=seed))
        # both classes count the same, so neither their sizes nor their order matter
        network = self.network or Network()
        self.standardizer_ = Standardizer.fit(X, weight / totals[code], network.additive)
        x = self.standardizer_(X)
        layout = network.layout(X.shape[1], self.standardizer_)
        sizes = np.array([effective_size(weight[code == c]) for c in (0, 1)])
        scaled = weight * (sizes / totals)[code]
        ones, zeros = np.where(code == 1, scaled, 0.0), np.where(code == 0, scaled, 0.0)
        classes = TwoClass((ClassWeights("events", x, ones, zeros),), float(np.log(sizes[1] / sizes[0])))
        problem = classes.joined()
        if self.network is not None and self.network.learns_scales:
            layout, start = learn_scales(layout, problem, rng, self.restarts, stream(seed, "starts"))
            # the mode of the linearised network makes up for what is left of the way
            fit = fit_map(layout, problem, rng, start=start, near=True, max_steps=15, tolerance=0.3)
        else:
            fit = fit_map(layout, problem, rng, restarts=self.restarts)
        chosen = rng.permutation(len(x))[:BASIS_ROWS] if len(x) > BASIS_ROWS else np.arange(len(x))
        part = problem.subset(chosen)
        basis = leading_directions(tangent(layout, fit.theta, part.x), part.curvature_weights(layout, fit.theta))
        fitted = Classifier("the classifier", layout, fit.theta, classes, fit.objective, fit.decrement, basis)
        axes, precision = posterior_axes(fitted)
        posterior = linearize(fitted, axes, precision)
        # the point estimate is the mode of the linearised network: a wide network itself may stop short of it
        self.mode_ = posterior.mode()
        if self.linearize or method.sample_full is None:
            self.posterior_draws_ = method.sample(posterior, self.draws, rng)
        else:
            self.posterior_draws_ = method.sample_full(layout, fit.theta, x, posterior, self.draws, rng)
        self.directions_ = whitened_directions(fitted, axes, precision)
        self.layout_, self.theta_ = layout, fit.theta
        self.converged_, self.n_iter_ = fit.converged, fit.steps
        _warn_if_short(fit.decrement)
        self.prior_log_odds_ = float(np.log(totals[1] / totals[0]))
        # the Bernoulli posterior leaves the overall level free; the classes' sizes are known, so each draw
        # is normalised to mean weight one on class 0
        rows = code == 0
        self._log_norm = 0.0
        self._log_norms: Array = np.zeros(self.draws)
        z = self.posterior_draws_.z + (self.mode_ if method.is_gaussian else 0.0)
        if any(np.ptp(weight[code == c]) > 0 for c in (0, 1)):
            z = self.mode_ + (z - self.mode_) @ self._stretch(x, ones, zeros, classes.offset).T
        self.posterior_draws_ = replace(self.posterior_draws_, z=z)
        best, drawn = self._evaluate(x[rows])
        first = f"class {self.classes_[0]}"
        self._log_norm = float(log_mean_weight(best, weight[rows], first))
        self._log_norms = log_mean_weight(drawn.T, weight[rows], first)

    def _stretch(self, x: Array, ones: Array, zeros: Array, offset: float) -> Array:
        """What makes the covariance of the draws that of a fit to weighted events, shape (p, p).

        A likelihood with weights takes an event of weight ten for ten events. Its curvature ``A`` is not the covariance
        ``M`` of its score then, equation (8), and the network's is ``A^-1 M A^-1``. Along :attr:`directions_`, where
        ``A`` is one, that is ``M``.
        """
        phi = tangent(self.layout_, self.theta_, x, self.directions_)
        q = expit(forward(self.layout_, self.theta_, x) + phi @ self.mode_ + offset)
        m = weighted_gram(phi, (ones * (1.0 - q) - zeros * q) ** 2) + self.directions_.T @ self.directions_
        return np.linalg.cholesky(m)

    def _evaluate(self, x: Array, *, draws: bool = True) -> tuple[Array, Array]:
        """Point estimate (n,) and draws (n, draws) of the log ratio at standardised events, not normalised."""
        with block_threads():
            f = forward(self.layout_, self.theta_, x)
            phi = tangent(self.layout_, self.theta_, x, self.directions_)
            drawn = f[:, None] + phi @ self.posterior_draws_.z.T.astype(phi.dtype) if draws else np.zeros((len(x), 0))
            return f + phi @ self.mode_, drawn

    def _features(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        # double precision: an event alone gets the same answer as in a batch
        return self.standardizer_(validate_data(self, X, dtype=np.float64, reset=False)).astype(np.float64)

    def log_ratio(self, X: ArrayLike) -> Array:
        """Log density ratio of the second class over the first, point estimate, shape (n,).

        Class sizes do not enter; the mean of its exponential over class 0 is one.
        """
        return self._evaluate(self._features(X), draws=False)[0] - self._log_norm

    def log_ratio_draws(self, X: ArrayLike) -> Array:
        """Posterior draws of the log density ratio, shape (draws, n), each at mean weight one on class 0."""
        return (self._evaluate(self._features(X))[1] - self._log_norms).T

    def decision_function(self, X: ArrayLike) -> Array:
        """Logit of the second class, class sizes of the training included, shape (n,)."""
        return self.log_ratio(X) + self.prior_log_odds_

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probability of each class at the class sizes seen in training, shape (n, 2)."""
        p = expit(self.decision_function(X))
        return np.column_stack([1.0 - p, p])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The more probable label, shape (n,)."""
        second = self.decision_function(X) > 0
        return self.classes_[second.astype(int)]


def _warn_if_separable(x: Array, code: NDArray[np.integer]) -> None:
    """Warn if one feature alone separates the classes: no finite ratio describes them."""
    zero, one = x[code == 0], x[code == 1]
    apart = np.flatnonzero((zero.max(axis=0) < one.min(axis=0)) | (one.max(axis=0) < zero.min(axis=0)))
    if len(apart):
        j = int(apart[0])
        ranges = " and ".join(f"[{values[:, j].min():.4g}, {values[:, j].max():.4g}]" for values in (zero, one))
        msg = (
            f"feature {j} separates the classes: {ranges} do not overlap. Probabilities are near 0 and 1; the log "
            "ratio has no finite value and depends on the prior alone. Do not use it as a weight."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)


def _warn_if_short(decrement: float) -> None:
    """Warn if the training stopped far from the most probable weights."""
    if decrement > LARGE_STEP:
        where = (
            f"{decrement:.2g} posterior standard deviations short of its most probable weights (limit {LARGE_STEP:g})"
            if np.isfinite(decrement)
            else "where the curvature is not positive definite, which negative weights make"
        )
        msg = (
            f"the training stopped {where}; ratios and their bands are unreliable. Merge events of negative weight "
            "with others near them, transform features of long tails (logarithm, arcsinh), or take a smaller network."
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=4)
