"""What is known of a catalogue's products for lists and reasons, each computed where it is first asked for."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32

from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_key
from recsys_jax.models.trained import TrainedModel
from recsys_jax.retrieval.search import SingleSearch


class Traits:
    """Of products with these rows of the product table, vectors and popularity."""

    def __init__(
        self,
        model: TrainedModel,
        rows: Mapping[str, Sequence[Any]],
        embeddings: Float32[np.ndarray, "p d"],
        bias: Float32[np.ndarray, " p"],
    ) -> None:
        self.model, self.rows, self.embeddings, self.bias = model, rows, embeddings, bias

    def told(self, column: str, row: int) -> object:
        """What people read of a product's value in a column that a feature reads."""
        return self._fitted[column].told(self.rows[column][row])

    @cached_property
    def _fitted(self) -> dict[str, FittedFeature]:
        return {fitted.feature.column: fitted for fitted in self.model.products}

    @cached_property
    def columns(self) -> dict[str, str]:
        """The columns of the product table, by their names; brand and category also where no column is named so."""
        part = self.model.schema.products
        roles = {"brand": part.brand, "category": part.category}
        return {role: name for role, name in roles.items() if name is not None} | {name: name for name in self.rows}

    def codes(self, name: str) -> Int32[np.ndarray, "p w"]:
        """A number for each value in a column, of several values each; the same one for the same value, -1 for none."""
        if name not in self._codes:
            self._codes[name] = self._coded(self.columns[name])
        return self._codes[name]

    @cached_property
    def _codes(self) -> dict[str, Int32[np.ndarray, "p w"]]:
        return {}

    def _coded(self, column: str) -> Int32[np.ndarray, "p w"]:
        one = self._fitted.get(column)
        if one is None or isinstance(one.feature, Numeric):
            keys: list[list[str | None]] = [[as_key(value)] for value in self.rows[column]]
        else:
            bags = map(one.feature.items, self.rows[column])
            keys = [[one.canonical(key) or key for key in bag or ()] for bag in bags]
        numbers: dict[str | None, int] = {None: -1}
        out = np.full((len(self.bias), max([1, *map(len, keys)])), -1, np.int32)
        for row, own in enumerate(keys):
            out[row, : len(own)] = [numbers.setdefault(key, len(numbers)) for key in own]
        return out

    @cached_property
    def popularity(self) -> dict[str, Float64[np.ndarray, " p"]]:
        """What popularity adds to scores, less its mean over the products, by the column of the product table.

        The rest, of each product by itself, has the name "".
        """
        rest = self.bias.astype(np.float64)
        found: dict[str, Any] = {}
        if self.model.popularity.attributes:
            for name, part in self.model.popularity_parts(Table("the catalogue", self.rows)).items():
                column = self.model.products[name].feature.column
                found[column] = found.get(column, 0.0) + (part - part.mean())
                rest = rest - part
        return found | {"": rest - rest.mean()}

    @cached_property
    def likeness(self) -> Float32[np.ndarray, "p e"]:
        """Unit vectors of the products, whose dot product is how alike are the customers that two products draw.

        They are the product vectors, in the wide path without the dimensions that bring them to unit length.
        """
        wide = "wide" in self.model.variables["params"]["product"]
        vectors = self.embeddings[:, :-2] if wide else self.embeddings
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)

    @cached_property
    def centre(self) -> Float64[np.ndarray, " d"]:
        """The mean of the products' vectors."""
        return np.asarray(self.embeddings.mean(axis=0, dtype=np.float64))

    @cached_property
    def search_alike(self) -> SingleSearch:
        """The exact search of `likeness`."""
        return SingleSearch(self.likeness)
