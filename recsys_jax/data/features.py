"""Tables to arrays: vocabularies, scaling, and the policies for unseen and missing values."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int32

from recsys_jax.data.schema import As, Categorical, Feature, MultiCategorical, Numeric, TowerInput
from recsys_jax.data.tables import Table
from recsys_jax.data.values import as_key, is_nested, parse_number
from recsys_jax.errors import InputError, choices

Features = dict[str, Any]
"""Arrays by feature name, with one row per customer or product: int32 rows of an embedding table (n,); several of them
(n, m), padded with -1; float32 numbers (n, 1), or (n, 2) with a missing flag."""

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

    @classmethod
    def fit(cls, feature: Feature, table: Table, rows: Sequence[int]) -> "FittedFeature":
        """Learns from the given rows. Raises `InputError` for a bad value or an empty vocabulary."""
        if isinstance(feature, Numeric):
            numbers = [x for x in _numbers(feature, table, rows) if x is not None]
            mean = math.fsum(numbers) / len(numbers) if numbers else 0.0
            if numbers and min(numbers) == max(numbers):
                mean = numbers[0]  # the rounding of a mean is no deviation
            variance = math.fsum((x - mean) ** 2 for x in numbers) / len(numbers) if numbers else 0.0
            return cls(feature, mean=mean, deviation=math.sqrt(variance) or 1.0)
        width = 1
        seen = dict.fromkeys(feature.values or ())
        column = table.column(feature.column)
        for row in rows:
            items = feature.items(column[row])
            width = max(width, len(items))
            if feature.values is None:
                seen.update(dict.fromkeys(feature.aliases.get(item, item) for item in items))
        if not seen:
            raise InputError(f"{table.source}: the column {feature.column!r} holds no value to learn from")
        return cls._of(feature, tuple(seen), width)

    @classmethod
    def _of(cls, feature: Categorical, values: tuple[str, ...], width: int) -> "FittedFeature":
        """The feature with its vocabulary, its width limited to the rows of the embedding table."""
        fitted = cls(feature, values=values)
        return replace(fitted, width=min(width, fitted.input.size))

    @property
    def input(self) -> TowerInput:
        """What the tower needs to know of it."""
        if isinstance(self.feature, Numeric):
            return TowerInput(self.feature.name, "numeric", 2 if self.feature.missing == "flag" else 1)
        kind = "multi-categorical" if isinstance(self.feature, MultiCategorical) else "categorical"
        extra = sum(policy == "extra-row" for policy in (self.feature.unknown, self.feature.missing))
        return TowerInput(self.feature.name, kind, len(self.values) + extra)  # type: ignore[arg-type]

    @property
    def unknown_row(self) -> int | None:
        """The embedding row that unseen values share, after the vocabulary; None without such a policy."""
        extra = not isinstance(self.feature, Numeric) and self.feature.unknown == "extra-row"
        return len(self.values) if extra else None

    @property
    def missing_row(self) -> int | None:
        """The embedding row that missing values share, the last; None without such a policy."""
        if isinstance(self.feature, Numeric) or self.feature.missing != "extra-row":
            return None
        return self.input.size - 1

    def allowed(self) -> str:
        """The values that are understood, for the end of an error sentence."""
        if isinstance(self.feature, Numeric):
            low, high = self.feature.minimum, self.feature.maximum
            words = [f"from {low:g}"] if math.isfinite(low) else []
            words += [f"{'to' if words else 'up to'} {high:g}"] if math.isfinite(high) else []
            return " ".join(["a number", *words])
        return choices(self.feature.labels or self.values)

    def label(self, value: str) -> str:
        """The label that people read for a value of the vocabulary."""
        labels = None if isinstance(self.feature, Numeric) else self.feature.labels
        return labels[self.values.index(value)] if labels and value in self.values else value

    def canonical(self, value: object) -> str | None:
        """The vocabulary's spelling of a value, label or alias; None where it is unseen."""
        row = self._row_of.get(as_key(value))
        return None if row is None else self.values[row]

    @cached_property
    def _row_of(self) -> Mapping[str | None, int]:
        """The row of the vocabulary that each understood text means."""
        assert not isinstance(self.feature, Numeric)
        known: dict[str | None, int] = {value: row for row, value in enumerate(self.values)}
        return {text: known[value] for text, value in self.feature.meanings.items() if value in known} | known

    def encode(
        self, table: Table, bad: dict[int, InputError] | None = None
    ) -> Float32[np.ndarray, "n d"] | Int32[np.ndarray, " n"] | Int32[np.ndarray, "n m"]:
        """The feature's array over all rows of the table.

        Raises `InputError` for a value that the feature refuses; with `bad`, such rows are added there instead.
        """
        feature = self.feature
        column = table.column(feature.column)
        if isinstance(feature, Numeric):
            # A missing number becomes the mean; the flag beside it tells the two apart.
            read = _numbers(feature, table, range(len(table)), bad)
            numbers = [self.mean if x is None else x for x in read]
            if feature.standardise:
                numbers = [(x - self.mean) / self.deviation for x in numbers]
            _refuse_large(feature, table, numbers, _LARGEST, bad)
            flags = [[x is None for x in read]] if feature.missing == "flag" else []
            return np.clip([numbers, *flags], -_LARGEST, _LARGEST).T.astype(np.float32, "C")
        several = isinstance(feature, MultiCategorical)
        bags: list[list[int]] = []
        for i, value in enumerate(column):
            try:
                bag = {self._row(table, i, item): None for item in feature.items(value)} if several else {}
                bag.pop(-1, None)
                bags.append([*bag] or [self._row(table, i, None if several else as_key(value))])
            except InputError as error:
                if bad is None:
                    raise
                bad[i] = error
                bags.append([-1])
        if not several:
            return np.array(bags, np.int32).reshape(len(bags))
        out = np.full((len(bags), max([self.width, *map(len, bags)])), -1, np.int32)
        for i, rows in enumerate(bags):
            out[i, : len(rows)] = rows
        return out

    def _row(self, table: Table, row: int, item: str | None) -> int:
        """The embedding row of an item, None where there is none; -1 where it is ignored."""
        assert not isinstance(self.feature, Numeric)
        known = self._row_of.get(item)
        if known is not None:
            return known
        policy = self.feature.missing if item is None else self.feature.unknown
        if isinstance(policy, As):
            known = self._row_of.get(as_key(policy.value))
            if known is not None:
                return known
        elif policy == "extra-row":
            extra = self.missing_row if item is None else self.unknown_row
            assert extra is not None
            return extra
        elif policy == "ignore":
            return -1
        raise table.error(row, self.feature.column, self.allowed())

    def blank(self, count: int) -> Float32[np.ndarray, "n d"] | Int32[np.ndarray, " n"] | Int32[np.ndarray, "n m"]:
        """An array of the shape and type that `encode` gives."""
        if isinstance(self.feature, Numeric):
            return np.zeros((count, self.input.size), np.float32)
        multiple = isinstance(self.feature, MultiCategorical)
        return np.zeros((count, self.width) if multiple else count, np.int32)

    def learned(self) -> dict[str, Any]:
        """What was learned, as JSON values for `restore`."""
        if isinstance(self.feature, Numeric):
            return {"mean": self.mean, "deviation": self.deviation}
        return {"values": list(self.values), "width": self.width}

    @classmethod
    def restore(cls, feature: Feature, learned: Mapping[str, Any]) -> "FittedFeature":
        """The inverse of `learned`. Raises `KeyError`, `TypeError` or `ValueError` where it is damaged."""
        if isinstance(feature, Numeric):
            mean, deviation = float(learned["mean"]), float(learned["deviation"])
            if not (math.isfinite(mean) and 0 < deviation < math.inf):
                raise ValueError(f"{feature.name}: found the mean {mean} and the deviation {deviation}")
            return cls(feature, mean=mean, deviation=deviation)
        values, width = learned["values"], learned["width"]
        texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
        if not texts or not 0 < len(set(values)) == len(values) or tuple(values) != (feature.values or tuple(values)):
            raise ValueError(f"{feature.name}: found {choices(values)}; allowed: different texts, those of the schema")
        if type(width) is not int or width < 1:
            raise ValueError(f"{feature.name}: found the width {width!r}; allowed: 1 or more")
        return cls._of(feature, tuple(values), width)


