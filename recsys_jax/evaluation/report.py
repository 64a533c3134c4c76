"""Answers as figures with intervals: `report` compares a model with the others, `compare` each method with the best."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int

from recsys_jax.data.files import sheet_text
from recsys_jax.errors import InputError
from recsys_jax.evaluation.bootstrap import (
    LEVEL,
    Interval,
    list_intervals,
    mean_interval,
    mean_intervals,
    or_none,
    seeds_interval,
)
from recsys_jax.evaluation.engine import ALL, ALONE, BOTH, CONTROL, CUSTOMERS, MODEL, SHUFFLES, Answers, Evaluation

K = 10  # the length of the lists that methods are ranked by
LEAST = 10  # of fewer purchases a group has no interval: two hits of two resample to nothing but hits
BESTSELLERS = {"popularity", "popularity by category"}  # of new products it is that of their category
METRICS = ("mrr", f"ndcg@{K}", f"hit@{K}")  # what methods are compared by; the first one ranks


class Compared(ABC):
    """Methods that were asked the same, so that each can be compared with each."""

    @property
    @abstractmethod
    def names(self) -> Collection[str]:
        """The methods' names."""

    @abstractmethod
    def difference(self, method: str, other: str, metric: str = METRICS[0]) -> Interval:
        """The interval of one method minus another, query by query; of several seeds, with other seeds too."""

    @cached_property
    def no_merit(self) -> tuple[Literal["inverse", "chance"], Interval] | None:
        """Why it is no merit to beat the bestseller list, and by what difference; None where it is one.

        Its inverse has the better MRR, or its own is not shown to be better than chance.
        """
        if {"popularity", "inverse popularity"} <= set(self.names):
            lead = self.difference("inverse popularity", "popularity")
            if lead.low > 0:
                return "inverse", lead
        for name in BESTSELLERS & set(self.names) if "random" in self.names else ():
            lead = self.difference(name, "random")
            if not lead.low > 0:
                return "chance", lead
        return None


@dataclass(frozen=True)
class Report(Compared):
    """The figures of an evaluation, each with its interval."""

    evaluation: Evaluation
    means: Mapping[str, Mapping[str, Interval]]
    """By method and metric."""
    groups: Mapping[str, Mapping[str, Interval]]
    """Of the model, by segment and metric."""
    differences: Mapping[str, Mapping[str, Interval]]
    """Model minus method, by method and metric, query by query. Of several seeds, with other seeds too."""
    lists: Mapping[str, Mapping[str, Interval]]
    """By method, "coverage@k", "gini@k" and "novelty@k"."""
    of_customers: Mapping[str, Mapping[str, Interval]]
    """By method and metric of lists, the mean over customers."""
    count: int
    seed: int
    """Of the `count` resamples of the customers."""
    leak_free: "Report | None" = None
    importance: Mapping[str, Interval] = field(default_factory=dict)
    """By attribute, the MRR that is lost where it is another customer's, the most first; of several seeds, with other
    seeds too."""

    @property
    def customers(self) -> int:
        """How many customers were asked for."""
        return len(np.unique(self.evaluation.customers))

    @property
    def names(self) -> Collection[str]:
        """The methods' names."""
        return self.means.keys()

    def difference(self, method: str, other: str, metric: str = METRICS[0]) -> Interval:
        """The interval of one method minus another, query by query; of several seeds, with other seeds too."""
        one, two = (self.evaluation.methods[name].values[metric] for name in (method, other))
        return seeds_interval(one - two, self.evaluation.customers, count=self.count, seed=self.seed)

    def document(self, findings: Sequence[str] = (), leak_free_findings: Sequence[str] = ()) -> dict[str, Any]:
        """Everything as one document, `metrics.json`; what has no value is null."""
        result = self.evaluation
        document: dict[str, Any] = {
            "protocol": result.protocol,
            "split": result.split,
            "customers": self.customers,
            "queries": result.queries,
            "products ranked": result.candidates,
            "intervals": {"level": LEVEL, "resamples of customers": self.count, "seed": self.seed},
            "methods": {
                method: {
                    metric: {ALL: found.document(), **self._by_group(method, metric)}
                    for metric, found in by_metric.items()
                }
                for method, by_metric in self.means.items()
            },
            "lists": {method: _documents(by_name) for method, by_name in self.lists.items()},
            "per customer": {method: _documents(by_name) for method, by_name in self.of_customers.items()},
            "model minus": {method: _documents(found, reading=True) for method, found in self.differences.items()},
        }
        if CONTROL in result.values:
            document["shuffles of the control"] = SHUFFLES
        if self.importance:
            document["shuffles of each attribute"] = ALONE
            document["importance"] = {
                name: {**found, "stated": result.stated[name]}
                for name, found in _documents(self.importance, reading=True).items()
            }
        notes = {name: list(found.notes) for name, found in result.methods.items() if found.notes}
        if notes:
            document["chosen in each fold"] = notes
        if result.seeds:
            document["seeds"] = list(result.seeds)
            document["over seeds"] = {metric: self._over_seeds(metric) for metric in result.metrics}
        document["findings"] = list(findings)
        if self.leak_free is not None:
            document["leak-free"] = self.leak_free.document(leak_free_findings)
        return document

    def _by_group(self, method: str, metric: str) -> dict[str, Any]:
        if method == MODEL:
            return {group: found[metric].document() for group, found in self.groups.items()}
        result = self.evaluation
        return {group: {"mean": or_none(result.mean(method, metric, group))} for group in self.groups}

    def _over_seeds(self, metric: str) -> dict[str, Any]:
        result = self.evaluation
        options = {"count": self.count, "seed": self.seed}
        customers = mean_interval(result.values[MODEL][metric], result.customers, **options)
        both = seeds_interval(result.methods[MODEL].values[metric], result.customers, **options)
        return {
            CUSTOMERS: customers.document(),
            BOTH: both.document(),
            **{
                group: {
                    "standard deviation": or_none(result.spread(metric, group)),
                    "each": list(map(or_none, result.each(metric, group).tolist())),
                }
                for group in result.groups
            },
        }


