"""Losses on embeddings: one value per row out, the caller reduces. Plain functions of arrays, no model in sight."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Number = float | Float[Array, ""]
"""An option of a loss: as an array, one compiled program serves all values."""


def distance(a: Float[Array, "*#n d"], b: Float[Array, "*#n d"], *, eps: float = 1e-6) -> Float[Array, "..."]:
    r"""Euclidean distance, $\lVert a - b + \epsilon \rVert_2$, of what broadcasts: eps inside, as in PyTorch.

    >>> float(distance(jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0]), eps=0.0))
    5.0
    """
    squared = jnp.sum(jnp.square(a - b + eps), axis=-1)
    # The square root's gradient at zero is infinite; there it is taken as zero.
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def triplet(
    anchor: Float[Array, "n d"], positive: Float[Array, "n d"], negative: Float[Array, "n d"], *, margin: Number = 1.0
) -> Float[Array, " n"]:
    r"""Triplet margin loss, $\max(0, d(a, p) - d(a, n) + m)$, with the definition of `torch.nn.TripletMarginLoss`.

    Of customers, a product that each of them bought, and one that each of them did not buy, all (n, d).

    >>> a, p, n = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 1.0]])
    >>> round(float(triplet(a, p, n, margin=0.5)[0]), 3)  # 5 - 1 + 0.5
    4.5
    """
    return jnp.maximum(distance(anchor, positive) - distance(anchor, negative) + margin, 0.0)


def info_nce(
    customers: Float[Array, "n d"],
    products: Float[Array, "n d"],
    *,
    temperature: Number,
    where: Bool[Array, "n n"] | None = None,
    offsets: Float[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""InfoNCE with in-batch negatives, $-\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}$ with $s_{ij} = c_i p_j / t + o_j$.

    Of unit vectors of customers and of the product that each of them bought, (n, d); the other rows are its negatives:
    those for which `where` (n, n) is true. The diagonal always counts. `offsets` o (n,) of minus log q(j) correct for
    popular products being drawn as negatives more often (the log-Q correction).

    >>> eye = jnp.eye(2)
    >>> round(float(info_nce(eye, eye, temperature=1.0)[0]), 4)  # -log(e / (e + 1))
    0.3133
    """
    logits = customers @ products.T * (1.0 / temperature)  # (n, d) . (d, n) -> (n, n)
    if offsets is not None:
        logits = logits + offsets[None]
    if where is not None:
        logits = jnp.where(where | jnp.eye(len(logits), dtype=bool), logits, -jnp.inf)
    return jnp.subtract(jax.nn.logsumexp(logits, axis=1), jnp.diagonal(logits))


def full_softmax(
    customers: Float[Array, "n d"],
    products: Float[Array, "p d"],
    targets: Int[Array, " n"],
    *,
    temperature: Number,
    offsets: Float[Array, " p"] | None = None,
) -> Float[Array, " n"]:
    r"""Cross-entropy over the whole catalogue, $-\log\frac{e^{s_{it_i}}}{\sum_j e^{s_{ij}}}$.

    With $s_{ij} = c_i p_j / t + o_j$ of unit vectors of customers (n, d) and of every product (p, d); `targets` are the
    rows of what was bought, and the `offsets` o (p,) may be log-popularity.

    >>> c, p = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> round(float(full_softmax(c, p, jnp.array([0]), temperature=1.0)[0]), 4)  # -log(e / (e + 2))
    0.5514
    """
    logits = customers @ products.T * (1.0 / temperature)  # (n, d) . (d, p) -> (n, p)
    if offsets is not None:
        logits = logits + offsets[None]
    return jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]


def choose_negatives(
    negative_distances: Float[Array, "n m"],
    positive_distances: Float[Array, " n"],
    where: Bool[Array, "n m"],
    *,
    how: Literal["hard", "semi-hard"],
    margin: Number = 1.0,
) -> Int[Array, " n"]:
    """The candidate that is each row's negative, by the distances from its anchor: the nearest wrong one.

    `hard` takes the nearest of all. `semi-hard` (FaceNet) takes the nearest of those that lie farther than the
    positive but within the margin and, where there is none, the farthest of all. `where` says which candidates are in
    truth negatives; a row without any gets an arbitrary one.

    >>> d, ok = jnp.array([[0.2, 0.6, 0.9]]), jnp.array([[True, True, True]])
    >>> int(choose_negatives(d, jnp.array([0.5]), ok, how="hard")[0])
    0
    >>> int(choose_negatives(d, jnp.array([0.5]), ok, how="semi-hard")[0])
    1
    """
    near = jnp.where(where, negative_distances, jnp.inf)
    if how == "hard":
        return jnp.argmin(near, axis=1)
    reference = positive_distances[:, None]
    between = where & (negative_distances > reference) & (negative_distances < reference + margin)
    nearest = jnp.argmin(jnp.where(between, negative_distances, jnp.inf), axis=1)
    farthest = jnp.argmax(jnp.where(where, negative_distances, -jnp.inf), axis=1)
    return jnp.where(between.any(axis=1), nearest, farthest)
