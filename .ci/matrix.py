"""The tests on each Python there is, with the pinned versions and with the newest: python .ci/matrix.py [TESTS ...].

A line for each environment. Without TESTS, all that the gate runs; those that need PyTorch, Faiss or
sentence-transformers, which are not installed here, are skipped and say so: `make test` has them. The environments stay
in .venv-matrix/.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from shutil import which
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHONS = "3.11", "3.12", "3.13"
# The doctests of scripts/benchmark need PyTorch.
TESTS = "tests", "recsys_jax"
# What the tests use beside the package itself.
TOOLS = "beartype", "hypothesis", "optuna", "pandas", "pyarrow", "pytest", "pytest-xdist", "setuptools", "uvicorn"
SHOWN = "jax", "flax", "numpy"
SAID: dict[str, Any] = {"capture_output": True, "text": True, "check": False}


def interpreters() -> dict[str, str]:
    """The path of each Python: pyenv's newest of that version, or the one on the PATH."""
    found = {}
    for version in PYTHONS:
        pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        if path := str(pyenv[-1]) if pyenv else which(f"python{version}"):
            found[version] = path
    return found


def run(version: str, python: str, newest: bool, tests: list[str]) -> bool:
    """Makes the environment, runs the tests in it, prints the line; whether none failed."""
    name = f"{version}, {'newest' if newest else 'pinned'}"
    home = ROOT / ".venv-matrix" / name.replace(", ", "-")
    own = str(home / "bin" / "python")
    if not Path(own).exists():
        subprocess.run([python, "-m", "venv", str(home)], check=True)
    words = [own, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--upgrade"]
    words += [*([] if newest else ["--constraint", str(ROOT / "constraints.txt")]), "--editable", str(ROOT), *TOOLS]
    installed = subprocess.run(words, **SAID)
    if installed.returncode:
        print(f"{name}: cannot be installed: {installed.stderr.strip().splitlines()[-1]}", flush=True)
        return False
    # As the Makefile: from the folder above, Python would take a clone called recsys_jax for the package.
    (next(home.glob("lib/python*/site-packages")) / "recsys_jax.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    frozen = subprocess.run([own, "-m", "pip", "freeze"], **SAID).stdout
    versions = dict(re.findall(r"^([\w-]+)==(\S+)$", frozen, flags=re.M))
    began = time.monotonic()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    workers = str(min(os.cpu_count() or 1, 4))
    words = [own, "-m", "pytest", "--quiet", "--numprocesses", workers, "--dist", "worksteal", *tests]
    tested = subprocess.run(words, cwd=ROOT, env=environment, **SAID)
    (home / "tests.log").write_text(tested.stdout + tested.stderr, encoding="utf-8")
    last = next((line for line in reversed(tested.stdout.splitlines()) if " in " in line), "no tests ran")
    counts = ", ".join(f"{n} {word}" for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last))
    shown = ", ".join(f"{package} {versions[package]}" for package in SHOWN)
    print(f"Python {name}: {shown}: {counts or last}, {time.monotonic() - began:.0f} s", flush=True)
    lacking = re.findall(r"SKIPPED.*: (\w+ is not installed here|could not import '\w+')", tested.stdout)
    for reason in sorted(set(lacking)):
        print(f"  skipped: {reason}", flush=True)
    if tested.returncode:
        print(f"  see {home.relative_to(ROOT) / 'tests.log'}", flush=True)
    return tested.returncode == 0


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(TESTS)
    print(f"tests: {' '.join(chosen)}", flush=True)
    good = [
        run(version, python, newest, chosen) for version, python in interpreters().items() for newest in (False, True)
    ]
    sys.exit(not all(good))
