"""Sections of the configuration that say what is done: settings, spectra, pseudo-experiments and output."""

from __future__ import annotations

from typing import Annotated, Literal, cast, get_args

import msgspec
from msgspec import Meta, Struct

from bayesunfold._support.checks import check_bins
from bayesunfold.classifier.activations import ACTIVATIONS
from bayesunfold.classifier.inference import inference_names
from bayesunfold.errors import InputError
from bayesunfold.normalization import read_luminosity
from bayesunfold.spectrum import Normalization

__all__ = ["CoverageSection", "NetworkSection", "OutputSection", "SpectrumSection", "UnfoldingSection", "given_keys"]


def __dir__() -> list[str]:
    return __all__


def given_keys(section: Struct) -> dict[str, object]:
    """Keys of a section that are not left at None."""
    return {name: value for name, value in msgspec.structs.asdict(section).items() if value is not None}


class UnfoldingSection(Struct, kw_only=True, frozen=True):
    """The section [unfolding]."""

    method: Annotated[str, Meta(description='"omnifold", or "direct" for one posterior without a loop')] = "omnifold"
    iterations: Annotated[int | Literal["auto"] | None, Meta(description="iterations")] = None
    inference: Annotated[
        str | None,
        Meta(
            description=" or ".join(f'"{name}"' for name in inference_names())
            + '; of the direct posterior also "marginal", its default'
        ),
    ] = None
    draws: Annotated[int | None, Meta(description="members of the ensemble")] = None
    efficiency: Annotated[str | None, Meta(description='"learned" or "prior"')] = None
    prior: Annotated[float | None, Meta(description="of the direct posterior: width of the hyperprior")] = None
    rounds: Annotated[int | None, Meta(description="of the direct posterior: most second classifiers")] = None
    generator_prior: Annotated[float | None, Meta(description="relative uncertainty of the generator")] = None
    event_groups: Annotated[
        int | None, Meta(description="samples of more events fluctuate in so many groups; 131072 by default")
    ] = None
    random_seed: Annotated[int | None, Meta(description="the same seed gives the same result")] = None
    bias: Annotated[
        bool | None,
        Meta(description="of OmniFold: estimate the bias as well, half as long as training again (on if omitted)"),
    ] = None

    def settings(self) -> dict[str, object]:
        """Arguments of the class of the method."""
        return {name: value for name, value in given_keys(self).items() if name not in ("bias", "method")}

    def check(self) -> None:
        """Whether the method has what is asked for."""
        if self.bias and self.method == "direct":
            msg = (
                'unfolding.bias is true and the method "direct", which does not stop early and has no such bias; leave '
                'bias out, or take method = "omnifold".'
            )
            raise InputError(msg)


class NetworkSection(Struct, kw_only=True, frozen=True):
    """The section [network]."""

    hidden: Annotated[list[int] | None, Meta(description="units of each hidden layer")] = None
    activation: Annotated[str | None, Meta(description=" or ".join(f'"{name}"' for name in ACTIVATIONS))] = None
    prior_scale: Annotated[list[float] | None, Meta(description="prior scale of each layer")] = None
    additive: Annotated[
        int | None, Meta(description="intervals per feature of the additive part; 0 for none, the method's if omitted")
    ] = None

    def settings(self) -> dict[str, object]:
        """Arguments of :class:`bayesunfold.Network`."""
        return given_keys(self)


