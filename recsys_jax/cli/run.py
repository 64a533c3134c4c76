"""The main job, end to end: personas, customers, training, evaluation, pictures, sample recommendations.

Examples: python scripts/run.py data/amoremall
          python scripts/run.py amoremall_reviews.json
"""

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.text import Text

from recsys_jax import Dataset, DeepConfig, InputError, Recommender, WideConfig, load_dataset
from recsys_jax.cli import evaluate, recommend, train
from recsys_jax.cli import personas as cluster_personas
from recsys_jax.console.terminal import console, following, made_customers, run_folder
from recsys_jax.data.dataset import read_schema
from recsys_jax.data.files import write_file
from recsys_jax.data.values import as_key

DEFAULT = Path(__file__).parents[1] / "data" / "amoremall"


@dataclass(frozen=True)
class Options:
    """The main job, end to end: personas, customers, training, evaluation, pictures, sample recommendations."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = DEFAULT
    """The folder with dataset.toml; or a product file of the mall with its reviews (JSON)."""
    run: Path | None = None
    """The folder for everything this writes; by default runs/NAME with the dataset's name."""
    encoder: str = "use"
    """'use' (multilingual, offline), 'lsa' (no model), or a sentence-transformers name or folder."""
    recipe: Literal["linear", "towers"] = "linear"
    """linear: what recommends best to customers never seen; towers: as published."""
    epochs: int = 500
    """Passes over the purchases (towers)."""
    seed: int = 0
    """Everything random follows from it."""


def main(options: Options) -> str:
    """Runs every stage; what each one says stands in its own script."""
    started = time.monotonic()
    if options.dataset.suffix == ".json" and not options.dataset.is_file():
        raise InputError(f"{options.dataset}: there is no such file")
    dataset = (folder_of(options.dataset) if options.dataset.is_file() else options.dataset).resolve()
    if Path.cwd() in dataset.parents:  # as a person would type it
        dataset = dataset.relative_to(Path.cwd())
    run = run_folder(dataset, options.run)
    if read_schema(dataset).customers.file is None:
        _stage("Personas and customers, from the reviews")
        cluster_personas.main(cluster_personas.Options(dataset, run, encoder=options.encoder, seed=options.seed))
    _stage("Training")
    config = DeepConfig(epochs=options.epochs, seed=options.seed)
    train.main(train.Options(dataset, WideConfig(seed=options.seed) if options.recipe == "linear" else config, run))
    for protocol in ("in-sample", "cross-validation"):
        _stage(f"Evaluation, {protocol}")
        evaluate.main(evaluate.Options(dataset, run, protocol=protocol, seed=options.seed))
    _stage("Sample recommendations, without what the customer bought")
    _samples(run, load_dataset(dataset, made_customers(dataset, run)))
    console.print(f"Done in {time.monotonic() - started:.0f} s. Everything is in {run}:")
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        console.print(f"  {path.relative_to(run)}")
    other = "towers" if options.recipe == "linear" else "linear"
    console.print(f"Look at {run / 'embedding_space.png'}, and try the other recipe beside this one:")
    return following("train.py", dataset, "--recipe", other, "--run", f"{run}-{other}")


def folder_of(products: Path) -> Path:
    """A dataset folder for a product file of the mall: its own copy, described as `data/amoremall` is."""
    folder = Path("runs") / f"{products.stem}-dataset"
    described = (DEFAULT / "dataset.toml").read_text("utf-8")
    write_file(folder / "dataset.toml", described.replace('name = "amoremall"', f"name = {json.dumps(products.stem)}"))
    write_file(folder / "personas.toml", (DEFAULT / "personas.toml").read_bytes())
    write_file(folder / "products.json", products.read_bytes())
    return folder


def _stage(title: str) -> None:
    console.print()
    console.rule(Text(title, "bold"), align="left")


def _samples(run: Path, dataset: Dataset, count: int = 5) -> None:
    """Recommendations for the first customer of each of the largest segments."""
    rec = Recommender.load(run)
    segments = dataset.segments or dataset.customer_ids
    features = dataset.schema.customers.features
    for segment, _ in Counter(segments).most_common(count):
        row = segments.index(segment)
        attributes = {f.column: dataset.customers.column(f.column)[row] for f in features}
        bought = [dataset.product_ids[product] for customer, product in dataset.purchases if customer == row]
        said = ", ".join(f"{name} {value}" for name, value in attributes.items() if as_key(value) is not None)
        recommend.show(rec.recommend(purchased_products=bought, **attributes), f"{segment}: {said}")
