"""Reference data of Rivet, read back by another reader of the format."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold.cli import main

CONTENTS = np.arange(6) + 10.0


def spectrum(*edges: list[float], empty: int | None = None) -> bu.Spectrum:
    """500 draws of six correlated bins."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(6, 6))
    nominal = CONTENTS.copy()
    if empty is not None:
        nominal[empty] = np.nan
    return bu.Spectrum(
        tuple(np.array(e) for e in edges), rng.multivariate_normal(CONTENTS, root @ root.T, 500), nominal
    )


def read(path):
    grogu = require("babyyoda.grogu")
    return grogu.read(str(path))


def errors(found) -> np.ndarray:
    """Upward errors of each bin, shape (bins with flow, components); minus the downward ones."""
    up = np.array([b.d_errors_up for b in found.d_bins])
    assert np.array_equal(up, -np.array([b.d_errors_dn for b in found.d_bins]), equal_nan=True)
    return up


def test_components_make_the_covariance_again(tmp_path):
    given = spectrum([0, 1, 2, 4, 5, 6, 7])
    path = bu.io.write_yoda(tmp_path / "TOY.yoda", {"pt of jet: hardest": given}, "TOY")
    ((key, found),) = read(path).items()
    assert key == "/REF/TOY/d01-x01-y01"
    assert found.d_annotations["Type"] == "Estimate1D"
    assert "pt of jet: hardest" in found.d_annotations["Title"]
    assert found.d_edges == [0, 1, 2, 4, 5, 6, 7]
    assert np.allclose([b.d_value for b in found.d_bins][1:-1], CONTENTS)
    inside = errors(found)[1:-1]
    assert np.allclose(inside @ inside.T, given.covariance(), rtol=1e-8)
    assert not any(label.startswith(("stat", "uncor")) for label in found.d_error_labels)  # these are uncorrelated
    assert np.isnan([found.d_bins[0].d_value, found.d_bins[-1].d_value]).all()


def test_two_observables_and_bins_without_content(tmp_path):
    both = {"a": spectrum([0, 1, 3], [0, 1, 2, 5]), "b": spectrum([0, 1, 2, 4, 5, 6, 7], empty=2)}
    found = read(bu.io.write_yoda(tmp_path / "TOY.yoda", both, "TOY"))
    two, one = found["/REF/TOY/d01-x01-y01"], found["/REF/TOY/d02-x01-y01"]
    values = np.array([b.d_value for b in two.d_bins]).reshape(5, 4)  # rows of the second axis, with flow
    assert np.allclose(values[1:-1, 1:-1].T.ravel(), CONTENTS)
    assert np.isnan(values[[0, -1]]).all()
    assert np.isnan(values[:, [0, -1]]).all()
    rows = errors(two).reshape(5, 4, -1)[1:-1, 1:-1].transpose(1, 0, 2).reshape(6, -1)
    assert np.allclose(rows @ rows.T, both["a"].covariance(), rtol=1e-8)
    kept = np.delete(np.arange(6), 2)
    inside = errors(one)[1:-1]
    assert np.isnan(inside[2]).all()
    assert np.isnan(one.d_bins[3].d_value)
    assert np.allclose(inside[kept] @ inside[kept].T, both["b"].covariance()[np.ix_(kept, kept)], rtol=1e-8)


@pytest.mark.parametrize("analysis", ["", "TOY 2026", "2026_TOY", "a/b", None])
def test_names_of_analyses(tmp_path, analysis):
    with pytest.raises(bu.errors.InputError, match="letters, digits and _"):
        bu.io.write_yoda(tmp_path / "x.yoda", {"a": spectrum([0, 1, 2, 4, 5, 6, 7])}, analysis)
    assert not list(tmp_path.iterdir())


def test_three_observables_are_too_many(tmp_path):
    with pytest.raises(bu.errors.InputError, match="YODA takes one or two"):
        bu.io.write_yoda(tmp_path / "x.yoda", {"a": spectrum([0, 1], [0, 1, 2], [0, 1, 2, 3])}, "TOY")
    with pytest.raises(bu.errors.InputError, match="no spectra"):
        bu.io.write_yoda(tmp_path / "x.yoda", {}, "TOY")


def test_a_configuration_that_cannot_write_it_says_so_first(tmp_path, capsys):
    np.savez(tmp_path / "s.npz", t=np.arange(9.0), r=np.arange(9.0))
    text = '[simulation]\nfile = "s.npz"\ngen = ["t"]\nreco = ["r"]\n[data]\nfile = "s.npz"\nfeatures = ["r"]\n'
    for line, words in (('yoda = "a b"', "letters, digits"), ('yoda = "A"', "there is no section [[spectrum]]")):
        (tmp_path / "run.toml").write_text(f"{text}[output]\n{line}\n")
        assert main(["unfold", str(tmp_path / "run.toml"), "--check"]) != 0
        assert words in capsys.readouterr().err
