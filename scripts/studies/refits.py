"""Members against a loop that is really refitted to the members' own fluctuations, on one toy.

``python scripts/studies refits ROW [--refits 200] [--size 1.0] [--seed 0]``. The prior's noise is off in both.
``--size`` scales the fluctuations of the refits (not of the members): with 1 they are the Bayesian bootstrap, with
less the response is closer to linear.
"""

from __future__ import annotations

import argparse

import numpy as np
from coverage_rows import ROWS, make_toy
from results import keep

import bayesunfold as bu


def main() -> None:
    """Print the comparison over the core bins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--refits", type=int, default=200)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    settings, edges, _ = ROWS[args.row]
    toy = make_toy(args.seed, settings)
    unfolder = bu.OmniFold(inference="laplace", draws=args.refits, random_seed=args.seed, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    core = np.flatnonzero(toy.expected(edges) >= 20)
    edges = edges[core[0] : core[-1] + 2]
    name = result.simulation.gen_names[0]
    found = bu.studies.compare_with_refits(result, name, edges, args.refits, args.size)
    print(f"row {args.row}, seed {args.seed}, size {args.size}, {len(result.iterations)} iterations")
    print(found.table())
    ratio = found.width_ratio
    if args.keep:
        numbers = {"ratio": ratio.tolist(), "correlation": found.correlation.tolist(), "shift": found.shift.tolist()}
        cells = {"mean": f"{ratio.mean():.2f}", "least": f"{ratio.min():.2f}", "largest": f"{ratio.max():.2f}"}
        cells["correlation"] = f"{found.correlation.min():.2f} to {found.correlation.max():.2f}"
        print("kept:", keep("refits", [args.row, f"{args.size:g}", str(args.refits)], cells, numbers))
    print(f"mean ratio {ratio.mean():.3f}, least {ratio.min():.3f}, largest {ratio.max():.3f}")
