"""Lists by rules: against a list made one product after the other, of all products, in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from list_by_hand import by_hand

from recsys_jax.retrieval.lists import Rules, arrange


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 10**6),
    total=st.integers(1, 40),
    k=st.integers(1, 12),
    depth=st.integers(1, 40),
    diversity=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    pinned=st.integers(0, 3),
    limits=st.lists(st.integers(1, 3), max_size=2),
)
def test_a_list_that_is_certain_is_the_one_of_all_products(seed, total, k, depth, diversity, pinned, limits):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(total, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kinds = [rng.integers(-1, 4, size=(total, 2)).astype(np.int32) for _ in limits]
    values = rng.permutation(np.linspace(-1, 1, total))
    first = rng.permutation(total)[: min(pinned, total)]
    expected = by_hand(values, vectors, kinds, limits, diversity, first.tolist(), k)
    order = [j for j in np.argsort(-values, kind="stable") if j not in first][:depth]
    rows = np.full((1, depth), -1)
    rows[0, : len(order)] = order
    of_rows = np.where(rows < 0, -np.inf, values[rows])
    rules = Rules(diversity, vectors, kinds, limits)
    found, certain = arrange(rules, k, first[None], rows, of_rows, np.array([values.mean()]))
    found = found[0][found[0] >= 0].tolist()
    if certain[0]:
        assert found == expected
    else:  # there may be products that no candidate is
        assert len(order) == depth
    if depth > total:
        assert certain[0]
    of_all = np.where(np.isin(np.arange(total), first), -np.inf, values)[None]
    found, certain = arrange(rules, k, first[None], None, of_all, np.array([values.mean()]))
    assert found[0][found[0] >= 0].tolist() == expected
    assert certain[0]


def test_customers_do_not_touch_one_another():
    """A batch gives what each row alone gives."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kinds = [rng.integers(-1, 5, size=(30, 1)).astype(np.int32)]
    values = -np.sort(-rng.normal(size=(6, 30)), axis=1)
    rows = np.argsort(rng.random((6, 30)), axis=1)
    rows[2, 20:], values[2, 20:] = -1, -np.inf
    first = np.full((6, 2), -1)
    rules = Rules(0.4, vectors, kinds, [2])
    together = arrange(rules, 8, first, rows, values, values.min(axis=1, where=rows >= 0, initial=9.0))
    for row in range(6):
        some = slice(row, row + 1)
        average = np.array([values[row][rows[row] >= 0].min()])
        alone = arrange(rules, 8, first[some], rows[some], values[some], average)
        np.testing.assert_array_equal(alone[0][0], together[0][row])
        assert alone[1][0] == together[1][row]


@pytest.mark.parametrize(("diversity", "expected"), [(0.0, [0, 1, 2]), (1.0, [0, 2, 1])])
def test_a_twin_waits_for_what_is_different(diversity, expected):
    """Products 0 and 1 are the same; with diversity the other one comes between them."""
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    rows, values = np.array([[0, 1, 2, -1]]), np.array([[3.0, 2.0, 1.0, -np.inf]])  # and there is no other
    rules = Rules(diversity, vectors, [], [])
    found, certain = arrange(rules, 3, np.empty((1, 0), int), rows, values, np.array([2.0]))
    assert found[0].tolist() == expected
    assert certain.all()
