"""Commands as a user types them."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.cli.commands import main


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
    for arguments in (["--debug", "info"], ["info", "--debug"]):
        with pytest.raises(FileNotFoundError):
            main([*arguments, str(tmp_path / "missing.nc")])


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "bayesunfold demo --out demo" in capsys.readouterr().out
    for command in ("demo", "unfold", "report", "explore", "info", "coverage"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert f"bayesunfold {command} " in capsys.readouterr().out.split("example", 1)[1]


def test_coverage_command(tmp_path, capsys):
    arguments = ["coverage", "--toys", "2", "--n-data", "300", "--n-simulation", "1500", "--inference", "laplace"]
    path = tmp_path / "study.npz"
    assert main([*arguments, "--workers", "0", "--save", str(path), "--plot", str(tmp_path / "c.png")]) == 0
    assert "0.68 mean" in capsys.readouterr().out
    assert path.exists()


def test_coverage_of_the_users_own_events(tmp_path, capsys):
    """Toys drawn from the files of a configuration, the truth being a reweighting of the simulation."""
    toy = bu.datasets.gaussian_toy(300, 1500, random_seed=1)
    gen, reco = toy.gen[:, 0], toy.simulation.reco[:, 0]
    np.savez(tmp_path / "sim.npz", x=gen, y=reco)
    np.savez(tmp_path / "data.npz", y=np.ravel(toy.data))
    text = """
[simulation]
file = "sim.npz"
gen = ["x"]
reco = ["y"]
[data]
file = "data.npz"
features = ["y"]
[unfolding]
iterations = 2
inference = "laplace"
draws = 60
bias = false
[network]
hidden = [8]
[output]
report = false
[[spectrum]]
observable = "x"
bins = [-3, 0, 3]
[coverage]
toys = 3
"""
    path = tmp_path / "c.toml"
    path.write_text(text + 'truth_weight = "exp(0.2 * x)"\n')
    saved = tmp_path / "s.npz"
    assert main(["coverage", str(path), "--workers", "0", "--save", str(saved)]) == 0
    assert "toys: 3" in capsys.readouterr().out
    weight = np.exp(0.2 * gen)
    expected = np.histogram(gen, [-3, 0, 3], weights=weight * 300 / weight.sum())[0]
    assert bu.studies.load_coverage(saved).expected == pytest.approx(expected)
    assert main(["coverage", str(path), "--n-data", "5"]) == 2
    assert "--n-data belong to the Gaussian toy" in capsys.readouterr().err
    # the truth from a saved result
    assert main(["unfold", str(path)]) == 0
    path.write_text(text + 'answer = "unfolded.nc"\n')
    assert main(["coverage", str(path), "--workers", "0", "--toys", "2", "--save", str(saved)]) == 0
    answer = bu.load(tmp_path / "c" / "unfolded.nc").spectrum("x", [-3, 0, 3])
    assert bu.studies.load_coverage(saved).expected == pytest.approx(answer.nominal)
    # a checkpoint of other settings is refused
    checkpoint = ["coverage", str(path), "--workers", "0", "--toys", "2", "--checkpoint", str(tmp_path / "toys.jsonl")]
    assert main(checkpoint) == 0
    path.write_text(text.replace("draws = 60", "draws = 50") + 'answer = "unfolded.nc"\n')
    assert main(checkpoint) == 2
    assert "or settings" in capsys.readouterr().err
    path.write_text(text + 'answer = "unfolded.nc"\ntruth_weight = "x"\n')
    assert main(["coverage", str(path)]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_variation_in_a_file_of_its_own_is_matched_and_profiled(tmp_path, capsys):
    """Events in another order, of which those that fail are not written."""
    rng = np.random.default_rng(1)
    n = 1500
    gen, noise = rng.normal(0, 1, n), rng.normal(0, 0.4, n)
    number, reco = np.arange(n) + 10**10, np.column_stack([gen + noise, gen + rng.normal(0, 0.4, n)])
    np.savez(tmp_path / "sim.npz", t=gen, a=reco[:, 0], b=reco[:, 1], event=number)
    for name, shift in (("up", 0.2), ("down", -0.2)):
        order = rng.permutation(n)
        np.savez(tmp_path / f"{name}.npz", a=reco[order, 0], b=reco[order, 1] + shift, event=number[order])
    truth = rng.normal(0.2, 1, 800)
    np.savez(tmp_path / "data.npz", a=truth + rng.normal(0, 0.4, 800), b=truth + 0.2 + rng.normal(0, 0.4, 800))
    path = tmp_path / "run.toml"
    path.write_text("""
