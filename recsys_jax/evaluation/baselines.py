"""Baselines: chance, popularity in several forms, naive Bayes and logistic regression."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.sparse import csr_array

from recsys_jax.config import WideConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.schema import Numeric
from recsys_jax.data.splits import Fold, customer_folds
from recsys_jax.evaluation.methods import Learned, Method, Progress, model_scorer
from recsys_jax.evaluation.queries import Scorer, attribute_rows
from recsys_jax.models import metrics
from recsys_jax.models.basis import hats, quantiles
from recsys_jax.training.batches import prepare
from recsys_jax.training.convex import Penalties
from recsys_jax.training.fit import fit
from recsys_jax.training.penalties import inner_folds
from recsys_jax.training.purchases import TrainingPurchases

ALPHAS = (5, 10, 20, 50, 100, 200, 500, 1000)  # smoothing of naive Bayes: purchases' worth of "as everybody"
PENALTIES = (100.0, 3.0, 10.0, 30.0, 300.0, 1000.0)  # of logistic regression; the first where nothing can choose
NUMBER_KNOTS = 8  # how many quantiles of a number naive Bayes takes as its values; the wide recipe has `basis.KNOTS`
FOLDS, DEALS = 5, 3  # inner folds, and how often customers are dealt into them: with one deal the choice would be luck
INNER_SCORES = 2**23  # per inner fold and strength: of very many combinations of attributes, some thousands tell enough
SMALL = 0.5  # purchases added to each product: one that nobody bought has a logarithm, below that of those bought once


def baselines(dataset: Dataset, *, new_products: bool = False) -> dict[str, Method]:
    """By name, all baselines; each learns when it is asked to.

    Where the candidates are new products, nobody has bought them: popularity is then that of their category.
    """
    if new_products:
        out = {"random": _of(_chance)}
        return out if dataset.categories is None else {**out, "popularity by category": _of(_category_popularity)}
    return {
        **popularities(dataset),
        "inverse popularity": _of(lambda view, fold: _for_all(view, -_counts(view, fold))),
        "naive Bayes": _of(lambda view, fold: naive_bayes(view, fold.train).scorer()),
        "logistic regression": Method(logistic_regression),
    }


def popularities(dataset: Dataset) -> dict[str, Method]:
    """Chance, popularity and, where there are segments, popularity per segment."""
    out = {"random": _of(_chance), "popularity": _of(lambda view, fold: _for_all(view, _counts(view, fold)))}
    return out if dataset.segments is None else {**out, f"popularity per {dataset.segment_word}": _of(_per_segment)}


def _of(scorer: Callable[[Dataset, Fold], Scorer]) -> Method:
    """What is learned anew for each view of a fold: it may read the asked customers' segments or attributes."""
    return Method(lambda dataset, fold, number, say: Learned(lambda view: [scorer(view, fold)]))


def _counts(dataset: Dataset, fold: Fold) -> Float64[np.ndarray, " p"]:
    """How often each product was bought in training."""
    return np.bincount(dataset.purchases[fold.train, 1], minlength=len(dataset.product_ids)).astype(np.float64)


def _for_all(dataset: Dataset, scores: Float64[np.ndarray, " p"]) -> Scorer:
    """The same scores for everybody."""
    return Scorer.table(scores[None], np.zeros(len(dataset.customers), np.int64))


def _chance(dataset: Dataset, fold: Fold) -> Scorer:
    # Equal scores for all: the metrics' expectation over ties is that of a random order, exactly.
    return _for_all(dataset, np.zeros(len(dataset.product_ids)))


def _per_segment(dataset: Dataset, fold: Fold) -> Scorer:
    """Popularity in the customer's segment; one without training purchases has the general popularity."""
    bought, counts = dataset.purchases[fold.train], _counts(dataset, fold)
    code = np.unique(np.asarray(dataset.segments), return_inverse=True)[1]
    by_segment = np.zeros((code.max() + 1, len(counts)))
    np.add.at(by_segment, (code[bought[:, 0]], bought[:, 1]), 1.0)
    return Scorer.table(np.where(by_segment.sum(axis=1, keepdims=True) > 0, by_segment, counts), code)


