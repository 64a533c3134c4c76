"""Shops that have a table of products and one of reviews: these lead to personas, with what reviewers state."""

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from command_line import done, run, told
from test_guesses import write

from recsys_jax import load_dataset
from recsys_jax.cli import init
from recsys_jax.data.dataset import read_schema
from recsys_jax.personas.catalogue import read_catalogue
from recsys_jax.personas.customers import read_reviews
from recsys_jax.personas.profiles import parse_profile
from recsys_jax.schema_inference.columns import Column
from recsys_jax.schema_inference.draft import slips

KOREAN = {
    "columns": (
        "상품코드",
        "상품명",
        "브랜드",
        "가격",
        "리뷰",
        "연령대",
        "성별",
        "피부타입",
        "키",
        "안경",
        "평점",
        "작성일",
    ),
    "ages": ("20대", "30대 초반", "40대", "47세"),
    "genders": ("여성", "남성"),
    "skins": ("건성", "지성/복합성", "매우 민감성"),
    "texts": {
        "건성": ["촉촉해서 {} 겨울에 좋아요", "당김 없이 {} 보습돼요"],
        "지성/복합성": ["유분 없이 {} 산뜻해요", "번들거림 {} 잡아줘요"],
        "매우 민감성": ["자극 없이 {} 순해요", "트러블 {} 진정됐어요"],
    },
    "said": ("하루종일", "아침마다", "확실히", "금방", "오래", "매일", "정말", "생각보다"),
    "yes": ("예", "아니오"),
}
ENGLISH = {
    "columns": (
        *("product_id", "title", "brand", "price", "review", "age", "gender", "skin type", "height", "glasses"),
        *("rating", "date"),
    ),
    "ages": ("20s", "30s", "40s", "47"),
    "genders": ("female", "male"),
    "skins": ("dry", "oily, combination", "sensitive"),
    "texts": {
        "dry": ["It kept me moist {} in winter", "No tightness {}, it hydrates"],
        "oily, combination": ["No grease {}, it is light", "It stops shine {} for me"],
        "sensitive": ["No irritation {}, so mild", "It calmed my redness {}"],
    },
    "said": ("all day", "each morning", "for sure", "at once", "for long", "daily", "really", "so well"),
    "yes": ("yes", "no"),
}  # fmt: skip


def shop(folder: Path, words: dict, *, author: str = "") -> Path:
    """24 products and 288 reviews; three in four buy what is for their skin."""
    rng = np.random.default_rng(0)
    product, name, brand, price, text, age, gender, skin, height, glasses, rating, date = words["columns"]
    goods = [{product: n, name: f"{n}-A", brand: f"b{n % 3}", price: 10 + n % 7} for n in range(1, 25)]
    rows = []
    for n in range(288):
        who = int(rng.integers(80)) if author else n
        own = who % 3
        kind = words["skins"][own]
        bought = 1 + (own if n % 4 else int(rng.integers(3))) + 3 * int(rng.integers(8))
        said = words["texts"][kind][n % 2].format(" ".join(rng.choice(words["said"], 2, replace=False)))
        row = {"no": 1000 + n, product: bought, text: f"{said} {n % 97}", gender: words["genders"][who % 2], skin: kind}
        row |= {age: "" if n % 9 == 4 else words["ages"][who % 4], height: int(rng.integers(150, 195))}
        row |= {one: words["yes"][int(rng.integers(2))] for one in (glasses, f"{glasses}2")}
        rows.append(
            row | {rating: 1 + n % 5, date: f"2024-{1 + n % 12:02}-11"} | ({author: f"w{who}"} if author else {})
        )
    return write(folder, products=goods, reviews=rows)


def toml(folder: Path) -> dict:
    return tomllib.loads((folder / "dataset.toml").read_text("utf-8"))


