"""Nuisance parameters in the fit: where the data pull them, and more columns of the moments' derivative.

The simulation is moved to the parameters' most probable values, given the network; there everything is made linear
again, until the parameters stay. Network and nuisance parameters then have one joint posterior, equations (N1) to (N4).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from bayesunfold.direct.fit import Fit, Setup
from bayesunfold.direct.mode import FINAL_EVENTS, Mode, Problem, find_mode, mode_at, thinned_rows
from bayesunfold.direct.moments import Moments
from bayesunfold.direct.precision import Evidence, base_covariance, covariance, grams_of, pseudo_observation
from bayesunfold.direct.prior import ParameterPrior
from bayesunfold.errors import ConvergenceWarning, ProfilingWarning
from bayesunfold.events import Data
from bayesunfold.omnifold.problems import push_outside
from bayesunfold.unfolding.nuisances import Moved, Nuisances, SignedEvents
from bayesunfold.unfolding.perturbations import Shifted
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents

__all__ = ["Profile", "follow", "warn_of_nuisances"]

Array = NDArray[np.floating]

MOST_ROUNDS, SETTLED = 20, 0.1
"""Most times that the simulation is moved, and the change, in posterior standard deviations, at which it stays."""

MOST_AWAY, LARGE_AWAY, PATIENCE = 0.5, 1.0, 4
"""Distance of the network from the joint mode that is small, and one that is warned of, in posterior standard
deviations of all its directions together; and rounds in which it may shrink after the nuisance parameters stay."""

ENDING = 1.0
"""Change after which the network is brought to its end in every round."""

LONGEST_STEP = 1.0
"""Change of a parameter in one round."""

STEPS = (0.1, 0.25)
"""Smallest and largest of the differences of features, on either side, in prior standard deviations."""

NOISE_EVENTS, ROUGH_EVENTS = 5_000, 10_000
"""Events that the statistics of a column are estimated from, and the column itself while the fit moves."""

SIGNIFICANT, FINAL_ROUND = 8.0, 3
"""Standard deviations by which a column differs from every change of the particle level, to be called measured, and the
round after which this is not asked again."""

NEGLIGIBLE = 0.5
"""Change of a moment per prior standard deviation that says nothing, in standard deviations of the moment."""

FREEDOM = 5.0
"""Prior standard deviation of a change that mimics a nuisance parameter, in units of the uncertainty that what nothing
mimics leaves of the parameter."""

FAR = 5.0
"""Value of a parameter, in prior standard deviations, that is warned of."""

ALIKE, UNSEEN = 0.999, 0.02
"""Cosine of two parameters' columns that are called the same, and the length of a column that says nothing."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Profile:
    """The profiled nuisance parameters at some value.

    Attributes
    ----------
    nuisances : Nuisances
    data : Data
    scales : Scales
        Of the nominal simulation.
    alpha : array, shape (K,)
    std : array, shape (K,)
        Posterior standard deviations, as far as they are known.
    now : Moved
        The inputs there.
    measured : tuple of bool, optional
        Which parameters data can tell from a change of the particle level; None while that is not decided.
    """

    nuisances: Nuisances
    data: Data
    scales: Scales
    alpha: Array
    std: Array
    now: Moved
    measured: tuple[bool, ...] | None = None

    @classmethod
    def start(cls, nuisances: Nuisances, data: Data, scales: Scales) -> Profile:
        """At the nominal simulation."""
        zero = np.zeros(len(nuisances))
        return cls(nuisances, data, scales, zero, np.ones(len(nuisances)), nuisances.moved(zero, data, scales))

    def at(self, alpha: Array, std: Array) -> Profile:
        """At another value."""
        return replace(self, alpha=alpha, std=std, now=self.nuisances.moved(alpha, self.data, self.scales))

    @property
    def events(self) -> StandardizedEvents:
        """The standardised inputs."""
        return self.now.events

    def columns(
        self,
        problem: Problem,
        mode: Mode,
        push: Array,
        outside: Callable[[Array, NDArray[np.bool_]], Array],
        most: int = FINAL_EVENTS,
    ) -> tuple[Array, Array]:
        """Derivative of the refolded moments by the parameters, whitened, and changes of the network that mimic it.

        Parameters
        ----------
        problem, mode
            The fit.
        push : array, shape (n,)
            Push weights at the mode.
        outside : callable
            As for :meth:`Nuisances.derivatives`.
        most : int
            Simulated events that it is estimated from.

        Returns
        -------
        columns : array, shape (p, K)
        free : array, shape (P, K)
            In units of their prior standard deviation: :data:`FREEDOM` times that which the rest of the data leaves of
            the parameter.
        """
        step = np.clip(self.std, *STEPS)
        rows = thinned_rows(len(self.events), most)
        signed = self.nuisances.derivatives(self.alpha, step, self.now, push, outside, rows)
        out = _sums(problem.moments, signed)
        changes = np.zeros((problem.layout.n_parameters, len(signed)))
        for k, samples in enumerate(signed):
            noise = sum(_noise(problem.moments, sample) for sample in samples)
            learned = self.nuisances.ratio_noise(k, self.now, push, rows)
            if learned is not None:
                noise = noise + _spread(problem.moments, *learned)
            measured = None if self.measured is None else self.measured[k]
            out[:, k], change = smoothed(out[:, k], np.asarray(noise), mode.derivative, measured)
            rest = out[:, k] - mode.derivative @ change
            changes[:, k] = change * (FREEDOM / np.sqrt(1.0 + rest @ rest))
        return out, changes


