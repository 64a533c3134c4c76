"""The progress of a training, on the disk, so that a killed one goes on from there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from recsys_jax.config import Config, to_table
from recsys_jax.data.files import read_file, read_json, write_file
from recsys_jax.errors import InputError
from recsys_jax.storage.jobs import environment

Task = Mapping[str, str]
"""What decides a training's bytes: its options, its data and what computes it."""

NEWEST, BEFORE = "checkpoint.safetensors", "checkpoint.before.safetensors"
_SAID = "said"  # The tensor of bytes with the task and how far it is, as JSON; before all tensors stands their SHA-256.


class Stopped(Exception):
    """Training was asked to stop: its text says how far what it has saved is; empty where that is nothing yet."""


@dataclass
class Checkpoints:
    """Where a training saves how far it is, and whether it goes on from there.

    The newest checkpoint and the one before lie in the folder, each written whole or not at all; where the newest is
    damaged, the one before serves.
    """

    folder: Path
    resume: bool = False
    """Go on from the checkpoint that is there; else what is there gives way."""
    every: int = 100
    """Epochs from one checkpoint to the next, rounded up to what runs at once; the wide recipe saves each fit."""
    stop: Callable[[], bool] = lambda: False
    """Whether to save and stop now."""
    tell: Callable[[str], None] = lambda sentence: None
    """Called with what a person should know."""
    saved: str = field(default="", init=False)
    """How far the last checkpoint is, in words."""

    def load(self, task: Task, like: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """What the last good checkpoint holds, arrays as in `like`, where 0 is any length; None where training begins.

        Raises `InputError` for a checkpoint of another task, or one that holds anything else.
        """
        there = [path for name in (NEWEST, BEFORE) if (path := self.folder / name).exists()]
        if not self.resume:
            if there:
                self.tell(
                    f"{there[0]}: of a training that was not finished, replaced; train --resume would have gone on"
                )
            self.remove()
            return None
        for path in there:
            try:
                content = read_file(path, inside=self.folder)
            except InputError as error:
                self.tell(f"{error}; passed over")
                continue
            if sha256(content[32:]).digest() != content[:32]:
                self.tell(f"{path}: damaged, passed over (its content is not what its checksum says)")
                continue
            try:
                arrays: dict[str, np.ndarray] = load_tensors(content[32:])
                said = {str(name): str(value) for name, value in read_json(arrays.pop(_SAID).tobytes()).items()}
            except Exception as error:  # what safetensors raises depends on where the damage is
                raise InputError(f"{path}: no checkpoint of a training: {type(error).__name__}: {error}") from None
            differing = [name for name, value in task.items() if said.get(name) != value]
            if differing:
                what = _options(said.get("options", ""), task["options"]) or " and ".join(differing)
                raise InputError(
                    f"{path}: found a checkpoint of other {what}; allowed: those it was written with; without --resume "
                    "training begins anew"
                )
            if arrays.keys() != like.keys() or not all(_fits(array, like[name]) for name, array in arrays.items()):
                raise InputError(f"{path}: found other arrays than this training saves; allowed: those alone")
            self.saved = said.get("saved", "")
            self.tell(f"Goes on after {self.saved}")
            return arrays
        self.tell(f"There is no checkpoint in {self.folder}: training begins")
        return None

    def due(self, before: int, done: int) -> bool:
        """Whether to save after so many epochs, where it was asked after `before` of them."""
        return self.stop() or (self.every > 0 and done // self.every > before // self.every)

    def save(self, task: Task, arrays: Mapping[str, np.ndarray], saved: str) -> None:
        """Makes a checkpoint; `saved` says in words how far it is. Raises `Stopped` where that is asked for."""
        said = np.frombuffer(json.dumps({**task, "saved": saved}).encode(), np.uint8)
        content = save_tensors({name: np.array(array, order="C") for name, array in {**arrays, _SAID: said}.items()})
        newest = self.folder / NEWEST
        if newest.exists():
            newest.replace(self.folder / BEFORE)
        write_file(newest, sha256(content).digest() + content)
        self.saved = saved
        self.heed()

    def heed(self) -> None:
        """Raises `Stopped` where that is asked for, with what is saved."""
        if self.stop():
            raise Stopped(self.saved)

    def remove(self) -> None:
        """Removes what is saved, and what a kill left half-written: the training is done."""
        for path in (self.folder / BEFORE, self.folder / NEWEST, *self.folder.glob(f".{NEWEST}.*")):
            path.unlink(missing_ok=True)


def _options(before: str, now: str) -> str:
    """The options that differ, with their values at the checkpoint and now; they may be why the data differs, too."""
    then, asked = read_json(before.encode() or b"{}"), read_json(now.encode())
    differing = [name for name in {**then, **asked} if then.get(name) != asked.get(name)]
    if "recipe" in differing:  # then all others may differ
        differing = ["recipe"]
    each = ", ".join(f"{one} {then.get(one)}, not {asked.get(one)}" for one in differing)
    return f"options ({each})" if differing else ""


def _fits(array: np.ndarray, like: Any) -> bool:
    lengths = zip(array.shape, like.shape, strict=False)
    same = (array.dtype, array.ndim) == (like.dtype, like.ndim)
    return same and all(wanted in (0, found) for found, wanted in lengths)


def task_of(config: Config, data: Any) -> dict[str, str]:
    """The task of training with this config on the arrays of a tree."""
    digest = sha256()
    for leaf in map(np.asarray, jax.tree.leaves(data)):
        digest.update(f"{leaf.dtype.str}{leaf.shape}".encode() + leaf.tobytes())
    return {
        "options": json.dumps(to_table(config), sort_keys=True),
        "data": digest.hexdigest(),
        **environment(),
    }
