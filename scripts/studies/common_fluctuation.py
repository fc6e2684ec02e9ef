"""How the seeds of a row of the coverage table treat a method whose covariance is known in closed form.

``python scripts/studies common-fluctuation ROW [--toys N]`` unfolds the first feature by IBU, 4 iterations, with one
wide bin on either side, and prints width over spread of the bins with 20 or more expected events, for the toys of the
row and for many more. What the two differ by is the common fluctuation of the row's toys, which our bands share.
"""

from __future__ import annotations

import argparse

import numpy as np
from coverage_rows import ROWS, make_toy, unfold_binned
from results import keep

import bayesunfold as bu

SHIFT = {"1": -2.5, "2": -2.5, "3": -2.5}


def unfold(toy: bu.datasets.GaussianToy, edges: np.ndarray, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Point estimate and standard deviation in the bins."""
    simulation = bu.Simulation(toy.simulation.gen[:, 0], toy.simulation.reco[:, 0])
    s = unfold_binned(bu.IBU(4, draws=2, random_seed=seed), simulation, toy.measurement.features[:, 0], edges, shift)
    return s.nominal, np.sqrt(np.diag(s.covariance()))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--toys", type=int, default=1000)
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    settings, edges, own = ROWS[args.row]
    expected = make_toy(0, settings).expected(edges)
    first = np.asarray(next(iter(expected.values())) if isinstance(expected, dict) else expected)
    used = np.flatnonzero(first >= 20)
    edges = edges[used[0] : used[-1] + 2]
    done = [unfold(make_toy(k, settings), edges, SHIFT.get(args.row, 0.0), k) for k in range(args.toys)]
    nominal, width = (np.array(part) for part in zip(*done, strict=True))
    found = {}
    for toys in sorted({60, own, args.toys}):
        ratio = width[:toys].mean(axis=0) / nominal[:toys].std(axis=0, ddof=1)
        found[toys] = float(ratio.mean())
        print(f"row {args.row}, IBU, toys 0 to {toys - 1}: width / spread {ratio.mean():.3f}")
    if args.keep:
        cells = {"IBU, the row's toys": f"{found[own]:.3f} ({own})"}
        cells["IBU, many toys"] = f"{found[args.toys]:.3f} ({args.toys})"
        print("kept:", keep("common-fluctuation", [args.row], cells, {str(toys): r for toys, r in found.items()}))
