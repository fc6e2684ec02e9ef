"""Displacement of a fitted classifier by every member's fluctuation: equations (1)-(6).

A member is one hypothetical fluctuation of the data, the simulation and the prior. It stays the
same over the whole unfolding loop, so that iterating amplifies a fluctuation that is *common* to all
iterations, as it does in reality. Each classifier's displacement is one Gauss-Newton
refit in the space of its tangent features; ``docs/statistics.md`` derives the equations, which
carry the same numbers there and here.

All of it is linear, so the sources of uncertainty (data, simulation, prior, backgrounds, systematics) travel
separately through the same matrices, and their sum is the total.

Only NumPy and SciPy are used. Events are visited in blocks: memory is
``block x (members + directions)`` plus, below ``CACHE_BYTES``, the event fluctuations themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks
from bayesunfold.classifier.linearized import factor_of
from bayesunfold.classifier.sums import TangentFeatures, gradient_sum
from bayesunfold.classifier.two_class import Classifier, ClassWeights
from bayesunfold.unfolding.event_groups import GroupedFluctuations
from bayesunfold.unfolding.group_scores import GroupScores
from bayesunfold.unfolding.kept_total import KeptTotal
from bayesunfold.unfolding.perturbations import Block, Perturbations, interpolate

__all__ = [
    "Carried",
    "Displacement",
    "PullNormalization",
    "Refit",
    "Varied",
    "event_sums",
    "linear_refit",
    "linear_refits",
]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Displacement:
    """How a classifier's network weights move with each member's fluctuation.

    Attributes
    ----------
    classifier : Classifier
    by_source : dict of source to array, shape (p, n_members)
        Displacement of the weights along ``classifier.basis``, one source of uncertainty at a time.
    """

    classifier: Classifier
    by_source: dict[str, Array]

    @cached_property
    def _total(self) -> Array:
        out = np.zeros(next(iter(self.by_source.values())).shape)
        for d in self.by_source.values():
            out += d
        return out

    def total(self) -> Array:
        """Displacement from all sources together, shape (p, n_members)."""
        return self._total

    def of(self, source: str | None) -> Array | None:
        """Displacement from one source, None if it has no part in it; from all for None."""
        return self.total() if source is None else self.by_source.get(source)

    def log_ratio_change(self, x: Array, source: str | None = None) -> Array:
        """Change of the log ratio at ``x`` in every member, shape (n, n_members)."""
        d = self.of(source)
        if d is None:
            return np.zeros((len(x), self.total().shape[1]), dtype=x.dtype)
        return self.classifier.change(x, d)


@dataclass(frozen=True)
class Carried:
    """Weights of one class that carry another classifier's ratio, and move with it.

    Attributes
    ----------
    of : Displacement or Classifier
        The other classifier: how it moves, or itself if it is refitted in the same pass, before this one.
    x : array, shape (n, d)
        Features of the simulated events that the other classifier reads.
    share : {"ones", "zeros"}
        The class whose weights carry the ratio.
    part : array, shape (n,)
        Part of each event's weight that does: one, zero, or between.
    """

    of: Displacement | Classifier
    x: Array
    share: Literal["ones", "zeros"]
    part: Array | NDArray[np.bool_]

    @property
    def classifier(self) -> Classifier:
        """The other classifier."""
        return self.of.classifier if isinstance(self.of, Displacement) else self.of

    def displacement(self, solved: Sequence[Displacement]) -> Displacement:
        """How it moves, given what was solved before in the same pass."""
        if isinstance(self.of, Displacement):
            return self.of
        return next(d for d in solved if d.classifier is self.of)


Changed = Sequence[tuple[ClassWeights, ClassWeights]]
"""Changes of samples' weights at plus and minus one standard deviation of a systematic."""

Varied = tuple[ClassWeights, ClassWeights | None]
"""Simulated events at plus and minus one standard deviation of a systematic; a missing side mirrors the other."""


@dataclass(frozen=True)
class PullNormalization:
    """Normalisation that the pull weights have and a member must keep, for ``efficiency="prior"``.

    Pull weights have generator-weighted mean one over events that pass both levels. A member's relative change of the
    pull weights is therefore ``a - (sum v omega (a + g) / sum v omega - sum v g / sum v)``.

    Attributes
    ----------
    pulled, generated : array, shape (n,)
        ``v omega`` and ``v`` of those events at detector level, each with sum one; zero elsewhere.
    part : array, shape (n,)
        Part of each event's weight in class 1 that has the pull weight as a factor.
    """

    pulled: Array
    generated: Array
    part: Array


