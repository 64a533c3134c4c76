"""The products that a recommender offers, which may be added and removed while it is asked."""

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from recsys_jax.data.dataset import refuse_unreadable
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.frames import only_column
from recsys_jax.data.values import as_id, as_list
from recsys_jax.errors import near, nearest_id, require, shown, spelt
from recsys_jax.models.trained import TrainedModel
from recsys_jax.serving.boosts import BoostRule
from recsys_jax.serving.catalogue import Catalogue
from recsys_jax.serving.ranking import Wanted
from recsys_jax.serving.reasons import Explainer


class Stock:
    """What is known of products without any customer. Threads may share one: a catalogue is replaced in one step."""

    def __init__(self, model: TrainedModel, boosts: Sequence[BoostRule] = ()) -> None:
        """Raises `InputError` where a product's vector or popularity is not finite."""
        allowed = "a TrainedModel; Recommender.load(FOLDER) reads one"
        require(isinstance(model, TrainedModel), "Recommender(), model", model, allowed)
        self.model = model
        self.boosts = tuple(boosts)
        self._changing = threading.Lock()
        products = Table("the model's products", model.product_rows)
        vectors = model.product_embeddings, model.product_bias
        self._catalogue = Catalogue.of(model, self.boosts, products, model.product_ids, *vectors)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_changing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _changing=threading.Lock())

    @property
    def product_ids(self) -> tuple[str, ...]:
        """The products that can be recommended, in the order of `Ranking.products`."""
        return self._catalogue.ids

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that requests may name: codes and labels."""
        return tuple(self._catalogue.meanings)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `at_most` may name."""
        return tuple(self._catalogue.traits.columns)

    def described(self) -> dict[str, list[Any]]:
        """Name, brand, category and price of the products, as far as the dataset has these."""
        return self._catalogue.described()

    def unmatched(self, product_ids: Sequence[object]) -> list[object]:
        """Those of the ids that no product has: as exclusions they have no effect."""
        row_of = self._catalogue.row_of
        return [product_id for product_id in product_ids if as_id(product_id) not in row_of]

    def unmatched_note(self, what: str, ids: Sequence[object]) -> str:
        """A sentence on those of the ids that no product has; empty where each is a product's."""
        lost = self.unmatched(ids)
        first = f"{shown(lost[0])}{nearest_id(str(lost[0]), self._catalogue.row_of)}" if lost else ""
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
        ids = table.ids(part.id)
        table.refuse_repeated(part.id, ids)
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
            require(not unknown, "remove_products()", unknown[:1], old.ids_near(str(unknown[0])) if unknown else "")
            require(len(rows) < len(old.ids), "remove_products()", "all products", "some, so that one is left")
            self._catalogue = old.without(rows) if rows else old

    @spelt
    def similar(
        self,
        product_id: object,
        top_n: int = 3,
        *,
        categories: Sequence[object] | None = None,
        available: Sequence[object] | None = None,
    ) -> list[dict[str, Any]]:
        """The products that draw the same kind of customers, the most alike first; also of and among added ones.

        `similarity` is the cosine of the product vectors, from -1 to 1; beside it stands what describes the product.
        `categories` and `available` as in `recommend`. Raises `InputError` for what is not allowed.
        """
        catalogue = self._catalogue
        row = catalogue.row(product_id, "similar()")
        plan = Wanted(top_n, categories, available).plan(catalogue, "similar()")
        found = catalogue.traits.search_alike(
            catalogue.traits.likeness[row], plan.k, exclude=[row], allowed=plan.allowed
        )
        return [
            {**catalogue.shown[other], "similarity": float(np.clip(cosine, -1.0, 1.0))}
            for cosine, other in zip(*found, strict=True)
        ]

    def customers_like(self, product_id: object) -> list[dict[str, Any]]:
        """The values of customers' attributes that a product draws above average, those that it draws most first.

        Each is a dict of `attribute`, `value`, `adds` (in log-odds or, of a recipe without, in score, against the
        average product and the average customer; in the deep recipe against the mean over the attribute's values) and
        `share`, that of the training purchases by customers with the value; None of numbers, and where the run is too
        old to know. A number comes once for each `range` in which it draws, with the `value` that draws most. Raises
        `InputError` for an id that no product has.
        """
        catalogue = self._catalogue
        return self._explainer.drawn(catalogue, catalogue.row(product_id, "customers_like()"))

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self.model, self.boosts)
