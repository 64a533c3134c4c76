"""The door for single values: what a text, number, date or list of a file, a frame or a request means.

Each function gives None for what it does not admit; `Table.read` applies one to a column and says where that is.
"""

import math
import re
import unicodedata
from datetime import UTC, date, datetime, time

import numpy as np

ID = "an id, a text or a number that is not empty"
"""What `as_id` admits, for the end of an error sentence."""
DATE = "a date such as 2024-03-01 or 2024-03-01T12:30:00Z, or seconds since 1970"
"""What `parse_date` admits."""

# The years 1 to 9999: milliseconds given for seconds lie far beyond them.
_FIRST, _LAST = (day.replace(tzinfo=UTC).timestamp() for day in (datetime.min, datetime.max))
NESTED = (list, tuple, dict, set, frozenset, bytes, bytearray, np.ndarray)
"""Collections, and bytes: no one text or number."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def as_key(value: object) -> str | None:
    """The text by which a categorical value is compared; None where it is empty.

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
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    try:
        text = str(value)  # other numbers, and the scalars and missing values of NumPy and pandas
    except (ValueError, RecursionError):  # more digits than Python prints, deeply nested lists
        text = hex(value) if isinstance(value, int) else type(value).__name__
    return None if text in {"nan", "NaT", "<NA>"} else text


def as_id(value: object) -> str | None:
    """A value as the id of a customer or product; None where it is none.

    An id is a text or a finite number. Lists, truth values, and texts with control characters (a NUL, a tab) or lone
    surrogates are mistakes: nobody can type them, and not all can be written to a file.

    >>> as_id(97.0), as_id(" p1 "), as_id(True), as_id(["p1"]), as_id("p\\x001"), as_id(float("inf")), as_id("")
    ('97', 'p1', None, None, None, None, None)
    """
    if not isinstance(value, str):
        if isinstance(value, (*NESTED, bool, np.bool_)):
            return None
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            return None
    key = as_key(value)
    if key is None or (not key.isprintable() and any(unicodedata.category(one) in {"Cc", "Cs"} for one in key)):
        return None
    return key


def has_lone_surrogate(value: object) -> bool:
    """Whether a text, or one in a list, holds half a surrogate pair, which JSON can escape and UTF-8 cannot encode."""
    if isinstance(value, str):
        return not value.isascii() and _SURROGATE.search(value) is not None
    return isinstance(value, list | tuple) and any(isinstance(item, str) and has_lone_surrogate(item) for item in value)


def as_number(value: object) -> float | None:
    """A number of TOML as a float, infinities too; None for a text, a truth value, NaN, more than a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return None if math.isnan(value) else float(value)
    except OverflowError:
        return None


def parse_number(value: object) -> float | None:
    """A value as a finite number, also from a text, as in CSV; None where it is none.

    >>> parse_number(32), parse_number(" 3.5 "), parse_number("abc"), parse_number(True), parse_number("inf")
    (32.0, 3.5, None, None, None)
    """
    if isinstance(value, bool | np.bool_) or as_key(value) is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_date(value: object) -> float | None:
    """A date as seconds since 1970, in UTC where it names no time zone; None where the value is no date.

    A number, also as a text, counts as such seconds.

    >>> [parse_date(value) for value in ("1970-01-02", "1970-01-01T09:30:00+09:00", date(1970, 1, 2), "90.5")]
    [86400.0, 1800.0, 86400.0, 90.5]
    >>> [parse_date(value) for value in ("yesterday", "1970-02-30", 1.7e12, True)]
    [None, None, None, None]
    """
    if as_key(value) is None:
        return None
    if isinstance(value, np.datetime64):
        value = float(value.astype("datetime64[us]").astype(np.int64)) / 1e6
    seconds = parse_number(value)
    if isinstance(value, str) and seconds is None:
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, date):  # datetimes and the timestamps of pandas included
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds is not None and _FIRST <= seconds <= _LAST else None


def split_keys(value: object, separator: str | None) -> list[str]:
    """The keys of a value that may hold several: a list, one text with a separator, or a list of such texts.

    >>> split_keys("a|b", "|"), split_keys(["a", 2], None), split_keys(None, "|")
    (['a', 'b'], ['a', '2'], [])
    """
    items = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
    if separator is not None:
        items = [part for item in items for part in (item.split(separator) if isinstance(item, str) else [item])]
    return [key for key in map(as_key, items) if key is not None]


def shown(value: object, limit: int = 80) -> str:
    """A found value for an error sentence, shortened where it is long."""
    try:
        text = "nothing" if value is None else repr(value)
    except (ValueError, RecursionError):  # more digits than Python prints, deeply nested lists
        text = f"{type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def plain(text: str) -> str:
    """A name from a file with escapes for whatever would act on a terminal or cannot be written there."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
