"""Ranking metrics: scores and targets in, one value per query or list out; whoever calls them averages.

Products with equal scores have no order. A metric is then its expectation over all orders of the tied products, so a
method cannot gain or lose by the order of a file, and constant scores give the exact figures of a random ranking. A
product whose score is -inf is not ranked; `count_matched_auc` wants it left out, since it balances what is compared.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Real

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


def ranks_in_rows(
    scores: Float[np.ndarray, "g p"], rows: Int[np.ndarray, " n"], targets: Int[np.ndarray, " n"]
) -> Ranks:
    """`ranks` of queries that share rows of scores: a row with many targets is sorted, once for all.

    >>> better, equal = ranks_in_rows(np.array([[0.9, 0.5, 0.5, 0.1]]), np.array([0, 0]), np.array([2, 3]))
    >>> better.tolist(), equal.tolist()
    ([1, 3], [2, 1])
    """
    if len(rows) < 8 * len(scores):  # too few targets for sorting to pay
        return ranks(scores[rows], targets)
    ascending = np.sort(scores, axis=1)
    wanted = scores[rows, targets]
    above, below = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    order = np.argsort(rows, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(rows[order])) + 1):
        if len(part):
            row = ascending[rows[part[0]]]
            below[part] = np.searchsorted(row, wanted[part], side="left")
            above[part] = len(row) - np.searchsorted(row, wanted[part], side="right")
    return above, scores.shape[1] - above - below


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


def list_metrics(ranked: Ranks, lists: Int[np.ndarray, " n"], *, k: int) -> dict[str, Float64[np.ndarray, " l"]]:
    """Precision@k, Recall@k, MAP@k and NDCG@k of each list with one or more relevant products, of which row i is one.

    `lists` has the number of the list that each belongs to, from 0; all have one. Of a list with r relevant products,
    of which h(p) are among the first p: Precision@k = h(k) / k; Recall@k = h(k) / r; NDCG@k = the sum of
    1 / log2(1 + p) over their places p <= k, divided by that of the places 1 to min(r, k); AP@k, whose mean over lists
    is MAP@k, = the sum of h(p) / p over these places, divided by r.

    Ties are expectations: a product with b better ones, s of them relevant, that ties with e - 1 others, m of them
    relevant, is at the place b + q for q = 1 to e alike, and then h is expected to be 1 + s + m (q - 1) / (e - 1).

    >>> found = list_metrics((np.array([0, 2]), np.array([1, 1])), np.array([0, 0]), k=3)  # at the places 1 and 3
    >>> {name: round(float(value[0]), 4) for name, value in found.items()}  # map: (1 + 2 / 3) / 2
    {'precision@3': 0.6667, 'recall@3': 1.0, 'map@3': 0.8333, 'ndcg@3': 0.9197}
    """
    better, equal = ranked
    relevant = np.bincount(lists)
    # Those of a list that tie are a group; groups are numbered list by list, the better first.
    _, group, size = np.unique(lists * (better.max(initial=0) + 1) + better, return_inverse=True, return_counts=True)
    above = (np.cumsum(size) - size)[group] - (np.cumsum(relevant) - relevant)[lists]
    hit = hit_at_k(ranked, k=k)
    inverse = _mean_over_ties(ranked, lambda rank: np.where(rank <= k, 1.0 / rank, 0.0))
    # h(p) / p = (1 + s + m (p - b - 1) / (e - 1)) / p is a constant, and another one times 1 / p.
    share = (size[group] - 1) / np.maximum(equal - 1, 1)
    precision = (1 + above - share * (better + 1)) * inverse + share * hit
    hits, precisions, gains = (np.bincount(lists, one) for one in (hit, precision, ndcg_at_k(ranked, k=k)))
    ideal = np.cumsum(1.0 / np.log2(1.0 + np.arange(1, relevant.max(initial=0) + 1)))[np.minimum(relevant, k) - 1]
    return {
        f"precision@{k}": hits / k,
        f"recall@{k}": hits / relevant,
        f"map@{k}": precisions / relevant,
        f"ndcg@{k}": gains / ideal,
    }


def category_ranks(scores: Float[np.ndarray, "n p"], same_category: Bool[np.ndarray, "n p"]) -> CategoryRanks:
    """Where the best product of each target's category stands, of which `same_category` is true (n, p).

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


def count_matched_auc(
    scores: Float[np.ndarray, "n p"], targets: Int[np.ndarray, " n"], counts: Real[np.ndarray, " p"], *, least: int = 10
) -> Float64[np.ndarray, " n"]:
    """Share of the products bought as often in training as the target that score below it, ties half: .5 is no signal.

    Scores that strictly rise with the count, or fall, give .5 for every query: popularity is no signal. Compared are
    the others with the target's own count, s of them. Where they are fewer than `least`, the nearest counts join, as
    many above as below, m = min(ceil((least - s) / 2), products above, products below) on each side, else m = 0; of the
    last count, all products count alike, in part. AUC = (products below the target's score + ties / 2) / (s + 2 m).

    nan where s + 2 m = 0: nobody has the count of a product that is bought most, or least, of all. Comparing it with
    one side alone would reward popularity. A mean over queries leaves these out (`np.nanmean`).

    >>> scores, counts = np.array([[0.9, 0.5, 0.5, 0.1]]), np.array([3, 3, 3, 7])
    >>> count_matched_auc(scores, np.array([1]), counts).tolist()  # below the first, level with the second
    [0.25]
    >>> count_matched_auc(scores, np.array([3]), counts).tolist()  # none is bought more
    [nan]
    """
    _, level, sizes = np.unique(counts, return_inverse=True, return_counts=True)
    by_count = np.argsort(level, kind="stable")
    ends = np.cumsum(sizes)
    begins = ends - sizes
    wanted = -(-np.maximum(least + 1 - sizes, 0) // 2)
    side = np.minimum(wanted, np.minimum(begins, len(counts) - ends))
    # The outermost counts, and which share of their products is needed. Where no side is, this is the count itself.
    last = len(counts) - 1
    low, high = level[by_count[begins - side]], level[by_count[np.minimum(ends + side - 1, last)]]
    low_share = np.where(side > 0, (ends[low] - begins + side) / sizes[low], 1.0)
    high_share = np.where(side > 0, (ends + side - begins[high]) / sizes[high], 1.0)
    total = sizes - 1 + 2 * side

    out = np.full(len(targets), np.nan)
    asked = level[targets]
    by_level = np.argsort(asked, kind="stable")
    # Queries of one count share their band, which is small next to all products: it is cut out of the scores.
    for rows in np.split(by_level, np.flatnonzero(np.diff(asked[by_level])) + 1):
        if not len(rows) or total[own := asked[rows[0]]] == 0:
            continue
        band = by_count[begins[low[own]] : ends[high[own]]]
        weight = np.ones(len(band))
        weight[: sizes[low[own]]] = low_share[own]
        weight[len(band) - sizes[high[own]] :] = high_share[own]
        target = scores[rows, targets[rows]][:, None]
        others = scores[rows[:, None], band]
        # The target ties with itself, which is no comparison.
        below = (others < target) @ weight + 0.5 * ((others == target) @ weight) - 0.5
        out[rows] = below / total[own]
    return out


def _mean_over_ties(ranked: Ranks, gain: Callable[[np.ndarray], np.ndarray]) -> Float64[np.ndarray, " n"]:
    better, equal = ranked
    total = np.concatenate([[0.0], np.cumsum(gain(np.arange(1, (better + equal).max(initial=0) + 1)))])
    return np.asarray((total[better + equal] - total[better]) / equal)