@dataclass
class _Sums:
    """What one pass over the events accumulates for a linear refit, in the classifier's basis."""

    curvature: Array
    score: Array
    carried: list[Array]
    means: list[Array]
    residual_of_ones: Array
    right: dict[str, Array] = field(default_factory=dict)
    sides: list[Array] = field(default_factory=list)

    @classmethod
    def zero(cls, classifier: Classifier, carried: Sequence[Carried]) -> _Sums:
        """Sums over no events."""
        p = classifier.basis.shape[1]
        theirs = [c.classifier.basis.shape[1] for c in carried]
        return cls(
            np.zeros((p, p)),
            np.zeros((p, p)),
            [np.zeros((p, q)) for q in theirs],
            [np.zeros(q) for q in theirs],
            np.zeros(p),
        )

    def add(self, source: str, value: Array) -> None:
        """Add to the right-hand side of a source."""
        self.right[source] = self.right[source] + value if source in self.right else value

    def include(self, other: _Sums) -> None:
        """Add sums over other events."""
        self.curvature += other.curvature
        self.score += other.score
        self.residual_of_ones += other.residual_of_ones
        for mine, theirs in zip([*self.carried, *self.means], [*other.carried, *other.means], strict=True):
            mine += theirs
        for source, value in other.right.items():
            self.add(source, value)
        if other.sides:
            self.sides = [a + b for a, b in zip(self.sides, other.sides, strict=True)] if self.sides else other.sides


