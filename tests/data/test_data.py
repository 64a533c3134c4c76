"""Tables in: three file kinds that mean the same, whatever is wrong with them, who bought what, and folds."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.data.dataset import load_dataset, read_products
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import customer_folds
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.data.values import parse_date
from recsys_jax.errors import InputError
from recsys_jax.personas.customers import read_reviews


def says(call, *words: str) -> str:
    """The call must raise `InputError` with these words in it."""
    with pytest.raises(InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def change(path: Path, edit) -> None:
    """Rewrites a JSON file: `edit` changes the rows in place or returns others."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(edit(rows) or rows), encoding="utf-8")


def bought(dataset) -> list[tuple[str, str]]:
    return [(dataset.customer_ids[c], dataset.product_ids[p]) for c, p in dataset.purchases.tolist()]


# Tables from Python


def test_frames_columns_and_dicts_are_the_same_table():
    columns = {"a": [1, 2], "b": ["x", None]}
    rows = [{"a": 1, "b": "x"}, {"a": 2}]
    for given_ in (columns, rows, tuple(rows), pa.table(columns), pd.DataFrame(columns, dtype=object)):
        table = Table.of(given_, "t")
        assert {name: list(column) for name, column in table.columns.items()} == columns
        assert len(table) == 2


@pytest.mark.parametrize("rows", [None, 3, "abc", b"", "", {1, 2}, [1], [{"a": 1}, 2], object()])
def test_what_is_no_table(rows):
    says(lambda: Table.of(rows, "the rows"), "the rows", "allowed", "list of dicts")


def test_columns_of_different_length():
    says(lambda: Table.of({"a": [1], "b": [1, 2]}, "the rows"), "the rows", "length", "'a'", "'b'")


@pytest.mark.parametrize("columns", [{"age": 32}, {"age": [32], "gender": "F"}, {"age": None}])
def test_a_single_dict_is_not_columns(columns):
    """The natural slip of giving one row instead of a list of rows."""
    says(lambda: Table.of(columns, "the rows"), "the rows")


def test_rows_without_any_column_are_still_rows():
    assert len(Table.of([{}, {}], "t")) == 2


def test_keys_that_are_no_texts():
    says(lambda: Table.of([{1: 2}], "t").column("age"), "t", "'age'", "1")


# Files


ROWS = [
    {"id": 1, "name": "수분 크림", "price": 12.5, "note": 'a "quoted", text\nof two lines'},
    {"id": 2, "name": "café", "price": None, "note": None},
    {"id": 3, "name": " spaced ", "price": 0.0, "note": "x"},
]
FEATURES = {"unknown": "extra-row", "missing": "extra-row", "kind": "categorical", "values": "learned"}
SCHEMA = Schema.parse(
    {
        "name": "t",
        "products": {
            "file": "t",
            "id": "id",
            "features": [
                {"name": "name", **FEATURES},
                {"name": "note", **FEATURES},
                {"name": "price", "kind": "numeric", "unknown": "error", "missing": "flag"},
            ],
        },
        "customers": {"id": "id", "purchases": "b", "features": [{"name": "x", **FEATURES}]},
    },
    "t",
)


def test_json_csv_and_parquet_mean_the_same(tmp_path):
    frame = pd.DataFrame(ROWS, dtype=object)
    paths = [tmp_path / name for name in ("t.json", "t.csv", "t.parquet", "T2.JSON", "pandas.csv")]
    paths[0].write_text(json.dumps(ROWS), encoding="utf-8")
    paths[1].write_text(
        'id,name,price,note\n1,수분 크림,12.5,"a ""quoted"", text\nof two lines"\n2,café,,\n3, spaced ,0,x\n',
        encoding="utf-8",
    )
    parquet.write_table(pa.Table.from_pylist(ROWS), paths[2])
    paths[3].write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")
    frame.to_csv(paths[4], index=False)
    for path in paths:
        table = read_table(path)
        assert list(table.columns) == ["id", "name", "price", "note"]
        assert table.ids("id") == ["1", "2", "3"]
        space = FeatureSpace.fit(SCHEMA.products.features, table)
        assert space["name"].values == ("수분 크림", "café", "spaced")
        assert space["note"].values == ('a "quoted", text\nof two lines', "x")
        encoded = space.encode(table)
        assert encoded["name"].tolist() == [0, 1, 2]
        assert encoded["note"].tolist() == [0, 3, 1]  # two values, then the unknown's row, then the missing's
        mean = (12.5 + 0.0) / 2
        assert encoded["price"].tolist() == [[12.5, 0], [mean, 1], [0, 0]]


