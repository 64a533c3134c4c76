"""The batch job: every customer of a file, streamed through a model, interrupted at any moment.

Memory stays small whatever the files hold, and what is finished is on the disk: the next process goes on there.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int

from recsys_jax import stopping
from recsys_jax.data.dataset import read_ids
from recsys_jax.data.files import absent, replace_file, sheet_text, sync_folder
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.frames import free
from recsys_jax.data.tabular.readers import require_ending
from recsys_jax.errors import InputError, choices, nearest_id, shown
from recsys_jax.jobs.customer_file import Source, values
from recsys_jax.serving.catalogue import RECOMMENDED
from recsys_jax.serving.history import History, bought_again
from recsys_jax.serving.ranking import Ranking
from recsys_jax.serving.recommender import Recommender
from recsys_jax.storage.jobs import Parts, environment, fingerprint, kept, stopped

try:
    import pyarrow as arrow
    import pyarrow.parquet as parquet
except ImportError:  # `Source` says so
    arrow = parquet = None

# Customers at once, and recommendations at once: of both so few that memory stays small, whatever the files hold.
CUSTOMERS, PLACES = 8192, 2**20
# A part of the job is finished after so many seconds: no more is lost by an interruption, and its notes take no time.
SECONDS = 5.0


@dataclass
class Counts:
    """What became of the rows so far."""

    rows: int = 0
    rejected: int = 0
    recommendations: int = 0
    bought: int = 0
    """The ids in the purchases of customers that could be used."""
    unmatched: int = 0
    """Those of them that are the id of no product, so that nothing was left out for them."""
    first_unmatched: str = ""
    known: int = 0
    """Customers who could be used and of whom a purchase is known, which was left out."""
    repeats: bool = False
    """Whether the dataset, or the one of the model, says that products are bought again."""
    strangers: int = 0
    """Customers whom the dataset lacks."""
    first_stranger: str = ""
    first: str = ""
    """The first rejected row and its reason."""
    unknown: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By attribute, the customers with a value that the model does not know, and a sentence on the first."""
    unseen: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Likewise, with a number beyond those in training."""

    @property
    def scored(self) -> int:
        """Customers with recommendations."""
        return self.rows - self.rejected


def rejected_file(out: Path) -> Path:
    """Where rows that cannot be used go, with the reason."""
    return out.with_name(f"{out.stem}.rejected{out.suffix}")


def score_file(
    customers: Path,
    out: Path,
    run: Path,
    *,
    top_n: int = 10,
    categories: tuple[str, ...] = (),
    available: Path | None = None,
    boosts: Path | None = None,
    dataset: History | None = None,
    purchases: Path | None = None,
    include_purchased: bool = False,
    diversity: float = 0.0,
    at_most: Mapping[str, int] | None = None,
    pinned: Sequence[str] = (),
    names: bool = False,
    allow_unmatched: bool = False,
    progress: Callable[..., None],
    tell: Callable[[str], None],
) -> tuple[Counts, int]:
    """Recommends to every customer in the file; the counts, and how many customers an earlier process had scored.

    Writes `out`, one row per customer and place, and `rejected_file(out)` where there are rows that cannot be used.
    What customers bought, by the file's columns, a `dataset` or a file of `purchases`, is left out unless
    `include_purchased`; `available` is a table with the ids of the products to choose from; `diversity`, `at_most`
    and `pinned` are as in `Recommender.recommend`; `names` adds what people know products by. `progress` is called with
    the rows done, and all rows; `tell` with a sentence on what an earlier process left, or on former names in the run.
    Raises `InputError` for files and requests that cannot be used, and unless `allow_unmatched` where more than one in
    ten of the purchases is the id of no product. `out` is then as it was, and what is finished is kept.
    """
    _check_places(customers, out)
    files = {"customers": customers, "boosts": boosts, "available": available, "purchases": purchases}
    rules = {"diversity": diversity, "at_most": dict(at_most or {}), "pinned": [*pinned]}
    options = {"top_n": top_n, "categories": categories, "include_purchased": include_purchased, "names": names}
    job = _job(run, files, **options, **rules)
    known: dict[str, Any] = {} if include_purchased else {"dataset": dataset, "purchases": purchases}
    rec = Recommender.load(run, boosts, **known, tell=tell)
    parts = Parts(out.with_name(f".{out.name}.parts"), job | {"history": rec.history and rec.history.fingerprint})
    source = Source(customers, rec, include_purchased=include_purchased, names=names)
    if rec.history is not None and rec.history.bought and source.id is None:
        raise InputError(
            f"{customers}: found no column {rec.model.schema.customers.id!r}; allowed: with it, by which "
            f"{rec.history.source} knows what customers bought, or without those purchases"
        )
    stock = None if available is None else read_ids(available, rec.model.schema)
    if said := rec.unmatched_note("available", stock or ()):
        tell(said)
    request = {"top_n": top_n, "categories": categories or None, "available": stock, **rules}
    source.check(request)
    for note in source.notes:
        tell(note)
    if source.absent:
        tell(f"{customers}: found no column {choices(source.absent)}: taken as not stated by anybody")
    if not allow_unmatched:
        _check_history(rec)
    busy = f"{out}: found another process that is writing this file; allowed: one at a time"
    with parts.alone(busy) as said, stopping.saying(lambda: stopped(parts, source.total)):
        if said:
            tell(said)
        counts = Counts(**parts.state)
        counts.repeats = bought_again(rec.model.schema, rec.history)
        before = counts.scored
        try:
            if parts.files:
                tell(f"continuing after {counts.rows:,} of {source.total:,} rows")
                progress(counts.rows, source.total)
            _score(source, request, parts, counts, progress)
            ignored = allow_unmatched or _passed_over(rec)
            if source.bought and counts.unmatched * 10 > counts.bought and not ignored:
                found = f"{counts.unmatched:,} of {counts.bought:,} purchases that are the id of no product"
                raise InputError(f"{customers}: found {found}, the first in {counts.first_unmatched}; {_FEW}")
            _write(source, parts, out, counts)
        except (InputError, OSError) as error:
            old = f"; {out} is unchanged" if out.exists() else ""
            raise InputError("; ".join(filter(None, [f"{error}{old}", kept(parts, source.total)]))) from error
        parts.files.clear()  # they have served
    return counts, before


_FEW = "allowed: one in ten, or more with --allow-unmatched"


def _passed_over(rec: Recommender) -> bool:
    """Whether the shop says that purchases of what is no product are passed over, however many."""
    part = rec.model.schema.interactions
    return part is not None and part.unknown_products == "ignore"


def _check_history(rec: Recommender) -> None:
    """Raises `InputError` where more than one in ten of the purchases that are known is of no product."""
    history = rec.history
    if history is None or _passed_over(rec):
        return
    times = Counter(chain.from_iterable(history.bought.values()))
    lost = [one for one in rec.unmatched(list(times)) if one not in history.products]
    unmatched, bought = sum(times[str(one)] for one in lost), times.total()
    if unmatched * 10 > bought:
        found = f"found {unmatched:,} of {bought:,} purchases that are the id of no product"
        first = f"{shown(lost[0])}{nearest_id(str(lost[0]), rec.product_ids)}"
        raise InputError(f"{history.source}: {found}, such as {first}; {_FEW}")


def _check_places(customers: Path, out: Path) -> None:
    """Raises `InputError` where a file is absent, of another kind, or would be written over the input."""
    require_ending(customers)
    if out.suffix.lower() not in (".parquet", ".csv"):
        raise InputError(f"{out}: found the ending {out.suffix!r}; allowed: .parquet, .csv")
    if not customers.is_file():
        raise InputError(absent(customers))
    for path in (out, rejected_file(out)):
        if path.is_dir():
            raise InputError(f"{path}: found a folder; allowed: a file to write, there or not yet")
        if path.exists() and path.samefile(customers):
            raise InputError(f"{path}: found the file with the customers; allowed: another one to write to")


def _job(run: Path, files: Mapping[str, Path | None], **options: object) -> dict[str, Any]:
    """All that decides what is written. Taken before anything is read: what is read is never older than that."""
    return {
        **{name: fingerprint(path) for name, path in files.items()},
        "model": fingerprint(run / "model.json"),  # where the checksum of the model's numbers stands
        **options,
        "portions": (CUSTOMERS, PLACES),
        "columns": RECOMMENDED,
        "pyarrow": getattr(arrow, "__version__", ""),
        **environment(),
    }


def _score(
    source: Source, request: Mapping[str, Any], parts: Parts, counts: Counts, progress: Callable[..., None]
) -> None:
    """Streams the customers that are left through the model into parts, and counts."""
    places = min(request["top_n"], len(source.rec.product_ids))
    # A power of two: the recommender pads to one.
    size = 1 << (max(1, min(CUSTOMERS, PLACES // places)).bit_length() - 1)
    portions = islice(source.portions(size), -(-counts.rows // size), None)
    portion = next(portions, None)
    quickly = arrow.ipc.IpcWriteOptions(compression="lz4")

    def fill(stream: IO[bytes]) -> None:
        nonlocal portion
        began = time.monotonic()
        while portion is not None:
            table = source.read(portion, counts.rows)
            rows, ranking, reasons = rank(source, table, request, counts)
            found = rejected = None
            if ranking is not None:
                found = recommended(source, portion, table, rows, ranking)
                counts.recommendations += found.num_rows
            if reasons:
                rejected = _with_reasons(source, portion, table, reasons)
                row, reason = next(iter(reasons.items()))
                counts.first = counts.first or f"row {table.number(row):,}: {reason}"
            for schema, rows_of in zip(_schemas(source), (found, rejected), strict=True):
                with arrow.ipc.new_stream(stream, schema, options=quickly) as writer:
                    if rows_of is not None:
                        writer.write_table(rows_of)
            counts.rejected += len(reasons)
            counts.rows += portion.num_rows
            progress(counts.rows, source.total)
            portion = next(portions, None)
            if time.monotonic() - began >= SECONDS:
                return

    while portion is not None:
        parts.add(fill, lambda: asdict(counts))


def _write(source: Source, parts: Parts, out: Path, counts: Counts) -> None:
    """Writes the two files of all parts, Parquet with a row group for each portion, and then gives them their names."""
    side = rejected_file(out)
    made = [parts.folder / path.name for path in (out, side)]  # with the parts, where a killed process may leave them

    def copy(*streams: IO[bytes]) -> None:
        with ExitStack() as stack:
            pairs = zip(streams, _schemas(source), strict=True)
            if out.suffix.lower() == ".csv":
                writers = [_sheet(*pair, marked=source.of_spreadsheet) for pair in pairs]
            else:
                writers = [stack.enter_context(parquet.ParquetWriter(*pair)).write_table for pair in pairs]
            for path in parts.files:
                with path.open("rb") as part:
                    while part.peek(1):
                        for write in writers:
                            table = arrow.ipc.open_stream(part).read_all()
                            if table.num_rows:
                                write(table)

    replace_file(made[0], lambda best: replace_file(made[1], lambda rejected: copy(best, rejected)))
    for path in (out, side) if counts.rejected else (out,):
        stopping.written.setdefault(path, path.exists())
    if counts.rejected:
        made[1].replace(side)
    else:
        side.unlink(missing_ok=True)
    made[0].replace(out)
    sync_folder(out.parent)


def _sheet(stream: IO[bytes], schema: Any, *, marked: bool) -> Callable[[Any], None]:
    """Writes Arrow tables as CSV for people: the header at once, the rows of each table when it is called."""
    stream.write(sheet_text([schema.names]).encode("utf-8-sig" if marked else "utf-8"))

    def write(table: Any) -> None:
        rows = zip(*map(values, table.columns), strict=True)
        stream.write(sheet_text(["" if one is None else one for one in row] for row in rows).encode())

    return write


def rank(
    source: Source, table: Table, request: Mapping[str, Any], counts: Counts
) -> tuple[Sequence[int], Ranking | None, dict[int, str]]:
    """The rows that can be used, what is recommended to them, and why each of the others can't be; counts purchases."""
    checked = table.collecting()
    if source.id:
        checked.ids(source.id)
    bought = source.purchases(checked)
    reasons = checked.problems or {}

    def of_the_others() -> tuple[list[int], Ranking | None]:
        rows = [row for row in range(len(table)) if row not in reasons]
        if not rows:
            return rows, None
        lists = [bought[row] for row in rows]
        return rows, source.rec.rank_batch(table.select(rows), purchased_products=lists, **request)

    try:
        rows, ranking = of_the_others()
    except InputError:
        more = source.rec.model.customers.problems(table)
        if not set(more) - set(reasons):
            raise  # it is not about rows
        reasons = {**more, **reasons}
        rows, ranking = of_the_others()
    for known, numbers in ((counts.unknown, False), (counts.unseen, True)):
        for name, (lost, said) in source.unknown(table, rows, numbers=numbers).items():
            before, first = known.get(name, (0, said))
            known[name] = before + lost, first
    history = source.rec.history
    for row in rows:
        nowhere = source.rec.unmatched(bought[row])
        unmatched = [one for one in nowhere if history is None or one not in history.products]
        counts.bought += len(bought[row])
        counts.known += len(nowhere) < len(bought[row])
        counts.unmatched += len(unmatched)
        if unmatched and not counts.first_unmatched:
            first = f"{shown(unmatched[0])}{nearest_id(str(unmatched[0]), source.rec.product_ids)}"
            counts.first_unmatched = f"row {table.number(row):,}: {first}"
        stranger = history.stranger(table.columns[source.id][row]) if history is not None and source.id else ""
        counts.strangers += bool(stranger)
        counts.first_stranger = counts.first_stranger or stranger
    if ranking is not None:
        goods = "products"
        if request["categories"]:
            goods += " of the categories asked for"
        if request["available"] is not None:
            goods += " that are available"
        for place in np.flatnonzero((ranking.products < 0).all(axis=1)).tolist():
            why = f"all {goods} were bought already" if bought[rows[place]] else f"there are no {goods}"
            reasons[rows[place]] = f"no product remains: {why}"
    return rows, ranking, dict(sorted(reasons.items()))


