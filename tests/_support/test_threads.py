"""Blocks of events in parallel: same digits, limits respected, nothing left behind."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import bayesunfold as bu
from bayesunfold._support.threads import block_threads, map_blocks, thread_count
from bayesunfold.classifier.arithmetic import BLOCK, Layout, forward, loss_and_gradient, tangent, weighted_gram


def test_results_come_in_the_order_of_the_blocks():
    def slow_first(i):
        time.sleep(0.02 if i == 0 else 0.0)
        return i

    with block_threads():
        assert list(map_blocks(slow_first, range(20))) == list(range(20))
    assert list(map_blocks(slow_first, range(3))) == [0, 1, 2]
    assert list(map_blocks(slow_first, [])) == []


def test_an_error_in_a_block_reaches_the_caller():
    def fail(i):
        if i == 3:
            msg = "block 3"
            raise ValueError(msg)
        return i

    with block_threads(), pytest.raises(ValueError, match="block 3"):
        list(map_blocks(fail, range(10)))


def test_limits_on_blas_limit_the_threads_and_are_restored():
    def limits():
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = limits()
    with block_threads():
        assert set(limits()) == {1}
        with block_threads():  # nested: the outer one is kept
            assert set(limits()) == {1}
    assert limits() == before
    with threadpool_limits(1, user_api="blas"):
        assert thread_count() == 1
        names = set()
        with block_threads():
            list(map_blocks(lambda _: names.add(threading.current_thread().name), range(4)))
        assert names == {threading.current_thread().name}


def test_the_number_of_threads_changes_no_digit():
    rng = np.random.default_rng(1)
    layout = Layout((2, 5, 1), "tanh", (1.0, 1.0))
    theta = rng.standard_normal(layout.n_parameters)
    x = rng.standard_normal((3 * BLOCK + 11, 2))
    ones, zeros = rng.random(len(x)), rng.random(len(x))

    def everything():
        loss, gradient = loss_and_gradient(layout, theta, x, ones, zeros, 0.1)
        phi = tangent(layout, theta, x)
        return np.r_[loss, gradient, forward(layout, theta, x), phi.ravel(), weighted_gram(phi, ones).ravel()]

    with threadpool_limits(1, user_api="blas"):  # one core, as in a block
        serial = everything()
    with block_threads():
        assert np.array_equal(everything(), serial)


def test_unfolding_does_not_depend_on_the_number_of_threads():
    toy = bu.datasets.gaussian_toy(5000, 9000, random_seed=1)

    def spectrum():
        unfolder = bu.OmniFold(2, inference="laplace", draws=20, random_seed=1, progressbar=False)
        return unfolder.fit(toy.simulation, toy.measurement).spectrum("gen", np.linspace(-6, 8, 8)).draw_matrix

    parallel = spectrum()
    with threadpool_limits(1, user_api="blas"):
        assert np.array_equal(spectrum(), parallel)


def test_overlapping_callers_give_the_limit_back():
    """Two threads inside at once, the first one leaving first."""
    before = thread_count()
    inside, leave = threading.Event(), threading.Event()

    def first():
        with block_threads():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=first)
    other.start()
    inside.wait(10)
    with block_threads():
        leave.set()
        other.join()
        assert thread_count() == 1
    assert thread_count() == before
