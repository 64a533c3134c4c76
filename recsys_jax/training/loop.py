"""The run around the step: a scan over epochs, for one seed or many, with checkpoints."""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from recsys_jax.config import DeepConfig
from recsys_jax.errors import Diverged
from recsys_jax.models.towers import TwoTower
from recsys_jax.storage.checkpoints import Checkpoints, task_of
from recsys_jax.training.batches import TrainData
from recsys_jax.training.step import Batch, Numbers, Purpose, TrainState, adam, init_state, key_of, loss_of, train_step

Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and a short description of the current state."""

AT_ONCE, FIRST = 25, 2**12
"""The most epochs of one call, and the most steps of the first one, before it is known how long a step takes."""

_compiled = partial(jax.jit, static_argnames=("model", "loss", "optimiser", "number_jitter", "size"), donate_argnums=0)


class Pace:
    """How many rounds the next call may take, so that a training that is to stop can save within some `SECONDS`."""

    SECONDS = 0.7

    def __init__(self, first: int) -> None:
        self.rounds, self._shortest = max(first, 1), inf

    def took(self, rounds: int, seconds: float) -> None:
        """Learns how long a round takes, from a call; the slowest one may have been compiled."""
        self._shortest = min(self._shortest, seconds / rounds)
        self.rounds = max(1, int(self.SECONDS / self._shortest))


@_compiled
def _epochs(
    state: TrainState, data: TrainData, numbers: Numbers, first: Array, count: Array, *, size: int, **recipe: Any
) -> tuple[TrainState, Float[Array, " e"], Int[Array, " e"]]:
    """`count` epochs, at most `AT_ONCE`, each a permutation and a scan over its batches of `size` rows.

    Gives the state, the mean loss of each epoch, and the first of its batches whose loss is no finite number, else 0.
    """
    places = jnp.arange(len(data.pairs))

    def epoch(number: Array, carry: tuple[TrainState, Array, Array]) -> tuple[TrainState, Array, Array]:
        state, losses, bad = carry
        # Random keys sort the purchases; padding sorts last, so only the last batch has any.
        draws = jax.random.bits(key_of(state, Purpose.ORDER, number), (len(places),))
        order = jnp.lexsort((draws, places >= data.total))
        customers, products = data.pairs[order].T
        key = key_of(state, Purpose.NEGATIVES, number)
        negatives = data.bought.sample_negatives(key, customers, len(data.popularity))
        columns = (customers, products, negatives, places < data.total)
        batches = Batch(*(column.reshape(-1, size) for column in columns))
        step = partial(train_step, data=data, numbers=numbers, **recipe)
        state, totals = jax.lax.scan(step, state, batches)
        at = number - first
        return state, losses.at[at].set(totals.sum() / data.total), bad.at[at].set(jnp.argmax(~jnp.isfinite(totals)))

    start = state, jnp.zeros(AT_ONCE), jnp.zeros(AT_ONCE, jnp.int32)
    return jax.lax.fori_loop(first, first + count, epoch, start)  # type: ignore[no-any-return]


@_compiled
def _epochs_of_seeds(
    states: TrainState, *shared: Any, **options: Any
) -> tuple[TrainState, Float[Array, "s e"], Int[Array, "s e"]]:
    """The same epochs of several seeds, whose states are stacked."""
    return jax.vmap(lambda state: _epochs(state, *shared, **options))(states)  # type: ignore[no-any-return]


def run(
    model: TwoTower,
    data: TrainData,
    config: DeepConfig,
    *,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[dict[str, Any], np.ndarray, int]:
    """The variables after all epochs, the mean loss of each, and how many steps that were.

    Raises `Diverged` where the loss is no finite number, and `Stopped` where the checkpoints say so.
    """
    state = init_state(model, data, adam, seed=config.seed)
    state, losses = _train(_epochs, state, data, model, config, progress, checkpoints)
    return _variables(state), losses, int(state.step)


def run_seeds(
    model: TwoTower, data: TrainData, configs: Sequence[DeepConfig], *, progress: Progress | None = None
) -> list[tuple[dict[str, Any], np.ndarray, int]]:
    """`run` for each config, which differ in their seed, in one compiled program, divided among JAX's devices.

    Progress is of one seed.
    """
    states = [init_state(model, data, adam, seed=one.seed) for one in configs]
    filled = [*states, *states[:1] * (-len(configs) % jax.local_device_count())]
    stacked = jax.tree.map(lambda *each: np.stack(each), *filled)  # by NumPy, so that nothing is compiled
    mesh = Mesh(np.array(jax.local_devices()), ("seeds",))
    if mesh.size > 1:  # no seed needs another's
        stacked = jax.device_put(stacked, NamedSharding(mesh, PartitionSpec("seeds")))  # type: ignore[no-untyped-call]
    stacked, curves = _train(_epochs_of_seeds, stacked, data, model, configs[0], progress)
    variables, steps = _variables(stacked), np.asarray(stacked.step)
    return [(jax.tree.map(lambda leaf, i=i: leaf[i], variables), curves[i], int(steps[i])) for i in range(len(configs))]


def _train(
    epochs: Callable[..., tuple[TrainState, Array, Array]],
    state: TrainState,
    data: TrainData,
    model: TwoTower,
    config: DeepConfig,
    progress: Progress | None,
    checkpoints: Checkpoints | None = None,
) -> tuple[TrainState, np.ndarray]:
    """All epochs, some per call of `epochs`: the last state, and the losses with the epochs on the last axis."""
    options = {
        "model": model,
        "loss": loss_of(config),
        "optimiser": adam,
        "number_jitter": config.number_jitter > 0,
        "size": config.batch_size,
    }
    numbers = Numbers.of(config)
    curve: list[np.ndarray] = []
    done = 0
    task = {} if checkpoints is None else task_of(config, data)
    leaves, structure = jax.tree.flatten(state)
    like = {str(number): leaf for number, leaf in enumerate(leaves)}
    like |= {"losses": np.zeros(0, np.float32), "done": np.array(0)}
    if checkpoints is not None and (found := checkpoints.load(task, like)) is not None:
        done = int(found["done"])
        curve.append(found["losses"])
        state = jax.tree.unflatten(structure, [found[str(number)] for number in range(len(leaves))])
    pace = Pace(FIRST // (len(data.pairs) // config.batch_size * np.size(state.step)))
    while done < config.epochs:
        first, began = done, perf_counter()
        # However long calls take, one ends at each multiple of `AT_ONCE`: checkpoints are as far apart as asked for.
        count = min(pace.rounds, AT_ONCE - first % AT_ONCE, config.epochs - first)
        state, part, bad = epochs(state, data, numbers, np.int32(first), np.int32(count), **options)
        losses = np.asarray(part)[..., :count]
        pace.took(count, perf_counter() - began)
        curve.append(losses)
        done += count
        wrong = np.argwhere(~np.isfinite(losses))
        if len(wrong):
            at = tuple(wrong[wrong[:, -1].argmin()])  # of several seeds, the one that diverged first
            kept = "" if checkpoints is None else f"; the last good checkpoint is of {checkpoints.saved or 'no epoch'}"
            raise Diverged(
                f"training, epoch {first + int(at[-1]) + 1:,}, batch {int(np.asarray(bad)[at]) + 1:,} of "
                f"{-(-int(data.total) // config.batch_size):,}: found the loss {losses[at]}; {_REMEDY}{kept}"
            )
        if checkpoints is not None and done < config.epochs and checkpoints.due(first, done):
            arrays = {str(number): np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}
            arrays |= {"losses": np.concatenate(curve, axis=-1), "done": np.array(done)}
            checkpoints.save(task, arrays, f"epoch {done:,} of {config.epochs:,}")
        if progress is not None:
            progress(done, config.epochs, f"loss {losses[..., -1].mean():.4f}")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(_variables(state))):
        raise Diverged(f"training: found parameters that are no finite numbers after the last batch; {_REMEDY}")
    return state, np.concatenate(curve, axis=-1)


_REMEDY = "allowed: finite ones, as with a smaller learning_rate"


def _variables(state: TrainState) -> dict[str, Any]:
    """What the towers read of a state, on the host."""
    return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})  # type: ignore[no-any-return]