def _schemas(source: Source) -> tuple[Any, Any]:
    """The columns of OUT: the customer's id as in the input, or the row's number, and what is recommended.

    And those of the side file: those of the input, the row's number, and the reason.
    """

    customer = ("row", arrow.int64())
    if source.id:
        customer = (source.id, source.schema.field(source.names.index(source.id)).type)
    product = arrow.dictionary(arrow.int32(), arrow.string())
    types = (arrow.int32(), product, *[arrow.float32()] * 3)
    told = [(name, column.type) for name, column in source.told.items()]
    taken = [*RECOMMENDED, *source.told]
    best = [(free(customer[0], taken), customer[1]), *zip(RECOMMENDED, types, strict=True), *told]
    rejected = source.schema
    for name, kind in {"row": arrow.int64(), "reason": arrow.string()}.items():  # a corrected side file has these names
        rejected = rejected.append(arrow.field(free(name, rejected.names), kind))
    return arrow.schema(best), rejected


def recommended(source: Source, portion: Any, table: Table, rows: Sequence[int], ranking: Ranking) -> Any:
    """The rows of OUT for these customers."""
    place_of, places = np.nonzero(ranking.products >= 0)
    products, codes = np.unique(ranking.products[place_of, places], return_inverse=True)
    row_of = np.asarray(rows, np.int64)[place_of]
    columns = [
        _taken(portion.select([source.names.index(source.id)]), row_of)[0]
        if source.id
        else arrow.array(row_of + table.number(0)),
        arrow.array(places.astype(np.int32) + 1),
        # Only the products of this portion: Parquet writes a row group's whole dictionary.
        arrow.DictionaryArray.from_arrays(
            arrow.array(codes.astype(np.int32)),
            arrow.array([source.rec.product_ids[product] for product in products.tolist()], arrow.string()),
        ),
        *(arrow.array(each[place_of, places]) for each in (ranking.scores, ranking.popularity, ranking.boosts)),
        *(column.take(arrow.array(ranking.products[place_of, places])) for column in source.told.values()),
    ]
    return arrow.Table.from_arrays(columns, schema=_schemas(source)[0])


def _with_reasons(source: Source, portion: Any, table: Table, reasons: Mapping[int, str]) -> Any:
    """The rows of the side file."""
    numbers = arrow.array([table.number(row) for row in reasons], arrow.int64())
    columns = _taken(portion, np.fromiter(reasons, np.int64)).columns
    added = [numbers, arrow.array(reasons.values(), arrow.string())]
    return arrow.Table.from_arrays([*columns, *added], schema=_schemas(source)[1])


def _taken(table: Any, rows: Int[np.ndarray, " n"]) -> Any:
    """The given rows of an Arrow table. Of views, such as `string_view`, Arrow can slice rows, and not take them."""
    try:
        return table.take(arrow.array(rows))
    except arrow.ArrowNotImplementedError:
        return arrow.concat_tables([table[row : row + 1] for row in rows.tolist()])
