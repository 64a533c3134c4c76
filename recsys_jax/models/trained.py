"""A trained model: the towers' weights with all that is needed to use them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float32, Int

from recsys_jax.config import Config, DeepConfig, WideConfig
from recsys_jax.data.features import Features, FeatureSpace
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.models.towers import TwoTower, Variables, encode_customers, encode_products
from recsys_jax.models.wide import LinearTwoTower, log_popularity, of_variables, temperature

__all__ = ["BLOCK", "TrainedModel", "bucket", "popularity", "product_rows", "two_tower"]


@dataclass(frozen=True)
class TrainedModel:
    """A trained pair of towers with all that is needed to use it."""

    schema: Schema
    config: Config
    customers: FeatureSpace
    products: FeatureSpace
    variables: Variables
    product_ids: tuple[str, ...]
    product_rows: Mapping[str, Sequence[Any]]
    """The product table's columns with a role or a feature: what is shown to people, and what boost rules read."""
    product_embeddings: Float32[np.ndarray, "p d"]
    purchases: Int[np.ndarray, " p"]
    """How often each product was bought in training."""
    losses: Float32[np.ndarray, " e"]
    """The mean loss of each epoch, in the linear recipe before each step; none of a model trained elsewhere."""
    batches: Mapping[str, int]
    """How many batches the running statistics of the tower "customer" and of the tower "product" have seen."""
    trained_on: str
    """The fingerprint of the dataset, where all of it was trained on; else empty."""

    @property
    def model(self) -> TwoTower | LinearTwoTower:
        """The Flax module that `variables` belong to."""
        if isinstance(self.config, WideConfig):
            return of_variables(self.customers.inputs, self.products.inputs, self.variables)
        return two_tower(self.config, self.customers, self.products)

    def embed_customers(self, table: Table) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of the customers in a table. Raises `InputError` for a value that no policy admits."""
        return self.embed(self.customers.encode(table))

    def embed_products(self, table: Table) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of the products in a table. Raises `InputError` for a value that no policy admits."""
        return _in_blocks(partial(encode_products, self.model, self.variables), self.products.encode(table))

    def embed(self, features: Features) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of customers that are encoded already."""
        return _in_blocks(partial(encode_customers, self.model, self.variables), features)

    @property
    def product_bias(self) -> Float32[np.ndarray, " p"]:
        """What is added to the score of each product for its popularity: zero without a popularity bias.

        Ranked by cosine + temperature x log-popularity, as in the loss; a score is half of a cosine. Relative to a
        product of average popularity, so that a contribution reads as more or less than usual.
        """
        if isinstance(self.config, WideConfig):
            return self._bias(self.variables["popularity"]["of_id"][: len(self.product_ids)])
        return self._bias(self._log_popularity(self.purchases))

    def bias_of_new(self, table: Table) -> Float32[np.ndarray, " n"]:
        """`product_bias` of products that nobody has bought yet: by their attributes in the linear recipe."""
        if isinstance(self.config, WideConfig):
            features = self.products.encode(table)
            return self._bias(log_popularity(self.products.inputs, self.variables, features))
        return self._bias(self._log_popularity(np.zeros(len(table), np.int64)))

    def _log_popularity(self, purchases: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        average = self.purchases.sum() / len(self.purchases)
        return np.asarray(np.log((purchases + 1.0) / (average + 1.0)))

    def _bias(self, popularity: Float[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        if not self.config.popularity_bias:
            return np.zeros(len(popularity), np.float32)
        divided_by = temperature(self.variables) if isinstance(self.config, WideConfig) else self.config.temperature
        return np.asarray(0.5 * divided_by * popularity, np.float32)


BLOCK = 4096
"""The most customers that are scored at once, so that memory is bounded, and the largest size ever compiled."""


def bucket(count: int) -> int:
    """The length to which rows are padded: a power of two, so that few are ever compiled, and at least 8.

    Blocks of another length round differently in the last bits, a single row most of all. Padded, a customer alone
    and the same one in a batch agree to about 1e-7 in score: the order is the same unless scores are closer than that.

    >>> [bucket(n) for n in (0, 1, 8, 9)]
    [8, 8, 8, 16]
    """
    return max(8, 1 << max(count - 1, 0).bit_length())


def _in_blocks(encode: Callable[[Features], Array], features: Features) -> Float32[np.ndarray, "n d"]:
    """What `encode` makes of rows, in padded blocks: few sizes are ever compiled, and memory is bounded."""
    count = len(next(iter(features.values())))
    parts = []
    for start in range(0, max(count, 1), BLOCK):
        block = {name: column[start : start + BLOCK] for name, column in features.items()}
        rows = min(count - start, BLOCK)
        padding = (0, bucket(rows) - rows)
        padded = {name: np.pad(c, [padding, *[(0, 0)] * (c.ndim - 1)]) for name, c in block.items()}
        parts.append(np.asarray(encode(padded))[:rows])
    return np.concatenate(parts)


def two_tower(config: DeepConfig, customers: FeatureSpace, products: FeatureSpace) -> TwoTower:
    """The module for these features and sizes."""
    sizes = (config.embedding_dim, config.hidden_dim, config.output_dim, config.dropout)
    return TwoTower(customers.inputs, products.inputs, *sizes)


def product_rows(schema: Schema, products: Table) -> dict[str, Sequence[Any]]:
    """The columns of a product table with a role or a feature. Raises `InputError` where one is missing."""
    part = schema.products
    roles = [part.id, part.name, part.brand, part.category, part.price]
    names = dict.fromkeys([*roles, *(feature.column for feature in part.features)])
    return {name: products.column(name) for name in names if name is not None}


def popularity(purchases: Int[np.ndarray, " p"]) -> Float32[np.ndarray, " p"]:
    """Each product's share of the purchases, one purchase added to each so that none has zero."""
    return np.asarray((purchases + 1.0) / (purchases.sum() + len(purchases)), np.float32)