class SpectrumSection(Struct, kw_only=True, frozen=True):
    """A section [[spectrum]]."""

    observable: Annotated[str, Meta(description="a particle-level feature (required)")]
    bins: Annotated[list[float], Meta(description="bin edges (required)")]
    normalization: Annotated[str, Meta(description='"yield", "shape" or "density"')] = "yield"
    luminosity: Annotated[float | None, Meta(description="divides the spectrum")] = None
    luminosity_uncertainty: Annotated[float | None, Meta(description="relative")] = None
    unit: Annotated[str, Meta(description="of the observable, for what is published")] = ""

    def luminosity_argument(self) -> float | tuple[float, float] | None:
        """Luminosity as :meth:`bayesunfold.UnfoldingResult.spectrum` takes it."""
        return None if self.luminosity is None else (self.luminosity, self.luminosity_uncertainty or 0.0)

    def check(self) -> None:
        """Bins and normalisation, before hours of training and not after."""
        check_bins(self.bins, f"bins of {self.observable}")
        if self.luminosity_uncertainty is not None and self.luminosity is None:
            msg = (
                f"the spectrum of {self.observable} has a luminosity_uncertainty and no luminosity; give both, or "
                "neither."
            )
            raise InputError(msg)
        if self.normalization not in get_args(Normalization):
            msg = f"spectrum.normalization is {self.normalization!r}; it must be 'yield', 'shape' or 'density'."
            raise InputError(msg)
        if self.normalization == "shape" and self.luminosity is not None:
            msg = (
                f"the spectrum of {self.observable} is a shape and has a luminosity; use 'yield' or 'density', or drop "
                "it."
            )
            raise InputError(msg)
        read_luminosity(self.luminosity_argument(), cast("Normalization", self.normalization))


class CoverageSection(Struct, kw_only=True, frozen=True):
    """The section [coverage]."""

    toys: Annotated[int, Meta(description="pseudo-experiments")] = 100
    truth_weight: Annotated[
        str | None,
        Meta(description="expression of the simulation: factor on the generator weight that makes the toys' truth"),
    ] = None
    answer: Annotated[
        str | None,
        Meta(description="saved result whose weights make the truth of the toys; relative to the output folder"),
    ] = None
    expected_data: Annotated[
        float | None, Meta(description="expected number of data events; that of the data file if omitted")
    ] = None


class OutputSection(Struct, kw_only=True, frozen=True):
    """The section [output]."""

    folder: Annotated[str | None, Meta(description="where everything is written; relative to the configuration")] = None
    report: Annotated[bool, Meta(description="write the dashboard (on if omitted)")] = True
    publication: Annotated[bool, Meta(description="write events.parquet and metadata.yaml")] = False
    publication_by_source: Annotated[
        bool, Meta(description="publish weights in which one source alone fluctuates, too")
    ] = False
    root: Annotated[bool, Meta(description="write spectra as ROOT histograms")] = False
    hepdata: Annotated[bool, Meta(description="write a HEPData submission")] = False
    yoda: Annotated[
        str | None, Meta(description="name of a Rivet analysis: write the spectra as its reference data, NAME.yoda")
    ] = None
    abstract: Annotated[str, Meta(description="of the HEPData submission")] = ""
    generator: Annotated[str | None, Meta(description="generator and tune, for the metadata of the publication")] = None
    groups: Annotated[
        dict[str, list[str]] | None,
        Meta(description='groups of sources of uncertainty in report and files, {"jet energy" = ["jes*", "jer"]}'),
    ] = None
    event_selection: Annotated[str | None, Meta(description="the particle-level selection in words, likewise")] = None
    reference: Annotated[str | None, Meta(description="arXiv number or DOI, likewise")] = None

    def check(self, *, spectra: bool) -> None:
        """Whether every key has something to act on; ``spectra`` says whether there are sections [[spectrum]]."""
        of_publication = {"publication_by_source": self.publication_by_source, **self.description()}
        of_hepdata = {"abstract": self.abstract}
        needs = ((of_publication, "publication", self.publication), (of_hepdata, "hepdata", self.hepdata))
        for keys, needed, there in needs:
            given = [name for name, value in keys.items() if value]
            if given and not there:
                msg = f"output.{given[0]} is of what output.{needed} writes; set {needed} = true, or leave it out."
                raise InputError(msg)
        if self.groups and not spectra:
            msg = "output.groups divides the uncertainty of spectra, and there is no section [[spectrum]]; add one."
            raise InputError(msg)

    def description(self) -> dict[str, str]:
        """Words for the metadata of the publication."""
        words = {"generator": self.generator, "event_selection": self.event_selection, "reference": self.reference}
        return {name: text for name, text in words.items() if text is not None}
