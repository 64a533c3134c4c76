"""`recsys-jax`: finding the command, and saying what there is."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import run, told

from recsys_jax.cli import COMMANDS, find
from recsys_jax.console import terminal
from recsys_jax.console.options import parse

ROOT = Path(__file__).parents[2]


def test_help_lists_each_command_in_a_line():
    for words in ([], ["--help"], ["-h"]):
        result = run(*words)
        assert result.returncode == 0
        listed = re.findall(r"^  (\w+(?: \w+)?)  +\S", result.stdout, flags=re.M)
        assert listed == list(COMMANDS)
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.parametrize("group", ["torch", "dataset"])
def test_the_first_of_two_words_lists_what_may_follow(group):
    result = run(group)
    assert result.returncode == 0
    listed = re.findall(r"^  (\w+ \w+)  +\S", result.stdout, flags=re.M)
    assert listed == [name for name in COMMANDS if name.startswith(group)]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*find([*name.split(), "--help"]))
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: recsys-jax {name} ")


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("recommend runs/mall age=32 --help", "recommend [-h] [OPTIONS] RUN NAME=VALUE"),
        ("score customers.csv -h", "score [-h] [OPTIONS] CUSTOMERS OUT"),
        ("train mall deep --help", "train deep [-h] [DEEP OPTIONS]"),
    ],
)
def test_help_behind_other_words_is_the_same(words, usage, capsys):
    with pytest.raises(SystemExit):
        parse(*find(words.split()))
    assert capsys.readouterr().out.startswith(f"usage: recsys-jax {usage}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trian shop", "command: found 'trian'; allowed: init, run, personas, train, "),
        ("trian shop", "; did you mean 'train'?"),
        ("cluster_personas", "; did you mean 'personas'?"),
        ("torch improt x", "command: found 'torch improt'; allowed: torch import, torch export, torch train; did you"),
        ("qqq", "dataset movielens, benchmark\n"),
        ("report runs/shop", "dataset movielens, benchmark; evaluate writes the report\n"),
    ],
)
def test_an_unknown_command_is_a_sentence(words, sentence):
    result = run(*words.split())
    assert result.returncode == 2
    assert result.stderr.startswith("error: command: found ")
    assert sentence in result.stderr


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert run("--version").stdout == f"recsys-jax {version('recsys_jax')}\n"


def test_as_a_module():
    """A process, whose status of a mistake is 2."""
    module = [sys.executable, "-m", "recsys_jax", "trian"]
    found = subprocess.run(module, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: command: found 'trian'")


def test_each_door_leads_to_its_command(monkeypatch):
    doors = sorted(path for path in (ROOT / "scripts").glob("*.py"))
    reached = []
    monkeypatch.setattr("recsys_jax.cli.main", lambda words: reached.append(words))
    for door in doors:
        monkeypatch.setattr(sys, "argv", [str(door), "--top-n", "3"])
        exec(compile(door.read_text("utf-8"), door, "exec"), {"__name__": "__main__"})
    assert {" ".join(words[:-2]) for words in reached} == set(COMMANDS)
    assert all(words[-2:] == ["--top-n", "3"] for words in reached)
    former = {"cluster_personas", "import_torch", "export_torch", "make_dataset", "convert_movielens", "train_torch"}
    assert {door.stem for door in doors} >= former


def test_a_missing_package_is_a_sentence(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="flax")

    monkeypatch.setattr("recsys_jax.cli.import_module", missing)
    result = run("train", "mall")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: flax is not installed for {sys.executable}. ")


def test_a_benchmark_that_is_not_there_is_a_sentence(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="recsys_jax_benchmark")

    monkeypatch.setattr("recsys_jax.cli.import_module", missing)
    told(run("benchmark"), "error: benchmark is not installed: it is scripts/benchmark in ")


def test_serve_lists_its_options_before_its_extra_is_installed():
    code = "import sys; sys.modules['uvicorn'] = None; from recsys_jax.cli import main; main()"
    helped = subprocess.run([sys.executable, "-c", code, "serve", "--help"], capture_output=True, text=True)
    assert (helped.returncode, "--port" in helped.stdout) == (0, True), helped.stderr
    served = subprocess.run([sys.executable, "-c", code, "serve", "x", "--port", "0"], capture_output=True, text=True)
    assert (served.returncode, served.stderr.count("\n")) == (2, 1)
    assert re.fullmatch(r"error: uvicorn is not installed; \S+ -m pip install 'recsys_jax\[serve\]'\n", served.stderr)


def test_a_missing_package_names_the_extra_that_brings_it():
    """Each extra but `all` and `dev`, by what it has in pyproject.toml; a package of the core needs none."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for package, extra in terminal.EXTRAS.items():
        name = {"faiss": "faiss-cpu"}.get(package, package.replace("_", "-"))
        assert any(re.match(rf"{name}\b", one) for one in extras[extra]), (package, extra)
    for name, command in (
        ("faiss", "'recsys_jax[benchmark]'"),
        ("torch.nn", "'recsys_jax[torch]'"),
        ("rich", "recsys_jax"),
    ):
        said = terminal.not_installed(ModuleNotFoundError(name=name))
        assert said.endswith(f"pip install {command}")


@pytest.mark.parametrize(
    ("files", "on_path", "expected"),
    [
        (["recsys-jax"], True, "recsys-jax"),
        (["recsys-jax"], False, ".venv/bin/recsys-jax"),
        ([], True, "python -m recsys_jax"),
        ([], False, ".venv/bin/python -m recsys_jax"),
    ],
)
def test_the_program_is_named_as_it_can_be_typed_here(tmp_path, monkeypatch, files, on_path, expected):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", *files):
        (folder / name).touch(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder) if on_path else "")
    monkeypatch.chdir(tmp_path)
    assert terminal.program() == expected
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    if not on_path:
        assert terminal.program() == str(folder / expected.removeprefix(".venv/bin/"))


NAMED = [
    *sorted((ROOT / "recsys_jax").rglob("*.py")),
    *sorted((ROOT / "recsys_jax").rglob("*.toml")),
    *sorted((ROOT / "scripts" / "benchmark").rglob("*.py")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "data" / "README.md",
]


def test_every_command_that_is_named_exists():
    """The library names no door of scripts/: it may not be there."""
    named = 0
    for path in NAMED:
        text = path.read_text("utf-8")
        for words in re.findall(r"recsys-jax ([a-z]+(?:[ -][a-z]+)?)", text):
            first = words.split()[0]
            assert first in COMMANDS or (first in ("torch", "dataset") and words in COMMANDS), f"{path}: {words}"
            named += 1
        doors = re.findall(r"scripts/(\w+)\.py", text)
        assert not (doors and "recsys_jax" in path.relative_to(ROOT).parts), f"{path}: {doors}"
        for door in doors:
            assert (ROOT / "scripts" / f"{door}.py").exists(), f"{path}: {door}"
    assert named > 20


def test_every_command_module_is_importable():
    for where, _ in COMMANDS.values():
        module, _, function = where.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
