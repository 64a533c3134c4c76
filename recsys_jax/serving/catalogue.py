"""An immutable snapshot of a recommender's products, ready for scoring and display."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Int32

from recsys_jax.data.schema import Categorical, Numeric
from recsys_jax.data.tables import Table, answered
from recsys_jax.data.values import as_id, as_key, as_plain, parse_number
from recsys_jax.errors import InputError, nearest_id, shown
from recsys_jax.models.trained import TrainedModel, product_rows
from recsys_jax.retrieval.search import SingleSearch
from recsys_jax.serving.boosts import BoostRule, meets
from recsys_jax.serving.history import BOUGHT
from recsys_jax.serving.traits import Traits

MOST = 8
"""Where boost rules add more to a score, from 0 to 1, 32 bits no longer tell its last digits."""
RECOMMENDED = ("place", "product_id", "score", "popularity", "boost")
"""The columns on a place of a customer's list, of files and frames alike."""


def require_finite(vectors: Float[np.ndarray, "n d"], table: Table) -> None:
    """Raises `InputError` for the first row of the table whose vector is not finite, so that all scores are."""
    finite = np.isfinite(vectors)
    if not finite.all():
        where = table.where(int(finite.all(axis=1).argmin()))
        raise InputError(f"{where}: found a vector that is not finite; allowed: weights and numbers that 32 bits hold")


