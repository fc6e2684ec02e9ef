"""The Bayesian neural network: its shape, its priors, and the PyMC models of it.

What to use when
----------------
``Network()`` is right for almost everyone: its width follows the number of features, and its
scales were chosen by the coverage study (``docs/studies/coverage.md``). ``Network(hidden=(50, 50, 50),
activation="relu")`` is a larger network with ReLU units; it works, and is slower.

:func:`full_model` is the network itself, Normal priors on every layer. :func:`linearized_model` is
the same network expanded about its most probable weights, in the directions that the events
inform; its posterior is log-concave and close to a unit Gaussian, so ADVI and NUTS are both fast and right
there (Immer, Korzepa, Bauer, arXiv:2008.08400).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_count, check_positive
from bayesunfold.classifier.activations import ACTIVATIONS
from bayesunfold.classifier.additive import Additive
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.errors import InputError

if TYPE_CHECKING:
    import pymc as pm

    from bayesunfold.classifier.standardize import Standardizer

__all__ = ["Network", "full_model", "linearized_model"]

Array = NDArray[np.floating]

MOST_LAYERS, MOST_UNITS, MOST_INTERVALS = 10, 2000, 200
LEAST_SCALE, LARGEST_SCALE = 1e-3, 1e4
"""Networks beyond these do not train, or do not fit into memory."""

SCALES_ONE_FEATURE, SCALES_MANY_FEATURES = (3.0, 2.0, 10.0), (1.5, 1.0, 8.0)
"""Default prior scales of the first, further hidden, and output layers (docs/studies/coverage.md).

