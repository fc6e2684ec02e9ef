"""Scores of a classifier summed over groups of events that fluctuate together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks, events_per_pass
from bayesunfold.classifier.sums import gradient_sum, group_scores
from bayesunfold.classifier.two_class import Classifier, ClassWeights
from bayesunfold.unfolding.event_groups import GroupedFluctuations
from bayesunfold.unfolding.kept_total import KeptTotal

__all__ = ["GroupScores"]

Array = NDArray[np.floating]

EVENTS_AT_ONCE = 8192


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class GroupScores:
    """``K_g = sum_{i in g} net_i J_i``, along a classifier's basis, for the groups of one sample.

    Attributes
    ----------
    name : str
        Of the sample.
    classifier : Classifier
    x : array, shape (n, d)
    net : array, shape (n,)
        Residual of each event, whose products with the tangent features are the scores.
    fluctuations : GroupedFluctuations
    total : array, shape (p,)
        Sum over all groups.
    kept : KeptTotal, optional
        Of the simulation beside backgrounds: part of each event's score.
    """

    name: str
    classifier: Classifier
    x: Array
    net: Array
    fluctuations: GroupedFluctuations
    total: Array
    kept: KeptTotal | None = None

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        sample: ClassWeights,
        fluctuations: GroupedFluctuations,
        kept: KeptTotal | None = None,
    ) -> GroupScores:
        """From the residuals of a sample."""
        one, zero, _ = classifier.residuals(sample, slice(None))
        net = (one - zero).astype(sample.x.dtype)
        total = gradient_sum(classifier.layout, classifier.theta, sample.x, net)[0] @ classifier.basis
        if kept is not None:
            total = total + kept.response
        return cls(sample.name, classifier, sample.x, net, fluctuations, total, kept)

    def of_groups(self, groups: slice) -> Array:
        """Scores of some groups, shape (groups, p), float32."""
        c, size = self.classifier, self.fluctuations.groups.size
        out = np.empty((groups.stop - groups.start, c.basis.shape[1]), self.x.dtype)
        for part in blocks(len(out), max(1, events_per_pass(EVENTS_AT_ONCE) // size)):
            here = slice(groups.start + part.start, groups.start + part.stop)
            rows, real = self.fluctuations.groups.rows(here)
            out[part] = group_scores(c.layout, c.theta, self.x[rows], self.net[rows] * real, size, c.basis)
            if self.kept is not None:
                shares = (self.kept.share[rows] * real).reshape(-1, size).sum(axis=1)
                out[part] += np.outer(shares, self.kept.response).astype(out.dtype)
        return out

    def centred(self, groups: slice) -> Array:
        """As :meth:`of_groups`, for fluctuations before their common part is scaled: equation (15)."""
        f = self.fluctuations
        out = self.of_groups(groups)
        out -= np.outer(f.common * f.totals[groups], self.total).astype(out.dtype)
        return out

    def response(self) -> Array:
        """``sum_g K_g e_g``, the change of the score in every member, shape (p, n_members)."""
        values = self.fluctuations.values()
        return _total(map_blocks(lambda g: self.of_groups(g).T @ values[g], self.fluctuations.group_blocks()))

    def covariance(self) -> Array:
        """Covariance of the score, shape (p, p)."""

        def one(groups: slice) -> Array:
            scores = self.centred(groups)
            return scores.T @ scores

        return _total(map_blocks(one, self.fluctuations.group_blocks()))


def _total(parts: Iterator[Array]) -> Array:
    """Sum in double precision."""
    out = next(parts).astype(np.float64)
    for part in parts:
        out += part
    return out
