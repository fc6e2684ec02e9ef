"""Does the reweighted source look like the target? A second classifier and simpler checks give the answer."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier

from bayesunfold._support.checks import effective_size
from bayesunfold._support.threads import trees_on_one_thread
from bayesunfold.errors import InputTypeError, WeightWarning
from bayesunfold.reweighting._samples import event_folds, read_pair

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from bayesunfold.reweighting.reweighter import Reweighter

__all__ = ["Closure", "closure", "cross_fitted_scores", "weighted_auc"]

Array = NDArray[np.floating]
POSTERIOR_DRAWS, POSTERIOR_ROWS = 20, 20_000
MOST_TRAINED = 0.01
FOLDS = 4


def __dir__() -> list[str]:
    return __all__


def weighted_auc(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve with event weights, negative ones included; ties count half.

    Examples
    --------
    >>> weighted_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    s, y = np.asarray(score, dtype=np.float64), np.asarray(label).astype(bool)
    w = np.ones(len(s)) if weight is None else np.asarray(weight, dtype=np.float64)
    values, place = np.unique(s, return_inverse=True)
    zero = np.bincount(place[~y], w[~y], len(values))
    one = np.bincount(place[y], w[y], len(values))
    below = np.cumsum(zero) - zero
    return float(one @ (below + 0.5 * zero) / (zero.sum() * one.sum()))


@dataclass(frozen=True)
class Closure:
    """How well a reweighting closes.

    Attributes
    ----------
    auc, auc_std, p_value : float
        Of a second classifier that tells the weighted source from the target, cross-fitted; the standard deviation and
        p-value for identical samples (one-sided).
    auc_before : float
        The same for the source without weights: what the classifier could see.
    mean_weight, mean_weight_std : float
        Over the source; one for exact weights.
    largest_weight, effective_size, share_left, pareto_k : float
        Of the source's weights; ``pareto_k`` above 0.7 means that few events decide.
    auc_reach : float
        What the reweighter's own ratio reaches before weighting: far above ``auc_before``, the second classifier is too
        weak to find fault.
    auc_posterior : float
        AUC that the weights' own posterior allows for: of a perfect second classifier when a posterior draw is the
        truth, median over draws. An ``auc`` below it is no more than the training's statistical uncertainty.
    chi2 : dict of str to tuple
        Chi-square, degrees of freedom and p-value per feature, in ten quantile bins of the target (R13).

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> source, target = rng.normal(0, 1, 1000), rng.normal(0.5, 1, 1000)
    >>> reweighter = bu.Reweighter("binned", bins=5).fit(source, target)
    >>> c = bu.closure(reweighter, source, target)
    >>> bool(c.effective_size < 1000), sorted(c.chi2)
    (True, ['feature 0'])
    """

    auc: float
    auc_std: float
    p_value: float
    auc_before: float
    mean_weight: float
    mean_weight_std: float
    largest_weight: float
    effective_size: float
    share_left: float
    pareto_k: float
    chi2: dict[str, tuple[float, int, float]]
    auc_reach: float = float("nan")
    auc_posterior: float = float("nan")
    samples: dict[str, Any] = field(default_factory=dict, repr=False)

    def to_dataframe(self) -> pd.DataFrame:
        """The chi-square of each feature with its p-value; the numbers of all features are attributes."""
        import pandas as pd

        rows = [(name, value, n, p) for name, (value, n, p) in self.chi2.items()]
        return pd.DataFrame(rows, columns=["feature", "chi2", "dof", "p-value"])

    def table(self) -> str:
        """All numbers as text."""
        lines = [
            f"second classifier: AUC {self.auc:.4f} (0.5 +- {self.auc_std:.4f} if identical, p = {self.p_value:.3g}); "
            f"{self.auc_before:.4f} before weighting, where the weights' own ratio reaches {self.auc_reach:.4f}",
            f"the weights' own statistical uncertainty allows for an AUC of {self.auc_posterior:.4f}",
            f"mean weight {self.mean_weight:.4f} +- {self.mean_weight_std:.4f}, largest {self.largest_weight:.3g}, "
            f"Pareto k {self.pareto_k:.2f}",
            f"effective size {self.effective_size:.0f}, {100 * self.share_left:.1f} % of the source's",
        ]
        lines += [f"{name}: chi2 {c:.1f} / {n}, p = {p:.3g}" for name, (c, n, p) in self.chi2.items()]
        return "\n".join(lines)

    def plot(self, feature: int = 0) -> Figure:
        """Weighted source against target with ratios, and the second classifier's ROC before and after."""
        from bayesunfold.plots.reweighting import plot_closure

        return plot_closure(self, feature)


