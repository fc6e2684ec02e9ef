"""Members of the ensemble: one fluctuation each, the same in every iteration.

A member is one hypothetical fluctuation of the data, the simulation and the prior. It stays the
same over the whole unfolding loop, so that iterating amplifies a fluctuation that is *common* to all
iterations, as it does in reality. Each classifier's answer to the fluctuation is one Gauss-Newton
refit in the space of its tangent features; ``docs/statistics.md`` derives the equations, which
carry the same numbers there and here.

All of it is linear, so the sources of uncertainty (data, simulation, prior, backgrounds, systematics) travel
separately through the same matrices, and their sum is the total.

Only NumPy and SciPy are used. Events are visited in blocks: memory is
``block x (members + directions)`` plus, below ``CACHE_BYTES``, the event fluctuations themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.stage import Stage, factor_of, whitened_axes
from bayesunfold.unfolding.perturbations import BLOCK, Sample, Samples, interpolate

__all__ = [
    "Conditioning",
    "Level",
    "Link",
    "Moved",
    "Response",
    "condition_on",
    "refit",
]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Response:
    """How a classifier's log ratio answers to each member's fluctuation.

    Attributes
    ----------
    stage : Stage
    displacement : dict of source to array, shape (p, members)
        Displacement of the weights along ``stage.basis``, one source of uncertainty at a time.
    """

    stage: Stage
    displacement: dict[str, Array]

    def total(self) -> Array:
        """Displacement from all sources together, shape (p, members)."""
        return np.sum(list(self.displacement.values()), axis=0)

    def log_ratio_change(self, x: Array, source: str | None = None) -> Array:
        """Change of the log ratio at ``x`` in every member, shape (n, members)."""
        d = self.total() if source is None else self.displacement.get(source)
        if d is None:
            return np.zeros((len(x), self.total().shape[1]), dtype=x.dtype)
        return self.stage.tangent(x) @ d.astype(x.dtype)


@dataclass(frozen=True)
class Link:
    """Weights of one class that follow another classifier's response.

    Attributes
    ----------
    response : Response
    share : {"ones", "zeros"}
        The class whose weights carry the other classifier's ratio.
    rows : boolean array, shape (n,)
        Events whose weights do.
    """

    response: Response
    share: Literal["ones", "zeros"]
    rows: NDArray[np.bool_]


@dataclass(frozen=True)
class Moved:
    """Class weights of the simulated events when a systematic shifts the detector level.

    Attributes
    ----------
    ones, zeros : array, shape (n,)
        Where events stop passing the weights are zero; where they begin to pass they are what they then get.
    """

    ones: Array
    zeros: Array


Sides = tuple[Moved, Moved | None]
"""Class weights at plus and minus one standard deviation; a missing side mirrors the other."""


@dataclass(frozen=True)
class Level:
    """Normalisation that the pull weights have and a member must keep, for ``efficiency="prior"``.

    Pull weights have generator-weighted mean one over events that pass both levels. A member's relative change of the
    pull weights is therefore ``a - (sum v omega (a + g) / sum v omega - sum v g / sum v)``.

    Attributes
    ----------
    pulled, generated : array, shape (n,)
        ``v omega`` and ``v`` of those events, each with sum one; zero elsewhere.
    """

    pulled: Array
    generated: Array


@dataclass
class _Sums:
    """What one pass over the events accumulates for a refit, in the stage's basis."""

    curvature: Array
    score: Array
    links: list[Array]
    means: list[Array]
    pull_of_ones: Array
    right: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def zero(cls, stage: Stage, links: Sequence[Link]) -> _Sums:
        """Sums over no events."""
        p = stage.basis.shape[1]
        theirs = [link.response.stage.basis.shape[1] for link in links]
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
        self.pull_of_ones += other.pull_of_ones
        for mine, theirs in zip([*self.links, *self.means], [*other.links, *other.means], strict=True):
            mine += theirs
        for source, value in other.right.items():
            self.add(source, value)


def _accumulate(
    stage: Stage,
    links: Sequence[Link],
    samples: Samples,
    level: Level | None = None,
    moved: Mapping[str, Sides] | None = None,
) -> _Sums:
    """One pass over all events: curvature, projected fluctuations, link matrices."""
    sums = _Sums.zero(stage, links)
    sums.curvature += np.eye(len(sums.curvature))  # the prior
    sums.score += np.eye(len(sums.score))
    if stage.measures:
        for sample in (samples.data, *samples.backgrounds):
            for part in map_blocks(partial(_measured_sums, stage, links, samples, sample), sample.blocks()):
                sums.include(part)
    for part in map_blocks(
        partial(_simulated_sums, stage, links, samples, level, moved or {}), samples.simulation.blocks()
    ):
        sums.include(part)
    if level is not None:
        _keep_level(sums, links, samples, level)
    return sums


