"""One customer at a time, in NumPy: to start a compiled function takes longer than all of this arithmetic."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int8

from recsys_jax.data.features import Features
from recsys_jax.data.schema import TowerInput
from recsys_jax.models.towers import BatchNorm, Variables

__all__ = ["MANY", "SingleLinearTower", "SingleSearch", "SingleTower", "single_tower"]


class SingleTower:
    """A trained tower for one row at a time; its vectors are those of the Flax module, to rounding.

    The first layer is linear, so the rows of the embedding tables are multiplied by it in advance, and what follows
    the ReLU (batch normalisation by running statistics, the second layer) is one linear map.
    """

    def __init__(self, inputs: Sequence[TowerInput], params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> None:
        hidden, norm, output, statistics = (
            {name: np.asarray(leaf, np.float64) for name, leaf in layer.items()}
            for layer in (params["hidden"], params["norm"], params["output"], batch_stats["norm"])
        )
        self._parts: list[tuple[str, str, Float32[np.ndarray, "r h"]]] = []
        start = 0
        for name, kind, size in inputs:
            part = np.eye(size) if kind == "numeric" else np.asarray(params[f"{name}_emb"], np.float64)
            kernel = hidden["kernel"][start : start + part.shape[1]]
            self._parts.append((name, kind, (part @ kernel).astype(np.float32)))
            start += part.shape[1]
        scale = norm["scale"] / np.sqrt(statistics["var"] + BatchNorm.epsilon)
        shift = norm["bias"] - statistics["mean"] * scale
        self._hidden_bias = hidden["bias"].astype(np.float32)
        self._output = (scale[:, None] * output["kernel"]).astype(np.float32)
        self._output_bias = (output["bias"] + shift @ output["kernel"]).astype(np.float32)

    def __call__(self, features: Features) -> Float32[np.ndarray, " d"]:
        """The unit vector of the one row in `features`."""
        hidden = self._hidden_bias
        for name, kind, part in self._parts:
            value = features[name][0]
            if kind == "categorical":
                hidden = hidden + part[value]
            elif kind == "numeric":
                hidden = hidden + value @ part
            elif len(rows := value[value >= 0]):
                hidden = hidden + part[rows].mean(axis=0)
        out = np.maximum(hidden, 0.0) @ self._output + self._output_bias
        return np.asarray(out / max(float(out @ out) ** 0.5, 1e-12), np.float32)


class SingleLinearTower:
    """A linear customer tower for one row at a time; its vectors are those of the Flax module, to rounding."""

    def __init__(self, inputs: Sequence[TowerInput], params: Mapping[str, Any]) -> None:
        self._inputs = tuple(inputs)
        self._params = {name: np.asarray(leaf, np.float32) for name, leaf in params.items()}
        self._radius = float(params["radius"])
        # A number's curve as its knots, and from each to the next what it changes by.
        self._curves = {
            name: (self._params[f"{name}_knots"].tolist(), np.diff(self._params[f"{name}_emb"], axis=0))
            for name, kind, _ in self._inputs
            if kind == "numeric"
        }

    def __call__(self, features: Features) -> Float32[np.ndarray, " d"]:
        """The unit vector of the one row in `features`."""
        params = self._params
        total = params["offset"]
        for name, kind, size in self._inputs:
            value, table = features[name][0], params[f"{name}_emb"]
            if kind == "categorical":
                total = total + table[value]
            elif kind == "multi-categorical":
                total = total + table[value[value >= 0]].sum(axis=0)
            elif size == 2 and value[1] > 0:
                total = total + params[f"{name}_missing"]
            else:
                knots, steps = self._curves[name]
                x = min(max(float(value[0]), knots[0]), knots[-1])
                place = min(bisect_right(knots, x), len(steps)) - 1
                share = (x - knots[place]) / (knots[place + 1] - knots[place])
                total = total + table[place] + np.float32(share) * steps[place]
        length = float(total @ total) ** 0.5
        unit = np.zeros(len(total) + 2, np.float32)
        unit[:-2] = total / max(self._radius, length)
        unit[-2] = max(1.0 - (length / self._radius) ** 2, 0.0) ** 0.5
        return unit


def single_tower(inputs: Sequence[TowerInput], variables: Variables) -> SingleTower | SingleLinearTower:
    """The customer tower that trained variables belong to, for one row at a time."""
    params = variables["params"]["customer"]
    if "radius" in params:
        return SingleLinearTower(inputs, params)
    return SingleTower(inputs, params, variables["batch_stats"]["customer"])


MANY, FEW = 2**16, 128
"""From so many products on, and with so few dimensions, it pays to look at a byte per number first. With more of them
the compiled sums no longer fit into the processor's registers."""


