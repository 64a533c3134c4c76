"""Columns out of data frames of any library."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from recsys_jax.data.tabular.coded import LEAST, Coded, coded, renumbered
from recsys_jax.errors import InputError, plain

_NARROW = {"halffloat": np.float16, "float16": np.float16, "float": np.float32, "float32": np.float32}


def listed(column: Any) -> list[Any]:
    """The values of a column of a frame, an array or a list; short floats stay short, so that ids know their digits."""
    read = getattr(column, "to_pylist", getattr(column, "to_list", None))  # Arrow's; that of pandas, Polars, narwhals
    if read is None:
        masked = isinstance(column, np.ma.MaskedArray)
        return [None if one is np.ma.masked else one for one in column] if masked else list(column)
    kind = str(getattr(column, "dtype", getattr(column, "type", ""))).lower()
    narrow = _NARROW.get(kind.removesuffix("[pyarrow]"))
    return [narrow(value) if isinstance(value, float) else value for value in read()] if narrow else list(read())


def columns_of(frame: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    """The name of each column of a narwhals frame, and its values, coded where they come again."""
    for column in frame.iter_columns():
        yield column.name, _from_arrow(column.to_native()) or coded(listed(column))


def _from_arrow(column: Any) -> Coded | None:
    """An Arrow column by its different values, which Arrow finds faster; None where it does not, or they are many."""
    if not hasattr(column, "combine_chunks") or str(column.type).startswith("dictionary"):
        return None
    import pyarrow as arrow

    try:
        found = column.combine_chunks().dictionary_encode()
    except arrow.ArrowException:  # lists and objects, or texts beyond what one array holds
        return None
    if LEAST * len(found.dictionary) > len(column):
        return None
    values, missing = listed(found.dictionary), len(found.dictionary)
    codes = found.indices.fill_null(missing).to_numpy()
    return renumbered([*values, None], codes)


def data_frame(rows: Any, source: str) -> Any:
    """The rows as a narwhals frame, whichever library's they are; None where they are no data frame in memory.

    Raises `InputError` where two columns have the same name.
    """
    if not hasattr(type(rows), "columns"):  # of the type: a lazy frame works for its columns
        return None
    import narwhals as nw  # here, since it takes longer than all else of this room, which most read files with

    arrow = hasattr(rows, "to_pydict")  # a table or a record batch
    try:
        if arrow:
            return nw.from_arrow(rows, backend="pyarrow")
        found = nw.from_native(rows, eager_only=True, pass_through=True)
    except nw.exceptions.DuplicateError:
        different([str(name) for name in (rows.schema.names if arrow else rows.columns)], source)
        raise
    return found if isinstance(found, nw.DataFrame) else None


def only_column(values: object, source: str) -> object:
    """The values of a data frame of one column; anything else as it is."""
    frame = data_frame(values, source)
    return values if frame is None or len(frame.columns) != 1 else listed(frame[:, 0])


def free(name: str, taken: Collection[str]) -> str:
    """The name, with lines under it where it is taken.

    >>> free("row", ["row", "row_"])
    'row__'
    """
    return name if name not in taken else free(f"{name}_", taken)


def different(names: Sequence[str], source: str) -> None:
    """Raises `InputError` where two columns have the same name: one of them would be lost."""
    if len(set(names)) != len(names):
        raise InputError(f"{source}: two columns have the same name: {', '.join(map(plain, names))}")
