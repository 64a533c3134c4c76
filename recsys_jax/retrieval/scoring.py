"""Scores and exact top-k as pure jitted functions of embeddings."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32, Shaped

from recsys_jax.errors import InputError, require
from recsys_jax.models.settings import full_precision, unforked


@unforked
@jax.jit
@full_precision
def scores(customers: Float[Array, "n d"], products: Float[Array, "p d"]) -> Float[Array, "n p"]:
    r"""Every customer's score for every product, $(1 + \cos(c_i, p_j)) / 2$, in 0..1.

    Of unit vectors (n, d) and (p, d); a zero vector has the score 0.5 with everything.

    >>> scores(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.5, 0.0]]
    """
    return jnp.clip((1.0 + customers @ products.T) / 2.0, 0.0, 1.0)  # (n, d) . (d, p) -> (n, p)


@unforked
@partial(jax.jit, static_argnames="k")
@full_precision
def top_k(
    customers: Float[Array, "n d"],
    products: Float[Array, "p d"],
    k: int,
    *,
    bias: Shaped[Array, "..."] | None = None,
    exclude: Shaped[Array, "..."] | None = None,
    allowed: Shaped[Array, "..."] | None = None,
) -> tuple[Float[Array, "n k"], Int32[Array, "n k"]]:
    """The k products with the highest scores for each customer, best first; ties go to the lower index.

    Exact for any number of products. Customers are processed in blocks, so memory stays within a few hundred megabytes
    for any number of them. A product whose score is not a number is never among the best.

    Args:
        customers: unit vectors (n, d), or with further dimensions that both sides share.
        products: the same of the products (p, d).
        k: the number of products; it may be 0, or exceed p.
        bias: added to the score of each product (p,), such as popularity.
        exclude: indices of the products to exclude for each customer (n, m), padded with -1.
        allowed: the products that may be recommended (p,); by default all.

    Returns:
        Scores, (1 + dot product) / 2 + bias, not clipped so that boosts count, and product indices, both (n, k),
        padded with -inf and -1 where fewer than k products remain.

    Raises `InputError` for a k below 0, and for options of another shape or kind, such as a mask to `exclude`,
    and in a process forked after JAX ran in its parent.
    """
    count, total = customers.shape[0], products.shape[0]
    require(k >= 0, "k", k, "0 or more")
    _check("bias", bias, jnp.number, (total,), "a number")
    _check("allowed", allowed, jnp.bool_, (total,), "true or false")
    _check("exclude", exclude, jnp.integer, (count, None), "indices of products, padded with -1,")
    offsets = None if bias is None else bias.astype(products.dtype)
    if allowed is not None:
        offsets = jnp.where(allowed, jnp.zeros_like(products[:, 0]) if offsets is None else offsets, -jnp.inf)
    excluded = jnp.full((count, 0), -1, jnp.int32) if exclude is None else exclude.astype(jnp.int32)
    wanted = min(k, total)
    grouped = wanted > 0 and 4 * (wanted + excluded.shape[1]) * _GROUP * _GROUP < total
    portion = _PORTION if grouped else max(1, _SCORES // max(total, 1))

    def some(part: tuple[Array, Array]) -> tuple[Array, Array]:
        return (_top_of_groups if grouped else _top_of_all)(*part, products, offsets, wanted)

    if count <= portion:
        best, rows = some((customers, excluded))
    else:
        portions = -(-count // portion)
        padding = ((0, portions * portion - count), (0, 0))
        parts = (jnp.pad(x, padding).reshape(portions, portion, x.shape[1]) for x in (customers, excluded))
        found = jax.lax.map(some, tuple(parts))
        best, rows = (x.reshape(portions * portion, wanted)[:count] for x in found)
    best = best + 0.5
    rows = jnp.where(jnp.isneginf(best), -1, rows)
    pad = ((0, 0), (0, k - wanted))
    return jnp.pad(best, pad, constant_values=-jnp.inf), jnp.pad(rows, pad, constant_values=-1)


# Products in a group, products multiplied at once (their scores for a block of customers stay in the cache), customers
# in a block, and the scores of a block where all of them are stored.
_GROUP, _BLOCK, _PORTION, _SCORES = 32, 4096, 256, 2**25


def _check(name: str, option: Array | None, kind: Any, shape: tuple[int | None, ...], what: str) -> None:
    """Raises `InputError` where there is an option of another kind or shape, of which a None may be any length."""
    if option is None:
        return
    fits = len(option.shape) == len(shape) and all(
        wanted in (None, length) for length, wanted in zip(option.shape, shape, strict=True)
    )
    if not (fits and jnp.issubdtype(option.dtype, kind)):
        raise InputError(
            f"{name}: found {option.dtype} of shape {option.shape}; allowed: {what} for each of the {shape[0]} "
            f"{'products' if len(shape) == 1 else 'customers'}"
        )


def _top_of_all(
    customers: Float[Array, "n d"],
    excluded: Int[Array, "n m"],
    products: Float[Array, "p d"],
    offsets: Float[Array, " p"] | None,
    k: int,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The best of all scores (less a half), which are all stored: for few products."""
    values = customers @ products.T / 2.0  # (n, d) . (d, p) -> (n, p)
    if offsets is not None:
        values = values + offsets[None]
    values = _or_none(values)
    if excluded.shape[1]:
        # Padding is moved beyond the last product, where "drop" ignores it; -1 would mean the last one.
        columns = jnp.where(excluded < 0, products.shape[0], excluded)
        values = values.at[jnp.arange(len(values))[:, None], columns].set(-jnp.inf, mode="drop")
    return tuple(jax.lax.top_k(values, k))  # type: ignore[return-value]


