"""The synthetic mall has the figures its datasheet promises; populations of any size behave as a shop does."""

import json
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import done, run, told

from recsys_jax.errors import InputError
from recsys_jax.personas.catalogue import shipped
from recsys_jax.personas.profiles import parse_profile, profile_of_text
from recsys_jax.synthetic.malls import mall, write_mall
from recsys_jax.synthetic.populations import population, write_population

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "data" / "amoremall"

# Category: products, reviews, price quartiles, median length of a review, products of each brand.
MALL = {
    97: (20, 60, (28000, 50850, 76625, 120375, 202500), 346, [7, 5, 2, 2, 2, 2]),
    98: (20, 59, (14400, 36000, 45000, 63450, 100800), 503, [15, 2, 2, 1]),
    99: (13, 38, (9000, 32500, 42000, 56000, 84750), 178, [7, 3, 2, 1]),
    101: (20, 60, (2700, 5515, 15100, 24188, 80000), 419, [7, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1]),
    103: (20, 60, (17640, 28500, 47250, 62600, 112500), 214, [8, 6, 3, 2, 1]),
}
# Reviews in the categories 97, 98, 99, 101, 103.
PERSONAS = {
    "Loyal_Repurchase": [14, 9, 20, 24, 24],
    "Detail_Reviewer": [15, 7, 3, 24, 12],
    "Dry_Winter": [3, 33, 7, 7, 4],
    "Sensitive_Calming": [22, 6, 2, 4, 16],
    "Anti_Aging": [3, 4, 6, 1, 3],
    "Gift_Buyer": [3, 0, 0, 0, 1],
}


@pytest.fixture(scope="module", params=[0, 1, 2])
def made(request):
    return mall(request.param)


def texts(products):
    return [review["content"] for product in products for review in product["reviews"]]


def test_the_shipped_files_are_what_seed_0_gives(tmp_path):
    for path in write_mall(mall(0), tmp_path):
        assert path.read_bytes() == (SHIPPED / path.name).read_bytes(), f"run recsys-jax dataset synthetic: {path.name}"


def test_another_seed_gives_another_mall():
    one, other = mall(0), mall(1)
    assert texts(one.products) != texts(other.products)
    assert [p["price"] for p in one.products] != [p["price"] for p in other.products]
    assert one.truth["personas"] != other.truth["personas"]


def test_products_have_the_format_of_the_malls_file(made):
    for product in made.products:
        assert list(product) == [
            "product_id",
            "product_name",
            "price",
            "brand_name",
            "category",
            "sub_category",
            "rating",
            "reviews",
        ]
        assert [len(part) for part in product["product_id"].split("-")] == [8, 4, 4, 4, 12]
        assert type(product["price"]) is int
        assert product["sub_category"] == 0
        for review in product["reviews"]:
            assert list(review) == ["reviewer", "rating", "content", "date", "profile_info"]
            assert (review["reviewer"], review["rating"], review["date"]) == ("", 0, "")
            assert review["content"].strip() == review["content"] != ""
    assert len({product["product_id"] for product in made.products}) == 93
    assert len({product["product_name"] for product in made.products}) == 93


def test_figures_of_the_catalogue(made):
    products = made.products
    categories = [product["category"] for product in products]
    assert categories == sorted(categories)
    for category, (size, reviews, quartiles, _, brands) in MALL.items():
        here = [product for product in products if product["category"] == category]
        assert len(here) == size
        assert sum(len(product["reviews"]) for product in here) == reviews
        prices = [product["price"] for product in here]
        np.testing.assert_allclose(np.quantile(prices, [0, 0.25, 0.5, 0.75, 1]), quartiles, rtol=0.03)
        assert sorted(Counter(product["brand_name"] for product in here).values(), reverse=True) == brands

    brands = Counter(product["brand_name"] for product in products)
    assert len(brands) == 19
    largest, number = brands.most_common(1)[0]
    assert number == 28
    assert {product["category"] for product in products if product["brand_name"] == largest} == set(MALL)

    prices = np.array([product["price"] for product in products])
    assert np.mean(prices % 100 == 0) == pytest.approx(0.88, abs=0.005)
    assert (prices > 200000).sum() == 1
    assert len({(p["category"], p["brand_name"], p["price"]) for p in products}) == 86
    ratings = Counter(product["rating"] for product in products)
    assert ratings == {4.5: 2, 4.6: 3, 4.7: 18, 4.8: 32, 4.9: 35, 5.0: 3}
    assert Counter(len(product["reviews"]) for product in products) == {3: 91, 2: 2}


