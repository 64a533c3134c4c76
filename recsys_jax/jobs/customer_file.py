"""The file with the customers to be scored: Parquet, read front to back in small portions, or another, read whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recsys_jax.data.schema import Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.coded import coded, converted, taken
from recsys_jax.data.tabular.frames import different, listed
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.data.values import composed
from recsys_jax.errors import InputError, installing
from recsys_jax.serving.history import bought, bought_columns
from recsys_jax.serving.ranking import by_column, not_known
from recsys_jax.serving.recommender import Recommender

try:
    import pyarrow as arrow
    import pyarrow.parquet as parquet
except ImportError:  # a sentence where the input is to be opened
    arrow = parquet = None

# Bytes read at once of a column. Else a whole row group is read, which may be the whole file.
BUFFER = 2**18


class Source:
    """The file with the customers, read front to back in small portions, and what its columns mean."""

    def __init__(self, path: Path, rec: Recommender, *, include_purchased: bool = False, names: bool = False) -> None:
        """Opens the file; its columns of purchases are read unless `include_purchased`.

        With `names`, `told` has by name the columns that people know products by, a value for each product. Raises
        `InputError` where that fails.
        """
        if arrow is None:
            raise InputError(f"{path}: scoring needs pyarrow: {installing('parquet')}")
        self.path, self.rec = path, rec
        self._table = None if path.suffix.lower() == ".parquet" else _whole(path)
        if self._table is not None:
            self._arrow = arrow.table([*map(_column, self._table.columns.values())], [*map(_text, self._table.columns)])
            self.schema, self.names, self.total = self._arrow.schema, [*self._table.columns], len(self._table)
        else:
            with self._damage_told():
                self._file = parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
                self.schema = self._file.schema_arrow
            self.names, self.total = [*map(composed, self.schema.names)], int(self._file.metadata.num_rows)
        different(self.names, str(path))
        meant = by_column(self.names, rec.model, rec.column_of, str(path))
        self.names = [meant[name] for name in self.names]
        part = rec.model.schema.customers
        self.id = part.id if part.id in self.names else None
        self.attributes = dict.fromkeys(fitted.feature.column for fitted in rec.model.customers)
        columns = () if include_purchased else bought_columns(rec.model.schema)
        self.bought = [name for name in columns if name in self.names]
        self.told = {name: _column(each) for name, each in rec.described().items()} if names else {}

    def check(self, request: Mapping[str, Any]) -> None:
        """Raises `InputError` for what is wrong with the request or the columns, whatever the rows hold."""
        nobody = Table(str(self.path), {name: [] for name in self.names})
        self.rec.rank_batch(Table("score", {}), **request)
        self.rec.rank_batch(nobody, **request)  # tells a misspelt column
        for name in self.attributes:
            if name not in self.rec.model.customers.optional:
                nobody.column(name)

    @property
    def notes(self) -> list[str]:
        """How the file was read, where that is not plain."""
        return [] if self._table is None else self._table.validation.notes

    @property
    def of_spreadsheet(self) -> bool:
        """Whether it is a text as only spreadsheets write it, which know UTF-8 by its byte order mark alone."""
        return self._table is not None and self._table.encoding != "utf-8"

    @property
    def absent(self) -> list[str]:
        """The attributes that the file has no column for."""
        return [name for name in self.attributes if name not in self.names]

    def unknown(self, table: Table, rows: Sequence[int], *, numbers: bool = False) -> dict[str, tuple[int, str]]:
        """By attribute, how many of the rows have a value that the model does not know, and a sentence on the first.

        Or `numbers` beyond those in training.
        """
        found = {}
        for fitted in self.rec.model.customers:
            if isinstance(fitted.feature, Numeric) if numbers else fitted.feature.unknown != "error":
                column = table.columns[fitted.feature.column]
                test: Callable[[object], object] = fitted.unseen if numbers else fitted.unknown
                items = converted(test, taken(column, rows))
                lost = [row for row, own in zip(rows, items, strict=True) if own]
                if lost:
                    (said, *_) = not_known([fitted], {fitted.feature.column: column[lost[0]]})
                    found[fitted.feature.column] = len(lost), f"row {table.number(lost[0]):,}, {said}"
        return found

    def portions(self, size: int) -> Iterator[Any]:
        """Arrow tables of `size` rows, the last one shorter."""
        if self._table is not None:
            batches = iter(self._arrow.to_batches(size))
        else:
            batches = self._file.iter_batches(size, use_threads=False)
        # Arrow also ends a batch where a dictionary changes, so that equal sizes have to be made here.
        parts: list[Any] = []
        while True:
            with self._damage_told():
                batch = next(batches, None)
            if batch is not None:
                parts.append(batch)
            rows = sum(part.num_rows for part in parts)
            if rows >= size or (batch is None and rows):
                table = arrow.Table.from_batches(parts)
                yield table[:size]
                parts = table[size:].to_batches()
            if batch is None:
                return

    def read(self, portion: Any, first: int) -> Table:
        """The portion's values; `first` rows of the file precede it. Optional attributes that it lacks are empty."""
        needed = [name for name in self.names if name in {self.id, *self.attributes, *self.bought}] or self.names[:1]
        last = first + portion.num_rows
        if self._table is not None:
            every = dict(zip(self.names, self._table.columns.values(), strict=True))
            columns = {name: coded(every[name][first:last]) for name in needed}
        else:
            columns = {name: coded(values(portion.column(self.names.index(name)))) for name in needed}
        absent = {name: [None] * portion.num_rows for name in self.attributes if name not in columns}
        numbers = range(first + 1, last + 1)
        return self.rec.model.schema.reads(Table(str(self.path), {**columns, **absent}, numbers))

    def purchases(self, table: Table) -> list[list[str]]:
        """The ids of the products that each customer bought; the table refuses a value that is no list of ids."""
        return bought(table, self.rec.model.schema, self.rec.history, self.bought)

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{self.path}: not readable as Parquet: {error}") from None


def _whole(path: Path) -> Table:
    """The table in a file. Raises `InputError` for the first row that is none."""
    table = read_table(path)
    for row in table.set_aside[:1]:
        raise InputError(f"{row}; nothing is scored, as such a row would be lost")
    return table


def _column(column: Sequence[Any]) -> Any:
    """An Arrow column of values that JSON has, as texts where they are of several kinds, or objects, or too large."""
    texts = all(isinstance(one, str | None) for one in column)
    with suppress(arrow.ArrowException, ValueError, OverflowError):
        made = arrow.array(column, arrow.string() if texts else None)
        if not arrow.types.is_nested(made.type.value_type if arrow.types.is_list(made.type) else made.type):
            return made
    return arrow.array([None if one is None else _text(str(one)) for one in column], arrow.string())


def _text(text: str) -> str:
    """A text that UTF-8 can encode: half a character, which JSON can escape, is written as its escape."""
    return text.encode(errors="backslashreplace").decode()


def values(column: Any) -> list[Any]:
    """The column as Python's values; one that cannot be one, such as a text that is not UTF-8, fails alone."""
    try:
        return listed(column)
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return str(error).encode()  # bytes are no value of any attribute, and no product id