@pytest.mark.wild
@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "T.NDJSON"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n  \n"])
def test_an_object_on_each_line(tmp_path, name, end):
    rows = [{"id": 1, "text": "a\u2028b\x85c } {"}, {"id": 2}, {"id": None, "x": float("nan")}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + end.join([*lines, ""]).encode())
    table = read_table(tmp_path / name)
    assert table.columns == {"id": [1, 2, None], "text": ["a\u2028b\x85c } {", None, None], "x": [None, None, None]}


@pytest.mark.wild
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.jsonl", '{"id": 1}\n{"id": 2', "t.jsonl, line 2: not valid JSON: "),
        ("t.json", '{"id": 1}\n\n{"id": 2}}', "t.json, line 3: not valid JSON: "),
        ("t.jsonl", '[\n{"id": 1}\n]', "t.jsonl: found JSON: let its name end in .json; allowed: JSON Lines"),
        ("t.jsonl", "id\n1", "t.jsonl, line 1: not valid JSON: "),
        ("t.jsonl", '{"id": 1}\n[2]', "t.jsonl, row 2: found [2]; allowed: an object with the columns as keys"),
        ("t.jsonl", '{"id": 1, "id": 2}\n{"id": 1}', "t.jsonl, row 1: found the key 'id' twice; allowed: each once"),
        ("t.json", '{\n"id": 1\n}\n{\n"id": 2\n}', "t.json: not valid JSON: Extra data"),
    ],
)
def test_lines_that_are_no_objects(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content, "utf-8")
    says(lambda: read_table(tmp_path / name), sentence)


@pytest.mark.parametrize("name", ["t.json", "t.csv"])
def test_a_byte_order_mark_is_passed_over(tmp_path, name):
    text = '[{"id": 1}]' if name == "t.json" else "id\n1\n"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_table(tmp_path / name).ids("id") == ["1"]


def test_windows_line_ends(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"id,name\r\n1,a\r\n2,b\r\n")
    table = read_table(tmp_path / "t.csv")
    assert table.ids("name") == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.json", b'[{"a": "caf\x81"}]', ["line 1", "UTF-8"]),
        ("t.csv", b"a\ncaf\x81\n", ["line 2", "UTF-8"]),
        ("t.json", b'[{"a": 1}', ["JSON"]),
        ("t.json", b"", ["JSON"]),
        ("t.json", b"[" * 100_000, ["JSON"]),
        ("t.json", b'[{"a": ' + b"9" * 5000 + b"}]", ["JSON"]),
        ("t.json", b'{"a": 1}', ["dict", "list"]),
        ("t.json", b"3", ["int", "list"]),
        ("t.json", b"null", ["NoneType", "list"]),
        ("t.json", b'[{"a": 1}, 3]', ["row 2", "3", "object"]),
        ("t.csv", b"a,b,a\n1,2,3\n", ["a, b, a", "same name"]),
        ("t.csv", b"a,b\n1,2\n1\n", ["row 2", "1 values", "2"]),
        ("t.csv", b"a,b\n1,2,3\n", ["row 1", "3 values", "2"]),
        ("t.csv", b'a,b\n1,"2\n', ["CSV"]),
        ("t.parquet", b"PAR1 and then nothing", ["Parquet"]),
        ("t.parquet", b"", ["Parquet"]),
        ("t.txt", b"a\n1\n", ["'.txt'", ".json, .jsonl, .ndjson, .csv, .tsv, .parquet"]),
        ("t", b"a\n1\n", ["''", ".json, .jsonl, .ndjson, .csv, .tsv, .parquet"]),
        ("t.json.gz", b"a", ["'.gz'", ".json, .jsonl, .ndjson, .csv, .tsv, .parquet"]),
    ],
)
def test_a_bad_file_is_a_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    says(lambda: read_table(path), str(path), *words)


