"""A binned unfolding as a HistFactory workspace, for pyhf and the tools that read its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers, check_instance, check_mapping
from bayesunfold._support.files import atomic_text
from bayesunfold.binned.fbu_model import (
    BinnedBackground,
    background_counts,
    largest_ratio,
    poisson_counts,
    relative_effects,
)
from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.errors import InputError

__all__ = ["pyhf_workspace", "write_pyhf"]

Array = NDArray[np.floating]

STATISTICS = "simulation"
"""Name of the parameters of the simulation's statistics."""


def __dir__() -> list[str]:
    return __all__


def pyhf_workspace(
    response: ResponseMatrix,
    data: Any,
    *,
    backgrounds: Mapping[str, BinnedBackground] | None = None,
    systematics: Mapping[str, ArrayLike] | None = None,
    statistics: bool = True,
) -> dict[str, Any]:
    """The workspace as a dictionary: one sample per particle-level bin, each with a free normalisation.

    Parameters
    ----------
    response : ResponseMatrix
        Fakes are added in proportion to the folded spectrum.
    data : array, shape (reco,), or histogram
        Poisson counts, backgrounds included: whole numbers of events, which are their own variances.
    backgrounds : mapping of str to BinnedBackground, optional
        Log-normal normalisations (``normsys``); shapes are exact.
    systematics : mapping of str to array, shape (reco, gen) or (reco,), optional
        Relative change of the response at one standard deviation, as for :class:`bayesunfold.FBU`; minus it at minus
        one (``histosys``).
    statistics : bool
        Whether the simulation's statistics are in it (``staterror``), where the response knows them: the standard
        deviation of each element of the response, the diagonal of (B1). A ``staterror`` moves detector-level bins
        independently, so the correlations inside a column are left out, and so are the statistics of the fakes.

    Returns
    -------
    dict
        Version 1.0.0 of the format. Parameter ``truth_J`` is bin J in units of the response's ``prior``, scaled to the
        data, between zero and the limit of :class:`bayesunfold.FBU`'s flat prior; the measurement is called
        ``unfolding``.

    Raises
    ------
    InputError, InputTypeError
        What :class:`bayesunfold.FBU` refuses; variations of one and more, particle-level bins that are not seen, names
        that stand for something else in the workspace.

    Warns
    -----
    OverlapWarning
        Data in detector-level bins that are not reached; these bins are left out.
    WeightWarning
        Backgrounds with large statistical variances.

    References
    ----------
    K. Cranmer et al., CERN-OPEN-2012-016; L. Heinrich et al., J. Open Source Softw. 6 (2021) 2823.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
    >>> workspace = bu.io.pyhf_workspace(R, [100, 150])
    >>> [sample["name"] for sample in workspace["channels"][0]["samples"]]
    ['truth_0', 'truth_1']
    """
    check_instance(response, ResponseMatrix, "response")
    response.check_efficiency("a HistFactory workspace")
    if not response.seen.all():
        msg = (
            f"particle-level bins {np.flatnonzero(~response.seen).tolist()} are not seen; their normalisations would "
            "be free of any data. Merge them with others."
        )
        raise InputError(msg)
    every = poisson_counts(response, data, "HistFactory")
    known = {} if backgrounds is None else check_mapping(backgrounds, "backgrounds")
    contents, widths = background_counts(known, response, every)
    changes = _changes(systematics, response)
    _check_free(known, changes, response.n_gen)
    observed = response.measured_counts(every).values  # warns of data in bins that are not reached
    contents = contents[:, response.reached]
    changes = {name: change[response.reached] for name, change in changes.items()}
    response = response.measured
    rest = float(observed.sum() - contents.sum())
    if rest <= 0:
        msg = f"the backgrounds leave {rest:g} of {observed.sum():g} events for the signal; check their normalisation."
        raise InputError(msg)
    folded = response.probabilities * response.prior / (1 - response.fakes)[:, None]
    scale = float(rest / folded.sum())
    limits = largest_ratio(observed, response.probabilities, scale * response.prior)
    statistics = statistics and response.has_statistics
    relative = _relative_errors(response) if statistics else np.zeros_like(folded)
    samples = []
    for j in range(response.n_gen):
        modifiers: list[dict[str, Any]] = [{"name": f"truth_{j}", "type": "normfactor", "data": None}]
        expected = scale * folded[:, j]
        for name, change in changes.items():
            high, low = (_plain(expected * (1 + sign * change[:, j])) for sign in (1, -1))
            modifiers.append({"name": name, "type": "histosys", "data": {"hi_data": high, "lo_data": low}})
        if statistics:
            modifiers.append({"name": STATISTICS, "type": "staterror", "data": _plain(expected * relative[:, j])})
        samples.append({"name": f"truth_{j}", "data": _plain(expected), "modifiers": modifiers})
    samples += [_background(*background) for background in zip(known, contents, widths, strict=True)]
    parameters = [
        {"name": f"truth_{j}", "inits": [1.0], "bounds": [[0.0, float(limit)]]} for j, limit in enumerate(limits)
    ]
    return {
        "channels": [{"name": "detector_level", "samples": samples}],
        "observations": [{"name": "detector_level", "data": _plain(observed)}],
        "measurements": [{"name": "unfolding", "config": {"poi": "truth_0", "parameters": parameters}}],
        "version": "1.0.0",
    }


