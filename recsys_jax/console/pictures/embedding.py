"""The picture of the embedding space: each vector once, coloured by an attribute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.config import Language
from recsys_jax.console.pictures.drawing import GREY, Letters, picture
from recsys_jax.console.pictures.plots import segment_numbers
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.schema import Categorical, Feature, Numeric, Schema, label_of
from recsys_jax.data.splits import combinations
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_key, composed, parse_number
from recsys_jax.models.trained import TrainedModel

_COLOURS = ("#2f6db5", "#e0803a", "#3f9b5a", "#c44e8a", "#8064b8", "#a0782d", "#2aa5b3", "#7d8794")
# Of ranges of a number, the least first (viridis, without its palest end).
_RANGES = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#dde318")
_OTHERS = "#c5c9d0"
# Other colours than the customers', so that nobody takes a category for a persona.
_PRODUCT_COLOURS = ("#1d1d1f", "#e3242b", "#00bcd4", "#f5c518", "#ffffff", "#7b4b2a", "#ff8ad8", "#9be564")
_MARKERS = ("s", "^", "D", "P", "X", "v", "*", "p")


@dataclass(frozen=True)
class Colouring:
    """What the customers of a picture are coloured by."""

    word: str
    labels: Sequence[str] | None
    """One per customer."""
    numbers: Mapping[str, str]
    """By label, what stands for it where no font has its signs."""
    ordered: Mapping[str, str] = field(default_factory=dict)
    """The colours of the ranges of a number, the least first."""

    @classmethod
    def of(cls, dataset: Dataset, colour: str | None = None, language: Language = "en") -> "Colouring":
        """By an attribute, a feature's name or a column of the customers; by default the segment.

        A number is coloured by ranges of as many different values. Raises `InputError` where there is no such column.
        """
        # The segment, however it is named, has the same numbers in all pictures.
        part = dataset.schema.customers
        if colour is None or composed(colour) == part.segment:
            word = label_of(part.segment or "", part.features, language, dataset.segment_word)
            return cls(word, dataset.segments, segment_numbers(dataset))
        colour = composed(colour)  # as the names of columns are
        feature = _feature(part.features, colour)
        labels = _labels(dataset.schema, dataset.customers, feature, colour)
        word = colour if feature is None else label_of(feature.column, part.features, language, colour)
        if isinstance(feature, Numeric) or (feature is None and len(set(labels)) > len(_COLOURS)):
            numbers = [parse_number(label) for label in labels]
            if feature is not None or None not in numbers:
                names, labels = _ranges(numbers)
                return cls(word, labels, {}, {**dict(zip(names, _RANGES, strict=False)), "(none)": _OTHERS})
        return cls(word, labels, {label: str(n) for n, label in enumerate(sorted(set(labels)), 1)})


def _feature(features: Sequence[Feature], name: str) -> Feature | None:
    """The feature of a column, or of that name."""
    return next((one for key in ("column", "name") for one in features if getattr(one, key) == name), None)


def _labels(schema: Schema, table: Table, feature: Feature | None, name: str) -> list[str]:
    """A column as people read it: the label of each value, several joined. Raises `InputError` where there is none."""
    column = table.column(name if feature is None else feature.column)
    if isinstance(feature, Categorical):
        read = dict(zip(feature.values or (), feature.labels or (), strict=False))
        keys = ([feature.meanings.get(one, one) for one in feature.items(value) or []] for value in column)
        return [", ".join(sorted(read.get(key, key) for key in items)) or "(none)" for items in keys]
    missing = (feature or schema).missing_values
    return ["(none)" if missing.met(value) else as_key(value) or "(none)" for value in column]


def categories(model: TrainedModel) -> list[str] | None:
    """The category of each of the model's products as people read it, where the schema names one."""
    part, table = model.schema.products, Table("the model's products", model.product_rows)
    if part.category is None:
        return None
    return _labels(model.schema, table, _feature(part.features, part.category), part.category)


def _ranges(numbers: Sequence[float | None]) -> tuple[list[str], list[str]]:
    """Ranges of about as many different numbers, the least first, and the range of each number."""
    different = np.unique([number for number in numbers if number is not None])
    parts = [part for part in np.array_split(different, len(_RANGES)) if len(part)]
    ends = ([f"{one:.3g}" if abs(one) < 100 else f"{one:.0f}" for one in (part[0], part[-1])] for part in parts)
    names = [" to ".join(dict.fromkeys(one)) for one in ends]
    of = {number: name for part, name in zip(parts, names, strict=True) for number in part.tolist()}
    labels = ["(none)" if number is None else of[number] for number in numbers]
    return names, labels


