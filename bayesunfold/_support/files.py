"""Files that appear whole or not at all, and folders in which nothing of the user's is lost.

Every writer of the package goes through :func:`atomic_write` (one file) or :func:`replace_folder` (several files that
belong together). Both write beside the target, flush to disk, and rename. A killed write leaves the old contents under
the final name and hidden temporaries beside it, which the next write of the same target removes.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import FileFormatError, InputError

__all__ = [
    "atomic_text",
    "atomic_write",
    "check_replaceable",
    "check_writable",
    "checksum",
    "checksum_of_arrays",
    "foreign_entries",
    "read_npz",
    "recover",
    "replace_folder",
    "swap",
    "temporary_folder",
]

MANIFEST = "# bayesunfold-manifest "
"""Begins the last line of the YAML file that names the others: checksums of what the package wrote into the folder."""

MARK = "bayesunfold"
LARGEST_ARRAYS = 2**30
"""Bytes: an array file of the package's own is never larger."""


def __dir__() -> list[str]:
    return __all__


def _prefix(path: Path) -> str:
    """Beginning of the names of temporaries of ``path``; machine and process say whether their writer still lives."""
    host = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:40]
    return f".{path.name}.{MARK}-{host}-{os.getpid()}-"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove_left_overs(path: Path) -> None:
    """Remove temporaries of writes to ``path`` whose process on this machine has ended."""
    if sys.platform == "win32":  # where asking for a process may end it
        return
    mine = re.escape(_prefix(path).rsplit("-", 2)[0])
    pattern = re.compile(rf"{mine}-(?P<process>\d+)-[A-Za-z0-9_]+(?P<suffix>{re.escape(path.suffix)})?")
    for found in path.parent.glob(f".{_literal(path.name)}.{MARK}-*"):
        match = pattern.fullmatch(found.name)
        if match is None or _alive(int(match["process"])):
            continue
        if found.is_dir() and not found.is_symlink():
            _remove_own_folder(found)
        else:
            found.unlink(missing_ok=True)


def _literal(name: str) -> str:
    """A name with the special characters of ``glob`` taken literally."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _remove_own_folder(folder: Path) -> None:
    """Remove a temporary folder; a file of the user's in it that has no other name stays."""
    manifest = _read_manifest(folder)
    keep = [] if manifest is None else [p for p in foreign_entries(folder) if not _linked_elsewhere(p)]
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def _linked_elsewhere(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1


def _flush(path: Path) -> None:
    """Ask the system to have a file, or the names in a folder, on disk."""
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) if path.is_dir() else os.O_RDONLY
    try:
        handle = os.open(path, flags)
    except OSError:  # folders cannot be opened on some systems
        return
    try:
        os.fsync(handle)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _flush_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _flush(path)
    _flush(folder)


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary file beside ``path``.

    A killed write leaves the old file, if there was one. The contents are on disk before the name is.

    Parameters
    ----------
    path : path
    write : callable
        Gets the temporary file's path, which has the suffix of ``path``.

    Raises
    ------
    InputError
        If ``path`` is a folder.
    OSError
        If the file cannot be written; the temporary is removed.
    """
    if path.is_dir():
        msg = f"{path} is a folder; name a file."
        raise InputError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_overs(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # temporary files are private, results are not
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_text(path: str | Path, text: str) -> Path:
    """Write a text as :func:`atomic_write` does; returns the path."""
    path = Path(path)
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def _umask() -> int:
    """The process's file mode mask."""
    status = Path("/proc/self/status")
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in status.read_text().splitlines() if line.startswith("Umask:"))
        return int(line.split()[1], 8)
    mask = os.umask(0)  # other systems: it can only be read by setting it
    os.umask(mask)
    return mask