@dataclass(frozen=True)
class FeatureSpace:
    """The fitted features of one side, in the order in which its tower concatenates them."""

    features: tuple[FittedFeature, ...]

    @classmethod
    def fit(cls, features: Sequence[Feature], table: Table, rows: Sequence[int] | None = None) -> "FeatureSpace":
        """Learns each feature from the given rows, by default all. Raises `InputError`."""
        chosen = range(len(table)) if rows is None else rows
        return cls(tuple(FittedFeature.fit(feature, table, chosen) for feature in features))

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
        return [fitted.feature.name for fitted in self.features]

    @property
    def inputs(self) -> tuple[TowerInput, ...]:
        """What the tower needs to know of each feature."""
        return tuple(fitted.input for fitted in self.features)

    def blank(self, count: int) -> Features:
        """Arrays of the shapes and types that `encode` gives, filled with zeros."""
        return {fitted.feature.name: fitted.blank(count) for fitted in self.features}

    def encode(self, table: Table) -> Features:
        """The arrays over all rows. Raises `InputError` for a missing column or a value that no policy allows."""
        return {fitted.feature.name: fitted.encode(table) for fitted in self.features}

    def problems(self, table: Table) -> dict[int, InputError]:
        """The first reason for each row that `encode` refuses. Raises `InputError` for a missing column."""
        found: dict[int, InputError] = {}
        for fitted in self.features:
            bad: dict[int, InputError] = {}
            fitted.encode(table, bad)
            found = bad | found
        return dict(sorted(found.items()))


