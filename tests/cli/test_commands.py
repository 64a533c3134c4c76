"""The commands: what they write, say and return."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from command_line import done, run, told
from safetensors.numpy import load_file

from recsys_jax import InputError
from recsys_jax.cli import evaluate
from recsys_jax.data.files import write_file
from recsys_jax.data.splits import SPLITS

ROOT = Path(__file__).parents[2]
MALL = ROOT / "data" / "amoremall"
FIXED = ("wide", "--own-l2", 100, "--attribute-l2", "inf", "--factor-l2", "inf")


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    """A folder with the personas of an encoder that needs no model, and a run of fixed penalties."""
    folder = tmp_path_factory.mktemp("job")
    done("personas", MALL, "--encoder", "lsa", cwd=folder)
    done("train", MALL, *FIXED, cwd=folder)
    return folder


def test_recommend_prints_json_and_leaves_out_what_was_bought(cwd):
    known = ["age=32", "gender=F", "skin_type=dry", "skin_concern=moisture", "--top-n", 4, "--json"]
    first = json.loads(run("recommend", "runs/amoremall", *known, cwd=cwd).stdout)
    assert len(first) == 4
    bought = first[0]["product_id"]
    second = json.loads(run("recommend", "runs/amoremall", *known, "--purchased", bought, cwd=cwd).stdout)
    assert [one["product_id"] for one in second[:3]] == [one["product_id"] for one in first[1:]]


def test_the_wide_recipe_makes_no_checkpoint(cwd):
    wide = run("torch", "export", "runs/amoremall", "model.pth", cwd=cwd)
    told(wide, "a checkpoint can't hold this model: found popularity_bias (recipe wide)")
    told(wide, "allowed: a model without it, as recsys-jax train DATASET deep makes it")


KNOWN = ["age=32", "gender=F", "skin_type=dry", "skin_concern=moisture"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*KNOWN[:2], "skin_type=dryy", KNOWN[3]], "skin_type: found 'dryy'; allowed: 'dry', 'oily', 'combination'"),
        (["age=-5", *KNOWN[1:]], "age: found '-5'; allowed: a number from 1 to 120"),
        ([*KNOWN, "hair=red"], "found the attribute 'hair'; allowed: 'skin_type', 'skin_concern', 'gender', 'age'"),
        ([*KNOWN, "--top-n", "0"], "top_n: found 0; allowed: a whole number from 1"),
        ([*KNOWN, "--categories", "Shoes"], "categories: found 'Shoes'; allowed: '97'"),
        (["32"], "found '32'; allowed: each attribute once, as NAME=VALUE"),
        ([*KNOWN, "--boosts", "absent.toml"], "absent.toml: there is no such file"),
    ],
)
def test_a_wrong_request_is_one_sentence(cwd, arguments, sentence):
    told(run("recommend", "runs/amoremall", *arguments, cwd=cwd), sentence)


def test_a_request_without_a_run_names_those_there_are(cwd):
    there = ", ".join(sorted(str(path.parent.relative_to(cwd)) for path in cwd.glob("runs/*/model.json")))
    allowed = "allowed: first RUN, the folder with the trained model; under runs/ there are"
    told(run("recommend", *KNOWN, cwd=cwd), f"run: found 'age=32'; {allowed} {there}")


def broken(folder: Path, change) -> Path:
    """A copy of the mall whose products went through `change`."""
    shutil.copytree(MALL, folder)
    products = json.loads((folder / "products.json").read_text("utf-8"))
    changed = change(products)
    text = changed if isinstance(changed, str) else json.dumps(changed, ensure_ascii=False)
    (folder / "products.json").write_text(text, "utf-8")
    return folder


def without(products, column):
    return [{name: value for name, value in row.items() if name != column} for row in products]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: [], "products.json: there are no products in it"),
        (lambda p: [{**row, "reviews": []} for row in p], "there are no reviews in its column 'reviews'"),
        (lambda p: '[{"product_id": 1,', "products.json: not valid JSON: "),
        (lambda p: {"products": p}, "found dict at the top; allowed: a list of objects"),
        (lambda p: [*p, *p], "row 94, product_id: found "),
        (lambda p: without(p, "reviews"), "the column 'reviews' is missing; found: product_id"),
        (lambda p: [{**row, "product_id": ""} for row in p], "row 1, product_id: found ''; allowed: an id"),
    ],
)
def test_broken_products_are_one_sentence(tmp_path, change, sentence):
    folder = broken(tmp_path / "mall", change)
    told(run("personas", folder, "--encoder", "lsa", cwd=tmp_path), sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: [{**row, "purchased_product_id": "nothing"} for row in c],
            "row 1, purchased_product_id: found 'nothing'",
        ),
        (lambda c: [{**row, "age": -3} for row in c], "row 1, age: found -3; allowed: a number from 1 to 120"),
        (lambda c: without(c, "skin_type"), "the column 'skin_type' is missing; found: user_id"),
        (
            lambda c: [*c[:9], *({**row, "skin_type": "greasy"} for row in c[9:])],
            "row 10, skin_type: found 'greasy'; allowed: 'dry'",
        ),
        (lambda c: [*c, *c], "row 278, user_id: found 'user_0001'; allowed: an id that no other row has"),
        (lambda c: [], "there are no customers in it"),
    ],
)
def test_broken_customers_are_one_sentence(cwd, tmp_path, change, sentence):
    customers = json.loads((cwd / "runs" / "amoremall" / "customers.json").read_text("utf-8"))
    (tmp_path / "customers.json").write_text(json.dumps(change(customers)), "utf-8")
    told(run("train", MALL, "--customers", tmp_path / "customers.json", cwd=tmp_path), sentence)


def test_a_broken_customer_is_set_aside_and_listed(cwd, tmp_path):
    customers = json.loads((cwd / "runs" / "amoremall" / "customers.json").read_text("utf-8"))
    customers[1]["age"] = -3
    file = tmp_path / "customers.json"
    file.write_text(json.dumps(customers), "utf-8")
    result = done("train", MALL, *FIXED, "--customers", file, "--run", "out", cwd=tmp_path)
    assert "1 row is not used; why stands in out/set_aside.csv" in result.stdout
    header, row = (tmp_path / "out" / "set_aside.csv").read_text("utf-8").splitlines()
    assert header == "file,row,id,reason"
    assert row.startswith(f"{file},2,{customers[1]['user_id']},age: found -3; allowed: ")


def test_ctrl_c_stops_the_training_and_leaves_a_checkpoint(mall, tmp_path):
    """A process, begun by the door in scripts/."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), str(mall), "deep", "--run", "out"]
    options = ["--epochs", "1000000", "--batch-size", "4"]
    with subprocess.Popen(
        [*command, *options], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("Epoch 100/") for line in lines)  # it is in the midst of the epochs
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    sentence = (
        r"Stopped: saved after epoch [\d,]+ of 1,000,000 in out; this goes on: .* train .* --run out --resume deep .*"
    )
    assert re.fullmatch(sentence, said.splitlines()[-1])
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"checkpoint.safetensors", "run.json"} <= left
    assert left <= {"checkpoint.safetensors", "checkpoint.before.safetensors", "run.json"}


