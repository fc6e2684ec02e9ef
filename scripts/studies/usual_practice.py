"""Coverage of the bands beside that of error bars that are often drawn: ``python scripts/studies usual-practice``.

Two detectors for the Gaussian toy of 2000 data and 10 000 simulated events: a fine one (smearing 0.2, bins of 0.5, as
in the tutorial) and a coarse one (smearing and bins of 1). Each pseudo-experiment has its own data, simulation and
seeds, and is unfolded with the defaults. Beside its band stand the square root of the unfolded content, which takes
unfolded events for counted ones, and the spread of ten trainings that differ in their seeds alone, which holds no
statistics of the data. Twenty minutes on one core per detector; ``--keep`` makes the table and the figure of the
documentation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from results import FOLDER, keep

import bayesunfold as bu

PROBLEMS = {"fine": (0.2, np.linspace(-5.0, 6.0, 23)), "coarse": (1.0, np.linspace(-5.0, 6.0, 12))}
"""Smearing and bins of each detector."""

TRAININGS = 10
PRACTICES = {
    "band": "band of this library",
    "poisson": r"$\sqrt{\rm content}$",
    "seeds": f"spread of {TRAININGS} trainings",
}
COLORS = {"band": "#3f90da", "poisson": "#e76300", "seeds": "#832db6"}
SEED = 40_000
LEAST = 20
"""Expected events of the bins that count."""


def one_toy(detector: str, seed: int) -> dict[str, np.ndarray]:
    """Truth, and the lower and upper ends of each practice, bin by bin."""
    smear, bins = PROBLEMS[detector]
    toy = bu.datasets.gaussian_toy(2000, 10_000, smear=smear, poisson=True, random_seed=SEED + seed)

    def unfolded(training: int) -> bu.Spectrum:
        unfolder = bu.OmniFold(random_seed=training, progressbar=False)
        return unfolder.fit(toy.simulation, toy.measurement).spectrum("gen", bins)

    spectrum = unfolded(seed)
    centre = spectrum.nominal
    others = [unfolded(1000 * (seed + 1) + k).nominal for k in range(1, TRAININGS)]
    spread = np.std([centre, *others], axis=0, ddof=1)
    half = {"poisson": np.sqrt(np.maximum(centre, 0.0)), "seeds": spread}
    ends = {name: np.stack([centre - width, centre + width]) for name, width in half.items()}
    return {"truth": toy.expected(bins), "band": np.stack(spectrum.interval(0.68)), **ends}


def covered(toys: list[dict[str, np.ndarray]], practice: str) -> np.ndarray:
    """Whether each toy's interval holds the truth in each bin with at least 20 expected events."""
    core = toys[0]["truth"] >= LEAST
    ends = np.array([toy[practice] for toy in toys])[:, :, core]
    truth = toys[0]["truth"][core]
    return (ends[:, 0] <= truth) & (truth <= ends[:, 1])


def draw(found: dict[str, list[dict[str, np.ndarray]]]) -> Figure:
    """How often each practice holds the truth in each bin, one panel per detector."""
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, sharey=True)
    for ax, (detector, toys) in zip(panels, found.items(), strict=True):
        smear, bins = PROBLEMS[detector]
        core = toys[0]["truth"] >= LEAST
        centres = 0.5 * (bins[1:] + bins[:-1])[core]
        for name, label in PRACTICES.items():
            share = covered(toys, name).mean(axis=0)
            error = np.sqrt(np.maximum(share * (1 - share), 1 / len(toys)) / len(toys))
            ax.errorbar(centres, share, error, fmt="o", ms=4, color=COLORS[name], label=label)
        ax.axhline(0.68, color="black", lw=1, ls="--")
        ax.set(ylabel="68 % interval holds the truth", ylim=(0, 1.02))
        ax.set_title(f"{detector} detector: smearing {smear:g}")
    panels[-1].set_xlabel("particle level")
    panels[-1].legend(fontsize="small", loc="center", bbox_to_anchor=(0.5, 0.36))
    return figure


def main() -> None:
    """Run what is missing, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="*", default=list(PROBLEMS), help="fine, coarse; both by default")
    parser.add_argument("--toys", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the documentation")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for detector in args.detectors:
        toys = found[detector] = []
        for seed in range(args.toys):
            path = args.out / f"usual-practice-{detector}-{seed}.npz"
            if not path.exists():
                np.savez(path, **one_toy(detector, seed))
            toys.append(dict(np.load(path)))
        for name, label in PRACTICES.items():
            share = covered(toys, name).mean(axis=1)
            mean, error = float(share.mean()), float(share.std(ddof=1) / np.sqrt(len(share)))
            print(f"{detector}, {label}: {mean:.3f} +- {error:.3f} in {len(toys)} toys", flush=True)
            if args.keep:
                plain = label.replace(r"$\sqrt{\rm content}$", "square root of the content")
                cells = {f"{detector} detector": f"{mean:.3f} ± {error:.3f}", "toys": str(len(toys))}
                keep("usual-practice", [plain], cells, {detector: {"0.68 mean": mean, "0.68 error": error}})
    if args.keep:
        draw(found).savefig(FOLDER.parents[1] / "figures" / "usual_practice.png", dpi=110)
