"""A dataset: products, customers and who bought what, validated against the schema."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from recsys_jax.data.features import WHOLE, refuse_unusable
from recsys_jax.data.files import absent
from recsys_jax.data.interactions import bought_by_row, purchases_of
from recsys_jax.data.schema import Categorical, Feature, Numeric, Schema
from recsys_jax.data.tables import SetAside, Table, Validation, if_missing
from recsys_jax.data.tabular.coded import converted, counted, taken
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.data.values import ID, ONE, as_key, has_lone_surrogate, is_scalar
from recsys_jax.errors import InputError, look_alikes, shown


@dataclass(frozen=True, repr=False)
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
    repeats: Float64[np.ndarray, "m 2"] = field(default_factory=lambda: np.empty((0, 2)))
    """(row of `purchases`, date) of each later purchase of the same product, where the schema allows repeats."""
    validations: tuple[Validation, ...] = ()
    """The row counts of each file: products, customers, and interactions where there are any."""

    @classmethod
    def of(
        cls, *, products: object, customers: object, purchases: object = None, schema: Schema | Mapping[str, Any]
    ) -> "Dataset":
        """A dataset without files: each table is a data frame (pandas, polars, Arrow), columns, or a list of dicts.

        `schema` is what a `dataset.toml` says, as a dictionary; its name, and the names of files, may be left out.
        `purchases` belong to its [interactions]. Rows that cannot be used are set aside, and `InputError` is raised, as
        by `load_dataset`.
        """
        if not isinstance(schema, Schema | Mapping):
            raise InputError(
                f"schema: found {shown(schema)}; allowed: a Schema, or what dataset.toml says as a dictionary"
            )
        if not isinstance(schema, Schema):
            given = [part for part in ("products", "interactions") if isinstance(schema.get(part), Mapping)]
            named = {part: {"file": part, **schema[part]} for part in given}
            schema = Schema.parse({"name": "dataset", **schema, **named}, "schema")
        if (purchases is None) != (schema.interactions is None):
            raise InputError("purchases: allowed, and needed, where the schema has [interactions]")
        goods, ids = usable_products(Table.of(products, "products"), schema)
        bought = None if purchases is None else Table.of(purchases, "purchases")
        return assemble(schema, goods, ids, Table.of(customers, "customers"), bought)

    def __repr__(self) -> str:
        counts = f"{len(self.product_ids):,} products, {len(self.customer_ids):,} customers"
        return f"Dataset({self.schema.name}: {counts}, {len(self.purchases):,} purchases)"

    @property
    def set_aside(self) -> list[SetAside]:
        """The rows that cannot be used, each with its reason."""
        return [row for validation in self.validations for row in validation.set_aside]

    @property
    def fingerprint(self) -> str:
        """A checksum of the training data, however it was read: customers' ids and features, and who bought what."""
        features = self.schema.customers.features
        return self._checksum({one.name: one.read(self.customers.column(one.column)) for one in features})

    @property
    def fingerprints(self) -> tuple[str, str]:
        """The fingerprint, and the one that older runs have, which is of the texts of cells."""
        columns = [one.column for one in self.schema.customers.features]
        return self.fingerprint, self._checksum({name: list(map(str, self.customers.column(name))) for name in columns})

    def _checksum(self, features: Mapping[str, Sequence[Any]]) -> str:
        features = {name: [*column] for name, column in features.items()}
        content = json.dumps([self.customer_ids, features, self.product_ids], sort_keys=True)
        return hashlib.sha256(content.encode() + self.purchases.tobytes()).hexdigest()

    @property
    def segments(self) -> list[str] | None:
        """The segment (persona) of each customer, where the schema names one."""
        return _labels(self.customers, self.schema.customers.segment, self.schema.customers.features, self.schema)

    @property
    def segment_word(self) -> str:
        """The word for a segment: the schema's column without `_name` or `_id`, such as "persona"."""
        column = self.schema.customers.segment or "segment"
        return column.removesuffix("_name").removesuffix("_id").replace("_", " ")

    @property
    def categories(self) -> list[str] | None:
        """The category of each product, where the schema names one."""
        return _labels(self.products, self.schema.products.category, self.schema.products.features, self.schema)


