"""What is asked in a fold and what a scorer answers: a value per query, and a list per customer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64, Int, Real

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.splits import Fold
from recsys_jax.data.tabular.coded import converted
from recsys_jax.models import metrics

NEVER = -1e4  # stands for log 0: its exponential is exactly 0, but a resample's weight of 0 times it is 0 and not nan

Scores = Callable[[Int[np.ndarray, " n"]], Float[np.ndarray, "n p"]]
"""Scores of every product for the rows with the given numbers."""


@dataclass(frozen=True)
class Scorer:
    """Ranks products for customers; all of a group have the same scores, so it is scored and ranked once."""

    of_groups: Scores
    """The scores of the groups with the given numbers."""
    group: Int[np.ndarray, " c"]
    """The group of each customer."""
    note: str = ""
    """What was chosen for it, such as a strength of smoothing."""

    def __call__(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n p"]:
        """The scores for the customers in the given rows."""
        return self.of_groups(self.group[rows])

    @classmethod
    def table(cls, scores: Float[np.ndarray, "g p"], group: Int[np.ndarray, " c"]) -> "Scorer":
        """A scorer whose scores are there already, a row per group."""
        return cls(lambda groups: np.asarray(scores[groups]), group)


def attribute_rows(dataset: Dataset) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " c"]]:
    """One customer of each different combination of attribute values, and the combination of each customer.

    Values are compared as they are written, so some combinations may mean the same.
    """
    # repr, not str: None is a missing value and "None" a text.
    features = dataset.schema.customers.features
    columns = [converted(repr, dataset.customers.column(feature.column)) for feature in features]
    seen: dict[tuple[str, ...], int] = {}
    group = np.array([seen.setdefault(key, len(seen)) for key in zip(*columns, strict=True)], np.int64)
    return np.unique(group, return_index=True)[1], group


@dataclass(frozen=True)
class Lists:
    """The k best products of each of n customers, as shares: 1 is in the list, less is one of those that tie for it.

    Customers with the same list share it: the random ranking, a share of k / p everywhere, needs no n x p numbers.
    """

    rows: Int[np.ndarray, " n"]
    """Which of the r different lists each customer has."""
    of_list: Int[np.ndarray, " m"]
    """The list of each entry, ascending: list by list, its `products` and their `shares`."""
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

        Each customer's ties are broken at random, independently of all others.

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
        surprise = np.bincount(self.of_list, self.shares * bits[self.products])
        return np.asarray((surprise / np.bincount(self.of_list, self.shares))[self.rows])

    def _sums(
        self, entries: Float64[np.ndarray, " m"], weights: Float64[np.ndarray, "b n"] | None
    ) -> Float64[np.ndarray, "*b p"]:
        if weights is None:
            return np.asarray(self._sums(entries, np.ones((1, len(self.rows))))[0])
        out = np.empty((len(weights), self.total))
        # Row by row: the entries of one row fit the cache, those of all rows not the memory.
        for row, weight in enumerate(weights):
            times = np.bincount(self.rows, weight, self.of_list[-1] + 1)
            out[row] = np.bincount(self.products, times[self.of_list] * entries, self.total)
        return out


def top_lists(scores: Float[np.ndarray, "n p"], *, k: int) -> Lists:
    """The list of each row of scores: what scores better than the k-th best, and its share of what ties with it.

    What is not ranked (-inf) is in no list; a list is shorter where too little is left.

    >>> lists = top_lists(np.array([[0.9, 0.5, 0.5, 0.1]]), k=2)
    >>> lists.products.tolist(), lists.shares.tolist()
    ([0, 1, 2], [1.0, 0.5, 0.5])
    """
    n, total = scores.shape
    k = min(k, total)
    border = np.maximum(np.partition(scores, total - k, axis=1)[:, total - k], float(np.finfo(np.float32).min))
    listed = scores >= border[:, None]
    size = listed.sum(axis=1)
    plain, tied = np.flatnonzero(size <= k), np.flatnonzero(size > k)
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
    shares = np.where(sure, 1.0, ((k - certain) / np.maximum(size - certain, 1))[of_list])
    return Lists(rows, of_list, products.astype(np.int32), shares, total)


def join_lists(parts: Sequence[Lists]) -> Lists:
    """The lists of all parts' customers, one part after the other.

    >>> scores = np.array([[0.3, 0.1], [0.1, 0.3]])
    >>> join_lists([top_lists(scores[:1], k=1), top_lists(scores[1:], k=1)]).exposure().tolist()
    [1.0, 1.0]
    """
    before = np.cumsum([0, *(part.of_list[-1] + 1 for part in parts)])
    return Lists(
        np.concatenate([part.rows + before[i] for i, part in enumerate(parts)]),
        np.concatenate([part.of_list + before[i] for i, part in enumerate(parts)]),
        np.concatenate([part.products for part in parts]),
        np.concatenate([part.shares for part in parts]),
        parts[0].total,
    )


def gini(exposure: Float64[np.ndarray, "*b p"]) -> Float64[np.ndarray, "*b"]:
    """Gini coefficient of `Lists.exposure`: 0, all products are shown alike; 1, one product has all.

    sum_i (2 i - p - 1) x_i / ((p - 1) sum_i x_i), x ascending and i from 1; the same k products for everybody give
    (p - k) / (p - 1). With a single product it is 0.

    >>> gini(np.array([[5.0, 5.0, 5.0], [0.0, 15.0, 0.0], [0.0, 5.0, 5.0]])).tolist()
    [0.0, 1.0, 0.5]
    """
    total = exposure.shape[-1]
    order = 2.0 * np.arange(1, total + 1) - total - 1
    found = np.sort(exposure, axis=-1) @ order / (max(total - 1, 1) * exposure.sum(axis=-1))
    return np.asarray(np.clip(found, 0.0, 1.0))  # rounding leaves -1e-17 of nothing


@dataclass(frozen=True)
class Queries:
    """The queries of a fold, the candidates that are ranked for them, and what was bought in training."""

    pairs: Int[np.ndarray, "n 2"]
    """(customer row, product row) of each query."""
    targets: Int[np.ndarray, " n"]
    """The place of each target among the candidates."""
    listed: Int[np.ndarray, " l"]
    """The customers with a query, each once."""
    candidates: Int[np.ndarray, " q"]
    categories: Int[np.ndarray, " q"] | None
    counts: Int[np.ndarray, " p"]
    """How often each product was bought in training."""
    ks: tuple[int, ...]
    bought: Int[np.ndarray, "b 2"] | None = None
    """(place among `listed`, place among `candidates`) of what is not ranked, by customer: what was bought before."""

    @classmethod
    def of(cls, dataset: Dataset, fold: Fold, ks: Sequence[int]) -> "Queries":
        """What a fold of the dataset asks; lists of the lengths `ks` are measured."""
        queries = dataset.purchases[fold.queries]
        total = len(dataset.product_ids)
        candidates = np.arange(total) if fold.candidates is None else np.flatnonzero(fold.candidates)
        place = np.full(total, -1)
        place[candidates] = np.arange(len(candidates))
        categories = dataset.categories
        codes = None if categories is None else np.unique(np.asarray(categories), return_inverse=True)[1][candidates]
        counts = np.bincount(dataset.purchases[fold.train, 1], minlength=total)
        listed = np.unique(queries[:, 0])
        # In-sample, what is asked for was bought in training.
        earlier = dataset.purchases[fold.train & ~fold.queries & (not fold.repeats)]
        earlier = earlier[np.isin(earlier[:, 0], listed) & (place[earlier[:, 1]] >= 0)]
        bought = np.column_stack([np.searchsorted(listed, earlier[:, 0]), place[earlier[:, 1]]])
        some = bought if len(bought) else None
        return cls(queries, place[queries[:, 1]], listed, candidates, codes, counts, tuple(ks), some)

    def repeated(self, times: int) -> "Queries":
        """The same so many times: in time t, the customer at place i of the l that are `listed` is number t l + i."""
        begin = len(self.listed) * np.arange(times)[:, None]

        def tiled(places: Int[np.ndarray, " m"], others: Int[np.ndarray, " m"]) -> Int[np.ndarray, "_ 2"]:
            return np.column_stack([(begin + places).ravel(), np.tile(others, times)])

        return replace(
            self,
            pairs=tiled(np.searchsorted(self.listed, self.pairs[:, 0]), self.pairs[:, 1]),
            targets=np.tile(self.targets, times),
            listed=np.arange(times * len(self.listed)),
            bought=None if self.bought is None else tiled(*self.bought.T),
        )

    def values(
        self, scorer: Scorer, *, with_lists: bool = True
    ) -> tuple[dict[str, Float64[np.ndarray, " n"]], dict[int, Lists], dict[str, Float64[np.ndarray, " l"]]]:
        """The metrics of each query, the lists by length, and the metrics of each listed customer.

        What shares its scores and target is computed once.
        """
        asked, mine, rows, targets, back = self._shared(scorer)
        parts, lists, places = [], [], []
        for scores, row, target, ranked in self._blocks(scorer, asked, rows, targets):
            places.append(ranked)
            parts.append(self._metrics(scores, row, target, ranked))
            if with_lists:
                lists.append({k: top_lists(scores, k=k) for k in self.ks})
        values = {metric: np.concatenate([part[metric] for part in parts])[back] for metric in parts[0]}
        better, equal = (np.concatenate(each)[back] for each in zip(*places, strict=True))
        of_list = np.searchsorted(self.listed, self.pairs[:, 0])
        found = [metrics.list_metrics((better, equal), of_list, k=k) for k in self.ks]
        of_customers = {name: one[name] for one in found for name in one}
        if not with_lists:
            return values, {}, of_customers
        joined = {k: join_lists([one[k] for one in lists]).of(mine) for k in self.ks}
        # In the numbering of all products.
        whole = {
            k: replace(one, products=self.candidates[one.products].astype(np.int32), total=len(self.counts))
            for k, one in joined.items()
        }
        return values, whole, of_customers

    def reciprocal_ranks(self, scorer: Scorer) -> Float64[np.ndarray, " n"]:
        """The reciprocal rank of each query, the "mrr" of `values` at a fraction of the time that all metrics take."""
        asked, _, rows, targets, back = self._shared(scorer)
        blocks = self._blocks(scorer, asked, rows, targets)
        return np.asarray(np.concatenate([metrics.reciprocal_rank(ranked) for *_, ranked in blocks])[back])

    @property
    def _step(self) -> int:
        """How many rows of scores make a block, of at most 32 MB."""
        return max(1, 2**22 // len(self.candidates))

    def _shared(self, scorer: Scorer) -> tuple[Int[np.ndarray, "_"], ...]:
        """The groups whose scores are asked for; the place among them of each list; the different pairs of such a place
        and a target, in order of the places; and the pair of each query.
        """
        if self.bought is None:
            asked, row = np.unique(scorer.group[self.pairs[:, 0]], return_inverse=True)
            mine = np.searchsorted(asked, scorer.group[self.listed])
        else:  # each customer has a ranking of their own
            asked, row = scorer.group[self.listed], np.searchsorted(self.listed, self.pairs[:, 0])
            mine = np.arange(len(asked))
        products = len(self.candidates)
        pairs, back = np.unique(row.astype(np.int64) * products + self.targets, return_inverse=True)
        return asked, mine, pairs // products, pairs % products, back

    def _blocks(
        self, scorer: Scorer, asked: Int[np.ndarray, " a"], rows: Int[np.ndarray, " m"], targets: Int[np.ndarray, " m"]
    ) -> Iterator[tuple[Float[np.ndarray, "g q"], Int[np.ndarray, " b"], Int[np.ndarray, " b"], metrics.Ranks]]:
        """The candidates' scores, some groups at a time; the rows and targets asked of them, and where these stand."""
        for start in range(0, len(asked), self._step):
            end = start + self._step
            scores = scorer.of_groups(asked[start:end])
            if len(self.candidates) < scores.shape[1]:
                scores = scores[:, self.candidates]
            if self.bought is not None:
                gone = self.bought[slice(*np.searchsorted(self.bought[:, 0], [start, end]))]
                scores = np.array(scores)  # JAX's cannot be written to
                scores[gone[:, 0] - start, gone[:, 1]] = -np.inf
            here = slice(*np.searchsorted(rows, [start, end]))
            row, target = rows[here] - start, targets[here]
            yield scores, row, target, metrics.ranks_in_rows(scores, row, target)

    def _metrics(
        self,
        scores: Float[np.ndarray, "g q"],
        rows: Int[np.ndarray, " m"],
        targets: Int[np.ndarray, " m"],
        ranked: metrics.Ranks,
    ) -> dict[str, Float64[np.ndarray, " m"]]:
        out = {f"hit@{k}": metrics.hit_at_k(ranked, k=k) for k in self.ks}
        if self.categories is not None:
            # A row of scores answers all targets of a category alike.
            kinds = int(self.categories.max()) + 1
            pairs, back = np.unique(rows * kinds + self.categories[targets], return_inverse=True)
            found = [
                metrics.category_ranks(scores[part // kinds], (part % kinds)[:, None] == self.categories[None, :])
                for part in _chunks(pairs, self._step)
            ]
            better, equal, wanted = (np.concatenate(each)[back] for each in zip(*found, strict=True))
            out |= {f"category_hit@{k}": metrics.category_hit((better, equal, wanted), k=k) for k in self.ks}
        out["mrr"] = metrics.reciprocal_rank(ranked)
        out |= {f"ndcg@{k}": metrics.ndcg_at_k(ranked, k=k) for k in self.ks}
        counts = self.counts[self.candidates]
        if self.bought is None:
            chunks = _chunks(np.arange(len(rows)), self._step)
            auc = [metrics.count_matched_auc(scores[rows[part]], targets[part], counts) for part in chunks]
            return {**out, "auc": np.concatenate(auc)}
        # Counts are balanced among what is ranked, which differs from row to row; the queries come row by row.
        auc = []
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows)) + 1):
            left = np.flatnonzero(scores[rows[part[0]]] > -np.inf) if len(part) else np.empty(0, np.int64)
            own = np.broadcast_to(scores[rows[part[:1]]][:, left], (len(part), len(left)))
            auc.append(metrics.count_matched_auc(own, np.searchsorted(left, targets[part]), counts[left]))
        return {**out, "auc": np.concatenate(auc)}


def _chunks(values: Int[np.ndarray, " n"], step: int) -> list[Int[np.ndarray, " m"]]:
    return [values[start : start + step] for start in range(0, len(values), step)]
