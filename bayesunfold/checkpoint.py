"""Checkpoints of the unfolding loop: the networks of the finished iterations, written atomically."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayesunfold.errors import FileFormatError
from bayesunfold.loop import Iteration

__all__ = ["atomic_write", "pack_iterations", "read_checkpoint", "unpack_iterations", "write_checkpoint"]


def __dir__() -> list[str]:
    return __all__


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary file beside ``path``; a killed write leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # temporary files are private, results are not
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def pack_iterations(records: Sequence[Iteration]) -> dict[str, np.ndarray]:
    """Iterations as named arrays."""
    packed = {
        "step1": np.stack([r.step1 for r in records]),
        "step2": np.stack([r.step2 for r in records]),
        "notes": np.array(json.dumps([{"losses": r.losses, "decrements": r.decrements} for r in records])),
    }
    fakes = [r.fakes for r in records if r.fakes is not None]
    if fakes:
        packed["fakes"] = np.stack(fakes)
    return packed


def unpack_iterations(packed: dict[str, np.ndarray]) -> list[Iteration]:
    """Inverse of :func:`pack_iterations`."""
    notes = json.loads(str(packed["notes"]))
    fakes = packed.get("fakes")
    return [
        Iteration(packed["step1"][k], packed["step2"][k], None if fakes is None else fakes[k], **note)
        for k, note in enumerate(notes)
    ]


def write_checkpoint(path: Path, key: str, records: Sequence[Iteration], seed: int) -> None:
    """Save the finished iterations and the seed under the fingerprint ``key``."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            packed: dict[str, Any] = pack_iterations(records)
            np.savez(file, key=np.array(key), seed=np.array(seed), **packed)

    atomic_write(path, write)


def read_checkpoint(path: Path, key: str) -> list[Iteration]:
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
        msg = f"{path} is a checkpoint of other events or other settings; remove it or name another."
        raise FileFormatError(msg)
    return unpack_iterations(packed)


def checkpoint_seed(path: Path) -> int | None:
    """Seed of the run that wrote a checkpoint; None if there is no file."""
    return int(_load(path)["seed"]) if path.exists() else None


def _load(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            packed = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as err:
        msg = f"{path} is not a checkpoint of bayesunfold ({err}); remove it or name another."
        raise FileFormatError(msg) from err
    missing = {"key", "seed", "step1", "step2", "notes"} - set(packed)
    if missing:
        msg = f"{path} is not a checkpoint of bayesunfold (it misses {sorted(missing)}); remove it or name another."
        raise FileFormatError(msg)
    return packed
