"""The API that a service imports: attributes in, products out."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from recsys_jax import scoring
from recsys_jax.artifacts import load_model
from recsys_jax.boosts import BoostRule, read_boosts
from recsys_jax.cells import as_key, cell_number
from recsys_jax.data import Table
from recsys_jax.errors import InputError, choices
from recsys_jax.pytorch import catalogue, load_checkpoint
from recsys_jax.schema import Numeric, Schema
from recsys_jax.trained import TrainedModel, bucket

__all__ = ["Recommender"]

POPULARITY = "popularity"
"""The name under which a model trained with a popularity bias reports what it added."""


@dataclass(frozen=True)
class _Catalogue:
    """The products as they stand at one moment. Adding products makes a new one: a request never sees half of it."""

    ids: tuple[str, ...]
    row_of: Mapping[str, int]
    shown: tuple[dict[str, Any], ...]
    """What a recommendation says of each product, before the score."""
    categories: tuple[str | None, ...]
    embeddings: Float32[np.ndarray, "p d"]
    bias: Float32[np.ndarray, " p"]
    meets: Bool[np.ndarray, "p r"]
    """Which boost rules' product conditions each product meets."""


class Recommender:
    """Recommends products to customers of whom only attributes are known."""

    def __init__(self, model: TrainedModel, boosts: Sequence[BoostRule] = ()) -> None:
        self.model = model
        self.boosts = tuple(boosts)
        self._adds = np.array([rule.add for rule in self.boosts], np.float32)
        self._catalogue = self._describe(
            Table("the model's products", model.product_rows),
            model.product_ids,
            model.product_embeddings,
            model.product_bias,
        )

    @classmethod
    def load(cls, folder: str | Path, boosts: str | Path | None = None) -> "Recommender":
        """The recommender of a run folder, with the boost rules of a TOML file if one is given.

        Raises `InputError` where the folder holds no undamaged model or a rule names what the model doesn't know.
        """
        model = load_model(folder)
        rules = () if boosts is None else read_boosts(Path(boosts), model.customers, model.products)
        return cls(model, rules)

    @classmethod
    def from_torch(
        cls,
        checkpoint: str | Path,
        *,
        products: object,
        schema: Schema | None = None,
        boosts: str | Path | None = None,
    ) -> "Recommender":
        """The recommender of a PyTorch checkpoint, `{"model_state_dict": ..., "brand_map": ...}`.

        Args:
            checkpoint: the file; it is opened with `weights_only=True`.
            products: the catalogue: a dataset folder, a product file, a data frame, columns, or a list of dicts.
            schema: what the towers read; by default what the folder's `dataset.toml` says, else the published mall's.
            boosts: a TOML file with boost rules.

        Raises:
            InputError: for a file that needs code to be opened, is damaged or doesn't fit the schema; for products
                that the schema doesn't allow.
        """
        model = load_checkpoint(checkpoint, *catalogue(products, schema))
        rules = () if boosts is None else read_boosts(Path(boosts), model.customers, model.products)
        return cls(model, rules)

    def recommend(
        self,
        *,
        purchased_products: Sequence[str] = (),
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        **attributes: object,
    ) -> list[dict[str, Any]]:
        """The best products for one customer, best first.

        Args:
            purchased_products: ids that must not appear; ids that are no product of the catalogue are passed over.
            top_n: how many; where fewer remain, fewer come back.
            categories: only products of these categories, by code or label.
            **attributes: the customer's attributes, named like the columns of the customer table.

        Returns:
            For each product `product_id, name, brand, category, price` (None where the dataset names no such column),
            `score` (from 0 to 1, (1 + cosine) / 2), `boost` (what rules and popularity added to it) and `boosts` (by
            rule). The order is that of `score + boost`.

        Raises:
            InputError: for an unknown attribute, value, category or top_n, with what is allowed.
        """
        names = dict.fromkeys(fitted.feature.column for fitted in self.model.customers)
        for name in attributes:
            if name not in names:
                raise InputError(f"recommend(): found the attribute {name!r}; allowed: {choices(names)}")
        table = Table("recommend()", {name: [attributes.get(name)] for name in names}, single=True)
        return self._recommend(table, [purchased_products], top_n, categories)[0]

    def recommend_batch(
        self,
        rows: object,
        *,
        purchased_products: Sequence[Sequence[str]] | None = None,
        top_n: int = 3,
        categories: Sequence[object] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """`recommend` for many customers at once; the lists are those of `recommend`, row by row.

        Scores agree with those of `recommend` to about 1e-7, so products whose scores are closer may change places.

        Args:
            rows: a data frame, a mapping of columns, or a list of dicts with the customers' attributes. Other columns
                are passed over, but one that looks like an absent attribute misspelt is refused.
            purchased_products: for each row the ids that must not appear; by default the column of that name, if any.
            top_n: as in `recommend`.
            categories: as in `recommend`.

        Raises:
            InputError: as in `recommend`, naming the row; or where `purchased_products` is no list of that length.
        """
        table = Table.of(rows, "recommend_batch()")
        self._check_spelling(table)
        absent = {f.feature.column for f in self.model.customers if f.feature.missing != "error"} - set(table.columns)
        table = replace(table, columns={**table.columns, **{name: [None] * len(table) for name in sorted(absent)}})
        if purchased_products is None:
            purchased_products = table.columns.get("purchased_products") or [()] * len(table)
        one_each = f"allowed: a list of product ids for each of the {len(table)} rows"
        if isinstance(purchased_products, str | bytes) or not hasattr(purchased_products, "__len__"):
            raise InputError(f"recommend_batch(), purchased_products: found {purchased_products!r}; {one_each}")
        if len(purchased_products) != len(table):
            raise InputError(
                f"recommend_batch(), purchased_products: found {len(purchased_products)} lists; {one_each}"
            )
        return self._recommend(table, purchased_products, top_n, categories)

    def _check_spelling(self, table: Table) -> None:
        part = self.model.schema.customers
        names = {fitted.feature.column for fitted in self.model.customers}
        others = {part.id, part.segment, part.purchases, "purchased_products"}  # what a customer table has besides
        absent = {name.casefold(): name for name in sorted(names - set(table.columns))}
        for column in table.columns:
            close = [] if column in names | others else get_close_matches(column.casefold(), absent, 1, cutoff=0.8)
            if close:
                raise InputError(
                    f"{table.source}: found the column {column!r} and none of the name {absent[close[0]]!r}; allowed: "
                    "that name, or both columns"
                )

    def add_products(self, rows: object) -> None:
        """Adds products, embedding each once; they can be recommended from then on.

        Args:
            rows: a data frame, a mapping of columns, or a list of dicts, with the columns of the product table.

        Raises:
            InputError: for a missing column, a value that no policy admits, or an id that is already there. Nothing
                is added then.
        """
        old, model = self._catalogue, self.model
        table = Table.of(rows, "add_products()")
        if not len(table):
            return
        ids = table.ids(model.schema.products.id)
        seen = set(old.ids)
        for row, product_id in enumerate(ids):
            if product_id in seen:
                raise table.error(row, model.schema.products.id, "an id that no other product has")
            seen.add(product_id)
        bias = model.bias_of(np.zeros(len(ids), np.int64))  # nobody has bought a new product yet
        new = self._describe(table, tuple(ids), model.embed_products(table), bias)
        both = old.ids + new.ids
        self._catalogue = _Catalogue(
            both,
            {product_id: row for row, product_id in enumerate(both)},
            old.shown + new.shown,
            old.categories + new.categories,
            np.concatenate([old.embeddings, new.embeddings]),
            np.concatenate([old.bias, new.bias]),
            np.concatenate([old.meets, new.meets]),
        )

    def _describe(
        self,
        table: Table,
        ids: tuple[str, ...],
        embeddings: Float32[np.ndarray, "p d"],
        bias: Float32[np.ndarray, " p"],
    ) -> _Catalogue:
        part, space = self.model.schema.products, self.model.products
        of_column = {f.feature.column: f for f in space if not isinstance(f.feature, Numeric)}

        def category(cell: Any) -> str | None:
            """The category as the vocabulary spells it, so that code, label and alias are one."""
            fitted = of_column.get(part.category or "")
            return (fitted.canonical(cell) if fitted else None) or as_key(cell)

        roles = {"name": part.name, "brand": part.brand, "category": part.category, "price": part.price}

        def cells(role: str, column: str | None) -> Sequence[Any]:
            if column is None:
                return [None] * len(ids)
            found = table.column(column)
            if role == "price":  # a CSV file holds texts
                return [_price(cell) for cell in found]
            if role != "category" or column not in of_column:
                return found
            return [None if as_key(cell) is None else of_column[column].label(category(cell) or "") for cell in found]

        columns = {role: cells(role, column) for role, column in roles.items()}
        shown = tuple(
            {"product_id": product_id, **{role: columns[role][row] for role in roles}}
            for row, product_id in enumerate(ids)
        )
        categories = (None,) * len(ids) if part.category is None else tuple(map(category, table.column(part.category)))
        meets = np.array([rule.products(space, table) for rule in self.boosts], bool).reshape(-1, len(ids)).T
        row_of = {product_id: row for row, product_id in enumerate(ids)}
        return _Catalogue(ids, row_of, shown, categories, embeddings, bias, meets)

    def _recommend(
        self,
        table: Table,
        purchased: Sequence[Sequence[str]],
        top_n: int,
        categories: Sequence[object] | None,
    ) -> list[list[dict[str, Any]]]:
        catalogue = self._catalogue
        try:
            k = operator.index(top_n)
        except TypeError:
            k = 0
        if k < 1 or isinstance(top_n, bool):
            raise InputError(f"{table.source}, top_n: found {top_n!r}; allowed: a whole number from 1")
        k = min(k, len(catalogue.ids))
        allowed = self._in_categories(catalogue, categories, table.source)
        excluded = [_rows_of(catalogue, ids, table, row) for row, ids in enumerate(purchased)]
        if not len(table):
            return []
        customers = self.model.embed_customers(table)
        meets = np.array([rule.customers(self.model.customers, table) for rule in self.boosts], bool)
        meets = meets.reshape(-1, len(table)).T
        out: list[list[dict[str, Any]]] = []
        step = bucket(max(1, 2**22 // len(catalogue.ids)))  # blocks of scores of some 30 MB at most
        for start in range(0, len(table), step):
            block = slice(start, start + step)
            out += self._top(catalogue, customers[block], meets[block], excluded[block], allowed, k)
        return out

    def _top(
        self,
        catalogue: _Catalogue,
        customers: Float32[np.ndarray, "n d"],
        meets: Bool[np.ndarray, "n r"],
        excluded: Sequence[Sequence[int]],
        allowed: Bool[np.ndarray, " p"],
        k: int,
    ) -> list[list[dict[str, Any]]]:
        count = len(customers)
        padding = ((0, bucket(count) - count), (0, 0))
        exclude = np.full((bucket(count), bucket(max(map(len, excluded), default=0))), -1, np.int32)
        for row, products in enumerate(excluded):
            exclude[row, : len(products)] = products
        left, right = scoring.with_boosts(
            np.pad(customers, padding), catalogue.embeddings, np.pad(meets, padding), catalogue.meets, self._adds
        )
        found = scoring.top_k(left, right, bucket(k), bias=catalogue.bias, exclude=exclude, allowed=allowed)
        rows = np.asarray(found[1])[:count, :k]
        return [
            [self._entry(catalogue, customers[i], meets[i], row) for row in ranked[ranked >= 0].tolist()]
            for i, ranked in enumerate(rows)
        ]

    def _entry(
        self, catalogue: _Catalogue, customer: Float[np.ndarray, " d"], meets: Bool[np.ndarray, " r"], row: int
    ) -> dict[str, Any]:
        cosine = float(customer @ catalogue.embeddings[row])
        boosts: dict[str, float] = {}
        for rule, one, other in zip(self.boosts, meets, catalogue.meets[row], strict=True):
            if one and other:
                boosts[rule.name] = boosts.get(rule.name, 0.0) + rule.add
        if self.model.config.popularity_bias:
            boosts[POPULARITY] = float(catalogue.bias[row])
        score = min(max((1.0 + cosine) / 2.0, 0.0), 1.0)
        return {**catalogue.shown[row], "score": score, "boost": sum(boosts.values(), 0.0), "boosts": boosts}

    def _in_categories(
        self, catalogue: _Catalogue, categories: Sequence[object] | None, source: str
    ) -> Bool[np.ndarray, " p"]:
        if categories is None:
            return np.ones(len(catalogue.ids), bool)
        if self.model.schema.products.category is None:
            raise InputError(
                f"{source}, categories: found {categories!r}; allowed: none, the dataset names no category"
            )
        present = dict.fromkeys(key for key in catalogue.categories if key is not None)
        known: dict[str, str] = {key: key for key in present}
        for fitted in self.model.products:
            if fitted.feature.column == self.model.schema.products.category:
                known |= {fitted.label(key): key for key in present}
        wanted = set()
        one = isinstance(categories, str) or not isinstance(categories, Iterable)
        for category in [categories] if one else categories:
            key = as_key(category)
            if key not in known:
                raise InputError(f"{source}, categories: found {category!r}; allowed: {choices(known)}")
            wanted.add(known[key])
        return np.array([key in wanted for key in catalogue.categories], bool)


def _price(cell: object) -> object:
    number = cell_number(cell) if isinstance(cell, str) else None
    if number is None:
        return cell
    return int(number) if number.is_integer() else number


def _rows_of(catalogue: _Catalogue, ids: object, table: Table, row: int) -> list[int]:
    if ids is None or (isinstance(ids, float) and np.isnan(ids)):  # how a data frame says that there are none
        return []
    if isinstance(ids, str | bytes) or not isinstance(ids, Sequence | np.ndarray | set | frozenset):
        where = table.source if table.single else f"{table.source}, row {table.number(row)}"
        raise InputError(f"{where}, purchased_products: found {ids!r}; allowed: a list of product ids")
    rows = {catalogue.row_of.get(as_key(product_id) or "") for product_id in ids}
    return sorted(row for row in rows if row is not None)
