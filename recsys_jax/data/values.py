"""The door for single values: what a text, number, date or list of a file, a frame or a request means.

Each function gives None for what it does not admit; `Table.read` applies one to a column and says where that is.
"""

import json
import math
import re
import unicodedata
from collections.abc import KeysView, Mapping, Sequence, ValuesView
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from numbers import Number, Real
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from recsys_jax.errors import require

ID = "an id, a text or a number that is not empty; floats are rounded from 2^53 on, and texts such as 8.8E+12"
"""What `as_id` admits, for the end of an error sentence."""
DATE = "a date such as 2024-03-01 or 2024-03-01T12:30:00Z, or seconds since 1970; date_format says another form"
"""What `parse_date` admits."""
ONE, SEVERAL = "one value, a text or a number", "a text, a number, or a list of such"
"""What a value of one, or of several, may be."""

# The years 1 to 9999: milliseconds given for seconds lie far beyond them.
_FIRST, _LAST = (day.replace(tzinfo=UTC).timestamp() for day in (datetime.min, datetime.max))
_SURROGATE = re.compile("[\ud800-\udfff]")
# What programs write for a missing value (pandas, NumPy, SQL, Excel), and for truth values (Python, Excel).
_WORDS = dict.fromkeys(["NaN", "nan", "NaT", "<NA>", "NULL", "null", "\\N", "#N/A"], "")
_TRUTH = {"true", "false"}
_WORDS |= {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_SCALARS = (str, Real, Decimal, np.generic, date, time, timedelta, UUID)
# A list as Python, JSON or Spark write it: texts in quotes, or words without spaces.
_ITEM = r"""\s*(?:'([^'\\]*)'|"([^"\\]*)"|([^\s'"\[\],]+))\s*"""
_ITEMS = re.compile(_ITEM)
_LIST = re.compile(rf"\[(?:{_ITEM}(?:,{_ITEM})*+|\s*)\]")
# How spreadsheets and pandas write a long number into a CSV file, of which only the first digits are left.
_ROUNDED = re.compile(r"-?(?:[0-9](?:\.[0-9]+)?[eE]\+[0-9]+|9[0-9]{15}\.0)")
_WHOLE = re.compile(r"^(-?\d+)\.0$")  # as a list of floats is written
_UNIT, _THOUSANDS = re.compile(r"\D+"), re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_DAY, _UTC = re.compile(r"(?:19|20)\d{6}(?:\.0)?"), re.compile(r"\s*(?:UTC|GMT)$")
# Year first, so that the month is next: 2025/6/27, 2025. 6. 27., 2025년 6월 27일, 2025年6月27日; and a time behind.
_YEAR_FIRST = re.compile(
    r"([0-9]{4})(?:([-./]) ?([0-9]{1,2})\2 ?([0-9]{1,2})\.?|(?:년 ?|年)([0-9]{1,2})(?:월 ?|月)([0-9]{1,2})[일日])"
    r"(?:[T ] ?([0-9]{1,2}:.*))?"
)


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC), in which equal texts are equal.

    >>> composed("Cafe\\u0301") == "Caf\\u00e9"
    True
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_scalar(value: object) -> bool:
    """Whether it is one value, or a missing one, and no collection, bytes or object of another kind.

    >>> is_scalar("a"), is_scalar(None), is_scalar(["a"]), is_scalar({"a"}), is_scalar(b"a")
    (True, True, False, False, False)
    """
    if value is None or isinstance(value, _SCALARS):
        return not isinstance(value, bytes | np.void | np.complexfloating)
    # pandas' missing value, its intervals and periods
    return type(value).__module__.startswith("pandas.") and not hasattr(value, "__iter__")


def as_key(value: object) -> str | None:
    """The text by which a categorical value is compared; None where it is empty, or no single value.

    What means the same compares equal, whether it comes from JSON, CSV, Parquet, a frame or a request.

    >>> as_key(97), as_key(97.0), as_key(" 97 "), as_key(Decimal("97.00")), as_key(True), as_key("True")
    ('97', '97', '97', '97', 'true', 'true')
    >>> as_key(float("nan")), as_key("NaN"), as_key(""), as_key(["97"])
    (None, None, None, None)
    """
    if isinstance(value, str):
        text = composed(value.strip())
        return _WORDS.get(text, text) or None
    if isinstance(value, np.float16 | np.float32):
        value = float(str(value))  # the number that was rounded to so few digits: 0.1
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < 100:
        text = f"{value:f}" if value else "0"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if value is None or not is_scalar(value):
        return None
    try:
        text = str(value)
    except ValueError:  # more digits than Python prints
        text = hex(value)  # type: ignore[arg-type]
    return None if text in {"nan", "NaN", "sNaN", "NaT", "<NA>"} else text


