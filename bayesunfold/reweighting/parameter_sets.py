"""What a likelihood ratio says of parameter points: scans, confidence sets, and how often these hold the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ConfidenceSet", "ExpectedCoverage", "Scan"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Scan:
    """Log likelihood over parameter points.

    Attributes
    ----------
    theta : array, shape (points, parameters)
    log_likelihood : array, shape (points,)
        Relative to the best point.
    draws : array, shape (draws, points)
        The same for every posterior draw of the network.
    best : array, shape (parameters,)

    Examples
    --------
    >>> import numpy as np
    >>> theta = np.array([[0.0], [1.0]])
    >>> scan = Scan(theta, np.array([-0.5, 0.0]), np.array([[-0.4, 0.0], [-0.6, 0.0]]), theta[1])
    >>> scan.best
    array([1.])
    """

    theta: Array
    log_likelihood: Array
    draws: Array
    best: Array

    def band(self, level: float = 0.68) -> tuple[Array, Array]:
        """Central band of the log likelihood from the network's uncertainty, per point."""
        tail = 50 * (1 - level)
        low, high = np.percentile(self.draws, [tail, 100 - tail], axis=0)
        return low, high


@dataclass(frozen=True)
class ConfidenceSet:
    """Parameter points that the data do not exclude.

    Attributes
    ----------
    theta : array, shape (points, parameters)
    inside : boolean array, shape (points,)
    statistic, threshold : array, shape (points,)
        ``-2 log lambda`` against the best point, and its quantile.
    level : float

    Examples
    --------
    >>> import numpy as np
    >>> statistic, threshold = np.array([0.0, 4.0]), np.ones(2)
    >>> found = ConfidenceSet(np.array([[0.0], [1.0]]), statistic <= threshold, statistic, threshold, 0.68)
    >>> found.theta[found.inside]
    array([[0.]])
    """

    theta: Array
    inside: NDArray[np.bool_]
    statistic: Array
    threshold: Array
    level: float


@dataclass(frozen=True)
class ExpectedCoverage:
    """Share of toys whose confidence set holds the truth.

    Attributes
    ----------
    theta : array, shape (truths, parameters)
    coverage, lower, upper : array, shape (truths,)
        The share and its 68 % Clopper-Pearson interval.
    level : float
        What the set promises.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesunfold.studies.coverage import clopper_pearson
    >>> low, high = clopper_pearson([136], 200)
    >>> found = ExpectedCoverage(np.array([[0.0]]), np.array([0.68]), low, high, 0.68)
    >>> bool(found.lower[0] < found.level < found.upper[0])
    True
    """

    theta: Array
    coverage: Array
    lower: Array
    upper: Array
    level: float
