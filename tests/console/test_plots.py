"""Pictures: names of any alphabet, each vector once, and figures with what they are worth."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.image import imread

from recsys_jax import InputError, load_dataset
from recsys_jax.console import terminal
from recsys_jax.console.pictures import drawing, embedding, plots
from recsys_jax.console.pictures.embedding import Colouring, Space, embedding_space
from recsys_jax.console.pictures.plots import (
    persona_distribution,
    results_by_segment,
    segment_numbers,
)
from recsys_jax.evaluation.baselines import popularities
from recsys_jax.evaluation.engine import MODEL, Answers, Evaluation, in_sample
from recsys_jax.evaluation.report import report

NAMES = ["$$", "$x^$", r"$\frac{a}$", "a_b$c$", "_dry", "%s {0} \\"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn."""
    found = []

    @contextmanager
    def picture(*args, **options):
        with drawing.picture(*args, **options) as panels:
            found.append(panels[0].figure)
            yield panels

    monkeypatch.setattr(plots, "picture", picture)
    monkeypatch.setattr(embedding, "picture", picture)
    return found


@pytest.fixture
def noted(capsys):
    """What is noted at the end of a command."""

    def read() -> str:
        assert capsys.readouterr().err == ""  # nothing before
        terminal.note_at_end()
        return capsys.readouterr().err

    return read


def rows(axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def legends(figure) -> dict[str, list[str]]:
    """By its title, what each legend names."""
    return {one.get_title().get_text(): [text.get_text() for text in one.get_texts()] for one in figure.legends}


# Names


@pytest.mark.wild
def test_names_of_personas_are_no_formulas(tmp_path):
    persona_distribution(tmp_path / "a.png", NAMES, range(len(NAMES)))
    persona_distribution(tmp_path / "b.png", ["$a$", "b"], [1, 1])
    persona_distribution(tmp_path / "c.png", ["a", "b"], [1, 1])
    assert not np.array_equal(imread(tmp_path / "b.png"), imread(tmp_path / "c.png"))


@pytest.mark.wild
def test_names_of_segments_and_categories_are_no_formulas(mall, mall_model, tmp_path):
    for file, column in (("customers.json", "persona_name"), ("dataset.toml", "")):
        text = (mall / file).read_text("utf-8")
        for old, new in zip(("Dew", "Gold", "Gift", "Skincare", "Makeup"), NAMES, strict=False):
            text = text.replace(f'"{old}"', f'"{new}"' if column else f"'{new}'")
        (mall / file).write_text(text.replace("\\", "\\\\") if column else text, "utf-8")
    embedding_space(tmp_path / "a.png", mall_model, load_dataset(mall), seed=0)


@pytest.fixture
def installed(monkeypatch):
    """Fonts by their names, as if matplotlib had seen nothing but its default one, and these came since."""
    everything = font_manager.FontManager().ttflist

    def install(*names: str) -> None:
        drawing._fonts.cache_clear()
        terminal.at_end.clear()
        plain = [one for one in everything if one.name == "DejaVu Sans"]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", plain)
        paths = [one.fname for one in everything if one.name in names]
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)

    yield install
    drawing._fonts.cache_clear()


def test_words_that_the_font_has_are_drawn(figures, tmp_path, noted, installed):
    installed()
    names = ["Kräuter", "thé vert", "Ξηρό", "Сухая", "e\u0301"]
    persona_distribution(tmp_path / "a.png", names, [1] * 5)
    assert rows(figures[0].axes[0]) == names
    assert noted() == ""


def test_a_font_that_was_installed_is_found(figures, tmp_path, noted, installed):
    def signs(name):
        path = next(one.fname for one in font_manager.fontManager.ttflist if one.name == name)
        return set(font_manager.get_font(path).get_charmap())

    name = "".join(map(chr, sorted(signs("DejaVu Serif") - signs("DejaVu Sans"))[:3]))
    installed()
    persona_distribution(tmp_path / "a.png", ["a", name], [1, 1])
    assert rows(figures[0].axes[0]) == ["a", "persona 1"]
    assert name in noted()
    installed("DejaVu Sans Mono", "DejaVu Serif")  # and of several, one that has the signs
    persona_distribution(tmp_path / "b.png", ["a", name], [1, 1])
    assert rows(figures[1].axes[0]) == ["a", name]
    assert "DejaVu Serif" in figures[1].axes[0].get_yticklabels()[1].get_fontfamily()
    assert noted() == ""
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_the_fonts_of_a_wheel_are_found(figures, tmp_path, noted, installed, monkeypatch):
    """A package with fonts lies where Python finds it, as pip leaves it; nothing of it is imported."""
    fonts = tmp_path / "site" / "koreanize_matplotlib" / "fonts"
    fonts.mkdir(parents=True)
    (fonts.parent / "__init__.py").write_text("raise SystemExit")
    plain_ones = [one for one in font_manager.FontManager().ttflist if (one.style, one.weight) == ("normal", 400)]
    serif, plain = (next(one.fname for one in plain_ones if one.name == f"DejaVu {kind}") for kind in ("Serif", "Sans"))
    shutil.copy(serif, fonts / "one.ttf")
    known, usual = (set(font_manager.get_font(path).get_charmap()) for path in (serif, plain))
    name = "".join(map(chr, sorted(known - usual)[:3]))
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed()
    persona_distribution(tmp_path / "a.png", ["a", name], [1, 1])
    assert rows(figures[0].axes[0]) == ["a", name]
    assert noted() == ""


