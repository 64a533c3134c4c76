"""Recommends products to every customer in a Parquet file, however many there are.

Example: python scripts/score.py customers.parquet recommendations.parquet --run runs/amoremall
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

from _common import command, console, progress

import numpy as np
import tyro

from recsys_jax import InputError, Recommender
from recsys_jax.cells import as_key, split_keys
from recsys_jax.files import replace_file
from recsys_jax.recommender import Ranking
from recsys_jax.tables import Table

try:
    import pyarrow as arrow
    import pyarrow.parquet as parquet
except ImportError:  # a sentence where the input is to be opened
    arrow = parquet = None

# Customers at once, and recommendations at once: of both so few that memory stays small, whatever the files hold.
CUSTOMERS, PLACES = 8192, 2**20
# Bytes read at once of a column. Else a whole row group is read, which may be the whole file.
BUFFER = 2**18
BOUGHT = "purchased_products"  # the argument of `recommend_batch`, as a column
RECOMMENDED = ("place", "product_id", "score", "boost")


@dataclass(frozen=True)
class Options:
    """Recommends products to every customer in a Parquet file, however many there are."""

    customers: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CUSTOMERS")]]
    """The Parquet file with the customers' attributes; what they bought, where it says so, is not recommended."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """The Parquet file to write, one row per customer and place. Rows that cannot be used go to OUT.rejected.parquet
    beside it, with the reason."""
    run: Path | None = None
    """The folder with the trained model; by default the only one under runs/."""
    top_n: int = 10
    """How many products for each customer."""
    categories: tuple[str, ...] = ()
    """Only products of these categories."""
    boosts: Path | None = None
    """A TOML file with boost rules."""


@dataclass
class Counts:
    """What became of the rows so far."""

    rows: int = 0
    rejected: int = 0
    recommendations: int = 0
    first: str = ""
    """The first rejected row and its reason."""


def main(options: Options) -> None:
    """Scores, writes and counts."""
    began = time.perf_counter()
    out = options.out
    side = out.with_name(f"{out.stem}.rejected.parquet")
    check_places(options.customers, out, side)
    rec = Recommender.load(options.run or only_run(), options.boosts)
    source = Source(options.customers, rec)
    source.check(options)
    counts = Counts()

    def write(best: IO[bytes], rejected: IO[bytes]) -> None:
        with progress("scoring (compiling first)") as bar, removed_on_ctrl_c(best, rejected):
            score(source, options, best, rejected, counts, bar)

    replace_file(out, lambda best: replace_file(side, lambda rejected: write(best, rejected)))
    if not counts.rejected:
        side.unlink()
    tell(counts, out, side, time.perf_counter() - began)


def check_places(customers: Path, out: Path, side: Path) -> None:
    """Raises `InputError` where a file is absent, of another kind, or would be written over the input."""
    for path in (customers, out):
        if path.suffix.lower() != ".parquet":
            raise InputError(f"{path}: found the ending {path.suffix!r}; allowed: .parquet")
    if not customers.is_file():
        raise InputError(f"{customers}: there is no such file")
    for path in (out, side):
        if path.is_dir():
            raise InputError(f"{path}: found a folder; allowed: a file to write, there or not yet")
        if path.exists() and path.samefile(customers):
            raise InputError(f"{path}: found the file with the customers; allowed: another one to write to")


def only_run() -> Path:
    """The only folder under runs/ that holds a model. Raises `InputError` where there is none or several."""
    found = sorted(path.parent for path in Path("runs").glob("*/model.json"))
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(str, found)) or "none"
    raise InputError(f"run: found {listed} under runs/; name the folder with the trained model: --run RUN")


class Source:
    """The file with the customers, read front to back in small portions, and what its columns mean."""

    def __init__(self, path: Path, rec: Recommender) -> None:
        """Opens the file. Raises `InputError` where that fails."""
        if arrow is None:
            raise InputError(f"{path}: Parquet files need pyarrow: pip install 'recsys_jax[parquet]'")
        self.path, self.rec = path, rec
        with self._damage_told():
            self._file = parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
            self.schema = self._file.schema_arrow
        self.total = int(self._file.metadata.num_rows)
        self.names: list[str] = self.schema.names
        if len(set(self.names)) != len(self.names):
            raise InputError(f"{path}: two columns have the same name: {', '.join(self.names)}")

        part = rec.model.schema.customers
        self.id = part.id if part.id in self.names else None
        self.attributes = dict.fromkeys(fitted.feature.column for fitted in rec.model.customers)
        self.separator = part.separator
        # By column, whether it may hold one id instead of a list, as the model's own does.
        self.bought = {name: name == part.purchases for name in self.names if name in {part.purchases, BOUGHT}}

    def check(self, options: Options) -> None:
        """Raises `InputError` for what is wrong with the options or the columns, whatever the rows hold."""
        nobody = Table(str(self.path), {name: [] for name in self.names})
        self.rec.rank_batch(Table("score.py", {}), **_request(options))
        self.rec.rank_batch(nobody, **_request(options))  # tells a misspelt column
        optional = {fitted.feature.column for fitted in self.rec.model.customers if fitted.feature.missing != "error"}
        for name in self.attributes:
            if name not in optional:
                nobody.column(name)

    def portions(self, size: int, *, whole: bool) -> Iterator[Any]:
        """Arrow tables of `size` rows, the last one shorter, with all columns or those that are needed."""
        needed = [name for name in self.names if name in {self.id, *self.attributes, *self.bought}]
        columns = None if whole else needed or self.names[:1]
        batches = self._file.iter_batches(size, columns=columns, use_threads=False)
        # Arrow also ends a batch where a dictionary changes, so that equal sizes have to be made here.
        parts: list[Any] = []
        while True:
            with self._damage_told():
                batch = next(batches, None)
            parts += [] if batch is None else [batch]
            rows = sum(part.num_rows for part in parts)
            if rows >= size or (batch is None and rows):
                table = arrow.Table.from_batches(parts)
                yield table[:size]
                parts = table[size:].to_batches()
            if batch is None:
                return

    def read(self, portion: Any, first: int) -> Table:
        """The portion's cells; `first` rows of the file precede it. Optional attributes that it lacks are empty."""
        columns = {name: _cells(portion.column(name)) for name in portion.column_names}
        absent = {name: [None] * portion.num_rows for name in self.attributes if name not in columns}
        numbers = range(first + 1, first + 1 + portion.num_rows)
        return Table(str(self.path), {**columns, **absent}, numbers)

    def purchases(self, table: Table, row: int) -> list[str]:
        """The ids of the products that the customer bought. Raises `InputError` for a cell that cannot say so."""
        found: list[str] = []
        for name, one_id in self.bought.items():
            cell = table.columns[name][row]
            listed = isinstance(cell, list) or one_id or self.separator is not None or as_key(cell) is None
            items = cell if isinstance(cell, list) else [cell]
            if not listed or any(isinstance(item, bytes | dict | list | tuple) for item in items):
                raise table.error(row, name, "a product id, or a list of them" if one_id else "a list of product ids")
            found += split_keys(cell, self.separator)
        return found

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{self.path}: not readable as Parquet: {error}") from None


