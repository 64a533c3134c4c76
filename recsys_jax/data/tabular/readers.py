"""Files to tables: JSON, JSON Lines, CSV as spreadsheets and programs write it, and Parquet."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from recsys_jax.data.files import absent, open_file, read_file
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.coded import coded, converted
from recsys_jax.data.tabular.frames import different
from recsys_jax.data.values import composed
from recsys_jax.errors import InputError, installing, plain, shown


def read_table(path: Path) -> Table:
    """The table in a JSON, JSON Lines, CSV (with a header) or Parquet file, by the ending of its name.

    Empty CSV values and NaN are None. Rows that are not objects, or have a key twice, are set aside. Raises
    `InputError` where the file is absent, malformed or of another format.
    """
    ending = path.suffix.lower()
    require_ending(path)
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


def require_ending(path: Path) -> None:
    """Raises `InputError` for a file that is no table by its name; of an Excel sheet it says how it becomes one."""
    ending = path.suffix.lower()
    if ending not in _READERS:
        excel = f"; {_EXCEL}" if ending.startswith(".xls") else ""
        raise InputError(f"{path}: found the ending {path.suffix!r}; allowed: {', '.join(_READERS)}{excel}")


_EXCEL = 'save it in Excel by "Save as", "CSV UTF-8"'
# By the first bytes of a file: the ending that its name should have, and what it is.
_SIGNS = {
    b"PAR1": (".parquet", "a Parquet file: let its name end in .parquet"),
    b"\x1f\x8b": (".gz", "a file compressed by gzip: unpack it first"),
    b"PK\x03\x04": (".zip", "a ZIP archive or an Excel sheet: unpack it, or " + _EXCEL),
    b"\xd0\xcf\x11\xe0": (".xls", "an Excel sheet: " + _EXCEL),
    b"[{": (".json", "JSON: let its name end in .json"),
}


_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_REMARKS: Mapping[str, tuple[str, ...]] = {
    "cp949": ("read as CP949 (Korean Windows), as it is not UTF-8",),
    "cp1252": ("read as CP1252 (Windows in Western Europe), as it is not UTF-8",),
}
# Of German, French, Spanish and Nordic texts. Others that CP1252 has are more often letters of another encoding.
_WESTERN = set("äöüßéèêëàâîïôûùçœæøåñáíóúÄÖÜÉÈÊËÀÂÎÏÔÛÙÇŒÆØÅÑÁÍÓÚ")
_SIGNS_BESIDE = set("€„“”‘’‚…–—«»§°©®™·\xa0£¿¡²½×")


def _text(path: Path) -> tuple[str, str]:
    """The text in a file, and its encoding: by its byte order mark, else UTF-8, else that which makes words of it."""
    content = read_file(path)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        found = {"cp949": _korean(content), "cp1252": _western(content)} if encoding == "utf-8" else {}
        other = next((name for name, text in found.items() if text), None)
        if other is None:
            named, *lines = (
                encoding.removesuffix("-sig").upper(),
                *content[: error.start].decode(encoding, "ignore").split("\n"),
            )
            where = f"{path}, line {len(lines)}, character {len(lines[-1]) + 1}"
            byte = f"the byte 0x{content[error.start]:02x} is not {named}"
            raise InputError(f'{where}: {byte}; save the file as UTF-8, in Excel by "Save as", "CSV UTF-8"') from None
        encoding, text = other, found[other]
    if "\0" in text[:4]:
        raise InputError(f"{path}: found a NUL at its start; it looks like UTF-16 without its mark: save it as UTF-8")
    return text, encoding


_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def _korean(content: bytes) -> str:
    """The text in bytes that are Korean in CP949, else ""."""
    with suppress(UnicodeDecodeError):
        text = content.decode("cp949")
        counts = {sign: count for sign, count in Counter(text).items() if not sign.isascii()}
        # Other encodings make it hanja, rare syllables and signs; EUC-KR writes the common syllables in two bytes.
        common = [sign for sign in counts if "가" <= sign <= "힣" and len(sign.encode("euc_kr")) == 2]
        if 10 * sum(map(counts.__getitem__, common)) >= 9 * sum(counts.values()):
            return text
    return ""


def _western(content: bytes) -> str:
    """The text in bytes that are German, French, Spanish or Nordic in CP1252, else "".

    Each of its letters stands beside one of ASCII: of Cyrillic, Greek or Thai, whole words would be such letters.
    """
    with suppress(UnicodeDecodeError):
        text = content.decode("cp1252")
        found = [match.start() for match in _NOT_ASCII.finditer(text)]
        if {text[at] for at in found} <= _WESTERN | _SIGNS_BESIDE:
            beside = [
                [one.isascii() and one.isalpha() for one in (text[at - 1 : at], text[at + 1 : at + 2])] for at in found
            ]
            fit = [any(sides) or text[at] in "àÀ" if text[at] in _WESTERN else text[at] == "’" or not all(sides)
                   for at, sides in zip(found, beside, strict=True)]  # fmt: skip
            return text if 10 * sum(fit) >= 9 * len(fit) else ""
    return ""


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
    text, encoding = _text(path)
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
    return replace(table, problems=problems, encoding=encoding, remarks=_REMARKS.get(encoding, ())).usable()


_QUOTED = r'(?<![^,;\t|])"[^"]*+(?:""[^"]*+)*+"'
_HEADER = re.compile(rf'(?:{_QUOTED}|[^"\r\n]++|")*+')
_ROWS = 2**14  # at once: the garbage collector looks through all lists again and again
LARGE = 2**20
"""Characters of a CSV text from which on it is worth to import Arrow."""
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:\.[0-9]{3})+)(?:,[0-9]+)?")


def _separator(text: str) -> str:
    """What separates values, by what is unquoted in the header: a comma, else the one of ; tab | that it has.

    >>> [_separator(text) for text in ("id;name\\n1;a,b", '"a;b"\\tc', "a;b,c", "a;b|c", "id")]
    [';', '\\t', ',', ',', ',']
    """
    header = re.sub(_QUOTED, "", _HEADER.match(text)[0])  # type: ignore[index]
    found = [sign for sign in ";\t|" if sign in header]
    return found[0] if len(found) == 1 and "," not in header else ","


def _has_decimal_commas(column: Iterable[str | None]) -> bool:
    """Whether all values are numbers, some with a decimal comma: 45,38, as 1,299 alone may be more than a thousand.

    Points in groups of three are then thousands: 1.160,85, and 1.160 beside it.
    """
    filled = [cell for cell in column if cell]
    return any(len(cell.partition(",")[2]) not in (0, 3) for cell in filled) and all(map(_DECIMAL.fullmatch, filled))


def _read_csv(path: Path) -> Table:
    text, encoding = _text(path)
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    found = _plain_columns(text, separator, str(path)) if len(text) >= LARGE else None
    columns, problems = _any_columns(text, separator, path) if found is None else (found, {})
    remarks = _REMARKS.get(encoding, ())
    # Where commas separate nothing, they may be those of numbers, as of Excel in German or French.
    if decimal := [name for name, column in columns.items() if separator == ";" and _has_decimal_commas(column)]:
        remarks += (f"read with decimal commas: {', '.join(map(plain, decimal))}",)
        columns |= {
            name: converted(lambda cell: cell and cell.replace(".", "").replace(",", "."), columns[name])
            for name in decimal
        }
    return Table(str(path), columns, problems=problems, encoding=encoding, remarks=remarks).usable()


def _any_columns(text: str, separator: str, path: Path) -> tuple[dict[str, Sequence[str | None]], dict[int, str]]:
    """The columns of a CSV text, and what is wrong with a row, by its number."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    before = csv.field_size_limit(2**31 - 1)  # long reviews are allowed; the limit is that of the whole program
    problems: dict[int, str] = {}
    done = 0
    try:
        header = [composed(name) for name in next(reader, [])]
        columns: list[list[str | None]] = [[] for _ in header]
        while some := [*islice(reader, _ROWS)]:
            rows = [row for row in some if row]
            for place, row in enumerate(rows):
                if len(row) != len(header):
                    problems[done + place] = f": found {len(row)} values; the header has {len(header)}"
                    rows[place] = [""] * len(header)
            for number, column in enumerate(columns):
                column.extend([row[number] or None for row in rows])
            done += len(rows)
    except csv.Error as error:
        never = "; a quotation mark before it opens a value that never closes"
        closes = never if "unexpected end" in str(error) else ""
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV: {error}{closes}") from None
    finally:
        csv.field_size_limit(before)
    different(header, str(path))
    return dict(zip(header, map(coded, columns), strict=True)), problems


