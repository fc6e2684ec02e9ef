"""Coverage of the bands beside that of error bars that are often drawn: ``python scripts/studies usual-practice``.

The toy of the tutorial: 2000 data and 10 000 simulated events. Each pseudo-experiment has its own data, simulation and
seeds, and is unfolded with the defaults. Beside its band stand the square root of the unfolded content, which takes
unfolded events for counted ones, and the spread of ten trainings that differ in their seeds alone, which holds no
statistics of the data. Twenty minutes on one core; ``--keep`` makes the table and the figure of the documentation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from results import FOLDER, keep

import bayesunfold as bu

BINS = np.linspace(-5.0, 6.0, 23)
TRAININGS = 10
PRACTICES = {
    "band": "band of this library",
    "poisson": r"$\sqrt{\rm content}$",
    "seeds": f"spread of {TRAININGS} trainings",
}
COLORS = {"band": "#3f90da", "poisson": "#e76300", "seeds": "#832db6"}
SEED = 40_000


def one_toy(seed: int) -> dict[str, np.ndarray]:
    """Truth, and the lower and upper ends of each practice, bin by bin."""
    toy = bu.datasets.gaussian_toy(2000, 10_000, poisson=True, random_seed=SEED + seed)

    def unfolded(training: int) -> bu.Spectrum:
        unfolder = bu.OmniFold(random_seed=training, progressbar=False)
        return unfolder.fit(toy.simulation, toy.measurement).spectrum("gen", BINS)

    spectrum = unfolded(seed)
    centre = spectrum.nominal
    others = [unfolded(1000 * (seed + 1) + k).nominal for k in range(1, TRAININGS)]
    spread = np.std([centre, *others], axis=0, ddof=1)
    half = {"poisson": np.sqrt(np.maximum(centre, 0.0)), "seeds": spread}
    ends = {name: np.stack([centre - width, centre + width]) for name, width in half.items()}
    return {"truth": toy.expected(BINS), "centre": centre, "band": np.stack(spectrum.interval(0.68)), **ends}


def covered(toys: list[dict[str, np.ndarray]], practice: str) -> np.ndarray:
    """Whether each toy's interval holds the truth in each bin with at least 20 expected events."""
    core = toys[0]["truth"] >= 20
    ends = np.array([toy[practice] for toy in toys])[:, :, core]
    truth = toys[0]["truth"][core]
    return (ends[:, 0] <= truth) & (truth <= ends[:, 1])


def draw(toys: list[dict[str, np.ndarray]]) -> Figure:
    """One toy with its error bars, and the coverage of each practice in each bin."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    first, core = toys[0], toys[0]["truth"] >= 20
    centres = 0.5 * (BINS[1:] + BINS[:-1])[core]
    left.axhline(1.0, color="black", lw=1, label="truth")
    for k, (name, label) in enumerate(PRACTICES.items()):
        low, high = (end[core] / first["truth"][core] for end in first[name])
        left.vlines(centres + 0.13 * (k - 1), low, high, color=COLORS[name], lw=2.5, label=label)
        share = covered(toys, name).mean(axis=0)
        error = np.sqrt(np.maximum(share * (1 - share), 1 / len(toys)) / len(toys))
        right.errorbar(centres, share, error, fmt="o", ms=4, color=COLORS[name], label=label)
    left.set(xlabel="particle level", ylabel="unfolded / truth", title="one pseudo-experiment, 68 % intervals")
    right.axhline(0.683, color="black", lw=1, ls="--")
    right.set(xlabel="particle level", ylabel="holds the truth", ylim=(0, 1))
    right.set_title(f"how often, in {len(toys)} pseudo-experiments")
    left.legend(fontsize="small", frameon=False)
    return figure


def main() -> None:
    """Run what is missing, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toys", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the documentation")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    toys = []
    for seed in range(args.toys):
        path = args.out / f"usual-practice-{seed}.npz"
        if not path.exists():
            np.savez(path, **one_toy(seed))
        toys.append(dict(np.load(path)))
    for name, label in PRACTICES.items():
        share = covered(toys, name).mean(axis=1)
        mean, error = float(share.mean()), float(share.std(ddof=1) / np.sqrt(len(share)))
        print(f"{label}: {mean:.3f} +- {error:.3f} of 0.683 in {len(toys)} toys", flush=True)
        if args.keep:
            cells = {"toys": str(len(toys)), "68 % mean": f"{mean:.3f} ± {error:.3f}"}
            plain = label.replace(r"$\sqrt{\rm content}$", "square root of the content")
            keep("usual-practice", [plain], cells, {"0.68 mean": mean, "0.68 error": error})
    if args.keep:
        draw(toys).savefig(FOLDER.parents[1] / "figures" / "usual_practice.png", dpi=110)
