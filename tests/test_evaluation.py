"""Protocols and baselines, on data whose figures can be counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys_jax import TrainConfig, evaluation
from recsys_jax.data import Dataset, Table, assemble
from recsys_jax.errors import InputError
from recsys_jax.evaluation import ALL, baselines, cross_validation, in_sample
from recsys_jax.schema import Schema
from recsys_jax.training import fit

ONE = {"kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "error"}
SCHEMA = Schema.parse(
    {
        "name": "counted",
        "products": {"file": "p.json", "id": "id", "category": "kind", "features": [{"name": "kind", **ONE}]},
        "customers": {
            "file": "c.json",
            "id": "id",
            "segment": "group",
            "purchases": "bought",
            "features": [{"name": "group", **ONE}],
        },
    },
    "schema",
)


def dataset(bought: dict[str, list[list[str]]]) -> Dataset:
    """Products p0..p3 of kind a and q0..q3 of kind b; by group, what each customer bought."""
    products = [{"id": f"{letter}{i}", "kind": kind} for letter, kind in ("pa", "qb") for i in range(4)]
    rows = [
        {"id": f"{group}{i}", "group": group, "bought": items}
        for group, lists in bought.items()
        for i, items in enumerate(lists)
    ]
    ids = [row["id"] for row in products]
    return assemble(SCHEMA, Table.of(products, "products"), ids, Table.of(rows, "customers"), Path())


@pytest.fixture(scope="module")
def counted():
    return dataset({"x": [["p0"], ["p0"], ["p0"], ["p1"], ["p2"]], "y": [["q0"], ["q0"], ["q1"], ["p0"], ["q0"]]})


@pytest.fixture(scope="module")
def model(counted):
    return fit(counted, TrainConfig(epochs=2))


def test_in_sample_baselines_by_hand(counted, model):
    result = in_sample(model, counted, (1, 3))
    # Bought: p0 4 times, q0 3, p1, p2 and q1 once. At the first place: p0, so 4 of 10 are hit.
    assert result.mean("popularity", "hit@1") == pytest.approx(0.4)
    # The third place is shared by the three that were bought once.
    assert result.mean("popularity", "hit@3") == pytest.approx((4 + 3 + 3 * (1 / 3)) / 10)
    # x: p0 3 times, p1 and p2 once; y: q0 3 times, q1 and p0 once.
    assert result.mean("popularity per group", "hit@1") == pytest.approx(6 / 10)
    assert result.mean("popularity per group", "hit@1", "x") == pytest.approx(3 / 5)
    assert result.mean("popularity per group", "hit@3") == pytest.approx(1.0)
    assert result.mean("popularity per group", "mrr", "x") == pytest.approx((3 * 1 + 2 * (1 / 2 + 1 / 3) / 2) / 5)
    # The kind of the first: right for all of x; for y where it is b, 4 of 5.
    assert result.mean("popularity per group", "category_hit@1") == pytest.approx(9 / 10)
    assert result.mean("random", "hit@3") == pytest.approx(3 / 8)
    # Three of eight with four of a kind miss that kind with C(4, 3) / C(8, 3).
    assert result.mean("random", "category_hit@3") == pytest.approx(1 - 4 / 56)
    summary = result.summary()
    assert summary["protocol"] == "in-sample"
    assert summary["queries"] == {ALL: 10, "x": 5, "y": 5}


def test_several_purchases_are_several_queries():
    data = dataset({"x": [["p0", "p1"], ["p0"]], "y": [["q0", "q1", "q2"]]})
    summary = in_sample(fit(data, TrainConfig(epochs=1)), data, (1,)).summary()
    assert summary["customers"] == 3
    assert summary["queries"] == {ALL: 6, "x": 3, "y": 3}


def test_held_out_counts_leave_the_held_out_purchase_out(counted):
    """Leave-one-out by hand: each customer is ranked by what the others bought."""
    result = cross_validation(counted, TrainConfig(epochs=1), (1,), folds=10)
    # A buyer of p0: the others bought p0 3 times and q0 3 times, so the first place is shared: 1/2 for each of the 4.
    # A buyer of q0: p0 4, q0 2. The others: their product is not the first.
    assert result.mean("popularity", "hit@1") == pytest.approx(4 * 0.5 / 10)
    assert len(result.customers) == len(set(result.customers.tolist())) == 10
    assert result.protocol == "cross-validation, 10 folds over customers"


def test_a_customers_purchases_stay_together_and_each_is_asked_once():
    data = dataset({"x": [["p0", "p1"], ["p2", "p0"], ["p1"]], "y": [["q0", "q1", "q2"], ["q0"], ["q3", "q1"]]})
    seen = []
    original = data.purchases

    def of_fold(known):
        seen.append(known.copy())
        return data

    result = cross_validation(data, TrainConfig(epochs=1), (1,), folds=3, dataset_of_fold=of_fold)
    assert sum(~known for known in seen).tolist() == [1] * 6  # each customer is held out once
    asked = sorted(zip(result.customers.tolist(), result.products.tolist(), strict=True))
    assert asked == sorted(map(tuple, original.tolist()))


def test_what_is_held_out_moves_neither_model_nor_baselines():
    """Another purchase of a held-out customer changes that customer's figures alone."""
    lists = {"x": [["p0"], ["p1"], ["p2"], ["p0"]], "y": [["q0"], ["q1"], ["q2"], ["q0"]]}
    before = dataset(lists)
    poisoned = dataset({**lists, "x": [["q3"], *lists["x"][1:]]})
    config = TrainConfig(epochs=3)

    def ranks(data):
        result = cross_validation(data, config, (1,), folds=8)
        order = np.argsort(result.customers)
        return {method: values["mrr"][order] for method, values in result.values.items()}

    # With every customer in a fold of its own, customer 0 is learned from in all folds but its own.
    train = np.array([c != 0 for c in range(8)])
    learned = [baselines(data, data.purchases[train]) for data in (before, poisoned)]
    for name in learned[0]:
        np.testing.assert_array_equal(learned[0][name](np.arange(8)), learned[1][name](np.arange(8)))
    one, two = (fit(data, config, train=train) for data in (before, poisoned))
    np.testing.assert_array_equal(one.product_embeddings, two.product_embeddings)
    assert not np.array_equal(ranks(before)["popularity"][1:], ranks(poisoned)["popularity"][1:])  # it can be seen


