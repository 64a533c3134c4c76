"""Files as people have them, and frames in their place: the same values mean the same wherever they stand."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import FILMS_CSV, FILMS_TOML, VIEWERS_CSV, VIEWS_CSV

from recsys_jax import Dataset, InputError, Recommender, Schema, WideConfig, fit, load_dataset, load_model, save_model
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.files import read_toml
from recsys_jax.data.interactions import read_purchases
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.readers import read_table
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


def structured(text: str) -> np.ndarray:
    """A structured array of texts, in which empty cells are masked."""
    rows = list(csv.DictReader(io.StringIO(text)))
    array = np.array([tuple(row.values()) for row in rows], [(name, "U40") for name in rows[0]])
    return np.ma.array(array, mask=[tuple(value == "" for value in row.values()) for row in rows])


def in_library(text: str) -> dict:
    """A mapping whose columns are series and arrays of several libraries."""
    frame = pd.read_csv(io.StringIO(text), dtype=str)
    kinds = [pl.Series, pa.array, pd.Series, pd.Index, lambda values: pa.chunked_array([values])]
    columns = ([None if one is np.nan else one for one in column] for _, column in frame.items())
    return {name: kind(column) for name, kind, column in zip(frame, kinds, columns, strict=False)}


FRAMES = {
    "pandas": lambda text: pd.read_csv(io.StringIO(text)),
    "pandas nullable": lambda text: pd.read_csv(io.StringIO(text)).convert_dtypes(),
    "pandas categories": lambda text: pd.read_csv(io.StringIO(text), dtype="category"),
    "pandas of arrow": lambda text: pd.read_csv(io.StringIO(text), dtype_backend="pyarrow"),
    "polars categories": lambda text: pl.read_csv(io.StringIO(text), infer_schema=False).cast(pl.Categorical),
    "arrow batch": lambda text: pa.RecordBatch.from_pylist(list(csv.DictReader(io.StringIO(text)))),
    "arrow dictionaries": lambda text: pa.table(
        {name: pa.array(column).dictionary_encode() for name, column in FRAMES["text columns"](text).items()}
    ),
    "text columns": lambda text: pd.read_csv(io.StringIO(text), dtype=object, keep_default_na=False).to_dict("list"),
    "structured array": structured,
    "series": in_library,
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


BIG = 2**53 + 1
SHORT = "float[pyarrow]"
TYPED = {
    "nullable": (pd.Series([BIG, None], dtype="Int64"), [str(BIG), ""]),
    "of arrow": (pd.Series([BIG, None], dtype="int64[pyarrow]"), [str(BIG), ""]),
    "polars": (pl.Series([2**64 - 1, None], dtype=pl.UInt64), [str(2**64 - 1), ""]),
    "polars, 128 bits": (pl.Series([2**100], dtype=pl.Int128), [str(2**100)]),
    "arrow": (pa.chunked_array([pa.array([BIG, None])]), [str(BIG), ""]),
    "decimals": (pl.Series(["1061.00", None]).cast(pl.Decimal(38, 2)), ["1061", ""]),
    "enum": (pl.Series(["b", None], dtype=pl.Enum(["a", "b"])), ["b", ""]),
    "large texts": (pa.chunked_array([pa.array(["b", None], pa.large_string())]), ["b", ""]),
    "text views": (pa.chunked_array([pa.array(["b", None], pa.string_view())]), ["b", ""]),
    "short": (pd.Series([0.1, 2.0**24 - 1], dtype="float32"), ["0.1", "16777215"]),
    "short of arrow": (pd.Series([0.1, None], dtype=SHORT), ["0.1", ""]),
    "short and nullable": (pd.Series([0.1, None], dtype="Float32"), ["0.1", ""]),
    "half": (pl.Series([0.1, None], dtype=pl.Float16), ["0.1", ""]),
    "runs": (pa.chunked_array([pa.RunEndEncodedArray.from_arrays([2, 3], ["b", None])]), ["b", "b", ""]),
    "sparse": (pd.Series(pd.arrays.SparseArray([1.0, np.nan])), ["1", ""]),
}


@pytest.mark.wild
@pytest.mark.parametrize("kind", TYPED)
def test_a_typed_column_has_its_values_to_the_last_digit(kind):
    """In a frame of the column's library, and as it is in a mapping."""
    column, wanted = TYPED[kind]
    one = {pd.Series: pd.DataFrame, pl.Series: pl.DataFrame, pa.ChunkedArray: pa.table}[type(column)]
    for rows in (one({"x": column}), {"x": column}):
        assert Table.of(rows, "t").keys("x") == wanted


