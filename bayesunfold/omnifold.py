"""OmniFold with Bayesian neural networks: the loop from events to an ensemble of weights."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from bayesunfold._progress import Progress
from bayesunfold._validate import check_count, effective_size
from bayesunfold.checkpoint import checkpoint_seed, read_checkpoint, write_checkpoint
from bayesunfold.errors import ConvergenceWarning, InputError, InputTypeError, WeightWarning
from bayesunfold.events import Data, Simulation, as_data
from bayesunfold.inference.draws import CHAINS, Draws, sample_posterior
from bayesunfold.inference.full import sample_full_network
from bayesunfold.inference.linearized import linearize_step1, step1_events
from bayesunfold.loop import Iteration, Stages, Weights, apply_weights, build_stages, train_iteration
from bayesunfold.members import Members
from bayesunfold.network import Network
from bayesunfold.prepare import Prepared, prepare, warn_without_overlap
from bayesunfold.propagation import (
    Conditioning,
    Fluctuations,
    Link,
    Response,
    Sample,
    Stage,
    condition_on,
    refit,
)
from bayesunfold.result import UnfoldingResult

__all__ = ["OmniFold", "unfold"]

Array = NDArray[np.floating]

MAX_AUTO_ITERATIONS = 12
AUTO_CHANGE = 0.15
"""``iterations="auto"`` stops when no reference bin moves by more than this part of its band."""

REFERENCE_BINS = 10
SMALL = 20_000
"""Below this many events one BLAS thread is faster than two."""


def __dir__() -> list[str]:
    return __all__


@dataclass
class _Run:
    """What the loop gathers on its way."""

    events: Prepared
    layouts: Any
    records: list[Iteration] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    stages: Stages | None = None
    first_stage: Stage | None = None
    responses: dict[str, Response] = field(default_factory=dict)
    conditioning: Conditioning | None = None
    draws: Draws | None = None
    axes: Array | None = None
    samples: tuple[Sample, Sample, Array] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "posterior": 0.0, "members": 0.0})


class OmniFold:
    """Unbinned unfolding with Bayesian neural networks and members coherent over iterations.

    Parameters
    ----------
    iterations : int or "auto"
        Number of iterations. ``"auto"`` stops where the next step changes the spectrum by a
        small part of its own band, after at most 12.
    network : Network, optional
        Shape and priors of the classifiers.
    inference : {"advi", "nuts", "laplace"}
        Where the posterior draws of step 1 come from.
    draws : int
        Members of the ensemble.
    efficiency : {"learned"}
        Weight of simulated events that fail detector level: ``"learned"`` gives them what
        step 2 learned from similar events that pass. ``"prior"`` is not supported yet.
    linearize : bool
        False draws all weights of the full network (ADVI and NUTS only), which was measured unreliable.
    restarts : int
        Random starts of the first iteration's networks; the best objective is kept.
    random_seed : int, optional
        The same seed gives the same result.
    progressbar : bool
        Whether to report progress on standard error.

    Notes
    -----
    Time is about 1 s for 1000 + 1000 events, half a minute for 100 000 + 100 000; memory is
    set by the event fluctuations, ``4 (n + N) draws`` bytes up to 1.2 GB and recomputed beyond.

    References
    ----------
    A. Andreassen et al., "OmniFold: A Method to Simultaneously Unfold All Observables",
    Phys. Rev. Lett. 124 (2020) 182001, arXiv:1911.09107.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> unfolder = bu.OmniFold(iterations=2, inference="laplace", draws=50, random_seed=1, progressbar=False)
    >>> result = unfolder.fit(toy.simulation, toy.data)
    >>> result.weights.dims
    ('draw', 'event')
    """

    def __init__(
        self,
        iterations: int | Literal["auto"] = "auto",
        network: Network | None = None,
        inference: Literal["advi", "nuts", "laplace"] = "advi",
        draws: int = 500,
        *,
        efficiency: Literal["learned", "prior"] = "learned",
        linearize: bool = True,
        restarts: int = 1,
        random_seed: int | None = None,
        progressbar: bool = True,
    ) -> None:
        self.iterations: int | Literal["auto"] = "auto"
        if iterations != "auto":
            self.iterations = check_count(iterations, "iterations")
        if network is not None and not isinstance(network, Network):
            msg = f"network is a {type(network).__name__}; pass a bayesunfold.Network."
            raise InputTypeError(msg)
        _check_choice(inference, "inference", ("advi", "nuts", "laplace"))
        _check_choice(efficiency, "efficiency", ("learned", "prior"))
        self.network = network or Network()
        self.inference = inference
        self.draws = check_count(draws, "draws", 2)
        if efficiency == "prior":
            msg = (
                'efficiency="prior" is not supported yet: its bands were measured eight times too wide, because '
                'members lack the normalisation of the pull weights. Use efficiency="learned".'
            )
            raise InputError(msg)
        self.efficiency = efficiency
        if inference == "nuts" and draws % CHAINS:
            msg = f"draws is {draws}; NUTS runs {CHAINS} chains of equal length, so take a multiple of {CHAINS}."
            raise InputError(msg)
        if not linearize and inference == "laplace":
            msg = "linearize=False needs inference='advi' or 'nuts'; the Laplace approximation is linearised by nature."
            raise InputError(msg)
        self.linearize = bool(linearize)
        self.restarts = check_count(restarts, "restarts")
        self.random_seed = None if random_seed is None else check_count(random_seed, "random_seed", 0)
        self.progressbar = progressbar

    def configuration(self) -> dict[str, Any]:
        """All arguments, as JSON-ready values."""
        return {
            "iterations": self.iterations,
            "network": self.network.state(),
            "inference": self.inference,
            "draws": self.draws,
            "efficiency": self.efficiency,
            "linearize": self.linearize,
            "restarts": self.restarts,
            "random_seed": self.random_seed,
        }

    def fit(
        self,
        simulation: Simulation,
        data: Data | ArrayLike,
        backgrounds: Sequence[object] = (),
        systematics: Sequence[object] = (),
        *,
        checkpoint: str | Path | None = None,
    ) -> UnfoldingResult:
        """Unfold.

        Parameters
        ----------
        simulation : Simulation
        data : Data, array or frame
        backgrounds, systematics : sequence
            Not supported yet: anything but an empty sequence is an error.
        checkpoint : path, optional
            Written after every iteration. If it exists and belongs to the same events and
            arguments, the run goes on from it; if it belongs to others, that is an error. After an interrupt
            (Ctrl-C) the finished iterations are in it.

        Returns
        -------
        UnfoldingResult

        Raises
        ------
        InputError, InputTypeError
            Before any training, for anything that cannot be unfolded.

        Warns
        -----
        OverlapWarning
            Data outside the simulation's detector-level range.
        """
        if not isinstance(simulation, Simulation):
            msg = f"simulation is a {type(simulation).__name__}; pass a bayesunfold.Simulation(gen, reco)."
            raise InputTypeError(msg)
        for name, extra in (("backgrounds", backgrounds), ("systematics", systematics)):
            if len(extra):
                msg = f"{name} are not supported yet; they would be ignored, so this is an error."
                raise InputError(msg)
        data = as_data(data).matched_to(simulation)
        warn_without_overlap(simulation, data)
        events = prepare(simulation, data)
        seed = self._seed(checkpoint)
        threads = 1 if len(simulation) + len(data) <= SMALL else None
        with threadpool_limits(limits=threads, user_api="blas"):
            run = self._loop(events, seed, None if checkpoint is None else Path(checkpoint))
            members = self._members(run, seed)
        return UnfoldingResult(
            simulation=simulation,
            data=data,
            members=members,
            iterations=tuple(run.records),
            pull_weights=run.weights[-1].pull,
            draws=cast("Draws", run.draws),
            first_stage=cast("Stage", run.first_stage),
            history=tuple(run.history),
            configuration=self.configuration() | {"random_seed": seed, "iterations_done": len(run.records)},
            seconds=run.seconds,
        )

    def _seed(self, checkpoint: str | Path | None) -> int:
        """The seed given, that of the checkpoint to go on from, or a fresh one."""
        if self.random_seed is not None:
            return self.random_seed
        stored = None if checkpoint is None else checkpoint_seed(Path(checkpoint))
        return int(np.random.default_rng().integers(2**31)) if stored is None else stored

    def _loop(self, events: Prepared, seed: int, checkpoint: Path | None) -> _Run:
        """Train and propagate, iteration by iteration."""
        run = _Run(events, (self.network.layout(events.reco.shape[1]), self.network.layout(events.gen.shape[1])))
        most = MAX_AUTO_ITERATIONS if self.iterations == "auto" else int(self.iterations)
        progress = Progress(most, "unfolding", show=self.progressbar)
        samples = run.samples = self._samples(events, seed)
        key = self._key(events, seed)
        done = [] if checkpoint is None else read_checkpoint(checkpoint, key)
        while len(run.records) < most:
            k = len(run.records)
            before = run.weights[-1] if k else Weights.unit(len(events.weight))
            start = time.perf_counter()
            if k < len(done):
                record = done[k]
            else:
                rng = np.random.Generator(np.random.Philox(key=[seed, k]))
                record = train_iteration(
                    events,
                    run.layouts,
                    before,
                    run.records[-1] if k else None,
                    run.records[0] if k else None,
                    cast("Any", self.efficiency),
                    rng,
                    self.restarts,
                    lambda step, loss, k=k: progress.update(  # type: ignore[misc]
                        k + (0.4 if step == "step 1" else 0.8), f"({step} of iteration {k + 1}, loss {loss:.2f}) "
                    ),
                )
            run.records.append(record)
            run.weights.append(apply_weights(events, run.layouts, before, record))
            run.seconds["training"] += time.perf_counter() - start
            if checkpoint is not None and k >= len(done):
                write_checkpoint(checkpoint, key, run.records, seed)
            self._propagate(run, before, samples, seed)
            entry = self._record_history(run, samples)
            progress.update(len(run.records), f"(largest change {entry['change']:.2f} of the band) ")
            if self.iterations == "auto" and k >= 1 and entry["change"] < AUTO_CHANGE:
                break
        if self.iterations == "auto" and run.history[-1]["change"] >= AUTO_CHANGE:
            msg = (
                f"after {most} iterations the spectrum still moves by {run.history[-1]['change']:.2f} of its band "
                f"(limit {AUTO_CHANGE}); the detector resolves too little. Use coarser features or fix iterations."
            )
            warnings.warn(msg, ConvergenceWarning, stacklevel=3)
        progress.close(f"{len(run.records)} iterations, {self.draws} members")
        return run

    def _samples(self, events: Prepared, seed: int) -> tuple[Sample, Sample, Array]:
        """Data and simulation with their fluctuations, and the prior noise ``xi``."""
        data = Sample({"reco": events.data}, Fluctuations(len(events.data), self.draws, 2 * seed + 1))
        simulation = Sample(
            {"gen": events.gen, "reco": events.reco}, Fluctuations(len(events.gen), self.draws, 2 * seed + 2)
        )
        rng = np.random.Generator(np.random.Philox(key=[seed, 10_001]))
        xi = rng.standard_normal((self.network.layout(events.reco.shape[1]).n_parameters, self.draws))
        return data, simulation, xi

    def _propagate(self, run: _Run, before: Weights, samples: tuple[Sample, Sample, Array], seed: int) -> None:
        """Equations (1)-(10) for the iteration that was just trained."""
        start = time.perf_counter()
        data, simulation, xi = samples
        events = run.events
        stages = build_stages(
            events, run.layouts, before, run.weights[-1], run.records[-1], cast("Any", self.efficiency)
        )
        if run.first_stage is None:
            run.first_stage = stages.step1
            run.seconds["members"] += time.perf_counter() - start
            self._condition(run, stages.step1, data, simulation, xi, seed)
            start = time.perf_counter()
        if run.conditioning is not None:
            xi = xi + run.conditioning.stage.basis @ run.conditioning.lam
        push_links = [Link(run.responses["step2"], "zeros", events.both)] if run.responses else []
        if "fakes" in run.responses:
            push_links.append(Link(run.responses["fakes"], "zeros", events.fakes))
        one = refit(stages.step1, push_links, data, simulation, xi, run.conditioning)
        if not run.responses and run.conditioning is None and run.axes is not None:
            # the Gaussian posterior's draws are the members' own answers, so that both are one draw
            run.draws = Draws((run.axes.T @ one.total()).T)
        links = [Link(one, "ones", events.both)]
        if run.responses:
            links.append(Link(run.responses["step2"], "ones", events.both))
        two = refit(stages.step2, links, data, simulation, None, run.conditioning)
        run.responses = {"step1": one, "step2": two}
        if stages.fakes is not None:
            links = [Link(two, "ones", events.both)]
            run.responses["fakes"] = refit(stages.fakes, links, data, simulation, None, run.conditioning)
        run.stages = stages
        run.seconds["members"] += time.perf_counter() - start

    def _condition(self, run: _Run, stage: Stage, data: Sample, simulation: Sample, xi: Array, seed: int) -> None:
        """Posterior draws of the first step 1, and the fluctuations that reproduce them."""
        start = time.perf_counter()
        rng = np.random.Generator(np.random.Philox(key=[seed, 10_002]))
        posterior, axes = linearize_step1(run.events, stage)
        run.axes = axes
        if self.linearize:
            run.draws = sample_posterior(cast("Any", self.inference), posterior, self.draws, rng)
        else:
            x = step1_events(run.events, stage)[0]
            method = cast("Any", self.inference)
            run.draws = sample_full_network(method, stage.layout, x, posterior, self.draws, rng)
        if self.inference != "laplace":
            run.conditioning = condition_on(stage, data, simulation, xi, axes, run.draws.z)
        run.seconds["posterior"] += time.perf_counter() - start

    def _record_history(self, run: _Run, samples: tuple[Sample, Sample, Array]) -> dict[str, Any]:
        """Losses, effective size, and the change of reference spectra in units of their band."""
        start = time.perf_counter()
        events, now = run.events, run.weights[-1]
        members = self._make_members(run, samples, np.ones(self.draws))
        gen = events.pass_gen
        v = np.where(gen, events.weight, 0.0)
        old = run.weights[-2].push if len(run.weights) > 1 else np.ones(len(v))
        groupings = [_quantile_groups(events.gen[:, j], gen) for j in range(events.gen.shape[1])]
        change = 0.0
        for groups, width in zip(groupings, members.relative_widths(groupings, REFERENCE_BINS), strict=True):
            before, after = (_shares(groups, v * push, gen) for push in (old, now.push))
            used = width > 0
            change = max(change, float(np.max(np.abs(after - before)[used] / width[used], initial=0.0)))
        entry = {
            "losses": run.records[-1].losses,
            "decrements": run.records[-1].decrements,
            "change": change,
            "effective_size": effective_size(v * now.push),
            "directions": [s.basis.shape[1] for s in (run.stages.step1, run.stages.step2)] if run.stages else [],
        }
        run.history.append(entry)
        run.seconds["members"] += time.perf_counter() - start
        return entry

    def _make_members(self, run: _Run, samples: tuple[Sample, Sample, Array], factor: Array) -> Members:
        return Members(
            run.events,
            run.weights[-1],
            samples[1],
            run.responses["step2"],
            run.responses.get("fakes"),
            run.conditioning,
            float(run.events.data_weight.sum()),
            factor,
        )

    def _members(self, run: _Run, seed: int) -> Members:
        """The finished ensemble, with its yields fluctuating."""
        rng = np.random.Generator(np.random.Philox(key=[seed, 10_003]))
        count = effective_size(run.events.data_weight)
        factor = rng.gamma(count + 0.5, size=self.draws) / count
        members = self._make_members(run, cast("Any", run.samples), factor)
        members.negative_data = _negative_data(cast("Any", run.samples)[0], run.conditioning)
        negative = max(members.negative_fraction(), members.negative_data)
        if negative > 0.1:
            msg = (
                f"{100 * negative:.1f} % of the members' event fluctuations are below -1 after conditioning on "
                "posterior draws; the sample is small for its network. Compare with inference='laplace'."
            )
            warnings.warn(msg, WeightWarning, stacklevel=4)
        return members

    def _key(self, events: Prepared, seed: int) -> str:
        """Fingerprint of events and arguments, so that a checkpoint is never used for another run."""
        digest = hashlib.sha256()
        for array in (
            events.gen,
            events.reco,
            events.data,
            events.weight,
            events.data_weight,
            events.pass_gen,
            events.pass_reco,
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        settings = self.configuration() | {
            "random_seed": seed,
            "draws": None,
            "inference": None,
            "iterations": None,
            "linearize": None,
        }
        digest.update(json.dumps(settings, sort_keys=True).encode())
        return digest.hexdigest()


def _quantile_groups(values: Array, rows: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Reference bins of equal generator population; -1 for events that fail gen."""
    edges = np.quantile(values[rows], np.linspace(0, 1, REFERENCE_BINS + 1)[1:-1])
    groups = np.searchsorted(edges, values, side="right")
    return np.where(rows, groups, -1)


