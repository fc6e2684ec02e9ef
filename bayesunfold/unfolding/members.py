"""The ensemble as it is stored: displacements of network weights, and seeds.

Event weights (draw x event) can be larger than memory, so they are made in blocks of events when
something asks for them. Member ``s`` of event ``i`` weighs
``v_i exp(m_i) (1 + r_i + g_i) nu(t_i) exp(n(t_i))``, normalised member by member to a yield that fluctuates.
Systematics make ``m`` and ``r``, equation (19).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.threads import block_threads, map_blocks, map_here
from bayesunfold.classifier.arithmetic import forward
from bayesunfold.errors import ConvergenceError
from bayesunfold.unfolding.event_groups import GroupedFluctuations, in_groups
from bayesunfold.unfolding.group_totals import SAMPLED, GroupTotals, sums_by_group
from bayesunfold.unfolding.kept_misses import change_of_kept
from bayesunfold.unfolding.learned_changes import LearnedChanges
from bayesunfold.unfolding.pairs import OneSigma
from bayesunfold.unfolding.perturbations import (
    Acceptance,
    Block,
    Column,
    Fluctuations,
    Perturbations,
    alpha_of,
)
from bayesunfold.unfolding.propagation import Displacement
from bayesunfold.unfolding.standardized import StandardizedEvents, to_yield

__all__ = ["Members"]

Array = NDArray[np.floating]


Rows = slice | NDArray[np.integer]

NORM_SAMPLE = 8_192
"""Events that a member's total is made from beyond what is linear."""

SPREAD_MEMBERS = 8
"""Members from which it is learned which events' weights change much."""

LARGE_LOSS = 0.3
"""Share of the events that a variation may lose at one standard deviation; members vary it by three and more."""


def __dir__() -> list[str]:
    return __all__


