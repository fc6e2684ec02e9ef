"""Event weights that turn one sample into another, with their uncertainty."""

from __future__ import annotations

import warnings
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import (
    as_weight,
    check_count,
    check_positive,
    check_seed,
    effective_size,
    uncovered_share,
)
from bayesunfold._support.statistics import log_mean_weight
from bayesunfold._support.threads import block_threads
from bayesunfold.errors import BayesUnfoldError, InputError, InputTypeError, OverlapWarning, WeightWarning
from bayesunfold.reweighting._samples import event_folds, read_events, read_pair
from bayesunfold.reweighting.calibration import METHODS, Calibrator
from bayesunfold.reweighting.ratios import (
    AnalyticRatio,
    BinnedRatio,
    ClassifierRatio,
    default_classifier,
)

__all__ = ["Reweighter"]

Array = NDArray[np.floating]

LARGEST_UNCOVERED = 0.05
"""Share of the target without source events above which one is warned."""
LEAST_SIZE = 0.02
"""Part of the effective size below which the overlap is called small."""


def __dir__() -> list[str]:
    return __all__


def _is_pair(densities: Any) -> bool:
    return densities is None or (isinstance(densities, tuple | list) and len(densities) == 2)


def _check_bins_argument(bins: Any) -> None:
    """A number of bins, or edges; edges are checked with the samples."""
    if isinstance(bins, int | np.integer) and not isinstance(bins, bool):
        check_count(bins, "bins", 2, MOST_BINS)
    elif bins is None or np.isscalar(bins):
        msg = f"bins is {bins!r}; give a whole number of bins, an array of edges, or one array per feature."
        raise InputError(msg)


MOST_BINS = 100_000


