"""Why a product is recommended: against scores of other customers, and against towers with other tables."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import MALL_CUSTOMERS, RECIPES, SHOPS

from recsys_jax import InputError, Recommender, fit, load_dataset, save_model
from recsys_jax.data.schema import Numeric
from recsys_jax.serving.boosts import read_boosts

ATTRIBUTES = ("age", "gender", "skin_type", "skin_concern")
DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
FAN = {"favourite_genres": ["Drama", "Crime"], "country": "KR", "age": 30}
NOBODY = {"favourite_genres": None, "country": "nowhere", "age": None}
FILM = {"film": "f9", "studio": "New", "genres": "Comedy|Drama", "year": 1999}
SERUM = {"product_id": "n1", "product_name": "New", "brand_name": "Isul", "category": 97, "price": 46000}
ASKED = {
    "mall": [DRY, {"age": 61, "gender": "M", "skin_type": "mature", "skin_concern": "gift"}],
    "films": [FAN, NOBODY],
}
RULES = """
[[boost]]
name = "spring"
add = 0.25
customer = { gender = "F" }
product = { category = "Makeup" }

[[boost]]
name = "all"
add = -0.125
product = { brand = "Isul" }
"""


def customer(row) -> dict:
    """A training customer of the mall as attributes."""
    return dict(zip(ATTRIBUTES, row[2:6], strict=True))


def log_odds(rec: Recommender, who: dict, rules: bool = True) -> dict[str, float]:
    """Of each product, above the mean over products without rules; by the numbers that people are given."""
    found = rec.recommend(attributes=who, top_n=99)
    scale = rec.model.popularity.scale or 1.0
    plain = {one["product_id"]: (one["score"] + one["popularity"]) / scale for one in found}
    mean = sum(plain.values()) / len(plain)
    return {
        one["product_id"]: plain[one["product_id"]] - mean + (one["boost"] / scale if rules else 0.0) for one in found
    }


def with_room(rec: Recommender) -> Recommender:
    """The same log-odds from a ball four times as large, so that nobody's vector is moved to its surface."""
    variables = jax.tree.map(np.array, dict(rec.model.variables))
    variables["params"]["customer"]["radius"] *= 4
    popularity = rec.model.popularity._replace(scale=rec.model.popularity.scale / 4)
    rules = [replace(rule, add=rule.add / 4) for rule in rec.boosts]
    return Recommender(replace(rec.model, variables=variables, popularity=popularity), rules)


def centred(values: dict[str, float]) -> dict[str, float]:
    mean = sum(values.values()) / len(values)
    return {key: value - mean for key, value in values.items()}


def parts(found: dict, kind: str) -> dict[str, float]:
    return {one["name"]: one["adds"] for one in found["reasons"] if one["kind"] == kind}


@pytest.fixture
def rec(recipe, model_of, tmp_path, request) -> Recommender:
    model = model_of(request.param, recipe)
    if request.param == "films":
        return Recommender(model)
    (tmp_path / "boosts.toml").write_text(RULES, encoding="utf-8")
    return Recommender(model, read_boosts(tmp_path / "boosts.toml", model.customers, model.products))


each_shop = pytest.mark.parametrize("rec", SHOPS, indirect=True)


@each_shop
def test_the_parts_are_the_whole(rec):
    """Also of a product that was added, and of customers who state little."""
    shop = rec.model.schema.name
    for new in (False, True):
        if new:
            rec.add_products([FILM if shop == "films" else SERUM])
        for who in ASKED[shop]:
            whole = log_odds(rec, who)
            found = rec.recommend(attributes=who, top_n=99, explain=True)
            assert len(found) == len(rec.product_ids)
            for one in found:
                assert one["unit"] == ("log-odds" if rec.model.popularity.scale else "score")
                assert one["above_average"] == pytest.approx(whole[one["product_id"]], abs=1e-5)
                assert sum(reason["adds"] for reason in one["reasons"]) == pytest.approx(one["above_average"], abs=1e-5)
                alone = rec.explain(one["product_id"], **who)
                assert list(alone) == list(one)
                assert alone["above_average"] == pytest.approx(one["above_average"], abs=1e-5)
                sizes = [abs(reason["adds"]) for reason in one["reasons"]]
                assert sizes == sorted(sizes, reverse=True)
    plain = rec.recommend(attributes=who, top_n=99)
    assert [one | plain[place] for place, one in enumerate(found)] == found


