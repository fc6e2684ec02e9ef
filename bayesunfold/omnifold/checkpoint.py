"""Checkpoints of the unfolding loop: the networks of the finished iterations, written atomically.

A run claims its checkpoint before it trains, so that another run on the same path is told at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np

from bayesunfold._support.files import atomic_write, read_npz
from bayesunfold.errors import FileFormatError
from bayesunfold.omnifold.iteration import Networks
from bayesunfold.unfolding.record import MethodSettings
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = [
    "check_checkpoint",
    "choose_seed",
    "claim_checkpoint",
    "fingerprint",
    "pack_iterations",
    "read_checkpoint",
    "release_checkpoint",
    "unpack_iterations",
    "write_checkpoint",
]

WHAT = "a checkpoint of bayesunfold"

FREE = ("draws", "inference", "iterations", "linearize", "generator_prior")
"""Settings that the networks do not depend on, so that a run may go on with others."""


def __dir__() -> list[str]:
    return __all__


def fingerprint(events: StandardizedEvents, settings: MethodSettings, seed: int) -> str:
    """Checksum of events and settings, so that a checkpoint is never used for another run."""
    digest = hashlib.sha256()
    passes = events.passes
    arrays = [events.gen, events.reco, events.data.x, events.weight, events.data.weight, passes.gen, passes.reco]
    if events.reco_factor is not None:
        arrays.append(events.reco_factor)
    for b in events.backgrounds:
        arrays += [b.x, b.weight]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    state = settings.state() | {"random_seed": seed} | dict.fromkeys(FREE)
    state.pop("event_groups", None)  # as free; checkpoints from before it existed go on
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()


def pack_iterations(records: Sequence[Networks]) -> dict[str, np.ndarray]:
    """Iterations as named arrays."""
    packed = {
        "step1": np.stack([r.step1 for r in records]) if records else np.zeros((0, 0)),
        "step2": np.stack([r.step2 for r in records]) if records else np.zeros((0, 0)),
        "notes": np.array(json.dumps([{"losses": r.losses, "decrements": r.decrements} for r in records])),
    }
    fakes = [r.fakes for r in records if r.fakes is not None]
    if fakes:
        packed["fakes"] = np.stack(fakes)
    return packed


def unpack_iterations(packed: dict[str, np.ndarray]) -> list[Networks]:
    """Inverse of :func:`pack_iterations`."""
    notes = json.loads(str(packed["notes"]))
    fakes = packed.get("fakes")
    return [
        Networks(packed["step1"][k], packed["step2"][k], None if fakes is None else fakes[k], **note)
        for k, note in enumerate(notes)
    ]


def claim_checkpoint(path: Path, key: str, seed: int) -> list[Networks]:
    """Finished iterations of this run; starts the file if there is none.

    Raises
    ------
    FileFormatError
        If the file belongs to other events or arguments, or is not a checkpoint.
    OSError
        If it cannot be written.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            made = Path(folder) / path.name
            _save(made, key, [], seed)
            try:
                os.link(made, path)  # fails if another run was faster
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                made.replace(path)
    return read_checkpoint(path, key)


def release_checkpoint(path: Path, key: str) -> None:
    """Remove a claim without a finished iteration, so that a failed start leaves nothing."""
    with suppress(FileFormatError, OSError):
        if path.exists() and not read_checkpoint(path, key):
            path.unlink()


def _save(path: Path, key: str, records: Sequence[Networks], seed: int) -> None:
    with path.open("wb") as file:
        write = cast("Callable[..., None]", np.savez)  # its types take the names of arrays for options
        write(file, key=np.array(key), seed=np.array(seed), **pack_iterations(records))


def write_checkpoint(path: Path, key: str, records: Sequence[Networks], seed: int) -> None:
    """Save the finished iterations and the seed under the fingerprint ``key``.

    Raises
    ------
    FileFormatError
        If another run has taken the path in the meantime.
    """
    if path.exists():
        read_checkpoint(path, key)
    atomic_write(path, lambda temporary: _save(temporary, key, records, seed))


def read_checkpoint(path: Path, key: str) -> list[Networks]:
    """Finished iterations of the same run; none if there is no file yet.

    Raises
    ------
    FileFormatError
        If the file belongs to other events or arguments, or is not a checkpoint.
    """
    if not path.exists():
        return []
    packed = _load(path)
    if str(packed.pop("key", "")) != key:
        msg = f"{path} is a checkpoint of other events or other settings, or of a run that goes on now; name another."
        raise FileFormatError(msg)
    try:
        return unpack_iterations(packed)
    except (ValueError, TypeError, IndexError) as err:
        msg = f"{path} is not {WHAT} ({err}); remove it or name another."
        raise FileFormatError(msg) from err


def check_checkpoint(path: str | Path | None, events: StandardizedEvents, settings: MethodSettings, seed: int) -> None:
    """Whether a run may go on from a checkpoint, if there is one; errors as for :func:`read_checkpoint`."""
    if path is not None and Path(path).exists():
        read_checkpoint(Path(path), fingerprint(events, settings, seed))


def choose_seed(given: int | None, checkpoint: str | Path | None) -> int:
    """The seed given, that of the checkpoint to go on from, or a fresh one."""
    if given is not None:
        return given
    stored = None if checkpoint is None else checkpoint_seed(Path(checkpoint))
    return int(np.random.default_rng().integers(2**31)) if stored is None else stored


def checkpoint_seed(path: Path) -> int | None:
    """Seed of the run that wrote a checkpoint; None if there is no file."""
    if not path.exists():
        return None
    seed = _load(path)["seed"]
    if seed.shape != () or seed.dtype.kind not in "iu":
        msg = f"{path} is not {WHAT} (its seed is {seed!r}); remove it or name another."
        raise FileFormatError(msg)
    return int(seed)


def _load(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint file."""
    packed = read_npz(path, WHAT, stored=True)
    missing = {"key", "seed", "step1", "step2", "notes"} - set(packed)
    if missing:
        msg = f"{path} is not {WHAT} (it misses {sorted(missing)}); remove it or name another."
        raise FileFormatError(msg)
    return packed
