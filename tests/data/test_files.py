"""Files that a person would not write: links out, pipes, TOML and JSON that are deep, wide or huge."""

import csv
import io
import json
import os
import tomllib
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_jax import InputError, Recommender, load_dataset
from recsys_jax.data import files
from recsys_jax.data.files import is_sealed, open_file, read_arrays, read_json, read_toml, sealed, write_file
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.errors import choices, require
from recsys_jax.evaluation.methods import read_configs
from recsys_jax.personas.catalogue import read_catalogue

pytestmark = pytest.mark.wild

SECRET = "root:x:0:0"


def refused(call, *words: str) -> str:
    with pytest.raises(InputError) as caught:
        call()
    said = str(caught.value)
    assert [word for word in words if word not in said] == [], said
    assert SECRET not in said
    assert said.isprintable()
    assert len(said) < 4100
    return said


# Links and pipes


@pytest.mark.parametrize("name", ["dataset.toml", "products.json", "customers.json"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_out_of_the_dataset_is_refused_and_shows_nothing(mall, name, relative):
    outside = mall.parent / "passwd"
    outside.write_text(SECRET)
    (mall / name).unlink()
    (mall / name).symlink_to(Path("..") / "passwd" if relative else outside)
    refused(
        lambda: load_dataset(mall), f"{mall / name}: found a link to {outside}; allowed: a file in the folder itself"
    )


def test_a_link_of_a_folder_and_one_to_nowhere(mall):
    (mall.parent / "tables").mkdir()
    (mall / "products.json").rename(mall.parent / "tables" / "products.json")
    (mall / "tables").symlink_to(mall.parent / "tables")
    toml = (mall / "dataset.toml").read_text("utf-8").replace('"products.json"', '"tables/products.json"')
    (mall / "dataset.toml").write_text(toml, "utf-8")
    refused(lambda: load_dataset(mall), "tables/products.json: found a link to")
    (mall / "tables").unlink()
    (mall / "tables").symlink_to("tables")
    refused(lambda: load_dataset(mall), "tables/products.json: can't be read")


def test_a_link_within_the_dataset_and_to_it_are_followed(mall):
    (mall / "products.json").rename(mall / "of-today.json")
    (mall / "products.json").symlink_to("of-today.json")
    (mall.parent / "latest").symlink_to(mall)
    assert len(load_dataset(mall.parent / "latest").product_ids) == 8


def test_a_file_that_the_person_names_may_be_a_link(mall):
    (mall / "customers.json").rename(mall.parent / "mine.json")
    (mall.parent / "link.json").symlink_to("mine.json")
    assert len(load_dataset(mall, mall.parent / "link.json").customer_ids) == 10


@pytest.mark.parametrize("name", ["dataset.toml", "products.json", "customers.json"])
def test_a_pipe_in_a_dataset_is_not_waited_for(mall, name):
    (mall / name).unlink()
    os.mkfifo(mall / name)
    refused(lambda: load_dataset(mall), f"{mall / name}: found no file but something else; allowed: a file")


@pytest.mark.parametrize("read", [read_toml, read_catalogue, read_configs, read_table])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_the_person_names_is_a_file(tmp_path, read, kind):
    path = tmp_path / "a.csv"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: path.symlink_to("/dev/null")}[kind](path)
    refused(lambda: read(path), f"{path}: found no file but something else")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    with pytest.raises(InputError, match="found 'a folder'; allowed: a file, there or not yet"):
        write_file(tmp_path, "x")


@pytest.mark.parametrize("rows", [5_000_000, 2**25])
def test_a_parquet_file_of_more_values_than_it_has_bytes_for(tmp_path, rows):
    """A constant takes no room there, and eight bytes or more a row once it is read."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), ["one"])
    pq.write_table(pa.table({"who": column, "what": column}), tmp_path / "views.parquet")
    refused(lambda: read_table(tmp_path / "views.parquet"), f"views.parquet: found {2 * rows:,} values in ")


def test_a_parquet_file_of_two_million_constants_is_read(tmp_path):
    pq.write_table(pa.table({"who": pa.array(np.zeros(2**20, np.int8))}), tmp_path / "views.parquet")
    assert len(read_table(tmp_path / "views.parquet")) == 2**20


def test_the_limit_of_a_csv_field_is_left_as_it_was(tmp_path):
    (tmp_path / "a.csv").write_text("review\n" + "a" * 200_000 + "\n")
    (tmp_path / "bad.csv").write_text('review\n"a')
    before = csv.field_size_limit(10)
    try:
        assert len(read_table(tmp_path / "a.csv").column("review")[0]) == 200_000
        refused(lambda: read_table(tmp_path / "bad.csv"), "bad.csv, line 2: not valid CSV")
        assert csv.field_size_limit() == 10
    finally:
        csv.field_size_limit(before)


def test_a_pipe_that_takes_the_place_of_a_file_meanwhile(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a")
    monkeypatch.setattr(files, "S_ISREG", lambda mode: True)
    with open_file(tmp_path / "a") as stream:
        assert stream.read() == b""


# TOML

DEEP = {
    "0x and 20,000 digits": "a = 0x" + "f" * 20_000,
    "0b and 20,000 digits in a list": "a = [{ b = 0b" + "1" * 20_000 + " }]",
    "3,000 dots": "a." * 3000 + "b = 1",
    "3,000 dots in a table's name": f"[{'a.' * 3000}b]",
    "3,000 dots between quoted keys": '"a b" . ' * 3000 + "b = 1",
    "3,000 dots between keys with escapes": r'"\"" . ' * 3000 + "b = 1",
    "3,000 dots between literal keys": "'.'." * 3000 + "b = 1",
    "3,000 dots in a table in a line": f"a = {{ {'a.' * 3000}b = 1 }}",
    "40 lists": "a = " + "[" * 40 + "]" * 40,
    "40 tables by their names": "".join(f"[{'.'.join(['a'] * size)}]\n" for size in (20, 31)) + "a.a.a.a = 1",
    "5 MB": "a = 1\n" + "#" * 5 * 2**20,
}


@pytest.mark.parametrize("kind", DEEP)
def test_toml_that_is_deep_or_huge_is_refused(tmp_path, mall_run, kind):
    """In boosts, personas, recipes and datasets, all by one door."""
    path = tmp_path / "dataset.toml"
    path.write_text(DEEP[kind], "utf-8")
    reads = (read_catalogue, read_configs, lambda path: load_dataset(path.parent))
    for read in (*reads, lambda path: Recommender.load(mall_run, path)):
        refused(lambda read=read: read(path), f"{path}: {'' if kind == '5 MB' else 'not readable as TOML: '}found ")


@pytest.mark.parametrize(
    "text",
    [
        f'a = {2**1023}\nb = "{"1." * 30}{"...." * 500}"',
        "a." * 30 + "b = 1.5",
        'version = "' + "a" * 100_000 + '"',
        "a = [" + "1.25, " * 1000 + "]",
        'a = ["Dr. A", "St. B"]',
        "[" + ".".join(["a"] * 31) + "]",
    ],
    ids=range(6),
)
def test_toml_that_a_person_might_write_is_read(tmp_path, text):
    (tmp_path / "a.toml").write_text(text, "utf-8")
    assert read_toml(tmp_path / "a.toml") == tomllib.loads(text)


@pytest.mark.parametrize("part", ["a", "a.", '"', '\\"', '"a" ', "'", "a .", '"."', '"\\"" ', "\\"], ids=range(10))
def test_any_line_is_looked_through_in_time(tmp_path, part):
    """A pattern that goes back would take hours."""
    (tmp_path / "a.toml").write_text(f"# {part * (10**6 // len(part))}", "utf-8")
    with suppress(InputError):
        read_toml(tmp_path / "a.toml")


# JSON


@pytest.mark.parametrize("part", ["[],", "{},", "[1],", '{"a":1},', "[[]],", '[{"":0}],'])
def test_json_of_little_but_brackets_is_refused(part):
    content = f"[{part * (2**21 // len(part))}0]".encode()
    with pytest.raises(ValueError, match="found little but brackets"):
        read_json(content)


@pytest.mark.parametrize(
    "value",
    [[], {"a": [{}]}, [["Drama"]] * 10**5, [{"id": f"p{n}", "price": n} for n in range(10**5)], ["[1+1]"] * 10**5],
)
def test_json_that_holds_something_is_read(value):
    text = json.dumps(value, indent=1)
    assert read_json(text.encode()) == value


def test_a_seal_is_that_of_the_text():
    text = sealed(json.dumps({"sha256": "0" * 64, "more": "0" * 64}))
    seal = json.loads(text)["sha256"]
    assert is_sealed(text.encode(), seal)
    assert json.loads(text)["more"] == "0" * 64
    assert not is_sealed(text.replace("more", "mort").encode(), seal)
    assert not is_sealed(text.replace("0" * 64, seal).encode(), seal)
    assert not is_sealed(text.encode(), "")


# Arrays


def test_arrays_are_read_as_they_are_and_packed_ones_are_not():
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, a=np.arange(3))
    np.savez_compressed(packed, a=np.arange(3))
    assert read_arrays(plain.getvalue())["a"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="found packed arrays; allowed: arrays as they are"):
        read_arrays(packed.getvalue())


# Sentences


@pytest.mark.parametrize("value", ["x" * 10**7, ["x" * 10**7], {"x" * 10**7: 1}, 16**20_000], ids=range(4))
def test_a_sentence_stays_readable_whatever_was_found(value):
    refused(lambda: require(False, "where", value, "one"), "where: found ", "; allowed: one")
    refused(lambda: require(False, "where", 1, choices([value] * 20)), "where: found 1; allowed: ", "and 8 more")
    said = str(InputError(f"name {'x' * 10**7}: found 1; allowed: 2"))
    assert len(said) < 4100
    assert said.startswith("name xx")
    assert said.endswith("xx: found 1; allowed: 2")


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_says_whether_the_old_file_is_there(tmp_path, monkeypatch, there):
    path = tmp_path / "a.txt"
    if there:
        path.write_text("before")

    def full(descriptor):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError) as caught:
        write_file(path, "after")
    assert str(caught.value).endswith("; the file that was there before is intact") is there
    assert [one.read_text() for one in tmp_path.iterdir()] == ["before"] * there