@pytest.mark.parametrize("name", ["t.json", "t.csv", "t.parquet"])
def test_absent_files_and_folders(tmp_path, name):
    says(lambda: read_table(tmp_path / name), str(tmp_path / name), "no such file")
    (tmp_path / name).mkdir()
    says(lambda: read_table(tmp_path / name), str(tmp_path / name))


@settings(deadline=None, max_examples=80)
@given(name=st.sampled_from(["t.json", "t.csv", "t.parquet"]), content=st.binary(max_size=60))
def test_no_bytes_raise_anything_else(tmp_path_factory, name, content):
    path = tmp_path_factory.getbasetemp() / f"bytes-{name}"
    path.write_bytes(content)
    try:
        rows = len(read_table(path))
    except InputError as error:
        rows = len(str(error))
    assert rows >= 0


def test_a_folders_name_adds_no_column(tmp_path):
    """Parquet readers take run=1/ for a partition."""
    folder = tmp_path / "run=1"
    folder.mkdir()
    parquet.write_table(pa.table({"id": [1]}), folder / "t.parquet")
    assert list(read_table(folder / "t.parquet").columns) == ["id"]


# Products, customers, purchases


def test_the_mall(mall):
    dataset = load_dataset(mall)
    assert dataset.product_ids == ["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"]
    assert dataset.customer_ids == [f"u{n}" for n in range(1, 11)]
    assert bought(dataset) == [
        ("u1", "p1"),
        ("u2", "p2"),
        ("u3", "p8"),
        ("u4", "p8"),
        ("u5", "p5"),
        ("u6", "p7"),
        ("u7", "p2"),
        ("u8", "p4"),
        ("u9", "p3"),
        ("u10", "p6"),
    ]
    assert dataset.segments == ["Dew", "Dew", "Gold", "Gold", "Gift", "Gift", "Calm", "Calm", "Again", "Smooth"]
    assert dataset.categories == ["97", "97", "98", "98", "99", "101", "103", "97"]
    assert dataset.notes == []


def test_a_repeated_product(mall):
    change(mall / "products.json", lambda rows: rows.append(rows[1]))
    says(lambda: load_dataset(mall), "products.json, row 9", "product_id", "'p2'", "row 2")


def test_a_product_without_an_id(mall):
    change(mall / "products.json", lambda rows: rows[3].update(product_id=" "))
    says(lambda: load_dataset(mall), "products.json, row 4", "product_id", "' '", "empty")


def test_a_missing_product_id_column(mall):
    change(mall / "products.json", lambda rows: [{"name": row["product_name"]} for row in rows])
    says(lambda: load_dataset(mall), "products.json", "'product_id'", "missing", "name")


def test_no_products(mall):
    (mall / "products.json").write_text("[]")
    says(lambda: load_dataset(mall), "products.json", "no products")


def test_no_customers(mall):
    (mall / "customers.json").write_text("[]")
    says(lambda: load_dataset(mall), "customers.json")
    (mall / "customers.csv").write_text("user_id,purchased_product_id\n")
    says(lambda: load_dataset(mall, mall / "customers.csv"), "customers.csv", "no customers")


@pytest.mark.parametrize("empty", [None, "", [], float("nan")])
def test_no_purchases(mall, empty):
    change(mall / "customers.json", lambda rows: [dict(row, purchased_product_id=empty) for row in rows])
    says(lambda: load_dataset(mall), "customers.json", "purchases")


def test_a_purchase_of_no_product(mall):
    change(mall / "customers.json", lambda rows: [row.update(purchased_product_id="p99") for row in rows[2:4]] and rows)
    says(lambda: load_dataset(mall), "customers.json, row 3", "purchased_product_id", "'p99'", "products.json")