@pytest.mark.parametrize("recipe", ["wide"], indirect=True)
@pytest.mark.parametrize("rec", ["mall"], indirect=True)
def test_an_attribute_of_the_wide_path_adds_what_it_is_worth_against_all_customers(rec):
    """By the definition: the mean over the customers of training with their own value in its place."""
    assert {one["kind"] for one in rec.explain("p3", **DRY)["reasons"]} == {"attribute", "boost"}  # counts are flat
    rec = with_room(rec)
    for name in ATTRIBUTES:
        with_others = [log_odds(rec, DRY | {name: customer(row)[name]}, rules=False) for row in MALL_CUSTOMERS]
        own = log_odds(rec, DRY, rules=False)
        for product in rec.product_ids:
            expected = own[product] - np.mean([other[product] for other in with_others])
            found = parts(rec.explain(product, **DRY), "attribute").get(name, 0.0)
            assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("recipe", ["deep", "deep-infonce"], indirect=True)
@pytest.mark.parametrize("rec", ["mall"], indirect=True)
def test_an_attribute_of_the_deep_path_adds_what_the_average_customers_would_not(rec):
    """By a tower in whose table the value has the mean of the vectors of training's customers."""
    model = rec.model
    before = log_odds(rec, DRY, rules=False)
    for name, column in (("skin_type", 4), ("skin_concern", 5), ("gender", 3)):
        fitted = model.customers[name]
        rows = [fitted.values.index(fitted.canonical(row[column])) for row in MALL_CUSTOMERS]
        variables = jax.tree.map(np.array, dict(model.variables))
        table = variables["params"]["customer"]["deep"][f"{name}_emb"]
        table[fitted.values.index(DRY[name])] = table[rows].mean(axis=0)
        other = Recommender(replace(model, variables=variables))
        after = log_odds(other, DRY, rules=False)
        for product in rec.product_ids:
            found = parts(rec.explain(product, **DRY), "attribute").get(name, 0.0)
            assert found == pytest.approx(before[product] - after[product], abs=2e-5)
    mean_age = sum(row[2] for row in MALL_CUSTOMERS) / len(MALL_CUSTOMERS)
    after = log_odds(rec, DRY | {"age": mean_age}, rules=False)
    for product in rec.product_ids:
        expected = before[product] - after[product]
        assert parts(rec.explain(product, **DRY), "attribute").get("age", 0.0) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("rec", ["mall"], indirect=True)
def test_rules_and_popularity_are_told_by_themselves(rec):
    scale = rec.model.popularity.scale or 1.0
    by_rule = {product: parts(rec.explain(product, **DRY), "boost") for product in rec.product_ids}
    assert by_rule["p3"] == pytest.approx({"spring": 0.25 / scale, "all": -0.125 / scale})
    assert by_rule["p4"] == pytest.approx({"spring": 0.25 / scale})
    assert by_rule["p2"] == {}
    assert parts(rec.explain("p3", **DRY | {"gender": "M"}), "boost") == pytest.approx({"all": -0.125 / scale})
    of_popularity = {one["product_id"]: one["popularity"] / scale for one in rec.recommend(**DRY, top_n=99)}
    for product, expected in centred(of_popularity).items():
        assert sum(parts(rec.explain(product, **DRY), "popularity").values()) == pytest.approx(expected, abs=1e-5)


