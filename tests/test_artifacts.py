"""A saved model is the same model when loaded, holds no code, and is refused when anything about it is damaged."""

import hashlib
import json
import pickle
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from recsys_jax import InputError, Recommender, load_model, save_model

CUSTOMER = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
FILES = ["model.json", "model.safetensors"]


@pytest.fixture
def run(mall_run, tmp_path) -> Path:
    """A copy of the saved model, to be damaged at will."""
    return Path(shutil.copytree(mall_run, tmp_path / "run"))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(folder)
    for word in words:
        assert word in str(caught.value)


def same_tree(one, other) -> None:
    leaves, others = (jax.tree_util.tree_leaves_with_path(tree) for tree in (one, other))
    assert [path for path, _ in leaves] == [path for path, _ in others]
    for (_, leaf), (_, twin) in zip(leaves, others, strict=True):
        assert leaf.dtype == twin.dtype
        np.testing.assert_array_equal(leaf, twin)


def same_model(one, other) -> None:
    same_tree(dict(one.variables), dict(other.variables))
    for name in ("product_embeddings", "purchases", "losses"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.config == other.config
    assert one.schema == other.schema
    assert one.customers == other.customers
    assert one.products == other.products
    assert one.product_ids == other.product_ids
    assert {name: list(column) for name, column in one.product_rows.items()} == dict(other.product_rows)


def test_the_mall_comes_back_the_same(mall_model, mall_run):
    loaded = load_model(mall_run)
    same_model(mall_model, loaded)
    assert loaded.product_ids == ("p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8")
    assert loaded.purchases.tolist() == [1, 2, 1, 1, 1, 1, 1, 2]
    assert loaded.product_embeddings.shape == (8, 6)
    before, after = (Recommender(model).recommend(**CUSTOMER, top_n=8) for model in (mall_model, loaded))
    assert before == after
    assert before == Recommender.load(mall_run).recommend(**CUSTOMER, top_n=8)
    assert before == Recommender.load(str(mall_run)).recommend(**CUSTOMER, top_n=8)
    assert len(before) == 8


def test_the_films_come_back_the_same(films_model, tmp_path):
    """With a popularity bias, ids, several values per cell, missing numbers and standardisation."""
    save_model(films_model, tmp_path / "new" / "folder")
    loaded = load_model(tmp_path / "new" / "folder")
    same_model(films_model, loaded)
    before, after = (Recommender(model).recommend(favourite_genres="Drama", top_n=5) for model in (films_model, loaded))
    assert before == after
    assert len(before) == 5


def test_saving_again_replaces(mall_model, run):
    other = replace(mall_model, losses=mall_model.losses + 1)
    save_model(other, run)
    same_model(other, load_model(run))
    save_model(mall_model, run)
    same_model(mall_model, load_model(run))
    assert sorted(path.name for path in run.iterdir()) == FILES


def test_the_files_are_json_and_numbers(mall_run):
    """safetensors: eight bytes of length, a JSON header, then nothing but the arrays it names."""
    assert sorted(path.name for path in mall_run.iterdir()) == FILES
    document = json.loads((mall_run / "model.json").read_text(encoding="utf-8"))
    content = (mall_run / "model.safetensors").read_bytes()
    assert document["sha256"]["model.safetensors"] == hashlib.sha256(content).hexdigest()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    size = {"F32": 4, "I32": 4, "I64": 8}
    total = 0
    for tensor in header.values():
        start, end = tensor["data_offsets"]
        assert end - start == size[tensor["dtype"]] * int(np.prod(tensor["shape"]))
        total += end - start
    assert len(content) == 8 + length + total


class Bomb:
    """Unpickling it would write the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_unpickled(run, tmp_path, name):
    bomb, content = tmp_path / "exploded", pickle.dumps(Bomb(tmp_path / "exploded"))
    (run / name).write_bytes(content)
    if name == "model.safetensors":  # even where the checksum agrees
        document = json.loads((run / "model.json").read_text(encoding="utf-8"))
        document["sha256"][name] = hashlib.sha256(content).hexdigest()
        (run / "model.json").write_text(json.dumps(document), encoding="utf-8")
    refused(run, str(run))
    assert not bomb.exists()
    pickle.loads(content)
    assert bomb.exists()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(run, name):
    (run / name).unlink()
    refused(run, str(run / name), "no such file")


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "none", str(tmp_path / "none"), "no such file")
    with pytest.raises(InputError, match="no such file"):
        Recommender.load(tmp_path / "none")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, -1, -100])
def test_a_truncated_file(run, name, kept):
    content = (run / name).read_bytes()
    if name == "model.json" and kept == -1:
        kept = -2  # its last byte is the end of a line
    (run / name).write_bytes(content[:kept])
    refused(run, str(run / name), "damaged")


@pytest.mark.parametrize("name", FILES)
def test_a_longer_file(run, name):
    with (run / name).open("ab") as file:
        file.write(b"\x00")
    refused(run, str(run / name), "damaged")


@pytest.mark.parametrize("bit", [0, 5])
def test_a_flipped_bit_among_the_numbers(run, bit):
    path = run / "model.safetensors"
    content = bytearray(path.read_bytes())
    for place in [*range(0, len(content), 211), len(content) - 1]:
        content[place] ^= 1 << bit
        path.write_bytes(content)
        refused(run, str(path), "damaged")
        content[place] ^= 1 << bit
    path.write_bytes(content)
    load_model(run)


def test_a_flipped_bit_in_the_document(run):
    """A digit of a price, a letter of a vocabulary: such damage is still JSON."""
    path = run / "model.json"
    content = bytearray(path.read_bytes())
    unnoticed = []
    for place in range(0, len(content), 67):
        content[place] ^= 1
        path.write_bytes(content)
        try:
            load_model(run)
        except InputError as error:
            assert str(run) in str(error)  # noqa: PT017
        else:
            unnoticed.append(bytes(content[max(0, place - 10) : place + 10]))
        content[place] ^= 1
    path.write_bytes(content)
    load_model(run)
    assert unnoticed == []


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"{}", b'"text"', b"\xff\xfe", b"[" * 100_000, b"9" * 5000])
def test_another_document(run, content):
    (run / "model.json").write_bytes(content)
    refused(run, str(run / "model.json"), "damaged")


def change(run: Path, edit) -> None:
    path = run / "model.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("found", [0, 1, 99, "2", None, [2], 2.5])
def test_an_unknown_format(run, found):
    change(run, lambda document: document.update(format=found))
    refused(run, str(run / "model.json"), "format", repr(found))


@pytest.mark.parametrize(
    "key", ["format", "sha256", "batches", "config", "schema", "customers", "products", "product_ids", "product_rows"]
)
@pytest.mark.parametrize("value", ["absent", None, 5, "text", []])
def test_a_damaged_part(run, key, value):
    if value == "absent":
        change(run, lambda document: document.pop(key))
    else:
        change(run, lambda document: document.update({key: value}))
    refused(run, str(run / "model.json"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["config"].update(epochs="many"),
        lambda d: d["config"].update(colour="red"),
        lambda d: d["config"].update(hidden_dim=13),
        lambda d: d["schema"].pop("products"),
        lambda d: d["customers"].pop("age"),
        lambda d: d["customers"]["age"].update(mean="x"),
        lambda d: d["customers"]["gender"].update(width=1e999),
        lambda d: d["products"]["brand"].update(values=5),
        lambda d: d["products"]["brand"]["values"].pop(),
        lambda d: d["product_ids"].pop(),
        lambda d: d["product_rows"]["price"].pop(),
        lambda d: d["product_rows"].pop("brand_name"),
    ],
    ids=range(12),
)
def test_parts_that_do_not_fit_together(run, edit):
    """Some of these would be noticed only at the first request, by an error from deep inside, or never."""
    change(run, edit)
    refused(run, str(run / "model.json"))


def test_files_of_two_models_do_not_mix(mall_model, run, tmp_path):
    """Two seeds of one recipe: everything but the numbers agrees."""
    shifted = jax.tree.map(lambda leaf: leaf + np.float32(0.5), mall_model.variables)
    save_model(replace(mall_model, variables=shifted), tmp_path / "other")
    for first, second in [(run, tmp_path / "other"), (tmp_path / "other", run)]:
        mixed = tmp_path / f"mixed-{first.name}"
        mixed.mkdir()
        shutil.copy(first / "model.json", mixed)
        shutil.copy(second / "model.safetensors", mixed)
        refused(mixed, str(mixed / "model.safetensors"), "checksum")


def test_a_feature_may_have_a_slash_in_its_name(mall_model, tmp_path):
    """The weights of "skin/type" are one array, not a branch of the tree."""
    customer = dict(mall_model.variables["params"]["customer"])
    customer["skin/type_emb"] = customer.pop("skin_type_emb")
    variables = {**mall_model.variables, "params": {**mall_model.variables["params"], "customer": customer}}
    save_model(replace(mall_model, variables=variables), tmp_path)
    same_tree(variables, load_model(tmp_path).variables)


def test_cells_of_every_kind_are_kept(mall_model, tmp_path):
    """What NumPy, Parquet and JSON can hold in a column that is shown."""
    prices = [np.int64(46000), np.float32(0.5), None, 18000, 2.5, np.float64(9), "9,000", True]
    names = ["수분 크림", "“quotes”", "", None, "a\nb", "\u2028", "💕", np.str_("x")]
    rows = {**mall_model.product_rows, "price": prices, "product_name": names}
    save_model(replace(mall_model, product_rows=rows), tmp_path)
    loaded = load_model(tmp_path).product_rows
    assert loaded["price"] == [46000, 0.5, None, 18000, 2.5, 9.0, "9,000", True]
    assert loaded["product_name"] == ["수분 크림", "“quotes”", "", None, "a\nb", "\u2028", "💕", "x"]


def test_half_an_emoji_in_a_name(mall_model, tmp_path):
    r"""JSON may hold a cut-off "\ud83d", as shops that cut names after so many characters write it."""
    name = json.loads('"cream \\ud83d"')
    rows = {**mall_model.product_rows, "product_name": [name] * 8}
    save_model(replace(mall_model, product_rows=rows), tmp_path)
    assert load_model(tmp_path).product_rows["product_name"] == [name] * 8
