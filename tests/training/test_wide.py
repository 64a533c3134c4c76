"""The wide recipe: its towers say what the model says, the fit is the best one, and each promise about it holds."""

from dataclasses import replace
from math import inf

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from test_training import dataset as checkerboard

from recsys_jax.config import WideConfig
from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError
from recsys_jax.models.basis import hats
from recsys_jax.models.popularity import learn_popularity
from recsys_jax.serving.recommender import Recommender
from recsys_jax.storage.artifacts import load_model, save_model
from recsys_jax.training import convex
from recsys_jax.training.fit import fit, fit_seeds
from recsys_jax.training.purchases import item_factors

OPEN = {"unknown": "extra-row", "missing": "extra-row"}
PENALTIES = WideConfig(own_l2=2.0, attribute_l2=3.0, factor_l2=5.0)


def shop(customers=80, products=7, seed=0) -> Dataset:
    """Customers with every kind of attribute, some missing, who buy one to three of few products."""
    rng = np.random.default_rng(seed)
    goods = [{"id": f"p{j}", "kind": "abc"[j % 3], "weight": None if j == 4 else j / 2} for j in range(products)]
    rows = []
    for i in range(customers):
        age = int(rng.integers(18, 70))
        first = int(rng.integers(products)) if age < 40 else int(rng.integers(2))
        bought = {first, *rng.integers(0, products - 1, rng.integers(3)).tolist()}  # nobody need buy the last one
        rows.append(
            {
                "id": f"c{i}",
                "skin": [None, "dry", "oily"][int(rng.integers(3))],
                "concerns": "|".join(rng.choice(["pores", "acne", "lines"], rng.integers(3), replace=False)),
                "age": None if i % 9 == 0 else age,
                "bought": [f"p{j}" for j in sorted(bought - {products - 1} or {0})],
            }
        )
    schema = Schema.parse(
        {
            "name": "shop",
            "products": {
                "file": "p.json",
                "id": "id",
                "features": [
                    {"name": "kind", "kind": "categorical", "values": "learned", **OPEN},
                    {"name": "weight", "kind": "numeric", "standardise": True, "unknown": "error", "missing": "flag"},
                ],
            },
            "customers": {
                "file": "c.json",
                "id": "id",
                "purchases": "bought",
                "features": [
                    {"name": "skin", "kind": "categorical", "values": "learned", **OPEN},
                    {
                        "name": "concerns",
                        "kind": "multi-categorical",
                        "values": "learned",
                        "separator": "|",
                        "unknown": "ignore",
                        "missing": "extra-row",
                    },
                    {"name": "age", "kind": "numeric", "standardise": True, "unknown": "error", "missing": "flag"},
                ],
            },
        },
        "schema",
    )
    table = Table.of(goods, "products")
    return assemble(schema, table, [row["id"] for row in goods], Table.of(rows, "customers"), None)  # type: ignore[arg-type]


def log_odds(model, table) -> np.ndarray:
    """What the towers and the bias say, as log-odds but for a constant per customer."""
    cosines = model.embed_customers(table).astype(np.float64) @ model.product_embeddings.T.astype(np.float64)
    found = (cosines + 2 * model.product_bias.astype(np.float64)) / (2 * model.popularity.scale)
    return found - found[:, :1]


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=8),
    st.lists(st.integers(-40, 40), min_size=2, max_size=9, unique=True),
)
def test_hats_interpolate(xs, knots):
    knots = np.sort(np.array(knots, np.float64))
    heights = np.random.default_rng(0).standard_normal(len(knots))
    weights = hats(np.array(xs), knots, np)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(weights @ heights, np.interp(xs, knots, heights), atol=1e-9)


def test_hats_in_jax():
    x, knots = np.linspace(-3, 9, 50), np.array([-2.0, 0.5, 1.0, 8.0])
    np.testing.assert_allclose(hats(jnp.array(x), jnp.array(knots)), hats(x, knots, np), atol=1e-6)


