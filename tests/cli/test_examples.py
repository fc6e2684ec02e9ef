"""The example in an experiment's layout, from ntuples to HEPData, as docs/examples/experiment says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold.cli import main

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "experiment"
EVENTS = 6000


# inside hepdata_lib and its validator, which unpack and leave files open as they please
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_from_ntuples_to_hepdata(tmp_path, capsys):
    """False alarm: the p-value below 1e-5, for which the spectrum of the data's own truth is the reference.

    A hundred draws estimate the covariance of seven bins, by which that happens once in 2e4 (Hotelling's distribution).
    """
    require("uproot"), require("hepdata_lib")
    shutil.copy(EXAMPLE / "measurement.toml", tmp_path)
    subprocess.run([sys.executable, EXAMPLE / "make_ntuples.py", tmp_path, str(EVENTS)], check=True)
    path = tmp_path / "measurement.toml"
    text = path.read_text().replace("expected_data = 12400", "expected_data = 3800")
    path.write_text(
        text.replace("[unfolding]", '[network]\nhidden = [8]\n[unfolding]\ninference = "laplace"\ndraws = 100')
    )
    assert main(["unfold", str(path), "--check"]) == 0
    out = capsys.readouterr().out
    assert "BLIND" in out
    assert "jet energy, Scale: two-sided detector level, backgrounds top" in out
    assert "mean scale factor: 0.96" in out
    assert main(["unfold", str(path), "--unblind"]) == 0
    out = capsys.readouterr().out
    assert "read for data: " in out
    folder = tmp_path / "measurement"
    assert (folder / "hepdata" / "submission.yaml").exists()
    assert (folder / "TOY_2026_I1234567.yoda").exists()
    result = bu.load(folder / "unfolded.nc")
    spectrum = result.spectrum("lead", [30, 40, 50, 60, 75, 90, 110, 200])
    answer = np.histogram(json.loads((tmp_path / "answer.json").read_text())["lead"], spectrum.edges[0])[0]
    assert spectrum.chi2(answer).p_value > 1e-5
    # the efficiency is 0.96 +- 0.02, and what the data have stays
    lepton = spectrum.ranking().set_index("source").loc["lepton efficiency"]
    assert np.allclose(lepton["relative up"], 0.96 / 0.98 - 1, atol=0.003)
    assert set(spectrum.by_source()) >= {
        "data",
        "simulation",
        "top",
        "jet energy, Scale",
        "lepton efficiency",
        "final-state shower",
    }
