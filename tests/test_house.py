"""The house stays small enough to know: rooms of few modules, modules of few lines, tests in the same rooms."""

import ast
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from recsys_jax.evaluation.bootstrap import or_none
from recsys_jax.models.metrics import ranks

ROOT = Path(__file__).parents[1]
SOURCES = [path for top in ("recsys_jax", "scripts") for path in sorted((ROOT / top).rglob("*.py"))]
ROOMS = sorted({path.parent for path in SOURCES} - {ROOT / "scripts"})


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_a_room_has_at_most_eight_modules(room):
    modules = {path.name for path in SOURCES if path.parent == room} - {"__init__.py", "__main__.py"}
    assert len(modules) <= 8, sorted(modules)


def test_no_module_is_longer_than_400_lines():
    lengths = {name(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert not {path: length for path, length in lengths.items() if length > 400}


def test_the_doorstep_is_swept():
    doorstep = {path.name for path in SOURCES if path.parent == ROOT / "recsys_jax"}
    assert doorstep == {"__init__.py", "__main__.py", "config.py", "errors.py", "stopping.py"}


def test_the_tests_have_the_same_rooms():
    tests = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert tests <= {room.name for room in ROOMS} | {"benchmark"}


def test_readme_and_the_contract_name_each_room_in_the_same_order():
    """README's tree, the layers of import-linter (read from below) and the folders themselves."""
    tree = (ROOT / "README.md").read_text("utf-8").partition("## Layout")[2].partition("scripts/")[0]
    told = re.findall(r"^  (\w+)/ +\S", tree, flags=re.M)
    [contract] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    assert contract["layers"][::-1] == ["errors", "stopping", "config", *told]
    assert {room.name for room in ROOMS if room.parent == ROOT / "recsys_jax"} == set(told)


@pytest.mark.parametrize("path", sorted((ROOT / "recsys_jax" / "cli").rglob("*.py")), ids=name)
def test_commands_share_what_is_in_other_rooms(path):
    """None imports another, but for `run`, which runs them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [alias.name for alias in node.names]
            modules = [f"{node.module}.{one}" for one in names] if isinstance(node, ast.ImportFrom) else names
            found |= {module for module in modules if module.startswith("recsys_jax.cli")}
    assert found <= ({"recsys_jax.cli.personas", "recsys_jax.cli.train"} if path.stem == "run" else set())


def test_each_longer_proof_has_its_reason_and_stands_in_the_manual():
    sources = {name(path): path.read_text("utf-8") for path in sorted((ROOT / "tests").glob("*/test_*.py"))}
    marked = {path: text.count("pytest.mark.slow") for path, text in sources.items() if "pytest.mark.slow" in text}
    assert marked == {path: len(re.findall(r'pytest\.mark\.slow\(\s*reason="\w', sources[path])) for path in marked}
    manual = (ROOT / "docs" / "developing.md").read_text("utf-8").partition("### What `make prove` runs")[2]
    assert re.findall(r"^\| `(tests/\S+)`", manual.partition("## ")[0], flags=re.M) == list(marked)


def test_types_and_shapes_are_checked_while_the_tests_run():
    with pytest.raises(BeartypeCallHintViolation, match="or_none"):
        or_none("0.5")
    with pytest.raises(TypeCheckError, match="targets"):
        ranks(np.zeros((2, 3)), np.zeros(1, int))
