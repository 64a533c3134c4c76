"""Training customers and products made a little different: attributes hidden, numbers jittered, customers added."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from recsys_jax.data.features import Features
from recsys_jax.errors import InputError

__all__ = ["extra_customers", "hide_attributes", "hide_ids", "jitter_numbers"]


def hide_ids(key: Array, products: Features, unknown: Int[Array, ""], *, share: float) -> Features:
    """Products of which a share shows the unknown id, so that its embedding learns and attributes are used too."""
    ids = products["product_id"]
    return {**products, "product_id": jnp.where(jax.random.bernoulli(key, share, ids.shape), unknown, ids)}


def jitter_numbers(key: Array, rows: Features, deviations: Mapping[str, Float[Array, ""]]) -> Features:
    """Rows whose numbers carry normal noise of the given deviations."""
    out = dict(rows)
    for i, (name, column) in enumerate(sorted(rows.items())):
        if jnp.issubdtype(column.dtype, jnp.floating):
            noise = jax.random.normal(jax.random.fold_in(key, i), (len(column),))
            out[name] = column.at[:, 0].add(deviations[name] * noise)
    return out


def hide_attributes(
    key: Array,
    rows: Features,
    everyone: Features,
    count: Int[Array, ""],
    missing: Mapping[str, Array],
    *,
    share: float,
) -> Features:
    """Rows of which a share of the attributes is hidden.

    A hidden attribute is what `missing` holds for its feature, an embedding row or a number with its flag; where that
    holds nothing, it is the value of another of the first `count` rows of `everyone`, drawn at random.
    """
    out = dict(rows)
    for i, (name, column) in enumerate(sorted(rows.items())):
        hide_key, other_key = jax.random.split(jax.random.fold_in(key, i))
        if name in missing:
            stand_in = jnp.broadcast_to(missing[name], column.shape)
        else:
            stand_in = everyone[name][jax.random.randint(other_key, (len(column),), 0, count)]
        hide = jax.random.bernoulli(hide_key, share, (len(column),))
        out[name] = jnp.where(hide.reshape(-1, *[1] * (column.ndim - 1)), stand_in, column)
    return out


def extra_customers(
    customers: Features, pairs: Int[np.ndarray, "n 2"], segments: Sequence[str] | None, *, count: int, seed: int
) -> tuple[Features, Int[np.ndarray, "m 2"]]:
    """Customers and purchases with `count` more: each attribute, and the purchase, from a member of one persona.

    Raises `InputError` where there are no personas.
    """
    if segments is None:
        raise InputError("extra_customers: found a number above 0; allowed: 0, since [customers] names no segment")
    rng = np.random.default_rng([seed, 1])
    labels = np.unique(np.asarray(segments), return_inverse=True)[1]
    chosen = rng.choice(labels, count)

    def draw(owners: Int[np.ndarray, " n"]) -> Int[np.ndarray, " count"]:
        """For each extra customer a place whose owner belongs to the same persona."""
        pools = [np.flatnonzero(owners == label) for label in range(labels.max() + 1)]
        return np.array([rng.choice(pools[label]) for label in chosen])

    grown = {name: np.concatenate([column, column[draw(labels)]]) for name, column in customers.items()}
    bought = pairs[draw(labels[pairs[:, 0]]), 1]
    more = np.stack([len(labels) + np.arange(count), bought], axis=1)
    return grown, np.concatenate([pairs, more]).astype(np.int32)
