"""Fakes are weighted by a classifier of the same data: what that does to the moments, and to their covariance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks, products
from bayesunfold.classifier.linearized import curvature_of, factor_of
from bayesunfold.classifier.sums import gradient_sum
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.direct.moments import Moments, detector_weights
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["derivative_by_fakes", "noise_covariance"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def derivative_by_fakes(moments: Moments, x: Array, weight: Array, classifier: Classifier) -> Array:
    """Derivative of the fakes' moments by the parameters of the classifier that weighs them, shape (p, q).

    The sum of their weights stays, so it is ``sum w phi (J - mean J)'``.

    Parameters
    ----------
    moments : Moments
    x : array, shape (n, d)
        Of the fakes.
    weight : array, shape (n,)
    classifier : Classifier
        Parameters are those along its basis.
    """
    q = classifier.basis.shape[1]
    mixed, of_phi, of_j = np.zeros((len(moments), q)), np.zeros(len(moments)), np.zeros(q)

    def one(rows: slice) -> tuple[Array, Array, Array]:
        phi, w = moments.features(x[rows]).astype(np.float64) * weight[rows, None], weight[rows]
        j = classifier.tangent(x[rows]).astype(np.float64)
        return phi.T @ j, phi.sum(axis=0), w @ j

    for product, sum_phi, sum_j in map_blocks(one, blocks(len(x))):
        mixed += product
        of_phi += sum_phi
        of_j += sum_j
    return mixed - np.outer(of_phi, of_j / weight.sum())


def noise_covariance(events: StandardizedEvents, moments: Moments, first: Iteration) -> Array:
    """Covariance of the whitened moments at a given network, the fakes' weights following data, shape (p, p).

    One without fakes. With ``B`` the derivative of the fakes' moments by what step 1 is fitted to, an event of the data
    or of the simulation counts ``psi = phi - B (1 - q) (J - mean J) / kappa`` instead of ``phi`` in (D2), equation
    (D9).

    Parameters
    ----------
    events : StandardizedEvents
    moments : Moments
    first : Iteration
        Whose step 1 weighs the fakes.
    """
    fakes, reco, u = events.passes.fakes, events.passes.reco, events.data.weight
    if not fakes.any():
        return np.eye(len(moments))
    step1, pull = first.step1, detector_weights(events, first)
    kappa = float((u**2).sum() / u.sum())
    by = derivative_by_fakes(moments, events.reco[fakes], pull[fakes], step1)
    follow = cho_solve(factor_of(curvature_of(step1), step1.name), by.T)  # B', shape (q, p)
    there, w = events.reco[reco], pull[reco]
    score = gradient_sum(step1.layout, step1.theta, there, w * (1.0 - step1.probability(there)))[0] @ step1.basis
    mean = (score / w.sum()) @ follow  # the signal keeps what backgrounds leave of the data

    def one(part: tuple[Array, Array]) -> Array:
        x, w = part
        moved = step1.change(x, follow) * (1.0 - step1.probability(x))[:, None] - mean
        return products(moments.features(x) - moved / kappa, w**2 + kappa * w)

    out = follow.T @ follow  # the prior of step 1
    for x, weight in [(there, w), *((b.x, b.weight) for b in events.backgrounds)]:
        for part in map_blocks(one, ((x[rows], weight[rows]) for rows in blocks(len(x)))):
            out += part
    return out
