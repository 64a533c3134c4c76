"""The tables as a dataset needs them: products, customers and purchases, made of each other where one is not there."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsys_jax.data.files import csv_text
from recsys_jax.data.tables import free
from recsys_jax.data.values import as_plain
from recsys_jax.errors import InputError
from recsys_jax.schema_inference.columns import FEATURES, Column, says
from recsys_jax.schema_inference.linking import Role, Sheet, explained, roles

MADE = "-products", "-customers", "-with-reviews"
"""How the names of tables end that are made of others, behind those of these."""
DATED = "when it was bought"
FOLLOWS = 0.98
"""From which on a column follows from another one, but for slips."""
_NAMED = 0.05  # the same, where the name says so, such as that of a division
_OWN = 0.5  # from which on a column is the customer's and not the purchase's


def following(product: str) -> str:
    """Why a column that follows from the product in another one is left out."""
    return f"it follows from the product, {product}: whoever knows it has seen the answer"


@dataclass(frozen=True)
class Side:
    """Products or customers: where they stand, and the columns that say something of them."""

    file: str
    id: str
    columns: Mapping[str, Column]
    saw: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The other columns, each with the reason."""
    ids: Sequence[str | None] = ()
    """The id in each row."""

    @property
    def repeated(self) -> bool:
        """Whether an id stands in several rows, by more than slips."""
        return len({*self.ids}) < 0.95 * len(self.ids)


@dataclass(frozen=True)
class Shop:
    """What is sold, to whom, and who bought what."""

    products: Side
    customers: Side | None
    """None: they are to be made of reviews."""
    purchases: Sheet
    customer: str
    product: str
    separator: str | None = None
    own: bool = True
    """Whether the purchases stand in the customers' table."""
    reviews: str | None = None
    """The products' column of nested reviews."""
    pairs: Sequence[tuple[int, int]] = ()
    """(customer row, product row) of each purchase of which both are known."""
    made: Mapping[str, str] = field(default_factory=dict)
    """The contents of tables that were made of others, by their names."""


def arrange(sheets: Sequence[Sheet], given: Mapping[Role, Sheet]) -> Shop:
    """What stands where. Raises `InputError` where no table says who bought what, or nothing is said of products."""
    for sheet in sheets:
        sheet.table.require_rows("rows")
    nested = next((name for name, one in sheets[0].columns.items() if one.guessed.kind == "reviews"), None)
    if len(sheets) == 1 and nested is not None:
        return _of_reviews(sheets[0], nested)
    found = roles(sheets, given)
    bought, made = found.purchases, dict[str, str]()
    columns = bought.columns
    product = found.product.column if found.product else _product(bought)
    customer = found.customer.column if found.customer else _customer(bought, product)
    separator = found.product.separator if found.product else None
    bags = columns[product].parts(separator)
    keys = [bag[0] if len(bag) == 1 else None for bag in bags]
    # What follows from the product is the product's, wherever it stands.
    others = [name for name in columns if name not in (product, customer)]
    follows = [name for name in others if _of_product(columns[name], keys)]

    if found.products is not None and found.product is not None:
        products = _side(found.products, found.product.id)
    else:
        ids = list(dict.fromkeys(key for key in keys if key is not None))
        products, made[f"{bought.path.stem}{MADE[0]}.csv"] = _products(bought, product, keys, ids, follows)
    row_of = {key: row for row, key in enumerate(products.ids)}

    if found.customers is not None and found.customer is not None:
        customers = _side(found.customers, found.customer.id)
        known = {key: row for row, key in enumerate(customers.ids)}
        at = [known.get(key) if key is not None else None for key in columns[customer or ""].keys]
    else:
        customers = _customers(bought, customer, product, [name for name in others if name not in follows], follows)
        at = list(range(len(bought.table)))
        if not customers.columns:
            return _with_reviews(bought, product, keys, products)
        if customer is None:
            customer, dates = customers.id, [name for name, why in customers.left_out.items() if why == DATED]
            names = [*customers.columns, product, *dates]
            cells = zip(*(columns[name].cells for name in names), strict=True)
            rows = [[row, *map(_cell, found)] for row, found in enumerate(cells, 1)]
            made[customers.file] = csv_text([[customer, *names], *rows])
    pairs = [(c, row_of[key]) for c, bag in zip(at, bags, strict=True) if c is not None for key in bag if key in row_of]
    own = found.customers is None
    return Shop(products, customers, bought, customer or "", product, separator, own, None, pairs, made)


def _side(sheet: Sheet, id: str) -> Side:
    columns = {name: column for name, column in sheet.columns.items() if name != id}
    ids = sheet.columns[id]
    return Side(sheet.file, id, columns, f"{sheet.file}, {len(sheet.table):,} rows", {}, ids.keys)


def _of_reviews(sheet: Sheet, reviews: str) -> Shop:
    """Products with nested reviews: customers are to be made of these."""
    ids = sorted(sheet.ids, key=lambda column: not says(column.name, "id"))
    if not ids:
        raise InputError(f"{sheet.path}: found no column with another id in each row; allowed: products with one")
    products = _side(sheet, ids[0].name)
    return Shop(products, None, sheet, "", "", reviews=reviews)


def _of_product(column: Column, keys: Sequence[str | None]) -> bool:
    """Whether a column of the purchases says something of the product: all of it, or by its name the most of it."""
    named = any(says(column.name, what) for what in ("brand", "category"))
    return explained(column.keys, keys) >= (_NAMED if named else FOLLOWS)


