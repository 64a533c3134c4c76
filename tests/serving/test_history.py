"""What was bought is known alike by every way of asking: by a column, a dataset, a file of purchases."""

import csv
import json
import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_jax import InputError, Recommender, WideConfig, fit, load_dataset, save_model
from recsys_jax.cli.serving import recommend, score
from recsys_jax.console.recommendations import nothing_left_out
from recsys_jax.data.dataset import read_ids

FILMS = {"f1", "f2", "f3", "f4", "f5"}
# By hand, from the films' views.csv.
SEEN = {"v1": {"f1", "f2"}, "v2": {"f1"}, "v3": {"f3", "f4"}, "v4": {"f5", "f1"}}


def ids(found) -> set[str]:
    return {one["product_id"] for one in found}


def repeating(folder: Path, section: str = "[interactions]") -> Path:
    toml = folder / "dataset.toml"
    text = toml.read_text(encoding="utf-8")
    toml.write_text(text.replace(section, f'{section}\nrepeat = "allowed"'), encoding="utf-8")
    return folder


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def knowing(films, films_model, tmp_path, request):
    """The films' recommender that knows purchases by a dataset, or by a file of another name."""
    save_model(films_model, tmp_path / "run")
    (films / "views.csv").rename(films / "other.csv")
    text = (films / "dataset.toml").read_text(encoding="utf-8").replace("views.csv", "other.csv")
    (films / "dataset.toml").write_text(text, encoding="utf-8")
    how = {"dataset": films} if request.param == "dataset" else {"purchases": films / "other.csv"}
    return Recommender.load(tmp_path / "run", **how)


@pytest.mark.parametrize("knowing", ["dataset", "purchases"], indirect=True)
def test_a_known_customer_is_not_recommended_what_they_bought(knowing):
    for customer, seen in SEEN.items():
        alone = knowing.recommend(customer_id=customer, age=30, top_n=9)
        (row,) = knowing.recommend_batch([{"viewer": customer, "age": 30}], top_n=9)
        assert ids(alone) == ids(row) == FILMS - seen
        more = knowing.recommend(customer_id=customer, age=30, top_n=9, purchased_products=["f4"])
        assert ids(more) == FILMS - seen - {"f4"}
        (more,) = knowing.recommend_batch([{"viewer": customer, "age": 30}], top_n=9, purchased_products=[["f4"]])
        assert ids(more) == FILMS - seen - {"f4"}
        ranking = knowing.rank_batch({"viewer": [customer], "age": [30]}, top_n=9)
        assert {knowing.product_ids[row] for row in ranking.products[0] if row >= 0} == FILMS - seen


@pytest.mark.parametrize("knowing", ["dataset"], indirect=True)
def test_a_dataset_knows_attributes_too(knowing):
    stated = knowing.recommend(favourite_genres="Drama", country="KR", age=30, purchased_products=["f1", "f2"])
    assert knowing.recommend(customer_id="v1") == stated
    changed = knowing.recommend(favourite_genres="Drama", country="KR", age=60, purchased_products=["f1", "f2"])
    assert knowing.recommend(customer_id="v1", age=60) == changed != stated
    assert "customer_id: found 'v9'; allowed: one of the 4 customers in the dataset films" in refused(
        lambda: knowing.recommend(customer_id="v9")
    )


@pytest.mark.parametrize("knowing", ["purchases"], indirect=True)
def test_a_file_of_purchases_knows_no_attributes_and_not_everybody(knowing):
    assert ids(knowing.recommend(customer_id="somebody new", age=30, top_n=9)) == FILMS


def test_nobody_is_known_without_a_dataset(films_model):
    assert "dataset=FOLDER" in refused(lambda: Recommender(films_model).recommend(customer_id="v1"))


def test_a_dataset_has_its_purchases(films, films_model, tmp_path):
    save_model(films_model, tmp_path / "run")
    both = {"dataset": films, "purchases": films / "views.csv"}
    said = refused(lambda: Recommender.load(tmp_path / "run", **both))
    assert "purchases: found" in said
    assert "without a dataset" in said


