"""Groups of sources of uncertainty, as papers quote them: "jet energy scale" for its twenty parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_mapping
from bayesunfold.errors import InputError, InputTypeError

__all__ = ["grouped_draws", "match_groups"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def match_groups(groups: Mapping[str, str | Sequence[str]], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sources of each group, in the place of its first one; sources in no group stand alone.

    Parameters
    ----------
    groups : mapping of str to str or sequence of str
        By the group's name: names of sources, or patterns of them, ``*`` for any text.
    names : sequence of str
        All sources.

    Raises
    ------
    InputError, InputTypeError
        A pattern without a source, a source in two groups, a group with the name of a source that is not in it.

    Examples
    --------
    >>> match_groups({"jets": "jes*"}, ["data", "jes 1", "muon", "jes 2"])
    {'data': ('data',), 'jets': ('jes 1', 'jes 2'), 'muon': ('muon',)}
    """
    group_of: dict[str, str] = {}
    for group, given in check_mapping(groups, "groups").items():
        patterns = [given] if isinstance(given, str) else given if isinstance(given, Sequence) else []
        if not patterns or not all(isinstance(p, str) for p in patterns):
            msg = f"the group {group!r} is {given!r}; give a source's name or a pattern, 'jes*', or a list of these."
            raise InputTypeError(msg)
        for pattern in patterns:
            found = [name for name in names if fnmatchcase(name, pattern)]
            if not found:
                msg = f"no source matches {pattern!r} of the group {group!r}; there are: {', '.join(names)}."
                raise InputError(msg)
            for name in found:
                if group_of.setdefault(name, group) != group:
                    msg = f"the source {name!r} is in the groups {group_of[name]!r} and {group!r}; a source has one."
                    raise InputError(msg)
    for group in groups:
        if group == "total" or (group in names and group_of.get(group) != group):
            what = "stands for all sources" if group == "total" else "is the name of a source outside of it"
            msg = f"the group {group!r} {what}; give the group another name."
            raise InputError(msg)
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(group_of.get(name, name), []).append(name)
    return {group: tuple(members) for group, members in out.items()}


def grouped_draws(makers: Sequence[Callable[[], Array]], nominal: Array) -> Array:
    """Draws in which several sources fluctuate and nothing else: the point estimate with the sum of their changes.

    Parameters
    ----------
    makers : sequence of callable
        Each makes draws in which one source fluctuates, shape (draws, bins).
    nominal : array, shape (bins,)
    """
    out = np.array(makers[0](), dtype=np.float64)
    for make in makers[1:]:
        out += make() - nominal
    return out