def _product(sheet: Sheet) -> str:
    """The column of a table of purchases with the product: other columns follow from it."""
    best: tuple[float, str] | None = None
    for column in sheet.columns.values():
        recurs = column.may_be_id and len(column.counts) * 1.5 <= column.filled
        named = says(column.name, "product") + says(column.name, "id") - 2 * says(column.name, "customer")
        if recurs and named > 0:
            others = [one for one in sheet.columns.values() if one is not column and one.counts]
            following = sum(explained(one.keys, column.keys) >= FOLLOWS for one in others)
            best = max(filter(None, (best, (named + following / 4, column.name))))
    if best is None:
        found = ", ".join(sheet.columns)
        raise InputError(
            f"{sheet.path}: found no column with the ids of products, among {found}; allowed: one with such a name, "
            f"whose values come again"
        )
    return best[1]


def _customer(sheet: Sheet, product: str) -> str | None:
    """The column of a table of purchases with the customer."""
    columns = [column for column in sheet.columns.values() if column.name != product and column.may_be_id]
    named = [column for column in columns if says(column.name, "customer") and len(column.counts) > 2]
    named.sort(key=lambda column: (not says(column.name, "id"), -len(column.counts)))
    ids = [column for column in columns if column.unique and says(column.name, "id")]
    return next((column.name for column in [*named, *ids]), None)


def _products(
    sheet: Sheet, product: str, keys: Sequence[str | None], ids: Sequence[str], names: Sequence[str]
) -> tuple[Side, str]:
    """Products out of purchases: of each the most frequent value of what follows from it."""
    if not names:
        raise InputError(
            f"{sheet.path}: found nothing that is said of products, as no column follows from {product!r}; allowed: a "
            f"table of products beside it, or such columns"
        )
    columns = {}
    for name in names:
        said: dict[str | None, Counter[str]] = defaultdict(Counter)
        for key, value in zip(keys, sheet.columns[name].keys, strict=True):
            said[key].update([] if value is None else [value])
        usual = [said[key].most_common(1) for key in ids]
        columns[name] = Column(name, [found[0][0] if found else None for found in usual], sheet.nothing)
    file = f"{sheet.path.stem}{MADE[0]}.csv"
    rows = zip(ids, *(column.cells for column in columns.values()), strict=True)
    saw = f"made of {sheet.file}: what is the same wherever {product} is, {len(ids):,} products"
    return Side(file, product, columns, saw, {}, ids), csv_text([[product, *names], *rows])


def _cell(value: object) -> object:
    return value if isinstance(value, list) else as_plain(value)


def _customers(
    sheet: Sheet, customer: str | None, product: str, names: Sequence[str], of_products: Sequence[str]
) -> Side:
    """Customers in the rows of purchases: by their id, or a customer in each row."""
    left_out = dict.fromkeys(of_products, following(product))
    ids = sheet.columns[customer].keys if customer is not None else []
    repeated = len({*ids}) < len(ids)
    for name in names:
        own = explained(sheet.columns[name].keys, ids) if repeated else 1.0
        if sheet.columns[name].guessed.kind == "date" and not says(name, "about_customer"):
            left_out[name] = DATED
        elif says(name, "afterwards"):
            left_out[name] = "by its name it is known after a purchase alone"
        elif own < _OWN:
            left_out[name] = "it differs between the purchases of one customer"
    columns = {name: sheet.columns[name] for name in names if name not in left_out}
    if not any(one.guessed.kind in FEATURES for one in columns.values()):
        columns = {}
    rows = len(sheet.table)
    if customer is None:
        made = f"made of {sheet.file}, which names no customers: each of its {rows:,} rows is one"
        return Side(f"{sheet.path.stem}{MADE[1]}.csv", free("row", sheet.columns), columns, made, left_out)
    saw = f"{sheet.file}, {rows:,} rows of {len({*ids} - {None}):,} customers"
    return Side(sheet.file, customer, columns, saw, left_out, ids)


def _with_reviews(sheet: Sheet, product: str, keys: Sequence[str | None], products: Side) -> Shop:
    """Products with the texts of their reviews, where nothing is said of who wrote them."""
    texts = [one for one in sheet.columns.values() if one.guessed.saw.startswith("texts of")]
    if not texts:
        raise InputError(
            f"{sheet.path}: found nothing that is said of customers, among {', '.join(sheet.columns)}; allowed: a "
            f"table of customers, columns such as their age, or the texts of reviews"
        )
    text = max(texts, key=lambda one: sum(map(len, one.counts)))
    lists: dict[str, list[dict[str, str]]] = {}
    for key, said in zip(keys, text.keys, strict=True):
        if key is not None and said is not None:
            lists.setdefault(key, []).append({"content": said})
    names, cells = [*products.columns], [one.cells for one in products.columns.values()]
    rows = [
        {products.id: key, **dict(zip(names, map(_cell, row), strict=True)), "reviews": lists.get(key or "", [])}
        for key, *row in zip(products.ids, *cells, strict=True)
    ]
    file = f"{Path(products.file).stem}{MADE[2]}.json"
    saw = f"made of {products.file} and the column {text.name} of {sheet.file}"
    made = {file: json.dumps(rows, ensure_ascii=False, indent=1)}
    return Shop(Side(file, products.id, products.columns, saw), None, sheet, "", "", reviews="reviews", made=made)
