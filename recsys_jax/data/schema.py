"""`dataset.toml`: which columns feed each tower, and how. `docs/datasets.md` is its manual."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, NamedTuple

from recsys_jax.config import Config, Language, parse_recipe
from recsys_jax.data.files import Section, read_toml, require_inside
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.coded import converted
from recsys_jax.data.values import (
    NEVER,
    ONE,
    SEVERAL,
    Condition,
    NumberForm,
    as_key,
    as_number,
    is_empty,
    is_scalar,
    parse_date,
    split_keys,
)
from recsys_jax.errors import InputError, choices, did_you_mean, require, require_different, shown


@dataclass(frozen=True)
class As:
    """The policy "treat it as this value", written `{ as = VALUE }`."""

    value: str | int | float


Policy = Literal["error", "extra-row", "ignore", "flag", "missing"] | As
Repeat = Literal["never", "allowed"]


@dataclass(frozen=True)
class _Input:
    """What each kind of feature has."""

    name: str
    column: str
    label: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """What people call it, by language."""
    missing_values: Condition = field(default=NEVER, kw_only=True)  # what says that nothing is known


@dataclass(frozen=True)
class Categorical(_Input):
    """One value out of a vocabulary: one row of an embedding table."""

    values: tuple[str, ...] | None
    """The vocabulary in order; None: learned from the training data, in order of first appearance."""
    labels: tuple[str, ...] | None
    """What people read in place of `values`, in the same order; also accepted as input."""
    aliases: Mapping[str, str]
    """Other spellings, and the value that each means."""
    unknown: Policy
    missing: Policy

    @property
    def meanings(self) -> dict[str, str]:
        """The value that each label and alias means."""
        return {**dict(zip(self.labels or (), self.values or (), strict=False)), **self.aliases}

    form = ONE
    """What a value may be, whatever the vocabulary."""

    def items(self, value: object) -> list[str] | None:
        """The keys in a value of the table, none where it is empty; None where it is of another kind."""
        key = as_key(value)
        if key is None:
            return [] if is_scalar(value) else None
        return self._known([key])

    def read(self, column: Sequence[object]) -> Sequence[object]:
        """What the values of a column say, however they are spelt: of each the list of its keys."""
        meanings = self.meanings
        return converted(lambda value: [meanings.get(key, key) for key in self.items(value) or ()], column)

    def _known(self, keys: list[str]) -> list[str]:
        return [key for key in keys if not self.missing_values.met(key)] if self.missing_values.keys else keys


@dataclass(frozen=True)
class MultiCategorical(Categorical):
    """Several values out of a vocabulary: the mean of their embedding rows."""

    separator: str | None
    """What separates several values in one text; None: the column has lists."""

    form = SEVERAL

    def items(self, value: object) -> list[str] | None:
        """The keys in a value of the table, none where it is empty; None where it is of another kind."""
        keys = split_keys(value, self.separator)
        return None if keys is None else self._known(keys)


@dataclass(frozen=True)
class Numeric(_Input):
    """A number: `clip(x / scale)`, or standardised by the training data's mean and deviation."""

    scale: float
    clip: tuple[float, float] | None
    """Bounds after scaling, to which numbers outside are moved."""
    standardise: bool
    minimum: float
    """The least plausible value; what lies below counts as unknown."""
    maximum: float
    unknown: Policy
    missing: Policy
    written: NumberForm = field(default=NumberForm(), kw_only=True)
    """The units and thousands that may stand in a text."""

    def number(self, value: object) -> float | None:
        """The number in a value of the table; None where there is none."""
        return None if self.is_missing(value) else self.written.number(value)

    def read(self, column: Sequence[object]) -> Sequence[object]:
        """The number in each value of a column."""
        return converted(self.number, column)

    def is_missing(self, value: object) -> bool:
        """Whether the value says that nothing is known; a list or an object says nothing at all."""
        return is_empty(value) or (is_scalar(value) and self.missing_values.met(value))


