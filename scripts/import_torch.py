"""Turns a PyTorch checkpoint, {"model_state_dict": ..., "brand_map": ...}, into a run that the other scripts read.

Example: python scripts/import_torch.py model.pth data/amoremall
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from _common import again, command, open_dataset, run_folder, write_model

import tyro

from recsys_jax import load_checkpoint
from recsys_jax.data import read_products, read_schema


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
        write_model(load_checkpoint(options.checkpoint, schema, read_products(options.dataset, schema)[0]), run)
        return f"scripts/recommend.py {run} NAME=VALUE ..., or scripts/export_torch.py {run} FILE to go back"
    dataset = open_dataset(options.dataset, run, options.customers)
    write_model(load_checkpoint(options.checkpoint, dataset.schema, dataset.products, trained_on=dataset), run)
    return f"scripts/evaluate.py {again(options.dataset, run, options.customers)} --protocol in-sample"


if __name__ == "__main__":
    command(main)
