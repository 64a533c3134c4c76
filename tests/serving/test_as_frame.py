"""A batch in a frame, out in a frame of the same kind; and series or frames in the place of lists of ids."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_jax import InputError, Recommender, save_model
from recsys_jax.cli.serving import score

DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
OILY = {"age": 19, "gender": "M", "skin_type": "oily", "skin_concern": "texture"}
PEOPLE = [{"user_id": 7, **DRY}, {"user_id": 5, **OILY}, {"user_id": 7, **DRY, "age": 61}]
NAMES = ["user_id", "place", "product_id", "score", "popularity", "boost", "name", "brand", "category", "price"]
NEW = {"product_id": "new", "product_name": "New", "brand_name": "Isul", "category": 97}


def columns() -> dict:
    return {name: [one[name] for one in PEOPLE] for name in PEOPLE[0]}


# Each kind of rows, what is given back, and its columns.
KINDS = {
    "pandas": (lambda: pd.DataFrame(PEOPLE, index=[4, 4, 9]), pd.DataFrame, lambda out: out.to_dict("list")),
    "nullable": (lambda: pd.DataFrame(PEOPLE).convert_dtypes(), pd.DataFrame, lambda out: out.to_dict("list")),
    "polars": (lambda: pl.DataFrame(PEOPLE), pl.DataFrame, lambda out: out.to_dict(as_series=False)),
    "arrow": (lambda: pa.Table.from_pylist(PEOPLE), pa.Table, pa.Table.to_pydict),
    "arrow batch": (lambda: pa.RecordBatch.from_pylist(PEOPLE), pa.Table, pa.Table.to_pydict),
    "dicts": (lambda: PEOPLE, list, lambda out: {name: [one[name] for one in out] for name in out[0]}),
    "columns": (columns, dict, dict),
    "arrays": (lambda: {name: np.array(column) for name, column in columns().items()}, dict, dict),
    "structured array": (lambda: pd.DataFrame(PEOPLE).to_records(index=False), dict, dict),
}


@pytest.fixture
def mall(mall_model):
    return Recommender(mall_model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_has_the_lists_of_the_batch_in_the_callers_kind(mall, kind):
    made, given, as_columns = KINDS[kind]
    bought = [["p1"], ["p2", "p3"], []]
    lists = mall.recommend_batch(made(), purchased_products=bought, top_n=4)
    out = mall.recommend_batch(made(), purchased_products=bought, top_n=4, as_frame=True)
    assert type(out) is given
    found = as_columns(out)
    assert list(found) == NAMES
    assert found["user_id"] == [7] * 4 + [5] * 4 + [7] * 4
    assert found["place"] == [1, 2, 3, 4] * 3
    for name in NAMES[2:]:
        assert found[name] == [one[name] for each in lists for one in each]


@pytest.mark.parametrize(
    "rows",
    [
        pl.DataFrame(PEOPLE, schema_overrides={"user_id": pl.UInt16}),
        pl.DataFrame(PEOPLE).cast({"user_id": pl.String}).cast({"user_id": pl.Categorical}),
        *(pd.DataFrame(PEOPLE).astype({"user_id": kind}) for kind in ("category", "Int64", "int64[pyarrow]", "str")),
    ],
    ids=["polars", "polars category", "category", "nullable", "of arrow", "text"],
)
def test_customers_keep_their_type_so_that_frames_can_be_joined(mall, rows):
    out = mall.recommend_batch(rows, top_n=2, as_frame=True)
    assert out["user_id"].dtype == rows["user_id"].dtype
    joined = out.join(rows, on="user_id") if isinstance(rows, pl.DataFrame) else out.merge(rows, on="user_id")
    assert len(joined) == 4 * 2 + 2  # 7 stands in two rows


def test_arrow_keeps_a_dictionary(mall):
    rows = pa.Table.from_pylist(PEOPLE)
    ids = pa.array(["b", "a", "b"]).dictionary_encode()
    out = mall.recommend_batch(rows.set_column(0, "user_id", ids), top_n=1, as_frame=True)
    assert (out["user_id"].type, out["user_id"].to_pylist()) == (ids.type, ["b", "a", "b"])


@pytest.mark.parametrize("made", [pd.DataFrame, pl.DataFrame, pa.Table.from_pylist, list])
def test_without_ids_customers_are_the_numbers_of_their_rows(mall, made):
    """From 1, as in messages and in what `score` writes."""
    out = mall.recommend_batch(made([DRY, OILY]), top_n=2, as_frame=True)
    rows = [one["row"] for one in out] if isinstance(out, list) else [int(one) for one in np.asarray(out["row"])]
    assert rows == [1, 1, 2, 2]


def test_a_frame_is_what_score_writes_with_names(mall_model, tmp_path):
    save_model(mall_model, tmp_path / "run")
    rows = pa.Table.from_pylist(PEOPLE)
    pq.write_table(rows, tmp_path / "in.parquet")
    score.main(score.Options(tmp_path / "in.parquet", tmp_path / "out.parquet", tmp_path / "run", top_n=5, names=True))
    written = pq.read_table(tmp_path / "out.parquet")
    out = Recommender(mall_model).recommend_batch(rows, top_n=5, as_frame=True)
    assert out.column_names == written.column_names
    for name in NAMES:
        if name in ("score", "popularity", "boost"):
            np.testing.assert_allclose(out[name].to_numpy(), written[name].to_numpy(), atol=1e-6)
        else:
            assert out[name].to_pylist() == written[name].to_pylist()


def test_only_what_the_dataset_has_is_a_column(films_model):
    out = Recommender(films_model).recommend_batch([{"viewer": "v", "age": 3}], top_n=2, as_frame=True)
    assert [list(one) for one in out] == [["viewer", *NAMES[1:6], "category"]] * 2
    assert json.loads(json.dumps(out)) == out


@pytest.mark.parametrize("made", [pl.DataFrame, pa.Table.from_pylist, pd.DataFrame])
def test_frames_of_several_batches_have_the_same_columns_and_types(mall, made):
    """Whoever bought all has no row, and portions can be put together, whatever the products of each."""
    mall.add_products([{**NEW, "price": 5.5}, {**NEW, "product_id": "7", "product_name": 7, "price": 5}])
    everything, rows = list(mall.product_ids), made(PEOPLE)
    outs = [
        mall.recommend_batch(rows, purchased_products=[everything] * 3, as_frame=True),
        mall.recommend_batch(rows, purchased_products=[everything, [], everything], top_n=9, as_frame=True),
        mall.recommend_batch(rows, available=["new"], as_frame=True),
        mall.recommend_batch(rows, available=["7"], as_frame=True),
    ]
    assert [len(out) for out in outs] == [0, 9, 3, 3]
    types = [out.dtypes.to_dict() if isinstance(out, pd.DataFrame) else out.schema for out in outs]
    assert types == types[:1] * 4
    assert [list(np.asarray(outs[3][name])) for name in ("name", "price")] == [["7"] * 3, [5.0] * 3]


def test_missing_values_are_those_of_the_library(mall):
    mall.add_products([{**NEW, "product_name": None, "price": 5}])
    assert mall.recommend_batch(PEOPLE, available=["new"], as_frame=True)[0]["name"] is None
    assert mall.recommend_batch(pl.DataFrame(PEOPLE), available=["new"], as_frame=True)["name"].null_count() == 3
    assert mall.recommend_batch(pd.DataFrame(PEOPLE), available=["new"], as_frame=True)["name"].isna().all()


def test_a_customers_column_of_a_taken_name(films_model):
    """As in what `score` writes."""
    schema = replace(films_model.schema, customers=replace(films_model.schema.customers, id="place"))
    rec = Recommender(replace(films_model, schema=schema))
    out = rec.recommend_batch(pl.DataFrame({"place": ["Seoul"], "age": [30]}), top_n=2, as_frame=True)
    assert out.columns[:2] == ["place_", "place"]
    assert out.rows()[0][:2] == ("Seoul", 1)


# Ids in series and frames


IDS = [pd.Series, pl.Series, pa.array, lambda ids: pa.chunked_array([ids]), np.array, pd.Index]
FRAMES = [lambda ids, kind=kind: kind({"id": ids}) for kind in (pd.DataFrame, pl.DataFrame, pa.table)]


@pytest.mark.parametrize("made", [*IDS, *FRAMES])
def test_ids_in_any_series_or_frame_of_one_column(mall, made):
    found = mall.recommend(**DRY, available=made(["p1", "p3"]), top_n=9)
    assert {one["product_id"] for one in found} == {"p1", "p3"}
    mall.remove_products(made(["p1", "p2"]))
    assert not {"p1", "p2"} & set(mall.product_ids)


@pytest.mark.parametrize("made", [pd.Series, pl.Series, pa.array, *FRAMES])
def test_purchases_in_any_series_or_frame_of_one_column(mall, made):
    lists = made([["p1", "p2"], None])
    assert [len(one) for one in mall.recommend_batch([DRY, OILY], purchased_products=lists, top_n=9)] == [6, 8]


@pytest.mark.parametrize("made", IDS)
def test_purchases_of_one_customer_in_any_series(mall, made):
    assert len(mall.recommend(**DRY, purchased_products=made(["p1", "p2"]), top_n=9)) == 6


@pytest.mark.parametrize("made", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_frame_of_several_columns_is_no_list_of_ids(mall, made):
    two = made({"id": ["p1"], "stock": [3]})
    with pytest.raises(InputError, match=r"available: found .*; allowed: a list of ids of products"):
        mall.recommend(**DRY, available=two)
    with pytest.raises(InputError, match=r"remove_products\(\): found "):
        mall.remove_products(two)
    with pytest.raises(InputError, match=r"purchased_products: found .*; allowed: a list of product ids"):
        mall.recommend_batch([DRY], purchased_products=two)
