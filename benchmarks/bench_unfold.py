"""Speed, memory and accuracy of unfolding: ``make bench``.

Every case runs in a process of its own, twice, and the second run is quoted, so that compiled code is cached.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

import bayesunfold as bu
from bayesunfold.binned.compare import triangular_discriminator

CASES = {"toy-1000": (1000, 1000), "toy-100000": (100_000, 100_000), "zjets": None}
CASES |= {f"{name}-direct": case for name, case in CASES.items()}
EDGES = np.linspace(-9, 11, 51)


def run_case(name: str) -> dict:
    """One unfolding with default settings; Z+jets with five iterations."""
    kind = name.removesuffix("-direct")
    method = bu.OmniFold if name == kind else bu.UnbinnedFBU
    if kind == "zjets":
        z = bu.datasets.zjets()
        simulation, data, settings = z.simulation, z.data, {"iterations": 5} if name == kind else {}
    else:
        toy = bu.datasets.gaussian_toy(*CASES[name], random_seed=1)
        simulation, data, settings = toy.simulation, toy.measurement, {}
    seconds = []
    for _ in range(2):
        result = spectrum = None  # the first result does not count as memory of the second
        start = time.perf_counter()
        result = method(random_seed=1, progressbar=False, **settings).fit(simulation, data)
        spectrum = result.spectrum(simulation.gen_names[0], EDGES if kind != "zjets" else np.linspace(100, 1000, 16))
        seconds.append(time.perf_counter() - start)
    return {
        "first run [s]": seconds[0],
        "second run [s]": seconds[1],
        "peak memory [GB]": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "iterations": len(result.iterations),
        "ensemble / point estimate": (result.seconds["members"] + result.seconds["posterior"])
        / result.seconds["training"],
        "members / point estimate": result.seconds["members"] / result.seconds["training"],
        "draws": len(spectrum.draw_matrix),
    }


def run_accuracy(seeds: int, n: int) -> dict:
    """Discriminator to the truth sample, beside exact density-ratio weights on the same samples."""
    ours, exact = [], []
    for seed in range(seeds):
        toy = bu.datasets.gaussian_toy(n, n, random_seed=100 + seed)
        result = bu.OmniFold(random_seed=seed, inference="laplace", draws=20, progressbar=False).fit(
            toy.simulation, toy.measurement
        )
        gen, truth = toy.gen[:, 0], np.histogram(toy.truth, EDGES)[0]
        ratio = np.exp(0.5 * ((gen - 0.3) / 2.5) ** 2 - 0.5 * ((gen - 1.2) / 3.0) ** 2)
        ours.append(triangular_discriminator(np.histogram(gen, EDGES, weights=result.nominal)[0], truth))
        exact.append(triangular_discriminator(np.histogram(gen, EDGES, weights=ratio)[0], truth))
    return {
        "ours": float(np.mean(ours)),
        "exact ratio": float(np.mean(exact)),
        "ours / exact": float(np.mean(ours) / np.mean(exact)),
        "seeds": seeds,
    }


def run_training_step() -> dict:
    """One gradient of the objective in NumPy, and of the same model compiled by PyTensor, side by side."""
    from bayesunfold.classifier.arithmetic import loss_and_gradient
    from bayesunfold.classifier.network import full_model

    rng = np.random.default_rng(1)
    layout = bu.Network((50, 50, 50)).layout(1)
    x, label = rng.normal(size=(2000, 1)), rng.integers(0, 2, 2000)
    theta = rng.standard_normal(layout.n_parameters)
    slope = full_model(layout, x, label, np.ones(2000), 0.0).logp_dlogp_function(ravel_inputs=True)
    slope.set_extra_values({})
    out = {}
    x32, ones = x.astype(np.float32), label.astype(float)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        for name, call in {
            "NumPy float32 [ms]": lambda: loss_and_gradient(layout, theta, x32, ones, 1 - ones, 0.0),
            "PyTensor [ms]": lambda: slope(theta),
        }.items():
            call()
            start = time.perf_counter()
            for _ in range(50):
                call()
            out[name] = 20 * (time.perf_counter() - start)
    return out | {"PyTensor / NumPy": out["PyTensor [ms]"] / out["NumPy float32 [ms]"]}


def main() -> None:
    """Run all cases, or one named by ``--case`` (used for the processes of their own)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=[*CASES, "accuracy", "training-step"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="*", help="cases to run")
    args = parser.parse_args()
    if args.case:
        special = {"accuracy": lambda: run_accuracy(args.seeds, 100_000), "training-step": run_training_step}
        print(json.dumps(special[args.case]() if args.case in special else run_case(args.case)))
        return
    for name in args.only or [*CASES, "accuracy", "training-step"]:
        command = [sys.executable, "-W", "ignore", __file__, "--case", name, "--seeds", str(args.seeds)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{name}:")
        for key, value in json.loads(out.splitlines()[-1]).items():
            print(f"  {key:>28}: {value:.3g}" if isinstance(value, float) else f"  {key:>28}: {value}", flush=True)


if __name__ == "__main__":
    main()
