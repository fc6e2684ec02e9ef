"""Coverage of designs that are not used, in this library's own scheme: rows of docs/studies/coverage.md.

``python benchmarks/other_designs.py DESIGN ROW [--toys 40] [--out DIR]``, DESIGN one of

* ``independent``: members get fresh fluctuations in every iteration,
* ``step2``: posterior draws of the last step-2 classifier only,
* ``full-network``: ADVI of the network that is not linearised,
* ``bootstrap``: 30 refits of the whole loop to bootstrap weights, their percentiles as bands.

The point estimate is the default one in all of them, and every draw carries the same fluctuation of the yield.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from coverage_rows import ROWS, make_toy

import bayesunfold as bu
from bayesunfold._support.threads import block_threads
from bayesunfold.omnifold.iteration import build_stages
from bayesunfold.omnifold.run import Run, make_samples, train_point_estimate, yield_changes
from bayesunfold.unfolding.members import Members, Weights
from bayesunfold.unfolding.propagation import Link, posterior_axes, refit
from bayesunfold.unfolding.standardized import prepare

DRAWS, REFITS = 500, 30


def trained(toy: bu.datasets.GaussianToy, seed: int) -> Run:
    """The point estimate with default settings."""
    settings = bu.OmniFold(inference="laplace", draws=50, random_seed=seed, progressbar=False)
    run = Run.start(settings, toy.simulation, prepare(toy.simulation, toy.measurement), [], seed)
    with block_threads():
        run.loop(None)
    return run


def stages_of(run: Run):
    """The classifiers of every iteration."""
    before = Weights.unit(len(run.events.weight))
    for record, after in zip(run.records, run.weights, strict=True):
        yield build_stages(run.events, run.layouts, before, after, record, "learned")
        before = after


def shapes_to_spectrum(
    run: Run, shapes: np.ndarray, nominal: np.ndarray, edges: np.ndarray, seed: int, centre: bool = True
) -> bu.Spectrum:
    """Spectrum of draws that sum to one over all events, times a Gamma yield."""
    n = run.events.signal_yield
    factor = np.random.default_rng([seed, 5]).gamma(n + 0.5, size=len(shapes))
    values = shapes * factor[:, None]
    if centre:
        values = values - values.mean(axis=0) + n * nominal
    return bu.Spectrum((edges,), values, n * nominal)


def histogram(run: Run, edges: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shape in bins of the particle-level feature; weight (events,) or (events, draws)."""
    gen = run.events.scale_gen.centre[0] + run.events.scale_gen.scale[0] * (
        run.events.gen[:, 0] / run.events.scale_gen.mixing[0, 0] + run.events.scale_gen.mean[0]
    )
    index = np.digitize(gen, edges) - 1
    out = np.stack([weight[index == b].sum(axis=0) for b in range(len(edges) - 1)], axis=-1)
    return out / weight.sum(axis=0)[..., None]


def independent(toy: bu.datasets.GaussianToy, seed: int, edges: np.ndarray) -> bu.Spectrum:
    """Fresh fluctuations of data, simulation and prior in every iteration."""
    run = trained(toy, seed)
    events = run.events
    previous = first = None
    with block_threads():
        for k, stages in enumerate(stages_of(run)):
            samples = make_samples(events, DRAWS, seed * 1000 + k + 1)
            prior = np.random.default_rng([seed, k, 6]).standard_normal((run.layouts[0].n_parameters, DRAWS))
            links = [] if previous is None else [Link(previous, "zeros", events.both)]
            one = refit(stages.step1, links, samples, prior, centre=first)
            first = first or one
            links = [Link(one, "ones", events.both)]
            links += [] if previous is None else [Link(previous, "ones", events.both)]
            previous = refit(stages.step2, links, samples)
    signal, scales = yield_changes(events, samples, seed)
    members = Members(
        events,
        run.weights[-1],
        replace(samples, signal=signal, scales=scales),
        previous,
        None,
        None,
        events.signal_yield,
    )
    weights = np.concatenate([block for _, block in members.blocks()])
    shapes = histogram(run, edges, weights)
    return shapes_to_spectrum(run, shapes, histogram(run, edges, members.nominal()), edges, seed)


def step2(toy: bu.datasets.GaussianToy, seed: int, edges: np.ndarray) -> bu.Spectrum:
    """Posterior draws of the last step 2, as if it were a measurement."""
    run = trained(toy, seed)
    *_, stages = stages_of(run)
    axes, precision = posterior_axes(stages.step2, make_samples(run.events, 0, seed))
    z = np.random.default_rng([seed, 7]).standard_normal((len(precision), DRAWS))
    change = stages.step2.tangent(run.events.gen) @ ((axes / precision) @ z).astype(np.float32)
    nominal = run.events.weight * run.weights[-1].push
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
        weight, data_weight = (w * rng.standard_exponential(len(w)) for w in (events.weight, events.data_weight))
        changed = replace(
            events, weight=weight / weight.mean(), data_weight=data_weight * events.signal_yield / data_weight.sum()
        )
        with block_threads():
            push = train_point_estimate(run.settings, changed, len(run.records), seed * 1000 + k).push
        shapes.append(histogram(run, edges, changed.weight * push))
    nominal = histogram(run, edges, events.weight * run.weights[-1].push)
    return shapes_to_spectrum(run, np.array(shapes), nominal, edges, seed)


DESIGNS = {"independent": independent, "step2": step2, "full-network": full_network, "bootstrap": bootstrap}


def main() -> None:
    """Run one design on one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("design", choices=DESIGNS)
    parser.add_argument("row", choices=["1", "4"])
    parser.add_argument("--toys", type=int, default=40)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
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


if __name__ == "__main__":
    main()
