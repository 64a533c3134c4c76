"""What is asked, and the products that answer it: for one customer, or for many at once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import As, Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.frames import different, only_column
from recsys_jax.data.values import as_ids, as_key, as_list, composed, parse_number
from recsys_jax.errors import InputError, choices, closed_up, did_you_mean, nearest, require, shown
from recsys_jax.models.trained import TrainedModel, bucket
from recsys_jax.retrieval.lists import Rules, arrange
from recsys_jax.retrieval.search import search_batch
from recsys_jax.serving.catalogue import Catalogue
from recsys_jax.serving.history import BOUGHT, bought_columns

CANDIDATES, DIFFERENT, AT_ONCE = 32, 256, 2**20
"""The fewest products of which a list is made, of different ones, and the most for all customers of a step: memory is
bounded."""
MISSPELT = 0.8
"""How alike a column and an absent attribute are, from which on it is that one misspelt; as `nearest` compares."""
BOUNDS = "min and max in dataset.toml say what is allowed"
FEW = 3
"""How many unknown values of an attribute are told with what may have been meant."""


class Ranking(NamedTuple):
    """The best products of each customer, best first; padded with -1 and NaN."""

    products: Int32[np.ndarray, "n k"]
    """Indices into `Recommender.product_ids`."""
    scores: Float32[np.ndarray, "n k"]
    """(1 + cosine) / 2."""
    boosts: Float32[np.ndarray, "n k"]
    """The sum of the boost rules."""
    popularity: Float32[np.ndarray, "n k"]
    """What popularity adds, 0 where the model was trained without; the order is that of all three."""


class Wanted(NamedTuple):
    """What is asked for, beside customers."""

    top_n: object = 3
    categories: Sequence[object] | None = None
    """By code or label; None: all."""
    available: Sequence[object] | None = None
    """The ids of the products to choose from; None: all."""
    strict: bool = False
    """Whether an id that no product has is refused, and a value that the model does not know."""
    diversity: object = 0.0
    at_most: Mapping[str, int] | None = None
    """By column of the product table, how many products with the same value a list has at most."""
    pinned: Sequence[object] | None = None
    """The ids of products that come first."""

    def plan(self, catalogue: Catalogue, source: str) -> "Plan":
        """What this means for a catalogue. Raises `InputError` for what is not allowed, naming the source."""
        k = self._length(catalogue, source)
        masks = [self._of_categories(catalogue, source), self._available(catalogue, source)]
        known = [mask for mask in masks if mask is not None]
        return Plan(k, np.logical_and.reduce(known) if known else None, *self._rules(catalogue, source))

    def _length(self, catalogue: Catalogue, source: str) -> int:
        try:
            k = index(self.top_n)  # type: ignore[arg-type]
        except TypeError:
            k = 0
        require(k >= 1 and not isinstance(self.top_n, bool), f"{source}, top_n", self.top_n, "a whole number from 1")
        return min(k, len(catalogue.ids))

    def _available(self, catalogue: Catalogue, source: str) -> Bool[np.ndarray, " p"] | None:
        """The products that are available. Raises `InputError` for no ids, and where none of them is a product's.

        A stock may well list what was never trained on: some ids of no product are refused where it is `strict` alone.
        """
        if self.available is None:
            return None
        ids = _ids(self.available, f"{source}, available")
        rows = catalogue.known(ids)
        if self.strict or not rows:
            _refuse_unknown(catalogue, ids, f"{source}, available")
        mask = np.zeros(len(catalogue.ids), bool)
        mask[rows] = True
        return mask

    def _of_categories(self, catalogue: Catalogue, source: str) -> Bool[np.ndarray, " p"] | None:
        categories: Any = self.categories
        if categories is None:
            return None
        if not catalogue.meanings:
            raise InputError(f"{source}, categories: found {categories!r}; allowed: none, products have no category")
        several = as_list(categories)
        numbers, of_product = catalogue.numbers
        allowed = np.zeros(len(catalogue.ids), bool)
        for category in [categories] if several is None else several:
            key = catalogue.meanings.get(as_key(category) or "")
            if key is None:
                require(False, f"{source}, categories", category, choices(catalogue.meanings, found=category))
            allowed |= of_product == numbers.get(key, -1)  # all of it may be gone
        return allowed

    def _rules(self, catalogue: Catalogue, source: str) -> tuple[list[int], Rules | None]:
        """The rows that come first, and what lists are made by; None: the order of the values alone."""
        if self.pinned is None and self.at_most is None and type(self.diversity) is float and self.diversity == 0.0:
            return [], None
        diversity: Any = self.diversity
        limits: Mapping[str, Any] = self.at_most or {}
        fits = (
            isinstance(diversity, int | float | np.floating) and not isinstance(diversity, bool) and 0 <= diversity <= 1
        )
        require(bool(fits), f"{source}, diversity", diversity, "a number from 0 to 1")
        require(isinstance(limits, Mapping), f"{source}, at_most", limits, "a dict, such as {'brand': 2}")
        for name, most in limits.items():
            columns = catalogue.traits.columns
            if name not in columns:
                require(False, f"{source}, at_most", name, choices(columns, found=name))
            whole = isinstance(most, int | np.integer) and not isinstance(most, bool) and most >= 1
            require(bool(whole), f"{source}, at_most, {name}", most, "a whole number from 1")
        ids = [] if self.pinned is None else _ids(self.pinned, f"{source}, pinned")
        _refuse_unknown(catalogue, ids, f"{source}, pinned")
        pinned = list(dict.fromkeys(catalogue.row_of[one] for one in ids))
        if not (pinned or limits or diversity):
            return [], None
        kinds = [catalogue.traits.codes(name) for name in limits]
        return pinned, Rules(float(diversity), catalogue.traits.likeness, kinds, list(map(int, limits.values())))


def columns_named(customers: Iterable[FittedFeature]) -> dict[str, str]:
    """By what people call an attribute, its column or a label, the column; "" where several have that label."""
    features = [fitted.feature for fitted in customers]
    own, labels = {one.column: one.column for one in features}, dict[str, str]()
    for one in features:
        for label in map(composed, one.label.values()):
            labels[label] = "" if labels.get(label, one.column) != one.column else one.column
    return own | labels | own


def column_named(name: object, column_of: Mapping[str, str]) -> str | None:
    """The column of the attribute that a name means, by what `columns_named` gives. None: of none; "": of several.

    Spaces, underscores and capitals are set as one likes: where no name is written so, the one counts that is but for
    these.
    """
    text = composed(name) if isinstance(name, str) else ""
    if text in column_of:
        return column_of[text]
    alike = {column for one, column in column_of.items() if closed_up(one) == closed_up(text)}
    return "" if len(alike) > 1 else next(iter(alike), None)


def stated_once(
    attributes: Mapping[str, object] | None, more: Mapping[str, object], column_of: Mapping[str, str], source: str
) -> dict[str, object]:
    """What is stated of a customer, by column; `column_of` is what `columns_named` gives.

    Raises `InputError` for what names no column, or several, or is said twice.
    """
    require(attributes is None or isinstance(attributes, Mapping), f"{source}, attributes", attributes, "a dict")
    stated = dict[str, object]()
    for told, value in (*(attributes or {}).items(), *more.items()):
        column = column_named(told, column_of)
        twice = column in stated
        if twice or not column:
            several = ", the name of several" if column == "" else ""
            own = dict.fromkeys(filter(None, column_of.values()))
            name = composed(told) if isinstance(told, str) else told
            found, allowed = shown(name) + several + " twice" * twice, choices(own) + ", each once" * twice
            allowed += "" if twice or several else did_you_mean(name, [*column_of, *Wanted._fields])
            raise InputError(f"{source}: found the attribute {found}; allowed: {allowed}")
        stated[column] = value
    return stated


def by_column(names: Collection[str], model: TrainedModel, column_of: Mapping[str, str], source: str) -> dict[str, str]:
    """By each name in a table, the column that it means: the attribute's that is called so, where the table lacks that.

    Raises `InputError` for a name of several attributes, and for two of one.
    """
    part = model.schema.customers
    others = {part.id, part.segment, part.purchases, BOUGHT}
    meant = {}
    for name in names:
        column = None if name in others else column_named(name, column_of)
        require(column != "", source, name, "a column of another name: it is that of several attributes")
        meant[name] = name if column is None or column in names else column
    different([*meant.values()], source)
    return meant


def table_of(rows: object, model: TrainedModel, column_of: Mapping[str, str], source: str) -> Table:
    """The rows as a table; of dicts, one may name an attribute by its column and the next by its label.

    Raises `InputError` as `Table.of` and `by_column` do.
    """
    if isinstance(rows, list | tuple) and all(isinstance(row, Mapping) for row in rows):
        kinds = {tuple(row) for row in rows}
        if len(kinds) > 1:
            meant = {}
            for names in kinds:
                texts = [composed(str(name)) for name in names]
                different(texts, source)
                column = by_column(texts, model, column_of, source)
                meant[names] = [column[text] for text in texts]
            rows = [dict(zip(meant[tuple(row)], row.values(), strict=True)) for row in rows]
    return Table.of(rows, source)


def not_known(customers: Iterable[FittedFeature], stated: Mapping[str, object]) -> list[str]:
    """A sentence on each value that is stated of a customer, by column, and passes though no training row has such."""
    said = []
    for fitted in customers:
        feature = fitted.feature
        value = stated.get(feature.column)
        unknown = fitted.unknown(value) if feature.unknown != "error" else ()
        for number, item in enumerate(unknown):  # of a long list, what is meant would take long to find
            knows = f"; it knows {fitted.allowed(item if number < FEW else None)}"
            if isinstance(feature, Numeric):
                counts = feature.unknown.value if isinstance(feature.unknown, As) else "not stated"
                meant = parse_number(str(item).replace(",", "."))
                hint = "" if meant is None or fitted.unknown(meant) else f"; did you mean {meant:g}?"
                knows = f", which counts as {counts}; allowed: {fitted.allowed()}{hint}"
            said.append(f"{feature.column}: the model does not know {shown(item)}{knows}")
        if isinstance(feature, Numeric) and fitted.unseen(value):
            seen = f"{fitted.low * feature.scale:g} to {fitted.high * feature.scale:g}, which training has seen"
            said.append(f"{feature.column}: {fitted.told(value)} lies outside {seen}; {BOUNDS}")
    return said


def refuse_not_known(customers: Iterable[FittedFeature], table: Table) -> None:
    """Raises `InputError` for the first value of a table that `not_known` tells of."""
    for fitted in customers:
        for row, value in enumerate(table.column(fitted.feature.column)):
            for said in not_known([fitted], {fitted.feature.column: value}):
                raise InputError(f"{table.where(row)}, {said}")


def with_optional_columns(table: Table, model: TrainedModel, column_of: Mapping[str, str]) -> Table:
    """The table with a column for each attribute that may be missing; `column_of` is what `columns_named` gives.

    Raises `InputError` for a misspelt one, and where columns are named and none is an attribute: it is another file.
    """
    part, columns = model.schema.customers, dict.fromkeys(fitted.feature.column for fitted in model.customers)
    known = {*columns, part.id, part.segment, part.purchases, BOUGHT}
    names = by_column(table.columns, model, column_of, table.source)
    table = replace(table, columns={names[name]: values for name, values in table.columns.items()})
    absent = sorted(set(columns) - set(table.columns))
    for column in table.columns:
        meant = None if column in known else nearest(column, absent, MISSPELT)
        if meant is not None:
            found = f"the column {column!r} and none of the name {meant!r}"
            raise InputError(f"{table.source}: found {found}; allowed: that name, or both columns")
    if set(table.columns) - set(bought_columns(model.schema)) and not columns.keys() & table.columns:
        found = f"the columns {choices(table.columns, 6)}, none of which is an attribute of customers"
        hint = next(filter(None, (did_you_mean(name, columns) for name in table.columns)), "")
        raise InputError(f"{table.source}: found {found}; allowed: columns named {choices(columns)}{hint}")
    empty = {name: [None] * len(table) for name in sorted(model.customers.optional - set(table.columns))}
    return replace(table, columns={**table.columns, **empty})


def _ids(given: object, where: str) -> list[str]:
    ids = as_ids(only_column(given, where), alone=False)
    if ids is None:
        raise InputError(f"{where}: found {shown(given)}; allowed: a list of ids of products")
    return ids


def _refuse_unknown(catalogue: Catalogue, ids: Sequence[str], where: str) -> None:
    unknown = next((one for one in ids if one not in catalogue.row_of), None)
    if unknown is not None:
        raise InputError(f"{where}: found {shown(unknown)}; allowed: {catalogue.ids_near(unknown)}")


@dataclass(frozen=True)
class Plan:
    """What is asked for, in rows of a catalogue."""

    k: int
    allowed: Bool[np.ndarray, " p"] | None
    """The products that may be recommended; None: all."""
    pinned: Sequence[int] = ()
    rules: Rules | None = None

    def of_one(
        self,
        catalogue: Catalogue,
        customer: Float32[np.ndarray, " d"],
        met: Bool[np.ndarray, " r"],
        excluded: Sequence[int],
    ) -> Int[np.ndarray, " m"]:
        """The rows of the products for one customer, in NumPy: starting a compiled function takes longer."""
        if self.rules is None:
            return self._best(catalogue, customer, met, self.k, excluded)

        def candidates(_: Any, depth: int, gone: Sequence[Sequence[int]]) -> Any:
            found = self._best(catalogue, customer, met, depth, gone[0])
            return np.pad(found, (0, depth - len(found)), constant_values=-1)[None]

        rows = self._lists(catalogue, customer[None], met[None], [excluded], candidates)[0]
        return np.asarray(rows[rows >= 0])

    def _best(
        self,
        catalogue: Catalogue,
        customer: Float32[np.ndarray, " d"],
        met: Bool[np.ndarray, " r"],
        k: int,
        excluded: Sequence[int],
    ) -> Int[np.ndarray, " m"]:
        if catalogue.beyond(met[None]):
            return catalogue.ranked(customer, met, k, exclude=excluded, allowed=self.allowed)
        query = catalogue.queries(customer[None], met[None])[0]
        return catalogue.search(query, k, exclude=excluded, allowed=self.allowed)[1]

    def of_many(
        self,
        catalogue: Catalogue,
        customers: Float32[np.ndarray, "n d"],
        met: Bool[np.ndarray, "n r"],
        excluded: Sequence[Sequence[int]],
        compiled: Callable[[int], int],
    ) -> Int32[np.ndarray, "n k"]:
        """The rows of the products for many customers, padded with -1.

        `compiled` says for how many products a program is compiled that finds k.
        """

        def search(some: Any, depth: int, gone: Sequence[Sequence[int]]) -> Any:
            if not catalogue.beyond(met[some]):
                queries, among = (
                    catalogue.queries(customers[some], met[some]),
                    catalogue.on_device_allowed(self.allowed),
                )
                return search_batch(queries, catalogue.on_device, depth, excluded=gone, allowed=among)
            products = np.full((len(gone), depth), -1, np.int32)
            for row, (customer, own, out) in enumerate(zip(customers[some], met[some], gone, strict=True)):
                found = catalogue.ranked(customer, own, depth, exclude=out, allowed=self.allowed)
                products[row, : len(found)] = found
            return products

        if self.rules is None:
            return np.asarray(search(slice(None), compiled(self.k), excluded)[:, : self.k])
        return self._lists(catalogue, customers, met, excluded, search).astype(np.int32)

    def _lists(
        self,
        catalogue: Catalogue,
        customers: Float32[np.ndarray, "n d"],
        met: Bool[np.ndarray, "n r"],
        excluded: Sequence[Sequence[int]],
        search: Callable[[Any, int, Sequence[Sequence[int]]], Int[np.ndarray, "n m"]],
    ) -> Int[np.ndarray, "n k"]:
        """Lists by the rules: of the best candidates, and of more where others could be among them."""
        assert self.rules is not None
        out = np.full((len(customers), self.k), -1, np.int64)
        first = np.tile(np.array(self.pinned, np.int64), (len(customers), 1))  # (n, q)
        if self.allowed is not None:
            first[:, ~self.allowed[first[0]]] = -1
        for row, own in enumerate(excluded):
            first[row, np.isin(first[row], own)] = -1
        first = np.take_along_axis(first, np.argsort(first < 0, axis=1, kind="stable"), axis=1)
        gone = [[*own, *self.pinned] for own in excluded]
        average = catalogue.values_of_average(customers, met, self.allowed)
        depth = bucket(max(DIFFERENT if self.rules.diversity else CANDIDATES, 2 * self.k))
        left = np.arange(len(customers))
        for number in (depth, len(catalogue.ids)):  # of the best ones, and where these may not do, of all
            unsure = [left[:0]]
            size = max(1, AT_ONCE // number)
            for some in (left[start : start + size] for start in range(0, len(left), size)):
                if number == depth:
                    rows = search(some, depth, [gone[one] for one in some])
                    values = catalogue.values(customers[some], met[some], rows)
                else:
                    rows, values = None, catalogue.values_of_all(customers[some], met[some], self.allowed)
                    for row, one in enumerate(some):
                        values[row, gone[one]] = -np.inf
                found, certain = arrange(self.rules, self.k, first[some], rows, values, average[some])
                out[some] = found
                unsure.append(some[~certain])
            left = np.concatenate(unsure)
        return out
