"""Training, measured: from a process's start to the saved model and once more, where a step's time goes, many seeds."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from shutil import which
from typing import Any, Literal, NamedTuple

from recsys_jax_benchmark.process import OURS, Failure, Limits, Measured, Memory, Progress, in_process, in_turns, record

COMMON = "PyTorch, as commonly written"
COMPILED = ("PyTorch, compiled step", "PyTorch, compiled epoch")
# How far a method's mean loss over its last epochs may lie from the common one's: the mean of its trainings, by as much
# as the parity test allows (without dropout it is .03), and each training alone.
TOLERANCE, EACH, LAST = 0.02, 0.05, 50
STEP, TURNS = "a step", 5000
ALONE, TOGETHER = "one model", "at once"


@dataclass(frozen=True)
class Job:
    """What everyone trains on."""

    dataset: Path
    products: Path
    customers: Path
    epochs: int


class Trained(NamedTuple):
    """One training."""

    seconds: float
    losses: list[float]  # the mean loss of each epoch
    at: float  # when the model was trained, and the first one saved, by the clock that all processes share
    peak: int  # the most bytes in use until then


# What trains with a seed and returns the model and its losses, and what saves the model to a folder.
Training = tuple[Callable[[int], tuple[Any, list[float]]], Callable[[Any, Path], object]]


def compiler() -> str | None:
    """The C++ compiler that torch.compile calls, where there is one."""
    return which(os.environ.get("CXX", "clang++" if os.uname().sysname == "Darwin" else "g++"))


def _pytorch(job: Job, limits: Limits, *, compiled: Literal["common", "epoch", "step"] | None) -> Training:
    import torch

    from recsys_jax_benchmark.pytorch import reference
    from recsys_jax_benchmark.pytorch.strongest import Strongest

    torch.set_num_threads(limits.threads)
    customers, products = reference.read_rows(job.customers), reference.read_rows(job.products)
    device = limits.torch_device

    @cache  # what the first training prepares serves the later ones
    def strongest() -> Strongest:
        return Strongest(customers, products, device=device, compiled=None if compiled == "common" else compiled)

    def train(seed: int) -> tuple[Any, list[float]]:
        if compiled == "common":
            return reference.train(customers, products, epochs=job.epochs, seed=seed, device=device)
        return strongest().train(epochs=job.epochs, seed=seed)

    return train, lambda model, out: reference.save(model, reference.brands(products), out / "model.pth")


def _ours(job: Job, limits: Limits) -> Training:
    """What `recsys-jax train` does."""
    from recsys_jax import DeepConfig, fit, load_dataset, save_model
    from recsys_jax.console.terminal import keep_what_is_compiled, share_processors

    share_processors(DeepConfig())
    keep_what_is_compiled()
    dataset = load_dataset(job.dataset, job.customers)

    def train(seed: int) -> tuple[Any, list[float]]:
        model = fit(dataset, DeepConfig(epochs=job.epochs, seed=seed))
        return model, model.losses.tolist()

    return train, save_model


METHODS: dict[str, Callable[[Job, Limits], Training]] = {
    COMMON: partial(_pytorch, compiled="common"),
    "PyTorch, fastest, not compiled": partial(_pytorch, compiled=None),
    COMPILED[0]: partial(_pytorch, compiled="step"),
    COMPILED[1]: partial(_pytorch, compiled="epoch"),
    OURS: _ours,
}
# Whose compilers keep what they made: they run once more, as people's later runs do.
KEEPING = (*COMPILED, OURS)


def measure(job: Job, methods: list[str], repeats: int, limits: Limits, folder: Path, progress: Progress) -> Measured:
    """Seconds, losses and bytes of every repeat, each in a process with a folder of its own within `folder`.

    Raises `Failure` as soon as the methods do not train to the same loss.
    """
    found: Measured = {}
    losses: dict[str, list[float]] = {method: [] for method in methods}
    for number, repeat, method in in_turns(methods, repeats):
        progress(number, repeats * len(methods), f"{method}, repeat {repeat + 1}")
        out = folder / str(number)
        out.mkdir(parents=True)
        # In the common way nothing compiles, so that its one training is as fast as any later one.
        seeds = [2 * repeat] if method == COMMON else [2 * repeat, 2 * repeat + 1]
        whole, trained = _process(method, job, seeds, limits, out)
        first, last = trained[0], trained[-1]
        later = whole
        if method in KEEPING:  # whoever keeps nothing starts every time as the first time
            later, again = _process(method, job, seeds[:1], limits, out)
            trained += again
        losses[method] += [sum(one.losses[-LAST:]) / len(one.losses[-LAST:]) for one in trained]
        record(
            found,
            method,
            whole_process_s=whole,
            later_process_s=later,
            steady_s=last.seconds,
            compile_s=max(first.seconds - last.seconds, 0.0) if len(seeds) > 1 else None,
            final_loss=losses[method][-1],
            peak_bytes=first.peak,
        )
        if number % len(methods) == len(methods) - 1:
            check(losses)
    return found


def _process(method: str, job: Job, seeds: list[int], limits: Limits, out: Path) -> tuple[float, list[Trained]]:
    """Seconds from the start of a process to its first model on disk, and all its trainings."""
    began = time.monotonic()
    limits = replace(limits, cache=out / "cache")
    with in_process(f"training, {method}", train, method, job, seeds, out, limits=limits) as ask:
        trained: list[Trained] = [ask() for _ in seeds]
    return trained[0].at - began, trained


def train(limits: Limits, method: str, job: Job, seeds: list[int], out: Path) -> Iterator[Trained]:
    """A method's process: trains with each seed, and saves the first model."""
    fit, save = METHODS[method](job, limits)
    for seed in seeds:
        began = time.perf_counter()
        model, losses = fit(seed)
        spent = time.perf_counter() - began
        if seed == seeds[0]:
            save(model, out)
        yield Trained(spent, losses, time.monotonic(), Memory(limits.device).peak())


