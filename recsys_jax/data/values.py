"""The cells of tables: texts, numbers and lists, read alike whether they come from JSON, CSV or Parquet."""

import math
import re
import unicodedata
from datetime import UTC, date, datetime, time

import numpy as np

__all__ = ["as_id", "as_key", "as_number", "cell_date", "cell_number", "half_character", "nested", "split_keys"]

# The years 1 to 9999: milliseconds where seconds are meant lie far behind them.
_FIRST, _LAST = (day.replace(tzinfo=UTC).timestamp() for day in (datetime.min, datetime.max))


def as_key(value: object) -> str | None:
    """A table's cell as the text by which categorical values are compared; None where it is empty.

    Numbers and texts that mean the same compare equal, whether they come from JSON, CSV or Parquet.

    >>> as_key(97), as_key(97.0), as_key(" 97 "), as_key(True), as_key(float("nan")), as_key("")
    ('97', '97', '97', 'true', None, None)
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    try:
        text = str(value)  # integers, and the scalars and missing values of NumPy and pandas
    except (ValueError, RecursionError):  # more digits than Python writes, lists in lists in lists
        text = hex(value) if isinstance(value, int) else type(value).__name__
    return None if text in {"nan", "NaT", "<NA>"} else text


def as_id(value: object) -> str | None:
    """A table's cell as the id of a customer or product; None where it is no id.

    An id is a text or a finite number. Nested values, truth values, and texts with control characters (a NUL, a tab)
    or half a character are slips: none of them can be typed, and not all can be written.

    >>> as_id(97.0), as_id(" p1 "), as_id(True), as_id(["p1"]), as_id("p\\x001"), as_id(float("inf")), as_id("")
    ('97', 'p1', None, None, None, None, None)
    """
    if not isinstance(value, str):
        if nested(value) or isinstance(value, (bool, np.bool_)):
            return None
        if isinstance(value, (float, np.floating)) and not math.isfinite(value):
            return None
    key = as_key(value)
    if key is None or (not key.isprintable() and any(unicodedata.category(one) in {"Cc", "Cs"} for one in key)):
        return None
    return key


def nested(value: object) -> bool:
    """Whether a cell holds several values, or bytes, where one value belongs."""
    return isinstance(value, _NESTED)


_NESTED = (list, tuple, dict, set, frozenset, bytes, bytearray, np.ndarray)
_SURROGATE = re.compile("[\ud800-\udfff]")


def half_character(cell: object) -> bool:
    """Whether a text, or one in a list, holds half of a surrogate pair: JSON can escape it, UTF-8 cannot write it."""
    if isinstance(cell, str):
        return not cell.isascii() and _SURROGATE.search(cell) is not None
    return isinstance(cell, list | tuple) and any(isinstance(item, str) and half_character(item) for item in cell)


def as_number(value: object) -> float | None:
    """A number of the file as a float; None for what is none: a truth value, NaN, more digits than a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return None if math.isnan(value) else float(value)
    except OverflowError:
        return None


def cell_number(cell: object) -> float | None:
    """A table's cell as a number, also where it is a text, as in CSV; None for what is no finite number.

    >>> cell_number(32), cell_number(" 3.5 "), cell_number("abc"), cell_number(True), cell_number("inf")
    (32.0, 3.5, None, None, None)
    """
    if isinstance(cell, bool | np.bool_) or as_key(cell) is None:
        return None
    try:
        number = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def cell_date(cell: object) -> float | None:
    """A table's cell as seconds since 1970, in UTC where it names no zone; None for what is no date.

    Numbers are such seconds, also where they are texts, as in CSV.

    >>> cell_date("1970-01-02"), cell_date("1970-01-01T09:30:00+09:00"), cell_date(date(1970, 1, 2)), cell_date("90.5")
    (86400.0, 1800.0, 86400.0, 90.5)
    >>> cell_date("yesterday"), cell_date("1970-02-30"), cell_date(1.7e12), cell_date(True)
    (None, None, None, None)
    """
    if as_key(cell) is None:
        return None
    if isinstance(cell, np.datetime64):
        cell = float(cell.astype("datetime64[us]").astype(np.int64)) / 1e6
    seconds = cell_number(cell)
    if isinstance(cell, str) and seconds is None:
        try:
            cell = datetime.fromisoformat(cell.strip())
        except ValueError:
            return None
    if isinstance(cell, date):  # of which a datetime is one, and so is a timestamp of pandas
        moment = cell if isinstance(cell, datetime) else datetime.combine(cell, time())
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds is not None and _FIRST <= seconds <= _LAST else None


def split_keys(cell: object, separator: str | None) -> list[str]:
    """The values in a cell that may hold several: a list, one text with a separator, or a list of such texts.

    >>> split_keys("a|b", "|"), split_keys(["a", 2], None), split_keys(None, "|")
    (['a', 'b'], ['a', '2'], [])
    """
    items = list(cell) if isinstance(cell, list | tuple | np.ndarray) else [cell]
    if separator is not None:
        items = [part for item in items for part in (item.split(separator) if isinstance(item, str) else [item])]
    return [key for key in map(as_key, items) if key is not None]