def test_figures_of_the_reviews(made):
    lengths = [len(text) for text in texts(made.products)]
    assert len(lengths) == 277
    measured = np.quantile(lengths, [0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1])
    wanted = np.array([20, 38, 124, 168, 331, 552, 752, 796, 840])
    assert (np.abs(measured - wanted) <= np.maximum(5, 0.05 * wanted)).all(), measured
    for category, (_, _, _, median, _) in MALL.items():
        here = texts([product for product in made.products if product["category"] == category])
        assert np.median([len(text) for text in here]) == pytest.approx(median, rel=0.1)


def test_traps_of_real_reviews_are_there(made):
    owners: dict[str, list[str]] = {}
    for product in made.products:
        for review in product["reviews"]:
            owners.setdefault(review["content"], []).append(product["product_id"])
    repeated = [ids for ids in owners.values() if len(ids) > 1]
    assert [len(ids) for ids in repeated] == [2, 2]
    assert all(len(set(ids)) == 2 for ids in repeated)

    every = texts(made.products)
    assert any("\r\n" in text for text in every)
    assert any("\n" in text.replace("\r\n", "") and "\r\n" in text for text in every)
    assert any(any(ord(sign) > 0x1F000 for sign in text) for text in every)
    assert not any("{" in text for text in every)


def test_every_review_has_one_writer_and_the_margins_hold(made):
    products = {product["product_id"]: product for product in made.products}
    rows = made.truth["personas"]
    every = [(product["product_id"], at) for product in made.products for at in range(len(product["reviews"]))]
    assert [(row["product_id"], row["review"]) for row in rows] == every
    counts = Counter((row["persona"], products[row["product_id"]]["category"]) for row in rows)
    for persona, wanted in PERSONAS.items():
        assert [counts[persona, category] for category in MALL] == wanted


def test_profiles_state_what_was_planted(made):
    """Nine in ten reviews have one; its skin type is the writer's, which goes with the category in four of five."""
    reviews = [(product["category"], review) for product in made.products for review in product["reviews"]]
    words = {"건성": "dry", "지성": "oily", "복합성": "combination", "민감성": "sensitive", "중성": "normal"}
    ages = {"Dry_Winter": "34", "Anti_Aging": "34", "Loyal_Repurchase": "23", "Detail_Reviewer": "23"}
    stated = 0
    for (_, review), row in zip(reviews, made.truth["personas"], strict=True):
        if review["profile_info"]:
            age, gender, skin = review["profile_info"].split("/")
            assert words[skin] == row["skin_type"]
            assert gender in ("여성", "남성")
            assert age in {f"{decade}0대" for decade in ages.get(row["persona"], "234")}
            stated += 1
    assert 235 <= stated <= 262  # 277 x 0.9, and two and a half standard deviations of 5
    own = {97: "sensitive", 98: "dry", 99: "normal", 101: "combination", 103: "oily"}
    right = sum(own[code] == row["skin_type"] for (code, _), row in zip(reviews, made.truth["personas"], strict=True))
    assert 205 <= right <= 238  # 277 x 0.8, and two and a half standard deviations of 6.7
    for code, skin in own.items():
        shares = made.truth["skin_types"][str(code)]
        assert shares[skin] == 0.8
        assert sum(shares.values()) == pytest.approx(1)


