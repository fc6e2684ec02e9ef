"""Seven observables of the packaged Z+jets events at once: ``make bench-zjets``.

Triangular discriminators against nature's truth, chi-square with our covariance, and the share of bins whose bands
hold the truth. Data and truth are the same events here, so chi-squares are descriptive.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from bench_unfold import discriminator

import bayesunfold as bu

REFERENCE = json.loads((Path(__file__).parent / "zjets_reference.json").read_text())


def main() -> None:
    """Unfold and print one line an observable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", default=5, type=lambda s: s if s == "auto" else int(s))
    parser.add_argument("--inference", default="advi")
    args = parser.parse_args()
    z = bu.datasets.zjets()
    start = time.perf_counter()
    result = bu.OmniFold(args.iterations, inference=args.inference, random_seed=1).fit(z.simulation, z.data)
    print(result.summary())
    print(f"{time.perf_counter() - start:.0f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    print(f"{'':>10} {'generator':>10} {'IBU':>7} {'ours':>7} {'chi2/dof':>12} {'in 68 %':>8} {'in 95 %':>8}")
    for name, reference in REFERENCE.items():
        edges = np.array(reference["bin_edges"])
        spectrum = result.spectrum(name, edges)
        truth = np.histogram(z.truth(name), edges)[0]
        inside = [np.mean((low <= truth) & (truth <= high)) for low, high in map(spectrum.interval, (0.68, 0.95))]
        chi2 = spectrum.chi2(truth)
        print(
            f"{name:>10} {reference['generator']:10.2f} {reference['ibu4']:7.2f} "
            f"{discriminator(spectrum.nominal, truth):7.2f} {f'{chi2.value:.0f}/{chi2.dof}':>12} "
            f"{inside[0]:8.2f} {inside[1]:8.2f}"
        )


if __name__ == "__main__":
    main()