def _category_popularity(dataset: Dataset, fold: Fold) -> Scorer:
    """The mean count of the known products in a product's category; of all known ones where it has none."""
    assert fold.candidates is not None
    counts, known = _counts(dataset, fold), ~fold.candidates
    code = np.unique(np.asarray(dataset.categories), return_inverse=True)[1]
    size = np.bincount(code[known], minlength=code.max() + 1)
    bought = np.bincount(code[known], counts[known], code.max() + 1)
    general = counts[known].mean() if known.any() else 0.0
    return _for_all(dataset, np.asarray(np.where(size > 0, bought / np.maximum(size, 1), general)[code]))


@dataclass(frozen=True)
class NaiveBayes:
    """Popularity, corrected by how much more often than others a product was bought with each attribute stated."""

    log_popularity: Float64[np.ndarray, " p"]
    log_ratio: Float64[np.ndarray, "a p"]
    """log p(value | product) - log p(value), smoothed."""
    alpha: float
    """The strength of the smoothing."""
    values: csr_array
    """To which degree each combination of attributes has each value, as of `soft_values`."""
    group: Int[np.ndarray, " c"]
    """The combination of each customer."""

    def scores(self, rows: Int[np.ndarray, " n"]) -> Float64[np.ndarray, "n p"]:
        """The scores of all products for the given combinations."""
        found = self.log_popularity + self.values[rows].toarray() @ self.log_ratio
        # What is equal but for the order of a sum must tie.
        return np.asarray(np.round(found, 9))

    def scorer(self) -> Scorer:
        """The scorer for the dataset's customers."""
        return Scorer(self.scores, self.group, f"alpha {self.alpha:g}")


