"""The manuals speak of what exists: every command line parses, every path, name, module and link leads somewhere."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest

import recsys_jax
from recsys_jax import cli
from recsys_jax.config import parse_recipe
from recsys_jax.console.options import Common, parse

ROOT = Path(__file__).parents[1]
DOCS = sorted([ROOT / "README.md", ROOT / "data" / "README.md", *(ROOT / "docs").rglob("*.md")])
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in DOCS}
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def prose(text: str) -> str:
    return FENCED.sub("", text)


def command_lines(text: str) -> list[str]:
    """Lines of a shell, and what stands between backticks and begins like a command, `recsys-jax` before it or not."""
    blocks = [content for language, content in FENCED.findall(text) if language in ("", "sh")]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("recsys-jax ")]
    for span in SPAN.findall(prose(text)):
        words = span.removeprefix("recsys-jax ").split()
        named = words[0] in cli.COMMANDS or " ".join(words[:2]) in cli.COMMANDS
        if span.startswith("recsys-jax ") or (named and any(word.startswith("-") for word in words)):
            lines.append(span)
    return [re.split(r" [#|] ?", line)[0] for line in lines]


def whole(line: str) -> list[str]:
    """The words of a command; what stands for more of the same is left out, and what is optional is given."""
    words = [word.strip("[]") for word in shlex.split(line.removeprefix("recsys-jax "))]
    return [word for word in words if word not in ("...", "…")]


def options_of(name: str) -> type[Common]:
    main, _, _ = cli.find(name.split())
    return get_type_hints(main)["options"]


LINES = sorted({(name, line.strip()) for name, text in TEXT.items() for line in command_lines(text)})
# And what --help shows of each command.
LINES += [("--help", f"recsys-jax {name} {one}") for name in cli.COMMANDS for one in options_of(name).examples]


@pytest.mark.parametrize(("name", "line"), LINES, ids=[line for _, line in LINES])
def test_every_command_line_parses(name, line):
    words = whole(line)
    if words[0] not in ("COMMAND", "--version"):
        main, command, options = cli.find(words)
        if "--config" in options:  # a file that is not here
            place = options.index("--config")
            del options[place : place + 2]
        if options and options[-1] != "--help":  # else it is named, and not called
            parse(main, command, options)


@pytest.mark.parametrize("name", TEXT)
def test_every_file_that_is_named_is_there(name):
    """`recsys_jax/models/losses.py`, `docs/recipes.toml`; in developing.md also `models/losses.py`."""
    inside = [ROOT, ROOT / "scripts" / "benchmark"] + [ROOT / "recsys_jax"] * (name == "docs/developing.md")
    places = r"\w[\w-]*(?:/[\w.-]+)+\.(?:py|toml|txt|md)"
    named = [span for span in SPAN.findall(prose(TEXT[name])) if re.fullmatch(places, span)]
    named = [span for span in named if not span.startswith(("shop/", "runs/")) and "NAME" not in span]
    assert [span for span in named if not any((folder / span).is_file() for folder in inside)] == []


def test_every_name_that_developing_gives_a_file_is_in_it():
    """`NAME` in `PATH`, or `PATH` (`NAME`)."""
    text = TEXT["docs/developing.md"]
    found = re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", text)
    found += [(word, path) for path, word in re.findall(r"`([\w/]+\.py)`\s+\(`(\w+)`", text)]
    assert len(found) > 20
    for word, path in found:
        file = next(folder / path for folder in (ROOT, ROOT / "recsys_jax") if (folder / path).is_file())
        assert re.search(rf"\b{word}\b", file.read_text("utf-8")), (word, path)


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXT)
def test_every_link_leads_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(TEXT[name])):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            path = (ROOT / name).parent / file if file else ROOT / name
            assert path.exists(), link
            assert not anchor or anchor in anchors(path.read_text("utf-8")), link


def test_the_files_that_the_layout_names_are_in_their_rooms():
    tree = TEXT["README.md"].split("## Layout")[1].split("```")[1]
    for line in tree.split("recsys_jax/\n")[1].split("\nscripts/")[0].splitlines():
        first, *said = line.split()
        room = ROOT / "recsys_jax" / (first if first.endswith("/") else ".")
        files = [word for word in (one.strip("(),;") for one in [first, *said]) if word.endswith(".py")]
        assert [file for file in files if not (room / file).is_file()] == [], line


def test_the_recipes_that_docs_compare_are_read():
    for title, table in tomllib.loads((ROOT / "docs" / "recipes.toml").read_text("utf-8")).items():
        parse_recipe(table, title, tell=pytest.fail)


def test_the_site_is_built_without_a_warning_and_has_each_public_name(tmp_path):
    """Also without a request to anywhere when it is read: styles, scripts and pictures are its own."""
    pytest.importorskip("sphinx")
    words = ["--fail-on-warning", "--keep-going", "--conf-dir", "docs/site", "--doctree-dir", f"{tmp_path}/trees"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", *words, ".", f"{tmp_path}/site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    api = (tmp_path / "site" / "docs" / "api.html").read_text("utf-8")
    assert [name for name in recsys_jax.__all__ if f'id="recsys_jax.{name}"' not in api] == []
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.findall(r"""(?:src=|<link[^>]+href=|url\()["']?(?:https?:)?//""", text), page.name


def test_a_warning_in_the_docs_of_a_tag_fails(tmp_path):
    """After those of the other tags were built, and the working tree of each was removed."""
    pytest.importorskip("sphinx")
    (tmp_path / "docs" / "site").mkdir(parents=True)
    (tmp_path / "docs" / "site" / "conf.py").touch()
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    run("git", "init", "--quiet")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for tag, text in {"v1": "Whole\n=====\n", "v2": "Broken\n======\n\n:doc:`nowhere`\n"}.items():
        (tmp_path / "index.rst").write_text(text)
        run("git", "add", ".")
        run("git", *who, "commit", "--quiet", "--message", tag)
        run("git", "tag", tag)
    venv = Path(sys.executable).parent
    built = run("make", "--no-print-directory", "--old-file", ".venv/.dev", f"BIN={venv}", "docs-of-tags")
    assert built.returncode != 0
    assert built.stdout.splitlines()[-1] == "Failed: the docs of v2"
    assert "unknown document" in built.stderr
    assert (tmp_path / "build" / "docs" / "v1" / "index.html").is_file()
    assert not (tmp_path / "build" / "of-tag").exists()
    run("git", "tag", "--delete", "v2")
    assert run("make", "--old-file", ".venv/.dev", f"BIN={venv}", "docs-of-tags").returncode == 0