def closure(
    reweighter: Reweighter,
    source: ArrayLike,
    target: ArrayLike,
    source_weight: ArrayLike | None = None,
    target_weight: ArrayLike | None = None,
    classifier: Any = None,
    random_state: int = 0,
) -> Closure:
    """Test weights on events, if possible on events that no training saw.

    Parameters
    ----------
    reweighter : Reweighter
        Fitted. Events of its training get their out-of-fold weights.
    source, target : array or frame, shape (n,) or (n, d)
    source_weight, target_weight : array, optional
    classifier : scikit-learn classifier, optional
        The second classifier; gradient-boosted trees if omitted, another kind than the reweighting's own.

    Returns
    -------
    Closure

    Warns
    -----
    WeightWarning
        If more than 1 % of the events were in the training of a reweighter with one fold.

    Notes
    -----
    The second classifier is cross-fitted in four folds, so its AUC is never scored on its training events. For
    identical samples the AUC has variance ``(n0 + n1 + 1) / (12 n0 n1)`` (R7; Mann and Whitney,
    doi:10.1214/aoms/1177730491) at the effective sizes.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> source, target = rng.normal(0, 1, (2, 1500)), rng.normal(0.8, 1, (2, 1500))
    >>> reweighter = bu.Reweighter(draws=20, random_state=1).fit(source[0], target[0])
    >>> c = bu.closure(reweighter, source[1], target[1])
    >>> c.auc_before > 0.6, abs(c.auc - 0.5) < 4 * c.auc_std
    (True, True)
    """
    if not hasattr(reweighter, "weights"):
        msg = f"reweighter is a {type(reweighter).__name__}; pass a fitted bayesunfold.Reweighter."
        raise InputTypeError(msg)
    a, b, wa, wb, names = read_pair(source, target, source_weight, target_weight)
    factor = reweighter.weights(source)  # which knows the order of its columns
    _warn_of_training_events(reweighter, np.concatenate([a, b]))
    weighted = wa * factor
    model = HistGradientBoostingClassifier(max_iter=60, random_state=random_state) if classifier is None else classifier
    score, before = cross_fitted_scores(model, a, b, weighted, wb), cross_fitted_scores(model, a, b, wa, wb)
    y = np.repeat([0, 1], [len(a), len(b)])
    n0, n1 = effective_size(weighted), effective_size(wb)
    std = auc_error(n0, n1)
    auc = weighted_auc(score, y, np.concatenate([weighted, wb]))
    mean = float(weighted.sum() / wa.sum())
    spread = float(np.sqrt(np.sum(wa**2 * (factor - mean) ** 2)) / wa.sum())
    labels = names or tuple(f"feature {j}" for j in range(a.shape[1]))
    return Closure(
        auc=auc,
        auc_std=std,
        p_value=float(stats.norm.sf((auc - 0.5) / std)),
        auc_before=weighted_auc(before, y, np.concatenate([wa, wb])),
        mean_weight=mean,
        mean_weight_std=spread,
        largest_weight=float(factor.max()),
        effective_size=n0,
        share_left=n0 / effective_size(wa),
        pareto_k=_pareto_k(factor),
        chi2={name: _chi2(a[:, j], b[:, j], weighted, wb) for j, name in enumerate(labels)},
        auc_reach=weighted_auc(reweighter.log_ratio(np.concatenate([a, b])), y, np.concatenate([wa, wb])),
        auc_posterior=_posterior_auc(reweighter, a, wa),
        samples={
            "source": a,
            "target": b,
            "source_weight": wa,
            "target_weight": wb,
            "weights": factor,
            "names": labels,
            "after": score,
            "before": before,
        },
    )


def _warn_of_training_events(reweighter: Reweighter, x: Array) -> None:
    counted = getattr(getattr(reweighter, "_ratio", None), "trained_share", None)
    share = 0.0 if counted is None else counted(x)
    if share > MOST_TRAINED:
        msg = (
            f"{100 * share:.0f} % of the events were in the training of the only classifier, so that weights fit their "
            "fluctuations and closure looks better than it is. Use other events, or folds of 2 and more."
        )
        warnings.warn(msg, WeightWarning, stacklevel=3)


