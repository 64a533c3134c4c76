"""What a folder of a model, and other files that come from elsewhere, can do when they are made to do harm: nothing."""

import ast
import copy
import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from test_artifacts import file_of, forged, refused, same_model, tiny  # noqa: F401

from recsys_jax import InputError, Recommender, load_dataset, load_model, save_model
from recsys_jax.console.places import held_out
from recsys_jax.data import files
from recsys_jax.data.files import UNSEALED, sealed
from recsys_jax.personas import encoders
from recsys_jax.personas.catalogue import Persona, shipped
from recsys_jax.personas.clustering import PersonaModel, load_personas, save_personas
from recsys_jax.personas.encoders import LsaEncoder, SentenceEncoder

HERE = Path(__file__).parents[1]
CUSTOMER = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}


@pytest.fixture(scope="session")
def wide_run(run_of) -> Path:
    """A wide model with numbers, several values of one feature and flags, as saved; not to be changed."""
    return run_of("films", "wide")


@pytest.fixture
def run(served_run, tmp_path) -> Path:
    return copied(served_run, tmp_path / "run")


def copied(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


# Saving


def test_a_kill_at_any_call_leaves_the_old_model_or_the_new(tiny, tmp_path):  # noqa: F811
    """At each call that opens, writes, forces to the disk, renames or removes; the next save leaves no litter."""
    old, model = tiny
    save_model(replace(model, product_embeddings=-model.product_embeddings), tmp_path / "new")
    command = [sys.executable, HERE / "storage" / "_killed_saves.py", old, tmp_path / "new", tmp_path / "work"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    found = [which for _, which, _, _ in lines]
    assert found == ["old"] * found.count("old") + ["new"] * found.count("new")
    assert min(found.count("old"), found.count("new")) > 3
    assert {status for *_, status in lines[:-1]} == {"9"}
    assert lines[-1][2:] == ["0", "0"]
    assert {litter for _, _, litter, _ in lines} == {"0", "1", "2"}  # so there was something to clear away
    print(f"{len(lines) - 1} kills")


def test_the_tensors_are_on_the_disk_before_model_json_names_them(tiny, monkeypatch):  # noqa: F811
    """What a power cut takes is what was not forced to the disk; the old tensors go last."""
    folder, model = tiny
    old, calls = file_of(folder, "tensors"), []
    monkeypatch.setattr(files, "randbelow", lambda most: 7)
    for name in ("fsync", "replace", "unlink"):
        call = getattr(os, name)

        def recorded(*args, name=name, call=call, **options):
            what = Path(os.readlink(f"/proc/self/fd/{args[0]}")) if name == "fsync" else Path(args[-1])
            calls.append((name, what.name))
            return call(*args, **options)

        monkeypatch.setattr(os, name, recorded)
    save_model(replace(model, product_embeddings=-model.product_embeddings), folder)
    new = file_of(folder, "tensors").name
    expected = []
    for name in (new, "model.json"):
        temporary = f".{name}.7"
        expected += [("fsync", temporary), ("replace", name), ("fsync", folder.name), ("unlink", temporary)]
    assert calls == [*expected, ("unlink", old.name)]


SAVER = """
import sys
from recsys_jax import load_model, save_model
models = [load_model(folder) for folder in sys.argv[1:3]]
for number in range(int(sys.argv[4])):
    save_model(models[number % 2], sys.argv[3])
"""


def load_during_saves(old: Path, model, tmp_path: Path, saves: int) -> int:
    other = replace(model, product_embeddings=-model.product_embeddings)
    save_model(other, tmp_path / "new")
    save_model(other, tmp_path / "both")
    command = [sys.executable, "-c", SAVER, old, tmp_path / "new", tmp_path / "both", str(saves)]
    savers = [subprocess.Popen(command) for _ in range(2)]
    seen = {1.0: 0, -1.0: 0}
    try:
        while any(saver.poll() is None for saver in savers):
            seen[float(load_model(tmp_path / "both").product_embeddings[0, 0])] += 1
    finally:
        for saver in savers:
            saver.kill()
            saver.wait()
    assert [saver.returncode for saver in savers] == [0, 0]
    assert min(seen.values()) > 0
    assert len(list((tmp_path / "both").iterdir())) == 2
    return sum(seen.values())


def test_whoever_loads_while_others_save_sees_one_model_whole(tiny, tmp_path):  # noqa: F811
    load_during_saves(*tiny, tmp_path, 40)


@pytest.mark.slow(reason="600 saves; the gate has 80")
def test_many_loads_during_saves(tiny, tmp_path):  # noqa: F811
    print(load_during_saves(*tiny, tmp_path, 300), "loads during 600 saves by two processes")


# Reading: what runs, and which files are opened


def test_nothing_in_the_code_unpickles():
    """Neither by itself nor through NumPy or PyTorch. The processes of a benchmark talk to each other in pickles."""
    calls = 0
    sources = {*(HERE.parent / "recsys_jax").rglob("*.py"), *(HERE.parent / "scripts").rglob("*.py")}
    for path in sources - {HERE.parent / "scripts" / "benchmark" / "recsys_jax_benchmark" / "process.py"}:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                dangerous = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"} & set(names)
                assert not dangerous or names == ["pickle", "UnpicklingError"], f"{path}: {names}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load", "torch.load"):
                given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                safe = {"torch.load": ("weights_only", True)}.get(ast.unparse(node.func), ("allow_pickle", False))
                assert safe in given.items(), f"{path}: {ast.unparse(node)}"
                calls += 1
    assert calls >= 2


@pytest.mark.parametrize("name", ["model.json", "tensors"])
def test_a_link_may_not_lead_out_of_the_folder(run, tmp_path, name):
    path = file_of(run, name)
    outside = path.rename(tmp_path / "outside")
    for target in (outside, Path("..") / "outside"):
        path.symlink_to(target)
        refused(run, str(path), f"found a link to {outside.resolve()}; allowed: a file in the folder")
        path.unlink()
    inside = outside.rename(run / "inside")
    path.symlink_to(inside.name)
    load_model(run)
    path.unlink()
    path.symlink_to(path.name)
    refused(run, str(path), "can't be read")
    path.unlink()
    path.symlink_to("nowhere")
    refused(run, str(path), "no such file")


def test_the_folder_itself_may_be_a_link(run, tmp_path):
    (tmp_path / "latest").symlink_to(run.name)
    same_model(load_model(run), load_model(tmp_path / "latest"))


@pytest.mark.parametrize("name", ["model.json", "tensors"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_opened(run, name, make):
    """A pipe would be waited for, for ever."""
    path = file_of(run, name)
    path.unlink()
    make(path)
    refused(run, str(path), "no file but something else")


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "a.safetensors", "", ".", "model.safetensors"])
def test_model_json_names_no_other_file(run, name):
    def edit(document):
        (own, digest) = document["sha256"].values()
        document["sha256"] = {"model.json": own, name: digest}

    forged(run, edit)
    refused(run, str(run / "model.json"), "found the file", "allowed: 'model-")


# Reading: what a forged document or forged tensors can say, with checksums that agree


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return load(file_of(folder, "tensors").read_bytes())


def spoilt(name, place, number):
    def edit(tensors):
        tensor = tensors[name].copy()
        tensor[place] = number
        return tensors | {name: tensor}

    return edit


DEEP_FORGERIES = {
    "a number that is none": spoilt("params/customer/deep/hidden/bias", 0, np.nan),
    "infinity": spoilt("params/product/deep/output/kernel", (0, 0), np.inf),
    "a negative variance": spoilt("batch_stats/product/deep/norm/var", 0, -1),
    "a long vector": spoilt("product_embeddings", (0, 0), 2),
    "an embedding that is none": spoilt("product_embeddings", (7, 5), np.nan),
    "fewer than no purchases": spoilt("purchases", 3, -1),
    "too many purchases": spoilt("purchases", 3, 2**62),
    "numbers that overflow": spoilt("params/customer/deep/hidden/kernel", (0, 0), 3e38),
    "one tensor more": lambda tensors: tensors | {"params/customer/deep/more": np.zeros(3, np.float32)},
    "one tensor less": lambda tensors: {
        name: t for name, t in tensors.items() if name != "params/customer/deep/gender_emb"
    },
    "a tensor for a branch": lambda tensors: tensors | {"params/customer/deep": np.zeros(3, np.float32)},
    "a shorter table": lambda tensors: tensors | {"params/customer/deep/gender_emb": np.zeros((1, 5), np.float32)},
    "a product more": lambda tensors: tensors | {"product_embeddings": np.zeros((9, 6), np.float32)},
    "another type": lambda tensors: tensors | {"losses": np.zeros(3, np.float64)},
    "losses in a square": lambda tensors: tensors | {"losses": np.zeros((3, 3), np.float32)},
}
KNOTS = "params/customer/wide/age_knots"
WIDE_FORGERIES = {
    "no radius": spoilt("params/customer/radius", (), 0),
    "a radius of which the square is none": spoilt("params/product/radius", (), 1e-38),
    "knots that do not ascend": spoilt(KNOTS, 4, 1e9),
    "knots in one place": lambda tensors: tensors | {KNOTS: np.maximum(tensors[KNOTS], tensors[KNOTS][4])},
    "popularity that is none": spoilt("popularity/of_product", 0, np.nan),
    "infinite popularity of the unknown": spoilt("popularity/constant", (), np.inf),
    "another width": lambda tensors: tensors | {"product_embeddings": np.zeros((5, 2), np.float32)},
}


@pytest.mark.parametrize("name", [*DEEP_FORGERIES, *WIDE_FORGERIES])
def test_tensors_that_no_model_has(name, mall_run, wide_run, tmp_path):
    run = copied(mall_run if name in DEEP_FORGERIES else wide_run, tmp_path / "run")
    before = tensors_of(run)
    forged(run, lambda _: None, save(before))
    load_model(run)  # the forgery is believed, as long as what it says makes sense
    forged(run, lambda _: None, save((DEEP_FORGERIES | WIDE_FORGERIES)[name](before)))
    refused(run, str(file_of(run, "tensors")))


def test_a_penalty_below_0(wide_run, tmp_path):
    run = copied(wide_run, tmp_path / "run")
    forged(run, lambda document: document["chosen"].update(own_l2=-1.0))
    refused(run, str(run / "model.json"), "chosen", "above 0")


@pytest.mark.wild
def test_a_sentence_that_knows_no_file_is_given_one(run_of, tmp_path):
    run = copied(run_of("films", "deep-infonce"), tmp_path / "run")
    forged(run, lambda document: document["schema"]["products"]["features"][0].update(name="product_id"))
    refused(run, f"{run / 'model.json'}: [products]: found a feature with the name 'product_id'")


@pytest.mark.wild
@pytest.mark.parametrize("around", [lambda part: [part], lambda part: ["a", part, "b"], lambda part: {"a": part}])
def test_values_of_products_are_not_deep(mall_run, tmp_path, around):
    """Whoever shows such a value would go down as deep."""
    run, value = copied(mall_run, tmp_path / "run"), "name"
    for _ in range(32):
        value = around(value)
    forged(run, lambda document: document["product_rows"]["product_name"].__setitem__(5, value))
    assert load_model(run).product_rows["product_name"][5] == value
    forged(run, lambda document: document["product_rows"]["product_name"].__setitem__(5, around(value)))
    refused(run, str(run / "model.json"), "product_name: found lists in lists, 32 deep; allowed: fewer")


def header(entries: dict, numbers: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + numbers


@pytest.mark.parametrize("shape", [[10**12], [2**63, 2**63], [-1], [0], ["x"], [1.5], None, "shape", [[]], [2**64]])
def test_a_forged_header(run, shape):
    """Of which safetensors is never asked: it does not fit, or it is not as long as it says."""
    content = file_of(run, "tensors").read_bytes()
    entries = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    for name in ("losses", "purchases"):
        forged(run, lambda _: None, header({**entries, name: {**entries[name], "shape": shape}}, content[-64:]))
        refused(run, str(file_of(run, "tensors")), "damaged")


@pytest.mark.parametrize("offsets", [[0, 0], [-1, 32], [2**63, 2**64 - 1], [32, 0], "x", None, [0, 10**15], [4, 36]])
def test_a_header_whose_numbers_lie_elsewhere(run, offsets):
    content = file_of(run, "tensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    entries = json.loads(content[8 : 8 + length])
    entries["losses"]["data_offsets"] = offsets
    forged(run, lambda _: None, header(entries, content[8 + length :]))
    refused(run, str(file_of(run, "tensors")), "damaged")


def places(value: object, path: tuple = ()):
    """The paths of all parts of a document, itself not among them."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


def test_a_row_is_never_wider_than_the_vocabulary(wide_run, tmp_path):
    """The width of a feature of several values pads every row; here three genres, unknown ones and none."""
    run = copied(wide_run, tmp_path / "run")
    forged(run, lambda document: document["customers"]["likes"].update(width=10**12))
    loaded = load_model(run)
    assert loaded.customers.blank(1)["likes"].shape == (1, 5)
    rec = Recommender(loaded)
    assert rec.recommend(favourite_genres="Drama") == Recommender(load_model(wide_run)).recommend(
        favourite_genres="Drama"
    )


ABSENT = object()
OTHERS = [
    *(None, True, False, -1, 0, 1, 2, 10**12, 2**63, 10**400, 0.5, 1e-320, 1e308, -1e308, math.nan, math.inf),
    *("", "x", "a", "1", "../..", "inf", "numeric", "error", "extra-row", "\ud800", "x" * 10_000, [], {}, [0], [None]),
    *([[]], ["a", "a"], ["a", "b"], {"as": 1}, {"as": "dry"}, {"x": {}}, json.loads("[" * 90 + "]" * 90), ABSENT),
]


def edited(document: dict, changes) -> None:
    for number, other in changes:
        paths = list(places({key: part for key, part in document.items() if key not in ("format", "sha256")}))
        *branches, last = paths[number % len(paths)]
        node = document
        for branch in branches:
            node = node[branch]
        if other is ABSENT:
            del node[last]
        else:
            node[last] = copy.deepcopy(other)


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(OTHERS)), min_size=1, max_size=3)


def refused_or_sound(source: Path, changes) -> bool:
    with tempfile.TemporaryDirectory() as name:
        run = copied(source, Path(name) / "run")
        forged(run, lambda document: edited(document, changes))
        try:
            rec = Recommender(load_model(run))
            best = rec.recommend(**{column: CUSTOMER.get(column) for column in rec._columns}, top_n=3)
        except InputError:
            return False
        assert best
        assert all(0 <= one["score"] <= 1 and math.isfinite(one["popularity"]) for one in best)
        return True


def forged_documents(source: Path, count: int) -> None:
    sound = []

    @settings(max_examples=count)
    @given(CHANGES)
    def check(changes):
        sound.append(refused_or_sound(source, changes))

    check()
    assert 0 < sum(sound) < len(sound)
    print(f"{source}: {len(sound)} forged documents, {sum(sound)} of them sound models")


def test_a_forged_document_is_refused_or_makes_sense(served_run):
    forged_documents(served_run, 100)


def test_a_forged_document_of_a_shop_with_everything_else_too(served_films_run):
    forged_documents(served_films_run, 100)


@pytest.mark.slow(reason="10,000 documents; the gate has 100")
def test_ten_thousand_forged_documents(served_run):
    forged_documents(served_run, 10_000)


@pytest.mark.slow(reason="10,000 documents; the gate has 100")
def test_ten_thousand_forged_documents_of_a_shop_with_everything_else(served_films_run):
    forged_documents(served_films_run, 10_000)


# Reading: memory


def test_nothing_takes_more_memory_than_there_is_in_the_file(mall_run, tmp_path):
    """Each with checksums that agree, within 256 MB of address space more than the imports take: see _memory.py."""
    pytest.importorskip("torch")
    command = [sys.executable, HERE / "storage" / "_memory.py", mall_run, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    outcomes = json.loads(result.stdout)
    assert len(outcomes) >= 20
    assert {kind: said for kind, said in outcomes.items() if not said.startswith("InputError: ")} == {}
    # Refused for what it is, not for want of memory.
    assert not [kind for kind, said in outcomes.items() if "too little memory" in said]
    for kind, said in outcomes.items():
        if "that asks for" in kind:
            assert "refused: opening it would run code" in said, kind
        if "packed" in kind:
            assert "found packed" in said, kind


# What else is read: personas and cached embeddings


@pytest.fixture
def personas(tmp_path) -> Path:
    """Two personas over two terms, as saved."""
    encoder = LsaEncoder(("ab", "bc"), np.ones(2, np.float32), np.eye(2, dtype=np.float32))
    kinds = tuple(Persona(name, "-", ("word",), {"age": (20, 30), "skin_type": "dry"}) for name in "AB")
    words, arrays = (("word",), ("word",)), (np.zeros(2), np.eye(2), np.eye(2))
    made = PersonaModel(encoder, kinds, words, (1.0, 1.0), ("A", "B"), *arrays, {2: 0.5}, 0, (1.0, 1.0), shipped())
    save_personas(made, tmp_path / "p")
    return tmp_path / "p"


def edited_personas(folder: Path, **changes) -> None:
    """Other entries in model.json, behind a checksum that agrees."""
    document = json.loads((folder / "model.json").read_text("utf-8")) | changes
    (folder / "model.json").write_text(sealed(json.dumps(document | {"sha256": UNSEALED})), "utf-8")


@pytest.mark.parametrize(
    "change",
    [
        {"centres": np.array([[1, np.nan], [0, 1]])},
        {"centres": np.ones((2, 3))},
        {"centres": np.ones((3, 2))},
        {"mean": np.zeros(())},
        {"mean": np.array(["x", "y"])},
        {"components": np.ones(2)},
        {"lsa_terms": np.array(["ab", "ab"])},
        {"lsa_terms": np.array([Path("x"), {}], object)},
        {"lsa_idf": np.ones(3, np.float32)},
        {"lsa_components": np.ones((3, 2), np.float32)},
    ],
    ids=range(10),
)
def test_forged_personas(personas, change):
    load_personas(personas)
    with np.load(personas / "arrays.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    np.savez(personas / "arrays.npz", **arrays | change)
    edited_personas(personas, arrays_sha256=hashlib.sha256((personas / "arrays.npz").read_bytes()).hexdigest())
    with pytest.raises(InputError, match=f"^{personas}: damaged: .*Fit the personas again"):
        load_personas(personas)


@pytest.mark.parametrize("name", ["model.json", "arrays.npz"])
def test_personas_lead_out_of_their_folder_no_more_than_models(personas, tmp_path, name):
    (personas / name).rename(tmp_path / "outside")
    (personas / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match=rf"{name}: found a link to \S+outside"):
        load_personas(personas)


@pytest.mark.wild
@pytest.mark.parametrize("name", ["model.json", "arrays.npz"])
def test_a_flipped_bit_of_personas_is_refused(personas, name):
    content = (personas / name).read_bytes()
    for place, bit in enumerate(np.random.default_rng(0).integers(8, size=len(content)).tolist()):
        (personas / name).write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        with pytest.raises(InputError, match=f"^{personas}.*Fit the personas again: recsys-jax personas$"):
            load_personas(personas)


@pytest.mark.wild
def test_personas_of_the_format_without_a_checksum_are_read(personas):
    document = json.loads((personas / "model.json").read_text("utf-8"))
    del document["sha256"]
    former = {"skin_type": "dry", "skin_concern": "gift", "age": [20, 30], "female_share": 0.5}
    kinds = [{"name": name, "description": "-", "keywords": ["word"], **former} for name in "AB"]
    (personas / "model.json").write_text(json.dumps(document | {"format": 2, "personas": kinds}), "utf-8")
    assert load_personas(personas).names == ("A", "B")
    (personas / "model.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(InputError, match=r"damaged: KeyError\('sha256'\)"):
        load_personas(personas)


@pytest.mark.wild
@pytest.mark.parametrize("name", ["/usr", "someone/a-model", ".", "USE", "x" * 10**6])
def test_personas_do_not_choose_what_is_loaded(personas, name):
    """A folder, a name on the hub: neither is looked at, unless the person names it, too."""
    edited_personas(personas, encoder=name)
    with pytest.raises(
        InputError, match=r"model\.json: found the encoder '.*allowed: 'use', 'lsa'.*--encoder"
    ) as caught:
        load_personas(personas, encoder="another")
    assert len(str(caught.value)) < 500
    assert load_personas(personas, encoder=name).encoder.name == name


@pytest.mark.wild
def test_a_command_names_the_encoder(personas, mall):
    """What `evaluate`, `compare` and `run` call."""
    edited_personas(personas, encoder="someone/a-model")
    personas.rename(personas.with_name("personas"))
    made, dataset = personas.with_name("customers.json"), load_dataset(mall)
    with pytest.raises(InputError, match="found the encoder 'someone/a-model'"):
        held_out(mall, dataset, made, "cross-validation", 2, 0, None)
    with pytest.raises(InputError, match="these customers were made from other reviews"):  # so personas were taken
        held_out(mall, dataset, made, "cross-validation", 2, 0, "someone/a-model")


@pytest.mark.wild
@pytest.mark.parametrize("name", ["model.json", "arrays.npz"])
def test_a_pipe_among_personas_is_not_waited_for(personas, name):
    (personas / name).unlink()
    os.mkfifo(personas / name)
    with pytest.raises(InputError, match="no file but something else"):
        load_personas(personas)


class Counting(SentenceEncoder):
    """Embeds by the text's length, and counts what it embeds."""

    computed = 0

    def _compute(self, texts):
        self.computed += len(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)


def test_a_damaged_cache_is_computed_again_and_never_believed(tmp_path, monkeypatch):
    texts, expected = ["a", "bcd"], [[1, 1], [3, 1]]
    assert Counting("any", tmp_path).encode(texts).tolist() == expected
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    monkeypatch.setattr(encoders, "_write_cache", lambda *_: None)  # so that the damage stays
    rng, again = np.random.default_rng(3), 0
    with file.open("r+b", buffering=0) as stream:
        for place, bit in enumerate(rng.integers(8, size=len(content)).tolist()):
            os.pwrite(stream.fileno(), bytes([content[place] ^ 1 << bit]), place)
            encoder = Counting("any", tmp_path)
            assert encoder.encode(texts).tolist() == expected
            again += encoder.computed > 0
            os.pwrite(stream.fileno(), content[place : place + 1], place)
    assert again > len(content) / 2  # zip keeps much twice, or does not use it
    encoder = Counting("any", tmp_path)
    assert encoder.encode(texts).tolist() == expected
    assert encoder.computed == 0


@pytest.mark.wild
def test_a_cache_that_is_a_pipe_is_not_waited_for(tmp_path):
    Counting("any", tmp_path).encode(["a"])
    (file,) = tmp_path.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert Counting("any", tmp_path).encode(["a"]).tolist() == [[1, 1]]
    assert file.is_file()
