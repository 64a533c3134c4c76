"""The API that a service imports, against the towers written out by hand."""

import copy
import itertools
import json
import math
import pickle
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax import Dataset, InputError, Recommender, Table, WideConfig, fit, load_dataset
from recsys_jax.retrieval import scoring
from recsys_jax.serving.boosts import read_boosts

DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
OILY = {"age": 45, "gender": "M", "skin_type": "oily", "skin_concern": "texture"}
PEOPLE = [
    DRY,
    OILY,
    {"age": 58, "gender": "F", "skin_type": "mature", "skin_concern": "wrinkle"},
    {"age": "19", "gender": "M", "skin_type": "unknown", "skin_concern": "gift"},
    {"age": 120, "gender": "F", "skin_type": "sensitive", "skin_concern": "calming"},
    {"age": 1, "gender": "M", "skin_type": "combination", "skin_concern": "repurchase"},
    {"age": 27.5, "gender": "F", "skin_type": "normal", "skin_concern": "moisture"},
    DRY,
    {"age": 33, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"},
]
BOUGHT = [
    ["p8"],
    [],
    ["p1", "p2", "p3"],
    ["p99", "p5"],
    ["p1"] * 3,
    ["p7", "p6", "p5", "p4", "p3", "p2", "p1"],
    [],
    (),
    [],
]
ALL = {f"p{n}" for n in range(1, 9)}
# id: (category's row, brand's row, price, category, category's label), typed from the mall's table
PRODUCTS = {
    "p1": (0, 0, 46000, "Skincare"),
    "p2": (0, 1, 32000, "Skincare"),
    "p3": (1, 0, 18000, "Makeup"),
    "p4": (1, 2, 24000, "Makeup"),
    "p5": (2, 1, 120000, "Perfume"),
    "p6": (3, 2, 9000, "Accessories"),
    "p7": (4, 3, 28000, "Men"),
    "p8": (0, 0, 250000, "Skincare"),
}
NEW = {"product_id": "n1", "product_name": "New", "brand_name": "Nobody yet", "category": 97, "price": 46000}


@pytest.fixture
def mall_rec(served) -> Recommender:
    return Recommender(served)


@pytest.fixture
def films_rec(served_films) -> Recommender:
    return Recommender(served_films)


@pytest.fixture
def boosted(served, tmp_path):
    """A recommender of the mall with the rules of a text."""

    def make(text: str) -> Recommender:
        path = tmp_path / "boosts.toml"
        path.write_text(text, encoding="utf-8")
        return Recommender(served, read_boosts(path, served.customers, served.products))

    return make


def ids(found) -> list[str]:
    return [one["product_id"] for one in found]


def by_id(found) -> dict[str, dict]:
    return {one["product_id"]: one for one in found}


def of_rules(one) -> dict[str, float]:
    """What rules added, without popularity, which some recipes add too."""
    return one["boosts"]


def in_order(found) -> bool:
    sums = [one["score"] + one["popularity"] + one["boost"] for one in found]
    return all(first >= second - 1e-6 for first, second in itertools.pairwise(sums))


def says(call, *words: str) -> str:
    """The call must raise `InputError` with these words in it."""
    with pytest.raises(InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def same(found, wanted) -> None:
    assert [ids(one) for one in found] == [ids(one) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose([x["score"] for x in one], [x["score"] for x in other], atol=1e-6, rtol=0)


# The score, by hand


def tower(variables, side: str, rows: list[int], names: list[str], numbers: list[float]) -> np.ndarray:
    """Embeddings and numbers -> Linear -> ReLU -> BatchNorm with running statistics -> Linear -> unit length."""
    params, stats = variables["params"][side]["deep"], variables["batch_stats"][side]["deep"]["norm"]
    parts = [params[f"{name}_emb"][row] for name, row in zip(names, rows, strict=True)]
    x = np.concatenate([*parts, numbers]).astype(np.float64)
    x = np.maximum(x @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
    x = x @ params["output"]["kernel"] + params["output"]["bias"]
    return x / np.sqrt((x * x).sum())


CUSTOMER_ROWS = [(DRY, [0, 0, 0], 32), (OILY, [1, 5, 1], 45), (PEOPLE[2], [3, 1, 0], 58), (PEOPLE[3], [4, 2, 1], 19)]


@pytest.mark.parametrize(("customer", "rows", "age"), CUSTOMER_ROWS)
def test_scores_by_hand(mall_model, customer, rows, age):
    variables = mall_model.variables
    # The running statistics have moved, so that leaving them out would be noticed.
    assert np.abs(variables["batch_stats"]["customer"]["deep"]["norm"]["mean"]).max() > 0.01
    c = tower(variables, "customer", rows, ["skin_type", "skin_concern", "gender"], [age / 50])
    wanted = {
        product_id: (
            1 + c @ tower(variables, "product", [category, brand], ["category", "brand"], [min(price / 2e5, 1)])
        )
        / 2
        for product_id, (category, brand, price, _) in PRODUCTS.items()
    }
    found = Recommender(mall_model).recommend(**customer, top_n=8)
    assert ids(found) == sorted(wanted, key=wanted.get, reverse=True)
    for one in found:
        assert one["score"] == pytest.approx(wanted[one["product_id"]], abs=1e-5)
        assert one["boost"] == 0.0
        assert one["boosts"] == {}
    assert max(wanted.values()) - min(wanted.values()) > 0.1


def test_what_is_said_of_a_product(mall_rec):
    found = by_id(mall_rec.recommend(**DRY, top_n=8))
    assert set(found) == ALL
    for product_id, (_, _, price, label) in PRODUCTS.items():
        assert found[product_id]["category"] == label
        assert found[product_id]["price"] == price
    assert (found["p2"]["name"], found["p2"]["brand"]) == ("Calm Cream", "Sori")
    assert set(found["p2"]) == {
        "product_id",
        "name",
        "brand",
        "category",
        "price",
        "score",
        "popularity",
        "boost",
        "boosts",
    }
    json.dumps(found)  # plain values, as a service needs them


def test_three_by_default(mall_rec):
    assert ids(mall_rec.recommend(**DRY)) == ids(mall_rec.recommend(**DRY, top_n=8))[:3]
    assert ids(mall_rec.recommend_batch([DRY])[0]) == ids(mall_rec.recommend(**DRY))


def test_people_differ(mall_rec):
    assert len({tuple(ids(mall_rec.recommend(**person, top_n=8))) for person in PEOPLE}) > 1


def test_aliases_and_texts_mean_the_same(mall_rec):
    one = mall_rec.recommend(age=58, gender="F", skin_type="sensitive", skin_concern="wrinkle", top_n=8)
    two = mall_rec.recommend(age="58", gender=" F", skin_type="mature", skin_concern="wrinkle", top_n=np.int64(8))
    assert one == two


# A batch is its rows


@pytest.mark.parametrize("count", [1, 2, 8, 9])
@pytest.mark.parametrize("kind", ["dicts", "columns", "frame", "arrow", "numpy"])
def test_a_batch_is_its_rows(mall_rec, kind, count):
    people, purchased = [dict(one, age=float(one["age"])) for one in PEOPLE[:count]], BOUGHT[:count]
    columns = {name: [one[name] for one in people] for name in DRY}
    rows = {
        "dicts": people,
        "columns": columns,
        "frame": pd.DataFrame(people),
        "arrow": pa.table(columns),
        "numpy": {name: np.array(column) for name, column in columns.items()},
    }[kind]
    wanted = [
        mall_rec.recommend(**one, purchased_products=out, top_n=5) for one, out in zip(people, purchased, strict=True)
    ]
    found = mall_rec.recommend_batch(rows, purchased_products=purchased, top_n=5)
    same(found, wanted)
    assert [len(one) for one in found] == [5, 5, 5, 5, 5, 1, 5, 5, 5][:count]


@settings(deadline=None, max_examples=15)
@given(
    people=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    top_n=st.integers(1, 10),
    categories=st.none() | st.lists(st.sampled_from([97, 98, 99, "Men"]), min_size=1, max_size=3),
)
def test_any_batch_is_its_rows(served, people, seed, top_n, categories):
    rec, rng = Recommender(served), np.random.default_rng(seed)
    out = [rng.choice(sorted(ALL), rng.integers(0, 9), replace=False).tolist() for _ in people]
    found = rec.recommend_batch(people, purchased_products=out, top_n=top_n, categories=categories)
    wanted = [
        rec.recommend(**one, purchased_products=gone, top_n=top_n, categories=categories)
        for one, gone in zip(people, out, strict=True)
    ]
    same(found, wanted)
    for one, gone in zip(found, out, strict=True):
        assert not set(ids(one)) & set(gone)
        assert len(ids(one)) == len(set(ids(one))) <= top_n
        assert in_order(one)


def test_the_exclusions_of_a_batch_may_be_a_column(mall_rec):
    rows = [dict(DRY, purchased_products=["p8", "p1"]), dict(OILY, purchased_products=None), DRY]
    found = mall_rec.recommend_batch(rows, top_n=8)
    assert [len(one) for one in found] == [6, 8, 8]
    assert not {"p8", "p1"} & set(ids(found[0]))


def test_a_frame_may_lack_some_exclusions(mall_rec):
    """Where a row has none, pandas puts NaN."""
    frame = pd.DataFrame([dict(DRY, purchased_products=["p8", "p1"]), DRY])
    assert [len(one) for one in mall_rec.recommend_batch(frame, top_n=8)] == [6, 8]


def test_columns_that_nothing_reads_are_passed_over(mall_rec):
    rows = [dict(DRY, user_id="u1", note={"a": 1})]
    same(mall_rec.recommend_batch(rows), [mall_rec.recommend(**DRY)])


def test_empty_batches(mall_rec):
    assert mall_rec.recommend_batch([]) == []
    assert mall_rec.recommend_batch({name: [] for name in DRY}) == []
    assert mall_rec.recommend_batch(pd.DataFrame(columns=list(DRY))) == []


def test_a_batch_names_the_row(mall_rec):
    says(lambda: mall_rec.recommend_batch([DRY, dict(OILY, age=-3)]), "row 2", "age", "-3", "from 1 to 120")
    says(lambda: mall_rec.recommend_batch([DRY, dict(OILY, gender="X")]), "row 2", "gender", "'X'", "'F', 'M'")
    says(lambda: mall_rec.recommend_batch([DRY, {"age": 3}]), "row 2", "skin_type", "found nothing", "'dry'")
    says(lambda: mall_rec.recommend_batch([{"age": 3}]), "'skin_type'", "missing", "age")
    says(lambda: mall_rec.recommend_batch([{}]), "recommend_batch()")
    says(
        lambda: mall_rec.recommend_batch([DRY, OILY], purchased_products=[[], "p1"]),
        "row 2",
        "purchased",
        "'p1'",
        "list",
    )


@pytest.mark.parametrize("purchased", [[], [[]], [[], [], []], "p1"])
def test_exclusions_of_another_length(mall_rec, purchased):
    says(lambda: mall_rec.recommend_batch([DRY, OILY], purchased_products=purchased), "purchased_products")


@pytest.mark.parametrize("purchased", [7, "p1", b"p1", (x for x in [["p1"]])])
def test_exclusions_that_are_no_list(mall_rec, purchased):
    """One row, so that a text of two letters can't be taken for two rows."""
    says(
        lambda: mall_rec.recommend_batch([DRY], purchased_products=purchased),
        *("recommend_batch(), purchased_products", repr(purchased), "a list of product ids for each of the 1 rows"),
    )


@pytest.mark.parametrize("rows", [None, 3, "abc", DRY, [1, 2], {"age": 32}])
def test_rows_that_are_no_rows(mall_rec, rows):
    """DRY itself: one dict instead of a list of dicts."""
    says(lambda: mall_rec.recommend_batch(rows), "recommend_batch()")


def test_ties_go_to_the_lower_index(served):
    """Two new products that differ in nothing have one score, whichever is added first."""
    for order in (["n1", "n2"], ["n2", "n1"]):
        rec = Recommender(served)
        rec.add_products([dict(NEW, product_id=product_id) for product_id in order])
        for found in (rec.recommend(**DRY, top_n=10), rec.recommend_batch([DRY], top_n=10)[0]):
            assert [product_id for product_id in ids(found) if product_id in order] == order
            assert len({one["score"] for one in found if one["product_id"] in order}) == 1


@pytest.mark.parametrize("way", ["saved and loaded", "pickled"])
def test_a_copy_recommends_the_same(served, served_run, mall_rec, way):
    copied = Recommender.load(served_run) if way == "saved and loaded" else pickle.loads(pickle.dumps(mall_rec))
    for rec in (mall_rec, copied):
        rec.add_products([NEW])
    for one in PEOPLE:
        assert copied.recommend(**one, top_n=9) == mall_rec.recommend(**one, top_n=9)
    options = {"purchased_products": BOUGHT, "categories": ["Skincare", "Men"], "top_n": 4}
    assert copied.recommend_batch(PEOPLE, **options) == mall_rec.recommend_batch(PEOPLE, **options)


# Exclusions and how many


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, np.array])
def test_purchased_never_appear(mall_rec, kind):
    every = ids(mall_rec.recommend(**DRY, top_n=8))
    found = ids(mall_rec.recommend(**DRY, purchased_products=kind([every[0], every[3]]), top_n=8))
    assert found == [product_id for product_id in every if product_id not in (every[0], every[3])]


def test_unknown_purchases_are_passed_over(mall_rec):
    wanted = mall_rec.recommend(**DRY, top_n=8)
    assert mall_rec.recommend(**DRY, purchased_products=["p99", "", None, 5], top_n=8) == wanted
    assert mall_rec.recommend(**DRY, purchased_products=None, top_n=8) == wanted


def test_fewer_remain(mall_rec):
    found = mall_rec.recommend(**DRY, purchased_products=[f"p{n}" for n in range(1, 7)], top_n=5)
    assert sorted(ids(found)) == ["p7", "p8"]
    assert mall_rec.recommend(**DRY, purchased_products=sorted(ALL), top_n=5) == []
    assert mall_rec.recommend_batch([DRY, OILY], purchased_products=[sorted(ALL), ["p1"]], top_n=9)[0] == []


@pytest.mark.parametrize("top_n", [8, 9, 17, 1000])
def test_more_than_there_are(mall_rec, top_n):
    found = mall_rec.recommend(**DRY, top_n=top_n)
    assert set(ids(found)) == ALL
    assert len(found) == 8


@pytest.mark.parametrize("top_n", [10**6, 10**18, 2**200], ids=["million", "10**18", "2**200"])
def test_far_more_than_there_are_costs_nothing(mall_rec, monkeypatch, top_n):
    """Without a bound, 10**9 takes all memory and 10**18 ends the process from inside XLA."""
    real = scoring.top_k

    def top_k(customers, products, k, **options):
        assert k <= 64, "more is asked of the device than there are products"
        return real(customers, products, k, **options)

    monkeypatch.setattr(scoring, "top_k", top_k)
    assert set(ids(mall_rec.recommend(**DRY, top_n=top_n))) == ALL
    assert set(ids(mall_rec.recommend_batch([DRY], top_n=top_n)[0])) == ALL


@pytest.mark.parametrize("top_n", [0, -1, 1.5, True, False, "3", None, [3], math.nan, 3.0])
def test_bad_numbers(mall_rec, top_n):
    found = "nothing" if top_n is None else repr(top_n)
    says(lambda: mall_rec.recommend(**DRY, top_n=top_n), "top_n", found, "whole number")
    says(lambda: mall_rec.recommend_batch([DRY], top_n=top_n), "top_n", found, "whole number")


@pytest.mark.parametrize("purchased", ["p1", "p1,p2", b"p1", 5, {"p1": 1}, (x for x in ["p1"])])
def test_purchases_that_are_no_list(mall_rec, purchased):
    says(lambda: mall_rec.recommend(**DRY, purchased_products=purchased), "purchased_products", "list of product ids")


# Attributes


def test_unknown_attributes(mall_rec):
    says(
        lambda: mall_rec.recommend(**DRY, colour="red"),
        *("'colour'", "'skin_type'", "'skin_concern'", "'gender'", "'age'"),
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("age", -1, "from 1 to 120"),
        ("age", 0, "from 1 to 120"),
        ("age", 121, "from 1 to 120"),
        ("age", math.nan, "from 1 to 120"),
        ("age", math.inf, "from 1 to 120"),
        ("age", True, "from 1 to 120"),
        ("age", "old", "from 1 to 120"),
        ("age", None, "from 1 to 120"),
        ("gender", "female", "'F', 'M'"),
        ("gender", None, "'F', 'M'"),
        ("gender", ["F"], "one value"),
        ("gender", b"F", "one value"),
        ("skin_type", "Dry", "'dry', 'oily', 'combination', 'sensitive', 'normal'"),
        ("skin_concern", 0, "'moisture', 'wrinkle', 'gift', 'repurchase', 'calming', 'texture'"),
    ],
)
def test_unknown_values(mall_rec, name, value, allowed):
    shown = "nothing" if value is None else repr(value)
    said = says(lambda: mall_rec.recommend(**{**DRY, name: value}), "recommend(), ", name, f"found {shown};", allowed)
    assert "row" not in said  # one request has no rows


@pytest.mark.parametrize("name", list(DRY))
def test_a_missing_attribute(mall_rec, name):
    known = {key: value for key, value in DRY.items() if key != name}
    says(lambda: mall_rec.recommend(**known), name, "found nothing", "allowed")


# Categories


@pytest.mark.parametrize(
    ("categories", "wanted"),
    [
        ([97], {"p1", "p2", "p8"}),
        (["97"], {"p1", "p2", "p8"}),
        ([97.0], {"p1", "p2", "p8"}),
        (["Skincare"], {"p1", "p2", "p8"}),
        ("Skincare", {"p1", "p2", "p8"}),
        (("Makeup", 103), {"p3", "p4", "p7"}),
        ({97, 98}, {"p1", "p2", "p3", "p4", "p8"}),
        (np.array([98]), {"p3", "p4"}),
        (["Skincare", 97, "97"], {"p1", "p2", "p8"}),
        (None, ALL),
        ([], set()),
    ],
)
def test_categories(mall_rec, categories, wanted):
    every = ids(mall_rec.recommend(**DRY, top_n=8))
    found = ids(mall_rec.recommend(**DRY, top_n=8, categories=categories))
    assert found == [product_id for product_id in every if product_id in wanted]
    assert ids(mall_rec.recommend_batch([DRY], top_n=8, categories=categories)[0]) == found


@pytest.mark.parametrize("categories", [["Skin"], [100], ["Skincare", "skincare"], "skincare", [None], [""], [[97]]])
def test_unknown_categories(mall_rec, categories):
    says(lambda: mall_rec.recommend(**DRY, categories=categories), "categories", "allowed", "'Skincare'", "'97'")


def test_one_category_as_a_number(mall_rec):
    """A text may stand alone, so people will write a code alone: understood, or a sentence."""
    try:
        found = set(ids(mall_rec.recommend(**DRY, top_n=8, categories=97)))
    except InputError:
        return
    assert found == {"p1", "p2", "p8"}


def test_a_category_with_all_bought(mall_rec):
    assert mall_rec.recommend(**DRY, categories=["Men"], purchased_products=["p7"]) == []


def test_a_dataset_without_categories(served):
    schema = served.schema
    rec = Recommender(replace(served, schema=replace(schema, products=replace(schema.products, category=None))))
    assert rec.recommend(**DRY)[0]["category"] is None
    says(lambda: rec.recommend(**DRY, categories=["Skincare"]), "categories", "'Skincare'", "no category")


# Boosts

DRY_SKINCARE = """
[[boost]]
name = "dry skin"
customer = { skin_type = "dry" }
product = { category = "Skincare" }
add = 0.3
"""


def test_a_boost_changes_exactly_its_products(mall_rec, boosted):
    rec = boosted(DRY_SKINCARE)
    plain, found = by_id(mall_rec.recommend(**DRY, top_n=8)), rec.recommend(**DRY, top_n=8)
    assert set(ids(found)) == ALL
    for one in found:
        skincare = one["product_id"] in ("p1", "p2", "p8")
        assert one["score"] == plain[one["product_id"]]["score"]
        assert of_rules(one) == ({"dry skin": 0.3} if skincare else {})
        assert one["boost"] == pytest.approx(plain[one["product_id"]]["boost"] + 0.3 * skincare, abs=1e-9)
    assert in_order(found)
    assert rec.recommend(**OILY, top_n=8) == mall_rec.recommend(**OILY, top_n=8)


def test_boosts_in_a_batch_are_each_rows_own(boosted):
    rec = boosted(DRY_SKINCARE)
    found = rec.recommend_batch(PEOPLE, top_n=8)
    same(found, [rec.recommend(**one, top_n=8) for one in PEOPLE])
    for person, one in zip(PEOPLE, found, strict=True):
        total = sum(sum(of_rules(x).values()) for x in one)
        assert total == pytest.approx(3 * 0.3 if person["skin_type"] == "dry" else 0)


def test_boosts_add_up_and_may_be_negative(boosted):
    rec = boosted(
        DRY_SKINCARE
        + """
        [[boost]]
        name = "no luxury"
        product = { price = { min = 100000 } }
        add = -0.45
        [[boost]]
        name = "everything"
        add = 0.05
        """
    )
    found = rec.recommend(**DRY, top_n=8)
    assert in_order(found)
    wanted = {
        "p1": {"dry skin": 0.3, "everything": 0.05},
        "p2": {"dry skin": 0.3, "everything": 0.05},
        "p3": {"everything": 0.05},
        "p4": {"everything": 0.05},
        "p5": {"no luxury": -0.45, "everything": 0.05},
        "p6": {"everything": 0.05},
        "p7": {"everything": 0.05},
        "p8": {"dry skin": 0.3, "no luxury": -0.45, "everything": 0.05},
    }
    assert {one["product_id"]: of_rules(one) for one in found} == wanted
    for one in found:
        assert one["boost"] == pytest.approx(sum(one["boosts"].values()), abs=1e-9)


def test_a_boost_decides(boosted):
    """A whole point is more than any difference of scores."""
    for product_id, condition in [
        ("p6", "price = 9000"),
        ("p7", 'category = "Men"'),
        ("p2", 'brand = "Sori", category = 97'),
    ]:
        first = f"[[boost]]\nproduct = {{ {condition} }}\nadd = 1"
        last = f"[[boost]]\nproduct = {{ {condition} }}\nadd = -1"
        for person in (DRY, OILY):
            assert ids(boosted(first).recommend(**person, top_n=8))[0] == product_id
            assert ids(boosted(last).recommend(**person, top_n=8))[-1] == product_id


def test_boosts_bring_nothing_excluded_back(boosted):
    rec = boosted("[[boost]]\nadd = 1")
    found = rec.recommend(**DRY, purchased_products=["p1", "p2"], categories=["Skincare"], top_n=8)
    assert ids(found) == ["p8"]


def test_rules_with_one_name(boosted):
    """Refused, or their sum is reported: what is reported must be what was added."""
    try:
        rec = boosted("[[boost]]\nname = 'a'\nadd = 0.1\n[[boost]]\nname = 'a'\nproduct.category = 'Men'\nadd = 0.2")
    except InputError:
        return
    found = rec.recommend(**DRY, top_n=8)
    assert in_order(found)
    for one in found:
        assert of_rules(one) == {"a": pytest.approx(0.3 if one["product_id"] == "p7" else 0.1)}


def test_a_bad_rule_stops_loading(served_run, tmp_path):
    path = tmp_path / "boosts.toml"
    path.write_text("[[boost]]\ncustomer = { skin_type = 'dryish' }\nadd = 0.3")
    says(lambda: Recommender.load(served_run, path), "boosts.toml", "boost 1", "skin_type", "'dryish'", "'dry'")
    path.write_text(DRY_SKINCARE)
    for given_ in (path, str(path)):
        assert Recommender.load(served_run, given_).boosts[0].name == "dry skin"


# New products


@pytest.mark.parametrize("form", ["dicts", "frame", "columns", "arrow"])
def test_a_new_product_can_be_recommended(mall_rec, form):
    before = by_id(mall_rec.recommend(**DRY, top_n=9))
    columns = {name: [value] for name, value in NEW.items()}
    forms = {"dicts": [NEW], "frame": pd.DataFrame([NEW]), "columns": columns, "arrow": pa.table(columns)}
    assert mall_rec.add_products(forms[form]) is None
    after = by_id(mall_rec.recommend(**DRY, top_n=9))
    assert set(after) == ALL | {"n1"}
    new = after.pop("n1")
    assert 0 <= new["score"] <= 1
    assert (new["name"], new["brand"], new["category"], new["price"]) == ("New", "Nobody yet", "Skincare", 46000)
    assert set(after) == set(before)
    for product_id, one in after.items():
        assert one["score"] == pytest.approx(before[product_id]["score"], abs=1e-6)
    assert "n1" not in ids(mall_rec.recommend(**DRY, top_n=9, purchased_products=["n1"]))
    assert "n1" in ids(mall_rec.recommend(**DRY, top_n=9, categories=[97]))
    assert "n1" not in ids(mall_rec.recommend(**DRY, top_n=9, categories=[98]))


def test_a_new_product_by_hand(mall_model):
    """Brand row 4 is that of unknown brands: after Isul, Sori, Maru and Haneul."""
    rec = Recommender(mall_model)
    rec.add_products([NEW])
    variables = mall_model.variables
    c = tower(variables, "customer", [0, 0, 0], ["skin_type", "skin_concern", "gender"], [32 / 50])
    p = tower(variables, "product", [0, 4], ["category", "brand"], [46000 / 200000])
    assert by_id(rec.recommend(**DRY, top_n=9))["n1"]["score"] == pytest.approx((1 + c @ p) / 2, abs=1e-5)


def test_equal_products_have_equal_scores(served, mall_rec):
    """Where products have weights of their own, only another new product can equal a new one."""
    new = [
        {"product_id": "n1", "product_name": "?", "brand_name": "Isul", "category": 97, "price": 46000},
        {
            "product_id": "n8",
            "product_name": "?",
            "brand_name": "Isul",
            "category": 97,
            "price": 999999,
        },  # both clipped
    ]
    mall_rec.add_products(new)
    mall_rec.add_products([dict(one, product_id=f"{one['product_id']}b") for one in new])
    pairs = [("n1b", "n1"), ("n8b", "n8")]
    if not served.config.id_embedding:
        pairs += [("n1", "p1"), ("n8", "p8")]
    for person in PEOPLE:
        found = by_id(mall_rec.recommend(**person, top_n=12))
        for one, other in pairs:
            assert found[one]["score"] == pytest.approx(found[other]["score"], abs=1e-6)
            assert found[one]["boosts"] == found[other]["boosts"] or other[0] == "p"


def test_many_new_products(mall_rec):
    """Across the sizes for which a program is compiled."""
    rows = [dict(NEW, product_id=f"n{n}", price=1000 * n) for n in range(20)]
    mall_rec.add_products(rows[:1])
    mall_rec.add_products(rows[1:])
    mall_rec.add_products([])
    found = by_id(mall_rec.recommend(**DRY, top_n=100))
    assert set(found) == ALL | {f"n{n}" for n in range(20)}
    for n in range(20):
        assert found[f"n{n}"]["price"] == 1000 * n
    together = Recommender(mall_rec.model)
    together.add_products(rows)
    assert ids(together.recommend(**DRY, top_n=100)) == list(found)


def test_new_products_are_this_recommenders_alone(served, mall_rec):
    before = copy.copy(served.product_ids)
    mall_rec.add_products([NEW])
    assert served.product_ids == before
    assert set(ids(Recommender(served).recommend(**DRY, top_n=9))) == ALL


def test_new_products_are_boosted(boosted):
    rec = boosted(DRY_SKINCARE)
    rec.add_products([NEW, dict(NEW, product_id="n2", category="Men"), dict(NEW, product_id="n3", category="Skincare")])
    found = by_id(rec.recommend(**DRY, top_n=20))
    added = {i: sum(of_rules(one).values()) for i, one in found.items() if i[0] == "n"}
    assert added == {"n1": 0.3, "n2": 0.0, "n3": 0.3}


def test_a_new_products_category_may_be_a_label(mall_rec):
    """A label is understood wherever a code is, so both are one category."""
    mall_rec.add_products([dict(NEW, category="Skincare")])
    wanted = {"p1", "p2", "p8", "n1"}
    for categories in ([97], ["97"], ["Skincare"]):
        assert set(ids(mall_rec.recommend(**DRY, top_n=9, categories=categories))) == wanted
    assert by_id(mall_rec.recommend(**DRY, top_n=9))["n1"]["category"] == "Skincare"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([dict(NEW, product_id="p3")], ["row 1", "product_id", "'p3'"]),
        ([NEW, dict(NEW, product_id="p3")], ["row 2", "product_id", "'p3'"]),
        ([NEW, NEW], ["row 2", "product_id", "'n1'"]),
        ([NEW, dict(NEW, product_id=None)], ["row 2", "product_id", "found nothing"]),
        ([NEW, dict(NEW, product_id="n2", category=100)], ["row 2", "category", "100", "'Skincare'"]),
        ([NEW, dict(NEW, product_id="n2", price=-1)], ["row 2", "price", "-1"]),
        ([NEW, dict(NEW, product_id="n2", brand_name=None)], ["row 2", "brand_name", "found nothing"]),
        ([{key: value for key, value in NEW.items() if key != "price"}], ["'price'", "missing"]),
        ([{key: value for key, value in NEW.items() if key != "product_name"}], ["'product_name'", "missing"]),
        ([{"product_id": "n1"}], ["missing"]),
        ([{}], []),
        (NEW, []),  # one dict instead of a list of dicts
        ("n1", []),
        (None, []),
        ({**{key: [value] for key, value in NEW.items()}, "price": [1, 2]}, ["length"]),
    ],
    ids=range(15),
)
def test_nothing_is_added_where_something_is_wrong(mall_rec, rows, words):
    before = mall_rec.recommend(**DRY, top_n=20)
    says(lambda: mall_rec.add_products(rows), "add_products()", *words)
    assert mall_rec.recommend(**DRY, top_n=20) == before
    mall_rec.add_products([NEW])  # and the id is still free
    assert "n1" in ids(mall_rec.recommend(**DRY, top_n=20))


