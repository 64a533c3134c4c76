"""Answers as figures: means with their intervals, differences, and the documents and tables that are written.

`report` compares a model with everything beside it; `compare` ranks methods and compares each with the best.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from recsys_jax.errors import InputError
from recsys_jax.evaluation.bootstrap import (
    LEVEL,
    Interval,
    Seeds,
    difference,
    list_intervals,
    mean_interval,
    mean_intervals,
    or_none,
    seeds_interval,
)
from recsys_jax.evaluation.engine import ALL, CONTROL, MODEL, SHUFFLES, Answers, Evaluation

K = 10
"""The length of the lists that methods are ranked by."""

METRICS = ("mrr", f"ndcg@{K}", f"hit@{K}")
"""What methods are compared by; the first one ranks."""


@dataclass(frozen=True)
class Report:
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
    over_seeds: Mapping[str, Seeds]
    """Of the model, by metric, where there are several seeds."""
    inverse: Interval | None
    """MRR of inverse popularity minus MRR of popularity."""
    count: int
    """The number of resamples."""
    seed: int
    """Of the resamples."""
    leak_free: "Report | None" = None

    @property
    def customers(self) -> int:
        """How many customers were asked for."""
        return len(np.unique(self.evaluation.customers))

    def difference(self, method: str, other: str, metric: str = METRICS[0]) -> Interval:
        """The interval of one method minus another, query by query; of several seeds, with other seeds too."""
        result = self.evaluation
        one, two = (result.methods[name].values[metric] for name in (method, other))
        return _paired(one, two, result.customers, self.count, self.seed)

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
            "lists": {
                method: {name: found.document() for name, found in by_name.items()}
                for method, by_name in self.lists.items()
            },
            "model minus": {
                method: {metric: {**found.document(), "reading": found.reading} for metric, found in by_metric.items()}
                for method, by_metric in self.differences.items()
            },
        }
        if CONTROL in result.values:
            document["shuffles of the control"] = SHUFFLES
        notes = {name: list(found.notes) for name, found in result.methods.items() if found.notes}
        if notes:
            document["chosen in each fold"] = notes
        if result.seeds:
            document["seeds"] = list(result.seeds)
            document["over seeds"] = {metric: self._seeds(metric, found) for metric, found in self.over_seeds.items()}
        document["findings"] = list(findings)
        if self.leak_free is not None:
            document["leak-free"] = self.leak_free.document(leak_free_findings)
        return document

    def _by_group(self, method: str, metric: str) -> dict[str, Any]:
        if method == MODEL:
            return {group: found[metric].document() for group, found in self.groups.items()}
        result = self.evaluation
        return {group: {"mean": or_none(result.mean(method, metric, group))} for group in self.groups}

    def _seeds(self, metric: str, found: Seeds) -> dict[str, Any]:
        result = self.evaluation
        return {
            "other customers": found.customers.document(),
            "other customers and seeds": found.both.document(),
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
    methods, names = list(result.values), result.metrics
    stacked = {
        method: np.stack([values[metric] for metric in names], axis=1) for method, values in result.values.items()
    }
    model = stacked[MODEL]

    def table(columns: Mapping[str, Float64[np.ndarray, "n m"]]) -> dict[str, dict[str, Interval]]:
        together = np.concatenate(list(columns.values()), axis=1)
        found = iter(mean_intervals(together, result.customers, count=count, seed=seed))
        return {method: {metric: next(found) for metric in names} for method in columns}

    def seeds(values: Float64[np.ndarray, "s n"]) -> Seeds:
        return seeds_interval(values, result.customers, count=count, seed=seed)

    rivals = [method for method in methods if method != MODEL]
    own = result.methods[MODEL].values
    if result.seeds:
        differences = {
            method: {metric: seeds(own[metric] - result.values[method][metric]).both for metric in names}
            for method in rivals
        }
    else:
        differences = table({method: model - stacked[method] for method in rivals}) if rivals else {}
    inverse = None
    if {"popularity", "inverse popularity"} <= set(methods):
        one, other = (result.values[method]["mrr"] for method in ("inverse popularity", "popularity"))
        inverse = difference(one, other, result.customers, count=count, seed=seed)
    groups = {}
    for group, members in result.groups.items():
        if group != ALL:
            of_group = mean_intervals(model[members], result.customers[members], count=count, seed=seed)
            groups[group] = dict(zip(names, of_group, strict=True))
    return Report(
        evaluation=result,
        means=table(stacked),
        groups=groups,
        differences=differences,
        lists={name: _lists(found, result, count, seed) for name, found in result.methods.items() if found.lists},
        over_seeds={metric: seeds(values) for metric, values in own.items()} if result.seeds else {},
        inverse=inverse,
        count=count,
        seed=seed,
        leak_free=None if result.leak_free is None else report(result.leak_free, count=count, seed=seed),
    )


def _lists(found: Answers, result: Evaluation, count: int, seed: int) -> dict[str, Interval]:
    out = {}
    for k, lists in found.lists.items():
        of_lists = list_intervals(lists, count=max(count // 5, 2), seed=seed)
        out[f"coverage@{k}"], out[f"gini@{k}"] = of_lists
        out[f"novelty@{k}"] = mean_interval(found.novelty[k], result.listed, count=count, seed=seed)
    return out


@dataclass(frozen=True)
class Row:
    """One method's line in the table."""

    method: str
    means: Mapping[str, Interval]
    """By metric; of several seeds the mean over them, with other customers but these very models."""
    spread: Mapping[str, float]
    """By metric, the standard deviation of one model's mean over the seeds; nan where there are not several."""
    minus_best: Mapping[str, Interval] | None
    """By metric, this method minus the first, query by query, with other customers and seeds; None of the first."""
    answers: Answers

    def reading(self, metric: str = METRICS[0]) -> str:
        """What the difference to the first says: on another metric than the ranking one it may be "better"."""
        if self.minus_best is None:
            return "the best"
        return self.minus_best[metric].reading


