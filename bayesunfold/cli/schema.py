"""What may stand in the configuration of ``bayesunfold unfold``: read, checked and documented by one structure."""

from __future__ import annotations

import difflib
import keyword
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import Struct

from bayesunfold.cli.run_sections import (
    CoverageSection,
    NetworkSection,
    OutputSection,
    SpectrumSection,
    UnfoldingSection,
)
from bayesunfold.cli.sections import (
    BackgroundSection,
    Configuration,
    DataSection,
    SimulationSection,
    SystematicSection,
    VariedBackgroundSection,
)
from bayesunfold.errors import FileFormatError, InputError
from bayesunfold.io.columns import FACTOR, NUMBER, needed_columns

__all__ = ["read_configuration", "schema_text"]


def __dir__() -> list[str]:
    return __all__


SECTIONS: dict[str, type[Struct]] = {
    "simulation": SimulationSection,
    "data": DataSection,
    "background": BackgroundSection,
    "systematic": SystematicSection,
    "systematic.background": VariedBackgroundSection,
    "unfolding": UnfoldingSection,
    "network": NetworkSection,
    "spectrum": SpectrumSection,
    "coverage": CoverageSection,
    "output": OutputSection,
}
MANY = ("background", "systematic", "systematic.background", "spectrum")
INSIDE = {"systematic": "background"}
"""Sections that have sections of their own."""

ALIAS = "alias"
KINDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    list[str]: "list of texts",
    list[int]: "list of whole numbers",
    list[float]: "list of numbers",
    dict[str, float]: "table of numbers",
    dict[str, list[str]]: "table of lists of texts",
}


def _meaning(field: msgspec.structs.FieldInfo) -> tuple[str, str]:
    """Kind and meaning of a key, in words."""
    inner, *metas = get_args(field.type)
    if str in get_args(inner) and len(get_args(inner)) > 1 and any(get_args(part) for part in get_args(inner)):
        return "text or list", metas[-1].description
    if inner not in KINDS:  # one of several: the first that is not None
        inner = next(part for part in get_args(inner) if part is not type(None))
    inner = get_args(inner)[0] if inner not in KINDS else inner  # a list that may not be empty
    kind = KINDS[inner] + (" or 'auto'" if field.name == "iterations" else "")
    return kind, metas[-1].description


def schema_text() -> str:
    """All sections and keys with their meaning, as a commented configuration."""
    lines = []
    for name, section in SECTIONS.items():
        lines.append(f"[[{name}]]  # any number" if name in MANY else f"[{name}]")
        for field in msgspec.structs.fields(section):
            if field.name == INSIDE.get(name):
                lines.append(f"# {field.name}: sections [[{name}.{field.name}]] below it")
                continue
            kind, meaning = _meaning(field)
            lines.append(f"# {field.name}: {kind}; {meaning}")
        lines.append("")
    lines += [f"[{ALIAS}]", '# any name: text; an expression, pt = "jet_pt[0] / 1000", for use in all others', ""]
    return "\n".join(lines)


def read_configuration(path: Path) -> Configuration:
    """Read and check a configuration.

    Raises
    ------
    FileFormatError
        If it is not TOML.
    InputError
        For an unknown section or key, with the nearest legal one, a missing key, or a value of the wrong kind.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        msg = f"{path} is not TOML: {err}."
        raise FileFormatError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path} is not a text file."
        raise FileFormatError(msg) from None
    alias = _aliases(raw.pop(ALIAS, {}))
    for section in raw:
        _check_known(section, (*SECTIONS, ALIAS), "section")
    for section in ("simulation", "data"):
        if section not in raw:
            msg = f"{path} has no section [{section}]; it must say which file to read."
            raise InputError(msg)
    found: dict[str, object] = {}
    for section, value in raw.items():
        if isinstance(value, list) != (section in MANY):
            brackets = f"[[{section}]]" if section in MANY else f"[{section}]"
            msg = f"section {section} must be written {brackets}."
            raise InputError(msg)
        found[section] = [_read(section, t) for t in value] if section in MANY else _read(section, value)
    configuration = Configuration(**found, alias=alias)  # type: ignore[arg-type]  # each was read as its own structure
    _check_spectra(configuration.spectrum)
    configuration.unfolding.check()
    configuration.output.check(spectra=bool(configuration.spectrum))
    return configuration


def _aliases(table: object) -> dict[str, str]:
    """The section [alias]: expressions by name."""
    if not isinstance(table, dict):
        msg = f"section {ALIAS} is {table!r}; write its names under [{ALIAS}]."
        raise InputError(msg)
    for name, expression in table.items():
        if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
            msg = f"the alias {name!r} is no name; use letters, digits and _."
            raise InputError(msg)
        if name in (FACTOR, NUMBER):
            msg = f"the alias {name!r} has the name of something else, the file's factor or number; choose another."
            raise InputError(msg)
        if not isinstance(expression, str):
            msg = f"{ALIAS}.{name} is {expression!r}; it must be an expression of columns, as text."
            raise InputError(msg)
        needed_columns([name], table)  # expressions that can be read, and no circles
    return table


def _read(section: str, table: object) -> Struct:
    """One table of a section as its structure."""
    if not isinstance(table, dict):
        msg = f"section {section} is {table!r}; write its keys under [{section}]."
        raise InputError(msg)
    fields = {field.name: field for field in msgspec.structs.fields(SECTIONS[section])}
    values: dict[str, object] = {}
    for key, value in table.items():
        _check_known(key, fields, f"key of [{section}]")
        if key == INSIDE.get(section):
            values[key] = _read_inside(f"{section}.{key}", value)
            continue
        try:
            values[key] = msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError:
            kind, meaning = _meaning(fields[key])
            msg = f"{section}.{key} is {value!r}; it must be a {kind}: {meaning}."
            raise InputError(msg) from None
    missing = [name for name, field in fields.items() if field.required and name not in table]
    if missing:
        msg = f"section [{section}] misses {', '.join(missing)}."
        raise InputError(msg)
    return SECTIONS[section](**values)


def _read_inside(section: str, tables: object) -> list[Struct]:
    """Sections inside another one."""
    if not isinstance(tables, list):
        msg = f"section {section} must be written [[{section}]], below its section."
        raise InputError(msg)
    return [_read(section, table) for table in tables]


def _check_spectra(sections: list[SpectrumSection]) -> None:
    seen = set()
    for section in sections:
        section.check()
        if section.observable in seen:
            msg = (
                f"two sections [[spectrum]] name {section.observable}; one file is written for each, so give an "
                "observable once."
            )
            raise InputError(msg)
        seen.add(section.observable)


def _check_known(name: str, legal: Collection[str] | Mapping[str, object], what: str) -> None:
    if name not in legal:
        near = difflib.get_close_matches(name, legal, n=1, cutoff=0.0)[0]
        msg = f"{name!r} is not a {what}; the nearest is {near!r}. Legal are {', '.join(legal)}."
        raise InputError(msg)