def write_pyhf(path: str | Path, response: ResponseMatrix, data: Any, **options: Any) -> Path:
    """Write :func:`pyhf_workspace` as JSON, atomically.

    Parameters
    ----------
    path : path
    response, data, **options
        As there.

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
    >>> path = write_pyhf(Path(tempfile.mkdtemp()) / "workspace.json", R, [100, 150])
    >>> json.loads(path.read_text())["version"]
    '1.0.0'
    """
    return atomic_text(path, json.dumps(pyhf_workspace(response, data, **options), indent=1) + "\n")


def _check_free(backgrounds: Mapping[str, Any], systematics: Mapping[str, Any], n_gen: int) -> None:
    """A sample, and a parameter, is known by its name: two of the same name would be one."""
    truth = {f"truth_{j}": f"particle-level bin {j}" for j in range(n_gen)}
    levels = {f"{name}_level": f"the level of the background {name!r}" for name in backgrounds}
    taken = truth | {STATISTICS: "the statistics of the simulation"} | levels
    for kind, names, others in (("background", backgrounds, truth), ("systematic", systematics, taken)):
        for name in names:
            if name in others:
                msg = f"the {kind} {name!r} has the name of {others[name]} in the workspace; give it another name."
                raise InputError(msg)


def _relative_errors(response: ResponseMatrix) -> Array:
    """Standard deviation of each element from the simulated events behind it, over the element, shape (reco, gen)."""
    p = response.probabilities
    variances = np.column_stack([np.diag(response.column_covariance(j)) for j in range(response.n_gen)])
    return np.divide(np.sqrt(np.maximum(variances, 0.0)), p, out=np.zeros_like(p), where=p > 0)


def _changes(systematics: Mapping[str, ArrayLike] | None, response: ResponseMatrix) -> dict[str, Array]:
    """Relative changes of all bins of the response, shape (reco, gen)."""
    given = check_mapping({} if systematics is None else systematics, "systematics")
    named = {name: as_numbers(values, f"systematic {name!r}") for name, values in given.items()}
    out = dict(zip(named, relative_effects(named, response), strict=True))
    for name, change in out.items():
        if np.any(np.abs(change) >= 1):
            msg = f"systematic {name!r} changes bins by up to {np.abs(change).max():g} of themselves; give less than 1."
            raise InputError(msg)
    return out


def _background(name: str, counts: Array, width: float) -> dict[str, Any]:
    size = float(np.exp(width))
    level = {"name": f"{name}_level", "type": "normsys", "data": {"hi": size, "lo": 1.0 / size}}
    return {"name": name, "data": _plain(counts), "modifiers": [level] if width else []}


def _plain(values: Array) -> list[float]:
    return [float(v) for v in values]
