"""Which rows of a table can be used, and what became of the others: as many are read as are used and set aside."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys_jax.data.features import unusable_cells
from recsys_jax.data.schema import Feature
from recsys_jax.data.tables import ID, SetAside, Table
from recsys_jax.data.values import as_id, half_character
from recsys_jax.errors import InputError

__all__ = ["Intake", "add_repeated", "unusable_rows"]


@dataclass(frozen=True)
class Intake:
    """What became of the rows of one file: `read` is `used` and those set aside."""

    source: str
    read: int
    used: int
    set_aside: tuple[SetAside, ...]
    rows: str = "rows"
    """What they are called."""

    @classmethod
    def of(cls, usable: Table, used: int) -> "Intake":
        """The intake of a table of which `used` rows came through, the others being set aside."""
        return cls(usable.source, len(usable) + len(usable.set_aside), used, usable.set_aside)

    @property
    def notes(self) -> list[str]:
        """How many were set aside and why the first one was; nothing where all are used."""
        if not self.set_aside:
            return []
        counts = f"{len(self.set_aside):,} of {self.read:,} {self.rows} set aside"
        first = str(self.set_aside[0]).removeprefix(f"{self.source}, ")
        return [f"{self.source}: {counts} and not used; the first, {first}"]


def unusable_rows(
    table: Table, id_column: str, shown: Sequence[str | None], features: Sequence[Feature]
) -> dict[int, InputError]:
    """The rows that cannot be used for what they themselves hold, each with its first reason.

    Args:
        table: the products or customers as they are read.
        id_column: the column with their ids.
        shown: the columns, None for none, that people see and no feature reads.
        features: the features of that side.

    Raises:
        InputError: where there is no such column of ids.
    """
    found: dict[int, InputError] = {}
    for row, cell in enumerate(table.column(id_column)):
        if as_id(cell) is None:
            found[row] = table.error(row, id_column, ID)
    for name in dict.fromkeys([*shown, *(feature.column for feature in features)]):
        for row, cell in enumerate(table.columns.get(name or "", ())):
            if half_character(cell):
                found.setdefault(row, table.error(row, name or "", "whole characters: a lone surrogate is half of one"))
    return unusable_cells(features, table) | found


def add_repeated(table: Table, column: str, problems: dict[int, InputError]) -> None:
    """Adds to the problems the rows whose id an earlier row has that is no problem itself."""
    first: dict[str | None, int] = {}
    for row, cell in enumerate(table.column(column)):
        if row not in problems and first.setdefault(as_id(cell), row) != row:
            earlier = table.number(first[as_id(cell)])
            allowed = f"an id that no other row has; row {earlier} has the same one"
            problems[row] = table.error(row, column, allowed)
