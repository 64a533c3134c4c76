"""Which rows of a table can be used; the others are set aside with a reason, and counted."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys_jax.data.features import unusable_values
from recsys_jax.data.schema import Feature
from recsys_jax.data.tables import ID, SetAside, Table
from recsys_jax.data.values import as_id, has_lone_surrogate
from recsys_jax.errors import InputError


@dataclass(frozen=True)
class Validation:
    """The row counts of one file: those used and those set aside."""

    source: str
    used: int
    set_aside: tuple[SetAside, ...]
    rows: str = "rows"
    """What the rows are: rows, or reviews."""

    @property
    def read(self) -> int:
        """The rows of the file."""
        return self.used + len(self.set_aside)

    @property
    def notes(self) -> list[str]:
        """A line on how many rows were set aside, with the first reason; none where all are used."""
        if not self.set_aside:
            return []
        counts = f"{len(self.set_aside):,} of {self.read:,} {self.rows} set aside"
        first = str(self.set_aside[0]).removeprefix(f"{self.source}, ")
        return [f"{self.source}: {counts} and not used; the first, {first}"]


def unusable_rows(
    table: Table, id_column: str, shown: Sequence[str | None], features: Sequence[Feature]
) -> dict[int, InputError]:
    """The rows of products or customers with a value of their own that cannot be used, each with its first reason.

    Looked at are the column of ids, those `shown` to people (None: the schema names none) and the features. Raises
    `InputError` where the id column is missing.
    """
    found: dict[int, InputError] = {}
    for row, value in enumerate(table.column(id_column)):
        if as_id(value) is None:
            found[row] = table.error(row, id_column, ID)
    for name in dict.fromkeys([*shown, *(feature.column for feature in features)]):
        for row, value in enumerate(table.columns.get(name or "", ())):
            if has_lone_surrogate(value):
                found.setdefault(row, table.error(row, name or "", "whole characters: a lone surrogate is half of one"))
    return unusable_values(features, table) | found


def add_repeated(table: Table, column: str, problems: dict[int, InputError]) -> None:
    """Adds to `problems` each row whose id is that of an earlier row without a problem."""
    first: dict[str | None, int] = {}
    for row, value in enumerate(table.column(column)):
        if row not in problems and first.setdefault(as_id(value), row) != row:
            earlier = table.number(first[as_id(value)])
            allowed = f"an id that no other row has; row {earlier} has the same one"
            problems[row] = table.error(row, column, allowed)