def naive_bayes(dataset: Dataset, train: Bool[np.ndarray, " n"], alphas: Sequence[float] = ALPHAS) -> NaiveBayes:
    """score_j = log(count_j + 1/2) + sum over the values stated of log p(value | j) - log p(value).

    p(value | j) = (count of the value among j's purchases + alpha p(value)) / (count_j + alpha): a product bought
    rarely is taken to appeal to everybody alike. A value that no training customer has says nothing. Of `alphas`, the
    one with the best mean reciprocal rank in inner cross-validations over the customers of `train` is taken; a single
    one as it is.
    """
    total = len(dataset.product_ids)
    first, group = attribute_rows(dataset)
    bought = dataset.purchases[train]
    buyers = np.unique(bought[:, 0])
    values = soft_values(dataset, first, group[buyers])
    purchases = np.stack([group[bought[:, 0]], bought[:, 1]], axis=1)
    counts = value_counts(values, purchases, total)
    popularity = np.bincount(bought[:, 1], minlength=total).astype(np.float64)
    if len(alphas) == 1 or len(buyers) < 2:
        return _smoothed(counts, popularity, float(alphas[len(alphas) // 2]), values, group)

    folds = min(FOLDS, len(buyers))
    reciprocal = np.zeros(len(alphas))
    rng = np.random.default_rng(0)
    for deal, number in product(range(DEALS), range(folds)):
        fold = customer_folds(len(buyers), folds, deal)[np.searchsorted(buyers, bought[:, 0])]
        asked = purchases[fold == number]
        known = counts - value_counts(values, asked, total), popularity - np.bincount(asked[:, 1], minlength=total)
        # Aggregated by identical attribute rows and products: each is ranked once and counts as often as it occurs.
        queries, times = np.unique(asked, axis=0, return_counts=True)
        rows = np.unique(queries[:, 0])
        if len(rows) * total > INNER_SCORES:
            rows = np.sort(rng.choice(rows, INNER_SCORES // total + 1, replace=False))
            asked_for = np.isin(queries[:, 0], rows)
            queries, times = queries[asked_for], times[asked_for]
        row = np.searchsorted(rows, queries[:, 0])
        for i, alpha in enumerate(alphas):
            scores = _smoothed(*known, float(alpha), values, group).scores(rows)
            reciprocal[i] += metrics.reciprocal_rank(metrics.ranks_in_rows(scores, row, queries[:, 1])) @ times
    return _smoothed(counts, popularity, float(alphas[int(reciprocal.argmax())]), values, group)


def logistic_regression(dataset: Dataset, fold: Fold, number: int, progress: Progress) -> Learned:
    """Multinomial, of the product on the attributes, with an L2 penalty chosen on inner folds.

    It is the wide recipe without what products share, and its penalty is the one of `PENALTIES` with the best mean
    reciprocal rank. The intercepts are the log-popularities: fitted freely they overfit the products
    that few bought, and rank no better.
    """
    config = WideConfig(attribute_l2=inf, factor_l2=inf)
    data = TrainingPurchases.of(prepare(dataset, config, fold.train))
    folds = inner_folds(data, config)
    reciprocal = dict.fromkeys(PENALTIES, 0.0)
    for done, (own, one) in enumerate(product(PENALTIES, folds)):
        progress(done, len(PENALTIES) * len(folds), f"penalty {own:g}")
        reciprocal[own] += one.measure(Penalties(own, inf, inf)).sum(axis=0)[0]
    best = max(reciprocal, key=lambda own: reciprocal[own])
    model = fit(dataset, replace(config, own_l2=best), train=fold.train)
    return Learned(lambda view: [model_scorer(model, view, f"penalty {best:g}")])


def _smoothed(
    counts: Float64[np.ndarray, "a p"],
    popularity: Float64[np.ndarray, " p"],
    alpha: float,
    values: csr_array,
    group: Int[np.ndarray, " c"],
) -> NaiveBayes:
    share = counts.sum(axis=1, keepdims=True) / max(popularity.sum(), 1.0)
    # Counts of numbers are differences of sums: what is left of a value that nobody has is no share.
    seen = share > 1e-9
    ratio = (np.maximum(counts, 0.0) / np.where(seen, share, 1.0) + alpha) / (popularity + alpha)
    return NaiveBayes(np.log(popularity + SMALL), np.where(seen, np.log(ratio), 0.0), alpha, values, group)


def value_counts(values: csr_array, purchases: Int[np.ndarray, "n 2"], products: int) -> Float64[np.ndarray, "a p"]:
    """How often each product was bought with each value; `purchases` are of (combination, product)."""
    each = np.arange(len(purchases))
    bought = csr_array((np.ones(len(each)), (each, purchases[:, 1])), shape=(len(each), products))
    return np.asarray((values[purchases[:, 0]].T @ bought).toarray("C"))


def soft_values(dataset: Dataset, first: Int[np.ndarray, " r"], training: Int[np.ndarray, " t"]) -> csr_array:
    """To which degree each combination of attributes has each value (r, a): a number lies between two of its values.

    `first` has a customer of each combination, as from `attribute_rows`, and `training` the combination of each
    training customer: vocabularies and knots come from them alone. A missing value is ignored: as a value of its own it
    would count once for each of several attributes that are missing together. Raises `InputError` for a value that no
    policy admits.
    """
    table = dataset.customers.select(first.tolist())
    space = FeatureSpace.fit(dataset.schema.customers.features, table, np.unique(training).tolist(), part=True)
    rows, columns, weights, total = [], [], [], 0
    for fitted in space:
        encoded = fitted.encode(table)
        if isinstance(fitted.feature, Numeric):
            x = encoded[:, 0].astype(np.float64)
            missing = encoded[:, 1] > 0 if encoded.shape[1] > 1 else np.zeros(len(x), bool)
            stated = x[training][~missing[training]]
            # Quantiles of the training customers, so that each knot has about as many of them.
            knots = np.unique(quantiles(stated, NUMBER_KNOTS))
            weight, size = hats(x, knots, np), len(knots)
            own = np.where(missing[:, None], -1, np.arange(size))
        else:
            own = encoded.reshape(len(table), -1).astype(np.int64)
            own[own == fitted.missing_row] = -1
            weight, size = np.ones(own.shape), fitted.input.size
        there = np.nonzero(own >= 0)
        rows.append(there[0])
        columns.append(own[there] + total)
        weights.append(weight[there])
        total += size
    where = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.concatenate(weights), where), shape=(len(table), total))
