"""What training reads: a dataset as arrays, on the device, and small changes made to its rows; and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from recsys_jax.config import Config, DeepConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.features import Features, FeatureSpace, with_product_id
from recsys_jax.data.schema import Schema
from recsys_jax.errors import InputError, require
from recsys_jax.models.popularity import LogPopularity
from recsys_jax.models.trained import product_rows


@dataclass(frozen=True)
class Prepared:
    """What training reads of a dataset, and a trained model keeps of it, whatever the seed."""

    schema: Schema
    customer_space: FeatureSpace
    product_space: FeatureSpace
    customers: Features
    """The training customers alone: a held-out one may hold unseen values."""
    segments: Sequence[str] | None
    products: Features
    pairs: Int[np.ndarray, "n 2"]
    """(row of `customers`, product row) per purchase."""
    product_ids: tuple[str, ...]
    product_rows: Mapping[str, Sequence[Any]]
    trained_on: str
    source: str

    @property
    def purchases(self) -> Int[np.ndarray, " p"]:
        """How often each product was bought."""
        return np.bincount(self.pairs[:, 1], minlength=len(self.product_ids))

    def data(self, config: DeepConfig) -> "TrainData":
        """What a run reads, on the device: the same for every seed, unless extra customers are drawn from it."""
        customers, pairs = self.customers, self.pairs
        if config.extra_customers:
            drawn = {"count": config.extra_customers, "seed": config.seed}
            customers, pairs = extra_customers(customers, pairs, self.segments, **drawn)

        def padded(rows: np.ndarray) -> Array:
            """Whole batches of rows: the tail is zeros."""
            tail = -len(rows) % config.batch_size
            return jnp.asarray(np.pad(rows, [(0, tail), *[(0, 0)] * (rows.ndim - 1)]))

        missing: dict[str, Array] = {}
        deviations: dict[str, Array] = {}
        for fitted in self.customer_space:
            name, column = fitted.feature.name, customers[fitted.feature.name]
            if fitted.missing_row is not None:
                alone = np.full(column.shape[1:], -1, np.int32)  # in a bag, it is the one value
                alone.flat[:1] = fitted.missing_row
                missing[name] = jnp.asarray(alone)
            elif fitted.input.kind == "numeric":
                deviations[name] = jnp.float32(config.number_jitter * column[:, 0].std())
                if fitted.input.size == 2:
                    missing[name] = jnp.asarray([column[:, 0].mean(), 1.0])
        unknown = self.product_space["product_id"].unknown_row if config.id_embedding else 0
        smoothed = self.purchases + 1.0
        count = len(next(iter(customers.values())))
        return TrainData(
            customers={name: padded(column) for name, column in customers.items()},
            customer_count=jnp.int32(count),
            products=jax.tree.map(jnp.asarray, self.products),
            pairs=padded(pairs),
            total=jnp.int32(len(pairs)),
            bought=Purchases.of(pairs, *(size + -size % config.batch_size for size in (count, len(pairs)))),
            popularity=jnp.asarray((smoothed / smoothed.sum()).astype(np.float32)),
            missing=missing,
            deviations=deviations,
            unknown_id=jnp.int32(unknown or 0),
        )


class Fitted(NamedTuple):
    """What training gives."""

    variables: dict[str, Any]
    popularity: LogPopularity
    losses: Float32[np.ndarray, " e"]
    batches: Mapping[str, int]
    chosen: Mapping[str, float]


def prepare(dataset: Dataset, config: Config, train: Bool[np.ndarray, " n"] | None = None) -> Prepared:
    """Fits vocabularies and scaling to the purchases for which `train` is true (all by default), and encodes.

    Raises `InputError` where there is nothing to learn from.
    """
    require(
        isinstance(dataset, Dataset), "fit(), dataset", dataset, "a Dataset, as load_dataset and Dataset.of give it"
    )
    require(isinstance(config, Config), "fit(), config", config, "WideConfig(...) or DeepConfig(...)")
    pairs = dataset.purchases if train is None else dataset.purchases[train]
    total = len(dataset.product_ids)
    if total < 2:
        raise InputError(f"{dataset.products.source}: found {total} product; at least 2 are needed to learn from")
    if not len(pairs):
        raise InputError(f"{dataset.customers.source}: there are no purchases to train on")
    buyers, buyer, each = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    possible = total if config.negatives_among == "products" else len(np.unique(pairs[:, 1]))
    # Extra customers have one purchase each.
    if config.negatives_among != "none" and not config.extra_customers and each.min() == possible:
        raise InputError(
            f"{dataset.customers.source}: every customer bought all {possible} of the products that the loss would "
            "compare with, so there is nothing to learn; allowed: the loss softmax, or the wide recipe"
        )
    schema, segments = dataset.schema, dataset.segments
    options: dict[str, Any] = {"rows": buyers.tolist(), "part": train is not None}
    customer_space = FeatureSpace.fit(schema.customers.features, dataset.customers, **options)
    listed = schema.products.features
    features = with_product_id(listed, schema.products.id) if config.id_embedding else listed
    product_space = FeatureSpace.fit(features, dataset.products)
    return Prepared(
        schema,
        customer_space,
        product_space,
        customer_space.encode(dataset.customers.select(buyers.tolist())),
        segments and [segments[row] for row in buyers],
        product_space.encode(dataset.products),
        np.stack([buyer, pairs[:, 1]], axis=1).astype(np.int32),
        tuple(dataset.product_ids),
        product_rows(schema, dataset.products),
        dataset.fingerprint if train is None else "",
        dataset.customers.source,
    )


@partial(jax.tree_util.register_dataclass, data_fields=("starts", "ends", "items"), meta_fields=("depth",))
@dataclass(frozen=True)
class Purchases:
    """Each customer's products, ascending, one customer after another (compressed rows)."""

    starts: Int[Array, " c"]
    ends: Int[Array, " c"]
    items: Int[Array, " n"]
    depth: int = field(metadata={"static": True})
    """Halvings that a search among one customer's products takes; known when compiling."""

    @classmethod
    def of(cls, pairs: Int[np.ndarray, "n 2"], customers: int, length: int | None = None) -> "Purchases":
        """From (customer row, product row) pairs, each once; `length` is that of `items`, with padding at the end."""
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        counts = np.bincount(pairs[:, 0], minlength=customers)
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        items = np.zeros(len(pairs) if length is None else length, np.int32)
        items[: len(pairs)] = pairs[order, 1]
        return cls(
            jnp.asarray(bounds[:-1]), jnp.asarray(bounds[1:]), jnp.asarray(items), depth=int(counts.max()).bit_length()
        )

    def contains(self, customers: Int[Array, "*n"], products: Int[Array, "*n"]) -> Bool[Array, "*n"]:
        """Whether each customer bought each product."""
        end = self.ends[customers]
        place = self._first(customers, lambda i: self.items[i] >= products)
        return (place < end) & (self.items[jnp.minimum(place, len(self.items) - 1)] == products)

    def any_left(self, customers: Int[Array, " n"], products: int) -> Bool[Array, " n"]:
        """Whether there is one of the `products` that each customer did not buy."""
        return self.ends[customers] - self.starts[customers] < products

    def sample_negatives(self, key: Array, customers: Int[Array, " n"], products: int) -> Int[Array, " n"]:
        """For each customer one of the `products` that it did not buy, all equally likely.

        A customer who bought every product gets an arbitrary one; `any_left` tells.
        """
        start = self.starts[customers]
        free = jnp.maximum(products - (self.ends[customers] - start), 1)
        rank = jax.random.randint(key, customers.shape, 0, free)
        # items[i] - i is the number of products before the i-th one bought that were not bought; it never falls along
        # the row. So the product not bought with that rank comes after all bought ones where it is at most `rank`.
        bought = self._first(customers, lambda i: self.items[i] - (i - start) > rank) - start
        return jnp.minimum(rank + bought, products - 1)

    def _first(self, customers: Array, holds: Callable[[Array], Array]) -> Array:
        """The first place among each customer's where a condition that stays true holds, or the end."""
        low, high = self.starts[customers], self.ends[customers]
        for _ in range(self.depth):
            middle = (low + high) // 2
            left = holds(jnp.minimum(middle, len(self.items) - 1)) | (low >= high)
            low, high = jnp.where(left, low, middle + 1), jnp.where(left, jnp.minimum(middle, high), high)
        return low