def is_empty(value: object) -> bool:
    """Whether it is a missing value or an empty text; a list is neither."""
    return is_scalar(value) and as_key(value) is None


def as_id(value: object) -> str | None:
    """A value as the id of a customer or product; None where it is none.

    An id is a text or a finite number, known to the last digit. Lists, truth values, and texts with control characters
    (a NUL) or lone surrogates are mistakes: nobody can type them, and not all can be written to a file.

    >>> as_id(97.0), as_id(" p1 "), as_id(True), as_id(["p1"]), as_id("p\\x001"), as_id(float("inf")), as_id("")
    ('97', 'p1', None, None, None, None, None)
    >>> as_id(2**53 + 1), as_id(2.0**53), as_id("8.80123E+12"), as_id("8E12")
    ('9007199254740993', None, None, '8E12')
    """
    if type(value) is str and value.isalnum() and value.isascii() and value not in _WORDS and value not in _TRUTH:
        return value  # at once, as of millions
    if (key := as_key(value)) is None or key in _TRUTH:
        return None
    if not isinstance(value, str) and isinstance(value, float | np.floating | Decimal):
        digits = {np.float16: 11, np.float32: 24, Decimal: math.inf}.get(type(value), 53)
        if not abs(value) < 2.0**digits:
            return None
    elif _ROUNDED.fullmatch(key):
        return None
    if not key.isprintable() and any(unicodedata.category(one) in {"Cc", "Cs"} for one in key):
        return None
    return key


