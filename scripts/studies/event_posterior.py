"""The event posterior against what is known: a Gaussian toy in closed form, and held-out Z+jets events.

``python scripts/studies event-posterior toy [--toys 20]``. Simulation N(0, 1), data N(0.2, 0.8), smearing 0.5: with the
true weights ``p(t | r)`` is Gaussian with slope 0.7191 and width 0.4240, where the simulation's own has 0.8 and 0.4472.

``python scripts/studies event-posterior zjets``. The map is trained on two thirds of the simulation. The others carry
the unfolded weights of the second sample: how often do intervals of their draws hold them, and does a classifier tell
them from their draws?

``python scripts/studies event-posterior pooled``. Draws of all data together beside the unfolded spectrum, on both.
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
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from zjets_toys import nature_factor

import bayesunfold as bu

EVENTS, TESTED, DRAWS = 100_000, 20_000, 199
SLOPE, WIDTH = 0.64 / 0.89, np.sqrt(0.64 * 0.25 / 0.89)


def true_weight(gen: np.ndarray) -> np.ndarray:
    """Density of N(0.2, 0.8) over that of N(0, 1), up to a factor."""
    return np.exp(0.5 * gen[:, 0] ** 2 - 0.5 * ((gen[:, 0] - 0.2) / 0.8) ** 2)


def score(seed: int) -> dict[str, Any]:
    """Slope and width of the draws, and the p-value of the truth's ranks among them."""
    rng = np.random.default_rng(seed)
    gen, truth = rng.normal(0.0, 1.0, EVENTS), rng.normal(0.2, 0.8, TESTED)
    reco, measured = gen + rng.normal(0.0, 0.5, EVENTS), truth + rng.normal(0.0, 0.5, TESTED)
    start = time.perf_counter()
    posterior = bu.EventPosterior(random_seed=seed, progressbar=False).fit(bu.Simulation(gen, reco))
    trained = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bu.errors.OverlapWarning)
        draws = posterior.sample(measured, DRAWS, true_weight).values[:, :, 0]
    rank = (draws < truth).sum(axis=0)
    counts = np.bincount(rank // 10, minlength=20)  # ranks 0 to 199 in twenty bins
    return {
        "seed": seed,
        "slope": float(np.polyfit(measured, draws.mean(axis=0), 1)[0]),
        "width": float(np.sqrt(draws.var(axis=0, ddof=1).mean())),
        "p-value": float(stats.chisquare(counts).pvalue),
        "seconds": trained,
    }


def toy(args: argparse.Namespace) -> None:
    """All seeds."""
    found = run(score, args.toys, args.workers, args.out / "event-posterior-toy.jsonl")
    slope, width, p, seconds = (np.array([t[k] for t in found]) for k in ("slope", "width", "p-value", "seconds"))
    numbers = {
        "toys": len(found),
        "slope": float(slope.mean()),
        "slope largest deviation": float(np.abs(slope - SLOPE).max()),
        "width": float(width.mean()),
        "width largest deviation": float(np.abs(width / WIDTH - 1).max()),
        "least p-value": float(p.min()),
        "KS of the p-values": float(stats.kstest(p, "uniform").pvalue),
        "seconds": float(seconds.mean()),
    }
    print("\n".join(f"{name}: {value:.4g}" for name, value in numbers.items()))
    if args.keep:
        cells = {
            "what": "slope of p(t given r)",
            "expected": f"{SLOPE:.4f}",
            "found": f"{slope.mean():.4f} ± {slope.std(ddof=1):.4f} per seed",
            "note": f"{len(found)} seeds, farthest {numbers['slope largest deviation']:.4f} away",
        }
        keep("events", ["toy: slope"], cells, numbers)
        cells = {
            "what": "width",
            "expected": f"{WIDTH:.4f}",
            "found": f"{width.mean():.4f} ± {width.std(ddof=1):.4f} per seed",
            "note": f"farthest {100 * numbers['width largest deviation']:.1f} % away",
        }
        keep("events", ["toy: width"], cells, numbers)
        cells = {
            "what": "p-value of flat ranks",
            "expected": "uniform",
            "found": f"least {p.min():.1g}, {np.mean(p > 0.01):.0%} above 0.01",
            "note": f"KS of all: {numbers['KS of the p-values']:.2f}",
        }
        keep("events", ["toy: ranks"], cells, numbers)


def zjets(args: argparse.Namespace) -> None:
    """Coverage and a second classifier on held-out events."""
    z = bu.datasets.zjets()
    rng = np.random.default_rng(args.seed)
    result = bu.UnbinnedFBU(random_seed=args.seed, progressbar=False).fit(z.simulation, z.data)
    sim = result.simulation
    rows = rng.permutation(np.flatnonzero(sim.both))
    held, used = rows[: len(rows) // 3], rows[len(rows) // 3 :]
    part = bu.Simulation(
        sim.gen[used],
        sim.reco[used],
        sim.weight[used],
        undefined=sim.undefined,
        names=sim.gen_names,
        reco_names=sim.reco_names,
    )
    start = time.perf_counter()
    posterior = bu.EventPosterior(random_seed=args.seed, progressbar=False).fit(part)
    print(f"training on {len(part)} events: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    result.event_posterior(z.data.features[:10_000], 100, posterior=posterior)
    print(f"100 draws for 10 000 events: {time.perf_counter() - start:.1f} s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bu.errors.OverlapWarning)
        draws = result.event_posterior(sim.reco[held], DRAWS, posterior=posterior).values
    truth, weight = sim.gen[held], result.nominal[held] / result.nominal[held].sum()
    ties = rng.random(truth.shape) * ((draws == truth).sum(axis=0) + 1)
    place = ((draws < truth).sum(axis=0) + ties) / (DRAWS + 1)
    error = float(np.sqrt((weight**2).sum() * 0.68 * 0.32))
    for j, name in enumerate(z.features):
        inside = [float(weight @ (np.abs(place[:, j] - 0.5) < level / 2)) for level in (0.68, 0.95)]
        print(f"{name}: {inside[0]:.3f} / {inside[1]:.3f} (error {error:.3f})")
        if args.keep:
            cells = {"what": "in 68 / 95 %", "expected": "0.68 / 0.95", "found": f"{inside[0]:.3f} / {inside[1]:.3f}"}
            cells["note"] = f"{len(held)} held-out events, error {error:.3f}"
            keep("events", [f"Z+jets: {name}"], cells, {"68": inside[0], "95": inside[1]})
    _classify(args, sim, held, posterior, rng)


def pooled(args: argparse.Namespace) -> None:
    """Draws of all data together against the unfolded spectrum.

    On the toy, on Z+jets, whose data have another response than the simulation, and on a Z+jets toy with the same.
    """
    rng = np.random.default_rng(args.seed)
    gen, truth = rng.normal(0.0, 1.0, EVENTS), rng.normal(0.2, 0.8, EVENTS)
    reco, measured = gen + rng.normal(0.0, 0.5, EVENTS), truth + rng.normal(0.0, 0.5, EVENTS)
    z = bu.datasets.zjets()
    drawn = bu.studies.ResampledToys(z.simulation, float(len(z.data)), nature_factor(z))(args.seed)
    problems = {
        "toy": (bu.Simulation(gen, reco), measured),
        "Z+jets": (z.simulation, z.data),
        "Z+jets toy": (drawn.simulation, drawn.measurement),
    }
    for name, (simulation, data) in problems.items():
        result = bu.UnbinnedFBU(random_seed=args.seed, progressbar=False).fit(simulation, data)
        found = bu.studies.event_closure(result, draws=50)
        for feature, rows in found[found["unfolded"] > 20].groupby("feature", sort=False):
            difference = rows["difference"].to_numpy()
            rms, most = float(np.sqrt(np.mean(difference**2))), float(np.abs(difference).max())
            print(f"{name} {feature}: rms {rms:.2f}, largest {most:.2f} of the band in {len(rows)} bins")
            if args.keep:
                cells = {"what": "pooled draws minus unfolded, in bands", "expected": "0"}
                cells |= {"found": f"rms {rms:.2f}, largest {most:.2f}", "note": f"{len(rows)} quantile bins"}
                keep("events", [f"{name}, pooled: {feature}"], cells, {"rms": rms, "largest": most})


def _classify(
    args: argparse.Namespace,
    sim: bu.Simulation,
    held: np.ndarray,
    posterior: bu.EventPosterior,
    rng: np.random.Generator,
) -> None:
    """Boosted trees of (t, r) against (draw, r), and of (t, r) against itself."""
    gen, reco = sim.gen[held], sim.reco[held]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bu.errors.OverlapWarning)
        draws = posterior.sample(reco, 2).values
    found = {
        "truth against draws": _auc(gen, draws[0], reco, rng),
        "draws against draws": _auc(draws[1], draws[0], reco, rng),
    }
    for name, (auc, error) in found.items():
        print(f"{name}: AUC {auc:.4f} +- {error:.4f}")
        if args.keep:
            cells = {"what": "AUC of a second classifier", "expected": "0.5", "found": f"{auc:.3f} ± {error:.3f}"}
            cells["note"] = "boosted trees see t, r and t - r"
            keep("events", [f"Z+jets: {name}"], cells, {"auc": auc, "error": error})


def _auc(ones: np.ndarray, zeros: np.ndarray, reco: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """On the half of the events that the classifier was not trained on, and its standard error for equal samples."""
    x = np.concatenate([np.column_stack([t, reco, t - reco]) for t in (ones, zeros)])
    label = np.repeat([1, 0], len(ones))
    trained = np.tile(rng.random(len(ones)) < 0.5, 2)
    trees = HistGradientBoostingClassifier(learning_rate=0.05, max_iter=200, early_stopping=True, random_state=1)
    trees.fit(x[trained], label[trained])
    n = int((~trained).sum()) / 2
    return float(roc_auc_score(label[~trained], trees.predict_proba(x[~trained])[:, 1])), float(np.sqrt(1 / (6 * n)))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("toy", "zjets", "pooled"))
    parser.add_argument("--toys", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    {"toy": toy, "zjets": zjets, "pooled": pooled}[args.what](args)


if __name__ == "__main__":
    main()