def test_no_text_contradicts_its_profile(made):
    for product in made.products:
        for review in product["reviews"]:
            profile = parse_profile(review["profile_info"], shipped().attributes, "ko")[0]
            said = profile_of_text(review["content"], shipped().attributes, "ko")
            if {"skin_type"} <= set(profile) & set(said):
                assert said["skin_type"] == profile["skin_type"]
            if {"age"} <= set(profile) & set(said):
                assert said["age"] // 10 == profile["age"] // 10


def test_the_preferences_are_consistent_with_the_margins(made):
    assert set(made.truth["preferences"]) == set(PERSONAS)
    total = np.zeros(93)
    for persona, wanted in PERSONAS.items():
        shares = made.truth["preferences"][persona]
        assert list(shares) == [product["product_id"] for product in made.products]
        values = np.array(list(shares.values()))
        assert (values >= 0).all()
        expected = values * sum(wanted)  # reviews of this persona to expect of each product
        categories = np.array([product["category"] for product in made.products])
        assert [expected[categories == c].sum() for c in MALL] == pytest.approx(wanted, abs=0.01)
        total += expected
    assert total == pytest.approx([len(product["reviews"]) for product in made.products], abs=0.01)


def test_preference_depends_on_category_brand_and_price_alone(made):
    seen: dict[tuple[int, str, int, int], list[float]] = {}
    for product in made.products:
        # The number of reviews scales what is to be expected, so it belongs to the key.
        key = (product["category"], product["brand_name"], product["price"], len(product["reviews"]))
        column = [shares[product["product_id"]] for shares in made.truth["preferences"].values()]
        assert column == pytest.approx(seen.setdefault(key, column), abs=2e-6)
    assert len(seen) < 93


def test_the_draw_follows_the_preferences(made):
    """Reviews land where their writer's preference is: far more than for a writer who picks any product."""
    planted = [made.truth["preferences"][row["persona"]][row["product_id"]] for row in made.truth["personas"]]
    # Were every product as likely as any other, the mean would be 1 / 93.
    assert np.mean(planted) > 3 / 93


def test_a_ranking_by_the_truth_beats_one_by_counts(made):
    """Reciprocal rank of a review's product, its own review not counted; equal scores share their ranks."""
    ids = [product["product_id"] for product in made.products]
    names = list(PERSONAS)
    who = np.array([names.index(row["persona"]) for row in made.truth["personas"]])
    what = np.array([ids.index(row["product_id"]) for row in made.truth["personas"]])
    truth = np.array([[made.truth["preferences"][name][key] for key in ids] for name in names])
    counts = np.zeros((6, 93))
    np.add.at(counts, (who, what), 1)

    def reciprocal(scores, product):
        above, equal = (scores > scores[product]).sum(), (scores == scores[product]).sum()
        return np.mean(1 / np.arange(above + 1, above + equal + 1))

    by_truth = [reciprocal(truth[a], b) for a, b in zip(who, what, strict=True)]
    by_counts = [reciprocal(counts[a] - (np.arange(93) == b), b) for a, b in zip(who, what, strict=True)]
    assert np.mean(by_truth) > 2 * np.mean(by_counts)


@pytest.fixture(scope="module")
def small():
    return population(500, 80, seed=0)


def test_population_buys_as_customers_do(small):
    pairs = set(zip(small.customer.tolist(), small.product.tolist(), strict=True))
    assert len(pairs) == len(small.customer)
    assert small.product.min() >= 0
    assert small.product.max() < 80
    basket = np.bincount(small.customer, minlength=500)
    assert basket.min() >= 1
    assert 2.5 < basket.mean() < 3.5  # 1 + Poisson(2)
    sales = np.sort(np.bincount(small.product, minlength=80))[::-1]
    assert sales[:8].sum() > 0.3 * sales.sum()  # a tenth of the products; 0.1 where all sell alike