def _sums(moments: Moments, signed: Sequence[SignedEvents]) -> Array:
    """Whitened moments of signed events, shape (p, K); features of events that several share are made once."""
    shared: dict[int, list[tuple[int, Array, Array]]] = {}
    for k, samples in enumerate(signed):
        for x, weight in itertools.chain.from_iterable(samples):
            shared.setdefault(id(x), []).append((k, x, weight))
    out = np.zeros((len(moments), len(signed)))
    for parts in shared.values():
        weights = np.column_stack([weight for _, _, weight in parts])
        found = moments.totals(parts[0][1], np.any(weights != 0, axis=1).astype(np.float64), weights)
        for column, (k, _, _) in enumerate(parts):
            out[:, k] += found[:, column]
    return out


def _noise(moments: Moments, sample: list[tuple[Array, Array]]) -> Array:
    """Covariance of a sum of moments from its events' statistics, shape (p, p)."""
    used = np.flatnonzero(np.any([weight != 0 for _, weight in sample], axis=0))
    rows = used[thinned_rows(len(used), NOISE_EVENTS)]
    values = np.sum([moments.features(x[rows]) * weight[rows, None] for x, weight in sample], axis=0)
    return np.asarray(values.T @ values) * (len(used) / max(1, len(rows)))


def _spread(moments: Moments, x: Array, weights: Array) -> Array:
    """Covariance of sums of moments over draws of the weights, shape (p, p)."""
    found = moments.totals(x, np.any(weights != 0, axis=1).astype(np.float64), weights)
    return np.asarray(found @ found.T) / found.shape[1]


def smoothed(column: Array, noise: Array, derivative: Array, measured: bool | None = None) -> tuple[Array, Array]:
    """A change of the particle level that looks like a nuisance parameter, (N4), and the column without its own noise.

    A particle level that differs from the simulation can look like a nuisance parameter at detector level. Which of the
    two it is only the network's prior could tell, and it must not: such changes are as good as free. A prior of
    precision one says how far they may go.

    What no particle level mimics measures the parameter. Of this, templates of systematic variations hold the
    statistics of their own events, which would seem to measure it too. If it is larger than these, it is taken as
    Normal with one variance for all moments, of the largest likelihood, and its best estimate is kept.

    Parameters
    ----------
    column : array, shape (p,)
        Derivative of the moments by the parameter.
    noise : array, shape (p, p)
        Its covariance.
    derivative : array, shape (p, P)
        Of the moments by the network's parameters.
    measured : bool, optional
        Whether it is larger, if that is known.

    Returns
    -------
    column : array, shape (p,)
    change : array, shape (P,)
    """
    gram = derivative @ derivative.T
    gram.flat[:: len(gram) + 1] += 1.0
    rest = np.linalg.inv(gram)  # 1 - A (A'A + 1)^-1 A'
    difference = rest @ column
    change = derivative.T @ difference
    values, vectors = np.linalg.eigh(rest @ noise @ rest.T)
    values = np.maximum(values, 0.0)
    along = vectors.T @ difference
    if measured is None:
        total = values + NEGLIGIBLE**2
        expected = float((values / total).sum())
        measured = float((along**2 / total).sum()) > expected + SIGNIFICANT * np.sqrt(2 * expected) + SIGNIFICANT
    if not measured:
        return column - difference, change
    sizes = (along @ along) * np.geomspace(1e-6, 1.0, 61)
    total = sizes[:, None] + values
    best = sizes[np.argmin((np.log(total) + along**2 / total).sum(axis=1))]
    return column - difference + vectors @ (best / (best + values) * along), change