def _measured_sums(
    stage: Stage, links: Sequence[Link], samples: Samples, sample: Sample, block: tuple[int, slice]
) -> _Sums:
    """A block of data or background events."""
    sums = _Sums.zero(stage, links)
    phi, _, pull_zero = _add_events(sums, stage, sample, *block)
    if sample.name in samples.scales:
        sums.add(sample.name, np.multiply.outer(-(phi.T @ pull_zero), samples.scales[sample.name]))
    return sums


def _simulated_sums(
    stage: Stage,
    links: Sequence[Link],
    samples: Samples,
    level: Level | None,
    moved: Mapping[str, Sides],
    block: tuple[int, slice],
) -> _Sums:
    """A block of simulated events."""
    sums, rows = _Sums.zero(stage, links), block[1]
    phi, pull_one, pull_zero = _add_events(sums, stage, samples.simulation, *block)
    net = (pull_one - pull_zero).astype(phi.dtype)
    for name, v in samples.variations.items():
        sums.add(name, interpolate(phi.T @ (net * v.up[rows]), phi.T @ (net * v.down[rows]), v.alpha))
    _add_shifts(sums, stage, samples, moved, rows, phi.T @ net)
    if stage.measures and samples.backgrounds:
        for name, change in samples.signal.items():
            sums.add(name, np.multiply.outer(-(phi.T @ pull_zero), change))
    for k, link in enumerate(links):
        pull = pull_one if link.share == "ones" else -pull_zero
        pull = np.where(link.rows[rows], pull, 0.0).astype(phi.dtype)
        other = link.response.stage
        theirs = other.tangent(samples.simulation.features[other.level][rows])
        sums.links[k] += (phi * pull[:, None]).T @ theirs
        if level is not None and link.share == "ones":
            sums.means[k] += level.pulled[rows] @ theirs
    if level is not None:
        sums.pull_of_ones += phi.T @ (np.where(level.generated[rows] != 0, pull_one, 0.0)).astype(phi.dtype)
    return sums


def _add_events(sums: _Sums, stage: Stage, sample: Sample, index: int, rows: slice) -> tuple[Array, Array, Array]:
    """Curvature and fluctuations of a block of events; returns tangent features and pulls."""
    x = sample.features[stage.level][rows]
    pull_one, pull_zero, curvature = stage.slopes(x, rows, sample.name)
    phi = stage.tangent(x)
    net = (pull_one - pull_zero).astype(x.dtype)
    weighted = phi * net[:, None]
    sums.curvature += phi.T @ (phi * curvature[:, None].astype(x.dtype))
    sums.score += weighted.T @ weighted
    sums.add(sample.name, (weighted.T @ sample.fluctuations.block(index)).astype(np.float64))
    return phi, pull_one, pull_zero


def _add_shifts(
    sums: _Sums, stage: Stage, samples: Samples, moved: Mapping[str, Sides], rows: slice, here: Array
) -> None:
    """Change of the score when simulated events move at detector level, and in and out of it.

    The score at the shifted events, with the class weights that they then have, minus the nominal one.
    """
    for name, (high, low) in moved.items():
        shift = samples.shifts[name]
        up = _score_of(stage, _features_of(stage, samples, shift.up.features, rows), high, rows) - here
        down = -up
        if low is not None and shift.down is not None:
            down = _score_of(stage, _features_of(stage, samples, shift.down.features, rows), low, rows) - here
        sums.add(name, interpolate(up, down, shift.alpha))


def _features_of(stage: Stage, samples: Samples, shifted: Array, rows: slice) -> Array:
    return shifted[rows] if stage.level == "reco" else samples.simulation.features["gen"][rows]


def _score_of(stage: Stage, x: Array, moved: Moved, rows: slice) -> Array:
    """Gradient of the log-likelihood of a block with other class weights."""
    q = stage.probability(x)
    net = moved.ones[rows] * (1 - q) - moved.zeros[rows] * q
    return stage.tangent(x).T @ net.astype(x.dtype)


def _keep_level(sums: _Sums, links: Sequence[Link], samples: Samples, level: Level) -> None:
    """Take the change of the mean pull weight out of a member's target; see :class:`Level`."""
    for k, link in enumerate(links):
        if link.share == "ones":
            sums.links[k] -= np.outer(sums.pull_of_ones, sums.means[k])
    difference = level.pulled - level.generated
    total = np.zeros(samples.members)
    fluctuations = samples.simulation.fluctuations
    for part in map_blocks(lambda b: difference[b[1]] @ fluctuations.block(b[0]), samples.simulation.blocks()):
        total += part
    sums.add(samples.simulation.name, -np.outer(sums.pull_of_ones, total))
    for name, v in samples.variations.items():
        scalar = interpolate(difference @ v.up, difference @ v.down, v.alpha)
        sums.add(name, -np.outer(sums.pull_of_ones, scalar))


