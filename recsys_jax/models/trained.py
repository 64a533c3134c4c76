"""A trained model: the towers' weights with all that is needed to use them; and several that score together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, Float64, Int

from recsys_jax.config import Config
from recsys_jax.data.features import Features, FeatureSpace
from recsys_jax.data.schema import Schema, TowerInput
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError
from recsys_jax.models.basis import Average, knots_of
from recsys_jax.models.popularity import LogPopularity
from recsys_jax.models.towers import TwoTower, Variables, encode_customers, encode_products


@dataclass(frozen=True)
class TrainedModel:
    """A trained pair of towers with all that is needed to use it."""

    schema: Schema
    config: Config
    customers: FeatureSpace
    products: FeatureSpace
    variables: Variables
    """Of `model`, the tree that its `init` gives."""
    popularity: LogPopularity
    product_ids: tuple[str, ...]
    product_rows: Mapping[str, Sequence[Any]]
    """The product table's columns with a role or a feature: what is shown to people, and what boost rules read."""
    product_embeddings: Float32[np.ndarray, "p d"]
    purchases: Int[np.ndarray, " p"]
    losses: Float32[np.ndarray, " e"]
    """The mean loss of each epoch, or with the wide recipe before each step; empty for a model trained elsewhere."""
    batches: Mapping[str, int]
    """How many batches the running statistics of the tower "customer" and of the tower "product" have seen."""
    chosen: Mapping[str, float]
    """By field, what training chose where the config leaves it open."""
    trained_on: str
    """The fingerprint of the dataset, where all of it was trained on; else empty."""
    average: Average | None = None
    """The average customer; None: not known, of a checkpoint of PyTorch's or a run of a former format."""

    @property
    def model(self) -> TwoTower:
        """The Flax module that `variables` belong to."""
        return two_tower(self.config, self.customers, self.products, self.product_embeddings.shape[1])

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
        """What is added to the score of each product for its popularity: zero where the recipe leaves it out.

        Ranked by cosine + temperature x log-popularity, as in the loss; a score is half of a cosine. Relative to a
        product of average popularity, so that a contribution reads as more or less than usual.
        """
        return self.popularity.bias

    def bias_of_new(self, table: Table) -> Float32[np.ndarray, " n"]:
        """`product_bias` of products that nobody has bought yet: by their attributes in the wide recipe."""
        return self.popularity.bias_of_new(*self._products(table))

    def popularity_parts(self, table: Table) -> dict[str, Float64[np.ndarray, " n"]]:
        """What each attribute of products, by the name of its feature, adds to the `product_bias` expected of them."""
        parts = self.popularity.parts(*self._products(table))
        return {name: self.popularity.scale * part for name, part in parts.items()}

    def _products(self, table: Table) -> tuple[Sequence[TowerInput], Mapping[str, Any], Features]:
        knots = knots_of(self.variables["params"]["product"].get("wide", {}))
        return self.products.inputs, knots, self.products.encode(table)


@dataclass(frozen=True)
class Ensemble:
    """Models of the same products whose mean score counts; it is scored and searched as a single model is.

    A score is (1 + cosine) / 2, so the mean of S scores has the mean of S cosines, which is one dot product: that of
    the S vectors of each side, one after the other, divided by sqrt(S). These are unit vectors again.

    Raises `InputError` where there is no model, or where they are not of the same products.
    """

    models: Sequence[TrainedModel]

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("models: found none; allowed: one or more")
        if any(model.product_ids != self.models[0].product_ids for model in self.models):
            raise InputError("models: found models of different products; allowed: models of the same, in one order")

    def embed_customers(self, table: Table) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of the customers in a table, as long as those of all models together."""
        return _concatenated([model.embed_customers(table) for model in self.models])

    @property
    def product_embeddings(self) -> Float32[np.ndarray, "p d"]:
        """Unit vectors of the products, as long as those of all models together."""
        return _concatenated([model.product_embeddings for model in self.models])

    @property
    def product_bias(self) -> Float32[np.ndarray, " p"]:
        """What is added to the score of each product for its popularity: the mean over the models."""
        return np.asarray(np.mean([model.product_bias for model in self.models], axis=0), np.float32)


def _concatenated(each: Sequence[Float32[np.ndarray, "n _"]]) -> Float32[np.ndarray, "n d"]:
    return np.concatenate(each, axis=1) / np.float32(np.sqrt(len(each)))


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


def buckets(most: int) -> list[int]:
    """The lengths to which up to so many rows are padded.

    >>> buckets(20)
    [8, 16, 32]
    """
    return [1 << bits for bits in range(bucket(0).bit_length() - 1, bucket(most).bit_length())]


def _in_blocks(encode: Callable[[Features], Array], features: Features) -> Float32[np.ndarray, "n d"]:
    """What `encode` makes of rows, in padded blocks: few sizes are ever compiled, and memory is bounded."""
    count = len(next(iter(features.values())))
    parts = []
    for start in range(0, max(count, 1), BLOCK):
        block = {name: column[start : start + BLOCK] for name, column in features.items()}
        rows = min(count - start, BLOCK)
        padding = (0, bucket(rows) - rows)
        padded = {name: np.pad(c, [padding, *[(0, 0)] * (c.ndim - 1)]) for name, c in block.items()}
        parts.append(jax.device_get(encode(padded))[:rows])
    return np.concatenate(parts)


def two_tower(config: Config, customers: FeatureSpace, products: FeatureSpace, width: int | None = None) -> TwoTower:
    """The module of a recipe for these features; `width` is that of its vectors, where the fit decides it."""
    return TwoTower(customers.inputs, products.inputs, **config.sizes(width or config.output_dim))


def product_rows(schema: Schema, products: Table) -> dict[str, Sequence[Any]]:
    """The columns of a product table with a role or a feature. Raises `InputError` where one is missing."""
    part = schema.products
    roles = [part.id, part.name, part.brand, part.category, part.price]
    names = dict.fromkeys([*roles, *(feature.column for feature in part.features)])
    return {name: [*products.column(name)] for name in names if name is not None}
