"""Lists, against the average over every order of tied products and figures by hand."""

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.evaluation.queries import gini, join_lists, top_lists


@settings(deadline=None, max_examples=80)
@given(scores=st.lists(st.integers(0, 3), min_size=1, max_size=6), k=st.integers(1, 7))
def test_a_list_is_its_expectation_over_orders(scores, k):
    orders = [
        order for order in permutations(range(len(scores))) if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    wanted = np.mean([np.isin(np.arange(len(scores)), order[:k]) for order in orders], axis=0)
    lists = top_lists(np.array([scores], float), k=k)
    np.testing.assert_allclose(lists.exposure(), wanted, atol=1e-12)
    np.testing.assert_allclose(lists.shown(), wanted, atol=1e-12)
    assert lists.shares.sum() == pytest.approx(min(k, len(scores)))
    counts = np.arange(len(scores))
    bits = -np.log2((counts + 1) / (counts.sum() + len(scores)))
    each = [np.mean([bits[j] for j in order[:k]]) for order in orders]
    np.testing.assert_allclose(lists.novelty(counts), [np.mean(each)])


def table(lists):
    """Membership of every product in the list of every customer."""
    return np.stack([lists.of(np.array([row])).exposure() for row in range(len(lists.rows))])


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_lists_of_blocks_and_groups_are_those_of_all(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (24, 11)).astype(np.float32)
    scores[12:18] = scores[:6]
    whole = top_lists(scores, k=3)
    members = table(whole)
    parts = join_lists([top_lists(scores[i : i + 5], k=3) for i in range(0, 24, 5)])
    np.testing.assert_allclose(table(parts), members)
    group = rng.integers(0, 24, 40)
    shared = whole.of(group)
    np.testing.assert_allclose(table(shared), members[group])
    weights = rng.integers(0, 3, (4, 40)).astype(float)
    np.testing.assert_allclose(shared.exposure(weights), weights @ members[group])
    by_hand = 1 - np.prod((1 - members[group]) ** weights[:, :, None], axis=1)
    np.testing.assert_allclose(shared.shown(weights), by_hand, atol=1e-12)


def test_constant_scores_need_no_list_per_customer():
    lists = top_lists(np.zeros((5000, 200)), k=10)
    assert len(lists.products) == 200
    np.testing.assert_allclose(lists.exposure(), 5000 * 10 / 200)
    assert gini(lists.exposure()) == pytest.approx(0, abs=1e-12)
    assert lists.shown().mean() == pytest.approx(1)
    few = lists.of(np.arange(20))
    assert few.shown().mean() == pytest.approx(1 - 0.95**20)


def test_gini_is_the_mean_difference():
    rng = np.random.default_rng(5)
    exposure = rng.integers(0, 9, 12).astype(float)
    pairs = np.mean([abs(a - b) for a, b in combinations(exposure, 2)])
    assert gini(exposure) == pytest.approx(pairs / (2 * exposure.mean()))
    alike = np.where(np.arange(10) < 3, 7.0, 0.0)
    assert gini(alike) == pytest.approx(7 / 9)
    assert gini(np.array([4.0])) == 0
