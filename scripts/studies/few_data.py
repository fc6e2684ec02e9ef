"""Coverage with a handful of data events: the toy of the coverage table's first row, in seven wide bins.

``python scripts/studies few-data EVENTS [--toys 200] [--method omnifold] [--keep]``. 1000 simulated events, Poisson
yields. Bins with three or more expected events are scored; ``bu.coverage_study`` asks for twenty.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from coverage_rows import make_toy
from results import keep

import bayesunfold as bu

EDGES = np.linspace(-6, 8, 8)
LEAST = 3.0


def score(seed: int, events: int, method: str) -> np.ndarray:
    """By bin: nominal, standard deviation, inside the 68 % band, inside the 95 % band, truth; and the joint p-value."""
    toy = make_toy(seed, {"n_data": events, "n_simulation": 1000, "smear": 0.2})
    unfolder: bu.OmniFold | bu.UnbinnedFBU = bu.UnbinnedFBU(random_seed=seed, progressbar=False)
    if method == "omnifold":
        unfolder = bu.OmniFold(inference="laplace", random_seed=seed, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bu.errors.BayesUnfoldWarning)  # of few events, in every toy
        s = unfolder.fit(toy.simulation, toy.measurement).spectrum("gen", EDGES)
    truth = toy.expected(EDGES)
    inside = [(low <= truth) & (truth <= high) for low, high in (s.interval(0.68), s.interval(0.95))]
    kept = np.flatnonzero(truth >= LEAST)  # one after the other
    core = bu.Spectrum((EDGES[kept[0] : kept[-1] + 2],), s.draw_matrix[:, kept], s.nominal[kept])
    joint = np.full(len(truth), core.chi2(truth[kept]).p_value)
    return np.array([s.nominal, s.std(), *inside, truth, joint])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=int)
    parser.add_argument("--toys", type=int, default=200)
    parser.add_argument("--method", choices=("omnifold", "direct"), default="direct")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers) as pool:
        found = np.array(list(pool.map(partial(score, events=args.events, method=args.method), range(args.toys))))
    core = found[0, 4] >= LEAST
    nominal, std, in68, in95, truth, joint = found[:, :, core].transpose(1, 0, 2)
    numbers = {"toys": args.toys, "core bins": int(core.sum())}
    for level, inside in (("0.68", in68), ("0.95", in95)):
        by_toy = inside.mean(axis=1)
        numbers |= {f"{level} mean": by_toy.mean(), f"{level} error": by_toy.std(ddof=1) / np.sqrt(args.toys)}
        numbers[f"{level} worst"] = inside.mean(axis=0).min()
    for level in (0.68, 0.95):
        numbers[f"{level} joint"] = float(np.mean(joint[:, 0] > 1 - level))
    spread = nominal.std(axis=0, ddof=1)
    numbers["width / spread"] = (std.mean(axis=0) / spread).mean()
    numbers["rms bias"] = np.sqrt(np.mean(((nominal.mean(axis=0) - truth[0]) / spread) ** 2))
    numbers["width / Poisson"] = (std.mean(axis=0) / np.sqrt(truth[0])).mean()
    numbers = {name: float(value) for name, value in numbers.items()}
    print(args.events, args.method, {name: round(value, 3) for name, value in numbers.items()})
    if args.keep and args.method == "direct":
        cells = {
            "toys": f"{args.toys}",
            "68 % mean": f"{numbers['0.68 mean']:.3f} ± {numbers['0.68 error']:.3f}",
            "worst bin": f"{numbers['0.68 worst']:.3f}",
            "95 % mean": f"{numbers['0.95 mean']:.3f} ± {numbers['0.95 error']:.3f}",
            "joint 68 / 95 %": f"{numbers['0.68 joint']:.3f} / {numbers['0.95 joint']:.3f}",
            "width / spread": f"{numbers['width / spread']:.2f}",
            "rms bias / spread": f"{numbers['rms bias']:.2f}",
            "width / Poisson": f"{numbers['width / Poisson']:.2f}",
        }
        print("kept:", keep("direct", [f"{args.events} data, 1000 simulated"], cells, numbers))