@dataclass(frozen=True)
class Catalogue:
    """The products and what a request needs of them. Adding products makes a new catalogue, so no request sees half."""

    model: TrainedModel
    rows: Mapping[str, Sequence[Any]]
    """The product table: the columns with a role or a feature."""
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
            if name is None:
                return [None] * len(ids)
            missing = next((one.feature for one in space if one.feature.column == name), model.schema).missing_values
            return [None if missing.met(value) else value for value in table.column(name)]

        of_column = {f.feature.column: f for f in space if not isinstance(f.feature, Numeric)}
        fitted = of_column.get(part.category or "")
        values = column(part.category)
        keys = [(fitted.canonical(value) if fitted else None) or as_key(value) for value in values]
        codes = {key: key for key in keys if key is not None}
        labels = {}
        if fitted is not None:
            values = [key and fitted.label(key) for key in keys]
            labels = {fitted.label(key): key for key in codes}
            if isinstance(fitted.feature, Categorical):
                labels |= {word: key for word, key in fitted.feature.meanings.items() if key in codes}
        told = (map(as_plain, each) for each in (column(part.name), column(part.brand), values))
        entries = zip(ids, *told, map(_price, column(part.price)), strict=True)
        return cls(
            model,
            product_rows(model.schema, table),
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
        found = self._prepared(
            Catalogue(
                self.model,
                {name: [*column, *new.rows[name]] for name, column in self.rows.items()},
                ids,
                {**self.row_of, **{key: len(self.ids) + row for key, row in new.row_of.items()}},
                self.shown + new.shown,
                self.categories + new.categories,
                {**self.meanings, **new.meanings},
                np.concatenate([self.embeddings, new.embeddings]),
                np.concatenate([self.bias, new.bias]),
                np.concatenate([self.meets, new.meets]),
                self.adds,
                max(self.room, _roomy(len(ids))),
            )
        )
        self.traits.with_more(new.traits, found.traits)
        return found

    def without(self, rows: Sequence[int]) -> "Catalogue":
        """The products but those of the given rows, with the same cached properties computed."""
        left = np.delete(np.arange(len(self.ids)), rows)
        ids = tuple(self.ids[row] for row in left)
        number = {product_id: row for row, product_id in enumerate(ids)}
        found = self._prepared(
            Catalogue(
                self.model,
                {name: [column[row] for row in left.tolist()] for name, column in self.rows.items()},
                ids,
                {key: number[self.ids[row]] for key, row in self.row_of.items() if self.ids[row] in number},
                tuple(self.shown[row] for row in left),
                tuple(self.categories[row] for row in left),
                self.meanings,
                self.embeddings[left],
                self.bias[left],
                self.meets[left],
                self.adds,
                self.room,
            )
        )
        self.traits.with_some(left, found.traits)
        return found

    def _prepared(self, other: "Catalogue") -> "Catalogue":
        for prepared in ("search", "on_device"):
            if prepared in vars(self):
                getattr(other, prepared)
        return other

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

    @cached_property
    def numbers(self) -> tuple[dict[str | None, int], Int32[np.ndarray, " p"]]:
        """A number for each category, and the category number of each product."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(self.categories))}
        return numbers, np.array([numbers[key] for key in self.categories], np.int32)

    def known(self, product_ids: Sequence[object]) -> list[int]:
        """The rows of the products with these ids, ascending; ids that none has are passed over."""
        return sorted({self.row_of[key] for key in map(as_id, product_ids) if key is not None and key in self.row_of})

    def row(self, product_id: object, source: str) -> int:
        """The row of the product with this id. Raises `InputError` where none has it."""
        row = self.row_of.get(as_id(product_id) or "")
        if row is None:
            raise InputError(f"{source}: found {shown(product_id)}; allowed: {self.ids_near(str(product_id))}")
        return row

    def ids_near(self, unknown: str) -> str:
        """The end of an error sentence on an id that no product has."""
        return f"ids of products{nearest_id(unknown, self.row_of) or f', such as {shown(self.ids[0])}'}"

    def excluded(self, table: Table, *, strict: bool) -> list[list[int]]:
        """The indices of the products to exclude for each row of a table with the column `purchased_products`.

        Ids of no product are ignored unless `strict`. Raises `InputError` for the first row with anything else.
        """
        out = []
        for row, ids in enumerate(table.id_lists(BOUGHT)):
            unknown = [product_id for product_id in ids if product_id not in self.row_of] if strict else []
            if unknown:
                hint = nearest_id(unknown[0], self.row_of)
                table.refuse(row, BOUGHT, f"ids of products, and none has {shown(unknown[0])}{hint}")
            out.append(self.known(ids))
        return out

    @cached_property
    def traits(self) -> Traits:
        """What is known of the products beside their vectors and what describes them."""
        return Traits(self.model, self.rows, self.embeddings, self.bias)

    def values(
        self, customers: Float32[np.ndarray, "n d"], met: Bool[np.ndarray, "n r"], rows: Int[np.ndarray, "n m"]
    ) -> Float64[np.ndarray, "n m"]:
        """The sums of score, popularity and boosts, less a half; -inf where there is no row."""
        cosines = np.einsum("nmd,nd->nm", self.embeddings[rows], customers, dtype=np.float64)
        boosts = (met[:, None] & self.meets[rows]) @ self.adds.astype(np.float64)
        return np.where(rows < 0, -np.inf, cosines / 2.0 + self.bias[rows] + boosts)

    def values_of_all(
        self,
        customers: Float32[np.ndarray, "n d"],
        met: Bool[np.ndarray, "n r"],
        allowed: Bool[np.ndarray, " p"] | None,
    ) -> Float64[np.ndarray, "n p"]:
        """`values` of all products; -inf for those that are not allowed."""
        values = np.asarray(customers @ self.embeddings.T, np.float64) / 2.0
        values += self.bias + met @ (self.meets * self.adds.astype(np.float64)).T
        if allowed is not None:
            values[:, ~allowed] = -np.inf
        return np.asarray(values)

    def values_of_average(
        self,
        customers: Float32[np.ndarray, "n d"],
        met: Bool[np.ndarray, "n r"],
        allowed: Bool[np.ndarray, " p"] | None,
    ) -> Float64[np.ndarray, " n"]:
        """The mean of `values` over the products, or over those that are allowed."""
        among = slice(None) if allowed is None or not allowed.any() else allowed
        mean = self.traits.centre if allowed is None else self.embeddings[among].mean(axis=0, dtype=np.float64)
        boosts = met @ (self.meets[among].mean(axis=0) * self.adds)
        return np.asarray(customers @ mean / 2.0 + boosts + self.bias[among].mean(dtype=np.float64))

    def described(self) -> dict[str, list[Any]]:
        """What people know the products by, a list for each kind that any product has."""
        return {name: [one[name] for one in self.shown] for name in self.types}

    @cached_property
    def types(self) -> dict[str, type]:
        """The type that holds all values of each kind that any product has: int, float (gaps too) or str."""
        found = {name: {type(one[name]) for one in self.shown} for name in self.shown[0] if name != "product_id"}
        number = {int, float, NoneType}
        return {
            name: int if types == {int} else float if types <= number else str
            for name, types in found.items()
            if types != {NoneType}
        }

    def entries(
        self,
        rules: Sequence[BoostRule],
        products: Int[np.ndarray, " k"],
        cosines: Float[np.ndarray, " k"],
        met: Bool[np.ndarray, " r"],
    ) -> list[dict[str, Any]]:
        """One customer's recommendations; `met` says whose conditions of the rules the customer meets."""
        boosts: list[dict[str, float]] = [{} for _ in products]
        if rules:
            for own, added in zip(boosts, (met & self.meets[products]).tolist(), strict=True):
                for rule, applies in zip(rules, added, strict=True):
                    if applies:
                        own[rule.name] = own.get(rule.name, 0.0) + rule.add
        each = zip(products.tolist(), cosines.tolist(), self.bias[products].tolist(), boosts, strict=True)
        return [
            {
                **self.shown[row],
                "score": min(max((1.0 + cosine) / 2.0, 0.0), 1.0),
                "popularity": popularity,
                "boost": sum(own.values(), 0.0) if own else 0.0,
                "boosts": own,
            }
            for row, cosine, popularity, own in each
        ]

    def standings(
        self, customer: Float32[np.ndarray, " d"], rows: Int[np.ndarray, " k"], scale: float
    ) -> list[dict[str, float | None]]:
        r"""Where these products stand for a customer among all, by score and popularity, without the shop's rules.

        `percentile`: how many of 100 products stand below, ties half. `times_average`: how many times as likely as the
        average product it is to be the next one bought, $p\,e^{l_j} / \sum_i e^{l_i}$, with log-odds l, the value
        divided by `scale`; None where that is 0: an order without popularity has no log-odds.
        """
        values = (self.embeddings @ customer).astype(np.float64) / 2.0 + self.bias
        ordered = np.sort(values)
        below, upto = (np.searchsorted(ordered, values[rows], side) for side in ("left", "right"))
        percentiles = (50.0 * (below + upto) / len(values)).tolist()
        times: list[float | None] = [None] * len(rows)
        if scale > 0:
            odds = np.exp((values - ordered[-1]) / scale)
            times = (odds[rows] / odds.mean()).tolist()
        return [{"percentile": one, "times_average": more} for one, more in zip(percentiles, times, strict=True)]


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


def as_rows(catalogue: Catalogue, rows: object, table: Table, lists: Sequence[Sequence[Mapping[str, Any]]]) -> Any:
    """The entries of each row's list as `data.tables.answered` gives them: one row per customer and place."""
    row_of = [row for row, found in enumerate(lists) for _ in found]
    entries = [one for found in lists for one in found]
    types = dict(zip(RECOMMENDED[1:], (str, float, float, float), strict=True)) | catalogue.types
    columns: dict[str, tuple[type, list[Any]]] = {
        "place": (int, [place for found in lists for place in range(1, len(found) + 1)]),
        **{name: (kind, [one[name] for one in entries]) for name, kind in types.items()},
    }
    return answered(rows, table, catalogue.model.schema.customers.id, row_of, columns)
