"""A dataset: products, customers and who bought what, validated against the schema."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from recsys_jax.data.features import WHOLE, if_missing, refuse_unusable
from recsys_jax.data.files import absent
from recsys_jax.data.readers import read_table
from recsys_jax.data.schema import Categorical, Feature, Interactions, Numeric, Schema
from recsys_jax.data.tables import SetAside, Table, Validation
from recsys_jax.data.values import DATE, ID, ONE, as_key, has_lone_surrogate, is_scalar, parse_date
from recsys_jax.errors import InputError, look_alikes, near, nearest_id, shown


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

    def _checksum(self, features: Mapping[str, list[Any]]) -> str:
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
    keys = ["(none)" if missing.met(value) else as_key(value) or "(none)" for value in table.column(name)]
    return [meanings.get(key, key) for key in keys]


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
    table.ids(part.id)
    refuse_unusable(table, part.features)
    refuse_unreadable(table, part.shown)
    table.ids(part.id, repeated=False)
    table = table.usable(part.id)
    return table, table.ids(part.id)


def product_ids(table: Table, schema: Schema) -> list[str]:
    """The ids of a product table. Raises `InputError` where it is empty, or an id or name is none or an id repeated."""
    table.require_rows("products")
    refuse_unreadable(table, schema.products.shown)
    return schema.reads(table).ids(schema.products.id, repeated=False)


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
    customers.ids(part.id)
    refuse_unusable(customers, part.features)
    refuse_unreadable(customers, [part.segment])
    bought = _bought(schema, customers, products, product_row) if schema.interactions is None else []
    id_of_row = customers.ids(part.id, repeated=part.repeated == "first")
    kept = [row for row in range(len(customers)) if row not in (customers.problems or ())]
    customers = customers.usable(part.id)
    id_of_row = [id_of_row[row] for row in kept]
    customer_row = {key: row for row, key in enumerate(dict.fromkeys(id_of_row))}
    if schema.interactions is None:
        rows = [(customer_row[key], *one) for key, row in zip(id_of_row, kept, strict=True) for one in bought[row]]
        purchases = np.array(rows, np.float64).reshape(-1, 3)
        tables, dated = [products, customers], part.date is not None
    else:
        sides = ((customers, customer_row), (products, product_row))
        if not isinstance(interactions, Table):
            interactions = read_table((interactions or Path()) / schema.interactions.file)
        table, purchases, passed = _interactions(schema.interactions, schema.reads(interactions), *sides)
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
    pairs, place = np.unique(purchases[:, :2].astype(np.int32), axis=0, return_inverse=True)
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
        for row, value in enumerate(table.columns.get(name or "", ())):
            if not is_scalar(value) or has_lone_surrogate(value):
                table.refuse(row, name or "", WHOLE if is_scalar(value) else ONE)


def _doubtful(table: Table, features: Sequence[Feature]) -> list[str]:
    """A note on each value of a learned vocabulary that people write where nothing is known, and on no numbers."""
    notes = []
    for feature in features:
        if isinstance(feature, Numeric):
            unused = feature.unknown == "missing"  # else such rows are set aside, and told
            texts = Counter(x for x in table.columns.get(feature.column, ()) if unused and isinstance(x, str))
            for text in (x for x in texts if not feature.is_missing(x) and feature.number(x) is None):
                counted = f"no number and counts as missing, in {texts[text]:,} of {len(table):,} rows"
                notes.append(f"{table.source}, {feature.column}: {shown(text)} is {counted}")
            continue
        if feature.values is not None:
            continue
        keys = Counter(key for value in table.columns.get(feature.column, ()) for key in feature.items(value) or ())
        for key in (key for key in keys if if_missing(key) and key not in feature.aliases):
            counted = f"{shown(key)} counts as a value, in {keys[key]:,} of {len(table):,} rows"
            notes.append(f"{table.source}, {feature.column}: {counted}{if_missing(key)}")
    return notes


def _bought(
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


def _interactions(
    part: Interactions,
    table: Table,
    customers: tuple[Table, Mapping[str, int]],
    products: tuple[Table, Mapping[str, int]],
) -> tuple[Table, Float64[np.ndarray, "n 3"], list[str]]:
    """The usable rows of a table, of each (customer row, product row, date), and notes on what is passed over."""
    table, notes = _purchases(part, table, (customers, products))
    table = table.collecting()
    sides = []
    both = ("customers", part.customer, customers), ("products", part.product, products)
    for side, name, (other, row_of) in both:
        keys = table.ids(name)
        for row, key in enumerate(keys):
            if key and key not in row_of:
                allowed = f"an id {other.holding(key)}{_hint(table)(key, row_of)}"
                table.refuse(row, name, f'{allowed}; or [interactions] unknown_{side} = "ignore" passes over such rows')
        sides.append([row_of.get(key, -1) for key in keys])
    dates = [0.0] * len(table) if part.date is None else table.dates(part.date, part.date_format)
    kept = [row for row in range(len(table)) if row not in (table.problems or ())]
    return table.usable(), np.array([*sides, dates], np.float64).T[kept], notes


def _purchases(
    part: Interactions, table: Table, known: Sequence[tuple[Table, Mapping[str, int]]] = ()
) -> tuple[Table, list[str]]:
    """The rows that are purchases, by `where` and by whom and what the schema ignores, and notes on the others.

    `known` are the customers and the products; without them, those ignored are the ones without an id.
    """
    notes = []

    def keep(rows: Sequence[bool], why: str) -> None:
        nonlocal table
        if passed := len(rows) - sum(rows):
            notes.append(f"{table.source}: {passed:,} of {len(rows):,} rows passed over, {why}")
            table = table.select([row for row, kept in enumerate(rows) if kept])

    for name, condition in part.where.items():
        # What says that nothing is known is an empty cell, unless the condition names it.
        words = table.nothing - condition.keys
        column = (None if as_key(value) in words else value for value in table.column(name))
        keep(list(map(condition.met, column)), f"by where, {name}")
    policies = (part.customer, part.unknown_customers), (part.product, part.unknown_products)
    for place, (name, policy) in enumerate(policies):
        if policy == "ignore" and not known:
            keep([key != "" for key in table.keys(name)], f"whose {name} is empty")
        elif policy == "ignore":
            other, ids = known[place]
            keys = table.keys(name)
            aside = {key for key in keys if key and key in other.lost and key not in ids}
            keep([key not in aside for key in keys], f"whose {name} is set aside in {other.source}")
            keys = [key for key in keys if key not in aside]
            # What is no id, and not empty either, is a mistake in any case.
            rows = [key is None or key in ids for key in keys]
            passed = dict.fromkeys(key for key, kept in zip(keys, rows, strict=True) if key and not kept)
            hint = next(filter(None, (near(key, ids) for key in passed)), "")
            keep(rows, f"whose {name} is not in {other.source}{hint}")
    return table, notes


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
