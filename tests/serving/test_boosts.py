"""Boost rules: whom and what each condition holds for, and that a rule that cannot be meant is a sentence."""

import numpy as np
import pytest

from recsys_jax import Recommender
from recsys_jax.data.dataset import load_dataset
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError
from recsys_jax.serving.boosts import BoostRule, meets, read_boosts
from recsys_jax.serving.catalogue import Catalogue


@pytest.fixture
def spaces(mall):
    dataset = load_dataset(mall)
    schema = dataset.schema
    return (
        FeatureSpace.fit(schema.customers.features, dataset.customers),
        FeatureSpace.fit(schema.products.features, dataset.products),
        dataset,
    )


@pytest.fixture
def rules(tmp_path, spaces):
    """Reads rules from a text; gives which customers u1.. and products p1.. each one is about."""

    def read(text: str) -> list:
        path = tmp_path / "boosts.toml"
        path.write_text(text, encoding="utf-8")
        return list(read_boosts(path, spaces[0], spaces[1]))

    return read


def products_of(rule, spaces) -> list[str]:
    _, space, dataset = spaces
    return [dataset.product_ids[row] for row in np.flatnonzero(meets([rule.product], space, dataset.products))]


def customers_of(rule, spaces) -> list[str]:
    space, _, dataset = spaces
    return [dataset.customer_ids[row] for row in np.flatnonzero(meets([rule.customer], space, dataset.customers))]


EVERYBODY = [f"u{n}" for n in range(1, 11)]
EVERYTHING = [f"p{n}" for n in range(1, 9)]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ('{ skin_type = "dry" }', ["u1", "u2"]),
        ('{ skin_type = "sensitive" }', ["u3", "u4", "u7"]),  # u3 is "mature", which means sensitive
        ('{ skin_type = "mature" }', ["u3", "u4", "u7"]),
        ('{ skin_type = ["oily", "normal"] }', ["u5", "u6", "u9", "u10"]),  # u5 is "unknown", which means normal
        ('{ skin_type = "sensitive", skin_concern = "calming" }', ["u7"]),
        ('{ gender = "M", skin_concern = ["gift", "texture"] }', ["u5", "u6", "u10"]),
        ("{ age = 32 }", ["u2"]),
        ("{ age = { min = 58 } }", ["u3", "u4"]),
        ("{ age = { max = 22 } }", ["u7", "u10"]),
        ("{ age = { min = 25, max = 32.0 } }", ["u1", "u2", "u8"]),
        ("{ age = { min = 110 } }", []),
        ("{}", EVERYBODY),
    ],
)
def test_customer_conditions(rules, spaces, condition, wanted):
    (rule,) = rules(f"[[boost]]\ncustomer = {condition}\nadd = 0.1")
    assert customers_of(rule, spaces) == wanted
    assert products_of(rule, spaces) == EVERYTHING


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("{ category = 97 }", ["p1", "p2", "p8"]),
        ('{ category = "97" }', ["p1", "p2", "p8"]),
        ('{ category = "Skincare" }', ["p1", "p2", "p8"]),
        ('{ category = ["Makeup", 103] }', ["p3", "p4", "p7"]),
        ('{ brand = "Isul" }', ["p1", "p3", "p8"]),
        ('{ brand = "Isul", category = "Skincare" }', ["p1", "p8"]),
        ("{ price = { min = 24000, max = 46000 } }", ["p1", "p2", "p4", "p7"]),  # bounds count; prices, not scaled
        ("{ price = { min = 200001 } }", ["p8"]),  # beyond the clip
        ("{ price = 9000 }", ["p6"]),
    ],
)
def test_product_conditions(rules, spaces, condition, wanted):
    (rule,) = rules(f"[[boost]]\nproduct = {condition}\nadd = -0.1")
    assert products_of(rule, spaces) == wanted
    assert customers_of(rule, spaces) == EVERYBODY
    assert rule.add == -0.1


