"""Coverage of the seven Z+jets observables when the response is right.

``python benchmarks/zjets_toys.py [--toys 10] [--iterations 5] [--out DIR]``. Toys are drawn from the simulation, with
weights that make its seven particle-level observables nature's (a cross-fitted classifier learns them): data and
simulation then have the same response, which the real ones, of two tunes, have not.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from bench_zjets import REFERENCE

import bayesunfold as bu
from bayesunfold.studies.resampled import unfold_toy


def nature_factor(z: bu.datasets.ZJets) -> np.ndarray:
    """Nature over generator at particle level, event by event; fakes get one."""
    rows = z.simulation.pass_gen
    target = np.column_stack([z.truth(name) for name in z.features])
    factor = np.ones(len(z.simulation))
    factor[rows] = (
        bu.Reweighter(draws=2, random_state=1).fit(z.simulation.gen[rows], target).weights(z.simulation.gen[rows])
    )
    return factor


def main() -> None:
    """Run and print one line an observable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    args = parser.parse_args()
    z = bu.datasets.zjets()
    toys = bu.studies.ResampledToys(z.simulation, float(len(z.data)), nature_factor(z))
    bins = {name: np.array(REFERENCE[name]["bin_edges"]) for name in REFERENCE}
    settings = {"iterations": args.iterations, "inference": "laplace", "draws": 200, "restarts": args.restarts}
    study = bu.coverage_study(
        toys,
        unfold=partial(unfold_toy, settings=settings),
        bins=bins,
        expected=toys.expected(bins),
        toys=args.toys,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"zjets-{args.iterations}-{args.restarts}.jsonl",
    )
    start = 0
    print(f"{'':>10} {'in 68 %':>8} {'in 95 %':>8} {'rms pull':>9} {'rms mean pull':>14} {'seconds':>8}")
    for name, edges in bins.items():
        part = slice(start, start + len(edges) - 1)
        start = part.stop
        core = study.expected[part] > 20
        pulls = study.pulls()[:, part][:, core]
        inside = [study.hits(level)[:, part][:, core].mean() for level in (0.68, 0.95)]
        print(
            f"{name:>10} {inside[0]:8.2f} {inside[1]:8.2f} {np.sqrt(np.mean(pulls**2)):9.2f} "
            f"{np.sqrt(np.mean(pulls.mean(axis=0) ** 2)):14.2f} {study.seconds.mean():8.0f}"
        )


if __name__ == "__main__":
    main()
