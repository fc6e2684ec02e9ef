"""Sums over events in NumPy and in JAX, on the same events: ``python benchmarks/bench_jax.py``.

Needs the extra ``jax``. Prints nanoseconds per event of a training's gradient, of a network's output, and of products
of tangent features in 200 directions, with NumPy on its threads and with JAX on its default device.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bayesunfold._support.threads import block_threads, map_blocks, thread_count
from bayesunfold.classifier.arithmetic import forward, pass_blocks
from bayesunfold.classifier.backend import on_backend
from bayesunfold.classifier.network import Network
from bayesunfold.classifier.sums import TangentFeatures
from bayesunfold.classifier.two_class import Joined

EVENTS, FEATURED, DIRECTIONS = 1_000_000, 200_000, 200


def best(function: Callable[[], Any], n: int, repeat: int = 5) -> float:
    """Nanoseconds per event, the fastest of several after a first."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) / n * 1e9


def measure(backend: str, features: int) -> list[float]:
    """Times of the three sums."""
    rng = np.random.default_rng(0)
    layout = Network().layout(n_features=features)
    x = rng.normal(size=(EVENTS, features)).astype(np.float32)
    ones, zeros = rng.random((2, EVENTS))
    theta = rng.normal(size=layout.n_parameters)
    basis = np.linalg.qr(rng.normal(size=(layout.n_parameters, DIRECTIONS)))[0]
    classes = Joined(x, ones, zeros, 0.1)

    def product(rows: slice) -> np.ndarray:
        phi = TangentFeatures.of(layout, theta, x[rows], basis)
        return phi.cross(phi.times(ones[rows]))

    with on_backend(backend), block_threads():
        return [
            best(lambda: classes.loss_and_gradient(layout, theta), EVENTS),
            best(lambda: forward(layout, theta, x), EVENTS),
            best(lambda: sum(map_blocks(product, pass_blocks(FEATURED, 4096))), FEATURED),
        ]


def main() -> None:
    """A line per number of features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[1, 7, 24])
    given = parser.parse_args()
    import jax

    print(f"{jax.devices()[0].device_kind}, {thread_count()} threads")
    print("| features | gradient: NumPy, JAX [ns], ratio | output | tangent features |")
    print("|---|---|---|---|", flush=True)
    for features in given.features:
        pairs = zip(measure("numpy", features), measure("jax", features), strict=True)
        print(f"| {features} | {' | '.join(f'{a:.0f}, {b:.0f}, {b / a:.2f}' for a, b in pairs)} |", flush=True)


if __name__ == "__main__":
    main()