# Films: several values, missing values, popularity, an embedding per id


def test_a_shop_with_everything_else_can_be_trained(films_model):
    """One value with a row for missing ones (country), several (likes), a flagged number (age)."""
    sizes = {name: size for name, _, size in films_model.customers.inputs}
    assert sizes == {"likes": 3 + 2, "country": 2 + 2, "age": 2}
    assert all(np.isfinite(films_model.losses))


def test_popularity_is_reported(films_model):
    """0.5 x temperature x log((n + 1) / (average + 1)): 3, 1, 1, 1, 1 purchases, 7 / 5 on average."""
    found = by_id(Recommender(films_model).recommend(favourite_genres="Drama", country="KR", age=30, top_n=9))
    assert set(found) == {"f1", "f2", "f3", "f4", "f5"}
    assert in_order(list(found.values()))
    for film, count in {"f1": 3, "f2": 1, "f3": 1, "f4": 1, "f5": 1}.items():
        wanted = 0.5 * 0.1 * math.log((count + 1) / (7 / 5 + 1))
        assert found[film]["popularity"] == pytest.approx(wanted, abs=1e-6)
        assert (found[film]["boost"], found[film]["boosts"]) == (0.0, {})
        assert found[film]["price"] is None


def test_what_nobody_bought_is_less_popular_and_still_works(films_model):
    rec = Recommender(films_model)
    rec.add_products([{"film": "f6", "studio": "New", "genres": "Drama|Western", "year": ""}])
    found = by_id(rec.recommend(favourite_genres="Drama", top_n=9))
    assert found["f6"]["popularity"] == pytest.approx(0.5 * 0.1 * math.log(1 / (7 / 5 + 1)), abs=1e-6)
    assert set(ids(rec.recommend(favourite_genres="Drama", top_n=9, categories=["New", "Big"]))) == {"f1", "f2", "f6"}