class Reweighter:
    """Weights ``target / source`` for events of the source.

    Parameters
    ----------
    method : {"classifier", "binned", "analytic"}
        How the ratio of the densities is found: a Bayesian classifier, histograms, or known densities.
    classifier : scikit-learn classifier, optional
        For ``"classifier"``; a :class:`BayesianClassifier` with learned prior scales if omitted. The posterior of any
        other classifier comes from ``bootstraps`` refits to Exp(1) weights.
    folds : int
        Events of training get weights from a classifier that did not see them.
    calibration : {"beta", "isotonic", "histogram", "sigmoid", "temperature"}, optional
        Monotone map of the log ratio, fitted to out-of-fold values. None by default: the Bayesian classifier is
        calibrated as it is.
    densities : pair, optional
        For ``"analytic"``: densities of source and target; callables, ``scipy.stats`` or PyMC distributions.
    bins : int, array of edges, or one array a feature
        For ``"binned"``; a number makes quantile bins of the source.
    clip : float, optional
        Largest weight before the last normalisation to mean weight 1. What it changes is in ``report_``.
    temper : float, optional
        Power between 0 and 1 applied to the weights: fewer large weights, and a bias towards the source.
    truncate : float, optional
        Smooth truncation: a weight ``w`` becomes ``w / (1 + w / truncate)``, which never exceeds ``truncate`` before
        the last normalisation, and has no edge.
    draws : int
        Posterior draws.
    bootstraps : int
    random_state : int

    Attributes
    ----------
    report_ : dict of str to float
        Effective sizes, mean weights before and after every step, merged bins, bounded shares.

    Notes
    -----
    The point estimate and each draw are normalised to mean weight 1 over the source (generator weights included), a
    draw of ``"binned"`` over the source's contents in that draw. An event gets the same weight alone and in a batch.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> source, target = rng.normal(0, 1, 2000), rng.normal(0.3, 1, 2000)
    >>> reweighter = bu.Reweighter(draws=50, random_state=1).fit(source, target)
    >>> w = reweighter.weights(source)
    >>> abs(np.average(source, weights=w) - 0.3) < 0.06
    np.True_
    """

    def __init__(
        self,
        method: Literal["classifier", "binned", "analytic"] = "classifier",
        *,
        classifier: Any = None,
        folds: int = 2,
        calibration: str | None = None,
        densities: tuple[Any, Any] | None = None,
        bins: Any = 20,
        clip: float | None = None,
        temper: float | None = None,
        truncate: float | None = None,
        draws: int = 500,
        bootstraps: int = 20,
        random_state: int = 0,
    ) -> None:
        if method not in ("classifier", "binned", "analytic"):
            msg = f"method is {method!r}; it must be 'classifier', 'binned' or 'analytic'."
            raise InputError(msg)
        if (method == "analytic") != (densities is not None) or not _is_pair(densities):
            msg = "densities=(source, target) belong to method='analytic', which needs them."
            raise InputError(msg)
        if calibration is not None and (calibration not in METHODS or method != "classifier"):
            msg = f"calibration is {calibration!r}; it is for classifiers, one of {', '.join(map(repr, METHODS))}."
            raise InputError(msg)
        if temper is not None and (isinstance(temper, bool) or not isinstance(temper, Real) or not 0 < temper <= 1):
            msg = f"temper is {temper!r}; the power must lie in (0, 1]."
            raise InputError(msg)
        self.method, self.classifier, self.calibration, self.densities, self.bins = (
            method,
            classifier,
            calibration,
            densities,
            bins,
        )
        self.folds = check_count(folds, "folds")
        self.clip = None if clip is None else check_positive(clip, "clip")
        self.temper = temper
        self.truncate = None if truncate is None else check_positive(truncate, "truncate")
        self.draws = check_count(draws, "draws", 2)
        self.bootstraps = check_count(bootstraps, "bootstraps", 2)
        self.random_state = check_seed(random_state, "random_state")
        _check_bins_argument(bins)
        if classifier is not None and (isinstance(classifier, type) or not hasattr(classifier, "fit")):
            msg = f"classifier is {classifier!r}; pass an object with fit and predict_proba, not its class or name."
            raise InputTypeError(msg)
        self.report_: dict[str, float] = {}

    def fit(
        self,
        source: ArrayLike,
        target: ArrayLike,
        source_weight: ArrayLike | None = None,
        target_weight: ArrayLike | None = None,
        fold: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Reweighter:
        """Learn the ratio.

        Parameters
        ----------
        source, target : array or frame, shape (n,) or (n, d)
        source_weight, target_weight : array, optional
            Generator weights; negative ones are allowed while the sums are positive.
        fold : pair of int arrays, optional
            Numbers of source and target events that decide their folds (event numbers, for instance); a hash of the
            features if omitted.

        Raises
        ------
        InputError
            Different columns, no overlap, empty samples, weights that sum to zero or less.
        ConvergenceError
            If negative weights leave no positive mean ratio over the source.

        Warns
        -----
        OverlapWarning
            If more than 5 % of the target lie where the source has no events.
        WeightWarning
            If little of the source's effective size is left.
        """
        a, b, wa, wb, self._names = read_pair(source, target, source_weight, target_weight)
        self._n_features = a.shape[1]
        _warn_without_overlap(a, b, self._names)
        rng = np.random.default_rng(self.random_state)
        self._calibrator: Calibrator | None = None
        with block_threads():
            self._ratio: Any = self._find_ratio(a, b, wa, wb, fold, rng)
            self._normalise(a, wa)
        return self

    def _find_ratio(self, a: Array, b: Array, wa: Array, wb: Array, fold: Any, rng: np.random.Generator) -> Any:
        if self.method == "analytic" and self.densities is not None:
            return AnalyticRatio(*self.densities, draws=self.draws)
        if self.method == "binned":
            ratio = BinnedRatio(a, b, wa, wb, self.bins, self.draws, rng)
            self.report_["merged bins"] = float(ratio.merged)
            self.report_["outside (source)"], self.report_["outside (target)"] = ratio.outside
            return ratio
        x = np.concatenate([a, b])
        y = np.repeat([0, 1], [len(a), len(b)])
        weight = np.concatenate([wa, wb])
        folds = self._folds(x, fold)
        classifier = default_classifier(self.draws, 0) if self.classifier is None else self.classifier
        found = ClassifierRatio(classifier, x, y, weight, folds, self.draws, rng, self.bootstraps)
        if self.calibration is not None:
            z = found.log_ratio(x)
            _check_finite(z, "before calibration")
            before = float(np.average(np.exp(z[: len(a)]), weights=wa))
            self._calibrator = Calibrator(self.calibration).fit(z, y, weight)  # type: ignore[arg-type]
            after = float(np.average(np.exp(self._calibrator(z[: len(a)])), weights=wa))
            self.report_ |= {
                "mean weight before calibration": before,
                "mean weight after calibration": after,
                "weight at the calibration's bounds": self._calibrator.bounded_,
            }
        return found

    def _folds(self, x: Array, fold: Any) -> NDArray[np.integer]:
        if fold is None:
            return event_folds(x, self.folds)
        if not isinstance(fold, tuple | list) or len(fold) != 2 or any(np.ndim(f) != 1 for f in fold):
            msg = f"fold has type {type(fold).__name__}; give two arrays, one number per event of each sample."
            raise InputError(msg)
        numbers = np.concatenate([np.asarray(f) for f in fold])
        if numbers.shape != (len(x),) or numbers.dtype.kind not in "iu":
            msg = f"fold holds {numbers.shape} numbers of type {numbers.dtype}; give one integer per event."
            raise InputError(msg)
        out = (numbers % self.folds).astype(np.int64)
        found = np.unique(out)
        if len(found) < self.folds:
            msg = f"fold leaves the folds {found.tolist()} of {self.folds}; give numbers that fill all of them."
            raise InputError(msg)
        return out

    def _normalise(self, a: Array, wa: Array) -> None:
        """Levels that make the mean weight one, and what happened to the weights on the way."""
        best = self._mapped(self._ratio.log_ratio(a))
        _check_finite(best, "over the source", allow_zero=self.method == "analytic")
        drawn = self._mapped(self._ratio.log_ratio_draws(a))
        raw = np.exp(best - log_mean_weight(best, wa, "the source"))
        self.report_ |= {
            "effective size": effective_size(wa * raw),
            "share of the source's effective size": effective_size(wa * raw) / effective_size(wa),
            "largest weight": float(raw.max()),
        }
        self._log_norm = float(log_mean_weight(best, wa, "the source"))
        self._log_norms = self._log_means(drawn, a, wa)
        if (self.clip, self.temper, self.truncate) != (None, None, None):
            best, drawn = self._restrained(best - self._log_norm), self._restrained(drawn - self._log_norms[:, None])
            moved = np.average(np.abs(np.exp(best) - raw), weights=np.abs(wa))
            self._second_log_norm = float(log_mean_weight(best, wa, "the source"))
            self._second_log_norms = self._log_means(drawn, a, wa)
            after = np.exp(best - self._second_log_norm)
            self.report_ |= {
                "mean change of the weights by clip, temper and truncate": float(moved),
                "share of events clipped": float(np.mean(raw > self.clip)) if self.clip is not None else 0.0,
                "effective size after clip, temper and truncate": effective_size(wa * after),
            }
        else:
            self._second_log_norm, self._second_log_norms = 0.0, np.zeros(len(drawn))
        if self.report_["share of the source's effective size"] < LEAST_SIZE:
            msg = (
                f"{100 * self.report_["share of the source's effective size"]:.2g} % of the source's effective size is "
                "left; the samples overlap little. Cut to a common region, blend the samples, or use temper= or clip=."
            )
            warnings.warn(msg, WeightWarning, stacklevel=4)

    def _log_means(self, drawn: Array, a: Array, wa: Array) -> Array:
        """Log mean weight of each draw, of histograms over the source of that draw: its total fluctuates with it."""
        if not isinstance(self._ratio, BinnedRatio):
            return log_mean_weight(drawn, wa, "the source")
        source = self._ratio.log_source_draws(a)
        return log_mean_weight(drawn + source, wa, "the source") - log_mean_weight(source, wa, "the source")

    def _mapped(self, log_ratio: Array) -> Array:
        return log_ratio if self._calibrator is None else self._calibrator(log_ratio)

    def _restrained(self, log_weight: Array) -> Array:
        if self.temper is not None:
            log_weight = self.temper * log_weight
        if self.truncate is not None:
            log_weight = log_weight - np.logaddexp(0.0, log_weight - np.log(self.truncate))
        return log_weight if self.clip is None else np.minimum(log_weight, np.log(self.clip))

    def _check_fitted(self) -> None:
        if not hasattr(self, "_ratio"):
            msg = "this Reweighter is not fitted; call fit(source, target) first."
            raise NotFittedReweighterError(msg)

    def _read(self, x: ArrayLike) -> Array:
        return read_events(x, "x", self._names, self._n_features)

    def log_ratio(self, x: ArrayLike) -> Array:
        """Log of :meth:`weights`, shape (n,)."""
        self._check_fitted()
        z = self._mapped(self._ratio.log_ratio(self._read(x))) - self._log_norm
        return self._restrained(z) - self._second_log_norm

    def log_ratio_draws(self, x: ArrayLike) -> Array:
        """Log of :meth:`weight_draws`, shape (draws, n)."""
        self._check_fitted()
        z = self._mapped(self._ratio.log_ratio_draws(self._read(x))) - self._log_norms[:, None]
        return self._restrained(z) - self._second_log_norms[:, None]

    def weights(self, x: ArrayLike) -> Array:
        """Factors on the generator weights of source events, shape (n,); mean one over the source."""
        return np.exp(self.log_ratio(x))

    def weight_draws(self, x: ArrayLike) -> Array:
        """Posterior draws of the weights, shape (draws, n), normalised one by one."""
        return np.exp(self.log_ratio_draws(x))

    def to_onnx(self, path: str | Path, draws: int | None = None, *, fold_input: bool = False) -> Path:
        """Write the weight function as an ONNX graph, for an experiment's C++ framework.

        The input is ``x`` (events, features; double); outputs are ``log_ratio`` and ``weight`` (events),
        ``log_ratio_draws`` and ``weight_draws`` (draws, events), NaN for events with a feature that is NaN. Names of
        the features are in the metadata.

        Parameters
        ----------
        path : path
            Written atomically.
        draws : int, optional
            Posterior draws to include; all by default, 0 for none.
        fold_input : bool
            Add an input ``fold`` (events; int64): the fold of an event that was part of the training, which then gets
            the classifier that has not seen it, or -1 for a new event. Give event numbers as ``fold=`` to :meth:`fit`
            and the same ones here: they are taken modulo ``folds``. Without it all events are taken as new: the mean
            over folds.

        Raises
        ------
        InputError
            For densities given as functions, and for classifiers of other packages.
        ImportError
            Without the package ``onnx`` (extra ``onnx``).
        """
        from bayesunfold.reweighting.export import write_onnx

        self._check_fitted()
        return write_onnx(self, path, draws, fold_input)

    def power(self, x: ArrayLike, regions: ArrayLike, weight: ArrayLike | None = None) -> dict[Any, dict[str, float]]:
        """Effective size by region before and after reweighting.

        Parameters
        ----------
        x : array, shape (n, d)
            Source events.
        regions : array, shape (n,)
            Label of each event's region.
        """
        self._check_fitted()
        events = self._read(x)
        w = as_weight(weight, len(events), "weight")
        labels = np.asarray(regions)
        if labels.shape != (len(events),):
            msg = f"regions have shape {labels.shape}; give one label for each of {len(events)} events."
            raise InputError(msg)
        factor = self.weights(events)
        out: dict[Any, dict[str, float]] = {}
        for label in np.unique(labels):
            rows = labels == label
            before, after = effective_size(w[rows]), effective_size((w * factor)[rows])
            out[label.item()] = {"before": before, "after": after, "share left": after / before if before else 0.0}
        return out


def _warn_without_overlap(a: Array, b: Array, names: tuple[str, ...] | None) -> None:
    """Warn, naming the feature, of target events where the source has none: no weight can make them."""
    for j in range(a.shape[1]):
        share = uncovered_share(b[:, j], a[:, j])
        if share > LARGEST_UNCOVERED:
            msg = (
                f"{100 * share:.1f} % of the target lie where the source has no events in "
                f"{names[j] if names else f'feature {j}'}; no weights can make them. Cut both to the common region."
            )
            warnings.warn(msg, OverlapWarning, stacklevel=3)


def _check_finite(log_ratio: Array, where: str, *, allow_zero: bool = False) -> None:
    """Infinite ratios have no normalisation; they come from classifiers that answer 0 or 1, or from zero densities.

    A target density of zero is a weight of zero, unless it is zero everywhere.
    """
    zero = np.isneginf(log_ratio)
    wrong = ~np.isfinite(log_ratio)
    if allow_zero and not zero.all():
        wrong &= ~zero
    bad = np.flatnonzero(wrong)
    if len(bad):
        msg = (
            f"the log ratio is infinite or NaN in {len(bad)} of {len(log_ratio)} events {where} (first at row "
            f"{bad[0]}: {log_ratio[bad[0]]}). Use a classifier that never answers exactly 0 or 1 (more events a leaf), "
            "or densities that are positive wherever the source has events."
        )
        raise InputError(msg)


class NotFittedReweighterError(BayesUnfoldError, ValueError, AttributeError):
    """A reweighter was asked for weights before it was fitted."""
