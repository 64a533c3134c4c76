"""Item factors: what products have in common that the same customers buy."""

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh


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
