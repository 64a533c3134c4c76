"""What is misspelt is answered by what was meant, wherever a person types; what is near nothing is not guessed at."""

import random
import shutil
import string
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from command_line import done, run, told
from conftest import write_mall

from recsys_jax import DeepConfig, InputError, Recommender, WideConfig, save_model
from recsys_jax.config import parse_recipe
from recsys_jax.data.dataset import load_dataset
from recsys_jax.errors import LONGEST, MANY, did_you_mean, nearest
from recsys_jax.personas.catalogue import read_catalogue
from recsys_jax.personas.encoders import get_encoder

PERSONA = """[[attribute]]
name = "skin_type"
kind = "categorical"
values = ["dry", "oily"]
[[persona]]
name = "A"
description = "B"
keywords = ["c"]
"""
KNOWN = ("age=30", "gender=F", "skin_type=dry", "skin_concern=moisture")


@pytest.mark.parametrize(
    ("found", "values", "near"),
    [
        ("건셩", ["지성", "건성", "복합성"], "건성"),
        ("나아", ["나이", "성별", "피부타입"], "나이"),
        ("CAFÉ", ["cafe\u0301", "tea"], "cafe\u0301"),
        ("skin type ", ["skin_type", "skin type"], "skin type"),
        ("dry", ["dry", "oily"], None),  # it is one of them
        ("dry", [], None),
        ("", ["dry"], None),
        ("zebra", ["dry", "oily"], None),
        (3, [1, 2, 3], None),
        ("x" * 5000, ["x" * 4999], None),
    ],
)
def test_the_nearest(found, values, near):
    assert nearest(found, values) == near
    assert did_you_mean(found, values) == ("" if near is None else f"; did you mean {near!r}?")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("P0O073", "P00073"),  # a letter O
        ("p00073", "P00073"),
        ("PO0O73", None),  # too much
        ("PP00073", "P00073"),
        ("00073", "P00073"),
        ("0P0073", "P00073"),
        ("P0007E", None),  # any of ten
        ("x" * 60, None),
    ],
)
def test_among_a_hundred_thousand_one_slip_is_found(typed, meant):
    assert nearest(typed, {f"P{number:05}": number for number in range(100_000)}) == meant
    assert nearest(typed, [f"P{number:05}" for number in range(100_000)]) == meant


def test_no_service_waits_for_what_was_meant():
    """Of the longest texts, of the most that are compared, of the most that are looked up: 16 ms, busy a few more."""
    rng = random.Random(0)

    def texts(count, letters, length):
        return ["".join(rng.choices(letters, k=length)) for _ in range(count)]

    for letters in ("ab", string.ascii_lowercase, "건성지복합뷁"):
        for count in (MANY, 100_000):
            values = dict.fromkeys(texts(count, letters, LONGEST if count == MANY else 20))
            [typed] = texts(1, letters, LONGEST if letters.isascii() else LONGEST // 3)
            taken = []
            for _ in range(5):
                began = time.thread_time()
                nearest(typed, values)
                taken.append(time.thread_time() - began)
            assert min(taken) < 0.1


@pytest.fixture(scope="module")
def shop(mall_run, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("shop")
    write_mall(cwd / "mall")
    shutil.copytree(mall_run, cwd / "runs" / "mall")
    return cwd


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("recommend", "runs/mall", "skin_tpye=dry"), "'skin_type'"),
        (("recommend", "runs/mall", "age=30", "gender=F", "skin_type=dyr", "skin_concern=moisture"), "'dry'"),
        (("recommend", "runs/mall", "age=30", "gender=F", "skin_type=dry", "skin_concern=moistrue"), "'moisture'"),
        (("recommend", "runs/mal", *KNOWN), "runs/mall"),
        (("recommend", "runs/mall", *KNOWN, "--categories", "makeup"), "'Makeup'"),
        (("recommend", "runs/mall", *KNOWN, "--at-most", "brnad=1"), "'brand'"),
        (("evaluate", "mal"), "mall"),
        (("train", "wyde"), "'wide'"),
        (("train", "mall", "wyde"), "'wide'"),
        (("train", "mall", "--resume", "wyde"), "'wide'"),
        (("train", "mall", "--epohcs=3"), "'--epochs'"),
        (("train", "mall", "deep", "-epochs", "3"), "'--epochs'"),
        (("train", "mall", "wide", "--own-l3", "30"), "'--own-l2'"),
        (("recommend", "runs/mall", "--top_nn", "3"), "'--top-n'"),
        (("reccommend", "runs/mall"), "'recommend'"),
        (("evaluate", "mall", "--protocol", "tmie"), "'time'"),
        (("evaluate", "mall", "--protocol=tmie"), "'time'"),
        (("train", "mall", "deep", "--loss", "infonec"), "'infonce'"),
        (("runs", "rns"), "runs"),
        (("trian", "mall"), "'train'"),
        (("score", "custmers.csv", "out.csv", "--run", "runs/mall"), "customers.csv"),
    ],
)
def test_on_the_command_line(shop, words, meant):
    (shop / "customers.csv").write_text("age\n30\n")
    result = run(*words, cwd=shop)
    assert result.returncode == 2
    assert f"did you mean {meant}?" in result.stderr


