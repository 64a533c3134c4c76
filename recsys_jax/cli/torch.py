"""Turns a PyTorch checkpoint, {"model_state_dict": ..., "brand_map": ...}, into a run that the other scripts read.

Example: python scripts/import_torch.py model.pth data/amoremall
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recsys_jax import TrainedModel, load_checkpoint
from recsys_jax.console.terminal import (
    again,
    console,
    following,
    open_dataset,
    run_folder,
    write_model,
    write_set_aside,
)
from recsys_jax.data.dataset import read_products, read_schema
from recsys_jax.data.schema import Categorical, Numeric
from recsys_jax.data.tables import SetAside


@dataclass(frozen=True)
class Options:
    """Turns a PyTorch checkpoint into a run that the other scripts read."""

    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file; nothing in it is run."""
    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml: the features that the towers read, and the product catalogue."""
    run: Path | None = None
    """The folder that the model is written to; by default runs/NAME-torch with the dataset's name."""
    customers: Path | None = None
    """The customers that it was trained on. Only you know: with them, it can be evaluated in-sample."""


def main(options: Options) -> str:
    """Imports and writes the model."""
    named = run_folder(options.dataset, options.run)
    run = named if options.run else run_folder(options.dataset, named.with_name(f"{named.name}-torch"))
    if options.customers is None:
        schema = read_schema(options.dataset)
        products, _ = read_products(options.dataset, schema)
        lost: Sequence[SetAside] = products.set_aside
        model = load_checkpoint(options.checkpoint, schema, products)
        then = following("recommend.py", run, *_anybody(model))
    else:
        dataset = open_dataset(options.dataset, run, options.customers)
        lost = dataset.set_aside
        model = load_checkpoint(options.checkpoint, dataset.schema, dataset.products, trained_on=dataset)
        then = following("evaluate.py", *again(options.dataset, run, options.customers), "--protocol", "in-sample")
    for fitted in model.products:
        if isinstance(fitted.feature, Categorical):
            name, column = fitted.feature.name, model.product_rows[fitted.feature.column]
            count = sum(fitted.canonical(cell) is None for cell in column)
            if count:
                console.print(f"note: products whose {name} the checkpoint doesn't know: {count:,}")
    write_model(model, run)
    write_set_aside(lost, run)
    return then


def _anybody(model: TrainedModel) -> list[str]:
    """The attributes of somebody, as the next command takes them."""
    stated = {}
    for fitted in model.customers:
        number = isinstance(fitted.feature, Numeric)
        stated[fitted.feature.column] = "NUMBER" if number else fitted.values[0]
    return [f"{name}={value}" for name, value in stated.items()]