def test_training_before_the_personas_says_what_to_run(tmp_path):
    told(run("train", MALL, cwd=tmp_path), "Run recsys-jax personas ")


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "run").write_text("mine")
    told(run("train", MALL, "--run", "run", cwd=tmp_path), "run: found a file; allowed: a folder, there or not yet")
    told(run("evaluate", MALL, "--run", "run/in/it", cwd=tmp_path), f"{tmp_path}/run: found a file; allowed: a folder")
    assert (tmp_path / "run").read_text() == "mine"
    with pytest.raises(InputError, match=r"/run: found a file; allowed: a folder, there or not yet"):
        write_file(tmp_path / "run" / "model.json", "ours")
    asked = []
    monkeypatch.setattr(os, "access", lambda *question: asked.append(question))  # who may all is never refused
    with pytest.raises(InputError, match="found a folder that may not be written"):
        write_file(tmp_path / "not" / "yet" / "model.json", "ours")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
    assert not (tmp_path / "not").exists()


def test_evaluating_before_training_says_what_is_missing(tmp_path):
    missing = "model.json: there is no such file; recsys-jax train writes it"
    told(run("evaluate", MALL, "--protocol", "in-sample", cwd=tmp_path), missing)
    told(run("evaluate", MALL, cwd=tmp_path), "Run recsys-jax personas")


