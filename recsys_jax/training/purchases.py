"""Who bought what, on the device: membership and negatives by binary search, in memory of the number of purchases."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

__all__ = ["Purchases"]


@partial(jax.tree_util.register_dataclass, data_fields=("starts", "ends", "items"), meta_fields=("depth",))
@dataclass(frozen=True)
class Purchases:
    """Each customer's products, ascending, one customer after another (compressed rows)."""

    starts: Int[Array, " c"]
    """Where each customer's products begin in `items`."""
    ends: Int[Array, " c"]
    items: Int[Array, " n"]
    depth: int = field(metadata={"static": True})
    """Halvings that a search among one customer's products takes; known when compiling."""

    @classmethod
    def of(cls, pairs: Int[np.ndarray, "n 2"], customers: int, length: int | None = None) -> "Purchases":
        """From (customer row, product row) pairs, each once; `length` is that of `items`, with padding at the end."""
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        counts = np.bincount(pairs[:, 0], minlength=customers)
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        items = np.zeros(len(pairs) if length is None else length, np.int32)
        items[: len(pairs)] = pairs[order, 1]
        return cls(
            jnp.asarray(bounds[:-1]), jnp.asarray(bounds[1:]), jnp.asarray(items), depth=int(counts.max()).bit_length()
        )

    def contains(self, customers: Int[Array, "*n"], products: Int[Array, "*n"]) -> Bool[Array, "*n"]:
        """Whether each customer bought each product."""
        end = self.ends[customers]
        place = self._first(customers, lambda i: self.items[i] >= products)
        return (place < end) & (self.items[jnp.minimum(place, len(self.items) - 1)] == products)

    def any_left(self, customers: Int[Array, " n"], products: int) -> Bool[Array, " n"]:
        """Whether there is one of the `products` that each customer did not buy."""
        return self.ends[customers] - self.starts[customers] < products

    def sample_negatives(self, key: Array, customers: Int[Array, " n"], products: int) -> Int[Array, " n"]:
        """For each customer one of the `products` that it did not buy, all equally likely.

        A customer who bought every product gets an arbitrary one; `any_left` tells.
        """
        start = self.starts[customers]
        free = jnp.maximum(products - (self.ends[customers] - start), 1)
        rank = jax.random.randint(key, customers.shape, 0, free)
        # items[i] - i is the number of products before the i-th one bought that were not bought; it never falls along
        # the row. So the product not bought with that rank comes after all bought ones where it is at most `rank`.
        bought = self._first(customers, lambda i: self.items[i] - (i - start) > rank) - start
        return jnp.minimum(rank + bought, products - 1)

    def _first(self, customers: Array, holds: Callable[[Array], Array]) -> Array:
        """The first place among each customer's where a condition that stays true holds, or the end."""
        low, high = self.starts[customers], self.ends[customers]
        for _ in range(self.depth):
            middle = (low + high) // 2
            left = holds(jnp.minimum(middle, len(self.items) - 1)) | (low >= high)
            low, high = jnp.where(left, low, middle + 1), jnp.where(left, jnp.minimum(middle, high), high)
        return low
