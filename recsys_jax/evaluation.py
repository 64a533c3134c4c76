"""Protocols: which customers are ranked by which model, next to what chance and popularity reach."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from recsys_jax import metrics, scoring
from recsys_jax.config import TrainConfig
from recsys_jax.data import Dataset, customer_folds
from recsys_jax.ensembles import Ensemble
from recsys_jax.errors import InputError
from recsys_jax.trained import TrainedModel, bucket
from recsys_jax.training import fit, fit_seeds, of_seeds

__all__ = [
    "ALL",
    "KS",
    "DatasetOfFold",
    "Evaluation",
    "Scorer",
    "Shared",
    "cross_validation",
    "in_sample",
    "in_sample_of_seeds",
]

KS = (3, 10)
"""The lengths of the recommended lists that are measured where none are asked for."""

Scorer = Callable[[Int[np.ndarray, " n"]], Float[np.ndarray, "n p"]]
"""Scores of every product for the customers in the given rows."""


@dataclass(frozen=True)
class Shared:
    """A scorer by which all customers of a group have the same scores: their metrics are computed once per target."""

    scores: Float[np.ndarray, "g p"]
    group: Int[np.ndarray, " c"]
    """The group of each customer."""

    def __call__(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n p"]:
        """The scores for the customers in the given rows."""
        return np.asarray(self.scores[self.group[rows]])


DatasetOfFold = Callable[[Bool[np.ndarray, " c"]], Dataset]
"""The dataset as it looks when only the customers for which the mask is true may be learned from."""

ALL = "all"
"""The name of the group that everybody belongs to."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of every query, one purchase of one customer each, for the model and for what it is compared with."""

    protocol: str
    ks: tuple[int, ...]
    customers: Int[np.ndarray, " n"]
    """The customer row of each query."""
    products: Int[np.ndarray, " n"]
    """The product row of each query: the target."""
    segments: tuple[str, ...] | None
    """The segment (persona) of each query's customer."""
    segment_word: str
    """What people call a segment."""
    values: Mapping[str, Mapping[str, Float64[np.ndarray, " n"]]]
    """By method and metric, the value of each query; "model" holds the mean over the seeds where there are several."""
    seeds: tuple[int, ...] = ()
    """The seeds of the models, where there are several."""
    by_seed: Mapping[str, Float64[np.ndarray, "s n"]] = field(default_factory=dict)
    """By metric, the value of each of those models for each query."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics' names, in the order of the tables."""
        return tuple(next(iter(self.values.values())))

    @cached_property
    def groups(self) -> dict[str, Bool[np.ndarray, " n"]]:
        """Which queries belong to whom: everybody, then each segment by its name, the largest first."""
        groups = {ALL: np.ones(len(self.customers), bool)}
        if self.segments is not None:
            labels = np.asarray(self.segments)
            groups |= {name: labels == name for name, _ in Counter(sorted(self.segments)).most_common()}
        return groups

    def mean(self, method: str, metric: str, group: str = ALL) -> float:
        """The mean of a metric over the queries of a group."""
        return float(self.values[method][metric][self.groups[group]].mean())

    def each(self, metric: str, group: str = ALL) -> Float64[np.ndarray, " s"]:
        """The mean of a metric over the queries of a group, by the model of each seed."""
        return np.asarray(self.by_seed[metric][:, self.groups[group]].mean(axis=1))

    def spread(self, metric: str, group: str = ALL) -> float:
        """The standard deviation over the seeds of the mean of a metric."""
        return float(self.each(metric, group).std(ddof=1))

    def summary(self) -> dict[str, Any]:
        """Everything as one document: `metrics.json`."""
        groups = self.groups
        summary: dict[str, Any] = {
            "protocol": self.protocol,
            "customers": len(np.unique(self.customers)),
            "queries": {name: int(members.sum()) for name, members in groups.items()},
            "methods": {
                method: {
                    metric: {name: float(values[members].mean()) for name, members in groups.items()}
                    for metric, values in by_metric.items()
                }
                for method, by_metric in self.values.items()
            },
        }
        if self.seeds:
            summary["seeds"] = list(self.seeds)
            summary["over seeds"] = {
                metric: {
                    name: {"standard deviation": self.spread(metric, name), "each": self.each(metric, name).tolist()}
                    for name in groups
                }
                for metric in self.by_seed
            }
        return summary


