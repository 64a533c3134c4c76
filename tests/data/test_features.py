"""Tables to arrays: the mall's codes exactly, several values in one field, numbers, nothing from held-out rows."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.data.features import FeatureSpace, FittedFeature, with_product_id
from recsys_jax.data.schema import As, Categorical, MultiCategorical, Numeric, Schema
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError

AMOREMALL = Path(__file__).parents[2] / "data" / "amoremall" / "dataset.toml"


def table(**columns) -> Table:
    return Table.of(columns, "rows.csv")


def says(call, *words: str) -> None:
    """The call must raise `InputError` with these words in it."""
    with pytest.raises(InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def one(values=("a", "b"), labels=None, aliases=None, unknown="error", missing="error") -> Categorical:
    return Categorical("x", "x", values, labels, aliases or {}, unknown, missing)


def several(values=("a", "b", "c"), aliases=None, unknown="error", missing="error", separator="|") -> MultiCategorical:
    return MultiCategorical("x", "x", values, None, aliases or {}, unknown, missing, separator)


def number(
    scale=1.0, clip=None, standardise=False, low=-math.inf, high=math.inf, unknown="error", missing="error"
) -> Numeric:
    return Numeric("x", "x", scale, clip, standardise, float(low), float(high), unknown, missing)


def fitted(feature, values=("a",)) -> FittedFeature:
    values = list(values)
    return FittedFeature.fit(feature, table(x=values))


def encoded(feature, values, train=None) -> list:
    """The array of the values as a list; learned from `train`, by default from the values themselves."""
    values = list(values)
    return fitted(feature, values if train is None else train).encode(table(x=values)).tolist()


# The mall, exactly


@pytest.fixture(scope="module")
def customers() -> FeatureSpace:
    schema = Schema.read(AMOREMALL)
    return FeatureSpace.fit(
        schema.customers.features, table(skin_type=["dry"], skin_concern=["gift"], gender=["F"], age=[30])
    )


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        (
            "skin_type",
            {"dry": 0, "oily": 1, "combination": 2, "sensitive": 3, "normal": 4, "mature": 3, "unknown": 4, " dry ": 0}
            | {None: 4},
        ),
        (
            "skin_concern",
            {"moisture": 0, "wrinkle": 1, "gift": 2, "repurchase": 3, "calming": 4, "texture": 5, None: 0},
        ),
        ("gender", {"F": 0, "M": 1, None: 0}),
    ],
)
def test_the_malls_customers(customers, name, codes):
    codes_found = customers[name].encode(table(**{name: list(codes)}))
    assert codes_found.dtype == np.int32
    assert codes_found.tolist() == list(codes.values())
    # Nothing beyond: no row for unknown or missing values.
    sizes = {"skin_type": 5, "skin_concern": 6, "gender": 2}
    assert customers[name].input == (name, "categorical", sizes[name])


@pytest.mark.parametrize(
    ("name", "value"), [("skin_type", "Dry"), ("skin_concern", "acne"), ("gender", "femal"), ("gender", "x")]
)
def test_the_malls_customers_have_no_other_values(customers, name, value):
    says(lambda: customers[name].encode(table(**{name: [value]})), "row 1", name, repr(value), "allowed")


def test_the_malls_ages(customers):
    ages = customers["age"].encode(table(age=[1, 25, 50, "32", 120, 29.5, None]))
    assert ages.dtype == np.float32
    np.testing.assert_allclose(ages, np.array([[1], [25], [50], [32], [120], [29.5], [35]]) / 50, rtol=1e-6)
    for value in (0, 121, -5, "abc", True):
        says(lambda value=value: customers["age"].encode(table(age=[30, value])), "row 2", "age", "from 1 to 120")


def test_the_malls_products():
    schema = Schema.read(AMOREMALL)
    rows = table(
        category=[103, 97, 98, 99, 101, "97", 97.0, "Skincare", "Makeup", "Perfume", "Accessories", "Men"],
        brand_name=["Sori", "Isul", "Sori", "Maru", "Isul", "Maru", "Haneul", "Sori", "Sori", "Sori", "Sori", "Sori"],
        price=[0, 46000, 200000, 200001, 10**7, "50000", 100000, 1, 1, 1, 1, 1],
    )
    space = FeatureSpace.fit(schema.products.features, rows)
    assert space.names == ["category", "brand", "price"]
    arrays = space.encode(rows)
    assert arrays["category"].tolist() == [4, 0, 1, 2, 3, 0, 0, 0, 1, 2, 3, 4]
    # Sori, Isul, Maru, Haneul: the order of their first products
    assert arrays["brand"].tolist() == [0, 1, 0, 2, 1, 2, 3, 0, 0, 0, 0, 0]
    prices = [0, 46 / 200, 1, 1, 1, 50 / 200, 100 / 200, *[1 / 200000] * 5]
    np.testing.assert_allclose(arrays["price"], np.array(prices)[:, None], rtol=1e-6)
    assert space.inputs == (("category", "categorical", 5), ("brand", "categorical", 5), ("price", "numeric", 1))
    new = table(category=["Men"], brand_name=["never seen"], price=["46210"])
    assert space["brand"].encode(new).tolist() == [4]
    for column, value in [("category", 100), ("category", "skincare"), ("price", -1), ("price", "46,210")]:
        bad = Table.of({**new.columns, column: [value]}, "new")
        says(lambda bad=bad: space.encode(bad), "new, row 1", column, repr(value), "allowed")


def test_the_committed_products_brands_are_in_order_of_appearance():
    schema = Schema.read(AMOREMALL)
    rows = json.loads((AMOREMALL.parent / "products.json").read_text(encoding="utf-8"))
    brands: list[str] = []
    for row in rows:
        if row["brand_name"] not in brands:
            brands.append(row["brand_name"])
    products = Table.of(rows, "products")
    arrays = FeatureSpace.fit(schema.products.features, products).encode(products)
    assert [brands[code] for code in arrays["brand"]] == [row["brand_name"] for row in rows]
    code = {97: 0, 98: 1, 99: 2, 101: 3, 103: 4}
    assert arrays["category"].tolist() == [code[row["category"]] for row in rows]
    np.testing.assert_allclose(arrays["price"][:, 0], [min(row["price"] / 200000, 1) for row in rows], rtol=1e-6)


# One value


def test_learned_values_are_in_order_of_appearance():
    assert encoded(one(values=None, unknown="extra-row"), ["b", "a", "b", "c"]) == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("unknown", "missing", "size", "rows"),
    [
        ("error", "error", 2, None),
        ("extra-row", "error", 3, (2, None)),
        ("error", "extra-row", 3, (None, 2)),
        ("extra-row", "extra-row", 4, (2, 3)),
        (As("b"), "extra-row", 3, (1, 2)),
        (As("b"), As("a"), 2, (1, 0)),
    ],
)
def test_unknown_and_missing(unknown, missing, size, rows):
    feature = fitted(one(unknown=unknown, missing=missing))
    assert feature.input == ("x", "categorical", size)
    for value, row in zip(("zzz", None), rows or (None, None), strict=True):
        if row is None:
            says(
                lambda value=value: feature.encode(table(x=[value])),
                "row 1",
                "x",
                f"found {value!r}" if value else "found nothing",
                "'a', 'b'",
            )
        else:
            assert feature.encode(table(x=["a", value, "b"])).tolist() == [0, row, 1]


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan"), pd.NA])
def test_everything_empty_is_missing(empty):
    assert encoded(one(missing="extra-row"), [empty, "b"]) == [2, 1]


def test_labels_and_aliases():
    feature = one(values=("97", "98"), labels=("Skin", "Lips"), aliases={"Face": "97"})
    assert encoded(feature, [98, "Lips", "Face", "97", 97.0]) == [1, 1, 0, 0, 0]
    assert fitted(feature, ["97"]).label("98") == "Lips"
    assert fitted(feature, ["97"]).canonical("Face") == "97"
    assert fitted(feature, ["97"]).canonical("Eyes") is None
    says(lambda: encoded(feature, ["Eyes"]), "'Eyes'", "'Skin', 'Lips'")


def test_aliases_are_learned_as_what_they_mean():
    feature = one(values=None, aliases={"Korea": "KR"}, unknown="extra-row")
    assert encoded(feature, ["FR", "Korea", "KR"]) == [0, 1, 1]
    assert fitted(feature, ["FR", "Korea"]).values == ("FR", "KR")


def test_an_alias_whose_value_nobody_had_is_unknown():
    """A fold may lack the value that an alias means."""
    feature = one(values=None, aliases={"Korea": "KR"}, unknown="extra-row")
    assert encoded(feature, ["FR", "Korea", "KR", "US"], train=["FR"]) == [0, 1, 1, 1]
    bags = several(values=None, aliases={"Korea": "KR"}, unknown="extra-row")
    assert encoded(bags, ["FR", "Korea"], train=["FR"]) == [[0], [1]]
    strict = fitted(one(values=None, aliases={"Korea": "KR"}), ["FR"])
    says(lambda: strict.encode(table(x=["Korea"])), "row 1", "x", "'Korea'", "'FR'")
    assert strict.canonical("Korea") is None


def test_nothing_to_learn():
    for feature in (one(values=None, missing="extra-row"), several(values=None, missing="ignore")):
        nothing = table(x=[None, ""])
        says(lambda feature=feature, rows=nothing: FeatureSpace.fit([feature], rows), "rows.csv", "'x'", "no value")


def test_a_missing_column():
    for feature in (one(), several(), number(missing="flag")):
        says(lambda feature=feature: FittedFeature.fit(feature, table(y=[1])), "rows.csv", "'x'", "missing", "y")
    for feature, train in ((one(), "a"), (several(), "a"), (number(missing="flag"), 1)):
        model = fitted(feature, [train])
        says(lambda model=model: model.encode(table(y=[1])), "rows.csv", "'x'", "missing", "y")


@pytest.mark.parametrize("column", [np.array([97, 98]), np.array([97, 98], np.float32), np.array(["97", "98"])])
def test_numpy_columns(column):
    feature = fitted(one(values=("97", "98")), ["97"])
    assert feature.encode(Table.of({"x": column}, "rows")).tolist() == [0, 1]


# Several values


def test_lists_and_separated_texts_are_the_same_bags():
    lists = [["a", "c"], ["b"], ["c", "b", "a"], []]
    texts = ["a|c", "b", " c | b |a", ""]
    tuples_and_arrays = [("a", "c"), np.array(["b"]), np.array(["c", "b", "a"]), ()]
    wanted = [[0, 2, -1], [1, -1, -1], [2, 1, 0], [-1, -1, -1]]
    for values in (lists, texts, tuples_and_arrays):
        for separator in ("|", None) if values is not texts else ("|",):
            assert encoded(several(missing="ignore", separator=separator), values) == wanted


def test_without_a_separator_a_text_is_one_value():
    assert encoded(several(values=("a|b",), separator=None), ["a|b"]) == [[0]]


def test_values_of_a_list_may_be_numbers():
    assert encoded(several(values=("1", "2")), [[2, 1.0], "1|2", 2]) == [[1, 0], [0, 1], [1, -1]]


def test_a_value_twice_counts_once():
    bag = encoded(several(aliases={"A": "a"}), ["a|a|b|A", ["b", "b"]])
    assert [[row for row in rows if row >= 0] for rows in bag] == [[0, 1], [1]]


def test_empty_parts_are_passed_over():
    assert encoded(several(), ["a||b|", ["a", None, "", float("nan")]]) == [[0, 1], [0, -1]]


def test_width_is_the_trainings_or_more():
    feature = fitted(several(), ["a|b", "a"])
    assert feature.encode(table(x=["c"])).tolist() == [[2, -1]]
    assert feature.encode(table(x=["a|b|c", "c"])).tolist() == [[0, 1, 2], [2, -1, -1]]


@pytest.mark.parametrize(
    ("unknown", "missing", "size", "bags"),
    [
        # values: "a|zzz", "zzz|yyy", None
        ("extra-row", "extra-row", 5, [[0, 3], [3, -1], [4, -1]]),
        ("ignore", "extra-row", 4, [[0, -1], [3, -1], [3, -1]]),
        ("ignore", "ignore", 3, [[0, -1], [-1, -1], [-1, -1]]),
        (As("b"), As("c"), 3, [[0, 1], [1, -1], [2, -1]]),
    ],
)
def test_unknown_and_missing_in_bags(unknown, missing, size, bags):
    feature = fitted(several(unknown=unknown, missing=missing), ["a|b"])
    assert feature.input == ("x", "multi-categorical", size)
    assert feature.encode(table(x=["a|zzz", "zzz|yyy", None])).tolist() == bags


def test_errors_in_bags():
    says(lambda: encoded(several(), ["a", "b|zzz"]), "row 2", "x", "'b|zzz'", "'a', 'b', 'c'")
    says(lambda: encoded(several(unknown="ignore"), ["a", []]), "row 2", "x", "[]", "'a', 'b', 'c'")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "zzz"]), max_size=5), min_size=1, max_size=5))
def test_bags_hold_what_the_values_hold(values):
    arrays = [
        fitted(several(unknown="ignore", missing="ignore"), values).encode(table(x=form))
        for form in (values, ["|".join(value) for value in values])
    ]
    np.testing.assert_array_equal(*arrays)
    for bag, value in zip(arrays[0].tolist(), values, strict=True):
        known = [row for row in bag if row >= 0]
        assert bag == known + [-1] * (len(bag) - len(known))  # padding only at the end
        assert {"abc"[row] for row in known} == set(value) - {"zzz"}
        assert len(known) == len(set(known))


# Numbers


def test_text_numbers_and_scale():
    values = [12, "12", " 12.0 ", "1.2e1", 12.0, np.float32(12), np.int64(12)]
    assert encoded(number(scale=4.0), values) == [[3.0]] * 7


@pytest.mark.parametrize(
    "value",
    ["abc", "inf", math.inf, -math.inf, True, False, np.True_, "1,000", "12 years", 10**400, "0x10", "1_299"],
)
def test_what_is_no_number(value):
    says(lambda: encoded(number(), [value], train=[1]), "rows.csv, row 1", "x", "a number")
    assert encoded(number(unknown=As(7)), [value], train=[1]) == [[7.0]]
    assert encoded(number(unknown="missing", missing="flag"), [1, value], train=[1, 3]) == [[1.0, 0.0], [2.0, 1.0]]


@pytest.mark.parametrize("value", [[1], {}, b"1", np.array([1])])
def test_what_no_policy_makes_a_number(value):
    for policies in ({}, {"unknown": As(7)}, {"unknown": "missing", "missing": "flag"}):
        says(lambda policies=policies: encoded(number(**policies), [value], train=[1]), "row 1, x: found", "a number")


@pytest.mark.parametrize("value", [None, "", " ", math.nan, np.float32("nan"), pd.NA, "nan", "NULL"])
def test_missing_numbers(value):
    says(lambda: encoded(number(unknown=As(7)), [value], train=[1]), "rows.csv, row 1", "x", "a number")
    assert encoded(number(missing=As(7)), [value], train=[1]) == [[7.0]]
    # The flag is 1 where the number is missing, and the number counts as the training mean (1 + 3) / 2.
    assert encoded(number(missing="flag"), [value, 5], train=[1, 3]) == [[2.0, 1.0], [5.0, 0.0]]
    # Standardised, the mean is 0.
    assert encoded(number(standardise=True, missing="flag"), [value], train=[1, 3]) == [[0.0, 1.0]]


def test_bounds_are_of_the_number_before_scaling():
    feature = number(scale=50.0, low=1, high=120)
    assert encoded(feature, [1, 120]) == [[np.float32(1 / 50)], [np.float32(120 / 50)]]
    for value in (0.99, 120.01, -30):
        says(lambda value=value: encoded(feature, [value]), "row 1", "from 1 to 120")


def test_a_stand_in_is_scaled_too():
    feature = number(scale=50.0, unknown=As(25), missing=As(100), clip=(0.0, 1.0))
    assert encoded(feature, ["abc", None], train=[1]) == [[0.5], [1.0]]


def test_clip_is_after_scaling():
    assert encoded(number(scale=10.0, clip=(0.0, 1.0)), [-5, 0, 5, 10, 15]) == [[0.0], [0.0], [0.5], [1.0], [1.0]]


def test_standardised_by_hand():
    # Of 2, 4, 6: mean 4, deviation sqrt((4 + 0 + 4) / 3).
    found = np.array(encoded(number(standardise=True), [2, 4, 6, 10], train=[2, 4, 6]))
    np.testing.assert_allclose(found[:, 0], np.array([-2, 0, 2, 6]) / math.sqrt(8 / 3), rtol=1e-6)


@settings(deadline=None, max_examples=80)
@given(
    train=st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).filter(lambda xs: len(set(xs)) > 1),
    scale=st.sampled_from([0.1, 1.0, 7.0, 1e5]),
)
def test_standardised_training_rows_have_mean_0_and_deviation_1(train, scale):
    found = np.array(encoded(number(standardise=True, scale=scale, missing="flag"), [*train, None], train=train))
    numbers = found[:-1, 0]
    np.testing.assert_allclose([numbers.mean(), numbers.std()], [0, 1], atol=1e-4)
    assert found[-1].tolist() == [0, 1]


@settings(deadline=None, max_examples=80)
@given(value=st.integers(1, 120), count=st.integers(1, 40))
def test_a_constant_number_says_nothing(value, count):
    """Rounding must not become a deviation: 46 / 50 would be some 10**13 deviations from 47 / 50."""
    feature = fitted(number(standardise=True, scale=50.0), [value] * count)
    found = feature.encode(table(x=[value, value + 1]))[:, 0]
    np.testing.assert_allclose(found, [0, 1 / 50], atol=1e-5)


def test_the_mean_is_after_clipping():
    # 1000 is clipped to 10: mean (0 + 10) / 2 = 5, deviation 5.
    assert encoded(number(standardise=True, clip=(0.0, 10.0)), [0, 1000]) == [[-1.0], [1.0]]


def test_all_missing():
    assert encoded(number(standardise=True, missing="flag"), [None, None]) == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize("value", [1e300, -1e300, "1e39"])
def test_numbers_that_float32_cannot_hold(value):
    """An infinity would make every score of the row NaN."""
    try:
        found = encoded(number(), [value], train=[1])
    except InputError:
        return
    assert np.isfinite(found).all()


@settings(deadline=None, max_examples=100)
@given(
    value=st.one_of(st.text(max_size=5), st.floats(), st.integers(), st.booleans(), st.none(), st.lists(st.integers())),
    feature=st.sampled_from(
        [
            number(scale=50.0, low=1, high=120),
            number(clip=(0.0, 1.0), standardise=True, unknown="missing", missing="flag"),
            one(unknown="extra-row", missing="extra-row"),
            one(),
            several(unknown="ignore", missing="ignore"),
            several(),
        ]
    ),
)
def test_no_value_raises_anything_else(value, feature):
    model = fitted(feature, [1] if isinstance(feature, Numeric) else ["a"])
    try:
        said = "" if np.isfinite(model.encode(table(x=[value]))).all() else "not finite"
    except InputError as error:
        said = str(error)
    assert said == "" or said.startswith("rows.csv, row 1, x: found ")


# Learned only from the rows that are given


def test_held_out_rows_teach_nothing(films):
    features = Schema.read(films / "dataset.toml").customers.features
    clean = {
        "favourite_genres": ["Drama|Crime", "Comedy", "Drama"],
        "country": ["KR", "FR", None],
        "age": [20, 40, None],
    }
    poison = {
        "favourite_genres": ["A|B|C|D|E|F", ["poison"], 5],
        "country": ["XX", "Korea", "YY"],
        "age": [1e30, "abc", -5],
    }
    alone = FeatureSpace.fit(features, table(**clean))
    for order in ([0, 1, 2, 3, 4, 5], [3, 0, 4, 1, 5, 2]):
        mixed = table(**{name: [([*clean[name], *poison[name]])[i] for i in order] for name in clean})
        train = [place for place, row in enumerate(order) if row < 3]
        space = FeatureSpace.fit(features, mixed, train)
        assert [one_.learned() for one_ in space] == [other.learned() for other in alone]
        assert space.inputs == alone.inputs
    assert alone["likes"].values == ("Drama", "Crime", "Comedy")
    assert alone["country"].values == ("KR", "FR")
    assert alone["age"].mean == pytest.approx((20 / 100 + 40 / 100) / 2)


def test_an_error_in_a_training_row_names_the_row():
    says(lambda: FittedFeature.fit(number(), table(x=[1, "abc", 3]).select([2, 1])), "rows.csv, row 2", "'abc'")


# What is kept


def test_learned_is_json_and_restores():
    for feature, values in [
        (one(values=None), ["b", "a"]),
        (several(values=None), ["b|a", "c"]),
        (number(standardise=True, scale=3.0), [1, 2, 4]),
    ]:
        before = fitted(feature, values)
        after = FittedFeature.restore(feature, json.loads(json.dumps(before.learned())))
        assert after == before


def test_the_id_as_a_feature():
    features = with_product_id((one(),), "id")
    assert [feature.name for feature in features] == ["x", "product_id"]
    space = FeatureSpace.fit(features, table(x=["a", "b"], id=["p1", "p2"]))
    new = table(x=["a", "a", "a"], id=["p2", "p9", "p1"])
    assert space.encode(new)["product_id"].tolist() == [1, 2, 0]
    assert space["product_id"].unknown_row == 2