def test_popularity_is_told_by_attributes_where_it_was_learned_of_them(model_of):
    """Two products that differ in the brand alone differ by what the brand adds."""
    model = model_of("mall", "wide")
    brand = model.products["brand"]
    popularity = dict(model.popularity.attributes) | {"brand": np.arange(brand.input.size, dtype=np.float32)}
    rec = Recommender(replace(model, popularity=model.popularity._replace(attributes=popularity)))
    rec.add_products([SERUM | {"product_id": f"n{n}", "brand_name": name} for n, name in enumerate(brand.values)])
    added = [parts(rec.explain(f"n{n}", **DRY), "popularity") for n in range(len(brand.values))]
    for n, (one, other) in enumerate(itertools.pairwise(added)):
        assert other["brand_name"] - one["brand_name"] == pytest.approx(1.0, abs=1e-5), n
        assert other.get(None, 0.0) == pytest.approx(one.get(None, 0.0), abs=1e-5)
    top = len(brand.values) - 1
    assert f"brand name {brand.values[top]} popular: +" in rec.explain(f"n{top}", **DRY)["because"]
    assert f"brand name {brand.values[0]} seldom bought: -" in rec.explain("n0", **DRY)["because"]


@pytest.mark.parametrize("recipe", ["wide"], indirect=True)
@pytest.mark.parametrize("rec", SHOPS, indirect=True)
def test_in_words(rec):
    if rec.model.schema.name == "films":
        said = rec.explain("f1", favourite_genres="Drama|Crime", country="Korea")
        told = {one["name"]: one["value"] for one in said["reasons"] if one["kind"] == "attribute"}
        assert told == {"favourite_genres": "Drama, Crime", "country": "KR", "age": None}
        words = [word for word in said["because"].split("; ") if word.startswith("age ")]
        assert all(word.startswith("age not stated: ") for word in words)
        return
    said = rec.explain("p3", **DRY | {"skin_type": "mature"})  # another word for sensitive
    for one in said["reasons"]:
        shown = f": {one['adds']:+.2f}" in said["because"]
        assert shown or abs(one["adds"]) < 0.005
    assert "skin type sensitive: " in said["because"]
    assert "rule spring: +" in said["because"]
    assert "; " in said["because"]


@pytest.mark.parametrize("recipe", ["deep"], indirect=True)
@pytest.mark.parametrize("rec", ["mall"], indirect=True)
def test_what_the_average_customer_likes_is_told_by_itself(rec):
    """By a tower whose every table has the mean of training's vectors in each row, asked for the mean age."""
    model = rec.model
    variables = jax.tree.map(np.array, dict(model.variables))
    tables = variables["params"]["customer"]["deep"]
    for name, column in (("skin_type", 4), ("skin_concern", 5), ("gender", 3)):
        fitted = model.customers[name]
        rows = [fitted.values.index(fitted.canonical(row[column])) for row in MALL_CUSTOMERS]
        tables[f"{name}_emb"][:] = tables[f"{name}_emb"][rows].mean(axis=0)
    mean_age = sum(row[2] for row in MALL_CUSTOMERS) / len(MALL_CUSTOMERS)
    usual = log_odds(Recommender(replace(model, variables=variables)), DRY | {"age": mean_age}, rules=False)
    for product in rec.product_ids:
        found = rec.explain(product, **DRY)
        assert sum(parts(found, "average").values()) == pytest.approx(usual[product], abs=2e-5)


def test_what_is_assumed_and_what_is_unknown_is_said(films):
    """A value that stands for nothing stated, and one that the vocabulary lacks, are no statements of the customer."""
    text = (films / "dataset.toml").read_text("utf-8")
    text = text.replace(
        'unknown = "extra-row"\nmissing = "extra-row"\n\n[[customers.features]]\nname = "age"',
        'unknown = "extra-row"\nmissing = { as = "FR" }\n\n[[customers.features]]\nname = "age"',
    )
    (films / "dataset.toml").write_text(text, "utf-8")
    rec = Recommender(fit(load_dataset(films), RECIPES["wide"]))
    told = {one["name"]: one["value"] for one in rec.explain("f1", favourite_genres="Drama|Opera", age=30)["reasons"]}
    assert told["favourite_genres"] == "Drama, Opera (unknown)"
    assert told["country"] == "FR (assumed)"