def test_a_missing_purchases_column(mall):
    change(
        mall / "customers.json",
        lambda rows: [{name: row[name] for name in ("user_id", "persona_name")} for row in rows],
    )
    says(lambda: load_dataset(mall), "customers.json", "'purchased_product_id'", "missing")


def test_a_repeated_customer(mall):
    change(mall / "customers.json", lambda rows: [row.update(user_id="u1") for row in rows[4:6]] and rows)
    says(lambda: load_dataset(mall), "customers.json, row 5", "user_id", "'u1'", "row 1")


def test_a_schema_without_a_customer_file(mall):
    toml = mall / "dataset.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace('file = "customers.json"\n', ""), encoding="utf-8")
    says(lambda: load_dataset(mall), "dataset.toml", "[customers]", "recsys-jax personas")
    assert load_dataset(mall, mall / "customers.json").customer_ids[0] == "u1"


def test_absent_files(mall):
    (mall / "customers.json").unlink()
    says(lambda: load_dataset(mall), "customers.json", "no such file")
    (mall / "products.json").unlink()
    says(lambda: load_dataset(mall), "products.json", "no such file")
    (mall / "dataset.toml").unlink()
    says(lambda: load_dataset(mall), "dataset.toml", "no such file")


def test_another_customer_file(mall):
    """The published customers.json has these columns, and more that nothing reads."""
    rows = [
        {
            "user_id": "a",
            "persona_id": 3,
            "persona_name": "Dew",
            "age": 27,
            "gender": "F",
            "skin_type": "mature",
            "skin_concern": "gift",
            "purchased_product_id": "p3",
            "product_category": 98,
            "review": ["anything", {"at": "all"}],
        },
        {
            "user_id": "b",
            "persona_id": 4,
            "persona_name": "Gold",
            "age": 57,
            "gender": "M",
            "skin_type": "unknown",
            "skin_concern": "texture",
            "purchased_product_id": "p8",
            "product_category": 97,
        },
    ]
    other = mall / "published.json"
    other.write_text(json.dumps(rows), encoding="utf-8")
    dataset = load_dataset(mall, other)
    assert bought(dataset) == [("a", "p3"), ("b", "p8")]
    assert dataset.segments == ["Dew", "Gold"]
    encoded = FeatureSpace.fit(dataset.schema.customers.features, dataset.customers).encode(dataset.customers)
    assert encoded["skin_type"].tolist() == [3, 4]


