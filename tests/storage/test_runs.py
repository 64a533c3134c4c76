"""Run folders: whose they are, what in them belongs together, and two processes that write into one."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from recsys_jax import InputError, load_model, save_model
from recsys_jax.data import files
from recsys_jax.data.files import only_writer, replace_file, write_file
from recsys_jax.storage.jobs import Parts, only_process
from recsys_jax.storage.runs import (
    MANIFEST,
    claim,
    forget,
    model_of,
    outdated,
    read_manifest,
    record,
    require_own,
    settle,
)

pytestmark = pytest.mark.wild
FORMER = Path(__file__).parent / "former"


def written(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def shop(tmp_path):
    return written(tmp_path / "shop", "dataset.toml")


# Whose a folder is


@pytest.mark.parametrize(
    "name",
    ["README.md", "model.safetensors", "customers.json", "report.md", "cross-validation/x", "checkpoint.safetensors",
     "exp/metrics.json", "comparison.json", "personas/model.json"],
)  # fmt: skip
def test_a_folder_with_files_of_others_is_refused(shop, tmp_path, name):
    run = written(tmp_path / "run", name)
    said = f"found files that this program did not write, such as {name.split('/')[0]}; allowed: a new folder"
    with pytest.raises(InputError, match=said):
        require_own(run, shop)
    require_own(run, shop, force=True)
    assert names(run) == {name}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("personas/model.json", b'{\n "format": 2,'),
        ("checkpoint.safetensors", bytes(range(40)) + b'{"0":'),
        ("checkpoint.before.safetensors", b"\n" * 40 + b'{"0":'),
        ("hold-out/metrics.json", b'{\n "protocol": "hold-out'),
        ("comparison.json", b'{\n "queries": {'),
        ("comparison/time/comparison.json", b'{"queries": {'),
        (".lock", b""),
        (".DS_Store", b""),
    ],
)
def test_new_and_former_runs_are_our_own(shop, tmp_path, name, content, mall_run):
    require_own(tmp_path / "not yet", shop)
    require_own(mall_run, shop)
    require_own(FORMER / "format-3-deep", shop)
    (written(tmp_path / "run", name) / name).write_bytes(content)
    require_own(tmp_path / "run", shop)
    require_own(tmp_path / "run", shop / "dataset.toml")


@pytest.mark.wild
@pytest.mark.parametrize("source", ["a\0", "\ud800", "loop", "x" * 5000, "", "\x1b[2J"])
def test_a_manifest_with_a_source_that_no_file_has(shop, tmp_path, source):
    run = tmp_path / "run"
    run.mkdir()
    (run / "loop").symlink_to("loop")
    (run / MANIFEST).write_text(json.dumps({"recsys_jax": "1", "source": source}))
    if source:  # it is nowhere, as where the dataset was moved
        require_own(run, shop)
    else:
        with pytest.raises(InputError, match=f"found what was made from {run}; allowed for {shop}"):
            require_own(run, shop)


@pytest.mark.wild
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.with_name("theirs"))])
def test_a_lock_that_is_no_file_is_neither_waited_for_nor_followed(tmp_path, make):
    make(tmp_path / ".lock")
    with pytest.raises(InputError, match=r"\.lock: can't be opened"), only_process(tmp_path, "busy"):
        pass
    assert not (tmp_path / "theirs").exists()


@pytest.mark.wild
@pytest.mark.parametrize("name", ["000000.json", "000000.part"])
def test_a_part_that_is_a_pipe_is_made_again(tmp_path, name):
    job = Parts(tmp_path / "parts", {})
    with job.alone("busy"):
        job.add(lambda stream: stream.write(b"a"), lambda: {"rows": 1})
    (tmp_path / "parts" / name).unlink()
    os.mkfifo(tmp_path / "parts" / name)
    with Parts(tmp_path / "parts", {}).alone("busy") as said:
        assert "found a damaged part" in said


def test_a_run_is_of_one_dataset(shop, tmp_path):
    run, other = tmp_path / "run", written(tmp_path / "other", "dataset.toml")
    claim(run, shop)
    with pytest.raises(InputError, match=rf"run: found what was made from {shop}; allowed for {other}: another folder"):
        require_own(run, other)
    require_own(run, other, force=True)
    require_own(run, shop)
    (tmp_path / "link").symlink_to(shop)
    require_own(run, tmp_path / "link")
    project = tmp_path / "project"  # a copy of all: there, the run is of the copy
    shutil.copytree(tmp_path, project, symlinks=True)
    require_own(project / "run", project / "shop")
    with pytest.raises(InputError, match="found what was made from"):
        require_own(project / "run", shop)
    shop.rename(tmp_path / "moved")
    require_own(run, tmp_path / "moved")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"name": "an app"}', '{"recsys_jax": 1}', "[" * 100_000, '{"recsys_jax": "1", "a": {}}'],
)
def test_what_is_no_manifest_is_refused_and_stays(shop, tmp_path, content):
    (written(tmp_path, MANIFEST) / MANIFEST).write_text(content)
    for call in (read_manifest, settle, lambda folder: require_own(folder, shop, force=True)):
        with pytest.raises(InputError, match=r"run\.json: found no manifest; allowed: one that this program wrote"):
            call(tmp_path)
    with pytest.raises(InputError, match="found no manifest"):
        record(tmp_path, {"model": "x"})
    assert (tmp_path / MANIFEST).read_text() == content


@pytest.mark.parametrize("content", ["[]", '[{"format": 5}]', '{"products": []}', "", "half of a mod"])
def test_a_model_json_of_others_is_not_replaced(mall_model, tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(InputError, match=r"model\.json: found a file that is no model; allowed: a folder without one"):
        save_model(mall_model, tmp_path)
    assert names(tmp_path) == {"model.json"}
    assert (tmp_path / "model.json").read_text() == content


def test_tensors_of_others_stay(mall_model, tmp_path):
    others = {"model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.json"}
    for _ in range(2):
        written(tmp_path, *others)
        save_model(mall_model, tmp_path)
        assert others < names(tmp_path)
        assert (tmp_path / "model.safetensors").read_text() == "this is model.safetensors"
    former = tmp_path / "former"
    shutil.copytree(FORMER / "format-3-deep", former)
    save_model(mall_model, former)
    assert "model.safetensors" not in names(former)
    load_model(former)


# What belongs together


def evaluated(folder: Path) -> None:
    """As `train` and `evaluate` leave a run."""
    written(
        folder, "loss.csv", "seeds.json", "hold-out/report.md", "hold-out/metrics.json", "time/report.md", "mine.txt"
    )
    model = model_of(folder)
    record(folder, {"model": model, "hold-out: model": model, "time: model": model, "hold-out: data": "some"})


def test_what_was_written_of_another_model_goes(mall_model, tmp_path):
    save_model(mall_model, tmp_path)
    evaluated(tmp_path)
    before = names(tmp_path)
    assert not settle(tmp_path)
    assert names(tmp_path) == before
    assert (outdated(tmp_path, ["newer", "some"]), outdated(tmp_path, ["others", "older"])) == ([], ["hold-out"])
    save_model(replace(mall_model, product_embeddings=-mall_model.product_embeddings), tmp_path)  # from Python
    assert settle(tmp_path)
    assert not names(tmp_path) & {"loss.csv", "seeds.json", "hold-out/report.md", "hold-out/metrics.json"}
    assert {"mine.txt", "model.json"} < names(tmp_path)
    assert read_manifest(tmp_path).keys() == {"recsys_jax"}
    assert not settle(tmp_path)


@pytest.mark.parametrize("other", ["0" * 64, "f" * 64])
def test_what_was_written_of_any_other_model_goes(mall_model, tmp_path, other):
    save_model(mall_model, tmp_path)
    evaluated(tmp_path)
    record(tmp_path, {"model": other})
    assert settle(tmp_path)
    assert not names(tmp_path) & {"loss.csv", "seeds.json"}


@pytest.mark.parametrize("other", ["0" * 64, "f" * 64])
def test_one_evaluation_of_another_model_goes_alone(mall_model, tmp_path, other):
    save_model(mall_model, tmp_path)
    evaluated(tmp_path)
    record(tmp_path, {"time: model": other})
    assert settle(tmp_path)
    assert {"loss.csv", "hold-out/report.md"} < names(tmp_path)
    assert "time/report.md" not in names(tmp_path)


def test_of_a_former_run_nothing_is_known_and_nothing_goes(mall_model, tmp_path):
    save_model(mall_model, tmp_path)
    before = names(written(tmp_path, "loss.csv", "time/report.md"))
    assert not settle(tmp_path)
    assert names(tmp_path) == before
    assert forget(tmp_path)
    assert names(tmp_path) == before - {"loss.csv", "time/report.md"}


# Two processes


def test_a_folder_is_one_process_alone(tmp_path):
    folder = tmp_path / "run"
    with only_process(folder, "busy"):
        with pytest.raises(InputError, match="busy"), only_process(folder, "busy"):
            pass
        with pytest.raises(InputError, match="busy"), only_process(folder, "busy"):  # who is refused takes nothing away
            pass
    assert not folder.exists()
    written(folder, ".lock", "mine.txt")  # of a killed process
    with only_process(folder, "busy"):
        pass
    assert names(folder) == {"mine.txt"}


def test_who_comes_after_keeps_the_lock(tmp_path):
    """One that found the lock removed made its own: who ends later doesn't take it away."""
    folder = tmp_path / "run"
    with only_process(folder, "busy"):
        (folder / ".lock").unlink()
        after = only_process(folder, "busy")
        after.__enter__()
    with pytest.raises(InputError, match="busy"), only_process(folder, "busy"):
        pass
    after.__exit__(None, None, None)
    assert not folder.exists()


