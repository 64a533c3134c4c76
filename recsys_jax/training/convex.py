"""The best fit of the wide recipe: L-BFGS on the full softmax, with customers aggregated by identical attribute rows.

log-odds of product j for a customer with attributes x: log-popularity_j + x . (W_j + C a_j + D q_j), where a_j are its
attributes and q_j its item factors. W, C and D minimise the negative log-likelihood of all purchases plus half of each
penalty times the squares: multinomial logistic regression with shared item structure, convex, with one best fit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

from recsys_jax.errors import InputError
from recsys_jax.models.settings import full_precision, own_settings
from recsys_jax.training.loop import Pace
from recsys_jax.training.purchases import TrainingPurchases

LOGITS = 2**25
"""At most so many logits are computed at once; with more combinations of attributes, a sample stands for all."""
SAMPLE, ROWS = 2**23, 32
"""Such a sample has so many logits, or so many rows for each column where that is more."""
SEARCH_SAMPLE, SEARCH_ROWS = 2**22, 16
"""The same while penalties are compared, where there are more logits than these."""
CORRECTED = 2**31
"""At most so many logits correct what a sample got wrong."""
PARAMETERS = 2**25
"""The most numbers that a fit may have: L-BFGS keeps twenty times as many, 2.7 GB."""
FIRST = 2**32
"""The most multiplications of matrices in the first steps of a fit, before it is known how long a step takes."""
STEPS, GAIN = 200, 1e-9
"""A fit ends after so many steps of L-BFGS, or when less than this is left to gain, in nats per purchase."""
ROUGH = 5e-6
"""The same while penalties are compared, or on a sample: with ten times as much, others are chosen, and worse ones."""
CORRECTIONS = 2
"""How often it is corrected."""
UNSEEN = 0.05
"""Added to a sample's variance next to that of all customers, so that what it hardly saw is not blown up."""

ROUNDING = 1e-8
"""Below this, in nats per purchase, the gradient at popularity alone is rounding and no preference."""


class Penalties(NamedTuple):
    """L2 penalties: on the product's own weights, on those for its attributes, and on those for its item factors."""

    own: float
    attribute: float
    factor: float


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


def best_fit(
    data: TrainingPurchases,
    kept: Bool[np.ndarray, " n"],
    popularity: Float64[np.ndarray, " p"],
    factors: Float64[np.ndarray, "p r"],
    penalties: Penalties,
    *,
    seed: int,
    known: Bool[np.ndarray, " p"] | None = None,
    heed: Callable[[], None] = lambda: None,
) -> Fit:
    """The best fit to the purchases kept, among the products that are `known` (all by default).

    Where a sample of customers stands for all, what it expects of the solution is compared with what all customers do,
    and a second fit makes up for the difference. `heed` is called every few seconds, and may raise. Raises `InputError`
    where there is too much to learn.
    """
    objective = Objective.of(data, kept, popularity, factors, seed=seed, known=known)
    if not objective.sampled:
        return objective.fit(penalties, heed=heed)
    fit = objective.fit(penalties, gain=ROUGH, heed=heed)
    for _ in range(CORRECTIONS):
        corrected = objective.corrected(data, fit)
        fit = corrected.fit(penalties, start=fit, gain=ROUGH, heed=heed)
    return fit


