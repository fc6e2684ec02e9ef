"""The configuration file of ``bayesunfold unfold``: one schema that checks it and documents it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesunfold._support.checks import check_bins, check_names
from bayesunfold.classifier.network import Network
from bayesunfold.errors import FileFormatError, InputError
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.io.columns import is_address, read_columns
from bayesunfold.normalization import read_luminosity
from bayesunfold.omnifold.estimator import OmniFold
from bayesunfold.omnifold.storage import load
from bayesunfold.studies.resampled import ResampledToys
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["Job", "load_job", "schema_text"]

TEXT, NUMBER, WHOLE, FLAG = "text", "number", "whole number", "true or false"
TEXTS, NUMBERS = "list of texts", "list of numbers"

SOURCE = {
    "file": (TEXT, "ROOT, parquet, HDF5 or npz file; relative to the configuration"),
    "tree": (TEXT, "TTree, RNTuple or HDF5 group"),
    "selection": (TEXT, "expression; only events where it is true are used"),
}
SCHEMA: dict[str, dict[str, tuple[str, str]]] = {
    "simulation": SOURCE
    | {
        "gen": (TEXTS, "particle-level features, expressions of columns (required)"),
        "reco": (TEXTS, "detector-level features (required)"),
        "names": (TEXTS, "names of the particle-level features; their expressions if omitted"),
        "reco_names": (TEXTS, "names of the detector-level features"),
        "weight": (TEXT, "generator weight"),
        "pass_gen": (TEXT, "expression: passes the particle-level selection"),
        "pass_reco": (TEXT, "expression: passes the detector-level selection"),
        "undefined": (TEXT, '"error" or "indicator": what NaN means'),
    },
    "data": SOURCE
    | {
        "features": (TEXTS, "detector-level features, in the order of simulation.reco (required)"),
        "weight": (TEXT, "data weight"),
        "undefined": (TEXT, '"error" or "indicator"'),
    },
    "background": SOURCE
    | {
        "name": (TEXT, "row among the sources of uncertainty (required)"),
        "features": (TEXTS, "detector-level features (required)"),
        "weight": (TEXT, "weight in units of expected data events"),
        "relative_uncertainty": (NUMBER, "of the normalisation"),
    },
    "systematic": {
        "name": (TEXT, "row among the sources of uncertainty (required)"),
        "weight_up": (TEXT, "expression: full generator weight at +1 standard deviation"),
        "weight_down": (TEXT, "the same at -1"),
        "reco_up": (TEXTS, "detector-level features at +1 standard deviation"),
        "reco_down": (TEXTS, "the same at -1"),
        "pass_reco_up": (TEXT, "expression: passes the detector-level selection at +1; needed where a cut moves too"),
        "pass_reco_down": (TEXT, "the same at -1"),
    },
    "unfolding": {
        "iterations": ("whole number or 'auto'", "iterations"),
        "inference": (TEXT, '"advi", "nuts" or "laplace"'),
        "draws": (WHOLE, "members of the ensemble"),
        "efficiency": (TEXT, '"learned" or "prior"'),
        "generator_prior": (NUMBER, "relative uncertainty of the generator"),
        "random_seed": (WHOLE, "the same seed gives the same result"),
        "bias": (FLAG, "estimate the bias at the answer as well, half as long as training again (on if omitted)"),
    },
    "network": {
        "hidden": ("list of whole numbers", "units of each hidden layer"),
        "activation": (TEXT, '"tanh", "relu" or "softplus"'),
        "prior_scale": (NUMBERS, "prior scale of each layer"),
    },
    "spectrum": {
        "observable": (TEXT, "a particle-level feature (required)"),
        "bins": (NUMBERS, "bin edges (required)"),
        "normalization": (TEXT, '"yield", "shape" or "density"'),
        "luminosity": (NUMBER, "divides the spectrum"),
        "luminosity_uncertainty": (NUMBER, "relative"),
        "unit": (TEXT, "of the observable, for what is published"),
    },
    "coverage": {
        "toys": (WHOLE, "pseudo-experiments"),
        "truth_weight": (TEXT, "expression of the simulation: factor on the generator weight that makes nature"),
        "answer": (TEXT, "saved result whose weights make nature; relative to the output folder"),
        "expected_data": (NUMBER, "expected number of data events; that of the data file if omitted"),
    },
    "output": {
        "folder": (TEXT, "where everything is written; relative to the configuration"),
        "report": (FLAG, "write the dashboard"),
        "publication": (FLAG, "write events.parquet and metadata.yaml"),
        "publication_by_source": (FLAG, "publish weights in which one source alone fluctuates, too"),
        "root": (FLAG, "write spectra as ROOT histograms"),
        "hepdata": (FLAG, "write a HEPData submission"),
        "abstract": (TEXT, "of the HEPData submission"),
        "generator": (TEXT, "generator and tune, for the metadata of the publication"),
        "event_selection": (TEXT, "the particle-level selection in words, likewise"),
        "reference": (TEXT, "arXiv number or DOI, likewise"),
    },
}
FLAGS = ("pass_reco_up", "pass_reco_down")
MANY = ("background", "systematic", "spectrum")
REQUIRED = {
    "simulation": ("file", "gen", "reco"),
    "data": ("file", "features"),
    "background": ("file", "name", "features"),
    "systematic": ("name",),
    "spectrum": ("observable", "bins"),
}
CHECKS: dict[str, Any] = {
    TEXT: lambda v: isinstance(v, str),
    NUMBER: lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    WHOLE: lambda v: isinstance(v, int) and not isinstance(v, bool),
    FLAG: lambda v: isinstance(v, bool),
    TEXTS: lambda v: isinstance(v, list) and v and all(isinstance(x, str) for x in v),
    NUMBERS: lambda v: isinstance(v, list) and all(isinstance(x, int | float) for x in v),
    "list of whole numbers": lambda v: isinstance(v, list) and all(isinstance(x, int) for x in v),
    "whole number or 'auto'": lambda v: v == "auto" or (isinstance(v, int) and not isinstance(v, bool)),
}


def __dir__() -> list[str]:
    return __all__


def schema_text() -> str:
    """All sections and keys with their meaning, as a commented configuration."""
    lines = []
    for section, keys in SCHEMA.items():
        lines.append(f"[[{section}]]  # any number" if section in MANY else f"[{section}]")
        lines += [f"# {key}: {kind}; {meaning}" for key, (kind, meaning) in keys.items()]
        lines.append("")
    return "\n".join(lines)


@dataclass
class Job:
    """A checked configuration.

    Attributes
    ----------
    path : Path
        The configuration file.
    settings : dict
        Its contents; lists for sections that may repeat.
    progressbar : bool
        Whether reading of files shows progress.
    unused : int
        Simulated events that passed no level, which were dropped when the simulation was read.
    """

    path: Path
    settings: dict[str, Any]
    progressbar: bool = False
    unused: int = 0

    def file(self, name: str) -> Path:
        """A path relative to the configuration."""
        return self.path.parent / name

    @property
    def folder(self) -> Path:
        """Where output goes."""
        return self.file(self.settings["output"].get("folder", self.path.stem))

    def _read(self, section: Mapping[str, Any], expressions: list[str]) -> dict[str, np.ndarray]:
        name = section["file"]
        return read_columns(
            name if is_address(name) else self.file(name),
            expressions,
            selection=section.get("selection"),
            tree=section.get("tree"),
            progressbar=self.progressbar,
        )

    def simulation(self) -> tuple[Simulation, list[Systematic]]:
        """Simulated events and their systematic variations, read together."""
        s = self.settings["simulation"]
        single = [s[key] for key in ("weight", "pass_gen", "pass_reco") if key in s]
        wanted = s["gen"] + s["reco"] + single
        for systematic in self.settings["systematic"]:
            for key, value in systematic.items():
                if key != "name":
                    wanted = wanted + (value if isinstance(value, list) else [value])
        columns = self._read(s, list(dict.fromkeys(wanted)))
        columns = self._used(columns)
        optional: dict[str, Any] = {key: columns[s[key]] for key in ("weight", "pass_gen", "pass_reco") if key in s}
        simulation = Simulation(
            _table(columns, s["gen"]),
            _table(columns, s["reco"]),
            **optional,
            undefined=s.get("undefined", "error"),
            names=_names(s, "names", s["gen"]),
            reco_names=_names(s, "reco_names", s["reco"]),
        )
        systematics = []
        for systematic in self.settings["systematic"]:
            given: dict[str, Any] = {
                key: _table(columns, value) if isinstance(value, list) else columns[value]
                for key, value in systematic.items()
                if key != "name"
            }
            systematics.append(Systematic(systematic["name"], **given))
        return simulation, systematics

    def _used(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Events that pass a level, nominally or in a variation; the others are counted and dropped."""
        s = self.settings["simulation"]
        if "pass_gen" not in s or "pass_reco" not in s:
            return columns
        varied = [systematic.get(key) for systematic in self.settings["systematic"] for key in FLAGS]
        flags = [columns[name] for name in (s["pass_gen"], s["pass_reco"], *(v for v in varied if v is not None))]
        if any(flag.dtype != bool for flag in flags):
            return columns  # an error of the simulation, which names the flag
        used = np.any(flags, axis=0)
        self.unused = int((~used).sum())
        return {name: values[used] for name, values in columns.items()} if self.unused else columns

    def data(self) -> Data:
        """Measured events."""
        s = self.settings["data"]
        columns = self._read(s, s["features"] + ([s["weight"]] if "weight" in s else []))
        weight = columns[s["weight"]] if "weight" in s else None
        return Data(_table(columns, s["features"]), weight, s.get("undefined", "error"))

    def backgrounds(self) -> list[Background]:
        """Background events."""
        out = []
        for s in self.settings["background"]:
            columns = self._read(s, s["features"] + ([s["weight"]] if "weight" in s else []))
            weight = columns[s["weight"]] if "weight" in s else None
            uncertainty = s.get("relative_uncertainty", 0.0)
            out.append(Background(_table(columns, s["features"]), weight, s["name"], uncertainty))
        return out

    def toys(self) -> ResampledToys:
        """Pseudo-experiments from the simulation, as the section [coverage] says."""
        section = self.settings["coverage"]
        simulation, systematics = self.simulation()
        if systematics:
            msg = "coverage toys have no systematic variations; remove the sections [[systematic]]."
            raise InputError(msg)
        if "truth_weight" in section and "answer" in section:
            msg = "coverage.truth_weight and coverage.answer both say what nature is; give one of them."
            raise InputError(msg)
        factor = None
        if "truth_weight" in section:
            expression = section["truth_weight"]
            factor = self._read(self.settings["simulation"], [expression])[expression]
        elif "answer" in section:
            factor = _answer(self.folder / section["answer"], simulation)
        count = section["expected_data"] if "expected_data" in section else self._expected_data()
        return ResampledToys(simulation, count, factor, self.backgrounds())

    def _expected_data(self) -> float:
        data = self.data()
        if np.any(data.weight != 1.0):
            msg = "the data have weights, and toys have none; say how many events to draw with coverage.expected_data."
            raise InputError(msg)
        return float(len(data))

    def unfolder(self, *, progressbar: bool = True) -> OmniFold:
        """The unfolding's settings."""
        return OmniFold(**self.unfolding(), progressbar=progressbar)

    def unfolding(self) -> dict[str, Any]:
        """Arguments of the unfolding."""
        settings = {k: v for k, v in self.settings["unfolding"].items() if k != "bias"}
        return settings | {"network": Network(**self.settings["network"]) if self.settings["network"] else None}


