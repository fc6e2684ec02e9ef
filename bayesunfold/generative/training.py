"""Training of a conditional mixture: Adam on parts of the events, with held-out ones against overfitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import blocks
from bayesunfold.generative.columns import Column
from bayesunfold.generative.mixture import Mixture, Parameters, loss_and_gradient

__all__ = ["TrainingPlan", "train_mixture"]

Array = NDArray[np.floating]
Integers = NDArray[np.integer]

HELD_OUT, MOST_HELD_OUT = 0.1, 10_000
"""Share of the events, and most of them, that choose when to stop."""

LOOKS, BETTER = 30, 3.0
"""How often held-out events are looked at, and the significance at which they stop the training earlier."""

DECAY_1, DECAY_2, TINY = 0.9, 0.999, 1e-8


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class TrainingPlan:
    """How long, and with what steps.

    Attributes
    ----------
    hidden : int
        Units of each of the two hidden layers.
    gaussians : int
        In the mixture of a feature.
    batch : int
        Events per step.
    epochs : int
        Passes over the events, as far as the steps allow.
    steps : (int, int)
        Least and most steps.
    rate : float
        First step size of Adam, which falls to zero as a half cosine.
    """

    hidden: int = 64
    gaussians: int = 8
    batch: int = 2000
    epochs: int = 130
    steps: tuple[int, int] = (1000, 4000)
    rate: float = 1.2e-2

    def passes(self, n: int) -> int:
        """Passes over n events."""
        per_pass = max(1, n // self.batch)
        return max(1, int(np.clip(self.epochs * per_pass, *self.steps)) // per_pass)


def train_mixture(
    column: Column,
    u: Array,
    x: Array,
    weight: Array,
    plan: TrainingPlan,
    rng: np.random.Generator,
    report: Callable[[float], None] = lambda _share: None,
) -> Mixture:
    """The density of a column given inputs.

    Parameters
    ----------
    column : Column
    u : array, shape (n, inputs), float32
    x : array, shape (n,)
        Values of the feature.
    weight : array, shape (n,)
    plan : TrainingPlan
    rng : numpy.random.Generator
    report : callable
        Told the share that is done.

    Notes
    -----
    Adam: D. Kingma, J. Ba, arXiv:1412.6980, algorithm 1. The parameters' prior is N(0, 1) for hidden layers, in units
    of the inverse root of their inputs.
    """
    n = len(x)
    weight = weight * (n / weight.sum())
    k = plan.gaussians if column.continuous else 0
    mixture = Mixture.start(u.shape[1], plan.hidden, column.n_classes, k, rng)
    classes = column.classes(x)
    order = rng.permutation(n)
    held = order[: int(min(HELD_OUT * n, MOST_HELD_OUT))]
    used = order[len(held) :]
    held_score = column.spread_score(x[held], rng).astype(np.float32) if k else np.zeros(len(held), np.float32)
    passes = plan.passes(len(used))
    per_pass = max(1, len(used) // plan.batch)
    shapes = [p.shape for p in mixture.parameters]
    theta = _flat(mixture.parameters)
    decay = _flat([np.full_like(p, (len(p) if p.ndim == 2 else 0) / len(used)) for p in mixture.parameters])
    adam = _Adam(np.zeros_like(theta), np.zeros_like(theta), passes * per_pass, plan.rate)
    stopped: tuple[Mixture, Array] | None = None
    losses = np.zeros(len(held))
    for number in range(passes):
        score = column.spread_score(x, rng).astype(np.float32) if k else np.zeros(n, np.float32)
        rows = rng.permutation(used)
        shuffled = [part.take(rows, axis=0) for part in (u, classes, score, weight)]
        for batch in zip(*(np.array_split(part, per_pass) for part in shuffled), strict=True):
            _, gradient = loss_and_gradient(mixture, *batch)
            theta = adam.step(theta, _flat(gradient) * np.float32(1.0 / len(batch[0])) + decay * theta)
            mixture = replace(mixture, parameters=_shaped(theta, shapes))
        if len(held) and ((number + 1) % max(1, passes // LOOKS) == 0 or number + 1 == passes):
            losses = _losses(mixture, u[held], classes[held], held_score) * weight[held]
            if stopped is None or losses.mean() < stopped[1].mean():
                stopped = mixture, losses
        if (number + 1) % max(1, passes // 4) == 0:
            report((number + 1) / passes)
    return mixture if stopped is None or not _clearly_better(stopped[1], losses) else stopped[0]


def _clearly_better(losses: Array, final: Array) -> bool:
    """Whether an earlier stop has a lower loss than the end of the schedule beyond what held-out events vary by.

    Step sizes fall to zero, so the end is the more accurate one unless the network has learned the events by heart.
    """
    difference = final - losses
    return bool(difference.sum() > BETTER * np.sqrt((difference**2).sum()))


def _losses(mixture: Mixture, u: Array, classes: Integers, score: Array) -> Array:
    """Negative log density of each event."""
    out = np.zeros(len(u))
    for rows in blocks(len(u)):
        said = mixture.outputs(u[rows])
        density = said.log_class[classes[rows], np.arange(len(classes[rows]))].astype(np.float64)
        if mixture.n_gaussians:
            density += np.where(classes[rows] == mixture.n_classes - 1, said.log_density(score[rows]), 0.0)
        out[rows] = -density
    return out


@dataclass
class _Adam:
    """Running means of the gradient and of its square."""

    mean: Array
    square: Array
    total: int
    rate: float
    number: int = 0

    def step(self, parameters: Array, gradient: Array) -> Array:
        """Parameters after one step."""
        self.number += 1
        t = self.number
        rate = self.rate * 0.5 * (1.0 + np.cos(np.pi * min(t / self.total, 1.0)))
        rate = np.float32(rate * np.sqrt(1 - DECAY_2**t) / (1 - DECAY_1**t))
        self.mean += (1 - DECAY_1) * (gradient - self.mean)
        self.square += (1 - DECAY_2) * (gradient * gradient - self.square)
        return parameters - rate * self.mean / (np.sqrt(self.square) + np.float32(TINY))


def _flat(parameters: Parameters) -> Array:
    """All in one vector: steps of many small arrays take longer than their sums."""
    return np.concatenate([p.ravel() for p in parameters])


def _shaped(theta: Array, shapes: list[tuple[int, ...]]) -> Parameters:
    """Views of their part of the vector."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(theta, ends[:-1]), shapes, strict=True)]
