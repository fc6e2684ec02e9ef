"""Sections of the configuration of ``bayesunfold unfold``: samples and their variations, and the whole.

Structures that say what each key means.
"""

from __future__ import annotations

from typing import Annotated, cast

import msgspec
from msgspec import Meta, Struct

from bayesunfold.cli.run_sections import (
    CoverageSection,
    NetworkSection,
    OutputSection,
    SpectrumSection,
    UnfoldingSection,
    given_keys,
)
from bayesunfold.errors import InputError
from bayesunfold.io.sources import without_trees

__all__ = [
    "BackgroundSection",
    "Configuration",
    "DataSection",
    "Files",
    "SimulationSection",
    "Source",
    "SystematicSection",
    "VariedBackgroundSection",
    "check_factors",
]

Texts = Annotated[list[str], Meta(min_length=1)]
FileTable = dict[str, str | float | list[str]]
Files = str | FileTable | list[str | FileTable]
"""A path or pattern, a table with file, tree, factor, friends and friend_key, or a list of these."""


def __dir__() -> list[str]:
    return __all__


def _has_factors(file: Files) -> bool:
    every = [file] if isinstance(file, str | dict) else file
    return any(isinstance(f, dict) and "factor" in f for f in every)


def check_factors(what: str, nominal: Files, own: Files, variation: str) -> None:
    """Raise :class:`~bayesunfold.errors.InputError` if only one of nominal and varied files has factors."""
    if _has_factors(nominal) != _has_factors(own):
        have, lack = (what, variation) if _has_factors(nominal) else (variation, what)
        msg = (
            f"files of {have} have factors and those of {lack} none, so weights of the two would differ by them; give "
            "each file a factor, 1 where its weights hold it already."
        )
        raise InputError(msg)


class Source(Struct, kw_only=True, frozen=True):
    """Where events are read from."""

    file: Annotated[
        Files,
        Meta(
            description="ROOT, parquet, HDF5 or npz file, relative to the configuration (required); also a pattern "
            '("sim_*.root"), "sim.root:tree", {file = ..., tree = ..., factor = ..., friends = [...], friend_key = '
            "[...]}, or a list of these. The factor multiplies the weights of the file's events; friends are files "
            "with further columns, matched row by row or by the columns of friend_key"
        ),
    ]
    tree: Annotated[str | None, Meta(description="TTree, RNTuple or HDF5 group")] = None
    selection: Annotated[str | None, Meta(description="expression; only events where it is true are used")] = None
    cache: Annotated[
        str | None,
        Meta(
            description="folder, relative to the configuration: the columns are read once into files there and mapped, "
            "for events larger than memory; 8 bytes per event and column"
        ),
    ] = None

    def scaled(self, weight: str | None) -> str | None:
        """An expression of the weight times the factor of an event's file, if files have factors."""
        if not _has_factors(self.file):
            return weight
        return "file_factor" if weight is None else f"({weight}) * file_factor"


