"""What `init` guesses of tables whose truth is known, and where it differs from files written by hand."""

import csv
import json
import os
import re
import tomllib
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from command_line import done, run, told
from hypothesis import given, settings
from hypothesis import strategies as st
from manual import files

from recsys_jax import Recommender, Schema, WideConfig, fit, load_dataset
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.errors import InputError
from recsys_jax.personas.catalogue import read_catalogue
from recsys_jax.schema_inference.arranging import arrange
from recsys_jax.schema_inference.columns import says
from recsys_jax.schema_inference.guesses import describe
from recsys_jax.schema_inference.linking import Sheet, explained, roles

ROOT = Path(__file__).parents[2]
OLIVEYOUNG = os.environ.get("RECSYS_JAX_OLIVEYOUNG")
KINDS = ["緑茶", "紅茶", "허브차"]
TAGS = ["sweet", "bitter", "фруктовый", "smoky"]
REGIONS = ["서울", "東京", "Zürich", "Москва"]


def write(folder: Path, **tables: list[dict]) -> Path:
    """Each table as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def guess(folder: Path, *, train: bool = False) -> dict:
    """What is written of the tables in a folder, on which the wide recipe may train for a moment."""
    done("init", folder)
    document = tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    if train:
        fit(load_dataset(folder), WideConfig(own_l2=10.0, attribute_l2=10.0, factor_l2=float("inf")))
    return document


def features(document: dict, side: str) -> dict[str, dict]:
    return {one.get("column", one["name"]): one for one in document[side]["features"]}


def kinds(document: dict, side: str) -> dict[str, str]:
    return {column: one["kind"] for column, one in features(document, side).items()}


def tea(customers: int = 120, products: int = 40, seed: int = 0) -> dict[str, list[dict]]:
    """A shop with ids of leading zeros, several alphabets, NA cells, guests, returns, and tea that is bought again."""
    rng = np.random.default_rng(seed)
    goods = [
        {
            "code": f"{n:05}",
            "title": f"{KINDS[n % 3]} {n}号",
            "maker": ["백자공방", "久茂園", "Müller & Söhne"][int(rng.integers(3))],
            "kind": KINDS[n % 3],
            "notes": ";".join(rng.choice(TAGS, int(rng.integers(1, 4)), replace=False)),
            "price": "NA" if n % 9 == 4 else f"{rng.uniform(3, 90):.2f}",
            "currency": "EUR",
            "supplier ref": f"ref-{rng.integers(10**6)}",
        }
        for n in range(products)
    ]
    people = [
        {
            "member_no": f"{n:04}",
            "age": "" if n % 11 == 3 else int(rng.integers(18, 80)),
            "region": "Prefer not to say" if n % 7 == 5 else REGIONS[int(rng.integers(4))],
            "taste": ";".join(rng.choice(TAGS, int(rng.integers(1, 3)), replace=False)),
            "joined": f"20{n % 20:02}-03-01",
        }
        for n in range(customers)
    ]
    bought = [
        {
            "order": 1000 + n,
            "when": f"2024-{1 + n % 12:02}-{1 + n % 28:02}",
            "who": ["NA", "", "GUEST"][n % 3] if n % 6 == 1 else people[int(rng.integers(customers))]["member_no"],
            "what": goods[int(rng.integers(products)) if rng.random() < 0.6 else 0]["code"],
            "qty": int(rng.integers(1, 4)),
            "returned": "yes" if n % 10 == 2 else "no",
            "stars": int(rng.integers(1, 6)),
        }
        for n in range(900)
    ]
    return {"products": goods, "customers": people, "purchases": bought}


def test_a_shop_of_three_tables(tmp_path):
    found = guess(write(tmp_path / "teeladen", **tea()), train=True)
    assert found["name"] == "teeladen"
    assert set(found["missing_values"]) == {"NA", "Prefer not to say"}
    products = found["products"]
    roles = {key: products[key] for key in ("file", "id", "name", "brand", "category", "price")}
    assert list(roles.values()) == ["products.csv", "code", "title", "maker", "kind", "price"]
    kind_of = {"maker": "categorical", "kind": "categorical", "notes": "multi-categorical", "price": "numeric"}
    assert kinds(found, "products") == kind_of
    assert features(found, "products")["notes"]["separator"] == ";"
    assert found["customers"]["id"] == "member_no"
    assert kinds(found, "customers") == {"age": "numeric", "region": "categorical", "taste": "multi-categorical"}
    bought = found["interactions"]
    assert (bought["customer"], bought["product"], bought["date"]) == ("who", "what", "when")
    assert bought["where"] == {"returned": ["no"]}
    assert (bought["repeat"], bought["unknown_customers"]) == ("allowed", "ignore")
    assert bought["unknown_products"] == "error"
    text = (tmp_path / "teeladen" / "dataset.toml").read_text("utf-8")
    assert "# left out: currency: EUR in each row" in text
    assert "# left out: supplier ref: 40 values in 40 rows" in text
    assert "# left out: joined: dates from" in text
    assert "# where = { stars = { min = 4 } } would make poor ratings no purchases" in text
    assert load_dataset(tmp_path / "teeladen").product_ids[0] == "00000"


@pytest.mark.parametrize("order", [*permutations(range(3))], ids=str)
def test_which_table_is_which_does_not_hang_on_names_or_order(tmp_path, order):
    tables = list(tea().values())
    names = [f"t{place}" for place in order]
    found = guess(write(tmp_path, **dict(zip(names, tables, strict=True))))
    parts = [found[part]["file"] for part in ("products", "customers", "interactions")]
    assert parts == [f"{name}.csv" for name in names]


def test_it_can_be_said_which_table_is_which(tmp_path):
    """Names that mislead: each table is called what another one is."""
    tables = tea()
    write(tmp_path, customers=tables["products"], purchases=tables["customers"], products=tables["purchases"])
    said = [f"--{role}={tmp_path / name}.csv" for role, name in (("products", "customers"), ("customers", "purchases"))]
    done("init", *said, "--purchases", tmp_path / "products.csv")
    found = tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8"))
    assert [found[part]["file"] for part in ("products", "customers", "interactions")] == [
        "customers.csv",
        "purchases.csv",
        "products.csv",
    ]
    other = [f"--products={tmp_path / 'purchases.csv'}", f"--customers={tmp_path / 'customers.csv'}", "--force"]
    done("init", tmp_path, *other)
    found = tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8"))
    assert found["products"]["file"] == "purchases.csv"  # as said, though it is a table of people


def reviews(people: int = 60, seed: int = 1) -> list[dict]:
    """One row per review; whose customers repeat, with what they are in each row."""
    rng = np.random.default_rng(seed)
    skins = ["건성", "지성", "복합성"]
    return [
        {
            "user_id": f"u{user}",
            "product_id": f"P{rng.integers(15):03}",
            "skin_type": skins[user % 3],
            "concerns": "|".join(["수분", "주름", "모공", "미백"][user % 4 :]),
            "rating": int(rng.integers(1, 6)),
            "review": f"It is review {n} of this cream, and it says something of its own at some length.",
        }
        for n, user in enumerate(rng.integers(people, size=400).tolist())
    ]


def catalogue(rows: list[dict]) -> list[dict]:
    return [
        {
            "product_id": key,
            "name": f"Cream {key}",
            "brand": f"brand {int(key[1:]) % 4}",
            "category": int(key[1:]) % 3 + 97,
        }
        for key in sorted({row["product_id"] for row in rows})
    ]


def test_customers_in_the_table_of_reviews(tmp_path):
    rows = reviews()
    found = guess(write(tmp_path, items=catalogue(rows), reviews=rows), train=True)
    customers = found["customers"]
    assert (customers["file"], customers["id"], customers["repeated"]) == ("reviews.csv", "user_id", "first")
    assert customers["purchases"] == "product_id"
    assert kinds(found, "customers") == {"skin_type": "categorical", "concerns": "multi-categorical"}
    assert kinds(found, "products") == {"brand": "categorical", "category": "categorical"}


@pytest.mark.parametrize("ids", [True, False])
def test_one_table_of_everything(tmp_path, ids):
    """What follows from the product becomes a table of products; without ids and texts, each row is a customer."""
    rows = reviews()
    goods = {one["product_id"]: one for one in catalogue(rows)}
    rows = [{**goods[row["product_id"]], **row} for row in rows]
    gone = () if ids else ("user_id", "review")
    rows = [{key: one for key, one in row.items() if key not in gone} for row in rows]
    found = guess(write(tmp_path, reviews=rows), train=True)
    assert found["products"]["file"] == "reviews-products.csv"
    made = read_table(tmp_path / "reviews-products.csv")
    assert dict(zip(made.columns["product_id"], made.columns["brand"], strict=True)) == {
        key: one["brand"] for key, one in goods.items()
    }
    assert set(kinds(found, "products")) == {"brand", "category"}
    assert set(kinds(found, "customers")) == {"skin_type", "concerns"}
    assert found["customers"]["file"] == ("reviews.csv" if ids else "reviews-customers.csv")
    again = done("init", tmp_path, "--force")  # what was made is no table to look at
    assert "is not used" not in again.stdout
    assert tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8")) == found


@pytest.mark.parametrize("separator", [None, "|", " ", ","])
def test_purchases_in_a_column_of_the_customers(tmp_path, separator):
    tables = tea()
    people = {one["member_no"]: {**one, "bought": []} for one in tables["customers"]}
    for one in tables["purchases"]:
        if one["who"] in people:
            people[one["who"]]["bought"].append(one["what"])
    if separator is None:
        write(tmp_path, products=tables["products"])
        (tmp_path / "customers.json").write_text(json.dumps([*people.values()]), "utf-8")
    else:
        rows = [{**one, "bought": separator.join(one["bought"])} for one in people.values()]
        write(tmp_path, products=tables["products"], customers=rows)
    found = guess(tmp_path, train=True)
    assert found["customers"]["purchases"] == "bought"
    assert found["customers"].get("separator") == separator
    assert set(kinds(found, "customers")) == {"age", "region", "taste"}


def test_reviews_without_customers_become_personas(tmp_path):
    rows = reviews()
    texts = [{"product_id": row["product_id"], "stars": row["rating"], "text": row["review"]} for row in rows]
    products = [{**one, "price": 10 + number} for number, one in enumerate(catalogue(rows))]
    folder = write(tmp_path / "shop", products=products, reviews=texts)
    assert done("init", folder).next() == ["run", str(folder)]
    found = tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    assert found["products"]["reviews"] == "reviews"
    nested = json.loads((folder / found["products"]["file"]).read_text("utf-8"))
    assert sum(len(one["reviews"]) for one in nested) == len(rows)
    personas = done("personas", folder, "--encoder", "lsa", "--run", tmp_path / "run", "--k", 2)
    done(*personas.next(), "wide", "--own-l2", 10, "--attribute-l2", "inf", "--factor-l2", "inf")


# Leaks


def test_what_was_made_of_the_purchases_is_left_out(tmp_path):
    tables = tea()
    goods = {one["code"]: one for one in tables["products"]}
    bought = {one["member_no"]: [] for one in tables["customers"]}
    for one in tables["purchases"]:
        bought.get(one["who"], []).append(one["what"])
    for one in tables["customers"]:
        codes = bought[one["member_no"]]
        one["preferred"] = max((goods[code]["kind"] for code in codes), key=len, default="")
        one["visits"] = len(codes) * 2
        one["total spent"] = len(codes) % 5 + 17
    for one in tables["products"]:
        one["popular"] = sum(row["what"] == one["code"] for row in tables["purchases"])
    found = guess(write(tmp_path, **tables))
    assert set(kinds(found, "customers")) == {"age", "region", "taste"}
    assert "popular" not in kinds(found, "products")
    text = (tmp_path / "dataset.toml").read_text("utf-8")
    assert "# left out: preferred: it is the kind of something that the customer bought" in text
    assert "# left out: visits: it counts the purchases that are to be foretold" in text
    assert "# left out: total spent: its name says that it is made of the purchases" in text
    done("init", tmp_path, "--force", "--keep", "total spent", "visits")
    found = tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8"))
    assert set(kinds(found, "customers")) == {"age", "region", "taste", "total spent", "visits"}


def test_an_attribute_that_follows_from_the_product_is_left_out(tmp_path):
    rows = reviews()
    people = [
        {
            "id": f"c{n}",
            "age": 20 + n % 50,
            "aisle": f"aisle {int(row['product_id'][1:]) % 5}",
            "bought": row["product_id"],
        }
        for n, row in enumerate(rows)
    ]
    found = guess(write(tmp_path, products=catalogue(rows), people=people))
    assert set(kinds(found, "customers")) == {"age"}
    assert "aisle: it follows from the product (bought)" in (tmp_path / "dataset.toml").read_text("utf-8")


def pets(folder: Path, *, one: bool = False, customers: bool = False, mistakes: int = 20) -> Path:
    """60 goods for animals; of 600 reviewers all but every so manieth buys for their own animal."""
    rng = np.random.default_rng(0)
    animals = ["dog", "cat", "rabbit"]
    goods = [
        {"sku": f"P{n:02}", "title": f"Thing {n}", "brand": f"b{n % 4}", "list price": 3 + n % 9} for n in range(60)
    ]
    people = []
    for n in range(600):
        bought = int(rng.integers(60))
        own = animals[(bought + (n % mistakes == 1)) % 3]
        people.append({"no": f"m{n}", "sku": f"P{bought:02}", "type of companion": own, "gender": "FM"[n % 2]})
    if customers:
        bought = [{"no": one["no"], "sku": one.pop("sku")} for one in people]
        return write(folder, products=goods, customers=people, purchases=bought)
    rows = [
        {key: x for key, x in row.items() if key != "no"}
        | {"stars": 1 + n % 5, "text": f"It is review {n}, and says something of its own at some length, with words."}
        for n, row in enumerate(people)
    ]
    if one:
        return write(folder, reviews=[{**goods[int(row["sku"][1:])], **row} for row in rows])
    return write(folder, products=goods, reviews=rows)


@pytest.mark.parametrize("customers", [True, False])
def test_a_preference_that_goes_with_the_product_is_kept_with_a_warning(tmp_path, customers):
    """Who has a dog buys what is for dogs: of customers and of reviewers alike."""
    folder = pets(tmp_path, customers=customers)
    said = done("init", folder).stdout
    [line] = [one for one in said.splitlines() if re.search("type.of.companion: categorical; ", one)]
    warning = "; it goes with the product (sku), but differs within "
    assert warning in line
    assert line.endswith("of 60 products: kept as a preference; take it out if it is known after a purchase alone")
    assert warning in (folder / "dataset.toml").read_text("utf-8")


@pytest.mark.parametrize("customers", [True, False])
def test_slips_make_no_preference_of_an_attribute_of_the_product(tmp_path, customers):
    said = done("init", pets(tmp_path, customers=customers, mistakes=150)).stdout
    assert (
        "left out: type of companion: it follows from the product (sku): whoever knows it has seen the answer" in said
    )


@pytest.mark.parametrize(("name", "kept"), [("skin type", True), ("division type", False)])
def test_what_is_said_of_people_is_theirs_where_no_table_has_the_products(tmp_path, name, kept):
    folder = pets(tmp_path, one=True)
    path = folder / "reviews.csv"
    path.write_text(path.read_text("utf-8").replace("type of companion", name, 1), "utf-8")
    found = guess(folder)
    assert (name in kinds(found, "products")) != kept
    assert (name.replace(" ", "_") in kinds(found, "customers")) == kept


def test_what_is_left_out_of_reviews_can_be_kept(tmp_path):
    """With its values, which `personas` reads; what holds no value of anybody is refused with the reason."""
    folder = pets(tmp_path, mistakes=1000)
    said = done("init", folder).stdout
    assert "init --keep COLUMN makes an attribute of one of these all the same" in said
    done("init", folder, "--force", "--keep", "stars", "type of companion")
    text = (folder / "dataset.toml").read_text("utf-8")
    assert set(kinds(tomllib.loads(text), "customers")) == {"gender", "stars", "type_of_companion"}
    assert "left out: stars" not in text
    done("personas", folder, "--encoder", "lsa", "--run", tmp_path / "run", "--k", 2)
    made = json.loads((tmp_path / "run" / "customers.json").read_text("utf-8"))
    assert {one["type_of_companion"] for one in made} == {"dog", "cat", "rabbit"}
    assert {one["stars"] for one in made} == {1, 2, 3, 4, 5}
    told(run("init", folder, "--force", "--keep", "text"), "keep: found 'text' (")
    told(run("init", folder, "--force", "--keep", "star"), "did you mean 'stars'?")


@pytest.mark.parametrize(
    "name", ["uid", "member_no", "고객번호", "cust_id", "Kundennr", "작성자", "userId", "author_id"]
)
def test_what_people_call_a_customers_id(name):
    assert says(name, "customer")
    assert not says("product_uid", "customer")


def test_how_much_follows():
    groups = [str(n // 4) for n in range(200)]
    assert explained([int(group) % 7 for group in groups], groups) == 1
    independent = np.random.default_rng(0).integers(3, size=200).tolist()
    assert abs(explained(independent, groups)) < 0.2
    assert explained([0] * 200, groups) == 0
    assert explained([1, 2, 3], ["a", "a", "b"]) == 0  # too few to tell


# Single columns


def customers_with(values: list, name: str = "column") -> dict[str, list[dict]]:
    tables = tea()
    for number, one in enumerate(tables["customers"]):
        one[name] = values[number % len(values)]
    return tables


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["yes", "no", ""], "categorical"),
        (["18-24", "25-34", "35-44"], "categorical"),
        (["1,000", "2,000", "3,000"], "categorical"),
        (["a|b", "b", "c|a"], "multi-categorical"),
        (["a, b", "b", "c, a", "c, b"], "multi-categorical"),
        (["['a', 'b']", "['b']", "['c', 'a']", "['a']"], "multi-categorical"),
        ([0, 1], "categorical"),
        (["1.5", "2.5", "9", "-3"], "numeric"),
        (["01", "02", "13"], "categorical"),
        (["DE", "NA", "KR", "JP"], "categorical"),
        (["2024-01-01", "2023-07-09"], None),
        (["same"], None),
        ([""], None),
        (["A text of some length that says whatever came to mind, {n} words and more."], None),
    ],
    ids=str,
)
def test_a_column_of_each_kind(tmp_path, values, kind):
    if kind is None and len(values[0]) > 20:
        values = [value.format(n=n) for n in range(120) for value in values]
    found = guess(write(tmp_path, **customers_with(values)))
    assert kinds(found, "customers").get("column") == kind
    if "NA" in values:
        assert "NA" not in load_dataset(tmp_path).schema.missing_values.texts or "NA" in str(found)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([f"{n},{n % 90 + 10}" for n in range(10, 60)], "numbers"),
        ([f"1.{n}" for n in range(100, 160)] + ["999"], None),  # plain numbers
        ([f"{n}.500 €" for n in range(10, 60)], "numbers"),  # ten, or ten thousand
        ([f"{n}쪽" for n in range(10, 60)], "numbers"),
        (["20대", "30대", "40대"], None),  # a few bands are values
        ([f"{n % 12 + 1:02}.07.2023" for n in range(60)], "dates"),  # the month may be first
        (["a1", "b2", "c3"], None),
    ],
    ids=lambda one: one if isinstance(one, str | None) else one[0],
)
def test_what_is_not_written_to_be_read_is_named(tmp_path, values, what):
    """Not taken for many values, or for several values with commas between them."""
    folder = write(tmp_path, **customers_with(values))
    said = done("init", folder, "--yes").stdout
    assert (f"left out: column: {what} such as {values[0]}, which can't be read" in said) == (what is not None)
    if what is None:
        assert "which can't be read" not in said


@pytest.mark.parametrize(
    ("values", "units", "thousands"),
    [
        ([f"{n},500원" for n in range(10, 60)], ["원"], ","),
        ([f"₩ {n},500" for n in range(10, 60)] + ["900원"], ["₩", "원"], ","),
        ([f"{n},299 €" for n in range(1, 60)], ["€"], ","),
        ([f"{n}세" for n in range(10, 60)], ["세"], None),
        ([f"{n},000" for n in range(10, 60)] + ["900"], None, ","),
        ([str(n) for n in range(10, 60)] + ["20대", "46세"], {"대": 5, "세": 0}, None),
    ],
    ids=lambda one: one[0] if isinstance(one, list) else None,
)
def test_units_and_commas_that_all_have_are_read(tmp_path, values, units, thousands):
    found = features(guess(write(tmp_path, **customers_with(values))), "customers")["column"]
    assert (found["kind"], found["unknown"]) == ("numeric", "error")
    assert (found.get("units"), found.get("thousands")) == (units, thousands)


@pytest.mark.parametrize(
    ("odd", "name"),
    [("17,00", "판매가"), ("46€", "판매가"), ("1.234원", "판매가"), ("12cm", "나이")],
)
def test_the_first_cell_that_cannot_be_read_is_named(tmp_path, odd, name):
    values = ["39", *(f"{n},000원" if name == "판매가" else f"{n}세" for n in range(10, 60)), odd]
    tables = customers_with(values)
    tables["customers"] = [
        {(name if key == "column" else key): x for key, x in row.items()} for row in tables["customers"]
    ]
    said = done("init", write(tmp_path, **tables)).stdout
    assert f"left out: {name}: numbers such as {odd}, which can't be read" in said


def test_codes_of_three_digits_are_no_thousands(tmp_path):
    values = [f"{n},{n + 1}" for n in range(100, 160)]
    found = features(guess(write(tmp_path, **customers_with(values))), "customers")
    assert "column" not in found or "thousands" not in found["column"]


def test_what_differs_in_case_alone_is_pointed_out(tmp_path):
    said = done("init", write(tmp_path, **customers_with(["a", "b", "b", "A", "b "])), "--yes").stdout
    assert 'aliases = { A = "a" } would join what differs in case alone' in said


def test_guesses_on_purchases_are_told(tmp_path):
    tables = tea()
    for number, one in enumerate(tables["purchases"]):
        one["bought on"] = f"{number % 28 + 1:02}.07.2023"
    said = done("init", write(tmp_path, **tables), "--yes").stdout
    for key in ("unknown_customers", "repeat", "where"):
        assert f"  {key} = " in said


@pytest.mark.parametrize(("again", "guess"), [(5, "never"), (18, "never"), (40, "allowed")])
def test_few_repeats_do_not_bring_back_what_was_bought(tmp_path, again, guess):
    """Of 100 purchases and `again` more of the same, on another day."""
    tables = tea()
    once = [{"who": f"{n:04}", "what": f"{n % 40:05}", "when": "2024-01-01"} for n in range(100)]
    tables["purchases"] = [*once, *({**one, "when": "2024-02-02"} for one in once[:again])]
    toml = write(tmp_path, **tables) / "dataset.toml"
    done("init", tmp_path, "--yes")
    assert tomllib.loads(toml.read_text("utf-8"))["interactions"]["repeat"] == guess


def test_a_folder_of_excel_sheets_says_what_to_do(tmp_path):
    (tmp_path / "Shop.XLSX").write_bytes(b"PK\x03\x04")
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    for words, name in ((tmp_path, "Shop.XLSX"), (tmp_path / "old.xls", "old.xls")):
        told(run("init", words), f"{tmp_path / name}: found the ending '{Path(name).suffix}'; allowed: .json, ")
        told(run("init", words), '.parquet; save it in Excel by "Save as", "CSV UTF-8"')


def test_what_is_read_of_a_table_that_is_not_read_again_is_told(tmp_path):
    """Purchases that products are made of, in CP949, with a row of another length."""
    rows = ["나이,상품번호,분류", *(f"{20 + n % 40},p{n % 8},분류{n % 8 % 3}" for n in range(160)), "20"]
    (tmp_path / "a.csv").write_bytes("\n".join(rows).encode("cp949"))
    said = done("init", tmp_path, "--yes").stdout
    assert said.count("a.csv: read as CP949 (Korean Windows), as it is not UTF-8") == 1
    assert said.count("a.csv: 1 of 161 rows set aside") == 1


def test_a_column_that_is_called_a_tier_is_the_segment(tmp_path):
    tables = tea()
    for number, one in enumerate(tables["customers"]):
        one["等級ランク"] = "金銀銅"[number % 3]
    assert guess(write(tmp_path, **tables))["customers"]["segment"] == "等級ランク"


def test_a_number_below_zero_that_says_nothing(tmp_path):
    found = guess(write(tmp_path, **customers_with([5, 8, -1, 30, 2, 77, 13])))
    assert features(found, "customers")["column"]["missing_values"] == [-1]


def test_what_is_no_number_here_and_there(tmp_path):
    found = guess(write(tmp_path, **customers_with([*range(50, 85), "about 60"])))
    column = features(found, "customers")["column"]
    assert (column["kind"], column["unknown"]) == ("numeric", "missing")


@pytest.mark.parametrize(
    ("written", "form"),
    [("%d.%m.%Y", "%d.%m.%Y"), ("%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M"), ("%d-%b-%Y", "%d-%b-%Y"), ("%Y-%m-%d", None)],
)
def test_dates_are_read_in_the_one_form_that_fits(tmp_path, written, form):
    """Of purchases and, with the purchases in their table, of customers; a date of products is left out."""
    tables = tea()
    days = [datetime(2024, 1, 1, 9, tzinfo=UTC) + timedelta(days=n) for n in range(400)]
    for n, one in enumerate(tables["purchases"]):
        one["when"] = days[n % 400].strftime(written)
    for n, one in enumerate(tables["products"]):
        one["release"] = days[n].strftime(written)
    folder = write(tmp_path / "three", **tables)
    found, text = guess(folder), (folder / "dataset.toml").read_text("utf-8")
    assert (found["interactions"]["date"], found["interactions"].get("date_format")) == ("when", form)
    assert f"left out: release: dates from {days[0].strftime(written)} to {days[39].strftime(written)}" in text
    dates = load_dataset(folder).dates
    assert days[0].timestamp() - 32400 <= min(dates) < max(dates) - 300 * 86400 <= days[99].timestamp()
    for one in tables["customers"]:
        one |= {"bought": tables["products"][int(one["member_no"]) % 40]["code"], "when": one.pop("joined")}
        one["when"] = datetime.fromisoformat(one["when"]).replace(day=1 + int(one["member_no"]) % 28).strftime(written)
    folder = write(tmp_path / "two", products=tables["products"], customers=tables["customers"])
    assert guess(folder)["customers"].get("date_format") == form
    assert len(load_dataset(folder).dates) == 120


def test_what_a_shop_keeps_of_its_products_is_not_learned_from(tmp_path):
    tables = tea()
    for n, one in enumerate(tables["products"]):
        one |= {"Lagerbestand": n * n % 37, "Bestandteile": f"Blatt {n % 4}", "organic": n % 2, "Unnamed: 0": n}
    folder = write(tmp_path, **tables)
    said, found = done("init", folder).stdout, tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    assert "left out: Lagerbestand: what is in stock changes; --available" in said
    assert "left out: Unnamed: 0: pandas' index" in said
    learned = features(found, "products")
    assert {"Bestandteile", "organic"} <= learned.keys()
    organic = learned["organic"]
    assert (organic["values"], organic["unknown"], organic["missing"]) == ([0, 1], "error", "error")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["20대", "30대", "40대", ""], "numeric"),
        (["20대", "30대 초반", "40대", "30", "30 대", "46세"], "numeric"),
        (["20s", "30s", "40s"], "numeric"),
        ([*["20대", "30대", "40대"] * 6, "비밀", "비밀2"], "numeric"),
        (["20대", "30대", "십대"], "categorical"),
        (["18-24", "25-34"], "categorical"),
    ],
    ids=str,
)
def test_bands_of_ages_are_ages_as_reviewers_state_them(tmp_path, values, kind):
    found = features(guess(write(tmp_path, **customers_with(values, "연령대"))), "customers")["연령대"]
    assert found["kind"] == kind
    if kind == "numeric":
        assert (found["min"], found["max"]) == (1, 120)
        assert "units" in found


def test_words_for_a_gender_are_one_value(tmp_path):
    """Whatever the table has, a request may have others."""
    folder = write(tmp_path, **customers_with(["여자", "남자", "여자", "남", "M", "F", ""], "성별"))
    found = features(guess(folder), "customers")["성별"]["aliases"]
    assert {found[one] for one in ("여", "여성", "F", "female", "Female", "w", "女性")} == {"여자"}
    assert {found[one] for one in ("남", "남성", "M", "m", "male", "男性")} == {"남자"}
    made = fit(load_dataset(folder), WideConfig(own_l2=10.0, attribute_l2=10.0, factor_l2=float("inf")))
    rec = Recommender(made)
    assert rec.recommend(성별="여", age=30) == rec.recommend(성별="여자", age=30) != rec.recommend(성별="남", age=30)
    sizes = features(guess(write(tmp_path / "sizes", **customers_with(["S", "M", "L"], "size"))), "customers")
    assert "aliases" not in sizes["size"]


@pytest.mark.parametrize("name", ["판매가", "정가", "price"])
def test_a_price_is_not_below_zero(tmp_path, name):
    found = features(guess(write(tmp_path, **customers_with([*range(1000, 9000, 100)], name))), "customers")
    assert found[name]["min"] == 0


def test_codes_are_no_quantities(tmp_path):
    codes = [f"{n * 977 % 99999:05}" for n in range(120)]
    said = done("init", write(tmp_path, **customers_with(codes, "zip_code"))).stdout
    assert "left out: zip_code: 120 codes in 120 rows, most of them once; a code, not a quantity" in said


def test_missing_words_are_those_of_columns_that_are_read(tmp_path):
    tables = tea()
    tables["products"][3]["title"] = "unknown"
    tables["products"][3]["supplier ref"] = "-"
    folder = write(tmp_path, **tables)
    said, found = done("init", folder).stdout, tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    assert set(found["missing_values"]) == {"NA", "Prefer not to say"}
    assert "; 17 of 120 rows without, by Prefer not to say (17)" in said


@pytest.mark.parametrize(("name", "least"), [("Geburtsjahr", None), ("weight", 0), ("Alter", 1), ("x", None)])
def test_a_bound_is_guessed_where_the_name_says_it(tmp_path, name, least):
    values = range(45, 96) if name == "Alter" else range(1945, 2006)
    found = guess(write(tmp_path, **customers_with([*values], name)))
    assert features(found, "customers")[name].get("min") == least
    assert ("max" in features(found, "customers")[name]) == (name == "Alter")


def test_a_segment_stands_in_a_comment_where_no_name_says_it(tmp_path):
    folder = write(tmp_path, **customers_with(["north", "south", "east"], "place"))
    guess(folder)
    assert '# segment = "place" would break results down by it' in (folder / "dataset.toml").read_text("utf-8")


# Mistakes


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda row: {**row, "who": row["who"].lstrip("0") + "x", "what": row["what"].lstrip("0")},
            "zeros at the front",
        ),
        (
            lambda row: {**row, "who": "x" + row["who"], "what": "y" + row["what"]},
            "no table has the ids of another one",
        ),
    ],
)
def test_tables_without_common_ids(tmp_path, change, sentence):
    tables = tea()
    tables["purchases"] = [change(row) for row in tables["purchases"]]
    folder = write(tmp_path, **tables)
    result = run("init", folder)
    told(result, sentence)
    assert "what of" in result.stderr or ", what" in result.stderr
    assert not (folder / "dataset.toml").exists()


def test_zeros_are_lost_where_most_ids_lack_them_alone(tmp_path):
    """Not of ages and postcodes, a few of which happen to be what is left of an article's number."""
    tables = {
        "artikel": [{"ArtNr": f"{n:05}", "Warengruppe": f"w{n % 3}"} for n in range(60, 90)],
        "kunden": [{"Kundennr": f"K{n}", "Alter": 18 + n, "PLZ": [74, 60311 + n][n > 3]} for n in range(60)],
    }
    result = run("init", write(tmp_path / "other", **tables))
    told(result, "no table has the ids of another one")
    assert "zeros at the front" not in result.stderr
    tables["kunden"] = [{"Kunde": f"k{n % 60}", "Artikel": 60 + n % 30} for n in range(90)]
    told(run("init", write(tmp_path / "same", **tables)), "zeros at the front seem lost")