@pytest.mark.parametrize(
    ("name", "package"), [("보습", "fonts-noto-cjk"), ("乾燥肌の人", "fonts-noto-cjk"), ("ผิวแห้ง", "fonts-noto")]
)
def test_where_no_font_has_it_a_note_names_the_fix(figures, tmp_path, noted, installed, name, package):
    installed()
    persona_distribution(tmp_path / "a.png", ["Dry", name], [1, 1])
    assert rows(figures[0].axes[0]) == ["Dry", "persona 1"]
    said = noted()
    assert said.startswith(f"note: pictures: no installed font has the letters of {name} (drawn as persona 1), as ")
    assert "a_names.csv lists; install" in said
    assert f"apt install {package};" in said
    assert ("or pip install koreanize-matplotlib" in said) == (name == "보습")


def test_the_note_names_the_first_ones(tmp_path, noted, installed):
    installed()
    persona_distribution(tmp_path / "a.png", [f"{number}번" for number in range(12)], range(12))
    said = noted()
    assert (
        "letters of 0번 (drawn as persona 0), 1번 (drawn as persona 1), 2번 (drawn as persona 2) and 9 more, as "
        in said
    )


def test_every_number_is_listed_beside_the_picture_and_told_once(tmp_path, noted, installed):
    installed()
    names, beside = ["건성", "Dry", "지성", "복합성", "민감성", "=보습"], tmp_path / "a_names.csv"
    persona_distribution(tmp_path / "a.png", names, [1] * 6)
    persona_distribution(tmp_path / "b.png", names[2:3], [1])
    header, *listed = beside.read_text("utf-8").splitlines()
    assert header == "drawn as,name"
    expected = [f"persona {number},{name}" for number, name in enumerate(names) if name != "Dry"]
    assert listed == [*expected[:-1], "persona 5,'=보습"]  # which a spreadsheet would take for a formula
    said = noted()
    assert said.count("note: ") == said.count("apt install") == 1
    assert f"and 2 more, as {beside} and {tmp_path / 'b_names.csv'} list; install" in said
    assert noted() == ""
    persona_distribution(tmp_path / "a.png", ["Dry"], [1])
    assert not beside.exists()


def test_signs_that_nobody_sees_are_no_reason(figures, tmp_path, noted, installed):
    installed()
    persona_distribution(tmp_path / "a.png", ["Dr\u200by\ufe0f\u202e"], [1])
    assert rows(figures[0].axes[0]) == ["Dry"]
    assert noted() == ""


def test_reviews_are_counted_in_whole_numbers(figures, tmp_path):
    for most in (2, 3, 16):
        persona_distribution(tmp_path / "a.png", ["a", "b"], [most, 1])
        assert (figures[-1].axes[0].get_xticks() % 1 == 0).all()


def test_a_long_name_leaves_room(figures, tmp_path):
    persona_distribution(tmp_path / "a.png", ["a" * 40, "b" * 41], [1, 1])
    assert rows(figures[0].axes[0]) == ["a" * 40, "b" * 39 + "…"]


PERSONAS = {"건성": (7, 5), "선물": (2, 3), "반복": (5, 2)}  # by name, the persona's id and its customers


def of_personas(mall):
    people = json.loads((mall / "customers.json").read_text("utf-8"))
    each = [(name, number) for name, (number, count) in PERSONAS.items() for _ in range(count)]
    for row, (name, number) in zip(people, each, strict=True):
        row.update(persona_name=name, persona_id=number)
    (mall / "customers.json").write_text(json.dumps(people), "utf-8")
    return load_dataset(mall)


