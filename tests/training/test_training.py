"""Training: what it learns on data with a known answer, and that each promise about the run holds."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recsys_jax.config import DeepConfig
from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError
from recsys_jax.training import loop as training
from recsys_jax.training.fit import fit
from recsys_jax.training.step import Batch, Numbers, adam, loss_of, train_step

FEATURE = {"kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "error"}
NUMBER = {"kind": "numeric", "unknown": "error", "missing": "flag"}


def dataset(customers=64, per_colour=6, purchases=1) -> Dataset:
    """A checkerboard: red customers buy red products, blue ones blue; sizes and ages say nothing."""
    rng = np.random.default_rng(0)
    colours = ["red", "blue"]
    products = [
        {"id": f"{colour}{i}", "colour": colour, "size": int(rng.integers(9)), "shop": "one"}
        for i in range(per_colour)
        for colour in colours
    ]
    rows = [
        {
            "id": f"c{i}",
            "likes": colours[i % 2],
            "age": int(rng.integers(20, 60)),
            "bought": [f"{colours[i % 2]}{j}" for j in rng.choice(per_colour, purchases, replace=False)],
        }
        for i in range(customers)
    ]
    schema = Schema.parse(
        {
            "name": "checkerboard",
            "products": {
                "file": "products.json",
                "id": "id",
                "category": "colour",
                "features": [{"name": "colour", **FEATURE}, {"name": "size", "scale": 10, **NUMBER}],
            },
            "customers": {
                "file": "customers.json",
                "id": "id",
                "segment": "likes",
                "purchases": "bought",
                "features": [{"name": "likes", **FEATURE}, {"name": "age", "standardise": True, **NUMBER}],
            },
        },
        "schema",
    )
    table = Table.of(products, "products")
    return assemble(schema, table, [row["id"] for row in products], Table.of(rows, "customers"), None)  # type: ignore[arg-type]


CONFIGS = {
    "triplet": DeepConfig(loss="triplet"),
    "triplet, hard": DeepConfig(loss="triplet", negatives="hard"),
    "triplet, semi-hard": DeepConfig(loss="triplet", negatives="semi-hard"),
    "infonce": DeepConfig(loss="infonce"),
    "infonce, log-q": DeepConfig(loss="infonce", log_q=True),
    "infonce, popularity": DeepConfig(loss="infonce", popularity_bias=True),
    "softmax": DeepConfig(loss="softmax"),
    "softmax, all options": DeepConfig(
        loss="softmax",
        popularity_bias=True,
        id_embedding=True,
        attribute_dropout=0.1,
        number_jitter=0.2,
        extra_customers=20,
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_recipe_learns_the_checkerboard(config):
    data = dataset(customers=70)  # two batches of 32 and one of 6
    model = fit(data, replace(config, epochs=60))
    customers = model.embed_customers(data.customers)
    best = np.argsort(-(customers @ model.product_embeddings.T), axis=1)[:, :6]
    likes = np.array(data.segments)[:, None]
    right = (np.array(data.categories)[best] == likes).mean()
    assert right > 0.95
    assert np.isfinite(model.losses).all()


@pytest.mark.parametrize("purchases", [1, 3])
def test_the_same_seed_gives_the_same_bytes(purchases):
    data = dataset(purchases=purchases)
    one, two, other = (fit(data, DeepConfig(epochs=6, seed=seed)) for seed in (5, 5, 6))
    jax.tree.map(np.testing.assert_array_equal, one.variables, two.variables)
    assert one.losses.tobytes() == two.losses.tobytes()
    assert one.losses.tobytes() != other.losses.tobytes()


def test_the_run_equals_a_loop_of_steps(monkeypatch):
    """Two epochs inside `scan` are the steps one by one; no purchase is dropped and none comes twice."""
    data, config = dataset(customers=53), DeepConfig(epochs=2, batch_size=16)
    seen = []

    def remember(state, batch, *args, **kwargs):
        jax.debug.callback(lambda *b: seen.append([np.asarray(x) for x in b]), *batch, ordered=True)
        return train_step(state, batch, *args, **kwargs)

    captured = {}
    run = training._epochs

    def capture(state, data, numbers, *args, **kwargs):
        captured.update(state=jax.tree.map(jnp.copy, state), data=data, numbers=numbers, kwargs=kwargs)
        return run(state, data, numbers, *args, **kwargs)

    monkeypatch.setattr(training, "train_step", remember)
    monkeypatch.setattr(training, "_epochs", capture)
    jax.clear_caches()
    model = fit(data, config)
    jax.effects_barrier()
    jax.clear_caches()
    assert len(seen) == 2 * 4
    for epoch in (seen[:4], seen[4:]):
        assert [int(mask.sum()) for *_, mask in epoch] == [16, 16, 16, 5]
        pairs = [(int(c), int(p)) for cs, ps, _, mask in epoch for c, p in zip(cs[mask], ps[mask], strict=True)]
        assert sorted(pairs) == sorted(map(tuple, data.purchases.tolist()))
    assert not np.array_equal(seen[0][0], seen[4][0])  # another order in another epoch

    state, totals = captured["state"], []
    recipe = {name: captured["kwargs"][name] for name in ("model", "loss", "optimiser")}
    step = jax.jit(partial(train_step, **recipe))
    for columns in seen:
        state, total = step(state, Batch(*map(jnp.asarray, columns)), captured["data"], captured["numbers"])
        totals.append(float(total))
    # Compiled alone and inside a scan, a step rounds differently; Adam makes up to a step, 1e-3, of a tiny gradient.
    # How much of it shows in the second epoch depends on the processor.
    assert model.losses[0] == pytest.approx(sum(totals[:4]) / 53, rel=1e-5)
    assert model.losses[1] == pytest.approx(sum(totals[4:]) / 53, rel=2e-3)
    trained = state.params["customer"]["deep"]["hidden"]
    kernel = model.variables["params"]["customer"]["deep"]["hidden"]["kernel"]
    np.testing.assert_allclose(kernel, trained["kernel"], atol=8e-3)  # eight steps


@pytest.mark.parametrize("name", ["triplet", "triplet, hard", "infonce", "softmax"])
def test_padding_changes_nothing(name):
    """A batch of 5 is the same step whether or not padding follows it.

    Dropout is off: random numbers differ with the length of a batch.
    """
    data = dataset(customers=5)
    config = replace(CONFIGS[name], dropout=0.0, batch_size=5, epochs=1)
    state, train, model = prepare(data, config)
    recipe = {"model": model, "loss": loss_of(config), "optimiser": adam}
    rows, bought = np.arange(5), data.purchases[:, 1]
    short = Batch(*map(jnp.asarray, (rows, bought, (bought + 1) % len(data.product_ids))), jnp.ones(5, bool))
    long = Batch(*(jnp.concatenate([column, jnp.zeros(3, column.dtype)]) for column in short))
    step = jax.jit(partial(train_step, **recipe))
    one, loss_of_one = step(state, short, train, Numbers.of(config))
    two, loss_of_two = step(state, long, train, Numbers.of(config))
    assert float(loss_of_one) == pytest.approx(float(loss_of_two), rel=1e-5)
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)  # noqa: E731
    jax.tree.map(compare, one.batch_stats, two.batch_stats)


def prepare(data, config):
    caught = {}

    def catch(state, train, *_, model, **__):
        caught.update(state=state, train=train, model=model)
        raise StopIteration

    original = training._epochs
    training._epochs = catch
    try:
        with pytest.raises(StopIteration):
            fit(data, config)
    finally:
        training._epochs = original
    return caught["state"], caught["train"], caught["model"]


def test_one_compilation_serves_seeds_and_folds():
    data = dataset(customers=60)
    before = training._epochs._cache_size()
    for seed, held_out in ((0, 7), (1, 8), (2, 3)):
        fit(data, DeepConfig(epochs=4, seed=seed, batch_size=15), train=data.purchases[:, 0] >= held_out)
    assert training._epochs._cache_size() == before + 1


@pytest.mark.wild
def test_one_compilation_serves_all_numbers(monkeypatch):
    """What is a number is an argument; so are how many epochs there are."""
    data, base, compiled = dataset(customers=61), {"batch_size": 16, "hidden_dim": 8}, []

    def step(*args, **kwargs):
        compiled.append(args)
        return train_step(*args, **kwargs)

    monkeypatch.setattr(training, "train_step", step)
    jax.clear_caches()
    for more in (
        {"epochs": 1},
        {"epochs": 2, "learning_rate": 0.01, "margin": 0.3},
        {"epochs": 29, "temperature": 0.2},
    ):
        fit(data, DeepConfig(**base, **more))
    assert len(compiled) == 1
    options = {"loss": "softmax", "id_embedding": True, "epochs": 1}
    for more in (
        {"temperature": 0.1, "attribute_dropout": 0.1, "number_jitter": 0.1},
        {"temperature": 0.3, "attribute_dropout": 0.2, "number_jitter": 0.3, "id_dropout": 0.3},
    ):
        fit(data, DeepConfig(**base, **options, **more))
    assert len(compiled) == 2
    jax.clear_caches()


@pytest.mark.wild
def test_calls_that_take_long_are_cut_and_end_with_the_same_bytes(monkeypatch):
    """However much of a training one call does, for Ctrl-C to be answered between two: one program, and its bytes."""
    data, config = dataset(customers=61), DeepConfig(epochs=30, batch_size=16, hidden_dim=8)
    whole, before, counts = fit(data, config), training._epochs._cache_size(), []
    run = training._epochs

    def counted(*args, **kwargs):
        counts.append(int(args[4]))
        return run(*args, **kwargs)

    monkeypatch.setattr(training, "_epochs", counted)
    monkeypatch.setattr(training, "FIRST", 12)  # four steps an epoch
    monkeypatch.setattr(training.Pace, "SECONDS", 0.0)
    cut = fit(data, config)
    assert counts == [3, *[1] * 27]
    assert run._cache_size() == before
    assert cut.losses.tobytes() == whole.losses.tobytes()
    jax.tree.map(np.testing.assert_array_equal, cut.variables, whole.variables)


def test_what_is_held_out_moves_nothing():
    """Poisoned values and purchases of held-out customers leave every learned number as it was."""
    data = dataset(customers=40)
    train = data.purchases[:, 0] < 30
    config = DeepConfig(loss="softmax", popularity_bias=True, epochs=3)
    clean = fit(data, config, train=train)
    columns = {name: list(column) for name, column in data.customers.columns.items()}
    columns["likes"][30:] = ["poison"] * 10
    columns["age"][30:] = [1e6] * 10
    pairs = data.purchases.copy()
    pairs[30:, 1] = 0
    poisoned = fit(replace(data, customers=Table("poisoned", columns), purchases=pairs), config, train=train)
    assert clean.customers == poisoned.customers
    jax.tree.map(np.testing.assert_array_equal, clean.variables, poisoned.variables)
    np.testing.assert_array_equal(clean.purchases, poisoned.purchases)


def test_rows_that_never_trained_hold_the_mean_of_those_that_did():
    model = fit(dataset(customers=30), DeepConfig(epochs=2))
    table = model.variables["params"]["customer"]["deep"]["likes_emb"]  # red, blue, unknown; 15 customers each
    np.testing.assert_allclose(table[2], (table[0] + table[1]) / 2, rtol=1e-5, atol=1e-6)


def test_a_customer_who_bought_everything_has_no_negative_and_no_loss():
    data = dataset(customers=4, per_colour=1)
    both = np.array([[c, p] for c in range(4) for p in range(2)], np.int32)
    model = fit(replace(data, purchases=both[:-1]), DeepConfig(epochs=3, margin=3.0))
    # Of seven purchases one alone, of the customer who bought one product, has a negative; a loss is 5 at most.
    assert (model.losses > 0).all()
    assert (model.losses <= 5 / 7).all()


def test_popularity_bias_is_half_the_temperature_times_log_popularity():
    data = dataset(customers=40)
    model = fit(data, DeepConfig(loss="softmax", popularity_bias=True, temperature=0.2, epochs=1))
    counts = np.bincount(data.purchases[:, 1], minlength=12)
    bias = model.product_bias
    # (score) differences: 0.2 / 2 x the difference of the logarithms of (count + 1)
    expected = 0.1 * (np.log(counts + 1.0) - np.log(counts[0] + 1.0))
    np.testing.assert_allclose(bias - bias[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 1}, "batch_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"temperature": 0.0}, "temperature"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"margin": -0.1}, "margin"),
        ({"seed": -1}, "seed"),
        ({"loss": "softmax", "negatives": "hard"}, "negatives"),
        ({"loss": "softmax", "log_q": True}, "log_q"),
        ({"popularity_bias": True}, "popularity_bias"),
        ({"loss": "cosine"}, "loss"),
        ({"negatives": "easy"}, "negatives"),
    ],
)
def test_senseless_options_are_refused(options, field):
    with pytest.raises(InputError, match=f"^{field}: found .*; allowed: "):
        DeepConfig(**options)


def test_the_row_that_dropout_trained_stays_as_it_was_trained():
    """Only a row that nothing trained becomes the mean: an unknown id that id_dropout showed has learned by itself."""

    def distance_from_mean(share):
        model = fit(dataset(customers=30), DeepConfig(loss="softmax", id_embedding=True, id_dropout=share, epochs=3))
        table = model.variables["params"]["product"]["deep"][
            "product_id_emb"
        ]  # 12 products, all in every step; unknown
        return np.abs(table[12] - table[:12].mean(axis=0)).max()

    assert distance_from_mean(0.0) < 1e-5
    assert distance_from_mean(0.2) > 0.1


TOUCHES_ALL = {"triplet", "softmax", "softmax, all options"}


@pytest.mark.parametrize("name", CONFIGS)
def test_values_of_products_that_nobody_bought_hold_the_mean_where_only_bought_ones_train(name):
    """Nobody buys red3, blue3, ... and one of those is of a colour of its own."""
    data = dataset(customers=60, per_colour=3)
    columns = dict(data.products.columns)
    columns = {key: [*values, *values[-2:]] for key, values in columns.items()}
    columns["id"][-2:], columns["colour"][-2:] = ["new", "newer"], ["green", "green"]
    data = replace(data, products=Table("products", columns), product_ids=columns["id"])
    config = replace(CONFIGS[name], id_embedding=True, id_dropout=0.0, epochs=2)
    tables = fit(data, config).variables["params"]["product"]["deep"]
    colours, ids = tables["colour_emb"], tables["product_id_emb"]  # red, blue, green, unknown; 8 products, unknown
    average = (colours[0] + colours[1]) / 2
    if name in TOUCHES_ALL:
        assert np.abs(colours[2] - average).max() > 0.1
        assert np.abs(ids[6:8] - ids[:6].mean(axis=0)).max() > 0.1
    else:
        np.testing.assert_allclose(colours[2], average, atol=1e-5)
        np.testing.assert_allclose(ids[6:8], np.tile(ids[:6].mean(axis=0), (2, 1)), atol=1e-5)


def test_an_embedding_that_nothing_used_is_zeros():
    """Here the products that somebody bought have no tags: training saw zeros."""
    data = dataset(customers=20, per_colour=2)
    tags = {"name": "tags", "kind": "multi-categorical", "values": ["a", "b"], "unknown": "ignore", "missing": "ignore"}
    (feature,) = Schema.parse(
        {
            "name": "tagged",
            "products": {"file": "p.json", "id": "id", "features": [tags]},
            "customers": {
                "file": "c.json",
                "id": "id",
                "purchases": "bought",
                "features": [{"name": "likes", **FEATURE}],
            },
        },
        "schema",
    ).products.features
    part = replace(data.schema.products, features=(*data.schema.products.features, feature))
    columns = {**data.products.columns, "tags": [None] * 4}
    data = replace(data, schema=replace(data.schema, products=part), products=Table("products", columns))
    model = fit(data, DeepConfig(loss="infonce", epochs=1))
    assert not model.variables["params"]["product"]["deep"]["tags_emb"].any()
    assert np.isfinite(model.product_embeddings).all()
