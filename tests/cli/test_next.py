"""What a command prints as "Next:" is run, and what that prints, to the end."""

import json
import shlex
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from command_line import done
from conftest import write_mall

from recsys_jax.cli import find
from recsys_jax.console import terminal
from recsys_jax.console.options import parse
from recsys_jax.console.places import made_customers

MALL = Path(__file__).parents[2] / "data" / "amoremall"
# Trains in a moment, and is measured and served like any other.
QUICK = ("deep", "--epochs", 2, "--batch-size", 4)
WIDE = ("wide", "--own-l2", 10, "--attribute-l2", "inf", "--factor-l2", "inf")
FEWER = {"evaluate": ("--folds", 2)}  # than as it is printed: each fold compiles its programs
OTHERS = ("--customers", "other customers.json")
RECIPES = '[quick]\nrecipe = "deep"\nepochs = 2\nbatch_size = 4\n'


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """A folder with two malls, one with a space in its name, and what each command that was run there said is next."""
    cwd = tmp_path_factory.mktemp("shops")
    write_mall(cwd / "mall")
    write_mall(cwd / "our mall")
    toml = cwd / "our mall" / "dataset.toml"
    toml.write_text(toml.read_text().replace('name = "mall"', 'name = "our mall"'))
    shutil.copy(cwd / "mall" / "customers.json", cwd / "other customers.json")
    (cwd / "few.toml").write_text(RECIPES)
    return cwd, {}


def follow(shops, *words):
    """Runs a command and all that follow it: their names. One that was run here before is not run again."""
    cwd, known = shops
    names, command = [], list(map(str, words))
    while command:
        names.append(find(command)[1])
        line = " ".join(command)
        if line not in known:
            result = done(*command, *FEWER.get(names[-1], ()), cwd=cwd)
            assert result.stdout.count("Next: ") <= 1
            known[line] = result.next() if "Next: " in result.stdout else []
        command = known[line]
    return names


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("train", "our mall", *WIDE), "train evaluate recommend"),
        (
            ("train", "mall", *QUICK, "--run", "a run", "--customers", "other customers.json"),
            "train evaluate recommend",
        ),
        (("train", "mall", *QUICK, "--run", "seeds", "--seeds", 2, "--ensemble"), "train evaluate recommend"),
        (("evaluate", "mall", "--run", "a run", "--protocol", "in-sample"), "evaluate recommend"),
        (("evaluate", "mall", "--protocol", "hold-out"), "evaluate train evaluate recommend"),
        (("compare", "mall", "--configs", "few.toml", "--seeds", 1, "--folds", 2), "compare"),
    ],
)
def test_training_and_measuring(shops, words, names):
    assert " ".join(follow(shops, *words)) == names


def test_datasets(tmp_path):
    """After the small mall comes the main job, whose own test follows it on."""
    made = done("dataset", "synthetic", cwd=tmp_path)
    assert made.next() == ["run", "data/amoremall"]
    parse(*find(made.next()))
    toml = tmp_path / "data" / "amoremall" / "dataset.toml"
    toml.write_text(toml.read_text("utf-8").replace('recipe = "deep"', 'recipe = "deep"\nepochs = 2'), "utf-8")
    personas = done("personas", "data/amoremall", "--encoder", "lsa", "--run", "my personas", cwd=tmp_path)
    assert personas.next() == ["train", "data/amoremall", "--run", "my personas"]
    trained = done(*personas.next(), cwd=tmp_path)
    assert trained.next() == ["evaluate", "data/amoremall", "--run", "my personas"]
    population = ("--customers", 60, "--products", 9, "--out", "a population")
    made = done("dataset", "synthetic", *population, cwd=tmp_path)
    assert made.next()[:3] == ["train", "a population", "deep"]
    done(*made.next(), cwd=tmp_path)


def test_checkpoints(tmp_path):
    """Trained in PyTorch, imported with and without its customers, exported."""
    shutil.copytree(MALL, tmp_path / "data" / "amoremall")
    done("personas", "data/amoremall", "--encoder", "lsa", cwd=tmp_path)
    trained = done("torch", "train", "data/amoremall", "a model.pth", "--epochs", 1, cwd=tmp_path)
    imported = done(*trained.next(), cwd=tmp_path)
    measured = done(*imported.next(), cwd=tmp_path)
    done(*measured.next(), cwd=tmp_path)
    anybody = done("torch", "import", "a model.pth", "data/amoremall", "--run", "other run", cwd=tmp_path)
    assert "age=60" in anybody.next()
    assert "product" in done(*anybody.next(), cwd=tmp_path).stdout
    exported = done("torch", "export", "other run", "back.pth", cwd=tmp_path)
    assert exported.next() == ["torch", "import", "back.pth", "data/amoremall"]
    done(*exported.next(), cwd=tmp_path)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    exported = done("torch", "export", "other run", "back.pth", cwd=tmp_path)
    assert "Next: " not in exported.stdout  # where the dataset is, nobody knows


def test_the_benchmark(tmp_path):
    """Of no part; what it names takes an hour, so that it is read and not run."""
    pytest.importorskip("torch")
    benchmark = pytest.importorskip("recsys_jax_benchmark.main")
    for threads in {1, len(benchmark.processors())}:
        then = benchmark.main(benchmark.Options(parts=(), threads=threads, out=tmp_path / "figures.json"))
        parse(*find(shlex.split(then)))


def test_the_main_job_elsewhere(tmp_path, monkeypatch):
    """What follows finds the customers that were made there, and knows what they were made of."""
    monkeypatch.setattr("recsys_jax.cli.run._evaluated", lambda *anything: ([], True))
    made = done("run", "--encoder", "lsa", "--epochs", 2, "--run", "else where", cwd=tmp_path)
    customers = Path("else where") / "customers.json"
    run = ["--run", "else where-wide", "--customers", str(customers)]
    assert made.next()[:2] == ["recommend", "else where"]
    assert "product" in done(*made.next(), cwd=tmp_path).stdout
    second = made.stdout.splitlines()[-2].partition("The other recipe beside this one: ")[2]
    words = shlex.split(second)[len(shlex.split(terminal.program())) :]
    assert words == ["train", "data/amoremall", *run, "wide"]
    trained = done(*words, *WIDE[1:], cwd=tmp_path)
    assert trained.next() == ["evaluate", "data/amoremall", *run]
    with chdir(tmp_path):
        assert made_customers(Path("data/amoremall"), Path("else where-wide"), customers) == customers
        shutil.copy(customers, "others.json")
        assert made_customers(Path("data/amoremall"), None, Path("others.json")) is None


@pytest.mark.parametrize(("count", "then"), [(4, "evaluate --folds 4"), (2, "evaluate --folds 2"), (1, "recommend")])
def test_few_customers(tmp_path, count, then):
    """Fewer than the folds that are usual."""
    customers = write_mall(tmp_path / "mall") / "customers.json"
    customers.write_text(json.dumps(json.loads(customers.read_text("utf-8"))[:count]), "utf-8")
    trained = done("train", "mall", *WIDE, cwd=tmp_path)
    command = trained.next()
    assert command[0] == then.split()[0]
    assert command[2:] == then.split()[1:] or then == "recommend"
    done(*command, cwd=tmp_path)
