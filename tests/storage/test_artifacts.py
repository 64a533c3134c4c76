"""A saved model is the same model when loaded, holds no code, and is refused when anything about it is damaged."""

import hashlib
import json
import math
import os
import pickle
import shutil
import struct
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pytest

from recsys_jax import DeepConfig, InputError, Recommender, Schema, Table, TrainedModel, load_model, save_model
from recsys_jax.data.features import FeatureSpace
from recsys_jax.models.popularity import SMOOTHED

CUSTOMER = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
FILES = ["model.json", "tensors"]


def file_of(folder: Path, name: str) -> Path:
    """model.json, or the tensors: their name holds the first digits of their checksum."""
    (tensors,) = folder.glob("model-*.safetensors")
    return tensors if name == "tensors" else folder / name


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
    for (_, leaf), (_, same) in zip(leaves, others, strict=True):
        assert np.asarray(leaf).dtype == np.asarray(same).dtype
        np.testing.assert_array_equal(leaf, same)


def same_model(one, other) -> None:
    same_tree(dict(one.variables), dict(other.variables))
    for name in ("product_embeddings", "purchases", "losses"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.config == other.config
    assert one.chosen == other.chosen
    assert one.popularity.scale == other.popularity.scale
    same_tree(one.popularity._asdict(), other.popularity._asdict())
    same_tree(one.average and one.average._asdict(), other.average and other.average._asdict())
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
    """With a popularity bias, ids, several values in one field, missing numbers and standardisation."""
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
    assert sorted(run.iterdir()) == sorted([run / "model.json", file_of(run, "tensors")])


def test_the_files_are_json_and_numbers(mall_run):
    """safetensors: eight bytes of length, a JSON header, then nothing but the arrays it names."""
    text = (mall_run / "model.json").read_text(encoding="ascii")
    document, content = json.loads(text), file_of(mall_run, "tensors").read_bytes()
    own, digest = document["sha256"].pop("model.json"), hashlib.sha256(content).hexdigest()
    assert document["sha256"] == {f"model-{digest[:12]}.safetensors": digest}
    assert own == hashlib.sha256(text.replace(own, "0" * 64).encode()).hexdigest()
    assert sorted(path.name for path in mall_run.iterdir()) == [f"model-{digest[:12]}.safetensors", "model.json"]
    assert document["format"] == 6
    for name in ("recsys_jax", "jax", "flax", "numpy", "safetensors"):
        assert document["versions"][name] == version(name)
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
    if name == "tensors":  # where the checksums agree
        forged(run, lambda _: None, content)
    else:
        (run / name).write_bytes(content)
    refused(run, str(file_of(run, name)))
    assert not bomb.exists()
    pickle.loads(content)
    assert bomb.exists()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(run, name):
    path = file_of(run, name)
    path.unlink()
    refused(run, str(path), "no such file")


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "none", str(tmp_path / "none"), "no such file")
    with pytest.raises(InputError, match="no such file"):
        Recommender.load(tmp_path / "none")


@pytest.fixture
def tiny(tmp_path) -> tuple[Path, TrainedModel]:
    """As small as a model can be, and where it is saved: each byte of it is damaged in turn."""
    products, customers = Table("products", {"id": ["a", "é"]}), Table("customers", {"sex": ["F", "M"]})
    feature = {"kind": "categorical", "unknown": "error", "missing": "error", "values": "learned"}
    document = {
        "name": "tiny",
        "products": {"file": "p", "id": "id", "features": [{"name": "id", **feature}]},
        "customers": {"file": "c", "id": "c", "purchases": "p", "features": [{"name": "sex", **feature}]},
    }
    schema = Schema.parse(document, "tiny")
    tower = {
        "hidden": {"kernel": [[0.5]], "bias": [0.25]},
        "norm": {"scale": [2], "bias": [0]},
        "output": {"kernel": [[1]], "bias": [3]},
    }
    params = {
        side: {"deep": {**tower, f"{name}_emb": [[1], [2]]}} for side, name in (("customer", "sex"), ("product", "id"))
    }
    stats = {side: {"deep": {"norm": {"mean": [0], "var": [1]}}} for side in params}
    variables = {"params": params, "batch_stats": stats}
    model = TrainedModel(
        schema,
        DeepConfig(embedding_dim=1, hidden_dim=1, output_dim=1),
        FeatureSpace.fit(schema.customers.features, customers),
        FeatureSpace.fit(schema.products.features, products),
        jax.tree.map(np.float32, variables, is_leaf=lambda leaf: isinstance(leaf, list)),
        SMOOTHED.kept(np.array([1.0, 0.0]), 0.0),
        ("a", "é"),
        products.columns,
        np.ones((2, 1), np.float32),
        np.array([1, 0]),
        np.zeros(0, np.float32),
        {"customer": 1, "product": 2},
        {},
        "",
    )
    save_model(model, tmp_path / "tiny")
    return tmp_path / "tiny", model


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_refused(tiny, name):
    folder, model = tiny
    path = file_of(folder, name)
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    refused(folder, str(path), "damaged")
    for length in reversed(range(len(content))):
        os.truncate(path, length)
        refused(folder, str(path), "damaged")
    path.write_bytes(content)
    same_model(model, load_model(folder))


