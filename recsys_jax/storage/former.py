"""The former formats of a saved model, 3 and 4: its tensors had other names, and popularity another form.

Format 5 is the one of today without the average customer.

The deep path's layers lay directly under their tower, and so did the wide path's tables; popularity was a tensor with a
row for unknown products, or was left to be counted; the chosen penalties were a tensor.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from recsys_jax.config import Config, DeepConfig
from recsys_jax.data.features import FeatureSpace
from recsys_jax.models.popularity import SMOOTHED
from recsys_jax.storage.validation import Shape, popularity_tensors

NEWEST_FORMER = 4
"""The newest format that is told of here."""
_PENALTIES = ("own_l2", "attribute_l2", "factor_l2")


class Former:
    """How a former format tells of a model with this recipe."""

    def __init__(self, config: Config, products: FeatureSpace) -> None:
        self.deep = config if isinstance(config, DeepConfig) else None
        self.products = products

    def shapes(self, needed: Mapping[str, Shape]) -> dict[str, Shape]:
        """The shapes of its tensors, by their former paths, where these are needed now."""
        counted = {name for name in needed if self.deep and name.startswith("popularity/")}
        shapes = {_former(name): shape for name, shape in needed.items() if name not in counted}
        if self.deep is None:
            del shapes["popularity/of_product"]
            shapes["popularity/of_id"] = ("float32", (self.products["product_id"].input.size,))
            shapes["penalties/chosen"] = ("float32", (len(_PENALTIES),))
        return shapes

    def read(self, tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, float], float, dict[str, np.ndarray]]:
        """What was chosen, the scale of popularity, and the tensors by their names of now."""
        found = dict(tensors)
        purchases = found["purchases"].astype(np.float64)
        if self.deep is not None:
            scale = 0.5 * self.deep.temperature * self.deep.popularity_bias
            now = {_now(name, "deep"): tensor for name, tensor in found.items()}
            return {}, scale, now | popularity_tensors(SMOOTHED.kept(purchases, scale))
        chosen = dict(zip(_PENALTIES, found.pop("penalties/chosen").tolist(), strict=True))
        found["popularity/of_product"] = found.pop("popularity/of_id")[: len(purchases)]
        radii = prod(float(found[f"params/{side}/radius"]) for side in ("customer", "product"))
        return chosen, 0.5 / radii, {_now(name, "wide"): tensor for name, tensor in found.items()}


def _former(name: str) -> str:
    """The former path of a tensor.

    >>> _former("params/customer/deep/hidden/bias"), _former("params/product/wide/offset")
    ('params/customer/hidden/bias', 'params/product/offset')
    """
    parts = name.split("/")
    if len(parts) > 2 and parts[2] in ("deep", "wide") and parts[0] in ("params", "batch_stats"):
        del parts[2]
    return "/".join(parts)


def _now(name: str, path: str) -> str:
    """The inverse of `_former`, for a model with that path alone.

    >>> _now("params/customer/radius", "wide"), _now("params/customer/age_emb", "wide")
    ('params/customer/radius', 'params/customer/wide/age_emb')
    """
    parts = name.split("/")
    if parts[0] in ("params", "batch_stats") and parts[2:] != ["radius"]:
        parts.insert(2, path)
    return "/".join(parts)
