"""Membership and negatives, against sets."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.training.batches import Purchases

CUSTOMERS, PRODUCTS = 6, 9
pair_sets = st.sets(st.tuples(st.integers(0, CUSTOMERS - 1), st.integers(0, PRODUCTS - 1)), min_size=1)


def build(pairs, **kwargs):
    return Purchases.of(np.array(sorted(pairs, key=lambda pair: -pair[1]), np.int32), CUSTOMERS, **kwargs)


@settings(deadline=None, max_examples=60)
@given(pair_sets)
def test_contains_is_membership(pairs):
    grid = [(c, p) for c in range(CUSTOMERS) for p in range(PRODUCTS)]
    customers, products = jnp.array(grid).T
    found = build(pairs, length=60).contains(customers, products)
    assert found.tolist() == [pair in pairs for pair in grid]


@settings(deadline=None, max_examples=60)
@given(pair_sets, st.integers(0, 2**31))
def test_negatives_are_never_bought(pairs, seed):
    bought = build(pairs)
    customers = jnp.arange(CUSTOMERS).repeat(20)
    drawn = bought.sample_negatives(jax.random.key(seed), customers, PRODUCTS)
    assert ((drawn >= 0) & (drawn < PRODUCTS)).all()
    everything = {c for c in range(CUSTOMERS) if all((c, p) in pairs for p in range(PRODUCTS))}
    for customer, product in zip(customers.tolist(), drawn.tolist(), strict=True):
        assert (customer, product) not in pairs or customer in everything


def test_negatives_are_uniform_over_what_was_not_bought():
    bought = Purchases.of(np.array([[0, 0], [0, 3], [0, 4], [0, 7]], np.int32), 1)
    drawn = bought.sample_negatives(jax.random.key(0), jnp.zeros(50_000, jnp.int32), 8)
    shares = np.bincount(drawn, minlength=8) / 50_000
    # 4 of 8 remain: 1, 2, 5 and 6, a quarter each; five standard deviations are 0.0097.
    np.testing.assert_allclose(shares, [0, 0.25, 0.25, 0, 0, 0.25, 0.25, 0], atol=0.0097)
