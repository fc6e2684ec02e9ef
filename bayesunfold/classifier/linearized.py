"""From a fitted classifier to the posterior of its linearised network in whitened axes."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor
from scipy.special import expit

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import forward, pass_blocks, tangent
from bayesunfold.classifier.sampling import LinearizedPosterior, chosen_by_leverage
from bayesunfold.classifier.sums import TangentFeatures, gradient_sum
from bayesunfold.classifier.two_class import Classifier, ClassWeights
from bayesunfold.errors import ConvergenceError

__all__ = ["curvature_of", "factor_of", "linearize", "linearize_some", "posterior_axes", "whitened_directions"]

Array = NDArray[np.floating]

BLOCK = 4096
"""Events per block of a sum. Changing it changes the order of summation."""


def __dir__() -> list[str]:
    return __all__


def curvature_of(classifier: Classifier) -> Array:
    """Curvature of the loss of all its events and of its prior, in its basis: equation (1), shape (p, p)."""
    out = np.eye(classifier.basis.shape[1])
    for sample in classifier.classes.simulated_last():
        for part in map_blocks(partial(_curvature_part, classifier, sample), pass_blocks(len(sample), BLOCK)):
            out += part
    return out


def _curvature_part(classifier: Classifier, sample: ClassWeights, rows: slice) -> Array:
    curvature = classifier.residuals(sample, rows)[2]
    phi = classifier.features(sample.x[rows])
    return phi.gram(curvature).astype(np.float64)


def factor_of(matrix: Array, what: str) -> tuple[Array, bool]:
    """Cholesky factor of a curvature.

    Raises
    ------
    ConvergenceError
        If negative weights make it indefinite.
    """
    try:
        return cho_factor(matrix, lower=True)
    except np.linalg.LinAlgError:
        msg = (
            f"the curvature of {what} is not positive definite; negative event weights dominate "
            "some region of phase space. Merge or remove such events."
        )
        raise ConvergenceError(msg) from None


def posterior_axes(classifier: Classifier) -> tuple[Array, Array]:
    """Axes in which the linearised posterior of a classifier is close to N(0, 1).

    Returns
    -------
    axes : array, shape (p, p)
        ``C1`` with ``A1 = C1 C1'`` (equation 1) and orthogonal columns: ``C1 = V sqrt(L)`` from
        the eigenvectors ``V`` and eigenvalues ``L`` of ``A1``.
    precision : array, shape (p,)
        The eigenvalues.

    Raises
    ------
    ConvergenceError
        If negative weights make the curvature indefinite.
    """
    curvature = curvature_of(classifier)
    values, vectors = np.linalg.eigh(curvature)
    if values[0] <= 0:
        factor_of(curvature, classifier.name)
    return vectors * np.sqrt(values), values


def whitened_directions(classifier: Classifier, axes: Array, precision: Array) -> Array:
    """Directions of weight space in which the posterior is about N(0, 1), shape (P, p).

    With ``A = V L V'`` and ``axes = V sqrt(L)``, the displacement is ``basis V L^-1/2 z``.
    """
    return classifier.basis @ (axes / precision)


def linearize(classifier: Classifier, axes: Array, precision: Array) -> LinearizedPosterior:
    """The linearised posterior of a classifier on its labelled events.

    Parameters
    ----------
    classifier : Classifier
        At its most probable weights, whose prior is N(0, 1).
    axes, precision : arrays
        From :func:`posterior_axes`.
    """
    x, label, weight = classifier.classes.labelled()
    directions = whitened_directions(classifier, axes, precision)
    log_ratio = forward(classifier.layout, classifier.theta, x)
    features = tangent(classifier.layout, classifier.theta, x, directions)
    return _posterior(classifier, axes, precision, features, log_ratio, label, weight)


def _posterior(
    classifier: Classifier,
    axes: Array,
    precision: Array,
    features: Array,
    log_ratio: Array,
    label: NDArray[np.integer],
    weight: Array,
) -> LinearizedPosterior:
    """From whitened tangent features of events; the weights' prior N(0, 1), rotated and scaled, is N(mean, width)."""
    mean = -(axes.T @ (classifier.basis.T @ classifier.theta))
    return LinearizedPosterior(features, log_ratio, label, weight, classifier.classes.offset, mean, np.sqrt(precision))


def linearize_some(
    classifier: Classifier, axes: Array, precision: Array, rng: np.random.Generator
) -> LinearizedPosterior:
    """As :func:`linearize` and its ``thinned``, without the tangent features of all events in memory.

    Parameters
    ----------
    classifier : Classifier
    axes, precision : arrays
        From :func:`posterior_axes`.
    rng : numpy.random.Generator
        Choice of the events.
    """
    layout, theta, offset = classifier.layout, classifier.theta, classifier.classes.offset
    x, label, weight = classifier.classes.labelled()
    directions = whitened_directions(classifier, axes, precision)
    log_ratio = forward(layout, theta, x)
    q = expit(log_ratio + offset)
    leverage = np.abs(weight) * q * (1.0 - q)

    def one(rows: slice) -> tuple[slice, Array]:
        return rows, TangentFeatures.of(layout, theta, x[rows], directions).squares()

    for rows, squares in map_blocks(one, pass_blocks(len(x), BLOCK)):
        leverage[rows] *= squares
    gradient = gradient_sum(layout, theta, x, weight * (label - q))[0] @ directions
    chosen, keep = chosen_by_leverage(leverage, directions.shape[1], rng)
    features = tangent(layout, theta, x[chosen], directions)
    some = _posterior(classifier, axes, precision, features, log_ratio[chosen], label[chosen], weight[chosen] / keep)
    return some.restored(gradient)
