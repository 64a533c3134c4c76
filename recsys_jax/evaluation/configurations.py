"""The recipes that a comparison ranks: read from a TOML file, or the built-in list."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from recsys_jax.config import Config, DeepConfig, WideConfig
from recsys_jax.data.files import read_toml
from recsys_jax.data.values import as_number
from recsys_jax.errors import InputError, choices

__all__ = ["SOFTMAX", "built_in", "parse_configs", "read_configs"]

SOFTMAX = DeepConfig(loss="softmax", popularity_bias=True, id_embedding=True, epochs=10, batch_size=1024)
"""Towers with what helps them most: the whole catalogue as negatives, popularity, and a vector for each product."""

ROWS = 4_000_000
"""The most purchases that the published recipe trains on in all, passes times purchases: some quarter of a minute."""

_RECIPES: Mapping[str, type[Config]] = {"linear": WideConfig, "towers": DeepConfig}


def built_in(purchases: int) -> dict[str, Config]:
    """The recipes by name where no file names others; on many purchases the published one makes fewer passes.

    >>> built_in(200)["towers, as published"].epochs, built_in(80_000)["towers, as published"].epochs
    (500, 50)
    """
    most = DeepConfig().epochs
    return {
        "linear": WideConfig(),
        "towers, softmax": SOFTMAX,
        "towers, as published": DeepConfig(epochs=min(most, max(1, ROWS // max(purchases, 1)))),
    }


def read_configs(path: Path) -> dict[str, Config]:
    """The recipes in a TOML file, by name. Raises `InputError` for whatever is not allowed there."""
    return parse_configs(read_toml(path), str(path))


def parse_configs(content: Mapping[str, object], where: str) -> dict[str, Config]:
    """The recipes in a parsed document; `where` names it in errors.

    >>> parse_configs({"small": {"recipe": "linear", "item_factors": 4}}, "my.toml")["small"].tastes
    4

    Raises:
        InputError: for no table, an unknown recipe or field, or a value that the field does not admit.
    """
    if not content:
        raise InputError(f'{where}: found no table; allowed: one or more, such as ["my towers"] with recipe = "towers"')
    return {name: _config(table, f"{where}, [{name}]") for name, table in content.items()}


def _config(table: object, where: str) -> Config:
    if not isinstance(table, Mapping):
        raise InputError(f'{where}: found {table!r}; allowed: a table with recipe = "linear" or "towers"')
    recipe = table.get("recipe")
    if not isinstance(recipe, str) or recipe not in _RECIPES:
        found = "none" if recipe is None else repr(recipe)
        raise InputError(f"{where}: recipe: found {found}; allowed: {choices(_RECIPES)}")
    kind = _RECIPES[recipe]
    hints = get_type_hints(kind)
    allowed = [field.name for field in fields(kind) if field.name != "seed"]
    values = {}
    for name, value in table.items():
        if name == "recipe":
            continue
        if name == "seed":
            raise InputError(f"{where}: found seed; allowed: --seed and --seeds, one list of seeds for all recipes")
        if name not in allowed:
            raise InputError(
                f"{where}: found the field {name!r}; allowed with recipe = {recipe!r}: {choices(allowed, limit=99)}"
            )
        values[name] = _value(value, hints[name], f"{where}: {name}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _value(value: object, hint: Any, where: str) -> Any:
    """The value as the field's type has it: TOML tells 1 from 1.0, a number does not."""
    kinds = [hint] if get_origin(hint) in (None, Literal) else [kind for kind in get_args(hint) if kind is not NoneType]
    (kind,) = kinds
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        allowed = choices(get_args(kind))
    elif kind is bool:
        if isinstance(value, bool):
            return value
        allowed = "true or false"
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        allowed = "a whole number"
    else:
        number = as_number(value)
        if number is not None:
            return number
        allowed = "a number"
    raise InputError(f"{where}: found {value!r}; allowed: {allowed}")
