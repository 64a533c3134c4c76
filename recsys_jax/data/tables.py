"""Tables from JSON, CSV and Parquet files, data frames, lists and mappings; and where in one a bad value is."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recsys_jax.data.values import as_id, plain, shown
from recsys_jax.errors import InputError

ID = "an id, a text or a number that is not empty"
"""What an id column may hold, for the end of an error sentence."""


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


def refuse_many(set_aside: Sequence[SetAside], total: int, rows: str = "rows") -> None:
    """Raises `InputError` with the first reason where more than one row in ten of a file is set aside.

    So many are no slips: columns were swapped, or it is another file.
    """
    if len(set_aside) * 10 > total:
        raise InputError(
            f"{set_aside[0]} ({len(set_aside):,} of {total:,} {rows} cannot be used: more than one in ten, which is "
            f"no slip)"
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
            _different([str(name) for name in rows.columns], source)
            columns = {str(name): rows[name].tolist() for name in rows.columns}  # type: ignore[index]
        elif hasattr(rows, "to_pydict"):  # a pyarrow table
            _different(rows.column_names, source)  # type: ignore[attr-defined]
            columns = rows.to_pydict()
        elif isinstance(rows, Mapping):
            for name, column in rows.items():
                if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
                    raise InputError(
                        f"{source}, {name}: found {shown(column)}; allowed: a list with one value per row (for one "
                        f"row, give a list of one dict)"
                    )
            _different([str(name) for name in rows], source)
            columns = {str(name): list(column) for name, column in rows.items()}
        elif (
            isinstance(rows, Sequence)
            and not isinstance(rows, str | bytes)
            and all(isinstance(row, Mapping) for row in rows)
        ):
            for name in {tuple(row) for row in rows}:
                _different([str(key) for key in name], source)
            rows = [{str(name): value for name, value in row.items()} for row in rows]
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
            found = ", ".join(map(plain, self.columns)) or "no columns"
            raise InputError(f"{self.source}: the column {name!r} is missing; found: {found}{_separated(self.columns)}")
        return self.columns[name]

    def error(self, row: int, column: str, allowed: str) -> InputError:
        """The error for a bad value: where it is, what was found, what is allowed."""
        found = self.columns[column][row] if column in self.columns else None
        return InputError(f"{self.where(row)}, {column}: found {shown(found)}; allowed: {allowed}")

    def where(self, row: int) -> str:
        """The words for a row in errors: its file or argument, and its number unless it is a single request."""
        return self.source if self.single else f"{self.source}, row {self.number(row)}"

    def without(self, problems: Mapping[int, InputError], ids: str | None = None) -> "Table":
        """The table without these rows, which are set aside with their ids from the column `ids`.

        Raises `InputError` as `refuse_many` does.
        """
        if not problems:
            return self
        more = []
        for row, error in problems.items():
            reason = str(error).removeprefix(f"{self.source}, row {self.number(row)}").removeprefix(", ")
            key = None if ids is None else as_id(self.columns[ids][row])
            more.append(SetAside(self.source, self.number(row), reason, key))
        set_aside = sorted([*self.set_aside, *more], key=lambda one: one.row)
        refuse_many(set_aside, len(self) + len(self.set_aside))
        kept = [row for row in range(len(self)) if row not in problems]
        return replace(self.select(kept), set_aside=tuple(set_aside))

    def number(self, row: int) -> int:
        """The number of a row in its file, from 1."""
        return row + 1 if self.numbers is None else self.numbers[row]

    def ids(self, name: str) -> list[str]:
        """The column `name` as ids. Raises `InputError` for a value that `as_id` does not accept."""
        keys = [as_id(value) for value in self.column(name)]
        for row, key in enumerate(keys):
            if key is None:
                raise self.error(row, name, ID)
        return keys  # type: ignore[return-value]

    def select(self, rows: Sequence[int]) -> "Table":
        """The given rows, in that order."""
        columns = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        numbers = [self.number(row) for row in rows]
        return replace(self, columns=columns, numbers=numbers, rows=len(rows))


class RepeatedKey(dict[str, Any]):
    """A JSON object that has a key twice, of which one value would be lost."""

    key: str


def read_table(path: Path) -> Table:
    """The table in a JSON (list of objects), CSV (with a header) or Parquet file, by the ending of its name.

    Empty CSV values and NaN are None. Rows that are not objects, or have a key twice, are set aside. Raises
    `InputError` where the file is absent, malformed or of another format.
    """
    kinds = {".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in kinds:
        raise InputError(f"{path}: found the ending {path.suffix!r}; allowed: .json, .csv, .parquet")
    try:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        with path.open("rb") as file:
            head = file.read(64)
    except (OSError, ValueError) as error:  # a name that is too long or has a NUL, a file without permission
        if isinstance(error, InputError):
            raise
        raise InputError(f"{plain(str(path))}: cannot be read: {error}") from None
    ending = path.suffix.lower()
    meant, found = _kind(head)
    if found and meant != ending:
        raise InputError(f"{path}: found {found}; allowed: {_MEANT[ending]}")
    return kinds[ending](path)


_MEANT = {
    ".json": "JSON, a list of objects",
    ".csv": "CSV, with the columns' names in the first line",
    ".parquet": "Parquet",
}


def _kind(head: bytes) -> tuple[str, str]:
    """The ending that a file should have, and what it is, as far as its first bytes tell."""
    signs = {
        b"PAR1": (".parquet", "a Parquet file: let its name end in .parquet"),
        b"\x1f\x8b": (".gz", "a file compressed by gzip: unpack it first"),
        b"PK\x03\x04": (".zip", "a ZIP archive or an Excel sheet: unpack it, or save the sheet as CSV (UTF-8)"),
        b"[{": (".json", "JSON: let its name end in .json"),
    }
    start = re.sub(rb"^(\xef\xbb\xbf)?\s*\[\s*", b"[", head)
    return next((kind for sign, kind in signs.items() if start.startswith(sign)), ("", "" if head else "an empty file"))


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        looks = _encoding(content)
        advice = f"it looks like {looks}: save it as UTF-8" if looks else "save the file as UTF-8"
        raise InputError(f"{path}: byte {error.start} is not UTF-8; {advice}") from None
    if "\0" in text[:4]:
        raise InputError(f"{path}: found a NUL at its start; it looks like UTF-16: save it as UTF-8")
    return text


def _encoding(content: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8; "" where it is unknown."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    try:
        content.decode("cp949")
    except UnicodeDecodeError:
        return ""
    # A syllable is two high bytes in CP949; an accented letter of Latin-1 is a single one before a letter.
    syllables = len(re.findall(rb"[\xb0-\xc8][\xa1-\xfe]", content))
    high = len(content.translate(None, bytes(range(128))))
    return "CP949 (Korean Windows)" if 4 * syllables > high else ""


def _read_json(path: Path) -> Table:
    text = _text(path)
    try:
        rows = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: found {type(rows).__name__} at the top; allowed: a list of objects")
    problems: dict[int, InputError] = {}
    for row, found in enumerate(rows):
        if isinstance(found, RepeatedKey):
            problems[row] = InputError(f"{path}, row {row + 1}: found the key {found.key!r} twice; allowed: each once")
        elif not isinstance(found, dict):
            problems[row] = InputError(
                f"{path}, row {row + 1}: found {shown(found)}; allowed: an object with the columns as keys"
            )
    table = Table.of([{} if row in problems else found for row, found in enumerate(rows)], str(path))
    return table.without(problems)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeated = RepeatedKey(found)
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeated


def _constant(name: str) -> float | None:
    """None for NaN, which Python and pandas write for a missing number; the infinities stay, to be refused."""
    return None if name == "NaN" else float(name)


def _read_csv(path: Path) -> Table:
    text = _text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # long reviews are allowed
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        rows = [row for row in reader if row]
    except csv.Error as error:
        open_ = "unexpected end" in str(error)
        closes = "; a quotation mark before it opens a value that never closes" if open_ else ""
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV: {error}{closes}") from None
    _different(header, str(path))
    problems: dict[int, InputError] = {}
    for row, values in enumerate(rows):
        if len(values) != len(header):
            found = f"found {len(values)} values; the header has {len(header)}"
            problems[row] = InputError(f"{path}, row {row + 1}: {found}")
            rows[row] = [""] * len(header)
    table = Table(str(path), {name: [row[i] or None for row in rows] for i, name in enumerate(header)})
    return table.without(problems)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path}: Parquet files need pyarrow: pip install 'recsys_jax[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            return Table.of(file.read(), str(path))
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable as Parquet: {error}") from None


def _different(names: Sequence[str], source: str) -> None:
    """Raises `InputError` where two columns have the same name: one of them would be lost."""
    if len(set(names)) != len(names):
        raise InputError(f"{source}: two columns have the same name: {', '.join(map(plain, names))}")


def _separated(names: Mapping[str, object]) -> str:
    """Advice for a header read as one name because its separator is not a comma; else ""."""
    used = {"semicolons": ";", "tabs": "\t", "bars": "|"}
    found = next((word for word, sign in used.items() if len(names) == 1 and sign in next(iter(names))), None)
    return f"; the file is separated by {found}: save it with commas" if found else ""