def refuse_flipped(folder: Path, name: str, bits_of) -> int:
    """Flips the bits of each byte that `bits_of` its place names, one by one; how many."""
    path, tried = file_of(folder, name), 0
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(path.read_bytes()):
            for bit in bits_of(place):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                refused(folder, str(path))
                tried += 1
            os.pwrite(file.fileno(), bytes([byte]), place)
    return tried


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_is_refused(tiny, name):
    """One random bit of each: also in a digit of a price, a letter of a vocabulary, white space, an escape."""
    folder, model = tiny
    bits = np.random.default_rng(7).integers(8, size=10_000).tolist()
    assert refuse_flipped(folder, name, lambda place: [bits[place]]) > 1000
    same_model(model, load_model(folder))


@pytest.mark.slow(reason="every bit of two files; the gate flips one in every byte")
def test_every_flipped_bit_is_refused(tiny):
    folder, model = tiny
    print(sum(refuse_flipped(folder, name, lambda _: range(8)) for name in FILES), "flipped bits refused")
    same_model(model, load_model(folder))


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"{}", b'"text"', b"\xff\xfe", b"[" * 100_000, b"9" * 5000])
def test_another_document(run, content):
    (run / "model.json").write_bytes(content)
    refused(run, str(run / "model.json"), "damaged")


def forged(run: Path, edit, tensors: bytes | None = None) -> None:
    """Changes a model as somebody who wants it to be believed would: with checksums that agree."""
    document = json.loads((run / "model.json").read_text(encoding="ascii"))
    old = file_of(run, "tensors")
    content = old.read_bytes() if tensors is None else tensors
    digest = hashlib.sha256(content).hexdigest()
    old.unlink()
    (run / f"model-{digest[:12]}.safetensors").write_bytes(content)
    document["sha256"] = {"model.json": "0" * 64, f"model-{digest[:12]}.safetensors": digest}
    edit(document)
    text = json.dumps(document)
    if '"' + "0" * 64 + '"' in text:
        text = text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1)
    (run / "model.json").write_text(text, encoding="ascii")


def change(run: Path, edit) -> None:
    path = run / "model.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("edit", [change, forged])
@pytest.mark.parametrize("found", [0, 1, 2, 7, 99, "2", None, [2], 2.5, True])
def test_an_unknown_format(run, found, edit):
    edit(run, lambda document: document.update(format=found))
    newer = type(found) is int and found > 5
    words = ["a newer recsys_jax (version 0.1.0)", "install a newer one"] if newer else ["train the model again"]
    refused(run, str(run / "model.json"), f"format {found};" if not newer else f"format {found},", *words)


FORMER = Path(__file__).parent / "former"
EXPECTED = json.loads((FORMER / "expected.json").read_text())
"""What the version that wrote each run recommended by it, before and after it was given a new product."""


