"""Boost rules, read from TOML: "for such customers, add so much to the score of such products"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool

from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.files import read_toml
from recsys_jax.data.schema import Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_id, as_number
from recsys_jax.errors import InputError, choices, nearest_id, require, shown

NO_IDS: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True)
class BoostRule:
    """Adds `add` to the score where a customer and a product meet all conditions."""

    name: str
    customer: Mapping[str, Any]
    """By feature, the set of values or the (low, high) bounds of a number; empty: every customer."""
    product: Mapping[str, Any]
    """The same of products, and by the column with their ids a set of ids."""
    add: float


def read_boosts(
    path: Path, customers: FeatureSpace, products: FeatureSpace, product_ids: Mapping[str, Sequence[str]] = NO_IDS
) -> tuple[BoostRule, ...]:
    """The `[[boost]]` rules of a TOML file; `product_ids` has the products' ids by the name of their column.

    Raises `InputError` for a feature, a value or an id that the model doesn't know.
    """
    document = read_toml(path)
    rules = document.get("boost")
    if set(document) != {"boost"} or not isinstance(rules, list):
        raise InputError(f"{path}: found {choices(document) or 'nothing'} at the top; allowed: [[boost]] tables")
    out = []
    for number, rule in enumerate(rules, 1):
        where = f"{path}, boost {number}"
        require(isinstance(rule, dict), where, rule, "a [[boost]] table")
        for key in sorted(set(rule) - {"name", "customer", "product", "add"}):
            allowed = choices(("name", "customer", "product", "add"), found=key)
            raise InputError(f"{where}: found the key {shown(key)}; allowed: {allowed}")
        add = rule.get("add")
        small = isinstance(add, int | float) and not isinstance(add, bool) and -1 <= add <= 1
        require(small, f"{where}, add", add, "a number from -1 to 1, since scores are 0 to 1")
        conditions, said = {}, []
        for side, space, ids in (("customer", customers, NO_IDS), ("product", products, product_ids)):
            content = rule.get(side, {})
            require(isinstance(content, dict), f"{where}, {side}", content, "a table { FEATURE = VALUE }")
            conditions[side] = {
                name: _condition(space, ids, name, value, f"{where}, {side}") for name, value in content.items()
            }
            said += [f"{name} = {value}" for name, value in content.items()]
        name = str(rule.get("name") or " and ".join(said) or "everything")
        out.append(BoostRule(name, conditions["customer"], conditions["product"], float(add)))
    return tuple(out)


def _condition(space: FeatureSpace, ids: Mapping[str, Sequence[str]], name: str, value: Any, where: str) -> Any:
    """A condition as `BoostRule` has it, its values spelt as in the vocabulary; `ids` has the column with the ids."""
    listed = value if isinstance(value, list) and value else [value]
    if name in ids and name not in space.names:
        of_products = {as_id(one) or "": one for one in ids[name]}
        for item in listed:
            if as_id(item) not in of_products:
                hint = nearest_id(str(item), of_products)
                require(False, f"{where}, {name}", item, f"the id of a product, or a list of such{hint}")
        return {as_id(item) for item in listed}
    if name not in space.names:
        allowed = choices((*space.names, *ids), found=name)
        raise InputError(f"{where}: found the feature {shown(name)}; allowed: {allowed}")
    fitted = space[name]
    if isinstance(fitted.feature, Numeric):
        bounds = value if isinstance(value, dict) else {"min": value, "max": value}
        numbers = {key: as_number(x) for key, x in bounds.items()}
        low, high = numbers.get("min", -np.inf), numbers.get("max", np.inf)
        ascending = low is not None and high is not None and low <= high
        named = bool(bounds) and not set(bounds) - {"min", "max"}
        require(named and ascending, f"{where}, {name}", value, "a number or { min = NUMBER, max = NUMBER }")
        return low, high
    wanted = set()
    for item in listed:
        known = fitted.canonical(item)
        if known is None:
            raise InputError(f"{where}, {name}: found {shown(item)}; allowed: {fitted.allowed(item)}")
        wanted.add(known)
    return wanted


def meets(conditions: Sequence[Mapping[str, Any]], space: FeatureSpace, table: Table) -> Bool[np.ndarray, "n r"]:
    """Whether each of n rows meets each of the conditions: a rule's on customers, or its on products."""
    out = np.zeros((len(table), len(conditions)), bool)
    for number, condition in enumerate(conditions if len(table) else ()):  # a table without rows may lack columns
        out[:, number] = True
        for name, wanted in condition.items():
            if name not in space.names:  # the column with the ids
                out[:, number] &= [as_id(value) in wanted for value in table.column(name)]
                continue
            feature, canonical = space[name].feature, space[name].canonical
            column = table.column(feature.column)
            if isinstance(feature, Numeric):
                low, high = wanted
                numbers = np.array([feature.number(value) for value in column], np.float64)  # nan where there is none
                out[:, number] &= (low <= numbers) & (numbers <= high)
            else:
                out[:, number] &= [
                    any(canonical(item) in wanted for item in feature.items(value) or ()) for value in column
                ]
    return out
