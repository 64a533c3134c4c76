"""A trained model as a folder: safetensors and JSON, nothing that can run; checked when it is read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from recsys_jax.config import Config, LinearConfig, TrainConfig
from recsys_jax.errors import InputError
from recsys_jax.features import FeatureSpace, FittedFeature, with_product_id
from recsys_jax.files import write_file
from recsys_jax.schema import Schema
from recsys_jax.trained import TrainedModel

__all__ = ["load_model", "save_model"]

FORMAT = 3
MODEL, TENSORS = "model.json", "model.safetensors"


def save_model(model: TrainedModel, folder: str | Path) -> None:
    """Writes `model.json` and `model.safetensors` into `folder`, the first with the checksums of both."""
    folder = Path(folder)
    tensors = _flatten(model.variables)
    tensors |= {
        "product_embeddings": model.product_embeddings,
        "purchases": model.purchases.astype(np.int64),
        "losses": model.losses,
    }
    content = save_tensors({name: np.array(tensor, order="C") for name, tensor in tensors.items()})
    document: dict[str, Any] = {
        "format": FORMAT,
        "versions": {name: version(name) for name in ("recsys_jax", "jax", "flax", "numpy")},
        "sha256": {TENSORS: hashlib.sha256(content).hexdigest()},
        "trained_on": model.trained_on,
        "batches": dict(model.batches),
        "recipe": "linear" if isinstance(model.config, LinearConfig) else "towers",
        # JSON has no infinity.
        "config": {name: "inf" if value == inf else value for name, value in asdict(model.config).items()},
        "schema": model.schema.source,
        "customers": {fitted.feature.name: fitted.learned() for fitted in model.customers},
        "products": {fitted.feature.name: fitted.learned() for fitted in model.products},
        "product_ids": list(model.product_ids),
        "product_rows": {name: list(column) for name, column in model.product_rows.items()},
    }
    document["sha256"][MODEL] = _checksum(document)
    write_file(folder / TENSORS, content)
    write_file(folder / MODEL, json.dumps(document, indent=1, default=_plain) + "\n")


def load_model(folder: str | Path) -> TrainedModel:
    """The model that `save_model` wrote. Raises `InputError` where a file is missing, damaged or of another version."""
    folder = Path(folder)
    path = folder / MODEL
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; scripts/train.py writes it")
    try:
        document = json.loads(path.read_bytes())
        found = document["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: damaged: not the JSON that scripts/train.py writes") from None
    if found != FORMAT:
        raise InputError(f"{path}: found format {found!r}; this version reads format {FORMAT}: train the model again")
    try:
        content = (folder / TENSORS).read_bytes()
    except OSError:
        raise InputError(f"{folder / TENSORS}: there is no such file; train the model again") from None
    try:
        if document["sha256"].pop(MODEL) != _checksum(document):
            raise InputError(f"{path}: damaged, or edited: its content is not what its checksum says")
        if hashlib.sha256(content).hexdigest() != document["sha256"][TENSORS]:
            raise InputError(
                f"{folder / TENSORS}: damaged, or of another model: its checksum is not the one in {MODEL}"
            )
        return _restore(document, load_tensors(content), str(path))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, SafetensorError) as error:
        raise InputError(f"{path}: damaged: {type(error).__name__}: {error}") from None


def _restore(document: Mapping[str, Any], tensors: dict[str, np.ndarray], where: str) -> TrainedModel:
    schema = Schema.parse(document["schema"], where)
    options = {name: inf if value == "inf" else value for name, value in document["config"].items()}
    config: Config = {"linear": LinearConfig, "towers": TrainConfig}[document["recipe"]](**options)
    listed = schema.products.features
    sides = {
        "customers": schema.customers.features,
        "products": with_product_id(listed, schema.products.id) if config.id_embedding else listed,
    }
    spaces = {
        side: FeatureSpace(tuple(FittedFeature.restore(f, document[side][f.name]) for f in features))
        for side, features in sides.items()
    }
    return TrainedModel(
        schema=schema,
        config=config,
        customers=spaces["customers"],
        products=spaces["products"],
        product_ids=tuple(document["product_ids"]),
        product_rows=document["product_rows"],
        product_embeddings=tensors.pop("product_embeddings"),
        purchases=tensors.pop("purchases"),
        losses=tensors.pop("losses"),
        batches={side: int(document["batches"][side]) for side in ("customer", "product")},
        trained_on=document["trained_on"],
        variables=_unflatten(tensors),
    )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, branch in tree.items():
        path = prefix + name.replace("%", "%25").replace("/", "%2F")
        flat |= _flatten(branch, f"{path}/") if isinstance(branch, Mapping) else {path: np.asarray(branch)}
    return flat


def _unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, tensor in flat.items():
        *branches, leaf = (part.replace("%2F", "/").replace("%25", "%") for part in path.split("/"))
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[leaf] = tensor
    return tree


def _checksum(document: Mapping[str, Any]) -> str:
    """Of what the document says, however it is laid out; its own checksum left out."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: object) -> object:
    """A cell of a table as JSON: NumPy's scalars as Python's, dates as text."""
    return value.item() if isinstance(value, np.generic) else str(value)
