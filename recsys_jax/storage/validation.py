"""Validates a loaded model: shapes before a number is read, then the numbers, then the catalogue."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from recsys_jax.config import Config
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_id
from recsys_jax.errors import InputError, shown
from recsys_jax.models.basis import KNOTS, columns
from recsys_jax.models.popularity import LogPopularity
from recsys_jax.models.single import SingleTower
from recsys_jax.models.trained import TrainedModel, product_rows, two_tower

Shape = tuple[str, tuple[int, ...]]
"""The type and the lengths of a tensor: `("float32", (3, 16))`."""

_DEEPEST = 32  # Of lists within lists in a value.
_PLAIN = {str, int, float, bool, type(None)}
_RADII = 1e-12, 1e12


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves by their paths, `/` between the names; a `/` in a name is written `%2F`.

    >>> flatten({"params": {"skin/type_emb": 1}, "popularity": 2})
    {'params/skin%2Ftype_emb': 1, 'popularity': 2}
    """
    leaves = flatten_dict(tree).items()  # type: ignore[no-untyped-call]
    return {"/".join(name.replace("%", "%25").replace("/", "%2F") for name in path): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    paths = [tuple(name.replace("%2F", "/").replace("%25", "%") for name in path.split("/")) for path in flat]
    tree: dict[str, Any] = unflatten_dict(dict(zip(paths, flat.values(), strict=True)))  # type: ignore[no-untyped-call]
    return tree


def shapes_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Shape]:
    """The shape of each tensor."""
    return {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}


def needed_shapes(
    found: Mapping[str, Shape], config: Config, customers: FeatureSpace, products: FeatureSpace, count: int
) -> dict[str, Shape]:
    """The shapes that the tensors of a model of `count` products must have, by path.

    Two shapes `found` say what no option decides: how many steps the training took, and the width of the vectors, which
    the wide fit chooses up to `output_dim`.
    """
    steps, width = (found.get(name, ("", ()))[1][-1:] for name in ("losses", "product_embeddings"))
    dim = config.output_dim
    if width and config.least_dim <= width[0] <= dim:
        dim = width[0]
    module = two_tower(config, customers, products, dim)
    tree = module.shapes(customers.blank(1), products.blank(1))
    shapes = {name: (str(leaf.dtype), leaf.shape) for name, leaf in flatten(tree).items()}
    attributes = {one.name: (columns(one),) for one in products.inputs if module.wide_dim and one.name != "product_id"}
    more = flatten({"popularity": {"of_product": (count,), "constant": (), "attributes": attributes}})
    if any(name.startswith("average/") for name in found):
        numbers = {one.name: (KNOTS,) for one in customers.inputs if one.kind == "numeric"}
        more |= flatten(
            {"average": {"shares": {one.name: (columns(one),) for one in customers.inputs}, "knots": numbers}}
        )
    return {
        **shapes,
        **{name: ("float32", shape) for name, shape in more.items()},
        "product_embeddings": ("float32", (count, dim)),
        "purchases": ("int64", (count,)),
        "losses": ("float32", steps or (0,)),
    }


def check_shapes(found: Mapping[str, Shape], needed: Mapping[str, Shape], where: str) -> None:
    """Raises `InputError` unless these are the tensors that are needed; `where` names them in the sentence."""
    for name in {**needed, **found}:
        if found.get(name) != needed.get(name):
            raise InputError(f"{where}: {name}: found {_said(found.get(name))}; allowed: {_said(needed.get(name))}")


def _said(shape: Shape | None) -> str:
    return "no tensor" if shape is None else f"{shape[1]} of {shape[0]}"


def popularity_tensors(popularity: LogPopularity) -> dict[str, Any]:
    """Its arrays, by path."""
    arrays = popularity._asdict()
    del arrays["scale"]
    return flatten({"popularity": arrays})


def average_tensors(model: TrainedModel) -> dict[str, Any]:
    """The arrays of the model's average customer, by path; none where it is not known."""
    return {} if model.average is None else flatten({"average": model.average._asdict()})


def check_numbers(model: TrainedModel, where: str) -> None:
    """Raises `InputError` unless the tensors, of the right shapes, hold numbers that a request can be answered with."""

    def require(ok: Any, name: str, allowed: str) -> None:
        if not ok:
            raise InputError(f"{where}: {name}: found other numbers; allowed: {allowed}")

    vectors, purchases = model.product_embeddings, model.purchases
    # What overflows is no error here but a number that isn't finite.
    with np.errstate(all="ignore"):
        tensors = {**flatten(model.variables), **popularity_tensors(model.popularity), **average_tensors(model)}
        tensors["product_embeddings"] = vectors
        for name, tensor in tensors.items():
            require(np.isfinite(tensor).all(), name, "finite ones")
            if name.startswith("batch_stats/") and name.endswith("/var"):
                require((tensor >= 0).all(), name, "0 or more")
            elif name.startswith("average/shares/"):
                require(((tensor >= 0) & (tensor <= 1.001)).all(), name, "from 0 to 1")
            elif name.endswith("/radius"):
                require(_RADII[0] <= tensor <= _RADII[1], name, f"from {_RADII[0]:g} to {_RADII[1]:g}")
            elif name.endswith("_knots") or name.startswith("average/knots/"):
                require((np.diff(tensor) > 0).all(), name, "ascending ones")
        require((np.linalg.norm(vectors, axis=1) <= 1.001).all(), "product_embeddings", "vectors of length 1")
        require((purchases >= 0).all() and purchases.sum(dtype=float) < 2**53, "purchases", "0 or more")
        require(np.isfinite(model.product_bias).all(), "popularity", "ones that are added to scores and are finite")
    try:
        with np.errstate(over="raise", invalid="raise"):
            SingleTower(model.customers.inputs, model.variables)(model.customers.blank(1))
    except FloatingPointError:
        require(False, "params/customer", "ones small enough to give customers finite vectors")


def check_catalogue(schema: Schema, ids: Sequence[str], rows: Mapping[str, Sequence[Any]], where: str) -> None:
    """Raises `InputError` unless the rows are those of the products with these ids, in the columns that are needed."""
    for name, column in product_rows(schema, Table(where, rows)).items():
        if not isinstance(column, Sequence) or isinstance(column, str) or len(column) != len(ids):
            raise InputError(f"{where}: {name}: found {shown(column)}; allowed: a list of {len(ids)} values")
        for value in column:
            # By the type first: to tell an instance of an abstract class takes many times as long.
            if type(value) not in _PLAIN and not _is_shallow(value, _DEEPEST):
                raise InputError(f"{where}: {name}: found lists in lists, {_DEEPEST} deep; allowed: fewer")
    found, own = ([as_id(value) for value in values] for values in (rows[schema.products.id], ids))
    if not ids or not all(isinstance(one, str) for one in ids) or found != own or len(set(ids)) != len(ids):
        raise InputError(f"{where}: found the ids {shown(ids)}; allowed: those of the products, each once")


def _is_shallow(value: object, deepest: int) -> bool:
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        return True
    parts = value.values() if isinstance(value, Mapping) else value
    return deepest > 0 and all(_is_shallow(part, deepest - 1) for part in parts)
