"""Tables to arrays: vocabularies, scaling, and the policies for unseen and missing values."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from recsys_jax.data.schema import As, Categorical, Feature, MultiCategorical, Numeric, TowerInput
from recsys_jax.data.tables import Table, if_missing
from recsys_jax.data.tabular.coded import converted, counted, known
from recsys_jax.data.values import as_key, has_lone_surrogate, is_scalar
from recsys_jax.errors import MANY, InputError, choices, nearest, shown

Features = dict[str, Any]
"""Arrays by feature name, with one row per customer or product: int32 rows of an embedding table (n,); several of them
(n, m), padded with -1; float32 numbers (n, 1), or (n, 2) with a missing flag."""

WHOLE = "whole characters: a lone surrogate is half of one"
_LARGEST = 1e15
"""Scaled numbers up to this size keep a tower's sums and squares within 32 bits, by a wide margin."""


@dataclass(frozen=True)
class FittedFeature:
    """A feature of the schema with what was learned about it from the training data."""

    feature: Feature
    values: tuple[str, ...] = ()
    """The vocabulary of a categorical feature, in the order of the embedding table's rows."""
    width: int = 1
    """The most values in one training row of a multi-categorical feature."""
    mean: float = 0.0
    """The mean of a number after scaling and clipping."""
    deviation: float = 1.0
    low: float = -math.inf
    """The least number, scaled and clipped; not known of models of a former version."""
    high: float = math.inf

    @classmethod
    def fit(cls, feature: Feature, table: Table) -> "FittedFeature":
        """Learns from a table; where no row states it, no vocabulary. Raises `InputError` for a bad value."""
        if isinstance(feature, Numeric):
            numbers = known(_numbers(feature, table))
            if not len(numbers):
                return cls(feature)
            different = [x for x, _ in counted(numbers)]
            low, high = min(different), max(different)
            # Of equal numbers it is that number: the rounding of a mean is no deviation.
            mean = low if low == high else math.fsum(numbers) / len(numbers)
            variance = math.fsum(converted(lambda x: (x - mean) ** 2, numbers)) / len(numbers)
            return cls(feature, mean=mean, deviation=math.sqrt(variance) or 1.0, low=low, high=high)
        bags = [feature.items(value) or [] for value, _ in counted(table.column(feature.column))]
        return cls._of(feature, _vocabulary(feature, bags), max([1, *map(len, bags)]))

    @classmethod
    def _of(cls, feature: Categorical, values: tuple[str, ...], width: int) -> "FittedFeature":
        """The feature with its vocabulary, its width limited to the rows of the embedding table."""
        fitted = cls(feature, values)
        return replace(fitted, width=min(width, fitted.input.size))

    @property
    def input(self) -> TowerInput:
        """What the tower needs to know of it."""
        if isinstance(self.feature, Numeric):
            return TowerInput(self.feature.name, "numeric", 2 if self.feature.missing == "flag" else 1)
        extra = sum(policy == "extra-row" for policy in (self.feature.unknown, self.feature.missing))
        kind = "multi-categorical" if isinstance(self.feature, MultiCategorical) else "categorical"
        return TowerInput(self.feature.name, kind, len(self.values) + extra)  # type: ignore[arg-type]

    @property
    def unknown_row(self) -> int | None:
        """The embedding row that unseen values share, after the vocabulary; None without such a policy."""
        return len(self.values) if self.feature.unknown == "extra-row" else None

    @property
    def missing_row(self) -> int | None:
        """The embedding row that missing values share, the last; None without such a policy."""
        return self.input.size - 1 if self.feature.missing == "extra-row" else None

    @property
    def likely(self) -> tuple[float, float]:
        """From where to where numbers lie, as the tower reads them: within two deviations, and within the bounds."""
        feature, mean, deviation = self.feature, self.mean, self.deviation
        assert isinstance(feature, Numeric)
        low = max(mean - 2 * deviation, feature.minimum / feature.scale)
        high = max(min(mean + 2 * deviation, feature.maximum / feature.scale), low)
        return ((low - mean) / deviation, (high - mean) / deviation) if feature.standardise else (low, high)

    def stated(self, x: float) -> float:
        """The number as people state it that the tower reads as x."""
        assert isinstance(self.feature, Numeric)
        return (x * self.deviation + self.mean if self.feature.standardise else x) * self.feature.scale

    def allowed(self, found: object = None) -> str:
        """The values that are understood, for the end of an error sentence, and the one that `found` may stand for."""
        if not isinstance(self.feature, Numeric):
            meant = nearest(found, self._row_of)
            hint = "" if meant is None else f"; did you mean {shown(self.label(self.canonical(meant) or meant))}?"
            return choices(self.feature.labels or self.values) + hint
        low, high = self.feature.minimum, self.feature.maximum
        words = [f"from {low:g}"] if math.isfinite(low) else []
        words += [f"{'to' if words else 'up to'} {high:g}"] if math.isfinite(high) else []
        units = [f"also with {' or '.join(self.feature.written.units)}"] if self.feature.written.units else []
        return ", ".join([" ".join(["a number", *words]), *units])

    def label(self, value: str) -> str:
        """The label that people read for a value of the vocabulary."""
        labels = None if isinstance(self.feature, Numeric) else self.feature.labels
        return labels[self.values.index(value)] if labels and value in self.values else value

    def told(self, value: object) -> object:
        """What people read of a value: a number, or labels, with what is unknown marked; None for nothing."""
        feature = self.feature
        if isinstance(feature, Numeric):
            number = feature.number(value)
            if self.unknown(value):
                return f"{value} (unknown)"
            return number if number is None or not number.is_integer() else int(number)
        known = {item: self.canonical(item) for item in feature.items(value) or ()}
        return ", ".join(f"{item} (unknown)" if key is None else self.label(key) for item, key in known.items()) or None

    def unknown(self, value: object) -> list[Any]:
        """What the policy for unknown values is for: items that the vocabulary lacks, no number, one out of bounds."""
        feature = self.feature
        if not isinstance(feature, Numeric):
            return [item for item in feature.items(value) or () if self.canonical(item) is None]
        if isinstance(value, float) and feature.minimum <= value <= feature.maximum and math.isfinite(value):
            return []  # at once, as of millions in a job
        number = feature.number(value)
        known = feature.is_missing(value) or (number is not None and feature.minimum <= number <= feature.maximum)
        return [] if known else [value]

    def unseen(self, value: object) -> bool:
        """Whether it is a number that the bounds admit, and beyond all that training has seen."""
        feature = self.feature
        assert isinstance(feature, Numeric)
        if type(value) in (int, float) and self.low <= value / feature.scale <= self.high:  # type: ignore[operator]
            return False  # at once, as of millions in a job
        number = feature.number(value)
        if number is None or not feature.minimum <= number <= feature.maximum:
            return False
        return not self.low <= _scaled(feature, number) <= self.high

    def canonical(self, value: object) -> str | None:
        """The vocabulary's spelling of a value, label or alias; None where it is unseen."""
        row = self._row_of.get(as_key(value))
        return None if row is None else self.values[row]

    @cached_property
    def _row_of(self) -> Mapping[str | None, int]:
        """The row of the vocabulary that each understood text means."""
        assert not isinstance(self.feature, Numeric)
        # A former model may have learned values as they were written.
        known = {as_key(value): row for row, value in enumerate(self.values)}
        known.pop(None, None)
        return {text: known[value] for text, value in self.feature.meanings.items() if value in known} | known

    def encode(self, table: Table) -> Float32[np.ndarray, "n d"] | Int32[np.ndarray, " n"] | Int32[np.ndarray, "n m"]:
        """The feature's array over all rows of the table. A value that no policy admits is refused by the table."""
        return table.by_value(self.feature.column, self._encoded)  # type: ignore[no-any-return]

    def _encoded(self, table: Table) -> Float32[np.ndarray, "n d"] | Int32[np.ndarray, " n"] | Int32[np.ndarray, "n m"]:
        feature = self.feature
        if isinstance(feature, Numeric):
            # A missing number becomes the mean; the flag beside it tells the two apart.
            read = _numbers(feature, table)
            numbers = [self.mean if x is None else x for x in read]
            if feature.standardise:
                numbers = [(x - self.mean) / self.deviation for x in numbers]
            _refuse_large(feature, table, numbers, _LARGEST)
            flags = [[x is None for x in read]] if feature.missing == "flag" else []
            return np.clip([numbers, *flags], -_LARGEST, _LARGEST).T.astype(np.float32, "C")
        bags: list[list[int]] = []
        # Most values of one are texts of the vocabulary as they stand.
        known = {} if isinstance(feature, MultiCategorical) else self._row_of
        for i, value in enumerate(table.column(feature.column)):
            if isinstance(value, str) and value in known:
                bags.append([known[value]])
                continue
            rows = dict.fromkeys(self._row(table, i, item) for item in _items(feature, table, i, value))
            rows.pop(-1, None)
            bags.append([*rows] or [self._row(table, i, None)])
        if not isinstance(feature, MultiCategorical):
            return np.array(bags, np.int32).reshape(len(bags))
        out = np.full((len(bags), max([self.width, *map(len, bags)])), -1, np.int32)
        for i, bag in enumerate(bags):
            out[i, : len(bag)] = bag
        return out

    def _row(self, table: Table, row: int, item: str | None) -> int:
        """The embedding row of an item, None where there is none; -1 where it is ignored."""
        known = self._row_of.get(item)
        if known is not None:
            return known
        if item is not None and has_lone_surrogate(item):
            table.refuse(row, self.feature.column, WHOLE)
            return -1
        policy = self.feature.missing if item is None else self.feature.unknown
        extra = self.missing_row if item is None else self.unknown_row
        if isinstance(policy, As):
            extra = self._row_of.get(as_key(policy.value))
        if extra is not None:
            return extra
        if policy != "ignore":
            few = len(table.problems or ()) < MANY  # what is looked for in each of a million bad rows takes too long
            table.refuse(row, self.feature.column, self.allowed(item if few else None) + if_missing(item))
        return -1

    def blank(self, count: int) -> Float32[np.ndarray, "n d"] | Int32[np.ndarray, " n"] | Int32[np.ndarray, "n m"]:
        """An array of the shape and type that `encode` gives."""
        if isinstance(self.feature, Numeric):
            return np.zeros((count, self.input.size), np.float32)
        multiple = isinstance(self.feature, MultiCategorical)
        return np.zeros((count, self.width) if multiple else count, np.int32)

    def learned(self) -> dict[str, Any]:
        """What was learned, as JSON values for `restore`."""
        if isinstance(self.feature, Numeric):
            known = {"low": self.low, "high": self.high} if self.low > -math.inf else {}
            return {"mean": self.mean, "deviation": self.deviation, **known}
        return {"values": list(self.values), "width": self.width}

    @classmethod
    def restore(cls, feature: Feature, learned: Mapping[str, Any]) -> "FittedFeature":
        """The inverse of `learned`. Raises `KeyError`, `TypeError` or `ValueError` where it is damaged."""
        if isinstance(feature, Numeric):
            mean, deviation = float(learned["mean"]), float(learned["deviation"])
            low, high = float(learned.get("low", -math.inf)), float(learned.get("high", math.inf))
            if not (math.isfinite(mean) and 0 < deviation < math.inf and low <= high):
                raise ValueError(
                    f"{feature.name}: found {shown(learned)}; allowed: a mean, a deviation, and two bounds"
                )
            return cls(feature, mean=mean, deviation=deviation, low=low, high=high)
        values, width = learned["values"], learned["width"]
        texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
        keys = tuple(map(as_key, values)) if texts else ()
        if not 0 < len(set(values)) == len(keys) or keys != (feature.values or keys):
            raise ValueError(f"{feature.name}: found {choices(values)}; allowed: different texts, those of the schema")
        if type(width) is not int or width < 1:
            raise ValueError(f"{feature.name}: found the width {width!r}; allowed: 1 or more")
        return cls._of(feature, tuple(values), width)


