"""What has to fit together in a trained model: nothing that a file says of one is believed before it does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys_jax.config import Config, WideConfig
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_key, shown
from recsys_jax.errors import InputError
from recsys_jax.models.single import single_tower
from recsys_jax.models.trained import TrainedModel, product_rows
from recsys_jax.models.wide import KNOTS

__all__ = ["Shape", "check_catalogue", "check_numbers", "check_shapes", "flatten", "shapes_of", "unflatten"]

Shape = tuple[str, tuple[int, ...]]
"""The type and the lengths of a tensor: `("float32", (3, 16))`."""

_DEEPEST = 32  # Of lists within lists in a cell.
_PLAIN = {str, int, float, bool, type(None)}
_RADII = 1e-12, 1e12


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves by their paths, `/` between the names; a `/` in a name is written `%2F`.

    >>> flatten({"params": {"skin/type_emb": 1}, "popularity": 2})
    {'params/skin%2Ftype_emb': 1, 'popularity': 2}
    """
    flat: dict[str, Any] = {}
    for name, branch in tree.items():
        path = prefix + name.replace("%", "%25").replace("/", "%2F")
        flat |= flatten(branch, f"{path}/") if isinstance(branch, Mapping) else {path: branch}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *branches, name = (part.replace("%2F", "/").replace("%25", "%") for part in path.split("/"))
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[name] = leaf
    return tree


def shapes_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Shape]:
    """The shape of each tensor."""
    return {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}


def check_shapes(
    found: Mapping[str, Shape], config: Config, customers: FeatureSpace, products: FeatureSpace, count: int, where: str
) -> None:
    """Raises `InputError` unless these are a model's tensors: no more, no less, each as large as it has to be.

    Args:
        found: the shapes, by path.
        config: the recipe.
        customers: the customers' features.
        products: the products' features.
        count: how many products the model recommends.
        where: names the tensors in the sentence.
    """
    # What no option decides: how many steps the training took, and the linear recipe's dimensions.
    steps, width = (found.get(name, ("", ()))[1][-1:] for name in ("losses", "product_embeddings"))
    dim = config.output_dim
    if isinstance(config, WideConfig) and width and 3 <= width[0] <= dim:
        dim = width[0]
    variables = (_linear if isinstance(config, WideConfig) else _towers)(config, customers, products, dim)
    needed: dict[str, Shape] = {name: ("float32", shape) for name, shape in flatten(variables).items()}
    needed["product_embeddings"] = ("float32", (count, dim))
    needed["purchases"] = ("int64", (count,))
    needed["losses"] = ("float32", steps or (0,))
    for name in {**needed, **found}:
        if found.get(name) != needed.get(name):
            raise InputError(f"{where}: {name}: found {_said(found.get(name))}; allowed: {_said(needed.get(name))}")


def _said(shape: Shape | None) -> str:
    return "no tensor" if shape is None else f"{shape[1]} of {shape[0]}"


def _towers(config: Any, customers: FeatureSpace, products: FeatureSpace, dim: int) -> dict[str, Any]:
    """The shapes of the variables of `models.TwoTower`."""
    embedding, hidden = config.embedding_dim, config.hidden_dim
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for side, space in (("customer", customers), ("product", products)):
        width = sum(size if kind == "numeric" else embedding for _, kind, size in space.inputs)
        tree["params"][side] = {
            **{f"{name}_emb": (size, embedding) for name, kind, size in space.inputs if kind != "numeric"},
            "hidden": {"kernel": (width, hidden), "bias": (hidden,)},
            "norm": {"scale": (hidden,), "bias": (hidden,)},
            "output": {"kernel": (hidden, dim), "bias": (dim,)},
        }
        tree["batch_stats"][side] = {"norm": {"mean": (hidden,), "var": (hidden,)}}
    return tree


