"""Training, measured: each contender in a fresh process, from its start to the saved model, and once more after that.

`measure` is the benchmark's side; run with `-m`, this is one contender's process.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any, Literal

from recsys_jax_benchmark.process import Failure, Limits, Process, held, peak, serve

__all__ = ["COMMON", "COMPILED", "CONTENDERS", "OURS", "Job", "Timings", "check", "compiler", "measure"]

OURS = "recsys_jax"
COMMON = "PyTorch, as commonly written"
COMPILED = ("PyTorch, compiled step", "PyTorch, compiled epoch")
# How far a contender's mean loss over its last epochs may lie from the common one's: the mean of its trainings, by as
# much as the parity test allows (without dropout it is .03), and each training alone.
TOLERANCE, ALONE, LAST = 0.02, 0.05, 50


@dataclass(frozen=True)
class Job:
    """One contender's process: what it trains on, and where it saves."""

    dataset: str
    products: str
    customers: str
    out: str
    epochs: int
    threads: int
    device: str
    contender: str = ""
    seed: int = 0
    """Of the first training; the second one's is the next."""
    trainings: int = 2
    """How many trainings in one process."""


@dataclass
class Timings:
    """What one process measured."""

    seconds: list[float] = field(default_factory=list)
    """Of each training alone: the first one compiles."""
    losses: list[list[float]] = field(default_factory=list)
    """Mean loss of each epoch, for each training."""
    saved_at: float = 0.0
    """When the first model was on disk, by the clock that all processes share."""
    held: int | None = None
    """Bytes in use before the first training: libraries and data."""
    peak: int = 0
    """The most bytes in use up to the first saved model."""

    @contextmanager
    def training(self) -> Iterator[None]:
        """Times one training."""
        began = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - began)

    def saved(self, device: str) -> None:
        """The first model is on disk."""
        self.saved_at, self.peak = time.monotonic(), peak(device)


def compiler() -> str | None:
    """The C++ compiler that torch.compile calls, where there is one."""
    return which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


def _common(job: Job, timings: Timings) -> None:
    """Nothing compiles, so its one training is as fast as any later one."""
    import torch

    from recsys_jax_benchmark import torch_reference as twin

    torch.set_num_threads(job.threads)
    customers, products = twin.read_rows(Path(job.customers)), twin.read_rows(Path(job.products))
    timings.held = held(job.device)
    device = "cuda" if job.device == "gpu" else "cpu"
    with timings.training():
        model, losses = twin.train(customers, products, epochs=job.epochs, seed=job.seed, device=device)
    timings.losses.append(losses)
    twin.save(model, twin.brands(products), Path(job.out) / "model.pth")
    timings.saved(job.device)


def _strongest(job: Job, timings: Timings, *, compiled: Literal["epoch", "step"] | None) -> None:
    import torch

    from recsys_jax_benchmark import torch_reference as twin
    from recsys_jax_benchmark import torch_strongest

    torch.set_num_threads(job.threads)
    customers, products = twin.read_rows(Path(job.customers)), twin.read_rows(Path(job.products))
    timings.held = held(job.device)
    device = "cuda" if job.device == "gpu" else "cpu"
    trainer = None
    for seed in range(job.seed, job.seed + job.trainings):
        with timings.training():
            trainer = trainer or torch_strongest.Strongest(customers, products, device=device, compiled=compiled)
            model, losses = trainer.train(epochs=job.epochs, seed=seed)
        timings.losses.append(losses)
        if seed == job.seed:
            twin.save(model, twin.brands(products), Path(job.out) / "model.pth")
            timings.saved(job.device)


def _ours(job: Job, timings: Timings) -> None:
    """The command that a person runs; the training inside it is timed as it calls it."""
    from recsys_jax import DeepConfig, TrainedModel, fit
    from recsys_jax.cli import train
    from recsys_jax.console.terminal import keep_what_is_compiled

    keep_what_is_compiled()

    def timed(*arguments: Any, **options: Any) -> TrainedModel:
        timings.held = timings.held or held(job.device)
        with timings.training():
            model = fit(*arguments, **options)
        timings.losses.append(model.losses.tolist())
        return model

    vars(train)["fit"] = timed
    for seed in range(job.seed, job.seed + job.trainings):
        config = DeepConfig(epochs=job.epochs, seed=seed)
        train.main(train.Options(Path(job.dataset), config, Path(job.out), Path(job.customers)))
        if seed == job.seed:
            timings.saved(job.device)


