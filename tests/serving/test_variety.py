"""Lists by rules as they are served: against lists of all products made by hand, with exclusions and boosts."""

import numpy as np
import pytest
from list_by_hand import by_hand

from recsys_jax import InputError, Recommender, TrainedModel
from recsys_jax.serving.boosts import read_boosts
from recsys_jax.serving.traits import Traits

DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
OILY = {"age": 45, "gender": "M", "skin_type": "oily", "skin_concern": "texture"}
SERUM = {"product_id": "n1", "product_name": "New", "brand_name": "Isul", "category": 97, "price": 46000}
FILM = {"film": "f9", "studio": "New", "genres": "Comedy|Drama|Crime|Opera", "year": 1999}
WISHES = [
    {"diversity": 0.3},
    {"diversity": 1.0},
    {"at_most": {"brand": 1}},
    {"at_most": {"brand_name": 2, "category": 1}},
    {"pinned": ["p6", "p1"]},
    {"diversity": 0.6, "at_most": {"brand": 1}, "pinned": ["p3"]},
    {"pinned": ["p8"], "at_most": {"brand": 1}, "available": ["p1", "p2", "p4", "p7", "p8"], "diversity": 0.2},
    {"diversity": 0.5, "categories": ["Skincare", "Makeup"]},
]
SMALL = '[[boost]]\nadd = 0.25\ncustomer = { gender = "F" }\nproduct = { brand = "Maru" }\n'
LARGE = 9 * SMALL.replace("0.25", "1")  # so much that 32 bits no longer tell the order


def ids(found) -> list[str]:
    return [one["product_id"] for one in found]


@pytest.fixture(params=["", SMALL, LARGE], ids=["no rules", "rules", "large rules"])
def rec(served, tmp_path, request) -> Recommender:
    path = tmp_path / "boosts.toml"
    path.write_text(request.param, encoding="utf-8")
    return Recommender(served, read_boosts(path, served.customers, served.products) if request.param else ())


def expected(rec: Recommender, who: dict, bought: list[str], wish: dict, k: int) -> list[str]:
    """By the numbers that people are given of all products, and their vectors."""
    every = {one["product_id"]: one for one in rec.recommend(**who, top_n=999)}
    brands = {one: entry["brand"] for one, entry in every.items()}
    categories = {one: entry["category"] for one, entry in every.items()}
    offered = [one for one in rec.product_ids if one in wish.get("available", every)]
    offered = [one for one in offered if categories[one] in wish.get("categories", categories.values())]
    rows = [rec.product_ids.index(one) for one in offered]
    vectors = rec._catalogue.embeddings[rows].astype(float)
    if "wide" in rec.model.variables["params"]["product"]:
        vectors = vectors[:, :-2]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    kinds, limits = [], []
    for name, limit in wish.get("at_most", {}).items():
        of = [(categories if name == "category" else brands)[one] for one in offered]
        kinds.append(np.array([[-1 if value is None else sorted(map(str, of)).index(str(value))] for value in of]))
        limits.append(limit)
    values = [sum(every[one][part] for part in ("score", "popularity", "boost")) for one in offered]
    gone = {offered.index(one) for one in bought if one in offered}
    pinned = [offered.index(one) for one in wish.get("pinned", ()) if one in offered]
    first = [one for one in pinned if one not in gone]
    chosen = by_hand(values, vectors, kinds, limits, wish.get("diversity", 0.0), first, k, gone)
    return [offered[one] for one in chosen]


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_one_and_many_get_the_list_made_by_hand(rec, wish):
    people, bought = [DRY, OILY, DRY], [[], ["p8"], ["p1", "p3", "p4"]]
    lists = [expected(rec, who, own, wish, 4) for who, own in zip(people, bought, strict=True)]
    for who, own, wanted in zip(people, bought, lists, strict=True):
        assert ids(rec.recommend(**who, purchased_products=own, top_n=4, **wish)) == wanted
    assert [ids(one) for one in rec.recommend_batch(people, purchased_products=bought, top_n=4, **wish)] == lists
    ranking = rec.rank_batch(people, purchased_products=bought, top_n=4, **wish)
    found = [[rec.product_ids[row] for row in rows if row >= 0] for rows in ranking.products]
    assert found == lists
    assert (np.isnan(ranking.scores) == (ranking.products < 0)).all()


def test_a_large_catalogue_is_looked_through_as_far_as_needed(served):
    """Three hundred products of one brand and category stand together, so that lists go on far behind the first."""
    rec = Recommender(served)
    best = rec.recommend(**DRY, top_n=1)[0]["product_id"]
    row = {name: column[rec.product_ids.index(best)] for name, column in served.product_rows.items()}
    rec.add_products([row | {"product_id": f"n{n}", "brand_name": "Isul", "price": 1000 + 600 * n} for n in range(300)])
    for wish in ({"at_most": {"brand": 2}}, {"diversity": 0.7}, {"diversity": 0.4, "at_most": {"category": 3}}):
        wanted = expected(rec, DRY, ["p2"], wish, 7)
        assert ids(rec.recommend(**DRY, purchased_products=["p2"], top_n=7, **wish)) == wanted
        both = rec.recommend_batch([DRY, OILY], purchased_products=[["p2"], []], top_n=7, **wish)
        assert ids(both[0]) == wanted
        assert ids(both[1]) == expected(rec, OILY, [], wish, 7)


