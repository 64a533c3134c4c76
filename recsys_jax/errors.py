"""The one exception for what a person gave and can correct."""

from collections.abc import Iterable

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


def choices(values: Iterable[object], limit: int = 12) -> str:
    """The allowed values as a sentence's end, shortened when there are many.

    >>> choices(["F", "M"])
    "'F', 'M'"
    >>> choices(range(100), limit=3)
    '0, 1, 2 and 97 more'
    """
    listed = list(values)
    first = ", ".join(map(shown, listed[:limit]))
    return first if len(listed) <= limit else f"{first} and {len(listed) - limit} more"


def shown(value: object, limit: int = 80) -> str:
    """A found value for an error sentence, shortened where it is long."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = "nothing" if value is None else repr(value).replace("\n", " ")
    except (ValueError, RecursionError):  # more digits than Python prints, deeply nested lists
        text = f"{type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