def test_a_persona_has_one_number_in_all_pictures(figures, mall, mall_model, tmp_path, installed, noted):
    installed()
    dataset = of_personas(mall)
    numbers = segment_numbers(dataset)
    assert numbers == {name: str(number) for name, (number, _) in PERSONAS.items()}
    found = report(in_sample(mall_model, dataset, (3,), others=popularities(dataset)))
    results_by_segment(tmp_path / "a.png", found, 3, numbers)
    assert not embedding_space(tmp_path / "b.png", mall_model, dataset, seed=0)
    names = ["?"] * 8
    for name, number in numbers.items():
        names[int(number)] = name
    persona_distribution(tmp_path / "c.png", names, range(8))
    expected = [f"persona {number}  (n = {count})" for number, count in PERSONAS.values()]
    assert rows(figures[0].axes[0]) == ["all  (n = 10)", *expected]
    assert legends(figures[1])["customers by persona"] == ["persona 7", "persona 2", "persona 5"]
    assert [rows(figures[2].axes[0])[number] for number in (7, 2, 5)] == ["persona 7", "persona 2", "persona 5"]
    assert noted().count("건성 (drawn as persona 7)") == 1  # told once


def test_segments_without_an_id_of_their_own_are_numbered_by_name(mall):
    dataset = load_dataset(mall)  # "Again" and "Smooth" have the same persona_id
    assert segment_numbers(dataset) == {name: str(place) for place, name in enumerate(sorted(set(dataset.segments)), 1)}


# The space


def crowd(mall, kinds):
    """The mall with as many customers of each (persona, skin type, age) as it says."""
    first, *_ = json.loads((mall / "customers.json").read_text("utf-8"))
    people = []
    for (persona, skin, age), count in kinds.items():
        for _ in range(count):
            of = {"persona_name": persona, "skin_type": skin, "age": age}
            people.append({**first, **of, "user_id": f"u{len(people)}"})
    (mall / "customers.json").write_text(json.dumps(people), "utf-8")
    return load_dataset(mall)


def marks(axes):
    """Where each mark is and how large, of customers and of products; what a legend shows has no place."""
    found = [one for one in axes.collections if len(one.get_offsets())]
    people = [one for one in found if one.get_zorder() == 2]
    things = [one for one in found if one.get_zorder() == 3]
    return tuple(
        (np.concatenate([one.get_offsets() for one in side]), np.concatenate([one.get_sizes() for one in side]))
        for side in (people, things)
    )


def test_a_vector_is_drawn_once_sized_by_who_shares_it(figures, mall, mall_model, tmp_path):
    # A mature skin means a sensitive one: both are one vector.
    dataset = crowd(mall, {("X", "dry", 30): 30, ("X", "mature", 50): 6, ("X", "sensitive", 50): 4})
    assert embedding_space(tmp_path / "a.png", mall_model, dataset, seed=0)
    (places, sizes), (things, _) = marks(figures[0].axes[0])
    assert len(places) == 2
    assert sizes[0] / sizes[1] == pytest.approx(30 / 10)
    assert len(things) == len(dataset.product_ids)
    title = figures[0].axes[0].get_title(loc="left")
    assert title == "40 customers, 2 different vectors, and 8 products in one space"
    assert legends(figures[0])["customers with\nthe same vector"] == ["1", "5", "30"]


def test_colours_of_one_vector_are_rings_of_their_share(figures, mall, mall_model, tmp_path):
    dataset = crowd(mall, {("X", "dry", 30): 20, ("Y", "dry", 30): 10})
    embedding_space(tmp_path / "a.png", mall_model, dataset, seed=0)
    (places, sizes), _ = marks(figures[0].axes[0])
    np.testing.assert_array_equal(*places)
    assert sizes[0] / sizes[1] == pytest.approx(30 / 10)  # so the ring's area is twice the middle's


def test_of_many_some_are_drawn_at_random(figures, mall, mall_model, tmp_path):
    dataset = crowd(mall, {("X", "dry", age): 2 for age in range(20, 60)})
    for number, seed in enumerate((0, 0, 1)):
        space = Space.of(mall_model, dataset, seed=seed, most=6)
        embedding_space(tmp_path / f"{number}.png", mall_model, dataset, seed=seed, space=space)
    for figure in figures:
        (places, _), (things, _) = marks(figure.axes[0])
        assert (len(places), len(things)) == (6, 6)
        title = figure.axes[0].get_title(loc="left")
        assert title == "12 of 80 customers, 6 different vectors, and 6 of 8 products in one space"
    one, two, other = ((tmp_path / f"{number}.png").read_bytes() for number in range(3))
    assert one == two != other
    space = Space.of(mall_model, dataset, seed=0, drawn=5)
    embedding_space(tmp_path / "few.png", mall_model, dataset, seed=0, space=space)
    assert figures[-1].axes[0].get_title(loc="left").startswith("5 of 80 customers")


