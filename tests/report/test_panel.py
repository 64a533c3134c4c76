"""The panel computes what Python computes, of every product and for any dataset; and in a browser, its widgets work."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import RECIPES, write_mall
from pages import page_of

from recsys_jax import InputError, Recommender, fit, load_model
from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import Table
from recsys_jax.models.basis import Average, knots_of
from recsys_jax.models.towers import TwoTower
from recsys_jax.models.trained import TrainedModel
from recsys_jax.report.labels import labels
from recsys_jax.report.page import _environment
from recsys_jax.report.panel import _floats, _label, page_data, rules_of
from recsys_jax.serving.boosts import read_boosts

SAME = 1e-5
LEARNED = {"kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "error"}
CITY = {**LEARNED, "aliases": {"서울": "Seoul"}}
TAGS = {"kind": "multi-categorical", "values": ["a", "b", "c"], "labels": ["A & B", 'the "b"', "<c>"]}
# Every kind and policy; columns that feed two features, of one kind or of two.
CUSTOMERS = [
    {**CITY, "name": "city", "missing": "extra-row"},
    {**CITY, "name": "place", "column": "city", "missing": {"as": "Jeju"}},
    {**LEARNED, "name": "must"},
    {**TAGS, "name": "likes", "unknown": "ignore", "missing": "ignore"},
    {**TAGS, "name": "hates", "unknown": "error", "missing": {"as": "b"}},
    {**TAGS, "name": "wants", "unknown": "error", "missing": "error"},
    {**TAGS, "name": "knows", "values": "learned", "labels": None, "unknown": "extra-row", "missing": "extra-row"},
    {
        "name": "age",
        "kind": "numeric",
        "standardise": True,
        "min": 1,
        "max": 120,
        "unknown": "error",
        "missing": "flag",
    },
    {"name": "decade", "column": "age", "kind": "numeric", "scale": 10, "clip": [2, 5], "unknown": "error"}
    | {"missing": {"as": 33}},
    {"name": "income", "kind": "numeric", "scale": 1e4, "clip": [0, 4], "unknown": "missing", "missing": {"as": 2e4}},
    {"name": "spent", "kind": "numeric", "standardise": True, "unknown": "error", "missing": "error"},
    {**LEARNED, "name": "size", "missing": "extra-row"},
    {"name": "width", "column": "size", "kind": "numeric", "unknown": "error", "missing": "flag"},
]


HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    """"><img src=x onerror='alert(3)'>""",
    "{name} {total}",
]


@cache
def everything() -> Dataset:
    """Sixty customers and twelve products of whom each cell is drawn; some are empty where that is admitted."""
    schema = {
        "name": "everything",
        "products": {"file": "p", "id": "id", "name": "name", "features": [{**LEARNED, "name": "kind"}]},
        "customers": {"file": "c", "id": "id", "purchases": "bought"},
    }
    features = [{key: value for key, value in one.items() if value is not None} for one in CUSTOMERS]
    schema["customers"]["features"] = features
    rng = np.random.default_rng(0)

    def maybe(value: object) -> object:
        return None if rng.random() < 0.2 else value

    def tags() -> list[str]:
        return [one for one in "abc" if rng.random() < 0.5]

    people = [
        {"id": f"c{n}", "bought": [f"p{rng.integers(12)}"], "must": str(rng.choice(["x", "y"]))}
        | {"city": maybe(str(rng.choice(["Seoul", "Busan", "Jeju"]))), "likes": tags(), "hates": tags()}
        | {"wants": ["a", *tags()], "knows": tags(), "age": maybe(float(rng.uniform(10, 80)))}
        | {"income": maybe(float(rng.uniform(0, 6e4))), "spent": float(rng.normal(0, 300))}
        | {"size": maybe(int(rng.choice([36, 38, 40])))}
        for n in range(60)
    ]
    names = HOSTILE + [f"Product {n}" for n in range(len(HOSTILE), 12)]
    products = [{"id": f"p{n}", "name": name, "kind": "uvw"[n % 3]} for n, name in enumerate(names)]
    ids = [one["id"] for one in products]
    return assemble(Schema.parse(schema, "s"), Table.of(products, "p"), ids, Table.of(people, "c"), Path())