def _top_of_groups(
    customers: Float[Array, "n d"],
    excluded: Int[Array, "n m"],
    products: Float[Array, "p d"],
    offsets: Float[Array, " p"] | None,
    k: int,
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The best scores (less a half), rescored from the groups with the greatest maxima.

    Storing and searching all scores costs several times their matrix product. So only the maximum of each group of 32
    neighbouring products is kept, while its block is in the cache. The best k lie in the k groups with the greatest
    maxima: a product outside has a better one in each of them. These groups are found the same way, by groups of 32.
    """
    count, (total, dimensions) = len(customers), products.shape
    groups = k + excluded.shape[1]  # each excluded product takes at most one group's place
    halved = customers.T / 2.0
    if offsets is not None:  # as one more dimension, a fifth of the cost of adding them to the scores
        halved = jnp.concatenate([halved, jnp.ones((1, count), halved.dtype)])

    def maxima(first: Array | int, length: int, spoilt: bool) -> Array:
        """(b, d) . (d, n) -> (b / 32, n): products down, customers across, so that maxima run over whole vectors."""
        rows = jax.lax.dynamic_slice_in_dim(products, first, length)
        if offsets is not None:
            rows = jnp.concatenate([rows, jax.lax.dynamic_slice_in_dim(offsets, first, length)[:, None]], axis=1)
        return _maxima(_or_none(rows @ halved) if spoilt else rows @ halved)

    def of_all(spoilt: bool) -> Array:
        """(p / 32, n), block by block."""

        def block(best: Array, number: Array) -> tuple[Array, None]:
            found = maxima(number * _BLOCK, _BLOCK, spoilt)
            return jax.lax.dynamic_update_slice_in_dim(best, found, number * (_BLOCK // _GROUP), axis=0), None

        blocks = total // _BLOCK
        best = jnp.full((-(-total // _GROUP), count), -jnp.inf, halved.dtype)
        best = jax.lax.scan(block, best, jnp.arange(blocks, dtype=jnp.int32))[0]
        if total > blocks * _BLOCK:
            last = maxima(blocks * _BLOCK, total - blocks * _BLOCK, spoilt)
            best = best.at[blocks * (_BLOCK // _GROUP) :].set(last)
        return best

    # A score that is no number makes its group's maximum none; to look at each of them would take a third longer.
    best = of_all(spoilt=False)
    best = jax.lax.cond(jnp.isnan(best).any(), lambda: of_all(spoilt=True), lambda: best)

    above = jnp.sort(jax.lax.top_k(_maxima(best).T, groups)[1], axis=1)  # groups of groups, (n, groups)
    within = jnp.arange(_GROUP, dtype=jnp.int32)
    members = (above[..., None] * _GROUP + within[None, None]).reshape(count, groups * _GROUP)
    values = jnp.take_along_axis(best, members.T, axis=0, mode="fill", fill_value=-jnp.inf).T
    chosen = jnp.take_along_axis(members, jnp.sort(jax.lax.top_k(values, groups)[1], axis=1), axis=1)

    def one(row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        customer, chosen, excluded = row
        # The last group may end beyond the last product: it is read from an earlier start, and rows of the group before
        # do not count.
        starts = jnp.minimum(chosen * _GROUP, total - _GROUP)
        read = jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(products, start, _GROUP))(starts)
        rows = starts[:, None] + within[None]
        valid = rows // _GROUP == chosen[:, None]
        scores = read.reshape(groups * _GROUP, dimensions) @ customer / 2.0  # (groups * 32, d) . (d,)
        if offsets is not None:
            scores = scores + offsets[rows.ravel()]
        free = valid.ravel() & ~jnp.isin(rows.ravel(), excluded)
        best, places = jax.lax.top_k(jnp.where(free, _or_none(scores), -jnp.inf), k)
        return best, rows.ravel()[places]

    # On a CPU one customer at a time, whose groups stay in the cache; on a GPU all at once.
    at_once = None if jax.default_backend() == "cpu" else count
    best_of_all, rows = jax.lax.map(one, (customers, chosen, excluded), batch_size=at_once)
    return best_of_all, rows


def _or_none(scores: Float[Array, "..."]) -> Float[Array, "..."]:
    """The scores, those that are not numbers below all others."""
    return jnp.where(jnp.isnan(scores), -jnp.inf, scores)


def _maxima(values: Float[Array, "r n"]) -> Float[Array, "s n"]:
    """The maximum of each group of 32 rows."""
    padded = jnp.pad(values, ((0, -len(values) % _GROUP), (0, 0)), constant_values=-jnp.inf)
    return padded.reshape(len(padded) // _GROUP, _GROUP, values.shape[1]).max(axis=1)