def _cells(column: Any) -> list[Any]:
    """The cells as Python's values; one that has none, such as a text that is not UTF-8, fails alone."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        return [_cell(scalar) for scalar in column]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return str(error).encode()  # bytes are no value of any attribute, and no product id


def _request(options: Options) -> dict[str, Any]:
    return {"top_n": options.top_n, "categories": options.categories or None}


def score(
    source: Source,
    options: Options,
    best: IO[bytes],
    rejected: IO[bytes],
    counts: Counts,
    bar: Callable[..., None],
) -> None:
    """Streams the customers through the model into two Parquet files, and counts."""
    places = min(options.top_n, len(source.rec.product_ids))
    # A power of two: the recommender pads to one.
    size = 1 << (max(1, min(CUSTOMERS, PLACES // places)).bit_length() - 1)
    # All columns are read again only where rows are rejected, front to back too: so many portions so far.
    again, complete = 0, source.portions(size, whole=True)
    out_schema, side_schema = recommended_schema(source), rejected_schema(source)
    with parquet.ParquetWriter(best, out_schema) as out, parquet.ParquetWriter(rejected, side_schema) as side:
        for number, portion in enumerate(source.portions(size, whole=False)):
            table = source.read(portion, counts.rows)
            rows, ranking, reasons = rank(source, table, options)
            if ranking is not None:
                found = recommended(source, portion, table, rows, ranking, out_schema)
                out.write_table(found)
                counts.recommendations += found.num_rows
            if reasons:
                whole = next(islice(complete, number - again, None))
                again = number + 1
                side.write_table(with_reasons(whole, table, reasons, side_schema))
                row, reason = next(iter(reasons.items()))
                counts.first = counts.first or f"row {table.number(row):,}: {reason}"
            counts.rejected += len(reasons)
            counts.rows += portion.num_rows
            bar(counts.rows, source.total)


def rank(source: Source, table: Table, options: Options) -> tuple[Sequence[int], Ranking | None, dict[int, str]]:
    """The rows that can be used, what is recommended to them, and why each of the others can't be."""
    bad: dict[int, InputError] = {}
    bought: list[list[str]] = []
    ids = table.columns[source.id] if source.id else None
    for row in range(len(table)):
        bought.append([])
        try:
            if ids is not None and as_key(ids[row]) is None:
                raise table.error(row, source.id or "", "an id, a text or a number that is not empty")
            bought[row] = source.purchases(table, row)
        except InputError as error:
            bad[row] = error

    def of_the_others() -> tuple[list[int], Ranking | None]:
        rows = [row for row in range(len(table)) if row not in bad]
        if not rows:
            return rows, None
        lists = [bought[row] for row in rows]
        return rows, source.rec.rank_batch(table.select(rows), purchased_products=lists, **_request(options))

    try:
        rows, ranking = of_the_others()
    except InputError:
        more = source.rec.model.customers.problems(table)
        if not set(more) - set(bad):
            raise  # it is not about rows
        bad = {**more, **bad}
        rows, ranking = of_the_others()
    reasons = {row: str(e).removeprefix(f"{table.source}, row {table.number(row)}, ") for row, e in bad.items()}
    if ranking is not None:
        goods = "products of the categories asked for" if options.categories else "products"
        for place in np.flatnonzero((ranking.products < 0).all(axis=1)).tolist():
            reasons[rows[place]] = f"no product remains: all {goods} were bought already"
    return rows, ranking, dict(sorted(reasons.items()))


