"""Files to tables: JSON, JSON Lines, CSV and Parquet."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys_jax.data.files import absent, open_file, read_file
from recsys_jax.data.tables import Table, different, separated
from recsys_jax.data.values import composed
from recsys_jax.errors import InputError, shown


def read_table(path: Path) -> Table:
    """The table in a JSON, JSON Lines, CSV (with a header) or Parquet file, by the ending of its name.

    Empty CSV values and NaN are None. Rows that are not objects, or have a key twice, are set aside. Raises
    `InputError` where the file is absent, malformed or of another format.
    """
    ending = path.suffix.lower()
    if ending not in _READERS:
        raise InputError(f"{path}: found the ending {path.suffix!r}; allowed: {', '.join(_READERS)}")
    try:
        with open_file(path) as file:
            head = file.read(64)
    except FileNotFoundError:
        raise InputError(absent(path)) from None
    read, allowed = _READERS[ending]
    start = re.sub(rb"^(\xef\xbb\xbf)?\s*\[\s*", b"[", head)
    empty = "" if head else "an empty file"
    meant, found = next((kind for sign, kind in _SIGNS.items() if start.startswith(sign)), ("", empty))
    if found and meant != ending:
        raise InputError(f"{path}: found {found}; allowed: {allowed}")
    return read(path)


# By the first bytes of a file: the ending that its name should have, and what it is.
_SIGNS = {
    b"PAR1": (".parquet", "a Parquet file: let its name end in .parquet"),
    b"\x1f\x8b": (".gz", "a file compressed by gzip: unpack it first"),
    b"PK\x03\x04": (".zip", "a ZIP archive or an Excel sheet: unpack it, or save the sheet as CSV (UTF-8)"),
    b"\xd0\xcf\x11\xe0": (".xls", "an Excel sheet: save it as CSV (UTF-8)"),
    b"[{": (".json", "JSON: let its name end in .json"),
}


def _text(path: Path) -> str:
    content = read_file(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        advice = "save the file as UTF-8"
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            advice = "it looks like UTF-16: save it as UTF-8"
        with suppress(UnicodeDecodeError):
            content.decode("cp949")
            # A syllable is two high bytes in CP949; an accented letter of Latin-1 is a single one before a letter.
            syllables = len(re.findall(rb"[\xb0-\xc8][\xa1-\xfe]", content))
            if 4 * syllables > len(content.translate(None, bytes(range(128)))):
                advice = "it looks like CP949 (Korean Windows): save it as UTF-8"
        raise InputError(f"{path}: byte {error.start} is not UTF-8; {advice}") from None
    if "\0" in text[:4]:
        raise InputError(f"{path}: found a NUL at its start; it looks like UTF-16: save it as UTF-8")
    return text


class RepeatedKey(dict[str, Any]):
    """A JSON object that has a key twice, of which one value would be lost."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = RepeatedKey(found)
    repeated.key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return repeated


# NaN, which Python and pandas write for a missing number, is None; the infinities stay, to be refused.
_CONSTANTS = {"NaN": None, "Infinity": float("inf"), "-Infinity": float("-inf")}
_LINES = re.compile(r"\s*\{.*\}[ \t\r]*\n\s*\{")  # an object on its line, and the next: JSON Lines


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_CONSTANTS.__getitem__)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None


def _read_json(path: Path) -> Table:
    text = _text(path)
    if path.suffix.lower() == ".json" and not _LINES.match(text):
        rows = _parsed(text, str(path))
    else:  # not splitlines(): it also splits at characters that may stand in a JSON text
        lines = enumerate(text.split("\n"), 1)
        rows = [_parsed(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not isinstance(rows, list):
        raise InputError(f"{path}: found {type(rows).__name__} at the top; allowed: a list of objects")
    problems: dict[int, str] = {}
    for row, found in enumerate(rows):
        if isinstance(found, RepeatedKey):
            problems[row] = f": found the key {found.key!r} twice; allowed: each once"
        elif not isinstance(found, dict):
            problems[row] = f": found {shown(found)}; allowed: an object with the columns as keys"
    table = Table.of([{} if row in problems else found for row, found in enumerate(rows)], str(path))
    return replace(table, problems=problems).usable()


def _read_csv(path: Path) -> Table:
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    before = csv.field_size_limit(2**31 - 1)  # long reviews are allowed; the limit is that of the whole program
    try:
        header = [composed(name) for name in next(reader, [])]
        rows = [row for row in reader if row]
    except csv.Error as error:
        never = "; a quotation mark before it opens a value that never closes"
        closes = never if "unexpected end" in str(error) else ""
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV: {error}{closes}") from None
    finally:
        csv.field_size_limit(before)
    different(header, str(path))
    wrong = [(row, len(values)) for row, values in enumerate(rows) if len(values) != len(header)]
    if wrong and (advice := separated(dict.fromkeys(header))):  # where a number has a comma, its rows look longer
        raise InputError(f"{path}: found one column{advice}")
    problems = {row: f": found {count} values; the header has {len(header)}" for row, count in wrong}
    for row in problems:
        rows[row] = [""] * len(header)
    columns = {name: [row[i] or None for row in rows] for i, name in enumerate(header)}
    return Table(str(path), columns, problems=problems).usable()


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path}: Parquet files need pyarrow: pip install 'recsys_jax[parquet]'") from None
    try:
        with open_file(path) as stream, parquet.ParquetFile(stream) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            values = sum(group.column(column).num_values for group in groups for column in range(group.num_columns))
            size = stream.seek(0, io.SEEK_END)
            if values > _VALUES_PER_BYTE * size + 2**21:
                raise InputError(
                    f"{path}: found {values:,} values in {size:,} bytes; allowed: at most {_VALUES_PER_BYTE} in each"
                )
            return Table.of(file.read(), str(path))
    except InputError:
        raise
    except (arrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from None


# A constant column takes no room at all; of ids, two million values take a megabyte or more.
_VALUES_PER_BYTE = 16

_READERS: Mapping[str, tuple[Callable[[Path], Table], str]] = {
    ".json": (_read_json, "JSON, a list of objects"),
    ".jsonl": (_read_json, "JSON Lines, an object on each line"),
    ".ndjson": (_read_json, "JSON Lines, an object on each line"),
    ".csv": (_read_csv, "CSV, with the columns' names in the first line"),
    ".parquet": (_read_parquet, "Parquet"),
}
ENDINGS = tuple(_READERS)
"""What the names of tables end in."""
