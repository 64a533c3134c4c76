"""The wide recipe: sums of one vector per attribute value, whose dot products are the best fit to the full softmax."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float64

from recsys_jax.config import WideConfig
from recsys_jax.errors import InputError
from recsys_jax.models.basis import KNOTS, Design
from recsys_jax.models.popularity import learn_popularity
from recsys_jax.storage.checkpoints import Checkpoints
from recsys_jax.training.batches import Fitted, Prepared
from recsys_jax.training.convex import Fit, best_fit
from recsys_jax.training.loop import Progress
from recsys_jax.training.penalties import choose_penalties
from recsys_jax.training.purchases import TrainingPurchases

NEGLIGIBLE = 0.01
"""Vectors no longer than this, in log-odds, change nothing that anybody would notice."""


def fit_wide(
    prepared: Prepared, config: WideConfig, *, progress: Progress | None, checkpoints: Checkpoints | None
) -> Fitted:
    """Chooses the penalties that the config leaves open and fits all purchases with them.

    A product that nobody bought counts as new: it is known by its attributes. With `checkpoints` a search that was
    killed goes on to the same bytes as one that was not. Raises `InputError` where the objective is no finite number,
    and `Stopped` where the checkpoints say so.
    """
    data = TrainingPurchases.of(prepared)

    def told(done: int, total: int, word: str) -> None:
        """The fit of all purchases is one more than those that choose."""
        if progress is not None:
            progress(done, total + 1, word)

    penalties, fits = choose_penalties(data, config, told, checkpoints)
    everything = np.ones(len(data.pairs), bool)
    counts = data.counts(everything)
    known = counts > 0
    factors = data.item_factors(everything, config.item_factors)
    learned = learn_popularity(counts[known], data.attributes[known])
    popularity = learned.of(counts, data.attributes)
    told(fits, fits, "all purchases")
    heed = (lambda: None) if checkpoints is None else checkpoints.heed
    fit = best_fit(data, everything, popularity, factors, penalties, known=known, seed=config.seed, heed=heed)
    told(fits + 1, fits, f"loss {fit.losses[-1]:.4f}")
    if not np.isfinite(fit.losses).all():
        step = int(np.argmax(~np.isfinite(fit.losses))) + 1
        raise InputError(f"training, step {step:,}: found the loss {fit.losses[step - 1]}; allowed: a finite number")
    variables = _variables(prepared, config, data, factors, fit)
    radii = [variables["params"][side]["radius"] for side in ("customer", "product")]
    scale = 0.5 / float(radii[0] * radii[1])  # a cosine is log-odds divided by both radii, and a score half of it
    kept = learned.kept(counts, scale, data.attributes, data.product_design)
    chosen = {f"{name}_l2": value for name, value in penalties._asdict().items()}
    return Fitted(variables, kept, np.asarray(fit.losses, np.float32), {"customer": 0, "product": 0}, chosen)


def _variables(
    prepared: Prepared, config: WideConfig, data: TrainingPurchases, factors: Float64[np.ndarray, "p r"], fit: Fit
) -> dict[str, Any]:
    """Parameters whose dot products are the fit's, in as few dimensions as it has, at most `output_dim` - 2."""
    purchases = prepared.purchases
    weights = np.bincount(data.combination[data.pairs[:, 0]], minlength=len(data.rows)) / len(data.pairs)
    changes = fit.of_products(data.attributes, factors) * np.sqrt((purchases + 1.0) / purchases.sum())
    into, out = _directions(data.rows, weights, changes, config.output_dim - 2)
    customers = _with_means(data.design, data.average, data.design.prior @ into)
    attributes = data.product_design.prior @ (out @ fit.attribute).T
    own = (out @ (fit.own + fit.factor @ factors.T)).T

    ids = np.zeros((prepared.product_space["product_id"].input.size, len(out)))
    ids[: len(own)] = own  # the last row, of unknown products, stays zero
    customer = _tables(data.design, customers) | {"offset": -data.average @ customers}
    product = _tables(data.product_design, attributes) | {"offset": np.zeros(len(out)), "product_id_emb": ids}
    sides = {
        "customer": {"wide": customer, "radius": _radius(data.rows[weights > 0] @ into)},
        "product": {"wide": product, "radius": _radius(own + data.attributes @ (out @ fit.attribute).T)},
    }
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), {"params": sides})  # type: ignore[no-any-return]


def _directions(
    rows: Float64[np.ndarray, "r f"], weights: Float64[np.ndarray, " r"], changes: Float64[np.ndarray, "f p"], most: int
) -> tuple[Float64[np.ndarray, "f d"], Float64[np.ndarray, "d f"]]:
    """The maps into d dimensions and back that lose least of rows . changes.

    They are the first singular vectors of moment^1/2 . changes: all that are not zero, or the first `most`.
    """
    values, vectors = np.linalg.eigh(rows.T @ (weights[:, None] * rows))
    there = values > max(1e-12 * values.max(), 1e-30)
    if not there.any():  # all customers have the same attributes
        return np.zeros((rows.shape[1], 1)), np.zeros((1, rows.shape[1]))
    root, inverse = (vectors[:, there] * values[there] ** power for power in (0.5, -0.5))
    left, singular, _ = np.linalg.svd(root.T @ changes, full_matrices=False)
    dim = int(np.clip((singular > 1e-6 * singular.max()).sum(), 1, most))
    return inverse @ left[:, :dim], (root @ left[:, :dim]).T


def _with_means(
    design: Design, average: Float64[np.ndarray, " f"], columns: Float64[np.ndarray, "f d"]
) -> Float64[np.ndarray, "f d"]:
    """The columns' vectors, where unseen values get their feature's weighted mean.

    Unseen knots of a number are interpolated instead: an age between two known ones gets what lies between theirs.
    """
    out = columns.copy()
    for (name, kind, _), part in zip(design.space.inputs, design.parts.values(), strict=True):
        unseen = average[part] == 0
        if kind == "numeric" and not unseen[:KNOTS].all():
            knots, there = design.knots[name], ~unseen[:KNOTS]
            curve = out[part][:KNOTS]
            for column in curve.T:
                column[~there] = np.interp(knots[~there], knots[there], column[there])
            unseen[:KNOTS] = False
        share = average[part] / max(average[part].sum(), 1e-30)
        out[part][unseen] = share @ columns[part]
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
    """The radius of a ball that holds them all, with some room: at its surface the last coordinate is all rounding.

    Where the vectors are negligible it is 1: in a tiny ball popularity would outweigh every boost rule.
    """
    longest = float(np.linalg.norm(vectors, axis=1).max())
    return 1.01 * longest if longest > NEGLIGIBLE else 1.0
