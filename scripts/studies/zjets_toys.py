"""Coverage of the seven Z+jets observables when the response is right.

``python scripts/studies zjets-toys [--toys 10] [--method direct] [--additive 12] [--iterations 5] [--out DIR]``.
Toys are drawn from the simulation, with weights that make its seven particle-level observables the truth's (a
cross-fitted classifier learns them): data and simulation then have the same response, which the real ones, of two
tunes, have not.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from reference import REFERENCE
from results import keep
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor

import bayesunfold as bu
from bayesunfold.studies.resampled import unfold_toy


def nature_factor(z: bu.datasets.ZJets) -> np.ndarray:
    """Truth over generator at particle level, event by event.

    Fakes get the mean factor of the events that look like them at detector level, so that their share there is the
    simulation's, as every unfolding takes it to be.
    """
    sim = z.simulation
    target = np.column_stack([z.truth(name) for name in z.features])
    factor = np.ones(len(sim))
    rows = sim.pass_gen
    factor[rows] = bu.Reweighter(draws=2, random_state=1).fit(sim.gen[rows], target).weights(sim.gen[rows])
    both, fakes = rows & sim.pass_reco, ~rows & sim.pass_reco
    mean = HistGradientBoostingRegressor(loss="poisson", random_state=1)
    factor[fakes] = mean.fit(sim.reco[both], factor[both], sim.weight[both]).predict(sim.reco[fakes])
    return factor


def main() -> None:
    """Run and print one line an observable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", type=int, default=10)
    parser.add_argument("--method", choices=("omnifold", "direct"), default="omnifold")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--additive", type=int, help="intervals of the networks' additive parts")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    z = bu.datasets.zjets()
    toys = bu.studies.ResampledToys(z.simulation, float(len(z.data)), nature_factor(z))
    bins = {name: np.array(REFERENCE[name]["bin_edges"]) for name in REFERENCE}
    settings = {"iterations": args.iterations, "inference": "laplace", "draws": 200, "restarts": args.restarts}
    name = f"zjets-{args.iterations}-{args.restarts}"
    table = "zjets-toys"
    if args.method == "direct":
        settings, name, table = {"method": "direct", "draws": 300}, "zjets-direct", "zjets-toys-direct"
    if args.additive is not None:
        network = bu.Network(additive=args.additive)
        settings, name = settings | {"network": network}, f"{name}-additive-{args.additive}"
        if args.method == "direct":
            settings |= {"moments": network}
        else:
            table = "zjets-toys-additive"
    study = bu.coverage_study(
        toys,
        unfold=partial(unfold_toy, settings=settings),
        bins=bins,
        expected=toys.expected(bins),
        toys=args.toys,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"{name}.jsonl",
    )
    start = 0
    print(f"{'':>10} {'in 68 %':>8} {'in 95 %':>8} {'joint':>6} {'rms pull':>9} {'rms mean pull':>14} {'seconds':>8}")
    joint = np.mean(stats.chi2.cdf(study.chi2, study.dof) < 0.95, axis=0)
    for k, (name, edges) in enumerate(bins.items()):
        part = slice(start, start + len(edges) - 1)
        start = part.stop
        core = study.expected[part] > 20
        pulls = study.pulls()[:, part][:, core]
        inside = [study.hits(level)[:, part][:, core].mean() for level in (0.68, 0.95)]
        rms, mean = np.sqrt(np.mean(pulls**2)), np.sqrt(np.mean(pulls.mean(axis=0) ** 2))
        if args.keep:
            cells = {"in the 68 % band": f"{inside[0]:.2f}", "in the 95 % band": f"{inside[1]:.2f}"}
            cells |= {"joint 95 %": f"{joint[k]:.2f}"}
            cells |= {"rms pull": f"{rms:.2f}", "rms of the mean pull": f"{mean:.2f}"}
            numbers = {
                "toys": args.toys,
                "joint": float(joint[k]),
                "inside": [float(share) for share in inside],
                "rms": float(rms),
            }
            keep(table, [name], cells, numbers | {"rms of the mean": float(mean)})
        shares = f"{inside[0]:8.2f} {inside[1]:8.2f} {joint[k]:6.2f}"
        print(f"{name:>10} {shares} {rms:9.2f} {mean:14.2f} {study.seconds.mean():8.0f}")