def test_several_values_as_a_list_or_a_text(films_rec):
    one = films_rec.recommend(favourite_genres="Drama|Crime", country="FR", top_n=5)
    assert films_rec.recommend(favourite_genres=["Drama", "Crime"], country="FR", top_n=5) == one
    assert films_rec.recommend(favourite_genres=("Crime", "Drama", "Drama"), country="FR", top_n=5)[0][
        "score"
    ] == pytest.approx(one[0]["score"], abs=1e-6)
    same(
        [films_rec.recommend(favourite_genres="Drama", country="Korea", top_n=5)],
        [films_rec.recommend(favourite_genres="Drama", country="KR", top_n=5)],
    )


def test_what_is_missing_may_be_left_out(films_rec):
    nothing = films_rec.recommend(top_n=5)
    assert len(nothing) == 5
    assert films_rec.recommend(favourite_genres=None, country="", age=math.nan, top_n=5) == nothing
    assert films_rec.recommend(favourite_genres=[], country=None, age="abc", top_n=5) == nothing
    rows = [{"favourite_genres": None, "country": None, "age": None}, {"favourite_genres": "Drama", "age": 30}]
    same(
        films_rec.recommend_batch(rows, top_n=5),
        [nothing, films_rec.recommend(favourite_genres="Drama", age=30, top_n=5)],
    )


