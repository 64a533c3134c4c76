"""From a dataset and a recipe to a trained model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from recsys_jax.config import Config, DeepConfig, WideConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.errors import InputError
from recsys_jax.models.basis import Average, knots_of
from recsys_jax.models.popularity import SMOOTHED
from recsys_jax.models.settings import own_settings
from recsys_jax.models.towers import encode_products
from recsys_jax.models.trained import TrainedModel, two_tower
from recsys_jax.storage.checkpoints import Checkpoints
from recsys_jax.training.batches import Fitted, Prepared, TrainData, prepare
from recsys_jax.training.loop import Progress, run, run_seeds
from recsys_jax.training.step import loss_of
from recsys_jax.training.wide import fit_wide


@own_settings()
def fit(
    dataset: Dataset,
    config: Config,
    *,
    train: Bool[np.ndarray, " n"] | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainedModel:
    """Trains on the purchases of a dataset for which `train` is true (all by default).

    Vocabularies, scaling and popularity come from those purchases' customers and from the product catalogue alone. With
    `checkpoints` a training that was killed goes on to the same bytes as one that was not. `progress` is called with
    how much is done, of how much, and a short description of the current state.

    Raises `InputError` where there is nothing to learn from, `Diverged` where the loss is no finite number, and
    `Stopped` where the checkpoints say so.
    """
    prepared = prepare(dataset, config, train)
    if isinstance(config, WideConfig):
        return _model(prepared, config, fit_wide(prepared, config, progress=progress, checkpoints=checkpoints))
    data = prepared.data(config)
    module = two_tower(config, prepared.customer_space, prepared.product_space)
    found = run(module, data, config, progress=progress, checkpoints=checkpoints)
    return _model(prepared, config, _deep(prepared, config, data, *found))


@own_settings()
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

    Every seed needs room for its parameters, three times with Adam's averages, and for what a step computes. So at most
    `at_once` train together, one portion after the other, divided among JAX's devices; with extra customers, which each
    seed draws anew, one. Raises `InputError` as `fit` does, and for no seeds, one twice, or one that no config admits.
    """
    if at_once < 1:
        raise InputError(f"at_once: found {at_once}; allowed: 1 or more")
    if not isinstance(config, DeepConfig):
        if len(seeds) == 1:
            return [fit(dataset, replace(config, seed=seeds[0]), train=train, progress=progress)]
        raise InputError(f"seeds: found {len(seeds)}; allowed: one with the {config.recipe} recipe, which has one fit")
    if not seeds:
        raise InputError("seeds: found none; allowed: one or more")
    for place, seed in enumerate(seeds):
        if seed in seeds[:place]:
            raise InputError(f"seeds: found {seed} more than once; allowed: each seed once")
    configs = [replace(config, seed=seed) for seed in seeds]
    prepared = prepare(dataset, config, train)
    module = two_tower(config, prepared.customer_space, prepared.product_space)
    shared = None if config.extra_customers else prepared.data(configs[0])
    most = at_once if shared is not None else 1
    size = -(-len(configs) // -(-len(configs) // most))  # portions as equal as can be
    models: dict[int, TrainedModel] = {}
    for start in range(0, len(configs), size):
        # The last portion is filled up with seeds that are done: a shorter one would be compiled anew.
        portion = configs[min(start, len(configs) - size) :][:size]
        new = min(size, len(configs) - start)

        def update(done: int, total: int, word: str, start: int = start, new: int = new) -> None:
            if progress is not None:
                progress(start * total + done * new, len(configs) * total, word)

        data = prepared.data(portion[0]) if shared is None else shared
        for one, found in zip(portion, run_seeds(module, data, portion, progress=update), strict=True):
            models[one.seed] = _model(prepared, one, _deep(prepared, one, data, *found))
    return [models[one.seed] for one in configs]


def _deep(
    prepared: Prepared, config: DeepConfig, data: TrainData, variables: dict[str, Any], losses: np.ndarray, steps: int
) -> Fitted:
    """What a run on `data` gives, once embedding rows that it never used have the mean of those that it used.

    Such a row still holds its random start: an unknown brand would point anywhere. The mean makes it an average one.
    Where no row was used at all, it is zeros, as what training saw. The `variables` are changed in place.
    """
    purchases = prepared.purchases
    embedded = purchases > 0 if config.negatives_among == "purchased" else np.full(len(purchases), True)
    sides = {
        "customer": (prepared.customer_space, data.customers, np.arange(int(data.customer_count))),
        "product": (prepared.product_space, prepared.products, embedded),
    }
    hidden = {("customer", f.feature.name): f.missing_row for f in prepared.customer_space if config.attribute_dropout}
    if config.id_embedding and config.id_dropout:
        hidden["product", "product_id"] = prepared.product_space["product_id"].unknown_row
    for side, (space, features, trained) in sides.items():
        tables = variables["params"][side]["deep"]
        for name, kind, size in space.inputs:
            if kind == "numeric":
                continue
            rows = np.asarray(features[name])[trained]
            used = np.bincount(rows[rows >= 0].ravel(), minlength=size)
            table = tables[f"{name}_emb"]
            mean = used.astype(np.float32) @ table / np.float32(max(used.sum(), 1))
            untrained = used == 0
            if (trained_by_hiding := hidden.get((side, name))) is not None:
                untrained[trained_by_hiding] = False
            tables[f"{name}_emb"] = np.where(untrained[:, None], mean, table)
    scale = 0.5 * config.temperature * config.popularity_bias  # a score is half of a cosine
    batches = {"customer": steps, "product": steps * max(loss_of(config).passes, 1)}
    return Fitted(variables, SMOOTHED.kept(purchases.astype(np.float64), scale), losses, batches, {})


def _model(prepared: Prepared, config: Config, fitted: Fitted) -> TrainedModel:
    wide = fitted.variables["params"]["customer"].get("wide", {})
    width = len(wide["offset"]) + 2 if wide else config.output_dim
    module = two_tower(config, prepared.customer_space, prepared.product_space, width)
    return TrainedModel(
        schema=prepared.schema,
        config=config,
        customers=prepared.customer_space,
        products=prepared.product_space,
        product_ids=prepared.product_ids,
        product_rows=prepared.product_rows,
        product_embeddings=np.asarray(encode_products(module, fitted.variables, prepared.products)),
        purchases=prepared.purchases,
        trained_on=prepared.trained_on,
        average=Average.of(prepared.customer_space, prepared.customers, prepared.pairs[:, 0], knots_of(wide)),
        **fitted._asdict(),
    )
