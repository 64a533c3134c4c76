"""Personas for whatever is sold: what docs/personas.md says is run; catalogues in any language; none at all."""

import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import done, run, told
from manual import blocks, files, run_page

from recsys_jax import load_dataset
from recsys_jax.data.dataset import read_schema
from recsys_jax.data.files import UNSEALED, is_sealed, sealed
from recsys_jax.errors import InputError
from recsys_jax.personas.catalogue import Catalogue, drawn, read_catalogue, shipped
from recsys_jax.personas.clustering import assign, fit_personas, load_personas, save_personas
from recsys_jax.personas.customers import customer_rows, read_reviews
from recsys_jax.personas.encoders import LsaEncoder
from recsys_jax.personas.keywords import distinctive_keywords
from recsys_jax.personas.profiles import parse_profile, profile_of_text
from recsys_jax.synthetic.headphones import write_headphones

ROOT = Path(__file__).parents[2]
MALL = ROOT / "data" / "amoremall"


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> tuple[Path, str]:
    """The folder where the manual was run, and what its commands said."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "shop").mkdir()
    goods = [f"{n:03},A {n},{['over', 'in'][n % 2]},{'NA' if n == 2 else 10 + n}" for n in range(12)]
    (folder / "products.csv").write_text("\n".join(["sku,name,kind,price", *goods]), "utf-8")
    said = [
        f'{n % 12:03},"Quiet, good, {n} times",{["34 / commuting", "51 / gym", ""][n // 12 % 3]}' for n in range(60)
    ]
    (folder / "reviews.csv").write_text("\n".join(["sku,text,about", *said]), "utf-8")
    return folder, run_page("docs/personas.md", folder, files_in="shop").said[-1]


def written(folder: Path, text: str) -> Catalogue:
    (folder / "personas.toml").write_text(text, "utf-8")
    return read_catalogue(folder / "personas.toml")


# The worked example


def test_the_example_of_the_manual_finds_who_wrote(walk):
    folder, said = walk
    truth = json.loads((folder / "headphones" / "truth.json").read_text())
    customers = json.loads((folder / "runs" / "headphones" / "customers.json").read_text("utf-8"))
    assert list(customers[0]) == [
        *("user_id", "persona_id", "persona_name", "age", "occasion", "glasses", "hours"),
        *("purchased_product_id", "product_category"),
    ]
    assert np.mean([one["persona_name"] == writer for one, writer in zip(customers, truth, strict=True)]) > 0.9
    [table] = blocks("docs/personas.md", "text")
    assert table.text in said
    assert " run headphones\n" in said
    assert " train headphones\n" in said


def test_the_dataset_toml_of_the_manual_reads_them(walk, tmp_path):
    folder, _ = walk
    shutil.copytree(folder / "headphones", tmp_path / "shop")
    (tmp_path / "shop" / "dataset.toml").write_text(files("docs/personas.md")["dataset.toml"], "utf-8")
    made = folder / "runs" / "headphones" / "customers.json"
    dataset = load_dataset(tmp_path / "shop", made)
    assert [feature.name for feature in dataset.schema.customers.features] == ["occasion", "hours"]
    assert len(dataset.customer_ids) == len(json.loads(made.read_text("utf-8")))
    assert dataset.schema.catalogue == "personas.toml"


def test_reviews_in_a_table_of_their_own(walk):
    """By the line of the manual; ids keep their zeros, and what a text says in quotes stays one."""
    shop = walk[0] / "shop-of-reviews"
    found = read_reviews(shop, read_schema(shop))
    assert (found.product_ids[5], found.texts[5]) == ("001", "Quiet, good, 1 times")
    attributes = read_catalogue(shop / "personas.toml").attributes
    said = [parse_profile(profile, attributes, "en") for profile in found.profiles]
    assert said[5:7] == [({"age": 34, "stated_2": "commuting"}, []), ({"age": 51, "stated_2": "gym"}, [])]


def test_the_report_says_of_how_many_customers_an_attribute_is_missing(walk):
    run = walk[0] / "runs" / "headphones"
    customers = json.loads((run / "customers.json").read_text("utf-8"))
    text = (run / "PERSONA_DEFINITION.md").read_text("utf-8")
    table = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in table] == ["age", "occasion", "glasses", "hours"]
    for name, *counts in table:
        assert sum(map(int, counts)) == len(customers)
        assert int(counts[-1]) == sum(one[name] is None for one in customers)
    assert int({name: last for name, *_, last in table}["glasses"]) > 0  # drawn for gamers alone


def test_the_catalogue_of_the_manual_is_the_one_that_is_made(walk):
    assert files("docs/personas.md")["personas.toml"] == (walk[0] / "headphones" / "personas.toml").read_text("utf-8")


def test_attributes_lead_to_products_for_them(walk):
    """Commuters are recommended what was made for commuters, by the value or by its alias."""
    folder, said = walk
    for value in ("train", "commute"):
        words = ["runs/headphones", "age=34", f"occasion={value}", "hours=2", "--top-n", 3]
        rest = done("recommend", *words, cwd=folder).stdout.partition("\n")[2]
        assert said.endswith(rest)
        assert rest.count("noise cancelling") == 3


def test_the_review_that_the_manual_shows_states_what_it_seems_to(walk):
    [shown] = blocks("docs/personas.md", "json")
    review, catalogue = json.loads(shown.text), read_catalogue(walk[0] / "headphones" / "personas.toml")
    stated = {"age": 34, "occasion": "commute", "hours": 3}
    assert parse_profile(review["profile_info"], catalogue.attributes, "en") == (stated, [])
    assert profile_of_text(review["content"], catalogue.attributes, "en") == stated


def test_the_same_seed_gives_the_same_shop(tmp_path):
    one, other = (write_headphones(tmp_path / name, 3) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    told(run("dataset", "synthetic", "--shop", "headphones"), "the shop of headphones needs --out")


# What states a value


@pytest.fixture(scope="module")
def headphones(tmp_path_factory) -> Catalogue:
    folder = tmp_path_factory.mktemp("shop")
    write_headphones(folder, 0)
    return read_catalogue(folder / "personas.toml")


@pytest.mark.parametrize(
    ("profile", "stated", "unused"),
    [
        ("34 / commuting / 3 hours", {"age": 34, "occasion": "commute", "hours": 3}, []),
        ("Early thirties, GYM, contact lenses", {"age": 32, "occasion": "sport", "glasses": "no"}, []),
        ("40s | gaming | 1.5 h | no glasses", {"age": 45, "occasion": "gaming", "hours": 1.5, "glasses": "no"}, []),
        ("25-34 / prefer not to say", {"age": 29}, ["prefer not to say"]),
        ("studio / gym", {"occasion": "studio"}, ["gym"]),
        ("25 hours", {}, ["25 hours"]),  # a day has 24
    ],
)
def test_an_english_profile(headphones, profile, stated, unused):
    assert parse_profile(profile, headphones.attributes, headphones.language) == (stated, unused)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (
            "I'm 34 and use them on my commute. I wear them 2.5 hours a day!",
            {"age": 34, "occasion": "commute", "hours": 2.5},
        ),
        ("I’m in my late forties, and I wear glasses", {"age": 47, "glasses": "yes"}),
        ("As a 52-year-old I record at home", {"age": 52, "occasion": "studio"}),
        ("My husband is deaf, but I wear glasses", {"glasses": "yes"}),
        # Of others, of no person, of two things, within words.
        ("My husband says I wear glasses", {"glasses": "yes"}),
        ("My son uses them on my commute", {}),
        ("She is 34 and they last 3 hours a day", {}),
        ("I am 100% satisfied", {}),
        ("On my runs, and on my commute", {}),
        ("I wear glassesless frames", {}),
        ("I am 34 minutes late", {}),
    ],
)
def test_an_english_text(headphones, text, stated):
    assert profile_of_text(text, headphones.attributes, headphones.language) == stated


TEA = """
language = "ja"

