"""Tables, of files, data frames, lists and mappings; and what becomes of a bad value in one.

A request's table raises its first bad value; one that is `collecting` notes the rows instead, and `usable` sets them
aside. Whatever reads values refuses through the same `Table.refuse`, so it need not know which it reads.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from recsys_jax.data.tabular.coded import Coded, coded, converted, taken
from recsys_jax.data.tabular.frames import columns_of, data_frame, different, free, listed
from recsys_jax.data.values import (
    DATE,
    ID,
    as_id,
    as_ids,
    as_key,
    composed,
    is_empty,
    parse_date,
    split_keys,
)
from recsys_jax.errors import InputError, did_you_mean, plain, shown

T = TypeVar("T")
IDS = "a list of product ids", "a product id, or a list of them"


@dataclass(frozen=True)
class SetAside:
    """A row of a file that cannot be used, and why."""

    source: str
    row: int
    """Its number, from 1."""
    reason: str
    """Which column, what was found, what is allowed."""
    id: str | None = None
    """The id of the row's customer or product, where there is one."""

    def __str__(self) -> str:
        return f"{self.source}, row {self.row}{'' if self.reason.startswith(':') else ', '}{self.reason}"


@dataclass(frozen=True)
class Validation:
    """The row counts of one file: those used and those set aside."""

    source: str
    used: int
    set_aside: tuple[SetAside, ...]
    rows: str = "rows"
    """What the rows are: rows, or reviews."""
    remarks: tuple[str, ...] = ()
    """How the file was read, where that is not plain."""

    @property
    def read(self) -> int:
        """The rows of the file."""
        return self.used + len(self.set_aside)

    @property
    def notes(self) -> list[str]:
        """The remarks, and a line on how many rows were set aside, with the first reason; none where all are used."""
        remarks = [f"{self.source}: {remark}" for remark in self.remarks]
        if not self.set_aside:
            return remarks
        counts = f"{len(self.set_aside):,} of {self.read:,} {self.rows} set aside"
        first = str(self.set_aside[0]).removeprefix(f"{self.source}, ")
        return [*remarks, f"{self.source}: {counts} and not used; the first, {first}"]

    def refuse_many(self) -> None:
        """Raises `InputError` with the first reason where more than one row in ten is set aside.

        So many are no slips: columns were swapped, or it is another file.
        """
        if len(self.set_aside) * 10 > self.read:
            raise InputError(
                f"{self.set_aside[0]} ({len(self.set_aside):,} of {self.read:,} {self.rows} cannot be used: more than "
                f"one in ten, which is no slip)"
            )


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and the file or argument they came from, which errors name."""

    source: str
    columns: Mapping[str, Sequence[Any]]
    numbers: Sequence[int] | None = None
    """The number of each row in its file, from 1; None: 1, 2, 3, ..."""
    single: bool = False
    """Whether this is one request, whose errors name no row."""
    rows: int = 0
    """The number of rows where there are no columns."""
    set_aside: tuple[SetAside, ...] = ()
    """The rows of the file that were left out, in its order."""
    problems: dict[int, str] | None = None
    """The first reason against each bad row of a table that is `collecting`."""
    nothing: frozenset[str] = frozenset()
    """What says in a cell, beside an empty one, that nothing is known."""
    encoding: str = "utf-8"
    """That of its file."""
    remarks: tuple[str, ...] = ()
    """How its file was read, where that is not plain."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), range(self.rows)))

    @classmethod
    def of(cls, rows: object, source: str) -> "Table":
        """A table from a data frame of any library, a mapping of columns, a structured array, or a list of dicts.

        Raises `InputError` where `rows` is none of these or its columns differ in length.
        """
        if isinstance(rows, Table):
            return rows
        named: Iterable[tuple[Any, Any]]
        frame = data_frame(rows, source)
        if isinstance(rows, np.ndarray) and rows.dtype.names:
            rows = {name: rows[name] for name in rows.dtype.names}
        if frame is not None:
            named = columns_of(frame)
        elif isinstance(rows, Mapping):
            for name, column in rows.items():
                single = not isinstance(column, Iterable) or getattr(column, "ndim", 1) == 0
                if single or isinstance(column, str | bytes | Mapping | set | frozenset):
                    raise InputError(
                        f"{source}, {name}: found {shown(column)}; allowed: a list with one value per row (for one "
                        f"row, give a list of one dict)"
                    )
            named = ((name, coded(listed(column))) for name, column in rows.items())
        elif (
            isinstance(rows, Sequence)
            and not isinstance(rows, str | bytes)
            and all(isinstance(row, Mapping) for row in rows)
        ):
            for names in {tuple(row) for row in rows}:
                different([composed(str(name)) for name in names], source)
            texts = [{composed(str(name)): value for name, value in row.items()} for row in rows]
            every = dict.fromkeys(name for row in texts for name in row)
            if len(every) * len(rows) > 20 * sum(map(len, texts)) + 10**6:
                # Mostly empty, and far beyond the rows' own size: memory would grow with their square.
                raise InputError(f"{source}: found {len(every):,} columns; allowed: rows with mostly the same columns")
            return cls(source, {name: coded([row.get(name) for row in texts]) for name in every}, rows=len(rows))
        else:
            found, hint = type(rows).__name__, ""
            if isinstance(rows, np.ndarray):
                hint = "; of arrays, a structured one alone has names for its columns"
            elif hasattr(type(rows), "columns"):  # Polars' lazy frames, Dask, DuckDB
                hint = "; collect a lazy frame first, as its rows have no order until then"
            raise InputError(f"{source}: found {found}; allowed: a data frame, columns, or a list of dicts{hint}")
        pairs = [(composed(str(name)), column) for name, column in named]
        different([name for name, _ in pairs], source)
        lengths = {name: len(column) for name, column in pairs}
        if len(set(lengths.values())) > 1:
            raise InputError(f"{source}: the columns differ in length: {lengths}")
        return cls(source, dict(pairs))

    def require_rows(self, what: str) -> None:
        """Raises `InputError` where there are none; `what` they are, such as products."""
        if not len(self):
            raise InputError(f"{self.source}: there are no {what} in it")

    def column(self, name: str) -> Sequence[Any]:
        """The column `name`. Raises `InputError` where the table has none."""
        if name not in self.columns:
            found, near = ", ".join(map(plain, self.columns)) or "no columns", did_you_mean(name, self.columns)
            raise InputError(f"{self.source}: the column {name!r} is missing; found: {found}{near}")
        return self.columns[name]

    def by_value(self, name: str, ask: Callable[["Table"], Any]) -> Any:
        """What a function makes of the column `name` alone: an array, a list, or None, with what it refuses.

        Of a column whose values come again it is asked for a table of the different ones, in order of first appearance.
        """
        column = self.column(name)
        if not isinstance(column, Coded):
            return ask(self)
        values = replace(self, columns={name: column.values}, numbers=None, problems={})
        found, problems = ask(values), values.problems or {}
        if problems:
            rows = np.flatnonzero(np.isin(column.codes, [*problems]))
            for row in rows[: None if self.problems is not None else 1].tolist():
                self._note(row, problems[column.codes[row]])
        if isinstance(found, np.ndarray):
            return found[column.codes]
        return found if found is None else Coded(found, column.codes)

    def read(self, name: str, convert: Callable[[Any], T | None], allowed: str) -> Sequence[T | None]:
        """The column by a function of `values`; a value of which it makes None is refused."""

        def asked(table: Table) -> Sequence[T | None]:
            found = converted(convert, table.columns[name])
            for row, value in enumerate(found):
                if value is None:
                    table.refuse(row, name, allowed)
            return found

        return self.by_value(name, asked)  # type: ignore[no-any-return]

    def keys(self, name: str) -> Sequence[str | None]:
        """The column `name` as ids; "" where a cell is empty or says so, None where it holds something else."""

        def key(value: object) -> str | None:
            found = as_id(value)
            if found is None:
                return "" if self.says_nothing(value) else None
            return "" if found in self.nothing else found

        return converted(key, self.column(name))

    def says_nothing(self, value: object) -> bool:
        """Whether a cell is empty, or says that nothing is known."""
        return as_key(value) in self.nothing or is_empty(value)

    def ids(self, name: str) -> Sequence[str]:
        """The column `name` as ids, "" where one is refused.

        Raises `InputError` for the first that is refused, unless the table is `collecting`.
        """

        def asked(table: Table) -> list[str]:
            keys = table.keys(name)
            for row, key in enumerate(keys):
                if not key:
                    said = key == "" and not is_empty(table.columns[name][row])
                    none = f"{ID}; missing_values in dataset.toml says that this is none"
                    table.refuse(row, name, none if said else ID)
            return [key or "" for key in keys]

        return self.by_value(name, asked)  # type: ignore[no-any-return]

    def refuse_repeated(self, name: str, ids: Sequence[str]) -> None:
        """Refuses the ids of the column `name` that an earlier row without problems has. Raises as `ids` does."""
        first: dict[str, int] = {}
        for row, key in enumerate(ids if len({*ids}) < len(ids) else ()):
            if row not in (self.problems or ()) and first.setdefault(key, row) != row:
                number = self.number(first[key])
                self.refuse(row, name, f"an id that no other row has; row {number} has the same one")

    def id_lists(self, name: str, separator: str | None = None, *, alone: bool = False) -> list[list[str]]:
        """The column `name` as lists of ids, as `values.as_ids` reads them; empty where one is refused."""

        def ids(value: object) -> list[str] | None:
            found = [] if self.says_nothing(value) else as_ids(value, separator, alone=alone)
            return None if found is None else [key for key in found if key not in self.nothing]

        return [found or [] for found in self.read(name, ids, IDS[alone])]

    def dates(self, name: str, written: str | None = None) -> Sequence[float | None]:
        """The column `name` as `values.parse_date` reads it; None where one is refused."""
        return self.read(name, lambda value: None if self.says_nothing(value) else parse_date(value, written), DATE)

    def refuse(self, row: int, column: str, allowed: str) -> None:
        """Raises `InputError` for a bad value; a table that is `collecting` keeps the reason, if its row has none."""
        found = self.columns[column][row] if column in self.columns else None
        self._note(row, f"{column}: found {shown(found)}; allowed: {allowed}")

    def _note(self, row: int, reason: str) -> None:
        if self.problems is None:
            raise InputError(f"{self.where(row)}, {reason}")
        self.problems.setdefault(row, reason)

    @property
    def good(self) -> Int[np.ndarray, " m"]:
        """The rows without `problems`."""
        rows = np.arange(len(self))
        return rows[~np.isin(rows, [*self.problems])] if self.problems else rows

    def collecting(self) -> "Table":
        """The table with `problems`, none yet."""
        return replace(self, problems={})

    def usable(self, ids: str | None = None) -> "Table":
        """The rows without `problems`; the others are set aside, with their ids from the column `ids`.

        Raises `InputError` where these are more than one row in ten of the file.
        """
        if not self.problems:
            return replace(self, problems=None)
        set_aside = list(self.set_aside)
        for row, reason in self.problems.items():
            key = None if ids is None else as_id(self.columns[ids][row])
            set_aside.append(SetAside(self.source, self.number(row), reason, key))
        set_aside.sort(key=lambda one: one.row)
        kept = replace(self.select(self.good), set_aside=tuple(set_aside), problems=None)
        kept.validation.refuse_many()
        return kept

    def holding(self, key: str) -> str:
        """The end of an error sentence on an id that should stand in this table, and why it does not if known."""
        lost = self.lost.get(key)
        why = "" if lost is None else f"; row {lost.row} there is set aside: {lost.reason}"
        return f"that stands in {self.source}{why}"

    @cached_property
    def lost(self) -> Mapping[str | None, SetAside]:
        """By id, the rows that are set aside."""
        return {one.id: one for one in self.set_aside}

    @property
    def validation(self) -> Validation:
        """The counts of its rows and of those set aside."""
        return Validation(self.source, len(self), self.set_aside, remarks=self.remarks)

    def where(self, row: int) -> str:
        """The words for a row in errors: its file or argument, and its number unless it is a single request."""
        return self.source if self.single else f"{self.source}, row {self.number(row)}"

    def number(self, row: int) -> int:
        """The number of a row in its file, from 1."""
        return row + 1 if self.numbers is None else self.numbers[row]

    def first_rows(self, ids: Sequence[str], names: Sequence[str]) -> "tuple[Table, str]":
        """The first row of each id, and a note on how many have rows that differ from it in the named columns."""
        first: dict[str, int] = {}
        for row, key in enumerate(ids):
            first.setdefault(key, row)
        columns = [self.columns[name] for name in names if name in self.columns]
        differing = {
            key
            for row, key in enumerate(ids)
            if first[key] != row
            and any(split_keys(column[row], None) != split_keys(column[first[key]], None) for column in columns)
        }
        note = (
            f"{self.source}: {len(ids):,} rows of {len(first):,} customers; the attributes are "
            f"those of each one's first row ({len(differing):,} have rows that differ)"
        )
        return self.select(list(first.values())), note

    def select(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> "Table":
        """The given rows, in that order."""
        rows = rows.tolist() if isinstance(rows, np.ndarray) else rows
        columns = {name: taken(column, rows) for name, column in self.columns.items()}
        numbers = [row + 1 for row in rows] if self.numbers is None else [self.numbers[row] for row in rows]
        return replace(self, columns=columns, numbers=numbers, rows=len(rows))


def answered(
    rows: object, table: Table, key: str, row_of: list[int], columns: Mapping[str, tuple[type, list[Any]]]
) -> Any:
    """Columns, each with the type of its values, about some rows of a table, in the kind of `rows`, which it is of.

    A frame of the same library, a list of dicts where they are one, else a mapping of columns. First stands the table's
    own column `key`, with its type, or without one the numbers of the rows, from 1.
    """
    own, frame = table.columns.get(key), data_frame(rows, table.source)
    name = free(key if own is not None else "row", columns)
    first = [row + 1 if own is None else own[row] for row in row_of]
    if frame is None:
        every = {name: first, **{other: values for other, (_, values) in columns.items()}}
        many = isinstance(rows, Sequence)
        return [dict(zip(every, one, strict=True)) for one in zip(*every.values(), strict=True)] if many else every
    import narwhals as nw

    kinds = {int: nw.Int64(), float: nw.Float64(), str: nw.String()}

    def series(name: str, kind: type, values: list[Any]) -> Any:
        found = [None if one is None else kind(one) for one in values]
        return nw.new_series(name, found, kinds[kind], backend=frame.implementation)

    column = None if own is None else frame[:, list(table.columns).index(key)]
    ids = series(name, int, first) if column is None else nw.maybe_reset_index(column[row_of])
    return nw.from_dict({name: ids, **{other: series(other, *column) for other, column in columns.items()}}).to_native()


_DOUBTFUL = {"na", "n/a", "#na", "n.a.", "none", "nil", "-", "--", "?", "unknown", "prefer not to say"}


def if_missing(key: str | None) -> str:
    """The end of a sentence on what people write where nothing is known; empty for other values."""
    if key is None or key.casefold() not in _DOUBTFUL:
        return ""
    said = json.dumps(key, ensure_ascii=False)
    return f"; where it says that nothing is known, dataset.toml may say missing_values = [{said}]"
