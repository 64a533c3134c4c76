"""Metrics, against the average over every order of tied products."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.models import metrics


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
    of_category = metrics.category_ranks(line, np.array([same]))
    assert metrics.category_hit(of_category, k=k)[0] == pytest.approx(wanted["category"])


def lists_by_brute_force(scores, relevant, k):
    """Each metric of one list, averaged over all orders that the scores allow."""
    orders = [
        order for order in permutations(range(len(scores))) if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    found = []
    for order in orders:
        hits = [product in relevant for product in order]
        first = hits[:k]
        gain = sum(hit / np.log2(2 + i) for i, hit in enumerate(first))
        ideal = sum(1 / np.log2(2 + i) for i in range(min(k, len(relevant))))
        precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(first) if hit]
        found.append([sum(first) / k, sum(first) / len(relevant), sum(precisions) / len(relevant), gain / ideal])
    return dict(zip(("precision", "recall", "map", "ndcg"), np.mean(found, axis=0), strict=True))


@settings(deadline=None, max_examples=80)
@given(
    scores=st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=1, max_size=3),
    data=st.data(),
    k=st.integers(1, 7),
)
def test_lists_with_ties_count_by_expectation(scores, data, k):
    """Whatever the order in which the purchases come."""
    some = st.sets(st.integers(0, 5), min_size=1)
    bought = [(row, product) for row in range(len(scores)) for product in data.draw(some)]
    rows, targets = np.array(data.draw(st.permutations(bought))).T
    ranked = metrics.ranks(np.array(scores, float)[rows], targets)
    found = metrics.list_metrics(ranked, rows, k=k)
    assert set(found) == {f"{name}@{k}" for name in ("precision", "recall", "map", "ndcg")}
    for row, line in enumerate(scores):
        relevant = {product for one, product in bought if one == row}
        expected = lists_by_brute_force(line, relevant, k)
        assert {name: found[f"{name}@{k}"][row] for name in expected} == pytest.approx(expected)


def test_lists_of_one_purchase_are_what_the_purchase_is():
    scores = np.random.default_rng(0).integers(5, size=(50, 20)).astype(float)
    ranked = metrics.ranks(scores, np.arange(50) % 20)
    found = metrics.list_metrics(ranked, np.arange(50), k=10)
    assert found["recall@10"] == pytest.approx(metrics.hit_at_k(ranked, k=10))
    assert found["precision@10"] == pytest.approx(metrics.hit_at_k(ranked, k=10) / 10)
    assert found["ndcg@10"] == pytest.approx(metrics.ndcg_at_k(ranked, k=10))
    whole = metrics.list_metrics(ranked, np.arange(50), k=20)
    assert whole["map@20"] == pytest.approx(metrics.reciprocal_rank(ranked))


def test_a_large_catalogue_of_ties_is_exact():
    """Of p products of which all tie, r are relevant: the first K hold K r / p of them."""
    p, r, k = 100_000, 40, 10
    ranked = np.zeros(r, int), np.full(r, p)
    found = metrics.list_metrics(ranked, np.zeros(r, int), k=k)
    assert found["recall@10"][0] == pytest.approx(k / p)
    by_place = [(1 + (r - 1) * (place - 1) / (p - 1)) / place for place in range(1, k + 1)]
    assert found["map@10"][0] == pytest.approx(sum(by_place) / p)


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
    found = metrics.category_hit(metrics.category_ranks(scores, category[targets][:, None] == category), k=3).mean()
    assert found == pytest.approx(by_hand)
    assert round(found, 3) == 0.500


def test_one_count_serves_lists_of_any_length():
    rng = np.random.default_rng(1)
    scores, same = rng.integers(0, 4, (40, 9)).astype(float), rng.random((40, 9)) < 0.3
    ranked = metrics.category_ranks(scores, same)
    for k in range(1, 11):
        at_k = metrics.category_hit(metrics.category_ranks(scores, same), k=k)
        np.testing.assert_array_equal(metrics.category_hit(ranked, k=k), at_k)
        # No product of the category: never hit, whatever the length.
        np.testing.assert_allclose(at_k[~same.any(axis=1)], 0.0)


def test_batch_equals_single():
    rng = np.random.default_rng(0)
    scores, targets = rng.integers(0, 5, (30, 12)).astype(float), rng.integers(0, 12, 30)
    together = metrics.reciprocal_rank(metrics.ranks(scores, targets))
    alone = [metrics.reciprocal_rank(metrics.ranks(scores[i : i + 1], targets[i : i + 1]))[0] for i in range(30)]
    np.testing.assert_allclose(together, alone)


def auc_by_hand(scores, target, counts, least):
    """The definition, word by word: who is compared, then by how much each counts."""
    others = [j for j in range(len(counts)) if j != target]
    weight = {j: 1.0 for j in others if counts[j] == counts[target]}
    above = [j for j in others if counts[j] > counts[target]]
    below = [j for j in others if counts[j] < counts[target]]
    need = max(0, least - len(weight))
    side = min((need + 1) // 2, len(above), len(below))
    for candidates in (above, below):
        room = side
        for distance in sorted({abs(counts[j] - counts[target]) for j in candidates}):
            group = [j for j in candidates if abs(counts[j] - counts[target]) == distance]
            taken = min(room, len(group))
            weight |= {j: taken / len(group) for j in group}
            room -= taken
    total = sum(weight.values())
    won = sum(w * ((scores[j] < scores[target]) + 0.5 * (scores[j] == scores[target])) for j, w in weight.items())
    return won / total if total else np.nan


@settings(deadline=None, max_examples=150)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    data=st.data(),
    least=st.integers(0, 12),
)
def test_count_matched_auc_is_its_definition(counts, data, least):
    products = len(counts)
    lines = data.draw(
        st.lists(st.lists(st.integers(0, 3), min_size=products, max_size=products), min_size=1, max_size=4)
    )
    targets = data.draw(st.lists(st.integers(0, products - 1), min_size=len(lines), max_size=len(lines)))
    found = metrics.count_matched_auc(np.array(lines, float), np.array(targets), np.array(counts), least=least)
    wanted = [auc_by_hand(line, target, counts, least) for line, target in zip(lines, targets, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def sales(products, queries, purchases=30):
    """Zipf's popularity: few products are bought often, each its own number of times, many rarely."""
    rng = np.random.default_rng(3)
    share = 1 / (rng.permutation(products) + 5.0)
    share /= share.sum()
    return rng.multinomial(purchases * products, share), rng.choice(products, queries, p=share), rng


