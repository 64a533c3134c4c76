"""Which columns feed each tower, and how: `dataset.toml`, read, checked, frozen. Its manual is `docs/datasets.md`."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from recsys_jax.cells import as_key, as_number, split_keys
from recsys_jax.errors import InputError, choices

__all__ = [
    "As",
    "Categorical",
    "Customers",
    "Feature",
    "Interactions",
    "MultiCategorical",
    "Numeric",
    "Policy",
    "Products",
    "Schema",
    "TowerInput",
    "read_toml",
]


@dataclass(frozen=True)
class As:
    """The policy "treat it as this value", written `{ as = VALUE }`."""

    value: str | int | float


Policy = Literal["error", "extra-row", "ignore", "flag", "missing"] | As


@dataclass(frozen=True)
class Categorical:
    """One value out of a vocabulary: one row of an embedding table."""

    name: str
    column: str
    values: tuple[str, ...] | None
    """The vocabulary in order; None: learned from the training data, in order of first appearance."""
    labels: tuple[str, ...] | None
    """What people read instead of `values`, in the same order; understood as input too."""
    aliases: Mapping[str, str]
    """Other spellings, and the value each one means."""
    unknown: Policy
    missing: Policy

    @property
    def meanings(self) -> dict[str, str]:
        """What labels and aliases stand for."""
        return {**dict(zip(self.labels or (), self.values or (), strict=False)), **self.aliases}

    def items(self, cell: object) -> list[str]:
        """The values in a cell, as texts: none where it is empty."""
        key = as_key(cell)
        return [] if key is None else [key]


@dataclass(frozen=True)
class MultiCategorical(Categorical):
    """Several values out of a vocabulary: the mean of their embedding rows."""

    separator: str | None
    """What separates the values where the column holds one string; None: the column holds lists."""

    def items(self, cell: object) -> list[str]:
        """The values in a cell, as texts: none where it is empty."""
        return split_keys(cell, self.separator)


@dataclass(frozen=True)
class Numeric:
    """A number: `clip(x / scale)`, or standardised by the training data's mean and deviation."""

    name: str
    column: str
    scale: float
    clip: tuple[float, float] | None
    """Bounds after scaling; what lies outside is moved to the bound."""
    standardise: bool
    minimum: float
    """The least value that can be true; what lies below is unknown."""
    maximum: float
    unknown: Policy
    missing: Policy


Feature = Categorical | MultiCategorical | Numeric


class TowerInput(NamedTuple):
    """What a tower needs to know of a feature once it is fitted."""

    name: str
    kind: Literal["categorical", "multi-categorical", "numeric"]
    size: int
    """Rows of the embedding table; for a number, its columns."""


@dataclass(frozen=True)
class Products:
    """The product table: its file, its columns with a role, its features."""

    file: str
    id: str
    name: str | None
    brand: str | None
    category: str | None
    price: str | None
    reviews: str | None
    """A column of nested reviews, from which personas and customers can be made."""
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Customers:
    """The customer table: its file (None: made from the reviews), its columns with a role, its features."""

    file: str | None
    id: str
    segment: str | None
    """The column by which results are broken down: the persona."""
    purchases: str | None
    """The column with the id, or list of ids, of the products bought."""
    separator: str | None
    """What separates the ids in `purchases` where it holds one string."""
    date: str | None
    """The column with the date of the row's `purchases`."""
    repeated: Literal["error", "first"]
    """What several rows with one id mean: a mistake, or one customer whose first row holds the attributes."""
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Interactions:
    """A table of who bought what."""

    file: str
    customer: str
    product: str
    date: str | None
    """The column with the date of the purchase."""


