"""Splits of the purchases: which a model trains on, which are queries, and which products are ranked."""

import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.features import Features, FeatureSpace
from recsys_jax.errors import InputError, require, require_parts, require_seed


@dataclass(frozen=True)
class Fold:
    """One fold: masks over the rows of `Dataset.purchases`, disjoint but for `repeats`; True counts."""

    train: Bool[np.ndarray, " n"]
    """The purchases to train on."""
    queries: Bool[np.ndarray, " n"]
    """The held-out purchases, each a query."""
    candidates: Bool[np.ndarray, " p"] | None = None
    """The products to rank; None: all."""
    repeats: bool = False
    """Whether what a customer bought in training is ranked too, and asked for where it is bought again."""


@dataclass(frozen=True)
class Split:
    """Folds of the purchases by one protocol."""

    name: str
    """Its key in `SPLITS`."""
    title: str
    """Its title in tables, such as "cross-validation, 5 folds over customers"."""
    folds: tuple[Fold, ...]


@dataclass(frozen=True)
class Derived:
    """A fold's dataset where the held-out customers' attributes were derived from the very purchases asked for."""

    dataset: Dataset
    leak_free: Dataset
    """The same, but that what was derived is drawn from the training customers instead."""


DatasetOfFold = Callable[[Bool[np.ndarray, " c"]], Dataset | Derived]
"""The dataset as it looks when only the customers for which the mask is true may be learned from."""


def customer_folds(
    customers: int, folds: int, seed: int, strata: Sequence[str] | None = None, what: str = "customers"
) -> Int[np.ndarray, " customers"]:
    """The fold, 0..folds-1, of each customer: random, balanced to within one, in each stratum too.

    Raises `InputError`, in which customers are called `what`, for fewer than 2 folds or fewer customers than folds.
    """
    require_parts("folds", folds, customers, what)
    order = _rng(seed).permutation(customers)
    if strata is not None:
        labels = np.unique(np.asarray(strata), return_inverse=True)[1]
        order = order[np.argsort(labels[order], kind="stable")]
    # Dealt like cards, stratum after stratum, so that each fold gets an equal share of each stratum, to within one.
    fold = np.empty(customers, dtype=np.int32)
    fold[order] = np.arange(customers, dtype=np.int32) % folds
    return fold


def cross_validation_split(dataset: Dataset, folds: int = 5, seed: int = 0) -> Split:
    """New customers: random folds, stratified by segment; all purchases of a customer are in one fold.

    Raises `InputError` for a number of folds or a seed that is not allowed, or where a fold has no purchases.
    """
    fold = customer_folds(len(dataset.customers), folds, seed, dataset.segments)
    title = f"cross-validation, {folds} folds over customers"
    return _split("cross-validation", title, dataset, _numbered(fold[dataset.purchases[:, 0]], folds))


def hold_out_split(dataset: Dataset, share: int = 5) -> Split:
    """New customers, the same in any program: one in `share` is held out, those with sha1(id) % share = 0.

    The id is its UTF-8 text and sha1 a number, as in `int(hashlib.sha1(b"c5").hexdigest(), 16) % 5`, so the held-out
    customers depend on no seed, order or file format. Raises `InputError` where that is nobody or everybody.
    """
    require(share >= 2, "share", share, "2 or more, of which one is held out")
    # An id from JSON may hold half a surrogate pair, which UTF-8 cannot encode.
    sums = [hashlib.sha1(key.encode(errors="surrogatepass"), usedforsecurity=False) for key in dataset.customer_ids]
    held_out = np.array([int(one.hexdigest(), 16) % share == 0 for one in sums])[dataset.purchases[:, 0]]
    if held_out.all() or not held_out.any():
        buyers = len(np.unique(dataset.purchases[:, 0]))
        found = "all" if held_out.any() else "none"
        raise InputError(
            f"{dataset.customers.source}: sha1(id) % {share} = 0 holds out {found} of the {buyers:,} customers with "
            f"purchases; allowed: some of them; take cross-validation, which needs no luck"
        )
    title = f"hold-out, one customer in {share} by the checksum of the id"
    return _split("hold-out", title, dataset, [Fold(~held_out, held_out)])


def time_split(dataset: Dataset, share: float = 0.2) -> Split:
    """The future: trains on the earlier purchases; the last `share` of them, from a date on, are the queries.

    All purchases of a date are on one side. Of ten purchases, one a day, those of day 9 and day 10 are queries. Where
    nothing would be left to train on, queries begin at the second date.

    Later purchases of returning customers are queries too: the model has no customer ids, and knows as much of them as
    of anybody new; without them the split would measure first visits alone. Ranked is what a shop would show: all
    products, including those first bought later, since the data does not say when a product went on sale, but not what
    the customer bought before. Where the schema allows repeats, that is ranked, and asked for where it is bought again.

    Raises `InputError` where the dataset has no dates, or but one.
    """
    require(0 < share < 1, "share", share, "a number between 0 and 1")
    if dataset.dates is None:
        section = "[customers]" if dataset.schema.interactions is None else "[interactions]"
        raise InputError(
            f"dataset.toml, {section}: date: it is not given; allowed: the column with the date of a purchase, without "
            f"which there is no split by time"
        )
    again, when = dataset.repeats[:, 0].astype(np.int64), dataset.repeats[:, 1]
    dates = np.sort(np.concatenate([dataset.dates, when]))
    if dates[0] == dates[-1]:
        raise InputError(
            f"{dataset.schema.name}: found the date {_day(dates[0])} for all purchases; allowed: two or more different "
            f"dates, so that there is a before"
        )
    start = dates[min(round(len(dates) * (1 - share)), len(dates) - 1)]
    if start == dates[0]:
        start = dates[np.searchsorted(dates, start, side="right")]
    train = dataset.dates < start
    queries = ~train
    queries[again[when >= start]] = True
    fold = Fold(train, queries, repeats=dataset.schema.repeats)
    return _split("time", f"time, the purchases from {_day(start)} on", dataset, [fold])