def check(losses: Mapping[str, list[float]]) -> None:
    """Raises `Failure` unless everyone's final losses are those of the common method, within the tolerances."""
    reference = sum(losses[COMMON]) / len(losses[COMMON])
    for method, own in losses.items():
        mean = sum(own) / len(own)
        # Written so that NaN is refused too.
        if not (abs(mean - reference) <= TOLERANCE and all(abs(loss - reference) <= EACH for loss in own)):
            raise Failure(
                f"training: {method} ends at losses {', '.join(f'{loss:.4f}' for loss in own)}, {COMMON} at "
                f"{reference:.4f}; times are compared only where the mean lies within {TOLERANCE:g} of it, and each "
                f"training within {EACH:g}"
            )


# Many seeds, and parts of a step.


def timed(run: Callable[[], object]) -> float:
    """How many seconds it takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def train_together(limits: Limits, job: Job, count: int) -> Iterator[dict[str, float]]:
    """A process that trains one model or some at once: the seconds that it takes, again and again."""
    from recsys_jax import DeepConfig, fit, fit_seeds, load_dataset
    from recsys_jax.console.terminal import share_processors

    config = DeepConfig(epochs=job.epochs)
    share_processors(config, count)
    dataset = load_dataset(job.dataset, job.customers)
    while True:
        if count == 1:
            yield {ALONE: timed(lambda: fit(dataset, config))}
        else:
            yield {TOGETHER: timed(lambda: fit_seeds(dataset, config, range(count)))}


def take_steps(limits: Limits, job: Job, turns: int) -> Iterator[dict[str, float]]:
    """A process of whole trainings, and of parts of a step that can be run alone: seconds a step, again and again.

    Of a part as many `turns` are timed at once.
    """
    import numpy as np

    from recsys_jax import DeepConfig, fit, load_dataset
    from recsys_jax.console.terminal import share_processors

    config = DeepConfig(epochs=job.epochs)
    share_processors(config)
    dataset = load_dataset(job.dataset, job.customers)
    count = config.epochs * -(-len(dataset.purchases) // config.batch_size)
    params = fit(dataset, replace(config, epochs=1)).variables["params"]
    towers = []
    for tower, rows in zip(params.values(), (1, 2), strict=True):
        first, second = (tower["deep"][layer]["kernel"] for layer in ("hidden", "output"))
        towers.append((np.full((rows * config.batch_size, len(first)), 0.1, np.float32), first, second))
    trainings = {STEP: config, "without dropout": replace(config, dropout=0.0)}
    programs = {"matrix products alone": _products(towers, turns), "Adam alone": _adam(params, turns)}
    while True:
        trained = {part: timed(partial(fit, dataset, own)) / count for part, own in trainings.items()}
        yield trained | {part: timed(program) / turns for part, program in programs.items()}


def _repeated(turn: Callable[[Any], Any], start: Any, turns: int) -> Callable[[], Any]:
    """A program of many turns, each of what the last one left."""
    import jax

    run = jax.jit(lambda start: jax.lax.scan(lambda state, _: (turn(state), None), start, None, length=turns)[0])
    return lambda: jax.block_until_ready(run(start))  # type: ignore[no-untyped-call]


def _products(towers: Any, turns: int) -> Callable[[], Any]:
    """For each tower two products forward, and for each of these two backward; no turn can do without the last."""

    def turn(towers: Any) -> Any:
        out = []
        for x, first, second in towers:
            units = x @ first  # (n, i) . (i, h) -> (n, h)
            y = units @ second  # (n, h) . (h, o) -> (n, o)
            slope = y @ second.T  # (n, o) . (o, h) -> (n, h)
            changes = slope @ first.T, x.T @ slope, units.T @ y
            out.append(tuple(old - 1e-9 * change for old, change in zip((x, first, second), changes, strict=True)))
        return out

    return _repeated(turn, towers, turns)


def _adam(params: Any, turns: int) -> Callable[[], Any]:
    """Adam on one vector of all parameters."""
    import optax
    from jax.flatten_util import ravel_pytree

    adam, (vector, _) = optax.adam(1e-3), ravel_pytree(params)

    def turn(state: Any) -> Any:
        vector, moments = state
        updates, moments = adam.update(vector, moments)
        return optax.apply_updates(vector, updates), moments

    return _repeated(turn, (vector, adam.init(vector)), turns)
