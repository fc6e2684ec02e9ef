"""Posterior draws of the particle-level network, one per member, source by source: equations (D6)-(D8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import tangent
from bayesunfold.classifier.two_class import Classifier, leading_directions
from bayesunfold.direct.fakes import derivative_by_fakes
from bayesunfold.direct.mode import Mode, Problem
from bayesunfold.direct.moments import Moments
from bayesunfold.direct.precision import base_covariance, covariance, distinct, grams_of, pseudo_observation
from bayesunfold.omnifold.problems import push_outside, weight_there
from bayesunfold.unfolding.event_groups import GroupedFluctuations
from bayesunfold.unfolding.perturbations import Block, Perturbations, Shifted, interpolate
from bayesunfold.unfolding.propagation import Displacement
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["centred", "draw_parameters", "moment_changes", "projected", "visible_directions"]

Array = NDArray[np.floating]

VISIBLE_SHARE, VISIBLE_ROWS, MOST_DIRECTIONS = 0.9999, 4_000, 600


def __dir__() -> list[str]:
    return __all__


def moment_changes(
    events: StandardizedEvents,
    moments: Moments,
    push: Array,
    step1: Classifier,
    fakes: Displacement | None,
    perturbations: Perturbations,
) -> dict[str, Array]:
    """How every member's fluctuations change the whitened moments, equation (D6), by source, shape (p, n_members).

    Parameters
    ----------
    events : StandardizedEvents
    moments : Moments
    push : array, shape (n,)
        Push weights at the mode, fakes included.
    step1 : Classifier
        Of the first iteration, which weighs what a shift brings in.
    fakes : Displacement, optional
        Of the classifier that weighs fakes.
    perturbations : Perturbations
    """
    weights = np.where(events.passes.reco, events.reco_weight * push, 0.0)
    weights *= events.signal_yield / weights.sum()
    total = moments.total(events.reco, weights)
    mean = total / weights.sum()
    out = {"data": _fluctuation(moments, "data", events.data.x, events.data.weight, perturbations)}
    out["simulation"] = -_fluctuation(moments, "simulation", events.reco, weights, perturbations, mean)
    for b in events.backgrounds:
        own = _fluctuation(moments, b.name, b.x, b.weight, perturbations)
        scale = perturbations.scales.get(b.name, np.zeros(perturbations.n_members))
        out[b.name] = -own - np.outer(moments.total(b.x, b.weight), scale)
    stacked = perturbations.stacked_variations
    sides = [
        moments.totals(events.reco, weights, side) - np.outer(mean, weights @ side)
        for side in (stacked.up, stacked.down)
        if stacked.names
    ]
    for k, (name, alpha) in enumerate(zip(stacked.names, stacked.alpha, strict=True)):
        out[name] = out.get(name, 0.0) - interpolate(sides[0][:, k], sides[1][:, k], alpha)
    for name, shift in perturbations.shifts.items():
        up = _shifted(events, moments, push, step1, weights.sum(), shift.up) - total
        down = -up if shift.down is None else _shifted(events, moments, push, step1, weights.sum(), shift.down) - total
        out[name] = -interpolate(up, down, shift.alpha)
    for name, each in perturbations.backgrounds.items():
        up, down = (np.sum([moments.total(c.x, getattr(c.weight, s)) for c in each], axis=0) for s in ("up", "down"))
        out[name] = out[name] - interpolate(up, down, perturbations.effects[name].alpha)
    for name, change in perturbations.signal.items():
        out[name] = out[name] - np.outer(total, change)
    if fakes is not None:
        rows = events.passes.fakes
        for name, moved in _of_fakes(moments, events.reco[rows], weights[rows], fakes).items():
            out[name] = out.get(name, 0.0) - moved
    return out


def _fluctuation(
    moments: Moments, name: str, x: Array, weight: Array, perturbations: Perturbations, mean: Array | None = None
) -> Array:
    """``sum w g (phi - mean)``, whitened, shape (p, n_members)."""
    fluctuations = perturbations.events[name]
    product = np.zeros((len(moments), fluctuations.n_members))
    sums = np.zeros(fluctuations.n_members)

    def one(block: Block) -> tuple[Array, Array]:
        w = weight[block.rows].astype(np.float32)
        g = fluctuations.block(block.number)
        return (moments.features(x[block.rows]) * w[:, None]).T @ g, w @ g

    if isinstance(fluctuations, GroupedFluctuations):
        parts = map_blocks(partial(_of_groups, moments, x, weight, fluctuations), fluctuations.event_blocks())
    else:
        parts = map_blocks(one, fluctuations.blocks())
    for part, total in parts:
        product += part
        sums += total
    return product if mean is None else product - np.outer(mean, sums)


def _of_groups(
    moments: Moments, x: Array, weight: Array, fluctuations: GroupedFluctuations, groups: slice
) -> tuple[Array, Array]:
    """As :func:`_fluctuation`, of the events of some groups."""
    rows, real = fluctuations.groups.rows(groups)
    w = (weight[rows] * real).astype(np.float32)
    size, values = fluctuations.groups.size, fluctuations.values()[groups]
    features = moments.features(x[rows]) * w[:, None]
    each = features.reshape(len(values), size, -1).sum(axis=1)
    return each.T @ values, w.reshape(-1, size).sum(axis=1) @ values


def _shifted(
    events: StandardizedEvents, moments: Moments, push: Array, step1: Classifier, total: float, shifted: Shifted
) -> Array:
    """Whitened moments of the refolded simulation at a shifted detector level, the signal keeping its total."""
    everywhere = push_outside(events, push, step1, shifted)
    moved = weight_there(events, shifted) * everywhere
    return moments.total(shifted.features, moved * (total / moved.sum()))


def _of_fakes(moments: Moments, x: Array, weight: Array, fakes: Displacement) -> dict[str, Array]:
    """Change of the moments by that of the fakes' weights, whitened, by source."""
    matrix = derivative_by_fakes(moments, x, weight, fakes.classifier)
    return {name: matrix @ d for name, d in fakes.by_source.items()}