def test_where_products_are_bought_again_nothing_is_left_out(films, films_model, tmp_path):
    save_model(films_model, tmp_path / "run")
    rec = Recommender.load(tmp_path / "run", dataset=repeating(films))
    assert ids(rec.recommend(customer_id="v1", top_n=9)) == FILMS
    assert ids(rec.recommend(customer_id="v1", top_n=9, purchased_products=["f2"])) == FILMS - {"f2"}


def test_the_datasets_own_column_is_known_to_a_batch(mall_model):
    rows = pd.DataFrame(
        {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "gift", "purchased_product_id": ["p1", "p5"]}
    )
    for listed, bought in zip(Recommender(mall_model).recommend_batch(rows, top_n=9), ["p1", "p5"], strict=True):
        assert len(listed) == 7
        assert bought not in ids(listed)


def asked(folder: Path, run: Path, rows: list[dict], capsys, **options):
    """What the job recommends, by customer, and what it says last."""
    pq.write_table(pa.Table.from_pylist(rows), folder / "in.parquet")
    score.main(score.Options(folder / "in.parquet", folder / "out.parquet", run, top_n=9, **options))
    found: dict[str, set[str]] = {}
    for one in pq.read_table(folder / "out.parquet").to_pylist():
        found.setdefault(one["viewer"], set()).add(one["product_id"])
    return found, capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("how", ["dataset", "purchases", "column", "nothing", "include", "repeat", "strangers"])
def test_score_leaves_out_what_was_bought_and_says_so(films, films_model, tmp_path, capsys, monkeypatch, how):
    monkeypatch.setenv("COLUMNS", "300")
    save_model(films_model, tmp_path / "run")
    rows = [{"viewer": customer, "age": 30} for customer in SEEN]
    options, expected = {"dataset": films}, {customer: FILMS - seen for customer, seen in SEEN.items()}
    last = "Left out: what 4 of 4 customers bought"
    last += f'; repeat = "allowed" in {films}/dataset.toml would recommend it again' * (how == "dataset")
    if how == "purchases":
        options = {"purchases": films / "views.csv"}
    elif how == "column":
        rows = [{**row, "purchased_products": sorted(SEEN[row["viewer"]])} for row in rows]
        options = {}
    elif how != "dataset":
        expected = dict.fromkeys(SEEN, FILMS)
        options, last = {}, "Nothing that customers bought was left out: no purchases are known; --dataset FOLDER would"
        if how == "include":
            options = {"dataset": films, "include_purchased": True}
            last = "Nothing that customers bought was left out, as asked for"
        elif how == "repeat":
            options = {"dataset": repeating(films)}
            last = 'Nothing that customers bought was left out: by repeat = "allowed" in dataset.toml, they'
        elif how == "strangers":
            rows = [{**row, "viewer": f"new {row['viewer']}"} for row in rows]
            expected = {f"new {customer}": FILMS for customer in SEEN}
            options, last = (
                {"dataset": films},
                f"Nothing that customers bought was left out: {films} knows no purchases",
            )
    found, said = asked(tmp_path, tmp_path / "run", rows, capsys, **options)
    assert found == expected
    assert said.startswith(last)