Feature = Categorical | MultiCategorical | Numeric


def label_of(column: str, features: Iterable[Feature], language: Language = "en", otherwise: str = "") -> str:
    """What people call a column that features read; where no label is given, its name, or what is given for it."""
    labels = next((one.label for one in features if one.column == column and one.label), {})
    return labels.get(language) or labels.get("en") or otherwise or column.replace("_", " ")


class TowerInput(NamedTuple):
    """What a tower needs to know of a feature once it is fitted."""

    name: str
    kind: Literal["categorical", "multi-categorical", "numeric"]
    size: int
    """Rows of the embedding table; the columns of a number."""


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
    """The column of nested reviews, from which personas and customers can be made."""
    features: tuple[Feature, ...]

    @property
    def shown(self) -> list[str | None]:
        """The columns that people see beside the id."""
        return [self.name, self.brand, self.category, self.price]


@dataclass(frozen=True)
class Customers:
    """The customer table: its file (None: made from the reviews), its columns with a role, its features."""

    file: str | None
    id: str
    segment: str | None
    """The column by which results are broken down, such as the persona."""
    purchases: str | None
    """The column with the id, or list of ids, of the products bought."""
    separator: str | None
    """What separates several ids in one text of `purchases`."""
    date: str | None
    """The column with the date of the row's `purchases`."""
    date_format: str | None
    """How the dates are written where that is not ISO 8601, as `datetime.strptime` has it."""
    repeated: Literal["error", "first"]
    """Whether several rows with one id are a mistake, or one customer with the attributes of the first."""
    repeat: Repeat
    """Of `purchases`, as in `Interactions`."""
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Interactions:
    """A table of who bought what."""

    file: str
    customer: str
    product: str
    date: str | None
    date_format: str | None
    repeat: Repeat
    """Whether customers buy a product again: it decides what serving leaves out, and what an evaluation asks for."""
    unknown_customers: Literal["error", "ignore"]
    """Whether a purchase by somebody who is not in the customer table is a mistake, or passed over: a guest's."""
    unknown_products: Literal["error", "ignore"]
    where: Mapping[str, Condition]
    """By column, what makes a row a purchase; other rows, such as returns, are passed over."""


@dataclass(frozen=True)
class Schema:
    """Everything `dataset.toml` says."""

    name: str
    products: Products
    customers: Customers
    interactions: Interactions | None
    catalogue: str | None
    training: Config | None
    """The recipe that this dataset is trained with by default; None: that of all datasets."""
    source: Mapping[str, Any]
    """The document as read, for an artifact to carry; without `[training]`, a model has its own, and `description`."""
    missing_values: Condition = NEVER
    """What says in any column that nothing is known, unless a feature or `where` has it as a value."""
    notes: tuple[str, ...] = ()  # on former names in it
    description: Mapping[str, str] = field(default_factory=dict)  # what people should know of the data, by language

    def reads(self, table: Table) -> Table:
        """The table, in which `missing_values` are no ids or dates either."""
        return replace(table, nothing=self.missing_values.texts)

    @property
    def repeats(self) -> bool:
        """Whether customers buy a product again."""
        return (self.interactions or self.customers).repeat == "allowed"

    @classmethod
    def read(cls, path: str | Path) -> "Schema":
        """The schema in a TOML file. Raises `InputError` for whatever is not allowed there.

        A dataset is its folder: files outside are not read, and its name leads nowhere else.
        """
        path = Path(path)
        schema = cls.parse(read_toml(path, inside=path.parent), str(path))
        parts = schema.products, schema.customers, schema.interactions
        files = {f"[{type(part).__name__.lower()}]: file": part.file for part in parts if part}
        for key, file in {**files, "[personas]: catalogue": schema.catalogue}.items():
            require_inside(path.parent, file or "", f"{path}, {key}")
        plain = PureWindowsPath(schema.name).name == schema.name != ".." and schema.name.isprintable()
        require(plain, f"{path}: name", schema.name, "a name that a folder can have")
        return schema

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str) -> "Schema":
        """The schema in a parsed document; `where` names it in errors. Raises `InputError`."""
        top = Section(document, where)
        name, missing, described = top.text("name"), top.values("missing_values"), top.by_language("description")

        def products_in(part: Section) -> Products:
            return Products(**_texts(Products, part), features=_features(part, missing))

        products = top.part("products", products_in)
        customers = top.part("customers", lambda part: _customers(part, missing))
        interactions = top.part("interactions", _interactions) if "interactions" in document else None
        catalogue = top.part("personas", lambda part: part.text("catalogue")) if "personas" in document else None
        notes: list[str] = []
        recipe = top.get("training")
        training = None if recipe is None else parse_recipe(recipe, f"{where}, [training]", notes.append)
        top.end()
        if (interactions is None) == (customers.purchases is None):
            raise InputError(
                f"{where}: who bought what stands either in [interactions] or in the column that "
                f"[customers] purchases names; found {'neither' if interactions is None else 'both'}"
            )
        beside = "beside purchases alone; the column with the dates of [interactions] is named there"
        require(interactions is None or customers.date is None, f"{where}, [customers]: date", customers.date, beside)
        source = {key: part for key, part in document.items() if key not in ("training", "description")}
        whole, said = Condition.any_of(missing), tuple(notes)
        return cls(name, products, customers, interactions, catalogue, training, source, whole, said, described)


