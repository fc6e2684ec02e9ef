"""Members of the ensemble: one fluctuation each, the same in every iteration.

A member is one hypothetical fluctuation of the data, the simulation and the prior. It stays the
same over the whole unfolding loop, so that iterating amplifies a fluctuation that is *common* to all
iterations, as it does in reality. Each classifier's answer to the fluctuation is one Gauss-Newton
refit in the space of its tangent features; ``docs/statistics.md`` derives the equations, which
carry the same numbers there and here.

All of it is linear, so the sources of uncertainty (data, simulation, prior) travel
separately through the same matrices, and their sum is the total.

Only NumPy and SciPy are used. Events are visited in blocks: memory is
``block x (members + directions)`` plus, below ``CACHE_BYTES``, the event fluctuations themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from bayesunfold.errors import ConvergenceError
from bayesunfold.mlp import Layout, blocks, forward, tangent

__all__ = ["Fluctuations", "Link", "Response", "Sample", "Stage", "leading_directions", "refit"]

Array = NDArray[np.floating]

BLOCK = 4096
"""Events per block. Part of the random stream: changing it changes the members of a seed."""

CACHE_BYTES = 600_000_000
"""Event fluctuations larger than this are made again from their seed whenever needed."""


def __dir__() -> list[str]:
    return __all__


class Fluctuations:
    """Relative weight fluctuations of events: Exp(1) - 1, the Bayesian bootstrap (Rubin 1981).

    Parameters
    ----------
    n : int
        Number of events.
    members : int
        Number of ensemble members.
    seed : int
        Key of a counter-based generator; a block of events is made from ``(seed, block)``.

    References
    ----------
    D. B. Rubin, "The Bayesian Bootstrap", Ann. Statist. 9 (1981) 130, doi:10.1214/aos/1176345338.
    """

    def __init__(self, n: int, members: int, seed: int) -> None:
        self.n, self.members, self.seed = n, members, seed
        self._cache: dict[int, Array] | None = {} if 4 * n * members <= CACHE_BYTES else None

    def block(self, index: int) -> Array:
        """Fluctuations of block ``index``, shape (events in block, members), float32."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        rows = min(BLOCK, self.n - index * BLOCK)
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        g = rng.standard_exponential((rows, self.members), dtype=np.float32)
        g -= np.float32(1.0)
        if self._cache is not None:
            self._cache[index] = g
        return g


@dataclass(frozen=True)
class Sample:
    """Events as the propagation sees them: features at both levels and their fluctuations.

    Attributes
    ----------
    features : dict of level to array, shape (n, d)
        ``"gen"`` and ``"reco"`` for simulation, ``"reco"`` for data. Finite in every row.
    fluctuations : Fluctuations
    """

    features: dict[str, Array]
    fluctuations: Fluctuations

    def __len__(self) -> int:
        return self.fluctuations.n

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Index and rows of each block."""
        return enumerate(blocks(len(self), BLOCK))


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
    """

    layout: Layout
    theta: Array
    basis: Array
    level: Literal["gen", "reco"]
    ones: Array
    zeros: Array
    offset: float
    data_ones: Array | None = None

    def tangent(self, x: Array) -> Array:
        """Tangent features ``Phi = J basis`` at events ``x``."""
        return tangent(self.layout, self.theta, x, self.basis)

    def slopes(self, x: Array, rows: slice) -> tuple[Array, Array, Array]:
        """Per event: pull of class 1, pull of class 0, and curvature of the loss.

        With ``q`` the predicted probability these are ``ones (1 - q)``, ``zeros q`` and
        ``(ones + zeros) q (1 - q)``.
        """
        q = expit(forward(self.layout, self.theta, x) + self.offset)
        one, zero = self.ones[rows], self.zeros[rows]
        return one * (1 - q), zero * q, (one + zero) * q * (1 - q)


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
        d = self.total() if source is None else self.displacement[source]
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


