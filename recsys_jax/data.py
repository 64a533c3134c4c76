"""A dataset: products, customers and who bought what, checked against the schema; folds of customers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from recsys_jax.cells import as_key, cell_date, split_keys
from recsys_jax.errors import InputError
from recsys_jax.schema import Categorical, Feature, Schema
from recsys_jax.tables import Table, read_table, shown

__all__ = [
    "Dataset",
    "Reviews",
    "customer_folds",
    "load_dataset",
    "product_ids",
    "read_products",
    "read_reviews",
    "read_schema",
]


@dataclass(frozen=True)
class Reviews:
    """Review texts with the product each one is about; all lists have one entry per review."""

    source: str
    texts: list[str]
    product_ids: list[str]
    profiles: list[str | None]
    """`profile_info` such as "40대/남성/복합성/주름", where a review carries it."""

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
    """What was corrected on the way in, with counts."""
    dates: Float64[np.ndarray, " n"] | None = None
    """When each purchase was first made, in seconds since 1970 (UTC), where the schema names a date."""

    @property
    def fingerprint(self) -> str:
        """A checksum of the customers' ids and features and of who bought what: equal for the same training data."""
        columns = {f.column: list(map(str, self.customers.column(f.column))) for f in self.schema.customers.features}
        content = json.dumps([self.customer_ids, columns, self.product_ids], sort_keys=True)
        return hashlib.sha256(content.encode() + self.purchases.tobytes()).hexdigest()

    @property
    def segments(self) -> list[str] | None:
        """The segment (persona) of each customer, where the schema names one."""
        return _labels(self.customers, self.schema.customers.segment, self.schema.customers.features)

    @property
    def segment_word(self) -> str:
        """What people call a segment: the schema's column without `_name` or `_id`, such as "persona"."""
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
    """The product table and its ids. Raises `InputError` as `product_ids` does."""
    table = read_table(folder / schema.products.file)
    return table, product_ids(table, schema)


def product_ids(table: Table, schema: Schema) -> list[str]:
    """The ids of a product table. Raises `InputError` where it is empty or an id is missing or repeated."""
    if not len(table):
        raise InputError(f"{table.source}: there are no products in it")
    ids = table.ids(schema.products.id)
    _unique(table, schema.products.id, ids)
    return ids


def read_reviews(folder: Path, schema: Schema) -> Reviews:
    """The reviews nested in the product table. Raises `InputError` where there are none or one is malformed."""
    column = schema.products.reviews
    if column is None:
        raise InputError(f"{folder / 'dataset.toml'}: [products] reviews names no column, so there are no reviews")
    table, ids = read_products(folder, schema)
    reviews = Reviews(table.source, [], [], [])
    for row, (product_id, nested) in enumerate(zip(ids, table.column(column), strict=True)):
        if not isinstance(nested, list):
            raise table.error(row, column, "a list of reviews, empty where there are none")
        for number, review in enumerate(nested, 1):
            where = f"{table.source}, row {row + 1}, {column} {number}"
            text = review.get("content") if isinstance(review, dict) else None
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}: content: found {shown(text)}; allowed: the review's text, not empty")
            profile = review.get("profile_info")
            if not isinstance(profile, str | None):
                allowed = "a text such as '30대/여성/건성', or null"
                raise InputError(f"{where}: profile_info: found {shown(profile)}; allowed: {allowed}")
            reviews.texts.append(text)
            reviews.product_ids.append(product_id)
            reviews.profiles.append(as_key(profile))
    if not reviews:
        raise InputError(f"{table.source}: there are no reviews in its column {column!r}")
    return reviews


def load_dataset(folder: str | Path, customers: str | Path | None = None) -> Dataset:
    """The dataset whose `dataset.toml` stands in `folder`; `customers` replaces the customer file it names.

    Raises `InputError` for whatever the schema does not allow: a missing file or column, a repeated id, a purchase
    of a product or by a customer that does not exist.
    """
    folder = Path(folder)
    schema = read_schema(folder)
    products, ids = read_products(folder, schema)
    if customers is None:
        if schema.customers.file is None:
            raise InputError(
                f"{folder / 'dataset.toml'}: [customers] names no file: this dataset's customers are made from its "
                f"reviews. Run scripts/cluster_personas.py {folder} first, or name a customer file"
            )
        customers = folder / schema.customers.file
    return assemble(schema, products, ids, read_table(Path(customers)), folder)


