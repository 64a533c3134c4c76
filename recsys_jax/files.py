"""Files that are written whole or not at all, and where files go that can be made again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

__all__ = ["cache_folder", "replace_file", "write_file"]


def cache_folder() -> Path:
    """The user's folder for what can be made again: `$XDG_CACHE_HOME/recsys_jax`, by default `~/.cache/recsys_jax`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "recsys_jax"


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file in the same folder, which then takes the name `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            write(stream)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a text (as UTF-8) or bytes as the whole content of a file."""
    replace_file(path, lambda stream: stream.write(content.encode() if isinstance(content, str) else content))
