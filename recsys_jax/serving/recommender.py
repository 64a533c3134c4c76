"""The API for services: customer attributes in, products out."""

import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from recsys_jax.data.features import refuse_unreadable
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_id, as_list
from recsys_jax.errors import InputError, choices, require, shown
from recsys_jax.models.settings import own_settings
from recsys_jax.models.single import SingleTower
from recsys_jax.models.trained import BLOCK, TrainedModel, bucket, buckets
from recsys_jax.serving import scoring
from recsys_jax.serving.boosts import BoostRule, meets, read_boosts
from recsys_jax.serving.catalogue import BOUGHT, Catalogue, require_finite
from recsys_jax.storage.artifacts import load_model
from recsys_jax.storage.torch import catalogue as read_catalogue
from recsys_jax.storage.torch import load_checkpoint

POPULARITY = "popularity"  # the name under which a recommendation's `boosts` say what popularity added


class Ranking(NamedTuple):
    """The best products of each customer, best first; padded with -1 and NaN."""

    products: Int32[np.ndarray, "n k"]
    """Indices into `Recommender.product_ids`."""
    scores: Float32[np.ndarray, "n k"]
    """(1 + cosine) / 2."""
    boosts: Float32[np.ndarray, "n k"]
    """The sum of boost rules and popularity."""


