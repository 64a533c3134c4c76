"""An evaluation as figures: means with their intervals, comparisons with the model, and `metrics.json` of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

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
from recsys_jax.evaluation.engine import ALL, CONTROL, SHUFFLES, Evaluation

__all__ = ["Report", "report"]


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
    model = stacked["model"]

    def table(columns: Mapping[str, Float64[np.ndarray, "n m"]]) -> dict[str, dict[str, Interval]]:
        together = np.concatenate(list(columns.values()), axis=1)
        found = iter(mean_intervals(together, result.customers, count=count, seed=seed))
        return {method: {metric: next(found) for metric in names} for method in columns}

    def seeds(values: Float64[np.ndarray, "s n"]) -> Seeds:
        return seeds_interval(values, result.customers, count=count, seed=seed)

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
        lists={method: _lists(result, method, count, seed) for method in result.lists},
        over_seeds={metric: seeds(values) for metric, values in result.by_seed.items()},
        inverse=inverse,
        count=count,
        seed=seed,
        leak_free=None if result.leak_free is None else report(result.leak_free, count=count, seed=seed),
    )


def _lists(result: Evaluation, method: str, count: int, seed: int) -> dict[str, Interval]:
    out = {}
    for k, lists in result.lists[method].items():
        of_lists = list_intervals(lists, count=max(count // 5, 2), seed=seed)
        out[f"coverage@{k}"], out[f"gini@{k}"] = of_lists
        novelty = result.novelty[method][k]
        out[f"novelty@{k}"] = mean_interval(novelty, result.listed, count=count, seed=seed)
    return out
