"""A long job that can be interrupted at any moment: what is finished is on the disk, where the next process goes on."""

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from recsys_jax import stopping
from recsys_jax.data.files import open_file, read_file, read_json, replace_file, require_folder, write_file
from recsys_jax.errors import InputError

LOCK = ".lock"

_PACKAGES = "recsys_jax", "jax", "jaxlib", "flax", "optax", "numpy"
# Settings of JAX by which the same program computes other numbers.
_SETTINGS = "enable_x64", "default_matmul_precision", "default_prng_impl"


def fingerprint(path: Path | None) -> str:
    """The SHA-256 of a file's bytes, all of them; empty where there is none, or no file."""
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def environment() -> dict[str, str]:
    """What decides a computation's bytes beside its options and its data: the versions, the processor, JAX's settings.

    Of XLA's flags, those count that do not only divide the processor into devices.
    """
    flags = sorted(flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag)
    known: Mapping[str, Any] = np.show_config(mode="dicts")
    return {
        "versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "device": jax.devices()[0].device_kind,  # another one rounds otherwise
        "instruction set": " ".join([platform.machine(), *known["SIMD Extensions"]["found"], *flags]),
        **{f"jax_{name}": str(getattr(jax.config, f"jax_{name}")) for name in _SETTINGS},
        "optimisations": "few" if jax.config.read("jax_disable_most_optimizations") else "all",  # type: ignore[no-untyped-call]
    }


@contextmanager
def only_process(folder: Path, busy: str) -> Iterator[None]:
    """Keeps a folder for this process, which makes it where it is not there; at the end an empty one goes away.

    A killed process gives it back. Raises `InputError(busy)` where another process that still runs has the folder.
    """
    with _locked(folder, busy) as stream:
        stopping.unfinished.add(folder / LOCK)
        try:
            yield
        finally:
            stopping.unfinished.discard(folder / LOCK)
            with suppress(OSError):  # something is in it; or, on Windows, this process has the lock open
                if os.path.samestat(os.fstat(stream.fileno()), (folder / LOCK).stat()):  # not yet the next process's
                    (folder / LOCK).unlink()
                    folder.rmdir()


def _locked(folder: Path, busy: str) -> IO[bytes]:
    while True:
        require_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        with suppress(FileNotFoundError):  # the process that had it removed the folder meanwhile
            # No link is followed, and a pipe is not waited for.
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            try:
                stream = os.fdopen(os.open(path, flags, 0o666), "wb")
            except FileNotFoundError:
                raise
            except OSError as error:
                raise InputError(f"{path}: can't be opened ({error.strerror}); allowed: a file. Remove it") from None
            try:
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                raise InputError(busy) from None
            except (ImportError, OSError):  # Windows, and some file systems, have no such locks
                return stream
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                    return stream
            stream.close()


class Parts:
    """The finished parts of one job, in a folder of their own.

    A part is a file and a note: of which job, how far the job is after it, and the checksum of both. The note is
    written last, so a part counts once its note is there. Parts count from the first one on, as long as each is whole,
    of this job, and begins where the one before ends.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any]) -> None:
        """`job` is what the content depends on, as JSON: where any of it differs, it is another job."""
        self.folder, self.job = folder, json.loads(json.dumps(job))
        self.files: list[Path] = []
        self.state: dict[str, Any] = {}
        """How far the job is after the last part, as `add` was told."""

    @contextmanager
    def alone(self, busy: str) -> Iterator[str]:
        """Keeps the folder for this process, with what is finished, and gives a sentence where that was not all usable.

        Raises `InputError(busy)` where another process that still runs has the folder. Where no part counts at the end,
        the folder goes away.
        """
        with only_process(self.folder, busy):
            said = self._take_over()
            try:
                yield said
            finally:
                if not self.files:
                    self._remove({LOCK})

    def _take_over(self) -> str:
        """Counts the parts that are there, removes everything else, and says what was wrong with it, if anything."""
        said = ""
        while not said and self._file("json").exists():
            found = self._whole()
            if found is None or (found["job"] == self.job and found["after"] != self.state):
                said = f"{self._file('part')}: found a damaged part of the job; it is made again, and all after it"
            elif found["job"] != self.job:
                names = [name for name in {**found["job"], **self.job} if found["job"].get(name) != self.job.get(name)]
                said = f"{self.folder}: found parts of a job with other {', '.join(names)}; they go, all is made anew"
            else:
                self._count(found["state"])
        self._remove({LOCK, *(path.with_suffix(end).name for path in self.files for end in (".part", ".json"))})
        return said

    def add(self, write: Callable[[IO[bytes]], object], state: Callable[[], Mapping[str, Any]]) -> None:
        """Lets `write` fill the next part; `state` is asked then how far the job is. Raises what `write` raises."""
        replace_file(self._file("part"), write)
        note = {"job": self.job, "after": self.state, "state": dict(state())}
        write_file(self._file("json"), json.dumps({**note, "sha256": self._checksum(note)}))
        self._count(note["state"])

    def remove(self) -> None:
        """Removes the folder, the lock last: whoever has the lock has the folder."""
        self._remove({LOCK})
        with suppress(OSError):  # on Windows, this process has the lock open
            (self.folder / LOCK).unlink()
            self.folder.rmdir()

    def _remove(self, but: set[str]) -> None:
        for path in sorted(self.folder.iterdir()):  # each note before its part
            if path.name not in but:
                path.unlink()

    def _file(self, kind: str) -> Path:
        """The next part, or its note."""
        return self.folder / f"{len(self.files):06}.{kind}"

    def _count(self, state: dict[str, Any]) -> None:
        self.files.append(self._file("part"))
        self.state = state

    def _whole(self) -> dict[str, Any] | None:
        """The note of the next part, or nothing where its checksum is not that of the part and the note."""
        try:
            note: dict[str, Any] = read_json(read_file(self._file("json"), inside=self.folder))
            return note if note.pop("sha256") == self._checksum(note) else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def _checksum(self, note: Mapping[str, Any]) -> str:
        with open_file(self._file("part"), inside=self.folder) as stream:
            digest = file_digest(stream, "sha256")  # type: ignore[arg-type]
        digest.update(json.dumps(note, sort_keys=True).encode())
        return digest.hexdigest()


def kept(parts: Parts, total: int) -> str:
    """A sentence on what is kept of an interrupted job of so many rows; empty where that is nothing."""
    if not parts.files:
        return ""
    done = f"{parts.state['rows']:,} of {total:,} rows are done"
    return f"{done} and kept in {parts.folder}: the same command continues there"


def stopped(parts: Parts, total: int) -> str:
    """The same where the process ends now: where nothing is kept, the folder goes away."""
    if not parts.files:
        parts.remove()
    return kept(parts, total)
