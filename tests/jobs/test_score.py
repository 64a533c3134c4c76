"""The batch job: every customer of a Parquet file, streamed; what cannot be used, with its reason."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run, told
from conftest import MALL_PRODUCTS, mall_customers

from recsys_jax import InputError, Recommender, Table, save_model
from recsys_jax.cli.serving import score
from recsys_jax.jobs import batch, customer_file

ROOT = Path(__file__).parents[2]
EVERYTHING = [product[0] for product in MALL_PRODUCTS]


@pytest.fixture(scope="module")
def mall_rec(mall_run):
    return Recommender.load(mall_run)


def people(count, seed=0):
    """Customers with the attributes of the mall's, mixed, with an id of their own and a few purchases."""
    rng = np.random.default_rng(seed)
    known = mall_customers()
    drawn = {name: rng.choice([row[name] for row in known], count) for name in ("skin_type", "skin_concern", "gender")}
    return [
        {
            "user_id": f"c{row}",
            "age": int(age),
            **{name: str(values[row]) for name, values in drawn.items()},
            "purchased_products": [str(one) for one in rng.choice(EVERYTHING, row % 4, replace=False)],
        }
        for row, age in enumerate(rng.integers(1, 121, count))
    ]


def job(run, rows, folder, *, schema=None, group=5, **options):
    """Runs the job on these rows; what it wrote, as rows: recommendations, rejected ones."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema)
    pq.write_table(table, folder / "in.parquet", row_group_size=group)
    score.main(score.Options(folder / "in.parquet", folder / "out.parquet", run, **options))
    side = folder / "out.rejected.parquet"
    return pq.read_table(folder / "out.parquet").to_pylist(), pq.read_table(side).to_pylist() if side.exists() else []


def same(found, rec, rows, bought, name="user_id", ids=None, **options):
    """Holds where the long table is what `recommend_batch` says, customer after customer, place after place."""
    lists = rec.recommend_batch(
        [{**row, "purchased_products": None} for row in rows], purchased_products=bought, **options
    )
    ids = [row["user_id"] for row in rows] if ids is None else ids
    expected = [
        (who, place, one["product_id"], one["score"], one["popularity"], one["boost"])
        for who, listed in zip(ids, lists, strict=True)
        for place, one in enumerate(listed, 1)
    ]
    assert [(one[name], one["place"], one["product_id"]) for one in found] == [one[:3] for one in expected]
    for column, number in (("score", 3), ("popularity", 4), ("boost", 5)):
        np.testing.assert_allclose([one[column] for one in found], [one[number] for one in expected], atol=1e-5)


@pytest.mark.parametrize(("portion", "group"), [(8, 3), (16, 1000), (8192, 7), (64, 64)])
def test_streaming_gives_what_recommend_batch_gives(mall_rec, mall_run, tmp_path, monkeypatch, portion, group):
    bars = []

    @contextmanager
    def recorded(title):
        yield lambda done, total: bars.append((done, total))

    monkeypatch.setattr(batch, "CUSTOMERS", portion)
    monkeypatch.setattr(score, "progress", recorded)
    rows = people(100)
    table = pa.Table.from_pylist(rows)
    # Arrow ends a batch where a dictionary changes, and each row group has its own.
    table = table.set_column(2, "skin_type", table["skin_type"].dictionary_encode())
    found, rejected = job(mall_run, table, tmp_path, group=group, top_n=6)
    same(found, mall_rec, rows, [row["purchased_products"] for row in rows], top_n=6)
    assert rejected == []
    assert bars == [(min(done, 100), 100) for done in range(portion, 100 + portion, portion)]


def test_more_places_than_products_popularity_and_optional_attributes(films_model, tmp_path, monkeypatch):
    save_model(films_model, tmp_path / "run")
    monkeypatch.setattr(batch, "PLACES", 50)  # 5 products: 8 customers at once
    rows = [
        {"viewer": row, "favourite_genres": value} for row, value in enumerate(islice(cycle(["Drama|?", None]), 20))
    ]
    found, rejected = job(tmp_path / "run", rows, tmp_path, top_n=9)
    ids = [row["viewer"] for row in rows]
    same(found, Recommender(films_model), rows, None, "viewer", ids, top_n=9)
    assert len({one["popularity"] for one in found}) > 1
    assert rejected == []
    assert len(found) == 20 * 5
    assert pq.read_metadata(tmp_path / "out.parquet").num_row_groups == 3


def test_the_columns_of_the_result(mall_run, tmp_path):
    schema = pa.schema(
        [
            ("user_id", pa.large_string()),
            ("age", pa.int8()),
            *[(name, pa.string()) for name in ("skin_type", "skin_concern", "gender")],
        ]
    )
    job(mall_run, people(3), tmp_path, schema=schema)
    assert pq.read_schema(tmp_path / "out.parquet") == pa.schema(
        [
            ("user_id", pa.large_string()),
            ("place", pa.int32()),
            ("product_id", pa.dictionary(pa.int32(), pa.string())),
            ("score", pa.float32()),
            ("popularity", pa.float32()),
            ("boost", pa.float32()),
        ]
    )


def test_what_was_bought_is_left_out_from_either_column(mall_rec, mall_run, tmp_path):
    rows = people(4)
    for row, list_of, one in zip(rows, (["p1", "p9"], [], None, ["p2"]), ("p3", "p4", None, "p2"), strict=True):
        row |= {"purchased_products": list_of, "purchased_product_id": one}
    found, _ = job(mall_run, rows, tmp_path, top_n=8, allow_unmatched=True)
    bought = [["p1", "p3"], ["p4"], [], ["p2"]]
    same(found, mall_rec, rows, bought, top_n=8)
    for row, products in zip(rows, bought, strict=True):
        got = {one["product_id"] for one in found if one["user_id"] == row["user_id"]}
        assert got == set(EVERYTHING) - set(products)


def test_one_text_holds_several_purchases_where_the_schema_has_a_separator(mall_model, tmp_path, monkeypatch):
    customers = replace(mall_model.schema.customers, separator="|")
    changed = replace(mall_model, schema=replace(mall_model.schema, customers=customers))
    monkeypatch.setattr(batch.Recommender, "load", lambda *_, **__: Recommender(changed))
    rows = [{**row, "purchased_products": "p1| p2", "purchased_product_id": "p3|p4"} for row in people(2)]
    found, _ = job(tmp_path, rows, tmp_path, top_n=8)
    assert {one["product_id"] for one in found} == set(EVERYTHING[4:])


def test_only_the_categories_asked_for(mall_rec, mall_run, tmp_path):
    rows = people(6)
    found, rejected = job(mall_run, rows, tmp_path, categories=("Makeup", "99"))
    bought = [row["purchased_products"] for row in rows]
    same(found, mall_rec, rows, bought, top_n=10, categories=["Makeup", "99"])
    assert {one["product_id"] for one in found} <= {"p3", "p4", "p5"}
    assert rejected == []


# What is changed in a row of which everything else is good, and the reason that is given.
BAD = [
    ({"skin_type": "greasy"}, "skin_type: found 'greasy'; allowed: 'dry', 'oily'"),
    ({"age": "abc"}, "age: found 'abc'; allowed: a number from 1 to 120"),
    ({"age": "121"}, "age: found '121'; allowed: a number from 1 to 120"),
    ({"gender": None}, "gender: found nothing; allowed: 'F', 'M'"),
    ({"user_id": ""}, "user_id: found ''; allowed: an id, a text or a number that is not empty"),
    ({"user_id": None}, "user_id: found nothing; allowed: an id"),
    ({"purchased_products": "p1"}, "purchased_products: found 'p1'; allowed: a list of product ids"),
    ({"purchased_product_id": EVERYTHING}, "no product remains: all products were bought already"),
    ({"user_id": " ", "gender": "X", "age": None}, "user_id: found ' '; allowed: an id"),
    ({"gender": "X", "age": None}, "gender: found 'X'; allowed: 'F', 'M'"),
]


@pytest.mark.parametrize("portion", [8, 8192])
def test_what_cannot_be_used_goes_to_the_side_file_with_its_reason(
    mall_rec, mall_run, tmp_path, monkeypatch, capsys, portion
):
    monkeypatch.setattr(batch, "CUSTOMERS", portion)
    rows = [
        {**row, "age": str(row["age"]), "purchased_products": None, "purchased_product_id": ["p1"], "note": {"x": [n]}}
        for n, row in enumerate(people(60))
    ]
    # Two in the second portion, none in the third and fourth, the last row of all.
    numbers = [10, 11, 33, 34, 40, 41, 42, 50, 51, 60]
    for number, (change, _) in zip(numbers, BAD, strict=True):
        rows[number - 1] |= change
    table = pa.Table.from_pylist(rows)
    table = table.set_column(2, "skin_type", table["skin_type"].dictionary_encode())
    found, rejected = job(mall_run, table, tmp_path, top_n=3)

    good = [row for number, row in enumerate(rows, 1) if number not in numbers]
    same(found, mall_rec, good, [["p1"]] * 50, top_n=3)
    assert [one["row"] for one in rejected] == numbers
    for one, (_, reason) in zip(rejected, BAD, strict=True):
        assert one["reason"].startswith(reason)
        assert {name: one[name] for name in table.schema.names} == rows[one["row"] - 1]
    added = [pa.field("row", pa.int64()), pa.field("reason", pa.string())]
    assert pq.read_schema(tmp_path / "out.rejected.parquet") == pa.schema([*table.schema, *added])
    said = capsys.readouterr().out
    assert "50 customers, 150 recommendations, 10 rows rejected" in said
    assert "The first rejected one, row 10: skin_type: found 'greasy'" in said
    assert f"Written: {tmp_path / 'out.parquet'}, {tmp_path / 'out.rejected.parquet'}" in said


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[{"id": "p1"}]] * 3),
        pa.array([{"id": "p1"}] * 3),
        pa.array([[["p1"]]] * 3),
        pa.array([b"p1"] * 3),
    ],
)
def test_purchases_of_another_form_are_not_passed_over(mall_run, tmp_path, values):
    table = pa.Table.from_pylist(people(3)).drop_columns("purchased_products")
    found, rejected = job(mall_run, table.append_column("purchased_product_id", values), tmp_path)
    assert found == []
    assert ["allowed: a product id, or a list of them" in one["reason"] for one in rejected] == [True] * 3


@pytest.mark.parametrize("group", [1, 5])
def test_a_text_that_is_not_utf8_fails_alone(mall_run, tmp_path, group):
    table = pa.Table.from_pylist(people(3))
    broken = pa.array([b"dry", b"\xff\xfe", b"dry"]).view(pa.string())
    table = table.set_column(2, "skin_type", broken)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=group)
    score.main(score.Options(tmp_path / "in.parquet", tmp_path / "out.parquet", mall_run))
    assert set(pq.read_table(tmp_path / "out.parquet")["user_id"].to_pylist()) == {"c0", "c2"}
    side = pq.read_table(tmp_path / "out.rejected.parquet")
    assert side["row"].to_pylist() == [2]
    assert side["skin_type"].chunk(0).view(pa.binary()).to_pylist() == [b"\xff\xfe"]
    assert side["reason"][0].as_py().startswith("skin_type: found b\"'utf-8' codec can't decode")


@pytest.mark.wild
@pytest.mark.parametrize(
    "ids",
    [
        *(pa.array([True] * 3), pa.array([[1]] * 3), pa.array([{"a": 1}] * 3), pa.array([float("inf")] * 3)),
        *(pa.array(["a\0b"] * 3), pa.array([b"a"] * 3), pa.array([2.0**53] * 3), pa.array([2.0**24] * 3, pa.float32())),
        *(pa.array(["NULL"] * 3), pa.array([[["a"]]] * 3), pa.array(["True"] * 3)),
    ],
    ids=lambda value: str(value.type),
)
def test_what_is_no_id_is_rejected(mall_run, tmp_path, ids):
    table = pa.Table.from_pylist(people(3))
    found, rejected = job(mall_run, table.set_column(0, "user_id", ids), tmp_path)
    assert found == []
    assert [one["reason"].partition(": found")[0] for one in rejected] == ["user_id"] * 3
    assert [one["user_id"] for one in rejected] == ids.to_pylist()


@pytest.mark.wild
@pytest.mark.parametrize("values", [pa.array([["KR"]] * 3), pa.array([{"v": "KR"}] * 3), pa.array([b"KR"] * 3)])
def test_an_attribute_of_another_kind_is_no_unseen_value(films_model, tmp_path, values):
    """All customers would be treated alike, without a word."""
    save_model(films_model, tmp_path / "run")
    table = pa.table({"viewer": ["a", "b", "c"], "country": values})
    found, rejected = job(tmp_path / "run", table, tmp_path)
    assert found == []
    assert ["country: found" in one["reason"] and "allowed: one value" in one["reason"] for one in rejected] == [
        True
    ] * 3


@pytest.mark.wild
@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_columns_of_views_are_columns(mall_rec, mall_run, tmp_path, kind):
    """Polars and DuckDB write `string_view`, of which Arrow cannot take rows."""
    rows = people(6)
    rows[3]["gender"] = "X"
    plain_table = pa.Table.from_pylist(rows)
    table = plain_table
    for name in ("user_id", "skin_type", "gender"):
        table = table.set_column(table.schema.get_field_index(name), name, plain_table[name].cast(kind))
    views = pa.array([row["purchased_products"] for row in rows], pa.list_view(pa.string()))
    table = table.set_column(table.schema.get_field_index("purchased_products"), "purchased_products", views)
    found, rejected = job(mall_run, table, tmp_path, top_n=3)
    good = [row for row in rows if row["gender"] != "X"]
    same(found, mall_rec, good, [row["purchased_products"] for row in good], top_n=3)
    assert pq.read_schema(tmp_path / "out.parquet").field("user_id").type == kind
    assert [(one["user_id"], one["purchased_products"]) for one in rejected] == [("c3", rows[3]["purchased_products"])]


@pytest.mark.wild
@pytest.mark.parametrize("unknown", ["p1.0", "001", "P1", "['p1']x"])
def test_purchases_of_no_product_are_counted_and_many_are_an_error(mall_run, tmp_path, capsys, monkeypatch, unknown):
    """A spreadsheet's or a database's way to write ids: what was bought would be recommended again."""
    rows = [{**row, "purchased_products": ["p1"]} for row in people(20)]
    for row in rows[4:6]:
        row["purchased_products"] = [unknown]
    job(mall_run, rows, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 20 purchases are the id of no product, so nothing was left out for them; the first in in." in said
    assert f"in in.parquet, row 5: {unknown!r}" in said
    before = (tmp_path / "out.parquet").read_bytes()
    rows[6]["purchased_products"] = [unknown]
    with pytest.raises(
        InputError, match=r"in\.parquet: found 3 of 20 purchases that are the id of no product, the first in row 5"
    ):
        job(mall_run, rows, tmp_path)
    assert (tmp_path / "out.parquet").read_bytes() == before
    # What was done is kept, and goes out as soon as it is allowed.
    monkeypatch.setattr(batch, "rank", None)
    found, _ = job(mall_run, rows, tmp_path, allow_unmatched=True)
    assert len({one["user_id"] for one in found}) == 20


@pytest.mark.wild
def test_ids_of_a_database_match(mall_run, tmp_path, monkeypatch):
    """Decimals, floats and lists written as texts mean the ids that they are."""
    rec = Recommender.load(mall_run)
    rec.add_products([{"product_id": 1061, "product_name": "N", "brand_name": "Isul", "category": 97, "price": 5}])
    monkeypatch.setattr(batch.Recommender, "load", lambda *_, **__: rec)
    table = pa.Table.from_pylist(people(4)).drop_columns("purchased_products")
    for values in (
        *(pa.array([[Decimal(1061)]] * 4, pa.list_(pa.decimal128(10, 2))), pa.array([[1061.0]] * 4)),
        *(pa.array(["['1061']"] * 4), pa.array(["[1061.0, 'p1']"] * 4)),
    ):
        found, rejected = job(mall_run, table.append_column("purchased_products", values), tmp_path, top_n=9)
        assert rejected == []
        assert "1061" not in {one["product_id"] for one in found}


def test_every_row_rejected(mall_run, tmp_path, capsys):
    rows = [{**row, "gender": "X"} for row in people(20)]
    found, rejected = job(mall_run, rows, tmp_path)
    assert found == []
    assert pq.read_schema(tmp_path / "out.parquet").names == ["user_id", *batch.RECOMMENDED]
    assert [one["row"] for one in rejected] == list(range(1, 21))
    assert "No customer was scored: every row was rejected. out.parquet is empty." in capsys.readouterr().out


def test_no_rows_at_all(mall_run, tmp_path, capsys):
    found, rejected = job(mall_run, pa.Table.from_pylist(people(1))[:0], tmp_path)
    assert found == rejected == []
    assert "No customer was scored: there are no rows in the input." in capsys.readouterr().out


def test_the_row_number_stands_in_for_an_id(mall_rec, mall_run, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "CUSTOMERS", 8)
    rows = people(20)
    rows[11]["age"] = 0
    table = pa.Table.from_pylist(rows).drop_columns("user_id")
    found, rejected = job(mall_run, table, tmp_path, top_n=2)
    good = [number for number in range(1, 21) if number != 12]
    bought = [rows[number - 1]["purchased_products"] for number in good]
    same(found, mall_rec, [rows[number - 1] for number in good], bought, "row", good, top_n=2)
    assert [one["row"] for one in rejected] == [12]


def test_a_corrected_side_file_is_input_again(mall_run, tmp_path):
    rows = [{**row, "row": 77, "reason": "old"} for row in people(3)]
    rows[1]["age"] = 0
    _, rejected = job(mall_run, rows, tmp_path)
    assert [(one["row"], one["reason"], one["row_"], one["reason_"][:12]) for one in rejected] == [
        (77, "old", 2, "age: found 0")
    ]


def test_a_side_file_of_before_goes_away(mall_run, tmp_path):
    (tmp_path / "out.rejected.parquet").write_text("old")
    job(mall_run, people(3), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "out.parquet"}


def test_the_same_input_gives_the_same_bytes(mall_run, tmp_path):
    rows = people(50)
    rows[3]["gender"] = "X"
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        job(mall_run, rows, folder)
        written.append([(folder / name).read_bytes() for name in ("out.parquet", "out.rejected.parquet")])
    assert written[0] == written[1]


def fails(folder, run, rows, sentence):
    """Holds where the job ends with the sentence, and the files of an earlier one stay as they were."""
    before = {"out.parquet": b"an older one", "out.rejected.parquet": b"older too"}
    for name, content in before.items():
        (folder / name).write_bytes(content)
    with pytest.raises((InputError, OSError), match=sentence):
        score.main(score.Options(folder / "in.parquet", folder / "out.parquet", run))
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "in.parquet"}
    assert after == before


def test_nothing_is_half_written(mall_run, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "CUSTOMERS", 8)
    pq.write_table(pa.Table.from_pylist(people(30)), tmp_path / "in.parquet")
    real, calls = batch.recommended, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("no space left")
        return real(*arguments)

    monkeypatch.setattr(batch, "recommended", full)
    fails(tmp_path, mall_run, 30, "no space left")
    assert len(calls) == 3


def test_a_file_damaged_in_its_midst_is_one_sentence(mall_run, tmp_path):
    rows = people(2000)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=500, compression="zstd")
    group = pq.read_metadata(tmp_path / "in.parquet").row_group(2)
    content = bytearray((tmp_path / "in.parquet").read_bytes())
    ages = group.column(1)
    start = ages.dictionary_page_offset or ages.data_page_offset
    content[start : start + ages.total_compressed_size] = b"\xaa" * ages.total_compressed_size
    (tmp_path / "in.parquet").write_bytes(content)
    fails(tmp_path, mall_run, rows, "in.parquet: not readable as Parquet: ")


def test_pyarrow_is_asked_for(mall_run, tmp_path, monkeypatch):
    pq.write_table(pa.Table.from_pylist(people(3)), tmp_path / "in.parquet")
    monkeypatch.setattr(customer_file, "arrow", None)
    fails(tmp_path, mall_run, 3, r"scoring needs pyarrow: \S+ -m pip install 'recsys_jax\[parquet\]'")


def test_the_only_run_is_the_default(mall_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "personas-only").mkdir(parents=True)
    with pytest.raises(InputError, match="run: found none under runs/; name the folder"):
        score.only_run()
    save_model(mall_model, tmp_path / "runs" / "one")
    assert score.only_run() == Path("runs/one")
    assert job(None, people(3), tmp_path)[1] == []
    save_model(mall_model, tmp_path / "runs" / "two")
    with pytest.raises(InputError, match="run: found runs/one, runs/two under runs/"):
        score.only_run()


@pytest.mark.parametrize("name", ["mall_model", "films_model"])
def test_the_problems_of_a_table_are_those_of_its_rows(name, request):
    space = request.getfixturevalue(name).customers
    values = {
        "skin_type": ["dry", "?", "oily", None, "dry"],
        "skin_concern": ["gift", "?", "gift", "gift", "gift"],
        "gender": ["F", "F", "F", "F", "X"],
        "age": [1, 2, "x", 4, 5],
        "favourite_genres": ["Drama", "?", None, "Drama|?", ""],
        "country": ["KR", "?", None, "KR", ""],
    }
    table = Table("t", values, numbers=[11, 12, 13, 14, 15])
    found = space.problems(table)
    alone = {}
    for row in range(5):
        try:
            space.encode(table.select([row]))
        except InputError as error:
            alone[row] = str(error)
    assert {row: f"{table.where(row)}, {reason}" for row, reason in found.items()} == alone
    assert list(found) == sorted(found) == ([1, 2, 3, 4] if name == "mall_model" else [])
    first = space.features[0].feature.column
    with pytest.raises(InputError, match=f"the column '{first}' is missing; found: gender"):
        space.problems(Table("t", {"gender": ["F"]}))


def test_mistakes_are_one_sentence_and_status_2(mall_run, tmp_path):
    good = pa.Table.from_pylist(people(3))
    pq.write_table(good, tmp_path / "in.parquet")
    pq.write_table(good, tmp_path / "out.rejected.parquet")
    pq.write_table(good.drop_columns("age"), tmp_path / "no-age.parquet")
    pq.write_table(good.rename_columns(["user_id", "agee", *good.schema.names[2:]]), tmp_path / "agee.parquet")
    pq.write_table(good.rename_columns(["user_id", "age", "age", *good.schema.names[3:]]), tmp_path / "twice.parquet")
    (tmp_path / "in.csv").write_text("age\n3\n")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "boosts.toml").write_text("[[boost]]\nadd = 2\n")
    before = sorted(tmp_path.iterdir())
    cases = [
        (["in.csv", "o.parquet"], "in.csv: the column 'skin_type' is missing; found: age"),
        (["in.xlsx", "o.parquet"], "in.xlsx: found the ending '.xlsx'; allowed: .json, "),
        (["in.xlsx", "o.parquet"], 'save it in Excel by "Save as", "CSV UTF-8"'),
        (["in.parquet", "o.xlsx"], "o.xlsx: found the ending '.xlsx'; allowed: .parquet, .csv"),
        (["absent.parquet", "o.parquet"], "absent.parquet: there is no such file"),
        (["damaged.parquet", "o.parquet"], "damaged.parquet: not readable as Parquet: "),
        (["in.parquet", "folder.parquet"], "folder.parquet: found a folder; allowed: a file to write"),
        (["in.parquet", "./in.parquet"], "in.parquet: found the file with the customers; allowed: another one"),
        (["out.rejected.parquet", "out.parquet"], "out.rejected.parquet: found the file with the customers"),
        (["in.parquet", "in.csv/o.parquet"], "in.csv"),
        (["no-age.parquet", "o.parquet"], "no-age.parquet: the column 'age' is missing; found: user_id, skin_type"),
        (["agee.parquet", "o.parquet"], "agee.parquet: found the column 'agee' and none of the name 'age'"),
        (["twice.parquet", "o.parquet"], "twice.parquet: two columns have the same name: user_id, age, age"),
        (["in.parquet", "o.parquet", "--top-n", "0"], "top_n: found 0; allowed: a whole number from 1"),
        (["in.parquet", "o.parquet", "--categories", "Shoes"], "categories: found 'Shoes'; allowed: "),
        (["in.parquet", "o.parquet", "--boosts", "boosts.toml"], "boosts.toml, boost 1, add: found 2"),
        (["in.parquet", "o.parquet", "--run", "nowhere"], "nowhere/model.json: there is no such file"),
    ]
    for words, sentence in cases:
        told(run("score", *words, *([] if "--run" in words else ["--run", mall_run]), cwd=tmp_path), sentence)
    assert sorted(tmp_path.iterdir()) == before


def environment(folder):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": paths}


def process(words, folder):
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment(folder), check=True)


def test_ctrl_c_leaves_nothing(mall_run, tmp_path):
    table = pa.Table.from_pylist(people(20_000))
    pq.write_table(pa.concat_tables([table] * 50), tmp_path / "in.parquet")
    command = [sys.executable, "-m", "recsys_jax", "score", "in.parquet", "out.parquet", "--run", str(mall_run)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        while running.poll() is None and not list(tmp_path.rglob(".000000.part.*")):
            time.sleep(0.01)
        time.sleep(0.2)  # it is in the midst of the rows
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.splitlines()[-1] == "Stopped: nothing was written"
    assert {path.name for path in tmp_path.iterdir()} <= {"in.parquet", "cache"}


# The peak of the process after a small job, and after one with twenty times as many customers.
PEAKS = """
import re, sys
from pathlib import Path
from recsys_jax.cli.serving import score
from recsys_jax.jobs import batch
batch.CUSTOMERS = 1024
for name in ("small", "large"):
    score.main(score.Options(Path(f"{name}.parquet"), Path(f"{name}-out.parquet"), Path(sys.argv[1])))
    print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is Linux's")
