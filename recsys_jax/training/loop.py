"""Training: one pure step, and the jitted run of scans around it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.random import threefry_2x32
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, UInt16

from recsys_jax.config import Config, DeepConfig, WideConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.features import Features
from recsys_jax.errors import Diverged, InputError
from recsys_jax.models import losses
from recsys_jax.models.precision import full_precision
from recsys_jax.models.towers import TwoTower, initial_variables
from recsys_jax.models.trained import TrainedModel
from recsys_jax.storage.checkpoints import Checkpoints, Stopped, task_of
from recsys_jax.training.augmentation import hide_attributes, hide_ids, jitter_numbers
from recsys_jax.training.preparation import TrainData, prepare
from recsys_jax.training.wide import fit_linear

__all__ = ["Batch", "Progress", "TrainData", "TrainState", "fit", "fit_seeds", "init_state", "of_seeds", "train_step"]

Progress = Callable[[int, Float32[np.ndarray, " e"]], None]
"""Called with the number of epochs done and the mean losses of those since the last call."""


class _Purpose(IntEnum):
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
    """What they bought."""
    negatives: Int[Array, " b"]
    """A random product that each of them did not buy; read by the triplet loss with random negatives alone."""
    mask: Bool[Array, " b"]


class TrainState(NamedTuple):
    """All that changes in training: one plain tree."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: Int[Array, ""]
    key: Array