def test_any_attribute_gives_the_colours(figures, mall, mall_model, tmp_path):
    dataset = crowd(mall, {("X", "dry", 30): 3, ("Y", "mature", 50): 2, ("Y", "oily", 50): 1})
    embedding_space(tmp_path / "a.png", mall_model, dataset, seed=0, colour="skin_type")
    assert legends(figures[0])["customers by skin_type"] == ["dry", "sensitive", "oily"]
    (feature,) = (one for one in dataset.schema.customers.features if one.column == "skin_type")
    labelled = replace(feature, label={"en": "skin type", "ko": "피부 타입"})
    part = replace(dataset.schema.customers, features=(labelled,))
    named = replace(dataset, schema=replace(dataset.schema, customers=part))
    assert [Colouring.of(named, "skin_type", one).word for one in ("en", "ko")] == ["skin type", "피부 타입"]
    with pytest.raises(InputError, match=r"the column 'mood' is missing; found: .*skin_type"):
        embedding_space(tmp_path / "b.png", mall_model, dataset, seed=0, colour="mood")


def test_the_segment_has_its_numbers_by_whatever_name_it_is_asked_for(mall):
    dataset = load_dataset(mall)
    assert Colouring.of(dataset, dataset.schema.customers.segment) == Colouring.of(dataset)


def test_a_single_one_beyond_the_colours_keeps_its_name(figures, mall, mall_model, tmp_path):
    most = len(embedding._COLOURS)
    for count in (most + 1, most + 2):
        dataset = crowd(mall, {(f"P{place:02}", "dry", 30): 30 - place for place in range(count)})
        embedding_space(tmp_path / "a.png", mall_model, dataset, seed=0)
    names = [f"P{place:02}" for place in range(most)]
    found = [legends(figure)["customers by persona"] for figure in figures]
    assert found == [[*names, f"P{most:02}"], [*names, "2 others"]]


def test_numbers_are_coloured_by_ranges_and_several_values_together(films, mall):
    dataset = crowd(mall, {("X", "dry", age): 1 for age in range(20, 32)})
    found = Colouring.of(dataset, "age")
    assert list(found.ordered)[:2] == ["20 to 21", "22 to 23"]
    assert found.labels == [f"{age - age % 2} to {age + 1 - age % 2}" for age in range(20, 32)]
    assert Colouring.of(dataset, "user_id").ordered == {}
    drawn = [0.549987, 0.659996, *(1234567.0 + n for n in range(10))]  # digits that somebody reads
    precise = replace(dataset.customers, columns={**dataset.customers.columns, "hours": drawn})
    ranges = list(Colouring.of(replace(dataset, customers=precise), "hours").ordered)
    assert ranges[:2] == ["0.55 to 0.66", "1234567 to 1234568"]
    numbered = replace(dataset.customers, columns={**dataset.customers.columns, "visits": [str(n) for n in range(12)]})
    assert Colouring.of(replace(dataset, customers=numbered), "visits").labels[:3] == ["0 to 1", "0 to 1", "2 to 3"]
    films = load_dataset(films)
    assert Colouring.of(films, "likes").labels == ["Drama", "Crime, Drama", "Comedy", "(none)"]
    assert Colouring.of(films, "favourite_genres").labels == Colouring.of(films, "likes").labels
    assert Colouring.of(films, "age").labels == ["30", "(none)", "50", "70"]
    assert Colouring.of(films).labels is None
    accented = replace(films.customers, columns={**films.customers.columns, "caf\u00e9": ["a", "b", "b", "a"]})
    assert Colouring.of(replace(films, customers=accented), "cafe\u0301").labels == ["a", "b", "b", "a"]


def test_what_says_that_nothing_is_known_is_no_colour(films):
    text = (films / "dataset.toml").read_text("utf-8")
    (films / "dataset.toml").write_text(f'missing_values = ["FR", 50]\n{text}', "utf-8")
    dataset = load_dataset(films)
    assert Colouring.of(dataset, "country").labels == ["KR", "(none)", "KR", "(none)"]
    assert Colouring.of(dataset, "age").labels == ["30", "(none)", "(none)", "70"]
    more = replace(dataset.customers, columns={**dataset.customers.columns, "city": ["Seoul", "FR", "", "Busan"]})
    assert Colouring.of(replace(dataset, customers=more), "city").labels == ["Seoul", "(none)", "(none)", "Busan"]