def test_attributes_are_called_by_their_labels_and_known_by_their_columns(films, tmp_path):
    text = (films / "dataset.toml").read_text("utf-8")
    labels = {"country": '"where from"', "age": '{ ko = "나이", en = "years" }', "year": '"first shown"'}
    for name, label in labels.items():
        text = text.replace(f'name = "{name}"\n', f'name = "{name}"\nlabel = {label}\n')
    (films / "dataset.toml").write_text(text, "utf-8")
    save_model(fit(load_dataset(films), RECIPES["wide"]), tmp_path / "run")
    found = Recommender.load(tmp_path / "run").explain("f1", **FAN)
    assert {one["name"] for one in found["reasons"] if one["kind"] == "attribute"} == {*FAN}
    for said, column in (("where from KR", "country"), ("years 30", "age")):
        (adds,) = (one["adds"] for one in found["reasons"] if one["name"] == column)
        assert f"{said}: {adds:+.2f}" in found["because"]


def test_popularity_is_told_in_the_words_of_people(model_of):
    """Labels of codes, numbers as numbers, and nothing where nothing is stated."""
    model = model_of("mall", "wide")
    tables = {
        name: np.arange(2, 2 + part, dtype=np.float32)
        for name, part in (("category", 5), ("brand", model.products["brand"].input.size))
    }
    rec = Recommender(replace(model, popularity=model.popularity._replace(attributes=tables)))
    told = {one["name"]: one["value"] for one in rec.explain("p3", **DRY)["reasons"] if one["kind"] == "popularity"}
    assert told["category"] == "Makeup"
    assert told["brand_name"] == "Isul"
    said = rec.explain("p3", **DRY)["because"]
    assert "category Makeup seldom bought: -" in said


@each_shop
def test_who_is_drawn(rec, tmp_path):
    """The average customer with one value, against the average customer: in the wide path, anybody with and without."""
    shop = rec.model.schema.name
    dataset = load_dataset(SHOPS[shop](tmp_path / shop))  # a model holds no customers
    product = rec.product_ids[0]
    found = rec.customers_like(product)
    assert [one["adds"] for one in found] == sorted((one["adds"] for one in found), reverse=True)
    assert all(one["adds"] > 0 for one in found)
    numbers = {one.feature.column for one in rec.model.customers if isinstance(one.feature, Numeric)}
    for one in found:
        number = one["attribute"] in numbers
        assert (one["range"] is not None) == number
        assert not number or one["range"][0] <= one["value"] <= one["range"][1]
    buyers = dataset.purchases[:, 0]
    if shop == "mall":
        counted = Counter(dataset.customers.column("gender")[row] for row in buyers)
        for one in found:
            if one["attribute"] == "gender":
                assert one["share"] == pytest.approx(counted[one["value"]] / len(buyers), abs=1e-6)
        assert all(one["share"] is None for one in found if one["attribute"] == "age")
    if "wide" not in rec.model.variables["params"]["customer"] or shop == "films":
        return
    roomy = with_room(rec)
    drawn = {(one["attribute"], one["value"]): one["adds"] for one in roomy.customers_like(product)}
    ages = [value for name, value in drawn if name == "age"]
    assert ages
    for name, values in (("gender", ["F", "M"]), ("skin_concern", ["moisture", "wrinkle", "gift"]), ("age", ages)):
        others = [log_odds(roomy, DRY | {name: customer(row)[name]}, rules=False) for row in MALL_CUSTOMERS]
        mean = np.mean([other[product] for other in others])
        for value in values:
            expected = log_odds(roomy, DRY | {name: value}, rules=False)[product] - mean
            assert drawn.get((name, value), 0.0) == pytest.approx(expected if expected >= 0.005 else 0.0, abs=1e-5)


