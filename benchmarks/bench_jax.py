"""The engine's three kernels in NumPy and in JAX, on the same events and threads: ``python benchmarks/bench_jax.py``.

Needs JAX beside the project's packages. Prints nanoseconds per event: the gradient of a training's loss, the output of
a network, and tangent features in 100 directions. Both get blocks of events from the same threads and run on as many
cores; the relative difference of their gradients is printed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

EVENTS, DIRECTIONS = 400_000, 100


def best(function: Callable[[], Any], n: int, repeat: int = 7) -> float:
    """Nanoseconds per event, the fastest of several."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) / n * 1e9


def measure(features: int, threads: int) -> None:
    """One line of the table."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA takes threads that no setting limits
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", val=False)
    import jax.numpy as jnp
    import numpy as np

    from bayesunfold._support.threads import block_threads, map_blocks
    from bayesunfold.classifier.arithmetic import blocks, forward, loss_and_gradient, tangent
    from bayesunfold.classifier.network import Network

    layout, rng = Network().layout(n_features=features), np.random.default_rng(0)
    pieces, last = list(layout.pieces()), len(layout.sizes) - 2
    x = rng.normal(size=(EVENTS, features)).astype(np.float32)
    ones, zeros = rng.random((2, EVENTS)).astype(np.float32)
    theta = rng.normal(size=layout.n_parameters)
    basis = np.linalg.qr(rng.normal(size=(layout.n_parameters, DIRECTIONS)))[0].astype(np.float32)

    def output(t: Any, values: Any) -> Any:
        for k, (w, b, fan_in, fan_out, w_scale, b_scale) in enumerate(pieces):
            values = values @ (t[w] * w_scale).reshape(fan_in, fan_out) + t[b] * b_scale
            values = values if k == last else jnp.tanh(values)
        return values[..., 0]

    def loss(t: Any, values: Any, one: Any, zero: Any) -> Any:
        logit = output(t, values)
        return jnp.sum((one + zero) * jnp.logaddexp(0.0, logit) - one * logit)

    gradient = jax.jit(jax.value_and_grad(loss))
    outputs = jax.jit(output)
    tangents = jax.jit(lambda t, values, d: jax.vmap(jax.grad(output), (None, 0))(t, values) @ d)
    t = jnp.asarray(theta.astype(np.float32))
    held = [tuple(jnp.asarray(a[rows]) for a in (x, ones, zeros)) for rows in blocks(EVENTS)]
    small = [jnp.asarray(x[rows]) for rows in blocks(50_000, 2048)]

    def jax_gradient() -> tuple[float, np.ndarray]:
        parts = list(map_blocks(lambda part: jax.block_until_ready(gradient(t, *part)), held))
        return float(sum(part[0] for part in parts)), np.sum([part[1] for part in parts], axis=0, dtype=np.float64)

    def over(parts: list[Any], function: Callable[[Any], Any]) -> None:
        for _ in map_blocks(lambda part: function(part).block_until_ready(), parts):
            pass

    with block_threads():
        value, slope = loss_and_gradient(layout, theta, x, ones, zeros, 0.0)
        other, other_slope = jax_gradient()
        numpy_times = (
            best(lambda: loss_and_gradient(layout, theta, x, ones, zeros, 0.0), EVENTS),
            best(lambda: forward(layout, theta, x), EVENTS),
            best(lambda: tangent(layout, theta, x[:50_000], basis), 50_000),
        )
        jax_times = (
            best(jax_gradient, EVENTS),
            best(lambda: over(held, lambda part: outputs(t, part[0])), EVENTS),
            best(lambda: over(small, lambda part: tangents(t, part, basis)), 50_000),
        )
    differ = max(abs(value / other - 1), np.abs(slope - other_slope).max() / np.abs(slope).max())
    cells = " | ".join(f"{a:.0f}, {b:.0f}, {b / a:.2f}" for a, b in zip(numpy_times, jax_times, strict=True))
    print(f"| {features} | {threads} | {cells} | {differ:.0e} |", flush=True)


def main() -> None:
    """Each number of threads in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[1, 7, 24])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    print("| features | threads | gradient: NumPy, JAX [ns], ratio | output | tangent features | difference |")
    print("|---|---|---|---|---|---|", flush=True)
    for threads in given.threads:
        for features in given.features:
            child = os.fork()
            if child == 0:
                measure(features, threads)
                os._exit(0)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