def _posterior_auc(reweighter: Reweighter, a: Array, wa: Array) -> float:
    """AUC between the source weighted by the point estimate and by a posterior draw, median over some draws (R8)."""
    rows = slice(None, None, max(1, len(a) // POSTERIOR_ROWS))
    x, w = a[rows], wa[rows]
    best = reweighter.log_ratio(x)
    y = np.repeat([0, 1], len(x))
    found = []
    for drawn in reweighter.log_ratio_draws(x)[:POSTERIOR_DRAWS]:
        weight = np.concatenate([w * np.exp(best), w * np.exp(drawn)])
        # the ratio of the two densities is known here, so this is the best any classifier can do
        found.append(weighted_auc(np.tile(drawn - best, 2), y, weight))
    return float(np.median(found))


def cross_fitted_scores(classifier: Any, a: Array, b: Array, wa: Array, wb: Array) -> Array:
    """Cross-fitted scores; classes balanced, negative weights enter the training as their absolute value."""
    x = np.concatenate([a, b])
    y = np.repeat([0, 1], [len(a), len(b)])
    w = np.abs(np.concatenate([wa / wa.sum(), wb / wb.sum()]))
    fold = event_folds(x, FOLDS)
    out = np.zeros(len(x))
    for k in range(FOLDS):
        rows = fold == k
        if not rows.any():
            continue
        with trees_on_one_thread() if isinstance(classifier, HistGradientBoostingClassifier) else nullcontext():
            model = clone(classifier).fit(x[~rows], y[~rows], sample_weight=w[~rows] * len(x))
            out[rows] = model.predict_proba(x[rows])[:, 1]
    return out


def auc_error(n0: float, n1: float) -> float:
    """Standard deviation of the AUC of identical samples of these effective sizes, equation (R7)."""
    return float(np.sqrt((n0 + n1 + 1) / (12 * n0 * n1)))


def roc_curve(score: Array, label: Array, weight: Array) -> tuple[Array, Array]:
    """Share of class 0 and of class 1 above each score, from the highest down; negative weights are allowed."""
    order = np.argsort(-score, kind="stable")
    w, y = weight[order], label[order]
    zero, one = np.cumsum(w * (y == 0)), np.cumsum(w * (y == 1))
    return np.r_[0.0, zero / zero[-1]], np.r_[0.0, one / one[-1]]


def _chi2(a: Array, b: Array, wa: Array, wb: Array, bins: int = 10) -> tuple[float, int, float]:
    """Chi-square of two weighted shapes in quantile bins of the target, with the covariance (R13) of both."""
    edges = np.unique(np.quantile(b, np.linspace(0, 1, bins + 1))[1:-1])
    n = len(edges) + 1
    difference, covariance = np.zeros(n), np.zeros((n, n))
    for sign, x, w in ((1, a, wa), (-1, b, wb)):
        index = np.searchsorted(edges, x, side="right")
        shape = np.bincount(index, w, n) / w.sum()
        squares = np.bincount(index, w**2, n) / w.sum() ** 2
        across = np.outer(squares, shape)
        covariance += np.diag(squares) - across - across.T + squares.sum() * np.outer(shape, shape)
        difference += sign * shape
    # shapes sum to one, so one direction has no variance, as have empty bins
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-10 * sum(float(w @ w) / w.sum() ** 2 for w in (wa, wb))
    value, dof = float(np.sum((difference @ vectors[:, kept]) ** 2 / values[kept])), int(kept.sum())
    return value, dof, float(stats.chi2.sf(value, max(dof, 1)))


def _pareto_k(weights: Array) -> float:
    """Shape of the generalised Pareto tail of the weights (Vehtari et al., arXiv:1507.02646)."""
    from arviz_stats import base

    positive = weights[weights > 0]
    if len(positive) < 100:
        return 0.0
    tail = np.sort(positive)[-int(min(0.2 * len(positive), 3.0 * np.sqrt(len(positive)))) :]
    if np.ptp(tail) < 1e-9 * tail[-1]:  # bins give many events the same largest weight: no tail
        return 0.0
    _, k = base.array_stats.psislw(np.log(positive))  # type: ignore[attr-defined,no-untyped-call]
    return float(k)
