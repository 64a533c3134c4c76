"""The OpenAPI document, made from the run's schema: what may be stated of a customer, and what is answered."""

import json
import math
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import As, MultiCategorical, Numeric, label_of
from recsys_jax.service.calls import CALLS, FLAGS, Limits, columns
from recsys_jax.serving.recommender import Recommender

Schema = dict[str, Any]
MANY = 500
"""A vocabulary of more values is not enumerated."""
_ID: Schema = {"type": ["string", "number"], "description": "The id of a product."}
_IDS: Schema = {"type": "array", "items": {"type": ["string", "number", "null"]}}
_NOTES = "A sentence on each stated value that the model does not know; absent where it knows them all."
_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_PLAIN: Schema = {"type": ["string", "number", "boolean", "null"]}


def document(rec: Recommender, limits: Limits, fingerprint: str, *, token: bool) -> bytes:
    """OpenAPI 3.1 as JSON."""
    keys = _keys(rec, limits)
    ref = {name: {"$ref": f"#/components/schemas/{name}"} for name in _components(rec)}
    lists = {"type": "array", "items": ref["Product"]}
    answers: dict[str, Schema] = {
        "/recommend": lists,
        "/recommend/batch": {"type": "array", "items": lists},
        "/similar": {"type": "array", "items": ref["Alike"]},
        "/explain": ref["Product"],
        "/customers-like": {"type": "array", "items": ref["Drawn"]},
    }
    paths: dict[str, Schema] = {}
    for path, call in CALLS.items():
        asked: Schema = {
            "type": "object",
            "properties": {name: keys[name] for name in call.keys},
            "additionalProperties": False,
            "required": list(call.required),
        }
        if path == "/recommend/batch":
            asked["properties"]["purchased_products"] = {"type": "array", "items": _IDS, "description": "Of each row."}
        answered = answers[path]
        if call.answer:
            answered = {"type": "object", "properties": {call.answer: answered}, "required": [call.answer]}
        if path.startswith("/recommend"):
            answered["properties"]["notes"] = {"type": "array", "items": _TEXT, "description": _NOTES}
        paths[path] = {
            "post": {
                "summary": call.says,
                "operationId": path.strip("/").replace("/", "-"),
                "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
                "responses": {
                    "200": {"description": "Answered.", "content": {"application/json": {"schema": answered}}},
                    **_refused(token, ("400", "413", "415", "422")),
                },
            }
        }
    kinds = {"/": "text/html", "/health": "application/json", "/metrics": "text/plain", "/openapi.json": None}
    for path, kind in kinds.items():
        shown = {kind or "application/json": {"schema": {"type": "object"} if kind == "application/json" else {}}}
        paths[path] = {
            "get": {
                "summary": _GET[path],
                "operationId": path.strip("/").partition(".")[0] or "report",
                "responses": {
                    "200": {"description": "Answered.", "content": shown},
                    **_refused(token and path != "/health", ()),
                },
            }
        }
        if path == "/health":
            paths[path]["get"]["security"] = []
    secured: Schema = {"security": [{"token": []}]} if token else {}
    components: Schema = {"schemas": _components(rec)}
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    info = {
        "title": f"Recommendations of {rec.model.schema.name}",
        "version": version("recsys_jax"),
        "description": f"The model {fingerprint}.",
    }
    whole = {"openapi": "3.1.0", "info": info, **secured, "paths": paths, "components": components}
    return json.dumps(whole, ensure_ascii=False, indent=1).encode()


_GET = {
    "/": "The report on the run.",
    "/health": "Whether requests are answered, and by which model.",
    "/metrics": "Counters for Prometheus.",
    "/openapi.json": "This document.",
}
_REFUSED = {
    "400": "The body is no JSON.",
    "401": "The token is missing or another.",
    "413": "The body is too large.",
    "415": "The body is said to be something else than JSON in UTF-8.",
    "422": "A sentence: what was found, what is allowed.",
}


def _refused(token: bool, statuses: tuple[str, ...]) -> dict[str, Schema]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refused"}}}
    return {
        status: {"description": _REFUSED[status], "content": content}
        for status in sorted([*statuses, *(["401"] if token else [])])
    }


def _keys(rec: Recommender, limits: Limits) -> dict[str, Schema]:
    """What each key of a request may hold."""
    products = rec.model.schema.products
    found: dict[str, Schema] = {
        "attributes": {"$ref": "#/components/schemas/Attributes"},
        "customers": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/Customer"},
            "maxItems": limits.rows,
        },
        "customer_id": {"type": ["string", "number"], "description": "A known customer: see --dataset, --purchases."},
        "product_id": _ID,
        "purchased_products": _IDS | {"description": "Ids of products that are not recommended."},
        "top_n": {"type": "integer", "minimum": 1, "maximum": limits.top_n, "default": 3},
        "categories": {
            "type": "array",
            "items": {"type": ["string", "number"]},
            "description": "Only products of these categories.",
        },
        "available": _IDS | {"description": "Only products with these ids."},
        "diversity": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0,
            "description": "From 0, the best products, to 1: each as unlike those before it as can be.",
        },
        "at_most": {
            "type": "object",
            "properties": {name: {"type": "integer", "minimum": 1} for name in rec.columns},
            "additionalProperties": False,
            "description": "How many products with the same value a list has at most.",
        },
        "pinned": _IDS | {"description": "Ids of products that come first."},
    }
    says = {
        "strict": "Whether an id that no product has is refused, and a value that the model does not know.",
        "standing": "Whether to tell where each product stands among all.",
        "explain": "Whether to tell why each is recommended.",
    }
    found |= {name: {"type": "boolean", "default": False, "description": says[name]} for name in FLAGS}
    if products.category is not None and 0 < len(rec.categories) <= MANY:
        found["categories"]["items"] = {"enum": list(rec.categories)}
    return found


