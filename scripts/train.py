"""Trains the two towers on a dataset.

Example: python scripts/train.py data/amoremall
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from _common import again, command, console, open_dataset, progress, run_folder, write_model

import numpy as np
import tyro

from recsys_jax import TrainConfig, fit


@dataclass(frozen=True)
class Options:
    """Trains the two towers on a dataset."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml."""
    run: Path | None = None
    """The folder that the model is written to; by default runs/NAME with the dataset's name."""
    customers: Path | None = None
    """Another customer file than the dataset's, or than the one that cluster_personas.py made."""
    config: TrainConfig = field(default_factory=TrainConfig)
    """The model and its training."""


def main(options: Options) -> str:
    """Trains and writes the model."""
    run, config = run_folder(options.dataset, options.run), options.config
    dataset = open_dataset(options.dataset, run, options.customers)
    console.print(f"Training {recipe(config)}, {config.epochs:,} epochs, seed {config.seed}")
    with progress("training (compiling first)") as bar:

        def update(done: int, losses: np.ndarray) -> None:
            bar(done, config.epochs, f"loss {losses[-1]:.4f}")
            for epoch, loss in enumerate(losses, done - len(losses) + 1):
                if epoch % 100 == 0 or epoch == config.epochs:
                    console.print(f"Epoch {epoch}/{config.epochs} | Loss: {loss:.4f}")

        model = fit(dataset, config, progress=update)
    write_model(model, run)
    return f"scripts/evaluate.py {again(options.dataset, run, options.customers)}"


def recipe(config: TrainConfig) -> str:
    """The recipe in words."""
    words = {
        "triplet": f"with the triplet loss (margin {config.margin:g}, {config.negatives} negatives)",
        "infonce": f"with InfoNCE (in-batch negatives, temperature {config.temperature:g})",
        "softmax": f"with the full softmax (temperature {config.temperature:g})",
    }[config.loss]
    extras = {
        "log-Q correction": config.log_q,
        "popularity bias": config.popularity_bias,
        "product id embedding": config.id_embedding,
        f"attribute dropout {config.attribute_dropout:g}": config.attribute_dropout,
        f"number jitter {config.number_jitter:g}": config.number_jitter,
        f"{config.extra_customers:,} extra customers": config.extra_customers,
    }
    return ", ".join([words, *(name for name, used in extras.items() if used)])


if __name__ == "__main__":
    command(main)
