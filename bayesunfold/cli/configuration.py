"""The work that a configuration of ``bayesunfold unfold`` describes: which events to read, and how to unfold them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from bayesunfold._support.checks import check_names
from bayesunfold.classifier.network import Network
from bayesunfold.cli.blind import BlindSplit, split_blind
from bayesunfold.cli.patterns import PLACE, deciding_background, expand
from bayesunfold.cli.reading import FileEntry, Reader, each_column
from bayesunfold.cli.run_sections import CoverageSection
from bayesunfold.cli.schema import read_configuration
from bayesunfold.cli.sections import (
    BackgroundSection,
    Configuration,
    Files,
    Source,
    SystematicSection,
    VariedBackgroundSection,
    check_factors,
)
from bayesunfold.cli.simulated import NOT_READ, SimulatedColumns, Wanted, match_tables, table
from bayesunfold.direct.estimator import UnbinnedFBU
from bayesunfold.direct.settings import default_networks
from bayesunfold.direct.unfold import estimator
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Simulation, Undefined
from bayesunfold.io.formats import list_trees
from bayesunfold.io.friends import open_source
from bayesunfold.io.sources import named_sources, without_trees
from bayesunfold.io.storage import load
from bayesunfold.omnifold.estimator import OmniFold
from bayesunfold.studies.resampled import ResampledToys
from bayesunfold.unfolding.background_changes import check_background_names
from bayesunfold.unfolding.levels import Levels
from bayesunfold.unfolding.matching import Absent
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["Job", "feature_names", "load_job"]


MOVED_FLAGS = ("pass_reco_up", "pass_reco_down")


def __dir__() -> list[str]:
    return __all__


@dataclass
class Job:
    """A checked configuration.

    Attributes
    ----------
    path : Path
        The configuration file.
    sections : Configuration
        Its contents.
    progressbar : bool
        Whether reading of files shows progress.
    unused : int
        Simulated events that passed no level, which were dropped when the simulation was read.
    unused_alternatives : dict of str to int
        By systematic: the same of its alternative simulation.
    unblind : bool
        Whether data may be read that the configuration calls blind.
    manifest : list of FileEntry
        What was read, file by file.
    levels : Levels, optional
        How the levels of the simulation were matched, if they are in two tables.
    """

    path: Path
    sections: Configuration
    progressbar: bool = False
    unused: int = 0
    unused_alternatives: dict[str, int] = field(default_factory=dict)
    unblind: bool = False
    manifest: list[FileEntry] = field(default_factory=list)
    levels: Levels | None = None

    @cached_property
    def reader(self) -> Reader:
        """What reads the files."""
        return Reader(self.path.parent, self.sections.alias, self.progressbar, self.manifest)

    @cached_property
    def systematic(self) -> list[SystematicSection]:
        """Sections of the systematics, one per variation."""
        sections = self.sections.systematic
        if not any(PLACE in str(msgspec.structs.asdict(section)) for section in sections):
            return list(sections)
        s = self.sections.simulation
        first = named_sources(s.file, s.tree, self.path.parent)[0]
        reco = [*self._names_in(s), *self.sections.alias]
        gen = reco if s.gen_source is None else [*self._names_in(s.gen_source), *self.sections.alias]
        trees = list_trees(first.path)
        out = []
        for section in sections:
            names, there = gen if PLACE in str(section.weight_up) else reco, trees
            background = deciding_background(section)
            if background is not None:
                names, there = self._of_background(section.name, background)
            elif section.file is not None and PLACE not in str(section.file):
                names, there = self._of_variation(section)
            out += expand(section, names, there)
        return out

    def _of_variation(self, section: SystematicSection) -> tuple[list[str], list[str]]:
        """Columns and trees of the first file of a variation that has its own."""
        in_tree = PLACE in (section.tree or "")
        source = Source(file=cast("Files", section.file), tree=None if in_tree else section.tree)
        there = list_trees(named_sources(source.file, source.tree, self.path.parent)[0].path)
        return [] if in_tree else [*self._names_in(source), *self.sections.alias], there

    def _of_background(self, systematic: str, varied: VariedBackgroundSection) -> tuple[list[str], list[str]]:
        """Columns and trees of the first file of a background in a variation."""
        known = {s.name: s for s in self.sections.background}
        check_background_names(systematic, [varied.name], list(known))
        source, *_ = varied.sides(known[varied.name])[0]
        if PLACE in str(source.file):
            msg = (
                f"the systematic {systematic!r} has {PLACE} in the file of the background {varied.name!r}, which says "
                "what there is; name one file, with a tree or a column per variation."
            )
            raise InputError(msg)
        if PLACE in (varied.tree or ""):
            source = Source(file=source.file)
        trees = list_trees(named_sources(source.file, source.tree, self.path.parent)[0].path)
        columns = [] if PLACE in (varied.tree or "") else [*self._names_in(source), *self.sections.alias]
        return columns, trees

    def _names_in(self, source: Source) -> list[str]:
        """Columns of the first file of a source, those of its friends included."""
        with open_source(named_sources(source.file, source.tree, self.path.parent)[0]) as file:
            return list(file.names)

    def file(self, name: str) -> Path:
        """A path relative to the configuration."""
        return self.path.parent / name

    @property
    def folder(self) -> Path:
        """Where output goes; that of a blind run has a folder of its own."""
        folder = self.file(self.sections.output.folder or self.path.stem)
        return folder / "blind" if self.blind else folder

    @property
    def blind(self) -> bool:
        """Whether pseudo-data take the place of the data."""
        return self.sections.data.blind and not self.unblind

    def _simulated(self) -> SimulatedColumns:
        """Columns of the simulated events that pass a level; the others are counted and dropped."""
        s = self.sections.simulation
        gen_source = s.gen_source
        weighted = s.weight_source
        truth = self.sections.coverage.truth_weight
        gen = [*s.gen, *(e for e in (s.pass_gen, truth) if e is not None)]
        reco = [*s.reco, *(e for e in (s.pass_reco, s.reco_factor) if e is not None)]
        weight = weighted.scaled(s.weight)
        either = [] if weight is None else [weight]
        for section in self.systematic:
            for name, value in () if section.has_events else section.scaled_variations(weighted).items():
                (either if name.startswith("weight") else reco).extend(value if isinstance(value, list) else [value])
        key = s.key or []
        wanted = Wanted(gen, reco, either, weight)
        if gen_source is not None:
            found = match_tables(self.reader.columns, (gen_source, s.gen_key or key), (s, key), wanted)
            self.levels = found.levels
        elif s.cache is not None:
            return self._mapped(wanted)
        else:
            every = list(dict.fromkeys([*gen, *reco, *either, *key]))
            columns = self.reader.columns(s, every, "simulation", weight, key)
            found = SimulatedColumns(columns, columns, tuple(columns[name] for name in key))
        return self._used(found)

    def _mapped(self, wanted: Wanted) -> SimulatedColumns:
        """Columns of the simulated events as memory maps, of those that pass a level."""
        s = self.sections.simulation
        varied = [section.variations() for section in self.systematic if not section.has_events]
        moved = self._moved_flags()
        flags = {flag for flag in (s.pass_gen, s.pass_reco, *moved) if flag is not None}
        features = [s.gen, s.reco, *(value for names in varied for value in names.values() if isinstance(value, list))]
        alone = {*wanted.gen, *wanted.reco, *wanted.either} - {e for group in features for e in group} - flags
        known = s.pass_gen is not None and s.pass_reco is not None and len(varied) == len(self.systematic)
        used = " | ".join(f"({flag})" for flag in sorted(flags)) if known else None  # as _used
        groups = [*features, sorted(alone)]
        maps, self.unused = self.reader.tables(s, groups, sorted(flags), "simulation", wanted.weight, used=used)
        columns = each_column(maps)
        keys = self.reader.columns(s, s.key, keys=s.key) if s.key and len(varied) < len(self.systematic) else {}
        return SimulatedColumns(columns, columns, tuple(keys.values()), maps=maps)

    def _moved_flags(self) -> list[str]:
        """Expressions of who passes detector level in the variations of the nominal events."""
        varied = [section.variations() for section in self.systematic if not section.has_events]
        found = [names.get(flag) for names in varied for flag in MOVED_FLAGS]
        return [name for name in found if isinstance(name, str)]

    def simulation(self) -> tuple[Simulation, list[Systematic]]:
        """Simulated events and their systematic variations, read together.

        Of a blind run, those that the pseudo-data leave: :func:`bayesunfold.cli.blind.split_blind`.
        """
        simulation, systematics, _ = self._simulation
        if not self.blind:
            return simulation, systematics
        return self._blind.simulation, [self._blind.systematic(systematic) for systematic in systematics]

    @cached_property
    def _simulation(self) -> tuple[Simulation, list[Systematic], np.ndarray | None]:
        """All simulated events, their variations, and what the section [coverage] multiplies their weights by."""
        s = self.sections.simulation
        for section in self.systematic:
            section.check()
            section.other_simulation(s)
        events = self._simulated()
        weighted, truth = s.weight_source, self.sections.coverage.truth_weight
        weight = weighted.scaled(s.weight)
        simulation = Simulation(
            events.gen_table(s.gen),
            events.reco_table(s.reco),
            weight=None if weight is None else events.either(weight),
            **events.passes(s.pass_gen, s.pass_reco),
            undefined=cast("Undefined", s.undefined),
            names=feature_names(s.names, s.gen, "names"),
            reco_names=feature_names(s.reco_names, s.reco, "reco_names"),
            reco_factor=None if s.reco_factor is None else events.reco(s.reco_factor),
        )
        systematics = []
        for section in self.systematic:
            if section.has_events:
                systematics.append(self._matched(section, simulation, events.keys()))
                continue
            given: dict[str, Any] = {
                name: events.reco_table(value)
                if isinstance(value, list)
                else (events.either if name.startswith("weight") else events.reco)(value)
                for name, value in section.scaled_variations(weighted).items()
            }
            systematics.append(
                Systematic(
                    section.name,
                    **given,
                    alternative=self._alternative(section),
                    correlation=section.correlation,
                    backgrounds=self._varied(section),
                    profile=section.profile,
                )
            )
        return simulation, systematics, None if truth is None else events.gen(truth)

    def _alternative(self, section: SystematicSection) -> Simulation | None:
        """The other simulation of a two-point uncertainty, read with the expressions of the nominal one."""
        source = section.other_simulation(self.sections.simulation)
        if source is None:
            return None
        sections = msgspec.structs.replace(self.sections, simulation=source, systematic=[], coverage=CoverageSection())
        other = Job(self.path, sections, self.progressbar)
        simulation, _, _ = other._simulation
        self.manifest += [replace(e, sample=e.sample.replace("simulation", section.name, 1)) for e in other.manifest]
        self.unused_alternatives[section.name] = other.unused
        return simulation

    def _matched(self, section: SystematicSection, simulation: Simulation, keys: tuple[np.ndarray, ...]) -> Systematic:
        """A variation with events of its own."""
        own = self.sections.simulation.key
        key = section.key or own
        if own is None or key is None:
            msg = (
                f"the systematic {section.name!r} has events of its own; give key in [simulation], an expression that "
                'identifies an event, for instance "eventNumber".'
            )
            raise InputError(msg)
        s, sides = self.sections.simulation, {}
        for side, file, tree in (
            ("up", section.file, section.tree),
            ("down", section.file_down or section.file, section.tree_down or section.tree),
        ):
            named = file or (s.file if tree is None else cast("Files", without_trees(s.file)))
            source = Source(file=named, tree=tree, selection=section.selection)
            varied = section.scaled_variations(source)
            given = {k.rsplit("_", 1)[0]: v for k, v in varied.items() if k.endswith(side)}
            if not given:
                continue
            if file is not None and "weight" in given:
                check_factors("[simulation]", s.file, file, f"the systematic {section.name!r}")
            expressions = [e for v in given.values() for e in (v if isinstance(v, list) else [v])]
            read = self.reader.columns(
                source, list(dict.fromkeys([*key, *expressions])), f"{section.name}, {side}", NOT_READ, key
            )
            found = {k: table(read.__getitem__, v) if isinstance(v, list) else read[v] for k, v in given.items()}
            sides[side] = {"key": tuple(read[name] for name in key)} | found
        if "up" not in sides:
            msg = (
                f"the systematic {section.name!r} has a file and no expression at +1; give reco_up, reco_factor_up or "
                "weight_up."
            )
            raise InputError(msg)
        return Systematic.from_events(
            section.name,
            simulation,
            key=keys,
            up=sides["up"],
            down=sides.get("down"),
            absent=cast("Absent", section.absent),
            correlation=section.correlation,
            backgrounds=self._varied(section),
            profile=section.profile,
        )

    def _varied(self, section: SystematicSection) -> dict[str, tuple[Background, Background | None]] | None:
        """What a systematic makes of the backgrounds."""
        known = {s.name: s for s in self.sections.background}
        out = {}
        for varied in section.background:
            if varied.name in out:
                msg = f"the systematic {section.name!r} has two sections for the background {varied.name!r}; give one."
                raise InputError(msg)
            check_background_names(section.name, [varied.name], list(known))
            sides, undefined = [], self._undefined(known[varied.name])
            for source, features, weight in varied.sides(known[varied.name]):
                values, weights = self._sample(source, features, weight, f"{section.name}, {varied.name}")
                sides.append(Background(values, weights, varied.name, undefined=undefined))
            out[varied.name] = (sides[0], sides[1] if len(sides) == 2 else None)
        return out or None

    def _used(self, events: SimulatedColumns) -> SimulatedColumns:
        """Events that pass a level, nominally or in a variation."""
        s = self.sections.simulation
        passes = events.passes(s.pass_gen, s.pass_reco)
        if len(passes) < 2 or any(k.has_events for k in self.systematic):
            return events  # an event may pass in a variation that is not read yet
        flags = [*passes.values(), *(events.reco(name) for name in self._moved_flags())]
        if any(flag.dtype != bool for flag in flags):
            return events  # an error of the simulation, which names the flag
        used = np.any(flags, axis=0)
        self.unused = int((~used).sum())
        return events.kept(used) if self.unused else events

    def data(self) -> Data:
        """Measured events, or pseudo-data if the configuration is blind."""
        s = self.sections.data
        if self.blind:
            return self._blind.data
        features, weight = self._sample(s, s.features, s.weight, "data")
        return Data(features, weight, cast("Undefined", s.undefined))

    @cached_property
    def _blind(self) -> BlindSplit:
        """Pseudo-data of a blind run, and what they leave of the samples."""
        expected = self.sections.coverage.expected_data
        if expected is None:
            msg = (
                "[data] is blind, so pseudo-data take its place; say how many events to expect with expected_data in "
                "[coverage]."
            )
            raise InputError(msg)
        return split_blind(self._simulation[0], self._backgrounds, expected)

    @cached_property
    def _backgrounds(self) -> list[Background]:
        out = []
        for s in self.sections.background:
            features, weight = self._sample(s, s.features, s.weight, s.name)
            undefined = self._undefined(s)
            out.append(Background(features, weight, s.name, s.relative_uncertainty, undefined, profile=s.profile))
        return out

    def _undefined(self, section: BackgroundSection) -> Undefined:
        """What undefined features of a background are: by default as in the simulation."""
        return cast("Undefined", section.undefined or self.sections.simulation.undefined)

    def backgrounds(self) -> list[Background]:
        """Background events; of a blind run, those that the pseudo-data leave."""
        return list(self._blind.backgrounds if self.blind else self._backgrounds)

    def _sample(
        self, source: Source, features: list[str], weight: str | None, name: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Features and weights of events of the detector level."""
        weight = source.scaled(weight)
        if source.cache is not None:
            maps, _ = self.reader.tables(source, [features, [] if weight is None else [weight]], [], name, weight)
            return maps[tuple(features)], None if weight is None else each_column(maps)[weight]
        columns = self.reader.columns(source, features + ([] if weight is None else [weight]), name, weight)
        return table(columns.__getitem__, features), None if weight is None else columns[weight]

    def toys(self) -> ResampledToys:
        """Pseudo-experiments from the simulation, as the section [coverage] says."""
        section = self.sections.coverage
        simulation, systematics, factor = self._simulation
        if systematics:
            msg = "coverage toys have no systematic variations; remove the sections [[systematic]]."
            raise InputError(msg)
        if section.truth_weight is not None and section.answer is not None:
            msg = "coverage.truth_weight and coverage.answer both say what the truth of the toys is; give one of them."
            raise InputError(msg)
        if section.answer is not None:
            factor = _truth_of_result(self.folder / section.answer, simulation)
        count = section.expected_data if section.expected_data is not None else self._expected_data()
        return ResampledToys(simulation, count, factor, self._backgrounds)

    def _expected_data(self) -> float:
        if self.blind:
            msg = "[data] is blind; say how many events to draw with coverage.expected_data."
            raise InputError(msg)
        data = self.data()
        if np.any(data.weight != 1.0):
            msg = "the data have weights, and toys have none; say how many events to draw with coverage.expected_data."
            raise InputError(msg)
        return float(len(data))

    def unfolder(self, *, progressbar: bool = True) -> OmniFold | UnbinnedFBU:
        """The method with its settings."""
        return estimator(self.sections.unfolding.method)(**self.unfolding(), progressbar=progressbar)

    def unfolding(self) -> dict[str, Any]:
        """Arguments of the method.

        Raises
        ------
        InputError
            For a key that belongs to another method.
        """
        section = self.sections.unfolding
        given = section.settings()
        legal = list(inspect.signature(estimator(section.method)).parameters)
        for name in given:
            if name not in legal:
                keys = {key.name for key in msgspec.structs.fields(type(section))}
                known = ", ".join(n for n in legal if n in keys)
                msg = f"unfolding.{name} does not belong to the method {section.method!r}, which has {known}."
                raise InputError(msg)
        network: dict[str, Any] = self.sections.network.settings()
        if not network:
            return given | {"network": None}
        direct = section.method == "direct"
        default = default_networks(len(self.sections.simulation.gen))[0] if direct else Network()
        return given | {"network": replace(default, **network)}


