"""Groups of sources of uncertainty, as papers quote them: "jet energy scale" for its twenty parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_mapping
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.impacts import Parameter

__all__ = ["check_names_of_groups", "check_pairs_of_groups", "grouped_draws", "grouped_parameters", "match_groups"]

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
            matcher = re.compile(re.escape(pattern).replace(r"\*", ".*"), re.DOTALL)
            found = [name for name in names if matcher.fullmatch(name)]
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

    Raises
    ------
    InputError
        If the sources have different numbers of draws.
    """
    drawn = [np.asarray(make(), dtype=np.float64) for make in makers]
    sizes = {len(d) for d in drawn}
    if len(sizes) > 1:
        msg = f"the sources of a group have {sorted(sizes)} draws; only sources with as many draws are added."
        raise InputError(msg)
    return np.asarray(np.sum(drawn, axis=0) - (len(drawn) - 1) * nominal)


def check_names_of_groups(groups: Mapping[str, Sequence[str]], profiled: Collection[str]) -> None:
    """Whether a group has the name of a profiled parameter that it holds with others.

    Raises
    ------
    InputError
    """
    for group, names in groups.items():
        if len(names) > 1 and group in names and group in profiled:
            msg = f"the group {group!r} has the name of a profiled parameter in it; give the group another name."
            raise InputError(msg)


def check_pairs_of_groups(groups: Mapping[str, Sequence[str]], parameters: Mapping[str, Parameter]) -> None:
    """Whether a group holds several profiled systematics of a publication, whose pairs contain each other.

    Raises
    ------
    InputError
    """
    for group, names in groups.items():
        profiled = [name for name in names if name in parameters and parameters[name].profiled]
        if len(profiled) > 1 and any(parameters[name].draws is None for name in profiled):
            msg = (
                f"the group {group!r} holds the profiled systematics {', '.join(profiled)} of a publication. The pair "
                "of each has what goes with it of the others, so they do not add; group them in the result's spectrum."
            )
            raise InputError(msg)


def grouped_parameters(
    groups: Mapping[str, Sequence[str]], parameters: Mapping[str, Parameter]
) -> dict[str, Parameter]:
    """Nuisance parameters by group, and those that data constrain.

    The latter stay whatever group they are in, for the correlations with the bins.

    Parameters
    ----------
    groups : mapping of str to sequence of str
        From :func:`match_groups`.
    parameters : mapping of source to Parameter
    """
    out = {name: p for name, p in parameters.items() if p.profiled and name not in groups}
    for group, names in groups.items():
        known = [parameters[name] for name in names if name in parameters]
        if known:
            partners = frozenset(other for p in known for other in p.partners if other not in names)
            out[group] = known[0] if len(names) == 1 else Parameter(np.zeros(0), group=True, partners=partners)
    return out
