"""Which table is which: products, customers and who bought what, by the ids that they share."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations, product
from operator import attrgetter
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from recsys_jax.data.tables import Table
from recsys_jax.data.values import split_keys
from recsys_jax.errors import InputError, near
from recsys_jax.schema_inference.columns import SEPARATORS, Ask, Column, columns_of, missing_words, says

Role = Literal["purchases", "products", "customers"]
NONE = "none"
"""The answer that no column has it."""
_ASKED = {"purchases": "purchases or reviews"}
_LEAST = 0.3  # of a column's different ids, from which on they are those of another table
_MANY, _COVERED = 10, 0.2  # of the other's ids, from which on it is no accident, such as ratings among ids from 1 on
_TRIED = 2000  # different texts that are split, to see whether they hold ids
_WAYS = 40  # of the links from a table, those that are combined
_REPEATED = 30  # rows from which on it is no accident that one column follows from another


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table among those that were given."""

    path: Path
    table: Table
    file: str
    """Its name in the dataset's folder."""
    made: bool = False
    """Whether it was made of others."""

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
        names = self.path.stem, *self.columns
        of_product, of_customer = ("product", "brand", "price"), ("customer", "about_customer")
        kinds = [
            (any(says(name, one) for one in of_product), any(says(name, one) for one in of_customer)) for name in names
        ]
        return max(-0.5, min(0.5, sum(product - customer for product, customer in kinds) / 4))


@dataclass(frozen=True)
class Link:
    """A column whose values are the ids in a column of another table."""

    column: str
    sheet: Sheet
    id: str
    separator: str | None
    score: float
    sure: bool
    """Whether so many are that it is no accident."""


@dataclass(frozen=True)
class Roles:
    """The table of the purchases, and how it leads to those of products and customers, where they have their own."""

    purchases: Sheet
    product: Link | None = None
    customer: Link | None = None

    def sheet(self, role: Role) -> Sheet:
        """The table of a role: that of the purchases where it has none of its own."""
        link = self.product if role == "products" else self.customer
        return self.purchases if role == "purchases" or link is None else link.sheet

    @property
    def score(self) -> tuple[bool, float]:
        """How well the parts fit."""
        found = [(link, sign) for link, sign in ((self.product, 1), (self.customer, -1)) if link is not None]
        named = {1: "product", -1: "customer"}
        parts = [one.score + sign * one.sheet.leaning + 0.3 * says(one.column, named[sign]) for one, sign in found]
        return all(one.sure for one, _ in found), sum(parts) - 0.1 * self.purchases.leaning


def links(sheet: Sheet, other: Sheet) -> Iterator[Link]:
    """The columns of a table that lead to the ids of another one, and how well."""
    for column in sheet.columns.values():
        ways: dict[str | None, set[str]] = {None: {key for parts in column.parts(None) for key in parts}}
        for sign in (*SEPARATORS, " "):
            texts = islice((key for key in column.counts if sign in key), _TRIED)
            ways[sign] = {part for text in texts for part in split_keys(text, sign) or ()}
        for own in other.ids:
            found = [(len(keys & own.counts.keys()), len(keys) or 1, sign) for sign, keys in ways.items()]
            shared, keys, separator = max(found, key=lambda one: one[0] / one[1])
            contained, covered = shared / keys, shared / len(own.counts)
            alike = 0.5 * (column.name.casefold() == own.name.casefold()) + 0.1 * says(own.name, "id")
            sure = contained >= _LEAST and (shared >= _MANY or covered >= _COVERED)
            if shared:
                score = contained * (0.5 + 0.5 * covered**0.5) + alike
                yield Link(column.name, other, own.name, separator, score, sure)


def roles(sheets: Sequence[Sheet], given: Mapping[Role, Sheet]) -> list[Roles]:
    """What the tables may be, of which some may be `given`, the likeliest first.

    Raises `InputError` where a table is empty, none has the ids of another one, or one would if it wrote them alike.
    """
    for sheet in sheets:
        sheet.table.require_rows("rows")
    if len(sheets) == 1:
        return [Roles(sheets[0])]
    found = []
    for bought in sheets:
        led = [link for other in sheets if other is not bought for link in links(bought, other)]
        ways = [None, *sorted(led, key=lambda link: (link.sure, link.score), reverse=True)[:_WAYS]]
        for one, other in product(ways, ways):
            differ = one is None or other is None or (one.column != other.column and one.sheet is not other.sheet)
            made = Roles(bought, one, other)
            if (one or other) and differ and all(sheet is made.sheet(role) for role, sheet in given.items()):
                found.append(made)
    found.sort(key=lambda one: one.score, reverse=True)
    if not found or not found[0].score[0]:
        raise InputError(_unlinked(sheets))
    best = found[0]
    for sheet in sheets if None in (best.product, best.customer) else ():  # else it would add nothing
        if sheet not in {best.sheet(role) for role in get_args(Role)} and (said := _compared(best.purchases, sheet))[1]:
            raise InputError(
                f"{sheet.path} would not be used: {said[0]}{said[1]}; allowed: ids written as there{_repair(said[1])}"
            )
    return found


