"""Why a product is recommended: what each attribute, popularity and each rule adds, in log-odds and in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import As, Numeric, label_of
from recsys_jax.data.tables import Table
from recsys_jax.models.basis import Average, knots_of
from recsys_jax.models.single import SingleTower
from recsys_jax.models.trained import TrainedModel
from recsys_jax.serving.boosts import BoostRule
from recsys_jax.serving.catalogue import Catalogue

ROUNDING = 5e-6
"""What is left of a sum of parts by rounding alone."""
SHOWN, MOST = 0.005, 6
"""What adds less is left out of the words, where it would be 0.00; and no more than so many parts are told there."""


class Explainer:
    """Takes the scores of a model apart.

    What is explained is the sum of score, popularity and boosts, above the mean over the catalogue without boosts. It
    is in log-odds, the sum divided by `popularity.scale`, of recipes whose scores are log-odds; else as it is. An
    attribute's part is the change against the average customer of the training purchases. In the wide path this is
    exact: scores are sums, so all parts add up. In the deep path it is what the attribute changes by itself; how
    attributes act together, beyond that, is the part called "rest". What the average customer likes is "average".
    """

    def __init__(self, model: TrainedModel, boosts: Sequence[BoostRule]) -> None:
        self.model, self.boosts = model, boosts
        knots = knots_of(model.variables["params"]["customer"].get("wide", {}))
        self.average = model.average or Average.uniform(model.customers, knots)
        self.tower = SingleTower(model.customers.inputs, model.variables, self.average)
        self.scale = model.popularity.scale or 1.0
        self.unit = "log-odds" if model.popularity.scale else "score"
        sides = {"attribute": model.schema.customers.features, "popularity": model.schema.products.features}
        self._called = {
            (kind, one.column): label_of(one.column, features) for kind, features in sides.items() for one in features
        }

    def of(
        self, catalogue: Catalogue, table: Table, met: Bool[np.ndarray, " r"], rows: Int[np.ndarray, " k"]
    ) -> list[dict[str, Any]]:
        """Of the products in some rows, to the one customer of a table: `above_average`, `unit`, `reasons`, `because`.

        `reasons` are dicts of `kind` ("attribute", "popularity", "boost", "average" or "rest"), `name`, `value` and
        `adds`, those that add most first, or take most away; `because` says the first of them in words.
        """
        customer, usual, moves = self.tower.changes(self.model.customers.encode(table))
        of_column: dict[str, Any] = {}
        for fitted, move in zip(self.model.customers, moves, strict=True):
            of_column[fitted.feature.column] = of_column.get(fitted.feature.column, 0.0) + move
        told = {one.feature.column: _stated(one, table.columns[one.feature.column][0]) for one in self.model.customers}
        others = {"average": usual, "rest": customer - usual - sum(of_column.values())}
        relative = (catalogue.embeddings[rows] - catalogue.traits.centre) / (2.0 * self.scale)  # (k, d)
        adds = relative @ np.array([*of_column.values(), *others.values()]).T  # (k, f + 2)
        popularity = {name: part[rows] / self.scale for name, part in catalogue.traits.popularity.items()}
        found = []
        for place, row in enumerate(rows.tolist()):
            reasons = [
                _reason("attribute", name, value, added)
                for (name, value), added in zip(told.items(), adds[place, :-2], strict=True)
            ]
            for name, part in popularity.items():
                value = catalogue.traits.told(name, row) if name else None
                reasons.append(_reason("popularity", name or None, value, part[place]))
            for number in np.flatnonzero(met & catalogue.meets[row]).tolist():
                reasons.append(_reason("boost", self.boosts[number].name, None, self.boosts[number].add / self.scale))
            for kind, added in zip(others, adds[place, -2:].tolist(), strict=True):
                if abs(added) >= ROUNDING:
                    reasons.append(_reason(kind, None, None, added))
            reasons = sorted((one for one in reasons if one["adds"]), key=lambda one: -abs(one["adds"]))
            words = [f"{self._words(one)}: {one['adds']:+.2f}" for one in reasons if abs(one["adds"]) >= SHOWN]
            total = sum(one["adds"] for one in reasons)
            because = "; ".join(words[:MOST]) or f"nothing adds or takes away {SHOWN} or more"
            found.append({"above_average": total, "unit": self.unit, "reasons": reasons, "because": because})
        return found

    def drawn(self, catalogue: Catalogue, row: int) -> list[dict[str, Any]]:
        """The values of attributes that a product draws more than the average customer does, in the same unit.

        Dicts of `attribute`, `value`, `adds`, `share`, how many of the training purchases are by customers with it,
        None of numbers and where that is not known, and `range`, None but of numbers. These are tried at their
        knots: neighbours that draw are one range, of which `value` draws most. In the deep path, each is told against
        the mean over the attribute's values, by their shares.
        """
        relative = (catalogue.embeddings[row] - catalogue.traits.centre) / (2.0 * self.scale)
        found: list[dict[str, Any]] = []
        for fitted in self.model.customers:
            number, before = isinstance(fitted.feature, Numeric), None
            tried = self._values(fitted)
            each = np.array([self.tower.of_value(fitted.feature.name, one) @ relative for _, one, _ in tried])
            if self.tower.deep is not None:  # no sum, so all values may lie above the average customer
                weights = self.average.shares[fitted.feature.name][: len(tried)]
                each -= weights @ each / max(weights.sum(), ROUNDING)
            for (value, _, share), adds in zip(tried, each.tolist(), strict=True):
                one: dict[str, Any] = {"attribute": fitted.feature.column, "value": value, "adds": adds, "range": None}
                one |= {"share": share if self.model.average else None}
                if adds < SHOWN:
                    before = None
                elif before is None:
                    found.append(one | ({"range": [value, value]} if number else {}))
                    before = found[-1] if number else None
                else:
                    before["range"][1] = value
                    if adds > before["adds"]:
                        before |= {"value": value, "adds": adds}
        return sorted(found, key=lambda one: -one["adds"])

    def _values(self, fitted: FittedFeature) -> list[tuple[object, Any, float | None]]:
        """The values that a feature is tried at: as people state them, as the tower reads them, and how frequent."""
        name, kind, size = fitted.input
        if kind == "numeric":
            knots = self.average.knots[name]
            return [
                (float(f"{fitted.stated(float(x)):.6g}"), np.array([x, 0.0][:size], np.float32), None) for x in knots
            ]
        shares = self.average.shares[name].tolist()
        rows = [np.int32(row) if kind == "categorical" else np.array([row], np.int32) for row in range(size)]
        known = zip(fitted.values, rows, shares, strict=False)  # unknown and missing values have rows, too
        return [(fitted.label(value), row, share) for value, row, share in known]

    def _words(self, reason: dict[str, Any]) -> str:
        """What adds, in words."""
        kind, name, value = reason["kind"], reason["name"], reason["value"]
        called = self._called.get((kind, name), name)
        if kind == "attribute":
            return f"{called} {'not stated' if value is None else value}"
        if kind == "boost":
            return f"rule {name}"
        if kind in _OTHERS:
            return _OTHERS[kind]
        often = "popular" if reason["adds"] > 0 else "seldom bought"
        return f"{called} {'not stated,' if value is None else value} {often}" if name else often


_OTHERS = {"average": "customers on average", "rest": "attributes acting together"}


def _reason(kind: str, name: str | None, value: object, adds: float) -> dict[str, Any]:
    return {"kind": kind, "name": name, "value": value, "adds": float(adds)}


def _stated(fitted: FittedFeature, value: object) -> object:
    """A value as people read it; where nothing is stated, what it is taken for, or None."""
    told, missing = fitted.told(value), fitted.feature.missing
    return f"{fitted.told(missing.value)} (assumed)" if told is None and isinstance(missing, As) else told
