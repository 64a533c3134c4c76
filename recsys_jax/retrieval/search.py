"""Exact top-k: of one customer in NumPy, as starting a compiled function takes longer than the search; of many, in JAX.

With many products, reading them is what takes the time: four bytes a number. So each number is also quantised to one
byte, with a known error per dimension. A pass over the bytes leaves the few products that can be among the best
whatever the errors, and only these are scored in full.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int8, Int32

from recsys_jax.models.settings import own_settings
from recsys_jax.models.trained import bucket
from recsys_jax.retrieval import scoring

# With fewer products, quantising saves nothing; with more dimensions, the compiled sums no longer fit into registers.
QUANTISED_FROM, QUANTISED_DIMENSIONS = 2**16, 128


class SingleSearch:
    """Vectors of products, prepared to be searched for one customer; from `quantised_from` on, bytes are read first."""

    def __init__(self, products: Float32[np.ndarray, "p d"], *, quantised_from: int = QUANTISED_FROM) -> None:
        self._products = np.ascontiguousarray(products)
        fits = len(products) >= quantised_from and products.shape[1] <= QUANTISED_DIMENSIONS
        self._quantised = self._bytes() if fits else None

    def __call__(
        self,
        customer: Float32[np.ndarray, " d"],
        k: int,
        *,
        exclude: Sequence[int] = (),
        allowed: Bool[np.ndarray, " p"] | None = None,
    ) -> tuple[Float32[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """Dot products and rows of the k products with the greatest, best first; ties go to the lower index.

        Without the rows `exclude`, and of the `allowed` products alone. Where fewer than k remain, fewer come back.
        """
        rows = self._candidates(customer, k + len(exclude), allowed) if self._quantised else None
        values = (self._products if rows is None else self._products[rows]) @ customer
        if allowed is not None:
            values[~(allowed if rows is None else allowed[rows])] = -np.inf
        if len(exclude):
            values[np.array(exclude) if rows is None else np.isin(rows, exclude)] = -np.inf
        best = _best(values, k)
        return values[best], best if rows is None else rows[best]

    @own_settings()
    def _candidates(
        self, customer: Float32[np.ndarray, " d"], k: int, allowed: Bool[np.ndarray, " p"] | None
    ) -> Int[np.ndarray, " m"] | None:
        """The rows that can be among the best k; None where that would be too many to be worth it."""
        assert self._quantised is not None
        numbers, scale, errors = self._quantised
        near = np.asarray(_dot(numbers, scale * customer))[: len(self._products)]
        if allowed is not None:
            near = np.where(allowed, near, -np.inf)
        # At least k products reach this score to within the error, and any other product can be above its own score by
        # as much. The second term bounds the rounding of the sums.
        error = float(np.abs(customer) @ errors) + 1e-5 * float(np.abs(customer) @ (127 * scale))
        rows = np.flatnonzero(near >= _reached(near, k) - 2 * error)
        return rows if len(rows) < len(near) // 16 else None

    def _bytes(self) -> tuple[Int8[Array, "d n"], Float32[np.ndarray, " d"], Float32[np.ndarray, " d"]]:
        """The products as bytes times a scale per dimension, and the greatest error of each dimension."""
        total, dimensions = self._products.shape
        scale = np.maximum(np.abs(self._products).max(axis=0), 1e-30) / np.float32(127)
        # Stored by dimension, each padded by 64 bytes: rows a power of two apart would compete for the same cache
        # lines. Rounding up to a multiple of 65,536 lets a grown catalogue run the same compiled program.
        numbers = np.zeros((dimensions, -(-total // 2**16) * 2**16 + 64), np.int8)
        errors = np.empty(dimensions, np.float32)
        for d in range(dimensions):
            column = self._products[:, d]
            numbers[d, :total] = np.rint(column / scale[d])
            errors[d] = np.abs(column - scale[d] * numbers[d, :total]).max()
        # On the CPU even where there is a GPU, which would take longer to start; not where JAX_PLATFORMS leaves it out.
        try:
            processor = jax.local_devices(backend="cpu")[0]
        except RuntimeError:
            processor = None
        return jax.device_put(numbers, processor), scale, errors


@jax.jit
def _dot(numbers: Int8[Array, "d n"], customer: Float[Array, " d"]) -> Float[Array, " n"]:
    """The dot product of each column: one elementwise expression in sums of eight, four times as fast as a matmul."""
    sums: list[Any] = [0.0] * -(-len(numbers) // 8)
    for d in range(len(numbers)):
        sums[d // 8] += numbers[d].astype(customer.dtype) * customer[d]
    return sum(sums)  # type: ignore[no-any-return]


def _reached(values: Float[np.ndarray, " p"], k: int) -> float:
    """A value that at least k of the values reach, and not many more."""
    while len(values) >= 256 * k:  # the k greatest maxima of groups are k values
        groups = len(values) // 32
        values = values[: 32 * groups].reshape(32, groups).max(axis=0)
    return float(np.partition(values, -k)[-k]) if k < len(values) else -np.inf


def _best(values: Float[np.ndarray, " p"], k: int) -> Int[np.ndarray, " m"]:
    """The places of the k greatest values above -inf, best first; ties go to the lower index."""
    places = None
    if len(values) > 512:
        places = np.flatnonzero(values >= _reached(values, k))
        values = values[places]
    best = np.argsort(-values, kind="stable")[:k]
    best = best[values[best] > -np.inf]
    return best if places is None else places[best]


@own_settings()
def search_batch(
    queries: Float32[np.ndarray, "n e"],
    vectors: Float32[Array, "p e"],
    k: int,
    *,
    excluded: Sequence[Sequence[int]],
    allowed: Bool[np.ndarray, " p"] | None,
) -> Int32[np.ndarray, "n k"]:
    """The rows of the vectors on JAX's device with the greatest dot products, by a program for n rounded up."""
    count, most = len(queries), max(map(len, excluded))
    padded = np.pad(queries, ((0, bucket(count) - count), (0, 0)))
    exclude = np.full((bucket(count), bucket(most)), -1, np.int32) if most else None
    if exclude is not None:
        for row, gone in enumerate(excluded):
            exclude[row, : len(gone)] = gone
    return np.asarray(scoring.top_k(padded, vectors, k, exclude=exclude, allowed=allowed)[1])[:count]
