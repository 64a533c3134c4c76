"""The one loop over folds and methods: one figure per query or list, of which `evaluation.report` makes means."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.schema import Feature
from recsys_jax.data.splits import DatasetOfFold, Derived, Fold, Split
from recsys_jax.data.tabular.coded import taken
from recsys_jax.errors import Diverged, InputError, require, require_seed
from recsys_jax.evaluation.methods import Learned, Method, Progress, trained
from recsys_jax.evaluation.queries import Lists, Queries, Scorer, attribute_rows, join_lists
from recsys_jax.models.popularity import flat
from recsys_jax.models.trained import TrainedModel

KS = (3, 10)  # the lengths of the recommended lists that are measured where none are asked for
ALL = "all"  # the name of the group that everybody belongs to
CUSTOMERS, BOTH = "other customers", "other customers and seeds"  # what stands beside groups in `metrics.json`
MODEL = "model"  # the method that a report is about: the others are compared with it
ENSEMBLE = "ensemble"  # the method that ranks by the mean score of the model's seeds
CONTROL = "model, attributes shuffled"  # each held-out customer has another one's attributes: no knowledge of people
SHUFFLES = 5  # of the control, whose figures are the means: its own noise is half of one shuffle's or less
ALONE = 3  # shuffles of each attribute alone, for every seed's model; what noise they leave is in the intervals


@dataclass(frozen=True)
class Answers:
    """What one method reached."""

    values: Mapping[str, Float64[np.ndarray, "s n"]]
    """By metric, the value of each query by the model of each seed; nan: an AUC of what nothing compares with."""
    seeds: tuple[int, ...] = ()
    """Of those models; none where nothing was drawn, or by a seed that is not ours to choose."""
    notes: tuple[str, ...] = ()
    """What was chosen, in each fold."""
    seconds: float = 0.0
    """What choosing, learning and asking took."""
    lists: Mapping[int, Lists] = field(default_factory=dict)
    """By length, the lists of the first seed; the control hands out the model's, so it has none."""
    novelty: Mapping[int, Float64[np.ndarray, " l"]] = field(default_factory=dict)
    """By length, the novelty of each list."""
    of_customers: Mapping[str, Float64[np.ndarray, "s l"]] = field(default_factory=dict)
    """By metric of lists, the value of the list of each customer by the model of each seed."""

    @classmethod
    def join(cls, parts: "Sequence[Answers]") -> "Answers":
        """One method's answers in several folds as its answers to all of their queries."""
        first = parts[0]
        return cls(
            {metric: np.concatenate([part.values[metric] for part in parts], axis=1) for metric in first.values},
            first.seeds,
            tuple(note for part in parts for note in part.notes),
            sum(part.seconds for part in parts),
            {k: join_lists([part.lists[k] for part in parts]) for k in first.lists},
            {k: np.concatenate([part.novelty[k] for part in parts]) for k in first.novelty},
            {one: np.concatenate([part.of_customers[one] for part in parts], axis=1) for one in first.of_customers},
        )