def test_names(rules):
    given, made, bare = rules(
        """
        [[boost]]
        name = "spring"
        add = 0.1
        [[boost]]
        customer = { skin_type = "dry" }
        product = { category = "Skincare" }
        add = 0.3
        [[boost]]
        add = 1
        """
    )
    assert given.name == "spring"
    assert "skin_type" in made.name
    assert "dry" in made.name
    assert "category" in made.name
    assert "Skincare" in made.name
    assert bare.name
    assert bare.add == 1.0


def test_no_rules(rules):
    assert rules("boost = []") == []


def test_conditions_on_several_values_and_missing_numbers(films, tmp_path):
    dataset = load_dataset(films)
    customers = FeatureSpace.fit(dataset.schema.customers.features, dataset.customers)
    products = FeatureSpace.fit(dataset.schema.products.features, dataset.products)
    path = tmp_path / "boosts.toml"
    path.write_text(
        """
        [[boost]]
        customer = { likes = "Drama" }
        product = { genres = ["Crime", "Comedy"] }
        add = 0.1
        [[boost]]
        customer = { country = "Korea" }
        product = { year = { min = 1900 } }
        add = 0.1
        [[boost]]
        customer = { age = { max = 200 } }
        add = 0.1
        """
    )
    several, aliased, numbers = read_boosts(path, customers, products)
    rules = several, aliased, numbers
    of_customers = meets([rule.customer for rule in rules], customers, dataset.customers).T.tolist()
    of_products = meets([rule.product for rule in rules], products, dataset.products).T.tolist()
    assert (of_customers[0], of_products[0]) == ([True, True, False, False], [True, False, True, True, False])
    assert (of_customers[1], of_products[1]) == ([True, False, True, False], [True, True, True, False, True])  # no year
    assert (of_customers[2], of_products[2]) == ([True, False, True, True], [True] * 5)  # v2 has no age


def test_numbers_as_texts_meet_conditions(rules, spaces):
    """As they come from CSV and from the command line."""
    (rule,) = rules("[[boost]]\ncustomer = { age = { min = 30, max = 40 } }\nadd = 0.1")
    rows = Table.of({"age": ["30", "41", " 40 ", "", None, "abc", 29.9]}, "t")
    assert meets([rule.customer], spaces[0], rows)[:, 0].tolist() == [True, False, True, False, False, False, False]


