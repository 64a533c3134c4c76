"""One value means one thing, whoever wrote it: pandas, a spreadsheet, a database, another system's Unicode."""

import json
import re
import unicodedata
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys_jax.data.dataset import load_dataset
from recsys_jax.data.features import FeatureSpace, FittedFeature
from recsys_jax.data.schema import Categorical, MultiCategorical, Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.data.values import as_id, as_ids, as_items, as_key, is_scalar, parse_date, parse_number
from recsys_jax.errors import InputError
from recsys_jax.personas.customers import read_reviews

pytestmark = pytest.mark.wild


def one(values=None, **options):
    policies = {"labels": None, "aliases": {}, "unknown": "extra-row", "missing": "extra-row", **options}
    return Categorical("x", "x", values, **policies)


def document(feature):
    """The content of a dataset.toml in which customers have this feature."""
    side = {"id": "id", "file": "t.csv"}
    products = {**side, "features": [{"name": "p", "kind": "numeric", "unknown": "error", "missing": "error"}]}
    return {"name": "t", "products": products, "customers": {**side, "purchases": "b", "features": [feature]}}


# Truth values

YES = [True, "True", "TRUE", "true", np.True_, np.str_("True"), " True "]
NO = [False, "False", "FALSE", "false", np.False_]


@pytest.mark.parametrize("first", [*YES[:3], YES[4]], ids=repr)
def test_a_truth_value_is_one_value(first):
    space = FeatureSpace.fit([one()], Table.of({"x": [first, False]}, "rows"))
    assert space["x"].values == ("true", "false")
    assert space.encode(Table.of({"x": [*YES, *NO, None]}, "rows"))["x"].tolist() == [0] * 7 + [1] * 5 + [3]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_truth_value_is_one_value_in_every_file(tmp_path, ending):
    frame = pd.DataFrame({"x": [True, False, True]})
    path = tmp_path / f"t.{ending}"
    {"csv": lambda: frame.to_csv(path), "json": lambda: frame.to_json(path, orient="records")}.get(
        ending, lambda: frame.to_parquet(path)
    )()
    for table in (
        read_table(path),
        Table.of(frame.astype("boolean"), "frame"),
        Table.of(frame.astype(object), "frame"),
    ):
        assert [as_key(value) for value in table.column("x")] == ["true", "false", "true"]


def test_truth_values_of_a_schema_and_of_former_models():
    """Values, labels and aliases in dataset.toml, and a vocabulary that a former model learned as it was written."""
    part = {"name": "x", "kind": "categorical", "values": [True, "FALSE"], "labels": ["yes", "no"]}
    part |= {"aliases": {"on": True, "off": "False"}, "unknown": "error", "missing": {"as": False}}
    feature = Schema.parse(document(part), "dataset.toml").customers.features[0]
    given = FittedFeature.fit(feature, Table.of({"x": []}, "rows"))
    assert [given.canonical(value) for value in (True, "TRUE", "on", "yes")] == ["true"] * 4
    assert given.encode(Table.of({"x": [np.True_, "no", "off", None]}, "rows")).tolist() == [0, 1, 1, 1]
    former = FittedFeature.restore(one(), {"values": ["True", "False", "NaN"], "width": 1})
    assert [former.canonical(value) for value in (True, "true", "False", None)] == ["True", "True", "False", None]
    assert (
        FittedFeature.restore(one(("true", "false")), {"values": ["True", "False"], "width": 1}).canonical(True)
        == "True"
    )


# Unicode

CAFE, GA = "Caf\u00e9", "\uac00"
APART = {text: unicodedata.normalize("NFD", text) for text in (CAFE, GA, "\u00c5ngstr\u00f6m", "\u30ac")}


@pytest.mark.parametrize("text", APART, ids=ascii)
def test_composed_and_decomposed_texts_are_one(text):
    apart = APART[text]
    assert apart != text
    space = FeatureSpace.fit([one()], Table.of({"x": [apart, "b"]}, "rows"))
    assert space["x"].values == (text, "b")
    assert space["x"].canonical(text) == space["x"].canonical(apart) == text
    assert as_id(apart) == text
    assert Table.of([{apart: 1}], "rows").column(text) == [1]
    assert Table.of(pd.DataFrame({apart: [1]}), "rows").column(text) == [1]
    with pytest.raises(InputError, match="two columns have the same name"):
        Table.of({apart: [1], text: [2]}, "rows")