def test_where_the_system_has_no_locks_a_folder_is_used_without(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with only_process(tmp_path / "run", "busy"), only_writer(tmp_path / "run"):
        written(tmp_path / "run", "mine.txt")
    assert names(tmp_path / "run") == {"mine.txt"}


# Parts of a job

JOB = {"rows of": "some file"}


def with_parts(folder: Path, *ends: int) -> Path:
    parts = Parts(folder, JOB)
    for end in ends:
        parts.add(lambda stream: stream.write(b"some rows"), lambda end=end: {"rows": end})
    return folder


def taken_over(folder: Path) -> tuple[str, dict]:
    parts = Parts(folder, JOB)
    with parts.alone("busy") as said:
        return said, parts.state


def test_a_part_that_begins_elsewhere_is_made_again(tmp_path):
    """Each of the two is whole and of this job."""
    folder, other = with_parts(tmp_path / "folder", 10, 20), with_parts(tmp_path / "other", 15)
    assert taken_over(folder) == ("", {"rows": 20})
    for name in ("000000.part", "000000.json"):
        shutil.copy(other / name, folder)
    damaged = f"{folder / '000001.part'}: found a damaged part of the job; it is made again, and all after it"
    assert taken_over(folder) == (damaged, {"rows": 15})
    assert names(folder) == {"000000.part", "000000.json"}


@pytest.mark.parametrize("checksum", ["0" * 64, "f" * 64, ""])
def test_a_part_with_another_checksum_is_made_again(tmp_path, checksum):
    folder = with_parts(tmp_path / "folder", 10, 20)
    note = json.loads((folder / "000001.json").read_text())
    (folder / "000001.json").write_text(json.dumps(note | {"sha256": checksum}))
    said, state = taken_over(folder)
    assert said.startswith(f"{folder / '000001.part'}: found a damaged part")
    assert state == {"rows": 10}


# Two writers of one file


def test_two_who_write_one_file_do_not_mix(tmp_path, monkeypatch):
    """In two containers both are process 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "file"

    def write(stream):
        stream.write(b"one, the first half; ")
        write_file(path, b"another, whole")
        assert path.read_bytes() == b"another, whole"
        stream.write(b"one, the second half")

    replace_file(path, write)
    assert path.read_bytes() == b"one, the first half; one, the second half"
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("link", [False, True])
def test_a_temporary_name_that_is_taken_is_not_written_to(tmp_path, monkeypatch, link):
    monkeypatch.setattr(files, "randbelow", lambda most: 7)
    mine = written(tmp_path, "mine") / "mine"
    taken = tmp_path / ".file.7"
    taken.symlink_to(mine) if link else taken.write_text("this is mine")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "file", "ours")
    assert taken.read_text() == mine.read_text() == "this is mine"
    assert not (tmp_path / "file").exists()


def test_two_who_note_facts_keep_both(tmp_path):
    record(tmp_path, {"source": "here"})
    record(tmp_path, {"model": "x", "gone": None})
    assert json.loads((tmp_path / MANIFEST).read_text()).keys() == {"recsys_jax", "source", "model"}
