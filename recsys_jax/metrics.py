"""Ranking metrics: scores and targets in, one value per query out; whoever calls them averages.

Products with equal scores have no order. A metric is then its expectation over all orders of the tied products, so a
method cannot gain or lose by the order of a file, and constant scores give the exact figures of a random ranking.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

__all__ = ["category_hit", "category_hit_at_k", "category_ranks", "hit_at_k", "ndcg_at_k", "ranks", "reciprocal_rank"]

Ranks = tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
"""For each query how many products score better than the target, and how many score the same, itself included."""

CategoryRanks = tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
"""For each query how many products score better than the best one of the target's category, how many score the same,
itself included, and how many of those are of the category."""


def ranks(scores: Float[np.ndarray, "n p"], targets: Int[np.ndarray, " n"]) -> Ranks:
    """Where each target stands among all products; the other metrics take this.

    >>> better, equal = ranks(np.array([[0.9, 0.5, 0.5, 0.1]]), np.array([2]))
    >>> better.tolist(), equal.tolist()
    ([1], [2])
    """
    target = np.take_along_axis(scores, targets[:, None], axis=1)
    return (scores > target).sum(axis=1), (scores == target).sum(axis=1)


def hit_at_k(ranked: Ranks, *, k: int) -> Float64[np.ndarray, " n"]:
    """Hit@k: 1 where the target is among the first k, else 0.

    >>> hit_at_k((np.array([0, 2, 4]), np.array([1, 2, 1])), k=3).tolist()  # the second is 3rd or 4th
    [1.0, 0.5, 0.0]
    """
    better, equal = ranked
    return np.asarray(np.clip((k - better) / equal, 0.0, 1.0))


def reciprocal_rank(ranked: Ranks) -> Float64[np.ndarray, " n"]:
    """1 / rank of the target; its mean over queries is the MRR.

    >>> reciprocal_rank((np.array([0, 1]), np.array([1, 2]))).tolist()  # 1, and the mean of 1/2 and 1/3
    [1.0, 0.41666666666666663]
    """
    return _mean_over_ties(ranked, lambda rank: 1.0 / rank)


def ndcg_at_k(ranked: Ranks, *, k: int) -> Float64[np.ndarray, " n"]:
    """NDCG@k of one relevant product: 1 / log2(1 + rank) where the rank is at most k, else 0.

    >>> ndcg_at_k((np.array([0, 2, 4]), np.array([1, 1, 1])), k=3).round(12).tolist()
    [1.0, 0.5, 0.0]
    """
    return _mean_over_ties(ranked, lambda rank: np.where(rank <= k, 1.0 / np.log2(1.0 + rank), 0.0))


def category_ranks(scores: Float[np.ndarray, "n p"], same_category: Bool[np.ndarray, "n p"]) -> CategoryRanks:
    """Where the best product of each target's category stands; `category_hit` takes this, for any k.

    Args:
        scores: of every product for every query (n, p).
        same_category: which products share the category of the query's target (n, p).

    >>> better, equal, wanted = category_ranks(np.array([[0.9, 0.5, 0.5, 0.1]]), np.array([[False, True, False, True]]))
    >>> better.tolist(), equal.tolist(), wanted.tolist()
    ([1], [2], [1])
    """
    best = np.max(scores, axis=1, where=same_category, initial=-np.inf)[:, None].astype(scores.dtype)
    level = scores == best
    return (scores > best).sum(axis=1), level.sum(axis=1), (level & same_category).sum(axis=1)


def category_hit(ranked: CategoryRanks, *, k: int) -> Float64[np.ndarray, " n"]:
    """Category Hit@k: 1 where one of the first k products is of the target's category, else 0.

    >>> category_hit((np.array([0]), np.array([4]), np.array([1])), k=2).tolist()  # 1 - C(3, 2) / C(4, 2)
    [0.5]
    """
    better, equal, wanted = ranked
    places = np.clip(k - better, 0, equal)  # what the better ones, none of them wanted, leave of the list
    # None of the places goes to a wanted one: C(equal - wanted, places) / C(equal, places), place by place.
    none = np.ones(len(better))
    for i in range(int(places.max(initial=0))):
        none *= np.where(i < places, np.maximum(equal - wanted - i, 0) / np.maximum(equal - i, 1), 1.0)
    return np.asarray(1.0 - none)


def category_hit_at_k(
    scores: Float[np.ndarray, "n p"], same_category: Bool[np.ndarray, "n p"], *, k: int
) -> Float64[np.ndarray, " n"]:
    """`category_hit` of scores, for one k.

    >>> category_hit_at_k(np.zeros((1, 4)), np.array([[True, False, False, False]]), k=2).tolist()
    [0.5]
    """
    return category_hit(category_ranks(scores, same_category), k=k)


def _mean_over_ties(ranked: Ranks, gain: Callable[[np.ndarray], np.ndarray]) -> Float64[np.ndarray, " n"]:
    better, equal = ranked
    total = np.concatenate([[0.0], np.cumsum(gain(np.arange(1, (better + equal).max(initial=0) + 1)))])
    return np.asarray((total[better + equal] - total[better]) / equal)
