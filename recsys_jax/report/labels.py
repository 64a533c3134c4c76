"""What the page says around its figures, by language: `en.toml`, `ko.toml`."""

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from recsys_jax.config import Language


@cache
def labels(language: Language) -> dict[str, Any]:
    """The labels of a language, as tables of texts; a text may have fields in braces, to be formatted."""
    return tomllib.loads(whole(files(__package__).joinpath(f"{language}.toml").read_text("utf-8")))


def whole(text: str) -> str:
    """Text in which no line breaks between a bracket or per cent sign and the particle after it; of sentences alone."""
    return re.sub(r"([)%]\}?)(?=[가-힣])", "\\1\u2060", text)
