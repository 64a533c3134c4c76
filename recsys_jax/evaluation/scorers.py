"""What ranks the products for customers: scores by customer row, computed once where customers share them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.data.dataset import Dataset
from recsys_jax.models.trained import Ensemble, TrainedModel, bucket
from recsys_jax.serving import scoring

__all__ = ["Scorer", "Shared", "attribute_rows", "model_scorer"]

Scorer = Callable[[Int[np.ndarray, " n"]], Float[np.ndarray, "n p"]]
"""Scores of every product for the customers in the given rows."""


@dataclass(frozen=True)
class Shared:
    """A scorer by which all customers of a group have the same scores: a group is scored and ranked once."""

    of_groups: Scorer
    """The scores of the groups with the given numbers."""
    group: Int[np.ndarray, " c"]
    """The group of each customer."""
    note: str = ""
    """What was chosen for it, such as a strength of smoothing."""

    def __call__(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n p"]:
        """The scores for the customers in the given rows."""
        return self.of_groups(self.group[rows])

    @classmethod
    def table(cls, scores: Float[np.ndarray, "g p"], group: Int[np.ndarray, " c"]) -> "Shared":
        """A scorer whose scores are there already, a row per group."""
        return cls(lambda groups: np.asarray(scores[groups]), group)

    def handed_to(self, customers: Int[np.ndarray, " c"]) -> "Shared":
        """The scorer that gives each customer the scores of the one in that place."""
        return replace(self, group=self.group[customers])


def attribute_rows(dataset: Dataset) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " c"]]:
    """One customer of each different combination of attribute cells, and the combination of each customer.

    Thousands of customers state but hundreds of combinations: whoever reads attributes alone is done sooner. Cells
    are compared as they are written, so some combinations may mean the same.
    """
    columns = [dataset.customers.column(feature.column) for feature in dataset.schema.customers.features]
    seen: dict[tuple[str, ...], int] = {}
    group = np.empty(len(dataset.customers), np.int64)
    first: list[int] = []
    for row, cells in enumerate(zip(*columns, strict=True)):
        # repr, not str: None is a missing cell and "None" a value.
        key = tuple(map(repr, cells))
        if key not in seen:
            seen[key] = len(first)
            first.append(row)
        group[row] = seen[key]
    return np.asarray(first, np.int64), group


def model_scorer(model: TrainedModel | Ensemble | Any, dataset: Dataset) -> Shared:
    """Scores as the recommender ranks by them, without boosts and exclusions; each combination of attributes once."""
    products, bias = model.product_embeddings, model.product_bias
    first, group = attribute_rows(dataset)
    customers = np.empty((len(first), 0))

    def of_groups(groups: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n p"]:
        nonlocal customers
        if not customers.shape[1]:  # when first asked, all at once
            customers = model.embed_customers(dataset.customers.select(first.tolist()))
        padded = np.pad(customers[groups], ((0, bucket(len(groups)) - len(groups)), (0, 0)))  # few lengths to compile
        return np.asarray(scoring.scores(padded, products) + bias)[: len(groups)]

    return Shared(of_groups, group)
