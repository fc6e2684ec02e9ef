"""Two weighted classes of events at one level, and a fitted classifier of them.

Training, propagation, sampling, storage and report share these objects, so that no one puts the classes together twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bayesunfold._support.threads import accelerator
from bayesunfold.classifier.arithmetic import Layout, accelerator_for, forward, loss_and_gradient, tangent
from bayesunfold.classifier.sums import TangentFeatures

__all__ = ["ClassWeights", "Classifier", "Joined", "TwoClass", "leading_directions"]

Array = NDArray[np.floating]

WIDE = 600
"""Networks with more weights than this are wide: training and directions take their cost into account."""

BASIS_ROWS = 4_000
"""Events that the leading directions are found from."""

SHARE, SHARE_WIDE = 0.999, 0.99
"""Share of the effective degrees of freedom that the leading directions keep."""


KEPT_PRODUCTS = 16
"""Products of a basis with displacements that a classifier keeps for a device."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Joined:
    """Two weighted classes on one list of events, as training sees them.

    Attributes
    ----------
    x : array, shape (n, d)
        Standardised features.
    ones, zeros : array, shape (n,)
        Weight of each event in class 1 and class 0.
    offset : float
        Log ratio of the classes' total weights, the fixed part of the logit.
    """

    x: Array
    ones: Array
    zeros: Array
    offset: float

    def subset(self, rows: NDArray[np.integer]) -> Joined:
        """The same classes estimated from some of the rows, weights scaled up to the total."""
        factor = len(self.x) / len(rows)
        x = self.x.take(rows, axis=0)  # faster than self.x[rows]
        return Joined(x, self.ones[rows] * factor, self.zeros[rows] * factor, self.offset)

    def loss_and_gradient(self, layout: Layout, theta: Array) -> tuple[float, Array]:
        """Loss of a classifier of the two and its gradient, without the prior."""
        device = accelerator_for(len(self.x))
        if device is None:
            return loss_and_gradient(layout, theta, self.x, self.ones, self.zeros, self.offset)
        found: tuple[float, Array] = device.loss_and_gradient(layout, theta, self)
        return found

    def curvature_weights(self, layout: Layout, theta: Array) -> Array:
        """Second derivative of each event's loss with respect to the network's output."""
        q = expit(forward(layout, theta, self.x) + self.offset)
        return (self.ones + self.zeros) * q * (1.0 - q)


@dataclass(frozen=True)
class ClassWeights:
    """One sample's part in a fit.

    Attributes
    ----------
    name : str
        ``"data"``, ``"simulation"`` or a background's name.
    x : array, shape (n, d)
        Standardised features, finite in every row.
    ones, zeros : array, shape (n,)
        Weight of each event in class 1 and class 0; zero for events that are not used.
    used : boolean array, shape (n,), optional
        Events that take part; all if omitted.
    """

    name: str
    x: Array
    ones: Array
    zeros: Array
    used: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, name: str, x: Array, *, ones: Array | None = None, zeros: Array | None = None) -> ClassWeights:
        """A sample of which all events are in one class."""
        none = np.zeros(len(x))
        return cls(name, x, none if ones is None else ones, none if zeros is None else zeros)

    def __len__(self) -> int:
        return len(self.x)

    def taking_part(self) -> tuple[Array, Array, Array]:
        """Features and weights in both classes of the events that take part."""
        if self.used is None:
            return self.x, self.ones, self.zeros
        return self.x[self.used], self.ones[self.used], self.zeros[self.used]


