"""The one exception for what a person gave and can correct."""

from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import normalize

import numpy as np


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
    return first + did_you_mean(found, listed)


MANY = 1000
"""Of more values, only one that differs in case or in what nobody sees is looked for: all others would take long."""


def nearest(found: object, values: Iterable[object]) -> str | None:
    """The value that a person may have meant who typed what was found, which is none of them; None where none is near.

    Letters are compared apart, Hangul by its sounds.

    >>> nearest("건셩", ["지성", "건성", "복합성"]), nearest("AGE ", ["age"]), nearest("32", ["F", "M"])
    ('건성', 'age', None)
    """
    if not isinstance(found, str) or not found.strip() or len(found) > 100:
        return None
    folded: dict[str, str] = {}
    for value in values:
        folded.setdefault(_folded(value), str(value))
    typed = _folded(found)
    if typed not in folded:
        near = get_close_matches(typed, folded, 1, cutoff=0.65) if len(folded) <= MANY else []
        return folded[near[0]] if near else None
    return folded[typed] if folded[typed] != found else None


def did_you_mean(found: object, values: Iterable[object]) -> str:
    """The end of a sentence on what is none of these values: the nearest one, if there is any."""
    near = nearest(found, values)
    return "" if near is None else f"; did you mean {shown(near)}?"


def _folded(value: object) -> str:
    return normalize("NFD", str(value).strip()).casefold()


def shown(value: object, limit: int = 80) -> str:
    """A found value for an error sentence, shortened where it is long."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = "nothing" if value is None else repr(value).replace("\n", " ")
    except (ValueError, RecursionError):  # more digits than Python prints, deeply nested lists
        text = f"{type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
