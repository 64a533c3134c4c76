"""One customer at a time, in NumPy: to start a compiled function takes longer than all of this arithmetic."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32

from recsys_jax.data.features import Features
from recsys_jax.data.schema import TowerInput
from recsys_jax.models.basis import KNOTS, Average
from recsys_jax.models.towers import BatchNorm, Variables


class SingleTower:
    """A trained customer tower for one row at a time; its vectors are those of the Flax module, to rounding.

    Each path begins with a sum of one part per feature, which is what `changes` and `of_value` take apart.
    """

    def __init__(self, inputs: Sequence[TowerInput], variables: Variables, average: Average | None = None) -> None:
        """The `average` customer is needed by `changes` and `of_value` alone."""
        params = variables["params"]["customer"]
        self._inputs, self._average = tuple(inputs), average
        self.wide = _WidePath(inputs, params["wide"]) if "wide" in params else None
        self.deep = None
        if "deep" in params:
            self.deep = _DeepPath(inputs, params["deep"], variables["batch_stats"]["customer"]["deep"])
        self.paths = [path for path in (self.wide, self.deep) if path is not None]
        self.scale = np.float32(params.get("deep_scale", 1.0))
        self.radius = float(params.get("radius", 1.0))
        if self.deep is not None:
            self.radius = float(np.hypot(self.radius, self.scale))

    def __call__(self, features: Features) -> Float32[np.ndarray, " d"]:
        """The unit vector of the one row in `features`."""
        sums = []
        for path in self.paths:
            total = path.start
            for one in self._inputs:
                total = total + path.part(one, features[one.name][0])
            sums.append(total)
        return self._unit(sums)

    def changes(
        self, features: Features
    ) -> tuple[Float32[np.ndarray, " d"], Float32[np.ndarray, " d"], Float32[np.ndarray, "f d"]]:
        """The unit vectors of the one row and of the average customer, and by how much each feature moved the first.

        That is what would be lost with the average customer's value in its place. In the wide path, which is a sum, it
        is exactly the feature's part: these and the average customer's vector, at the row's length, add up.
        """
        means = self._means
        parts = [[path.part(one, features[one.name][0]) for one in self._inputs] for path in self.paths]
        sums = [path.start + sum(own) for path, own in zip(self.paths, parts, strict=True)]
        unit, usual = self._unit(sums), self._unit(self._usual)
        if self.deep is None:
            usual[:-2] = self._usual[0] / max(self.radius, float(np.linalg.norm(sums[0])))
        moves = np.zeros((len(self._inputs), len(unit)), np.float32)
        for number, move in enumerate(moves):
            without = [mean[number] - own[number] for mean, own in zip(means, parts, strict=True)]
            if self.deep is None:
                move[:-2] = -without[0] / max(self.radius, float(np.linalg.norm(sums[0])))
            else:
                move[:] = unit - self._unit([a + b for a, b in zip(sums, without, strict=True)])
        return unit, usual, moves

    def of_value(self, name: str, value: Any) -> Float32[np.ndarray, " d"]:
        """By how much the average customer's unit vector moves where this feature alone has the value."""
        number = [one.name for one in self._inputs].index(name)
        moved = [
            total + path.part(self._inputs[number], value) - mean[number]
            for total, path, mean in zip(self._usual, self.paths, self._means, strict=True)
        ]
        return np.asarray(self._unit(moved) - self._unit(self._usual))

    @cached_property
    def _usual(self) -> list[Float32[np.ndarray, " _"]]:
        """By path, the sum with which it begins for the average customer."""
        return [path.start + sum(mean) for path, mean in zip(self.paths, self._means, strict=True)]

    @cached_property
    def _means(self) -> list[list[Float32[np.ndarray, " _"]]]:
        """By path, what each feature adds for the average customer."""
        assert self._average is not None
        return [[path.mean(one, self._average) for one in self._inputs] for path in self.paths]

    def _unit(self, sums: Sequence[Float32[np.ndarray, " _"]]) -> Float32[np.ndarray, " d"]:
        """The unit vector that what the paths begin with leads to."""
        deep = None if self.deep is None else self.deep.finished(sums[-1])
        if self.wide is None:
            assert deep is not None
            return deep
        y = sums[0] if deep is None else np.concatenate([sums[0], self.scale * deep])
        length = float(y @ y) ** 0.5
        unit = np.zeros(len(y) + 2, np.float32)
        unit[:-2] = y / max(self.radius, length)
        unit[-2] = max(1.0 - (length / self.radius) ** 2, 0.0) ** 0.5
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
        self._tables: dict[str, Float32[np.ndarray, "r h"]] = {}
        first = 0
        for name, kind, size in inputs:
            part = np.eye(size) if kind == "numeric" else np.asarray(params[f"{name}_emb"], np.float64)
            kernel = hidden["kernel"][first : first + part.shape[1]]
            self._tables[name] = (part @ kernel).astype(np.float32)
            first += part.shape[1]
        scale = norm["scale"] / np.sqrt(statistics["var"] + BatchNorm.epsilon)
        shift = norm["bias"] - statistics["mean"] * scale
        self.start = hidden["bias"].astype(np.float32)
        self.kernel = (scale[:, None] * output["kernel"]).astype(np.float32)
        self.bias = (output["bias"] + shift @ output["kernel"]).astype(np.float32)

    def part(self, one: TowerInput, value: Any) -> Any:
        """What a feature's value adds to the hidden layer; of several values, their mean."""
        table = self._tables[one.name]
        if one.kind == "categorical":
            return table[value]
        if one.kind == "numeric":
            return value @ table
        rows = value[value >= 0]
        return table[rows].mean(axis=0) if len(rows) else 0.0

    def mean(self, one: TowerInput, average: Average) -> Any:
        """What a feature adds for the average customer: the mean over the values that are stated."""
        shares, table = average.shares[one.name], self._tables[one.name]
        if one.kind != "numeric":
            return shares @ table / max(float(shares.sum()), 1e-12)
        known = shares[:KNOTS]  # the mean of a number is that of its knots, as the hats are linear between them
        value = known @ average.knots[one.name] / max(float(known.sum()), 1e-12)
        return np.append(value, shares[KNOTS:]).astype(np.float32) @ table

    def finished(self, hidden: Float32[np.ndarray, " h"]) -> Float32[np.ndarray, " d"]:
        """The unit vector that the hidden layer leads to."""
        out = np.maximum(hidden, 0.0) @ self.kernel + self.bias
        return np.asarray(out / max(float(out @ out) ** 0.5, 1e-12), np.float32)


