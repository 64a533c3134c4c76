"""What `import recsys_jax` brings and costs."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import recsys_jax

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_import_is_light():
    heavy = "torch", "sentence_transformers", "sklearn", "scipy", "matplotlib", "pandas", "pyarrow", "transformers"
    loaded = python(f"import sys, recsys_jax; print([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_the_import_costs_at_most_0_3_s_beyond_jax():
    """One of several: another process on the machine can only make it slower."""
    code = "import time; import jax; t = time.perf_counter(); import recsys_jax; print(time.perf_counter() - t)"
    assert any(float(python(code)) < 0.3 for _ in range(5))


def test_serving_needs_no_training():
    loaded = python("import sys, recsys_jax.serving.recommender; print('optax' in sys.modules)")
    assert loaded.strip() == "False"


def test_everything_public_exists_and_says_what_it_is():
    for name in recsys_jax.__all__:
        assert getattr(recsys_jax, name).__doc__


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """The version of each package of constraints.txt, where every line that is no comment pins one."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    found = dict(line.split("==") for line in lines)
    assert len(found) == len(lines) > 90
    return found


def hashed(file: str) -> dict[str, str]:
    """The version of each package of a requirements file, which has hashes, of wheels alone, for each."""
    options, *packages = re.split(r"\n(?=\w)", (ROOT / file).read_text())
    assert "--only-binary :all:" in options
    found = {}
    for package in packages:
        pin, *hashes = package.rstrip().split(" \\\n    --hash=sha256:")
        name, version = pin.split("==")
        found[name] = version
        assert hashes
        assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes)
    return found


def wanted(*requirements: str) -> set[str]:
    return {plain(re.split(r"[<>=!\[]", line)[0]) for line in requirements} - {"recsys-jax"}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_pin_and_the_torch_that_was_asked_for():
    """The constraints pin each requirement of pyproject.toml, and each to one version."""
    assert pins()["torch"] == "2.13.0"
    names = wanted(*PROJECT["dependencies"], *(x for extra in PROJECT["optional-dependencies"].values() for x in extra))
    assert len(names) > 15
    assert names <= set(pins())


def test_every_pin_but_torchs_has_its_hashes():
    """requirements.txt and requirements-dev.txt, installed one after the other, are constraints.txt with hashes."""
    run, rest = hashed("requirements.txt"), hashed("requirements-dev.txt")
    assert not set(run) & set(rest)
    assert run | rest == {name: version for name, version in pins().items() if name != "torch"}


def test_the_main_job_needs_little():
    """`make run` installs what the core asks for, and what that asks for; of the heavy packages none."""
    run = hashed("requirements.txt")
    assert wanted(*PROJECT["dependencies"]) < set(run)
    assert not {"torch", "transformers", "sentence-transformers", "pandas", "pyarrow", "faiss-cpu", "sympy"} & set(run)
    needed, todo = {"setuptools"}, list(wanted(*PROJECT["dependencies"]))
    while todo:
        if (name := todo.pop()) not in needed and name in pins():  # what it isn't, other systems need
            needed.add(name)
            asked = [line for line in metadata.requires(name) or [] if "extra ==" not in line]
            todo += [plain(re.match(r"[\w.-]+", line)[0]) for line in asked]
    assert set(run) <= needed | {"fsspec", "zipp"}  # what etils asks for by extras


def test_every_pin_has_its_licence_told():
    rows = re.findall(r"^\| (\S+) \| (\d\S*) \| (\S.*) \|$", (ROOT / "docs" / "licences.md").read_text(), flags=re.M)
    assert [(name, version) for name, version, _ in rows] == list(pins().items())


def test_a_folder_called_as_the_package_is_not_taken_for_it(tmp_path):
    """As from the folder above a clone."""
    (tmp_path / "recsys_jax").mkdir()
    code = "from recsys_jax import Recommender; print(Recommender.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "Recommender"
