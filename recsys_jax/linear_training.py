"""The recipe for recommending: linear towers, fitted to the full softmax at once, with penalties chosen on folds.

log-odds of product j for a customer with attributes x: log-popularity_j + x . (W_j + C a_j + D q_j), where a_j are its
attributes and q_j its tastes. Customers who state the same are one row, however many they are. W, C and D minimise the
negative log-likelihood of all purchases plus half of each penalty times the squares: one best fit, without epochs,
batches or luck.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float64, Int
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax

from recsys_jax import metrics
from recsys_jax.config import LinearConfig
from recsys_jax.data import Dataset, customer_folds
from recsys_jax.design import Design, ExpectedPopularity, expected_popularity, tastes
from recsys_jax.errors import InputError
from recsys_jax.features import FeatureSpace, combinations
from recsys_jax.linear import KNOTS, of_variables
from recsys_jax.models import encode_products
from recsys_jax.preparation import Prepared, prepare
from recsys_jax.scorers import ranks_in_rows
from recsys_jax.trained import TrainedModel

__all__ = ["fit_linear"]

LOGITS = 2**25
"""At most so many logits are computed at once; with more combinations of attributes, a sample stands for all."""
SEARCH_LOGITS, SCORES, QUERIES = 2**22, 2**24, 20_000
"""The same while penalties are compared; and the most scores and purchases in a fold that they are compared by."""
PARAMETERS = 2**25
"""The most numbers that a fit may have: L-BFGS keeps twenty times as many, 2.7 GB."""
STEPS, GAIN, SEARCH_GAIN = 200, 1e-7, 1e-6
"""A fit ends after so many steps of L-BFGS, or when one gains less than this, in nats per purchase."""


class Penalties(NamedTuple):
    """On what a product has of its own, on its attributes and on its tastes."""

    own: float
    attribute: float
    taste: float


TRIED = tuple(Penalties(100.0, *shared) for shared in product((inf, 100.0, 300.0, 1000.0), (inf, 400.0, 1200.0)))
"""The penalties that are compared on inner folds."""
OWN, LEAST = (10.0, 30.0, 300.0), 0.005
"""Those on what a product has of its own that are compared then, and what one must gain, in nats per purchase."""
UNTRIED = Penalties(100.0, 300.0, 1200.0)
"""The penalties where there are too few customers for inner folds."""


@dataclass(frozen=True)
class _Purchases:
    """Training purchases, by combinations of attributes."""

    design: Design
    rows: Float64[np.ndarray, "r f"]
    """The design of each combination, times the root of its prior covariance."""
    combination: Int[np.ndarray, " c"]
    """The combination of each customer."""
    pairs: Int[np.ndarray, "n 2"]
    """(customer, product) of each purchase."""
    product_design: Design
    attributes: Float64[np.ndarray, "p a"]
    """The design of each product, times the root of its prior covariance."""
    source: str
    """Where the customers come from."""

    @classmethod
    def of(cls, prepared: Prepared, source: str) -> "_Purchases":
        first, combination = combinations(prepared.customer_space, prepared.customers)
        design = Design.of(prepared.customer_space, prepared.customers)
        rows = {name: column[first] for name, column in prepared.customers.items()}
        features = tuple(f for f in prepared.product_space if f.feature.name != "product_id")
        of_products = Design.of(FeatureSpace(features), prepared.products)
        return cls(
            design,
            design.matrix(rows) @ design.prior,
            combination,
            prepared.pairs,
            of_products,
            of_products.matrix(prepared.products) @ of_products.prior,
            source,
        )

    def counts(self, kept: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " p"]:
        """How often each product was bought in the purchases kept."""
        return np.bincount(self.pairs[kept, 1], minlength=len(self.attributes)).astype(np.float64)

    def tastes(self, kept: Bool[np.ndarray, " n"], count: int) -> Float64[np.ndarray, "p r"]:
        """The products' tastes by the purchases kept; no columns where nobody bought two products."""
        found = tastes(self.pairs[kept], len(self.combination), len(self.attributes), count)
        return np.zeros((len(self.attributes), 0)) if found is None else found


