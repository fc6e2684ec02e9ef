"""Time and memory of the event posterior: ``python benchmarks/bench_events.py [--events 100000] [--features 7]``.

Correlated Gaussian features, smeared by half their width. Targets on two cores, for 100 000 events of seven features:
training 90 s, 100 draws for 10 000 events 10 s, 2 GB.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

import bayesunfold as bu


def main() -> None:
    """Train, unfold, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=7)
    parser.add_argument("--measured", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    mixing = np.eye(args.features) + 0.3

    def events(n: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
        gen = rng.normal(mean, 1.0, (n, args.features)) @ mixing
        return gen, gen + rng.normal(0.0, 0.5, gen.shape)

    simulation = bu.Simulation(*events(args.events, 0.0))
    measured = events(args.measured, 0.1)[1]
    start = time.perf_counter()
    posterior = bu.EventPosterior(random_seed=1, progressbar=False).fit(simulation)
    print(f"training: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    posterior.sample(measured, args.draws)
    print(f"{args.draws} draws for {args.measured} events, simulation's prior: {time.perf_counter() - start:.1f} s")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    result = bu.UnbinnedFBU(random_seed=1, rounds=0, progressbar=False).fit(simulation, measured)
    start = time.perf_counter()
    result.event_posterior(measured, args.draws, posterior=posterior)
    print(f"with the weights of {args.draws} members: {time.perf_counter() - start:.1f} s")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, the unfolding included")


if __name__ == "__main__":
    main()
