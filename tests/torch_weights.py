"""The reference's weights as our trees, and back: written out here: no test leans on the library's own bridge."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict

__all__ = ["PARAMETERS", "STATISTICS", "as_ours", "references_state", "tree"]

# The name in PyTorch, and the path in our tree.
PARAMETERS = {
    "skin_type_emb.weight": "customer/deep/skin_type_emb",
    "skin_concern_emb.weight": "customer/deep/skin_concern_emb",
    "gender_emb.weight": "customer/deep/gender_emb",
    "customer_mlp.0.weight": "customer/deep/hidden/kernel",
    "customer_mlp.0.bias": "customer/deep/hidden/bias",
    "customer_mlp.2.weight": "customer/deep/norm/scale",
    "customer_mlp.2.bias": "customer/deep/norm/bias",
    "customer_mlp.4.weight": "customer/deep/output/kernel",
    "customer_mlp.4.bias": "customer/deep/output/bias",
    "category_emb.weight": "product/deep/category_emb",
    "brand_emb.weight": "product/deep/brand_emb",
    "product_mlp.0.weight": "product/deep/hidden/kernel",
    "product_mlp.0.bias": "product/deep/hidden/bias",
    "product_mlp.2.weight": "product/deep/norm/scale",
    "product_mlp.2.bias": "product/deep/norm/bias",
    "product_mlp.4.weight": "product/deep/output/kernel",
    "product_mlp.4.bias": "product/deep/output/bias",
}
STATISTICS = {
    f"{side}_mlp.2.running_{statistic}": f"{side}/deep/norm/{statistic}"
    for side in ("customer", "product")
    for statistic in ("mean", "var")
}


def as_ours(named: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Tensors by PyTorch's names (weights, gradients, moments, ...) as arrays by path, laid out as ours are."""
    out = {}
    for name, tensor in named.items():
        path = {**PARAMETERS, **STATISTICS}[name]
        array = tensor.detach().numpy()
        if path.endswith("/kernel"):
            array = array.T
        elif path == "product/deep/brand_emb":
            array = np.pad(array, ((0, 1), (0, 0)))  # the row of unknown brands: nothing uses it, nothing moves it
        out[path] = array.copy()
    return out


def tree(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arrays by path as a tree."""
    return unflatten_dict(flat, sep="/")


def references_state(variables: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Our trained variables under PyTorch's names, without the row of unknown brands."""
    out = {}
    for names, collection in ((PARAMETERS, "params"), (STATISTICS, "batch_stats")):
        ours = flatten_dict(variables[collection], sep="/")
        for name, path in names.items():
            array = np.asarray(ours[path])
            if path.endswith("/kernel"):
                array = array.T
            elif path == "product/deep/brand_emb":
                array = array[:-1]
            out[name] = torch.from_numpy(array.copy())
    return out