class SimulationSection(Source, kw_only=True, frozen=True):
    """The section [simulation]."""

    gen: Annotated[Texts, Meta(description="particle-level features, expressions of columns (required)")]
    reco: Annotated[Texts, Meta(description="detector-level features (required)")]
    names: Annotated[
        Texts | None, Meta(description="names of the particle-level features; their expressions if omitted")
    ] = None
    reco_names: Annotated[Texts | None, Meta(description="names of the detector-level features")] = None
    weight: Annotated[str | None, Meta(description="generator weight")] = None
    pass_gen: Annotated[str | None, Meta(description="expression: passes the particle-level selection")] = None
    pass_reco: Annotated[str | None, Meta(description="expression: passes the detector-level selection")] = None
    reco_factor: Annotated[
        str | None, Meta(description="expression: scale factors of the detector level alone, of triggers or tagging")
    ] = None
    undefined: Annotated[str, Meta(description='"error" or "indicator": what NaN means')] = "error"
    key: Annotated[
        Texts | None,
        Meta(description="identifier of an event, for variations with events of their own and for gen_file"),
    ] = None
    gen_file: Annotated[
        Files | None,
        Meta(
            description="files of the particle level, if it is a tree of its own; events are matched by key, and those "
            "of one level only are misses and fakes. gen, pass_gen and weight are then expressions of its columns"
        ),
    ] = None
    gen_tree: Annotated[str | None, Meta(description="the particle level's tree, in the same files or in gen_file")] = (
        None
    )
    gen_selection: Annotated[
        str | None, Meta(description="expression; only events of the particle level's tree where it is true are used")
    ] = None
    gen_key: Annotated[Texts | None, Meta(description="identifier there; key if omitted")] = None

    @property
    def gen_source(self) -> Source | None:
        """Where the particle level is, if it has a tree of its own.

        Raises
        ------
        InputError
            Keys that need others.
        """
        if self.gen_file is None and self.gen_tree is None:
            alone = [name for name in ("gen_selection", "gen_key") if getattr(self, name) is not None]
            if alone:
                msg = f"[simulation] has {', '.join(alone)} and neither gen_file nor gen_tree; give one of these."
                raise InputError(msg)
            return None
        if self.cache is not None:
            msg = (
                "[simulation] has cache and a particle level in a tree of its own, whose events are matched in memory; "
                "remove cache, or write one table with the events of both levels."
            )
            raise InputError(msg)
        if self.key is None:
            msg = (
                "[simulation] has a particle level in a tree of its own; give key, an expression that identifies an "
                'event, for instance ["runNumber", "eventNumber"].'
            )
            raise InputError(msg)
        if self.gen_file is not None and _has_factors(self.file) != _has_factors(self.gen_file):
            msg = (
                "[simulation]: only one of file and gen_file has factors; give each campaign the same factor in both, "
                "so that events of every level have it."
            )
            raise InputError(msg)
        file = self.gen_file
        if file is None:  # another tree of the same files, without the friends of the first
            file = cast("Files", without_trees(self.file, ("tree", "friends", "friend_key")))
        return Source(file=file, tree=self.gen_tree, selection=self.gen_selection)

    @property
    def weight_source(self) -> Source:
        """Where weights and their variations are."""
        return self.gen_source or self


class DataSection(Source, kw_only=True, frozen=True):
    """The section [data]."""

    features: Annotated[Texts, Meta(description="detector-level features, in the order of simulation.reco (required)")]
    weight: Annotated[str | None, Meta(description="data weight")] = None
    undefined: Annotated[str, Meta(description='"error" or "indicator"')] = "error"
    blind: Annotated[
        bool,
        Meta(
            description="read no data: unfold pseudo-data of the simulation instead, coverage.expected_data events, "
            "until the command is called with --unblind; weights must not be negative"
        ),
    ] = False


class BackgroundSection(Source, kw_only=True, frozen=True):
    """A section [[background]]."""

    name: Annotated[str, Meta(description="row among the sources of uncertainty (required)")]
    features: Annotated[Texts, Meta(description="detector-level features (required)")]
    weight: Annotated[str | None, Meta(description="weight in units of expected data events")] = None
    relative_uncertainty: Annotated[float, Meta(description="of the normalisation")] = 0.0
    profile: Annotated[bool, Meta(description="data constrain the normalisation (method direct)")] = False
    undefined: Annotated[str | None, Meta(description='"error" or "indicator"; that of the simulation if omitted')] = (
        None
    )


OWN = ("file", "file_down", "tree", "tree_down", "selection", "key")
"""Keys of a variation with events of its own."""

VARIED = (
    "weight_up",
    "weight_down",
    "reco_up",
    "reco_down",
    "pass_reco_up",
    "pass_reco_down",
    "reco_factor_up",
    "reco_factor_down",
)
"""Keys of a section [[systematic]] that are expressions of a variation."""


