"""The products of a recommender as they stand at one moment, ready to be scored and shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_key, parse_number
from recsys_jax.errors import InputError, choices
from recsys_jax.models.trained import TrainedModel
from recsys_jax.serving.boosts import BoostRule
from recsys_jax.serving.search import SingleSearch

__all__ = ["Catalogue"]

_LISTS = (list, tuple, Sequence, np.ndarray, set, frozenset)


@dataclass(frozen=True)
class Catalogue:
    """Products with what a request needs of them. Adding products makes a new one: no request sees half of it."""

    ids: tuple[str, ...]
    row_of: Mapping[str, int]
    shown: tuple[dict[str, Any], ...]
    """What a recommendation says of each product, before the score."""
    categories: tuple[str | None, ...]
    """The category of each product, as the vocabulary spells it."""
    meanings: Mapping[str, str]
    """The category that each understood text means: its code and its label."""
    embeddings: Float32[np.ndarray, "p d"]
    bias: Float32[np.ndarray, " p"]
    meets: Bool[np.ndarray, "p r"]
    """Which boost rules' product conditions each product meets."""
    adds: Float32[np.ndarray, " r"]
    """What each rule adds to a score."""
    room: int
    """Products that `on_device` has room for. Once products are added it is rounded up, so that programs, which are
    compiled for a number of products, serve many of them."""

    @classmethod
    def of(
        cls,
        model: TrainedModel,
        boosts: Sequence[BoostRule],
        table: Table,
        ids: tuple[str, ...],
        embeddings: Float32[np.ndarray, "p d"],
        bias: Float32[np.ndarray, " p"],
    ) -> "Catalogue":
        """The products of a table. Raises `InputError` for a missing column."""
        part, space = model.schema.products, model.products
        of_column = {f.feature.column: f for f in space if not isinstance(f.feature, Numeric)}
        fitted = of_column.get(part.category or "")
        cells = [None] * len(ids) if part.category is None else table.column(part.category)
        keys = [_category(cell, fitted) for cell in cells]
        known = dict.fromkeys(key for key in keys if key is not None)
        codes = {key: key for key in known}
        labels = {} if fitted is None else {fitted.label(key): key for key in known}
        shown: dict[str, Sequence[Any]] = {"product_id": ids}
        for role, column in {"name": part.name, "brand": part.brand}.items():
            shown[role] = [None] * len(ids) if column is None else table.column(column)
        shown["category"] = cells if fitted is None else [key and fitted.label(key) for key in keys]
        shown["price"] = [None] * len(ids) if part.price is None else [_price(c) for c in table.column(part.price)]
        return cls(
            ids,
            {product_id: row for row, product_id in enumerate(ids)},
            tuple(dict(zip(shown, values, strict=True)) for values in zip(*shown.values(), strict=True)),
            tuple(keys),
            codes | labels | codes,
            embeddings,
            bias,
            np.array([rule.products(space, table) for rule in boosts], bool).reshape(len(boosts), len(ids)).T,
            np.array([rule.add for rule in boosts], np.float32),
            len(ids),
        )

    def extended(self, new: "Catalogue") -> "Catalogue":
        """These products, then the new ones; ready for the kinds of requests that these have served."""
        ids = self.ids + new.ids
        extended = Catalogue(
            ids,
            {product_id: row for row, product_id in enumerate(ids)},
            self.shown + new.shown,
            self.categories + new.categories,
            {**self.meanings, **new.meanings},
            np.concatenate([self.embeddings, new.embeddings]),
            np.concatenate([self.bias, new.bias]),
            np.concatenate([self.meets, new.meets]),
            self.adds,
            _roomy(len(ids)),
        )
        for prepared in ("search", "on_device"):
            if prepared in vars(self):
                getattr(extended, prepared)
        return extended

    def queries(
        self, customers: Float32[np.ndarray, "n d"], meets: Bool[np.ndarray, "n r"]
    ) -> Float32[np.ndarray, "n e"]:
        """The customers' vectors for `vectors`, from their unit vectors and which rules' conditions they meet."""
        if self.vectors.shape == self.embeddings.shape:
            return customers
        ones = np.ones((len(customers), int(self._biased)), np.float32)
        return np.concatenate([customers, meets, ones], axis=1, dtype=np.float32)

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "p e"]:
        """The products' unit vectors with one more dimension per rule, and one for the bias where there is any.

        So that all of this is part of one dot product, by which products are ranked. A score is half of a cosine, so
        what is added to scores counts twice here.
        """
        bias = 2.0 * self.bias[:, None] if self._biased else self.bias[:, None][:, :0]
        return np.concatenate([self.embeddings, 2.0 * self.adds * self.meets, bias], axis=1, dtype=np.float32)

    @cached_property
    def on_device(self) -> Float32[Array, "q e"]:
        """`vectors`, where JAX computes, then zeros up to `room`, which `on_device_allowed` bars."""
        vectors: Array = jax.device_put(np.pad(self.vectors, ((0, self.room - len(self.ids)), (0, 0))))
        return vectors

    def on_device_allowed(self, allowed: Bool[np.ndarray, " p"] | None) -> Bool[np.ndarray, " q"] | None:
        """Which rows of `on_device` may be recommended, where `allowed` says so of the products; None for all."""
        if self.room == len(self.ids):
            return allowed
        return np.pad(np.ones(len(self.ids), bool) if allowed is None else allowed, (0, self.room - len(self.ids)))

    @cached_property
    def search(self) -> SingleSearch:
        """`vectors`, ready for one query at a time."""
        return SingleSearch(self.vectors)

    @cached_property
    def _biased(self) -> bool:
        return bool(self.bias.any())

    def allowed(self, categories: Any, source: str) -> Bool[np.ndarray, " p"] | None:
        """The products of these categories; None for all. Raises `InputError` for an unknown category."""
        if categories is None:
            return None
        if not self.meanings:
            raise InputError(
                f"{source}, categories: found {categories!r}; allowed: none, the products have no category"
            )
        one = isinstance(categories, str) or not isinstance(categories, Iterable)
        numbers, of_product = self._numbers
        allowed = np.zeros(len(self.ids), bool)
        for category in [categories] if one else categories:
            key = self.meanings.get(as_key(category) or "")
            if key is None:
                raise InputError(f"{source}, categories: found {category!r}; allowed: {choices(self.meanings)}")
            allowed |= of_product == numbers[key]
        return allowed

    @cached_property
    def _numbers(self) -> tuple[dict[str | None, int], Int32[np.ndarray, " p"]]:
        """A number for each category, and that of each product."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(self.categories))}
        return numbers, np.array([numbers[key] for key in self.categories], np.int32)

    def rows(self, ids: object) -> list[int] | None:
        """The rows of the products with these ids, where there are such; None where `ids` is no list of ids."""
        if ids is None or (isinstance(ids, float) and np.isnan(ids)):  # how a data frame says that there are none
            return []
        if isinstance(ids, str | bytes) or not isinstance(ids, _LISTS):
            return None
        rows = {self.row_of.get(as_key(product_id) or "") for product_id in ids}
        return sorted(row for row in rows if row is not None)


def _roomy(count: int) -> int:
    """A multiple of 256 or a number up to an eighth more than `count`: there are few such numbers.

    Eight from one power of two to the next, and so a thousand products added one by one need four sets of programs.

    >>> [_roomy(n) for n in (5, 93, 1000, 1_000_001)]
    [256, 256, 1024, 1048576]
    """
    step = max(256, 1 << max(count.bit_length() - 4, 0))
    return -(-count // step) * step


def _category(cell: object, fitted: FittedFeature | None) -> str | None:
    """The category as the vocabulary spells it, so that code, label and alias are one."""
    return (fitted.canonical(cell) if fitted else None) or as_key(cell)


def _price(cell: object) -> object:
    number = parse_number(cell) if isinstance(cell, str) else None  # a CSV file holds texts
    if number is None:
        return cell
    return int(number) if number.is_integer() else number