def test_ids_of_products_are_not_compared_with_those_of_customers(tmp_path):
    """However alike they are with and without zeros; how to write them anew is said."""
    tables = {
        "books": [{"isbn": f"{n:05}", "genre": f"g{n % 3}"} for n in range(60)],
        "members": [{"member no": f"{n:04}", "age": 18 + n % 50} for n in range(400)],
        "orders": [{"member no": n * 7 % 400, "isbn": n * n % 60} for n in range(900)],
    }
    result = run("init", folder := write(tmp_path, **tables))
    assert f"isbn of {folder / 'orders.csv'} with isbn of {folder / 'books.csv'}; there is '000" in result.stderr
    assert f"member no of {folder / 'orders.csv'} with member no of {folder / 'members.csv'}; there is" in result.stderr
    assert result.stderr.count("zeros at the front") == 2, result.stderr
    told(result, "exported with the column of ids as text, not as numbers")


def test_products_whose_ids_lost_their_zeros_are_not_made_of_orders(tmp_path):
    """Customers link, products would be lost: all that is known of them stands in the table that is not used."""
    tables = {
        "artikel": [{"ArtNr": f"{n:05}", "Warengruppe": f"w{n % 3}"} for n in range(60, 90)],
        "kunden": [{"Kundennr": f"K{n}", "Alter": 18 + n} for n in range(60)],
        "orders": [{"Kunde": f"K{n * 7 % 60}", "ArtNr": 60 + n % 30, "Gruppe": n % 3} for n in range(300)],
    }
    folder = write(tmp_path, **tables)
    result = run("init", folder)
    told(result, f"{folder / 'artikel.csv'} would not be used: ArtNr of {folder / 'orders.csv'} with ArtNr of ")
    told(result, "there is '00060': zeros at the front seem lost; allowed: ids written as there")
    assert not (folder / "dataset.toml").exists()
    for one in tables["orders"]:
        one["ArtNr"] = f"{one['ArtNr']:05}"
    assert guess(write(tmp_path, **tables))["products"]["file"] == "artikel.csv"