@dataclass(frozen=True)
class FeatureSpace:
    """The fitted features of one side, in the order in which its tower concatenates them."""

    features: tuple[FittedFeature, ...]

    @classmethod
    def fit(
        cls, features: Sequence[Feature], table: Table, rows: Sequence[int] | None = None, *, part: bool = False
    ) -> "FeatureSpace":
        """Learns each feature from the given rows, by default all.

        Raises `InputError` for a bad value, and for a vocabulary to be learned that none of the rows has a value of; of
        a `part` of the table, such as a fold, it is left out, as long as there is another feature.
        """
        chosen = table if rows is None else table.select(rows)
        fitted = [FittedFeature.fit(feature, chosen) for feature in features]
        empty = [one for one in fitted if not (one.values or isinstance(one.feature, Numeric))]
        if empty and (not part or len(empty) == len(fitted)):
            found = f"the column {empty[0].feature.column!r} holds no value to learn from"
            raise InputError(f"{table.source}: {found} in the {len(chosen):,} rows that are learned from")
        return cls(tuple(one for one in fitted if one not in empty))

    def __iter__(self) -> Iterator[FittedFeature]:
        return iter(self.features)

    def __getitem__(self, name: str) -> FittedFeature:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, FittedFeature]:
        return {fitted.feature.name: fitted for fitted in self.features}

    @property
    def names(self) -> list[str]:
        """The features' names."""
        return list(self._by_name)

    @property
    def optional(self) -> set[str]:
        """The columns that a table may lack: those whose missing values a policy admits."""
        return {fitted.feature.column for fitted in self.features if fitted.feature.missing != "error"}

    @property
    def inputs(self) -> tuple[TowerInput, ...]:
        """What the tower needs to know of each feature."""
        return tuple(fitted.input for fitted in self.features)

    def blank(self, count: int) -> Features:
        """Arrays of the shapes and types that `encode` gives, filled with zeros."""
        return {name: fitted.blank(count) for name, fitted in self._by_name.items()}

    def encode(self, table: Table) -> Features:
        """The arrays over all rows. Raises `InputError` for a missing column or a value that no policy allows."""
        return {name: fitted.encode(table) for name, fitted in self._by_name.items()}

    def problems(self, table: Table) -> dict[int, str]:
        """The first reason for each row that `encode` refuses. Raises `InputError` for a missing column."""
        table = table.collecting()
        self.encode(table)
        return dict(sorted((table.problems or {}).items()))


