"""Saving a result with its full configuration, and reading it back.

A file holds the ArviZ groups of ``result.to_datatree()`` and a group ``unfolding`` with what makes event
weights again: the events, the networks, the members' displacements and seeds. Format version 1.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesunfold._support.files import atomic_write, check_writable, recover, swap, temporary_folder
from bayesunfold.classifier.sampling import Draws
from bayesunfold.classifier.standardize import STATE, Standardizer
from bayesunfold.errors import ConvergenceError, FileFormatError, InputError
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.omnifold.checkpoint import pack_iterations, unpack_iterations
from bayesunfold.omnifold.iteration import Iteration, Networks, iterate, recall
from bayesunfold.omnifold.loop import sample_fluctuations
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.conditioning import Conditioning
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.perturbations import Acceptance, Effect, Perturbations, Variation, list_sources
from bayesunfold.unfolding.propagation import Displacement
from bayesunfold.unfolding.record import Inputs, Measurement, Record
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents, standardize

__all__ = ["FORMAT_VERSION", "load", "save"]

FORMAT = "bayesunfold-result"
FORMAT_VERSION = 1


def __dir__() -> list[str]:
    return __all__


def save(result: UnfoldingResult, path: Path) -> Path:
    """Write a result to ``.nc`` or ``.zarr``; a killed write leaves the old one, if there was one.

    Raises
    ------
    InputError
        For any other suffix, and for a folder of that name that is not a result.
    """
    check_target(path)
    tree = result.to_datatree()
    tree["unfolding"] = xr.DataTree(_pack(result))
    tree.attrs |= {"format": FORMAT, "format_version": FORMAT_VERSION}
    if path.suffix == ".nc":
        image = io.BytesIO()  # HDF5 must not meet a full disk: it may end the interpreter
        tree.to_netcdf(image, engine="h5netcdf", encoding=_checksums(tree, {"fletcher32": True}))
        atomic_write(path, lambda temporary: temporary.write_bytes(image.getbuffer()))
        return path
    with temporary_folder(path) as new:
        tree.to_zarr(new, mode="w", consolidated=False, encoding=_checksums(tree, {"compressors": _zarr_codec()}))
        check_target(path)
        swap(new, path)
    return path


def check_target(path: Path) -> None:
    """Whether a result can be saved under this name.

    Raises
    ------
    InputError
        For a suffix other than ``.nc`` and ``.zarr``, for a place that cannot be written, and where something else
        stands that would be lost.
    """
    if path.suffix not in (".nc", ".zarr"):
        msg = f"{path.name} ends with {path.suffix!r}; name the file .nc (netCDF) or .zarr (Zarr)."
        raise InputError(msg)
    check_writable(path, folder=path.suffix == ".zarr")
    if path.suffix == ".zarr" and path.exists():
        other = _not_of_a_result(path)
        if other:
            msg = f"{path} exists and {other}; saving would remove it. Move it away, or name another folder."
            raise InputError(msg)


def _not_of_a_result(folder: Path) -> str:
    """What a Zarr folder holds that is not part of a result of this library; empty if there is nothing."""
    entries = [p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()]
    if not entries:
        return ""
    try:
        attributes = json.loads((folder / "zarr.json").read_text()).get("attributes", {})
    except (OSError, ValueError, AttributeError):
        attributes = {}
    if attributes.get("format") != FORMAT:
        return "is not a result of bayesunfold"
    strange = [p for p in entries if p.name != "zarr.json" and "c" not in p.relative_to(folder).parts]
    return f"holds {strange[0].relative_to(folder)}, which is not part of a result" if strange else ""


def _checksums(tree: xr.DataTree, encoding: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The encoding for every array of numbers, by group: a flipped byte is then an error when it is read."""
    out = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        numbers = [n for n, v in dataset.variables.items() if v.ndim and v.size and v.dtype.kind in "fiub"]
        out[node.path] = {str(name): dict(encoding) for name in numbers}
    return out


def _zarr_codec() -> Any:
    from zarr.codecs import ZstdCodec

    return (ZstdCodec(level=0, checksum=True),)