With several features the scales of one leave hundreds of directions free, and bands far wider than the spread.
"""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Network:
    """Shape and priors of the classifiers' networks.

    Parameters
    ----------
    hidden : sequence of int, optional
        Units of each hidden layer. By default two layers, 16 units for one feature and 24 for
        five or more.
    activation : {"tanh", "relu", "softplus"}
        Non-linearity. The slope of ReLU jumps, which makes the linear response coarser.
    prior_scale : float or sequence of float, optional
        Prior standard deviation of the weights, times ``sqrt(fan_in)``, and of the biases; one
        number for all layers, or one a layer with the output layer last. The output scale sets how large
        a log ratio is thought possible beforehand. ``"evidence"`` learns one a layer from the events, for
        :class:`BayesianClassifier` and :class:`Reweighter` only: in an unfolding every iteration would have its own.
    additive : int
        Intervals of each feature in a sum of one-dimensional functions that is added to the network, equation (A1);
        0 for none. They hold equal shares of the events, and the outer two are split once more. Each feature's
        distribution is then followed as closely as by a histogram of that many bins.
    additive_scale : float
        Prior standard deviation of the change of the log ratio over one interval, equation (A2).

    Raises
    ------
    InputError
        Widths below 1, unknown activations, scales that are not positive or of wrong number.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> bu.Network(hidden=(8, 8)).layout(n_features=2).n_parameters
    105
    """

    hidden: Sequence[int] | None = None
    activation: str = "tanh"
    prior_scale: float | Sequence[float] | Literal["evidence"] | None = None
    additive: int = 0
    additive_scale: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "additive", check_count(self.additive, "additive", 0, MOST_INTERVALS))
        object.__setattr__(self, "additive_scale", _scale(self.additive_scale, "additive_scale"))
        if self.hidden is not None:
            given: Any = self.hidden
            hidden = given.tolist() if isinstance(given, np.ndarray) else given
            if not isinstance(hidden, list | tuple) or not 0 < len(hidden) <= MOST_LAYERS:
                msg = (
                    f"hidden is {self.hidden!r}; give a list of one number of units per layer, for instance (16, 16), "
                    f"of at most {MOST_LAYERS} layers."
                )
                raise InputError(msg)
            units = tuple(check_count(h, "a number of hidden units", 1, MOST_UNITS) for h in hidden)
            object.__setattr__(self, "hidden", units)
        activation: Any = self.activation
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            msg = f"activation is {self.activation!r}; it must be one of {', '.join(ACTIVATIONS)}."
            raise InputError(msg)
        if isinstance(self.prior_scale, str):
            if self.prior_scale != "evidence":
                msg = f"prior_scale is {self.prior_scale!r}; it must be numbers or 'evidence'."
                raise InputError(msg)
        elif self.prior_scale is not None and np.ndim(self.prior_scale) != 0:
            scales = tuple(_scale(s) for s in np.asarray(self.prior_scale).tolist())
            if not scales:
                msg = "prior_scale is empty; give one number, or one per layer with the output layer last."
                raise InputError(msg)
            object.__setattr__(self, "prior_scale", scales)
            if self.hidden is not None and len(scales) != len(self.hidden) + 1:
                msg = f"prior_scale has {len(scales)} entries for {len(self.hidden) + 1} layers; give one a layer."
                raise InputError(msg)
        elif self.prior_scale is not None:
            scale: Any = self.prior_scale
            scale = scale.item() if isinstance(scale, np.ndarray) else scale
            object.__setattr__(self, "prior_scale", _scale(scale))

    @property
    def learns_scales(self) -> bool:
        """Whether the prior scales come from the evidence."""
        return isinstance(self.prior_scale, str)

    def layout(self, n_features: int, standardizer: Standardizer | None = None) -> Layout:
        """Sizes and scales for a number of input features; their standardiser knows the intervals of an additive part.

        Raises
        ------
        InputError
            If there is an additive part and no standardiser.
        """
        if self.additive and standardizer is None:
            msg = "the additive part of a network needs the features' standardiser, which knows its intervals."
            raise InputError(msg)
        hidden = tuple(self.hidden) if self.hidden is not None else default_hidden(n_features)
        if self.prior_scale is None or self.learns_scales:
            first, further, output = SCALES_ONE_FEATURE if n_features == 1 else SCALES_MANY_FEATURES
            scales = (first,) + (further,) * (len(hidden) - 1) + (output,)
        elif np.isscalar(self.prior_scale):
            scales = (float(self.prior_scale),) * (len(hidden) + 1)
        else:
            scales = tuple(float(x) for x in self.prior_scale)
            if len(scales) != len(hidden) + 1:
                msg = f"prior_scale has {len(scales)} entries for {len(hidden) + 1} layers; give one a layer."
                raise InputError(msg)
        additive = Additive.of(standardizer, self.additive_scale) if self.additive and standardizer else None
        return Layout((n_features, *hidden, 1), self.activation, scales, additive)

    def state(self) -> dict[str, object]:
        """The arguments, as JSON-ready values."""
        scale = self.prior_scale
        return {
            "hidden": None if self.hidden is None else list(self.hidden),
            "activation": self.activation,
            "prior_scale": scale if scale is None or np.isscalar(scale) else list(scale),
            "additive": self.additive,
            "additive_scale": self.additive_scale,
        }


def _scale(value: object, what: str = "a prior_scale") -> float:
    scale = check_positive(value, what)
    if not LEAST_SCALE <= scale <= LARGEST_SCALE:
        msg = (
            f"{what} is {scale:g}; it must lie between {LEAST_SCALE:g} and {LARGEST_SCALE:g}: features have "
            "unit width, and a scale of one to ten is usual."
        )
        raise InputError(msg)
    return scale


def default_hidden(n_features: int) -> tuple[int, int]:
    """Two hidden layers whose width grows with the number of features, 16 to 24 units."""
    width = int(min(24, 16 + 2 * (n_features - 1)))
    return width, width


def _weighted_bernoulli(name: str, logit: object, weight: object, observed: object, dims: str) -> None:
    """Bernoulli likelihood with event weights that still predicts and keeps its log-likelihood.

    A ``pm.Potential`` would give the same posterior, but leave nothing for ArviZ to work on.
    The stored log-likelihood is the weighted one.
    """
    import pymc as pm

    def draw(logit: object, _weight: object, size: object) -> object:
        return pm.Bernoulli.dist(logit_p=logit, size=size)

    def logp(value: object, logit: object, weight: object) -> object:
        return weight * pm.logp(pm.Bernoulli.dist(logit_p=logit), value)

    pm.CustomDist(name, logit, weight, dist=draw, logp=logp, observed=observed, dims=dims, dtype="int64", ndim_supp=0)


def _additive_terms(additive: Additive, x: Array, model: pm.Model) -> Any:
    """The sum of one-dimensional functions, with a variable of its own for each feature's coefficients."""
    import pymc as pm
    import pytensor.tensor as pt

    steps = additive.basis(np.asarray(x, dtype=np.float64)) / additive.scale
    total = 0.0
    for j in sorted(set(additive.feature)):
        columns = [k for k, feature in enumerate(additive.feature) if feature == j]
        dim = f"interval_{j + 1}"
        model.add_coord(dim, [f"{additive.low[k]:.3g} to {additive.high[k]:.3g}" for k in columns])
        data = pm.Data(f"steps_{j + 1}", steps[:, columns], dims=("event", dim))
        total = total + pt.dot(data, pm.Normal(f"additive_{j + 1}", 0.0, additive.scale, dims=dim))
    return total


