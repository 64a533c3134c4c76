"""An attribute is stated by its column or by what people call it, whoever asks."""

import csv
import json
from dataclasses import replace
from unicodedata import normalize

import polars as pl
import pytest
from conftest import write_films

from recsys_jax import InputError, Recommender, WideConfig, fit, load_dataset, save_model
from recsys_jax.cli.serving import recommend, score
from recsys_jax.data.features import FeatureSpace
from recsys_jax.service.calls import Limits, answer

LABELS = {'"age"\n': '{ en = "years of age", ko = "나이" }', '"country"\n': '"land"'}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the films, whose age and country have labels."""
    films = write_films(tmp_path_factory.mktemp("labelled") / "films")
    toml = films / "dataset.toml"
    text = toml.read_text(encoding="utf-8")
    for name, label in LABELS.items():
        text = text.replace(f"name = {name}", f"name = {name}label = {label}\n")
    toml.write_text(text, encoding="utf-8")
    config = WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4)
    save_model(fit(load_dataset(films), config), films.parent / "run")
    return films.parent / "run"


@pytest.fixture(scope="module")
def rec(folder):
    return Recommender.load(folder)


@pytest.fixture(scope="module")
def labelled_alike(rec):
    """The recommender of a model of which age and country have one label."""
    alike = [replace(one, feature=replace(one.feature, label={"en": "kind"})) for one in rec.model.customers]
    return Recommender(replace(rec.model, customers=FeatureSpace(tuple(alike))))


BY_COLUMN = {"age": 60, "country": "FR"}
BY_LABEL = [
    {"나이": 60, "country": "FR"},
    {"years of age": 60, "land": "FR"},
    {normalize("NFD", "나이"): 60, "land": "FR"},
    {"years_of_age": 60, "land": "FR"},
    {"A_ge": 60, "la nd": "FR"},
]


@pytest.mark.parametrize("stated", BY_LABEL)
def test_one_customer(rec, stated):
    expected = rec.recommend(**BY_COLUMN)
    assert rec.recommend(**stated) == rec.recommend(attributes=stated) == expected != rec.recommend()
    assert rec.explain("f1", attributes=stated) == rec.explain("f1", **BY_COLUMN)
    assert answer(rec, "/recommend", {"attributes": stated}, Limits()) == {"products": expected}


@pytest.mark.parametrize("stated", BY_LABEL)
def test_many_customers(rec, stated):
    expected = rec.recommend_batch([BY_COLUMN])
    for rows in ([stated], {name: [value] for name, value in stated.items()}, pl.DataFrame([stated])):
        assert rec.recommend_batch(rows) == expected != rec.recommend_batch([{}])
    assert answer(rec, "/recommend/batch", {"customers": [stated]}, Limits()) == {"lists": expected}


def test_on_the_command_line(folder, rec, capsys):
    recommend.main(recommend.Options(folder, ("나이=60", "land=FR"), json=True))
    assert json.loads(capsys.readouterr().out) == rec.recommend(**BY_COLUMN, standing=True)
    recommend.main(recommend.Options(folder, ("나이=60",)))
    assert "Not stated, so taken as dataset.toml says: favourite_genres, country\n" in capsys.readouterr().out
    with pytest.raises(InputError, match="found '나이=3'; allowed: each attribute once"):
        recommend.main(recommend.Options(folder, ("age=3", "나이=3")))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_of_customers(folder, tmp_path, capsys, ending):
    for names in (["viewer", "age", "country"], ["viewer", "나이", "la_nd"]):
        frame = pl.DataFrame([("a", "60", "FR"), ("b", "20", "KR")], names, orient="row")
        path = tmp_path / f"in.{ending}"
        frame.write_csv(path) if ending == "csv" else frame.write_parquet(path)
        score.main(score.Options(path, tmp_path / f"{names[1]}.csv", folder))
        assert "found no column 'favourite_genres': taken" in " ".join(capsys.readouterr().out.split())
    found, expected = ((tmp_path / f"{name}.csv").read_text("utf-8") for name in ("나이", "age"))
    assert found == expected
    assert {row["viewer"] for row in csv.DictReader(found.splitlines())} == {"a", "b"}


def test_a_column_wins(rec):
    """What has the name of the column is the attribute; a column named like its label is another one."""
    rows = {"age": [60], "country": ["FR"], "나이": ["young"], "land": ["a country"]}
    assert rec.recommend_batch(rows) == rec.recommend_batch([BY_COLUMN])
    columns = {one.feature.name: one for one in rec.model.customers}
    other = replace(columns["country"], feature=replace(columns["country"].feature, label={"en": "age"}))
    space = FeatureSpace((columns["likes"], other, columns["age"]))
    assert Recommender(replace(rec.model, customers=space)).recommend(age=60) == rec.recommend(age=60)


def test_rows_of_either_name(rec):
    """A list of dicts, of which one names the column and the next the label; each is read as it would be alone."""
    rows = [BY_COLUMN, *BY_LABEL, {}, {"land": "FR"}, {**BY_COLUMN, "나이": "young"}]
    assert rec.recommend_batch(rows) == [rec.recommend_batch([row])[0] for row in rows]
    assert rec.recommend_batch(rows)[:4] == rec.recommend_batch([BY_COLUMN]) * 4


def test_what_is_said_twice(rec):
    said = r"found the attribute '나이' twice; allowed: .*'age', each once"
    with pytest.raises(InputError, match=said):
        rec.recommend(age=60, 나이=60)
    with pytest.raises(InputError, match=said):
        answer(rec, "/recommend", {"attributes": {"age": 60, "나이": 60}}, Limits())
    with pytest.raises(InputError, match="two columns have the same name: age, age"):
        rec.recommend_batch({"years of age": [60], "나이": [60]})
    with pytest.raises(InputError, match=r"row 1: found the key '나이'; allowed: 'favourite_genres', 'country', 'age'"):
        answer(rec, "/recommend/batch", {"customers": [{"age": 60, "나이": 60}]}, Limits())


def test_a_label_of_several(labelled_alike):
    with pytest.raises(InputError, match=r"the attribute 'kind', the name of several; allowed: 'favourite_genres', 'c"):
        labelled_alike.recommend(kind=60)
    with pytest.raises(InputError, match="'kind'; allowed: a column of another name: it is that of several"):
        labelled_alike.recommend_batch([{"kind": 60}])
    assert labelled_alike.recommend(country="FR")


def test_what_may_be_meant(rec):
    with pytest.raises(InputError, match=r"allowed: 'favourite_genres', 'country', 'age'; did you mean '나이'\?"):
        rec.recommend(나아=60)
    with pytest.raises(InputError, match=r'in them, as {"attributes": {"나이": 60}}'):
        answer(rec, "/recommend", {"나이": 60}, Limits())


def test_names_that_are_alike_but_for_spaces_are_not_guessed_at(rec):
    """A name that is written so counts, and what may mean two is refused."""
    called = {"age": "skin type", "country": "skin_type"}
    alike = [
        replace(one, feature=replace(one.feature, label={"en": called.get(one.feature.column, "x")}))
        for one in rec.model.customers
    ]
    model = Recommender(replace(rec.model, customers=FeatureSpace(tuple(alike))))
    assert model.recommend(**{"skin type": 60, "skin_type": "FR"}) == rec.recommend(**BY_COLUMN)
    with pytest.raises(InputError, match="the attribute 'skintype', the name of several"):
        model.recommend(skintype=60)
