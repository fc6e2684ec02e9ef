"""Documents of the HEP Statistics Serialization Standard, read by another implementation of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu


def spectrum(*edges: list[float], names: tuple[str, ...] = ("pt",), empty: bool = False) -> bu.Spectrum:
    """400 draws of six correlated bins."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    nominal = np.arange(6) + 10.0
    draws = rng.multivariate_normal(nominal, root @ root.T, 400)
    if empty:
        nominal[3] = np.nan
    return bu.Spectrum(tuple(np.array(e) for e in edges), draws, nominal, names=names)


def read(path):
    """Names and data of a document, validated."""
    data = require("pyhs3.data")
    metadata = require("pyhs3.metadata")
    document = json.loads(path.read_text())
    assert metadata.Metadata(**document["metadata"]).packages[0].name == "bayesunfold"
    return {datum.name: datum for datum in data.Data(document["data"])}


def test_spectra_have_their_covariance(tmp_path):
    one = spectrum([0, 1, 2, 4, 5, 6, 7])
    two = spectrum([0, 1, 3], [0, 1, 2, 5], names=("pt", "m"))
    found = read(bu.io.write_hs3(tmp_path / "spectra.json", {"pt": one, "both": two}))
    for name, given in (("pt", one), ("both", two)):
        datum = found[name]
        assert np.allclose(datum.contents, given.nominal)
        assert [axis.name for axis in datum.axes] == list(given.names)
        assert all(np.array_equal(axis.edges, edges) for axis, edges in zip(datum.axes, given.edges, strict=True))
        sigma, correlation = np.array(datum.uncertainty.sigma), np.array(datum.uncertainty.correlation)
        assert np.allclose(correlation * np.outer(sigma, sigma), given.covariance(), rtol=1e-8)
    assert np.allclose(found["both"].to_hist().values(), two.values())  # the same order of two axes


def test_a_reader_can_rebuild_chi_square_and_tell_axes_apart(tmp_path):
    """The factor of Hartlap et al. for 400 draws of six bins, (400 - 6 - 2) / 399."""
    one = spectrum([0, 1, 2, 4, 5, 6, 7])
    exact = bu.MatrixInversion().fit(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]]), [100, 150])
    two = spectrum([0, 1, 3], [0, 1, 2, 5], names=("pt", "pt"))
    path = bu.io.write_hs3(tmp_path / "spectra.json", {"pt": one, "both": two, "exact": exact})
    assert [axis.name for axis in read(path)["both"].axes] == ["pt_0", "pt_1"]
    about = json.loads(path.read_text())["metadata"]["description"].splitlines()
    assert [line.partition(":")[0] for line in about] == ["pt", "both"]  # that of the inversion is known exactly
    assert "400 draws" in about[0]
    factor = float(re.search(r" = ([0-9.]+), for dof = 6", about[0])[1])
    assert factor == pytest.approx(392 / 399, rel=1e-12)
    residual = one.nominal - 1.1 * one.nominal
    reader = residual @ np.linalg.solve(one.covariance(), residual)
    assert factor * reader == pytest.approx(one.chi2(1.1 * one.nominal).value, rel=1e-9)


def test_unbinned_events_have_the_weights_of_the_answer(tmp_path):
    toy = bu.datasets.gaussian_toy(300, 300, dimension=2, random_seed=1)
    unfolder = bu.OmniFold(iterations=1, inference="laplace", draws=50, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    shown = {"first": result.spectrum(result.simulation.gen_names[0], np.linspace(-2, 2, 5))}
    datum = read(bu.io.write_hs3(tmp_path / "events.json", shown, events=result))["events"]
    assert np.allclose(datum.entries, result.simulation.gen)
    assert np.allclose(datum.weights, result.nominal)
    assert [axis.name for axis in datum.axes] == list(result.simulation.gen_names)
    assert np.histogram(np.array(datum.entries)[:, 0], np.linspace(-2, 2, 5), weights=datum.weights)[
        0
    ] == pytest.approx(shown["first"].nominal)
    with pytest.raises(bu.errors.InputError, match="is named 'events'"):
        bu.io.hs3_document({"events": shown["first"]}, events=result)


def test_what_the_standard_cannot_say(tmp_path):
    with pytest.raises(bu.errors.InputError, match=r"bins \[3\] of the spectrum 'pt' have no point estimate"):
        bu.io.write_hs3(tmp_path / "x.json", {"pt": spectrum([0, 1, 2, 4, 5, 6, 7], empty=True)})
    flat = bu.Spectrum((np.arange(3.0),), np.column_stack([np.ones(50), np.arange(50.0)]), np.ones(2))
    with pytest.raises(bu.errors.InputError, match=r"bins \[0\] of the spectrum 'pt' have no width"):
        bu.io.write_hs3(tmp_path / "x.json", {"pt": flat})
    with pytest.raises(bu.errors.InputError, match="no spectra"):
        bu.io.write_hs3(tmp_path / "x.json", {})
    assert not list(tmp_path.iterdir())