def in_sample(model: TrainedModel, dataset: Dataset, ks: Sequence[int]) -> Evaluation:
    """The published protocol: the model is asked for the very purchases that it was trained on.

    It measures memory, not foresight; so do the popularity figures beside it.
    """
    return in_sample_of_seeds([model], dataset, ks)


def in_sample_of_seeds(
    models: Sequence[TrainedModel], dataset: Dataset, ks: Sequence[int], *, ensemble: bool = False
) -> Evaluation:
    """The published protocol for models that differ in their seed; with `ensemble`, for their mean scores too."""
    _check_ks(ks)
    fingerprint = dataset.fingerprint
    for model in models:
        if model.product_ids != tuple(dataset.product_ids):
            raise InputError(f"{dataset.products.source}: these are not the products that the model was trained on")
        if model.trained_on != fingerprint:
            raise InputError(
                f"{dataset.customers.source}: these are not the customers and purchases that the model was trained on; "
                f"name the file that it was trained on, or train again"
            )
    part = _evaluate(models, dataset, dataset.purchases, dataset.purchases, ks, {}, ensemble=ensemble)
    return _join("in-sample", ks, dataset.segment_word, [part], [model.config.seed for model in models])


def cross_validation(
    dataset: Dataset,
    config: TrainConfig,
    ks: Sequence[int],
    *,
    folds: int = 5,
    seed: int = 0,
    dataset_of_fold: DatasetOfFold | None = None,
    others: Mapping[str, Scorer] | None = None,
    seeds: Sequence[int] | None = None,
    ensemble: bool = False,
    progress: Callable[[], None] | None = None,
) -> Evaluation:
    """k folds over customers: each is ranked by a model that has seen neither the customer nor the purchases.

    Vocabularies, scaling, popularity and the model are fitted inside the fold; so is whatever `dataset_of_fold` fits,
    such as personas. `others` are compared too, and `progress` is called after each fold.

    With `seeds`, the figures of "model" are the means of those that each of them in the config would give, which are
    kept too; a fold's models train together. With `ensemble`, the mean of their scores is one more method.
    """
    _check_ks(ks)
    configs = [config] if seeds is None else of_seeds(config, seeds)
    fold = customer_folds(len(dataset.customers), folds, seed, dataset.segments)
    parts = []
    for number in range(folds):
        known = fold != number
        seen = dataset if dataset_of_fold is None else dataset_of_fold(known)
        train = known[seen.purchases[:, 0]]
        of_fold = [(one.seed + number) % 2**32 for one in configs]
        if len(configs) == 1:
            models = [fit(seen, replace(config, seed=of_fold[0]), train=train)]
        else:
            models = fit_seeds(seen, config, of_fold, train=train)
        asked = seen.purchases[train], seen.purchases[~train]
        parts.append(_evaluate(models, seen, *asked, ks, others or {}, ensemble=ensemble))
        if progress is not None:
            progress()
    protocol = f"cross-validation, {folds} folds over customers"
    return _join(protocol, ks, dataset.segment_word, parts, [one.seed for one in configs])


@dataclass(frozen=True)
class _Part:
    queries: Int[np.ndarray, "n 2"]
    segments: list[str] | None
    values: dict[str, dict[str, Float64[np.ndarray, " n"]]]
    by_seed: dict[str, Float64[np.ndarray, "s n"]]


def _check_ks(ks: Sequence[int]) -> None:
    for k in ks:
        if k < 1:
            raise InputError(f"k: found {k}; allowed: 1 or more")


def _evaluate(
    models: Sequence[TrainedModel],
    dataset: Dataset,
    train: Int[np.ndarray, "t 2"],
    queries: Int[np.ndarray, "n 2"],
    ks: Sequence[int],
    others: Mapping[str, Scorer],
    *,
    ensemble: bool,
) -> _Part:
    segments, categories = dataset.segments, dataset.categories
    codes = None if categories is None else np.unique(np.asarray(categories), return_inverse=True)[1]

    def measured(scorer: Scorer) -> dict[str, Float64[np.ndarray, " n"]]:
        return _values(scorer, queries, len(dataset.product_ids), codes, ks)

    each = [measured(model_scorer(model, dataset)) for model in models]
    by_seed = {metric: np.stack([values[metric] for values in each]) for metric in each[0]}
    together = {"ensemble": model_scorer(Ensemble(models), dataset)} if ensemble else {}
    rest = {**together, **baselines(dataset, train), **others}
    values = {
        "model": {metric: np.asarray(values.mean(axis=0)) for metric, values in by_seed.items()},
        **{name: measured(scorer) for name, scorer in rest.items()},
    }
    return _Part(queries, segments and [segments[row] for row in queries[:, 0]], values, by_seed)


