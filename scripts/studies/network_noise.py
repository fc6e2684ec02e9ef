"""How much the result moves when training starts from other initial values, in units of the band.

``python scripts/studies network-noise [--restarts 1]``
"""

from __future__ import annotations

import argparse

import numpy as np
from coverage_rows import ROWS

import bayesunfold as bu

TOYS, SEEDS = 4, 6


def main() -> None:
    """Rows 1 and 4 of the coverage table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=1)
    args = parser.parse_args()
    for row, iterations in (("1", 3), ("4", 6)):
        settings, edges, _ = ROWS[row]
        found = []
        for t in range(TOYS):
            toy = bu.datasets.gaussian_toy(**settings, random_seed=50 + t)
            nominal = []
            for seed in range(SEEDS):
                unfolder = bu.OmniFold(
                    iterations,
                    inference="laplace",
                    draws=100,
                    restarts=args.restarts,
                    random_seed=seed,
                    progressbar=False,
                )
                result = unfolder.fit(toy.simulation, toy.measurement)
                spectrum = result.spectrum(result.simulation.gen_names[0], edges)
                nominal.append(spectrum.nominal)
            core = toy.expected(edges) > 20
            found.append((np.std(nominal, axis=0, ddof=1)[core] / spectrum.std()[core]) ** 2)
        print(f"row {row}: {np.sqrt(np.mean(found)):.3f} of the band")
