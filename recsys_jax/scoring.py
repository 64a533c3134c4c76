"""Scores and exact top-k as pure jitted functions of embeddings. Nothing here knows where embeddings come from."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["scores", "top_k", "with_boosts"]


@jax.jit
def scores(customers: Float[Array, "n d"], products: Float[Array, "p d"]) -> Float[Array, "n p"]:
    r"""Every customer's score for every product, $(1 + \cos(c_i, p_j)) / 2$, in 0..1.

    Args:
        customers: unit vectors (n, d).
        products: unit vectors (p, d).

    >>> scores(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.5, 0.0]]
    """
    return jnp.clip((1.0 + customers @ products.T) / 2.0, 0.0, 1.0)  # (n, d) . (d, p) -> (n, p)


@jax.jit
def with_boosts(
    customers: Float[Array, "n d"],
    products: Float[Array, "p d"],
    customer_meets: Bool[Array, "n r"],
    product_meets: Bool[Array, "p r"],
    boosts: Float[Array, " r"],
) -> tuple[Float[Array, "n e"], Float[Array, "p e"]]:
    """Both sides with one more dimension per rule, so that a boost is part of the same matrix product.

    A rule adds `boosts[r]` to the score of a customer and a product that both meet its conditions. A score is half of
    a cosine, so the added dimension holds twice the boost.

    >>> c, p = with_boosts(jnp.array([[1.0]]), jnp.array([[0.5]]), jnp.array([[True]]), jnp.array([[True]]),
    ...                    jnp.array([0.25]))
    >>> float((1 + (c @ p.T)[0, 0]) / 2)  # (1 + 0.5) / 2 + 0.25
    1.0
    """
    left = jnp.concatenate([customers, customer_meets.astype(customers.dtype)], axis=1)
    right = jnp.concatenate([products, 2.0 * boosts * product_meets], axis=1)
    return left, right


@partial(jax.jit, static_argnames="k")
def top_k(
    customers: Float[Array, "n d"],
    products: Float[Array, "p d"],
    k: int,
    *,
    bias: Float[Array, " p"] | None = None,
    exclude: Int[Array, "n m"] | None = None,
    allowed: Bool[Array, " p"] | None = None,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The k products with the highest scores for each customer, best first; of equals, the earlier row first.

    Args:
        customers: unit vectors (n, d), or with the added dimensions of `with_boosts`.
        products: the same of the products (p, d).
        k: how many; also more than there are products.
        bias: added to the score of each product, such as popularity.
        exclude: rows of products that a customer must not get (n, m), padded with -1.
        allowed: which products may be recommended at all.

    Returns:
        Scores, (1 + dot product) / 2 + bias, not clipped so that boosts count, and product rows, both (n, k).
        Where fewer than k products remain, the row is -1 and the score -inf.
    """
    total = products.shape[0]
    values = (1.0 + customers @ products.T) / 2.0  # (n, d) . (d, p) -> (n, p)
    if bias is not None:
        values = values + bias
    if allowed is not None:
        values = jnp.where(allowed, values, -jnp.inf)
    if exclude is not None:
        # Padding points behind the last product, where "drop" ignores it; a bare -1 would mean the last one.
        columns = jnp.where(exclude < 0, total, exclude)
        values = values.at[jnp.arange(len(values))[:, None], columns].set(-jnp.inf, mode="drop")
    best, rows = jax.lax.top_k(values, min(k, total))
    rows = jnp.where(jnp.isneginf(best), -1, rows)
    pad = ((0, 0), (0, max(k - total, 0)))
    return jnp.pad(best, pad, constant_values=-jnp.inf), jnp.pad(rows, pad, constant_values=-1)
