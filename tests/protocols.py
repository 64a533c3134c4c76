"""Evaluations as tests ask for them: a recipe as the model, beside all baselines; and a shop that can be counted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys_jax.config import Config
from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import Split, cross_validation_split
from recsys_jax.data.tables import Table
from recsys_jax.evaluation import engine
from recsys_jax.evaluation.baselines import baselines, popularities
from recsys_jax.evaluation.engine import MODEL, Evaluation, evaluate
from recsys_jax.evaluation.methods import Method, recipe


def evaluate_split(
    dataset: Dataset,
    config: Config,
    split: Split,
    ks: Sequence[int],
    *,
    seeds: Sequence[int] | None = None,
    ensemble: bool = False,
    beside: Mapping[str, Method] | None = None,
    **options: Any,
) -> Evaluation:
    """A recipe by a split, beside all baselines, or those given."""
    if beside is None:
        beside = baselines(dataset, new_products=split.name == "new-products")
    return evaluate(dataset, split, {MODEL: recipe(config, seeds, ensemble=ensemble), **beside}, ks, **options)


def cross_validation(
    dataset: Dataset, config: Config, ks: Sequence[int], *, folds: int = 5, seed: int = 0, **options: Any
) -> Evaluation:
    """A recipe by cross-validation, beside all baselines, or those given."""
    return evaluate_split(dataset, config, cross_validation_split(dataset, folds, seed), ks, **options)


def in_sample(models: Any, dataset: Dataset, ks: Sequence[int], **options: Any) -> Evaluation:
    """Models in-sample, beside chance and popularity."""
    return engine.in_sample(models, dataset, ks, others=popularities(dataset), **options)


ONE = {"kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "error"}
SCHEMA = Schema.parse(
    {
        "name": "counted",
        "products": {"file": "p.json", "id": "id", "category": "kind", "features": [{"name": "kind", **ONE}]},
        "customers": {
            "file": "c.json",
            "id": "id",
            "segment": "group",
            "purchases": "bought",
            "features": [{"name": "group", **ONE}],
        },
    },
    "schema",
)


def bought_by(bought: dict[str, list[list[str]]]) -> Dataset:
    """Products p0..p3 of kind a and q0..q3 of kind b; by group, what each customer bought."""
    products = [{"id": f"{letter}{i}", "kind": kind} for letter, kind in ("pa", "qb") for i in range(4)]
    rows = [
        {"id": f"{group}{i}", "group": group, "bought": items}
        for group, lists in bought.items()
        for i, items in enumerate(lists)
    ]
    ids = [row["id"] for row in products]
    return assemble(SCHEMA, Table.of(products, "products"), ids, Table.of(rows, "customers"), Path())