@dataclass(frozen=True)
class Schema:
    """Everything `dataset.toml` says."""

    name: str
    products: Products
    customers: Customers
    interactions: Interactions | None
    catalogue: str | None
    """The file with the persona catalogue."""
    source: Mapping[str, Any]
    """The document as read, so that an artifact can carry it."""

    @classmethod
    def read(cls, path: Path) -> "Schema":
        """The schema in the TOML file `path`. Raises `InputError` for whatever is not allowed there."""
        return cls.parse(read_toml(path), str(path))

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str) -> "Schema":
        """The schema in a parsed document; `where` names it in errors. Raises `InputError`."""
        top = _Section(document, where)
        name = top.text("name")
        products = _products(top.section("products"))
        customers = _customers(top.section("customers"))
        interactions = None
        if "interactions" in document:
            part = top.section("interactions")
            interactions = Interactions(
                part.text("file"), part.text("customer"), part.text("product"), part.optional_text("date")
            )
            part.end()
        catalogue = None
        if "personas" in document:
            part = top.section("personas")
            catalogue = part.text("catalogue")
            part.end()
        top.end()
        if (interactions is None) == (customers.purchases is None):
            raise InputError(
                f"{where}: who bought what stands either in [interactions] or in the column that "
                f"[customers] purchases names; found {'neither' if interactions is None else 'both'}"
            )
        if interactions is not None and customers.date is not None:
            raise InputError(
                f"{where}, [customers]: date: found {customers.date!r}; allowed: beside purchases alone; the column "
                f"with the dates of [interactions] is named there"
            )
        return cls(name, products, customers, interactions, catalogue, document)


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file `path`. Raises `InputError` where it is absent or malformed."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (ValueError, RecursionError, OSError) as error:  # TOML, UTF-8, and more digits than Python reads
        raise InputError(f"{path}: not readable as TOML: {error}") from None


