"""Linear towers: a sum of one vector per attribute value, brought to unit length without changing any dot product."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from recsys_jax.data.schema import TowerInput
from recsys_jax.models.towers import Variables

__all__ = ["KNOTS", "LinearTower", "LinearTwoTower", "hats", "log_popularity", "of_variables", "temperature"]

KNOTS = 9
"""Points of the curve that a number runs along; its vector is interpolated between two of them."""


def hats(x: Float[Any, " n"], knots: Float[Any, " k"], like: Any = jnp) -> Float[Any, "n k"]:
    """The weights with which a number lies at each knot: piecewise linear, 0 to 1, of sum 1; constant outside.

    Args:
        x: the numbers (n,).
        knots: ascending, each once (k,).
        like: the module that computes, `numpy` or `jax.numpy`.

    >>> hats(np.array([-1.0, 0.5, 3.0]), np.array([0.0, 2.0, 3.0]), np).tolist()
    [[1.0, 0.0, 0.0], [0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    """
    rising = (x[:, None] - knots[:-1]) / (knots[1:] - knots[:-1])  # (n, k - 1)
    ones = like.ones((len(x), 1), rising.dtype)
    up, down = like.concatenate([ones, rising], 1), like.concatenate([1.0 - rising, ones], 1)
    return like.clip(like.minimum(up, down), 0.0, 1.0)


class LinearTower(nn.Module):
    r"""One side: $y = o + \sum_f E_f[x_f]$ in a ball of radius r, then $(y / r, \sqrt{1 - |y / r|^2})$ of unit length.

    The last number goes into one of two dimensions, a different one on each side: it meets a zero, so the dot product
    of two unit vectors is still that of the sums, divided by both radii. What lies outside the ball is moved to it.
    """

    inputs: tuple[TowerInput, ...]
    dim: int
    """Of the sums; the unit vectors have two more."""
    spare: int
    """Which of the two more this side fills: 0 or 1."""

    @nn.compact
    def __call__(self, features: Mapping[str, Array]) -> Float[Array, "n d"]:
        """Unit vectors (n, dim + 2) of n rows of features."""
        count = len(next(iter(features.values())))
        total = jnp.broadcast_to(self.param("offset", nn.initializers.zeros, (self.dim,)), (count, self.dim))
        for name, kind, size in self.inputs:
            x = features[name]
            zeros = nn.initializers.zeros
            table = self.param(f"{name}_emb", zeros, (KNOTS if kind == "numeric" else size, self.dim))
            if kind == "numeric":
                knots = self.param(f"{name}_knots", zeros, (KNOTS,))
                part = hats(x[:, 0], knots) @ table
                if size == 2:  # flagged as missing: a vector of its own
                    part = jnp.where(x[:, 1:] > 0, self.param(f"{name}_missing", zeros, (self.dim,)), part)
            else:
                rows = x[:, None] if x.ndim == 1 else x
                part = jnp.sum(jnp.where((rows >= 0)[..., None], table[rows], 0.0), axis=1)
            total = total + part
        radius = self.param("radius", nn.initializers.ones, ())
        unit = total / jnp.maximum(radius, jnp.linalg.norm(total, axis=1, keepdims=True))
        rest = jnp.sqrt(jnp.maximum(1.0 - jnp.sum(unit * unit, axis=1, keepdims=True), 0.0))
        nothing = jnp.zeros_like(rest)
        return jnp.concatenate([unit, *((rest, nothing) if self.spare == 0 else (nothing, rest))], axis=1)


class LinearTwoTower(nn.Module):
    """A linear customer tower and a linear product tower that map into one space."""

    customer_inputs: tuple[TowerInput, ...]
    product_inputs: tuple[TowerInput, ...]
    dim: int

    def setup(self) -> None:
        """Names the towers; Flax calls it."""
        self.customer = LinearTower(self.customer_inputs, self.dim, 0)
        self.product = LinearTower(self.product_inputs, self.dim, 1)

    def __call__(
        self, customers: Mapping[str, Array], products: Mapping[str, Array]
    ) -> tuple[Float[Array, "n d"], Float[Array, "p d"]]:
        """Both sides' unit vectors."""
        return self.customer(customers), self.product(products)

    def encode_customers(self, features: Mapping[str, Array]) -> Float[Array, "n d"]:
        """The customer tower alone."""
        return self.customer(features)

    def encode_products(self, features: Mapping[str, Array]) -> Float[Array, "n d"]:
        """The product tower alone."""
        return self.product(features)


def of_variables(
    customers: tuple[TowerInput, ...], products: tuple[TowerInput, ...], variables: Variables
) -> LinearTwoTower:
    """The module that trained variables belong to."""
    return LinearTwoTower(customers, products, variables["params"]["product"]["product_id_emb"].shape[1])


def temperature(variables: Variables) -> float:
    """What a cosine is divided by to give log-odds: 1 / (radius of the customers x radius of the products)."""
    sides = variables["params"]
    return 1.0 / float(sides["customer"]["radius"] * sides["product"]["radius"])


def log_popularity(
    inputs: tuple[TowerInput, ...], variables: Variables, features: Mapping[str, Any]
) -> Float[np.ndarray, " n"]:
    """The logarithm of how often each product is bought, 0 for the average one: by its id, or else by its attributes.

    Args:
        inputs: the product tower's.
        variables: the trained ones.
        features: the products' (n rows).
    """
    tables = variables["popularity"]
    expected = np.full(len(features["product_id"]), float(tables["constant"]))
    for name, kind, size in inputs:
        if name == "product_id":
            continue
        x, table = np.asarray(features[name]), tables["attributes"][name]
        if kind == "numeric":
            part = hats(x[:, 0].astype(np.float64), variables["params"]["product"][f"{name}_knots"], np) @ table[:KNOTS]
            expected += np.where(x[:, 1] > 0, table[-1], part) if size == 2 else part
        else:
            rows = x.reshape(len(x), -1)
            expected += np.where(rows >= 0, table[rows], 0.0).sum(axis=1)
    own = tables["of_id"][features["product_id"]]
    return np.asarray(np.where(np.isnan(own), expected, own))
