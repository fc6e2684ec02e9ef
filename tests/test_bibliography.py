"""Every method cites its own works, and what is no result is refused."""

from dataclasses import replace

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.bibliography import _read_entries
from bayesunfold.errors import InputTypeError


def test_every_binned_method_cites_its_inventor():
    R = bu.ResponseMatrix(np.eye(4), truth=np.full(4, 100.0))
    data = [20, 30, 40, 10]
    for method, key in (
        (bu.IBU(2), "DAgostini:1994fjx"),
        (bu.Tikhonov(), "Schmitt:2012kp"),
        (bu.SVDUnfolding(2), "Hocker:1995kb"),
    ):
        text = bu.citations(method.fit(R, data))
        assert key in text
        assert text.startswith("@software{bayesunfold")


def test_an_unfolding_cites_its_inference_and_nothing_twice():
    toy = bu.datasets.gaussian_toy(200, 300, random_seed=1)
    unfolder = bu.OmniFold(1, inference="laplace", draws=20, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    text = bu.citations(result, result, result.spectrum("gen", [-3, 0, 3]))
    assert text.count("Andreassen:2019cjw") == 1
    assert "Kucukelbir" not in bu.citations(result)
    advi = replace(result.record, settings=replace(result.record.settings, inference="advi"))
    assert "Kucukelbir:2017" in bu.citations(replace(result, record=advi))
    assert repr(text) == str(text)


def test_classifiers_and_reweighters():
    assert "Cranmer:2015bka" in bu.citations(bu.Reweighter(calibration="beta"))
    assert "Kull:2017" in bu.citations(bu.Reweighter(calibration="beta"))
    assert "Hoffman:2014" in bu.citations(bu.Reweighter(classifier=bu.BayesianClassifier(inference="nuts")))
    assert "Hermans:2020" in bu.citations(bu.LikelihoodRatio(["mu"]))
    with pytest.raises(InputTypeError, match="not a dict"):
        bu.citations({})


@pytest.mark.parametrize(("key", "entry"), _read_entries().items())
def test_entries_are_well_formed(key, entry):
    assert entry.count("{") == entry.count("}")
    assert entry.endswith("}")
    assert key == "bayesunfold" or "doi" in entry or "eprint" in entry
