"""What is known of a catalogue's products for lists and reasons, each computed where it is first asked for.

Reading every row of a large catalogue takes seconds, so a catalogue that grows or shrinks keeps what is known.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32

from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.coded import converted
from recsys_jax.data.values import as_key
from recsys_jax.models.trained import TrainedModel
from recsys_jax.retrieval.search import SingleSearch

_PREPARED = ("popularity", "likeness", "centre", "search_alike")


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
        column = self.columns[name]
        if column not in self._codes:
            self._codes[column] = self._coded(column, {None: -1})
        return self._codes[column][1]

    @cached_property
    def _codes(self) -> dict[str, tuple[dict[str | None, int], Int32[np.ndarray, "p w"]]]:
        """By column, the number of each value, and those of the products."""
        return {}

    def _coded(
        self, column: str, known: dict[str | None, int]
    ) -> tuple[dict[str | None, int], Int32[np.ndarray, "p w"]]:
        """The numbers that are known, with more for new values; and those of the products."""
        numbers, keys = dict(known), [own or [] for own in converted(self._keys(column), self.rows[column])]
        out = np.full((len(self.bias), max([1, *map(len, keys)])), -1, np.int32)
        for row, own in enumerate(keys):
            out[row, : len(own)] = [numbers.setdefault(key, len(numbers)) for key in own]
        return numbers, out

    def _keys(self, column: str) -> Callable[[Any], list[str | None]]:
        """What reads a value of a column."""
        one = self._fitted.get(column)
        if one is None or isinstance(one.feature, Numeric):
            return lambda value: [as_key(value)]
        items, canonical = one.feature.items, one.canonical
        return lambda value: [canonical(key) or key for key in items(value) or ()]

    def prepare(self) -> None:
        """Computes all of it beforehand."""
        for name in self.columns:
            self.codes(name)
        for name in _PREPARED:
            getattr(self, name)

    def with_more(self, new: "Traits", all_: "Traits") -> None:
        """Finds out of `new` products what is known of these, and lets `all_`, these and the new ones, know it."""
        for column, (numbers, codes) in self._codes.copy().items():
            numbers, more = new._coded(column, numbers)
            width = max(codes.shape[1], more.shape[1])
            padded = [np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=-1) for one in (codes, more)]
            all_._codes[column] = numbers, np.concatenate(padded)
        if "_parts" in vars(self):
            all_._parts = {name: np.concatenate([part, new._parts[name]]) for name, part in self._parts.items()}
        if "likeness" in vars(self):
            all_.likeness = np.concatenate([self.likeness, new.likeness])
        self._again(all_)

    def with_some(self, rows: Int[np.ndarray, " q"], some: "Traits") -> None:
        """Lets `some`, the products in these rows, know what is known of them."""
        some._codes.update({name: (numbers, codes[rows]) for name, (numbers, codes) in self._codes.copy().items()})
        if "_parts" in vars(self):
            some._parts = {name: part[rows] for name, part in self._parts.items()}
        if "likeness" in vars(self):
            some.likeness = self.likeness[rows]
        self._again(some)

    def _again(self, other: "Traits") -> None:
        """What follows from the rest, and is known of these, is computed of the others."""
        for name in _PREPARED:
            if name in vars(self):
                getattr(other, name)

    @cached_property
    def popularity(self) -> dict[str, Float64[np.ndarray, " p"]]:
        """What popularity adds to scores, less its mean over the products, by the column of the product table.

        The rest, of each product by itself, has the name "".
        """
        each = self._parts | {"": self.bias - sum(self._parts.values(), np.zeros(1))}
        return {name: part - part.mean() for name, part in each.items()}

    @cached_property
    def _parts(self) -> dict[str, Float64[np.ndarray, " p"]]:
        """What the values in each column of the product table add to the popularity that is expected of products."""
        found: dict[str, Any] = {}
        if self.model.popularity.attributes:
            for name, part in self.model.popularity_parts(Table("the catalogue", self.rows)).items():
                column = self.model.products[name].feature.column
                found[column] = found.get(column, 0.0) + part
        return found

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
