"""Fixtures that guard global state, and small problems that many tests share."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil

import matplotlib as mpl
import numpy as np
import pytest

import bayesunfold as bu

with contextlib.suppress(ImportError):  # on import, JAX draws from NumPy's global generator, and ArviZ imports it
    import jax  # noqa: F401


def require(module: str):
    """Import an optional module; a missing one skips, or fails where CI demands everything."""
    if os.environ.get("BAYESUNFOLD_REQUIRE_ALL"):
        return importlib.import_module(module)
    return pytest.importorskip(module)


@pytest.fixture
def browser():
    """Headless Chromium that logs its console.

    Without Chromium the test is skipped; where CI demands everything it fails, unless ``BAYESUNFOLD_NO_BROWSER`` says
    that Chromium could not be installed.
    """
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        demanded = os.environ.get("BAYESUNFOLD_REQUIRE_ALL") and not os.environ.get("BAYESUNFOLD_NO_BROWSER")
        (pytest.fail if demanded else pytest.skip)("no Chromium: install chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def _global_state_is_left_alone(request):
    """Fail any test in which the library changed NumPy's, matplotlib's or logging's global state.

    scikit-learn's own checks draw from NumPy's global generator; tests that run them say so by the fixture
    ``_numpy_state_restored``.
    """
    state, rc = np.random.get_state()[1].copy(), dict(mpl.rcParams)  # noqa: NPY002
    level = logging.getLogger("pymc").level
    yield
    if "_numpy_state_restored" not in request.fixturenames:
        assert np.array_equal(state, np.random.get_state()[1]), "NumPy's global generator was used"  # noqa: NPY002
    assert dict(mpl.rcParams) == rc, "matplotlib.rcParams were changed"
    assert logging.getLogger("pymc").level in (level, logging.NOTSET, logging.INFO), "PyMC's logger was changed"


@pytest.fixture
def _numpy_state_restored():
    """Put NumPy's global generator back after a test whose tools use it."""
    state = np.random.get_state()  # noqa: NPY002
    yield
    np.random.set_state(state)  # noqa: NPY002


@pytest.fixture(scope="session")
def toy():
    return bu.datasets.gaussian_toy(600, 800, random_seed=3)


@pytest.fixture(scope="session")
def result(toy):
    unfolder = bu.OmniFold(2, inference="laplace", draws=200, random_seed=5, progressbar=False)
    return unfolder.fit(toy.simulation, toy.measurement)


@pytest.fixture(scope="session")
def accepted():
    """Simulation with misses and fakes (NaN where a level is absent), and data made the same way."""
    rng = np.random.default_rng(11)

    def make(n, mean, width):
        t = rng.normal(mean, width, n)
        r = t + rng.normal(0, 0.5, n)
        seen = rng.random(n) < np.clip(0.3 + 0.7 * (t + 10) / 20, 0, 1)
        fake = rng.normal(0, 3.0, n // 10)
        gen = np.concatenate([t, np.full(len(fake), np.nan)])
        reco = np.concatenate([np.where(seen, r, np.nan), fake])
        pass_gen = np.concatenate([np.ones(n, bool), np.zeros(len(fake), bool)])
        pass_reco = np.concatenate([seen, np.ones(len(fake), bool)])
        return gen, reco, pass_gen, pass_reco

    gen, reco, pass_gen, pass_reco = make(3000, 0.3, 2.5)
    _, data, _, measured = make(2000, 1.2, 3.0)
    simulation = bu.Simulation(gen, reco, pass_gen=pass_gen, pass_reco=pass_reco)
    return simulation, bu.Data(data[measured])