@dataclass(frozen=True, eq=False)
class Objective:
    """What a fit minimises but for its penalties: computed once for all of them.

    Customers are described by as few columns as they differ in, their principal axes, along which the curvature of the
    likelihood at popularity alone is diagonal.
    """

    axes: Float64[np.ndarray, "f k"]
    variance: Float64[np.ndarray, " k"]
    """Of the purchases' customers along each axis."""
    rows: Float64[np.ndarray, "m k"]
    weights: Float64[np.ndarray, " m"]
    bought: Float64[np.ndarray, "k p"]
    """The sums of the rows of each product's buyers, by the number of all purchases."""
    popularity: Float64[np.ndarray, " p"]
    attributes: Float64[np.ndarray, "p a"]
    factors: Float64[np.ndarray, "p r"]
    known: Bool[np.ndarray, " _"]
    shares: Float64[np.ndarray, " _"]
    """Of the purchases, those of each combination of attributes."""
    total: int
    sampled: bool
    seed: int
    error: Float64[np.ndarray, "k p"] | float = 0.0
    """By how much the sample's expected sums differ from those of all, at a fit."""

    @classmethod
    def of(
        cls,
        data: TrainingPurchases,
        kept: Bool[np.ndarray, " n"],
        popularity: Float64[np.ndarray, " p"],
        factors: Float64[np.ndarray, "p r"],
        *,
        seed: int,
        known: Bool[np.ndarray, " p"] | None = None,
        search: bool = False,
    ) -> "Objective":
        """That of the purchases kept and of the products that are `known`.

        With very many combinations a sample of customers stands for all of them. The sums over each product's buyers
        still cover all customers; only the expected sums are estimated on the sample, whose mean and covariance are
        made those of all: so they are exact at popularity alone, and so is their first derivative.
        """
        known = np.ones(len(popularity), bool) if known is None else known
        products, columns = int(known.sum()), data.rows.shape[1]
        if columns * products > PARAMETERS:
            raise InputError(
                f"{data.source}: the wide recipe would learn {columns * products:,} numbers: {columns:,} attribute "
                f"values times {products:,} products; allowed: {PARAMETERS:,}; leave out an attribute with very many "
                f"values, or take the deep recipe"
            )
        pairs = data.pairs[kept]
        total, of_row = len(pairs), data.combination[pairs[:, 0]]
        shares = np.bincount(of_row, minlength=len(data.rows)) / total
        variance, axes = np.linalg.eigh(data.rows.T @ (shares[:, None] * data.rows))
        differ = variance > 1e-10 * variance[-1:]
        differ[-1:] = True
        variance, axes = np.maximum(variance[differ], 1e-30), axes[:, differ]
        sums = (
            csr_array((np.full(total, 1 / total), (pairs[:, 1], of_row)), shape=(len(known), len(shares))) @ data.rows
        )
        rows, weights = data.rows @ axes, shares
        most, size, each = (SEARCH_SAMPLE, SEARCH_SAMPLE, SEARCH_ROWS) if search else (LOGITS, SAMPLE, ROWS)
        # Fewer rows than a multiple of the columns would leave some combination of them unseen, and free.
        size = max(size // products, each * (len(variance) + -len(variance) % 8))
        sampled = len(rows) * products > most and len(rows) > size
        if sampled:
            rows, weights = _sample(rows, weights, variance, size, seed)
        return cls(
            axes,
            variance,
            rows,
            weights,
            (sums[known] @ axes).T,
            popularity[known],
            data.attributes[known],
            factors[known],
            known,
            shares,
            total,
            sampled,
            seed,
        )

    @own_settings()
    def fit(
        self,
        penalties: Penalties,
        *,
        start: Fit | None = None,
        gain: float = GAIN,
        heed: Callable[[], None] = lambda: None,
    ) -> Fit:
        """The best fit with these penalties but for a `gain`; a `start` that is near saves steps."""
        share = softmax(self.popularity)
        deviations = [penalty**-0.5 for penalty in penalties]
        # In units in which all that is learned has a curvature of 1, as far as popularity alone can tell: L-BFGS takes
        # a third of the steps then.
        spreads = share, share @ self.attributes**2, share @ self.factors**2
        units = [
            (1.0 / self.total + deviation**2 * np.outer(self.variance, spread)) ** -0.5
            for deviation, spread in zip(deviations, spreads, strict=True)
        ]
        parts = [np.zeros_like(unit) for unit in units]
        if start is not None:
            old = start.own[:, self.known], start.attribute, start.factor
            parts = [
                self.axes.T @ weights / (deviation * unit) if deviation else part
                for weights, deviation, unit, part in zip(old, deviations, units, parts, strict=True)
            ]
        losses = np.zeros(1)
        if np.abs(self.bought - np.outer(self.weights @ self.rows, share)).max(initial=0.0) >= ROUNDING:
            # Else popularity alone is the best fit, and L-BFGS would only follow the rounding of its gradient.
            given = (
                _padded(self.rows, 64, 8),
                _padded(self.weights, 64),
                _padded(self.bought + self.error, 8, 64),
                _padded(self.popularity, 64, value=-np.inf),
                _padded(self.attributes, 64, 8),
                _padded(self.factors, 64, 8),
                np.array(deviations),
                np.float64(self.total),
                np.float64(gain),
            )
            padded = [
                _padded(array, 8, width)
                for arrays in (units, parts)
                for array, width in zip(arrays, (64, 8, 8), strict=True)
            ]
            floats = [np.asarray(array, np.float32) for array in (*padded, *given)]
            found, losses = _solved(floats[3:6], floats[:3], floats[6:], heed)
            parts = [np.asarray(one)[: len(part), : part.shape[1]] for one, part in zip(found, parts, strict=True)]
        own, attribute, factor = (
            self.axes @ (deviation * unit * part)
            for deviation, unit, part in zip(deviations, units, parts, strict=True)
        )
        of_all = np.zeros((len(own), len(self.known)))
        of_all[:, self.known] = own
        return Fit(of_all, attribute, factor, losses.astype(np.float64))

    @own_settings()
    def corrected(self, data: TrainingPurchases, fit: Fit) -> "Objective":
        """The objective whose gradient at a fit is that of all customers, not of the sample."""
        own = fit.own[:, self.known]
        changes = self.axes.T @ fit._replace(own=own).of_products(self.attributes, self.factors)
        rows, weights = data.rows @ self.axes, self.shares
        size = CORRECTED // len(self.popularity)
        if len(rows) > size:
            rows, weights = _sample(rows, weights, self.variance, size, self.seed)
        expected = (
            _expected(one, each, self.popularity, changes) for one, each in ((rows, weights), (self.rows, self.weights))
        )
        of_all, of_sample = expected
        return replace(self, error=of_sample - of_all)


def _sample(
    rows: Float64[np.ndarray, "r k"],
    weights: Float64[np.ndarray, " r"],
    variance: Float64[np.ndarray, " k"],
    size: int,
    seed: int,
) -> tuple[Float64[np.ndarray, "m k"], Float64[np.ndarray, " m"]]:
    """Rows drawn by their weights, with the mean and, as far as they vary at all, the covariance of all."""
    drawn = rows[np.random.default_rng(seed).choice(len(rows), size, p=weights)]
    unit = (drawn - drawn.mean(axis=0)) / np.sqrt(variance)
    found, vectors = np.linalg.eigh(unit.T @ unit / size)
    root = vectors * np.sqrt((1.0 + UNSEEN) / (np.maximum(found, 0.0) + UNSEEN)) @ vectors.T
    return unit @ root * np.sqrt(variance) + weights @ rows, np.full(size, 1.0 / size)


def _padded(array: Float64[np.ndarray, "..."], *multiples: int, value: float = 0.0) -> Float64[np.ndarray, "..."]:
    """The array with each axis lengthened to a multiple, so that one program is compiled for near sizes.

    A row without weight, a column of zeros, and a product whose log-popularity is -inf change nothing.
    """
    widths = [(0, -size % multiple) for size, multiple in zip(array.shape, multiples, strict=True)]
    return np.pad(array, widths, constant_values=value)


def _expected(
    rows: Float64[np.ndarray, "r k"],
    weights: Float64[np.ndarray, " r"],
    popularity: Float64[np.ndarray, " p"],
    changes: Float64[np.ndarray, "k p"],
) -> Float64[np.ndarray, "k p"]:
    """The expected sums of each product's buyers: over rows, of weight x row x share of the product."""
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
    rows: Float[Array, "m k"], weights: Float[Array, " m"], popularity: Float[Array, " p"], changes: Float[Array, "k p"]
) -> Float[Array, "k p"]:
    return (weights[:, None] * rows).T @ jax.nn.softmax(popularity + rows @ changes, axis=1)


