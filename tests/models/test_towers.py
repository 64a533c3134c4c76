"""The towers: widths, batch normalisation as PyTorch does it, padding, degenerate input."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recsys_jax.data.schema import TowerInput
from recsys_jax.models.towers import (
    BatchNorm,
    DeepPath,
    Tower,
    TwoTower,
    _shapes,
    encode_customers,
    encode_products,
    initial_variables,
)

CUSTOMER = (
    TowerInput("skin_type", "categorical", 5),
    TowerInput("skin_concern", "categorical", 6),
    TowerInput("gender", "categorical", 2),
    TowerInput("age", "numeric", 1),
)
PRODUCT = (
    TowerInput("category", "categorical", 5),
    TowerInput("brand", "categorical", 19),
    TowerInput("price", "numeric", 1),
)


def init(module, *args, key=0, **kwargs):
    """What `module.init` gives, as one program: op by op, most of the time would be compilation."""
    return jax.jit(partial(module.init, **kwargs))(jax.random.key(key), *args)


def rows(inputs, n, seed=0):
    rng = np.random.default_rng(seed)
    out = {}
    for name, kind, size in inputs:
        if kind == "categorical":
            out[name] = jnp.asarray(rng.integers(0, size, n), jnp.int32)
        else:
            out[name] = jnp.asarray(rng.random((n, size)), jnp.float32)
    return out


def deep(*inputs, embedding_dim=16, hidden_dim=64, output_dim=32):
    """A tower that has the deep path alone."""
    return Tower(DeepPath(inputs, embedding_dim, hidden_dim, output_dim, dropout=0.2))


@pytest.fixture(scope="module")
def model():
    return TwoTower(CUSTOMER, PRODUCT)


@pytest.fixture(scope="module")
def variables(model):
    return init(model, rows(CUSTOMER, 1), rows(PRODUCT, 1))


def test_the_towers_of_the_mall(variables):
    shapes = jax.tree.map(jnp.shape, variables["params"])
    customer, product = shapes["customer"]["deep"], shapes["product"]["deep"]
    assert customer["hidden"]["kernel"] == (49, 64)  # 3 x 16 + 1
    assert product["hidden"]["kernel"] == (33, 64)  # 2 x 16 + 1
    assert customer["output"]["kernel"] == product["output"]["kernel"] == (64, 32)
    assert customer["skin_type_emb"] == (5, 16)
    assert product["brand_emb"] == (19, 16)
    assert customer["norm"] == {"scale": (64,), "bias": (64,)}


def test_initial_values_are_pytorchs():
    """Embeddings from N(0, 1); Linear weights and biases uniform within 1 / sqrt(inputs)."""
    inputs = TowerInput("brand", "categorical", 4000), TowerInput("price", "numeric", 9)
    params = init(deep(*inputs, hidden_dim=512), rows(inputs, 1), key=1)["params"]["deep"]
    table = np.asarray(params["brand_emb"])
    assert abs(table.mean()) < 0.02
    assert abs(table.std() - 1) < 0.02
    bound = 1 / np.sqrt(16 + 9)
    for name in ("kernel", "bias"):
        values = np.asarray(params["hidden"][name])
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.98 * bound
        assert abs(values.std() - bound / np.sqrt(3)) < 0.05 * bound


def test_unit_length(model, variables):
    for vectors in (
        encode_customers(model, variables, rows(CUSTOMER, 40)),
        encode_products(model, variables, rows(PRODUCT, 40)),
    ):
        assert vectors.shape == (40, 32)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_either_tower_alone_is_the_pair(model, variables):
    c, p = rows(CUSTOMER, 7), rows(PRODUCT, 9)
    both = jax.jit(model.apply)(variables, c, p)
    np.testing.assert_allclose(both[0], encode_customers(model, variables, c), atol=1e-6)
    np.testing.assert_allclose(both[1], encode_products(model, variables, p), atol=1e-6)


@pytest.mark.parametrize("n", [32, 21, 2])
def test_batch_norm_is_pytorchs(n):
    """Output, running mean and running (unbiased) variance after two batches, and the output when serving."""
    import torch

    rng = np.random.default_rng(n)
    theirs, ours = torch.nn.BatchNorm1d(6), BatchNorm()
    scale, bias = rng.normal(size=(2, 6)).astype(np.float32)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(scale))
        theirs.bias.copy_(torch.tensor(bias))
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": np.zeros(6), "var": np.ones(6)}}
    for _ in range(2):
        x = rng.normal(2.0, 3.0, size=(n, 6)).astype(np.float32)
        out, changed = ours.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
        np.testing.assert_allclose(out, theirs(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
        variables = {**variables, **changed}
    np.testing.assert_allclose(variables["batch_stats"]["mean"], theirs.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(variables["batch_stats"]["var"], theirs.running_var.numpy(), rtol=1e-5)
    served = ours.apply(variables, jnp.asarray(x), train=False)
    np.testing.assert_allclose(served, theirs.eval()(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_padding_does_not_count():
    """A masked batch gives the statistics and the rows of the shorter batch."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    padded = jnp.concatenate([x, jnp.full((3, 3), 1e3)])
    norm = BatchNorm()
    variables = init(norm, x, train=False)
    short, stats = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    mask = jnp.arange(8) < 5
    long, masked_stats = norm.apply(variables, padded, train=True, mask=mask, mutable=["batch_stats"])
    np.testing.assert_allclose(long[:5], short, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stats, masked_stats)