def test_score_needs_the_customers_ids_to_know_them(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    said = refused(lambda: asked(tmp_path, tmp_path / "run", [{"age": 30}], capsys, dataset=films))
    assert "in.parquet: found no column 'viewer'" in said


def test_other_purchases_are_another_job(films, films_model, tmp_path, capsys):
    """What was scored before somebody bought is not taken over."""
    save_model(films_model, tmp_path / "run")
    row = [{"viewer": "v2", "age": 30}]
    assert asked(tmp_path, tmp_path / "run", row, capsys, dataset=films)[0] == {"v2": FILMS - {"f1"}}
    with (films / "views.csv").open("a") as file:
        file.write("v2,f3\n")
    assert asked(tmp_path, tmp_path / "run", row, capsys, dataset=films)[0] == {"v2": FILMS - {"f1", "f3"}}


def test_recommend_says_what_it_knows(films, films_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    save_model(films_model, tmp_path / "run")
    recommend.main(recommend.Options(tmp_path / "run", ("age=30",), top_n=9))
    out = capsys.readouterr().out
    assert all(film in out for film in FILMS)
    assert out.splitlines()[-1].startswith("Nothing that customers bought was left out: no purchases are known")
    recommend.main(recommend.Options(tmp_path / "run", (), customer="v3", dataset=films, top_n=9))
    out = capsys.readouterr().out
    assert [film in out for film in sorted(FILMS)] == [True, True, False, False, True]
    assert "Nothing" not in out
    options = recommend.Options(tmp_path / "run", ("age=3",), purchases=films / "views.csv", customer="v3", top_n=9)
    recommend.main(options)
    out = capsys.readouterr().out
    assert [film in out for film in sorted(FILMS)] == [True, True, False, False, True]
    recommend.main(recommend.Options(tmp_path / "run", ("age=3",), customer="v3", dataset=films, json=True, top_n=9))
    assert ids(json.loads(capsys.readouterr().out)) == FILMS - SEEN["v3"]
    assert "customer: found 'v3'" in refused(
        lambda: recommend.main(recommend.Options(tmp_path / "run", (), customer="v3"))
    )


# What stock is


@pytest.mark.parametrize("kind", [list, tuple, set, pd.Series, pa.array])
def test_only_what_is_available(films_model, kind):
    rec = Recommender(films_model)
    stock = kind(["f2", "f5", "never trained on"])
    assert ids(rec.recommend(age=30, available=stock, top_n=9)) == {"f2", "f5"}
    assert ids(rec.recommend(age=30, available=stock, purchased_products=["f5"], top_n=9)) == {"f2"}
    assert [ids(row) for row in rec.recommend_batch({"age": [30, 60]}, available=stock, top_n=9)] == [{"f2", "f5"}] * 2
    assert rec.recommend(age=30, available=[]) == []


def test_available_and_of_a_category(mall_model):
    rec = Recommender(mall_model)
    person = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
    assert ids(rec.recommend(**person, available=["p1", "p3"], categories=["Makeup"])) == {"p3"}


@pytest.mark.parametrize("stock", ["f1", [["f1"]], {"f1": 2}, [True], ["F1", "f1.0"], 3])
def test_a_stock_that_names_nothing_is_refused(films_model, stock):
    assert "available: found" in refused(lambda: Recommender(films_model).recommend(age=30, available=stock))


def test_strict_knows_all_of_a_stock(films_model):
    said = refused(lambda: Recommender(films_model).recommend(age=30, available=["f1", "f7"], strict=True))
    assert "available: found 'f7'" in said


def test_score_from_a_stock(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    (tmp_path / "stock.csv").write_text("film,left\nf2,3\nf1,1\nf9,1\n")
    rows = [{"viewer": "v1", "age": 30}, {"viewer": "v2", "age": 3}]
    found, _ = asked(tmp_path, tmp_path / "run", rows, capsys, available=tmp_path / "stock.csv", dataset=films)
    assert found == {"v2": {"f2"}}
    (rejected,) = pq.read_table(tmp_path / "out.rejected.parquet").to_pylist()
    assert rejected["viewer"] == "v1"
    assert rejected["reason"] == "no product remains: all products that are available were bought already"


def test_what_is_removed_is_not_recommended(films_model):
    rec = Recommender(films_model)
    rec.recommend_batch({"age": [30]}, top_n=9)  # with everything prepared
    before = {one["product_id"]: one for one in rec.recommend(age=30, top_n=9)}
    rec.remove_products(["f2", "f4"])
    assert rec.product_ids == ("f1", "f3", "f5")
    found = rec.recommend(age=30, top_n=9)
    assert {one["product_id"]: one["score"] for one in found} == {
        key: pytest.approx(before[key]["score"], abs=1e-6) for key in ("f1", "f3", "f5")
    }
    (row,) = rec.recommend_batch({"age": [30]}, top_n=9, purchased_products=[["f3", "f2"]])
    assert ids(row) == {"f1", "f5"}
    assert rec.unmatched(["f2", "f3"]) == ["f2"]
    assert "remove_products(): found ['f2']" in refused(lambda: rec.remove_products(["f1", "f2"]))
    assert "some, so that one is left" in refused(lambda: rec.remove_products(["f1", "f3", "f5"]))
    assert rec.product_ids == ("f1", "f3", "f5")
    rec.add_products([{"film": "f2", "studio": "Big", "genres": "Drama", "year": 2000}])
    assert ids(rec.recommend(age=30, top_n=9)) == {"f1", "f2", "f3", "f5"}


def test_a_category_is_known_by_its_aliases(films, films_model):
    """As boosts and new products know it."""
    toml = films / "dataset.toml"
    feature = '[[products.features]]\nname = "studio"\nkind = "categorical"\nvalues = "learned"\n'
    feature += 'aliases = { "대형" = "Big" }\nunknown = "extra-row"\nmissing = "extra-row"\n\n[customers]\n'
    toml.write_text(toml.read_text("utf-8").replace("[customers]\n", feature, 1), "utf-8")
    rec = Recommender(fit(load_dataset(films), WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0)))
    assert rec.recommend(age=30, categories=["대형"]) == rec.recommend(age=30, categories=["Big"])
    assert ids(rec.recommend(age=30, categories="대형", top_n=9)) == {"f1", "f2"}


def test_a_category_may_be_sold_out(mall_model):
    rec = Recommender(mall_model)
    rec.remove_products(["p5"])
    person = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
    assert rec.recommend(**person, categories=["Perfume"]) == []


# Attributes of any name


def test_attributes_as_a_dict(mall_model):
    rec = Recommender(mall_model)
    person = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
    assert rec.recommend(attributes=person) == rec.recommend(**person)
    half = {"age": 32, "gender": "F"}
    assert rec.recommend(attributes=half, skin_type="dry", skin_concern="moisture") == rec.recommend(**person)
    for wrong, said in [
        ({**person, "top_n": 5}, "found the attribute 'top_n'; allowed: 'skin_type'"),
        ({**person, 3: 5}, "found the attribute 3"),
        ([("age", 32)], "attributes: found [('age', 32)]"),
    ]:
        assert said in refused(lambda wrong=wrong: rec.recommend(attributes=wrong))
    assert "'age' twice" in refused(lambda: rec.recommend(attributes=person, age=3))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_attribute_has_its_name_however_a_keyboard_writes_it(films, form, tmp_path, capsys):
    """As in files: an accent, or the parts of a Hangul syllable, may be signs of their own."""
    for name in ("dataset.toml", "viewers.csv"):
        (films / name).write_text((films / name).read_text("utf-8").replace("country", "나라é"), "utf-8")
    dataset, name = load_dataset(films), unicodedata.normalize(form, "나라é")
    model = fit(dataset, WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4))
    rec, asked = Recommender(model), {name: "KR"}
    assert rec.recommend(attributes=asked) == rec.recommend(**asked) == rec.recommend_batch([asked])[0]
    assert "twice" in refused(lambda: rec.recommend(attributes=asked, **{unicodedata.normalize("NFC", name): "US"}))
    save_model(model, tmp_path)
    recommend.main(recommend.Options(tmp_path, (f"{name}=KR",), json=True))
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(rec.recommend(**asked, standing=True)))


