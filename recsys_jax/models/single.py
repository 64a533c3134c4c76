"""One customer at a time, in NumPy: to start a compiled function takes longer than all of this arithmetic."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from recsys_jax.data.features import Features
from recsys_jax.data.schema import TowerInput
from recsys_jax.models.towers import BatchNorm, Variables


class SingleTower:
    """A trained customer tower for one row at a time; its vectors are those of the Flax module, to rounding."""

    def __init__(self, inputs: Sequence[TowerInput], variables: Variables) -> None:
        params = variables["params"]["customer"]
        self._wide = _WidePath(inputs, params["wide"]) if "wide" in params else None
        self._deep = None
        if "deep" in params:
            self._deep = _DeepPath(inputs, params["deep"], variables["batch_stats"]["customer"]["deep"])
        self._scale = np.float32(params.get("deep_scale", 1.0))
        self._radius = float(params.get("radius", 1.0))
        if self._deep is not None:
            self._radius = float(np.hypot(self._radius, self._scale))

    def __call__(self, features: Features) -> Float32[np.ndarray, " d"]:
        """The unit vector of the one row in `features`."""
        if self._wide is None:
            assert self._deep is not None
            return self._deep(features)
        y = self._wide(features)
        if self._deep is not None:
            y = np.concatenate([y, self._scale * self._deep(features)])
        length = float(y @ y) ** 0.5
        unit = np.zeros(len(y) + 2, np.float32)
        unit[:-2] = y / max(self._radius, length)
        unit[-2] = max(1.0 - (length / self._radius) ** 2, 0.0) ** 0.5
        return unit


class _DeepPath:
    """The deep path. The first layer is linear, so the rows of the embedding tables are multiplied by it in advance;
    what follows the ReLU (batch normalisation by running statistics, the second layer) is one linear map.
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


class _WidePath:
    """The wide path, before it is brought to unit length."""

    def __init__(self, inputs: Sequence[TowerInput], params: Mapping[str, Any]) -> None:
        self._inputs = tuple(inputs)
        self._params = {name: np.asarray(leaf, np.float32) for name, leaf in params.items()}
        # A number's curve: its knots, and the change from each to the next.
        self._curves = {
            name: (self._params[f"{name}_knots"].tolist(), np.diff(self._params[f"{name}_emb"], axis=0))
            for name, kind, _ in self._inputs
            if kind == "numeric"
        }

    def __call__(self, features: Features) -> Float32[np.ndarray, " d"]:
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
        return np.asarray(total)