class _WidePath:
    """The wide path, before it is brought to unit length."""

    def __init__(self, inputs: Sequence[TowerInput], params: Mapping[str, Any]) -> None:
        self._params = {name: np.asarray(leaf, np.float32) for name, leaf in params.items()}
        self.start = self._params["offset"]
        # A number's curve: its knots, and the change from each to the next.
        self.curves = {
            name: (self._params[f"{name}_knots"].tolist(), np.diff(self._params[f"{name}_emb"], axis=0))
            for name, kind, _ in inputs
            if kind == "numeric"
        }

    def part(self, one: TowerInput, value: Any) -> Any:
        """The vector of a feature's value; of several values, their sum."""
        name, table = one.name, self._params[f"{one.name}_emb"]
        if one.kind == "categorical":
            return table[value]
        if one.kind == "multi-categorical":
            return table[value[value >= 0]].sum(axis=0)
        if one.size == 2 and value[1] > 0:
            return self._params[f"{name}_missing"]
        knots, steps = self.curves[name]
        x = min(max(float(value[0]), knots[0]), knots[-1])
        place = min(bisect_right(knots, x), len(steps)) - 1
        share = (x - knots[place]) / (knots[place + 1] - knots[place])
        return table[place] + np.float32(share) * steps[place]

    def mean(self, one: TowerInput, average: Average) -> Any:
        """What a feature adds for the average customer."""
        shares, table = average.shares[one.name], self._params[f"{one.name}_emb"]
        if one.kind == "numeric" and one.size == 2:
            table = np.concatenate([table, self._params[f"{one.name}_missing"][None]])
        return shares @ table
