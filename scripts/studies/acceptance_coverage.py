"""Coverage with misses and fakes: efficiency ``clip(0.3 + 0.7 (x + 10) / 20, 0, 1)`` and 10 % fakes.

``python scripts/studies acceptance-coverage [--toys 100] [--method direct] [--inference advi] [--ibu] [--out DIR]``.
Truth N(1.2, 3.0) with 3000 expected events, generator N(0.3, 2.5) with 10 000, resolution 0.5. Fakes are events of the
same kind without a particle level. ``--ibu`` unfolds the same toys by IBU, whose covariance is known in closed form:
what the two have in common is the toys' common fluctuation.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from coverage_rows import unfold_binned
from other_problems import unfold_directly
from results import coverage_cells, keep, keep_direct
from scipy import stats

import bayesunfold as bu

EDGES = np.linspace(-9, 11, 21)
IBU_EDGES = EDGES[3:-3]
TRUTH, GENERATOR = (1.2, 3.0), (0.3, 2.5)
EXPECTED, SIMULATED, FAKES = 3000, 10_000, 0.1


def sample(rng: np.random.Generator, n: int, mean: float, width: float) -> tuple[np.ndarray, ...]:
    """Particle level, detector level, and flags of both; events that pass neither are left out."""
    n_fakes = rng.poisson(n * FAKES / (1 - FAKES)) if n else 0
    gen = rng.normal(mean, width, n + n_fakes)
    reco = gen + rng.normal(-2.5, 0.5, len(gen))
    pass_reco = rng.random(len(gen)) < np.clip(0.3 + 0.7 * (gen + 10) / 20, 0, 1)
    pass_gen = np.arange(len(gen)) < n
    kept = pass_gen | pass_reco
    return gen[kept], reco[kept], pass_gen[kept], pass_reco[kept]


def make_toy(seed: int) -> tuple[bu.Simulation, bu.Data]:
    """One pseudo-experiment with a Poisson yield."""
    rng = np.random.default_rng([seed, 77])
    _, reco, _, passing = sample(rng, rng.poisson(EXPECTED), *TRUTH)
    gen, sim_reco, pass_gen, pass_reco = sample(rng, SIMULATED, *GENERATOR)
    simulation = bu.Simulation(
        np.where(pass_gen, gen, np.nan), np.where(pass_reco, sim_reco, np.nan), pass_gen=pass_gen, pass_reco=pass_reco
    )
    return simulation, bu.Data(reco[passing])


def unfold(toy: tuple[bu.Simulation, bu.Data], seed: int, inference: str) -> bu.UnfoldingResult:
    """Default settings."""
    return bu.OmniFold(random_seed=seed, inference=inference, progressbar=False).fit(*toy)


def unfold_ibu(toy: tuple[bu.Simulation, bu.Data], seed: int) -> bu.Spectrum:
    """IBU in the bins that are scored, with one wide bin on either side."""
    simulation, data = toy
    return unfold_binned(bu.IBU(4, random_seed=seed), simulation, data.features[:, 0], IBU_EDGES, -2.5)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", type=int, default=100)
    parser.add_argument("--ibu", action="store_true")
    parser.add_argument("--method", choices=("omnifold", "direct"), default="omnifold")
    parser.add_argument("--inference", default="advi", help="of the loop")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    edges, name = (IBU_EDGES, "ibu") if args.ibu else (EDGES, args.inference)
    method = unfold_ibu if args.ibu else partial(unfold, inference=args.inference)
    if args.method == "direct":
        method, name = unfold_directly, "direct"
    study = bu.coverage_study(
        make_toy,
        unfold=method,
        bins=edges,
        expected=EXPECTED * np.diff(stats.norm(*TRUTH).cdf(edges)),
        toys=args.toys,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"acceptance-{name}.jsonl",
    )
    print(study.table())
    if args.keep and args.method == "direct":
        print("kept:", keep_direct("acceptance", study))
    elif args.keep:
        label = ("IBU, 4 iterations, 14 bins" if args.toys == 100 else "IBU") if args.ibu else "ours, 15 bins"
        print("kept:", keep("acceptance", [label], coverage_cells(study.summary()), study.summary()))
