"""``bayesunfold unfold``: from files that a configuration names to a folder of results."""

from __future__ import annotations

from pathlib import Path

from bayesunfold._support.files import atomic_write
from bayesunfold.errors import InputError
from bayesunfold.io import write_hepdata, write_publication, write_root
from bayesunfold.io.config import Job
from bayesunfold.result import UnfoldingResult
from bayesunfold.spectrum import Spectrum

__all__ = ["run_job"]


def __dir__() -> list[str]:
    return __all__


def run_job(job: Job, *, resume: bool = False, progressbar: bool = True) -> str:
    """Read, unfold, write; returns what was written as text.

    Parameters
    ----------
    job : Job
        From :func:`bayesunfold.io.config.load_job`.
    resume : bool
        Go on from the checkpoint in the output folder. Without it an old checkpoint is an error.

    Raises
    ------
    InputError
        For anything wrong with the configuration or the events, before any training.
    """
    checkpoint = job.folder / "checkpoint.npz"
    if checkpoint.exists() and not resume:
        msg = f"{checkpoint} is left from an interrupted run; pass --resume to go on from it, or remove it."
        raise InputError(msg)
    job.progressbar = progressbar
    unfolder = job.unfolder(progressbar=progressbar)
    simulation, systematics = job.simulation()
    for section in job.settings["spectrum"]:
        simulation.gen_column(section["observable"])
    result = unfolder.fit(simulation, job.data(), job.backgrounds(), systematics, checkpoint=checkpoint)
    if job.settings["unfolding"].get("bias", True):
        result = result.estimate_bias()
    written = _write(job, result)
    checkpoint.unlink(missing_ok=True)
    return "\n".join([result.summary(), *(f"written: {path}" for path in written)])


def _write(job: Job, result: UnfoldingResult) -> list[Path]:
    """Everything that the section [output] asks for."""
    folder, output = job.folder, job.settings["output"]
    written = [result.save(folder / "unfolded.nc")]
    spectra = _spectra(job, result)
    for name, spectrum in spectra.items():
        path = folder / f"{name}.png"
        atomic_write(path, spectrum.plot().savefig)
        written.append(path)
    bins = {s["observable"]: s["bins"] for s in job.settings["spectrum"]}
    units = {s["observable"]: s["unit"] for s in job.settings["spectrum"] if "unit" in s}
    if output.get("report", True):
        written.append(result.report(folder / "report.html", bins))
    if output.get("publication", False):
        words = {k: output[k] for k in ("generator", "event_selection", "reference") if k in output}
        path = write_publication(
            result,
            folder / "publication",
            by_source=output.get("publication_by_source", False),
            units=units,
            recommended_bins=bins,
            description=words,
        )
        written.append(path)
    if output.get("root", False):
        written.append(write_root(folder / "spectra.root", spectra))
    if output.get("hepdata", False):
        written.append(write_hepdata(folder / "hepdata", spectra, abstract=output.get("abstract", ""), units=units))
    return written


def _spectra(job: Job, result: UnfoldingResult) -> dict[str, Spectrum]:
    spectra = {}
    for section in job.settings["spectrum"]:
        luminosity = section.get("luminosity")
        if luminosity is not None:
            luminosity = (luminosity, section.get("luminosity_uncertainty", 0.0))
        name = section["observable"]
        spectra[name] = result.spectrum(
            name, section["bins"], normalization=section.get("normalization", "yield"), luminosity=luminosity
        )
    return spectra
