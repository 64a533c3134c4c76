"""Protocols: which customers are ranked by which model, next to what chance, popularity and a control reach.

The figures here are one per query or list; `reports` makes means, intervals and comparisons of them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int

from recsys_jax.config import Config
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.splits import DatasetOfFold, Derived, Fold, Split, cross_validation_split
from recsys_jax.errors import InputError
from recsys_jax.evaluation.baselines import baselines, popularities
from recsys_jax.evaluation.lists import Lists, join_lists
from recsys_jax.evaluation.scorers import Scorer, Shared, model_scorer
from recsys_jax.evaluation.tasks import Task
from recsys_jax.models.trained import Ensemble, TrainedModel
from recsys_jax.training.fit import fit, fit_seeds

__all__ = [
    "ALL",
    "CONTROL",
    "KS",
    "SHUFFLES",
    "Evaluation",
    "cross_validation",
    "evaluate_split",
    "in_sample",
    "in_sample_of_seeds",
    "model_scorer",
]

KS = (3, 10)
"""The lengths of the recommended lists that are measured where none are asked for."""

ALL = "all"
"""The name of the group that everybody belongs to."""

CONTROL = "model, attributes shuffled"
"""The method that hands each held-out customer another one's attributes: what is left is no knowledge of people."""

SHUFFLES = 5
"""How often the control is shuffled. Its figures are the means, so its own noise is half of one shuffle's or less."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of every query, one purchase of one customer each, for the model and for what it is compared with."""

    split: str
    """A name in `SPLITS`, or "in-sample"."""
    protocol: str
    """What tables call the split."""
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
    """By method and metric, the value of each query; "model" holds the mean over the seeds where there are several.

    nan where there is no value: a count-matched AUC of a product that nothing compares with.
    """
    listed: Int[np.ndarray, " l"]
    """The customer row of each list: in a fold, each customer with a query gets one."""
    lists: Mapping[str, Mapping[int, Lists]]
    """By method and length, the lists; of several seeds the first one's. The control hands out the model's lists."""
    novelty: Mapping[str, Mapping[int, Float64[np.ndarray, " l"]]]
    """By method and length, the novelty of each list."""
    candidates: int
    """How many products are ranked, in the fold that ranks most."""
    seeds: tuple[int, ...] = ()
    """The seeds of the models, where there are several."""
    by_seed: Mapping[str, Float64[np.ndarray, "s n"]] = field(default_factory=dict)
    """By metric, the value of each of those models for each query."""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By method, what was chosen for it in each fold."""
    leak_free: "Evaluation | None" = None
    """The same where attributes were derived from the purchases asked for: without them."""

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

    @property
    def queries(self) -> dict[str, int]:
        """The number of queries of each group."""
        return {name: int(members.sum()) for name, members in self.groups.items()}

    def mean(self, method: str, metric: str, group: str = ALL) -> float:
        """The mean of a metric over the queries of a group that have a value; nan where none has."""
        return float(_means(self.values[method][metric][None, self.groups[group]])[0])

    def each(self, metric: str, group: str = ALL) -> Float64[np.ndarray, " s"]:
        """The mean of a metric over the queries of a group, by the model of each seed."""
        return _means(self.by_seed[metric][:, self.groups[group]])

    def spread(self, metric: str, group: str = ALL) -> float:
        """The standard deviation over the seeds of the mean of a metric."""
        return float(self.each(metric, group).std(ddof=1))


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
    everything = np.ones(len(dataset.purchases), bool)
    task = Task.of(dataset, Fold(everything, everything), ks)
    rest = {**_together(models, dataset, ensemble), **popularities(dataset, everything)}
    part = _measure(models, dataset, task, rest)
    return _join("in-sample", "in-sample", ks, dataset, [part], [model.config.seed for model in models])


def cross_validation(
    dataset: Dataset,
    config: Config,
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
    """`evaluate_split` by `cross_validation_split`: `folds` over customers, dealt by `seed`."""
    return evaluate_split(
        dataset,
        config,
        cross_validation_split(dataset, folds, seed),
        ks,
        seeds=seeds,
        ensemble=ensemble,
        dataset_of_fold=dataset_of_fold,
        others=others,
        progress=progress,
    )


def evaluate_split(
    dataset: Dataset,
    config: Config,
    split: Split,
    ks: Sequence[int],
    *,
    seeds: Sequence[int] | None = None,
    ensemble: bool = False,
    dataset_of_fold: DatasetOfFold | None = None,
    others: Mapping[str, Scorer] | None = None,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> Evaluation:
    """In each fold, a model and the baselines learn from the training purchases, and are asked for the queries.

    Vocabularies, scaling, popularity and the model are fitted inside the fold; so is whatever `dataset_of_fold` fits,
    such as personas. Raises `InputError` where a split doesn't hold customers out whole, which that needs.

    Args:
        dataset: whose purchases are split.
        config: of the model; fold i trains with its seed + i.
        split: what is learned from and asked for, as from `SPLITS`.
        ks: the lengths of the lists.
        seeds: where given, "model" is the mean of the figures that each of them in the config would give.
        ensemble: whether the mean of these models' scores is one more method.
        dataset_of_fold: the dataset as it looks from within a fold.
        others: further methods, by name; scorers of customer rows.
        seed: of the control's shuffles.
        progress: called after each fold.
    """
    _check_ks(ks)
    if seed < 0:
        raise InputError(f"seed: found {seed}; allowed: 0 or more")
    configs = [replace(config, seed=one) for one in ([config.seed] if seeds is None else seeds)]
    parts: list[_Part] = []
    without_leak: list[_Part] = []
    for number, fold in enumerate(split.folds):
        seen = dataset if dataset_of_fold is None else dataset_of_fold(_known(dataset, fold, split))
        views = [seen.dataset, seen.leak_free] if isinstance(seen, Derived) else [seen]
        of_fold = [(one.seed + number) % 2**32 for one in configs]
        if len(configs) == 1:
            models = [fit(views[0], replace(config, seed=of_fold[0]), train=fold.train)]
        else:
            models = fit_seeds(views[0], config, of_fold, train=fold.train)
        for view, into in zip(views, (parts, without_leak), strict=False):
            task = Task.of(view, fold, ks)
            rest = {**_together(models, view, ensemble), **baselines(view, fold), **(others or {})}
            rng = np.random.default_rng([seed, number])
            into.append(_measure(models, view, task, rest, rng))
        if progress is not None:
            progress()
    numbers = [one.seed for one in configs]
    joined, *honest = (
        _join(split.name, split.title, ks, dataset, each, numbers) for each in (parts, without_leak) if each
    )
    return replace(joined, leak_free=honest[0]) if honest else joined


def _check_ks(ks: Sequence[int]) -> None:
    if not ks:
        raise InputError("k: found none; allowed: one length or more")
    for k in ks:
        if k < 1:
            raise InputError(f"k: found {k}; allowed: 1 or more")


def _means(values: Float64[np.ndarray, "s n"]) -> Float64[np.ndarray, " s"]:
    """Means of what is not nan."""
    known = ~np.isnan(values)
    size = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(sums, size, out=np.full(len(values), np.nan), where=size > 0))


def _known(dataset: Dataset, fold: Fold, split: Split) -> Bool[np.ndarray, " c"]:
    """The customers that may be learned from: those who are not asked."""
    known = np.ones(len(dataset.customers), bool)
    known[dataset.purchases[fold.queries, 0]] = False
    if not known[dataset.purchases[fold.train, 0]].all():
        raise InputError(
            f"{split.title}: found a customer with purchases on both sides; allowed for customers that are made of "
            f"reviews: a split that holds customers out whole, such as cross-validation"
        )
    return known


@dataclass(frozen=True)
class _Part:
    """What `Evaluation` holds, of one fold."""

    task: Task
    segments: list[str] | None
    values: dict[str, dict[str, Float64[np.ndarray, " n"]]]
    by_seed: dict[str, Float64[np.ndarray, "s n"]]
    lists: dict[str, dict[int, Lists]]
    notes: dict[str, str]


def _measure(
    models: Sequence[TrainedModel],
    dataset: Dataset,
    task: Task,
    rest: Mapping[str, Scorer],
    rng: np.random.Generator | None = None,
) -> _Part:
    """The figures of a fold; with `rng`, those of the control too."""
    scorers = [model_scorer(model, dataset) for model in models]
    each = [task.values(scorer) for scorer in scorers]
    by_seed = {metric: np.stack([values[metric] for values, _ in each]) for metric in each[0][0]}
    values = {"model": {metric: np.asarray(found.mean(axis=0)) for metric, found in by_seed.items()}}
    lists = {"model": each[0][1]}
    for name, scorer in rest.items():
        values[name], lists[name] = task.values(scorer)
    if rng is not None:
        values[CONTROL] = _control(scorers, task, rng)
    segments = dataset.segments
    notes = {name: scorer.note for name, scorer in rest.items() if isinstance(scorer, Shared) and scorer.note}
    of_queries = segments and [segments[row] for row in task.queries[:, 0]]
    return _Part(task, of_queries, values, by_seed, lists, notes)


def _control(scorers: Sequence[Shared], task: Task, rng: np.random.Generator) -> dict[str, Float64[np.ndarray, " n"]]:
    """The mean over shuffles of the metrics where each customer is ranked by the attributes of another.

    They are those of the customers asked in this fold, so that all figures but the pairing stay as they are. Where one
    customer alone is asked, there is nobody to swap with: the others lend theirs.
    """
    everybody = np.arange(len(scorers[0].group))
    asked = task.listed if len(task.listed) > 1 else everybody
    found = []
    # With several seeds there are as many shuffles in all, and at least one for each.
    for scorer in scorers:
        for _ in range(-(-SHUFFLES // len(scorers))):
            other = everybody.copy()
            other[asked] = rng.permutation(asked)
            found.append(task.values(scorer.handed_to(other), with_lists=False)[0])
    return {metric: np.asarray(np.mean([values[metric] for values in found], axis=0)) for metric in found[0]}


def _together(models: Sequence[TrainedModel], dataset: Dataset, ensemble: bool) -> dict[str, Scorer]:
    return {"ensemble": model_scorer(Ensemble(models), dataset)} if ensemble else {}


def _join(
    name: str, title: str, ks: Sequence[int], dataset: Dataset, parts: Sequence[_Part], seeds: Sequence[int]
) -> Evaluation:
    queries = np.concatenate([part.task.queries for part in parts])
    segments = [name for part in parts for name in part.segments or ()]
    first = parts[0]
    result = Evaluation(
        split=name,
        protocol=title,
        ks=tuple(ks),
        customers=queries[:, 0],
        products=queries[:, 1],
        segments=tuple(segments) or None,
        segment_word=dataset.segment_word,
        values={
            method: {metric: np.concatenate([part.values[method][metric] for part in parts]) for metric in by_metric}
            for method, by_metric in first.values.items()
        },
        listed=np.concatenate([part.task.listed for part in parts]),
        lists={
            method: {k: join_lists([part.lists[method][k] for part in parts]) for k in by_length}
            for method, by_length in first.lists.items()
        },
        novelty={
            method: {
                k: np.concatenate([part.lists[method][k].novelty(part.task.counts) for part in parts])
                for k in by_length
            }
            for method, by_length in first.lists.items()
        },
        candidates=max(len(part.task.candidates) for part in parts),
        notes={method: tuple(part.notes[method] for part in parts) for method in first.notes},
    )
    if len(seeds) == 1:
        return result
    by_seed = {metric: np.concatenate([part.by_seed[metric] for part in parts], axis=1) for metric in first.by_seed}
    return replace(result, seeds=tuple(seeds), by_seed=by_seed)
