"""Seven observables of the second sample, which has another response: loop, one posterior, and IBU by its iterations.

``python scripts/studies zjets-nature [METHOD ...] [--keep]``, METHOD one of ``omnifold``,
``omnifold-additive`` and ``direct``, the first and the last by default: triangular discriminators to the truth (1e3
times), default settings but for the additive part of the second (12), five iterations of the loop. *own width* is the
mean discriminator between members of the posterior and their point estimate: what statistics alone leave.
"""

from __future__ import annotations

import argparse

import numpy as np
from reference import REFERENCE
from results import keep

import bayesunfold as bu
from bayesunfold.binned.compare import triangular_discriminator

ITERATIONS = (2, 4, 20, 60)
METHODS = {
    "omnifold": bu.OmniFold(5, random_seed=1, progressbar=False),
    "omnifold-additive": bu.OmniFold(5, network=bu.Network(additive=12), random_seed=1, progressbar=False),
    "direct": bu.UnbinnedFBU(random_seed=1, progressbar=False),
}


def ibu(z: bu.datasets.ZJets, name: str, edges: np.ndarray) -> dict[str, float]:
    """Discriminators of IBU, under- and overflow in the outermost bins."""

    def clip(x: np.ndarray) -> np.ndarray:
        return np.clip(np.nan_to_num(x), edges[0], np.nextafter(edges[-1], -np.inf))

    gen, reco = clip(z.simulation.gen_column(name)), clip(z.simulation.reco_column(name))
    response = bu.ResponseMatrix.from_events(z.simulation, edges, edges, gen=gen, reco=reco)
    data = np.histogram(clip(z.data.features[:, z.features.index(name)]), edges)[0]
    truth = np.histogram(clip(z.truth(name)), edges)[0]
    found = (bu.IBU(k, errors=False).fit(response, data).nominal for k in ITERATIONS)
    return {f"IBU, {k}": triangular_discriminator(x, truth) for k, x in zip(ITERATIONS, found, strict=True)}


def main() -> None:
    """Unfold, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["omnifold", "direct"], help=", ".join(METHODS))
    parser.add_argument("--keep", action="store_true", help="keep the result for the tables of the documentation")
    args = parser.parse_args()
    z = bu.datasets.zjets()
    for method in args.methods:
        result = METHODS[method].fit(z.simulation, z.data)
        for name, reference in REFERENCE.items():
            edges = np.array(reference["bin_edges"])
            spectrum = result.spectrum(name, edges)
            truth = np.histogram(z.truth(name), edges)[0].astype(float)
            chi2 = spectrum.chi2(truth)
            low, high = spectrum.interval(0.95)
            own = np.mean([triangular_discriminator(draw, spectrum.nominal) for draw in spectrum.draw_matrix])
            numbers = {
                "generator": float(reference["generator"]),
                **ibu(z, name, edges),
                method: triangular_discriminator(spectrum.nominal, truth),
                f"{method}, own width": float(own),
                f"{method}, chi2 per bin": chi2.value / chi2.dof,
                f"{method}, in 95 %": float(np.mean((low <= truth) & (truth <= high))),
            }
            cells = {key: f"{value:.2f}" for key, value in numbers.items()}
            print(name, "  ".join(f"{key} {value}" for key, value in cells.items()))
            if args.keep:
                keep("zjets-nature", [name], cells, numbers)


if __name__ == "__main__":
    main()
