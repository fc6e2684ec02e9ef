"""HistFactory workspaces, read and fitted by pyhf."""

from __future__ import annotations

import json

import hist
import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError, OverlapWarning

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
    np.testing.assert_allclose(error, 0.5 * np.sqrt(1000 * PROBABILITIES[:, 0] * (1 - PROBABILITIES[:, 0])))


@pytest.mark.parametrize("efficiency", [1.0, 0.9, 0.5])
def test_simulation_statistics_are_binomial(efficiency):
    """Of 100 simulated events each is seen or not: a share has the variance ``p (1 - p) / 100``."""
    R = bu.ResponseMatrix([[efficiency]], truth=[100.0])
    workspace = bu.io.pyhf_workspace(R, [10_000])
    signal = workspace["channels"][0]["samples"][0]
    relative = signal["modifiers"][1]["data"][0] / signal["data"][0]
    assert relative == pytest.approx(np.sqrt((1 - efficiency) / efficiency / 100), abs=1e-12)
    pyhf.Workspace(workspace).model()


def test_weighted_simulation_has_the_variance_of_a_ratio():
    """Weight 2 seen and 1, 3 not: the share moves by its events' weights times what they change, (B1)."""
    sim = bu.Simulation(gen=np.array([0.2, 0.5, 0.7]), reco=np.array([0.5, 1.5, 1.5]), weight=np.array([2.0, 1.0, 3.0]))
    R = bu.ResponseMatrix.from_events(sim, [0.0, 1.0], [0.0, 1.0, 2.0])
    signal = bu.io.pyhf_workspace(R, [20, 40])["channels"][0]["samples"][0]
    relative = np.array(signal["modifiers"][1]["data"]) / signal["data"]
    # of the share p = 1/3 an event of weight w changes w (1 - p) / 6 if it is seen there, -w p / 6 if not
    deviation = np.sqrt((2 * 2 / 3) ** 2 + (1 / 3) ** 2 + (3 / 3) ** 2) / 6
    np.testing.assert_allclose(relative, deviation / np.array([1 / 3, 2 / 3]), rtol=1e-12)


def test_a_bin_that_is_not_reached_is_left_out():
    """With no expectation there, no parameter could explain data in it."""
    with pytest.warns(OverlapWarning, match=r"detector-level bins \[2\], which are left out"):
        R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8], [0.0, 0.0]], [900, 1600])
    options = {"backgrounds": {"top": bu.BinnedBackground([1.0, 2.0, 3.0])}, "systematics": {"x": [0.1, 0.0, 0.1]}}
    with pytest.warns(OverlapWarning, match=r"3 of 253 data events lie in detector-level bins \[2\]"):
        found = bu.io.pyhf_workspace(R, [100, 150, 3], **options)
    options = {"backgrounds": {"top": bu.BinnedBackground([1.0, 2.0])}, "systematics": {"x": [0.1, 0.0]}}
    assert found == bu.io.pyhf_workspace(bu.ResponseMatrix(R.probabilities[:2], [900, 1600]), [100, 150], **options)


def test_a_bin_far_above_the_simulation_is_fitted():
    """Two bins apart from each other: the data over the efficiency, 83 times the simulation that is scaled to all."""
    R = bu.ResponseMatrix(0.9 * np.eye(2), truth=[10_000.0, 20.0])
    best = fitted(bu.io.pyhf_workspace(R, [1000, 200], statistics=False))
    scale = 1200 / (0.9 * 10_020)
    assert best["truth_1"][0] * 20 * scale == pytest.approx(200 / 0.9, rel=1e-3)
    assert best["truth_0"][0] * 10_000 * scale == pytest.approx(1000 / 0.9, rel=1e-3)


def test_histograms_are_read_as_other_methods_do():
    edges = [0.0, 1.0, 2.0]
    top, data = (hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight()) for _ in range(2))
    top.fill([0.5] * 10 + [1.5] * 14)
    data.view().value[...], data.view().variance[...] = [100, 150], [100, 1500]
    R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], [900, 1600], reco_edges=edges)
    found = bu.io.pyhf_workspace(R, [100, 150], backgrounds={"top": bu.BinnedBackground(top, 0.1)})
    sample = found["channels"][0]["samples"][-1]
    assert sample["data"] == [10.0, 14.0]
    assert sample["modifiers"][0]["data"] == pytest.approx({"hi": 1.1, "lo": 1 / 1.1})
    with pytest.raises(InputError, match=r"bins \[1\] have variances that differ from their contents"):
        bu.io.pyhf_workspace(R, data)
    apart = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], [900, 1600], efficiency=[0.5, 0.7])
    with pytest.raises(InputError, match="a HistFactory workspace does not use"):
        bu.io.pyhf_workspace(apart, [100, 150])
    with pytest.raises(InputError, match=r"bins \[0\] are not whole numbers; HistFactory"):
        bu.io.pyhf_workspace(R, [100.4, 150])
    with pytest.raises(InputTypeError, match="background 'top'"):
        bu.io.pyhf_workspace(R, [100, 150], backgrounds={"top": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"systematics": {"x": [1.0]}}, "shape"),
        ({"systematics": {"x": [1.5, 0.0, 0.0]}}, "less than 1"),
        ({"backgrounds": {"b": bu.BinnedBackground([1.0])}}, "background 'b' has 1 bins"),
        ({"backgrounds": {"b": bu.BinnedBackground([-5.0, 1.0, 1.0])}}, r"background 'b' is negative in bins \[0\]"),
        ({"backgrounds": {"b": bu.BinnedBackground([1.0, np.nan, 1.0])}}, r"background 'b' is NaN .* bins \[1\]"),
        ({"backgrounds": {"b": bu.BinnedBackground([1.0] * 3, -0.5)}}, "relative uncertainty -0.5"),
        ({"systematics": {"x": [0.0] * 3}}, "identical to nominal"),
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
