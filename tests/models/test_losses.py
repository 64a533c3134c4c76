"""Losses: known values, PyTorch's definitions, and one list of properties over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recsys_jax.models.losses import choose_negatives, distance, full_softmax, info_nce, triplet


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def tensor(x):
    import torch

    return torch.tensor(np.asarray(x))


# Each takes (customers, products) of equal shape and gives one value per row.
LOSSES = {
    "triplet": lambda c, p: triplet(c, p, jnp.roll(p, 1, axis=0)),
    "info_nce": lambda c, p: info_nce(c, p, temperature=0.1),
    "full_softmax": lambda c, p: full_softmax(c, p, jnp.arange(len(c)), temperature=0.1),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestEveryLoss:
    def test_one_value_per_row(self, loss):
        rng = np.random.default_rng(0)
        assert loss(unit(rng, 5, 8), unit(rng, 5, 8)).shape == (5,)

    def test_jit_equals_eager(self, loss):
        rng = np.random.default_rng(1)
        c, p = unit(rng, 6, 8), unit(rng, 6, 8)
        np.testing.assert_allclose(jax.jit(loss)(c, p), loss(c, p), rtol=1e-5, atol=1e-6)

    def test_better_pairs_cost_less(self, loss):
        rng = np.random.default_rng(2)
        p = unit(rng, 6, 8)
        assert loss(p, p).sum() < loss(-p, p).sum()

    @pytest.mark.parametrize("case", ["equal", "zero", "repeated"])
    def test_gradients_are_finite(self, loss, case):
        rng = np.random.default_rng(3)
        p = unit(rng, 4, 8)
        c = {"equal": p, "zero": jnp.zeros_like(p), "repeated": jnp.repeat(p[:1], 4, axis=0)}[case]
        for gradient in jax.grad(lambda c, p: loss(c, p).sum(), argnums=(0, 1))(jnp.asarray(c), jnp.asarray(p)):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("margin", [0.1, 0.3, 1.0])
def test_triplet_is_pytorchs(margin):
    import torch

    rng = np.random.default_rng(4)
    a, p, n = (unit(rng, 16, 32) for _ in range(3))
    theirs = torch.nn.TripletMarginLoss(margin=margin, reduction="none")(*map(tensor, (a, p, n))).numpy()
    assert (theirs > 0).any()
    np.testing.assert_allclose(triplet(a, p, n, margin=margin), theirs, rtol=1e-5, atol=1e-6)


def test_triplet_gradient_is_pytorchs_where_anchor_equals_positive():
    import torch

    rng = np.random.default_rng(5)
    a, n = unit(rng, 4, 8), unit(rng, 4, 8)
    tensors = [tensor(x).requires_grad_() for x in (a, a, n)]
    torch.nn.TripletMarginLoss(reduction="sum")(*tensors).backward()
    ours = jax.grad(lambda *x: triplet(*x).sum(), argnums=(0, 1, 2))(*map(jnp.asarray, (a, a, n)))
    for mine, theirs in zip(ours, tensors, strict=True):
        np.testing.assert_allclose(mine, theirs.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_eps_stands_inside_the_difference():
    x = jnp.zeros((1, 4))
    assert float(distance(x, x, eps=0.5)[0]) == pytest.approx(1.0)  # sqrt(4 * 0.5 ** 2)


def test_info_nce_by_hand():
    c = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # Row 0 scores its own product 1/2 = 2 and the others 0 and 2: -log(e^2 / (e^2 + 1 + e^2)).
    assert float(info_nce(c, c, temperature=0.5)[0]) == pytest.approx(np.log(2 * np.e**2 + 1) - 2, rel=1e-6)
    # Product 2 is in truth a positive of customer 0: -log(e^2 / (e^2 + 1)).
    where = jnp.ones((3, 3), bool).at[0, 2].set(False)
    assert float(info_nce(c, c, temperature=0.5, where=where)[0]) == pytest.approx(np.log(np.e**2 + 1) - 2, rel=1e-6)


def test_info_nce_masks_with_certainty():
    """A masked product has no influence, however well it scores."""
    rng = np.random.default_rng(6)
    c, p = unit(rng, 4, 8), unit(rng, 4, 8)
    where = jnp.ones((4, 4), bool).at[:, 3].set(False)
    moved = jnp.asarray(p).at[3].set(c[0])
    before = info_nce(c, jnp.asarray(p), temperature=0.01, where=where)
    after = info_nce(c, moved, temperature=0.01, where=where)
    np.testing.assert_array_equal(before[:3], after[:3])


def test_info_nce_of_an_entirely_masked_row_is_zero():
    c = jnp.eye(3)
    assert info_nce(c, c, temperature=1.0, where=jnp.zeros((3, 3), bool)).tolist() == [0, 0, 0]


def test_log_q_correction_recovers_the_full_softmax():
    """With negatives drawn by q and -log q as offsets, the mean gradient points where the full softmax's does.

    The wrong sign would push popular products away twice instead of not at all.
    """
    rng = np.random.default_rng(7)
    products = unit(rng, 5, 8)
    q = np.array([0.6, 0.2, 0.1, 0.05, 0.05])
    customer = unit(rng, 1, 8)[0]
    target = 2

    def full(c):
        return full_softmax(c[None], products, jnp.array([target]), temperature=0.5)[0]

    drawn = rng.choice(5, size=(4000, 31), p=q)
    rows = jnp.asarray(np.concatenate([np.full((4000, 1), target), drawn], axis=1))

    def sampled(c, sign):
        def one(row):
            batch = jnp.asarray(products)[row]
            customers = jnp.broadcast_to(c, batch.shape)
            where = row[None, :] != row[:, None]
            offsets = sign * jnp.log(jnp.asarray(q, jnp.float32))[row]
            return info_nce(customers, batch, temperature=0.5, where=where, offsets=offsets)[0]

        return jax.vmap(one)(rows).mean()

    def cosine(a, b):
        return float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))

    wanted = jax.grad(full)(jnp.asarray(customer))
    right = cosine(jax.grad(sampled)(jnp.asarray(customer), -1.0), wanted)
    wrong = cosine(jax.grad(sampled)(jnp.asarray(customer), 1.0), wanted)
    assert right > 0.97
    assert wrong < right - 0.05


def test_full_softmax_offsets_are_priors():
    c, p = jnp.zeros((1, 2)), jnp.zeros((3, 2))
    loss = full_softmax(c, p, jnp.array([1]), temperature=1.0, offsets=jnp.log(jnp.array([0.2, 0.5, 0.3])))
    assert float(loss[0]) == pytest.approx(-np.log(0.5), rel=1e-6)


class TestChooseNegatives:
    distances = jnp.array([[0.3, 0.6, 0.9, 1.8]])
    positive = jnp.array([0.5])

    def choose(self, allowed, how, margin=1.0):
        return int(choose_negatives(self.distances, self.positive, jnp.array([allowed]), how=how, margin=margin)[0])

    def test_hard_is_the_nearest_allowed(self):
        assert self.choose([True] * 4, "hard") == 0
        assert self.choose([False, False, True, True], "hard") == 2

    def test_semi_hard_is_the_nearest_beyond_the_positive(self):
        assert self.choose([True] * 4, "semi-hard") == 1
        assert self.choose([True, False, True, True], "semi-hard") == 2

    def test_semi_hard_without_one_in_between_is_the_farthest(self):
        assert self.choose([True, False, False, True], "semi-hard") == 3  # 0.3 is too near, 1.8 beyond 0.5 + 1
        assert self.choose([True] * 4, "semi-hard", margin=0.05) == 3