class VariedBackgroundSection(Struct, kw_only=True, frozen=True):
    """A section [[systematic.background]]: a background in the variation of a systematic."""

    name: Annotated[str, Meta(description="of the background (required)")]
    file: Annotated[Files | None, Meta(description="files at +1; those of the background if omitted")] = None
    file_down: Annotated[Files | None, Meta(description="at -1; file if omitted")] = None
    tree: Annotated[str | None, Meta(description="TTree, RNTuple or HDF5 group at +1")] = None
    tree_down: Annotated[
        str | None, Meta(description="at -1; tree if omitted. Without any key that ends with _down +1 is mirrored")
    ] = None
    selection: Annotated[str | None, Meta(description="expression at +1; the background's if omitted")] = None
    selection_down: Annotated[str | None, Meta(description="at -1; selection if omitted")] = None
    features_up: Annotated[
        Texts | None, Meta(description="detector-level features at +1; the background's if omitted")
    ] = None
    features_down: Annotated[Texts | None, Meta(description="the same at -1")] = None
    weight_up: Annotated[str | None, Meta(description="weight at +1; the background's if omitted")] = None
    weight_down: Annotated[str | None, Meta(description="the same at -1")] = None

    def sides(self, background: BackgroundSection) -> list[tuple[Source, list[str], str | None]]:
        """Where events, features and weights are at +1, and at -1 if something is said of it.

        Raises
        ------
        InputError
            If nothing is said at +1.
        """
        up = (self.file, self.tree, self.selection, self.features_up, self.weight_up)
        down = (self.file_down, self.tree_down, self.selection_down, self.features_down, self.weight_down)
        if all(value is None for value in up):
            msg = (
                f"[[systematic.background]] of {self.name!r} says nothing at +1; give one of tree, file, selection, "
                "weight_up and features_up."
            )
            raise InputError(msg)
        sides = [up]
        if any(value is not None for value in down):
            for kind in ("features", "weight"):
                given = [getattr(self, f"{kind}_{side}") is not None for side in ("up", "down")]
                if given[0] != given[1]:
                    have, lack = ("up", "down") if given[0] else ("down", "up")
                    msg = (
                        f"[[systematic.background]] of {self.name!r} has {kind}_{have} and a side at -1, and no "
                        f"{kind}_{lack}; give both."
                    )
                    raise InputError(msg)
            places = [high if low is None else low for high, low in zip(up[:3], down[:3], strict=True)]
            sides.append((*places, *down[3:]))  # type: ignore[arg-type]
        return [self._side(background, *side) for side in sides]

    @staticmethod
    def _side(
        background: BackgroundSection,
        file: Files | None,
        tree: str | None,
        selection: str | None,
        features: list[str] | None,
        weight: str | None,
    ) -> tuple[Source, list[str], str | None]:
        named = file or (background.file if tree is None else cast("Files", without_trees(background.file)))
        if file is not None:
            check_factors(f"the background {background.name!r}", background.file, file, "its variation")
        source = Source(
            file=named,
            tree=tree or (background.tree if file is None else None),
            selection=background.selection if selection is None else selection,
        )
        return source, features or background.features, weight or background.weight