def load(path: str | Path) -> UnfoldingResult:
    """Read a result that :meth:`UnfoldingResult.save` wrote.

    Parameters
    ----------
    path : path
        A ``.nc`` file or ``.zarr`` folder.

    Returns
    -------
    UnfoldingResult
        Gives the same bands as the one saved.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileFormatError
        If it is not a result of this library, is damaged, or comes from a newer version.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=1, inference="laplace", draws=20,
    ...                    random_seed=1, progressbar=False)
    >>> path = result.save(Path(tempfile.mkdtemp()) / "unfolded.nc")
    >>> bu.load(path).nominal.sum().round()
    np.float64(300.0)
    """
    path = Path(path)
    recover(path)
    if not path.exists():
        msg = f"{path} does not exist."
        raise FileNotFoundError(msg)
    try:
        if path.is_dir():
            tree = xr.open_datatree(path, engine="zarr", consolidated=False).load()
        else:
            tree = xr.open_datatree(path, engine="h5netcdf").load()
        tree.close()
    except Exception as err:
        msg = f"{path} cannot be read as netCDF or Zarr ({type(err).__name__}: {err}); it is damaged or something else."
        raise FileFormatError(msg) from err
    if tree.attrs.get("format") != FORMAT or "unfolding" not in tree.children:
        msg = f"{path} is not a result of bayesunfold (its attribute 'format' is {tree.attrs.get('format')!r})."
        raise FileFormatError(msg)
    try:
        version = int(tree.attrs["format_version"])
    except (KeyError, ValueError, TypeError) as err:
        msg = f"{path} has no readable format version ({err}); it is damaged."
        raise FileFormatError(msg) from err
    if version < 1:
        msg = f"{path} has format version {version}; versions begin with 1. It is damaged."
        raise FileFormatError(msg)
    if version > FORMAT_VERSION:
        msg = f"{path} has format version {version}; this bayesunfold reads up to {FORMAT_VERSION}. Update bayesunfold."
        raise FileFormatError(msg)
    return _unpack(tree["unfolding"].to_dataset())


def _array(values: Any, name: str) -> tuple[tuple[str, ...], np.ndarray]:
    array = np.asarray(values)
    return tuple(f"{name}_{axis}" for axis in range(array.ndim)), array


def _pack(result: UnfoldingResult) -> xr.Dataset:
    m, sim = result.members, result.simulation
    arrays: dict[str, Any] = {
        "gen": sim.gen,
        "reco": sim.reco,
        "weight": sim.weight,
        "pass_gen": sim.pass_gen.astype(np.int8),
        "pass_reco": sim.pass_reco.astype(np.int8),
        "data": result.data.features,
        "data_weight": result.data.weight,
        "push_basis": m.step2.classifier.basis,
        "first_basis": result.measurement.step1.basis,
        "z": result.draws.z,
        "elbo": result.draws.elbo,
    }
    for level, scale in (("gen", m.events.scales.gen), ("reco", m.events.scales.reco)):
        arrays |= {f"scale_{level}_{k}": v for k, v in scale.state().items()}
    arrays |= {f"iteration_{k}": v for k, v in pack_iterations(result.iterations).items() if k != "notes"}
    arrays |= {f"push_{k}": d for k, d in enumerate(m.step2.by_source.values())}
    if m.fakes is not None:
        arrays["fakes_basis"] = m.fakes.classifier.basis
        arrays |= {f"fakes_{k}": d for k, d in enumerate(m.fakes.by_source.values())}
    if m.multiplier is not None:
        arrays["lam"] = m.multiplier
    arrays |= {f"signal_{k}": change for k, change in enumerate(m.perturbations.signal.values())}
    for k, b in enumerate(result.backgrounds):
        arrays |= {f"background_{k}_features": b.features, f"background_{k}_weight": b.weight}
    for k, v in enumerate(m.perturbations.variations.values()):
        arrays |= {f"variation_{k}_alpha": v.alpha, f"variation_{k}_up": v.up, f"variation_{k}_down": v.down}
    for k, a in enumerate(m.perturbations.acceptances.values()):
        arrays |= {f"acceptance_{k}_alpha": a.alpha, f"acceptance_{k}_outside": np.array(a.outside)}
        if a.up is not None and a.down is not None:
            arrays |= {f"acceptance_{k}_up": a.up, f"acceptance_{k}_down": a.down}
    if result.closure_weights is not None:
        arrays["closure_weights"] = result.closure_weights
    arrays |= {f"stats_{k}": v for k, v in result.draws.sample_stats.items() if v.dtype.kind in "fiu"}
    arrays |= {f"stats_{k}": v.astype(np.int8) for k, v in result.draws.sample_stats.items() if v.dtype.kind == "b"}
    notes = {
        "version": installed_version("bayesunfold"),
        "configuration": result.configuration,
        "history": result.history,
        "seconds": result.seconds,
        "iteration_notes": [{"losses": r.losses, "decrements": r.decrements} for r in result.iterations],
        "gen_names": sim.gen_names,
        "reco_names": sim.reco_names,
        "named": [sim.gen_named, sim.reco_named],
        "undefined": [sim.undefined, result.data.undefined],
        "sources": list(m.step2.by_source),
        "fakes_sources": [] if m.fakes is None else list(m.fakes.by_source),
        "signal": list(m.perturbations.signal),
        "variations": list(m.perturbations.variations),
        "acceptances": list(m.perturbations.acceptances),
        "backgrounds": [
            [b.name, b.relative_uncertainty, b.undefined, list(b.names), b.named] for b in result.backgrounds
        ],
        "chains": result.draws.chains,
        "negative_data": m.negative_data,
    }
    dataset = xr.Dataset({name: _array(values, name) for name, values in arrays.items()})
    dataset.attrs["notes"] = json.dumps(notes)
    return dataset


