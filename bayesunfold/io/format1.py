"""Files of format version 1: one flat group of numbered arrays and a JSON text, read as groups of today's format."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["upgrade"]

Arrays = dict[str, NDArray]
Groups = dict[str, xr.Dataset]
Notes = dict[str, list]


def __dir__() -> list[str]:
    return __all__


def upgrade(dataset: xr.Dataset) -> xr.DataTree:
    """The flat group of format 1 as the groups of :mod:`bayesunfold.io.groups`.

    Raises
    ------
    KeyError
        If something is missing.
    """
    arrays = {str(name): np.asarray(values.values) for name, values in dataset.data_vars.items()}
    notes = json.loads(dataset.attrs["notes"])
    configuration = notes["configuration"]
    made = {"random_seed", "iterations_done", "versions"}
    attributes = {
        "settings": json.dumps({name: value for name, value in configuration.items() if name not in made}),
        "random_seed": configuration["random_seed"],
        "versions": json.dumps(configuration.get("versions", {})),
        "history": json.dumps(notes["history"]),
        "seconds": json.dumps(notes["seconds"]),
        "negative_data": notes["negative_data"],
    }
    groups: Groups = {"/": xr.Dataset(attrs=attributes)}
    groups |= _inputs(arrays, notes) | _scales(arrays)
    groups["networks"] = _networks(arrays, notes)
    groups |= _measurement(arrays, notes)
    groups["step2"] = _displacement(arrays, "push", notes["sources"])
    if notes["fakes_sources"]:
        groups["fakes"] = _displacement(arrays, "fakes", notes["fakes_sources"])
    change = _rows([arrays[f"signal_{k}"] for k in range(len(notes["signal"]))], len(arrays["z"]))
    groups["yields"] = xr.Dataset({"change": (("source", "draw"), change)}, coords={"source": notes["signal"]})
    return xr.DataTree.from_dict(groups | _systematics(arrays, notes))


def _inputs(arrays: Arrays, notes: Notes) -> Groups:
    named = {"gen_feature": notes["gen_names"], "reco_feature": notes["reco_names"]}
    simulation = xr.Dataset(
        {name: (("event", f"{name}_feature"), arrays[name]) for name in ("gen", "reco")}
        | {name: ("event", arrays[name]) for name in ("weight", "pass_gen", "pass_reco")},
        coords=named,
        attrs={"undefined": notes["undefined"][0]},
    )
    if "closure_weights" in arrays:
        simulation["closure_weight"] = ("event", arrays["closure_weights"])
    data = _sample(arrays["data"], arrays["data_weight"], notes["reco_names"], notes["undefined"][1])
    groups = {"simulation": simulation, "data": data}
    for k, (name, uncertainty, undefined, names, given) in enumerate(notes["backgrounds"]):
        sample = _sample(arrays[f"background_{k}_features"], arrays[f"background_{k}_weight"], names, undefined)
        sample.attrs |= {"relative_uncertainty": uncertainty, "named": int(given)}
        groups[f"backgrounds/{name}"] = sample
    return groups


def _sample(features: NDArray, weight: NDArray, names: list[str], undefined: str) -> xr.Dataset:
    return xr.Dataset(
        {"features": (("event", "reco_feature"), features), "weight": ("event", weight)},
        coords={"reco_feature": names},
        attrs={"undefined": undefined},
    )


def _scales(arrays: Arrays) -> Groups:
    groups = {}
    for level in ("gen", "reco"):
        prefix = f"scale_{level}_"
        state = {name.removeprefix(prefix): v for name, v in arrays.items() if name.startswith(prefix)}
        groups[f"scales/{level}"] = xr.Dataset({k: (("feature", "output")[: v.ndim], v) for k, v in state.items()})
    return groups


def _networks(arrays: Arrays, notes: Notes) -> xr.Dataset:
    records = notes["iteration_notes"]
    fits = list(records[0]["losses"])
    dataset = xr.Dataset(
        {
            "loss": (("iteration", "fit"), [[r["losses"][fit] for fit in fits] for r in records]),
            "remaining_step": (("iteration", "fit"), [[r["decrements"][fit] for fit in fits] for r in records]),
        },
        coords={"fit": fits},
    )
    for name in ("step1", "step2", "fakes"):
        if f"iteration_{name}" in arrays:
            dataset[name] = (("iteration", f"{name}_parameter"), arrays[f"iteration_{name}"])
    return dataset


def _measurement(arrays: Arrays, notes: Notes) -> Groups:
    dataset = xr.Dataset(
        {
            "directions": (("parameter", "direction"), arrays["first_basis"]),
            "z": (("draw", "axis"), arrays["z"]),
            "elbo": ("advi_step", arrays["elbo"]),
        },
        attrs={"chains": notes["chains"]},
    )
    if "lam" in arrays:
        dataset["multiplier"] = (("direction", "draw"), arrays["lam"])
    stats = {name.removeprefix("stats_"): v for name, v in arrays.items() if name.startswith("stats_")}
    reported = {name: (tuple(f"{name}_{axis}" for axis in range(v.ndim)), v) for name, v in stats.items()}
    return {"measurement": dataset, "measurement/sample_stats": xr.Dataset(reported)}


def _displacement(arrays: Arrays, name: str, sources: list[str]) -> xr.Dataset:
    moved = np.stack([arrays[f"{name}_{k}"] for k in range(len(sources))])
    return xr.Dataset(
        {
            "directions": (("parameter", "direction"), arrays[f"{name}_basis"]),
            "displacement": (("source", "direction", "draw"), moved),
        },
        coords={"source": sources},
    )


def _systematics(arrays: Arrays, notes: Notes) -> Groups:
    groups: Groups = {}
    names = notes["variations"]
    if names:
        rows = range(len(names))
        groups["systematics/weights"] = xr.Dataset(
            {"alpha": (("systematic", "draw"), np.stack([arrays[f"variation_{k}_alpha"] for k in rows]))}
            | {
                side: (("systematic", "event"), np.stack([arrays[f"variation_{k}_{side}"] for k in rows]))
                for side in ("up", "down")
            },
            coords={"systematic": names},
        )
    detector = _detector(arrays, notes)
    return groups if detector is None else groups | {"systematics/detector": detector}


def _detector(arrays: Arrays, notes: Notes) -> xr.Dataset | None:
    """Systematics that shift the detector level; the first files hold no nuisance parameters of them, which are NaN."""
    names, n = notes.get("acceptances"), len(arrays["weight"])
    stored = names is not None
    if not stored:
        known = {"data", "simulation", "prior", "generator", *notes["variations"], *notes["signal"]}
        names = [name for name in notes["sources"] if name not in known]
    if not names:
        return None
    rows = range(len(names))
    unknown = np.full((len(names), len(arrays["z"])), np.nan)
    stays = np.zeros(n, dtype=np.int8)
    return xr.Dataset(
        {
            "alpha": (
                ("systematic", "draw"),
                np.stack([arrays[f"acceptance_{k}_alpha"] for k in rows]) if stored else unknown,
            ),
            "moves": ("systematic", [f"acceptance_{k}_up" in arrays for k in rows]),
            "outside": (
                ("systematic", "side"),
                np.stack([arrays.get(f"acceptance_{k}_outside", np.zeros(2)) for k in rows]),
            ),
        }
        | {
            side: (("systematic", "event"), np.stack([arrays.get(f"acceptance_{k}_{side}", stays) for k in rows]))
            for side in ("up", "down")
        },
        coords={"systematic": names},
    )


def _rows(rows: list[NDArray], width: int) -> NDArray:
    return np.stack(rows) if rows else np.zeros((0, width))
