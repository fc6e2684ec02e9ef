"""Properties that hold for any input, searched by Hypothesis."""

from __future__ import annotations

import tempfile
from pathlib import Path

import awkward as ak
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bayesunfold as bu
from bayesunfold.binning import bin_index
from bayesunfold.errors import InputError
from bayesunfold.io.expressions import evaluate

settings.register_profile("here", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("here")

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False, width=32)
COLUMNS = hnp.arrays(np.float64, st.tuples(st.integers(3, 20), st.just(2)), elements=NUMBERS)

CONTAINERS = {
    "list": lambda x: x.tolist(),
    "float32": lambda x: x.astype(np.float32),
    "fortran": np.asfortranarray,
    "masked": lambda x: np.ma.masked_array(x, mask=np.zeros(x.shape, bool)),
    "pandas": lambda x: pd.DataFrame(x, columns=["a", "b"]),
    "polars": lambda x: pl.DataFrame(x, schema=["a", "b"]),
    "dict": lambda x: {"a": x[:, 0], "b": x[:, 1]},
    "structured": lambda x: np.array([tuple(row) for row in x], dtype=[("a", float), ("b", float)]),
    "awkward": ak.Array,
}


@pytest.mark.parametrize("name", CONTAINERS)
@given(x=COLUMNS)
def test_features_are_the_same_from_every_container(name, x):
    if np.all(x == x[0]):
        return
    made = bu.Data(CONTAINERS[name](x))
    np.testing.assert_array_equal(made.features, x)
    if name in ("pandas", "polars", "dict", "structured"):
        assert made.names == ("a", "b")


@given(w=hnp.arrays(np.float64, 12, elements=st.floats(0.125, 100, width=32)), flags=hnp.arrays(bool, 12))
def test_weights_and_flags_are_the_same_from_every_container(w, flags):
    x = np.arange(12.0)
    if not flags.any():
        return
    for weight in (w.tolist(), pd.Series(w), pl.Series(w), np.ma.masked_array(w), ak.Array(w)):
        for flag in (
            flags,
            pd.Series(flags),
            pl.Series(flags),
            np.ma.masked_array(flags),
            ak.Array(flags),
            flags.tolist(),
        ):
            made = bu.Simulation(x, x, weight=weight, pass_reco=flag)
            np.testing.assert_array_equal(made.weight, w)
            np.testing.assert_array_equal(made.pass_reco, flags)


def arithmetic(leaf):
    """Expressions as pairs: text, and the same in NumPy."""
    both = st.tuples(leaf, leaf)
    return st.one_of(
        both.map(lambda p: (f"({p[0][0]} + {p[1][0]})", lambda c, p=p: p[0][1](c) + p[1][1](c))),
        both.map(lambda p: (f"({p[0][0]} * {p[1][0]})", lambda c, p=p: p[0][1](c) * p[1][1](c))),
        both.map(lambda p: (f"({p[0][0]} - {p[1][0]})", lambda c, p=p: p[0][1](c) - p[1][1](c))),
        leaf.map(lambda a: (f"(-{a[0]})", lambda c, a=a: -a[1](c))),
        leaf.map(lambda a: (f"abs({a[0]})", lambda c, a=a: np.abs(a[1](c)))),
        leaf.map(lambda a: (f"arctan2({a[0]}, 2)", lambda c, a=a: np.arctan2(a[1](c), 2))),
    )


LEAVES = st.one_of(
    st.sampled_from(["x", "n", "u"]).map(lambda name: (name, lambda c, name=name: c[name].astype(np.float64))),
    st.integers(0, 9).map(lambda k: (str(k), lambda _, k=k: np.full(4, float(k)))),
)
EXPRESSIONS = st.recursive(LEAVES, arithmetic, max_leaves=8)


@given(
    EXPRESSIONS,
    EXPRESSIONS,
    hnp.arrays(np.float64, 4, elements=NUMBERS),
    hnp.arrays(np.int32, 4),
    hnp.arrays(np.uint32, 4),
)
def test_expressions_are_numpy_in_double_precision(a, b, x, n, u):
    """Whatever the types of the columns; comparisons, ``&``, ``|`` and ``~`` included."""
    columns = {"x": x, "n": n, "u": u}
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(np.broadcast_to(evaluate(a[0], columns), 4), a[1](columns))
        text = f"{a[0]} > {b[0]} & ~({a[0]} <= 1) | x == 0"
        wanted = ((a[1](columns) > b[1](columns)) & ~(a[1](columns) <= 1)) | (x == 0)
        np.testing.assert_array_equal(evaluate(text, columns), wanted)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(-5, 5)),
    st.lists(st.floats(-4, 4), min_size=2, max_size=6, unique=True).map(sorted),
    st.lists(st.floats(-4, 4), min_size=2, max_size=4, unique=True).map(sorted),
)
def test_bins_are_those_of_numpy(x, first, second):
    """But for the last edge, which NumPy takes in and half-open bins leave out."""
    edges = np.array(first), np.array(second)
    if any(np.diff(e).min() < 1e-9 for e in edges):
        return
    last = (x[:, 0] == edges[0][-1]) | (x[:, 1] == edges[1][-1])
    index = bin_index([x[:, 0], x[:, 1]], edges, np.ones(len(x), bool))
    counted = np.bincount(index[index >= 0], minlength=(len(first) - 1) * (len(second) - 1))
    np.testing.assert_array_equal(counted, np.histogramdd(x[~last], edges)[0].ravel())


