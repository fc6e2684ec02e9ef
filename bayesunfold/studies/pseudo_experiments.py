"""Pseudo-experiments: fresh data and a fresh simulation each, in parallel, resumed after a kill.

Every toy's bands are scored against the *expected* truth, which does not fluctuate. Scoring toys against their own
truth sample, or with the spread of the toys instead of their bands, would be no coverage test.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers, check_bins, check_count, check_level, check_mapping, check_seed
from bayesunfold._support.cluster import check_client
from bayesunfold._support.files import atomic_text, check_writable
from bayesunfold._support.progress import Progress
from bayesunfold._support.threads import one_thread
from bayesunfold.binning import same_edges
from bayesunfold.errors import FileFormatError, InputError, InputTypeError
from bayesunfold.spectrum import Spectrum
from bayesunfold.studies.coverage import CORE_EXPECTED, CoverageStudy

__all__ = ["coverage_study"]

Array = NDArray[np.floating]


MOST_WORKERS = 10_000

UNGUARDED = (
    "worker processes of the study cannot start, since they run the script again; put what starts the study under "
    "`if __name__ == '__main__':`, or pass workers=0 to stay in one process."
)


def __dir__() -> list[str]:
    return __all__


def _default_unfold(toy: Any, random_seed: int) -> Any:
    """Unfold with default settings, with the backgrounds that a toy has."""
    from bayesunfold.omnifold.estimator import OmniFold

    simulation = getattr(toy, "simulation", None)
    data = getattr(toy, "measurement", getattr(toy, "data", None))
    if simulation is None and isinstance(toy, tuple | list) and len(toy) == 2:
        simulation, data = toy
    if simulation is None or data is None:
        msg = (
            f"make_toy returned {type(toy).__name__}; it must return a pair (Simulation, Data), or an object with "
            "simulation and measurement."
        )
        raise InputTypeError(msg)
    backgrounds = getattr(toy, "backgrounds", None) or ()
    return OmniFold(random_seed=random_seed, progressbar=False).fit(simulation, data, backgrounds)


def _score(
    make_toy: Callable[[int], Any],
    unfold: Callable[[Any, int], Any],
    edges: Mapping[str, Array],
    expected: Array,
    levels: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """One pseudo-experiment, as JSON-ready numbers."""
    with one_thread():
        start = time.perf_counter()
        unfolded = unfold(make_toy(seed), seed)
        spectra = _as_spectra(unfolded, edges)
        seconds = time.perf_counter() - start
    values = np.concatenate([s.draw_matrix for s in spectra], axis=1)
    nominal = np.concatenate([s.nominal for s in spectra])
    bands = [[np.concatenate(side) for side in zip(*(s.interval(lv) for s in spectra), strict=True)] for lv in levels]
    chi2, start_bin = [], 0
    for s in spectra:
        truth = expected[start_bin : start_bin + s.n_bins]
        start_bin += s.n_bins
        chi2.append(_core_chi2(s, truth))
    record = {
        "seed": seed,
        "nominal": nominal.tolist(),
        "std": values.std(axis=0, ddof=1).tolist(),
        "lower": [b[0].tolist() for b in bands],
        "upper": [b[1].tolist() for b in bands],
        "pit": ((values < expected).sum(axis=0) + 0.5).tolist(),
        "draws": len(values),
        "chi2": [c[0] for c in chi2],
        "dof": [c[1] for c in chi2],
        "seconds": seconds,
        "extra": {},
    }
    configuration = getattr(unfolded, "configuration", None)
    if isinstance(configuration, dict) and "iterations_done" in configuration:
        record["extra"] = {"iterations": configuration["iterations_done"]}
    return record


def _as_spectra(unfolded: Any, edges: Mapping[str, Array]) -> list[Spectrum]:
    if isinstance(unfolded, Spectrum):
        unfolded = [unfolded]
    if isinstance(unfolded, Mapping) and set(unfolded) == set(edges):
        unfolded = [unfolded[name] for name in edges]
    if isinstance(unfolded, list | tuple) and all(isinstance(s, Spectrum) for s in unfolded):
        _check_spectra(unfolded, edges)
        return list(unfolded)
    if not hasattr(unfolded, "spectrum"):
        msg = (
            f"unfold returned {type(unfolded).__name__}; it must return an UnfoldingResult, or a Spectrum for each of "
            f"{', '.join(edges)}: one, a list, or a dict."
        )
        raise InputTypeError(msg)
    return [unfolded.spectrum(name, e) for name, e in edges.items()]


def _check_spectra(spectra: Sequence[Spectrum], edges: Mapping[str, Array]) -> None:
    """Whether spectra are those whose truth is known."""
    if len(spectra) != len(edges):
        msg = f"unfold returned {len(spectra)} spectra; there are {len(edges)}, of {', '.join(edges)}."
        raise InputError(msg)
    for spectrum, (name, wanted) in zip(spectra, edges.items(), strict=True):
        if len(spectrum.edges) != 1 or not same_edges(np.asarray(wanted), spectrum.edges[0]):
            msg = f"the spectrum of {name} that unfold returned has other bins than the study; unfold in its bins."
            raise InputError(msg)
        if spectrum.normalization != "yield" or spectrum.luminosity is not None:
            msg = (
                f"the spectrum of {name} that unfold returned is a {spectrum.normalization} with luminosity "
                f"{spectrum.luminosity}; the truth is a yield, so return yields."
            )
            raise InputError(msg)


def _core_chi2(spectrum: Spectrum, truth: Array) -> tuple[float, int]:
    core = truth >= CORE_EXPECTED
    if not core.any():
        return 0.0, 0
    part = Spectrum((np.arange(core.sum() + 1.0),), spectrum.draw_matrix[:, core], spectrum.nominal[core])
    value = part.chi2(truth[core])
    return value.value, value.dof


def coverage_study(
    make_toy: Callable[[int], Any],
    *,
    bins: ArrayLike | Mapping[str, ArrayLike],
    expected: ArrayLike | Mapping[str, ArrayLike],
    unfold: Callable[[Any, int], Any] | None = None,
    toys: int = 200,
    levels: Sequence[float] = (0.68, 0.95),
    random_seed: int = 0,
    client: Any = None,
    workers: int | None = None,
    checkpoint: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progressbar: bool = True,
) -> CoverageStudy:
    """Pseudo-experiments with an independent, unfluctuated truth.

    Parameters
    ----------
    make_toy : callable
        ``make_toy(seed)`` gives fresh data and a fresh simulation: an object with ``simulation`` and
        ``measurement`` (or ``data``), or a pair ``(Simulation, Data)``. Poisson-fluctuate the number of data
        events, or the yield is not tested.
    bins : array, or mapping of feature name to array
        Bin edges; a bare array belongs to the feature called ``"gen"``.
    expected : array, or mapping like ``bins``
        Expected truth events per bin.
    unfold : callable, optional
        ``unfold(toy, seed)`` gives an :class:`UnfoldingResult`, or a :class:`Spectrum` for each entry of
        ``bins``: one, a list in their order, or a dict. Default settings of :class:`OmniFold` if omitted.
    toys : int
        Number of pseudo-experiments; toy ``i`` has seed ``random_seed + i``.
    levels : sequence of float
        Credible levels to test.
    client : dask.distributed.Client, optional
        Where to run; for a batch cluster pass one connected to its scheduler.
    workers : int, optional
        Local processes if there is no client: one a core by default, 0 to stay in this process.
    checkpoint : path, optional
        Finished toys are appended to this file (JSON lines); a killed study goes on from it.
    settings : mapping, optional
        Whatever else identifies the study (the unfolding's arguments, sizes of samples), JSON-ready. A checkpoint made
        with other settings is refused; without this only bins, truth and levels can be compared.
    progressbar : bool

    Returns
    -------
    CoverageStudy
        The same numbers whatever the number of workers.

    Raises
    ------
    InputError
        Shapes that disagree, levels outside (0, 1), a checkpoint of another study.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> from functools import partial
    >>> def toy(seed):
    ...     return bu.datasets.gaussian_toy(200, 400, poisson=True, random_seed=seed)
    >>> def quick(toy, seed):
    ...     return bu.OmniFold(2, inference="laplace", draws=100, random_seed=seed, progressbar=False).fit(
    ...         toy.simulation, toy.measurement)
    >>> edges = [-3, 0, 3, 6]
    >>> study = bu.coverage_study(toy, bins=edges, expected=toy(0).expected(edges), unfold=quick, toys=2,
    ...                           workers=0, progressbar=False)
    >>> study.lower.shape
    (2, 2, 3)
    """
    edges = {str(k): check_bins(v, f"bins of {k}") for k, v in _as_mapping(bins, "gen").items()}
    truth = _check_expected(expected, edges)
    check_count(toys, "toys", 2)
    check_seed(random_seed)
    given: Any = levels
    if not isinstance(given, list | tuple) or not given:
        msg = f"levels is {levels!r}; give a list of probabilities, for instance (0.68, 0.95)."
        raise InputError(msg)
    for level in levels:
        check_level(level, "one of levels")
    if not (truth >= CORE_EXPECTED).any():
        msg = (
            f"no bin has {CORE_EXPECTED:g} expected events (the fullest has {truth.max(initial=0):.3g}); coverage is "
            "averaged over such bins. Use wider bins, or more data."
        )
        raise InputError(msg)
    if workers is not None:
        check_count(workers, "workers", 0, MOST_WORKERS)
    if client is not None:
        check_client(client)
    for name, function in (("make_toy", make_toy), ("unfold", unfold or _default_unfold)):
        if not callable(function):
            msg = f"{name} is {function!r}; pass a function of the toy's seed."
            raise InputTypeError(msg)
    unfold = unfold or _default_unfold
    path = _checkpoint_path(checkpoint)
    heading = {"edges": {k: v.tolist() for k, v in edges.items()}, "expected": truth.tolist(), "levels": list(levels)}
    if settings is not None:
        heading["settings"] = _json_settings(settings)
    done = _read_records(path, heading)
    todo = [random_seed + i for i in range(toys) if random_seed + i not in done]
    progress = Progress(toys, "coverage", show=progressbar)
    start = time.perf_counter()
    task = partial(_score, make_toy, unfold, edges, truth, tuple(levels))
    for record in _run(task, todo, client, workers):
        done[record["seed"]] = record
        if path is not None:
            _append(path, record)
        progress.update(len(done), f"({record['seconds']:.1f} s a toy) ")
    wall = time.perf_counter() - start
    progress.close(f"{toys} toys, {60 * len(todo) / wall:.1f} toys a minute")
    spent = (wall, len(todo)) if todo else (0.0, 0)
    return _collect([done[random_seed + i] for i in range(toys)], edges, truth, tuple(levels), spent)


def _checkpoint_path(checkpoint: Any) -> Path | None:
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | Path):
        msg = f"checkpoint is {checkpoint!r}; name a file, for instance 'toys.jsonl'."
        raise InputTypeError(msg)
    path = Path(checkpoint)
    check_writable(path)
    return path


def _json_settings(settings: Mapping[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(dict(check_mapping(settings, "settings")), sort_keys=True))
    except (TypeError, ValueError) as err:
        msg = f"settings cannot be written as JSON ({err}); give texts, numbers, lists and dicts."
        raise InputTypeError(msg) from err


def _as_mapping(values: Any, name: str) -> dict[str, Any]:
    return dict(values) if isinstance(values, Mapping) else {name: values}


def _check_expected(expected: Any, edges: Mapping[str, Array]) -> Array:
    given = _as_mapping(expected, next(iter(edges)))
    parts = []
    for name, e in edges.items():
        if name not in given:
            msg = f"expected misses {name!r}; give the expected content of every observable in bins."
            raise InputError(msg)
        part = as_numbers(given[name], f"expected of {name}")
        if part.shape != (len(e) - 1,) or not np.all(np.isfinite(part)) or np.any(part < 0):
            msg = f"expected of {name} has shape {part.shape}; it must be ({len(e) - 1},), finite and not negative."
            raise InputError(msg)
        parts.append(part)
    return np.concatenate(parts)


def _read_records(path: Path | None, heading: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Toys of an earlier run; starts the file if there is none.

    A kill or a full disk may have cut the file anywhere: what is whole is used, and a cut end is taken away.
    """
    if path is None:
        return {}
    first = json.dumps(heading)
    text = _read_text(path) if path.exists() else ""
    if "\n" not in text and first.startswith(text):  # none, an empty one, or one that was cut in its heading
        atomic_text(path, first + "\n")
        return {}
    lines = text.split("\n")
    _check_heading(path, lines[0], heading)
    records, whole = {}, [lines[0]]
    for number, line in enumerate(lines[1:], start=2):
        last = number == len(lines)  # what follows the last line break: nothing, or a line that was cut
        try:
            record = json.loads(line)
            records[int(record["seed"])] = record
        except (ValueError, KeyError, TypeError) as err:
            if last:
                break
            msg = f"{path}, line {number}: not readable ({err}). Remove that line, or name another file."
            raise FileFormatError(msg) from err
        whole.append(line)
    repaired = "\n".join(whole) + "\n"
    if repaired != text:
        atomic_text(path, repaired)
    return records


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError as err:
        msg = f"{path} is not the checkpoint of a study (it is not text); name another file."
        raise FileFormatError(msg) from err


def _check_heading(path: Path, line: str, heading: dict[str, Any]) -> None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as err:
        msg = f"{path} is not the checkpoint of a study ({err}); name another file."
        raise FileFormatError(msg) from err
    if found != heading:
        msg = f"{path} belongs to a study with other bins, truth, levels or settings; remove it or name another."
        raise InputError(msg)


def _append(path: Path, record: dict[str, Any]) -> None:
    """Add a toy to the checkpoint, on disk before the study goes on."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _run(
    task: Callable[[int], dict[str, Any]], seeds: list[int], client: Any, workers: int | None
) -> Iterator[dict[str, Any]]:
    """Records of the toys, in the order in which they finish."""
    if not seeds:
        return
    if client is None and workers == 0:
        for seed in seeds:
            yield task(seed)
        return
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
    except ImportError as err:
        msg = "a parallel study needs dask: install bayesunfold[dask], or pass workers=0 to stay in one process."
        raise ImportError(msg) from err

    def submit(running: Any) -> Iterator[dict[str, Any]]:
        running.wait_for_workers(1)  # of a batch system these may still be queued
        # sent once, not with every toy: it may hold a whole simulation
        shared = running.scatter(task, broadcast=True, hash=False)
        futures = [running.submit(_call, shared, seed, pure=False) for seed in seeds]
        try:
            for future in as_completed(futures):
                yield future.result()
                future.release()
        finally:
            running.cancel(futures)  # after an error or an interrupt, or the workers go on

    if client is not None:
        yield from submit(client)
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # a worker that reads the user's script on its start has come here again
        raise InputError(UNGUARDED)
    try:
        # a computer that slept did not lose its workers
        with dask.config.set({"distributed.scheduler.worker-ttl": None}):
            cluster = LocalCluster(
                n_workers=workers or os.cpu_count() or 1,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                host="127.0.0.1",
                silence_logs=logging.CRITICAL + 1,  # what a toy raises is raised here
            )
    except RuntimeError as err:
        raise InputError(UNGUARDED) from err
    with cluster, Client(cluster) as local:
        yield from submit(local)


def _call(task: Callable[[int], dict[str, Any]], seed: int) -> dict[str, Any]:
    return task(seed)


def _collect(
    records: list[dict[str, Any]],
    edges: dict[str, Array],
    expected: Array,
    levels: tuple[float, ...],
    spent: tuple[float, int],
) -> CoverageStudy:
    """The study of all toys; ``spent`` is the time of this run, and its number of toys."""

    def gather(name: str) -> Array:
        return np.array([r[name] for r in records])

    draws = gather("draws")[:, None] + 1.0
    extra = {k: np.array([r["extra"][k] for r in records]) for k in records[0]["extra"]}
    return CoverageStudy(
        edges=edges,
        expected=expected,
        levels=levels,
        nominal=gather("nominal"),
        std=gather("std"),
        lower=gather("lower"),
        upper=gather("upper"),
        pit=gather("pit") / draws,
        chi2=gather("chi2"),
        dof=gather("dof"),
        seconds=gather("seconds"),
        seeds=np.array([r["seed"] for r in records], dtype=np.int64),
        wall_seconds=spent[0],
        extra=extra,
        timed_toys=spent[1],
    )
