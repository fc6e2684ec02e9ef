"""Moment unfolding on a Gaussian toy whose best possible errors are known.

``python scripts/studies moment-unfolding [--toys 60] [--out DIR]``. Truth N(0, 1) with 10^4 data events, simulation
N(-0.5, 1) with 10^5, smearing 0.5. The measured width is ``sqrt(1.25)``, so with the statistics of both samples the
mean cannot be known better than 0.0117 and the variance than 0.0185.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nuisance_toys import run
from results import keep

import bayesunfold as bu

DATA, SIMULATED, SMEARING = 10_000, 100_000, 0.5
TRUTH = {"mean": 0.0, "variance": 1.0}


def score(seed: int, data: int, simulated: int) -> dict[str, Any]:
    """Both moments of a toy, with their posterior widths and intervals."""
    rng = np.random.default_rng(seed)
    gen = rng.normal(-0.5, 1.0, simulated)
    measured = rng.normal(0.0, 1.0, data) + rng.normal(0.0, SMEARING, data)
    simulation = bu.Simulation(gen, gen + rng.normal(0.0, SMEARING, simulated))
    start = time.perf_counter()
    result = bu.MomentUnfolding(2, random_seed=seed, progressbar=False).fit(simulation, measured)
    moments = result.moments("gen")
    out: dict[str, Any] = {"seed": seed, "seconds": time.perf_counter() - start}
    for name in TRUTH:
        draws = moments.sel(moment=name)
        low, high = np.quantile(draws, [0.16, 0.84])
        out[name] = [float(draws.nominal), float(draws.std()), float(low), float(high)]
    return out


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", type=int, default=60)
    parser.add_argument("--data", type=int, default=DATA)
    parser.add_argument("--simulated", type=int, default=SIMULATED)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    path = args.out / f"moment-unfolding-{args.data}-{args.simulated}.jsonl"
    found = run(partial(score, data=args.data, simulated=args.simulated), args.toys, args.workers, path)
    # the statistics of data and simulation at the measured width, and the smearing's share of the variance
    share = 1.0 / args.data + 1.0 / args.simulated
    best = {"mean": np.sqrt((1 + SMEARING**2) * share), "variance": (1 + SMEARING**2) * np.sqrt(2 * share)}
    for name, truth in TRUTH.items():
        value, std, low, high = np.array([toy[name] for toy in found]).T
        inside = (low <= truth) & (truth <= high)
        numbers = {
            "toys": len(found),
            "average": float(value.mean()),
            "spread": float(value.std(ddof=1)),
            "posterior width": float(std.mean()),
            "best possible": float(best[name]),
            "rms pull": float(np.sqrt(np.mean(((value - truth) / std) ** 2))),
            "coverage": float(inside.mean()),
            "seconds": float(np.mean([toy["seconds"] for toy in found])),
        }
        print(name, {key: round(number, 5) for key, number in numbers.items()})
        if args.keep:
            cells = {
                "toys": f"{len(found)}",
                "truth": f"{truth:g}",
                "average": f"{numbers['average']:.4f} ± {numbers['spread'] / np.sqrt(len(found)):.4f}",
                "spread": f"{numbers['spread']:.4f}",
                "posterior width": f"{numbers['posterior width']:.4f}",
                "best possible": f"{numbers['best possible']:.4f}",
                "rms pull": f"{numbers['rms pull']:.2f}",
                "in its 68 % interval": f"{numbers['coverage']:.2f}",
            }
            print("kept:", keep("moments", [name], cells, numbers))


if __name__ == "__main__":
    main()
