"""Training: one pure step, and the jitted run of scans around it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
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
from recsys_jax.models import TwoTower, encode_products
from recsys_jax.purchases import Purchases
from recsys_jax.trained import TrainedModel, popularity, product_rows, two_tower

__all__ = ["Batch", "Progress", "TrainData", "TrainState", "fit", "train_step"]

Progress = Callable[[int, Float32[np.ndarray, " e"]], None]
"""Called with the number of epochs done and the mean losses of those since the last call."""


# What the run's key is folded with first, so that no step draws what an epoch draws.
_EPOCH, _STEP = 0, 1


class Batch(NamedTuple):
    """Rows of one step; where `mask` is false a row is padding."""

    customers: Int[Array, " b"]
    products: Int[Array, " b"]
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
    keys = _StepKeys(*jax.random.split(jax.random.fold_in(jax.random.fold_in(state.key, _STEP), state.step), 8))

    def objective(params: Any) -> tuple[Array, tuple[Any, Array]]:
        towers = _Towers(model, params, state.batch_stats, keys)
        customers = _rows(data.customers, batch.customers)
        if config.number_jitter:
            customers = jitter_numbers(keys.jitter, customers, data.deviations)
        if config.attribute_dropout:
            others = data.customers, data.customer_count, data.missing
            customers = hide_attributes(keys.attributes, customers, *others, share=config.attribute_dropout)
        rows, counts = _row_losses(towers, towers.customers(customers, batch.mask), batch, data, keys, config)
        counts = counts & batch.mask
        total = jnp.sum(jnp.where(counts, rows, 0.0))
        return total / jnp.maximum(jnp.sum(counts), 1), (towers.batch_stats, total)

    gradients, (batch_stats, total) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = optax.adam(config.learning_rate).update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state, state.step + 1, state.key), total


class _StepKeys(NamedTuple):
    """One random key per purpose."""

    customer_dropout: Array
    positive_dropout: Array
    negative_dropout: Array
    negatives: Array
    positive_ids: Array
    negative_ids: Array
    attributes: Array
    jitter: Array


class _Towers:
    """The towers in training mode: each call draws its own dropout and moves the running statistics on."""

    def __init__(self, model: TwoTower, params: Any, batch_stats: Any, keys: _StepKeys) -> None:
        self._model, self._params = model, params
        self._dropouts = iter((keys.customer_dropout, keys.positive_dropout, keys.negative_dropout))
        self.batch_stats = batch_stats

    def customers(self, features: Features, mask: Array) -> Array:
        return self._apply("encode_customers", features, mask)

    def products(self, features: Features, mask: Array | None) -> Array:
        return self._apply("encode_products", features, mask)

    def _apply(self, method: str, features: Features, mask: Array | None) -> Array:
        out, changed = self._model.apply(
            {"params": self._params, "batch_stats": self.batch_stats},
            features,
            train=True,
            mask=mask,
            method=method,
            mutable=["batch_stats"],
            rngs={"dropout": next(self._dropouts)},
        )
        self.batch_stats = changed["batch_stats"]
        return jnp.asarray(out)


def _row_losses(
    towers: _Towers, anchors: Array, batch: Batch, data: TrainData, keys: _StepKeys, config: TrainConfig
) -> tuple[Array, Array]:
    """The loss of each row, and which rows have one: not those of customers for whom there is no negative."""

    def products(rows: Array, id_key: Array) -> Features:
        features = _rows(data.products, rows)
        hide = config.id_embedding and config.id_dropout
        return hide_ids(id_key, features, data.unknown_id, share=config.id_dropout) if hide else features

    count, everyone = len(data.popularity), jnp.ones_like(batch.mask)
    if config.loss == "softmax":
        catalogue = towers.products(products(jnp.arange(count), keys.positive_ids), None)
        offsets = jnp.log(data.popularity) if config.popularity_bias else None
        rows = losses.full_softmax(anchors, catalogue, batch.products, temperature=config.temperature, offsets=offsets)
        return rows, everyone

    positives = towers.products(products(batch.products, keys.positive_ids), batch.mask)
    if config.loss == "triplet" and config.negatives == "random":
        drawn = data.bought.sample_negatives(keys.negatives, batch.customers, count)
        # A second pass, as in the PyTorch original: each pass has its own batch statistics and its own dropout.
        negatives = towers.products(products(drawn, keys.negative_ids), batch.mask)
        rows = losses.triplet(anchors, positives, negatives, margin=config.margin)
        return rows, ~data.bought.contains(batch.customers, drawn)

    # Which of the batch's products is no negative for which of its customers: (n, 1), (1, n) -> (n, n)
    square = (len(batch.mask), len(batch.mask))
    buyers, bought = jnp.broadcast_to(batch.customers[:, None], square), jnp.broadcast_to(batch.products, square)
    masked = data.bought.contains(buyers, bought) | ~batch.mask
    if config.loss == "infonce":
        # The popularity in the score and the correction for sampling by popularity cancel each other.
        sign = int(config.popularity_bias) - int(config.log_q)
        offsets = sign * jnp.log(data.popularity[batch.products]) if sign else None
        rows = losses.info_nce(anchors, positives, temperature=config.temperature, masked=masked, offsets=offsets)
        return rows, everyone

    far = losses.distance(anchors[:, None], positives[None])  # (n, 1, d), (1, n, d) -> (n, n)
    how: Literal["hard", "semi-hard"] = "hard" if config.negatives == "hard" else "semi-hard"
    chosen = losses.choose_negatives(far, jnp.diagonal(far), ~masked, how=how, margin=config.margin)
    rows = losses.triplet(anchors, positives, positives[chosen], margin=config.margin)
    return rows, ~jnp.take_along_axis(masked, chosen[:, None], axis=1)[:, 0]


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
        key = jax.random.fold_in(jax.random.fold_in(state.key, _EPOCH), number)
        draws = jax.random.bits(key, (len(places),))
        order = jnp.lexsort((draws, places >= data.total))
        shuffled = data.pairs[order].reshape(-1, size, 2)
        mask = (places < data.total).reshape(-1, size)

        def step(state: TrainState, batch: tuple[Array, Array]) -> tuple[TrainState, Array]:
            pairs, mask = batch
            return train_step(state, Batch(pairs[:, 0], pairs[:, 1], mask), data, model=model, config=config)

        state, totals = jax.lax.scan(step, state, (shuffled, mask))
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
        state, part = _run(state, data, jnp.int32(first), model=model, config=recipe, epochs=chunk)
        curve.append(np.asarray(part))
        if progress is not None:
            progress(first + chunk, curve[-1])

    # Softmax and random negatives use every product, the other losses those that somebody bought.
    drawn = config.loss == "triplet" and config.negatives == "random"
    used = (
        products
        if drawn or config.loss == "softmax"
        else {name: column[purchases > 0] for name, column in products.items()}
    )
    params = _fill_untrained_rows(state.params, config, customer_space, encoded, product_space, used)
    variables = jax.tree.map(np.asarray, {"params": params, "batch_stats": state.batch_stats})
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
        {"customer": int(state.step), "product": int(state.step) * (2 if drawn else 1)},
        dataset.fingerprint if train is None else "",
    )


def init_state(model: TwoTower, data: TrainData, config: TrainConfig) -> TrainState:
    """The state before the first step, from the config's seed."""
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    one = jnp.zeros(1, jnp.int32)
    variables = model.init(init_key, _rows(data.customers, one), _rows(data.products, one))
    opt_state = optax.adam(config.learning_rate).init(variables["params"])
    return TrainState(variables["params"], variables["batch_stats"], opt_state, jnp.int32(0), run_key)


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
) -> Any:
    """Gives embedding rows that training never used the mean of those that it used.

    Such a row still holds its random start: an unknown brand would point anywhere. The mean makes it an average one.
    Where no row was used at all, it is zeros, as what training saw.

    Args:
        params: the trained parameters.
        config: which rows dropout trained.
        customers: the customers' features.
        customer_rows: the customers that training used.
        products: the products' features.
        product_rows: the products that training used.
    """
    hidden = {("customer", f.feature.name): f.missing_row for f in customers if config.attribute_dropout}
    if config.id_embedding and config.id_dropout:
        hidden["product", "product_id"] = products["product_id"].unknown_row
    filled = {side: dict(tower) for side, tower in params.items()}
    for side, space, rows in (("customer", customers, customer_rows), ("product", products, product_rows)):
        for name, kind, size in space.inputs:
            if kind == "numeric":
                continue
            used = np.bincount(rows[name][rows[name] >= 0].ravel(), minlength=size)
            table = filled[side][f"{name}_emb"]
            mean = jnp.asarray(used, jnp.float32) @ table / max(used.sum(), 1)
            untrained = used == 0
            trained_by_hiding = hidden.get((side, name))
            if trained_by_hiding is not None:
                untrained[trained_by_hiding] = False
            filled[side][f"{name}_emb"] = jnp.where(untrained[:, None], mean, table)
    return filled