@pytest.mark.parametrize("purchases", [1, 30])
def test_popularity_is_no_signal_once_counts_match(purchases):
    counts, targets, _ = sales(400, 3000, purchases)
    for scores in (counts, -counts, np.log1p(counts)):
        lines = np.broadcast_to(scores.astype(float), (3000, 400))
        found = metrics.count_matched_auc(lines, targets, counts)
        np.testing.assert_allclose(found[~np.isnan(found)], 0.5, atol=1e-12)
    plain = metrics.ranks(np.broadcast_to(counts.astype(float), (3000, 400)), targets)
    assert metrics.hit_at_k(plain, k=10).mean() > 0.1  # which popularity does have where counts do not match


def test_noisy_popularity_stays_near_a_half_and_signal_does_not():
    counts, targets, rng = sales(400, 3000)
    noise = rng.standard_normal((3000, 400))
    for sign in (1, -1):
        found = metrics.count_matched_auc(sign * np.log1p(counts) + 0.2 * noise, targets, counts)
        assert np.nanmean(found) == pytest.approx(0.5, abs=0.02)
    informed = noise.copy()
    informed[np.arange(3000), targets] += 1.0
    # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    for matched in (informed, informed.astype(np.float32)):
        assert np.nanmean(metrics.count_matched_auc(matched, targets, counts)) == pytest.approx(0.760, abs=0.02)
    assert np.isnan(metrics.count_matched_auc(informed, targets, counts)).mean() < 0.1


def test_nobody_to_compare_with_is_no_value():
    counts, scores = np.array([1, 2, 3]), np.array([[0.1, 0.2, 0.3]] * 3)
    found = metrics.count_matched_auc(scores, np.arange(3), counts)
    np.testing.assert_array_equal(found, [np.nan, 0.5, np.nan])
    assert np.isnan(metrics.count_matched_auc(scores, np.arange(3), counts, least=0)).all()
    assert metrics.count_matched_auc(scores[:0], np.arange(0), counts).shape == (0,)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_ranks_in_rows_are_those_of_comparing(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    scores = rng.integers(0, 4, size=(data.draw(st.integers(1, 4)), 6)).astype(np.float32)
    rows, targets = rng.integers(len(scores), size=9), rng.integers(6, size=9)
    found, expected = metrics.ranks_in_rows(scores, rows, targets), metrics.ranks(scores[rows], targets)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
