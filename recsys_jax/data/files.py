"""Files that are written whole or not at all, and where files go that can be made again."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EDQUOT, EFBIG, ENOENT, ENOSPC
from math import inf
from pathlib import Path
from stat import S_ISREG
from typing import IO

import numpy as np

from recsys_jax.errors import InputError

__all__ = [
    "cache_folder",
    "full_disk_told",
    "only_writer",
    "open_inside",
    "read_arrays",
    "replace_file",
    "require_folder",
    "sync_folder",
    "write_file",
]


def cache_folder() -> Path:
    """The user's folder for what can be made again: `$XDG_CACHE_HOME/recsys_jax`, by default `~/.cache/recsys_jax`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "recsys_jax"


def require_folder(folder: Path) -> None:
    """Raises `InputError` where nothing can be written into a folder that is there or would be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise InputError(f"{there}: found a file; allowed: a folder, there or not yet")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: found a folder that may not be written; allowed: one that may")


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file in the same folder, which then takes the name `path` in one step.

    Both are forced to the disk, so that after a power cut, too, there is the old file or the new one, whole. Raises
    `InputError` where the folder can't be written or the disk is full; the old file is intact then.
    """
    require_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with full_disk_told(path), temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a text (as UTF-8) or bytes as the whole content of a file. Raises `InputError` as `replace_file` does."""
    replace_file(path, lambda stream: stream.write(content.encode() if isinstance(content, str) else content))


def sync_folder(folder: Path) -> None:
    """Forces to the disk which files are in a folder, where the system knows how."""
    with suppress(OSError):  # some file systems, and Windows, open no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Waits until no other process that asks for this writes in the folder. A killed process does not keep it."""
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with suppress(ImportError, OSError):  # Windows, and some file systems, have no such locks
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def open_inside(folder: Path, name: str, *, largest: float = inf) -> IO[bytes]:
    """Opens a file of the folder to be read, and none outside: a link may lead to another file in the folder alone.

    Raises `FileNotFoundError` where it is absent, and `InputError` where it is no file, leads out of the folder, cannot
    be read or is larger than `largest` bytes.
    """
    path = folder / name
    try:
        target = path.resolve(strict=True)
        if not target.is_relative_to(folder.resolve()):
            raise InputError(f"{path}: found a link to {target}; allowed: a file in the folder itself")
        if not S_ISREG(target.stat().st_mode):
            raise InputError(f"{path}: found no file but something else; allowed: a file")
        stream = target.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(ENOENT, "there is no such file", str(path)) from None
    except (OSError, RuntimeError) as error:  # links in a circle, too
        raise InputError(f"{path}: can't be read: {error}") from None
    size = os.fstat(stream.fileno()).st_size
    if size > largest:
        stream.close()
        raise InputError(f"{path}: found {size:,} bytes; allowed: at most {largest:,}")
    return stream


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays that `numpy.savez` wrote, nothing unpickled or unpacked. Raises `ValueError` for all else."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
        if packed:
            raise ValueError("found packed arrays; allowed: arrays as they are")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except Exception as error:  # a damaged zip raises one of a dozen kinds, a forged length MemoryError
        raise ValueError(f"{type(error).__name__}: {error}") from None


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Makes a sentence of a full disk (or quota, or file size limit) while `path` is written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT, EFBIG):
            raise
        old = "; the file that was there before is intact" if path.exists() else ""
        raise InputError(
            f"{path}: found no room to write it ({error.strerror}); allowed: a disk with enough space{old}"
        ) from None
