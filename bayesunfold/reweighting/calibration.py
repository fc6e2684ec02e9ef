"""Calibration of classifiers: monotone maps of the log ratio, and how well probabilities mean what they say.

Any monotone map of a classifier's output leaves the information in it unchanged, so the ratio can be calibrated after
training, on events that the training did not see.

What to use when
----------------
``"beta"`` on out-of-fold logits was the best general choice measured; ``"temperature"`` for few events;
``"isotonic"`` and ``"histogram"`` follow any shape and are bounded here, since unbounded they gave infinite log ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from bayesunfold._support.checks import effective_size
from bayesunfold.errors import InputError

__all__ = ["Calibrator", "Reliability", "reliability"]

Array = NDArray[np.floating]
Method = Literal["beta", "isotonic", "histogram", "sigmoid", "temperature"]

METHODS = ("beta", "isotonic", "histogram", "sigmoid", "temperature")
LEAST_EVENTS = 50
BINS = 50


def __dir__() -> list[str]:
    return __all__


class Calibrator:
    """A monotone map of log ratios, fitted to labels.

    Parameters
    ----------
    method : {"beta", "isotonic", "histogram", "sigmoid", "temperature"}
        ``beta``: logit ``a log p - b log(1 - p) + c`` (Kull, Filho, Flach, doi:10.1214/17-EJS1338SI, eq. 3);
        ``sigmoid``: ``a z + c`` (Platt); ``temperature``: ``z / T``; ``isotonic``: monotone steps;
        ``histogram``: 50 bins of equal population.

    Attributes
    ----------
    parameters_ : dict of str to float
    bounded_ : float
        Share of the calibration events' weight at the bounds of ``isotonic`` and ``histogram``.

    Notes
    -----
    Classes are balanced inside: log ratios in, log ratios out. ``isotonic`` and ``histogram`` are bounded where
    a step has less than one effective event of a class. Negative weights are allowed.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> x = np.r_[rng.normal(-0.5, 1, 4000), rng.normal(0.5, 1, 4000)]
    >>> y = np.repeat([0, 1], 4000)
    >>> calibrator = Calibrator("temperature").fit(3 * x, y)  # the true log ratio is x
    >>> round(float(calibrator(np.array([3.0]))[0]), 1)
    1.0
    """

    def __init__(self, method: Method = "beta") -> None:
        if method not in METHODS:
            msg = f"calibration is {method!r}; it must be one of {', '.join(map(repr, METHODS))}."
            raise InputError(msg)
        self.method = method
        self.parameters_: dict[str, float] = {}
        self.bounded_ = 0.0

    def fit(self, log_ratio: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Calibrator:
        """Fit to out-of-fold log ratios.

        Parameters
        ----------
        log_ratio, label, weight : array, shape (n,)
            ``label`` is 1 for the numerator.

        Raises
        ------
        InputError
            Fewer than 50 effective events in a class, or values that are not finite.
        """
        z = np.asarray(log_ratio, dtype=np.float64)
        y = np.asarray(label).astype(np.int64)
        w = np.ones(len(z)) if weight is None else np.asarray(weight, dtype=np.float64)
        if z.ndim != 1 or y.shape != z.shape or w.shape != z.shape:
            msg = f"log ratios, labels and weights have shapes {z.shape}, {y.shape}, {w.shape}; give one each an event."
            raise InputError(msg)
        if not np.all(np.isfinite(z)):
            msg = f"{int((~np.isfinite(z)).sum())} log ratios are not finite; calibrate before they overflow."
            raise InputError(msg)
        for c in (0, 1):
            if w[y == c].sum() <= 0:
                msg = f"the weights of class {c} sum to {w[y == c].sum():g}; the sum must be positive."
                raise InputError(msg)
            size = effective_size(w[y == c])
            if size < LEAST_EVENTS:
                msg = f"class {c} has {size:.0f} effective calibration events; take at least {LEAST_EVENTS}."
                raise InputError(msg)
        balanced = w / np.array([w[y == c].sum() for c in (0, 1)])[y]
        balanced *= len(z) / 2
        if self.method in ("isotonic", "histogram"):
            self._fit_steps(z, y, w, balanced)
        else:
            self._fit_curve(z, y, balanced)
        return self

    def _fit_curve(self, z: Array, y: NDArray[np.integer], w: Array) -> None:
        start = {"beta": [1.0, 1.0, 0.0], "sigmoid": [1.0, 0.0], "temperature": [1.0]}[self.method]

        def loss(p: Array) -> float:
            f = self._curve(z, p)
            return float(w @ (np.logaddexp(0.0, f) - y * f)) / len(z)

        found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-10, "maxiter": 4000})
        names = {"beta": ("a", "b", "c"), "sigmoid": ("a", "c"), "temperature": ("inverse_temperature",)}[self.method]
        values = found.x
        if self.method == "beta":
            values = np.r_[np.maximum(values[:2], 0.0), values[2]]  # monotone
        self.parameters_ = dict(zip(names, map(float, values), strict=True))

    def _curve(self, z: Array, p: Array) -> Array:
        """Equation (R4) of ``docs/ratios.md``."""
        if self.method == "beta":
            # log p = -log(1 + exp(-z)), log(1 - p) = -log(1 + exp(z))
            return -max(p[0], 0.0) * np.logaddexp(0.0, -z) + max(p[1], 0.0) * np.logaddexp(0.0, z) + p[2]
        return p[0] * z + p[1] if self.method == "sigmoid" else p[0] * z

    def _fit_steps(self, z: Array, y: NDArray[np.integer], w: Array, balanced: Array) -> None:
        # steps change halfway between events, so that rounding cannot move an event of the fit to another step
        if self.method == "histogram":
            distinct, counts = np.unique(z, return_counts=True)
            change = np.linspace(0, len(z) - 1, BINS + 1).astype(int)[1:-1]
            last = np.unique(np.searchsorted(np.cumsum(counts), change))  # of a step; equal values stay together
            last = last[last < len(distinct) - 1]
            self._edges = 0.5 * (distinct[last] + distinct[last + 1])
            step = np.searchsorted(self._edges, z, side="right")
        else:
            iso = IsotonicRegression(out_of_bounds="clip").fit(z, y, sample_weight=np.maximum(balanced, 0.0))
            value = iso.predict(z)
            _, step = np.unique(value, return_inverse=True)
            order = np.argsort(z, kind="stable")
            change = np.flatnonzero(np.diff(step[order])) + 1
            self._edges = 0.5 * (z[order[change - 1]] + z[order[change]])
            step = np.searchsorted(self._edges, z, side="right")
        n = len(self._edges) + 1
        levels = []
        low = np.zeros(n, dtype=bool)
        for c in (0, 1):
            rows = y == c
            total = np.bincount(step[rows], balanced[rows], n)
            # (R5), less than one effective event: the content that one event of this class would have
            one = balanced[rows].sum() / max(effective_size(w[rows]), 1.0)
            low |= total < one
            levels.append(np.maximum(total, one))
        self._log_ratios = _rising(*levels)
        self.bounded_ = float(np.abs(balanced)[low[step]].sum() / np.abs(balanced).sum())

    def __call__(self, log_ratio: ArrayLike) -> Array:
        """Calibrated log ratios, same shape."""
        z = np.asarray(log_ratio, dtype=np.float64)
        if self.method in ("isotonic", "histogram"):
            return self._log_ratios[np.searchsorted(self._edges, z, side="right")]
        return self._curve(z, np.array(list(self.parameters_.values())))


def _rising(zeros: Array, ones: Array) -> Array:
    """Log ratios of both classes' contents, steps that fall being merged (pool adjacent violators)."""
    share = IsotonicRegression().fit_transform(np.arange(len(ones)), ones / (zeros + ones), sample_weight=zeros + ones)
    return np.log(share) - np.log1p(-share)


