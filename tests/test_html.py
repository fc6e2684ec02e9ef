"""What objects show in a notebook, and figures in axes of the user's own."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

import bayesunfold as bu
from bayesunfold.errors import InputTypeError


@pytest.fixture(scope="module")
def result():
    toy = bu.datasets.gaussian_toy(400, 400, random_seed=1)
    simulation = bu.Simulation(toy.gen, toy.reco, names=["<pt> & more"])
    return bu.OmniFold(1, inference="laplace", draws=20, random_seed=1, progressbar=False).fit(simulation, toy.data)


def _text(html):
    """All text of a piece of HTML, which must be well formed."""
    return " ".join(ET.fromstring(f"<div>{html}</div>").itertext())


def test_objects_show_what_they_hold(result):
    assert "400 particle level <pt> & more" in " ".join(_text(result.simulation._repr_html_()).split())
    assert "effective size 400.0" in _text(result.data._repr_html_())
    background = bu.Background([0.1, 0.4], [0.5, 0.5], "top", 0.1)
    assert "uncertainty of the yield 10 %" in _text(background._repr_html_())
    assert "OmniFold, 20 laplace members" in _text(result._repr_html_())
    assert "<pt>" in _text(result._repr_html_())


def test_a_spectrum_shows_its_figure(result):
    spectrum = result.spectrum("<pt> & more", [-5, 0, 5])
    html = spectrum._repr_html_()
    assert html.count("<svg") == 1
    _text(html)
    values = result.simulation.gen[:, 0]
    both = result.spectrum((values, values**2), [[-5, 0, 5], [0, 1, 9]])
    assert "2 x 2" in _text(both._repr_html_())


def test_a_spectrum_draws_into_given_axes(result):
    spectrum = result.spectrum("<pt> & more", [-5, 0, 5])
    one = Figure().subplots()
    assert spectrum.plot(ax=one) is one.figure
    assert one.get_ylabel() == "events / bin"
    assert one.get_xlabel() == "<pt> & more"
    top, bottom = Figure().subplots(2, 1)
    spectrum.plot(truth=[150, 250], ax=(top, bottom), label="mine")
    assert top.get_xlabel() == ""
    assert bottom.get_xlabel() == "mine"
    assert bottom.get_ylabel() == "ratio to\nunfolded"
    assert [t.get_text() for t in top.get_legend().get_texts()][-1] == "truth"
    np.testing.assert_array_equal(bottom.get_xlim(), [-5, 5])
    with pytest.raises(InputTypeError, match="give one matplotlib Axes"):
        spectrum.plot(ax=[1, 2])


def test_a_spectrum_is_a_plottable_histogram(result):
    """The protocol's own checks."""
    from uhi.numpy_plottable import ensure_plottable_histogram
    from uhi.typing.plottable import PlottableHistogram

    gen = result.simulation.gen[:, 0]
    spectrum = result.spectrum((gen, gen**2), ([-5, 0, 5], [0, 1, 4, 25]), unit=("GeV", ""))
    assert isinstance(spectrum, PlottableHistogram)
    assert ensure_plottable_histogram(spectrum) is spectrum
    first, second = spectrum.axes
    assert (first.label, second[-1], len(second)) == (f"{spectrum.names[0]} [GeV]", (4.0, 25.0), 3)
    assert first == spectrum.axes[0] != second
    assert len({first, spectrum.axes[0], second}) == 2
    with pytest.raises(IndexError):
        first[2]
    np.testing.assert_allclose(spectrum.counts(), spectrum.values() ** 2 / spectrum.variances())
