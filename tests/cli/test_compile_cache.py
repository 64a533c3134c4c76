"""Compiled programs are machine code: kept in a folder of the user's own, and made again where they are damaged."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from recsys_jax.console import terminal

pytestmark = pytest.mark.wild


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where they would be kept; JAX's own settings come back afterwards."""
    before = {name: getattr(jax.config, name) for name in CHANGED}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    yield tmp_path / "recsys_jax" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)


CHANGED = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


def kept() -> str:
    terminal.keep_what_is_compiled()
    return str(jax.config.jax_compilation_cache_dir)


@pytest.mark.parametrize("mode", [None, 0o755, 0o777, 0o770])
def test_the_folder_is_the_users_alone(folder, mode):
    if mode is not None:
        folder.mkdir(parents=True)
        folder.chmod(mode)
    assert kept() == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_not_used(folder, monkeypatch, capsys):
    folder.mkdir(parents=True)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert kept() != str(folder)
    assert "found a folder of another user" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("change", [lambda path: path.write_text(""), lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_folder_is_passed_over(folder, change):
    folder.parent.mkdir()
    change(folder)
    assert kept() != str(folder)


def test_a_damaged_program_goes_and_other_warnings_stay(folder):
    folder.mkdir(parents=True)
    names = ["jit_f-1-cache", "jit_f-2-cache", "jit_fg-1-cache", "jit_g-1-cache"]
    for name in names:
        (folder / name).write_bytes(b"")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept()
        warnings.warn("Error reading persistent compilation cache entry for 'jit_f': bad", stacklevel=1)
        warnings.warn("Something else", stacklevel=1)
    assert sorted(path.name for path in folder.iterdir()) == names[2:]
    assert [str(one.message) for one in caught] == ["Something else"]


PROGRAM = """
import sys
from pathlib import Path
import jax
from recsys_jax.console.terminal import keep_what_is_compiled

keep_what_is_compiled()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
for _ in range(2):
    print(jax.jit(lambda x: x * 3)(2.0))
    for path in Path(sys.argv[1]).rglob("*-cache"):
        print(path.name, path.stat().st_size > 1000)
        path.write_bytes(path.read_bytes()[:100])
    jax.clear_caches()
"""


def test_a_truncated_program_is_replaced_without_a_word(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    first, second = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert first == second
    assert [line.partition(" ")[2] for line in first] == ["", "True"]
    assert "cache" not in done.stderr
    assert Path(tmp_path / "recsys_jax" / "compiled").is_dir()
