"""Files as people have them, and frames in their place: the same values mean the same wherever they stand."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import FILMS_CSV, FILMS_TOML, VIEWERS_CSV, VIEWS_CSV

from recsys_jax import Dataset, InputError, Recommender, Schema, WideConfig, fit, load_dataset, load_model, save_model
from recsys_jax.data.dataset import read_purchases
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.files import read_toml
from recsys_jax.data.readers import read_table
from recsys_jax.data.tables import Table
from recsys_jax.evaluation.engine import in_sample

CONFIG = WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4)
ROWS = list(csv.DictReader(io.StringIO(VIEWERS_CSV)))


def schema(tmp_path: Path, text: str = FILMS_TOML) -> dict:
    (tmp_path / "schema.toml").write_text(text, encoding="utf-8")
    return read_toml(tmp_path / "schema.toml")


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


FRAMES = {
    "pandas": lambda text: pd.read_csv(io.StringIO(text)),
    "polars": lambda text: pl.read_csv(io.StringIO(text)),
    "arrow": lambda text: pa.Table.from_pylist(list(csv.DictReader(io.StringIO(text)))),
    "dicts": lambda text: list(csv.DictReader(io.StringIO(text))),
    "columns": lambda text: pd.read_csv(io.StringIO(text)).to_dict("list"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_dataset_of_frames_is_that_of_files(films, tmp_path, kind):
    """Trained on either, every score is the same, and the run that is saved serves without any file of the dataset."""
    frame = FRAMES[kind]
    made = Dataset.of(
        products=frame(FILMS_CSV),
        customers=frame(VIEWERS_CSV),
        purchases=frame(VIEWS_CSV),
        schema=schema(tmp_path),
    )
    read = load_dataset(films)
    assert (made.customer_ids, made.product_ids) == (read.customer_ids, read.product_ids)
    np.testing.assert_array_equal(made.purchases, read.purchases)
    save_model(fit(made, CONFIG), tmp_path / "run")
    found = Recommender.load(tmp_path / "run").recommend(age=30, country="KR", top_n=9)
    wanted = Recommender(fit(read, CONFIG)).recommend(age=30, country="KR", top_n=9)
    assert [(one["product_id"], one["score"]) for one in found] == [(one["product_id"], one["score"]) for one in wanted]


def test_names_of_files_may_be_left_out(tmp_path):
    document = schema(tmp_path)
    del document["name"], document["products"]["file"], document["customers"]["file"], document["interactions"]["file"]
    tables = {"products": FRAMES["dicts"](FILMS_CSV), "customers": ROWS, "purchases": FRAMES["dicts"](VIEWS_CSV)}
    made = Dataset.of(**tables, schema=document)
    assert len(made.purchases) == 7
    assert Dataset.of(**tables, schema=Schema.parse(schema(tmp_path), "s")).fingerprint == made.fingerprint
    assert "file" not in document["products"]  # what was given stays as it was
    model = fit(made, CONFIG)
    save_model(model, tmp_path / "run")
    assert load_model(tmp_path / "run").product_ids == model.product_ids


def test_purchases_belong_to_interactions(tmp_path):
    tables = {"products": FRAMES["dicts"](FILMS_CSV), "customers": ROWS}
    said = refused(lambda: Dataset.of(**tables, schema=schema(tmp_path)))
    assert said == "purchases: allowed, and needed, where the schema has [interactions]"
    own = schema(tmp_path)
    own["customers"]["purchases"] = "country"
    del own["interactions"]
    assert refused(lambda: Dataset.of(**tables, purchases=ROWS, schema=own)) == said


@pytest.mark.parametrize(("part", "found"), [("products", 3), ("customers", "viewers"), ("purchases", [1])])
def test_what_is_no_table_is_a_sentence(tmp_path, part, found):
    tables = {"products": FRAMES["dicts"](FILMS_CSV), "customers": ROWS, "purchases": FRAMES["dicts"](VIEWS_CSV)}
    said = refused(lambda: Dataset.of(**{**tables, part: found}, schema=schema(tmp_path)))
    assert said.startswith(f"{part}: found {type(found).__name__}; allowed: a data frame, columns, or a list of dicts")


def test_a_row_of_a_frame_is_named(tmp_path):
    rows = [*ROWS, {**ROWS[0], "viewer": "v5"}] * 1
    rows += [{**ROWS[0], "viewer": f"w{number}"} for number in range(20)]
    rows[3] = {**rows[3], "age": [1]}
    made = Dataset.of(
        products=FRAMES["dicts"](FILMS_CSV),
        customers=rows,
        purchases=FRAMES["dicts"](VIEWS_CSV.replace("v4", "v5")),
        schema=schema(tmp_path),
    )
    (aside,) = made.set_aside
    assert str(aside).startswith("customers, row 4")


@pytest.mark.parametrize("kind", FRAMES)
def test_a_batch_of_any_frame_is_its_rows(films_model, kind):
    rec = Recommender(films_model)
    batch = rec.recommend_batch(FRAMES[kind](VIEWERS_CSV), top_n=9)
    for row, found in zip(ROWS, batch, strict=True):
        stated = {name: value or None for name, value in row.items() if name != "viewer"}
        alone = rec.recommend(**stated, top_n=9)
        assert [one["product_id"] for one in found] == [one["product_id"] for one in alone]


# Missing values

CELLS = ["KR", "FR", "NA", "Prefer not to say", "", "KR"]
AGES = ["30", "-1", "NA", "41", "", "50"]
MISSING = 'missing_values = ["NA", "Prefer not to say", -1]\n'


KINDS = ["csv", "json", "jsonl", "parquet", "pandas", "pandas texts", "polars", "arrow"]


def written(tmp_path: Path, kind: str, rows: list[dict]) -> Table:
    """The same cells in a file, or in what a library makes of a file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    (tmp_path / "t.csv").write_text(text.getvalue(), encoding="utf-8")
    if kind == "json":
        (tmp_path / "t.json").write_text(json.dumps(rows))
    elif kind == "jsonl":
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    elif kind == "pandas":  # reads "NA" as NaN, and the ages as floats
        return Table.of(pd.read_csv(tmp_path / "t.csv"), "t")
    elif kind == "pandas texts":
        return Table.of(pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype=str), "t")
    elif kind == "polars":
        return Table.of(pl.read_csv(tmp_path / "t.csv", null_values=["NA"]), "t")
    elif kind == "arrow":
        return Table.of(pa.Table.from_pandas(pd.read_csv(tmp_path / "t.csv")), "t")
    return read_table(tmp_path / f"t.{kind}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["dataset", "features"])
def test_a_cell_means_the_same_in_every_reader(tmp_path, kind, place):
    text = MISSING + FILMS_TOML
    if place == "features":
        text = FILMS_TOML.replace('name = "country"\n', 'name = "country"\n' + MISSING)
        text = text.replace('name = "age"\n', 'name = "age"\n' + MISSING)
    features = Schema.parse(schema(tmp_path, text), "s").customers.features
    rows = [
        {"viewer": f"v{i}", "favourite_genres": "Drama", "country": country, "age": age}
        for i, (country, age) in enumerate(zip(CELLS, AGES, strict=True))
    ]
    table = written(tmp_path, kind, rows)
    space = FeatureSpace.fit(features, table)
    assert space["country"].values == ("KR", "FR")
    encoded = space.encode(table)
    # KR, FR, then one row for unseen and one for missing values.
    missing = int(encoded["country"][4])
    assert encoded["country"].tolist() == [0, 1, missing, missing, missing, 0]
    mean = (30 + 41 + 50) / 300
    np.testing.assert_allclose(encoded["age"][:, 0], [0.3, mean, mean, 0.41, mean, 0.5], atol=1e-6)
    assert encoded["age"][:, 1].tolist() == [0, 1, 1, 0, 1, 0]


def rows_of(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


NOBODY = [
    {"who": "NA", "what": "f1"},
    {"who": "-1", "what": "f2"},
    {"who": "v1", "what": "NA"},
    {"who": "", "what": ""},
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_says_nothing_is_none_in_every_reader(films, tmp_path, kind):
    """A guest is a guest, and a customer or product of no id is set aside, whatever the reader made of the cell."""
    text = MISSING + FILMS_TOML.replace(
        'customer = "who"', 'customer = "who"\nunknown_customers = "ignore"\nunknown_products = "ignore"'
    )
    known = Schema.parse(schema(tmp_path, text), "s")
    views = written(tmp_path, kind, rows_of(VIEWS_CSV) + NOBODY)
    many = [{**row, "viewer": f"w{i}"} for i, row in enumerate(ROWS * 3)]
    nobody = {"viewer": "NA", "favourite_genres": "Drama", "country": "KR", "age": "30"}
    viewers = written(tmp_path, kind, [*ROWS, *many, nobody])
    goods = [{"film": f"g{i}", "studio": "Big", "genres": "Drama", "year": "2000"} for i in range(9)]
    of_none = {"film": "-1", "studio": "Big", "genres": "Drama", "year": "2000"}
    products = written(tmp_path, kind, [*rows_of(FILMS_CSV), *goods, of_none])
    made = Dataset.of(products=products, customers=viewers, purchases=views, schema=known)
    np.testing.assert_array_equal(made.purchases, load_dataset(films).purchases)
    reasons = [(one.row, one.reason) for one in made.set_aside]
    # A number among texts stays a text in pandas, so that -1 is found in each; a cell NA may be read as empty.
    assert [row for row, _ in reasons] == [15, 17]
    assert reasons[0][1].startswith("film: found ")
    assert reasons[0][1].endswith("; missing_values in dataset.toml says that this is none")
    assert reasons[1][1].startswith("viewer: found ")
    passed = [note for note in made.notes if "passed over" in note]
    assert [note.split(": ")[1].split(" rows")[0] for note in passed] == ["3 of 11", "1 of 8"]
    bought, _ = read_purchases(views, known)
    assert bought == {"v1": ["f1", "f2"], "v2": ["f1"], "v3": ["f3", "f4"], "v4": ["f5", "f1"]}


@pytest.mark.parametrize("cell", ["NA", "f1|NA"])
def test_a_list_of_ids_leaves_out_what_says_nothing(films, cell):
    toml = films / "dataset.toml"
    toml.write_text(MISSING + toml.read_text(encoding="utf-8"), encoding="utf-8")
    table = load_dataset(films).schema.reads(Table.of([{"bought": cell}], "t"))
    assert table.id_lists("bought", "|") == [["f1"] if "f1" in cell else []]
    rec = Recommender(fit(load_dataset(films), CONFIG))
    lists = rec.recommend_batch(
        {"viewer": ["NA"], "favourite_genres": ["Drama"], "purchased_products": [["NA"]]}, strict=True
    )
    assert len(lists[0]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_has_one_fingerprint_in_every_reader(tmp_path, kind):
    """What pandas reads as 30.0, CSV as the text 30 and JSON as nothing at all is one content; another age is not."""
    known = Schema.parse(schema(tmp_path, MISSING + FILMS_TOML), "s")

    def fingerprints(kind, age="30", country="KR"):
        viewers = written(tmp_path, kind, [ROWS[0] | {"age": age, "country": country}, *ROWS[1:]])
        products, purchases = rows_of(FILMS_CSV), rows_of(VIEWS_CSV)
        return Dataset.of(products=products, customers=viewers, purchases=purchases, schema=known).fingerprints

    assert fingerprints(kind)[0] == fingerprints("csv")[0] != fingerprints(kind, "31")[0]
    assert fingerprints(kind, country="Korea")[0] == fingerprints(kind)[0] != fingerprints(kind, country="FR")[0]
    assert len(set(fingerprints(kind))) == 2


def test_a_run_of_an_older_version_is_that_of_its_data(films):
    """Its fingerprint, of the texts of cells, was written by the version before; files that did not change give it."""
    data = load_dataset(films)
    older = "522cfdef92aca17bdd4539d191837f4347e4d4a569833385ecfa2ddd90788ab8"
    assert data.fingerprints[1] == older
    model = replace(fit(data, CONFIG), trained_on=older)
    assert in_sample(model, data).queries
    with pytest.raises(InputError, match="not the customers and purchases that the model was trained on"):
        in_sample(replace(model, trained_on="other"), data)


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, np.nan, "", "NA", " NA ", "Prefer not to say", "NULL"])
def test_serving_understands_the_same_words(films, nothing):
    toml = films / "dataset.toml"
    toml.write_text(MISSING + toml.read_text(encoding="utf-8"), encoding="utf-8")
    rec = Recommender(fit(load_dataset(films), CONFIG))
    wanted = rec.recommend(favourite_genres="Drama", top_n=9)
    assert rec.recommend(favourite_genres=["Drama", "NA"], country=nothing, age=nothing, top_n=9) == wanted
    assert rec.recommend(favourite_genres="Drama", country=nothing, age=-1, top_n=9) == wanted
    assert rec.recommend(favourite_genres="Drama", country="FR", age=3, top_n=9) != wanted


def test_segments_without_a_value_are_none(films):
    toml = films / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace('id = "viewer"', 'id = "viewer"\nsegment = "country"')
    toml.write_text('missing_values = ["FR"]\n' + text, encoding="utf-8")
    assert load_dataset(films).segments == ["KR", "(none)", "KR", "(none)"]


def test_what_a_feature_declares_is_a_value(films):
    """A list for the whole dataset stops before a column in which the word means something, such as Namibia."""
    toml = films / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace(
        'values = "learned"\naliases = { Korea = "KR" }', 'values = ["KR", "FR", "NA"]\naliases = { Korea = "KR" }'
    )
    toml.write_text('missing_values = ["NA"]\n' + text, encoding="utf-8")
    (country,) = [one for one in load_dataset(films).schema.customers.features if one.name == "country"]
    assert country.items("NA") == ["NA"]
    text = text.replace('name = "country"', 'name = "country"\nmissing_values = ["NA"]')
    toml.write_text(text, encoding="utf-8")
    assert "(country): missing_values: found ['NA']; allowed: no value, label or alias, as 'NA' is" in refused(
        lambda: load_dataset(films)
    )


@pytest.mark.parametrize("value", ['"NA"', "[]", "[[1]]", '["NA", "NA"]', "3"])
def test_missing_values_are_a_list(films, value):
    toml = films / "dataset.toml"
    toml.write_text(f"missing_values = {value}\n" + toml.read_text(encoding="utf-8"), encoding="utf-8")
    assert "dataset.toml: missing_values: found" in refused(lambda: load_dataset(films))


@pytest.mark.parametrize("word", ["NA", "N/A", "n/a", "None", "none", "-", "--", "?"])
def test_a_word_for_nothing_is_pointed_out(films, word):
    (films / "viewers.csv").write_text(VIEWERS_CSV.replace("FR", word), encoding="utf-8")
    (note,) = load_dataset(films).notes
    assert note.startswith(f"{films / 'viewers.csv'}, country: '{word}' counts as a value, in 1 of 4 rows")
    assert note.endswith(f'missing_values = ["{word}"]')
    toml = films / "dataset.toml"
    toml.write_text(f'missing_values = ["{word}"]\n' + toml.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_dataset(films).notes == []


@pytest.mark.parametrize("word", ["NaN", "NULL", "null", "#N/A", "\\N"])
def test_what_programs_write_for_nothing_needs_no_word(films, word):
    (films / "viewers.csv").write_text(VIEWERS_CSV.replace("FR", word), encoding="utf-8")
    assert load_dataset(films).notes == []


# Ids as people have them


@pytest.mark.parametrize(
    "ids",
    [("f1", "f1\u200b"), ("f1", "f1\ufeff"), ("a b", "a\u00a0b"), ("a b", "a  b"), ("ｆ1", "f1"), ("f1", "f\u00ad1")],
)
def test_ids_that_look_alike_are_pointed_out(films, ids):
    text = FILMS_CSV.replace("f5,", f"{ids[0]},") + f"{ids[1]},Big,Drama,1990\n"
    text = text.replace("f1,Big,Drama|Crime,1990\n", "") if ids[0] == "f1" or ids[1] == "f1" else text
    (films / "films.csv").write_text(text, encoding="utf-8")
    (films / "views.csv").write_text(f"who,what\nv1,{ids[0]}\nv2,{ids[1]}\n", encoding="utf-8")
    dataset = load_dataset(films)
    assert len(dataset.purchases) == 2
    assert {dataset.product_ids[row] for row in dataset.purchases[:, 1]} == set(ids)
    (note,) = dataset.notes
    assert "films.csv: the ids" in note
    assert note.endswith("look alike; each is another one")
    assert note.isprintable()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("00123", "123", False),
        ("123.0", "123", False),
        (" f7 ", "f7", True),
        ("Cafe\u0301", "Caf\u00e9", True),
        ("\u1112\u1161\u11ab", "\ud55c", True),  # Hangul as letters and as a syllable
        (2**53 + 1, str(2**53 + 1), True),
        (123.0, "123", True),
        ("F7", "f7", False),
    ],
)
def test_which_ids_are_one(films, one, other, same):
    """As docs/datasets.md says, for an id of the table and one that a service sends."""
    document = [{"film": one, "studio": "Big", "genres": "Drama", "year": 1990}]
    document += [{"film": "z", "studio": "Big", "genres": "Drama", "year": 1990}]
    (films / "films.json").write_text(json.dumps(document), encoding="utf-8")
    toml = films / "dataset.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace("films.csv", "films.json"), encoding="utf-8")
    (films / "views.csv").write_text("who,what\nv1,z\n", encoding="utf-8")
    rec = Recommender(fit(load_dataset(films), CONFIG))
    left = {one["product_id"] for one in rec.recommend(age=30, purchased_products=[other])}
    assert (left == {"z"}) is same


@pytest.mark.parametrize("wrong", [None, "shop/dataset.toml", 3, [{}]])
def test_a_schema_is_one_or_a_dictionary(wrong):
    assert "schema: found" in refused(lambda: Dataset.of(products=[], customers=[], schema=wrong))


def test_a_part_of_a_schema_is_a_table(tmp_path):
    document = {**schema(tmp_path), "products": []}
    assert "products" in refused(lambda: Dataset.of(products=[], customers=[], purchases=[], schema=document))
