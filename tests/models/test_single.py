"""One customer's embedding in NumPy: the tower against the Flax module."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.data.schema import TowerInput
from recsys_jax.models.single import SingleTower
from recsys_jax.models.towers import TwoTower, encode_customers

INPUTS = (
    TowerInput("colour", "categorical", 5),
    TowerInput("tags", "multi-categorical", 7),
    TowerInput("age", "numeric", 1),
    TowerInput("income", "numeric", 2),
)


PATHS = {"deep": {}, "wide": {"wide_dim": 5, "deep": False}, "wide and deep": {"wide_dim": 5}}


def random_variables(model, seed):
    """Every leaf drawn anew, so that no scale is 1 and no bias is 0; variances are positive, knots ascend."""
    one = {"colour": np.zeros(1, np.int32), "tags": np.zeros((1, 3), np.int32)}
    one |= {"age": np.zeros((1, 1), np.float32), "income": np.zeros((1, 2), np.float32)}
    shapes = model.shapes(one, one)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        drawn = rng.uniform(0.1, 1.5, leaf.shape).astype(np.float32) - np.float32(0.05)
        # Radii so small that some customers lie outside the ball, and so large that others lie inside.
        return np.sort(drawn) if "knots" in str(path) else drawn * 8 if "radius" in str(path) else drawn

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("paths", PATHS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 3))
def test_the_tower_is_the_modules(paths, seed, count):
    model = TwoTower(INPUTS, INPUTS, **PATHS[paths])
    variables = random_variables(model, seed)
    rng = np.random.default_rng(seed)
    tags = np.full((1, 3), -1, np.int32)
    tags[0, :count] = rng.permutation(7)[:count]
    row = {
        "colour": rng.integers(0, 5, 1).astype(np.int32),
        "tags": tags,
        "age": rng.normal(size=(1, 1)).astype(np.float32),
        "income": np.array([[rng.normal(), seed % 2]], np.float32),
    }
    tower = SingleTower(INPUTS, variables)
    found, expected = tower(row), np.asarray(encode_customers(model, variables, row)[0])
    meeting = model.wide_dim + (model.output_dim if model.deep else 0)
    np.testing.assert_allclose(found[:meeting], expected[:meeting], atol=1e-6)
    # What brings a vector at the surface of the ball to unit length is the root of a rounding; it meets a zero.
    np.testing.assert_allclose(found, expected, atol=1e-3)
