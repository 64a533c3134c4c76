"""Where the time of a training step goes: the whole, and parts of it that can be run alone.

`measure` is the benchmark's side; run with `-m`, this is the process that is measured.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from recsys_jax_benchmark.process import Limits, Process, serve
from recsys_jax_benchmark.training import Job

__all__ = ["WHOLE", "measure"]

WHOLE, TURNS = "a step", 5000
LAYERS = ("hidden", "output")


def measure(job: Job, repeats: int, progress: Callable[..., None]) -> dict[str, dict[str, list[float | None]]]:
    """Seconds a step, by part, in every repeat; all parts in one process, in turns."""
    limits = Limits(job.threads, job.device, cache=Path(job.out).parent / "cache, step")
    found: dict[str, dict[str, list[float | None]]] = {}
    with Process("a step", "recsys_jax_benchmark.step", json.dumps(asdict(job)), limits=limits) as process:
        process.ask("measure")  # compiles
        for repeat in range(repeats):
            progress(repeat, repeats, f"repeat {repeat + 1}")
            for part, seconds in process.ask("measure").items():
                found.setdefault(part, {"time_s": []})["time_s"].append(seconds)
    return found


def _child() -> None:
    job = Job(**json.loads(sys.argv[1]))
    from recsys_jax import DeepConfig, fit, load_dataset
    from recsys_jax.console.terminal import share_processors

    config = DeepConfig(epochs=job.epochs)
    share_processors(config)
    dataset = load_dataset(job.dataset, job.customers)
    steps = config.epochs * -(-len(dataset.purchases) // config.batch_size)
    model = fit(dataset, replace(config, epochs=1))
    towers = [
        (_full(rows * config.batch_size, tower["hidden"]["kernel"].shape[0]), *(tower[x]["kernel"] for x in LAYERS))
        for tower, rows in zip(model.variables["params"].values(), (1, 2), strict=True)
    ]
    trainings = {WHOLE: config, "without dropout": replace(config, dropout=0.0)}
    programs = {"matrix products alone": _products(towers), "Adam alone": _adam(model.variables["params"])}

    def measure() -> dict[str, float]:
        trained = {part: _seconds(partial(fit, dataset, own)) / steps for part, own in trainings.items()}
        return trained | {part: _seconds(program) / TURNS for part, program in programs.items()}

    serve({"measure": measure})


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _full(*shape: int) -> Any:
    import numpy as np

    return np.full(shape, 0.1, np.float32)


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


if __name__ == "__main__":
    _child()
