"""Baselines, against counts and logarithms written out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import Fold
from recsys_jax.data.tables import Table
from recsys_jax.evaluation.baselines import baselines, naive_bayes, popularities, soft_values, value_counts
from recsys_jax.evaluation.queries import attribute_rows

KINDS = ["kind1", "kind1", "kind2", "kind2", "kind3"]


def shop(rows: list[dict], *features: dict, segment: str | None = None, products: int = 5) -> Dataset:
    """Products p0, p1, ... and customers with the given values."""
    kind = {"name": "kind", "kind": "categorical", "values": "learned", "unknown": "error", "missing": "error"}
    customers = {"file": "c.json", "id": "id", "purchases": "bought", "features": list(features)}
    schema = Schema.parse(
        {
            "name": "shop",
            "products": {"file": "p.json", "id": "id", "category": "kind", "features": [kind]},
            "customers": customers if segment is None else {**customers, "segment": segment},
        },
        "schema",
    )
    catalogue = [{"id": f"p{i}", "kind": KINDS[i % 5]} for i in range(products)]
    table = [{"id": f"c{i}", **row} for i, row in enumerate(rows)]
    ids = [row["id"] for row in catalogue]
    return assemble(schema, Table.of(catalogue, "products"), ids, Table.of(table, "customers"), Path())


def categorical(name: str, **policies: str) -> dict:
    return {"name": name, "kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "error"} | (
        policies
    )


SKIN = categorical("skin", missing="extra-row")
CONCERNS = {
    "name": "concerns",
    "kind": "multi-categorical",
    "values": "learned",
    "separator": "|",
    "unknown": "ignore",
    "missing": "ignore",
}
AGE = {"name": "age", "kind": "numeric", "unknown": "error", "missing": "flag"}


def everything(data: Dataset) -> np.ndarray:
    return np.ones(len(data.purchases), bool)


def learned(methods: dict, data: Dataset, fold: Fold) -> dict:
    """By name, the scorers that the methods learn in a fold."""
    return {name: method.learn(data, fold, 0, lambda *told: None).scorers(data)[0] for name, method in methods.items()}


def customer(bought: list[int], **values: object) -> dict:
    return {**values, "bought": [f"p{i}" for i in bought]}


ROWS = [
    customer([0, 1], skin="dry", concerns="fine lines|redness"),
    customer([0], skin="dry", concerns="redness"),
    customer([0, 2], skin="oily", concerns=None),
    customer([1], skin=None, concerns="fine lines"),
]


def test_naive_bayes_by_hand():
    """Bought: p0 three times, p1 twice, p2 once, of six; alpha 2."""
    data = shop(ROWS, SKIN, CONCERNS)
    found = naive_bayes(data, everything(data), [2.0])
    scores = found.scorer()(np.arange(4))

    def term(with_value: int, count: int, share: float) -> float:
        return math.log((with_value + 2 * share) / (count + 2)) - math.log(share)

    # Of the six purchases three are by dry skins, two by oily, one by one that states none, which says nothing.
    # Fine lines: c0's two and c3's one; redness: c0's two and c1's one.
    dry, oily, lines, redness = 3 / 6, 2 / 6, 3 / 6, 3 / 6
    expected_p0 = [
        math.log(3.5) + term(2, 3, dry) + term(1, 3, lines) + term(2, 3, redness),
        math.log(3.5) + term(2, 3, dry) + term(2, 3, redness),
        math.log(3.5) + term(1, 3, oily),  # no concern is stated: ignored
        math.log(3.5) + term(1, 3, lines),
    ]
    assert scores[:, 0] == pytest.approx(expected_p0, abs=1e-8)
    assert scores[0, 1] == pytest.approx(
        math.log(2.5) + term(1, 2, dry) + term(2, 2, lines) + term(1, 2, redness), abs=1e-8
    )
    # Nobody bought p3 and p4: nothing but the half purchase, for everybody.
    assert scores[:, 3:] == pytest.approx(np.full((4, 2), math.log(0.5)), abs=1e-8)


def test_a_value_that_nobody_in_training_has_says_nothing():
    data = shop([*ROWS, customer([4], skin="never heard of", concerns="unheard of|redness")], SKIN, CONCERNS)
    train = data.purchases[:, 0] < 4
    scores = naive_bayes(data, train, [2.0]).scorer()(np.arange(5))
    redness = math.log((2 + 2 * 3 / 6) / (3 + 2)) - math.log(3 / 6)
    assert scores[4, 0] == pytest.approx(math.log(3.5) + redness, abs=1e-8)


def test_numbers_enter_between_two_knots():
    """Ages 0, 10, ..., 70: their eight quantiles are themselves, so 12 is four fifths of 10 and one fifth of 20."""
    ages = [0, 10, 20, 30, 40, 50, 60, 70]
    rows = [customer([i % 5], age=age) for i, age in enumerate(ages)]
    rows += [customer([0], age=age) for age in (12, -50, 500, None)]
    data = shop(rows, AGE)
    first, group = attribute_rows(data)
    values = soft_values(data, first, group[:8])
    dense = values[group].toarray()
    assert values.shape[1] == 8
    np.testing.assert_allclose(dense[:8], np.eye(8), atol=1e-6)
    np.testing.assert_allclose(dense[8], [0, 0.8, 0.2, 0, 0, 0, 0, 0], atol=1e-6)
    # Beyond the training customers' ages counts as the last; a missing one says nothing.
    np.testing.assert_allclose(dense[9], [1, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(dense[10], [0, 0, 0, 0, 0, 0, 0, 1], atol=1e-6)
    assert not dense[11].any()


@settings(max_examples=30, deadline=None)
@given(
    training=st.lists(st.one_of(st.none(), st.floats(-100, 100, width=32)), min_size=1, max_size=12),
    held_out=st.lists(st.one_of(st.none(), st.floats(-1000, 1000, width=32)), max_size=5),
)
def test_the_weights_of_a_number_sum_to_1(training, held_out):
    data = shop([customer([0], age=age) for age in [*training, *held_out]], AGE)
    first, group = attribute_rows(data)
    values = soft_values(data, first, group[: len(training)])
    dense = values.toarray()
    assert (dense >= 0).all()
    stated = [row is not None for row in [*training, *held_out]]
    np.testing.assert_allclose(dense.sum(axis=1)[group], stated, atol=1e-9)
    assert ((dense > 0).sum(axis=1) <= 2).all()


def test_counts_are_those_of_adding_one_by_one():
    rng = np.random.default_rng(0)
    rows = [
        customer(
            rng.choice(5, rng.integers(1, 4), replace=False).tolist(),
            skin=str(rng.choice(["a", "b", "c"])),
            concerns="|".join(rng.choice(["x", "y", "z"], rng.integers(0, 4), replace=False)),
            age=int(rng.integers(20, 60)),
        )
        for _ in range(40)
    ]
    data = shop(rows, SKIN, CONCERNS, AGE)
    first, group = attribute_rows(data)
    values = soft_values(data, first, group)
    pairs = np.stack([group[data.purchases[:, 0]], data.purchases[:, 1]], axis=1)
    expected = np.zeros((values.shape[1], 5))
    for row, product in pairs:
        expected[:, product] += values[[row]].toarray()[0]
    np.testing.assert_allclose(value_counts(values, pairs, 5), expected, atol=1e-9)


def test_alpha_is_the_best_in_an_inner_cross_validation():
    """Where attributes tell all, little smoothing wins; where they tell nothing, much."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 8, 800)
    told = [customer([int(group)], skin=f"s{group}") for group in groups]
    # One in a thousand skins each, products by a common popularity: what a skin bought is chance.
    popular = rng.choice(8, 800, p=np.arange(1, 9) / 36)
    nothing = [customer([int(product)], skin=f"s{rng.integers(100)}") for product in popular]
    chosen = []
    for rows in (told, nothing):
        data = shop(rows, SKIN, products=8)
        chosen.append(naive_bayes(data, everything(data), [0.1, 10000]).alpha)
    assert chosen == [0.1, 10000]