def _plain_columns(text: str, separator: str, source: str) -> dict[str, Sequence[str | None]] | None:
    """The columns of a CSV text as Arrow reads it, which is faster; None where it is not so plain that no doubt is.

    That is one without quotation marks, whose lines all have as many values as the first.
    """
    first = text.partition("\n")[0].rstrip("\r")
    header = [composed(name) for name in first.split(separator)]
    if '"' in text or not first or len({*header}) < len(header) or text.count("\r") != text.count("\r\n"):
        return None
    try:
        import pyarrow as arrow
        from pyarrow import csv as arrow_csv
    except ImportError:
        return None
    types = dict.fromkeys(header, arrow.string())
    try:
        table = arrow_csv.read_csv(
            arrow.py_buffer(text.encode()),
            arrow_csv.ReadOptions(use_threads=False, column_names=header, skip_rows=1),
            arrow_csv.ParseOptions(delimiter=separator, quote_char=False),
            arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""]),
        )
    except (arrow.ArrowException, UnicodeError):  # rows of other lengths, or too long
        return None
    return dict(Table.of(table, source).columns)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path}: Parquet files need pyarrow: {installing('parquet')}") from None
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
    ".tsv": (_read_csv, "values separated by tabs, with the columns' names in the first line"),
    ".parquet": (_read_parquet, "Parquet"),
}
ENDINGS = tuple(_READERS)
"""What the names of tables end in."""
