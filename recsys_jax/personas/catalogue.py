"""The persona catalogue, which docs/personas.md explains: what is known of customers, and kinds of customers."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from recsys_jax.data.files import Section, read_toml
from recsys_jax.data.values import as_number
from recsys_jax.errors import InputError, choices, did_you_mean, require_different
from recsys_jax.personas.profiles import Attribute, Draw, Phrase, Value, ages, languages, phrase
from recsys_jax.schema_inference.profiles import TAKEN

_OF_PERSONAS = ("name", "description", "keywords")


@dataclass(frozen=True)
class Persona:
    """A kind of customer: the keywords of its reviews, and what is drawn where a review does not state an attribute."""

    name: str
    description: str
    keywords: tuple[str, ...]
    draws: Mapping[str, Draw]
    """By attribute; one that is not there is drawn as the attribute says, or missing."""
    by_language: Mapping[str, str] = field(default_factory=dict)
    """The description by language, where the catalogue says it so."""

    @property
    def table(self) -> dict[str, Any]:
        """The persona as its [[persona]] table."""
        told = {"description": self.by_language} if self.by_language else {}
        return {**{key: getattr(self, key) for key in _OF_PERSONAS}, **told, **self.draws}


@dataclass(frozen=True)
class Catalogue:
    """What is known of customers, and the kinds of customers; neither where a shop has no catalogue."""

    language: str | None = None
    attributes: tuple[Attribute, ...] = ()
    personas: tuple[Persona, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    """The document without its personas, for a model to carry."""
    read: dict[tuple[str, str | None], dict[str, tuple[Value, str]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What reviews state, by text and profile: each fold of an evaluation asks for it again."""


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue in a TOML file. Raises `InputError` for whatever is not allowed there."""
    document = read_toml(path)
    tables = document.get("persona", [])
    listed = isinstance(tables, list) and all(isinstance(table, dict) for table in tables)
    keys = ("persona", "attribute", "language")
    other = [key for key in document if key not in keys]
    if not listed or other or not (tables or "attribute" in document):
        raise InputError(
            f"{path}: found {choices(document) or 'nothing'}; allowed: one or more [[persona]] tables, [[attribute]] "
            f"tables, a language{did_you_mean(next(iter(other), None), keys)}"
        )
    of_former = {"female_share", *(one.name for one in shipped().attributes)}
    former = "attribute" not in document and any(of_former & set(table) for table in tables)
    declared = {key: part for key, part in document.items() if key != "persona"}
    catalogue = shipped() if former else parse_catalogue(declared, str(path))
    personas = tuple(
        parse_persona(table, catalogue, f"{path}, persona {number}", former=former)
        for number, table in enumerate(tables, 1)
    )
    require_different((persona.name for persona in personas), f"{path}: two personas")
    return replace(catalogue, personas=personas)


@cache
def shipped() -> Catalogue:
    """The attributes of the catalogue that comes with recsys_jax, cosmetics in Korean.

    Catalogues of former versions, which declared no attributes, have these.
    """
    document = tomllib.loads(files("recsys_jax.data").joinpath("personas.toml").read_text(encoding="utf-8"))
    return parse_catalogue({key: part for key, part in document.items() if key != "persona"}, "personas.toml")


def parse_catalogue(document: Mapping[str, Any], where: str) -> Catalogue:
    """The language and the attributes that a document declares; `where` names it in errors. Raises `InputError`."""
    part = Section(document, where)
    tables = part.get("attribute", [])
    part.require(isinstance(tables, list), "attribute", "[[attribute]] tables")
    language = None if part.get("language") is None else part.choice("language", tuple(languages()))
    part.end()
    declared = tuple(_attribute(table, language, f"{where}, attribute {n}") for n, table in enumerate(tables, 1))
    require_different((one.name for one in declared), f"{where}: two attributes")
    return Catalogue(language, declared, (), document)


def _attribute(table: object, language: str | None, where: str) -> Attribute:
    part = Section(table, where)
    name = part.text("name")
    part.require(name.isidentifier() and name not in TAKEN, "name", f"letters, digits and _, and not {choices(TAKEN)}")
    part.where = f"{where} ({name})"
    kind = part.choice("kind", ("categorical", "numeric", "age"))
    lowest, highest = (1.0, 120.0) if kind == "age" else (-math.inf, math.inf)
    values: dict[str, list[str]] = {}
    if kind == "categorical":
        values = _words(part, "values")
    else:
        lowest, highest = part.number("min", lowest), part.number("max", highest)
        part.require(lowest < highest, "min", f"a number below max = {highest:g}")
    default = {"categorical": ["{}"], "numeric": ["{number}"], "age": []}[kind]
    told = {value: [value, *own] for value, own in values.items()}
    profile = _phrases(part, "profile", default, told, language)
    text: tuple[Phrase, ...] = ()
    if kind == "age":
        profile, text = ages(language, "profile") + profile, ages(language, "text")
    said = part.get("text", [])
    part.require(isinstance(said, list), "text", "[[attribute.text]] tables")
    for number, content in enumerate(said, 1):
        one = Section(content, f"{part.where}, text {number}")
        own = _words(one, "words", tuple(values)) if kind == "categorical" and one.get("words") is not None else values
        one.require(
            kind != "categorical" or any(own.values()), "words", '{ VALUE = ["word", …] }, since values have none'
        )
        text += _phrases(one, "phrases", default, own, language)
        one.end()
    attribute = Attribute(name, kind, tuple(values), lowest, highest, None, profile, text)
    draw = _draw(part, "draw", attribute)
    part.end()
    return replace(attribute, draw=draw)


def _words(part: Section, key: str, allowed: Sequence[str] | None = None) -> dict[str, list[str]]:
    """The words of each value: { VALUE = ["word", …] }, or a list of values that have none."""
    found = part.get(key)
    if isinstance(found, list) and allowed is None:
        return {value: [] for value in part.keys(key)}
    listed = isinstance(found, Mapping) and bool(found) and all(map(_is_texts, found.values()))
    within = f", of {choices(allowed)}" if allowed is not None else ""
    part.require(listed, key, f'{{ VALUE = ["word", …] }}{within}')
    part.require(allowed is None or set(found) <= set(allowed), key, f"words of {choices(allowed or ())}")
    words = [word.lower() for own in found.values() for word in own]
    part.require(len(words) == len(set(words)), key, "each word for one value")
    return dict(found)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)


def _phrases(
    part: Section, key: str, default: list[str], values: Mapping[str, Sequence[str]], language: str | None
) -> tuple[Phrase, ...]:
    written = part.get(key, default)
    part.require(_is_texts(written), key, "a list of phrases")
    words = {word: value for value, own in values.items() for word in own}
    return tuple(phrase(text, words, language, f"{part.where}: {key}") for text in written)


def parse_persona(table: Mapping[str, Any], catalogue: Catalogue, where: str, *, former: bool = False) -> Persona:
    """The persona that a table describes; `where` names it in errors. Raises `InputError`.

    In a `former` one every attribute is drawn, the gender by `female_share`.
    """
    part = Section(table, where)
    name = part.get("name")
    part.require(isinstance(name, str) and bool(name.strip()), "name", "a text")
    described = part.by_language("description")
    part.require(bool(described), "description", "a text")
    words = part.get("keywords")
    part.require(_is_texts(words) and 0 < len(words) == len(set(words)), "keywords", "a list of different texts")
    draws: dict[str, Draw] = {}
    for attribute in catalogue.attributes:
        if former and attribute.name == "gender":
            share = part.get("female_share")
            right = type(share) in (int, float) and 0 <= share <= 1
            part.require(right, "female_share", "a number from 0 to 1")
            draws["gender"] = {"F": share, "M": 1 - share}
        elif (draw := _draw(part, attribute.name, attribute, required=former)) is not None:
            draws[attribute.name] = draw
    part.end()
    by_language = described if isinstance(part.get("description"), Mapping) else {}
    return Persona(name, described.get("en") or next(iter(described.values())), tuple(words), draws, by_language)


def _draw(part: Section, key: str, attribute: Attribute, *, required: bool = False) -> Draw | None:
    """What is drawn of an attribute, as the key says it; None where it is absent and not required."""
    found = part.get(key)
    if found is None and not required:
        return None
    if attribute.kind == "categorical":
        if isinstance(found, Mapping):
            numbers = [as_number(share) for share in found.values()]
            right = set(found) <= set(attribute.values) and all(x is not None and 0 <= x <= 1 for x in numbers)
            right = right and abs(math.fsum(x or 0 for x in numbers) - 1) < 1e-6
            part.require(right, key, f"shares of {choices(attribute.values)} that sum to 1")
            return {value: found[value] for value in attribute.values if value in found}
        part.require(isinstance(found, str) and found in attribute.values, key, choices(attribute.values, found=found))
        return str(found)
    ends = [as_number(one) for one in found] if isinstance(found, list) else []
    low, high = [math.inf if one is None else one for one in ends] if len(ends) == 2 else (math.inf, math.inf)
    right = max(attribute.lowest, -(2.0**53)) <= low <= high <= min(attribute.highest, 2.0**53)
    right = right and (attribute.kind != "age" or all(type(one) is int for one in found))
    whole = "whole numbers" if attribute.kind == "age" else "numbers"
    part.require(right, key, f"[LOWEST, HIGHEST], {whole} from {attribute.lowest:g} to {attribute.highest:g}")
    return found[0], found[1]


def drawn(draw: Draw, rng: np.random.Generator) -> Value:
    """A value, drawn evenly from a range or by shares; a range of whole numbers gives whole numbers."""
    if isinstance(draw, str):
        return draw
    if isinstance(draw, tuple):
        low, high = draw
        if isinstance(low, int) and isinstance(high, int):
            return int(rng.integers(low, high, endpoint=True))
        return round(float(rng.uniform(low, high)), 6)
    shares = np.cumsum(list(draw.values()))
    place = int(np.searchsorted(shares[:-1], rng.random(), side="right"))
    return list(draw)[place]