@dataclass(frozen=True)
class Reliability:
    """How often events of a predicted probability belong to the target.

    Attributes
    ----------
    predicted : array, shape (bins,)
        Mean predicted probability.
    observed : array, shape (draws, bins)
        Posterior of the observed share: Beta with Jeffreys' prior at the bin's effective size.
    error, error_std : float
        Mean absolute calibration error, noise subtracted, and its standard deviation.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> x = np.r_[rng.normal(-0.5, 1, 4000), rng.normal(0.5, 1, 4000)]
    >>> found = reliability(x, np.repeat([0, 1], 4000), bins=5)
    >>> found.observed.shape
    (500, 5)
    """

    predicted: Array
    observed: Array
    error: float
    error_std: float
    share: Array = field(default_factory=lambda: np.zeros(0))


def reliability(
    log_ratio: ArrayLike,
    label: ArrayLike,
    weight: ArrayLike | None = None,
    bins: int = 15,
    draws: int = 500,
    random_state: int = 0,
) -> Reliability:
    """Reliability curve of a log ratio, classes balanced.

    Parameters
    ----------
    log_ratio, label, weight : array, shape (n,)
    bins : int
        Bins of equal population.

    Notes
    -----
    The error is the root of the mean squared difference between predicted and observed shares, from which the
    differences' own sampling variance is subtracted (R6); zero where nothing remains.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> x = np.r_[rng.normal(-0.5, 1, 4000), rng.normal(0.5, 1, 4000)]  # the true log ratio is x
    >>> y = np.repeat([0, 1], 4000)
    >>> reliability(x, y).error < 0.02 < reliability(3 * x, y).error
    True
    """
    z, y = np.asarray(log_ratio, dtype=np.float64), np.asarray(label).astype(np.int64)
    w = np.ones(len(z)) if weight is None else np.asarray(weight, dtype=np.float64)
    w = w / np.array([w[y == c].sum() for c in (0, 1)])[y]
    p = expit(z)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1))[1:-1])
    # equal values can leave bins without events, which are no bins
    _, step = np.unique(np.searchsorted(edges, p, side="right"), return_inverse=True)
    n = int(step.max()) + 1
    total = np.bincount(step, w, n)
    size = total**2 / np.maximum(np.bincount(step, w**2, n), 1e-300)
    positive = np.clip(np.bincount(step, w * y, n) / total, 0.0, 1.0)
    predicted = np.bincount(step, w * p, n) / total
    rng: Any = np.random.default_rng(random_state)
    drawn = rng.beta(positive * size + 0.5, (1 - positive) * size + 0.5, (draws, n))
    share = total / total.sum()
    variance = positive * (1 - positive) / size
    squared = float(share @ ((predicted - positive) ** 2 - variance))
    replicas = (drawn - predicted) ** 2 @ share - 2 * float(share @ variance)
    errors = np.sqrt(np.maximum(replicas, 0.0))
    return Reliability(predicted, drawn, float(np.sqrt(max(squared, 0.0))), float(errors.std()), share)
