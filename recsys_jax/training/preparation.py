"""Before and after training: a dataset becomes arrays, and trained parameters become a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from recsys_jax.config import Config, DeepConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.features import Features, FeatureSpace, with_product_id
from recsys_jax.data.schema import Schema
from recsys_jax.errors import InputError
from recsys_jax.models.towers import TwoTower, encode_products
from recsys_jax.models.trained import TrainedModel, popularity, product_rows, two_tower
from recsys_jax.training.augmentation import extra_customers
from recsys_jax.training.purchases import Purchases

__all__ = ["Prepared", "TrainData", "prepare", "train_data"]


class TrainData(NamedTuple):
    """Everything a run reads, on the device."""

    customers: Features
    """With a tail of padding, so that folds of almost the same size run the same compiled program."""
    customer_count: Int[Array, ""]
    """The customers without padding."""
    products: Features
    pairs: Int[Array, "n 2"]
    """(customer row, product row) per purchase; a tail of padding fills the last batch."""
    total: Int[Array, ""]
    """The purchases without padding."""
    bought: Purchases
    popularity: Float[Array, " p"]
    """Share of each product in the purchases, smoothed."""
    missing: Mapping[str, Array]
    """What stands for a missing value, of the customer features that have such a thing."""
    deviations: Mapping[str, Float[Array, ""]]
    """The noise on each of the customers' numbers."""
    unknown_id: Int[Array, ""]


@dataclass(frozen=True)
class Prepared:
    """What training reads of a dataset, and a trained model says of it, whatever the seed."""

    schema: Schema
    customer_space: FeatureSpace
    product_space: FeatureSpace
    customers: Features
    """The training customers alone: a held-out one may hold values that nobody has learned."""
    segments: Sequence[str] | None
    """The segment of each of them, where extra customers are drawn by it."""
    products: Features
    pairs: Int[np.ndarray, "n 2"]
    """(row of `customers`, product row) per purchase."""
    product_ids: tuple[str, ...]
    product_rows: Mapping[str, Sequence[Any]]
    trained_on: str

    @property
    def purchases(self) -> Int[np.ndarray, " p"]:
        """How often each product was bought."""
        return np.bincount(self.pairs[:, 1], minlength=len(self.product_ids))

    def model(self, config: DeepConfig) -> TwoTower:
        """The towers for these features."""
        return two_tower(config, self.customer_space, self.product_space)

    def data(self, config: DeepConfig) -> TrainData:
        """What a run reads: the same for every seed, unless extra customers are drawn from it."""
        customers, pairs = self.customers, self.pairs
        if config.extra_customers:
            options = {"count": config.extra_customers, "seed": config.seed}
            customers, pairs = extra_customers(customers, pairs, self.segments, **options)
        shares = popularity(self.purchases)
        return train_data(customers, self.products, pairs, shares, self.customer_space, self.product_space, config)

    def trained(
        self,
        config: DeepConfig,
        data: TrainData,
        variables: dict[str, Any],
        losses: Float32[np.ndarray, " e"],
        steps: int,
    ) -> TrainedModel:
        """The model that so many steps on `data` led to; its `variables` are changed in place."""
        customers = {name: np.asarray(column)[: int(data.customer_count)] for name, column in data.customers.items()}
        purchases = self.purchases
        # Softmax and random negatives use every product, the other losses those that somebody bought.
        used = (
            self.products
            if config.draws_negatives or config.loss == "softmax"
            else {name: column[purchases > 0] for name, column in self.products.items()}
        )
        _fill_untrained_rows(variables["params"], config, self.customer_space, customers, self.product_space, used)
        return TrainedModel(
            self.schema,
            config,
            self.customer_space,
            self.product_space,
            variables,
            self.product_ids,
            self.product_rows,
            np.asarray(encode_products(self.model(config), variables, self.products)),
            purchases,
            losses,
            {"customer": steps, "product": steps * (2 if config.draws_negatives else 1)},
            self.trained_on,
        )


def prepare(dataset: Dataset, config: Config, train: Bool[np.ndarray, " n"] | None = None) -> Prepared:
    """Fits vocabularies and scaling to the purchases for which `train` is true (all by default), and encodes.

    Raises `InputError` where there is nothing to learn from.
    """
    pairs = dataset.purchases if train is None else dataset.purchases[train]
    total = len(dataset.product_ids)
    if total < 2:
        raise InputError(
            f"{dataset.products.source}: found {total} product; at least 2 are needed to learn a preference"
        )
    if not len(pairs):
        raise InputError(f"{dataset.customers.source}: there are no purchases to train on")
    buyers, each = np.unique(pairs[:, 0], return_counts=True)
    _require_negatives(dataset, config, pairs, int(each.min()))
    schema = dataset.schema
    customer_space = FeatureSpace.fit(schema.customers.features, dataset.customers, buyers.tolist())
    listed = schema.products.features
    features = with_product_id(listed, schema.products.id) if config.id_embedding else listed
    product_space = FeatureSpace.fit(features, dataset.products)
    row_of = np.zeros(len(dataset.customers), np.int32)
    row_of[buyers] = np.arange(len(buyers))
    segments = dataset.segments if isinstance(config, DeepConfig) and config.extra_customers else None
    return Prepared(
        schema,
        customer_space,
        product_space,
        customer_space.encode(dataset.customers.select(buyers.tolist())),
        segments and [segments[row] for row in buyers],
        product_space.encode(dataset.products),
        np.stack([row_of[pairs[:, 0]], pairs[:, 1]], axis=1).astype(np.int32),
        tuple(dataset.product_ids),
        product_rows(schema, dataset.products),
        dataset.fingerprint if train is None else "",
    )