def test_so_in_files_reviews_and_dataset_toml(mall):
    """The TOML names a column and an alias decomposed, the tables composed, and the other way round."""
    toml = (mall / "dataset.toml").read_text("utf-8")
    toml = toml.replace('"skin_type"', f'"{APART[CAFE]}"').replace("mature =", f'"{APART[GA]}" =')
    (mall / "dataset.toml").write_text(toml, encoding="utf-8")
    customers = json.loads((mall / "customers.json").read_text("utf-8"))
    for row in customers:
        row[CAFE] = {"mature": GA}.get(row["skin_type"], row.pop("skin_type"))
        row.pop("skin_type", None)
    products = json.loads((mall / "products.json").read_text("utf-8"))
    products[0]["product_id"] = f"{APART[GA]}1"
    products[0]["reviews"][0]["content"] = APART[CAFE]
    for row in customers:
        row["purchased_product_id"] = row["purchased_product_id"].replace("p1", f"{GA}1")
    (mall / "customers.json").write_text(json.dumps(customers), encoding="utf-8")
    (mall / "products.json").write_text(json.dumps(products), encoding="utf-8")
    dataset = load_dataset(mall)
    assert dataset.set_aside == []
    assert dataset.product_ids[0] == f"{GA}1"
    reviews = read_reviews(mall, dataset.schema)
    assert (reviews.texts[0], reviews.product_ids[0]) == (CAFE, f"{GA}1")
    pd.DataFrame({APART[CAFE]: [1]}).to_csv(mall / "t.csv")
    assert read_table(mall / "t.csv").column(CAFE) == ["1"]


# Numbers


@pytest.mark.parametrize(
    "value", ["1_299", "3_4", "1__2", "_1", b"3", [3], np.array([3]), pd.Series([3]), np.timedelta64(3, "s")]
)
def test_what_is_no_number_is_none(value):
    assert parse_number(value) is None


@pytest.mark.parametrize("number", [5, 5.0, "5", "5.0", " 5e0 ", Decimal("5.00"), np.float16(5), np.int8(5)])
def test_what_is_a_number_is_one(number):
    assert parse_number(number) == 5.0


@pytest.mark.parametrize("short", [np.float16(0.1), np.float32(0.1), np.float64(0.1), 0.1, "0.1", Decimal("0.10")])
def test_a_short_float_is_the_number_that_was_written(short):
    assert as_key(short) == "0.1"


@pytest.mark.parametrize("value", [1j, np.complex64(1)])
def test_a_number_that_no_file_holds_is_no_value(value):
    assert not is_scalar(value)
    assert as_key(value) is None


