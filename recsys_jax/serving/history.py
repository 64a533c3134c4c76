"""What customers bought already, which is not recommended to them again: one way to know it, for all who ask."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from recsys_jax.data.dataset import Dataset, load_dataset, read_purchases
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_id
from recsys_jax.errors import InputError, shown

BOUGHT = "purchased_products"  # the argument of `recommend`, and the column of a batch


@dataclass(frozen=True)
class History:
    """What a shop knows of its customers, by id."""

    source: str
    bought: Mapping[str, Sequence[str]]
    """The ids of the products that each customer bought and that are not recommended again."""
    repeats: bool
    """Whether the shop's customers buy products again: then `bought` is empty."""
    customers: Table | None = None
    """Their attributes, where these are known."""
    row_of: Mapping[str, int] | None = None
    """The row of each in `customers`."""

    @classmethod
    def of(cls, dataset: Dataset | str | Path) -> "History":
        """The purchases and customers of a dataset, or of the one in a folder. Raises `InputError` as reading does."""
        known = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
        bought: dict[str, list[str]] = {}
        for customer, product in () if known.schema.repeats else known.purchases.tolist():
            bought.setdefault(known.customer_ids[customer], []).append(known.product_ids[product])
        rows = {key: row for row, key in enumerate(known.customer_ids)}
        return cls(f"the dataset {known.schema.name}", bought, known.schema.repeats, known.customers, rows)

    @classmethod
    def read(cls, path: Path, schema: Schema) -> "History":
        """The purchases in a file like the one that the schema names. Raises `InputError` as `read_purchases` does."""
        bought = read_purchases(path, schema)
        return cls(str(path), {} if schema.repeats else bought, schema.repeats)

    @property
    def fingerprint(self) -> str:
        """A checksum of who bought what."""
        return sha256(json.dumps(self.bought, sort_keys=True).encode(errors="surrogatepass")).hexdigest()

    def attributes(self, customer_id: object, columns: Iterable[str]) -> dict[str, Any]:
        """What these columns say of a customer. Raises `InputError` where attributes are known, and not of this one."""
        if self.customers is None or self.row_of is None:
            return {}
        row = self.row_of.get(as_id(customer_id) or "")
        if row is None:
            raise InputError(
                f"customer_id: found {shown(customer_id)}; allowed: one of the {len(self.row_of):,} customers in "
                f"{self.source}; of others, attributes"
            )
        return {name: self.customers.columns[name][row] for name in columns if name in self.customers.columns}

    def of_ids(self, ids: Sequence[object]) -> list[Sequence[str]]:
        """What each of the customers with these ids bought; nothing, where that is not known."""
        return [self.bought.get(as_id(one) or "", ()) for one in ids]


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

    With `columns`, only these are read. A value that is no list of ids is refused by the table.
    """
    part = schema.customers
    each: list[Sequence[Sequence[str]]] = [
        table.id_lists(name, part.separator, alone=alone)
        for name, alone in bought_columns(schema).items()
        if name in table.columns and (columns is None or name in columns)
    ]
    if history is not None and part.id in table.columns:
        each.append(history.of_ids(table.columns[part.id]))
    return [list(dict.fromkeys(chain(*lists))) for lists in zip(*each, strict=True)] or [[] for _ in range(len(table))]
