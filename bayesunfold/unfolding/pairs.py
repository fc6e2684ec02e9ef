"""What goes with one standard deviation of a nuisance parameter, up and down, of all that members have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import InputError
from bayesunfold.unfolding.perturbations import Effect, Perturbations, Shift, Variation

__all__ = ["OneSigma"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


class OneSigma:
    """Combinations of members in which a systematic stands one standard deviation up, and one down.

    What members have of a systematic is a line through zero on either side. All members of a side give its mean slope:
    members of the direct posterior have slopes of their own, and so have those of a ratio with draws. Of a profiled one
    it is one standard deviation of the posterior, the other parameters following: the covariance with the parameter
    over its width. Of one that is correlated with others before the data, all members give that, to their sampling
    error, of all sources' changes of the networks and of the profiled parameters; what other systematics change of the
    weights themselves is left out.

    Parameters
    ----------
    perturbations : Perturbations
    systematic : str

    Raises
    ------
    InputError
        If members do not vary it in both directions, or a file does not have its parameters.
    """

    def __init__(self, perturbations: Perturbations, systematic: str) -> None:
        effect = perturbations.effects[systematic]
        parts = None if isinstance(effect, Shift) else effect.parts
        alpha, size = effect.alpha, 1.0
        if parts is not None:
            alpha, size = parts[systematic], float(effect.alpha.std(ddof=1))
        _check(alpha, systematic)
        self.systematic = systematic
        self.every = parts is not None and systematic in perturbations.correlated
        if self.every:
            self.weights = _slope(effect.alpha - effect.alpha.mean(), size)
        else:
            self.weights = size * _mean(alpha)

    def of(self, by_source: Mapping[str, Array]) -> Array | None:
        """From what each source moves, shape (..., n_members): up and down, shape (..., 2); None for nothing."""
        found = [values for name, values in by_source.items() if self.every or name == self.systematic]
        return np.asarray(np.sum(found, axis=0) @ self.weights) if found else None

    def effect(self, other: Effect) -> Effect:
        """The effect of a systematic, the same or another, in the two members."""
        alpha, parts = np.array([1.0, -1.0]), None
        if isinstance(other, Shift):
            return replace(other, alpha=alpha)
        if other.parts is not None:
            found = self.of(other.parts)
            alpha = np.zeros(2) if found is None else found
            parts = {self.systematic: alpha}
        if isinstance(other, Variation):
            return replace(other, alpha=alpha, parts=parts, draws=None)
        return replace(other, alpha=alpha, parts=parts)


def _check(alpha: Array, systematic: str) -> None:
    if np.isnan(alpha).any():
        msg = f"the file was saved without the nuisance parameters of {systematic!r}; unfold and save again."
        raise InputError(msg)
    if not alpha.min() < 0 < alpha.max():
        msg = f"all {len(alpha)} members vary {systematic!r} in one direction; use more draws, at least 20."
        raise InputError(msg)


def _mean(alpha: Array) -> Array:
    """All members of each side: the slope of the least-squares line through zero."""
    sides = np.column_stack([np.maximum(alpha, 0.0), np.maximum(-alpha, 0.0)])
    return np.asarray(sides / (sides**2).sum(axis=0))


def _slope(alpha: Array, size: float) -> Array:
    """All members: the covariance with a parameter over its width."""
    up = size * alpha / (alpha @ alpha)
    return np.column_stack([up, -up])