def test_a_table_with_the_same_ids_is_not_used_for_another_one(tmp_path):
    tables = tea()
    half = [{"code": one["code"], "size": n % 3} for n, one in enumerate(tables["products"]) if n % 2]
    folder = write(tmp_path, **tables, more=half, weather=[{"day": f"d{n}", "rain": n % 2} for n in range(9)])
    said = " ".join(done("init", folder).stdout.split())
    taken = "products.csv was taken for the products, --products chooses"
    assert f"more.csv is not used: its code also has ids of products.csv (20 of 40); {taken}" in said
    assert "weather.csv is not used: no column of it has the ids of the others" in said


def test_a_group_of_wares_is_a_category(tmp_path):
    tables = tea()
    for one in tables["products"]:
        one["Warengruppe"] = one.pop("kind")
    assert guess(write(tmp_path, **tables))["products"]["category"] == "Warengruppe"


def test_other_files(tmp_path):
    (tmp_path / "b.csv").write_text("x,y\n")
    told(run("init", tmp_path / "b.csv"), "there are no rows in it")
    (tmp_path / "c.csv").write_text("")
    told(run("init", tmp_path / "c.csv"), "an empty file")
    told(run("init", tmp_path / "d.csv"), "there is no such file")
    for flags in ((), ("--force",)):
        told(run("init", tmp_path / "dd", *flags), "there is no such file or folder")
        told(run("init", tmp_path / "b.cvs", *flags), f"file or folder; did you mean {tmp_path / 'b.csv'}?")
    told(run("init"), "tables: found 'none'; allowed: a folder that has them, or one or more, such as products.csv ")
    write(tmp_path / "e", people=tea()["customers"])
    told(run("init", tmp_path / "e"), "no column with the ids of products")
    assert not [*tmp_path.rglob("dataset.toml")]


