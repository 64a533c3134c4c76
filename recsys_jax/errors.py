"""The one exception for what a person gave and can correct."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from functools import wraps
from inspect import signature
from itertools import islice
from typing import Any, ParamSpec, TypeVar
from unicodedata import category, normalize

import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


class InputError(ValueError):
    """Input that cannot be used: its text says where, what was found and what is allowed.

    Scripts print the text and exit with status 2; a library user catches it like any `ValueError`. A text beyond
    `LONGEST` characters, such as one that repeats what was found, loses its middle.
    """

    LONGEST = 4000

    def __init__(self, text: str) -> None:
        half = self.LONGEST // 2
        super().__init__(text if len(text) <= self.LONGEST else f"{text[:half]} … {text[-half:]}")


class Diverged(InputError):
    """A training whose loss is no finite number, with these options on this data."""


def require(ok: bool, where: str, found: object, allowed: str) -> None:
    """Raises the `InputError` unless it is ok."""
    if not ok:
        raise InputError(f"{where}: found {shown(found)}; allowed: {allowed}")


def installing(extra: str) -> str:
    """The command that installs an extra for the Python that runs, as it can be typed here."""
    here = os.path.relpath(sys.executable)
    return f"{shlex.quote(sys.executable if here.startswith('..') else here)} -m pip install 'recsys_jax[{extra}]'"


def require_different(names: Iterable[str], whose: str) -> None:
    """Raises `InputError` for a name that comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{whose} are named {shown(name)}; names must differ")
        seen.add(name)


def require_seed(seed: int) -> None:
    """Raises the `InputError` for a seed that not every generator of random numbers takes."""
    require(0 <= seed < 2**32, "seed", seed, "from 0 to 4294967295")


def require_parts(where: str, found: int, most: int, what: str) -> None:
    """Raises the `InputError` unless there are 2 parts or more, and no more than the number of `what` is parted."""
    require(most >= 2, what, most, "2 or more")
    require(2 <= found <= most, where, found, f"2 to {most}, the number of {what}")


def choices(values: Iterable[object], limit: int = 12, *, found: object = None) -> str:
    """The allowed values as a sentence's end, shortened when there are many; then the one that `found` may stand for.

    >>> choices(["F", "M"])
    "'F', 'M'"
    >>> choices(range(100), limit=3)
    '0, 1, 2 and 97 more'
    >>> choices(["dry", "oily"], found="dyr")
    "'dry', 'oily'; did you mean 'dry'?"
    """
    listed = list(values)
    first = ", ".join(map(shown, listed[:limit])) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
    return first + did_you_mean(found, values if isinstance(values, Set | Mapping) else listed)


MANY = 1000
"""Of more values, only one that a single slip of the hand makes of what was typed is looked for: all take long."""
LONGEST = 64
"""Letters, Hangul by its sounds, of what is compared: a service answers others meanwhile."""
NEAR = 0.65
"""How alike, from 0 to 1, is near."""
BEGINS = 0.15
"""By how much likelier it is that a word was meant with which what was found begins, or the reverse."""


def nearest(found: object, values: Iterable[object], least: float = NEAR) -> str | None:
    """The value that a person may have meant who typed what was found, which is none of them; None where none is near.

    Near is as alike as `least`, or more. Letters are compared apart, Hangul by its sounds, and 0 and O are the same,
    and 1, I and l.

    >>> nearest("건셩", ["지성", "건성", "복합성"]), nearest("AGE ", ["age"]), nearest("32", ["F", "M"])
    ('건성', 'age', None)
    >>> nearest("지성피부", ["건성피부", "지성"])
    '지성'
    """
    if not isinstance(found, str) or not 0 < len(typed := _folded(found)) <= LONGEST:
        return None
    known = values if isinstance(values, Set | Mapping) else [*values]
    if len(known) > MANY:
        return _slipped(found.strip(), known if isinstance(known, Set | Mapping) else set(map(str, known)))
    folded: dict[str, str] = {}
    for value in filter(None, known):
        folded.setdefault(_folded(value), str(value))
    if typed in folded:
        return folded[typed] if folded[typed] != found else None
    alike = _alike(typed)
    likeness = {one: alike(one) for one in folded}

    def meant(one: str) -> float:
        begins = likeness[one] >= least and (typed.startswith(one) or one.startswith(typed))
        return likeness[one] + BEGINS * begins

    best = max(folded, key=meant, default="")
    return folded[best] if folded and likeness[best] >= least else None


def _alike(text: str) -> Callable[[str], float]:
    """How alike another text is, from 0 to 1: twice the longest common subsequence, by the sum of the lengths.

    Hyyrö's bits, a row of the table at a time, so that the time is known.

    >>> _alike("brand")("brnad"), _alike("age")("gender")
    (0.8, 0.4444444444444444)
    """
    places: dict[str, int] = {}
    for place, letter in enumerate(text):
        places[letter] = places.get(letter, 0) | 1 << place

    def ratio(other: str) -> float:
        length = len(text) + len(other)
        if 2 * min(len(text), len(other)) < NEAR * length:  # too long or too short, whatever it holds
            return 0.0
        row = whole = (1 << len(text)) - 1
        for letter in other:
            if here := row & places.get(letter, 0):
                row = (row + here) | (row - here)
        return 2.0 * (len(text) - (row & whole).bit_count()) / length

    return ratio