def report(result: Evaluation, *, count: int = 1000, seed: int = 0) -> Report:
    """The figures of an evaluation, by `count` resamples of its customers, which follow from `seed`.

    Coverage and Gini take the standard deviation of the resamples, not their tails, so a fifth of them is enough.
    """
    names, options = result.metrics, {"count": count, "seed": seed}
    stacked = {
        method: np.stack([values[metric] for metric in names], axis=1) for method, values in result.values.items()
    }
    model, own = stacked[MODEL], result.methods[MODEL].values

    def table(
        columns: Mapping[str, Float64[np.ndarray, "n m"]], of: Sequence[str], customers: Int[np.ndarray, " n"]
    ) -> dict[str, dict[str, Interval]]:
        together = np.concatenate(list(columns.values()), axis=1)
        found = iter(mean_intervals(together, customers, **options))
        return {method: {metric: next(found) for metric in of} for method in columns}

    differences: dict[str, dict[str, Interval]] = {}
    rivals = [method for method in stacked if method != MODEL]
    if result.seeds:
        for method in rivals:
            each = {metric: own[metric] - result.values[method][metric] for metric in names}
            differences[method] = {name: seeds_interval(one, result.customers, **options) for name, one in each.items()}
    elif rivals:
        differences = table({method: model - stacked[method] for method in rivals}, names, result.customers)
    groups = {}
    for group, members in result.groups.items():
        if group != ALL:
            of_group = mean_intervals(model[members], result.customers[members], **options)
            told = (one if one.n >= LEAST else replace(one, low=np.nan, high=np.nan) for one in of_group)
            groups[group] = dict(zip(names, told, strict=True))
    lists: dict[str, dict[str, Interval]] = {}
    for method, answers in result.methods.items():
        for k, one in answers.lists.items():
            coverage, gini = list_intervals(one, count=max(count // 5, 2), seed=seed)
            novelty = mean_interval(answers.novelty[k], result.listed, **options)
            lists.setdefault(method, {}).update({f"coverage@{k}": coverage, f"gini@{k}": gini, f"novelty@{k}": novelty})
    by_list = tuple(result.methods[MODEL].of_customers)
    per_customer = {}
    if by_list:
        columns = {
            method: np.stack([answers.of_customers[name].mean(axis=0) for name in by_list], axis=1)
            for method, answers in result.methods.items()
        }
        per_customer = table(columns, by_list, result.listed)
    leak_free = None if result.leak_free is None else report(result.leak_free, **options)
    means = table(stacked, names, result.customers)
    lost: dict[str, Interval] = {}
    if result.seeds:
        lost = {name: seeds_interval(each, result.customers, **options) for name, each in result.lost.items()}
    elif result.lost:
        columns = {name: each.T for name, each in result.lost.items()}
        lost = {name: one["mrr"] for name, one in table(columns, ["mrr"], result.customers).items()}
    importance = dict(sorted(lost.items(), key=lambda one: -one[1].mean))
    return Report(result, means, groups, differences, lists, per_customer, count, seed, leak_free, importance)


@dataclass(frozen=True)
class Row:
    """One method's line in the table."""

    method: str
    means: Mapping[str, Interval]
    """By metric; of several seeds the mean over them, with other customers but these very models."""
    spread: Mapping[str, float]
    """By metric, the standard deviation of one model's mean over the seeds; nan where there are not several."""
    minus_best: Mapping[str, Interval]
    """By metric, this method minus the first, query by query, with other customers and seeds; empty of the first."""
    answers: Answers

    def reading(self, metric: str = METRICS[0]) -> str:
        """What the difference to the first says: on another metric than the ranking one it may be "better"."""
        return self.minus_best[metric].reading if self.minus_best else "the best"


@dataclass(frozen=True)
class Comparison(Compared):
    """Methods ranked by what they reached on the same queries."""

    rows: tuple[Row, ...]
    """The best first."""
    queries: int
    customers: int
    count: int
    seed: int
    """Of the `count` resamples of the customers."""
    asked: Int[np.ndarray, " n"]
    """The customer of each query."""

    @property
    def names(self) -> Collection[str]:
        """The methods' names, the best first."""
        return [row.method for row in self.rows]

    def difference(self, method: str, other: str, metric: str = METRICS[0]) -> Interval:
        """The interval of one method minus another, query by query; of several seeds, with other seeds too."""
        values = {row.method: row.answers.values[metric] for row in self.rows}
        return seeds_interval(values[method] - values[other], self.asked, count=self.count, seed=self.seed)

    def document(self) -> dict[str, Any]:
        """Everything as one document, `comparison.json`; what has no value is null."""
        return {
            "queries": self.queries,
            "customers": self.customers,
            "intervals": {"level": LEVEL, "resamples of customers": self.count, "seed": self.seed},
            "methods": [
                {
                    "rank": rank,
                    "method": row.method,
                    "seeds": list(row.answers.seeds),
                    "metrics": _documents(row.means),
                    "standard deviation over seeds": {name: or_none(found) for name, found in row.spread.items()},
                    "minus the best": _documents(row.minus_best, reading=True) or None,
                    "chosen in each fold": list(row.answers.notes),
                    "seconds": round(row.answers.seconds, 1),
                }
                for rank, row in enumerate(self.rows, 1)
            ],
        }

    def csv(self) -> str:
        """The table as `comparison.csv`, a line per method; what has no value is empty."""
        parts = [f"{metric}{end}" for metric in METRICS for end in ("", " low", " high", " over seeds")]
        differences = [f"{metric} minus best{end}" for metric in METRICS for end in ("", " low", " high", " reading")]
        lines: list[list[object]] = [["rank", "method", "n", "seeds", *parts, *differences]]
        for rank, row in enumerate(self.rows, 1):
            line: list[object] = [rank, row.method, self.queries, len(row.answers.seeds) or ""]
            for metric in METRICS:
                line += [*_three(row.means[metric]), six(row.spread[metric])]
            for metric in METRICS:
                line += [*(_three(row.minus_best[metric]) if row.minus_best else ["", "", ""]), row.reading(metric)]
            lines.append(line)
        return sheet_text(lines)


def compare(
    methods: Mapping[str, Answers], customers: Int[np.ndarray, " n"], *, count: int = 1000, seed: int = 0
) -> Comparison:
    """Ranks methods by the mean of the first metric; each is compared with the best, query by query.

    The best of many is in part the luckiest, so its lead is somewhat less with other customers; what lies inside the
    noise of it may as well be the best. Raises `InputError` for no method, or for different numbers of queries, or of
    seeds but for one.
    """
    if not methods:
        raise InputError("methods: found none; allowed: one or more")
    for name, answers in methods.items():
        found = answers.values[METRICS[0]].shape[1]
        if found != len(customers):
            raise InputError(f"{name}: found answers to {found:,} queries; allowed: to all {len(customers):,}")
    several = {len(answers.values[METRICS[0]]) for answers in methods.values()} - {1}
    if len(several) > 1:
        raise InputError(f"seeds: found methods with {' and '.join(map(str, sorted(several)))}; allowed: one number")
    order = sorted(methods, key=lambda name: -float(methods[name].values[METRICS[0]].mean()))
    first = methods[order[0]]

    def row(name: str) -> Row:
        own, options = methods[name], {"count": count, "seed": seed}
        means, spread, minus_best = {}, {}, {}
        for metric in METRICS:
            values = own.values[metric]
            means[metric] = mean_interval(np.asarray(values.mean(axis=0)), customers, **options)
            spread[metric] = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else math.nan
            if name != order[0]:
                minus_best[metric] = seeds_interval(values - first.values[metric], customers, **options)
        return Row(name, means, spread, minus_best, own)

    rows = tuple(map(row, order))
    return Comparison(rows, len(customers), len(np.unique(customers)), count, seed, customers)


def six(value: float) -> str:
    """A figure of a CSV file, with six decimals; empty where there is none."""
    return "" if math.isnan(value) else f"{value:.6f}"


def _three(found: Interval) -> list[str]:
    return [six(found.mean), six(found.low), six(found.high)]


def _documents(found: Mapping[str, Interval], *, reading: bool = False) -> dict[str, Any]:
    """By name, the intervals as JSON; of differences with what they say."""
    return {name: {**one.document(), **({"reading": one.reading} if reading else {})} for name, one in found.items()}
