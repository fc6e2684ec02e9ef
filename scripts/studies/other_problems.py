"""Coverage on problems; what was chosen with any of them stands in docs/studies/coverage.md.

``python scripts/studies other-problems PROBLEM [--toys 60] [--method direct] [--inference advi] [--out DIR]``,
PROBLEM one of

* ``falling``: a steeply falling spectrum from a threshold on, resolution proportional to the value,
* ``peak``: a resonance over a flat background, shifted and narrower in the truth than in the simulation,
* ``two-peaks``: the truth has two peaks where the simulation has one broad hill,
* ``two-features``: one Gaussian and one log-normal feature, correlated more strongly in the truth,
* ``two-structures``: the truths of ``two-peaks`` and of ``peak`` as two features,
* ``weighted``: the resonance with generator weights, a sixth of them negative,
* ``few-data``: Gaussians, 300 expected events,
* ``short-simulation``: Gaussians, less than half as many simulated events as data,
* ``wide-bins``: two peaks with narrower ones in the simulation, arXiv:2111.01091, section 4.

Truth is exact in all of them, every toy has fresh data (Poisson yield) and a fresh simulation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from results import coverage_cells, keep, keep_direct
from scipy import stats

import bayesunfold as bu

Sampler = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Problem:
    """What is expected, how to sample both levels, and the exact shares of the truth in bins."""

    expected: int
    simulated: int
    data: Sampler
    generator: Sampler
    detector: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    edges: dict[str, np.ndarray]
    cumulative: dict[str, Callable[[np.ndarray], np.ndarray]]
    negative: float = 0.0

    def expected_truth(self) -> dict[str, np.ndarray]:
        """Expected events in every bin."""
        return {name: self.expected * np.diff(self.cumulative[name](e)) for name, e in self.edges.items()}


def mixture(*parts: tuple[float, stats.rv_continuous]) -> tuple[Sampler, Callable]:
    """Sampler and cumulative distribution of a mixture."""
    shares = np.array([share for share, _ in parts])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        kind = rng.choice(len(parts), size=n, p=shares)
        return np.choose(kind, [part.rvs(size=n, random_state=rng) for _, part in parts])

    def cdf(x: np.ndarray) -> np.ndarray:
        return sum(share * part.cdf(x) for share, part in parts)

    return sample, cdf


def falling() -> Problem:
    """Transverse momentum above a threshold of 1: power laws p^-6 (truth) and p^-5 (generator)."""
    truth, generator = stats.pareto(5.0), stats.pareto(4.0)
    return Problem(
        3000,
        15_000,
        lambda rng, n: truth.rvs(size=n, random_state=rng),
        lambda rng, n: generator.rvs(size=n, random_state=rng),
        lambda rng, x: x * (1 + 0.1 * rng.standard_normal(x.shape)),
        {"gen": np.array([1, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.5, 3.5])},
        {"gen": truth.cdf},
    )


def peak(negative: float = 0.0) -> Problem:
    """A resonance at 0 over a flat background."""
    flat = stats.uniform(-5, 10)
    truth, cdf = mixture((0.55, flat), (0.45, stats.norm(0.15, 0.45)))
    generator, _ = mixture((0.7, flat), (0.3, stats.norm(0.0, 0.6)))
    return Problem(
        4000,
        20_000,
        truth,
        generator,
        lambda rng, x: x + 0.3 * rng.standard_normal(x.shape),
        {"gen": np.linspace(-4, 4, 17)},
        {"gen": cdf},
        negative,
    )


def two_peaks() -> Problem:
    """Structure that the simulation does not have."""
    truth, cdf = mixture((0.5, stats.norm(-1.0, 0.6)), (0.5, stats.norm(1.2, 0.7)))
    return Problem(
        3000,
        15_000,
        truth,
        lambda rng, n: rng.normal(0.0, 1.6, n),
        lambda rng, x: x + 0.4 * rng.standard_normal(x.shape),
        {"gen": np.linspace(-3, 3.6, 13)},
        {"gen": cdf},
    )


def two_features() -> Problem:
    """Columns ``a`` (Gaussian) and ``b`` (log-normal)."""

    def pair(rng: np.random.Generator, n: int, mean: float, width: float, rho: float, scale: float) -> np.ndarray:
        z = rng.standard_normal((n, 2))
        b = rho * z[:, 0] + np.sqrt(1 - rho**2) * z[:, 1]
        return np.column_stack([mean + width * z[:, 0], scale * np.exp(0.4 * b)])

    def detector(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal(x.shape)
        return np.column_stack([x[:, 0] + 0.5 * noise[:, 0], x[:, 1] * (1 + 0.15 * noise[:, 1])])

    return Problem(
        3000,
        15_000,
        lambda rng, n: pair(rng, n, 0.3, 0.9, 0.6, 1.1),
        lambda rng, n: pair(rng, n, 0.0, 1.0, 0.3, 1.0),
        detector,
        {"a": np.linspace(-2.0, 2.6, 11), "b": np.array([0.4, 0.6, 0.8, 0.95, 1.1, 1.25, 1.4, 1.6, 1.9, 2.4, 3.0])},
        {"a": stats.norm(0.3, 0.9).cdf, "b": stats.lognorm(0.4, scale=1.1).cdf},
    )


def two_structures() -> Problem:
    """Columns ``a`` and ``b``, the truths of ``two-peaks`` and of ``peak``, independent of one another."""
    a, b = two_peaks(), peak()

    def both(one: Sampler, two: Sampler) -> Sampler:
        return lambda rng, n: np.column_stack([one(rng, n), two(rng, n)])

    return Problem(
        3000,
        15_000,
        both(a.data, b.data),
        both(a.generator, b.generator),
        lambda rng, x: np.column_stack([a.detector(rng, x[:, 0]), b.detector(rng, x[:, 1])]),
        {"a": a.edges["gen"], "b": b.edges["gen"]},
        {"a": a.cumulative["gen"], "b": b.cumulative["gen"]},
    )


def wide_bins() -> Problem:
    """Truth 0.3 N(-2, 1) + 0.7 N(2, 1), resolution 0.35, ten bins: least squares straight to ten bins fails here."""
    truth, cdf = mixture((0.3, stats.norm(-2.0, 1.0)), (0.7, stats.norm(2.0, 1.0)))
    generator, _ = mixture((0.3, stats.norm(-1.8, 0.8)), (0.7, stats.norm(1.8, 1.2)))
    return Problem(
        10_000,
        100_000,
        truth,
        generator,
        lambda rng, x: x + 0.35 * rng.standard_normal(x.shape),
        {"gen": np.linspace(-7, 7, 11)},
        {"gen": cdf},
    )


def gaussian(expected: int, simulated: int) -> Problem:
    """Truth N(0.3, 0.9), generator N(0, 1), resolution 0.5."""
    return Problem(
        expected,
        simulated,
        lambda rng, n: rng.normal(0.3, 0.9, n),
        lambda rng, n: rng.normal(0.0, 1.0, n),
        lambda rng, x: x + 0.5 * rng.standard_normal(x.shape),
        {"gen": np.linspace(-2.4, 2.4, 13)},
        {"gen": stats.norm(0.3, 0.9).cdf},
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "falling": falling,
    "peak": peak,
    "two-peaks": two_peaks,
    "two-features": two_features,
    "two-structures": two_structures,
    "weighted": partial(peak, 1 / 6),
    "few-data": partial(gaussian, 300, 3000),
    "short-simulation": partial(gaussian, 5000, 2000),
    "wide-bins": wide_bins,
}


def make_toy(seed: int, name: str) -> tuple[bu.Simulation, bu.Data]:
    """One pseudo-experiment."""
    problem = PROBLEMS[name]()
    rng = np.random.default_rng([seed, 4711])
    data = problem.detector(rng, problem.data(rng, rng.poisson(problem.expected)))
    gen = problem.generator(rng, problem.simulated)
    reco = problem.detector(rng, gen)
    sign = np.where(rng.random(problem.simulated) < problem.negative, -1.0, 1.0)
    names = list(problem.edges)
    frames = [dict(zip(names, np.atleast_2d(x.T), strict=True)) for x in (gen, reco, data)]
    return bu.Simulation(frames[0], frames[1], sign), bu.Data(frames[2])


def unfold_directly(toy: tuple[bu.Simulation, bu.Data], seed: int) -> bu.UnfoldingResult:
    """The direct posterior with default settings."""
    return bu.UnbinnedFBU(random_seed=seed, progressbar=False).fit(*toy)


def unfold(toy: tuple[bu.Simulation, bu.Data], seed: int, inference: str) -> bu.UnfoldingResult:
    """Default settings."""
    return bu.OmniFold(random_seed=seed, inference=inference, progressbar=False).fit(*toy)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--toys", type=int, default=60)
    parser.add_argument("--method", choices=("omnifold", "direct"), default="omnifold")
    parser.add_argument("--inference", default="advi", help="of the loop")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    problem = PROBLEMS[args.problem]()
    args.out.mkdir(parents=True, exist_ok=True)
    study = bu.coverage_study(
        partial(make_toy, name=args.problem),
        unfold=unfold_directly if args.method == "direct" else partial(unfold, inference=args.inference),
        bins=problem.edges,
        expected=problem.expected_truth(),
        toys=args.toys,
        workers=args.workers,
        progressbar=False,
        checkpoint=args.out / f"{args.problem}-{args.inference if args.method == 'omnifold' else 'direct'}.jsonl",
    )
    print(args.problem, args.method, args.inference)
    print(study.table(), flush=True)
    if args.keep and args.method == "direct":
        print("kept:", keep_direct(f"`{args.problem}`", study))
    elif args.keep:
        print("kept:", keep("other-problems", [f"`{args.problem}`"], coverage_cells(study.summary()), study.summary()))
