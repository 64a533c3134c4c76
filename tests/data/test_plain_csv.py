"""Large plain CSV files, which Arrow reads, are read as any other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.data.tabular import readers
from recsys_jax.errors import InputError

CELLS = st.sampled_from(
    ["", "a", "b", " ", "7", "7,5", "nan", "é", "x\x00", "'", "\\N", '"q"', '"q,\nr"', '"', "\r", "\n"]
)
HEADERS = st.sampled_from(
    ["id,text", "id", "id,id", "id\ttext", "id;text", "", "\n", "id,text\r", "e\u0301,x", '"id",x', "a,b,c"]
)
LINES = st.lists(st.lists(CELLS, min_size=1, max_size=3).map(",".join), max_size=8)


def read(path, large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "LARGE", large)
        try:
            table = readers.read_table(path)
        except InputError as error:
            return str(error)
    return {name: [*column] for name, column in table.columns.items()}, table.set_aside, table.remarks


@settings(max_examples=300)
@given(HEADERS, LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_plain_file_is_read_as_any_other(tmp_path_factory, header, lines, ends, whole):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes((ends.join([header, *lines]) + ends * whole).encode())
    assert read(path, 0) == read(path, 10**9)


def test_arrow_reads_what_is_large_and_plain(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("id,text\n" + "p1,a\n" * 300_000)
    monkeypatch.setattr(readers, "_any_columns", None)
    table = readers.read_table(path)
    assert (len(table), table.columns["id"].values) == (300_000, ["p1"])
