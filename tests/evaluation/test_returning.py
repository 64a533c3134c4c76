"""Customers who come back: a shop would not show them what they own, so it is not ranked for them."""

from dataclasses import replace

import numpy as np
import pytest
from protocols import bought_by

from recsys_jax.data.splits import Fold, Split, time_split
from recsys_jax.evaluation.baselines import baselines
from recsys_jax.evaluation.engine import evaluate
from recsys_jax.evaluation.queries import Queries, Scorer
from recsys_jax.models import metrics

KS = (1, 3)


@pytest.fixture(scope="module")
def shop():
    """Forty customers with four purchases each of eight products, one a day."""
    rng = np.random.default_rng(3)
    names = [f"{letter}{i}" for letter in "pq" for i in range(4)]
    data = bought_by({group: [sorted(rng.choice(names, 4, replace=False)) for _ in range(20)] for group in "xy"})
    return replace(data, dates=rng.permutation(len(data.purchases)).astype(float))


@pytest.mark.parametrize("scores", ["all different", "many ties", "constant"])
@pytest.mark.parametrize("grouped", [True, False])
def test_each_query_is_ranked_among_what_its_customer_does_not_own(shop, scores, grouped):
    """Every figure is that of `metrics` for the query alone, with the columns of what was bought before taken out."""
    rng = np.random.default_rng(0)
    customers, products = len(shop.customers), len(shop.product_ids)
    rows = 2 if grouped else customers
    table = {
        "all different": rng.random((rows, products)),
        "many ties": rng.integers(3, size=(rows, products)).astype(np.float32),
        "constant": np.zeros((rows, products)),
    }[scores]
    group = np.arange(customers) % 2 if grouped else np.arange(customers)
    (fold,) = time_split(shop, 0.4).folds
    found, lists, _ = Queries.of(shop, fold, KS).values(Scorer.table(table, group))
    earlier = [set(shop.purchases[fold.train & (shop.purchases[:, 0] == c), 1].tolist()) for c in range(customers)]
    counts = np.bincount(shop.purchases[fold.train, 1], minlength=products)
    kinds = np.unique(np.asarray(shop.categories), return_inverse=True)[1]
    owned = 0
    for place, (customer, target) in enumerate(shop.purchases[fold.queries].tolist()):
        left = np.array([product for product in range(products) if product not in earlier[customer]])
        owned += products - len(left)
        own, at = table[[group[customer]]][:, left].astype(float), np.flatnonzero(left == target)
        ranked = metrics.ranks(own, at)
        of_category = metrics.category_ranks(own, (kinds[left] == kinds[target])[None])
        expected = {"mrr": metrics.reciprocal_rank(ranked)}
        for k in KS:
            expected[f"hit@{k}"] = metrics.hit_at_k(ranked, k=k)
            expected[f"ndcg@{k}"] = metrics.ndcg_at_k(ranked, k=k)
            expected[f"category_hit@{k}"] = metrics.category_hit(of_category, k=k)
        assert {name: found[name][place] for name in expected} == {
            name: pytest.approx(value[0]) for name, value in expected.items()
        }
        expected_auc = metrics.count_matched_auc(own, at, counts[left])[0]
        assert found["auc"][place] == pytest.approx(expected_auc, nan_ok=True)
    assert owned > 50
    listed = np.unique(shop.purchases[fold.queries, 0])
    for k in KS:
        one = lists[k]
        for number, customer in enumerate(listed.tolist()):
            inside = one.of_list == one.rows[number]
            assert not set(one.products[inside].tolist()) & earlier[customer]
            assert one.shares[inside].sum() == pytest.approx(min(k, products - len(earlier[customer])))


def test_who_owns_nearly_all_has_a_short_list(shop):
    """Two products are left to a customer; a list of three has both, and all who buy again have three."""
    purchases = np.array([[0, p] for p in range(7)] + [[1, 0], [1, 1]])
    data = replace(shop, purchases=purchases, dates=np.arange(9.0))
    train = np.array([True] * 6 + [False] + [True, False])
    found, lists, _ = Queries.of(data, Fold(train, ~train), (3,)).values(
        Scorer.table(np.zeros((1, 8)), np.zeros(40, int))
    )
    assert found["mrr"].tolist() == [pytest.approx(3 / 4), pytest.approx(np.mean(1 / np.arange(1, 8)))]
    assert lists[3].exposure().sum() == pytest.approx(2 + 3)
    again = Fold(train, ~train, repeats=True)
    _, lists, _ = Queries.of(data, again, (3,)).values(Scorer.table(np.zeros((1, 8)), np.zeros(40, int)))
    assert lists[3].exposure().sum() == pytest.approx(3 + 3)


def test_in_sample_and_new_customers_are_ranked_as_before(shop):
    everything = np.ones(len(shop.purchases), bool)
    assert Queries.of(shop, Fold(everything, everything), KS).bought is None
    held = shop.purchases[:, 0] % 2 == 0
    assert Queries.of(shop, Fold(~held, held), KS).bought is None


def test_chance_is_that_of_what_is_left(shop):
    """By the whole engine: a random ranking of the m products that a customer doesn't own."""
    split = time_split(shop, 0.4)
    result = evaluate(shop, split, {"random": baselines(shop)["random"]}, KS, control=False)
    (fold,) = split.folds
    owns = np.bincount(shop.purchases[fold.train, 0], minlength=len(shop.customers))
    left = len(shop.product_ids) - owns[shop.purchases[fold.queries, 0]]
    by_hand = [np.mean(1 / np.arange(1, m + 1)) for m in left]
    np.testing.assert_allclose(result.methods["random"].values["mrr"][0], by_hand)


def test_counts_are_flat_where_they_vary_by_chance(shop):
    """Twelve customers buy one product of four each, evenly; then one product takes nearly all."""
    even = replace(shop, purchases=np.array([[c, c % 4] for c in range(12)]), dates=None)
    skewed = replace(shop, purchases=np.array([[c, 0 if c < 20 else 1] for c in range(22)]), dates=None)
    for data, flat in ((even, True), (skewed, False)):
        held = data.purchases[:, 0] % 4 == 3
        split = Split("cross-validation", "one fold", (Fold(~held, held),))
        found = evaluate(data, split, {"random": baselines(data)["random"]}, KS, control=False)
        assert found.flat is flat


def test_popularity_is_no_signal_whatever_is_owned(shop):
    """AUC compares with products of like counts: what rises with the count is at .5 for every query that has one."""
    rng = np.random.default_rng(0)
    names = [f"{letter}{i}" for letter in "pq" for i in range(4)]
    chance = np.arange(8, 0, -1) / 36
    data = bought_by({"x": [sorted(rng.choice(names, 4, replace=False, p=chance)) for _ in range(60)]})
    data = replace(data, dates=rng.permutation(len(data.purchases)).astype(float))
    result = evaluate(data, time_split(data, 0.4), {"popularity": baselines(data)["popularity"]}, KS, control=False)
    (auc,) = result.methods["popularity"].values["auc"]
    assert (auc[~np.isnan(auc)] == 0.5).all()
    assert (~np.isnan(auc)).sum() > 10
