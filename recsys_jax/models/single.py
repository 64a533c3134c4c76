"""One customer at a time, in NumPy: starting a compiled function takes longer than all of this arithmetic."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from recsys_jax.data.features import Features
from recsys_jax.data.schema import TowerInput
from recsys_jax.models.towers import BatchNorm, Variables

__all__ = ["SingleLinearTower", "SingleTower", "single_tower"]


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
