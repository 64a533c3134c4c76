"""Pictures; each function writes one file, and beside it a list of the names in it that could not be drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys_jax.console.pictures.drawing import BLUE, FONT, GREY, Letters, label_rows, picture
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.values import as_key
from recsys_jax.evaluation.bootstrap import LEVEL, Interval
from recsys_jax.evaluation.engine import ALL, MODEL
from recsys_jax.evaluation.report import METRICS, Comparison, Report

FEW = 30  # of fewer purchases, a mean says little: such segments are shaded
MOST = 24  # segments in one picture, the largest
# Beside the model, by the beginning of a method's name.
_RIVALS = {
    "random": ("|", "#1d1d1f"),
    "popularity per": ("D", "#e0803a"),
    "popularity": ("o", "#a9afb9"),
    "naive Bayes": ("s", "#8064b8"),
}


def persona_distribution(path: Path, names: Sequence[str], counts: Sequence[int]) -> None:
    """A PNG with one bar per persona, in the order of their ids: how many reviews, and their share."""
    letters = Letters(names)
    with picture(path, letters, 7.2, 1.1 + 0.42 * len(names)) as (axes,):
        bars = axes.barh(range(len(names)), counts, color=BLUE, height=0.62)
        total = max(sum(counts), 1)
        axes.bar_label(bars, [f"{count:,}  ({count / total:.0%})" for count in counts], padding=4, fontsize=9)
        label_rows(axes, [letters.draw(name, f"persona {number}") for number, name in enumerate(names)])
        axes.set(xlim=(0, 1.2 * max(*counts, 1)), xlabel="reviews")
        axes.locator_params("x", integer=True)
        axes.set_title(f"Personas of {total:,} reviews", loc="left")


def silhouette_curve(path: Path, ks: Sequence[int], scores: Sequence[float], chosen: int) -> None:
    """A PNG with the mean silhouette of each number of clusters, the chosen one marked."""
    with picture(path, Letters(()), 7.2, 3.6) as (axes,):
        axes.plot(ks, scores, marker="o", color=GREY, linewidth=1.5, markersize=5)
        best = scores[list(ks).index(chosen)]
        axes.plot([chosen], [best], marker="o", color=BLUE, markersize=10, linestyle="none")
        axes.annotate(f"k = {chosen}: {best:.3f}", (chosen, best), (10, 6), textcoords="offset points", color=BLUE)
        axes.margins(x=0.08, y=0.18)
        axes.set(xticks=ks, xlabel="number of clusters k", ylabel="mean silhouette")
        axes.set_title("How well the reviews fall into k clusters (1 is best)", loc="left")
        axes.grid(axis="y", color="#e4e6ea")


def results_by_segment(path: Path, found: Report, k: int, numbers: Mapping[str, str], *, derived: bool = False) -> None:
    """A PNG with hit@k, and category hit@k where there are categories, of the model and of baselines, by segment.

    What has an interval in the report has one here. A row of panels is without the leak and one with it, where both
    were measured; where attributes were `derived` from the purchases asked for, what has the leak says so. `numbers`
    has a segment's number, as of `segment_numbers`.
    """
    panels = {"": found} if found.leak_free is None else {", without the leak": found.leak_free}
    if derived or found.leak_free is not None:
        panels[", with the leak"] = panels.pop("", found)
    metrics = [name for name in (f"hit@{k}", f"category_hit@{k}") if name in found.evaluation.metrics]
    word = found.evaluation.segment_word
    letters = Letters([word, *(name for one in panels.values() for name in (*one.evaluation.groups, *one.means))])
    # Folds that chose their number of personas have some that the dataset does not know.
    others = sorted({name for one in panels.values() for name in one.evaluation.queries} - {*numbers})
    numbers = {**numbers, **{name: str(number) for number, name in enumerate(others, len(numbers) + 1)}}
    word = letters.draw(word, "segment")
    heights = [0.9 + 0.36 * min(len(one.evaluation.groups), MOST + 1) for one in panels.values()]
    with picture(path, letters, 5.6 * len(metrics), 1.1 + sum(heights), heights, len(metrics)) as every:
        handles: dict[str, Any] = {}
        for number, (leak, one) in enumerate(panels.items()):
            row = every[number * len(metrics) : (number + 1) * len(metrics)]
            for axes, metric in zip(row, metrics, strict=True):
                handles |= _rows_of_groups(axes, one, metric, letters)
                axes.set_title(f"{metric.replace('_', ' ')}{leak}", loc="left", fontsize=10)
            shown = list(one.evaluation.queries.items())[: MOST + 1]
            labels = [letters.draw(name, f"{word} {numbers[name]}") for name, _ in shown]
            label_rows(row[0], [f"{label}  (n = {n:,})" for label, (_, n) in zip(labels, shown, strict=True)])
            for axes in row[1:]:
                axes.set_yticks([])
                axes.invert_yaxis()
        for place, axes in enumerate(every):  # one scale for what is compared
            axes.set_xlim(0, max(other.get_xlim()[1] for other in every[place % len(metrics) :: len(metrics)]))
        total = len(found.evaluation.groups) - 1
        title = f"Results by {word}, {found.evaluation.protocol}"
        title += f": the {MOST} largest of {total:,}" if total > MOST else ""
        if found.evaluation.split == "in-sample":
            title += "\nmemory: asked for what it was trained on"
        if ", with the leak" in panels:
            title += f"\nwith the leak: each {word} comes from the review of the very purchase asked for"
        figure = every[0].figure
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.legend(handles.values(), handles, loc="outside lower left", ncols=3, frameon=False, fontsize=9)


def _rows_of_groups(axes: Any, found: Report, metric: str, letters: Letters) -> dict[str, Any]:
    """Draws the figures of each group in a row of its own; what the legend says."""
    result = found.evaluation
    groups = dict(list(result.queries.items())[: MOST + 1])
    handles: dict[str, Any] = {}

    def drawn(interval: Interval, place: float, name: str, colour: str, marker: str, size: float, width: float) -> None:
        axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=width, solid_capstyle="butt")
        style = {"marker": marker, "markersize": size, "color": colour, "linestyle": "none", "clip_on": False}
        edge, above = (1.5, 4) if marker == "|" else (0, 3)
        (handles[name],) = axes.plot([interval.mean], [place], markeredgewidth=edge, zorder=above, **style)

    for place, (group, n) in enumerate(groups.items()):
        if n < FEW:
            axes.axhspan(place - 0.5, place + 0.5, color="#f1eee6", linewidth=0, zorder=0)
        own = found.means[MODEL][metric] if group == ALL else found.groups[group][metric]
        drawn(own, place - 0.14, f"model, with its {LEVEL:.0%} interval", BLUE, "o", 8, 2.5)
        for method in result.values:
            if (rival := next((name for name in _RIVALS if method.startswith(name)), None)) is not None:
                none = Interval(result.mean(method, metric, group), np.nan, np.nan, n)
                beside = found.means[method][metric] if group == ALL else none
                name, (marker, colour) = letters.draw(method, f"{rival} segment"), _RIVALS[rival]
                drawn(beside, place + 0.2, name, colour, marker, 9 if marker == "|" else 6, 1)
        if not np.isnan(own.mean):
            text = f"{own.mean:.1%}" if 0 < own.mean < 0.0995 else f"{own.mean:.0%}"
            at = np.nanmax([own.mean, own.high]), place - 0.14
            bold = {"fontsize": 8, "fontweight": "bold", "fontfamily": FONT}  # other fonts may have no bold face
            axes.annotate(text, at, (6, 0), textcoords="offset points", va="center", **bold)
    if any(n < FEW for n in groups.values()):
        name = f"shaded: n < {FEW}, too few to say much"
        handles[name] = axes.fill_between([], [], color="#f1eee6", linewidth=0)
    axes.axhline(0.5, color="#c5c9d0", linewidth=0.8)
    axes.set_ylim(-0.5, len(groups) - 0.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
    axes.grid(axis="x", color="#e9ebee")
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    return handles


def segment_numbers(dataset: Dataset) -> dict[str, str]:
    """By segment, the number that stands for it in all pictures where no font has the signs of its name.

    It is the id of a persona, `persona_id` beside `persona_name`; where each segment has not one of its own, its place
    among their sorted names, from 1.
    """
    names, column = dataset.segments or [], dataset.schema.customers.segment or ""
    ids = map(as_key, dataset.customers.columns.get(f"{column.removesuffix('_name')}_id", ()))
    known = {(name, key) for name, key in zip(names, ids, strict=False) if key is not None}
    if len(known) == len(set(names)) == len({name for name, _ in known}) == len({key for _, key in known}):
        return dict(known)
    return {name: str(number) for number, name in enumerate(sorted(set(names)), 1)}


def comparison_differences(path: Path, result: Comparison, title: str) -> None:
    """A PNG with each method's difference to the best in the metric that ranks, and its 95 % interval."""
    metric = METRICS[0]
    colours = {"the best": BLUE, "inside the noise": GREY, "worse": "#e0803a"}
    drawn: dict[str, Any] = {}
    letters = Letters([title, *(row.method for row in result.rows)])
    with picture(path, letters, 7.2, 1.5 + 0.36 * len(result.rows)) as (axes,):
        axes.axvline(0, color=BLUE, linewidth=1, zorder=1)
        for place, row in enumerate(result.rows):
            reading, found = row.reading(metric), row.minus_best.get(metric)
            mean, low, high = (found.mean, found.low, found.high) if found else (0.0, 0.0, 0.0)
            if not np.isnan(low):  # one customer alone has no interval
                axes.plot([low, high], [place, place], color=colours[reading], linewidth=2)
            (drawn[reading],) = axes.plot([mean], [place], "o", color=colours[reading], markersize=6)
        names = [letters.draw(row.method, f"method {rank}") for rank, row in enumerate(result.rows, 1)]
        means = [f"{row.means[metric].mean:.4f}" for row in result.rows]
        label_rows(axes, [f"{name}  {mean}" for name, mean in zip(names, means, strict=True)])
        axes.grid(axis="x", color="#e4e6ea")
        axes.set_xlabel(f"{metric.upper()} minus the best, with the 95 % interval, query by query")
        axes.set_title(title, loc="left", fontsize=10)
        axes.figure.legend(drawn.values(), drawn, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
