import json
import re
from contextlib import contextmanager
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import sklearn

from recsys_jax.console.pictures.plots import persona_distribution, silhouette_curve
from recsys_jax.data.dataset import load_dataset
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import customer_folds
from recsys_jax.errors import InputError
from recsys_jax.personas import clustering as personas
from recsys_jax.personas.catalogue import Catalogue, Persona, parse_persona, read_catalogue, shipped
from recsys_jax.personas.clustering import assign, fit_personas, load_personas, renamed, save_personas
from recsys_jax.personas.customers import (
    Reviews,
    attribute_sources,
    customer_rows,
    not_used,
    profiles_alone,
    read_reviews,
)
from recsys_jax.personas.definition import persona_definition
from recsys_jax.personas.encoders import LsaEncoder, get_encoder
from recsys_jax.personas.folds import personas_of_fold
from recsys_jax.personas.keywords import distinctive_keywords
from recsys_jax.personas.profiles import parse_profile, profile_of_text

MALL = Path(__file__).parents[2] / "data" / "amoremall"


def persona(name, description, keywords, skin_type, skin_concern, age, women):
    gender = {"F": women, "M": 1 - women}
    return Persona(name, description, keywords, dict(zip(NAMES, (age, gender, skin_type, skin_concern), strict=True)))


NONE = Catalogue()
NAMES = ("age", "gender", "skin_type", "skin_concern")
CATALOGUE = replace(
    shipped(),
    personas=(
        persona("Dry", "Dry skin", ("건조", "보습"), "dry", "moisture", (35, 49), 1.0),
        persona("Gift", "Gifts", ("선물", "포장"), "normal", "gift", (20, 44), 0.0),
        persona("Calm", "Sensitive skin", ("진정", "자극"), "sensitive", "calming", (20, 44), 0.5),
    ),
)
# Themes in the catalogue's order, then one that no persona of it is about.
THEMES = ("건조해서 보습이 중요", "선물로 포장", "자극 없이 진정", "머릿결 두피 샴푸")
PER_THEME = 8


class Fake:
    """Puts each theme at a corner of its own; the texts of a theme lie close together, none on another."""

    name = "fake"

    def encode(self, texts, progress=None):
        rows = []
        for text in texts:
            corner = 10 * np.eye(5)[next(i for i, theme in enumerate(THEMES) if theme in text)]
            rows.append(corner + 0.1 * np.sin(np.arange(5) * (1 + int(text.split()[-1]))))
        return np.array(rows, np.float32)


def corpus(order, per_theme=PER_THEME):
    texts = [f"{THEMES[theme]} 번호 {number}" for theme in order for number in range(per_theme)]
    return texts, Fake().encode(texts), np.repeat(order, per_theme)


def reviews_of(texts, products=None, profiles=None):
    products = products or [f"p{i}" for i in range(len(texts))]
    return Reviews("memory", list(texts), products, profiles or [None] * len(texts))


def fitted(order=(0, 1, 2), **options):
    texts, embeddings, _ = corpus(order)
    return fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), **{"k": len(order), **options})


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_names_do_not_depend_on_cluster_numbers(order):
    texts, embeddings, themes = corpus(order)
    for seed in range(3):
        model = fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), k=3, seed=seed)
        labels, distances = assign(model, embeddings)
        assert model.names == ("Dry", "Gift", "Calm")
        np.testing.assert_array_equal(labels, themes)
        assert (distances < 1).all()


def test_names_are_given_once_though_every_cluster_fits_one_persona_best():
    # All three themes speak of gifts; only what they say beside that can tell them apart.
    texts, embeddings, themes = corpus((0, 1, 2))
    texts = [f"선물 {text}" for text in texts]
    model = fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), k=3)
    np.testing.assert_array_equal(assign(model, embeddings)[0], themes)


def leftover_name():
    """Two clusters speak of dry skin alike; one of them uses another persona's keyword too, less surely."""
    _, embeddings, _ = corpus((0, 1, 2))
    texts = ["건조 리본", *["건조"] * 7, *["건조 리본"] * 5, *["건조"] * 3, *["진정 리본"] * 2, *["진정"] * 6]
    dry, gift, calm = CATALOGUE.personas
    catalogue = (dry, replace(gift, keywords=("리본",)), calm)
    return (
        fit_personas(embeddings, texts, replace(CATALOGUE, personas=catalogue), encoder=Fake(), k=3),
        texts,
        embeddings,
    )


def test_a_name_that_the_matching_left_is_marked(tmp_path):
    model, texts, embeddings = leftover_name()
    assert model.names == ("Dry", "Gift", "Calm")
    assert min(model.evidence) > 2  # so it is not the weak mark that tells
    save_personas(model, tmp_path)
    assert load_personas(tmp_path, encoder="fake").nearest == model.nearest == ("Dry", "Dry", "Calm")
    note = "a leftover name: its reviews read more like Dry"
    assert [model.name_note(number) for number in range(3)] == ["", note, ""]
    path, sources = tmp_path / "P.md", attribute_sources(reviews_of(texts), model, assign(model, embeddings)[0])
    persona_definition(path, model, texts, *assign(model, embeddings), sources)
    text = path.read_text("utf-8")
    assert text.count(f"({note})") == 1
    assert "weak" not in text


