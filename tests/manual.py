"""Runs the blocks of the manuals: Python and bash, whose commands run within the tests' process."""

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from command_line import Result
from command_line import run as in_process

from recsys_jax import Schema, cli
from recsys_jax.config import parse_recipe
from recsys_jax.console.options import parse

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\S+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "data").rglob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if "```" in path.read_text("utf-8")
)
# Commands that are not run as they stand, only parsed: what is run instead, and why.
INSTEAD = {
    "run": ("", "tests/cli/test_main_job.py runs it whole, which takes long"),
    "run --language ko": ("", "likewise; tests/report/test_page.py has pages in Korean"),
    "run shop --language ko": ("train shop", "likewise; README's `run shop` runs it whole, on a small shop"),
    "init products.csv reviews.csv --out shop": (
        "init products.csv reviews.csv --out shop-of-reviews",
        "it is for another shop than the line before it",
    ),
    "serve runs/amoremall": ("", "tests/test_manuals.py asks it all that its manual says"),
    "compare DATASET --protocol hold-out --tune 20 --peers lightfm rectools": (
        "compare DATASET --protocol hold-out --tune 1 --seeds 1",
        "environments for peers come from PyPI, and twenty trials take long",
    ),
}
# What is added to commands, so that they are quick, unless they say it themselves.
QUICK = {
    "run": {"--epochs": "20"},
    "evaluate": {"--folds": "2"},
    "compare": {"--folds": "2", "--seeds": "1"},
}
# Blocks that are neither run nor read by what they are for, but by a test: its name.
TESTS = {
    ("README.md", "text"): "test_the_files_that_the_layout_names_are_in_their_rooms",
    ("docs/api.md", "{eval-rst}"): "test_the_site_is_built_without_a_warning_and_has_each_public_name",
    ("docs/datasets.md", "json"): "test_the_manual_of_datasets",
    ("docs/datasets.md", "text"): "test_the_manual_of_datasets",
    ("docs/evaluation.md", "text"): "test_the_manual_of_evaluation",
    ("docs/personas.md", "json"): "test_the_review_that_the_manual_shows_states_what_it_seems_to",
    ("docs/personas.md", "text"): "test_the_example_of_the_manual_finds_who_wrote",
    ("docs/serving.md", "json"): "test_the_manual_of_the_service",
    ("docs/serving.md", "js"): "test_the_javascript_asks_the_service",
    ("docs/serving.md", "nginx"): "test_nginx_passes_requests_on",
    ("docs/serving.md", "dockerfile"): "test_the_container_file_says_what_is_so",
    ("docs/site/contents.md", "{toctree}"): "test_the_site_is_built_without_a_warning_and_has_each_public_name",
}


class Block(NamedTuple):
    """What stands between two fences: ```LANGUAGE NAME; one with a name is the file of that name."""

    language: str
    name: str
    text: str


def blocks(page: str, language: str | None = None) -> list[Block]:
    """Those of a page or a notebook, in their order; all, or of one language."""
    text = (ROOT / page).read_text("utf-8")
    if page.endswith(".ipynb"):
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return [Block("python", "", "".join(cell["source"])) for cell in cells]
    found = [Block(*one) for one in FENCE.findall(text)]
    assert len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)) / 2, page  # none is overlooked
    return [one for one in found if language in (None, one.language)]


def files(page: str) -> dict[str, str]:
    """The blocks that are files, by their names."""
    return {one.name: one.text for one in blocks(page) if one.name}


# What a program of the shell does: it hands its words and its folder on, and gives back what comes.
CLIENT = """\
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({address!r})
    asked.sendall(json.dumps([os.getcwd(), os.path.basename(sys.argv[0]), *sys.argv[1:]]).encode())
    asked.shutdown(socket.SHUT_WR)
    status, out, err = json.load(asked.makefile(encoding="utf-8"))
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""

Program = Callable[[Path, list[str]], Result]


@contextmanager
def serving(folder: Path, words: list[str]) -> Iterator[str]:
    """The address of `recsys-jax WORDS` at a free port, until it is told to end; then it has ended well."""
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "recsys_jax", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
    assert process.returncode == 0


def command(folder: Path, words: list[str]) -> Result:
    """`recsys-jax WORDS`, quickly."""
    smaller, _ = INSTEAD.get(" ".join(words), (" ".join(words), ""))
    if smaller != " ".join(words):
        parse(*cli.find(words))
        words = smaller.split()
    if words[:1] == ["serve"]:
        with serving(folder, words) as address, urlopen(f"{address}/health") as answer:
            return Result(0, answer.read().decode(), "")
    added = [word for pair in QUICK.get(" ".join(words[:1]), {}).items() if pair[0] not in words for word in pair]
    return in_process(*words, *added, cwd=folder) if words else Result(0, "", "")


def make(folder: Path, words: list[str]) -> Result:
    """`make`, which says what it would do."""
    done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def pip(folder: Path, words: list[str]) -> Result:
    """Installs nothing, and fails where it is no wheel of this version and not the project, with extras that it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = re.fullmatch(r"install (--no-cache-dir )?(.*/)?([^/\[]+)(?:\[(.+)\])?", " ".join(words))
    right = found and found[3] in ("recsys_jax", f"recsys_jax-{project['version']}-py3-none-any.whl")
    right = right and set((found[4] or "serve").split(",")) <= set(project["optional-dependencies"])
    return Result(int(not right), "", "" if right else f"pip {words}")


