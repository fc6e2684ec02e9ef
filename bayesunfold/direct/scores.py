"""Means of functions of the particle level given detector level: the best moments where the log weight is linear.

The derivative of the detector-level log density by ``beta_a`` is ``E[T_a | r] - E[T_a]``, so its sum over events holds
what data say of ``beta_a`` near the answer.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning as StoppedEarly
from sklearn.neural_network import MLPRegressor

from bayesunfold._support.streams import part_stream
from bayesunfold.direct.mode import thinned_rows
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["ScoreFunctions"]

Array = NDArray[np.floating]

MOST_EVENTS, HIDDEN, PASSES = 30_000, (32, 32), 60
"""Events that the regression is trained on, its hidden units, and most passes over the events."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class ScoreFunctions:
    """``E[T_a | r]`` of the standardised functions, in the place of a classifier's tangent features.

    Attributes
    ----------
    regression : MLPRegressor
    size : int
        Number of functions.
    """

    regression: Any
    size: int

    @classmethod
    def of(cls, events: StandardizedEvents, seed: int) -> ScoreFunctions:
        """Learned from simulated events that pass both levels.

        Errors of the regression cost precision, not correctness: any function of detector level makes a moment.
        """
        both = np.flatnonzero(events.passes.both)
        rows = both[thinned_rows(len(both), MOST_EVENTS)]
        regression = MLPRegressor(
            hidden_layer_sizes=HIDDEN,
            activation="tanh",
            early_stopping=len(rows) > 100,
            learning_rate_init=3e-3,
            max_iter=PASSES,
            random_state=int(part_stream(seed, "criticism", 0).integers(2**31)),
        )
        target = events.gen[rows].astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoppedEarly)
            regression.fit(
                events.reco[rows], target if target.shape[1] > 1 else target[:, 0], np.abs(events.reco_weight[rows])
            )
        return cls(regression, target.shape[1])

    @property
    def basis(self) -> Array:
        """As of a classifier: as many columns as functions."""
        return np.eye(self.size)

    def tangent(self, x: Array) -> Array:
        """Values at events, shape (n, functions), of the type of ``x``."""
        if len(x) == 0:
            return np.zeros((0, self.size), dtype=x.dtype)
        return self.regression.predict(x).reshape(len(x), self.size).astype(x.dtype)
