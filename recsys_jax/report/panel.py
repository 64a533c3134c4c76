"""The panel to try the model in the page: what `panel.js` computes lists from, as JSON has it."""

import base64
import json
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from recsys_jax.config import Language
from recsys_jax.data.features import FeatureSpace, FittedFeature
from recsys_jax.data.schema import As, Categorical, MultiCategorical, Numeric, TowerInput, label_of
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError, require
from recsys_jax.models.single import SingleTower
from recsys_jax.models.trained import TrainedModel
from recsys_jax.serving.boosts import BoostRule, meets, read_boosts
from recsys_jax.serving.catalogue import Catalogue
from recsys_jax.serving.reasons import Explainer

MOST_BYTES = 2_000_000
"""Of a larger catalogue, the page has as many of the most bought products as fit into this, with all else."""
MOST_OPTIONS = 300
"""Of a larger vocabulary, the most frequent values can be chosen."""


def page_data(
    model: TrainedModel, boosts: Sequence[BoostRule] = (), *, language: Language = "en", most_bytes: int = MOST_BYTES
) -> dict[str, Any] | None:
    """What `panel.js` computes lists from; None where an attribute has no value that can be chosen.

    Both paths of the customer tower begin with a sum over attributes: w numbers of the wide path, h of the deep one. Of
    each value that can be chosen the page has what it adds to these w + h, so that vocabularies and policies stay here.
    Arrays are float32, little-endian, as base64. Raises `InputError` for a number that is not finite.
    """
    explainer = Explainer(model, boosts)
    tower = explainer.tower
    columns: dict[str, list[FittedFeature]] = {}
    for fitted in model.customers:
        columns.setdefault(fitted.feature.column, []).append(fitted)
    fields = [_field(name, FeatureSpace(tuple(own)), explainer, language) for name, own in columns.items()]
    if not all(field["open"] or field["options"] or field["kind"] == "number" for field in fields):
        return None
    products = Table("the model's products", model.product_rows)
    vectors = model.product_embeddings, model.product_bias
    catalogue = Catalogue.of(model, boosts, products, model.product_ids, *vectors)
    # Beside a wide path, the last two dimensions meet zeros on the other side.
    width = catalogue.embeddings.shape[1] - (0 if tower.wide is None else 2)
    data = {
        "fields": fields,
        "wide": 0 if tower.wide is None else len(tower.wide.start),
        "start": _floats(np.concatenate([path.start for path in tower.paths])),
        "kernel": tower.deep and _floats(tower.deep.kernel),
        "bias": tower.deep and _floats(tower.deep.bias),
        "scale": float(tower.scale),
        "radius": 0.0 if tower.wide is None else tower.radius,
        "centre": _floats(catalogue.traits.centre[:width]),
        "unit": explainer.unit,
        "divisor": explainer.scale,
        "total": len(catalogue.ids),
    }
    popular = catalogue.traits.popularity
    named, sold = [name for name in popular if name], model.schema.products

    def shown(row: int) -> list[Any]:
        return [*map(_plain, catalogue.shown[row].values()), *(catalogue.traits.told(name, row) for name in named)]

    def of_products(rows: list[int]) -> dict[str, Any]:
        met = [np.packbits(own, bitorder="little") for own in catalogue.meets[rows].T]
        return {
            "products": list(map(shown, rows)),
            "vectors": _floats(catalogue.embeddings[rows, :width]),
            "popularity": _floats(catalogue.bias[rows]),
            "popular": [
                {
                    "name": name,
                    "label": label_of(name, sold.features, language),
                    "isPrice": name == sold.price,
                    "adds": _floats(popular[name][rows]),
                }
                for name in (*named, "")
            ],
            "rules": [
                {"name": rule.name, "add": rule.add, "products": _base64(own)}
                for rule, own in zip(boosts, met, strict=True)
            ],
        }

    # Four bytes of a number are 16 / 3 as base64, and a bit 1 / 6. Ascending, as ties go to the lower index.
    numbers = 16 * (width + 2 + len(named)) / 3 + len(boosts) / 6
    room = most_bytes - _size(data | of_products([]))
    order = np.argsort(-model.purchases, kind="stable")[: max(int(room / numbers), 1)].tolist()
    ends = np.cumsum([_size(shown(row)) + 2 + numbers for row in order])
    return data | of_products(sorted(order[: max(int(np.searchsorted(ends, room, "right")), 1)]))


def rules_of(folder: Path, model: TrainedModel) -> tuple[Sequence[BoostRule], list[str]]:
    """The rules in boosts.toml of a dataset's folder, if it has one; none, and why, where the model cannot use it."""
    path = folder / "boosts.toml"
    known = model.customers, model.products, {model.schema.products.id: model.product_ids}
    try:
        return read_boosts(path, *known) if path.exists() else (), []
    except InputError as error:
        return (), [str(error)]