@pytest.mark.parametrize("words", [KOREAN, ENGLISH], ids=["ko", "en"])
def test_products_and_reviews_lead_to_recommendations(tmp_path, words):
    """By what each command prints; what the columns state is what the customers that are made have."""
    folder = shop(tmp_path / "shop", words)
    quick = {
        "personas": ["--encoder", "lsa", "--k", 3],
        "train": ["wide", "--own-l2", 10, "--attribute-l2", 10, "--factor-l2", "inf"],
        "evaluate": ["--folds", 2],
    }
    assert done("init", folder).next() == ["run", str(folder)]
    names, command = [], ["personas", folder]
    while command:
        result = done(*command, *quick.get(command[0], []), cwd=tmp_path)
        names.append(command[0])
        command = result.next() if "Next: " in result.stdout else []
    assert names == ["personas", "train", "evaluate", "recommend"]
    assert "not used" not in result.stdout

    *_, age, gender, skin, height, glasses, _, _ = words["columns"]
    columns = [gender, skin.replace(" ", "_"), age, height, glasses, f"{glasses}2"]
    kinds = {one["name"]: one["kind"] for one in toml(folder)["customers"]["features"]}
    assert list(kinds) == columns
    assert [kinds[one] for one in columns] == [
        kind for kind in ("categorical", "numeric", "categorical") for _ in range(2)
    ]
    limits = next(one for one in toml(folder)["customers"]["features"] if one["name"] == age)
    assert (limits["min"], limits["max"]) == (1, 120)

    customers = json.loads((tmp_path / "runs" / "shop" / "customers.json").read_text("utf-8"))
    with (folder / "reviews.csv").open(encoding="utf-8") as stream:
        rows = [*csv.DictReader(stream)]
    rows.sort(key=lambda row: int(row[words["columns"][0]]))
    read = dict(zip(words["ages"], (25, 32, 45, 47) if words is KOREAN else (25, 35, 45, 47), strict=True))
    for one, row in zip(customers, rows, strict=True):
        assert one[age] == read.get(row[age])
        assert one[height] == int(row[height])
        assert [one[name] for name in columns[:2]] == [row[gender], row[skin]]
        assert [one[name] for name in columns[4:]] == [row[glasses], row[f"{glasses}2"]]
    lists = {
        said: done("recommend", "runs/shop", f"{age}={said}", f"{gender}={words['genders'][0]}", "--json", cwd=tmp_path)
        for said in ("25", words["ages"][0])
    }
    assert len({one.stdout for one in lists.values()}) == 1  # 20대 is what profiles take it for


def test_the_words_of_an_author_who_comes_again_are_asked_about(tmp_path, monkeypatch, capsys):
    """Customers and their purchases is the guess, personas the other answer; dataset.toml says why."""
    folder = shop(tmp_path / "shop", ENGLISH, author="author_id")
    assert done("init", folder, "--yes").next() == ["run", str(folder)]
    assert toml(folder)["customers"]["id"] == "author_id"
    assert "skin_type" in {one["name"] for one in toml(folder)["customers"]["features"]}
    why = "author_id comes again; at a terminal, init asks whether personas are to be made of review"
    assert why in (folder / "dataset.toml").read_text("utf-8")
    assert 60 < len(load_dataset(folder).customer_ids) <= 80

    monkeypatch.setattr("builtins.input", lambda: "y" if "personas" in capsys.readouterr().out else "")
    monkeypatch.setattr(init, "_asks", lambda options: True)
    init.main(init.Options((folder,), force=True))
    assert "file" not in toml(folder)["customers"]
    assert "author_id comes again" in (folder / "dataset.toml").read_text("utf-8")
    assert "author_id" not in (folder / "personas.toml").read_text("utf-8")


