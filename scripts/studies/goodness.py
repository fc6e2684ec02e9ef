"""Uniformity of the p-values of ``result.goodness_of_fit()`` where the answer is right.

``python scripts/studies goodness [--row 4] [--toys 40] [--experiments 19] [--out DIR]``. Toys of a row of the coverage
table, each unfolded by the direct posterior, each p-value from pseudo-experiments of its own answer.
"""

from __future__ import annotations

import argparse
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from coverage_rows import ROWS, make_toy, unfold_directly
from nuisance_toys import run
from results import keep
from scipy import stats

import bayesunfold as bu


def score(seed: int, row: str, experiments: int) -> dict[str, Any]:
    """p-values of a toy: in closed form, and among pseudo-experiments."""
    result = unfold_directly(make_toy(seed, ROWS[row][0]), seed, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bu.errors.BayesUnfoldWarning)
        fit = result.goodness_of_fit(experiments, random_seed=10_000 * (seed + 1), progressbar=False)
    return {
        "seed": seed,
        "closed": [fit.moments, fit.classifier],
        "ranks": [int(np.sum(null <= value)) for value, null in _pairs(fit)],
    }


def _pairs(fit: bu.studies.GoodnessOfFit) -> list[tuple[float, np.ndarray]]:
    return [(fit.moments, fit.null_moments), (fit.classifier, fit.null_classifier)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=ROWS, default="4")
    parser.add_argument("--toys", type=int, default=40)
    parser.add_argument("--experiments", type=int, default=19)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    path = args.out / f"goodness-row{args.row}-{args.experiments}.jsonl"
    found = run(partial(score, row=args.row, experiments=args.experiments), args.toys, args.workers, path)
    numbers: dict[str, float] = {"toys": len(found), "experiments": args.experiments}
    for k, name in enumerate(("moments", "second classifier")):
        # a rank among n null values is uniform on n + 1 numbers; its place within one is drawn
        rank = np.array([toy["ranks"][k] for toy in found])
        place = (rank + np.random.default_rng(1).random(len(rank))) / (args.experiments + 1)
        numbers[f"{name} KS"] = float(stats.kstest(place, "uniform").pvalue)
        numbers[f"{name} mean"] = float(place.mean())
        closed = [toy["closed"][k] for toy in found]
        numbers[f"{name} closed form KS"] = float(stats.kstest(closed, "uniform").pvalue)
    print(json.dumps(numbers, indent=1))
    if args.keep:
        cells = {"toys": f"{len(found)}", "experiments per toy": f"{args.experiments}"}
        for name in ("moments", "second classifier"):
            cells[f"{name}: KS"] = f"{numbers[f'{name} KS']:.2f}"
            cells[f"{name}: mean"] = f"{numbers[f'{name} mean']:.2f}"
            cells[f"{name}: KS in closed form"] = f"{numbers[f'{name} closed form KS']:.2f}"
        print("kept:", keep("goodness", [f"row {args.row}"], cells, numbers))


if __name__ == "__main__":
    main()