@dataclass(frozen=True)
class Space:
    """Customers and products in the plane, each different vector once."""

    rows: Int[np.ndarray, " n"]
    """The rows of these customers in the dataset."""
    of_customer: Int[np.ndarray, " n"]
    """The vector of each of these customers; -1: of one that isn't shown."""
    of_product: Int[np.ndarray, " p"]
    """The vector of each product; -1: of one that isn't shown."""
    customers: Float[np.ndarray, "u d"]
    products: Float[np.ndarray, "v d"]
    points: Float[np.ndarray, "w 2"]
    """Where the w = u + v vectors are, customers' first."""

    @classmethod
    def of(cls, model: TrainedModel, dataset: Dataset, *, seed: int, most: int = 1000, drawn: int = 50_000) -> "Space":
        """Customers and products in one t-SNE of the towers' output, which starts from the principal components.

        Of more than `drawn` customers, or `most` different vectors of either side, as many drawn at random by `seed`.
        """
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(dataset.customers))[:drawn])
        features = model.customers.encode(dataset.customers.select(rows.tolist()))
        first, combination = combinations(model.customers, features)
        embedded = model.embed({name: column[first] for name, column in features.items()})
        # What only fills up the length would keep the sides apart.
        width = embedded.shape[1] - 2 * bool(model.model.wide_dim)
        customers, of_customer = _different(embedded[:, :width], combination, most, rng)
        vectors = model.product_embeddings[:, :width]
        products, of_product = _different(vectors, np.arange(len(vectors)), most, rng)
        points = _layout(np.concatenate([customers, products]), seed)
        return cls(rows, of_customer, of_product, customers, products, points)

    def shown(self, dataset: Dataset) -> list[str]:
        """How many customers and how many products are shown, and of how many where that is not all."""
        sides = (self.of_customer, len(dataset.customers)), (self.of_product, len(self.of_product))
        return [f"{n:,}" if (n := int((of >= 0).sum())) == every else f"{n:,} of {every:,}" for of, every in sides]


def embedding_space(
    path: Path,
    model: TrainedModel,
    dataset: Dataset,
    *,
    seed: int,
    colour: str | None = None,
    space: Space | None = None,
) -> bool:
    """A PNG of a `Space`, by default the one of this seed, coloured by an attribute and by category.

    Each different vector is drawn once, its area by how many share it; where they differ in colour, as rings around
    each other. Returns whether all names could be drawn. Raises `InputError` where there is no such attribute.
    """
    colouring, space = Colouring.of(dataset, colour), space or Space.of(model, dataset, seed=seed)
    of_customer, of_product, points = space.of_customer, space.of_product, space.points
    names, sorts = colouring.labels or ["customers"] * len(dataset.customers), categories(model)
    people = _grouped([names[row] for row in space.rows.tolist()], of_customer, _COLOURS, colouring.ordered)
    things = _grouped(sorts or ["products"] * len(of_product), of_product, _PRODUCT_COLOURS, {})
    letters = Letters([colouring.word, *(one.label for one in (*people, *things))])
    word = letters.draw(colouring.word, "segment" if colour is None else "attribute")
    of_sort = {name: number for number, name in enumerate(sorted(set(sorts or ())), 1)}
    people = [
        replace(one, label=letters.draw(one.label, f"{word} {colouring.numbers.get(one.label)}")) for one in people
    ]
    things = [
        replace(one, label=letters.draw(one.label, f"category {of_sort.get(one.label)}"), marker=marker)
        for one, marker in zip(things, cycle(_MARKERS), strict=False)
    ]
    with picture(path, letters, 9.6, 6.4) as (axes,):
        title = f"customers by {word}" if colouring.labels is not None else None
        areas = _draw_side(axes, points[: len(space.customers)], of_customer, people, title)
        sorted_by = "products by category" if sorts else None
        _draw_side(axes, points[len(space.customers) :], of_product, things, sorted_by)
        if len(areas) > 1:
            style = {"color": GREY, "linewidths": 0}
            dots = [axes.scatter([], [], s=area, label=f"{n:,}", **style) for n, area in areas.items()]
            where = {"loc": "outside right center", "alignment": "left", "frameon": False}
            spaced = {"labelspacing": 1.6, "handletextpad": 1.2, "borderpad": 1}
            axes.figure.legend(handles=dots, title="customers with\nthe same vector", **spaced, **where)
        axes.set(xticks=[], yticks=[])
        axes.margins(0.06)
        axes.spines[:].set_visible(False)
        counts = space.shown(dataset)
        title = (
            f"{counts[0]} customers, {len(space.customers):,} different vectors, and {counts[1]} products in one space"
        )
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("t-SNE: neighbours are alike, islands lie anywhere; each vector is drawn once", loc="left")
    return letters.whole


