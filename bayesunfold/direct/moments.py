"""Moments of data and refolded simulation at detector level, and their covariance: equations (D1), (D2).

Moments are sums of the tangent features of a detector-level network in its leading directions. A linear classifier of
these features tells data from the refolded simulation as soon as a moment differs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import stream
from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks, products
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.errors import ConvergenceError, SmallSampleWarning
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.unfolding.standardized import StandardizedEvents, to_yield

__all__ = ["DetectorFeatures", "Moments", "detector_weights", "moment_network"]

Array = NDArray[np.floating]


LEAST_INFORMATION = 1.0
"""Moments of smaller variance tell less about their direction than the network's prior."""

FEW_INPUTS = 3
"""Inputs at detector level up to which the network of the moments is trained."""

FEW_DATA = 20.0
"""Data events that may be too few for a moment to have a variance."""

LEAST_EVENTS = 50.0
"""Features are bounded where fewer expected events than this would make a moment alone, as bins are merged there."""


def __dir__() -> list[str]:
    return __all__


class DetectorFeatures(Protocol):
    """What moments are made of: a classifier's tangent features, or other functions of detector level."""

    @property
    def basis(self) -> Array:
        """As many columns as features."""

    def tangent(self, x: Array) -> Array:
        """Features at events, shape (n, features)."""


@dataclass(frozen=True)
class Features:
    """Bounded detector-level features whose expected sums are whitened.

    Attributes
    ----------
    classifiers : tuple of Classifier
        Whose tangent features they are made of: :func:`moment_network`, functions of a linear log weight, and second
        classifiers.
    centre : array, shape (q,)
        Mean of the tangent features over the data.
    scaling : array, shape (q, p)
        Combinations of the tangent features whose sums have unit covariance.
    bound : float
        Largest length of an event's scaled features.
    """

    classifiers: tuple[DetectorFeatures, ...]
    centre: Array
    scaling: Array
    bound: float

    def __call__(self, x: Array) -> Array:
        """Features at events, shape (n, p)."""
        features = [classifier.tangent(x) for classifier in self.classifiers]
        plain = features[0] if len(features) == 1 else np.hstack(features)
        scaled = (plain - self.centre.astype(x.dtype)) @ self.scaling.astype(x.dtype)
        length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
        shorter = np.minimum(1.0, self.bound / np.maximum(length, 1e-30))
        return scaled * shorter[:, None].astype(x.dtype)

    def total(self, x: Array, weight: Array) -> Array:
        """Weighted sum over events, shape (p,)."""
        out = np.zeros(self.scaling.shape[1])
        for part in map_blocks(lambda rows: self(x[rows]).T @ weight[rows].astype(x.dtype), blocks(len(x))):
            out += part
        return out

    def gram(self, x: Array, weight: Array, centre: Array) -> Array:
        """Weighted sum of products of the features, relative to a centre, shape (p, p)."""

        def one(rows: slice) -> Array:
            return products(self(x[rows]) - centre.astype(x.dtype), weight[rows])

        out = np.zeros((len(centre), len(centre)))
        for part in map_blocks(one, blocks(len(x))):
            out += part
        return out


