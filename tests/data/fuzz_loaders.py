"""A coverage-guided fuzz of the loaders, with atheris: whatever the bytes, a dataset whose rows add up, or a sentence.

atheris is no dependency of this project, and the gate does not run this file; tests/test_bad_data.py asks the same of
random files there. In a virtual environment with this project:

    pip install atheris
    python tests/data/fuzz_loaders.py json -max_total_time=300

What is fuzzed: toml (dataset.toml, personas.toml and boosts.toml in turn), json, csv or parquet (each file as products,
as customers, as purchases and as reviews), or values (the same of JSON files that are right but for some values).
What follows goes to libFuzzer: -runs=N, -seed=N, a folder for the corpus.
A finding ends it with the traceback, and the bytes lie in crash-... in the working directory.
"""

import csv
import io
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["recsys_jax"]):
    from recsys_jax.data.dataset import Dataset, assemble, load_dataset, read_products
    from recsys_jax.data.features import FeatureSpace
    from recsys_jax.data.schema import Schema
    from recsys_jax.data.tables import Table
    from recsys_jax.data.tabular.readers import read_table
    from recsys_jax.errors import InputError
    from recsys_jax.personas.catalogue import read_catalogue, shipped
    from recsys_jax.personas.customers import read_reviews
    from recsys_jax.personas.profiles import parse_profile, profile_of_text
    from recsys_jax.serving.boosts import meets, read_boosts

from conftest import FILMS_TOML, MALL_TOML, mall_customers, mall_products

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
CATALOGUE = """\
[[persona]]
name = "Dew"
description = "Moist"
keywords = ["moist", "dry"]
skin_type = "dry"
skin_concern = "moisture"
age = [20, 40]
female_share = 0.8
"""
BOOSTS = """\
[[boost]]
name = "dry"
customer = { skin_type = "dry", age = { min = 20, max = 40 } }
product = { category = [97, "Makeup"] }
add = 0.1
"""
MANY = 2


def spaces() -> tuple[FeatureSpace, FeatureSpace]:
    """The mall's features, for boost rules."""
    schema = Schema.read(FOLDER / "dataset.toml")
    products, customers = Table.of(mall_products(), "products"), Table.of(mall_customers(), "customers")
    return FeatureSpace.fit(schema.customers.features, customers), FeatureSpace.fit(schema.products.features, products)


def rows_of(content: bytes, ending: str) -> int:
    """How many rows there are in a file that was read, counted without the loaders."""
    if ending == "parquet":
        from pyarrow import BufferReader, parquet

        return parquet.read_metadata(BufferReader(content)).num_rows
    text = content.decode("utf-8-sig")
    return len(json.loads(text)) if ending == "json" else sum(map(bool, csv.reader(io.StringIO(text, newline="")))) - 1


def check(dataset: Dataset, rows: int | None = None) -> None:
    """The rows of a dataset add up, each that is not used has a reason, and what is used can be encoded and written.

    `rows` is how many there are in the file that was fuzzed, which is the last one with rows set aside, if any is.
    """
    for one in dataset.validations:
        assert one.read == one.used + len(one.set_aside), one
        assert len(one.set_aside) * 10 <= one.read, one
        assert all(row.reason.strip() for row in one.set_aside), one
        assert len({row.row for row in one.set_aside}) == len(one.set_aside), one
    assert rows is None or rows in {one.read for one in dataset.validations}, (rows, dataset.validations)
    schema = dataset.schema
    shown = (schema.products.name, schema.products.brand, schema.products.category)
    texts = [*dataset.product_ids, *dataset.customer_ids, *(dataset.segments or []), *dataset.notes]
    texts += [value for name in shown if name for value in dataset.products.column(name) if isinstance(value, str)]
    "".join([*texts, *map(str, dataset.set_aside)]).encode()
    sides = ((dataset.products, dataset.schema.products), (dataset.customers, dataset.schema.customers))
    for table, part in sides:
        FeatureSpace.fit(part.features, table).encode(table)


def check_reviews(folder: Path, schema: Schema) -> None:
    """Reads the reviews; they add up, and what they state is understood."""
    reviews = read_reviews(folder, schema)
    assert reviews.validation is not None
    assert reviews.validation.read == len(reviews) + len(reviews.validation.set_aside)
    for text, profile in zip(reviews.texts, reviews.profiles, strict=True):
        assert text.encode() is not None
        parse_profile(profile, shipped().attributes, "ko")
        profile_of_text(text, shipped().attributes, "ko")


def dataset_folder(ending: str) -> Path:
    """The mall three times as large, in files of this ending, with a table of purchases beside the column."""
    folder = FOLDER / ending
    folder.mkdir(exist_ok=True)
    for name, toml in (("mall", MALL_TOML), ("bought", MALL_TOML)):
        (folder / name).mkdir(exist_ok=True)
        toml = toml.replace(".json", f".{ending}")
        if name == "bought":
            toml = toml.replace('purchases = "purchased_product_id"\n', "")
            toml += (
                f'[interactions]\nfile = "bought.{ending}"\ncustomer = "user_id"\nproduct = "product_id"\ndate = "d"\n'
            )
        (folder / name / "dataset.toml").write_text(toml, encoding="utf-8")
        for file, rows in good_rows().items():
            (folder / name / f"{file}.{ending}").write_bytes(written(rows, ending))
    return folder


