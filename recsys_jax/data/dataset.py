"""A dataset: products, customers and who bought what, validated against the schema."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from recsys_jax.data.schema import Categorical, Feature, Interactions, Schema
from recsys_jax.data.tables import ID, RepeatedKey, SetAside, Table, read_table, refuse_many
from recsys_jax.data.validation import Validation, add_repeated, unusable_rows
from recsys_jax.data.values import as_id, as_key, has_lone_surrogate, parse_date, shown, split_keys
from recsys_jax.errors import InputError

_DATE = "a date such as 2024-03-01 or 2024-03-01T12:30:00Z, or seconds since 1970"
_LONGEST_PROFILE = 1000
"""In characters: a longer text is no profile."""


@dataclass(frozen=True)
class Reviews:
    """Review texts and the product of each; all lists have one entry per review."""

    source: str
    texts: list[str]
    product_ids: list[str]
    profiles: list[str | None]
    """`profile_info` such as "40대/남성/복합성/주름", where a review has one."""
    validation: Validation | None = None
    """The counts of the reviews in their file."""

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """Products, customers and who bought what."""

    schema: Schema
    products: Table
    product_ids: list[str]
    customers: Table
    customer_ids: list[str]
    purchases: Int[np.ndarray, "n 2"]
    """One (customer row, product row) per purchase, each pair once, sorted."""
    notes: list[str] = field(default_factory=list)
    """What was left out or merged while reading, with counts; and former names in dataset.toml."""
    dates: Float64[np.ndarray, " n"] | None = None
    """The first date of each purchase, in seconds since 1970 (UTC), where the schema names a date."""
    validations: tuple[Validation, ...] = ()
    """The row counts of each file: products, customers, and interactions where there are any."""

    @property
    def set_aside(self) -> list[SetAside]:
        """The rows that cannot be used, each with its reason."""
        return [row for validation in self.validations for row in validation.set_aside]

    @property
    def fingerprint(self) -> str:
        """A checksum of the training data: the customers' ids and features, and who bought what."""
        columns = {f.column: list(map(str, self.customers.column(f.column))) for f in self.schema.customers.features}
        content = json.dumps([self.customer_ids, columns, self.product_ids], sort_keys=True)
        return hashlib.sha256(content.encode() + self.purchases.tobytes()).hexdigest()

    @property
    def segments(self) -> list[str] | None:
        """The segment (persona) of each customer, where the schema names one."""
        return _labels(self.customers, self.schema.customers.segment, self.schema.customers.features)

    @property
    def segment_word(self) -> str:
        """The word for a segment: the schema's column without `_name` or `_id`, such as "persona"."""
        column = self.schema.customers.segment or "segment"
        return column.removesuffix("_name").removesuffix("_id").replace("_", " ")

    @property
    def categories(self) -> list[str] | None:
        """The category of each product, where the schema names one."""
        return _labels(self.products, self.schema.products.category, self.schema.products.features)


def _labels(table: Table, name: str | None, features: Sequence[Feature]) -> list[str] | None:
    if name is None:
        return None
    meanings: dict[str, str] = {}
    for feature in features:
        if isinstance(feature, Categorical) and feature.column == name:
            meanings |= feature.meanings
    keys = [as_key(value) or "(none)" for value in table.column(name)]
    return [meanings.get(key, key) for key in keys]


