"""What a reader makes of a HEPData record: total errors from sources, and chi-square."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from conftest import require

import bayesunfold as bu
from bayesunfold.impacts import Parameter

# inside hepdata_lib, which leaves files open
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

N = 400


def spectrum(correlation: float, parameters: bool = False) -> bu.Spectrum:
    """Two systematics of the same shape and size, whose draws have exactly this correlation, beside the data's."""
    noise = np.random.default_rng(1).normal(size=(N, 5))
    one, two, *data = np.sqrt(N - 1) * np.linalg.qr(noise - noise.mean(axis=0))[0].T
    two = correlation * one + np.sqrt(1 - correlation**2) * two
    nominal = np.full(3, 100.0)
    moved = {"jes": 8 * np.outer(one, np.ones(3)), "jer": 8 * np.outer(two, np.ones(3)), "data": 2 * np.transpose(data)}
    return bu.Spectrum(
        (np.arange(4.0),),
        nominal + sum(moved.values()),
        nominal,
        sources={name: (lambda change=change: nominal + change) for name, change in moved.items()},
        parameters={
            "jes": Parameter(one, partners=frozenset({"jer"})),
            "jer": Parameter(two, partners=frozenset({"jes"})),
        }
        if parameters
        else {},
    )


def table(folder, name: str):
    """Labels and sizes of the errors of the first bin, and the names of the columns."""
    columns = yaml.safe_load((folder / name).read_text())["dependent_variables"]
    errors = {e["label"]: e["symerror"] for e in columns[0]["values"][0]["errors"]}
    return errors, [column["header"]["name"] for column in columns]


def test_errors_add_up_to_the_total(tmp_path, monkeypatch):
    """In quadrature two sources of 8 and one of 2 make ``sqrt(132)``; with a correlation of 0.4 the total is 13.5."""
    require("hepdata_lib")
    monkeypatch.chdir(tmp_path)
    related = spectrum(0.05, parameters=True)
    spectra = {"apart": spectrum(0.0), "related": related, "unknown": spectrum(0.4)}
    spectra["grouped"] = related.grouped({"jets": "je*"})
    folder = bu.io.write_hepdata(tmp_path / "h", spectra)
    errors, _ = table(folder, "apart.yaml")
    assert list(errors) == ["jes", "jer", "data"]
    assert np.sqrt(sum(size**2 for size in errors.values())) == pytest.approx(np.sqrt(132), rel=1e-9)
    for name, correlation in (("related", 0.05), ("unknown", 0.4)):
        errors, columns = table(folder, f"{name}.yaml")
        assert errors == {"total": pytest.approx(np.sqrt(132 + 128 * correlation), rel=1e-9)}
        assert {f"standard deviation from {source}" for source in ("jes", "jer", "data")} <= set(columns)
    errors, _ = table(folder, "grouped.yaml")
    assert errors == {
        "jets": pytest.approx(np.sqrt(128 * 1.05), rel=1e-9),
        "data": pytest.approx(2, rel=1e-9),
    }


def test_a_reader_can_rebuild_chi_square(tmp_path, monkeypatch):
    """The factor of Hartlap et al. for 400 draws of three bins, (400 - 3 - 2) / 399."""
    require("hepdata_lib")
    monkeypatch.chdir(tmp_path)
    given = spectrum(0.0)
    exact = bu.MatrixInversion().fit(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]]), [100, 150])
    folder = bu.io.write_hepdata(tmp_path / "h", {"pt": given, "exact": exact})
    tables = {t.get("name"): t for t in yaml.safe_load_all((folder / "submission.yaml").read_text())}
    about = tables["pt covariance"]["description"]
    assert "400 draws" in about
    factor = float(re.search(r" = ([0-9.]+), for dof = 3", about)[1])
    assert factor == pytest.approx(395 / 399, rel=1e-12)
    values = yaml.safe_load((folder / "pt_covariance.yaml").read_text())["dependent_variables"][0]["values"]
    covariance = np.reshape([v["value"] for v in values], (3, 3))
    reader = factor * 16 * np.linalg.inv(covariance).sum()
    assert reader == pytest.approx(given.chi2(np.full(3, 104.0)).value, rel=1e-9)
    assert "draws" not in tables["exact covariance"]["description"]
