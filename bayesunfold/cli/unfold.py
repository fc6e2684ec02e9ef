"""``bayesunfold unfold``: from files that a configuration names to a folder of results."""

from __future__ import annotations

import csv
import warnings
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from bayesunfold._support.checks import check_source_name
from bayesunfold._support.files import atomic_write, check_writable
from bayesunfold._support.streams import LUMINOSITY
from bayesunfold.binning import bin_index
from bayesunfold.classifier.backend import Backend, on_backend
from bayesunfold.cli.configuration import Job, feature_names
from bayesunfold.cli.reading import FileEntry
from bayesunfold.direct.estimator import UnbinnedFBU
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.io import write_hepdata, write_publication, write_root, write_yoda
from bayesunfold.io.hepdata import check_hepdata
from bayesunfold.io.publication import check_publication
from bayesunfold.io.storage import check_target
from bayesunfold.io.yoda import check_analysis
from bayesunfold.omnifold.estimator import OmniFold
from bayesunfold.report import write_report
from bayesunfold.source_groups import check_names_of_groups, match_groups
from bayesunfold.spectrum import Normalization, Spectrum
from bayesunfold.unfolding.background_changes import check_background_names
from bayesunfold.unfolding.reading import check_names_of_sources
from bayesunfold.unfolding.record import BLIND
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.systematics import Systematic
from bayesunfold.unfolding.two_point import statistics_name

__all__ = ["check_job", "run_job"]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Inputs:
    """What a configuration names, read and checked."""

    unfolder: OmniFold | UnbinnedFBU
    simulation: Simulation
    data: Data
    backgrounds: list[Background]
    systematics: list[Systematic]


def check_job(job: Job) -> str:
    """Every check that needs no training: configuration, files, events, and the places of the output.

    Returns
    -------
    str
        What was read.

    Raises
    ------
    InputError
        For the first thing that is wrong.
    """
    inputs = _read(job, progressbar=False)
    inputs.unfolder.check(inputs.simulation, inputs.data, inputs.backgrounds, inputs.systematics)
    lines = [repr(inputs.simulation), repr(inputs.data), *map(repr, inputs.backgrounds), *map(repr, inputs.systematics)]
    return "\n".join([*lines, *_notes(job), *_files(job), f"{job.path}: all checks pass; nothing was trained."])


def run_job(job: Job, *, resume: bool = False, progressbar: bool = True, backend: Backend = "numpy") -> str:
    """Read, check, unfold, write; returns what was written as text.

    Parameters
    ----------
    job : Job
        From :func:`bayesunfold.cli.configuration.load_job`.
    resume : bool
        Go on from the checkpoint in the output folder. Without it an old checkpoint is an error.
    backend : {"numpy", "jax"}
        What computes sums over events, of everything.

    Raises
    ------
    InputError
        For anything wrong with the configuration, the events or the places of the output, before any training.
    """
    checkpoint = job.folder / "checkpoint.npz"
    if checkpoint.exists() and not resume:
        msg = f"{checkpoint} is left from an interrupted run; pass --resume to go on from it, or remove it."
        raise InputError(msg)
    job.progressbar = progressbar
    inputs = _read(job, progressbar=progressbar)
    with on_backend(backend):
        result = inputs.unfolder.fit(
            inputs.simulation,
            inputs.data,
            inputs.backgrounds,
            inputs.systematics,
            checkpoint=checkpoint,
            backend=backend,
        )
        result = replace(result, record=replace(result.record, blind=job.blind))
        if job.sections.unfolding.bias is not False and isinstance(inputs.unfolder, OmniFold):
            result = result.estimate_bias()
        written = _write(job, result)
    checkpoint.unlink(missing_ok=True)
    notes = [note for note in _notes(job) if note != BLIND]  # the summary has it
    return "\n".join([result.summary(), *notes, *_files(job), *(f"written: {path}" for path in written)])


