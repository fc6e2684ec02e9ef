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
    """Upward error of each bin, flow included; minus the downward one."""
    up = np.array([b.d_errors_up[0] for b in found.d_bins])
    assert np.array_equal(up, -np.array([b.d_errors_dn[0] for b in found.d_bins]), equal_nan=True)
    return up


def inside(found, values, shape: tuple[int, ...]) -> np.ndarray:
    """Values of the bins that are no flow, in C order; YODA's first axis runs fastest."""
    every = np.array(values).reshape([n + 2 for n in reversed(shape)]).T
    return every[tuple(slice(1, -1) for _ in shape)]


def test_a_spectrum_has_its_errors_and_its_covariance_beside(tmp_path):
    given = spectrum([0, 1, 2, 4, 5, 6, 7])
    path = bu.io.write_yoda(tmp_path / "TOY.yoda", {"pt of jet: hardest": given}, "TOY")
    found = read(path)
    assert list(found) == ["/REF/TOY/d01-x01-y01", "/REF/TOY/d01-x01-y02"]
    one, matrix = found.values()
    assert one.d_annotations["Type"] == "Estimate1D"
    assert "pt of jet: hardest" in one.d_annotations["Title"]
    assert one.d_edges == [0, 1, 2, 4, 5, 6, 7]
    assert np.array_equal([b.d_value for b in one.d_bins][1:-1], CONTENTS)
    assert np.allclose(errors(one)[1:-1], given.std(), rtol=1e-12)
    assert np.isnan([one.d_bins[0].d_value, one.d_bins[-1].d_value]).all()
    # what YODA makes of components has no signs, so the errors are no components of a covariance with any
    assert all(label.startswith("uncor") for label in one.d_error_labels)
    assert matrix.d_edges == [one.d_edges, one.d_edges]
    values = inside(matrix, [b.d_value for b in matrix.d_bins], (6, 6))
    assert np.allclose(values, given.covariance(), rtol=1e-12)
    assert (values < 0).any()
    # a reader's chi-square: 500 draws of six bins
    about = {name: float(matrix.d_annotations[name]) for name in ("Draws", "DegreesOfFreedom", "ChiSquareFactor")}
    assert about == {"Draws": 500, "DegreesOfFreedom": 6, "ChiSquareFactor": pytest.approx(492 / 499, rel=1e-12)}
    residual = 0.1 * CONTENTS
    reader = about["ChiSquareFactor"] * residual @ np.linalg.solve(values, residual)
    assert reader == pytest.approx(given.chi2(1.1 * CONTENTS).value, rel=1e-9)
    assert "Draws" not in one.d_annotations


def test_two_observables_and_bins_without_content(tmp_path):
    both = {"a": spectrum([0, 1, 3], [0, 1, 2, 5]), "b": spectrum([0, 1, 2, 4, 5, 6, 7], empty=2)}
    found = read(bu.io.write_yoda(tmp_path / "TOY.yoda", both, "TOY"))
    two, one = found["/REF/TOY/d01-x01-y01"], found["/REF/TOY/d02-x01-y01"]
    values = np.array([b.d_value for b in two.d_bins]).reshape(5, 4)  # rows of the second axis, with flow
    assert np.array_equal(inside(two, values, (2, 3)).ravel(), CONTENTS)
    assert np.isnan(values[[0, -1]]).all()
    assert np.isnan(values[:, [0, -1]]).all()
    assert np.allclose(inside(two, errors(two), (2, 3)).ravel(), both["a"].std(), rtol=1e-12)
    matrix = found["/REF/TOY/d01-x01-y02"]
    assert matrix.d_edges == [[0, 1, 2, 3, 4, 5, 6]] * 2
    assert np.allclose(inside(matrix, [b.d_value for b in matrix.d_bins], (6, 6)), both["a"].covariance(), rtol=1e-12)
    kept = np.delete(np.arange(6), 2)
    assert np.isnan([errors(one)[3], one.d_bins[3].d_value]).all()
    assert np.allclose(errors(one)[1:-1][kept], both["b"].std()[kept], rtol=1e-12)
    matrix = found["/REF/TOY/d02-x01-y02"]
    values = inside(matrix, [b.d_value for b in matrix.d_bins], (6, 6))
    assert np.isnan(values[2]).all()
    assert np.allclose(values[np.ix_(kept, kept)], both["b"].covariance()[np.ix_(kept, kept)], rtol=1e-12)


def test_edges_keep_all_their_digits(tmp_path):
    edges = [1e12, 1e12 + 1, 1e12 + 2, 1e12 + 3, 1e12 + 4, 1e12 + 5, 1e12 + 6]
    found = read(bu.io.write_yoda(tmp_path / "TOY.yoda", {"run": spectrum(edges)}, "TOY"))
    assert found["/REF/TOY/d01-x01-y01"].d_edges == edges


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