def has_lone_surrogate(value: object) -> bool:
    """Whether a text holds half a surrogate pair, which JSON can escape and UTF-8 cannot encode."""
    return isinstance(value, str) and not value.isascii() and _SURROGATE.search(value) is not None


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
    >>> parse_number("1_299"), parse_number(b"32"), parse_number([32])
    (None, None, None)
    """
    if not isinstance(value, str | Number) or isinstance(value, bool | np.bool_ | np.timedelta64):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not (isinstance(value, str) and "_" in value) else None


def parse_date(value: object, written: str | None = None) -> float | None:
    """A date as seconds since 1970, in UTC where it names no time zone; None where the value is no date.

    A number, also as a text, counts as such seconds; one of eight digits that begins with 19 or 20 is a day. Other
    forms than ISO 8601 are read where the year is first; whether 3/4/2024 is in March or in April only `written` says,
    as `datetime.strptime` reads it.

    >>> [parse_date(value) for value in ("1970-01-02", "1970-01-01T09:30:00+09:00", date(1970, 1, 2), "90.5", 19700102)]
    [86400.0, 1800.0, 86400.0, 90.5, 86400.0]
    >>> [parse_date(value) for value in ("yesterday", "1970-02-30", 1.7e12, True, 20241301, "2.1.1970", "1/2/1970")]
    [None, None, None, None, None, None, None]
    >>> parse_date("1970. 1. 2"), parse_date("1970년 1월 2일"), parse_date("2.1.1970", "%d.%m.%Y")
    (86400.0, 86400.0, 86400.0)
    """
    key = as_key(value)
    if key is None:
        return None
    if isinstance(value, np.datetime64):
        value = float(value.astype("datetime64[us]").astype(np.int64)) / 1e6
    with suppress(ValueError):
        value = datetime.strptime(key, written) if written and isinstance(value, str) else value
    seconds = parse_number(value)
    day = seconds is not None and _DAY.fullmatch(key)
    if day or (isinstance(value, str) and seconds is None):
        try:
            value = datetime.fromisoformat(key[:8] if day else _iso(_UTC.sub("+00:00", key)))
        except ValueError:
            return None
    if isinstance(value, date):  # datetimes and the timestamps of pandas included
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds is not None and _FIRST <= seconds <= _LAST else None


def _iso(text: str) -> str:
    """A date as ISO 8601 writes it, where its year is first; any other text as it is."""
    found = _YEAR_FIRST.fullmatch(text)
    if found is None:
        return text
    year, month, day, at = found[1], found[3] or found[5], found[4] or found[6], found[7]
    return f"{year}-{month:0>2}-{day:0>2}" + ("" if at is None else f"T{at:0>{len(at) + (at[1] == ':')}}")


class NumberForm(NamedTuple):
    """How numbers are written beside their plain form: with a unit, or with commas between thousands."""

    units: Mapping[str, float] = MappingProxyType({})
    """Texts that may stand before or behind a number, and what each adds to it: 5 of a decade, the middle of it."""
    thousands: str = ""

    @classmethod
    def parse(cls, units: Any, thousands: Any, where: str) -> "NumberForm":
        """What `units` and `thousands` of a feature say. Raises `InputError` for anything else."""
        listed = isinstance(units, list) and all(isinstance(one, str) for one in units)
        added = units if isinstance(units, Mapping) else dict.fromkeys(units if listed else [""], 0)
        known = {key: as_number(value) for key, value in added.items()}
        whole = {composed(key.strip()): value for key, value in known.items() if value is not None}
        ok = len(whole) == len(known) and all(map(_UNIT.fullmatch, whole)) and all(map(math.isfinite, whole.values()))
        allowed = "a list of texts without digits, or a table of such texts and what each adds to the number"
        require(ok, f"{where}: units", units, allowed)
        require(thousands in ("", ","), f"{where}: thousands", thousands, "','")
        return cls(whole, thousands)

    def number(self, value: object) -> float | None:
        """The number in a value; None where there is none, as with a unit alone, two units or a comma elsewhere.

        >>> prices = NumberForm({"원": 0, "₩": 0}, ",")
        >>> [prices.number(one) for one in ("17,000원", "₩ 1,299.50", "17000", "17,00", "₩17,000원", "원")]
        [17000.0, 1299.5, 17000.0, None, None, None]
        >>> NumberForm({"대": 5, "세": 0}).number("20대"), NumberForm({"대": 5, "세": 0}).number("4 6세")
        (25.0, None)
        """
        number = parse_number(value)
        if number is not None or not isinstance(value, str) or not (self.units or self.thousands):
            return number
        text = composed(value.strip())
        for unit, added in {"": 0.0, **self.units}.items():
            rest = (text.removeprefix(unit) if text.startswith(unit) else text.removesuffix(unit)).strip()
            grouped = self.thousands and _THOUSANDS.fullmatch(rest)
            number = parse_number(rest.replace(",", "") if grouped else rest)
            if number is not None:
                return number + added
        return None


class Condition(NamedTuple):
    """What a value must be: one of some keys or numbers, or a number within bounds; by default, nothing is so."""

    keys: frozenset[str | None]
    """None: a missing value."""
    numbers: frozenset[float]
    """CSV may have 4.0 for the number 4; the text "4" is one text alone."""
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def parse(cls, value: object, where: str) -> "Condition":
        """A value, a list of values, or { min = NUMBER, max = NUMBER }; an empty text is a missing value.

        Raises `InputError` for anything else.
        """
        bounds = value if isinstance(value, Mapping) else {}
        numbers = {key: as_number(bound) for key, bound in bounds.items()}
        low, high = numbers.get("min", -math.inf), numbers.get("max", math.inf)
        if bounds and not set(bounds) - {"min", "max"} and low is not None and high is not None and low <= high:
            return cls(frozenset(), frozenset(), low, high)
        values = value if isinstance(value, list) and value else [value]
        plain = all(isinstance(one, str | int | float) for one in values)
        require(plain, where, value, "a value, a list of values, or { min = NUMBER, max = NUMBER }")
        return cls.any_of(values)

    @classmethod
    def any_of(cls, values: Sequence[object]) -> "Condition":
        """One of these values."""
        return cls(frozenset(map(as_key, values)), frozenset(x for x in map(as_number, values) if x is not None))

    @property
    def texts(self) -> frozenset[str]:
        """Its keys that are values."""
        return frozenset(key for key in self.keys if key is not None)

    def met(self, value: object) -> bool:
        """Whether a value of the table is so."""
        number = parse_number(value)
        if self.keys:
            return as_key(value) in self.keys or number in self.numbers
        return number is not None and self.low <= number <= self.high


NEVER = Condition(frozenset(), frozenset())


def as_list(value: object) -> list[Any] | None:
    """The items of a list, a set, an array or a series; None where it is none of these.

    >>> as_list(("a", "b")), as_list(np.arange(2)), as_list("ab"), as_list({"a": 1})
    (['a', 'b'], [0, 1], None, None)
    """
    if isinstance(value, list):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)  # its own order differs from process to process
    if isinstance(value, Sequence | KeysView | ValuesView):
        return None if isinstance(value, str | bytes | bytearray | memoryview) else list(value)
    names = () if is_scalar(value) else ("to_pylist", "tolist", "to_list")  # Arrow, NumPy and pandas, Polars
    read = next((getattr(value, name) for name in names if hasattr(value, name)), None)
    found = read() if read is not None else None
    return found if isinstance(found, list) else None


def as_items(value: object, separator: str | None = None, *, alone: bool = True) -> list[Any] | None:
    """The values in one that may hold several; None where they are no single values.

    It may be a list, a set, an array or a series; a list that was written as a text; one text with a separator; or,
    where it may stand `alone`, one value.

    >>> as_items("a|b", "|"), as_items(("a", 2)), as_items("['a', 'b']"), as_items(None), as_items([["a"]])
    (['a', 'b'], ['a', 2], ['a', 'b'], [], None)
    """
    items = _parts(value, separator, alone)
    return items if items is not None and all(map(is_scalar, items)) else None


def _parts(value: object, separator: str | None, alone: bool) -> list[Any] | None:
    """`as_items`, in which there may be other than single values."""
    text = value.strip() if isinstance(value, str) else ""
    items = _written_list(text) if text[:1] == "[" and text[-1:] == "]" else as_list(value)
    if items is None and is_scalar(value) and text[:1] + text[-1:] != "[]":
        items = [] if as_key(value) is None else [value]
        if items and separator is None and not alone:
            return None
    if items is None or separator is None:
        return items
    return [part for item in items for part in (item.split(separator) if isinstance(item, str) else [item])]


def _written_list(text: str) -> list[Any] | None:
    """The list that a text says, as JSON or Python write it, or with words for texts; None where it says none."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)  # type: ignore[no-any-return]
    if not _LIST.fullmatch(text):
        return None
    items = _ITEMS.findall(text[1:-1])
    return [a or b or ("" if word == "None" else _WHOLE.sub(r"\1", word)) for a, b, word in items]


