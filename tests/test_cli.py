"""Commands as a user types them."""

from __future__ import annotations

import pytest

from bayesunfold.cli import main


def test_demo_writes_what_it_says(tmp_path, capsys):
    out = tmp_path / "demo"
    arguments = ["demo", "--out", str(out), "--n-data", "300", "--n-simulation", "300", "--inference", "laplace"]
    assert main([*arguments, "--draws", "100"]) == 0
    text = capsys.readouterr().out
    for name in ("spectrum.png", "correlation.png", "sources.png", "history.png", "unfolded.nc"):
        assert (out / name).stat().st_size > 1000
        assert str(out / name) in text
    assert "68 % low" in text
    assert "truth" in text
    assert main(["info", str(out / "unfolded.nc")]) == 0
    assert "300 simulated" in capsys.readouterr().out


def test_errors_have_no_traceback_and_exit_code_2(tmp_path, capsys):
    assert main(["info", str(tmp_path / "missing.nc")]) == 2
    captured = capsys.readouterr()
    assert "does not exist" in captured.err
    assert "Traceback" not in captured.err
    (tmp_path / "file").write_text("x")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    with pytest.raises(FileNotFoundError):
        main(["--debug", "info", str(tmp_path / "missing.nc")])


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "bayesunfold demo --out demo" in capsys.readouterr().out


def test_coverage_command(tmp_path, capsys):
    arguments = ["coverage", "--toys", "2", "--n-data", "300", "--n-simulation", "1500", "--inference", "laplace"]
    path = tmp_path / "study.npz"
    assert main([*arguments, "--workers", "0", "--save", str(path), "--plot", str(tmp_path / "c.png")]) == 0
    assert "0.68 mean" in capsys.readouterr().out
    assert path.exists()
