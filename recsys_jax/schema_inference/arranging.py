"""The tables as a dataset needs them: products, customers and purchases, made of each other where one is not there."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from recsys_jax.data.files import csv_text
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.frames import free
from recsys_jax.data.values import ID, as_id, as_plain
from recsys_jax.errors import InputError
from recsys_jax.schema_inference.columns import FEATURES, Ask, Column, objects, says, words
from recsys_jax.schema_inference.leaks import FOLLOWS, judged
from recsys_jax.schema_inference.linking import NONE, Roles, Sheet, chosen, explained, pick
from recsys_jax.schema_inference.profiles import Stated, attributes, language, nested, places, profiles

MADE = "-products", "-customers", "-with-reviews", "-products-with-reviews"
"""How the names of tables end that are made of others, behind those of these."""
_AGAIN = 0.95  # different ids among those in rows, below which customers come again by more than slips
_OWN = 0.5  # from which on a column is the customer's and not the purchase's


@dataclass(frozen=True)
class Side:
    """Products or customers: where they stand, and what is said of them."""

    sheet: Sheet
    id: str
    saw: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Columns that say nothing of them, each with the reason; "" where nobody would ask for it."""

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns that say something of them."""
        return {name: one for name, one in self.sheet.columns.items() if name != self.id and name not in self.left_out}

    @property
    def ids(self) -> Sequence[str | None]:
        """The id in each row."""
        return self.sheet.columns[self.id].keys

    @property
    def repeated(self) -> bool:
        """Whether an id stands in several rows, by more than slips."""
        return len({*self.ids}) < _AGAIN * len(self.ids)


@dataclass(frozen=True)
class Shop:
    """What is sold, to whom, and who bought what."""

    products: Side
    customers: Side | None
    """None: they are to be made of reviews."""
    purchases: Sheet
    customer: str = ""
    product: str = ""
    separator: str | None = None
    own: bool = True
    """Whether the purchases stand in the customers' table."""
    reviews: str | None = None
    """The products' column of nested reviews, of which customers are made."""
    language: str = ""
    """That of the reviews."""
    stated: Sequence[Stated] = ()
    """What reviewers state."""
    saw: str = ""
    """Why customers are made of reviews."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """What the table of reviews has beside, as a side has it."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """What is doubtful of columns that are kept."""
    pairs: Sequence[tuple[int, int]] = ()
    """(customer row, product row) of each purchase of which both are known."""

    @property
    def made(self) -> dict[str, str]:
        """The contents of tables that were made of others, by their names."""
        sides = [side.sheet for side in (self.products, self.customers) if side is not None]
        return {sheet.file: _text(sheet) for sheet in sides if sheet.made}

    def unused(self, sheet: Sheet) -> str:
        """Why a table is not used: another one was taken that has the same ids, or it has none of them."""
        for side, role in ((self.products, "products"), (self.customers, "customers")):
            ids = {*side.ids} - {None} if side else set[str | None]()
            shared = {name: len(ids & column.counts.keys()) for name, column in sheet.columns.items()}
            name = max(shared, key=shared.__getitem__, default="")
            if side and name and sheet.columns[name].may_be_id and 2 * shared[name] >= min(len(ids), 20):
                taken, role = (side.sheet, role) if sheet.columns[name].unique else (self.purchases, "purchases")
                also = f"its {name} also has ids of {side.sheet.file} ({shared[name]:,} of {len(ids):,})"
                return f"{also}; {taken.file} was taken for the {role}, --{role} chooses"
        return "no column of it has the ids of the others"


def arrange(found: Sequence[Roles], ask: Ask, keep: Collection[str] = ()) -> Shop:
    """What stands where. Asks which table and which column is which, where there is a choice.

    `keep` names columns that are the customers' whatever is seen of them.

    Raises `InputError` where no table says who bought what, or nothing is said of products.
    """
    one = chosen(found, ask)
    bought, columns = one.purchases, one.purchases.columns
    lists = next((name for name, column in columns.items() if column.guessed.kind == "reviews"), None)
    if one.product is None and one.customer is None and lists is not None:
        said, inner = columns[lists].cells, columns[lists].guessed.separator
        if inner != "content" or {key for one in objects(said) for key in one} & {*words("profile")} - {"profile_info"}:
            return _of_nested(bought, _id(bought, ask), lists, inner or "content", keep)
        spoken = language(nested(said, "content"))
        stated = attributes(places(nested(said, "profile_info")), spoken)
        saw = "no file: recsys-jax personas makes a customer of each review"
        side = _side(bought, _id(bought, ask))
        return Shop(side, None, bought, reviews=lists, language=spoken, stated=stated, saw=saw)
    product = one.product.column if one.product else _product(bought, ask)
    separator = one.product.separator if one.product else None
    bags = columns[product].parts(separator)
    keys = [bag[0] if len(bag) == 1 else None for bag in bags]
    # What follows from the product is the product's, wherever it stands.
    customer = one.customer.column if one.customer else None
    follows, others, left_out, doubts = list[Column](), list[Column](), {product: ""}, dict[str, str]()
    for name, column in columns.items():
        if name in (product, customer):
            continue
        decided = one.customer or dates_purchase(column) or says(name, "afterwards")
        asked = _unasked if decided else ask
        why = doubt = ""
        if name not in keep:
            why, doubt = judged(name, column.keys, keys, product, asked, alone=one.product is None)
        (follows if why else others).append(column)
        left_out |= {name: why} if why else {}
        doubts |= {name: doubt} if doubt else {}

    products = _side(one.product.sheet, one.product.id) if one.product else _products(bought, product, keys, follows)
    if one.customer:
        customers = _side(one.customer.sheet, one.customer.id)
        known = {key: row for row, key in enumerate(customers.ids) if key is not None}
        at = [known.get(key or "") for key in columns[one.customer.column].keys]
    else:
        customer = _customer(bought, others, ask)
        others = [column for column in others if column.name != customer]
        customers = _customers(bought, customer, left_out, others, keep)
        text, saw = _text_of_reviews(bought, customer, customers, others, ask)
        if text is not None:  # of each review a customer, whatever else was stated by the same
            reviewers = _customers(bought, None, left_out | {customer or product: ""}, others, keep)
            return replace(_with_reviews(bought, text, keys, products, reviewers, saw), doubts=doubts)
        customers = replace(customers, saw=customers.saw + saw)
        at = [*range(len(bought.table))]
    row_of = {key: row for row, key in enumerate(products.ids)}
    pairs = [(c, row_of[key]) for c, bag in zip(at, bags, strict=True) if c is not None for key in bag if key in row_of]
    own = one.customer is None
    id = customer or customers.id
    return Shop(products, customers, bought, id, product, separator, own, doubts=doubts, pairs=pairs)


def _unasked(question: str, allowed: Sequence[str], guess: str) -> str:
    """What is decided otherwise is asked of nobody."""
    return guess


def _side(sheet: Sheet, id: str) -> Side:
    return Side(sheet, id, f"{sheet.file}, {len(sheet.table):,} rows")


def _made(sheet: Sheet, ending: str, columns: Mapping[str, Sequence[object]]) -> Sheet:
    """A table out of another one."""
    file = f"{Path(sheet.file).stem}{ending}"
    return Sheet(sheet.path.with_name(file), Table(file, columns), file, made=True)


def _text(sheet: Sheet) -> str:
    """A table as the content of its file."""
    columns = [
        [cell if isinstance(cell, list) else as_plain(cell) for cell in one] for one in sheet.table.columns.values()
    ]
    rows = [*zip(*columns, strict=True)]
    if sheet.file.endswith(".json"):
        return json.dumps([dict(zip(sheet.columns, row, strict=True)) for row in rows], ensure_ascii=False, indent=1)
    return csv_text([sheet.columns, *rows])


def _refuse_rounded(sheet: Sheet) -> None:
    """Raises `InputError` where a column that is named like ids of products holds what a spreadsheet has rounded."""
    for column in sheet.columns.values():
        lost = next((key for key in column.counts if "E+" in key.upper() and as_id(key) is None), None)
        if lost is not None and (says(column.name, "product") or says(column.name, "id")):
            raise InputError(
                f"{sheet.path}, {column.name}: found {lost}, of which a spreadsheet has lost the last digits; allowed: "
                f"{ID}; write the table anew from where it came, with this column as text"
            )


def _id(sheet: Sheet, ask: Ask) -> str:
    """The column of a table of products with the id."""
    ids = [column.name for column in sorted(sheet.ids, key=lambda column: not says(column.name, "id"))]
    if not ids:
        _refuse_rounded(sheet)
        raise InputError(f"{sheet.path}: found no column with another id in each row; allowed: products with one")
    return pick(f"Which column of {sheet.file} has the id in each row?", ids, ask)


def _product(sheet: Sheet, ask: Ask) -> str:
    """The column of a table of purchases with the product: other columns follow from it."""
    found: dict[str, float] = {}
    recurring = [one for one in sheet.columns.values() if one.may_be_id and len(one.counts) * 1.5 <= one.filled]
    for column in recurring:
        named = says(column.name, "product") + says(column.name, "id") - 2 * says(column.name, "customer")
        if named > 0:
            others = [one for one in sheet.columns.values() if one is not column and one.counts]
            found[column.name] = named + sum(explained(one.keys, column.keys) >= FOLLOWS for one in others) / 4
    if not found:
        _refuse_rounded(sheet)
        nested = "".join(f" ({one.name}: {one.guessed.saw})" for one in sheet.columns.values() if objects(one.cells))
        alone = [one.name for one in sheet.ids if says(one.name, "product")]
        if alone and not nested:
            raise InputError(
                f"{sheet.path}: found a table of products, in which each {alone[0]} comes once; allowed: beside it the "
                f"table of purchases or of reviews: recsys-jax init {sheet.file} purchases.csv"
            )
        raise InputError(
            f"{sheet.path}: found no column with the ids of products, among {', '.join(sheet.columns)}{nested}; "
            f"allowed: one with such a name, whose values come again; of a table of products, "
            f"give that of the purchases or reviews, too"
        )
    names = sorted(found, key=lambda name: (found[name], name), reverse=True)
    names += [column.name for column in recurring if column.name not in found]
    return pick(f"Which column of {sheet.file} has the ids of products?", names, ask)


def _customer(sheet: Sheet, others: Sequence[Column], ask: Ask) -> str | None:
    """The column of a table of purchases with the customer, among those that do not follow from the product."""
    columns = [column for column in others if column.may_be_id]
    named = [column for column in columns if says(column.name, "customer") and len(column.counts) > 2]
    named.sort(key=lambda column: (not says(column.name, "id"), -len(column.counts)))
    ids = [column for column in columns if column.unique and says(column.name, "id")]
    names = [*(column.name for column in (*named, *ids)), NONE, *(column.name for column in columns)]
    if all(column.unique for column in named) and _texts(others):
        names.insert(0, NONE)  # of reviews, each by somebody else
    name = pick(f"Which column of {sheet.file} has the ids of customers?", [*dict.fromkeys(names)], ask)
    return name if name != NONE else None


def _products(sheet: Sheet, product: str, keys: Sequence[str | None], follows: Sequence[Column]) -> Side:
    """Products out of purchases: of each the most frequent value of what follows from it."""
    if not follows:
        raise InputError(
            f"{sheet.path}: found nothing that is said of products, as no column follows from {product!r}; allowed: a "
            f"table of products beside it, or such columns"
        )
    ids = [*dict.fromkeys(key for key in keys if key is not None)]
    columns: dict[str, Sequence[object]] = {product: ids}
    for column in follows:
        said: dict[str | None, Counter[str]] = defaultdict(Counter)
        for key, value in zip(keys, column.keys, strict=True):
            said[key].update([] if value is None else [value])
        columns[column.name] = [max(said[key], key=said[key].__getitem__, default=None) for key in ids]
    saw = f"made of {sheet.file}: what is the same wherever {product} is, {len(ids):,} products"
    return Side(_made(sheet, f"{MADE[0]}.csv", columns), product, saw)


def _customers(
    sheet: Sheet, customer: str | None, left_out: Mapping[str, str], others: Sequence[Column], keep: Collection[str]
) -> Side:
    """Customers in the rows of purchases: by their id, or a customer in each row."""
    left_out, rows = dict(left_out), len(sheet.table)
    ids = sheet.columns[customer].keys if customer is not None else []
    for column in (column for column in others if column.name not in keep):
        if dates_purchase(column):
            left_out[column.name] = ""
        elif says(column.name, "afterwards"):
            left_out[column.name] = "by its name it is known after a purchase alone"
        elif len({*ids}) < len(ids) and explained(column.keys, ids) < _OWN:
            left_out[column.name] = "it differs between the purchases of one customer"
    if customer is not None:
        saw = f"{sheet.file}, {rows:,} rows of {len({*ids} - {None}):,} customers"
        return Side(sheet, customer, saw, left_out)
    row = free("row", sheet.columns)
    kept = [name for name in sheet.columns if name not in left_out]
    kept += [name for name, why in left_out.items() if not why]  # the product, and dates
    table = {row: range(1, rows + 1), **{name: sheet.columns[name].cells for name in kept}}
    saw = f"made of {sheet.file}, which names no customers: each of its {rows:,} rows is one"
    return Side(_made(sheet, f"{MADE[1]}.csv", table), row, saw, left_out)


def _of_nested(sheet: Sheet, id: str, lists: str, text: str, keep: Collection[str]) -> Shop:
    """Products whose nested reviews have other keys than `personas` reads: taken as a table of their own."""
    cells = zip(sheet.columns[id].keys, sheet.columns[lists].cells, strict=True)
    rows = [(key, one) for key, listed in cells for one in objects([listed])]
    names = dict.fromkeys(name for _, one in rows for name in one)
    columns = {name: [one.get(name) for _, one in rows] for name in names}
    reviews = Sheet(sheet.path, Table(sheet.file, columns), sheet.file)
    kept = {name: cells for name, cells in sheet.table.columns.items() if name != lists}
    products = _side(Sheet(sheet.path, Table(sheet.file, kept), sheet.file), id)
    reviewers = _customers(reviews, None, {}, [*reviews.columns.values()], keep)
    keys = [key for key, _ in rows]
    return _with_reviews(reviews, reviews.columns[text], keys, products, reviewers, f"they are nested in {lists}")


def dates_purchase(column: Column) -> bool:
    """Whether it is a date, and not one of the customer's, such as that of birth."""
    return column.guessed.kind == "date" and not says(column.name, "about_customer")


