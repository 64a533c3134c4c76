"""What stands in a column: numbers, dates, one value of several, several at once, or nothing to learn from."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.coded import converted
from recsys_jax.data.values import (
    NumberForm,
    as_id,
    as_key,
    as_list,
    composed,
    is_scalar,
    parse_date,
    parse_number,
    split_keys,
)
from recsys_jax.errors import plain

Ask = Callable[[str, Sequence[str], str], str]
"""Asks a question: what may be answered, and the guess."""
Kind = Literal["categorical", "multi-categorical", "numeric", "date", "reviews", "text", "useless"]

FEATURES = "categorical", "multi-categorical", "numeric"
"""The kinds that a tower learns from."""
AGED = 0.9
"""The share of what is stated that must be ages, in a column that is called so; the rest are slips."""
# What separates several values, and the share of parts that must come back in other company for it to do so.
SEPARATORS = {"|": 0.1, ";": 0.2, ",": 0.5, "/": 0.5}
_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LATIN = re.compile(r"[a-zа-яё]+")
# Of dates; in which order day and month stand is known where only one of these fits a whole column.
_DATES = [f"{day}{sign}{month}{sign}%Y{time}" for sign in "./-" for time in ("", " %H:%M", " %H:%M:%S")
          for day, month in (("%d", "%m"), ("%m", "%d"), ("%d", "%b"))]  # fmt: skip
_PANDAS = re.compile(r"__index_level_\d+__|Unnamed: \d+")
_CODE = re.compile(r"-?0\d+")  # a number has no zeros in front
# As people write numbers and dates, of which not all can be read: 45,38 or 88,000원 or 46세; 23.07.2023.
_WRITTEN_NUMBER = re.compile(r"[₩$€£¥]?\s?-?\d{1,3}(?:[.,' ]?\d{3})*(?:[.,]\d{1,2})?\s?[^\W\d_]{0,4}[€$%]?")
_WRITTEN_DATE = re.compile(r"\d{1,4}\s?[./년-]\s?\d{1,2}\s?[./월-]\s?\d{1,4}\s?일?\.?(?:[ T,].*)?")
_DOUBTFUL = re.compile(r"\.\d{3}(?!\d)")  # 1.299 € may be a thousand
_FEW_DIGITS = re.compile(r"-?\d{1,2},")  # unlike the codes of three digits in 101,102
_DIGITS = re.compile(r"[+-]?\d(?:[\d.,]*\d)?")
_LONG, _MANY, _SHORT = 50, 6, 8  # characters and words, on average, from which on a text is prose; by its name
_PHRASE = 25  # characters, on average, from which on parts are phrases of a text
_PART = 0.95  # of the cells, from which on the others are mistakes
_TEXTS = "content, text, review, 내용, 리뷰 or 본문"
_INDEX = 20  # rows from which on rising whole numbers are no accident


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("words.toml").read_text("utf-8"))


@cache
def words(what: str) -> tuple[str, ...]:
    """What people call something, as words.toml lists it."""
    return tuple(_words()[what])


def genders() -> tuple[tuple[str, ...], ...]:
    """The words for each gender, that mean the same."""
    return tuple(map(tuple, _words()["gender"]))


def units_with(unit: str) -> dict[str, float]:
    """The units that mean the same as one beside a number, and what each adds to it; empty where it is unknown."""
    return next((dict(group) for group in _words()["units"] if unit in group), {})


@cache
def place(name: str, what: str) -> int | None:
    """Which of the words for something a column's name has, by its place in the list; None where it has none.

    >>> place("Clothing ID", "id"), place("userid", "id"), says("상품코드", "product"), place("image", "age")
    (0, 0, True, None)
    """
    found = _WORD.findall(composed(_CAMEL.sub(" ", name)).casefold())
    whose = {*words("product"), *words("customer")}
    found += [part for word in found if word[-2:] == "id" and word[:-2] in whose for part in (word[:-2], "id")]
    found += ["user"] if found == ["uid"] else []
    for number, word in enumerate(words(what)):
        spelt = _LATIN.match(word)
        if any(one == word or (len(word) > 3 and one.startswith(word)) if spelt else word in one for one in found):
            return number
    return None


def says(name: str, what: str) -> bool:
    """Whether a column's name has one of the words for something."""
    return place(name, what) is not None