def unusable_values(features: Sequence[Feature], table: Table) -> dict[int, InputError]:
    """The rows with a value that is refused whatever the other rows hold, each with its first reason.

    Refused are values out of bounds, unseen or missing where the policy is "error", and lists or objects where one
    value belongs. A learned vocabulary is that of all rows here. Columns that the table lacks are ignored.
    """
    found: dict[int, InputError] = {}
    for feature in features:
        if feature.column not in table.columns:
            continue
        bad: dict[int, InputError] = {}
        if isinstance(feature, Numeric):
            read = _numbers(feature, table, range(len(table)), bad)
            # Far beyond any number that is worth standardising, and its square is still finite.
            _refuse_large(feature, table, read, 1e100 if feature.standardise else _LARGEST, bad)
        else:
            nested = _nested_values(feature, table)
            rest = [row for row in range(len(table)) if row not in nested]
            items = (item for row in rest for item in feature.items(table.columns[feature.column][row]))
            values = feature.values or tuple(dict.fromkeys(feature.aliases.get(item, item) for item in items))
            if values:  # an empty vocabulary is refused by training
                FittedFeature(feature, values).encode(table, bad)
            bad |= nested
        found = bad | found
    return dict(sorted(found.items()))


def _nested_values(feature: Categorical, table: Table) -> dict[int, InputError]:
    several = isinstance(feature, MultiCategorical)
    allowed = "one value, a text or a number" if not several else "a text, a number, or a list of such"
    bad: dict[int, InputError] = {}
    for row, value in enumerate(table.columns[feature.column]):
        if not is_nested(value):
            continue
        if not (several and isinstance(value, list | tuple | np.ndarray)) or any(map(is_nested, value)):
            bad[row] = table.error(row, feature.column, allowed)
    return bad


def _refuse_large(
    feature: Numeric, table: Table, numbers: Iterable[float | None], largest: float, bad: dict[int, InputError] | None
) -> None:
    for row, number in enumerate(numbers):
        if number is not None and abs(number) > largest:
            error = table.error(row, feature.column, f"a number from {-largest:g} to {largest:g} once scaled")
            if bad is None:
                raise error
            bad.setdefault(row, error)


def combinations(space: FeatureSpace, features: Features) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " n"]]:
    """The different combinations of features: the first row of each, and the combination of each of the n rows.

    Rows that a tower cannot tell apart are one combination; the order of several values does not matter.
    """
    codes = []
    for name, kind, _ in space.inputs:
        column = features[name].reshape(len(features[name]), -1)
        values = np.sort(column, axis=1) if kind == "multi-categorical" else column
        codes.append(np.unique(values, axis=0, return_inverse=True)[1].reshape(-1))
    _, first, combination = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    return first, combination.reshape(-1)


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


def _numbers(
    feature: Numeric, table: Table, rows: Iterable[int], bad: dict[int, InputError] | None = None
) -> list[float | None]:
    """The scaled numbers of these rows, None where they are missing; see `FittedFeature.encode`."""
    out: list[float | None] = []
    low, high = feature.clip or (-math.inf, math.inf)
    for row in rows:
        try:
            number = _number(feature, table, row)
        except InputError as error:
            if bad is None:
                raise
            bad[row], number = error, None
        out.append(None if number is None else min(max(number / feature.scale, low), high))
    return out


def _number(feature: Numeric, table: Table, row: int) -> float | None:
    """The value as a number within the feature's bounds; None where it may be missing and is."""
    value = table.column(feature.column)[row]
    if as_key(value) is not None:
        number = parse_number(value)
        if number is not None and feature.minimum <= number <= feature.maximum:
            return number
        if isinstance(feature.unknown, As):
            return float(feature.unknown.value)
        if feature.unknown == "error":
            raise table.error(row, feature.column, FittedFeature(feature).allowed())
    if isinstance(feature.missing, As):
        return float(feature.missing.value)
    if feature.missing == "error":
        raise table.error(row, feature.column, FittedFeature(feature).allowed())
    return None