@dataclass(frozen=True)
class Refit:
    """One linear refit; its methods are the terms of equations (1), (2) and (5).

    Attributes
    ----------
    classifier : Classifier
    carried : sequence of Carried
        The classifiers whose ratios are part of this one's class weights.
    perturbations : Perturbations
    prior : array, shape (P, n_members), optional
        Prior noise ``xi``; None for classifiers that are projections, not measurements.
    normalization : PullNormalization, optional
        Normalisation of the pull weights that must be kept.
    centre : Displacement, optional
        The classifier whose hidden layers are the mean of this one's prior: where it moves, the prior moves.
    varied : dict of str to pair of ClassWeights
        By systematic that shifts the detector level: the simulated events and their class weights there.
    changed : dict of str to sequence of pairs of ClassWeights
        By systematic that varies backgrounds: changes of their class weights.
    covariance : bool
        Whether the covariance of the score is asked for.
    """

    classifier: Classifier
    carried: Sequence[Carried]
    perturbations: Perturbations
    prior: Array | None = None
    normalization: PullNormalization | None = None
    centre: Displacement | None = None
    varied: Mapping[str, Varied] = field(default_factory=dict)
    changed: Mapping[str, Changed] = field(default_factory=dict)
    covariance: bool = False

    @cached_property
    def kept(self) -> KeptTotal | None:
        """The signal's total, if backgrounds stand beside it."""
        return KeptTotal.of(self.classifier)

    def start(self) -> _Sums:
        """Sums over the prior, and over all samples but the simulation."""
        sums = _Sums.zero(self.classifier, self.carried)
        sums.curvature += np.eye(len(sums.curvature))  # the prior
        sums.score += np.eye(len(sums.score))
        for sample in self.classifier.classes.samples:
            if sample.name != "simulation":
                pieces = self.pieces(sums, sample)
                for part in map_blocks(partial(self.block_sums, sample), pieces):
                    sums.include(part)
        return sums

    def pieces(self, sums: _Sums, sample: ClassWeights) -> Iterator[Block]:
        """Blocks of the events of a sample, whose fluctuations are summed already if they come in groups."""
        fluctuations = self.perturbations.events[sample.name]
        if not isinstance(fluctuations, GroupedFluctuations):
            return fluctuations.blocks()
        kept = self.kept if sample.name == "simulation" else None
        self.group_terms(sums, GroupScores.of(self.classifier, sample, fluctuations, kept))
        return fluctuations.pass_blocks()

    def finish(self, sums: _Sums) -> None:
        """What takes the sums over all events."""
        stacked = self.perturbations.stacked_variations
        for k, (name, alpha) in enumerate(zip(stacked.names, stacked.alpha, strict=True)):
            sums.add(name, interpolate(sums.sides[0][:, k], sums.sides[1][:, k], alpha))
        for name, each in self.changed.items():
            up, down = (np.sum([self.whole_score(sides[k]) for sides in each], axis=0) for k in (0, 1))
            sums.add(name, interpolate(up, down, self.perturbations.effects[name].alpha))
        if self.normalization is not None:
            self.normalization_terms(sums, self.normalization)

    def block_sums(self, sample: ClassWeights, block: Block, made: _Features | None = None) -> _Sums:
        """A block of events of one sample."""
        sums, rows, p = _Sums.zero(self.classifier, self.carried), block.rows, self.perturbations
        made = _Features(rows) if made is None else made
        one, zero, curvature = self.classifier.residuals(sample, rows)
        phi = made.of(self.classifier, sample.x)
        net = (one - zero).astype(sample.x.dtype)
        self.event_terms(sums, sample.name, block, phi, net, curvature)
        if sample.name in p.scales:
            sums.add(sample.name, np.multiply.outer(-phi.dot(zero), p.scales[sample.name]))
        if sample.name != "simulation":
            return sums
        stacked = p.stacked_variations
        if stacked.names:
            both = stacked.up, stacked.down
            sums.sides = [phi.dot(net[:, None] * side[rows]).astype(np.float64) for side in both]
            if self.kept is not None:
                sums.sides = [mine + self.kept.scores(s[rows], rows) for mine, s in zip(sums.sides, both, strict=True)]
        self.detector_terms(sums, rows, phi.dot(net))
        if len(self.classifier.classes.samples) > 2:  # the signal is what backgrounds leave of the data
            for name, change in p.signal.items():
                sums.add(name, np.multiply.outer(-phi.dot(zero), change))
        self.carried_terms(sums, made, phi, one, zero)
        return sums

    def group_terms(self, sums: _Sums, scores: GroupScores) -> None:
        """Fluctuations of a sample whose events fluctuate in groups, and the covariance of the score.

        The matrices are over all events: a random part of them would leave directions that few events see to the
        prior, and members would run away along these.
        """
        sums.add(scores.name, scores.response())
        if self.covariance:
            sums.score += scores.covariance()

    def event_terms(
        self, sums: _Sums, name: str, block: Block, phi: TangentFeatures, net: Array, curvature: Array
    ) -> None:
        """Curvature (1), and unless they fluctuate in groups, covariance of the score and the events' fluctuations."""
        sums.curvature += phi.gram(curvature)
        fluctuations = self.perturbations.events[name]
        if isinstance(fluctuations, GroupedFluctuations):
            return
        weighted, moved = phi.times(net), fluctuations.block(block.number)
        if self.covariance:
            sums.score += weighted.cross(weighted)
        sums.add(name, weighted.dot(moved).astype(np.float64))
        if name == "simulation" and self.kept is not None:
            share, response = self.kept.share[block.rows], self.kept.response
            sums.add(name, self.kept.scores(moved, block.rows))
            if self.covariance:
                mixed = np.outer(weighted.dot(share.astype(net.dtype)), response)
                sums.score += mixed + mixed.T + (share @ share) * np.outer(response, response)

    def detector_terms(self, sums: _Sums, rows: slice, here: Array) -> None:
        """Change of the score when simulated events move at detector level, and in and out of it.

        The score at the shifted events, with the class weights that they then have, minus the nominal one.
        """
        for name, (high, low) in self.varied.items():
            up = self.score_of(high, rows) - here
            down = -up if low is None else self.score_of(low, rows) - here
            sums.add(name, interpolate(up, down, self.perturbations.shifts[name].alpha))

    def score_of(self, sample: ClassWeights, rows: slice) -> Array:
        """Gradient of the log-likelihood of a block of events."""
        one, zero, _ = self.classifier.residuals(sample, rows)
        c = self.classifier
        return gradient_sum(c.layout, c.theta, sample.x[rows], one - zero)[0] @ c.basis

    def whole_score(self, sample: ClassWeights) -> Array:
        """Gradient of the log-likelihood of a sample."""
        return np.sum(list(map_blocks(partial(self.score_of, sample), blocks(len(sample)))), axis=0)

    def carried_terms(self, sums: _Sums, made: _Features, phi: TangentFeatures, one: Array, zero: Array) -> None:
        """How this classifier's score moves with the ratios that its class weights carry: (2) and (5)."""
        rows = made.rows
        for k, c in enumerate(self.carried):
            residual = one if c.share == "ones" else -zero
            theirs = made.of(c.classifier, c.x)
            sums.carried[k] += phi.times(c.part[rows] * residual).cross(theirs)
            if self.kept is not None and c.share == "zeros":
                mean = theirs.dot((self.kept.share[rows] * c.part[rows]).astype(phi.dtype))
                sums.carried[k] += np.outer(self.kept.response, mean)
            if self.normalization is not None and c.share == "ones":
                sums.means[k] += theirs.dot(self.normalization.pulled[rows])
        if self.normalization is not None:
            sums.residual_of_ones += phi.dot((self.normalization.part[rows] * one).astype(phi.dtype))

    def normalization_terms(self, sums: _Sums, normalization: PullNormalization) -> None:
        """Take the change of the mean pull weight out of a member's target; see :class:`PullNormalization`."""
        for k, c in enumerate(self.carried):
            if c.share == "ones":
                sums.carried[k] -= np.outer(sums.residual_of_ones, sums.means[k])
        difference = normalization.pulled - normalization.generated
        p = self.perturbations
        sums.add("simulation", -np.outer(sums.residual_of_ones, p.simulation.weighted(difference)))
        for name, v in p.variations.items():
            moved = [interpolate(difference @ c.up, difference @ c.down, c.alpha) for c in v.columns()]
            scalar = np.sum(moved, axis=0)
            sums.add(name, -np.outer(sums.residual_of_ones, scalar))

    def solve(self, sums: _Sums, solved: Sequence[Displacement]) -> Displacement:
        """The displacement, given those of the refits before in the same pass: (2), (5)."""
        classifier = self.classifier
        factor = factor_of(sums.curvature, classifier.name)
        if self.prior is not None:
            sums.add("prior", classifier.basis.T @ self.prior)
        if self.centre is not None:
            hidden = classifier.layout.n_hidden_parameters  # (2a)
            common = classifier.basis[:hidden].T @ self.centre.classifier.basis[:hidden]
            for name, d in self.centre.by_source.items():
                sums.add(name, common @ d)
        for matrix, c in zip(sums.carried, self.carried, strict=True):
            for name, d in c.displacement(solved).by_source.items():
                sums.add(name, matrix @ d)
        return Displacement(classifier, {name: cho_solve(factor, right) for name, right in sums.right.items()})