CONTENDERS: dict[str, Callable[[Job, Timings], None]] = {
    COMMON: _common,
    "PyTorch, fastest, not compiled": partial(_strongest, compiled=None),
    COMPILED[0]: partial(_strongest, compiled="step"),
    COMPILED[1]: partial(_strongest, compiled="epoch"),
    OURS: _ours,
}
# Whose compilers keep what they made: they run once more, as people's later runs do.
KEEPING = (*COMPILED, OURS)


def measure(
    job: Job, contenders: list[str], repeats: int, progress: Callable[..., None]
) -> dict[str, dict[str, list[float | None]]]:
    """Seconds, losses and bytes of every repeat; repeats are interleaved, and their order rotates.

    Raises `Failure` as soon as the contenders do not train to the same loss.

    Args:
        job: what all have in common; each process gets its contender, seed, and a folder within `out`.
        contenders: their names.
        repeats: how many processes each one gets.
        progress: called with how much is done, of how much, and with a word.
    """
    names = (
        "whole_process_s",
        "later_process_s",
        "steady_s",
        "compile_s",
        "final_loss",
        "peak_bytes",
        "peak_above_held_bytes",
    )
    found: dict[str, dict[str, list[float | None]]] = {
        contender: {name: [] for name in names} for contender in contenders
    }
    losses: dict[str, list[float]] = {contender: [] for contender in contenders}
    for repeat in range(repeats):
        for turn in range(len(contenders)):
            contender = contenders[(repeat + turn) % len(contenders)]
            progress(repeat * len(contenders) + turn, repeats * len(contenders), f"{contender}, repeat {repeat + 1}")
            out = Path(job.out) / f"{repeat}-{turn}"
            out.mkdir(parents=True)
            own = replace(job, contender=contender, out=str(out), seed=2 * repeat)
            limits = Limits(job.threads, job.device, cache=out / "cache")
            whole, timings = _process(own, limits)
            later, trained = whole, list(timings.losses)
            if contender in KEEPING:  # whoever keeps nothing starts every time as the first time
                later, again = _process(replace(own, trainings=1), limits)
                trained += again.losses
            losses[contender] += [sum(curve[-LAST:]) / len(curve[-LAST:]) for curve in trained]
            first, steady = timings.seconds[0], timings.seconds[-1]
            above = None if timings.held is None else timings.peak - timings.held
            compiling = max(first - steady, 0.0) if len(timings.seconds) > 1 else None
            values = (whole, later, steady, compiling, losses[contender][-1], timings.peak, above)
            for name, value in zip(names, values, strict=True):
                found[contender][name].append(value)
        check(losses)
    return found


def _process(job: Job, limits: Limits) -> tuple[float, Timings]:
    """Seconds from the start of a process to its saved model, and what it measured."""
    with Process(
        f"training, {job.contender}", "recsys_jax_benchmark.training", json.dumps(asdict(job)), limits=limits
    ) as process:
        timings = Timings(**process.ask("train"))
        return timings.saved_at - process.started, timings


def check(losses: dict[str, list[float]]) -> None:
    """Raises `Failure` unless everyone's final losses are those of the common contender, within the tolerances."""
    common = losses[COMMON]
    reference = sum(common) / len(common)
    for contender, own in losses.items():
        mean = sum(own) / len(own)
        # Written so that NaN is refused too.
        if not (abs(mean - reference) <= TOLERANCE and all(abs(loss - reference) <= ALONE for loss in own)):
            raise Failure(
                f"training: {contender} ends at losses {', '.join(f'{loss:.4f}' for loss in own)}, {COMMON} at "
                f"{reference:.4f}; times are compared only where the mean lies within {TOLERANCE:g} of it, and each "
                f"training within {ALONE:g}"
            )


def _child() -> None:
    job, timings = Job(**json.loads(sys.argv[1])), Timings()

    def train() -> dict[str, Any]:
        CONTENDERS[job.contender](job, timings)
        return asdict(timings)

    serve({"train": train})


if __name__ == "__main__":
    _child()