@full_precision
def train_step(
    state: TrainState, batch: Batch, data: TrainData, *, model: TwoTower, config: DeepConfig
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


def _adam(config: DeepConfig) -> optax.GradientTransformation:
    """Adam on one vector of all parameters: on eighteen small arrays the time would go into starting their loops."""
    return optax.flatten(optax.adam(config.learning_rate))


def _key(state: TrainState, purpose: _Purpose, number: Array) -> Array:
    """The run's random key for one purpose at one step, or in one epoch: one fold for both."""
    return jax.random.fold_in(state.key, number * len(_Purpose) + purpose)


def _noise(state: TrainState, shape: tuple[int, int]) -> UInt16[Array, "n h"]:
    """16 random bits for each hidden unit of each row, at this step.

    Threefry (Salmon et al., 2011) makes two words of two, here of the step and a count. `jax.random` would derive a
    key in every step and throw three of four words away: a fifth of a step's time. Keys are derived of a zero and a
    count below 2^31.
    """
    words = -(-shape[0] * shape[1] // 4)
    counts = jnp.arange(words, dtype=jnp.uint32) + np.uint32(2**31)
    steps = jnp.full(words, state.step, jnp.uint32)
    bits = threefry_2x32(jax.random.key_data(state.key), jnp.concatenate([steps, counts]))
    return jax.lax.bitcast_convert_type(bits, jnp.uint16).ravel()[: shape[0] * shape[1]].reshape(shape)


def _row_losses(
    params: Any,
    customers: Features,
    batch: Batch,
    state: TrainState,
    data: TrainData,
    *,
    model: TwoTower,
    config: DeepConfig,
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

    size = len(batch.mask)
    noise = _noise(state, (size + len(goods), model.hidden_dim))  # one draw for all that drops out

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
    state: TrainState, data: TrainData, first_epoch: Array, *, model: TwoTower, config: DeepConfig, epochs: int
) -> tuple[TrainState, tuple[Float[Array, " e"], Int[Array, " e"]]]:
    """Some epochs in one call: a scan over epochs, each a permutation and a scan over its batches.

    Gives the state, the mean loss of each epoch, and the first of its batches whose loss is no finite number, else 0.
    """
    size = config.batch_size
    places = jnp.arange(len(data.pairs))

    def epoch(state: TrainState, number: Array) -> tuple[TrainState, tuple[Array, Array]]:
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
        return state, (totals.sum() / data.total, jnp.argmax(~jnp.isfinite(totals)))

    return jax.lax.scan(epoch, state, first_epoch + jnp.arange(epochs))


@partial(jax.jit, static_argnames=("model", "config", "epochs"), donate_argnums=0)
def _run_seeds(
    states: TrainState,
    data: TrainData,
    first_epoch: Array,
    *,
    own: Sequence[Array] | None = None,
    model: TwoTower,
    config: DeepConfig,
    epochs: int,
) -> tuple[TrainState, tuple[Float[Array, "s e"], Int[Array, "s e"]]]:
    """The same epochs of several seeds, whose states are stacked; `own` replaces the leaves of `_own(data)`."""

    def run(state: TrainState, own: Sequence[Array] | None) -> Any:
        read = data if own is None else data._replace(**jax.tree.unflatten(jax.tree.structure(_own(data)), own))
        return _run(state, read, first_epoch, model=model, config=config, epochs=epochs)

    return jax.vmap(run)(states, own)  # type: ignore[no-any-return]


def _own(data: TrainData) -> dict[str, Any]:
    """What each seed has its own of where extra customers are drawn; all else the seeds share."""
    return {name: getattr(data, name) for name in ("customers", "pairs", "bought", "missing", "deviations")}


def fit(
    dataset: Dataset,
    config: Config,
    *,
    train: Bool[np.ndarray, " n"] | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainedModel:
    """Trains on the purchases of a dataset for which `train` is true (all by default).

    Vocabularies, scaling and popularity come from those purchases' customers and from the product catalogue alone.
    `progress` is of the epochs, which the linear recipe does not have: `fit_linear` tells its own. With `checkpoints`
    a training that was killed goes on to the same bytes as one that was not. Raises `InputError` where there is
    nothing to learn from, `Diverged` where the loss is no finite number, and `Stopped` where the checkpoints say so.
    """
    if isinstance(config, WideConfig):
        return fit_linear(dataset, config, train=train, checkpoints=checkpoints)
    prepared = prepare(dataset, config, train)
    model, data = prepared.model(config), prepared.data(config)
    state, curve = _train(_run, init_state(model, data, config), data, model, config, progress, checkpoints)
    return prepared.trained(config, data, _variables(state), curve, int(state.step))


def fit_seeds(
    dataset: Dataset,
    config: Config,
    seeds: Sequence[int],
    *,
    train: Bool[np.ndarray, " n"] | None = None,
    progress: Progress | None = None,
    at_once: int = 32,
) -> list[TrainedModel]:
    """The models that `fit` gives with each of the seeds, but for rounding; trained together in one compiled program.

    Every seed needs room for its parameters, three times with Adam's averages, for what a step computes, and with
    extra customers for data of its own. So at most `at_once` train together, one portion after the other, divided
    among JAX's devices. `progress` is called with the epochs done, summed over the seeds, and with their mean losses.
    Raises `InputError` as `fit` does, and for seeds that `of_seeds` refuses.
    """
    if isinstance(config, WideConfig):
        raise InputError(
            f"seeds: found {len(seeds)}; allowed: with the towers recipe alone; the linear recipe has one best fit"
        )
    if at_once < 1:
        raise InputError(f"at_once: found {at_once}; allowed: 1 or more")
    configs = of_seeds(config, seeds)
    prepared = prepare(dataset, config, train)
    model = prepared.model(config)
    shared = None if config.extra_customers else prepared.data(config)
    size = -(-len(configs) // -(-len(configs) // at_once))  # portions as equal as can be
    models: dict[int, TrainedModel] = {}
    for start in range(0, len(configs), size):
        # The last portion is filled up with seeds that are done: a shorter one would be compiled anew.
        portion = configs[min(start, len(configs) - size) :][:size]
        new = min(size, len(configs) - start)

        def update(done: int, part: np.ndarray, start: int = start, new: int = new) -> None:
            if progress is not None:
                progress(start * config.epochs + done * new, part[:size].mean(axis=0))

        each = [prepared.data(one) if shared is None else shared for one in portion]
        states = [init_state(model, data, one) for data, one in zip(each, portion, strict=True)]
        filled = [*range(size), *[0] * (-size % jax.local_device_count())]
        own = None if shared is not None else _divided(_stack_own([each[i] for i in filled]))
        run = partial(_run_seeds, own=own)
        stacked = _divided(_stack_states([states[i] for i in filled]))
        stacked, curves = _train(run, stacked, each[0], model, config, update)
        variables, steps = _variables(stacked), np.asarray(stacked.step)
        for i, (one, data) in enumerate(zip(portion, each, strict=True)):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
            models[one.seed] = prepared.trained(one, data, own, curves[i], int(steps[i]))
    return [models[one.seed] for one in configs]


def of_seeds(config: DeepConfig, seeds: Sequence[int]) -> list[DeepConfig]:
    """The config with each of the seeds. Raises `InputError` where there are none, or one that no config admits."""
    if not seeds:
        raise InputError("seeds: found none; allowed: one or more")
    seen: set[int] = set()
    for seed in seeds:
        if seed in seen:
            raise InputError(f"seeds: found {seed} more than once; allowed: each seed once")
        seen.add(seed)
    return [replace(config, seed=seed) for seed in seeds]


def _train(
    run: Callable[..., tuple[TrainState, tuple[Array, Array]]],
    state: TrainState,
    data: TrainData,
    model: TwoTower,
    config: DeepConfig,
    progress: Callable[[int, np.ndarray], None] | None,
    checkpoints: Checkpoints | None = None,
) -> tuple[TrainState, np.ndarray]:
    """All epochs, some per call of `run`: the last state, and the losses with the epochs on the last axis."""
    chunk = _chunk(config.epochs)
    # What only the data or the loop around depends on is no part of the compiled program: another seed runs the same.
    recipe = replace(config, seed=0, epochs=1, extra_customers=0, number_jitter=float(config.number_jitter > 0))
    curve: list[np.ndarray] = []
    begin = 0
    task = {} if checkpoints is None else task_of(config, data)
    if checkpoints is not None and (found := checkpoints.load(task)) is not None:
        begin, state = int(found["done"]), _restored(state, found)
        curve.append(found["losses"])
    for first in range(begin, config.epochs, chunk):
        done = first + chunk
        state, (part, bad) = run(state, data, np.int32(first), model=model, config=recipe, epochs=chunk)
        curve.append(np.asarray(part))
        _check_losses(curve[-1], np.asarray(bad), first, -(-int(data.total) // config.batch_size), checkpoints)
        if checkpoints is not None and done < config.epochs:
            stop, every = checkpoints.stop(), checkpoints.every
            if stop or (every and done // every > first // every):
                losses = np.concatenate(curve, axis=-1)
                words = f"epoch {done:,} of {config.epochs:,}"
                checkpoints.save(task, {**_leaves(state), "losses": losses, "done": np.array(done)}, words)
            if stop:
                raise Stopped(checkpoints.saved)
        if progress is not None:
            progress(done, curve[-1])
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(_variables(state))):
        raise Diverged(f"training: found parameters that are no finite numbers after the last batch; {_REMEDY}")
    return state, np.concatenate(curve, axis=-1)


_REMEDY = "allowed: finite ones, as with a smaller learning_rate"


def _check_losses(
    losses: np.ndarray, bad: np.ndarray, first: int, batches: int, checkpoints: Checkpoints | None
) -> None:
    """Raises `Diverged` where the mean loss of an epoch is no finite number."""
    wrong = np.argwhere(~np.isfinite(losses))
    if not len(wrong):
        return
    at = tuple(wrong[wrong[:, -1].argmin()])  # of several seeds, whose comes first
    kept = "" if checkpoints is None else f"; the last good checkpoint is of {checkpoints.saved or 'no epoch'}"
    raise Diverged(
        f"training, epoch {first + int(at[-1]) + 1:,}, batch {int(bad[at]) + 1:,} of {batches:,}: found the loss "
        f"{losses[at]}; {_REMEDY}{kept}"
    )


def _leaves(state: TrainState) -> dict[str, np.ndarray]:
    """A state's arrays, by number."""
    leaves = jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))
    return {str(number): np.asarray(leaf) for number, leaf in enumerate(leaves)}


def _restored(like: TrainState, arrays: Mapping[str, np.ndarray]) -> TrainState:
    """The state whose `_leaves` these are, of the same form as `like`."""
    structure = jax.tree.structure(like._replace(key=jax.random.key_data(like.key)))
    state: TrainState = jax.tree.unflatten(structure, [arrays[name] for name in _leaves(like)])
    return state._replace(key=jax.random.wrap_key_data(jnp.asarray(state.key), impl="threefry2x32"))


def _variables(state: TrainState) -> dict[str, Any]:
    """What the towers read of a state, on the host."""
    return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})  # type: ignore[no-any-return]


def _stack_states(states: Sequence[TrainState]) -> TrainState:
    """One tree with the states along a new first axis; by NumPy but for the keys, so that nothing is compiled."""
    leaves = jax.tree.map(lambda *each: np.stack(each), *(state._replace(key=()) for state in states))  # type: ignore[arg-type]
    return leaves._replace(key=jnp.stack([state.key for state in states]))  # type: ignore[no-any-return]


def _stack_own(each: Sequence[TrainData]) -> list[np.ndarray]:
    """The leaves of `_own` along a new first axis; not as a tree, whose parts promise other shapes."""
    return [np.stack(leaves) for leaves in zip(*(jax.tree.leaves(_own(data)) for data in each), strict=True)]


def init_state(model: TwoTower, data: TrainData, config: DeepConfig) -> TrainState:
    """The state before the first step, from the config's seed."""
    start_seed, run_seed = np.random.SeedSequence(config.seed).spawn(2)
    one = [
        {name: np.zeros((1, *column.shape[1:]), column.dtype) for name, column in side.items()}
        for side in (data.customers, data.products)
    ]
    variables = initial_variables(model, *one, seed=start_seed)
    # Adam starts from zeros; from their shapes alone, nothing needs to be compiled for it.
    shapes = jax.eval_shape(_adam(config).init, variables["params"])
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    key = jax.random.wrap_key_data(jnp.asarray(run_seed.generate_state(2)), impl="threefry2x32")
    return TrainState(variables["params"], variables["batch_stats"], opt_state, jnp.int32(0), key)


def _chunk(epochs: int, most: int = 25) -> int:
    """Epochs per call: the largest divisor within reach, so that one compiled program serves every call."""
    return max(size for size in range(1, most + 1) if epochs % size == 0)


def _divided(stacked: Any) -> Any:
    """The first axis divided among all devices, of which several may be processors: no seed needs another's."""
    mesh = Mesh(np.array(jax.local_devices()), ("seeds",))
    seeds = PartitionSpec("seeds")  # type: ignore[no-untyped-call]
    return jax.device_put(stacked, NamedSharding(mesh, seeds)) if mesh.size > 1 else stacked