def _different(
    vectors: Float[np.ndarray, "r d"], row: Int[np.ndarray, " n"], most: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "u d"], Int[np.ndarray, " n"]]:
    """The different vectors, and the one that each of n has by its `row` of vectors.

    Of more than `most` different ones, those of the first of the n in an order drawn at random; -1 for the others.
    """
    # The last bits depend on which rows were embedded together.
    _, first, same = np.unique(np.round(vectors, 5), axis=0, return_index=True, return_inverse=True)
    of = same.reshape(-1)[row]
    order = rng.permutation(len(of))
    found, place = np.unique(of[order], return_index=True)
    kept = np.sort(found[np.argsort(place)[:most]])
    number = np.full(len(first), -1)
    number[kept] = np.arange(len(kept))
    return vectors[first[kept]], number[of]


def _layout(vectors: Float[np.ndarray, "u d"], seed: int) -> Float[np.ndarray, "u 2"]:
    """Places in the plane where neighbours by cosine are neighbours: t-SNE, begun from the principal components."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    vectors = np.pad(vectors, ((0, 0), (0, max(0, 2 - vectors.shape[1]))))  # a picture has two dimensions at least
    with threadpool_limits(1):  # as with K-Means: another order of sums would be another picture
        perplexity = min(60 if len(vectors) < 500 else 30, (len(vectors) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
        return np.asarray(tsne.fit_transform(vectors))  # scikit-learn may be set to return data frames


@dataclass(frozen=True)
class _Group:
    """Customers or products that are drawn alike."""

    label: str
    members: Int[np.ndarray, " m"]
    """Their places."""
    colour: str
    marker: str = "o"


def _draw_side(
    axes: Any, points: Float[np.ndarray, "u 2"], of: Int[np.ndarray, " n"], groups: Sequence[_Group], title: str | None
) -> dict[int, float]:
    """Draws the vectors of customers or products, and their legend; the areas of some numbers that share one.

    `of` has the point of each customer or product, -1 where it isn't shown.
    """
    count = np.stack([np.bincount(of[one.members], minlength=len(points)) for one in groups])
    products, largest = groups[0].marker != "o", int(count.sum(axis=0).max())
    # The more there are, the smaller.
    one, most = (42.0, 500.0) if products else (18.0, 700.0)
    one = max(min(one, 100 * one / len(points)), one / 4)
    scale, least = min(one, most / largest), min(one, 25.0 if products else 7.0)
    edges = {"edgecolors": "black" if products else "white", "linewidths": one / 42 if products else 0.4}
    # A ring's area is that of its group: each disc covers the middle of the one before.
    order = np.argsort(-count, axis=0, kind="stable")
    within = np.take_along_axis(count, order, axis=0)[::-1].cumsum(axis=0)[::-1]
    area = np.empty(count.shape)
    np.put_along_axis(area, order, np.maximum(scale * within, least), axis=0)
    for marker in dict.fromkeys(one.marker for one in groups):
        group, point = np.nonzero((count > 0) & np.array([[one.marker == marker] for one in groups]))
        largest_first = np.argsort(-area[group, point], kind="stable")
        group, point = group[largest_first], point[largest_first]
        colours = [groups[number].colour for number in group.tolist()]
        axes.scatter(*points[point].T, s=area[group, point], color=colours, marker=marker, zorder=2 + products, **edges)
    handles = [
        axes.scatter([], [], s=50, label=one.label, color=one.colour, marker=one.marker, **edges) for one in groups
    ]
    where = {"loc": f"outside right {'lower' if products else 'upper'}", "alignment": "left", "frameon": False}
    axes.figure.legend(handles=handles, title=title, **where)
    return {n: max(scale * n, least) for n in sorted({1, round(largest**0.5), largest})}


def _grouped(
    labels: Sequence[str], of: Int[np.ndarray, " n"], palette: Sequence[str], fixed: Mapping[str, str]
) -> list[_Group]:
    """Those of each label, the most frequent first, or in the order of `fixed` colours; the rest is one grey group.

    A single one that is left keeps its name.
    """
    each, shown = np.asarray(labels), of >= 0
    names, counts = np.unique(each[shown], return_counts=True)
    by_count = names[np.argsort(-counts, kind="stable")].tolist()
    colours = {name: fixed[name] for name in fixed if name in names} or dict(zip(by_count, palette, strict=False))
    groups = [_Group(name, np.flatnonzero((each == name) & shown), colour) for name, colour in colours.items()]
    rest = np.flatnonzero(~np.isin(each, list(colours)) & shown)
    left = names[~np.isin(names, list(colours))].tolist()
    return [*groups, _Group(left[0] if len(left) == 1 else f"{len(left)} others", rest, _OTHERS)] if left else groups
