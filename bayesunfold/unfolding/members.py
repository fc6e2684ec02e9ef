"""The ensemble as it is stored: displacements of network weights, and seeds.

Event weights (draw x event) can be larger than memory, so they are made in blocks of events when
something asks for them. Member ``s`` of event ``i`` weighs
``v_i (1 + g_i) nu(t_i) exp(n(t_i))``, normalised member by member to a yield that fluctuates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.threads import block_threads, map_blocks
from bayesunfold.errors import ConvergenceError, InputError
from bayesunfold.unfolding.perturbations import Acceptance, Fluctuations, Samples
from bayesunfold.unfolding.propagation import Response
from bayesunfold.unfolding.standardized import Prepared

__all__ = ["Members", "Weights"]

Array = NDArray[np.floating]


LARGE_LOSS = 0.3
"""Share of the events that a variation may lose at one standard deviation; members reach three and more."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Weights:
    """Relative weights of simulated events after an iteration, generator weight not included.

    Attributes
    ----------
    push : array, shape (n,)
        ``nu(t)`` for events that pass gen, ``E[nu | r]`` for fakes.
    pull : array, shape (n,)
        ``omega`` for events that pass both levels, NaN elsewhere.
    """

    push: Array
    pull: Array

    @classmethod
    def unit(cls, n: int) -> Weights:
        """Weights before the first iteration."""
        return cls(np.ones(n), np.full(n, np.nan))