@pytest.mark.parametrize("name", ["product_id", "상품코드"])
def test_ids_that_a_spreadsheet_has_rounded(tmp_path, name):
    rows = [f"u{n % 9},8.8{n % 4}E+12,{20 + n % 9}" for n in range(60)]
    (tmp_path / "sales.csv").write_text("\n".join([f"user_id,{name},age", *rows]), "utf-8")
    told(run("init", tmp_path), f"{name}: found 8.80E+12, of which a spreadsheet has lost the last digits; allowed: an")


TEXTS = ["a", "b|c", "NA", "", "07", "x, y", "2024-01-01", "없음", "é\n#\"'"]
CELLS = st.one_of(
    st.none(), st.integers(-3, 12), st.sampled_from(TEXTS),
    st.floats(allow_nan=True), st.booleans(), st.lists(st.sampled_from(["a", "b", 3]), max_size=2), st.text(max_size=4),
    st.just([{"content": "fine"}]),
)  # fmt: skip


@st.composite
def tables(draw):
    made = []
    for _ in range(draw(st.integers(1, 3))):
        names = draw(
            st.lists(st.sampled_from(["id", "product_id", "user", "age", "품목", "x", ""]), min_size=1, unique=True)
        )
        count = draw(st.integers(1, 12))
        columns = {}
        for name in names:
            unique = draw(st.booleans())
            columns[name] = list(range(count)) if unique else draw(st.lists(CELLS, min_size=count, max_size=count))
        made.append([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    return made


@settings(max_examples=60)
@given(tables())
def test_any_tables_give_a_schema_or_a_sentence(made):
    from recsys_jax.data.tables import Table

    sheets = [Sheet(Path(f"t{n}.json"), Table.of(rows, f"t{n}.json"), f"t{n}.json") for n, rows in enumerate(made)]

    def guessed(question: str, allowed: list, guess: str) -> str:
        return guess

    try:
        draft = describe(arrange(roles(sheets, {}), guessed), "any", guessed)
    except InputError:
        return
    Schema.parse(tomllib.loads("\n".join(draft.lines)), "dataset.toml")


# Against files that were written by hand


def flat(document: dict) -> dict[str, object]:
    """Each key by its place; features by their columns."""
    out: dict[str, object] = {}
    for part, content in document.items():
        if not isinstance(content, dict):
            out[part] = content
            continue
        out |= {f"{part}.{key}": value for key, value in content.items() if key != "features"}
        for one in content.get("features", ()):
            column = one.get("column", one["name"])
            out |= {f"{part}.{column}.{key}": value for key, value in one.items() if key != "column"}
    return out


def differing(guessed: dict, by_hand: dict) -> set[str]:
    """The keys that differ, without those that say the default."""
    defaults = {"repeat": "never", "unknown_customers": "error", "unknown_products": "error"}
    one, other = flat(guessed), flat(by_hand)
    return {
        key
        for key in one.keys() | other.keys()
        if one.get(key, defaults.get(key.split(".")[-1])) != other.get(key, defaults.get(key.split(".")[-1]))
    }


# Why they differ: what a person who sees the tables alone could not know either.
LENIENT = "that an empty cell is a mistake"
LEARNED = "that the values in the table are all that there are; how else they are spelt"
SCALE = "the natural size of a number"


def test_the_films_as_by_hand(tmp_path):
    """Tables of the form that `recsys-jax dataset movielens` writes."""
    rng = np.random.default_rng(2)
    genres = ["Action", "Comedy", "Drama", "Thriller", "Children's"]
    films = [
        {
            "movie_id": n,
            "title": f"Film {n}, The ({1930 + n % 60})",
            "genres": "|".join(rng.choice(genres, int(rng.integers(1, 4)), replace=False)) if n > 1 else "",
            "year": 1930 + n % 60 if n != 7 else "",
        }
        for n in range(1, 200)
    ]
    jobs = ["student", "other", "none", "writer"]
    people = [
        {
            "user_id": n,
            "age": int(rng.integers(7, 74)),
            "gender": "MFM"[n % 3],
            "occupation": jobs[int(rng.integers(4))],
        }
        for n in range(1, 121)
    ]
    seen = {(int(rng.integers(1, 121)), int(rng.integers(1, 200))) for _ in range(3000)}
    ratings = [
        {"user_id": user, "movie_id": film, "rating": int(rng.integers(1, 6)), "time": 874724710 + 86400 * n}
        for n, (user, film) in enumerate(sorted(seen))
    ]
    guessed = guess(write(tmp_path, products=films, customers=people, interactions=ratings))
    by_hand = tomllib.loads((ROOT / "recsys_jax" / "data" / "movielens.toml").read_text("utf-8"))
    assert differing(guessed, by_hand) == set(
        {
            "name": "it is the folder's",
            "products.year.min": "when films began",
            "products.year.max": "when the year must be a mistake",
            **{f"customers.gender.{key}": LEARNED for key in ("values", "labels", "unknown", "aliases")},
        }
    )


def test_the_tea_shop_of_the_manual_as_by_hand(tmp_path):
    manual = files("docs/datasets.md")
    (tmp_path / "tea").mkdir()
    for name in ("products.csv", "customers.csv", "purchases.csv"):
        (tmp_path / "tea" / name).write_text(manual[name], "utf-8")
    assert differing(guess(tmp_path / "tea"), tomllib.loads(manual["dataset.toml"])) == set(
        {
            **{f"products.kind.{key}": LEARNED for key in ("values", "unknown", "missing")},
            "customers.segment": "by what results are broken down; a comment names a column",
            **{f"customers.age.{key}": SCALE for key in ("scale", "standardise")},
            **{f"customers.newsletter.{key}": LEARNED for key in ("values", "unknown")},
            "customers.newsletter.missing": "that who says nothing of it has none",
            "customers.likes.missing": "that who likes nothing needs no row",
            **{f"customers.drinks.{key}": LEARNED for key in ("values", "aliases", "unknown")},
        }
    )


@pytest.mark.slow(reason="tables of others, in a folder of one's own")
@pytest.mark.skipif(OLIVEYOUNG is None, reason="RECSYS_JAX_OLIVEYOUNG names no folder with these tables")
def test_olive_young_as_by_hand(tmp_path):
    tables = (Path(OLIVEYOUNG or "") / f"{name}.parquet" for name in ("products", "interactions"))
    done("init", *tables, "--out", tmp_path / "oliveyoung")
    guessed = tomllib.loads((tmp_path / "oliveyoung" / "dataset.toml").read_text("utf-8"))
    by_hand = tomllib.loads((ROOT / "data" / "oliveyoung" / "dataset.toml").read_text("utf-8"))
    assert differing(guessed, by_hand) == set(
        {
            "products.category.missing": LENIENT,
            "products.avg_rating.max": "the most stars that there can be",
            **{f"customers.skin_type.{key}": LEARNED for key in ("values", "labels", "unknown")},
        }
    )


def test_the_mall_as_by_hand(tmp_path):
    folder = tmp_path / "amoremall"
    folder.mkdir()
    (folder / "products.json").write_bytes((ROOT / "data" / "amoremall" / "products.json").read_bytes())
    assert done("init", folder).next() == ["run", str(folder)]
    guessed = tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    by_hand = tomllib.loads((ROOT / "data" / "amoremall" / "dataset.toml").read_text("utf-8"))
    why = {
        "training.recipe": "the published system is asked for",
        **{f"products.category.{key}": LEARNED for key in ("values", "labels", "unknown", "missing")},
        "products.brand_name.name": "a feature may be called otherwise than its column",
        "products.brand_name.missing": LENIENT,
        **{f"products.price.{key}": SCALE for key in ("scale", "clip", "standardise")},
        "products.price.missing": LENIENT,
    }
    found = differing(guessed, by_hand)
    found -= {key for key in found if key.startswith("products.rating.")}  # that the shop's own rating is not wanted
    found -= {key for key in found if key.endswith(".label") or key.startswith("description.")}  # for people
    assert {key for key in found if not key.startswith("customers.")} == set(why)
    assert set(features(guessed, "customers")) == {"age", "gender", "skin_type"}  # none states a concern
    age = features(guessed, "customers")["age"]
    assert (age["min"], age["max"]) == (1, 120)  # so the service and the page take no other
    known = {one.name: set(one.values) for one in read_catalogue(folder / "personas.toml").attributes}
    assert known["gender"] == {"여성", "남성"}
    assert known["skin_type"] == {"건성", "지성", "복합성", "민감성", "중성"}


def test_the_headphones_as_by_hand(tmp_path):
    folder = tmp_path / "headphones"
    done("dataset", "synthetic", "--shop", "headphones", "--out", folder)
    by_hand = tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    for name in ("dataset.toml", "personas.toml", "truth.json"):
        (folder / name).unlink()
    guessed = guess(folder)
    of_products = {key for key in differing(guessed, by_hand) if not key.startswith(("customers.", "description."))}
    assert of_products == set({f"products.{column}.missing": LENIENT for column in ("kind", "brand", "price")})
    shared = {"customers.id", "customers.segment", "customers.purchases", "customers.age.name", "customers.age.kind"}
    assert not shared & differing(guessed, by_hand)
    known = {one.name: one for one in read_catalogue(folder / "personas.toml").attributes}
    assert set(known["stated_2"].values) == {"commuting", "gym", "games", "mixing"}
    personas = done("personas", folder, "--encoder", "lsa", "--run", tmp_path / "run", "--k", 4)
    customers = json.loads((tmp_path / "run" / "customers.json").read_text("utf-8"))
    assert {one["stated_3"] for one in customers} >= {2, 3, 8, None}
    assert personas.next()[0] == "train"