RULES = {
    "mall": """
        [[boost]]
        customer = { skin_type = "dry" }
        product = { category = "Skincare" }
        add = 0.3
        [[boost]]
        customer = { gender = "F", age = { min = 30, max = 60 } }
        product = { price = { max = 30000 } }
        add = -0.25
        [[boost]]
        name = "spring"
        product = { brand = "Isul" }
        add = 0.1
        [[boost]]
        name = "spring"
        customer = { skin_concern = ["gift", "moisture"] }
        add = 0.05""",
    "films": """
        [[boost]]
        customer = { likes = ["Drama", "Comedy"] }
        product = { genres = "Crime" }
        add = 0.5
        [[boost]]
        customer = { country = "Korea", age = { max = 40 } }
        product = { film = ["f4", "f5"] }
        add = 1""",
    "everything": """
        [[boost]]
        customer = { hates = ["b", "<c>"], size = 38, width = { min = 37 } }
        product = { kind = ["u", "v"] }
        add = 0.2
        [[boost]]
        customer = { age = { min = 20 }, decade = { max = 50 }, place = "서울" }
        add = -0.5
        [[boost]]
        name = "__proto__<b>"
        customer = { spent = { max = 0 } }
        product = { kind = "w" }
        add = 0.125""",
}


@pytest.fixture(scope="session")
def recommender_of(model_of, tmp_path_factory) -> Callable[[str, str], Recommender]:
    """The recommender of a shop by a recipe, with the shop's rules."""

    @cache
    def make(shop: str, recipe: str) -> Recommender:
        model = fit(everything(), RECIPES[recipe]) if shop == "everything" else model_of(shop, recipe)
        path = tmp_path_factory.mktemp("rules") / "boosts.toml"
        path.write_text(RULES[shop], encoding="utf-8")
        known = model.customers, model.products, {model.schema.products.id: model.product_ids}
        return Recommender(model, read_boosts(path, *known))

    return make


LISTS = """([data, customers]) => {
  const model = new recsysPanel.Model(data);
  return customers.map((stated) => {
    const all = recsysPanel.ordered(model.standing(stated));
    const reasons = model.reasons(stated, all.map((one) => one.row));
    return all.map(({ product, score, popularity, boost, boosts }, at) => {
      const why = reasons[at].map(({ kind, name, adds }) => [kind, name, adds]);
      return [product[0], score, popularity, boost, [...boosts], why];
    });
  });
}"""
IN_NODE = """
const { script, asked } = JSON.parse(require("fs").readFileSync(0, "utf8"));
require("vm").runInThisContext(script);
console.log(JSON.stringify((%s)(asked)));
"""


@pytest.fixture
def in_javascript(request) -> Callable[[dict, list[list]], list[list[list]]]:
    """By customer all products, best first: id, score, popularity, boost, boosts, reasons; as the page computes them.

    In Node, where it is installed, else in a browser.
    """
    script = files("recsys_jax.report").joinpath("panel.js").read_text("utf-8")
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        page = request.getfixturevalue("chromium").new_page()
        page.add_script_tag(content=script)
        return lambda *asked: page.evaluate(LISTS, asked)

    def run(*asked: object) -> list[list[list]]:
        told = json.dumps({"script": script, "asked": asked})
        command = [node, "-e", IN_NODE % LISTS]
        done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def drawn(recommender: Recommender, data: dict, count: int) -> tuple[list[dict], list[list]]:
    """Customers as Python is told of them, in any spelling that it understands, and the same as widgets state them."""
    rng, space = np.random.default_rng(1), recommender.model.customers
    told, stated = [], []
    for _ in range(count):
        told.append({})
        stated.append([])
        for field in data["fields"]:
            fitted = next(one for one in space if one.feature.column == field["name"])

            def spelt(at: int, fitted=fitted, field=field) -> str:
                value = next(one for one in fitted.values if fitted.label(one) == field["options"][at])
                others = [text for text, meant in fitted.feature.meanings.items() if meant == value]
                return str(rng.choice([value, *others]))

            low, high = field.get("bounds", (None, None))
            usual = field["usual"] or 0
            if field["open"] and rng.random() < 0.25:
                value, choice = None, None
            elif field["kind"] == "one":
                choice = int(rng.integers(len(field["options"])))
                value = spelt(choice)
            elif field["kind"] == "several":
                least = 0 if field["open"] else 1
                size = rng.integers(least, len(field["options"]) + 1)
                choice = rng.permutation(len(field["options"]))[:size].tolist()
                value = [spelt(at) for at in choice]
            else:
                spread = 30 * field["step"]
                number = rng.normal(usual, spread) if rng.random() < 0.8 else rng.choice([low or usual, high or usual])
                choice = value = float(np.clip(number, low, high))
            told[-1][field["name"]] = value
            stated[-1].append(choice)
    return told, stated