def _texts(kind: type[Products | Customers | Interactions], part: Section) -> dict[str, Any]:
    """The fields of a class that are texts, as the section has them."""
    readers = {str: part.text, str | None: part.optional_text}
    texts = {field.name: readers[field.type](field.name) for field in fields(kind) if field.type in readers}  # type: ignore[index]
    if form := texts.get("date_format"):
        ok = bool(texts["date"]) and parse_date(f"{date(2024, 2, 29):{form}}", form) == parse_date("2024-02-29")
        part.require(ok, "date_format", "beside date, a form with day, month and year, such as '%d.%m.%Y'")
    return texts


def _customers(part: Section, missing: Sequence[str | int | float]) -> Customers:
    texts = _texts(Customers, part)
    repeated = part.choice("repeated", ("error", "first"), "error")
    require_purchases = texts["purchases"] is not None or part.get("repeat") is None
    part.require(require_purchases, "repeat", "beside purchases alone; of [interactions], it is given there")
    return Customers(**texts, repeated=repeated, repeat=_repeat(part), features=_features(part, missing))


def _interactions(part: Section) -> Interactions:
    texts = _texts(Interactions, part)
    unknown = {f"unknown_{of}": part.choice(f"unknown_{of}", ("error", "ignore"), "error")
               for of in ("customers", "products")}  # fmt: skip
    where = part.get("where", {})
    part.require(isinstance(where, Mapping), "where", "a table { COLUMN = CONDITION }")
    conditions = {name: Condition.parse(one, f"{part.where}: where, {name}") for name, one in where.items()}
    return Interactions(**texts, repeat=_repeat(part), **unknown, where=conditions)


def _repeat(part: Section) -> Repeat:
    return part.choice("repeat", ("never", "allowed"), "never")  # type: ignore[no-any-return]


def _features(part: Section, missing: Sequence[str | int | float]) -> tuple[Feature, ...]:
    listed = part.get("features")
    if not isinstance(listed, list) or not listed:
        raise part.error("features", "one or more [[features]] tables: a tower needs input")
    features = tuple(_feature(item, f"{part.where}, feature {i}", missing) for i, item in enumerate(listed, 1))
    require_different((feature.name for feature in features), f"{part.where}: two features")
    return features