def design(data: Dataset) -> np.ndarray:
    """The customers' columns, written out: skin, concerns, then a curve of the age by nine quantiles."""
    columns = data.customers
    skins, concerns, ages = (columns.column(name) for name in ("skin", "concerns", "age"))
    values = [key for key in dict.fromkeys(skins) if key is not None] + [None]
    first = np.array([[skin == value for value in values] for skin in skins], np.float64)
    tags = list(dict.fromkeys(tag for concern in concerns for tag in concern.split("|") if tag))
    second = np.array([[tag in concern.split("|") for tag in tags] + [not concern] for concern in concerns], np.float64)
    known = np.array([age for age in ages if age is not None], np.float64)
    scaled = [np.nan if age is None else np.float32((age - known.mean()) / known.std()) for age in ages]
    x = np.array(scaled, np.float64)
    knots = np.unique(np.quantile(x[~np.isnan(x)], np.linspace(0, 1, 9)))
    assert len(knots) == 9
    curves = [
        np.stack([np.interp(x, knots[:: 8 // n], row) for row in np.eye(n + 1)], axis=1) * 0.7 for n in (1, 2, 4, 8)
    ]
    missing = np.isnan(x)[:, None]
    third = np.concatenate([np.where(missing, 0.0, np.concatenate(curves, axis=1)), missing], axis=1)
    return np.concatenate([first, second, third], axis=1)


def test_the_fit_is_the_best_one_by_an_independent_optimiser():
    """With own penalties alone: the penalised likelihood, written out by purchase, minimised by SciPy in float64."""
    data = shop(products=5)
    model = fit(data, WideConfig(own_l2=2.0, attribute_l2=inf, factor_l2=inf))
    x, (rows, targets) = design(data), data.purchases.T
    counts = np.bincount(targets, minlength=5)
    bought = np.flatnonzero(counts)
    assert bought.tolist() == [0, 1, 2, 3]  # nobody bought the last one, which is left out
    popularity = model.product_bias.astype(np.float64)[:4] * 2 / (2 * model.popularity.scale)
    x = x - x[rows].mean(axis=0)  # of the average purchase

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(x.shape[1], 4)
        logits = popularity + x[rows] @ weights
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        wanted = np.eye(4)[targets]
        value = -np.log((shares * wanted).sum(axis=1)).sum() + 2.0 / 2 * (weights**2).sum()
        return value, (x[rows].T @ (shares - wanted) + 2.0 * weights).ravel()

    start = np.zeros(x.shape[1] * 4)
    best = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    )
    expected = popularity + x @ best.x.reshape(-1, 4)
    np.testing.assert_allclose(log_odds(model, data.customers)[:, :4], expected - expected[:, :1], atol=2e-3)
    changes = expected - popularity
    assert (changes - changes.mean(axis=1, keepdims=True)).std() > 0.1  # there is something to agree on


def test_popularity_is_the_count_and_a_pseudo_count():
    """n + pseudo-count x expected, next to an average product."""
    data = shop()
    model = fit(data, PENALTIES)
    found = np.exp(model.product_bias.astype(np.float64) * 2 / (2 * model.popularity.scale))
    counts = np.bincount(data.purchases[:, 1], minlength=7)
    bought = counts[counts > 0]
    pseudo_count = max(bought.mean() ** 2 / (bought.var() - bought.mean()), 1.0)
    expected = (found * (counts.mean() + pseudo_count) - counts) / pseudo_count
    assert ((expected > 0.3) & (expected < 3)).all()
    assert len(np.unique(expected.round(3))) > 1


def test_unit_vectors_and_one_customer_as_in_a_batch():
    data = shop()
    model = fit(data, PENALTIES)
    customers = model.embed_customers(data.customers)
    for vectors in (customers, model.product_embeddings):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    recommender = Recommender(model)
    for row in range(20):
        alone = recommender._tower(model.customers.encode(data.customers.select([row])))
        np.testing.assert_allclose(alone, customers[row], atol=1e-6)


def test_what_nobody_has_said_changes_nothing():
    """An unknown value is as good as none, and a missing one is what training made of missing ones."""
    data = shop()
    model = fit(data, PENALTIES)

    def ask(**changed: object) -> np.ndarray:
        row = {"skin": "dry", "concerns": "pores", "age": 30} | changed
        return log_odds(model, Table.of([row], "request"))

    np.testing.assert_allclose(ask(skin="purple"), ask(skin="striped"))
    np.testing.assert_allclose(ask(concerns="pores|unheard of"), ask(), atol=1e-5)
    assert np.abs(ask(skin=None) - ask(skin="purple")).max() > 1e-3
    assert np.abs(ask(age=None) - ask()).max() > 1e-3


def test_a_new_product_is_known_by_its_attributes():
    """Nobody bought either of the new ones, yet red customers get the red one before the blue one."""
    data = checkerboard(customers=200, purchases=2)
    model = fit(data, WideConfig(own_l2=10.0, attribute_l2=10.0, factor_l2=10.0))
    recommender = Recommender(model)
    recommender.add_products(
        [{"id": f"new {colour}", "colour": colour, "size": 4, "shop": "one"} for colour in ("red", "blue")]
    )
    for colour in ("red", "blue"):
        ranked = [entry["product_id"] for entry in recommender.recommend(likes=colour, age=30, top_n=14)]
        assert all(product.startswith(colour) for product in ranked[:6])
        news = [product for product in ranked if product.startswith("new")]
        assert news[0] == f"new {colour}"


def test_a_product_that_nobody_bought_has_nothing_of_its_own():
    data = shop()
    model = fit(data, PENALTIES)
    ids = model.variables["params"]["product"]["wide"]["product_id_emb"]
    assert not ids[6].any()
    assert ids[:6].any(axis=1).all()


def test_tastes_by_counting():
    """The directions of the matrix written out pair by pair, by a dense decomposition."""
    rng = np.random.default_rng(1)
    baskets = [
        rng.choice(8, rng.integers(1, 5), replace=False, p=np.array([4, 3, 2, 2, 1, 1, 1, 1]) / 15) for _ in range(60)
    ]
    pairs = np.array([(c, p) for c, basket in enumerate(baskets) for p in sorted(basket)])
    n = np.bincount(pairs[:, 1], minlength=8)
    together = np.zeros((8, 8))
    for basket in baskets:
        for i in basket:
            for j in basket:
                together[i, j] += i != j
    ordered = sum(len(basket) * (len(basket) - 1) for basket in baskets)
    wanted = np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            if i != j:
                chance = ordered * n[i] * n[j] / n.sum() ** 2
                wanted[i, j] = (together[i, j] - chance) / np.sqrt((n[i] + 10) * (n[j] + 10))
    values, vectors = np.linalg.eigh(wanted)
    found = item_factors(pairs, 60, 8, 3)
    assert found.shape == (8, 3)
    kept = vectors[:, -3:] * np.sqrt(values[-3:])
    share = n / n.sum()
    kept /= np.sqrt((share[:, None] * (kept - share @ kept) ** 2).sum())
    np.testing.assert_allclose(found @ found.T, kept @ kept.T, atol=1e-8)
    assert (values[-3:] > 0).all()
    assert item_factors(np.array([[0, 0], [1, 1], [2, 2]]), 3, 4, 2).shape == (4, 0)  # nobody bought two


def test_popularity_by_attributes_follows_the_mean():
    kind = np.repeat([0, 1], 50)
    found = learn_popularity(np.where(kind == 0, 4.0, 40.0), np.eye(2)[kind])
    low, high = found.expected(np.eye(2))
    assert 1.0 < high - low <= np.log(10.0)
    assert found.expected(np.zeros((2, 2))).std() == 0


def test_popularity_is_doubted_as_much_as_counts_vary_by_chance():
    """From Gamma merits and Poisson counts it finds the Gamma's shape; where all counts are alike, it is endless."""
    rng = np.random.default_rng(0)
    for shape in (1.5, 4.0, 20.0):
        counts = rng.poisson(rng.gamma(shape, 30 / shape, 20_000)).astype(np.float64)
        np.testing.assert_allclose(learn_popularity(counts).pseudo_count, shape, rtol=0.15)
    flat = np.repeat([2.0, 3.0], [20, 70])
    level = learn_popularity(flat).of(flat)
    assert np.ptp(level) == 0


def test_a_mall_with_three_reviews_each_is_not_ranked_by_what_is_held_out():
    """Counts say which purchases are missing, and nothing else: a product's count must not move its score."""
    data = checkerboard(customers=60, per_colour=10)
    flat = replace(data, purchases=np.array([(c, 2 * (c // 2 % 10) + c % 2) for c in range(60)], np.int32))
    train = np.ones(60, bool)
    train[7] = False
    model = fit(flat, WideConfig(100.0, 10.0, inf), train=train)
    missing = flat.purchases[7, 1]
    assert np.bincount(flat.purchases[train, 1], minlength=20)[missing] < 3
    assert not model.product_bias.any()
    scores = log_odds(model, flat.customers.select([7]))[0]
    same = np.array([key.startswith(model.product_ids[missing][:3]) for key in model.product_ids])
    others = scores[same & (np.arange(20) != missing)]
    assert abs(scores[missing] - others.mean()) < 0.2 * abs(scores[~same].mean() - others.mean()) + 0.05


def test_penalties_are_chosen_by_what_there_is_to_learn():
    """Where attributes decide everything, little is held back; where they say nothing, all but popularity is."""
    plain = checkerboard(customers=400)
    model = fit(plain, WideConfig())
    own, attribute = model.chosen["own_l2"], model.chosen["attribute_l2"]
    assert own < 100.0 or attribute < 300.0
    scores = log_odds(model, plain.customers)
    reds = np.array([key.startswith("red") for key in model.product_ids])
    likes = np.array(plain.customers.column("likes")) == "red"
    assert ((scores[:, reds].min(axis=1) > scores[:, ~reds].max(axis=1)) == likes).all()
    rng = np.random.default_rng(0)
    shuffled = dict(plain.customers.columns) | {"likes": rng.permutation(plain.customers.column("likes")).tolist()}
    noise = replace(plain, customers=Table.of(shuffled, "customers"))
    fitted = fit(noise, WideConfig())
    said = log_odds(fitted, noise.customers)
    assert said.std(axis=0).max() < 0.3 * scores.std(axis=0).max()


def test_shops_of_near_sizes_share_a_program():
    """Each fold has its own number of products, item factors and values of attributes."""
    fit(shop(), PENALTIES)
    before = convex._solve._cache_size()
    fit(shop(customers=70, products=9, seed=1), WideConfig())
    assert convex._solve._cache_size() == before


def test_a_sample_of_customers_stands_for_all(monkeypatch):
    data = shop(customers=600)
    everybody = log_odds(fit(data, PENALTIES), data.customers)
    monkeypatch.setattr(convex, "LOGITS", 200 * 7)
    monkeypatch.setattr(convex, "SAMPLE", 200 * 7)
    monkeypatch.setattr(convex, "ROWS", 2)
    sampled = log_odds(fit(data, PENALTIES), data.customers)
    assert not np.array_equal(sampled, everybody)
    assert np.corrcoef(sampled.ravel(), everybody.ravel())[0, 1] > 0.97


def test_few_dimensions_keep_the_most_of_it():
    data = shop()
    full = fit(data, PENALTIES)
    everything = log_odds(full, data.customers)
    errors = []
    for dimensions in (4, 6, 64):
        model = fit(data, replace(PENALTIES, output_dim=dimensions))
        assert model.product_embeddings.shape[1] <= dimensions
        errors.append(np.abs(log_odds(model, data.customers) - everything).mean())
    assert errors[0] > errors[1] > errors[2] == 0


def test_the_same_seed_gives_the_same_bytes_and_a_folder_gives_it_back(tmp_path):
    data = shop()
    config = WideConfig(attribute_l2=inf, inner_folds=3, seed=5)
    save_model(fit(data, config), tmp_path / "one")
    save_model(fit(data, config), tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names[1:] == ["model.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    loaded = load_model(tmp_path / "one")
    assert loaded.config == config
    assert "Infinity" not in (tmp_path / "one" / "model.json").read_text()
    np.testing.assert_array_equal(
        loaded.embed_customers(data.customers), fit(data, config).embed_customers(data.customers)
    )


def test_only_the_training_part_is_learned_from():
    """A wild held-out customer and its purchases move nothing."""
    data = shop()
    train = data.purchases[:, 0] != 3
    wild = {name: list(column) for name, column in data.customers.columns.items()}
    wild["skin"][3], wild["age"][3], wild["concerns"][3] = "scales", 10_000, "unheard of"
    purchases = data.purchases.copy()
    purchases[~train, 1] = (purchases[~train, 1] + 1) % 7
    poisoned = replace(data, customers=Table.of(wild, "customers"), purchases=purchases)
    models = [fit(one, WideConfig(inner_folds=2), train=train) for one in (data, poisoned)]
    one, two = (log_odds(model, data.customers.select([0, 1, 2])) for model in models)
    assert one.tobytes() == two.tobytes()


def aged(ages: list[float], **options: object) -> Dataset:
    """Customers of whom the age alone is known; the young buy p0, the old p7, those between what lies between."""
    data = checkerboard(customers=len(ages), per_colour=4)
    features = [{"name": "age", "kind": "numeric", "unknown": "error", "missing": "error", **options}]
    document = {**data.schema.source, "customers": {**data.schema.source["customers"], "features": features}}
    del document["customers"]["segment"]
    low, high = min(ages), max(ages)
    bought = [min(int(8 * (age - low) / max(high - low, 1e-9)), 7) for age in ages]
    rows = {"id": [f"c{i}" for i in range(len(ages))], "age": ages, "bought": [[data.product_ids[b]] for b in bought]}
    return assemble(
        Schema.parse(document, "schema"),
        data.products,
        data.product_ids,
        Table.of(rows, "customers"),
        None,  # type: ignore[arg-type]
    )


def test_between_two_ages_lies_what_lies_between_them():
    data = aged([10.0, 20.0, 30.0, 40.0, 50.0] * 20, standardise=True)
    model = fit(data, WideConfig(1.0, inf, inf))
    asked = log_odds(model, Table.of({"age": [20.0, 25.0, 30.0]}, "ages"))
    np.testing.assert_allclose(asked[1], (asked[0] + asked[2]) / 2, atol=1e-3)
    assert np.abs(asked[0] - asked[2]).max() > 0.1


@pytest.mark.parametrize(
    "ages", [[1e7, 1e7 + 1, 1e7 + 2] * 10, [1.0, 2.0, 1e12] * 10, [5.0] * 30, [1.0, 1.0000001] * 15]
)
@pytest.mark.parametrize("standardise", [True, False])
def test_numbers_of_any_size_stay_finite(ages, standardise):
    data = aged(ages, standardise=standardise)
    model = fit(data, WideConfig(10.0, inf, inf))
    assert np.isfinite(model.embed_customers(data.customers)).all()
    assert np.isfinite(model.product_embeddings).all()


@pytest.mark.usefixtures("optimised")  # where a fit ends is decided by rounding
def test_a_new_product_does_not_move_the_others():
    """In the folds over products nothing of what is held out is learned from, its attributes neither."""
    data = shop()
    train = data.purchases[:, 1] != 3
    wild = {name: list(column) for name, column in data.products.columns.items()}
    wild["kind"][3], wild["weight"][3] = "unheard of", 1e6
    models = [fit(one, PENALTIES, train=train) for one in (data, replace(data, products=Table.of(wild, "products")))]
    one, two = (np.delete(log_odds(model, data.customers), 3, axis=1) for model in models)
    np.testing.assert_allclose(one, two, atol=1e-3)  # by a leak they would differ by tenths


def test_customers_who_all_state_the_same_get_what_is_popular():
    data = checkerboard(customers=30)
    rows = {name: list(column) for name, column in data.customers.columns.items()}
    rows["likes"], rows["age"] = ["red"] * 30, [40] * 30
    data.purchases[:10, 1] = 8  # so many are no chance
    model = fit(replace(data, customers=Table.of(rows, "customers")), WideConfig())
    assert np.isfinite(model.embed_customers(data.customers)).all()
    assert model.embed_customers(data.customers).std(axis=0).max() < 1e-6
    assert np.argmax(model.product_bias) == 8


def test_progress_counts_every_fit():
    seen = []
    fit(shop(), WideConfig(inner_folds=2), progress=lambda done, total, word: seen.append((done, total, word)))
    total = len(seen) - 1  # the fit of all purchases is told when it begins and when it is done
    assert [done for done, *_ in seen] == [*range(1, total), total - 1, total]
    assert {of for _, of, _ in seen} == {total}
    assert all(word.startswith("penalties ") for *_, word in seen[:-2])
    alone = []
    fit(shop(), PENALTIES, progress=lambda *told: alone.append(told))
    assert [told[:2] for told in alone] == [(0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"own_l2": 0.0}, r"^own_l2: found 0.0; allowed: above 0, or inf"),
        ({"factor_l2": -1.0}, r"^factor_l2: found -1.0; allowed: above 0"),
        ({"item_factors": 0}, r"^item_factors: found 0; allowed: 1 or more"),
        ({"inner_folds": 1}, r"^inner_folds: found 1; allowed: 2 or more"),
        ({"output_dim": 2}, r"^output_dim: found 2; allowed: 3 or more"),
        ({"seed": -1}, r"^seed: found -1; allowed: from 0"),
    ],
)
def test_bad_options_are_told(options, sentence):
    with pytest.raises(InputError, match=sentence):
        WideConfig(**options)


def test_too_much_to_learn_is_told(monkeypatch):
    monkeypatch.setattr(convex, "PARAMETERS", 20)
    with pytest.raises(
        InputError, match=r"^customers: the wide recipe would learn 108 numbers: 18 attribute values times 6"
    ):
        fit(shop(), PENALTIES)


def test_there_is_one_best_fit_and_no_seeds():
    with pytest.raises(InputError, match=r"^seeds: found 2; allowed: one with the wide recipe"):
        fit_seeds(shop(), WideConfig(), [0, 1])
