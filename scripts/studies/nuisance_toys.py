"""Toys whose detector has an unknown resolution, or an unknown background.

``python scripts/studies nuisance-toys TOY [--toys 60] [--events 20000] [--out DIR]``, TOY one of

* ``two-readings``: X ~ N(0.8, 1) in data and N(0, 1) in the simulation, readings X + N(0, 1) and X + N(0, theta), theta
  1.5 in data and 1 in the simulation (arXiv:2409.10421, section 3),
* ``one-reading``: t ~ N(0.2, 1) in data and N(0, 1) in the simulation, r = t + N(0, eps), eps 1.2 in data and 1 in the
  simulation: theta = (eps - 1) / 0.8 is not identifiable (arXiv:2302.05390, section 4),
* ``second-reading``: the same with mean 0.8 and another reading t + N(0, 1),
* ``background``: the toy with misses and fakes, and a narrow background whose normalisation, known to 30 %, is 20 % too
  small.
* ``shower``: jet mass and multiplicity of the packaged Z+jets simulation, whose shower-scale weights are profiled;
  data are drawn with the weights at plus one; ``shower-left-out``: the same without the parameter.

Truth is exact; every toy has fresh data and a fresh simulation.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from acceptance_coverage import EDGES, EXPECTED, TRUTH, make_toy
from results import keep
from scipy import stats

import bayesunfold as bu

BACKGROUND = 600

LEAST = 20
"""Expected events of a bin that counts."""


def resolution_toy(
    rng: np.random.Generator, n: int, mean: float, sizes: tuple[float, float], nominal: float, unit: float, second: bool
) -> tuple[bu.Simulation, bu.Data, list[bu.Systematic]]:
    """Gaussian particle level of width one; the last reading's resolution is ``nominal + unit alpha``."""
    gen, truth = rng.normal(0.0, 1.0, n), rng.normal(mean, 1.0, n)
    readings = [np.c_[x + rng.normal(0.0, 1.0, n), x][:, 0 if second else 1 :] for x in (gen, truth)]
    noise = rng.normal(size=(2, n))
    last = np.zeros(readings[0].shape[1])
    last[-1] = 1.0
    reco, up, down = (readings[0] + noise[0][:, None] * last * (nominal + unit * a) for a in (0.0, 1.0, -1.0))
    data = readings[1] + noise[1][:, None] * last * sizes[1]
    systematic = bu.Systematic("resolution", reco_up=up, reco_down=down, profile=True)
    return bu.Simulation(gen, reco), bu.Data(data), [systematic]


TOYS = {
    "two-readings": ({"mean": 0.8, "sizes": (1.0, 1.5), "nominal": 1.0, "unit": 0.5, "second": True}, 1.5),
    "one-reading": ({"mean": 0.2, "sizes": (1.0, 1.2), "nominal": 1.0, "unit": 0.8, "second": False}, 1.2),
    "second-reading": ({"mean": 0.8, "sizes": (1.0, 1.2), "nominal": 1.0, "unit": 0.8, "second": True}, 1.2),
}


def score_resolution(seed: int, toy: str, events: int) -> dict[str, Any]:
    """Resolution, mean and width with their posteriors."""
    settings, true = TOYS[toy]
    simulation, data, systematics = resolution_toy(np.random.default_rng([seed, 17]), events, **settings)
    unfolder = bu.UnbinnedFBU(random_seed=seed, progressbar=False)
    result = unfolder.fit(simulation, data, systematics=systematics)
    draws = settings["nominal"] + settings["unit"] * result.measurement.nuisances.draws()[0]
    weights, gen = result.weights.values.astype(np.float64), simulation.gen[:, 0]
    weights /= weights.sum(axis=1, keepdims=True)
    mean = weights @ gen
    width = np.sqrt(weights @ gen**2 - mean**2)
    out: dict[str, Any] = {"seed": seed, "seconds": sum(result.seconds.values())}
    for name, values, truth in (("resolution", draws, true), ("mean", mean, settings["mean"]), ("sigma", width, 1.0)):
        low, high = np.quantile(np.asarray(values), [0.16, 0.84])
        out[name] = [float(np.mean(values)), float(np.std(values)), float(low), float(high), truth]
    return out


def held(spectrum: bu.Spectrum, truth: np.ndarray) -> list[list[bool]]:
    """Which bins with enough events the 68 and 95 % bands hold."""
    core = truth >= LEAST
    return [[bool(b) for b in ((lo <= truth) & (truth <= hi))[core]] for lo, hi in map(spectrum.interval, (0.68, 0.95))]


def score_background(seed: int) -> dict[str, Any]:
    """Normalisation of the background, and what the bands of the unfolded spectrum hold."""
    simulation, data = make_toy(seed)
    rng = np.random.default_rng([seed, 18])
    there = rng.normal(1.0, 0.15, rng.poisson(1.2 * BACKGROUND))
    background = bu.Background(
        rng.normal(1.0, 0.15, 10 * BACKGROUND), np.full(10 * BACKGROUND, 0.1), "peak", 0.3, profile=True
    )
    measured = bu.Data(np.concatenate([data.features[:, 0], there]))
    unfolder = bu.UnbinnedFBU(random_seed=seed, progressbar=False)
    result = unfolder.fit(simulation, measured, [background])
    draws = 1.3 ** result.measurement.nuisances.draws()[0]
    low, high = np.quantile(draws, [0.16, 0.84])
    spectrum = result.spectrum("gen", EDGES)
    truth = EXPECTED * np.diff(stats.norm(*TRUTH).cdf(EDGES))
    return {
        "seed": seed,
        "seconds": sum(result.seconds.values()),
        "background": [float(draws.mean()), float(draws.std()), float(low), float(high), 1.2],
        "inside": held(spectrum, truth),
    }


