"""Members against a loop that is really refitted to the members' own fluctuations, on one toy.

``python benchmarks/refits.py ROW [--refits 200] [--size 1.0] [--seed 0]``. The prior's noise is off in both. ``--size`` scales
the fluctuations of the refits (not of the members): with 1 they are the Bayesian bootstrap, with less the response is closer
to linear. Prints per bin: width of the members over width of the refits, and their correlation.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from coverage_rows import ROWS, make_toy

import bayesunfold as bu
from bayesunfold.run import train_point_estimate
from bayesunfold.threads import block_threads


def refitted_spectrum(result: bu.UnfoldingResult, s: int, size: float, name: str, edges: np.ndarray) -> np.ndarray:
    """Shape of the spectrum after training the loop again on the events with the fluctuations of member ``s``."""
    members = result.members
    events = members.events

    def factor(sample):
        blocks = [sample.fluctuations.block(index)[:, s] for index, _ in sample.blocks()]
        return np.maximum(1.0 + size * np.concatenate(blocks).astype(float), 0.0)

    samples = members.samples
    weight = events.weight * factor(samples.simulation)
    data_weight = events.data_weight * factor(samples.data)
    data_weight *= events.data_weight.sum() / data_weight.sum()
    weight *= events.both.sum() / weight[events.both].sum()
    changed = replace(events, weight=weight, data_weight=data_weight)
    settings = bu.OmniFold(len(result.iterations), network=result_network(result), progressbar=False)
    weights = train_point_estimate(settings, changed, len(result.iterations), 0, result.iterations)
    counts = np.histogram(result.simulation.gen_column(name), edges, weights=weight * weights.push)[0]
    return counts / (weight * weights.push)[events.pass_gen].sum()


def result_network(result: bu.UnfoldingResult) -> bu.Network:
    """The network that was used."""
    return bu.Network(**result.configuration["network"])


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--refits", type=int, default=200)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings, edges, _ = ROWS[args.row]
    toy = make_toy(args.seed, settings)
    unfolder = bu.OmniFold(inference="laplace", draws=args.refits, random_seed=args.seed, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    name = result.simulation.gen_names[0]
    spectrum = result.spectrum(name, edges, normalization="shape")
    # Laplace members are linear in independent sources, so data and simulation alone are one mask of the sum
    members = sum(spectrum.sources[source]() - spectrum.nominal for source in ("data", "simulation"))
    with block_threads():
        refits = [refitted_spectrum(result, s, args.size, name, edges) for s in range(args.refits)]
    moved = (np.array(refits) - spectrum.nominal) / args.size
    core = toy.expected(edges) >= 20
    ratio = members.std(axis=0) / moved.std(axis=0)
    print(f"row {args.row}, {args.refits} refits of size {args.size}, {len(result.iterations)} iterations")
    print(f"{'bin':>16} {'members/refits':>15} {'correlation':>12} {'mean shift/width':>17}")
    for b in np.flatnonzero(core):
        correlation = np.corrcoef(members[:, b], moved[:, b])[0, 1]
        shift = moved[:, b].mean() / moved[:, b].std()
        print(f"[{edges[b]:6.2f}, {edges[b + 1]:6.2f}) {ratio[b]:15.3f} {correlation:12.3f} {shift:17.2f}")
    print(f"mean ratio {ratio[core].mean():.3f}, least {ratio[core].min():.3f}, largest {ratio[core].max():.3f}")


if __name__ == "__main__":
    main()
