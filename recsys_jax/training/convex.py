"""The best fit of the wide recipe: L-BFGS on the full softmax, with customers aggregated by identical attribute rows.

log-odds of product j for a customer with attributes x: log-popularity_j + x . (W_j + C a_j + D q_j), where a_j are its
attributes and q_j its item factors. W, C and D minimise the negative log-likelihood of all purchases plus half of each
penalty times the squares: multinomial logistic regression with shared item structure, convex, with one best fit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Float64, Int
from scipy.sparse import csr_array
from scipy.special import softmax

from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.splits import combinations
from recsys_jax.errors import InputError
from recsys_jax.models.basis import Design
from recsys_jax.models.settings import full_precision, own_settings
from recsys_jax.training.batches import Prepared
from recsys_jax.training.item_factors import item_factors
from recsys_jax.training.loop import Pace

LOGITS = 2**25
"""At most so many logits are computed at once; with more combinations of attributes, a sample stands for all."""
SEARCH_LOGITS = 2**22
"""The same while penalties are compared."""
PARAMETERS = 2**25
"""The most numbers that a fit may have: L-BFGS keeps twenty times as many, 2.7 GB."""
FIRST = 2**32
"""The most multiplications of matrices in the first steps of a fit, before it is known how long a step takes."""
STEPS, GAIN, SEARCH_GAIN = 200, 1e-7, 1e-6
"""A fit ends after so many steps of L-BFGS, or when one gains less than this, in nats per purchase."""

ROUNDING = 1e-8
"""Below this, in nats per purchase, the gradient at popularity alone is rounding and no preference."""


class Penalties(NamedTuple):
    """L2 penalties: on the product's own weights, on those for its attributes, and on those for its item factors."""

    own: float
    attribute: float
    factor: float


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


class Fit(NamedTuple):
    """By how much a product's log-odds rise with each column of the customers' design, in three parts."""

    own: Float64[np.ndarray, "f p"]
    attribute: Float64[np.ndarray, "f a"]
    factor: Float64[np.ndarray, "f r"]
    losses: Float64[np.ndarray, " s"]
    """Before each step, in nats per purchase, less the loss of popularity alone."""

    def of_products(
        self, attributes: Float64[np.ndarray, "p a"], factors: Float64[np.ndarray, "p r"]
    ) -> Float64[np.ndarray, "f p"]:
        """All three together, of products with these attributes and item factors."""
        return np.asarray(self.own + self.attribute @ attributes.T + self.factor @ factors.T)


