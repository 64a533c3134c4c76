"""Columns in which values come again: what is asked of them is asked once of each different value."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import NoneType
from typing import Any, TypeVar, overload

import numpy as np
from jaxtyping import Int, Int32

T = TypeVar("T")
_NUMBERS: set[type] = {int, float, bool}
_OTHERS: set[type] = {str, NoneType}
LEAST = 2
"""Rows to each different value, on average, from which on it is worth it."""


class Coded(Sequence[Any]):
    """The different values of a column, in order of first appearance, and which of them each row has."""

    __slots__ = ("codes", "values")

    def __init__(self, values: Sequence[Any], codes: Int32[np.ndarray, " n"]) -> None:
        self.values, self.codes = values, codes

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[Any]:
        return map(self.values.__getitem__, self.codes.tolist())

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self.values[code] for code in self.codes[place].tolist()]
        return self.values[self.codes[place]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one is two or one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def coded(column: Sequence[Any]) -> Sequence[Any]:
    """The column, `Coded` where it has texts and numbers of one type that come again often enough; else as it is.

    >>> coded(["b", "a", None, "b", "a", "b"]).codes.tolist(), type(coded([1, True, 1, True])).__name__
    ([0, 1, 2, 0, 1, 0], 'list')
    """
    kinds = set(map(type, column))
    if (
        len(kinds & _NUMBERS) > 1 or not kinds <= _NUMBERS | _OTHERS
    ):  # 1, 1.0 and True are equal, and are not written alike
        return column
    values = [*dict.fromkeys(column)]
    if LEAST * len(values) > len(column):
        return column
    place = dict(zip(values, range(len(values)), strict=True))
    return Coded(values, np.fromiter(map(place.__getitem__, column), np.int32, len(column)))


def taken(column: Sequence[Any], rows: Sequence[int] | Int[np.ndarray, " m"]) -> Sequence[Any]:
    """The column at some rows, in that order."""
    if not isinstance(column, Coded):
        return [column[row] for row in rows]
    return renumbered(column.values, column.codes[np.asarray(rows, np.intp)])


def renumbered(values: Sequence[Any], codes: Int32[np.ndarray, " n"]) -> Coded:
    """The column of these values by their numbers: those that no row has left out, in order of first appearance."""
    first = np.full(len(values), len(codes))
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of a code that comes again, the last assignment stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    place = np.zeros(len(values), np.int32)
    place[order] = np.arange(len(order))
    return Coded([values[one] for one in order.tolist()], place[codes])


def known(column: Sequence[T | None]) -> Sequence[T]:
    """The rows of a column that are not None."""
    if not isinstance(column, Coded):
        return [value for value in column if value is not None]
    nothing = [code for code, value in enumerate(column.values) if value is None]
    return renumbered(column.values, column.codes[~np.isin(column.codes, nothing)]) if nothing else column


def converted(convert: Callable[[Any], T], column: Sequence[Any]) -> Sequence[T]:
    """What a function makes of each value; of a coded column it is asked once of each different one."""
    if isinstance(column, Coded):
        return Coded([convert(value) for value in column.values], column.codes)
    return [convert(value) for value in column]


def counted(column: Sequence[Any]) -> Iterable[tuple[Any, int]]:
    """The values of a column, each with how many rows have it; one may come again where the column is not coded."""
    if not isinstance(column, Coded):
        return ((value, 1) for value in column)
    return zip(column.values, np.bincount(column.codes, minlength=len(column.values)).tolist(), strict=True)