@pytest.mark.parametrize("name", EXPECTED)
def test_runs_of_former_formats_are_read(name, tmp_path):
    """And say what they said; each new name is told, in one line."""
    folder = Path(shutil.copytree(FORMER / name, tmp_path / "run"))
    told: list[str] = []
    model, expected = load_model(folder, tell=told.append), EXPECTED[name]
    renamed = int(name < "format-5")  # since then the recipes have their names of today
    assert len(told) == renamed
    assert not told or ("linear is now called wide" if "wide" in name else "towers is now called deep") in told[0]
    rec = Recommender(model)
    for wanted, change in ((expected["recommended"], None), (expected["new"], expected["new_product"])):
        if change is not None:
            rec.add_products([change])
        found = rec.recommend(**expected["customer"], top_n=len(wanted))
        assert [one["product_id"] for one in found] == [one["product_id"] for one in wanted]
        # Popularity's part was called a boost, which it is not: there were no rules.
        for value, former in (("score", "score"), ("popularity", "boost")):
            assert [one[value] for one in found] == pytest.approx([one[former] for one in wanted], abs=1e-6)
    save_model(model, folder)
    same_model(model, load_model(folder, tell=told.append))
    assert len(told) == renamed
    assert sorted(folder.iterdir()) == sorted([folder / "model.json", file_of(folder, "tensors")])


@pytest.mark.parametrize("name", EXPECTED)
def test_damaged_runs_of_former_formats_are_refused(name, tmp_path):
    folder = Path(shutil.copytree(FORMER / name, tmp_path / "run"))
    (tensors,) = folder.glob("*.safetensors")
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(folder, str(tensors), "damaged")
    change(folder, lambda document: document["product_ids"].reverse())
    refused(folder, str(folder / "model.json"), "damaged, or edited")


@pytest.mark.parametrize(
    "key",
    [
        *("format", "sha256", "batches", "config", "schema", "customers", "products", "product_ids", "product_rows"),
        *("chosen", "popularity_scale"),
    ],
)
@pytest.mark.parametrize("value", ["absent", None, 77, "text", []])
def test_a_damaged_part(run, key, value):
    """Even where the checksums agree."""
    if value == "absent":
        forged(run, lambda document: document.pop(key))
    else:
        forged(run, lambda document: document.update({key: value}))
    refused(run, str(run / "model.json"))


@pytest.mark.parametrize("how", [change, forged])
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
        lambda d: d["product_ids"].reverse(),
        lambda d: d["product_rows"]["product_id"].reverse(),
        lambda d: (d["product_ids"].__setitem__(0, "p2"), d["product_rows"]["product_id"].__setitem__(0, "p2")),
        lambda d: d["products"]["brand"]["values"].__setitem__(0, d["products"]["brand"]["values"][1]),
        lambda d: d["products"]["category"]["values"].reverse(),
        lambda d: d["products"]["price"].update(deviation=0),
        lambda d: d["batches"].update(customer=-1),
        lambda d: d["batches"].update(more=1),
        lambda d: d["config"].update(recipe="wide"),
        lambda d: d.update(popularity_scale=-1.0),
        lambda d: d.update(popularity_scale=1e999),
        lambda d: d.update(chosen={"own_l2": 3.0}),
    ],
    ids=range(24),
)
def test_parts_that_do_not_fit_together(run, edit, how):
    """Some of these would be noticed only at the first request, by an error from deep inside, or never."""
    how(run, edit)
    refused(run, str(run / "model"))


def test_files_of_two_models_do_not_mix(mall_model, run, tmp_path):
    """Two seeds of one recipe: everything but the numbers agrees."""
    shifted = jax.tree.map(lambda leaf: leaf + np.float32(0.5), mall_model.variables)
    save_model(replace(mall_model, variables=shifted), tmp_path / "other")
    for first, second in [(run, tmp_path / "other"), (tmp_path / "other", run)]:
        mixed = tmp_path / f"mixed-{first.name}"
        mixed.mkdir()
        shutil.copy(first / "model.json", mixed)
        name = file_of(first, "tensors").name
        shutil.copy(file_of(second, "tensors"), mixed)
        refused(mixed, str(mixed / name), "no such file")
        file_of(mixed, "tensors").rename(mixed / name)
        refused(mixed, str(mixed / name), "checksum")