def full_model(layout: Layout, x: Array, label: NDArray[Any], weight: Array, offset: float) -> pm.Model:
    """The network as a PyMC model, in the units of its weights.

    Parameters
    ----------
    layout : Layout
    x : array, shape (n, d)
        Standardised features.
    label : array, shape (n,)
        0 or 1.
    weight : array, shape (n,)
        Event weights, scaled so that each class sums to its effective size.
    offset : float
        Fixed part of the logit.

    Returns
    -------
    pymc.Model
        Free variables ``weight_1, bias_1, ...``, and of an additive part ``additive_1, ...`` by feature; deterministic
        ``log_ratio``; observed ``label``.
    """
    import pymc as pm
    import pytensor.tensor as pt

    act = ACTIVATIONS[layout.activation].symbolic
    coords: dict[str, Sequence[object]] = {"feature": list(range(layout.sizes[0]))}
    for layer, units in enumerate(layout.sizes[1:-1], start=1):
        coords[f"unit_{layer}"] = list(range(units))
    with pm.Model(coords=coords) as model:
        features = pm.Data("features", np.asarray(x, dtype=np.float64), dims=("event", "feature"))
        weights = pm.Data("event_weight", np.asarray(weight, dtype=np.float64), dims="event")
        labels = pm.Data("class", np.asarray(label, dtype=np.int64), dims="event")
        shift = pm.Data("offset", np.float64(offset))
        value = features
        n_layers = len(layout.sizes) - 1
        for layer, (_, _, fan_in, fan_out, w_scale, b_scale) in enumerate(layout.pieces(), start=1):
            last = layer == n_layers
            inner = "feature" if layer == 1 else f"unit_{layer - 1}"
            w_dims: tuple[str, ...] = (inner,) if last else (inner, f"unit_{layer}")
            start = np.random.Generator(np.random.Philox(key=layer)).normal(size=fan_in if last else (fan_in, fan_out))
            # all weights at zero, the prior's mean, is a saddle point
            w = pm.Normal(f"weight_{layer}", 0.0, w_scale, dims=w_dims, initval=w_scale * start)
            b = pm.Normal(f"bias_{layer}", 0.0, b_scale, dims=() if last else (f"unit_{layer}",))
            value = pt.dot(value, w) + b
            if not last:
                value = act(value)
        if layout.additive is not None:
            value = value + _additive_terms(layout.additive, x, model)
        log_ratio = pm.Deterministic("log_ratio", value, dims="event")
        _weighted_bernoulli("label", log_ratio + shift, weights, labels, "event")
    return model


def linearized_model(
    tangent: Array,
    log_ratio: Array,
    label: Array,
    weight: Array,
    offset: float,
    mean: Array,
    width: Array,
    gradient: Array | None = None,
    curvature: Array | None = None,
) -> pm.Model:
    """The network linearised about its most probable weights, as a PyMC model.

    ``f(x) = f*(x) + Phi(x) z`` with ``z`` the displacement along posterior axes, in units of the
    linearised posterior's own width. The weights' Normal prior is exact in these coordinates: a rotation and
    a scaling of a Normal.

    Parameters
    ----------
    tangent : array, shape (n, p)
        ``Phi``, tangent features along the posterior axes.
    log_ratio : array, shape (n,)
        ``f*``, the point estimate at the events.
    label, weight : array, shape (n,)
        Class and weight of each event.
    offset : float
        Fixed part of the logit.
    mean, width : array, shape (p,)
        Prior of ``z``.
    gradient, curvature : array, shape (p,) and (p, p), optional
        Correction ``gradient z - z' curvature z / 2`` of the log-likelihood of a part of the events.

    Returns
    -------
    pymc.Model
        Free variable ``z``; observed ``label``.
    """
    import pymc as pm

    with pm.Model() as model:
        phi = pm.Data("tangent", np.asarray(tangent, dtype=np.float64), dims=("event", "direction"))
        best = pm.Data("point_estimate", np.asarray(log_ratio, dtype=np.float64), dims="event")
        weights = pm.Data("event_weight", np.asarray(weight, dtype=np.float64), dims="event")
        labels = pm.Data("class", np.asarray(label, dtype=np.int64), dims="event")
        shift = pm.Data("offset", np.float64(offset))
        prior_mean = pm.Data("prior_mean", np.asarray(mean, dtype=np.float64), dims="direction")
        prior_width = pm.Data("prior_width", np.asarray(width, dtype=np.float64), dims="direction")
        z = pm.Normal("z", prior_mean, prior_width, dims="direction")
        _weighted_bernoulli("label", best + phi @ z + shift, weights, labels, "event")
        if gradient is not None and curvature is not None:
            linear = pm.Data("gradient", np.asarray(gradient, dtype=np.float64), dims="direction")
            square = pm.Data("curvature", np.asarray(curvature, dtype=np.float64))
            pm.Potential("second_order_correction", (linear * z).sum() - 0.5 * (z * (square @ z)).sum())
    return model