@pytest.mark.parametrize("key", ["sku", "barcode", "바코드"])
def test_a_column_of_whole_profiles_is_read_by_its_places(tmp_path, key):
    """As the malls export it: 40대/남성/복합성. What is plain is named by its values, what is not by its place."""
    goods = [{key: f"P{n}", "name": f"A {n}", "brand": f"b{n % 2}"} for n in range(10)]
    places = [("30대", "40대 초반", ""), ("남성", "여성"), ("복합성", "건성", "지성"), ("아침 운동", "저녁 산책")]
    rows = [
        {
            key: f"P{n % 10}",
            "후기": f"잘 쓰고 있어요 {n}, 좋아요",
            "profile_info": "/".join(one[n // 10 % len(one)] for one in places),
        }
        for n in range(120)
    ]
    folder = tmp_path / "shop"
    write(folder, products=goods, reviews=rows)
    done("init", folder)
    attributes = read_catalogue(folder / "personas.toml").attributes
    assert [one.name for one in attributes] == ["age", "gender", "skin_type", "stated_4"]
    read = read_reviews(folder, read_schema(folder))
    assert len(read.texts) == 120  # of 15 characters; the column's name says that they are reviews
    stated = [parse_profile(profile, attributes, "ko") for profile in read.profiles]
    assert all(not unused and len(said) == 3 + ("age" in said) for said, unused in stated)
    assert {said["stated_4"] for said, _ in stated} == set(places[3])


def test_one_table_of_products_and_reviews_leads_to_personas(tmp_path):
    """What follows from the product is the product's; made again, what was made is no table to look at."""
    folder = shop(tmp_path / "shop", KOREAN)
    with (
        (folder / "products.csv").open(encoding="utf-8") as goods,
        (folder / "reviews.csv").open(encoding="utf-8") as reviews,
    ):
        known = {row["상품코드"]: row for row in csv.DictReader(goods)}
        rows = [{**known[row["상품코드"]], **row} for row in csv.DictReader(reviews)]
    write(tmp_path / "one", everything=rows)
    assert done("init", tmp_path / "one").next()[0] == "run"
    found = toml(tmp_path / "one")
    assert found["products"]["file"] == "everything-products-with-reviews.json"
    assert {one["name"] for one in found["products"]["features"]} == {"브랜드", "가격"}
    assert "is not used" not in done("init", tmp_path / "one", "--force").stdout
    assert toml(tmp_path / "one") == found


def nested_shop(folder: Path, **keys: str) -> Path:
    """Ten products with twelve reviews each, whose keys are these."""
    folder.mkdir()
    said = {
        "text": lambda n: f"겨울에 촉촉해서 정말 좋아요 {n}",
        "profile": lambda n: "/".join((("30대", "40대 초반")[n % 2], ("남성", "여성")[n // 2 % 2])),
        "stars": lambda n: 1 + n % 5,
        "number": lambda n: f"R{n}",
    }
    goods = [
        {
            "상품코드": f"P{product}",
            "상품명": f"크림 {product}",
            "브랜드": f"b{product % 2}",
            "리뷰": [{keys[what]: said[what](12 * product + n) for what in keys} for n in range(12)],
        }
        for product in range(10)
    ]
    (folder / "상품리뷰.json").write_text(json.dumps(goods, ensure_ascii=False), "utf-8")
    return folder


@pytest.mark.parametrize(
    "keys",
    [
        {"profile": "프로필", "stars": "별점", "number": "리뷰번호", "text": "내용"},
        {"text": "본문", "profile": "프로필"},
        {"text": "text", "profile": "profile", "number": "reviewer"},
        {"text": "content", "profile": "프로필"},
        {"text": "content", "profile": "profile_info"},
    ],
)
def test_nested_reviews_may_have_keys_in_any_language(tmp_path, keys):
    """What `personas` reads is the text and the profile of each, whatever they are called."""
    folder = nested_shop(tmp_path / "shop", **keys)
    done("init", folder)
    read = read_reviews(folder, read_schema(folder))
    assert len(read.texts) == 120
    assert read.texts[13] == "겨울에 촉촉해서 정말 좋아요 13"
    assert read.product_ids[13] == "P1"
    attributes = read_catalogue(folder / "personas.toml").attributes
    assert [one.name for one in attributes] == ["age", "gender"]
    stated = parse_profile(read.profiles[13], attributes, "ko")[0]
    assert stated == {"age": 42, "gender": "남성"}


def test_nested_reviews_without_a_text_are_told_by_their_keys(tmp_path):
    result = run("init", nested_shop(tmp_path / "shop", stars="별점", number="메모"))
    told(result, "(리뷰: objects with 별점, 메모; texts of reviews would be called content, ")


def test_why_reviews_are_no_texts_of_products(tmp_path):
    """Those without a text, and those of products that are not there."""
    folder = shop(tmp_path / "shop", KOREAN)
    with (folder / "reviews.csv").open(encoding="utf-8") as stream:
        rows = [*csv.DictReader(stream)]
    for n, row in enumerate(rows):
        row |= {"리뷰": ""} if n < 9 else {"상품코드": f"P{n}"} if n < 14 else {}
    write(folder, reviews=rows)
    said = done("init", folder).stdout
    assert "274 texts in 288 rows of reviews.csv, column 리뷰; 9 rows have no text; " in said
    assert "5 name products that products.csv lacks (first: P9)" in said


def test_what_init_names_has_a_label_in_the_language_of_the_reviews(tmp_path):
    folder = nested_shop(tmp_path / "shop", text="내용", profile="프로필")
    done("init", folder)
    labels = {one["name"]: one["label"] for one in toml(folder)["customers"]["features"]}
    assert labels == {"age": {"en": "age", "ko": "나이"}, "gender": {"en": "gender", "ko": "성별"}}


@pytest.mark.parametrize(
    ("values", "joined"),
    [
        ({"건성": 40, "지성": 30, "건셩": 4, "중성": 3}, {"건셩": "건성"}),
        ({"30대": 9, "30": 9, "30 대": 9, "20대": 9, "20대 초반": 4, "40": 9}, {"30": "30대", "30 대": "30대"}),
        ({"30s": 9, "30": 9, "1030s": 2, "300": 2}, {"30": "30s"}),
        ({"30대": 40, "10대": 3, "20대": 2}, {}),
        ({"type A": 40, "type B": 3}, {}),
        ({"건성": 10, "건셩": 9}, {}),
    ],
)
def test_values_that_look_like_a_slip_are_told(values, joined):
    column = Column("x", [key for key, count in values.items() for _ in range(count)])
    assert slips(column) == joined


def test_words_of_korean_shops(tmp_path):
    """A field is a category, what is kept private is missing; personas are what results are told by."""
    folder = shop(tmp_path / "shop", KOREAN)
    for name, words in (("products.csv", ("브랜드", "분야")), ("reviews.csv", ("여성", "비공개"))):
        path = folder / name
        path.write_text(path.read_text("utf-8").replace(*words), encoding="utf-8")
    said = done("init", folder).stdout
    assert toml(folder)["products"]["category"] == "분야"
    assert toml(folder)["missing_values"] == ["비공개"]
    assert 'segment = "persona_name": results are told by persona; what reviewers state, below, is what the' in said
    assert "stated_" not in (folder / "personas.toml").read_text("utf-8")


def test_the_line_that_joins_slips_is_printed(tmp_path):
    folder = shop(tmp_path / "shop", KOREAN)
    with (folder / "reviews.csv").open(encoding="utf-8") as stream:
        rows = [*csv.DictReader(stream)]
    for row in [one for one in rows if one["피부타입"] == "건성"][:5]:
        row["피부타입"] = "건셩"
    write(folder, reviews=rows)
    line = "'건셩' (5) looks like '건성': aliases = { \"건셩\" = \"건성\" } joins them"
    assert line in done("init", folder).stdout
    text = (folder / "dataset.toml").read_text("utf-8")
    assert f"# {line}" in text
    (folder / "dataset.toml").write_text(text.replace(f"# {line}", line.partition(": ")[2].removesuffix(" joins them")))
    feature = next(one for one in read_schema(folder).customers.features if one.name == "피부타입")
    assert feature.aliases == {"건셩": "건성"}


def test_what_reviewers_state_and_nothing_uses_is_told(tmp_path):
    """A date of reviews, and what is no age: numbers out of bounds, and words."""
    folder = shop(tmp_path / "shop", KOREAN)
    path = folder / "reviews.csv"
    path.write_text(path.read_text("utf-8").replace("47세", "450", 2).replace("40대", "마흔", 3), encoding="utf-8")
    said = done("init", folder).stdout
    assert "; not used, as no age: '마흔' (3), '450' (2)" in said
    assert "left out: 작성일: a date; no customer is made of it" in said
