"""Training: one pure step, and the jitted run of scans around it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import IntEnum
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int

from recsys_jax import losses
from recsys_jax.augmentation import extra_customers, hide_attributes, hide_ids, jitter_numbers
from recsys_jax.config import TrainConfig
from recsys_jax.data import Dataset
from recsys_jax.errors import InputError
from recsys_jax.features import Features, FeatureSpace, with_product_id
from recsys_jax.models import TwoTower, encode_products, initial_variables
from recsys_jax.purchases import Purchases
from recsys_jax.trained import TrainedModel, popularity, product_rows, two_tower

__all__ = ["Batch", "Progress", "TrainData", "TrainState", "fit", "train_step"]

Progress = Callable[[int, Float32[np.ndarray, " e"]], None]
"""Called with the number of epochs done and the mean losses of those since the last call."""


class _Purpose(IntEnum):
    """What is random, so that nothing draws what another thing draws."""

    ORDER = 0
    NEGATIVES = 1
    DROPOUT = 2
    IDS = 3
    ATTRIBUTES = 4
    JITTER = 5


class Batch(NamedTuple):
    """Rows of one step; where `mask` is false a row is padding."""

    customers: Int[Array, " b"]
    products: Int[Array, " b"]
    """What they bought."""
    negatives: Int[Array, " b"]
    """A random product that each of them did not buy; read by the triplet loss with random negatives alone."""
    mask: Bool[Array, " b"]


class TrainData(NamedTuple):
    """Everything a run reads, on the device."""

    customers: Features
    """With a tail of padding, so that folds of almost the same size run the same compiled program."""
    customer_count: Int[Array, ""]
    """The customers without padding."""
    products: Features
    pairs: Int[Array, "n 2"]
    """(customer row, product row) per purchase; a tail of padding fills the last batch."""
    total: Int[Array, ""]
    """The purchases without padding."""
    bought: Purchases
    popularity: Float[Array, " p"]
    """Share of each product in the purchases, smoothed."""
    missing: Mapping[str, Array]
    """What stands for a missing value, of the customer features that have such a thing."""
    deviations: Mapping[str, Float[Array, ""]]
    """The noise on each of the customers' numbers."""
    unknown_id: Int[Array, ""]


class TrainState(NamedTuple):
    """All that changes in training: one plain tree."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: Int[Array, ""]
    key: Array


def train_step(
    state: TrainState, batch: Batch, data: TrainData, *, model: TwoTower, config: TrainConfig
) -> tuple[TrainState, Float[Array, ""]]:
    """One step of Adam on one batch: the new state, and the sum of the rows' losses before the step."""

    def objective(params: Any) -> tuple[Array, tuple[Any, Array]]:
        customers = _rows(data.customers, batch.customers)
        if config.number_jitter:
            customers = jitter_numbers(_key(state, _Purpose.JITTER, state.step), customers, data.deviations)
        if config.attribute_dropout:
            others = data.customers, data.customer_count, data.missing
            key = _key(state, _Purpose.ATTRIBUTES, state.step)
            customers = hide_attributes(key, customers, *others, share=config.attribute_dropout)
        rows, counts, batch_stats = _row_losses(params, customers, batch, state, data, model=model, config=config)
        counts = counts & batch.mask
        total = jnp.sum(jnp.where(counts, rows, 0.0))
        return total / jnp.maximum(jnp.sum(counts), 1), (batch_stats, total)

    gradients, (batch_stats, total) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = _adam(config).update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state, state.step + 1, state.key), total


def _adam(config: TrainConfig) -> optax.GradientTransformation:
    """Adam on one vector of all parameters: on eighteen small arrays the time would go into starting their loops."""
    return optax.flatten(optax.adam(config.learning_rate))


def _key(state: TrainState, purpose: _Purpose, number: Array) -> Array:
    """The run's random key for one purpose at one step, or in one epoch: one fold for both."""
    return jax.random.fold_in(state.key, number * len(_Purpose) + purpose)