def repeated(folder: Path, rows: list[dict], first: bool = True) -> Path:
    """The mall with these customers, each of whose rows may be one of several."""
    toml = folder / "dataset.toml"
    if first:
        text = toml.read_text(encoding="utf-8").replace('id = "user_id"', 'id = "user_id"\nrepeated = "first"')
        toml.write_text(text, encoding="utf-8")
    (folder / "customers.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def customer(user_id: str, product: object, **attributes: object) -> dict:
    known = {"age": 30, "gender": "F", "skin_type": "dry", "skin_concern": "gift", "persona_name": "P"}
    return {"user_id": user_id, **known, **attributes, "purchased_product_id": product}


def test_repeated_customers_are_their_first_row(mall):
    rows = [
        customer("a", "p1", age=20),
        customer("b", "p2", age=40),
        customer("a", "p3", age=25),  # differs from a's first row
        customer("b", "p4", age=40),
        customer("a", "p1", age=20),  # the first purchase again
    ]
    dataset = load_dataset(repeated(mall, rows))
    assert dataset.customer_ids == ["a", "b"]
    assert list(dataset.customers.column("age")) == [20, 40]
    assert bought(dataset) == [("a", "p1"), ("a", "p3"), ("b", "p2"), ("b", "p4")]
    note, other = dataset.notes
    assert "customers.json" in note
    assert "5 rows of 2 customers" in note
    assert "1 have rows that differ" in note
    assert "1 purchases repeat" in other


def test_rows_that_lack_the_same_number_do_not_differ(mall):
    """NaN is not equal to itself, but two rows that both lack an age agree."""
    toml = mall / "dataset.toml"
    text = toml.read_text(encoding="utf-8")
    at = text.index("max = 120")
    toml.write_text(text[:at] + text[at:].replace('missing = "error"', 'missing = "flag"'), encoding="utf-8")
    rows = [customer("a", "p1", age=float("nan")), customer("a", "p2", age=float("nan"))]
    (note,) = load_dataset(repeated(mall, rows)).notes
    assert "0 have rows that differ" in note


def test_errors_after_repeated_rows_name_the_files_row(mall):
    rows = [customer("a", "p1"), customer("a", "p2"), customer("b", "p3", age=44)]
    customers = load_dataset(repeated(mall, rows)).customers
    says(lambda: customers.refuse(1, "age", "another"), "customers.json, row 3, age: found 44; allowed: another")
    rows[2]["age"] = -4
    says(lambda: load_dataset(repeated(mall, rows, first=False)), "customers.json, row 3, age: found -4", "1 of 3 rows")


def test_several_purchases_in_one_cell(mall):
    rows = [customer("a", ["p3", "p1", "p3"]), customer("b", "p2"), customer("c", None), customer("d", [])]
    dataset = load_dataset(repeated(mall, rows, first=False))
    assert bought(dataset) == [("a", "p1"), ("a", "p3"), ("b", "p2")]
    assert dataset.customer_ids == ["a", "b", "c", "d"]
    assert "1 purchases repeat" in dataset.notes[0]


def test_separated_purchases_in_one_cell(mall):
    toml = mall / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace('id = "user_id"', 'id = "user_id"\nseparator = "|"')
    toml.write_text(text, encoding="utf-8")
    rows = [customer("a", "p3|p1"), customer("b", " p2 || p4"), customer("c", "")]
    dataset = load_dataset(repeated(mall, rows, first=False))
    assert bought(dataset) == [("a", "p1"), ("a", "p3"), ("b", "p2"), ("b", "p4")]


def test_purchases_as_a_table_and_as_a_column_are_the_same(mall):
    column = load_dataset(mall)
    toml = mall / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace('purchases = "purchased_product_id"\n', "")
    toml.write_text(text + '\n[interactions]\nfile = "who.csv"\ncustomer = "c"\nproduct = "p"\n', encoding="utf-8")
    pairs = bought(column)
    (mall / "who.csv").write_text("p,c\n" + "".join(f"{p},{c}\n" for c, p in reversed(pairs)))
    table = load_dataset(mall)
    assert table.purchases.tolist() == column.purchases.tolist()
    assert len(pairs) == 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("who,what\nv1,f1\nv9,f1\n", ["views.csv, row 2", "who", "'v9'", "viewers.csv"]),
        ("who,what\nv1,f9\n", ["views.csv, row 1", "what", "'f9'", "films.csv"]),
        ("who,what\nv1,\n", ["views.csv, row 1", "what"]),
        ("who,when\nv1,f1\n", ["views.csv", "'what'", "missing"]),
        ("who,what\n", ["views.csv", "purchases"]),
    ],
)
def test_a_bad_table_of_purchases(films, text, words):
    (films / "views.csv").write_text(text)
    says(lambda: load_dataset(films), *words)


def test_the_films(films):
    dataset = load_dataset(films)
    assert bought(dataset) == [
        ("v1", "f1"),
        ("v1", "f2"),
        ("v2", "f1"),
        ("v3", "f3"),
        ("v3", "f4"),
        ("v4", "f1"),
        ("v4", "f5"),
    ]
    assert dataset.segments is None
    assert dataset.categories == ["Big", "Big", "Small", "Small", "Small"]


# Dates