class TrainData(NamedTuple):
    """Everything a run reads, on the device; beyond `customer_count` customers and `total` purchases is padding."""

    customers: Features
    """With a tail of padding, so that folds of almost the same size run the same compiled program."""
    customer_count: Int[Array, ""]
    products: Features
    pairs: Int[Array, "n 2"]
    """(customer row, product row) per purchase; a tail of padding fills the last batch."""
    total: Int[Array, ""]
    bought: Purchases
    popularity: Float[Array, " p"]
    missing: Mapping[str, Array]
    """By customer feature, what stands for a missing value; only features that admit one are here."""
    deviations: Mapping[str, Float[Array, ""]]
    unknown_id: Int[Array, ""]


def hide_ids(key: Array, products: Features, unknown: Int[Array, ""], *, share: Float[Array, ""]) -> Features:
    """The products, a share of them with the unknown id, so that its embedding learns and attributes count too."""
    ids = products["product_id"]
    return {**products, "product_id": jnp.where(jax.random.bernoulli(key, share, ids.shape), unknown, ids)}


def jitter_numbers(key: Array, rows: Features, deviations: Mapping[str, Float[Array, ""]]) -> Features:
    """Rows whose numbers carry normal noise of the given deviations."""
    out = dict(rows)
    for i, (name, column) in enumerate(sorted(rows.items())):
        if jnp.issubdtype(column.dtype, jnp.floating):
            noise = jax.random.normal(jax.random.fold_in(key, i), (len(column),))
            out[name] = column.at[:, 0].add(deviations[name] * noise)
    return out