class Recommender:
    """Recommends products to customers of whom only attributes are known.

    Threads may share one. A request reads the catalogue once, without a lock: the old or the new one while products
    are being added.
    """

    def __init__(self, model: TrainedModel, boosts: Sequence[BoostRule] = ()) -> None:
        """Raises `InputError` where a product's vector or popularity is not finite, or a rule has popularity's name."""
        self.model = model
        self.boosts = tuple(boosts)
        for rule in self.boosts if model.config.popularity_bias else ():
            require(rule.name != POPULARITY, "boosts, name", rule.name, "another: popularity reports under it")
        self._conditions = [rule.customer for rule in self.boosts]
        self._adding = threading.Lock()
        products = Table("the model's products", model.product_rows)
        vectors = model.product_embeddings, model.product_bias
        self._catalogue = Catalogue.of(model, self.boosts, products, model.product_ids, *vectors)
        self._tower = SingleTower(model.customers.inputs, model.variables)
        self._columns = dict.fromkeys(fitted.feature.column for fitted in model.customers)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_adding"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _adding=threading.Lock())

    @property
    def product_ids(self) -> tuple[str, ...]:
        """The products that can be recommended, in the order of `Ranking.products`."""
        return self._catalogue.ids

    @classmethod
    def load(
        cls,
        folder: str | Path,
        boosts: str | Path | None = None,
        *,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> "Recommender":
        """The recommender of a run folder, with the boost rules of a TOML file if one is given.

        `tell` is called with a line on former names in the run. Raises `InputError` where the folder holds no undamaged
        model or a rule names what the model doesn't know.
        """
        return cls._with_rules(load_model(folder, tell=tell), boosts)

    @classmethod
    def from_torch(
        cls, checkpoint: str | Path, *, products: object, schema: Schema | None = None, boosts: str | Path | None = None
    ) -> "Recommender":
        """The recommender of a PyTorch checkpoint, `{"model_state_dict": ..., "brand_map": ...}`; no code in it is run.

        `products` are a dataset folder, a product file, a data frame, columns, or a list of dicts; `schema` is by
        default that of the folder's `dataset.toml`, else the published mall's. Raises `InputError` for a file that is
        damaged, doesn't fit the schema or would run code, and for products that the schema doesn't allow.
        """
        return cls._with_rules(load_checkpoint(checkpoint, *read_catalogue(products, schema)), boosts)

    @classmethod
    def _with_rules(cls, model: TrainedModel, boosts: str | Path | None) -> "Recommender":
        return cls(model, () if boosts is None else read_boosts(Path(boosts), model.customers, model.products))

    def recommend(
        self,
        /,  # an attribute may have any name, this one too
        *,
        purchased_products: Sequence[str] = (),
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        strict: bool = False,
        **attributes: object,
    ) -> list[dict[str, Any]]:
        """The best products for one customer, best first.

        Args:
            purchased_products: ids to exclude.
            top_n: the number of products; fewer are returned where fewer remain.
            categories: only products of these categories, by code or label.
            strict: whether an id to exclude that no product has is refused; else it is ignored.
            **attributes: the customer's attributes, named like the columns of the customer table.

        Returns:
            For each product `product_id, name, brand, category, price` (None where the dataset names no such column),
            `score` (from 0 to 1, (1 + cosine) / 2), `boost` (the sum of rules and popularity) and `boosts` (each of
            them by name). The order is that of `score + boost`.

        Raises `InputError` for an attribute, value, category or top_n that is not allowed.
        """
        for name in attributes:
            if name not in self._columns:
                raise InputError(f"recommend(): found the attribute {name!r}; allowed: {choices(self._columns)}")
        # In NumPy: starting a compiled function takes longer than all of the arithmetic for one row.
        values = {name: [attributes.get(name)] for name in self._columns} | {BOUGHT: [purchased_products]}
        table = Table("recommend()", values, single=True)
        catalogue = self._catalogue
        k = _length(catalogue, top_n, table.source)
        allowed = catalogue.allowed(categories, table.source)
        (excluded,) = catalogue.excluded(table, strict=strict)
        customer = self._tower(self.model.customers.encode(table))
        require_finite(customer[None], table)
        met = meets(self._conditions, self.model.customers, table)
        if catalogue.beyond(met):
            rows = catalogue.ranked(customer, met[0], k, exclude=excluded, allowed=allowed)
        else:
            query = catalogue.queries(customer[None], met)[0]
            _, rows = catalogue.search(query, k, exclude=excluded, allowed=allowed)
        return self._entries(catalogue, rows, catalogue.embeddings[rows] @ customer, met[0])

    def recommend_batch(
        self,
        rows: object,
        *,
        purchased_products: Sequence[Sequence[str]] | None = None,
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        strict: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """`recommend` for many customers at once; the lists are those of `recommend`, row by row.

        Scores agree with those of `recommend` to about 1e-7, so products with closer scores may swap places.

        Args:
            rows: a data frame, a mapping of columns, or a list of dicts with the customers' attributes. Other columns
                are ignored, but one that looks like a misspelt attribute is refused.
            purchased_products: the ids to exclude for each row; by default the column of that name, if any.
            top_n, categories, strict: as in `recommend`.

        Raises `InputError` as `recommend` does, with the row; or where `purchased_products` is no list of that length.
        """
        # Rounded up, so that few programs serve every top_n.
        request = rows, purchased_products, top_n, categories, strict
        catalogue, met, products, cosines = self._rank("recommend_batch()", *request, compiled=bucket)
        return [
            self._entries(catalogue, found[found >= 0], own[found >= 0], rules)
            for found, own, rules in zip(products, cosines, met, strict=True)
        ]

    def rank_batch(
        self,
        rows: object,
        *,
        purchased_products: Sequence[Sequence[str]] | None = None,
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        strict: bool = False,
    ) -> Ranking:
        """The recommendations of `recommend_batch` as arrays, for jobs over many customers.

        Arguments and errors are those of `recommend_batch`. k is `top_n`, at most the number of products; each k
        compiles a program of its own.
        """
        request = rows, purchased_products, top_n, categories, strict
        catalogue, met, products, cosines = self._rank("rank_batch()", *request, compiled=int)
        # (n, 1, r), (n, k, r) -> (n, k, r)
        boosts = (met[:, None] & catalogue.meets[products]) @ catalogue.adds + catalogue.bias[products]
        boosts[products < 0] = np.nan
        return Ranking(products, np.clip((1.0 + cosines) / 2.0, 0.0, 1.0), boosts)

    def warmup(self, batch: int = 1, *, top_n: int = 3, exclusions: int = 0, categories: bool = False) -> None:
        """Compiles in advance what `recommend` and `recommend_batch` need, so that no request waits for it.

        Batches are padded to powers of two up to 4,096 and larger ones are split, so ten programs serve all sizes.

        Args:
            batch: the largest batch; 1: `recommend` alone.
            top_n: the largest `top_n`.
            exclusions: the most excluded products of a customer; 0: none.
            categories: whether requests may name categories.
        """
        catalogue = self._catalogue
        k = _length(catalogue, top_n, "warmup()")
        # A blank customer: what is compiled depends on shapes alone.
        customer, met = self._tower(self.model.customers.blank(1)), np.zeros((1, len(self.boosts)), bool)
        catalogue.search(catalogue.queries(customer[None], met)[0], k)
        total = len(catalogue.ids)
        masks: list[Bool[np.ndarray, " p"] | None] = [None, np.ones(total, bool)] if categories else [None]
        most = [0, *buckets(exclusions)] if exclusions else [0]
        for size in buckets(min(batch, BLOCK)) if batch > 1 else []:
            customers = self.model.embed(self.model.customers.blank(size))
            for length, gone, allowed in product(buckets(k), most, masks):
                excluded = [range(min(gone, total))] * size
                self._top(catalogue, customers, met.repeat(size, axis=0), excluded, allowed, length)

    def unmatched(self, product_ids: Sequence[object]) -> list[object]:
        """Those of the ids that no product has: as exclusions they have no effect."""
        row_of = self._catalogue.row_of
        return [product_id for product_id in product_ids if as_id(product_id) not in row_of]

    def add_products(self, rows: object) -> None:
        """Adds products, which can be recommended from then on, all at once; each is embedded once.

        `rows` are a data frame, a mapping of columns, or a list of dicts, with the columns of the product table. The
        number of products that batches are compiled for is rounded up by as much as an eighth, so that few programs
        serve a growing catalogue. Threads that add wait for one another.

        Raises `InputError` for a missing column, a value that no policy allows, or an id that exists; nothing is added
        then.
        """
        model, table = self.model, Table.of(rows, "add_products()")
        if not len(table):
            return
        part = model.schema.products
        ids = table.ids(part.id)
        refuse_unreadable(table, part.shown)
        with self._adding:
            old = self._catalogue
            seen = set(old.row_of)
            for row, product_id in enumerate(ids):
                if product_id in seen:
                    table.refuse(row, part.id, "an id that no other product has")
                seen.add(product_id)
            vectors = model.embed_products(table), model.bias_of_new(table)
            self._catalogue = old.extended(Catalogue.of(model, self.boosts, table, tuple(ids), *vectors))

    def _rank(
        self,
        source: str,
        rows: object,
        purchased: Any,
        top_n: object,
        categories: Sequence[object] | None,
        strict: bool,
        *,
        compiled: Callable[[int], int],
    ) -> tuple[Catalogue, Bool[np.ndarray, "n r"], Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
        """The catalogue, the rules that each row meets, its best products and their cosines, padded with -1 and NaN.

        `compiled` says for how many products a program is compiled that finds k.
        """
        table = self._with_optional_columns(Table.of(rows, source))
        if purchased is None:
            purchased = table.columns.get(BOUGHT) or [()] * len(table)
        lists = as_list(purchased)
        if lists is None or len(lists) != len(table):
            found = shown(purchased) if lists is None else f"{len(lists)} lists"
            allowed = f"a list of product ids for each of the {len(table)} rows"
            raise InputError(f"{source}, {BOUGHT}: found {found}; allowed: {allowed}")
        table = replace(table, columns={**table.columns, BOUGHT: lists})
        catalogue, met = self._catalogue, meets(self._conditions, self.model.customers, table)
        k = _length(catalogue, top_n, table.source)
        among = catalogue.allowed(categories, table.source)
        excluded = catalogue.excluded(table, strict=strict)
        if not len(table):
            return catalogue, met, np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        customers = self.model.embed_customers(table)
        require_finite(customers, table)
        blocks = [slice(start, start + BLOCK) for start in range(0, len(table), BLOCK)]
        parts = [self._top(catalogue, customers[b], met[b], excluded[b], among, compiled(k)) for b in blocks]
        products, cosines = (np.concatenate(each)[:, :k] for each in zip(*parts, strict=True))
        return catalogue, met, products, cosines

    def _with_optional_columns(self, table: Table) -> Table:
        """The table with a column for each attribute that may be missing. Raises `InputError` for a misspelt one."""
        part = self.model.schema.customers
        known = {*self._columns, part.id, part.segment, part.purchases, BOUGHT}
        absent = {name.casefold(): name for name in sorted(set(self._columns) - set(table.columns))}
        for column in table.columns:
            close = [] if column in known else get_close_matches(column.casefold(), absent, 1, cutoff=0.8)
            if close:
                found = f"the column {column!r} and none of the name {absent[close[0]]!r}"
                raise InputError(f"{table.source}: found {found}; allowed: that name, or both columns")
        optional = {fitted.feature.column for fitted in self.model.customers if fitted.feature.missing != "error"}
        empty = {name: [None] * len(table) for name in sorted(optional - set(table.columns))}
        return replace(table, columns={**table.columns, **empty})

    def _top(
        self,
        catalogue: Catalogue,
        customers: Float32[np.ndarray, "n d"],
        met: Bool[np.ndarray, "n r"],
        excluded: Sequence[Sequence[int]],
        allowed: Bool[np.ndarray, " p"] | None,
        k: int,
    ) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
        """The best products of at most `BLOCK` customers and their cosines, padded with -1 and NaN."""
        products: Int32[np.ndarray, "n k"]
        if catalogue.beyond(met):
            products = np.full((len(customers), k), -1, np.int32)
            for row, gone in enumerate(excluded):
                found = catalogue.ranked(customers[row], met[row], k, exclude=gone, allowed=allowed)
                products[row, : len(found)] = found
        else:
            products = self._top_compiled(catalogue, catalogue.queries(customers, met), excluded, allowed, k)
        cosines = np.einsum("nkd,nd->nk", catalogue.embeddings[products], customers)  # (n, k, d), (n, d) -> (n, k)
        return products, np.where(products < 0, np.float32(np.nan), cosines)

    @own_settings()
    def _top_compiled(
        self,
        catalogue: Catalogue,
        customers: Float32[np.ndarray, "n e"],
        excluded: Sequence[Sequence[int]],
        allowed: Bool[np.ndarray, " p"] | None,
        k: int,
    ) -> Int32[np.ndarray, "n k"]:
        """The best products by a compiled function, for a number of customers that is rounded up."""
        count, most = len(customers), max(map(len, excluded))
        queries = np.pad(customers, ((0, bucket(count) - count), (0, 0)))
        exclude = np.full((bucket(count), bucket(most)), -1, np.int32) if most else None
        if exclude is not None:
            for row, gone in enumerate(excluded):
                exclude[row, : len(gone)] = gone
        options = {"exclude": exclude, "allowed": catalogue.on_device_allowed(allowed)}
        return np.asarray(scoring.top_k(queries, catalogue.on_device, k, **options)[1])[:count]

    def _entries(
        self,
        catalogue: Catalogue,
        products: Int[np.ndarray, " k"],
        cosines: Float[np.ndarray, " k"],
        met: Bool[np.ndarray, " r"],
    ) -> list[dict[str, Any]]:
        """One customer's recommendations."""
        boosts: list[dict[str, float]] = [{} for _ in products]
        if self.boosts:
            for own, added in zip(boosts, (met & catalogue.meets[products]).tolist(), strict=True):
                for rule, applies in zip(self.boosts, added, strict=True):
                    if applies:
                        own[rule.name] = own.get(rule.name, 0.0) + rule.add
        if self.model.config.popularity_bias:
            for own, added in zip(boosts, catalogue.bias[products].tolist(), strict=True):
                own[POPULARITY] = added
        return [
            {
                **catalogue.shown[row],
                "score": min(max((1.0 + cosine) / 2.0, 0.0), 1.0),
                "boost": sum(own.values(), 0.0) if own else 0.0,
                "boosts": own,
            }
            for row, cosine, own in zip(products.tolist(), cosines.tolist(), boosts, strict=True)
        ]


def _length(catalogue: Catalogue, top_n: object, source: str) -> int:
    """How many products a list has. Raises `InputError` where `top_n` is no number of products."""
    try:
        k = operator.index(top_n)  # type: ignore[arg-type]
    except TypeError:
        k = 0
    if k < 1 or isinstance(top_n, bool):
        raise InputError(f"{source}, top_n: found {top_n!r}; allowed: a whole number from 1")
    return min(k, len(catalogue.ids))