def test_what_has_no_value_is_of_no_kind(served_films):
    """Genres: several values, each of which counts; a film without genres is like no other."""
    rec = Recommender(served_films)
    fan = {"favourite_genres": "Drama", "country": "KR", "age": 30}
    found = ids(rec.recommend(**fan, top_n=5, at_most={"genres": 1}))
    genres = {"f1": {"Drama", "Crime"}, "f2": {"Drama"}, "f3": {"Comedy"}, "f4": {"Comedy", "Family"}, "f5": set()}
    order = ids(rec.recommend(**fan, top_n=5))
    wanted: list[str] = []
    for film in order:
        if not any(genres[film] & genres[other] for other in wanted):
            wanted.append(film)
    assert found == wanted
    assert "f5" in found
    assert len(ids(rec.recommend(**fan, top_n=5, at_most={"category": 1}))) == 2  # two studios


def test_pinned_products_stay_out_where_they_were_bought(rec):
    found = ids(rec.recommend(**DRY, top_n=3, pinned=["p6", "p7", "p1", "p2"]))
    assert found == ["p6", "p7", "p1"]
    assert ids(rec.recommend(**DRY, top_n=2, pinned=["p6", "p7"], purchased_products=["p6"]))[0] == "p7"
    assert "p6" not in ids(rec.recommend(**DRY, top_n=8, pinned=["p6"], purchased_products=["p6"]))
    assert ids(rec.recommend(**DRY, top_n=1, pinned=["p6"], categories=["Makeup"])) != ["p6"]
    told = rec.recommend(**DRY, top_n=8, pinned=["p6"], standing=True, explain=True)
    assert len(told) == 8
    assert all("because" in one for one in told)


def test_numbers_of_numpy_are_numbers(rec):
    found = rec.recommend(**DRY, top_n=4, diversity=np.float32(0.5), at_most={"brand": np.int64(1)})
    assert ids(found) == ids(rec.recommend(**DRY, top_n=4, diversity=0.5, at_most={"brand": 1}))


def test_a_column_is_what_its_name_says(model_of):
    """Where a column is called brand and another one has the role, `at_most` means the column."""
    model = model_of("mall", "wide")
    rows = {**model.product_rows, "brand": [f"b{n}" for n in range(7)] + ["b0"]}
    traits = Traits(model, rows, model.product_embeddings, model.product_bias)
    codes = traits.codes("brand")[:, 0].tolist()
    assert codes[0] == codes[7]
    assert len(set(codes)) == 7
    assert (
        len(set(Recommender(model)._catalogue.traits.codes("brand")[:, 0])) == 4
    )  # the role, where there is no such column


@pytest.mark.parametrize(("shop", "new"), [("mall", SERUM), ("films", FILM)])
def test_products_that_come_and_go_are_all_that_is_read_of_the_catalogue(model_of, monkeypatch, shop, new):
    """And what is known then is what reading all of it would tell, with values and several of them that nobody had."""
    rec = Recommender(model_of(shop, "wide"))
    rec.warmup(lists_and_reasons=True)
    read = []
    coded, parts = Traits._coded, TrainedModel.popularity_parts

    def counted(self, column, known):
        read.append(len(self.bias))
        return coded(self, column, known)

    def counted_parts(self, table):
        read.append(len(table))
        return parts(self, table)

    monkeypatch.setattr(Traits, "_coded", counted)
    monkeypatch.setattr(TrainedModel, "popularity_parts", counted_parts)
    rec.add_products([new])
    rec.remove_products([rec.product_ids[2]])
    known = rec._catalogue.traits
    told = [known.codes(name) for name in known.columns], known.popularity, known.likeness
    assert {*read} == {1}
    fresh = Traits(rec.model, known.rows, known.embeddings, known.bias)
    for one, name in zip(told[0], known.columns, strict=True):
        other = fresh.codes(name)
        np.testing.assert_array_equal(one < 0, other < 0)
        pairs = {*zip(one.ravel(), other.ravel(), strict=True)}
        assert len(pairs) == len({mine for mine, _ in pairs}) == len({its for _, its in pairs})  # one by one
    assert told[1].keys() == fresh.popularity.keys()
    for name, part in fresh.popularity.items():
        np.testing.assert_allclose(told[1][name], part, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(told[2], fresh.likeness)
    np.testing.assert_array_equal(known.centre, fresh.centre)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"diversity": -0.1}, ["diversity", "-0.1", "from 0 to 1"]),
        ({"diversity": "much"}, ["diversity", "much"]),
        ({"diversity": float("nan")}, ["diversity", "nan"]),
        ({"diversity": True}, ["diversity", "True"]),
        ({"at_most": {"colour": 1}}, ["at_most", "colour", "brand"]),
        ({"at_most": {"brand": 0}}, ["at_most", "brand", "0", "a whole number from 1"]),
        ({"at_most": {"brand": 1.5}}, ["at_most", "1.5"]),
        ({"at_most": 2}, ["at_most", "2", "{'brand': 2}"]),
        ({"pinned": ["p99"]}, ["pinned", "p99", "ids of products"]),
        ({"pinned": "p1"}, ["pinned", "p1", "a list of ids"]),
    ],
    ids=str,
)
def test_what_is_no_rule(rec, wish, words):
    for call in (
        lambda: rec.recommend(**DRY, **wish),
        lambda: rec.recommend_batch([DRY], **wish),
        lambda: rec.rank_batch([DRY], **wish),
    ):
        with pytest.raises(InputError) as caught:
            call()
        for word in words:
            assert word in str(caught.value)
