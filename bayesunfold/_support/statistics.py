"""Intervals of counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["clopper_pearson"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


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
