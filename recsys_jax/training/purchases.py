"""Training purchases by combinations of attributes; item factors: what products share that the same customers buy."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh

from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.splits import combinations
from recsys_jax.models.basis import Design
from recsys_jax.training.batches import Prepared


@dataclass(frozen=True)
class TrainingPurchases:
    """Training purchases, by combinations of attributes."""

    design: Design
    rows: Float64[np.ndarray, "r f"]
    """The design of each combination less that of the average purchase, times the root of its prior covariance."""
    average: Float64[np.ndarray, " f"]
    combination: Int[np.ndarray, " c"]
    pairs: Int[np.ndarray, "n 2"]
    product_design: Design
    attributes: Float64[np.ndarray, "p a"]
    """The design of each product, times the root of its prior covariance."""
    source: str

    @classmethod
    def of(cls, prepared: Prepared) -> "TrainingPurchases":
        """What the fit reads of a prepared dataset."""
        first, combination = combinations(prepared.customer_space, prepared.customers)
        design = Design.of(prepared.customer_space, prepared.customers)
        rows = {name: column[first] for name, column in prepared.customers.items()}
        features = tuple(f for f in prepared.product_space if f.feature.name != "product_id")
        bought = prepared.purchases > 0  # what is new must not shape what is learned
        of_products = Design.of(FeatureSpace(features), {f: x[bought] for f, x in prepared.products.items()})
        matrix = design.matrix(rows)
        average = matrix[combination[prepared.pairs[:, 0]]].mean(axis=0)
        return cls(
            design,
            # Centred, so that a product's own weights do not say how often it is bought: popularity does.
            (matrix - average) @ design.prior,
            average,
            combination,
            prepared.pairs,
            of_products,
            of_products.matrix(prepared.products) @ of_products.prior,
            prepared.source,
        )

    def counts(self, kept: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " p"]:
        """How often each product was bought in the purchases kept."""
        return np.bincount(self.pairs[kept, 1], minlength=len(self.attributes)).astype(np.float64)

    def item_factors(self, kept: Bool[np.ndarray, " n"], count: int) -> Float64[np.ndarray, "p r"]:
        """The products' item factors by the purchases kept; no columns where nobody bought two products."""
        return item_factors(self.pairs[kept], len(self.combination), len(self.attributes), count)


def item_factors(
    pairs: Int[np.ndarray, "n 2"], customers: int, products: int, count: int, *, pseudo_count: float = 10.0
) -> Float64[np.ndarray, "p r"]:
    r"""The leading directions of which products the same customers buy; no columns where nobody bought two products.

    Eigenvectors, times the root of their eigenvalues, of $(c_{ij} - e_{ij}) / \sqrt{(n_i + s)(n_j + s)}$ for i other
    than j: c how many customers bought both, e how many would if they chose by popularity alone, n how often each was
    bought, s the pseudo-count. The products' mean variance, weighted by n, is 1. `pairs` are the (customer, product) of
    each purchase; `count` directions are the most.
    """
    bought = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(customers, products))
    each = np.asarray(bought.sum(axis=1))
    n = np.bincount(pairs[:, 1], minlength=products).astype(np.float64)
    together = float((each * (each - 1)).sum())
    if not together or products < 3:
        return np.zeros((products, 0))
    share, scale = n / n.sum(), 1.0 / np.sqrt(n + pseudo_count)

    def multiply(x: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
        y = scale * x.reshape(-1)
        found = bought.T @ (bought @ y) - n * y
        by_chance = together * (share * (share @ y) - share**2 * y)
        return np.asarray(scale * (found - by_chance))

    count = min(count, products - 2)
    operator = LinearOperator((products, products), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(products)  # any start finds them; this one always the same way
    values, vectors = eigsh(operator, k=count, which="LA", v0=start)
    # An eigenvector's sign is arbitrary, but no score depends on it.
    found = vectors[:, values > 1e-9] * np.sqrt(values[values > 1e-9])
    variance = float((share[:, None] * (found - share @ found) ** 2).sum())
    return found / np.sqrt(variance) if variance > 0 else np.zeros((products, 0))
