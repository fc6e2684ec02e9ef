"""Coverage of the binned methods on the toy: rows of docs/studies/coverage.md.

``python benchmarks/binned_coverage.py METHOD [--toys N] [--simulation N] [--out DIR]``, METHOD one of ibu, inversion,
tikhonov, fbu, fbu-exact.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from coverage_rows import make_toy

import bayesunfold as bu

CORE = np.arange(-5.0, 8.0)
"""The bins of [-9, 11] with 20 or more expected events; what migrates in from outside counts as fakes."""


def unfold(toy: bu.datasets.GaussianToy, seed: int, method: str) -> bu.Spectrum:
    """The core bins of a binned unfolding."""
    response = bu.ResponseMatrix.from_events(toy.simulation, CORE, CORE - 2.5)
    counts = np.histogram(np.ravel(toy.data), CORE - 2.5)[0]
    methods: dict[str, Any] = {
        "ibu": lambda: bu.IBU(4, random_seed=seed),
        "inversion": lambda: bu.MatrixInversion(random_seed=seed),
        "tikhonov": lambda: bu.Tikhonov(random_seed=seed),
        "fbu": lambda: bu.FBU(random_seed=seed, draws=500),
        "fbu-exact": lambda: bu.FBU(random_seed=seed, draws=500, response_statistics=False),
    }
    return methods[method]().fit(response, counts)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method")
    parser.add_argument("--toys", type=int, default=200)
    parser.add_argument("--simulation", type=int, default=1000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"n_data": 1000, "n_simulation": args.simulation, "smear": 0.2}
    study = bu.coverage_study(
        partial(make_toy, settings=settings),
        unfold=partial(unfold, method=args.method),
        bins=CORE,
        expected=make_toy(0, settings).expected(CORE),
        toys=args.toys,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"{args.method}-{args.simulation}.jsonl",
    )
    print(vars(args))
    print(study.table())


if __name__ == "__main__":
    main()