[simulation]
file = "sim.npz"
gen = ["t"]
reco = ["a", "b"]
key = ["event"]

[data]
file = "data.npz"
features = ["a", "b"]

[[systematic]]
name = "scale"
file = "up.npz"
file_down = "down.npz"
reco_up = ["a", "b"]
reco_down = ["a", "b"]
profile = true

[unfolding]
method = "direct"
draws = 100
random_seed = 1

[output]
report = false

[[spectrum]]
observable = "t"
bins = [-2, 0, 2]
""")
    assert main(["unfold", str(path)]) == 0
    row = bu.load(tmp_path / "run" / "unfolded.nc").nuisances.loc["scale"]
    assert abs(row["mean"] - 1) < 5 * row["std"]  # 6e-7
    assert row["std"] < 0.6
    assert "nuisance parameter scale: " in capsys.readouterr().out
    assert (tmp_path / "run" / "nuisances.csv").read_text().startswith("nuisance parameter,prior,mean,std")
    assert (tmp_path / "run" / "pulls.png").stat().st_size > 1000
    text = path.read_text()
    path.write_text(text.replace('key = ["event"]\n', ""))
    assert main(["unfold", str(path)]) == 2
    assert "give key in [simulation]" in capsys.readouterr().err
    path.write_text(text.replace('method = "direct"', 'method = "omnifold"'))
    assert main(["unfold", str(path)]) == 2
    assert "does not constrain nuisance parameters" in capsys.readouterr().err


def test_several_files_with_factors(tmp_path, capsys):
    """Two campaigns of a simulation, each scaled to its luminosity, and data in two files, as one file of the same."""
    toy = bu.datasets.gaussian_toy(300, 1500, random_seed=1)
    gen, reco = toy.gen[:, 0], toy.simulation.reco[:, 0]
    factor = np.where(np.arange(1500) < 600, 0.5, 2.0)
    for name, rows in (("a", slice(0, 600)), ("b", slice(600, None))):
        np.savez(tmp_path / f"sim_{name}.npz", x=gen[rows], y=reco[rows], up=np.exp(0.1 * gen[rows]))
    np.savez(tmp_path / "one.npz", x=gen, y=reco, w=factor, up=factor * np.exp(0.1 * gen))
    data = np.ravel(toy.data)
    np.savez(tmp_path / "data_1.npz", y=data[:100])
    np.savez(tmp_path / "data_2.npz", y=data[100:])
    text = """
[simulation]
file = {simulation}
gen = ["x"]
reco = ["y"]
{weight}
[data]
file = "data_*.npz"
features = ["y"]
[[systematic]]
name = "tilt"
weight_up = "up"
[unfolding]
iterations = 1
inference = "laplace"
draws = 20
random_seed = 1
bias = false
[network]
hidden = [6]
[output]
report = false
"""
    listed = '[{file = "sim_a.npz", factor = 0.5}, {file = "sim_b.npz", factor = 2.0}]'
    (tmp_path / "several.toml").write_text(text.format(simulation=listed, weight=""))
    (tmp_path / "single.toml").write_text(text.format(simulation='"one.npz"', weight='weight = "w"'))
    assert main(["unfold", str(tmp_path / "several.toml"), "--check"]) == 0
    assert "600 of 600 events, sum of weights 300" in capsys.readouterr().out
    for name in ("several", "single"):
        assert main(["unfold", str(tmp_path / f"{name}.toml")]) == 0
    several, single = (bu.load(tmp_path / name / "unfolded.nc") for name in ("several", "single"))
    np.testing.assert_array_equal(several.simulation.weight, single.simulation.weight)
    bins = [-3, 0, 3]
    np.testing.assert_array_equal(several.spectrum("x", bins).draw_matrix, single.spectrum("x", bins).draw_matrix)
    lines = (tmp_path / "several" / "inputs.csv").read_text().splitlines()
    assert lines[0] == "sample,file,tree,factor,events,kept,weight"
    assert [line.split(",")[0] for line in lines[1:]] == ["simulation", "simulation", "data", "data"]
    (tmp_path / "bad.toml").write_text(text.format(simulation='[{name = "sim_a.npz"}]', weight=""))
    assert main(["unfold", str(tmp_path / "bad.toml")]) == 2
    assert "its keys are file" in capsys.readouterr().err