def test_a_batch_of_one_normalises_to_the_bias():
    norm = BatchNorm()
    x = jnp.array([[3.0, -7.0]])
    variables = init(norm, x, train=False)
    out, stats = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    assert out.tolist() == [[0.0, 0.0]]
    # 0.9 x old + 0.1 x the batch's mean, and its variance of zero
    np.testing.assert_allclose(stats["batch_stats"]["mean"], [0.3, -0.7], rtol=1e-6)
    np.testing.assert_allclose(stats["batch_stats"]["var"], [0.9, 0.9], rtol=1e-6)


def test_a_bag_is_the_mean_of_its_embeddings():
    tower = deep(TowerInput("genres", "multi-categorical", 3), TowerInput("year", "numeric", 1), embedding_dim=2)
    bags = {"genres": jnp.array([[0, 2], [1, -1], [-1, -1]]), "year": jnp.zeros((3, 1))}
    variables = init(tower, bags)
    table = np.array([[2.0, 0.0], [5.0, 7.0], [4.0, 10.0]], np.float32)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: table if "genres_emb" in str(path) else leaf, variables
    )
    _, seen = tower.apply(variables, bags, capture_intermediates=lambda module, _: module.name == "hidden")
    hidden = variables["params"]["deep"]["hidden"]
    means = np.array([[3.0, 5.0, 0.0], [5.0, 7.0, 0.0], [0.0, 0.0, 0.0]])  # (rows 0 and 2) / 2, row 1, none
    expected = means @ hidden["kernel"] + hidden["bias"]
    np.testing.assert_allclose(seen["intermediates"]["deep"]["hidden"]["__call__"][0], expected, rtol=1e-5)


def test_a_zero_vector_has_a_finite_gradient():
    tower = deep(TowerInput("x", "numeric", 1))
    x = {"x": jnp.zeros((2, 1))}
    variables = init(tower, x)
    params = jax.tree.map(jnp.zeros_like, variables["params"])

    @jax.jit
    @jax.value_and_grad
    def total(params):
        return tower.apply({**variables, "params": params}, x).sum()

    value, gradient = total(params)
    assert float(value) == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_only_in_training(model, variables):
    c = rows(CUSTOMER, 8)

    def trained(noise):
        return model.apply(variables, c, noise=noise, mutable=["batch_stats"], method="encode_customers")[0]

    one, two = (jax.random.bits(jax.random.key(seed), (8, 64), jnp.uint16) for seed in (3, 4))
    assert not np.allclose(trained(one), trained(two))
    served = encode_customers(model, variables, c)
    np.testing.assert_array_equal(served, encode_customers(model, variables, c))