def _labels(table: Table, name: str | None, features: Sequence[Feature], schema: Schema) -> list[str] | None:
    if name is None:
        return None
    meanings, missing = dict[str, str](), schema.missing_values
    for feature in features:
        if isinstance(feature, Categorical) and feature.column == name:
            meanings, missing = meanings | feature.meanings, feature.missing_values

    def label(value: object) -> str:
        key = "(none)" if missing.met(value) else as_key(value) or "(none)"
        return meanings.get(key, key)

    return [*converted(label, table.column(name))]


def read_schema(folder: Path) -> Schema:
    """The schema of the dataset in `folder`. Raises `InputError` where there is no such folder or file."""
    if not folder.is_dir():
        allowed = "allowed: the folder that holds a dataset.toml"
        raise InputError(
            f"{folder}: found a file; {allowed}" if folder.exists() else absent(folder, f"found nothing; {allowed}")
        )
    return Schema.read(folder / "dataset.toml")


def read_products(folder: Path, schema: Schema) -> tuple[Table, list[str]]:
    """The usable rows of the product table, and their ids; `Table.set_aside` has the other rows.

    Raises `InputError` where there are none, or more than one row in ten is unusable.
    """
    return usable_products(read_table(folder / schema.products.file), schema)


def usable_products(table: Table, schema: Schema) -> tuple[Table, list[str]]:
    """`read_products` of a table that was read already."""
    part = schema.products
    table.require_rows("products")
    table = schema.reads(table).collecting()
    ids = table.ids(part.id)
    refuse_unusable(table, part.features)
    refuse_unreadable(table, part.shown)
    table.refuse_repeated(part.id, ids)
    return table.usable(part.id), [*taken(ids, table.good)]


def product_ids(table: Table, schema: Schema) -> list[str]:
    """The ids of a product table. Raises `InputError` where it is empty, or an id or name is none or an id repeated."""
    table.require_rows("products")
    refuse_unreadable(table, schema.products.shown)
    table = schema.reads(table)
    ids = table.ids(schema.products.id)
    table.refuse_repeated(schema.products.id, ids)
    return [*ids]


def read_ids(path: Path, schema: Schema) -> list[str]:
    """The ids of the products in a table, such as what is in stock, but for empty cells. Raises `InputError`."""
    table = read_table(path)
    for row in table.set_aside[:1]:
        raise InputError(str(row))
    table = schema.reads(table)
    keys = table.keys(schema.products.id)
    if None in keys:
        table.refuse(keys.index(None), schema.products.id, ID)
    return [key for key in keys if key]


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


