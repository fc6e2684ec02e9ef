"""Coverage of the binned methods on rows 1 and 4: tables of docs/methods.md and docs/studies/coverage.md.

``python scripts/studies binned-coverage METHOD [--row 1] [--toys N] [--simulation N] [--out DIR]``, METHOD one of ibu,
inversion, tikhonov, svd, fbu, fbu-exact. The scored bins are those with 20 or more expected events. On row 1, what
migrates in from outside counts as fakes; on row 4, where the bins are narrower than the resolution, there is one wide
bin on either side.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from coverage_rows import ROWS, make_toy, unfold_binned
from results import coverage_cells, keep

import bayesunfold as bu

CORE = {"1": np.arange(-5.0, 8.0), "4": ROWS["4"][1][1:]}
"""The bins with 20 or more expected events."""
LABELS = {
    "ibu": "IBU, 4 iterations",
    "inversion": "matrix inversion",
    "tikhonov": "Tikhonov, curvature, L-curve",
    "svd": "SVD, k = 8 of 12 and 6 of 13",
    "fbu": "FBU, flat prior",
    "fbu-exact": "FBU, flat prior, response without its own statistics",
}
REGULARISED = {"1": 8, "4": 6}
"""Rank of the SVD, fixed beforehand at about half to two thirds of the bins."""


def unfold(toy: bu.datasets.GaussianToy, seed: int, method: str, row: str) -> bu.Spectrum:
    """The core bins of a binned unfolding."""
    core, data = CORE[row], np.ravel(toy.data)
    methods: dict[str, Any] = {
        "ibu": lambda: bu.IBU(4, random_seed=seed),
        "inversion": lambda: bu.MatrixInversion(random_seed=seed),
        "tikhonov": lambda: bu.Tikhonov(random_seed=seed),
        "svd": lambda: bu.SVDUnfolding(REGULARISED[row], random_seed=seed),
        "fbu": lambda: bu.FBU(random_seed=seed, draws=500),
        "fbu-exact": lambda: bu.FBU(random_seed=seed, draws=500, response_statistics=False),
    }
    chosen = methods[method]()
    if row == "4":
        return unfold_binned(chosen, toy.simulation, data, core)
    response = bu.ResponseMatrix.from_events(toy.simulation, core, core - 2.5)
    return chosen.fit(response, np.histogram(data, core - 2.5)[0])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method")
    parser.add_argument("--row", choices=CORE, default="1")
    parser.add_argument("--toys", type=int, default=200)
    parser.add_argument("--simulation", type=int, help="simulated events, the row's own number if omitted")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settings = dict(ROWS[args.row][0])
    settings["n_simulation"] = args.simulation or settings["n_simulation"]
    core = CORE[args.row]
    study = bu.coverage_study(
        partial(make_toy, settings=settings),
        unfold=partial(unfold, method=args.method, row=args.row),
        bins=core,
        expected=make_toy(0, settings).expected(core),
        toys=args.toys,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"{args.method}-{args.row}-{settings['n_simulation']}.jsonl",
    )
    print(vars(args))
    print(study.table())
    if args.keep:
        row = [LABELS[args.method], args.row]
        print("kept:", keep("designs", row, coverage_cells(study.summary()), study.summary()))
