"""How many iterations: coverage, bias and width after each of them, and for each limit of ``iterations="auto"``.

``python scripts/studies iterations SMEAR [--toys 40] [--out DIR]``: the Gaussian toy with 2000 data and 10 000
simulated events, bins of the width of the resolution or more. Every toy is unfolded with twelve iterations and scored
after each; a limit then stops it where ``"auto"`` would have.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
from coverage_rows import TOY_BINS, make_toy
from results import FOLDER, keep

import bayesunfold as bu
from bayesunfold._support.streams import training_stream
from bayesunfold._support.threads import block_threads
from bayesunfold.omnifold.convergence import MAX_AUTO_ITERATIONS, look
from bayesunfold.omnifold.iteration import train
from bayesunfold.omnifold.loop import iterations, start_perturbations
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.standardized import standardize

LIMITS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
DRAWS = 300


def score(members: Members, index: np.ndarray, bins: int) -> np.ndarray:
    """Point estimate, standard deviation and quantiles in the inner bins."""
    member = np.zeros((bins, DRAWS))
    for rows, block in members.blocks():
        np.add.at(member, index[rows], block)
    nominal = np.zeros(bins)
    np.add.at(nominal, index, members.nominal())
    draws = member - member.mean(axis=1, keepdims=True) + nominal[:, None]
    quantiles = np.quantile(draws, [0.025, 0.16, 0.84, 0.975], axis=1)
    return np.vstack([nominal, draws.std(axis=1), quantiles])[:, 1:-1]


def one_toy(seed: int, smear: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra (iteration, quantity, bin), changes (iteration), expected truth (bin)."""
    toy = make_toy(seed, {"n_data": 2000, "n_simulation": 10_000, "smear": smear})
    settings = bu.OmniFold(MAX_AUTO_ITERATIONS, inference="laplace", draws=DRAWS).settings
    events = standardize(toy.simulation, toy.measurement)
    index = np.digitize(toy.gen[:, 0], TOY_BINS)
    spectra, changes = [], []
    with block_threads():
        perturbations = start_perturbations(events, toy.simulation, [], settings, seed)
        states = iterations(events, settings, perturbations, seed, lambda k: train(training_stream(seed, k)))
        for state in islice(states, MAX_AUTO_ITERATIONS):
            changes.append(look(events, state)["change"])
            spectra.append(score(state.members(events), index, len(TOY_BINS) + 1))
    return np.array(spectra), np.array(changes), toy.expected(TOY_BINS)


def row(stops: np.ndarray, spectra: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Numbers of one line of the table: spectra (toy, iteration, quantity, bin), stops (toy,) counted from 1."""
    core = truth >= 20
    chosen = spectra[np.arange(len(spectra)), stops - 1][:, :, core]
    truth = truth[core]
    nominal, std = chosen[:, 0], chosen[:, 1]
    spread = nominal.std(axis=0, ddof=1)
    narrow = ((chosen[:, 3] <= truth) & (truth <= chosen[:, 4])).mean(axis=1)
    wide = ((chosen[:, 2] <= truth) & (truth <= chosen[:, 5])).mean(axis=1)
    return {
        "iterations": float(stops.mean()),
        "0.68 mean": float(narrow.mean()),
        "0.68 error": float(narrow.std(ddof=1) / np.sqrt(len(narrow))),
        "0.95 mean": float(wide.mean()),
        "width / spread": float((std.mean(axis=0) / spread).mean()),
        "rms bias / spread": float(np.sqrt(np.mean(((nominal.mean(axis=0) - truth) / spread) ** 2))),
        "spread / sqrt(n)": float((spread / np.sqrt(truth)).mean()),
    }


def report(label: str, smear: float, found: dict[str, float], *, kept: bool) -> None:
    """Print a line, and keep it for the table of the documentation."""
    print(f"{label:>14} " + " ".join(f"{value:14.3f}" for value in found.values()))
    if kept:
        columns = json.loads((FOLDER / "iterations.json").read_text())["columns"]
        place = columns.index(f"iterations, smear {smear:g}")  # the cells of each smearing follow it
        cells = [
            f"{found['iterations']:.1f}",
            f"{found['0.68 mean']:.3f} ± {found['0.68 error']:.3f}",
            f"{found['0.95 mean']:.3f}",
            f"{found['width / spread']:.2f}",
            f"{found['rms bias / spread']:.2f}",
        ]
        keep("iterations", [label], {place + k: cell for k, cell in enumerate(cells)}, {f"smear {smear:g}": found})


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smear", type=float)
    parser.add_argument("--toys", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for seed in range(args.toys):
        path = args.out / f"iterations-{args.smear:g}-{seed}.npz"
        if not path.exists():
            spectra, changes, truth = one_toy(seed, args.smear)
            np.savez(path, spectra=spectra, changes=changes, truth=truth)
        with np.load(path) as file:
            kept.append((file["spectra"], file["changes"], file["truth"]))
    spectra, changes = (np.array([toy[i] for toy in kept]) for i in (0, 1))
    truth = kept[0][2]
    print(f"smear {args.smear:g}, {args.toys} toys")
    print(f"{'stop':>14} iterations, 68 %, its error, 95 %, width / spread, rms bias / spread, spread / sqrt(n)")
    for limit in LIMITS:
        below = changes < limit
        below[:, 0] = False
        stops = np.where(below.any(axis=1), below.argmax(axis=1) + 1, MAX_AUTO_ITERATIONS)
        report(f"limit {limit:g}", args.smear, row(stops, spectra, truth), kept=args.keep)
    for k in (1, 2, 3, 4, 6, 8, 12):
        label = f"{k} iteration" + ("s" if k > 1 else "")
        report(label, args.smear, row(np.full(len(spectra), k), spectra, truth), kept=args.keep)
