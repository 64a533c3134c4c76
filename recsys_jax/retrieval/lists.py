"""Lists that are more than the best k: products that must be in, at most so many of a kind, and different ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

TIES = 1e-8
"""The least weight of a value beside likeness: the better of two that are as unlike those before comes first."""


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
    rows: Int[np.ndarray, "n m"] | None,
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
        first: products that come first whatever their value or kind, padded with -1 at the end.
        rows: candidates, the best first, padded with -1; those of `first` are not among them. None: all products.
        values: of the candidates; -inf for what is none, and of all products for those of `first`, too.
        average: the value of each customer's average product.

    A product that is no candidate is worth at most $(1 - \delta)$ times the relevance of the last one. So a list is
    certain where each taken product is worth that much, or where there are no more products than candidates.
    """
    everyone, pinned = np.arange(len(values)), first.shape[1]
    if rows is not None:  # whatever values are rounded to, the order is that of the candidates
        values = np.where(rows < 0, -np.inf, np.minimum.accumulate(np.where(rows < 0, np.inf, values), axis=1))
    best = values.max(axis=1, initial=-np.inf)
    spread = np.where(np.isfinite(best) & (best > average), best - average, 1.0)
    with np.errstate(invalid="ignore"):  # 0 times what is no candidate
        worth = max(1.0 - rules.diversity, TIES) * ((values - average[:, None]) / spread[:, None])
    worth[np.isneginf(values)] = -np.inf
    least = np.full(len(values), -np.inf)
    columns = first  # where the products that come first stand among the candidates
    candidates = None if rows is None else np.concatenate([first, rows], axis=1)
    if rows is not None:
        least = worth[:, -1].copy() if rows.shape[1] else least
        worth = np.concatenate([np.full(first.shape, -np.inf), worth], axis=1)
        columns = np.where(first < 0, -1, np.arange(pinned))
    # (n, c, w) of candidates; (1, p, w) of all products
    of = [
        kind[None] if candidates is None else np.where(candidates[..., None] < 0, -1, kind[candidates])
        for kind in rules.kinds
    ]
    used = [np.zeros((len(values), *own.shape[1:]), np.int32) for own in of]
    vectors = rules.vectors.T if candidates is None else rules.vectors[candidates]
    likeness = np.zeros(worth.shape)
    lists, certain = np.full((len(values), k), -1, np.int64), np.full(len(values), True)
    for place in range(k):
        gain = worth - rules.diversity * likeness
        for own, count, limit in zip(of, used, rules.limits, strict=True):
            gain[((count >= limit) & (own >= 0)).any(axis=2)] = -np.inf
        taken = gain.argmax(axis=1)
        value = gain[everyone, taken]
        if place < pinned:
            due = columns[:, place] >= 0
            taken, value = np.where(due, columns[:, place], taken), np.where(due, np.inf, value)
        there = value > -np.inf
        certain &= value >= least
        product = taken if candidates is None else candidates[everyone, taken]
        lists[there, place] = product[there]
        worth[everyone, taken] = -np.inf
        for kind, own, count in zip(rules.kinds, of, used, strict=True):
            mine = np.where(there[:, None], kind[product], -1)  # (n, w)
            count += ((own[..., None] == mine[:, None, None]) & (own >= 0)[..., None]).any(axis=3)
        if rules.diversity:
            chosen = rules.vectors[product]
            alike = chosen @ vectors if candidates is None else np.einsum("nce,ne->nc", vectors, chosen)
            likeness = np.maximum(likeness, alike)
    return lists, certain