def test_dropout_drops_its_share_and_scales_the_rest():
    """The unit before the output is on in all rows: what comes out of a tower of one unit tells what dropped."""
    tower = deep(TowerInput("x", "numeric", 1), hidden_dim=1, output_dim=2)
    x = {"x": jnp.linspace(1.0, 2.0, 2**16)[:, None]}
    variables = init(tower, x)
    noise = jnp.arange(2**16, dtype=jnp.uint16)[:, None]
    _, seen = tower.apply(
        variables,
        x,
        noise=noise,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: module.name in ("norm", "output"),
    )
    normal, out = (seen["intermediates"]["deep"][name]["__call__"][0] for name in ("norm", "output"))
    output = variables["params"]["deep"]["output"]
    dropped = round(0.2 * 2**16)
    expected = np.where(noise < dropped, 0.0, np.asarray(normal) / 0.8) @ output["kernel"] + output["bias"]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_passes_are_batches_one_after_the_other():
    """Three batches at once give the vectors and the running statistics of the three, each alone."""
    rng, norm = np.random.default_rng(1), BatchNorm()
    x = jnp.asarray(rng.normal(size=(3, 5, 4)) * [[[1.0]], [[2.0]], [[9.0]]], jnp.float32)
    mask = jnp.arange(5) < 4
    alone = init(norm, x[0], train=False)
    together, stats = norm.apply(alone, x.reshape(15, 4), train=True, mask=mask, passes=3, mutable=["batch_stats"])
    for batch, rows_together in zip(x, together.reshape(3, 5, 4), strict=True):
        one, changed = norm.apply(alone, batch, train=True, mask=mask, mutable=["batch_stats"])
        np.testing.assert_allclose(rows_together, one, atol=1e-5)
        alone = {**alone, **changed}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats["batch_stats"], alone["batch_stats"])


PATHS = {
    "deep": {},
    "wide": {"wide_dim": 6, "deep": False},
    "wide and deep": {"wide_dim": 6, "output_dim": 8},
}
EVERY_KIND = (
    TowerInput("colour", "categorical", 400),
    TowerInput("tags", "multi-categorical", 300),
    TowerInput("age", "numeric", 1),
    TowerInput("income", "numeric", 2),
)


def every_kind(n: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(n)
    drawn = {
        "colour": rng.integers(0, 400, n).astype(np.int32),
        "tags": np.where(rng.random((n, 3)) < 0.3, -1, rng.integers(0, 300, (n, 3))).astype(np.int32),
        "age": rng.normal(size=(n, 1)).astype(np.float32),
        "income": np.stack([rng.normal(size=n), rng.random(n) < 0.5], axis=1).astype(np.float32),
    }
    return {name: jnp.asarray(column) for name, column in drawn.items()}


@pytest.fixture(params=PATHS)
def paths(request) -> TwoTower:
    """A model with each set of paths, on features of every kind."""
    return TwoTower(EVERY_KIND, EVERY_KIND, hidden_dim=300, **{"output_dim": 32, **PATHS[request.param]})


def test_init_has_finite_gradients(paths):
    """Where training starts, and where all parameters are zero: lengths of zero have no direction."""
    c, p = every_kind(5), every_kind(7)
    variables = init(paths, c, p)

    @jax.jit
    @jax.grad
    def gradient(params):
        one, other = paths.apply({**variables, "params": params}, c, p)
        return (one @ other.T).sum()

    for params in (variables["params"], jax.tree.map(lambda leaf: 0.0 * leaf, variables["params"])):
        allowed = jax.tree_util.tree_map_with_path(  # knots ascend, and a ball has a radius
            lambda path, leaf, start: start if path[-1].key.endswith(("_knots", "radius")) else leaf,
            params,
            variables["params"],
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(allowed)))
    moved = gradient(variables["params"])
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(moved["product"]))


def test_shapes_are_traced_once_and_belong_to_who_asks(paths):
    sides = every_kind(1), every_kind(1)
    first = paths.shapes(*sides)
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), first)
    first["params"]["customer"].clear()
    traced = _shapes.cache_info().misses
    again = paths.clone().shapes(*sides)
    assert _shapes.cache_info().misses == traced
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), again) == expected
    wider = replace(paths, customer_inputs=(TowerInput("colour", "categorical", 401), *EVERY_KIND[1:]))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), wider.shapes(*sides)) != expected