def hide_attributes(key: Array, rows: Features, data: TrainData, *, share: Float[Array, ""]) -> Features:
    """The rows, with a share of their attributes hidden.

    A hidden attribute is what `data.missing` holds for its feature, an embedding row or a number with its flag; where
    that holds nothing, it is the value of another customer, drawn at random.
    """
    out = dict(rows)
    for i, (name, column) in enumerate(sorted(rows.items())):
        hide_key, other_key = jax.random.split(jax.random.fold_in(key, i))
        if name in data.missing:
            stand_in = jnp.broadcast_to(data.missing[name], column.shape)
        else:
            stand_in = data.customers[name][jax.random.randint(other_key, (len(column),), 0, data.customer_count)]
        hide = jax.random.bernoulli(hide_key, share, (len(column),))
        out[name] = jnp.where(hide.reshape(-1, *[1] * (column.ndim - 1)), stand_in, column)
    return out


def extra_customers(
    customers: Features, pairs: Int[np.ndarray, "n 2"], segments: Sequence[str] | None, *, count: int, seed: int
) -> tuple[Features, Int[np.ndarray, "m 2"]]:
    """Customers and purchases with `count` more: each attribute, and the purchase, from a member of one persona.

    Raises `InputError` where there are no personas.
    """
    if segments is None:
        raise InputError("extra_customers: found a number above 0; allowed: 0, since [customers] names no segment")
    rng = np.random.default_rng([seed, 1])
    labels = np.unique(np.asarray(segments), return_inverse=True)[1]
    chosen = rng.choice(labels, count)

    def draw(owners: Int[np.ndarray, " n"]) -> Int[np.ndarray, " count"]:
        """For each extra customer a place whose owner belongs to the same persona."""
        pools = [np.flatnonzero(owners == label) for label in range(labels.max() + 1)]
        return np.array([rng.choice(pools[label]) for label in chosen])

    grown = {name: np.concatenate([column, column[draw(labels)]]) for name, column in customers.items()}
    bought = pairs[draw(labels[pairs[:, 0]]), 1]
    more = np.stack([len(labels) + np.arange(count), bought], axis=1)
    return grown, np.concatenate([pairs, more]).astype(np.int32)
