"""The search for one customer against a full sort."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.retrieval.search import QUANTISED_FROM, SingleSearch


def full_sort(customer, products, k, exclude, allowed):
    scores = products.astype(np.float64) @ customer.astype(np.float64)
    scores[exclude] = -np.inf
    if allowed is not None:
        scores[~allowed] = -np.inf
    best = np.argsort(-scores, kind="stable")[:k]
    return best[scores[best] > -np.inf], scores


# Whole numbers of few values: float32 is exact, and most scores are ties.
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    total=st.sampled_from([1, 2, 31, 93, 512, 513, 2_000, 40_000]),
    k=st.sampled_from([1, 3, 10, 100, 600]),
    barred=st.integers(0, 12),
    share=st.none() | st.sampled_from([0.0, 0.001, 0.5]),
)
@pytest.mark.parametrize("quantised_from", [2**16, 1], ids=["in full", "bytes first"])
def test_any_search_is_a_full_sort(quantised_from, seed, total, k, barred, share):
    rng = np.random.default_rng(seed)
    products = rng.integers(-2, 3, (total, 6)).astype(np.float32)
    customer = rng.integers(-2, 3, 6).astype(np.float32)
    allowed = None if share is None else rng.random(total) < share
    top = full_sort(customer, products, barred // 2, [], allowed)[0].tolist()
    exclude = sorted({*top, *rng.integers(0, total, barred - barred // 2).tolist()})
    search = SingleSearch(products, quantised_from=quantised_from)
    dots, rows = search(customer, k, exclude=exclude, allowed=allowed)
    expected, scores = full_sort(customer, products, k, exclude, allowed)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(dots, scores[expected])


@pytest.mark.parametrize("kind", ["random", "close together", "one long dimension", "zeros"])
def test_bytes_leave_out_none_of_the_best(kind):
    """Real numbers, where a byte is wrong by up to half a percent: the ranking is still that of float32."""
    rng = np.random.default_rng(3)
    products = rng.normal(size=(80_000, 16)).astype(np.float32)
    if kind == "close together":
        products = np.float32(1.0) + np.float32(1e-3) * products
    if kind == "one long dimension":
        products[:, 3] *= 1000.0
    if kind == "zeros":
        products[:, :12] = 0.0
    search = SingleSearch(products)
    for _ in range(20):
        customer = rng.normal(size=16).astype(np.float32)
        dots, rows = search(customer, 10)
        scores = products.astype(np.float64) @ customer.astype(np.float64)
        slack = 1e-6 * float(np.abs(products).max(axis=0) @ np.abs(customer))
        assert len(set(rows.tolist())) == 10
        np.testing.assert_allclose(scores[rows], -np.sort(-scores)[:10], atol=slack)
        np.testing.assert_allclose(dots, scores[rows], atol=slack)


def test_few_candidates_are_scored_in_full():
    """What bytes are for: of many products, few are read as float32."""
    rng = np.random.default_rng(4)
    products = rng.normal(size=(100_000, 32)).astype(np.float32)
    customer = rng.normal(size=32).astype(np.float32)
    rows = SingleSearch(products)._candidates(customer, 10, None)
    assert 10 <= len(rows) < 200
    assert len(products) >= QUANTISED_FROM


@pytest.mark.wild
def test_where_jax_has_no_processor(monkeypatch):
    """With JAX_PLATFORMS=cuda there is none: bytes are then read where everything else runs."""
    own = jax.local_devices

    def local_devices(*args, backend=None, **options):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return own(*args, backend=backend, **options)

    monkeypatch.setattr(jax, "local_devices", local_devices)
    products = np.random.default_rng(5).normal(size=(70_000, 4)).astype(np.float32)
    found = SingleSearch(products)(products[9], 3)[1]
    np.testing.assert_array_equal(found, full_sort(products[9], products, 3, [], None)[0])