PROGRAMS: dict[str, Program] = {"recsys-jax": command, "make": make, "pip": pip}


@contextmanager
def bash(programs: dict[str, Program]) -> Iterator[Callable[[str, Path], Result]]:
    """A function that runs lines by bash in a folder until one fails; `programs` are functions of folder and words."""
    if shutil.which("bash") is None or not hasattr(socket, "AF_UNIX"):
        pytest.skip("bash is not installed here")
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listening:
        address = f"{place}/address"
        listening.bind(address)
        listening.listen()
        listening.settimeout(0.02)
        for name in programs:
            client = Path(place, name)
            client.write_text(f"#!{sys.executable} -IS\n{CLIENT.format(address=address)}", "utf-8")
            client.chmod(0o755)

        def answer() -> None:
            try:
                asked, _ = listening.accept()
            except TimeoutError:
                return
            with asked:
                asked.settimeout(None)
                with asked.makefile(encoding="utf-8") as stream:
                    folder, name, *words = json.load(stream)
                asked.sendall(json.dumps(programs[name](Path(folder), words)).encode())

        def run(lines: str, folder: Path) -> Result:
            # So that .venv/bin/recsys-jax is found as well.
            (folder / ".venv").mkdir(exist_ok=True)
            (folder / ".venv" / "bin").unlink(missing_ok=True)
            (folder / ".venv" / "bin").symlink_to(place)
            with (
                tempfile.TemporaryFile("w+", encoding="utf-8") as out,
                tempfile.TemporaryFile("w+", encoding="utf-8") as err,
                subprocess.Popen(
                    ["bash", "-euo", "pipefail", "-c", f'PATH={place}:"$PATH"\n{lines}'],
                    cwd=folder,
                    stdout=out,
                    stderr=err,
                ) as process,
            ):
                while process.poll() is None:
                    answer()
                out.seek(0)
                err.seek(0)
                return Result(process.returncode, out.read(), err.read())

        yield run


def read_toml(text: str) -> None:
    """By what reads it: recipes, or a part of a dataset.toml, whose rest is made up."""
    document = tomllib.loads(text)
    for title, table in document.items():
        if "recipe" in table:
            parse_recipe(table, title, tell=pytest.fail)
        elif title not in ("products", "customers"):
            pytest.fail(f"nothing reads [{title}]")
    feature = {"name": "x", "kind": "numeric", "unknown": "error", "missing": "error"}
    sides = {
        side: {"file": "file.csv", "id": "id", "features": [feature], **document.get(side, {})}
        for side in ("products", "customers")
    }
    bought = {"interactions": {"file": "file.csv", "customer": "customer", "product": "product"}}
    Schema.parse({"name": "snippet", **sides, **({} if "purchases" in sides["customers"] else bought)}, "snippet")


class Ran(NamedTuple):
    """What the blocks of a page printed, one after the other, and the names that Python has after them."""

    said: list[str]
    names: dict[str, Any]


def run_page(page: str, folder: Path, *, files_in: str = ".", named: Mapping[str, str] = {}, **more: Program) -> Ran:
    """Runs the blocks of a page in a folder, in their order.

    Those with a name are written into `files_in`; in the lines of a shell, `named` replaces what stands for a name.
    """
    said, names = [], {"__name__": "__main__"}
    with bash({**PROGRAMS, **more}) as shell:
        for number, block in enumerate(blocks(page), 1):
            where = f"{page}, block {number}"
            if block.name:
                (folder / files_in / block.name).write_text(block.text, "utf-8")
            elif block.language == "sh":
                text = block.text
                for word, value in named.items():
                    text = text.replace(word, value)
                result = shell(text, folder)
                assert result.returncode == 0, f"{where}: {result.stderr}\n{text}"
                said.append(result.stdout)
            elif block.language == "python":
                with chdir(folder), redirect_stdout(StringIO()) as out:
                    exec(compile(block.text, where, "exec"), names)
                said.append(out.getvalue())
            elif block.language == "toml":
                read_toml(block.text)
            else:
                assert (page, block.language) in TESTS, f"{where}: nothing runs it, and no test is named"
    return Ran(said, names)