def draw_parameters(
    problem: Problem,
    mode: Mode,
    log_tau: Array,
    changes: Mapping[str, Array],
    noise: Array,
    nuisances: Sequence[str] = (),
) -> dict[str, Array]:
    """Displacements of the parameters from the mode, equation (D7), by source, shape (P + K, n_members).

    The parameters of the network come first, then the profiled nuisance parameters, which are columns of ``A`` with the
    prior covariance :attr:`Mode.correlation`. The source of each is the noise of its own prior: what another
    calibration would have said.

    Parameters
    ----------
    problem : Problem
    mode : Mode
    log_tau : array, shape (n_members, groups)
        Logarithms of every member's prior precisions.
    changes : mapping of source to array, shape (p, n_members)
    noise : array, shape (P + 2 K, n_members)
        N(0, 1), of the priors: of the network's parameters, of changes that mimic nuisance parameters, and of these.
    nuisances : sequence of str
        Names of the profiled nuisance parameters.

    References
    ----------
    A. Pinto et al., arXiv:2307.04007, for the sources of a profile likelihood fit.
    """
    n_parameters, k = problem.layout.n_parameters, len(nuisances)
    a, y = mode.derivative, pseudo_observation(problem, mode)
    grams, base = grams_of(a, problem.groups), base_covariance(mode)
    free = mode.free if k else np.zeros((n_parameters, 0))
    a = np.hstack([a, mode.mimics, mode.columns]) if k else a
    here = np.concatenate([mode.theta - problem.centre, mode.alpha])
    out: dict[str, Array] = {
        name: np.zeros((n_parameters + k, noise.shape[1])) for name in ("prior", *changes, *nuisances)
    }
    rows = n_parameters + free.shape[1]

    def merged(drawn: Array) -> Array:
        """Network and nuisance parameters, what mimics the latter being part of the former."""
        return np.vstack([drawn[:n_parameters] + free @ drawn[n_parameters:rows], drawn[rows:]]) if k else drawn

    root = np.linalg.cholesky(mode.correlation)
    spread = np.hstack([a[:, :rows], a[:, rows:] @ mode.correlation]).T  # but for the network's precisions

    for tau, members in distinct(log_tau):
        precision = np.concatenate([problem.precisions(tau), np.ones(a.shape[1] - n_parameters)])
        factor = cho_factor(covariance(base, grams, tau), lower=True)

        def gain(moments: Array, factor: tuple[Array, bool] = factor, precision: Array = precision) -> Array:
            return merged((spread @ cho_solve(factor, moments)) / precision[:, None])

        for name, change in changes.items():
            out[name][:, members] = gain(change[:, members])
        drawn = noise[:, members] / np.sqrt(precision)[:, None]
        own, drawn = root @ drawn[rows:], np.vstack([drawn[:rows], np.zeros((k, len(members)))])
        shift = gain(y[:, None]) - here[:, None]  # the mean at these precisions
        out["prior"][:, members] += merged(drawn) - gain(a @ drawn) + shift
        for row, name in enumerate(nuisances):
            out[name][n_parameters + row, members] += own[row]
            out[name][:, members] -= gain(a[:, rows + row, None]) * own[row]
    return out


