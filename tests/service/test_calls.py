"""Each path answers what the same call in Python does, of each recipe."""

import json

import pytest
from asgi import application, ask
from conftest import write_mall

from recsys_jax import Recommender

DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
OLD = {"age": 61, "gender": "F", "skin_type": "mature", "skin_concern": "wrinkle"}
BOOSTS = """\
[[boost]]
name = "makeup for the dry"
customer = { skin_type = ["dry"] }
product = { category = [98] }
add = 0.2
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    path = tmp_path_factory.mktemp("rules") / "boosts.toml"
    path.write_text(BOOSTS)
    return path


@pytest.fixture(scope="module")
def app(served_run, rules):
    return application(served_run, boosts=rules)


@pytest.fixture(scope="module")
def rec(served_run, rules):
    return Recommender.load(served_run, boosts=rules)


LISTS = [
    {},
    {"top_n": 8},
    {"purchased_products": ["p1", "p4", "unheard of"], "top_n": 8},
    {"categories": ["Makeup", 97], "top_n": 8},
    {"available": ["p1", "p2", "p7"]},
    {"diversity": 0.7, "top_n": 5},
    {"at_most": {"brand": 1, "category": 2}, "top_n": 8},
    {"pinned": ["p6", "p1"], "purchased_products": ["p1"]},
    {"strict": True, "purchased_products": ["p1"]},
]


@pytest.mark.parametrize("options", LISTS, ids=str)
@pytest.mark.parametrize("more", [{}, {"explain": True, "standing": True}], ids=["", "explained"])
def test_recommend(app, rec, options, more):
    got = ask(app, "/recommend", {"attributes": DRY, **options, **more})
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert got.json == {"products": rec.recommend(attributes=DRY, **options, **more)}


@pytest.mark.parametrize("options", [one for one in LISTS if "purchased_products" not in one], ids=str)
def test_recommend_batch(app, rec, options):
    rows = [DRY, {**OLD, "purchased_products": ["p8"]}, DRY]
    assert ask(app, "/recommend/batch", {"customers": rows, **options}).json == {
        "lists": rec.recommend_batch(rows, **options)
    }


def test_what_a_batch_bought_and_nobody_at_all(app, rec):
    lists = [["p1"], []]
    asked = {"customers": [DRY, OLD], "purchased_products": lists, "top_n": 8}
    assert ask(app, "/recommend/batch", asked).json == {
        "lists": rec.recommend_batch([DRY, OLD], purchased_products=lists, top_n=8)
    }
    assert ask(app, "/recommend/batch", {"customers": []}).json == {"lists": []}


@pytest.mark.parametrize(
    "options", [{}, {"top_n": 5, "categories": ["Skincare"]}, {"available": ["p1", "p5"]}], ids=str
)
def test_similar(app, rec, options):
    assert ask(app, "/similar", {"product_id": "p2", **options}).json == {"products": rec.similar("p2", **options)}


def test_explain(app, rec):
    assert ask(app, "/explain", {"product_id": "p4", "attributes": DRY}).json == rec.explain("p4", attributes=DRY)


def test_customers_like(app, rec):
    found = ask(app, "/customers-like", {"product_id": "p8"}).json
    assert found == json.loads(json.dumps({"values": rec.customers_like("p8")}))


def test_null_counts_as_left_out(app, rec):
    empty = dict.fromkeys(("customer_id", "purchased_products", "top_n", "categories", "explain", "at_most"))
    assert ask(app, "/recommend", {"attributes": DRY, **empty}).json == {"products": rec.recommend(attributes=DRY)}


def test_another_shop(served_films_run):
    """Several values of one attribute, and values that are missing or unseen."""
    app, rec = application(served_films_run), Recommender.load(served_films_run)
    for person in ({}, {"favourite_genres": ["Drama", "Crime"], "age": 30}, {"country": "Korea", "age": None}):
        assert ask(app, "/recommend", {"attributes": person}).json == {"products": rec.recommend(attributes=person)}


def test_known_customers(served_run, tmp_path):
    """By a dataset: attributes and purchases by the id, alone and in a batch; by purchases, these alone."""
    shop = write_mall(tmp_path / "mall")
    app, rec = application(served_run, dataset=shop), Recommender.load(served_run, dataset=shop)
    found = ask(app, "/recommend", {"customer_id": "u3", "top_n": 8}).json["products"]
    assert found == rec.recommend(customer_id="u3", top_n=8)
    assert "p8" not in [one["product_id"] for one in found]
    rows = [{**OLD, "user_id": "u3"}, DRY]
    batch = ask(app, "/recommend/batch", {"customers": rows, "top_n": 8}).json["lists"]
    assert batch == rec.recommend_batch(rows, top_n=8)
    assert [len(one) for one in batch] == [7, 8]
    assert "allowed: one of the 10 customers" in ask(app, "/recommend", {"customer_id": "u99"}).sentence