def _solved(
    parts: Sequence[Float32[np.ndarray, "k _"]],
    units: Sequence[Float32[np.ndarray, "k _"]],
    arrays: Sequence[Float32[np.ndarray, "..."]],
    heed: Callable[[], None],
) -> tuple[list[Array], Float32[np.ndarray, " s"]]:
    """The solution and the losses before each step: a step after the other, a few seconds of them per call."""
    rows, _, _, popularity, *_ = arrays
    pace = Pace(FIRST // max(rows.size * len(popularity), 1))
    carry: tuple[Any, ...] = (
        list(parts),
        _begin(list(parts)),
        np.zeros(STEPS, np.float32),
        np.float32(np.inf),
        np.int32(0),
    )
    done, going_on = 0, True
    while going_on:
        began, before = perf_counter(), done
        carry, now, on = _solve(carry, np.int32(min(done + pace.rounds, STEPS)), units, *arrays)
        done, going_on = int(now), bool(on)
        pace.took(done - before, perf_counter() - began)
        heed()
    return carry[0], np.asarray(carry[2])[:done]


_LBFGS = optax.lbfgs()
_begin = jax.jit(_LBFGS.init)


@partial(jax.jit, donate_argnums=0)
@full_precision
def _solve(
    carry: tuple[Any, ...],
    until: Int[Array, ""],
    units: Sequence[Float[Array, "k _"]],
    rows: Float[Array, "m k"],
    weights: Float[Array, " m"],
    bought: Float[Array, "k p"],
    popularity: Float[Array, " p"],
    attributes: Float[Array, "p a"],
    factors: Float[Array, "p r"],
    deviations: Float[Array, " 3"],
    total: Float[Array, ""],
    gain: Float[Array, ""],
) -> tuple[tuple[Any, ...], Array, Array]:
    r"""L-BFGS on $\sum_i w_i \log\sum_j e^{b_j + x_i W_j} - \langle B, W \rangle + |\theta|^2 / 2n$.

    B holds the sums of x over each product's purchases, by their number n: beyond that, who bought what is not needed.
    Theta are the weights, in which W is linear, by their prior deviations, so that an infinite penalty keeps them at
    zero; what is found is theta by its `units`.

    From the start, or from what an earlier call left, `until` so many steps are done: gives what is left to a later
    one, how many are done, and whether there are more to do.
    """
    alone = jax.nn.logsumexp(popularity)

    def loss(parts: list[Array]) -> Array:
        theta = [unit * part for unit, part in zip(units, parts, strict=True)]
        own, attribute, factor = (deviation * part for deviation, part in zip(deviations, theta, strict=True))
        changes = own + attribute @ attributes.T + factor @ factors.T
        expected = jax.nn.logsumexp(popularity + rows @ changes, axis=1) - alone
        penalty = optax.tree.norm(theta, squared=True) / (2.0 * total)
        return jnp.asarray(jnp.sum(weights * expected) - jnp.sum(bought * changes) + penalty)

    step = optax.value_and_grad_from_state(loss)

    def more(carry: tuple[Any, ...]) -> Array:
        *_, left, done = carry
        return jnp.asarray((done < STEPS) & (left > gain))

    def go(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        parts, state, losses, _, done = carry
        value, gradient = step(parts, state=state)
        left = optax.tree.norm(gradient, squared=True) / 2.0  # as the curvature is about 1
        updates, state = _LBFGS.update(gradient, state, parts, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(parts, updates), state, losses.at[done].set(value), left, done + 1

    carry = jax.lax.while_loop(lambda carry: more(carry) & (carry[-1] < until), go, carry)
    return carry, carry[-1], more(carry)
