"""The likelihood of parameters, learned by a classifier, as a PyMC model with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray

from bayesunfold.classifier.activations import ACTIVATIONS
from bayesunfold.classifier.estimator import BayesianClassifier
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.errors import InputError

__all__ = ["parameter_model"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def parameter_model(
    classifier: BayesianClassifier,
    features: Array,
    names: Sequence[str],
    low: Array,
    high: Array,
    log_prior: Callable[[Any], Any] | None = None,
    expected: Callable[[Any], Any] | None = None,
) -> pm.Model:
    """Uniform parameters and the log likelihood ratio of all events, point estimate of the network.

    Parameters
    ----------
    classifier : BayesianClassifier
        Trained on features followed by parameters.
    features : array, shape (n, d)
        The data.
    names : sequence of str
    low, high : array, shape (parameters,)
        Range of each.
    log_prior, expected : callable, optional
        Of the vector of parameters, a PyTensor variable: arithmetic and NumPy functions work on it.
    """
    with pm.Model() as model:
        theta = pt.stack([pm.Uniform(n, float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)])
        pm.Potential("log_likelihood", _log_ratio(classifier, features, theta).sum())
        if log_prior is not None:
            pm.Potential("log_prior", _scalar(log_prior(theta), "log_prior"))
        if expected is not None:
            count = _scalar(expected(theta), "expected")
            pm.Potential("poisson", len(features) * pt.log(count) - count)
    return model


def _scalar(value: Any, what: str) -> Any:
    found = pt.as_tensor_variable(value)
    if found.ndim != 0:
        msg = f"{what} returns an array of {found.ndim} dimensions; it must return one number for one parameter point."
        raise InputError(msg)
    return found


def _log_ratio(classifier: BayesianClassifier, features: Array, theta: Any) -> Any:
    """Log ratio of every event: the network, and its tangent along the mode of the linearised posterior."""
    layout = classifier.layout_
    activation = ACTIVATIONS[layout.activation]
    moved = classifier.directions_ @ classifier.mode_
    layers, steps = layout.layers(classifier.theta_), layout.layers(moved)
    h = x = _standardized(classifier.standardizer_, features, theta)
    tangent: Any = None  # of the layer's inputs
    for number, ((weight, bias), (dw, db)) in enumerate(zip(layers, steps, strict=True)):
        change = h @ pt.as_tensor(dw) + db
        tangent = change if tangent is None else tangent @ pt.as_tensor(weight) + change
        h = h @ pt.as_tensor(weight) + bias
        if number < len(layers) - 1:
            h = activation.symbolic(h)
            tangent = tangent * activation.symbolic_derivative(h)
    out = (h + tangent)[:, 0] - classifier._log_norm
    if layout.additive is None:
        return out
    coefficients = (classifier.theta_ + moved)[layout.n_network :]
    return out + pt.dot(layout.additive.expression(x), coefficients)


def _standardized(s: Standardizer, features: Array, theta: Any) -> Any:
    """Standardised columns; those of the features are numbers already."""
    d = features.shape[1]
    first = {k: v[:d] for k, v in s.state().items() if k not in ("mixing", "intervals")}
    known = Standardizer(**first, mixing=np.eye(d))(features)
    stretched = [
        pt.arcsinh((theta[j] - s.origin[d + j]) / width) if np.isfinite(width) else theta[j]
        for j, width in enumerate(s.width[d:])
    ]
    z = (pt.stack(stretched) - s.centre[d:]) / s.scale[d:]
    columns = [_power(z[j], float(power)) for j, power in enumerate(s.power[d:])]
    return known.astype(np.float64) @ s.mixing[:d] + (pt.stack(columns) - s.mean[d:]) @ pt.as_tensor(s.mixing[d:])


def _power(z: Any, power: float) -> Any:
    """Yeo-Johnson transform of one number; each branch is zero where the other one acts."""
    if power == 1.0:
        return z
    up, down = pt.log1p(pt.maximum(z, 0.0)), pt.log1p(-pt.minimum(z, 0.0))
    positive = up if power == 0.0 else pt.expm1(power * up) / power
    negative = down if power == 2.0 else pt.expm1((2.0 - power) * down) / (2.0 - power)
    return positive - negative