def _row_losses(
    params: Any,
    customers: Features,
    batch: Batch,
    state: TrainState,
    data: TrainData,
    *,
    model: TwoTower,
    config: TrainConfig,
) -> tuple[Array, Array, Any]:
    """The loss of each row, which rows have one (not those of customers for whom there is no negative), and the
    batch statistics after this step."""
    count, everyone = len(data.popularity), jnp.ones_like(batch.mask)
    if config.loss == "softmax":
        goods = jnp.arange(count)
    else:
        goods = jnp.concatenate([batch.products, batch.negatives]) if config.draws_negatives else batch.products
    products = _rows(data.products, goods)
    if config.id_embedding and config.id_dropout:
        products = hide_ids(_key(state, _Purpose.IDS, state.step), products, data.unknown_id, share=config.id_dropout)

    # One draw for all that drops out.
    size = len(batch.mask)
    noise = jax.random.bits(
        _key(state, _Purpose.DROPOUT, state.step), (size + len(goods), model.hidden_dim), jnp.uint16
    )

    def both(towers: TwoTower) -> tuple[Array, Array]:
        anchors = towers.encode_customers(customers, noise=noise[:size], mask=batch.mask)
        if config.loss == "softmax":  # the catalogue is a batch of its own, all of which counts
            return anchors, towers.encode_products(products, noise=noise[size:])
        # Bought products and negatives have their own statistics each, as in the PyTorch original.
        passes = 2 if config.draws_negatives else 1
        return anchors, towers.encode_products(products, noise=noise[size:], mask=batch.mask, passes=passes)

    variables = {"params": params, "batch_stats": state.batch_stats}
    (anchors, embedded), changed = model.apply(variables, method=both, mutable=["batch_stats"])
    stats = changed["batch_stats"]
    if config.loss == "softmax":
        offsets = jnp.log(data.popularity) if config.popularity_bias else None
        rows = losses.full_softmax(anchors, embedded, batch.products, temperature=config.temperature, offsets=offsets)
        return rows, everyone, stats

    if config.draws_negatives:
        rows = losses.triplet(anchors, embedded[:size], embedded[size:], margin=config.margin)
        return rows, data.bought.any_left(batch.customers, count), stats

    # Which of the batch's products is no negative for which of its customers: (n, 1), (1, n) -> (n, n)
    square = (size, size)
    buyers, bought = jnp.broadcast_to(batch.customers[:, None], square), jnp.broadcast_to(batch.products, square)
    masked = data.bought.contains(buyers, bought) | ~batch.mask
    if config.loss == "infonce":
        # The popularity in the score and the correction for sampling by popularity cancel each other.
        sign = int(config.popularity_bias) - int(config.log_q)
        offsets = sign * jnp.log(data.popularity[batch.products]) if sign else None
        rows = losses.info_nce(anchors, embedded, temperature=config.temperature, masked=masked, offsets=offsets)
        return rows, everyone, stats

    far = losses.distance(anchors[:, None], embedded[None])  # (n, 1, d), (1, n, d) -> (n, n)
    how: Literal["hard", "semi-hard"] = "hard" if config.negatives == "hard" else "semi-hard"
    chosen = losses.choose_negatives(far, jnp.diagonal(far), ~masked, how=how, margin=config.margin)
    rows = losses.triplet(anchors, embedded, embedded[chosen], margin=config.margin)
    return rows, ~jnp.take_along_axis(masked, chosen[:, None], axis=1)[:, 0], stats


def _rows(features: Features, rows: Array) -> Features:
    return {name: column[rows] for name, column in features.items()}


@partial(jax.jit, static_argnames=("model", "config", "epochs"), donate_argnums=0)
def _run(
    state: TrainState, data: TrainData, first_epoch: Array, *, model: TwoTower, config: TrainConfig, epochs: int
) -> tuple[TrainState, Float[Array, " e"]]:
    """Some epochs in one call: a scan over epochs, each a permutation and a scan over its batches."""
    size = config.batch_size
    places = jnp.arange(len(data.pairs))

    def epoch(state: TrainState, number: Array) -> tuple[TrainState, Array]:
        # Random keys sort the purchases; padding sorts last, so only the last batch has any.
        draws = jax.random.bits(_key(state, _Purpose.ORDER, number), (len(places),))
        order = jnp.lexsort((draws, places >= data.total))
        customers, products = data.pairs[order].T
        negatives = data.bought.sample_negatives(
            _key(state, _Purpose.NEGATIVES, number), customers, len(data.popularity)
        )
        columns = (customers, products, negatives, places < data.total)
        batches = Batch(*(column.reshape(-1, size) for column in columns))

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Array]:
            return train_step(state, batch, data, model=model, config=config)

        state, totals = jax.lax.scan(step, state, batches)
        return state, totals.sum() / data.total

    return jax.lax.scan(epoch, state, first_epoch + jnp.arange(epochs))