def good_rows() -> dict[str, list[dict]]:
    """The rows of products, customers and purchases, several times over so that one bad one in ten is set aside."""
    products = [{**row, "product_id": f"{row['product_id']}.{n}"} for n in range(MANY) for row in mall_products()]
    customers = [
        {**row, "user_id": f"{row['user_id']}.{n}", "purchased_product_id": f"{row['purchased_product_id']}.{n}"}
        for n in range(MANY)
        for row in mall_customers()
    ]
    bought = [
        {"user_id": row["user_id"], "product_id": row["purchased_product_id"], "d": "2024-03-01"} for row in customers
    ]
    return {"products": products, "customers": customers, "bought": bought}


def written(rows: list[dict], ending: str) -> bytes:
    """The rows as a file."""
    if ending == "json":
        return json.dumps(rows).encode()
    if ending == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, [name for name in rows[0] if name != "reviews"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue().encode()
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def allow(call: Callable[[], object]) -> None:
    """Calls; an `InputError` is a sentence, and anything else a finding."""
    try:
        call()
    except InputError as error:
        if not str(error).strip():
            raise AssertionError("an error without a word") from error


def of_tables(ending: str) -> Callable[[bytes], None]:
    """Takes the bytes as each of the three tables in turn."""
    folder = dataset_folder(ending)
    mall, bought = (Schema.read(folder / name / "dataset.toml") for name in ("mall", "bought"))
    products, ids = read_products(folder / "mall", mall)
    customers = read_table(folder / "mall" / f"customers.{ending}")
    (folder / "fuzzed").mkdir(exist_ok=True)

    def one(content: bytes) -> None:
        for name in ("products", "customers", "bought"):
            (folder / "fuzzed" / f"{name}.{ending}").write_bytes(content)
        here = folder / "fuzzed"

        def as_products() -> None:
            check(assemble(mall, *read_products(here, mall), customers, here), rows_of(content, ending))

        def as_customers() -> None:
            table = read_table(here / f"customers.{ending}")
            check(assemble(mall, products, ids, table, here), rows_of(content, ending))

        def as_purchases() -> None:
            check(assemble(bought, products, ids, customers, here), rows_of(content, ending))

        for call in (as_products, as_customers, as_purchases):
            allow(call)
        if ending != "csv":  # which has no lists
            allow(lambda: check_reviews(here, mall))

    return one


def of_toml(ending: str) -> Callable[[bytes], None]:
    """Takes the bytes as a dataset.toml beside tables of two shops, as a catalogue, and as boost rules."""
    folder = dataset_folder("json") / "mall"
    (FOLDER / "dataset.toml").write_text(MALL_TOML, encoding="utf-8")
    customers, products = spaces()

    customer_rows, product_rows = Table.of(mall_customers(), "customers"), Table.of(mall_products(), "products")

    def boosts(path: Path) -> None:
        for rule in read_boosts(path, customers, products):
            meets([rule.customer], customers, customer_rows)
            meets([rule.product], products, product_rows)

    def one(content: bytes) -> None:
        (folder / "dataset.toml").write_bytes(content)
        allow(lambda: check(load_dataset(folder)))
        allow(lambda: read_catalogue(folder / "dataset.toml"))
        allow(lambda: boosts(folder / "dataset.toml"))

    return one


def of_values(ending: str) -> Callable[[bytes], None]:
    """Takes the bytes as changes to values of right tables, which JSON holds."""
    as_table = of_tables("json")

    def one(content: bytes) -> None:
        draw = atheris.FuzzedDataProvider(content)
        rows = pick(draw, list(good_rows().values()))
        for _ in range(1 + draw.ConsumeUInt(1) % 3):
            row = pick(draw, rows)
            name = pick(draw, list(row))
            row[name] = value(draw)
            if name == "reviews" and draw.ConsumeBool():
                row[name] = [{"content": value(draw), "profile_info": value(draw)}]
        as_table(json.dumps(rows).encode())

    return one


def pick(draw: atheris.FuzzedDataProvider, values: Sequence[Any]) -> Any:
    """One of the values by one byte, so that few bytes say much."""
    return values[draw.ConsumeUInt(1) % len(values)]


# What loaders have reason to treat in a way of its own.
VALUES = ("p1.0", "u1.0", " p1.1 ", "32", "nan", "-1", "1e999", "2024-13-01", "dry", "\ud800", "a\0", 10**400, math.nan)


def value(draw: atheris.FuzzedDataProvider, depth: int = 2) -> object:
    """Anything that JSON can hold, and what Python writes there beside it."""
    kinds: list[Callable[[], object]] = [
        lambda: None,
        draw.ConsumeBool,
        lambda: draw.ConsumeInt(4),
        draw.ConsumeFloat,
        lambda: draw.ConsumeUnicode(draw.ConsumeUInt(1) % 20),
        lambda: pick(draw, VALUES),
        lambda: [value(draw, depth - 1) for _ in range(draw.ConsumeUInt(1) % 4)],
        lambda: {draw.ConsumeUnicode(3): value(draw, depth - 1)},
    ]
    return pick(draw, kinds if depth else kinds[:-2])()


def seeds(kind: str) -> list[bytes]:
    """Files that are right, to begin with."""
    if kind == "toml":
        return [text.encode() for text in (MALL_TOML, FILMS_TOML, CATALOGUE, BOOSTS)]
    if kind == "values":
        return [bytes(range(first, first + 64)) for first in (0, 64, 128)]
    return [written(rows, kind) for rows in good_rows().values()]


def main() -> None:
    """Fuzzes what the first argument names."""
    kind = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    makers = {"toml": of_toml, "json": of_tables, "csv": of_tables, "parquet": of_tables, "values": of_values}
    if kind not in makers:
        sys.exit(f"found {kind!r}; allowed: {', '.join(makers)}")
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds(kind)):
        (corpus / str(number)).write_bytes(content)
    atheris.Setup([*sys.argv, str(corpus)], makers[kind](kind))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