def _require_negatives(dataset: Dataset, config: Config, pairs: Int[np.ndarray, "n 2"], fewest: int) -> None:
    """Raises `InputError` where every customer bought every product that could be a negative, `fewest` or more each."""
    # Extra customers have one purchase each, and the softmax compares a purchase with the whole catalogue.
    if not isinstance(config, DeepConfig) or config.loss == "softmax" or config.extra_customers:
        return
    possible = len(dataset.product_ids) if config.draws_negatives else len(np.unique(pairs[:, 1]))
    if fewest == possible:
        raise InputError(
            f"{dataset.customers.source}: every customer bought all {possible} of the products that the loss would "
            "compare with, so there is nothing to learn; allowed: the loss softmax, or the linear recipe"
        )


def train_data(
    customers: Features,
    products: Features,
    pairs: Int[np.ndarray, "n 2"],
    shares: Float32[np.ndarray, " p"],
    customer_space: FeatureSpace,
    product_space: FeatureSpace,
    config: DeepConfig,
) -> TrainData:
    """Training customers, products and purchases on the device, with what the options need beside them."""

    def padded(rows: np.ndarray) -> Array:
        """Whole batches of rows: the tail is zeros."""
        tail = -len(rows) % config.batch_size
        return jnp.asarray(np.pad(rows, [(0, tail), *[(0, 0)] * (rows.ndim - 1)]))

    missing: dict[str, Array] = {}
    deviations: dict[str, Array] = {}
    for fitted in customer_space:
        name, column = fitted.feature.name, customers[fitted.feature.name]
        if fitted.missing_row is not None:
            alone = np.full(column.shape[1:], -1, np.int32)  # in a bag, it is the one value
            alone.flat[:1] = fitted.missing_row
            missing[name] = jnp.asarray(alone)
        elif fitted.input.kind == "numeric":
            deviations[name] = jnp.float32(config.number_jitter * column[:, 0].std())
            if fitted.input.size == 2:
                missing[name] = jnp.asarray([column[:, 0].mean(), 1.0])
    unknown = product_space["product_id"].unknown_row if config.id_embedding else 0
    count = len(next(iter(customers.values())))
    return TrainData(
        customers={name: padded(column) for name, column in customers.items()},
        customer_count=jnp.int32(count),
        products=jax.tree.map(jnp.asarray, products),
        pairs=padded(pairs),
        total=jnp.int32(len(pairs)),
        bought=Purchases.of(pairs, *(size + -size % config.batch_size for size in (count, len(pairs)))),
        popularity=jnp.asarray(shares),
        missing=missing,
        deviations=deviations,
        unknown_id=jnp.int32(unknown or 0),
    )


def _fill_untrained_rows(
    params: Any,
    config: DeepConfig,
    customers: FeatureSpace,
    customer_rows: Features,
    products: FeatureSpace,
    product_rows: Features,
) -> None:
    """Gives embedding rows that training never used the mean of those that it used.

    Such a row still holds its random start: an unknown brand would point anywhere. The mean makes it an average one.
    Where no row was used at all, it is zeros, as what training saw.

    Args:
        params: the trained parameters, changed in place.
        config: which rows dropout trained.
        customers: the customers' features.
        customer_rows: the customers that training used.
        products: the products' features.
        product_rows: the products that training used.
    """
    hidden = {("customer", f.feature.name): f.missing_row for f in customers if config.attribute_dropout}
    if config.id_embedding and config.id_dropout:
        hidden["product", "product_id"] = products["product_id"].unknown_row
    for side, space, rows in (("customer", customers, customer_rows), ("product", products, product_rows)):
        for name, kind, size in space.inputs:
            if kind == "numeric":
                continue
            used = np.bincount(rows[name][rows[name] >= 0].ravel(), minlength=size)
            table = params[side][f"{name}_emb"]
            mean = used.astype(np.float32) @ table / np.float32(max(used.sum(), 1))
            untrained = used == 0
            trained_by_hiding = hidden.get((side, name))
            if trained_by_hiding is not None:
                untrained[trained_by_hiding] = False
            params[side][f"{name}_emb"] = np.where(untrained[:, None], mean, table)