def summed(reasons: list) -> dict[tuple, float]:
    """What each reason adds; that of two rules of one name together."""
    found: dict[tuple, float] = {}
    for kind, name, adds in reasons:
        found[kind, name] = found.get((kind, name), 0.0) + adds
    return found


def require_same(recommender: Recommender, found: list[list[list]], told: list[dict]) -> None:
    """That each customer's list is Python's: every product, its numbers, and the order of the first ten."""
    unit = recommender.model.popularity.scale or 1.0  # of reasons, in scores, which are the same to SAME
    for own, attributes in zip(found, told, strict=True):
        wanted = recommender.recommend(attributes=attributes, top_n=len(own), explain=True)
        by_id = {one["product_id"]: one for one in wanted}
        assert {one[0] for one in own} == set(by_id)
        for product_id, *numbers, boosts, reasons in own:
            one = by_id[product_id]
            wanted_reasons = [(why["kind"], why["name"] or "", why["adds"]) for why in one["reasons"]]
            mine, pythons = summed(reasons), summed(wanted_reasons)
            for key in mine | pythons:  # what adds nothing may be left out
                assert mine.get(key, 0.0) == pytest.approx(pythons.get(key, 0.0), abs=SAME / unit)
            np.testing.assert_allclose(numbers, [one["score"], one["popularity"], one["boost"]], rtol=0, atol=SAME)
            assert dict(boosts) == pytest.approx(one["boosts"], abs=1e-12)
        assert [one[0] for one in own[:10]] == [one["product_id"] for one in wanted[:10]]


@pytest.mark.parametrize("shop", RULES)
def test_every_score_is_pythons(recommender_of, in_javascript, recipe, shop):
    recommender = recommender_of(shop, recipe)
    data = page_data(recommender.model, recommender.boosts)
    told, stated = drawn(recommender, data, 100)
    found = in_javascript(data, stated)
    require_same(recommender, found, told)
    boosted = {name for own in found for *_, boosts, _ in own for name, _ in boosts}
    assert boosted == {rule.name for rule in recommender.boosts}
    assert any(not boosts for own in found for *_, boosts, _ in own)


def with_both_paths(model: TrainedModel) -> TrainedModel:
    """The model with a wide and a deep path in its towers, as none is trained today; every weight is drawn."""
    module = TwoTower(model.customers.inputs, model.products.inputs, wide_dim=5)
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        drawn = rng.uniform(0.1, 1.5, leaf.shape).astype(np.float32) - np.float32(0.05)
        return np.sort(drawn) if "knots" in str(path) else drawn * 8 if "radius" in str(path) else drawn

    shapes = module.shapes(model.customers.blank(1), model.products.blank(1))
    vectors = rng.normal(size=(len(model.product_ids), 5 + module.output_dim + 2)).astype(np.float32)
    vectors[:, -2] = 0.0  # a customer's number; it meets none of a product's
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    average = Average.uniform(model.customers, knots_of(variables["params"]["customer"]["wide"]))
    return replace(model, variables=variables, product_embeddings=vectors, average=average)