def follow(
    profile: Profile, setup: Setup, start: Array, log_tau: Array | None, *, fixed: bool = False
) -> tuple[Profile, Fit]:
    """Fit network, precisions and nuisance parameters, moving the simulation until these stay.

    The network is not brought to its end before they do: where the simulation is wrong, it would bend far to hide that.

    Parameters
    ----------
    profile : Profile
    setup : Setup
    start : array, shape (P,)
        Parameters of the network.
    log_tau : array, shape (groups,), optional
        Logarithms of the precisions to start with.
    fixed : bool
        Whether the precisions stay.

    Returns
    -------
    profile, fit
        At the end.

    Warns
    -----
    ConvergenceWarning
        If they do not stay after many rounds.
    """
    problem = setup.problem(profile.events)
    log_tau = np.zeros(len(problem.groups)) if log_tau is None else log_tau
    if not fixed:
        log_tau = Evidence.of(problem, mode_at(problem, start, np.exp(log_tau)), setup.width).mode(log_tau)
    mode = find_mode(problem, start, np.exp(log_tau), 1)
    settled, quiet = False, 0
    for number in range(MOST_ROUNDS):
        mode = _with_columns(profile, setup, problem, mode, FINAL_EVENTS if settled else ROUGH_EVENTS)
        if number == FINAL_ROUND:
            profile = replace(profile, measured=_measured(mode))
        evidence = Evidence.of(problem, mode, setup.width)
        log_tau = log_tau if fixed else evidence.mode(log_tau)
        theta, alpha, std = joint_mean(problem, mode, np.exp(log_tau))
        step = alpha - profile.alpha
        problem = replace(problem, free=mode.free)
        away = _distance(problem, mode, theta, np.exp(log_tau))
        quiet = quiet + 1 if settled and np.all(np.abs(step) < SETTLED * std) else 0
        if quiet > 0 and (away < MOST_AWAY or quiet == PATIENCE):
            _warn_if_away(away)
            mode = replace(mode, tau=np.exp(log_tau))
            return replace(profile, std=std), Fit(setup, problem, mode, evidence, log_tau)
        short = LONGEST_STEP / max(LONGEST_STEP, float(np.abs(step).max()))
        profile = profile.at(profile.alpha + short * step, std)
        problem = replace(setup.problem(profile.events), free=mode.free)
        settled = bool(np.all(np.abs(step) < ENDING * std))
        theta = mode.theta + short * (theta - mode.theta)
        mode = find_mode(problem, theta, np.exp(log_tau), *(() if settled else (1,)))
    worst = int(np.argmax(np.abs(step) / std))
    msg = (
        f"after {MOST_ROUNDS} rounds the nuisance parameter {profile.nuisances.names[worst]!r} still moves by "
        f"{abs(step[worst]) / std[worst]:.2f} of its posterior width (limit {SETTLED}); its value is unreliable by it."
    )
    warnings.warn(msg, ConvergenceWarning, stacklevel=4)
    mode = _with_columns(profile, setup, problem, mode)
    return profile, Fit(setup, problem, mode, Evidence.of(problem, mode, setup.width), log_tau)


def _with_columns(profile: Profile, setup: Setup, problem: Problem, mode: Mode, most: int = FINAL_EVENTS) -> Mode:
    """What is linear about the nuisance parameters at a mode, and the changes that mimic them."""
    columns, free = profile.columns(problem, mode, *_weights(profile, setup, mode), most)
    correlation = profile.nuisances.correlation
    return replace(mode, alpha=profile.alpha, columns=columns, correlation=correlation, free=free)


