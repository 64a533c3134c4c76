"""dataset.toml: what is understood, and that each mistake is one sentence saying where, what and what instead."""

import dataclasses
import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FILMS_TOML, MALL_TOML
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.config import DeepConfig, WideConfig
from recsys_jax.data.schema import As, Categorical, MultiCategorical, Numeric, Schema, label_of
from recsys_jax.data.values import as_key
from recsys_jax.errors import InputError

COMMITTED = Path(__file__).parents[2] / "data"
HUGE = "9" * 400  # a whole number that no float holds
ENORMOUS = "9" * 5000  # more digits than Python reads

# (what stands in the file, what replaces its first occurrence, words that the sentence must have)
BROKEN = [
    # the top
    ('name = "mall"', "", ["name", "not given", "a text"]),
    ('name = "mall"', "name = 5", ["name", "5", "a text"]),
    ('name = "mall"', 'name = ""', ["name", "''", "a text"]),
    ('name = "mall"', 'name = "mall"\ncolour = "red"', ["'colour'", "'products'", "'customers'"]),
    ('name = "mall"', 'name = "mall"\ninteractions = 3', ["[interactions]", "3", "table"]),
    ('name = "mall"', 'name = "mall"\npersonas = "p.toml"', ["[personas]", "'p.toml'", "table"]),
    ('name = "mall"', 'name = "mall"\n[personas]', ["[personas]", "catalogue", "not given", "a text"]),
    ('name = "mall"', 'name = "mall"\n[personas]\ncatalogue = "p"\nk = 3', ["[personas]", "'k'", "'catalogue'"]),
    ('name = "mall"', 'name = "mall"\ntraining = "deep"', ["[training]", "'deep'", "table"]),
    ('name = "mall"', 'name = "mall"\n[training]', ["[training]", "recipe", "none", "'deep'", "'wide'"]),
    ('name = "mall"', 'name = "mall"\n[training]\nrecipe = "tall"', ["[training]", "'tall'", "'deep'", "'wide'"]),
    (
        'name = "mall"',
        'name = "mall"\n[training]\nrecipe = "wide"\nepochs = 3',
        ["[training]", "'epochs'", "'wide'", "'item_factors'"],
    ),
    (
        'name = "mall"',
        'name = "mall"\n[training]\nrecipe = "deep"\nepochs = 0',
        ["[training]", "epochs", "0", "1 or more"],
    ),
    # who bought what
    ('purchases = "purchased_product_id"', "", ["[interactions]", "purchases", "neither"]),
    (
        'name = "mall"',
        'name = "mall"\n[interactions]\nfile = "i.csv"\ncustomer = "c"\nproduct = "p"',
        ["[interactions]", "purchases", "both"],
    ),
    ('name = "mall"', 'name = "mall"\n[interactions]\nfile = "i.csv"', ["[interactions]", "customer", "not given"]),
    (
        'name = "mall"',
        'name = "mall"\n[interactions]\nfile = "i.csv"\ncustomer = "c"\nproduct = "p"\nwhen = "t"',
        ["[interactions]", "'when'", "'customer'", "'product'", "'date'"],
    ),
    (
        'name = "mall"',
        'name = "mall"\n[interactions]\nfile = "i.csv"\ncustomer = "c"\nproduct = "p"\ndate = 2024-03-01',
        ["[interactions]", "date", "2024", "a text"],
    ),
    # products and customers
    ('file = "products.json"', "", ["[products]", "file", "not given", "a text"]),
    ('id = "product_id"', "id = 7", ["[products]", "id", "7", "a text"]),
    ('price = "price"', 'price = ["a", "b"]', ["[products]", "price", "['a', 'b']", "a text"]),
    ('reviews = "reviews"', "reviews = true", ["[products]", "reviews", "True", "a text"]),
    ('brand = "brand_name"', 'maker = "brand_name"', ["[products]", "'maker'", "'brand'"]),
    ('file = "customers.json"', "file = false", ["[customers]", "file", "False", "a text"]),
    ('id = "user_id"', "", ["[customers]", "id", "not given"]),
    ('id = "user_id"', 'id = "user_id"\nrepeated = "last"', ["[customers]", "repeated", "last", "'error'", "'first'"]),
    ('id = "user_id"', 'id = "user_id"\nrepeated = ["first"]', ["[customers]", "repeated", "['first']", "'first'"]),
    ('segment = "persona_name"', "segment = 1", ["[customers]", "segment", "1", "a text"]),
    ('segment = "persona_name"', "date = 5", ["[customers]", "date", "5", "a text"]),
    # features
    ('name = "category"\n', "", ["[products]", "feature 1", "name", "not given", "a text"]),
    ('kind = "categorical"', 'kind = "category"', ["feature 1 (category)", "kind", "'category'", "multi-categorical"]),
    ('kind = "categorical"', "", ["feature 1 (category)", "kind", "not given", "'categorical'", "'numeric'"]),
    ('kind = "categorical"', 'kind = ["numeric"]', ["feature 1 (category)", "kind", "['numeric']", "'numeric'"]),
    (
        'kind = "categorical"',
        'kind = "categorical"\nvocabulary = 3',
        ["feature 1 (category)", "'vocabulary'", "values"],
    ),
    ('kind = "categorical"', 'kind = "categorical"\nseparator = "|"', ["feature 1 (category)", "'separator'"]),
    ('kind = "categorical"', 'kind = "categorical"\nscale = 2', ["feature 1 (category)", "'scale'"]),
    ('kind = "categorical"', 'kind = "categorical"\ncolumn = 3', ["feature 1 (category)", "column", "3", "a text"]),
    ('kind = "categorical"', 'kind = "categorical"\nlabel = 3', ["feature 1 (category)", "label", "3", "'en'", "'ko'"]),
    ('kind = "categorical"', 'kind = "categorical"\nlabel = ""', ["feature 1 (category)", "label", "''", "a text"]),
    ('kind = "categorical"', 'kind = "categorical"\nlabel = { kr = "x" }', ["label", "'kr'", "'ko'"]),
    ('kind = "categorical"', 'kind = "categorical"\nlabel = { ko = [] }', ["label", "[]", "a text"]),
    (
        'name = "brand"\ncolumn',
        'name = "category"\ncolumn',
        ["[products]", "'category'", "differ"],
    ),
    # vocabularies
    ("values = [97, 98, 99, 101, 103]", "", ["feature 1", "values", "not given", "learned"]),
    ("values = [97, 98, 99, 101, 103]", "values = []", ["feature 1", "values", "[]", "list"]),
    ("values = [97, 98, 99, 101, 103]", "values = 97", ["feature 1", "values", "97", "list"]),
    ("values = [97, 98, 99, 101, 103]", 'values = "all"', ["feature 1", "values", "'all'", "learned"]),
    ("values = [97, 98, 99, 101, 103]", "values = [97, 97, 98, 99, 101]", ["feature 1", "values", "different"]),
    ("values = [97, 98, 99, 101, 103]", 'values = [97, "97", 98, 99, 101]', ["feature 1", "values", "different"]),
    ("values = [97, 98, 99, 101, 103]", 'values = [97, "", 98, 99, 101]', ["feature 1", "values", "''"]),
    ("values = [97, 98, 99, 101, 103]", "values = [97, nan, 98, 99, 101]", ["feature 1", "values", "nan"]),
    ("values = [97, 98, 99, 101, 103]", "values = [[97], 98, 99, 101, 103]", ["feature 1", "values", "[97]"]),
    ("values = [97, 98, 99, 101, 103]", "values = [{ a = 1 }, 98, 99, 101, 103]", ["feature 1", "values", "'a'"]),
    ("values = [97, 98, 99, 101, 103]", 'values = "learned"', ["feature 1", "labels", "Skincare", "values"]),
    ('"Accessories", "Men"]', '"Accessories"]', ["feature 1", "labels", "'Accessories'"]),
    ('"Accessories", "Men"]', '"Men", "Men"]', ["feature 1", "labels", "'Men', 'Men'", "different"]),
    ("labels = [", "labels = 5 #", ["feature 1", "labels", "5"]),
    ('mature = "sensitive"', 'mature = "dryish"', ["(skin_type)", "'mature'", "'dryish'", "'sensitive'"]),
    ('aliases = { mature = "sensitive", unknown = "normal" }', 'aliases = ["mature"]', ["(skin_type)", "aliases"]),
    ('aliases = { mature = "sensitive", unknown = "normal" }', "aliases = false", ["(skin_type)", "aliases", "False"]),
    ('aliases = { mature = "sensitive", unknown = "normal" }', 'aliases = ""', ["(skin_type)", "aliases", "''"]),
    # policies
    ('unknown = "error"', "", ["feature 1", "unknown", "not given", "'error'", "'extra-row'", "as ="]),
    ('unknown = "error"', 'unknown = "skip"', ["feature 1", "unknown", "'skip'", "'error'", "'extra-row'", "as ="]),
    ('unknown = "error"', 'unknown = "ignore"', ["feature 1", "unknown", "'ignore'", "'extra-row'"]),
    ('unknown = "error"', "unknown = []", ["feature 1", "unknown", "[]", "'extra-row'"]),
    ('unknown = "error"', "unknown = { as = 5 }", ["feature 1", "unknown", "5", "'97'"]),
    ('unknown = "error"', "unknown = { as = [97] }", ["feature 1", "unknown", "[97]"]),
    ('unknown = "error"', "unknown = { like = 97 }", ["feature 1", "unknown", "'like'", "as ="]),
    ('unknown = "error"', "unknown = { as = 97, or = 98 }", ["feature 1", "unknown", "'or'", "as ="]),
    ('missing = "error"', 'missing = "flag"', ["feature 1", "missing", "'flag'", "'extra-row'"]),
    # numbers
    ("scale = 200000", "scale = 0", ["(price)", "scale", "0", "above 0"]),
    ("scale = 200000", "scale = -2", ["(price)", "scale", "-2", "above 0"]),
    ("scale = 200000", 'scale = "2"', ["(price)", "scale", "'2'", "a number"]),
    ("scale = 200000", "scale = true", ["(price)", "scale", "True", "a number"]),
    ("scale = 200000", "scale = nan", ["(price)", "scale", "nan", "a number"]),
    ("scale = 200000", "scale = inf", ["(price)", "scale", "inf", "a number"]),
    ("scale = 200000", f"scale = {HUGE}", ["(price)", "scale", "a number"]),
    ("scale = 200000", 'standardise = "yes"', ["(price)", "standardise", "'yes'", "true or false"]),
    ("scale = 200000", "standardise = 0", ["(price)", "standardise", "0", "true or false"]),
    ("scale = 200000", 'values = "learned"', ["(price)", "'values'", "'scale'"]),
    ("clip = [0, 1]", "clip = [1, 0]", ["(price)", "clip", "[1, 0]", "lower first"]),
    ("clip = [0, 1]", "clip = [1, 1]", ["(price)", "clip", "[1, 1]", "lower first"]),
    ("clip = [0, 1]", "clip = [0]", ["(price)", "clip", "[0]", "two numbers"]),
    ("clip = [0, 1]", 'clip = "0-1"', ["(price)", "clip", "'0-1'", "two numbers"]),
    ("clip = [0, 1]", 'clip = ["a", "b"]', ["(price)", "clip", "'a'", "two numbers"]),
    ("clip = [0, 1]", "clip = [0, nan]", ["(price)", "clip", "nan", "two numbers"]),
    ("clip = [0, 1]", "clip = [false, true]", ["(price)", "clip", "True", "two numbers"]),
    ("clip = [0, 1]", f"clip = [0, {HUGE}]", ["(price)", "clip", "two numbers"]),
    ("min = 0", 'min = "0"', ["(price)", "min", "'0'", "a number"]),
    ("min = 0", "min = nan", ["(price)", "min", "nan", "a number"]),
    ("min = 0", f"max = {HUGE}", ["(price)", "max", "a number"]),
    ("min = 1\nmax = 120", "min = 120\nmax = 1", ["(age)", "min", "120", "max", "1"]),
    ("min = 1\nmax = 120", "min = 120\nmax = 120", ["(age)", "min", "120", "max"]),
    (
        'min = 1\nmax = 120\nunknown = "error"',
        'unknown = "extra-row"',
        ["(age)", "unknown", "'extra-row'", "'missing'"],
    ),
    ('max = 120\nunknown = "error"', "max = 120\nunknown = { as = 500 }", ["(age)", "unknown", "500", "1", "120"]),
    ('max = 120\nunknown = "error"', 'max = 120\nunknown = { as = "30" }', ["(age)", "unknown", "'30'", "a number"]),
    ('max = 120\nunknown = "error"', "max = 120\nunknown = { as = nan }", ["(age)", "unknown", "nan", "a number"]),
    ('max = 120\nunknown = "error"', "max = 120\nunknown = { as = true }", ["(age)", "unknown", "True", "a number"]),
    ('min = 0\nunknown = "error"', f"unknown = {{ as = {HUGE} }}", ["(price)", "unknown", "a number"]),
    # dates
    *(
        ('segment = "persona_name"', f"{lines}date_format = {form}", ["[customers]", "date_format", "'%d.%m.%Y'"])
        for lines, form in [("", '"%d.%m.%Y"'), *(('date = "when"\n', one) for one in ('"%m.%Y"', '"%Q"', '"today"'))]
    ),
    # no TOML at all
    ('name = "mall"', "name = mall", ["TOML", "line 1"]),
    ('name = "mall"', 'name = "mall"\nname = "mall"', ["TOML", "line 2"]),
    ("scale = 200000", f"scale = {ENORMOUS}", ["TOML"]),
    ('name = "mall"', f"name = {'[' * 20000}", ["TOML"]),
]


