"""The API for services: customer attributes in, products out."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.features import refuse_unreadable
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table, only_column
from recsys_jax.data.values import as_id, as_list, composed, near
from recsys_jax.errors import InputError, choices, require, shown
from recsys_jax.models.single import SingleTower
from recsys_jax.models.trained import BLOCK, TrainedModel, bucket, buckets
from recsys_jax.retrieval.search import search_batch
from recsys_jax.serving.boosts import BoostRule, meets, read_boosts
from recsys_jax.serving.catalogue import Catalogue, Ranking, Wanted, require_finite
from recsys_jax.serving.history import BOUGHT, History, bought
from recsys_jax.storage.artifacts import load_model
from recsys_jax.storage.torch import catalogue as read_catalogue
from recsys_jax.storage.torch import load_checkpoint


class Recommender:
    """Recommends products to customers of whom only attributes are known.

    Threads may share one. A request reads the catalogue once, without a lock: the old or the new one while products
    are being added or removed. Of customers whose purchases are known, nothing is recommended that they bought, but
    where they buy products again (`repeat = "allowed"`).
    """

    def __init__(self, model: TrainedModel, boosts: Sequence[BoostRule] = (), history: History | None = None) -> None:
        """Raises `InputError` where a product's vector or popularity is not finite."""
        self.model = model
        self.boosts = tuple(boosts)
        self.history = history
        self._conditions = [rule.customer for rule in self.boosts]
        self._changing = threading.Lock()
        products = Table("the model's products", model.product_rows)
        vectors = model.product_embeddings, model.product_bias
        self._catalogue = Catalogue.of(model, self.boosts, products, model.product_ids, *vectors)
        self._tower = SingleTower(model.customers.inputs, model.variables)
        self._nothing = model.schema.missing_values.texts
        self._columns = dict.fromkeys(fitted.feature.column for fitted in model.customers)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_changing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _changing=threading.Lock())

    @property
    def product_ids(self) -> tuple[str, ...]:
        """The products that can be recommended, in the order of `Ranking.products`."""
        return self._catalogue.ids

    def described(self) -> dict[str, list[Any]]:
        """Name, brand, category and price of the products, as far as the dataset has these."""
        return self._catalogue.described()

    @classmethod
    def load(
        cls,
        folder: str | Path,
        boosts: str | Path | None = None,
        *,
        dataset: Dataset | History | str | Path | None = None,
        purchases: object = None,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> "Recommender":
        """The recommender of a run folder, with the boost rules of a TOML file if one is given.

        What customers bought is known by their ids from a `dataset`, or the folder of one, with their attributes; or
        from `purchases`, a file or frame like the one that the model's dataset names. `tell` is called with a line on
        former names in the run, a dataset of another name, and rows that say nothing. Raises `InputError` where the
        folder holds no undamaged model or a rule names what the model doesn't know, and for files that cannot be used.
        """
        model = load_model(folder, tell=tell)
        return cls._with_rules(model, boosts, History.known(dataset, purchases, model.schema, tell))

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
    def _with_rules(
        cls, model: TrainedModel, boosts: str | Path | None, history: History | None = None
    ) -> "Recommender":
        known = model.customers, model.products, {model.schema.products.id: model.product_ids}
        return cls(model, () if boosts is None else read_boosts(Path(boosts), *known), history)

    def recommend(
        self,
        /,  # an attribute may have any name, this one too
        *,
        attributes: Mapping[str, object] | None = None,
        customer_id: object = None,
        purchased_products: Sequence[str] = (),
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        available: Sequence[object] | None = None,
        strict: bool = False,
        standing: bool = False,
        **more_attributes: object,
    ) -> list[dict[str, Any]]:
        """The best products for one customer, best first.

        Args:
            attributes: the customer's attributes, named like the columns of the customer table.
            customer_id: a known customer, whose purchases are excluded; of a dataset, its attributes too, unless given.
            purchased_products: more ids to exclude.
            top_n: the number of products; fewer are returned where fewer remain.
            categories: only products of these categories, by code or label.
            available: only products with these ids.
            strict: whether an id that no product has is refused; else it is ignored, unless nothing available is known.
            standing: whether to tell, too, where each stands among all products (`Catalogue.standings`).
            **more_attributes: attributes as keywords, where none has the name of an argument.

        Returns:
            For each product `product_id, name, brand, category, price` (None where the dataset names no such column),
            `score` (from 0 to 1, (1 + cosine) / 2), `popularity` (what it adds, 0 with a recipe without), `boost` (the
            sum of the shop's rules) and `boosts` (each of them by name). The order is that of the sum of the first
            three.

        Raises `InputError` for an attribute, value, customer, category or top_n that is not allowed.
        """
        stated = self._stated(attributes, more_attributes, customer_id)
        # In NumPy: starting a compiled function takes longer than all of the arithmetic for one row.
        values = {name: [stated.get(name)] for name in self._columns} | {BOUGHT: [purchased_products]}
        table = Table("recommend()", values, single=True, nothing=self._nothing)
        catalogue, wanted = self._catalogue, Wanted(top_n, categories, available, strict)
        k = catalogue.length(top_n, table.source)
        allowed = catalogue.allowed(wanted, table.source)
        (excluded,) = catalogue.excluded(table, strict=strict)
        if customer_id is not None and self.history is not None:
            (own,) = self.history.of_ids([customer_id])
            excluded = sorted({*excluded, *catalogue.known(own)})
        customer = self._tower(self.model.customers.encode(table))
        require_finite(customer[None], table)
        met = meets(self._conditions, self.model.customers, table)
        if catalogue.beyond(met):
            rows = catalogue.ranked(customer, met[0], k, exclude=excluded, allowed=allowed)
        else:
            query = catalogue.queries(customer[None], met)[0]
            _, rows = catalogue.search(query, k, exclude=excluded, allowed=allowed)
        found = catalogue.entries(self.boosts, rows, catalogue.embeddings[rows] @ customer, met[0])
        if standing:
            told = catalogue.standings(customer, rows, self.model.popularity.scale)
            return [one | more for one, more in zip(found, told, strict=True)]
        return found

    def _stated(
        self, attributes: Mapping[str, object] | None, more: Mapping[str, object], customer_id: object
    ) -> dict[str, object]:
        """What is known of a customer, by column. Raises `InputError` for what no column has, or is said twice."""
        require(attributes is None or isinstance(attributes, Mapping), "recommend(), attributes", attributes, "a dict")
        stated = dict[str, object]()
        for told, value in (*(attributes or {}).items(), *more.items()):
            name = composed(told) if isinstance(told, str) else told
            twice = name in stated
            if twice or name not in self._columns:
                found, allowed = shown(name) + " twice" * twice, choices(self._columns) + ", each once" * twice
                raise InputError(f"recommend(): found the attribute {found}; allowed: {allowed}")
            stated[name] = value
        if customer_id is None:
            return stated
        if self.history is None:
            allowed = "where the recommender was given a dataset or purchases: Recommender.load(RUN, dataset=FOLDER)"
            raise InputError(f"recommend(), customer_id: found {shown(customer_id)}; allowed: {allowed}")
        return {**self.history.attributes(customer_id, self._columns), **stated}

    def recommend_batch(
        self,
        rows: object,
        *,
        purchased_products: Sequence[Sequence[str]] | None = None,
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        available: Sequence[object] | None = None,
        strict: bool = False,
        as_frame: bool = False,
    ) -> Any:
        """`recommend` for many customers at once; the lists are those of `recommend`, row by row.

        Scores agree with those of `recommend` to about 1e-7, so products with closer scores may swap places.

        Args:
            rows: a data frame (pandas, Polars, Arrow, ...), a mapping of columns, a structured array, or a list of
                dicts with the customers' attributes. Other columns are ignored, but one that looks like a misspelt
                attribute is refused.
            purchased_products: the ids to exclude for each row; by default those in the column of that name and in the
                dataset's own column of purchases, if there are any. What the recommender knows by the column with the
                customers' ids is excluded in any case.
            top_n, categories, available, strict: as in `recommend`.
            as_frame: whether to give, instead of lists, one row per customer and place with the columns that
                `recsys-jax score --names` writes (`boosts` is left out), in the kind of `rows`: a frame of the same
                library, a list of dicts where they are one, else a mapping of columns.

        Raises `InputError` as `recommend` does, with the row; or where `purchased_products` is no list of that length.
        """
        # Rounded up, so that few programs serve every top_n.
        wanted = Wanted(top_n, categories, available, strict)
        table = Table.of(rows, "recommend_batch()")
        catalogue, met, products, cosines = self._rank(table.source, table, purchased_products, wanted, compiled=bucket)
        lists = [
            catalogue.entries(self.boosts, found[found >= 0], own[found >= 0], rules)
            for found, own, rules in zip(products, cosines, met, strict=True)
        ]
        return catalogue.answered(rows, table, self.model.schema.customers.id, lists) if as_frame else lists

    def rank_batch(
        self,
        rows: object,
        *,
        purchased_products: Sequence[Sequence[str]] | None = None,
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        available: Sequence[object] | None = None,
        strict: bool = False,
    ) -> Ranking:
        """The recommendations of `recommend_batch` as arrays, for jobs over many customers.

        Arguments and errors are those of `recommend_batch`. k is `top_n`, at most the number of products; each k
        compiles a program of its own.
        """
        wanted = Wanted(top_n, categories, available, strict)
        catalogue, met, products, cosines = self._rank("rank_batch()", rows, purchased_products, wanted, compiled=int)
        # (n, 1, r), (n, k, r) -> (n, k, r)
        boosts = (met[:, None] & catalogue.meets[products]) @ catalogue.adds
        added = (np.where(products < 0, np.float32(np.nan), one) for one in (boosts, catalogue.bias[products]))
        return Ranking(products, np.clip((1.0 + cosines) / 2.0, 0.0, 1.0), *added)

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
        k = catalogue.length(top_n, "warmup()")
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

    def unmatched_note(self, what: str, ids: Sequence[object]) -> str:
        """A sentence on those of the ids that no product has; empty where each is a product's."""
        lost = self.unmatched(ids)
        first = f"{shown(lost[0])}{near(str(lost[0]), self.product_ids)}" if lost else ""
        return f"{what}: {len(lost):,} of {len(ids):,} ids are those of no product; the first, {first}" if lost else ""

    def add_products(self, rows: object) -> None:
        """Adds products, which can be recommended from then on, all at once; each is embedded once.

        `rows` are a data frame, a mapping of columns, or a list of dicts, with the columns of the product table. The
        number of products that batches are compiled for is rounded up by as much as an eighth, so that few programs
        serve a growing catalogue. Threads that add wait for one another.

        Raises `InputError` for a missing column, a value that no policy allows, or an id that exists; nothing is added
        then.
        """
        model, table = self.model, self.model.schema.reads(Table.of(rows, "add_products()"))
        if not len(table):
            return
        part = model.schema.products
        ids = table.ids(part.id, repeated=False)
        refuse_unreadable(table, part.shown)
        with self._changing:
            old = self._catalogue
            own = dict.fromkeys(ids)
            for row, product_id in enumerate(ids):
                twin = near(product_id, old.row_of) or near(product_id, own)  # one product would be shown twice
                if product_id in old.row_of or twin:
                    table.refuse(row, part.id, f"an id that no other product has{twin}")
            bias = np.array(model.bias_of_new(table))
            trained = {as_id(one): row for row, one in enumerate(model.product_ids)}  # one that was removed comes back
            again = [row for row, one in enumerate(ids) if one in trained]
            bias[again] = model.product_bias[[trained[ids[row]] for row in again]]
            vectors = model.embed_products(table), bias
            self._catalogue = old.extended(Catalogue.of(model, self.boosts, table, tuple(ids), *vectors))

    def remove_products(self, product_ids: Sequence[object]) -> None:
        """Takes products out, all at once; they are not recommended until they are added again.

        Raises `InputError` for an id that no product has, and where none would be left; nothing is removed then.
        """
        ids = as_list(only_column(product_ids, "remove_products()"))
        require(ids is not None, "remove_products()", product_ids, "a list of ids")
        with self._changing:
            old, rows, unknown = self._catalogue, self._catalogue.known(ids or ()), self.unmatched(ids or ())
            hint = near(str(unknown[0]), old.row_of) if unknown else ""
            require(not unknown, "remove_products()", unknown[:1], f"ids of products{hint}")
            require(len(rows) < len(old.ids), "remove_products()", "all products", "some, so that one is left")
            self._catalogue = old.without(rows) if rows else old

    def _rank(
        self, source: str, rows: object, purchased: Any, wanted: Wanted, *, compiled: Callable[[int], int]
    ) -> tuple[Catalogue, Bool[np.ndarray, "n r"], Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
        """The catalogue, the rules that each row meets, its best products and their cosines, padded with -1 and NaN.

        `compiled` says for how many products a program is compiled that finds k.
        """
        table = self._with_optional_columns(Table.of(rows, source))
        if purchased is not None:
            lists = as_list(only_column(purchased, source))
            if lists is None or len(lists) != len(table):
                found = shown(purchased) if lists is None else f"{len(lists)} lists"
                allowed = f"a list of product ids for each of the {len(table)} rows"
                raise InputError(f"{source}, {BOUGHT}: found {found}; allowed: {allowed}")
            table = replace(table, columns={**table.columns, BOUGHT: lists})
        catalogue, met = self._catalogue, meets(self._conditions, self.model.customers, table)
        k = catalogue.length(wanted.top_n, table.source)
        among = catalogue.allowed(wanted, table.source)
        known = bought(table, self.model.schema, self.history, columns=(BOUGHT,) if purchased is not None else None)
        excluded = catalogue.excluded(replace(table, columns={**table.columns, BOUGHT: known}), strict=wanted.strict)
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
        empty = {name: [None] * len(table) for name in sorted(self.model.customers.optional - set(table.columns))}
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
            queries, among = catalogue.queries(customers, met), catalogue.on_device_allowed(allowed)
            products = search_batch(queries, catalogue.on_device, k, excluded=excluded, allowed=among)
        cosines = np.einsum("nkd,nd->nk", catalogue.embeddings[products], customers)  # (n, k, d), (n, d) -> (n, k)
        return products, np.where(products < 0, np.float32(np.nan), cosines)
