"""What the wide path reads of rows: a column per value of a category, and a number as a curve over knots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from recsys_jax.data.features import Features, FeatureSpace
from recsys_jax.data.schema import TowerInput

KNOTS = 9
"""The knots of a number's curve; its vector is interpolated between two of them."""

RESOLUTIONS = (1, 2, 4, 8)
"""A curve's prior is a sum of curves with so many equal intervals: neighbouring ages differ less than distant ones."""
INTERVAL = 0.7
"""The prior standard deviation of each of these, next to 1 of a category's value."""


def hats(x: Float[Any, " n"], knots: Float[Any, " k"], like: Any = jnp) -> Float[Any, "n k"]:
    """The linear B-spline basis: the weights with which a number lies at each knot, 0 to 1, of sum 1; constant outside.

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


def quantiles(known: Float64[np.ndarray, " n"], count: int) -> Float64[np.ndarray, " k"]:
    """`count` quantiles of the numbers, smallest to largest, so that about as many lie between any two; of none, 0.

    >>> quantiles(np.array([1.0, 2.0, 4.0]), 3).tolist()
    [1.0, 2.0, 4.0]
    """
    return np.asarray(np.quantile(known, np.linspace(0, 1, count)) if len(known) else np.zeros(1))


@dataclass(frozen=True)
class Design:
    """A side's design matrix: a column per value of a category, per knot of a number, and one where it is missing."""

    space: FeatureSpace
    knots: Mapping[str, Float64[np.ndarray, " k"]]
    """Of each number: quantiles of the training rows."""

    @classmethod
    def of(cls, space: FeatureSpace, features: Mapping[str, Any]) -> "Design":
        """The columns for rows of features, from which the numbers' knots are learned."""
        knots = {}
        for name, kind, _ in space.inputs:
            if kind == "numeric":
                x = features[name].astype(np.float64)
                known = x[:, 0] if x.shape[1] == 1 else x[x[:, 1] == 0, 0]
                knots[name] = _knots(known)
        return cls(space, knots)

    @property
    def parts(self) -> dict[str, slice]:
        """The columns of each feature."""
        parts, start = {}, 0
        for one in self.space.inputs:
            stop = start + columns(one)
            parts[one.name], start = slice(start, stop), stop
        return parts

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return max((part.stop for part in self.parts.values()), default=0)

    def matrix(self, features: Mapping[str, Any]) -> Float64[np.ndarray, "n f"]:
        """The columns of n rows of features."""
        out = np.zeros((len(next(iter(features.values()), ())), self.columns))
        for (name, kind, size), part in zip(self.space.inputs, self.parts.values(), strict=True):
            x = features[name]
            if kind == "numeric":
                own = hats(x[:, 0].astype(np.float64), self.knots[name], np)
                if size == 2:
                    own = np.concatenate([own * (1 - x[:, 1:]), x[:, 1:]], axis=1)
                out[:, part] = own
            else:
                rows, values = np.nonzero((x if x.ndim == 2 else x[:, None]) >= 0)
                out[rows, part.start + (x[rows, values] if x.ndim == 2 else x[rows])] = 1.0
        return out

    @property
    def prior(self) -> Float64[np.ndarray, "f f"]:
        """The root of the columns' prior covariance: independent values of categories, smooth curves of numbers."""
        root = np.eye(self.columns)
        for (name, kind, _), part in zip(self.space.inputs, self.parts.values(), strict=True):
            if kind == "numeric":
                knots = self.knots[name]
                curves = np.concatenate([hats(knots, knots[:: (KNOTS - 1) // n], np) for n in RESOLUTIONS], axis=1)
                covariance = INTERVAL**2 * curves @ curves.T + 1e-9 * np.eye(KNOTS)
                root[part.start : part.start + KNOTS, part.start : part.start + KNOTS] = np.linalg.cholesky(covariance)
        return root


class Average(NamedTuple):
    """The average customer of the training purchases: how often each value is stated. Nobody's attributes are kept."""

    shares: Mapping[str, Float32[np.ndarray, " v"]]
    """By feature, the share of the purchases whose customer has each value; of a number the weight of each knot, and
    where missing ones are flagged, their share."""
    knots: Mapping[str, Float32[np.ndarray, " k"]]
    """Of each number."""

    @classmethod
    def of(
        cls, space: FeatureSpace, features: Features, rows: Int[np.ndarray, " n"], knots: Mapping[str, Any]
    ) -> "Average":
        """That of the `rows` of the features, one for each purchase; `knots` are those of numbers that have some."""
        shares, counts = {}, np.bincount(rows, minlength=len(next(iter(features.values()), ())))
        found = dict(knots)
        for fitted in space:
            name, kind, size = fitted.input
            x, weights = features[name], counts / len(rows)
            if kind == "numeric":
                alone = FeatureSpace((fitted,))
                if name not in found:
                    found |= Design.of(alone, {name: x[rows]}).knots
                shares[name] = weights @ Design(alone, {name: np.asarray(found[name], np.float64)}).matrix({name: x})
            else:
                values = x.reshape(len(x), -1)
                of_value = np.broadcast_to(weights[:, None], values.shape)[values >= 0]
                shares[name] = np.bincount(values[values >= 0], of_value, minlength=size)
        return cls(*({name: np.asarray(x, np.float32) for name, x in each.items()} for each in (shares, found)))

    @classmethod
    def uniform(cls, space: FeatureSpace, knots: Mapping[str, Any]) -> "Average":
        """Of a model that does not know its customers: each value of the vocabulary, or knot, is as frequent."""
        shares, found = {}, {}
        for fitted in space:
            name, kind, _ = fitted.input
            count = KNOTS if kind == "numeric" else len(fitted.values)
            shares[name] = np.repeat(np.array([1 / count, 0.0], np.float32), [count, columns(fitted.input) - count])
            if kind == "numeric":
                found[name] = np.asarray(knots.get(name, np.linspace(*fitted.likely, KNOTS)), np.float32)
        return cls(shares, found)


def knots_of(wide: Mapping[str, Any]) -> dict[str, Any]:
    """The knots of each number among the parameters of a wide path."""
    return {name.removesuffix("_knots"): leaf for name, leaf in wide.items() if name.endswith("_knots")}


def columns(one: TowerInput) -> int:
    """The columns of a feature's design."""
    return KNOTS + one.size - 1 if one.kind == "numeric" else one.size


def _knots(known: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " k"]:
    """Quantiles of numbers, each once; where there are fewer values, more knots between them. Distinct as float32."""
    # Of no value or one, any curve will do.
    found = np.unique(quantiles(known, KNOTS).astype(np.float32)).astype(np.float64)
    between = np.interp(np.linspace(0, len(found) - 1, KNOTS), np.arange(len(found)), found).astype(np.float32)
    if (np.diff(between) > 0).all():
        return between.astype(np.float64)
    # Neighbours in float32 have nothing between them: further knots lie beyond the last, where no value is.
    step = max(1.0, abs(found[-1]) / 1024)
    beyond = found[-1] + step * np.arange(1, KNOTS + 1 - len(found))
    return np.concatenate([found, beyond]).astype(np.float32).astype(np.float64)
