"""Pictures of names that a shop may give, and that matplotlib would read as something else."""

import numpy as np
import pytest
from matplotlib.image import imread

from recsys_jax import load_dataset
from recsys_jax.evaluation.plots import embedding_space, persona_distribution

pytestmark = pytest.mark.wild

NAMES = ["$$", "$x^$", r"$\frac{a}$", "a_b$c$", "_dry", "%s {0} \\"]


def test_names_of_personas_are_no_formulas(tmp_path):
    persona_distribution(tmp_path / "a.png", NAMES, range(len(NAMES)))
    persona_distribution(tmp_path / "b.png", ["$a$", "b"], [1, 1])
    persona_distribution(tmp_path / "c.png", ["a", "b"], [1, 1])
    assert not np.array_equal(imread(tmp_path / "b.png"), imread(tmp_path / "c.png"))


def test_names_of_segments_and_categories_are_no_formulas(mall, mall_model, tmp_path):
    for file, column in (("customers.json", "persona_name"), ("dataset.toml", "")):
        text = (mall / file).read_text("utf-8")
        for old, new in zip(("Dew", "Gold", "Gift", "Skincare", "Makeup"), NAMES, strict=False):
            text = text.replace(f'"{old}"', f'"{new}"' if column else f"'{new}'")
        (mall / file).write_text(text.replace("\\", "\\\\") if column else text, "utf-8")
    embedding_space(tmp_path / "a.png", mall_model, load_dataset(mall), seed=0)
