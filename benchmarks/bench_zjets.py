"""Seven observables of the packaged Z+jets events at once: ``make bench-zjets``.

Triangular discriminators against the truth beside our IBU and the reference's, chi-square with our covariance, and
the share of bins whose bands hold the truth. With all events data and truth are the same events, so chi-squares are
descriptive; ``--halves`` takes data and truth from disjoint halves of the second sample, where p-values mean something.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

import bayesunfold as bu
from bayesunfold.binned.compare import triangular_discriminator

REFERENCE = json.loads((Path(__file__).parent / "zjets_reference.json").read_text())


def own_ibu(z: bu.datasets.ZJets, name: str, edges: np.ndarray, data: np.ndarray) -> np.ndarray:
    """IBU with 4 iterations, under- and overflow in the outermost bins as in the reference."""

    def clip(x: np.ndarray) -> np.ndarray:
        return np.clip(np.nan_to_num(x), edges[0], np.nextafter(edges[-1], -np.inf))

    gen, reco = clip(z.simulation.gen_column(name)), clip(z.simulation.reco_column(name))
    response = bu.ResponseMatrix.from_events(z.simulation, edges, edges, gen=gen, reco=reco)
    return bu.IBU(4, errors=False).fit(response, np.histogram(clip(data), edges)[0]).nominal


def main() -> None:
    """Unfold and print one line an observable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("omnifold", "direct", "generative"), default="omnifold")
    parser.add_argument("--iterations", default=5, type=lambda s: s if s == "auto" else int(s))
    parser.add_argument("--inference", default="advi")
    parser.add_argument(
        "--halves", action="store_true", help="data and truth from disjoint halves of the second sample"
    )
    args = parser.parse_args()
    z = bu.datasets.zjets()
    # rows of the second sample alternate between the halves, so that both have the same composition
    even = np.arange(len(z.nature["pass_reco"])) % 2 == 0
    data_rows = even[z.nature["pass_reco"]] if args.halves else np.ones(len(z.data), dtype=bool)
    truth_rows = ~even[z.nature["pass_gen"]] if args.halves else np.ones(z.nature["pass_gen"].sum(), dtype=bool)
    data = bu.Data(z.data.features[data_rows])
    start = time.perf_counter()
    unfolder: bu.OmniFold | bu.UnbinnedFBU | bu.GenerativeUnfolding = bu.UnbinnedFBU(random_seed=1)
    if args.method == "omnifold":
        unfolder = bu.OmniFold(args.iterations, inference=args.inference, random_seed=1)
    if args.method == "generative":
        unfolder = bu.GenerativeUnfolding(args.iterations, random_seed=1)
    result = unfolder.fit(z.simulation, data)
    print(result.summary())
    print(f"{time.perf_counter() - start:.0f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    heads = ("generator", "IBU ref.", "our IBU", "ours", "chi2/dof", "p-value", "in 68 %", "in 95 %")
    print(f"{'':>10} " + " ".join(f"{h:>10}" for h in heads))
    for name, reference in REFERENCE.items():
        edges = np.array(reference["bin_edges"])
        spectrum = result.spectrum(name, edges)
        truth = np.histogram(z.truth(name)[truth_rows], edges)[0].astype(float)
        covariance = np.diag(truth) if args.halves else None
        inside = []
        for level, sigma in ((0.68, 0.9945), (0.95, 1.96)):
            low, high = spectrum.interval(level)
            if args.halves:  # the truth half fluctuates too
                half = sigma * np.sqrt(spectrum.std() ** 2 + truth)
                low, high = spectrum.nominal - half, spectrum.nominal + half
            inside.append(np.mean((low <= truth) & (truth <= high)))
        chi2 = spectrum.chi2(truth, covariance)
        ibu = own_ibu(z, name, edges, data.features[:, z.features.index(name)])
        folded = np.clip(np.nan_to_num(z.truth(name)[truth_rows]), edges[0], np.nextafter(edges[-1], -np.inf))
        row = (
            f"{reference['generator']:10.2f}",
            f"{reference['ibu4']:10.2f}",
            f"{triangular_discriminator(ibu, np.histogram(folded, edges)[0]):10.2f}",
            f"{triangular_discriminator(spectrum.nominal, truth):10.2f}",
            f"{f'{chi2.value:.0f}/{chi2.dof}':>10}",
            f"{chi2.p_value:10.2g}",
            f"{inside[0]:10.2f}",
            f"{inside[1]:10.2f}",
        )
        print(f"{name:>10} " + " ".join(row))


if __name__ == "__main__":
    main()