def read_schema(folder: Path) -> Schema:
    """The schema of the dataset in `folder`. Raises `InputError` where there is no such folder or file."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"{folder}: found {found}; allowed: the folder that holds a dataset.toml")
    return Schema.read(folder / "dataset.toml")


def read_products(folder: Path, schema: Schema) -> tuple[Table, list[str]]:
    """The usable rows of the product table, and their ids; `Table.set_aside` has the other rows.

    Raises `InputError` where there are none, or more than one row in ten is unusable.
    """
    return _usable_products(read_table(folder / schema.products.file), schema)


def _usable_products(table: Table, schema: Schema) -> tuple[Table, list[str]]:
    part = schema.products
    if not len(table):
        raise InputError(f"{table.source}: there are no products in it")
    problems = unusable_rows(table, part.id, [part.name, part.brand, part.category], part.features)
    add_repeated(table, part.id, problems)
    table = table.without(problems, part.id)
    return table, table.ids(part.id)


def product_ids(table: Table, schema: Schema) -> list[str]:
    """The ids of a product table. Raises `InputError` where it is empty or an id is missing or repeated."""
    if not len(table):
        raise InputError(f"{table.source}: there are no products in it")
    ids = table.ids(schema.products.id)
    repeated: dict[int, InputError] = {}
    add_repeated(table, schema.products.id, repeated)
    for error in repeated.values():
        raise error
    return ids


def read_reviews(folder: Path, schema: Schema) -> Reviews:
    """The usable reviews nested in the product table; `Reviews.validation` counts the others.

    Raises `InputError` where there are none, or more than one in ten is unusable.
    """
    column = schema.products.reviews
    if column is None:
        raise InputError(f"{folder / 'dataset.toml'}: [products] reviews names no column, so there are no reviews")
    table = read_table(folder / schema.products.file)
    usable, _ = _usable_products(table, schema)
    unusable = {one.row for one in usable.set_aside}
    texts: list[str] = []
    ids: list[str] = []
    profiles: list[str | None] = []
    set_aside: list[SetAside] = []
    for row, (value, nested) in enumerate(zip(table.column(schema.products.id), table.column(column), strict=True)):
        number = table.number(row)
        if not isinstance(nested, list):
            reason = f"{column}: found {shown(nested)}; allowed: a list of reviews, empty where there are none"
            set_aside.append(SetAside(table.source, number, reason))
            continue
        for place, review in enumerate(nested, 1):
            problem = "its product is set aside" if number in unusable else _review_problem(review)
            if problem:
                set_aside.append(SetAside(table.source, number, f"{column} {place}: {problem}"))
                continue
            texts.append(review["content"])
            ids.append(as_id(value) or "")
            profiles.append(as_key(review.get("profile_info")))
    validation = Validation(table.source, len(texts), tuple(set_aside), "reviews")
    if not validation.read:
        raise InputError(f"{table.source}: there are no reviews in its column {column!r}")
    refuse_many(set_aside, validation.read, "reviews")
    return Reviews(table.source, texts, ids, profiles, validation)


def _review_problem(review: Any) -> str | None:
    """Why a review cannot be used; None where it can."""
    if isinstance(review, RepeatedKey):
        return f"found the key {review.key!r} twice; allowed: each once"
    text = review.get("content") if isinstance(review, dict) else None
    if not isinstance(text, str) or not text.strip():
        return f"content: found {shown(text)}; allowed: the review's text, not empty"
    profile = review.get("profile_info")
    if not isinstance(profile, str | None) or len(profile or "") > _LONGEST_PROFILE:
        return (
            f"profile_info: found {shown(profile)}; allowed: a text such as '30대/여성/건성' of up to "
            f"{_LONGEST_PROFILE} characters, or null"
        )
    halves = [name for name, said in (("content", text), ("profile_info", profile)) if has_lone_surrogate(said)]
    return f"{halves[0]}: found half a character (a lone surrogate); allowed: whole ones" if halves else None


def load_dataset(folder: str | Path, customers: str | Path | None = None) -> Dataset:
    """The dataset described by `dataset.toml` in `folder`; `customers` replaces the customer file it names.

    Rows that cannot be used, such as a purchase of an unknown product, are set aside: `Dataset.set_aside` has them with
    the reason, and `Dataset.notes` counts them. Raises `InputError` for whatever the schema does not allow, such as a
    missing file or column, and where more than one row in ten of a file cannot be used.
    """
    folder = Path(folder)
    schema = read_schema(folder)
    products, ids = read_products(folder, schema)
    if customers is None:
        if schema.customers.file is None:
            raise InputError(
                f"{folder / 'dataset.toml'}: [customers] names no file: this dataset's customers are made from its "
                f"reviews. Run recsys-jax personas {folder} first, or name a customer file"
            )
        customers = folder / schema.customers.file
    return assemble(schema, products, ids, read_table(Path(customers)), folder)


Purchase = tuple[int, int, float]
"""A row of the customers, a row of the products, and the date in seconds since 1970, 0 where none is named."""


def assemble(schema: Schema, products: Table, ids: list[str], customers: Table, folder: Path) -> Dataset:
    """A dataset from usable products and a customer table; an [interactions] table is read from `folder`."""
    if not len(customers):
        raise InputError(f"{customers.source}: there are no customers in it")
    part = schema.customers
    for table, name in ((customers, part.segment), (products, schema.products.category)):
        if name is not None:
            table.column(name)
    product_row = {key: row for row, key in enumerate(ids)}
    rows = range(len(customers))
    problems = unusable_rows(customers, part.id, [part.segment], part.features)
    bought: dict[int, list[tuple[int, float]]] = {}
    if schema.interactions is None:
        bought = _purchases_of_rows(schema, customers, product_row, products, problems)
    if part.repeated == "error":
        add_repeated(customers, part.id, problems)
    customers = customers.without(problems, part.id)
    id_of_row = customers.ids(part.id)
    customer_row = {key: row for row, key in enumerate(dict.fromkeys(id_of_row))}
    if schema.interactions is None:
        kept = (bought[row] for row in rows if row not in problems)
        purchases = [(customer_row[key], *one) for key, several in zip(id_of_row, kept, strict=True) for one in several]
        tables, dated = [products, customers], part.date is not None
    else:
        table, purchases = _interactions(schema.interactions, folder, customer_row, product_row, customers, products)
        tables, dated = [products, customers, table], schema.interactions.date is not None
    validations = tuple(Validation(table.source, len(table), table.set_aside) for table in tables)
    notes = [*schema.notes, *(note for validation in validations for note in validation.notes)]
    if not purchases:
        raise InputError(f"{tables[-1].source}: nobody bought anything: there are no purchases to learn from")

    if len(customer_row) < len(id_of_row):
        customers, note = _first_rows(customers, id_of_row, part.features)
        notes.append(note)
    numbers = np.array(purchases, np.float64)
    pairs, place = np.unique(numbers[:, :2].astype(np.int32), axis=0, return_inverse=True)
    if len(pairs) < len(numbers):
        notes.append(f"{len(numbers) - len(pairs):,} purchases repeat another one and count once")
    dates = None
    if dated:
        dates = np.full(len(pairs), np.inf)
        np.minimum.at(dates, place.reshape(-1), numbers[:, 2])
    return Dataset(schema, products, ids, customers, list(customer_row), pairs, notes, dates, validations)


def _first_rows(customers: Table, ids: Sequence[str], features: Sequence[Feature]) -> tuple[Table, str]:
    """The first row of each customer, and a note on how many have rows that differ from it."""
    first: dict[str, int] = {}
    for row, key in enumerate(ids):
        first.setdefault(key, row)
    columns = [customers.columns[f.column] for f in features if f.column in customers.columns]
    differing = {
        key
        for row, key in enumerate(ids)
        if any(as_key(column[row]) != as_key(column[first[key]]) for column in columns)
    }
    note = (
        f"{customers.source}: {len(ids):,} rows of {len(first):,} customers; the attributes are "
        f"those of each one's first row ({len(differing):,} have rows that differ)"
    )
    return customers.select(list(first.values())), note


def _purchases_of_rows(
    schema: Schema, customers: Table, product_row: Mapping[str, int], products: Table, problems: dict[int, InputError]
) -> dict[int, list[tuple[int, float]]]:
    """The (product row, date) pairs in each usable row of the customer table; adds the `problems` of the other rows."""
    part, name = schema.customers, schema.customers.purchases or ""
    bought: dict[int, list[tuple[int, float]]] = {}
    lost = {one.id: one for one in products.set_aside}
    for row, value in enumerate(customers.column(name)):
        keys = split_keys(value, part.separator)
        date = parse_date(customers.column(part.date)[row]) if part.date is not None and keys else 0.0
        unknown = [key for key in keys if key not in product_row]
        if unknown:
            allowed = f"the id of a product {_known_in(products, lost.get(unknown[0]))}"
            problems.setdefault(row, customers.error(row, name, allowed))
        elif date is None:
            problems.setdefault(row, customers.error(row, part.date or "", _DATE))
        else:
            bought[row] = [(product_row[key], date) for key in keys]
    return bought


def _interactions(
    part: Interactions,
    folder: Path,
    customer_row: Mapping[str, int],
    product_row: Mapping[str, int],
    customers: Table,
    products: Table,
) -> tuple[Table, list[Purchase]]:
    """The usable rows of the table of purchases, and these purchases."""
    table = read_table(folder / part.file)
    problems: dict[int, InputError] = {}
    purchases: list[Purchase] = []
    sides = [
        (name, table.column(name), rows, other, {one.id: one for one in other.set_aside})
        for name, rows, other in ((part.customer, customer_row, customers), (part.product, product_row, products))
    ]
    for row in range(len(table)):
        found: list[int] = []
        for name, column, rows, other, lost in sides:
            key = as_id(column[row])
            if key is not None and key in rows:
                found.append(rows[key])
                continue
            allowed = ID if key is None else f"an id {_known_in(other, lost.get(key))}"
            problems.setdefault(row, table.error(row, name, allowed))
        date = parse_date(table.column(part.date)[row]) if part.date is not None else 0.0
        if date is None:
            problems.setdefault(row, table.error(row, part.date or "", _DATE))
        elif row not in problems:
            purchases.append((found[0], found[1], date))
    return table.without(problems), purchases


def _known_in(table: Table, lost: SetAside | None) -> str:
    """Which ids a purchase may have, for the end of an error sentence; `lost` is the row set aside with the id."""
    why = "" if lost is None else f"; row {lost.row} there is set aside: {lost.reason}"
    return f"that stands in {table.source}{why}"
