"""What is stated of customers and does not count is said: values that policies let pass, tables of something else."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import write_films

from recsys_jax import InputError, Recommender, WideConfig, fit, load_dataset, load_model, save_model
from recsys_jax.cli.serving import recommend, score
from recsys_jax.data.features import FittedFeature
from recsys_jax.data.schema import As
from recsys_jax.data.tables import Table
from recsys_jax.service.calls import CALLS, Limits, answer
from recsys_jax.service.openapi import document
from recsys_jax.serving.ranking import not_known

NO_NUMBER = "age: the model does not know 'forty', which counts as not stated; allowed: a number from 1 to 120"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the films, which takes ages from 1 to 120."""
    films = write_films(tmp_path_factory.mktemp("bounded") / "films")
    toml = films / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace("scale = 100", "scale = 100\nmin = 1\nmax = 120")
    toml.write_text(text, encoding="utf-8")
    config = WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4)
    save_model(fit(load_dataset(films), config), films.parent / "run")
    return films.parent / "run"


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


@pytest.mark.parametrize(
    ("word", "note"),
    [
        ("age=forty", NO_NUMBER),
        ("age=420", "the model does not know '420', which counts as not stated; allowed: a number from 1 to 120"),
        ("age=42,5", "'42,5', which counts as not stated; allowed: a number from 1 to 120; did you mean 42.5?"),
        ("age=420,5", "'420,5', which counts as not stated; allowed: a number from 1 to 120"),
        ("country=DE", "country: the model does not know 'DE'; it knows 'KR', 'FR'"),
        ("favourite_genres=Drama,Western", "the model does not know 'Western'; it knows"),
        ("country=kr", "the model does not know 'kr'; it knows 'KR', 'FR'; did you mean 'KR'?"),
        ("age=42.5", ""),
        ("favourite_genres=Drama,Crime", ""),
        ("country=", ""),
    ],
)
def test_recommend_says_what_does_not_count(folder, capsys, word, note):
    recommend.main(recommend.Options(folder, (word,)))
    said = capsys.readouterr()
    told = " ".join(said.err.split())
    assert note in told
    assert ("does not know" in told) == (note != "")
    assert told.count("did you mean") == note.count("did you mean")
    taken = said.out.partition("Not stated, so taken as dataset.toml says: ")[2].splitlines()[0].split(", ")
    assert ("age" in taken) == (word != "age=42.5")  # an age that does not count is as good as none


def test_what_stands_for_a_bad_number_is_said(model):
    (age,) = (one for one in model.customers if one.feature.name == "age")
    taken = replace(age, feature=replace(age.feature, unknown=As(33.0)))
    (said,) = not_known([taken], {"age": "forty"})
    assert "which counts as 33.0" in said


def test_explain_calls_a_bad_number_unknown(model):
    rec = Recommender(model)
    for value, told in (("forty", "forty (unknown)"), (420, "420 (unknown)"), ("42", 42), (None, None)):
        reasons = rec.explain("f1", age=value, country="KR")["reasons"]
        assert [one["value"] for one in reasons if one["name"] == "age"] in ([told], [])
        assert any(one["name"] == "age" for one in reasons) or value is None


def test_numbers_of_any_kind(model):
    (age,) = (one for one in model.customers if one.feature.name == "age")
    free = replace(age, feature=replace(age.feature, minimum=-math.inf, maximum=math.inf))
    for value in (42, 42.0, "42", np.float32(42), None, "", math.nan):
        assert age.unknown(value) == free.unknown(value) == []
    for value in (True, "forty", math.inf, 10**400):
        assert age.unknown(value) == free.unknown(value) == [value]
    for value in (0, 121.0, "121"):
        assert (age.unknown(value), free.unknown(value)) == ([value], [])