DAY = 86400.0
MARCH = 1709251200.0  # the first second of 2024-03-01 in UTC


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2024-03-01", MARCH),
        (" 2024-03-01\n", MARCH),
        ("2024-03-01T12:30:00", MARCH + 45000),
        ("2024-03-01 12:30", MARCH + 45000),
        ("2024-03-01T12:30:00Z", MARCH + 45000),
        ("2024-03-01T12:30:00+09:00", MARCH + 45000 - 9 * 3600),
        ("2024-02-29T23:59:59.5-01:00", MARCH + 3600 - 0.5),
        ("1969-12-31", -DAY),
        (date(2024, 3, 1), MARCH),
        (datetime(2024, 3, 1, 12, 30), MARCH + 45000),
        (datetime(2024, 3, 1, 12, 30, tzinfo=UTC), MARCH + 45000),
        (datetime(2024, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=9))), MARCH + 45000 - 9 * 3600),
        (pd.Timestamp("2024-03-01 12:30"), MARCH + 45000),
        (pd.Timestamp("2024-03-01 12:30", tz="Asia/Seoul"), MARCH + 45000 - 9 * 3600),
        (np.datetime64("2024-03-01"), MARCH),
        (np.datetime64("2024-03-01T12:30:00.25", "ns"), MARCH + 45000.25),
        (881250949, 881250949.0),
        ("881250949", 881250949.0),
        (" 881250949.5 ", 881250949.5),
        (np.int64(881250949), 881250949.0),
        (Decimal("881250949"), 881250949.0),
        (0, 0.0),
        (-1.5, -1.5),
    ],
    ids=repr,
)
def test_a_date_is_seconds_in_utc(value, seconds):
    found = parse_date(value)
    assert isinstance(found, float)
    assert found == seconds


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", " ", float("nan"), pd.NaT, pd.NA, np.datetime64("NaT", "s"), float("inf"), "inf", "nan"),
        *(True, "true", "yesterday", "01/03/2024", "2024-13-01", "2023-02-29", "2024-03-01T25:00", "12:30", [], {}),
        *([2024, 3, 1], 1709251200000, "1709251200000", 10**400, b"2024-03-01", "\ud800-03-01"),
    ],
    ids=repr,
)
def test_what_is_no_date(value):
    """Among it milliseconds since 1970, which would lie in the year 56133."""
    assert parse_date(value) is None


@given(st.datetimes(timezones=st.none() | st.timezones()))
@settings(deadline=None, max_examples=100)
def test_a_date_and_its_text_are_the_same(moment):
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - epoch).total_seconds()
    text = moment.isoformat()
    if -62135596800 <= expected < 253402300800:
        assert parse_date(moment) == parse_date(text) == expected


@given(st.text(max_size=12))
@settings(deadline=None, max_examples=200)
def test_no_text_raises_anything(text):
    assert isinstance(parse_date(text), float | None)


def dated_films(folder: Path, text: str) -> Path:
    toml = folder / "dataset.toml"
    toml.write_text(toml.read_text(encoding="utf-8") + 'date = "when"\n', encoding="utf-8")
    (folder / "views.csv").write_text(text)
    return folder


def dates(dataset) -> dict[tuple[str, str], float]:
    return dict(zip(bought(dataset), dataset.dates.tolist(), strict=True))


def test_without_the_key_there_are_no_dates(mall, films):
    assert load_dataset(mall).dates is None
    (films / "views.csv").write_text("who,what,when\nv1,f1,yesterday\n")
    assert load_dataset(films).dates is None


def test_dates_belong_to_the_pairs_and_the_first_counts(films):
    """The rows are in another order than the pairs, and a repeated pair's first date stands between later ones."""
    text = "who,what,when\nv4,f5,1970-01-05\nv1,f2,1970-01-09\nv2,f1,90\nv1,f2,1970-01-02\nv1,f2,1970-01-08\n"
    dataset = load_dataset(dated_films(films, text))
    assert dataset.dates.dtype == np.float64
    assert dates(dataset) == {("v1", "f2"): DAY, ("v2", "f1"): 90.0, ("v4", "f5"): 4 * DAY}
    assert dataset.fingerprint == load_dataset(films).fingerprint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("who,what,when\nv1,f1,5\nv2,f1,\n", ["views.csv, row 2, when: found nothing", "2024-03-01", "1970"]),
        ("who,what,when\nv1,f1,1.3.2024\n", ["views.csv, row 1, when: found '1.3.2024'", "2024-03-01T12:30:00"]),
        ("who,what\nv1,f1\n", ["views.csv", "'when'", "missing", "who, what"]),
    ],
)
def test_a_bad_date_is_a_sentence(films, text, words):
    says(lambda: load_dataset(dated_films(films, text)), *words)


