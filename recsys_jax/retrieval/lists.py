"""Lists that are more than the best k: products that must be in, at most so many of a kind, and different ones.

Of the best products of each customer it is decided which are listed, and whether any that was not looked at could be.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32


class Rules(NamedTuple):
    """What a list is made by, beside the order of the values."""

    diversity: float
    """From 0, the order of the values, to 1: each product as unlike those before it as can be."""
    vectors: Float[np.ndarray, "p e"]
    """Unit vectors of the products, whose dot product is how alike two are."""
    kinds: Sequence[Int32[np.ndarray, "p _"]]
    """By limit, the kinds that each product is of, numbered and padded with -1."""
    limits: Sequence[int]
    """How many products of one kind a list has at most."""


def arrange(
    rules: Rules,
    k: int,
    first: Int[np.ndarray, "n q"],
    rows: Int[np.ndarray, "n m"],
    values: Float[np.ndarray, "n m"],
    average: Float[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, "n k"], Bool[np.ndarray, " n"]]:
    r"""The lists of n customers, padded with -1, and which of them no further candidate could change.

    One product after the other is taken, that with the greatest $(1 - \delta)\,r_j - \delta\,\max_i \max(s_{ij}, 0)$
    among those whose kinds are not used up, ties going to the better one: maximal marginal relevance (Carbonell and
    Goldstein, 1998), with the diversity $\delta$, the likeness s to those taken before, and the relevance
    $r_j = (v_j - \bar v) / (v_1 - \bar v)$, which is 1 for the best product and 0 for the average one.

    Args:
        rules: what the lists are made by.
        k: how many products.
        first: products that come first whatever their value or kind, padded with -1.
        rows: candidates, the best first, padded with -1; those of `first` are not among them.
        values: of the candidates.
        average: the value of each customer's average product.

    A product that is no candidate is worth at most $(1 - \delta)$ times the relevance of the last one. So a list is
    certain where each taken product is worth that much, or where there are no more products than candidates.
    """
    everyone, kept = np.arange(len(rows)), 1.0 - rules.diversity
    # Whatever values are rounded to, the order is that of the candidates; what is no candidate is worth nothing.
    values = np.minimum.accumulate(np.where(rows < 0, np.inf, values), axis=1)
    values = np.where(rows < 0, average[:, None], values)
    best = values[:, 0] if values.shape[1] else average
    spread = np.where(best > average, best - average, 1.0)
    candidates = np.concatenate([first, rows], axis=1)
    worth = np.concatenate([np.zeros(first.shape), (values - average[:, None]) / spread[:, None]], axis=1) * kept
    worth[candidates < 0] = -np.inf
    least = np.full(len(rows), -np.inf)
    if rows.shape[1]:
        least = np.where(rows[:, -1] >= 0, worth[:, -1], -np.inf)
    pinned = np.arange(candidates.shape[1]) < first.shape[1]
    of = [np.where(candidates[..., None] >= 0, kind[candidates], -1) for kind in rules.kinds]  # (n, c, w)
    used = [np.zeros(own.shape, np.int32) for own in of]
    likeness = np.zeros(candidates.shape)
    lists, certain = np.full((len(rows), k), -1, np.int64), np.full(len(rows), True)
    for place in range(k):
        gain = worth - rules.diversity * likeness
        for own, count, limit in zip(of, used, rules.limits, strict=True):
            gain[((count >= limit) & (own >= 0)).any(axis=2)] = -np.inf
        gain = np.where(pinned & np.isfinite(worth), np.inf, gain)
        taken = gain.argmax(axis=1)
        value = gain[everyone, taken]
        there = value > -np.inf
        certain &= value >= least
        product = candidates[everyone, taken]
        lists[there, place] = product[there]
        worth[everyone, taken] = -np.inf
        for own, count in zip(of, used, strict=True):
            mine = np.where(there[:, None], own[everyone, taken], -1)  # (n, w)
            count += ((own[..., None] == mine[:, None, None]) & (own >= 0)[..., None]).any(axis=3)
        if rules.diversity:
            alike = np.einsum("nce,ne->nc", rules.vectors[candidates], rules.vectors[product])
            likeness = np.maximum(likeness, alike)
    return lists, certain
