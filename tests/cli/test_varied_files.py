"""Variations in files of their own: nothing is left out, and nothing multiplied by what the others lack."""

from __future__ import annotations

import numpy as np
import pytest
import uproot

from bayesunfold.cli.configuration import load_job
from bayesunfold.cli.unfold import _read
from bayesunfold.errors import InputError

N = 600
BASE = """
[simulation]
file = {simulation}
gen = ["t"]
reco = ["r"]
weight = "w"
key = ["event"]
[data]
file = "data.npz"
features = ["r"]
[[spectrum]]
observable = "t"
bins = [-2, 0, 2]
"""
PLAIN = BASE.format(simulation='["mc0.npz", "mc1.npz"]')
FACTORS = BASE.format(simulation='[{ file = "mc0.npz", factor = 0.4 }, { file = "mc1.npz", factor = 0.9 }]')


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(1)
    for k in range(2):
        t = rng.normal(size=N)
        r, w = t + rng.normal(0, 0.3, N), rng.uniform(0.5, 1.5, N)
        event = np.arange(N) + k * N
        np.savez(tmp_path / f"mc{k}.npz", t=t, r=r, w=w, event=event)
        np.savez(tmp_path / f"sys{k}.npz", r=r + 0.1, w=1.005 * w, event=event)
        np.savez(tmp_path / f"bg{k}.npz", r=rng.normal(size=50), w=np.ones(50))
    np.savez(tmp_path / "data.npz", r=rng.normal(0.1, 1, 700))
    with uproot.recreate(tmp_path / "var.root") as file:
        for name in ("a", "b"):
            file[f"JET_{name}__up"] = {"r": rng.normal(size=2 * N), "event": np.arange(2 * N)}
    return tmp_path


def read(folder, text):
    path = folder / "run.toml"
    path.write_text(text)
    return _read(load_job(path), progressbar=False)


@pytest.mark.parametrize("nominal", [FACTORS, PLAIN])
def test_weights_of_varied_files_have_factors_if_the_nominal_ones_do(folder, nominal):
    own = '["sys0.npz", "sys1.npz"]'
    with_factors = '[{ file = "sys0.npz", factor = 0.4 }, { file = "sys1.npz", factor = 0.9 }]'
    systematic = '[[systematic]]\nname = "tune"\nweight_up = "w"\nfile = '
    right, wrong = (with_factors, own) if nominal == FACTORS else (own, with_factors)
    with pytest.raises(InputError, match=r"'tune'.* have factors|\[simulation\] have factors"):
        read(folder, nominal + systematic + wrong)
    inputs = read(folder, nominal + systematic + right)
    np.testing.assert_allclose(inputs.systematics[0].weight_up, 1.005 * inputs.simulation.weight, rtol=1e-6)
    # features are not weighted
    read(folder, nominal + systematic.replace('weight_up = "w"', 'reco_up = ["r"]') + own)


def test_files_of_a_varied_background_have_factors_if_its_own_do(folder):
    text = FACTORS + (
        '[[background]]\nname = "top"\nfeatures = ["r"]\nweight = "w"\n'
        'file = [{ file = "bg0.npz", factor = 0.4 }, { file = "bg1.npz", factor = 0.6 }]\n'
        '[[systematic]]\nname = "tune"\n[[systematic.background]]\nname = "top"\nfile = '
    )
    with pytest.raises(InputError, match="background 'top' have factors"):
        read(folder, text + '["bg0.npz", "bg1.npz"]')
    varied = read(folder, text + '[{ file = "bg0.npz", factor = 0.4 }, { file = "bg1.npz", factor = 0.6 }]')
    assert varied.systematics[0].backgrounds["top"][0].weight.sum() == pytest.approx(50.0)


@pytest.mark.parametrize("down", ['file_down = "nowhere.npz"', 'tree_down = "nowhere"'])
def test_another_place_at_minus_one_needs_an_expression_there(folder, down):
    section = f'[[systematic]]\nname = "jes"\nfile = ["sys0.npz", "sys1.npz"]\nreco_up = ["r"]\n{down}\n'
    with pytest.raises(InputError, match="no expression at -1"):
        read(folder, PLAIN + section)


def test_names_are_looked_for_in_the_file_of_the_variation(folder):
    section = '[[systematic]]\nname = "jet {name}"\nfile = "var.root"\ntree = "JET_{name}__up"\nreco_up = ["r"]\n'
    assert [s.name for s in read(folder, PLAIN + section).systematics] == ["jet a", "jet b"]


def test_a_luminosity_without_its_uncertainty_is_an_error_before_training(folder):
    text = PLAIN.replace("bins = [-2, 0, 2]", "bins = [-2, 0, 2]\nluminosity = 10.0") + (
        '[[background]]\nname = "top"\nfile = "bg0.npz"\nfeatures = ["r"]\nweight = "w"\n'
        '[[systematic]]\nname = "luminosity"\n[[systematic.background]]\nname = "top"\nweight_up = "1.02 * w"\n'
    )
    with pytest.raises(InputError, match="without luminosity_uncertainty"):
        read(folder, text)
    read(folder, text.replace("luminosity = 10.0", "luminosity = 10.0\nluminosity_uncertainty = 0.02"))
