"""Scaling curves: how time and memory grow with products, queries, dimensions and purchases.

`measure` is the benchmark's side; run with `-m`, this is one training's process. Searches are those of
`scoring`, checked there.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recsys_jax_benchmark import scoring
from recsys_jax_benchmark.process import Limits, Process, peak, reset, serve
from recsys_jax_benchmark.scoring import ONE, OURS, Case

__all__ = ["CURVES", "PURCHASES", "Curve", "measure"]

OTHERS = ("PyTorch", "Faiss flat")
# A training knows so many products. How many hardly matters to a step.
PRODUCTS = 1_000
# As many epochs as one call of a compiled training holds: the first call compiles, each later one is a measurement.
CALL = 13


@dataclass(frozen=True)
class Curve:
    """Searches that differ in one number."""

    title: str
    x: str
    """The field of `Case` that differs."""
    cases: tuple[Case, ...]
    ours: str = OURS


CURVES = (
    Curve("256 customers", "products", tuple(Case(256, 10**n) for n in (3, 4, 5, 6))),
    Curve("100,000 products", "queries", tuple(Case(4**n, 100_000) for n in (0, 2, 3, 4, 5, 6))),
    Curve("256 × 100,000", "dimensions", tuple(Case(256, 100_000, dimensions=2**n) for n in range(3, 9))),
    Curve("one customer", "products", tuple(Case(1, 10**n) for n in (2, 3, 4, 5, 6)), ONE),
)
# How many there are of each training, nearly: the data are drawn.
PURCHASES = (1_000, 3_000, 10_000, 30_000, 100_000)


def measure(
    repeats: int,
    limits: Limits,
    progress: Callable[..., None],
    *,
    curves: Sequence[Curve] = CURVES,
    purchases: Sequence[int] = PURCHASES,
) -> list[dict[str, Any]]:
    """The curves, in the form that `recsys_jax.evaluation.plots.scaling` draws.

    Each is `{"title", "x", "of", "contenders": {name: {"x": [...], "time_s": [...], "peak_bytes": [...]}}}`: `x` says
    what grows, `of` what the seconds are of. Times are the least of the repeats; memory is the peak of the process.

    Args:
        repeats: how often each point is measured.
        limits: of each process.
        progress: called with how much is done, of how much, and with a word.
        curves: searches.
        purchases: sizes of trainings.
    """
    # A case that lies on several curves is measured once.
    searches: dict[str, list[Case]] = {}
    for curve in curves:
        listed = searches.setdefault(curve.ours, [])
        listed += [case for case in curve.cases if case not in listed]
    found: dict[tuple[str, Case], dict[str, dict[str, list[float | None]]]] = {}
    for ours, cases in searches.items():
        contenders = [name for name in (*OTHERS, ours) if limits.device == "cpu" or name in scoring.GPU_CONTENDERS]
        measured = scoring.measure(cases, contenders, repeats, limits, progress)
        found |= {(ours, case): points for case, points in zip(cases, measured, strict=True)}
    drawn = []
    for curve in curves:
        points = [(getattr(case, curve.x), found[curve.ours, case]) for case in curve.cases]
        names = dict.fromkeys(name for _, here in points for name in here)
        drawn.append(
            {
                "title": curve.title,
                "x": curve.x,
                "of": "search",
                "contenders": {
                    OURS if name == curve.ours else name: _line([(x, here[name]) for x, here in points if name in here])
                    for name in names
                },
            }
        )
    trainings = []
    for number, count in enumerate(purchases):
        progress(number, len(purchases), f"training on {count:,} purchases")
        trainings.append(_trained(count, repeats, limits))
    line = _line(trainings)
    return [*drawn, {"title": "training", "x": "purchases", "of": "epoch", "contenders": {OURS: line}}]


def _line(points: Sequence[tuple[int, Mapping[str, Sequence[float | None]]]]) -> dict[str, list[float]]:
    """The points (x, what was measured there) of one contender, as columns."""

    def values(name: str, choose: Callable[[list[float]], float]) -> list[float]:
        return [choose([value for value in here[name] if value is not None]) for _, here in points]

    return {"x": [x for x, _ in points], "time_s": values("time_s", min), "peak_bytes": values("peak_bytes", max)}


def _trained(purchases: int, repeats: int, limits: Limits) -> tuple[int, dict[str, list[float | None]]]:
    """How many purchases there were, and the seconds of an epoch and bytes of a training on them."""
    with TemporaryDirectory(prefix="benchmark-scaling-") as folder:
        job = json.dumps([folder, purchases, repeats, limits.device])
        with Process(
            f"training on {purchases:,} purchases", "recsys_jax_benchmark.scaling", job, limits=limits
        ) as process:
            process.ask("prepare")
            count, seconds, most = process.ask("train")
    return count, {"time_s": seconds, "peak_bytes": [most]}


class _Child:
    """One training."""

    def __init__(self, folder: str, purchases: int, repeats: int, device: str) -> None:
        self._folder, self._purchases, self._repeats, self._device = Path(folder), purchases, repeats, device

    def prepare(self) -> None:
        """Draws the data and reads them, as a script would."""
        from recsys_jax import load_dataset
        from recsys_jax.synthetic.populations import MORE_PURCHASES, population, write_population

        customers = round(self._purchases / (1 + MORE_PURCHASES))
        write_population(population(customers, PRODUCTS, seed=0), self._folder)
        self._dataset = load_dataset(self._folder)
        reset(self._device)  # what the data took to draw is not the training's

    def train(self) -> tuple[int, list[float], int]:
        """How many purchases there are, seconds per epoch of each repeat, and bytes."""
        from recsys_jax import DeepConfig, fit
        from recsys_jax.console.terminal import share_processors

        config = DeepConfig(epochs=CALL * (1 + self._repeats))
        share_processors(config)
        marks: list[tuple[int, float]] = []
        fit(self._dataset, config, progress=lambda done, _: marks.append((done, time.perf_counter())))
        seconds = [(now - before) / (done - earlier) for (earlier, before), (done, now) in pairwise(marks)]
        return len(self._dataset.purchases), seconds, peak(self._device)


if __name__ == "__main__":
    child = _Child(*json.loads(sys.argv[1]))
    serve({"prepare": child.prepare, "train": child.train})
