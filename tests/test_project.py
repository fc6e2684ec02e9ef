"""Promises about the package as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import bayesunfold as bu
from bayesunfold.classifier.standardize import Standardizer


def test_import_is_light_and_leaves_global_state_alone():
    code = (
        "import sys, bayesunfold; print([m for m in ('pymc', 'pytensor', 'nutpie', 'distributed') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented():
    for name in bu.__all__:
        assert getattr(bu, name).__doc__, name
    assert set(bu.__all__) <= set(dir(bu)) == set(bu.__dir__())


def test_every_public_name_has_an_example_that_runs():
    """They run as doctests, but for ``write_hepdata``, whose library warns; a test of its own runs that."""
    reference = (Path(bu.__file__).parents[1] / "docs" / "api.md").read_text()
    modules = [getattr(bu, m) for m in ("io", "datasets", "studies", "plots", "report", "binned", "reweighting")]
    for module in (bu, *modules):
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                assert ">>>" in value.__doc__, f"{module.__name__}.{name}"
                assert re.search(rf"\b{name}\b", reference), f"{name} is not in docs/api.md"


def test_equations_that_the_code_names_are_in_the_documentation():
    root = Path(bu.__file__).parents[1]
    pages = [root / "docs" / f"{name}.md" for name in ("statistics", "binned", "ratios")]
    derived = re.findall(r"\\tag\{(\w+)\}", "".join(page.read_text() for page in pages))
    assert len(set(derived)) == len(derived) > 30
    code = "".join(path.read_text() for path in (root / "bayesunfold").rglob("*.py"))
    named = set(re.findall(r"\b([BR]\d+)\b(?=[,;)\s])", code)) | set(re.findall(r"quations? \((\w+)\)", code))
    assert len(named) > 20
    assert named <= set(derived)


GAUSS = np.random.default_rng(3).normal(size=(3, 200))
SIMULATION = bu.Simulation(GAUSS[0], GAUSS[0] + 0.3 * GAUSS[1])
RESPONSE = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
SPECTRUM = bu.Spectrum((np.arange(3.0),), np.abs(GAUSS[:2].T) + 5, np.array([5.0, 6.0]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bu.OmniFold(generator_prior="a"), "generator_prior is 'a'"),
        (lambda: bu.OmniFold(generator_prior=None), "generator_prior is None"),
        (lambda: bu.Background(GAUSS[2], relative_uncertainty="a"), "relative_uncertainty of background is 'a'"),
        (lambda: bu.Background(GAUSS[2], name=3), "name is 3"),
        (lambda: bu.Background(GAUSS[2], name="prior"), "already a source"),
        (lambda: bu.Systematic(3, weight_up=GAUSS[0]), "name is 3"),
        (lambda: bu.OmniFold().fit(SIMULATION, GAUSS[2], backgrounds=None), "backgrounds is None; pass a list"),
        (lambda: bu.OmniFold().fit(SIMULATION, GAUSS[2], systematics=None), "systematics is None; pass a list"),
        (lambda: SPECTRUM.interval("a"), "level is 'a'"),
        (lambda: SPECTRUM.chi2("a"), "the model has dtype"),
        (lambda: bu.ResponseMatrix("a"), "the response has dtype"),
        (lambda: bu.IBU().fit(None, [1, 2]), "response has type NoneType; pass a bayesunfold.ResponseMatrix"),
        (lambda: bu.MatrixInversion().fit(None, [1, 2]), "response has type NoneType"),
        (lambda: bu.FBU().fit(None, [1, 2]), "response has type NoneType"),
        (lambda: bu.Tikhonov(tau=None), "tau is None"),
        (lambda: bu.FBU(systematics={"x": "a"}), "systematic 'x' has dtype"),
        (lambda: bu.FBU(backgrounds={"x": [1, 2]}).fit(RESPONSE, [1, 2]), "background 'x' has type list"),
        (lambda: bu.compare({"a": 3}), "'a' has type int; pass a bayesunfold.Spectrum"),
        (lambda: bu.coverage_study(3, bins=[0, 1], expected=[30]), "make_toy is 3"),
        (lambda: bu.closure(None, GAUSS[0], GAUSS[1]), "pass a fitted bayesunfold.Reweighter"),
        (lambda: bu.LikelihoodRatio(3), "parameters is 3"),
        (lambda: bu.datasets.gaussian_toy(gen=3), "gen is 3; give a pair"),
        (lambda: bu.datasets.gaussian_toy(smear="a"), "smear has dtype"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(call, words):
    with pytest.raises((bu.errors.InputError, bu.errors.InputTypeError), match=re.escape(words)):
        call()


def test_mathematics_does_not_import_pymc_or_matplotlib():
    code = (
        "import sys, bayesunfold.unfolding.propagation, bayesunfold.classifier.arithmetic; "
        "print([m for m in ('pymc', 'matplotlib.pyplot') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_zjets_counts_are_the_published_ones():
    events = bu.datasets.zjets()
    assert len(events.simulation) == 80_917
    assert len(events.nature["gen_pt"]) == 61_081
    simulation = events.simulation
    assert simulation.both.sum() / simulation.pass_gen.sum() == pytest.approx(0.894, abs=5e-4)
    assert simulation.fakes.sum() / simulation.pass_reco.sum() == pytest.approx(0.053, abs=5e-4)
    with pytest.raises(bu.errors.InputError, match="unknown features"):
        bu.datasets.zjets(("pt", "colour"))


def test_toy_has_the_moments_it_says():
    toy = bu.datasets.gaussian_toy(200_000, 200_000, random_seed=1, dimension=2, correlation=0.5)
    # 5 standard errors
    assert np.all(np.abs(toy.gen.mean(axis=0) - 0.3) < 5 * 2.5 / np.sqrt(2e5))
    assert np.all(np.abs((toy.reco - toy.gen).mean(axis=0) + 2.5) < 5 * 0.2 / np.sqrt(2e5))
    assert abs(np.corrcoef(toy.truth.T)[0, 1] - 0.5) < 5 * 0.75 / np.sqrt(2e5)
    assert toy.expected([-1e3, 1.2])[0] == pytest.approx(100_000)


def test_standardizer_tames_tails_and_is_monotone():
    rng = np.random.default_rng(1)
    tail = rng.exponential(size=20_000)[:, None]
    scale = Standardizer.fit(tail, np.ones(len(tail)))
    z = scale(tail)[:, 0].astype(float)
    assert abs((z**3).mean()) < 0.5 < 2 - 0.2  # an exponential has skewness 2
    x = np.linspace(-1, 100, 200)[:, None]  # beyond the simulation's range: neither clipped nor lost
    assert np.all(np.diff(scale(x)[:, 0]) > 0)
    assert Standardizer.fit(rng.normal(size=(5000, 1)), np.ones(5000)).power[0] == 1.0
    again = Standardizer(**scale.state())
    np.testing.assert_array_equal(again(tail), scale(tail))


def test_standardizer_decorrelates():
    rng = np.random.default_rng(2)
    a = rng.normal(size=10_000)
    values = np.column_stack([a, a + 0.2 * rng.normal(size=10_000)])
    z = Standardizer.fit(values, np.ones(10_000))(values).astype(float)
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=0.02)
    constant = Standardizer.fit(np.column_stack([a, np.ones(10_000)]), np.ones(10_000))
    assert np.all(np.isfinite(constant(np.column_stack([a, np.ones(10_000)]))))


def test_the_architecture_page_quotes_the_contract():
    import tomllib

    root = Path(__file__).parents[1]
    contract = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [line.replace("bayesunfold.", "") for line in contract["layers"]]
    page = (root / "docs" / "architecture.md").read_text()
    assert "\n".join(layers) in page
    for place in re.findall(r"^\| `([a-z_]+/[a-z0-9_]+\.py)`", page, flags=re.M):
        assert (root / "bayesunfold" / place).exists(), place
    folders = {p.name for p in (root / "bayesunfold").iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    modules = {p.stem for p in (root / "bayesunfold").glob("*.py")} - {"__init__"}
    assert folders | modules == {word for line in layers for word in re.findall("[a-z_]+", line)}


def test_importing_is_light():
    """Nothing but the package itself is loaded, and the command line's help needs no numerics."""
    code = "import sys, bayesunfold.cli.commands; print([m for m in ('numpy', 'scipy', 'pymc') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_version_stands_in_one_place():
    import tomllib

    root = Path(__file__).parents[1]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert bu.__version__ == version
    assert f"version: {version}" in (root / "CITATION.cff").read_text()


