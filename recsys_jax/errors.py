"""The one exception for what a person gave and can correct."""

from collections.abc import Iterable


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
        raise InputError(f"{where}: found {found!r}; allowed: {allowed}")


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
    shown = ", ".join(repr(value) for value in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