def assemble(schema: Schema, products: Table, ids: list[str], customers: Table, folder: Path) -> Dataset:
    """A dataset from tables that are already read; an [interactions] table is read from `folder`."""
    notes: list[str] = []
    if not len(customers):
        raise InputError(f"{customers.source}: there are no customers in it")
    for table, name in ((customers, schema.customers.segment), (products, schema.products.category)):
        if name is not None:
            table.column(name)
    rows_of_id = customers.ids(schema.customers.id)
    if schema.customers.repeated == "error":
        _unique(customers, schema.customers.id, rows_of_id)
    customer_ids = list(dict.fromkeys(rows_of_id))
    customer_row = {key: row for row, key in enumerate(customer_ids)}
    product_row = {key: row for row, key in enumerate(ids)}

    pairs: list[tuple[int, int]] = []
    seconds: list[float] = []
    date = schema.customers.date if schema.interactions is None else schema.interactions.date
    source = customers.source
    if schema.interactions is not None:
        table = read_table(folder / schema.interactions.file)
        source = table.source
        buyers, bought = table.ids(schema.interactions.customer), table.ids(schema.interactions.product)
        for row, (buyer, product) in enumerate(zip(buyers, bought, strict=True)):
            if buyer not in customer_row:
                raise table.error(row, schema.interactions.customer, f"an id that stands in {customers.source}")
            if product not in product_row:
                raise table.error(row, schema.interactions.product, f"an id that stands in {products.source}")
            pairs.append((customer_row[buyer], product_row[product]))
            if date is not None:
                seconds.append(_date(table, row, date))
    else:
        name = schema.customers.purchases or ""
        for row, cell in enumerate(customers.column(name)):
            for product in split_keys(cell, schema.customers.separator):
                if product not in product_row:
                    raise customers.error(row, name, f"the id of a product that stands in {products.source}")
                pairs.append((customer_row[rows_of_id[row]], product_row[product]))
                if date is not None:
                    seconds.append(_date(customers, row, date))
    if not pairs:
        raise InputError(f"{source}: nobody bought anything: there are no purchases to learn from")

    if len(customer_ids) < len(rows_of_id):
        first = {key: row for row, key in reversed(list(enumerate(rows_of_id)))}
        columns = [customers.columns[f.column] for f in schema.customers.features if f.column in customers.columns]
        differing = {
            key
            for row, key in enumerate(rows_of_id)
            if any(as_key(column[row]) != as_key(column[first[key]]) for column in columns)
        }
        customers = customers.select([first[key] for key in customer_ids])
        notes.append(
            f"{customers.source}: {len(rows_of_id):,} rows of {len(customer_ids):,} customers; the attributes are "
            f"those of each one's first row ({len(differing):,} have rows that differ)"
        )
    unique, place = np.unique(np.asarray(pairs, dtype=np.int32), axis=0, return_inverse=True)
    if len(unique) < len(pairs):
        notes.append(f"{len(pairs) - len(unique):,} purchases repeat another one and count once")
    dates = None
    if date is not None:
        dates = np.full(len(unique), np.inf)
        np.minimum.at(dates, place.reshape(-1), seconds)
    return Dataset(schema, products, ids, customers, customer_ids, unique, notes, dates)


def customer_folds(
    customers: int, folds: int, seed: int, strata: Sequence[str] | None = None
) -> Int[np.ndarray, " customers"]:
    """The fold, 0..folds-1, of each customer, at random, sizes within one of each other, also within each stratum.

    Raises `InputError` for fewer than 2 folds or fewer customers than folds.
    """
    if not 2 <= folds <= customers:
        raise InputError(f"folds: found {folds}; allowed: 2 to {customers}, the number of customers")
    if seed < 0:
        raise InputError(f"seed: found {seed}; allowed: 0 or more")
    rng = np.random.default_rng(seed)
    order = rng.permutation(customers)
    if strata is not None:
        labels = np.unique(np.asarray(strata), return_inverse=True)[1]
        order = order[np.argsort(labels[order], kind="stable")]
    # Dealt like cards, stratum after stratum: each fold gets an equal share of each stratum, to within one.
    fold = np.empty(customers, dtype=np.int32)
    fold[order] = np.arange(customers, dtype=np.int32) % folds
    return fold


def _date(table: Table, row: int, column: str) -> float:
    seconds = cell_date(table.column(column)[row])
    if seconds is None:
        raise table.error(row, column, "a date such as 2024-03-01 or 2024-03-01T12:30:00Z, or seconds since 1970")
    return seconds


def _unique(table: Table, column: str, ids: list[str]) -> None:
    first: dict[str, int] = {}
    for row, key in enumerate(ids):
        if first.setdefault(key, row) != row:
            raise table.error(row, column, f"an id that no other row has; row {first[key] + 1} has the same one")