@pytest.mark.parametrize("shop", ["mall", "everything"])
def test_a_wide_and_a_deep_path_together(recommender_of, in_javascript, shop):
    former = recommender_of(shop, "wide")
    recommender = Recommender(with_both_paths(former.model), former.boosts)
    data = page_data(recommender.model, recommender.boosts)
    told, stated = drawn(recommender, data, 50)
    require_same(recommender, in_javascript(data, stated), told)


@pytest.mark.parametrize("name", ["offset", "age_emb"])
def test_a_weight_that_is_not_finite_is_refused(recommender_of, name):
    model = recommender_of("mall", "wide").model

    def spoilt(path, leaf):
        return np.full_like(leaf, np.nan) if "customer" in str(path) and name in str(path) else leaf

    with pytest.raises(InputError, match="not finite"):
        page_data(replace(model, variables=jax.tree_util.tree_map_with_path(spoilt, model.variables)))


# In a browser: what is chosen there, by mouse or by keyboard, leads to the list that Python gives.

DOCUMENT = """<!doctype html><html lang="{{ language }}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>{{ inline("page.css") }}{{ inline("panel.css") }}</style><main>{% include "panel.html" %}</main>
<script type="application/json" id="panel-data">{{ panel | as_json }}</script><script>{{ inline("panel.js") }}</script>
"""


@pytest.fixture
def opened(browse, tmp_path):
    """Opens pages that are given as texts."""
    with ExitStack() as pages:

        def open_(text, *arguments, **options):
            path = tmp_path / f"{len(text)}.html"
            path.write_text(text, "utf-8")
            return pages.enter_context(browse(path, *arguments, **options))

        yield open_


@pytest.fixture
def panel(opened, recommender_of):
    """Opens the panel of a shop by a recipe: the page, and the recommender."""

    def open_panel(shop, recipe="wide", language="en", width=1280, rules=True, **options):
        recommender = recommender_of(shop, recipe)
        boosts = recommender.boosts if rules else ()
        data = page_data(recommender.model, boosts, language=language, **options)
        template = _environment().from_string(DOCUMENT)
        return opened(template.render(language=language, panel=data, t=labels(language)), width), recommender

    return open_panel


def names(page):
    return page.locator(".try-product b").all_inner_texts()


def numbers(page):
    """What the list says of each product in figures: score, popularity, rules."""
    return [" ".join(line.split()) for line in page.locator(".try-parts").all_inner_texts()]


def chosen(page, label):
    return page.get_by_label(label).locator("option:checked").inner_text()


def wanted(recommender, top_n=10, **request):
    """The names and figures of Python's list, as the page writes them."""
    found = recommender.recommend(top_n=top_n, **request)

    def told(one):
        said = [f"score {one['score']:.3f}"]
        said += [f"popularity {one['popularity']:+.3f}"] * bool(one["popularity"])
        said += [f"{name} {adds:+.3f}" for name, adds in one["boosts"].items()]
        return " ".join(said).replace(" -", " −").replace("+0.000", "0.000").replace("−0.000", "0.000")

    return [one["name"] or one["product_id"] for one in found], [told(one) for one in found]


def test_what_is_chosen_decides_the_list(panel):
    page, recommender = panel("mall")
    page.get_by_label("skin type").select_option("oily")
    page.get_by_label("skin concern").select_option("gift")
    page.get_by_label("gender").select_option("F")
    page.get_by_label("age").fill("41.5")
    oily = {"skin_type": "oily", "skin_concern": "gift", "gender": "F", "age": 41.5}
    assert (names(page), numbers(page)) == wanted(recommender, **oily)
    page.get_by_label("skin type").select_option("dry")
    dry = oily | {"skin_type": "dry"}
    assert (names(page), numbers(page)) == wanted(recommender, **dry) != wanted(recommender, **oily)


