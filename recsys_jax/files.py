"""Files that are written whole or not at all, and where files go that can be made again."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import IO

from recsys_jax.errors import InputError

__all__ = ["cache_folder", "full_disk_told", "replace_file", "sync_folder", "write_file"]


def cache_folder() -> Path:
    """The user's folder for what can be made again: `$XDG_CACHE_HOME/recsys_jax`, by default `~/.cache/recsys_jax`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "recsys_jax"


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file in the same folder, which then takes the name `path` in one step.

    Both are forced to the disk, so that after a power cut, too, there is the old file or the new one, whole. Raises
    `InputError` where the disk is full; the old file is intact then.
    """
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
