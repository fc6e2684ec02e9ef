"""The example of docs/extending.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import bayesunfold as bu
from bayesunfold.classifier import inference

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def test_the_example_of_an_inference_method_runs(monkeypatch):
    """Its draws agree with the Gaussian in width: 200 draws know it to 5 %, and 20 directions to 1.1 %."""
    monkeypatch.setattr(inference, "_METHODS", dict(inference._METHODS))
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1], {})
    toy = bu.datasets.gaussian_toy(2000, 2000, random_seed=1)
    unfolder = bu.OmniFold(1, inference="metropolis", draws=200, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    assert 0.8 < result.draws.z.std(axis=0).mean() < 1.2
    found = result.spectrum("gen", [-5, 0, 5]).std()
    gaussian = bu.OmniFold(1, inference="laplace", draws=200, random_seed=1, progressbar=False)
    expected = gaussian.fit(toy.simulation, toy.measurement).spectrum("gen", [-5, 0, 5]).std()
    assert np.all(np.abs(np.log(found / expected)) < 0.5)
