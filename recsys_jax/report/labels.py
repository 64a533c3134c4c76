"""What the page says around its figures, by language: `en.toml`, `ko.toml`."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from recsys_jax.config import Language


@cache
def labels(language: Language) -> dict[str, Any]:
    """The labels of a language, as tables of texts; a text may have fields in braces, to be formatted."""
    return tomllib.loads(files(__package__).joinpath(f"{language}.toml").read_text("utf-8"))
