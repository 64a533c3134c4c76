"""What `import recsys_jax` brings and costs."""

import re
import subprocess
import sys
import tomllib
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
    """The best of several: another process on the machine can only make it slower."""
    code = "import time; import jax; t = time.perf_counter(); import recsys_jax; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(5)) < 0.3


def test_serving_needs_no_training():
    loaded = python("import sys, recsys_jax.serving.recommender; print('optax' in sys.modules)")
    assert loaded.strip() == "False"


def test_everything_public_exists_and_says_what_it_is():
    for name in recsys_jax.__all__:
        assert getattr(recsys_jax, name).__doc__


def pins() -> dict[str, str]:
    """The version of each package of constraints.txt, where every line that is no comment pins one."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    found = dict(line.split("==") for line in lines)
    assert len(found) == len(lines) > 90
    return found


def test_every_pin_and_the_torch_that_was_asked_for():
    """The constraints pin each requirement of pyproject.toml, and each to one version."""
    assert pins()["torch"] == "2.13.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[<>=\[]", line)[0] for line in wanted} - {"recsys_jax"}
    assert len(names) > 15
    assert names <= set(pins())


def test_every_pin_but_torchs_has_its_hashes():
    """requirements.txt, which is installed first, has each version of constraints.txt, with hashes of wheels alone."""
    options, *packages = re.split(r"\n(?=\w)", (ROOT / "requirements.txt").read_text())
    assert "--only-binary :all:" in options
    hashed = {}
    for package in packages:
        pin, *hashes = package.rstrip().split(" \\\n    --hash=sha256:")
        name, version = pin.split("==")
        hashed[name] = version
        assert hashes
        assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes)

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    expected = {plain(name): version for name, version in pins().items() if name != "torch"}
    assert hashed == expected


def test_every_pin_has_its_licence_told():
    rows = re.findall(r"^\| (\S+) \| (\d\S*) \| (\S.*) \|$", (ROOT / "docs" / "licences.md").read_text(), flags=re.M)
    assert [(name, version) for name, version, _ in rows] == list(pins().items())