@dataclass(frozen=True)
class Evaluation:
    """What every method reached in each query, which is one purchase of one customer."""

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
    methods: Mapping[str, Answers]
    """By name, in the order in which they were asked."""
    listed: Int[np.ndarray, " l"]
    """The customer row of each list: in a fold, each customer with a query gets one."""
    candidates: int
    """How many products are ranked, in the fold that ranks most."""
    flat: bool = False
    """Whether, in training, counts of purchases vary no more than by chance."""
    leak_free: "Evaluation | None" = None
    """The same where attributes were derived from the purchases asked for: without them."""
    lost: Mapping[str, Float64[np.ndarray, "s n"]] = field(default_factory=dict)
    """By attribute that a model reads, the MRR that each query loses where it is another customer's, by the model of
    each seed: none of what has a `leak_free`, in-sample, and without a control."""
    stated: Mapping[str, float] = field(default_factory=dict)
    """By attribute of `lost`, the share of the customers asked who state it."""
    features: tuple[Feature, ...] = ()
    """Those of the customers, which say what people call an attribute."""
    seconds: float = 0.0
    """What the whole evaluation took by the clock: all methods, and what was made anew in each fold."""

    @cached_property
    def values(self) -> dict[str, dict[str, Float64[np.ndarray, " n"]]]:
        """By method and metric, the value of each query; of several seeds, the mean over them."""
        return {
            name: {metric: np.asarray(each.mean(axis=0)) for metric, each in found.values.items()}
            for name, found in self.methods.items()
        }

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the models, where there are several."""
        own = self.methods[MODEL].seeds
        return own if len(own) > 1 else ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics' names, in the order of the tables."""
        return tuple(next(iter(self.methods.values())).values)

    @cached_property
    def groups(self) -> dict[str, Bool[np.ndarray, " n"]]:
        """Which queries belong to whom: everybody, then each segment by its name, the largest first.

        A segment whose name is taken is told apart by its word, such as "all (persona)".
        """
        groups = {ALL: np.ones(len(self.customers), bool)}
        labels = np.asarray(self.segments or ())
        for segment, _ in Counter(sorted(self.segments or ())).most_common():
            name = segment
            while name in (*groups, CUSTOMERS, BOTH):
                name += f" ({self.segment_word})"
            groups[name] = labels == segment
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
        return _means(self.methods[MODEL].values[metric][:, self.groups[group]])

    def spread(self, metric: str, group: str = ALL) -> float:
        """The standard deviation over the seeds of the mean of a metric."""
        return float(self.each(metric, group).std(ddof=1))