def test_popularity_and_its_inverse_by_hand():
    data = shop(ROWS, SKIN, segment="skin")
    fold = Fold(everything(data), everything(data))
    found = {name: scorer(np.arange(4)) for name, scorer in learned(baselines(data), data, fold).items()}
    assert list(found) == [
        "random",
        "popularity",
        "popularity per skin",
        "inverse popularity",
        "naive Bayes",
        "logistic regression",
    ]
    assert found["popularity"].tolist() == [[3, 2, 1, 0, 0]] * 4
    assert found["inverse popularity"].tolist() == [[-3, -2, -1, 0, 0]] * 4
    assert found["popularity per skin"].tolist() == [[2, 1, 0, 0, 0]] * 2 + [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]]
    assert len(np.unique(found["random"])) == 1


def test_a_segment_without_purchases_has_the_general_popularity():
    data = shop(ROWS, SKIN, segment="skin")
    train = data.purchases[:, 0] < 3
    found = learned(popularities(data), data, Fold(train, ~train))["popularity per skin"](np.arange(4))
    assert found[3].tolist() == [3, 1, 1, 0, 0]


def test_a_new_product_has_the_popularity_of_its_category():
    """Known: p0 (kind1), p2 (kind2), p4 (kind3); new: p1 (kind1), p3 (kind2)."""
    data = shop([customer([0, 2], skin="a"), customer([0, 4], skin="b"), customer([1, 0, 3], skin="b")], SKIN)
    candidates = np.array([False, True, False, True, False])
    train = ~candidates[data.purchases[:, 1]]
    found = learned(baselines(data, new_products=True), data, Fold(train, ~train, candidates))
    assert list(found) == ["random", "popularity by category"]
    assert found["popularity by category"](np.array([0]))[0, candidates].tolist() == [3, 1]


def test_a_new_product_of_a_new_category_counts_as_the_mean_one():
    data = shop([customer([0, 2], skin="a"), customer([0, 4], skin="b"), customer([1], skin="b")], SKIN)
    candidates = np.array([False, False, False, False, True])  # the only one of its kind
    train = ~candidates[data.purchases[:, 1]]
    found = learned(baselines(data, new_products=True), data, Fold(train, ~train, candidates))
    scores = found["popularity by category"](np.array([0]))
    assert scores[0, 4] == pytest.approx((2 + 1 + 1 + 0) / 4)


def test_nothing_is_computed_before_it_is_asked_for(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("nobody asked for this")

    for name in ("naive_bayes", "fit", "prepare"):
        monkeypatch.setattr(f"recsys_jax.evaluation.baselines.{name}", refuse)
    data = shop(ROWS, SKIN, segment="skin")
    assert len(baselines(data)) == 6
    learned(popularities(data), data, Fold(everything(data), everything(data)))