class SystematicSection(Struct, kw_only=True, frozen=True):
    """A section [[systematic]]."""

    name: Annotated[
        str,
        Meta(
            description="row among the sources of uncertainty (required); with {name} in it and in other keys the "
            "section stands for all columns, or trees, that match"
        ),
    ]
    weight_up: Annotated[str | None, Meta(description="expression: full generator weight at +1 standard deviation")] = (
        None
    )
    weight_down: Annotated[str | None, Meta(description="the same at -1")] = None
    reco_up: Annotated[Texts | None, Meta(description="detector-level features at +1 standard deviation")] = None
    reco_down: Annotated[Texts | None, Meta(description="the same at -1")] = None
    pass_reco_up: Annotated[
        str | None,
        Meta(description="expression: passes the detector-level selection at +1; needed where a cut moves too"),
    ] = None
    pass_reco_down: Annotated[str | None, Meta(description="the same at -1")] = None
    reco_factor_up: Annotated[
        str | None, Meta(description="expression: what stands in the place of reco_factor at +1 standard deviation")
    ] = None
    reco_factor_down: Annotated[str | None, Meta(description="the same at -1")] = None
    profile: Annotated[bool, Meta(description="data constrain the nuisance parameter (method direct)")] = False
    correlation: Annotated[
        dict[str, float] | None,
        Meta(description="of the nuisance parameter with those of other systematics, {other = 0.5}, before the data"),
    ] = None
    file: Annotated[Files | None, Meta(description="files of the variation, whose events are matched by key")] = None
    file_down: Annotated[Files | None, Meta(description="the same at -1; file if omitted")] = None
    tree: Annotated[str | None, Meta(description="TTree, RNTuple or HDF5 group of the variation")] = None
    tree_down: Annotated[str | None, Meta(description="the same at -1; tree if omitted")] = None
    selection: Annotated[str | None, Meta(description="expression; only events of the variation where it is true")] = (
        None
    )
    key: Annotated[Texts | None, Meta(description="identifier there; that of [simulation] if omitted")] = None
    absent: Annotated[
        str, Meta(description='"error" or "fails": what a simulated event means that the variation lacks')
    ] = "error"
    alternative: Annotated[
        Files | None,
        Meta(
            description="files of another simulation, of another generator or made again with other events, with the "
            "columns of [simulation]; the ratio of the two is learned"
        ),
    ] = None
    alternative_gen: Annotated[
        Files | None, Meta(description="files of its particle level, if [simulation] has gen_file")
    ] = None
    background: list[VariedBackgroundSection] = []

    @property
    def has_events(self) -> bool:
        """Whether the variation has events of its own."""
        return any(value is not None for value in (self.file, self.file_down, self.tree, self.tree_down))

    def check(self) -> None:
        """Whether every key is used.

        Raises
        ------
        InputError
        """
        if self.alternative is not None:
            given = [*self.variations(), *(k for k in OWN if getattr(self, k) is not None)]
            if given:
                msg = (
                    f"the systematic {self.name!r} has an alternative simulation and {', '.join(given)}; what differs "
                    "is learned from the alternative. Make two sections of it."
                )
                raise InputError(msg)
        elif self.alternative_gen is not None:
            msg = f"the systematic {self.name!r} has alternative_gen and no alternative; give the latter's files too."
            raise InputError(msg)
        down = [k for k in ("file_down", "tree_down") if getattr(self, k) is not None]
        if down and not any(k.endswith("_down") for k in self.variations()):
            msg = (
                f"the systematic {self.name!r} has {down[0]} and no expression at -1, so nothing would be read there; "
                "give reco_down, weight_down or another key that ends with _down."
            )
            raise InputError(msg)
        alone = [k for k in ("selection", "key") if getattr(self, k) is not None and not self.has_events]
        alone += ["absent"] if self.absent != "error" and not self.has_events else []
        if alone:
            msg = f"the systematic {self.name!r} has {', '.join(alone)} and no file or tree of its own; give one."
            raise InputError(msg)

    def other_simulation(self, nominal: SimulationSection) -> SimulationSection | None:
        """Where the alternative simulation is, read like the nominal one; None if there is none.

        Raises
        ------
        InputError
            If the particle level's files are missing, or one too many.
        """
        if self.alternative is None:
            return None
        if (nominal.gen_file is None) != (self.alternative_gen is None):
            cure = "give alternative_gen" if self.alternative_gen is None else "leave alternative_gen out"
            msg = (
                f"the systematic {self.name!r}: [simulation] has {'no' if nominal.gen_file is None else 'a'} gen_file, "
                f"and the alternative is read likewise; {cure}."
            )
            raise InputError(msg)
        return msgspec.structs.replace(nominal, file=self.alternative, gen_file=self.alternative_gen)

    def scaled_variations(self, source: Source) -> dict[str, str | list[str]]:
        """As :meth:`variations`, weights times the factors of the source's files."""
        given = self.variations()
        scaled = {name: source.scaled(str(given[name])) for name in ("weight_up", "weight_down") if name in given}
        return given | {name: value for name, value in scaled.items() if value is not None}

    def variations(self) -> dict[str, str | list[str]]:
        """Expressions by the argument of :class:`bayesunfold.Systematic` that they give."""
        given = cast("dict[str, str | list[str]]", given_keys(self))
        return {name: value for name, value in given.items() if name in VARIED}


class Configuration(Struct, kw_only=True, frozen=True):
    """A whole configuration; sections that may repeat are lists."""

    simulation: SimulationSection
    data: DataSection
    background: list[BackgroundSection] = []
    systematic: list[SystematicSection] = []
    unfolding: UnfoldingSection = UnfoldingSection()
    network: NetworkSection = NetworkSection()
    spectrum: list[SpectrumSection] = []
    coverage: CoverageSection = CoverageSection()
    output: OutputSection = OutputSection()
    alias: dict[str, str] = {}