@dataclass
class _Sums:
    """What one pass over the events accumulates for a refit, in the stage's basis."""

    curvature: Array
    data: Array
    simulation: Array
    links: list[Array]
    score: Array


@dataclass(frozen=True)
class Conditioning:
    """Fluctuations moved, by the least amount, so that they reproduce given posterior draws.

    The members' event fluctuations gain ``pull * (Phi_1 @ lam)`` with ``Phi_1`` the tangent features
    of the first step 1, equation (10).

    Attributes
    ----------
    stage : Stage
        Step 1 of the first iteration.
    lam : array, shape (p, members)
        Equation (9).
    """

    stage: Stage
    lam: Array

    def data_shift(self, x: Array, rows: slice) -> Array:
        """What equation (10) adds to the data fluctuations, shape (events, members)."""
        return self._pull_data(x, rows)[:, None] * (self.stage.tangent(x) @ self.lam.astype(x.dtype))

    def simulation_shift(self, x: Array, rows: slice) -> Array:
        """What equation (10) adds to the simulation's fluctuations, shape (events, members)."""
        pull = self.simulation_pull(x, rows)
        return pull[:, None] * (self.stage.tangent(x) @ self.lam.astype(x.dtype))

    def simulation_pull(self, x: Array, rows: slice) -> Array:
        """``- w0 q0`` of the first step 1."""
        return -self.stage.slopes(x, rows)[1].astype(x.dtype)

    def _pull_data(self, x: Array, rows: slice) -> Array:
        return data_pull(self.stage, x, rows)[0].astype(x.dtype)


def data_pull(stage: Stage, x: Array, rows: slice) -> tuple[Array, Array]:
    """``u (1 - q)`` and ``u q (1 - q)`` of data events in step 1."""
    if stage.data_ones is None:  # pragma: no cover - guarded by callers
        msg = "this stage has no data"
        raise ValueError(msg)
    q = expit(forward(stage.layout, stage.theta, x) + stage.offset)
    u = stage.data_ones[rows]
    return u * (1 - q), u * q * (1 - q)


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


def _accumulate(
    stage: Stage,
    links: Sequence[Link],
    data: Sample,
    simulation: Sample,
    conditioning: Conditioning | None,
) -> _Sums:
    """One pass over data and simulation: curvature, projected fluctuations, link matrices."""
    p, members = stage.basis.shape[1], simulation.fluctuations.members
    sums = _Sums(
        curvature=np.eye(p),
        data=np.zeros((p, members)),
        simulation=np.zeros((p, members)),
        links=[np.zeros((p, link.response.stage.basis.shape[1])) for link in links],
        score=np.eye(p),
    )
    if stage.data_ones is not None:
        _accumulate_data(sums, stage, data, conditioning)
    for index, rows in simulation.blocks():
        x = simulation.features[stage.level][rows]
        pull_one, pull_zero, curvature = stage.slopes(x, rows)
        phi = stage.tangent(x)
        net = (pull_one - pull_zero).astype(x.dtype)
        sums.curvature += phi.T @ (phi * curvature[:, None].astype(x.dtype))
        sums.score += phi.T @ (phi * (net * net)[:, None])
        g = simulation.fluctuations.block(index)
        if conditioning is not None:
            g = g + conditioning.simulation_shift(simulation.features["reco"][rows], rows)
        sums.simulation += (phi * net[:, None]).T @ g
        for matrix, link in zip(sums.links, links, strict=True):
            pull = pull_one if link.share == "ones" else -pull_zero
            pull = np.where(link.rows[rows], pull, 0.0).astype(x.dtype)
            other = link.response.stage
            matrix += (phi * pull[:, None]).T @ other.tangent(simulation.features[other.level][rows])
    return sums