@dataclass
class Members:
    """Weights of simulated events, for the point estimate and for every member.

    Attributes
    ----------
    events : StandardizedEvents
    push : array, shape (n,)
        Push weights of the point estimate after the last iteration, generator weight not included.
    perturbations : Perturbations
        Fluctuations, moved onto posterior draws where there are any, and systematic variations.
    step2 : Displacement
        Of the classifier that gave the push weights.
    fakes : Displacement or None
        The same for the classifier that weighs fakes.
    multiplier : array, shape (p, n_members), or None
        What moved the fluctuations onto posterior draws, equation (9).
    keeps_total : bool
        Whether the signal keeps its total beside backgrounds, (5a); not in files of earlier versions.
    negative_data : float
        Share of the data events' fluctuations below -1.
    free_misses : bool
        Whether events that fail detector level weigh what the particle-level network says; otherwise they keep their
        generator weight, in units in which the events that pass both levels have push weights of mean one.
    """

    events: StandardizedEvents
    push: Array
    perturbations: Perturbations
    step2: Displacement
    fakes: Displacement | None = None
    multiplier: Array | None = None
    negative_data: float = 0.0
    free_misses: bool = True
    keeps_total: bool = True
    _norms: dict[str | None, Array] = field(default_factory=dict, repr=False)
    _kept_changes: dict[str | None, Array] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_members(self) -> int:
        """Number of members, the length of the draw dimension."""
        return self.perturbations.n_members

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources of uncertainty."""
        return tuple(source.name for source in self.perturbations.sources)

    @property
    def systematics(self) -> tuple[str, ...]:
        """Names of the systematic uncertainties among the sources."""
        return tuple(source.name for source in self.perturbations.sources if source.is_systematic)

    def one_sigma(self, systematic: str) -> Members:
        """Two members: a systematic one standard deviation up, and one down; nothing else fluctuates.

        Of a profiled one: of its posterior, the other parameters following.

        Ask the two for weights with ``source=systematic``.
        """
        one = OneSigma(self.perturbations, systematic)

        def moved(displacement: Displacement) -> Displacement:
            found = one.of(displacement.by_source)
            none = np.zeros((displacement.classifier.basis.shape[1], 2))
            return Displacement(displacement.classifier, {systematic: none if found is None else found})

        signal = one.of(self.perturbations.signal)
        pair = Perturbations(
            self.perturbations.sources,
            {"simulation": self._pair()},
            np.zeros((0, 2)),
            {name: one.effect(other) for name, other in self.perturbations.effects.items()},
            {} if signal is None else {systematic: signal},
        )
        fakes = None if self.fakes is None else moved(self.fakes)
        return Members(self.events, self.push, pair, moved(self.step2), fakes, free_misses=self.free_misses)

    def _pair(self) -> Fluctuations:
        """Fluctuations of two members, which nobody asks for, summed as those of this ensemble are."""
        own = self.perturbations.simulation
        most = own.most if isinstance(own, GroupedFluctuations) else None
        return in_groups(Fluctuations(len(self.events), 2, 0), self.events.weight, most)

    def nominal(self, level: Literal["gen", "reco"] = "gen") -> Array:
        """Point-estimate weights of the simulated events that pass a level, zero for others, shape (n,)."""
        v, passes = self.events.weight * self.push, self.events.passes
        seen = self.events.at_reco(v)
        norm = to_yield(seen, passes.reco, self.events.signal_yield)
        if level == "reco":
            return np.where(passes.reco, seen * norm, 0.0)
        if not self.free_misses:
            v = np.where(passes.misses, self.events.weight, v)
        return np.where(passes.gen, v * norm, 0.0)

    def base(self, kept: NDArray[np.bool_] | None = None) -> Array:
        """Weights of all events before members change them, not normalised, shape (n,); generator weights if kept."""
        return self.events.weight * (self.push if kept is None else np.where(kept, 1.0, self.push))

    @cached_property
    def learned_changes(self) -> LearnedChanges:
        """Systematics of generator weights as functions of the particle level."""
        return LearnedChanges.of(self)

    @cached_property
    def spread(self) -> Array:
        """About the mean square, over some members, of the change of each event's log ratio, shape (n,)."""
        some = np.linspace(0, self.n_members - 1, min(SPREAD_MEMBERS, self.n_members)).astype(int)
        out = _mean_square(self.step2, self.events.gen, some)
        if self.fakes is not None:
            rows = self.events.passes.fakes
            out[rows] = _mean_square(self.fakes, self.events.reco[rows], some)
        return out

    def kept(self) -> NDArray[np.bool_] | None:
        """Events that have their generator weight at particle level, whatever the networks say; None for none."""
        return None if self.free_misses else self.events.passes.misses

    def change_of_kept(self, source: str | None) -> Array:
        """Change of the logarithm of the weights of :meth:`kept` events, shape (n_members,)."""
        if source not in self._kept_changes:
            self._kept_changes[source] = change_of_kept(self, source, NORM_SAMPLE)
        return self._kept_changes[source]

    def log_change(self, rows: Rows, source: str | None, kept: NDArray[np.bool_] | None = None) -> Array:
        """Change of the logarithm of the weights of some events, shape (events, n_members)."""
        gen, reco = self.events.gen[rows], self.events.reco[rows]
        change = self.step2.log_ratio_change(gen, source)
        fakes = self.events.passes.fakes[rows]
        if self.fakes is not None and fakes.any():
            change[fakes] = self.fakes.log_ratio_change(reco[fakes], source)
        if kept is not None and kept.any():
            change[kept] = self.change_of_kept(source)
        varied = self.varied(rows, source)
        if varied is not None:  # together with the network's change, which it nearly cancels
            change += varied.astype(change.dtype)
        return change

    def varied(self, rows: Rows, source: str | None, *, relative: bool = False) -> Array | None:
        """What systematics change of the logarithm of generator weights, or of those weights that they change linearly.

        Shape (events, n_members); None for nothing.
        """
        if source is None:  # one matrix product
            stacked = self.perturbations.stacked_variations
            used = np.flatnonzero(stacked.relative == relative)
            if not len(used):
                return None
            alpha = stacked.alpha[used].astype(np.float32)
            up, down = stacked.up[rows][:, used], stacked.down[rows][:, used]
            return np.asarray(up @ np.maximum(alpha, 0.0) + down @ np.maximum(-alpha, 0.0))
        out: Array | None = None
        for name, v in self.perturbations.variations.items():
            alpha_there = alpha_of(v, name, source)
            found = None if alpha_there is None else v.change(rows, alpha_there, relative=relative)
            if found is not None:
                out = found if out is None else out + found
        return out

    def columns(self, source: str | None) -> list[Column]:
        """Changes of generator weights by systematics, those of every parameter that a source moves."""
        out = []
        for name, v in self.perturbations.variations.items():
            alpha = alpha_of(v, name, source)
            if alpha is not None:
                out += v.columns(alpha)
        return out

    def _raw(self, index: int, rows: slice, source: str | None, kept: NDArray[np.bool_] | None = None) -> Array:
        """Relative weights of a block before normalisation, shape (events, n_members), float32.

        Events that are ``kept`` have their generator weight, whatever the networks say.
        """
        push = self.push[rows] if kept is None else np.where(kept, 1.0, self.push[rows])
        change = self.log_change(rows, source, kept)
        relative = self.relative(index, rows, source)
        with np.errstate(over="ignore", invalid="ignore"):  # an infinite weight is reported by norm()
            raw = np.exp(change, out=change)
            if relative is not None:
                raw *= (1.0 + relative).astype(raw.dtype)
            raw *= (self.events.weight[rows] * push).astype(raw.dtype)[:, None]
        return raw

    def relative(self, index: int, rows: slice, source: str | None) -> Array | None:
        """Relative change of the generator weights, shape (events, n_members); None if the source has no part in it.

        By the events' fluctuations and by what systematics do not change of the logarithm.
        """
        changed = self.varied(rows, source, relative=True)
        if source not in (None, "simulation"):
            return changed
        own = self.perturbations.simulation.block(index)
        return own if changed is None else own + changed

    def signal_factor(self, source: str | None = None) -> Array:
        """Signal yield of each member over that of the point estimate, shape (n_members,)."""
        changes = [change for name, change in self.perturbations.signal.items() if source in (None, name)]
        return 1.0 + (np.sum(changes, axis=0) if changes else np.zeros(self.n_members))

    def norm(self, source: str | None = None) -> Array:
        """Factor of each member that brings its detector-level total to its signal yield."""
        if source not in self._norms:

            def one(block: Block) -> Array:
                raw = self._raw(*block, source)
                with np.errstate(invalid="ignore"):  # infinite weights are counted below
                    return self._seen(raw, block.rows) + self._migrated(raw, block.rows, source)

            total = self._from_outside(source)
            grouped = self.grouped(source, NORM_SAMPLE)
            if grouped is None:
                for part in map_blocks(one, self.perturbations.simulation.blocks()):
                    total += part
            else:
                total += self._grouped_total(grouped, source)
            bad = int(np.sum(~((total > 0) & np.isfinite(total))))
            if bad:
                msg = (
                    f"{bad} of {self.n_members} members have an infinite or non-positive total weight; the samples do "
                    "not overlap, or negative generator weights are too many for this sample size. Cut to the "
                    f"common range, or merge events of opposite sign.{self._largest_variation()}"
                )
                raise ConvergenceError(msg)
            self._norms[source] = self.events.signal_yield * self.signal_factor(source) / total
        return self._norms[source]

    def _seen(self, raw: Array, rows: slice) -> Array:
        """Weight of a block at detector level, shape (n_members,)."""
        passing, factor = self.events.passes.reco[rows], self.events.reco_factor
        if factor is None:
            return raw[passing].sum(axis=0, dtype=np.float64)
        return factor[rows][passing] @ raw[passing].astype(np.float64)

    def grouped(
        self, source: str | None, sampled: int = SAMPLED, kept: NDArray[np.bool_] | None = None
    ) -> GroupTotals | None:
        """How weights are summed if events fluctuate in groups; None if they do one by one."""
        fluctuations = self.perturbations.simulation
        if not isinstance(fluctuations, GroupedFluctuations):
            return None
        return GroupTotals(self, fluctuations, source, sampled, kept)

    def _grouped_total(self, totals: GroupTotals, source: str | None) -> Array:
        """Weight at detector level before normalisation, shape (n_members,)."""
        one, reco = np.zeros(len(self.events), dtype=np.int64), self.events.passes.reco
        total = totals(one, 1, reco, self.events.reco_factor)[0]
        with np.errstate(invalid="ignore"):  # norm() counts infinite weights
            for a, alpha in self._moving(source):
                for side, part in ((a.up, np.maximum(alpha, 0.0)), (a.down, np.maximum(-alpha, 0.0))):
                    moved = cast("Array", side).astype(float)
                    total += part * totals(one, 1, moved != 0, moved)[0]
        return total

    def _moving(self, source: str | None) -> list[tuple[Acceptance, Array]]:
        """Systematics that move events in and out of detector level, and what the source moves of their parameters."""
        out = []
        for name, a in self.perturbations.acceptances.items():
            alpha = alpha_of(a, name, source)
            if alpha is not None and a.up is not None and a.down is not None:
                out.append((a, alpha))
        return out

    def _migrated(self, raw: Array, rows: slice, source: str | None) -> Array:
        """Weight that comes into detector level, minus what leaves it, in a block; shape (n_members,)."""
        total = np.zeros(self.n_members)
        for a, alpha in self._moving(source):
            up, down = cast("Array", a.up)[rows], cast("Array", a.down)[rows]
            moved = (up != 0) | (down != 0)
            weights = raw[moved].astype(np.float64)
            total += np.maximum(alpha, 0.0) * (up[moved] @ weights)
            total += np.maximum(-alpha, 0.0) * (down[moved] @ weights)
        return total

    def _from_outside(self, source: str | None) -> Array:
        """Weight of events that pass neither level and come into detector level, shape (n_members,)."""
        total = np.zeros(self.n_members)
        for a, alpha in self._moving(source):
            total += np.maximum(alpha, 0.0) * a.outside[0] + np.maximum(-alpha, 0.0) * a.outside[1]
        return total

    def _largest_variation(self) -> str:
        """Which systematic variation changes event weights by more than a large part of them, as a sentence."""
        sizes = {n: v.largest() for n, v in self.perturbations.variations.items()}
        v = self.events.weight * self.push
        for n, a in self.perturbations.acceptances.items():
            if a.up is not None and a.down is not None:
                passing = self.events.at_reco(v)[self.events.passes.reco].sum()
                lost = min(float((v * np.minimum(side, 0)).sum() / passing) for side in (a.up, a.down))
                if -lost > LARGE_LOSS:
                    return (
                        f" In the systematic {n!r} {-100 * lost:.0f} % of the events stop passing detector level, "
                        "which leaves none at two or three standard deviations; reduce it."
                    )
        name = max(sizes, key=lambda n: sizes[n], default="")
        if not name or sizes[name] < 1.0:
            return ""
        return f" The systematic {name!r} changes weights by up to {sizes[name]:.3g} times themselves; reduce it."

    def blocks(self, source: str | None = None) -> Iterator[tuple[slice, Array]]:
        """Rows and weights (events, n_members) of one block of events after another.

        Parameters
        ----------
        source : str, optional
            Let only this source of uncertainty fluctuate.
        """
        return self._passing_blocks(self.events.passes.gen, source)

    def refolded_blocks(self) -> Iterator[tuple[slice, Array]]:
        """As :meth:`blocks`, for events that pass detector level, fakes included."""
        factor = self.events.reco_factor
        for rows, weights in self._passing_blocks(self.events.passes.reco, None):
            yield rows, weights if factor is None else weights * factor[rows, None].astype(weights.dtype)

    def _passing_blocks(self, passing: NDArray[np.bool_], source: str | None) -> Iterator[tuple[slice, Array]]:
        self._ready(source)
        return map_here(partial(self._scaled, passing, source), self.perturbations.simulation.blocks())

    def _ready(self, source: str | None) -> None:
        """Find what all blocks need once, before threads ask for it."""
        self.norm(source)
        kept = self.kept()
        if kept is not None and kept.any():
            self.change_of_kept(source)

    def _scaled(self, passing: NDArray[np.bool_], source: str | None, block: Block) -> tuple[slice, Array]:
        """Rows and weights of a block; zero for events that do not pass."""
        all_kept = self.kept()
        kept = None if all_kept is None else all_kept[block.rows]
        raw = self._raw(*block, source, kept)
        raw[~passing[block.rows]] = 0.0
        raw *= self.norm(source).astype(raw.dtype)
        return block.rows, raw

    def accumulate(
        self,
        groups: NDArray[np.integer],
        n_groups: int,
        source: str | None = None,
        *,
        reco: bool = False,
        values: Array | None = None,
    ) -> Array:
        """Sum of weights per group of events in every member, shape (n_members, n_groups).

        Parameters
        ----------
        groups : int array, shape (n,)
            Group of each event; negative for events that count nowhere.
        reco : bool
            Detector level (fakes included) instead of particle level.
        values : array, shape (n,), optional
            Factors on the weights.
        """
        passing = self.events.passes.reco if reco else self.events.passes.gen
        factor = self.events.reco_factor if reco else None
        if factor is not None:
            values = factor if values is None else values * factor

        def one(block: Block) -> Array:
            rows, weights = self._scaled(passing, source, block)
            scaled = weights if values is None else weights * values[rows, None]
            return sums_by_group(groups[rows], scaled, n_groups)

        out = np.zeros((n_groups, self.n_members))
        with block_threads():
            self._ready(source)
            grouped = self.grouped(source, kept=self.kept())
            if grouped is not None:
                return (grouped(groups, n_groups, passing, values) * self.norm(source)).T
            for part in map_blocks(one, self.perturbations.simulation.blocks()):
                out += part
        return out.T

    def effective_sizes(self) -> Array:
        """Kish effective number of particle-level events of every member, shape (n_members,).

        If events fluctuate in groups, from a sample of them.
        """
        total, square = np.zeros((2, self.n_members))
        with block_threads():
            self._ready(None)
            grouped = self.grouped(None, kept=self.kept())
            if grouped is None:
                parts = map_blocks(self._moments, self.perturbations.simulation.blocks())
            else:
                parts = grouped.moments(NORM_SAMPLE)
            for first, second in parts:
                total += first
                square += second
        return total**2 / square

    def _moments(self, block: Block) -> tuple[Array, Array]:
        """Sum of the particle-level weights of a block, and of their squares."""
        _, weights = self._scaled(self.events.passes.gen, None, block)
        return weights.sum(axis=0, dtype=np.float64), np.einsum("es,es->s", weights, weights, dtype=np.float64)

    def relative_widths(self, groupings: Sequence[NDArray[np.integer]], n_groups: int) -> Sequence[Array]:
        """Standard deviation over members of each group's share of the total, one array a grouping.

        One pass over the events for all groupings; the yield's fluctuation does not enter.
        """
        sums: list[Array] = [np.zeros((n_groups, self.n_members)) for _ in groupings]
        grouped = self.grouped(None)

        def one(block: Block) -> list[Array]:
            raw = self._raw(*block, None)
            return [sums_by_group(groups[block.rows], raw, n_groups) for groups in groupings]

        if grouped is None:
            for parts in map_blocks(one, self.perturbations.simulation.blocks()):
                for total, part in zip(sums, parts, strict=True):
                    total += part
        else:
            sums = grouped.from_part(groupings, n_groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            widths = [(total / total.sum(axis=0)).std(axis=1) for total in sums]
        if not all(np.all(np.isfinite(w)) for w in widths):
            self._ready(None)  # says what is wrong with the totals
        return widths

    def negative_fraction(self) -> float:
        """Share of the simulated events' fluctuations that conditioning moved below -1."""
        if self.multiplier is None:
            return 0.0
        return self.perturbations.simulation.negative_share(self.events.passes.reco)


def _mean_square(displacement: Displacement, x: Array, members: NDArray[np.integer]) -> Array:
    """Mean square over members of the change of the log ratio, the networks' weights moved, shape (n,)."""
    c = displacement.classifier
    moved = c.basis @ displacement.total()[:, members]
    nominal, out = c.log_ratio(x), np.zeros(len(x))
    for step in moved.T:
        out += (forward(c.layout, c.theta + step, x) - nominal) ** 2
    return out / len(members)