def test_no_option_of_another_command_is_meant(shop):
    for command in ("evaluate", "run"):
        result = run(command, "mall", "--loss", "infonec", cwd=shop)
        assert result.returncode == 2
        assert "did you mean" not in result.stderr


def test_options_that_do_not_exist(shop):
    told(
        run("train", "mall", "deep", "--epohcs", 3, cwd=shop),
        "train: found the option '--epohcs'; allowed: what train --help lists; did you mean '--epochs'?",
    )
    told(
        run("evaluate", "mall", "-z", cwd=shop), "evaluate: found the option '-z'; allowed: what evaluate --help lists"
    )
    said = run("train", "mall", "wide", "--own-l2", "-1", cwd=shop).stderr  # a value, and no option
    assert "own_l2: found -1.0; allowed: above 0" in said


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ('kind = "numeric"', 'kind = "numerical"', "'numeric'"),
        ('unknown = "extra-row"', 'unknown = "extra_row"', "'extra-row'"),
        ('category = "category"', 'catgory = "category"', "'category'"),
        ('id = "user_id"', 'id = "userid"', "'user_id'"),
        ('file = "products.json"', 'file = "product.json"', "products.json"),
        ('aliases = { mature = "sensitive"', 'aliases = { mature = "sensitiv"', "'sensitive'"),
    ],
)
def test_in_the_description_of_a_dataset(mall, old, new, meant):
    toml = mall / "dataset.toml"
    text = toml.read_text("utf-8")
    assert old in text
    toml.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match="did you mean") as told:
        load_dataset(mall)
    assert f"{meant}?" in str(told.value)


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ("[[persnoa]]", "; did you mean 'persona'?"),
        ("[[zebra]]", "tables, a language"),
        (
            PERSONA.replace("keywords", "keywrods"),
            "keywords: it is not given, but 'keywrods' is; allowed: a list of different texts",
        ),
        (PERSONA.replace('name = "A"', 'nmae = "A"'), "name: it is not given, but 'nmae' is; allowed: a text"),
        (
            PERSONA.replace("kind", "knid"),
            "kind: it is not given, but 'knid' is; allowed: 'categorical', 'numeric', 'age'",
        ),
        (PERSONA.replace('name = "A"', 'title = "A"'), "name: it is not given; allowed: a text"),
        (f"{PERSONA}skin_type = 'dyr'", "; did you mean 'dry'?"),
        (f"{PERSONA}skin_type = 'zebra'", "'oily'"),
    ],
)
def test_in_a_persona_catalogue(tmp_path, content, end):
    path = tmp_path / "personas.toml"
    path.write_text(content, "utf-8")
    with pytest.raises(InputError) as told:
        read_catalogue(path)
    assert str(told.value).endswith(end)


@pytest.mark.parametrize(("name", "end"), [("lsaa", "; did you mean 'lsa'?"), ("nobody/no-such-model", None)])
def test_of_an_encoder(tmp_path, monkeypatch, name, end):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError) as told:
        get_encoder(name, cache=tmp_path).encode(["hello"])
    assert str(told.value).endswith(end or "use or lsa")