def test_memory_does_not_grow_with_the_customers(mall_run, tmp_path):
    some = pa.Table.from_pylist(people(4096))
    rng = np.random.default_rng(0)
    for name, times in (("small", 1), ("large", 20)):
        table = pa.concat_tables([some] * times)
        # Text that nobody needs, except for the last row, which is rejected: 2 and 40 MB, all in one row group.
        notes = pa.array([rng.bytes(256).hex() for _ in range(table.num_rows)])
        ages = pa.array([*table["age"].to_pylist()[:-1], 0])
        table = table.set_column(1, "age", ages).append_column("note", notes)
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=table.num_rows, compression="none")
    result = process([sys.executable, "-c", PEAKS, str(mall_run)], tmp_path)
    small, large = (int(line.split()[1]) / 1024 for line in result.stdout.splitlines() if line.startswith("peak"))
    assert pq.read_table(tmp_path / "large-out.rejected.parquet")["row"].to_pylist() == [81920]
    assert large - small < 20


# Files that people open


def sheet(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_in_and_out_says_the_same_as_parquet(mall_run, tmp_path, monkeypatch):
    """All portions, with ids that are no numbers, purchases in a written list, and a row that cannot be used."""
    monkeypatch.setattr(batch, "CUSTOMERS", 8)
    rows = people(40)
    for number, row in enumerate(rows):
        row["user_id"] = f"00{number}"
    rows[7] = {**rows[7], "skin_type": "green"}
    expected, rejected = job(mall_run, rows, tmp_path, top_n=3)
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    score.main(score.Options(tmp_path / "in.csv", tmp_path / "out.csv", mall_run, top_n=3))
    found = sheet(tmp_path / "out.csv")
    assert [(one["user_id"], int(one["place"]), one["product_id"]) for one in found] == [
        (one["user_id"], one["place"], one["product_id"]) for one in expected
    ]
    for name in ("score", "popularity", "boost"):
        np.testing.assert_array_equal(
            np.array([one[name] for one in found], np.float32), [np.float32(one[name]) for one in expected]
        )
    (aside,) = sheet(tmp_path / "out.rejected.csv")
    assert (aside["user_id"], aside["reason"], aside["row"]) == ("007", rejected[0]["reason"], "8")


@pytest.mark.parametrize("name", ["in.json", "in.jsonl", "in.ndjson"])
def test_json_says_the_same_as_parquet_with_types_kept(mall_run, tmp_path, monkeypatch, name):
    """All portions, with lists in cells, ids that are numbers, and rows that cannot be used."""
    monkeypatch.setattr(batch, "CUSTOMERS", 8)
    rows = [{**row, "user_id": 70 + number} for number, row in enumerate(people(40))]
    rows[7] |= {"skin_type": "green"}
    rows[9] |= {"age": "forty", "note": [1, "a"]}
    rows[11] |= {"gender": {"f": 1}, "note": "half \ud800"}
    usable = [row for number, row in enumerate(rows) if number not in (9, 11)]
    expected, _ = job(mall_run, usable, tmp_path, top_n=3)
    text = json.dumps(rows) if name == "in.json" else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text)
    score.main(score.Options(tmp_path / name, tmp_path / "out.parquet", mall_run, top_n=3))
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected
    assert pq.read_schema(tmp_path / "out.parquet").field("user_id").type == pa.int64()
    side = pq.read_table(tmp_path / "out.rejected.parquet").to_pylist()
    assert [(one["user_id"], one["row"], one["reason"].split(",")[0].split(";")[0]) for one in side] == [
        (77, 8, "skin_type: found 'green'"),
        (79, 10, "age: found 'forty'"),
        (81, 12, "gender: found {'f': 1}"),
    ]
    assert [(one["gender"], one["note"], one["purchased_products"]) for one in side[1:]] == [
        (rows[9]["gender"], "[1, 'a']", rows[9]["purchased_products"]),
        ("{'f': 1}", "half \\ud800", rows[11]["purchased_products"]),
    ]