@pytest.mark.parametrize("word", ["NaN", "nan", "NULL", "null", "\\N", "#N/A", "<NA>", "NaT", " NULL "])
def test_a_word_for_a_missing_value_is_no_value(tmp_path, word):
    (tmp_path / "t.csv").write_text(f"x,y\n{word},1\nb,2\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    space = FeatureSpace.fit([one()], table)
    assert space["x"].values == ("b",)
    for rows in (table, Table.of([{"x": word}, {"x": "b"}], "rows"), Table.of({"x": [None, "b"]}, "rows")):
        assert space.encode(rows)["x"].tolist() == [2, 0]


@pytest.mark.parametrize("word", ["None", "NA", "none", "nil", "Null Bros", "nano"])
def test_other_words_are_values(word):
    assert as_key(word) == word


@pytest.mark.parametrize(
    ("kind", "exact"), [("float64", 2**53), ("float32", 2**24), ("float16", 2**11), ("Float32", 2**24)]
)
def test_ids_that_a_float_has_rounded_are_refused(tmp_path, kind, exact):
    """A database's column of whole numbers with a gap comes as floats; the digit that is lost may be another's id."""
    for number, refused in ((exact - 1, False), (exact, True), (exact + 2, True)):
        frame = pd.DataFrame({"id": pd.array([number], dtype=kind)})
        frame.to_parquet(tmp_path / "t.parquet")
        for table in (Table.of(frame, "frame"), read_table(tmp_path / "t.parquet")):
            if refused:
                with pytest.raises(InputError, match=r"row 1, id: found .*; floats are rounded from 2\^53 on"):
                    table.ids("id")
            else:
                assert table.ids("id") == [str(number)]


def test_exact_ids_of_any_length_are_ids():
    for value in (2**53 + 1, "9007199254740993", Decimal("9007199254740993.00"), np.uint64(2**63 + 1), 10**40):
        assert as_id(value) == str(int(value))
    schema = pa.schema([("id", pa.decimal128(38, 2))])
    assert Table.of(pa.table({"id": [Decimal(1061)]}, schema=schema), "rows").ids("id") == ["1061"]


@pytest.mark.parametrize("text", ["8.80123E+12", "1.7976931348623157e+16", "-1E+20", "9007199254740992.0"])
def test_ids_whose_digits_a_spreadsheet_has_lost_are_refused(tmp_path, text):
    """A file of barcodes that went through Excel, or of ids through pandas' floats: two products became one."""
    assert read_ids_of(tmp_path, "8E12", "1.5E12", "E+12", "8801234567890", "1007199254740992.0") == 5
    with pytest.raises(InputError, match=rf"row 2, id: found '{re.escape(text)}'; .* texts such as 8\.8E\+12"):
        read_ids_of(tmp_path, "a", text)


def read_ids_of(folder, *ids):
    """How many different ids a CSV file has."""
    (folder / "t.csv").write_text("\n".join(["id", *ids]), encoding="utf-8")
    return len(set(read_table(folder / "t.csv").ids("id")))


def test_a_spreadsheets_ids_are_other_ids():
    """None of these is certain to mean 1: they match nothing, which whoever reads purchases counts."""
    assert [as_id(value) for value in ("001", "1.0", "1,0", "#1")] == ["001", "1.0", "1,0", "#1"]


# Dates and lists


@pytest.mark.parametrize(
    "value", [20240301, "20240301", 20240301.0, np.int64(20240301), Decimal(20240301), " 20240301 "]
)
def test_eight_digits_are_a_day(value):
    assert parse_date(value) == parse_date(date(2024, 3, 1)) == 1709251200.0


@pytest.mark.parametrize("value", ["2024-03-01 00:00:00 UTC", "2024-03-01T00:00:00GMT", "2024-03-01 00:00+00:00"])
def test_a_time_in_utc(value):
    assert parse_date(value) == 1709251200.0


def test_a_list_column_of_a_frame_may_have_gaps():
    feature = MultiCategorical("x", "x", None, None, {}, "ignore", "ignore", separator="|")
    frame = pd.DataFrame({"x": [["a", pd.NA], pd.NA, None, float("nan"), np.array(["b"]), ["a|b"], pd.Series(["b"])]})
    space = FeatureSpace.fit([feature], Table.of(frame, "frame"))
    assert space["x"].values == ("a", "b")
    assert (space.encode(Table.of(frame, "frame"))["x"] >= 0).sum(axis=1).tolist() == [1, 0, 0, 0, 1, 2, 1]


def test_whole_numbers_of_a_written_list_are_whole_and_other_words_stay():
    assert as_ids("[1061.0, 'p1', T01.0]") == ["1061", "p1", "T01.0"]


def test_a_written_list_of_a_megabyte_is_read_in_a_moment():
    for text in (
        "[" + "'a', " * 200_000 + "'b']",
        "[" + "a " * 500_000 + "]",
        "[a" + " " * 10**6 + "b]",
        "[" * 10**6 + "]",
    ):
        as_items(text, "|")


def test_purchases_written_as_a_list(mall):
    customers = json.loads((mall / "customers.json").read_text("utf-8"))
    customers[0]["purchased_product_id"] = "['p1', 'p3']"
    (mall / "customers.json").write_text(json.dumps(customers), encoding="utf-8")
    dataset = load_dataset(mall)
    assert [dataset.product_ids[product] for customer, product in dataset.purchases if customer == 0] == ["p1", "p3"]
    customers[0]["purchased_product_id"] = [["p1"]]
    (mall / "customers.json").write_text(json.dumps(customers), encoding="utf-8")
    (row,) = load_dataset(mall).set_aside
    assert row.reason == "purchased_product_id: found [['p1']]; allowed: a product id, or a list of them"


def test_a_file_of_rows_that_share_no_column_is_refused(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps([{f"k{n}": 1} for n in range(10_000)]), encoding="utf-8")
    with pytest.raises(InputError, match="found 10,000 columns; allowed: rows with mostly the same columns"):
        read_table(tmp_path / "t.json")


def test_a_message_of_a_file_does_not_repeat_megabytes(tmp_path):
    long = "x" * 10**6
    (tmp_path / "t.csv").write_text(f"{long},{long}\n1,2\n", encoding="utf-8")
    (tmp_path / "u.csv").write_text(f"{long}\n1\n", encoding="utf-8")
    for call in (lambda: read_table(tmp_path / "t.csv"), lambda: read_table(tmp_path / "u.csv").column("id")):
        with pytest.raises(InputError) as caught:
            call()
        assert len(str(caught.value)) < 5000
    reason = Table.of([{"id": [long]}], "rows").collecting()
    reason.ids("id")
    assert len(reason.problems[0]) < 500