def gadgets(*personas, core="Works as advertised", edge="Does not work"):
    """A cluster with ten reviews about its centre and six at its edge, and one of others, named by these personas."""
    spread = [*np.linspace(-1, 1, 10), *(-5, 5) * 3]
    texts = [f"{core if n < 10 else edge}, gadget {n}" for n in range(16)]
    texts += [f"Given to a cousin with ribbon {n}" for n in range(20)]
    points = np.array([(x, 0.01 * n) for n, x in enumerate(spread)] + [(0.1 * n, 99) for n in range(20)])
    kinds = tuple(Persona(name, name, words, {}) for name, *words in personas)
    return fit_personas(points, texts, Catalogue("en", (), kinds), encoder=Fake(), k=2), texts, points


def test_a_name_that_the_central_reviews_do_not_bear_out_goes(tmp_path):
    """As a public shop had it: six complaints at the edge of a cluster whose centre is content."""
    model, texts, points = gadgets(("Disappointed", "not work", "broken"))
    assert model.nearest == ("Disappointed", "Disappointed")
    [weak] = [number for number, name in enumerate(model.names) if name.endswith(" (Disappointed)")]
    assert model.evidence[weak] > 2  # so the keywords alone would have named it
    assert model.central[weak] == 0
    note = model.name_note(weak)
    assert note == "named by its own keywords, as only reviews at its edge are like Disappointed"
    sources = attribute_sources(reviews_of(texts), model, assign(model, points)[0])
    persona_definition(tmp_path / "P.md", model, texts, *assign(model, points), sources)
    text = (tmp_path / "P.md").read_text("utf-8").replace("\\", "")
    assert f"## {weak}. {model.names[weak]}\n" in text
    assert "Evidence for the name: those of Disappointed are used +" in text
    assert f"above chance, and in 0% of its most central reviews ({note})\n" in text
    # Where the centre complains, the name holds.
    model, _, _ = gadgets(("Disappointed", "not work", "broken"), core="Does not work", edge="Works as advertised")
    assert "Disappointed" in model.names


@pytest.mark.parametrize("denied", ["Does not work", "Doesn't really seem to work", "It never works", "Can’t work"])
def test_a_denied_keyword_names_nothing(denied):
    model, _, _ = gadgets(("Content", "work"), core=denied, edge=denied)
    assert [name for name in model.names if "Content" in name] == []
    model, _, _ = gadgets(("Content", "work"), core="Works", edge=denied)
    assert "Content" in model.names


def test_a_second_cluster_like_a_persona_is_called_by_its_keywords():
    texts, embeddings, _ = corpus((0, 0, 1))
    embeddings[:PER_THEME] += 10 * np.eye(5, dtype=np.float32)[4]
    texts[:PER_THEME] = [f"{text} 사무실" for text in texts[:PER_THEME]]
    model = fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), k=3)
    assert model.names[0] == "Dry"
    assert model.names[1].endswith(" (Dry)")
    assert model.name_note(1) == "like Dry, whose name another one has"
    assert model.personas[1].draws == {**CATALOGUE.personas[0].draws, "age": (20, 44)}


def test_names_without_a_rival_are_not_marked():
    texts, embeddings, _ = corpus((3, 0, 1, 2))
    # A name made of keywords, and texts that speak for every persona alike, are no leftovers.
    for spoken in (texts, ["같은 글"] * len(texts)):
        model = fit_personas(embeddings, spoken, CATALOGUE, encoder=Fake(), k=4)
        assert [model.name_note(number) for number in range(4)] == [""] * 4
        assert set(model.nearest) <= {"Dry", "Gift", "Calm"}


def test_clusters_beyond_the_catalogue_are_named_by_their_keywords(tmp_path):
    texts, embeddings, themes = corpus((3, 0, 1, 2))
    model = fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), k=4)
    assert model.names[:3] == ("Dry", "Gift", "Calm")
    assert set(model.names[3].split(" · ")) < {"머릿결", "두피", "샴푸"}
    assert model.personas[3].draws["age"] == (20, 44)
    np.testing.assert_array_equal(assign(model, embeddings)[0], themes)
    many = fit_personas(embeddings, ["같은 글"] * len(texts), CATALOGUE, encoder=Fake(), k=8)
    assert len(set(many.names)) == 8  # also where the texts tell nothing apart
    save_personas(many, tmp_path)
    assert load_personas(tmp_path, encoder="fake").personas == many.personas


def test_personas_of_a_fold_are_called_as_those_with_the_most_reviews_in_common():
    """Whatever the fold would call them: results by persona are of one persona under each name."""
    model, labels = fitted(), np.repeat([0, 1, 2], [8, 6, 10])
    assert model.names == ("Dry", "Gift", "Calm")

    def called(*names):
        return replace(model, personas=tuple(replace(model.personas[0], name=name) for name in names))

    assert renamed(model, labels, called("샴푸_두피", "Calm", "Dry"), labels[::-1]).names == (
        "Dry",
        "Calm",
        "샴푸_두피",
    )
    # Two clusters that were one: the larger has its name, the other its own, which is given once.
    assert renamed(model, labels, called("Gift", "Dry"), np.minimum(labels, 1)).names == ("Gift", "Gift (2)", "Dry")