class Content(NamedTuple):
    """What a column holds, and what was seen of it."""

    kind: Kind
    saw: str
    separator: str | None = None
    """Between several values; of nested reviews, the key of their texts."""


@dataclass(frozen=True)
class Column:
    """A column of a table, without what says in a cell that nothing is known."""

    name: str
    cells: Sequence[Any]
    nothing: frozenset[str] = frozenset()
    form: NumberForm | None = None
    """How its numbers are written, where that is known."""

    @cached_property
    def keys(self) -> list[str | None]:
        """The text of each cell; None where it is empty or holds no single value."""
        return [None if key in self.nothing else key for key in converted(as_key, self.cells)]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each text occurs."""
        return Counter(key for key in self.keys if key is not None)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The texts that are numbers, as they are written."""
        return {key: number for key in self.counts if (number := self.written.number(key)) is not None}

    @cached_property
    def written(self) -> NumberForm:
        """How its numbers are written, where all that look like numbers can be read so; plainly else."""
        if self.form is not None:
            return self.form
        form = _form(self)
        return form if _unread(self, form) is None else NumberForm()

    @cached_property
    def filled(self) -> int:
        """The cells that hold one value."""
        return self.counts.total()

    @property
    def without(self) -> str:
        """The end of a sentence on the cells that hold none, and by which words; "" where all hold one."""
        rows, said = len(self.cells), Counter(key for key in map(as_key, self.cells) if key in self.nothing)
        words = f", by {_most(Counter(key for key in said.elements() if key))}" if said else ""
        return f"; {rows - self.filled:,} of {rows:,} rows without{words}" if rows > self.filled else ""

    def share(self, holds: Callable[[str], object]) -> float:
        """The share of the filled cells whose text is so."""
        return sum(count for key, count in self.counts.items() if holds(key)) / max(self.filled, 1)

    @cached_property
    def date_format(self) -> str | None:
        """The one form of dates that all cells have, where that is not ISO 8601, such as 27.06.2025."""
        forms = _DATES if self.counts and self.share(lambda key: parse_date(key) is not None) < _PART else []
        for key in self.counts:
            forms = [form for form in forms if parse_date(key, form) is not None]
            if not forms:
                return None
        return forms[0] if len(forms) == 1 else None

    @cached_property
    def dated(self) -> float:
        """The share of the filled cells that are dates; a number is one where the column's name says so."""
        if self.date_format is not None:
            return 1.0
        named = says(self.name, "date")
        return self.share(lambda key: named and 1e7 <= self.numbers[key] < 1e10 if key in self.numbers
                          else parse_date(key) is not None)  # fmt: skip

    @cached_property
    def may_be_id(self) -> bool:
        """Whether its values are ids: short texts or whole numbers, and more than a few."""
        plausible = self.share(lambda key: len(key) <= 80 and not ("." in key and key in self.numbers) and as_id(key))
        return len(self.counts) > 1 and plausible >= _PART > self.dated and not _PANDAS.fullmatch(self.name)

    @cached_property
    def unique(self) -> bool:
        """Whether each row, but for slips, has an id of its own."""
        return self.may_be_id and len(self.counts) >= _PART * len(self.cells)

    @cached_property
    def lists(self) -> bool:
        """Whether it has lists or objects, also lists that were written as a text."""
        written = self.share(lambda key: key[:1] == "[" and len(split_keys(key, None) or ()) > 1)
        return written > 0.2 or not all(map(is_scalar, self.cells))

    def parts(self, separator: str | None) -> list[list[str]]:
        """The values in each cell that may hold several."""
        if separator is None and not self.lists:
            return [[] if key is None else [key] for key in self.keys]
        listed = converted(lambda cell: split_keys(cell, separator) or [], self.cells)
        return [[key for key in found or () if key not in self.nothing] for found in listed]

    @cached_property
    def guessed(self) -> Content:
        """What it holds as far as nobody is asked."""
        return content(self, lambda _, __, guess: guess)


def columns_of(table: Table, nothing: Iterable[str] = ()) -> dict[str, Column]:
    """The columns of a table that have a name."""
    return {name: Column(name, cells, frozenset(nothing)) for name, cells in table.columns.items() if name.strip()}


