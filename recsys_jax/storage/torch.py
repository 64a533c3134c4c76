"""PyTorch checkpoints in and out: `torch.save({"model_state_dict": ..., "brand_map": {brand: row}}, path)`.

The form in which this kind of system is published. Its names are kept: a table `NAME_emb` for each categorical feature,
`customer_mlp` and `product_mlp` of `Sequential(Linear, ReLU, BatchNorm1d, Dropout, Linear)`, and `NAME_map` for each
vocabulary that was learned. A third entry, `extra_rows`, which other readers pass over, holds the embeddings of unknown
values that this project keeps and the published form does not know.
"""

import io
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from recsys_jax.config import DeepConfig
from recsys_jax.data.dataset import Dataset, product_ids, read_products, read_schema
from recsys_jax.data.features import FeatureSpace, FittedFeature
from recsys_jax.data.files import write_file
from recsys_jax.data.schema import Feature, MultiCategorical, Numeric, Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.data.values import as_key
from recsys_jax.errors import InputError, choices
from recsys_jax.models.popularity import SMOOTHED
from recsys_jax.models.towers import encode_products
from recsys_jax.models.trained import TrainedModel, product_rows, two_tower
from recsys_jax.storage.torch_file import open_torch_file, torch_module

Spaces = Mapping[str, FeatureSpace]
"""The features of the "customer" and of the "product" tower."""


_STATE, _EXTRA_ROWS, _COUNTER = "model_state_dict", "extra_rows", "2.num_batches_tracked"
# Where each tensor of a tower's `nn.Sequential` lives in our tree; a Linear's weight is the kernel transposed.
_LAYERS = {
    "0.weight": ("params", "deep", "hidden", "kernel"),
    "0.bias": ("params", "deep", "hidden", "bias"),
    "2.weight": ("params", "deep", "norm", "scale"),
    "2.bias": ("params", "deep", "norm", "bias"),
    "2.running_mean": ("batch_stats", "deep", "norm", "mean"),
    "2.running_var": ("batch_stats", "deep", "norm", "var"),
    _COUNTER: (),
    "4.weight": ("params", "deep", "output", "kernel"),
    "4.bias": ("params", "deep", "output", "bias"),
}


def published_schema() -> Schema:
    """The schema of the published checkpoints: the columns and vocabularies of the cosmetics mall."""
    name = "amoremall.toml"
    return Schema.parse(tomllib.loads(files("recsys_jax.data").joinpath(name).read_text("utf-8")), name)


def catalogue(products: object, schema: Schema | None = None) -> tuple[Schema, Table]:
    """A product table and its schema, from a dataset folder, a product file, a data frame, columns or a list of dicts.

    The schema is the one given, else the folder's, else the published one. Raises `InputError`.
    """
    if not isinstance(products, str | Path):
        return schema or published_schema(), Table.of(products, "products")
    path = Path(products)
    if not path.is_dir():
        return schema or published_schema(), read_table(path)
    schema = schema or read_schema(path)
    return schema, read_products(path, schema)[0]


