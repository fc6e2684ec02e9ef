"""The simulation's conditional density q(t | r) of particle level given detector level, one feature after another.

``q(t | r) = q(t_1 | r) q(t_2 | r, t_1) ...``; each factor is a :class:`~bayesunfold.generative.mixture.Mixture`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from bayesunfold._support.progress import Progress
from bayesunfold._support.streams import part_stream
from bayesunfold._support.threads import block_threads, map_here, trees_on_one_thread
from bayesunfold.classifier.arithmetic import BLOCK, blocks
from bayesunfold.generative.columns import Column, encode, fit_columns
from bayesunfold.generative.mixture import Mixture, Outputs
from bayesunfold.generative.training import TrainingPlan, train_mixture

__all__ = ["EventDensity", "even_weights", "matched_features", "row_blocks"]

Array = NDArray[np.floating]

MOST_CELLS, LEAST_SHARE, LEAST_EVENTS = 64, 0.01, 20
"""Of the detector level, in which weights are made even: how many, and the least events of one."""

ROUNDING = 1e-12
"""Relative differences of weights that are none."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class EventDensity:
    """``q(t | r)`` of simulated events that pass both levels.

    Attributes
    ----------
    gen, reco : tuple of Column
        Features of both levels.
    partners : tuple of int or None
        By particle-level feature: the detector-level feature that measures it, if one does.
    differences : tuple of Column or None
        Particle level minus its partner. Later features read it too: how well one feature was measured tells how well
        another was, and differences may be much smaller than the features.
    mixtures : tuple of Mixture
        The density of each particle-level feature, given detector level and the features before it.
    """

    gen: tuple[Column, ...]
    reco: tuple[Column, ...]
    partners: tuple[int | None, ...]
    differences: tuple[Column | None, ...]
    mixtures: tuple[Mixture, ...]

    @classmethod
    def fit(
        cls,
        gen: Array,
        reco: Array,
        weight: Array,
        names: tuple[Sequence[str], Sequence[str]],
        plan: TrainingPlan,
        seed: int,
        progress: Progress,
    ) -> EventDensity:
        """Train on simulated events.

        Parameters
        ----------
        gen, reco : array, shape (n, d)
        weight : array, shape (n,)
            Of the generator. Every place of the detector level then counts with its number of events:
            :func:`even_weights`.
        names : pair of sequences of str
            Of the features at particle level and at detector level.
        plan : TrainingPlan
        seed : int
        progress : Progress
        """
        weight = even_weights(reco, weight)
        columns, measured = fit_columns(gen, weight, names[0]), fit_columns(reco, weight, names[1])
        partners = matched_features(*names)
        differences = tuple(
            None if k is None else Column.fit(name, gen[:, j] - reco[:, k], weight)
            for j, (k, name) in enumerate(zip(partners, names[0], strict=True))
        )
        detector = encode(measured, reco)
        untrained = cls(columns, measured, partners, differences, ())
        known = [untrained._inputs_of(j, gen[:, j], reco) for j in range(len(columns))]
        done = np.zeros(len(columns))

        def one(j: int) -> Mixture:
            def report(share: float) -> None:
                done[j] = share
                progress.update(float(done.sum()), f"({names[0][j]}) ")

            u = np.hstack([detector, *known[:j]])
            return train_mixture(columns[j], u, gen[:, j], weight, plan, part_stream(seed, "generative", j), report)

        with block_threads():
            mixtures = tuple(map_here(one, range(len(columns))))
        return cls(columns, measured, partners, differences, mixtures)

    def _inputs_of(self, j: int, x: Array, reco: Array) -> Array:
        """What later features read of feature j."""
        partner, difference = self.partners[j], self.differences[j]
        own = self.gen[j].inputs(x)
        if partner is None or difference is None:
            return own
        return np.hstack([own, difference.inputs(x - reco[:, partner])])

    def propose(self, reco: Array, rng: np.random.Generator) -> Array:
        """One draw of the particle level for each detector-level event, shape (n, d_gen)."""
        out = np.empty((len(reco), len(self.gen)))
        u = encode(self.reco, reco)
        for j, mixture in enumerate(self.mixtures):
            out[:, j] = self.gen[j].value(*mixture.sample(mixture.outputs(u), rng))
            if j + 1 < len(self.gen):
                u = np.hstack([u, self._inputs_of(j, out[:, j], reco)])
        return out

    def log_prob(self, gen: Array, reco: Array) -> Array:
        """Log density at pairs of events, shape (n,): per unit of continuous features, a probability for others."""
        total = np.zeros(len(gen))
        for rows in blocks(len(gen)):
            u = encode(self.reco, reco[rows])
            for j, mixture in enumerate(self.mixtures):
                x = gen[rows, j]
                total[rows] += _log_factor(self.gen[j], mixture.outputs(u), x)
                u = np.hstack([u, self._inputs_of(j, x, reco[rows])])
        return total

    def outside(self, reco: Array) -> NDArray[np.bool_]:
        """Detector-level events with a value that no simulated event has, shape (n,)."""
        return np.column_stack([column.outside(reco[:, j]) for j, column in enumerate(self.reco)]).any(axis=1)