def sentence(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        Schema.read(path)
    return str(caught.value)


@pytest.mark.parametrize(("old", "new", "words"), BROKEN, ids=range(len(BROKEN)))
def test_each_mistake_is_a_sentence(mall, old, new, words):
    path = mall / "dataset.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    said = sentence(path)
    for word in [str(path), *words]:
        assert word in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["name", "not given"]),
        ('name = "x"', ["products", "not given", "[products]"]),
        ('name = "x"\nproducts = 3', ["[products]", "3", "table"]),
        ('name = "x"\nproducts = [1]', ["[products]", "[1]", "table"]),
        (
            'name = "x"\n[products]\nfile = "p"\nid = "i"\nfeatures = []',
            ["[products]", "features", "[]", "[[features]]"],
        ),
        ('name = "x"\n[products]\nfile = "p"\nid = "i"', ["[products]", "features", "not given", "[[features]]"]),
        ('name = "x"\n[products]\nfile = "p"\nid = "i"\nfeatures = [1]', ["[products]", "feature 1", "1", "table"]),
        ('name = "x"\n[products]\nfile = "p"\nid = "i"\n[products.features]\na = 1', ["[products]", "features", "'a'"]),
    ],
)
def test_whole_files_that_are_no_schema(tmp_path, text, words):
    path = tmp_path / "dataset.toml"
    path.write_text(text, encoding="utf-8")
    said = sentence(path)
    for word in [str(path), *words]:
        assert word in said