def test_fewer_clusters_than_personas_take_the_best_names():
    assert fitted((2, 1)).names == ("Gift", "Calm")
    assert fitted((0, 2)).names == ("Dry", "Calm")


def test_a_name_of_korean_keywords_reads_as_reviews_say_them():
    """Stems of verbs and adjectives in their most frequent form, denied where they are; no word twice."""
    texts, embeddings, themes = corpus((0, 3))
    said = {0: "끈적이지 않고 산뜻하게 스며요", 3: "크림을 발랐는데 크림이라고 하네요 두피가 시원"}
    texts = [said[theme] for theme in themes]
    model = fit_personas(embeddings, texts, NONE, encoder=Fake(), k=2)
    both = {word for name in model.names for word in name.split(" · ")}
    assert {len(name.split(" · ")) for name in model.names} == {2}
    assert both <= {"끈적이지 않고", "산뜻하게", "스며요", "크림", "두피", "시원", "발랐는데"}, both
    assert not {"산뜻", "끈적이지"} & both


def test_a_name_of_korean_keywords_is_of_nouns_where_there_are_some():
    """Verbs come behind them, however much they tell apart; and what makes a noun a verb is cut off."""
    texts, embeddings, themes = corpus((0, 3))
    said = {0: "데려와서 사봤어요 걱정인데 계단을 오르더라", 3: "배송비도 무료라 쟁여뒀어요 가격이 착해서"}
    texts = [said[theme] for theme in themes]
    model = fit_personas(embeddings, texts, NONE, encoder=Fake(), k=2)
    assert {frozenset(name.split(" · ")) for name in model.names} == {
        frozenset(["걱정", "계단"]),
        frozenset(["가격", "배송비"]),
    }


@pytest.mark.parametrize("planted", [3, 5])
def test_auto_finds_the_planted_number(planted):
    rng = np.random.default_rng(planted)
    points = np.concatenate([10 * np.eye(8)[i] + rng.normal(0, 0.5, (20, 8)) for i in range(planted)])
    model = fit_personas(points, ["글"] * len(points), CATALOGUE, encoder=Fake(), k="auto", k_range=range(2, 9))
    assert len(model.names) == planted
    assert list(model.silhouettes) == list(range(2, 9))
    assert max(model.silhouettes, key=model.silhouettes.get) == planted


@pytest.mark.parametrize("k", [0, 1, 24, 100])
def test_impossible_number_of_clusters_is_an_error(k):
    with pytest.raises(InputError, match="allowed: 'auto' or 2 to 23"):
        fitted(k=k)


@pytest.mark.wild
def test_personas_where_scikit_learn_gives_data_frames():
    pytest.importorskip("pandas")
    with sklearn.config_context(transform_output="pandas"):
        again = fitted()
    for name in ("mean", "components", "centres"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted(), name))
    assert isinstance(again.centres, np.ndarray)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_impossible_seed_is_an_error(seed, monkeypatch):
    said = f"seed: found {seed}; allowed: from 0 to 4294967295"
    with pytest.raises(InputError, match=said):
        fitted(seed=seed)
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    from recsys_jax.cli.personas import Options, main

    with pytest.raises(InputError, match=said):
        main(Options(MALL, encoder="lsa", seed=seed))


def test_largest_seed_is_allowed():
    assert fitted(seed=2**32 - 1).names == ("Dry", "Gift", "Calm")


def test_too_few_reviews_for_auto_are_an_error():
    texts, embeddings, _ = corpus((0,), per_theme=2)
    with pytest.raises(InputError, match="different reviews: found 2"):
        fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), k="auto")


def test_keywords_tell_a_cluster_from_the_rest_without_particles_links_and_common_words():
    texts = ["향수가 정말 좋아요 https://shop.example/amore", "향수는 &lsquo;은은&rsquo;해요", "향수"] * 2
    texts += ["쿠션을 정말 좋아요", "쿠션이", "쿠션은 은은"] * 2
    words = distinctive_keywords(texts, np.repeat([0, 1], 6), 2)
    assert words[0][0] == "향수"
    assert words[1][0] == "쿠션"
    assert not {"정말", "좋아요", "https", "shop", "amore"} & {*words[0], *words[1]}


