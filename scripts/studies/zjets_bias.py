"""What is at fault where the seven-observable bands miss: bias at the result, or the simulation's response.

``python scripts/studies zjets-bias [--iterations 5]``: the result is folded by its own response and unfolded again.
What the closure does not reproduce of the deviation from the truth is not a bias of the method at the result.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from reference import REFERENCE
from results import keep

import bayesunfold as bu
from bayesunfold.binned.compare import triangular_discriminator


def main() -> None:
    """Print one line an observable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    z = bu.datasets.zjets()
    unfolder = bu.OmniFold(args.iterations, inference="laplace", draws=200, random_seed=1, progressbar=False)
    result = unfolder.fit(z.simulation, z.data)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bu.errors.BiasWarning)
        result = result.estimate_bias()
    print(f"closure: {time.perf_counter() - start:.0f} s")
    print(f"{'':>10} {'rms (ours - truth)/band':>24} {'rms bias/band':>14} {'correlation':>12} {'1e3 TD closure':>15}")
    for name, reference in REFERENCE.items():
        s = result.spectrum(name, np.array(reference["bin_edges"]))
        truth = np.histogram(z.truth(name), s.edges[0])[0]
        used = truth > 20
        miss, bias = ((s.nominal - truth) / s.std())[used], (s.bias / s.std())[used]
        if args.keep:
            rms = {"miss / band": np.sqrt(np.mean(miss**2)), "bias / band": np.sqrt(np.mean(bias**2))}
            cells = {column: f"{value:.2f}" for column, value in rms.items()}
            keep("zjets", [name], cells, {column: float(value) for column, value in rms.items()})
        print(
            f"{name:>10} {np.sqrt(np.mean(miss**2)):24.2f} {np.sqrt(np.mean(bias**2)):14.2f} "
            f"{np.corrcoef(miss, bias)[0, 1]:12.2f} {triangular_discriminator(s.nominal + s.bias, s.nominal):15.3f}"
        )