def _negative_data(data: Sample, conditioning: Conditioning | None) -> float:
    """Share of the data events' fluctuations that conditioning moved below -1."""
    if conditioning is None:
        return 0.0
    negative = 0
    for index, rows in data.blocks():
        shift = conditioning.data_shift(data.features["reco"][rows], rows)
        negative += int((data.fluctuations.block(index) + shift < -1.0).sum())
    return negative / (len(data) * data.fluctuations.members)


def _shares(groups: NDArray[np.integer], weight: Array, rows: NDArray[np.bool_]) -> Array:
    """Share of the total weight in each reference bin."""
    sums = np.bincount(groups[rows], weight[rows], REFERENCE_BINS)
    return sums / sums.sum()


def _check_choice(value: object, name: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}."
        raise InputError(msg)


def unfold(
    gen: ArrayLike,
    reco: ArrayLike,
    data: Data | ArrayLike,
    *,
    weight: ArrayLike | None = None,
    pass_gen: ArrayLike | None = None,
    pass_reco: ArrayLike | None = None,
    **settings: Any,
) -> UnfoldingResult:
    """Unfold in one line.

    Parameters
    ----------
    gen, reco : array or frame, shape (n,) or (n, d)
        Simulated events at particle level and detector level, row by row.
    data : Data, array or frame, shape (m,) or (m, d_reco)
        Measured events.
    weight, pass_gen, pass_reco : array, shape (n,), optional
        As for :class:`Simulation`.
    **settings
        Arguments of :class:`OmniFold`.

    Returns
    -------
    UnfoldingResult

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=2, inference="laplace", draws=50,
    ...                    random_seed=1, progressbar=False)
    >>> round(float(result.nominal.sum()))
    300
    """
    unfolder = OmniFold(**settings)
    simulation = Simulation(gen, reco, weight=weight, pass_gen=pass_gen, pass_reco=pass_reco)
    return unfolder.fit(simulation, data)