def test_the_fingerprint_of_a_dataset_that_serves_is_that_of_training(films, films_model):
    assert films_model.trained_on == load_dataset(films).fingerprint


def test_a_list_as_csv(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    options = recommend.Options(tmp_path / "run", ("age=30",), top_n=2, csv=tmp_path / "list.csv", json=True)
    recommend.main(options)
    found = json.loads(capsys.readouterr().out)
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["place"], row["product_id"], row["category"]) for row in rows] == [
        (str(place), one["product_id"], one["category"]) for place, one in enumerate(found, 1)
    ]
    assert [float(row["score"]) for row in rows] == [one["score"] for one in found]
    assert {row["name"] for row in rows} == {""}


def test_a_word_for_nothing_is_not_unknown(films, tmp_path, capsys):
    toml = films / "dataset.toml"
    toml.write_text('missing_values = ["NA"]\n' + toml.read_text(encoding="utf-8"), encoding="utf-8")
    config = WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4)
    save_model(fit(load_dataset(films), config), tmp_path / "run")
    recommend.main(recommend.Options(tmp_path / "run", ("country=NA",)))
    assert "does not know" not in capsys.readouterr().err
    recommend.main(recommend.Options(tmp_path / "run", ("country=N",)))
    assert "the model does not know 'N'" in capsys.readouterr().err