def dated_mall(folder: Path, rows: list[dict], first: bool) -> Path:
    repeated(folder, rows, first)
    toml = folder / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace('id = "user_id"', 'id = "user_id"\ndate = "when"')
    toml.write_text(text, encoding="utf-8")
    return folder


def test_a_customers_date_is_that_of_all_its_purchases(mall):
    rows = [customer("b", ["p3", "p1"], when="1970-01-03"), customer("a", "p2", when=7), customer("c", None)]
    assert dates(load_dataset(dated_mall(mall, rows, first=False))) == {
        ("b", "p1"): 2 * DAY,
        ("b", "p3"): 2 * DAY,
        ("a", "p2"): 7.0,
    }  # c bought nothing, and has no date


def test_each_repeated_row_has_its_own_date(mall):
    rows = [
        customer("a", "p1", when=50),
        customer("b", "p2", when=10),
        customer("a", "p3", when=20),
        customer("a", "p1", when=40),
    ]
    assert dates(load_dataset(dated_mall(mall, rows, first=True))) == {
        ("a", "p1"): 40.0,
        ("a", "p3"): 20.0,
        ("b", "p2"): 10.0,
    }
    rows[2]["when"] = None
    (mall / "customers.json").write_text(json.dumps(rows), encoding="utf-8")
    says(lambda: load_dataset(mall), "customers.json, row 3, when: found nothing")


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ns", tz="Asia/Seoul"), pa.date32(), pa.int64()])
def test_dates_of_parquet_files(mall, kind):
    moments = [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)]
    values = [int(m.timestamp()) for m in moments] if kind == pa.int64() else moments
    if kind == pa.timestamp("us"):
        values = [m.replace(tzinfo=None) for m in moments]
    columns = {"user_id": ["a", "b"], "persona_name": ["P", "P"], "purchased_product_id": ["p1", "p2"]}
    dated_mall(mall, [], first=False)
    parquet.write_table(pa.table({**columns, "when": pa.array(values, kind)}), mall / "c.parquet")
    dataset = load_dataset(mall, mall / "c.parquet")
    assert dates(dataset) == {("a", "p1"): MARCH, ("b", "p2"): MARCH + DAY}


# Reviews


def test_reviews(mall):
    change(mall / "products.json", lambda rows: rows[0]["reviews"][1].update(profile_info="40대/남성/복합성/주름"))
    reviews = read_reviews(mall, Schema.read(mall / "dataset.toml"))
    assert len(reviews) == 7
    assert reviews.texts[:3] == ["Moist all day.", "My dry skin likes it.", "Calms my skin."]
    assert reviews.product_ids == ["p1", "p1", "p2", "p4", "p5", "p7", "p8"]
    assert reviews.profiles == [None, "40대/남성/복합성/주름", None, None, None, None, None]


@pytest.mark.parametrize(
    ("review", "words"),
    [
        ({"rating": 5}, ["nothing"]),
        ({"content": ""}, ["''"]),
        ({"content": "  \n"}, ["content"]),
        ({"content": 5}, ["5"]),
        ({"content": None}, ["nothing"]),
        ("a text", ["nothing"]),
        (None, ["nothing"]),
    ],
)
def test_a_review_without_a_text(mall, review, words):
    change(mall / "products.json", lambda rows: rows[0]["reviews"].append(review))
    schema = Schema.read(mall / "dataset.toml")
    says(lambda: read_reviews(mall, schema), "products.json, row 1, reviews 3", "content", *words)


