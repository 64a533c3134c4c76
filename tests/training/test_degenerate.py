"""Degenerate shops and requests: each trains to finite parameters and recommends, or is refused with a sentence."""

from dataclasses import replace
from math import inf
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax import DeepConfig, InputError, Recommender, TrainedModel, fit
from recsys_jax.config import WideConfig
from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.retrieval import scoring

BRAND = {"kind": "categorical", "values": ["A", "B"], "unknown": "extra-row", "missing": "extra-row"}
NUMBER = {"kind": "numeric", "standardise": True, "unknown": "missing", "missing": "flag"}
LIKES = {"kind": "multi-categorical", "values": ["a", "b"], "separator": "|", "unknown": "ignore", "missing": "ignore"}
SCHEMA = Schema.parse(
    {
        "name": "shop",
        "products": {
            "file": "products.json",
            "id": "id",
            "category": "kind",
            "features": [{"name": "brand", **BRAND}, {"name": "kind", **BRAND}, {"name": "price", **NUMBER}],
        },
        "customers": {
            "file": "customers.json",
            "id": "id",
            "purchases": "bought",
            "features": [{"name": "skin", **BRAND}, {"name": "age", **NUMBER}, {"name": "likes", **LIKES}],
        },
    },
    "schema",
)
PRODUCTS = [{"id": f"p{i}", "brand": "AB"[i % 2], "kind": "AB"[i // 3], "price": 1000 * (i + 1)} for i in range(6)]
CUSTOMERS = [
    {"id": f"c{i}", "skin": "AB"[i % 2], "age": 20 + i, "likes": "a" if i % 3 else "a|b", "bought": [f"p{i % 6}"]}
    for i in range(12)
]
Rows = list[dict[str, Any]]


def all_(rows: Rows, **values: Any) -> Rows:
    return [{**row, **values} for row in rows]


EVERYTHING = [row["id"] for row in PRODUCTS]
SHOPS: dict[str, tuple[Rows, Rows]] = {
    "all customers equal": (PRODUCTS, all_(CUSTOMERS, skin="A", age=30, likes="a|b")),
    "all products equal": (all_(PRODUCTS, brand="A", kind="A", price=5), CUSTOMERS),
    "one brand": (all_(PRODUCTS, brand="A"), CUSTOMERS),
    "one category": (all_(PRODUCTS, kind="A"), CUSTOMERS),
    "one customer, one purchase": (PRODUCTS, CUSTOMERS[:1]),
    "everybody bought one product": (PRODUCTS, all_(CUSTOMERS, bought=["p0"])),
    "everybody bought everything": (PRODUCTS, all_(CUSTOMERS, bought=EVERYTHING)),
    "customers twice": (PRODUCTS, [{**CUSTOMERS[i % 6], "id": f"c{i}"} for i in range(12)]),
    "constant numbers": (all_(PRODUCTS, price=5), all_(CUSTOMERS, age=30)),
    "no numbers": (all_(PRODUCTS, price=None), all_(CUSTOMERS, age=None)),
    "nothing stated": (
        all_(PRODUCTS, brand=None, kind=None, price=None),
        all_(CUSTOMERS, skin=None, age=None, likes=None),
    ),
}
SMALL: dict[str, Any] = {"epochs": 3, "batch_size": 12, "hidden_dim": 8, "output_dim": 4, "embedding_dim": 3}
RECIPES = {
    "wide": WideConfig(),
    "wide, without penalties": WideConfig(1e-6, 1e-6, 1e-6),
    "triplet, margin 0": DeepConfig(margin=0.0, **SMALL),
    "softmax": DeepConfig(loss="softmax", popularity_bias=True, id_embedding=True, attribute_dropout=0.2, **SMALL),
}
SLOW_RECIPES = {
    "triplet, hard": DeepConfig(negatives="hard", **SMALL),
    "triplet, semi-hard": DeepConfig(negatives="semi-hard", **SMALL),
    "infonce": DeepConfig(loss="infonce", popularity_bias=True, id_embedding=True, **SMALL),
    "infonce, log-q": DeepConfig(loss="infonce", log_q=True, **SMALL),
    "softmax, 1 dimension": DeepConfig(loss="softmax", epochs=3, embedding_dim=1, hidden_dim=1, output_dim=1),
    "triplet, batches of 2": DeepConfig(**{**SMALL, "batch_size": 2}),
    "wide, all penalties infinite": WideConfig(inf, inf, inf),
    "wide, 3 dimensions": WideConfig(output_dim=3, item_factors=1),
}


def shop(products: Rows, customers: Rows) -> Dataset:
    ids = [row["id"] for row in products]
    tables = Table.of(products, "products"), Table.of(customers, "customers")
    return assemble(SCHEMA, tables[0], ids, tables[1], None)  # type: ignore[arg-type]


def nothing_to_compare(name: str, config: Any) -> bool:
    """Every customer has bought all that the loss could take as a negative."""
    if not isinstance(config, DeepConfig) or config.loss == "softmax":
        return False
    within_the_batch = config.negatives_among == "purchased"
    alone = name in ("one customer, one purchase", "everybody bought one product")
    return name == "everybody bought everything" or (within_the_batch and alone)


def sound(found: list[dict[str, Any]], count: int) -> None:
    assert len(found) == count
    assert all(0.0 <= one["score"] <= 1.0 for one in found)  # which no NaN is
    assert np.isfinite([one["popularity"] for one in found]).all()


def check(name: str, config: Any) -> None:
    """Trains on the shop and recommends of it, to strangers too, and products of which nothing is known."""
    data = shop(*SHOPS[name])
    if nothing_to_compare(name, config):
        with pytest.raises(InputError, match=r"^customers: every customer bought all .* nothing to learn; allowed: "):
            fit(data, config)
        return
    model = fit(data, config)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.variables["params"]))
    assert np.isfinite(model.losses).all()
    # No log-odds of popularity next to which a score of 0 to 1, or a boost rule, is nothing.
    assert np.abs(model.product_bias).max() < 50
    rec = Recommender(model)
    rec.add_products([{"id": "new", "brand": "C", "kind": None, "price": None}])
    for customer in ({}, {"skin": "A", "age": 25, "likes": "a"}, {"skin": "?", "age": 1e9, "likes": "?"}):
        sound(rec.recommend(**customer, top_n=9), 7)
        sound(rec.recommend_batch([customer], top_n=9)[0], 7)


# Shops of the same shapes share what is compiled; the others are left to the longer test.
OTHER_SHAPES = ("everybody bought everything", "nothing stated")


@pytest.mark.parametrize("name", SHOPS)
@pytest.mark.parametrize("recipe", ["wide", "wide, without penalties"])
def test_a_degenerate_shop_is_learned_from_or_refused(name, recipe):
    check(name, RECIPES[recipe])


@pytest.mark.parametrize("name", [name for name in SHOPS if name not in OTHER_SHAPES])
@pytest.mark.parametrize("recipe", ["triplet, margin 0", "softmax"])
def test_so_by_the_towers(name, recipe):
    check(name, RECIPES[recipe])


def test_there_is_no_negative_where_everybody_bought_everything():
    check("everybody bought everything", RECIPES["triplet, margin 0"])


@pytest.mark.slow(reason="twelve recipes on every degenerate shop; the gate has four of them")
@pytest.mark.parametrize("name", SHOPS)
@pytest.mark.parametrize("recipe", [*RECIPES, *SLOW_RECIPES])
def test_so_with_every_loss(name, recipe):
    check(name, (RECIPES | SLOW_RECIPES)[recipe])


@pytest.mark.parametrize("config", [WideConfig(), DeepConfig()])
@pytest.mark.parametrize(
    ("products", "customers", "sentence"),
    [
        (PRODUCTS[:1], all_(CUSTOMERS, bought=["p0"]), "products: found 1 product; at least 2 are needed"),
        (PRODUCTS, all_(CUSTOMERS, bought=[]), "customers: nobody bought anything"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(config, products, customers, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        fit(shop(products, customers), config)


def test_a_learned_vocabulary_needs_a_value():
    """Of a column that is wholly missing nothing is learned; a vocabulary in the schema may be left unused."""
    learned = tuple(replace(f, values=None) if f.name == "skin" else f for f in SCHEMA.customers.features)
    data = shop(PRODUCTS, all_(CUSTOMERS, skin=None))
    data = replace(data, schema=replace(SCHEMA, customers=replace(SCHEMA.customers, features=learned)))
    with pytest.raises(InputError, match=r"^customers: the column 'skin' holds no value to learn from"):
        fit(data, WideConfig())


def test_where_all_customers_bought_everything_all_products_are_equal():
    """Popularity alone is the best fit; the optimiser once followed rounding to a loss of -1e22 and away."""
    model = fit(shop(*SHOPS["everybody bought everything"]), WideConfig(1e-6, 1e-6, 1e-6))
    assert model.losses.tolist() == [0.0]
    assert np.ptp(model.product_bias) < 1e-6
    customer = model.embed_customers(Table.of(CUSTOMERS, "customers"))
    assert np.ptp(customer @ model.product_embeddings.T) < 1e-6


# Scores


def with_weights(model: TrainedModel, factor: float) -> TrainedModel:
    """The model with all weights times a factor, its products embedded anew; radii and running variances stay."""

    def scaled(path: Any, leaf: np.ndarray) -> np.ndarray:
        names = [step.key for step in path]
        return (
            leaf
            if "radius" in names or "batch_stats" in names or names[-1].endswith("knots")
            else leaf * np.float32(factor)
        )

    variables = {**model.variables, "params": jax.tree_util.tree_map_with_path(scaled, model.variables["params"])}
    changed = replace(model, variables=variables)
    rows = Table("products", model.product_rows)
    return replace(changed, product_embeddings=changed.embed_products(rows))


def with_products(model: TrainedModel, count: int) -> TrainedModel:
    """The model with its first products alone."""
    rows = {name: column[:count] for name, column in model.product_rows.items()}
    arrays = {"product_embeddings": model.product_embeddings[:count], "purchases": model.purchases[:count]}
    popularity = model.popularity._replace(of_product=model.popularity.of_product[:count])
    return replace(model, product_ids=model.product_ids[:count], product_rows=rows, popularity=popularity, **arrays)


CHANGED = {
    "as trained": lambda model: model,
    "zero weights": lambda model: with_weights(model, 0.0),
    "tiny weights": lambda model: with_weights(model, 1e-12),
    "huge weights": lambda model: with_weights(model, 1e4),
    "one product": lambda model: with_products(model, 1),
}


@pytest.fixture(scope="module")
def trained() -> dict[str, TrainedModel]:
    """One of each recipe, of a shop that is none of the above."""
    data = shop(PRODUCTS, CUSTOMERS)
    return {name: fit(data, RECIPES[name]) for name in ("wide", "softmax")}


VALUES = st.none() | st.text(max_size=4) | st.sampled_from(["A", "B", " a", "a|b"])
NUMBERS = st.none() | st.floats(-1e14, 1e14) | st.integers(-200, 200) | st.sampled_from(["", "x", "32", "-0", "1e400"])
CUSTOMER = st.fixed_dictionaries(
    {}, optional={"skin": VALUES | st.booleans() | st.integers(), "age": NUMBERS, "likes": VALUES | st.lists(VALUES)}
)
PRODUCT = st.fixed_dictionaries({"brand": VALUES, "kind": VALUES, "price": NUMBERS})


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("recipe", ["wide", "softmax"])
@settings(max_examples=25)
@given(
    customers=st.lists(CUSTOMER, min_size=1, max_size=5),
    new=st.none() | PRODUCT,
    bought=st.lists(st.sampled_from([*EVERYTHING, "p99", 7, None]), max_size=8),
    kinds=st.none() | st.lists(st.just("A"), max_size=2),
    top_n=st.integers(1, 12) | st.just(10**20),
)
@np.errstate(over="ignore")  # squares of vectors of huge weights: they become zero vectors
def test_scores_of_any_valid_request_lie_within_0_and_1(trained, recipe, change, customers, new, bought, kinds, top_n):
    rec = Recommender(CHANGED[change](trained[recipe]))
    if new is not None:
        rec.add_products([{"id": "new", **new}])
    shown = [one for one in rec.recommend(top_n=99) if kinds is None or (one["category"] == "A" and kinds)]
    count = min(top_n, sum(one["product_id"] not in bought for one in shown))
    options = {"top_n": top_n, "categories": kinds}
    batch = rec.recommend_batch(customers, purchased_products=[bought] * len(customers), **options)
    ranked = rec.rank_batch(customers, purchased_products=[bought] * len(customers), **options)
    for customer, together, scores in zip(customers, batch, ranked.scores, strict=True):
        alone = rec.recommend(**customer, purchased_products=bought, **options)
        for found in (alone, together):
            sound(found, count)
            assert not {one["product_id"] for one in found} & set(bought)
        np.testing.assert_array_equal(scores[:count], np.clip(scores[:count], 0, 1))
        assert np.isnan(scores[count:]).all()
        tied = {"atol": 1e-4, "rtol": 1e-4}
        np.testing.assert_allclose(*([x["score"] + x["popularity"] for x in one] for one in (alone, together)), **tied)


def test_a_zero_vector_scores_one_half(trained):
    """A tower whose weights are zero gives zero vectors, which have no direction."""
    model = with_weights(trained["softmax"], 0.0)
    assert not model.product_embeddings.any()
    assert np.asarray(scoring.scores(np.zeros((1, 4), np.float32), model.product_embeddings)).tolist() == [[0.5] * 6]
    assert [one["score"] for one in Recommender(model).recommend(age=30, top_n=6)] == [0.5] * 6
    assert (Recommender(model).rank_batch([{"age": 30}], top_n=6).scores == 0.5).all()


@pytest.mark.parametrize("call", ["recommend", "recommend_batch"])
def test_a_vector_that_is_not_finite_is_refused(trained, call):
    """Weights of 1e30 leave the range of 32 bits, and infinity less infinity is no score."""
    good = trained["softmax"]
    broken = replace(good, variables=with_weights_of_customers(good, 1e30))
    with np.errstate(all="ignore"):
        rec = Recommender(broken)
        ask = {
            "recommend": lambda: rec.recommend(age=30),
            "recommend_batch": lambda: rec.recommend_batch([{}, {"age": 3}]),
        }
        where = {"recommend": r"recommend\(\)", "recommend_batch": r"recommend_batch\(\), row 1"}[call]
        with pytest.raises(InputError, match=f"^{where}: found a vector that is not finite; allowed: "):
            ask[call]()


def with_weights_of_customers(model: TrainedModel, factor: float) -> dict[str, Any]:
    params = model.variables["params"]
    customer = jax.tree.map(lambda leaf: leaf * np.float32(factor), params["customer"])
    return {**model.variables, "params": {**params, "customer": customer}}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_with_a_product_that_is_nowhere_is_refused(trained, value):
    embeddings = trained["softmax"].product_embeddings.copy()
    embeddings[2, 1] = value
    with pytest.raises(InputError, match=r"^the model's products, row 3: found a vector that is not finite"):
        Recommender(replace(trained["softmax"], product_embeddings=embeddings))


def test_a_number_beyond_all_measure_is_refused_with_its_field(trained):
    """The squares of the towers' sums would be infinite, and every score 0.5 without a word."""
    rec = Recommender(trained["softmax"])
    sound(rec.recommend(age=1e15, top_n=9), 6)
    for age in (1e25, -1e25):
        with pytest.raises(InputError, match=r"^recommend\(\), age: found -?1e\+25; allowed: .* once scaled"):
            rec.recommend(age=age)