def _field(column: str, space: FeatureSpace, explainer: Explainer, language: Language) -> dict[str, Any]:
    """A widget for a column, which may feed several features: what can be chosen, and what each choice adds.

    `open`: whether a policy admits that nothing is stated; then that is the last row of what is added, and `assumed`
    what it is taken for, if that is a value. `average`: what
    the average customer's value adds. `rules`: of each boost rule with conditions on the column, the options that meet
    them, or the bounds of numbers that do.
    """
    tower, boosts = explainer.tower, explainer.boosts
    known = [one for one in space if not isinstance(one.feature, Numeric)]
    several = all(isinstance(one.feature, MultiCategorical) for one in space)
    first = next(iter(known or space))
    shares = explainer.average.shares[first.feature.name]
    common = sorted(np.argsort(-shares[: len(first.values)], kind="stable")[:MOST_OPTIONS].tolist())
    values = [first.values[row] for row in common if all(other.canonical(first.values[row]) for other in known)]
    table = Table(column, {column: [*([one] if several else one for one in values), None]}).collecting()
    encoded = space.encode(table)
    good = [row for row in range(len(table)) if row not in (table.problems or {})]
    options = [row for row in good if row < len(values)]
    conditions = [{name: wanted for name, wanted in rule.customer.items() if name in space.names} for rule in boosts]
    rules: list[Any] = [[_bounds(*one) for one in condition.values()] for condition in conditions] if not known else []
    if known:
        rules = [np.flatnonzero(own).tolist() for own in meets(conditions, space, table.select(options)).T]
    field = {
        "name": column,
        "label": label_of(column, [one.feature for one in space], language),
        "kind": "several" if several else "one" if known else "number",
        "open": len(values) in good,
        "assumed": _assumed(first, language),
        "options": [_label(first, values[row], language) for row in options],
        "total": len(first.values),
        "features": [
            {
                "adds": _floats(_adds(tower, one.input, encoded[one.feature.name][good])),
                "average": _floats(np.concatenate([path.mean(one.input, explainer.average) for path in tower.paths])),
            }
            | ({} if known else _reading(tower, one))
            for one in space
        ],
        "rules": {number: rules[number] for number, one in enumerate(conditions) if one},
    }
    if not known:
        return field | _number(space)
    rows = encoded[first.feature.name][options].reshape(len(options), -1)[:, 0]
    usual = int(shares[rows].argmax()) if options else None
    return field | {"usual": [usual] if several and options else usual}


def _adds(tower: SingleTower, one: TowerInput, values: Sequence[Any] | np.ndarray) -> Float32[np.ndarray, "n s"]:
    """What each of n values of a feature adds to the sums with which the paths begin, one after the other."""
    rows = [[np.broadcast_to(path.part(one, value), path.start.shape) for path in tower.paths] for value in values]
    return np.array([np.concatenate(row) for row in rows], np.float32)


def _reading(tower: SingleTower, fitted: FittedFeature) -> dict[str, Any]:
    """How the tower reads a number, and what it adds: in the wide path along a curve, in the deep one in proportion."""
    feature, one = fitted.feature, fitted.input
    assert isinstance(feature, Numeric)
    wide = 0 if tower.wide is None else len(tower.wide.start)
    knots = [] if tower.wide is None else tower.wide.curves[one.name][0]
    places = [np.array([x, 0.0][: one.size], np.float32) for x in (*knots, 1.0)]
    *curve, line = _adds(tower, one, places)
    return {
        "scale": feature.scale,
        "clip": _bounds(*(feature.clip or (-math.inf, math.inf))),
        "mean": fitted.mean if feature.standardise else 0.0,
        "deviation": fitted.deviation if feature.standardise else 1.0,
        "knots": knots,
        "curve": _floats([row[:wide] for row in curve]),
        "line": _floats(line[wide:]),
    }


def _number(space: FeatureSpace) -> dict[str, Any]:
    """The bounds of numbers that all features of the space admit, a usual one, and the steps in which it changes."""
    features = [one.feature for one in space if isinstance(one.feature, Numeric)]
    low, high = max(one.minimum for one in features), min(one.maximum for one in features)
    fitted, scale = next(iter(space)), features[0].scale
    magnitude = math.floor(math.log10(fitted.deviation * scale))
    digits = -max(magnitude - 1, min(magnitude, 0))  # by 1 where the deviation is from 1 to 100
    usual = min(max(round(fitted.mean * scale, digits), low), high)
    return {"bounds": _bounds(low, high), "step": 10.0**-digits, "usual": usual}


def _assumed(fitted: FittedFeature, language: str) -> str | None:
    """What is assumed where nothing is stated; None where that is no value."""
    missing = fitted.feature.missing
    if not isinstance(missing, As):
        return None
    value = None if isinstance(fitted.feature, Numeric) else fitted.canonical(missing.value)
    return str(missing.value) if value is None else _label(fitted, value, language)


def _label(fitted: FittedFeature, value: str, language: str) -> str:
    """What people read for a value; on a Korean page an alias in Hangul, where the label has none."""
    label = fitted.label(value)
    if language == "ko" and isinstance(fitted.feature, Categorical) and not _hangul(label):
        known = (alias for alias, meant in fitted.feature.meanings.items() if meant == value and _hangul(alias))
        return next(known, label)
    return label


def _hangul(text: str) -> bool:
    return any("HANGUL" in unicodedata.name(letter, "") for letter in text)


def _bounds(low: float, high: float) -> list[float | None]:
    """Two bounds as JSON has them, None where there is none."""
    return [bound if math.isfinite(bound) else None for bound in (low, high)]


def _plain(value: object) -> object:
    """What is shown of a product, as JSON has it."""
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _floats(array: Any) -> str:
    """An array of finite numbers as text."""
    numbers = np.asarray(array, "<f4")
    require(bool(np.isfinite(numbers).all()), "the model", "a weight that is not finite", "finite ones")
    return _base64(numbers)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