# What is known of purchases needs no date, and nobody's row


@pytest.mark.parametrize("how", ["dataset", "purchases", "frame"])
def test_an_exclusion_needs_no_date_and_no_row_of_the_customer(films, films_model, tmp_path, how):
    """A purchase that cannot be learned from was still made."""
    save_model(films_model, tmp_path / "run")
    toml = films / "dataset.toml"
    lines = 'date = "when"\nunknown_customers = "ignore"\n'
    toml.write_text(toml.read_text(encoding="utf-8") + lines, encoding="utf-8")
    rows = "".join(f"v1,f1,1970-01-0{day}\n" for day in range(1, 10)) + "v2,f2,1970-13-45\nguest,f3,1970-01-01\n"
    (films / "views.csv").write_text("who,what,when\n" + rows)
    views = films / "views.csv"
    known = {"dataset": films, "purchases": views, "frame": pd.read_csv(views)}[how]
    rec = Recommender.load(tmp_path / "run", **{"dataset" if how == "dataset" else "purchases": known})
    rows = {"viewer": ["v1", "v2", "guest"], "age": [30, 30, 30]}
    found = [FILMS - ids(one) for one in rec.recommend_batch(rows, top_n=9)]
    assert found == [{"f1"}, {"f2"}, {"f3"}]


@pytest.mark.parametrize("how", ["dataset", "purchases"])
def test_rows_that_name_nobody_are_told(films, films_model, tmp_path, how):
    save_model(films_model, tmp_path / "run")
    views = films / "views.csv"
    views.write_text(views.read_text() + "v1,f3,extra\n" + "v2,f1\n" * 20)
    told = []
    Recommender.load(tmp_path / "run", **{how: films if how == "dataset" else views}, tell=told.append)
    assert [sentence for sentence in told if "1 of 28 rows set aside" in sentence]


