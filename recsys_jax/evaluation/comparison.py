"""Several methods asked the same queries: who is ahead, and what of it is more than noise."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from recsys_jax.errors import InputError
from recsys_jax.evaluation.bootstrap import LEVEL, Interval, mean_interval, or_none, seeds_interval
from recsys_jax.models import metrics
from recsys_jax.models.metrics import Ranks

__all__ = ["METRICS", "Answers", "Comparison", "Row", "compare", "join", "of_ranks"]

K = 10
"""The length of the lists that are judged."""

METRICS = ("mrr", f"ndcg@{K}", f"hit@{K}")
"""What is compared; the first one ranks."""


@dataclass(frozen=True)
class Answers:
    """What one method reached."""

    values: Mapping[str, Float64[np.ndarray, "s n"]]
    """By metric, the value of each query, by the model of each seed; one row where there is one model."""
    seeds: tuple[int, ...] = ()
    """Of those models; none where nothing was drawn, or by a seed that is not ours to choose."""
    notes: tuple[str, ...] = ()
    """What was chosen, in each fold."""
    seconds: float = 0.0
    """What choosing, training and asking took."""


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
            cells: list[object] = [rank, row.method, self.queries, len(row.answers.seeds) or ""]
            for metric in METRICS:
                cells += [*map(_cell, _three(row.means[metric])), _cell(row.spread[metric])]
            for metric in METRICS:
                figures = ["", "", ""] if row.minus_best is None else map(_cell, _three(row.minus_best[metric]))
                cells += [*figures, row.reading(metric)]
            writer.writerow(cells)
        return stream.getvalue()


def of_ranks(ranked: Ranks) -> dict[str, Float64[np.ndarray, "1 n"]]:
    """The metrics of queries whose targets stand at these places.

    >>> found = of_ranks((np.array([0, 1]), np.array([1, 1])))
    >>> found["mrr"].tolist(), found["hit@10"].tolist()
    ([[1.0, 0.5]], [[1.0, 1.0]])
    """
    each = metrics.reciprocal_rank(ranked), metrics.ndcg_at_k(ranked, k=K), metrics.hit_at_k(ranked, k=K)
    return {name: np.asarray(values[None], np.float64) for name, values in zip(METRICS, each, strict=True)}


def join(parts: Sequence[Answers]) -> Answers:
    """One method's answers in several folds as its answers to all of their queries."""
    return Answers(
        {metric: np.concatenate([part.values[metric] for part in parts], axis=1) for metric in METRICS},
        parts[0].seeds,
        tuple(note for part in parts for note in part.notes),
        sum(part.seconds for part in parts),
    )


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
    return Comparison(rows, len(customers), len(np.unique(customers)), count, seed)


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


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