def test_the_service_says_so_too(model):
    rec = Recommender(model)
    fine, bad = {"age": 30, "country": "Korea"}, {"age": "forty", "favourite_genres": ["Drama", "Western"]}
    assert set(answer(rec, "/recommend", {"attributes": fine}, Limits())) == {"products"}
    genres, age = answer(rec, "/recommend", {"attributes": bad}, Limits())["notes"]
    assert "favourite_genres: the model does not know 'Western'" in genres
    assert age == NO_NUMBER
    batch = answer(rec, "/recommend/batch", {"customers": [fine, bad, {}]}, Limits())
    assert batch["notes"] == [f"row 2, {genres}", f"row 2, {age}"]
    assert len(batch["lists"]) == 3
    assert set(answer(rec, "/recommend/batch", {"customers": [fine]}, Limits())) == {"lists"}
    paths = json.loads(document(rec, Limits(), "", token=False))["paths"]
    for path, call in CALLS.items():
        schema = paths[path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert ("notes" in schema.get("properties", {})) == ("customers" in call.keys or path == "/recommend")


# A number that is allowed, and beyond all in training

OUTSIDE = "lies outside 30 to 70, which training has seen; min and max in dataset.toml say what is allowed"


@pytest.mark.parametrize(
    ("value", "said"), [(110, "age: 110 "), ("1", "age: 1 "), (70.5, "age: 70.5 "), (70, ""), (30, "")]
)
def test_a_number_beyond_training_is_said(folder, model, capsys, value, said):
    notes = [said + OUTSIDE] if said else []
    assert not_known(model.customers, {"age": value}) == notes
    assert answer(Recommender(model), "/recommend", {"attributes": {"age": value}}, Limits()).get("notes", []) == notes
    recommend.main(recommend.Options(folder, (f"age={value}",)))
    told = capsys.readouterr()
    assert " ".join(told.err.split()).count(OUTSIDE) == len(notes)
    assert "age" not in told.out.partition("Not stated")[2]  # it counts all the same


def test_what_training_has_seen(model):
    (age,) = (one for one in model.customers if one.feature.name == "age")
    for value in (30, 70.0, "44", None, "", math.nan, "forty", True, 420):  # the last three are unknown
        assert not age.unseen(value)
    for value in (29.9, np.float32(71), "119"):
        assert age.unseen(value)
    former = FittedFeature.restore(age.feature, {"mean": age.mean, "deviation": age.deviation})
    assert former.learned() == {"mean": age.mean, "deviation": age.deviation}
    assert not former.unseen(119)
    assert FittedFeature.restore(age.feature, age.learned()) == age
    with pytest.raises(ValueError, match=r"age: found \{.*'low': 0\.9"):
        FittedFeature.restore(age.feature, age.learned() | {"low": 0.9})
    clipped = FittedFeature.fit(replace(age.feature, clip=(0, 0.5)), Table("t", {"age": [30, 60]}))
    assert [clipped.unseen(value) for value in (29, 30, 50, 119)] == [True, False, False, False]


# A table of something else


@pytest.mark.parametrize(
    "rows",
    [
        {"film": ["f1"], "genres": ["Drama"], "year": [1990]},
        pd.DataFrame({"viewer": ["v1", "v2"]}),
        [{"alter": 30, "land": "KR"}],
        [{"film": "f1", "purchased_products": []}],
    ],
    ids=["products", "ids alone", "another language", "purchases, too"],
)
def test_a_table_without_any_attribute_is_refused(model, rows):
    rec = Recommender(model)
    for call in (rec.recommend_batch, rec.rank_batch):
        with pytest.raises(InputError, match="none of which is an attribute of customers") as caught:
            call(rows)
        assert "allowed: columns named 'favourite_genres', 'country', 'age'" in str(caught.value)


def test_a_column_that_may_be_meant(model):
    with pytest.raises(InputError, match=r"none of which .*; did you mean 'country'\?"):
        Recommender(model).recommend_batch({"countries2": ["KR"]})


def test_of_whom_nothing_is_stated(model):
    """That is no mistake: nothing else is stated in its place."""
    rec = Recommender(model)
    of_nobody = [one["product_id"] for one in rec.recommend()]
    for rows in ([{}], [{"purchased_products": []}], [{"age": None}], {"country": [""], "note": ["x"]}):
        assert [one["product_id"] for one in rec.recommend_batch(rows)[0]] == of_nobody
    assert rec.recommend_batch([]) == []


def scored(folder, text):
    """Scores a CSV file."""
    path = folder.parent / "in.csv"
    path.write_text(text, encoding="utf-8")
    score.main(score.Options(path, folder.parent / "out.csv", folder))


def test_score_refuses_another_file(folder):
    with pytest.raises(InputError, match=r"in\.csv: found the columns 'film', 'genres', none of which is an attribute"):
        scored(folder, "film,genres\nf1,Drama\n")
    assert not (folder.parent / "out.csv").exists()


def test_score_says_what_does_not_count(folder, capsys):
    scored(folder, 'viewer,age,country\na,"42,5",KR\nb,30,DE\nc,420,FR\nd,,\n')
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("in.csv: found no column 'favourite_genres': taken as not stated by anybody") == 1
    assert "2 of 4 customers have an unknown age; the first, row 1, age: the model does not know '42,5'" in said
    assert "1 of 4 customers have an unknown country; the first, row 2, country: the model does not know 'DE'" in said
    with (folder.parent / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["viewer"] for row in csv.DictReader(file)} == set("abcd")
    scored(folder, "viewer,age,country,favourite_genres\na,42,KR,Drama\n")
    said = capsys.readouterr().out
    assert "found no column" not in said
    assert "unknown" not in said


def test_score_says_which_numbers_are_beyond_training(folder, capsys):
    scored(folder, "viewer,age,country\na,30,KR\nb,119,KR\nc,420,FR\nd,2,KR\ne,,KR\n")
    said = " ".join(capsys.readouterr().out.split())
    assert f"2 of 5 customers have an unusual age; the first, row 2, age: 119 {OUTSIDE}" in said
    assert "1 of 5 customers have an unknown age; the first, row 3, age: the model does not know '420'" in said


@pytest.mark.parametrize(
    "stated", [{"age": "forty"}, {"age": 420}, {"country": "DE"}, {"favourite_genres": ["Drama", "X"]}]
)
def test_strict_refuses_what_is_not_known(model, stated):
    rec = Recommender(model)
    fine = {"age": 42, "country": "KR"}
    assert rec.recommend(**fine, strict=True) == rec.recommend(**fine)
    assert rec.recommend(**stated)
    with pytest.raises(InputError, match=r"^recommend\(\), .*the model does not know"):
        rec.recommend(**stated, strict=True)
    with pytest.raises(InputError, match=r"^recommend_batch\(\), row 2, .*the model does not know"):
        rec.recommend_batch([fine, stated], strict=True)
    with pytest.raises(InputError, match=r"^/recommend, .*the model does not know"):
        answer(rec, "/recommend", {"attributes": stated, "strict": True}, Limits())