@dataclass(frozen=True)
class Comparison:
    """Methods ranked by what they reached on the same queries."""

    rows: tuple[Row, ...]
    """The best first."""
    queries: int
    customers: int
    count: int
    """The number of resamples of the customers."""
    seed: int
    """Of the resamples."""
    asked: Int[np.ndarray, " n"]
    """The customer of each query."""

    def difference(self, row: Row, other: Row, metric: str = METRICS[0]) -> Interval:
        """The interval of one method minus another, query by query; of several seeds, with other seeds too."""
        one, two = (each.answers.values[metric] for each in (row, other))
        return _paired(one, two, self.asked, self.count, self.seed)

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
                    "metrics": {metric: found.document() for metric, found in row.means.items()},
                    "standard deviation over seeds": {name: or_none(found) for name, found in row.spread.items()},
                    "minus the best": row.minus_best
                    and {
                        metric: {**found.document(), "reading": row.reading(metric)}
                        for metric, found in row.minus_best.items()
                    },
                    "chosen in each fold": list(row.answers.notes),
                    "seconds": round(row.answers.seconds, 1),
                }
                for rank, row in enumerate(self.rows, 1)
            ],
        }

    def csv(self) -> str:
        """The table as `comparison.csv`, a line per method; what has no value is empty."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        parts = [f"{metric}{end}" for metric in METRICS for end in ("", " low", " high", " over seeds")]
        differences = [f"{metric} minus best{end}" for metric in METRICS for end in ("", " low", " high", " reading")]
        writer.writerow(["rank", "method", "n", "seeds", *parts, *differences])
        for rank, row in enumerate(self.rows, 1):
            line: list[object] = [rank, row.method, self.queries, len(row.answers.seeds) or ""]
            for metric in METRICS:
                line += [*map(_six, _three(row.means[metric])), _six(row.spread[metric])]
            for metric in METRICS:
                figures = ["", "", ""] if row.minus_best is None else map(_six, _three(row.minus_best[metric]))
                line += [*figures, row.reading(metric)]
            writer.writerow(line)
        return stream.getvalue()


def compare(
    methods: Mapping[str, Answers], customers: Int[np.ndarray, " n"], *, count: int = 1000, seed: int = 0
) -> Comparison:
    """Ranks methods by the mean of the first metric; each is compared with the best, query by query.

    The best of many is in part the luckiest, so its lead is somewhat less with other customers; what lies inside the
    noise of it may as well be the best.

    Args:
        methods: by name, what they reached on the same n queries.
        customers: the customer of each query.
        count: the number of resamples of the customers.
        seed: of the resamples.

    Raises:
        InputError: for no method, methods that were asked different numbers of queries, or with different numbers of
            seeds, of those that have several.
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
        own = methods[name]
        means = {
            metric: mean_interval(np.asarray(own.values[metric].mean(axis=0)), customers, count=count, seed=seed)
            for metric in METRICS
        }
        spread = {metric: _spread(own.values[metric]) for metric in METRICS}
        if name == order[0]:
            return Row(name, means, spread, None, own)
        minus_best = {
            metric: _paired(own.values[metric], first.values[metric], customers, count, seed) for metric in METRICS
        }
        return Row(name, means, spread, minus_best, own)

    rows = tuple(map(row, order))
    return Comparison(rows, len(customers), len(np.unique(customers)), count, seed, customers)


def _paired(
    a: Float64[np.ndarray, "s n"],
    b: Float64[np.ndarray, "t n"],
    customers: Int[np.ndarray, " n"],
    count: int,
    seed: int,
) -> Interval:
    """The interval of mean(a - b); of two methods with seeds, one's models are compared with the other's in turn."""
    minus = np.asarray(a - b, np.float64)
    if len(minus) == 1:
        return mean_interval(minus[0], customers, count=count, seed=seed)
    return seeds_interval(minus, customers, count=count, seed=seed).both


def _spread(values: Float64[np.ndarray, "s n"]) -> float:
    return float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else math.nan


def _three(found: Interval) -> tuple[float, float, float]:
    return found.mean, found.low, found.high


def _six(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