def _unpack(dataset: xr.Dataset) -> UnfoldingResult:
    try:
        arrays = {str(k): np.asarray(v.values) for k, v in dataset.data_vars.items()}
        notes = json.loads(dataset.attrs["notes"])
        return _rebuild(arrays, notes)
    except KeyError as err:
        msg = f"the file misses {err}; it is damaged."
        raise FileFormatError(msg) from err
    except (ValueError, TypeError, IndexError, AttributeError, ConvergenceError, ArithmeticError) as err:
        if isinstance(err, FileFormatError):
            raise
        msg = f"what the file holds does not fit together ({type(err).__name__}: {err}); it is damaged."
        raise FileFormatError(msg) from err


def _rebuild(arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> UnfoldingResult:
    simulation = Simulation(
        arrays["gen"],
        arrays["reco"],
        weight=arrays["weight"],
        pass_gen=arrays["pass_gen"].astype(bool),
        pass_reco=arrays["pass_reco"].astype(bool),
        undefined=notes["undefined"][0],
        names=_given_names(notes["gen_names"], "gen"),
        reco_names=_given_names(notes["reco_names"], "reco"),
    )
    data = Data(
        arrays["data"],
        weight=arrays["data_weight"],
        undefined=notes["undefined"][1],
        names=_given_names(notes["reco_names"], "reco"),
    )
    scales = Scales(_scale(arrays, "gen"), _scale(arrays, "reco"))
    backgrounds = tuple(_background(arrays, k, *note) for k, note in enumerate(notes["backgrounds"]))
    events = standardize(simulation, data, backgrounds, scales)
    configuration = notes["configuration"]
    _check_arrays(arrays, notes)
    settings = Settings.from_state(configuration)
    packed = {k.removeprefix("iteration_"): v for k, v in arrays.items() if k.startswith("iteration_")}
    packed["notes"] = np.array(json.dumps(notes["iteration_notes"]))
    networks = unpack_iterations(packed)
    first, last = _replay(events, settings, networks, arrays)
    members = _members(arrays, notes, events, first, last)
    stats = {k.removeprefix("stats_"): v for k, v in arrays.items() if k.startswith("stats_")}
    return UnfoldingResult(
        inputs=Inputs(simulation, data, backgrounds),
        members=members,
        measurement=Measurement(first.step1, Draws(arrays["z"], notes["chains"], arrays["elbo"], stats)),
        iterations=tuple(networks),
        pull_weights=last.pull,
        record=Record(
            settings,
            int(configuration["random_seed"]),
            configuration.get("versions", {}),
            tuple(notes["history"]),
            notes["seconds"],
        ),
        closure_weights=arrays.get("closure_weights"),
    )


def _scale(arrays: dict[str, np.ndarray], level: str) -> Standardizer:
    return Standardizer.from_state({k: arrays[f"scale_{level}_{k}"] for k in STATE if f"scale_{level}_{k}" in arrays})


def _members(
    arrays: dict[str, np.ndarray],
    notes: dict[str, Any],
    events: StandardizedEvents,
    first: Iteration,
    last: Iteration,
) -> Members:
    """The ensemble, from seeds and displacements."""
    fakes = None
    if last.fakes is not None:
        by_source = {name: arrays[f"fakes_{k}"] for k, name in enumerate(notes["fakes_sources"])}
        fakes = Displacement(last.fakes, by_source)
    effects: dict[str, Effect] = {
        name: Variation(*(arrays[f"variation_{k}_{part}"] for part in ("alpha", "up", "down")))
        for k, name in enumerate(notes["variations"])
    }
    effects |= _acceptances(arrays, notes)
    n_members = arrays["z"].shape[0]
    perturbations = Perturbations(
        list_sources([b.name for b in events.backgrounds], effects, generator="generator" in notes["sources"]),
        sample_fluctuations(events, n_members, notes["configuration"]["random_seed"]),
        np.zeros((len(first.step1.theta), n_members)),
        effects,
        signal={name: arrays[f"signal_{k}"] for k, name in enumerate(notes["signal"])},
    )
    if "lam" in arrays:
        perturbations = Conditioning(first.step1, arrays["lam"]).apply(perturbations)
    return Members(
        events,
        last.push,
        replace(perturbations, prior=perturbations.prior[:0]),
        Displacement(last.step2, {name: arrays[f"push_{k}"] for k, name in enumerate(notes["sources"])}),
        fakes,
        arrays.get("lam"),
        notes["negative_data"],
    )


def _background(
    arrays: dict[str, np.ndarray], k: int, name: str, uncertainty: float, undefined: Any, names: list[str], named: bool
) -> Background:
    features, weight = arrays[f"background_{k}_features"], arrays[f"background_{k}_weight"]
    return Background(features, weight, name, uncertainty, undefined, names=names if named else None)


def _check_arrays(arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
    """Shapes and numbers that would only be met at the first spectrum.

    Raises
    ------
    FileFormatError
    """
    configuration = notes["configuration"]
    members, chains = arrays["z"].shape[0], notes["chains"]
    problems = []
    if configuration.get("efficiency") not in ("learned", "prior"):
        problems.append(f"efficiency is {configuration.get('efficiency')!r}")
    if not isinstance(chains, int) or chains < 1 or members % chains:
        problems.append(f"{members} draws in {chains!r} chains")
    for prefix, sources in (("push", notes["sources"]), ("fakes", notes["fakes_sources"])):
        for k, name in enumerate(sources):
            found, wanted = arrays[f"{prefix}_{k}"], (arrays[f"{prefix}_basis"].shape[1], members)
            if found.shape != wanted:
                problems.append(f"the displacement of {name} has shape {found.shape} instead of {wanted}")
    for k, name in enumerate(notes["signal"]):
        if arrays[f"signal_{k}"].shape != (members,):
            problems.append(f"the yields of {name} have shape {arrays[f'signal_{k}'].shape}")
    made = ("push_", "fakes_", "signal_", "lam", "z", "iteration_", "variation_")
    nan = [n for n, a in arrays.items() if n.startswith(made) and a.dtype.kind == "f" and not np.all(np.isfinite(a))]
    problems += [f"{name} is not finite" for name in nan]
    if problems:
        msg = f"what the file holds does not fit together ({'; '.join(problems[:3])}); it is damaged."
        raise FileFormatError(msg)


def _acceptances(arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> dict[str, Acceptance]:
    """Systematics that shift the detector level; old files have no nuisance parameters of them."""
    names = notes.get("acceptances")
    if names is None:
        known = {"data", "simulation", "prior", "generator", *notes["variations"], *notes["signal"]}
        names = [n for n in notes["sources"] if n not in known]
        return {name: Acceptance(np.full(arrays["z"].shape[0], np.nan)) for name in names}
    return {
        name: Acceptance(
            arrays[f"acceptance_{k}_alpha"],
            arrays.get(f"acceptance_{k}_up"),
            arrays.get(f"acceptance_{k}_down"),
            (float(arrays[f"acceptance_{k}_outside"][0]), float(arrays[f"acceptance_{k}_outside"][1])),
        )
        for k, name in enumerate(names)
    }


def _given_names(names: Sequence[str], level: str) -> Sequence[str] | None:
    """Names that the user gave; None for those by number, which are made again."""
    return None if all(re.fullmatch(rf"{level}(_\d+)?", n) for n in names) else names


def _replay(
    events: StandardizedEvents, settings: Settings, networks: list[Networks], arrays: dict[str, np.ndarray]
) -> tuple[Iteration, Iteration]:
    """The first and the last iteration, from their networks and the stored directions."""
    stored = {"step2": arrays["push_basis"]}
    if "fakes_basis" in arrays:
        stored["fakes"] = arrays["fakes_basis"]
    first: Iteration | None = None
    before: Iteration | None = None
    for k, record in enumerate(networks):
        directions = dict(stored) if k == len(networks) - 1 else {}
        if k == 0:
            directions["step1"] = arrays["first_basis"]
        before = iterate(events, settings, before, networks[0] if k else None, recall(record, directions))
        first = first or before
    if first is None or before is None:
        msg = "the file holds no iteration; it is damaged."
        raise FileFormatError(msg)
    return first, before
