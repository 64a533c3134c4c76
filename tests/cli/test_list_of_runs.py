"""`recsys-jax runs`: what is there, how good it is, and what can't be used, with the reason."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import done, run, told
from conftest import write_mall

from recsys_jax.console.terminal import json_text

FORMER = Path(__file__).parents[1] / "storage" / "former"
WIDE = ("wide", "--own-l2", 10, "--attribute-l2", "inf", "--factor-l2", "inf")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Two runs of a mall: one is measured, with its second recipe and another seed the other is not."""
    cwd = tmp_path_factory.mktemp("shop")
    write_mall(cwd / "mall")
    done("train", "mall", *WIDE, cwd=cwd)
    done("evaluate", "mall", "--folds", 2, cwd=cwd)
    done("train", "mall", "deep", "--epochs", 2, "--seed", 7, "--run", "runs/other", cwd=cwd)
    return cwd


def listed(cwd: Path, *words: object) -> dict[str, dict]:
    found = json.loads(done("runs", *words, "--json", cwd=cwd).stdout)
    return {one["run"]: one for one in found}


def test_each_run_has_its_figures(shop):
    found = listed(shop)
    assert list(found) == ["runs/mall", "runs/other"]
    first, other = found.values()
    assert (first["dataset"], first["source"], first["recipe"], first["seed"]) == ("mall", "mall", "wide", 0)
    assert (other["recipe"], other["seed"], other["loads"], other["held_out"]) == ("deep", 7, True, None)
    methods = json.loads((shop / "runs" / "mall" / "cross-validation" / "metrics.json").read_text())["methods"]
    mrr = {name: by_metric["mrr"]["all"] for name, by_metric in methods.items()}
    held = first["held_out"]
    assert (held["protocol"], held["MRR"], held["chance"]) == ("cross-validation", mrr["model"], mrr["random"])
    rivals = {name: one["mean"] for name, one in mrr.items() if name not in ("model", "shuffled attributes")}
    assert held["baseline"]["mean"] == max(rivals.values()) == rivals[held["baseline"]["name"]]


def test_a_line_per_run_and_what_is_next(shop):
    said = done("runs", cwd=shop)
    lines = said.stdout.splitlines()
    [measured] = [line.split() for line in lines if line.startswith("mall ") and "wide" in line]
    held = listed(shop)["runs/mall"]["held_out"]
    assert measured[:3] == ["mall", "wide", "0"]
    assert measured[4:6] == [f"{held['MRR']['mean']:.4f}", "±"]
    assert measured[7:] == [f"{held[which]['mean']:.4f}" for which in ("baseline", "chance")]
    assert f"* best baseline {held['baseline']['name']}: mall" in lines
    assert all(len(line) <= 80 for line in lines if not line.startswith("Next: "))  # that is one line, on a pipe
    assert any(line.startswith("other") and "deep" in line and " 7 " in line for line in lines)
    assert said.next() == ["evaluate", "mall", "--run", "runs/other"]
    assert done("runs", "runs/other", cwd=shop).stdout.count("deep") == 1
    assert list(listed(shop, "runs/other")) == ["runs/other"]


def test_damaged_runs_are_listed_with_the_reason(shop, tmp_path):
    for name in ("model", "tensors", "manifest", "figures", "newer", "whole"):
        shutil.copytree(shop / "runs" / "mall", tmp_path / "runs" / name)
    runs = tmp_path / "runs"
    (runs / "model" / "model.json").write_text('{"format": 6, ')
    next((runs / "tensors").glob("*.safetensors")).unlink()
    (runs / "manifest" / "run.json").write_text("[]")
    (runs / "figures" / "cross-validation" / "metrics.json").write_text('{"methods": {}}')
    newer = (runs / "newer" / "model.json").read_text().replace('"format": 6', '"format": 99', 1)
    (runs / "newer" / "model.json").write_text(newer)
    found = {Path(name).name: one for name, one in listed(tmp_path).items()}
    reasons = {
        "model": "model.json: damaged: ",
        "tensors": "safetensors: there is no such file; train the model again",
        "manifest": "run.json: found no manifest; allowed: one that this program wrote",
        "figures": "metrics.json: damaged: ",
        "newer": "found format 99, written by a newer recsys_jax",
    }
    assert {name for name, one in found.items() if one["problem"]} == set(reasons)
    for name, reason in reasons.items():
        assert reason in found[name]["problem"]
        assert not found[name]["loads"]
    said = " ".join(done("runs", cwd=tmp_path).stdout.split())
    assert all(f" {name} damaged " in said for name in reasons)
    assert "written by a newer recsys_jax" in said


def test_figures_of_another_model_are_not_shown(shop, tmp_path):
    """As a kill between the model and the manifest leaves them."""
    shutil.copytree(shop / "runs" / "mall", tmp_path / "runs" / "mall")
    for path in (shop / "runs" / "other").glob("model*"):
        shutil.copy(path, tmp_path / "runs" / "mall")
    [one] = listed(tmp_path).values()
    assert (one["recipe"], one["held_out"]) == ("deep", None)


def test_runs_of_former_formats_are_listed(tmp_path):
    for folder in FORMER.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, tmp_path / "runs" / folder.name)
    found = listed(tmp_path)
    assert len(found) >= 9
    assert [one["problem"] for one in found.values()] == [None] * len(found)
    assert {one["recipe"] for one in found.values()} == {"deep", "wide"}
    assert all(one["recipe"] in name for name, one in found.items())


def test_a_folder_without_runs(tmp_path):
    assert done("runs", cwd=tmp_path).next() == ["run"]
    (tmp_path / "runs" / "pictures").mkdir(parents=True)
    assert listed(tmp_path) == {}
    told(run("runs", "nowhere", cwd=tmp_path), "nowhere: found nothing; allowed: a folder with runs")


def test_a_leak_is_left_out(shop, tmp_path):
    """Where personas come from the reviews asked for, the figures without that leak count."""
    shutil.copytree(shop / "runs" / "mall", tmp_path / "runs" / "mall")
    path = tmp_path / "runs" / "mall" / "cross-validation" / "metrics.json"
    document = json.loads(path.read_text())
    leaky = json.loads(json.dumps(document))
    leaky["methods"]["model"]["mrr"]["all"]["mean"] = 1.0
    path.write_text(json_text({**leaky, "leak-free": document}))
    os.utime(path)
    [one] = listed(tmp_path).values()
    assert one["held_out"]["MRR"] == document["methods"]["model"]["mrr"]["all"]