def _files(job: Job) -> list[str]:
    """What was read of each file, if a sample has several."""
    samples = [entry.sample for entry in job.manifest]
    if len(set(samples)) == len(samples):
        return []
    return [
        f"read for {e.sample}: {e.file}{':' + e.tree if e.tree else ''}, {e.kept} of {e.events} events, "
        + ("weights not read" if e.weight is None else f"sum of weights {e.weight:g}")
        for e in job.manifest
    ]


def _write_manifest(job: Job, path: Path) -> None:
    """A table of the files that were read."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(FileEntry))
        writer.writerows(astuple(entry) for entry in job.manifest)


def _notes(job: Job) -> list[str]:
    """What a reader of the result must know about the events."""
    notes = []
    if job.blind:
        notes.append(BLIND)
    if job.levels is not None:
        notes.append(
            f"levels of the simulation matched: {job.levels.matched} events have both, {job.levels.only_gen} the "
            f"particle level only, {job.levels.only_reco} the detector level only"
        )
    if job.unused:
        notes.append(
            f"{job.unused} simulated events pass neither level, nominally or in a variation; they were dropped"
        )
    notes += [
        f"{number} events of the alternative simulation of {name} pass neither level; they were dropped"
        for name, number in job.unused_alternatives.items()
        if number
    ]
    return notes


def _read(job: Job, *, progressbar: bool) -> Inputs:
    """Events and settings; places of the output are looked at before the files."""
    _check_output(job)
    unfolder = job.unfolder(progressbar=progressbar)
    _check_names(job)
    simulation, systematics = job.simulation()
    _check_spectra(job, simulation)
    backgrounds = job.backgrounds()
    return Inputs(unfolder, simulation, job.data(), backgrounds, systematics)


def _check_names(job: Job) -> None:
    """Names that the configuration alone decides, before events are read: of features, sources and groups."""
    s, backgrounds, systematics = job.sections.simulation, job.sections.background, job.systematic
    features = feature_names(s.names, s.gen, "names")
    feature_names(s.reco_names, s.reco, "reco_names")
    for section in job.sections.spectrum:
        if section.observable not in features:
            msg = (
                f"the observable {section.observable!r} of [[spectrum]] is not a particle-level feature; there are "
                f"{', '.join(features)}."
            )
            raise InputError(msg)
    for background in backgrounds:
        check_source_name(background.name, "background")
    for systematic in systematics:
        check_source_name(systematic.name, "systematic", LUMINOSITY)
        check_background_names(systematic.name, [b.name for b in systematic.background], [b.name for b in backgrounds])
    sources = [*(b.name for b in backgrounds), *(x.name for x in systematics)]
    sources += [statistics_name(x.name) for x in systematics if x.profile and x.alternative is not None]
    check_names_of_sources(sources)
    for section in job.sections.spectrum if LUMINOSITY in sources else ():
        if section.luminosity is not None and not section.luminosity_uncertainty:
            msg = (
                f"[[spectrum]] of {section.observable} has a luminosity without luminosity_uncertainty, and the "
                "systematic named luminosity varies backgrounds with it; give the same uncertainty as there."
            )
            raise InputError(msg)
    if job.sections.output.groups:
        sources = ["data", "simulation", "prior", *sources]
        sources += ["generator"] if job.sections.unfolding.generator_prior else []
        profiled = [*(b.name for b in backgrounds if b.profile), *(x.name for x in systematics if x.profile)]
        for section in job.sections.spectrum:
            divided = bool(section.luminosity_uncertainty) and LUMINOSITY not in sources
            found = match_groups(job.sections.output.groups, [*sources, *([LUMINOSITY] if divided else [])])
            check_names_of_groups(found, profiled)


def _check_output(job: Job) -> None:
    folder, output = job.folder, job.sections.output
    names = [section.observable for section in job.sections.spectrum]
    check_writable(folder, folder=True)
    check_target(folder / "unfolded.nc")
    files = ("checkpoint.npz", "report.html", "report.json", "spectra.root", "nuisances.csv", "pulls.png", "inputs.csv")
    for name in (*files, *(f"{n}.png" for n in names)):
        check_writable(folder / name)
    if output.root:
        import uproot  # noqa: F401  an error now if it is missing
    if output.hepdata:
        check_hepdata(folder / "hepdata", names, output.abstract)
    if output.yoda is not None:
        check_analysis(output.yoda)
        check_writable(folder / f"{output.yoda}.yoda")
        if not names:
            msg = "output.yoda writes spectra, and there is no section [[spectrum]]; add one, or leave yoda out."
            raise InputError(msg)


def _check_spectra(job: Job, simulation: Simulation) -> None:
    """Observables that exist, and bins that hold simulated events."""
    if job.sections.output.publication:
        check_publication(job.folder / "publication", simulation.gen_names)
    for section in job.sections.spectrum:
        name, edges = section.observable, np.asarray(section.bins)
        rows = simulation.pass_gen & (simulation.weight != 0)
        index = bin_index([simulation.gen_column(name)], [edges], rows)
        empty = np.flatnonzero(np.bincount(index[index >= 0], minlength=len(edges) - 1) == 0)
        if len(empty) == len(edges) - 1:
            msg = (
                f"no simulated event lies in the bins of {name}, from {edges[0]:g} to {edges[-1]:g}; check their unit."
            )
            raise InputError(msg)
        if len(empty):
            msg = f"bins {empty.tolist()} of {name} hold no simulated event; they stay empty. Merge them with others."
            warnings.warn(msg, OverlapWarning, stacklevel=2)


def _write(job: Job, result: UnfoldingResult) -> list[Path]:
    """Everything that the section [output] asks for."""
    folder, output = job.folder, job.sections.output
    written = [result.save(folder / "unfolded.nc"), folder / "inputs.csv"]
    atomic_write(folder / "inputs.csv", partial(_write_manifest, job))
    spectra = _spectra(job, result)
    for name, spectrum in spectra.items():
        path = folder / f"{name}.png"
        atomic_write(path, spectrum.plot().savefig)
        written.append(path)
    nuisances = None
    if result.measurement.nuisances is not None:
        nuisances = result.nuisances
        written += [folder / "nuisances.csv", folder / "pulls.png"]
        atomic_write(folder / "nuisances.csv", nuisances.to_csv)
        atomic_write(folder / "pulls.png", result.plot_pulls().savefig)
    bins = {s.observable: s.bins for s in job.sections.spectrum}
    units = {s.observable: s.unit for s in job.sections.spectrum if s.unit}
    if output.report:
        rows = [asdict(entry) for entry in job.manifest]
        written.append(write_report(result, folder / "report.html", spectra=spectra, notes=_notes(job), inputs=rows))
    if job.blind:  # nobody may take pseudo-data for the measurement
        return written
    if output.publication:
        path = write_publication(
            result,
            folder / "publication",
            by_source=output.publication_by_source,
            units=units,
            recommended_bins=bins,
            description=output.description(),
        )
        written.append(path)
    if output.root:
        written.append(write_root(folder / "spectra.root", spectra))
    if output.hepdata:
        written.append(write_hepdata(folder / "hepdata", spectra, abstract=output.abstract, nuisances=nuisances))
    if output.yoda is not None:
        written.append(write_yoda(folder / f"{output.yoda}.yoda", spectra, output.yoda))
    return written


def _spectra(job: Job, result: UnfoldingResult) -> dict[str, Spectrum]:
    spectra = {
        section.observable: result.spectrum(
            section.observable,
            section.bins,
            normalization=cast("Normalization", section.normalization),
            luminosity=section.luminosity_argument(),
            unit=section.unit,
        )
        for section in job.sections.spectrum
    }
    groups = job.sections.output.groups
    return {name: spectrum.grouped(groups) for name, spectrum in spectra.items()} if groups else spectra
