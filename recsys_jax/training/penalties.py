"""The L2 penalties of the wide recipe, chosen on inner folds of the training customers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.special import logsumexp

from recsys_jax.config import WideConfig
from recsys_jax.data.splits import customer_folds
from recsys_jax.models import metrics
from recsys_jax.models.popularity import learn_popularity
from recsys_jax.storage.checkpoints import Checkpoints, task_of
from recsys_jax.training.convex import ROUGH, Fit, Objective, Penalties
from recsys_jax.training.loop import Progress
from recsys_jax.training.purchases import TrainingPurchases

SCORES, QUERIES = 2**24, 20_000
"""The most scores, and the most purchases, of a fold by which penalties are compared."""
SHARED = tuple(product((inf, 10.0, 100.0, 1000.0), (inf, 1200.0)))
"""The penalties on attributes and item factors that are compared first, with 100 on the own weights."""
FACTOR = 400.0
"""A further penalty on item factors, compared next, with the best of those."""
OWN, LEAST = (10.0, 30.0, 300.0), 0.005
"""The penalties on the own weights, compared last, and what one must gain, in nats per purchase, to be chosen."""
BLOCKS, CLEARLY, TELLING = 32, 4.0, 2000
"""Queries are summed in so many blocks; by how many standard errors penalties that are given up are behind, and from
how many queries on that is known."""
START = Penalties(100.0, 100.0, 1200.0)
"""The penalties of the fit from which the others of a fold start."""
UNTRIED = Penalties(100.0, 300.0, 1200.0)
"""The penalties where there are too few customers for inner folds."""


def choose_penalties(
    data: TrainingPurchases, config: WideConfig, progress: Progress, checkpoints: Checkpoints | None
) -> tuple[Penalties, int]:
    """The penalties that do best by held-out customers, as far as the config leaves them open; and the most fits of it.

    Penalties on attributes and item factors are compared by MRR and NDCG@10, which are the goal, and with equal weight
    by the likelihood of a purchase (its geometric mean), which is less noisy; each is divided by the best one found.
    The penalty on the own weights concerns all products, also those far from the top, so the likelihood alone decides;
    where it hardly rises, the penalty stays. Few penalties are compared: out of many, the luckiest would be chosen.
    A fold after the other, those that are clearly behind are dropped: of a large shop, one fold tells most of it.

    What was measured is saved in the `checkpoints`, and read from there. Raises `Stopped` where they say so.
    """
    asked = (config.own_l2, config.attribute_l2, config.factor_l2)

    def open_(tried: Penalties) -> Penalties:
        """What is asked for, and of the rest what is tried."""
        return Penalties(*(given if given is not None else other for given, other in zip(asked, tried, strict=True)))

    folds = inner_folds(data, config) if None in asked else []
    if not folds:
        return open_(UNTRIED), 0
    with_factors = any(one.factors for one in folds)
    first = [
        *dict.fromkeys(open_(UNTRIED._replace(attribute=a, factor=t)) for a, t in SHARED if with_factors or t == inf)
    ]
    second = [FACTOR] if config.factor_l2 is None and with_factors else []
    third = OWN if config.own_l2 is None else ()
    race = Race(data, config, folds, len(folds) * (len(first) + len(second) + len(third)), progress, checkpoints)
    found = race.best(first)
    for factor in second:
        found = race.best([found, found._replace(factor=factor)])
    return race.likeliest(found, [found._replace(own=own) for own in third]), race.total


class Race:
    """Penalties measured on one inner fold after the other, until those that are left are told apart."""

    def __init__(
        self,
        data: TrainingPurchases,
        config: WideConfig,
        folds: "Sequence[InnerFold]",
        total: int,
        progress: Progress,
        checkpoints: Checkpoints | None,
    ) -> None:
        """At most `total` fits; what was measured is read from the `checkpoints`."""
        self.folds, self.total, self._progress, self._checkpoints = folds, total, progress, checkpoints
        self._measured: dict[tuple[float, ...], Float64[np.ndarray, "b 3"]] = {}
        self._starts: dict[int, Fit] = {}
        self._done = 0
        if checkpoints is not None:
            self._task = task_of(config, (data.rows, data.combination, data.pairs, data.attributes))
            saved = checkpoints.load(self._task, {"tried": np.zeros((0, 4)), "sums": np.zeros((0, BLOCKS, 3))})
            if saved is not None:
                self._measured = dict(zip(map(tuple, saved["tried"].tolist()), saved["sums"], strict=True))

    def best(self, tried: Sequence[Penalties]) -> Penalties:
        """The best by ranks and by likelihood."""

        def merit(sums: Float64[np.ndarray, "t b 3"], queries: int) -> Float64[np.ndarray, "t b"]:
            ranking = sums[..., :2] / sums[..., :2].sum(axis=1).max(axis=0)
            return np.asarray(ranking.sum(axis=-1) + 2.0 * sums[..., 2] / queries)

        left, sums, queries = self._run(tried, merit)
        *ranking, likelihood = sums.sum(axis=1).T
        merits = sum(one / one.max() for one in ranking) + 2.0 * np.exp((likelihood - likelihood.max()) / queries)
        return left[int(np.argmax(merits))]

    def likeliest(self, chosen: Penalties, others: Sequence[Penalties]) -> Penalties:
        """The likeliest, where what was chosen is given a lead of `LEAST`."""

        def merit(sums: Float64[np.ndarray, "t b 3"], queries: int) -> Float64[np.ndarray, "t b"]:
            return np.asarray(sums[..., 2] / queries)

        left, sums, queries = self._run([chosen, *others], merit, {chosen: LEAST})
        merits = [
            merit(own[None], queries).sum() + LEAST * (one == chosen) for one, own in zip(left, sums, strict=True)
        ]
        return left[int(np.argmax(merits))]

    def _run(
        self,
        tried: Sequence[Penalties],
        merit: Callable[[Float64[np.ndarray, "t b 3"], int], Float64[np.ndarray, "t b"]],
        leads: Mapping[Penalties, float] = MappingProxyType({}),
    ) -> tuple[list[Penalties], Float64[np.ndarray, "t b 3"], int]:
        """Those that are left, their sums by blocks of queries, and how many queries these are.

        One is dropped where the blocks' differences from the best one add up to `CLEARLY` their standard error.
        """
        left, queries = list(tried), 0
        sums = np.zeros((len(left), 0, 3))
        for number, fold in enumerate(self.folds, 1):
            sums = np.concatenate([sums, np.stack([self._measure(one, number) for one in left])], axis=1)
            queries += int(fold.times.sum())
            merits = merit(sums, queries)
            total = merits.sum(axis=1) + [leads.get(one, 0.0) for one in left]
            best = int(np.argmax(total))
            error = (merits - merits[best]).std(axis=1) * len(merits.T) ** 0.5
            stays = (total[best] - total <= CLEARLY * error) | (queries < TELLING)
            self._done += (len(self.folds) - number) * int((~stays).sum())
            left, sums = [one for one, stay in zip(left, stays, strict=True) if stay], sums[stays]
            if len(left) == 1:
                break
        return left, sums, queries

    def _measure(self, tried: Penalties, number: int) -> Float64[np.ndarray, "b 3"]:
        """What a fold, the `number`-th, says of penalties."""
        key = (*tried, float(number))
        if key not in self._measured:
            heed = (lambda: None) if self._checkpoints is None else self._checkpoints.heed
            fold = self.folds[number - 1]
            if number not in self._starts:
                self._starts[number] = fold.objective.fit(START, gain=ROUGH, heed=heed)
            self._measured[key] = fold.measure(tried, self._starts[number], heed)
            self._done += 1
            self._progress(min(self._done, self.total), self.total, "penalties {:g}, {:g}, {:g}".format(*tried))
            if self._checkpoints is not None:
                arrays = {"tried": np.array([*self._measured]), "sums": np.array([*self._measured.values()])}
                self._checkpoints.save(self._task, arrays, f"{len(self._measured)} of {self.total} fits")
        return self._measured[key]


def inner_folds(data: TrainingPurchases, config: WideConfig) -> "list[InnerFold]":
    """The folds of the training customers that penalties are compared by; none where there are too few customers."""
    customers = len(data.combination)
    if customers < config.inner_folds:
        return []
    fold = customer_folds(customers, config.inner_folds, config.seed)[data.pairs[:, 0]]
    return [InnerFold.of(data, fold != number, config) for number in range(config.inner_folds)]


@dataclass(frozen=True, eq=False)
class InnerFold:
    """An inner fold: what is learned from and what is asked."""

    objective: Objective
    rows: Float64[np.ndarray, "c f"]
    """The combinations that are asked."""
    row: Int[np.ndarray, " q"]
    targets: Int[np.ndarray, " q"]
    times: Int[np.ndarray, " q"]
    """How often the same is asked."""

    @classmethod
    def of(cls, data: TrainingPurchases, kept: Bool[np.ndarray, " n"], config: WideConfig) -> "InnerFold":
        """The fold where the purchases for which `kept` is true are learned from."""
        asked = data.pairs[~kept]
        asked = np.random.default_rng(config.seed).permutation(asked)[:QUERIES]
        queries = np.stack([data.combination[asked[:, 0]], asked[:, 1]], axis=1)
        # Of the combinations, those that come first.
        different, first = np.unique(queries[:, 0], return_index=True)
        most = max(SCORES // len(data.attributes), 1)
        queries = queries[np.isin(queries[:, 0], different[np.argsort(first)[:most]])]
        each, times = np.unique(queries, axis=0, return_counts=True)
        rows, row = np.unique(each[:, 0], return_inverse=True)
        counts = data.counts(kept)
        popularity = learn_popularity(counts[counts > 0]).of(counts)
        factors = data.item_factors(kept, config.item_factors)
        objective = Objective.of(data, kept, popularity, factors, seed=config.seed, search=True)
        return cls(objective, data.rows[rows], row, each[:, 1], times)

    @property
    def factors(self) -> int:
        """How many item factors there are."""
        return int(self.objective.factors.shape[1])

    def measure(
        self, penalties: Penalties, start: Fit | None = None, heed: Callable[[], None] = lambda: None
    ) -> Float64[np.ndarray, "b 3"]:
        """The sums over the purchases asked for of reciprocal ranks, of NDCG@10 and of log-likelihoods, in blocks.

        A `start` that is near saves steps; `heed` is called now and then, and may raise.
        """
        fit = self.objective.fit(penalties, start=start, gain=ROUGH, heed=heed)
        popularity = np.asarray(self.objective.popularity, np.float32)
        changes = np.asarray(fit.of_products(self.objective.attributes, self.objective.factors), np.float32)
        step = max(1, 2**22 // len(popularity))  # a block of scores of at most 16 MB
        sums = np.zeros((BLOCKS, 3))
        for first in range(0, len(self.rows), step):
            here = (self.row >= first) & (self.row < first + step)
            rows, targets = self.row[here] - first, self.targets[here]
            scores = popularity + self.rows[first : first + step].astype(np.float32) @ changes
            ranked = metrics.ranks_in_rows(scores, rows, targets)
            likelihood = scores[rows, targets] - logsumexp(scores, axis=1)[rows]
            each = metrics.reciprocal_rank(ranked), metrics.ndcg_at_k(ranked, k=10), likelihood
            np.add.at(sums, self.row[here] % BLOCKS, np.stack(each, axis=1) * self.times[here, None])
        return sums
