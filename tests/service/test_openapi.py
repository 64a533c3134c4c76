"""The OpenAPI document: sound, and true: what it allows is answered, and what it does not is refused."""

import json
import math
from typing import Any

import pytest
from asgi import application, ask
from conftest import RECIPES

from recsys_jax import fit, load_dataset, save_model
from recsys_jax.data.schema import Numeric
from recsys_jax.service.calls import CALLS

TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "allOf", "$ref"),
    *("minimum", "maximum", "maxItems", "default", "title", "description", "example"),
}


def resolved(document: dict[str, Any], schema: Any) -> Any:
    if "$ref" not in schema:
        return schema
    assert schema["$ref"].startswith("#/")
    found = document
    for part in schema["$ref"][2:].split("/"):
        found = found[part]
    return found


def schemas(schema: Any):
    """A schema and all in it."""
    assert isinstance(schema, dict), schema
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("allOf", [])]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    for one in inner:
        yield from schemas(one)


def fits(document: dict[str, Any], schema: Any, value: Any) -> bool:
    """Whether JSON Schema allows the value, as far as the document uses it."""
    schema = resolved(document, schema)
    kinds = schema.get("type", list(TYPES))
    kinds = kinds if isinstance(kinds, list) else [kinds]
    kind = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )
    if kind not in kinds and not (kind == "number" and "integer" in kinds and float(value).is_integer()):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if kind == "number" and not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        return False
    if kind == "array":
        ok = len(value) <= schema.get("maxItems", math.inf)
        if not ok or not all(fits(document, schema.get("items", {}), one) for one in value):
            return False
    if kind == "object":
        known, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        if not set(schema.get("required", [])) <= set(value):
            return False
        for name, one in value.items():
            if name not in known and more is False:
                return False
            if not fits(document, known.get(name, more), one):
                return False
    if "anyOf" in schema and not any(fits(document, one, value) for one in schema["anyOf"]):
        return False
    return all(fits(document, one, value) for one in schema.get("allOf", []))


@pytest.fixture(scope="module", params=["mall", "films"])
def app(request, run_of):
    return application(run_of(request.param, "deep-infonce"))


@pytest.fixture(scope="module")
def document(app):
    got = ask(app, "/openapi.json")
    assert got.headers["content-type"] == "application/json"
    return json.loads(got.body)


def test_it_is_sound(document):
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(document["info"])
    assert set(document["paths"]) == {*CALLS, "/", "/health", "/metrics", "/openapi.json"}
    operations, found = [], list(document["components"]["schemas"].values())
    for item in document["paths"].values():
        for operation in item.values():
            operations.append(operation["operationId"])
            assert "200" in operation["responses"]
            for response in operation["responses"].values():
                assert response["description"]
                found += [one["schema"] for one in response["content"].values()]
            if "requestBody" in operation:
                found.append(operation["requestBody"]["content"]["application/json"]["schema"])
    assert len(set(operations)) == len(operations)
    for schema in (each for one in found for each in schemas(one)):
        assert set(schema) <= KEYWORDS
        kinds = schema.get("type", [])
        assert set(kinds if isinstance(kinds, list) else [kinds]) <= TYPES
        assert isinstance(resolved(document, schema), dict)
        assert len(set(map(str, schema.get("enum", [])))) == len(schema.get("enum", []))


def body_of(document, path):
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def answer_of(document, path):
    return document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]


def person_of(document):
    return document["components"]["schemas"]["Attributes"]["example"]


def test_what_is_answered_is_what_it_says(app, document):
    person, first = person_of(document), app.live.now.rec.product_ids[0]
    for path, body in {
        "/recommend": {"attributes": person, "explain": True, "standing": True, "top_n": 8},
        "/recommend/batch": {"customers": [person, person]},
        "/similar": {"product_id": first},
        "/explain": {"product_id": first, "attributes": person},
        "/customers-like": {"product_id": first},
    }.items():
        assert fits(document, body_of(document, path), body)
        got = ask(app, path, body)
        assert got.status == 200, got
        assert fits(document, answer_of(document, path), got.json)
        wrong = ask(app, path, {})
        refused = document["paths"][path]["post"]["responses"]["422"]["content"]["application/json"]["schema"]
        assert wrong.status == 200 or fits(document, refused, wrong.json)
        assert not fits(document, body_of(document, path), {**body, "more": 1})


def test_each_value_that_is_listed_is_understood(app, document):
    """Values, labels and other spellings, a list of several, null; the bounds of numbers, and nothing beyond them."""
    rec, person = app.live.now.rec, person_of(document)
    body = body_of(document, "/recommend")
    for fitted in rec.model.customers:
        feature = fitted.feature
        tried = [None, 10**6, -1, "surely unheard of", True, {"a": 1}, ["x"]]
        if isinstance(feature, Numeric):
            bounds = [one for one in (feature.minimum, feature.maximum) if math.isfinite(one)]
            tried += [*bounds, *(bound + step for bound in bounds for step in (-1, 1))]
        else:
            tried += [*fitted.values, *feature.meanings, list(fitted.values[:2])]
        for value in tried:
            asked = {"attributes": {**person, feature.column: value}}
            if fits(document, body, asked):
                assert ask(app, "/recommend", asked).status == 200, asked
            elif feature.unknown == "error" and not isinstance(value, dict | list | bool):
                assert ask(app, "/recommend", asked).status == 422, asked
            if not isinstance(feature, Numeric) and value in [*fitted.values, *feature.meanings]:
                assert fits(document, body, asked)
        without = {"attributes": {name: one for name, one in person.items() if name != feature.column}}
        assert fits(document, body, without) == (ask(app, "/recommend", without).status == 200)


def test_categories_and_columns_that_are_listed_are_understood(app, document):
    person, asked = person_of(document), body_of(document, "/recommend")["properties"]
    for value in asked["categories"]["items"]["enum"]:
        assert ask(app, "/recommend", {"attributes": person, "categories": [value]}).status == 200
    for name in asked["at_most"]["properties"]:
        assert ask(app, "/recommend", {"attributes": person, "at_most": {name: 1}}).status == 200


def test_other_spellings_are_told(run_of):
    found = json.loads(ask(application(run_of("mall", "deep")), "/openapi.json").body)
    told = found["components"]["schemas"]["Attributes"]["properties"]["skin_type"]
    assert "mature" in told["enum"]
    assert "sensitive: also mature" in told["description"]
    assert told["title"] == "skin type"


def test_labels_are_told(mall):
    toml = mall / "dataset.toml"
    label = 'name = "skin_type"\nlabel = { en = "complexion", ko = "피부 타입" }'
    toml.write_text(toml.read_text("utf-8").replace('name = "skin_type"', label), "utf-8")
    run = mall.parent / "run"
    save_model(fit(load_dataset(mall), RECIPES["wide"]), run)
    found = json.loads(ask(application(run), "/openapi.json").body)
    told = found["components"]["schemas"]["Attributes"]["properties"]["skin_type"]
    assert told["title"] == "complexion"
    assert told["description"].startswith("피부 타입; ")


def test_the_limits_and_the_token(mall_run):
    app = application(mall_run, "0123456789abcdef", rows=5, top_n=7)
    found = json.loads(ask(app, "/openapi.json", headers=[("authorization", "Bearer 0123456789abcdef")]).body)
    assert found["security"] == [{"token": []}]
    assert found["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert found["paths"]["/health"]["get"]["security"] == []
    batch = body_of(found, "/recommend/batch")["properties"]
    assert (batch["customers"]["maxItems"], batch["top_n"]["maximum"]) == (5, 7)
