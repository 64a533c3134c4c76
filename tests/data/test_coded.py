"""Coded columns: what is asked once of each different value is what was asked of each row."""

from math import inf, isnan

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_jax.data.features import FittedFeature, refuse_unusable
from recsys_jax.data.schema import Categorical, MultiCategorical, Numeric
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.coded import Coded, coded, converted, counted, known, taken
from recsys_jax.errors import InputError

CELLS = st.sampled_from([None, "", "a", "b", "a|b", "nan", "7", " 7 ", "7.5", "x\x00", "\ud800", "1e400"])
COLUMNS = st.lists(CELLS, max_size=30) | st.lists(st.none() | st.sampled_from([1.5, -inf, 2.0, 1e300]), max_size=30)
FEATURES = [
    Categorical("x", "x", None, None, {"b": "a"}, "extra-row", "error"),
    Categorical("x", "x", ("a", "7"), None, {}, "error", "extra-row"),
    MultiCategorical("x", "x", None, None, {}, "ignore", "extra-row", "|"),
    Numeric("x", "x", 2.0, None, True, 0.0, 100.0, "missing", "flag"),
    Numeric("x", "x", 2.0, (-1.0, 1.0), False, -inf, inf, "error", "error"),
]


def coded_anyway(column):
    """Coded even where few values come again."""
    values = [*dict.fromkeys(column)]
    return Coded(values, np.array([values.index(one) for one in column], np.int32))


def said(table, ask):
    """What is found, or the sentence, and what is noted of the rows."""
    try:
        found = ask(table)
    except InputError as error:
        return str(error), table.problems
    return [*found.tolist()] if isinstance(found, np.ndarray) else found and [*found], table.problems


@given(COLUMNS, st.data())
def test_what_is_asked_of_a_coded_column_is_what_each_row_answers(column, data):
    own = coded_anyway(column)
    assert [*own] == column == own
    assert [own[row] for row in range(len(column))] == column
    assert own[1:3] == column[1:3]
    rows = data.draw(st.lists(st.integers(0, len(column) - 1), max_size=40)) if column else []
    assert taken(own, rows) == [column[row] for row in rows] == taken(column, rows)
    assert [*taken(own, rows).values] == [*dict.fromkeys(column[row] for row in rows)]
    assert converted(repr, own) == [repr(one) for one in column]
    assert dict(counted(own)) == {one: column.count(one) for one in column}
    assert known(own) == [one for one in column if one is not None]
    found = coded(column)
    assert found == column
    assert isinstance(found, Coded) == (2 * len({*column}) <= len(column))


@pytest.mark.parametrize("feature", FEATURES, ids=lambda one: f"{type(one).__name__}-{one.unknown}")
@given(COLUMNS)
def test_a_coded_table_is_read_and_refused_as_any_other(feature, column):
    def asks(table):
        yield said(table, lambda t: t.ids("x"))
        yield said(table, lambda t: t.dates("x"))
        yield said(table, lambda t: refuse_unusable(t, [feature]))

        def encoded(t):
            fitted = FittedFeature.fit(feature, t)
            assert not isnan(fitted.mean)
            return fitted.encode(t)

        yield said(table, encoded)

    plain, own = Table("t", {"x": column}), Table("t", {"x": coded_anyway(column)})
    assert [*asks(own)] == [*asks(plain)]
    assert [*asks(own.collecting())] == [*asks(plain.collecting())]
    rows = range(0, len(column), 2)
    assert own.select(rows).columns == plain.select(rows).columns


FRAME = {"text": ["b", None, "b", "a", "a", "b"], "n": [3, 3, None, 3, 4, 4], "x": [0.1, 0.1, 0.1, 2.5, None, 2.5]}


@pytest.mark.parametrize("kind", ["pandas.DataFrame", "polars.DataFrame", "pyarrow.table", "builtins.dict"])
def test_frames_are_coded_with_their_values(kind):
    module, _, name = kind.partition(".")
    frame = getattr(pytest.importorskip(module), name)
    table = Table.of(frame({name: [*column] for name, column in FRAME.items()}), "t")
    assert isinstance(table.columns["text"], Coded)
    assert [one if isinstance(one, str) else None for one in table.columns["text"]] == FRAME["text"]
    assert table.collecting().ids("n") == ["3", "3", "", "3", "4", "4"]


def test_arrow_tables_of_parts_and_dictionaries_keep_their_values():
    parts = pa.chunked_array([["b", None, "b"], ["a", "a", "b"]])
    table = Table.of(
        pa.table({"parts": parts, "dictionary": parts.dictionary_encode(), "half": pa.array([0.1] * 6, pa.float32())}),
        "t",
    )
    for name in ("parts", "dictionary"):
        assert table.columns[name] == FRAME["text"]
        assert [*table.columns[name].values] == ["b", None, "a"]
    assert table.ids("half") == ["0.1"] * 6


def test_values_that_are_equal_and_not_written_alike_are_kept_apart():
    for column in ([1, True, 1, True], [1, 1.0, 1, 1.0], [["a"], ["a"], ["a"]]):
        assert coded(column) is column
