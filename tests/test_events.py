"""Every bad input is refused before any training, with value, rule and cure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError, OverlapWarning

X = np.linspace(0.0, 1.0, 12)
NAN = np.where(np.arange(12) == 3, np.nan, X)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"gen": NAN}, InputError, ["1 of 12", "row 3", "pass_gen"]),
        ({"reco": np.where(np.arange(12) > 9, np.inf, X)}, InputError, ["2 of 12", "row 10"]),
        ({"reco": X[:-1]}, InputError, ["12 events", "11"]),
        ({"gen": []}, InputError, ["empty"]),
        ({"gen": 1.0}, InputError, ["0 dimensions"]),
        ({"gen": np.zeros((12, 1, 1))}, InputError, ["3 dimensions"]),
        ({"gen": np.array([object()] * 12)}, InputTypeError, ["object"]),
        ({"gen": np.array(["a"] * 12)}, InputTypeError, ["numbers"]),
        ({"gen": np.ones(12)}, InputError, ["same in every event"]),
        ({"weight": np.ones(11)}, InputError, ["(11,)", "(12,)"]),
        ({"weight": np.zeros(12)}, InputError, ["sums to 0"]),
        ({"weight": -np.ones(12)}, InputError, ["sums to -12"]),
        ({"weight": NAN}, InputError, ["row 3"]),
        ({"weight": ["x"] * 12}, InputTypeError, ["numbers"]),
        ({"pass_gen": np.ones(12)}, InputTypeError, ["boolean"]),
        ({"pass_reco": np.zeros(12, bool)}, InputError, ["false for all"]),
        ({"pass_reco": np.ones(11, bool)}, InputError, ["(11,)"]),
        ({"pass_gen": X < 0.5, "pass_reco": X > 0.5}, InputError, ["both levels"]),
        ({"weight": np.where(X < 0.5, -1.0, 2.0), "pass_reco": X < 0.5}, InputError, ["passing reco"]),
        ({"undefined": "nan"}, InputError, ["'error' or 'indicator'"]),
        ({"gen": np.where(X < 0.5, np.nan, X)}, InputError, ['undefined="indicator"']),
        ({"gen": np.where(X < 0.5, np.inf, X), "undefined": "indicator"}, InputError, ["infin"]),
        ({"gen": np.column_stack([X, np.full_like(X, np.nan)]), "undefined": "indicator"}, InputError, ["in no event"]),
    ],
)
def test_bad_simulation(arguments, error, words):
    with pytest.raises(error) as caught:
        bu.Simulation(**({"gen": X, "reco": X} | arguments))
    for word in words:
        assert word in str(caught.value)
    assert isinstance(caught.value, bu.errors.BayesUnfoldError)


def test_dicts_and_structured_arrays_are_frames():
    columns = {"pt": X, "m": 2 * X}
    structured = np.zeros(12, dtype=[("pt", "f8"), ("m", "f4")])
    structured["pt"], structured["m"] = X, 2 * X
    for values in (columns, structured, pd.DataFrame(columns), pl.DataFrame(columns)):
        simulation = bu.Simulation(values, X)
        assert simulation.gen_names == ("pt", "m")
        assert np.allclose(simulation.gen, np.column_stack([X, 2 * X]))
    for bad, error, words in (
        ({"pt": X, "m": X[:-1]}, InputError, r"\(11,\)"),
        ({"pt": X, "jets": np.array([[1.0]] * 12)}, InputError, "one number per event"),
        ({"pt": X, "jets": np.array([object()] * 12)}, InputTypeError, "column 'jets' of gen has dtype object"),
        ({}, InputError, "empty"),
    ):
        with pytest.raises(error, match=words):
            bu.Simulation(bad, X)


def test_masked_values_do_not_exist():
    masked = np.ma.masked_array(X, mask=np.isnan(NAN))
    with pytest.raises(InputError, match="1 of 12 rows with NaN"):
        bu.Simulation(masked, X)
    assert np.isnan(bu.Simulation(masked, X, undefined="indicator").gen[3, 0])
    assert np.array_equal(bu.Simulation(np.ma.masked_array(X), X).gen[:, 0], X)
    with pytest.raises(InputError, match="row 3"):
        bu.Simulation(X, X, weight=masked)


@pytest.mark.parametrize(
    ("features", "options", "words"),
    [
        (NAN, {}, ["row 3"]),
        ([], {}, ["empty"]),
        (X, {"weight": -np.ones(12)}, ["negative"]),
        (X, {"weight": np.zeros(12)}, ["sums to 0"]),
        (np.ones(12), {}, ["same in every event"]),
    ],
)
def test_bad_data(features, options, words):
    with pytest.raises(InputError) as caught:
        bu.Data(features, **options)
    for word in words:
        assert word in str(caught.value)


def test_nan_is_allowed_where_the_level_is_absent():
    flag = np.arange(12) != 3
    simulation = bu.Simulation(NAN, X, pass_gen=flag)
    assert simulation.fakes.sum() == 1
    assert simulation.misses.sum() == 0


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_keep_their_names_and_columns_are_matched(library):
    frame = library.DataFrame({"pt": X, "m": X[::-1].copy()})
    simulation = bu.Simulation(frame, frame)
    assert simulation.gen_names == ("pt", "m")
    swapped = bu.Data(library.DataFrame({"m": X[::-1].copy(), "pt": X}))
    np.testing.assert_array_equal(swapped.matched_to(simulation).features, simulation.reco)
    wrong = bu.Data(library.DataFrame({"mass": X[::-1].copy(), "pt": X}))
    with pytest.raises(InputError, match="rename"):
        wrong.matched_to(simulation)
    with pytest.raises(InputError, match="'eta' is not a particle-level feature"):
        simulation.gen_column("eta")


def test_data_with_other_features_is_refused():
    with pytest.raises(InputError, match="2 features and reco has 1"):
        bu.Data(np.column_stack([X, X])).matched_to(bu.Simulation(X, X))


def test_no_overlap_names_the_feature():
    x = np.linspace(0, 1, 300)
    frame = pd.DataFrame({"pt": x, "m": x})
    data = pd.DataFrame({"pt": x, "m": x + 10})
    quick = bu.OmniFold(1, inference="laplace", draws=5, network=bu.Network((2,)), progressbar=False, random_seed=1)
    with pytest.warns(OverlapWarning, match=r"100.0 % of the data .* of m "):
        quick.fit(bu.Simulation(frame, frame), bu.Data(data))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"iterations": 2.5}, "whole number"),
        ({"iterations": True}, "whole number"),
        ({"inference": "vi"}, "'advi', 'nuts', 'laplace'"),
        ({"efficiency": "none"}, "'learned', 'prior'"),
        ({"inference": "nuts", "draws": 250}, "multiple of 4"),
        ({"draws": 1}, "at least 2"),
        ({"network": 3}, "bayesunfold.Network"),
        ({"random_seed": -1}, "at least 0"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises((InputError, InputTypeError), match=words):
        bu.OmniFold(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": ()}, "hidden"),
        ({"hidden": (0,)}, "at least 1"),
        ({"hidden": 5}, "hidden"),
        ({"activation": "swish"}, "tanh"),
        ({"prior_scale": -1.0}, "positive"),
        ({"hidden": (4,), "prior_scale": (1.0, 2.0, 3.0)}, "one a layer"),
    ],
)
def test_bad_networks(settings, words):
    with pytest.raises(InputError, match=words):
        bu.Network(**settings)


def test_wrong_kinds_of_arguments_are_refused(toy):
    unfolder = bu.OmniFold(1, progressbar=False)
    for name in ("backgrounds", "systematics"):
        with pytest.raises(InputTypeError, match="holds an object of type object"):
            unfolder.fit(toy.simulation, toy.measurement, **{name: [object()]})
    with pytest.raises(InputTypeError, match="pass a list"):
        unfolder.fit(toy.simulation, toy.measurement, bu.Background([1.0, 2.0]))
    with pytest.raises(InputTypeError, match="Simulation"):
        unfolder.fit(toy.gen, toy.measurement)


def test_named_columns_find_those_that_have_their_names_from_the_particle_level():
    """Only ``names`` is given: the same names in another order are put in order, other names stand as they are."""
    rng = np.random.default_rng(1)
    values = rng.normal([0.0, 5.0], 1.0, size=(500, 2))
    simulation = bu.Simulation(values, values, names=["eta", "pt"])
    frame = pd.DataFrame(values[:, ::-1], columns=["pt", "eta"])
    np.testing.assert_array_equal(bu.Data(frame).matched_to(simulation).features, values)
    np.testing.assert_array_equal(bu.Background(frame, np.ones(500), "b").columns_for(simulation), values)
    other = pd.DataFrame(values, columns=["eta_reco", "pt_reco"])
    np.testing.assert_array_equal(bu.Data(other).matched_to(simulation).features, values)
    with pytest.raises(InputError, match="in the same order"):
        bu.OmniFold().check(simulation, values, systematics=[bu.Systematic("jes", reco_up=frame)])
