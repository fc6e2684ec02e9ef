"""Draws of p(t | r), which is proportional to nu(t) q(t | r): proposals from q, chosen by their weights nu.

Sampling importance resampling, D. Rubin, J. Am. Stat. Assoc. 82 (1987) 543, doi:10.2307/2289460.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose", "proposal_size"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def choose(factor: Array, draws: int, rng: np.random.Generator) -> NDArray[np.integer]:
    """A proposal for each draw of each event, with probability proportional to its weight.

    Draws of an event share a stratified set of random numbers in random order: each draw alone has the right
    distribution, and together they follow it more closely than independent ones.

    Parameters
    ----------
    factor : array, shape (events, proposals, members)
        Weights, not negative, of which some are positive in every event and member.
    draws : int
        Draw s uses member ``s % members``.
    rng : numpy.random.Generator

    Returns
    -------
    int array, shape (events, draws)

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> sorted(choose(np.array([[[1.0], [0.0], [3.0]]]), 4, rng)[0].tolist())
    [0, 2, 2, 2]
    """
    n, proposals, members = factor.shape
    order = rng.permuted(np.tile(np.arange(draws), (n, 1)), axis=1)
    u = (order + rng.random((n, draws))) / draws
    total = np.cumsum(factor, axis=1, dtype=np.float64)
    level = u * total[:, -1, np.arange(draws) % members]
    out = np.empty((n, draws), dtype=np.int64)
    for s in range(draws):
        out[:, s] = (total[:, :, s % members] <= level[:, s, None]).sum(axis=1)
    return np.minimum(out, proposals - 1)


def proposal_size(factor: Array) -> Array:
    """Effective number of proposals of each event, a mean over members, shape (events,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.mean(factor.sum(axis=1) ** 2 / (factor**2).sum(axis=1), axis=1)
