"""Ntuples in the layout of an experiment: Z boson events with jets, two simulated campaigns, two years of data.

``python docs/examples/experiment/make_ntuples.py [FOLDER] [EVENTS]``

Each campaign has one file with the particle level (tree ``truth``), the detector level (``nominal``) and its
variations (``JET_Scale__1up`` and so on), each in an order of its own, and one file of friends with further weights.
Momenta are in MeV and jagged. The answer is known, since the data are made here: ``answer.json`` holds it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

CAMPAIGNS = {"mc_a": 0.4, "mc_d": 0.6}
"""Share of the luminosity."""

THRESHOLD = 20_000.0
"""MeV; softer jets are not in the ntuples."""

FOUND, SCALE_FACTOR = 0.75, 0.96
"""Efficiency of both leptons in the simulation, and that of data over it."""

VARIATIONS = {"nominal": 1.0, "JET_Scale__1up": 1.02, "JET_Scale__1down": 0.98}
"""Scale of the jets' momenta in each tree."""


def particle_level(rng: np.random.Generator, n: int, slope: float) -> dict[str, ak.Array]:
    """Jets of events: momenta fall exponentially with the given slope in GeV, hardest first."""
    number = 1 + rng.poisson(0.9, n)
    pt = 1000.0 * (18.0 + rng.exponential(slope, number.sum()))
    jets = ak.unflatten(pt, number)
    return {"jet_pt": ak.sort(jets[jets > THRESHOLD], ascending=False)}


def detector_level(rng: np.random.Generator, jets: ak.Array, efficiency: float) -> tuple[ak.Array, ak.Array]:
    """Measured jets before the threshold, and whether an event is reconstructed (both leptons found)."""
    number = ak.num(jets)
    pt = ak.to_numpy(ak.flatten(jets))
    resolution = np.sqrt(0.08**2 + 4000.0**2 / pt**2)
    smeared = ak.unflatten(pt * rng.normal(0.98, resolution), number)
    seen = ak.unflatten(rng.random(len(pt)) < 0.97, number)
    return smeared[seen], rng.random(len(number)) < efficiency


def above(jets: ak.Array, scale: float = 1.0) -> ak.Array:
    """Jets over the threshold, hardest first."""
    moved = jets * scale
    return ak.sort(moved[moved > THRESHOLD], ascending=False)


def tree(jets: ak.Array, number: np.ndarray, rng: np.random.Generator, **columns: np.ndarray) -> dict[str, ak.Array]:
    """One tree: events with a jet, in random order."""
    rows = rng.permutation(np.flatnonzero(ak.to_numpy(ak.num(jets)) > 0))
    return {"jet_pt": jets[rows], "eventNumber": number[rows]} | {k: v[rows] for k, v in columns.items()}


def write_campaign(folder: Path, name: str, first: int, n: int, rng: np.random.Generator) -> None:
    """Simulated events, with the generator's slope of 28 GeV."""
    gen = particle_level(rng, n, slope=28.0)["jet_pt"]
    measured, found = detector_level(rng, gen, FOUND)
    number, weight = np.arange(first, first + n), rng.uniform(0.9, 1.1, n)
    hardest = ak.to_numpy(ak.fill_none(ak.max(gen, axis=1), 0.0)) / 1e6
    with uproot.recreate(folder / f"{name}.root") as file:
        truth = tree(gen, number, rng, mcWeight=weight)
        file["truth"] = truth
        factors = {"sf_lepton": np.full(n, SCALE_FACTOR), "sf_lepton__1up": np.full(n, SCALE_FACTOR + 0.02)}
        for key, scale in VARIATIONS.items():
            jets = above(measured, scale)
            file[key] = tree(ak.where(found, jets, jets[:, :0]), number, rng, mcWeight=weight, **factors)
    with uproot.recreate(folder / f"{name}_weights.root") as file:  # another order: joined by the event's number
        rows = rng.permutation(n)
        shower = {"fsr_up": weight * (1 + 0.5 * hardest), "fsr_down": weight * (1 - 0.5 * hardest)}
        file["weights"] = {"eventNumber": number[rows]} | {k: v[rows] for k, v in shower.items()}


def main(folder: Path, events: int = 20_000) -> None:
    """Write everything; ``events`` are those of data before any selection, and half of each campaign's."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(CAMPAIGNS):
        write_campaign(folder, name, 10**9 * (k + 1), 2 * events, rng)
    gen = particle_level(rng, events, slope=31.0)["jet_pt"]  # nature is harder than the generator
    measured, found = detector_level(rng, gen, FOUND * SCALE_FACTOR)
    jets = above(measured)
    top = particle_level(rng, events // 4, slope=45.0)["jet_pt"]
    seen = np.flatnonzero(found & ak.to_numpy(ak.num(jets) > 0))
    extra = np.flatnonzero(rng.random(len(top)) < 0.2)
    every = ak.concatenate([jets[seen], above(top, 0.98)[extra]])
    for year, rows in (("data_15", slice(0, None, 2)), ("data_16", slice(1, None, 2))):
        with uproot.recreate(folder / f"{year}.root") as file:
            file["nominal"] = tree(every[rows], np.arange(len(every))[rows], rng)
    with uproot.recreate(folder / "top.root") as file:
        for key, scale in VARIATIONS.items():
            file[key] = tree(above(top, 0.98 * scale), np.arange(len(top)), rng, mcWeight=np.full(len(top), 0.2))
    lead = ak.to_numpy(ak.fill_none(ak.max(gen, axis=1), 0.0)) / 1000
    (folder / "answer.json").write_text(json.dumps({"lead": lead[lead > 30].tolist()}))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent,
        int(sys.argv[2]) if len(sys.argv) > 2 else 20_000,
    )
