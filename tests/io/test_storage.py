"""Files: what any reader of netCDF finds in them, and files of earlier versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import bayesunfold as bu
from bayesunfold.errors import FileFormatError

FORMAT1 = Path(__file__).parents[1] / "references" / "format1"


@pytest.mark.parametrize("name", ["plain", "everything", "prior"])
def test_files_of_format_1_are_read(name):
    """Bands as the version read them that wrote the files; processors round the sums to 1e-6."""
    kept = json.loads((FORMAT1 / "numbers.json").read_text())[name]
    loaded = bu.load(FORMAT1 / f"{name}.nc")
    spectrum = loaded.spectrum(kept["column"], [-2, 0, 2])
    assert spectrum.nominal == pytest.approx(kept["nominal"], rel=1e-4)
    assert spectrum.std() == pytest.approx(kept["std"], rel=1e-3)
    split = spectrum.by_source()
    assert set(split) == set(kept["by_source"])
    for source, std in kept["by_source"].items():
        assert split[source] == pytest.approx(std, rel=1e-3, abs=1e-6)
    refolded = loaded.refolded(loaded.simulation.reco_names[0], [-2, 0, 2])
    assert refolded.std() == pytest.approx(kept["refolded"], rel=1e-3)
    assert loaded.configuration["efficiency"] == kept["configuration"]
    if kept["bias"] is not None:
        assert spectrum.bias == pytest.approx(kept["bias"], rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def everything():
    """An unfolding with misses, fakes, a background, and systematics of both kinds."""
    rng = np.random.default_rng(5)
    gen = rng.normal(0, 1, 400)
    reco, data = gen + rng.normal(0, 0.3, 400), rng.normal(0.2, 1, 300)
    flags = {"pass_gen": rng.random(400) < 0.9, "pass_reco": rng.random(400) < 0.9}
    simulation = bu.Simulation(gen, reco, names=["pt"], reco_names=["pt_reco"], **flags)
    systematics = [
        bu.Systematic("shower", weight_up=1 + 0.1 * np.tanh(gen)),
        bu.Systematic("scale", reco_up=reco + 0.1, pass_reco_up=rng.random(400) < 0.9),
    ]
    top = bu.Background(rng.normal(1, 1, 50), np.full(50, 0.2), "top", 0.1)
    unfolder = bu.OmniFold(2, bu.Network((6,)), "laplace", draws=20, random_seed=1, progressbar=False)
    return unfolder.fit(simulation, bu.Data(data), [top], systematics)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_plain_xarray_reads_every_group(everything, tmp_path, suffix):
    path = everything.save(tmp_path / f"r{suffix}")
    engine = {"engine": "h5netcdf"} if suffix == ".nc" else {"engine": "zarr", "consolidated": False}
    with xr.open_datatree(path, **engine) as tree:
        groups = tree["unfolding"]
        assert int(tree.attrs["format_version"]) == 2
        settings = json.loads(groups.attrs["settings"])
        assert settings["inference"] == "laplace"
        assert int(groups.attrs["random_seed"]) == 1
        np.testing.assert_array_equal(groups["simulation/gen"].sel(gen_feature="pt"), everything.simulation.gen[:, 0])
        np.testing.assert_array_equal(groups["backgrounds/top/weight"], np.full(50, 0.2))
        moved = groups["step2/displacement"].sel(source="shower")
        np.testing.assert_array_equal(moved, everything.members.step2.by_source["shower"])
        assert groups["networks/step1"].dims == ("iteration", "step1_parameter")
        np.testing.assert_array_equal(
            groups["networks/loss"].sel(fit="step2"), [n.losses["step2"] for n in everything.iterations]
        )
        alpha = groups["systematics/detector/alpha"].sel(systematic="scale")
        np.testing.assert_array_equal(alpha, everything.members.perturbations.effects["scale"].alpha)


def test_sources_survive_in_their_order(everything, tmp_path):
    loaded = bu.load(everything.save(tmp_path / "r.nc"))
    assert loaded.members.perturbations.sources == everything.members.perturbations.sources
    assert loaded.record == everything.record


def test_changed_settings_are_noticed(everything, tmp_path):
    path = everything.save(tmp_path / "r.nc")
    tree = xr.open_datatree(path, engine="h5netcdf").load()
    tree.close()
    tree.to_netcdf(tmp_path / "same.nc", engine="h5netcdf")
    bu.load(tmp_path / "same.nc")
    tree["unfolding"].attrs["random_seed"] = 2
    tree.to_netcdf(tmp_path / "changed.nc", engine="h5netcdf")
    with pytest.raises(FileFormatError, match="have changed since it was written"):
        bu.load(tmp_path / "changed.nc")


@pytest.fixture(scope="module")
def saved(everything, tmp_path_factory):
    with xr.open_datatree(everything.save(tmp_path_factory.mktemp("saved") / "r.nc"), engine="h5netcdf") as tree:
        return tree.load()


@pytest.mark.parametrize(
    "group",
    [
        "networks",
        "scales/gen",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("step2", "measurement", "data", "yields")),
    ],
)
def test_a_missing_group_is_named(saved, tmp_path, group):
    import bayesunfold.io.storage as storage

    tree = saved.copy()
    tree[f"unfolding/{group}"].orphan()
    tree.attrs["text_checksum"] = storage._text_checksum(tree["unfolding"])
    tree.to_netcdf(tmp_path / "less.nc", engine="h5netcdf")
    with pytest.raises(FileFormatError, match=f"misses '{group}'"):
        bu.load(tmp_path / "less.nc")


def test_a_loaded_result_is_the_saved_one_with_several_blas_threads(tmp_path):
    """Sums round differently with more threads: the fit and the reader must use the same number."""
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, bayesunfold as bu\n"
        "rng = np.random.default_rng(5)\n"
        "gen, data = rng.normal(0, 1, (20_000, 3)), rng.normal(0.2, 1, (10_000, 3))\n"
        "simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, gen.shape))\n"
        "unfolder = bu.OmniFold(1, bu.Network((8,)), 'laplace', draws=10, random_seed=1, progressbar=False)\n"
        "result = unfolder.fit(simulation, bu.Data(data))\n"
        "loaded = bu.load(result.save('r.nc'))\n"
        "assert np.array_equal(loaded.weights, result.weights)\n"
    )
    threads = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    found = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=threads, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


def test_names_by_position_stay_so(tmp_path):
    """Detector-level features without names of their own: a background's columns are taken in their order."""
    rng = np.random.default_rng(6)
    gen = rng.normal(0, 1, (300, 2))
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, gen.shape), names=["pt", "m"])
    other = bu.Background(rng.normal(0, 1, (40, 2)), np.full(40, 0.5), "top", names=["m_reco", "pt_reco"])
    unfolder = bu.OmniFold(1, bu.Network((4,)), "laplace", draws=10, random_seed=1, progressbar=False)
    result = unfolder.fit(simulation, bu.Data(rng.normal(0.2, 1, (200, 2))), [other])
    loaded = bu.load(result.save(tmp_path / "r.nc"))
    assert loaded.simulation.reco_names == simulation.reco_names
    assert (loaded.simulation.gen_named, loaded.simulation.reco_named) == (True, False)
    np.testing.assert_array_equal(loaded.backgrounds[0].columns_for(loaded.simulation), other.features)
