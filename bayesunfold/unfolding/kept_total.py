"""The total that the signal keeps beside backgrounds in step 1: equation (5a)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.sums import gradient_sum
from bayesunfold.classifier.two_class import Classifier

__all__ = ["KeptTotal"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class KeptTotal:
    """The total that the signal keeps beside backgrounds in class 0 of step 1, equation (5a).

    A relative change ``d`` of the simulation's weights changes class 0 by ``d`` less its weighted mean, since the
    signal is what the backgrounds leave of the data.

    Attributes
    ----------
    share : array, shape (n,)
        Weight of each simulated event in class 0, with sum one.
    response : array, shape (p,)
        Change of the score, along the classifier's basis, when the signal's total falls by all of it.
    """

    share: Array
    response: Array

    @classmethod
    def of(cls, classifier: Classifier) -> KeptTotal | None:
        """Of step 1; None without backgrounds, where the network's constant takes up a change of the total."""
        if len(classifier.classes.samples) <= 2:  # data and simulation, or step 2
            return None
        sample = classifier.classes.sample("simulation")
        _, zero, _ = classifier.residuals(sample, slice(None))
        response = gradient_sum(classifier.layout, classifier.theta, sample.x, zero)[0] @ classifier.basis
        return cls(sample.zeros / sample.zeros.sum(), response)

    def scores(self, change: Array, rows: slice = slice(None)) -> Array:
        """What relative changes of the weights of events, shape (n, k), add to the score, shape (p, k)."""
        return np.multiply.outer(self.response, self.share[rows] @ change)