def test_the_same_seed_gives_the_same_figures(counted):
    runs = [cross_validation(counted, TrainConfig(epochs=2, seed=3), (1,), folds=2, seed=s) for s in (1, 1, 2)]
    one, two, other = (run.values["model"]["mrr"].tolist() for run in runs)
    assert one == two
    assert one != other


def test_bad_requests_are_sentences(counted, model):
    with pytest.raises(InputError, match=r"^k: found 0; allowed: 1 or more$"):
        in_sample(model, counted, (0,))
    with pytest.raises(InputError, match="not the products that the model was trained on"):
        in_sample(replace(model, product_ids=("z",)), counted, (1,))
    with pytest.raises(InputError, match="not the customers and purchases that the model was trained on"):
        in_sample(model, replace(counted, purchases=counted.purchases[1:]), (1,))
    # Other attributes for the same purchases, as a published customer file has beside one made of the same reviews.
    columns = {**counted.customers.columns, "group": ["y"] * 5 + ["x"] * 5}
    with pytest.raises(InputError, match="not the customers and purchases that the model was trained on"):
        in_sample(model, replace(counted, customers=Table("others", columns)), (1,))
    with pytest.raises(InputError, match=r"^folds: found 11; allowed: 2 to 10"):
        cross_validation(counted, TrainConfig(), (1,), folds=11)


class Counting:
    """A scorer that says how many rows of scores it was asked for."""

    def __init__(self, scorer):
        self.scorer, self.rows = scorer, 0

    def __call__(self, rows):
        self.rows += len(rows)
        return self.scorer(rows)


@pytest.mark.parametrize("products", [8, 2**21])
def test_shared_scores_count_once_per_target_and_mean_the_same(products, monkeypatch):
    """The baselines' figures are those of scoring each query by itself, with a fraction of the work."""
    rng = np.random.default_rng(0)
    names = [f"{letter}{i}" for letter in "pq" for i in range(4)]
    lists = {group: [[str(rng.choice(names))] for _ in range(100)] for group in "xy"}
    data = dataset(lists)
    train = data.purchases[:150]
    codes = np.array([0] * 4 + [1] * 4)
    shared = baselines(data, train)
    assert list(shared) == ["random", "popularity", "popularity per group"]
    limit = {"random": 8, "popularity": 8, "popularity per group": 16}
    asked = []
    measure = evaluation._metrics
    monkeypatch.setattr(
        evaluation, "_metrics", lambda scores, *rest: asked.append(len(scores)) or measure(scores, *rest)
    )
    for name, scorer in shared.items():
        asked.clear()
        once = evaluation._values(scorer, data.purchases, products, codes, (1, 3))
        assert sum(asked) <= limit[name]
        alone = [measure(scorer(row[:1]), row[1:], codes, (1, 3)) for row in data.purchases]
        for metric, values in once.items():
            np.testing.assert_allclose(values, [one[metric][0] for one in alone])


def test_a_customer_who_bought_much_is_scored_once():
    data = dataset({"x": [["p0", "p1", "q0"], ["p2"]], "y": [["q1", "p0"]]})
    scorer = Counting(lambda rows: rows[:, None] + np.arange(8.0))
    evaluation._values(scorer, data.purchases, 8, None, (1,))
    assert scorer.rows == 3
