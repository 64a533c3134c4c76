"""An immutable snapshot of a recommender's products, ready for scoring and display."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from recsys_jax.data.schema import Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_id, as_key, as_list, as_plain, parse_number
from recsys_jax.errors import InputError, choices, require, shown
from recsys_jax.models.trained import TrainedModel
from recsys_jax.serving.boosts import BoostRule, meets
from recsys_jax.serving.search import SingleSearch

BOUGHT = "purchased_products"  # the argument of `recommend`, and the column of a batch
MOST = 8
"""Where boost rules add more to a score, from 0 to 1, 32 bits no longer tell its last digits."""


def require_finite(vectors: Float[np.ndarray, "n d"], table: Table) -> None:
    """Raises `InputError` for the first row of the table whose vector is not finite, so that all scores are."""
    finite = np.isfinite(vectors)
    if not finite.all():
        where = table.where(int(finite.all(axis=1).argmin()))
        raise InputError(f"{where}: found a vector that is not finite; allowed: weights and numbers that 32 bits hold")


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
        """The catalogue of a product table. Raises `InputError` for a missing column or a number that is not finite."""
        require_finite(np.column_stack([embeddings, bias]), table)
        part, space = model.schema.products, model.products

        def column(name: str | None) -> Sequence[Any]:
            return [None] * len(ids) if name is None else table.column(name)

        of_column = {f.feature.column: f for f in space if not isinstance(f.feature, Numeric)}
        fitted = of_column.get(part.category or "")
        values = column(part.category)
        keys = [(fitted.canonical(value) if fitted else None) or as_key(value) for value in values]
        codes = {key: key for key in keys if key is not None}
        labels = {}
        if fitted is not None:
            values = [key and fitted.label(key) for key in keys]
            labels = {fitted.label(key): key for key in codes}
        told = (map(as_plain, each) for each in (column(part.name), column(part.brand), values))
        entries = zip(ids, *told, map(_price, column(part.price)), strict=True)
        return cls(
            ids,
            {as_id(product_id) or product_id: row for row, product_id in enumerate(ids)},
            tuple(dict(zip(("product_id", "name", "brand", "category", "price"), one, strict=True)) for one in entries),
            tuple(keys),
            codes | labels | codes,
            embeddings,
            bias,
            meets([rule.product for rule in boosts], space, table),
            np.array([rule.add for rule in boosts], np.float32),
            len(ids),
        )

    def extended(self, new: "Catalogue") -> "Catalogue":
        """These products, then the new ones, with the same cached properties computed."""
        ids = self.ids + new.ids
        extended = Catalogue(
            ids,
            {**self.row_of, **{key: len(self.ids) + row for key, row in new.row_of.items()}},
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
        more = self.vectors.shape[1] - customers.shape[1]
        if not more:
            return customers
        ones = np.ones((len(customers), more - meets.shape[1]), np.float32)
        return np.concatenate([customers, meets, ones], axis=1, dtype=np.float32)

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "p e"]:
        """The products' unit vectors with one more dimension per rule, and one for the bias where there is one.

        So one dot product ranks by all of it. A score is half a cosine, so what is added to scores counts twice here.
        """
        bias = 2.0 * self.bias[:, None][:, : int(self.bias.any())]
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

    def beyond(self, meets: Bool[np.ndarray, "n r"]) -> bool:
        """Whether the rules whose conditions these customers meet may add more than `MOST`."""
        return bool(len(self.adds)) and bool((meets @ np.abs(self.adds)).max(initial=0.0) > MOST)

    def ranked(
        self,
        customer: Float32[np.ndarray, " d"],
        meets: Bool[np.ndarray, " r"],
        k: int,
        *,
        exclude: Sequence[int],
        allowed: Bool[np.ndarray, " p"] | None,
    ) -> Int[np.ndarray, " m"]:
        """The rows that `search` gives, by sums of 64 bits: in those of 32, large ones swallow the order of scores."""
        boosts = (self.meets & meets) @ self.adds.astype(np.float64) + self.bias
        values = (self.embeddings @ customer) / 2.0 + boosts
        if allowed is not None:
            values[~allowed] = -np.inf
        values[list(exclude)] = -np.inf
        best = np.argsort(-values, kind="stable")[:k]
        return np.asarray(best[values[best] > -np.inf])

    def allowed(self, categories: Any, source: str) -> Bool[np.ndarray, " p"] | None:
        """The products of these categories; None for all. Raises `InputError` for an unknown category."""
        if categories is None:
            return None
        if not self.meanings:
            raise InputError(f"{source}, categories: found {categories!r}; allowed: none, products have no category")
        several = as_list(categories)
        numbers, of_product = self._numbers
        allowed = np.zeros(len(self.ids), bool)
        for category in [categories] if several is None else several:
            key = self.meanings.get(as_key(category) or "")
            require(key is not None, f"{source}, categories", category, choices(self.meanings))
            allowed |= of_product == numbers[key]
        return allowed

    @cached_property
    def _numbers(self) -> tuple[dict[str | None, int], Int32[np.ndarray, " p"]]:
        """A number for each category, and the category number of each product."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(self.categories))}
        return numbers, np.array([numbers[key] for key in self.categories], np.int32)

    def excluded(self, table: Table, *, strict: bool) -> list[list[int]]:
        """The indices of the products to exclude for each row of a table with the column `purchased_products`.

        Ids of no product are ignored unless `strict`. Raises `InputError` for the first row with anything else.
        """
        out = []
        for row, ids in enumerate(table.id_lists(BOUGHT)):
            known = {product_id: self.row_of[product_id] for product_id in ids if product_id in self.row_of}
            if strict and not known.keys() >= set(ids):
                unknown = next(product_id for product_id in ids if product_id not in known)
                table.refuse(row, BOUGHT, f"ids of products, and none has {shown(unknown)}")
            out.append(sorted(known.values()))
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
        return as_plain(value)
    return int(number) if number.is_integer() else number