MOMENT = datetime(2024, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=9)))


@pytest.mark.wild
@pytest.mark.parametrize(
    "column",
    [
        pd.Series([MOMENT]),
        pd.Series([MOMENT]).dt.tz_convert("Asia/Seoul"),
        pd.Series([MOMENT]).dt.tz_convert("UTC").dt.tz_localize(None),
        pl.Series([MOMENT]).dt.convert_time_zone("Asia/Seoul"),
        pl.Series([MOMENT]).dt.replace_time_zone(None).dt.cast_time_unit("ns"),
        pa.array([MOMENT], pa.timestamp("s", "Asia/Seoul")),
        np.array(["2024-03-01T00:30"], "datetime64[ns]"),
    ],
    ids=["offset", "zone", "no zone", "polars", "polars ns", "arrow", "numpy"],
)
def test_a_moment_is_the_same_in_every_library(column):
    """Without a time zone, UTC is meant."""
    assert Table.of({"x": column}, "t").dates("x") == [datetime(2024, 3, 1, 0, 30, tzinfo=UTC).timestamp()]


@pytest.mark.wild
@pytest.mark.parametrize(
    "column",
    [
        pd.Series([["a", None, "b"], None]),
        pd.Series([["a", None, "b"], None], dtype=pd.ArrowDtype(pa.list_(pa.string()))),
        pl.Series([["a", None, "b"], None]),
        pl.Series([["a", "b"], []], dtype=pl.List(pl.Categorical)),
        pa.array([["a", None, "b"], None], pa.large_list(pa.string())),
        pa.array([[0, 1], None], pa.list_(pa.int8())).cast(pa.list_(pa.string())),
    ],
    ids=["pandas", "pandas of arrow", "polars", "polars categories", "arrow", "arrow cast"],
)
def test_a_column_of_lists_is_one_in_every_library(column):
    first, second = Table.of({"x": column}, "t").id_lists("x")
    assert (first in (["a", "b"], ["0", "1"]), second) == (True, [])


@pytest.mark.wild
def test_a_record_array_and_masked_values():
    array = np.rec.array([(1.5, "x"), (2.5, "y")], names="a,b")
    assert Table.of(array, "t").columns == {"a": [1.5, 2.5], "b": ["x", "y"]}
    assert Table.of({"a": np.ma.array([1, 2], mask=[True, False])}, "t").columns == {"a": [None, 2]}


ALLOWED = "allowed: a data frame, columns, or a list of dicts; "


@pytest.mark.wild
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((2, 2)), f"t: found ndarray; {ALLOWED}of arrays, a structured one alone has names for its columns"),
        (pl.LazyFrame({"a": [1]}), f"t: found LazyFrame; {ALLOWED}collect a lazy frame first, as its rows have no"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "t: two columns have the same name: a, a"),
        (pa.table([[1], [2]], names=["a", "a"]), "t: two columns have the same name: a, a"),
        (pa.table([[1], [2]], names=["a", "a"]).to_batches()[0], "t: two columns have the same name: a, a"),
        ({"a": np.array(3)}, "t, a: found array(3); allowed: a list with one value per row"),
        (pd.Series([1]), "t: found Series; allowed: a data frame, columns, or a list of dicts"),
    ],
    ids=["array", "lazy", "pandas twice", "arrow twice", "batch twice", "single", "series"],
)
def test_a_table_without_names_or_order_is_refused(rows, words):
    assert refused(lambda: Table.of(rows, "t")).startswith(words)


# Missing values

CELLS = ["KR", "FR", "NA", "Prefer not to say", "", "KR"]
AGES = ["30", "-1", "NA", "41", "", "50"]
MISSING = 'missing_values = ["NA", "Prefer not to say", -1]\n'


MADE = {"pandas texts": lambda text: pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str), **FRAMES}
MADE["arrow"] = lambda text: pa.Table.from_pandas(pd.read_csv(io.StringIO(text)))
MADE["polars"] = lambda text: pl.read_csv(io.StringIO(text), null_values=["NA"])
KINDS = ["csv", "json", "jsonl", "parquet", *MADE]


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
    elif kind in MADE:  # pandas reads "NA" as NaN, and the ages as floats
        return Table.of(MADE[kind](text.getvalue()), "t")
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


def test_what_is_no_number_is_pointed_out_where_it_counts_as_missing(films):
    (films / "viewers.csv").write_text(VIEWERS_CSV.replace("50", "fifty"), encoding="utf-8")
    (note,) = load_dataset(films).notes
    assert note == f"{films / 'viewers.csv'}, age: 'fifty' is no number and counts as missing, in 1 of 4 rows"


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
