"""Metrics, against the average over every order of tied products."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax import metrics


def by_brute_force(scores, target, same_category, k):
    """Each metric averaged over all orders that the scores allow."""
    orders = [
        order for order in permutations(range(len(scores))) if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    places = np.array([order.index(target) + 1 for order in orders])
    return {
        "hit": (places <= k).mean(),
        "mrr": (1 / places).mean(),
        "ndcg": np.where(places <= k, 1 / np.log2(1 + places), 0).mean(),
        "category": np.mean([any(same_category[i] for i in order[:k]) for order in orders]),
    }


@settings(deadline=None, max_examples=80)
@given(
    scores=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    data=st.data(),
    k=st.integers(1, 7),
)
def test_ties_count_by_expectation(scores, data, k):
    target = data.draw(st.integers(0, len(scores) - 1))
    same = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    line = np.array([scores], float)
    ranked = metrics.ranks(line, np.array([target]))
    wanted = by_brute_force(scores, target, same, k)
    assert metrics.hit_at_k(ranked, k=k)[0] == pytest.approx(wanted["hit"])
    assert metrics.reciprocal_rank(ranked)[0] == pytest.approx(wanted["mrr"])
    assert metrics.ndcg_at_k(ranked, k=k)[0] == pytest.approx(wanted["ndcg"])
    assert metrics.category_hit_at_k(line, np.array([same]), k=k)[0] == pytest.approx(wanted["category"])


def test_random_on_the_mall_is_the_known_figure():
    """93 products in categories of 20, 20, 13, 20 and 20: Hit@3 is 3 / 93, Category Hit@3 50.0 % of the purchases."""
    sizes, reviews = [20, 20, 13, 20, 20], [60, 59, 38, 60, 60]
    none = [np.prod([(93 - size - i) / (93 - i) for i in range(3)]) for size in sizes]
    by_hand = sum(n * (1 - miss) for n, miss in zip(reviews, none, strict=True)) / 277
    category = np.repeat(range(5), sizes)
    targets = np.repeat(np.cumsum([0, *sizes[:-1]]), reviews)
    scores = np.zeros((277, 93))
    ranked = metrics.ranks(scores, targets)
    assert metrics.hit_at_k(ranked, k=3).mean() == pytest.approx(3 / 93)
    found = metrics.category_hit_at_k(scores, category[targets][:, None] == category, k=3).mean()
    assert found == pytest.approx(by_hand)
    assert round(found, 3) == 0.500


def test_one_count_serves_lists_of_any_length():
    rng = np.random.default_rng(1)
    scores, same = rng.integers(0, 4, (40, 9)).astype(float), rng.random((40, 9)) < 0.3
    ranked = metrics.category_ranks(scores, same)
    for k in range(1, 11):
        at_k = metrics.category_hit_at_k(scores, same, k=k)
        np.testing.assert_array_equal(metrics.category_hit(ranked, k=k), at_k)
        # No product of the category: never hit, whatever the length.
        np.testing.assert_allclose(at_k[~same.any(axis=1)], 0.0)


def test_batch_equals_single():
    rng = np.random.default_rng(0)
    scores, targets = rng.integers(0, 5, (30, 12)).astype(float), rng.integers(0, 12, 30)
    together = metrics.reciprocal_rank(metrics.ranks(scores, targets))
    alone = [metrics.reciprocal_rank(metrics.ranks(scores[i : i + 1], targets[i : i + 1]))[0] for i in range(30)]
    np.testing.assert_allclose(together, alone)
