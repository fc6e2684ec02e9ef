"""Results of format 1, made by the version of commit b3f875b, and numbers read from them: ``python make.py FOLDER``."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np

import bayesunfold as bu


def results() -> dict[str, bu.UnfoldingResult]:
    """Three unfoldings that use between them everything that a file holds."""
    rng = np.random.default_rng(12)
    n, m = 400, 300
    gen = rng.normal(0, 1, n)
    reco = gen + rng.normal(0, 0.4, n)
    data = rng.normal(0.2, 1.1, m)
    flags = {"pass_gen": rng.random(n) < 0.9, "pass_reco": rng.random(n) < 0.8}
    quick = {"iterations": 2, "draws": 24, "random_seed": 3, "progressbar": False, "network": bu.Network((4,))}
    plain = bu.OmniFold(inference="laplace", **quick).fit(bu.Simulation(gen, reco, names=["pt"]), data)
    background = bu.Background(rng.normal(1, 0.5, 40), np.full(40, 0.4), "top", 0.1)
    shower = bu.Systematic("shower", weight_up=1 + 0.1 * np.tanh(gen), weight_down=1 - 0.2 * np.tanh(gen))
    migration = bu.Systematic("scale", reco_up=1.05 * reco, pass_reco_up=(1.05 * reco > -1) & flags["pass_reco"])
    advi = bu.OmniFold(inference="advi", generator_prior=0.1, **quick)
    everything = advi.fit(bu.Simulation(gen, reco, **flags), data, [background], [shower, migration])
    two = np.column_stack([gen, np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))])
    other = np.column_stack([reco, two[:, 1]])
    simulation = bu.Simulation(two, other, pass_reco=flags["pass_reco"], undefined="indicator")
    measured = bu.Data(np.column_stack([data, rng.normal(size=m)]), undefined="indicator")
    prior = bu.OmniFold(inference="laplace", efficiency="prior", **quick).fit(simulation, measured)
    return {"plain": plain.estimate_bias(), "everything": everything, "prior": prior}


def numbers(result: bu.UnfoldingResult) -> dict[str, object]:
    """Bands in two bins."""
    column = result.simulation.gen_names[0]
    s = result.spectrum(column, [-2, 0, 2])
    return {
        "column": column,
        "nominal": s.nominal.tolist(),
        "std": s.std().tolist(),
        "by_source": {name: std.tolist() for name, std in s.by_source().items()},
        "refolded": result.refolded(result.simulation.reco_names[0], [-2, 0, 2]).std().tolist(),
        "configuration": result.configuration["efficiency"],
        "bias": None if s.bias is None else s.bias.tolist(),
    }


def main(folder: Path) -> None:
    """Write the files and the numbers."""
    warnings.simplefilter("ignore")
    found = results()
    for name, result in found.items():
        result.save(folder / f"{name}.nc")
    kept = {name: numbers(result) for name, result in found.items()}
    (folder / "numbers.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
