"""The page of a run: whole, offline, and of its own figures."""

import html
import json
import re
import shlex
import tomllib
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from command_line import done
from conftest import write_films, write_mall
from pages import HOSTILE, hostile_mall, page_of

from recsys_jax import Recommender, load_dataset
from recsys_jax.config import Language
from recsys_jax.console import terminal
from recsys_jax.data.splits import SPLITS
from recsys_jax.evaluation.engine import MODEL
from recsys_jax.evaluation.findings import findings, headline
from recsys_jax.evaluation.sentences import Sentences
from recsys_jax.report import contents
from recsys_jax.report.contents import length, personas
from recsys_jax.report.page import as_json
from recsys_jax.service.calls import Limits, answer

LARGEST = 5_000_000


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the texts in each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open:
            self.texts.setdefault(self._open[-1], []).append(data.strip())

    @property
    def said(self) -> str:
        """All that people read."""
        return " ".join(text for tag, texts in self.texts.items() if tag not in ("script", "style") for text in texts)

    def data(self, name: str) -> dict:
        """The JSON in an element."""
        place = [tag for tag, _ in self.elements if tag == "script"]
        known = [attributes.get("id") for tag, attributes in self.elements if tag == "script"]
        assert len(place) == len(known)
        return json.loads(self.texts["script"][known.index(name)])


@pytest.fixture(scope="module")
def mall_page(tmp_path_factory):
    """The page of the mall, whose personas its customer file names; and what it is of."""
    folder = tmp_path_factory.mktemp("page")
    text, found = page_of(write_mall(folder / "mall"), folder / "run", **{"with memory": True})
    return Elements(text), text, found


def commands(text: str) -> list[list[str]]:
    """The commands by which the page puts the run into a shop, in words."""
    section = text[text.index('<section id="next">') :]
    bare = [re.sub("</?span>", "", one) for one in re.findall("<code>(.*?)</code>", section)]  # around each option
    return [shlex.split(html.unescape(one)) for one in bare][:-1]


def test_the_commands_of_the_page_are_those_of_the_run(mall_page):
    _, text, _ = mall_page
    one, everybody, extra, served, asked = commands(text)
    program = shlex.split(terminal.program())
    at = [words[len(program) :] for words in (one, everybody, served)]
    assert all(words[: len(program)] == program for words in (one, everybody, served))
    run, shop = at[0][1], at[1][at[1].index("--dataset") + 1]
    done(*at[0])
    assert at[1][3:] == ["--run", run, "--dataset", shop, "--names"]
    assert at[2] == ["serve", run, "--dataset", shop]
    assert extra[1:] == ["-m", "pip", "install", "recsys_jax[serve]"]
    assert asked[:2] == ["curl", "--json"]
    path = asked[3].removeprefix("127.0.0.1:8000")
    assert len(answer(Recommender.load(run), path, json.loads(asked[2]), Limits())["products"]) == 3


# Labels


def keys(table: dict, path: str = "") -> set[str]:
    found = set()
    for name, value in table.items():
        found |= keys(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}"}
    return found


def labels(language: str) -> dict:
    return tomllib.loads(files("recsys_jax.report").joinpath(f"{language}.toml").read_text("utf-8"))


def leaves(table: dict) -> dict[str, str]:
    return {key: value for key in keys(table) for value in [_at(table, key.split("."))]}


def _at(table: dict, path: list[str]) -> str:
    for name in path:
        table = table[name]
    return table


def test_languages_have_the_same_labels_with_the_same_fields():
    english, *others = (leaves(labels(one)) for one in get_args(Language))
    for other in others:
        assert other.keys() == english.keys()
        for key, text in english.items():
            fields = [sorted(set(re.findall(r"{(\w+)", one))) for one in (text, other[key])]
            assert fields[0] == fields[1], key


def test_each_label_is_used():
    """In the template or, of the picture and the panel, in a script."""
    package = files("recsys_jax.report")
    sources = "".join(one.read_text("utf-8") for one in package.iterdir() if one.name.endswith((".html", ".js", ".py")))
    for key in keys(labels("en")):
        group, _, name = key.partition(".")
        # A few groups are chosen from by what was found, the heading of a section by its id.
        if group == "glossary":
            assert "t.glossary.items()" in sources
            continue
        assert re.search(rf"\b(t\.{group}|words)\.{name}\b|\bt\[id\]\.{name}\b|\bt\.{group}\[\w", sources), key


