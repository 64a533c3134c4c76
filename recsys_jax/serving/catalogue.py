"""An immutable snapshot of a recommender's products, ready for scoring and display."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from recsys_jax.data.schema import Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_key, parse_number
from recsys_jax.errors import InputError, choices
from recsys_jax.models.trained import TrainedModel
from recsys_jax.serving.boosts import BoostRule
from recsys_jax.serving.search import SingleSearch

_LISTS = (list, tuple, Sequence, np.ndarray, set, frozenset)


@dataclass(frozen=True)
class Catalogue:
    """The products and what a request needs of them. Adding products makes a new catalogue, so no request sees half."""

    ids: tuple[str, ...]
    row_of: Mapping[str, int]
    shown: tuple[dict[str, Any], ...]
    """The entries of a recommendation that describe the product."""
    categories: tuple[str | None, ...]
    """The category of each product, as the vocabulary spells it."""
    meanings: Mapping[str, str]
    """The category that each code or label means."""
    embeddings: Float32[np.ndarray, "p d"]
    bias: Float32[np.ndarray, " p"]
    meets: Bool[np.ndarray, "p r"]
    """Whether each product meets the product conditions of each boost rule."""
    adds: Float32[np.ndarray, " r"]
    """What each rule adds to a score."""
    room: int
    """The rows of `on_device`. Rounded up once products are added, so that a program, compiled for a number of rows,
    serves many catalogues."""

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
        """The catalogue of a product table. Raises `InputError` for a missing column."""
        part, space = model.schema.products, model.products
        of_column = {f.feature.column: f for f in space if not isinstance(f.feature, Numeric)}
        fitted = of_column.get(part.category or "")
        values = [None] * len(ids) if part.category is None else table.column(part.category)
        keys = [(fitted.canonical(value) if fitted else None) or as_key(value) for value in values]
        known = dict.fromkeys(key for key in keys if key is not None)
        codes = {key: key for key in known}
        labels = {} if fitted is None else {fitted.label(key): key for key in known}
        shown: dict[str, Sequence[Any]] = {"product_id": ids}
        for role, column in {"name": part.name, "brand": part.brand}.items():
            shown[role] = [None] * len(ids) if column is None else table.column(column)
        shown["category"] = values if fitted is None else [key and fitted.label(key) for key in keys]
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
        """These products, then the new ones, with the same cached properties computed."""
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
        """The customers' vectors to multiply with `vectors`: unit vectors, rules whose conditions they meet, and 1."""
        if self.vectors.shape == self.embeddings.shape:
            return customers
        ones = np.ones((len(customers), int(self._biased)), np.float32)
        return np.concatenate([customers, meets, ones], axis=1, dtype=np.float32)

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "p e"]:
        """The products' unit vectors with one more dimension per rule, and one for the bias where there is one.

        So one dot product ranks by all of it. A score is half a cosine, so what is added to scores counts twice here.
        """
        bias = 2.0 * self.bias[:, None] if self._biased else self.bias[:, None][:, :0]
        return np.concatenate([self.embeddings, 2.0 * self.adds * self.meets, bias], axis=1, dtype=np.float32)

    @cached_property
    def on_device(self) -> Float32[Array, "q e"]:
        """`vectors` on JAX's device, padded with zeros up to `room`, which `on_device_allowed` excludes."""
        vectors: Array = jax.device_put(np.pad(self.vectors, ((0, self.room - len(self.ids)), (0, 0))))
        return vectors

    def on_device_allowed(self, allowed: Bool[np.ndarray, " p"] | None) -> Bool[np.ndarray, " q"] | None:
        """The mask `allowed` of products as a mask of the rows of `on_device`; None: all."""
        if self.room == len(self.ids):
            return allowed
        return np.pad(np.ones(len(self.ids), bool) if allowed is None else allowed, (0, self.room - len(self.ids)))

    @cached_property
    def search(self) -> SingleSearch:
        """The exact search of `vectors` for one query at a time."""
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
        """A number for each category, and the category number of each product."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(self.categories))}
        return numbers, np.array([numbers[key] for key in self.categories], np.int32)

    def excluded(self, table: Table, purchased: Sequence[Any]) -> list[list[int]]:
        """The indices of the products to exclude for each row of the table; ids of no product are ignored.

        Raises `InputError` for the first row whose purchases are no list of ids.
        """
        out = []
        for row, ids in enumerate(purchased):
            if ids is None or (isinstance(ids, float) and np.isnan(ids)):  # NaN: an empty value of a data frame
                ids = ()
            if isinstance(ids, str | bytes) or not isinstance(ids, _LISTS):
                where = f"{table.where(row)}, purchased_products"
                raise InputError(f"{where}: found {ids!r}; allowed: a list of product ids")
            known = {self.row_of.get(as_key(product_id) or "") for product_id in ids}
            out.append(sorted(index for index in known if index is not None))
        return out


def _roomy(count: int) -> int:
    """`count` rounded up to one of few numbers: multiples of 256, later eight to each doubling.

    So a thousand products added one by one compile four sets of programs.

    >>> [_roomy(n) for n in (5, 93, 1000, 1_000_001)]
    [256, 256, 1024, 1048576]
    """
    step = max(256, 1 << max(count.bit_length() - 4, 0))
    return -(-count // step) * step


def _price(value: object) -> object:
    number = parse_number(value) if isinstance(value, str) else None  # CSV has texts
    if number is None:
        return value
    return int(number) if number.is_integer() else number