@pytest.mark.parametrize(("wrong", "right"), [("agee", "age"), ("favorite_genres", "favourite_genres")])
def test_a_misspelt_column_of_a_batch_is_refused(films_rec, wrong, right):
    says(
        lambda: films_rec.recommend_batch([{wrong: 30, "country": "KR"}]),
        "recommend_batch()",
        f"'{wrong}'",
        f"'{right}'",
    )
    says(lambda: films_rec.recommend_batch(pd.DataFrame({wrong: [30]})), f"'{wrong}'", f"'{right}'")


def test_a_misspelt_column_is_known_by_the_sounds_of_hangul():
    """성명, a name, is no 성별, and what is no column of the model stays so."""
    columns = ("나이대", "성별", "피부타입")
    feature = {"kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "extra-row"}
    people = [{"id": f"c{n}", **dict.fromkeys(columns, f"v{n % 3}"), "bought": f"p{n % 4}"} for n in range(12)]
    dataset = Dataset.of(
        products=[{"id": f"p{n}", "종류": f"k{n % 2}"} for n in range(4)],
        customers=people,
        schema={
            "products": {"id": "id", "features": [{"name": "종류", **feature}]},
            "customers": {
                "id": "id",
                "purchases": "bought",
                "features": [{"name": name, **feature} for name in columns],
            },
        },
    )
    rec = Recommender(fit(dataset, WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0)))
    says(lambda: rec.recommend_batch([{"나아대": "v1", "성별": "v1"}]), "'나아대'", "'나이대'")
    says(lambda: rec.recommend_batch([{"성별": "v1", "피부타임": "v1"}]), "'피부타임'", "'피부타입'")
    assert rec.recommend_batch([{"나이대": "v1", "성명": "김"}])