def test_several_values_and_what_is_not_stated(panel):
    page, recommender = panel("films", "deep-infonce")
    page.get_by_label("Drama").check()
    page.get_by_label("Comedy").check()
    page.get_by_label("country").select_option("not stated")
    page.get_by_label("age").fill("")
    chosen = [box for box in page.locator(".try-boxes label").all() if box.locator("input").is_checked()]
    likes = [box.inner_text() for box in chosen]
    assert {"Drama", "Comedy"} <= set(likes)
    assert (names(page), numbers(page)) == wanted(recommender, favourite_genres=likes)
    for box in chosen:
        box.locator("input").uncheck()
    assert (names(page), numbers(page)) == wanted(recommender)


def test_a_product_is_left_out_and_brought_back(panel):
    page, _ = panel("mall")
    page.get_by_label("How many").fill("4")
    before = names(page)
    assert len(before) == 4
    page.get_by_role("button", name=f"Leave out {before[1]}").click()
    after = names(page)
    assert (len(after), after[:3]) == (4, [before[0], *before[2:]])
    page.get_by_role("button", name=f"Leave out {before[0]}").click()
    assert before[0] not in names(page)
    page.get_by_role("button", name=f"Bring back {before[1]}").click()
    assert names(page)[0] == before[1]
    page.get_by_role("button", name="Start again").click()
    assert names(page)[:4] == before


def test_the_shops_rules_can_be_put_aside(panel):
    page, recommender = panel("mall")
    plain = Recommender(recommender.model)
    page.get_by_label("skin type").select_option("dry")
    page.get_by_label("age").fill("35")
    stated = {name: chosen(page, name.replace("_", " ")) for name in ("skin_type", "skin_concern", "gender")}
    assert (names(page), numbers(page)) == wanted(recommender, **stated, age=35)
    page.get_by_label("Apply the shop's rules").uncheck()
    assert (names(page), numbers(page)) == wanted(plain, **stated, age=35)
    assert "rule" not in page.locator(".try-list").inner_text()


def test_the_length_of_the_list(panel):
    page, recommender = panel("mall")
    assert len(names(page)) == len(recommender.product_ids)
    assert page.get_by_role("status").inner_text() == "The best 8 of 8 products"
    for length in ("1", "5"):
        page.get_by_label("How many").fill(length)
        assert len(names(page)) == int(length)
    for refused in ("", "0", "9", "-3"):
        page.get_by_label("How many").fill(refused)
        assert page.get_by_text("Please enter a number from 1 to 8.").is_visible()
        assert len(names(page)) == 5
    page.get_by_label("How many").fill("2")
    assert not page.get_by_text("Please enter").is_visible()
    assert len(names(page)) == 2


def test_a_number_that_is_not_allowed_is_told_and_changes_nothing(panel):
    page, _ = panel("mall")
    age, before = page.get_by_label("age"), numbers(page)
    for refused in ("", "0.5", "121", "-1", "1e300"):
        age.fill(refused)
        assert page.get_by_text("Please enter a number from 1 to 120.").is_visible()
        assert age.get_attribute("aria-invalid") == "true"
        assert numbers(page) == before
    age.fill("120")
    assert age.get_attribute("aria-invalid") == "false"
    assert numbers(page) != before


def test_what_must_be_stated_is_asked_for(panel):
    page, _ = panel("everything")
    wants = page.get_by_role("group", name="wants")
    assert "not stated" not in page.get_by_label("must").inner_text()
    assert "not stated" in page.get_by_label("city").inner_text()
    for box in wants.get_by_role("checkbox").all():
        box.uncheck()
    assert wants.get_by_text("Please choose at least one.").is_visible()
    wants.get_by_label("<c>").check()
    assert not page.get_by_text("Please choose").is_visible()