def refuse_unusable(table: Table, features: Sequence[Feature]) -> None:
    """Refuses the values of features that are of no use whatever other rows hold.

    These are values out of bounds, unseen or missing where the policy is "error", lists or objects where one value
    belongs, and halves of characters. A learned vocabulary is that of all rows here. Columns may be absent.
    """
    for feature in features:
        if feature.column in table.columns:
            table.by_value(feature.column, partial(_refuse_unusable, feature))


def _refuse_unusable(feature: Feature, table: Table) -> None:
    if isinstance(feature, Numeric):
        # Far beyond any number that is worth standardising, and its square is still finite.
        _refuse_large(feature, table, _numbers(feature, table), 1e100 if feature.standardise else _LARGEST)
        return
    bags = [_items(feature, table, row, value) for row, value in enumerate(table.columns[feature.column])]
    values = _vocabulary(feature, bags)
    if values:  # an empty vocabulary is refused by training
        FittedFeature(feature, values).encode(table)


def _items(feature: Categorical, table: Table, row: int, value: object) -> list[str]:
    """The keys in a value, none where it is of a kind that the table refuses."""
    items = feature.items(value)
    if items is None:
        table.refuse(row, feature.column, feature.form)
    return items or []


def _vocabulary(feature: Categorical, bags: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The values of the schema, else those in the rows, in order of first appearance."""
    whole = (item for bag in bags for item in bag if not has_lone_surrogate(item))
    learned = dict.fromkeys(feature.aliases.get(item, item) for item in whole)
    return feature.values or tuple(learned)


def with_product_id(features: Sequence[Feature], column: str) -> tuple[Feature, ...]:
    """The product features and the product's id as one more; new products share its row for unseen values.

    Raises `InputError` where another feature has its name.
    """
    if "product_id" in {feature.name for feature in features}:
        raise InputError(
            "[products]: found a feature with the name 'product_id'; allowed: another name, as 'product_id' is that of "
            "the product's own vector; its column may be any"
        )
    own = Categorical("product_id", column, None, None, {}, unknown="extra-row", missing="error")
    return (*features, own)


def _numbers(feature: Numeric, table: Table) -> Sequence[float | None]:
    """The scaled numbers of a table, None where they are missing or refused."""

    def asked(table: Table) -> list[float | None]:
        numbers = (_number(feature, table, row, value) for row, value in enumerate(table.column(feature.column)))
        return [None if number is None else _scaled(feature, number) for number in numbers]

    return table.by_value(feature.column, asked)  # type: ignore[no-any-return]


def _scaled(feature: Numeric, number: float) -> float:
    low, high = feature.clip or (-math.inf, math.inf)
    return min(max(number / feature.scale, low), high)


def _number(feature: Numeric, table: Table, row: int, value: object) -> float | None:
    """The value as a number within the feature's bounds; None where it is missing or refused."""
    policy, number = feature.missing, feature.number(value)
    if number is not None and feature.minimum <= number <= feature.maximum:
        return number
    if not is_scalar(value):
        policy = "error"
    elif not feature.is_missing(value) and feature.unknown != "missing":
        policy = feature.unknown
    if isinstance(policy, As):
        return float(policy.value)
    if policy == "error":
        table.refuse(row, feature.column, FittedFeature(feature).allowed() + if_missing(as_key(value)))
    return None


def _refuse_large(feature: Numeric, table: Table, numbers: Iterable[float | None], largest: float) -> None:
    for row, number in enumerate(numbers):
        if number is not None and abs(number) > largest:
            table.refuse(row, feature.column, f"a number from {-largest:g} to {largest:g} once scaled")