def test_a_column_that_resembles_one_that_is_there_is_no_misspelling(films_rec):
    wanted = [films_rec.recommend(age=30, country="KR")]
    same(films_rec.recommend_batch([{"age": 30, "agee": 99, "country": "KR"}]), wanted)
    same(
        films_rec.recommend_batch(
            [{"age": 30, "country": "KR", "viewer": "v1", "genre": "x", "purchased_products": []}]
        ),
        wanted,
    )


@pytest.mark.parametrize("rows", [[{}], [{}, {}], [{"country": None}]])
def test_rows_that_say_nothing_are_still_customers(films_rec, rows):
    """A row of a batch is what `recommend` would be without the attributes that it lacks."""
    same(films_rec.recommend_batch(rows, top_n=5), [films_rec.recommend(top_n=5)] * len(rows))


def test_the_customers_of_the_file_as_a_batch(films, films_rec):
    """The columns are those of the customer file."""
    dataset = load_dataset(films)
    found = films_rec.recommend_batch(dataset.customers, top_n=5)
    wanted = [
        films_rec.recommend(favourite_genres="Drama", country="KR", age=30, top_n=5),
        films_rec.recommend(favourite_genres="Drama|Crime", country="FR", top_n=5),
        films_rec.recommend(favourite_genres="Comedy", country="KR", age=50, top_n=5),
        films_rec.recommend(age=70, top_n=5),
    ]
    same(found, wanted)