@dataclass(frozen=True)
class Moments:
    """Whitened detector-level moments of one unfolding.

    Attributes
    ----------
    bounded : Features
    centre : array, shape (p,)
        Mean of the bounded features over the data.
    whitening : array, shape (p, moments)
        Combinations of them whose sums have unit covariance.
    data : array, shape (moments,)
        Sum over data minus backgrounds and fakes, which the particle level does not move.
    signal : float
        Yield of the events that pass both levels.
    """

    bounded: Features
    centre: Array
    whitening: Array
    data: Array
    signal: float

    @classmethod
    def of(cls, events: StandardizedEvents, first: Iteration, classifiers: tuple[DetectorFeatures, ...]) -> Moments:
        """Moments after the first OmniFold iteration.

        Their covariance is made of its pull weights, whose folded density is the data's, and stays fixed: a covariance
        that moved with the fit could be inflated by it.

        Parameters
        ----------
        events : StandardizedEvents
        first : Iteration
        classifiers : tuple of DetectorFeatures
            What the moments are made of.

        Raises
        ------
        ConvergenceError
            If no moment has a variance.
        """
        pull, u = detector_weights(events, first), events.data.weight
        size = sum(classifier.basis.shape[1] for classifier in classifiers)
        plain = Features(classifiers, np.zeros(size), np.eye(size), np.inf)
        centre = plain.total(events.data.x, u) / u.sum()
        scaling = _whitening(_covariance(events, plain, pull, centre), LEAST_INFORMATION, events.data.size)
        bounded = Features(classifiers, centre, scaling, 1.0 / np.sqrt(LEAST_EVENTS))
        centre = bounded.total(events.data.x, u) / u.sum()
        whitening = _whitening(_covariance(events, bounded, pull, centre), 1e-3, events.data.size)
        whitening = _at_most(whitening, max(1, int(events.data.size)))
        return cls(bounded, centre, whitening, np.zeros(whitening.shape[1]), 0.0).at(events, pull)

    def at(self, events: StandardizedEvents, pull: Array) -> Moments:
        """The same moments, what does not depend on the particle level taken from other events.

        Parameters
        ----------
        events : StandardizedEvents
        pull : array, shape (n,)
            From :func:`detector_weights`.
        """
        rest = np.zeros(len(self.centre))
        for b in events.backgrounds:
            rest += self.bounded.total(b.x, b.weight) - b.weight.sum() * self.centre
        fakes = events.passes.fakes
        in_fakes = float(pull[fakes].sum())
        rest += self.bounded.total(events.reco[fakes], pull[fakes]) - in_fakes * self.centre
        return replace(self, data=-(self.whitening.T @ rest), signal=events.signal_yield - in_fakes)

    def total(self, x: Array, weight: Array) -> Array:
        """Whitened moments of weighted events, shape (p,)."""
        used = np.flatnonzero(weight)
        out = np.zeros(len(self))
        for part in map_blocks(lambda rows: self.features(x[used[rows]]).T @ weight[used[rows]], blocks(len(used))):
            out += part
        return out

    def totals(self, x: Array, weight: Array, factors: Array) -> Array:
        """Whitened moments of events weighted in several ways: weight times each column of factors, shape (p, K)."""
        used = np.flatnonzero(weight)
        out = np.zeros((len(self), factors.shape[1]))

        def one(rows: slice) -> Array:
            phi = self.features(x[used[rows]])
            return (phi * weight[used[rows], None].astype(phi.dtype)).T @ factors[used[rows]].astype(phi.dtype)

        for part in map_blocks(one, blocks(len(used))):
            out += part
        return out

    def __len__(self) -> int:
        return self.whitening.shape[1]

    def features(self, x: Array) -> Array:
        """Whitened features, shape (n, moments)."""
        return (self.bounded(x) - self.centre.astype(x.dtype)) @ self.whitening.astype(x.dtype)


def moment_network(step1: Classifier, seed: int) -> Classifier:
    """The network whose tangent features are the moments.

    Of many inputs its weights are drawn from their prior. Weights that are trained on the data turn the features
    towards what fluctuates, and the moments of the same data then differ from those of the truth by more than their
    covariance says. Few inputs leave little room for that, and few functions of a drawn network would be as sharp: they
    keep the trained weights.

    Parameters
    ----------
    step1 : Classifier
        Of the first iteration; its classes say which directions of the weights events inform.
    seed : int
    """
    if step1.layout.sizes[0] <= FEW_INPUTS:
        return step1
    return step1.drawn(stream(seed, "moments").standard_normal(step1.layout.n_parameters))


def _covariance(events: StandardizedEvents, features: Features, pull: Array, centre: Array) -> Array:
    """``S`` of (D2): Poisson data at the expected density, and the statistics of simulation and backgrounds."""
    u = events.data.weight
    kappa = float((u**2).sum() / u.sum())
    reco = events.passes.reco
    out = features.gram(events.reco[reco], pull[reco] ** 2 + kappa * pull[reco], centre)
    for b in events.backgrounds:
        out += features.gram(b.x, b.weight**2 + kappa * b.weight, centre)
    return out


def _whitening(covariance: Array, least: float, data: float) -> Array:
    """Eigenvectors over the roots of their eigenvalues, of those above ``least``, with so many data events."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > least
    if not kept.any():
        msg = f"no detector-level moment of {data:.3g} data events (effective number) has a variance above {least:g}; "
        if data < FEW_DATA:
            msg += "so few say nothing of the shape. Take more data, or bayesunfold.FBU with few bins."
        else:
            msg += (
                "negative event weights dominate, or data and simulation do not overlap. Merge or remove such events."
            )
        raise ConvergenceError(msg)
    return vectors[:, kept] / np.sqrt(values[kept])


def _at_most(whitening: Array, most: int) -> Array:
    """The moments of largest variance, if there are more of them than data events."""
    found = whitening.shape[1]
    if found <= most:
        return whitening
    msg = (
        f"{found} moments at detector level for {most} data events; the {most} of largest variance are kept. A smaller "
        "network of moments, moments=Network(additive=...), says the same."
    )
    warnings.warn(msg, SmallSampleWarning, stacklevel=2)
    return whitening[:, -most:]  # eigenvalues rise


def detector_weights(events: StandardizedEvents, first: Iteration) -> Array:
    """Weights of the simulation whose folded density is the data's, with the signal's yield; zero where it fails."""
    weights = np.zeros(len(events))
    reco = events.passes.reco
    simulated = events.reco_weight
    weights[reco] = simulated[reco] * np.exp(first.step1.log_ratio(events.reco[reco]))
    # the simulated share of fakes stays
    share = simulated[events.passes.fakes].sum() / simulated[reco].sum()
    for rows, part in ((events.passes.both, 1.0 - share), (events.passes.fakes, share)):
        if rows.any():
            weights[rows] *= to_yield(weights, rows, float(part * events.signal_yield))
    return weights
