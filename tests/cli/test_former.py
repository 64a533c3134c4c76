"""Former names in a run or a dataset are told in a line by every command that reads them."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import done, run

from recsys_jax import WideConfig, load_dataset

FORMER = Path(__file__).parents[1] / "storage" / "former"
CUSTOMER = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
KNOWN = [f"{name}={value}" for name, value in CUSTOMER.items()]


def told_once(said: str) -> bool:
    lines = [line for line in said.splitlines() if "towers is now called deep" in line]
    return len(lines) == 1 and lines[0].startswith("note: ")


@pytest.mark.parametrize("name", ["format-3-deep", "format-4-deep"])
def test_a_former_run(name, mall, tmp_path):
    former = Path(shutil.copytree(FORMER / name, tmp_path / "run"))
    pq.write_table(pa.Table.from_pylist([{"user_id": "c1", **CUSTOMER}]), tmp_path / "in.parquet")
    recommended = done("recommend", "run", *KNOWN, "--json", cwd=tmp_path)
    assert told_once(recommended.stderr)
    assert json.loads(recommended.stdout)
    assert told_once(done("score", "in.parquet", "out.parquet", "--run", "run", cwd=tmp_path).stdout)
    assert told_once(done("torch", "export", "run", "model.pth", cwd=tmp_path).stderr)
    assert told_once(run("evaluate", mall, "--run", former, "--protocol", "in-sample", cwd=tmp_path).stderr)


def test_a_former_recipe_in_a_dataset(mall, tmp_path):
    with (mall / "dataset.toml").open("a") as file:
        file.write('\n[training]\nrecipe = "linear"\nown_penalty = 10\nattribute_l2 = "inf"\nfactor_l2 = "inf"\n')
    dataset = load_dataset(mall)
    assert dataset.schema.training == WideConfig(own_l2=10.0, attribute_l2=float("inf"), factor_l2=float("inf"))
    said = done("train", mall, cwd=tmp_path).stdout
    [line] = [line for line in said.splitlines() if "is now called" in line]
    assert line.startswith(
        f"note: {mall}/dataset.toml, [training]: linear is now called wide, own_penalty is now called"
    )
