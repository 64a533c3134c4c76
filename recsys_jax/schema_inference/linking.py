"""Which table is which: products, customers and who bought what, by the ids that they share."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations, product
from pathlib import Path
from typing import Literal

import numpy as np

from recsys_jax.data.tables import Table
from recsys_jax.data.values import near, split_keys
from recsys_jax.errors import InputError
from recsys_jax.schema_inference.columns import SEPARATORS, Column, columns_of, missing_words, says

Role = Literal["products", "customers", "purchases"]
_LEAST = 0.3  # of a column's different ids, from which on they are those of another table
_MANY, _COVERED = 10, 0.2  # of the other's ids, from which on it is no accident, such as ratings among ids from 1 on
_TRIED = 2000  # different texts that are split, to see whether they hold ids
_REPEATED = 30  # rows from which on it is no accident that one column follows from another


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table among those that were given."""

    path: Path
    table: Table
    file: str
    """Its name in the dataset's folder."""

    @cached_property
    def nothing(self) -> frozenset[str]:
        """What says in a cell that nothing is known."""
        return frozenset(word for column in columns_of(self.table).values() for word in missing_words(column))

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Its columns, in which such a word is no value."""
        return columns_of(self.table, self.nothing)

    @cached_property
    def ids(self) -> list[Column]:
        """The columns with an id in each row."""
        return [column for column in self.columns.values() if column.unique]

    @cached_property
    def leaning(self) -> float:
        """From -0.5, a table of customers by its names, to 0.5, one of products."""

        def said(*kinds: str) -> int:
            return sum(any(says(name, kind) for kind in kinds) for name in (self.path.stem, *self.columns))

        difference = said("product", "brand", "price") - said("customer", "about_customer")
        return max(-0.5, min(0.5, difference / 4))


@dataclass(frozen=True)
class Link:
    """A column whose values are the ids in a column of another table."""

    column: str
    id: str
    separator: str | None
    score: float


@dataclass(frozen=True)
class Roles:
    """The table of the purchases, and those of products and customers, where they stand in one of their own."""

    purchases: Sheet
    products: Sheet | None = None
    customers: Sheet | None = None
    product: Link | None = None
    customer: Link | None = None

    @property
    def score(self) -> float:
        """How well the parts fit."""
        sides = ((self.products, self.product, "product", 1), (self.customers, self.customer, "customer", -1))
        return -0.1 * self.purchases.leaning + sum(
            link.score + sign * sheet.leaning + 0.3 * says(link.column, word)
            for sheet, link, word, sign in sides
            if sheet is not None and link is not None
        )


def links(sheet: Sheet, other: Sheet) -> Iterator[Link]:
    """The columns of a table that lead to the ids of another one, and how well."""
    for column, own in product(sheet.columns.values(), other.ids):
        found = []
        for sign in (None, *SEPARATORS, " "):
            if sign is None:
                keys = (
                    set(column.counts) if not column.lists else {key for parts in column.parts(None) for key in parts}
                )
            else:
                texts = islice((key for key in column.counts if sign in key), _TRIED)
                keys = {part for text in texts for part in split_keys(text, sign) or ()}
            shared = len(keys & own.counts.keys())
            found.append((shared / max(len(keys), 1), shared / len(own.counts), shared, sign))
        contained, covered, shared, separator = max(found, key=lambda one: one[0])
        if contained >= _LEAST and (shared >= _MANY or covered >= _COVERED):
            alike = 0.5 * (column.name.casefold() == own.name.casefold()) + 0.1 * says(own.name, "id")
            score = contained * (0.5 + 0.5 * covered**0.5) + alike
            yield Link(column.name, own.name, separator, score)


def roles(sheets: Sequence[Sheet], given: Mapping[Role, Sheet]) -> Roles:
    """The likeliest parts of the tables, of which some may be `given`.

    Raises `InputError` where no table has the ids of another one.
    """
    if len(sheets) == 1:
        return Roles(sheets[0])
    known = {pair: list(links(*pair)) for pair in permutations(sheets, 2)}
    found = []
    others: list[Sheet | None] = [None, *sheets]
    for bought, products, customers in product(sheets, others, others):
        if bought in (products, customers) or products is customers:
            continue
        # A customer table with a column of purchases is both.
        parts = {"purchases": bought, "products": products, "customers": customers or bought}
        if any(parts[role] is not sheet for role, sheet in given.items()):
            continue
        sides = [[None] if one is None else known[bought, one] for one in (products, customers)]
        for one, other in product(*sides):
            if (one or other) and (one is None or other is None or one.column != other.column):
                found.append(Roles(bought, products, customers, one, other))
    if not found:
        raise InputError(_unlinked(sheets))
    return max(found, key=lambda one: one.score)


def _unlinked(sheets: Sequence[Sheet]) -> str:
    """A sentence on what was compared, and on how near two columns came."""
    said = []
    for one, other in permutations(sheets, 2):
        columns = [column for column in one.columns.values() if column.may_be_id]
        for own in other.ids[:1] if columns else ():
            keys = (key for column in columns for key in islice(column.counts, _TRIED))
            hint = next(filter(None, (near(key, own.counts) for key in keys)), "")
            names = ", ".join(column.name for column in columns[:6])
            said.append(f"{names} of {one.path} with {own.name} of {other.path}{hint}")
    compared = "; ".join(said) or "nothing, as no table has a column with another id in each row"
    return f"no table has the ids of another one; compared: {compared}; allowed: purchases with the ids of the products"


def explained(values: Sequence[object], groups: Sequence[str | None]) -> float:
    """How much of a column follows from another one: 1 of a category from the product, about 0 of what is independent.

    (right - chance) / (1 - chance), where `right` are the rows with the most frequent value of their group, and
    `chance` those of the same values in any order; 0 where too few rows share a group.
    """
    pairs = [(value, group) for value, group in zip(values, groups, strict=True) if group is not None]
    size = Counter(group for _, group in pairs)
    pairs = [(value, group) for value, group in pairs if size[group] > 1]
    if len(pairs) < _REPEATED:
        return 0.0
    order = np.random.default_rng(0).permutation(len(pairs))
    right, chance = (
        _most_frequent([pairs[row][0] for row in rows], [group for _, group in pairs]) / len(pairs)
        for rows in (range(len(pairs)), order)
    )
    return (right - chance) / (1 - chance) if chance < 1 else 0.0


def _most_frequent(values: Sequence[object], groups: Sequence[str]) -> int:
    """The rows with the most frequent value of their group."""
    most: dict[str, int] = {}
    for (group, _), count in Counter(zip(groups, values, strict=True)).items():
        most[group] = max(most.get(group, 0), count)
    return sum(most.values())
