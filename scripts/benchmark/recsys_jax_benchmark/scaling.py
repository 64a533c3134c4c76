"""Scaling curves: how time and memory grow with products, queries, dimensions and purchases."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from recsys_jax.data.files import replace_file
from recsys_jax_benchmark import scoring
from recsys_jax_benchmark.process import OURS, Limits, Measured, Memory, Progress, in_process
from recsys_jax_benchmark.scoring import ONE, Case

OTHERS = ("PyTorch", "Faiss flat")
# A training knows so many products. How many hardly matters to a step.
PRODUCTS = 1_000
# As many epochs as one call of a compiled training holds: the first call compiles, each later one is a measurement.
CALL = 13


@dataclass(frozen=True)
class Curve:
    """Searches that differ in one number."""

    title: str
    x: str  # the field of `Case` that differs
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
    progress: Progress,
    *,
    curves: Sequence[Curve] = CURVES,
    purchases: Sequence[int] = PURCHASES,
) -> list[dict[str, Any]]:
    """The curves, as `draw` takes them.

    Each is `{"title", "x", "of", "methods": {name: {"x": [...], "time_s": [...], "peak_bytes": [...]}}}`: `x` says
    what grows, `of` what the seconds are of. Times are the least of the repeats; memory is the peak of the process.
    """
    found: dict[tuple[str, Case], Measured] = {}
    for ours in dict.fromkeys(curve.ours for curve in curves):
        # A case that lies on several curves is measured once.
        cases = list(dict.fromkeys(case for curve in curves if curve.ours == ours for case in curve.cases))
        methods = [name for name in (*OTHERS, ours) if limits.device == "cpu" or name in scoring.GPU_METHODS]
        measured = scoring.measure(cases, methods, repeats, limits, progress)
        found |= {(ours, case): points for case, points in zip(cases, measured, strict=True)}
    drawn = []
    for curve in curves:
        lines: dict[str, Any] = {}
        for case in curve.cases:
            for name, here in found[curve.ours, case].items():
                _extend(lines, OURS if name == curve.ours else name, getattr(case, curve.x), here)
        drawn.append({"title": curve.title, "x": curve.x, "of": "search", "methods": lines})
    line: dict[str, Any] = {}
    for number, count in enumerate(purchases):
        progress(number, len(purchases), f"training on {count:,} purchases")
        _extend(line, OURS, *_trained(count, repeats, limits))
    return [*drawn, {"title": "training", "x": "purchases", "of": "epoch", "methods": line}]


def _extend(lines: dict[str, Any], name: str, x: int, measured: Mapping[str, Sequence[Any]]) -> None:
    """Adds a point to the line of a method."""
    line = lines.setdefault(name, {"x": [], "time_s": [], "peak_bytes": []})
    line["x"].append(x)
    line["time_s"].append(min(measured["time_s"]))
    line["peak_bytes"].append(max(measured["peak_bytes"]))


def _trained(purchases: int, repeats: int, limits: Limits) -> tuple[int, dict[str, list[Any]]]:
    """How many purchases there were, and the seconds of an epoch and bytes of a training on them."""
    with TemporaryDirectory(prefix="benchmark-scaling-") as folder:
        title = f"training on {purchases:,} purchases"
        with in_process(title, train, Path(folder), purchases, repeats, limits=limits) as ask:
            count, spent, most = ask()
    return count, {"time_s": spent, "peak_bytes": [most]}


def train(limits: Limits, folder: Path, purchases: int, repeats: int) -> Iterator[tuple[int, list[float], int]]:
    """A process of one training: how many purchases there are, seconds per epoch of each repeat, and bytes."""
    from recsys_jax import DeepConfig, fit, load_dataset
    from recsys_jax.console.terminal import share_processors
    from recsys_jax.synthetic.populations import MORE_PURCHASES, population, write_population

    config = DeepConfig(epochs=CALL * (1 + repeats))
    share_processors(config)
    customers = round(purchases / (1 + MORE_PURCHASES))
    write_population(population(customers, PRODUCTS, seed=0), folder)
    dataset = load_dataset(folder)
    memory = Memory(limits.device)
    memory.reset()  # what the data took to draw is not the training's
    marks: list[tuple[int, float]] = []
    fit(dataset, config, progress=lambda done, *_: marks.append((done, time.perf_counter())))
    spent = [(now - before) / (done - earlier) for (earlier, before), (done, now) in pairwise(marks)]
    yield len(dataset.purchases), spent, memory.peak()


COLOURS = ("#e0803a", "#3f9b5a", "#c44e8a", "#8064b8")  # of the others


def draw(path: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """A PNG of how time and memory grow, a column for each curve of `measure`, on logarithmic axes."""
    names = list(dict.fromkeys(name for curve in curves for name in curve["methods"]))
    others = [name for name in names if name != OURS]
    style: dict[str, dict[str, Any]] = {name: {"color": own} for name, own in zip(others, COLOURS, strict=False)}
    style[OURS] = {"color": "#2f6db5", "linewidth": 2.5, "zorder": 3}
    drawn: dict[str, Any] = {}
    figure = Figure(figsize=(9.6, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(curves), squeeze=False, sharex="col", sharey="row")
    for column, curve in enumerate(curves):
        upper, lower = panels[:, column]
        upper.set_title(f"{curve['title']}\ntime of one {curve['of']}", loc="left", fontsize=9)
        lower.set_xlabel(curve["x"], fontsize=9)
        for axes, values, unit in ((upper, "time_s", "s"), (lower, "peak_bytes", "B")):
            for name, line in curve["methods"].items():
                (drawn[name],) = axes.plot(line["x"], line[values], marker="o", markersize=4, **style[name])
            axes.spines[["top", "right"]].set_visible(False)
            axes.set(xscale="log", yscale="log", axisbelow=True)
            axes.grid(color="#e4e6ea")
            axes.minorticks_off()
            if max(line["x"]) < 1000:  # there may be one power of ten among them, or none
                axes.set_xticks(line["x"])
            axes.tick_params(labelsize=8)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_major_formatter(EngFormatter(unit))
    panels[1, 0].set_ylabel("peak memory of the process", fontsize=8)
    figure.legend(drawn.values(), drawn, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    replace_file(path, lambda stream: figure.savefig(stream, format="png"))