def test_streams_do_not_meet():
    """Seeds, names, iterations and samples: no two parts of a run read the same numbers."""
    from bayesunfold._support.streams import NUMBERS, event_key, stream, training_stream

    first = [stream(7, name).integers(2**62) for name in NUMBERS]
    first += [training_stream(7, k).integers(2**62) for k in range(50)]
    keys = [event_key(7, s) for s in ("data", "simulation", 0, 1, 2)]
    first += [np.random.Generator(np.random.Philox(key=[k, 0])).integers(2**62) for k in keys]
    assert len(set(first)) == len(first)


def test_the_tables_of_the_coverage_page_are_those_of_the_kept_results():
    command = [sys.executable, "scripts/studies", "tables", "--check"]
    found = subprocess.run(command, cwd=Path(bu.__file__).parents[1], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    """Names differ where conda splits packages; versions do not."""
    root = Path(bu.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    recipe = yaml.safe_load((root / "scripts" / "conda" / "recipe.yaml").read_text())
    wanted = {text.replace("[h5py]", "").replace("matplotlib", "matplotlib-base") for text in project["dependencies"]}
    run = {text.replace(" ", "") for text in recipe["requirements"]["run"]}
    assert run - {f"python{project['requires-python']}", "h5py"} == wanted
    assert recipe["context"]["version"] == project["version"]
    assert recipe["about"]["summary"] == project["description"]
    (entry,) = recipe["build"]["python"]["entry_points"]
    assert entry == f"bayesunfold = {project['scripts']['bayesunfold']}"
