"""Ranking metrics: scores and targets in, one value per query out; whoever calls them averages.

Products with equal scores have no order. A metric is then its expectation over all orders of the tied products, so a
method cannot gain or lose by the order of a file, and constant scores give the exact figures of a random ranking.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Real

__all__ = [
    "Lists",
    "category_hit",
    "category_hit_at_k",
    "category_ranks",
    "count_matched_auc",
    "coverage",
    "gini",
    "hit_at_k",
    "join_lists",
    "ndcg_at_k",
    "ranks",
    "reciprocal_rank",
    "top_lists",
]

NEVER = -1e4
"""Stands for log 0: e to it is exactly 0, yet no resample's weight of 0 makes a nan of it."""

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


def count_matched_auc(
    scores: Float[np.ndarray, "n p"], targets: Int[np.ndarray, " n"], counts: Real[np.ndarray, " p"], *, least: int = 10
) -> Float64[np.ndarray, " n"]:
    """Share of the products bought as often as the target that score below it, ties half: .5 is no signal.

    Scores that strictly rise with the count, or fall, give .5 for every query: popularity is none. Compared are the
    others with the target's own count, s of them. Where they are fewer than `least`, the nearest counts join, as many
    above as below, m = min(ceil((least - s) / 2), products above, products below) on each side, else m = 0; of the last
    count, all products count alike, in part. AUC = (products below the target's score + ties / 2) / (s + 2 m).

    nan where s + 2 m = 0: nobody has the count of a product that is bought most, or least, of all. Comparing it with
    one side alone would reward popularity. A mean over queries leaves these out (`np.nanmean`).

    Args:
        scores: of every product for every query (n, p).
        targets: the product row of each query (n,).
        counts: how often each product was bought in training (p,).
        least: how many others should be compared; 0 compares equal counts alone.

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
        # The target is level with itself, which is no comparison.
        below = (others < target) @ weight + 0.5 * ((others == target) @ weight) - 0.5
        out[rows] = below / total[own]
    return out


@dataclass(frozen=True)
class Lists:
    """The k best products of each of n customers, as shares: 1 is in the list, less is one of those that tie for it.

    Customers with the same list share it, so neither a table per persona nor the random ranking, where every product
    has a share of k / p in every list, needs n x p numbers. `top_lists` makes them of scores.
    """

    rows: Int[np.ndarray, " n"]
    """Which of the r different lists each customer has."""
    starts: Int[np.ndarray, " borders"]
    """Where each list begins in `products` and `shares`, and where the last one ends."""
    products: Int[np.ndarray, " m"]
    shares: Float64[np.ndarray, " m"]
    """The probability that the product is in the list; it sums to min(k, p) over a list."""
    total: int
    """The number of products, p."""

    def of(self, rows: Int[np.ndarray, " c"]) -> "Lists":
        """The lists of customers who have those of the given rows: groups' lists become customers' lists.

        >>> top_lists(np.array([[0.3, 0.1, 0.2], [0.1, 0.2, 0.3]]), k=1).of(np.array([0, 1, 1])).exposure().tolist()
        [1.0, 0.0, 2.0]
        """
        return replace(self, rows=self.rows[rows])

    def exposure(self, weights: Float64[np.ndarray, "b n"] | None = None) -> Float64[np.ndarray, "*b p"]:
        """In how many lists each product is expected; with `weights`, where customer i counts w_i times, per row.

        >>> top_lists(np.array([[0.3, 0.1, 0.1]]), k=2).exposure().tolist()
        [1.0, 0.5, 0.5]
        """
        return self._sums(self.shares, weights)

    def shown(self, weights: Float64[np.ndarray, "b n"] | None = None) -> Float64[np.ndarray, "*b p"]:
        """The probability that a product is shown to anybody: 1 - prod_i (1 - share_i) ** w_i.

        Who has tied products draws among them alone, independently of all others.

        >>> top_lists(np.array([[0.3, 0.1, 0.1]]), k=2).of(np.zeros(3, int)).shown().tolist()
        [1.0, 0.875, 0.875]
        """
        with np.errstate(divide="ignore"):
            missed = np.maximum(np.log1p(-self.shares), NEVER)
        return np.asarray(-np.expm1(self._sums(missed, weights)))

    def novelty(self, counts: Real[np.ndarray, " p"]) -> Float64[np.ndarray, " n"]:
        """Mean over each list of -log2((count + 1) / (all purchases + p)): the bits by which its products surprise.

        >>> top_lists(np.array([[0.3, 0.1]]), k=1).novelty(np.array([0, 6])).tolist()  # 1 of 8
        [3.0]
        """
        bits = np.log2(counts.sum() + self.total) - np.log2(counts + 1.0)
        of_list = self._of_entry
        different = len(self.starts) - 1
        size = np.bincount(of_list, self.shares, different)
        return np.asarray((np.bincount(of_list, self.shares * bits[self.products], different) / size)[self.rows])

    @property
    def _of_entry(self) -> Int[np.ndarray, " m"]:
        return np.asarray(np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts)))

    def _sums(
        self, entries: Float64[np.ndarray, " m"], weights: Float64[np.ndarray, "b n"] | None
    ) -> Float64[np.ndarray, "*b p"]:
        if weights is None:
            return np.asarray(self._sums(entries, np.ones((1, len(self.rows))))[0])
        of_list, different = self._of_entry, len(self.starts) - 1
        out = np.empty((len(weights), self.total))
        # Row by row: the entries of one row fit the cache, those of all rows not the memory.
        for row, weight in enumerate(weights):
            times = np.bincount(self.rows, weight, different)
            out[row] = np.bincount(self.products, times[of_list] * entries, self.total)
        return out


def top_lists(scores: Float[np.ndarray, "n p"], *, k: int) -> Lists:
    """The list of each row of scores: what scores better than the k-th best, and its share of what ties with it.

    >>> lists = top_lists(np.array([[0.9, 0.5, 0.5, 0.1]]), k=2)
    >>> lists.products.tolist(), lists.shares.tolist()
    ([0, 1, 2], [1.0, 0.5, 0.5])
    """
    n, total = scores.shape
    k = min(k, total)
    border = np.partition(scores, total - k, axis=1)[:, total - k]
    listed = scores >= border[:, None]
    size = listed.sum(axis=1)
    plain, tied = np.flatnonzero(size == k), np.flatnonzero(size > k)
    # Rows that tie alike share one list: else constant scores would list every product for every customer.
    better = scores[tied] > border[tied, None]
    bits = np.concatenate([np.packbits(listed[tied], axis=1), np.packbits(better, axis=1)], axis=1)
    _, first, back = np.unique(bits.view(f"V{bits.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    rows = np.empty(n, np.int64)
    rows[plain], rows[tied] = np.arange(len(plain)), len(plain) + back

    source = np.concatenate([plain, tied[first]])
    size = size[source]
    of_list, products = np.nonzero(listed[source])
    sure = scores[source[of_list], products] > border[source[of_list]]
    certain = np.bincount(of_list, sure, len(source))
    shares = np.where(sure, 1.0, ((k - certain) / (size - certain))[of_list])
    return Lists(rows, np.concatenate([[0], np.cumsum(size)]), products.astype(np.int32), shares, total)


def join_lists(parts: Sequence[Lists]) -> Lists:
    """The lists of all parts' customers, one part after the other.

    >>> scores = np.array([[0.3, 0.1], [0.1, 0.3]])
    >>> join_lists([top_lists(scores[:1], k=1), top_lists(scores[1:], k=1)]).exposure().tolist()
    [1.0, 1.0]
    """
    lists = np.cumsum([0, *(len(part.starts) - 1 for part in parts)])
    entries = np.cumsum([0, *(len(part.products) for part in parts)])
    return Lists(
        np.concatenate([part.rows + lists[i] for i, part in enumerate(parts)]),
        np.concatenate([[0], *(part.starts[1:] + entries[i] for i, part in enumerate(parts))]),
        np.concatenate([part.products for part in parts]),
        np.concatenate([part.shares for part in parts]),
        parts[0].total,
    )


def coverage(shown: Float64[np.ndarray, "*b p"]) -> Float64[np.ndarray, "*b"]:
    """Share of the products that anybody is shown, expected: the mean of `Lists.shown`.

    >>> float(coverage(np.array([1.0, 0.5, 0.0, 0.0])))
    0.375
    """
    return np.asarray(shown.mean(axis=-1))


def gini(exposure: Float64[np.ndarray, "*b p"]) -> Float64[np.ndarray, "*b"]:
    """Gini coefficient of `Lists.exposure`: 0, all products are shown alike; 1, one product has all.

    sum_i (2 i - p - 1) x_i / ((p - 1) sum_i x_i), x ascending and i from 1; the same k products for everybody give
    (p - k) / (p - 1). A product that has no others beside it gives 0.

    >>> gini(np.array([[5.0, 5.0, 5.0], [0.0, 15.0, 0.0], [0.0, 5.0, 5.0]])).tolist()
    [0.0, 1.0, 0.5]
    """
    total = exposure.shape[-1]
    order = 2.0 * np.arange(1, total + 1) - total - 1
    found = np.sort(exposure, axis=-1) @ order / (max(total - 1, 1) * exposure.sum(axis=-1))
    return np.asarray(np.clip(found, 0.0, 1.0))  # rounding leaves -1e-17 of nothing


def _mean_over_ties(ranked: Ranks, gain: Callable[[np.ndarray], np.ndarray]) -> Float64[np.ndarray, " n"]:
    better, equal = ranked
    total = np.concatenate([[0.0], np.cumsum(gain(np.arange(1, (better + equal).max(initial=0) + 1)))])
    return np.asarray((total[better + equal] - total[better]) / equal)