def check_writable(path: Path, *, folder: bool = False) -> None:
    """An error now, not after hours of training, if a file or folder could not be written.

    Raises
    ------
    InputError
        Naming the path and what stands in the way.
    """
    if folder and path.exists() and not path.is_dir():
        msg = f"{path} is a file; name a folder."
        raise InputError(msg)
    if not folder and path.is_dir():
        msg = f"{path} is a folder; name a file."
        raise InputError(msg)
    place = path if folder else path.parent
    existing = place
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            msg = f"{existing} is not a folder"
            raise NotADirectoryError(msg)
        with tempfile.NamedTemporaryFile(dir=existing, prefix=f".{MARK}-"):
            pass
    except OSError as err:
        msg = f"{path} cannot be written: {err.strerror or err}. Name another place."
        raise InputError(msg) from err


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` that is gone afterwards, whatever became of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_overs(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
    finally:
        if temporary.exists():
            _remove_own_folder(temporary)


def _exchange(one: Path, two: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call(here, os.fsencode(one), here, os.fsencode(two), both) == 0


def _backup(path: Path) -> Path:
    return path.parent / f".{path.name}.{MARK}-previous"


def swap(new: Path, path: Path) -> None:
    """Put the finished folder ``new`` in the place of ``path``, whose old contents are removed.

    Where the system can exchange two names, there is no moment without ``path``. Elsewhere the old folder waits under
    a hidden name until the new one is in place, and :func:`recover` brings it back after a kill.
    """
    _flush_tree(new)
    recover(path)
    if not path.exists():
        new.replace(path)
    elif _exchange(new, path):
        shutil.rmtree(new, ignore_errors=True)
    else:
        path.replace(_backup(path))
        new.replace(path)
        shutil.rmtree(_backup(path), ignore_errors=True)
    _flush(path.parent)


def recover(path: Path) -> None:
    """Bring back what a killed :func:`swap` had moved aside; remove it where the new folder is in place."""
    backup = _backup(path)
    if not backup.exists():
        return
    if path.exists():
        shutil.rmtree(backup, ignore_errors=True)
    else:
        backup.replace(path)


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_of_arrays(arrays: Iterable[NDArray[Any]]) -> str:
    """SHA-256 of the numbers of arrays, in hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _read_manifest(folder: Path) -> dict[str, str] | None:
    """Checksums of the files that the package wrote, by name; None if there is no unchanged file that has them."""
    for pointer in sorted(folder.glob("*.yaml")):
        try:
            text, last = pointer.read_text().rstrip("\n").rsplit("\n", 1)
            found = json.loads(last.removeprefix(MANIFEST)) if last.startswith(MANIFEST) else None
        except (OSError, ValueError):
            continue
        if not isinstance(found, dict) or found.get("self") != _text_checksum(text + "\n"):
            continue
        files = found.get("files")
        if isinstance(files, dict):
            return {str(n): str(c) for n, c in files.items()} | {pointer.name: checksum(pointer)}
    return None


def _text_checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _own(folder: Path, name: str, sha: str) -> bool:
    """Whether a file is the one that the manifest names, unchanged."""
    path = folder / name
    plain = Path(name).name == name and name not in ("", ".", "..")
    return plain and path.is_file() and not path.is_symlink() and checksum(path) == sha


def foreign_entries(folder: Path) -> list[Path]:
    """What a folder holds that the package cannot prove to have written, or that was changed since."""
    if not folder.is_dir():
        return []
    own = {name for name, sha in (_read_manifest(folder) or {}).items() if _own(folder, name, sha)}
    return sorted(p for p in folder.iterdir() if p.name not in own)


def check_replaceable(folder: Path, names: Callable[[str], bool], what: str) -> None:
    """Refuse to write into a folder where a file of the user's has one of the names to be written.

    Parameters
    ----------
    folder : path
    names : callable
        Whether a name is one that will be written.
    what : str
        What is written, for the message.
    """
    check_writable(folder, folder=True)
    taken = [p.name for p in foreign_entries(folder) if names(p.name)]
    if taken:
        msg = (
            f"{folder} holds {', '.join(taken)}, which bayesunfold did not write or which was changed since; {what} "
            "would overwrite it. Move it away, or name another folder."
        )
        raise InputError(msg)


def replace_folder(folder: Path, write: Callable[[Path], object], what: str, pointer: str) -> None:
    """Write several files that belong together, and take away those of the last time.

    Files that this function did not write, or that were changed since, are kept. A comment with checksums at the end of
    the ``pointer`` says which are its own.

    Parameters
    ----------
    folder : path
    write : callable
        Gets an empty folder and fills it with files.
    what : str
        What is written, for messages.
    pointer : str
        The YAML file that names the others, which is replaced last where the system cannot exchange folders.

    Raises
    ------
    InputError
        If a file of the user's stands where one is to be written.
    """
    folder = folder.resolve()
    with temporary_folder(folder) as new:
        write(new)
        written = sorted(p.name for p in new.iterdir())
        check_replaceable(folder, written.__contains__, what)
        others = {name: checksum(new / name) for name in written if name != pointer}
        text = (new / pointer).read_text().rstrip("\n") + "\n"
        manifest = {"files": others, "self": _text_checksum(text)}
        (new / pointer).write_text(f"{text}{MANIFEST}{json.dumps(manifest)}\n")
        _flush_tree(new)
        if not folder.exists():
            new.replace(folder)
            _flush(folder.parent)
        elif not _exchange_with_links(new, folder):
            _replace_in_place(new, folder, [*others, pointer])


def _exchange_with_links(new: Path, folder: Path) -> bool:
    """Exchange folders in one step, with the user's files linked into the new one; False if that cannot be done."""
    foreign = foreign_entries(folder)
    if any(p.is_dir() or p.is_symlink() for p in foreign):
        return False
    try:
        for path in foreign:
            os.link(path, new / path.name)
        shutil.copystat(folder, new)
    except OSError:
        return False
    if not _exchange(new, folder):
        return False
    for path in foreign_entries(new):  # made while this was written
        if not _linked_elsewhere(path):
            path.replace(folder / path.name)
    _flush(folder.parent)
    return True


def _replace_in_place(new: Path, folder: Path, order: list[str]) -> None:
    """Move files one by one; readers notice by their checksums if a kill comes in between."""
    old = _read_manifest(folder) or {}
    gone = [n for n, sha in old.items() if n not in order and _own(folder, n, sha)]
    for name in order:
        (new / name).replace(folder / name)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    _flush(folder)


def read_npz(path: Path, what: str, *, stored: bool = False) -> dict[str, Any]:
    """Arrays of an ``.npz`` file whose size was looked at before anything is read.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for messages.
    stored : bool
        The package's own files are not compressed: refuse those that are.

    Raises
    ------
    FileFormatError
        For anything but readable arrays of numbers and text.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, stored=stored)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as err:
        # zip files fail in many ways: encrypted flags, unknown methods, bad text in headers of arrays
        msg = f"{path} is not {what} ({type(err).__name__}: {err}); remove it or name another."
        raise FileFormatError(msg) from err


def _check_members(archive: zipfile.ZipFile, *, stored: bool) -> None:
    """Raise if arrays are larger than their file, or than any array file of the package."""
    total = 0
    for member in archive.infolist():
        total += member.file_size
        if stored and member.compress_type != zipfile.ZIP_STORED:
            msg = f"{member.filename} is compressed"
            raise ValueError(msg)
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > member.file_size:
            msg = f"{member.filename} claims the shape {shape} in {member.file_size} bytes"
            raise ValueError(msg)
    if stored and total > LARGEST_ARRAYS:
        msg = f"its arrays take {total} bytes, more than {LARGEST_ARRAYS}"
        raise ValueError(msg)