def test_vectors_have_unit_length_and_the_width_of_both_paths(paths):
    c, p = every_kind(5), every_kind(7)
    variables = init(paths, c, p)
    width = paths.wide_dim + paths.deep * paths.output_dim + (2 if paths.wide_dim else 0)
    for vectors in jax.jit(paths.apply)(variables, c, p):
        assert vectors.shape[1] == width
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_a_dot_product_of_a_wide_model_is_that_of_its_sums():
    """Written out: the sum of the values' vectors, numbers interpolated between knots, divided by both radii."""
    model = TwoTower(EVERY_KIND, EVERY_KIND, wide_dim=6, deep=False)
    c, p = every_kind(5), every_kind(7)
    variables = jax.tree.map(np.array, dict(init(model, c, p)))
    sums = []
    for side, rows_of in (("customer", c), ("product", p)):
        tower = variables["params"][side]
        wide, rows_of = tower["wide"], {name: np.asarray(column) for name, column in rows_of.items()}
        total = np.zeros((len(rows_of["colour"]), 6)) + wide["offset"] + wide["colour_emb"][rows_of["colour"]]
        for row, tags in enumerate(rows_of["tags"]):
            total[row] += wide["tags_emb"][tags[tags >= 0]].sum(axis=0)
        for name in ("age", "income"):
            x = rows_of[name]
            curve = np.stack([np.interp(x[:, 0], wide[f"{name}_knots"], column) for column in wide[f"{name}_emb"].T], 1)
            missing = x[:, 1:] > 0 if x.shape[1] == 2 else np.zeros((len(x), 1), bool)
            total += np.where(missing, wide.get(f"{name}_missing", 0.0), curve)
        tower["radius"] = np.float32(2 * np.linalg.norm(total, axis=1).max())
        sums.append(total / tower["radius"])
    one, other = jax.jit(model.apply)(variables, c, p)
    np.testing.assert_allclose(one @ other.T, sums[0] @ sums[1].T, atol=1e-6)


def test_a_deep_path_on_top_of_a_wide_one_starts_as_the_wide_one():
    """And its gradient is not zero: it can be trained from there."""
    c, p = every_kind(5), every_kind(7)
    both = TwoTower(EVERY_KIND, EVERY_KIND, wide_dim=6)
    variables = init(both, c, p)
    alone = TwoTower(EVERY_KIND, EVERY_KIND, wide_dim=6, deep=False)
    sides = variables["params"]
    wide = {"params": {side: {name: sides[side][name] for name in ("wide", "radius")} for side in sides}}
    one, other = jax.jit(both.apply)(variables, c, p)
    customers, products = jax.jit(alone.apply)(wide, c, p)
    # Both radii are 1; the customers' deep vectors, of length 1, make theirs the root of 2.
    np.testing.assert_allclose(one @ other.T * 2**0.5, customers @ products.T, atol=1e-6)

    @jax.jit
    @jax.grad
    def gradient(params):
        customers, products = both.apply({**variables, "params": params}, c, p)
        return (customers[0] * products[0]).sum()

    assert float(jnp.abs(gradient(sides)["product"]["deep_scale"])) > 0


def test_the_start_is_that_of_init(paths):
    """The same tree, and the same distributions: the start is drawn by NumPy, without compiling."""
    sides = every_kind(1), every_kind(1)
    flax = init(paths, *sides)
    ours, again, other = (initial_variables(paths, *sides, seed=np.random.SeedSequence(seed)) for seed in (0, 0, 1))
    assert jax.tree.structure(flax) == jax.tree.structure(ours)
    jax.tree.map(np.testing.assert_array_equal, ours, again)
    for (path, drawn), wanted, another in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(flax), jax.tree.leaves(other), strict=True
    ):
        assert drawn.shape == wanted.shape
        assert drawn.dtype == wanted.dtype
        if np.array_equal(drawn, another):  # a start that is not random
            np.testing.assert_array_equal(drawn, wanted)
            assert "kernel" not in str(path)
            assert "_emb" not in str(path)
            continue
        scale = float(wanted.std())
        assert abs(drawn.std() - scale) < scale * 4 / np.sqrt(drawn.size)
        assert abs(drawn.mean()) < scale * 4 / np.sqrt(drawn.size)
        if "_emb" not in str(path):
            bound = np.sqrt(3) * scale
            assert np.abs(drawn).max() <= bound * (1 + 4 / np.sqrt(drawn.size))