class _Section:
    """A TOML table whose keys are taken one by one, so that one nobody takes is a mistake."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, Mapping):
            raise InputError(f"{where}: found {content!r}; a table of keys and values is needed")
        self._content = content
        self._known: list[str] = []
        self.where = where

    def error(self, key: str, allowed: str) -> InputError:
        found = f"found {self._content[key]!r}" if key in self._content else "it is not given"
        return InputError(f"{self.where}: {key}: {found}; allowed: {allowed}")

    def get(self, key: str) -> Any:
        self._known.append(key)
        return self._content.get(key)

    def text(self, key: str) -> str:
        value = self.optional_text(key)
        if value is None:
            raise self.error(key, "a text")
        return value

    def optional_text(self, key: str) -> str | None:
        value = self.get(key)
        if value is not None and not (isinstance(value, str) and value):
            raise self.error(key, "a text")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key)
        if value is None:
            return default
        number = as_number(value)
        if number is None:
            raise self.error(key, "a number")
        return number

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> Any:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if value not in tuple(allowed):
            raise self.error(key, choices(allowed))
        return value

    def keys(self, key: str, allowed: str = "a list of different texts or numbers") -> tuple[str, ...]:
        value = self.get(key)
        found = [as_key(item) for item in value] if isinstance(value, list) else []
        if isinstance(value, list) and not all(isinstance(item, str | int | float) for item in value):
            found = []
        texts = tuple(item for item in found if item is not None)
        if not texts or len(texts) != len(found) or len(set(texts)) != len(texts):
            raise self.error(key, allowed)
        return texts

    def policy(self, key: str, *words: str) -> Policy:
        value = self.get(key)
        if isinstance(value, Mapping) and set(value) == {"as"} and isinstance(value["as"], str | int | float):
            return As(value["as"])
        if value not in words:
            raise self.error(key, f"{choices(words)} or {{ as = VALUE }}")
        return value  # type: ignore[no-any-return]

    def section(self, key: str) -> "_Section":
        if self.get(key) is None:
            raise self.error(key, f"a section [{key}]")
        return _Section(self._content[key], f"{self.where}, [{key}]")

    def end(self) -> None:
        for key in self._content:
            if key not in self._known:
                raise InputError(f"{self.where}: found the key {key!r}; allowed: {choices(dict.fromkeys(self._known))}")


def _products(part: _Section) -> Products:
    products = Products(
        file=part.text("file"),
        id=part.text("id"),
        name=part.optional_text("name"),
        brand=part.optional_text("brand"),
        category=part.optional_text("category"),
        price=part.optional_text("price"),
        reviews=part.optional_text("reviews"),
        features=_features(part),
    )
    part.end()
    return products


def _customers(part: _Section) -> Customers:
    customers = Customers(
        file=part.optional_text("file"),
        id=part.text("id"),
        segment=part.optional_text("segment"),
        purchases=part.optional_text("purchases"),
        separator=part.optional_text("separator"),
        date=part.optional_text("date"),
        repeated=part.choice("repeated", ("error", "first"), default="error"),
        features=_features(part),
    )
    part.end()
    return customers


def _features(part: _Section) -> tuple[Feature, ...]:
    listed = part.get("features")
    if not isinstance(listed, list) or not listed:
        raise part.error("features", "one or more [[features]] tables: a tower needs input")
    features = tuple(_feature(item, f"{part.where}, feature {i}") for i, item in enumerate(listed, 1))
    for i, feature in enumerate(features):
        if feature.name in {other.name for other in features[:i]}:
            raise InputError(f"{part.where}: two features are named {feature.name!r}; names must differ")
    return features


def _feature(content: object, where: str) -> Feature:
    part = _Section(content, where)
    name = part.text("name")
    part.where = f"{where} ({name})"
    column = part.optional_text("column") or name
    kind = part.choice("kind", ("categorical", "multi-categorical", "numeric"))
    feature: Feature
    if kind == "numeric":
        feature = _numeric(part, name, column)
    else:
        values = (
            None
            if part.get("values") == "learned"
            else part.keys("values", "'learned', or a list of different texts or numbers")
        )
        labels = part.keys("labels") if part.get("labels") is not None else None
        if labels is not None and (values is None or len(labels) != len(values)):
            raise part.error("labels", "as many labels as there are given values")
        aliases = part.get("aliases")
        if aliases is None:
            aliases = {}
        if not isinstance(aliases, Mapping):
            raise part.error("aliases", "a table { SPELLING = VALUE }")
        known = {str(alias): as_key(value) or "" for alias, value in aliases.items()}
        for alias, value in known.items():
            if values is not None and value not in values:
                raise InputError(f"{part.where}: the alias {alias!r} means {value!r}; allowed: {choices(values)}")
        if kind == "categorical":
            unknown, missing = (
                part.policy("unknown", "error", "extra-row"),
                part.policy("missing", "error", "extra-row"),
            )
            feature = Categorical(name, column, values, labels, known, unknown, missing)
        else:
            unknown = part.policy("unknown", "error", "extra-row", "ignore")
            missing = part.policy("missing", "error", "extra-row", "ignore")
            separator = part.optional_text("separator")
            feature = MultiCategorical(name, column, values, labels, known, unknown, missing, separator)
        for key in ("unknown", "missing"):
            policy = getattr(feature, key)
            if isinstance(policy, As) and values is not None and as_key(policy.value) not in values:
                raise part.error(key, f"{{ as = one of {choices(values)} }}")
    part.end()
    return feature


def _numeric(part: _Section, name: str, column: str) -> Numeric:
    standardise = part.get("standardise")
    if standardise is None:
        standardise = False
    if not isinstance(standardise, bool):
        raise part.error("standardise", "true or false")
    scale = part.number("scale", 1.0)
    if not 0 < scale < math.inf:
        raise part.error("scale", "a number above 0")
    clip = part.get("clip")
    if clip is not None:
        low, high = map(as_number, clip) if isinstance(clip, list) and len(clip) == 2 else (None, None)
        if low is None or high is None or not low < high:
            raise part.error("clip", "a list of two numbers, the lower first")
        clip = (low, high)
    minimum, maximum = part.number("min", -math.inf), part.number("max", math.inf)
    if not minimum < maximum:
        raise part.error("min", f"a number below max = {maximum:g}")
    unknown, missing = part.policy("unknown", "error", "missing"), part.policy("missing", "error", "flag")
    for key, policy in (("unknown", unknown), ("missing", missing)):
        number = as_number(policy.value) if isinstance(policy, As) else minimum
        if number is None or not minimum <= number <= maximum:
            raise part.error(key, f"{{ as = a number from {minimum:g} to {maximum:g} }}")
    return Numeric(name, column, scale, clip, standardise, minimum, maximum, unknown, missing)