@pytest.mark.parametrize("encoder", ["fake", "lsa"])
def test_saved_model_assigns_the_same(tmp_path, encoder):
    texts, embeddings, _ = corpus((0, 1, 2, 3))
    used = Fake() if encoder == "fake" else LsaEncoder.fit(texts)
    embeddings = used.encode(texts)
    model = fit_personas(embeddings, texts, CATALOGUE, encoder=used, k=4)
    save_personas(model, tmp_path / "personas")
    loaded = load_personas(tmp_path / "personas", tmp_path, encoder=encoder)
    assert (loaded.personas, loaded.keywords, loaded.names) == (model.personas, model.keywords, model.names)
    assert (loaded.evidence, loaded.silhouettes) == (model.evidence, model.silhouettes)
    assert loaded.encoder.name == encoder
    for ours, theirs in zip(assign(model, embeddings), assign(loaded, embeddings), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if encoder == "lsa":
        np.testing.assert_array_equal(loaded.encoder.encode(["보습 글"]), used.encode(["보습 글"]))


def test_new_reviews_join_fitted_personas(tmp_path):
    """As the docstring of `recsys_jax.personas.clustering` says it."""
    texts, _, _ = corpus((0, 1, 2))
    encoder = LsaEncoder.fit(texts)
    save_personas(fit_personas(encoder.encode(texts), texts, CATALOGUE, encoder=encoder, k=3), tmp_path)

    model = load_personas(tmp_path)
    labels, distances = assign(
        model, model.encoder.encode(["포장까지 선물로 딱", "보습이 중요, 건조해서", "자극 없이"])
    )
    assert [model.names[label] for label in labels] == ["Gift", "Dry", "Calm"]
    assert distances.shape == (3,)
    assert "assign(model, model.encoder.encode([" in personas.__doc__


def test_damaged_or_absent_model_is_an_error(tmp_path):
    folder = tmp_path / "personas"
    with pytest.raises(InputError, match="recsys-jax personas"):
        load_personas(folder)
    model = fitted()
    save_personas(model, folder)
    arrays = folder / "arrays.npz"
    content = arrays.read_bytes()
    arrays.write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match="checksum"):
        load_personas(folder)
    arrays.write_bytes(content)
    document = json.loads((folder / "model.json").read_text())
    persona = {**document["personas"][0], "skin_type": "leather"}
    for change in (
        {"format": 1},
        {"nearest": None},
        {"nearest": ["Dry"]},
        {"personas": document["personas"][:2]},
        {"personas": [persona]},
        {"personas": 3},
        {"keywords": None},
        {"silhouettes": {"six": 1}},
    ):
        (folder / "model.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(InputError, match="personas"):
            load_personas(folder)


def test_embeddings_of_another_encoder_are_refused():
    with pytest.raises(InputError, match=r"found 7 numbers per review.*5.*'fake'"):
        assign(fitted(), np.zeros((2, 7)))


class Profile(NamedTuple):
    """What the mall's catalogue knows of a customer."""

    age: int | None = None
    gender: str | None = None
    skin_type: str | None = None
    skin_concern: str | None = None


@pytest.mark.parametrize(
    ("profile", "stated", "unused"),
    [
        ("40대/남성/복합성/주름", Profile(45, "M", "combination", "wrinkle"), []),
        ("20대 초반/여성/건성/수분", Profile(22, "F", "dry", "moisture"), []),
        ("여성/30대", Profile(35, "F", None, None), []),
        ("34세/여/민감성/트러블,모공", Profile(34, "F", "sensitive", "calming"), ["모공"]),
        # Words that can be a skin type or a concern.
        ("20대/여성/민감/주름", Profile(25, "F", "sensitive", "wrinkle"), []),
        ("30대/여성/건조/모공", Profile(35, "F", "dry", "texture"), []),
        ("20대/여성/민감/다크서클", Profile(25, "F", "sensitive", None), ["다크서클"]),
        ("20대/여성/민감/", Profile(25, "F", "sensitive", None), []),
        ("20대/여성//민감", Profile(25, "F", None, "calming"), []),
        ("20대/여성/건조/민감", Profile(25, "F", "dry", "calming"), []),
        ("20대/여성/민감,건조/주름", Profile(25, "F", "sensitive", "wrinkle"), ["건조"]),
        ("20대/여성/민감/지성", Profile(25, "F", "oily", "calming"), []),
        ("20대,여성,민감,주름,모공", Profile(25, "F", "sensitive", "wrinkle"), ["모공"]),
        ("20대/여성/민감/주름,모공", Profile(25, "F", "sensitive", "wrinkle"), ["모공"]),
        ("여성/주름/예민", Profile(None, "F", "sensitive", "wrinkle"), []),
        ("여성/민감", Profile(None, "F", None, "calming"), []),
        ("30대/여성/건조", Profile(35, "F", None, "moisture"), []),
        ("30대/여성/건성/예민", Profile(35, "F", "dry", "calming"), []),
        ("30대/여성/지성/건조/모공", Profile(35, "F", "oily", "moisture"), ["모공"]),
        # Skin types in other words; what comes second and differs; what is only said twice.
        ("악지성/수분", Profile(None, None, "oily", "moisture"), []),
        ("건성 피부", Profile(skin_type="dry"), []),
        ("지성 피부", Profile(skin_type="oily"), []),
        ("예민한 피부", Profile(skin_type="sensitive"), []),
        ("민감피부/남", Profile(None, "M", "sensitive", None), []),
        ("극민감성 타입", Profile(skin_type="sensitive"), []),
        ("중성/여", Profile(None, "F", "normal", None), []),
        ("피부", Profile(), ["피부"]),
        ("건성/지성/30대/여성/40대/남", Profile(35, "F", "dry", None), ["지성", "40대", "남"]),
        ("건성/악건성/트러블/홍조", Profile(None, None, "dry", "calming"), []),
        (" 50대 이상 / 여성 / / ", Profile(55, "F", None, None), []),
        ("비공개/여성/지성/다크서클", Profile(None, "F", "oily", None), ["비공개", "다크서클"]),
        ("dry/gift/f", Profile(None, "F", "dry", "gift"), []),
        ("-", Profile(), ["-"]),
        ("", Profile(), []),
        (None, Profile(), []),
    ],
)
def test_profile(profile, stated, unused):
    said = {name: value for name, value in zip(NAMES, stated, strict=True) if value is not None}
    assert parse_profile(profile, CATALOGUE.attributes, "ko") == (said, unused)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("30대 후반 입니다. 평생을 지성으로 살아왔어요", Profile(age=37, skin_type="oily")),
        ("이젠 40대가되니 더 건조하고", Profile(age=45)),
        ("20대 초반인데 벌써 주름이", Profile(age=22)),
        ("만 34세입니다", Profile(age=34)),
        ("마흔이 넘으니 달라요", Profile(age=40)),
        ("30대 남자입니다", Profile(age=35, gender="M")),
        ("건성이라 겨울에 힘들어요", Profile(skin_type="dry")),
        ("지성 피부인 저에게 딱", Profile(skin_type="oily")),
        ("제 복합성 피부에 맞아요", Profile(skin_type="combination")),
        ("민감성 피부라 걱정했는데", Profile(skin_type="sensitive")),
        ("피부가 예민해서 순한 것만", Profile(skin_type="sensitive")),
        ("남편이 사 줬는데 저는 건성이라 좋아요", Profile(skin_type="dry")),
        # Said of products, of others, of anybody; or of two things at once.
        ("건성용 제품", Profile()),
        ("건성 피부에 좋아요", Profile()),
        ("지성 피부라면 낮에는 가볍게", Profile()),
        ("건성이신 분들께 추천", Profile()),
        ("건성이라도 괜찮아요", Profile()),
        ("엄마는 건성이라 좋아하세요", Profile()),
        ("아빠가 지성피부 타입이라 드렸어요", Profile()),
        ("제 딸은 민감성 피부인데", Profile()),
        ("지성은 아니지만", Profile()),
        ("저는 건성피부이면서 예민한 편인데", Profile()),
        ("중성적인 향", Profile()),
        ("20대 여성에게 추천", Profile()),
        ("20대부터 꾸준히", Profile()),
        ("50대 어머니 선물", Profile()),
        ("어머니가 60대이신데 40대인데도 그래요", Profile()),
        ("20대30대 유튜버", Profile()),
        ("남자친구 선물", Profile()),
        ("남자라면 누구나", Profile()),
        ("남편도 이제 마흔이 되니", Profile()),
    ],
)
def test_what_a_text_says_of_its_writer(text, stated):
    said = {name: value for name, value in zip(NAMES, stated, strict=True) if value is not None}
    assert profile_of_text(text, CATALOGUE.attributes, "ko") == said