@own_settings()
def best_fit(
    data: TrainingPurchases,
    kept: Bool[np.ndarray, " n"],
    popularity: Float64[np.ndarray, " p"],
    factors: Float64[np.ndarray, "p r"],
    penalties: Penalties,
    *,
    seed: int,
    search: bool = False,
    known: Bool[np.ndarray, " p"] | None = None,
    heed: Callable[[], None] = lambda: None,
) -> Fit:
    """The best fit to the purchases kept, among the products that are `known` (all by default).

    With very many combinations a sample of customers stands for all of them. The sums over each product's buyers still
    cover all customers; only the expected sums are estimated on the sample, and the estimate is corrected: it is exact
    at popularity alone and, in a second fit, at the solution of the first. While penalties are compared (`search`), the
    sample is smaller and the first fit is enough. `heed` is called every few seconds, and may raise. Raises
    `InputError` where there is too much to learn.
    """
    pairs, rows, columns = data.pairs[kept], data.rows, data.rows.shape[1]
    chosen = np.ones(len(popularity), bool) if known is None else known
    popularity, attributes, factors = popularity[chosen], data.attributes[chosen], factors[chosen]
    total, products = len(pairs), len(popularity)
    if columns * products > PARAMETERS:
        raise InputError(
            f"{data.source}: the wide recipe would learn {columns * products:,} numbers: {columns:,} attribute "
            f"values times {products:,} products; allowed: {PARAMETERS:,}; leave out an attribute with very many "
            f"values, or take the deep recipe"
        )
    of_row = data.combination[pairs[:, 0]]
    weights = np.bincount(of_row, minlength=len(rows)) / total
    bought = csr_array((np.full(total, 1 / total), (of_row, pairs[:, 1])), shape=(len(rows), len(chosen)))
    sums = (bought.T @ rows).T[:, chosen]
    few, few_weights = rows, weights
    most = SEARCH_LOGITS if search else LOGITS
    sampled = len(rows) * products > most and len(rows) > 16 * columns
    if sampled:
        # Fewer rows than a multiple of the columns would leave some combination of them unseen, and free.
        size = max(most // products, 16 * columns)
        drawn = np.random.default_rng(seed).multinomial(size, weights)
        few, few_weights = rows[drawn > 0], np.asarray(drawn[drawn > 0] / size, np.float64)
    fits = 2 if sampled and not search else 1
    own, attribute, factor = (np.zeros((columns, size)) for size in (products, attributes.shape[1], factors.shape[1]))
    fit, changes = Fit(own, attribute, factor, np.zeros(1)), own
    if np.abs(sums - _expected(rows, weights, popularity, changes)).max(initial=0.0) < ROUNDING:
        fits = 0  # popularity alone is the best fit, and L-BFGS would only follow the rounding of its gradient
    scales = np.array([penalty**-0.5 for penalty in penalties])
    for _ in range(fits):
        error = 0.0
        if sampled:
            error = _expected(few, few_weights, popularity, changes) - _expected(rows, weights, popularity, changes)
        arrays = (
            _padded(few, 64, 4),
            _padded(few_weights, 64),
            _padded(sums + error, 4, 64),
            _padded(popularity, 64, value=-np.inf),
            _padded(attributes, 64, 8),
            _padded(factors, 64, 8),
            scales,
            np.float64(total),
            np.float64(SEARCH_GAIN if search else GAIN),
        )
        found, losses = _solved([np.asarray(array, np.float32) for array in arrays], heed)
        own, attribute, factor = (
            scale * np.asarray(part, np.float64)[:columns, :size]
            for scale, part, size in zip(scales, found, (products, attributes.shape[1], factors.shape[1]), strict=True)
        )
        fit = Fit(own, attribute, factor, losses.astype(np.float64))
        changes = fit.of_products(attributes, factors)
    of_all = np.zeros((columns, len(chosen)))
    of_all[:, chosen] = fit.own
    return fit._replace(own=of_all)


def _padded(array: Float64[np.ndarray, "..."], *multiples: int, value: float = 0.0) -> Float64[np.ndarray, "..."]:
    """The array with each axis lengthened to a multiple, so that one program is compiled for near sizes.

    A row without weight, a column of zeros, and a product whose log-popularity is -inf change nothing.
    """
    widths = [(0, -size % multiple) for size, multiple in zip(array.shape, multiples, strict=True)]
    return np.pad(array, widths, constant_values=value)


def _expected(
    rows: Float64[np.ndarray, "r f"],
    weights: Float64[np.ndarray, " r"],
    popularity: Float64[np.ndarray, " p"],
    changes: Float64[np.ndarray, "f p"],
) -> Float64[np.ndarray, "f p"]:
    """The expected sums of each product's buyers: over rows, of weight x row x share of the product."""
    if not changes.any():
        return np.asarray(np.outer(weights @ rows, softmax(popularity)))
    step = max(64, LOGITS // len(popularity))
    out = np.zeros_like(changes)
    for start in range(0, len(rows), step):
        block, counted = rows[start : start + step], weights[start : start + step]
        padding = (0, step - len(block)) if len(rows) > step else (0, 0)
        arrays = np.pad(block, (padding, (0, 0))), np.pad(counted, padding), popularity, changes
        out += np.asarray(_expected_of_block(*(np.asarray(array, np.float32) for array in arrays)))
    return out


@jax.jit
@full_precision
def _expected_of_block(
    rows: Float[Array, "m f"], weights: Float[Array, " m"], popularity: Float[Array, " p"], changes: Float[Array, "f p"]
) -> Float[Array, "f p"]:
    return (weights[:, None] * rows).T @ jax.nn.softmax(popularity + rows @ changes, axis=1)


def _solved(
    arrays: Sequence[Float32[np.ndarray, "..."]], heed: Callable[[], None]
) -> tuple[list[Array], Float32[np.ndarray, " s"]]:
    """The solution and the losses before each step: a step after the other, a few seconds of them per call."""
    rows, _, _, popularity, *_ = arrays
    pace = Pace(FIRST // max(rows.size * len(popularity), 1))
    carry: Any = None
    done, going_on = 0, True
    while going_on:
        began, before = perf_counter(), done
        carry, now, on = _solve(carry, np.int32(min(done + pace.rounds, STEPS)), *arrays)
        done, going_on = int(now), bool(on)
        pace.took(done - before, perf_counter() - began)
        heed()
    return carry[0], np.asarray(carry[2])[:done]


@partial(jax.jit, donate_argnums=0)
@full_precision
def _solve(
    carry: tuple[Any, ...] | None,
    until: Int[Array, ""],
    rows: Float[Array, "m f"],
    weights: Float[Array, " m"],
    bought: Float[Array, "f p"],
    popularity: Float[Array, " p"],
    attributes: Float[Array, "p a"],
    factors: Float[Array, "p r"],
    scales: Float[Array, " 3"],
    total: Float[Array, ""],
    gain: Float[Array, ""],
) -> tuple[tuple[Any, ...], Array, Array]:
    r"""L-BFGS on $\sum_i w_i \log\sum_j e^{b_j + x_i W_j} - \langle B, W \rangle + |\theta|^2 / 2n$, W linear in theta.

    B holds the mean of x over the purchases of each product: beyond that, who bought what is not needed. The parameters
    are in units of their prior deviation, the `scales`, so an infinite penalty keeps them at zero.

    From the start, or from what an earlier call left, `until` so many steps are done: gives what is left to a later
    one, how many are done, and whether there are more to do.
    """
    alone = jax.nn.logsumexp(popularity)

    def loss(parts: list[Array]) -> Array:
        own, attribute, factor = (scale * part for scale, part in zip(scales, parts, strict=True))
        changes = own + attribute @ attributes.T + factor @ factors.T
        expected = jax.nn.logsumexp(popularity + rows @ changes, axis=1) - alone
        penalty = optax.tree.norm(parts, squared=True) / (2.0 * total)
        return jnp.asarray(jnp.sum(weights * expected) - jnp.sum(bought * changes) + penalty)

    columns = rows.shape[1]
    optimiser = optax.lbfgs()
    step = optax.value_and_grad_from_state(loss)

    def more(carry: tuple[Any, ...]) -> Array:
        *_, losses, done = carry
        last, before = losses[done - 1], losses[done - 2]
        return jnp.asarray((done < 2) | ((done < STEPS) & (before - last > gain)))

    def go(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        parts, state, losses, done = carry
        value, gradient = step(parts, state=state)
        updates, state = optimiser.update(gradient, state, parts, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(parts, updates), state, losses.at[done].set(value), done + 1

    if carry is None:
        start = [jnp.zeros((columns, size)) for size in (len(popularity), attributes.shape[1], factors.shape[1])]
        carry = start, optimiser.init(start), jnp.zeros(STEPS), jnp.int32(0)
    carry = jax.lax.while_loop(lambda carry: more(carry) & (carry[-1] < until), go, carry)
    return carry, carry[-1], more(carry)
