"""The difference of two simulations as weights of the events of one: a two-point uncertainty."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import part_stream
from bayesunfold.errors import InputError
from bayesunfold.events import Simulation

if TYPE_CHECKING:
    from bayesunfold.unfolding.systematics import Systematic

__all__ = ["check_alternative", "statistics_name", "two_point_change"]

Array = NDArray[np.floating]

INTERVALS = 12
"""Of the network's additive part, for each feature: bins of one feature then have their own statistics."""

DRAWS = 20
"""Draws of the ratio that members share; the variance of its own statistics is known to a third."""


def __dir__() -> list[str]:
    return __all__


def statistics_name(systematic: str) -> str:
    """Of the source that the statistics of a profiled two-point uncertainty are.

    Examples
    --------
    >>> statistics_name("shower")
    'shower, statistics'
    """
    return f"{systematic}, statistics"


def two_point_change(systematic: Systematic, simulation: Simulation, seed: int) -> tuple[Array, Array]:
    """Logarithm of the factor that turns the nominal simulation into the alternative one, and what is known of it.

    A classifier sees both levels and both pass flags of every event, with neutral values where a level is absent. The
    evidence chooses the scales of its prior: where the samples are alike, their ratio is close to one.

    Returns
    -------
    change : array, shape (n,)
        Its posterior mean.
    draws : array, shape (n, M), float32
        Posterior draws, less their mean: the statistics of both samples.
    """
    from bayesunfold.classifier.estimator import BayesianClassifier
    from bayesunfold.classifier.network import Network

    other = systematic.alternative
    if other is None:
        msg = f"{systematic.name!r} has no alternative simulation."
        raise InputError(msg)
    check_alternative(systematic.name, other, simulation)
    x = _joint(simulation, other)
    y = np.repeat([0, 1], [len(simulation), len(other)])
    weight = np.concatenate([simulation.weight, other.weight])
    network = Network(prior_scale="evidence", additive=INTERVALS)
    # a name has its own draws: those of several uncertainties are independent
    own = part_stream(seed, "alternatives", zlib.crc32(systematic.name.encode())).integers(2**31)
    classifier = BayesianClassifier(network, inference="laplace", draws=DRAWS, random_state=int(own))
    classifier.fit(x, y, sample_weight=weight)
    log_ratio = classifier.log_ratio_draws(x[: len(simulation)]).T
    mean = log_ratio.mean(axis=1)
    return mean, np.asfortranarray(log_ratio - mean[:, None], dtype=np.float32)  # columns are asked for


def check_alternative(name: str, other: Simulation, simulation: Simulation) -> None:
    """Whether weights of the simulated events can express an alternative simulation.

    Raises
    ------
    InputError
    """
    if (other.reco_factor is None) != (simulation.reco_factor is None):
        which = "the simulation has" if other.reco_factor is None else f"the alternative of {name!r} has"
        msg = f"only {which} a reco_factor; give scale factors to both, or to none."
        raise InputError(msg)
    for level in ("gen", "reco"):
        mine, theirs = getattr(simulation, level), getattr(other, level)
        named = getattr(simulation, f"{level}_named") and getattr(other, f"{level}_named")
        names = getattr(simulation, f"{level}_names"), getattr(other, f"{level}_names")
        if mine.shape[1] != theirs.shape[1] or (named and names[0] != names[1]):
            msg = (
                f"the alternative of {name!r} has the {level} features {names[1]} and the simulation {names[0]}; "
                "give the same, in the same order."
            )
            raise InputError(msg)
        if getattr(simulation, f"pass_{level}").all() and not getattr(other, f"pass_{level}").all():
            failing = int((~getattr(other, f"pass_{level}")).sum())
            msg = (
                f"{failing} events of the alternative of {name!r} fail {level} and no event of the simulation does; "
                f"weights of its events cannot express that. Keep events that fail {level} in the simulation too."
            )
            raise InputError(msg)
    same = len(other) == len(simulation) and np.array_equal(other.weight, simulation.weight)
    if same and all(np.array_equal(getattr(other, k), getattr(simulation, k), equal_nan=True) for k in ("gen", "reco")):
        msg = f"the alternative of {name!r} is identical to the simulation; leave the systematic out."
        raise InputError(msg)


def _joint(simulation: Simulation, other: Simulation) -> Array:
    """Features of both levels of both samples, one after the other, without NaN.

    Where a level is absent or a feature does not exist, the simulation's mean stands; flags and indicators that vary in
    either sample are columns of their own.
    """
    columns = []
    for level in ("gen", "reco"):
        values = np.concatenate([getattr(simulation, level), getattr(other, level)])
        passing = np.concatenate([getattr(simulation, f"pass_{level}"), getattr(other, f"pass_{level}")])
        mean = np.nanmean(getattr(simulation, level)[getattr(simulation, f"pass_{level}")], axis=0)
        exists = passing[:, None] & np.isfinite(values)
        columns.append(np.where(exists, values, mean))
        indicators = np.column_stack([passing, exists | ~passing[:, None]])
        columns.append(indicators[:, ~indicators.all(axis=0)].astype(np.float64))
    return np.column_stack(columns)