def _slipped(typed: str, values: Set[Any] | Mapping[Any, object]) -> str | None:
    """The value that is what was typed in another case, with look-alikes or two letters exchanged, or but for a letter.

    Of several that are but for a letter, none is nearer. Each is looked up: how many values there are costs nothing.
    """
    pairs = range(len(typed) - 1)
    likely = [typed, typed.upper(), typed.lower(), typed.title()]
    likely += [f"{typed[:n]}{other}{typed[n + 1 :]}" for n, one in enumerate(typed) for other in _TWINS.get(one, "")]
    likely += [f"{typed[:n]}{typed[n + 1]}{typed[n]}{typed[n + 2 :]}" for n in pairs]
    for one in likely:
        if one in values:
            return one
    letters = ["", *dict.fromkeys("".join(map(str, islice(values, 100))))][:LONGEST]
    ends = [(typed[:n], typed[n + replaced :]) for n in range(len(typed) + 1) for replaced in (0, 1)]
    near = [one for one in {f"{head}{letter}{tail}" for head, tail in ends for letter in letters} if one in values]
    return near[0] if len(near) == 1 else None


def did_you_mean(found: object, values: Iterable[object]) -> str:
    """The end of a sentence on what is none of these values: the nearest one, if there is any."""
    near = nearest(found, values)
    return "" if near is None else f"; did you mean {shown(near)}?"


_WIDEST = 20  # digits of an id that a program may have taken for a number
_DIGITS = re.compile(r"\d")


def near(key: str, ids: Collection[str]) -> str:
    """The end of a sentence on an id that is not among these, where one is that a person or a program takes for it.

    >>> near("1", {"00001": 0, "002": 1}), near("00002", {"2"}), near("3", {"00001"})
    ("; there is '00001': zeros at the front seem lost", "; there is '2': zeros at the front seem lost", '')
    >>> near("7.0", {"007"})
    "; there is '007': a program seems to have taken ids for numbers"
    >>> near("T\u200b1", {"T1"})
    "; there is 'T1', which looks alike"
    """
    looks, whole = look(key), key.removesuffix(".0")
    if looks != key and looks in ids:
        return f"; there is {shown(looks)}, which looks alike"
    zeros = len(whole) - len(whole.lstrip("0"))
    longer = range(len(whole) + 1, _WIDEST + 1) if whole.isdecimal() else ()
    likely = whole, f"{whole}.0", *(whole[lost:] for lost in range(1, zeros + 1)), *(whole.zfill(n) for n in longer)
    found = next((one for one in likely if one not in ("", key) and one in ids), None)
    if found is None:
        return ""
    how = (
        "a program seems to have taken ids for numbers"
        if key.endswith(".0") or found.endswith(".0")
        else "zeros at the front seem lost"
    )
    return f"; there is {shown(found)}: {how}"


def nearest_id(key: str, ids: Collection[str]) -> str:
    """`near`, else the id that a person may have meant, unless only digits differ: any other number is as near.

    >>> nearest_id("headphne-1", {"headphone-1", "headphone-2"}), nearest_id("headphone-3", {"headphone-1"})
    ("; did you mean 'headphone-1'?", '')
    """
    said, meant = near(key, ids), nearest(key, ids)
    number = meant is None or _DIGITS.sub("", meant) == _DIGITS.sub("", key)
    return said or ("" if number else f"; did you mean {shown(meant)}?")


def look(text: str) -> str:
    """The text without what a person does not see: invisible characters, kinds of spaces, full and half width."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text
    seen = (one for one in normalize("NFKC", text) if category(one) != "Cf")
    return " ".join("".join(seen).split())


def closed_up(name: str) -> str:
    """The name without spaces and underscores, in small letters.

    >>> closed_up("Skin_Type"), closed_up("피부 타입")
    ('skintype', '피부타입')
    """
    return name.replace(" ", "").replace("_", "").casefold()


def look_alikes(source: str, ids: Iterable[str]) -> list[str]:
    """A note on ids that a person can't tell apart: by invisible characters, kinds of spaces, or width alone.

    >>> look_alikes("p.csv", ["T01", "T01\u200b", "t01", "T 1", "T\u00a01"])
    ["p.csv: the ids 'T01' and 'T01\\\\u200b' look alike, and so do 1 more; each is another one"]
    """
    listed = [*ids]
    every = "".join(listed)
    if every.isascii() and every.isprintable() and " " not in every:  # at once, as of millions
        return []
    seen: dict[str, str] = {}
    pairs = [(seen[seems], one) for one in listed if seen.setdefault(seems := look(one), one) != one]
    if not pairs:
        return []
    more = f", and so do {len(pairs) - 1:,} more" if pairs[1:] else ""
    return [f"{source}: the ids {shown(pairs[0][0])} and {shown(pairs[0][1])} look alike{more}; each is another one"]


_TWINS = {"0": "Oo", "O": "0", "o": "0", "1": "Il", "I": "1l", "l": "1I"}
_SAME = str.maketrans("oil", "011")


def spelt(method: Callable[P, T]) -> Callable[P, T]:
    """The method, which raises `InputError` where it has no argument of a name, with the one that was meant."""

    @wraps(method)
    def call(*args: P.args, **named: P.kwargs) -> T:
        try:
            return method(*args, **named)
        except TypeError:
            allowed = [*signature(method).parameters][1:]
            for name in (one for one in named if one not in allowed):
                where = method.__qualname__.removesuffix(".__init__").rpartition(".")[2]
                raise InputError(
                    f"{where}(): found the argument {name!r}; allowed: {choices(allowed, 99, found=name)}"
                ) from None
            raise

    return call


def _folded(value: object) -> str:
    return normalize("NFD", str(value).strip()).casefold().translate(_SAME)


def shown(value: object, limit: int = 80) -> str:
    """A found value for an error sentence, shortened where it is long."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = "nothing" if value is None else repr(value).replace("\n", " ")
    except (ValueError, RecursionError):  # more digits than Python prints, deeply nested lists
        text = f"{type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def plain(text: str) -> str:
    """A name from a file with escapes for whatever would act on a terminal or cannot be written there."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