def test_the_protocols_are_the_splits_by_name():
    assert set(get_args(evaluate.Protocol)) == {"in-sample", *SPLITS}


def test_a_split_is_measured_without_a_trained_run(tmp_path):
    """One step from a folder to a table; where nothing can be told apart, it says so."""
    folder, rng = tmp_path / "shop", np.random.default_rng(0)
    folder.mkdir()
    feature = (
        '{ name = "kind", kind = "categorical", values = "learned", unknown = "extra-row", missing = "extra-row" }'
    )
    (folder / "dataset.toml").write_text(
        'name = "shop"\n'
        f'[products]\nfile = "p.csv"\nid = "id"\nfeatures = [{feature}]\n'
        f'[customers]\nfile = "c.csv"\nid = "id"\npurchases = "bought"\nfeatures = [{feature}]\n'
    )
    products = [f"p{i},k{i % 2}" for i in range(8)]
    (folder / "p.csv").write_text("\n".join(["id,kind", *products]) + "\n")
    customers = [f"c{i},k{rng.integers(2)},p{rng.integers(8)}" for i in range(60)] + ["c60,k0,p99"]
    (folder / "c.csv").write_text("\n".join(["id,kind,bought", *customers]) + "\n")
    plain = done("evaluate", folder, "--protocol", "hold-out", "--k", 3, cwd=tmp_path)
    assert len(plain.stdout.splitlines()) <= 12
    whole = "Next: ", "note: "  # on a pipe each is one line
    assert all(len(line) <= 80 for line in plain.stdout.splitlines() if not line.startswith(whole))
    assert plain.stdout.startswith("note: c.csv: 1 of 61 rows set aside and not used; the first, row 61, bought:")
    assert re.search(r"^Asked: wide, as runs/shop has no model, trained anew in each fold;", plain.stdout, flags=re.M)
    said = " ".join(plain.stdout.split())
    assert re.search(
        r"For customers it has never seen, (it is not sure that )?the model is \w+ than chance: MRR 0\.\d{4}", said
    )
    assert "Nor is it sure that attributes help" in said
    assert re.search(r"^  model  .* MRR 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\)$", plain.stdout, flags=re.M)
    assert re.search(
        r"^  .* \(best\)  MRR 0\.\d{4} \(.*\)  (worse than model|inside the noise|better than model)$",
        plain.stdout,
        flags=re.M,
    )
    assert re.search(
        r"^  chance .* MRR 0\.\d{4} \(.*\)  (worse than model|inside the noise)$", plain.stdout, flags=re.M
    )
    result = done("evaluate", folder, "--protocol", "hold-out", "--k", 3, "--full", cwd=tmp_path)
    assert re.search(r"^naive Bayes +0\.\d{4} ± 0\.\d{4}", result.stdout, flags=re.M)
    assert result.stdout.count("For customers it has never seen") == 1
    assert "The model is not shown to be better than:" in result.stdout
    assert "No clear signal from attributes" in result.stdout
    assert "customers were asked for: intervals from so few" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if " ± " in line or "─" in line)
    out = tmp_path / "runs" / "shop"
    page = (out / "hold-out" / "report.md").read_text("utf-8")
    assert re.search(r"^\| naive Bayes \| 0\.\d{4} ± 0\.\d{4} \|", page, flags=re.M)
    assert re.search(r"^\| per customer \| precision \| recall \| MAP \| NDCG \|$", page, flags=re.M)
    assert re.search(r"^\| naive Bayes( \| 0\.\d{4}){2}( \| 0\.\d{4} ± 0\.\d{4}){2} \|$", page, flags=re.M)
    assert "* No clear signal from attributes" in page
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    names = ("metrics.json", "report.md", "results.csv", "results_by_segment.png")
    assert written == {"report.html", "run.json", "run.toml", "set_aside.csv", *(f"hold-out/{name}" for name in names)}
    assert "* note: " in page
    assert "Asked: wide, as runs/shop has no model" in page
    assert json.loads((out / "hold-out" / "metrics.json").read_text())["split"] == "hold-out"
    assert result.next() == ["train", str(folder)]


