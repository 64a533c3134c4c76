"""Requests are read as strictly as files, and answered in plain values."""

import json
from datetime import date
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys_jax import InputError, Recommender

pytestmark = pytest.mark.wild
DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
FILM = {"film": "f9", "studio": "Big", "genres": "Drama", "year": 2001}
COUNTRY = "country: found", "allowed: one value, a text or a number"
GENRES = "favourite_genres: found", "allowed: a text, a number, or a list of such"
BOUGHT = "purchased_products: found", "allowed: a list of product ids"


@pytest.fixture
def films(films_model):
    """A model that admits unseen and missing values, in which a value of another kind would pass for one of them."""
    return Recommender(films_model)


@pytest.fixture
def mall(mall_model):
    return Recommender(mall_model)


def says(call, *words):
    """The sentence of the `InputError` that the call must raise, with these words in it."""
    with pytest.raises(InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def ids(found):
    return [one["product_id"] for one in found]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *(("country", value, COUNTRY) for value in (["KR"], {"v": "KR"}, b"KR", {"KR"}, ("KR",), [], object())),
        *(
            ("country", value, COUNTRY)
            for value in (np.array(["KR"]), pd.Series(["KR"]), (x for x in "K"), np.bytes_(b"K"))
        ),
        *(("favourite_genres", value, GENRES) for value in ({"Drama": 1}, [["Drama"]], b"Drama", [b"Drama"])),
        *(
            ("favourite_genres", value, GENRES)
            for value in ([{"Drama"}], pd.DataFrame({"a": [1]}), "['Drama' 'Crime']")
        ),
        *(
            ("age", value, ("age: found", "allowed: a number"))
            for value in ([30], b"30", np.array([30]), pd.Series([30]), {})
        ),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_of_another_kind_is_no_unseen_value(films, name, value, words):
    says(lambda: films.recommend(**{name: value}), "recommend(), ", *words)
    says(lambda: films.recommend_batch([{}, {name: value}]), "row 2", *words)
    says(lambda: films.recommend_batch({name: [None, value]}), "row 2", *words)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(pa.list_(pa.string()), ["KR"]), (pa.struct([("v", pa.string())]), {"v": "KR"}), (pa.binary(), b"KR")],
    ids=str,
)
def test_nor_is_a_column_of_another_kind(films, kind, value):
    says(lambda: films.recommend_batch(pa.table({"country": pa.array([None, value], kind)})), "row 2", *COUNTRY)


