"""Coverage of designs that are not used, in this library's own scheme: rows of docs/studies/coverage.md.

``python scripts/studies other-designs DESIGN ROW [--toys 40] [--out DIR]``, DESIGN one of

* ``independent``: members get fresh fluctuations in every iteration,
* ``step2``: posterior draws of the last step-2 classifier only,
* ``full-network``: ADVI of the network that is not linearised,
* ``bootstrap``: 30 refits of the whole loop to bootstrap weights, their percentiles as bands.

The point estimate is the default one in all of them, and every draw carries the same fluctuation of the yield.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from coverage_rows import ROWS, make_toy
from results import coverage_cells, keep

import bayesunfold as bu
from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.linearized import posterior_axes
from bayesunfold.omnifold.answers import propagate
from bayesunfold.omnifold.iteration import Iteration, iterate, recall
from bayesunfold.omnifold.loop import point_estimates, start_perturbations, yield_changes
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.standardized import StandardizedEvents

DRAWS, REFITS = 500, 30


@dataclass(frozen=True)
class Trained:
    """The point estimate with default settings, iteration by iteration."""

    result: bu.UnfoldingResult
    seed: int

    @property
    def events(self) -> StandardizedEvents:
        """The standardised events."""
        return self.result.members.events

    def iterations(self) -> list[Iteration]:
        """All iterations again, from the stored networks."""
        out: list[Iteration] = []
        for networks in self.result.iterations:
            before, first = (out[-1], self.result.iterations[0]) if out else (None, None)
            out.append(iterate(self.events, self.result.record.settings, before, first, recall(networks)))
        return out


def trained(toy: bu.datasets.GaussianToy, seed: int) -> Trained:
    """The point estimate with default settings."""
    unfolder = bu.OmniFold(inference="laplace", draws=50, random_seed=seed, progressbar=False)
    return Trained(unfolder.fit(toy.simulation, toy.measurement), seed)


def shapes_to_spectrum(
    run: Trained, shapes: np.ndarray, nominal: np.ndarray, edges: np.ndarray, seed: int, centre: bool = True
) -> bu.Spectrum:
    """Spectrum of draws that sum to one over all events, times a Gamma yield."""
    n = run.events.signal_yield
    factor = np.random.default_rng([seed, 5]).gamma(n + 0.5, size=len(shapes))
    values = shapes * factor[:, None]
    if centre:
        values = values - values.mean(axis=0) + n * nominal
    return bu.Spectrum((edges,), values, n * nominal)


def histogram(run: Trained, edges: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shape in bins of the particle-level feature; weight (events,) or (events, draws)."""
    index = np.digitize(run.result.simulation.gen[:, 0], edges) - 1
    out = np.stack([weight[index == b].sum(axis=0) for b in range(len(edges) - 1)], axis=-1)
    return out / weight.sum(axis=0)[..., None]


def independent(toy: bu.datasets.GaussianToy, seed: int, edges: np.ndarray) -> bu.Spectrum:
    """Fresh fluctuations of data, simulation and prior in every iteration."""
    run = trained(toy, seed)
    events, settings = run.events, replace(run.result.record.settings, draws=DRAWS)
    before = centre = push = None
    with block_threads():
        for k, iteration in enumerate(run.iterations()):
            p = start_perturbations(events, toy.simulation, [], settings, seed * 1000 + k + 1)
            answers = propagate(events, settings, iteration, before, push, None, centre, p)
            centre, push, before = centre or answers.step1, answers.step2, iteration
        signal, scales = yield_changes(events, p, seed)
    members = Members(events, before.push, replace(p, signal=signal, scales=scales), push)
    weights = np.concatenate([block for _, block in members.blocks()])
    shapes = histogram(run, edges, weights)
    return shapes_to_spectrum(run, shapes, histogram(run, edges, members.nominal()), edges, seed)


def step2(toy: bu.datasets.GaussianToy, seed: int, edges: np.ndarray) -> bu.Spectrum:
    """Posterior draws of the last step 2, as if it were a measurement."""
    run = trained(toy, seed)
    last = run.iterations()[-1].step2
    axes, precision = posterior_axes(last)
    z = np.random.default_rng([seed, 7]).standard_normal((len(precision), DRAWS))
    change = last.tangent(run.events.gen) @ ((axes / precision) @ z).astype(np.float32)
    nominal = run.events.weight * run.result.members.push
    shapes = histogram(run, edges, nominal[:, None] * np.exp(change))
    return shapes_to_spectrum(run, shapes, histogram(run, edges, nominal), edges, seed)


def full_network(toy: bu.datasets.GaussianToy, seed: int, edges: np.ndarray) -> bu.Spectrum:
    """ADVI of all weights of the network."""
    unfolder = bu.OmniFold(inference="advi", linearize=False, random_seed=seed, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return unfolder.fit(toy.simulation, toy.measurement).spectrum(toy.simulation.gen_names[0], edges)


def bootstrap(toy: bu.datasets.GaussianToy, seed: int, edges: np.ndarray) -> bu.Spectrum:
    """The loop trained again on Exp(1) weights of data and simulation."""
    run = trained(toy, seed)
    events, rng = run.events, np.random.default_rng([seed, 8])
    shapes = []
    for k in range(REFITS):
        weight, data_weight = (w * rng.standard_exponential(len(w)) for w in (events.weight, events.data.weight))
        scaled = data_weight * events.signal_yield / data_weight.sum()
        changed = replace(events, weight=weight / weight.mean(), data=replace(events.data, weight=scaled))
        with block_threads():
            loop = point_estimates(changed, run.result.record.settings, seed * 1000 + k)
            push = next(islice(loop, len(run.result.iterations) - 1, None)).push
        shapes.append(histogram(run, edges, changed.weight * push))
    nominal = histogram(run, edges, events.weight * run.result.members.push)
    return shapes_to_spectrum(run, np.array(shapes), nominal, edges, seed)


LABELS = {
    "independent": "fresh, independent fluctuations in every iteration",
    "step2": "posterior draws of the last step 2 only",
    "full-network": "ADVI of the network that is not linearised",
    "bootstrap": "30 bootstrap refits, their percentiles",
}
DESIGNS = {"independent": independent, "step2": step2, "full-network": full_network, "bootstrap": bootstrap}


def main() -> None:
    """Run one design on one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("design", choices=DESIGNS)
    parser.add_argument("row", choices=["1", "4"])
    parser.add_argument("--toys", type=int, default=40)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    settings, edges, _ = ROWS[args.row]
    study = bu.coverage_study(
        partial(make_toy, settings=settings),
        unfold=partial(DESIGNS[args.design], edges=edges),
        bins=edges,
        expected=make_toy(0, settings).expected(edges),
        toys=args.toys,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"{args.design}-{args.row}.jsonl",
    )
    print(vars(args))
    print(study.table())
    if args.keep:
        row = [LABELS[args.design], args.row]
        print("kept:", keep("designs", row, coverage_cells(study.summary()), study.summary()))