def evaluate(
    dataset: Dataset,
    split: Split,
    methods: Mapping[str, Method],
    ks: Sequence[int] = KS,
    *,
    dataset_of_fold: DatasetOfFold | None = None,
    control: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """In each fold, every method learns from the training purchases alone, and is asked for the queries.

    Vocabularies, scaling, popularity and models are fitted inside the fold; so is whatever `dataset_of_fold` fits,
    such as personas. Where that comes with and without a leak, what was learned is asked both ways; where no attribute
    that a model reads differs, there is no leak, and the figures are those without. Nothing is computed
    but the `methods` named. With `control`, `MODEL` among them is asked with attributes shuffled by `seed`, too: all at
    once and, without the leak where there is one, each alone. `progress` is called with how much is done, of how much,
    and what is being done, in a few words.

    Raises `InputError` for a length or seed that is not allowed; where a split doesn't hold customers out whole, which
    `dataset_of_fold` needs; and for a training that diverges, with the method's name.
    """
    if not ks:
        raise InputError("k: found none; allowed: one length or more")
    for k in ks:
        require(1 <= k < 2**31, "k", k, "from 1 to 2147483647")
    require_seed(seed)
    started = time.perf_counter()
    folds: list[list[_View]] = []
    total = len(split.folds) * len(methods)
    for number, fold in enumerate(split.folds):
        views = views_of_fold(dataset, split, fold, dataset_of_fold)
        folds.append([_View(view, Queries.of(view, fold, ks)) for view in views])
        for place, (name, method) in enumerate(methods.items()):
            before, title = number * len(methods) + place, f"fold {number + 1} of {len(split.folds)}: {name}"

            def learning(done: float, all_: float, word: str, before: int = before, title: str = title) -> None:
                """A method is as far as its training is; asking it takes little beside that."""
                if progress is not None:
                    progress(before + done / all_, total, f"{title}, {word}" if word else title)

            learning(0, 1, "")
            began = time.perf_counter()
            try:
                learned = method.learn(views[0], fold, number, learning)
            except Diverged as error:
                raise Diverged(f"{name}: {error}") from None
            took = time.perf_counter() - began
            for view in folds[-1]:
                began = time.perf_counter()
                scorers = learned.scorers(view.dataset)
                found = _answers(scorers, view.queries, method.seeds)
                view.answers[name] = replace(found, seconds=took + time.perf_counter() - began)
                if learned.ensemble is not None:
                    view.answers[ENSEMBLE] = _answers([learned.ensemble(view.dataset)], view.queries)
                if control and name == MODEL:
                    view.answers[CONTROL] = _control(scorers, view.queries, np.random.default_rng([seed, number]))
                    if view is folds[-1][-1]:
                        # A stream of its own: the control's shuffles are what they would be without it.
                        view.lost.update(_lost(learned, view, np.random.default_rng([seed, number, 1])))
    if progress is not None:
        progress(total, total, "")
    parts = [_join(views, split, ks) for views in zip(*folds, strict=True)]
    joined, *honest = (replace(one, seconds=time.perf_counter() - started) for one in parts)
    if not honest:
        return joined
    if any(_stated_otherwise(*views) for views in folds):
        return replace(joined, leak_free=honest[0])
    return replace(honest[0], segments=joined.segments)  # the model is told the same: segments alone were derived


def views_of_fold(dataset: Dataset, split: Split, fold: Fold, dataset_of_fold: DatasetOfFold | None) -> list[Dataset]:
    """The dataset as it looks from within a fold; where that is with a leak, also without it.

    Raises `InputError` where a customer who is asked is learned from, too, which `dataset_of_fold` cannot part.
    """
    if dataset_of_fold is None:
        return [dataset]
    known = np.ones(len(dataset.customers), bool)
    known[dataset.purchases[fold.queries, 0]] = False
    if not known[dataset.purchases[fold.train, 0]].all():
        raise InputError(
            f"{split.title}: found a customer with purchases on both sides; allowed for customers that are made of "
            f"reviews: a split that holds customers out whole, such as cross-validation"
        )
    seen = dataset_of_fold(known)
    return [seen.dataset, seen.leak_free] if isinstance(seen, Derived) else [seen]


def in_sample(
    models: TrainedModel | Sequence[TrainedModel],
    dataset: Dataset,
    ks: Sequence[int] = KS,
    *,
    ensemble: bool = False,
    others: Mapping[str, Method] | None = None,
) -> Evaluation:
    """The published protocol: models, which differ in their seed, are asked for the purchases they were trained on.

    It measures memory, not foresight; so do the figures of `others` beside it, which learn from all purchases too.
    With `ensemble`, the models' mean scores are measured as well.
    """
    models = [models] if isinstance(models, TrainedModel) else models
    for model in models:
        if model.product_ids != tuple(dataset.product_ids):
            raise InputError(f"{dataset.products.source}: these are not the products that the model was trained on")
        if model.trained_on not in dataset.fingerprints:
            raise InputError(
                f"{dataset.customers.source}: these are not the customers and purchases that the model was trained on; "
                f"name the file that it was trained on, or train again"
            )
    everything = np.ones(len(dataset.purchases), bool)
    split = Split("in-sample", "in-sample", (Fold(everything, everything),))
    methods = {MODEL: trained(models, ensemble=ensemble), **(others or {})}
    return evaluate(dataset, split, methods, ks, control=False)


@dataclass(frozen=True)
class _View:
    """One way to look at a fold, and what was answered there."""

    dataset: Dataset
    queries: Queries
    answers: dict[str, Answers] = field(default_factory=dict)
    lost: dict[str, Float64[np.ndarray, "s n"]] = field(default_factory=dict)


def _stated_otherwise(leaky: _View, honest: _View) -> bool:
    """Whether two views of a fold differ in an attribute that a model reads."""
    both = leaky.dataset.customers, honest.dataset.customers
    columns = [one.column for one in leaky.dataset.schema.customers.features]
    return any(both[0].column(name) != both[1].column(name) for name in columns)


def _join(views: Sequence[_View], split: Split, ks: Sequence[int]) -> Evaluation:
    """All folds as one evaluation; the control comes last."""
    pairs = np.concatenate([view.queries.pairs for view in views])
    segments: list[str] = []
    for view in views:
        if (of_customers := view.dataset.segments) is not None:
            segments += [of_customers[row] for row in view.queries.pairs[:, 0]]
    names = sorted(views[0].answers, key=lambda name: name == CONTROL)
    read = list(dict.fromkeys(column for view in views for column in view.lost))
    # A model that was left without an attribute in its fold loses nothing by it.
    lost = {
        column: np.concatenate([one.lost.get(column, 0 * one.answers[MODEL].values["mrr"]) for one in views], axis=1)
        for column in read
    }
    return Evaluation(
        split=split.name,
        protocol=split.title,
        ks=tuple(ks),
        customers=pairs[:, 0],
        products=pairs[:, 1],
        segments=tuple(segments) or None,
        segment_word=views[0].dataset.segment_word,
        methods={name: Answers.join([view.answers[name] for view in views]) for name in names},
        listed=np.concatenate([view.queries.listed for view in views]),
        candidates=max(len(view.queries.candidates) for view in views),
        flat=all(flat(view.queries.counts.astype(np.float64)) for view in views),
        lost=lost,
        features=views[0].dataset.schema.customers.features,
        stated={column: float(np.mean([said for view in views for said in _stated(view, column)])) for column in read},
    )


def _answers(scorers: Sequence[Scorer], queries: Queries, seeds: tuple[int, ...] = ()) -> Answers:
    each = [queries.values(scorer, with_lists=number == 0) for number, scorer in enumerate(scorers)]
    values, lists, of_customers = each[0]
    note = scorers[0].note
    return Answers(
        {metric: np.stack([found[metric] for found, _, _ in each]) for metric in values},
        seeds,
        (note,) if note else (),
        lists=lists,
        novelty={k: one.novelty(queries.counts) for k, one in lists.items()},
        of_customers={metric: np.stack([found[metric] for _, _, found in each]) for metric in of_customers},
    )


def _control(scorers: Sequence[Scorer], queries: Queries, rng: np.random.Generator) -> Answers:
    """The mean over shuffles of the metrics where each customer is ranked by the attributes of another.

    They are those of the customers asked in this fold, so that all figures but the pairing stay as they are. Where one
    customer alone is asked, there is nobody to swap with: the others lend theirs.
    """
    everybody = np.arange(len(scorers[0].group))
    asked = queries.listed if len(queries.listed) > 1 else everybody
    found = []
    # With several seeds there are as many shuffles in all, and at least one for each.
    for scorer in scorers:
        for _ in range(-(-SHUFFLES // len(scorers))):
            other = everybody.copy()
            other[asked] = rng.permutation(asked)
            handed = replace(scorer, group=scorer.group[other])
            found.append(queries.values(handed, with_lists=False))
    means, of_customers = (
        {metric: np.mean([one[metric] for one in each], axis=0)[None] for metric in each[0]}
        for each in ([values for values, _, _ in found], [values for _, _, values in found])
    )
    return Answers(means, of_customers=of_customers)


def _lost(learned: Learned, view: _View, rng: np.random.Generator) -> dict[str, Float64[np.ndarray, "s n"]]:
    """By attribute, the mean over shuffles of the MRR that each query loses where that alone is another customer's.

    Who lends it is drawn as for the control. Customers who state the same and are lent the same are one.
    """
    own, customers, queries = view.answers[MODEL].values["mrr"], view.dataset.customers, view.queries
    asked = queries.listed
    lenders = asked if len(asked) > 1 else np.arange(len(customers))
    others = np.concatenate([rng.permutation(lenders)[: len(asked)] for _ in range(ALONE)])
    first, group = attribute_rows(view.dataset)
    pairs, row = np.unique(np.tile(group[asked], ALONE) * len(first) + group[others], return_inverse=True)
    ours, theirs = (customers.select(first[each].tolist()) for each in np.divmod(pairs, len(first)))
    queries, lost = queries.repeated(ALONE), {}
    for column in learned.columns:
        handed = replace(ours, columns={**ours.columns, column: theirs.column(column)})
        scorers = learned.scorers(replace(view.dataset, customers=handed))
        ranked = [queries.reciprocal_ranks(replace(scorer, group=scorer.group[row])) for scorer in scorers]
        # The mean of differences, not the difference of means: what changes nothing loses exactly nothing.
        lost[column] = (own[:, None] - np.stack(ranked).reshape(len(own), ALONE, -1)).mean(axis=1)
    return lost


def _stated(view: _View, column: str) -> list[bool]:
    """Whether each customer asked states an attribute."""
    [feature, *_] = (one for one in view.dataset.schema.customers.features if one.column == column)
    values = taken(view.dataset.customers.column(column), view.queries.listed)
    return [said not in (None, []) for said in feature.read(values)]


def _means(values: Float64[np.ndarray, "s n"]) -> Float64[np.ndarray, " s"]:
    """Means of what is not nan."""
    known = ~np.isnan(values)
    size = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(sums, size, out=np.full(len(values), np.nan), where=size > 0))