def test_a_missing_encoder_names_the_choices(tmp_path):
    told(run("personas", MALL, "--encoder", "no-such-model", cwd=tmp_path), "'lsa'")


def test_a_checkpoint_of_pytorch_gives_its_own_figures_back(cwd, tmp_path):
    customers = cwd / "runs" / "amoremall" / "customers.json"
    checkpoint, torch_run, back = tmp_path / "model.pth", tmp_path / "run", tmp_path / "back.pth"
    trained = done("torch", "train", MALL, checkpoint, "--epochs", 20, cwd=cwd)
    said = {name: float(x) for name, x in re.findall(r"((?:category_)?hit@\d+) (\d\.\d{3})", trained.stdout)}
    assert len(said) == 4
    options = ("--run", torch_run, "--customers", customers)
    imported = done("torch", "import", checkpoint, MALL, *options, cwd=cwd)
    assert imported.next() == ["evaluate", *map(str, (MALL, *options, "--protocol", "in-sample"))]
    done(*imported.next(), cwd=cwd)
    done("torch", "export", torch_run, back, cwd=cwd)
    figures = json.loads((torch_run / "in-sample" / "metrics.json").read_text())["methods"]["model"]
    assert {name: float(f"{figures[name]['all']['mean']:.3f}") for name in said} == said
    # By default it stands beside the run of the dataset, and without its customers nobody can say what it remembers.
    done("torch", "import", back, MALL, cwd=cwd)
    again = cwd / "runs" / "amoremall-torch"
    one, other = (load_file(next(folder.glob("model-*.safetensors"))) for folder in (torch_run, again))
    counted = {"purchases", "popularity/constant", "popularity/of_product"}
    assert {name for name in one if not np.array_equal(one[name], other[name])} == counted
    refused = run("evaluate", MALL, "--run", again, "--protocol", "in-sample", cwd=cwd)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")


def test_purchases_that_come_again_are_told_from_different_ones(films):
    """By hand: ten rows of seven pairs; the last fifth are two rows, of two pairs, both bought before."""
    days = [f"{customer},{film},1970-01-{day:02}" for day, (customer, film) in enumerate(SEEN_AGAIN, 1)]
    (films / "views.csv").write_text("\n".join(["who,what,when", *days, ""]), "utf-8")
    toml = films / "dataset.toml"
    toml.write_text(toml.read_text("utf-8") + 'date = "when"\nrepeat = "allowed"\n', "utf-8")
    done("evaluate", films, "--protocol", "time", "--run", films / "run")
    page = (films / "run" / "time" / "report.md").read_text("utf-8")
    assert "n = 2 of 7 different purchases" in " ".join(page.split())


SEEN_AGAIN = [
    *[("v1", "f1"), ("v1", "f2"), ("v2", "f1"), ("v3", "f3"), ("v3", "f4"), ("v4", "f5"), ("v4", "f1"), ("v1", "f1")],
    *[("v1", "f2"), ("v4", "f5")],
]
