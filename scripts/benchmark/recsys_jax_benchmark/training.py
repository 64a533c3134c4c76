"""Training, measured: from a process's start to the saved model and once more, where a step's time goes, many seeds."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any, Literal

from recsys_jax_benchmark.process import Failure, Limits, Measured, Process, Progress, held, in_turns, peak, seconds

OURS = "recsys_jax"
COMMON = "PyTorch, as commonly written"
COMPILED = ("PyTorch, compiled step", "PyTorch, compiled epoch")
# How far a method's mean loss over its last epochs may lie from the common one's: the mean of its trainings, by as much
# as the parity test allows (without dropout it is .03), and each training alone.
TOLERANCE, EACH, LAST = 0.02, 0.05, 50
STEP, TURNS = "a step", 5000
ALONE, TOGETHER = "one model", "at once"


@dataclass(frozen=True)
class Job:
    """What one process trains on, and where it saves."""

    dataset: str
    products: str
    customers: str
    out: str
    epochs: int
    threads: int
    device: str
    seed: int = 0
    """Of the first training; the second one's is the next."""
    trainings: int = 2
    """How many trainings in one process."""

    def limits(self, cache: Path) -> Limits:
        """Of its process."""
        return Limits(self.threads, self.device, cache)

    @property
    def where(self) -> str:
        """The device as PyTorch calls it."""
        return "cuda" if self.device == "gpu" else "cpu"


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
    return which(os.environ.get("CXX", "clang++" if os.uname().sysname == "Darwin" else "g++"))


def _pytorch(job: Job, timings: Timings, *, compiled: Literal["common", "epoch", "step"] | None) -> None:
    import torch

    from recsys_jax_benchmark.pytorch import reference
    from recsys_jax_benchmark.pytorch.strongest import Strongest

    torch.set_num_threads(job.threads)
    customers, products = reference.read_rows(Path(job.customers)), reference.read_rows(Path(job.products))
    timings.held = held(job.device)
    strongest = None
    # In the common way nothing compiles, so that its one training is as fast as any later one.
    for seed in range(job.seed, job.seed + (1 if compiled == "common" else job.trainings)):
        with timings.training():
            if compiled == "common":
                model, losses = reference.train(customers, products, epochs=job.epochs, seed=seed, device=job.where)
            else:
                strongest = strongest or Strongest(customers, products, device=job.where, compiled=compiled)
                model, losses = strongest.train(epochs=job.epochs, seed=seed)
        timings.losses.append(losses)
        if seed == job.seed:
            reference.save(model, reference.brands(products), Path(job.out) / "model.pth")
            timings.saved(job.device)


def _ours(job: Job, timings: Timings) -> None:
    """What `recsys-jax train` does."""
    from recsys_jax import DeepConfig, fit, load_dataset, save_model
    from recsys_jax.console.terminal import keep_what_is_compiled, share_processors

    share_processors(DeepConfig())
    keep_what_is_compiled()
    dataset = load_dataset(job.dataset, job.customers)
    timings.held = held(job.device)
    for seed in range(job.seed, job.seed + job.trainings):
        with timings.training():
            model = fit(dataset, DeepConfig(epochs=job.epochs, seed=seed))
        timings.losses.append(model.losses.tolist())
        if seed == job.seed:
            save_model(model, Path(job.out))
            timings.saved(job.device)


METHODS: dict[str, Callable[[Job, Timings], None]] = {
    COMMON: partial(_pytorch, compiled="common"),
    "PyTorch, fastest, not compiled": partial(_pytorch, compiled=None),
    COMPILED[0]: partial(_pytorch, compiled="step"),
    COMPILED[1]: partial(_pytorch, compiled="epoch"),
    OURS: _ours,
}
# Whose compilers keep what they made: they run once more, as people's later runs do.
KEEPING = (*COMPILED, OURS)
QUANTITIES = (
    *("whole_process_s", "later_process_s", "steady_s", "compile_s"),
    *("final_loss", "peak_bytes", "peak_above_held_bytes"),
)


def measure(job: Job, methods: list[str], repeats: int, progress: Progress) -> Measured:
    """Seconds, losses and bytes of every repeat.

    Raises `Failure` as soon as the methods do not train to the same loss.

    Args:
        job: what all have in common; each process gets its seed, and a folder within `out`.
        methods: their names.
        repeats: how many processes each one gets.
        progress: called with how much is done.
    """
    found: Measured = {method: {name: [] for name in QUANTITIES} for method in methods}
    losses: dict[str, list[float]] = {method: [] for method in methods}
    for number, repeat, method in in_turns(methods, repeats):
        progress(number, repeats * len(methods), f"{method}, repeat {repeat + 1}")
        out = Path(job.out) / str(number)
        out.mkdir(parents=True)
        own = replace(job, out=str(out), seed=2 * repeat)
        whole, timings = _process(method, own)
        later, trained = whole, list(timings.losses)
        if method in KEEPING:  # whoever keeps nothing starts every time as the first time
            later, again = _process(method, replace(own, trainings=1))
            trained += again.losses
        losses[method] += [sum(curve[-LAST:]) / len(curve[-LAST:]) for curve in trained]
        first, steady = timings.seconds[0], timings.seconds[-1]
        above = None if timings.held is None else timings.peak - timings.held
        compiling = max(first - steady, 0.0) if len(timings.seconds) > 1 else None
        values = (whole, later, steady, compiling, losses[method][-1], timings.peak, above)
        for name, value in zip(QUANTITIES, values, strict=True):
            found[method][name].append(value)
        if number % len(methods) == len(methods) - 1:
            check(losses)
    return found