def visible_directions(network: Classifier, precision: Array, gen: Array, weight: Array) -> tuple[Classifier, Array]:
    """The particle-level network with the directions that its events see, and the map to coordinates along them.

    Parameters
    ----------
    network : Classifier
    precision : array, shape (P,)
        Of the prior.
    gen : array, shape (n, d)
    weight : array, shape (n,)
        In expected data events: what could be seen if the particle level were measured itself.

    Returns
    -------
    classifier : Classifier
        Its last direction is a constant, with which exponents are centred.
    project : array, shape (p, P)
        Coordinates of a displacement of the parameters.
    """
    rows = np.arange(len(gen)) if len(gen) <= VISIBLE_ROWS else np.linspace(0, len(gen) - 1, VISIBLE_ROWS).astype(int)
    layout = network.layout
    jacobian = tangent(layout, network.theta, gen[rows])
    w = np.abs(weight[rows])
    w *= np.abs(weight).sum() / w.sum()
    mean = (w @ jacobian) / w.sum()
    unit = 1.0 / np.sqrt(precision)
    scaled = (jacobian - mean) * unit.astype(jacobian.dtype)
    directions = leading_directions(scaled, w, VISIBLE_SHARE, MOST_DIRECTIONS)
    basis = np.column_stack([directions * unit[:, None], _constant(network)])
    project = np.vstack([directions.T / unit, np.zeros(layout.n_parameters)])
    project[-1] = -(mean @ basis[:, :-1]) @ project[:-1]
    return replace(network, directions=basis), project


def _constant(network: Classifier) -> Array:
    """Displacement of the parameters that raises the output of all events by one, shape (P,)."""
    out = np.zeros(network.layout.n_parameters)
    out[network.layout.n_network - 1] = 1.0 / network.layout.scales[-1]  # the bias of the output
    return out


def centred(displacement: Displacement, x: Array, weight: Array) -> Displacement:
    """The same changes of a log ratio less their weighted mean over events ``x``, shape (n, d)."""
    network = displacement.classifier
    mean = (weight @ network.tangent(x).astype(np.float64)) / weight.sum()
    basis = np.column_stack([network.basis, _constant(network)])
    by_source = {name: np.vstack([d, -(mean @ d)]) for name, d in displacement.by_source.items()}
    return Displacement(replace(network, directions=basis), by_source)


def projected(classifier: Classifier, project: Array, by_source: Mapping[str, Array]) -> Displacement:
    """Displacements in the coordinates of the ensemble."""
    return Displacement(classifier, {name: project @ d for name, d in by_source.items()})