def _answer(path: Path, simulation: Simulation) -> np.ndarray:
    """Weights of a saved answer in units of the generator's, fakes included."""
    result = load(path)
    if not np.array_equal(result.simulation.gen, simulation.gen, equal_nan=True):
        msg = f"{path} was unfolded with another simulation ({len(result)} events, here {len(simulation)})."
        raise InputError(msg)
    nature = np.where(simulation.pass_gen, result.nominal, result.nominal_reco)
    return np.divide(nature, simulation.weight, out=np.zeros(len(nature)), where=simulation.weight != 0)


def _table(columns: Mapping[str, np.ndarray], names: list[str]) -> np.ndarray:
    return np.column_stack([np.asarray(columns[name], dtype=np.float64) for name in names])


def _names(section: Mapping[str, Any], key: str, expressions: list[str]) -> tuple[str, ...]:
    """Names of features: those given, else their expressions, with what files cannot hold written out."""
    return check_names(section.get(key, [e.replace("/", " over ") for e in expressions]), len(expressions), key)


def load_job(path: str | Path) -> Job:
    """Read and check a configuration.

    Raises
    ------
    FileFormatError
        If it is not TOML.
    InputError
        For an unknown section or key, with the nearest legal one, a missing key, or a value of the wrong kind.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        msg = f"{path} is not TOML: {err}."
        raise FileFormatError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path} is not a text file."
        raise FileFormatError(msg) from None
    for section in raw:
        _known(section, SCHEMA, "section")
    for section in ("simulation", "data"):
        if section not in raw:
            msg = f"{path} has no section [{section}]; it must say which file to read."
            raise InputError(msg)
    settings: dict[str, Any] = {}
    for section, keys in SCHEMA.items():
        value = raw.get(section, [] if section in MANY else {})
        if isinstance(value, list) != (section in MANY):
            brackets = f"[[{section}]]" if section in MANY else f"[{section}]"
            msg = f"section {section} must be written {brackets}."
            raise InputError(msg)
        for table in value if isinstance(value, list) else [value]:
            if not isinstance(table, dict):
                msg = f"section {section} is {value!r}; write its keys under [{section}]."
                raise InputError(msg)
            _check_table(section, table, keys, present=section in raw)
        settings[section] = value
    _check_spectra(settings["spectrum"])
    return Job(path, settings)


def _check_spectra(sections: list[dict[str, Any]]) -> None:
    """Bins and normalisation, before hours of training and not after."""
    seen = set()
    for section in sections:
        name = section["observable"]
        check_bins(section["bins"], f"bins of {name}")
        normalization = section.get("normalization", "yield")
        if "luminosity_uncertainty" in section and "luminosity" not in section:
            msg = f"the spectrum of {name} has a luminosity_uncertainty and no luminosity; give both, or neither."
            raise InputError(msg)
        if normalization not in ("yield", "shape", "density"):
            msg = f"spectrum.normalization is {normalization!r}; it must be 'yield', 'shape' or 'density'."
            raise InputError(msg)
        if normalization == "shape" and "luminosity" in section:
            msg = f"the spectrum of {name} is a shape and has a luminosity; use 'yield' or 'density', or drop it."
            raise InputError(msg)
        if name in seen:
            msg = f"two sections [[spectrum]] name {name}; one file is written for each, so give an observable once."
            raise InputError(msg)
        read_luminosity(luminosity_of(section), normalization)
        seen.add(name)


def luminosity_of(section: Mapping[str, Any]) -> float | tuple[float, float] | None:
    """Luminosity of a section [[spectrum]], as :meth:`UnfoldingResult.spectrum` takes it."""
    if "luminosity" not in section:
        return None
    return section["luminosity"], section.get("luminosity_uncertainty", 0.0)


def _check_table(section: str, table: Mapping[str, Any], keys: Mapping[str, tuple[str, str]], *, present: bool) -> None:
    for key, value in table.items():
        _known(key, keys, f"key of [{section}]")
        kind, meaning = keys[key]
        if not CHECKS[kind](value):
            msg = f"{section}.{key} is {value!r}; it must be a {kind}: {meaning}."
            raise InputError(msg)
    missing = [key for key in REQUIRED.get(section, ()) if key not in table]
    if present and missing:
        msg = f"section [{section}] misses {', '.join(missing)}."
        raise InputError(msg)


def _known(name: str, legal: Mapping[str, Any], what: str) -> None:
    if name not in legal:
        near = difflib.get_close_matches(name, legal, n=1, cutoff=0.0)[0]
        msg = f"{name!r} is not a {what}; the nearest is {near!r}. Legal are {', '.join(legal)}."
        raise InputError(msg)