class _Features:
    """Tangent features of a block of simulated events, each made once for all refits that ask for it."""

    def __init__(self, rows: slice) -> None:
        self.rows = rows
        self._made: list[tuple[Classifier, Array, TangentFeatures]] = []

    def of(self, classifier: Classifier, x: Array) -> TangentFeatures:
        """Of a classifier at the events' features ``x``, of which the block is taken."""
        for theirs, given, features in self._made:
            if theirs is classifier and given is x:
                return features
        features = classifier.features(x[self.rows])
        self._made.append((classifier, x, features))
        return features


def linear_refits(refits: Sequence[Refit]) -> list[Displacement]:
    """Displacements of classifiers that follow each other, from one pass over the simulated events.

    Parameters
    ----------
    refits : sequence of Refit
        In the order in which they are solved. Class weights may carry the ratios of classifiers before in the list.

    Raises
    ------
    ConvergenceError
        If negative weights make the curvature indefinite.
    """
    every = _sums_of(refits)
    solved: list[Displacement] = []
    for refit, sums in zip(refits, every, strict=True):
        solved.append(refit.solve(sums, solved))
    return solved


def _sums_of(refits: Sequence[Refit]) -> list[_Sums]:
    """The sums of each refit."""
    for refit in refits:
        _ = refit.kept  # a sum over all events, so not first asked for within a block of them
    every = [refit.start() for refit in refits]
    samples = [refit.classifier.classes.sample("simulation") for refit in refits]
    pieces = [refit.pieces(sums, sample) for refit, sums, sample in zip(refits, every, samples, strict=True)]
    for parts in map_blocks(partial(_block_of_all, refits, samples), pieces[0]):
        for sums, part in zip(every, parts, strict=True):
            sums.include(part)
    for refit, sums in zip(refits, every, strict=True):
        refit.finish(sums)
    return every


def _block_of_all(refits: Sequence[Refit], samples: Sequence[ClassWeights], block: Block) -> list[_Sums]:
    """A block of simulated events, for all refits."""
    made = _Features(block.rows)
    return [refit.block_sums(sample, block, made) for refit, sample in zip(refits, samples, strict=True)]


def linear_refit(
    classifier: Classifier,
    carried: Sequence[Carried],
    perturbations: Perturbations,
    *,
    prior: Array | None = None,
    normalization: PullNormalization | None = None,
    centre: Displacement | None = None,
    varied: Mapping[str, Varied] | None = None,
    changed: Mapping[str, Changed] | None = None,
) -> Displacement:
    """Displacement of one classifier in every member, equations (1)-(3) and (4)-(6).

    Arguments are those of :class:`Refit`, errors those of :func:`linear_refits`.
    """
    (found,) = linear_refits(
        [Refit(classifier, carried, perturbations, prior, normalization, centre, varied or {}, changed or {})]
    )
    return found


def event_sums(classifier: Classifier, perturbations: Perturbations) -> tuple[Array, Array]:
    """Covariance of the score (p, p), and what the fluctuations of events and prior add to it (p, n_members)."""
    events_only = Perturbations(perturbations.sources, perturbations.events, perturbations.prior)
    (sums,) = _sums_of([Refit(classifier, [], events_only, covariance=True)])
    return sums.score, np.sum(list(sums.right.values()), axis=0) + classifier.basis.T @ perturbations.prior
