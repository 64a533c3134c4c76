"""The persona catalogue: kinds of customers, read from TOML."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_jax.data.files import Section, read_toml
from recsys_jax.errors import InputError, choices, require_different
from recsys_jax.personas.profiles import SKIN_CONCERNS, SKIN_TYPES


@dataclass(frozen=True)
class Persona:
    """A kind of customer: the keywords of its reviews, and its attributes where a review does not state them."""

    name: str
    description: str
    keywords: tuple[str, ...]
    skin_type: str
    skin_concern: str
    age: tuple[int, int]
    """The youngest and oldest."""
    female_share: float


def read_catalogue(path: Path) -> tuple[Persona, ...]:
    """The `[[persona]]` tables of a TOML file. Raises `InputError` for whatever is not allowed there."""
    document = read_toml(path)
    tables = document.get("persona")
    listed = isinstance(tables, list) and bool(tables) and all(isinstance(table, dict) for table in tables)
    if set(document) != {"persona"} or not listed:
        raise InputError(f"{path}: found {choices(document) or 'nothing'}; allowed: one or more [[persona]] tables")
    personas = tuple(parse_persona(table, f"{path}, persona {number}") for number, table in enumerate(tables or (), 1))
    require_different((persona.name for persona in personas), f"{path}: two personas")
    return personas


def parse_persona(table: Mapping[str, Any], where: str) -> Persona:
    """The persona that a table describes; `where` names it in errors. Raises `InputError`."""
    part = Section(table, where)
    for key in ("name", "description"):
        text = part.get(key)
        part.require(isinstance(text, str) and bool(text.strip()), key, "a text")
    words, age, share = (part.get(key) for key in ("keywords", "age", "female_share"))
    texts = isinstance(words, list) and all(isinstance(word, str) and word.strip() for word in words)
    part.require(texts and 0 < len(words) == len(set(words)), "keywords", "a list of different texts")
    part.choice("skin_type", SKIN_TYPES)
    part.choice("skin_concern", SKIN_CONCERNS)
    whole = isinstance(age, list) and len(age) == 2 and all(type(one) is int for one in age)
    part.require(whole and 1 <= age[0] <= age[1] <= 120, "age", "[YOUNGEST, OLDEST], whole numbers from 1 to 120")
    part.require(type(share) in (int, float) and 0 <= share <= 1, "female_share", "a number from 0 to 1")
    part.end()
    return Persona(**{**table, "keywords": tuple(words), "age": tuple(age)})