def missing_words(column: Column) -> list[str]:
    """The values of a column by which people say that nothing is known; NA among codes of countries is one."""
    found = [key for key in column.counts if key.casefold() in words("missing") or key == "None"]
    countries = column.share(lambda key: len(key) == 2 and key.isalpha() and key.isupper())
    return [key for key in found if not (key == "NA" and countries >= 0.9 and len(column.counts) > 2)]


def content(column: Column, ask: Ask) -> Content:
    """What the column holds. Asks where it could as well be something else."""
    counts, rows = column.counts, len(column.cells)
    without = column.without
    if _PANDAS.fullmatch(column.name):
        return Content("useless", "pandas' index")
    if column.lists:
        return _of_lists(column)
    if not counts:
        return Content("useless", "nothing stands in it")
    if len(counts) == 1 and not without:
        return Content("useless", f"{_shown(next(iter(counts)))} in each row")
    if column.dated >= _PART:
        at = {key: when for key in counts if (when := parse_date(key, column.date_format)) is not None}
        return Content("date", f"dates from {min(at, key=at.__getitem__)} to {max(at, key=at.__getitem__)}{without}")
    what = "values"
    least = AGED if says(column.name, "age") else _PART
    if column.share(lambda key: key in column.numbers and not _CODE.fullmatch(key)) >= least:
        found = _of_numbers(column, without, ask)
        if found is not None:
            return found
        what = "codes"
    elif says(column.name, "code") and column.share(_WRITTEN_NUMBER.fullmatch) >= _PART:
        what = "codes"
    elif (written := _written(column)) is not None:
        return Content("useless", written + without)
    elif (length := _prose(column)) and says(column.name, "review"):
        return Content("text", f"texts of {length:.0f} characters on average{without}")
    elif (separator := _separator(column, ask)) is not None:
        parts = Counter(part for found in column.parts(separator) for part in found)
        saw = f"{len(parts):,} values, several with {separator!r} between: {_most(parts)}{without}"
        return Content("multi-categorical", saw, separator)
    elif length:
        return Content("text", f"texts of {length:.0f} characters on average{without}")
    if column.share(lambda key: counts[key] > 1) < 0.5:
        seen = f"{len(counts):,} {what} in {column.filled:,} rows, most of them once"
        return Content("useless", seen + ("; a code, not a quantity" if what == "codes" else ""))
    return Content("categorical", f"{len(counts):,} {what} in {rows:,} rows: {_most(counts)}{without}")


def _of_numbers(column: Column, without: str, ask: Ask) -> Content | None:
    """What the column holds whose cells are numbers; None of codes."""
    found, number = [*column.numbers.values()], says(column.name, "number")
    other = next((key for key in column.counts if key not in column.numbers), None)
    whole = other is None and all(one.is_integer() for one in found)
    if whole and len(found) == len(column.cells) >= _INDEX and not number and found == sorted(found):
        return Content(
            "useless", f"another whole number in each of {len(found):,} rows, in rising order, as an index has"
        )
    if len(found) == 2 or (whole and says(column.name, "code")):
        return None
    saw = f"{len(found):,} numbers from {min(found):g} to {max(found):g}{without}"
    if whole and len(found) <= 12 and len(found) * 5 <= column.filled and not number:
        question = f"{column.name}: {saw}. Are they codes (categorical), or is more of it more (numeric)?"
        if ask(question, ("categorical", "numeric"), "numeric") == "categorical":
            return None
    return Content("numeric", saw + (f"; and {_shown(other)}, which is no number" if other is not None else ""))


def _form(column: Column) -> NumberForm:
    """The units and commas that most of a column's numbers have; of bands such as 20대, none where they are no ages."""
    named = any(says(column.name, one) for one in ("number", "price", "age"))
    enough = named or len(column.counts) > _INDEX
    seem = [key for key in column.counts if enough and _WRITTEN_NUMBER.fullmatch(key)]
    found, aged = Counter[str](), says(column.name, "age")
    for key in seem:
        found[_DIGITS.sub("", key, count=1).strip()] += column.counts[key]
    group = units_with(max(filter(None, found), key=found.__getitem__, default="").casefold())
    units = {unit: group[unit.casefold()] for unit in found if unit.casefold() in group}
    if found and all(map(units.get, found)) and not aged:
        return NumberForm()
    units |= group if aged else {}  # people write them otherwise in a request: 46세 where the table has 40대
    commas = any("," in key for key in seem) and (named or units or any(map(_FEW_DIGITS.match, seem)))
    return NumberForm(units, "," if commas else "")