def test_profile_goes_before_text_before_persona():
    texts = [f"{THEMES[0]} 30대인데 민감성 피부라 {i}" for i in range(3)]
    reviews = reviews_of(texts, profiles=["50대/남성/지성/주름", "비공개/여성", None])
    model, embeddings = fitted(), Fake().encode(texts)
    rows = customer_rows(reviews, model, embeddings, seed=0)
    assert rows["persona_name"] == ["Dry"] * 3
    assert rows["age"] == [55, 35, 35]
    assert rows["gender"] == ["M", "F", "F"]  # the last from the persona, all of whom are women
    assert rows["skin_type"] == ["oily", "sensitive", "sensitive"]
    assert rows["skin_concern"] == ["wrinkle", "moisture", "moisture"]
    assert rows["user_id"] == ["user_0001", "user_0002", "user_0003"]
    assert "product_category" not in rows
    counts = attribute_sources(reviews, model, assign(model, embeddings)[0])
    assert counts["age"] == {"profile_info": 1, "text": 2}
    assert counts["gender"] == {"profile_info": 2, "persona": 1}
    assert counts["skin_concern"] == {"profile_info": 1, "persona": 2}
    [note] = not_used(reviews, CATALOGUE)
    assert note == f"{reviews.source}: of what reviewers state, this is not used: '비공개' (1)"


def test_whether_profiles_alone_say_what_customers_are():
    def alone(texts, profiles, columns, catalogue=CATALOGUE):
        return profiles_alone(Reviews("x", texts, ["p"] * len(texts), profiles), catalogue, columns)

    texts = ["좋아요", "20대 남자인데 좋아요"]
    assert alone(texts, ["30대/여성", "40대/남성"], ["age", "gender"])
    assert not alone(texts, ["30대/여성", "여성"], ["age"])  # the text states the second age
    assert alone(texts, ["30대/여성", "여성"], ["gender"])
    assert not alone(texts, ["30대/여성", None], ["skin_type"])  # drawn for the persona
    undrawn = replace(CATALOGUE, personas=(), attributes=tuple(replace(one, draw=None) for one in CATALOGUE.attributes))
    assert alone(texts, ["30대/여성", None], ["skin_type"], undrawn)  # missing
    assert not alone(texts, ["30대/여성", "40대/남성"], ["age", "persona_name"])


