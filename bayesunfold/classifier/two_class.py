"""One fitted classifier with the class weights it was fitted to: its directions, and the axes of its posterior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor
from scipy.special import expit

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import Layout, blocks, forward, tangent
from bayesunfold.errors import ConvergenceError

__all__ = ["Stage", "curvature_of", "factor_of", "leading_directions", "whitened_axes"]

Array = NDArray[np.floating]

BLOCK = 4096
"""Events per block of a sum. Changing it changes the order of summation."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Stage:
    """One fitted classifier of the loop, with the class weights it was fitted to.

    Attributes
    ----------
    layout, theta
        The network and its most probable weights.
    basis : array, shape (P, p)
        Directions of weight space in which the refit is done, orthonormal.
    level : {"gen", "reco"}
        Which features the network reads.
    ones, zeros : array, shape (n,)
        Weight of each simulated event in class 1 and class 0; zero for events not used.
    offset : float
        Fixed part of the logit.
    data_ones : array, shape (N,), optional
        Weights of data events, class 1 of step 1.
    background_zeros : dict of str to array
        Weights of background events, class 0 of step 1, by background.
    """

    layout: Layout
    theta: Array
    basis: Array
    level: Literal["gen", "reco"]
    ones: Array
    zeros: Array
    offset: float
    data_ones: Array | None = None
    background_zeros: Mapping[str, Array] = field(default_factory=dict)

    @property
    def measures(self) -> bool:
        """Whether data are part of the fit: true for step 1."""
        return self.data_ones is not None

    def tangent(self, x: Array) -> Array:
        """Tangent features ``Phi = J basis`` at events ``x``."""
        return tangent(self.layout, self.theta, x, self.basis)

    def forward(self, x: Array) -> Array:
        """Log ratio at events ``x``."""
        return forward(self.layout, self.theta, x)

    def probability(self, x: Array) -> Array:
        """Probability of class 1 at events ``x``."""
        return expit(self.forward(x) + self.offset)

    def slopes(self, x: Array, rows: slice, sample: str = "simulation") -> tuple[Array, Array, Array]:
        """Per event: pull of class 1, pull of class 0, and curvature of the loss.

        With ``q`` the predicted probability these are ``ones (1 - q)``, ``zeros q`` and
        ``(ones + zeros) q (1 - q)``.
        """
        q = self.probability(x)
        none = np.zeros(len(q))
        if sample == "simulation":
            one, zero = self.ones[rows], self.zeros[rows]
        elif sample == "data":
            one, zero = (none if self.data_ones is None else self.data_ones[rows]), none
        else:
            one, zero = none, self.background_zeros[sample][rows]
        return one * (1 - q), zero * q, (one + zero) * q * (1 - q)


def leading_directions(jacobian: Array, curvature: Array, share: float = 0.999, limit: int = 400) -> Array:
    """Directions of weight space that the events inform, as orthonormal columns.

    Directions are eigenvectors of ``J' diag(h) J``; the fewest are kept that hold ``share`` of
    the effective degrees of freedom ``sum lambda / (1 + lambda)``. All others keep their
    prior, which at the events is invisible by construction.

    Parameters
    ----------
    jacobian : array, shape (rows, P)
        Tangent features of (a part of) the events.
    curvature : array, shape (rows,)
        Second derivative of each event's loss, scaled to the full sample.

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
    return vectors[:, :kept]


def curvature_of(stage: Stage, x: Array) -> Array:
    """Curvature of the loss of the classifier's simulated events ``x`` and of its prior, in its basis: equation (1)."""

    def one(rows: slice) -> Array:
        curvature = stage.slopes(x[rows], rows)[2]
        phi = stage.tangent(x[rows])
        return np.zeros((phi.shape[1],) * 2) + phi.T @ (phi * curvature[:, None].astype(phi.dtype))

    out = np.eye(stage.basis.shape[1])
    for part in map_blocks(one, blocks(len(x), BLOCK)):
        out += part
    return out


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


def whitened_axes(curvature: Array, what: str) -> tuple[Array, Array]:
    """Axes in which the linearised posterior of a classifier is close to N(0, 1).

    Returns
    -------
    axes : array, shape (p, p)
        ``C1`` with ``A1 = C1 C1'`` (equation 1) and orthogonal columns: ``C1 = V sqrt(L)`` from
        the eigenvectors ``V`` and eigenvalues ``L`` of ``A1``.
    precision : array, shape (p,)
        The eigenvalues.
    """
    values, vectors = np.linalg.eigh(curvature)
    if values[0] <= 0:
        factor_of(curvature, what)
    return vectors * np.sqrt(values), values
