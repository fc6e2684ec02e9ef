"""The arithmetic in JAX gives NumPy's numbers, up to rounding in single precision."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold._support.threads import accelerator, block_threads, map_blocks, remote
from bayesunfold.classifier.additive import Additive
from bayesunfold.classifier.arithmetic import forward, tangent
from bayesunfold.classifier.backend import check_backend, on_backend
from bayesunfold.classifier.network import Network
from bayesunfold.classifier.sums import TangentFeatures, gradient_sum, group_scores
from bayesunfold.classifier.training import _adam, _Curvature, fit_map
from bayesunfold.classifier.two_class import Classifier, ClassWeights, Joined, TwoClass
from bayesunfold.cli import main
from bayesunfold.errors import InputError

jax = require("jax")

from bayesunfold.classifier import jax_arithmetic  # noqa: E402 - needs JAX
from bayesunfold.classifier.jax_arithmetic import JaxArithmetic  # noqa: E402 - needs JAX

EVENTS = 20_001  # more than go to an accelerator, and no multiple of any block
ROUNDING = 2e-5  # of the largest number: single precision with sums over 2e4 events


def _layout(activation, *, additive):
    layout = replace(Network(hidden=(20, 20)).layout(3), activation=activation)
    if not additive:
        return layout
    starts = [(j, low) for j in range(2) for low in (-2.0, -1.0, 0.0, 1.0)]
    unmix = np.array([[0.8, -0.6], [0.6, 0.8]])  # the third input says where the second feature does not exist
    return replace(
        layout,
        additive=Additive(
            tuple(map(tuple, unmix.tolist())),
            tuple(j for j, _ in starts),
            tuple(low for _, low in starts),
            tuple(low + 1.0 for _, low in starts),
            tuple(2 if j == 1 else -1 for j, _ in starts),
            0.7,
        ),
    )


def _everything(layout):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(EVENTS, 3)).astype(np.float32)
    x[:, 2] = np.sign(x[:, 2])
    ones, zeros = rng.random((2, EVENTS))
    theta = rng.normal(size=layout.n_parameters)
    basis = np.linalg.qr(rng.normal(size=(layout.n_parameters, 11)))[0]
    classes, part, weight = Joined(x, ones, zeros, 0.3), x[:1000], ones[:1000] - 0.5
    steps = np.random.default_rng(4)  # 244 of them: two calls and a rest
    loss, gradient = classes.loss_and_gradient(layout, theta)
    phi = TangentFeatures.of(layout, theta, part, basis)
    other = TangentFeatures.of(layout, theta[::-1].copy(), part, basis[:, :7])
    return {
        "output": forward(layout, theta, x),
        "loss": np.array(loss),
        "gradient": gradient,
        "weighted gradients": gradient_sum(layout, theta, x, np.stack([ones, zeros], axis=1), 2),
        "tangent features": tangent(layout, theta, part, basis),
        "products with columns": phi.dot(np.stack([weight, weight**2], axis=1)),
        "product with a column": phi.dot(weight),
        "with other features": phi.times(weight).cross(other),
        "squares": phi.squares(),
        "groups": group_scores(layout, theta, part, weight, 8, basis),
        "curvature": _Curvature(layout, theta, classes.subset(np.arange(0, EVENTS, 3))).matrix,
        "minibatch steps": _adam(layout, 0.1 * theta, classes, 0 * theta, steps, 50.0, 0.01),
        "next random number": np.array(steps.random()),
    }


@pytest.mark.parametrize(
    ("activation", "additive"),
    [
        ("tanh", True),
        ("relu", False),
        pytest.param("softplus", True, marks=pytest.mark.slow),
        pytest.param("tanh", False, marks=pytest.mark.slow),
        pytest.param("relu", True, marks=pytest.mark.slow),
        pytest.param("softplus", False, marks=pytest.mark.slow),
    ],
)
def test_same_numbers_as_numpy(activation, additive):
    layout = _layout(activation, additive=additive)
    here = _everything(layout)
    with on_backend("jax"):
        there = _everything(layout)
    if activation == "relu":  # its slope jumps where an output is rounded to the other side of zero, and steps part
        del here["minibatch steps"]
    for name, expected in here.items():
        # steps add up rounding
        bound = 1e-3 if name == "minibatch steps" else ROUNDING
        np.testing.assert_allclose(there[name], expected, atol=bound * np.abs(expected).max(), rtol=0, err_msg=name)
        assert there[name].shape == expected.shape


def test_bands_are_those_of_numpy_for_the_same_networks(tmp_path):
    """Trainings stop short of the optimum by rounding, so the networks come from a checkpoint."""
    toy = bu.datasets.gaussian_toy(20_000, 10_000, random_seed=1)
    settings = {"iterations": 2, "draws": 100, "inference": "laplace", "event_groups": 10_000}
    centres, draws = [], []
    for backend in ("numpy", "jax"):
        unfolder = bu.OmniFold(**settings, random_seed=1, progressbar=False)
        result = unfolder.fit(toy.simulation, toy.data, checkpoint=tmp_path / "run.npz", backend=backend)
        with on_backend(backend):
            spectrum = result.spectrum("gen", np.linspace(-2, 2, 11))
        centres.append(spectrum.values())
        draws.append(spectrum.draw_matrix)
    band = draws[0].std(axis=0)
    assert np.abs(centres[1] - centres[0]).max() < 1e-4 * band.min()
    np.testing.assert_allclose(draws[1].std(axis=0), band, rtol=1e-3)


def test_a_training_ends_where_that_of_numpy_does():
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(0.0, 1.0, (EVENTS, 1)), rng.normal(0.3, 1.1, (EVENTS, 1))]).astype(np.float32)
    ones = np.repeat([0.0, 1.0], EVENTS)
    classes = Joined(x, ones, 1.0 - ones, 0.0)
    layout = Network(hidden=(8,)).layout(1)
    fits = []
    for backend in ("numpy", "jax"):
        with on_backend(backend):
            fits.append(fit_map(layout, classes, np.random.default_rng(6)))
    # each stops somewhere in a flat valley: half a unit of the objective is one standard deviation of the posterior
    assert fits[1].objective == pytest.approx(fits[0].objective, abs=3.0)
    assert fits[1].objective < 2 * EVENTS * np.log(2.0) - 100.0  # that of a network that tells nothing apart


def test_events_leave_the_device_with_their_training():
    x = np.random.default_rng(7).normal(size=(EVENTS, 1)).astype(np.float32)
    with on_backend("jax"):
        classes = Joined(x, np.ones(EVENTS), np.ones(EVENTS), 0.0)
        classes.loss_and_gradient(Network(hidden=(4,)).layout(1), np.ones(13))
        held = accelerator.get()._events
        assert len(held) == 1
        del classes
        assert not held


@pytest.mark.slow
def test_the_direct_posterior_runs_on_jax():
    toy = bu.datasets.gaussian_toy(20_000, 5_000, random_seed=2)
    unfolder = bu.UnbinnedFBU(draws=50, random_seed=1, progressbar=False)
    both = [unfolder.fit(toy.simulation, toy.data, backend=backend) for backend in ("numpy", "jax")]
    numpy, jaxed = (result.spectrum("gen", np.linspace(-2, 2, 9)) for result in both)
    # the same data, so centres differ by where trainings stop: far less than the band
    assert np.all(np.abs(jaxed.values() - numpy.values()) < numpy.draw_matrix.std(axis=0))


def test_threads_of_a_fit_compute_on_the_accelerator_and_others_do_not():
    def inside():
        return set(map_blocks(lambda _: accelerator.get() is not None, range(8)))

    with block_threads(), on_backend("jax"):
        assert inside() == {True}
        with on_backend("numpy"):
            assert inside() == {False}
        assert inside() == {True}
    assert accelerator.get() is None
    with on_backend("numpy"):
        assert accelerator.get() is None


def test_settings_of_jax_stay_as_they_were():
    before = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    with on_backend("jax"):
        forward(Network(hidden=(4,)).layout(1), np.ones(13), np.ones((EVENTS, 1), np.float32))
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == before


def test_importing_jax_leaves_the_global_generator_alone():
    code = (
        "import numpy as np; from bayesunfold.classifier.backend import check_backend; np.random.seed(1);"
        "check_backend('jax'); print(np.random.random())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(found) == np.random.RandomState(1).random_sample()


def test_errors_come_before_the_fit(monkeypatch):
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    for method in (bu.OmniFold(), bu.UnbinnedFBU()):
        with pytest.raises(InputError, match="backend is 'torch'"):
            method.fit(toy.simulation, toy.data, backend="torch")
        with pytest.raises(InputError, match="give one of the two"):
            method.fit(toy.simulation, toy.data, backend="jax", client=object())
    token = remote.set(map)  # as inside bayesunfold.cluster
    with pytest.raises(InputError, match="give one of the two"):
        check_backend("jax")
    remote.reset(token)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(InputError, match=r"bayesunfold\[jax\]"):
        check_backend("jax")


@pytest.mark.slow
def test_the_command_line_trains_on_jax(monkeypatch, tmp_path, capsys):
    toy = bu.datasets.gaussian_toy(500, EVENTS, random_seed=1)
    np.savez(tmp_path / "sim.npz", x=toy.gen[:, 0], y=toy.reco[:, 0])
    np.savez(tmp_path / "data.npz", y=toy.data[:, 0])
    path = tmp_path / "run.toml"
    path.write_text(
        '[simulation]\nfile = "sim.npz"\ngen = ["x"]\nreco = ["y"]\n[data]\nfile = "data.npz"\nfeatures = ["y"]\n'
        '[unfolding]\niterations = 1\ninference = "laplace"\ndraws = 20\nbias = false\n[output]\nreport = false\n'
    )
    gradients, loss = [], JaxArithmetic.loss_and_gradient
    monkeypatch.setattr(
        JaxArithmetic, "loss_and_gradient", lambda self, *given: gradients.append(1) or loss(self, *given)
    )
    assert main(["--debug", "unfold", str(path), "--backend", "jax"]) == 0
    assert gradients
    assert main(["unfold", str(path), "--backend", "jax", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "give one of the two" in capsys.readouterr().err


def test_changes_along_displacements_are_those_of_numpy():
    rng = np.random.default_rng(8)
    layout = _layout("tanh", additive=True)
    x = rng.normal(size=(500, 3)).astype(np.float32)
    theta = rng.normal(size=layout.n_parameters)
    basis = np.linalg.qr(rng.normal(size=(layout.n_parameters, 11)))[0]
    classes = TwoClass((ClassWeights("simulation", x, np.ones(500), np.ones(500)),), 0.0)
    classifier = Classifier("step 2", layout, theta, classes, directions=basis)
    displacement = rng.normal(size=(11, 70))
    expected = tangent(layout, theta, x, basis).astype(np.float64) @ displacement
    with on_backend("jax"):
        found = classifier.change(x, displacement)
    for change in (classifier.change(x, displacement), found):
        assert change.shape == (500, 70)
        np.testing.assert_allclose(change, expected, atol=ROUNDING * np.abs(expected).max(), rtol=0)


def test_few_functions_are_compiled_for_a_gpu(monkeypatch):
    """Padding there is coarser, and changes no number."""
    layout = _layout("softplus", additive=False)
    x = np.random.default_rng(9).normal(size=(2_000, 3)).astype(np.float32)
    theta = np.random.default_rng(10).normal(size=layout.n_parameters)
    basis, weight = np.eye(layout.n_parameters, 3), np.linspace(-1.0, 1.0, 2_000)

    def everything():
        phi = TangentFeatures.of(layout, theta, x, basis)
        return {
            "tangent features": tangent(layout, theta, x, basis),
            "products": phi.times(weight).cross(phi),
            "squares": phi.squares(),
            "groups": group_scores(layout, theta, x, weight, 8, basis),
        }

    here = everything()
    monkeypatch.setattr(jax_arithmetic, "_compiles_quickly", lambda: False)
    with on_backend("jax"):
        there = everything()
        assert accelerator.get().tangent(layout, theta, basis, x).shape == (16_384, 128)
    for name, expected in here.items():
        bound = ROUNDING * np.abs(expected).max()
        np.testing.assert_allclose(there[name], expected, atol=bound, rtol=0, err_msg=name)
