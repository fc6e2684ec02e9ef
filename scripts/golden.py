"""SHA-256 of what the engine gives for twelve set-ups, to see that a rearrangement of its code changes no digit.

Digests hold on one machine only, since processors round differently:

    python scripts/golden.py --write golden.json     # before
    python scripts/golden.py golden.json             # after; prints what changed, and ends with 1 if anything did
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import bayesunfold as bu


def digest(array: Any) -> str:
    """First digits of the checksum of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def problem() -> dict[str, Any]:
    """Events with misses, fakes, weights and a second reading of the detector."""
    rng = np.random.default_rng(12)
    gen = rng.normal(0, 1, 1500)
    reco, data = gen + rng.normal(0, 0.4, 1500), rng.normal(0.2, 1.1, 1200)
    return {
        "gen": gen,
        "reco": reco,
        "data": data,
        "pass_gen": rng.random(1500) < 0.9,
        "pass_reco": rng.random(1500) < 0.8,
        "weight": rng.exponential(size=1500),
        "background": rng.normal(1, 0.5, 300),
    }


def setups() -> dict[str, dict[str, Any]]:
    """Arguments of each unfolding: settings of the engine, of the simulation, backgrounds, systematics."""
    p = problem()
    gen, reco = p["gen"], p["reco"]
    flags = {"pass_gen": p["pass_gen"], "pass_reco": p["pass_reco"]}
    background = bu.Background(p["background"], np.full(300, 0.4), "top", 0.1)
    shower = bu.Systematic("shower", weight_up=1 + 0.1 * np.tanh(gen), weight_down=1 - 0.2 * np.tanh(gen))
    scale = bu.Systematic("scale", reco_up=1.05 * reco, reco_down=0.97 * reco)
    migration = bu.Systematic("scale", reco_up=1.05 * reco, pass_reco_up=(1.05 * reco > -1) & p["pass_reco"])
    return {
        "plain": {},
        "weights": {"simulation": {"weight": p["weight"]}},
        "misses and fakes": {"simulation": flags},
        "background": {"backgrounds": [background]},
        "weight systematic": {"systematics": [shower]},
        "shifted features": {"systematics": [scale]},
        "migration": {"simulation": flags, "systematics": [migration]},
        "efficiency prior": {"simulation": flags, "settings": {"efficiency": "prior"}},
        "generator prior": {"settings": {"generator_prior": 0.2}},
        "advi": {"settings": {"inference": "advi"}},
        "nuts": {"settings": {"inference": "nuts"}},
        "everything": {
            "simulation": flags | {"weight": p["weight"]},
            "backgrounds": [background],
            "systematics": [shower, migration],
            "settings": {"inference": "advi", "generator_prior": 0.1, "iterations": 3},
        },
    }


def digests(setup: dict[str, Any]) -> dict[str, str]:
    """Checksums of the point estimate, of all members, and of a spectrum by source."""
    p = problem()
    weight = setup.get("simulation", {}).get("weight")
    systematics = setup.get("systematics", [])
    if weight is not None:  # full weights in the variation
        for systematic in systematics:
            if systematic.weight_up is not None:
                systematic.weight_up = systematic.weight_up * weight
                systematic.weight_down = systematic.weight_down * weight
    settings = {"iterations": 2, "inference": "laplace", "draws": 40, "random_seed": 3, "progressbar": False}
    simulation = bu.Simulation(p["gen"], p["reco"], **setup.get("simulation", {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unfolder = bu.OmniFold(**(settings | setup.get("settings", {})))
        result = unfolder.fit(simulation, p["data"], setup.get("backgrounds", []), systematics)
    spectrum = result.spectrum("gen", [-3, -1, 0, 1, 3])
    found = {"nominal": digest(result.nominal), "weights": digest(result.weights.values)}
    found |= {f"source {name}": digest(make()) for name, make in spectrum.sources.items()}
    return found | {"history": digest([entry["change"] for entry in result.history])}


def main() -> int:
    """Write the digests, or compare with those written before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--without", nargs="*", default=[], help="set-ups to leave out (nuts compiles for a while)")
    args = parser.parse_args()
    found = {name: digests(setup) for name, setup in setups().items() if name not in args.without}
    if args.write:
        args.file.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before = json.loads(args.file.read_text())
    changed = [f"{n}: {k}" for n, sums in found.items() for k, v in sums.items() if before[n].get(k) != v]
    sys.stdout.write("\n".join(changed or [f"{len(found)} set-ups, no digit changed"]) + "\n")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
