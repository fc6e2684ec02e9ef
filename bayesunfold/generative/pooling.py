"""Particle-level draws of all measured events together: the next iteration of the unfolded distribution.

With weights ``nu_k`` the draws of event r follow ``nu_k(t) q(t | r)``, normalised. Averaged over the data they have the
density ``nu_{k+1}(t) q(t)`` of the next iteration, whose ratio to ``q(t)`` a classifier learns: equation (G4). Draws
for simulated events stand for ``q(t)``: what the map gets wrong is then in both, where it would otherwise be taken for
a difference and grow from iteration to iteration.

Each event counts with the probability that it is signal at both levels. Of fakes that is the simulation's share at the
event's place, whatever the weights, since a fake weighs as much as the signal there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold._support.streams import part_stream
from bayesunfold._support.threads import map_here
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.classifier.training import fit_map
from bayesunfold.classifier.two_class import Classifier, ClassWeights, TwoClass
from bayesunfold.generative.density import EventDensity, row_blocks
from bayesunfold.generative.resample import choose
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Pool", "next_ratio", "signal_share"]

Array = NDArray[np.floating]

MOST_BYTES, LEAST_PROPOSALS, MOST_PROPOSALS = 1.5e9, 30, 100
"""Memory of a pool's proposals, and proposals of each event.

Choices among m proposals lean towards the simulation by about 1 / m of what the weights move an event.
"""

TRAINED_ROWS, MOST_CHOSEN = 400_000, 8
"""Chosen proposals that a classifier is trained on, all together and of each event."""

POOLED, CHOSEN = 10_000_000, 9_999_999
"""Parts of the stream: blocks of a pool, beyond those of the event posterior's own draws, and choices."""


def __dir__() -> list[str]:
    return __all__


def signal_share(events: StandardizedEvents, layout: Layout, rng: np.random.Generator) -> Array:
    """Probability that each data event is signal that passes both levels, shape (N,).

    Parameters
    ----------
    events : StandardizedEvents
    layout : Layout
        Of a network at detector level.
    rng : numpy.random.Generator
        Of the training.
    """
    share = np.ones(len(events.data.x))
    if events.backgrounds:
        x = np.concatenate([b.x for b in events.backgrounds])
        weight = np.concatenate([b.weight for b in events.backgrounds])
        total = events.data.weight.sum()
        ratio = _ratio(layout, (x, weight), (events.data.x, events.data.weight), events.data.x, rng)
        share *= np.clip(1.0 - ratio * weight.sum() / total, 0.0, 1.0)
    fakes, both, v = events.passes.fakes, events.passes.both, events.reco_weight
    if fakes.any():
        ratio = _ratio(layout, (events.reco[fakes], v[fakes]), (events.reco[both], v[both]), events.data.x, rng)
        share /= 1.0 + ratio * v[fakes].sum() / v[both].sum()
    return share


def _ratio(
    layout: Layout, one: tuple[Array, Array], zero: tuple[Array, Array], at: Array, rng: np.random.Generator
) -> Array:
    """Ratio of two normalised densities at events."""
    (x1, w1), (x0, w0) = one, zero
    ones, zeros = (w * effective_size(w) / w.sum() for w in (w1, w0))
    samples = (ClassWeights.of("one", x1, ones=ones), ClassWeights.of("zero", x0, zeros=zeros))
    classes = TwoClass(samples, float(np.log(ones.sum() / zeros.sum())))
    fit = fit_map(layout, classes.joined(), rng)
    return np.exp(Classifier("the classifier of fakes and backgrounds", layout, fit.theta, classes).log_ratio(at))


@dataclass(frozen=True)
class Pool:
    """Detector-level events with proposals of their particle level.

    Attributes
    ----------
    weight : array, shape (N,)
        Of measured events, in expected signal events that pass both levels; of simulated events.
    proposals : array, shape (N, M, d), float32
        Standardised.
    """

    weight: Array
    proposals: Array

    @classmethod
    def of(
        cls,
        density: EventDensity,
        scale: Standardizer,
        reco: Array,
        weight: Array,
        seed: int,
        part: int,
        most: int = MOST_PROPOSALS,
    ) -> Pool:
        """Proposals for detector-level events.

        Parameters
        ----------
        density : EventDensity
        scale : Standardizer
            Of the particle level.
        reco : array, shape (N, d_reco)
        weight : array, shape (N,)
        seed, part : int
            Pools of different parts have different draws.
        most : int
            Proposals of an event; :data:`MOST_CHOSEN` are enough where none is preferred.
        """
        m = int(np.clip(MOST_BYTES / (4 * scale.n_outputs * len(reco)), min(LEAST_PROPOSALS, most), most))
        out = np.empty((len(reco), m, scale.n_outputs), dtype=np.float32)

        def one(numbered: tuple[int, slice]) -> None:
            number, rows = numbered
            rng = part_stream(seed, "proposals", POOLED * part + number)
            proposed = density.propose(np.repeat(reco[rows], m, axis=0), rng)
            out[rows] = scale(proposed).reshape(-1, m, out.shape[2])

        for _ in map_here(one, enumerate(row_blocks(len(reco), m))):
            pass
        return cls(weight, out)

    def chosen(self, classifier: Classifier | None, seed: int) -> tuple[Array, Array]:
        """Proposals drawn by their weights, the same ones for the same weights: features (n, d) and event weights."""
        size, m, d = self.proposals.shape
        ratio = np.ones((size, m))
        if classifier is not None:
            log_ratio = classifier.log_ratio(self.proposals.reshape(-1, d)).reshape(size, m)
            ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
        n = int(np.clip(TRAINED_ROWS // size, 1, min(MOST_CHOSEN, m)))
        rows = choose(ratio[:, :, None], n, part_stream(seed, "proposals", CHOSEN))
        x = np.take_along_axis(self.proposals, rows[:, :, None], axis=1)
        return x.reshape(-1, d), np.repeat(self.weight / n, n)


def next_ratio(
    pool: Pool,
    simulated: Pool,
    before: Classifier | None,
    layout: Layout,
    rng: np.random.Generator,
    seed: int,
) -> Classifier:
    """The classifier of draws for measured events against draws for simulated ones, at particle level.

    Both classes enter at one effective size, that of the smaller sample. Draws hold no more information than their
    events: with a larger size the network would follow the fluctuations of few data.

    Parameters
    ----------
    pool, simulated : Pool
    before : Classifier, optional
        Of the iteration before; None for the first.
    layout : Layout
        Of the network.
    rng : numpy.random.Generator
        Of the training.
    seed : int
        Choices among proposals are the same in every iteration, so that the iteration can come to rest.
    """
    (x1, ones), (x0, zeros) = pool.chosen(before, seed), simulated.chosen(None, seed)
    size = min(effective_size(pool.weight), effective_size(simulated.weight))
    samples = (
        ClassWeights.of("data", x1, ones=ones * (size / ones.sum())),
        ClassWeights.of("simulation", x0, zeros=zeros * (size / zeros.sum())),
    )
    classes = TwoClass(samples, 0.0)
    fit = fit_map(layout, classes.joined(), rng, start=None if before is None else before.theta)
    return Classifier("pooled draws", layout, fit.theta, classes, fit.objective, fit.decrement)
