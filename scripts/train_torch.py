"""Trains the PyTorch reference on the mall's data, and says how well it remembers what it was trained on.

Example: python scripts/train_torch.py data/amoremall model.pth
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from _common import command, console, made_customers, progress, run_folder

import _torch_twin
import tyro

from recsys_jax import InputError


@dataclass(frozen=True)
class Options:
    """Trains the PyTorch reference on the mall's data."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with the mall's products.json."""
    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file to write."""
    customers: Path | None = None
    """The customer file; by default the one that cluster_personas.py made."""
    epochs: int = 500
    """Passes over the purchases."""
    seed: int = 0
    """Everything random follows from it."""


def main(options: Options) -> str:
    """Trains, evaluates and writes."""
    made = options.customers or made_customers(options.dataset, run_folder(options.dataset, None))
    if made is None:
        raise InputError(f"{options.dataset}: there are no customers yet: run scripts/cluster_personas.py first")
    customers = _torch_twin.read_rows(made)
    products = _torch_twin.read_rows(options.dataset / "products.json")
    with progress("training in PyTorch") as bar:
        model, losses = _torch_twin.train(
            customers,
            products,
            epochs=options.epochs,
            seed=options.seed,
            progress=lambda epoch, loss: bar(epoch, options.epochs, f"loss {loss:.4f}"),
        )
    brand_map = _torch_twin.brands(products)
    figures = _torch_twin.evaluate(model, customers, products, brand_map)
    console.print(f"Loss {losses[-1]:.4f}; in-sample {', '.join(f'{name} {x:.3f}' for name, x in figures.items())}")
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    _torch_twin.save(model, brand_map, options.checkpoint)
    console.print(f"Written: {options.checkpoint}")
    return f"scripts/import_torch.py {options.checkpoint} {options.dataset} --customers {made}"


if __name__ == "__main__":
    command(main)
