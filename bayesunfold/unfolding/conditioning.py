"""Fluctuations moved, by the least amount, so that they reproduce posterior draws: equations (7)-(10)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from bayesunfold.classifier.linearized import factor_of
from bayesunfold.classifier.two_class import Classifier, ClassWeights
from bayesunfold.unfolding.event_groups import GroupedFluctuations
from bayesunfold.unfolding.group_scores import GroupScores
from bayesunfold.unfolding.kept_total import KeptTotal
from bayesunfold.unfolding.perturbations import BLOCK, Fluctuations, Perturbations
from bayesunfold.unfolding.propagation import event_sums

__all__ = ["Conditioning", "condition_on"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Conditioning:
    """The least change of the fluctuations that reproduces given posterior draws.

    Attributes
    ----------
    classifier : Classifier
        Step 1 of the first iteration.
    multiplier : array, shape (p, n_members)
        Equation (9).
    keeps_total : bool
        Whether the signal keeps its total beside backgrounds, (5a); earlier versions wrote multipliers without that.
    """

    classifier: Classifier
    multiplier: Array
    keeps_total: bool = True

    def apply(self, perturbations: Perturbations) -> Perturbations:
        """Event fluctuations and prior noise moved by equation (10)."""
        samples = self.classifier.classes.samples
        kept = KeptTotal.of(self.classifier) if self.keeps_total else None
        moved = {
            s.name: self.moved(s, perturbations.events[s.name], kept if s.name == "simulation" else None)
            for s in samples
        }
        prior = perturbations.prior + self.classifier.basis @ self.multiplier
        return replace(perturbations, events=dict(perturbations.events) | moved, prior=prior)

    def moved(self, sample: ClassWeights, fluctuations: Fluctuations, kept: KeptTotal | None = None) -> Fluctuations:
        """Fluctuations of one sample, moved."""
        if isinstance(fluctuations, GroupedFluctuations):
            scores = GroupScores.of(self.classifier, sample, fluctuations, kept)
            return fluctuations.moved(lambda groups: scores.centred(groups) @ self.multiplier.astype(sample.x.dtype))

        def move(index: int) -> Array:
            rows = slice(index * BLOCK, min((index + 1) * BLOCK, len(sample)))
            one, zero, _ = self.classifier.residuals(sample, rows)
            x = sample.x[rows]
            net = (one - zero).astype(x.dtype)
            move = net[:, None] * self.classifier.change(x, self.multiplier)  # (10)
            if kept is not None:
                move += np.outer(kept.share[rows], kept.response @ self.multiplier).astype(x.dtype)
            return move

        return fluctuations.moved(move)


def condition_on(classifier: Classifier, perturbations: Perturbations, axes: Array, draws: Array) -> Conditioning:
    """Equations (7)-(9).

    Only what the posterior knows takes part: events and prior, not systematic variations or yields.

    Parameters
    ----------
    classifier : Classifier
        Step 1 of the first iteration.
    perturbations : Perturbations
    axes : array, shape (p, p)
        From :func:`bayesunfold.classifier.linearized.posterior_axes`.
    draws : array, shape (n_members, p)
        Whitened posterior draws ``z``.
    """
    score, b = event_sums(classifier, perturbations)  # (7)
    multiplier = cho_solve(factor_of(score, classifier.name), axes @ draws.T - b)  # (8), (9)
    return Conditioning(classifier, multiplier)
