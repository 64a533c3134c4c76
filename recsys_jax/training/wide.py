"""The recipe for recommending: linear towers whose dot products are the best fit to the full softmax."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float64

from recsys_jax.config import WideConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.errors import InputError
from recsys_jax.models.basis import Design, Popularity, learn_popularity
from recsys_jax.models.towers import encode_products
from recsys_jax.models.trained import TrainedModel
from recsys_jax.models.wide import KNOTS, of_variables
from recsys_jax.storage.checkpoints import Checkpoints
from recsys_jax.training.convex import Fit, Penalties, TrainingPurchases, best_fit
from recsys_jax.training.penalties import choose_penalties
from recsys_jax.training.preparation import Prepared, prepare

__all__ = ["fit_linear"]

NOTHING = 0.01
"""Vectors no longer than this, in log-odds, say nothing that anybody would notice."""


def fit_linear(
    dataset: Dataset,
    config: WideConfig,
    *,
    train: Bool[np.ndarray, " n"] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainedModel:
    """Fits the towers to the purchases of a dataset for which `train` is true (all by default).

    Everything learned comes from those purchases' customers and from the product catalogue alone. A product that
    nobody bought counts as new: it is known by its attributes. `progress` is called with the fits done, of how many,
    and the penalties of the last. With `checkpoints` a search that was killed goes on to the same bytes as one that was
    not. Raises `InputError` where there is nothing to learn from or the objective is no finite number, and `Stopped`
    where the checkpoints say so.
    """
    prepared = prepare(dataset, config, train)
    data = TrainingPurchases.of(prepared, dataset.customers.source)
    penalties = choose_penalties(data, config, progress, checkpoints)
    everything = np.ones(len(data.pairs), bool)
    counts = data.counts(everything)
    known = counts > 0
    described = data.item_factors(everything, config.item_factors)
    learned = learn_popularity(counts[known], data.attributes[known])
    popularity = learned.of(counts, data.attributes)
    fit = best_fit(data, everything, popularity, described, penalties, known=known, seed=config.seed)
    if not np.isfinite(fit.losses).all():
        step = int(np.argmax(~np.isfinite(fit.losses))) + 1
        raise InputError(f"training, step {step:,}: found the loss {fit.losses[step - 1]}; allowed: a finite number")
    return _model(prepared, config, data, described, penalties, fit, learned)


def _model(
    prepared: Prepared,
    config: WideConfig,
    data: TrainingPurchases,
    described: Float64[np.ndarray, "p r"],
    penalties: Penalties,
    fit: Fit,
    popularity: Popularity,
) -> TrainedModel:
    """Towers whose dot products are the fit's, in as few dimensions as it has, or in the best `output_dim` - 2."""
    purchases = prepared.purchases
    weights = np.bincount(data.combination[data.pairs[:, 0]], minlength=len(data.rows)) / len(data.pairs)
    changes = fit.of_products(data.attributes, described) * np.sqrt((purchases + 1.0) / purchases.sum())
    into, out = _directions(data.rows, weights, changes, config.output_dim - 2)
    dim = len(out)
    customers = _said_by_default(data.design, data.average, data.design.prior @ into)
    attributes = data.product_design.prior @ (out @ fit.attribute).T
    own = (out @ (fit.own + fit.taste @ described.T)).T

    inputs = prepared.product_space["product_id"].input
    ids = np.zeros((inputs.size, dim))
    ids[: len(own)] = own  # the last row, of unknown products, stays zero
    of_id = np.full(inputs.size, np.nan)
    average = np.log(popularity.weight * purchases.mean() + popularity.doubt)
    of_id[: len(own)] = popularity.of(purchases.astype(np.float64), data.attributes) - average
    sides = {
        "customer": _tables(data.design, customers)
        | {"offset": -data.average @ customers, "radius": _radius(data.rows[weights > 0] @ into)},
        "product": _tables(data.product_design, attributes)
        | {
            "offset": np.zeros(dim),
            "product_id_emb": ids,
            "radius": _radius(own + data.attributes @ (out @ fit.attribute).T),
        },
    }
    tables = data.product_design.prior @ popularity.coefficients
    counted = {
        "attributes": {name: tables[part] for name, part in data.product_design.parts.items()},
        "constant": popularity.constant + np.log(popularity.doubt) - average,
        "of_id": of_id,
    }
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


def _directions(
    rows: Float64[np.ndarray, "r f"],
    weights: Float64[np.ndarray, " r"],
    changes: Float64[np.ndarray, "f p"],
    most: int,
) -> tuple[Float64[np.ndarray, "f d"], Float64[np.ndarray, "d f"]]:
    """Of all maps into d dimensions and out of them again, the ones that lose least of rows . changes.

    They are the first singular vectors of moment^1/2 . changes: all that are not zero, or the first `most`.
    """
    values, vectors = np.linalg.eigh(rows.T @ (weights[:, None] * rows))
    there = values > max(1e-12 * values.max(), 1e-30)
    if not there.any():  # all customers state the same
        return np.zeros((rows.shape[1], 1)), np.zeros((1, rows.shape[1]))
    root, inverse = (vectors[:, there] * values[there] ** power for power in (0.5, -0.5))
    left, singular, _ = np.linalg.svd(root.T @ changes, full_matrices=False)
    dim = int(np.clip((singular > 1e-6 * singular.max()).sum(), 1, most))
    return inverse @ left[:, :dim], (root @ left[:, :dim]).T


def _said_by_default(
    design: Design, average: Float64[np.ndarray, " f"], columns: Float64[np.ndarray, "f d"]
) -> Float64[np.ndarray, "f d"]:
    """The columns' vectors, where those that nobody in training has are that of the average of their feature.

    Not so the knots of a number: between two ages that somebody has lies what lies between theirs.
    """
    out = columns.copy()
    for (name, kind, _), part in zip(design.space.inputs, design.parts.values(), strict=True):
        nobody = average[part] == 0
        if kind == "numeric" and not nobody[:KNOTS].all():
            knots, there = design.knots[name], ~nobody[:KNOTS]
            curve = out[part][:KNOTS]
            for column in curve.T:
                column[~there] = np.interp(knots[~there], knots[there], column[there])
            nobody[:KNOTS] = False
        share = average[part] / max(average[part].sum(), 1e-30)
        out[part][nobody] = share @ columns[part]
    return out


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
    """Of a ball that holds them all, with some room: at its surface the rest to unit length is all rounding.

    Where attributes say next to nothing, it is 1: in a tiny ball popularity would count millions, and no boost rule.
    """
    longest = float(np.linalg.norm(vectors, axis=1).max())
    return 1.01 * longest if longest > NOTHING else 1.0