def load_checkpoint(
    path: str | Path, schema: Schema, products: Table, *, trained_on: Dataset | None = None
) -> TrainedModel:
    """The model in a PyTorch checkpoint, with a product catalogue; its config is the published recipe in its sizes.

    Nothing in the file is run: it is opened with `weights_only=True`.

    Args:
        path: the checkpoint.
        schema: the features in the order in which the towers read them, and the vocabularies that were not learned.
        products: the catalogue.
        trained_on: what it was trained on, on its owner's word: it can then be evaluated in-sample.

    Raises `InputError` for a file that needs code to be opened, is damaged or doesn't fit the schema, and for a
    catalogue that the schema doesn't allow.
    """
    path = Path(path)
    ids = product_ids(products, schema)
    if trained_on is not None and trained_on.product_ids != ids:
        raise InputError(f"{products.source}: found other products than the customers' dataset has; allowed: the same")
    checkpoint = open_torch_file(path)
    if not isinstance(checkpoint.get(_STATE), Mapping):
        raise InputError(f"{path}: found {choices(checkpoint)}; allowed: a dictionary with weights under {_STATE!r}")
    _check_features(schema, f"{path}: can't be of this dataset")
    spaces = {
        side: FeatureSpace(tuple(_fitted(feature, checkpoint, path) for feature in features))
        for side, features in (("customer", schema.customers.features), ("product", schema.products.features))
    }
    config, tensors = _tensors(checkpoint, spaces, path)
    batches = {side: int(tensors.pop(f"{side}_mlp.{_COUNTER}")) for side in spaces}
    encoded = spaces["product"].encode(products)
    kept = checkpoint.get(_EXTRA_ROWS, {})
    if not isinstance(kept, Mapping):
        raise InputError(f"{path}: {_EXTRA_ROWS}: found {type(kept).__name__}; allowed: a dictionary")
    for weight, (side, fitted) in _tables(spaces).items():
        table, shape = tensors[weight], (fitted.input.size - len(fitted.values), config.embedding_dim)
        if kept.get(weight) is not None:
            extra = _array(kept[weight], shape, torch_module().float32, f"{path}: {_EXTRA_ROWS}, {weight}")
        else:  # for unknown and missing values the mean of the rows in use
            used = encoded[fitted.feature.name] if side == "product" else np.arange(len(table))
            known = used[used < len(table)]
            extra = np.tile(table[known].mean(axis=0) if len(known) else np.zeros_like(table[0]), (shape[0], 1))
        tensors[weight] = np.concatenate([table, extra])
    leaves = {place: tensors[name] for name, place in _paths(spaces).items() if place}
    tree = {place: np.ascontiguousarray(x.T) if place[-1] == "kernel" else x for place, x in leaves.items()}
    variables: dict[str, Any] = unflatten_dict(tree)  # type: ignore[no-untyped-call]
    module = two_tower(config, spaces["customer"], spaces["product"])
    embeddings = np.asarray(encode_products(module, variables, encoded))
    if not np.isfinite(embeddings).all():
        raise InputError(f"{path}: {_STATE}: the weights are too large: they give products no finite embedding")
    bought = np.zeros(0, np.int32) if trained_on is None else trained_on.purchases[:, 1]
    purchases = np.bincount(bought, minlength=len(ids))
    return TrainedModel(
        schema=schema,
        config=config,
        customers=spaces["customer"],
        products=spaces["product"],
        variables=variables,
        product_ids=tuple(ids),
        product_rows=product_rows(schema, products),
        product_embeddings=embeddings,
        popularity=SMOOTHED.kept(purchases.astype(np.float64), 0.0),
        purchases=purchases,
        losses=np.zeros(0, np.float32),
        batches=batches,
        chosen={},
        trained_on="" if trained_on is None else trained_on.fingerprint,
    )


def save_checkpoint(model: TrainedModel, path: str | Path) -> None:
    """Writes the model as a PyTorch checkpoint; `load_checkpoint` gives the same bytes of weights back.

    Raises `InputError` for a model with something that the published form has no place for.
    """
    torch, path = torch_module(), Path(path)
    if model.config.recipe == "deep":  # with another one, that is what has to be told
        _check_features(model.schema, f"{path}: a checkpoint can't hold this model")
    for name in ("popularity_bias", "id_embedding"):
        if getattr(model.config, name):
            raise InputError(
                f"{path}: a checkpoint can't hold this model: found {name} (recipe {model.config.recipe}); allowed: a "
                f"model without it, as recsys-jax train DATASET deep makes it"
            )
    spaces = {"customer": model.customers, "product": model.products}
    leaves = flatten_dict(dict(model.variables))  # type: ignore[no-untyped-call]
    state: dict[str, Any] = {}
    for name, place in _paths(spaces).items():
        if not place:
            state[name] = torch.tensor(model.batches[name.removesuffix(f"_mlp.{_COUNTER}")])
        else:
            leaf = leaves[place]
            state[name] = torch.from_numpy(np.array(leaf.T if place[-1] == "kernel" else leaf, order="C"))
    extra: dict[str, Any] = {}
    document: dict[str, Any] = {_STATE: state}
    for weight, (_, fitted) in _tables(spaces).items():
        table, count = state[weight], len(fitted.values)
        state[weight] = table[:count].clone()  # a view would be saved with all that it is a view of
        if len(table) > count:
            extra[weight] = table[count:].clone()
        if not isinstance(fitted.feature, Numeric) and fitted.feature.values is None:
            document[f"{fitted.feature.name}_map"] = {value: row for row, value in enumerate(fitted.values)}
    if extra:
        document[_EXTRA_ROWS] = extra
    content = io.BytesIO()  # PyTorch says of a full disk no more than "unexpected pos"
    torch.save(document, content)
    write_file(path, content.getvalue())


def _check_features(schema: Schema, what: str) -> None:
    """Raises `InputError` for features that the published form has no place for."""
    names: set[str] = set()
    for feature in (*schema.customers.features, *schema.products.features):
        found = None
        if isinstance(feature, MultiCategorical):
            found = "several values; allowed: one value, or a number"
        elif isinstance(feature, Numeric):
            if feature.standardise or feature.missing == "flag":
                found = "a mean learned in training; allowed: a number that is scaled and clipped"
        elif feature.name in names:
            found = "the name of another one; allowed: names that differ, also between customers and products"
        else:
            names.add(feature.name)
        if found:
            raise InputError(f"{what}: the feature {feature.name!r} has {found}")


