"""Saves one model over another and dies at the n-th thing it asks the file system for, for every n. See test_hostile.

    python _killed_saves.py OLD NEW WORK

Prints, for each n, which model the folder gave afterwards.
"""

import builtins
import io
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np

from recsys_jax import load_model, save_model

warnings.simplefilter("ignore")  # JAX warns of every fork; no thread of its own is used here
left = 0


def step() -> None:
    """One thing asked; the last one allowed is the last that this process does."""
    global left
    left -= 1
    if left < 0:
        os._exit(9)


class Halves:
    """A stream that writes the first half of what it is given to the file, then the second."""

    def __init__(self, stream: io.BufferedWriter) -> None:
        self.stream = stream

    def write(self, content: bytes) -> None:
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            step()
            self.stream.write(part)
            self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def __enter__(self) -> "Halves":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def dying(function):
    def call(*args, **options):
        step()
        found = function(*args, **options)
        return Halves(found) if isinstance(found, io.BufferedWriter) else found

    return call


def die_at(n: int) -> None:
    """Patches every call that changes or opens something."""
    global left
    left = n
    for name in ("open", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "listdir", "scandir", "link"):
        setattr(os, name, dying(getattr(os, name)))
    io.open = builtins.open = dying(builtins.open)


old, new = (load_model(folder) for folder in sys.argv[1:3])
for n in range(1000):
    folder = Path(sys.argv[3]) / str(n)
    save_model(old, folder)
    child = os.fork()
    if child == 0:
        die_at(n)
        save_model(new, folder)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = load_model(folder)
    (which,) = (
        name
        for name, model in (("old", old), ("new", new))
        if np.array_equal(found.product_embeddings, model.product_embeddings)
        and np.array_equal(found.losses, model.losses)
    )
    litter = len(list(folder.iterdir())) - 2
    save_model(new, folder)
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(path.name for path in Path(sys.argv[2]).iterdir()), files
    assert all((folder / name).read_bytes() == (Path(sys.argv[2]) / name).read_bytes() for name in files)
    shutil.rmtree(folder)
    print(n, which, litter, status)
    if status == 0:
        break
