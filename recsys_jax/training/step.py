"""One pure step of training: the loss and the optimiser are its arguments."""

from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Bool, Float, Int, UInt16, UInt32

from recsys_jax.config import DeepConfig
from recsys_jax.models import losses
from recsys_jax.models.settings import full_precision
from recsys_jax.models.towers import TwoTower, initial_variables
from recsys_jax.training.batches import TrainData, hide_attributes, hide_ids, jitter_numbers


class Purpose(IntEnum):
    """What is random, so that nothing draws what another thing draws."""

    ORDER = 0
    NEGATIVES = 1
    IDS = 2
    ATTRIBUTES = 3
    JITTER = 4


class Batch(NamedTuple):
    """Rows of one step; where `mask` is false a row is padding."""

    customers: Int[Array, " b"]
    products: Int[Array, " b"]
    negatives: Int[Array, " b"]
    """A random product that each of them did not buy; read by the triplet loss with random negatives alone."""
    mask: Bool[Array, " b"]


class TrainState(NamedTuple):
    """All that changes in training: one plain tree."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: Int[Array, ""]
    key: UInt32[Array, " 2"]


class Numbers(NamedTuple):
    """A recipe's numbers: arguments of what is compiled, so that one program serves all their values.

    The dropout rate is none of them: as an argument it rounds differently, and every model would be another.
    """

    learning_rate: Float[Any, ""]
    margin: Float[Any, ""]
    temperature: Float[Any, ""]
    attribute_dropout: Float[Any, ""] | None
    """None, here and below: nothing is hidden."""
    id_dropout: Float[Any, ""] | None

    @classmethod
    def of(cls, config: DeepConfig) -> "Numbers":
        """Those of a recipe."""
        always = map(np.float32, (config.learning_rate, config.margin, config.temperature))
        shares = config.attribute_dropout, config.id_dropout * config.id_embedding
        return cls(*always, *(np.float32(share) if share else None for share in shares))


Rows = tuple[Float[Array, " b"], Bool[Array, " b"]]
"""What each row loses, and which rows count: not those of customers for whom there is no negative."""


class Loss(NamedTuple):
    """Which products a step embeds, and what each row then loses. Made once by `loss_of`, as it is compiled in."""

    passes: int
    """How many batches of products there are, each with statistics of its own; 0: one, the whole catalogue."""
    products: Callable[[Batch, int], Int[Array, " m"]]
    """The rows of the products to embed, of so many in all."""
    rows: Callable[[Float[Array, "b d"], Float[Array, "m d"], Batch, TrainData, Numbers], Rows]
    """Of the vectors of the customers and of these products."""


def loss_of(config: DeepConfig) -> Loss:
    """The loss that a recipe names: the same object each time."""
    if config.loss == "triplet":
        return _TRIPLET if config.negatives == "random" else _mined_triplet(config.negatives)
    if config.loss == "infonce":
        # The popularity in the score and the correction for sampling by popularity cancel each other.
        return _info_nce(int(config.popularity_bias) - int(config.log_q))
    return _softmax(config.popularity_bias)


def _triplet(customers: Array, products: Array, batch: Batch, data: TrainData, numbers: Numbers) -> Rows:
    """With a random negative."""
    size = len(batch.mask)
    rows = losses.triplet(customers, products[:size], products[size:], margin=numbers.margin)
    return rows, data.bought.any_left(batch.customers, len(data.popularity))


# Bought products and negatives have their own statistics, as in the PyTorch original.
_TRIPLET = Loss(2, lambda batch, _: jnp.concatenate([batch.products, batch.negatives]), _triplet)


@cache
def _mined_triplet(how: Literal["hard", "semi-hard"]) -> Loss:
    """With the nearest wrong product of the batch as the negative."""

    def rows(customers: Array, products: Array, batch: Batch, data: TrainData, numbers: Numbers) -> Rows:
        where = _negatives_in_batch(batch, data)
        far = losses.distance(customers[:, None], products[None])  # (b, 1, d), (1, b, d) -> (b, b)
        chosen = losses.choose_negatives(far, jnp.diagonal(far), where, how=how, margin=numbers.margin)
        rows = losses.triplet(customers, products, products[chosen], margin=numbers.margin)
        return rows, jnp.take_along_axis(where, chosen[:, None], axis=1)[:, 0]

    return Loss(1, lambda batch, _: batch.products, rows)


@cache
def _info_nce(popularity: int) -> Loss:
    """With log-popularity in the logits: once as part of the score, -1 times as the log-Q correction."""

    def rows(customers: Array, products: Array, batch: Batch, data: TrainData, numbers: Numbers) -> Rows:
        where = _negatives_in_batch(batch, data)
        offsets = popularity * jnp.log(data.popularity[batch.products]) if popularity else None
        rows = losses.info_nce(customers, products, temperature=numbers.temperature, where=where, offsets=offsets)
        return rows, jnp.ones_like(batch.mask)

    return Loss(1, lambda batch, _: batch.products, rows)


@cache
def _softmax(popularity: bool) -> Loss:
    """Over the whole catalogue, with log-popularity as part of the score or without."""

    def rows(customers: Array, products: Array, batch: Batch, data: TrainData, numbers: Numbers) -> Rows:
        offsets = jnp.log(data.popularity) if popularity else None
        options = {"temperature": numbers.temperature, "offsets": offsets}
        rows = losses.full_softmax(customers, products, batch.products, **options)
        return rows, jnp.ones_like(batch.mask)

    return Loss(0, lambda _, count: jnp.arange(count), rows)


def _negatives_in_batch(batch: Batch, data: TrainData) -> Bool[Array, "b b"]:
    """Which of the batch's products is a negative for which of its customers."""
    square = (len(batch.mask), len(batch.mask))
    buyers, bought = jnp.broadcast_to(batch.customers[:, None], square), jnp.broadcast_to(batch.products, square)
    return ~data.bought.contains(buyers, bought) & batch.mask


