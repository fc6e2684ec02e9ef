"""The exported weight function gives the same weights as the reweighter itself."""

import numpy as np
import onnxruntime
import pytest
from sklearn.linear_model import LogisticRegression

import bayesunfold as bu
from bayesunfold.errors import InputError


def run(path, x, fold=None):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {"x": np.asarray(x, dtype=np.float64)} | ({} if fold is None else {"fold": fold})
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


@pytest.fixture(scope="module")
def samples():
    """Two features, one with a long tail, so that the power transform takes part."""
    rng = np.random.default_rng(1)
    source = np.column_stack([rng.normal(0, 1, 3000), rng.exponential(1.0, 3000)])
    target = np.column_stack([rng.normal(0.3, 1, 3000), rng.exponential(1.2, 3000)])
    return source, target


@pytest.fixture(scope="module")
def new():
    rng = np.random.default_rng(2)
    return np.column_stack([rng.normal(0, 1.5, 500), rng.exponential(1.5, 500) - 0.3])


# a temperature is a sigmoid without a constant, a histogram has the steps of isotonic calibration
SPECIAL_CASES = [pytest.param(name, marks=pytest.mark.slow) for name in ("temperature", "histogram")]


@pytest.mark.parametrize("calibration", [None, "beta", "sigmoid", "isotonic", *SPECIAL_CASES])
def test_round_trip_of_classifiers(samples, new, tmp_path, calibration):
    number = np.arange(3000)
    reweighter = bu.Reweighter(calibration=calibration, draws=30, random_state=1).fit(*samples, fold=(number, number))
    assert np.any(reweighter._ratio.models[0].standardizer_.power != 1)
    out = run(reweighter.to_onnx(tmp_path / "w.onnx"), new)
    assert out["log_ratio"] == pytest.approx(reweighter.log_ratio(new), abs=1e-6)
    assert out["weight"] == pytest.approx(reweighter.weights(new), rel=1e-6)
    assert out["log_ratio_draws"] == pytest.approx(reweighter.log_ratio_draws(new), abs=1e-6)
    assert out["weight_draws"] == pytest.approx(reweighter.weight_draws(new), rel=1e-6)
    seen = run(reweighter.to_onnx(tmp_path / "f.onnx", 0, fold_input=True), samples[0], number % 2)
    assert seen["weight"] == pytest.approx(reweighter.weights(samples[0]), rel=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_other_networks_clip_temper_and_no_draws(samples, new, tmp_path, activation):
    classifier = bu.BayesianClassifier(bu.Network((6, 5), activation), "laplace", draws=10)
    reweighter = bu.Reweighter(classifier=classifier, folds=1, clip=2.0, temper=0.8, draws=10).fit(*samples)
    out = run(reweighter.to_onnx(tmp_path / "w.onnx"), new)
    assert out["weight_draws"] == pytest.approx(reweighter.weight_draws(new), rel=1e-6)
    alone = run(reweighter.to_onnx(tmp_path / "one.onnx", draws=0), new[:1])
    assert list(alone) == ["log_ratio", "weight"]
    assert alone["weight"][0] == pytest.approx(out["weight"][0], rel=1e-9)
    some = run(reweighter.to_onnx(tmp_path / "some.onnx", draws=4), new)
    assert some["weight_draws"] == pytest.approx(out["weight_draws"][:4], rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*lie outside the bins")  # some do on purpose
@pytest.mark.parametrize("bins", [7, ([-1.0, 0.0, 1.0], [0.0, 5.0])])
def test_round_trip_of_histograms(samples, new, tmp_path, bins):
    reweighter = bu.Reweighter("binned", bins=bins, draws=12).fit(*samples)
    out = run(reweighter.to_onnx(tmp_path / "w.onnx"), new)
    assert out["weight"] == pytest.approx(reweighter.weights(new), rel=1e-12)
    assert out["weight_draws"] == pytest.approx(reweighter.weight_draws(new), rel=1e-12)


@pytest.mark.parametrize("calibration", [None, "isotonic"])
def test_folds_by_numbers_of_events(samples, tmp_path, calibration):
    """Numbers stand for their rest, as in the fit; -1 and below for new events."""
    a, b = (sample[:600] for sample in samples)
    number = np.random.default_rng(3).permutation(600) + 10**12
    classifier = bu.BayesianClassifier(bu.Network((4,)), "laplace", draws=4)
    options = {"classifier": classifier, "calibration": calibration, "folds": 3, "draws": 4}
    reweighter = bu.Reweighter(**options).fit(a, b, fold=(number, number))
    path = reweighter.to_onnx(tmp_path / "w.onnx", fold_input=True)
    seen, rest, new = (run(path, a, fold) for fold in (number, number % 3, np.full(600, -2)))
    for name in seen:
        np.testing.assert_array_equal(seen[name], rest[name])
    assert seen["weight"] == pytest.approx(reweighter.weights(a), rel=1e-6)
    assert new["weight"] == pytest.approx(run(reweighter.to_onnx(tmp_path / "n.onnx"), a)["weight"], rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*lie outside the bins")
@pytest.mark.parametrize("options", [{"method": "binned", "bins": 5, "clip": 2.0}, {"calibration": "isotonic"}, {}])
def test_what_is_not_known_has_no_weight(samples, tmp_path, options):
    a, b = (sample[:600] for sample in samples)
    classifier = bu.BayesianClassifier(bu.Network((4,), "relu"), "laplace", draws=4)
    reweighter = bu.Reweighter(**{"classifier": classifier, "draws": 4, "truncate": 20.0, **options}).fit(a, b)
    known = np.array([[0.0, 1.0], [0.0, 1.0], [0.5, 2.0]])
    out = run(
        reweighter.to_onnx(tmp_path / "w.onnx"), np.where([[False] * 2, [True, False], [False] * 2], np.nan, known)
    )
    for name, values in out.items():
        assert np.isnan(values[..., 1]).all(), name
        assert np.isfinite(values[..., [0, 2]]).all(), name
    assert out["weight"][[0, 2]] == pytest.approx(reweighter.weights(known)[[0, 2]], rel=1e-6)


def test_what_cannot_be_exported(samples, tmp_path):
    analytic = bu.Reweighter("analytic", densities=(lambda x: np.ones(len(x)), lambda x: np.ones(len(x))), draws=2)
    with pytest.raises(InputError, match="your own functions"):
        analytic.fit(*samples).to_onnx(tmp_path / "w.onnx")
    other = bu.Reweighter(classifier=LogisticRegression(), bootstraps=2, draws=2).fit(*samples)
    with pytest.raises(InputError, match="LogisticRegression"):
        other.to_onnx(tmp_path / "w.onnx")
    with pytest.raises(InputError, match="draws is 9"):
        bu.Reweighter("binned", draws=2).fit(*samples).to_onnx(tmp_path / "w.onnx", draws=9)
    assert list(tmp_path.iterdir()) == []