def _distance(problem: Problem, mode: Mode, theta: Array, tau: Array) -> float:
    """Of the network from the joint mode of the linear model, in posterior standard deviations."""
    shift = theta - mode.theta
    seen = mode.derivative @ shift
    return float(np.sqrt(max(0.0, float(seen @ seen + shift @ problem.prior(tau).stiffness(shift)))))


def _warn_if_away(away: float) -> None:
    if away > LARGE_AWAY:
        msg = (
            f"the most probable network is {away:.1f} posterior standard deviations from the mean of its linear model "
            f"(limit {LARGE_AWAY:g}): a nuisance parameter that the data do not know leaves room that is not linear. "
            "Bands are unreliable by about as much in that direction."
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=5)


def _measured(mode: Mode) -> tuple[bool, ...]:
    """Which parameters' columns differ from every change of the particle level."""
    squares = np.maximum((mode.mimics**2).sum(axis=0), 1e-300)
    rest = mode.columns - mode.mimics * ((mode.mimics * mode.columns).sum(axis=0) / squares)
    length = np.linalg.norm(mode.columns, axis=0)
    return tuple(bool(r > 1e-6 * size) for r, size in zip(np.linalg.norm(rest, axis=0), length, strict=True))


def _weights(profile: Profile, setup: Setup, mode: Mode) -> tuple[Array, Callable[[Array, NDArray[np.bool_]], Array]]:
    """Push weights, and a function that adds those of events from outside of both levels."""
    events = profile.events
    push = setup.push(events, mode)
    return push, lambda x, passes: push_outside(events, push, setup.first.step1, Shifted(x, passes))


def warn_of_nuisances(profile: Profile, columns: Array) -> None:
    """Warn of parameters that data cannot constrain, or pull very far.

    Warns
    -----
    ProfilingWarning
    """
    names = profile.nuisances.names
    for name, alpha in zip(names, profile.alpha, strict=True):
        if abs(alpha) > FAR:
            msg = (
                f"the data pull {name!r} to {alpha:.1f} standard deviations (limit {FAR:g}); the variation is "
                "extrapolated there, and something else may be wrong. Look at result.goodness_of_fit()."
            )
            warnings.warn(msg, ProfilingWarning, stacklevel=4)
    length = np.linalg.norm(columns, axis=0)
    for k, name in enumerate(names):
        if length[k] < UNSEEN:
            told = np.any(np.delete(profile.nuisances.correlation[k], k))
            end = "what is known of it is what its correlations say" if told else "its posterior is its prior"
            msg = f"{name!r} changes nothing that the data see; {end}."
            warnings.warn(msg, ProfilingWarning, stacklevel=4)
    seen = np.flatnonzero(length >= UNSEEN)
    unit = columns[:, seen] / length[seen]
    alike = np.argwhere(np.triu(np.abs(unit.T @ unit) > ALIKE, 1))
    for i, j in alike:
        msg = (
            f"{names[seen[i]]!r} and {names[seen[j]]!r} change the data alike; only a combination of them is measured, "
            "and the rest is the prior. Merge them if they are one uncertainty."
        )
        warnings.warn(msg, ProfilingWarning, stacklevel=4)


def joint_mean(problem: Problem, mode: Mode, tau: Array) -> tuple[Array, Array, Array]:
    """Most probable network and nuisance parameters of the linear model about a mode, and the latter's widths.

    Parameters
    ----------
    problem : Problem
    mode : Mode
        With the columns of the nuisance parameters.
    tau : array, shape (groups,)

    Returns
    -------
    theta : array, shape (P,)
    alpha, std : array, shape (K,)
    """
    y, a, b = pseudo_observation(problem, mode), mode.derivative, mode.columns @ mode.correlation
    total = covariance(base_covariance(mode), grams_of(a, problem.groups), tau)
    factor = cho_factor(total, lower=True)
    pulled = cho_solve(factor, y)
    theta = problem.centre + ParameterPrior(problem.precisions(tau), mode.free).spread(a.T @ pulled)
    variance = 1.0 - (b * cho_solve(factor, b)).sum(axis=0)
    return theta, b.T @ pulled, np.sqrt(np.maximum(variance, 1e-12))
