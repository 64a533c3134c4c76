"""Pages of small shops, made without a command."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from conftest import write_mall

from recsys_jax import DeepConfig, TrainedModel, fit, load_dataset, save_model
from recsys_jax.console.pictures.embedding import Space
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.splits import SPLITS
from recsys_jax.evaluation.baselines import popularities
from recsys_jax.evaluation.engine import MODEL, evaluate, in_sample
from recsys_jax.evaluation.findings import headline
from recsys_jax.evaluation.methods import recipe
from recsys_jax.evaluation.report import Report, report
from recsys_jax.report import page

QUICK = DeepConfig(epochs=2, batch_size=4, hidden_dim=6, output_dim=4, embedding_dim=3)
# What would run, end an element or an attribute, or be drawn as an element, were it not escaped.
HOSTILE = "<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "\"'><b onclick=alert(3)>&lt;i&gt;"


def hostile_mall(folder: Path) -> Path:
    """The mall with such names of products, brands, personas and the shop itself."""
    write_mall(folder)
    script, closing, quotes = HOSTILE
    for name, swaps in {
        "products.json": {"Dew Serum": script, "Calm Cream": closing, "Isul": quotes},
        "customers.json": {"Dew": quotes, "Gold": closing, "Gift": script},
    }.items():
        text = (folder / name).read_text("utf-8")
        for old, new in swaps.items():
            text = text.replace(json.dumps(old), json.dumps(new))
        (folder / name).write_text(text, "utf-8")
    toml = folder / "dataset.toml"
    toml.write_text(toml.read_text("utf-8").replace('name = "mall"', f"name = {json.dumps(quotes)}"), "utf-8")
    return folder


def held_out(dataset: Dataset, split: str = "cross-validation") -> Report:
    """What a quick model reaches on a split."""
    methods = {MODEL: recipe(QUICK), **popularities(dataset)}
    return report(evaluate(dataset, SPLITS[split](dataset, 3, 0), methods, (1, 3)), count=50)


def page_of(folder: Path, run: Path, *, model: TrainedModel | None = None, **options: object) -> tuple[str, Report]:
    """The page of a dataset, with a model that is trained for a moment or given; and what it is of."""
    dataset = load_dataset(folder)
    model = model or fit(dataset, QUICK)
    save_model(model, run)
    found = held_out(dataset)
    make: Callable[..., Path] = partial(page.write, run, found, dataset, model, Space.of(model, dataset, seed=0))
    settings = {"folder": folder, "made": None, "headline": headline(found, options.get("language", "en")), **options}
    if settings.pop("with memory", False):
        settings["memory"] = report(in_sample(model, dataset, (1, 3), others=popularities(dataset)), count=50)
    return make(**settings).read_text("utf-8"), found
