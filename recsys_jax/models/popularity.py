"""How often products are bought, as log-popularity: what is learned of counts, and what a trained model keeps of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from recsys_jax.data.schema import TowerInput
from recsys_jax.models.basis import KNOTS, Design, hats

UNIFORM = 1e6
"""Pseudo-count above which popularity is uniform."""


class LogPopularity(NamedTuple):
    """Log-popularity as a trained model keeps it: 0 for the average product."""

    of_product: Float32[np.ndarray, " p"]
    constant: Float32[np.ndarray, ""]
    """Of a product that nobody has bought, before its attributes are added."""
    attributes: Mapping[str, Float32[np.ndarray, " v"]]
    """What each attribute value, or knot, adds to that, by feature; empty: all new products are expected alike."""
    scale: float
    """How much of it a score gets: half the temperature of the cosines, or 0 where the recipe leaves popularity out."""

    @property
    def bias(self) -> Float32[np.ndarray, " p"]:
        """What is added to each product's score."""
        return np.asarray(self.scale * self.of_product + 0.0, np.float32)  # of no scale 0, and not -0

    def bias_of_new(
        self, inputs: Sequence[TowerInput], knots: Mapping[str, Any], features: Mapping[str, Any]
    ) -> Float32[np.ndarray, " n"]:
        """The same of n products that nobody has bought, by the features that the product tower reads."""
        expected = np.full(len(next(iter(features.values()))), float(self.constant))
        for part in self.parts(inputs, knots, features).values():
            expected += part
        return np.asarray(self.scale * expected + 0.0, np.float32)

    def parts(
        self, inputs: Sequence[TowerInput], knots: Mapping[str, Any], features: Mapping[str, Any]
    ) -> dict[str, Float64[np.ndarray, " n"]]:
        """What each attribute, by its feature's name, adds to the log-popularity expected of n products."""
        parts = {}
        for name, kind, size in inputs:
            if name not in self.attributes:
                continue
            x, table = np.asarray(features[name]), self.attributes[name].astype(np.float64)
            if kind == "numeric":
                part = hats(x[:, 0].astype(np.float64), knots[name], np) @ table[:KNOTS]
                parts[name] = np.where(x[:, 1] > 0, table[-1], part) if size == 2 else part
            else:
                rows = x.reshape(len(x), -1)
                parts[name] = np.where(rows >= 0, table[rows], 0.0).sum(axis=1)
        return parts


@dataclass(frozen=True)
class Popularity:
    """log(weight x n + pseudo-count x expected), of a product bought n times."""

    weight: float
    """Of a product's count: 1, or 0 where counts vary by chance alone."""
    pseudo_count: float
    """The weight of the expectation, in purchases: large where counts vary little; 1 where counts have no weight."""
    coefficients: Float64[np.ndarray, " a"]
    """By how much each column of the products' design changes the logarithm of what is expected."""
    constant: float

    def expected(self, attributes: Float64[np.ndarray, "p a"]) -> Float64[np.ndarray, " p"]:
        """The logarithm of what is expected of products with these attributes, 0 for the average one."""
        return np.asarray(self.constant + attributes @ self.coefficients)

    def of(
        self, purchases: Float64[np.ndarray, " p"], attributes: Float64[np.ndarray, "p a"] | None = None
    ) -> Float64[np.ndarray, " p"]:
        """Log-popularity of products bought n times; without `attributes` all are expected alike."""
        expected = self.constant if attributes is None else self.expected(attributes)
        return np.asarray(np.log(self.weight * purchases + self.pseudo_count * np.exp(expected)))

    def kept(
        self,
        purchases: Float64[np.ndarray, " p"],
        scale: float,
        attributes: Float64[np.ndarray, "p a"] | None = None,
        design: Design | None = None,
    ) -> LogPopularity:
        """What a trained model keeps of it, for a catalogue with so many purchases of each product.

        A score has `scale` of it; `design` has the columns of the attributes.
        """
        average = np.log(self.weight * purchases.mean() + self.pseudo_count)
        tables: dict[str, np.ndarray] = {}
        if design is not None:
            weights = (design.prior @ self.coefficients).astype(np.float32)
            tables = {name: weights[part] for name, part in design.parts.items()}
        return LogPopularity(
            (self.of(purchases, attributes) - average).astype(np.float32),
            np.asarray(self.constant + np.log(self.pseudo_count) - average, np.float32),
            tables,
            scale,
        )


SMOOTHED = Popularity(1.0, 1.0, np.zeros(0), 0.0)
"""log(n + 1), as the deep recipe counts."""


def flat(purchases: Float64[np.ndarray, " p"]) -> bool:
    """Whether the products that anybody bought vary in their counts no more than by chance."""
    return learn_popularity(purchases[purchases > 0]).weight == 0.0


def learn_popularity(
    purchases: Float64[np.ndarray, " p"], attributes: Float[np.ndarray, "p a"] | None = None
) -> Popularity:
    r"""Popularity by counts that vary by chance and by merit (empirical Bayes), with an expectation by attributes.

    If merits follow a Gamma distribution and counts, given those, a Poisson distribution, the pseudo-count is
    $m^2 / (v - m)$, m and v being the counts' mean and variance; at least 1. Where they vary no more than by chance,
    as with three reviews to every product, all products are equally popular, whatever their counts.

    The expectation is a generalised linear model with a logarithmic link between Poisson and Gamma (Tweedie, power
    1.5): a bestseller must not outweigh all others. The products are those that anybody bought.
    """
    mean, variance = float(purchases.mean()), float(purchases.var())
    pseudo_count = max(mean**2 / (variance - mean), 1.0) if variance > mean else UNIFORM
    columns = 0 if attributes is None else attributes.shape[1]
    if pseudo_count >= UNIFORM:
        return Popularity(0.0, 1.0, np.zeros(columns), 0.0)
    if attributes is None or not columns or len(purchases) < 2:
        return Popularity(1.0, pseudo_count, np.zeros(columns), 0.0)
    from sklearn.linear_model import TweedieRegressor

    model = TweedieRegressor(power=1.5, alpha=0.2, link="log", max_iter=10_000)
    model.fit(attributes, purchases / mean + 0.01)
    return Popularity(1.0, pseudo_count, np.asarray(model.coef_, np.float64), float(model.intercept_))