@pytest.mark.parametrize(
    "value",
    [
        *(("Drama", "Crime"), {"Drama", "Crime"}, frozenset(["Crime", "Drama"]), np.array(["Drama", "Crime"])),
        *(pd.Series(["Drama", "Crime"]), pd.Index(["Drama", "Crime"]), {"Drama": 1, "Crime": 2}.keys()),
        *(pa.array(["Drama", "Crime"]), ["Drama", pd.NA, "Crime"], ["Drama", None, "Crime"], "['Drama', 'Crime']"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_kinds_of_lists_are_lists(films, value):
    found, wanted = (
        {one["product_id"]: one["score"] for one in films.recommend(favourite_genres=several, top_n=9)}
        for several in (value, ["Drama", "Crime"])
    )
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "bought",
    [
        *([["p1"]], [("p1",)], [{"p1"}], [b"p1"], [{"id": "p1"}], [np.array(["p1"])], [[["p1"]]], [pd.Series(["p1"])]),
        *([True], [float("inf")], [2.0**53], ["p1\0"], "['p1' 'p2']", {"p1": 1}, pd.DataFrame({"a": ["p1"]})),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_purchases_that_would_be_passed_over_are_refused(mall, bought):
    says(lambda: mall.recommend(**DRY, purchased_products=bought), "recommend(), ", *BOUGHT)
    says(lambda: mall.recommend_batch([DRY, DRY], purchased_products=[[], bought]), "row 2", *BOUGHT)
    says(lambda: mall.recommend_batch([DRY, {**DRY, "purchased_products": bought}]), "row 2", *BOUGHT)


@pytest.mark.parametrize(
    "bought",
    [
        *(pd.Series(["p1", "p2"], index=[7, 7]), pd.Index(["p1", "p2"]), pa.array(["p1", "p2"])),
        *({"p1", "p2"}, {"p1": 1, "p2": 3}.keys(), ["p1", pd.NA, " p2 ", float("nan")], "['p1', 'p2']", '["p1", "p2"]'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_purchases_in_any_list(mall, bought):
    assert not {"p1", "p2"} & set(ids(mall.recommend(**DRY, purchased_products=bought, top_n=9)))
    found = mall.recommend_batch([DRY, DRY], purchased_products=pd.Series([bought, pd.NA]), top_n=9)
    assert [len(one) for one in found] == [6, 8]


def test_strict_refuses_what_excludes_nothing(mall):
    """Spreadsheets and databases write other ids: what was bought would come back without a word."""
    for wrong in ("p1.0", "P1", "0p1", 1.0, Decimal("1.50")):
        assert len(mall.recommend(**DRY, purchased_products=["p1", wrong], top_n=9)) == 7
        words = "purchased_products: found", "allowed: ids of products, and none has"
        says(lambda wrong=wrong: mall.recommend(**DRY, purchased_products=["p1", wrong], strict=True), *words)
        says(
            lambda wrong=wrong: mall.recommend_batch([DRY], purchased_products=[[wrong]], strict=True), "row 1", *words
        )
        says(lambda wrong=wrong: mall.rank_batch([DRY], purchased_products=[[wrong]], strict=True), "row 1", *words)
    assert len(mall.recommend(**DRY, purchased_products=["p1", None, ""], strict=True, top_n=9)) == 7
    assert mall.unmatched(["p1", " p2 ", "p9", "P1"]) == ["p9", "P1"]


@pytest.mark.parametrize(
    "value", [1061, 1061.0, Decimal("1061.00"), np.int64(1061), np.float32(1061), "1061", Fraction(1061)]
)
def test_numbers_that_mean_the_same_are_one_id(films, value):
    films.add_products([{**FILM, "film": value}])
    assert films.product_ids[-1] == "1061"
    for bought in (1061, 1061.0, Decimal("1061.00"), "1061"):
        assert "1061" not in ids(films.recommend(purchased_products=[bought], top_n=9, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({"studio": value}, ("studio: found", "one value")) for value in (["Big"], {"a": 1}, b"Big", {"Big"})),
        *(({"genres": value}, ("genres: found", "a list of such")) for value in ({"Drama": 1}, [["Drama"]], b"Drama")),
        *(({"year": value}, ("year: found", "a number")) for value in ([2001], b"2001")),
        *(({"film": value}, ("film: found", "an id")) for value in (["f9"], b"f9", True, "TRUE", 2.0**53, "NULL")),
        ({"genres": "\ud800"}, ("genres: found", "whole characters")),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_product_of_another_kind_is_not_added(films, change, words):
    before = films.product_ids
    says(lambda: films.add_products([{**FILM, **change}]), "add_products(), row 1, ", *words)
    assert films.product_ids == before


def test_a_name_that_is_no_text_is_not_added(mall):
    new = {"product_id": "n", "product_name": "N", "brand_name": "Isul", "category": 97, "price": 5}
    for value in (["n"], {"a": [1]}, b"n", "\ud800"):
        says(lambda value=value: mall.add_products([{**new, "product_name": value}]), "product_name: found")
        says(lambda value=value: mall.add_products([{**new, "brand_name": value}]), "brand_name: found")
    assert len(mall.product_ids) == 8


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        *((Decimal("5.50"), 5.5), (Decimal("5.00"), 5), (np.int64(5), 5), (np.float32(5.5), 5.5), ("5.0", 5)),
        *((np.uint8(5), 5), (Decimal("1E+2"), 100)),
    ],
)
def test_results_hold_plain_values(mall, price, shown):
    name = np.str_("Cafe\u0301")
    frame = pd.DataFrame(
        [{"product_id": 9, "product_name": name, "brand_name": "Isul", "category": 97, "price": price}]
    )
    mall.add_products(frame.astype({"price": object}))
    found = {one["product_id"]: one for one in mall.recommend(**DRY, top_n=9)}["9"]
    assert json.loads(json.dumps(found)) == found
    assert (found["price"], type(found["price"]), found["name"]) == (shown, type(shown), "Caf\u00e9")


@pytest.mark.parametrize(
    ("name", "shown"), [(date(2024, 3, 1), "2024-03-01"), (pd.NaT, None), (pd.NA, None), (float("nan"), None), (7.0, 7)]
)
def test_a_date_a_number_or_a_gap_as_a_name(mall, name, shown):
    mall.add_products([{"product_id": "n", "product_name": name, "brand_name": "Isul", "category": 97, "price": 5}])
    found = {one["product_id"]: one for one in mall.recommend(**DRY, top_n=9)}["n"]
    assert found["name"] == shown
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "value", ["x" * 10**6, ["x" * 10**6], ["x"] * 10**6, {"x" * 10**6: 1}], ids=["text", "in a list", "list", "key"]
)
def test_a_message_does_not_repeat_megabytes(mall, value):
    calls = [
        lambda: mall.recommend(**{**DRY, "skin_type": value}),
        lambda: mall.recommend(**{**DRY, "age": value}),
        lambda: mall.recommend(**DRY, categories=value),
        lambda: mall.recommend(**DRY, categories=[value]),
        lambda: mall.recommend(**DRY, top_n=value),
        lambda: mall.recommend(**DRY, purchased_products=[value], strict=True),
        lambda: mall.recommend_batch([DRY], purchased_products=value),
        lambda: mall.add_products([{"product_id": value}]),
        lambda: mall.add_products([{str(value): 1}]),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert len(str(caught.value)) < 5000
        assert "allowed" in str(caught.value) or "missing" in str(caught.value)


def test_rows_of_different_columns_take_no_more_memory_than_they_say(mall):
    rows = [{f"k{n}": n} for n in range(10_000)]
    says(lambda: mall.recommend_batch(rows), "recommend_batch(): found 10,000 columns", "mostly the same columns")
    says(lambda: mall.add_products(rows), "add_products(): found 10,000 columns")
    some = [{**DRY, f"note {n}": n} for n in range(900)]  # a few are nothing to refuse
    assert len(mall.recommend_batch(some)) == 900
