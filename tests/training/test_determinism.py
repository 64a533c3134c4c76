"""The same seed on the same machine gives the same bytes, whatever the process, the folder and the cache."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MALL = ROOT / "data" / "amoremall"


def written(folder: Path) -> dict[str, bytes]:
    """The content of each file below the folder, but for run.json, which says where from there the dataset lies.

    And but for the time in a page.
    """
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): re.sub(b"<time .*?</time>", b"", path.read_bytes()) for path in found}


def run(cwd: Path, cache: Path, hash_seed: int, *commands: tuple[object, ...]) -> None:
    """Runs commands in a process of their own; sets and hashes of texts have another order with each hash seed."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    lines = [f"main({list(map(str, command))})" for command in commands]
    code = "; ".join(["from recsys_jax.cli import main", *lines])
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr


def test_two_processes_write_the_same_bytes(tmp_path):
    """Personas, customers and both recipes. The first compiles its programs, the second finds them in the cache."""
    found = []
    for number, place in enumerate(("here", "some/where else"), 1):
        cwd = tmp_path / place
        cwd.mkdir(parents=True)
        deep = ("deep", "--epochs", 20, "--run", "runs/deep", "--customers", "runs/a/customers.json")
        personas = ("personas", MALL, "--encoder", "lsa", "--run", "runs/a")
        wide = ("train", MALL, "wide", "--run", "runs/a")
        run(cwd, tmp_path / "cache", number, personas, wide, ("train", MALL, *deep))
        found.append(written(cwd))
    assert list((tmp_path / "cache").rglob("*-cache"))  # there was something to find
    assert {Path(name).name for name in found[0]} >= {"customers.json", "arrays.npz", "model.json", "loss.csv"}
    assert sum(name.endswith(".safetensors") for name in found[0]) == 2
    assert found[0] == found[1]


@pytest.mark.slow(reason="the main job four times, each compiled anew")
@pytest.mark.parametrize("recipe", ["wide", "deep"])
def test_the_main_job_writes_the_same_bytes(recipe, tmp_path):
    """With its evaluations and pictures, each time compiled anew."""
    found = []
    for number in (1, 2):
        cwd = tmp_path / str(number)
        cwd.mkdir()
        run(cwd, tmp_path / f"cache {number}", number, ("run", MALL, "--recipe", recipe))
        found.append(written(cwd))
    endings = {Path(name).suffix for name in found[0]}
    assert endings == {".csv", ".html", ".json", ".md", ".npz", ".png", ".safetensors", ".toml"}
    assert found[0] == found[1]