def _linear(_: Config, customers: FeatureSpace, products: FeatureSpace, dim: int) -> dict[str, Any]:
    """The shapes of the variables of `linear.LinearTwoTower`, whose sums have two dimensions fewer than its vectors."""
    tree: dict[str, Any] = {"params": {}, "penalties": {"chosen": (3,)}}
    for side, space in (("customer", customers), ("product", products)):
        tree["params"][side] = tower = {"offset": (dim - 2,), "radius": ()}
        for name, kind, size in space.inputs:
            tower[f"{name}_emb"] = (KNOTS if kind == "numeric" else size, dim - 2)
            if kind == "numeric":
                tower[f"{name}_knots"] = (KNOTS,)
                if size == 2:
                    tower[f"{name}_missing"] = (dim - 2,)
    attributes = {
        name: (KNOTS + size - 1 if kind == "numeric" else size,)
        for name, kind, size in products.inputs
        if name != "product_id"
    }
    ids = products["product_id"].input.size
    return tree | {"popularity": {"attributes": attributes, "constant": (), "of_id": (ids,)}}


def check_numbers(model: TrainedModel, where: str) -> None:
    """Raises `InputError` unless the tensors, of the right shapes, hold numbers that a request can be answered with."""

    def require(ok: Any, name: str, allowed: str) -> None:
        if not ok:
            raise InputError(f"{where}: {name}: found other numbers; allowed: {allowed}")

    count = len(model.product_ids)
    # What overflows is no error here but a number that isn't finite.
    with np.errstate(all="ignore"):
        for name, leaf in {**flatten(model.variables), "product_embeddings": model.product_embeddings}.items():
            tensor = np.asarray(leaf)
            finite = np.isfinite(tensor)
            if name == "popularity/of_id":  # NaN stands for a product that training has not seen
                finite[count:] |= np.isnan(tensor[count:])
            if name == "penalties/chosen":  # of which one may be inf
                require((tensor > 0).all(), name, "above 0")
            else:
                require(finite.all(), name, "finite ones")
            if name.startswith("batch_stats/") and name.endswith("/var"):
                require((tensor >= 0).all(), name, "0 or more")
            elif name.endswith("/radius"):
                require(_RADII[0] <= tensor <= _RADII[1], name, f"from {_RADII[0]:g} to {_RADII[1]:g}")
            elif name.endswith("_knots"):
                require((np.diff(tensor) > 0).all(), name, "ascending ones")
        lengths = np.linalg.norm(model.product_embeddings, axis=1)
        require((lengths <= 1.001).all(), "product_embeddings", "vectors of length 1")
        require((model.purchases >= 0).all() and model.purchases.sum(dtype=float) < 2**53, "purchases", "0 or more")
        require(np.isfinite(model.product_bias).all(), "popularity", "ones that are added to scores and are finite")
    try:
        with np.errstate(over="raise", invalid="raise"):
            single_tower(model.customers.inputs, model.variables)(model.customers.blank(1))
    except FloatingPointError:
        require(False, "params/customer", "ones small enough to give customers finite vectors")


def check_catalogue(schema: Schema, ids: Sequence[str], rows: Mapping[str, Sequence[Any]], where: str) -> None:
    """Raises `InputError` unless the rows are those of the products with these ids, in the columns that are needed."""
    for name, column in product_rows(schema, Table(where, rows)).items():
        if not isinstance(column, Sequence) or isinstance(column, str) or len(column) != len(ids):
            raise InputError(f"{where}: {name}: found {shown(column)}; allowed: a list of {len(ids)} cells")
        for cell in column:
            # By the type first: to tell an instance of an abstract class takes many times as long.
            if type(cell) not in _PLAIN and not _is_shallow(cell, _DEEPEST):
                raise InputError(f"{where}: {name}: found lists in lists, {_DEEPEST} deep; allowed: fewer")
    found = [as_key(cell) for cell in rows[schema.products.id]]
    if not ids or found != list(ids) or len(set(ids)) != len(ids):
        raise InputError(f"{where}: found the ids {shown(ids)}; allowed: those of the products, each once")


def _is_shallow(cell: object, deepest: int) -> bool:
    if isinstance(cell, str) or not isinstance(cell, Mapping | Sequence):
        return True
    parts = cell.values() if isinstance(cell, Mapping) else cell
    return deepest > 0 and all(_is_shallow(part, deepest - 1) for part in parts)