def _unread(column: Column, form: NumberForm) -> str | None:
    """The first text that looks like a number and can't be read as one, or not surely."""
    for key in filter(_WRITTEN_NUMBER.fullmatch, column.counts):
        if form.number(key) is None or (parse_number(key) is None and _DOUBTFUL.search(key)):
            return key
    return None


def _written(column: Column) -> str | None:
    """That a column has dates or numbers which are not written so that they can be read; None where it has none."""
    dates = column.share(_WRITTEN_DATE.fullmatch) >= _PART
    read = parse_date if dates else parse_number
    unread = next(key for one in (read, as_list) for key in column.counts if one(key) is None)
    example = _shown(unread if dates else _unread(column, _form(column)) or unread)
    if dates:
        return f"dates such as {example}, which can't be read; written as 2025-06-27 they could"
    numbers = len(column.counts) > _INDEX and column.share(_WRITTEN_NUMBER.fullmatch) >= _PART
    return f"numbers such as {example}, which can't be read; written as 1234.5 they could" if numbers else None


def _prose(column: Column) -> float | None:
    """The average length of a column's texts; None where they are no prose."""
    length, spaces = (sum(many(key) * count for key, count in column.counts.items()) / column.filled
                      for many in (len, lambda key: len(key.split())))  # fmt: skip
    differing, named = len(column.counts), length >= _SHORT and says(column.name, "review")
    named = named and column.share(lambda key: " " in key or not key.isascii()) > 0.5  # no codes
    long = length > _LONG or (spaces > _MANY and differing > column.filled / 2)
    return length if long or (named and differing > min(50, column.filled / 2)) else None


def objects(cells: Sequence[object]) -> list[dict[str, Any]]:
    """The objects in cells that hold lists, such as nested reviews."""
    return [item for cell in cells for item in (as_list(cell) or ()) if isinstance(item, dict)]


def _of_lists(column: Column) -> Content:
    found = objects(column.cells)
    keys = [*dict.fromkeys(key for one in found for key in one)]
    texts = {
        key: [len(one[key]) for one in found if isinstance(one.get(key), str)] for key in keys if says(key, "review")
    }
    often = {key: sum(said) for key, said in texts.items() if 2 * len(said) > len(found)}
    if often:
        key = max(often, key=lambda key: (key == "content", often[key]))
        saw = f"{len(found):,} reviews, {len(texts[key]):,} of them with a text in {key!r}"
        return Content("reviews", saw, key)
    parts = column.parts(None)
    counts = Counter(part for found in parts for part in found)
    if keys:
        return Content("useless", f"objects with {', '.join(keys[:12])}; texts of reviews would be called {_TEXTS}")
    if not counts:
        return Content("useless", "lists of nothing")
    if len(counts) > counts.total() / 2 and counts.total() >= _INDEX:
        return Content("useless", f"lists of {len(counts):,} values, most of them once")
    empty = sum(not found for found in parts)
    return Content("multi-categorical", f"lists of {len(counts):,} values: {_most(counts)}; {empty:,} rows without")


def _separator(column: Column, ask: Ask) -> str | None:
    """What separates several values in a text: split by it, the same parts come back in other company."""
    for separator, often in SEPARATORS.items():
        wholes = [key for key in column.counts if separator in key]
        if len(wholes) < max(2, len(column.counts) / 20):
            continue
        parts = Counter(part for key in column.counts for part in {one.strip() for one in key.split(separator)} if part)
        recurring = sum(count > 1 for count in parts.values())
        if recurring >= often * len(parts) and sum(map(len, parts)) <= _PHRASE * len(parts):
            question = f"{column.name}: {_shown(wholes[0])}. Are these several values, with {separator!r} between them?"
            return separator if separator in "|;" or ask(question, ("yes", "no"), "yes") == "yes" else None
    return None


def _most(counts: Counter[str]) -> str:
    first = ", ".join(f"{_shown(key)} ({count:,})" for key, count in counts.most_common(4))
    return first + (", …" if len(counts) > 4 else "")


def _shown(key: str) -> str:
    return plain(key if len(key) <= 30 else f"{key[:29]}…")
