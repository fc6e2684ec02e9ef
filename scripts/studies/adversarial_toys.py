"""The Gaussian toys of adversarial unfolding, answered by the direct posterior.

``python scripts/studies adversarial-toys [--toys 5]``. Reweighting adversarial networks (arXiv:2606.06603) and AUSSIE
(arXiv:2602.24282) look for the particle-level weights whose refolded simulation no critic can tell from data. The
direct posterior does so with a critic's tangent features and closed-form steps, and second classifiers as later rounds.

Stretched: the detector multiplies by S and adds N(0, 0.5); truth N(0, 1), 10^4 data, simulation N(-1, 1), 10^5.
Coarse: it adds N(0, 2); truth N(0.2, 0.9), simulation N(0, 1).
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from nuisance_toys import run
from results import keep

import bayesunfold as bu

DATA, SIMULATED = 10_000, 100_000
CASES = {f"S = {s}": (-1.0, 0.0, 1.0, float(s), 0.5) for s in (1, 2, 5, 10, 20)}
"""Simulated mean, true mean and width, factor and noise of the detector."""
CASES["coarse"] = 0.0, 0.2, 0.9, 1.0, 2.0


class Score:
    """Mean and variance of the answer to a toy of a case."""

    def __init__(self, case: str) -> None:
        self.case = case

    def __call__(self, seed: int) -> dict[str, Any]:
        """Scores of both methods."""
        shift, mean, width, factor, noise = CASES[self.case]
        rng = np.random.default_rng(seed)
        gen, truth = rng.normal(shift, 1.0, SIMULATED), rng.normal(mean, width, DATA)
        simulation = bu.Simulation(gen, factor * gen + rng.normal(0.0, noise, SIMULATED))
        measured = factor * truth + rng.normal(0.0, noise, DATA)
        out: dict[str, Any] = {"seed": seed}
        methods = {"direct": bu.UnbinnedFBU, "loop": bu.OmniFold}
        for name, method in methods.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bu.errors.BayesUnfoldWarning)
                result = method(random_seed=seed, progressbar=False).fit(simulation, measured)
            moments = result.moments("gen")
            std = moments.std("draw").values
            out[name] = [*(moments.nominal.values - [mean, width**2]), *std, time.perf_counter() - start]
        return out


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", type=int, default=5)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    for case in CASES:
        path = args.out / f"adversarial-{case.replace(' ', '')}.jsonl"
        found = run(Score(case), args.toys, args.workers, path)
        for method in ("direct", "loop"):
            error = np.array([toy[method] for toy in found])
            numbers = {
                "toys": len(found),
                "mean": float(error[:, 0].mean()),
                "mean rms": float(np.sqrt(np.mean(error[:, 0] ** 2))),
                "mean std": float(error[:, 2].mean()),
                "variance": float(error[:, 1].mean()),
                "variance rms": float(np.sqrt(np.mean(error[:, 1] ** 2))),
                "variance std": float(error[:, 3].mean()),
                "seconds": float(error[:, 4].mean()),
            }
            print(case, method, {key: round(value, 4) for key, value in numbers.items()})
            if args.keep:
                cells = {"method": method, "toys": f"{len(found)}"}
                cells |= {f"rms error of the {m}": f"{numbers[f'{m} rms']:.4f}" for m in ("mean", "variance")}
                cells |= {f"band of the {m}": f"{numbers[f'{m} std']:.4f}" for m in ("mean", "variance")}
                cells["seconds"] = f"{numbers['seconds']:.0f}"
                keep("adversarial", [case, method], cells, numbers)


if __name__ == "__main__":
    main()