def _feature(content: object, where: str, missing: Sequence[str | int | float]) -> Feature:
    part = Section(content, where)
    name = part.text("name")
    part.where = f"{where} ({name})"
    column, label = part.optional_text("column") or name, part.by_language("label")
    kind = part.choice("kind", ("categorical", "multi-categorical", "numeric"))
    feature = _numeric(part, name, column) if kind == "numeric" else _categorical(part, name, column, kind)
    own = part.values("missing_values")
    declared = () if isinstance(feature, Numeric) else {*(feature.values or ()), *feature.meanings}
    for value in own:
        part.require(as_key(value) not in declared, "missing_values", f"no value, label or alias, as {shown(value)} is")
    part.end()
    others = [value for value in missing if as_key(value) not in declared]
    return replace(feature, label=label, missing_values=Condition.any_of([*own, *others]))


def _categorical(part: Section, name: str, column: str, kind: str) -> Categorical:
    values = None
    if part.get("values") != "learned":
        values = part.keys("values", "'learned', or a list of different texts or numbers")
    labels = None if part.get("labels") is None else part.keys("labels")
    if labels is not None and len(labels) != len(values or ()):
        raise part.error("labels", "as many labels as there are given values")
    aliases = part.get("aliases", {})
    part.require(isinstance(aliases, Mapping), "aliases", "a table { SPELLING = VALUE }")
    known = {as_key(alias) or "": as_key(value) or "" for alias, value in aliases.items()}
    for alias, value in known.items():
        if values is not None and value not in values:
            raise InputError(
                f"{part.where}: the alias {shown(alias)} means {shown(value)}; allowed: {choices(values, found=value)}"
            )
    words = ("error", "extra-row", "ignore")[: 2 if kind == "categorical" else 3]
    allowed = f"one of {choices(values or ())}"

    def policy(key: str) -> Policy:
        return _policy(part, key, words, lambda value: values is None or as_key(value) in values, allowed)

    feature = Categorical(name, column, values, labels, known, policy("unknown"), policy("missing"))
    if kind == "categorical":
        return feature
    return MultiCategorical(**vars(feature), separator=part.optional_text("separator"))


def _numeric(part: Section, name: str, column: str) -> Numeric:
    standardise = part.get("standardise", False)
    part.require(isinstance(standardise, bool), "standardise", "true or false")
    scale = part.number("scale", 1.0)
    part.require(0 < scale < math.inf, "scale", "a number above 0")
    clip = part.get("clip")
    if clip is not None:
        low, high = map(as_number, clip) if isinstance(clip, list) and len(clip) == 2 else (None, None)
        if low is None or high is None or not low < high:
            raise part.error("clip", "a list of two numbers, the lower first")
        clip = (low, high)
    least, most = part.number("min", -math.inf), part.number("max", math.inf)
    part.require(least < most, "min", f"a number below max = {most:g}")

    def within(value: object) -> bool:
        number = as_number(value)
        return number is not None and least <= number <= most

    allowed = f"a number from {least:g} to {most:g}"
    unknown = _policy(part, "unknown", ("error", "missing"), within, allowed)
    missing = _policy(part, "missing", ("error", "flag"), within, allowed)
    written = NumberForm.parse(part.get("units", []), part.get("thousands", ""), part.where)
    return Numeric(name, column, scale, clip, standardise, least, most, unknown, missing, written=written)


def _policy(part: Section, key: str, words: tuple[str, ...], admits: Callable[[object], bool], allowed: str) -> Policy:
    """One of the words, or `{ as = VALUE }` with a value that the feature admits."""
    value = part.get(key)
    if isinstance(value, Mapping) and set(value) == {"as"} and isinstance(value["as"], str | int | float):
        part.require(admits(value["as"]), key, f"{{ as = {allowed} }}")
        return As(value["as"])
    part.require(value in words, key, f"{choices(words)} or {{ as = VALUE }}{did_you_mean(value, words)}")
    return value  # type: ignore[no-any-return]