def test_a_stock_with_a_row_that_is_none_is_refused(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    (tmp_path / "stock.csv").write_text("film,left\n" + "f2,3\n" * 20 + "f1,1,x\n")
    options = {"available": tmp_path / "stock.csv"}
    said = refused(lambda: asked(tmp_path, tmp_path / "run", [{"viewer": "v1", "age": 30}], capsys, **options))
    assert "stock.csv, row 21" in said


def test_stock_of_no_product_is_noted(films, films_model, tmp_path, capsys):
    """Whole or in part, as where a program took ids for numbers: else such products would not be sold, unsaid."""
    save_model(films_model, tmp_path / "run")
    (tmp_path / "stock.csv").write_text("film,left\nf2,3\n0f3,1\nf4\u200b,1\n")
    sentence = (
        "available: 2 of 3 ids are those of no product; the first, '0f3'; there is 'f3': zeros at the front seem lost"
    )
    assert sentence in lines(tmp_path, tmp_path / "run", ["v1"], capsys, available=tmp_path / "stock.csv")
    recommend.main(recommend.Options(tmp_path / "run", ("age=30",), available=tmp_path / "stock.csv"))
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_an_empty_stock_is_told_as_such(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    (tmp_path / "stock.csv").write_text("film,left\n")
    asked(tmp_path, tmp_path / "run", [{"viewer": "v1", "age": 30}], capsys, available=tmp_path / "stock.csv")
    (rejected,) = pq.read_table(tmp_path / "out.rejected.parquet").to_pylist()
    assert rejected["reason"] == "no product remains: there are no products that are available"


def test_a_shop_that_has_grown_is_still_scored(films, films_model, tmp_path, capsys):
    """Products that the model has never seen are the dataset's: to have bought them is no mistake."""
    save_model(films_model, tmp_path / "run")
    with (films / "films.csv").open("a") as file:
        file.writelines(f"new{number},Big,Drama,1990\n" for number in range(5))
    with (films / "views.csv").open("a") as file:
        file.writelines(f"v1,new{number}\n" for number in range(5))
    found, said = asked(tmp_path, tmp_path / "run", [{"viewer": "v1", "age": 30}], capsys, dataset=films)
    assert found == {"v1": FILMS - SEEN["v1"]}
    assert said.startswith("Left out: what 1 of 1")
    options = {"purchases": films / "views.csv"}
    said = refused(lambda: asked(tmp_path, tmp_path / "run", [{"viewer": "v1", "age": 30}], capsys, **options))
    views = len((films / "views.csv").read_text("utf-8").splitlines()) - 1
    assert f"{films / 'views.csv'}: found 5 of {views} purchases that are the id of no product, such as 'new0'" in said
    assert not list(tmp_path.glob(".out.*"))  # it is told before the work


def test_where_products_are_bought_again_no_id_is_needed(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    found, _ = asked(tmp_path, tmp_path / "run", [{"viewer": 1, "age": 30}], capsys, dataset=repeating(films))
    assert found == {1: FILMS}


def test_another_datasets_purchases_are_told(films, films_model, tmp_path):
    save_model(films_model, tmp_path / "run")
    toml, told = films / "dataset.toml", []
    toml.write_text(toml.read_text(encoding="utf-8").replace('name = "films"', 'name = "else"'), encoding="utf-8")
    Recommender.load(tmp_path / "run", dataset=films, tell=told.append)
    assert told == ["the model is of the dataset films, and purchases are of another, else"]


@pytest.mark.parametrize("wrong", [5, ["v1"], {"v1": ["f1"]}])
def test_what_is_no_dataset_is_a_sentence(films_model, tmp_path, wrong):
    save_model(films_model, tmp_path / "run")
    assert "dataset: found" in refused(lambda: Recommender.load(tmp_path / "run", dataset=wrong))


@pytest.mark.parametrize("wrong", [["v1"], {}, 2.0**60, True])
def test_what_is_no_id_is_nobody(films, films_model, tmp_path, wrong):
    save_model(films_model, tmp_path / "run")
    rec = Recommender.load(tmp_path / "run", purchases=films / "views.csv")
    assert "customer_id: found" in refused(lambda: rec.recommend(customer_id=wrong, age=30))


def test_what_was_removed_comes_back_as_it_was(model_of):
    """With the popularity that it was trained with, not as a product that nobody bought."""
    rec = Recommender(model_of("films", "wide"))
    before = rec.recommend(age=30, top_n=9)
    rows = {"f1": ("Big", "Drama|Crime", 1990), "f3": ("Small", "Comedy", 2010)}
    rec.remove_products(list(rows))
    rec.add_products(
        [dict(zip(("film", "studio", "genres", "year"), (key, *row), strict=True)) for key, row in rows.items()]
    )
    after = rec.recommend(age=30, top_n=9)
    assert [one["product_id"] for one in after] == [one["product_id"] for one in before]
    for one, other in zip(before, after, strict=True):
        assert (one["score"], one["popularity"]) == pytest.approx((other["score"], other["popularity"]), abs=1e-6)


def test_what_is_missing_is_shown_as_missing(films, tmp_path):
    """NA as a studio is no category, in a list as in `dataset.categories`."""
    toml = films / "dataset.toml"
    toml.write_text('missing_values = ["NA"]\n' + toml.read_text(encoding="utf-8"), encoding="utf-8")
    films_csv = films / "films.csv"
    films_csv.write_text(films_csv.read_text().replace("f5,Small", "f5,NA"))
    dataset = load_dataset(films)
    rec = Recommender(fit(dataset, WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4)))
    category = {one["product_id"]: one["category"] for one in rec.recommend(age=3, top_n=9)}
    assert category == {"f1": "Big", "f2": "Big", "f3": "Small", "f4": "Small", "f5": None}
    assert "found 'NA'" in refused(lambda: rec.recommend(age=3, categories=["NA"]))
    assert dataset.categories[-1] == "(none)"


def lines(folder: Path, run: Path, customers: list, capsys, **options) -> str:
    """All that the job says."""
    pq.write_table(pa.Table.from_pylist([{"viewer": one, "age": 30} for one in customers]), folder / "in.parquet")
    score.main(score.Options(folder / "in.parquet", folder / "out.parquet", run, top_n=9, **options))
    return " ".join(capsys.readouterr().out.split())


def test_customers_whom_the_dataset_lacks_are_counted(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    said = lines(tmp_path, tmp_path / "run", ["v1", "somebody", "else"], capsys, dataset=films)
    assert f"2 of 3 customers are not in {films}; the first, 'somebody'" in said
    assert "Left out: what 1 of 3 customers bought" in said


@pytest.mark.parametrize("known", ["dataset", "purchases"])
@pytest.mark.parametrize(("key", "asked", "hint"), [("0001", 1, "zeros at the front"), ("x1", "x1\u200b", "alike")])
def test_another_spelling_of_a_known_id_is_refused(films, films_model, tmp_path, capsys, known, key, asked, hint):
    """Else what they bought would come back, as from a file whose ids a program took for numbers."""
    save_model(films_model, tmp_path / "run")
    for name in ("viewers", "views"):
        path = films / f"{name}.csv"
        path.write_text(path.read_text("utf-8").replace("v1", key), encoding="utf-8")
    how = {known: films if known == "dataset" else films / "views.csv"}
    pq.write_table(pa.table({"viewer": [str(asked)], "age": [30]}), tmp_path / "in.parquet")
    score.main(score.Options(tmp_path / "in.parquet", tmp_path / "out.parquet", tmp_path / "run", **how))
    said = " ".join(capsys.readouterr().out.split())
    assert "1 rows rejected" in said
    assert f"The first rejected one, row 1: viewer: found {str(asked)!r}; allowed: an id as in " in said
    assert f"; there is '{key}'" in said
    rec = Recommender.load(tmp_path / "run", **how)
    rows = [{"viewer": asked, "age": 30}]
    for call in (lambda: rec.recommend(customer_id=asked, age=30), lambda: rec.recommend_batch(rows)):
        assert f"; there is '{key}'" in refused(call)
        assert hint in refused(call)
    assert rec.recommend_batch([{"viewer": "v99", "age": 30}])  # somebody new


def test_what_was_bought_of_other_shops_is_not_said_to_be_left_out(films, films_model, tmp_path, capsys):
    save_model(films_model, tmp_path / "run")
    with (films / "views.csv").open("a") as file:
        file.write("v9,elsewhere\n")
    options = {"purchases": films / "views.csv"}
    said = lines(tmp_path, tmp_path / "run", ["v9"], capsys, allow_unmatched=True, **options)
    why = "Nothing that customers bought was left out: what they bought is the id of no product"
    assert said.endswith(why)
    for options in ({"customer": "v9", "purchases": films / "views.csv"}, {"purchased": ("elsewhere",)}):
        for json_too in (False, True):
            recommend.main(recommend.Options(tmp_path / "run", ("age=30",), json=json_too, **options))
            out, err = capsys.readouterr()
            assert why in " ".join((err if json_too else out).split())


@pytest.mark.parametrize("known", ["dataset", "purchases"])
def test_products_that_are_passed_over_do_not_stop_the_job(films, films_model, tmp_path, capsys, known):
    """The shop says that purchases of products it sells no more are to be passed over, however many."""
    toml = films / "dataset.toml"
    toml.write_text(toml.read_text("utf-8") + 'unknown_products = "ignore"\n', encoding="utf-8")
    save_model(fit(load_dataset(films), films_model.config), tmp_path / "run")
    with (films / "views.csv").open("a") as file:
        file.writelines(f"v1,old{number}\n" for number in range(20))
        file.write("v9,old1\n")
    options = {known: films if known == "dataset" else films / "views.csv"}
    said = lines(tmp_path, tmp_path / "run", ["v1", "v2", "v9"], capsys, **options)
    assert "21 of 24 purchases are the id of no product" in said
    assert "Left out: what 2 of 3 customers bought" in said  # of v9's, nothing can be left out


def test_so_in_a_column_of_purchases(films, films_model, tmp_path, capsys):
    toml = films / "dataset.toml"
    toml.write_text(toml.read_text("utf-8") + 'unknown_products = "ignore"\n', encoding="utf-8")
    save_model(fit(load_dataset(films), films_model.config), tmp_path / "run")
    rows = [{"viewer": "v1", "age": 30, "purchased_products": ["old1", "old2", "f1"]}]
    assert asked(tmp_path, tmp_path / "run", rows, capsys)[0] == {"v1": FILMS - {"f1"}}
    toml.write_text(toml.read_text("utf-8").replace('unknown_products = "ignore"\n', ""), encoding="utf-8")
    save_model(fit(load_dataset(films), films_model.config), tmp_path / "run")
    assert "2 of 3 purchases that are the id of no product" in refused(
        lambda: asked(tmp_path, tmp_path / "run", rows, capsys)
    )


@pytest.mark.parametrize("cell", ["NA", -1, -1.0, ["NA"], "['NA']", None, "", float("nan")])
def test_purchases_that_say_nothing_are_none(films, films_model, tmp_path, cell):
    toml = films / "dataset.toml"
    toml.write_text('missing_values = ["NA", -1]\n' + toml.read_text("utf-8"), encoding="utf-8")
    rec = Recommender(fit(load_dataset(films), films_model.config))
    wanted = ids(rec.recommend(age=30, top_n=9))
    assert wanted == FILMS
    rows = [{"viewer": "v1", "age": 30, "purchased_products": cell}]
    assert ids(rec.recommend_batch(rows, top_n=9, strict=True)[0]) == FILMS
    if isinstance(cell, list):
        assert ids(rec.recommend(age=30, top_n=9, purchased_products=cell, strict=True)) == FILMS
    (tmp_path / "stock.csv").write_text("film,left\nf1,3\nNA,2\n-1,1\n,1\nf2,1\n")
    assert read_ids(tmp_path / "stock.csv", rec.model.schema) == ["f1", "f2"]


def test_a_dataset_is_printed_in_a_line(films):
    assert repr(load_dataset(films)) == "Dataset(films: 5 products, 4 customers, 7 purchases)"


def test_where_nobody_has_an_id_none_is_asked_for():
    """Customers made of reviews: what they bought is named by hand."""
    said = nothing_left_out(Path("run"), named=None, repeats=False, bought=False, by_hand="--purchased", made=True)
    assert said.endswith("no purchases are known; --purchased would name them")
