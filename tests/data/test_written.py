"""Numbers and dates as people write them: with units, commas between thousands, the year first."""

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_jax.data.schema import Schema
from recsys_jax.data.values import NumberForm, parse_date
from recsys_jax.errors import InputError

AGES = NumberForm({"대": 5, "대 초반": 2, "세": 0, "만": 0})
PRICES = NumberForm({"원": 0, "₩": 0, "€": 0}, ",")


@given(st.floats(-1e15, 1e15) | st.integers(-(10**15), 10**15), st.sampled_from(["", " "]), st.booleans())
def test_every_number_reads_back_with_its_unit(number, space, before):
    for unit, added in AGES.units.items():
        text = f"{unit}{space}{number}" if before else f"{number}{space}{unit}"
        assert AGES.number(text) == float(number) + added
    assert AGES.number(number) == AGES.number(f" {number} ") == float(number)


@given(st.integers(-(10**15), 10**15), st.sampled_from(["{:,}", "{:,}원", "₩{:,}", "{:,} €"]))
def test_every_number_reads_back_with_its_thousands(number, form):
    assert PRICES.number(form.format(number)) == number
    assert PRICES.number(form.format(number + 0.5)) == number + 0.5


@pytest.mark.parametrize(
    "text", ["세", "대 세", "46세세", "만 46세", "4 6세", "46살", "세46세", "46,000세", "nan세", "", "1_0세"]
)
def test_what_is_no_age(text):
    assert AGES.number(text) is None


@pytest.mark.parametrize(
    "text", ["17,00", "17,00원", "₩17,000원", "원", ",500원", "1700,000", "17,000,", "1,299,5", "0,125", "17, 000"]
)
def test_what_is_no_price(text):
    assert PRICES.number(text) is None


def test_without_units_nothing_new_is_read():
    assert [NumberForm().number(one) for one in ("46세", "17,000", "46")] == [None, None, 46.0]


def schema(**keys) -> Schema:
    feature = {"name": "나이", "kind": "numeric", "unknown": "error", "missing": "error", **keys}
    part = {"file": "x.csv", "id": "id", "features": [feature]}
    return Schema.parse({"name": "x", "products": part, "customers": part | {"purchases": "bought"}}, "dataset.toml")


def test_units_are_a_list_or_say_what_each_adds():
    assert schema(units=["대", " 세 "]).customers.features[0].number("20대") == 20
    assert schema(units={"대": 5}).customers.features[0].number("20대") == 25
    assert schema().customers.features[0].number("20대") is None


@pytest.mark.parametrize(
    "keys",
    [{"units": one} for one in ("세", [1], ["1"], [""], ["세", "세 "], {"대": "5"}, {"대": float("inf")})]
    + [{"thousands": "."}, {"thousands": True}],
)
def test_other_forms_are_refused(keys):
    with pytest.raises(InputError, match=rf"feature 1 \(나이\): {next(iter(keys))}: found .*; allowed: "):
        schema(**keys)


ORDERS = "{0.year}. {0.month}. {0.day}", "{0.year}. {0.month}. {0.day}.", "{0:%Y.%m.%d}", "{0:%Y/%m/%d}"
LETTERS = "{0.year}년 {0.month}월 {0.day}일", "{0.year}年{0.month}月{0.day}日", "{0.year}-{0.month}-{0.day}"


@given(st.dates(date(1900, 1, 1)), st.sampled_from(ORDERS + LETTERS))
def test_dates_with_the_year_first(day, form):
    text, iso = form.format(day), day.isoformat()
    assert parse_date(text) == parse_date(iso)
    assert parse_date(f"{text} 9:30") == parse_date(f"{text} 09:30:00") == parse_date(f"{iso}T09:30")
    assert parse_date(f"{text} 09:30:00+09:00") == datetime.fromisoformat(f"{iso}T09:30+09:00").timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "27.06.2025",
        "6/27/2025",
        "2025. 27. 6",
        "2025.6/27",
        "25.6.27",
        "2025년 6월",
        "2025. 2. 30",
        "2025.6.27 noon",
        "27. 6. 2025",
    ],
)
def test_other_orders_are_no_dates(text):
    assert parse_date(text) is None