@dataclass
class Members:
    """Weights of simulated events, for the point estimate and for every member.

    Attributes
    ----------
    events : Prepared
    weights : Weights
        Push weights of the point estimate after the last iteration.
    samples : Samples
        Events with their fluctuations, moved onto posterior draws where there are any, and systematic variations.
    push_response : Response
        Answer of the last step 2 to the fluctuations.
    fakes_response : Response or None
        The same for the classifier that weighs fakes.
    lam : array, shape (p, members), or None
        What moved the fluctuations onto posterior draws, equation (9).
    signal_yield : float
        Sum of the data weights, minus the backgrounds.
    negative_data : float
        Share of the data events' fluctuations below -1.
    """

    events: Prepared
    weights: Weights
    samples: Samples
    push_response: Response
    fakes_response: Response | None
    lam: Array | None
    signal_yield: float
    negative_data: float = 0.0
    _norms: dict[str | None, Array] = field(default_factory=dict, repr=False)

    @property
    def n_members(self) -> int:
        """Number of members, the length of the draw dimension."""
        return self.samples.members

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources of uncertainty."""
        names = ["data", "simulation", "prior", *self.samples.signal, *self.push_response.displacement]
        return tuple(dict.fromkeys(names))

    @property
    def systematics(self) -> tuple[str, ...]:
        """Names of the systematic uncertainties among the sources."""
        return (*self.samples.variations, *self.samples.acceptances)

    def one_sigma(self, systematic: str) -> Members:
        """Two members: a systematic one standard deviation up, and one down; nothing else fluctuates.

        Displacements are linear in the nuisance parameter on either side of zero, so any member gives them. Ask the
        two for weights with ``source=systematic``.
        """
        samples = self.samples
        varied = samples.variations.get(systematic) or samples.acceptances[systematic]
        alpha = varied.alpha
        chosen = [int(np.argmax(alpha)), int(np.argmin(alpha))]
        if np.isnan(alpha).any():
            msg = f"the file was saved without the nuisance parameters of {systematic!r}; unfold and save again."
            raise InputError(msg)
        if not alpha[chosen[1]] < 0 < alpha[chosen[0]]:
            msg = f"all {len(alpha)} members vary {systematic!r} in one direction; use more draws, at least 20."
            raise InputError(msg)

        def scaled(response: Response) -> Response:
            moved = response.displacement[systematic][:, chosen] / np.abs(alpha[chosen])
            return Response(response.stage, {systematic: moved})

        pair = replace(samples.simulation, fluctuations=Fluctuations(len(samples.simulation), 2, 0))
        unit = np.array([1.0, -1.0])
        weights = {name: replace(v, alpha=unit) for name, v in samples.variations.items()}
        acceptances = {name: replace(a, alpha=unit) for name, a in samples.acceptances.items()}
        return replace(
            self,
            samples=Samples(samples.data.silent(), pair, variations=weights, acceptances=acceptances),
            push_response=scaled(self.push_response),
            fakes_response=None if self.fakes_response is None else scaled(self.fakes_response),
            lam=None,
            _norms={},
        )

    def nominal(self) -> Array:
        """Point-estimate weights of the simulated events, shape (n,); zero for fakes."""
        v = self.events.weight * self.weights.push
        norm = self.signal_yield / v[self.events.pass_reco].sum()
        return np.where(self.events.pass_gen, v * norm, 0.0)

    def _raw(self, index: int, rows: slice, source: str | None) -> Array:
        """Relative weights of a block before normalisation, shape (events, members), float32."""
        events = self.events
        gen, reco = events.gen[rows], events.reco[rows]
        change = self.push_response.log_ratio_change(gen, source)
        fakes = events.fakes[rows]
        if self.fakes_response is not None and fakes.any():
            change[fakes] = self.fakes_response.log_ratio_change(reco[fakes], source)
        with np.errstate(over="ignore"):  # an infinite weight is reported by norm()
            raw = np.exp(change, out=change)
        relative = self._relative(index, rows, source)
        if relative is not None:
            raw *= (1.0 + relative).astype(raw.dtype)
        raw *= (events.weight[rows] * self.weights.push[rows]).astype(raw.dtype)[:, None]
        return raw

    def _relative(self, index: int, rows: slice, source: str | None) -> Array | None:
        """Relative change of the generator weights, shape (events, members); None if the source has no part in it."""
        parts = []
        if source in (None, "simulation"):
            parts.append(self.samples.simulation.fluctuations.block(index))
        parts += [v.change(rows) for name, v in self.samples.variations.items() if source in (None, name)]
        return np.sum(parts, axis=0) if parts else None

    def signal_factor(self, source: str | None = None) -> Array:
        """Signal yield of each member over that of the point estimate, shape (members,)."""
        changes = [change for name, change in self.samples.signal.items() if source in (None, name)]
        return 1.0 + (np.sum(changes, axis=0) if changes else np.zeros(self.n_members))

    def norm(self, source: str | None = None) -> Array:
        """Factor of each member that brings its detector-level total to its signal yield."""
        if source not in self._norms:

            def one(block: tuple[int, slice]) -> Array:
                passing = self.events.pass_reco[block[1]]
                raw = self._raw(*block, source)
                return raw[passing].sum(axis=0, dtype=np.float64) + self._migrated(raw, block[1], source)

            total = self._from_outside(source)
            for part in map_blocks(one, self.samples.simulation.blocks()):
                total += part
            bad = int(np.sum(~((total > 0) & np.isfinite(total))))
            if bad:
                msg = (
                    f"{bad} of {self.n_members} members have an infinite or non-positive total weight; the samples do "
                    "not overlap, or negative generator weights are too many for this sample size. Cut to the "
                    f"common range, or merge events of opposite sign.{self._largest_variation()}"
                )
                raise ConvergenceError(msg)
            self._norms[source] = self.signal_yield * self.signal_factor(source) / total
        return self._norms[source]

    def _moving(self, source: str | None) -> list[Acceptance]:
        """Systematics that move events in and out of detector level."""
        named = self.samples.acceptances.items()
        return [a for name, a in named if source in (None, name) and a.up is not None and a.down is not None]

    def _migrated(self, raw: Array, rows: slice, source: str | None) -> Array:
        """Weight that comes into detector level, minus what leaves it, in a block; shape (members,)."""
        total = np.zeros(self.n_members)
        for a in self._moving(source):
            up, down = cast("Array", a.up)[rows], cast("Array", a.down)[rows]
            moved = (up != 0) | (down != 0)
            weights = raw[moved].astype(np.float64)
            total += np.maximum(a.alpha, 0.0) * (up[moved] @ weights)
            total += np.maximum(-a.alpha, 0.0) * (down[moved] @ weights)
        return total

    def _from_outside(self, source: str | None) -> Array:
        """Weight of events that pass neither level and come into detector level, shape (members,)."""
        total = np.zeros(self.n_members)
        for a in self._moving(source):
            total += np.maximum(a.alpha, 0.0) * a.outside[0] + np.maximum(-a.alpha, 0.0) * a.outside[1]
        return total

    def _largest_variation(self) -> str:
        """Which systematic variation changes event weights by more than a large part of them, as a sentence."""
        sizes = {n: float(max(np.abs(v.up).max(), np.abs(v.down).max())) for n, v in self.samples.variations.items()}
        v = self.events.weight * self.weights.push
        for n, a in self.samples.acceptances.items():
            if a.up is not None and a.down is not None:
                passing = v[self.events.pass_reco].sum()
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
        """Rows and weights (events, members) of one block of events after another.

        Parameters
        ----------
        source : str, optional
            Let only this source of uncertainty fluctuate.
        """
        return self._passing_blocks(self.events.pass_gen, source)

    def refolded_blocks(self) -> Iterator[tuple[slice, Array]]:
        """As :meth:`blocks`, for events that pass detector level, fakes included."""
        return self._passing_blocks(self.events.pass_reco, None)

    def _passing_blocks(self, passing: NDArray[np.bool_], source: str | None) -> Iterator[tuple[slice, Array]]:
        self.norm(source)  # once, before the threads ask for it
        return map_blocks(partial(self._scaled, passing, source), self.samples.simulation.blocks())

    def _scaled(self, passing: NDArray[np.bool_], source: str | None, block: tuple[int, slice]) -> tuple[slice, Array]:
        """Rows and weights of a block; zero for events that do not pass."""
        raw = self._raw(*block, source)
        raw[~passing[block[1]]] = 0.0
        raw *= self.norm(source).astype(raw.dtype)
        return block[1], raw

    def accumulate(
        self,
        groups: NDArray[np.integer],
        n_groups: int,
        source: str | None = None,
        *,
        reco: bool = False,
        values: Array | None = None,
    ) -> Array:
        """Sum of weights per group of events in every member, shape (members, n_groups).

        Parameters
        ----------
        groups : int array, shape (n,)
            Group of each event; negative for events that count nowhere.
        reco : bool
            Detector level (fakes included) instead of particle level.
        values : array, shape (n,), optional
            Factors on the weights.
        """
        passing = self.events.pass_reco if reco else self.events.pass_gen

        def one(block: tuple[int, slice]) -> Array:
            rows, weights = self._scaled(passing, source, block)
            scaled = weights if values is None else weights * values[rows, None]
            return _group_sums(groups[rows], scaled, n_groups)

        out = np.zeros((n_groups, self.n_members))
        with block_threads():
            self.norm(source)
            for part in map_blocks(one, self.samples.simulation.blocks()):
                out += part
        return out.T

    def relative_widths(self, groupings: Sequence[NDArray[np.integer]], n_groups: int) -> Sequence[Array]:
        """Standard deviation over members of each group's share of the total, one array a grouping.

        One pass over the events for all groupings; the yield's fluctuation does not enter.
        """
        sums = [np.zeros((n_groups, self.n_members)) for _ in groupings]

        def one(block: tuple[int, slice]) -> list[Array]:
            raw = self._raw(*block, None)
            return [_group_sums(groups[block[1]], raw, n_groups) for groups in groupings]

        for parts in map_blocks(one, self.samples.simulation.blocks()):
            for total, part in zip(sums, parts, strict=True):
                total += part
        with np.errstate(invalid="ignore", divide="ignore"):
            widths = [(total / total.sum(axis=0)).std(axis=1) for total in sums]
        if not all(np.all(np.isfinite(w)) for w in widths):
            self.norm()  # says what is wrong with the totals
        return widths

    def negative_fraction(self) -> float:
        """Share of the simulated events' fluctuations that conditioning moved below -1."""
        if self.lam is None:
            return 0.0
        fluctuations, passing = self.samples.simulation.fluctuations, self.events.pass_reco

        def one(block: tuple[int, slice]) -> int:
            return int((fluctuations.block(block[0]) < -1.0)[passing[block[1]]].sum())

        negative = sum(map_blocks(one, self.samples.simulation.blocks()))
        return negative / (int(self.events.pass_reco.sum()) * self.n_members)


def _group_sums(groups: NDArray[np.integer], weights: Array, n_groups: int) -> Array:
    """Rows of ``weights`` summed by group, shape (n_groups, members)."""
    used = np.flatnonzero(groups >= 0)
    out = np.zeros((n_groups, weights.shape[1]))
    if len(used) == 0:
        return out
    order = used[np.argsort(groups[used], kind="stable")]
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_groups) > 0])
    out[sorted_groups[starts]] = np.add.reduceat(weights[order], starts, axis=0, dtype=np.float64)
    return out