def _log_factor(column: Column, said: Outputs, x: Array) -> Array:
    """Log probability of values of one feature, given what its network says of them."""
    classes = column.classes(x)
    rows = np.arange(len(x))
    out = np.where(classes < 0, -np.inf, said.log_class[classes, rows].astype(np.float64))
    regular = (classes == len(column.atoms)) & column.continuous
    if not regular.any():
        return out
    with np.errstate(divide="ignore"):
        if column.whole:
            level = column.level(x)
            low, high = (said.distribution(column.edges[np.maximum(level, 0) + k]) for k in (0, 1))
            value = np.log(np.where(level >= 0, np.maximum(high - low, 0.0), 0.0))
        else:
            filled = np.where(np.isnan(x), column.low, x)
            value = said.log_density(column.score(filled)) + np.log(column.slope(filled))
    return np.where(regular, out + value, out)


def even_weights(reco: Array, weight: Array) -> Array:
    """Weights divided by their mean size at the event's place of the detector level, shape (n,).

    The conditional density minimises ``-sum_i w_i log q(t_i | r_i)``. Its expectation is the integral over r of
    ``-p(r) int q(t | r) log q'(t | r) dt``, with the weighted density ``p(r)`` of the simulation and the network's
    ``q'``. At every r the inner integral is smallest for ``q' = q``, whatever ``p(r)`` is. So a factor on the weights
    that depends on r alone changes no answer. It says how much each place counts in the training. With the weights of
    a simulation in slices the tails would count for nothing, though most of the events are there. After the division
    each place counts with its number of events.

    The places are the leaves of one regression tree of ``log |w|``.

    Parameters
    ----------
    reco : array, shape (n, d)
        NaN where a feature does not exist.
    weight : array, shape (n,)
        May be negative; signs stay.

    Examples
    --------
    >>> import numpy as np
    >>> reco = np.arange(200.0)[:, None]
    >>> even_weights(reco, np.where(reco[:, 0] < 100, 1.0, 1 / 1024))[[0, -1]].tolist()
    [1.0, 1.0]
    """
    size = np.abs(weight)
    known = size > 0
    if np.ptp(size[known]) <= ROUNDING * size.max():
        return weight
    tree = HistGradientBoostingRegressor(
        max_iter=1,
        learning_rate=1.0,
        max_leaf_nodes=MOST_CELLS,
        min_samples_leaf=max(LEAST_EVENTS, int(LEAST_SHARE * len(weight))),
        early_stopping=False,
        random_state=0,
    )
    seen = encode(fit_columns(reco, np.ones(len(reco)), [""] * reco.shape[1]), reco)  # without NaN and huge numbers
    with trees_on_one_thread():
        tree.fit(seen[known], np.log(size[known]))
        cell = np.unique(tree.predict(seen), return_inverse=True)[1]
    mean = np.bincount(cell, size) / np.bincount(cell)
    even = np.divide(weight, mean[cell], out=np.zeros(len(weight)), where=mean[cell] > 0)
    return even if even.sum() > 0 else weight


def row_blocks(n: int, copies: int) -> Iterator[slice]:
    """Blocks of events of which each stands in ``copies`` rows."""
    return blocks(n, max(1, BLOCK // copies))


def matched_features(gen: Sequence[str], reco: Sequence[str]) -> tuple[int | None, ...]:
    """By particle-level feature: the detector-level feature of the same name, or, without any, of the same number."""
    if not set(gen) & set(reco) and len(gen) == len(reco):
        return tuple(range(len(gen)))
    return tuple(list(reco).index(name) if name in reco else None for name in gen)