def test_protocols_are_those_there_are():
    from recsys_jax.storage.runs import PROTOCOLS

    assert set(labels("en")["protocol"]) == set(PROTOCOLS)


@pytest.mark.parametrize("split", ["in-sample", *SPLITS])
def test_each_protocol_is_named_in_korean(mall, split):
    """However many folds and dates its title names."""
    text = (mall / "dataset.toml").read_text("utf-8")
    (mall / "dataset.toml").write_text(text.replace('id = "user_id"', 'id = "user_id"\ndate = "age"'), "utf-8")
    title = split if split == "in-sample" else SPLITS[split](load_dataset(mall), 2, 0).title
    korean = Sentences("ko").title(title)
    assert not re.search("[a-z]{3}", korean)
    assert set(re.findall(r"[\d,.:-]+\d|\d", title)) <= set(re.findall(r"[\d,.:-]+\d|\d", korean))
    assert Sentences("en").title(title) == title


# Offline, and of nothing but itself


def test_data_cannot_end_its_element():
    assert "<" not in as_json({"</script><script>alert(1)</script>": ["<!--", "\u2028", "&"]})


def test_it_refers_to_nothing_else(mall_page):
    elements, text, _ = mall_page
    for tag, attributes in elements.elements:
        assert not {"src", "srcset", "data", "action", "style", "srcdoc"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]  # a name, which nobody fetches
    assert "url(" not in text
    assert "@import" not in text
    [policy] = (a["content"] for _, a in elements.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_it_is_well_formed_and_named(mall_page):
    """Every element is closed, every id is one, and whatever refers to one finds it."""
    elements, _, _ = mall_page
    ids = [attributes["id"] for _, attributes in elements.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
    tables = [tag for tag, _ in elements.elements if tag == "table"]
    assert len(tables) == len(elements.texts["caption"]) == sum(tag == "caption" for tag, _ in elements.elements)
    assert all("scope" in attributes for tag, attributes in elements.elements if tag == "th")


def test_names_are_text_alone(tmp_path):
    text, _ = page_of(hostile_mall(tmp_path / "mall"), tmp_path / "run")
    elements = Elements(text)
    plain, _ = page_of(write_mall(tmp_path / "plain"), tmp_path / "other")
    tags = [sorted({tag for tag, _ in one.elements}) for one in (elements, Elements(plain))]
    assert tags[0] == tags[1]  # no b, i or img of a name
    for name in HOSTILE:
        assert name in elements.said
    told = elements.data("plane-data")
    assert HOSTILE[0] in [product[3][0][0] for product in told["products"]]
    assert HOSTILE[2] in [name for name, _ in told["groups"]]


def test_it_is_small_whatever_is_sold(tmp_path):
    """Of 1,500 products with long names a thousand vectors are drawn, and the page says so."""
    folder = write_mall(tmp_path / "mall")
    rows = json.loads((folder / "products.json").read_text("utf-8"))
    more = [
        {**rows[n % 8], "product_id": f"x{n}", "product_name": f"{n} " + "long " * 40, "price": n} for n in range(1500)
    ]
    (folder / "products.json").write_text(json.dumps([*rows, *more]), "utf-8")
    text, _ = page_of(folder, tmp_path / "run")
    assert len(text.encode()) < LARGEST / 4
    assert re.search(r"and 1,\d\d\d of 1,508 products", Elements(text).said)


def test_the_same_run_gives_the_same_bytes_but_for_the_time(tmp_path):
    found = []
    for name in ("a", "b"):
        text, _ = page_of(write_mall(tmp_path / name / "mall"), tmp_path / name / "run")
        # Its own folder stands in the commands that it shows.
        found.append(re.sub(r"<time .*?</time>", "", text).replace(str(tmp_path / name), ""))
    assert found[0] == found[1]


# Its figures


def test_its_figures_are_those_of_the_report(mall_page):
    elements, text, found = mall_page
    document = found.document()
    for method, figures in document["methods"].items():
        row = re.search(rf'<th scope="row">{re.escape(html.escape(method))}<.*?</tr>', text, flags=re.S)[0]
        shown = " ".join(re.sub(r"<[^>]+>", " ", row).split())
        mrr = figures["mrr"]["all"]
        for value in (mrr["mean"], mrr["low"], mrr["high"]):
            assert f"{value:.4f}" in shown
        assert f"{figures['hit@3']['all']['mean']:.1%}" in shown
        if method != MODEL:
            difference = document["model minus"][method]["mrr"]
            assert f"{difference['mean']:+.4f}" in shown
            assert difference["reading"] in shown
    for group, n in document["queries"].items():
        name = "everybody" if group == "all" else group
        row = re.search(rf'<th scope="row">{name}<.*?</tr>', text, flags=re.S)[0]
        shown = re.sub(r"<[^>]+>", " ", row).split()
        assert str(n) in shown
        assert f"{document['methods']['model']['hit@3'][group]['mean']:.1%}" in shown
    assert set(document["importance"]) == {"skin_type", "skin_concern", "gender", "age"}
    for name, lost in document["importance"].items():
        row = re.search(rf'<th scope="row">{name.replace("_", " ")}</th>.*?</tr>', text, flags=re.S)[0]
        assert f"{lost['mean']:.4f}" in row
        assert f"{lost['low']:.4f} to {lost['high']:.4f}" in row
    assert headline(found).partition(". ")[0] in elements.said
    for sentence in findings(found):
        assert sentence in elements.said


def test_few_purchases_are_shaded(mall_page):
    _, text, found = mall_page
    assert text.count('<tr class="few">') == len(found.evaluation.queries)  # ten customers in all
    section = text.partition('id="segments"')[2].partition("</section>")[0]
    assert section.count("<small>too few to say</small>") == len(found.groups)


def test_what_is_drawn_is_what_there_is(mall_page):
    """Each customer and product once, those of one vector together; a list holds what its customers are shown."""
    elements, _, _ = mall_page
    told = elements.data("plane-data")
    for entries, points in ((told["groups"], told["customers"]), (told["kinds"], told["products"])):
        counts = np.zeros(len(entries), int)
        for point in points:
            assert all(0 <= place <= 1000 for place in point[:2])
            for number, n in point[2]:
                counts[number] += n
        assert counts.tolist() == [n for _, n in entries]
    assert sum(n for _, n in told["groups"]) == 10
    assert sum(n for _, n in told["kinds"]) == 8
    assert {name for name, _ in told["kinds"]} == {"Skincare", "Makeup", "Perfume", "Accessories", "Men"}
    named = {product[0]: product[1:] for point in told["products"] for product in point[3]}
    assert named["Dew Serum"] == ["Isul", 46000]


@pytest.mark.parametrize(("products", "k"), [(5, 1), (6, 3), (19, 3), (20, 10)])
def test_hits_are_of_lists_that_leave_most_out(products, k):
    found = SimpleNamespace(evaluation=SimpleNamespace(ks=(1, 3, 10), candidates=products))
    assert length(found) == k


# Other shops


def test_a_shop_without_personas_prices_names_and_reviews(tmp_path):
    text, _ = page_of(write_films(tmp_path / "films"), tmp_path / "run")
    elements = Elements(text)
    ids = {attributes.get("id") for _, attributes in elements.elements}
    assert {"facts", "methods", "loss", "space"} <= ids
    assert not {"segments", "personas", "lists"} & ids
    products = [product for point in elements.data("plane-data")["products"] for product in point[3]]
    assert sorted(products) == [[f"f{n}", None, None] for n in range(1, 6)]


def test_a_run_without_a_model(tmp_path):
    from pages import held_out

    from recsys_jax.report import page

    folder = write_mall(tmp_path / "mall")
    dataset = load_dataset(folder)
    found = held_out(dataset)
    made = page.write(tmp_path, found, dataset, None, None, headline=headline(found), folder=folder, made=None)
    elements = Elements(made.read_text("utf-8"))
    ids = {attributes.get("id") for _, attributes in elements.elements}
    assert {"facts", "methods", "segments"} <= ids
    assert not {"loss", "space", "lists", "try"} & ids
    assert labels("en")["facts"]["no_model"] in elements.said


# Korean


def test_korean(tmp_path):
    toml = write_mall(tmp_path / "mall") / "dataset.toml"
    label = 'name = "skin_type"\nlabel = { en = "complexion", ko = "피부 타입" }'
    described = 'description = { en = "An invented mall", ko = "가상의 쇼핑몰" }\n'
    toml.write_text(described + toml.read_text("utf-8").replace('name = "skin_type"', label), "utf-8")
    text, found = page_of(toml.parent, tmp_path / "run", language="ko", colour="skin_type")
    elements = Elements(text)
    assert elements.elements[0] == ("html", {"lang": "ko"})
    korean = labels("ko")
    for key in ("warnings", "facts", "methods", "loss", "space"):
        assert korean[key]["title"] in elements.texts["h2"]
    assert headline(found, "ko").partition(". ")[0] in elements.said
    assert "페르소나별 추천 성능" in elements.texts["h2"]
    assert "피부 타입" in elements.texts["th"]
    assert "피부 타입별 고객" in elements.texts["legend"]
    assert [field["label"] for field in elements.data("panel-data")["fields"] if field["name"] == "skin_type"] == [
        "피부 타입"
    ]
    assert "3겹 교차검증(고객 단위)" in elements.said
    assert "가상의 쇼핑몰" in elements.said
    assert not [one for one in ("better", "noise", "worse", "everybody", "Purchases") if one in elements.said.split()]


@pytest.mark.parametrize(
    ("language", "manual", "word"), [("en", "report.md", "persona"), ("ko", "ko/report.md", "페르소나")]
)
def test_the_manual_explains_each_section_by_its_title(language, manual, word):
    text = (Path(__file__).parents[2] / "docs" / manual).read_text("utf-8")
    explained = {line.strip("|# ").split(" | ")[0] for line in text.splitlines() if line.startswith(("| ", "## "))}
    sections = re.findall(
        r"<h2>{{ t\.(\w+)\.title", files("recsys_jax.report").joinpath("page.html").read_text("utf-8")
    )
    assert len(sections) == 10
    assert {labels(language)[one]["title"].format(word=word) for one in [*sections, "panel"]} <= explained


# Of commands


def test_evaluate_writes_it(tmp_path):
    """Of the protocol asked for last; `run` writes it, too: `test_the_main_job`."""
    folder, run = write_mall(tmp_path / "mall"), ("--run", tmp_path / "run")
    quick = ("deep", "--epochs", 2, "--batch-size", 4)
    done("train", folder, *quick, *run, cwd=tmp_path)
    page = tmp_path / "run" / "report.html"
    for protocol, language in (("in-sample", "en"), ("hold-out", "ko")):
        result = done("evaluate", folder, *run, "--protocol", protocol, "--language", language, cwd=tmp_path)
        assert "above, report.html" in result.stdout
        text = page.read_text("utf-8")
        assert f'<html lang="{language}">' in text
        assert labels(language)["protocol"][protocol] in text
        metrics = json.loads((tmp_path / "run" / protocol / "metrics.json").read_text("utf-8"))
        assert f"{metrics['methods']['model']['mrr']['all']['mean']:.4f}" in text
    # It is of the model: another one takes it away.
    done("train", folder, *quick, "--seed", 1, *run, cwd=tmp_path)
    assert not page.exists()


def test_evaluate_keeps_what_the_page_of_run_has(tmp_path):
    """The language, both recipes and every baseline; and the next `run` keeps the language that was asked for last."""
    folder, where = write_mall(tmp_path / "mall"), ("--run", tmp_path / "run")
    page, quick = tmp_path / "run" / "report.html", ("--recipe", "deep", "--epochs", 2)
    done("run", folder, *where, *quick, "--language", "ko", cwd=tmp_path)
    result = done("evaluate", folder, *where, "--protocol", "hold-out", cwd=tmp_path)
    measured = [
        set(json.loads((tmp_path / "run" / protocol / "metrics.json").read_text("utf-8"))["methods"])
        for protocol in ("cross-validation", "hold-out")
    ]
    assert measured[0] == measured[1] > {"wide", "logistic regression", "naive Bayes"}
    assert "This model is deep; wide " in " ".join(result.stdout.split())
    text = page.read_text("utf-8")
    assert '<html lang="ko">' in text
    assert "이 모델은 deep입니다. wide 레시피는" in text
    done("evaluate", folder, *where, "--protocol", "in-sample", "--language", "en", cwd=tmp_path)
    assert '<html lang="en">' in page.read_text("utf-8")
    assert "wide" in json.loads((tmp_path / "run" / "in-sample" / "metrics.json").read_text("utf-8"))["methods"]
    done("run", folder, *where, *quick, cwd=tmp_path)
    assert '<html lang="en">' in page.read_text("utf-8")


@pytest.mark.wild
def test_products_that_came_since_the_training(tmp_path):
    """The picture and the page show those of the model; the figures are of all."""
    folder, run = write_mall(tmp_path / "mall"), ("--run", tmp_path / "run")
    done("train", folder, "deep", "--epochs", 2, "--batch-size", 4, *run, cwd=tmp_path)
    rows = json.loads((folder / "products.json").read_text("utf-8"))
    (folder / "products.json").write_text(json.dumps([{**rows[0], "product_id": "p0"}, *rows]), "utf-8")
    done("evaluate", folder, "--protocol", "hold-out", *run, cwd=tmp_path)
    elements = Elements((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert sum(n for _, n in elements.data("plane-data")["kinds"]) == len(rows)
    assert "9 products" in elements.said


def test_personas_of_reviews_are_told(tmp_path):
    """Share, keywords and reviews as in PERSONA_DEFINITION.md; a review cannot leave its quotation."""
    mall = Path(__file__).parents[2] / "data" / "amoremall"
    folder = tmp_path / "mall"
    folder.mkdir()
    for name in ("dataset.toml", "personas.toml"):
        (folder / name).write_bytes((mall / name).read_bytes())
    rows = json.loads((mall / "products.json").read_text("utf-8"))
    for row in rows:
        for review in row["reviews"]:
            review["content"] += " </script><b>x"
    (folder / "products.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    run = ("--run", tmp_path / "run")
    told = done("personas", folder, "--encoder", "lsa", *run, cwd=tmp_path).stdout
    assert "  (by the names in personas.toml; or --k)\n" in told
    done("train", folder, "deep", "--epochs", 2, *run, cwd=tmp_path)
    done("evaluate", folder, "--protocol", "in-sample", *run, cwd=tmp_path)
    elements = Elements((tmp_path / "run" / "report.html").read_text("utf-8"))
    told = (tmp_path / "run" / "PERSONA_DEFINITION.md").read_text("utf-8").replace("\\", "")
    names = re.findall(r"^## \d+\. (.*)$", told, flags=re.M)
    assert [name for name in elements.texts["h3"] if name in names][: len(names)] == names
    quotes = elements.texts["blockquote"]
    assert re.findall(r"^> (.*)$", told, flags=re.M) == quotes
    assert any(quote.endswith("</script><b>x") for quote in quotes)
    shares = re.findall(r"^\* Share: ([\d.]+)% \(([\d,]+) reviews\)$", told, flags=re.M)
    for _, n in shares:
        assert f"% of the reviews ({n})" in elements.said
    korean, _ = personas(folder, tmp_path / "run" / "customers.json", None, "ko")
    assert all(re.search("[가-힣]", one["description"]) for one in korean if one["standing"] == "holds")
    for words in re.findall(r"^\* Distinctive keywords: (.*)$", told, flags=re.M):
        assert words.replace(", ", " · ") in elements.said


@pytest.mark.parametrize(("language", "said"), [("en", "--k 2 keeps 2"), ("ko", "--k 2 옵션")])
def test_how_to_name_personas_is_told_once_and_that_it_decides_their_number(
    mall, tmp_path, monkeypatch, language, said
):
    one = {"name": "a · b", "share": 0.5, "count": 5, "standing": "own", "short": "", "keywords": [], "quotes": []}
    notes = ["products.json: of what reviewers state, this is not used: '삼십대' (4)"]
    monkeypatch.setattr(contents, "personas", lambda *_: ([one, one], notes))
    text, _ = page_of(mall, tmp_path / "run", made=mall / "customers.json", language=language)
    assert text.count("personas.toml") == text.count(said) == 1
    assert text.count("삼십대") == 1  # among the notes on the data