SHOWER_BINS = {"m": np.arange(0, 64, 4.0), "mult": np.arange(0, 80, 5.0)}
SHOWER_DATA, SHOWER_SIMULATED = 10_000, 20_000


def score_shower(seed: int, *, left_out: bool = False) -> dict[str, Any]:
    """The nuisance parameter of the shower scale, and what the bands of both observables hold."""
    z = bu.datasets.zjets(tuple(SHOWER_BINS))
    population, up, down = z.simulation, z.sim["w_fsr_up"], z.sim["w_fsr_dn"]
    rng = np.random.default_rng([seed, 19])
    make = bu.studies.ResampledToys(population, SHOWER_DATA, up / population.weight)
    rows = rng.choice(len(population), SHOWER_SIMULATED)
    simulation = bu.studies.resampled.select(population, rows)
    fsr = bu.Systematic("shower", weight_up=up[rows], weight_down=down[rows], profile=True)
    unfolder = bu.UnbinnedFBU(random_seed=seed, progressbar=False)
    result = unfolder.fit(simulation, make(seed).measurement, systematics=[] if left_out else [fsr])
    inside: list[list[bool]] = [[], []]
    for name, expected in make.expected(SHOWER_BINS).items():
        for of_level, more in zip(inside, held(result.spectrum(name, SHOWER_BINS[name]), expected), strict=True):
            of_level += more
    out = {"seed": seed, "seconds": sum(result.seconds.values()), "inside": inside}
    if not left_out:
        draws = result.measurement.nuisances.draws()[0]
        low, high = np.quantile(draws, [0.16, 0.84])
        out["shower"] = [float(draws.mean()), float(draws.std()), float(low), float(high), 1.0]
    return out


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("toy", choices=[*TOYS, "background", "shower", "shower-left-out"])
    parser.add_argument("--toys", type=int, default=60)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    score: Callable[[int], dict[str, Any]] = score_background
    label = args.toy
    if args.toy.startswith("shower"):
        score, label = partial(score_shower, left_out=args.toy != "shower"), label.replace("-left-out", ", left out")
    if args.toy in TOYS:
        score = partial(score_resolution, toy=args.toy, events=args.events)
        label = f"{args.toy}, {args.events} events"
    path = args.out / f"nuisance-{label.replace(', ', '-').replace(' ', '-')}.jsonl"
    found = run(score, args.toys, args.workers, path)
    numbers = summary(found)
    print("\n".join(f"{name}: {value:.4g}" for name, value in numbers.items()))
    if args.keep:
        print("kept:", keep("nuisances", [label], cells(numbers), numbers))


def run(score: Callable[[int], dict[str, Any]], toys: int, workers: int | None, path: Path) -> list[dict[str, Any]]:
    """Toys that the file lacks, added to it one by one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    missing = sorted(set(range(toys)) - {toy["seed"] for toy in done})
    with ProcessPoolExecutor(workers) as pool, path.open("a") as file, warnings.catch_warnings():
        for one in pool.map(score, missing):
            file.write(json.dumps(one) + "\n")
            file.flush()
            done.append(one)
    return [toy for toy in done if toy["seed"] < toys]


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    """Mean, quoted and true error, pulls and coverage of every parameter."""
    out: dict[str, float] = {"toys": len(found), "seconds": float(np.mean([toy["seconds"] for toy in found]))}
    for name in ("resolution", "mean", "sigma", "background", "shower"):
        if name not in found[0]:
            continue
        value, std, low, high, truth = np.array([toy[name] for toy in found]).T
        out |= {f"{name} average": value.mean(), f"{name} average error": value.std(ddof=1) / np.sqrt(len(value))}
        out |= {f"{name} std": std.mean(), f"{name} spread": value.std(ddof=1)}
        out[f"{name} rms pull"] = float(np.sqrt(np.mean(((value - truth) / std) ** 2)))
        out[f"{name} 68 %"] = float(np.mean((low <= truth) & (truth <= high)))
    if "inside" in found[0]:
        inside = np.array([toy["inside"] for toy in found])
        for k, level in enumerate((68, 95)):
            shares = inside[:, k].reshape(len(found), -1).mean(axis=1)
            out |= {
                f"bins {level} %": shares.mean(),
                f"bins {level} % error": shares.std(ddof=1) / np.sqrt(len(shares)),
            }
    return {name: float(value) for name, value in out.items()}


def cells(numbers: dict[str, float]) -> dict[str, str]:
    """Of a row of the table."""
    main = next((name for name in ("resolution", "background", "shower") if f"{name} std" in numbers), "")
    out = {"toys": f"{numbers['toys']:.0f}"}
    if main:
        out |= {
            "parameter": f"{numbers[f'{main} average']:.4f} ± {numbers[f'{main} average error']:.4f}",
            "its posterior width": f"{numbers[f'{main} std']:.4f}",
            "its spread": f"{numbers[f'{main} spread']:.4f}",
            "rms pull": f"{numbers[f'{main} rms pull']:.2f}",
            "in its 68 % interval": f"{numbers[f'{main} 68 %']:.2f}",
        }
    if main == "resolution":
        for name in ("mean", "sigma"):
            out[name] = f"{numbers[f'{name} average']:.4f} ± {numbers[f'{name} average error']:.4f}"
            out[f"{name} in its 68 % interval"] = f"{numbers[f'{name} 68 %']:.2f}"
    if "bins 68 %" in numbers:
        out["bins in 68 / 95 %"] = " / ".join(
            f"{numbers[f'bins {level} %']:.3f} ± {numbers[f'bins {level} % error']:.3f}" for level in (68, 95)
        )
    return out


if __name__ == "__main__":
    main()
