"""Changes of generator weights by systematics as functions of the particle level: equation (18).

Events that are not those of the unfolding have no varied weights. What such a systematic makes of the particle level is
the mean of its change at given particle-level features, which least squares learn in the space of the tangent features
of the particle-level network. The network's own answer to the systematic nearly cancels it, so neither stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from bayesunfold._support.checks import effective_size
from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks
from bayesunfold.classifier.linearized import factor_of

if TYPE_CHECKING:
    from bayesunfold.unfolding.members import Members

__all__ = ["LearnedChanges"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class LearnedChanges:
    """Coefficients of the changes along the basis of the particle-level network.

    Attributes
    ----------
    up, down : array, shape (p, k)
        Change of the logarithm of the weights at plus and minus one standard deviation, or relative change of them.
    alpha : array, shape (k, n_members)
        Their parameters; profiled ones less their values at the point estimate.
    relative : boolean array, shape (k,)
        Which are relative changes.
    """

    up: Array
    down: Array
    alpha: Array
    relative: NDArray[np.bool_]

    @classmethod
    def of(cls, members: Members) -> LearnedChanges:
        """Least squares over the simulated events that pass particle level, with their generator weights.

        Raises
        ------
        ConvergenceError
            If negative generator weights leave a direction without a positive curvature.
        """
        columns = members.columns(None)
        k = len(columns)
        found = _least_squares(members, [c.up for c in columns] + [c.down for c in columns])
        alpha = np.array([c.alpha for c in columns]).reshape(k, members.n_members)
        return cls(found[:, :k], found[:, k:], alpha, np.array([c.relative for c in columns], dtype=bool))

    def __bool__(self) -> bool:
        """Whether a systematic changes generator weights."""
        return bool(len(self.alpha))

    def factors(self, features: Array, members: NDArray[np.integer] | slice = slice(None)) -> Array:
        """What some members make of generator weights at tangent features (n, p), shape (n, members)."""

        def change(chosen: NDArray[np.bool_]) -> Array:
            alpha = self.alpha[chosen][:, members]
            up, down = self.up[:, chosen], self.down[:, chosen]
            return np.asarray(features @ (up @ np.maximum(alpha, 0.0) + down @ np.maximum(-alpha, 0.0)))

        factors: Array = np.exp(change(~self.relative)) * (1.0 + change(self.relative))
        return factors


def _least_squares(members: Members, columns: list[Array]) -> Array:
    """Coefficients of the columns, each a value per event, along the basis, shape (p, columns)."""
    network, events = members.step2.classifier, members.events
    p = network.basis.shape[1]
    if not columns:
        return np.zeros((p, 0))
    weight = np.where(events.passes.gen, events.weight, 0.0)
    weight = weight * (effective_size(weight) / weight.sum())
    gram, right = np.eye(p), np.zeros((p, len(columns)))  # the prior keeps directions that no event sees at zero

    def one(rows: slice) -> tuple[Array, Array]:
        features, w = network.features(events.gen[rows]), weight[rows]
        values = np.column_stack([column[rows] for column in columns]) * w[:, None]
        return features.gram(w), features.dot(values)

    for part, product in map_blocks(one, blocks(len(events))):
        gram += part
        right += product
    found: Array = cho_solve(factor_of(gram, network.name), right)
    return found