@pytest.mark.parametrize("recipe", ["wide", "deep-infonce"])
def test_a_space_without_segments_and_of_few(model_of, films, tmp_path, recipe):
    assert embedding_space(tmp_path / "a.png", model_of("films", recipe), load_dataset(films), seed=0)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


# Results by segment


def evaluation(segments, **options) -> Evaluation:
    """Of customers with one purchase each; the model finds every other one."""
    n = len(segments)
    hits = np.arange(n)[None] % 2 * 1.0
    return Evaluation(
        split="cross-validation",
        protocol="cross-validation, 5 folds over customers",
        ks=(3,),
        customers=np.arange(n),
        products=np.zeros(n, int),
        segments=tuple(segments),
        segment_word="drinks",
        methods={MODEL: Answers({"hit@3": hits}), "random": Answers({"hit@3": np.full((1, n), 0.25)})},
        listed=np.arange(n),
        candidates=9,
        **options,
    )


def test_intervals_protocol_and_what_is_too_few(figures, tmp_path):
    found = report(evaluation(["tea"] * 40 + ["milk"] * 30 + ["coffee"] * 29))
    results_by_segment(tmp_path / "a.png", found, 3, {})
    (axes,) = figures[0].axes
    assert rows(axes) == ["all  (n = 99)", "tea  (n = 40)", "milk  (n = 30)", "coffee  (n = 29)"]
    assert figures[0].get_suptitle() == "Results by drinks, cross-validation, 5 folds over customers"
    assert axes.get_title(loc="left") == "hit@3"
    lines = {tuple(line.get_xdata()): line.get_ydata()[0] for line in axes.lines}
    groups = [found.means[MODEL], *(found.groups[name] for name in ("tea", "milk", "coffee"))]
    for place, group in enumerate(groups):
        interval = group["hit@3"]
        assert interval.low < interval.mean < interval.high
        assert round(lines[interval.low, interval.high]) == place
    shaded = [patch.get_y() for patch in axes.patches]
    assert shaded == [2.5]
    [named] = legends(figures[0]).values()
    assert named == ["model, with its 95% interval", "random", "shaded: n < 30, too few to say much"]


def test_it_says_whether_the_leak_is_there(figures, tmp_path):
    one = evaluation(["tea"] * 40)
    for found, derived in ((one, False), (one, True), (replace(one, leak_free=evaluation(["milk"] * 35)), True)):
        results_by_segment(tmp_path / "a.png", report(found), 3, {}, derived=derived)
    titles = [[axes.get_title(loc="left") for axes in figure.axes] for figure in figures]
    assert titles == [["hit@3"], ["hit@3, with the leak"], ["hit@3, without the leak", "hit@3, with the leak"]]
    said = "with the leak: each drinks comes from the review of the very purchase asked for"
    assert [said in figure.get_suptitle() for figure in figures] == [False, True, True]
    assert [rows(axes)[1] for axes in figures[2].axes] == ["milk  (n = 35)", "tea  (n = 40)"]
    assert len({axes.get_xlim() for axes in figures[2].axes}) == 1


def test_a_persona_of_folds_has_one_number_with_the_leak_and_without(figures, tmp_path, installed, noted):
    installed()
    free, leak = evaluation(["건성"] * 40 + ["반복"] * 35), evaluation(["반복"] * 40 + ["건성"] * 35 + ["선물"] * 30)
    results_by_segment(tmp_path / "a.png", report(replace(leak, leak_free=free)), 3, {"선물": "0"})
    (_, dry, again), (_, *others) = ([row.partition("  (")[0] for row in rows(axes)] for axes in figures[0].axes)
    assert others == [again, dry, "drinks 0"]
    assert len({*others}) == 3
    assert f"건성 (drawn as {dry})" in noted()


def test_in_sample_is_called_memory(figures, mall, mall_model, tmp_path):
    dataset = load_dataset(mall)
    results_by_segment(tmp_path / "a.png", report(in_sample(mall_model, dataset, (3,))), 3, {})
    assert "memory" in figures[0].get_suptitle()


def test_of_many_segments_the_largest_are_drawn_and_that_is_said(figures, tmp_path):
    segments = [f"s{number}" for number in range(30) for _ in range(40 - number)]
    results_by_segment(tmp_path / "a.png", report(evaluation(segments), count=20), 3, {})
    assert len(rows(figures[0].axes[0])) == 25
    assert figures[0].get_suptitle().endswith(": the 24 largest of 30")


def test_one_customer_has_no_interval_and_is_drawn_all_the_same(figures, tmp_path):
    results_by_segment(tmp_path / "a.png", report(evaluation(["tea"])), 3, {})
    assert rows(figures[0].axes[0]) == ["all  (n = 1)", "tea  (n = 1)"]