def _texts(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if column.guessed.kind == "text"]


def _text_of_reviews(
    sheet: Sheet, customer: str | None, customers: Side, others: Sequence[Column], ask: Ask
) -> tuple[Column | None, str]:
    """The column with texts of which personas are to be made, None where the rows are to be customers; and why.

    Raises `InputError` where nothing is said of customers either way.
    """
    known = any(column.guessed.kind in FEATURES for column in customers.columns.values())
    texts = _texts(others)
    if not texts:
        if known:
            return None, ""
        raise InputError(
            f"{sheet.path}: found nothing that is said of customers, among {', '.join(sheet.columns)}; allowed: a "
            f"table of customers, columns such as their age, or the texts of reviews"
        )
    text = max(texts, key=lambda one: (says(one.name, "review"), sum(map(len, one.counts))))
    if not known:
        return text, "nothing is said of customers that stays the same"
    ids = None if customer is None else sheet.columns[customer]
    again = ids is not None and len(ids.counts) < _AGAIN * ids.filled
    why = f"{customer} comes again" if again else f"no customer comes again in {sheet.file}"
    question = f"{sheet.file} has texts of reviews ({text.name}). {why}. Are personas made of the texts?"
    if ask(question, ("yes", "no"), "no" if again or 2 * text.filled < len(text.cells) else "yes") == "yes":
        return text, f"{why}; at a terminal, init asks whether rows are to be customers"
    return None, f"; {why}; at a terminal, init asks whether personas are to be made of {text.name}"


