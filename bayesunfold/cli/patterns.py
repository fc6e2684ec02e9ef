"""One section [[systematic]] for many variations: ``{name}`` stands for what columns or trees have there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import msgspec

from bayesunfold.cli.sections import SystematicSection, VariedBackgroundSection
from bayesunfold.errors import InputError

__all__ = ["PLACE", "deciding_background", "expand"]

PLACE = "{name}"
DECIDING = ("weight_up", "reco_up", "pass_reco_up", "reco_factor_up", "tree")
"""Keys that say which variations there are, the first that has the place."""

OF_BACKGROUND = ("tree", "weight_up", "features_up")
"""The same of a background, for a systematic whose other keys have no place."""

TOKEN = re.compile(r"`[^`]*\{name\}[^`]*`|[\w.]*\{name\}[\w.]*")
"""A column with the place in an expression; one with other signs than letters stands in backticks."""


def __dir__() -> list[str]:
    return __all__


def expand(section: SystematicSection, columns: Sequence[str], trees: Sequence[str]) -> list[SystematicSection]:
    """The sections that a section stands for: itself, or one per name.

    Parameters
    ----------
    section : SystematicSection
    columns, trees : sequence of str
        Of the simulation's file; of that of :func:`deciding_background`, if there is one.

    Raises
    ------
    InputError
        If the place stands in other keys and not in the name, in no key that decides, or if nothing matches.
    """
    values = msgspec.structs.asdict(section)
    having = [key for key, value in values.items() if key != "name" and _has(value)]
    if PLACE not in section.name:
        if having:
            msg = (
                f"the systematic {section.name!r} has {PLACE} in {', '.join(having)} and not in its name; write "
                f'name = "{section.name} {PLACE}", so that each variation has its own.'
            )
            raise InputError(msg)
        return [section]
    background = deciding_background(section)
    keys, place = (DECIDING, section) if background is None else (OF_BACKGROUND, background)
    decided = {key: value for key in keys if _has(value := getattr(place, key))}
    if not decided:
        msg = (
            f"the systematic {section.name!r} needs {PLACE} in one of {', '.join(DECIDING)}, or of a background's "
            f"{', '.join(OF_BACKGROUND)}, which say what there is."
        )
        raise InputError(msg)
    deciding, value = next(iter(decided.items()))
    text = next(v for v in (value if isinstance(value, list) else [value]) if PLACE in v)
    candidates = trees if deciding == "tree" else columns
    names = _names(text if deciding == "tree" else _token(text), candidates)
    if not names:
        near = difflib.get_close_matches(text, candidates, n=3, cutoff=0.3) or list(candidates)[:5]
        msg = (
            f"the systematic {section.name!r}: no {'tree' if deciding == 'tree' else 'column'} matches {text!r}; near "
            f"names: {', '.join(near) or 'none'}."
        )
        raise InputError(msg)
    return [msgspec.structs.replace(section, **{k: _replaced(v, name) for k, v in values.items()}) for name in names]


def deciding_background(section: SystematicSection) -> VariedBackgroundSection | None:
    """The background that says which variations there are; None if the simulation does, or nothing."""
    if any(_has(getattr(section, key)) for key in DECIDING):
        return None
    return next((b for b in section.background if any(_has(getattr(b, key)) for key in OF_BACKGROUND)), None)


def _has(value: object) -> bool:
    if isinstance(value, msgspec.Struct):
        return any(_has(v) for v in msgspec.structs.asdict(value).values())
    if isinstance(value, dict):
        return any(_has(v) for v in (*value, *value.values()))
    if isinstance(value, list):
        return any(_has(v) for v in value)
    return isinstance(value, str) and PLACE in value


def _token(text: str) -> str:
    """The column with the place in an expression."""
    found = TOKEN.search(text)
    return text if found is None else found[0].strip("`")


def _names(pattern: str, candidates: Sequence[str]) -> list[str]:
    first, *others = map(re.escape, pattern.split(PLACE))
    matcher = re.compile(first + "(?P<name>.+)" + "(?P=name)".join(others))
    found = (matcher.fullmatch(candidate) for candidate in candidates)
    return list(dict.fromkeys(match["name"] for match in found if match))


def _replaced(value: object, name: str) -> object:
    if isinstance(value, list):
        return [_replaced(v, name) for v in value]
    if isinstance(value, dict):
        return {key.replace(PLACE, name): _replaced(v, name) for key, v in value.items()}
    if isinstance(value, msgspec.Struct):
        return type(value)(**{k: _replaced(v, name) for k, v in msgspec.structs.asdict(value).items()})
    return value.replace(PLACE, name) if isinstance(value, str) else value