def test_population_tables(small):
    assert len(set(small.customers["user_id"])) == 500
    assert len(set(small.products["product_id"])) == 80
    assert set(small.products["category"]) == {97, 98, 99, 101, 103}
    assert len(set(small.products["brand_name"])) <= 19
    assert set(small.customers["gender"]) == {"F", "M"}
    assert set(small.customers["skin_type"]) == {"dry", "oily", "combination", "sensitive", "normal"}
    assert set(small.customers["skin_concern"]) == {"moisture", "wrinkle", "gift", "repurchase", "calming", "texture"}
    assert small.customers["age"].min() >= 15
    dry = small.customers["skin_type"][small.customers["persona_name"] == "Dry_Winter"]
    assert np.mean(dry == "dry") > 0.4


def test_population_sales_follow_the_planted_preference():
    made = population(20000, 30, seed=3)
    first = made.preference.sum(axis=1)
    np.testing.assert_allclose(first, 1)
    persona = made.customers["persona_id"][made.customer]
    for index in range(6):
        sold = np.bincount(made.product[persona == index], minlength=30)
        # Nobody buys a product twice, so the most liked sell a little less than their share.
        assert np.corrcoef(sold, made.preference[index])[0, 1] > 0.9


def test_brands_grow_with_products():
    assert len(set(population(5, 5000, seed=0).products["brand_name"])) > 300


def test_more_purchases_than_products_is_no_endless_loop():
    made = population(50, 2, seed=0)
    assert np.bincount(made.customer).max() <= 2
    assert population(4, 1, seed=0).product.tolist() == [0, 0, 0, 0]


def test_population_files_are_deterministic_and_described(tmp_path):
    from pyarrow import parquet

    one = write_population(population(500, 80, seed=4), tmp_path / "one")
    two = write_population(population(500, 80, seed=4), tmp_path / "two")
    other = write_population(population(500, 80, seed=5), tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert one[-2].read_bytes() != other[-2].read_bytes()

    schema = tomllib.loads((tmp_path / "one" / "dataset.toml").read_text(encoding="utf-8"))
    columns = {
        name: parquet.read_table(tmp_path / "one" / schema[name]["file"]).column_names
        for name in schema
        if name not in ("name", "description")
    }
    assert columns == {
        "products": ["product_id", "product_name", "price", "brand_name", "category", "rating"],
        "customers": ["user_id", "persona_id", "persona_name", "age", "gender", "skin_type", "skin_concern"],
        "interactions": ["user_id", "product_id"],
    }
    for table in ("products", "customers"):
        assert {f.get("column", f["name"]) for f in schema[table]["features"]} <= set(columns[table])
    truth = parquet.read_table(tmp_path / "one" / "truth.parquet").to_pydict()
    assert list(truth) == ["product_id", *json.loads((SHIPPED / "truth.json").read_text("utf-8"))["preferences"]]
    assert [sum(truth[name]) for name in PERSONAS] == pytest.approx([1] * 6)


@pytest.mark.parametrize(("customers", "products", "seed"), [(0, 5, 0), (5, 0, 0), (5, -1, 0), (5, 5, -1)])
def test_impossible_sizes_are_told(customers, products, seed):
    with pytest.raises(InputError, match=r"found .*; allowed: "):
        population(customers, products, seed)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--customers", "5", "--products", "0", "--out", "x"], "products: found 0"),
        (["--customers", "5"], "needs both --customers and --products"),
        (["--customers", "5", "--products", "5"], "needs --out"),
    ],
)
def test_the_script_tells_a_mistake_in_a_sentence(options, sentence, tmp_path):
    told(run("dataset", "synthetic", *options, cwd=tmp_path), sentence)


def test_the_script_writes_the_mall_where_told(tmp_path):
    out = tmp_path / "our mall"
    made = done("dataset", "synthetic", "--out", out, "--seed", 0)
    assert (out / "products.json").read_bytes() == (SHIPPED / "products.json").read_bytes()
    # What to run next is for a shell to read, so a space in a name does not end it.
    assert made.next() == ["run", str(out)]
    # The catalogue that comes with the package is the one in the repository.
    assert (out / "personas.toml").read_bytes() == (SHIPPED / "personas.toml").read_bytes()