# Arrays instead of dictionaries, and what is compiled


def test_a_ranking_says_what_a_batch_recommends(boosted):
    rec = boosted('[[boost]]\ncustomer = { skin_type = "dry" }\nproduct = { category = "Makeup" }\nadd = 0.3')
    found = rec.rank_batch(PEOPLE, purchased_products=BOUGHT, top_n=5)
    assert (
        found.products.shape == found.scores.shape == found.boosts.shape == found.popularity.shape == (len(PEOPLE), 5)
    )
    batch = rec.recommend_batch(PEOPLE, purchased_products=BOUGHT, top_n=5)
    assert min(map(len, batch)) < 5
    for products, scores, boosts, popularity, wanted in zip(*found, batch, strict=True):
        count = len(wanted)
        assert [rec.product_ids[row] for row in products[:count]] == ids(wanted)
        np.testing.assert_allclose(scores[:count], [one["score"] for one in wanted], atol=1e-6)
        np.testing.assert_allclose(boosts[:count], [one["boost"] for one in wanted], atol=1e-6)
        np.testing.assert_allclose(popularity[:count], [one["popularity"] for one in wanted], atol=1e-6)
        assert (products[count:] == -1).all()
        assert np.isnan([scores[count:], boosts[count:], popularity[count:]]).all()
    assert rec.rank_batch([], top_n=5).products.shape == (0, 5)