@pytest.mark.parametrize("nested", [None, "a text", {"content": "a text"}, 5])
def test_reviews_that_are_no_list(mall, nested):
    change(mall / "products.json", lambda rows: rows[2].update(reviews=nested))
    schema = Schema.read(mall / "dataset.toml")
    says(
        lambda: read_reviews(mall, schema),
        "products.json, row 3",
        "reviews",
        repr(nested)[:20] if nested else "found nothing",
        "a list",
    )


def test_no_reviews_at_all(mall):
    schema = Schema.read(mall / "dataset.toml")
    change(mall / "products.json", lambda rows: [dict(row, reviews=[]) for row in rows])
    says(lambda: read_reviews(mall, schema), "products.json", "no reviews", "'reviews'")
    change(mall / "products.json", lambda rows: [{"product_id": row["product_id"]} for row in rows])
    says(lambda: read_reviews(mall, schema), "products.json", "'reviews'", "missing")
    (mall / "products.json").write_text("[]")
    says(lambda: read_reviews(mall, schema), "products.json", "no products")
    (mall / "products.json").write_text("")
    says(lambda: read_reviews(mall, schema), "products.json", "JSON")


def test_a_schema_without_reviews(films):
    says(lambda: read_reviews(films, Schema.read(films / "dataset.toml")), "dataset.toml", "reviews")


def test_the_committed_products_have_ids_and_known_categories():
    folder = Path(__file__).parents[2] / "data" / "amoremall"
    table, ids = read_products(folder, Schema.read(folder / "dataset.toml"))
    assert len(ids) == len(set(ids)) == len(table) > 0
    assert set(table.column("category")) <= {97, 98, 99, 101, 103}


# Folds


@settings(deadline=None, max_examples=100)
@given(data=st.data(), customers=st.integers(2, 60), seed=st.integers(0, 2**32 - 1))
def test_folds_are_equal_parts(data, customers, seed):
    folds = data.draw(st.integers(2, customers))
    strata = data.draw(st.none() | st.lists(st.sampled_from("abc"), min_size=customers, max_size=customers))
    fold = customer_folds(customers, folds, seed, strata)
    assert fold.shape == (customers,)
    assert set(fold.tolist()) == set(range(folds))
    for stratum in {None} if strata is None else {None, *strata}:
        here = [f for i, f in enumerate(fold.tolist()) if stratum is None or strata[i] == stratum]
        counts = Counter(dict.fromkeys(range(folds), 0))
        counts.update(here)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_folds_follow_from_the_seed():
    strata = ["a", "b"] * 50
    for given_ in (None, strata):
        first = customer_folds(100, 5, 7, given_)
        np.testing.assert_array_equal(first, customer_folds(100, 5, 7, given_))
        assert (first != customer_folds(100, 5, 8, given_)).any()
        # At random: neither the order of the rows nor blocks of them.
        assert first.tolist() != [i % 5 for i in range(100)]
        assert len(set(first[:20].tolist())) == 5


@pytest.mark.parametrize("folds", [0, 1, -3, 11, 10**9])
def test_bad_numbers_of_folds(folds):
    says(lambda: customer_folds(10, folds, 0), "folds", str(folds), "2 to 10")


def test_a_negative_seed_is_a_sentence():
    """`recsys-jax evaluate --seed -1` ends here."""
    says(lambda: customer_folds(10, 2, -1), "seed", "-1")


@pytest.mark.parametrize("column", ["age", "gender"])
@pytest.mark.parametrize("word", ["NA", "-", "Prefer not to say"])
def test_a_word_for_nothing_known_names_the_setting_for_it(mall, column, word):
    """Where a number, or one of the values that dataset.toml lists, is expected."""
    path = mall / "customers.json"
    rows = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps([rows[0] | {column: word}, *rows[1:]]), "utf-8")
    (reason,) = load_dataset(mall).set_aside
    assert f'missing_values = ["{word}"]' in str(reason)