@pytest.mark.filterwarnings("ignore:The recursion limit will not be reset")  # PyTensor raises it as it compiles
@settings(max_examples=5)
@given(
    inference=st.sampled_from(["laplace", "advi"]),
    background=st.booleans(),
    weights=st.booleans(),
    shift=st.booleans(),
    undefined=st.booleans(),
    flags=st.booleans(),
    efficiency=st.sampled_from(["learned", "prior"]),
)
def test_a_loaded_result_is_the_saved_one(inference, background, weights, shift, undefined, flags, efficiency):
    """Over combinations of everything that a result may carry, to the last digit."""
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, 300)
    reco, data = gen + rng.normal(0, 0.3, 300), rng.normal(0.2, 1, 200)
    if undefined:
        reco, data = np.c_[reco, np.where(gen > 1, np.nan, gen)], np.c_[data, np.where(data > 1, np.nan, data)]
    passes = {"pass_gen": rng.random(300) < 0.9, "pass_reco": rng.random(300) < 0.8} if flags else {}
    kind = "indicator" if undefined else "error"
    simulation = bu.Simulation(gen, reco, undefined=kind, names=["x"], **passes)
    systematics = [bu.Systematic("w", weight_up=1 + 0.1 * np.tanh(gen))] if weights else []
    if shift:
        moved = {"pass_reco_up": rng.random(300) < 0.8} if flags else {}
        systematics.append(bu.Systematic("s", reco_up=reco + 0.1, **moved))
    backgrounds = [bu.Background(data[:40], np.full(40, 0.5), "b", 0.1, kind)] if background else []
    unfolder = bu.OmniFold(
        1,
        inference=inference,
        draws=20,
        efficiency=efficiency,
        random_seed=1,
        progressbar=False,
        network=bu.Network((4,)),
    )
    live = unfolder.fit(simulation, bu.Data(data, undefined=kind), backgrounds, systematics)
    with tempfile.TemporaryDirectory() as folder:
        loaded = bu.load(live.save(Path(folder) / "r.nc"))
        published = [
            bu.io.read_publication(bu.io.write_publication(r, Path(folder) / n, by_source=True))
            for r, n in ((live, "a"), (loaded, "b"))
        ]
    np.testing.assert_array_equal(loaded.nominal, live.nominal)
    np.testing.assert_array_equal(loaded.weights, live.weights)
    one, two = (r.spectrum("x", [-2, 0, 2]).by_source() for r in (live, loaded))
    assert list(one) == list(two)
    for name, std in one.items():
        np.testing.assert_array_equal(two[name], std)
    assert list(published[0].pairs) == list(published[1].pairs) == [s.name for s in systematics]


@settings(max_examples=5)
@given(st.permutations(range(8)), st.floats(0.01, 100))
def test_order_and_scale_of_weights_do_not_matter(order, scale):
    """Blocks of events in another order, weights in another unit: a response, and what is unfolded with it."""
    rng = np.random.default_rng(2)
    gen = rng.normal(0, 1, 400)
    reco, weight = gen + rng.normal(0, 0.3, 400), rng.exponential(size=400)
    rows = np.concatenate(np.split(np.arange(400), 8)).reshape(8, 50)[list(order)].ravel()
    edges = [-4, -1, 0, 1, 4]
    one = bu.ResponseMatrix.from_events(bu.Simulation(gen, reco, weight), edges)
    two = bu.ResponseMatrix.from_events(bu.Simulation(gen[rows], reco[rows], scale * weight[rows]), edges)
    np.testing.assert_allclose(one.probabilities, two.probabilities, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        bu.IBU(3).fit(one, [5, 9, 9, 5]).nominal, bu.IBU(3).fit(two, [5, 9, 9, 5]).nominal, rtol=1e-9
    )


@given(st.text(max_size=30))
def test_no_text_escapes_the_parser(text):
    try:
        found = evaluate(text, {"x": np.ones(2)})
    except InputError:
        return
    assert found.dtype.kind in "fb"