def test_by_keyboard_alone(panel):
    page, recommender = panel("mall")

    def focused():
        return page.evaluate("document.activeElement.ariaLabel || document.activeElement.labels?.[0]?.innerText")

    def until(name):
        for _ in range(60):
            page.keyboard.press("Tab")
            if focused() == name:
                return
        raise AssertionError(f"Tab never leads to {name}")

    until("skin type")
    page.keyboard.type("oily")
    until("gender")
    page.keyboard.type("M")
    until("age")
    page.keyboard.press("Control+a")
    page.keyboard.type("60")
    page.keyboard.press("Enter")  # nothing is sent
    until("How many")
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    stated = {"skin_type": "oily", "skin_concern": chosen(page, "skin concern"), "gender": "M", "age": 60}
    first, *_ = expected = wanted(recommender, top_n=4, **stated)[0]
    assert names(page) == expected[:3]
    until(f"Leave out {first}")
    page.keyboard.press("Enter")
    assert names(page) == expected[1:]
    assert focused() == f"Leave out {expected[1]}"  # so that the next one can go as well
    until(f"Bring back {first}")
    page.keyboard.press("Space")
    assert names(page) == expected[:3]
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_reasons_are_shown_and_said(panel):
    page, recommender = panel("mall")
    page.get_by_label("age").fill("33")
    stated = {name: chosen(page, name.replace("_", " ")) for name in ("skin_type", "skin_concern", "gender")}
    reasons = recommender.recommend(**stated, age=33, top_n=8, explain=True)[0]["reasons"]
    shown = [one for one in reasons if abs(one["adds"]) >= 0.005]
    lines = page.locator(".try-why").first.locator("dd b").all_inner_texts()
    assert lines == [f"{one['adds']:+.2f}".replace("-", "−") for one in shown]
    words = page.locator(".try-why").first.locator("dt").all_inner_texts()
    assert {word for word in words if word.startswith("age")} <= {"age 33"}
    assert page.locator(".try-why[open]").count() == 1
    page.locator(".try-why summary").nth(2).click()
    page.get_by_label("age").fill("34")  # the list is new, and what was opened stays open
    assert page.locator(".try-why[open]").count() == 2


@pytest.mark.parametrize(
    ("language", "words"), [("en", ("popular", "seldom bought")), ("ko", ("많이 팔리는 편", "적게 팔리는 편"))]
)
def test_what_popularity_adds_is_told_apart_from_the_value(opened, recommender_of, language, words):
    """After a colon, so that a price is never what is "seldom"; prices are written as such, years as years."""
    data = page_data(recommender_of("mall", "wide").model, language=language)
    count = len(data["products"])
    adds = _floats(np.where(np.arange(count) % 2, 1, -1))
    told = {"price": [1900.0, 57900.0], "year": [1977.0, None], "stock": [57900.0, 1.5]}
    data["popular"] = [{"name": name, "label": name, "isPrice": name == "price", "adds": adds} for name in (*told, "")]
    for row, one in enumerate(data["products"]):
        one[5:] = [values[row % 2] for values in told.values()]
    template = _environment().from_string(DOCUMENT)
    page = opened(template.render(language=language, panel=data, t=labels(language)), 1280)
    found = {one for one in page.locator(".try-why dt").all_text_contents() if one.endswith(words)}
    often, seldom = words
    unstated = labels(language)["panel"]["unstated"]
    high = {f"price 57,900: {often}", f"year {unstated}: {often}", f"stock 1.5: {often}", often}
    assert found == high | {f"price 1,900: {seldom}", f"year 1977: {seldom}", f"stock 57,900: {seldom}", seldom}


def test_texts_from_data_are_texts(panel):
    page, _ = panel("everything")
    page.get_by_label("How many").fill("12")
    assert set(HOSTILE) < set(names(page))
    page.get_by_role("button", name=f"Leave out {HOSTILE[2]}").click()
    page.get_by_role("button", name=f"Bring back {HOSTILE[2]}").click()
    for label in ("A & B", 'the "b"', "<c>"):
        page.get_by_role("group", name="likes").get_by_label(label, exact=True).check()
    page.get_by_label("spent").fill("-100000")
    assert page.get_by_text("__proto__<b>", exact=False).first.is_visible()
    assert page.locator("#panel script, #panel img").count() == 0