@pytest.mark.parametrize("profile", [["30대", "여성"], 30, 0, False, {"age": 30}])
def test_a_profile_that_is_no_text_is_refused(mall, profile):
    rows = json.loads((mall / "products.json").read_text("utf-8"))
    rows[0]["reviews"][1]["profile_info"] = profile
    (mall / "products.json").write_text(json.dumps(rows), "utf-8")
    said = (
        rf"products.json, row 1, reviews 2: profile_info: found {re.escape(repr(profile))}; allowed: a text .* or null"
    )
    with pytest.raises(InputError, match=said):
        read_reviews(mall, Schema.read(mall / "dataset.toml"))


def test_attributes_do_not_come_from_the_purchased_product():
    texts, embeddings, _ = corpus((0, 1, 2))
    model, n = fitted(), len(texts)
    one = customer_rows(reviews_of(texts), model, embeddings, 3, {f"p{i}": 97 for i in range(n)})
    other = customer_rows(reviews_of(texts, ["x"] * n), model, embeddings, 3, {"x": 103})
    products = {"purchased_product_id", "product_category"}
    assert {key for key in one if one[key] != other[key]} == products
    assert other["product_category"] == [103] * n


def test_a_customer_does_not_depend_on_how_many_there_are():
    texts, embeddings, _ = corpus((2, 1, 0))
    model = fitted()
    everyone = customer_rows(reviews_of(texts), model, embeddings, 5)
    few = customer_rows(reviews_of(texts[:7]), model, embeddings[:7], 5)
    assert few == {key: column[:7] for key, column in everyone.items()}
    assert everyone != customer_rows(reviews_of(texts), model, embeddings, 6)


def test_what_is_drawn_is_what_former_versions_drew():
    """Age before gender, from a generator of the seed and the review's number; the rest is no matter of chance."""
    texts = [f"{THEMES[2]} {i}" for i in range(40)]
    rows = customer_rows(reviews_of(texts), fitted(), Fake().encode(texts), 7)
    for index, (age, gender) in enumerate(zip(rows["age"], rows["gender"], strict=True)):
        rng = np.random.default_rng([7, index])
        assert age == rng.integers(20, 44, endpoint=True)
        assert gender == ("M" if rng.random() >= 0.5 else "F")


def test_drawn_ages_and_genders_follow_the_persona():
    texts = [f"{THEMES[2]} {i}" for i in range(600)]
    rows = customer_rows(reviews_of(texts), fitted(), Fake().encode(texts), 0)
    assert set(rows["age"]) == set(range(20, 45))
    assert 0.4 < np.mean([gender == "F" for gender in rows["gender"]]) < 0.6
    assert all(type(age) is int for age in rows["age"])