def assemble(
    schema: Schema, products: Table, ids: list[str], customers: Table, interactions: Table | Path | None
) -> Dataset:
    """A dataset from usable products, a customer table, and that of [interactions] or the folder with its file."""
    customers.require_rows("customers")
    part = schema.customers
    for table, name in ((customers, part.segment), (products, schema.products.category)):
        if name is not None:
            table.column(name)
    product_row = {key: row for row, key in enumerate(ids)}
    passed: list[str] = []
    customers = schema.reads(customers).collecting()
    keys = customers.ids(part.id)
    refuse_unusable(customers, part.features)
    refuse_unreadable(customers, [part.segment])
    bought = bought_by_row(schema, customers, products, product_row) if schema.interactions is None else []
    if part.repeated != "first":
        customers.refuse_repeated(part.id, keys)
    kept = customers.good
    customers, id_of_row = customers.usable(part.id), taken(keys, kept)
    customer_row = {key: row for row, key in enumerate(dict.fromkeys(id_of_row))}
    if schema.interactions is None:
        rows = [
            (customer_row[key], *one) for key, row in zip(id_of_row, kept.tolist(), strict=True) for one in bought[row]
        ]
        purchases = np.array(rows, np.float64).reshape(-1, 3)
        tables, dated = [products, customers], part.date is not None
    else:
        sides = ((customers, customer_row), (products, product_row))
        if not isinstance(interactions, Table):
            interactions = read_table((interactions or Path()) / schema.interactions.file)
        table, purchases, passed = purchases_of(schema.interactions, schema.reads(interactions), *sides)
        tables, dated = [products, customers, table], schema.interactions.date is not None
    validations = tuple(table.validation for table in tables)
    notes = [*schema.notes, *(note for validation in validations for note in validation.notes), *passed]
    notes += _doubtful(products, schema.products.features) + _doubtful(customers, part.features)
    notes += look_alikes(products.source, ids) + look_alikes(customers.source, list(customer_row))
    if not len(purchases):
        nothing = f"{tables[-1].source}: nobody bought anything: there are no purchases to learn from"
        raise InputError("; ".join([nothing, *passed]))

    if len(customer_row) < len(id_of_row):
        customers, note = customers.first_rows(id_of_row, [feature.column for feature in part.features])
        notes.append(note)
    customer, product = purchases[:, :2].astype(np.int64).T
    codes, place = np.unique(customer * len(ids) + product, return_inverse=True)
    pairs = np.stack(np.divmod(codes, len(ids)), axis=1).astype(np.int32)
    if len(pairs) < len(purchases):
        training = " in training" if schema.repeats else ""
        notes.append(f"{len(purchases) - len(pairs):,} purchases repeat another one and count once{training}")
    dates, repeats = None, np.empty((0, 2))
    if dated:
        dates, place = np.full(len(pairs), np.inf), place.reshape(-1)
        np.minimum.at(dates, place, purchases[:, 2])
        if schema.repeats:
            later = purchases[:, 2] > dates[place]
            repeats = np.unique(np.column_stack([place[later], purchases[later, 2]]), axis=0)
    return Dataset(schema, products, ids, customers, list(customer_row), pairs, notes, dates, repeats, validations)


def refuse_unreadable(table: Table, columns: Iterable[str | None]) -> None:
    """Refuses what people cannot be shown: lists and objects where one value belongs, and halves of characters."""
    for name in dict.fromkeys(columns):
        if name is not None and name in table.columns:
            table.by_value(name, partial(_refuse_unreadable, name))


def _refuse_unreadable(name: str, table: Table) -> None:
    for row, value in enumerate(table.columns[name]):
        if not is_scalar(value) or has_lone_surrogate(value):
            table.refuse(row, name, WHOLE if is_scalar(value) else ONE)


def _doubtful(table: Table, features: Sequence[Feature]) -> list[str]:
    """A note on each value of a learned vocabulary that people write where nothing is known, and on no numbers."""
    notes = []
    for feature in features:
        cells = counted(table.columns.get(feature.column, ()))
        if isinstance(feature, Numeric):
            texts = Counter[str]()
            for value, count in cells if feature.unknown == "missing" else ():  # else such rows are set aside, and told
                texts[value] += count if isinstance(value, str) else 0
            for text in (x for x in texts if not feature.is_missing(x) and feature.number(x) is None):
                said = f"no number and counts as missing, in {texts[text]:,} of {len(table):,} rows"
                notes.append(f"{table.source}, {feature.column}: {shown(text)} is {said}")
            continue
        if feature.values is not None:
            continue
        keys = Counter[str]()
        for value, count in cells:
            for key in feature.items(value) or ():
                keys[key] += count
        for key in (key for key in keys if if_missing(key) and key not in feature.aliases):
            said = f"{shown(key)} counts as a value, in {keys[key]:,} of {len(table):,} rows"
            notes.append(f"{table.source}, {feature.column}: {said}{if_missing(key)}")
    return notes
