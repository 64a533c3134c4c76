"""Tables as they are read, from JSON, CSV and Parquet files or from what a caller has; where a bad cell stands."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_jax.cells import as_key
from recsys_jax.errors import InputError

__all__ = ["Table", "read_table", "shown"]


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and the file or argument they came from, so that errors can name it."""

    source: str
    columns: Mapping[str, Sequence[Any]]
    numbers: Sequence[int] | None = None
    """The row numbers people count by, from 1, where they are not simply 1, 2, 3, ..."""
    single: bool = False
    """Whether this is one request rather than rows that people count."""
    rows: int = 0
    """How many rows there are where there is no column to tell."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), range(self.rows)))

    @classmethod
    def of(cls, rows: object, source: str) -> "Table":
        """A table from a list of dicts, a mapping of columns, or a data frame.

        Raises `InputError` where `rows` is none of these or its columns differ in length.
        """
        if isinstance(rows, Table):
            return rows
        if hasattr(rows, "columns") and hasattr(rows, "to_dict"):  # a pandas data frame
            columns = {str(name): rows[name].tolist() for name in rows.columns}  # type: ignore[index]
        elif hasattr(rows, "to_pydict"):  # a pyarrow table
            columns = rows.to_pydict()
        elif isinstance(rows, Mapping):
            for name, column in rows.items():
                if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
                    raise InputError(
                        f"{source}, {name}: found {shown(column)}; allowed: a list with one cell per row (for one "
                        f"row, give a list of one dict)"
                    )
            columns = {str(name): list(column) for name, column in rows.items()}
        elif (
            isinstance(rows, Sequence)
            and not isinstance(rows, str | bytes)
            and all(isinstance(row, Mapping) for row in rows)
        ):
            rows = [{str(name): cell for name, cell in row.items()} for row in rows]
            names = dict.fromkeys(name for row in rows for name in row)
            columns = {name: [row.get(name) for row in rows] for name in names}
            if not columns:
                return cls(source, {}, rows=len(rows))
        else:
            raise InputError(
                f"{source}: found {type(rows).__name__}; allowed: a data frame, columns, or a list of dicts"
            )
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"{source}: the columns differ in length: {lengths}")
        return cls(source, columns)

    def column(self, name: str) -> Sequence[Any]:
        """The column `name`. Raises `InputError` where the table has none."""
        if name not in self.columns:
            found = ", ".join(self.columns) or "no columns"
            raise InputError(f"{self.source}: the column {name!r} is missing; found: {found}")
        return self.columns[name]

    def error(self, row: int, column: str, allowed: str) -> InputError:
        """The sentence for a bad cell: where it is, what was found, what is allowed."""
        found = self.columns[column][row] if column in self.columns else None
        where = self.source if self.single else f"{self.source}, row {self.number(row)}"
        return InputError(f"{where}, {column}: found {shown(found)}; allowed: {allowed}")

    def number(self, row: int) -> int:
        """The number that people count the row by."""
        return row + 1 if self.numbers is None else self.numbers[row]

    def ids(self, name: str) -> list[str]:
        """The column `name` as ids. Raises `InputError` for an empty one."""
        keys = [as_key(value) for value in self.column(name)]
        for row, key in enumerate(keys):
            if key is None:
                raise self.error(row, name, "an id, a text or a number that is not empty")
        return keys  # type: ignore[return-value]

    def select(self, rows: Sequence[int]) -> "Table":
        """The given rows, in that order."""
        columns = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        return Table(self.source, columns, [self.number(row) for row in rows])


def read_table(path: Path) -> Table:
    """The table in a JSON (list of objects), CSV (with a header) or Parquet file, by the name's ending.

    Empty CSV cells are None. Raises `InputError` where the file is absent, malformed or of another kind.
    """
    kinds = {".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in kinds:
        raise InputError(f"{path}: found the ending {path.suffix!r}; allowed: .json, .csv, .parquet")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    return kinds[path.suffix.lower()](path)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def _read_json(path: Path) -> Table:
    text = _read_text(path)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: found {type(rows).__name__} at the top; allowed: a list of objects")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number}: found {shown(row)}; allowed: an object with the columns as keys")
    return Table.of(rows, str(path))


def _read_csv(path: Path) -> Table:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None
    if len(set(header)) != len(header):
        raise InputError(f"{path}: two columns have the same name: {', '.join(header)}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"{path}, row {number}: found {len(row)} cells; the header has {len(header)}")
    return Table(str(path), {name: [row[i] or None for row in rows] for i, name in enumerate(header)})


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path}: Parquet files need pyarrow: pip install 'recsys_jax[parquet]'") from None
    try:
        return Table(str(path), parquet.read_table(path).to_pydict())
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from None


def shown(value: object, limit: int = 80) -> str:
    """What was found, for a sentence: shortened where it is long."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