BROKEN = [
    ("", ["nothing", "[[boost]]"]),
    ("boost = 3", ["[[boost]]"]),
    ("[boost]\nadd = 0.1", ["[[boost]]"]),
    ("[[boots]]\nadd = 0.1", ["'boots'", "[[boost]]"]),
    ("[[boost]]\nadd = 0.1\n[other]", ["'other'", "[[boost]]"]),
    ("boost = [1]", ["boost 1", "1"]),
    ('boost = [{ add = 0.1 }, "abc"]', ["boost 2", "'abc'"]),
    ("boost = [[]]", ["boost 1", "[]"]),
    ("[[boost]]\nadd = 0.1\n[[boost]]", ["boost 2", "add", "nothing", "-1 to 1"]),
    ("[[boost]]\nadd = 1.5", ["boost 1", "add", "1.5", "-1 to 1"]),
    ("[[boost]]\nadd = -2", ["boost 1", "add", "-2", "-1 to 1"]),
    ("[[boost]]\nadd = nan", ["boost 1", "add", "nan", "-1 to 1"]),
    ("[[boost]]\nadd = true", ["boost 1", "add", "True", "-1 to 1"]),
    ('[[boost]]\nadd = "0.3"', ["boost 1", "add", "'0.3'", "-1 to 1"]),
    (f"[[boost]]\nadd = {'9' * 400}", ["boost 1", "add", "-1 to 1"]),
    ("[[boost]]\nadd = 0.1\nwho = 3", ["boost 1", "'who'", "'customer'", "'product'", "'add'"]),
    ('[[boost]]\nadd = 0.1\ncustomer = "dry"', ["boost 1", "customer", "'dry'", "table"]),
    ('[[boost]]\nadd = 0.1\ncustomer = { skin = "dry" }', ["boost 1", "customer", "'skin'", "'skin_type'", "'age'"]),
    ('[[boost]]\nadd = 0.1\ncustomer = { category = "Skincare" }', ["boost 1", "customer", "'category'", "'gender'"]),
    ("[[boost]]\nadd = 0.1\nproduct = { brand_name = 3 }", ["boost 1", "product", "'brand_name'", "'brand'"]),
    ('[[boost]]\nadd = 0.1\ncustomer = { skin_type = "dryish" }', ["boost 1", "skin_type", "'dryish'", "'dry'"]),
    ('[[boost]]\nadd = 0.1\ncustomer = { skin_type = ["dry", "x"] }', ["boost 1", "skin_type", "'x'", "'dry'"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { skin_type = { min = 3 } }", ["boost 1", "skin_type", "'min'", "'dry'"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { skin_type = [] }", ["boost 1", "skin_type", "[]", "'dry'"]),
    ('[[boost]]\nadd = 0.1\ncustomer = { skin_type = "" }', ["boost 1", "skin_type", "''", "'dry'"]),
    ("[[boost]]\nadd = 0.1\nproduct = { category = 100 }", ["boost 1", "category", "100", "'Skincare'"]),
    ('[[boost]]\nadd = 0.1\nproduct = { brand = "Nobody" }', ["boost 1", "brand", "'Nobody'", "'Isul'"]),
    ('[[boost]]\nadd = 0.1\ncustomer = { age = "old" }', ["boost 1", "age", "'old'", "min"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { age = true }", ["boost 1", "age", "True", "min"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { age = [30, 40] }", ["boost 1", "age", "[30, 40]", "min"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { age = {} }", ["boost 1", "age", "{}", "min"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { age = { from = 3 } }", ["boost 1", "age", "'from'", "min"]),
    ('[[boost]]\nadd = 0.1\ncustomer = { age = { min = "3" } }', ["boost 1", "age", "'3'", "min"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { age = { min = 50, max = 20 } }", ["boost 1", "age", "50", "20", "min"]),
    ("[[boost]]\nadd = 0.1\ncustomer = { age = { min = nan } }", ["boost 1", "age", "nan", "min"]),
    (f"[[boost]]\nadd = 0.1\ncustomer = {{ age = {'9' * 400} }}", ["boost 1", "age", "min"]),
    ("[[boost]\nadd = 0.1", ["TOML", "line 1"]),
]


@pytest.mark.parametrize(("text", "words"), BROKEN, ids=range(len(BROKEN)))
def test_each_bad_rule_is_a_sentence(rules, text, words):
    with pytest.raises(InputError) as caught:
        rules(text)
    for word in ["boosts.toml", *words]:
        assert word in str(caught.value)


def test_an_absent_file(tmp_path, spaces):
    with pytest.raises(InputError, match=r"none\.toml: there is no such file"):
        read_boosts(tmp_path / "none.toml", spaces[0], spaces[1])


@pytest.mark.wild
def test_a_rule_hides_nothing_of_popularity(films_model):
    """What popularity adds and what a rule of that name adds stand apart."""
    (plain, *_) = Recommender(films_model).recommend()
    (found, *_) = Recommender(films_model, [BoostRule("popularity", {}, {}, 0.25)]).recommend()
    assert (found["boost"], found["boosts"]) == (0.25, {"popularity": 0.25})
    assert found["popularity"] == plain["popularity"] != 0.0
    assert (plain["boost"], plain["boosts"]) == (0.0, {})


@pytest.mark.wild
@pytest.mark.parametrize("add", [1.0, -1.0])
def test_a_thousand_rules_keep_the_order_of_scores(served, add):
    """In 32 bits, nothing is left of a cosine beside their sum; they are all for everybody, and all for everything."""
    plain, boosted = Recommender(served), Recommender(served, [BoostRule(f"{n}", {}, {}, add) for n in range(1000)])
    dry = {"gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
    requests = [{**dry, "age": age} for age in range(20, 70)]
    options = {"top_n": 7, "categories": [97, 98, 99]}
    bought = [["p1"], *[[]] * 49]
    both = [one.recommend_batch(requests, purchased_products=bought, **options) for one in (plain, boosted)]
    for row, request in enumerate(requests):
        alone = boosted.recommend(**request, purchased_products=bought[row], **options)
        expected = plain.recommend(**request, purchased_products=bought[row], **options)
        ids = [[entry["product_id"] for entry in found] for found in (expected, alone, both[0][row], both[1][row])]
        assert ids[1:] == ids[:1] * 3
        assert [entry["score"] for entry in alone] == [entry["score"] for entry in expected]
        assert min(abs(entry["boost"]) for entry in alone) > 990


@pytest.mark.wild
def test_many_rules_of_which_a_customer_meets_few_are_as_few(mall_model, monkeypatch):
    """And what many of them add is compared in full: the cheaper a product, the more rules speak for it."""
    rules = [BoostRule(f"{n}", {"age": (float(n), float(n))}, {"category": {"98"}}, 1.0) for n in range(1, 121)]
    recommender = Recommender(mall_model, rules)
    monkeypatch.setattr(Catalogue, "ranked", None)
    dry = {"gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
    assert recommender.recommend(**dry, age=20)[0]["category"] == "Makeup"
    monkeypatch.undo()
    rules = [BoostRule(f"{n}", {}, {"price": (0.0, 100.0 * n)}, 0.1) for n in range(2600)]
    found = Recommender(mall_model, rules).recommend(**dry, age=20, top_n=8)
    assert [entry["price"] for entry in found] == sorted(entry["price"] for entry in found)


LOST = "; there is 'f2': zeros at the front seem lost"


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda rec, id_: rec.remove_products(["f1", id_]), "remove_products(): found ['0f2']"),
        (lambda rec, id_: rec.add_products([{"film": id_}]), "add_products(), row 1, film: found '0f2'"),
        (lambda rec, id_: rec.recommend(age=30, purchased_products=[id_], strict=True), "purchased_products: found"),
        (lambda rec, id_: rec.recommend(age=30, available=["f1", id_], strict=True), "available: found '0f2'"),
    ],
    ids=["removed", "added", "bought", "available"],
)
def test_an_id_that_lost_its_zeros_is_pointed_out(films_model, call, field):
    """By a service, as in files: else a product would stay that should go, or stand there twice."""
    rec = Recommender(films_model)
    with pytest.raises(InputError) as caught:
        call(rec, "0f2")
    assert field in str(caught.value)
    assert str(caught.value).endswith(LOST)
    assert rec.product_ids == films_model.product_ids
    with pytest.raises(InputError) as caught:
        call(rec, "other") if "add" not in field else rec.add_products([{"film": "f2"}])
    assert "zeros" not in str(caught.value)


def test_so_it_is_in_a_rule(films_model, tmp_path):
    path = tmp_path / "boosts.toml"
    path.write_text('[[boost]]\nproduct = { film = "0f2" }\nadd = 0.1\n')
    known = films_model.customers, films_model.products, {"film": films_model.product_ids}
    with pytest.raises(InputError) as caught:
        read_boosts(path, *known)
    assert str(caught.value).endswith(f"film: found '0f2'; allowed: the id of a product, or a list of such{LOST}")


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        *[("01012345678", "1012345678"), ("00123", "123"), ("00123", "0123"), ("0045", 45)],
        *[("7", "7.0"), ("007", "7.0"), ("7.0", "7")],
    ],
)
def test_whatever_the_widths_of_ids(films_model, known, asked):
    rec = Recommender(films_model)
    rec.add_products([{"film": film, "genres": "Drama", "year": "", "studio": "Big"} for film in ("5", known)])
    for call in (
        lambda: rec.remove_products([asked]),
        lambda: rec.add_products([{"film": asked, "genres": "Drama", "year": "", "studio": "Big"}]),
        lambda: rec.add_products(
            [{"film": film, "genres": "Drama", "year": "", "studio": "Big"} for film in ("8", "08")]
        ),
    ):
        with pytest.raises(InputError, match=r"; there is '.+': (zeros at the front|a program seems)"):
            call()
    assert rec.product_ids == (*films_model.product_ids, "5", known)
