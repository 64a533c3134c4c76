"""An evaluation as figures: means with their intervals, comparisons with the model, and `metrics.json` of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from recsys_jax.evaluation import ALL, CONTROL, SHUFFLES, Evaluation
from recsys_jax.intervals import (
    Interval,
    Seeds,
    difference,
    list_intervals,
    mean_interval,
    mean_intervals,
    seeds_interval,
)

__all__ = ["LEVEL", "Report", "reading", "report"]

LEVEL = 0.95
"""The share of such intervals that hold the true mean."""


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

    def document(self, verdicts: Sequence[str] = (), leak_free_verdicts: Sequence[str] = ()) -> dict[str, Any]:
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
                    metric: {ALL: _interval(found), **self._by_group(method, metric)}
                    for metric, found in by_metric.items()
                }
                for method, by_metric in self.means.items()
            },
            "lists": {
                method: {name: _interval(found) for name, found in by_name.items()}
                for method, by_name in self.lists.items()
            },
            "model minus": {
                method: {metric: {**_interval(found), "reading": reading(found)} for metric, found in by_metric.items()}
                for method, by_metric in self.differences.items()
            },
        }
        if CONTROL in result.values:
            document["shuffles of the control"] = SHUFFLES
        if result.notes:
            document["chosen in each fold"] = {name: list(notes) for name, notes in result.notes.items()}
        if result.seeds:
            document["seeds"] = list(result.seeds)
            document["over seeds"] = {metric: self._seeds(metric, found) for metric, found in self.over_seeds.items()}
        document["verdicts"] = list(verdicts)
        if self.leak_free is not None:
            document["leak-free"] = self.leak_free.document(leak_free_verdicts)
        return document

    def _by_group(self, method: str, metric: str) -> dict[str, Any]:
        if method == "model":
            return {group: _interval(found[metric]) for group, found in self.groups.items()}
        result = self.evaluation
        return {group: {"mean": _number(result.mean(method, metric, group))} for group in self.groups}

    def _seeds(self, metric: str, found: Seeds) -> dict[str, Any]:
        result = self.evaluation
        return {
            "other customers": _interval(found.customers),
            "other customers and seeds": _interval(found.both),
            **{
                group: {
                    "standard deviation": _number(result.spread(metric, group)),
                    "each": list(map(_number, result.each(metric, group).tolist())),
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
    model = stacked["model"]

    def table(columns: Mapping[str, Float64[np.ndarray, "n m"]]) -> dict[str, dict[str, Interval]]:
        together = np.concatenate(list(columns.values()), axis=1)
        found = iter(mean_intervals(together, result.customers, level=LEVEL, count=count, seed=seed))
        return {method: {metric: next(found) for metric in names} for method in columns}

    def seeds(values: Float64[np.ndarray, "s n"]) -> Seeds:
        return seeds_interval(values, result.customers, level=LEVEL, count=count, seed=seed)

    rivals = [method for method in methods if method != "model"]
    if result.seeds:
        differences = {
            method: {metric: seeds(result.by_seed[metric] - result.values[method][metric]).both for metric in names}
            for method in rivals
        }
    else:
        differences = table({method: model - stacked[method] for method in rivals}) if rivals else {}
    inverse = None
    if {"popularity", "inverse popularity"} <= set(methods):
        one, other = (result.values[method]["mrr"] for method in ("inverse popularity", "popularity"))
        inverse = difference(one, other, result.customers, level=LEVEL, count=count, seed=seed)
    groups = {}
    for group, members in result.groups.items():
        if group != ALL:
            of_group = mean_intervals(model[members], result.customers[members], level=LEVEL, count=count, seed=seed)
            groups[group] = dict(zip(names, of_group, strict=True))
    return Report(
        evaluation=result,
        means=table(stacked),
        groups=groups,
        differences=differences,
        lists={method: _lists(result, method, count, seed) for method in result.lists},
        over_seeds={metric: seeds(values) for metric, values in result.by_seed.items()},
        inverse=inverse,
        count=count,
        seed=seed,
        leak_free=None if result.leak_free is None else report(result.leak_free, count=count, seed=seed),
    )


def reading(found: Interval) -> str:
    """What the interval of "model minus method" says of the model.

    >>> reading(Interval(0.1, 0.02, 0.2, 50)), reading(Interval(0.1, -0.02, 0.2, 50))
    ('better', 'inside the noise')
    """
    if not found.clear:
        return "inside the noise"
    return "better" if found.low > 0 else "worse"


def _lists(result: Evaluation, method: str, count: int, seed: int) -> dict[str, Interval]:
    out = {}
    for k, lists in result.lists[method].items():
        of_lists = list_intervals(lists, level=LEVEL, count=max(count // 5, 2), seed=seed)
        out[f"coverage@{k}"], out[f"gini@{k}"] = of_lists
        novelty = result.novelty[method][k]
        out[f"novelty@{k}"] = mean_interval(novelty, result.listed, level=LEVEL, count=count, seed=seed)
    return out


def _interval(found: Interval) -> dict[str, Any]:
    return {"mean": _number(found.mean), "low": _number(found.low), "high": _number(found.high), "n": found.n}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
