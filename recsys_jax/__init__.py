"""Recommendations from what kind of customer someone is: personas from reviews, a Two-Tower model, exact scoring.

From a folder with a dataset.toml to a model, and from a model to recommendations:

    from recsys_jax import DeepConfig, Recommender, fit, load_dataset, save_model
    save_model(fit(load_dataset("shop"), DeepConfig(loss="infonce")), "runs/shop")
    Recommender.load("runs/shop").recommend(age=32, gender="F", top_n=3)

The pure jitted functions that a `Recommender` is made of:

    from recsys_jax import encode_customers, encode_products, load_model, scores, top_k
    model = load_model("runs/shop")
    customers = model.customers.encode(table_of_customers)         # columns -> arrays
    products = model.products.encode(table_of_products)
    c = encode_customers(model.model, model.variables, customers)  # (n, d), unit length
    p = encode_products(model.model, model.variables, products)    # (p, d), unit length
    scores(c, p)                                                   # (n, p), (1 + cosine) / 2
    best, rows = top_k(c, p, 3, exclude=bought)                    # (n, 3), bought: rows (n, m), -1 pads
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys_jax.config import DeepConfig, WideConfig
    from recsys_jax.data.dataset import Dataset, load_dataset
    from recsys_jax.data.schema import Schema
    from recsys_jax.data.tables import Table
    from recsys_jax.errors import InputError
    from recsys_jax.models.towers import TwoTower, encode_customers, encode_products
    from recsys_jax.models.trained import Ensemble, TrainedModel
    from recsys_jax.retrieval.scoring import scores, top_k
    from recsys_jax.serving.recommender import Recommender
    from recsys_jax.storage.artifacts import load_model, save_model
    from recsys_jax.storage.torch import load_checkpoint, save_checkpoint
    from recsys_jax.training.fit import fit, fit_seeds

__all__ = [
    "Dataset",
    "DeepConfig",
    "Ensemble",
    "InputError",
    "Recommender",
    "Schema",
    "Table",
    "TrainedModel",
    "TwoTower",
    "WideConfig",
    "encode_customers",
    "encode_products",
    "fit",
    "fit_seeds",
    "load_checkpoint",
    "load_dataset",
    "load_model",
    "save_checkpoint",
    "save_model",
    "scores",
    "top_k",
]

_MODULES = {
    "config": ("DeepConfig", "WideConfig"),
    "data.dataset": ("Dataset", "load_dataset"),
    "data.schema": ("Schema",),
    "data.tables": ("Table",),
    "errors": ("InputError",),
    "models.towers": ("TwoTower", "encode_customers", "encode_products"),
    "models.trained": ("Ensemble", "TrainedModel"),
    "retrieval.scoring": ("scores", "top_k"),
    "serving.recommender": ("Recommender",),
    "storage.artifacts": ("load_model", "save_model"),
    "storage.torch": ("load_checkpoint", "save_checkpoint"),
    "training.fit": ("fit", "fit_seeds"),
}

# Former names, with what they are now called and where.
_FORMER = {"LinearConfig": ("LinearConfig", "WideConfig"), "TrainConfig": ("DeepConfig", "DeepConfig")}


def __getattr__(name: str) -> Any:
    """Imports a name where it is first used: who only scores embeddings loads neither Flax nor Optax."""
    if name in _FORMER:
        found, now = _FORMER[name]
        warnings.warn(f"recsys_jax.{name} is now called {now}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module("recsys_jax.config"), found)
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"recsys_jax.{module}"), name)
    raise AttributeError(f"module 'recsys_jax' has no attribute {name!r}")