def _fitted(feature: Feature, checkpoint: Mapping[str, Any], path: Path) -> FittedFeature:
    """A feature with its vocabulary: the schema's, or the one in the checkpoint's `NAME_map`."""
    if isinstance(feature, Numeric):
        return FittedFeature(feature)
    if feature.values is not None:
        return FittedFeature(feature, values=feature.values)
    entry = f"{feature.name}_map"
    found = checkpoint.get(entry)
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: {entry}: found {type(found).__name__}; allowed: a dictionary from value to row")
    row_of = {as_key(value): row for value, row in found.items() if isinstance(value, str | int | float)}
    whole = len(row_of) == len(found) and all(type(row) is int for row in found.values())
    if not whole or None in row_of or sorted(row_of.values()) != list(range(len(found))) or not found:
        seen = choices((value, row if type(row) is int else type(row).__name__) for value, row in found.items())
        raise InputError(f"{path}: {entry}: found {seen}; allowed: different values, numbered from 0 without gaps")
    return FittedFeature(feature, values=tuple(str(value) for value in sorted(row_of, key=row_of.__getitem__)))


def _tables(spaces: Spaces) -> dict[str, tuple[str, FittedFeature]]:
    """The embedding tables, and the side and the feature that each belongs to."""
    return {
        f"{fitted.feature.name}_emb.weight": (side, fitted)
        for side, space in spaces.items()
        for fitted in space
        if not isinstance(fitted.feature, Numeric)
    }


def _paths(spaces: Spaces) -> dict[str, tuple[str, ...]]:
    """Where each tensor lives in our tree, in the order in which the modules are declared; () for a counter."""
    paths: dict[str, tuple[str, ...]] = {
        weight: ("params", side, "deep", weight.removesuffix(".weight"))
        for weight, (side, _) in _tables(spaces).items()
    }
    for side in spaces:
        paths |= {f"{side}_mlp.{layer}": (*to[:1], side, *to[1:]) if to else () for layer, to in _LAYERS.items()}
    return paths


def _tensors(checkpoint: Mapping[str, Any], spaces: Spaces, path: Path) -> tuple[DeepConfig, dict[str, np.ndarray]]:
    """The published recipe with the sizes of the state's tensors, and these, as the features ask for them."""
    torch, state, paths, tables = torch_module(), checkpoint[_STATE], _paths(spaces), _tables(spaces)
    for name in [*paths, *state]:
        if name not in paths or not isinstance(state.get(name), torch.Tensor):
            found = type(state[name]).__name__ if name in state else "nothing"
            allowed = f"exactly {choices(paths, limit=len(paths))}"
            raise InputError(
                f"{path}: {_STATE}, {str(name)[:200]}: found {found}; the dataset's features allow {allowed}"
            )

    def length(name: str, axis: int) -> int:
        shape: tuple[int, ...] = tuple(state[name].shape)
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: {_STATE}, {name}: found {shape}; allowed: two dimensions, neither empty")
        return int(_array(state[name], shape, torch.float32, f"{path}: {_STATE}, {name}").shape[axis])

    config = DeepConfig(
        embedding_dim=length(next(iter(tables)), 1) if tables else DeepConfig().embedding_dim,
        hidden_dim=length("product_mlp.0.weight", 0),
        output_dim=length("product_mlp.4.weight", 0),
    )
    module = two_tower(config, spaces["customer"], spaces["product"])
    shapes = module.shapes(*(space.blank(1) for space in spaces.values()))
    leaves = flatten_dict(shapes)  # type: ignore[no-untyped-call]
    out = {}
    for name, place in paths.items():
        shape = leaves[place].shape[::-1] if place else ()
        if name in tables:  # without the rows of unknown values
            shape = (len(tables[name][1].values), config.embedding_dim)
        kind, lowest = (torch.float32, -np.inf) if place else (torch.int64, 0.0)
        if name.endswith("running_var"):
            lowest = 0.0
        out[name] = _array(state[name], shape, kind, f"{path}: {_STATE}, {name}", lowest)
    return config, out


def _array(tensor: Any, shape: tuple[int, ...], kind: Any, where: str, lowest: float = -np.inf) -> np.ndarray:
    """A tensor's values. Raises `InputError` where it isn't what it has to be."""
    torch = torch_module()
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{where}: found {type(tensor).__name__}; allowed: a tensor {shape} of {kind}")
    if tuple(tensor.shape) != shape or tensor.dtype != kind or tensor.layout != torch.strided or 0 in shape:
        found = f"{tuple(tensor.shape)} of {tensor.dtype}, {str(tensor.layout).removeprefix('torch.')}"
        raise InputError(f"{where}: found {found}; allowed: {shape} of {kind}, strided")
    # Negated when it is read, or one number that stands for many, which a copy would write out.
    if tensor.is_neg() or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{where}: found a tensor of a special kind; allowed: a plain one")
    values = tensor.detach().numpy().copy()
    if not (np.isfinite(values) & (values >= lowest)).all():
        raise InputError(f"{where}: found a value that is not finite or below {lowest:g}; allowed: neither")
    return np.asarray(values)
