"""Pictures; each function writes one file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.files import replace_file
from recsys_jax.evaluation.engine import Evaluation
from recsys_jax.evaluation.report import METRICS, Comparison
from recsys_jax.models.trained import TrainedModel

_BLUE, _GREY = "#2f6db5", "#8a8f98"
# By the beginning of a method's name. The model whose attributes are shuffled is a control, not a rival: no bar.
_METHODS = {
    "model,": None,
    "model": _BLUE,
    "naive Bayes": "#8064b8",
    "popularity per": "#e0a458",
    "popularity": "#c9ced6",
    "random": _GREY,
}
_COLOURS = ("#2f6db5", "#e0803a", "#3f9b5a", "#c44e8a", "#8064b8", "#a0782d", "#2aa5b3", "#7d8794")
# Other colours than the customers', so that nobody takes a category for a persona.
_PRODUCT_COLOURS = ("#1d1d1f", "#e3242b", "#00bcd4", "#f5c518", "#ffffff", "#7b4b2a", "#ff8ad8", "#9be564")
_MARKERS = ("s", "^", "D", "P", "X", "v", "*", "p")


def persona_distribution(path: Path, names: Sequence[str], counts: Sequence[int]) -> None:
    """A PNG with one bar per persona: how many reviews, and their share."""
    with _picture(path, 7.2, 1.1 + 0.42 * len(names)) as (axes,):
        bars = axes.barh(range(len(names)), counts, color=_BLUE, height=0.62)
        total = max(sum(counts), 1)
        axes.bar_label(bars, [f"{count:,}  ({count / total:.0%})" for count in counts], padding=4, fontsize=9)
        _label_rows(axes, [_drawable(name, number) for number, name in enumerate(names)])
        axes.set(xlim=(0, 1.2 * max(*counts, 1)), xlabel="reviews")
        axes.set_title(f"Personas of {total:,} reviews", loc="left")


def silhouette_curve(path: Path, ks: Sequence[int], scores: Sequence[float], chosen: int) -> None:
    """A PNG with the mean silhouette of each number of clusters, the chosen one marked."""
    with _picture(path, 7.2, 3.6) as (axes,):
        axes.plot(ks, scores, marker="o", color=_GREY, linewidth=1.5, markersize=5)
        best = scores[list(ks).index(chosen)]
        axes.plot([chosen], [best], marker="o", color=_BLUE, markersize=10, linestyle="none")
        axes.annotate(f"k = {chosen}: {best:.3f}", (chosen, best), (10, 6), textcoords="offset points", color=_BLUE)
        axes.margins(x=0.08, y=0.18)
        axes.set(xticks=ks, xlabel="number of clusters k", ylabel="mean silhouette")
        axes.set_title("How well the reviews fall into k clusters (1 is best)", loc="left")
        axes.grid(axis="y", color="#e4e6ea")


def results_by_segment(path: Path, result: Evaluation, k: int) -> None:
    """A PNG with hit@k, and category hit@k where there are categories: the model next to chance and popularity."""
    shown = [name for name in (f"hit@{k}", f"category_hit@{k}") if name in result.metrics]
    groups = dict(list(result.queries.items())[:25])
    labels = [f"{_drawable(group, number)}  (n = {count:,})" for number, (group, count) in enumerate(groups.items())]
    first = {method: next((name for name in _METHODS if method.startswith(name)), "") for method in result.values}
    colours = {method: colour for method, name in first.items() if (colour := _METHODS.get(name)) is not None}
    thick = 0.8 / len(colours)
    width, height = 5.4 * len(shown), 1.8 + 0.2 * len(groups) * len(colours)
    with _picture(path, width, height, columns=len(shown)) as panels:
        for axes, metric in zip(panels, shown, strict=True):
            for place, (method, colour) in enumerate(colours.items()):
                values = [result.mean(method, metric, group) for group in groups]
                at = np.arange(len(groups)) + (place - (len(colours) - 1) / 2) * thick
                bars = axes.barh(at, values, thick, color=colour, label=method)
                bold = {"fontweight": "bold"} if method == "model" else {"color": _GREY}
                axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=3, fontsize=7, **bold)
            _label_rows(axes, labels)
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
            axes.set_title(metric.replace("_", " "), loc="left", fontsize=10)
            axes.margins(x=0.12)
        for axes in panels[1:]:
            axes.set_yticklabels([])
        figure = panels[0].figure
        figure.suptitle(f"Results by {result.segment_word}, {result.protocol}", x=0.01, ha="left")
        named = panels[0].get_legend_handles_labels()
        figure.legend(*named, loc="outside lower left", ncols=4, frameon=False, fontsize=9)


def embedding_space(path: Path, model: TrainedModel, dataset: Dataset, *, seed: int, most: int = 2000) -> None:
    """A PNG with customers and products in one t-SNE of the towers' output, coloured by persona and by category.

    Of more than `most` customers or products, as many drawn at random are shown.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    customers, products = (
        np.sort(rng.permutation(count)[:most]) for count in (len(dataset.customers), len(dataset.product_ids))
    )
    vectors = np.concatenate(
        [model.embed_customers(dataset.customers.select(customers.tolist())), model.product_embeddings[products]]
    )
    # What only fills up the length would keep the sides apart. A picture has two dimensions at least.
    vectors = vectors[:, :-2] if model.model.wide_dim else vectors
    vectors = np.pad(vectors, ((0, 0), (0, max(0, 2 - vectors.shape[1]))))
    with threadpool_limits(1):  # as with K-Means: another order of sums would be another picture
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
        points = np.asarray(tsne.fit_transform(vectors))  # scikit-learn may be set to return data frames
    sides = (
        ("customers", dataset.segments, customers, 0, {"marker": "o", "s": 24, "alpha": 0.75, "linewidths": 0}),
        ("products", _category_labels(model, dataset), products, len(customers), {"s": 55, "edgecolors": "black"}),
    )
    with _picture(path, 9.6, 6.4) as (axes,):
        for (side, labels, rows, first, style), place in zip(sides, ("upper", "lower"), strict=True):
            handles = []
            palette = _COLOURS if side == "customers" else _PRODUCT_COLOURS
            for number, (label, members, colour) in enumerate(_grouped(labels, rows, palette)):
                title = _drawable(label, number) if label else side
                marker = {"marker": _MARKERS[number % len(_MARKERS)]}
                at = points[first + members].T
                handles.append(axes.scatter(*at, color=colour, label=title, **{**marker, **style}))
            named = f"{side} by {dataset.segment_word if side == 'customers' else 'category'}"
            where = {"loc": f"outside right {place}", "alignment": "left", "frameon": False}
            axes.figure.legend(handles=handles, title=named if labels else None, **where)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        counted = f"{len(customers):,} customers and {len(products):,} products"
        axes.set_title(f"{counted} in one space", loc="left")
        axes.set_xlabel("t-SNE: neighbours are alike, islands lie anywhere", loc="left")