class _Fit(NamedTuple):
    """By how much a product's log-odds rise with each column of the customers' design, in three parts."""

    own: Float64[np.ndarray, "f p"]
    attribute: Float64[np.ndarray, "f a"]
    taste: Float64[np.ndarray, "f r"]
    losses: Float64[np.ndarray, " s"]
    """Before each step, in nats per purchase; of popularity alone it is 0."""

    def of_products(
        self, attributes: Float64[np.ndarray, "p a"], described: Float64[np.ndarray, "p r"]
    ) -> Float64[np.ndarray, "f p"]:
        return np.asarray(self.own + self.attribute @ attributes.T + self.taste @ described.T)


def fit_linear(
    dataset: Dataset,
    config: LinearConfig,
    *,
    train: Bool[np.ndarray, " n"] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> TrainedModel:
    """Fits the towers to the purchases of a dataset for which `train` is true (all by default).

    Everything learned comes from those purchases' customers and from the product catalogue alone. A product that
    nobody bought counts as new: it is known by its attributes. `progress` is called with the fits done, of how many,
    and the penalties found best so far. Raises `InputError` where there is nothing to learn from.
    """
    prepared = prepare(dataset, config, train)
    data = _Purchases.of(prepared, dataset.customers.source)
    penalties = _choose(data, config, progress)
    everything = np.ones(len(data.pairs), bool)
    counts = data.counts(everything)
    known = counts > 0
    described = data.tastes(everything, config.tastes)
    expected = expected_popularity(data.attributes[known], counts[known])
    popularity = np.log((counts + np.exp(expected.of(data.attributes))) / counts.mean())
    fit = _fit(data, everything, popularity, described, penalties, known=known, seed=config.seed)
    return _model(prepared, config, data, described, penalties, fit, popularity, expected)


def _choose(data: _Purchases, config: LinearConfig, progress: Callable[[int, int, str], None] | None) -> Penalties:
    """The penalties that do best by held-out customers: the shared ones by MRR and NDCG@10 in equal parts."""
    asked = Penalties(config.own_penalty, config.attribute_penalty, config.taste_penalty)  # type: ignore[arg-type]

    def fixed(tried: Penalties) -> Penalties:
        """What is asked for, and of the rest what is tried."""
        return Penalties(*(own if own is not None else other for own, other in zip(asked, tried, strict=True)))

    shared = list(dict.fromkeys(map(fixed, TRIED)))
    others = OWN if config.own_penalty is None else ()
    customers = len(data.combination)
    if len(shared) + len(others) == 1 or customers < config.inner_folds:
        return fixed(UNTRIED)
    fold = customer_folds(customers, config.inner_folds, config.seed)[data.pairs[:, 0]]
    folds = [_Fold.of(data, fold != number, config) for number in range(config.inner_folds)]
    if not any(one.described.shape[1] for one in folds):
        shared = list(dict.fromkeys(tried._replace(taste=inf) for tried in shared))
    total = len(folds) * (len(shared) + len(others))
    found: dict[Penalties, Float64[np.ndarray, " 3"]] = {}

    def best() -> Penalties:
        greatest = np.max(list(found.values()), axis=0)[:2]
        return max(found, key=lambda tried: float((found[tried][:2] / greatest).sum()))

    def measure(tried: Penalties) -> None:
        found[tried] = np.zeros(3)
        for number, one in enumerate(folds):
            found[tried] += one.measure(data, tried, config.seed)
            if progress is not None:
                word = "penalties {:g}, {:g}, {:g}".format(*tried)
                progress(len(folds) * (len(found) - 1) + number + 1, total, word)

    for tried in shared:
        measure(tried)
    chosen = best()
    # What a product has of its own concerns all products, not those at the top: here the likelihood tells, and where it
    # hardly changes, the top is better left alone.
    alternatives = [chosen._replace(own=own) for own in others]
    for tried in alternatives:
        measure(tried)
    queries = sum(int(one.times.sum()) for one in folds)
    gains = {tried: found[tried][2] - found[chosen][2] for tried in alternatives}
    gains = {tried: gain for tried, gain in gains.items() if gain > LEAST * queries}
    return max(gains, key=lambda tried: gains[tried], default=chosen)


@dataclass(frozen=True, eq=False)
class _Fold:
    """An inner fold: what is learned from and what is asked."""

    kept: Bool[np.ndarray, " n"]
    popularity: Float64[np.ndarray, " p"]
    described: Float64[np.ndarray, "p r"]
    queries: Int[np.ndarray, "q 2"]
    """(combination, product), each once."""
    times: Int[np.ndarray, " q"]

    @classmethod
    def of(cls, data: _Purchases, kept: Bool[np.ndarray, " n"], config: LinearConfig) -> "_Fold":
        asked = data.pairs[~kept]
        asked = np.random.default_rng(config.seed).permutation(asked)[:QUERIES]
        queries = np.stack([data.combination[asked[:, 0]], asked[:, 1]], axis=1)
        # Of the combinations, those that come first.
        different, first = np.unique(queries[:, 0], return_index=True)
        most = max(SCORES // len(data.attributes), 1)
        queries = queries[np.isin(queries[:, 0], different[np.argsort(first)[:most]])]
        each, times = np.unique(queries, axis=0, return_counts=True)
        return cls(kept, np.log(data.counts(kept) + 1.0), data.tastes(kept, config.tastes), each, times)

    def measure(self, data: _Purchases, penalties: Penalties, seed: int) -> Float64[np.ndarray, " 3"]:
        """The sums over the purchases asked for of reciprocal ranks, of NDCG@10 and of log-likelihoods."""
        fit = _fit(data, self.kept, self.popularity, self.described, penalties, search=True, seed=seed)
        changes = fit.of_products(data.attributes, self.described)
        rows, row = np.unique(self.queries[:, 0], return_inverse=True)
        step = max(1, 2**22 // len(self.popularity))  # a block of scores of at most 32 MB
        sums = np.zeros(3)
        for start in range(0, len(rows), step):
            here = (row >= start) & (row < start + step)
            scores = self.popularity + data.rows[rows[start : start + step]] @ changes
            ranked = ranks_in_rows(scores, row[here] - start, self.queries[here, 1])
            likelihood = log_softmax(scores, axis=1)[row[here] - start, self.queries[here, 1]]
            each = metrics.reciprocal_rank(ranked), metrics.ndcg_at_k(ranked, k=10), likelihood
            sums += [float(values @ self.times[here]) for values in each]
        return sums


def _fit(
    data: _Purchases,
    kept: Bool[np.ndarray, " n"],
    popularity: Float64[np.ndarray, " p"],
    described: Float64[np.ndarray, "p r"],
    penalties: Penalties,
    *,
    seed: int,
    search: bool = False,
    known: Bool[np.ndarray, " p"] | None = None,
) -> _Fit:
    """The best fit to the purchases kept, among the products that are `known` (all by default).

    With very many combinations a sample of customers stands for all of them. What a product's buyers state is still
    counted of everybody; of the sample comes what would be expected, and its error where it matters is taken out: it is
    exact for popularity alone and, in a second fit, for the first one. While penalties are compared (`search`), the
    sample is smaller and the first fit is enough.
    """
    pairs = data.pairs[kept]
    total = len(pairs)
    chosen = np.ones(len(popularity), bool) if known is None else known
    popularity, products = popularity[chosen], int(chosen.sum())
    rows, columns = data.rows, data.rows.shape[1]
    if columns * products > PARAMETERS:
        raise InputError(
            f"{data.source}: the linear recipe would learn {columns * products:,} numbers: {columns:,} attribute "
            f"values times {products:,} products; allowed: {PARAMETERS:,}; leave out an attribute with very many "
            f"values, or take the towers recipe"
        )
    of_row = data.combination[pairs[:, 0]]
    weights = np.bincount(of_row, minlength=len(rows)) / total
    bought = csr_array((np.full(total, 1 / total), (of_row, pairs[:, 1])), shape=(len(rows), len(chosen)))
    stated = (bought.T @ rows).T[:, chosen]
    few, few_weights = rows, weights
    most = SEARCH_LOGITS if search else LOGITS
    sampled = len(rows) * products > most and len(rows) > 16 * columns
    if sampled:
        # Fewer rows than a multiple of the columns would leave some combination of them unseen, and free.
        size = max(most // products, 16 * columns)
        drawn = np.random.default_rng(seed).multinomial(size, weights)
        few, few_weights = rows[drawn > 0], np.asarray(drawn[drawn > 0] / size, np.float64)
    scales = np.array([penalty**-0.5 for penalty in penalties])
    changes = np.zeros((columns, products))
    for _ in range(2 if sampled and not search else 1):
        error = 0.0
        if sampled:
            error = _expected(few, few_weights, popularity, changes) - _expected(rows, weights, popularity, changes)
        # Lengths that differ little share a compiled program; a row without weight changes nothing.
        padding = -len(few) % 64
        arrays = (
            np.pad(few, ((0, padding), (0, 0))),
            np.pad(few_weights, (0, padding)),
            stated + error,
            popularity,
            data.attributes[chosen],
            described[chosen],
            scales,
            np.float64(total),
            np.float64(SEARCH_GAIN if search else GAIN),
        )
        found, losses = _solve(*(np.asarray(array, np.float32) for array in arrays))
        own, attribute, taste = (
            scale * np.asarray(part, np.float64) for scale, part in zip(scales, found, strict=True)
        )
        changes = own + attribute @ data.attributes[chosen].T + taste @ described[chosen].T
    of_all = np.zeros((columns, len(chosen)))
    of_all[:, chosen] = own
    curve = np.asarray(losses, np.float64)
    return _Fit(of_all, attribute, taste, curve[~np.isnan(curve)])


def _expected(
    rows: Float64[np.ndarray, "r f"],
    weights: Float64[np.ndarray, " r"],
    popularity: Float64[np.ndarray, " p"],
    changes: Float64[np.ndarray, "f p"],
) -> Float64[np.ndarray, "f p"]:
    """What each product's buyers would state: the sum over rows of weight x row x share of the product."""
    if not changes.any():
        return np.asarray(np.outer(weights @ rows, softmax(popularity)))
    step = max(64, LOGITS // len(popularity))
    out = np.zeros_like(changes)
    for start in range(0, len(rows), step):
        block, counted = rows[start : start + step], weights[start : start + step]
        padding = (0, step - len(block)) if len(rows) > step else (0, 0)
        arrays = np.pad(block, (padding, (0, 0))), np.pad(counted, padding), popularity, changes
        out += _expected_of_block(*(np.asarray(array, np.float32) for array in arrays))
    return out


@jax.jit
def _expected_of_block(
    rows: Float[Array, "m f"], weights: Float[Array, " m"], popularity: Float[Array, " p"], changes: Float[Array, "f p"]
) -> Float[Array, "f p"]:
    return (weights[:, None] * rows).T @ jax.nn.softmax(popularity + rows @ changes, axis=1)


@jax.jit
def _solve(
    rows: Float[Array, "m f"],
    weights: Float[Array, " m"],
    bought: Float[Array, "f p"],
    popularity: Float[Array, " p"],
    attributes: Float[Array, "p a"],
    described: Float[Array, "p r"],
    scales: Float[Array, " 3"],
    total: Float[Array, ""],
    gain: Float[Array, ""],
) -> tuple[list[Array], Float[Array, " s"]]:
    r"""L-BFGS on $\sum_i w_i \log\sum_j e^{b_j + x_i W_j} - \langle B, W \rangle + |\theta|^2 / 2n$, W linear in theta.

    B holds the mean of x over the purchases of each product: who bought what is needed no further. The parameters are
    in units of their prior deviation, the `scales`, so a penalty without end leaves them at zero.
    """
    alone = jax.nn.logsumexp(popularity)

    def loss(parts: list[Array]) -> Array:
        own, attribute, taste = (scale * part for scale, part in zip(scales, parts, strict=True))
        changes = own + attribute @ attributes.T + taste @ described.T
        expected = jax.nn.logsumexp(popularity + rows @ changes, axis=1) - alone
        penalty = optax.tree.norm(parts, squared=True) / (2.0 * total)
        return jnp.asarray(jnp.sum(weights * expected) - jnp.sum(bought * changes) + penalty)

    columns = rows.shape[1]
    start = [jnp.zeros((columns, size)) for size in (len(popularity), attributes.shape[1], described.shape[1])]
    optimiser = optax.lbfgs()
    step = optax.value_and_grad_from_state(loss)

    def go_on(carry: tuple[Any, ...]) -> Array:
        *_, losses, done = carry
        last, before = losses[done - 1], losses[done - 2]
        return jnp.asarray((done < 2) | ((done < STEPS) & (before - last > gain)))

    def go(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        parts, state, losses, done = carry
        value, gradient = step(parts, state=state)
        updates, state = optimiser.update(gradient, state, parts, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(parts, updates), state, losses.at[done].set(value), done + 1

    carry = start, optimiser.init(start), jnp.full(STEPS, jnp.nan), 0
    parts, _, losses, _ = jax.lax.while_loop(go_on, go, carry)
    return parts, losses


def _model(
    prepared: Prepared,
    config: LinearConfig,
    data: _Purchases,
    described: Float64[np.ndarray, "p r"],
    penalties: Penalties,
    fit: _Fit,
    popularity: Float64[np.ndarray, " p"],
    expected: ExpectedPopularity,
) -> TrainedModel:
    """Towers whose dot products are the fit's, in as few dimensions as it has, or in the best `output_dim` - 2."""
    purchases = prepared.purchases
    weights = np.bincount(data.combination[data.pairs[:, 0]], minlength=len(data.rows)) / len(data.pairs)
    # Of all maps into few dimensions, the one that loses least of the log-odds, weighted by how often they count:
    # the first singular vectors of moment^1/2 . changes . diag(share)^1/2.
    values, vectors = np.linalg.eigh(data.rows.T @ (weights[:, None] * data.rows))
    there = values > 1e-12 * values.max()
    root, inverse = (vectors[:, there] * values[there] ** power for power in (0.5, -0.5))
    changes = root.T @ fit.of_products(data.attributes, described)
    left, singular, _ = np.linalg.svd(changes * np.sqrt((purchases + 1.0) / purchases.sum()), full_matrices=False)
    dim = int(np.clip((singular > 1e-6 * max(singular.max(), 1e-30)).sum(), 1, config.output_dim - 2))
    into, out = inverse @ left[:, :dim], (root @ left[:, :dim]).T
    customers = data.design.prior @ into
    attributes = data.product_design.prior @ (out @ fit.attribute).T
    own = (out @ (fit.own + fit.taste @ described.T)).T

    inputs = prepared.product_space["product_id"].input
    ids = np.zeros((inputs.size, dim))
    ids[: len(own)] = own  # the last row, of unknown products, stays zero
    of_id = np.full(inputs.size, np.nan)
    of_id[: len(own)] = popularity
    sides = {
        "customer": _tables(data.design, customers) | {"radius": _radius(data.rows[weights > 0] @ into)},
        "product": _tables(data.product_design, attributes)
        | {"product_id_emb": ids, "radius": _radius(own + data.attributes @ (out @ fit.attribute).T)},
    }
    tables = data.product_design.prior @ expected.coefficients
    counted = {name: tables[part] for name, part in data.product_design.parts.items()}
    counted |= {"constant": expected.constant - np.log(purchases.mean()), "product_id": of_id}
    variables = {"params": sides, "popularity": counted, "penalties": {"chosen": np.array(penalties)}}
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)
    module = of_variables(prepared.customer_space.inputs, prepared.product_space.inputs, variables)
    return TrainedModel(
        prepared.schema,
        config,
        prepared.customer_space,
        prepared.product_space,
        variables,
        prepared.product_ids,
        prepared.product_rows,
        np.asarray(encode_products(module, variables, prepared.products)),
        purchases,
        np.asarray(fit.losses, np.float32),
        {"customer": 0, "product": 0},
        prepared.trained_on,
    )


def _tables(design: Design, columns: Float64[np.ndarray, "f d"]) -> dict[str, Float64[np.ndarray, "..."]]:
    """The columns' vectors as the tower's parameters."""
    tables = {}
    for (name, kind, size), part in zip(design.space.inputs, design.parts.values(), strict=True):
        tables[f"{name}_emb"] = columns[part]
        if kind == "numeric":
            tables[f"{name}_emb"], tables[f"{name}_knots"] = columns[part][:KNOTS], design.knots[name]
            if size == 2:
                tables[f"{name}_missing"] = columns[part][-1]
    return tables


def _radius(vectors: Float64[np.ndarray, "n d"]) -> float:
    """Of the smallest ball that holds them all, and a little more for rounding."""
    return max(1.000001 * float(np.linalg.norm(vectors, axis=1).max()), 1e-6)
