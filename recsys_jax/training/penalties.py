"""The L2 penalties of the wide recipe, chosen on inner folds of the training customers."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import inf

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.special import log_softmax

from recsys_jax.config import WideConfig
from recsys_jax.data.splits import customer_folds
from recsys_jax.models import metrics
from recsys_jax.models.popularity import learn_popularity
from recsys_jax.storage.checkpoints import Checkpoints, task_of
from recsys_jax.training.convex import Penalties, TrainingPurchases, best_fit
from recsys_jax.training.loop import Progress

SCORES, QUERIES = 2**24, 20_000
"""The most scores, and the most purchases, of a fold by which penalties are compared."""
SHARED = tuple(product((inf, 10.0, 100.0, 1000.0), (inf, 1200.0)))
"""The penalties on attributes and item factors that are compared first, with 100 on the own weights."""
FACTOR = 400.0
"""A further penalty on item factors, compared next, with the best of those."""
OWN, LEAST = (10.0, 30.0, 300.0), 0.005
"""The penalties on the own weights, compared last, and what one must gain, in nats per purchase, to be chosen."""
UNTRIED = Penalties(100.0, 300.0, 1200.0)
"""The penalties where there are too few customers for inner folds."""


def choose_penalties(
    data: TrainingPurchases, config: WideConfig, progress: Progress, checkpoints: Checkpoints | None
) -> tuple[Penalties, int]:
    """The penalties that do best by held-out customers, as far as the config leaves them open, and the fits it took.

    Penalties on attributes and item factors are compared by MRR and NDCG@10, which are the goal, and with equal weight
    by the likelihood of a purchase (its geometric mean), which is less noisy; each is divided by the best one found.
    The penalty on the own weights concerns all products, also those far from the top, so the likelihood alone decides;
    where it hardly rises, the penalty stays. Few penalties are compared: out of many, the luckiest would be chosen.

    What was measured is saved in the `checkpoints`, and read from there. Raises `Stopped` where they say so.
    """
    asked = (config.own_l2, config.attribute_l2, config.factor_l2)

    def open_(tried: Penalties) -> Penalties:
        """What is asked for, and of the rest what is tried."""
        return Penalties(*(given if given is not None else other for given, other in zip(asked, tried, strict=True)))

    folds = inner_folds(data, config) if None in asked else []
    if not folds:
        return open_(UNTRIED), 0
    with_factors = any(one.factors.shape[1] for one in folds)
    first = dict.fromkeys(open_(UNTRIED._replace(attribute=a, factor=t)) for a, t in SHARED if with_factors or t == inf)
    second = [FACTOR] if config.factor_l2 is None and with_factors else []
    third = OWN if config.own_l2 is None else ()
    total = len(folds) * (len(first) + len(second) + len(third))
    queries = sum(int(one.times.sum()) for one in folds)
    found: dict[Penalties, Float64[np.ndarray, " 3"]] = {}
    before = dict(found)
    heed = (lambda: None) if checkpoints is None else checkpoints.heed
    task = {} if checkpoints is None else task_of(config, (data.rows, data.combination, data.pairs, data.attributes))
    like = {"tried": np.zeros((0, 3)), "sums": np.zeros((0, 3))}
    if checkpoints is not None and (saved := checkpoints.load(task, like)) is not None:
        before = {Penalties(*tried): sums for tried, sums in zip(saved["tried"].tolist(), saved["sums"], strict=True)}

    def measure(tried: Penalties) -> None:
        if tried in before:
            found[tried] = before[tried]
            return
        sums = np.zeros(3)
        for number, one in enumerate(folds, 1):
            sums += one.measure(data, tried, heed)
            progress(len(folds) * len(found) + number, total, "penalties {:g}, {:g}, {:g}".format(*tried))
        found[tried] = sums
        if checkpoints is not None:
            arrays = {"tried": np.array(list(found)), "sums": np.array(list(found.values()))}
            checkpoints.save(task, arrays, f"{len(found)} of {total // len(folds)} penalties")

    def best() -> Penalties:
        greatest = np.max(list(found.values()), axis=0)

        def merit(tried: Penalties) -> float:
            *ranking, likelihood = found[tried]
            return float((ranking / greatest[:2]).sum() + 2.0 * np.exp((likelihood - greatest[2]) / queries))

        return max(found, key=merit)

    for tried in first:
        measure(tried)
    for factor in second:
        measure(best()._replace(factor=factor))
    chosen = best()
    alternatives = [chosen._replace(own=own) for own in third]
    for tried in alternatives:
        measure(tried)
    better = [tried for tried in alternatives if found[tried][2] - found[chosen][2] > LEAST * queries]
    return max(better, key=lambda tried: found[tried][2], default=chosen), total


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

    kept: Bool[np.ndarray, " n"]
    popularity: Float64[np.ndarray, " p"]
    factors: Float64[np.ndarray, "p r"]
    queries: Int[np.ndarray, "q 2"]
    """(combination, product), each once."""
    times: Int[np.ndarray, " q"]
    seed: int

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
        counts = data.counts(kept)
        popularity = learn_popularity(counts[counts > 0]).of(counts)
        return cls(kept, popularity, data.item_factors(kept, config.item_factors), each, times, config.seed)

    def measure(
        self, data: TrainingPurchases, penalties: Penalties, heed: Callable[[], None] = lambda: None
    ) -> Float64[np.ndarray, " 3"]:
        """The sums over the purchases asked for of reciprocal ranks, of NDCG@10 and of log-likelihoods.

        `heed` is called now and then, and may raise.
        """
        learned = self.popularity, self.factors
        fit = best_fit(data, self.kept, *learned, penalties, search=True, seed=self.seed, heed=heed)
        changes = fit.of_products(data.attributes, self.factors)
        rows, row = np.unique(self.queries[:, 0], return_inverse=True)
        step = max(1, 2**22 // len(self.popularity))  # a block of scores of at most 32 MB
        sums = np.zeros(3)
        for start in range(0, len(rows), step):
            here = (row >= start) & (row < start + step)
            scores = self.popularity + data.rows[rows[start : start + step]] @ changes
            ranked = metrics.ranks_in_rows(scores, row[here] - start, self.queries[here, 1])
            likelihood = log_softmax(scores, axis=1)[row[here] - start, self.queries[here, 1]]
            each = metrics.reciprocal_rank(ranked), metrics.ndcg_at_k(ranked, k=10), likelihood
            sums += [float(values @ self.times[here]) for values in each]
        return sums