def adam(learning_rate: float | Float[Any, ""]) -> optax.GradientTransformation:
    """Adam on one vector of all parameters: on eighteen small arrays the time would go into starting their loops."""
    return optax.flatten(optax.adam(learning_rate))


@full_precision
def train_step(
    state: TrainState,
    batch: Batch,
    data: TrainData,
    numbers: Numbers,
    *,
    model: TwoTower,
    loss: Loss,
    optimiser: Callable[[Any], optax.GradientTransformation],
    number_jitter: bool = False,
) -> tuple[TrainState, Float[Array, ""]]:
    """One step of the optimiser on one batch: the new state, and the sum of the rows' losses before the step.

    The `optimiser` is made of a learning rate. Customers' numbers carry noise with `number_jitter`; `numbers` has the
    share of their attributes that are hidden, and that of the products that show the unknown id.
    """

    def objective(params: Any) -> tuple[Array, tuple[Any, Array]]:
        customers = {name: column[batch.customers] for name, column in data.customers.items()}
        if number_jitter:
            customers = jitter_numbers(key_of(state, Purpose.JITTER, state.step), customers, data.deviations)
        if numbers.attribute_dropout is not None:
            key = key_of(state, Purpose.ATTRIBUTES, state.step)
            customers = hide_attributes(key, customers, data, share=numbers.attribute_dropout)
        chosen = loss.products(batch, len(data.popularity))
        products = {name: column[chosen] for name, column in data.products.items()}
        if numbers.id_dropout is not None:
            key = key_of(state, Purpose.IDS, state.step)
            products = hide_ids(key, products, data.unknown_id, share=numbers.id_dropout)

        size = len(batch.mask)
        noise = _noise(state, (size + len(chosen), model.hidden_dim))  # one draw for all that drops out

        def both(towers: TwoTower) -> tuple[Array, Array]:
            anchors = towers.encode_customers(customers, noise=noise[:size], mask=batch.mask)
            # The catalogue is a batch of its own, all of which counts.
            own: dict[str, Any] = {"mask": batch.mask, "passes": loss.passes} if loss.passes else {}
            return anchors, towers.encode_products(products, noise=noise[size:], **own)

        variables = {"params": params, "batch_stats": state.batch_stats}
        (anchors, embedded), changed = model.apply(variables, method=both, mutable=["batch_stats"])
        rows, counts = loss.rows(anchors, embedded, batch, data, numbers)
        counts = counts & batch.mask
        total = jnp.sum(jnp.where(counts, rows, 0.0))
        return total / jnp.maximum(jnp.sum(counts), 1), (changed["batch_stats"], total)

    gradients, (batch_stats, total) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimiser(numbers.learning_rate).update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state, state.step + 1, state.key), total


def init_state(
    model: TwoTower, data: TrainData, optimiser: Callable[[Any], optax.GradientTransformation], *, seed: int
) -> TrainState:
    """The state before the first step; everything random follows from the seed."""
    start_seed, run_seed = np.random.SeedSequence(seed).spawn(2)
    one = [
        {name: np.zeros((1, *column.shape[1:]), column.dtype) for name, column in side.items()}
        for side in (data.customers, data.products)
    ]
    variables = initial_variables(model, *one, seed=start_seed)
    # Adam starts from zeros; from their shapes alone, nothing needs to be compiled for it.
    shapes = jax.eval_shape(optimiser(0.0).init, variables["params"])
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    key = run_seed.generate_state(2)
    return TrainState(variables["params"], variables.get("batch_stats", {}), opt_state, jnp.int32(0), jnp.asarray(key))


def key_of(state: TrainState, purpose: Purpose, number: Array) -> Array:
    """The run's random key for one purpose at one step, or in one epoch: one fold for both."""
    key = jax.random.wrap_key_data(state.key, impl="threefry2x32")
    return jax.random.fold_in(key, number * len(Purpose) + purpose)


def _noise(state: TrainState, shape: tuple[int, int]) -> UInt16[Array, "n h"]:
    """16 random bits for each hidden unit of each row, at this step.

    Threefry (Salmon et al., 2011) makes two words of two, here of the step and a count. `jax.random` would derive a
    key in every step and throw three of four words away: a fifth of a step's time. Keys are derived of a zero and a
    count below 2^31.
    """
    words = -(-shape[0] * shape[1] // 4)
    counts = jnp.arange(words, dtype=jnp.uint32) + np.uint32(2**31)
    steps = jnp.full(words, state.step, jnp.uint32)
    bits = threefry_2x32(state.key, jnp.concatenate([steps, counts]))
    return jax.lax.bitcast_convert_type(bits, jnp.uint16).ravel()[: shape[0] * shape[1]].reshape(shape)