def _with_reviews(
    sheet: Sheet, text: Column, keys: Sequence[str | None], products: Side, customers: Side, why: str
) -> Shop:
    """Products with the texts of their reviews, and with what these state of who wrote them."""
    columns, left_out = list[Column](), {**customers.left_out, text.name: ""}
    left_out |= {one.name: "a date; no customer is made of it" for one in sheet.columns.values() if dates_purchase(one)}
    for name in (name for name in customers.columns if name != text.name):
        column, found = sheet.columns[name], sheet.columns[name].guessed
        if name.casefold() in words("profile"):
            columns += places(column.keys)
        elif found.kind == "multi-categorical":
            columns.append(Column(name, [next(iter(parts), None) for parts in column.parts(found.separator)]))
            left_out[name] = "all but the first of several values, since a profile states one"
        elif found.kind in FEATURES or says(name, "age"):
            columns.append(column)
        else:
            left_out[name] = found.saw
    spoken = language([*text.counts])
    stated = attributes(columns, spoken)
    reviews: dict[str | None, list[dict[str, str]]] = defaultdict(list)
    for key, said, profile in zip(keys, text.keys, profiles(stated, len(keys)), strict=True):
        if said is not None:
            reviews[key].append({"content": said} if profile is None else {"content": said, "profile_info": profile})
    made = {**products.sheet.table.columns, "reviews": [reviews[key] for key in products.ids]}
    count, empty = sum(map(len, made["reviews"])), text.keys.count(None)
    known = {*products.ids}
    lacking = [key for key, said in zip(keys, text.keys, strict=True) if said is not None and key not in known]
    saw = f"made of {products.sheet.file} and {count:,} texts in {len(keys):,} rows of {sheet.file}, column {text.name}"
    saw += f"; {empty:,} rows have no text" if empty else ""
    saw += f"; {len(lacking):,} name products that {products.sheet.file} lacks (first: {lacking[0]})" if lacking else ""
    side = Side(_made(products.sheet, f"{MADE[2]}.json", made), products.id, saw, products.left_out)
    why = f"no file: recsys-jax personas makes a customer of each text in {text.name}; {why}"
    return Shop(side, None, sheet, reviews="reviews", language=spoken, stated=stated, saw=why, left_out=left_out)
