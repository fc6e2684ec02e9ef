"""Several models in one sample, each where it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_features, as_numbers, as_weight, check_finite, effective_size
from bayesunfold.errors import InputError, InputTypeError

__all__ = ["Blend", "blend"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Blend:
    """Weights of the concatenated samples.

    Attributes
    ----------
    weight : array, shape (n,)
        Of all events, sample after sample.
    sample : int array, shape (n,)
        Which sample an event came from.
    total, total_std : float
        Yield of the blend and its statistical uncertainty.
    effective_size : float

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> half = bu.blend([np.zeros((3, 1)), np.zeros((4, 1))], lambda x: np.full((len(x), 2), 0.5))
    >>> half.total, half.sample.tolist()
    (3.5, [0, 0, 0, 1, 1, 1, 1])
    """

    weight: Array
    sample: NDArray[np.integer]
    total: float
    total_std: float
    effective_size: float


def blend(
    samples: Sequence[ArrayLike],
    region_weights: Callable[[Array], ArrayLike] | Sequence[ArrayLike],
    weights: Sequence[ArrayLike | None] | None = None,
) -> Blend:
    """Move smoothly from one model's density to another's across phase space, equation (R12).

    Parameters
    ----------
    samples : sequence of arrays, shape (n_k, d)
        Events of each model, normalised to the same luminosity by their weights.
    region_weights : callable, or one array (n_k, models) a sample
        Trust in each model at an event, shape (n, models); non-negative, scaled to sum one. An event of model ``k`` is
        weighted by the trust in model ``k`` where it lies.
    weights : sequence of arrays, optional
        Generator weights.

    Returns
    -------
    Blend

    Raises
    ------
    InputError
        Different features, negative trust, or no trust at all at an event.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> x = np.array([[0.0], [1.0]])
    >>> trust = lambda x: np.column_stack([1 - x[:, 0], x[:, 0]])
    >>> bu.blend([x, x], trust).weight
    array([1., 0., 0., 1.])
    """
    read = [as_features(s, f"sample {k}") for k, s in enumerate(samples)]
    columns = {names for _, names in read if names is not None}
    if len(columns) > 1:
        msg = f"samples have columns {' and '.join(map(str, sorted(columns)))}; give the same ones in the same order."
        raise InputError(msg)
    events = [x for x, _ in read]
    for k, x in enumerate(events):
        check_finite(x, None, f"sample {k}", tuple(f"feature {j}" for j in range(x.shape[1])), "repair or remove them.")
    if len(events) < 2 or len({e.shape[1] for e in events}) != 1:
        msg = f"samples have {[e.shape[1] for e in events]} features; give at least two samples of the same features."
        raise InputError(msg)
    if not callable(region_weights) and not isinstance(region_weights, Sequence | np.ndarray):
        msg = f"region_weights is {region_weights!r}; give a function of the events, or one array per sample."
        raise InputTypeError(msg)
    if not callable(region_weights) and len(region_weights) != len(events):
        msg = f"region_weights holds {len(region_weights)} arrays for {len(events)} samples; give one a sample."
        raise InputError(msg)
    if weights is not None and len(weights) != len(events):
        msg = f"weights holds {len(weights)} arrays for {len(events)} samples; give one a sample, or None."
        raise InputError(msg)
    given = [None] * len(events) if weights is None else list(weights)
    out, sample = [], []
    for k, x in enumerate(events):
        found = region_weights(x) if callable(region_weights) else region_weights[k]
        trust = as_numbers(found, f"region weights of sample {k}")
        if trust.shape != (len(x), len(events)):
            msg = f"region weights of sample {k} have shape {trust.shape}; they must be ({len(x)}, {len(events)})."
            raise InputError(msg)
        total = trust.sum(axis=1)
        if not np.all(np.isfinite(trust)) or np.any(trust < 0) or np.any(total <= 0):
            msg = f"region weights of sample {k} must be finite, not negative, and not all zero at any event."
            raise InputError(msg)
        out.append(as_weight(given[k], len(x), f"weights of sample {k}") * trust[:, k] / total)
        sample.append(np.full(len(x), k))
    w = np.concatenate(out)
    return Blend(w, np.concatenate(sample), float(w.sum()), float(np.sqrt(np.sum(w**2))), effective_size(w))