def split_keys(value: object, separator: str | None) -> list[str] | None:
    """The keys of a value that may hold several, as `as_items` has them; None where it holds other than single values.

    >>> split_keys("a|b", "|"), split_keys(["a", 2], None), split_keys(None, "|"), split_keys({"a": 1}, None)
    (['a', 'b'], ['a', '2'], [], None)
    """
    items = as_items(value, separator)
    return items if items is None else [key for key in map(as_key, items) if key is not None]


def as_ids(value: object, separator: str | None = None, *, alone: bool = True) -> list[str] | None:
    """The ids in a value that may hold several, as `as_items` has them; None where one is none.

    >>> as_ids(["p1", None, 7.0]), as_ids("p1", alone=False), as_ids([["p1"]]), as_ids([True])
    (['p1', '7'], None, None, None)
    """
    items = _parts(value, separator, alone)
    if items is None:
        return None
    ids = []
    for item in items:
        key = as_id(item)
        if key is not None:
            ids.append(key)
        elif not is_empty(item):
            return None
    return ids


def as_plain(value: object) -> str | int | float | bool | None:
    """A single value as JSON has it, for people to read; None where it is missing.

    >>> as_plain(np.int64(5)), as_plain(Decimal("2.50")), as_plain(float("nan")), as_plain(date(2024, 3, 1))
    (5, 2.5, None, '2024-03-01')
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return composed(value)
    if is_scalar(value) and as_key(value) is None:
        return None
    if isinstance(value, Decimal) and value.is_finite():
        value = int(value) if value == value.to_integral_value() else float(value)
    return value if isinstance(value, int | float) else str(value)