def test_lists_of_several_values_in_json_are_scored(films_model, tmp_path):
    save_model(films_model, tmp_path / "run")
    rows = [{"viewer": "a", "favourite_genres": ["Drama", "Crime"]}, {"viewer": 7, "favourite_genres": "Drama|Crime"}]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    score.main(score.Options(tmp_path / "in.json", tmp_path / "out.csv", tmp_path / "run", top_n=2))
    one, other = ([row for row in sheet(tmp_path / "out.csv") if row["viewer"] == who] for who in ("a", "7"))
    assert [{**row, "viewer": ""} for row in one] == [{**row, "viewer": ""} for row in other]
    assert len(one) == 2


@pytest.mark.parametrize("text", ["[]", "[{}]", '[{"other": 1}]', "[3]"])
def test_json_without_customers(mall_run, tmp_path, text):
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(InputError, match=r"in\.json"):
        score.main(score.Options(tmp_path / "in.json", tmp_path / "out.csv", mall_run))
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_a_side_file_as_csv_has_any_column(mall_run, tmp_path):
    """Lists, which Arrow does not write as CSV, and texts that a spreadsheet would run."""
    rows = [{**people(3)[2], "user_id": "=1+1", "skin_type": "=cmd|x", "purchased_products": ["p1", "p2"]}]
    rows += people(2)
    rows[2]["user_id"] = "-7"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    score.main(score.Options(tmp_path / "in.parquet", tmp_path / "out.csv", mall_run, top_n=1))
    (aside,) = sheet(tmp_path / "out.rejected.csv")
    assert (aside["user_id"], aside["skin_type"], aside["purchased_products"]) == (
        "'=1+1",
        "'=cmd|x",
        "['p1', 'p2']",
    )
    assert [one["user_id"] for one in sheet(tmp_path / "out.csv")] == ["c0", "-7"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_people_know_products_by(mall_run, tmp_path, ending):
    pq.write_table(pa.Table.from_pylist(people(20)), tmp_path / "in.parquet")
    out = tmp_path / f"out.{ending}"
    score.main(score.Options(tmp_path / "in.parquet", out, mall_run, top_n=2, names=True))
    found = sheet(out) if ending == "csv" else pq.read_table(out).to_pylist()
    known = {one[0]: one for one in MALL_PRODUCTS}
    labels = {97: "Skincare", 98: "Makeup", 99: "Perfume", 101: "Accessories", 103: "Men"}
    assert len(found) == 40
    for one in found:
        _, name, brand, category, price, _ = known[one["product_id"]]
        assert (one["name"], one["brand"], one["category"]) == (name, brand, labels[category])
        assert float(one["price"]) == price


def test_names_that_the_dataset_has(films_model, tmp_path):
    save_model(films_model, tmp_path / "run")
    pq.write_table(pa.Table.from_pylist([{"viewer": "v", "age": 3}]), tmp_path / "in.parquet")
    score.main(score.Options(tmp_path / "in.parquet", tmp_path / "out.csv", tmp_path / "run", names=True))
    assert list(sheet(tmp_path / "out.csv")[0]) == ["viewer", *batch.RECOMMENDED, "category"]


def test_a_row_of_csv_that_is_none_loses_nothing(mall_run, tmp_path):
    text = "user_id,age,gender,skin_type,skin_concern\n" + "a,30,F,dry,gift\n" * 20 + "b,30,F\n"
    (tmp_path / "in.csv").write_text(text)
    options = score.Options(tmp_path / "in.csv", tmp_path / "out.csv", mall_run)
    with pytest.raises(InputError, match=r"in.csv, row 21: found 3 values; the header has 5"):
        score.main(options)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_job_goes_on_where_it_stopped(mall_run, tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(batch, "CUSTOMERS", 4)
    monkeypatch.setattr(batch, "SECONDS", 0.0)
    with (tmp_path / "in.csv").open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, people(1)[0])
        writer.writeheader()
        writer.writerows(people(20))
    whole = score.Options(tmp_path / "in.csv", tmp_path / "whole.csv", mall_run, top_n=2)
    score.main(whole)
    ranked, calls = batch.rank, iter(range(99))

    def failing(*arguments):
        if next(calls) == 3:
            raise OSError("no more disk")
        return ranked(*arguments)

    monkeypatch.setattr(batch, "rank", failing)
    options = replace(whole, out=tmp_path / "out.csv")
    with pytest.raises(InputError, match="no more disk"):
        score.main(options)
    monkeypatch.setattr(batch, "rank", ranked)
    score.main(options)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "out.csv").read_bytes().startswith("user_id".encode(encoding))