def test_of_a_large_catalogue_the_most_bought_are_there(panel, recommender_of, in_javascript):
    recommender = recommender_of("mall", "wide")
    model, whole = recommender.model, page_data(recommender.model, recommender.boosts)
    room = len(json.dumps(whole, ensure_ascii=False).encode()) - 300
    page, _ = panel("mall", most_bytes=room)
    data = page_data(model, recommender.boosts, most_bytes=room)
    assert len(json.dumps(data, ensure_ascii=False).encode()) <= room + 100  # each array is padded
    kept = {product[0] for product in data["products"]}
    assert 0 < len(kept) < len(whole["products"]) == data["total"]
    bought = dict(zip(model.product_ids, model.purchases, strict=True))
    assert min(bought[one] for one in kept) >= max(bought[one] for one in set(bought) - kept)
    assert page.get_by_text(f"the {len(kept)} products bought most often, of 8").is_visible()
    _, stated = drawn(recommender, data, 10)
    found = in_javascript(data, stated)
    both = zip(found, in_javascript(whole, stated), strict=True)
    assert all(own == [one for one in all_of_it if one[0] in kept] for own, all_of_it in both)


def test_of_a_large_vocabulary_the_most_frequent_values_are_there(panel, monkeypatch):
    monkeypatch.setattr("recsys_jax.report.panel.MOST_OPTIONS", 2)
    page, _ = panel("mall")
    # Of ten customers three are sensitive, one by another word; two are dry, two oily and two normal: the first is dry.
    assert page.get_by_label("skin type").locator("option").all_inner_texts() == ["dry", "sensitive"]
    assert chosen(page, "skin type") == "sensitive"
    assert page.get_by_text("The 2 most frequent of 5.").is_visible()
    assert not page.get_by_text("most frequent of 2").is_visible()  # of the two values of gender, both are there


def test_in_the_page_of_a_run_with_the_rules_of_the_datasets_folder(opened, tmp_path):
    folder = write_mall(tmp_path / "mall")
    (folder / "boosts.toml").write_text(RULES["mall"], "utf-8")
    text, _ = page_of(folder, tmp_path / "run")
    page = opened(text)
    assert len(names(page)) == 8
    assert page.get_by_text("spring").first.is_visible()
    (folder / "boosts.toml").write_text('[[boost]]\ncustomer = { skin = "dry" }\nadd = 0.1', "utf-8")
    assert page.get_by_label("Apply the shop's rules").is_visible()
    (fault,) = rules_of(folder, load_model(tmp_path / "run"))[1]
    assert "boosts.toml, boost 1, customer: found the feature 'skin'" in fault  # a note in the page, which has no rules


def test_without_rules_none_are_put_aside(panel):
    page, _ = panel("mall", rules=False)
    assert page.get_by_label("Apply the shop's rules").is_hidden()


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("shop", ["mall", "everything"])
def test_nothing_is_wider_than_the_screen(panel, width, shop):
    page, _ = panel(shop, width=width, language="ko")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    small = "[...document.querySelectorAll('#panel :is(select, button, input[type=number])')].map(e => e.offsetHeight)"
    assert min(page.evaluate(small)) >= 44


def test_korean(panel):
    page, _ = panel("everything", language="ko")
    assert page.locator("html").get_attribute("lang") == "ko"
    assert "서울" in page.get_by_label("city").inner_text()
    assert "미입력" in page.get_by_label("city").inner_text()
    assert page.get_by_role("button", name=f"{HOSTILE[0]} 제외").is_visible()


def test_a_typo_that_is_an_alias_is_no_label():
    """On a Korean page an alias stands for a value that is no Korean word, and for no other."""
    city = next(one for one in everything().schema.customers.features if one.name == "city")
    aliases = {"겁성": "건성", "서울": "Seoul"}
    fitted = FittedFeature.fit(replace(city, aliases=aliases), Table("c", {"city": ["겁성", "Seoul"]}))
    assert [_label(fitted, value, "ko") for value in fitted.values] == ["건성", "서울"]
    assert [_label(fitted, value, "en") for value in fitted.values] == ["건성", "Seoul"]
