"""A process for each method: the same processors and threads for everyone, and its memory is measured.

`Process` is the benchmark's side, this module run with `-m` the method's. Nothing heavy is imported here, and a process
is pinned to its processors from its first moment: thread pools are sized when a library is imported.
"""

import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

Measured = dict[str, dict[str, list[float | None]]]
"""For each method and quantity what every repeat measured."""
Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and with a word."""
Handlers = Mapping[str, Callable[[], object]]
"""What a process answers to each word."""

# How a person tuned these libraries is not passed on: everyone starts from their defaults.
_TUNING = (
    *("ATEN_", "DNNL_", "GOMP_", "JAX_", "KMP_", "MALLOC_", "MKL_", "NVIDIA_TF32_"),
    *("OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TORCH", "TRITON_", "XLA_"),
)


class Failure(Exception):
    """A method broke down or is wrong: a sentence."""


def processors() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0)) if can_pin() else list(range(os.cpu_count() or 1))


def can_pin() -> bool:
    """Whether the system can keep a process to some processors."""
    return hasattr(os, "sched_setaffinity")


def left_behind() -> list[str]:
    """The environment's variables that methods do not get."""
    return sorted(name for name in os.environ if name.startswith(_TUNING))


@dataclass(frozen=True)
class Limits:
    """What a method's process may use."""

    threads: int
    device: str
    """cpu or gpu."""
    cache: Path
    """Where its compilers keep what they made."""


class Process:
    """A method in a process of its own: `ask` makes it do something and returns what it answers.

    Args:
        title: what a failure is told of.
        child: called there with `arguments`, which JSON can hold; it gives what answers each word.
        limits: what the process may use.
    """

    def __init__(self, title: str, child: Callable[..., Handlers], *arguments: Any, limits: Limits) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_TUNING)}
        for library in ("OMP", "OPENBLAS", "MKL"):
            environment[f"{library}_NUM_THREADS"] = str(limits.threads)
        # What compilers keep for the next process: a folder per process makes each start the first one.
        environment |= {
            "TORCHINDUCTOR_CACHE_DIR": str(limits.cache / "inductor"),
            "TRITON_CACHE_DIR": str(limits.cache / "triton"),
            "XDG_CACHE_HOME": str(limits.cache),
        }
        if limits.device == "cpu":
            environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        else:
            # PyTorch multiplies in full float32 unless told otherwise; JAX on a GPU does not.
            environment |= {"JAX_PLATFORMS": "cuda,cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # others are on the GPU too
        self._title = title
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed on exit)
        self.started = time.monotonic()
        """By the clock that all processes share."""
        with _pinned(processors()[-limits.threads :]):
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "recsys_jax_benchmark.process",
                    child.__module__,
                    child.__name__,
                    json.dumps(arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the end of its questions is the end of the process
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def ask(self, word: str) -> Any:
        """What the process answers. Raises `Failure` with its last words if it dies."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{word}\n".encode())
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()
            raise Failure(f"{self._title}: the process ended with status {status}\n{said[-4000:]}") from None


@contextmanager
def _pinned(to: list[int]) -> Iterator[None]:
    """What is started inside inherits these processors; other threads of this process keep theirs."""
    if not can_pin():
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def in_turns(methods: Sequence[str], repeats: int) -> Iterator[tuple[int, int, str]]:
    """The number, the repeat and the method of each measurement: everyone once per repeat, in an order that rotates."""
    for repeat in range(repeats):
        for turn in range(len(methods)):
            yield repeat * len(methods) + turn, repeat, methods[(repeat + turn) % len(methods)]


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def reset(device: str) -> None:
    """Forgets the peak so far, where the system can (Linux); on a GPU each case has a process of its own."""
    if device == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def held(device: str) -> int | None:
    """Bytes in use now: of the process, or on the GPU."""
    if device == "gpu":
        return _on_gpu("bytes_in_use", "memory_allocated")
    return _status("VmRSS")


def peak(device: str) -> int:
    """The most bytes in use at once since `reset`: of the process, or on the GPU."""
    if device == "gpu":
        return _on_gpu("peak_bytes_in_use", "max_memory_allocated")
    found = _status("VmHWM")
    if found is None:
        import resource

        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found


def _status(name: str) -> int | None:
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _on_gpu(jax_name: str, torch_name: str) -> int:
    """What the allocators of the libraries in use say."""
    total = 0
    if "torch" in sys.modules:
        import torch

        total += getattr(torch.cuda, torch_name)()
    if "jax" in sys.modules:
        import jax

        total += (jax.devices()[0].memory_stats() or {}).get(jax_name, 0)
    return total


def _serve(handlers: Handlers) -> None:
    """Answers each word with what its handler returns, until there are no more; what others print goes to stderr."""
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            pickle.dump(handlers[line.strip()](), replies)
            replies.flush()


if __name__ == "__main__":
    _serve(getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*json.loads(sys.argv[3])))