def chosen(found: Sequence[Roles], ask: Ask) -> Roles:
    """What the tables are. Asks which is which, and for the columns that have the ids, where there is a choice."""

    def narrowed(question: str, answers: Iterable[str]) -> list[Roles]:
        options = defaultdict[str, list[Roles]](list)
        for answer, one in zip(answers, found, strict=True):
            options[answer].append(one)
        return options[pick(question, [*options], ask)]

    for role in get_args(Role):
        found = narrowed(f"Which table has the {_ASKED.get(role, role)}?", [one.sheet(role).file for one in found])
    bought = found[0].purchases.file
    for side in ("product", "customer"):
        link = getattr(found[0], side)
        if link is not None:
            id, column = attrgetter(f"{side}.id"), attrgetter(f"{side}.column")
            found = narrowed(f"Which column of {link.sheet.file} has the id in each row?", map(id, found))
            found = narrowed(f"Which column of {bought} has the ids of {side}s?", map(column, found))
    return found[0]


def pick(question: str, options: Sequence[str], ask: Ask) -> str:
    """One of some answers, the first of which is the guess; asks where there are several."""
    return ask(question, options, options[0]) if len(options) > 1 else options[0]


def _unlinked(sheets: Sequence[Sheet]) -> str:
    """A sentence on what was compared, and on how near two columns came."""
    found = [_compared(one, other) for one, other in permutations(sheets, 2)]
    near_by = [one for one in found if one[1]] or found  # of others nobody would ask
    compared = (
        "; ".join(filter(None, map("".join, near_by)))
        or "nothing, as no table has a column with another id in each row"
    )
    allowed = f"purchases with the ids of the products{_repair(compared)}"
    return f"no table has the ids of another one; compared: {compared}; allowed: {allowed}"


def _repair(hint: str) -> str:
    """How ids are written alike that lost their zeros; "" of others."""
    return ", exported with the column of ids as text, not as numbers" if "zeros at the front" in hint else ""


def _compared(one: Sheet, other: Sheet) -> tuple[str, str]:
    """Which columns are compared with the ids of another table, and how these are written otherwise there, if so."""
    columns = [column for column in one.columns.values() if column.may_be_id]
    for own in other.ids[:1]:
        # The id of a product is none of a customer, however alike the two are.
        what = [kind for kind in ("product", "customer") if says(own.name, kind)]
        columns = [one for one in columns if not what or any(says(one.name, kind) for kind in what) or not _whose(one)]
        if not columns:
            break
        refer = [one for one in columns if not one.unique and not says(one.name, "number")]
        near_by = ((column, _nearly(column, own)) for column in refer)
        column, hint = next((found for found in near_by if found[1]), (None, ""))
        names = column.name if column else ", ".join(column.name for column in columns[:6])
        return f"{names} of {one.path} with {own.name} of {other.path}", hint
    return "", ""


def _whose(column: Column) -> bool:
    return says(column.name, "product") or says(column.name, "customer")


def _nearly(column: Column, own: Column) -> str:
    """How the ids of another table are written otherwise in a column; "" where most of it, or too few, are so."""
    keys = [*islice(column.counts, _TRIED)]
    hints = [hint for key in keys if (hint := near(key, own.counts))]
    enough = len(hints) >= min(_MANY, _COVERED * len(own.counts))
    return hints[0] if enough and len(hints) > len(keys) / 2 else ""


def explained(values: Sequence[object], groups: Sequence[str | None]) -> float:
    """How much of a column follows from another one: 1 of a category from the product, about 0 of what is independent.

    (right - chance) / (1 - chance), where `right` are the rows with the most frequent value of their group, and
    `chance` those of the same values in any order; 0 where too few rows share a group.
    """
    size = Counter(groups)
    pairs = [pair for pair in zip(values, groups, strict=True) if pair[1] is not None and size[pair[1]] > 1]
    if len(pairs) < _REPEATED:
        return 0.0
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = [(pairs[row][0], group) for row, (_, group) in zip(order, pairs, strict=True)]
    right, chance = map(_most_frequent, (pairs, shuffled))
    return (right - chance) / (1 - chance) if chance < 1 else 0.0


def _most_frequent(pairs: Sequence[tuple[object, str | None]]) -> float:
    """The share of the pairs whose value is the most frequent of their group."""
    most = {group: count for (_, group), count in reversed(Counter(pairs).most_common())}
    return sum(most.values()) / len(pairs)
