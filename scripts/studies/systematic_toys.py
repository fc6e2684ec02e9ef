"""Coverage where systematics of the detector level, and of backgrounds, decide.

``python scripts/studies systematic-toys TOY [--method direct] [--said right] [--toys 60] [--out DIR]``, TOY one of

* ``efficiency``: events above zero are found with an efficiency that is known to 10 %; said as scale factors
  (``right``) or as generator weights of both levels (``wrong``),
* ``scale``: signal and background, a third of the data, share an energy scale that is known to 2 %; said with the
  background's part (``right``) or of the signal alone (``wrong``),
* ``model``: another simulation of 4000 events, whose readings lie 0.06 higher, stands for one standard deviation
  (``right``), or is left out (``wrong``),
* ``background``: a peak, half as many events as the signal, of simulated events; its yield is known to 2 %, and nothing
  else is uncertain but statistics.

Every toy has fresh data, a fresh simulation and its own true value of the parameter, drawn from N(0, 1). Truth
N(0.3, 0.9) with 8000 expected events, generator N(0, 1) with 20 000, resolution 0.3; bins with 20 events count.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nuisance_toys import LEAST, held, run
from results import keep
from scipy import stats

import bayesunfold as bu

EXPECTED, SIMULATED, BACKGROUND = 8000, 20_000, 4000
TRUTH, RESOLUTION = (0.3, 0.9), 0.3
EDGES = np.linspace(-2.4, 3.0, 13)
ALTERNATIVE, HIGHER = 4000, 0.06
"""Events of the other simulation, and by how much its readings are higher."""

FOUND, EFFICIENCY, SCALE, OFFSET = 0.8, 0.1, 0.02, 5.0
"""Share of events that are found; one standard deviation of that, and of the scale; what a reading is scaled about."""


def efficiency_toy(rng: np.random.Generator, alpha: float, said: str) -> dict[str, Any]:
    """Events above zero are found more or less often than the simulation says."""
    truth = rng.normal(*TRUTH, rng.poisson(EXPECTED))
    data = truth + rng.normal(0, RESOLUTION, len(truth))
    found = FOUND * np.where(data > 0, 1 + EFFICIENCY * alpha, 1.0)
    gen = rng.normal(0, 1, SIMULATED)
    reco = gen + rng.normal(0, RESOLUTION, SIMULATED)
    up, down = (np.where(reco > 0, 1 + sign * EFFICIENCY, 1.0) for sign in (1, -1))
    systematic = (
        bu.Systematic("tag", reco_factor_up=up, reco_factor_down=down)
        if said == "right"
        else bu.Systematic("tag", weight_up=up, weight_down=down)
    )
    return {
        "simulation": bu.Simulation(gen, reco, pass_reco=rng.random(SIMULATED) < FOUND),
        "data": bu.Data(data[rng.random(len(data)) < found]),
        "systematics": [systematic],
    }


def scaled(x: np.ndarray, alpha: float) -> np.ndarray:
    """Readings at a value of the scale."""
    return (x + OFFSET) * (1 + SCALE * alpha) - OFFSET


def scale_toy(rng: np.random.Generator, alpha: float, said: str) -> dict[str, Any]:
    """A scale moves signal and background."""
    truth = rng.normal(*TRUTH, rng.poisson(EXPECTED))
    other = rng.normal(0.5, 0.5, rng.poisson(BACKGROUND))
    data = scaled(np.concatenate([truth + rng.normal(0, RESOLUTION, len(truth)), other]), alpha)
    gen = rng.normal(0, 1, SIMULATED)
    reco = gen + rng.normal(0, RESOLUTION, SIMULATED)
    x = rng.normal(0.5, 0.5, 5 * BACKGROUND)
    nominal, up, down = (bu.Background(scaled(x, a), np.full(len(x), 0.2), "other") for a in (0.0, 1.0, -1.0))
    varied = {"other": (up, down)} if said == "right" else None
    systematic = bu.Systematic("scale", reco_up=scaled(reco, 1.0), reco_down=scaled(reco, -1.0), backgrounds=varied)
    return {
        "simulation": bu.Simulation(gen, reco),
        "data": bu.Data(data),
        "backgrounds": [nominal],
        "systematics": [systematic],
    }


def model_toy(rng: np.random.Generator, alpha: float, said: str) -> dict[str, Any]:
    """Readings lie higher in another simulation, which has few events."""
    truth = rng.normal(*TRUTH, rng.poisson(EXPECTED))
    gen, other = rng.normal(0, 1, SIMULATED), rng.normal(0, 1, ALTERNATIVE)
    alternative = bu.Simulation(other, other + HIGHER + rng.normal(0, RESOLUTION, ALTERNATIVE))
    return {
        "simulation": bu.Simulation(gen, gen + rng.normal(0, RESOLUTION, SIMULATED)),
        "data": bu.Data(truth + alpha * HIGHER + rng.normal(0, RESOLUTION, len(truth))),
        "systematics": [bu.Systematic("model", alternative=alternative)] if said == "right" else [],
    }


def background_toy(rng: np.random.Generator, alpha: float, said: str) -> dict[str, Any]:  # noqa: ARG001
    """A background of known shape stands on a part of the signal."""
    truth = rng.normal(*TRUTH, rng.poisson(EXPECTED))
    other = rng.normal(1.2, 0.3, rng.poisson(BACKGROUND * (1 + SCALE * alpha)))
    gen = rng.normal(0, 1, SIMULATED)
    x = rng.normal(1.2, 0.3, 5 * BACKGROUND)
    return {
        "simulation": bu.Simulation(gen, gen + rng.normal(0, RESOLUTION, SIMULATED)),
        "data": bu.Data(np.concatenate([truth + rng.normal(0, RESOLUTION, len(truth)), other])),
        "backgrounds": [bu.Background(x, np.full(len(x), 0.2), "other", SCALE)],
        "systematics": [],
    }


TOYS = {"efficiency": efficiency_toy, "scale": scale_toy, "model": model_toy, "background": background_toy}


def score(seed: int, toy: str, method: str, said: str) -> dict[str, Any]:
    """What the bands hold, and how wide they are beside Poisson's."""
    rng = np.random.default_rng([seed, 23])
    alpha = float(rng.normal())
    made = TOYS[toy](rng, alpha, said)
    unfolder = (bu.OmniFold if method == "omnifold" else bu.UnbinnedFBU)(random_seed=seed, progressbar=False)
    result = unfolder.fit(made["simulation"], made["data"], made.get("backgrounds", ()), made["systematics"])
    spectrum = result.spectrum("gen", EDGES)
    truth = EXPECTED * np.diff(stats.norm(*TRUTH).cdf(EDGES))
    return {
        "seed": seed,
        "alpha": alpha,
        "seconds": sum(result.seconds.values()),
        "inside": held(spectrum, truth),
        "width": float((spectrum.std() / np.sqrt(truth))[truth >= LEAST].mean()),
        "joint": bool(spectrum.chi2(truth).p_value > 0.05),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("toy", choices=list(TOYS))
    parser.add_argument("--method", choices=("omnifold", "direct"), default="omnifold")
    parser.add_argument("--said", choices=("right", "wrong"), default="right")
    parser.add_argument("--toys", type=int, default=60)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    size = {"efficiency": EFFICIENCY, "scale": SCALE, "model": HIGHER, "background": SCALE}[args.toy]
    path = args.out / f"systematic-{args.toy}-{size}-{args.method}-{args.said}.jsonl"
    one = partial(score, toy=args.toy, method=args.method, said=args.said)
    found = run(one, args.toys, args.workers, path)
    inside = np.array([toy["inside"] for toy in found])  # toys, levels, bins
    shares = inside.mean(axis=2)
    error = shares.std(axis=0, ddof=1) / np.sqrt(len(found))
    numbers = {
        "toys": float(len(found)),
        "68 %": float(shares[:, 0].mean()),
        "68 % error": float(error[0]),
        "95 %": float(shares[:, 1].mean()),
        "95 % error": float(error[1]),
        "joint 95 %": float(np.mean([toy["joint"] for toy in found])),
        "width / Poisson": float(np.mean([toy["width"] for toy in found])),
        "seconds": float(np.mean([toy["seconds"] for toy in found])),
    }
    print("\n".join(f"{name}: {value:.4g}" for name, value in numbers.items()))
    if args.keep:
        said = {
            ("efficiency", "right"): "scale factors",
            ("efficiency", "wrong"): "weights of both levels",
            ("scale", "right"): "signal and background",
            ("scale", "wrong"): "signal alone",
            ("model", "right"): "another simulation",
            ("model", "wrong"): "nothing",
            ("background", "right"): "a yield",
        }[args.toy, args.said]
        cells = {
            "toys": f"{len(found)}",
            "68 %": f"{numbers['68 %']:.3f} ± {numbers['68 % error']:.3f}",
            "95 %": f"{numbers['95 %']:.3f} ± {numbers['95 % error']:.3f}",
            "joint 95 %": f"{numbers['joint 95 %']:.3f}",
            "width / Poisson": f"{numbers['width / Poisson']:.2f}",
        }
        print("kept:", keep("systematics", [args.toy, said, args.method], cells, numbers))


if __name__ == "__main__":
    main()