class SingleSearch:
    """Products, prepared to find the best ones for one customer at a time. Exact.

    With many products, reading them is what takes the time: four bytes a number. So each number is also kept as one
    byte, the whole row of `products` to within a known error. A pass over the bytes leaves the few products that can
    be among the best, whatever the errors, and only these are scored in full.
    """

    def __init__(self, products: Float32[np.ndarray, "p d"], *, many: int = MANY) -> None:
        self._products = np.ascontiguousarray(products)
        self._bytes_first = len(products) >= many and products.shape[1] <= FEW

    def __call__(
        self,
        customer: Float32[np.ndarray, " d"],
        k: int,
        *,
        exclude: Sequence[int] = (),
        allowed: Bool[np.ndarray, " p"] | None = None,
    ) -> tuple[Float32[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """The k products with the greatest dot products, best first; of equals, the earlier row first.

        Args:
            customer: the vector (d,).
            k: how many; where fewer remain, fewer come back.
            exclude: rows of products that must not be among them.
            allowed: which products may be.

        Returns:
            Dot products and rows of products.
        """
        rows = None
        if self._bytes_first:
            rows = self._candidates(customer, k + len(exclude), allowed)
        values = (self._products if rows is None else self._products[rows]) @ customer
        if allowed is not None:
            values[~(allowed if rows is None else allowed[rows])] = -np.inf
        if len(exclude):
            values[np.array(exclude) if rows is None else np.isin(rows, exclude)] = -np.inf
        best = _best(values, k)
        return values[best], best if rows is None else rows[best]

    def _candidates(
        self, customer: Float32[np.ndarray, " d"], k: int, allowed: Bool[np.ndarray, " p"] | None
    ) -> Int[np.ndarray, " m"] | None:
        """The rows that can be among the best k; None where that would be too many to be worth it."""
        numbers, scale, errors = self._bytes
        near = np.asarray(_dot(numbers, scale * customer))[: len(self._products)]
        if allowed is not None:
            near = np.where(allowed, near, -np.inf)
        # At least k products are as near as this; each may be better than it looks, and any other one worse. A little
        # more for the rounding of the sums.
        error = float(np.abs(customer) @ errors) + 1e-5 * float(np.abs(customer) @ (127 * scale))
        rows = np.flatnonzero(near >= _reached(near, k) - 2 * error)
        return rows if len(rows) < len(near) // 16 else None

    @cached_property
    def _bytes(self) -> tuple[Int8[Array, "d n"], Float32[np.ndarray, " d"], Float32[np.ndarray, " d"]]:
        """The products as bytes times a scale per dimension, and the greatest error of each dimension."""
        total, dimensions = self._products.shape
        scale = np.maximum(np.abs(self._products).max(axis=0), 1e-30) / np.float32(127)
        # Dimension by dimension, each with some more bytes than a round number: rows a power of two apart would
        # compete for the same places in the processor's cache. The rounding to 65,536 lets a few products more run
        # the same compiled program.
        numbers = np.zeros((dimensions, -(-total // 2**16) * 2**16 + 64), np.int8)
        errors = np.empty(dimensions, np.float32)
        for d in range(dimensions):
            column = self._products[:, d]
            numbers[d, :total] = np.rint(column / scale[d])
            errors[d] = np.abs(column - scale[d] * numbers[d, :total]).max()
        # On the processor, also where there is a GPU.
        return jax.device_put(numbers, jax.local_devices(backend="cpu")[0]), scale, errors


@jax.jit
def _dot(numbers: Int8[Array, "d n"], customer: Float[Array, " d"]) -> Float[Array, " n"]:
    """The dot product of each column. As one elementwise expression, in sums of eight, it runs four times as fast as
    a matrix product of bytes would."""
    sums: list[Any] = [0.0] * -(-len(numbers) // 8)
    for d in range(len(numbers)):
        sums[d // 8] += numbers[d].astype(customer.dtype) * customer[d]
    return sum(sums)  # type: ignore[no-any-return]


def _reached(values: Float[np.ndarray, " p"], k: int) -> float:
    """A value that at least k of the values reach, and not many more."""
    while len(values) >= 256 * k:  # of the maxima of groups, k reach the k-th greatest
        groups = len(values) // 32
        values = values[: 32 * groups].reshape(32, groups).max(axis=0)
    return float(np.partition(values, -k)[-k]) if k < len(values) else -np.inf


def _best(values: Float[np.ndarray, " p"], k: int) -> Int[np.ndarray, " m"]:
    """The places of the k greatest values above -inf, best first; of equals, the earlier one first."""
    places = None
    if len(values) > 512:
        places = np.flatnonzero(values >= _reached(values, k))
        values = values[places]
    best = np.argsort(-values, kind="stable")[:k]
    best = best[values[best] > -np.inf]
    return best if places is None else places[best]
