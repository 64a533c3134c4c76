"""Scores and exact top-k as pure jitted functions of embeddings. Nothing here knows where embeddings come from."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from recsys_jax.models.precision import full_precision

__all__ = ["scores", "top_k"]


@jax.jit
@full_precision
def scores(customers: Float[Array, "n d"], products: Float[Array, "p d"]) -> Float[Array, "n p"]:
    r"""Every customer's score for every product, $(1 + \cos(c_i, p_j)) / 2$, in 0..1.

    A zero vector, which has no direction, is as far from everything: its scores are 0.5.

    Args:
        customers: unit vectors (n, d), or zero.
        products: unit vectors (p, d), or zero.

    >>> scores(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.5, 0.0]]
    """
    return jnp.clip((1.0 + customers @ products.T) / 2.0, 0.0, 1.0)  # (n, d) . (d, p) -> (n, p)


@partial(jax.jit, static_argnames="k")
@full_precision
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

    Exact, whatever the number of products. Customers are taken in portions, so memory is bounded by that of a few
    hundred megabytes, whatever their number.

    Args:
        customers: unit vectors (n, d), or with further dimensions that both sides share.
        products: the same of the products (p, d).
        k: how many; also more than there are products.
        bias: added to the score of each product, such as popularity.
        exclude: rows of products that a customer must not get (n, m), padded with -1.
        allowed: which products may be recommended at all.

    Returns:
        Scores, (1 + dot product) / 2 + bias, not clipped so that boosts count, and product rows, both (n, k).
        Where fewer than k products remain, the row is -1 and the score -inf.
    """
    count, total = customers.shape[0], products.shape[0]
    offsets = bias
    if allowed is not None:
        offsets = jnp.where(allowed, 0.0 if bias is None else bias, -jnp.inf)
    excluded = jnp.full((count, 0), -1, jnp.int32) if exclude is None else exclude
    wanted = min(k, total)
    # Each excluded product takes at most one group's place.
    groups = wanted + excluded.shape[1]
    grouped = 4 * groups * _GROUP * _GROUP < total
    portion = _PORTION if grouped else max(1, _CELLS // max(total, 1))

    def some(part: tuple[Array, Array]) -> tuple[Array, Array]:
        if grouped:
            return _top_of_groups(*part, products, offsets, wanted, groups)
        return _top_of_all(*part, products, offsets, wanted)

    if count <= portion:
        best, rows = some((customers, excluded))
    else:
        portions = -(-count // portion)
        padding = ((0, portions * portion - count), (0, 0))
        parts = (jnp.pad(x, padding).reshape(portions, portion, x.shape[1]) for x in (customers, excluded))
        best, rows = (x.reshape(-1, wanted)[:count] for x in jax.lax.map(some, tuple(parts)))
    best = best + 0.5
    rows = jnp.where(jnp.isneginf(best), -1, rows)
    pad = ((0, 0), (0, k - wanted))
    return jnp.pad(best, pad, constant_values=-jnp.inf), jnp.pad(rows, pad, constant_values=-1)


# Products of a group, products multiplied at once (scores of so many for a portion stay in the processor's cache),
# customers at once, and scores at once where all of them are written down.
_GROUP, _BLOCK, _PORTION, _CELLS = 32, 4096, 256, 2**25


def _top_of_all(
    customers: Float[Array, "n d"],
    excluded: Int[Array, "n m"],
    products: Float[Array, "p d"],
    offsets: Float[Array, " p"] | None,
    k: int,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The best of all scores (less a half), written down: for few products."""
    values = customers @ products.T / 2.0  # (n, d) . (d, p) -> (n, p)
    if offsets is not None:
        values = values + offsets
    if excluded.shape[1]:
        # Padding points behind the last product, where "drop" ignores it; a bare -1 would mean the last one.
        columns = jnp.where(excluded < 0, products.shape[0], excluded)
        values = values.at[jnp.arange(len(values))[:, None], columns].set(-jnp.inf, mode="drop")
    return tuple(jax.lax.top_k(values, k))  # type: ignore[return-value]


def _top_of_groups(
    customers: Float[Array, "n d"],
    excluded: Int[Array, "n m"],
    products: Float[Array, "p d"],
    offsets: Float[Array, " p"] | None,
    k: int,
    groups: int,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The best scores (less a half): those of the groups with the greatest maxima, computed again.

    Writing down and searching all scores costs several times their matrix product. So block by block only the maximum
    of each 32 neighbouring products is kept, while the block is still in the cache. A product among the best k lies
    in one of the k groups with the greatest maxima: were it in none, each of these would hold a better one. They are
    found in the same way, by the maxima of 32 groups.
    """
    count, (total, dimensions) = len(customers), products.shape
    halved = customers.T / 2.0
    if offsets is not None:  # one more dimension of the product costs a fifth of adding them to the scores
        halved = jnp.concatenate([halved, jnp.ones((1, count), halved.dtype)])

    def maxima(first: Array | int, length: int) -> Array:
        """(b, d) . (d, n) -> (b / 32, n): products down, customers across, so that maxima run over whole vectors."""
        rows = jax.lax.dynamic_slice(products, (first, 0), (length, dimensions))
        if offsets is not None:
            rows = jnp.concatenate([rows, jax.lax.dynamic_slice(offsets, (first,), (length,))[:, None]], axis=1)
        return _maxima(rows @ halved)

    def block(best: Array, number: Array) -> tuple[Array, None]:
        found = maxima(number * _BLOCK, _BLOCK)
        return jax.lax.dynamic_update_slice(best, found, (number * (_BLOCK // _GROUP), 0)), None

    blocks = total // _BLOCK
    best = jnp.full((-(-total // _GROUP), count), -jnp.inf, halved.dtype)  # (p / 32, n)
    best = jax.lax.scan(block, best, jnp.arange(blocks))[0]
    if total > blocks * _BLOCK:
        best = best.at[blocks * (_BLOCK // _GROUP) :].set(maxima(blocks * _BLOCK, total - blocks * _BLOCK))

    above = jnp.sort(jax.lax.top_k(_maxima(best).T, groups)[1], axis=1)  # groups of groups, (n, groups)
    members = _members(above)
    values = jnp.take_along_axis(best, members.T, axis=0, mode="fill", fill_value=-jnp.inf).T
    chosen = jnp.take_along_axis(members, jnp.sort(jax.lax.top_k(values, groups)[1], axis=1), axis=1)

    def one(row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        customer, chosen, excluded = row
        # The last group may reach beyond the last product: it is read from further ahead, and what was read twice
        # does not count.
        starts = jnp.minimum(chosen * _GROUP, total - _GROUP)
        read = jax.vmap(lambda start: jax.lax.dynamic_slice(products, (start, 0), (_GROUP, dimensions)))(starts)
        rows = starts[:, None] + jnp.arange(_GROUP)
        valid = rows // _GROUP == chosen[:, None]
        scores = read.reshape(-1, dimensions) @ customer / 2.0  # (groups * 32, d) . (d,)
        if offsets is not None:
            scores = scores + offsets[rows.ravel()]
        free = valid.ravel() & ~jnp.isin(rows.ravel(), excluded)
        best, places = jax.lax.top_k(jnp.where(free, scores, -jnp.inf), k)
        return best, rows.ravel()[places]

    # One customer after the other on a processor, where its groups stay in the cache; many at once on a GPU.
    at_once = None if jax.default_backend() == "cpu" else count
    best_of_all, rows = jax.lax.map(one, (customers, chosen, excluded), batch_size=at_once)
    return best_of_all, rows


def _maxima(values: Float[Array, "r n"]) -> Float[Array, "s n"]:
    """The maximum of each 32 neighbouring rows."""
    padded = jnp.pad(values, ((0, -len(values) % _GROUP), (0, 0)), constant_values=-jnp.inf)
    return padded.reshape(-1, _GROUP, values.shape[1]).max(axis=1)


def _members(groups: Int[Array, "n g"]) -> Int[Array, "n m"]:
    """The rows in groups of 32."""
    return (groups[..., None] * _GROUP + jnp.arange(_GROUP)).reshape(len(groups), -1)
