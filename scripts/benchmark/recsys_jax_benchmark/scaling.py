"""Scaling curves: how time and memory grow with products, queries, dimensions and purchases."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.figure import Figure

from recsys_jax.data.files import replace_file
from recsys_jax_benchmark import scoring
from recsys_jax_benchmark.process import Limits, Measured, Process, Progress, peak, reset
from recsys_jax_benchmark.scoring import ONE, OURS, Case

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
    progress: Progress,
    *,
    curves: Sequence[Curve] = CURVES,
    purchases: Sequence[int] = PURCHASES,
) -> list[dict[str, Any]]:
    """The curves, as `draw` takes them.

    Each is `{"title", "x", "of", "methods": {name: {"x": [...], "time_s": [...], "peak_bytes": [...]}}}`: `x` says
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
    found: dict[tuple[str, Case], Measured] = {}
    for ours, cases in searches.items():
        methods = [name for name in (*OTHERS, ours) if limits.device == "cpu" or name in scoring.GPU_METHODS]
        measured = scoring.measure(cases, methods, repeats, limits, progress)
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
                "methods": {
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
    return [*drawn, {"title": "training", "x": "purchases", "of": "epoch", "methods": {OURS: line}}]


def _line(points: Sequence[tuple[int, Mapping[str, Sequence[float | None]]]]) -> dict[str, list[float]]:
    """The points (x, what was measured there) of one method, as columns."""

    def values(name: str, choose: Callable[[list[float]], float]) -> list[float]:
        return [choose([value for value in here[name] if value is not None]) for _, here in points]

    return {"x": [x for x, _ in points], "time_s": values("time_s", min), "peak_bytes": values("peak_bytes", max)}


def _trained(purchases: int, repeats: int, limits: Limits) -> tuple[int, dict[str, list[float | None]]]:
    """How many purchases there were, and the seconds of an epoch and bytes of a training on them."""
    with TemporaryDirectory(prefix="benchmark-scaling-") as folder:
        title = f"training on {purchases:,} purchases"
        with Process(title, child, folder, purchases, repeats, limits.device, limits=limits) as process:
            count, spent, most = process.ask("train")
    return count, {"time_s": spent, "peak_bytes": [most]}


def child(folder: str, purchases: int, repeats: int, device: str) -> dict[str, Callable[[], object]]:
    """A process of one training."""

    def train() -> tuple[int, list[float], int]:
        """How many purchases there are, seconds per epoch of each repeat, and bytes."""
        from recsys_jax import DeepConfig, fit, load_dataset
        from recsys_jax.console.terminal import share_processors
        from recsys_jax.synthetic.populations import MORE_PURCHASES, population, write_population

        config = DeepConfig(epochs=CALL * (1 + repeats))
        share_processors(config)
        customers = round(purchases / (1 + MORE_PURCHASES))
        write_population(population(customers, PRODUCTS, seed=0), Path(folder))
        dataset = load_dataset(folder)
        reset(device)  # what the data took to draw is not the training's
        marks: list[tuple[int, float]] = []
        fit(dataset, config, progress=lambda done, *_: marks.append((done, time.perf_counter())))
        spent = [(now - before) / (done - earlier) for (earlier, before), (done, now) in pairwise(marks)]
        return len(dataset.purchases), spent, peak(device)

    return {"train": train}


# The picture.

COLOURS = ("#e0803a", "#3f9b5a", "#c44e8a", "#8064b8")  # of the others
_COUNTS = {1e6: "M", 1e3: "k", 1.0: ""}
_TIMES = {1.0: " s", 1e-3: " ms", 1e-6: " µs"}
_BYTES = {1e9: " GB", 1e6: " MB"}


def _short(value: float, units: Mapping[float, str] = _COUNTS) -> str:
    """A number in the largest unit that leaves 1 or more.

    >>> _short(100_000), _short(8), _short(0.01, _TIMES), _short(2e9, _BYTES)
    ('100k', '8', '10 ms', '2 GB')
    """
    size = next((size for size in units if value >= 0.999 * size), min(units))
    return f"{value / size:.3g}{units[size]}"


def draw(path: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """A PNG of how time and memory grow, a column for each curve, on logarithmic axes.

    A curve has a `title`, `x` (what grows), `of` (what its seconds are of) and `methods`: by name the columns `x`,
    `time_s` and `peak_bytes`.
    """
    names = list(dict.fromkeys(name for curve in curves for name in curve["methods"]))
    others = [name for name in names if name != OURS]
    style: dict[str, dict[str, Any]] = {name: {"color": own} for name, own in zip(others, COLOURS, strict=False)}
    style[OURS] = {"color": "#2f6db5", "linewidth": 2.5, "zorder": 3}
    drawn: dict[str, Any] = {}
    figure = Figure(figsize=(9.6, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(curves), squeeze=False, sharex="col", sharey="row")
    for column, curve in enumerate(curves):
        upper, lower = panels[:, column]
        for name, line in curve["methods"].items():
            for axes, values in ((upper, "time_s"), (lower, "peak_bytes")):
                (drawn[name],) = axes.plot(line["x"], line[values], marker="o", markersize=4, **style[name])
        upper.set_title(f"{curve['title']}\ntime of one {curve['of']}", loc="left", fontsize=9)
        lower.set_xlabel(curve["x"], fontsize=9)
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
            axes.set(xscale="log", yscale="log", axisbelow=True)
            axes.grid(color="#e4e6ea")
            axes.minorticks_off()
            if max(line["x"]) < 1000:  # there may be one power of ten among them, or none
                axes.set_xticks(line["x"])
            axes.tick_params(labelsize=8)
            axes.xaxis.set_major_formatter(lambda value, _: _short(float(value)))
        upper.yaxis.set_major_formatter(lambda value, _: _short(value, _TIMES))
        lower.yaxis.set_major_formatter(lambda value, _: _short(value, _BYTES))
    panels[1, 0].set_ylabel("peak memory of the process", fontsize=8)
    figure.legend(drawn.values(), drawn, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    replace_file(path, lambda stream: figure.savefig(stream, format="png"))