def test_in_a_recipe_and_in_rules(shop, tmp_path):
    with pytest.raises(InputError, match=r"did you mean 'item_factors'\?"):
        parse_recipe({"recipe": "wide", "item_factor": 3}, "my.toml")
    with pytest.raises(InputError, match=r"did you mean 'wide'\?"):
        parse_recipe({"recipe": "Wide"}, "my.toml")
    for content, meant in (
        ("customr = {}\nadd = 0.1", "'customer'"),
        ("customer = { skin_tpye = 'dry' }\nadd = 0.1", "'skin_type'"),
        ("customer = { skin_type = 'dyr' }\nadd = 0.1", "'dry'"),
    ):
        (tmp_path / "boosts.toml").write_text(f"[[boost]]\n{content}\n", "utf-8")
        with pytest.raises(InputError, match=f"did you mean {meant}"):
            Recommender.load(shop / "runs" / "mall", tmp_path / "boosts.toml")


def test_of_the_id_of_a_product_or_a_customer(shop, tmp_path):
    """Where it is refused; another number is not guessed at."""
    rec = Recommender.load(shop / "runs" / "mall", dataset=shop / "mall")
    known = dict(one.split("=") for one in KNOWN)
    (tmp_path / "boosts.toml").write_text('[[boost]]\nproduct = { product_id = "pp1" }\nadd = 0.1\n', "utf-8")
    for ask in (
        lambda: rec.similar("pp1"),
        lambda: rec.customers_like("pp1"),
        lambda: rec.explain("pp1", attributes=known),
        lambda: rec.recommend(attributes=known, pinned=["pp1"]),
        lambda: rec.recommend(attributes=known, available=["pp1"]),
        lambda: rec.recommend(attributes=known, purchased_products=["pp1"], strict=True),
        lambda: rec.remove_products(["pp1"]),
        lambda: Recommender.load(shop / "runs" / "mall", tmp_path / "boosts.toml"),
    ):
        with pytest.raises(InputError, match=r"'pp1'.*; did you mean 'p1'\?"):
            ask()
    with pytest.raises(InputError, match=r"such as 'p0'$|such as 'p1'$"):
        rec.similar("p99")
    with pytest.raises(InputError, match=r"of others, attributes; did you mean 'u1'\?"):
        rec.recommend(customer_id="uu1")
    said = run("recommend", "runs/mall", *KNOWN, "--purchased", "pp1", cwd=shop).stderr
    assert "no product 'pp1'; did you mean 'p1'?" in said
    result = run("recommend", "runs/mall", "--dataset", "mall", "--customer", "uu1", cwd=shop)
    assert (result.returncode, "did you mean 'u1'?" in result.stderr) == (2, True)


def test_of_an_argument_in_python(shop):
    rec = Recommender.load(shop / "runs" / "mall")
    for ask, sentence in (
        (lambda: rec.recommend_batch([{"age": 3}], atmost=2), r"recommend_batch\(\): .* 'atmost'.* 'at_most'\?"),
        (lambda: rec.rank_batch([{"age": 3}], topn=2), r"rank_batch\(\): .* 'topn'.* 'top_n'\?"),
        (
            lambda: rec.similar("p1", topn=2),
            r"similar\(\): found the argument 'topn'; allowed: 'product_id', .* 'top_n'\?",
        ),
        (lambda: rec.explain("p1", agee=30), r"explain\(\): found the attribute 'agee'.* 'age'\?"),
        (
            lambda: WideConfig(item_factor=3),
            r"WideConfig\(\): .* 'item_factor'; allowed: 'own_l2', .* 'item_factors'\?",
        ),
        (lambda: replace(DeepConfig(), epohcs=3), r"DeepConfig\(\): .* 'epohcs'.* 'epochs'\?"),
    ):
        with pytest.raises(InputError, match=sentence):
            ask()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'product_id'"):
        rec.similar(top_n=2)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda shop: save_model("runs/x", "x"), r"save_model\(\), model: found 'runs/x'; allowed: a TrainedModel"),
        (lambda shop: Recommender("runs/mall"), r"found 'runs/mall'; allowed: a TrainedModel; Recommender.load"),
        (lambda shop: Recommender.load(shop / "runs/mall").similar("p1", -(10**5000)), "top_n: found int too large"),
    ],
)
def test_what_python_is_given_in_the_wrong_place(shop, ask, sentence):
    with pytest.raises(InputError, match=sentence):
        ask(shop)