[[attribute]]
name = "age"
kind = "age"

[[attribute]]
name = "taste"
kind = "categorical"
values = { bitter = ["苦め", "渋め"], mild = ["まろやか"] }

[[attribute.text]]
phrases = ["{my}好みは[かなり]{}", "{}が好き"]

[[attribute]]
name = "budget"
kind = "numeric"
profile = ["{number}円"]
"""


def test_a_japanese_catalogue(tmp_path):
    tea = written(tmp_path, TEA)
    assert tea.personas == ()
    assert parse_profile("30代前半・渋め/1500円", tea.attributes, "ja")[0] == {
        "age": 32,
        "taste": "bitter",
        "budget": 1500,
    }
    assert profile_of_text("40歳なので、まろやかが好きです。", tea.attributes, "ja") == {"age": 40, "taste": "mild"}
    assert profile_of_text("母は渋めが好きです。私の好みはかなりまろやか", tea.attributes, "ja") == {"taste": "mild"}


def test_words_of_two_attributes_are_decided_by_their_order(tmp_path):
    two = '[[attribute]]\nname = "%s"\nkind = "categorical"\nvalues = { %s = ["mint"], %s = [] }\n'
    both = written(tmp_path, two % ("tea", "green", "black") + two % ("sweet", "drops", "toffee"))
    for profile, stated in {
        "mint/toffee": {"tea": "green", "sweet": "toffee"},
        "black/mint": {"tea": "black", "sweet": "drops"},
        "mint": {"sweet": "drops"},
        "toffee,mint": {"tea": "green", "sweet": "toffee"},
    }.items():
        assert parse_profile(profile, both.attributes)[0] == stated, profile


def test_letters_with_unusual_cases_are_read(tmp_path):
    catalogue = written(tmp_path, GOOD)
    for text in ("I WEAR GLASSES", "I wear glaſſes", "İ wear GLASSES", "I wear GLAẞES"):
        stated = {"glasses": "yes"} if text.isascii() else {}
        assert profile_of_text(text, catalogue.attributes, "en") == stated
        assert parse_profile(text.split()[-1], catalogue.attributes, "en")[0] in ({"glasses": "yes"}, {})


def test_shares_values_and_ranges_are_drawn(headphones):
    draws = {name: [drawn(one, np.random.default_rng(n)) for n in range(400)] for name, one in {
        "shares": {"studio": 0.9, "commute": 0.1}, "whole": (16, 18), "decimal": (0.5, 2.0), "value": "sport",
    }.items()}  # fmt: skip
    assert 0.85 < np.mean([one == "studio" for one in draws["shares"]]) < 0.95
    assert set(draws["whole"]) == {16, 17, 18}
    assert all(0.5 <= one <= 2 for one in draws["decimal"])
    assert len(set(draws["decimal"])) > 300
    assert set(draws["value"]) == {"sport"}


GOOD = """
language = "en"
[[attribute]]
name = "glasses"
kind = "categorical"
values = { yes = ["glasses"], no = [] }
[[attribute.text]]
phrases = ["i wear {}"]
[[attribute]]
name = "hours"
kind = "numeric"
max = 24
profile = ["{number} h"]
[[persona]]
name = "Gamer"
description = "Plays"
keywords = ["game"]
glasses = { yes = 0.6, no = 0.4 }
hours = [0.5, 3]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"en"', '"xx"', "language: found 'xx'; allowed: 'ko', 'en', 'ja'"),
        ('"glasses"\nkind', '"persona_id"\nkind', "attribute 1: name: found 'persona_id'"),
        ('"glasses"\nkind', '"eye wear"\nkind', "attribute 1: name: found 'eye wear'"),
        ('"hours"\nkind', '"glasses"\nkind', "two attributes are named 'glasses'"),
        ('"categorical"', '"category"', r"attribute 1 \(glasses\): kind: found 'category'"),
        ('{ yes = ["glasses"], no = [] }', "3", "values: found 3"),
        ('no = []', 'no = ["Glasses"]', "values: found .* each word for one value"),
        ('"glasses"], no', '], no', "text 1: words: it is not given; allowed: .* since values have none"),
        ("wear {}", "wear", r"text 1: phrases: found 'i wear'; allowed: a phrase with \{\} once"),
        ("wear {}", "{am} {mine} {}", r"phrases: found 'i \{am\} \{mine\} \{\}'"),
        ("wear {}", "[[a] b] {}", "brackets, not nested"),
        ("wear {}", "[a][b][c][d][e]{}", "up to 4 parts in brackets"),
        ("{number} h", "{} h", r"profile: found '\{\} h'; allowed: a phrase with \{number\} once"),
        ("max = 24", "max = 24\nmin = 30", "min: found 30; allowed: a number below max = 24"),
        ("no = 0.4", "no = 0.5", "persona 1: glasses: found .* shares of 'yes', 'no' that sum to 1"),
        ("no = 0.4", "never = 0.4", "persona 1: glasses: found .* shares of 'yes', 'no'"),
        ("[0.5, 3]", "[0.5, 30]", r"hours: found \[0.5, 30\]; allowed: \[LOWEST, HIGHEST\], numbers from -inf to 24"),
        ("[0.5, 3]", "3", "hours: found 3"),
        ("hours = [0.5, 3]", "weight = 3", "found the key 'weight'; allowed: .*'glasses', 'hours'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_catalogue_are_sentences(tmp_path, old, new, message):
    assert written(tmp_path, GOOD)
    assert old in GOOD
    with pytest.raises(InputError, match=rf"personas.toml.*{message}"):
        written(tmp_path, GOOD.replace(old, new, 1))


def test_phrases_of_a_stranger_do_not_take_for_ever(tmp_path):
    """Whatever a phrase may say, it is matched in time: there is no pattern of its own in it."""
    catalogue = written(tmp_path, GOOD.replace("i wear {}", "[a][a][a][a] (a+)+ aaaaaaaaaaaa {}"))
    assert profile_of_text("a" * 100_000 + " " + "a " * 100_000, catalogue.attributes, "en") == {}


# Models, new and old


def model_of(catalogue: Catalogue, texts: list[str], k: int):
    encoder = LsaEncoder.fit(texts)
    return fit_personas(encoder.encode(texts), texts, catalogue, encoder=encoder, k=k)


def test_a_saved_model_makes_the_same_customers(tmp_path, headphones, walk):
    from recsys_jax.data.dataset import read_schema
    from recsys_jax.personas.customers import read_reviews

    shop = walk[0] / "headphones"
    reviews = read_reviews(shop, read_schema(shop))
    model = model_of(headphones, reviews.texts, 4)
    save_personas(model, tmp_path)
    loaded, embeddings = load_personas(tmp_path), model.encoder.encode(reviews.texts)
    assert (loaded.personas, loaded.central, loaded.evidence) == (model.personas, model.central, model.evidence)
    assert customer_rows(reviews, loaded, embeddings, 0) == customer_rows(reviews, model, embeddings, 0)


FORMER = '[[persona]]\nname = "A"\ndescription = "-"\nkeywords = ["건조"]\nskin_type = "dry"\nskin_concern = "gift"\n'
FORMER += "age = [20, 30]\nfemale_share = 0.25\n"


def test_former_catalogues_are_those_of_cosmetics(tmp_path):
    former = written(tmp_path, FORMER)
    assert (former.attributes, former.language) == (shipped().attributes, "ko")
    draws = {"age": (20, 30), "gender": {"F": 0.25, "M": 0.75}, "skin_type": "dry", "skin_concern": "gift"}
    assert former.personas[0].draws == draws
    for key in ("skin_type", "female_share"):
        with pytest.raises(InputError, match=f"persona 1: {key}: it is not given"):
            written(tmp_path, re.sub(rf"{key} = .*\n", "", FORMER))


def test_a_catalogue_may_have_personas_alone(tmp_path):
    alone = '[[persona]]\nname = "A"\ndescription = "-"\nkeywords = ["tea"]\n'
    catalogue = written(tmp_path, alone)
    assert (catalogue.attributes, catalogue.personas[0].draws) == ((), {})
    with pytest.raises(InputError, match=r"found the key 'colour'; allowed: 'name', 'description', 'keywords'$"):
        written(tmp_path, f"{alone}colour = 1")


@pytest.mark.parametrize("version", [2, 3])
def test_former_models_load(tmp_path, version):
    """As they were saved before personas had attributes of their own."""
    texts = [f"건조 보습 {n}" for n in range(8)] + [f"선물 포장 {n}" for n in range(8)]
    model = model_of(written(tmp_path, FORMER), texts, 2)
    save_personas(model, tmp_path / "p")
    path = tmp_path / "p" / "model.json"
    document = json.loads(path.read_text("utf-8"))
    table = {**tomllib.loads(FORMER)["persona"][0]}
    for key in ("catalogue", "central", "sha256"):
        del document[key]
    document |= {"format": version, "personas": [table, {**table, "name": "B"}], "sha256": UNSEALED}
    if version == 2:
        del document["sha256"]
    text = json.dumps(document, ensure_ascii=False) + "\n"
    path.write_text(sealed(text) if version == 3 else text, "utf-8")
    assert version == 2 or is_sealed(path.read_bytes(), json.loads(path.read_text("utf-8"))["sha256"])
    loaded = load_personas(tmp_path / "p")
    assert loaded.names == ("A", "B")
    assert loaded.personas[0].draws["gender"] == {"F": 0.25, "M": 0.75}
    vectors = model.encoder.encode(texts)
    np.testing.assert_array_equal(assign(loaded, vectors)[0], assign(model, vectors)[0])


# No catalogue


def test_without_a_catalogue_the_persona_is_the_one_attribute(tmp_path, walk):
    """The section of the manual, in the shop of headphones: personas, training, evaluation and recommendations."""
    shop = tmp_path / "headphones"
    write_headphones(shop, 0)
    before = (shop / "dataset.toml").read_text("utf-8").replace('[personas]\ncatalogue = "personas.toml"\n', "")
    section = blocks("docs/personas.md", "toml")[0].text
    (shop / "dataset.toml").write_text(before.partition("[customers]")[0] + section, "utf-8")
    (shop / "personas.toml").unlink()
    said = done("personas", "headphones", "--k", 4, "--encoder", "lsa", cwd=tmp_path).stdout
    about = said.partition("silhouette at k")[2].partition("note: ")[0]
    assert about
    assert "(" not in about  # nothing is weak, and no k chosen: it was given
    customers = json.loads((tmp_path / "runs" / "headphones" / "customers.json").read_text("utf-8"))
    columns = ["user_id", "persona_id", "persona_name", "purchased_product_id", "product_category"]
    assert list(customers[0]) == columns
    names = {one["persona_name"] for one in customers}
    words = {word for name in names for word in name.split(" · ")}
    assert len(names) == 4
    assert not words & {"the", "and", "this", "with", "them", "bought", "use", "like"}
    done("train", "headphones", cwd=tmp_path)
    done("evaluate", "headphones", "--folds", 3, cwd=tmp_path)
    metrics = json.loads((tmp_path / "runs" / "headphones" / "cross-validation" / "metrics.json").read_text("utf-8"))
    # Each fold clusters anew, and calls the clusters as they are called here.
    assert set(metrics["methods"]["model"]["mrr"]) == {"all", *names}
    best = done("recommend", "runs/headphones", f"persona_name={customers[0]['persona_name']}", "--json", cwd=tmp_path)
    assert json.loads(best.stdout)


# Keywords


def keywords(*clusters: list[str]) -> list[set[str]]:
    texts = [text for texts in clusters for text in texts]
    labels = np.repeat(range(len(clusters)), [len(texts) for texts in clusters])
    return [set(words) for words in distinctive_keywords(texts, labels, len(clusters))]


def test_english_keywords_are_none_that_every_review_has():
    stick = [f"I bought this stick and the silence on the train is great, don't hesitate {n}" for n in range(6)]
    other = [f"This is the one I've wanted for jogging, it's really good {n}" for n in range(6)]
    one, two = keywords(stick, other)
    assert one == {"silence", "train", "hesitate"}
    assert two == {"jogging"}


def test_words_that_hold_a_sentence_together_are_no_keywords():
    """The auxiliaries of English, in full, contracted, and as people write these without the apostrophe."""
    verbs = ["do", "does", "did", "is", "are", "was", "were", "have", "has", "had", "could", "would", "should"]
    denied = [f"{start}{sign}t" for start in ("can", "won", *(f"{verb}n" for verb in verbs)) for sign in ("'", "’", "")]
    verbs += ["can", "will", "must", "may", "might", "shall", "having", "being", "doing", "buy", "buying", "buys"]
    others = "theirs yours ours hers themselves whom i've ive you're youre that's thats actually absolutely bought"
    words = " ".join([*verbs, *denied, others])
    assert keywords([f"silence {words} {n}" for n in range(6)], [f"jogging {n}" for n in range(6)])[0] == {"silence"}


def test_japanese_keywords_are_cut_by_script():
    tea = [f"この緑茶はとても香りがよくて、毎日の朝食に合います。商品を購入しました {n}" for n in range(6)]
    coffee = [f"コーヒーは苦味が強いけど、牛乳と飲むのが好きです。商品を購入しました {n}" for n in range(6)]
    one, two = keywords(tea, coffee)
    assert {"緑茶", "香", "朝食"} <= one
    assert {"コーヒー", "苦味", "牛乳"} <= two
    assert not {"商品", "購入", "とても", "です"} & (one | two)


def test_korean_keywords_are_stems():
    scent = [
        "향이 은은하게 오래가요",
        "향은 은은하고 효과가 있어요",
        "향을 좋아해요 은은한",
        "향이 좋고 나이가 들어도",
        "향은 은은합니다 나이",
    ]
    soft = ["촉촉하게 발려요", "피부가 촉촉해요", "피부에 촉촉합니다", "피부는 촉촉하고", "피부를 촉촉한"]
    one, two = keywords(scent, soft)
    assert {"향", "은은", "나이"} <= one
    assert {"촉촉", "피부"} <= two
    # A verb of one syllable is none in the past, either.
    meal = ["라면을 끓였어요 먹었어요", "라면에 넣으니 먹었습니다", "라면 먹었는데 넣으니"]
    assert keywords(meal, ["포장이 예뻐요", "포장 예뻐요"])[0] == {"라면"}


def test_a_rare_word_is_no_keyword():
    many = [f"silence on the train {n}" for n in range(400)]
    many[:3] = [f"{text} zebra" for text in many[:3]]
    one, _ = keywords(many, [f"jogging {n}" for n in range(400)])
    assert "zebra" not in one
    assert "silence" in one


# The mall


KOREAN = ["skin_type=건성", "gender=여성", "skin_concern=보습", "age=32"]
ENGLISH = ["skin_type=dry", "gender=F", "skin_concern=moisture", "age=32"]


def test_the_mall_understands_its_own_language(tmp_path):
    """From the reviews to a recommendation, in a batch, and in a rule of the shop."""
    from recsys_jax import Recommender

    out = tmp_path / "run"
    done("personas", MALL, "--run", out, "--encoder", "lsa")
    done("train", MALL, "deep", "--epochs", 2, "--run", out)
    (tmp_path / "boosts.toml").write_text(
        '[[boost]]\ncustomer = { skin_type = "건성" }\nproduct = { category = 97 }\nadd = 1\n', "utf-8"
    )
    asked = ("recommend", out, "--json", "--boosts", tmp_path / "boosts.toml")
    found = json.loads(done(*asked, *KOREAN).stdout)
    assert found == json.loads(done(*asked, *ENGLISH).stdout)
    assert {json.dumps(one["category"]) for one in found} == {'"Skincare"'}
    rec = Recommender.load(out)
    said, meant = (dict(part.split("=") for part in words) for words in (KOREAN, ENGLISH))
    assert rec.recommend_batch([said]) == rec.recommend_batch([meant])
    told(run("recommend", out, *[word.replace("건성", "가죽") for word in KOREAN]), "skin_type: found '가죽'")
    for stated in (["skin_type=건성"], ["skin_type=건성", "gender="]):
        alone = done("recommend", out, *stated).stdout
        assert "Not stated, so taken as dataset.toml says: skin_concern moisture, gender F, age 35\n" in alone
    assert "Not stated" not in done("recommend", out, *KOREAN).stdout
    assert rec.recommend(skin_type="건성") == rec.recommend(**{**meant, "age": 35})


def test_the_malls_values_have_korean_aliases_that_mean_what_its_catalogue_says():
    features = tomllib.loads((MALL / "dataset.toml").read_text("utf-8"))["customers"]["features"]
    aliases = {
        one["name"]: {word: value for word, value in one.get("aliases", {}).items() if not word.isascii()}
        for one in features
    }
    for attribute in shipped().attributes:
        assert set(aliases[attribute.name].values()) == set(attribute.values)
        for word, value in aliases[attribute.name].items():
            assert parse_profile(word, [attribute], "ko") == ({attribute.name: value}, []), word


def test_the_packaged_files_are_those_of_the_mall():
    for packaged, shown in (("amoremall.toml", "dataset.toml"), ("personas.toml", "personas.toml")):
        assert (ROOT / "recsys_jax" / "data" / packaged).read_bytes() == (MALL / shown).read_bytes()


def test_no_code_knows_of_cosmetics():
    for path in (ROOT / "recsys_jax" / "personas").glob("*.py"):
        assert not re.findall(r"skin_type|skin_concern|moisture|wrinkle", path.read_text("utf-8")), path.name
    assert replace(shipped(), personas=()).personas == ()