def _truth_of_result(path: Path, simulation: Simulation) -> np.ndarray:
    """Weights of a saved result in units of the generator's, fakes included."""
    result = load(path)
    if not np.array_equal(result.simulation.gen, simulation.gen, equal_nan=True):
        msg = f"{path} was unfolded with another simulation ({len(result)} events, here {len(simulation)})."
        raise InputError(msg)
    seen = result.nominal_reco
    if simulation.reco_factor is not None:  # toys count them at detector level themselves
        factor = simulation.reco_factor
        seen = np.divide(seen, factor, out=np.zeros(len(seen)), where=factor > 0)
    truth = np.where(simulation.pass_gen, result.nominal, seen)
    return np.divide(truth, simulation.weight, out=np.zeros(len(truth)), where=simulation.weight != 0)


def feature_names(given: list[str] | None, expressions: list[str], what: str) -> tuple[str, ...]:
    """Names of features: those given, else their expressions, with what files cannot hold written out."""
    names = [e.replace("/", " over ") for e in expressions] if given is None else given
    return check_names(names, len(expressions), what)


def load_job(path: str | Path, *, unblind: bool = False) -> Job:
    """Read and check a configuration; errors are those of :func:`bayesunfold.cli.schema.read_configuration`."""
    path = Path(path)
    job = Job(path, read_configuration(path), unblind=unblind)
    if unblind and not job.sections.data.blind:
        msg = f"{path} is not blind, so there is nothing to unblind; call without --unblind, or set blind = true."
        raise InputError(msg)
    return job
