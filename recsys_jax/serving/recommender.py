"""The API for services: customer attributes in, products out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError, shown, spelt
from recsys_jax.models.single import SingleTower
from recsys_jax.models.trained import BLOCK, TrainedModel, bucket, buckets
from recsys_jax.serving.boosts import BoostRule, meets, read_boosts
from recsys_jax.serving.catalogue import Catalogue, as_rows, require_finite
from recsys_jax.serving.history import BOUGHT, History, bought, lists_of
from recsys_jax.serving.ranking import (
    Plan,
    Ranking,
    Wanted,
    columns_named,
    refuse_not_known,
    stated_once,
    table_of,
    with_optional_columns,
)
from recsys_jax.serving.stock import Stock
from recsys_jax.storage.artifacts import load_model
from recsys_jax.storage.torch import catalogue as read_catalogue
from recsys_jax.storage.torch import load_checkpoint


class Recommender(Stock):
    """Recommends products to customers of whom only attributes are known.

    Threads may share one. A request reads the catalogue once, without a lock: the old or the new one while products
    are being added or removed. Of customers whose purchases are known, nothing is recommended that they bought, but
    where they buy products again (`repeat = "allowed"`).
    """

    def __init__(self, model: TrainedModel, boosts: Sequence[BoostRule] = (), history: History | None = None) -> None:
        """Raises `InputError` where a product's vector or popularity is not finite."""
        super().__init__(model, boosts)
        self.history = history
        self._conditions = [rule.customer for rule in self.boosts]
        self._tower = SingleTower(model.customers.inputs, model.variables)
        self._nothing = model.schema.missing_values.texts
        self.column_of = columns_named(model.customers)
        self._columns = dict.fromkeys(fitted.feature.column for fitted in model.customers)

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
        diversity: float = 0.0,
        at_most: Mapping[str, int] | None = None,
        pinned: Sequence[object] | None = None,
        standing: bool = False,
        explain: bool = False,
        **more_attributes: object,
    ) -> list[dict[str, Any]]:
        """The best products for one customer, best first.

        Args:
            attributes: the customer's attributes, named like the columns of the customer table, or by their labels.
            customer_id: a known customer, whose purchases are excluded; of a dataset, its attributes too, unless given.
            purchased_products: more ids to exclude.
            top_n: the number of products; fewer are returned where fewer remain.
            categories: only products of these categories, by code or label.
            available: only products with these ids.
            strict: whether an id that no product has, and a value that the model does not know, is refused; else it is
                ignored, unless nothing available is known, or `dataset.toml` refuses it.
            diversity: from 0, the best products, to 1: each as unlike those before it as can be (`retrieval.lists`).
            at_most: by column of the product table, or "brand" and "category", how many products with the same value.
            pinned: the ids of products that come first, whatever their scores and values; not where they are excluded.
            explain: whether to tell, too, why each is recommended (`reasons.Explainer.of`).
            standing: whether to tell, too, where each stands among all products (`Catalogue.standings`).
            **more_attributes: attributes as keywords, where none has the name of an argument.

        Returns:
            For each product `product_id, name, brand, category, price` (None where the dataset names no such column),
            `score` (from 0 to 1, (1 + cosine) / 2), `popularity` (what it adds, 0 with a recipe without), `boost` (the
            sum of the shop's rules) and `boosts` (each of them by name). The order is that of the sum of the first
            three.

        Raises `InputError` for an attribute, value, customer, category or top_n that is not allowed.
        """
        table = self._table("recommend()", attributes, more_attributes, customer_id, purchased_products)
        catalogue = self._catalogue
        wanted = Wanted(top_n, categories, available, strict, diversity, at_most, pinned)
        plan = wanted.plan(catalogue, table.source)
        (excluded,) = catalogue.excluded(table, strict=strict)
        if strict:
            refuse_not_known(self.model.customers, table)
        if customer_id is not None and self.history is not None:
            (own,) = self.history.of_ids([customer_id])
            excluded = sorted({*excluded, *catalogue.known(own)})
        customer, met = self._one(table)
        rows = plan.of_one(catalogue, customer, met, excluded)
        found = catalogue.entries(self.boosts, rows, catalogue.embeddings[rows] @ customer, met)
        more = [catalogue.standings(customer, rows, self.model.popularity.scale)] if standing else []
        more += [self._explainer.of(catalogue, table, met, rows)] if explain else []
        for told in more:
            found = [one | own for one, own in zip(found, told, strict=True)]
        return found

    def explain(
        self,
        product_id: object,
        /,
        *,
        attributes: Mapping[str, object] | None = None,
        customer_id: object = None,
        **more_attributes: object,
    ) -> dict[str, Any]:
        """Why a product would be recommended to a customer, or would not: what `recommend(explain=True)` says of it.

        Also of a product that was bought. Raises `InputError` as `recommend` does, and for an id that no product has.
        """
        table = self._table("explain()", attributes, more_attributes, customer_id)
        catalogue, (customer, met) = self._catalogue, self._one(table)
        rows = np.array([catalogue.row(product_id, "explain()")])
        (found,) = catalogue.entries(self.boosts, rows, catalogue.embeddings[rows] @ customer, met)
        return found | self._explainer.of(catalogue, table, met, rows)[0]

    def _table(
        self,
        source: str,
        attributes: Mapping[str, object] | None,
        more: Mapping[str, object],
        customer_id: object,
        purchased: Sequence[str] = (),
    ) -> Table:
        """The one row of a customer: what is stated, and what is known of the id."""
        known: Mapping[str, object] = {}
        if customer_id is not None:
            if self.history is None:
                allowed = (
                    "where the recommender was given a dataset or purchases: Recommender.load(RUN, dataset=FOLDER)"
                )
                raise InputError(f"{source}, customer_id: found {shown(customer_id)}; allowed: {allowed}")
            known = self.history.attributes(customer_id, self._columns, f"{source}, customer_id")
        stated = {**known, **stated_once(attributes, more, self.column_of, source)}
        values = {name: [stated.get(name)] for name in self._columns} | {BOUGHT: [purchased]}
        return Table(source, values, single=True, nothing=self._nothing)

    def _one(self, table: Table) -> tuple[Float32[np.ndarray, " d"], Bool[np.ndarray, " r"]]:
        """The unit vector of the one customer in a table, and the rules whose conditions they meet."""
        customer = self._tower(self.model.customers.encode(table))
        require_finite(customer[None], table)
        return customer, meets(self._conditions, self.model.customers, table)[0]

    @spelt
    def recommend_batch(
        self,
        rows: object,
        *,
        purchased_products: Sequence[Sequence[str]] | None = None,
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        available: Sequence[object] | None = None,
        strict: bool = False,
        diversity: float = 0.0,
        at_most: Mapping[str, int] | None = None,
        pinned: Sequence[object] | None = None,
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
            top_n, categories, available, strict, diversity, at_most, pinned: as in `recommend`.
            as_frame: whether to give, instead of lists, one row per customer and place with the columns that
                `recsys-jax score --names` writes (`boosts` is left out), in the kind of `rows`: a frame of the same
                library, a list of dicts where they are one, else a mapping of columns.

        Raises `InputError` as `recommend` does, with the row; or where `purchased_products` is no list of that length.
        """
        # Rounded up, so that few programs serve every top_n.
        wanted = Wanted(top_n, categories, available, strict, diversity, at_most, pinned)
        table = table_of(rows, self.model, self.column_of, "recommend_batch()")
        catalogue, met, products, cosines = self._rank(table.source, table, purchased_products, wanted, compiled=bucket)
        lists = [
            catalogue.entries(self.boosts, found[found >= 0], own[found >= 0], rules)
            for found, own, rules in zip(products, cosines, met, strict=True)
        ]
        return as_rows(catalogue, rows, table, lists) if as_frame else lists

    @spelt
    def rank_batch(
        self,
        rows: object,
        *,
        purchased_products: Sequence[Sequence[str]] | None = None,
        top_n: int = 3,
        categories: Sequence[object] | None = None,
        available: Sequence[object] | None = None,
        strict: bool = False,
        diversity: float = 0.0,
        at_most: Mapping[str, int] | None = None,
        pinned: Sequence[object] | None = None,
    ) -> Ranking:
        """The recommendations of `recommend_batch` as arrays, for jobs over many customers.

        Arguments and errors are those of `recommend_batch`. k is `top_n`, at most the number of products; each k
        compiles a program of its own.
        """
        wanted = Wanted(top_n, categories, available, strict, diversity, at_most, pinned)
        catalogue, met, products, cosines = self._rank("rank_batch()", rows, purchased_products, wanted, compiled=int)
        # (n, 1, r), (n, k, r) -> (n, k, r)
        boosts = (met[:, None] & catalogue.meets[products]) @ catalogue.adds
        added = (np.where(products < 0, np.float32(np.nan), one) for one in (boosts, catalogue.bias[products]))
        return Ranking(products, np.clip((1.0 + cosines) / 2.0, 0.0, 1.0), *added)

    def warmup(
        self,
        batch: int = 1,
        *,
        top_n: int = 3,
        exclusions: int = 0,
        categories: bool = False,
        lists_and_reasons: bool = False,
    ) -> None:
        """Compiles in advance what `recommend` and `recommend_batch` need, so that no request waits for it.

        Batches are padded to powers of two up to 4,096 and larger ones are split, so ten programs serve all sizes.

        Args:
            batch: the largest batch; 1: `recommend` alone.
            top_n: the largest `top_n`.
            exclusions: the most excluded products of a customer; 0: none.
            categories: whether requests may name categories.
            lists_and_reasons: whether requests may name rules of lists, or ask for reasons or similar products, for
                which the whole catalogue is read, once.
        """
        catalogue = self._catalogue
        if lists_and_reasons:
            catalogue.traits.prepare()
        k = Wanted(top_n).plan(catalogue, "warmup()").k
        # A blank customer: what is compiled depends on shapes alone.
        customer, met = self._tower(self.model.customers.blank(1)), np.zeros((1, len(self.boosts)), bool)
        Plan(k, None).of_one(catalogue, customer, met[0], ())
        total = len(catalogue.ids)
        masks: list[Bool[np.ndarray, " p"] | None] = [None, np.ones(total, bool)] if categories else [None]
        most = [0, *buckets(exclusions)] if exclusions else [0]
        for size in buckets(min(batch, BLOCK)) if batch > 1 else []:
            customers = self.model.embed(self.model.customers.blank(size))
            for length, gone, allowed in product(buckets(k), most, masks):
                excluded = [range(min(gone, total))] * size
                Plan(length, allowed).of_many(catalogue, customers, met.repeat(size, axis=0), excluded, int)

    def _rank(
        self, source: str, rows: object, purchased: Any, wanted: Wanted, *, compiled: Callable[[int], int]
    ) -> tuple[Catalogue, Bool[np.ndarray, "n r"], Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
        """The catalogue, the rules that each row meets, its best products and their cosines, padded with -1 and NaN.

        `compiled` says for how many products a program is compiled that finds k.
        """
        table = with_optional_columns(table_of(rows, self.model, self.column_of, source), self.model, self.column_of)
        if purchased is not None:
            table = replace(table, columns={**table.columns, BOUGHT: lists_of(purchased, table)})
        catalogue, met = self._catalogue, meets(self._conditions, self.model.customers, table)
        plan = wanted.plan(catalogue, table.source)
        known = bought(table, self.model.schema, self.history, columns=(BOUGHT,) if purchased is not None else None)
        excluded = catalogue.excluded(replace(table, columns={**table.columns, BOUGHT: known}), strict=wanted.strict)
        if wanted.strict:
            refuse_not_known(self.model.customers, table)
        if not len(table):
            return catalogue, met, np.empty((0, plan.k), np.int32), np.empty((0, plan.k), np.float32)
        customers = self.model.embed_customers(table)
        require_finite(customers, table)
        blocks = [slice(start, start + BLOCK) for start in range(0, len(table), BLOCK)]
        parts = [plan.of_many(catalogue, customers[b], met[b], excluded[b], compiled) for b in blocks]
        products = np.concatenate(parts)
        cosines = np.concatenate(
            [np.einsum("nkd,nd->nk", catalogue.embeddings[p], customers[b]) for p, b in zip(parts, blocks, strict=True)]
        )
        return catalogue, met, products, np.where(products < 0, np.float32(np.nan), cosines)
