"""What customers bought already, which is not recommended to them again: one way to know it, for all who ask."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from recsys_jax.data.dataset import Dataset, load_dataset
from recsys_jax.data.interactions import read_purchases
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.frames import only_column
from recsys_jax.data.values import ID, as_id, as_list
from recsys_jax.errors import InputError, near, nearest_id, require, shown

BOUGHT = "purchased_products"  # the argument of `recommend`, and the column of a batch


@dataclass(frozen=True)
class History:
    """What a shop knows of its customers, by id."""

    source: str
    bought: Mapping[str, Sequence[str]]
    """The ids of the products that each customer bought and that are not recommended again."""
    customers: Table | None = None
    """Their attributes, where these are known."""
    row_of: Mapping[str, int] | None = None
    """The row of each in `customers`."""
    products: frozenset[str] = frozenset()
    """The ids of the shop's products, where these are known: the model may be older."""
    notes: tuple[str, ...] = ()
    """What was not used."""
    name: str | None = None
    """Of the dataset."""
    repeats: bool = False
    """Whether customers buy products again, so that nothing is left out."""

    @classmethod
    def of(cls, dataset: Dataset | str | Path, customers: Path | None = None) -> "History":
        """The purchases and customers of a dataset, or of the one in a folder, with other `customers` if given.

        In a folder, purchases without a usable date, or by whom the customer table lacks, are known as well. Raises
        `InputError` as reading does.
        """
        require(isinstance(dataset, Dataset | str | Path), "dataset", dataset, "a Dataset or its folder")
        known = dataset if isinstance(dataset, Dataset) else load_dataset(dataset, customers)
        bought: dict[str, list[str]] = {}
        notes: list[str] = []
        part = known.schema.interactions
        if known.schema.repeats:
            pass
        elif part is not None and not isinstance(dataset, Dataset):
            bought, notes = read_purchases(Path(dataset) / part.file, known.schema)
        else:
            for customer, product in known.purchases.tolist():
                bought.setdefault(known.customer_ids[customer], []).append(known.product_ids[product])
        rows = {key: row for row, key in enumerate(known.customer_ids)}
        source, products = f"the dataset {known.schema.name}", frozenset(map(str, map(as_id, known.product_ids)))
        return cls(
            source, bought, known.customers, rows, products, tuple(notes), known.schema.name, known.schema.repeats
        )

    @classmethod
    def read(cls, purchases: object, schema: Schema) -> "History":
        """The purchases in a file or frame like the one that the schema names. Raises `InputError` as reading does."""
        bought, notes = read_purchases(purchases, schema)
        source = str(purchases) if isinstance(purchases, str | Path) else "purchases"
        return cls(source, {} if schema.repeats else bought, notes=tuple(notes), repeats=schema.repeats)

    @classmethod
    def known(cls, dataset: object, purchases: object, schema: Schema, tell: Callable[[str], None]) -> "History | None":
        """What a recommender is given: a history, a dataset or its folder, or purchases; None where it is nothing.

        `tell` is called with what was not used, and where the dataset is not the one of the model with this `schema`.
        Raises `InputError` for both.
        """
        history = dataset if isinstance(dataset, History | None) else cls.of(dataset)  # type: ignore[arg-type]
        if purchases is not None:
            require(history is None, "purchases", purchases, "without a dataset, which has its own")
            history = cls.read(purchases, schema)
        for sentence in () if history is None else history.notes:
            tell(sentence)
        if history is not None and history.name not in (None, schema.name):
            tell(f"the model is of the dataset {schema.name}, and purchases are of another, {history.name}")
        return history

    @property
    def fingerprint(self) -> str:
        """A checksum of who bought what."""
        return sha256(json.dumps(self.bought, sort_keys=True).encode(errors="surrogatepass")).hexdigest()

    def attributes(self, customer_id: object, columns: Iterable[str], where: str) -> dict[str, Any]:
        """What these columns say of a customer, whose id stands `where`.

        Raises `InputError` for what is no id, and where attributes are known, and not of this one.
        """
        require(as_id(customer_id) is not None, where, customer_id, ID)
        if mistaken := self.mistaken(customer_id):
            raise InputError(f"{where}: found {shown(customer_id)}; allowed: an id as in {self.source}{mistaken}")
        if self.customers is None or self.row_of is None:
            return {}
        row = self.row_of.get(as_id(customer_id) or "")
        if row is None:
            raise InputError(
                f"{where}: found {shown(customer_id)}; allowed: one of the {len(self.row_of):,} customers in "
                f"{self.source}; of others, attributes{nearest_id(str(customer_id), self.row_of)}"
            )
        return {name: self.customers.columns[name][row] for name in columns if name in self.customers.columns}

    def stranger(self, customer_id: object) -> str:
        """A customer whom the table of customers, where it is known, has not at all; else empty."""
        key = as_id(customer_id)
        if self.customers is None or self.row_of is None or key is None or key in self.row_of:
            return ""
        return "" if key in self.customers.lost else shown(key)

    def mistaken(self, customer_id: object) -> str:
        """The end of a sentence on a customer who is not known, but for another spelling of the id; else empty."""
        key, ids = as_id(customer_id) or "", self.bought if self.row_of is None else self.row_of
        return "" if key in ids else near(key, ids)

    def of_ids(self, ids: Sequence[object]) -> list[Sequence[str]]:
        """What each of the customers with these ids bought; nothing, where that is not known."""
        return [self.bought.get(as_id(one) or "", ()) for one in ids]


def bought_again(schema: Schema, history: History | None) -> bool:
    """Whether customers buy products again, by the shop that is asked, or by the model's where none is."""
    return schema.repeats if history is None else history.repeats


def bought_columns(schema: Schema) -> dict[str, bool]:
    """The columns of a table of customers with what each bought, and whether one may hold a single id for a list.

    Where customers buy products again, the schema's own column leaves nothing out.
    """
    own = schema.customers.purchases
    return {BOUGHT: False} | ({own: True} if own is not None and not schema.repeats else {})


def bought(
    table: Table, schema: Schema, history: History | None, columns: Iterable[str] | None = None
) -> list[list[str]]:
    """The ids of what each row's customer bought, by the table's `bought_columns` and by the customer's id.

    With `columns`, only these are read. A value that is no list of ids is refused by the table, and so is a customer
    who is known by the same id in another spelling: what they bought would come back.
    """
    part, table = schema.customers, schema.reads(table)
    each: list[Sequence[Sequence[str]]] = [
        table.id_lists(name, part.separator, alone=alone)
        for name, alone in bought_columns(schema).items()
        if name in table.columns and (columns is None or name in columns)
    ]
    if history is not None and part.id in table.columns:
        for row, key in enumerate(table.columns[part.id]):
            if mistaken := history.mistaken(key):
                table.refuse(row, part.id, f"an id as in {history.source}{mistaken}")
        each.append(history.of_ids(table.columns[part.id]))
    return [list(dict.fromkeys(chain(*lists))) for lists in zip(*each, strict=True)] or [[] for _ in range(len(table))]


def lists_of(purchased: object, table: Table) -> Sequence[Any]:
    """The purchases of each row of a table. Raises `InputError` for what is no list of that length."""
    lists = as_list(only_column(purchased, table.source))
    if lists is None or len(lists) != len(table):
        found = shown(purchased) if lists is None else f"{len(lists)} lists"
        allowed = f"a list of product ids for each of the {len(table)} rows"
        raise InputError(f"{table.source}, {BOUGHT}: found {found}; allowed: {allowed}")
    return lists