def _accumulate_data(sums: _Sums, stage: Stage, data: Sample, conditioning: Conditioning | None) -> None:
    for index, rows in data.blocks():
        x = data.features[stage.level][rows]
        pull, curvature = data_pull(stage, x, rows)
        phi = stage.tangent(x)
        pull = pull.astype(x.dtype)
        sums.curvature += phi.T @ (phi * curvature[:, None].astype(x.dtype))
        sums.score += phi.T @ (phi * (pull * pull)[:, None])
        g = data.fluctuations.block(index)
        if conditioning is not None:
            g = g + conditioning.data_shift(x, rows)
        sums.data += (phi * pull[:, None]).T @ g


def _factor(matrix: Array, what: str) -> tuple[Array, bool]:
    try:
        return cho_factor(matrix, lower=True)
    except np.linalg.LinAlgError:
        msg = (
            f"the curvature of {what} is not positive definite; negative event weights dominate "
            "some region of phase space. Merge or remove such events."
        )
        raise ConvergenceError(msg) from None


def refit(
    stage: Stage,
    links: Sequence[Link],
    data: Sample,
    simulation: Sample,
    prior: Array | None,
    conditioning: Conditioning | None = None,
) -> Response:
    """Answer of one classifier to every member, equations (1)-(3) and (4)-(6).

    Parameters
    ----------
    stage : Stage
        The classifier.
    links : sequence of Link
        The classifiers whose ratios are part of this one's class weights.
    data, simulation : Sample
        Events with their fluctuations.
    prior : array, shape (P, members), or None
        Prior noise ``xi``; None for classifiers that are projections, not measurements.
    conditioning : Conditioning, optional
        Shifts the fluctuations onto posterior draws.

    Returns
    -------
    Response

    Raises
    ------
    ConvergenceError
        If negative weights make the curvature indefinite.
    """
    sums = _accumulate(stage, links, data, simulation, conditioning)
    factor = _factor(sums.curvature, f"the {stage.level}-level classifier")
    own = {"data": sums.data, "simulation": sums.simulation}
    if prior is not None:
        own["prior"] = stage.basis.T @ prior
    names = list(own)
    for link in links:
        names += [name for name in link.response.displacement if name not in names]
    displacement = {}
    for name in names:
        right = own.get(name, np.zeros_like(sums.data))
        for matrix, link in zip(sums.links, links, strict=True):
            if name in link.response.displacement:
                right = right + matrix @ link.response.displacement[name]
        displacement[name] = cho_solve(factor, right)  # (2) and (5)
    return Response(stage, displacement)


def posterior_axes(stage: Stage, data: Sample | None, simulation: Sample) -> tuple[Array, Array]:
    """Axes in which the linearised posterior of a classifier is close to N(0, 1).

    ``data`` is needed only for step 1, whose class 1 it is.

    Returns
    -------
    axes : array, shape (p, p)
        ``C1`` with ``A1 = C1 C1'`` (equation 1) and orthogonal columns: ``C1 = V sqrt(L)`` from
        the eigenvectors ``V`` and eigenvalues ``L`` of ``A1``.
    precision : array, shape (p,)
        The eigenvalues.
    """
    simulation = _silent(simulation)
    sums = _accumulate(stage, [], simulation if data is None else _silent(data), simulation, None)
    values, vectors = np.linalg.eigh(sums.curvature)
    if values[0] <= 0:
        _factor(sums.curvature, "step 1")
    return vectors * np.sqrt(values), values


def _silent(sample: Sample) -> Sample:
    """The sample with no members, for passes that need only the curvature."""
    return Sample(sample.features, Fluctuations(len(sample), 0, 0))


def condition_on(
    stage: Stage, data: Sample, simulation: Sample, prior: Array, axes: Array, draws: Array
) -> Conditioning:
    """Equations (7)-(9): the least change of the fluctuations that reproduces posterior draws.

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
    sums = _accumulate(stage, [], data, simulation, None)
    b = sums.data + sums.simulation + stage.basis.T @ prior  # (7)
    lam = cho_solve(_factor(sums.score, "step 1"), axes @ draws.T - b)  # (8), (9)
    return Conditioning(stage, lam)
