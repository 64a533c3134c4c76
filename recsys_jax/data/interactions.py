"""Who bought what: a table of purchases, or a column of the customer table."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from recsys_jax.data.schema import Interactions, Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.coded import converted, counted
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.data.values import DATE, as_key, parse_date
from recsys_jax.errors import near, nearest_id


def bought_by_row(
    schema: Schema, customers: Table, products: Table, product_row: Mapping[str, int]
) -> list[list[tuple[int, float]]]:
    """The (product row, date) pairs in each row of the customer table, 0 for the date where the schema names none."""
    part, name = schema.customers, schema.customers.purchases or ""
    bought = []
    for row, keys in enumerate(customers.id_lists(name, part.separator, alone=True)):
        said = customers.column(part.date)[row] if part.date is not None else None
        date = 0.0 if part.date is None or not keys else None
        if date is None and not customers.says_nothing(said):
            date = parse_date(said, part.date_format)
        unknown = [key for key in keys if key not in product_row]
        if unknown:
            allowed = f"the id of a product {products.holding(unknown[0])}{_hint(customers)(unknown[0], product_row)}"
            customers.refuse(row, name, allowed)
        elif date is None:
            customers.refuse(row, part.date or "", DATE)
        bought.append([(product_row.get(key, -1), date or 0.0) for key in keys])
    return bought


def _hint(table: Table) -> Callable[[str, Mapping[str, int]], str]:
    """What tells the id that may have been meant; in a table with many mistakes, only what takes no time."""
    return nearest_id if len(table.problems or ()) < 10 else near


def purchases_of(
    part: Interactions,
    table: Table,
    customers: tuple[Table, Mapping[str, int]],
    products: tuple[Table, Mapping[str, int]],
) -> tuple[Table, Float64[np.ndarray, "n 3"], list[str]]:
    """The usable rows of a table, of each (customer row, product row, date), and notes on what is passed over."""
    table, notes = _purchases(part, table, (customers, products))
    table = table.collecting()
    both = ("customers", part.customer, customers), ("products", part.product, products)
    sides = [_rows_of(table, name, *known, f"unknown_{side}") for side, name, known in both]
    dates = None if part.date is None else table.dates(part.date, part.date_format)
    sides.append(np.zeros(len(table)) if dates is None else np.array([*dates], np.float64))
    return table.usable(), np.stack(sides, axis=1)[table.good], notes


def _rows_of(
    table: Table, name: str, other: Table, row_of: Mapping[str, int], policy: str
) -> Float64[np.ndarray, " n"]:
    """The rows in another table that the ids of a column are of; the table refuses those that have none."""

    def known(values: Table) -> Float64[np.ndarray, " n"]:
        keys = values.ids(name)
        for row, key in enumerate(keys):
            if key and key not in row_of:
                allowed = f"an id {other.holding(key)}{_hint(values)(key, row_of)}"
                values.refuse(row, name, f'{allowed}; or [interactions] {policy} = "ignore" passes over such rows')
        return np.array([row_of.get(key, -1) for key in keys], np.float64)

    return table.by_value(name, known)  # type: ignore[no-any-return]


def _purchases(
    part: Interactions, table: Table, known: Sequence[tuple[Table, Mapping[str, int]]] = ()
) -> tuple[Table, list[str]]:
    """The rows that are purchases, by `where` and by whom and what the schema ignores, and notes on the others.

    `known` are the customers and the products; without them, those ignored are the ones without an id.
    """
    notes = []

    def keep(column: Sequence[Any], kept: Callable[[Any], bool], why: str) -> None:
        nonlocal table
        rows = np.array([*converted(kept, column)], bool)
        if passed := np.count_nonzero(~rows):
            notes.append(f"{table.source}: {passed:,} of {len(rows):,} rows passed over, {why}")
            table = table.select(np.flatnonzero(rows))

    def not_among(keys: Collection[str | None]) -> Callable[[str | None], bool]:
        return lambda key: key not in keys

    for name, condition in part.where.items():
        # What says that nothing is known is an empty cell, unless the condition names it.
        words = table.nothing - condition.keys
        keep(converted(partial(_unless, words), table.column(name)), condition.met, f"by where, {name}")
    policies = (part.customer, part.unknown_customers), (part.product, part.unknown_products)
    for place, (name, policy) in enumerate(policies):
        if policy == "ignore" and not known:
            keep(table.keys(name), not_among({""}), f"whose {name} is empty")
        elif policy == "ignore":
            other, ids = known[place]
            aside = other.lost.keys() - ids.keys()
            keep(table.keys(name), not_among(aside - {None}), f"whose {name} is set aside in {other.source}")
            keys = table.keys(name)
            # What is no id, and not empty either, is a mistake in any case.
            unknown = dict.fromkeys(key for key, _ in counted(keys) if key is not None and key not in ids)
            hint = next(filter(None, (near(key, ids) for key in unknown if key)), "")
            keep(keys, not_among(unknown), f"whose {name} is not in {other.source}{hint}")
    return table, notes


def _unless(words: frozenset[str | None], value: object) -> object:
    return None if as_key(value) in words else value


def read_purchases(source: object, schema: Schema) -> tuple[dict[str, list[str]], list[str]]:
    """Who bought what, by customer id, in a file or frame like the schema's [interactions] or customers with purchases.

    Whether customer and product are known elsewhere is not asked, nor when it was. Rows that name none are set aside,
    which notes tell, unless they are to be passed over. Raises `InputError` for a missing column, and where those set
    aside are more than one in ten.
    """
    bought: dict[str, list[str]] = {}
    table = schema.reads(read_table(Path(source)) if isinstance(source, str | Path) else Table.of(source, "purchases"))
    part = schema.interactions
    if part is None:
        customer = schema.customers.id
    else:
        table, _ = _purchases(part, table)
        customer = part.customer
    table = table.collecting()
    customers = table.ids(customer)
    if part is None:
        lists = table.id_lists(schema.customers.purchases or "", schema.customers.separator, alone=True)
    else:
        lists = [[key] for key in table.ids(part.product)]
    for row, (key, products) in enumerate(zip(customers, lists, strict=True)):
        if row not in (table.problems or ()):
            bought.setdefault(key, []).extend(products)
    return bought, table.usable().validation.notes
