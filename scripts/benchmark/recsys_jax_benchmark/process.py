"""A process for each method: the same processors and threads for everyone, and its memory is measured.

`in_process` is the benchmark's side, this module run with `-m` the method's. Nothing heavy is imported here, and a
process pins itself to its processors before all else: thread pools are sized when a library is imported.
"""

import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recsys_jax import stopping

OURS = "recsys_jax"
Measured = dict[str, dict[str, list[float | None]]]  # for each method and quantity what every repeat measured
Progress = Callable[[int, int, str], None]  # called with how much is done, of how much, and with a word
CAN_PIN = hasattr(os, "sched_setaffinity")  # whether the system can keep a process to some processors
# How the names of variables begin that methods do not get: everyone starts from the libraries' defaults.
TUNING = (
    *("ATEN_", "DNNL_", "GOMP_", "JAX_", "KMP_", "MALLOC_", "MKL_", "NVIDIA_TF32_"),
    *("OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TORCH", "TRITON_", "XLA_"),
)


class Failure(Exception):
    """A method broke down or is wrong: a sentence."""


def processors() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0)) if CAN_PIN else list(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class Limits:
    """What a method's process may use."""

    threads: int
    device: Literal["cpu", "gpu"]
    cache: Path  # where its compilers keep what they made

    @property
    def torch_device(self) -> str:
        """The device as PyTorch calls it."""
        return "cuda" if self.device == "gpu" else "cpu"

    def environment(self) -> dict[str, str]:
        """The variables that the process gets."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
        own |= {f"{library}_NUM_THREADS": str(self.threads) for library in ("OMP", "OPENBLAS", "MKL")}
        # What compilers keep for the next process: a folder per process makes each start the first one.
        own |= {
            "TORCHINDUCTOR_CACHE_DIR": str(self.cache / "inductor"),
            "TRITON_CACHE_DIR": str(self.cache / "triton"),
            "XDG_CACHE_HOME": str(self.cache),
        }
        if self.device == "cpu":
            return own | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        # PyTorch multiplies in full float32 unless told otherwise; JAX on a GPU does not.
        own |= {"JAX_PLATFORMS": "cuda,cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
        return own | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # others are on the GPU too


@contextmanager
def in_process(
    title: str, child: Callable[..., Iterator[Any]], *arguments: Any, limits: Limits
) -> Iterator[Callable[[], Any]]:
    """A method in a process of its own: each call lets `child(limits, *arguments)` run on to what it yields next.

    The call raises `Failure` with `title` and the process's last words if it dies.
    """
    with (
        tempfile.TemporaryFile() as errors,
        stopping.child(
            [sys.executable, "-m", "recsys_jax_benchmark.process", *map(str, processors()[-limits.threads :])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=limits.environment(),
        ) as process,
    ):
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask() -> Any:
            try:
                questions.write(b"\n")
                questions.flush()
                return pickle.load(answers)
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                with suppress(BrokenPipeError):
                    questions.close()
                status = process.wait()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()
                raise Failure(f"{title}: the process ended with status {status}\n{said[-4000:]}") from None

        pickle.dump((child, limits, arguments), questions)
        yield ask


def in_turns(methods: Sequence[str], repeats: int) -> Iterator[tuple[int, int, str]]:
    """The number, the repeat and the method of each measurement: everyone once per repeat, in an order that rotates."""
    for repeat in range(repeats):
        for turn in range(len(methods)):
            yield repeat * len(methods) + turn, repeat, methods[(repeat + turn) % len(methods)]


def record(found: Measured, method: str, **values: float | None) -> None:
    """Adds what a repeat measured of a method."""
    for name, value in values.items():
        found.setdefault(method, {}).setdefault(name, []).append(value)


def repeated(
    title: str, child: Callable[..., Iterator[Any]], *arguments: Any, limits: Limits, repeats: int, progress: Progress
) -> Measured:
    """For each thing that the process yields the seconds of, those of every repeat; the first time, it compiles."""
    found: Measured = {}
    with in_process(title, child, *arguments, limits=limits) as ask:
        ask()
        for repeat in range(repeats):
            progress(repeat, repeats, f"{title}, repeat {repeat + 1}")
            for name, spent in ask().items():
                record(found, name, time_s=spent)
    return found


@dataclass(frozen=True)
class Memory:
    """Of this process or, on a GPU, of the allocators of the libraries in use."""

    device: str

    def reset(self) -> None:
        """Forgets the peak so far, where the system can (Linux); on a GPU each case has a process of its own."""
        if self.device == "cpu":
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def held(self) -> int | None:
        """Bytes in use now, where the system says it."""
        return self._on_gpu("bytes_in_use", "memory_allocated") if self.device == "gpu" else self._status("VmRSS")

    def peak(self) -> int:
        """The most bytes in use at once since `reset`."""
        if self.device == "gpu":
            return self._on_gpu("peak_bytes_in_use", "max_memory_allocated")
        # Without /proc it is macOS, which tells it in bytes.
        return self._status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def _status(self, name: str) -> int | None:
        path = Path("/proc/self/status")
        found = re.search(rf"^{name}:\s*(\d+) kB", path.read_text(), re.MULTILINE) if path.exists() else None
        return int(found[1]) * 1024 if found else None

    def _on_gpu(self, jax_name: str, torch_name: str) -> int:
        total = 0
        if "torch" in sys.modules:
            total += getattr(sys.modules["torch"].cuda, torch_name)()
        if "jax" in sys.modules:
            total += (sys.modules["jax"].devices()[0].memory_stats() or {}).get(jax_name, 0)
        return total


def _answer() -> None:
    """Runs what it is sent, and answers each line with what that yields next; what others print goes to stderr."""
    if CAN_PIN:
        os.sched_setaffinity(0, map(int, sys.argv[1:]))
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        child, limits, arguments = pickle.load(sys.stdin.buffer)
        results = child(limits, *arguments)
        for _ in sys.stdin.buffer:
            pickle.dump(next(results), replies)
            replies.flush()


if __name__ == "__main__":
    _answer()