def test_what_a_training_is_given_in_the_wrong_place(shop):
    """In a process of its own, where nobody checks types."""
    code = """
from recsys_jax import InputError, WideConfig, fit, load_dataset
mall = load_dataset("mall")
for dataset, config in (("mall", WideConfig()), (WideConfig(), mall), (mall, "wide"), (mall, WideConfig)):
    try:
        fit(dataset, config)
    except InputError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=shop, capture_output=True, text=True, check=True).stdout
    starts = (
        "dataset: found 'mall'; allowed: a Dataset",
        "dataset: found WideConfig(",
        "config: found 'wide'; allowed: WideConfig(...) or DeepConfig(...)",
        "config: found <class",
    )
    for line, start in zip(said.splitlines(), starts, strict=True):
        assert line.startswith(f"fit(), {start}")


def test_of_a_purchase_of_an_unknown_product(mall):
    path = mall / "customers.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('id": "p', 'id": "pp'), "utf-8")  # in every row
    with pytest.raises(InputError, match=r"found .*pp1.*; did you mean 'p1'\?"):
        load_dataset(mall)


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("train shop --epochs 5", "--epochs belongs to deep: recsys-jax train shop deep --epochs 5"),
        ("train --log-q shop", "--log-q belongs to deep: recsys-jax train shop deep --log-q"),
        ("train shop wide --epochs=5", "--epochs belongs to deep: recsys-jax train shop deep --epochs 5"),
        ("train shop deep --own-l2 3", "--own-l2 belongs to wide: recsys-jax train shop wide --own-l2 3"),
        ("train --seed 3", "--seed belongs to deep and wide: recsys-jax train deep --seed 3"),
    ],
)
def test_an_option_of_another_recipe_is_told_where_it_belongs(words, right, tmp_path):
    told(run(*words.split(), cwd=tmp_path), right)


def test_a_run_and_a_dataset_in_each_other_s_place(tmp_path):
    shop = write_mall(tmp_path / "shop")
    (tmp_path / "new.csv").write_text("age\n30\n", "utf-8")
    allowed = "error: shop: found a dataset; allowed: a run, the folder with a trained model"
    told(run("recommend", "shop", cwd=tmp_path), f"{allowed}; recsys-jax train makes one of it")
    done("train", "shop", "wide", "--own-l2", 10, "--attribute-l2", "inf", "--factor-l2", "inf", cwd=tmp_path)
    for words in (["recommend", "shop"], ["serve", "shop"], ["score", "new.csv", "out.csv", "--run", "shop"]):
        told(run(*words, cwd=tmp_path), f"{allowed}; did you mean runs/mall?")
    for command in ("train", "evaluate", "compare", "personas", "run"):
        said = run(command, "runs/mall", cwd=tmp_path)
        told(said, "found runs/mall, a run; allowed: a folder with dataset.toml; did you mean shop, of which it was")
    shutil.move(shop, tmp_path / "gone")
    told(run("train", "runs/mall", cwd=tmp_path), "found runs/mall, a run; allowed: a folder with dataset.toml\n")


def test_a_fault_of_the_shop_is_told_before_that_of_its_run(tmp_path):
    write_mall(tmp_path / "shop")
    (tmp_path / "runs" / "mall").mkdir(parents=True)
    (tmp_path / "runs" / "mall" / "mine.txt").touch()
    told(run("train", "shop", cwd=tmp_path), "runs/mall: found files that this program did not write")
    (tmp_path / "shop" / "products.json").rename(tmp_path / "shop" / "product.json")
    told(run("train", "shop", cwd=tmp_path), "shop/products.json: ")