def _free(name: str, taken: Sequence[str]) -> str:
    """The name, with lines under it where it is taken."""
    return name if name not in taken else _free(f"{name}_", taken)


def recommended_schema(source: Source) -> Any:
    """The columns of OUT: the customer's id as in the input, or the row's number, and what is recommended."""
    customer = (source.id, source.schema.field(source.id).type) if source.id else ("row", arrow.int64())
    product = arrow.dictionary(arrow.int32(), arrow.string())
    types = (arrow.int32(), product, arrow.float32(), arrow.float32())
    return arrow.schema([(_free(customer[0], RECOMMENDED), customer[1]), *zip(RECOMMENDED, types, strict=True)])


def rejected_schema(source: Source) -> Any:
    """The columns of the side file: those of the input, the row's number, and the reason."""
    added = {"row": arrow.int64(), "reason": arrow.string()}
    schema = source.schema
    for name, kind in added.items():  # a side file that was corrected and is input again has these names already
        schema = schema.append(arrow.field(_free(name, schema.names), kind))
    return schema


def recommended(source: Source, portion: Any, table: Table, rows: Sequence[int], ranking: Ranking, schema: Any) -> Any:
    """The rows of OUT for these customers."""
    place_of, places = np.nonzero(ranking.products >= 0)
    products, codes = np.unique(ranking.products[place_of, places], return_inverse=True)
    row_of = np.asarray(rows, np.int64)[place_of]
    columns = [
        portion.column(source.id).take(arrow.array(row_of)) if source.id else arrow.array(row_of + table.number(0)),
        arrow.array(places.astype(np.int32) + 1),
        # Only the products of this portion: Parquet writes a row group's whole dictionary.
        arrow.DictionaryArray.from_arrays(
            arrow.array(codes.astype(np.int32)),
            arrow.array([source.rec.product_ids[product] for product in products.tolist()], arrow.string()),
        ),
        arrow.array(ranking.scores[place_of, places]),
        arrow.array(ranking.boosts[place_of, places]),
    ]
    return arrow.Table.from_arrays(columns, schema=schema)


def with_reasons(portion: Any, table: Table, reasons: Mapping[int, str], schema: Any) -> Any:
    """The rows of the side file."""
    numbers = arrow.array([table.number(row) for row in reasons], arrow.int64())
    columns = portion.take(arrow.array(list(reasons), arrow.int64())).columns
    return arrow.Table.from_arrays([*columns, numbers, arrow.array(reasons.values(), arrow.string())], schema=schema)


@contextmanager
def removed_on_ctrl_c(*streams: IO[bytes]) -> Iterator[None]:
    """Ctrl-C ends a script at once (`_common` says why), so these files are removed before that."""
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        for stream in streams:
            Path(stream.name).unlink(missing_ok=True)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def tell(counts: Counts, out: Path, side: Path, seconds: float) -> None:
    """Says what was done, and where the files are."""
    scored = counts.rows - counts.rejected
    if not scored:
        why = "every row was rejected" if counts.rows else "there are no rows in the input"
        console.print(f"No customer was scored: {why}. {out.name} is empty.")
    console.print(
        f"{scored:,} customers, {counts.recommendations:,} recommendations, {counts.rejected:,} rows rejected, in "
        f"{seconds:,.1f} s: {scored / seconds:,.0f} customers per second"
    )
    if counts.rejected:
        console.print(f"The first rejected one, {counts.first}")
    console.print(f"Written: {', '.join(map(str, [out, side] if counts.rejected else [out]))}")


if __name__ == "__main__":
    command(main)