def _process(method: str, job: Job) -> tuple[float, Timings]:
    """Seconds from the start of a process to its saved model, and what it measured."""
    limits = job.limits(Path(job.out) / "cache")
    with Process(f"training, {method}", training_child, method, asdict(job), limits=limits) as process:
        timings = Timings(**process.ask("train"))
        return timings.saved_at - process.started, timings


def training_child(method: str, job: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """A method's process."""
    timings = Timings()

    def train() -> dict[str, Any]:
        METHODS[method](Job(**job), timings)
        return asdict(timings)

    return {"train": train}


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


# Many seeds.


def seeds(job: Job, count: int, repeats: int, progress: Progress) -> Measured:
    """Seconds that one model takes to train, and that `count` of them take at once, each without compiling."""
    found: Measured = {}
    for turn, (name, number) in enumerate(((ALONE, 1), (TOGETHER, count))):
        progress(turn, 2, name)
        limits = job.limits(Path(job.out).parent / f"cache, {name}")
        with Process(name, seeds_child, asdict(replace(job, trainings=number)), limits=limits) as process:
            process.ask("train")
            found[name] = {"time_s": [process.ask("train") for _ in range(repeats)]}
    return found


def seeds_child(job: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """A process that trains some seeds at once."""
    from recsys_jax import DeepConfig, fit, fit_seeds, load_dataset
    from recsys_jax.console.terminal import share_processors

    config, count = DeepConfig(epochs=job["epochs"]), job["trainings"]
    share_processors(config, count)
    dataset = load_dataset(job["dataset"], job["customers"])
    train = partial(fit, dataset, config) if count == 1 else partial(fit_seeds, dataset, config, range(count))
    return {"train": partial(seconds, train)}


# A step.


def steps(job: Job, repeats: int, progress: Progress) -> Measured:
    """Seconds a step, by part, in every repeat; all parts in one process, in turns."""
    found: Measured = {}
    limits = job.limits(Path(job.out).parent / "cache, step")
    with Process(STEP, steps_child, asdict(job), limits=limits) as process:
        process.ask("measure")  # compiles
        for repeat in range(repeats):
            progress(repeat, repeats, f"repeat {repeat + 1}")
            for part, spent in process.ask("measure").items():
                found.setdefault(part, {"time_s": []})["time_s"].append(spent)
    return found


def steps_child(job: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """The process that is measured: whole trainings, and parts of a step that can be run alone."""
    import numpy as np

    from recsys_jax import DeepConfig, fit, load_dataset
    from recsys_jax.console.terminal import share_processors

    config = DeepConfig(epochs=job["epochs"])
    share_processors(config)
    dataset = load_dataset(job["dataset"], job["customers"])
    count = config.epochs * -(-len(dataset.purchases) // config.batch_size)
    params = fit(dataset, replace(config, epochs=1)).variables["params"]
    towers = []
    for tower, rows in zip(params.values(), (1, 2), strict=True):
        first, second = tower["hidden"]["kernel"], tower["output"]["kernel"]
        towers.append((np.full((rows * config.batch_size, len(first)), 0.1, np.float32), first, second))
    trainings = {STEP: config, "without dropout": replace(config, dropout=0.0)}
    programs = {"matrix products alone": _products(towers), "Adam alone": _adam(params)}

    def measure() -> dict[str, float]:
        trained = {part: seconds(partial(fit, dataset, own)) / count for part, own in trainings.items()}
        return trained | {part: seconds(program) / TURNS for part, program in programs.items()}

    return {"measure": measure}


def _repeated(turn: Callable[[Any], Any], start: Any) -> Callable[[], Any]:
    """A program of many turns, each of what the last one left."""
    import jax

    run = jax.jit(lambda start: jax.lax.scan(lambda state, _: (turn(state), None), start, None, length=TURNS)[0])
    return lambda: jax.block_until_ready(run(start))  # type: ignore[no-untyped-call]


def _products(towers: Any) -> Callable[[], Any]:
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

    return _repeated(turn, towers)


def _adam(params: Any) -> Callable[[], Any]:
    """Adam on one vector of all parameters."""
    import optax
    from jax.flatten_util import ravel_pytree

    adam, (vector, _) = optax.adam(1e-3), ravel_pytree(params)

    def turn(state: Any) -> Any:
        vector, moments = state
        updates, moments = adam.update(vector, moments)
        return optax.apply_updates(vector, updates), moments

    return _repeated(turn, (vector, adam.init(vector)))
