"""PyTorch files that were made to take all time or memory, or to act: refused in a moment, with a sentence."""

import itertools
import os
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import mall_products

from recsys_jax import InputError, Recommender, save_checkpoint

pytestmark = pytest.mark.wild

CUSTOMER = {"age": 30, "gender": "F", "skin_type": "dry", "skin_concern": "gift"}
ORDERED = b"ccollections\nOrderedDict\n"


def pairs(rounds: int) -> bytes:
    """The tuple (a, a) of the tuple before, so many times: 2^rounds parts, in five bytes each."""
    return b"K\x01q\x00" + b"h\x00\x86q\x00" * rounds


def wide(rounds: int) -> bytes:
    """A tuple of 200 times the one before, so many times."""
    return b"(" * rounds + b"K\x01q\x00" + (b"h\x00" * 199 + b"tq\x00") * rounds


DEEP = pairs(28)
MANY = 10**6
PICKLES = {
    "a key of pairs of pairs": b"}" + DEEP + b"K\x01s.",
    "a key of many in many": b"}" + wide(4) + b"K\x01s.",
    "keys set at once": b"}(" + DEEP + b"K\x01u.",
    "keys of an OrderedDict that is made of pairs": ORDERED + DEEP + b"K\x02\x86\x85\x85R.",
    "keys of an attribute": ORDERED + b")R" + DEEP + b"K\x02\x86\x85b.",
    "a size": b"ctorch\nSize\n" + DEEP + b"\x85R.",
    "the name of a storage": b"(X\x07\0\0\0storagectorch\nFloatStorage\n" + DEEP + b"X\x03\0\0\0cpuK\x01tQ.",
    "a value": b"}X\x01\x00\x00\x00a" + DEEP + b"s.",
    "lists": b"](" + b"]" * MANY + b"e.",
    "dictionaries": b"](" + b"}" * MANY + b"e.",
    "tuples": b"](" + b"K\x01\x85" * MANY + b"e.",
    "calls": b"](" + ORDERED + b"q\x00)R" + b"h\x00)R" * MANY + b"e.",
}


@pytest.fixture(scope="module")
def plain(mall_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "model.pth"
    save_checkpoint(mall_model, path)
    return path


def recommended(path: Path):
    return Recommender.from_torch(path, products=mall_products()).recommend(**CUSTOMER, top_n=8)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        recommended(path)
    said = str(caught.value)
    assert [word for word in (str(path), *words) if word not in said] == [], said
    assert len(said) < 4100


def forged(plain: Path, path: Path, pickle: bytes) -> Path:
    """The file with another pickle in it."""
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w") as written:
        for name in archive.namelist():
            written.writestr(name, b"\x80\x02" + pickle if name.endswith(".pkl") else archive.read(name))
    return path


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_is_deep_or_wide_is_refused_at_once(plain, tmp_path, kind):
    many = "found more than 20,000 lists and the like, or a tuple of more than 1,000 parts; allowed: a file by"
    refused(forged(plain, tmp_path / "model.pth", PICKLES[kind]), many)


def test_many_marks_before_many_values_are_looked_through_in_time(plain, tmp_path):
    pickle = b"](" + b"K\x01" * 10**6 + b"](e" * 10**4 + b"e."
    refused(forged(plain, tmp_path / "model.pth", pickle), "found list; allowed: a dictionary")


def test_a_file_with_one_packed_part_is_refused(plain, tmp_path):
    """However small: neither is it long when it is unpacked."""
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(tmp_path / "model.pth", "w") as written:
        for name in archive.namelist():
            packed = zipfile.ZIP_DEFLATED if name.endswith("version") else zipfile.ZIP_STORED
            written.writestr(name, archive.read(name), packed)
    refused(tmp_path / "model.pth", "found packed content", "version")


def test_a_file_whose_parts_overlap_is_refused(plain, tmp_path):
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(tmp_path / "model.pth", "w") as written:
        for name in archive.namelist():
            written.writestr(name, archive.read(name))
        written.filelist += [max(written.filelist, key=lambda entry: entry.file_size)] * 100
    refused(tmp_path / "model.pth", "found packed content, parts that overlap")


def test_without_pytorch_a_sentence_says_what_to_install(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"^PyTorch checkpoints need torch: \S+ -m pip install 'recsys_jax\[torch\]'$"):
        recommended(plain)


def changed(plain: Path, path: Path, change) -> Path:
    checkpoint = torch.load(plain, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("where", ["model_state_dict", "brand_map", "extra_rows"])
@pytest.mark.parametrize("method", ["get", "values", "keys", "__class__", "__iter__"])
def test_methods_that_a_file_gives_to_its_dictionaries_are_not_called(plain, tmp_path, where, method):
    def overwrite(checkpoint):
        checkpoint[where] = OrderedDict(checkpoint[where])
        checkpoint[where].__dict__[method] = 3

    assert recommended(changed(plain, tmp_path / "model.pth", overwrite)) == recommended(plain)


@pytest.mark.parametrize("key", [(1, 2), None, ("a", ("b", "c"))])
def test_keys_are_texts_or_numbers(plain, tmp_path, key):
    for number, where in enumerate([(), ("model_state_dict",), ("brand_map",), ("extra_rows",)]):

        def add(checkpoint, where=where):
            for name in where:
                checkpoint = checkpoint[name]
            checkpoint[key] = 1

        path = changed(plain, tmp_path / f"{number}.pth", add)
        refused(path, f"found {type(key).__name__} as a key; allowed: texts and numbers")


def test_a_name_of_a_megabyte_is_not_repeated(plain, tmp_path):
    name = "x" * 10**6
    for number, change in enumerate(
        [
            lambda c: c["model_state_dict"].update({name: torch.zeros(1)}),
            lambda c: c["brand_map"].update({name: "none"}),
            lambda c: (c.pop("model_state_dict"), c.update({name: 1})),
            lambda c: c.update(brand_map=dict(zip(map(str, range(10**5)), itertools.repeat(0), strict=False))),
        ]
    ):
        refused(changed(plain, tmp_path / f"{number}.pth", change), "found", "allow")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_not_opened(tmp_path, make):
    make(tmp_path / "model.pth")
    refused(tmp_path / "model.pth", "found no file but something else; allowed: a file")
