"""Trains the PyTorch reference on the mall's data, and says how well it remembers what it was trained on.

Example: recsys-jax torch train data/amoremall model.pth
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recsys_jax import InputError
from recsys_jax.console.options import Common
from recsys_jax.console.places import following, made_customers, open_dataset
from recsys_jax.console.terminal import answer, console, progress
from recsys_jax.data.dataset import read_schema
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.files import replace_file, require_folder
from recsys_jax.errors import installing
from recsys_jax.storage.torch import published_schema


@dataclass(frozen=True)
class Options(Common):
    """Trains the PyTorch reference on the mall's data."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with the mall's products.json."""
    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file to write."""
    customers: Path | None = None
    """The customer file; by default the one that `recsys-jax personas` made."""
    epochs: int = 500
    """Passes over the purchases."""
    seed: int = 0
    """Everything random follows from it."""
    examples = ("data/amoremall model.pth",)


def main(options: Options) -> str:
    """Trains, evaluates and writes."""
    made, products_file = mall_files(options.dataset, options.customers)
    _check(options, made)
    try:
        from recsys_jax_benchmark.pytorch import reference
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; {installing('torch')} brings it") from None
    customers = reference.read_rows(made)
    products = reference.read_rows(products_file)
    with progress("training in PyTorch") as bar:
        try:
            model, losses = reference.train(
                *(customers, products),
                epochs=options.epochs,
                seed=options.seed,
                progress=lambda epoch, loss: bar(epoch, options.epochs, f"loss {loss:.4f}"),
            )
        except KeyError as error:  # a label or an alias that our schema knows besides
            raise InputError(f"{made}, {options.dataset}: the reference doesn't know the value {error}") from None
    brand_map = reference.brands(products)
    figures = reference.evaluate(model, customers, products, brand_map)
    answer["training"] = {"loss": float(losses[-1]), "in-sample": {name: float(x) for name, x in figures.items()}}
    console.print(f"Loss {losses[-1]:.4f}; in-sample {', '.join(f'{name} {x:.3f}' for name, x in figures.items())}")
    replace_file(options.checkpoint, lambda stream: reference.save(model, brand_map, stream))
    console.print(f"Written: {options.checkpoint}")
    return following("torch import", options.checkpoint, options.dataset, "--customers", made)


def mall_files(dataset: Path, customers: Path | None) -> tuple[Path, Path]:
    """The files of customers and of products. Raises `InputError` where there are none that the reference reads."""
    schema = read_schema(dataset)
    own = dataset / schema.customers.file if schema.customers.file else None
    customers = customers or made_customers(dataset) or own
    if customers is None:
        raise InputError(f"{dataset}: there are no customers yet: run recsys-jax personas {dataset} first")
    products = dataset / schema.products.file
    for path in (customers, products):
        if path.suffix != ".json":
            raise InputError(f"{path}: found the ending {path.suffix!r}; allowed: .json, which the reference reads")
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
    return customers, products


def _check(options: Options, made: Path) -> None:
    """Everything that could go wrong, before the training and not after it."""
    for name, value, least, most in (("epochs", options.epochs, 1, 10**9), ("seed", options.seed, 0, 2**32 - 1)):
        if not least <= value <= most:
            raise InputError(f"{name}: found {value}; allowed: {least} to {most}")
    if read_schema(options.dataset).source["products"] != published_schema().source["products"]:
        raise InputError(f"{options.dataset}: the PyTorch reference knows the mall's products alone")
    # Our own reading tells what is wrong with either file, value by value.
    dataset = open_dataset(options.dataset, None, made)
    FeatureSpace.fit(dataset.schema.customers.features, dataset.customers).encode(dataset.customers)
    FeatureSpace.fit(dataset.schema.products.features, dataset.products).encode(dataset.products)
    if len(dataset.purchases) != len(dataset.customers):
        raise InputError(f"{made}: found several purchases of one customer; the reference knows one for each")
    if len(dataset.purchases) % 32 == 1:
        raise InputError(f"{made}: the last batch of {len(dataset.purchases)} is one customer, which PyTorch refuses")
    if options.checkpoint.is_dir():
        raise InputError(f"{options.checkpoint}: found a folder; allowed: the file to write")
    require_folder(options.checkpoint.parent)
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