def test_a_ranking_counts_popularity(served_films):
    rec = Recommender(served_films)
    people = [{"favourite_genres": "Drama"}, {"favourite_genres": "Comedy"}]
    found, batch = rec.rank_batch(people, top_n=4), rec.recommend_batch(people, top_n=4)
    assert not found.boosts.any()
    assert found.popularity.any() == served_films.product_bias.any()
    wanted = [[one["popularity"] for one in each] for each in batch]
    np.testing.assert_allclose(found.popularity, wanted, atol=1e-6)


@pytest.fixture
def compiled():
    """A list that gets one entry for each program that XLA compiles."""
    programs: list[str] = []

    def listen(event: str, _: float, **details) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(str(details))

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield programs
    jax.monitoring.unregister_event_duration_listener(listen)


# Both ends of each power of two, and some between.
SIZES = sorted({*range(1, 20), 47, 300, 1_500, *(2**n + d for n in range(3, 13) for d in (-1, 0, 1)), 5_000})


def test_all_sizes_run_ten_programs_each(served, compiled):
    """Powers of two from 8 to 4,096, once for the tower and once for the search."""
    rec = Recommender(served)
    people = {name: [value] for name, value in DRY.items()}
    for size in SIZES:
        rec.rank_batch({name: values * size for name, values in people.items()})
    assert len(compiled) == 20
    for size in range(1, 30):
        rec.recommend_batch({name: values * 50 for name, values in people.items()}, top_n=size)
        rec.recommend(**DRY, top_n=size)
    assert len(compiled) == 21  # up to eight products, which is all of them


