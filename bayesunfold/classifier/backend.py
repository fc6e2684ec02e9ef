"""What computes sums over events: NumPy on threads, or JAX on its default device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from bayesunfold._support.checks import check_choice
from bayesunfold._support.threads import accelerator, remote
from bayesunfold.errors import InputError

__all__ = ["Backend", "check_backend", "on_backend"]

Backend = Literal["numpy", "jax"]


def __dir__() -> list[str]:
    return __all__


def check_backend(backend: str, client: Any = None) -> None:
    """Raise :class:`~bayesunfold.errors.InputError` for a backend that is unknown, missing, or beside a cluster."""
    check_choice(backend, "backend", ("numpy", "jax"))
    if backend == "numpy":
        return
    if client is not None or remote.get() is not None:
        msg = f'backend is "{backend}" and there is a client, whose workers compute with NumPy; give one of the two.'
        raise InputError(msg)
    state = np.random.get_state()  # noqa: NPY002 - JAX draws from NumPy's global generator when it is imported
    try:
        import jax  # noqa: F401
    except ImportError:
        msg = 'backend is "jax", which needs JAX; install it with: pip install "bayesunfold[jax]".'
        raise InputError(msg) from None
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def on_backend(backend: str) -> Iterator[None]:
    """Let a backend compute sums over events inside, in this thread and in those that share its blocks."""
    device: Any = None
    if backend == "jax":
        from bayesunfold.classifier.jax_arithmetic import JaxArithmetic

        device = JaxArithmetic()
    token = accelerator.set(device)
    try:
        yield
    finally:
        accelerator.reset(token)
