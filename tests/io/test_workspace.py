"""HistFactory workspaces, read and fitted by pyhf."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError

pyhf = pytest.importorskip("pyhf")
# inside pyhf 0.7.6 and the packages it imports
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PROBABILITIES = np.array([[0.7, 0.1, 0.0], [0.2, 0.6, 0.2], [0.0, 0.2, 0.7]])
TRUTH = np.array([1000.0, 2000.0, 1500.0])


def fitted(workspace):
    """Best-fit values by the names of the parameters."""
    model = pyhf.Workspace(workspace).model(measurement_name="unfolding")
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-10))
    best = pyhf.infer.mle.fit(pyhf.Workspace(workspace).data(model), model)
    return {name: best[model.config.par_slice(name)] for name in model.config.par_order}


def test_the_fit_is_the_inverse_of_the_matrix():
    """As many bins as parameters: the maximum of the likelihood folds to the data exactly."""
    R = bu.ResponseMatrix(PROBABILITIES, truth=TRUTH, fakes=[0.1, 0.05, 0.0])
    data = np.array([420.0, 700.0, 610.0])
    workspace = bu.io.pyhf_workspace(R, data, statistics=False)
    best = fitted(workspace)
    expected = bu.MatrixInversion().fit(R, data).nominal
    scale = data.sum() / R.fold(TRUTH, fakes=True).sum()
    found = np.array([best[f"truth_{j}"][0] for j in range(3)]) * TRUTH * scale
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_backgrounds_systematics_and_statistics_are_modifiers(tmp_path):
    R = bu.ResponseMatrix(PROBABILITIES, truth=TRUTH)
    top = bu.BinnedBackground([50.0, 20.0, 10.0], relative_uncertainty=0.2)
    path = bu.io.write_pyhf(
        tmp_path / "workspace.json",
        R,
        R.fold(0.5 * TRUTH) + top.counts,
        backgrounds={"top": top},
        systematics={"scale": [0.05, 0.0, -0.05]},
    )
    workspace = json.loads(path.read_text())
    pyhf.schema.validate(workspace, "workspace.json")
    best = fitted(workspace)
    # data are what is expected: nothing is pulled
    for j in range(3):
        assert best[f"truth_{j}"][0] == pytest.approx(1.0, abs=1e-3)
    assert abs(best["scale"][0]) < 1e-2
    assert abs(best["top_level"][0]) < 1e-2
    signal = workspace["channels"][0]["samples"][0]
    kinds = {modifier["type"] for modifier in signal["modifiers"]}
    assert kinds == {"normfactor", "histosys", "staterror"}
    error = next(m for m in signal["modifiers"] if m["type"] == "staterror")["data"]
    np.testing.assert_allclose(error, [0.5 * np.sqrt(700), 0.5 * np.sqrt(200), 0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"systematics": {"x": [1.0]}}, "shape"),
        ({"systematics": {"x": [1.5, 0.0, 0.0]}}, "less than 1"),
        ({"backgrounds": {"b": bu.BinnedBackground([1.0])}}, "shape"),
        ({"backgrounds": {"b": bu.BinnedBackground([1e6, 0.0, 0.0])}}, "backgrounds leave"),
        (
            {"backgrounds": {"truth_0": bu.BinnedBackground([1.0] * 3)}},
            "background 'truth_0' has the name of particle-level bin 0",
        ),
        ({"systematics": {"truth_2": [0.1] * 3}}, "systematic 'truth_2' has the name of particle-level bin 2"),
        ({"systematics": {"simulation": [0.1] * 3}}, "'simulation' has the name of the statistics"),
        (
            {"backgrounds": {"b": bu.BinnedBackground([1.0] * 3)}, "systematics": {"b_level": [0.1] * 3}},
            "systematic 'b_level' has the name of the level of the background 'b'",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    R = bu.ResponseMatrix(PROBABILITIES, truth=TRUTH)
    with pytest.raises(InputError, match=message):
        bu.io.pyhf_workspace(R, [420.0, 700.0, 610.0], **options)
