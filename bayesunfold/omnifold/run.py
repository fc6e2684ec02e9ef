"""One unfolding: train an iteration, propagate the members through it, look whether to go on.

:class:`bayesunfold.OmniFold` holds the settings; a :class:`Run` holds what they produce on the way.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold._support.progress import Progress
from bayesunfold._support.streams import event_key, stream, training_stream
from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.full_network import sample_full_network
from bayesunfold.classifier.sampling import Draws, sample_posterior
from bayesunfold.classifier.stage import Stage
from bayesunfold.errors import ConvergenceWarning, WeightWarning
from bayesunfold.omnifold.checkpoint import claim_checkpoint, release_checkpoint, write_checkpoint
from bayesunfold.omnifold.iteration import (
    Iteration,
    Stages,
    acceptance_of,
    apply_weights,
    build_stages,
    moved_step1,
    moved_step2,
    train_iteration,
)
from bayesunfold.unfolding.members import Members, Weights
from bayesunfold.unfolding.perturbations import Fluctuations, Sample, Samples
from bayesunfold.unfolding.propagation import Conditioning, Link, Response, condition_on, refit
from bayesunfold.unfolding.standardized import Prepared
from bayesunfold.unfolding.step1 import linearize_step1, step1_events
from bayesunfold.unfolding.systematics import Systematic, draw_alphas, prepare_systematics

if TYPE_CHECKING:
    from bayesunfold.events import Simulation
    from bayesunfold.omnifold.estimator import OmniFold

__all__ = ["Run", "train_point_estimate"]

Array = NDArray[np.floating]

MAX_AUTO_ITERATIONS = 12
AUTO_CHANGE = 0.15
"""``iterations="auto"`` stops when no reference bin moves by more than this part of its band."""

FEW_ITERATIONS, LARGE_CHANGE = 3, 0.5
"""A fixed number of iterations is warned of if the last one moves a reference bin by this part of its band. One or two
iterations are a quick look, which nobody takes for converged."""

REFERENCE_BINS = 10


def __dir__() -> list[str]:
    return __all__


@dataclass
class Run:
    """What the loop gathers on its way.

    Attributes
    ----------
    settings : OmniFold
    events : Prepared
    seed : int
    samples : Samples
        Moved onto posterior draws once these exist.
    prior : array, shape (P, members)
        Prior noise ``xi``, moved likewise.
    """

    settings: OmniFold
    events: Prepared
    seed: int
    samples: Samples
    prior: Array
    layouts: Any
    records: list[Iteration] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    stages: Stages | None = None
    first_stage: Stage | None = None
    responses: dict[str, Response] = field(default_factory=dict)
    first_response: Response | None = None
    conditioning: Conditioning | None = None
    draws: Draws | None = None
    axes: Array | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "posterior": 0.0, "members": 0.0})

    @classmethod
    def start(
        cls,
        settings: OmniFold,
        simulation: Simulation,
        events: Prepared,
        systematics: Sequence[Systematic],
        seed: int,
    ) -> Run:
        """Draw everything that fluctuates."""
        members = settings.draws
        layouts = (settings.network.layout(events.reco.shape[1]), settings.network.layout(events.gen.shape[1]))
        samples = make_samples(events, members, seed)
        alphas = draw_alphas(len(systematics), members, seed)
        variations, shifts = prepare_systematics(list(systematics), simulation, events.scale_reco, alphas, seed)
        samples = replace(samples, variations=variations, shifts=shifts)
        rng = stream(seed, "prior")
        prior = rng.standard_normal((layouts[0].n_parameters, members))
        return cls(settings, events, seed, samples, prior, layouts)

    def loop(self, checkpoint: Path | None) -> None:
        """Train and propagate, iteration by iteration."""
        key = self.key()
        done = [] if checkpoint is None else claim_checkpoint(checkpoint, key, self.seed)
        try:
            self._iterate(checkpoint, key, done)
        finally:
            if checkpoint is not None and not self.records:
                release_checkpoint(checkpoint, key)

    def _iterate(self, checkpoint: Path | None, key: str, done: list[Iteration]) -> None:
        settings = self.settings
        most = MAX_AUTO_ITERATIONS if settings.iterations == "auto" else int(settings.iterations)
        progress = Progress(most, "unfolding", show=settings.progressbar)
        while len(self.records) < most:
            k = len(self.records)
            before = self.weights[-1] if k else Weights.unit(len(self.events.weight))
            start = time.perf_counter()
            record = done[k] if k < len(done) else self._train(before, progress)
            self.records.append(record)
            self.weights.append(apply_weights(self.events, self.layouts, before, record))
            self.seconds["training"] += time.perf_counter() - start
            if checkpoint is not None and k >= len(done):
                write_checkpoint(checkpoint, key, self.records, self.seed)
            self._propagate(before)
            change = self._record_history()
            progress.update(len(self.records), f"(largest change {change:.2f} of the band) ")
            if settings.iterations == "auto" and k >= 1 and change < AUTO_CHANGE:
                break
        self._warn_if_moving(most)
        progress.close(f"{len(self.records)} iterations, {settings.draws} members")

    def _warn_if_moving(self, most: int) -> None:
        """Warn if the last iteration changed the spectrum by a large part of its band."""
        automatic, change = self.settings.iterations == "auto", self.history[-1]["change"]
        msg = None
        if automatic and change >= AUTO_CHANGE:
            msg = (
                f"after {most} iterations the spectrum still moves by {change:.2f} of its band (limit {AUTO_CHANGE}); "
                "the detector resolves too little. Use coarser features or fix iterations."
            )
        elif not automatic and most >= FEW_ITERATIONS and change >= LARGE_CHANGE:
            msg = (
                f"the last of {most} iterations still moves the spectrum by {change:.2f} of its band (limit "
                f"{LARGE_CHANGE}); the answer leans to the generator. Use iterations='auto' or more of them, or quote "
                "the bias from result.estimate_bias()."
            )
        if msg is not None:
            warnings.warn(msg, ConvergenceWarning, stacklevel=5)

    def _train(self, before: Weights, progress: Progress) -> Iteration:
        k = len(self.records)

        def report(step: str, loss: float) -> None:
            progress.update(k + (0.4 if step == "step 1" else 0.8), f"({step} of iteration {k + 1}, loss {loss:.2f}) ")

        return train_iteration(
            self.events,
            self.layouts,
            before,
            self.records[-1] if k else None,
            self.records[0] if k else None,
            cast("Any", self.settings.efficiency),
            training_stream(self.seed, k),
            self.settings.restarts,
            report,
        )

    def _propagate(self, before: Weights) -> None:
        """Equations (1)-(10) for the iteration that was just trained."""
        start = time.perf_counter()
        events = self.events
        efficiency = cast("Any", self.settings.efficiency)
        stages = build_stages(events, self.layouts, before, self.weights[-1], self.records[-1], efficiency)
        if self.first_stage is None:
            self.first_stage = stages.step1
            self.seconds["members"] += time.perf_counter() - start
            self._condition(stages.step1)
            start = time.perf_counter()
        previous = self.responses or self._generator_response(stages.step2)
        links = [Link(previous["step2"], "zeros", events.both)] if previous else []
        if "fakes" in previous:
            links.append(Link(previous["fakes"], "zeros", events.fakes))
        shifts = self.samples.shifts
        known = None if self.stages is None else self.stages.fakes
        moved = {n: moved_step1(events, stages.step1, before.push, known, s) for n, s in shifts.items()}
        one = refit(stages.step1, links, self.samples, self.prior, centre=self.first_response, moved=moved)
        if self.first_response is None:
            self.first_response = one
        if not self.responses and self.conditioning is None and self.axes is not None:
            # the Gaussian posterior's draws are the members' own answers, so that both are one draw
            own = [one.displacement[name] for name in self._posterior_sources(one)]
            self.draws = Draws((self.axes.T @ np.sum(own, axis=0)).T)
        moved = {n: moved_step2(events, stages, before, self.weights[-1], efficiency, s) for n, s in shifts.items()}
        links = [Link(one, "ones", events.both)]
        if previous:
            links.append(Link(previous["step2"], "ones", events.both))
        two = refit(stages.step2, links, self.samples, level=stages.level, moved=moved)
        self.responses = {"step1": one, "step2": two}
        if stages.fakes is not None:
            self.responses["fakes"] = refit(stages.fakes, [Link(two, "ones", events.both)], self.samples)
        self.stages = stages
        self.seconds["members"] += time.perf_counter() - start

    def _generator_response(self, stage: Stage) -> dict[str, Response]:
        """Members' own generators ``n_0``: draws of the particle-level network's prior, of the size asked for.

        What the detector cannot tell apart keeps them to the end; what it measures forgets them with the iterations.
        """
        size = self.settings.generator_prior
        if size == 0:
            return {}
        rng = stream(self.seed, "generator")
        draws = rng.standard_normal((stage.layout.n_parameters, self.settings.draws))
        response = Response(stage, {"generator": stage.basis.T @ draws})
        rows = np.flatnonzero(self.events.pass_gen)[:: max(1, int(self.events.pass_gen.sum()) // 2000)]
        change = response.log_ratio_change(self.events.gen[rows])
        change -= change.mean(axis=0)
        factor = size / np.sqrt(np.mean(change**2))
        return {"step2": Response(stage, {"generator": factor * response.displacement["generator"]})}

    def _posterior_sources(self, response: Response) -> list[str]:
        """Sources that the posterior of step 1 knows of: events and prior."""
        known = {"data", "simulation", "prior"} | {b.name for b in self.samples.backgrounds}
        return [name for name in response.displacement if name in known]

    def _condition(self, stage: Stage) -> None:
        """Posterior draws of the first step 1, the fluctuations that reproduce them, and the signal's yields."""
        start = time.perf_counter()
        settings = self.settings
        rng = stream(self.seed, "posterior")
        posterior, axes = linearize_step1(self.events, stage)
        self.axes = axes
        method = cast("Any", settings.inference)
        if settings.linearize:
            self.draws = sample_posterior(method, posterior, settings.draws, rng)
        else:
            x = step1_events(self.events, stage)[0]
            self.draws = sample_full_network(method, stage.layout, stage.theta, x, posterior, settings.draws, rng)
        if settings.inference != "laplace":
            self.conditioning = condition_on(stage, self.samples, self.prior, axes, self.draws.z)
            self.samples = self.conditioning.apply(self.samples)
            self.prior = self.conditioning.moved_prior(self.prior)
        signal, scales = yield_changes(self.events, self.samples, self.seed)
        self.samples = replace(self.samples, signal=signal, scales=scales)
        self.seconds["posterior"] += time.perf_counter() - start

    def _record_history(self) -> float:
        """Losses, effective size, and the change of reference spectra in units of their band, which is returned."""
        start = time.perf_counter()
        events, now = self.events, self.weights[-1]
        gen = events.pass_gen
        v = np.where(gen, events.weight, 0.0)
        old = self.weights[-2].push if len(self.weights) > 1 else np.ones(len(v))
        groupings = [quantile_groups(events.gen[:, j], gen) for j in range(events.gen.shape[1])]
        change = 0.0
        widths = self.members().relative_widths(groupings, REFERENCE_BINS)
        spectra = []
        for groups, width in zip(groupings, widths, strict=True):
            before, after = (_shares(groups, v * push, gen) for push in (old, now.push))
            spectra.append(after.tolist())
            used = width > 0
            change = max(change, float(np.max(np.abs(after - before)[used] / width[used], initial=0.0)))
        entry = {
            "losses": self.records[-1].losses,
            "decrements": self.records[-1].decrements,
            "change": change,
            "effective_size": effective_size(v * now.push),
            "spectra": spectra,
            "directions": [s.basis.shape[1] for s in (self.stages.step1, self.stages.step2)] if self.stages else [],
        }
        self.history.append(entry)
        self.seconds["members"] += time.perf_counter() - start
        return change

    def members(self) -> Members:
        """The ensemble after the last iteration."""
        push, fakes = self.weights[-1].push, None if self.stages is None else self.stages.fakes
        shifts = self.samples.shifts
        acceptances = {name: acceptance_of(self.events, push, fakes, shift) for name, shift in shifts.items()}
        return Members(
            self.events,
            self.weights[-1],
            replace(self.samples, acceptances=acceptances),
            self.responses["step2"],
            self.responses.get("fakes"),
            None if self.conditioning is None else self.conditioning.lam,
            self.events.signal_yield,
        )

    def finished_members(self) -> Members:
        """The ensemble, with a warning if conditioning drove many weights negative."""
        members = self.members()
        members.norm()  # members without a positive total are an error now, not at the first spectrum
        if self.conditioning is not None:
            members.negative_data = _negative(self.samples.data)
        negative = max(members.negative_fraction(), members.negative_data)
        if negative > 0.1:
            msg = (
                f"{100 * negative:.1f} % of the members' event fluctuations are below -1 after conditioning on "
                "posterior draws; the sample is small for its network. Compare with inference='laplace'."
            )
            warnings.warn(msg, WeightWarning, stacklevel=4)
        return members

    def key(self) -> str:
        """Fingerprint of events and arguments, so that a checkpoint is never used for another run."""
        digest = hashlib.sha256()
        e = self.events
        arrays = [e.gen, e.reco, e.data, e.weight, e.data_weight, e.pass_gen, e.pass_reco]
        for b in e.backgrounds:
            arrays += [b.features, b.weight]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        free = (
            "draws",
            "inference",
            "iterations",
            "linearize",
            "generator_prior",
        )  # the networks do not depend on these
        settings = self.settings.configuration() | {"random_seed": self.seed} | dict.fromkeys(free)
        digest.update(json.dumps(settings, sort_keys=True).encode())
        return digest.hexdigest()