@dataclass(frozen=True)
class TwoClass:
    """Two weighted classes of events at one level.

    Attributes
    ----------
    samples : tuple of ClassWeights
    offset : float
        Log ratio of the classes' total weights, the fixed part of the logit.
    """

    samples: tuple[ClassWeights, ...]
    offset: float

    def joined(self) -> Joined:
        """All events that take part, sample after sample; made anew, since results keep their classes."""
        parts = [sample.taking_part() for sample in self.samples]
        if len(parts) == 1:
            return Joined(*parts[0], self.offset)
        x, ones, zeros = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return Joined(x, ones, zeros, self.offset)

    def labelled(self) -> tuple[Array, NDArray[np.integer], Array]:
        """Features, labels and weights of the events that take part, if each of them is in one class.

        Raises
        ------
        ValueError
            If events are in both classes.
        """
        labels = []
        for sample in self.samples:
            _, ones, zeros = sample.taking_part()
            if np.any((ones != 0) & (zeros != 0)):
                msg = f"events of {sample.name} are in both classes, so they have no label."
                raise ValueError(msg)
            all_ones = bool(np.any(ones)) and not np.any(zeros)  # events of weight zero included
            labels.append(np.ones(len(ones), dtype=np.int64) if all_ones else (ones != 0).astype(np.int64))
        joined = self.joined()
        return joined.x, np.concatenate(labels), joined.ones + joined.zeros

    def sample(self, name: str) -> ClassWeights:
        """The sample of a name."""
        return next(sample for sample in self.samples if sample.name == name)

    def simulated_last(self) -> tuple[ClassWeights, ...]:
        """Samples in the order of summation, which is part of the last digits."""
        return tuple(sorted(self.samples, key=lambda sample: sample.name == "simulation"))


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier with the classes that it was fitted to.

    Attributes
    ----------
    name : str
        For messages: ``"step 1"``, ``"step 2"``.
    layout, theta
        The network and its most probable weights.
    classes : TwoClass
    loss : float
        Objective of the fit.
    decrement : float
        Remaining Newton step of the fit, in posterior standard deviations.
    directions : array, shape (P, p), optional
        Stored basis; found from the classes if omitted.
    """

    name: str
    layout: Layout
    theta: Array
    classes: TwoClass
    loss: float = np.nan
    decrement: float = np.nan
    directions: Array | None = None
    _along: dict[int, tuple[Array, Array]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def basis(self) -> Array:
        """Directions of weight space in which the linear refit is done, orthonormal, shape (P, p)."""
        if self.directions is not None:
            return self.directions
        part = _basis_part(self.classes)
        return _informed(self.layout, self.theta, part, part.curvature_weights(self.layout, self.theta))

    def drawn(self, theta: Array) -> Classifier:
        """The same network with other weights, and the directions that events inform where both classes are alike."""
        part = _basis_part(self.classes)
        q = expit(part.offset)
        directions = _informed(self.layout, theta, part, (part.ones + part.zeros) * q * (1.0 - q))
        return Classifier(self.name, self.layout, theta, self.classes, directions=directions)

    def log_ratio(self, x: Array) -> Array:
        """Log ratio of class 1 over class 0 at events ``x``, shape (n,)."""
        return forward(self.layout, self.theta, x)

    def probability(self, x: Array) -> Array:
        """Probability of class 1 at events ``x``, shape (n,)."""
        return expit(self.log_ratio(x) + self.classes.offset)

    def tangent(self, x: Array) -> Array:
        """Tangent features ``Phi = J basis`` at events ``x``, shape (n, p)."""
        return tangent(self.layout, self.theta, x, self.basis)

    def change(self, x: Array, displacement: Array) -> Array:
        """``tangent(x) @ displacement``, of displacements of the weights along the basis (p, k), shape (n, k)."""
        if accelerator.get() is None:
            return self.tangent(x) @ displacement.astype(x.dtype)
        kept = self._along.get(id(displacement))
        if kept is None or kept[0] is not displacement:
            if len(self._along) >= KEPT_PRODUCTS:
                self._along.clear()
            kept = displacement, self.basis @ displacement
            self._along[id(displacement)] = kept  # the same array stays on the device
        return tangent(self.layout, self.theta, x, kept[1])

    def features(self, x: Array) -> TangentFeatures:
        """As :meth:`tangent`, for sums over events."""
        return TangentFeatures.of(self.layout, self.theta, x, self.basis)

    def residuals(self, sample: ClassWeights, rows: slice) -> tuple[Array, Array, Array]:
        """Per event: residual of class 1, residual of class 0, and curvature of the loss.

        With ``q`` the predicted probability these are ``ones (1 - q)``, ``zeros q`` and
        ``(ones + zeros) q (1 - q)``.
        """
        q = self.probability(sample.x[rows])
        one, zero = sample.ones[rows], sample.zeros[rows]
        return one * (1 - q), zero * q, (one + zero) * q * (1 - q)


def _basis_part(classes: TwoClass) -> Joined:
    """Evenly spaced events, which stand for all."""
    part = classes.joined()
    if len(part.x) > BASIS_ROWS:
        part = part.subset(np.linspace(0, len(part.x) - 1, BASIS_ROWS).astype(int))
    return part


def _informed(layout: Layout, theta: Array, part: Joined, curvature: Array) -> Array:
    share = SHARE if layout.n_parameters <= WIDE else SHARE_WIDE
    return leading_directions(tangent(layout, theta, part.x), curvature, share)


def leading_directions(jacobian: Array, curvature: Array, share: float = SHARE, limit: int = 400) -> Array:
    """Directions of weight space that the events inform, as orthonormal columns.

    Directions are eigenvectors of ``J' diag(h) J``; the fewest are kept that hold ``share`` of
    the effective degrees of freedom ``sum lambda / (1 + lambda)``. Displacements along all
    others are zero: the prior's width there, up to 4 % of a band's width at the events, is left out.

    Parameters
    ----------
    jacobian : array, shape (rows, P)
        Tangent features of (a part of) the events.
    curvature : array, shape (rows,)
        Second derivative of each event's loss, scaled to the full sample.
    share : float
        Share of the effective degrees of freedom to keep.
    limit : int
        Most directions.

    Returns
    -------
    array, shape (P, p)
    """
    scaled = jacobian * np.sqrt(np.maximum(curvature, 0.0))[:, None].astype(jacobian.dtype)
    if scaled.shape[0] < scaled.shape[1]:
        values, vectors = np.linalg.eigh((scaled @ scaled.T).astype(np.float64))
    else:
        values, vectors = np.linalg.eigh((scaled.T @ scaled).astype(np.float64))
    values, vectors = values[::-1], vectors[:, ::-1]
    values = np.maximum(values, 0.0)
    freedom = values / (1.0 + values)
    kept = int(np.searchsorted(np.cumsum(freedom), share * freedom.sum())) + 1
    kept = max(1, min(kept, limit, len(values)))
    if scaled.shape[0] < scaled.shape[1]:
        directions = scaled.T.astype(np.float64) @ vectors[:, :kept]
        return np.linalg.qr(directions)[0]
    return np.ascontiguousarray(vectors[:, :kept])  # as workers of a cluster have it, or products round differently
