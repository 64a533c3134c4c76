"""Scores and top-k, against the naive way."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.errors import InputError
from recsys_jax.retrieval import scoring


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def naive(customers, products, k, bias=None, exclude=None, allowed=None):
    """Sorts every row in float64; returns the ids, shorter where fewer remain."""
    values = (1 + customers.astype(np.float64) @ products.T.astype(np.float64)) / 2
    if bias is not None:
        values = values + bias
    out = []
    for row, line in enumerate(values):
        barred = set() if exclude is None else set(exclude[row].tolist())
        ids = [i for i in np.argsort(-line, kind="stable") if i not in barred and (allowed is None or allowed[i])]
        out.append(ids[:k])
    return out, values


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 5),
    p=st.integers(1, 12),
    k=st.integers(1, 15),
    seed=st.integers(0, 10_000),
    biased=st.booleans(),
    filtered=st.booleans(),
    excluded=st.integers(0, 4),
)
def test_top_k_is_a_full_sort(n, p, k, seed, biased, filtered, excluded):
    rng = np.random.default_rng(seed)
    customers, products = unit(rng, n, 6), unit(rng, p, 6)
    bias = rng.normal(size=p).astype(np.float32) if biased else None
    allowed = rng.random(p) < 0.6 if filtered else None
    exclude = rng.integers(-1, p, size=(n, excluded)).astype(np.int32) if excluded else None
    values, ids = scoring.top_k(customers, products, k, bias=bias, exclude=exclude, allowed=allowed)
    wanted, exact = naive(customers, products, k, bias, exclude, allowed)
    assert ids.shape == values.shape == (n, k)
    for row in range(n):
        found = [i for i in ids[row].tolist() if i >= 0]
        assert len(found) == len(wanted[row])
        assert ids[row].tolist()[len(found) :] == [-1] * (k - len(found))
        assert np.isneginf(values[row][len(found) :]).all()
        np.testing.assert_allclose(values[row][: len(found)], exact[row][wanted[row]], atol=1e-6)
        gaps = np.diff(exact[row][wanted[row]])
        if not (np.abs(gaps) < 1e-6).any():
            assert found == wanted[row]


def test_of_equals_the_earlier_comes_first():
    product = np.array([[1.0, 0.0]], np.float32)
    products = np.repeat(product, 5, axis=0)
    _, ids = scoring.top_k(product, products, 3)
    assert ids.tolist() == [[0, 1, 2]]


def test_padding_of_exclusions_bars_nothing():
    """-1 must not mean the last product, as it does when indexing."""
    customers, products = np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32)[::-1].copy()
    _, ids = scoring.top_k(customers, products, 2, exclude=np.array([[-1, -1, 0]], np.int32))
    assert ids.tolist() == [[1, -1]]


def test_scores_stay_within_zero_and_one():
    rng = np.random.default_rng(0)
    customers = unit(rng, 50, 32) * np.float32(1 + 1e-6)
    out = scoring.scores(customers, np.concatenate([customers, -customers]))
    assert float(out.min()) == 0.0
    assert float(out.max()) == 1.0


def test_batch_equals_single():
    rng = np.random.default_rng(2)
    customers, products = unit(rng, 20, 32), unit(rng, 93, 32)
    _, together = scoring.top_k(customers, products, 10)
    alone = jnp.concatenate([scoring.top_k(customers[i : i + 1], products, 10)[1] for i in range(20)])
    np.testing.assert_array_equal(together, alone)


def full_sort(customers, products, k, bias=None, exclude=None, allowed=None):
    """The best of all float64 scores, sorted; ties go to the lower index."""
    scores = (1.0 + customers.astype(np.float64) @ products.astype(np.float64).T) / 2.0
    scores = scores if bias is None else scores + bias
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    for row, excluded in enumerate(() if exclude is None else exclude):
        scores[row, excluded[excluded >= 0]] = -np.inf
    rows = np.empty((len(scores), min(k, scores.shape[1])), int)
    for row, line in enumerate(scores):
        among = np.flatnonzero(line >= np.partition(line, -rows.shape[1])[-rows.shape[1]])
        rows[row] = among[np.argsort(-line[among], kind="stable")][: rows.shape[1]]
    best = np.take_along_axis(scores, rows, axis=1)
    return best, np.where(np.isneginf(best), -1, rows)


# Lengths around a block of 4,096 and a group of 32, where the tail is empty, one product, or less than a group.
@pytest.mark.parametrize("total", [45_056, 45_057, 45_075, 49_151, 12 * 4096 + 31])
@pytest.mark.parametrize("case", ["plain", "everything"])
def test_many_products_are_searched_exactly(total, case):
    rng = np.random.default_rng(total)
    # Small whole numbers: float32 is exact, and there are many ties, also across groups and blocks.
    customers = rng.integers(-2, 3, (3, 6)).astype(np.float32)
    products = rng.integers(-2, 3, (total, 6)).astype(np.float32)
    options = {}
    if case == "everything":
        best = full_sort(customers, products, 2)[1]
        options = {
            "bias": rng.integers(0, 2, total).astype(np.float32),
            "exclude": np.concatenate([best, np.full((3, 1), -1), [[total - 1]] * 3], axis=1).astype(np.int32),
            "allowed": rng.random(total) < 0.9,
        }
    values, rows = scoring.top_k(customers, products, 5, **options)
    expected = full_sort(customers, products, 5, **options)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_allclose(values, expected[0], rtol=1e-6)


def test_many_products_of_which_few_are_allowed():
    rng = np.random.default_rng(0)
    customers, products = rng.normal(size=(2, 4)).astype(np.float32), rng.normal(size=(60_000, 4)).astype(np.float32)
    allowed = np.zeros(60_000, bool)
    allowed[[7, 41_000, 59_999]] = True
    values, rows = scoring.top_k(customers, products, 5, allowed=allowed)
    np.testing.assert_array_equal(rows, full_sort(customers, products, 5, allowed=allowed)[1])
    assert (rows[:, 3:] == -1).all()
    assert np.isneginf(values[:, 3:]).all()


@pytest.mark.parametrize(("count", "total"), [(600, 45_000), (1_000, 40_000)])
def test_many_customers_are_taken_in_portions(count, total):
    """The first case by groups, the second one with all scores written down: neither portion divides its count."""
    rng = np.random.default_rng(count)
    customers = rng.normal(size=(count, 4)).astype(np.float32)
    products = rng.normal(size=(total, 4)).astype(np.float32)
    exclude = rng.integers(-1, total, (count, 1)).astype(np.int32)
    values, rows = scoring.top_k(customers, products, 4, exclude=exclude)
    best, expected = full_sort(customers, products, 4, exclude=exclude)
    near = np.abs(np.diff(best, axis=1)).min(axis=1) < 1e-6  # float32 may swap them
    np.testing.assert_array_equal(rows[~near], expected[~near])
    np.testing.assert_allclose(values, best, atol=1e-6)


# Two ways lead through it: all scores are written down, or the best groups are looked for.
@pytest.fixture(params=[1_000, 100_000], ids=["few", "many"])
def shop(request):
    rng = np.random.default_rng(1)
    return unit(rng, 3, 6), unit(rng, request.param, 6)


REFUSED = {
    "a mask to exclude": {"exclude": np.zeros((3, 9), bool)},
    "exclusions of another number of customers": {"exclude": np.zeros((1, 9), np.int32)},
    "exclusions of nobody": {"exclude": np.zeros(3, np.int32)},
    "exclusions that are no whole numbers": {"exclude": np.zeros((3, 9), np.float32)},
    "a bias for all": {"bias": np.zeros(1, np.float32)},
    "a bias for each customer": {"bias": np.zeros((3, 1), np.float32)},
    "allowed for all": {"allowed": np.ones(1, bool)},
    "indices of what is allowed": {"allowed": np.array([1, 2], np.int32)},
}


@pytest.mark.wild
@pytest.mark.parametrize("name", REFUSED)
def test_options_of_another_kind_are_refused(shop, name):
    """They would be taken for something else: a mask bars the products 0 and 1, a single row bars for everybody."""
    ((option, value),) = REFUSED[name].items()
    found = f"{option}: found {value.dtype} of shape {value.shape}"
    with pytest.raises(InputError, match=rf"^{re.escape(found)}; allowed: .* for each of the \d+ (customers|products)"):
        scoring.top_k(*shop, 2, **REFUSED[name])


@pytest.mark.wild
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_product_that_has_no_score_is_never_among_the_best(shop, bad):
    """Infinity in one place and its opposite in another make none either."""
    customers, products = shop
    spoilt = np.concatenate([products[:40], products])
    spoilt[[3, 39]] = [bad, -bad, bad, -bad, bad, -bad]
    values, rows = scoring.top_k(customers, spoilt, 5, bias=np.zeros(len(spoilt), np.float32))
    assert np.isfinite(values).all()
    spoilt[[3, 39]] = 0.0
    allowed = np.ones(len(spoilt), bool)
    allowed[[3, 39]] = False
    np.testing.assert_array_equal(rows, scoring.top_k(customers, spoilt, 5, allowed=allowed)[1])
    assert (np.asarray(scoring.top_k(customers * np.nan, products, 2)[1]) == -1).all()


@pytest.mark.wild
def test_more_products_without_a_score_than_are_asked_for(monkeypatch):
    """Each in a group of its own, whose maximum is none where a device's says so, and stands before all numbers."""
    maxima = scoring._maxima

    def spoilt_by_one(values):
        return jnp.where(maxima(jnp.isnan(values).astype(values.dtype)) > 0, jnp.nan, maxima(values))

    monkeypatch.setattr(scoring, "_maxima", spoilt_by_one)
    rng = np.random.default_rng(2)
    customers, products = unit(rng, 3, 7), unit(rng, 100_000, 7)
    spoilt = products.copy()
    spoilt[::640] = np.nan
    allowed = np.ones(len(products), bool)
    allowed[::640] = False
    expected = scoring.top_k(customers, products, 5, allowed=allowed)[1]
    np.testing.assert_array_equal(scoring.top_k(customers, spoilt, 5)[1], expected)


@pytest.mark.wild
def test_none_of_them_and_nobody(shop):
    customers, products = shop
    for k in (0, 3):
        for count in (0, 3):
            for exclude in (None, np.zeros((count, 2), np.int32)):
                values, rows = scoring.top_k(customers[:count], products, k, exclude=exclude)
                assert values.shape == rows.shape == (count, k)
    assert scoring.top_k(customers, products[:0], 2)[1].tolist() == [[-1, -1]] * 3
    assert scoring.scores(customers[:0], products).shape == (0, len(products))
    with pytest.raises(InputError, match=r"^k: found -1; allowed: 0 or more"):
        scoring.top_k(customers, products, -1)