def _values(
    scorer: Scorer,
    queries: Int[np.ndarray, "n 2"],
    products: int,
    categories: Int[np.ndarray, " p"] | None,
    ks: Sequence[int],
) -> dict[str, Float64[np.ndarray, " n"]]:
    """The metrics of each query. Those that have the same scores and the same target are computed once."""
    groups = scorer.group[queries[:, 0]] if isinstance(scorer, Shared) else queries[:, 0]
    _, first, back = np.unique(
        groups.astype(np.int64) * products + queries[:, 1], return_index=True, return_inverse=True
    )
    distinct = queries[first]  # by customer or group
    step = max(1, 2**22 // products)  # a block of scores of at most 32 MB
    parts = []
    for start in range(0, len(distinct), step):
        block = distinct[start : start + step]
        customers, row = np.unique(block[:, 0], return_inverse=True)  # who bought much is scored once
        parts.append(_metrics(scorer(customers)[row], block[:, 1], categories, ks))
    return {metric: np.concatenate([part[metric] for part in parts])[back] for metric in parts[0]}


def _metrics(
    scores: Float[np.ndarray, "n p"],
    targets: Int[np.ndarray, " n"],
    categories: Int[np.ndarray, " p"] | None,
    ks: Sequence[int],
) -> dict[str, Float64[np.ndarray, " n"]]:
    ranked = metrics.ranks(scores, targets)
    out = {f"hit@{k}": metrics.hit_at_k(ranked, k=k) for k in ks}
    if categories is not None:
        by_category = metrics.category_ranks(scores, categories[targets][:, None] == categories[None, :])
        out |= {f"category_hit@{k}": metrics.category_hit(by_category, k=k) for k in ks}
    out["mrr"] = metrics.reciprocal_rank(ranked)
    return out | {f"ndcg@{k}": metrics.ndcg_at_k(ranked, k=k) for k in ks}


def model_scorer(model: TrainedModel | Ensemble, dataset: Dataset) -> Scorer:
    """Scores as the recommender ranks by them, without boosts and exclusions."""
    products, bias = model.product_embeddings, model.product_bias

    def score(rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n p"]:
        customers = model.embed_customers(dataset.customers.select(rows.tolist()))
        padded = np.pad(customers, ((0, bucket(len(rows)) - len(rows)), (0, 0)))  # few lengths are ever compiled
        return np.asarray(scoring.scores(padded, products) + bias)[: len(rows)]

    return score


def baselines(dataset: Dataset, train: Int[np.ndarray, "t 2"]) -> dict[str, Scorer]:
    """What needs no model: chance, popularity and, where there are personas, popularity per persona."""
    total = len(dataset.product_ids)
    counts = np.bincount(train[:, 1], minlength=total).astype(np.float64)
    everybody = np.zeros(len(dataset.customers), np.int64)
    out: dict[str, Scorer] = {
        # Equal scores for all: the metrics' expectation over ties is that of a random order, exactly.
        "random": Shared(np.zeros((1, total)), everybody),
        "popularity": Shared(counts[None], everybody),
    }
    if dataset.segments is not None:
        code = np.unique(np.asarray(dataset.segments), return_inverse=True)[1]
        by_segment = np.zeros((code.max() + 1, total))
        np.add.at(by_segment, (code[train[:, 0]], train[:, 1]), 1.0)
        # A persona without training purchases has no popularity of its own: the general one serves.
        table = np.where(by_segment.sum(axis=1, keepdims=True) > 0, by_segment, counts)
        out[f"popularity per {dataset.segment_word}"] = Shared(table, code)
    return out


def _join(protocol: str, ks: Sequence[int], word: str, parts: Sequence[_Part], seeds: Sequence[int]) -> Evaluation:
    queries = np.concatenate([part.queries for part in parts])
    segments = [name for part in parts for name in part.segments or ()]
    methods = parts[0].values
    values = {
        method: {metric: np.concatenate([part.values[method][metric] for part in parts]) for metric in methods[method]}
        for method in methods
    }
    result = Evaluation(protocol, tuple(ks), queries[:, 0], queries[:, 1], tuple(segments) or None, word, values)
    if len(seeds) == 1:
        return result
    by_seed = {metric: np.concatenate([part.by_seed[metric] for part in parts], axis=1) for metric in parts[0].by_seed}
    return replace(result, seeds=tuple(seeds), by_seed=by_seed)