def _components(rec: Recommender) -> dict[str, Schema]:
    attributes: dict[str, Schema] = {}
    required: dict[str, None] = {}
    for fitted in rec.model.customers:
        column = fitted.feature.column
        one = _attribute(fitted)
        attributes[column] = {"allOf": [attributes[column], one]} if column in attributes else one
        if fitted.feature.missing == "error":
            required[column] = None
    stated = {"type": "object", "properties": attributes, "additionalProperties": False, "required": list(required)}
    known = {name: _IDS | {"description": says} for name, says in columns(rec).items()}
    if rec.history is not None:
        known[rec.model.schema.customers.id] |= {"type": ["string", "number"]}
        known[rec.model.schema.customers.id].pop("items", None)
    product: Schema = {"product_id": _TEXT} | dict.fromkeys(("name", "brand", "category", "price"), _PLAIN)
    reason = {"kind": _TEXT, "name": {"type": ["string", "null"]}, "value": {}, "adds": _NUMBER}
    scored = {
        "score": _NUMBER | {"minimum": 0, "maximum": 1},
        "popularity": _NUMBER,
        "boost": _NUMBER,
        "boosts": {"type": "object", "additionalProperties": _NUMBER},
    }
    optional = {
        "percentile": _NUMBER,
        "times_average": {"type": ["number", "null"]},
        "above_average": _NUMBER,
        "unit": {"enum": ["log-odds", "score"]},
        "reasons": {"type": "array", "items": _object(reason)},
        "because": _TEXT,
    }
    whole = _object(product | scored)
    whole["properties"] = whole["properties"] | optional
    drawn = {"attribute": _TEXT, "value": _PLAIN, "adds": _NUMBER, "share": {"type": ["number", "null"]}}
    drawn["range"] = {"type": ["array", "null"], "items": _NUMBER}
    return {
        "Attributes": stated
        | {"description": "What is known of a customer.", "example": somebody(rec.model.customers)},
        "Customer": stated | {"properties": known | attributes},
        "Product": whole,
        "Alike": _object(product | {"similarity": _NUMBER | {"minimum": -1, "maximum": 1}}),
        "Drawn": _object(drawn),
        "Refused": _object({"error": _TEXT | {"description": "One sentence."}}),
    }


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _attribute(fitted: FittedFeature) -> Schema:
    """What may be stated of an attribute, and what people call it: values, labels and other spellings, or bounds."""
    feature, title = fitted.feature, label_of(fitted.feature.column, [fitted.feature])
    found, told = Schema(), [text for text in dict.fromkeys(feature.label.values()) if text != title]
    nothing = feature.missing != "error"
    if isinstance(feature, Numeric):
        types = ["number", *(["string"] if any(feature.written) else []), *(["null"] if nothing else [])]
        found["type"] = types if types[1:] else "number"
        for key, bound in (("minimum", feature.minimum), ("maximum", feature.maximum)):
            if math.isfinite(bound) and feature.unknown == "error":
                found[key] = bound
        told += [f"{fitted.allowed()}; others count as not known"] if feature.unknown != "error" else []
    else:
        spellings: dict[str, list[str]] = {value: [] for value in fitted.values}
        for other, value in feature.meanings.items():
            spellings.get(value, []).append(other)
        told += [f"{value}: also {', '.join(others)}" for value, others in spellings.items() if others]
        one: Schema = {"type": ["string", "number"]}
        if len(spellings) <= MANY:
            values = [*dict.fromkeys([*spellings, *(one for each in spellings.values() for one in each)])]
            one = {"enum": values} if feature.unknown == "error" else {"anyOf": [{"enum": values}, one]}
        several = [{"type": "array", "items": one}] if isinstance(feature, MultiCategorical) else []
        kinds = [one, *several, *([{"type": "null"}] if nothing else [])]
        found = one if len(kinds) == 1 else {"anyOf": kinds}
        told += ["values that are not listed count as unknown"] if feature.unknown != "error" else []
    if isinstance(feature.missing, As):
        told.append(f"not stated: {feature.missing.value}")
    return found | {"title": title} | ({"description": "; ".join(told)} if told else {})


def example(rec: Recommender, path: str) -> dict[str, Any]:
    """A request of a path that is answered."""
    known = {"attributes": (one := somebody(rec.model.customers)), "customers": [one], "product_id": rec.product_ids[0]}
    return {key: known[key] for key in CALLS[path].keys if key in known}


def somebody(customers: Iterable[FittedFeature]) -> dict[str, Any]:
    """A customer of whom each attribute is stated, to try things with."""
    found: dict[str, Any] = {}
    for fitted in customers:
        if not isinstance(fitted.feature, Numeric):
            found[fitted.feature.column] = fitted.values[0]
            continue
        number = fitted.stated(sum(fitted.likely) / 2)
        whole = float(round(number))
        within = fitted.feature.minimum <= whole <= fitted.feature.maximum
        found[fitted.feature.column] = int(whole) if within else number
    return found