def combination_split(dataset: Dataset, folds: int = 5, seed: int = 0) -> Split:
    """New combinations of attributes: customers whom the tower cannot tell apart are in one fold.

    Values are compared as the features encode them: `"30"` and `30`, `a|b` and `b|a`, an alias and its value are the
    same. Folds differ by no more purchases than one combination has. Raises `InputError` where there are fewer
    combinations than folds.
    """
    rng = _rng(seed)
    buyers, buyer = np.unique(dataset.purchases[:, 0], return_inverse=True)
    table = dataset.customers.select(buyers.tolist())
    # Vocabularies of all buyers: those of a training part would confuse the values that it lacks.
    space = FeatureSpace.fit(dataset.schema.customers.features, table, part=True)
    combination = np.asarray(combinations(space, space.encode(table))[1][buyer])
    sizes = np.bincount(combination)
    different = "different combinations of attributes that customers with purchases have"
    require_parts("folds", folds, len(sizes), different)
    # In random order, each to the fold with the fewest purchases so far.
    loads = [(0, number) for number in range(folds)]
    fold = np.empty(len(sizes), np.int32)
    for one in rng.permutation(len(sizes)):
        load, number = loads[0]
        fold[one] = number
        heapq.heapreplace(loads, (load + int(sizes[one]), number))
    title = f"new combinations of attributes, {folds} folds over {len(sizes):,} combinations"
    return _split("new-combinations", title, dataset, _numbered(fold[combination], folds))


def product_split(dataset: Dataset, folds: int = 5, seed: int = 0) -> Split:
    """New products: random folds of the products, stratified by category; a fold's products are the candidates.

    Ranked beside known products, new ones would be told apart by being new; among themselves, chance is higher. Raises
    `InputError` for a number of folds or a seed that is not allowed, or where nobody bought the products of a fold.
    """
    fold = customer_folds(len(dataset.product_ids), folds, seed, dataset.categories, "products")
    numbered = enumerate(_numbered(fold[dataset.purchases[:, 1]], folds))
    parts = [replace(part, candidates=fold == number) for number, part in numbered]
    return _split("new-products", f"new products, {folds} folds over products", dataset, parts)


SPLITS: Mapping[str, Callable[[Dataset, int, int], Split]] = MappingProxyType(
    {
        "cross-validation": cross_validation_split,
        "hold-out": lambda dataset, folds, seed: hold_out_split(dataset, _checked(folds)),
        "time": lambda dataset, folds, seed: time_split(dataset, 1 / _checked(folds)),
        "new-combinations": combination_split,
        "new-products": product_split,
    }
)
"""By name, the function of a dataset, a number of folds and a seed.

"hold-out" and "time" make one fold without a seed, with one in `folds` of the customers or purchases as queries.
"""


def _split(name: str, title: str, dataset: Dataset, folds: Sequence[Fold]) -> Split:
    for fold in folds:
        for mask, purpose in ((fold.train, "learn from"), (fold.queries, "ask for")):
            if not mask.any():
                raise InputError(
                    f"{dataset.schema.name}, {title}: found a fold without purchases to {purpose}; allowed: one or "
                    f"more in each; take fewer folds or another seed"
                )
    return Split(name, title, tuple(folds))


def _numbered(fold: Int[np.ndarray, " n"], folds: int) -> list[Fold]:
    """Each fold's queries are the purchases of its number; the others are for training."""
    return [Fold(fold != number, fold == number) for number in range(folds)]


def _day(seconds: float) -> str:
    """The date in UTC, with the time of day where it is not midnight.

    >>> _day(86400.0), _day(86400.0 + 90.5)
    ('1970-01-02', '1970-01-02 00:01:30')
    """
    return str(np.datetime64(int(seconds // 1), "s")).removesuffix("T00:00:00").replace("T", " ")


def _rng(seed: int) -> np.random.Generator:
    require_seed(seed)
    return np.random.default_rng(seed)


def _checked(folds: int) -> int:
    require(folds >= 2, "folds", folds, "2 or more")
    return folds


def combinations(space: FeatureSpace, features: Features) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " n"]]:
    """The different combinations of features: the first row of each, and the combination of each of the n rows.

    Rows that a tower cannot tell apart are one combination; the order of several values does not matter.
    """
    codes = []
    for name, kind, _ in space.inputs:
        column = features[name].reshape(len(features[name]), -1)
        values = np.sort(column, axis=1) if kind == "multi-categorical" else column
        codes.append(np.unique(values, axis=0, return_inverse=True)[1].reshape(-1))
    _, first, combination = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    return first, combination.reshape(-1)