def make_samples(events: Prepared, members: int, seed: int) -> Samples:
    """Data, simulation and backgrounds with their own event fluctuations."""
    data = Sample("data", {"reco": events.data}, Fluctuations(len(events.data), members, event_key(seed, "data")))
    simulation = Sample(
        "simulation",
        {"gen": events.gen, "reco": events.reco},
        Fluctuations(len(events.gen), members, event_key(seed, "simulation")),
    )
    backgrounds = tuple(
        Sample(b.name, {"reco": b.features}, Fluctuations(len(b.features), members, event_key(seed, k)))
        for k, b in enumerate(events.backgrounds)
    )
    return Samples(data, simulation, backgrounds)


def yield_changes(events: Prepared, samples: Samples, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Relative change of the signal yield by source, and of each background's normalisation.

    The data yield is Gamma(N + 1/2) distributed, a background's is Normal with its relative uncertainty plus the
    fluctuation of its own simulated events; the signal is what remains.
    """
    rng = stream(seed, "yields")
    count, total, signal = events.data_size, float(events.data_weight.sum()), events.signal_yield
    members = samples.members
    factor = rng.gamma(count + 0.5, size=members) / count
    changes: dict[str, Array] = {"data": (factor - 1.0) * (total / signal)}
    scales: dict[str, Array] = {}
    for background, sample in zip(events.backgrounds, samples.backgrounds, strict=True):
        size = float(background.weight.sum())
        scales[background.name] = background.relative_uncertainty * rng.standard_normal(members)
        own = np.zeros(members)
        for index, rows in sample.blocks():
            own += background.weight[rows] @ sample.fluctuations.block(index) / size
        changes[background.name] = -(scales[background.name] + own) * (size / signal)
    return changes, scales


def train_point_estimate(
    settings: OmniFold, events: Prepared, iterations: int, seed: int, near: Sequence[Iteration] | None = None
) -> Weights:
    """The point estimate alone, without members.

    ``near`` are the networks of a similar unfolding, from which those of each iteration start.
    """
    layouts = (settings.network.layout(events.reco.shape[1]), settings.network.layout(events.gen.shape[1]))
    weights = Weights.unit(len(events.weight))
    records: list[Iteration] = []
    for k in range(iterations):
        record = train_iteration(
            events,
            layouts,
            weights,
            records[-1] if k else None,
            records[0] if k else None,
            cast("Any", settings.efficiency),
            training_stream(seed, k),
            settings.restarts,
            start_from=None if near is None else near[k],
        )
        weights = apply_weights(events, layouts, weights, record)
        records.append(record)
    return weights


def quantile_groups(values: Array, rows: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Reference bins of equal generator population; -1 for events that fail gen."""
    edges = np.quantile(values[rows], np.linspace(0, 1, REFERENCE_BINS + 1)[1:-1])
    groups = np.searchsorted(edges, values, side="right")
    return np.where(rows, groups, -1)


def _negative(sample: Sample) -> float:
    """Share of the events' fluctuations below -1."""
    negative = sum(map_blocks(lambda b: int((sample.fluctuations.block(b[0]) < -1.0).sum()), sample.blocks()))
    return negative / (len(sample) * sample.fluctuations.members)


def _shares(groups: NDArray[np.integer], weight: Array, rows: NDArray[np.bool_]) -> Array:
    """Share of the total weight in each reference bin."""
    sums = np.bincount(groups[rows], weight[rows], REFERENCE_BINS)
    return sums / sums.sum()
