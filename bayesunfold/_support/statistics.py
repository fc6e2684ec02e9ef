"""Intervals of counts, means of weights whose logarithm is known, and chi-squares with covariances of draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold.errors import ConvergenceError

__all__ = ["clopper_pearson", "draws_factor", "log_mean_weight"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def draws_factor(draws: int, dof: int) -> float:
    """What a chi-square with the covariance of draws is multiplied by: the inverse of such a covariance is too large.

    References
    ----------
    J. Hartlap, P. Simon, P. Schneider, A&A 464 (2007) 399, doi:10.1051/0004-6361:20066170, equation 17.

    Examples
    --------
    >>> draws_factor(101, 2)
    0.97
    """
    return (draws - dof - 2) / (draws - 1)


def clopper_pearson(successes: ArrayLike, trials: int, level: float = 0.683) -> tuple[Array, Array]:
    """Clopper-Pearson interval of a binomial probability (Biometrika 26 (1934) 404), as ``hist`` has it.

    Parameters
    ----------
    successes : int array
    trials : int
    level : float

    Returns
    -------
    lower, upper : arrays of the shape of ``successes``

    Examples
    --------
    >>> low, high = clopper_pearson(0, 10, 0.95)
    >>> float(low), round(float(high), 4)
    (0.0, 0.3085)
    """
    from hist.intervals import clopper_pearson_interval

    k = np.asarray(successes, dtype=np.float64)
    lower, upper = clopper_pearson_interval(k, np.full_like(k, trials), coverage=level)
    return np.asarray(lower), np.asarray(upper)


def log_mean_weight(log_weight: Array, weight: ArrayLike, events: str) -> Array:
    """Log of the weighted mean of ``exp(log_weight)`` over events, over the last axis: the denominator of (R2).

    Parameters
    ----------
    log_weight : array, shape (n,) or (draws, n)
        Of a point estimate, or of posterior draws.
    weight : array, shape (n,)
    events : str
        Whose weights these are, for the error.

    Raises
    ------
    ConvergenceError
        If a mean is not positive, which negative weights make.

    Examples
    --------
    >>> round(float(log_mean_weight(np.log([1.0, 3.0]), [1.0, 1.0], "the source")), 4)
    0.6931
    """
    top = log_weight.max(axis=-1, keepdims=True)
    w = np.asarray(weight, dtype=np.float64)
    mean = np.exp(log_weight - top) @ w / w.sum()
    bad = int(np.sum(~(mean > 0)))
    if bad:
        which = "the point estimate" if log_weight.ndim == 1 else f"{bad} of {len(mean)} posterior draws"
        msg = (
            f"the mean weight of {which} over {events} is not positive; negative weights have taken over, or a "
            "ratio is not finite. Merge events of negative weight with others near them, or take more events."
        )
        raise ConvergenceError(msg)
    return np.asarray(top[..., 0] + np.log(mean))