def fit(
    dataset: Dataset,
    config: TrainConfig,
    *,
    train: Bool[np.ndarray, " n"] | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Trains on the purchases of a dataset for which `train` is true (all by default).

    Vocabularies, scaling and popularity come from those purchases' customers and from the product catalogue alone.
    Raises `InputError` where there is nothing to learn from.
    """
    pairs = dataset.purchases if train is None else dataset.purchases[train]
    total = len(dataset.product_ids)
    if total < 2:
        raise InputError(
            f"{dataset.products.source}: found {total} product; at least 2 are needed to learn a preference"
        )
    if not len(pairs):
        raise InputError(f"{dataset.customers.source}: there are no purchases to train on")
    buyers = np.unique(pairs[:, 0])
    schema = dataset.schema
    customer_space = FeatureSpace.fit(schema.customers.features, dataset.customers, buyers.tolist())
    listed = schema.products.features
    features = with_product_id(listed, schema.products.id) if config.id_embedding else listed
    product_space = FeatureSpace.fit(features, dataset.products)

    # Only the training customers are encoded: a held-out one may hold values that nobody has learned.
    row_of = np.zeros(len(dataset.customers), np.int32)
    row_of[buyers] = np.arange(len(buyers))
    pairs = np.stack([row_of[pairs[:, 0]], pairs[:, 1]], axis=1).astype(np.int32)
    encoded = customer_space.encode(dataset.customers.select(buyers.tolist()))
    products = product_space.encode(dataset.products)
    purchases = np.bincount(pairs[:, 1], minlength=total)
    if config.extra_customers:
        segments = dataset.segments
        members = segments and [segments[row] for row in buyers]
        encoded, pairs = extra_customers(encoded, pairs, members, count=config.extra_customers, seed=config.seed)

    shares = popularity(purchases)
    data = _train_data(encoded, products, pairs, shares, customer_space, product_space, config)
    model = two_tower(config, customer_space, product_space)
    state = init_state(model, data, config)
    chunk = _chunk(config.epochs)
    # What only the data or the loop around depends on is no part of the compiled program: another seed runs the same.
    recipe = replace(config, seed=0, epochs=1, extra_customers=0, number_jitter=float(config.number_jitter > 0))
    curve: list[np.ndarray] = []
    for first in range(0, config.epochs, chunk):
        state, part = _run(state, data, np.int32(first), model=model, config=recipe, epochs=chunk)
        curve.append(np.asarray(part))
        if progress is not None:
            progress(first + chunk, curve[-1])

    # Softmax and random negatives use every product, the other losses those that somebody bought.
    used = (
        products
        if config.draws_negatives or config.loss == "softmax"
        else {name: column[purchases > 0] for name, column in products.items()}
    )
    variables = jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})
    _fill_untrained_rows(variables["params"], config, customer_space, encoded, product_space, used)
    embeddings = np.asarray(encode_products(model, variables, products))
    return TrainedModel(
        schema,
        config,
        customer_space,
        product_space,
        variables,
        tuple(dataset.product_ids),
        product_rows(schema, dataset.products),
        embeddings,
        purchases,
        np.concatenate(curve),
        {"customer": int(state.step), "product": int(state.step) * (2 if config.draws_negatives else 1)},
        dataset.fingerprint if train is None else "",
    )


def init_state(model: TwoTower, data: TrainData, config: TrainConfig) -> TrainState:
    """The state before the first step, from the config's seed."""
    start_seed, run_seed = np.random.SeedSequence(config.seed).spawn(2)
    one = [{name: column[:1] for name, column in side.items()} for side in (data.customers, data.products)]
    variables = initial_variables(model, *one, seed=start_seed)
    # Adam starts from zeros; from their shapes alone, nothing needs to be compiled for it.
    shapes = jax.eval_shape(_adam(config).init, variables["params"])
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    key = jax.random.wrap_key_data(jnp.asarray(run_seed.generate_state(2)), impl="threefry2x32")
    return TrainState(variables["params"], variables["batch_stats"], opt_state, jnp.int32(0), key)


def _train_data(
    customers: Features,
    products: Features,
    pairs: Int[np.ndarray, "n 2"],
    shares: Float32[np.ndarray, " p"],
    customer_space: FeatureSpace,
    product_space: FeatureSpace,
    config: TrainConfig,
) -> TrainData:
    def padded(rows: np.ndarray) -> Array:
        """Whole batches of rows: the tail is zeros."""
        tail = -len(rows) % config.batch_size
        return jnp.asarray(np.pad(rows, [(0, tail), *[(0, 0)] * (rows.ndim - 1)]))

    missing: dict[str, Array] = {}
    deviations: dict[str, Array] = {}
    for fitted in customer_space:
        name, column = fitted.feature.name, customers[fitted.feature.name]
        if fitted.missing_row is not None:
            alone = np.full(column.shape[1:], -1, np.int32)  # in a bag, it is the one value
            alone.flat[:1] = fitted.missing_row
            missing[name] = jnp.asarray(alone)
        elif fitted.input.kind == "numeric":
            deviations[name] = jnp.float32(config.number_jitter * column[:, 0].std())
            if fitted.input.size == 2:
                missing[name] = jnp.asarray([column[:, 0].mean(), 1.0])
    unknown = product_space["product_id"].unknown_row if config.id_embedding else 0
    count = len(next(iter(customers.values())))
    return TrainData(
        customers={name: padded(column) for name, column in customers.items()},
        customer_count=jnp.int32(count),
        products=jax.tree.map(jnp.asarray, products),
        pairs=padded(pairs),
        total=jnp.int32(len(pairs)),
        bought=Purchases.of(pairs, *(size + -size % config.batch_size for size in (count, len(pairs)))),
        popularity=jnp.asarray(shares),
        missing=missing,
        deviations=deviations,
        unknown_id=jnp.int32(unknown or 0),
    )


def _chunk(epochs: int, most: int = 25) -> int:
    """Epochs per call: the largest divisor within reach, so that one compiled program serves every call."""
    return max(size for size in range(1, most + 1) if epochs % size == 0)


def _fill_untrained_rows(
    params: Any,
    config: TrainConfig,
    customers: FeatureSpace,
    customer_rows: Features,
    products: FeatureSpace,
    product_rows: Features,
) -> None:
    """Gives embedding rows that training never used the mean of those that it used.

    Such a row still holds its random start: an unknown brand would point anywhere. The mean makes it an average one.
    Where no row was used at all, it is zeros, as what training saw.

    Args:
        params: the trained parameters, changed in place.
        config: which rows dropout trained.
        customers: the customers' features.
        customer_rows: the customers that training used.
        products: the products' features.
        product_rows: the products that training used.
    """
    hidden = {("customer", f.feature.name): f.missing_row for f in customers if config.attribute_dropout}
    if config.id_embedding and config.id_dropout:
        hidden["product", "product_id"] = products["product_id"].unknown_row
    for side, space, rows in (("customer", customers, customer_rows), ("product", products, product_rows)):
        for name, kind, size in space.inputs:
            if kind == "numeric":
                continue
            used = np.bincount(rows[name][rows[name] >= 0].ravel(), minlength=size)
            table = params[side][f"{name}_emb"]
            mean = used.astype(np.float32) @ table / np.float32(max(used.sum(), 1))
            untrained = used == 0
            trained_by_hiding = hidden.get((side, name))
            if trained_by_hiding is not None:
                untrained[trained_by_hiding] = False
            params[side][f"{name}_emb"] = np.where(untrained[:, None], mean, table)
