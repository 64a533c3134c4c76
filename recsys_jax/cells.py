"""The cells of tables: texts, numbers and lists, read alike whether they come from JSON, CSV or Parquet."""

import math

import numpy as np

__all__ = ["as_key", "as_number", "cell_number", "split_keys"]


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
    text = str(value)  # integers, and the scalars and missing values of NumPy and pandas
    return None if text in {"nan", "NaT", "<NA>"} else text


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


def split_keys(cell: object, separator: str | None) -> list[str]:
    """The values in a cell that may hold several: a list, one text with a separator, or a list of such texts.

    >>> split_keys("a|b", "|"), split_keys(["a", 2], None), split_keys(None, "|")
    (['a', 'b'], ['a', '2'], [])
    """
    items = list(cell) if isinstance(cell, list | tuple | np.ndarray) else [cell]
    if separator is not None:
        items = [part for item in items for part in (item.split(separator) if isinstance(item, str) else [item])]
    return [key for key in map(as_key, items) if key is not None]