@each_shop
def test_no_product_draws_all_values_of_an_attribute_above_average(rec):
    """Both women and men, for instance: by their shares, what the values of an attribute add has a mean of 0."""
    for product in rec.product_ids:
        found = rec.customers_like(product)
        for fitted in rec.model.customers:
            own = [one for one in found if one["attribute"] == fitted.feature.column]
            if isinstance(fitted.feature, Numeric):
                knots = rec._explainer.average.knots[fitted.feature.name]
                assert [round(float(fitted.stated(float(end))), 1) for end in knots[[0, -1]]] not in [
                    [round(end, 1) for end in one["range"]] for one in own
                ]
            else:
                assert len(own) < len(fitted.values)


@each_shop
def test_a_run_that_does_not_know_its_customers_is_explained_too(rec):
    """Of a former format, or a checkpoint: against each value as often; the parts are the whole all the same."""
    rec = Recommender(replace(rec.model, average=None), rec.boosts)
    who = ASKED[rec.model.schema.name][0]
    whole = log_odds(rec, who)
    for one in rec.recommend(attributes=who, top_n=99, explain=True):
        assert one["above_average"] == pytest.approx(whole[one["product_id"]], abs=1e-5)
        assert sum(reason["adds"] for reason in one["reasons"]) == pytest.approx(one["above_average"], abs=1e-5)
    drawn = rec.customers_like(rec.product_ids[0])
    assert all(one["share"] is None for one in drawn)
    assert all(math.isfinite(one["adds"]) for one in drawn)


@each_shop
def test_similar_products(rec):
    """The cosines of the vectors that customers are multiplied with, by NumPy."""
    rec.add_products([FILM if rec.model.schema.name == "films" else SERUM])
    new = rec.product_ids[-1]
    vectors = rec._catalogue.embeddings
    if "wide" in rec.model.variables["params"]["product"]:
        vectors = vectors[:, :-2]  # what brings them to unit length meets no customer
    cosines = vectors @ vectors.T / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors, axis=1)[:, None]
    for product in (rec.product_ids[0], new):
        row = rec.product_ids.index(product)
        found = rec.similar(product, top_n=99)
        assert len(found) == len(rec.product_ids) - 1
        assert product not in {one["product_id"] for one in found}
        for one in found:
            other = rec.product_ids.index(one["product_id"])
            assert one["similarity"] == pytest.approx(cosines[row, other], abs=1e-5)
        likenesses = [one["similarity"] for one in found]
        assert likenesses == sorted(likenesses, reverse=True)
        assert set(found[0]) == {"product_id", "name", "brand", "category", "price", "similarity"}
        assert rec.similar(product, 2) == found[:2]
        some = [found[2]["product_id"], product]
        assert [one["product_id"] for one in rec.similar(product, available=some)] == some[:1]
        category = found[-1]["category"]
        alike = [one for one in found if one["category"] == category]
        assert rec.similar(product, 99, categories=[category]) == alike


@pytest.mark.parametrize("rec", ["mall"], indirect=True)
def test_what_is_no_product(rec):
    for call in (rec.similar, rec.customers_like, lambda one: rec.explain(one, **DRY)):
        for unknown, words in (("p99", "p99"), (None, "nothing"), ("P1 ", "mean 'p1'?")):
            with pytest.raises(InputError, match="allowed: ids of products") as caught:
                call(unknown)
            assert words in str(caught.value)
    rec.remove_products(["p4"])
    with pytest.raises(InputError, match="p4"):
        rec.explain("p4", **DRY)
    with pytest.raises(InputError, match="skin_kind"):
        rec.explain("p3", **DRY, skin_kind="dry")
    with pytest.raises(InputError, match="top_n"):
        rec.similar("p1", top_n=0)