def test_a_feature_may_have_a_slash_in_its_name(mall_model, tmp_path):
    """The weights of "skin/type" are one array, not a branch of the tree."""
    document = json.loads(json.dumps(mall_model.schema.source))
    document["customers"]["features"][0]["name"] = "skin/type"
    document["customers"]["features"][0]["column"] = "skin_type"
    schema = Schema.parse(document, "mall")
    first, *others = mall_model.customers
    space = FeatureSpace((replace(first, feature=schema.customers.features[0]), *others))
    customer = dict(mall_model.variables["params"]["customer"]["deep"])
    customer["skin/type_emb"] = customer.pop("skin_type_emb")
    params = {**mall_model.variables["params"], "customer": {"deep": customer}}
    variables = {**mall_model.variables, "params": params}
    shares = dict(mall_model.average.shares)
    shares["skin/type"] = shares.pop("skin_type")
    average = mall_model.average._replace(shares=shares)
    save_model(replace(mall_model, variables=variables, schema=schema, customers=space, average=average), tmp_path)
    loaded = load_model(tmp_path)
    same_tree(variables, loaded.variables)
    same_tree(average._asdict(), loaded.average._asdict())


def test_values_of_every_kind_are_kept(mall_model, tmp_path):
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


def test_no_number_in_a_model_is_beyond_json(model_of, tmp_path):
    """A penalty may be infinite, and JSON has no word for it: other programs read the file, too."""
    model = replace(model_of("mall", "wide"), chosen={"own_l2": 3.0, "attribute_l2": math.inf})
    save_model(model, tmp_path)

    def none(word):
        raise AssertionError(word)

    json.loads((tmp_path / "model.json").read_text("utf-8"), parse_constant=none)
    assert load_model(tmp_path).chosen == {"own_l2": 3.0, "attribute_l2": math.inf}


@pytest.mark.parametrize(
    ("recipe", "edit"),
    [
        ("deep-infonce", lambda d: d.update(popularity_scale=0.0)),
        ("deep-infonce", lambda d: d.update(popularity_scale=-0.5)),
        ("deep-infonce", lambda d: d["products"]["product_id"]["values"].reverse()),
        ("deep-infonce", lambda d: d["products"]["product_id"]["values"].__setitem__(4, "f6")),
        ("deep-infonce", lambda d: d["products"]["product_id"]["values"].__setitem__(0, "f0")),
        ("deep-infonce", lambda d: d["batches"].update(customer=2**63)),
        ("deep-infonce", lambda d: d["batches"].update(customer=2**64)),
        ("deep-infonce", lambda d: d["batches"].pop("product")),
        ("wide", lambda d: d.update(chosen={"own_l2": 0.0})),
        ("wide", lambda d: d.update(chosen={"own_l2": -0.5})),
        ("wide", lambda d: d.update(chosen={"own": 1.0})),
    ],
    ids=range(11),
)
def test_popularity_ids_and_penalties_that_do_not_fit(run_of, tmp_path, recipe, edit):
    """What the mall's model has not: a popularity, a vector for each product, chosen penalties."""
    run = shutil.copytree(run_of("films", recipe), tmp_path / "run")
    load_model(run)
    forged(run, edit)
    refused(run, str(run / "model.json"))


def test_a_column_that_is_too_long(run):
    forged(run, lambda document: document["product_rows"]["price"].append(1))
    refused(run, str(run / "model.json"), "price")


def test_product_vectors_have_length_one(mall_model, tmp_path):
    """As saved from Python by somebody who changed them: a score would lie outside 0 to 1."""
    changed = replace(mall_model, product_embeddings=mall_model.product_embeddings * np.float32(1.5))
    with pytest.raises(InputError, match="product_embeddings: found other numbers; allowed: vectors of length 1"):
        save_model(changed, tmp_path)


@pytest.mark.parametrize(("part", "value", "sound"), [("var", 0, True), ("var", -1, False), ("mean", -1, True)])
def test_variances_alone_are_not_negative(mall_model, tmp_path, part, value, sound):
    statistics = jax.tree.map(np.array, mall_model.variables["batch_stats"])
    statistics["customer"]["deep"]["norm"][part][:] = value
    changed = replace(mall_model, variables={**mall_model.variables, "batch_stats": statistics})
    if sound:
        save_model(changed, tmp_path)
        load_model(tmp_path)
    else:
        with pytest.raises(InputError, match=r"norm/var: found other numbers; allowed: 0 or more"):
            save_model(changed, tmp_path)