def test_a_file_that_cannot_be_read(tmp_path):
    absent, folder, latin = tmp_path / "absent.toml", tmp_path / "folder.toml", tmp_path / "latin.toml"
    folder.mkdir()
    latin.write_bytes('name = "café"'.encode("latin-1"))
    for path in (absent, folder, latin):
        assert str(path) in sentence(path)


def test_allowed_keys_are_listed_once(mall):
    path = mall / "dataset.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("labels =", "lables =", 1), encoding="utf-8")
    said = sentence(path)
    assert "'lables'" in said
    assert said.endswith("; did you mean 'labels'?")
    for key in ("name", "column", "kind", "values", "labels", "aliases", "unknown", "missing"):
        assert said.partition("; did you mean 'labels'?")[0].count(f"'{key}'") == 1


def paths(node, at=()):
    """The way to every value in a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield (*at, key)
        yield from paths(child, (*at, key))


JUNK = st.one_of(
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.one_of(st.integers(), st.just(10**400), st.text(max_size=2), st.booleans(), st.floats()), max_size=3),
    st.dictionaries(st.sampled_from(["as", "a", ""]), st.one_of(st.integers(), st.floats(), st.text(max_size=2))),
)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_document_raises_anything_else(data):
    document = tomllib.loads(data.draw(st.sampled_from([MALL_TOML, FILMS_TOML])))
    *way, last = data.draw(st.sampled_from(list(paths(document))))
    node = document
    for key in way:
        node = node[key]
    if data.draw(st.integers(0, 4)) == 0:
        del node[last]
    else:
        node[last] = data.draw(JUNK)
    try:
        said = f"here: {Schema.parse(document, 'here').name}"
    except InputError as error:
        said = str(error)
    assert said.startswith("here")


def test_what_the_malls_file_says():
    schema = Schema.read(COMMITTED / "amoremall" / "dataset.toml")
    assert schema.name == "amoremall"
    assert schema.catalogue == "personas.toml"
    assert schema.training == DeepConfig(loss="triplet", epochs=500)
    assert schema.interactions is None
    assert (schema.products.id, schema.products.reviews) == ("product_id", "reviews")
    assert (schema.customers.file, schema.customers.purchases) == (None, "purchased_product_id")
    assert schema.customers.repeated == "error"
    category, brand, price = schema.products.features
    assert category == Categorical(
        "category",
        "category",
        ("97", "98", "99", "101", "103"),
        ("Skincare", "Makeup", "Perfume", "Accessories", "Men"),
        {},
        "error",
        "error",
        label={"en": "category", "ko": "카테고리"},
    )
    assert (brand.name, brand.column, brand.values, brand.unknown) == ("brand", "brand_name", None, "extra-row")
    bounds = (0.0, 1.0), False, 0.0, math.inf
    label = {"en": "price", "ko": "가격"}
    assert price == Numeric("price", "price", 200000.0, *bounds, "error", "error", label=label)
    skin_type, skin_concern, gender, age = schema.customers.features
    assert skin_type.values == ("dry", "oily", "combination", "sensitive", "normal")
    assert {word: value for word, value in skin_type.aliases.items() if word.isascii()} == {
        "mature": "sensitive",
        "unknown": "normal",
    }
    assert [one.aliases[word] for one, word in ((skin_type, "건성"), (skin_concern, "보습"), (gender, "여성"))] == [
        *("dry", "moisture", "F")
    ]
    assert skin_concern.values == ("moisture", "wrinkle", "gift", "repurchase", "calming", "texture")
    assert gender.values == ("F", "M")
    label = {"en": "age", "ko": "나이"}
    assert age == Numeric("age", "age", 50.0, None, False, 1.0, 120.0, "error", As(35), label=label)
    assert [one.missing for one in (skin_type, skin_concern, gender)] == [As("normal"), As("moisture"), As("F")]


def test_what_the_films_file_says(films):
    schema = Schema.read(films / "dataset.toml")
    assert (schema.interactions.file, schema.interactions.customer, schema.interactions.product) == (
        "views.csv",
        "who",
        "what",
    )
    assert schema.customers.purchases is None
    likes = schema.customers.features[0]
    assert likes == MultiCategorical("likes", "favourite_genres", None, None, {}, "extra-row", "extra-row", "|")


@pytest.mark.parametrize(
    ("label", "english", "korean"),
    [
        ("", "skin type", "skin type"),
        ('label = "피부"', "피부", "피부"),
        ('label = { ko = "피부" }', "skin type", "피부"),
        ('label = { en = "skin" }', "skin", "skin"),
    ],
)
def test_a_column_is_called_by_the_label_of_its_language(label, english, korean):
    text = MALL_TOML.replace('name = "skin_type"', f'name = "skin_type"\n{label}')
    features = Schema.parse(tomllib.loads(text), "here").customers.features
    assert (label_of("skin_type", features), label_of("skin_type", features, "ko")) == (english, korean)
    assert label_of("persona_name", features, "ko", "페르소나") == "페르소나"


def test_a_date_is_optional_and_stands_where_the_purchases_do(mall, films):
    assert Schema.read(mall / "dataset.toml").customers.date is None
    assert Schema.read(films / "dataset.toml").interactions.date is None
    inside = MALL_TOML.replace('id = "user_id"', 'id = "user_id"\ndate = "when"')
    assert Schema.parse(tomllib.loads(inside), "here").customers.date == "when"
    beside = FILMS_TOML + 'date = "when"\n'
    assert Schema.parse(tomllib.loads(beside), "here").interactions.date == "when"
    with pytest.raises(
        InputError, match=r"here, \[customers\]: date: found 'when'; allowed: .*purchases.*interactions"
    ):
        Schema.parse(tomllib.loads(beside.replace('id = "viewer"', 'id = "viewer"\ndate = "when"')), "here")


def test_treated_as_another_value(mall):
    path = mall / "dataset.toml"
    text = path.read_text(encoding="utf-8")
    assert 'unknown = "normal" }\nunknown = "error"' in text
    path.write_text(
        text.replace('unknown = "normal" }\nunknown = "error"', 'unknown = "normal" }\nunknown = { as = "oily" }')
    )
    assert Schema.read(path).customers.features[0].unknown == As("oily")


def test_a_schema_is_frozen(films):
    schema = Schema.read(films / "dataset.toml")
    with pytest.raises(dataclasses.FrozenInstanceError):
        schema.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        schema.products.features[0].name = "other"


@given(st.integers(-(10**6), 10**6))
@settings(deadline=None, max_examples=60)
def test_a_whole_number_is_one_key_however_it_comes(number):
    alike = [number, float(number), str(number), f" {number}\n", np.int64(number), np.float64(number)]
    assert {as_key(value) for value in alike} == {str(number)}


def test_numpy_scalars_are_keys_like_pythons():
    """A mapping of columns may hold NumPy arrays."""
    assert as_key(np.float32(97)) == as_key(97.0) == "97"
    assert as_key(np.float32(0.5)) == as_key(0.5) == "0.5"
    assert as_key(np.bool_(True)) == as_key(True) == "true"
    assert as_key(np.str_(" dry ")) == "dry"
    assert as_key(np.float32("nan")) is None


@pytest.mark.parametrize("value", [None, "", "  ", "\t\n", float("nan"), np.nan, pd.NA, pd.NaT])
def test_empty_values_have_no_key(value):
    assert as_key(value) is None


@pytest.mark.parametrize(
    ("value", "key"), [(0, "0"), (False, "false"), ("0", "0"), (-0.0, "0"), (2.5, "2.5"), ("None", "None")]
)
def test_what_looks_empty_but_is_not(value, key):
    assert as_key(value) == key


def test_a_dataset_may_say_how_it_is_trained(films):
    assert Schema.read(films / "dataset.toml").training is None
    said = FILMS_TOML + '[training]\nrecipe = "wide"\nown_l2 = inf\nitem_factors = 4\n'
    assert Schema.parse(tomllib.loads(said), "here").training == WideConfig(own_l2=math.inf, item_factors=4)


def test_what_a_model_carries_of_its_schema_is_read_back_as_json(films):
    """Without `[training]`, whose infinity JSON lacks: a model has a recipe of its own."""
    schema = Schema.parse(tomllib.loads(FILMS_TOML + '[training]\nrecipe = "wide"\nown_l2 = inf\n'), "here")
    carried = json.loads(json.dumps(schema.source, allow_nan=False))
    assert Schema.parse(carried, "there") == dataclasses.replace(schema, training=None)


def test_a_vocabulary_may_have_one_value(mall):
    path = mall / "dataset.toml"
    text = path.read_text(encoding="utf-8").replace('values = ["F", "M"]', 'values = ["F"]')
    path.write_text(text, encoding="utf-8")
    (gender,) = [one for one in Schema.read(path).customers.features if one.name == "gender"]
    assert gender.values == ("F",)