GOOD = """
[[persona]]
name = "Dry"
description = "Dry skin"
keywords = ["건조"]
skin_type = "dry"
skin_concern = "moisture"
age = [35, 49]
female_share = 0.8
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found nothing; allowed: one or more"),
        ("persona = [1]", "found 'persona'; allowed: one or more"),
        ("colour = 1\n" + GOOD, "found 'colour', 'persona'; allowed: one or more"),
        (GOOD + GOOD, "two personas are named 'Dry'"),
        (GOOD + "colour = 1", "found the key 'colour'"),
        (GOOD.replace('name = "Dry"', ""), "name: it is not given"),
        (GOOD.replace('description = "Dry skin"', ""), "description: it is not given"),
        (
            GOOD.replace('"Dry skin"', '{ de = "trocken" }'),
            "description: found .*; allowed: a text, or a table of texts",
        ),
        (GOOD.replace('["건조"]', "[]"), r"keywords: found \[\]"),
        (GOOD.replace('["건조"]', '["건조", "건조"]'), "keywords: found"),
        (GOOD.replace('"dry"', '"leather"'), "skin_type: found 'leather'; allowed: 'dry'"),
        (GOOD.replace('"moisture"', '"x"'), "skin_concern: found 'x'"),
        (GOOD.replace("[35, 49]", "[49, 35]"), r"age: found \[49, 35\]"),
        (GOOD.replace("[35, 49]", "40"), "age: found 40"),
        (GOOD.replace("0.8", "80"), "female_share: found 80"),
        (GOOD.replace("0.8", "true"), "female_share: found True"),
    ],
)
def test_catalogue_mistakes_are_sentences(tmp_path, text, message):
    (tmp_path / "personas.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_catalogue(tmp_path / "personas.toml")


def test_descriptions_by_language_go_with_the_model(tmp_path):
    (tmp_path / "personas.toml").write_text(GOOD.replace('"Dry skin"', '{ ko = "건성", en = "Dry" }'), "utf-8")
    (persona,) = read_catalogue(tmp_path / "personas.toml").personas
    assert (persona.description, persona.by_language) == ("Dry", {"ko": "건성", "en": "Dry"})
    again = parse_persona(json.loads(json.dumps(persona.table)), shipped(), "here")
    assert again == persona


def test_committed_catalogue_follows_the_brief():
    ages = {persona.name: persona.draws["age"] for persona in read_catalogue(MALL / "personas.toml").personas}
    assert ages == {
        "Dry_Winter": (35, 49),
        "Anti_Aging": (35, 49),
        "Gift_Buyer": (20, 44),
        "Loyal_Repurchase": (25, 37),
        "Sensitive_Calming": (20, 44),
        "Detail_Reviewer": (25, 37),
    }


def test_report_and_pictures(tmp_path):
    texts, embeddings, _ = corpus((0, 1, 2))
    texts[0] = "# *굵게* <b>&amp; https://a.example/b\r\n" + texts[0]
    model = fitted()
    ended = replace(model.personas[0], description="Dry skin.")  # as people end sentences
    model = replace(model, personas=(ended, *model.personas[1:]))
    labels, _ = assign(model, embeddings)
    persona_definition(
        tmp_path / "P.md", model, texts, labels, np.arange(24.0), attribute_sources(reviews_of(texts), model, labels)
    )
    text = (tmp_path / "P.md").read_text("utf-8")
    assert text.count("\n> ") == 9
    assert "\nDry skin.\n" in text
    assert "Share: 33.3% (8 reviews)" in text
    assert r"> \# \*굵게\* \<b\>\& (link) 건조해서" in text
    persona_distribution(tmp_path / "d.png", [*model.names, "샴푸_두피"], [8, 8, 8, 0])
    silhouette_curve(tmp_path / "s.png", [2, 3], [0.1, 0.2], 3)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("d.png", "s.png"))


@pytest.fixture(scope="module")
def look_alike(tmp_path_factory):
    """The committed look-alike reviews, their embeddings and the personas that wrote them."""
    reviews = read_reviews(MALL, Schema.read(MALL / "dataset.toml"))
    encoder = get_encoder("use", cache=tmp_path_factory.mktemp("cache"))
    truth = json.loads((MALL / "truth.json").read_text("utf-8"))["personas"]
    return reviews, encoder, encoder.encode(reviews.texts), np.array([entry["persona"] for entry in truth])


@pytest.mark.parametrize("seed", range(4))
def test_personas_of_the_look_alike_are_found_and_named(look_alike, seed):
    from sklearn.metrics import adjusted_rand_score

    reviews, encoder, embeddings, truth = look_alike
    catalogue = read_catalogue(MALL / "personas.toml")
    model = fit_personas(embeddings, reviews.texts, catalogue, encoder=encoder, seed=seed)
    labels, _ = assign(model, embeddings)
    assert adjusted_rand_score(truth, labels) >= 0.6
    assert np.mean(np.array(model.names)[labels] == truth) >= 0.8
    # The central reviews of a name speak of what it says; of gifts, those of no cluster do.
    listed, distances = {one.name: one.keywords for one in catalogue.personas}, assign(model, embeddings)[1]
    named = [(number, name) for number, name in enumerate(model.names) if name in listed]
    assert {name for _, name in named} == {*listed} - {"Gift_Buyer"}
    for number, name in named:
        nearest = np.argsort(np.where(labels == number, distances, np.inf))[:10]
        assert np.mean([any(word in reviews.texts[row] for word in listed[name]) for row in nearest]) > 0.5
    assert sum("(Gift_Buyer)" in name for name in model.names) == 1


def test_script_marks_leftover_names_and_says_what_it_did_not_use(tmp_path, monkeypatch, capsys, mall):
    from recsys_jax.cli import personas as command

    model, texts, _ = leftover_name()
    rows = json.loads((mall / "products.json").read_text("utf-8"))
    for row in rows:
        row["reviews"] = []
    profile = "30대/여성/건성/모공,주름,값"
    rows[0]["reviews"] = [{"content": text, "profile_info": f"{profile}{n % 12}"} for n, text in enumerate(texts)]
    (mall / "products.json").write_text(json.dumps(rows), "utf-8")
    (mall / "personas.toml").write_text(GOOD, "utf-8")
    with (mall / "dataset.toml").open("a") as file:
        file.write('\n[personas]\ncatalogue = "personas.toml"\n')
    monkeypatch.setattr(command, "fit_personas", lambda *_, encoder, **__: replace(model, encoder=encoder))
    monkeypatch.setattr(command, "assign", lambda *_: (np.repeat([0, 1, 2], 8), np.zeros(24)))
    monkeypatch.setattr(command, "customer_rows", lambda *_: {})
    command.main(command.Options(mall, run=tmp_path / "out", encoder="lsa", k=3))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("(a leftover name: its reviews read more like Dry)") == 1
    assert re.search(r"Gift 8 reviews [^()]*\(a leftover name", said)
    assert "products.json: of what reviewers state, this is not used: '주름' (24), " in said
    assert said.count("' (2), ") == 9
    assert ", 3 more (6)" in said


def test_every_long_part_of_the_command_says_how_far_it_is(tmp_path, monkeypatch):
    from recsys_jax.cli import personas as command

    told: dict[str, list[float]] = {}

    @contextmanager
    def progress(title):
        parts = told.setdefault(title, [])
        yield lambda done, total, word="": parts.append(done / total)

    monkeypatch.setattr(command, "progress", progress)
    command.main(command.Options(MALL, run=tmp_path / "out", encoder="lsa", k="auto"))
    assert list(told) == ["fitting lsa", "embedding with lsa", "clustering", "reading what reviewers state"]
    for parts in told.values():
        assert parts == sorted(parts)
        assert 0 <= parts[0] < parts[-1] <= 1
    # ARPACK tells while it is at work, and there are eleven numbers of clusters between the components and the words.
    assert len({part for part in told["fitting lsa"] if 0.2 < part < 1}) > 20
    assert len(set(told["clustering"])) == 1 + 11 + 1


def test_what_reviews_state_is_read_once(monkeypatch):
    from recsys_jax.personas import customers

    read = []
    monkeypatch.setattr(customers, "profile_of_text", lambda text, *_: read.append(text) or {})
    texts, embeddings, _ = corpus((0, 1, 2))
    model = replace(fitted(), catalogue=replace(CATALOGUE))
    for _ in range(2):
        customer_rows(reviews_of(texts), model, embeddings, 0)
    attribute_sources(reviews_of(texts), model, assign(model, embeddings)[0])
    assert read == texts


def test_script_writes_customers_that_the_dataset_takes(tmp_path, capsys):
    from recsys_jax.cli.personas import Options, main

    again = main(Options(MALL, run=tmp_path / "out", encoder="lsa", k="auto"))
    assert again == f"train {MALL} --run {tmp_path / 'out'}"
    assert capsys.readouterr().out.count("(chosen)") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "customers.json",
        "personas",
        "persona_labels.csv",
        "PERSONA_DEFINITION.md",
        "persona_distribution.png",
        "run.json",
        "run.toml",
        "silhouette.png",
    }
    dataset = load_dataset(MALL, tmp_path / "out" / "customers.json")
    reviews = read_reviews(MALL, dataset.schema)
    assert len(dataset.customer_ids) == len(reviews)
    model = load_personas(tmp_path / "out" / "personas")
    labels, _ = assign(model, model.encoder.encode(reviews.texts))
    assert [model.names[label] for label in labels] == list(dataset.customers.columns["persona_name"])
    lines = (tmp_path / "out" / "persona_labels.csv").read_text("utf-8").splitlines()
    assert lines[0] == "product_id,review,persona,distance"
    assert [line.split(",")[2] for line in lines[1:]] == list(dataset.customers.columns["persona_name"])


@pytest.mark.wild
@pytest.mark.parametrize(("texts", "found"), [(["a 1", "b 2"], 2), (["a 1"] * 3, 1), (["a 1", "b 2", "b 2"], 2)])
@pytest.mark.parametrize("k", [2, 6, "auto"])
def test_no_number_of_clusters_is_advised_where_there_can_be_none(texts, found, k):
    embeddings = np.array([[float(text[-1]), 0.0, 1.0] for text in texts])
    with pytest.raises(InputError, match=rf"^different reviews: found {found}; allowed: 3 or more"):
        fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), k=k)


@pytest.mark.wild
def test_every_number_of_clusters_that_is_advised_can_be_made():
    texts, embeddings, _ = corpus((0, 1), per_theme=2)
    for k in (1, 4, 10**21):
        with pytest.raises(InputError, match=rf"^k: found {k}; allowed: 'auto' or 2 to 3; there are 4 different"):
            fit_personas(embeddings, texts, CATALOGUE, encoder=Fake(), k=k)
    for k in (2, 3, "auto"):
        made = fit_personas(np.repeat(embeddings, 2, axis=0), texts * 2, CATALOGUE, encoder=Fake(), k=k)
        assert len(made.personas) in (2, 3)


def few_reviews(mall: Path, count: int) -> Path:
    """The mall with so many different reviews, and personas to be made of them."""
    rows = json.loads((mall / "products.json").read_text("utf-8"))
    for number, row in enumerate(rows):
        row["reviews"] = [{"content": f"{THEMES[number % 3]} {row['product_name']}"}] if number < count else []
    (mall / "products.json").write_text(json.dumps(rows), "utf-8")
    (mall / "personas.toml").write_text(GOOD, "utf-8")
    toml = (mall / "dataset.toml").read_text().replace('file = "customers.json"\n', "")
    (mall / "dataset.toml").write_text(toml + '\n[personas]\ncatalogue = "personas.toml"\n')
    return mall


@pytest.mark.wild
@pytest.mark.parametrize("count", [7, 4])
def test_a_fold_makes_as_many_personas_as_its_reviews_allow(mall, tmp_path, count):
    """As many as all reviews allow are more than those of a fold do."""
    from recsys_jax.cli.personas import Options, main

    main(Options(few_reviews(mall, count), run=tmp_path / "out", encoder="lsa", k=count - 1))
    dataset = load_dataset(mall, tmp_path / "out" / "customers.json")
    of_fold = personas_of_fold(mall, dataset, load_personas(tmp_path / "out" / "personas"))
    for fold in customer_folds(count, count, 0):
        seen = of_fold(np.arange(count) != fold)
        assert set(seen.dataset.customers.columns["persona_id"]) <= set(range(count - 2))
    known = np.arange(count) < 2
    with pytest.raises(InputError, match=r"^different reviews to learn from in a fold: found 2; allowed: 3 or more$"):
        of_fold(known)