def test_after_a_warmup_nothing_is_compiled(served, compiled):
    rec = Recommender(served)
    rec.warmup(16, top_n=5, exclusions=9, categories=True)
    before = len(compiled)
    assert 0 < before <= 2 * (1 + 3 * 2)
    for size in (1, 8, 9, 16):
        for bought in ([], ["p1"], [f"p{n}" for n in range(1, 9)]):
            for categories in (None, ["Skincare"], [97, 98]):
                options = {"categories": categories, "top_n": 1 + len(bought) // 2}
                rec.recommend_batch([DRY] * size, purchased_products=[bought] * size, **options)
                rec.recommend(**DRY, purchased_products=bought, **options)
    assert len(compiled) == before


def test_a_warmup_for_single_customers_compiles_nothing_for_a_small_catalogue(served, compiled):
    rec = Recommender(served)
    rec.warmup()
    rec.recommend(**DRY, purchased_products=["p1"], categories=["Makeup"])
    assert compiled == []


def test_products_added_one_by_one_need_few_programs(served, compiled):
    """With the first comes room for 256, and one program that chooses from these."""
    rec = Recommender(served)
    for number in range(40):
        rec.add_products([{**NEW, "product_id": f"new{number}"}])
        rec.recommend_batch([DRY] * 3, top_n=3)
        if number == 0:
            after_the_first = len(compiled)
    assert len(compiled) == after_the_first


@pytest.mark.parametrize("recipe", ["wide", "deep", "deep-infonce"])
def test_where_a_product_stands_among_all(model_of, recipe):
    """By the softmax of the loss over all products: cosine / temperature + log-popularity, written out."""
    model = model_of("films", recipe)
    stated = {"favourite_genres": "Drama", "country": "KR", "age": 30}
    (customer,) = model.embed_customers(Table.of([stated], "one")).astype(np.float64)
    cosines = model.product_embeddings.astype(np.float64) @ customer
    chance = None
    if recipe != "deep":
        sides = model.variables["params"]
        radii = [float(sides[one]["radius"]) for one in ("customer", "product")] if recipe == "wide" else []
        temperature = 1 / math.prod(radii) if radii else model.config.temperature
        odds = np.exp(cosines / temperature + model.popularity.of_product)
        chance = dict(zip(model.product_ids, odds / odds.sum(), strict=True))
    found = Recommender(model).recommend(**stated, top_n=5, standing=True)
    assert [one["percentile"] for one in found] == [90.0, 70.0, 50.0, 30.0, 10.0]  # of five, none ties
    for one in found:
        if chance is None:
            assert one["times_average"] is None
        else:
            assert one["times_average"] == pytest.approx(5 * chance[one["product_id"]], rel=1e-3)
    plain = Recommender(model).recommend(**stated, top_n=5)
    assert plain == [{key: one[key] for key in plain[0]} for one in found]


def test_where_a_product_stands_does_not_depend_on_what_is_asked_for(model_of):
    rec = Recommender(model_of("films", "wide"))
    stated = {"favourite_genres": "Drama", "country": "KR", "age": 30}
    every = {one["product_id"]: one for one in rec.recommend(**stated, top_n=5, standing=True)}
    few = rec.recommend(**stated, top_n=5, available=["f2", "f5"], purchased_products=["f5"], standing=True)
    assert few == [every["f2"]]
