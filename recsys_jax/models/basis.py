"""What linear towers read of rows as one matrix of numbers, and what products are described by besides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh

from recsys_jax.data.features import FeatureSpace
from recsys_jax.models.wide import KNOTS, hats

__all__ = ["Design", "Popularity", "item_factors", "learn_popularity"]

RESOLUTIONS = (1, 2, 4, 8)
"""A number's curve is a sum of curves with so many equal pieces: neighbouring ages differ less than distant ones."""
PIECE = 0.7
"""The standard deviation of each of these, next to 1 of a category's value."""

CERTAIN = 1e6
"""Purchases' worth of doubt from which on counts say nothing."""


@dataclass(frozen=True)
class Design:
    """A side's features as columns: one per value of a category, one per knot of a number, one where it is missing."""

    space: FeatureSpace
    knots: Mapping[str, Float64[np.ndarray, " k"]]
    """Of each number: quantiles of the rows that were learned from."""

    @classmethod
    def of(cls, space: FeatureSpace, features: Mapping[str, Any]) -> "Design":
        """The columns for rows of features, of which the numbers' knots are learned."""
        knots = {}
        for name, kind, _ in space.inputs:
            if kind == "numeric":
                x = features[name].astype(np.float64)
                stated = x[:, 0] if x.shape[1] == 1 else x[x[:, 1] == 0, 0]
                knots[name] = _knots(stated)
        return cls(space, knots)

    @property
    def parts(self) -> dict[str, slice]:
        """The columns of each feature."""
        parts, start = {}, 0
        for name, kind, size in self.space.inputs:
            stop = start + (KNOTS + size - 1 if kind == "numeric" else size)
            parts[name], start = slice(start, stop), stop
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
                covariance = PIECE**2 * curves @ curves.T + 1e-9 * np.eye(KNOTS)
                root[part.start : part.start + KNOTS, part.start : part.start + KNOTS] = np.linalg.cholesky(covariance)
        return root


def _knots(stated: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " k"]:
    """Quantiles of numbers, each once; where there are fewer values, more knots between them. Distinct as float32."""
    # Of nothing and of one value: any curve will do.
    quantiles = np.quantile(stated, np.linspace(0, 1, KNOTS)) if len(stated) else np.zeros(1)
    found = np.unique(quantiles.astype(np.float32)).astype(np.float64)
    between = np.interp(np.linspace(0, len(found) - 1, KNOTS), np.arange(len(found)), found).astype(np.float32)
    if (np.diff(between) > 0).all():
        return between.astype(np.float64)
    # Neighbours in float32 have nothing between them: further knots lie beyond the last, where nobody is.
    step = max(1.0, abs(found[-1]) / 1024)
    beyond = found[-1] + step * np.arange(1, KNOTS + 1 - len(found))
    return np.concatenate([found, beyond]).astype(np.float32).astype(np.float64)


def item_factors(
    pairs: Int[np.ndarray, "n 2"], customers: int, products: int, count: int, *, shrink: float = 10.0
) -> Float64[np.ndarray, "p r"] | None:
    r"""What tells products apart that different customers buy: the leading directions of who buys what with what.

    Eigenvectors, times the root of their eigenvalues, of $(c_{ij} - e_{ij}) / \sqrt{(n_i + s)(n_j + s)}$ for i other
    than j: c how many customers bought both, e how many would if they chose by popularity alone, n how often each was
    bought, s the `shrink`. The products' mean variance, weighted by n, is 1. None where nobody bought two products.

    Args:
        pairs: (customer, product) of each purchase.
        customers: how many there are.
        products: how many there are.
        count: the most directions.
        shrink: purchases' worth of doubt.
    """
    bought = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(customers, products))
    each = np.asarray(bought.sum(axis=1))
    n = np.bincount(pairs[:, 1], minlength=products).astype(np.float64)
    together = float((each * (each - 1)).sum())
    if not together or products < 3:
        return None
    share, scale = n / n.sum(), 1.0 / np.sqrt(n + shrink)

    def multiply(x: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
        y = scale * x.reshape(-1)
        found = bought.T @ (bought @ y) - n * y
        by_chance = together * (share * (share @ y) - share**2 * y)
        return np.asarray(scale * (found - by_chance))

    count = min(count, products - 2)
    operator = LinearOperator((products, products), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(products)  # any start finds them; this one always the same way
    values, vectors = eigsh(operator, k=count, which="LA", v0=start)
    # The sign of an eigenvector is arbitrary, and so is nothing that is made of it.
    found = vectors[:, values > 1e-9] * np.sqrt(values[values > 1e-9])
    variance = float((share[:, None] * (found - share @ found) ** 2).sum())
    return found / np.sqrt(variance) if variance > 0 else None


@dataclass(frozen=True)
class Popularity:
    """How often products are bought, as log-popularity, but for what their counts say by chance alone."""

    weight: float
    """Of a product's count: 1, or 0 where counts vary by chance alone."""
    doubt: float
    """Purchases' worth of what is expected of a product: much where counts vary little; 1 where they have no weight."""
    coefficients: Float64[np.ndarray, " a"]
    """By how much each column of the products' design changes what is expected."""
    constant: float

    def expected(self, attributes: Float64[np.ndarray, "p a"]) -> Float64[np.ndarray, " p"]:
        """The logarithm of what is expected of products with these attributes, 0 for the average one."""
        return np.asarray(self.constant + attributes @ self.coefficients)

    def of(
        self, purchases: Float64[np.ndarray, " p"], attributes: Float64[np.ndarray, "p a"]
    ) -> Float64[np.ndarray, " p"]:
        """log(weight x n + doubt x expected), of products bought n times."""
        return np.asarray(np.log(self.weight * purchases + self.doubt * np.exp(self.expected(attributes))))


def learn_popularity(
    purchases: Float64[np.ndarray, " p"], attributes: Float64[np.ndarray, "p a"] | None = None
) -> Popularity:
    r"""Popularity by counts that vary by chance and by merit, with an expectation by attributes.

    If merits follow a Gamma distribution and counts, given those, a Poisson distribution, the count to add to each is
    $m^2 / (v - m)$, m and v being the counts' mean and variance; at least 1. Where they vary no more than by chance,
    as with three reviews to every product, all products are equally popular, whatever their counts.

    The expectation is a generalised linear model with a logarithmic link between Poisson and Gamma (Tweedie, power
    1.5): a bestseller must not outweigh all others.

    Args:
        purchases: of the products that anybody bought (p,).
        attributes: their design (p, a); None: all are expected alike.
    """
    mean, variance = float(purchases.mean()), float(purchases.var())
    doubt = max(mean**2 / (variance - mean), 1.0) if variance > mean else CERTAIN
    columns = 0 if attributes is None else attributes.shape[1]
    if doubt >= CERTAIN:
        return Popularity(0.0, 1.0, np.zeros(columns), 0.0)
    if attributes is None or not columns or len(purchases) < 2:
        return Popularity(1.0, doubt, np.zeros(columns), 0.0)
    from sklearn.linear_model import TweedieRegressor

    model = TweedieRegressor(power=1.5, alpha=0.2, link="log", max_iter=10_000)
    model.fit(attributes, purchases / mean + 0.01)
    return Popularity(1.0, doubt, np.asarray(model.coef_, np.float64), float(model.intercept_))