def _grouped(
    labels: Sequence[str] | None, rows: Int[np.ndarray, " n"], palette: Sequence[str]
) -> list[tuple[str, np.ndarray, str]]:
    """The places of each label's rows, the most frequent labels first; what is beyond the colours is one group."""
    if labels is None:
        return [("", np.arange(len(rows)), palette[0])]
    chosen = np.asarray(labels)[rows]
    names, counts = np.unique(chosen, return_counts=True)
    listed = names[np.argsort(-counts, kind="stable")][: len(palette)].tolist()
    groups = [(name, np.flatnonzero(chosen == name), colour) for name, colour in zip(listed, palette, strict=False)]
    rest = np.flatnonzero(~np.isin(chosen, listed))
    return [*groups, (f"{len(names) - len(listed)} others", rest, "#c5c9d0")] if len(rest) else groups


def _category_labels(model: TrainedModel, dataset: Dataset) -> list[str] | None:
    """The products' categories as people read them."""
    column, categories = dataset.schema.products.category, dataset.categories
    for fitted in model.products:
        if categories is not None and fitted.feature.column == column:
            return [fitted.label(category) for category in categories]
    return categories


@contextmanager
def _picture(path: Path, width: float, height: float, columns: int = 1) -> Iterator[Sequence[Any]]:
    """A figure with its panels, saved as a PNG afterwards; no global figure, so that many threads may draw."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A shop's names are no formulas: of one with two dollar signs, matplotlib would make mathematics, or an error.
    with rc_context({"font.family": ["DejaVu Sans", *_korean_fonts()], "text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(1, columns, squeeze=False).ravel())
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
        yield panels
        replace_file(path, lambda stream: figure.savefig(stream, format="png"))


def _label_rows(axes: Any, labels: Sequence[str]) -> None:
    """Names what is drawn in rows, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)


@cache
def _korean_fonts() -> tuple[str, ...]:
    """The installed fonts that are known to have Korean signs; matplotlib's own font has none."""
    from matplotlib.font_manager import fontManager

    known = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic")
    installed = set(fontManager.get_font_names())
    return tuple(name for name in known if name in installed)


def _drawable(label: str, number: int) -> str:
    """The label or, where no font has its signs and boxes would stand there, a number."""
    return label if label.isascii() or _korean_fonts() else f"no. {number}"


def comparison_differences(path: Path, result: Comparison, title: str) -> None:
    """A PNG with each method's difference to the best in the metric that ranks, and its 95 % interval."""
    metric = METRICS[0]
    colours = {"the best": _BLUE, "inside the noise": _GREY, "worse": "#e0803a"}
    drawn: dict[str, Any] = {}
    with _picture(path, 7.2, 1.5 + 0.36 * len(result.rows)) as (axes,):
        axes.axvline(0, color=_BLUE, linewidth=1, zorder=1)
        for place, row in enumerate(result.rows):
            reading, found = row.reading(metric), row.minus_best.get(metric)
            mean, low, high = (found.mean, found.low, found.high) if found else (0.0, 0.0, 0.0)
            if not np.isnan(low):  # one customer alone has no interval
                axes.plot([low, high], [place, place], color=colours[reading], linewidth=2)
            (drawn[reading],) = axes.plot([mean], [place], "o", color=colours[reading], markersize=6)
        names = [
            f"{_drawable(row.method, place)}  {row.means[metric].mean:.4f}" for place, row in enumerate(result.rows)
        ]
        _label_rows(axes, names)
        axes.grid(axis="x", color="#e4e6ea")
        axes.set_xlabel(f"{metric.upper()} minus the best, with the 95 % interval, query by query")
        axes.set_title(title, loc="left", fontsize=10)
        axes.figure.legend(drawn.values(), drawn, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