def refit(
    stage: Stage,
    links: Sequence[Link],
    samples: Samples,
    prior: Array | None = None,
    level: Level | None = None,
    centre: Response | None = None,
    moved: Mapping[str, Sides] | None = None,
) -> Response:
    """Answer of one classifier to every member, equations (1)-(3) and (4)-(6).

    Parameters
    ----------
    stage : Stage
        The classifier.
    links : sequence of Link
        The classifiers whose ratios are part of this one's class weights.
    samples : Samples
        Events with their fluctuations.
    prior : array, shape (P, members), optional
        Prior noise ``xi``; None for classifiers that are projections, not measurements.
    level : Level, optional
        Normalisation of the pull weights that must be kept.
    centre : Response, optional
        The classifier whose hidden layers are the mean of this one's prior: where it moves, the prior moves.
    moved : dict of str to pair of Moved, optional
        By systematic that shifts the detector level: this classifier's class weights there.

    Returns
    -------
    Response

    Raises
    ------
    ConvergenceError
        If negative weights make the curvature indefinite.
    """
    sums = _accumulate(stage, links, samples, level, moved)
    factor = factor_of(sums.curvature, f"the {stage.level}-level classifier")
    if prior is not None:
        sums.add("prior", stage.basis.T @ prior)
    if centre is not None:
        hidden = stage.layout.n_hidden_parameters  # (2a)
        common = stage.basis[:hidden].T @ centre.stage.basis[:hidden]
        for name, d in centre.displacement.items():
            sums.add(name, common @ d)
    for matrix, link in zip(sums.links, links, strict=True):
        for name, d in link.response.displacement.items():
            sums.add(name, matrix @ d)
    return Response(stage, {name: cho_solve(factor, right) for name, right in sums.right.items()})  # (2) and (5)


def posterior_axes(stage: Stage, samples: Samples) -> tuple[Array, Array]:
    """Axes of step 1's linearised posterior, over data, simulation and backgrounds; see :func:`whitened_axes`."""
    return whitened_axes(_accumulate(stage, [], samples.silent()).curvature, "step 1")


@dataclass(frozen=True)
class Conditioning:
    """Fluctuations moved, by the least amount, so that they reproduce given posterior draws.

    Attributes
    ----------
    stage : Stage
        Step 1 of the first iteration.
    lam : array, shape (p, members)
        Equation (9).
    """

    stage: Stage
    lam: Array

    def apply(self, samples: Samples) -> Samples:
        """Samples whose event fluctuations are moved by equation (10)."""
        return replace(
            samples,
            data=self.moved(samples.data),
            simulation=self.moved(samples.simulation),
            backgrounds=tuple(self.moved(b) for b in samples.backgrounds),
        )

    def moved(self, sample: Sample) -> Sample:
        """One sample, moved."""
        x = sample.features["reco"]

        def move(index: int) -> Array:
            rows = slice(index * BLOCK, min((index + 1) * BLOCK, len(sample)))
            pull_one, pull_zero, _ = self.stage.slopes(x[rows], rows, sample.name)
            net = (pull_one - pull_zero).astype(x.dtype)
            return net[:, None] * (self.stage.tangent(x[rows]) @ self.lam.astype(x.dtype))  # (10)

        return replace(sample, fluctuations=sample.fluctuations.moved(move))

    def moved_prior(self, prior: Array) -> Array:
        """Prior noise ``xi``, moved by equation (10)."""
        return prior + self.stage.basis @ self.lam


def condition_on(stage: Stage, samples: Samples, prior: Array, axes: Array, draws: Array) -> Conditioning:
    """Equations (7)-(9): the least change of the fluctuations that reproduces posterior draws.

    Only what the posterior knows takes part: events and prior, not systematic variations or yields.

    Parameters
    ----------
    stage : Stage
        Step 1 of the first iteration.
    prior : array, shape (P, members)
        Prior noise.
    axes : array, shape (p, p)
        From :func:`posterior_axes`.
    draws : array, shape (members, p)
        Whitened posterior draws ``z``.
    """
    sums = _accumulate(stage, [], Samples(samples.data, samples.simulation, samples.backgrounds))
    b = np.sum(list(sums.right.values()), axis=0) + stage.basis.T @ prior  # (7)
    lam = cho_solve(factor_of(sums.score, "step 1"), axes @ draws.T - b)  # (8), (9)
    return Conditioning(stage, lam)
