"""Rows of the coverage table in docs/studies/coverage.md.

``python scripts/studies coverage-rows ROW [--toys N] [--method direct] [--inference advi] [--additive 12] [--out DIR]``
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results import coverage_cells, keep, keep_direct

import bayesunfold as bu

TOY_BINS = np.linspace(-9, 11, 21)

ROWS = {
    "1": ({"n_data": 1000, "n_simulation": 1000, "smear": 0.2}, TOY_BINS, 200),
    "2": ({"n_data": 1000, "n_simulation": 10_000, "smear": 0.2}, TOY_BINS, 200),
    "3": ({"n_data": 10_000, "n_simulation": 100_000, "smear": 1.5}, TOY_BINS, 60),
    "4": (
        {"n_data": 2000, "n_simulation": 10_000, "smear": 0.5, "shift": 0.0, "gen": (0.0, 1.0), "truth": (0.3, 0.9)},
        np.linspace(-2.4, 2.4, 13),
        200,
    ),
    "5": (
        {
            "n_data": 4000,
            "n_simulation": 20_000,
            "smear": (0.5, 0.4, 0.6),
            "shift": 0.0,
            "gen": (0.0, 1.0),
            "truth": (0.2, 0.9),
            "dimension": 3,
            "correlation": 0.5,
        },
        np.linspace(-2.2, 2.2, 12),
        60,
    ),
}


def make_toy(seed: int, settings: dict) -> bu.datasets.GaussianToy:
    """One pseudo-experiment with a Poisson data yield."""
    return bu.datasets.gaussian_toy(**settings, poisson=True, random_seed=10_000 + seed)


def unfold_binned(
    method: Any, simulation: bu.Simulation, data: np.ndarray, edges: np.ndarray, shift: float = 0.0
) -> bu.Spectrum:
    """The bins of a binned unfolding with one wide bin on either side; ``shift`` is that of the detector."""
    wide = np.concatenate([[-40.0], edges, [40.0]])
    response = bu.ResponseMatrix.from_events(simulation, wide, wide + shift)
    s = method.fit(response, np.histogram(data, wide + shift)[0])
    inside = slice(1, -1)
    return bu.Spectrum(
        (edges,), s.draw_matrix[:, inside], s.nominal[inside], exact_covariance=s.covariance()[inside, inside]
    )


def unfold(toy: bu.datasets.GaussianToy, seed: int, settings: dict) -> bu.UnfoldingResult:
    """Default settings, but for what the command line changes."""
    return bu.OmniFold(random_seed=seed, progressbar=False, **settings).fit(toy.simulation, toy.measurement)


def unfold_directly(toy: bu.datasets.GaussianToy, seed: int, settings: dict) -> bu.UnfoldingResult:
    """The direct posterior with default settings, but for what the command line changes."""
    return bu.UnbinnedFBU(random_seed=seed, progressbar=False, **settings).fit(toy.simulation, toy.measurement)


def main() -> None:
    """Run one row and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--toys", type=int)
    parser.add_argument("--method", choices=("omnifold", "direct"), default="omnifold")
    parser.add_argument("--inference", default="advi", help="of the loop")
    parser.add_argument("--iterations", default="auto", type=lambda s: s if s == "auto" else int(s))
    parser.add_argument("--scales", help="prior scales, for example 3,2,10")
    parser.add_argument("--hidden", help="hidden units, for example 16,16")
    parser.add_argument("--activation", default="tanh")
    parser.add_argument("--additive", type=int, default=0, help="intervals of the additive part of the loop's networks")
    parser.add_argument("--generator-prior", type=float, default=0.0)
    parser.add_argument("--event-groups", type=int, help="events fluctuate in so many groups, 0: one by one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    toy, edges, toys = ROWS[args.row]
    network = {"activation": args.activation, "additive": args.additive}
    if args.scales:
        network["prior_scale"] = [float(s) for s in args.scales.split(",")]
    if args.hidden:
        network["hidden"] = [int(s) for s in args.hidden.split(",")]
    settings = {"inference": args.inference, "iterations": args.iterations, "network": bu.Network(**network)}
    grouped = {} if args.event_groups is None else {"event_groups": args.event_groups or None}
    settings |= grouped
    if args.generator_prior:
        settings["generator_prior"] = args.generator_prior
    first = make_toy(0, toy)
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"row{args.row}-{args.inference if args.method == 'omnifold' else 'direct'}" + (
        f"-prior{args.generator_prior:g}" if args.generator_prior else ""
    )
    if args.additive:
        name += f"-additive{args.additive}"
    if args.event_groups is not None:
        name += f"-groups{args.event_groups}"
    names = first.simulation.gen_names
    study = bu.coverage_study(
        partial(make_toy, settings=toy),
        unfold=partial(unfold, settings=settings)
        if args.method == "omnifold"
        else partial(unfold_directly, settings=grouped),
        bins=dict.fromkeys(names, edges),
        expected={name: first.expected(edges, i) for i, name in enumerate(names)},
        toys=args.toys or toys,
        random_seed=args.seed,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"{name}.jsonl",
    )
    print(f"row {args.row} {vars(args)}")
    print(study.table(), flush=True)
    if "iterations" in study.extra:
        print(
            "iterations",
            dict(zip(*map(np.ndarray.tolist, np.unique(study.extra["iterations"], return_counts=True)), strict=True)),
        )
    study.save(args.out / f"{name}.npz")
    if args.keep and args.event_groups is not None:
        method = "loop" if args.method == "omnifold" else "direct posterior"
        label = [f"row {args.row}, {method}", f"{args.event_groups or 'one by one'}"]
        width = float((study.std.mean(axis=0) / np.sqrt(study.expected))[study.core].mean())
        cells = coverage_cells(study.summary()) | {"width / Poisson": f"{width:.3f}"}
        print("kept:", keep("scale-coverage", label, cells, study.summary() | {"width / Poisson": width}))
    elif args.keep and args.method == "direct":
        print("kept:", keep_direct(args.row, study))
    elif args.keep and args.additive:
        print("kept:", keep("rows-additive", [args.row], coverage_cells(study.summary()), study.summary()))
    elif args.keep:
        label = args.row + {"advi": "", "nuts": "n", "laplace": "l"}[args.inference]
        print("kept:", keep("rows", [label], coverage_cells(study.summary()), study.summary()))
